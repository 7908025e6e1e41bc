"""Intervals and class sets that hold the truth as often as they say (conformal prediction).

Calibrated on rows that were held out from training, each predicted by members that did not train on it, at
epochs that other rows chose: cross-conformal (Vovk 2015; CV+, Barber et al. 2021, with the pooled quantile).
Where whole groups or later rows were held out, the errors are those of new groups and of later rows. Own few
lines: MAPIE trains the folds again, and here they are trained already. NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.errors import UserError

MOST_ERRORS = 10_000
"""A model keeps at most this many errors, evenly from the smallest to the largest: a quantile needs no
more."""


@dataclass(frozen=True)
class Conformal:
    """Errors of held-out rows, ascending, (errors,).

    Of numbers: the absolute error; with a knee above 0 that of sign(y) log(1 + |y| / knee), so that intervals
    of a target that was learnt so are wide where it is large. Of classes: 1 - the true class's probability.
    rows: how many there were.
    """

    errors: NDArray[np.float64]
    rows: int
    knee: float = 0.0

    @classmethod
    def of_numbers(
        cls, target: NDArray[np.float64], predicted: NDArray[np.float64], knee: float = 0.0
    ) -> Conformal:
        """target, predicted: (rows,), of held-out rows."""
        return cls._of(np.abs(_squeezed(target, knee) - _squeezed(predicted, knee)), knee)

    @classmethod
    def of_classes(cls, target: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Conformal:
        """target: class codes (rows,); probabilities: (rows, classes)."""
        return cls._of(1 - probabilities[np.arange(len(target)), target])

    @classmethod
    def _of(cls, errors: NDArray[np.float64], knee: float = 0.0) -> Conformal:
        ordered = np.sort(errors)
        if len(ordered) > MOST_ERRORS:
            ordered = ordered[np.linspace(0, len(ordered) - 1, MOST_ERRORS).round().astype(np.int64)]
        return cls(ordered, len(errors), knee)

    def margin(self, level: float) -> float:
        """The error that a new row stays within with probability ``level``. UserError where it is no share,
        or where so few rows were held out that no finite margin holds so often."""
        if not 0 < level < 1:
            raise UserError(f"interval is {level}; expected a share between 0 and 1, such as 0.9")
        rank = math.ceil((self.rows + 1) * level)
        if rank > self.rows:
            raise UserError(
                f"{self.rows} rows were held out: an interval of {level:g} needs at least "
                f"{math.ceil(level / (1 - level))}; use a smaller one"
            )
        return float(self.errors[min(math.ceil(rank * len(self.errors) / self.rows), len(self.errors)) - 1])

    def intervals(self, predicted: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Low and high of each row, (rows, 2), in the target's unit."""
        middle, margin = _squeezed(predicted, self.knee), self.margin(level)
        return np.column_stack(
            [_stretched(middle - margin, self.knee), _stretched(middle + margin, self.knee)]
        )

    def sets(self, probabilities: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
        """Which classes may be the row's, (rows, classes); the most likely one always."""
        chosen = probabilities >= 1 - self.margin(level)
        chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
        return np.asarray(chosen)


def _squeezed(values: NDArray[np.float64], knee: float) -> NDArray[np.float64]:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values) / knee) if knee > 0 else values)


def _stretched(values: NDArray[np.float64], knee: float) -> NDArray[np.float64]:
    return np.asarray(np.sign(values) * knee * np.expm1(np.abs(values)) if knee > 0 else values)
