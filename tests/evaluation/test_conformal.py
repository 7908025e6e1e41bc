"""Intervals and class sets hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest

import advisor
from advisor.cli.main import _run
from advisor.errors import UserError
from advisor.evaluation.conformal import MOST_ERRORS, Conformal


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("knee", [0.0, 2.0])
def test_new_rows_lie_in_the_interval_as_often_as_it_says(level, knee):
    draw = np.random.default_rng(0)
    truth = draw.normal(size=40_000) * 10
    predicted = truth + draw.normal(size=40_000)
    held = Conformal.of_numbers(truth[:20_000], predicted[:20_000], knee)
    assert len(held.errors) == MOST_ERRORS
    low, high = held.intervals(predicted[20_000:], level).T
    inside = (low <= truth[20_000:]) & (truth[20_000:] <= high)
    assert abs(inside.mean() - level) < 0.012 and (low < high).all()


def test_few_rows_take_the_next_larger_error_as_theory_has_it():
    held = Conformal.of_numbers(np.arange(1.0, 20.0), np.zeros(19))
    assert held.margin(0.9) == 18 and held.margin(0.95) == 19
    with pytest.raises(UserError, match=r"19 rows were held out: an interval of 0\.99 needs at least 99"):
        held.margin(0.99)
    for wrong in (0, 1, 1.5):
        with pytest.raises(UserError, match="expected a share between 0 and 1"):
            held.margin(wrong)


def test_sets_of_classes_hold_the_true_one_and_are_never_empty():
    draw = np.random.default_rng(1)
    probabilities = draw.dirichlet([0.6, 0.6, 0.6], 8_000)
    truth = np.array([draw.choice(3, p=row) for row in probabilities])
    held = Conformal.of_classes(truth[:4_000], probabilities[:4_000])
    sets = held.sets(probabilities[4_000:], 0.8)
    inside = sets[np.arange(4_000), truth[4_000:]].mean()
    assert abs(inside - 0.8) < 0.03 and sets.any(axis=1).all() and sets.sum(axis=1).mean() < 2


def test_a_saved_model_gives_intervals_and_the_command_writes_them(tmp_path, capsys):
    draw = np.random.default_rng(2)
    frame = pd.DataFrame(draw.normal(size=(200, 2)), columns=["a", "b"])
    frame["y"] = frame["a"] + draw.normal(size=200) / 10
    fixed = {"epochs": 20, "folds": 2}
    run = advisor.train(frame, "y", out=tmp_path / "run", progress=False, fixed=fixed)
    low, high = run.model.predict_interval(frame, 0.8).T
    assert 0.6 < ((low <= frame["y"]) & (frame["y"] <= high)).mean() <= 1
    again = advisor.load_model(tmp_path / "run").predict_interval(frame, 0.8)
    assert np.array_equal(again, np.column_stack([low, high]))
    frame.to_csv(tmp_path / "new.csv")
    assert _run(["predict", str(tmp_path / "run"), str(tmp_path / "new.csv"), "--interval", "0.8"]) == 0
    assert capsys.readouterr().out.startswith("prediction,low,high\n")
    assert _run(["predict", str(tmp_path / "run"), str(tmp_path / "new.csv"), "--interval", "8"]) == 2


def test_classes_get_a_set(tmp_path):
    draw = np.random.default_rng(3)
    frame = pd.DataFrame(draw.normal(size=(120, 2)), columns=["a", "b"])
    frame["y"] = np.where(frame["a"] + draw.normal(size=120) > 0, "p", "n")
    out, fixed = tmp_path / "run", {"epochs": 3, "folds": 2}
    advisor.train(frame, "y", out=out, progress=False, fixed=fixed)
    found = advisor.predict(out, frame, interval=0.95)
    assert set(found["set"]) <= {"n", "p", "n|p"} and "n|p" in found["set"].to_list()
