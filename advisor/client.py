"""A service of ours from Python: advice, ask and tell. The standard library is all that it needs.

>>> import advisor
>>> service = advisor.connect("http://127.0.0.1:8571")                      # doctest: +SKIP
>>> study = service.create_study(space={"lr": {"name": "FloatDistribution",
...     "attributes": {"low": 1e-5, "high": 1e-1, "log": True, "step": None}}}, trials=40)   # doctest: +SKIP
>>> while (trial := study.ask()) is not None:                                # doctest: +SKIP
...     study.tell(trial, my_loss(trial.suggest_float("lr", 1e-5, 1e-1)))
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from advisor.errors import UserError, did_you_mean

TOKEN = "ADVISOR_TOKEN"
"""The environment variable that holds the token, where none is given."""
TIMEOUT = 60.0
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 20, 0.2, 5.0
"""A request that is not answered, or answered 429, 503 or 507, is sent again so often: it may be, for each
carries a key or changes nothing the second time."""
AGAIN = (429, 503, 507)
BEATS = 3
"""Signs of life in the time of a lease."""


class ServiceError(UserError):
    """The service refused. status: its HTTP status; document: the problem document."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(f"the service answered {status}: {document.get('detail') or document}")
        self.status, self.document = status, document


def connect(url: str, token: str | None = None) -> RemoteService:
    """A service at a URL. token: by default the environment's ADVISOR_TOKEN. UserError for what is no URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{url[:200]} is not the URL of a service: expected http://HOST:PORT")
    secret = token or os.environ.get(TOKEN, "")
    if not secret:
        raise UserError(f"give a token, or set {TOKEN}: `advisor token create` makes one")
    return RemoteService(url.rstrip("/"), secret)


@dataclass
class RemoteService:
    """One service. Its methods may be called from several threads."""

    url: str
    token: str = field(repr=False)
    _local: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    def request(self, method: str, path: str, body: object = None, key: str | None = None) -> Any:
        """The answer's JSON. ServiceError where it is refused; UserError where nobody answers."""
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        headers |= {} if key is None else {"Idempotency-Key": key}
        pause, reason = FIRST_PAUSE, "no answer"
        for _ in range(TRIES):
            try:
                status, answer, again = self._once(method, path, content, headers)
            except (OSError, http.client.HTTPException) as error:
                reason, again = str(error) or type(error).__name__, 0.0
                self._drop()
            else:
                if status not in AGAIN:
                    return self._read(status, answer)
                reason = f"it answered {status}"
            time.sleep(max(pause, again))
            pause = min(LONGEST_PAUSE, 2 * pause)
        raise UserError(f"the service at {self.url} does not answer ({reason})")

    def _once(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, float]:
        line = getattr(self._local, "line", None)
        if line is None:
            parts = urlsplit(self.url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            line = self._local.line = kind(str(parts.hostname), parts.port, timeout=TIMEOUT)
        line.request(method, urlsplit(self.url).path + path, content, dict(headers))
        answer = line.getresponse()
        again = answer.headers.get("Retry-After", "0")
        return answer.status, answer.read(), float(again) if again.isdigit() else 0.0

    def _drop(self) -> None:
        line = getattr(self._local, "line", None)
        if line is not None:
            line.close()
            self._local.line = None

    def _read(self, status: int, answer: bytes) -> Any:
        try:
            document = json.loads(answer) if answer else None
        except ValueError:
            document = {"detail": "something that is not JSON: is this the URL of a service?"}
            status = max(status, 400)
        if status >= 400:
            raise ServiceError(status, document if isinstance(document, Mapping) else {})
        return document

    # ------------------------------------------------------------------------------------------- advice

    def recommend(self, facts: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """What to use, what to search and why, for the content of facts.json: no row leaves this machine.

        options: name, fixed, without, rules (ids of rule packs), seed. The answer has an id for what follows.
        """
        body = {"facts": {name: value for name, value in facts.items() if name != "samples"}, **options}
        answer: dict[str, Any] = self.request("POST", "/v1/recommendations", body, secrets.token_hex(16))
        return answer

    def why(self, recommendation: str, parameter: str) -> dict[str, Any]:
        """Why a parameter has its value; ``text`` is a paragraph."""
        path = f"/v1/recommendations/{quote(recommendation)}/why/{quote(parameter)}"
        answer: dict[str, Any] = self.request("GET", path)
        return answer

    def what_if(self, recommendation: str, facts: Mapping[str, Any], **fixed: Any) -> dict[str, Any]:
        """What would be recommended if some facts, or some of your own values, were others."""
        path = f"/v1/recommendations/{quote(recommendation)}/what-if"
        answer: dict[str, Any] = self.request("POST", path, {"facts": dict(facts), "fixed": fixed})
        return answer

    # ------------------------------------------------------------------------------------------ studies

    def create_study(self, **options: Any) -> RemoteStudy:
        """A new study. options: those of ``POST /v1/studies``: recommendation, space, trials, direction,
        ..."""
        made = self.request("POST", "/v1/studies", options, secrets.token_hex(16))
        return RemoteStudy(self, made["id"])

    def study(self, study_id: str) -> RemoteStudy:
        """A study that is there already, also from another machine."""
        return RemoteStudy(self, study_id)


@dataclass
class RemoteTrial:
    """A trial that this process has. Has what an Optuna trial has where an objective needs it."""

    study: RemoteStudy
    number: int
    attempt: int
    params: dict[str, Any]
    lease_seconds: float
    stopped: bool = False
    why: str = ""

    def report(self, value: float, step: int) -> None:
        """Tell a loss after ``step`` epochs (the first is 1); then ask ``should_prune``."""
        loss = float(value) if math.isfinite(value) else None
        answer = self.study.send(self, "reports", {"epoch": int(step), "loss": loss})
        self.stopped, self.why = answer["stop"], answer["why"]

    def should_prune(self) -> bool:
        """Whether the last report was answered with a stop; ``why`` says the reason."""
        return self.stopped

    def suggest_float(self, name: str, *_: Any, **__: Any) -> float:
        """The value that the service chose; the range is the study's."""
        return float(self._value(name))

    def suggest_int(self, name: str, *_: Any, **__: Any) -> int:
        """The value that the service chose; the range is the study's."""
        return int(self._value(name))

    def suggest_categorical(self, name: str, *_: Any, **__: Any) -> Any:
        """The value that the service chose; the choices are the study's."""
        return self._value(name)

    def _value(self, name: str) -> Any:
        if name not in self.params:
            raise UserError(f"the study has no parameter '{name}'{did_you_mean(name, self.params)}")
        return self.params[name]


@dataclass
class RemoteStudy:
    """A study of a service: ``ask``, ``tell`` and ``optimize`` as Optuna's study has them."""

    service: RemoteService
    id: str
    _beating: dict[int, RemoteTrial] = field(default_factory=dict, init=False, repr=False, compare=False)
    _beater: threading.Thread | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def path(self) -> str:
        """Where its routes are."""
        return f"/v1/studies/{quote(self.id)}"

    def ask(self, worker: str = "", *, wait: bool = True) -> RemoteTrial | None:
        """The next trial; None when the budget is used up (or, without ``wait``, when all of it is out).

        Until it is told, a thread of this process keeps its lease.
        """
        while True:
            answer = self.service.request(
                "POST", f"{self.path}/trials", {"worker": worker}, secrets.token_hex(16)
            )
            given = answer["trial"]
            if given is not None:
                break
            if answer["state"] == "finished" or not wait:
                return None
            time.sleep(answer["retry_after"])
        trial = RemoteTrial(
            self, given["number"], given["attempt"], given["configuration"], given["lease_seconds"]
        )
        self._beating[trial.number] = trial
        if self._beater is None:
            self._beater = threading.Thread(target=self._beat, daemon=True, name="advisor-leases")
            self._beater.start()
        return trial

    def tell(self, trial: RemoteTrial, value: float | None = None, state: Any = None) -> dict[str, Any]:
        """Tell how a trial ended: its value, or state FAIL (a word, or Optuna's TrialState). How it ended is
        answered. A trial that was pruned has ended already."""
        name = getattr(state, "name", state)
        try:
            if name == "FAIL":
                return self.send(trial, "fail", {})
            if name == "PRUNED" and trial.stopped:
                return {"number": trial.number, "state": "pruned", "reason": trial.why}
            if value is not None and not math.isfinite(value):
                return self.send(trial, "reports", {"epoch": 2**31, "loss": None})
            return self.send(trial, "complete", {"value": None if value is None else float(value)})
        finally:
            self._beating.pop(trial.number, None)

    def optimize(self, objective: Callable[[RemoteTrial], float | None], n_trials: int | None = None) -> None:
        """Ask, call, tell, until the budget is used up or ``n_trials`` were run here.

        An exception of the objective fails its trial and is raised; one called TrialPruned (Optuna's)
        prunes it."""
        done = 0
        while n_trials is None or done < n_trials:
            trial = self.ask()
            if trial is None:
                return
            done += 1
            try:
                value = objective(trial)
            except BaseException as error:
                pruned = type(error).__name__ == "TrialPruned"
                with contextlib.suppress(UserError):
                    self.tell(trial, state="PRUNED" if pruned else "FAIL")
                if not pruned:
                    raise
            else:
                if not trial.stopped:
                    self.tell(trial, value)
                self._beating.pop(trial.number, None)

    def send(self, trial: RemoteTrial, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One of the trial's routes."""
        path = f"{self.path}/trials/{trial.number}/{verb}"
        answer: dict[str, Any] = self.service.request("POST", path, {**body, "attempt": trial.attempt})
        return answer

    @property
    def best(self) -> dict[str, Any]:
        """The best trial so far: number, value, configuration. ServiceError (404) while there is none."""
        answer: dict[str, Any] = self.service.request("GET", f"{self.path}/best")
        return answer

    @property
    def best_params(self) -> dict[str, Any]:
        """Its configuration."""
        return dict(self.best["configuration"])

    @property
    def best_value(self) -> float:
        """Its value."""
        return float(self.best["value"])

    @property
    def importance(self) -> dict[str, float]:
        """How much of the differences each parameter explains."""
        return dict(self.service.request("GET", f"{self.path}/importance")["importance"])

    def trials(self) -> Iterator[dict[str, Any]]:
        """The trials that have ended, in the order of the budget."""
        cursor: int | None = 0
        while cursor is not None:
            page = self.service.request("GET", f"{self.path}/trials?cursor={cursor}")
            items: Sequence[dict[str, Any]] = page["items"]
            yield from items
            cursor = page["cursor"]

    def _beat(self) -> None:
        while True:
            trials = list(self._beating.values())
            time.sleep(min((trial.lease_seconds for trial in trials), default=BEATS) / BEATS)
            for trial in list(self._beating.values()):
                with contextlib.suppress(UserError):  # the next report says what is wrong
                    self.send(trial, "heartbeat", {})
