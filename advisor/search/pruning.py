"""Is a trial behind? Its curve against those of the trials before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
        self._medians: dict[int, float] = {}

    def learn(self, curve: Mapping[int, float]) -> None:
        """Take in the epochs and losses of a complete trial."""
        best, points = math.inf, []
        for epoch in sorted(curve):
            best = min(best, curve[epoch])
            points.append((epoch, best))
        if points:
            self._curves.append(points)
            self._medians.clear()

    def is_behind(self, epoch: int, best: float) -> bool:
        """Is a trial with this best loss by this epoch behind the median?"""
        if epoch < self._first or len(self._curves) < PRUNE_AFTER_TRIALS:
            return False
        if epoch not in self._medians:
            # Kept until the next trial ends: thousands of curves are looked
            # through once an epoch, not once a report.
            others = sorted(_best_by(curve, epoch) for curve in self._curves)
            self._medians[epoch] = others[len(others) // 2]
        return best > self._medians[epoch]


def _best_by(curve: Sequence[tuple[int, float]], epoch: int) -> float:
    best = math.inf
    for at, value in curve:
        if at > epoch:
            break
        best = value
    return best
