"""What a network has to beat, on the same rows: the majority or the mean, a linear model, boosted trees."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset, Features, Signals
from advisor.evaluation.signal_baselines import OWN_BASELINES

RARE_LEVEL = 5
"""Levels with fewer training rows share one column of the linear model."""
MOST_LEVELS = 100
"""Columns that one categorical column may take in the linear model."""
TREE_LEVELS = 255
"""HistGradientBoosting takes at most this many levels; a column with more is given to it as a number."""

SIGNAL_NUMBERS = 256
"""Images and sequences are averaged down to about this many numbers per row before a baseline sees them."""

Baselines = dict[str, Callable[[Features | Signals], NDArray[np.float64]]]
"""By name: features -> probabilities (rows, classes) or predictions (rows,)."""
ROW_BASELINES = ("majority or mean", "linear", "gradient boosting")
"""Those that rows of any kind with one class or number have."""
PROBED_ITERATIONS = (1, 4)
"""Of boosting, from whose times that of all is predicted: what is done once, and what each of them takes."""


def expected_seconds(train: Dataset) -> float:
    """What ``fit_row_baselines`` is expected to take: boosting, in proportion to its first
    iterations; the others take little."""
    trees, matrix = boosting(train), _without_empty(train.features)
    times = []
    for iterations in PROBED_ITERATIONS:
        begun = time.perf_counter()
        trees.set_params(max_iter=iterations, early_stopping=False).fit(matrix, train.target)
        times.append(time.perf_counter() - begun)
    each = max(0.0, (times[1] - times[0]) / (PROBED_ITERATIONS[1] - PROBED_ITERATIONS[0]))
    return times[0] + each * (int(boosting(train).max_iter) - PROBED_ITERATIONS[0])


def fit_row_baselines(train: Dataset, seed: int = 0, until: float | None = None) -> Baselines:
    """Each baseline fitted on all training rows, as a function: features -> probabilities or predictions.

    until: on time.monotonic's clock; a baseline that is expected to take longer is left out.

    Scikit-learn's estimators at their defaults: DummyClassifier or DummyRegressor, LogisticRegression or
    Ridge on scaled and one-hot columns, HistGradientBoosting. Images and sequences are averaged down to
    SIGNAL_NUMBERS numbers for these, and have one of their own besides (``signal_baselines``).
    """
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    of_classes = train.task.of_classes
    constant = DummyClassifier(strategy="prior") if of_classes else DummyRegressor()
    linear = LogisticRegression(max_iter=1000) if of_classes else Ridge()
    fitted = {"majority or mean": _fitted(constant, train)}
    if until is None or time.monotonic() < until:
        fitted["linear"] = _fitted(
            make_pipeline(_linear_inputs(train.features.as_table(SIGNAL_NUMBERS)), linear), train
        )
    own = OWN_BASELINES.get(train.features.kind)
    if own is not None and (until is None or time.monotonic() < until):
        name, scores = own(train, seed)
        fitted[name] = scores
    if until is None or (time.monotonic() < until and time.monotonic() + expected_seconds(train) < until):
        fitted["gradient boosting"] = _fitted(boosting(train, seed), train)
    return fitted


def boosting(train: Dataset, seed: int = 0) -> Any:
    """HistGradientBoosting at its defaults for such rows, not fitted yet. It takes ``matrix_of`` their
    features, and fails on columns without a number."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    table = train.features.as_table(SIGNAL_NUMBERS)
    first = table.numeric.shape[1]
    as_categories = [first + j for j, own in enumerate(table.levels) if len(own) < TREE_LEVELS]
    kind = HistGradientBoostingClassifier if train.task.of_classes else HistGradientBoostingRegressor
    return kind(random_state=seed, categorical_features=as_categories)


def _linear_inputs(features: Features) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric, categorical = features.numeric.shape[1], features.categorical.shape[1]
    one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=RARE_LEVEL, max_categories=MOST_LEVELS)
    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    steps = [
        ("numbers", numbers, slice(0, numeric)),
        ("categories", one_hot, slice(numeric, numeric + categorical)),
    ]
    # scikit-learn refuses a step without columns
    return ColumnTransformer(
        [step for step, count in zip(steps, (numeric, categorical), strict=True) if count]
    )


def _fitted(estimator: Any, train: Dataset) -> Callable[[Features | Signals], NDArray[np.float64]]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    matrix = matrix_of(train.features)
    empty = _empty(matrix)

    with warnings.catch_warnings():
        # a linear model that stops at its iteration limit is a fair baseline
        # still; the warning is not for the user
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(np.where(empty, 0.0, matrix), train.target)

    def scores(features: Features | Signals) -> NDArray[np.float64]:
        matrix = np.where(empty, 0.0, matrix_of(features))
        if not train.task.of_classes:
            return np.asarray(estimator.predict(matrix), dtype=np.float64)
        result = np.zeros((len(features), len(train.classes)))
        result[:, estimator.classes_] = estimator.predict_proba(matrix)
        return result

    return scores


def _empty(matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Columns without a number, on which HistGradientBoosting fails."""
    return np.asarray(np.isnan(matrix).all(axis=0))


def _without_empty(features: Features | Signals) -> NDArray[np.float64]:
    matrix = matrix_of(features)
    return np.where(_empty(matrix), 0.0, matrix)


def matrix_of(features: Features | Signals) -> NDArray[np.float64]:
    """Numbers, then category codes with what is missing or unseen as NaN, (rows, columns)."""
    table = features.as_table(SIGNAL_NUMBERS)
    codes = table.categorical.astype(np.float64)
    codes[codes < 0] = np.nan
    return np.concatenate([table.numeric, codes], axis=1)
