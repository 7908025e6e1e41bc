"""Typed arrays: what the data layer hands to the training layer. NumPy only, so
a worker needs no table library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray

from advisor.kinds import Kind
from advisor.tasks import TargetT, Task, task_of

MISSING = -1
"""Category code of a missing value."""
UNSEEN = -2
"""Category code of a level that is not among the levels known when the table was read for training."""

LARGEST = 1e30
"""Trees take 32-bit numbers, up to 3e38; a sum of them must not overflow either."""
LATEST_SHARE = 0.05
"""The latest of the training rows, this many, count as of one time: a last year of
few rows has a level by chance."""


@dataclass(frozen=True)
class Cycle:
    """What comes round in a numeric column. name: of the column; unit: such as "hour"; period: after how
    much, in the column's own numbers."""

    name: str
    unit: str
    period: float


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
    calendar: what comes round in numeric columns, such as hours.
    working: the numeric columns, 0 or 1, that tell working days from others.
    """

    numeric: NDArray[np.float64]
    categorical: NDArray[np.int32]
    numeric_names: tuple[str, ...]
    categorical_names: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    trend: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    calendar: tuple[Cycle, ...] = ()
    working: tuple[str, ...] = ()

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

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        return "table"

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and points of a row that lies on a grid: of a table's rows nothing."""
        return ()

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All that the rows hold, each (rows, ...)."""
        return self.numeric, self.categorical

    def as_table(self, numbers: int) -> Features:
        """The rows as columns: these."""
        return self

    def part(self, rows: slice | NDArray[np.generic]) -> Features:
        """Some of the rows, in the order given."""
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

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and points of a row: (channels, height, width) or (channels, length)."""
        return tuple(self.values.shape[1:])

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All that the rows hold, each (rows, ...)."""
        return (self.values,)

    def __len__(self) -> int:
        return len(self.values)

    def as_table(self, numbers: int) -> Features:
        """The rows as about this many columns of averages."""
        columns = averaged(self.values, numbers)
        names = tuple(map(str, range(columns.shape[1])))
        return Features(columns, np.zeros((len(columns), 0), np.int32), names, (), ())

    def part(self, rows: slice | NDArray[np.generic]) -> Signals:
        """Some of the rows, in the order given."""
        return Signals(np.ascontiguousarray(self.values[rows]))


@dataclass(frozen=True, repr=False)
class Scenes(Signals):
    """Images of which every point has a class, uint8 (rows, channels, height, width)."""

    @property
    def kind(self) -> Kind:
        return "mask"

    def part(self, rows: slice | NDArray[np.generic]) -> Scenes:
        """Some of the rows, in the order given."""
        return Scenes(np.ascontiguousarray(self.values[rows]))


@dataclass(frozen=True, repr=False)
class BoxedImages(Signals):
    """Images with a list of boxes each, uint8 (rows, channels, height, width)."""

    @property
    def kind(self) -> Kind:
        return "boxes"

    def part(self, rows: slice | NDArray[np.generic]) -> BoxedImages:
        """Some of the rows, in the order given."""
        return BoxedImages(np.ascontiguousarray(self.values[rows]))


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    FeaturesT = TypeVar("FeaturesT", bound=Features | Signals, default=Features | Signals, covariant=True)
else:
    from typing import TypeVar

    FeaturesT = TypeVar("FeaturesT", covariant=True)
"""The features of a data set; without a word those of any kind."""


@dataclass(frozen=True, repr=False)
class Dataset(Generic[TargetT, FeaturesT]):
    """Features (a table's) or signals with their target, in row order.

    target: by the task; without a word (``Dataset``) one value per row, (rows,): int64 class codes (an index
        into ``classes``) or float64 numbers. ``Dataset[Masks]`` and ``Dataset[Boxes]`` have others.
    task: the task, or its name.
    classes: the class labels as text, in code order; empty for regression.
    groups, times: per row a group code / a time rank when the user named such a column, else None.
    weights: how much each row counts when it validates, training_weights: when it trains; positive with
        mean 1, None: all alike.
    """

    features: FeaturesT
    target: TargetT
    task: Task[TargetT]
    classes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    training_weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.task, str):
            object.__setattr__(self, "task", task_of(self.task))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows have a target, (rows,)."""
        return self.task.known(self.target)

    @property
    def strata(self) -> NDArray[np.int64] | None:
        """A code for each row of which every fold should have its share; None: any folds will do."""
        return self.task.strata(self.target)

    @property
    def outputs(self) -> int:
        """Outputs that a network for this data needs."""
        return self.task.outputs(len(self.classes))

    def weights_of(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The weights of these rows; None: all alike."""
        return None if self.weights is None else self.weights[rows]

    def part(self, rows: NDArray[np.int64]) -> Dataset[TargetT, FeaturesT]:
        """These rows alone, in this order."""
        return replace(
            self,
            features=self.features.part(rows),  # type: ignore[arg-type]  # as below
            target=self.target[rows],  # type: ignore[arg-type]  # rows of each kind of target are of its kind
            groups=None if self.groups is None else self.groups[rows],
            times=None if self.times is None else self.times[rows],
            weights=self.weights_of(rows),
            training_weights=None if self.training_weights is None else self.training_weights[rows],
        )


def averaged(values: NDArray[Any], numbers: int) -> NDArray[np.float64]:
    """Each row's channels averaged over equal windows, so few that about
    ``numbers`` are left; missing points apart.

    values: (rows, channels, *size). Shape (rows, numbers left); NaN where a window has no point.
    """
    axes = values.ndim - 2
    window = max(1, int(np.ceil((np.prod(values.shape[1:]) / numbers) ** (1 / axes))))
    parts = [np.arange(0, n, window) for n in values.shape[2:]]
    rows = []
    for start in range(0, len(values), 1024):
        block = values[start : start + 1024].astype(np.float64)
        there = ~np.isnan(block)
        sums, counts = np.where(there, block, 0.0), there.astype(np.float64)
        for axis, places in enumerate(parts, start=2):
            sums, counts = (
                np.add.reduceat(sums, places, axis=axis),
                np.add.reduceat(counts, places, axis=axis),
            )
        rows.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(len(block), -1))
    return np.concatenate(rows)
