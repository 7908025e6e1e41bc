"""Which rows are held out for the test, and the fingerprint of a table: both by
content, not by the order of rows."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import ranked
from advisor.errors import FormChange, UserError, shown
from advisor.tasks import Task

KEY_ROWS, KEY_COLUMNS = 200_000, 8
"""Above this many rows only this many columns decide which rows are held out (see row_keys)."""


@dataclass(frozen=True)
class ScoredRows:
    """Rows that are set apart for the test.

    notes: those that were left out, as counts.
    changes: columns of a given test table that are unlike the training rows in form.
    """

    frame: pl.DataFrame
    notes: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[FormChange, ...] = ()


def check_tested(rows: int, wanted: bool) -> None:
    """UserError where test rows were wanted and none is left."""
    if wanted and not rows:
        raise UserError(
            "no row is left for the test part; give more rows, another test_fraction, or test rows"
        )


def held_out_rows(
    answer: pl.Series,
    task: Task,
    helpers: Sequence[pl.Series],
    keys: NDArray[np.uint64],
    fraction: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Which rows are test rows."""
    # of numbers only the order is asked for
    codes = ranked(answer) - 1 if task.of_classes else answer.to_numpy()
    if not helpers:
        return _random_rows(codes, task, keys, fraction)
    cells = helpers[0]
    values = ranked(cells) - 1
    if values.max() == 0:
        raise UserError(
            f"'{shown(cells.name)}' has the same value in all rows; at least two values are needed to hold "
            "rows out by it"
        )
    if cells.dtype != pl.String:
        return _latest_rows(values, fraction)
    names = cells.unique().sort().to_list()
    order = sorted(
        range(len(names)), key=lambda code: hashlib.blake2b(f"{seed}:{names[code]}".encode()).digest()
    )
    return _whole_groups(values, order, codes if task.of_classes else None, fraction)


def _latest_rows(times: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Cut where the share of later rows is nearest to the one wanted.
    times: ranks from 0."""
    later = len(times) - np.cumsum(np.bincount(times))
    cut = int(np.abs(later[:-1] - fraction * len(times)).argmin())
    return np.asarray(times > cut)


def _whole_groups(
    groups: NDArray[np.int64], order: Sequence[int], codes: NDArray[np.int64] | None, fraction: float
) -> NDArray[np.bool_]:
    """Groups in this order until the share of their rows is near the one wanted; at least one, never all.

    groups: of each row, from 0. codes: of each row's class, None for numbers.
    """
    wanted, sizes = fraction * len(groups), np.bincount(groups)
    classes = np.zeros(1, np.int64) if codes is None else np.bincount(codes)
    held, total = np.zeros(len(sizes), dtype=bool), 0
    for group in order:
        none_lost = np.array([-1])
        own = none_lost if codes is None else np.bincount(codes[groups == group], minlength=len(classes))
        # A group stays with the training rows if a class would be lost to them, or
        # if the share would be missed more.
        if (classes - own > 0).all() and abs(total + sizes[group] - wanted) < abs(total - wanted):
            held[group], total, classes = True, total + sizes[group], classes - np.maximum(own, 0)
    if held.all() or not held.any():
        held[:] = False
        held[order[0]] = True
    return np.asarray(held[groups])


def _random_rows(
    codes: NDArray[Any], task: Task, keys: NDArray[np.uint64], fraction: float
) -> NDArray[np.bool_]:
    """By row key; for classes the same share of each, as nearly as whole rows
    allow, never all rows of one."""
    rows = len(codes)
    size = min(max(round(fraction * rows), 1), rows - 1)
    strata = codes if task.of_classes else np.zeros(rows, np.int64)
    counts = np.bincount(strata)
    share = counts * (size / rows)
    take = np.minimum(np.floor(share).astype(np.int64), np.maximum(counts - 1, 0))
    for stratum in np.argsort(take - share, kind="stable")[: max(size - int(take.sum()), 0)]:
        take[stratum] = min(take[stratum] + 1, counts[stratum] - 1)
    held = np.zeros(rows, dtype=bool)
    by_stratum = np.argsort(strata.astype(np.int16 if len(counts) < 2**15 else np.int64), kind="stable")
    for stratum, end in enumerate(np.cumsum(counts)):
        if count := int(take[stratum]):
            members = by_stratum[end - counts[stratum] : end]
            own = keys[members]
            last = np.partition(own, count - 1)[count - 1]
            equal = members[own == last]
            equal = equal[np.argsort(codes[equal], kind="stable")]
            held[members[own < last]] = True
            held[equal[: count - int((own < last).sum())]] = True
    return held


def row_keys(frame: pl.DataFrame, seed: int) -> NDArray[np.uint64]:
    """A number per row, made of its content: random-looking, and the same
    whatever the order of rows and columns.

    Equal rows have equal keys, so copies mostly land on one side. Above KEY_ROWS rows
    only KEY_COLUMNS columns are used, numbers first; rows that agree in them are told
    apart by the target and then by their order.
    """
    kinds = {
        cells.name: cells.dtype for cells in frame.get_columns()
    }  # frame.schema is made anew at each look
    names = sorted(kinds, key=lambda name: (not kinds[name].is_float(), kinds[name] == pl.String, name))
    names = sorted(names[:KEY_COLUMNS] if frame.height > KEY_ROWS else names)
    keys = np.full(frame.height, (seed * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64, np.uint64)
    for name in names:
        keys ^= _cell_bits(frame[name])
        keys *= np.uint64(0xBF58476D1CE4E5B9)
        keys ^= keys >> np.uint64(31)
    return keys


def _cell_bits(cells: pl.Series) -> NDArray[np.uint64]:
    """64 bits per cell that do not depend on the process, the version of polars or the other cells."""
    if cells.dtype.is_numeric() or cells.dtype == pl.Boolean or cells.dtype.is_temporal():
        # to_numpy fills with NaN: of thousands of columns the set-up of polars' expressions takes longer
        physical = cells if cells.dtype.is_float() else cells.to_physical()
        numbers = physical.cast(pl.Float64, strict=False).to_numpy()
        return np.asarray(numbers.view(np.uint64), np.uint64)
    texts = cells.cast(pl.String).fill_null("")
    unique = texts.unique()
    hashes = [
        zlib.crc32(data) | zlib.adler32(data) << 32 for data in (text.encode() for text in unique.to_list())
    ]
    return texts.replace_strict(unique, pl.Series(hashes, dtype=pl.UInt64)).to_numpy().astype(np.uint64)


def fingerprint_of(frame: pl.DataFrame, answer: pl.Series, keys: NDArray[np.uint64]) -> str:
    """Sums of cell bits (order does not matter, wrapping round) per column, of
    the target, and of the row keys."""
    facts: list[Any] = [frame.height, answer.name, int(keys.sum(dtype=np.uint64))]
    for cells in sorted([*frame.get_columns(), answer], key=lambda series: series.name):
        if frame.height > KEY_ROWS and cells.dtype == pl.String:
            own = int(cells.str.len_bytes().sum())
        else:
            own = int(_cell_bits(cells).sum(dtype=np.uint64))
        facts.append([cells.name, cells.null_count(), own])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
