"""The target column: its task, its values as numbers or labels, and whether
anything can be learnt from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import TEXTS, is_mark, labels, tally
from advisor.data.columns.column import how_many, unreadable
from advisor.data.columns.inference import read_as
from advisor.data.columns.numbers import number_format, parse_numbers
from advisor.data.columns.told import looks_like_numbers
from advisor.errors import UserError, shown
from advisor.tasks import BINARY, MULTICLASS, REGRESSION, Task

MIN_ROWS = 10
"""Fewer rows with a target than this are refused."""
MAX_CLASSES = 1000
FEW_VALUES = 20
"""A whole-number target with at most this many values, each on average in 10 rows, is read as classes."""
FEWEST_COUNTS = 6
"""Fewer different numbers are classes, of which one that a single row has is a mistake."""
LARGEST_TARGET = 1e100
"""The sum of the squares of larger numbers may be beyond any float."""
SMALLEST_SPREAD = 1e-100
"""Between the least and the largest number; the squares of smaller differences may be 0 to a float."""
MOST_LONELY = 0.05
"""Rows that are alone in their class are left out where they are at most this share of
the rows, and a mistake where more."""
LONELY = "rows_in_singleton_classes"


@dataclass(frozen=True)
class ClassValues:
    """The classes as they were given, in code order: of a frame or an array its own values (True, 1.0, '1'),
    of a file without types what is written in it.
    dtype: the name of NumPy's type of them."""

    values: tuple[bool | int | float | str, ...]
    dtype: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))  # JSON knows lists only

    def array(self) -> NDArray[Any]:
        """Shape (classes,)."""
        return np.array(self.values, dtype=self.dtype)


def class_values(
    classes: Sequence[str], keys: pl.Series, cells: pl.Series, given: Any = None
) -> ClassValues | None:
    """The values of the classes as they were given; None where they can't be kept.

    keys: the class of each row, null where it has none.
    cells: of the same rows, as they are written in a file or are in a frame; the
        commonest one of a class is its value.
    given: the pandas series that they were made from, whose values are taken.
    """
    counts = (
        pl.DataFrame({"key": keys, "cell": cells.cast(pl.String)}).with_row_index("row").drop_nulls("key")
    )
    rows = (
        counts.group_by("key", "cell")
        .agg(pl.col("row").min(), pl.len())
        .sort("len", "row", descending=[True, False])
    )
    first = dict(rows.unique("key", keep="first", maintain_order=True).select("key", "row").iter_rows())
    if given is None:
        dtype = "str" if cells.dtype in TEXTS else cells.head(0).to_numpy().dtype.name
        values = [cells[first[label]] for label in classes]
    else:
        values = [given.iloc[first[label]] for label in classes]
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        dtype = _numpy_type(given.dtype, values)
    plain = all(
        isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))
        for value in values
    )
    return ClassValues(tuple(values), dtype) if plain else None


def _numpy_type(dtype: Any, values: Sequence[Any]) -> str:
    """NumPy's name for the type of a pandas series with these values; object for
    texts and mixtures, as pandas has it."""
    if hasattr(dtype, "categories"):
        return _numpy_type(dtype.categories.dtype, values)
    plain = getattr(dtype, "numpy_dtype", dtype)
    if isinstance(plain, np.dtype) and plain.kind in "biuf":
        return plain.name
    return "object"


def written_values(classes: Sequence[str], keys: pl.Series, texts: pl.Series) -> ClassValues | None:
    """As ``class_values`` for the cells of a file without types: numbers where
    all are written back as they stood."""
    found = class_values(classes, keys, texts)
    if found is None:
        return None
    for kind, back in ((int, str), (float, _written)):
        try:
            numbers = tuple(kind(text) for text in found.values)
        except ValueError:
            continue
        if all(back(n) == text for n, text in zip(numbers, found.values, strict=True)) and not _too_large(
            numbers
        ):
            return ClassValues(numbers, np.dtype(kind).name)
    return found


def _written(value: float) -> str:
    return repr(value) if "e" not in repr(value) else ""


def _too_large(numbers: Sequence[float]) -> bool:
    return any(not -(2**63) <= number < 2**63 for number in numbers)


@dataclass(frozen=True)
class ReadTarget:
    """A target column as it was read.

    answer: as Float64 (regression) or labels, null where it is missing.
    form: how its text was read as numbers, as ``Column.format``; "" for classes.
    notes: labels that a single row has, and cells that are no numbers, as counts.
    """

    task: Task
    answer: pl.Series
    form: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)


def read_target(
    cells: pl.Series, name: str, asked: Task | None, written: Callable[[], pl.Series] | None = None
) -> ReadTarget:
    """The task and the target.

    A label that a single row has can be trained on or tested on, but not both: it is null, too, and counted
    in ``notes``, but for numbers of which nobody said that they are classes.
    written: reads the cells as they stand in a file without types; where they are no whole numbers, a class
        is its text (1.10 is other than 1.1).
    """
    if cells.dtype.is_temporal():
        raise UserError(f"the target '{shown(name)}' holds dates or times; expected numbers or classes")
    form = number_format(cells)
    numbers = finite_numbers(cells, form)
    of_numbers = asked is not None and not asked.of_classes
    if of_numbers and numbers is None:
        raise UserError(_no_numbers(cells, name))
    classes, lonely = _classes_of(cells, name, numbers, asked, written), 0
    if not of_numbers and (numbers is None or asked is not None):
        classes, lonely = _without_lonely(classes)
    task = asked or _inferred_task(numbers, classes)
    if not task.of_classes and numbers is not None:
        lost = numbers.null_count() - classes.null_count()
        return ReadTarget(
            task, numbers.alias(name), form or "", {"unreadable_targets": lost} if lost > 0 else {}
        )
    if asked is not None:
        _check_classes(classes, name, numbers, asked)
    return ReadTarget(task, classes.alias(name), notes={LONELY: lonely} if lonely else {})


def _no_numbers(cells: pl.Series, name: str) -> str:
    """What is wrong with a regression target that holds no numbers."""
    unread = unreadable(cells, read_as(cells, "numeric"))
    bad = how_many(unread, len(cells), " are not numbers")
    if len(unread) == len(cells) - cells.null_count():
        bad = _looks(cells) or bad
    return (
        f"'{shown(name)}' cannot be a regression target: {bad}; fix these cells, use task binary or "
        "multiclass, or name a numeric column"
    )


def _classes_of(
    cells: pl.Series,
    name: str,
    numbers: pl.Series | None,
    asked: Task | None,
    written: Callable[[], pl.Series] | None,
) -> pl.Series:
    """The cells as labels of classes.
    numbers: the cells as such, where they are."""
    classes = labels(cells)
    if written is not None and cells.dtype.is_float() and _may_be_classes(numbers, asked):
        texts = written()
        classes = texts.set(classes.is_null(), None).alias(name) if texts.dtype == pl.String else classes
    if asked is None and numbers is not None and cells.dtype == pl.String:
        # words for a missing cell are no class of numbers
        classes = classes.set(is_mark(classes).fill_null(value=False), None)
    return classes


def _check_classes(classes: pl.Series, name: str, numbers: pl.Series | None, asked: Task) -> None:
    """UserError where there are more classes than the task that was asked for has."""
    found = classes.drop_nulls().n_unique()
    if numbers is not None and not _whole(numbers) and found > FEW_VALUES:
        raise UserError(
            f"the target '{shown(name)}' is continuous ({found:,} different numbers) and cannot be {asked}; "
            "use task regression, or name a column of classes"
        )
    if asked.most_classes is not None and found > asked.most_classes:
        raise UserError(
            f"the target '{shown(name)}' has {found:,} classes and cannot be {asked}; use task multiclass"
        )


def _may_be_classes(numbers: pl.Series | None, asked: Task | None) -> bool:
    """Whether these are no whole numbers, and few enough that each may name a class."""
    if numbers is None or (asked is not None and not asked.of_classes) or _whole(numbers):
        return False
    return asked is not None or numbers.drop_nulls().n_unique() <= FEW_VALUES


def known_classes(answer: pl.Series, classes: Sequence[str]) -> pl.Series:
    """Classes as the training rows have them where further rows have the same
    numbers otherwise written (1.0 for 1)."""
    strange = answer.drop_nulls().unique()
    strange = strange.filter(~strange.is_in(list(classes)))
    numbers = pl.DataFrame({"known": list(classes)}, schema={"known": pl.String})
    numbers = numbers.with_columns(n=pl.col("known").cast(pl.Float64, strict=False))
    numbers = numbers.drop_nulls().filter(pl.col("n").is_unique())
    found = (
        strange.to_frame("text")
        .with_columns(n=pl.col("text").cast(pl.Float64, strict=False))
        .join(numbers, on="n")
    )
    same = dict(found.select("text", "known").iter_rows())
    return answer.replace(list(same), list(same.values())) if same else answer


def _without_lonely(classes: pl.Series) -> tuple[pl.Series, int]:
    """Labels without those that a single row has, and how many these are; all where they are no few rows."""
    counts = tally(classes.drop_nulls())
    lonely = counts.filter(pl.col("rows") == 1)["value"]
    others = counts.height - len(lonely)
    if not len(lonely) or others < 2 or len(lonely) > MOST_LONELY * (len(classes) - classes.null_count()):
        return classes, 0
    return classes.set(classes.is_in(lonely.to_list()).fill_null(False), None), len(lonely)


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
        return BINARY
    if numbers is None:
        return MULTICLASS
    rows = len(classes) - classes.null_count()
    # whole numbers, or one number in more than one spelling: 1.1 and 1.10 are names
    named = _whole(numbers) or found > numbers.drop_nulls().n_unique()
    few = named and found <= FEW_VALUES and rows >= 10 * found
    return MULTICLASS if few and not _counts(numbers) else REGRESSION


def _counts(numbers: pl.Series) -> bool:
    """Whether whole numbers are counts, whose largest are so rare that a single row
    has them, and no names of classes."""
    counts = tally(numbers.drop_nulls())
    single = counts.filter(pl.col("rows") == 1)["value"]
    return counts.height >= FEWEST_COUNTS and bool(len(single)) and bool((single > numbers.median()).all())


def check_target(answer: pl.Series, task: Task, name: str, rows: int, cells: pl.Series | None = None) -> None:
    """UserError where nothing can be learned from the target.
    cells: of a table's target, as they were given."""
    if not len(answer):
        raise UserError(f"the target '{shown(name)}' is missing in all {rows:,} rows")
    if len(answer) < MIN_ROWS:
        raise UserError(
            f"only {len(answer)} of {rows:,} rows have a target ('{shown(name)}'); {MIN_ROWS} are needed"
        )
    counts = tally(answer)
    if counts.height == 1:
        raise UserError(
            f"the target '{shown(name)}' has only one value, '{shown(counts['value'][0], 40)}'; two are "
            "needed"
        )
    if not task.of_classes:
        _check_range(answer.to_numpy(), name)
        return
    if counts.height > MAX_CLASSES or counts.height > len(answer) / 2:
        raise UserError(
            f"the target '{shown(name)}' has {counts.height:,} classes in {len(answer):,} rows (at most "
            f"{MAX_CLASSES:,}, and 2 rows for each); "
            + (_looks(cells) or "is it an identifier, or a number for task regression?")
        )
    if (single := counts.filter(pl.col("rows") == 1)).height:
        raise UserError(
            f"class '{shown(single['value'][0], 40)}' of the target '{shown(name)}' has a single row"
            + (f" ({single.height} classes have)" if single.height > 1 else "")
            + "; leave such rows out, merge classes, or give more rows (task regression if these "
            "numbers are not classes)"
        )


def _check_range(numbers: NDArray[np.float64], name: str) -> None:
    """UserError for a regression target whose squares no float can tell apart, or hold."""
    spread, size = float(np.ptp(numbers)), float(np.abs(numbers).max())
    if spread < SMALLEST_SPREAD or size > LARGEST_TARGET:
        where = "too small" if spread < SMALLEST_SPREAD else "too large"
        raise UserError(
            f"the target '{shown(name)}' has numbers whose squares are {where} for a float; use another unit"
        )


def _looks(cells: pl.Series | None) -> str:
    return "".join(looks_like_numbers(cells)) if cells is not None and cells.dtype == pl.String else ""


def ordered_classes(answer: pl.Series) -> tuple[str, ...]:
    """Labels in order: by number when all are numbers, else as text."""
    found: list[str] = answer.unique().to_list()
    try:
        return tuple(sorted(found, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(found))
