"""Trees fitted as the networks were trained: on the training rows of each split, asked for the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.evaluation.baselines import boosting, expected_seconds, matrix_of
from advisor.evaluation.trees.boosted import BoostedTrees
from advisor.splits import Split
from advisor.tasks import averaged_by_row

LOSSES = {"mean_absolute_error": "absolute_error", "quantile": "quantile"}
"""What scikit-learn calls the losses of a number that a metric asks for."""


@dataclass(frozen=True)
class HeldOutTrees:
    """A fit for each split, the rows that any of them held out, ascending, and the mean score of each."""

    fits: tuple[BoostedTrees, ...]
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


def trees_of(train: Dataset, seed: int, rows: NDArray[np.int64] | None = None) -> BoostedTrees:
    """Boosted trees of these rows, by default of all. Weights of training count, and the loss is the task's.

    They are the baseline's: HistGradientBoosting at its defaults, which stops early above 10,000 rows.
    """
    own = train if rows is None else train.part(rows)
    if own.task.of_classes and len(np.unique(own.target)) == 1:
        return BoostedTrees.constant(int(own.target[0]))
    estimator, matrix = boosting(own, seed), matrix_of(own.features)
    if (loss := LOSSES.get(own.task.loss)) is not None:
        quantile = {"quantile": own.task.quantile} if loss == "quantile" else {}
        estimator.set_params(loss=loss, **quantile)
    # columns without a number, on which scikit-learn fails, become constants, which no node asks
    matrix = np.where(np.isnan(matrix).all(axis=0), 0.0, matrix)
    return BoostedTrees.of(estimator.fit(matrix, own.target, sample_weight=own.training_weights))


def held_out_trees(
    train: Dataset, splits: Sequence[Split], seed: int, until: float | None = None
) -> HeldOutTrees | None:
    """Trees for each split; None where all are expected to end, or end, after ``until`` (on
    time.monotonic's clock)."""
    if until is not None and time.monotonic() + len(splits) * expected_seconds(train) > until:
        return None
    fits, scores, matrix = [], [], matrix_of(train.features)
    for split in splits:
        if until is not None and time.monotonic() > until:
            return None
        fits.append(trees_of(train, seed, split.train))
        scores.append(fits[-1].scores(matrix[split.validation], len(train.classes)))
    rows, mean = averaged_by_row(train.task, [split.validation for split in splits], scores)
    return HeldOutTrees(tuple(fits), rows, mean)
