"""Losses row by row: cross-entropy for classification (N1), squared error for regression (N2). NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Task

SMALLEST_PROBABILITY = 1e-12
"""Probabilities are not taken below this: a single certain and wrong prediction
would make every mean infinite."""


def row_losses(task: Task, target: NDArray[Any], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loss of each row, shape (rows,).

    Classification: ``target`` holds class codes, ``scores`` probabilities (rows, classes); nats. Regression:
    ``scores`` holds predictions (rows,); the target's unit squared.
    """
    if task == "regression":
        return np.asarray(np.square(scores - target), dtype=np.float64)
    chosen = scores[np.arange(len(target)), target]
    return np.asarray(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0)), dtype=np.float64)


def weighted(losses: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Losses (rows,) whose plain mean is their weighted one; no weights leave them as they are."""
    return losses if weights is None else np.asarray(losses * weights / weights.mean())


def loss_name(task: Task) -> str:
    """What the numbers are, for people."""
    return "mean squared error" if task == "regression" else "log loss"
