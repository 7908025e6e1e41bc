"""What a study has learnt from the trials that ended: whom to stop, which is best, what not to run again."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from advisor.search.events import TrialEnd
from advisor.search.trials import CONFIGURATION, end_of

DIVERGED_LOSS = 1e6
"""The value of a diverged trial when no trial has reported a finite loss yet: worse than any, and finite
for TPE."""
PRUNE_AFTER_TRIALS = 5
"""Complete trials before the first is pruned: a median of fewer moves by its own half with every trial."""
PRUNE_AFTER_SHARE = 0.15
"""Share of the epochs that every trial may use: warm-up and one-cycle schedules
are behind by design up to there."""
PRUNE_AFTER_EPOCHS = 3
"""... and never fewer epochs than this: the first losses are mostly the initialization's."""


class MedianStopping:
    """A trial's best loss so far against the median of the complete trials' best by the same epoch.

    Unlike Optuna's MedianPruner a trial that stopped early keeps its place in the comparison after its last
    epoch: otherwise late epochs would be compared with slow learners only. Built from the thinned curves in
    the journal, so a resumed run decides alike.
    """

    def __init__(self, max_epochs: int) -> None:
        self._first = max(PRUNE_AFTER_EPOCHS, math.ceil(PRUNE_AFTER_SHARE * max_epochs))
        self._curves: list[list[tuple[int, float]]] = []
        self._ordered: dict[int, list[float]] = {}  # epoch -> the curves' best by then, of the first ones

    def learn(self, curve: Mapping[int, float]) -> None:
        """Take in the epochs and losses of a complete trial."""
        best, points = math.inf, []
        for epoch in sorted(curve):
            best = min(best, curve[epoch])
            points.append((epoch, best))
        if points:
            self._curves.append(points)

    def should_prune(self, epoch: int, best: float) -> bool:
        """Is a trial with this best loss by this epoch worse than the median?"""
        if epoch < self._first or len(self._curves) < PRUNE_AFTER_TRIALS:
            return False
        others = self._ordered.setdefault(epoch, [])
        for curve in self._curves[len(others) :]:  # each is looked through once an epoch, not once a report
            bisect.insort(others, _best_by(curve, epoch))
        return best > others[len(others) // 2]


class History:
    """What follows from the trials that have ended.

    best: value and number of the best complete trial; None before there is one.
    successes, failures: of trials that could be trained, and of those that could not, since the study was
        opened; successes of the time before count too.
    """

    def __init__(self, max_epochs: int) -> None:
        self.median = MedianStopping(max_epochs)
        self.best: tuple[float, int] | None = None
        self.successes = 0
        self.failures = 0
        self._worst: float | None = None
        self._quarantined: dict[str, int] = {}

    def take_in(self, trial: FrozenTrial) -> None:
        """Learn from a counted trial of an earlier owner."""
        self.see(trial.intermediate_values)
        self.learn(end_of(trial), trial.value, trial.number, trial.intermediate_values)
        if end_of(trial) == "quarantined":
            self.quarantine(trial.params or trial.user_attrs.get(CONFIGURATION, {}), trial.number)

    def see(self, curve: Mapping[int, float]) -> None:
        """Remember the worst loss, of the kept epochs only: a resumed study knows
        no others and must decide alike."""
        worst = [*curve.values(), *([] if self._worst is None else [self._worst])]
        self._worst = max(worst, default=None)

    def learn(self, end: TrialEnd, value: float | None, number: int, curve: Mapping[int, float]) -> bool:
        """Take a counted trial into account; is it the best so far?"""
        if end in ("complete", "pruned", "diverged"):
            self.successes += 1
        if end != "complete" or value is None:
            return False
        self.median.learn(curve)
        if self.best is None or value < self.best[0]:
            self.best = (value, number)
            return True
        return False

    @property
    def infeasible(self) -> float:
        """The value of a trial that cannot be trained. The worst loss seen, not a constant: a value far off
        would squash every other in plots and importances."""
        return DIVERGED_LOSS if self._worst is None else self._worst

    def quarantine(self, parameters: Mapping[str, Any], number: int) -> None:
        """Keep a configuration from being run again."""
        self._quarantined.setdefault(_identity(parameters), number)

    def quarantined(self, parameters: Mapping[str, Any]) -> int | None:
        """The trial for which the configuration is not run again; None when it may run."""
        return self._quarantined.get(_identity(parameters))


def _identity(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True, default=str)


def _best_by(curve: Sequence[tuple[int, float]], epoch: int) -> float:
    best = math.inf
    for at, value in curve:
        if at > epoch:
            break
        best = value
    return best
