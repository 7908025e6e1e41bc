"""Typed arrays: what the data layer hands to the training layer. NumPy only, so
a worker needs no table library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from advisor.kinds import Kind

Task = Literal["binary", "multiclass", "regression"]

MISSING = -1
"""Category code of a missing value."""
UNSEEN = -2
"""Category code of a level that is not among the levels known when the table was read for training."""

LARGEST = 1e30
"""Trees take 32-bit numbers, up to 3e38; a sum of them must not overflow either."""
LATEST_SHARE = 0.05
"""The latest of the training rows, so many, count as of one time: a last year of
few rows has a level by chance."""


@dataclass(frozen=True, repr=False)
class Features:
    """The features of some rows, before any statistic has been fitted.

    numeric: float64, shape (rows, numeric columns); NaN is missing, no infinities.
    categorical: int32, shape (rows, categorical columns); an index into
        ``levels[column]``, MISSING or UNSEEN.
    levels: per categorical column its level texts, sorted, so that codes keep
        their order whatever rows are used.
    trend: the numeric columns that grow with time, so that new rows lie beyond the training rows.
    words: the numeric columns that are words of texts, whose squares add up to 1 in a row.
    """

    numeric: NDArray[np.float64]
    categorical: NDArray[np.int32]
    numeric_names: tuple[str, ...]
    categorical_names: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    trend: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.numeric.shape != (len(self.categorical), len(self.numeric_names)):
            raise ValueError(f"numeric has shape {self.numeric.shape} for {len(self.numeric_names)} names")
        if self.categorical.shape != (len(self.numeric), len(self.categorical_names)):
            raise ValueError(
                f"categorical has shape {self.categorical.shape} for {len(self.categorical_names)} names"
            )
        if len(self.levels) != len(self.categorical_names):
            raise ValueError("levels and categorical_names differ in length")

    def __len__(self) -> int:
        return len(self.numeric)

    @property
    def word_columns(self) -> NDArray[np.bool_]:
        """Which numeric columns are words of texts, shape (numeric columns,)."""
        words = set(self.words)
        return np.array([name in words for name in self.numeric_names], dtype=bool)

    def for_trees(self) -> NDArray[np.float64]:
        """All columns as numbers, shape (rows, columns): what 32 bits cannot hold
        stays the largest, codes as they are."""
        numbers = np.clip(self.numeric, -LARGEST, LARGEST)
        return np.concatenate([numbers, self.categorical.astype(np.float64)], axis=1)

    def part(self, rows: slice) -> Features:
        """Some of the rows, in order."""
        return replace(self, numeric=self.numeric[rows], categorical=self.categorical[rows])


@dataclass(frozen=True, repr=False)
class Signals:
    """Images or sequences of some rows, before any statistic has been fitted.

    values: images as uint8, shape (rows, channels, height, width); sequences as float32, shape (rows,
        channels, length), where NaN is a missing point or one past the end of a shorter sequence.
        They may lie in a file (``np.memmap``).
    """

    values: NDArray[Any]

    def __post_init__(self) -> None:
        if (self.values.ndim, self.values.dtype.name) not in ((4, "uint8"), (3, "float32")):
            raise ValueError(
                f"{self.values.dtype} of {self.values.ndim} dimensions is neither images nor sequences"
            )

    @property
    def kind(self) -> Kind:
        return "image" if self.values.ndim == 4 else "sequence"

    def __len__(self) -> int:
        return len(self.values)

    def part(self, rows: slice) -> Signals:
        """Some of the rows, in order."""
        return Signals(self.values[rows])


@dataclass(frozen=True, repr=False)
class Dataset:
    """Features (a table's) or signals with their target, in row order.

    target: int64 class codes (an index into ``classes``) for classification,
        float64 for regression; shape (rows,).
    classes: the class labels as text, in code order; empty for regression.
    groups, times: per row a group code / a time rank when the user named such a column, else None.
    weights: how much each row counts when it validates, positive with mean 1;
        None: all alike. Training ignores them.
    """

    features: Features | Signals
    target: NDArray[np.int64] | NDArray[np.float64]
    task: Task
    classes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows have a target, (rows,)."""
        return np.asarray(np.isfinite(self.target) if self.task == "regression" else self.target >= 0)

    def weights_of(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The weights of these rows; None: all alike."""
        return None if self.weights is None else self.weights[rows]
