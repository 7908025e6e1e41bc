"""Measures the facts of a table and of the machine.

The target of the test rows is looked at in one place, which tells whether they are
copies of training rows (``traps``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.column import ranked, tally
from advisor.data.sources.reading import available_memory, total_memory
from advisor.data.tables.spellings import repeated_spellings
from advisor.data.tables.table import MAX_LEVELS, Column, ColumnType, Table, encoded_names
from advisor.data.tables.target import LONELY
from advisor.errors import UserError, did_you_mean
from advisor.facts.groups import measure_groups
from advisor.facts.schema import CORRELATED, FACTS, HEAVY_SKEW, HIGH_CARDINALITY, Facts
from advisor.facts.shift.shift import measure_shift
from advisor.facts.time_trend import held_to_none
from advisor.facts.traps import RowHashes, hash_rows, measure_traps
from advisor.machine import without_cuda
from advisor.tasks import TargetKind, Task, task_of

SAMPLE_ROWS = 20_000
"""Distributions (quantiles, skewness, correlations, leaks) are measured on at most so many training rows."""
SAMPLE_CELLS = 20_000_000
"""... and on at most so many cells, but never on fewer than 2,000 rows."""
CORRELATED_COLUMNS = 200
"""Correlations are measured among at most so many numeric columns, the first by name."""
ORDERED_COLUMNS = 16
"""Below so many numeric columns it is not asked whether their order means something."""
ONE_HOT_MAX, EMBEDDING_DIM = 9, 8
"""The base space's defaults, for ``encoded_width``."""
LEAK_ROWS, LEAK_BINS = 50, 50
"""A leak is looked for where a column has so many filled cells; so many numbers are looked at one by one."""
LEAK_OTHERS = 10
"""Rows that are all of one class say something where chance would put so many others there."""
MOST_TEXT, MOST_CLASSES = 60, 20
"""Characters of a level, and classes of the target, that the report shows."""
GPU_SECONDS = 5.0
"""How long nvidia-smi is waited for."""

_HARDWARE = ("cores", "memory.gb", "memory.available_gb", "gpu.count", "gpu.memory_gb")
_MEASURED_ON_SAMPLE = (
    *(
        "skew.max",
        "skew.median",
        "skew.heavy_columns",
        "outliers.share",
        "scale.ratio",
        "correlated.pairs_share",
    ),
    *("leak.columns", "columns.heavy_tailed", "columns.correlated", "columns.leaking"),
    *("nearly_constant.columns", "columns.nearly_constant", "columns.order_correlation"),
    *("text.uninformative", "columns.uninformative_text", "time.clamped_error_ratio"),
)


def measure_table(table: Table, hardware: Mapping[str, Any] | None = None) -> Facts:
    """Measure every fact of FACTS on the training rows.

    Counts (rows, missing cells, classes, duplicates, the target) are exact. Shapes of distributions are
    measured on at most SAMPLE_ROWS rows; ``Facts.sampled`` says which and on how many.
    hardware: fact name -> value instead of what this machine says (``cores``, ``memory.gb``,
        ``memory.available_gb``, ``gpu.count``, ``gpu.memory_gb``). UserError for any other name.
    """
    schema, train = table.schema, table.train
    sample = _sample(train, len(schema.columns))
    numeric = [_numeric(column, sample[column.name]) for column in schema.of_type("numeric")]
    missing = dict(zip(train.columns, train.null_count().row(0), strict=True))
    values: dict[str, Any] = dict.fromkeys(FACTS)
    values |= _shape_facts(table)
    values |= target_facts(train[schema.target], task_of(schema.task))
    values |= _missing_facts(table, missing)
    values |= _level_facts(table)
    values |= _distribution_facts(numeric, sample)
    rows = hash_rows(table)
    values |= _duplicate_facts(table, rows)
    values |= measure_traps(table, sample, rows)
    answer = sample[schema.target]
    codes = ranked(answer)
    leaks = sorted(c.name for c in schema.columns if _leaks(sample[c.name], c.type, answer, codes, table))
    groups = measure_groups(table, leaks)
    # of each thing the target is known: a matter of how rows are held out, not of what is recorded when
    leaks = [name for name in leaks if name not in groups["columns.entity"]]
    values |= {**groups, "leak.columns": len(leaks), "columns.leaking": leaks}
    values |= hardware_facts(hardware or {})
    values["time.clamped_error_ratio"] = _held_to_none(table, sample)
    values["columns.order_correlation"] = _order_correlation(table, sample)
    shift, effects, compared = measure_shift(table)
    values |= shift
    sampled = _sampled(table, sample.height, len(numeric), dict.fromkeys(shift, compared) if compared else {})
    by_name = {column["name"]: column for column in numeric}
    columns = tuple(
        _column_facts(column, table, sample, missing, by_name) | {"shift": effects.get(column.name)}
        for column in schema.columns
    )
    shape = target_shape(train[schema.target], sample[schema.target], task_of(schema.task))
    return Facts(values, sampled, columns, shape)


def _sample(train: pl.DataFrame, width: int) -> pl.DataFrame:
    """Rows drawn at random, always the same ones, in their order; fewer when there are very many columns."""
    rows = min(SAMPLE_ROWS, max(SAMPLE_CELLS // max(width, 1), 2000))
    if train.height <= rows:
        return train
    chosen = np.sort(np.random.default_rng(0).choice(train.height, rows, replace=False))
    return train[chosen]


def _sampled(table: Table, rows: int, numeric: int, shift: Mapping[str, str]) -> dict[str, str]:
    """Which facts were measured on a part of the rows or columns, and on how many."""
    total = table.train.height
    sampled = dict(shift)
    for kind in get_args(ColumnType):
        judged = [column.why for column in table.schema.of_type(kind) if "(judged on" in column.why]
        if judged:
            sampled[f"features.{kind}"] = "types " + judged[0].rpartition("(")[2].rstrip(")")
    if rows < total:
        sampled |= dict.fromkeys(_MEASURED_ON_SAMPLE, f"{rows:,} of {total:,} rows")
    if numeric > CORRELATED_COLUMNS:
        part = f"{CORRELATED_COLUMNS} of {numeric:,} numeric columns, {rows:,} of {total:,} rows"
        sampled |= dict.fromkeys(
            ("correlated.pairs_share", "columns.correlated", "columns.order_correlation"), part
        )
    return {name: sampled[name] for name in FACTS if name in sampled}


def _shape_facts(table: Table) -> dict[str, Any]:
    schema, rows = table.schema, table.train.height
    used = [column for column in schema.columns if column.type not in ("identifier", "constant")]
    arrays = len(schema.of_type("numeric", "boolean")) + sum(
        len(encoded_names(column, schema.words.get(column.name)))
        for column in schema.of_type("datetime", "text")
    )
    arrays += len(schema.time_parts)
    levels = [len(schema.levels[column.name]) for column in schema.of_type("categorical")]
    has_groups = schema.group_column is not None
    facts: dict[str, Any] = {
        "rows": rows,
        "rows_test": table.test.height,
        "rows_without_target": table.notes.get("rows_without_target", 0),
        "rows_in_singleton_classes": table.notes.get(LONELY, 0),
        "rows_per_feature": rows / len(used) if used else None,
        "features": len(schema.columns),
        "features.used": len(used),
        "encoded_width": arrays + sum(count if count <= ONE_HOT_MAX else EMBEDDING_DIM for count in levels),
        "encoded_width.one_hot": arrays + sum(levels),
        "task": schema.task,
        "test.origin": table.test_origin,
        "has_groups": has_groups,
        "groups.count": table.train[schema.group_column].n_unique()
        if schema.group_column is not None
        else None,
        "has_time": schema.time_column is not None,
        "time.inputs": len(schema.time_parts),
        "time_ordered": _time_ordered(table),
        "infinite.values": table.notes.get("infinite_values", 0),
        "unreadable.cells": table.notes.get("junk_values", 0),
        "sentinels.cells": table.notes.get("marked_values", 0),
    }
    facts |= marked_facts(
        sorted((column.name, column.missing) for column in schema.columns if column.missing)
    )
    facts |= {f"features.{kind}": len(schema.of_type(kind)) for kind in get_args(ColumnType)}
    for kind in ("constant", "identifier"):
        facts[f"columns.{kind}"] = sorted(column.name for column in schema.columns if column.type == kind)
    return facts


def _held_to_none(table: Table, sample: pl.DataFrame) -> float | None:
    if table.schema.time_column is None:
        return None
    data = replace(table, train=sample).dataset("train")
    assert data.times is not None
    target = (
        np.eye(len(data.classes))[data.target] if data.classes else data.target[:, None].astype(np.float64)
    )
    return held_to_none(data.features, data.times, target)


def marked_facts(marked: Sequence[tuple[str, tuple[float, ...]]]) -> dict[str, list[str]]:
    """marked: columns or channels by name, and the numbers that mark missing values in them."""
    return {
        "columns.sentinels": [name for name, _ in marked],
        "sentinels.codes": [
            f"{name}: {' and '.join(f'{mark:g}' for mark in marks)}" for name, marks in marked
        ],
    }


def _time_ordered(table: Table) -> bool | None:
    dates = [column.name for column in table.schema.of_type("datetime")]
    names = [table.schema.time_column] if table.schema.time_column is not None else dates
    if not names:
        return None
    # Any of several dates will do: rows that stand in the order of one of them came in over time.
    return any(bool(table.train[name].drop_nulls().is_sorted()) for name in names)


def target_facts(answer: pl.Series, task: Task) -> dict[str, Any]:
    """The facts ``classes.*`` or ``target.*`` of the training rows' target."""
    return TARGET_MEASURES[task.target].facts(answer)


def _class_facts(answer: pl.Series) -> dict[str, Any]:
    counts = tally(answer)["rows"].to_numpy().astype(np.float64)
    shares = counts / counts.sum()
    several = len(counts) > 1
    return {
        "classes.count": len(counts),
        "classes.imbalance": float(counts.max() / counts.min()),
        "classes.smallest": int(counts.min()),
        "classes.entropy": float(-(shares * np.log(shares)).sum() / np.log(len(counts))) if several else 0.0,
    }


def _number_facts(answer: pl.Series) -> dict[str, Any]:
    values = answer.to_numpy()
    moments = _moments(values)
    return {
        "target.mean": moments.mean,
        "target.std": moments.std,
        "target.skew": moments.skew,
        "target.kurtosis": moments.kurtosis,
        "target.distinct": answer.n_unique(),
        "target.zero_share": float((values == 0).mean()),
        "target.minimum": float(values.min()),
    }


def _missing_facts(table: Table, missing: Mapping[str, int]) -> dict[str, Any]:
    rows, names = table.train.height, [column.name for column in table.schema.columns]
    mostly = sorted(name for name in names if missing[name] > rows / 2)
    return {
        "missing.share": sum(missing[name] for name in names) / (rows * len(names)),
        "missing.columns": sum(missing[name] > 0 for name in names),
        "missing.max_column_share": max(missing[name] for name in names) / rows,
        "missing.mostly_columns": len(mostly),
        "columns.mostly_missing": mostly,
    }


def _level_facts(table: Table) -> dict[str, Any]:
    counts = {column.name: _level_count(table, column.name) for column in table.schema.of_type("categorical")}
    high = sorted(name for name, count in counts.items() if count > HIGH_CARDINALITY)
    repeated = {name: repeated_spellings(table.schema.levels[name]) for name in counts}
    return {
        **_joined_facts(table),
        "spellings.categories": sum(repeated.values()),
        "columns.spellings": sorted(name for name, count in repeated.items() if count),
        "spellings.classes": repeated_spellings(table.schema.classes),
        "cardinality.max": max(counts.values(), default=None),
        "cardinality.high_columns": len(high),
        "columns.high_cardinality": high,
    }


def _joined_facts(table: Table) -> dict[str, Any]:
    joined = table.schema.spellings
    return {
        "spellings.joined": sum(map(len, joined.values())),
        "spellings.joined_cells": table.notes.get("joined_cells", 0),
        "spellings.joined_as": [
            f"{name}: '{one}' as '{kept}'" for name in sorted(joined) for one, kept in joined[name].items()
        ],
        "columns.spellings_joined": sorted(joined),
    }


def _level_count(table: Table, name: str) -> int:
    known = len(table.schema.levels[name])
    return known if known < MAX_LEVELS else table.train[name].drop_nulls().n_unique()


# ---------------------------------------------------------------------------------------------- distributions


@dataclass(frozen=True)
class _Moments:
    mean: float | None
    std: float | None
    skew: float | None
    kurtosis: float | None


def _moments(values: NDArray[np.float64]) -> _Moments:
    """Mean, standard deviation (n in the denominator), skewness m3/m2^1.5, excess kurtosis m4/m2^2 - 3.

    The shape is None for fewer than three values or when they do not vary.
    """
    if not len(values):
        return _Moments(None, None, None, None)
    scale = float(np.abs(values).max()) or 1.0
    scaled = values / scale  # the fourth power of 1e80 is no number any more
    mean = float(scaled.mean())
    away = scaled - mean
    variance = float((away**2).mean())
    std = float(np.sqrt(variance))
    # Rounding makes a constant column vary by about 1e-16 of its size.
    if len(values) < 3 or std <= 1e-12 * max(abs(mean), 1e-300):
        return _Moments(finite(mean * scale), finite(std * scale), None, None)
    away /= std
    squares = away * away  # NumPy's power takes thirty times as long as a product
    skew, kurtosis = float((squares * away).mean()), float((squares * squares).mean()) - 3.0
    return _Moments(finite(mean * scale), finite(std * scale), finite(skew), finite(kurtosis))


def finite(value: float) -> float | None:
    """The value, or None for an infinite one and NaN."""
    return value if np.isfinite(value) else None


_QUANTILES = {
    "minimum": 0.0,
    "q05": 0.05,
    "q25": 0.25,
    "median": 0.5,
    "q75": 0.75,
    "q95": 0.95,
    "maximum": 1.0,
}


def _numeric(column: Column, cells: pl.Series) -> dict[str, Any]:
    """Moments, quantiles (linear interpolation), outliers and a histogram of one numeric column."""
    values = cells.to_numpy()
    values = values[~np.isnan(values)]
    moments = _moments(values)
    facts: dict[str, Any] = {"name": column.name, "values": len(values), "outliers": 0, "distinct": 0}
    facts |= {"mean": moments.mean, "std": moments.std, "skew": moments.skew}
    if not len(values):
        return facts
    values = np.sort(values)
    facts["distinct"] = 1 + int(np.count_nonzero(values[1:] != values[:-1]))
    with np.errstate(over="ignore", invalid="ignore"):
        quantiles = _quantiles(values)
        facts |= {name: finite(float(value)) for name, value in zip(_QUANTILES, quantiles, strict=True)}
        spread = quantiles[4] - quantiles[2]
        if 0 < spread < np.inf:
            low, high = quantiles[2] - 3 * spread, quantiles[4] + 3 * spread
            facts["outliers"] = int(
                np.searchsorted(values, low) + len(values) - np.searchsorted(values, high, "right")
            )
        if histogram := _histogram(values, float(quantiles[1]), float(quantiles[5])):
            facts["histogram"] = histogram
    return facts


def _histogram(values: NDArray[np.float64], low: float, high: float) -> dict[str, Any] | None:
    """Twenty bins of the sorted values from low to high; None when that is no width to divide."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = high - low
    if not (np.isfinite(width) and width > 1e-9 * max(abs(low), abs(high))):
        return None
    places = np.searchsorted(values, np.linspace(low, high, 21))
    places[-1] = np.searchsorted(values, high, "right")  # the last bin holds its end
    return {"low": float(low), "high": float(high), "counts": np.diff(places).tolist()}


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of sorted values that a report has, interpolated as NumPy does, in a tenth of its time."""
    place = np.array(list(_QUANTILES.values())) * (len(values) - 1)
    low = place.astype(np.int64)
    before, after = values[low], values[np.minimum(low + 1, len(values) - 1)]
    share, step = place - low, after - before
    return np.asarray(np.where(share < 0.5, before + step * share, after - step * (1 - share)))


def _cut(text: str) -> str:
    """A level as the report shows it: a cell may be a whole document."""
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def target_shape(answer: pl.Series, sample: pl.Series, task: Task) -> dict[str, Any]:
    """The target for the report: the largest classes with their exact counts, or the sample's histogram."""
    return TARGET_MEASURES[task.target].shape(answer, sample)


def _class_shape(answer: pl.Series, sample: pl.Series) -> dict[str, Any]:
    counts = tally(answer).head(MOST_CLASSES).rows()
    return {"classes": [[_cut(str(label)), count] for label, count in counts]}


def _number_shape(answer: pl.Series, sample: pl.Series) -> dict[str, Any]:
    values = np.sort(sample.to_numpy().astype(np.float64))
    low, high = (float(edge) for edge in np.quantile(values, [0.01, 0.99]))
    return {"histogram": histogram} if (histogram := _histogram(values, low, high)) else {}


@dataclass(frozen=True)
class TargetMeasure:
    """What is measured of one kind of target. facts: of all training rows.
    shape: all training rows and a sample of them -> what the report draws."""

    facts: Callable[[pl.Series], dict[str, Any]]
    shape: Callable[[pl.Series, pl.Series], dict[str, Any]]


TARGET_MEASURES: Mapping[TargetKind, TargetMeasure] = {
    "class": TargetMeasure(_class_facts, _class_shape),
    "number": TargetMeasure(_number_facts, _number_shape),
}


def _distribution_facts(numeric: Sequence[Mapping[str, Any]], sample: pl.DataFrame) -> dict[str, Any]:
    skews = {column["name"]: abs(column["skew"]) for column in numeric if column["skew"] is not None}
    heavy = sorted(name for name, skew in skews.items() if skew > HEAVY_SKEW)
    spreads = [column["std"] for column in numeric if column["skew"] is not None and column["std"]]
    cells = sum(column["values"] for column in numeric)
    pairs, repeating = _correlated(sorted(skews), sample)
    return {
        "skew.max": max(skews.values(), default=None),
        "skew.median": float(np.median(list(skews.values()))) if skews else None,
        "skew.heavy_columns": len(heavy),
        "columns.heavy_tailed": heavy,
        "outliers.share": sum(column["outliers"] for column in numeric) / cells if cells else None,
        "scale.ratio": finite(max(spreads) / min(spreads)) if spreads else None,
        "correlated.pairs_share": pairs,
        "columns.correlated": repeating,
    }


def _correlated(names: Sequence[str], sample: pl.DataFrame) -> tuple[float | None, list[str]]:
    """Share of strongly correlated pairs (missing cells at the column's mean),
    and the later name of each pair."""
    names = names[:CORRELATED_COLUMNS]
    if len(names) < 2:
        return None, []
    strong = np.triu(_correlations(names, sample) > CORRELATED, k=1)
    share = float(strong.sum()) / (len(names) * (len(names) - 1) / 2)
    return share, [names[position] for position in np.flatnonzero(strong.any(axis=0)).tolist()]


def _correlations(names: Sequence[str], sample: pl.DataFrame) -> NDArray[np.float64]:
    """Absolute correlations of numeric columns, shape (names, names)."""
    matrix = np.empty((sample.height, len(names)))
    for position, name in enumerate(names):
        values = sample[name].to_numpy().astype(np.float64)
        values = values / (np.nanmax(np.abs(values)) or 1.0)
        matrix[:, position] = np.nan_to_num(values - np.nanmean(values))
    length = np.sqrt((matrix**2).sum(axis=0))
    matrix /= np.where(length > 0, length, 1.0)
    return np.abs(matrix.T @ matrix)


def _order_correlation(table: Table, sample: pl.DataFrame) -> float | None:
    """Mean absolute correlation of neighbouring numeric columns, less the mean of
    all pairs: what a random order has."""
    names = [column.name for column in table.schema.of_type("numeric")]
    names = [name for name in names if sample[name].null_count() < sample.height][:CORRELATED_COLUMNS]
    if len(names) < ORDERED_COLUMNS:
        return None
    matrix = _correlations(names, sample)
    pairs = matrix[np.triu_indices(len(names), k=1)]
    return float(np.diagonal(matrix, offset=1).mean() - pairs.mean())


def _duplicate_facts(table: Table, rows: RowHashes) -> dict[str, Any]:
    """Exact up to collisions of 64-bit hashes; identifiers and constants are no part of a row here."""
    conflicting, total = 0, table.train.height
    if rows.distinct < total:
        answers = pl.DataFrame({"row": rows.train, "answer": table.train[table.schema.target]})
        groups = (
            answers.filter(rows.train.is_duplicated())
            .group_by("row")
            .agg(pl.len(), pl.col("answer").n_unique())
        )
        conflicting = int(groups.filter(pl.col("answer") > 1)["len"].sum())
    return {
        "duplicates.share": 1 - rows.distinct / total,
        "duplicates.conflicting_share": conflicting / total,
    }


def _leaks(
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


def _column_facts(
    column: Column,
    table: Table,
    sample: pl.DataFrame,
    missing: Mapping[str, int],
    numeric: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What the report shows of one column; distributions are those of the sample."""
    cells, rows = sample[column.name], table.train.height
    partial = sample.height < rows
    facts: dict[str, Any] = {"name": column.name, "type": column.type, "why": column.why}
    facts |= {
        "missing_share": missing[column.name] / rows,
        "sampled_rows": sample.height if partial else None,
    }
    if column.type == "categorical":
        facts |= {"distinct": _level_count(table, column.name), "distinct_sampled": False}
    else:
        known = numeric.get(column.name)
        distinct = cells.drop_nulls().n_unique() if known is None else known["distinct"]
        facts |= {"distinct": distinct, "distinct_sampled": partial}
    if column.type in ("categorical", "boolean"):
        filled = cells.drop_nulls().cast(pl.String)
        counts = tally(filled).head(10)
        facts["top"] = [[_cut(level), count / len(filled)] for level, count in counts.rows()]
    elif column.type == "datetime" and cells.null_count() < len(cells):
        dates = table.train[column.name].cast(pl.Datetime("us"))
        facts |= {"minimum": str(dates.min()), "maximum": str(dates.max())}
        moments = cells.cast(pl.Datetime("us")).drop_nulls().cast(pl.Int64).to_numpy().astype(np.float64)
        facts |= (
            {"histogram": histogram}
            if (histogram := _histogram(np.sort(moments), moments.min(), moments.max()))
            else {}
        )
    elif column.type == "numeric":
        facts |= {key: value for key, value in numeric[column.name].items() if key not in ("name", "values")}
    return facts


# --------------------------------------------------------------------------------------------------- hardware


def hardware_facts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the machine; UserError for a name in ``given`` that is none of them."""
    for name in given:
        if name not in _HARDWARE:
            raise UserError(
                f"hardware: unknown '{name}'{did_you_mean(name, _HARDWARE)}; expected {', '.join(_HARDWARE)}"
            )
    facts: dict[str, Any] = {}
    if not {"cores"} <= set(given):
        facts["cores"] = _cores()
    if not {"memory.gb", "memory.available_gb"} <= set(given):
        facts |= {"memory.gb": total_memory() / 1e9, "memory.available_gb": available_memory() / 1e9}
    if not {"gpu.count", "gpu.memory_gb"} <= set(given):
        sizes = [] if without_cuda() else _visible(_gpu_sizes())
        facts |= {"gpu.count": len(sizes), "gpu.memory_gb": min(sizes, default=None)}
    return facts | dict(given)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(int(quota) // int(period), 1))  # "max" is no number: no limit
    return cores


def _visible(sizes: list[float]) -> list[float]:
    """What CUDA_VISIBLE_DEVICES leaves of all GPUs: numbers up to the first that is none,
    or names, which are only counted."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return sizes
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    if names and not names[0].lstrip("-").isdigit():
        return sizes[: len(names)]
    there = itertools.takewhile(lambda name: name.isdigit() and int(name) < len(sizes), names)
    return [sizes[int(name)] for name in there]


def _gpu_sizes() -> list[float]:
    """GB of each GPU that nvidia-smi lists; none when there is no nvidia-smi or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GPU_SECONDS, check=True)
        return [float(line) * 2**20 / 1e9 for line in answer.stdout.splitlines() if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
