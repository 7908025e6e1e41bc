"""What makes an estimate look better than it is, or a column useless: rows that
train and test, columns of one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from advisor.data.tables.columns import Column
from advisor.data.tables.table import Table, column_arrays, encode
from advisor.facts.duplicates import disagreement
from advisor.facts.probes import ProbeTarget, has_skill
from advisor.tasks import task_of

NEARLY_CONSTANT = 0.99
"""A column of which one value fills at least this share of the cells tells next to nothing."""
NEAR_ROWS = 100_000
"""Rows that differ by rounding alone are looked for in tables of at most so many
rows: it takes a second per million."""
DIGITS = 3
"""Significant digits in which numbers must agree for two rows to be nearly the same."""

TEXT_ROWS = 5000
"""Whether words tell of the target is measured on at most so many training rows."""


def measure_traps(table: Table, sample: pl.DataFrame) -> dict[str, Any]:
    """The facts of test rows that repeat training rows, exactly or nearly, ``test.unseen_class_rows``, and
    those of nearly constant columns and of free text that tells nothing.
    sample: training rows, for the columns."""
    schema = table.schema
    used = [column.name for column in schema.columns if column.type not in ("identifier", "constant")]
    dumb = sorted(column.name for column in schema.of_type("text") if _tells_nothing(sample, column, table))
    nearly = sorted(name for name in used if _largest_share(sample[name]) >= NEARLY_CONSTANT)
    return _twins(table, used) | {
        "test.unseen_class_rows": table.notes.get("test_rows_of_unseen_class", 0),
        "test.format_mismatch_columns": len({change.column for change in table.changes}),
        "columns.format_mismatch": sorted({change.column for change in table.changes}),
        "test.format_mismatch_cells": [change.short for change in table.changes],
        "nearly_constant.columns": len(nearly),
        "columns.nearly_constant": nearly,
        "text.uninformative": len(dumb),
        "columns.uninformative_text": dumb,
    }


def _twins(table: Table, used: Sequence[str]) -> dict[str, Any]:
    """The facts of rows that repeat others, exactly or nearly, beyond those that
    are counted in ``measurement``.

    Whether test rows are copies of training rows is told by their own targets, and
    decides nothing but what is said of them.
    """
    there = set(table.test.columns)
    train, test = (part.select(name for name in used if name in there) for part in (table.train, table.test))
    exact = _disagreement(table, train, train.clear())
    same = _disagreement(table, train, test)
    near = differ = None
    if train.height + test.height <= NEAR_ROWS:
        rounded, others = _rounded(train), _rounded(test)
        near, differ = _repeated(rounded, others), _disagreement(table, rounded, others)
    return {
        "duplicates.test_share": _repeated(train, test),
        "duplicates.target_disagreement": exact,
        "duplicates.test_target_disagreement": same,
        "duplicates.near_test_share": near,
        "duplicates.near_target_disagreement": differ,
    }


def _disagreement(table: Table, train: pl.DataFrame, test: pl.DataFrame) -> float:
    """Of training rows that are equal in ``train``; of test rows with the training rows that
    they repeat, where there are any."""
    schema = replace(table.schema, time=None, time_parts=())  # by their times equal rows could be told apart
    keys, tested = train.hash_rows(seed=0), test.hash_rows(seed=0)
    there = set(table.test.columns)
    columns = [schema.target, *(column.name for column in schema.columns if column.name in there)]
    rows = table.train.select(columns)
    if test.height:
        repeated, repeating = keys.is_in(tested.unique().implode()), tested.is_in(keys.unique().implode())
        rows = pl.concat(
            [rows.filter(repeated), table.test.select(columns).filter(repeating)], how="vertical_relaxed"
        )
        keys = pl.concat([keys.filter(repeated), tested.filter(repeating)])
    if not rows.height:
        return 0.0
    return disagreement(
        keys.to_numpy(),
        rows[schema.target].rank("dense").to_numpy(),
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


def _repeated(train: pl.DataFrame, test: pl.DataFrame) -> float:
    """The share of test rows that a training row equals, up to collisions of 64-bit hashes."""
    if not test.height or not test.width:
        return 0.0
    return int(test.hash_rows(seed=0).is_in(train.hash_rows(seed=0).unique().implode()).sum()) / test.height


def _rounded(frame: pl.DataFrame) -> pl.DataFrame:
    """Numbers in a few significant digits, texts without case and outer spaces."""
    numbers, texts = pl.col(pl.Float64), pl.col(pl.String)
    return frame.with_columns(numbers.round_sig_figs(DIGITS), texts.str.strip_chars().str.to_lowercase())


def _largest_share(cells: pl.Series) -> float:
    """Of the most frequent value among the filled cells; 0 where nothing is filled."""
    filled = cells.drop_nulls()
    # not tally: of thousands of columns the sorting takes as long as the counting
    return int(filled.value_counts(name="rows")["rows"].max()) / len(filled) if len(filled) else 0.0  # type: ignore[arg-type]
