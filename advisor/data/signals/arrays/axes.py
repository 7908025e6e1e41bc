"""Which axis of an array is which, and so what its rows are."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.data.signals.pixels import MOST_CHANNELS
from advisor.data.signals.rows import without_infinities
from advisor.errors import UserError
from advisor.kinds import GridKind

SMALLEST_SQUARE = 8
"""Numbers of shape (rows, side, side) are images from this side on: series have as many
channels as points by chance only."""


def kind_of_array(shape: Sequence[int], dtype: np.dtype[Any]) -> GridKind:
    """Images: four dimensions, three of whole numbers of a byte or of a square, two of
    bytes of a square; else sequences."""
    pixels = dtype in (np.uint8, np.bool_)
    if len(shape) == 3:
        pixels |= shape[1] == shape[2] >= SMALLEST_SQUARE
    elif len(shape) == 2:
        pixels &= square_side(shape[1]) >= SMALLEST_SQUARE
    return "image" if len(shape) == 4 or (pixels and len(shape) > 1) else "sequence"


def square_side(count: int) -> int:
    """Of a square of this many pixels; 0 where they make none."""
    side = math.isqrt(count)
    return side if side * side == count else 0


def points_before_channels(array: NDArray[Any]) -> bool:
    """Whether (rows, a, b) numbers are (rows, points, channels), as Keras and tslearn keep them.

    Points are the axis whose order means more: along it neighbours resemble each other, and others less.
    (rows, channels, points), which PyTorch and the archive have, is what they are but for clear signs.
    """
    middle, last = array.shape[1:]
    if last == 1 or middle == 1:
        return bool(middle > last)
    step = -(-array.size // LAYOUT_NUMBERS)
    some = without_infinities(array[::step])[0].astype(np.float64)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # places without any number, or with one number only
        # each place's own mean and spread over the rows taken out: neither a channel's unit nor a
        # shape that all rows share is to decide
        scaled = np.nan_to_num((some - np.nanmean(some, axis=0)) / np.nanstd(some, axis=0))
    signs = _order_matters(np.swapaxes(scaled, 1, 2)) - _order_matters(scaled)
    return bool(signs > (CLEAR_SIGN if middle > last else 2 * CLEAR_SIGN))


def _order_matters(scaled: NDArray[np.float64]) -> float:
    """By how much neighbours along the last axis correlate more than any two of its places do."""
    places = scaled.shape[2]
    neighbours = np.mean(scaled[..., 1:] * scaled[..., :-1])
    pairs = np.mean(scaled.sum(axis=2) ** 2 - (scaled**2).sum(axis=2)) / (places * (places - 1))
    return float(neighbours - pairs)


LAYOUT_NUMBERS = 4_000_000
"""The order of the axes is judged by at most this many numbers."""
CLEAR_SIGN = 0.1
"""The axes are taken for exchanged where the order of the second means so much more;
twice that where it is not the longer."""


def channel_axis(shape: Sequence[int], where: str) -> int:
    """1 or 3: the axis that has few entries, the last one where both have."""
    last, first = shape[3], shape[1]
    if last in (1, 3, 4):
        return 3
    if first in (1, 3, 4):
        return 1
    few = min(first, last)
    if few > MOST_CHANNELS:
        raise UserError(
            f"{where} has shape {tuple(shape)}; expected images as (rows, height, width, channels) or "
            f"(rows, channels, height, width) with at most {MOST_CHANNELS} channels"
        )
    return 3 if last == few else 1
