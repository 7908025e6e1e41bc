"""What reading hands over: a frame with unique column names, nothing interpreted yet, and how it was read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from advisor.data.sources.table_worker import nested_column
from advisor.errors import UserError, shown

MAX_COLUMNS = 10_000
"""A table with more columns is refused: it is nearly always a transposed table or a wrong delimiter."""


@dataclass(frozen=True)
class Source:
    """A frame as it was read: its short name, where it came from, and what was repaired while reading.

    told: what else a person should know of how it was read, as code -> sentence.
    encoding: of a text that is not Unicode;
    sheet: of a spreadsheet; else "".
    given: the pandas frame that it was made from.
    texts: of a file without types, its column at a position as text.
    """

    frame: pl.DataFrame
    name: str
    origin: str
    notes: dict[str, int]
    told: dict[str, str] = field(default_factory=dict)
    encoding: str = ""
    sheet: str = ""
    given: Any = None
    texts: Callable[[int], pl.Series] | None = None

    def noting(self, what: str, count: int) -> Source:
        """The same with this many more of a note."""
        return replace(self, notes=self.notes | {what: self.notes.get(what, 0) + count})

    def as_written(self, name: str) -> pl.Series:
        """A column as text where the file has no types and it was read as numbers: 1.10
        is other than 1.1; else as it is."""
        cells = self.frame[name]
        if self.texts is None or not cells.dtype.is_numeric():
            return cells
        written = self.texts(self.frame.columns.index(name))
        return written.alias(name) if len(written) == len(cells) else cells


def summed_notes(*notes: Mapping[str, int]) -> dict[str, int]:
    """Counts of what was repaired or left out, of several steps together."""
    total: dict[str, int] = {}
    for counts in notes:
        total |= {what: total.get(what, 0) + count for what, count in counts.items()}
    return total


def unique_names(names: Sequence[object]) -> tuple[list[str], dict[str, int]]:
    """Column names made usable: stripped, an empty one named by its position, a repeated one numbered.

    The same names always give the same result, so new rows meet the names that were used for training.
    Returns the names and how many were empty or repeated.
    """
    wanted = [str(name).strip() or f"column_{position}" for position, name in enumerate(names, 1)]
    taken, used = set(wanted), set[str]()
    unique = []
    for name in wanted:
        free = name
        for number in itertools.count(2):
            if free not in used and (free == name or free not in taken):
                break
            free = f"{name}_{number}"
        used.add(free)
        unique.append(free)
    notes = {
        "empty_names": sum(not str(name).strip() for name in names),
        "duplicate_names": sum(new != old for new, old in zip(unique, wanted, strict=True)),
    }
    return unique, {what: count for what, count in notes.items() if count}


def with_unique_names(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its columns' names made usable."""
    unique, _ = unique_names(frame.columns)
    return frame.rename(dict(zip(frame.columns, unique, strict=True))) if unique != frame.columns else frame


def checked_source(
    frame: pl.DataFrame, names: Sequence[object], name: str, origin: str, notes: dict[str, int]
) -> Source:
    """The last steps for every source: size, plain column types, unique names."""
    if frame.width > MAX_COLUMNS:
        raise UserError(f"{shown(origin)} has {frame.width:,} columns; at most {MAX_COLUMNS:,} are read")
    unique, repaired = unique_names(names)
    frame = frame.rename(dict(zip(frame.columns, unique, strict=True))) if unique != frame.columns else frame
    odd = [column for column, dtype in frame.schema.items() if dtype.is_nested() or not _plain(dtype)]
    if odd:
        raise UserError(nested_column(shown(origin), odd[0], str(frame.schema[odd[0]]), len(odd)))
    return Source(frame, name, origin, notes | repaired)


def _plain(dtype: pl.DataType) -> bool:
    known = (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)
    return dtype.is_numeric() or dtype.is_temporal() or dtype in known
