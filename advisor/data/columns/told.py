"""What to tell the user of cells that are not what they seem: limits, numbers that are none, junk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from advisor.data.columns.cells import as_text, tally, without_marks
from advisor.data.columns.column import Column, how_many, side_name, unreadable
from advisor.data.columns.inference import ASKED
from advisor.data.columns.numbers import (
    CURRENCY,
    are_limits_of_numbers,
    best_number_form,
    beyond,
    currencies,
    enough_may_be_numbers,
    fractions_beside_per_cents,
    number_forms,
    parse_numbers,
)
from advisor.errors import shown
from advisor.tasks import Task

LOOKS_NUMERIC = 0.5
"""From this share of readable cells on a text column is told to look like
numbers, with the cells that prevent it."""
TOLD_COLUMNS, TOLD_CELLS = 5, 3
"""A message names this many columns, and this many cells of each."""


def told_of_numbers(
    frame: pl.DataFrame, columns: Sequence[Column], counts: Mapping[str, pl.DataFrame]
) -> dict[str, str]:
    """What to know of columns whose numbers have limits, or that look like
    numbers and are none: code -> sentence.
    counts: tallies of categories."""
    limits, alone, looks = [], [], []
    for column in columns:
        if column.limits:
            limits.append(_limits_words(frame[column.name]))
        elif column.type == "numeric" and column.format and (beyond(frame[column.name]) != 0).any():
            alone.append(_limits_words(frame[column.name]))
        elif column.type in ("categorical", "text", "identifier") and column.why != ASKED:
            cells = frame[column.name]
            looks += looks_like_numbers(cells, counts.get(column.name)) if cells.dtype == pl.String else []
    told = {}
    if limits:
        told["numbers-at-a-limit"] = (
            f"{_first(limits)}: each cell is read as its limit, and the side becomes a separate input "
            f"('{side_name('COLUMN')}')."
        )
    if alone:
        told["cells-at-a-limit"] = f"{_first(alone)}: each cell is read as its limit; its side is not kept."
    if looks:
        told["looks-like-numbers"] = (
            f"{_first(looks)}. Fix these cells, or give --type COLUMN=numeric, which reads them as missing."
        )
    return told


def told_of_target(cells: pl.Series, task: Task) -> dict[str, str]:
    """What to know of a numeric target of which some cells have a limit."""
    if task.of_classes or not (beyond(cells) != 0).any():
        return {}
    return {
        "target-at-a-limit": f"The target: {_limits_words(cells)}. Each is read as its limit. The loss does "
        "not know how far "
        "beyond it the true value lies, so predictions near a limit are drawn towards it."
    }


def told_of_unreadable(frame: pl.DataFrame, columns: Sequence[Column]) -> dict[str, str]:
    """Which cells cannot be read as the types of their columns: code -> sentence."""
    said = []
    for column in columns:
        if column.type in ("numeric", "datetime", "boolean") and len(
            bad := unreadable(frame[column.name], column)
        ):
            name = shown(column.name, 60)
            said.append(f"in '{name}' ({column.type}) {how_many(bad, frame.height)}")
    return (
        {"unreadable-cells": f"Cells that cannot be read are missing values: {_first(said)}."} if said else {}
    )


def _first(sentences: Sequence[str]) -> str:
    more = f"; and {len(sentences) - TOLD_COLUMNS} more columns" if sentences[TOLD_COLUMNS:] else ""
    return "; ".join(sentences[:TOLD_COLUMNS]) + more


def _limits_words(cells: pl.Series) -> str:
    sides = beyond(cells)
    number, filled = int((sides != 0).sum()), len(cells) - cells.null_count()
    example = shown(cells.filter(sides != 0)[0], 20)
    return f"in '{shown(cells.name, 60)}' {number:,} of {filled:,} numbers are limits such as '{example}'"


def looks_like_numbers(cells: pl.Series, counts: pl.DataFrame | None = None) -> list[str]:
    """That most cells of a text column are numbers, and which are not; nothing
    where they are no numbers at all.
    counts: the tally of the cells, where there is one."""
    values, rows = without_marks(tally(as_text(cells).drop_nulls()) if counts is None else counts)
    total = int(rows.sum())
    if not total or values.str.contains(r"^0\d+$").sum() > 0.2 * len(values):
        return []
    name = shown(cells.name, 60)
    if len(found := currencies(values)) > 1:
        if best_number_form(values.str.replace_all(CURRENCY, ""), rows) is None:
            return []
        return [
            f"'{name}' looks like numbers in several currencies ({', '.join(sorted(found))}), which cannot "
            "be compared"
        ]
    if len(fractions := fractions_beside_per_cents(values)):
        some = shown(fractions[0], 30)
        return [
            f"'{name}' looks like percentages mixed with fractions such as '{some}', which are not marked as "
            "percentages"
        ]
    if not enough_may_be_numbers(values, rows, LOOKS_NUMERIC * total):
        return []
    best = max(
        number_forms(values, rows),
        key=lambda form: int(rows.filter(parse_numbers(values, form).is_not_null()).sum()),
    )
    read = parse_numbers(values, best)
    share = int(rows.filter(read.is_not_null()).sum()) / total
    if not LOOKS_NUMERIC <= share < 1 or not are_limits_of_numbers(values):
        return []
    prevents = pl.DataFrame({"value": values, "rows": rows}).filter(read.is_null())
    some = ", ".join(f"'{shown(value, 30)}' ({count:,})" for value, count in prevents.head(TOLD_CELLS).rows())
    more = " and others" if prevents.height > TOLD_CELLS else ""
    return [f"'{name}' looks like numbers ({share:.0%} of its cells), but for {some}{more}"]
