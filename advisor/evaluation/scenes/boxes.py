"""Where found boxes are wrong, and what a network must beat on them: finding nothing, and boxes where the
training images most often have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.lists import MOST_FOUND, Boxes, iou
from advisor.boxes.precision import ClassMatches, matches
from advisor.dataset import Dataset, Features, Signals
from advisor.evaluation.judgement import BoxScores, Diagnosis, Share

BOX_BASELINES = ("nothing found", "usual places")
SECONDS = 0.5
"""What fitting them takes at most (one core of 2026, rounded up)."""
RESAMPLES, COVERAGE = 200, 0.9

Scorer = Callable[[Features | Signals], NDArray[Any]]


def box_diagnosis(classes: int, target: Any, scores: NDArray[np.float64], chosen: NDArray[Any]) -> Diagnosis:
    """Average precision of each class with intervals over images, and its precision at each recall."""
    found = matches(target, scores, classes)
    draws = np.random.default_rng(0).integers(len(target), size=(RESAMPLES, len(target)))
    weights = np.stack([np.bincount(draw, minlength=len(target)) for draw in draws]).astype(np.float64)
    return Diagnosis(per_box=tuple(_scores_of(own, weights) for own in found))


def _scores_of(own: ClassMatches, weights: NDArray[np.float64]) -> BoxScores:
    boxes = int(own.truths.sum())
    if not boxes:
        return BoxScores(boxes=0, found=len(own.scores), ap50=None, ap=None, curve=())
    whole = own.precision()
    drawn = np.stack([own.precision(weight) for weight in weights])
    drawn = drawn[~np.isnan(drawn[:, 0])]
    return BoxScores(
        boxes=boxes,
        found=len(own.scores),
        ap50=_share(float(whole[0]), drawn[:, 0]),
        ap=_share(float(whole.mean()), drawn.mean(axis=1)),
        curve=own.curve(),
    )


def _share(value: float, drawn: NDArray[np.float64]) -> Share:
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]) if len(drawn) else (value, value)
    return Share(value, float(low), float(high))


# ------------------------------------------------------------------------------------------------- baselines


def box_baseline_seconds(train: Dataset[Any]) -> float:
    """What ``fit_box_baselines`` is expected to take."""
    return SECONDS


def fit_box_baselines(train: Dataset[Any], seed: int = 0, until: float | None = None) -> dict[str, Scorer]:
    """Each baseline fitted on the training images, as a function: images -> found boxes (rows, most, 6).

    Neither looks at an image: what they find a network must beat by looking.
    """
    usual = _usual_places(train.target)
    nothing = np.zeros_like(usual)
    return {
        "nothing found": lambda images: np.repeat(nothing[None], len(images), axis=0),
        "usual places": lambda images: np.repeat(usual[None], len(images), axis=0),
    }


def _usual_places(boxes: Boxes) -> NDArray[np.float64]:
    """Of each class the median box, with the share of the images that have one as its score."""
    result = np.zeros((MOST_FOUND, 6))
    often = np.bincount(boxes.codes)
    order = np.argsort(-often, kind="stable")[:MOST_FOUND]
    for place, code in enumerate(order[often[order] > 0].tolist()):
        own = boxes.codes == code
        share = len(np.unique(boxes.rows[own])) / len(boxes)
        overlap = _mean_overlap(boxes, own)
        result[place] = (*np.median(boxes.corners[own], axis=0), share * overlap, code)
    return result


def _mean_overlap(boxes: Boxes, own: NDArray[np.bool_]) -> float:
    """Of the median box of a class with its boxes: how far it can be trusted."""
    middle = np.median(boxes.corners[own], axis=0)
    return float(iou(middle[None], boxes.corners[own]).mean())
