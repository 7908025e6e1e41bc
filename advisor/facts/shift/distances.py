"""How far two samples of one column are apart, and by how much chance would put them so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.facts.shift.samples import Numbers

BINS = 10
"""Bins for PSI and Jensen-Shannon: tenths of the training rows, and one for missing cells (Siddiqi 2006)."""
RANGE_CHANCE = 0.005
"""Cells beyond one end of the range, or unlike a constant, count only where equal distributions leave this
many with less than this chance in any column (Bonferroni)."""


def distance_of_numbers(old: Numbers, new: Numbers) -> float:
    """Kolmogorov-Smirnov of the filled cells, or how many more are missing on a
    side where that is larger; 0..1."""
    from scipy.stats import ks_2samp

    first, second = old[np.isfinite(old)], new[np.isfinite(new)]
    lost = abs(len(first) / len(old) - len(second) / max(len(new), 1))
    if not len(first) or not len(second):
        return lost
    return max(lost, float(ks_2samp(first, second, method="asymp").statistic))


def numeric_effect(old: Numbers, new: Numbers, columns: int) -> dict[str, float]:
    """psi, jensen_shannon (bits), distance (0..1) and out_of_range_share of an array.
    columns: how many are looked at."""
    first, second = old[np.isfinite(old)], new[np.isfinite(new)]
    effect = {
        "psi": 0.0,
        "jensen_shannon": 0.0,
        "distance": distance_of_numbers(old, new),
        "out_of_range_share": 0.0,
    }
    if len(first) and len(second):
        below, above = int((second < first.min()).sum()), int((second > first.max()).sum())
        beyond = sum(
            count for count in (below, above) if beyond_chance(count, len(first), len(second), 2 * columns)
        )
        effect["out_of_range_share"] = beyond / len(second)
    edges = np.unique(np.quantile(first, np.linspace(0, 1, BINS + 1)[1:-1])) if len(first) else np.empty(0)
    # NaN sorts behind every edge: missing cells get a bin of their own
    binned = (np.where(np.isfinite(side), np.searchsorted(edges, side, "right"), BINS) for side in (old, new))
    counts = counts_by_side(*binned)
    return effect | {"psi": stability_index(counts), "jensen_shannon": jensen_shannon_bits(counts)}


def beyond_chance(count: int, old: int, new: int, tries: int) -> bool:
    """Whether this many rows, picked by their values, are all new ones too seldom: with
    a chance of (new / all) ** count."""
    return count * math.log(new / (old + new)) <= math.log(RANGE_CHANCE / tries)


def counts_by_side(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.int64]:
    """Rows by value and side, shape (2, values)."""
    values, codes = np.unique(np.concatenate([old, new]), return_inverse=True)
    first = np.bincount(codes[: len(old)], minlength=len(values))
    return np.stack([first, np.bincount(codes[len(old) :], minlength=len(values))])


def chi_squared_p(counts: NDArray[np.int64]) -> float:
    """p of equal shares; values expected under 5 times on a side are counted as
    one (Cochran 1954), or left out.

    Of two by two the exact one (Fisher).
    """
    from scipy.stats import chi2_contingency, fisher_exact

    expected = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()
    rare = expected < 5
    lumped = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)]) if rare.any() else counts
    if lumped.shape[1] > 2 and lumped[:, -1].sum() * counts.sum(axis=1).min() / counts.sum() < 5:
        lumped = lumped[:, :-1]
    if lumped.shape[1] < 2:
        return 1.0
    if lumped.shape[1] == 2:
        return float(fisher_exact(lumped).pvalue)
    return float(chi2_contingency(lumped, correction=False)[1])


def _shares(counts: NDArray[np.int64]) -> Numbers:
    """Half a row is added to each value: neither an empty bin nor an empty side
    makes a logarithm infinite."""
    return np.asarray((counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True))


def stability_index(counts: NDArray[np.int64]) -> float:
    """Population stability index, in nats: 0 is equal, above 0.25 is usually called a large shift."""
    old, new = _shares(counts)
    return float(((new - old) * np.log(new / old)).sum())


def jensen_shannon_bits(counts: NDArray[np.int64]) -> float:
    """Jensen-Shannon divergence in bits, 0 (equal) to 1 (nothing in common)."""
    shares = _shares(counts)
    return float((shares * np.log2(shares / shares.mean(axis=0))).sum() / 2)


def total_variation(counts: NDArray[np.int64]) -> float:
    """Total variation of two distributions, 0 (equal) to 1. counts: shape (2, values)."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
