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
from advisor.data.tables.times import without_gaps
from advisor.errors import FormChange, UserError, shown
from advisor.tasks import task_of


def given_test_rows(
    given: Source, schema: TableSchema, notes: dict[str, int], *, strict: bool
) -> tuple[pl.DataFrame, tuple[FormChange, ...]]:
    """The test table, read by the schema of the training rows, and what is unlike them in it."""
    needed = [column.name for column in schema.columns if column.type not in ("identifier", "constant")]
    there = set(given.frame.columns)
    if missing := [name for name in [*needed, schema.target] if name not in there]:
        if len(missing) == len(needed) + 1 and given.frame.width > len(needed):
            first = ", ".join(shown(name, 30) for name in given.frame.columns[:4])
            raise UserError(
                f"the test table {shown(given.origin, 200)} has none of the training table's columns; its "
                "first line "
                f"({first}, ...) looks like data: put the header line of the training table above it"
            )
        raise UserError(
            lacking_columns(f"the test table {shown(given.origin, 200)}", missing, given.frame.columns)
        )
    cells = given.frame[schema.target]
    if not task_of(schema.task).of_classes:
        # as the training rows', but where that was plain and these are not: they are of the same quantity
        numbers = finite_numbers(cells, schema.target_format or number_format(cells))
        if numbers is None or not numbers.count():
            bad = how_many(unreadable(cells, read_as(cells, "numeric")), len(cells), " are no numbers")
            raise UserError(
                f"the test table's target '{shown(schema.target)}' is not as the training rows': {bad}"
            )
        answer = numbers
        respelt: list[FormChange] = []
    else:
        texts = known_classes(labels(given.as_written(schema.target)), schema.classes)
        answer, respelt = known_spelling(texts, schema.classes, schema, schema.target)
        known = [*schema.classes, None]
        new = sorted(set(answer.unique()) - set(known))
        strange = answer.is_in(new)
        if new and bool((strange | answer.is_null()).all()):
            near = respelled(new, schema.classes, join=True).get(new[0])
            joining = f"'{shown(near or '', 40)}' is spelled otherwise: --join-spellings joins them"
            ask = "is it the same column?" if near is None else joining
            raise UserError(
                f"the test table's target has class '{shown(new[0], 40)}', which no training row has "
                f"(known: {either_of(schema.classes[:8])}), and no other; {ask}"
            )
        if new:
            notes["test_rows_of_unseen_class"] = int(strange.sum())
            answer = answer.set(strange, None)  # cannot be learnt, so it cannot be scored
    filled = answer.is_not_null()
    if lost := int((~filled).sum()) - notes.get("test_rows_of_unseen_class", 0):
        notes["test_rows_without_target"] = lost
    frame, changes = read_new(given.frame, schema, strict=strict)
    changes = (*respelt, *changes)
    group = schema.group_column if schema.group_column in given.frame.columns else None
    extra = helper_cells(given.frame, group, None)
    if schema.time is not None:
        extra.append(without_gaps(frame[schema.time.name]))
    return frame.with_columns(answer.alias(schema.target), *extra).filter(filled), changes
