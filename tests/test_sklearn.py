"""The estimators as scikit-learn uses them: its own checks, and what people build on an estimator."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import advisor
from advisor.sklearn import AdvisorClassifier, AdvisorRegressor

FAST = {"epochs": 2, "fixed": {"folds": 2}}
"""What is tested here is the form, not what is learnt."""
DEVIATIONS = {
    f"check_sample_weight_equivalence_on_{form}_data": "batches are drawn from the rows: a row of weight 2 is drawn "
    "once an epoch, two rows are drawn twice, and each may validate"
    for form in ("dense", "sparse")
}


@parametrize_with_checks(
    [AdvisorClassifier(**FAST), AdvisorRegressor(**FAST)], expected_failed_checks=lambda estimator: DEVIATIONS
)
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def people():
    draw = np.random.default_rng(0)
    age, town = draw.uniform(18, 90, 160).round(), draw.choice(["north", "south", "east"], 160)
    frame = pd.DataFrame({"age": age, "town": town, "seen": pd.Timestamp("2024-01-01")})
    frame["seen"] += pd.to_timedelta(draw.integers(0, 900, 160), unit="D")
    return frame, np.where((age > 50) ^ (town == "north"), "yes", "no")


def quick(trials=0, **more):
    return AdvisorClassifier(trials, epochs=30, fixed={"folds": 2}, **more)


def test_a_frame_of_any_library_is_read_as_a_table_and_learnt(people):
    frame, y = people
    fitted = quick().fit(frame, y)
    assert fitted.score(frame, y) > 0.9 and fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.feature_names_in_.tolist() == ["age", "town", "seen"] and fitted.n_features_in_ == 3
    other = quick().fit(pl.from_pandas(frame), y)
    assert np.allclose(fitted.predict_proba(frame), other.predict_proba(pl.from_pandas(frame)))
    assert (pickle.loads(pickle.dumps(fitted)).predict(frame) == fitted.predict(frame)).all()


def test_what_was_recommended_and_the_report_are_there(people):
    frame, y = people
    fitted = quick(random_state=3).fit(frame, y)
    assert fitted.recommendation_.configuration["epochs"] == 30
    assert "The recommendation was trained" in repr(fitted.report_)
    assert fitted.report_.to_html().startswith("<!doctype html>") and "iframe" in fitted.report_._repr_html_()
    assert "## Verdict" in fitted.report_.to_markdown()


@pytest.mark.parametrize("labels", [[3, 1, 2], [1.0, 0.0, 2.0], ["", "n/a", "b"], [True, False, True]])
def test_classes_of_any_kind_come_back(labels):
    draw = np.random.default_rng(1)
    codes = draw.integers(0, 3, 90)
    x = draw.normal(size=(90, 2)) + 6 * np.eye(3)[codes][:, :2]
    y = np.asarray(labels)[codes]
    fitted = quick().fit(x, y)
    assert fitted.classes_.tolist() == sorted(set(labels)) and fitted.score(x, y) > 0.9
    assert fitted.predict(x).dtype == y.dtype
    assert np.allclose(fitted.predict_proba(x).sum(axis=1), 1)


def test_sparse_rows_and_chosen_categories():
    draw = np.random.default_rng(2)
    x = draw.integers(0, 4, size=(120, 3)).astype(float)
    y = np.isin(x[:, 0], (0, 2)).astype(int)
    dense = quick(categorical_features=[0]).fit(x, y)
    assert dense.score(x, y) > 0.95
    assert "x0" in dense.model_.schema.levels and "x1" not in dense.model_.schema.levels
    sparse = quick(categorical_features=[True, False, False]).fit(scipy.sparse.csr_matrix(x), y)
    assert np.allclose(sparse.predict_proba(scipy.sparse.csr_matrix(x)), dense.predict_proba(x))
    with pytest.raises(ValueError, match="categorical_features names 'x7'"):
        quick(categorical_features=["x7"]).fit(x, y)


def test_weights_decide_what_is_learnt():
    draw = np.random.default_rng(3)
    x = draw.normal(size=(300, 2))
    y, against = (x[:, 0] > 0).astype(int), np.arange(300) % 2 == 0
    wrong = np.where(against, 1 - y, y)
    fitted = quick().fit(x, wrong, sample_weight=np.where(against, 0.02, 1.0))
    assert fitted.score(x, y) > 0.9
    left_out = quick().fit(x, wrong, sample_weight=np.where(against, 0.0, 1.0))
    assert np.allclose(left_out.predict_proba(x), quick().fit(x[~against], wrong[~against]).predict_proba(x))


def test_it_stands_in_everything_that_takes_an_estimator(people):
    frame, y = people
    numbers = np.column_stack([frame["age"], frame["town"] == "north"])
    assert cross_val_score(AdvisorClassifier(**FAST), frame, y, cv=2).shape == (2,)
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["town"])])
    assert make_pipeline(columns, quick()).fit(frame, y).score(frame, y) > 0.9
    search = GridSearchCV(AdvisorClassifier(**FAST), {"epochs": [1, 2]}, cv=2).fit(numbers, y)
    assert search.best_params_["epochs"] in (1, 2)
    fitted = quick().fit(frame, y)
    found = permutation_importance(fitted, frame, y, n_repeats=2, random_state=0)
    assert found.importances_mean[2] < min(found.importances_mean[:2])
    assert clone(quick(random_state=7)).get_params()["random_state"] == 7


def test_groups_and_weights_are_routed(people):
    frame, y = people
    groups = np.arange(len(y)) % 8
    with sklearn.config_context(enable_metadata_routing=True):
        routed = AdvisorClassifier(**FAST).set_fit_request(groups=True, sample_weight=True)
        routed.set_score_request(sample_weight=True)
        params = {"groups": groups, "sample_weight": np.ones(len(y))}
        found = cross_validate(routed, frame, y, cv=GroupKFold(2), params=params, return_estimator=True)
    assert found["estimator"][0].recommendation_.data["group_column"] == "group"
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick().fit(frame, y, groups=groups[1:])


def test_trials_search_in_this_process_and_a_folder_keeps_the_run(people, tmp_path):
    frame, y = people
    fitted = AdvisorClassifier(2, time_limit=60, out=tmp_path / "run", **FAST).fit(frame, y)
    assert len(fitted.report_.result["search"]["trials"]) == 2
    model = advisor.load_model(tmp_path / "run")
    assert np.allclose(model.predict_proba(frame), fitted.predict_proba(frame))


def test_the_same_state_fits_the_same_and_a_generator_others():
    draw = np.random.default_rng(5)
    x = draw.normal(size=(80, 3))
    y = x @ [1.0, 2.0, 0.0]
    one, two = (AdvisorRegressor(random_state=s, **FAST).fit(x, y).predict(x) for s in (1, 1))
    assert (one == two).all()
    state = np.random.RandomState(0)
    one, two = (AdvisorRegressor(random_state=state, **FAST).fit(x, y).predict(x) for _ in range(2))
    assert not np.allclose(one, two)


def test_what_the_caller_can_fix_is_a_value_error(people):
    frame, y = people
    fitted = AdvisorClassifier(**FAST).fit(frame, y)
    with pytest.raises(ValueError, match="town"):
        fitted.predict(frame.drop(columns="town"))
    with pytest.raises(ValueError, match="learning_rat"):
        AdvisorClassifier(fixed={"learning_rat": 1}).fit(frame, y)
    with pytest.raises(ValueError, match="time limit"):
        AdvisorClassifier(time_limit=-1).fit(frame, y)


def test_a_metric_decides_what_is_predicted():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 2))
    y = np.where(x[:, 0] + draw.normal(size=400) > 2.2, "rare", "common")
    plain, f1 = (quick(metric=metric).fit(x, y) for metric in (None, "f1:rare"))
    assert np.allclose(plain.predict_proba(x), f1.predict_proba(x))
    assert (plain.predict(x) == plain.classes_[plain.predict_proba(x).argmax(axis=1)]).all()
    assert (f1.predict(x) == "rare").sum() > (plain.predict(x) == "rare").sum()
    costly = quick(cost={"rare": {"common": 20}}).fit(x, y)
    assert (costly.predict(x) == "rare").sum() > (f1.predict(x) == "rare").sum()
    with pytest.raises(ValueError, match="did you mean 'f1_macro'"):
        quick(metric="f1_marco").fit(x, y)


def test_a_quantile_is_what_its_metric_trains():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(600, 2))
    y = x[:, 0] + draw.exponential(size=600)
    high = AdvisorRegressor(metric="pinball:0.9", epochs=40, fixed={"folds": 2}).fit(x, y)
    assert high.recommendation_.configuration["loss"] == "quantile"
    assert np.mean(y <= high.predict(x)) == pytest.approx(0.9, abs=0.05)
    assert "pinball loss at 0.9" in " ".join(high.report_.verdict())
