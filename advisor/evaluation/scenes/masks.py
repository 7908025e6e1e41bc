"""Where predicted masks are wrong, and what a network must beat on them: the class shares, and a random
forest on
the outputs of a few filters."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset, Features, Signals
from advisor.evaluation.judgement import BoundaryErrors, Diagnosis, MaskScores, Share
from advisor.tasks import SEGMENTATION, UNLABELLED, overlaps, points_of

MASK_BASELINES = ("class shares", "random forest on filters")
TREES, DEPTH, LEAF = 30, 14, 4
FITTED_POINTS = 30_000
"""Points that the forest is fitted on, of each class alike many as far as there are."""
SCORED_POINTS = 600_000
"""Of more points every so many-th is scored, and its neighbours get the same."""
SCALES = (1.0, 2.0, 4.0, 8.0)
"""Deviations, in points, of the Gaussians through which the filters see."""
RESAMPLES, COVERAGE = 1000, 0.9
NEAR = 2
"""Points so near to a border of the true mask count as at the border."""
FOREST_SECONDS = 20.0
"""What fitting the forest and scoring with it takes at most (one core of 2026, rounded up)."""

Scorer = Callable[[Features | Signals], NDArray[Any]]


def mask_diagnosis(classes: int, target: Any, scores: NDArray[np.float64], chosen: NDArray[Any]) -> Diagnosis:
    """IoU and Dice of each class with intervals over images; errors near borders and away from them."""
    truth = points_of(target.values, scores)
    found = overlaps(truth, chosen, classes)
    draws = np.random.default_rng(0).integers(len(found), size=(RESAMPLES, len(found)))
    weights = np.stack([np.bincount(draw, minlength=len(found)) for draw in draws])
    resampled = np.tensordot(weights, found, axes=1)  # (resamples, classes, 3)
    whole = found.sum(axis=0)
    per_class = [
        MaskScores(
            images=int((found[:, code, 1] > 0).sum()),
            iou=_share(whole[code], resampled[:, code], _iou),
            dice=_share(whole[code], resampled[:, code], _dice),
        )
        for code in range(classes)
    ]
    return Diagnosis(per_mask=tuple(per_class), boundary=_boundary(truth, chosen))


def _iou(both: Any, true: Any, said: Any) -> Any:
    return both / np.maximum(true + said - both, 1)


def _dice(both: Any, true: Any, said: Any) -> Any:
    return 2 * both / np.maximum(true + said, 1)


def _share(
    whole: NDArray[np.int64], resampled: NDArray[np.int64], of: Callable[[Any, Any, Any], Any]
) -> Share | None:
    """None where the class is neither there nor predicted."""
    if not whole[1] + whole[2]:
        return None
    low, high = np.quantile(of(*resampled.T), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Share(float(of(*whole)), float(low), float(high))


def _boundary(truth: NDArray[np.uint8], chosen: NDArray[np.uint8]) -> BoundaryErrors | None:
    from scipy import ndimage

    counts = np.zeros((2, 2), np.int64)
    for codes, said in zip(truth, np.broadcast_to(chosen, truth.shape), strict=True):
        size, labelled, wrong = 2 * NEAR + 1, codes != UNLABELLED, codes != said
        highest = ndimage.maximum_filter(np.where(labelled, codes, 0), size)
        # where labels end is no border: unlabelled points are above every class, and only lower the maximum
        near = highest != ndimage.minimum_filter(codes, size)
        for place, where in enumerate((near, ~near)):
            counts[place] += (int((labelled & where).sum()), int((labelled & where & wrong).sum()))
    if not counts[:, 0].all():
        return None
    near_share, far_share = counts[:, 1] / counts[:, 0]
    return BoundaryErrors(float(near_share), float(far_share), NEAR)


# ------------------------------------------------------------------------------------------------- baselines


def mask_baseline_seconds(train: Dataset[Any]) -> float:
    """What ``fit_mask_baselines`` is expected to take."""
    return FOREST_SECONDS


def fit_mask_baselines(train: Dataset[Any], seed: int = 0, until: float | None = None) -> dict[str, Scorer]:
    """Each baseline fitted on the training images, as a function: images -> probabilities (rows, classes,
    height,
    width). until: on time.monotonic's clock; the forest is left out where it is expected to take longer."""
    shares = SEGMENTATION.constant_scores(train.target, len(train.classes))[:1]
    fitted: dict[str, Scorer] = {"class shares": lambda images: np.repeat(shares, len(images), axis=0)}
    if until is None or time.monotonic() + FOREST_SECONDS < until:
        fitted["random forest on filters"] = _forest(train, seed)
    return fitted


def _forest(train: Dataset[Any], seed: int) -> Scorer:
    from sklearn.ensemble import RandomForestClassifier

    generator, classes = np.random.default_rng(seed), len(train.classes)
    images: Any = train.features
    masks: NDArray[np.uint8] = train.target.values
    rows = generator.permutation(len(masks))[: max(1, 20_000_000 // masks[0].size)]
    each = FITTED_POINTS // (classes * len(rows)) + 1
    inputs, codes = [], []
    for row in rows:
        filtered = _filtered(images.values[row])
        for code in range(classes):
            places = np.flatnonzero(masks[row].reshape(-1) == code)
            chosen = generator.choice(places, min(each, len(places)), replace=False)
            inputs.append(filtered.reshape(len(filtered), -1)[:, chosen].T)
            codes += [code] * len(chosen)
    forest = RandomForestClassifier(TREES, max_depth=DEPTH, min_samples_leaf=LEAF, random_state=seed)
    forest.fit(np.concatenate(inputs), np.array(codes))
    # each class was drawn alike often: its probabilities are put back to its share of the points
    drawn = np.bincount(codes, minlength=classes)[forest.classes_] / len(codes)
    shares = SEGMENTATION.constant_scores(train.target, classes)[0, forest.classes_, 0, 0] / drawn
    return lambda new: _forest_scores(forest, shares, new, classes)


def _forest_scores(
    forest: Any, shares: NDArray[np.float64], images: Features | Signals, classes: int
) -> NDArray[np.float32]:
    values: NDArray[np.uint8] = images.values  # type: ignore[union-attr]  # masks belong to images
    height, width = values.shape[2:]
    stride = max(1, round(np.sqrt(len(values) * height * width / SCORED_POINTS)))
    result = np.zeros((len(values), classes, height, width), np.float32)
    for row, image in enumerate(values):
        filtered = _filtered(image)[:, stride // 2 :: stride, stride // 2 :: stride]
        chances = forest.predict_proba(filtered.reshape(len(filtered), -1).T) * shares
        chances = 0.99 * chances / chances.sum(axis=1, keepdims=True) + 0.01 / classes
        small = np.zeros((classes, *filtered.shape[1:]), np.float32)
        small[forest.classes_] = chances.T.reshape(-1, *filtered.shape[1:])
        rows, columns = (
            np.minimum(np.arange(n) // stride, m - 1)
            for n, m in zip((height, width), small.shape[1:], strict=True)
        )
        result[row] = small[:, rows[:, None], columns]
    return result


def _filtered(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of an image (channels, height, width): each channel, and at each scale its mean, gradient, curvature
    and
    spread, (filters, height, width)."""
    from scipy import ndimage

    found: list[NDArray[Any]] = []
    for channel in image.astype(np.float32) / 255:
        found.append(channel)
        for scale in SCALES:
            mean = ndimage.gaussian_filter(channel, scale)
            found += [
                mean,
                ndimage.gaussian_gradient_magnitude(channel, scale),
                ndimage.gaussian_laplace(channel, scale),
                np.sqrt(np.maximum(ndimage.gaussian_filter(channel**2, scale) - mean**2, 0)),
            ]
    return np.stack(found).astype(np.float32)
