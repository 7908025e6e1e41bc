"""Questions that a simple classifier answers: may an image be mirrored, does the
scale of a series carry the class.

Each is cross-fitted on at most a few thousand rows with linear discriminants (ridge regression for numbers)
over at most a few hundred inputs, by NumPy alone. Images are scaled down to 8 x 8: finer ones tempt the probe
to lean on what happens to be on one side. Sequences are also seen through random kernels, which know local
patterns wherever they are (Dempster et al. 2020, ROCKET): on MNIST-1D their skill is 0.9, that of the points
alone 0.25, too little to tell a series from its reverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset

ProbeInputs = NDArray[np.float32]

INPUTS = 256
"""An image or a sequence is scaled down to about this many numbers to be compared with others."""
FINE_SIDE, PIECE_CELLS = 64, 2**22
COARSE_SIDE, COARSE_POINTS = 8, 64
"""... and to this many pixels a side, or points of all channels together, for a probe."""
KERNELS, KERNEL_POINTS, KERNEL_CELLS = 100, 7, 150_000
"""Random kernels, their length, and the cells of one channel that they are laid over."""
FOLDS = 3
SHRINKAGE = 0.5
"""Share of the mean variance in the covariance within classes (Friedman 1989):
fewer rows than inputs are usual here."""
CHANCE_Z = 2.33
"""A classifier has skill only when it is better than chance by this many standard errors (one-sided 1 %)."""
LEAST_SKILL = 0.1
"""... and by so much: of the way from chance to perfect, or of the variance of a target in numbers."""
LEAST_ROWS = 20


def thinned(values: NDArray[Any]) -> NDArray[Any]:
    """A view of images with every n-th pixel, so many that no side has twice
    FINE_SIDE or more; sequences as they are."""
    if values.ndim == 3:
        return values
    down, across = (max(side // FINE_SIDE, 1) for side in values.shape[2:])
    return values[:, :, ::down, ::across]


def in_pieces(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some rows at a time, so that their copies in floats take little memory."""
    size = max(PIECE_CELLS // int(np.prod(values.shape[1:])), 1)
    for start in range(0, len(values), size):
        yield values[start : start + size]


def scaled_down(values: NDArray[np.uint8], side: int) -> ProbeInputs:
    """Images (n, c, h, w) -> float32 (n, c, at most side, at most side) in 0..1,
    each the mean of a block of pixels."""
    parts = []
    for part in in_pieces(values):
        block = part.astype(np.float32) / np.float32(255)
        parts.append(_blocks(_blocks(block, 2, side), 3, side))
    return np.concatenate(parts)


def shortened(values: NDArray[np.float32], points: int) -> ProbeInputs:
    """Sequences (n, c, length) -> (n, c, at most points), each the mean of a stretch; a
    missing point is its series' mean."""
    return _blocks(_filled(values), 2, points)


def _filled(values: NDArray[np.float32]) -> ProbeInputs:
    known = ~np.isnan(values)
    mean = np.where(known, values, 0).sum(axis=2, dtype=np.float64) / np.maximum(known.sum(axis=2), 1)
    return np.where(known, values, mean[..., None]).astype(np.float32)


def local_patterns(values: NDArray[np.float32]) -> ProbeInputs:
    """Per random kernel (always the same ones) its largest response and the share of
    positive ones, anywhere in the row."""
    rng = np.random.default_rng(0)
    filled = _filled(values)
    length = filled.shape[2]
    size = min(KERNEL_POINTS, length)
    widest = max((length - 1) // max(size - 1, 1), 1)
    features = np.empty((len(filled), 2 * KERNELS), np.float32)
    for kernel in range(KERNELS):
        weights = rng.normal(size=size)
        weights -= weights.mean()
        dilation = int(widest ** rng.random())
        channel = filled[:, rng.integers(filled.shape[1])]
        reach = length - (size - 1) * dilation
        steps = (
            weight * channel[:, at * dilation : at * dilation + reach]
            for at, weight in enumerate(weights.tolist())
        )
        response = sum(steps, np.zeros((len(filled), reach), np.float32))
        features[:, 2 * kernel], features[:, 2 * kernel + 1] = (
            response.max(axis=1),
            (response > 0).mean(axis=1),
        )
    return features


def kernel_rows(count: int, length: int) -> NDArray[np.int64]:
    """Which of this many rows the kernels are laid over."""
    most = max(KERNEL_CELLS // max(length, 1), 200)
    return (
        np.arange(count)
        if count <= most
        else np.sort(np.random.default_rng(0).choice(count, most, replace=False))
    )


def coarse(values: NDArray[Any]) -> ProbeInputs:
    """Images in grey, or sequences, as the few numbers that a probe looks at."""
    if values.ndim == 4:
        return np.asarray(scaled_down(values, COARSE_SIDE).mean(axis=1).reshape(len(values), -1))
    values = values[:, :INPUTS]
    return shortened(values, max(COARSE_POINTS // values.shape[1], 1)).reshape(len(values), -1)


def _blocks(values: ProbeInputs, axis: int, count: int) -> ProbeInputs:
    size = values.shape[axis]
    if size <= count:
        return values
    starts = np.arange(count) * size // count
    widths = np.diff(np.append(starts, size)).astype(np.float32)
    sums = np.add.reduceat(values, starts, axis=axis)
    return np.asarray(
        sums / widths.reshape([-1 if own == axis else 1 for own in range(values.ndim)]), np.float32
    )


def embedded(values: NDArray[Any]) -> ProbeInputs:
    """Images or sequences as about INPUTS numbers a row, shape (n, inputs)."""
    channels = min(values.shape[1], INPUTS)
    each = max(INPUTS // channels, 1)
    if values.ndim == 4:
        small = scaled_down(values[:, :channels], max(math.isqrt(each), 1))
    else:
        small = shortened(values[:, :channels], each)
    return small.reshape(len(values), -1)


# ----------------------------------------------------------------------------------------------------- probes


@dataclass(frozen=True)
class ProbeTarget:
    """The target of the probed rows: class codes with their number, or numbers (classes 0)."""

    target: NDArray[np.int64] | NDArray[np.float64]
    classes: int


def answer_of(data: Dataset, rows: NDArray[np.int64]) -> ProbeTarget:
    """The target of some rows; classes that none of them has are closed up."""
    own = data.target[rows]
    if not data.task.of_classes:
        return ProbeTarget(own.astype(np.float64), 0)
    found, codes = np.unique(own, return_inverse=True)
    return ProbeTarget(codes.astype(np.int64), len(found))


@dataclass(frozen=True)
class Skill:
    """plain: of probes on plain rows that they were not fitted on, 0 where it is not beyond chance;
    changed: of the same probes on changed versions of these rows."""

    plain: float
    changed: Mapping[str, float]

    def shares(self) -> dict[str, float | None]:
        """Per version its skill / that on plain rows; None where there is no skill."""
        return {name: skill / self.plain if self.plain else None for name, skill in self.changed.items()}


def skill(
    plain: ProbeInputs, others: Mapping[str, ProbeInputs], answer: ProbeTarget, least: float = LEAST_SKILL
) -> Skill:
    """Cross-fitted probes of plain rows and of changed versions of them.
    least: skill below it is none."""
    nothing = Skill(0.0, dict.fromkeys(others, 0.0))
    if len(plain) < LEAST_ROWS or answer.classes == 1 or not np.ptp(answer.target):
        return nothing
    predicted = {name: np.zeros(len(plain)) for name in ("", *others)}
    fold = np.random.default_rng(0).permutation(len(plain)) % FOLDS
    for number in range(FOLDS):
        inside, outside = fold == number, fold != number
        probe = _Probe(plain[outside], answer, outside)
        predicted[""][inside] = probe.predict(plain[inside])
        for name, inputs in others.items():
            predicted[name][inside] = probe.predict(inputs[inside])
    best = _skill(predicted[""], answer)
    if best < max(least, CHANCE_Z * _chance_error(answer)):
        return nothing
    return Skill(best, {name: _skill(predicted[name], answer) for name in others})


def has_skill(inputs: ProbeInputs, answer: ProbeTarget, least: float = LEAST_SKILL) -> bool | None:
    """Whether the inputs tell of the target beyond chance, by ``least`` or more; None for too few rows."""
    if len(inputs) < LEAST_ROWS:
        return None
    return skill(inputs, {}, answer, least).plain > 0


def _skill(predicted: NDArray[np.float64], answer: ProbeTarget) -> float:
    """0 is chance, 1 is perfect: of the mean recall of the classes, or the share of explained variance."""
    if not answer.classes:
        away = answer.target - answer.target.mean()
        return 1 - float(((predicted - answer.target) ** 2).sum() / (away**2).sum())
    right = predicted == answer.target
    recalls = np.bincount(answer.target, right) / np.bincount(answer.target)
    return float((recalls.mean() - 1 / answer.classes) / (1 - 1 / answer.classes))


def _chance_error(answer: ProbeTarget) -> float:
    """Standard error of ``_skill`` when every class is guessed alike often."""
    if not answer.classes:
        return 1 / math.sqrt(len(answer.target))
    share = 1 / answer.classes
    error = math.sqrt(share * (1 - share) * float((1 / np.bincount(answer.target)).sum())) / answer.classes
    return error / (1 - share)


class _Probe:
    """Linear discriminants with equal priors, or ridge regression, of standardized inputs."""

    def __init__(self, inputs: ProbeInputs, answer: ProbeTarget, rows: NDArray[np.bool_]) -> None:
        self._mean, spread = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
        self._scale = np.where(spread > 1e-6 * max(float(spread.max(initial=0)), 1e-12), spread, np.inf)
        scaled = self._scaled(inputs)
        width = scaled.shape[1]
        target = answer.target[rows]
        if not answer.classes:
            self._shift: float | None = float(target.mean())
            squares = scaled.T @ scaled
            ridge = SHRINKAGE * np.trace(squares) / width + 1e-6
            self._weights = np.linalg.solve(
                squares + ridge * np.eye(width), scaled.T @ (target - self._shift)
            )[:, None]
            self._bias = np.zeros(1)
            return
        counts = np.bincount(target.astype(np.int64), minlength=answer.classes)
        means = np.zeros((answer.classes, width))
        np.add.at(means, target.astype(np.int64), scaled)
        means /= np.maximum(counts, 1)[:, None]
        away = scaled - means[target.astype(np.int64)]
        within = away.T @ away / len(away)
        within = (1 - SHRINKAGE) * within + (SHRINKAGE * np.trace(within) / width + 1e-6) * np.eye(width)
        self._weights = np.linalg.solve(within, means.T)
        self._bias = np.where(counts > 0, -0.5 * (means * self._weights.T).sum(axis=1), -np.inf)
        self._shift = None

    def _scaled(self, inputs: ProbeInputs) -> NDArray[np.float64]:
        return np.asarray((inputs - self._mean) / self._scale, np.float64)

    def predict(self, inputs: ProbeInputs) -> NDArray[np.float64]:
        scores = self._scaled(inputs) @ self._weights + self._bias
        return (
            scores[:, 0] + self._shift
            if self._shift is not None
            else scores.argmax(axis=1).astype(np.float64)
        )
