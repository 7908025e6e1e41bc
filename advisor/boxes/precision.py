"""Average precision as COCO's evaluation has it (Lin et al. 2014): found boxes by falling score, each matched
with the true box of its class and image that it overlaps most, at ten thresholds of overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.lists import CODE, CORNERS, SCORE, Boxes, Found, iou

THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
"""Of overlap, from 0.5 to 0.95."""
RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off: the mean over these is the average precision."""
_NEARLY = 1e-10
"""What floating-point numbers may be off, as in COCO's evaluation."""


@dataclass(frozen=True)
class ClassMatches:
    """The found boxes of one class over all images, by falling score.

    scores: (found,). hits: (thresholds, found), whether each is a true box. rows: the image of each.
    truths: true boxes of each image, (images,).
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    rows: NDArray[np.int64]
    truths: NDArray[np.int64]

    def precision(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Average precision at each threshold, (thresholds,); NaN where there is no true box.
        weights: how often each image counts, (images,)."""
        often = np.ones(len(self.truths)) if weights is None else weights
        total = float((often * self.truths).sum())
        if not total:
            return np.full(len(self.hits), np.nan)
        own = often[self.rows]
        right = np.cumsum(self.hits * own, axis=1)
        said = np.cumsum(own)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(said > 0, right / said, 0.0)
        # the best precision at this recall or a higher one
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result = np.zeros(len(self.hits))
        for place, (recall, own_precision) in enumerate(zip(right / total, precision, strict=True)):
            at = np.searchsorted(recall, RECALLS, side="left")
            there = at < len(recall)
            result[place] = own_precision[at[there]].sum() / len(RECALLS)
        return result

    def curve(self, threshold: int = 0) -> tuple[tuple[float, float], ...]:
        """(recall, precision) at every recall that COCO reads off, of one threshold's number."""
        total = max(1, int(self.truths.sum()))
        right = np.cumsum(self.hits[threshold])
        precision = right / np.arange(1, len(right) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(right / total, RECALLS, side="left")
        return tuple(
            (float(recall), float(precision[place]) if place < len(precision) else 0.0)
            for recall, place in zip(RECALLS, at.tolist(), strict=True)
        )


def matches(
    target: Boxes, found: Found, classes: int, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[ClassMatches, ...]:
    """Of each class, which found boxes are true ones. found: (rows, most, 6)."""
    parts: list[list[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]]] = [
        [] for _ in range(classes)
    ]
    truths = np.zeros((classes, len(target)), np.int64)
    for row, ((corners, codes), own) in enumerate(zip(target.each(), found, strict=True)):
        own = own[own[:, SCORE] > 0]
        truths[:, row] = np.bincount(codes, minlength=classes)[:classes]
        for code in np.unique(own[:, CODE]).astype(int).tolist():
            boxes = own[own[:, CODE] == code]
            boxes = boxes[np.argsort(-boxes[:, SCORE], kind="stable")]
            hits = _hits(iou(boxes[:, CORNERS], corners[codes == code]), thresholds)
            parts[code].append((boxes[:, SCORE], hits, np.full(len(boxes), row, np.int64)))
    return tuple(_together(own, truths[code], len(thresholds)) for code, own in enumerate(parts))


def _together(
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]],
    truths: NDArray[np.int64],
    thresholds: int,
) -> ClassMatches:
    if not parts:
        return ClassMatches(np.zeros(0), np.zeros((thresholds, 0), bool), np.zeros(0, np.int64), truths)
    scores, hits, rows = zip(*parts, strict=True)
    whole = np.concatenate(scores)
    order = np.argsort(-whole, kind="stable")
    return ClassMatches(
        whole[order], np.concatenate(hits, axis=1)[:, order], np.concatenate(rows)[order], truths
    )


def _hits(overlap: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """(thresholds, found): each found box takes the true one that it overlaps most of those still free."""
    result = np.zeros((len(thresholds), len(overlap)), bool)
    if not overlap.size:
        return result
    for place, threshold in enumerate(thresholds):
        free = np.ones(overlap.shape[1], bool)
        least = min(threshold, 1 - _NEARLY)
        for box in np.flatnonzero(overlap.max(axis=1) >= least).tolist():
            best = np.where(free, overlap[box], -1.0)
            taken = int(len(best) - 1 - best[::-1].argmax())  # of equal ones the last, as COCO has it
            if best[taken] >= least:
                result[place, box], free[taken] = True, False
    return result


def mean_precision(own: Sequence[ClassMatches]) -> tuple[float, float]:
    """AP50 and AP50:95, the means over the classes that have true boxes; 0 where none has."""
    per_class = np.array([one.precision() for one in own if one.truths.sum()])
    if not len(per_class):
        return 0.0, 0.0
    return float(per_class[:, 0].mean()), float(per_class.mean())
