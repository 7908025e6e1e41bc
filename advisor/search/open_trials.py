"""How a trial is proposed, and what is known of it until it is told to have ended."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from advisor.errors import UserError
from advisor.search.events import Assignment, TrialEnd
from advisor.search.plan import SearchPlan, StudyStore
from advisor.search.storage.journal import PLACE, VOID, counts
from advisor.search.trials import CONFIGURATION, CUT, QUARANTINED, TRAIN_LOSSES, index_of

NOTE = "note"
"""Trial attribute: what its asker wrote down with it, such as the key of a request."""
TRACEBACK_CHARACTERS = 4000
"""Of a traceback, at most the last this many are kept."""


@dataclass
class OpenTrial:
    """A trial that was asked for and has not ended."""

    trial: optuna.Trial
    index: int
    origin: str
    configuration: Mapping[str, Any]
    started: float
    note: Mapping[str, str]
    attempt: int = 1
    deaths: int = 0
    micro_batch: int | None = None
    memory: float = 0.0
    peak_memory: float = 0.0
    worker: str | None = None
    device: str = ""
    waited: float = 0.0
    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    train_losses: list[float] = field(default_factory=list)
    cut: bool = False
    curve: dict[int, float] = field(default_factory=dict)  # kept epochs, those in the journal too
    unwritten: dict[int, float] = field(default_factory=dict)
    last: tuple[int, float] | None = None
    written_at: float = 0.0

    def keep(self, epoch: int, loss: float) -> None:
        """A point of the curve, unless it is known."""
        if epoch not in self.curve:
            self.curve[epoch] = self.unwritten[epoch] = loss

    def begin_again(self) -> None:
        """Forget what an attempt reported."""
        self.attempt += 1
        self.epoch, self.best, self.last, self.curve, self.unwritten = 0, math.inf, None, {}, {}

    def assignment(self) -> Assignment:
        """What its worker has to know."""
        return Assignment(
            self.trial.number,
            self.index,
            self.attempt,
            self.origin,
            self.configuration,
            self.micro_batch,
            self.memory,
            self.note,
        )

    def attributes(self, end: TrialEnd, reason: str, details: str, seconds: float) -> dict[str, Any]:
        """What the study keeps of the trial's end, ``seconds`` after it was asked for."""
        attributes: dict[str, Any] = {
            "epochs": self.epoch,
            "seconds": round(seconds, 3),
        }
        if self.attempt > 1:
            attributes["attempts"] = self.attempt
        if self.micro_batch is not None:
            attributes["micro_batch"] = self.micro_batch
        if self.memory:
            attributes["memory"] = round(self.memory)
        if self.peak_memory:
            attributes["peak_memory"] = round(self.peak_memory)
        if self.worker is not None:
            attributes |= {"worker": self.worker, "device": self.device, "waited": round(self.waited, 3)}
        if self.cut:
            attributes[CUT] = True
        if self.train_losses:
            attributes[TRAIN_LOSSES] = self.train_losses
        if end == "discarded":
            attributes[VOID] = reason
        elif reason:
            attributes["reason"] = reason
        if end == "diverged":
            attributes["diverged"] = True
        elif end == "quarantined":
            attributes[QUARANTINED] = True
        if details:
            attributes["traceback"] = details[-TRACEBACK_CHARACTERS:]
        return attributes


def adoptable(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The trials that an earlier owner gave out and that have not ended, by their index."""
    known = list(trials)
    taken = {index_of(trial) for trial in known if counts(trial)}
    found: dict[int, FrozenTrial] = {}
    for trial in known:
        index = trial.user_attrs.get(PLACE)
        if trial.state == TrialState.RUNNING and isinstance(index, int) and index not in taken:
            found.setdefault(index, trial)
    return found


class Proposer:
    """Asks Optuna for the trial of an index."""

    def __init__(self, plan: SearchPlan, store: StudyStore, seed: int) -> None:
        self._plan, self._store, self._study, self._seed = plan, store, store.study, seed

    def propose(
        self, index: int, origin: str, attempt: int, note: Mapping[str, str]
    ) -> tuple[optuna.Trial, dict[str, Any]]:
        """A new trial for the index, and its configuration.

        attempt: how many proposals for the index were refused before.
        ValueError when the space does not fit the trials in the store.
        """
        self._seed_sampler(index, attempt)
        attributes: dict[str, Any] = {PLACE: index, "origin": origin}
        if note:
            attributes[NOTE] = dict(note)
        wanted = self._plan.enqueue.get(origin)
        asked = None if wanted is None else self._encoded(wanted)
        if asked is not None:
            self._study.enqueue_trial(asked, user_attrs=attributes)
            attributes = {}
        elif wanted is not None:
            attributes[CONFIGURATION] = dict(wanted)
        trial = self._study.ask()
        with self._store.together():
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            outside = wanted is not None and asked is None
            configuration = dict(wanted or {}) if outside else self._plan.space.suggest(trial)
        # Read back: what Optuna has against a parameter it says when it reads
        # the record, and that must be here.
        self._study._storage.get_trial(trial._trial_id)
        return trial, configuration

    def _seed_sampler(self, index: int, attempt: int) -> None:
        # A sampler per index, not one that runs on: after a restart its state
        # would not be the uninterrupted one's.
        again = f"/{attempt}" if attempt else ""
        self._study.sampler = self._plan.sampler(zlib.crc32(f"{self._seed}/{index}{again}".encode()))

    def repeat(self, index: int, kept: FrozenTrial) -> tuple[optuna.Trial, dict[str, Any]]:
        """A trial that an earlier owner gave out, and its configuration. What was suggested before that one
        died is read from the store, the rest is suggested."""
        self._seed_sampler(index, 0)
        trial = optuna.Trial(self._study, kept._trial_id)
        known = kept.user_attrs.get(CONFIGURATION)
        with self._store.together():
            return trial, dict(known) if known else self._plan.space.suggest(trial)

    def _encoded(self, configuration: Mapping[str, Any]) -> dict[str, Any] | None:
        """What to enqueue; None for a configuration outside the space.

        Optuna would take a value outside its range with a mere warning, and then model a region that
        the search cannot reach. Such a trial runs with its configuration in an attribute and no
        parameters: the sampler learns nothing.
        """
        try:
            return self._plan.space.encode(configuration)
        except UserError:
            return None
