"""HistGradientBoosting's trees as arrays of nodes, with which NumPy predicts: saved without a pickle.

Two libraries were looked at: skl2onnx 1.20 has no categorical splits of these trees, and skops 0.16 writes
scikit-learn's own private types, so that a model would depend on the version that trained it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from advisor.errors import UserError

LEAF = -1
"""In place of the column of a node that divides nothing."""
MOST_AT_ONCE = 2_000_000
"""Pairs of a row and a tree that are followed at a time: bounds the memory (about 50 bytes each)."""


@dataclass(frozen=True, repr=False)
class BoostedTrees:
    """The trees of one fit.

    roots: int32 (trees,), the first node of each; an iteration has one tree for each raw score.
    baseline: float64 (raw scores,), before any tree. A raw score is a number that is predicted, the logarithm
        of the odds of the second of two classes, or one for each of several.
    classes: int64, the codes of the classes that the fit saw, ascending; none for a number.
    column: int32 (nodes,), what a node asks, LEAF for none. number: float64 (nodes,), rows up to it go left;
        of a leaf what it adds. children: int32 (nodes, 2), left and right, both after the node.
    missing_left: bool (nodes,), where rows go that do not know the column.
    subset: int32 (nodes,), the row of ``in_subset`` that tells which category codes go left; -1 for numbers.
    in_subset: bool (subsets, codes); codes that the fit did not see go where missing ones do, the last column
        stands for all above it.
    """

    roots: NDArray[np.int32]
    baseline: NDArray[np.float64]
    classes: NDArray[np.int64]
    column: NDArray[np.int32]
    number: NDArray[np.float64]
    children: NDArray[np.int32]
    missing_left: NDArray[np.bool_]
    subset: NDArray[np.int32]
    in_subset: NDArray[np.bool_]

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """Of a fitted HistGradientBoostingClassifier or -Regressor, whose classes are codes, and whose
        categorical columns hold codes of at least 0 or NaN."""
        trees = [tree for iteration in estimator._predictors for tree in iteration]
        columns, known = _columns(estimator)
        nodes = np.concatenate([tree.nodes for tree in trees])
        lengths = [len(tree.nodes) for tree in trees]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        leaf, first = nodes["is_leaf"].astype(bool), np.repeat(starts, lengths)
        children = np.stack([nodes["left"], nodes["right"]], axis=1) + first[:, None]
        categorical = nodes["is_categorical"].astype(bool) & ~leaf
        missing_left = nodes["missing_go_to_left"].astype(bool)
        column = columns[nodes["feature_idx"]]
        bitsets = np.concatenate([tree.raw_left_cat_bitsets for tree in trees])
        offsets = np.concatenate([[0], np.cumsum([len(tree.raw_left_cat_bitsets) for tree in trees])[:-1]])
        own = (nodes["bitset_idx"] + np.repeat(offsets, lengths))[categorical].astype(np.int64)
        width = max((int(codes.max()) + 2 for codes in known.values() if len(codes)), default=1)
        in_subset = np.repeat(missing_left[categorical][:, None], width, axis=1)
        for row, (of, bits) in enumerate(zip(column[categorical].tolist(), bitsets[own], strict=True)):
            codes = known[of]
            place = np.arange(len(codes))
            in_subset[row, codes] = (bits[place // 32] >> (place % 32).astype(np.uint32)) & 1
        subset = np.full(len(nodes), -1)
        subset[categorical] = np.arange(int(categorical.sum()))
        return cls(
            roots=starts.astype(np.int32),
            baseline=np.ravel(estimator._baseline_prediction).astype(np.float64),
            classes=np.asarray(getattr(estimator, "classes_", ()), np.int64),
            column=np.where(leaf, LEAF, column).astype(np.int32),
            number=np.where(leaf, nodes["value"], nodes["num_threshold"]),
            children=np.where(leaf[:, None], 0, children).astype(np.int32),
            missing_left=missing_left,
            subset=subset.astype(np.int32),
            in_subset=in_subset,
        )

    @classmethod
    def constant(cls, code: int) -> Self:
        """What rows of a single class teach: that class."""
        return cls(
            *(np.zeros(0, np.int32), np.zeros(1), np.array([code], np.int64), np.zeros(0, np.int32)),
            *(np.zeros(0), np.zeros((0, 2), np.int32), np.zeros(0, bool), np.zeros(0, np.int32)),
            np.zeros((0, 1), bool),
        )

    def scores(self, matrix: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
        """Probabilities (rows, classes), or with no classes predictions (rows,).

        matrix: (rows, columns), as the fit had them; NaN is missing or unseen.
        """
        raw = self._raw(matrix)
        if not classes:
            return raw[:, 0]
        result = np.zeros((len(matrix), classes))
        if len(self.classes) == 2:
            raw = np.concatenate([np.zeros_like(raw), raw], axis=1)
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        result[:, self.classes] = powers / powers.sum(axis=1, keepdims=True)
        return result

    def _raw(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows, raw scores)."""
        if not len(self.roots):
            return np.tile(self.baseline, (len(matrix), 1))
        at_once = max(1, MOST_AT_ONCE // len(self.roots))
        parts = (matrix[start : start + at_once] for start in range(0, len(matrix), at_once))
        found = [
            self._leaves(part).reshape(len(part), -1, len(self.baseline)).sum(axis=1) + self.baseline
            for part in parts
        ]
        return np.concatenate(found) if found else np.zeros((0, len(self.baseline)))

    def _leaves(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each tree adds for each row, (rows * trees,)."""
        at = np.tile(self.roots, len(matrix))
        row = np.repeat(np.arange(len(matrix)), len(self.roots))
        under_way = np.flatnonzero(self.column[at] != LEAF)
        while len(under_way):
            node = at[under_way]
            value = matrix[row[under_way], self.column[node]]
            missing, subset = np.isnan(value), self.subset[node]
            left = np.where(missing, self.missing_left[node], value <= self.number[node])
            if len(self.in_subset):
                named = np.flatnonzero((subset >= 0) & ~missing)
                code = np.minimum(value[named].astype(np.int64), self.in_subset.shape[1] - 1)
                left[named] = self.in_subset[subset[named], code]
            at[under_way] = node = self.children[node, np.where(left, 0, 1)]
            under_way = under_way[self.column[node] != LEAF]
        return self.number[at]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it by name."""
        return {own.name: getattr(self, own.name) for own in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], columns: int, classes: int) -> Self:
        """The same from what a file holds. columns, classes: that the model's rows have. UserError for
        arrays that are no trees for such rows."""
        wrong = UserError("the trees of this model are damaged: train again")
        if set(arrays) != {own.name for own in fields(cls)}:
            raise wrong
        found = cls(**{name: np.asarray(array) for name, array in arrays.items()})
        if not found._is_sound(columns, classes):
            raise wrong
        return found

    def _is_sound(self, columns: int, classes: int) -> bool:
        """Whether every row ends in a leaf and nothing points elsewhere."""
        nodes, raw = len(self.column), len(self.baseline)
        one_each = (self.number, self.missing_left, self.subset)
        if any(own.shape != (nodes,) for own in one_each) or self.children.shape != (nodes, 2):
            return False
        if raw < 1 or self.baseline.ndim != 1 or len(self.roots) % raw or self.in_subset.ndim != 2:
            return False
        if not self.in_subset.shape[1] or self.in_subset.dtype != bool or self.missing_left.dtype != bool:
            return False
        inner = self.column != LEAF
        after = self.children[inner] > np.flatnonzero(inner)[:, None]
        return (
            bool(after.all())
            and _within(self.roots, 0, nodes)
            and _within(self.children[inner], 0, nodes)
            and _within(self.column, LEAF, columns)
            and _within(self.subset, -1, len(self.in_subset))
            and _within(self.classes, 0, classes)
            and raw == (1 if len(self.classes) <= 2 else len(self.classes))
            and bool(len(self.classes)) == bool(classes)
            and bool(np.isfinite(self.baseline).all() and not np.isnan(self.number).any())
        )


def mean_scores(
    fits: Sequence[BoostedTrees], matrix: NDArray[np.float64], classes: int
) -> NDArray[np.float64]:
    """The average of the scores of several fits."""
    return np.asarray(np.mean([fit.scores(matrix, classes) for fit in fits], axis=0))


def _within(values: NDArray[Any], low: int, high: int) -> bool:
    return values.dtype.kind in "iu" and bool(((values >= low) & (values < high)).all())


def _columns(estimator: Any) -> tuple[NDArray[np.int64], dict[int, NDArray[np.int64]]]:
    """Which of our columns each of the estimator's is, which has categories first; and of our categorical
    columns the codes that it saw, in its order."""
    count = int(estimator.n_features_in_)
    categorical = estimator.is_categorical_
    if categorical is None or not categorical.any():
        return np.arange(count), {}
    named = np.flatnonzero(categorical)
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    codes = (own[~np.isnan(own)].astype(np.int64) for own in encoder.categories_)
    return np.concatenate([named, np.flatnonzero(~categorical)]), dict(
        zip(named.tolist(), codes, strict=True)
    )
