"""The share of trees: what held-out rows say, shrunk towards the networks."""

import numpy as np
import pytest

from advisor.evaluation.trees.share import averaged_scores, choose_share
from advisor.tasks import MULTICLASS, REGRESSION


def numbers(rows, networks_off, trees_off, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=rows)
    return truth, truth + rng.normal(0, networks_off, rows), truth + rng.normal(0, trees_off, rows)


def chances(truth, sure):
    return np.where(np.eye(3)[truth] == 1, sure, (1 - sure) / 2)


def test_the_better_of_two_gets_the_larger_share():
    truth, networks, trees = numbers(2000, 1.0, 0.4)
    assert choose_share(REGRESSION, truth, networks, trees).share > 0.7
    assert choose_share(REGRESSION, truth, trees, networks).share < 0.3
    equal = choose_share(REGRESSION, *numbers(2000, 0.5, 0.5))
    assert equal.share == pytest.approx(0.5, abs=0.1)


def test_trees_that_know_nothing_get_nothing():
    truth = np.random.default_rng(0).integers(0, 3, 300)
    chosen = choose_share(MULTICLASS, truth, chances(truth, 0.9), np.full((300, 3), 1 / 3))
    assert chosen.share == 0
    assert not chosen.by_row.any()


def test_few_rows_leave_more_to_the_networks():
    shares = [choose_share(REGRESSION, *numbers(rows, 0.6, 0.5)).share for rows in (8, 40, 2000)]
    assert shares == sorted(shares)
    assert shares[0] < shares[2]


def test_each_row_has_the_share_that_others_choose():
    """Where the rows of one block alone favour trees, they do not choose for themselves."""
    rng = np.random.default_rng(1)
    blocks = np.repeat(np.arange(5), 100)
    truth = rng.normal(size=500)
    networks = truth + np.where(blocks == 2, 3.0, 0.1) * rng.normal(size=500)
    trees = truth + np.where(blocks == 2, 0.1, 3.0) * rng.normal(size=500)
    by_row = choose_share(REGRESSION, truth, networks, trees, blocks=blocks).by_row
    assert all(len(np.unique(by_row[blocks == block])) == 1 for block in range(5))
    assert by_row[blocks == 2].max() < by_row[blocks != 2].min()


def test_weights_count():
    truth, networks, trees = numbers(400, 0.5, 0.5)
    trees[:200] += 5
    weights = np.where(np.arange(400) < 200, 1e-6, 2.0)
    assert choose_share(REGRESSION, truth, networks, trees).share == 0
    assert choose_share(REGRESSION, truth, networks, trees, weights).share > 0.3


def test_exact_predictions_and_single_rows_have_a_share():
    truth = np.arange(10.0)
    assert 0 <= choose_share(REGRESSION, truth, truth, truth).share <= 1
    assert choose_share(REGRESSION, truth[:1], truth[:1], truth[:1]).by_row.shape == (1,)


def test_a_share_of_each_row_mixes_probabilities_too():
    networks, trees = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert averaged_scores(networks, trees, np.array([0.0, 0.25])).tolist() == [[1.0, 0.0], [0.75, 0.25]]
