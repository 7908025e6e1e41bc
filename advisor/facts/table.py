"""Measures the facts of a table.

The target of the test rows is looked at in one place, which tells whether they are
copies of training rows (``traps``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from advisor.data.columns.cells import ranked, tally
from advisor.data.columns.column import Column
from advisor.data.tables.features import encoded_names
from advisor.data.tables.schema import MAX_LEVELS, TableSchema
from advisor.data.tables.spellings import repeated_spellings
from advisor.data.tables.table import Table
from advisor.data.tables.target import LONELY
from advisor.documents import UNSET
from advisor.facts.distributions import (
    CORRELATED_COLUMNS,
    NumberShape,
    distribution_facts,
    histogram_of,
    number_shape,
    order_correlation,
)
from advisor.facts.groups import measure_groups
from advisor.facts.hardware import hardware_facts
from advisor.facts.schema import FACTS, Facts
from advisor.facts.shift.shift import measure_shift
from advisor.facts.shift.time_trend import held_to_none
from advisor.facts.specs.thresholds import HIGH_CARDINALITY
from advisor.facts.summaries import ColumnSummary
from advisor.facts.targets import cut_level, target_facts, target_summary
from advisor.facts.traps import RowHashes, hash_rows, leaks_target, measure_traps
from advisor.kinds import COLUMN_TYPES
from advisor.tasks import task_of

SAMPLE_ROWS = 20_000
"""Distributions (quantiles, skewness, correlations, leaks) are measured on at most this many training
rows."""
SAMPLE_CELLS = 20_000_000
"""... and on at most this many cells, but never on fewer than 2,000 rows."""
ONE_HOT_MAX, EMBEDDING_DIM = 9, 8
"""The base space's defaults, for ``encoded_width``."""
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

MOST_LEVELS = 10
"""Of each column, the most frequent."""


def measure_table(table: Table, hardware: Mapping[str, Any] | None = None) -> Facts:
    """Measure every fact of FACTS on the training rows.

    Counts (rows, missing cells, classes, duplicates, the target) are exact. Shapes of distributions are
    measured on at most SAMPLE_ROWS rows; ``Facts.sampled`` says which and on how many.
    hardware: fact name -> value instead of what this machine says (``cores``, ``memory.gb``,
        ``memory.available_gb``, ``gpu.count``, ``gpu.memory_gb``). UserError for any other name.
    """
    schema, train = table.schema, table.train
    sample = _sample(train, len(schema.columns))
    numeric = {column.name: number_shape(sample[column.name]) for column in schema.of_type("numeric")}
    missing = dict(zip(train.columns, train.null_count().row(0), strict=True))
    values: dict[str, Any] = dict.fromkeys(FACTS)
    values |= _shape_facts(table)
    values |= target_facts(train[schema.target], task_of(schema.task))
    values |= _missing_facts(table, missing)
    values |= _level_facts(table)
    values |= distribution_facts(numeric, sample)
    rows = hash_rows(table)
    values |= _duplicate_facts(table, rows)
    values |= measure_traps(table, sample, rows)
    values |= _leak_facts(table, sample)
    values |= hardware_facts(hardware or {})
    values["time.clamped_error_ratio"] = _held_to_none(table, sample)
    values["columns.order_correlation"] = order_correlation(table, sample)
    shift, effects, compared = measure_shift(table)
    values |= shift
    sampled = _sampled(table, sample.height, len(numeric), dict.fromkeys(shift, compared) if compared else {})
    columns = tuple(
        _summary(column, table, sample, missing[column.name], numeric.get(column.name), effects)
        for column in schema.columns
    )
    target = target_summary(train[schema.target], sample[schema.target], task_of(schema.task))
    return Facts(values, sampled, columns, target)


def _leak_facts(table: Table, sample: pl.DataFrame) -> dict[str, Any]:
    """The columns that give the target away, and those that name things."""
    answer = sample[table.schema.target]
    codes = ranked(answer)
    leaks = sorted(
        column.name
        for column in table.schema.columns
        if leaks_target(sample[column.name], column.type, answer, codes, table)
    )
    groups = measure_groups(table, leaks)
    # of each thing the target is known: a matter of how rows are held out, not of what is recorded when
    leaks = [name for name in leaks if name not in groups["columns.entity"]]
    return {**groups, "leak.columns": len(leaks), "columns.leaking": leaks}


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
    for kind in COLUMN_TYPES:
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
    group = schema.group_column
    facts: dict[str, Any] = {
        "rows": rows,
        "rows_test": table.test.height,
        "rows_without_target": table.notes.get("rows_without_target", 0),
        "rows_in_singleton_classes": table.notes.get(LONELY, 0),
        "rows_per_feature": rows / len(used) if used else None,
        "features": len(schema.columns),
        "features.used": len(used),
        "task": schema.task,
        "test.origin": table.test_origin,
        "has_groups": group is not None,
        "groups.count": None if group is None else table.train[group].n_unique(),
        "has_time": schema.time_column is not None,
        "has_metric": False,
        "has_earlier_run": False,
        "has_backbone": False,
        "time.inputs": len(schema.time_parts),
        "time_ordered": _time_ordered(table),
        "infinite.values": table.notes.get("infinite_values", 0),
        "unreadable.cells": table.notes.get("junk_values", 0),
        "sentinels.cells": table.notes.get("marked_values", 0),
    }
    facts |= _width_facts(schema) | _calendar_facts(schema)
    facts |= marked_facts(
        sorted((column.name, column.missing) for column in schema.columns if column.missing)
    )
    facts |= {f"features.{kind}": len(schema.of_type(kind)) for kind in COLUMN_TYPES}
    for kind in ("constant", "identifier"):
        facts[f"columns.{kind}"] = sorted(column.name for column in schema.columns if column.type == kind)
    return facts


def _width_facts(schema: TableSchema) -> dict[str, int]:
    """How many inputs a network has at the base space's defaults, and with every category one-hot."""
    arrays = len(schema.of_type("numeric", "boolean")) + len(schema.time_parts)
    for column in schema.of_type("datetime", "text"):
        arrays += len(encoded_names(column, schema.words.get(column.name)))
    levels = [len(schema.levels[column.name]) for column in schema.of_type("categorical")]
    return {
        "encoded_width": arrays + sum(count if count <= ONE_HOT_MAX else EMBEDDING_DIM for count in levels),
        "encoded_width.one_hot": arrays + sum(levels),
    }


def _calendar_facts(schema: TableSchema) -> dict[str, Any]:
    """What comes round in the numeric inputs."""
    units = [cycle.unit for cycle in schema.calendar]
    hours, days = units.count("hour"), units.count("weekday") + len(schema.working)
    return {
        "calendar.cycles": len(units),
        "calendar.hours": hours,
        "calendar.crosses": hours * days,
        "calendar.found": [f"{cycle.name}: {cycle.unit}" for cycle in schema.calendar],
    }


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


def _summary(
    column: Column,
    table: Table,
    sample: pl.DataFrame,
    missing: int,
    numbers: NumberShape | None,
    effects: Mapping[str, Mapping[str, float | None]],
) -> ColumnSummary:
    """What the report shows of one column; distributions are those of the sample."""
    cells, rows = sample[column.name], table.train.height
    partial = sample.height < rows
    summary = ColumnSummary(
        name=column.name,
        type=column.type,
        why=column.why,
        missing_share=missing / rows,
        sampled_rows=sample.height if partial else None,
        distinct=cells.drop_nulls().n_unique() if numbers is None else numbers.distinct,
        distinct_sampled=partial,
        shift=effects.get(column.name),
    )
    if column.type == "categorical":
        summary = replace(summary, distinct=_level_count(table, column.name), distinct_sampled=False)
    if column.type in ("categorical", "boolean"):
        filled = cells.drop_nulls().cast(pl.String)
        counts = tally(filled).head(MOST_LEVELS).rows()
        return replace(summary, top=tuple((cut_level(level), count / len(filled)) for level, count in counts))
    if column.type == "datetime" and cells.null_count() < len(cells):
        return _dated(summary, table.train[column.name], cells)
    return summary if numbers is None else _numbered(summary, numbers)


def _dated(summary: ColumnSummary, column: pl.Series, cells: pl.Series) -> ColumnSummary:
    """With the range of a date and the histogram of its sample."""
    dates = column.cast(pl.Datetime("us"))
    moments = cells.cast(pl.Datetime("us")).drop_nulls().cast(pl.Int64).to_numpy().astype(np.float64)
    drawn = histogram_of(np.sort(moments), moments.min(), moments.max())
    return replace(summary, minimum=str(dates.min()), maximum=str(dates.max()), histogram=drawn or UNSET)


def _numbered(summary: ColumnSummary, numbers: NumberShape) -> ColumnSummary:
    moments, drawn = numbers.moments, numbers.histogram or UNSET
    measured: dict[str, Any] = {"mean": moments.mean, "std": moments.std, "skew": moments.skew}
    measured |= {"outliers": numbers.outliers, "histogram": drawn, **numbers.quantiles}
    return replace(summary, **measured)
