"""Rows with the same features: copies of one thing, or different things that
look alike? Their targets tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float64]

ROWS = 5000
"""The trees see this many rows, with each row all that repeat it."""
FEWEST_TWINS = 10
"""Of fewer repeated rows nothing is said where there are more rows than these."""
FOLDS, TREES, LEAF_ROWS = 3, 50, 3
"""Extremely randomized trees (Geurts et al. 2006), small leaves: what features explain of a
target must not be called copying."""


def few_twins(rows: int, distinct: int) -> bool:
    """Whether so few of the rows repeat another one that nothing is said of them.
    distinct: how many of them differ."""
    return rows - distinct < (FEWEST_TWINS if rows > ROWS else 1)


def disagreement(
    keys: NDArray[Any],
    target: NDArray[Any],
    *,
    regression: bool,
    inputs: Callable[[NDArray[np.bool_]], FloatMatrix] | None = None,
) -> float:
    """How much targets of rows with one key differ, as a share of what the features leave
    open: 0 of copies, 1 of other things.

    keys, target: of the rows; target holds numbers, of which the ranks are taken (a heavy tail would decide
        alone), or classes, of which each is a column of 0 and 1.
    inputs: a mask of rows -> their features, shape (rows, columns); what they leave open are the squared
        errors of trees that have not seen a row of the key, or, where these are smaller (few keys tell
        nothing of another one) or there are no inputs, the squared distances from the mean of all. 0 where no
        row repeats an earlier one (fewer than FEWEST_TWINS of over ROWS), or all targets are the same.
    """
    _, key, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    if few_twins(len(key), len(sizes)):
        return 0.0
    rng = np.random.default_rng(0)
    chosen = np.ones(len(key), dtype=bool) if inputs is None else _whole_keys(key, sizes, rng)
    _, key, sizes = np.unique(key[chosen], return_inverse=True, return_counts=True)
    answers = _columns(target[chosen], regression)
    means = np.stack([np.bincount(key, weights=column) for column in answers.T], axis=1) / sizes[:, None]
    within = float(((answers - means[key]) ** 2).sum())
    # a mean of n rows lies nearer to them than to others: (n - 1) / n of the variance is left
    weights = 1 - 1 / sizes[key]
    left = float((((answers - answers.mean(axis=0)) ** 2).sum(axis=1) * weights).sum())
    if inputs is not None and 0 < within < left:
        errors = answers - _explained(inputs(chosen), answers, key, len(sizes), rng)
        left = min(left, float(((errors**2).sum(axis=1) * weights).sum()))
    return within / left if left > 0 else 0.0


def _whole_keys(
    key: NDArray[np.int64], sizes: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The rows of keys drawn at random, about ROWS together; at least of one key."""
    order = rng.permutation(len(sizes))
    drawn = np.zeros(len(sizes), dtype=bool)
    drawn[order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), ROWS, "right")))]] = True
    return np.asarray(drawn[key])


def _columns(target: NDArray[Any], regression: bool) -> FloatMatrix:
    if regression:
        from scipy.stats import rankdata

        return np.asarray(rankdata(target)[:, None] / len(target))
    classes, code = np.unique(target, return_inverse=True)
    return np.asarray(np.eye(len(classes))[code])


def _explained(
    inputs: FloatMatrix, answers: FloatMatrix, key: NDArray[np.int64], keys: int, rng: np.random.Generator
) -> FloatMatrix:
    """What trees predict of each row that have seen no row of its key."""
    from sklearn.ensemble import ExtraTreesRegressor

    fold = rng.permutation(np.arange(keys) % FOLDS)[key]
    predicted = np.empty_like(answers)
    for number in range(FOLDS):
        inside = fold == number
        if inside.all() or not inside.any():
            predicted[inside] = answers.mean(axis=0)
            continue
        trees = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF_ROWS, random_state=0)
        trees.fit(inputs[~inside], answers[~inside] if answers.shape[1] > 1 else answers[~inside, 0])
        predicted[inside] = trees.predict(inputs[inside]).reshape(-1, answers.shape[1])
    return predicted
