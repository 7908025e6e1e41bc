"""What a network for series or images has to beat: MiniRocket's fixed convolutions or histograms of oriented
gradients (Dalal and Triggs 2005), with a ridge model on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset, Signals
from advisor.kinds import Kind
from advisor.networks.kernels import FEATURES, KERNELS, Matrix, MiniRocket, whole
from advisor.tasks import RowTarget

FEWER_FEATURES, FEW_ROWS = 2_016, 2_000
"""With more rows than this, this many features: the ridge model's time grows with
the cube of the smaller of the two."""
MOST_ROWS = 10_000
"""The baselines are fitted on this many rows at most, evenly spread."""
WORK = 4e9
"""Comparisons of a point with a quantile that a set may take; of long or many
series fewer features are made."""
ALPHAS = np.logspace(-3, 3, 10)
"""Of the ridge model, as MiniRocket's authors choose it by leaving one row out."""
HOG_ORIENTATIONS, HOG_CELLS = 9, 7
"""Histograms of this many directions, in this many cells along each side."""
CHUNK = 256
"""Rows that are transformed at once: bounds the memory."""


def gradient_histograms(values: NDArray[np.generic]) -> Matrix:
    """Histograms of oriented gradients of all cells: (rows, channels, height, width) -> (rows, features)."""
    rows = [_histograms(np.asarray(values[s : s + CHUNK], np.float32)) for s in range(0, len(values), CHUNK)]
    return np.concatenate(rows)


def _histograms(values: Matrix) -> Matrix:
    edges = [(0, max(0, 2 - side)) for side in values.shape[2:]]  # a gradient takes two points
    down, across = np.gradient(np.pad(values, ((0, 0), (0, 0), *edges), mode="edge"), axis=(2, 3))
    size = np.hypot(down, across)
    strongest = size.argmax(axis=1)[:, None]  # of colours, the one that changes most at a place
    down, across, size = (np.take_along_axis(one, strongest, axis=1)[:, 0] for one in (down, across, size))
    direction = np.arctan2(down, across) % np.pi / np.pi * HOG_ORIENTATIONS
    low = np.floor(direction).astype(int) % HOG_ORIENTATIONS
    share = direction - np.floor(direction)
    height, width = size.shape[1:]
    cells = min(HOG_CELLS, height, width)
    row_edges, column_edges = np.arange(cells) * height // cells, np.arange(cells) * width // cells
    found = np.empty((len(values), cells, cells, HOG_ORIENTATIONS), np.float32)
    for orientation in range(HOG_ORIENTATIONS):
        own = size * (
            (low == orientation) * (1 - share) + ((low + 1) % HOG_ORIENTATIONS == orientation) * share
        )
        found[..., orientation] = np.add.reduceat(
            np.add.reduceat(own, row_edges, axis=1), column_edges, axis=2
        )
    blocks = np.stack(
        [found[:, i : cells - 1 + i, j : cells - 1 + j] for i in (0, 1) for j in (0, 1)], axis=-1
    )
    blocks = blocks if blocks.size else found[..., None]
    blocks = blocks / (np.sqrt(np.square(blocks).sum(axis=(-2, -1), keepdims=True)) + 1e-3)
    return np.asarray(blocks.reshape(len(values), -1), np.float32)


@dataclass(frozen=True)
class Ridge:
    """A ridge model of one or several targets on scaled features, its penalty chosen by leaving one row out.

    left_out: each training row's prediction by the model without it.
    """

    mean: Matrix
    scale: Matrix
    weights: Matrix
    offset: NDArray[np.float64]
    left_out: NDArray[np.float64]

    @classmethod
    def fit(cls, features: Matrix, target: NDArray[np.float64]) -> Ridge:
        """features: (rows, features);
        target: (rows, outputs)."""
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scaled = (features - mean) / np.where(scale > 0, scale, 1)
        offset = target.mean(axis=0)
        centred = target - offset
        wide = scaled.shape[1] > len(scaled)
        squares = np.asarray(scaled @ scaled.T if wide else scaled.T @ scaled, np.float64)
        eigenvalues, vectors = np.linalg.eigh(squares)
        kept = eigenvalues > eigenvalues[-1] * 1e-9
        eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
        rows = vectors if wide else scaled @ vectors / np.sqrt(eigenvalues)  # the left singular vectors
        turned, best = rows.T @ centred, None
        for alpha in ALPHAS * len(scaled) / 100:
            shrunk = eigenvalues / (eigenvalues + alpha)
            leverage = np.square(rows) @ shrunk + 1 / len(scaled)
            left_out = target - (centred - (rows * shrunk) @ turned) / np.maximum(1 - leverage, 1e-6)[:, None]
            error = float(np.square(left_out - target).mean())
            if best is None or error < best[0]:
                best = error, alpha, left_out
        assert best is not None
        inner = vectors * (1 / (eigenvalues + best[1]))
        weights = (
            scaled.T @ (inner @ (vectors.T @ centred)) if wide else inner @ (vectors.T @ (scaled.T @ centred))
        )
        return cls(mean, np.where(scale > 0, scale, 1), np.asarray(weights, np.float32), offset, best[2])

    def predict(self, features: Matrix) -> NDArray[np.float64]:
        """Shape (rows, outputs)."""
        return np.asarray((features - self.mean) / self.scale @ self.weights + self.offset, np.float64)


def fit_signal_baseline(
    train: Dataset[RowTarget, Signals], seed: int = 0
) -> tuple[str, Callable[[Signals], NDArray[np.float64]]]:
    """Its name, and a function: features -> probabilities (rows, classes) or predictions (rows,)."""
    picked = np.linspace(0, len(train) - 1, min(len(train), MOST_ROWS)).astype(int)
    values, target = train.features.values[picked], train.target[picked]
    transform: Callable[[NDArray[Any]], Matrix] = gradient_histograms
    name = "gradient histograms"
    if values.ndim == 3:
        series = whole(values)
        most = FEATURES if len(series) <= FEW_ROWS else FEWER_FEATURES
        affordable = int(WORK / (len(series) * series.shape[2]))
        kernels = MiniRocket.fit(series, max(len(KERNELS), min(most, affordable)), seed)
        name = "MiniRocket"

        def transform(values: NDArray[Any]) -> Matrix:
            return kernels.transform(whole(values))

    features = transform(values)
    if not train.task.of_classes:
        center, spread = float(target.mean()), float(target.std()) or 1.0
        model = Ridge.fit(features, ((target - center) / spread)[:, None])
        return name, lambda new: model.predict(transform(new.values))[:, 0] * spread + center
    codes = target.astype(int)
    model = Ridge.fit(features, 2.0 * np.eye(len(train.classes))[codes] - 1)
    sharpness = _sharpness(model.left_out, codes)
    return name, lambda new: _shares(sharpness * model.predict(transform(new.values)), len(codes))


def _shares(scores: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Softmax, and never surer than this many training rows can tell (Laplace's rule of succession)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    return np.asarray((rows * shares + 1) / (rows + scores.shape[1]))


def _sharpness(left_out: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """The factor that makes probabilities of the ridge model's scores, by the
    log loss of rows that were left out."""
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        shares = _shares(np.exp(power) * left_out, len(codes))[np.arange(len(codes)), codes]
        return float(-np.log(shares).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x))


OWN_BASELINES: Mapping[Kind, Callable[..., tuple[str, Callable[..., NDArray[np.float64]]]]] = {
    "image": fit_signal_baseline,
    "sequence": fit_signal_baseline,
}
"""Beside those that every kind of rows has: (training rows, seed) -> the baseline's name and function."""
