"""Scenes of one to four of scikit-learn's digits with their masks and boxes: something to try masks on
without a
download (``sklearn:digit-scenes``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SOURCE = "sklearn:digit-scenes"
SIDE, MOST_DIGITS = 64, 4
SIZES = (16, 24)
"""Least and largest side of a digit in a scene."""
INK = 0.3
"""A point belongs to a digit from this share of full ink on."""
NOISE, LIGHT = 0.06, 0.25
"""Deviation of the noise, and the brightest ground, as shares of white."""
TRIES = 20
"""To find a place for a digit that touches no other one."""
TEST_DIGITS = 397
"""The last of the 1,797 digits, which only scenes of the test part show."""


@dataclass(frozen=True)
class DigitScenes:
    """images: uint8 (rows, 64, 64). masks: uint8, alike: 0 for the ground, 1 + the digit on its ink.
    boxes: float64 (boxes, 4): left, top, right, bottom; codes: the digit of each; ends: as
    ``tasks.Boxes``."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    codes: NDArray[np.int64]
    ends: NDArray[np.int64]


def digit_scenes(rows: int, seed: int = 0, part: Literal["train", "test"] = "train") -> DigitScenes:
    """This many scenes, always the same ones for a seed. No digit of a training scene is in a test scene."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    own = slice(-TEST_DIGITS, None) if part == "test" else slice(None, -TEST_DIGITS)
    glyphs, labels = bunch.images[own] / 16, bunch.target[own]
    draw = np.random.default_rng([seed, part == "test"])
    images, masks = np.zeros((rows, SIDE, SIDE), np.uint8), np.zeros((rows, SIDE, SIDE), np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    codes: list[int] = []
    ends: list[int] = []
    for row in range(rows):
        top_light, bottom_light = draw.uniform(0, LIGHT, 2).tolist()
        ground = np.linspace(top_light, bottom_light, SIDE)[:, None] + np.zeros((1, SIDE))
        for _ in range(int(draw.integers(1, MOST_DIGITS + 1))):
            which, size = int(draw.integers(len(glyphs))), int(draw.integers(SIZES[0], SIZES[1] + 1))
            glyph = _enlarged(glyphs[which], size)
            for _ in range(TRIES):
                top, left = (int(place) for place in draw.integers(0, SIDE - size + 1, 2))
                square = slice(top, top + size), slice(left, left + size)
                if not masks[row][square].any():
                    break
            else:
                continue
            ground[square] = np.maximum(ground[square], glyph)
            ink = glyph >= INK
            masks[row][square][ink] = 1 + labels[which]
            rows_of, columns_of = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
            boxes.append(
                (left + columns_of[0], top + rows_of[0], left + columns_of[-1] + 1, top + rows_of[-1] + 1)
            )
            codes.append(int(labels[which]))
        ends.append(len(codes))
        images[row] = np.clip(255 * (ground + draw.normal(0, NOISE, ground.shape)), 0, 255)
    return DigitScenes(
        images, masks, np.array(boxes, np.float64), np.array(codes, np.int64), np.array(ends, np.int64)
    )


def _enlarged(glyph: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """An image of 8 x 8 at a larger size, bilinear."""
    at = (np.arange(size) + 0.5) * len(glyph) / size - 0.5
    low = np.clip(np.floor(at).astype(int), 0, len(glyph) - 1)
    high, share = np.minimum(low + 1, len(glyph) - 1), np.clip(at - low, 0, 1)
    rows = glyph[low] * (1 - share[:, None]) + glyph[high] * share[:, None]
    return np.asarray(rows[:, low] * (1 - share) + rows[:, high] * share)
