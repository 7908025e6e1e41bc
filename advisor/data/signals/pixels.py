"""Images in memory: one size for all, grey or colour, alpha laid on white."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from advisor.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_SIDE = 224
"""Images are brought to at most this many pixels on the longer side (He et al. 2016
and most since train on as many)."""
MOST_CHANNELS = 16
LUMA = (0.299, 0.587, 0.114)
"""Grey of a colour (ITU-R BT.601, as Pillow has it)."""
BYTE, MOST_BITS = 8, 16


def bits_of(largest: float) -> int:
    """Bits that whole numbers up to this one need, from 8: cameras and scanners
    leave the upper of 16 bits empty."""
    return min(max(int(largest).bit_length(), BYTE), MOST_BITS)


def byte_scale(bits: int) -> float:
    """What values of this many bits are multiplied by to fill a byte."""
    return 255 / ((1 << bits) - 1)


def capped(height: int, width: int, most: int = MOST_SIDE) -> tuple[int, int]:
    """The size with its longer side at most so long, the aspect kept, no side below one pixel."""
    scale = min(1.0, most / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def common_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) that images of these sizes are brought to: the median of each side, capped."""
    heights, widths = np.array(sizes).T
    return capped(round(float(np.median(heights))), round(float(np.median(widths))))


def on_white(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 4, h, w) with alpha last -> (n, 3, h, w) as they look on white paper."""
    result = np.empty((len(images), 3, *images.shape[2:]), np.uint8)
    for start in range(0, len(images), 1024):
        part = images[start : start + 1024].astype(np.uint32)
        alpha = part[:, 3:]
        result[start : start + 1024] = (part[:, :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return result


def brought_to(images: NDArray[np.uint8], shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """Images (n, c, h, w) -> (n, *shape): grey becomes colour or colour grey, sizes as ``fitted``.

    UserError where the channels are of another kind (five bands are no colour).
    """
    channels = images.shape[1]
    if channels != shape[0]:
        if {channels, shape[0]} != {1, 3}:
            raise UserError(
                f"{where}: the images have {channels} channels, the training images {shape[0]}; expected as "
                "many (only grey and colour images are converted)"
            )
        if channels == 1:
            images = np.repeat(images, 3, axis=1)
        else:
            images = np.rint(np.tensordot(images, np.array(LUMA), axes=(1, 0))).astype(np.uint8)[:, None]
    if images.shape[2:] == shape[1:]:
        return images
    from PIL import Image

    result = np.empty((len(images), *shape), np.uint8)
    for row, image in zip(result, images, strict=True):
        for own, plane in zip(row, image, strict=True):
            own[:] = fitted(Image.fromarray(plane), (shape[1], shape[2]))[0]
    return result


def fitted(image: Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image of mode L or RGB -> (c, height, width): scaled with its aspect kept, centred.

    What is left on two sides gets the mean colour of the image's border: bars of another colour would be
    edges that tell the shape of the original.
    """
    from PIL import Image as Images

    height, width = size
    if image.size != (width, height):
        scale = min(width / image.width, height / image.height)
        inner = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
        image = image.resize(inner, Images.Resampling.BILINEAR if scale > 1 else Images.Resampling.BOX)
    pixels = _planes(image)
    if pixels.shape[1:] == (height, width):
        return pixels
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    result = np.empty((len(pixels), height, width), np.uint8)
    result[:] = np.rint(border.mean(axis=1)).astype(np.uint8)[:, None, None]
    top, left = (height - pixels.shape[1]) // 2, (width - pixels.shape[2]) // 2
    result[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    return result


def _planes(image: Image) -> NDArray[np.uint8]:
    array: NDArray[Any] = np.asarray(image, np.uint8)
    return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
