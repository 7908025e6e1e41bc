"""Cells that are written as dates: in which forms most of them are, and their values."""

from __future__ import annotations

import polars as pl

from advisor.data.columns.cells import MOSTLY

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


def hours_matter(sample: pl.Series) -> str:
    """The format of cells that are dates already: "hours" where one has a time after midnight, else ""."""
    return "hours" if sample.dtype == pl.Datetime and bool((sample.dt.hour() > 0).any()) else ""


def date_forms() -> tuple[str, ...]:
    """The forms that texts may be tried in as dates."""
    return (*(date + time for date in _DATES for time in _TIMES), *_MONTHS)


def best_date_forms(values: pl.Series, rows: pl.Series, enough: float = MOSTLY) -> str:
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


def as_dates(cells: pl.Series, form: str) -> pl.Series:
    """Cells as Datetime in microseconds, by a column's format; null where they cannot be read."""
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
