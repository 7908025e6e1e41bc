"""Columns with a role (target, time, group, weight): named rightly, and what they say of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from advisor.data.columns.cells import labels
from advisor.data.columns.column import Column, conform
from advisor.data.columns.numbers import number_format
from advisor.data.options import ReadingOptions
from advisor.data.sources.source import Source
from advisor.data.tables.target import LONELY, MIN_ROWS, ReadTarget, finite_numbers
from advisor.data.tables.times import without_gaps
from advisor.errors import UserError, did_you_mean, shown


def checked_roles(read: Source, target: str, options: ReadingOptions) -> list[str]:
    """The columns that are no features, after everything that was asked for has been checked against the
    frame."""
    columns = read.frame.columns
    named = {"time": options.time_column, "group": options.group_column, "weight": options.weight_column}
    for role, name in {"target": target, **{f"{role} column": name for role, name in named.items()}}.items():
        if name is not None and name not in columns:
            raise UserError(_absent(role, str(name), read))
    for role, name in named.items():
        if name == target:
            raise UserError(f"the {role} column '{shown(name)}' is the target; name another column, or none")
    if options.time_column is not None and options.group_column is not None:
        raise UserError(
            f"both a time column ('{shown(options.time_column)}') and a group column "
            f"('{shown(options.group_column)}') are given; rows can be held out by only one of them: leave "
            "the other out"
        )
    special = [name for name in (target, *named.values()) if name is not None]
    _check_types(read, special, options)
    if not read.frame.height:
        raise UserError(f"{shown(read.origin, 200)} has a header and no rows; at least {MIN_ROWS} are needed")
    if not set(columns) - set(special):
        raise UserError(
            f"{shown(read.origin, 200)} has no column besides {either_of(special)}; nothing is left to learn "
            "from"
        )
    return special


def _check_types(read: Source, special: Sequence[str], options: ReadingOptions) -> None:
    """UserError for the type of a column that is not there, or is no feature."""
    columns = read.frame.columns
    for name in options.types:
        if name not in columns:
            near = did_you_mean(name, columns)
            raise UserError(f"types: {shown(read.origin)} has no column '{shown(name)}'{shown(near)}")
        if name in special:
            raise UserError(
                f"types: '{shown(name)}' is the target, time, group or weight column, which has no feature "
                "type"
            )


def rows_that_count(
    frame: pl.DataFrame, target: ReadTarget, weight_column: str | None
) -> tuple[pl.DataFrame, pl.Series, dict[str, int]]:
    """The rows that have a target and a weight, their targets, and the count of the others."""
    answer, notes = target.answer, dict[str, int]()
    if missing := answer.null_count() - target.notes.get(LONELY, 0):
        notes["rows_without_target"] = missing
    if weight_column is not None:
        weights = _weights(frame[weight_column])
        frame, answer = frame.with_columns(weights), answer.set(weights == 0, None)
        notes["rows_without_weight"] = int((weights == 0).sum())
    if not answer.null_count():
        return frame, answer, notes
    return frame.filter(answer.is_not_null()), answer.drop_nulls(), notes


def weight_cells(frame: pl.DataFrame, weight_column: str | None) -> list[pl.Series]:
    """The weight column, where there is one."""
    return [] if weight_column is None else [frame[weight_column]]


def _weights(cells: pl.Series) -> pl.Series:
    """How much each row counts, as numbers; UserError for what is no weight."""
    weights = finite_numbers(cells, number_format(cells))
    expected = "expected a number of 0 or more in every row"
    named = f"the weight column '{shown(cells.name)}'"
    if weights is None or weights.null_count():
        raise UserError(f"{named} has cells that are not numbers; {expected}")
    numbers = weights.to_numpy()
    if numbers.min() < 0 or not numbers.max() > 0:
        spread = f"{numbers.min():g} to {numbers.max():g}"
        raise UserError(f"{named} has values from {spread}; {expected}, with some above 0")
    return weights.cast(pl.Float64).alias(cells.name)


def either_of(names: Sequence[str]) -> str:
    """Names for a message: a, b or c."""
    some = [shown(name, 40) for name in names]
    return " or ".join([", ".join(some[:-1]), some[-1]] if some[1:] else some)


def _absent(role: str, name: str, read: Source) -> str:
    columns = read.frame.columns
    text = f"{shown(read.origin, 200)} has no {role} '{shown(name)}'{shown(did_you_mean(name, columns))}"
    if other := read.told.get("other-sheets"):
        text = f"{text}. {other} Its columns"
        some = ", ".join(shown(column, 30) for column in columns[:8])
        return f"{text} are {some}{' and more' if columns[8:] else ''}"
    if len(columns) == 1:
        return (
            f"{text}; its only column is '{shown(columns[0])}': expected comma, semicolon, tab or | "
            "between columns"
        )
    of_file = read.texts is not None
    if of_file and all(
        column.replace(".", "").lstrip("+-").isdigit() or column.startswith("column_") for column in columns
    ):
        return f"{text}; its first line looks like data: expected a header line with the columns' names"
    some = ", ".join(f"'{shown(column, 30)}'" for column in columns[:8])
    return f"{text}; its columns are {some}{' and more' if columns[8:] else ''}"


def helper_cells(frame: pl.DataFrame, group_column: str | None, time: Column | None) -> list[pl.Series]:
    """The group column as text, the time column as dates or numbers without gaps."""
    helpers = []
    if group_column is not None:
        helpers.append(labels(frame[group_column]).fill_null("").alias(group_column))
    if time is not None:
        helpers.append(without_gaps(conform(frame[time.name], time)[0]))
    return helpers
