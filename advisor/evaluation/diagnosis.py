"""Where predictions are wrong: confusions and calibration of classes, residuals of
numbers. Pure NumPy, bounded sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.tasks import TargetKind, Task

MOST_CLASSES = 20
BINS = 10
RESIDUAL_BINS = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
OUTER, OUTLYING = (0.01, 0.99), 6.0
"""A histogram ends at these quantiles where all rows span so many times what the inner nine tenths do."""


def diagnose(
    task: Task, classes: int, target: NDArray[Any], scores: NDArray[np.float64], chosen: NDArray[Any]
) -> dict[str, Any]:
    """What the report draws of the test rows.
    chosen: the prediction for each, as the task decides by the scores."""
    return DIAGNOSES[task.target](classes, target, scores, chosen)


def _of_classes(
    classes: int, target: NDArray[Any], scores: NDArray[np.float64], chosen: NDArray[Any]
) -> dict[str, Any]:
    result: dict[str, Any] = {"calibration": calibration(target, scores)}
    if classes <= MOST_CLASSES:
        confusion = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(confusion, (target, chosen), 1)
        result["confusion"] = confusion.tolist()
    return result


def calibration(target: NDArray[Any], scores: NDArray[np.float64]) -> dict[str, Any]:
    """Reliability of the probability that each row's most likely class got: bins
    of equal width, and their mean gap.

    expected_error: the mean over rows of |share that was right - probability| of the row's bin.
    """
    likely = scores.argmax(axis=1)
    probability, right = scores.max(axis=1), (likely == target).astype(np.float64)
    place = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
    rows = np.bincount(place, minlength=BINS)
    said, was = (np.bincount(place, weights=values, minlength=BINS) for values in (probability, right))
    filled = np.flatnonzero(rows)
    bins = [
        {"rows": int(rows[i]), "probability": float(said[i] / rows[i]), "right": float(was[i] / rows[i])}
        for i in filled
    ]
    error = sum(b["rows"] * abs(b["right"] - b["probability"]) for b in bins) / max(1, len(target))
    return {"bins": bins, "expected_error": float(error)}


def residuals(target: NDArray[Any], scores: NDArray[np.float64]) -> dict[str, Any]:
    """Quantiles of prediction minus truth, and a histogram of all rows.

    With far outliers it ends at the outer percents; ``below`` and ``above`` count the rows beyond, ``least``
    and ``most`` are the ends of all.
    """
    missed = scores - target
    quantiles = [float(q) for q in np.quantile(missed, QUANTILES)]
    result: dict[str, Any] = {"residual_quantiles": quantiles}
    least, most = float(missed.min()), float(missed.max())
    low, high = least, most
    if high - low > OUTLYING * (quantiles[-1] - quantiles[0]):
        low, high = (float(q) for q in np.quantile(missed, OUTER))
    if np.isfinite(high - low) and high - low > 1e-9 * max(abs(low), abs(high)):
        inner = missed[(missed >= low) & (missed <= high)]
        counts = np.histogram(inner, bins=RESIDUAL_BINS, range=(low, high))[0]
        result["residual_histogram"] = {
            "low": low,
            "high": high,
            "counts": counts.tolist(),
            "below": int((missed < low).sum()),
            "above": int((missed > high).sum()),
            "least": least,
            "most": most,
        }
    return result


DIAGNOSES: Mapping[TargetKind, Callable[..., dict[str, Any]]] = {
    "class": _of_classes,
    "number": lambda classes, target, scores, chosen: residuals(target, scores),
}
"""By the kind of the target: (classes, target, scores, predictions) -> what the report draws."""
