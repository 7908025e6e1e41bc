"""How numbers are distributed: moments, quantiles, histograms, correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.tables.table import Table
from advisor.facts.specs.thresholds import CORRELATED, HEAVY_SKEW
from advisor.facts.summaries import Histogram

CORRELATED_COLUMNS = 200
"""Correlations are measured among at most this many numeric columns, the first by name."""
ORDERED_COLUMNS = 16
"""Below this many numeric columns it is not asked whether their order means something."""


@dataclass(frozen=True)
class _Moments:
    mean: float | None
    std: float | None
    skew: float | None
    kurtosis: float | None


def moments_of(values: NDArray[np.float64]) -> _Moments:
    """Mean, standard deviation (n in the denominator), skewness m3/m2^1.5, excess kurtosis m4/m2^2 - 3.

    The shape is None for fewer than three values or when they do not vary.
    """
    if not len(values):
        return _Moments(None, None, None, None)
    scale = float(np.abs(values).max()) or 1.0
    scaled = values / scale  # the fourth power of 1e80 is no number any more
    mean = float(scaled.mean())
    away = scaled - mean
    variance = float((away**2).mean())
    std = float(np.sqrt(variance))
    # Rounding makes a constant column vary by about 1e-16 of its size.
    if len(values) < 3 or std <= 1e-12 * max(abs(mean), 1e-300):
        return _Moments(finite(mean * scale), finite(std * scale), None, None)
    away /= std
    squares = away * away  # NumPy's power takes thirty times as long as a product
    skew, kurtosis = float((squares * away).mean()), float((squares * squares).mean()) - 3.0
    return _Moments(finite(mean * scale), finite(std * scale), finite(skew), finite(kurtosis))


def finite(value: float) -> float | None:
    """The value, or None for an infinite one and NaN."""
    return value if np.isfinite(value) else None


_QUANTILES = {
    "minimum": 0.0,
    "q05": 0.05,
    "q25": 0.25,
    "median": 0.5,
    "q75": 0.75,
    "q95": 0.95,
    "maximum": 1.0,
}


@dataclass(frozen=True)
class NumberShape:
    """How the numbers of a column are distributed.

    values: how many there are.
    outliers: how many are further from the quartiles than three times their distance.
    quantiles: by the names that a summary has; empty where there are no values.
    histogram: None where there is no width to divide.
    """

    values: int
    distinct: int
    outliers: int
    moments: _Moments
    quantiles: Mapping[str, float | None]
    histogram: Histogram | None


def number_shape(cells: pl.Series) -> NumberShape:
    """Moments, quantiles (linear interpolation), outliers and a histogram of one numeric column."""
    values = cells.to_numpy()
    values = values[~np.isnan(values)]
    moments = moments_of(values)
    if not len(values):
        return NumberShape(0, 0, 0, moments, {}, None)
    values = np.sort(values)
    distinct = 1 + int(np.count_nonzero(values[1:] != values[:-1]))
    with np.errstate(over="ignore", invalid="ignore"):
        quantiles = _quantiles(values)
        outliers = _outliers(values, quantiles[2], quantiles[4])
    named = {name: finite(float(value)) for name, value in zip(_QUANTILES, quantiles, strict=True)}
    histogram = histogram_of(values, float(quantiles[1]), float(quantiles[5]))
    return NumberShape(len(values), distinct, outliers, moments, named, histogram)


def _outliers(values: NDArray[np.float64], low: float, high: float) -> int:
    """How many of the sorted values are further from the quartiles than three times their distance."""
    spread = high - low
    if not 0 < spread < np.inf:
        return 0
    below = np.searchsorted(values, low - 3 * spread)
    return int(below + len(values) - np.searchsorted(values, high + 3 * spread, "right"))


def histogram_of(values: NDArray[np.float64], low: float, high: float) -> Histogram | None:
    """Twenty bins of the sorted values from low to high; None when that is no width to divide."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = high - low
    if not (np.isfinite(width) and width > 1e-9 * max(abs(low), abs(high))):
        return None
    places = np.searchsorted(values, np.linspace(low, high, 21))
    places[-1] = np.searchsorted(values, high, "right")  # the last bin holds its end
    return Histogram(float(low), float(high), tuple(np.diff(places).tolist()))


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of sorted values that a report has, interpolated as NumPy does, in a tenth of its time."""
    place = np.array(list(_QUANTILES.values())) * (len(values) - 1)
    low = place.astype(np.int64)
    before, after = values[low], values[np.minimum(low + 1, len(values) - 1)]
    share, step = place - low, after - before
    return np.asarray(np.where(share < 0.5, before + step * share, after - step * (1 - share)))


def distribution_facts(numeric: Mapping[str, NumberShape], sample: pl.DataFrame) -> dict[str, Any]:
    """The facts of all numeric columns together. numeric: by name."""
    shapes = numeric.values()
    skews = {name: abs(s.moments.skew) for name, s in numeric.items() if s.moments.skew is not None}
    heavy = sorted(name for name, skew in skews.items() if skew > HEAVY_SKEW)
    spreads = [s.moments.std for s in shapes if s.moments.skew is not None and s.moments.std]
    cells = sum(s.values for s in shapes)
    pairs, repeating = _correlated(sorted(skews), sample)
    return {
        "skew.max": max(skews.values(), default=None),
        "skew.median": float(np.median(list(skews.values()))) if skews else None,
        "skew.heavy_columns": len(heavy),
        "columns.heavy_tailed": heavy,
        "outliers.share": sum(s.outliers for s in shapes) / cells if cells else None,
        "scale.ratio": finite(max(spreads) / min(spreads)) if spreads else None,
        "correlated.pairs_share": pairs,
        "columns.correlated": repeating,
    }


def _correlated(names: Sequence[str], sample: pl.DataFrame) -> tuple[float | None, list[str]]:
    """Share of strongly correlated pairs (missing cells at the column's mean),
    and the later name of each pair."""
    names = names[:CORRELATED_COLUMNS]
    if len(names) < 2:
        return None, []
    strong = np.triu(_correlations(names, sample) > CORRELATED, k=1)
    share = float(strong.sum()) / (len(names) * (len(names) - 1) / 2)
    return share, [names[position] for position in np.flatnonzero(strong.any(axis=0)).tolist()]


def _correlations(names: Sequence[str], sample: pl.DataFrame) -> NDArray[np.float64]:
    """Absolute correlations of numeric columns, shape (names, names)."""
    matrix = np.empty((sample.height, len(names)))
    for position, name in enumerate(names):
        values = sample[name].to_numpy().astype(np.float64)
        values = values / (np.nanmax(np.abs(values)) or 1.0)
        matrix[:, position] = np.nan_to_num(values - np.nanmean(values))
    length = np.sqrt((matrix**2).sum(axis=0))
    matrix /= np.where(length > 0, length, 1.0)
    return np.abs(matrix.T @ matrix)


def order_correlation(table: Table, sample: pl.DataFrame) -> float | None:
    """Mean absolute correlation of neighbouring numeric columns, less the mean of
    all pairs: what a random order has."""
    names = [column.name for column in table.schema.of_type("numeric")]
    names = [name for name in names if sample[name].null_count() < sample.height][:CORRELATED_COLUMNS]
    if len(names) < ORDERED_COLUMNS:
        return None
    matrix = _correlations(names, sample)
    pairs = matrix[np.triu_indices(len(names), k=1)]
    return float(np.diagonal(matrix, offset=1).mean() - pairs.mean())
