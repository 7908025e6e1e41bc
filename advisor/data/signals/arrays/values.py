"""Numbers of any type -> images as bytes, sequences as floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.data.signals.arrays.axes import channel_axis, square_side
from advisor.data.signals.pixels import BYTE, MOST_SIDE, bits_of, brought_to, byte_scale, capped, on_white
from advisor.data.signals.rows import without_infinities
from advisor.errors import UserError


def with_length(values: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Sequences cut, or filled with NaN at their end, to a length."""
    if values.shape[2] >= length:
        return values[:, :, :length]
    return np.pad(values, ((0, 0), (0, 0), (0, length - values.shape[2])), constant_values=np.nan)


def as_sequences(array: NDArray[Any], where: str) -> tuple[NDArray[np.float32], int]:
    """(n, length) or (n, channels, length) numbers -> float32 (n, channels,
    length), and how many were infinite."""
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where} holds {array.dtype}; expected numbers")
    if array.ndim not in (2, 3):
        raise UserError(
            f"{where} has shape {array.shape}; expected sequences as (rows, channels, length) or (rows, "
            "length)"
        )
    return without_infinities(array[:, None] if array.ndim == 2 else array)


def bits_of_array(array: NDArray[Any]) -> int:
    """Those of the largest pixel, where pixels are whole numbers of more than a byte; else a byte's."""
    return bits_of(array.max(initial=0)) if array.dtype.kind in "iu" and array.itemsize > 1 else BYTE


def as_images(
    array: NDArray[Any],
    where: str,
    like: tuple[int, ...] | None = None,
    bits: int = BYTE,
    most: int = MOST_SIDE,
) -> NDArray[np.uint8]:
    """(n, h, w), (n, h, w, c), (n, c, h, w) or, of squares, (n, h * h) -> uint8 (n, c,
    h, w), at most ``most`` pixels wide.

    Floats in 0..1 or 0..255, booleans, and whole numbers up to 65,535 are read;
    an alpha channel is laid on white.
    like: channels and size to be brought to.
    bits: those that the largest number may have, scaled to a byte.
    """
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where} holds {array.dtype}; expected images as numbers")
    if array.ndim == 2 and (side := square_side(array.shape[1])):
        array = array.reshape(len(array), side, side)
    if array.ndim not in (3, 4):
        raise UserError(
            f"{where} has shape {array.shape}; expected images as (rows, height, width[, channels])"
        )
    array = array[..., None] if array.ndim == 3 else array
    axis = channel_axis(array.shape, where)
    images = as_bytes(array, where, bits)
    images = images if axis == 1 else np.moveaxis(images, 3, 1)
    if images.shape[1] == 4:
        images = on_white(images)
    images = np.ascontiguousarray(images)
    size = capped(images.shape[2], images.shape[3], most)
    if like is None:
        return brought_to(images, (images.shape[1], *size), where)
    return brought_to(images, like, where)


def as_bytes(array: NDArray[Any], where: str, bits: int) -> NDArray[np.uint8]:
    """Pixels of any numeric type as bytes; whole numbers of this many bits."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(
            f"{where} has pixels that are missing or infinite; expected numbers in 0..1 or 0..255"
        )
    if array.dtype.kind == "f":
        if low >= 0 and high <= 255:
            scale = 255 if high <= 1 else 1
            return _rounded(array, scale)
        raise UserError(
            f"{where} has pixels from {low:g} to {high:g}; expected numbers in 0..1 or 0..255: rescale them"
        )
    if low < 0 or high > 65535:
        raise UserError(f"{where} has pixels from {low} to {high}; expected 0..255, or 0..65535 for 16 bits")
    return array.astype(np.uint8) if bits == BYTE and high <= 255 else _rounded(array, byte_scale(bits))


def _rounded(array: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    result = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), 4096):  # a copy of the whole in floats would be eight times as large
        result[start : start + 4096] = np.rint(np.minimum(array[start : start + 4096] * scale, 255))
    return result
