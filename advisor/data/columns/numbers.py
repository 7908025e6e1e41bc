"""Cells that are written as numbers: in which form most of them are, and their values."""

from __future__ import annotations

import numpy as np
import polars as pl

from advisor.data.columns.cells import MOSTLY, TEXTS, as_text, tally, without_marks

_NUMBER = {
    # groups of thousands never begin with a 0: 0,497 has a decimal comma, as has
    # 5,734E+02; 1,00,000 has lakhs (India)
    ".": r"^[-+]?(?:(?:[1-9]\d{0,2}(?:[, "
    r"']\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3})(?:\.\d*)?|\d*(?:\.\d*)?(?:[eE][-+]?\d+)?)$",
    ",": r"^[-+]?(?:[1-9]\d{0,2}(?:[. ']\d{3})+(?:,\d*)?|\d*(?:,\d*)?(?:[eE][-+]?\d+)?)$",
}
_CODES = "USD|EUR|GBP|JPY|CNY|INR|CHF|CAD|AUD"
_MAY_BE_NUMBER = (
    r"^\s*(?:[-+\d.,(<>\u2264\u2265\u2212\u2012\u2013]|[A-Z]{0,2}\p{Sc}|(?:" + _CODES + r")\s|(?i:inf|nan))"
)
"""How every text begins that is a number in any of the forms: what does not needs no trying."""
CLOCK = "hours"
"""The format of numbers that are written as times of day."""
DURATION = "duration"
"""The format of numbers that are written as pandas writes a timedelta, 1 days
02:00:00; they become seconds."""
_DURATION = r"^([-+]?)(?:(\d+) days?,? ?)?(?:\+?(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?))?$"
_CLOCK = r"^([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?\s*([AaPp])?(?:\.?[Mm]\.?)?$"
_LIMIT = r"^(?:[<>]=?|[\u2264\u2265])\s*"
CURRENCY = r"[A-Z]{0,2}\p{Sc}|(?:" + _CODES + r")\s"
_SIGNS = {"USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "INR": "₹"}
"""Other writings of a currency's sign."""
_TYPOGRAPHY = (
    (r"[\u2212\u2012\u2013]", "-"),  # a minus, a figure dash, an en dash
    (r"[\u00a0\u2009\u202f]", " "),  # spaces that do not break a line
    ("\u2019", "'"),
    (_LIMIT, ""),  # a laboratory's <0.3: read at its limit, see ``beyond``
    (r"^(\d[\d.,]*)\+$", "$1"),  # 90+ years
    (r"^([-+(]?)\s*(?:" + CURRENCY + r")\s*", "$1"),
    (r"^\((.*)\)$", "-$1"),  # a bookkeeper's minus
    (r"^([\d.,' ]*\d)\s*-$", "-$1"),  # a minus behind the number, as mainframes print it
)
"""What is written in numbers, and the plain sign for it."""
MAGNITUDES = {
    "k": 1e3,
    "thousand": 1e3,
    "m": 1e6,
    "mn": 1e6,
    "mio": 1e6,
    "million": 1e6,
    "b": 1e9,
    "bn": 1e9,
    "billion": 1e9,
}
"""Ends of amounts, in lower case, and what they multiply by."""
SCALED = "K, M, B"
"""The unit of amounts that have such ends, €1.2M beside €500K."""
PLAIN_BESIDE_LIMITS = 5
"""This many different plain numbers are there for each limit, or the limits are names of ranges."""
_WITH_UNIT = r"^\s*([-+]?[\d.,](?:[\d.,' ]*[\d.,])?(?:[eE][-+]?\d+)?)\s*([^\d\s.,'+-][^\d]{0,11}?)?\s*$"


def number_format(cells: pl.Series) -> str | None:
    """How cells are read as numbers (see Column); None where they are no numbers, less than MOSTLY of a text
    is, or they were declared to be categories."""
    if cells.dtype.is_numeric() or cells.dtype == pl.Boolean:
        return ""
    if cells.dtype != pl.String:
        return None
    return format_of_numbers(tally(as_text(cells).drop_nulls()))


def format_of_numbers(counts: pl.DataFrame) -> str | None:
    """``number_format`` of the tally of a text."""
    return best_number_form(*without_marks(counts))


def best_number_form(values: pl.Series, rows: pl.Series, enough: float = MOSTLY) -> str | None:
    """The format that reads most of the rows as numbers, or None when it reads too few. "" is plain numbers.

    Amounts in several currencies, or per cents beside fractions, are no numbers of one kind.
    """
    total = int(rows.sum())
    if len(currencies(values)) > 1 or len(fractions_beside_per_cents(values)):
        return None
    if (beyond(values) != 0).any() and not are_limits_of_numbers(values):
        return None
    if not enough_may_be_numbers(values, rows, enough * total):
        return None
    best, most = None, 0
    for form in number_forms(values, rows):
        read = int(rows.filter(parse_numbers(values, form).is_not_null()).sum())
        if read > most:
            best, most = form, read
    return best if total and most >= enough * total else None


def enough_may_be_numbers(values: pl.Series, rows: pl.Series, enough: float) -> bool:
    """Whether this many cells begin as numbers do; False saves the trying of all forms."""
    return int(rows.filter(values.str.contains(_MAY_BE_NUMBER)).sum()) >= max(enough, 1)


def number_forms(values: pl.Series, rows: pl.Series | None = None) -> tuple[str, ...]:
    """The forms that texts may be tried in as numbers, with the unit that most of them have.
    rows: how often each occurs."""
    rows = pl.Series([1] * len(values), dtype=pl.Int64) if rows is None else rows
    parts = _tidied(values).str.extract_groups(_WITH_UNIT).struct.unnest()
    units = parts.to_series(1).fill_null("").str.strip_chars()
    common = (
        rows.to_frame("rows").with_columns(units.alias("unit")).group_by("unit").agg(pl.col("rows").sum())
    )
    named = common.filter(pl.col("unit") != "").sort("rows", "unit", descending=[True, False])
    # Most cells must have the unit: one "12 apples" among plain numbers is junk.
    unit = str(named["unit"][0]) if named.height and 2 * int(named["rows"][0]) > int(rows.sum()) else ""
    ends = {one.lower().rstrip(".") for one in named["unit"]} & MAGNITUDES.keys()
    if len({MAGNITUDES[end] for end in ends}) > 1 or (ends and currencies(values)):
        # one M alone may be metres; beside a K, or behind a currency, it is a million
        return ("." + SCALED, "," + SCALED)
    return tuple(dict.fromkeys(("", ".", ",", "." + unit, "," + unit, CLOCK, DURATION)))


def are_limits_of_numbers(values: pl.Series) -> bool:
    """Whether there are many more different numbers than limits: <18 and >65, or
    1, 2 and 3+, are names of ranges."""
    at_limit = beyond(values) != 0
    plain = values.filter(~at_limit & values.str.contains(r"\d"))
    return plain.n_unique() >= PLAIN_BESIDE_LIMITS * max(1, values.filter(at_limit).n_unique())


def parse_numbers(cells: pl.Series, form: str) -> pl.Series:
    """Text -> Float64 in the format (see Column); null where it cannot be read."""
    plain = cells.str.strip_chars()
    if not form:
        return plain.cast(pl.Float64, strict=False)
    if form == CLOCK:
        return _hours_of_day(plain)
    if form == DURATION:
        return _seconds(plain)
    parts = _tidied(plain).str.extract_groups(_WITH_UNIT).struct.unnest()
    number, unit = parts.to_series(0), parts.to_series(1).fill_null("").str.strip_chars()
    unit = unit.str.to_lowercase().str.strip_chars_end(".") if form[1:] == SCALED else unit
    known = ["", *MAGNITUDES] if form[1:] == SCALED else ["", form[1:]]
    number = number.set(~number.str.contains(_NUMBER[form[0]]) | ~unit.is_in(known), None)
    thousands, mark = (r"[, ']", ".") if form[0] == "." else (r"[. ']", ",")
    number = number.str.replace_all(thousands, "").str.replace(mark, ".", literal=True)
    numbers = number.cast(pl.Float64, strict=False)
    if form[1:] != SCALED:
        return numbers
    times = unit.replace_strict(
        list(MAGNITUDES), list(MAGNITUDES.values()), default=1.0, return_dtype=pl.Float64
    )
    return (numbers * times).alias(cells.name)


def beyond(cells: pl.Series) -> pl.Series:
    """Which side of the number that is written the true one lies on: -1 below (<0.3), 1
    above (>4.4, 90+), 0 that number."""
    if cells.dtype not in TEXTS:
        return pl.Series(cells.name, np.zeros(len(cells), np.int8))
    texts = cells.cast(pl.String).str.strip_chars()
    number = r"=?\s*[-+]?\s*(?:" + CURRENCY + r")?\s*[-+\d.,]"
    low = texts.str.contains(r"^[<\u2264]" + number)
    high = texts.str.contains(r"^[>\u2265]" + number + r"|^\d[\d.,]*\+$")
    return (high.fill_null(value=False).cast(pl.Int8) - low.fill_null(value=False).cast(pl.Int8)).alias(
        cells.name
    )


def currencies(texts: pl.Series) -> set[str]:
    """The signs and codes of currencies before or behind the numbers of these texts."""
    sign = texts.drop_nulls().str.extract(r"((?:\b[A-Z]{1,2})?\p{Sc}|\b(?:" + _CODES + r")\b)")
    return {_SIGNS.get(one, one) for one in map(str, sign.drop_nulls().unique())}


def fractions_beside_per_cents(values: pl.Series) -> pl.Series:
    """Plain numbers up to 1 beside per cents: 0.12 may be 12 % there, or 0.12 %."""
    if not values.str.contains(r"\d\s*%").any():
        return values.clear()
    sizes = values.str.strip_chars().str.replace(",", ".", literal=True).cast(pl.Float64, strict=False).abs()
    return values.filter(((sizes > 0) & (sizes <= 1)).fill_null(value=False))


def _tidied(texts: pl.Series) -> pl.Series:
    texts = texts.str.strip_chars()
    for written, sign in _TYPOGRAPHY:
        texts = texts.str.replace_all(written, sign)
    return texts


def _hours_of_day(texts: pl.Series) -> pl.Series:
    """14:30, 14:30:59 or 2:30 PM -> hours since midnight."""
    parts = texts.str.extract_groups(_CLOCK).struct.unnest()
    hours, minutes, seconds = (parts.to_series(i).cast(pl.Float64) for i in range(3))
    half = parts.to_series(3).str.to_lowercase()
    later = 12.0 * (half == "p").cast(pl.Float64)
    hours = pl.select(
        pl.when(half.is_null()).then(hours).when(hours.is_between(1, 12)).then(hours % 12 + later)
    ).to_series()
    return (hours + minutes / 60 + seconds.fill_null(0.0) / 3600).alias(texts.name)


def _seconds(texts: pl.Series) -> pl.Series:
    """1 days 02:00:00.5 or 26:00:00.5 -> seconds; of a negative one, -1 days
    +23:59:00, the days alone are below 0."""
    parts = texts.str.extract_groups(_DURATION).struct.unnest()
    numbers = [parts.to_series(i).cast(pl.Float64) for i in range(1, 5)]
    days, hours, minutes, seconds = (one.fill_null(0.0) for one in numbers)
    sign = pl.select(pl.when(parts.to_series(0) == "-").then(-1.0).otherwise(1.0)).to_series()
    with_days = sign * days * 86_400 + hours * 3600 + minutes * 60 + seconds
    without = sign * (hours * 3600 + minutes * 60 + seconds)
    chosen = pl.select(pl.when(numbers[0].is_null()).then(without).otherwise(with_days)).to_series()
    return chosen.set(numbers[0].is_null() & numbers[1].is_null(), None).alias(texts.name)


def as_numbers(cells: pl.Series, form: str) -> pl.Series:
    """Cells as Float64: text by its form, durations and times of day in seconds, dates in days."""
    if cells.dtype == pl.String:
        return parse_numbers(cells, form)
    if cells.dtype == pl.Duration:
        return cells.dt.total_microseconds() / 1e6
    if cells.dtype == pl.Time:
        return cells.cast(pl.Int64) / 1e9
    if cells.dtype in (pl.Date, pl.Datetime):
        return cells.dt.epoch("ms") / 86_400_000.0
    return cells.cast(pl.Float64, strict=False)
