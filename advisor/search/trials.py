"""What is kept of a search's trials, read back: how each ended, with which configuration, which is best.

The names of attributes are the format of a journal: runs of every version have them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.trial import FixedTrial, FrozenTrial, TrialState

from advisor.search.events import PlacedTrial, TrialEnd
from advisor.search.storage.journal import PLACE, VOID
from advisor.spaces.aliases import values_of

CONFIGURATION = "configuration"
"""Trial attribute: the whole configuration, where the parameters are not all of it."""
TRAIN_LOSSES = "train_losses"
"""Trial attribute: the training loss after each epoch, where the objective reports it."""
CUT = "cut"
"""Trial attribute: the time limit ended the trial, at its best epoch so far."""
QUARANTINED = "set_aside"
"""Trial attribute: the trial's configuration is not run again, see ``TrialEnd``."""


class SearchSpace(Protocol):
    """What the search needs of a space (``advisor.spaces.space.Space`` has it)."""

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The whole configuration of a trial."""

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """What to enqueue so that ``suggest`` returns ``configuration``."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    trials: those that count, by their index.
    best: None when none is complete and finite.
    timed_out: whether the time limit left a part of the budget unused.
    first: what the objective returned for the trial with index 0, where this call ran it.
    """

    trials: tuple[FrozenTrial, ...]
    best: FrozenTrial | None
    interrupted: bool
    timed_out: bool
    seconds: float
    first: Any = None

    def ranking(self) -> list[FrozenTrial]:
        """Complete trials that did not diverge, best first; of equals the earlier."""
        return ranking(self.trials)

    def number_of(self, end: TrialEnd) -> int:
        """How many trials ended so."""
        return sum(end_of(trial) == end for trial in self.trials)


def end_of(trial: FrozenTrial) -> TrialEnd:
    """How a finished trial ended."""
    if VOID in trial.user_attrs:
        return "discarded"
    if trial.state == TrialState.PRUNED:
        return "pruned"
    if trial.state == TrialState.COMPLETE:
        return "diverged" if trial.user_attrs.get("diverged") else "complete"
    return "quarantined" if trial.user_attrs.get(QUARANTINED) else "failed"


def index_of(trial: FrozenTrial) -> int:
    """The trial's index in the budget, of one that the search asked for."""
    return int(trial.user_attrs[PLACE])


def best_of(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial with the least value, of equals the earlier; None when none is complete and
    finite."""
    return min(filter(_is_success, trials), key=_order, default=None)


def ranking(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """As :meth:`SearchResult.ranking`."""
    return sorted(filter(_is_success, trials), key=_order)


def configuration_of(trial: FrozenTrial, space: SearchSpace) -> dict[str, Any]:
    """The whole configuration that a trial ran with."""
    kept = trial.user_attrs.get(CONFIGURATION)
    return values_of(kept) if kept else space.suggest(FixedTrial(trial.params))


def training_points(trial: FrozenTrial) -> dict[int, float]:
    """The finite training losses that are kept of a trial, by epoch; none of one that was ended early."""
    losses = trial.user_attrs.get(TRAIN_LOSSES, ())
    return {epoch: loss for epoch, loss in enumerate(losses, start=1) if math.isfinite(loss)}


def packing_of(trials: Iterable[FrozenTrial]) -> list[PlacedTrial]:
    """Which trial ran where and when, read from the attributes that the search keeps."""
    placed = [trial for trial in trials if trial.datetime_start is not None and "device" in trial.user_attrs]
    first = min((trial.datetime_start for trial in placed if trial.datetime_start), default=None)
    rows = []
    for trial in placed:
        assert trial.datetime_start is not None and first is not None
        known = trial.user_attrs
        asked = (trial.datetime_start - first).total_seconds()
        rows.append(
            PlacedTrial(
                number=trial.number,
                began=round(asked + known["waited"], 3),
                ended=round(asked + known["seconds"], 3),
                attempts=known.get("attempts", 1),
                worker=known["worker"],
                device=known["device"],
                memory=known.get("memory"),
                peak_memory=known.get("peak_memory"),
                micro_batch=known.get("micro_batch"),
            )
        )
    return rows


def _is_success(trial: FrozenTrial) -> bool:
    return end_of(trial) == "complete"


def _order(trial: FrozenTrial) -> tuple[float, int]:
    return (math.inf if trial.value is None else trial.value, trial.number)
