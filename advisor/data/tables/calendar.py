"""Columns that tell when: hours, weekdays and days of the year, of dates or written as numbers.

What they tell comes round: hour 23 is one away from hour 0. A column of plain numbers counts as one of
them if its name says so and its values fit. A wrong guess does little harm: the column stays an input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import polars as pl

from advisor.data.columns.column import Column
from advisor.data.tables.features import encoded_names
from advisor.dataset import Cycle

YEAR = 365.2425
"""Days, of the Gregorian calendar, on average."""
COVERED = 0.7
"""The values must span this share of a round: hours from 9 to 17 do not come round."""
MOST_WORDS = 3
"""The longest unit in words: day, of, year."""
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


Said = TypeVar("Said")


@dataclass(frozen=True)
class _Unit:
    """A part of time as numbers. names: of columns that hold it, their words put together.
    low, high: the least and the greatest value; period: after how much it comes round."""

    unit: str
    names: tuple[str, ...]
    low: float
    high: float
    period: float

    def fits(self, low: float, high: float) -> bool:
        """Whether values from low to high can be this."""
        inside = self.low <= low and high <= self.high and high - low < self.period
        return inside and high - low >= COVERED * self.period


_UNITS = (
    _Unit("hour", ("hour", "hr", "hourofday", "hod"), 0, 24, 24.0),
    _Unit("weekday", ("weekday", "dayofweek", "dow", "wday"), 0, 7, 7.0),
    _Unit("month", ("month", "mnth", "monthofyear", "moy"), 0, 12, 12.0),
    _Unit("day of the year", ("dayofyear", "doy", "yday", "day"), 0, 366, YEAR),
)
_BY_NAME: Mapping[str, _Unit] = MappingProxyType({name: unit for unit in _UNITS for name in unit.names})
_WORKING: Mapping[str, str] = MappingProxyType(
    {name: name for name in ("workingday", "workday", "businessday", "holiday", "weekend")}
)
_OF_DATES: Mapping[str, tuple[str, float, float]] = MappingProxyType(
    {"hour": ("hour", 24.0, 1.0), "weekday": ("weekday", 7.0, 7.0), "days": ("day of the year", YEAR, YEAR)}
)
"""What comes round in the arrays of a date: the unit, its period, and the days that one round takes."""
_OF_TIMES: Mapping[str, tuple[str, float]] = MappingProxyType(
    {"hour": ("hour", 24.0), "weekday": ("weekday", 7.0), "month": ("month", 12.0)}
)
"""... and in those of the time column, whose days are no input or clamped."""


def cycles_of(columns: Iterable[Column], train: pl.DataFrame, time_parts: Sequence[str]) -> tuple[Cycle, ...]:
    """What comes round in the columns of a table and in the parts of its time column.

    train: the training rows, columns as their types have them.
    """
    found: list[Cycle] = []
    for column in columns:
        if column.type == "numeric":
            found += _of_numbers(train[column.name])
        elif column.type == "datetime":
            found += _of_dates(train[column.name], encoded_names(column))
    ends = {name: name.rpartition(".")[2] for name in time_parts}
    found += [Cycle(name, *_OF_TIMES[end]) for name, end in ends.items() if end in _OF_TIMES]
    return tuple(found)


def working_days(columns: Iterable[Column]) -> tuple[str, ...]:
    """The two-valued columns whose names say that they tell working days from others."""
    return tuple(c.name for c in columns if c.type == "boolean" and _said(c.name, _WORKING) is not None)


def _of_numbers(cells: pl.Series) -> list[Cycle]:
    unit = _said(cells.name, _BY_NAME)
    if unit is None or not cells.count():
        return []
    low, high = float(cells.min()), float(cells.max())  # type: ignore[arg-type]  # of numbers
    return [Cycle(cells.name, unit.unit, unit.period)] if unit.fits(low, high) else []


def _said(name: str, known: Mapping[str, Said]) -> Said | None:
    """What a name says: as a whole ("hr"), at its end ("pickup_hour") or its begin ("hour_utc")."""
    words = [word.lower() for word in WORDS.findall(name)]
    lengths = range(min(MOST_WORDS, len(words)), 0, -1)
    parts = [words, *(words[-count:] for count in lengths), *(words[:count] for count in lengths)]
    return next((known[part] for part in map("".join, parts) if part in known), None)


def _of_dates(cells: pl.Series, names: Sequence[str]) -> list[Cycle]:
    if not cells.count():
        return []
    days = (cells.max() - cells.min()).total_seconds() / 86_400  # type: ignore[operator, union-attr]  # of dates
    found = []
    for name in names:
        unit, period, round_days = _OF_DATES.get(name.rpartition(".")[2], ("", 0.0, 0.0))
        if unit and days >= COVERED * round_days:
            found.append(Cycle(name, unit, period))
    return found
