"""Boxes that are there, boxes that were found, and which of them are the same.

Corners are left, top, right, bottom, in points of the image. What a model says of some images is an array of
found boxes (rows, MOST_FOUND, 6): the corners, a score from 0 to 1, and the class; a box of score 0 is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_FOUND = 100
"""Boxes of an image that a model gives at most, as in COCO's evaluation (Lin et al. 2014)."""
CORNERS, SCORE, CODE = slice(0, 4), 4, 5
"""Where a found box has its corners, its score and its class."""
LEAST_SCORE = 0.02
"""Boxes of lower scores change no loss that anyone would notice, and are not matched."""
SAME_BOX = 0.55
"""Boxes of several models that overlap so much are one (Solovyev et al. 2021, weighted boxes fusion)."""

_NEARLY = 1e-4
"""Of scores that may change places at the end of a list."""

Found = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Boxes:
    """A list of boxes for every image, row after row.

    corners: float64, shape (boxes, 4): left, top, right, bottom in points of the image.
    codes: int64, shape (boxes,): the class of each.
    ends: int64, shape (rows,): row r has the boxes from ``ends[r - 1]`` (the first from 0) up to ``ends[r]``.
    """

    corners: NDArray[np.float64]
    codes: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.corners.shape != (len(self.codes), 4):
            raise ValueError(f"corners have shape {self.corners.shape} for {len(self.codes)} classes")
        if (np.diff(self.ends, prepend=0) < 0).any() or (len(self.ends) and self.ends[-1] != len(self.codes)):
            raise ValueError(f"ends must increase up to the number of boxes ({len(self.codes)})")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: NDArray[np.generic] | slice) -> Boxes:
        """The boxes of these rows, in their order."""
        begins = np.append(0, self.ends)[:-1][rows]
        counts = self.ends[rows] - begins
        which = np.repeat(begins - np.append(0, np.cumsum(counts))[:-1], counts) + np.arange(counts.sum())
        return Boxes(self.corners[which], self.codes[which], np.cumsum(counts))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Boxes of each row, (rows,)."""
        return np.diff(self.ends, prepend=0)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each box, (boxes,)."""
        return np.repeat(np.arange(len(self.ends)), self.counts)

    def each(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Corners (boxes, 4) and classes (boxes,) of one row after the other."""
        begin = 0
        for end in self.ends.tolist():
            yield self.corners[begin:end], self.codes[begin:end]
            begin = end


def areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of corners (..., 4)."""
    sides = np.maximum(corners[..., 2:] - corners[..., :2], 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def iou(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each pair, (n, m), of corners (n, 4) and (m, 4); 0 for boxes of no area."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    both = np.maximum(high - low, 0.0).prod(axis=2)
    either = areas(some)[:, None] + areas(others)[None] - both
    return np.asarray(both / np.where(either > 0, either, 1.0))


def losses_of(target: Boxes, found: Found) -> NDArray[np.float64]:
    """The loss of each image, (rows,): 0 for its very boxes with scores of 1, 1 for none of them.

    A box that was found with score s and overlap q costs 1 - q (1 - (1 - s)^2), one that was not costs 1, a
    found box that is none s^2, all divided by the number of boxes that there are; found boxes belong to true
    ones of their class, one to one, so that the sum is least. The best score of a box is therefore the chance
    that it is one (Brier 1950), weighted by its overlap.
    """
    from scipy.optimize import linear_sum_assignment

    result = np.zeros(len(target))
    for row, ((corners, codes), own) in enumerate(zip(target.each(), found, strict=True)):
        own = own[own[:, SCORE] >= LEAST_SCORE]
        score = own[:, SCORE]
        cost = float(len(codes)) + float(np.square(score).sum())
        if len(codes) and len(own):
            overlap = iou(corners, own[:, CORNERS]) * (codes[:, None] == own[None, :, CODE])
            saved = overlap * (1 - np.square(1 - score)) + np.square(score)
            pairs = linear_sum_assignment(np.where(overlap > 0, saved, 0.0), maximize=True)
            cost -= float(np.where(overlap > 0, saved, 0.0)[pairs].sum())
        result[row] = max(cost, 0.0) / max(1, len(codes))
    return result


def fused(found: NDArray[np.float64]) -> Found:
    """What several models found, (models, rows, MOST_FOUND, 6), as what one did: boxes of one class that
    overlap are one, with the mean of the scores over all models (0 of those that did not find it)."""
    if len(found) == 1:
        return np.asarray(found[0], np.float64)
    result = np.zeros_like(found[0], np.float64)
    for row, own in enumerate(result):
        boxes = _fused_row(found[:, row])[: len(own)]
        own[: len(boxes)] = boxes
    return result


def _fused_row(found: NDArray[np.float64]) -> Found:
    models = len(found)
    which, place = np.nonzero(found[:, :, SCORE] >= LEAST_SCORE)
    boxes = found[which, place]
    order = np.argsort(-boxes[:, SCORE], kind="stable")
    boxes, which = boxes[order], which[order]
    left = np.ones(len(boxes), bool)
    merged = []
    for first in range(len(boxes)):
        if not left[first]:
            continue
        near = left & (boxes[:, CODE] == boxes[first, CODE])
        near &= iou(boxes[first : first + 1, CORNERS], boxes[:, CORNERS])[0] >= SAME_BOX
        near[first] = True
        # the best of each model: a second one of the same model is a box of its own
        _, best = np.unique(which[near], return_index=True)
        chosen = np.flatnonzero(near)[best]
        left[chosen] = False
        weight = boxes[chosen, SCORE]
        one = boxes[first].copy()
        one[CORNERS] = (weight[:, None] * boxes[chosen, CORNERS]).sum(axis=0) / weight.sum()
        one[SCORE] = weight.sum() / models
        merged.append(one)
    if not merged:
        return np.zeros((0, found.shape[2]))
    whole = np.stack(merged)
    return np.asarray(whole[np.argsort(-whole[:, SCORE], kind="stable")])


def found_difference(some: Found, others: Found, side: float) -> float:
    """How far two lists of found boxes of the same images (rows, most, 6) are from being the same.

    The largest difference of a score, or of a corner as a share of ``side``, between a box and the most
    similar one of its class in the other list; 1 where there is none. The order is free, and boxes at the end
    of a full list may lack a partner.
    """
    return max(
        _row_difference(own, other, side)
        for first, second in zip(some, others, strict=True)
        for own, other in ((first, second), (second, first))
    )


def _row_difference(own: Found, other: Found, side: float) -> float:
    certain = own[own[:, SCORE] > max(own[:, SCORE].min(), other[:, SCORE].min()) + _NEARLY]
    corners = np.abs(certain[:, None, CORNERS] - other[None, :, CORNERS]).max(axis=2, initial=0.0) / side
    away = np.maximum(corners, np.abs(certain[:, None, SCORE] - other[None, :, SCORE]))
    away = np.where(certain[:, None, CODE] == other[None, :, CODE], away, 1.0)
    return float(np.minimum(away.min(axis=1), 1.0).max(initial=0.0))
