"""A feature column, and its cells read as its type, for training and for new rows alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from advisor.data.columns.cells import TEXTS, as_booleans, as_text, is_mark, labels
from advisor.data.columns.dates import as_dates
from advisor.data.columns.numbers import as_numbers
from advisor.errors import shown
from advisor.kinds import COLUMN_TYPES, ColumnType


@dataclass(frozen=True)
class Column:
    """A feature column (never the target).

    name: unique in the table.
    why: why this type, one phrase; says so when it was judged on a sample.
    format: how the cells' text is read: for numbers the decimal mark and a unit ("" is plain), or CLOCK for
        times of day, which become hours; for dates the formats tried in turn, joined by "|" ("hours" when
        hours matter but the cells were dates already).
    missing: numbers that mark a missing cell, such as -999.
    limits: whether cells such as <0.3 or >4.4 are among the
    numbers: they count as their limit, and the side is an input of its own.
    """

    name: str
    type: ColumnType
    why: str
    format: str = ""
    missing: tuple[float, ...] = ()
    limits: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "missing", tuple(self.missing))  # JSON knows lists only
        if self.type not in COLUMN_TYPES:
            raise ValueError(f"column {self.name!r} has type {self.type!r}")


# ------------------------------------------------------------------------------------------------- conversion


def conform(cells: pl.Series, column: Column) -> tuple[pl.Series, dict[str, int]]:
    """The cells as the column's type; what cannot be read is missing. Returns
    counts of junk, infinite and marked cells.

    Of a numeric column with limits, ``beyond`` tells the sides.

    numeric: Float64, finite. boolean: Boolean. datetime: Datetime in microseconds. categorical, text: String,
    never empty. identifier, constant: as they are.
    """
    if column.type in ("identifier", "constant"):
        return cells.alias(column.name), {}
    notes: dict[str, int] = {}
    cells = as_text(cells) if cells.dtype in TEXTS else cells
    if column.type == "numeric":
        result = as_numbers(cells, column.format)
        if cells.dtype == pl.Float64 and not column.missing and np.isfinite(cells.to_numpy()).all():
            return result.alias(column.name), notes
        finite = result.is_finite()
        if not finite.all():
            notes["infinite_values"] = int(result.is_infinite().sum())
            result = result.to_frame().select(pl.when(finite).then(pl.first())).to_series()
        if column.missing:
            marks = result.is_in(column.missing).fill_null(value=False)
            notes["marked_values"] = int(marks.sum())
            result = result.set(marks, None)
    elif column.type == "boolean":
        result = as_booleans(cells)
    elif column.type == "datetime":
        result = as_dates(cells, column.format)
    else:
        result = labels(cells)
    nan = int(cells.is_nan().sum()) if cells.dtype.is_float() else 0
    junk = result.null_count() - cells.null_count() - sum(notes.values()) - nan
    if junk > 0:
        notes["junk_values"] = junk
    return result.alias(column.name), notes


def unreadable(cells: pl.Series, column: Column) -> pl.Series:
    """The filled cells, as text, that cannot be read as the column's type; words that
    mark a missing cell are none of them."""
    texts = labels(cells)
    bad = texts.filter(conform(cells, column)[0].is_null() & texts.is_not_null())
    return bad.filter(~is_mark(bad))


def how_many(bad: pl.Series, rows: int, what: str = "") -> str:
    """Cells that cannot be read, for a message: "133 of 200 cells, such as 'soon'".
    what: is so of them."""
    return f"{len(bad):,} of {rows:,} cells{what}" + (f", such as '{shown(bad[0], 40)}'" if len(bad) else "")


def side_name(name: str) -> str:
    """The name of the column that says on which side of its limit a cell of ``name`` lies."""
    return f"{name}.side"
