"""The domain classifier: trees that tell the two sides apart, and the density ratio that follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from advisor.dataset import Features
from advisor.facts.shift.samples import Numbers

FOLDS = 3
"""Cross-fitting of the domain classifier: each row is judged by trees that did not see it."""
TREES, LEAF_ROWS = 50, 10
"""Extremely randomized trees (Geurts et al. 2006), on one thread: boosting waits
for its threads on a busy machine."""
CROSS_FITTED = 2.0
"""Variance of the cross-fitted statistic over that of independent rows: each pair of rows counts twice, once
with either of them in training (exact for a classifier that is a mean over a kernel)."""
CONFIDENCE_Z = 1.96


@dataclass(frozen=True)
class Domain:
    """The domain classifier: its cross-validated AUC with a 95 % interval, p,
    and the old rows' density ratios.

    calibration: log-odds of a row being new, as a line in the log-odds that the trees give (Platt 1999).
    """

    auc: float
    low: float
    high: float
    p: float
    ratios: Numbers
    models: tuple[Any, ...]
    calibration: Any


def domain_classifier(old: Features, new: Features) -> Domain:
    """Randomized trees that tell the sides apart, cross-fitted; the AUC is the mean over the folds.

    p is that of the Mann-Whitney statistic with its variance times CROSS_FITTED;
    the interval is DeLong's with the same.
    """
    from scipy.stats import norm
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression

    matrix = np.concatenate([old.for_trees(), new.for_trees()])
    label = np.repeat([0, 1], [len(old), len(new)])
    # both sides weigh the same, so that p / (1 - p) is the density ratio
    weight = np.where(label == 1, len(label) / (2 * len(new)), len(label) / (2 * len(old)))
    rng = np.random.default_rng(0)
    fold = np.concatenate([rng.permutation(np.arange(count) % FOLDS) for count in (len(old), len(new))])
    probability = np.empty(len(label))
    models: list[Any] = []
    areas: list[float] = []
    nulls: list[float] = []
    variances: list[float] = []
    for number in range(FOLDS):
        inside, outside = fold == number, fold != number
        model = ExtraTreesClassifier(TREES, min_samples_leaf=LEAF_ROWS, random_state=0)
        models.append(model.fit(matrix[outside], label[outside], sample_weight=weight[outside]))
        probability[inside] = model.predict_proba(matrix[inside])[:, 1]
        area, null, variance = _area(probability[inside & (label == 0)], probability[inside & (label == 1)])
        areas.append(area)
        nulls.append(null)
        variances.append(variance)
    auc = sum(areas) / FOLDS
    null = math.sqrt(CROSS_FITTED * sum(nulls)) / FOLDS
    error = CONFIDENCE_Z * math.sqrt(CROSS_FITTED * sum(variances)) / FOLDS
    p = float(norm.sf((auc - 0.5) / null))
    # randomized trees are far too unsure: their odds alone would call rows alike that have nothing in common
    calibration = LogisticRegression().fit(_log_odds(probability), label, sample_weight=weight)
    ratios = density_ratio(probability[label == 0], calibration)
    return Domain(auc, max(auc - error, 0.0), min(auc + error, 1.0), p, ratios, tuple(models), calibration)


def _area(old: Numbers, new: Numbers) -> tuple[float, float, float]:
    """Area under the ROC curve, its variance when the sides are equal, and DeLong's variance."""
    from scipy.stats import rankdata

    m, n = len(old), len(new)
    ranks = rankdata(np.concatenate([old, new]))
    above = (ranks[m:] - rankdata(new)) / m  # per new row the share of old rows below it
    below = 1 - (ranks[:m] - rankdata(old)) / n
    variance = float(below.var(ddof=1)) / m + float(above.var(ddof=1)) / n
    return float(above.mean()), (m + n + 1) / (12 * m * n), variance


def _log_odds(probability: Numbers) -> Numbers:
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)  # a leaf of one side alone
    return np.log(clipped / (1 - clipped))[:, None]


def density_ratio(probability: Numbers, calibration: Any) -> Numbers:
    """Density ratio new / old."""
    return np.asarray(np.exp(np.clip(calibration.decision_function(_log_odds(probability)), -50, 50)))
