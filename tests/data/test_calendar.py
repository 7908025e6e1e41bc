"""Which columns tell when, and what of them comes round."""

import numpy as np
import polars as pl
import pytest

from advisor.data.options import ReadingOptions
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import load_table
from advisor.workflows.recommend import AdviceOptions, get_advice

ROWS = 400
HOURS = np.arange(ROWS) % 24


def table(**columns):
    draw = np.random.default_rng(0)
    frame = pl.DataFrame({"x": draw.normal(size=ROWS), **columns})
    return frame.with_columns(y=pl.Series(draw.normal(size=ROWS)))


def found(time_column=None, **columns):
    data = load_table(table(**columns), "y", ReadingOptions(time_column=time_column))
    return {cycle.name: (cycle.unit, cycle.period) for cycle in data.schema.calendar}


@pytest.mark.parametrize(
    ("name", "values", "unit"),
    [
        ("hr", HOURS, "hour"),
        ("pickup_hour", HOURS + 0.25, "hour"),
        ("hour_utc", HOURS, "hour"),
        ("DayOfWeek", np.arange(ROWS) % 7, "weekday"),
        ("dow", 1 + np.arange(ROWS) % 7, "weekday"),
        ("mnth", 1 + np.arange(ROWS) % 12, "month"),
        ("yday", 1 + np.arange(ROWS) % 365, "day of the year"),
        ("hours", HOURS, None),  # how many, not which
        ("throughput", HOURS, None),
        ("hr", 60 + np.arange(ROWS) % 80, None),  # a heart rate
        ("hour", 9 + np.arange(ROWS) % 8, None),  # never comes round
        ("weekday", np.arange(ROWS) % 8, None),
        ("day", 1 + np.arange(ROWS) % 31, None),
        ("duration_month", 6 + np.arange(ROWS) % 60, None),
    ],
)
def test_a_column_of_numbers_counts_by_its_name_and_its_values(name, values, unit):
    cycles = found(**{name: values})
    assert [own[0] for own in cycles.values()] == ([] if unit is None else [unit])


def test_dates_come_round_where_the_rows_last_that_long():
    times = pl.Series(np.datetime64("2024-01-01T00:00", "ms") + 31 * 60_000 * np.arange(ROWS))
    assert found(when=times) == {"when.hour": ("hour", 24.0), "when.weekday": ("weekday", 7.0)}
    days = pl.Series(np.datetime64("2024-01-01") + np.arange(ROWS))
    assert found(when=days) == {"when.weekday": ("weekday", 7.0), "when.days": ("day of the year", 365.2425)}
    # time itself is no input that comes round: only its parts are
    assert set(found("when", when=days)) == {"when.weekday"}


def test_a_schema_keeps_its_calendar_and_older_ones_have_none():
    schema = load_table(table(hr=HOURS, holiday=HOURS > 20), "y", ReadingOptions()).schema
    plain = schema.to_dict()
    assert TableSchema.from_dict(plain) == schema and schema.working == ("holiday",)
    older = {name: value for name, value in plain.items() if name not in ("calendar", "working")}
    assert TableSchema.from_dict(older).calendar == ()


def test_the_recommendation_says_what_comes_round():
    data = table(hr=HOURS, dow=np.arange(ROWS) % 7)
    advice = get_advice(data, "y", AdviceOptions())
    told = {name: advice.facts.values[f"calendar.{name}"] for name in ("cycles", "hours", "crosses", "found")}
    assert told == {"cycles": 2, "hours": 1, "crosses": 1, "found": ["hr: hour", "dow: weekday"]}
    assert advice.recommendation.configuration["calendar_features"] == "cyclic"
    assert "hr: hour" in advice.recommendation.provenance["calendar_features"].steps[-1].because
    plain = get_advice(table(), "y", AdviceOptions()).recommendation
    assert plain.configuration["calendar_features"] == "none"
    assert "calendar_features" not in plain.space.searched
