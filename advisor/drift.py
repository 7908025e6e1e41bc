"""Whether the level of a target at the latest times says more of what follows than its mean so far."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from advisor.features import LATEST_SHARE, Features

COLUMNS, LEVELS, CLIP = 300, 10, 3.0
"""What the other columns say is fitted to so many, those that vary most with the target, of each category's commonest levels
and of numbers clipped at so many standard deviations."""
CUTS, FIRST_CUT = 20, 1 / 3
"""Cuts between times, about equally spread over the rows from this share of them on."""


def latest_to_mean(times: NDArray[np.int64], target: NDArray[np.float64]) -> float | None:
    """The squared error with which the level at the latest times foretells that of all later rows, over that of the mean so far.

    times: (rows,), in any order. target: (rows, numbers), such as what is left ``unexplained`` of it. At each cut the
    latest times are those of the last LATEST_SHARE of the rows before it, as ``time_trend`` "held" has it.
    None: fewer than two cuts, or a mean that never errs.
    """
    order = np.argsort(times, kind="stable")
    times, rows = times[order], len(times)
    starts = np.flatnonzero(np.diff(times)) + 1
    next_start = np.searchsorted(starts, np.linspace(FIRST_CUT, 1, CUTS, endpoint=False) * rows)
    cuts = np.unique(starts[next_start[next_start < len(starts)]])
    if len(cuts) < 2:
        return None
    latest = np.searchsorted(times, times[np.ceil((1 - LATEST_SHARE) * (cuts - 1)).astype(np.int64)])
    sums = np.concatenate([np.zeros((1, target.shape[1])), np.cumsum(target[order], axis=0)])

    def mean(begin: NDArray[np.int64] | int, end: NDArray[np.int64] | int) -> NDArray[np.float64]:
        return np.asarray((sums[end] - sums[begin]) / np.reshape(np.subtract(end, begin), (-1, 1)))

    def error(forecast: NDArray[np.float64]) -> float:
        return float(np.square(forecast - mean(cuts, rows)).sum())

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratio = np.float64(error(mean(latest, cuts))) / error(mean(0, cuts))
    return float(ratio) if np.isfinite(ratio) else None


def unexplained(features: Features, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a ridge regression on all columns but the time leaves of a target (rows, numbers)."""
    rest = target - target.mean(axis=0)
    columns = _columns(features)
    said = np.abs(columns.T @ rest).sum(axis=1)
    columns = columns[:, np.argsort(-said, kind="stable")[:COLUMNS]]
    weights = np.linalg.solve(columns.T @ columns + np.eye(columns.shape[1]), columns.T @ rest)
    return np.asarray(rest - columns @ weights)


def _columns(features: Features) -> NDArray[np.float64]:
    """Standardized numbers, the mean where they are missing, and the commonest levels; (rows, columns), of mean 0."""
    numbers = features.numeric[:, [name not in features.trend for name in features.numeric_names]]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a column may be empty
        scaled = (numbers - np.nanmean(numbers, axis=0)) / np.nanstd(numbers, axis=0)
    parts = [np.clip(np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0), -CLIP, CLIP)]
    for codes in features.categorical.T:
        levels, counts = np.unique(codes, return_counts=True)
        parts.append(codes[:, None] == levels[np.argsort(-counts, kind="stable")[:LEVELS]])
    columns = np.concatenate(parts, axis=1, dtype=np.float64)
    return np.asarray(columns - columns.mean(axis=0))
