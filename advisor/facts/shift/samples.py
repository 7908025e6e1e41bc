"""The two sides of a shift: which rows are compared with which, drawn to a bounded size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import Table

Numbers = NDArray[np.float64]
Against = Literal["test", "time", "groups"]
SIDE_ROWS = 5000
"""This many rows of each side are compared, drawn at random, always the same ones."""


@dataclass(frozen=True)
class Samples:
    """The two sides as arrays; ``rows`` and ``new_rows`` are how many they were drawn from."""

    against: Against
    old: pl.DataFrame
    new: pl.DataFrame
    rows: int
    new_rows: int


def two_samples(table: Table) -> Samples | None:
    """The sides that are compared; None where there is nothing to compare."""
    schema, train = table.schema, table.train
    if table.test_origin == "file":
        return _sampled("test", train, table.test)
    if schema.time_column is not None:
        times = train[schema.time_column].rank("dense")
        middle = times.median()
        later = (
            times > middle if (times > middle).any() else times >= middle
        )  # rows of one time are never parted
        return _sampled("time", train.filter(~later), train.filter(later)) if not later.all() else None
    if schema.group_column is not None:
        groups = train[schema.group_column]
        names = groups.unique().sort()
        half = np.random.default_rng(0).permutation(len(names))[: len(names) // 2]
        new = groups.is_in(names[half].to_list())
        return _sampled("groups", train.filter(~new), train.filter(new)) if len(half) else None
    return None


def one_row_of_each(frame: pl.DataFrame, group: str) -> pl.DataFrame:
    """A row of each group, drawn at random: the tests take rows for independent, and those
    of a group tell it, not its side."""
    return frame.sample(fraction=1.0, shuffle=True, seed=0).unique(group, keep="first", maintain_order=True)


def joint_schema(schema: TableSchema, samples: Samples) -> TableSchema:
    """The schema with the levels of both sides: by those of the training rows alone, test rows would be told
    by what is rare in both. Without the time, which tells them by its very meaning."""
    levels = {
        name: tuple(
            sorted({*samples.old[name].drop_nulls().unique(), *samples.new[name].drop_nulls().unique()})
        )
        for name in schema.levels
    }
    return replace(schema, levels=levels, time=None, time_parts=())


def drawn_rows(rows: int) -> NDArray[np.int64]:
    """At most SIDE_ROWS of this many rows, drawn at random, always the same ones, in their order."""
    if rows <= SIDE_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, SIDE_ROWS, replace=False))


def _sampled(against: Against, old: pl.DataFrame, new: pl.DataFrame) -> Samples:
    return Samples(against, old[drawn_rows(old.height)], new[drawn_rows(new.height)], old.height, new.height)
