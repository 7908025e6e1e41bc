"""Time, predicted from the configuration and then from what was seen; and how
much of a limit the final is left."""

import datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import optuna
import polars as pl
import pytest
from optuna.trial import TrialState

from advisor.objectives.final_jobs import FINAL_REPEATS, FINALISTS
from advisor.objectives.network_objective import NetworkObjective
from advisor.objectives.objective import RunData
from advisor.runs.folder import RunFolder
from advisor.search.resources import Pace
from advisor.search.trials import CONFIGURATION
from advisor.workflows import search as run_search
from advisor.workflows.options import SearchOptions
from advisor.workflows.recommend import get_advice, reading_of
from advisor.workflows.status import SearchRequest

LIMIT = 1000.0


def test_it_learns_the_scale_and_the_epochs():
    pace = Pace(lambda configuration: configuration["work"])
    assert pace.expects({"work": 2.0}) == pace.shortest == 0.0
    for epochs, seconds in ((10, 5.0), (20, 10.0), (40, 20.0)):
        pace.took({"work": 1.0}, epochs, seconds)
    assert pace.expects({"work": 2.0}) == pytest.approx(0.5 * 20 * 2.0)
    pace.took({"work": 1.0}, 20, 1e6)  # a worker that hung once says nothing of the others
    assert pace.expects({"work": 2.0}) == pytest.approx(0.5 * 20 * 2.0)
    assert pace.shortest == 5.0


def test_without_a_prediction_nothing_is_faster_than_the_fastest():
    pace = Pace()
    assert pace.expects({}) == 0.0
    pace.took({}, 3, 7.0)
    pace.took({}, 3, 4.0)
    assert pace.expects({}) == pace.shortest == 4.0


# ------------------------------------------------------------------ the final's share


def advice_for(rows=200, **fixed):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, rows))
    day = [datetime.date(2026, 1, 1) + datetime.timedelta(days=i) for i in range(rows)]
    frame = pl.DataFrame({"day": day, "a": a, "b": b, "y": a + b})
    columns = {"time_column": "day"} if fixed.pop("later", False) else {"types": {"day": "identifier"}}
    return get_advice(frame, "y", reading_of({**columns, "fixed": fixed}))


def trial(advice, value, seconds, origin="search"):
    """A complete trial of the recommendation's configuration."""
    attributes = {
        "origin": origin,
        "seconds": seconds,
        "waited": 1.0,
        CONFIGURATION: dict(advice.recommendation.configuration),
    }
    return optuna.trial.create_trial(state=TrialState.COMPLETE, value=value, user_attrs=attributes)


def kept(advice, trials, slots=1, limit=LIMIT):
    """What the run's own plan keeps, of a limit that begins now."""
    given = RunData(advice, run_search.training_rows(advice), RunFolder(Path("run")))
    with patch("time.monotonic", return_value=0.0):
        plan = run_search.plan_search(given, SearchRequest(10), NetworkObjective(), limit, SearchOptions())
    return plan.reserve(trials, slots)


def test_until_the_recommendation_is_complete_a_fixed_share_is_kept():
    advice = advice_for()
    assert (
        kept(advice, [])
        == kept(advice, [trial(advice, 1.0, 5.0)])
        == pytest.approx((1 - run_search.SEARCH_SHARE) * LIMIT)
    )


@pytest.mark.parametrize("slots", [1, 2])
def test_the_final_is_expected_to_take_what_its_contenders_took(slots):
    advice = advice_for(validation="kfold", final_members=1)
    own, others = (
        trial(advice, 2.0, 6.0, run_search.RECOMMENDED),
        [trial(advice, k, 11.0) for k in (0.0, 0.1, 0.2)],
    )
    slow = trial(advice, 9.0, 500.0)  # too far behind to come into the final
    assert len(others) == FINALISTS
    expected = len(FINAL_REPEATS) * (5.0 + 3 * 10.0) / slots + 10.0 * (1 - 1 / slots)
    assert kept(advice, [slow, own, *others], slots) == pytest.approx(run_search.FINAL_MARGIN * expected)
    assert kept(advice, [own], slots) < kept(advice, [own, *others], slots)
    assert kept(advice, [own, *others], slots, 20.0) == pytest.approx(
        (1 - run_search.LEAST_SEARCH_SHARE) * 20.0
    )
    # too little for all of it: the first partition, or as much as before anything was known
    first = run_search.FINAL_MARGIN * ((5.0 + 3 * 10.0) / slots + 10.0 * (1 - 1 / slots))
    assert kept(advice, [own, *others], slots, 100.0) == pytest.approx(
        max(first, (1 - run_search.SEARCH_SHARE) * 100.0)
    )


def test_more_networks_and_training_again_are_counted():
    trials = lambda advice: [trial(advice, 2.0, 6.0, run_search.RECOMMENDED)]  # noqa: E731
    one, five = (advice_for(validation="holdout", final_members=members) for members in (1, 5))
    assert 1 < kept(five, trials(five)) / kept(one, trials(one)) <= 5
    plain, later = (advice_for(validation="holdout", final_members=1, later=later) for later in (False, True))
    repeats = len(FINAL_REPEATS)
    # on the latest rows, on all, and as often again on rows of all times
    assert kept(later, trials(later)) / kept(plain, trials(plain)) == pytest.approx(
        (2 + 2 * repeats) / repeats
    )
