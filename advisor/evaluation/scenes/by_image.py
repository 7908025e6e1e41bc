"""The user's metric of masks and of boxes: each image is measured once, and any of the images together have a
value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.precision import THRESHOLDS, ClassMatches, matches
from advisor.tasks import overlaps, points_of


class MeasuredImages(Protocol):
    """What a metric knows of some images."""

    def value(self, counted: NDArray[np.float64]) -> float:
        """Of these images together; NaN where it is not defined. counted: 1 for each image that counts,
        else 0, (images,)."""


@dataclass(frozen=True)
class PointShares:
    """IoU or Dice: the mean over the classes that there are. counts: as ``tasks.overlaps``, (images, classes,
    3). share: right, true and predicted points of each class -> its share."""

    counts: NDArray[np.int64]
    share: Callable[[Any, Any, Any], Any]

    def value(self, counted: NDArray[np.float64]) -> float:
        both, true, said = np.einsum("i,ick->ck", counted, self.counts).T
        there = true + said > 0
        if not there.any():
            return math.nan
        return float(self.share(both[there], true[there], said[there]).mean())


@dataclass(frozen=True)
class Precisions:
    """Average precision: the mean over the classes that have boxes, and over the thresholds of overlap."""

    classes: tuple[ClassMatches, ...]

    def value(self, counted: NDArray[np.float64]) -> float:
        own = [one.precision(counted).mean() for one in self.classes if (counted * one.truths).any()]
        return float(np.mean(own)) if own else math.nan


def _points(share: Callable[[Any, Any, Any], Any]) -> Callable[..., PointShares]:
    def measured(
        target: Any, scores: NDArray[Any], chosen: NDArray[Any], classes: int, code: int | None
    ) -> PointShares:
        counts = overlaps(points_of(target.values, scores), chosen, classes)
        return PointShares(counts if code is None else counts[:, code : code + 1], share)

    return measured


def _precisions(*thresholds: float) -> Callable[..., Precisions]:
    def measured(
        target: Any, scores: NDArray[Any], chosen: NDArray[Any], classes: int, code: int | None
    ) -> Precisions:
        own = matches(target, scores, classes, thresholds)
        return Precisions(own if code is None else own[code : code + 1])

    return measured


MEASURES: Mapping[str, Callable[..., MeasuredImages]] = {
    "IoU": _points(lambda both, true, said: both / (true + said - both)),
    "Dice": _points(lambda both, true, said: 2 * both / (true + said)),
    "AP50": _precisions(THRESHOLDS[0]),
    "AP50:95": _precisions(*THRESHOLDS),
}
"""By ``Metric.counts``: targets, scores, predictions, the number of classes, and the code of the only class
that is asked for or None -> what is measured."""
