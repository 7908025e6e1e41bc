"""Fixed convolutions of series: MiniRocket (Dempster, Schmidt and Webb 2021, arXiv:2012.08791).

84 fixed kernels of length 9 at several dilations; of each, the shares of points above some quantiles of its
output are the features. Pure NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Points = NDArray[np.floating]

SPAN = 9
"""Weights of a kernel."""
KERNELS = np.array(list(combinations(range(SPAN), 3)))
"""The three of nine weights that are 2; the others are -1."""
FEATURES, MOST_DILATIONS = 9_996, 32
"""MiniRocket's defaults."""
NETWORK = "kernels"
"""The configuration's word for a linear network on these features."""
_CHUNK = 256
"""Rows that are transformed at once: bounds the memory."""


def kernel_features(configuration: Mapping[str, Any]) -> int | None:
    """How many features of fixed convolutions a configuration asks for; None where its network has none."""
    return int(configuration["kernel_features"]) if configuration.get("network") == NETWORK else None


@dataclass(frozen=True)
class MiniRocket:
    """Fitted kernels: of each combination of a dilation and a kernel its channels, and
    the quantiles that it is held against.

    quantiles: one array (84, features per kernel) per dilation.
    """

    dilations: NDArray[np.int64]
    quantiles: tuple[NDArray[np.float32], ...]
    channels: tuple[tuple[NDArray[np.int64], ...], ...]

    @classmethod
    def fit(cls, values: Matrix, features: int = FEATURES, seed: int = 0) -> MiniRocket:
        """values: (rows, channels, points) without gaps, of at least 9 points."""
        draw = np.random.default_rng(seed)
        rows, channels, points = values.shape
        dilations, counts = dilations_of(points, features)
        fractions = (
            np.arange(1, len(KERNELS) * counts.sum() + 1) * (np.sqrt(5) + 1) / 2 % 1
        )  # a low-discrepancy sequence
        most = np.log2(min(channels, 9) + 1)
        quantiles, chosen, used = [], [], 0
        for dilation, count in zip(dilations, counts, strict=True):
            own = np.empty((len(KERNELS), count), np.float32)
            of_kernels = []
            for k, kernel in enumerate(KERNELS):
                some = np.sort(draw.choice(channels, int(2 ** draw.uniform(0, most)), replace=False))
                row = values[draw.integers(rows)][None, some]
                output = _output(*_parts(row, dilation), kernel)[0]
                own[k] = np.quantile(output, fractions[used : used + count])
                used += count
                of_kernels.append(some)
            quantiles.append(own)
            chosen.append(tuple(of_kernels))
        return cls(dilations, tuple(quantiles), tuple(chosen))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The kernels as arrays by name; ``from_arrays`` takes them back."""
        chosen = [some for of_kernels in self.channels for some in of_kernels]
        return {
            "dilations": self.dilations,
            "quantiles": np.concatenate([own.ravel() for own in self.quantiles]),
            "quantiles_per_kernel": np.array([own.shape[1] for own in self.quantiles]),
            "channels": np.concatenate(chosen).astype(np.int64),
            "channels_per_kernel": np.array([len(some) for some in chosen]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MiniRocket:
        """The kernels of which ``arrays`` made arrays."""
        size, per_kernel = len(KERNELS), arrays["quantiles_per_kernel"]
        parts = np.split(arrays["quantiles"], np.cumsum(per_kernel * size)[:-1])
        chosen = np.split(arrays["channels"], np.cumsum(arrays["channels_per_kernel"])[:-1])
        return cls(
            arrays["dilations"],
            tuple(part.reshape(size, -1) for part in parts),
            tuple(tuple(chosen[n * size : (n + 1) * size]) for n in range(len(per_kernel))),
        )

    def transform(self, values: Matrix) -> Matrix:
        """Shape (rows, features): the shares of points at which a kernel's output is above a quantile."""
        parts = [self._transform(values[start : start + _CHUNK]) for start in range(0, len(values), _CHUNK)]
        return (
            np.concatenate(parts) if parts else np.zeros((0, sum(q.size for q in self.quantiles)), np.float32)
        )

    def _transform(self, values: Matrix) -> Matrix:
        found = []
        exact = values.astype(np.float64)  # as in exported files: near a quantile the last digits decide
        for number, (dilation, quantiles) in enumerate(zip(self.dilations, self.quantiles, strict=True)):
            base, shifted = _parts(exact, dilation)
            padding = 4 * dilation
            for k, (kernel, own) in enumerate(zip(KERNELS, quantiles, strict=True)):
                some = self.channels[number][k]
                output = _output(base[:, some], shifted[:, :, some], kernel)
                if (number + k) % 2:  # half of the kernels look at what needs no padding
                    output = output[:, padding:-padding]
                found.append(
                    np.stack([(output > quantile).mean(axis=1, dtype=np.float32) for quantile in own], axis=1)
                )
        return np.concatenate(found, axis=1)


def dilations_of(points: int, features: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The dilations for series of this many points, and the features of each kernel at each."""
    per_kernel = max(1, features // len(KERNELS))
    most = min(per_kernel, MOST_DILATIONS)
    spread = np.logspace(0, np.log2((points - 1) / 8), most, base=2).astype(np.int64)
    dilations, counts = np.unique(spread, return_counts=True)
    counts = (counts * (per_kernel / most)).astype(np.int64)
    for extra in range(per_kernel - int(counts.sum())):
        counts[extra % len(counts)] += 1
    return dilations, counts


def _parts(values: Points, dilation: int) -> tuple[Points, Points]:
    """Minus the sum over a kernel's nine places, and three times the values at each:
    (rows, channels, points), (9, ...)."""
    shifted = np.zeros((SPAN, *values.shape), values.dtype)
    points = values.shape[2]
    for place in range(SPAN):
        shift = (place - SPAN // 2) * int(dilation)
        if abs(shift) < points:
            to = slice(max(0, -shift), points - max(0, shift))
            shifted[place, :, :, to] = values[:, :, max(0, shift) : points + min(0, shift)]
    return -shifted.sum(axis=0), 3 * shifted


def _output(base: Points, shifted: Points, kernel: NDArray[np.int64]) -> Points:
    """The convolution with one kernel, summed over the channels: (rows, points)."""
    return np.asarray((base + shifted[kernel[0]] + shifted[kernel[1]] + shifted[kernel[2]]).sum(axis=1))


def whole(values: NDArray[np.floating]) -> Matrix:
    """Series without gaps: a missing point is the one before it (at the beginning the
    one after), of at least 9 points."""
    filled = np.array(values, np.float32)
    missing = np.isnan(filled)
    if missing.any():
        place = np.where(missing, 0, np.arange(filled.shape[2]))
        place = np.maximum.accumulate(place, axis=2)
        first = np.argmax(~missing, axis=2)[..., None]
        filled = np.nan_to_num(np.take_along_axis(filled, np.maximum(place, first), axis=2))
    short = max(0, SPAN - filled.shape[2])
    return np.pad(filled, ((0, 0), (0, 0), (0, short)))
