"""Where predictions are wrong: confusions, calibration and curves of classes, residuals of numbers.
Bounded sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.documents import UNSET, Unset
from advisor.evaluation.judgement import (
    Calibration,
    CalibrationBin,
    ClassScores,
    Diagnosis,
    OperatingPoint,
    ResidualHistogram,
    ThresholdCurves,
)

MOST_CLASSES = 20
MOST_POINTS = 60
"""Of a curve that is drawn."""
MOST_PAIRS = 1000
"""Rows of predicted against true values that are drawn."""
BINS = 10
RESIDUAL_BINS = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
OUTER, OUTLYING = (0.01, 0.99), 6.0
"""A histogram ends at these quantiles where all rows span this many times what the inner nine tenths do."""


def class_diagnosis(
    classes: int, target: NDArray[Any], scores: NDArray[np.float64], chosen: NDArray[Any]
) -> Diagnosis:
    """Of rows with one class each: calibration; of few enough classes confusions and curves."""
    found = Diagnosis(calibration=calibration(target, scores))
    if classes <= MOST_CLASSES:
        confusion = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(confusion, (target, chosen), 1)
        found = replace(
            found, confusion=tuple(map(tuple, confusion.tolist())), per_class=tuple(per_class(confusion))
        )
    if classes == 2 and 0 < target.sum() < len(target):
        rare = int(np.bincount(target, minlength=2).argmin())
        curves = threshold_curves(target == rare, scores[:, rare], chosen == rare, rare)
        found = replace(found, curves=curves)
    return found


def per_class(confusion: NDArray[np.int64]) -> list[ClassScores]:
    """Precision, recall and F1 of each class; None where no row was predicted, or true, to say."""
    found = []
    for code in range(len(confusion)):
        hits, said = int(confusion[code, code]), int(confusion[:, code].sum())
        true = int(confusion[code].sum())
        found.append(
            ClassScores(
                rows=true,
                precision=hits / said if said else None,
                recall=hits / true if true else None,
                f1=2 * hits / (said + true) if said + true else None,
            )
        )
    return found


def threshold_curves(
    positive: NDArray[np.bool_], probability: NDArray[np.float64], chosen: NDArray[np.bool_], code: int
) -> ThresholdCurves:
    """ROC and precision-recall of one class (``code``) against the rest, thinned to ``MOST_POINTS``, and
    where the predictions stand on them."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    false, true, _ = roc_curve(positive, probability)
    precision, recall, _ = precision_recall_curve(positive, probability)
    hits, said = int((positive & chosen).sum()), int(chosen.sum())
    return ThresholdCurves(
        roc=_thinned(false, true),
        pr=_thinned(recall[::-1], precision[::-1]),
        roc_auc=float(roc_auc_score(positive, probability)),
        average_precision=float(average_precision_score(positive, probability)),
        share=float(positive.mean()),
        at=OperatingPoint(
            false_positive_rate=float((chosen & ~positive).sum() / (~positive).sum()),
            recall=hits / int(positive.sum()),
            precision=hits / said if said else None,
        ),
        class_=code,
    )


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """At most ``MOST_POINTS`` of the points of a curve, both ends among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
    return tuple((round(float(x[i]), 4), round(float(y[i]), 4)) for i in kept)


def calibration(target: NDArray[Any], scores: NDArray[np.float64]) -> Calibration:
    """Reliability of the probability that each row's most likely class got: bins
    of equal width, and their mean gap."""
    likely = scores.argmax(axis=1)
    probability, right = scores.max(axis=1), (likely == target).astype(np.float64)
    place = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
    rows = np.bincount(place, minlength=BINS)
    said, was = (np.bincount(place, weights=values, minlength=BINS) for values in (probability, right))
    filled = np.flatnonzero(rows)
    bins = [CalibrationBin(int(rows[i]), float(said[i] / rows[i]), float(was[i] / rows[i])) for i in filled]
    error = sum(b.rows * abs(b.right - b.probability) for b in bins) / max(1, len(target))
    return Calibration(tuple(bins), float(error))


def residuals(target: NDArray[Any], scores: NDArray[np.float64]) -> Diagnosis:
    """Quantiles of prediction minus truth, and a histogram of all rows; with far outliers it ends at the
    outer percents. There is none where nearly all residuals are one."""
    missed = scores - target
    lower, quarter, middle, upper_quarter, upper = (float(q) for q in np.quantile(missed, QUANTILES))
    histogram: ResidualHistogram | Unset = UNSET
    least, most = float(missed.min()), float(missed.max())
    low, high = least, most
    if high - low > OUTLYING * (upper - lower):
        low, high = (float(q) for q in np.quantile(missed, OUTER))
    if np.isfinite(high - low) and high - low > 1e-9 * max(abs(low), abs(high)):
        inner = missed[(missed >= low) & (missed <= high)]
        counts = np.histogram(inner, bins=RESIDUAL_BINS, range=(low, high))[0]
        below, above = int((missed < low).sum()), int((missed > high).sum())
        histogram = ResidualHistogram(low, high, tuple(counts.tolist()), below, above, least, most)
    quantiles = (lower, quarter, middle, upper_quarter, upper)
    return Diagnosis(residual_quantiles=quantiles, pairs=_pairs(target, scores), residual_histogram=histogram)


def _pairs(target: NDArray[Any], scores: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """(truth, prediction) of rows spread evenly over the order of the truth, and of the largest errors."""
    spread = np.argsort(target, kind="stable")[
        np.unique(np.linspace(0, len(target) - 1, min(len(target), MOST_PAIRS - 20)).round().astype(int))
    ]
    kept = np.union1d(spread, np.argsort(-np.abs(scores - target), kind="stable")[:20])
    return tuple((float(target[i]), float(scores[i])) for i in kept)


def number_diagnosis(
    classes: int, target: NDArray[Any], scores: NDArray[np.float64], chosen: NDArray[Any]
) -> Diagnosis:
    """Of rows with one number each: their residuals."""
    return residuals(target, scores)
