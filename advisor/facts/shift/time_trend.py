"""Whether holding the time at the latest ones pays: tried on cuts through the
training rows, with linear models."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import LATEST_SHARE, Features

Array = NDArray[np.float64]

CUTS, FIRST_CUT, AHEAD = 8, 1 / 3, 0.25
"""This many cuts between times, about equally spread over the rows from this share of them on; after each, a
quarter as many rows as lie before it are foretold, as the latest fifth of all is where it validates."""
COLUMNS, LEVELS, CLIP = 300, 10, 3.0
"""The models read this many columns, those that vary most with the target: numbers clipped at this many
standard deviations, and of each category its commonest levels."""


def held_to_none(features: Features, times: NDArray[np.int64], target: Array) -> float | None:
    """The squared error, on the rows that follow cuts, of ridge regressions that
    read the time / of those that do not.

    Rows after a cut are read as of the latest times before it (``time_trend`` "clamped").
    times: (rows,), in any order.
    target: (rows, numbers), a regression target or 0 and 1 for each class. None: all
        rows are of one time, or nothing errs.
    """
    order = np.argsort(times, kind="stable")
    rows, columns, target = len(order), _columns(features, target)[order], target[order]
    moments = features.numeric[order][:, [features.numeric_names.index(name) for name in features.trend]]
    starts = np.flatnonzero(np.diff(times[order])) + 1
    next_start = np.searchsorted(starts, np.linspace(FIRST_CUT, 1, CUTS, endpoint=False) * rows)
    cuts = np.unique(starts[next_start[next_start < len(starts)]])
    held = none = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for cut in cuts.tolist():
            end = min(rows, cut + max(1, round(AHEAD * cut)))
            with_time, without = _errors(columns[:end], _held(moments[:end], cut), target[:end], cut)
            held, none = held + with_time, none + without
    return held / none if none > 0 and np.isfinite(held) and np.isfinite(none) else None


def _errors(columns: Array, moments: Array, target: Array, cut: int) -> tuple[float, float]:
    """The mean squared errors of the rows from ``cut`` on, with the moments and
    without; models of the rows before it."""
    answers = target - target[:cut].mean(axis=0)
    inputs = np.hstack([columns - columns[:cut].mean(axis=0), moments])
    squares, products = (
        inputs[:cut].T @ inputs[:cut] + np.eye(inputs.shape[1]),
        inputs[:cut].T @ answers[:cut],
    )

    def error(width: int) -> float:
        weights = np.linalg.solve(squares[:width, :width], products[:width])
        return float(np.square(answers[cut:] - inputs[cut:, :width] @ weights).sum(axis=1).mean())

    return error(inputs.shape[1]), error(inputs.shape[1] - moments.shape[1])


def _held(moments: Array, cut: int) -> Array:
    """The time's columns, at most those of the latest rows before the cut,
    standardized by the rows before it."""
    if np.isnan(moments).any():  # a time that is missing is the earliest there is
        moments = np.where(np.isnan(moments), np.nanmin(moments, axis=0), moments)
    latest = np.quantile(moments[:cut], 1 - LATEST_SHARE, axis=0, method="higher")
    held, spread = np.minimum(moments, latest), moments[:cut].std(axis=0)
    return np.asarray((held - held[:cut].mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _columns(features: Features, target: Array) -> Array:
    """What is read beside the time, (rows, columns): standardized numbers, the mean
    where they are missing, and levels."""
    numbers = features.numeric[:, [name not in features.trend for name in features.numeric_names]]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a column may be empty
        scaled = (numbers - np.nanmean(numbers, axis=0)) / np.nanstd(numbers, axis=0)
    parts = [np.clip(np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0), -CLIP, CLIP)]
    for codes in features.categorical.T:
        levels, counts = np.unique(codes, return_counts=True)
        parts.append(codes[:, None] == levels[np.argsort(-counts, kind="stable")[:LEVELS]])
    columns = np.concatenate(parts, axis=1, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        varies = np.abs((columns - columns.mean(axis=0)).T @ (target - target.mean(axis=0))).sum(axis=1)
    return columns[:, np.argsort(-varies, kind="stable")[:COLUMNS]]
