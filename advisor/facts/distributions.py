"""How numbers are distributed: moments, quantiles, histograms, correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.column import Column
from advisor.data.tables.table import Table
from advisor.facts.specs.thresholds import CORRELATED, HEAVY_SKEW

CORRELATED_COLUMNS = 200
"""Correlations are measured among at most so many numeric columns, the first by name."""
ORDERED_COLUMNS = 16
"""Below so many numeric columns it is not asked whether their order means something."""


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


def number_shape(column: Column, cells: pl.Series) -> dict[str, Any]:
    """Moments, quantiles (linear interpolation), outliers and a histogram of one numeric column."""
    values = cells.to_numpy()
    values = values[~np.isnan(values)]
    moments = moments_of(values)
    facts: dict[str, Any] = {"name": column.name, "values": len(values), "outliers": 0, "distinct": 0}
    facts |= {"mean": moments.mean, "std": moments.std, "skew": moments.skew}
    if not len(values):
        return facts
    values = np.sort(values)
    facts["distinct"] = 1 + int(np.count_nonzero(values[1:] != values[:-1]))
    with np.errstate(over="ignore", invalid="ignore"):
        quantiles = _quantiles(values)
        facts |= {name: finite(float(value)) for name, value in zip(_QUANTILES, quantiles, strict=True)}
        spread = quantiles[4] - quantiles[2]
        if 0 < spread < np.inf:
            low, high = quantiles[2] - 3 * spread, quantiles[4] + 3 * spread
            facts["outliers"] = int(
                np.searchsorted(values, low) + len(values) - np.searchsorted(values, high, "right")
            )
        if histogram := histogram_of(values, float(quantiles[1]), float(quantiles[5])):
            facts["histogram"] = histogram
    return facts


def histogram_of(values: NDArray[np.float64], low: float, high: float) -> dict[str, Any] | None:
    """Twenty bins of the sorted values from low to high; None when that is no width to divide."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = high - low
    if not (np.isfinite(width) and width > 1e-9 * max(abs(low), abs(high))):
        return None
    places = np.searchsorted(values, np.linspace(low, high, 21))
    places[-1] = np.searchsorted(values, high, "right")  # the last bin holds its end
    return {"low": float(low), "high": float(high), "counts": np.diff(places).tolist()}


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of sorted values that a report has, interpolated as NumPy does, in a tenth of its time."""
    place = np.array(list(_QUANTILES.values())) * (len(values) - 1)
    low = place.astype(np.int64)
    before, after = values[low], values[np.minimum(low + 1, len(values) - 1)]
    share, step = place - low, after - before
    return np.asarray(np.where(share < 0.5, before + step * share, after - step * (1 - share)))


def distribution_facts(numeric: Sequence[Mapping[str, Any]], sample: pl.DataFrame) -> dict[str, Any]:
    """The facts of all numeric columns together. numeric: ``number_shape`` of each."""
    skews = {column["name"]: abs(column["skew"]) for column in numeric if column["skew"] is not None}
    heavy = sorted(name for name, skew in skews.items() if skew > HEAVY_SKEW)
    spreads = [column["std"] for column in numeric if column["skew"] is not None and column["std"]]
    cells = sum(column["values"] for column in numeric)
    pairs, repeating = _correlated(sorted(skews), sample)
    return {
        "skew.max": max(skews.values(), default=None),
        "skew.median": float(np.median(list(skews.values()))) if skews else None,
        "skew.heavy_columns": len(heavy),
        "columns.heavy_tailed": heavy,
        "outliers.share": sum(column["outliers"] for column in numeric) / cells if cells else None,
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
