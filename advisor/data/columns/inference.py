"""What a column is, judged by its cells, with a reason."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import polars as pl

from advisor.data.columns.cells import (
    BOOLEAN_WORDS,
    DECLARED,
    EXACT_IN_FLOAT,
    MOSTLY,
    TEXTS,
    as_text,
    labels,
    tally,
    without_marks,
)
from advisor.data.columns.column import Column, conform
from advisor.data.columns.dates import best_date_forms, hours_matter
from advisor.data.columns.numbers import CLOCK, DURATION, best_number_form, beyond, parse_numbers
from advisor.errors import shown
from advisor.kinds import ColumnType

MOST_JUDGED = 10_000
"""By so many of its cells, spread over all, it is judged which type most of a column can be read as."""
ASKED = "asked for"
"""Why a column has its type where the person gave it."""
CODE_NAME = re.compile(
    r"(^|[_\W])(id|ids|code|zip|zipcode|postcode|plz)$|[a-z](ID|Id|Code)$", re.IGNORECASE | re.ASCII
)
"""A column of integers with such a name and at most MAX_CODES values holds codes, not quantities."""
MAX_CODES = 200
NINES = frozenset(sign * float("9" * digits) for digits in range(2, 9) for sign in (-1, 1))
_FILLS = (1e20, 1e30, 9.96921e36, 3.4028235e38)
FILLS = frozenset(
    float(kind(sign * value)) for value in _FILLS for sign in (-1, 1) for kind in (float, np.float32)
)
FILLS |= {-(2.0**15), -(2.0**31)}
"""Numbers that people type for a missing cell, and those that instruments and file formats fill it with
(netCDF's default, the climate models' 1e20, the ends of integers and floats)."""
MARKED_ROWS = 2
"""Such a number marks missing cells when this many rows have it: a single one may be a slip."""
IDENTIFIER_ROWS = 20
"""With fewer rows than this, values that are all different say nothing about identifiers."""
TEXT_WORDS = 2.0
"""Mean number of words above which mostly different texts are free text rather than levels."""
FEWEST_LIMITS = 2
"""This many cells beyond a limit make the side an input of its own: a single one says nothing."""


def infer(cells: pl.Series, sample: pl.Series, wanted: ColumnType | None = None) -> Column:
    """Judge a column by ``sample``, some of its ``cells``; exact questions go to all cells.

    wanted: the type the user asked for; then only the format is inferred.
    """
    name = cells.name
    seen = "" if len(sample) == len(cells) else f" (judged on {len(sample):,} of {len(cells):,} rows)"
    if wanted is not None:
        form = _format(sample, wanted)
        limits = wanted == "numeric" and form != "" and int((beyond(cells) != 0).sum()) >= FEWEST_LIMITS
        return Column(name, wanted, ASKED, form, limits=limits)
    if cells.null_count() == len(cells):
        return Column(name, "constant", "every cell is missing")
    if (constant := _constant(cells, sample)) is not None:
        return Column(name, "constant", constant)
    dtype = cells.dtype
    if dtype == pl.Boolean:
        return Column(name, "boolean", "true and false")
    if dtype in (pl.Date, pl.Datetime):
        return Column(
            name, "datetime", f"stored as {str(dtype).partition('(')[0].lower()}", hours_matter(sample)
        )
    if dtype in DECLARED:
        return _names(cells, sample, "categories of the data", seen)
    if dtype.is_integer() and _merged_by_float(sample, sample.drop_nulls().n_unique()):
        return _names(labels(cells), labels(sample), "whole numbers too large to be distinct as floats", seen)
    if dtype.is_numeric() or dtype in (pl.Time, pl.Duration):
        return _numbers(cells, sample, name, "numbers", seen, "")
    return _from_text(as_text(cells), as_text(sample), name, seen)


def _names(cells: pl.Series, sample: pl.Series, why: str, seen: str) -> Column:
    """A column of names: identifiers where each row has another one, else categories."""
    filled = cells.drop_nulls()
    distinct = filled.n_unique()
    if len(cells) >= IDENTIFIER_ROWS and distinct > 0.99 * len(filled):
        return Column(cells.name, "identifier", f"{why}, different in every row" + seen)
    return Column(cells.name, "categorical", f"{distinct:,} {why}")


def _merged_by_float(numbers: pl.Series, distinct: int) -> bool:
    """Whether this many different numbers are so large that a float takes many for the
    same: they are names, no quantities."""
    largest = numbers.abs().max()
    if not isinstance(largest, int | float) or largest <= EXACT_IN_FLOAT:
        return False
    return numbers.drop_nulls().cast(pl.Float64).n_unique() < MOSTLY * distinct


def _constant(cells: pl.Series, sample: pl.Series) -> str | None:
    """Why the column is constant, or None. The sample only saves work: the answer is for all cells."""
    if sample.dtype == pl.Float64 and len(sample) > 1 and abs(np.diff(sample.to_numpy()[:2])) > 0:
        return None  # of thousands of columns the counting takes a second
    filled = sample.drop_nulls()
    if filled.head(200).n_unique() > 1 or filled.n_unique() > 1:
        return None
    if cells.dtype == pl.String:
        cells = as_text(cells)
    if cells.null_count() == len(cells):
        return "every cell is missing"
    if cells.null_count() or cells.n_unique() > 1:
        return None  # one value beside missing cells still tells two kinds of rows apart
    return f"the value is always '{shown(cells[0], 30)}'"


def _numbers(cells: pl.Series, sample: pl.Series, name: str, why: str, seen: str, form: str) -> Column:
    """A column that can be read as numbers: numeric, unless two-valued, codes or row numbers."""
    if cells.dtype in (pl.Time, pl.Duration):
        return Column(name, "numeric", why + seen, form)
    values = sample.cast(pl.Float64, strict=False).to_numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        return Column(name, "numeric", why + seen, form)
    unique = np.unique(values)
    distinct = len(unique)
    if not form and unique.tolist() == [0.0, 1.0]:
        return Column(name, "boolean", "the numbers 0 and 1" + seen)
    whole = bool((values == np.round(values)).all())
    marked = {float(unique[0]), float(unique[-1])} & (NINES | FILLS)
    marks = marks_of_missing(pl.Series(values)) if marked else ()
    if not whole:
        return Column(name, "numeric", why + seen, form, marks)
    named = CODE_NAME.search(name) is not None
    if not form and distinct == len(values) and len(cells) >= IDENTIFIER_ROWS:
        numbers = cells.cast(pl.Float64, strict=False).drop_nulls()
        array = numbers.to_numpy()
        span = float(array.max() - array.min()) + 1 if len(array) else 0.0
        # Twice the rows: a quarter or half of a numbered table may have been split off before.
        if (
            len(numbers) == len(cells)
            and (named or span <= 2 * len(cells))
            and numbers.n_unique() >= 0.99 * len(cells)
        ):
            return Column(name, "identifier", "whole numbers that count the rows" + seen)
    if named and 2 < distinct <= min(MAX_CODES, len(values) / 5):
        return Column(name, "categorical", f"{distinct} whole numbers, and its name suggests codes" + seen)
    return Column(name, "numeric", "whole numbers" + seen if why == "numbers" else why + seen, form, marks)


def marks_of_missing(values: pl.Series) -> tuple[float, ...]:
    """The numbers, such as -999 or 1e20, that stand for a missing cell in these: at
    an end, in several rows, and far off.

    Far off is farther from all others than these span, or, from -999 down, the only number below 0.
    """
    rest, marks = values, list[float]()
    for end in (pl.Series.min, pl.Series.max):
        mark = end(rest)
        if not isinstance(mark, int | float) or mark not in NINES | FILLS:
            continue
        others = rest.filter(rest != mark)
        low, high = others.min(), others.max()
        if (
            len(rest) - len(others) < MARKED_ROWS
            or not isinstance(low, int | float)
            or not isinstance(high, int | float)
        ):
            continue
        gap = low - mark if mark < low else mark - high
        if high > low and (gap > high - low or (mark <= -999 and low >= 0)):
            marks.append(float(mark))
            rest = others
    return tuple(sorted(marks))


def _from_text(cells: pl.Series, sample: pl.Series, name: str, seen: str) -> Column:
    filled = sample.drop_nulls()
    counts = tally(filled)
    words = {str(value).strip().lower() for value in counts["value"].head(20)}
    for pair in BOOLEAN_WORDS:
        if words == set(pair) and counts.height <= 20:
            return Column(name, "boolean", f"'{pair[1]}' and '{pair[0]}'" + seen)
    values, rows = without_marks(counts)
    if len(values) and int(values.str.contains(r"^0\d+$").sum()) <= 0.2 * len(
        values
    ):  # else codes: 00501, 007
        form = best_number_form(values, rows)
        if form is not None and not _merged_by_float(parse_numbers(values, form), len(values)):
            numbers = parse_numbers(sample, form)
            junk = (len(filled) - numbers.len() + numbers.null_count()) / max(len(filled), 1)
            why = {CLOCK: "times of day, as hours", DURATION: "durations, as seconds"}.get(
                form, "numbers as text"
            )
            why += f" in '{shown(form[1:], 12)}'" if form not in (CLOCK, DURATION) and form[1:] else ""
            why += f", {junk:.1%} of the cells unreadable, so missing" if junk else ""
            column = _numbers(parse_numbers(cells, form), numbers, name, why, seen, form)
            limits = column.type == "numeric" and int((beyond(cells) != 0).sum()) >= FEWEST_LIMITS
            return replace(column, limits=limits)
    if len(values) and (form := best_date_forms(values, rows)):
        return Column(name, "datetime", "dates written as " + form.replace("|", " or ") + seen, form)
    return _levels_or_text(cells, filled, counts.height, name, seen)


def _levels_or_text(cells: pl.Series, filled: pl.Series, distinct: int, name: str, seen: str) -> Column:
    words = int(filled.str.count_matches(r"\S+").sum()) / len(filled)
    unique = distinct / len(filled)
    if unique > 0.99 and words < TEXT_WORDS and len(cells) >= IDENTIFIER_ROWS:
        short = not (filled.str.len_chars() > 64).any()
        if short and cells.drop_nulls().n_unique() >= 0.99 * len(cells):
            return Column(name, "identifier", "a different short text in every row" + seen)
    if unique > 0.5 and words >= TEXT_WORDS and distinct > IDENTIFIER_ROWS:
        return Column(name, "text", f"mostly different texts of {words:.0f} words" + seen)
    return Column(name, "categorical", f"{distinct:,} different texts" + seen)


def _format(sample: pl.Series, wanted: ColumnType) -> str:
    """The format of a column whose type the user named; "" when there is none to be found."""
    if sample.dtype in (pl.Date, pl.Datetime):
        return hours_matter(sample) if wanted == "datetime" else ""
    if wanted == "datetime" and sample.dtype.is_numeric():
        middle = sample.drop_nulls().cast(pl.Float64).abs().median()
        size = float(middle) if isinstance(middle, int | float) else 0.0
        return next((form for form, low in _EPOCHS if size >= low), "days")
    if sample.dtype not in TEXTS:
        return ""
    counts = tally(as_text(sample).drop_nulls())
    values, rows = counts["value"], counts["rows"]
    if wanted == "numeric":
        return best_number_form(values, rows, enough=0.0) or ""
    return best_date_forms(values, rows, enough=0.0) if wanted == "datetime" else ""


_EPOCHS = (("milliseconds", 1e11), ("seconds", 1e9), ("yyyymmdd", 1e7), ("days", 3000), ("years", 1000))


def read_as(cells: pl.Series, *types: ColumnType) -> Column:
    """The column as that one of the types that most of its cells can be read as."""
    sample = cells.gather(np.linspace(0, len(cells) - 1, min(len(cells), MOST_JUDGED)).astype(int))
    found = [infer(cells, sample, wanted) for wanted in types]
    return min(found, key=lambda column: conform(cells, column)[0].null_count())
