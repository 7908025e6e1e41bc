"""The trials of a study that a sampler learns from, as arrays: each is read once, when it has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

COMPLETE, PRUNED, INFEASIBLE = 0, 1, 2
"""How a trial ranks before its loss does: what was pruned is worse than any that is complete."""
_ROWS = 256  # that an array begins with


class FinishedTrials:
    """Complete and pruned trials, in the order in which they were seen to have ended.

    count: how many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._seen = 0
        self._unfinished: list[int] = []
        self._columns: dict[str, int] = {}
        self._values = np.full((_ROWS, 0), np.nan)
        self._ranks = np.zeros((_ROWS, 4))  # COMPLETE ..., two numbers that order it, and the trial's number
        self._spaces: dict[frozenset[str], FrozenTrial] = {}

    def refresh(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Take in those that have ended since the last time; the trials that are running.

        trials: all of the study, by their number.
        """
        looked = [*self._unfinished, *range(self._seen, len(trials))]
        self._unfinished, self._seen = [], len(trials)
        running = []
        for number in looked:
            trial = trials[number]
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._add(trial)
            elif not trial.state.is_finished():
                self._unfinished.append(number)
                if trial.state == TrialState.RUNNING:
                    running.append(trial)
        return running

    def _add(self, trial: FrozenTrial) -> None:
        names = frozenset(trial.distributions)
        first = self._spaces.get(names)
        if first is None or trial.number < first.number:
            self._spaces[names] = trial
        for name in trial.params.keys() - self._columns.keys():
            self._columns[name] = len(self._columns)
        self._grow()
        for name, value in trial.params.items():
            inner = trial.distributions[name].to_internal_repr(value)
            self._values[self.count, self._columns[name]] = inner
        self._ranks[self.count] = (*_rank(trial), trial.number)
        self.count += 1

    def _grow(self) -> None:
        rows, width = self._values.shape
        more_rows = rows if self.count == rows else 0
        if more_rows or width < len(self._columns):
            wider = ((0, more_rows), (0, len(self._columns) - width))
            self._values = np.pad(self._values, wider, constant_values=np.nan)
            self._ranks = np.pad(self._ranks, ((0, more_rows), (0, 0)))

    def spaces(self) -> list[Mapping[str, BaseDistribution]]:
        """The distributions of the first trial (by number) with each set of parameters, in their order."""
        return [one.distributions for one in sorted(self._spaces.values(), key=lambda one: one.number)]

    def by_rank(self) -> NDArray[np.intp]:
        """The places of the trials, best first, of equals the earlier."""
        kind, first, second, number = self._ranks[: self.count].T
        return np.lexsort((number, second, first, kind))

    def in_order(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """These places, in the order of their trials' numbers."""
        return places[np.argsort(self._ranks[places, 3])]

    def with_all(self, places: NDArray[np.intp], names: Sequence[str]) -> NDArray[np.intp]:
        """Of these places those whose trials have all these parameters."""
        if any(name not in self._columns for name in names):
            return places[:0]
        columns = [self._columns[name] for name in names]
        missing: NDArray[np.bool_] = np.isnan(self._values[places][:, columns]).any(axis=1)
        return places[~missing]

    def observations(self, places: NDArray[np.intp], names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Parameter -> its values at these places, which have it, as Optuna's distributions count them."""
        return {
            name: self._values[places, self._columns[name]] if len(places) else np.empty(0) for name in names
        }


def _rank(trial: FrozenTrial) -> tuple[int, float, float]:
    """What orders trials from the best to the worst, as Optuna's TPE does."""
    violation = sum(value for value in trial.constraints.values() if value > 0)
    if violation > 0:
        return INFEASIBLE, violation, 0.0
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return COMPLETE, trial.value, 0.0
    if not trial.intermediate_values:
        return PRUNED, 1.0, 0.0
    step, loss = max(trial.intermediate_values.items())
    return PRUNED, -step, math.inf if math.isnan(loss) else loss
