"""Boosted trees as arrays: scikit-learn's predictions to 1e-6, on disk and back, nothing damaged accepted."""

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from advisor.errors import UserError
from advisor.evaluation.trees.boosted import BoostedTrees

COLUMNS = 5
NAMED = [1, 3]
"""The categorical columns, of which the first has codes above 31 and not all of them."""


def rows_of(count, seed, missing=0.15):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, COLUMNS))
    matrix[:, 1] = rng.integers(0, 70, count) * 3
    matrix[:, 3] = rng.integers(2, 6, count)
    truth = matrix[:, 0] + (matrix[:, 1] % 2) + (matrix[:, 3] == 4) + rng.normal(0, 0.2, count)
    matrix[rng.random(matrix.shape) < missing] = np.nan
    return matrix, truth


def fitted(classes, seed=0, categorical=NAMED, **options):
    matrix, truth = rows_of(300, seed)
    options = {"max_iter": 12, "categorical_features": categorical, "random_state": 0} | options
    if not classes:
        return HistGradientBoostingRegressor(**options).fit(matrix, truth)
    codes = np.digitize(truth, np.quantile(truth, np.arange(1, classes) / classes))
    return HistGradientBoostingClassifier(**options).fit(matrix, codes)


def theirs(estimator, matrix):
    if isinstance(estimator, HistGradientBoostingRegressor):
        return estimator.predict(matrix)
    return estimator.predict_proba(matrix)


@pytest.mark.parametrize("classes", [0, 2, 3, 9])
@pytest.mark.parametrize("categorical", [NAMED, None], ids=["categories", "numbers"])
def test_predictions_are_those_of_scikit_learn(classes, categorical):
    estimator = fitted(classes, categorical=categorical)
    trees = BoostedTrees.of(estimator)
    new, _ = rows_of(200, 7, missing=0.3)
    new[:20, 1] = 1  # a category that the fit did not see, between others
    new[20:40, 1] = 253  # and one above all
    new[40:60] = np.nan
    new[60:80, 0] = [1e30, -1e30] * 10
    assert np.abs(trees.scores(new, classes) - theirs(estimator, new)).max() < 1e-6


@pytest.mark.parametrize("options", [{"loss": "absolute_error"}, {"loss": "quantile", "quantile": 0.9}])
def test_other_losses_of_numbers_are_predicted_too(options):
    estimator = fitted(0, **options)
    new, _ = rows_of(50, 7)
    assert np.allclose(BoostedTrees.of(estimator).scores(new, 0), estimator.predict(new), atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.sampled_from([0, 2, 4]), leaves=st.integers(2, 40))
def test_any_fit_is_predicted_as_by_scikit_learn_after_a_file(seed, classes, leaves):
    estimator = fitted(classes, seed, max_iter=3, max_leaf_nodes=leaves, min_samples_leaf=2)
    file = safetensors.numpy.save(BoostedTrees.of(estimator).arrays())
    trees = BoostedTrees.from_arrays(safetensors.numpy.load(file), COLUMNS, classes)
    new, _ = rows_of(40, seed + 1)
    assert np.abs(trees.scores(new, classes) - theirs(estimator, new)).max() < 1e-6


def test_classes_that_the_fit_did_not_see_have_probability_zero():
    matrix, truth = rows_of(100, 0)
    estimator = HistGradientBoostingClassifier(max_iter=3).fit(matrix, np.where(truth > 0, 3, 1))
    scores = BoostedTrees.of(estimator).scores(matrix, 5)
    assert scores.shape == (100, 5)
    assert np.allclose(scores[:, [1, 3]], estimator.predict_proba(matrix))
    assert not scores[:, [0, 2, 4]].any()
    assert (BoostedTrees.constant(2).scores(matrix, 5) == np.eye(5)[2]).all()
    again = BoostedTrees.from_arrays(BoostedTrees.constant(2).arrays(), COLUMNS, 5)
    assert (again.scores(matrix, 5)[:, 2] == 1).all()


def test_no_rows_have_no_scores():
    assert BoostedTrees.of(fitted(3)).scores(np.zeros((0, COLUMNS)), 3).shape == (0, 3)
    assert BoostedTrees.of(fitted(0)).scores(np.zeros((0, COLUMNS)), 0).shape == (0,)


DAMAGES = {
    "an array is missing": lambda arrays: arrays.pop("column"),
    "an array too many": lambda arrays: arrays.update(other=np.zeros(1)),
    "a loop": lambda arrays: arrays["children"].__setitem__((0, 0), 0),
    "a child beyond the end": lambda arrays: arrays["children"].__setitem__((0, 1), 10**6),
    "a root beyond the end": lambda arrays: arrays["roots"].__setitem__(0, 10**6),
    "a column that rows do not have": lambda arrays: arrays["column"].__setitem__(0, COLUMNS),
    "a subset that is not there": lambda arrays: arrays["subset"].__setitem__(0, 10**6),
    "fewer nodes": lambda arrays: arrays.update(number=arrays["number"][:-1]),
    "no number": lambda arrays: arrays["number"].__setitem__(0, np.nan),
    "a class that the model does not have": lambda arrays: arrays["classes"].__setitem__(0, 3),
    "another number of classes": lambda arrays: arrays.update(classes=np.array([0])),
    "roots that are no numbers of nodes": lambda arrays: arrays.update(roots=arrays["roots"] + 0.5),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_arrays_that_are_no_trees_are_refused_in_one_line(damage):
    arrays = {name: array.copy() for name, array in BoostedTrees.of(fitted(3)).arrays().items()}
    BoostedTrees.from_arrays(arrays, COLUMNS, 3)
    damage(arrays)
    with pytest.raises(UserError, match=r"trees of this model are damaged: train again$"):
        BoostedTrees.from_arrays(arrays, COLUMNS, 3)
