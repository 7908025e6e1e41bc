"""One column: what it is (inferred, with a reason) and how its cells are read,
for training and for new rows alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.sources.reading import shown
from advisor.errors import UserError, did_you_mean
from advisor.tasks import Task

ColumnType = Literal["numeric", "categorical", "boolean", "datetime", "text", "identifier", "constant"]

DECLARED = (pl.Categorical, pl.Enum)
"""The types of a column that somebody has declared to hold categories, whatever these look like."""
TEXTS = (pl.String, *DECLARED)
MOST_JUDGED = 10_000
"""By so many of its cells, spread over all, it is judged which type most of a column can be read as."""
MOSTLY = 0.95
"""Text becomes numbers or dates when this share of the cells that are no missing-marks can be read so."""
MISSING_MARKS: tuple[str, ...] = (
    "?",
    "-",
    "--",
    ".",
    "*",
    "n/a",
    "n.a.",
    "na",
    "nan",
    "null",
    "none",
    "nil",
    "unknown",
)
MISSING_MARKS += (
    "missing",
    "not available",
    "#n/a",
    "#div/0!",
    "#value!",
    "#ref!",
    "#name?",
    "#num!",
    "#null!",
    "#error!",
)
"""Words that do not speak against numbers or dates in a column (there they are
missing; elsewhere they are levels)."""
BOOLEAN_WORDS: tuple[tuple[str, str], ...] = (
    ("false", "true"),
    ("no", "yes"),
    ("n", "y"),
    ("f", "t"),
    ("off", "on"),
    ("0", "1"),
)
BOOLEAN_WORDS += (
    ("falsch", "wahr"),
    ("nein", "ja"),
    ("faux", "vrai"),
    ("non", "oui"),
    ("falso", "verdadero"),
    ("no", "sí"),
)
BOOLEAN_WORDS += (
    ("no", "si"),
    ("falso", "vero"),
    ("falso", "verdadeiro"),
    ("não", "sim"),
    ("nee", "ja"),
    ("nej", "ja"),
)
"""Pairs of words (false, true), in lower case, that make a column boolean."""
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
"""Such a number marks missing cells when so many rows have it: a single one may be a slip."""
EXACT_IN_FLOAT = 2**53
"""Up to this, a 64-bit float holds every whole number."""
IDENTIFIER_ROWS = 20
"""With fewer rows than this, values that are all different say nothing about identifiers."""
FEW_TEXTS = 100_000
"""Up to so many different texts are looked up, of more all are sorted."""
TEXT_WORDS = 2.0
"""Mean number of words above which mostly different texts are free text rather than levels."""

_DATES: tuple[str, ...] = (
    "%Y-%m-%d",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%Y/%m/%d",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
)
_DATES += ("%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%y", "%m/%d/%y", "%d/%m/%y", "%Y%m%d")
_MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%m.%Y", "%b %Y", "%b-%Y", "%B %Y")
"""Months without a day: their first."""
_YEAR = r"(?:^|\D)(?:1[5-9]|2[01])\d\d(?:\D|$)"
"""What must be in such a month: 3-5 is none."""
_TIMES = ("", " %H:%M:%S%.f", "T%H:%M:%S%.f", " %H:%M", "T%H:%M", " %I:%M %p", " %I:%M:%S %p")
_OFFSET = r"(:\d\d(?:\.\d+)?)\s*(?:Z|UTC|[+-]\d\d:?\d\d)$"
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
_CURRENCY = r"[A-Z]{0,2}\p{Sc}|(?:" + _CODES + r")\s"
_SIGNS = {"USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "INR": "₹"}
"""Other writings of a currency's sign."""
_TYPOGRAPHY = (
    (r"[\u2212\u2012\u2013]", "-"),  # a minus, a figure dash, an en dash
    (r"[\u00a0\u2009\u202f]", " "),  # spaces that do not break a line
    ("\u2019", "'"),
    (_LIMIT, ""),  # a laboratory's <0.3: read at its limit, see ``beyond``
    (r"^(\d[\d.,]*)\+$", "$1"),  # 90+ years
    (r"^([-+(]?)\s*(?:" + _CURRENCY + r")\s*", "$1"),
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
LOOKS_NUMERIC = 0.5
"""From this share of readable cells on a text column is told to look like
numbers, with the cells that prevent it."""
TOLD_COLUMNS, TOLD_CELLS = 5, 3
"""A message names so many columns, and so many cells of each."""
PLAIN_BESIDE_LIMITS = 5
"""So many different plain numbers are there for each limit, or the limits are names of ranges."""
FEWEST_LIMITS = 2
"""So many cells beyond a limit make the side an input of its own: a single one says nothing."""
_WITH_UNIT = r"^\s*([-+]?[\d.,](?:[\d.,' ]*[\d.,])?(?:[eE][-+]?\d+)?)\s*([^\d\s.,'+-][^\d]{0,11}?)?\s*$"


@dataclass(frozen=True)
class Column:
    """A feature column (never the target).

    name: unique in the table.
    why: why this type, one phrase; says so when it was judged on a sample.
    format: how the cells' text is read: for numbers the decimal mark and a unit ("" is plain), or CLOCK for
        times of day, which become hours; for dates the formats tried in turn, joined by "|" ("hours" when
        hours matter but the cells were dates already).
    missing: numbers that mark a missing cell, such as -999.
    limits: whether cells such as <0.3 or >4.4 are among the
    numbers: they count as their limit, and the side is an input of its own.
    """

    name: str
    type: ColumnType
    why: str
    format: str = ""
    missing: tuple[float, ...] = ()
    limits: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "missing", tuple(self.missing))  # JSON knows lists only
        if self.type not in get_args(ColumnType):
            raise ValueError(f"column {self.name!r} has type {self.type!r}")


def checked_type(column: str, wanted: str) -> ColumnType:
    """The type that the user asked for; UserError when there is no such type."""
    if wanted in get_args(ColumnType):
        return cast(ColumnType, wanted)
    raise UserError(
        f"types: column '{shown(column)}' is to be "
        f"'{shown(wanted)}'{did_you_mean(str(wanted), get_args(ColumnType))}; "
        f"expected one of {', '.join(get_args(ColumnType))}"
    )


# -------------------------------------------------------------------------------------------------- inference


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
        return Column(name, "datetime", f"stored as {str(dtype).partition('(')[0].lower()}", _hours(sample))
    if dtype in DECLARED:
        return _names(cells, sample, "categories of the data", seen)
    if dtype.is_integer() and _merged_by_float(sample, sample.drop_nulls().n_unique()):
        return _names(labels(cells), labels(sample), "whole numbers beyond what a float can tell apart", seen)
    if dtype.is_numeric() or dtype in (pl.Time, pl.Duration):
        return _numbers(cells, sample, name, "numbers", seen, "")
    return _from_text(_text(cells), _text(sample), name, seen)


def _names(cells: pl.Series, sample: pl.Series, why: str, seen: str) -> Column:
    """A column of names: identifiers where each row has another one, else categories."""
    filled = cells.drop_nulls()
    distinct = filled.n_unique()
    if len(cells) >= IDENTIFIER_ROWS and distinct > 0.99 * len(filled):
        return Column(cells.name, "identifier", f"{why}, another in every row" + seen)
    return Column(cells.name, "categorical", f"{distinct:,} {why}")


def _merged_by_float(numbers: pl.Series, distinct: int) -> bool:
    """Whether so many different numbers are so large that a float takes many for the
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
        cells = _text(cells)
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
            return Column(name, "identifier", "whole numbers that number the rows" + seen)
    if named and 2 < distinct <= min(MAX_CODES, len(values) / 5):
        return Column(name, "categorical", f"{distinct} whole numbers, and the name speaks of codes" + seen)
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
    values, rows = _without_marks(counts)
    if len(values) and int(values.str.contains(r"^0\d+$").sum()) <= 0.2 * len(
        values
    ):  # else codes: 00501, 007
        form = _number_format(values, rows)
        if form is not None and not _merged_by_float(parse_numbers(values, form), len(values)):
            numbers = parse_numbers(sample, form)
            junk = (len(filled) - numbers.len() + numbers.null_count()) / max(len(filled), 1)
            why = {CLOCK: "times of day, as hours", DURATION: "durations, as seconds"}.get(
                form, "numbers as text"
            )
            why += f" in '{shown(form[1:], 12)}'" if form not in (CLOCK, DURATION) and form[1:] else ""
            why += f", {junk:.1%} of the cells unreadable and so missing" if junk else ""
            column = _numbers(parse_numbers(cells, form), numbers, name, why, seen, form)
            limits = column.type == "numeric" and int((beyond(cells) != 0).sum()) >= FEWEST_LIMITS
            return replace(column, limits=limits)
    if len(values) and (form := _date_format(values, rows)):
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
        return _hours(sample) if wanted == "datetime" else ""
    if wanted == "datetime" and sample.dtype.is_numeric():
        middle = sample.drop_nulls().cast(pl.Float64).abs().median()
        size = float(middle) if isinstance(middle, int | float) else 0.0
        return next((form for form, low in _EPOCHS if size >= low), "days")
    if sample.dtype not in TEXTS:
        return ""
    counts = tally(_text(sample).drop_nulls())
    values, rows = counts["value"], counts["rows"]
    if wanted == "numeric":
        return _number_format(values, rows, enough=0.0) or ""
    return _date_format(values, rows, enough=0.0) if wanted == "datetime" else ""


_EPOCHS = (("milliseconds", 1e11), ("seconds", 1e9), ("yyyymmdd", 1e7), ("days", 3000), ("years", 1000))


def _hours(sample: pl.Series) -> str:
    return "hours" if sample.dtype == pl.Datetime and bool((sample.dt.hour() > 0).any()) else ""


def number_format(cells: pl.Series) -> str | None:
    """How cells are read as numbers (see Column); None where they are no numbers, less than MOSTLY of a text
    is, or they were declared to be categories."""
    if cells.dtype.is_numeric() or cells.dtype == pl.Boolean:
        return ""
    if cells.dtype != pl.String:
        return None
    return format_of_numbers(tally(_text(cells).drop_nulls()))


def format_of_numbers(counts: pl.DataFrame) -> str | None:
    """``number_format`` of the tally of a text."""
    return _number_format(*_without_marks(counts))


def _without_marks(counts: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """The values of a tally that are no missing-marks, and their rows."""
    plain = counts.filter(~is_mark(counts["value"]))
    return plain["value"], plain["rows"]


def is_mark(texts: pl.Series) -> pl.Series:
    """Which texts are words for a missing cell."""
    return texts.str.strip_chars().str.to_lowercase().is_in(MISSING_MARKS)


def _number_format(values: pl.Series, rows: pl.Series, enough: float = MOSTLY) -> str | None:
    """The format that reads most of the rows as numbers, or None when it reads too few. "" is plain numbers.

    Amounts in several currencies, or per cents beside fractions, are no numbers of one kind.
    """
    total = int(rows.sum())
    if len(currencies(values)) > 1 or len(_fractions(values)):
        return None
    if (beyond(values) != 0).any() and not _are_limits_of_numbers(values):
        return None
    if not _enough_may_be_numbers(values, rows, enough * total):
        return None
    best, most = None, 0
    for form in number_forms(values, rows):
        read = int(rows.filter(parse_numbers(values, form).is_not_null()).sum())
        if read > most:
            best, most = form, read
    return best if total and most >= enough * total else None


def _enough_may_be_numbers(values: pl.Series, rows: pl.Series, enough: float) -> bool:
    """Whether so many cells begin as numbers do; False saves the trying of all forms."""
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


def date_forms() -> tuple[str, ...]:
    """The forms that texts may be tried in as dates."""
    return (*(date + time for date in _DATES for time in _TIMES), *_MONTHS)


def _date_format(values: pl.Series, rows: pl.Series, enough: float = MOSTLY) -> str:
    """Up to three formats that together read most of the rows as dates, joined by "|"; else ""."""
    total = int(rows.sum())
    likely = values.str.contains(r"\d.*[-/., ].*\d|^\d{8}$|^\s*\p{L}+[ -]\d{4}\s*$") & (
        values.str.len_chars() <= 40
    )
    if not total or int(rows.filter(likely).sum()) < enough * total:
        return ""
    chosen: list[str] = []
    values, rows = values.filter(likely), rows.filter(likely)
    left = total
    for _ in range(3):
        probe, weights = values.head(500), rows.head(500)
        scores = {
            form: int(weights.filter(parse_dates(probe, form).is_not_null()).sum()) for form in date_forms()
        }
        form = max(scores, key=lambda key: scores[key], default="")
        if not scores[form]:
            break
        chosen.append(form)
        unread = parse_dates(values, form).is_null()
        values, rows = values.filter(unread), rows.filter(unread)
        left = int(rows.sum())
        if not left:
            break
    return "|".join(chosen) if chosen and total - left >= enough * total else ""


# ----------------------------------------------------------------------------------------------- what to tell


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
            f"{_first(limits)}: each cell counts as its limit, and the side is an input of its own "
            f"('{side_name('COLUMN')}')."
        )
    if alone:
        told["cells-at-a-limit"] = (
            f"{_first(alone)}: each cell counts as its limit; of its side nothing is kept."
        )
    if looks:
        told["looks-like-numbers"] = (
            f"{_first(looks)}. Fix these cells, or give --type COLUMN=numeric, which takes them as missing."
        )
    return told


def told_of_target(cells: pl.Series, task: Task) -> dict[str, str]:
    """What to know of a numeric target of which some cells have a limit."""
    if task.of_classes or not (beyond(cells) != 0).any():
        return {}
    return {
        "target-at-a-limit": f"The target: {_limits_words(cells)}. Each counts as its limit. The loss does "
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
        {"unreadable-cells": f"Cells that cannot be read count as missing: {_first(said)}."} if said else {}
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
    values, rows = _without_marks(tally(_text(cells).drop_nulls()) if counts is None else counts)
    total = int(rows.sum())
    if not total or values.str.contains(r"^0\d+$").sum() > 0.2 * len(values):
        return []
    name = shown(cells.name, 60)
    if len(found := currencies(values)) > 1:
        if _number_format(values.str.replace_all(_CURRENCY, ""), rows) is None:
            return []
        return [
            f"'{name}' looks like numbers in several currencies ({', '.join(sorted(found))}), which are not "
            "one quantity"
        ]
    if len(fractions := _fractions(values)):
        some = shown(fractions[0], 30)
        return [
            f"'{name}' looks like per cents beside fractions such as '{some}', of which nothing says that "
            "they are per cents"
        ]
    if not _enough_may_be_numbers(values, rows, LOOKS_NUMERIC * total):
        return []
    best = max(
        number_forms(values, rows),
        key=lambda form: int(rows.filter(parse_numbers(values, form).is_not_null()).sum()),
    )
    read = parse_numbers(values, best)
    share = int(rows.filter(read.is_not_null()).sum()) / total
    if not LOOKS_NUMERIC <= share < 1 or not _are_limits_of_numbers(values):
        return []
    prevents = pl.DataFrame({"value": values, "rows": rows}).filter(read.is_null())
    some = ", ".join(f"'{shown(value, 30)}' ({count:,})" for value, count in prevents.head(TOLD_CELLS).rows())
    more = " and others" if prevents.height > TOLD_CELLS else ""
    return [f"'{name}' looks like numbers ({share:.0%} of its cells), but for {some}{more}"]


def _are_limits_of_numbers(values: pl.Series) -> bool:
    """Whether there are many more different numbers than limits: <18 and >65, or
    1, 2 and 3+, are names of ranges."""
    at_limit = beyond(values) != 0
    plain = values.filter(~at_limit & values.str.contains(r"\d"))
    return plain.n_unique() >= PLAIN_BESIDE_LIMITS * max(1, values.filter(at_limit).n_unique())


# ------------------------------------------------------------------------------------------------- conversion


def conform(cells: pl.Series, column: Column) -> tuple[pl.Series, dict[str, int]]:
    """The cells as the column's type; what cannot be read is missing. Returns
    counts of junk, infinite and marked cells.

    Of a numeric column with limits, ``beyond`` tells the sides.

    numeric: Float64, finite. boolean: Boolean. datetime: Datetime in microseconds. categorical, text: String,
    never empty. identifier, constant: as they are.
    """
    if column.type in ("identifier", "constant"):
        return cells.alias(column.name), {}
    notes: dict[str, int] = {}
    cells = _text(cells) if cells.dtype in TEXTS else cells
    if column.type == "numeric":
        result = _as_numbers(cells, column.format)
        if cells.dtype == pl.Float64 and not column.missing and np.isfinite(cells.to_numpy()).all():
            return result.alias(column.name), notes
        finite = result.is_finite()
        if not finite.all():
            notes["infinite_values"] = int(result.is_infinite().sum())
            result = result.to_frame().select(pl.when(finite).then(pl.first())).to_series()
        if column.missing:
            marks = result.is_in(column.missing).fill_null(value=False)
            notes["marked_values"] = int(marks.sum())
            result = result.set(marks, None)
    elif column.type == "boolean":
        result = _as_booleans(cells)
    elif column.type == "datetime":
        result = _as_dates(cells, column.format)
    else:
        result = labels(cells)
    nan = int(cells.is_nan().sum()) if cells.dtype.is_float() else 0
    junk = result.null_count() - cells.null_count() - sum(notes.values()) - nan
    if junk > 0:
        notes["junk_values"] = junk
    return result.alias(column.name), notes


def unreadable(cells: pl.Series, column: Column) -> pl.Series:
    """The filled cells, as text, that cannot be read as the column's type; words that
    mark a missing cell are none of them."""
    texts = labels(cells)
    bad = texts.filter(conform(cells, column)[0].is_null() & texts.is_not_null())
    return bad.filter(~is_mark(bad))


def how_many(bad: pl.Series, rows: int, what: str = "") -> str:
    """Cells that cannot be read, for a message: "133 of 200 cells, such as 'soon'".
    what: is so of them."""
    return f"{len(bad):,} of {rows:,} cells{what}" + (f", such as '{shown(bad[0], 40)}'" if len(bad) else "")


def read_as(cells: pl.Series, *types: ColumnType) -> Column:
    """The column as that one of the types that most of its cells can be read as."""
    sample = cells.gather(np.linspace(0, len(cells) - 1, min(len(cells), MOST_JUDGED)).astype(int))
    found = [infer(cells, sample, wanted) for wanted in types]
    return min(found, key=lambda column: conform(cells, column)[0].null_count())


def tally(cells: pl.Series) -> pl.DataFrame:
    """How often each value occurs: columns value and rows, the most frequent first, equal ones by value."""
    return cells.alias("value").value_counts(name="rows").sort("rows", "value", descending=[True, False])


def ranked(cells: pl.Series | NDArray[np.float64]) -> NDArray[np.int64]:
    """Equal cells as equal whole numbers that keep their order, from 1; 0 for a missing one (of numbers in
    an array NaN)."""
    if isinstance(cells, np.ndarray) or cells.dtype == pl.Float64:
        # NumPy: of thousands of columns the set-up of polars takes longer
        values, place = np.unique(np.asarray(cells), return_inverse=True)
        missing = np.isnan(values[-1:]).any()
        return np.asarray(np.where(place == len(values) - 1, 0, place + 1) if missing else place + 1)
    if cells.dtype == pl.String and len(texts := cells.drop_nulls().unique().sort()) <= FEW_TEXTS:
        # a look-up takes a tenth of the time of sorting all texts
        codes = cells.cast(pl.Enum(texts)).to_physical().cast(pl.Int64) + 1
    else:
        codes = cells.rank("dense")
    return np.asarray(codes.fill_null(0).to_numpy().astype(np.int64))


def labels(cells: pl.Series) -> pl.Series:
    """Cells as text: whole numbers without a point, so that 3 and 3.0 are one
    level; the empty text is missing."""
    if cells.dtype.is_float():
        cells = cells.fill_nan(None)
        whole = cells.drop_nulls()
        if bool((whole == whole.round(0)).all()) and bool((whole.abs() < EXACT_IN_FLOAT).all()):
            cells = cells.cast(pl.Int64)
    if cells.dtype == pl.Boolean:
        return cells.replace_strict([False, True], ["False", "True"], return_dtype=pl.String)
    if isinstance(cells.dtype, pl.Decimal):
        return labels(cells.cast(pl.Float64))
    return _text(cells)


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
    number = r"=?\s*[-+]?\s*(?:" + _CURRENCY + r")?\s*[-+\d.,]"
    low = texts.str.contains(r"^[<\u2264]" + number)
    high = texts.str.contains(r"^[>\u2265]" + number + r"|^\d[\d.,]*\+$")
    return (high.fill_null(value=False).cast(pl.Int8) - low.fill_null(value=False).cast(pl.Int8)).alias(
        cells.name
    )


def currencies(texts: pl.Series) -> set[str]:
    """The signs and codes of currencies before or behind the numbers of these texts."""
    sign = texts.drop_nulls().str.extract(r"((?:\b[A-Z]{1,2})?\p{Sc}|\b(?:" + _CODES + r")\b)")
    return {_SIGNS.get(one, one) for one in map(str, sign.drop_nulls().unique())}


def _fractions(values: pl.Series) -> pl.Series:
    """Plain numbers up to 1 beside per cents: 0.12 may be 12 % there, or 0.12 %."""
    if not values.str.contains(r"\d\s*%").any():
        return values.clear()
    sizes = values.str.strip_chars().str.replace(",", ".", literal=True).cast(pl.Float64, strict=False).abs()
    return values.filter(((sizes > 0) & (sizes <= 1)).fill_null(value=False))


def side_name(name: str) -> str:
    """The name of the column that says on which side of its limit a cell of ``name`` lies."""
    return f"{name}.side"


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


def _text(cells: pl.Series) -> pl.Series:
    texts = _written(cells) if cells.dtype == pl.Duration else cells.cast(pl.String)
    empty = texts == ""
    return texts.set(empty, None) if empty.any() else texts


def _written(durations: pl.Series) -> pl.Series:
    """Durations as pandas writes them: 1 days 02:00:00, with six digits of a
    second where it is no whole one."""
    micro = durations.dt.total_microseconds()
    day, rest = micro // 86_400_000_000, micro % 86_400_000_000
    seconds, part = rest // 1_000_000, rest % 1_000_000
    two = [
        (number.cast(pl.String)).str.zfill(2)
        for number in (seconds // 3600, seconds // 60 % 60, seconds % 60)
    ]
    shown = pl.DataFrame({"part": part, "digits": part.cast(pl.String).str.zfill(6)})
    fraction = shown.select(
        pl.when(pl.col("part") > 0).then("." + pl.col("digits")).otherwise(pl.lit(""))
    ).to_series()
    sign = (
        pl.DataFrame({"day": day})
        .select(pl.when(pl.col("day") < 0).then(pl.lit("+")).otherwise(pl.lit("")))
        .to_series()
    )
    return (day.cast(pl.String) + " days " + sign + two[0] + ":" + two[1] + ":" + two[2] + fraction).alias(
        durations.name
    )


def _as_numbers(cells: pl.Series, form: str) -> pl.Series:
    if cells.dtype == pl.String:
        return parse_numbers(cells, form)
    if cells.dtype == pl.Duration:
        return cells.dt.total_microseconds() / 1e6
    if cells.dtype == pl.Time:
        return cells.cast(pl.Int64) / 1e9
    if cells.dtype in (pl.Date, pl.Datetime):
        return cells.dt.epoch("ms") / 86_400_000.0
    return cells.cast(pl.Float64, strict=False)


def _as_booleans(cells: pl.Series) -> pl.Series:
    if cells.dtype == pl.Boolean:
        return cells
    texts = labels(cells).str.strip_chars().str.to_lowercase()
    pairs = {word: bool(value) for pair in BOOLEAN_WORDS for value, word in enumerate(pair)}
    return texts.replace_strict(list(pairs), list(pairs.values()), default=None, return_dtype=pl.Boolean)


def _as_dates(cells: pl.Series, form: str) -> pl.Series:
    if cells.dtype in (pl.Date, pl.Datetime):
        naive = cells.dt.replace_time_zone(None) if cells.dtype == pl.Datetime else cells
        return naive.cast(pl.Datetime("us"))
    if cells.dtype.is_numeric():
        numbers = cells.cast(pl.Float64, strict=False).round(0).cast(pl.Int64, strict=False)
        if form in ("years", "yyyymmdd"):
            texts = numbers.cast(pl.String) + ("" if form == "yyyymmdd" else "0101")
            return texts.set(texts.str.len_chars() != 8, None).str.to_datetime(
                "%Y%m%d", strict=False, time_unit="us"
            )
        factor = {"seconds": 10**6, "milliseconds": 10**3}.get(form, 86_400 * 10**6)
        safe = numbers.set(numbers.abs() > 2**62 // factor, None)
        return (safe * factor).cast(pl.Datetime("us"))
    if cells.dtype != pl.String:
        return pl.Series(cells.name, [None] * len(cells), dtype=pl.Datetime("us"))
    result = pl.Series(cells.name, [None] * len(cells), dtype=pl.Datetime("us"))
    # ISO dates are read whatever the training rows had: they cannot be mistaken,
    # and dates are often rewritten so.
    for one in [*(form.split("|") if "%" in form else []), *(_DATES[0] + time for time in _TIMES)]:
        if not result.null_count():
            break
        both = pl.DataFrame({"first": result, "then": parse_dates(cells, one)})
        result = both.select(pl.coalesce("first", "then")).to_series()
    return result


def parse_dates(texts: pl.Series, form: str) -> pl.Series:
    """Local time: an offset from UTC at the end is dropped."""
    plain = texts.str.strip_chars()
    if form in _MONTHS:
        plain = plain.set(~plain.str.contains(_YEAR), None)
        return (plain + " 1").str.to_date(form + " %d", strict=False, exact=True).cast(pl.Datetime("us"))
    if "%H" in form:
        plain = plain.str.replace(_OFFSET, "$1")
        return plain.str.to_datetime(form, strict=False, time_unit="us", exact=True)
    if "%I" in form:
        return plain.str.to_datetime(form, strict=False, time_unit="us", exact=True)
    return plain.str.to_date(form, strict=False, exact=True).cast(pl.Datetime("us"))
