"""The target column: its task, its values as numbers or labels, and whether anything can be learnt from it."""

from __future__ import annotations

import numpy as np
import polars as pl

from advisor.columns import TEXTS, labels, number_format, parse_numbers, tally
from advisor.errors import UserError
from advisor.features import Task
from advisor.reading import shown

MIN_ROWS = 10
"""Fewer rows with a target than this are refused."""
MAX_CLASSES = 1000
FEW_VALUES = 20
"""A whole-number target with at most so many values, each on average in 10 rows, is read as classes."""
FEWEST_COUNTS = 6
"""Fewer different numbers are classes, of which one that a single row has is a mistake."""
LARGEST_TARGET = 1e100
"""The sum of the squares of larger numbers may be beyond any float."""
MOST_LONELY = 0.05
"""Rows that are alone in their class are left out where they are at most this share of the rows, and a mistake where more."""
LONELY = "rows_alone_in_their_class"


def read_target(cells: pl.Series, name: str, asked: Task | None, notes: dict[str, int]) -> tuple[Task, pl.Series, str]:
    """The task; the target as Float64 (regression) or labels, null where it is missing; how its text was read as numbers.

    A label that a single row has can be trained on or tested on, but not both: it is null, too, and counted in ``notes``, but
    for numbers of which nobody said that they are classes.
    """
    if cells.dtype.is_temporal():
        raise UserError(f"the target '{shown(name)}' holds dates or times; expected numbers or classes")
    form = number_format(cells)
    numbers = finite_numbers(cells, form)
    if asked == "regression" and numbers is None:
        example = labels(cells).drop_nulls()
        raise UserError(
            f"the target '{shown(name)}' holds text such as '{shown(example[0] if len(example) else '', 30)}' and "
            "cannot be a regression target; ask for task binary or multiclass, or name a column of numbers"
        )
    classes = labels(cells)
    if asked != "regression" and (numbers is None or asked is not None):
        classes = _without_lonely(classes, notes)
    task = asked or _inferred_task(numbers, classes)
    if task == "regression" and numbers is not None:
        notes |= {"unreadable_targets": lost} if (lost := numbers.null_count() - classes.null_count()) > 0 else {}
        return task, numbers.alias(name), form or ""
    found = classes.drop_nulls().n_unique()
    if asked is not None and numbers is not None and not _whole(numbers) and found > FEW_VALUES:
        raise UserError(
            f"the target '{shown(name)}' is continuous ({found:,} different numbers) and cannot be {task}; "
            "ask for task regression, or name a column of classes"
        )
    if asked == "binary" and found > 2:
        raise UserError(f"the target '{shown(name)}' has {found:,} classes and cannot be binary; ask for task multiclass")
    return task, classes.alias(name), ""


def _without_lonely(classes: pl.Series, notes: dict[str, int]) -> pl.Series:
    counts = tally(classes.drop_nulls())
    lonely = counts.filter(pl.col("rows") == 1)["value"]
    others = counts.height - len(lonely)
    if not len(lonely) or others < 2 or len(lonely) > MOST_LONELY * (len(classes) - classes.null_count()):
        return classes
    notes[LONELY] = len(lonely)
    return classes.set(classes.is_in(lonely.to_list()).fill_null(False), None)


def finite_numbers(cells: pl.Series, form: str | None) -> pl.Series | None:
    """The target as finite numbers, its text read as ``number_format`` says; None where that is None."""
    if form is None:
        return None
    numbers = parse_numbers(labels(cells), form) if cells.dtype in TEXTS else cells.cast(pl.Float64)
    return numbers.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()


def _whole(numbers: pl.Series) -> bool:
    filled = numbers.drop_nulls()
    return bool((filled == filled.round(0)).all())


def _inferred_task(numbers: pl.Series | None, classes: pl.Series) -> Task:
    found = classes.drop_nulls().n_unique()
    if found <= 2:
        return "binary"
    if numbers is None:
        return "multiclass"
    rows = len(classes) - classes.null_count()
    few = _whole(numbers) and found <= FEW_VALUES and rows >= 10 * found
    return "multiclass" if few and not _counts(numbers) else "regression"


def _counts(numbers: pl.Series) -> bool:
    """Whether whole numbers are counts, whose largest are so rare that a single row has them, and no names of classes."""
    counts = tally(numbers.drop_nulls())
    single = counts.filter(pl.col("rows") == 1)["value"]
    return counts.height >= FEWEST_COUNTS and bool(len(single)) and bool((single > numbers.median()).all())


def check_target(answer: pl.Series, task: Task, name: str, rows: int) -> None:
    if not len(answer):
        raise UserError(f"the target '{shown(name)}' is missing in all {rows:,} rows")
    if len(answer) < MIN_ROWS:
        raise UserError(f"only {len(answer)} of {rows:,} rows have a target ('{shown(name)}'); {MIN_ROWS} are needed")
    counts = tally(answer)
    if counts.height == 1:
        raise UserError(f"the target '{shown(name)}' has one value only, '{shown(counts['value'][0], 40)}'; two are needed")
    if task == "regression":
        if np.abs(answer.to_numpy()).max() > LARGEST_TARGET:
            raise UserError(f"the target '{shown(name)}' has numbers whose squares are beyond any float; give it in another unit")
        return
    if counts.height > MAX_CLASSES or counts.height > len(answer) / 2:
        raise UserError(
            f"the target '{shown(name)}' has {counts.height:,} classes in {len(answer):,} rows (at most "
            f"{MAX_CLASSES:,}, and 2 rows for each); is it an identifier, or a number for task regression?"
        )
    if (single := counts.filter(pl.col("rows") == 1)).height:
        raise UserError(
            f"class '{shown(single['value'][0], 40)}' of the target '{shown(name)}' has a single row"
            + (f" ({single.height} classes have)" if single.height > 1 else "")
            + "; leave such rows out, join classes, or give more rows (of numbers that are no classes: task regression)"
        )


def ordered_classes(answer: pl.Series) -> tuple[str, ...]:
    """Labels in order: by number when all are numbers, else as text."""
    found: list[str] = answer.unique().to_list()
    try:
        return tuple(sorted(found, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(found))
