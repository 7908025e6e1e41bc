"""The time column: read as dates or numbers, and what of it a network may see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from advisor.data.columns.cells import MOSTLY, TEXTS
from advisor.data.columns.column import Column, conform, how_many, unreadable
from advisor.data.columns.inference import infer, read_as
from advisor.data.tables.features import column_arrays
from advisor.errors import UserError, shown

CYCLES = {"month": 365.0, "day": 31.0, "weekday": 7.0, "hour": 1.0}
"""Parts of a date that come round, and the days that one round takes."""
ROUNDS = 2
"""Training rows must span this many rounds: what was seen once cannot be told from the trend."""


def without_gaps(times: pl.Series) -> pl.Series:
    """A row without a time goes to the earliest rows: it may train, but it never passes for a late one."""
    return times.fill_null(times.min())


def time_as_column(cells: pl.Series) -> Column:
    """How a time column is read: as dates or as numbers; UserError where most cells are neither."""
    judged = infer(cells, cells.gather(np.linspace(0, len(cells) - 1, min(len(cells), 10_000)).astype(int)))
    if judged.type not in ("datetime", "numeric") and cells.dtype in TEXTS:
        judged = replace(read_as(cells, "datetime", "numeric"), why=judged.why)
    elif judged.type != "datetime":
        judged = Column(cells.name, "numeric", judged.why, judged.format if judged.type == "numeric" else "")
    times = conform(cells, judged)[0]
    if times.null_count() > (1 - MOSTLY) * len(times):
        raise UserError(_not_times(cells, judged, times))
    return judged


def _not_times(cells: pl.Series, judged: Column, times: pl.Series) -> str:
    """What is wrong with a time column of which more than a few cells are no times."""
    bad, name = unreadable(cells, judged), f"the time column '{shown(cells.name)}'"
    missing = times.null_count() - len(bad)
    if not len(bad):
        return (
            f"{name} is missing in {missing:,} of {len(times):,} rows; leave these rows out, or name "
            "another column or none"
        )
    what = "dates or numbers" if not times.count() else "dates" if judged.type == "datetime" else "numbers"
    also = f", and is missing in {missing:,}" if missing else ""
    return (
        f"{name} cannot be read as {what} in {how_many(bad, len(times))}{also}; expected dates such as "
        "2024-01-31, or numbers"
    )


def read_times(cells: pl.Series) -> pl.Series:
    """A time column as dates or numbers, null where it is missing; UserError
    where most cells are no times."""
    return conform(cells, time_as_column(cells))[0]


def time_parts(times: pl.Series, time: Column) -> tuple[str, ...]:
    """The arrays of the time column (training rows): what comes round often
    enough, and last the time itself."""
    parts = column_arrays(times, time)
    trend, *others = parts
    days = np.ptp(parts[trend])
    cycles = {name: CYCLES.get(name.rpartition(".")[2], np.inf) for name in others}
    return (*(name for name in others if days >= ROUNDS * cycles[name] and np.ptp(parts[name]) > 0), trend)
