"""How much of a blend trees are: chosen on held-out rows, and shrunk towards the networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Features, Signals
from advisor.evaluation.baselines import matrix_of
from advisor.evaluation.trees.boosted import BoostedTrees, mean_scores
from advisor.tasks import Scores, Task, weighted

SHARES = np.linspace(0.0, 1.0, 21)
"""Those that are tried."""
SHARE_DEVIATION = 0.25
"""Standard deviation of the share beforehand, normal about 0. Few held-out rows, which say little, then leave
the networks most of it; chosen on parts of the training rows of eight tables (``benchmarks/trees.py``)."""
PARTS = 5
"""Each part of the rows has the share that the others choose, as new rows will."""
SMALLEST_LOSS = 1e-300
"""Of numbers that are predicted exactly: their logarithm must be a number."""


@dataclass(frozen=True, repr=False)
class TreePart:
    """The trees of a model: the average of several fits, and their share of its predictions.
    columns: of the rows that they are asked for, categories included."""

    fits: tuple[BoostedTrees, ...]
    share: float
    columns: int

    def blended(
        self, networks: NDArray[np.float64], features: Features | Signals, classes: int
    ) -> NDArray[np.float64]:
        """The networks' scores of some rows, averaged with the trees'."""
        trees = mean_scores(self.fits, matrix_of(features), classes)
        return averaged_scores(networks, trees, self.share)


@dataclass(frozen=True)
class ChosenShare:
    """share: that all rows choose. by_row: (rows,), of each row that which other rows choose."""

    share: float
    by_row: NDArray[np.float64]


def choose_share(
    task: Task,
    target: NDArray[Any],
    networks: Scores,
    trees: Scores,
    weights: NDArray[np.float64] | None = None,
    blocks: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> ChosenShare:
    """Of trees in a blend, by the scores of rows that neither saw.

    weights: as in ``Dataset``. blocks: which rows are alike, and so choose together; None: each by itself.
    """
    blends = (averaged_scores(networks, trees, share) for share in SHARES)
    costs = np.stack([weighted(task.row_losses(target, blend), weights) for blend in blends])
    codes = np.arange(len(target)) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    parts = np.random.default_rng(seed).permutation(int(codes.max()) + 1)[codes] % PARTS
    by_row = np.zeros(len(target))
    for part in np.unique(parts):
        others = parts != part
        by_row[~others] = _best(task, costs[:, others]) if others.any() else 0.0
    return ChosenShare(_best(task, costs), by_row)


def averaged_scores(networks: Scores, trees: Scores, share: float | NDArray[np.float64]) -> Scores:
    """The average of both. share: of the trees, one for all rows or (rows,)."""
    if isinstance(share, np.ndarray) and networks.ndim > 1:
        share = share[:, None]
    return (1 - share) * networks + share * trees


def _best(task: Task, costs: NDArray[np.float64]) -> float:
    """The most probable share. costs: (shares, rows) losses.

    Log losses are likelihoods; of numbers the error's size is unknown, and taken out (a normal error).
    """
    rows, means = costs.shape[1], costs.mean(axis=1)
    fit = rows * means if task.of_classes else rows / 2 * np.log(np.maximum(means, SMALLEST_LOSS))
    return float(SHARES[int(np.argmin(fit + (SHARES / SHARE_DEVIATION) ** 2 / 2))])
