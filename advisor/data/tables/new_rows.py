"""New rows, read by the schema of the training rows: what stands there in another form
is read again where that is certain.

Certain is a reading that makes more of the cells than any other form does, or the same of
them as all forms that make as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from advisor.data.columns.cells import MOSTLY, TEXTS, is_mark, labels
from advisor.data.columns.column import Column, conform, side_name
from advisor.data.columns.dates import date_forms, parse_dates
from advisor.data.columns.numbers import CLOCK, DURATION, beyond, number_forms, parse_numbers
from advisor.data.sources.source import with_unique_names
from advisor.data.tables.schema import Usual
from advisor.data.tables.spellings import replaced, respelled
from advisor.errors import FormChange, UserError, shown

if TYPE_CHECKING:
    from advisor.data.tables.schema import TableSchema

BY_CHANCE = 0.01
"""Cells that are missing or unknown are told where rows like the training rows would have
this many with less than this chance."""
MOSTLY_NEW = 0.5
"""A column whose cells hold new categories in this share is in another form; of
fewer the shift of the rows tells."""
UNKNOWN_SHARE = 0.5
"""The share of missing cells that is assumed of models which do not say what their training rows had."""
YEARS = (1500, 2199)
"""A date in another form has a year between these: 20.12.31 is none of the year 20."""
EPOCHS = (("milliseconds", 1e11), ("seconds", 1e9))
"""Whole numbers in a column of dates are counted from 1970 in these units, from such a size on."""
SECONDS_PER_HOUR = 3600.0
PROBED = 500
"""A form is tried on all texts if it reads one of this many."""
TIMES = ("times of day", "durations")
PLAIN_KINDS = frozenset({"numbers", "text", "booleans"})


def stored_as(dtype: pl.DataType) -> str:
    """As what the cells of a column are stored: numbers, text, booleans, dates, times of day or durations."""
    if dtype.is_numeric():
        return "numbers"
    kinds = {
        pl.Boolean: "booleans",
        pl.Date: "dates",
        pl.Datetime: "dates",
        pl.Time: "times of day",
        pl.Duration: "durations",
    }
    return next((name for kind, name in kinds.items() if dtype == kind), "text")


def usual(cells: pl.Series, read: pl.Series, column: Column, counts: pl.DataFrame | None, most: int) -> Usual:
    """cells: of the training rows (all rows will do where they are no text);
    read: of the training rows, conformed;
    counts: the tally of a categorical column, of which the ``most`` frequent categories are kept."""
    rare = 0
    if counts is not None:
        place = pl.int_range(pl.len())
        rare = int(counts.filter((pl.col("rows") == 1) | (place >= most))["rows"].sum())
    text = cells.dtype in TEXTS and column.type in ("numeric", "datetime", "boolean")
    return Usual(
        stored_as(cells.dtype),
        len(read),
        read.null_count(),
        int(_unread(cells, read).sum()) if text else 0,
        rare,
    )


def read_new(
    frame: pl.DataFrame, schema: TableSchema, *, strict: bool = False
) -> tuple[pl.DataFrame, tuple[FormChange, ...]]:
    """The columns that the schema knows, conformed, and what was found in them
    that is unlike the training rows.

    Absent columns are left out.
    strict: UserError in place of the latter.
    """
    frame = with_unique_names(frame)
    wanted = schema.columns if schema.time is None else (*schema.columns, schema.time)
    series, changes, there = [], [], set(frame.columns)
    for column in wanted:
        if column.name in there:
            read, found = read_column(frame[column.name], column, schema)
            series.append(read)
            if column.limits:
                series.append(beyond(frame[column.name]).alias(side_name(column.name)))
            changes += found
    if strict and changes:
        more = f" (and {len(changes) - 1} more)" if changes[1:] else ""
        raise UserError(f"strict: {changes[0].message}{more}")
    return pl.DataFrame(series), tuple(changes)


def read_column(cells: pl.Series, column: Column, schema: TableSchema) -> tuple[pl.Series, list[FormChange]]:
    """One column, conformed, and what is unlike the training rows in it."""
    known = schema.usual.get(column.name)
    if column.type in ("identifier", "constant"):
        return conform(cells, column)[0], []
    changes: list[FormChange] = []
    if column.type == "categorical":
        read, changes = _categories(conform(cells, column)[0], column, schema, known)
    elif column.type == "text":
        read = conform(cells, column)[0]
        if known is not None and (kind := stored_as(cells.dtype)) != known.stored and cells.count():
            says = f"are {kind}, in training {known.stored}"
            changes = [_change(column.name, "type", cells, cells.is_not_null(), says, read=True)]
    elif (other := _other_kind(cells, column, known)) is not None:
        read, changes = other
    else:
        read, changes = _reread(cells, column, known)
    return read, changes or _blank(read, column, known)


def _change(name: str, kind: Any, cells: pl.Series, which: pl.Series, says: str, *, read: bool) -> FormChange:
    """says: what is so of these cells, with the verb."""
    some = cells.filter(which)
    example = shown(labels(some.drop_nulls().head(1))[0] or "", 40) if some.count() else ""
    such = f" (such as '{example}')" if example else ""
    message = f"column '{shown(name, 60)}': {len(some):,} of {len(cells):,} cells{such} {says}"
    return FormChange(name, kind, len(some), len(cells), example, read, message)


def _more_than_usual(count: int, rows: int, share: float) -> bool:
    """Whether so many of the rows are hardly ever met where each is one with this chance."""
    from scipy.stats import binom

    return bool(count and binom.sf(count - 1, rows, min(share, 1.0)) < BY_CHANCE)


def _blank(read: pl.Series, column: Column, known: Usual | None) -> list[FormChange]:
    """A column without any cell, where the training rows had some."""
    share = (
        UNKNOWN_SHARE if known is None else (known.missing + 1) / (known.rows + 1) if known.missing else 0.0
    )
    if not len(read) or read.count() or not _more_than_usual(len(read), len(read), share):
        return []
    training = "" if known is None else f", in training {known.missing / known.rows:.0%}"
    message = f"column '{shown(column.name, 60)}': all {len(read):,} cells are missing{training}"
    return [FormChange(column.name, "blank", len(read), len(read), "", False, message)]


# ------------------------------------------------------------------------------------------------ other types


def _other_kind(
    cells: pl.Series, column: Column, known: Usual | None
) -> tuple[pl.Series, list[FormChange]] | None:
    """Cells that are stored as something else than the training rows' (text is
    judged by what it says: None)."""
    kind = stored_as(cells.dtype)
    there = cells.is_not_null()
    if kind == "text" or not there.any() or cells.dtype == pl.Null:
        return None
    if column.type == "datetime":
        if kind == "dates" or column.format in ("years", "yyyymmdd", "days", *(unit for unit, _ in EPOCHS)):
            return None
        form, read = _dates_of_numbers(cells) if kind == "numbers" else ("", _no_dates(cells))
        says = f"are {form or kind}, in training dates: " + ("read as dates" if form else "taken as missing")
        return read.alias(column.name), [_change(column.name, "type", cells, there, says, read=bool(form))]
    return _other_numbers(cells, column, kind, known) if column.type == "numeric" else None


def _other_numbers(
    cells: pl.Series, column: Column, kind: str, known: Usual | None
) -> tuple[pl.Series, list[FormChange]]:
    """Cells of a column of numbers that are stored as ``kind``."""
    there, before = cells.is_not_null(), known.stored if known else "numbers"
    before = {CLOCK: "times of day", DURATION: "durations"}.get(column.format, before)
    before = "numbers" if before == "text" else before
    read, _ = conform(cells, column)
    if kind == before == "numbers" and (unit := column.format[1:]) and read.count():
        says = f"have no unit, in training '{shown(unit, 20)}': read in that unit"
        return read, [_change(column.name, "format", cells, read.is_not_null(), says, read=True)]
    if kind == before:  # a stored time is read as seconds
        return (read / SECONDS_PER_HOUR if column.format == CLOCK else read), []
    if {kind, before} <= PLAIN_KINDS:
        says = f"are {kind}, in training {before}: read as 0 and 1"
        told = [_change(column.name, "type", cells, there, says, read=True)]
        return read, told if kind == "booleans" else []
    says = f"are {kind}, in training {before}: read as missing"
    return read.clear(len(read)), [_change(column.name, "type", cells, there, says, read=False)]


def _no_dates(cells: pl.Series) -> pl.Series:
    return pl.Series(cells.name, [None] * len(cells), dtype=pl.Datetime("us"))


def _dates_of_numbers(cells: pl.Series) -> tuple[str, pl.Series]:
    """Whole numbers that can be nothing else than dates: what they are, and as
    dates; "" where they are none."""
    numbers = cells.cast(pl.Float64, strict=False).drop_nulls()
    if not bool((numbers == numbers.round(0)).all()):
        return "", _no_dates(cells)
    for form, says in (
        ("yyyymmdd", "dates as numbers such as 20241231"),
        *((unit, f"{unit} since 1970") for unit, _ in EPOCHS),
    ):
        if form != "yyyymmdd" and not bool((numbers.abs() >= dict(EPOCHS)[form]).all()):
            continue
        read, _ = conform(cells, Column(cells.name, "datetime", "", form))
        if read.count() == len(numbers) and bool(read.drop_nulls().dt.year().is_between(*YEARS).all()):
            return says, read
    return "", _no_dates(cells)


# ------------------------------------------------------------------------------------------------ other forms


def _unread(cells: pl.Series, read: pl.Series) -> pl.Series:
    """Which texts hold something, no word for a missing cell, and were not read."""
    texts = cells.cast(pl.String)
    lost = read.is_null() & texts.is_not_null() & (texts != "").fill_null(value=False)
    return lost & ~is_mark(texts).fill_null(value=True) if lost.any() else lost


def _reread(cells: pl.Series, column: Column, known: Usual | None) -> tuple[pl.Series, list[FormChange]]:
    """Text in a column of numbers, dates or flags, read again where the form of
    the training rows does not fit."""
    read, _ = conform(cells, column)
    if column.type == "boolean":
        return read, _unreadable(column, cells, _unread(labels(cells), read), known)
    if cells.dtype not in TEXTS:
        return read, []
    texts = cells.cast(pl.String)
    stored = known.stored if known is not None and known.stored in TIMES else ""
    if column.type == "numeric" and stored:  # plain numbers in text are none
        read = read.clear(len(read))
    # an infinite number and a mark of a missing cell were read, as missing
    by_form = parse_numbers(texts, column.format) if column.type == "numeric" and read.count() else read
    lost = _unread(texts, by_form)
    if not lost.any():
        return read, []
    found = _form_of_lost(texts.set(is_mark(texts).fill_null(value=False), None), lost, column, known)
    if found is None:
        return read, _unreadable(column, cells, lost, known)
    if found.doubt:
        says = f"can be read in more than one way ({found.doubt}): read as missing"
        return read, [_change(column.name, "format", cells, lost, says, read=False)]
    values, _ = conform(found.values, replace(column, format=""))  # marks of missing cells, finite numbers
    both = pl.DataFrame({"new": values, "old": read})
    merged = both.select(pl.coalesce("new", "old")).to_series().alias(column.name)
    changed = merged.is_not_null() & (read.is_null() | (read != merged).fill_null(value=True))
    before, now = stored or _form_words(column.format, column.type), _form_words(found.form, column.type)
    says = f"are written as {now}, in training as {before}: converted"
    told = [_change(column.name, "format", cells, changed, says, read=True)]
    told = told if changed.any() and now != before else []
    return merged, told + _unreadable(column, cells, lost & merged.is_null(), known)


def _form_of_lost(texts: pl.Series, lost: pl.Series, column: Column, known: Usual | None) -> _Form | None:
    """The form in which cells that were not read can be: judged by all cells, some of which may be readable
    in both forms, else by the lost ones alone."""
    found = _other_form(texts, column, known)
    if found is None or not (found.values.is_not_null() & lost).any():
        return _other_form(texts.set(~lost, None), column, known)
    return found


def _unreadable(column: Column, cells: pl.Series, lost: pl.Series, known: Usual | None) -> list[FormChange]:
    share = known.unreadable / known.rows if known is not None and known.rows else 0.0
    if not _more_than_usual(int(lost.sum()), len(cells), share):
        return []
    expected = {"numeric": "a number", "datetime": "a date", "boolean": "a flag"}[column.type]
    written = f" written as {_form_words(column.format, column.type)}" if column.format else ""
    return [
        _change(
            column.name,
            "unreadable",
            cells,
            lost,
            f"are not {expected}{written}: read as missing",
            read=False,
        )
    ]


def _form_words(form: str, kind: str = "") -> str:
    if form == CLOCK and kind != "datetime":
        return "times of day"
    if form == DURATION:
        return "durations"
    if "%" in form and form[:1] not in ".,":
        return form.replace("|", " or ")
    if kind == "datetime":
        return {"": "dates", "hours": "dates with hours"}.get(form, form)
    words = {".": "numbers with a decimal point", ",": "numbers with a decimal comma"}.get(
        form[:1], "plain numbers"
    )
    return f"{words} in '{form[1:]}'" if form[1:] else words


@dataclass(frozen=True)
class _Form:
    """A form that text is read in, and the values.
    doubt: a text that other forms, which read as many, read in another way."""

    form: str
    values: pl.Series
    doubt: str = ""


def _other_form(texts: pl.Series, column: Column, known: Usual | None) -> _Form | None:
    """The form that reads most of the texts; None where that is less than MOSTLY."""
    total = texts.count()
    if not total:
        return None
    distinct = texts.drop_nulls().value_counts(name="rows")
    values, rows = distinct.to_series(0), distinct["rows"]
    best: list[tuple[str, pl.Series]] = []
    most = 0
    probe = values.head(PROBED)
    for form in _candidates(values, column, known):
        if not _values(probe, form, column).count():
            continue
        one = _values(values, form, column)
        count = int(rows.filter(one.is_not_null()).sum())
        if count > most:
            best, most = [], count
        if count == most and most:
            best.append((form, one))
    if most < MOSTLY * total:
        return None
    form, first = best[0]
    for _, other in best[1:]:
        if (differ := (first != other).fill_null(value=False)).any():
            ways = [str(side.filter(differ)[0]).removesuffix(" 00:00:00") for side in (first, other)]
            return _Form(
                form,
                _values(texts, form, column),
                f"'{shown(values.filter(differ)[0], 40)}' is {' or '.join(ways)}",
            )
    return _Form(form, _values(texts, form, column))


def _candidates(values: pl.Series, column: Column, known: Usual | None) -> Sequence[str]:
    if column.type == "datetime":
        return date_forms()
    if column.format in (CLOCK, DURATION) or (known is not None and known.stored in TIMES):
        timed = column.format == CLOCK or (known is not None and known.stored == "times of day")
        return (CLOCK,) if timed else (DURATION,)
    mark, unit = column.format[:1] or ".", column.format[1:]
    other = "." if mark == "," else ","
    plain = not values.str.contains(
        other, literal=True
    ).any()  # then the decimal mark is that of the training rows
    forms = (
        form
        for form in number_forms(values)
        if form not in (CLOCK, DURATION) and not (plain and form[:1] == other)
    )
    return [form for form in forms if not unit or form[1:] in ("", unit)]


def _values(texts: pl.Series, form: str, column: Column) -> pl.Series:
    if column.type == "datetime":
        dates = parse_dates(texts, form)
        return dates.set(~dates.dt.year().is_between(*YEARS).fill_null(value=True), None)
    numbers = parse_numbers(texts, form)
    return (
        numbers * 3600.0 if form == CLOCK and column.format != CLOCK else numbers
    )  # a stored time is read as seconds


# ------------------------------------------------------------------------------------------------- categories


def _categories(
    read: pl.Series, column: Column, schema: TableSchema, known: Usual | None
) -> tuple[pl.Series, list[FormChange]]:
    """Categories that no training row has: another spelling of one that has, or new."""
    levels = schema.levels[column.name]
    read, respelt = known_spelling(read, levels, schema, column.name)
    strange = read.is_not_null() & ~read.is_in(list(levels))
    if int(strange.sum()) <= MOSTLY_NEW * read.count():
        return read, respelt
    share = 0.0
    if known is not None:
        share = (known.rare + 1) / (known.rows + 1)
    elif read.count() > int(strange.sum()):
        return read, respelt  # of such models nobody knows how many new categories are usual
    if not _more_than_usual(int(strange.sum()), len(read), share):
        return read, respelt
    says = "have an unseen category: read as unknown"
    return read, [*respelt, _change(column.name, "unseen", read, strange, says, read=False)]


def known_spelling(
    texts: pl.Series, levels: Sequence[str], schema: TableSchema, name: str
) -> tuple[pl.Series, list[FormChange]]:
    """Categories or classes, each as the training rows spell it: those that they spell
    so too without a word, others told."""
    read = replaced(texts, schema.spellings.get(name, {}))
    strange = read.filter(read.is_not_null() & ~read.is_in(list(levels))).unique()
    found = respelled(sorted(strange.to_list()), levels, schema.join_spellings) if len(strange) else {}
    if not found:
        return read, []
    which = read.is_in(list(found))
    example = read.filter(which)[0]
    says = f"are spelled differently than in training, where it was '{shown(found[example], 40)}': read so"
    return replaced(read, found), [_change(name, "spelling", read, which, says, read=True)]
