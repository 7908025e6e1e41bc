"""The latest level against the mean so far, on targets that drift, return or stay."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from test_shift import frame

from advisor.advice import Reading, get_advice
from advisor.drift import CUTS, FIRST_CUT, latest_to_mean, unexplained
from advisor.features import LATEST_SHARE, Features


def naive(times, target):
    """The same, a row at a time."""
    rows = sorted(zip(times, target, strict=True), key=lambda row: row[0])
    cuts = set()
    for share in np.linspace(FIRST_CUT, 1, CUTS, endpoint=False):
        cuts |= set([at for at in range(1, len(rows)) if rows[at - 1][0] < rows[at][0] and at >= share * len(rows)][:1])
    if len(cuts) < 2:
        return None
    of_latest = of_mean = 0.0
    for cut in cuts:
        before, after = rows[:cut], rows[cut:]
        begin = sorted(time for time, _ in before)[int(np.ceil((1 - LATEST_SHARE) * (cut - 1)))]
        ahead = np.mean([value for _, value in after])
        of_latest += (np.mean([value for time, value in before if time >= begin]) - ahead) ** 2
        of_mean += (np.mean([value for _, value in before]) - ahead) ** 2
    return of_latest / of_mean if of_mean else None


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 80), st.integers(1, 30))
def test_it_is_what_it_says(seed, rows, times):
    draw = np.random.default_rng(seed)
    when, target = draw.integers(0, times, rows), draw.normal(size=rows)
    found, expected = latest_to_mean(when, target[:, None]), naive(when, target)
    assert found == expected if expected is None else found == pytest.approx(expected)


def test_a_level_that_drifts_and_one_that_returns():
    draw, times = np.random.default_rng(0), np.repeat(np.arange(40), 50)
    noise = draw.normal(size=(2000, 1))
    assert latest_to_mean(times, noise + 0.1 * times[:, None]) < 0.5
    assert latest_to_mean(times, noise + np.sin(2 * np.pi * times[:, None] / 20)) > 1.5
    assert latest_to_mean(times, noise) > 1  # fewer rows to tell the same level from
    # all classes count
    classes = np.eye(3)[np.minimum(2, draw.poisson(0.02 * times))]
    assert latest_to_mean(times, classes) < 0.5


def test_no_ratio_without_cuts_or_errors():
    assert latest_to_mean(np.zeros(50, np.int64), np.arange(50.0)[:, None]) is None
    assert latest_to_mean(np.arange(50) // 40, np.arange(50.0)[:, None]) is None  # a single cut
    assert latest_to_mean(np.arange(50), np.ones((50, 1))) is None
    assert latest_to_mean(np.arange(50), np.full((50, 1), 1e300) * np.arange(50)[:, None]) is None


def test_what_columns_leave_unexplained_is_what_a_ridge_leaves():
    draw = np.random.default_rng(0)
    numbers, codes = draw.normal(size=(200, 3)).clip(-1.5, 1.5), draw.integers(0, 2, (200, 1)).astype(np.int32)
    target = np.column_stack([numbers[:, 0] + codes[:, 0], draw.normal(size=200)])
    features = Features(numbers, codes, ("a", "b", "time"), ("c",), (("x", "y"),), trend=("time",))
    inputs = np.column_stack([(numbers / numbers.std(axis=0))[:, :2], codes == 0, codes == 1])
    expected = target - Ridge(alpha=1.0).fit(inputs, target).predict(inputs)
    np.testing.assert_allclose(unexplained(features, target), expected, atol=1e-6)


def test_columns_without_a_number_or_a_spread_explain_nothing():
    numbers = np.column_stack([np.full(30, np.nan), np.ones(30), np.where(np.arange(30) % 2, np.nan, 1e308)])
    target = np.arange(30.0)[:, None]
    left = unexplained(Features(numbers, np.zeros((30, 0), np.int32), ("a", "b", "c"), (), ()), target)
    np.testing.assert_allclose(left, target - target.mean(), atol=1.0)
    assert unexplained(Features(np.zeros((30, 0)), np.zeros((30, 0), np.int32), (), (), ()), target).shape == (30, 1)


@pytest.mark.parametrize("way, trend", [("drifts", "held"), ("returns", "none")])
def test_the_time_is_held_where_the_latest_level_foretold_more(way, trend):
    data = frame(700)
    when = np.arange(700) // 35
    level = 0.5 * when if way == "drifts" else 5 * np.sin(2 * np.pi * when / 10)
    data = data.with_columns(y=pl.Series(np.random.default_rng(0).normal(size=700) + level), t=pl.Series(when))
    advice = get_advice(data, "y", Reading(time_column="t"))
    ratio = advice.facts.values["time.latest_to_mean"]
    assert (ratio < 1) == (way == "drifts")
    recommendation = advice.recommendation
    assert recommendation.configuration["time_trend"] == trend
    assert recommendation.space["time_trend"].choices == ("none", "held")
    if way == "drifts":
        because = {step.rule: step.because for step in recommendation.provenance["time_trend"].steps}
        assert f"{ratio:.2f} times the squared error" in because["time-held-at-the-latest"]


def test_a_table_without_a_time_has_no_ratio():
    assert get_advice(frame(100), "y", Reading()).facts.values["time.latest_to_mean"] is None
