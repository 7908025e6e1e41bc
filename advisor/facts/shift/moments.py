"""Means, squares and products of the inputs, compared by shuffling which side a row is on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Features

PERMUTATIONS = 499
"""Labels are shuffled so often for the moments; their smallest p is 0.002, a tenth of their ALPHA."""
MOMENT_WIDTH = 60
"""Products of columns are taken among at most this many inputs; of more, among this many principal
components."""
ONE_HOT_LEVELS = 10
"""The moments see this many levels of a categorical column, the most frequent ones."""


def moments_p(old: Features, new: Features) -> float:
    """p of equal means, equal squares and equal products of the inputs, by shuffling which side a row is on.

    Inputs are normal scores, so outliers do not decide. Three statistics, each
    the squared length of a difference of
    means: of the whitened inputs (Hotelling's T-squared, the score test of a linear domain classifier), of
    their squares, of their pairwise products. The smallest of the three ranks is compared with the same of
    every shuffle: exact whatever the inputs' distribution.
    """
    inputs = _standardized(np.concatenate([_normal_scores(old, new), _indicators(old, new)], axis=1))
    if not inputs.shape[1]:
        return 1.0
    white = _components(inputs, min(inputs.shape[1], len(inputs) // 10), whiten=True)
    narrow = inputs if inputs.shape[1] <= MOMENT_WIDTH else _components(inputs, MOMENT_WIDTH, whiten=False)
    left, right = np.triu_indices(narrow.shape[1], k=1)
    side = np.repeat(np.array([-1 / len(old), 1 / len(new)], np.float32), [len(old), len(new)])
    rng = np.random.default_rng(0)
    sides = np.column_stack([side, *(rng.permutation(side) for _ in range(PERMUTATIONS))])
    blocks = [white, _standardized(narrow**2)]
    if len(left):
        blocks.append(_standardized(narrow[:, left] * narrow[:, right]))
    statistics = np.stack([np.square(block.T @ sides).sum(axis=0) for block in blocks if block.shape[1]])
    # rank p of every column of labels, the true one among them; ties count against it
    ordered = np.sort(statistics, axis=1)
    above = [
        len(own) - np.searchsorted(order, own, "left") for order, own in zip(ordered, statistics, strict=True)
    ]
    smallest = np.min(above, axis=0)
    return float((smallest <= smallest[0]).mean())


def _normal_scores(old: Features, new: Features) -> NDArray[np.float32]:
    """Numbers by their rank among both sides' rows, with a normal distribution; missing ones at 0."""
    from scipy.stats import norm, rankdata

    numbers = np.concatenate([old.numeric, new.numeric])
    scores = np.zeros(numbers.shape, np.float32)
    for position in range(numbers.shape[1]):
        filled = np.isfinite(numbers[:, position])
        ranks = rankdata(numbers[filled, position])
        scores[filled, position] = norm.ppf(ranks / (len(ranks) + 1))
    return scores


def _indicators(old: Features, new: Features) -> NDArray[np.float32]:
    """What is missing, and the most frequent levels, as columns of 0 and 1."""
    numbers, codes = (
        np.concatenate([old.numeric, new.numeric]),
        np.concatenate([old.categorical, new.categorical]),
    )
    columns = [~np.isfinite(numbers)]
    for position in range(codes.shape[1]):
        values, counts = np.unique(codes[:, position], return_counts=True)
        frequent = values[np.argsort(-counts, kind="stable")[:ONE_HOT_LEVELS]]
        columns.append(codes[:, position, None] == frequent)
    return np.concatenate(columns, axis=1).astype(np.float32)


def _standardized(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns with mean 0 and deviation 1; those that do not vary are left out."""
    centred = matrix - matrix.mean(axis=0)
    deviation = centred.std(axis=0)
    varies = deviation > 1e-6  # float32 rounding
    return np.asarray(centred[:, varies] / deviation[varies])


def _components(matrix: NDArray[np.float32], count: int, *, whiten: bool) -> NDArray[np.float32]:
    """The first principal components of both sides together, each with deviation 1 when ``whiten``."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix / len(matrix))
    kept = np.flatnonzero(values > 1e-4)[::-1][
        :count
    ]  # directions that do not vary but for rounding are left out
    scale = np.sqrt(values[kept]) if whiten else 1.0
    return np.asarray(matrix @ (vectors[:, kept] / scale).astype(np.float32))
