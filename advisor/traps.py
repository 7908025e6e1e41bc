"""What makes an estimate look better than it is, or a column useless: rows that train and test, columns of one value."""

from __future__ import annotations

from typing import Any

import polars as pl

from advisor.columns import tally
from advisor.table import Table

NEARLY_CONSTANT = 0.99
"""A column of which one value fills at least this share of the cells tells next to nothing."""
NEAR_ROWS = 100_000
"""Rows that differ by rounding alone are looked for in tables of at most so many rows: it takes a second per million."""
DIGITS = 3
"""Significant digits in which numbers must agree for two rows to be nearly the same."""


def measure_traps(table: Table, sample: pl.DataFrame) -> dict[str, Any]:
    """The facts ``duplicates.test_share``, ``duplicates.near_test_share``, ``test.unseen_class_rows`` and those of nearly
    constant columns. sample: training rows, for the latter. The target is not read."""
    schema = table.schema
    used = [column.name for column in schema.columns if column.type not in ("identifier", "constant")]
    shared = [name for name in used if name in table.test.columns]
    near = None
    if table.train.height + table.test.height <= NEAR_ROWS:
        near = _repeated(*(_rounded(part.select(shared)) for part in (table.train, table.test)))
    nearly = sorted(name for name in used if _largest_share(sample[name]) >= NEARLY_CONSTANT)
    return {
        "duplicates.test_share": _repeated(table.train.select(shared), table.test.select(shared)),
        "duplicates.near_test_share": near,
        "test.unseen_class_rows": table.notes.get("test_rows_of_unseen_class", 0),
        "nearly_constant.columns": len(nearly),
        "columns.nearly_constant": nearly,
    }


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
    return int(tally(filled)["rows"][0]) / len(filled) if len(filled) else 0.0
