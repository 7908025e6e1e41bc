"""Mask files: decoded without a change to their values, and brought to the size that images are brought
to."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.data.masks.palette import RawMask
from advisor.data.signals.image_worker import MOST_PIXELS
from advisor.errors import UserError, shown
from advisor.tasks import UNLABELLED

FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
"""Those that keep every value: JPEG and WebP mix the classes at their borders."""
MOST_VALUES = 255
"""A mask of more values is a photograph, or was smoothed."""


def read_mask(path: Path, name: str) -> tuple[RawMask, bool]:
    """The values of a mask file, int32 (height, width), and whether they are colours. name: for messages.

    UserError where it is damaged, or no mask.
    """
    from PIL import Image, UnidentifiedImageError

    where = f"the mask '{shown(name, 80)}'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=(*FORMATS, "JPEG", "WEBP")) as image:
                if image.format not in FORMATS:
                    raise UserError(
                        f"{where} is a {image.format} file, which mixes the classes at their borders; save "
                        f"masks "
                        "as PNG"
                    )
                if image.size[0] * image.size[1] > MOST_PIXELS:
                    raise UserError(f"{where} declares more than {MOST_PIXELS:,} pixels; leave it out")
                values, coloured = _values(image)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{where} is no image; expected a PNG file") from error
    except Exception as error:  # Pillow's readers raise anything on damaged files
        raise UserError(
            f"{where} is damaged ({shown(error, 80)}); repair it or leave its image out"
        ) from error
    count = len(np.unique(values))
    if count > MOST_VALUES:
        raise UserError(
            f"{where} has {count:,} values; it is not a mask, or was smoothed when it was resized: expected "
            "a number or a colour for each class"
        )
    return values, coloured


def _values(image: object) -> tuple[RawMask, bool]:
    from PIL import Image

    assert isinstance(image, Image.Image)
    if image.mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
        return packed(np.asarray(image.convert("RGB")))
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[..., 0].astype(np.int32), False
    array = np.asarray(image)
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise ValueError("its values are no whole numbers")
    if array.size and (array.min() < 0 or array.max() >= 1 << 16):
        raise ValueError("its values are not between 0 and 65,535")
    return array.astype(np.int32), False


def packed(colours: NDArray[np.uint8]) -> tuple[RawMask, bool]:
    """Colours (..., 3) as one number each, and whether any of them is no grey; greys are their brightness."""
    wide = colours.astype(np.int32)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    if (red == green).all() and (green == blue).all():
        return red, False
    return red << 16 | green << 8 | blue, True


def as_colours(values: RawMask) -> RawMask:
    """Greys as ``packed`` gives colours: what a mask without any colour has in a set of coloured ones."""
    return values << 16 | values << 8 | values


def placed(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where an image of this size lies in one of another: top, left, height and width (see
    ``pixels.fitted``)."""
    if size == into:
        return 0, 0, *into
    (height, width), (rows, columns) = size, into
    scale = min(columns / width, rows / height)
    inner_width, inner_height = max(round(width * scale), 1), max(round(height * scale), 1)
    return (rows - inner_height) // 2, (columns - inner_width) // 2, inner_height, inner_width


def nearest(values: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """(height, width) values at another size, each the nearest one."""
    if values.shape == size:
        return values
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(values.shape, size, strict=True)
    )
    return values[np.ix_(rows, columns)]


def fitted_mask(codes: NDArray[np.uint8], into: tuple[int, int]) -> NDArray[np.uint8]:
    """Class codes brought to a size as their image is; UNLABELLED where the image has none."""
    top, left, height, width = placed((codes.shape[0], codes.shape[1]), into)
    result = np.full(into, UNLABELLED, np.uint8)
    result[top : top + height, left : left + width] = nearest(codes, (height, width))
    return result


def as_png(values: NDArray[Any]) -> bytes:
    """A mask as a PNG file: numbers (height, width), or colours (height, width, 3)."""
    from PIL import Image

    dtype = np.uint8 if values.ndim == 3 or values.max(initial=0) <= UNLABELLED else np.uint16
    stream = io.BytesIO()
    Image.fromarray(values.astype(dtype)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
