"""What makes an estimate look better than it is, or a column useless: rows that
train and test, columns of one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import ranked, tally
from advisor.data.columns.column import Column
from advisor.data.tables.features import column_arrays, encode
from advisor.data.tables.table import Table
from advisor.facts.duplicates import disagreement, few_twins
from advisor.facts.probes import ProbeTarget, has_skill
from advisor.kinds import ColumnType
from advisor.tasks import task_of

NEARLY_CONSTANT = 0.99
"""A column of which one value fills at least this share of the cells tells next to nothing."""
NEAR_ROWS = 100_000
"""Rows that differ by rounding alone are looked for in tables of at most this many
rows: it takes a second per million."""
DIGITS = 3
"""Significant digits in which numbers must agree for two rows to be nearly the same."""

LEAK_ROWS, LEAK_BINS = 50, 50
"""A leak is looked for where a column has the first number of filled cells; up to the second number of
values are looked at one by one."""
LEAK_OTHERS = 10
"""Rows that are all of one class say something where chance would put this many others there."""
UNUSED = ("identifier", "constant")
TEXT_ROWS = 5000
"""Whether words tell of the target is measured on at most this many training rows."""


@dataclass(frozen=True)
class RowHashes:
    """The used columns of the training and the test rows as a number per row: equal rows have equal ones, and
    others hardly ever (64 bits). Hashing and counting take much of the time of large tables, so once for all.
    """

    train: pl.Series
    test: pl.Series

    @classmethod
    def of(cls, train: pl.DataFrame, test: pl.DataFrame) -> RowHashes:
        """Of frames with the same columns."""
        return cls(train.hash_rows(seed=0), test.hash_rows(seed=0))

    @cached_property
    def distinct(self) -> int:
        """How many of the training rows differ."""
        return self.train.n_unique()

    @cached_property
    def repeated(self) -> pl.Series:
        """Which training rows a test row equals."""
        return self.train.is_in(self.test.unique().implode())

    @cached_property
    def repeating(self) -> pl.Series:
        """Which test rows equal a training row."""
        return self.test.is_in(self.train.filter(self.repeated).unique().implode())

    @property
    def repeating_share(self) -> float:
        """Of the test rows."""
        return int(self.repeating.sum()) / len(self.test) if len(self.test) else 0.0


def used_columns(table: Table) -> list[str]:
    """The columns that reach a network, and by which a row repeats another one."""
    there = set(table.test.columns)
    return [c.name for c in table.schema.columns if c.type not in UNUSED and c.name in there]


def hash_rows(table: Table) -> RowHashes:
    """Of the columns that are used."""
    names = used_columns(table)
    return RowHashes.of(table.train.select(names), table.test.select(names))


def measure_traps(table: Table, sample: pl.DataFrame, rows: RowHashes) -> dict[str, Any]:
    """The facts of test rows that repeat training rows, exactly or nearly, ``test.unseen_class_rows``, and
    those of nearly constant columns and of free text that tells nothing.
    sample: training rows, for the columns."""
    schema = table.schema
    dumb = sorted(column.name for column in schema.of_type("text") if _tells_nothing(sample, column, table))
    nearly = sorted(name for name in used_columns(table) if _is_nearly_constant(sample[name]))
    return _twins(table, rows) | {
        "test.unseen_class_rows": table.notes.get("test_rows_of_unseen_class", 0),
        "test.format_mismatch_columns": len({change.column for change in table.changes}),
        "columns.format_mismatch": sorted({change.column for change in table.changes}),
        "test.format_mismatch_cells": [change.short for change in table.changes],
        "nearly_constant.columns": len(nearly),
        "columns.nearly_constant": nearly,
        "text.uninformative": len(dumb),
        "columns.uninformative_text": dumb,
    }


def _twins(table: Table, rows: RowHashes) -> dict[str, Any]:
    """The facts of rows that repeat others, exactly or nearly, beyond those that
    are counted in ``measurement``.

    Whether test rows are copies of training rows is told by their own targets, and
    decides nothing but what is said of them.
    """
    near = differ = None
    if table.train.height + table.test.height <= NEAR_ROWS:
        names = used_columns(table)
        rounded = RowHashes.of(*(_rounded(part.select(names)) for part in (table.train, table.test)))
        near, differ = rounded.repeating_share, _disagreement_with_test(table, rounded)
    return {
        "duplicates.test_share": rows.repeating_share,
        "duplicates.target_disagreement": _disagreement(table, rows),
        "duplicates.test_target_disagreement": _disagreement_with_test(table, rows),
        "duplicates.near_test_share": near,
        "duplicates.near_target_disagreement": differ,
    }


def _disagreement(table: Table, rows: RowHashes) -> float:
    """Of training rows that are equal."""
    return 0.0 if few_twins(len(rows.train), rows.distinct) else _differing(table, rows.train, table.train)


def _disagreement_with_test(table: Table, rows: RowHashes) -> float:
    """Of test rows with the training rows that they repeat."""
    if not rows.repeating.any():
        return 0.0
    there = set(table.test.columns)
    columns = [table.schema.target, *(c.name for c in table.schema.columns if c.name in there)]
    parts = (
        table.train.select(columns).filter(rows.repeated),
        table.test.select(columns).filter(rows.repeating),
    )
    keys = pl.concat([rows.train.filter(rows.repeated), rows.test.filter(rows.repeating)])
    return _differing(table, keys, pl.concat(parts, how="vertical_relaxed"))


def _differing(table: Table, keys: pl.Series, rows: pl.DataFrame) -> float:
    schema = replace(table.schema, time=None, time_parts=())  # by their times equal rows could be told apart
    return disagreement(
        keys.to_numpy(),
        ranked(rows[schema.target]) if schema.classes else rows[schema.target].to_numpy(),
        regression=not task_of(schema.task).of_classes,
        inputs=lambda mask: encode(rows.filter(mask), schema).for_trees(),
    )


def _tells_nothing(sample: pl.DataFrame, column: Column, table: Table) -> bool:
    """Whether a linear probe of a text's words says no more of the target in rows
    it has not seen than chance does."""
    schema, part = table.schema, sample.gather_every(max(1, -(-sample.height // TEXT_ROWS)))
    arrays = column_arrays(part[column.name], column, schema.words.get(column.name))
    inputs = np.nan_to_num(np.column_stack(list(arrays.values()))).astype(np.float32)
    of_classes = task_of(schema.task).of_classes
    # ranks: of a heavy tail a single row would decide
    codes = part[schema.target].rank("dense" if of_classes else "average").to_numpy()
    classes = int(codes.max()) if of_classes else 0
    answer = ProbeTarget(codes.astype(np.int64) - 1 if classes else codes.astype(np.float64), classes)
    return has_skill(inputs, answer, least=0.0) is False


def _rounded(frame: pl.DataFrame) -> pl.DataFrame:
    """Numbers in a few significant digits, texts without case and outer spaces."""
    numbers, texts = pl.col(pl.Float64), pl.col(pl.String)
    return frame.with_columns(numbers.round_sig_figs(DIGITS), texts.str.strip_chars().str.to_lowercase())


def _is_nearly_constant(cells: pl.Series) -> bool:
    """Whether one value fills nearly all of the filled cells."""
    filled = cells.drop_nulls() if cells.null_count() else cells
    if not len(filled):
        return False
    if filled.dtype == pl.Float64:  # what fills more than half of them is their median
        values = filled.to_numpy()
        middle = np.partition(values, len(values) // 2)[len(values) // 2]
        most = int(np.count_nonzero(values == middle))
    else:
        # not tally: of thousands of columns the sorting takes as long as the counting
        most = int(filled.value_counts(name="rows")["rows"].max())  # type: ignore[arg-type]
    return most / len(filled) >= NEARLY_CONSTANT


# ------------------------------------------------------------------------------------------------------ leaks


def leaks_target(
    cells: pl.Series, kind: ColumnType, answer: pl.Series, codes: NDArray[np.int64], table: Table
) -> bool:
    """Whether this column alone gives the target away.

    Regression: a numeric column whose ranks correlate over 0.999 with the target's. Classes: knowing the
    column's value leaves at most 1 % of the mistakes that guessing the largest class makes; of more than
    LEAK_BINS different numbers, those of one class must also lie side by side. A column of any kind does
    that is filled, or empty, for one class.
    codes: of the answer.
    """
    missing = cells.null_count()
    filled, of_classes = len(cells) - missing, task_of(table.schema.task).of_classes
    if missing and of_classes and kind not in ("identifier", "constant"):
        both = cells.is_not_null()
        if any(_of_one_class(answer.filter(side), answer) for side in (both, ~both)):
            return True
    if kind in ("identifier", "constant", "text", "datetime") or filled < LEAK_ROWS:
        return False
    if not of_classes:
        if kind != "numeric" or filled < 0.5 * len(cells):
            return False
        both = cells.is_not_null()
        ours, theirs = cells.filter(both).rank().to_numpy(), answer.filter(both).rank().to_numpy()
        ours, theirs = ours - ours.mean(), theirs - theirs.mean()
        size = float(np.sqrt((ours**2).sum() * (theirs**2).sum()))
        return size > 0 and abs(float((ours * theirs).sum())) / size > 0.999
    values = ranked(cells)
    distinct = int(values.max()) + (missing > 0)
    if kind != "numeric" and distinct > len(cells) / 20:
        return False
    return _separates(values, codes - 1, ordered=distinct > LEAK_BINS)


def _of_one_class(part: pl.Series, answer: pl.Series) -> bool:
    """Whether these rows are all of one class, but for 1 % of the others that chance would
    put there, and half of that class."""
    if len(part) < LEAK_ROWS:
        return False
    label, own = tally(part).row(0)
    whole = int((answer == label).sum())
    others = len(part) * (1 - whole / len(answer))
    return others >= LEAK_OTHERS and len(part) - own <= 0.01 * others and 2 * own >= whole


def _separates(values: NDArray[np.int64], codes: NDArray[np.int64], *, ordered: bool) -> bool:
    """Whether each value belongs to one class and, for ordered values, each class to one stretch of them."""
    # NumPy, not polars' lazy frames: of thousands of columns their set-up takes longer than the counting
    classes = int(codes.max()) + 1
    pairs, rows = np.unique(values * classes + codes, return_counts=True)
    begins = np.flatnonzero(np.diff(pairs // classes, prepend=-1))
    best = np.maximum.reduceat(
        rows * classes + pairs % classes, begins
    )  # of each value; of equal ones the last class
    largest = int(np.bincount(codes).max())
    if len(values) - int((best // classes).sum()) > 0.01 * (len(values) - largest):
        return False
    if not ordered:
        return True
    labels = best % classes
    shares = np.bincount(labels) / len(labels)
    changes = int((labels[1:] != labels[:-1]).sum())
    # Of values in random order this share of the neighbours would differ.
    chance = len(labels) * float(1 - (shares**2).sum())
    return changes <= int((shares > 0).sum()) - 1 + 0.02 * chance
