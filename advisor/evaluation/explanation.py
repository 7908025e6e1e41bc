"""What a model uses and where it is worst: permutation importance, partial dependence, slices, occlusion.

Everything here calls ``predict`` (rows -> scores, as ``advisor.tasks`` has them) on rows that trained
nothing, and draws from a generator that was handed in. Sizes are bounded; ``until`` ends what would take
too long.
All but ``occlusion`` is for the rows of a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import MISSING, Dataset, Features, Signals
from advisor.evaluation.judgement import Dependence, Explanation, Importance, Slice
from advisor.tasks import Scores

Predict = Callable[[Features | Signals], Scores]

MOST_ROWS = 500
"""Rows that are asked about: a standard error of a few per cent of the spread, in a second or two."""
MOST_COLUMNS = 60
SHUFFLES = 3
QUANTILE = 1.645
"""Standard errors on each side of a 90 % interval."""
DRAWN_COLUMNS = 5
GRID = 12
"""Points of a partial dependence, at quantiles of the column."""
ROWS_A_POINT = 100
MOST_LEVELS = 12
"""Categories of a column that are drawn, or that a slice may name."""
DEPTH, FEWEST_IN_SLICE, SMALLEST_SHARE = 3, 20, 0.03
"""The tree on the losses is shallow, so that a slice can be read; a leaf holds at least this many rows, and
this share."""
MOST_SLICES = 3
PATCHES = 8
"""An image is covered by a patch at this many places along each side; a series at twice as many."""


def explain(
    data: Dataset, predict: Predict, rng: np.random.Generator, until: float | None = None
) -> Explanation:
    """Of a table's rows with a known target.

    until: on time.monotonic's clock; what is not done by then is left out.
    """
    if len(data) < 2:
        return Explanation(len(data))
    chosen = np.sort(rng.permutation(len(data))[:MOST_ROWS])
    asked = data.part(chosen)
    importances = tuple(permutation_importance(asked, predict, rng, until))
    drawn = [importance.name for importance in importances[:DRAWN_COLUMNS]]
    dependences = tuple(partial_dependence(asked, name, predict) for name in drawn if not _is_late(until))
    return Explanation(len(asked), importances, dependences, worst_slices(data, predict, rng))


def permutation_importance(
    data: Dataset, predict: Predict, rng: np.random.Generator, until: float | None = None
) -> list[Importance]:
    """The columns by how much the model needs them, the most needed first; at most ``MOST_COLUMNS``.

    Columns that say the same stand in for each other: each of them alone may look needless.
    """
    features = cast("Features", data.features)
    before = data.task.row_losses(data.target, predict(features))
    found = []
    for name in [*features.numeric_names, *features.categorical_names][:MOST_COLUMNS]:
        if _is_late(until):
            break
        rises = np.zeros(len(data))
        for _ in range(SHUFFLES):
            shuffled = _with_column(features, name, rng.permutation(len(data)))
            rises += (data.task.row_losses(data.target, predict(shuffled)) - before) / SHUFFLES
        mean, error = float(rises.mean()), float(rises.std(ddof=1) / np.sqrt(len(rises)))
        found.append(Importance(name, mean, mean - QUANTILE * error, mean + QUANTILE * error))
    return sorted(found, key=lambda importance: -importance.mean)


def partial_dependence(data: Dataset, name: str, predict: Predict) -> Dependence:
    """Mean prediction over the rows with the column set to each of its quantiles, or categories."""
    features = cast("Features", data.features)
    part = features.part(slice(0, ROWS_A_POINT))
    classes = data.classes[-1:] if len(data.classes) == 2 else data.classes[:MOST_LEVELS]
    if name in features.numeric_names:
        values = features.numeric[:, features.numeric_names.index(name)]
        there = values[np.isfinite(values)]
        grid = np.unique(np.quantile(there, np.linspace(0.02, 0.98, GRID))) if len(there) else np.zeros(0)
        points: list[tuple[float | str, float]] = [(float(value), float(value)) for value in grid]
    else:
        column = features.categorical_names.index(name)
        codes, counts = np.unique(features.categorical[:, column], return_counts=True)
        order = [int(code) for code in codes[np.argsort(-counts, kind="stable")] if code >= 0]
        points = [(features.levels[column][code], code) for code in order[:MOST_LEVELS]]
    means = _means_at([value for _, value in points], part, name, predict)
    if not data.classes:
        predicted = {"": tuple(float(mean) for mean in means)}
    else:
        predicted = {
            label: tuple(float(mean[data.classes.index(label)]) for mean in means) for label in classes
        }
    return Dependence(name, tuple(shown for shown, _ in points), predicted)


def _means_at(values: list[float], part: Features, name: str, predict: Predict) -> NDArray[np.float64]:
    """The mean prediction for each value of the column, (values,) or (values, classes); one call for all."""
    if not values:
        return np.zeros(0)
    rows = len(part.numeric)
    every = part.part(np.tile(np.arange(rows), len(values)))
    predicted = predict(_set_column(every, name, np.repeat(np.array(values), rows)))
    means: NDArray[np.float64] = predicted.reshape(len(values), rows, *predicted.shape[1:]).mean(axis=1)
    return means


def worst_slices(data: Dataset, predict: Predict, rng: np.random.Generator) -> tuple[Slice, ...]:
    """Where the loss is higher than overall beyond chance, the worst first: leaves of a shallow tree on the
    losses of half of the rows, judged on the other half."""
    from sklearn.tree import DecisionTreeRegressor

    features = cast("Features", data.features)
    fewest = max(FEWEST_IN_SLICE, int(SMALLEST_SHARE * len(data)))
    matrix, names = _readable(features)
    if len(data) < 4 * fewest or not names:
        return ()
    losses = data.task.row_losses(data.target, predict(features))
    order = rng.permutation(len(data))
    half, other = order[: len(order) // 2], order[len(order) // 2 :]
    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=fewest, random_state=0)
    tree.fit(matrix[half], losses[half])
    leaves, overall = tree.apply(matrix[other]), float(losses[other].mean())
    found = []
    for leaf, conditions in _leaves(tree.tree_, names):
        inside = losses[other[leaves == leaf]]
        if conditions and len(inside) >= FEWEST_IN_SLICE:
            error = float(inside.std(ddof=1) / np.sqrt(len(inside)))
            if float(inside.mean()) - overall > QUANTILE * error:
                found.append(Slice(conditions, len(inside), float(inside.mean()), overall, error))
    return tuple(sorted(found, key=lambda part: -part.loss)[:MOST_SLICES])


def occlusion(row: NDArray[Any], predict: Predict, output: int) -> NDArray[np.float64]:
    """Where an image or a series is looked at (Zeiler and Fergus 2014): how much the score falls when a
    patch is covered by the row's mean.

    row: (channels, height, width) or (channels, length); output: the class whose probability is watched.
    Shape (PATCHES, PATCHES) or (1, 2 x PATCHES); positive where covering lowers the probability.
    """
    size = row.shape[1:]
    counts = (PATCHES, PATCHES) if len(size) == 2 else (2 * PATCHES,)
    edges = [np.linspace(0, n, count + 1).astype(int) for n, count in zip(size, counts, strict=True)]
    mean = np.nanmean(row.astype(np.float64), axis=tuple(range(1, row.ndim)), keepdims=True)
    covered = [row]
    for place in np.ndindex(*counts):
        patch = tuple(slice(e[i], max(e[i + 1], e[i] + 1)) for e, i in zip(edges, place, strict=True))
        copy = row.copy()
        copy[(slice(None), *patch)] = mean.astype(row.dtype)
        covered.append(copy)
    scores = predict(Signals(np.stack(covered)))
    watched = scores[:, output] if scores.ndim == 2 else scores
    return np.asarray(watched[0] - watched[1:]).reshape(counts if len(counts) == 2 else (1, *counts))


def _is_late(until: float | None) -> bool:
    return until is not None and time.monotonic() > until


def _with_column(features: Features, name: str, rows: NDArray[np.int64]) -> Features:
    """The features with one column taken from other rows."""
    if name in features.numeric_names:
        column, numeric = features.numeric_names.index(name), features.numeric.copy()
        numeric[:, column] = numeric[rows, column]
        return replace(features, numeric=numeric)
    column, categorical = features.categorical_names.index(name), features.categorical.copy()
    categorical[:, column] = categorical[rows, column]
    return replace(features, categorical=categorical)


def _set_column(features: Features, name: str, values: NDArray[np.float64]) -> Features:
    """The features with other values, (rows,), in one column."""
    if name in features.numeric_names:
        numeric = features.numeric.copy()
        numeric[:, features.numeric_names.index(name)] = values
        return replace(features, numeric=numeric)
    categorical = features.categorical.copy()
    categorical[:, features.categorical_names.index(name)] = values.astype(categorical.dtype)
    return replace(features, categorical=categorical)


def _readable(features: Features) -> tuple[NDArray[np.float64], list[tuple[str, str | None]]]:
    """Columns that a user can read a threshold of: numbers (words of texts apart), categories one by one.

    Names are (column, None), or (column, category) of an indicator.
    """
    columns: list[NDArray[np.float64]] = []
    names: list[tuple[str, str | None]] = []
    for at, name in enumerate(features.numeric_names):
        if not features.word_columns[at]:
            values = features.numeric[:, at]
            there = values[np.isfinite(values)]
            columns.append(np.where(np.isfinite(values), values, np.median(there) if len(there) else 0.0))
            names.append((name, None))
    for at, name in enumerate(features.categorical_names):
        codes = features.categorical[:, at]
        levels, counts = np.unique(codes[codes > MISSING], return_counts=True)
        for code in levels[np.argsort(-counts, kind="stable")][:MOST_LEVELS]:
            columns.append((codes == code).astype(np.float64))
            names.append((name, features.levels[at][code]))
    return np.column_stack(columns) if columns else np.zeros((len(features), 0)), names


def _leaves(tree: Any, names: list[tuple[str, str | None]]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each leaf's number with the conditions that lead to it, bounds of one column merged."""
    stack: list[tuple[int, dict[tuple[str, str | None], tuple[float, float]]]] = [(0, {})]
    while stack:
        node, bounds = stack.pop()
        if tree.children_left[node] == tree.children_right[node]:
            yield node, tuple(_condition(name, *bound) for name, bound in bounds.items())
            continue
        name, cut = names[tree.feature[node]], float(tree.threshold[node])
        low, high = bounds.get(name, (-np.inf, np.inf))
        stack.append((int(tree.children_left[node]), {**bounds, name: (low, min(high, cut))}))
        stack.append((int(tree.children_right[node]), {**bounds, name: (max(low, cut), high)}))


def _condition(name: tuple[str, str | None], low: float, high: float) -> str:
    column, category = name
    if category is not None:
        return f"{column} is {category}" if np.isfinite(low) else f"{column} is not {category}"
    if np.isfinite(low) and np.isfinite(high):
        return f"{column} is between {low:.4g} and {high:.4g}"
    return f"{column} is above {low:.4g}" if np.isfinite(low) else f"{column} is at most {high:.4g}"
