"""Which rows train and which validate: indices and nothing else.

Every split is a function of (data, scheme, folds or fraction, seed, repeat); no global random state is read.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.errors import UserError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row numbers that train and row numbers that validate: sorted, disjoint, neither is empty."""

    train: Indices
    validation: Indices

    def __post_init__(self) -> None:
        if not len(self.train) or not len(self.validation):
            raise ValueError(f"{len(self.train)} training and {len(self.validation)} validation rows")


def make_splits(
    data: Dataset,
    *,
    scheme: Literal["kfold", "holdout"],
    folds: int,
    fraction: float,
    seed: int,
    repeat: int = 0,
) -> list[Split]:
    """Splits of the rows of ``data`` for one repeat.

    kfold: ``folds`` splits whose validation rows are disjoint; another ``repeat`` is another partition.
    holdout: one split with about ``fraction`` of the rows for validation; repeats have disjoint
    validation rows as long as rows last.

    | the data has | kfold | holdout |
    |---|---|---|
    | classes | every fold has each class's share (to within one row) | so has the validation part |
    | groups | whole groups, folds of about equal size; at most as many folds as groups | whole groups |
    | times | rolling origin: fold i trains on all rows before it | the latest rows; repeats go back in time |

    Groups go before times. Rows of one time are never parted. Fewer folds come back when there are too few
    groups or times for all of them. UserError for folds, fraction or data that allow no split at all.
    """
    rows = len(data)
    if rows < 2:
        raise UserError(
            f"{rows} rows cannot be split into training and validation rows; at least 2 are needed"
        )
    if scheme == "kfold" and not 2 <= folds <= rows:
        raise UserError(f"folds is {folds}; expected a number from 2 to the number of rows ({rows})")
    if scheme == "holdout" and not 0.0 < fraction < 1.0:
        raise UserError(f"validation_fraction is {fraction}; expected a number between 0 and 1")
    if scheme not in ("kfold", "holdout"):
        raise UserError(f"validation is '{scheme}'; expected kfold or holdout")
    if data.groups is not None:
        return _group_splits(data, data.groups, scheme, folds, fraction, seed, repeat)
    if data.times is not None:
        return _time_splits(data.times, scheme, folds, fraction, repeat)
    if scheme == "kfold":
        order = _mixed(data, np.random.default_rng([seed, repeat, 0]))
        return [_split(rows, part) for part in np.array_split(order, folds)]
    size = min(max(round(rows * fraction), 1), rows - 1)
    cycle, window = divmod(repeat, rows // size)
    order = _mixed(data, np.random.default_rng([seed, cycle, 1]))
    return [_split(rows, order[window * size : (window + 1) * size])]


def everything(data: Dataset) -> Split:
    """All rows train. One of them stands where validating rows do, for form: nothing may be chosen by it."""
    return Split(np.arange(len(data)), np.arange(len(data) - 1, len(data)))


def _split(rows: int, validation: Indices) -> Split:
    held = np.zeros(rows, dtype=bool)
    held[validation] = True
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def _mixed(data: Dataset, rng: np.random.Generator) -> Indices:
    """The rows in a random order of which every stretch holds each stratum in its share."""
    order = rng.permutation(len(data))
    strata = data.strata
    if strata is None:
        return order
    labels = strata[order]
    by_class = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.empty(len(order))
    # The k-th of a class with n rows stands at (k + 1/2) / n of the way, so classes advance at equal pace.
    place[by_class] = (np.arange(len(order)) - np.repeat(first, counts) + 0.5) / np.repeat(counts, counts)
    return order[np.argsort(place, kind="stable")]


def _group_splits(
    data: Dataset, groups: NDArray[np.int64], scheme: str, folds: int, fraction: float, seed: int, repeat: int
) -> list[Split]:
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise UserError(
            "all training rows belong to one group; two are needed to validate on whole groups: give rows "
            "of more groups, "
            "test rows of your own, or no group column"
        )
    if scheme == "kfold":
        wanted, stream = folds, [seed, repeat, 2]
    else:
        wanted = max(round(1 / fraction), 2)
        stream = [seed, repeat // min(wanted, len(names)), 3]
    wanted = min(wanted, len(names))
    fold = _folds_of_groups(data, codes, wanted, np.random.default_rng(stream))[codes]
    chosen = range(wanted) if scheme == "kfold" else [repeat % wanted]
    return [_split(len(data), np.flatnonzero(fold == number)) for number in chosen]


def _folds_of_groups(data: Dataset, codes: Indices, folds: int, rng: np.random.Generator) -> Indices:
    """A fold for each group: in random order, each goes where its classes are
    rarest so far; no fold stays empty."""
    groups = int(codes.max()) + 1
    strata = data.strata
    labels = np.zeros(len(codes), np.int64) if strata is None else strata
    classes = int(labels.max()) + 1
    counts = np.bincount(codes * classes + labels, minlength=groups * classes).reshape(groups, classes)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    load = np.zeros((folds, classes))
    fold = np.empty(groups, np.int64)
    for position, group in enumerate(rng.permutation(groups)):
        cost = ((load + shares[group]) ** 2 - load**2).sum(axis=1)
        # The first groups fill the empty folds: without this a small class could leave one without any rows.
        fold[group] = position if position < folds else int(cost.argmin())
        load[fold[group]] += shares[group]
    return fold


def _time_splits(
    times: NDArray[np.int64], scheme: str, folds: int, fraction: float, repeat: int
) -> list[Split]:
    order = np.argsort(times, kind="stable")
    starts = np.flatnonzero(np.diff(times[order], prepend=times[order[0]] - 1))  # where a new time begins
    rows = len(times)
    if len(starts) < 2:
        raise UserError(
            "all rows have the same time; at least two times are needed to validate on later rows"
        )
    edges = np.append(starts, rows)
    if scheme == "kfold":
        size = rows / (folds + 1)
        wanted: NDArray[np.float64] = np.asarray(
            (np.arange(1, folds + 2) - _offset(repeat)) * size, np.float64
        )
        cuts = np.unique(_snapped(edges, wanted))
        cuts = cuts if len(cuts) > 1 else edges[-2:]
    else:
        size = min(max(rows * fraction, 1.0), rows - 1.0)
        windows = max(int(rows / size) - 1, 1)
        end = rows - (repeat % windows) * size
        cuts = _snapped(edges, np.array([end - size, end]))
        if cuts[0] == cuts[1]:  # one time fills the whole window: take it, or the last one
            at = int(np.searchsorted(edges, cuts[0]))
            cuts = edges[at : at + 2] if at + 1 < len(edges) else edges[-2:]
    pairs = itertools.pairwise(cuts.tolist())
    return [Split(np.sort(order[:begin]), np.sort(order[begin:end])) for begin, end in pairs]


def _snapped(edges: Indices, wanted: NDArray[np.float64]) -> Indices:
    """For each wanted cut the nearest place where a new time begins; never before the second time."""
    inner = edges[1:]
    right = np.clip(np.searchsorted(inner, wanted), 0, len(inner) - 1)
    left = np.maximum(right - 1, 0)
    nearest: Indices = np.where(wanted - inner[left] <= inner[right] - wanted, inner[left], inner[right])
    return nearest


def _offset(repeat: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8 ...: how far, in folds, a repeat moves the cuts of a rolling origin back."""
    value, step = 0.0, 0.5
    while repeat:
        value += step * (repeat % 2)
        repeat //= 2
        step /= 2
    return value
