"""What the readers of images and sequences hand over: rows whose values may not have been decoded yet.

Which rows are held out is decided by their content before any value is decoded, so that a set larger than
memory is decoded once, part by part, into its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.options import FileForm
from advisor.data.signals.pixels import BYTE
from advisor.data.sources.source import Source
from advisor.errors import UserError, shown
from advisor.kinds import GridKind
from advisor.tasks import Task

FILES_TOLD = 10
"""A message names this many files."""


UNEVEN = 0.1
"""A step in time is uneven where it differs from the median step by more than this share of it: the months of
a year, and clocks that are read to a twentieth of a step, are even."""
STEP_RANGE = (0.05, 0.95)


def quoted(files: Sequence[str]) -> str:
    """Files for a message: the first of them, and how many more there are."""
    more = f" and {len(files) - FILES_TOLD:,} more" if len(files) > FILES_TOLD else ""
    return ", ".join(f"'{shown(name, 60)}'" for name in files[:FILES_TOLD]) + more


class Values(Protocol):
    """The values of some rows, wherever they are."""

    def __len__(self) -> int: ...

    def keys(self) -> NDArray[np.uint64]:
        """A number per row, made of its content: equal rows have equal ones."""

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The values of these rows (those that can be read, in order), and which
        of the rows could be read."""


@dataclass(frozen=True)
class ArrayValues:
    """Values in memory (or mapped): images uint8 (n, channels, height, width),
    sequences float32 (n, channels, length)."""

    array: NDArray[Any]

    def __len__(self) -> int:
        return len(self.array)

    def keys(self) -> NDArray[np.uint64]:
        if self.array.ndim == 4:
            rows = (row.tobytes() for row in self.array)
        else:  # what a longer neighbour adds to the end of a row is no part of it
            ends = lengths_of(self.array)
            # -0.0 is 0.0, and a missing point is one bit pattern
            rows = (canonical(row[:, :end]) for row, end in zip(self.array, ends, strict=True))
        found = (hashlib.blake2b(row, digest_size=8).digest() for row in rows)
        return np.frombuffer(b"".join(found), np.uint64)

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        whole = len(rows) == len(self.array)
        return (self.array if whole else self.array[rows]), np.ones(len(rows), dtype=bool)


@dataclass(frozen=True)
class RawRows:
    """Rows as they were read.
    answer: their target cells;
    groups: their groups as text; each None where there is none.

    names: the file's name or id of each row, "" where it has none.
    lost: of files that are no rows, by the note that counts them.
    """

    values: Values
    answer: pl.Series | None
    groups: pl.Series | None = None
    names: tuple[str, ...] = ()
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", self.names or ("",) * len(self.values))


@dataclass(frozen=True)
class TimeSteps:
    """The steps in time between neighbouring points of all sequences of a source,
    each in median steps.

    uneven: the share of those that differ from the median by more than ``UNEVEN``.
    low, high: the 5th and 95th percentile;
    longest: the longest step.
    """

    uneven: float
    low: float
    high: float
    longest: float

    @classmethod
    def of(cls, steps: NDArray[np.float64]) -> TimeSteps | None:
        """The summary of some steps in any unit, all positive; None where there are none."""
        if not len(steps):
            return None
        ratios = steps / np.median(steps)
        low, high = np.quantile(ratios, STEP_RANGE)
        uneven = float((np.abs(ratios - 1) > UNEVEN).mean())
        return cls(uneven, float(low), float(high), float(ratios.max()))


@dataclass(frozen=True)
class Found:
    """What a source holds.
    task: what the format says of the target, None where it does not.

    name: the data set's short name.
    shape: (channels, height, width) or (channels, length) of the values.
    columns: those of a table that hold the values (or the paths);
    id_column, order_column: those that name a row and order its points.
    channels_last: the source's arrays of sequences stand as (rows, points, channels);
    bits: those of the largest pixel;
    ignored: columns of a table that hold neither values nor anything that was asked for.
    steps: in time, None where the source has no times.
    notes: what was repaired or left out, as counts.
    told: what else to know of how a file was read, as code -> sentence;
    encoding, sheet: as ``Source`` has them.
    """

    kind: GridKind
    name: str
    origin: str
    target: str
    shape: tuple[int, ...]
    train: RawRows
    test: RawRows | None = None
    task: Task | None = None
    classification: bool = False
    group_column: str | None = None
    columns: tuple[str, ...] = ()
    id_column: str | None = None
    order_column: str | None = None
    channels_last: bool = False
    bits: int = BYTE
    ignored: tuple[str, ...] = ()
    steps: TimeSteps | None = None
    notes: dict[str, int] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    encoding: str = ""
    sheet: str = ""

    def reading(self, read: Source) -> Found:
        """The same with what is known of the table that was read."""
        return replace(self.noting(read.notes), told=read.told, encoding=read.encoding, sheet=read.sheet)

    def noting(self, notes: dict[str, int]) -> Found:
        """The same with more notes; counts of zero are none."""
        return replace(self, notes=self.notes | {what: count for what, count in notes.items() if count})


@dataclass(frozen=True)
class Request:
    """How a source is to be read.
    channels: "first" or "last", where arrays of sequences have them, None to find out;
    bits: those of the largest pixel where it is more than a byte, else they are found out;
    like: channels and size that the rows must be brought to, as a saved model's schema has them;
    needs_target: False for rows to predict.
    form: of a file.
    """

    target: str | None = None
    id_column: str | None = None
    time_column: str | None = None
    group_column: str | None = None
    max_bytes: int = 0
    channels: str | None = None
    bits: int = 0
    like: tuple[int, ...] | None = None
    needs_target: bool = True
    columns: tuple[str, ...] = ()
    form: FileForm = field(default_factory=FileForm)

    def refuse(self, origin: str, *, without: Sequence[str]) -> None:
        """UserError for a column that this format has no use for."""
        for name in without:
            if getattr(self, name) is not None:
                option = f"{name.replace('_', ' ')} '{getattr(self, name)}'"
                raise UserError(f"{origin} has no columns, so it cannot have the {option}; leave it out")


def canonical(row: NDArray[np.float32]) -> bytes:
    """The bytes of a sequence in which equal numbers are equal bytes."""
    return np.where(np.isnan(row), np.float32(np.nan), row + np.float32(0)).tobytes()


def lengths_of(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Per sequence of shape (rows, channels, length) the number of points up to
    its last one in any channel."""
    lengths = np.zeros(len(values), np.int64)
    for start in range(0, len(values), 1024):
        filled: NDArray[np.bool_] = np.logical_not(np.isnan(values[start : start + 1024]).all(axis=1))
        ends = filled.shape[1] - filled[:, ::-1].argmax(axis=1)
        lengths[start : start + 1024] = np.where(filled.any(axis=1), ends, 0)
    return lengths


def padded(sequences: Sequence[NDArray[np.float32]], channels: int) -> NDArray[np.float32]:
    """Sequences of shape (channels, length) each -> (rows, channels, longest), NaN past the end."""
    longest = max((sequence.shape[1] for sequence in sequences), default=0)
    values = np.full((len(sequences), channels, longest), np.nan, np.float32)
    for row, sequence in zip(values, sequences, strict=True):
        row[:, : sequence.shape[1]] = sequence
    return values


def without_infinities(values: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
    """As float32 with infinities (also numbers too large for it) missing, and how many there were."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = values.astype(np.float32)
    infinite = np.isinf(numbers)
    if count := int(infinite.sum()):
        numbers[infinite] = np.nan
    return numbers, count


def regular(path: Path, what: str, text: str) -> None:
    """UserError unless the path is a plain file with something in it; opening a pipe would block."""
    try:
        if not path.exists():
            raise UserError(f"{text} does not exist; expected {what}")
        if not path.is_file():
            raise UserError(f"{text} is not a regular file; expected {what}")
        if not path.stat().st_size:
            raise UserError(f"{text} is empty; expected {what}")
    except (OSError, ValueError) as error:
        raise UserError(f"{text} cannot be read: {getattr(error, 'strerror', None) or error}") from error
