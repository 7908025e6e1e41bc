"""Linear models that hold the time at the latest against those without it, on
targets that drift, return or stay."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from test_shift import frame

from advisor.dataset import LATEST_SHARE, Features
from advisor.facts.shift.time_trend import AHEAD, CUTS, FIRST_CUT, held_to_none
from advisor.runs.advice import AdviceOptions
from advisor.workflows.recommend import get_advice


def table(times, other, codes=None):
    """Some columns and a time."""
    categorical = np.zeros((len(times), 0), np.int32) if codes is None else codes[:, None].astype(np.int32)
    names = (*(f"x{number}" for number in range(other.shape[1])), "t")
    levels = () if codes is None else (tuple("abc"),)
    return Features(
        np.column_stack([other, times]),
        categorical,
        names,
        () if codes is None else ("c",),
        levels,
        trend=("t",),
    )


def naive(times, other, codes, target):
    """The same with scikit-learn, cut by cut."""
    order = np.argsort(times, kind="stable")
    inputs = np.column_stack(
        [(other - other.mean(axis=0)) / other.std(axis=0), *(codes == code for code in np.unique(codes))]
    )
    when, inputs, target = times[order].astype(float), inputs[order].clip(-3, 3), target[order]
    cuts, held, none = set(), 0.0, 0.0
    for share in np.linspace(FIRST_CUT, 1, CUTS, endpoint=False):
        cuts |= set(
            [at for at in range(1, len(when)) if when[at - 1] < when[at] and at >= share * len(when)][:1]
        )
    for cut in cuts:
        ahead = slice(cut, cut + max(1, round(AHEAD * cut)))
        latest = sorted(when[:cut])[int(np.ceil((1 - LATEST_SHARE) * (cut - 1) - 1e-9))]
        moment = (np.minimum(when, latest) - when[:cut].mean()) / (when[:cut].std() or 1.0)
        for which, read in (("none", inputs), ("held", np.column_stack([inputs, moment]))):
            model = Ridge(alpha=1.0).fit(read[:cut], target[:cut])
            error = np.square(
                model.predict(read[ahead]).reshape(-1, target.shape[1]) - target[ahead]
            ).sum() / len(target[ahead])
            held, none = (held + error, none) if which == "held" else (held, none + error)
    return held / none if cuts else None


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(10, 80), st.integers(1, 30), st.integers(1, 3))
def test_it_is_what_it_says(seed, rows, moments, numbers):
    draw = np.random.default_rng(seed)
    times, other, codes = (
        draw.integers(0, moments, rows),
        draw.normal(size=(rows, 2)),
        draw.integers(0, 3, rows),
    )
    target = draw.normal(size=(rows, numbers)) + 0.1 * times[:, None]
    found, expected = (
        held_to_none(table(times, other, codes), times, target),
        naive(times, other, codes, target),
    )
    assert found == expected if expected is None else found == pytest.approx(expected, rel=1e-6)


def test_a_level_that_drifts_and_one_that_returns():
    draw, times = np.random.default_rng(0), np.repeat(np.arange(40), 50)
    noise, features = draw.normal(size=(2000, 1)), table(times, draw.normal(size=(2000, 2)))
    assert held_to_none(features, times, noise + 0.1 * times[:, None]) < 0.6
    assert held_to_none(features, times, noise + np.sin(2 * np.pi * times[:, None] / 20)) > 1.02
    assert 0.99 < held_to_none(features, times, noise) < 1.02
    classes = np.eye(3)[np.minimum(2, draw.poisson(0.02 * times))]
    assert held_to_none(features, times, classes) < 0.99


def test_what_another_column_says_is_not_the_times():
    draw, times = np.random.default_rng(0), np.repeat(np.arange(40), 50)
    warmth = np.sin(2 * np.pi * times / 40) + draw.normal(size=2000)
    target = 3 * warmth[:, None] + 0.02 * times[:, None] + 0.1 * draw.normal(size=(2000, 1))
    assert held_to_none(table(times, warmth[:, None]), times, target) < 0.6
    assert held_to_none(table(times, draw.normal(size=(2000, 1))), times, target) > 0.8


def test_no_ratio_without_cuts_or_errors_and_odd_columns_do_no_harm():
    times, none = np.arange(50), np.zeros((50, 0))
    assert (
        held_to_none(table(np.zeros(50, np.int64), none), np.zeros(50, np.int64), times[:, None] * 1.0)
        is None
    )
    assert held_to_none(table(times, none), times, np.ones((50, 1))) is None
    assert held_to_none(table(times, none), times, 1e300 * times[:, None]) is None
    odd = np.column_stack([np.full(50, np.nan), np.ones(50), np.where(times % 2, np.nan, 1e308)])
    features = table(np.where(times % 7, times * 1.0, np.nan), odd)
    assert 0 < held_to_none(features, np.where(times % 7, times, 0), times[:, None] * 1.0) < 1


@pytest.mark.parametrize("way, trend", [("drifts", "clamped"), ("returns", "none")])
def test_the_time_is_held_where_that_would_have_paid(way, trend):
    data, when = frame(700), np.arange(700) // 35
    level = 0.5 * when if way == "drifts" else 5 * np.sin(2 * np.pi * when / 10)
    data = data.with_columns(
        y=pl.Series(np.random.default_rng(0).normal(size=700) + level), t=pl.Series(when)
    )
    advice = get_advice(data, "y", AdviceOptions(time_column="t"))
    ratio = advice.facts.values["time.clamped_error_ratio"]
    assert (ratio < 1) == (way == "drifts")
    recommendation = advice.recommendation
    assert recommendation.configuration["time_trend"] == trend
    assert recommendation.space["time_trend"].choices == ("none", "clamped")
    if way == "drifts":
        because = {step.rule: step.because for step in recommendation.provenance["time_trend"].steps}
        assert f"{ratio:.4f} times the squared error" in because["time-clamped"]


def test_a_table_without_a_time_has_no_ratio():
    assert get_advice(frame(100), "y", AdviceOptions()).facts.values["time.clamped_error_ratio"] is None
