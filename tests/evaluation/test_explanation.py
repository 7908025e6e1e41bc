"""What a model uses and where it is worst: known answers of made models."""

import json
import time

import numpy as np
import pytest

from advisor.dataset import Dataset, Features
from advisor.documents import from_plain, to_plain
from advisor.evaluation.explanation import (
    MOST_ROWS,
    explain,
    occlusion,
    partial_dependence,
    permutation_importance,
    worst_slices,
)
from advisor.evaluation.judgement import Explanation

ROWS = 800


def table(rng, target=None):
    """Two numbers, of which the first decides, and a colour."""
    numeric = rng.normal(size=(ROWS, 2))
    categorical = rng.integers(0, 3, (ROWS, 1)).astype(np.int32)
    features = Features(numeric, categorical, ("age", "noise"), ("colour",), (("blue", "green", "red"),))
    wanted = 2 * numeric[:, 0] if target is None else target(numeric, categorical)
    return Dataset(features, wanted, "regression")


def by_age(features):
    return 2 * features.numeric[:, 0]


def test_a_column_that_is_not_used_has_no_importance_and_the_one_that_is_comes_first():
    data = table(np.random.default_rng(0))
    found = permutation_importance(data, by_age, np.random.default_rng(1))
    assert found[0].name == "age"
    assert found[0].low > 0
    assert [one.mean for one in found[1:]] == [0.0, 0.0]
    # shuffled, the squared error is that of two independent draws: 2 x variance
    assert found[0].mean == pytest.approx(2 * np.var(data.target), rel=0.2)


def test_the_target_of_a_shuffled_column_is_drawn_from_the_generator():
    data = table(np.random.default_rng(0))
    first, second = (permutation_importance(data, by_age, np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_a_partial_dependence_of_a_linear_model_is_its_line():
    data = table(np.random.default_rng(0))
    found = partial_dependence(data, "age", by_age)
    assert found.predicted[""] == pytest.approx([2 * at for at in found.at])
    assert list(found.at) == sorted(found.at)


def test_a_partial_dependence_of_categories_has_their_names_and_of_two_classes_one_line():
    rng = np.random.default_rng(0)
    regression = table(rng)
    data = Dataset(regression.features, rng.integers(0, 2, ROWS), "binary", ("no", "yes"))

    def red(features):
        yes = np.where(features.categorical[:, 0] == 2, 0.9, 0.2)
        return np.column_stack([1 - yes, yes])

    found = partial_dependence(data, "colour", red)
    assert dict(zip(found.at, found.predicted["yes"], strict=True)) == pytest.approx(
        {"red": 0.9, "blue": 0.2, "green": 0.2}
    )
    assert list(found.predicted) == ["yes"]


def test_the_worst_slice_is_where_the_errors_were_put():
    def wrong_for_old_red(numeric, categorical):
        return 2 * numeric[:, 0] + 5 * ((categorical[:, 0] == 2) & (numeric[:, 0] > 0.5))

    found = worst_slices(table(np.random.default_rng(0), wrong_for_old_red), by_age, np.random.default_rng(0))
    assert found[0].conditions[0].startswith("age is above") or found[0].conditions[0] == "colour is red"
    assert "colour is red" in found[0].conditions
    assert found[0].loss == pytest.approx(25, rel=0.2)
    assert found[0].loss > found[0].overall


@pytest.mark.parametrize("seed", range(20))
def test_where_errors_are_noise_hardly_any_slice_is_named(seed):
    rng = np.random.default_rng(seed)
    data = table(rng, lambda numeric, categorical: 2 * numeric[:, 0] + rng.normal(size=ROWS))
    named = worst_slices(data, by_age, rng)
    # each leaf is tested at 5 % on rows that did not choose it
    assert len(named) <= 2


def test_an_explanation_is_json_and_bounded_in_rows_and_time():
    data = table(np.random.default_rng(0))
    whole = explain(data, by_age, np.random.default_rng(0))
    assert whole.rows == MOST_ROWS
    assert from_plain(Explanation, json.loads(json.dumps(to_plain(whole)))) == whole
    assert whole.importances[0].name == "age"
    assert whole.dependences[0].name == "age"
    late = explain(data, by_age, np.random.default_rng(0), until=time.monotonic() - 1)
    assert (late.importances, late.dependences) == ((), ())


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 64)], ids=["image", "series"])
def test_occlusion_points_at_what_the_model_looks_at(shape):
    row = np.zeros(shape, np.uint8 if len(shape) == 3 else np.float32)
    spot = (0, slice(4, 6), slice(8, 10)) if len(shape) == 3 else (0, slice(12, 16))
    row[spot] = 200

    def looks_at_the_spot(signals):
        bright = signals.values[(slice(None), *spot)].reshape(len(signals), -1).mean(axis=1) / 200
        return np.column_stack([1 - bright, bright])

    heat = occlusion(row, looks_at_the_spot, output=1)
    assert np.unravel_index(heat.argmax(), heat.shape) == ((2, 4) if len(shape) == 3 else (0, 3))
    assert (heat > 1e-6).sum() == 1
