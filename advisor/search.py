"""The search: Optuna asks, an executor runs, Optuna is told. Knows numbers and names, nothing of models.

The budget is a row of places, 0 to trials - 1. A trial takes a place when it ends for a reason of its own (complete,
pruned, failed, set aside); a trial that ended because the driver died, was interrupted or ran out of time is *void* and
gives its place back. The sampler is seeded by place, so a resumed run asks again what the uninterrupted one would have
asked, and the budget is met exactly however often a run is killed.
"""

from __future__ import annotations

import bisect
import math
import signal
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from advisor import __version__
from advisor.errors import UserError, made_by_newer
from advisor.executors import Event, Executor, Failed, Finished, Job, Reported
from advisor.journal import PLACE, VOID, Journal, counts

FORMAT = 1
"""Format of the attributes that the search keeps in the study."""
PRUNE_AFTER_TRIALS = 5
"""Complete trials before the first is pruned: a median of fewer moves by its own half with every trial."""
PRUNE_AFTER_SHARE = 0.15
"""Share of the epochs that every trial may use: warm-up and one-cycle schedules are behind by design up to there."""
PRUNE_AFTER_EPOCHS = 3
"""... and never fewer epochs than this: the first losses are mostly the initialization's."""
KEPT_EPOCHS = 200
"""A learning curve is thinned to so many points: more make the journal grow and nobody sees the difference."""
ATTEMPTS = 3
"""A job is run again after its worker died; after so many deaths it is the configuration, and it is set aside."""
FAILURES_TO_STOP = 3
"""When so many trials have failed and none has worked, it is the set-up that is wrong and the rest would fail too."""
DIVERGED_LOSS = 1e6
"""The value of a diverged trial when no trial has reported a finite loss yet: worse than any, and finite for TPE."""
SECONDS_BETWEEN_CURVES = 2.0
"""How often the curve of a running trial goes to the journal: often enough to watch it in optuna-dashboard."""
SECONDS_OF_POLLING = 0.2
"""Longest wait for an event: Ctrl-C, the deadline and ``should_stop`` are looked at in between."""

TrialEnd = Literal["complete", "pruned", "diverged", "failed", "set aside", "void"]
"""complete: trained to its end, also by early stopping. pruned: stopped for being behind. diverged: a loss was not
finite. failed: the objective raised. set aside: its worker died ATTEMPTS times. void: does not count (see above)."""


class SearchSpace(Protocol):
    """What the search needs of a space (``advisor.spaces.Space`` has it)."""

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The whole configuration of a trial."""

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """What to enqueue so that ``suggest`` returns ``configuration``."""


class StudyStore(Protocol):
    """Where the study is kept (``advisor.journal.Journal``, ``advisor.storage.Database``); see Journal for the methods."""

    study: optuna.Study

    def together(self) -> AbstractContextManager[None]: ...
    def sync(self) -> None: ...
    def close_leftovers(self) -> list[int]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Started:
    number: int
    place: int
    origin: str
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class EpochDone:
    number: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class Ended:
    """``result`` is what the objective returned; it is not kept anywhere else."""

    number: int
    place: int
    end: TrialEnd
    value: float | None
    reason: str
    is_best: bool
    result: Any = None


SearchEvent = Started | EpochDone | Ended


@dataclass(frozen=True)
class RunningTrial:
    number: int
    origin: str
    epoch: int
    best: float


@dataclass(frozen=True)
class Progress:
    """Where the search stands, for a live view."""

    done: int
    trials: int
    running: tuple[RunningTrial, ...]
    best_number: int | None
    best_value: float | None
    seconds: float
    seconds_left: float | None


@dataclass(frozen=True)
class SearchResult:
    """``trials`` are those that count, by place; ``best`` is None when none is complete and finite."""

    trials: tuple[FrozenTrial, ...]
    best: FrozenTrial | None
    interrupted: bool
    timed_out: bool
    seconds: float

    def ranking(self) -> list[FrozenTrial]:
        """Complete trials that did not diverge, best first; of equals the earlier."""
        return sorted((trial for trial in self.trials if _is_success(trial)), key=_order)

    def number_of(self, end: TrialEnd) -> int:
        return sum(end_of(trial) == end for trial in self.trials)


def end_of(trial: FrozenTrial) -> TrialEnd:
    """How a finished trial ended."""
    if VOID in trial.user_attrs:
        return "void"
    if trial.state == TrialState.PRUNED:
        return "pruned"
    if trial.state == TrialState.COMPLETE:
        return "diverged" if trial.user_attrs.get("diverged") else "complete"
    return "set aside" if trial.user_attrs.get("set_aside") else "failed"


@dataclass(frozen=True)
class Plan:
    """What to search and how long.

    enqueue: origin -> configuration, run first, in this order, and never pruned; one outside the space runs too, but the
    sampler does not learn from it.
    space_text: a fingerprint or text of the space; a journal made with another one is refused.
    seed: None takes the seed that the journal was begun with, or 0.
    make_payload: (configuration, place) -> the payload of the job; place, not number, so that a resumed run repeats it.
    value_of: what the objective returned -> the value of a complete trial, finite; None: the best loss that it reported.
    """

    space: SearchSpace
    enqueue: Mapping[str, Mapping[str, Any]]
    trials: int
    max_epochs: int
    space_text: str = ""
    seed: int | None = None
    time_limit: float | None = None
    make_payload: Callable[[dict[str, Any], int], Mapping[str, Any]] = field(
        default=lambda configuration, place: {"configuration": configuration, "place": place}
    )
    value_of: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"trials must be at least 1, not {self.trials}")
        if self.max_epochs < 1:
            raise UserError(f"epochs must be at least 1, not {self.max_epochs}")
        if self.time_limit is not None and not self.time_limit >= 0:
            raise UserError(f"the time limit must be 0 seconds or more, not {self.time_limit}")


def search(
    plan: Plan,
    executor: Executor,
    store: Path | Callable[[], StudyStore],
    *,
    on_event: Callable[[SearchEvent, Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Run the plan to its end, or go on with a journal that has trials. store: the journal's file, or what opens a store.

    Ctrl-C once (or ``should_stop``) ends the running trials and returns with ``interrupted``; twice raises
    KeyboardInterrupt at once, and the journal can still be resumed. UserError when the journal is damaged or of another
    space or seed, and when the first trials all fail. On return the executor is open, with nothing running in it.
    """
    journal: StudyStore = Journal.open(store) if isinstance(store, Path) else store()
    try:
        with _interrupts() as interrupted:

            def stopped() -> bool:
                return interrupted.is_set() or (should_stop is not None and should_stop())

            return _Driver(plan, executor, journal, on_event, stopped, clock).run()
    finally:
        journal.close()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, the second is a KeyboardInterrupt. In other threads it is not ours to take."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class _Running:
    """A trial under way. ``told``: it has ended in the journal, and only its slot is still taken."""

    trial: optuna.Trial
    place: int
    origin: str
    payload: Mapping[str, Any]
    started: float
    attempt: int = 1
    told: bool = False
    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    returned: float | None = None
    curve: dict[int, float] = field(default_factory=dict)  # kept epochs, those in the journal too
    unwritten: dict[int, float] = field(default_factory=dict)
    last: tuple[int, float] | None = None
    written_at: float = 0.0


class _Median:
    """Is a trial behind? Its best loss so far against the median of the complete trials' best by the same epoch.

    Unlike Optuna's MedianPruner a trial that stopped early keeps its place in the comparison after its last epoch:
    otherwise late epochs would be compared with slow learners only. Built from the thinned curves in the journal, so a
    resumed run decides alike.
    """

    def __init__(self, max_epochs: int) -> None:
        self._first = max(PRUNE_AFTER_EPOCHS, math.ceil(PRUNE_AFTER_SHARE * max_epochs))
        self._curves: list[list[tuple[int, float]]] = []

    def learn(self, curve: Mapping[int, float]) -> None:
        best, points = math.inf, []
        for epoch in sorted(curve):
            best = min(best, curve[epoch])
            points.append((epoch, best))
        if points:
            self._curves.append(points)

    def is_behind(self, epoch: int, best: float) -> bool:
        if epoch < self._first or len(self._curves) < PRUNE_AFTER_TRIALS:
            return False
        others = sorted(_best_by(curve, epoch) for curve in self._curves)
        return best > others[len(others) // 2]


def _best_by(curve: Sequence[tuple[int, float]], epoch: int) -> float:
    best = math.inf
    for at, value in curve:
        if at > epoch:
            break
        best = value
    return best


class _Driver:
    """One call of :func:`search`."""

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        journal: StudyStore,
        on_event: Callable[[SearchEvent, Progress], None] | None,
        stopped: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._plan, self._executor, self._journal, self._study = plan, executor, journal, journal.study
        self._on_event, self._stopped, self._clock = on_event, stopped, clock
        self._seed = _agree_with_study(self._study, plan)
        self._begun = clock()
        self._running: dict[str, _Running] = {}
        self._median = _Median(plan.max_epochs)
        self._every = math.ceil(plan.max_epochs / KEPT_EPOCHS)
        self._best: tuple[float, int] | None = None
        self._worst: float | None = None
        self._successes = 0
        self._failures = 0
        self._done_here = 0
        self._free = self._free_places()

    # ------------------------------------------------------------------ the loop

    def run(self) -> SearchResult:
        interrupted = timed_out = False
        try:
            while self._free or self._running:
                interrupted = interrupted or self._stopped()
                timed_out = timed_out or self._is_late()
                if interrupted:
                    self._void_running("interrupted", keep_first=False)
                elif timed_out:
                    self._void_running("out of time", keep_first=True)
                self._submit(only_first=timed_out, none=interrupted)
                # After the submitting, before the waiting: the workers train while the disk writes.
                self._journal.sync()
                if not self._running:
                    break
                for event in self._executor.poll(self._patience()):
                    self._take(event)
        except BaseException:
            self._cancel_all()
            raise
        if not self._successes and self._failures:
            self._stop_for_failures()
        return self._result(interrupted, timed_out)

    def _submit(self, *, only_first: bool, none: bool) -> None:
        while self._free and len(self._running) < self._executor.slots:
            if none or (only_first and self._free[0] != 0):
                return
            self._start(self._free.pop(0))
            if self._stopped():
                return

    def _patience(self) -> float:
        if self._plan.time_limit is None:
            return SECONDS_OF_POLLING
        left = self._begun + self._plan.time_limit - self._clock()
        return min(SECONDS_OF_POLLING, max(0.0, left)) or SECONDS_OF_POLLING

    def _is_late(self) -> bool:
        return self._plan.time_limit is not None and self._clock() - self._begun >= self._plan.time_limit

    # ------------------------------------------------------------------ ask

    def _start(self, place: int) -> None:
        origins = list(self._plan.enqueue)
        origin = origins[place] if place < len(origins) else "search"
        try:
            trial, configuration = self._ask(place, origin)
        except ValueError as error:
            # Optuna refuses, say, a categorical whose choices differ from the journal's: a space that was changed.
            raise UserError(f"the search space does not fit the journal's trials ({error}): use a new run") from error
        running = _Running(trial, place, origin, self._plan.make_payload(configuration, place), self._clock())
        self._run_job(running)
        self._tell_listener(Started(trial.number, place, origin, configuration))

    def _ask(self, place: int, origin: str) -> tuple[optuna.Trial, dict[str, Any]]:
        # A sampler per place, not one that runs on: after a restart its state would not be the uninterrupted one's.
        self._study.sampler = _sampler(zlib.crc32(f"{self._seed}/{place}".encode()))
        attributes: dict[str, Any] = {PLACE: place, "origin": origin}
        wanted = self._plan.enqueue.get(origin)
        asked = None if wanted is None else self._encoded(wanted)
        if asked is not None:
            self._study.enqueue_trial(asked, user_attrs=attributes)
            attributes = {}
        elif wanted is not None:
            attributes["configuration"] = dict(wanted)
        trial = self._study.ask()
        with self._journal.together():
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            outside = wanted is not None and asked is None
            configuration = dict(wanted or {}) if outside else self._plan.space.suggest(trial)
        # Read back: what Optuna has against a parameter it says when it reads the record, and that must be here.
        self._study._storage.get_trial(trial._trial_id)
        return trial, configuration

    def _encoded(self, configuration: Mapping[str, Any]) -> dict[str, Any] | None:
        """What to enqueue; None for a configuration outside the space.

        Optuna would take a value outside its range with a mere warning, and then model a place that the search cannot
        reach. Such a trial runs with its configuration in an attribute and no parameters: the sampler learns nothing.
        """
        try:
            return self._plan.space.encode(configuration)
        except UserError:
            return None

    def _run_job(self, running: _Running) -> None:
        job = Job(f"trial-{running.trial.number}.{running.attempt}", running.payload)
        self._running[job.id] = running
        self._executor.submit(job)

    # ------------------------------------------------------------------ events

    def _take(self, event: Event) -> None:
        running = self._running.get(event.job_id)
        if running is None:
            # Delivered twice, or of an attempt that was given up: it has been counted, or must not be.
            return
        if isinstance(event, Reported):
            if not running.told:
                self._report(event, running)
            return
        del self._running[event.job_id]
        if running.told:
            return
        if isinstance(event, Finished):
            self._finish(running, event.result)
        elif isinstance(event, Failed):
            self._fail(running, event)
        else:
            self._end(running, "void", "cancelled")

    def _report(self, event: Reported, running: _Running) -> None:
        loss = event.loss
        if not math.isfinite(loss):
            self._diverge(event, running)
            return
        running.epoch = event.epoch
        if loss < running.best:
            running.best, running.best_epoch = loss, event.epoch
        running.last = (event.epoch, loss)
        if (event.epoch - 1) % self._every == 0:
            self._keep(running, event.epoch, loss)
        now = self._clock()
        if now - running.written_at >= SECONDS_BETWEEN_CURVES:
            self._write_curve(running, now)
        self._tell_listener(EpochDone(running.trial.number, event.epoch, loss))
        if running.origin == "search" and self._median.is_behind(event.epoch, running.best):
            self._executor.cancel(event.job_id)
            self._end(running, "pruned", f"behind the median at epoch {event.epoch}")

    def _keep(self, running: _Running, epoch: int, loss: float) -> None:
        if epoch not in running.curve:
            running.curve[epoch] = running.unwritten[epoch] = loss

    def _diverge(self, event: Reported, running: _Running) -> None:
        self._executor.cancel(event.job_id)
        self._end(running, "diverged", f"the loss was {event.loss} at epoch {event.epoch}")

    def _finish(self, running: _Running, result: Any) -> None:
        if running.last is None:
            self._failures += 1
            self._end(running, "failed", "the objective reported no loss")
            self._check_failures()
            return
        running.returned = None if self._plan.value_of is None else self._plan.value_of(result)
        self._end(running, "complete", "", result)

    def _fail(self, running: _Running, event: Failed) -> None:
        if event.worker_died and running.attempt < ATTEMPTS and not self._stopped():
            running.attempt += 1
            running.epoch, running.best, running.last = 0, math.inf, None
            self._run_job(running)
            return
        if event.worker_died and running.attempt < ATTEMPTS:
            self._end(running, "void", "interrupted")
            return
        self._failures += 1
        self._end(running, "set aside" if event.worker_died else "failed", event.error, details=event.traceback)
        self._check_failures()

    # ------------------------------------------------------------------ tell

    def _end(self, running: _Running, end: TrialEnd, reason: str, result: Any = None, *, details: str = "") -> None:
        """Tell a trial's end, once. Its slot may still be taken until the executor says that the job is over."""
        running.told = True
        trial = running.trial
        if running.last is not None:
            # The last epoch is what Optuna takes for a pruned trial's value, the best one is a complete trial's.
            self._keep(running, *running.last)
            if math.isfinite(running.best):
                self._keep(running, running.best_epoch, running.best)
        self._write_curve(running, self._clock())
        self._see(running.curve)
        value = self._value(running, end)
        state = {"complete": TrialState.COMPLETE, "diverged": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(
            end, TrialState.FAIL
        )
        # One write: a crash leaves the trial RUNNING or ended with all that belongs to it.
        with self._journal.together():
            for name, attribute in self._attributes(running, end, reason, details).items():
                trial.set_user_attr(name, attribute)
            if end == "diverged":
                trial.set_constraint("diverged", 1.0)
            self._study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
        if end == "void":
            bisect.insort(self._free, running.place)
            self._tell_listener(Ended(trial.number, running.place, end, None, reason, False))
            return
        self._done_here += 1
        is_best = self._learn(end, value, trial.number, running.curve)
        self._tell_listener(Ended(trial.number, running.place, end, value, reason, is_best, result))

    def _value(self, running: _Running, end: TrialEnd) -> float | None:
        if end == "complete":
            return running.best if running.returned is None else running.returned
        if end == "diverged":
            # The worst loss seen, not a constant: a value far off would squash every other in plots and importances.
            return DIVERGED_LOSS if self._worst is None else self._worst
        return running.last[1] if end == "pruned" and running.last is not None else None

    def _attributes(self, running: _Running, end: TrialEnd, reason: str, details: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "epochs": running.epoch,
            "seconds": round(self._clock() - running.started, 3),
        }
        if running.attempt > 1:
            attributes["attempts"] = running.attempt
        if end == "void":
            attributes[VOID] = reason
        elif reason:
            attributes["reason"] = reason
        if end in ("diverged", "set aside"):
            attributes[end.replace(" ", "_")] = True
        if details:
            attributes["traceback"] = details[-4000:]
        return attributes

    def _write_curve(self, running: _Running, now: float) -> None:
        if running.unwritten:
            with self._journal.together():
                for epoch, loss in running.unwritten.items():
                    running.trial.report(loss, epoch)
        running.unwritten, running.written_at = {}, now

    def _see(self, curve: Mapping[int, float]) -> None:
        """Remember the worst loss, of the kept epochs only: a resumed run knows no others and must decide alike."""
        worst = [*curve.values(), *([] if self._worst is None else [self._worst])]
        self._worst = max(worst, default=None)

    def _learn(self, end: TrialEnd, value: float | None, number: int, curve: Mapping[int, float]) -> bool:
        """Take a counted trial into account; is it the best so far?"""
        if end in ("complete", "pruned", "diverged"):
            self._successes += 1
        if end != "complete" or value is None:
            return False
        self._median.learn(curve)
        if self._best is None or value < self._best[0]:
            self._best = (value, number)
            return True
        return False

    # ------------------------------------------------------------------ stopping

    def _void_running(self, reason: str, *, keep_first: bool) -> None:
        for job_id, running in self._running.items():
            if not running.told and not (keep_first and running.place == 0):
                self._executor.cancel(job_id)
                self._end(running, "void", reason)

    def _cancel_all(self) -> None:
        for job_id in self._running:
            self._executor.cancel(job_id)

    def _check_failures(self) -> None:
        if not self._successes and self._failures >= FAILURES_TO_STOP:
            self._stop_for_failures()

    def _stop_for_failures(self) -> None:
        failed = [trial for trial in self._study.get_trials(deepcopy=False) if end_of(trial) in ("failed", "set aside")]
        reason = failed[-1].user_attrs.get("reason", "no reason given")
        raise UserError(f"all of the first {self._failures} trials failed, the last with {reason}")

    # ------------------------------------------------------------------ what has been

    def _free_places(self) -> list[int]:
        """Close what a dead driver left, take in what is finished; the places of the budget that are free."""
        self._journal.close_leftovers()
        taken = set()
        for trial in self._study.get_trials(deepcopy=False):
            if not counts(trial):
                continue
            taken.add(_place(trial))
            self._see(trial.intermediate_values)
            self._learn(end_of(trial), trial.value, trial.number, trial.intermediate_values)
        return [place for place in range(self._plan.trials) if place not in taken]

    def _result(self, interrupted: bool, timed_out: bool) -> SearchResult:
        trials = sorted(filter(counts, self._study.get_trials()), key=_place)
        best = min(filter(_is_success, trials), key=_order, default=None)
        return SearchResult(
            tuple(trials), best, interrupted, timed_out and bool(self._free), self._clock() - self._begun
        )

    def _tell_listener(self, event: SearchEvent) -> None:
        if self._on_event is not None:
            self._on_event(event, self._progress())

    def _progress(self) -> Progress:
        active = [running for running in self._running.values() if not running.told]
        open_places = len(self._free) + len(active)
        seconds = self._clock() - self._begun
        left = seconds / self._done_here * open_places if self._done_here else None
        if self._plan.time_limit is not None:
            until = max(0.0, self._plan.time_limit - seconds)
            left = until if left is None else min(left, until)
        best_value, best_number = self._best or (None, None)
        return Progress(
            done=self._plan.trials - open_places,
            trials=self._plan.trials,
            running=tuple(RunningTrial(one.trial.number, one.origin, one.epoch, one.best) for one in active),
            best_number=best_number,
            best_value=best_value,
            seconds=seconds,
            seconds_left=left,
        )


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        # group=True keeps conditional parameters in the joint model; that it is experimental is known and accepted.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)


def _place(trial: FrozenTrial) -> int:
    return int(trial.user_attrs[PLACE])


def _is_success(trial: FrozenTrial) -> bool:
    return end_of(trial) == "complete"


def _order(trial: FrozenTrial) -> tuple[float, int]:
    return (math.inf if trial.value is None else trial.value, trial.number)


def _agree_with_study(study: optuna.Study, plan: Plan) -> int:
    """Write the plan's identity into a new study, or check it against an old one's; the seed."""
    kept = study.user_attrs
    if not kept.get("advisor_format"):
        if study.get_trials(deepcopy=False):
            raise UserError("the journal's study has trials but was not begun by advisor: use a new run")
        seed = plan.seed or 0
        study.set_user_attr("seed", seed)
        study.set_user_attr("space", plan.space_text)
        study.set_user_attr("advisor", __version__)
        # Last: it says that the others are there.
        study.set_user_attr("advisor_format", FORMAT)
        return seed
    if kept["advisor_format"] > FORMAT:
        raise UserError(f"the study {made_by_newer(kept['advisor_format'], FORMAT, kept.get('advisor'))}")
    if kept.get("space") != plan.space_text:
        raise UserError("the search space differs from what this run was begun with, or the objective: use a new run (--out)")
    if plan.seed is not None and plan.seed != kept.get("seed"):
        raise UserError(f"this run has seed {kept.get('seed')}, not {plan.seed}: give that one, or use a new run")
    return int(kept["seed"])
