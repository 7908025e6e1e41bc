"""A table of test rows that the user gave, read by the schema of the training rows."""

from __future__ import annotations

import polars as pl

from advisor.data.columns.cells import labels
from advisor.data.columns.column import how_many, unreadable
from advisor.data.columns.inference import read_as
from advisor.data.columns.numbers import number_format
from advisor.data.sources.source import Source
from advisor.data.tables.features import lacking_columns
from advisor.data.tables.new_rows import known_spelling, read_new
from advisor.data.tables.roles import either_of, helper_cells
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.spellings import respelled
from advisor.data.tables.target import finite_numbers, known_classes
from advisor.data.tables.test_rows import ScoredRows
from advisor.data.tables.times import without_gaps
from advisor.errors import FormChange, UserError, shown
from advisor.tasks import task_of


def given_test_rows(given: Source, schema: TableSchema, *, strict: bool) -> ScoredRows:
    """The test table, read by the schema of the training rows; rows without a target that can be scored are
    left out."""
    _check_columns(given, schema)
    task = task_of(schema.task)
    answer, respelt, strange = (
        _classes(given, schema) if task.of_classes else (_numbers(given, schema), (), 0)
    )
    filled = answer.is_not_null()
    notes = {"test_rows_of_unseen_class": strange} if strange else {}
    if lost := int((~filled).sum()) - strange:
        notes["test_rows_without_target"] = lost
    frame, changes = read_new(given.frame, schema, strict=strict)
    group = schema.group_column if schema.group_column in given.frame.columns else None
    extra = helper_cells(given.frame, group, None)
    if schema.time is not None:
        extra.append(without_gaps(frame[schema.time.name]))
    tested = frame.with_columns(answer.alias(schema.target), *extra).filter(filled)
    return ScoredRows(tested, notes, (*respelt, *changes))


def _check_columns(given: Source, schema: TableSchema) -> None:
    """UserError where the table lacks a column that is needed."""
    needed = [column.name for column in schema.columns if column.type not in ("identifier", "constant")]
    there = set(given.frame.columns)
    missing = [name for name in [*needed, schema.target] if name not in there]
    if not missing:
        return
    if len(missing) == len(needed) + 1 and given.frame.width > len(needed):
        first = ", ".join(shown(name, 30) for name in given.frame.columns[:4])
        raise UserError(
            f"the test table {shown(given.origin, 200)} has none of the training table's columns; its first "
            f"line ({first}, ...) looks like data: add the header line of the training table"
        )
    raise UserError(
        lacking_columns(f"the test table {shown(given.origin, 200)}", missing, given.frame.columns)
    )


def _numbers(given: Source, schema: TableSchema) -> pl.Series:
    """The target as numbers; UserError where none is."""
    cells = given.frame[schema.target]
    # as the training rows', but where that was plain and these are not: they are of the same quantity
    numbers = finite_numbers(cells, schema.target_format or number_format(cells))
    if numbers is None or not numbers.count():
        bad = how_many(unreadable(cells, read_as(cells, "numeric")), len(cells), " are not numbers")
        raise UserError(
            f"the test table's target '{shown(schema.target)}' is not read like the training rows': {bad}"
        )
    return numbers


def _classes(given: Source, schema: TableSchema) -> tuple[pl.Series, tuple[FormChange, ...], int]:
    """The target as labels, what is spelled otherwise in it, and how many rows have a class that no training
    row has: it cannot be learnt, so it cannot be scored. UserError where all have."""
    texts = known_classes(labels(given.as_written(schema.target)), schema.classes)
    answer, respelt = known_spelling(texts, schema.classes, schema, schema.target)
    new = sorted(set(answer.unique()) - {*schema.classes, None})
    if not new:
        return answer, tuple(respelt), 0
    strange = answer.is_in(new)
    if bool((strange | answer.is_null()).all()):
        near = respelled(new, schema.classes, join=True).get(new[0])
        joining = f"'{shown(near or '', 40)}' is another spelling: --join-spellings joins them"
        ask = "is this the same column?" if near is None else joining
        raise UserError(
            f"the test table's target has class '{shown(new[0], 40)}', which no training row has "
            f"(known: {either_of(schema.classes[:8])}), and no other; {ask}"
        )
    return answer.set(strange, None), tuple(respelt), int(strange.sum())
