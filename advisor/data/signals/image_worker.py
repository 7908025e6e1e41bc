"""What a worker process does with image files: read a header, decode. It loads
NumPy and Pillow and nothing else.

``python -m advisor.data.signals.image_worker`` is started by ``advisor.data.signals.image_decoding``: a
reader that crashes on a damaged file ends no more.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, WebPImagePlugin  # noqa: F401  else Pillow would load all its readers

from advisor.data import isolation
from advisor.data.signals.pixels import BYTE, LUMA, bits_of, byte_scale, fitted

MOST_PIXELS = 100_000_000
"""An image that declares more is refused unread: a small file may unpack to all the memory there is."""
KEY_BYTES = 1 << 16
"""The key of a file is a hash of so many of its first bytes and of its size."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""Whatever a file's name says, Pillow tries no other reader: that of EPS starts
Ghostscript on the content."""
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
_ORIENTATION = 0x0112


class ImageHeader(NamedTuple):
    """What is known of an image file, without decoding it where its values are bytes.
    problem: "" or why it cannot be read ("corrupt", "oversized");
    channels: 1 (grey) or 3;
    height, width: as it is shown, its EXIF orientation heeded;
    key: of its content;
    bits: those that its values need, at least 8."""

    problem: str
    channels: int = 0
    height: int = 0
    width: int = 0
    key: int = 0
    bits: int = BYTE


def header(file: str) -> ImageHeader:
    """Reads the beginning of a file; never raises."""
    try:
        with Path(file).open("rb") as stream:
            start = stream.read(KEY_BYTES)
            size = stream.seek(0, 2)
            stream.seek(0)
            digest = hashlib.blake2b(start + size.to_bytes(8, "little"), digest_size=8).digest()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(stream, formats=FORMATS)
                turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                width, height = image.size
                if width * height > MOST_PIXELS:
                    return ImageHeader("oversized")
                bits = (
                    bits_of(np.asarray(image).max(initial=0))
                    if image.mode.startswith("I") or image.mode == "F"
                    else BYTE
                )
            width, height = (height, width) if turned else (width, height)
            return ImageHeader(
                "", 1 if image.mode in _GREY else 3, height, width, int.from_bytes(digest, "little"), bits
            )
    except Image.DecompressionBombError:
        return ImageHeader("oversized")
    except Exception:  # noqa: BLE001  Pillow's readers raise anything on damaged files, from SyntaxError to KeyError
        return ImageHeader("corrupt")


def decode(file: str, shape: tuple[int, ...], bits: int) -> NDArray[np.uint8] | None:
    """The pixels in the shape (channels, height, width), or None when the file cannot be read.

    bits: those of the largest value there may be, where values are more than bytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _opened(file, 4 * max(shape[1:]), bits)
        if image.mode == "RGB" and shape[0] == 1:
            grey = np.rint(np.asarray(image) @ np.array(LUMA)).astype(np.uint8)
            image = Image.fromarray(grey)
        elif image.mode == "L" and shape[0] == 3:
            image = image.convert("RGB")
        pixels = fitted(image, (shape[1], shape[2]))
        return pixels if pixels.shape == shape else None
    except Exception:  # noqa: BLE001  Pillow's decoders raise anything on damaged files, as its readers do
        return None


def _opened(file: str, enough: int, bits: int) -> Image.Image:
    """The image as it is shown, in mode L or RGB; a large photograph at a half, a
    quarter or an eighth of its size."""
    with Image.open(file, formats=FORMATS) as image:
        if image.size[0] * image.size[1] > MOST_PIXELS:
            raise ValueError("oversized")
        if image.format == "JPEG":
            image.draft(None, (enough, enough))
        image.load()
        return _plain(ImageOps.exif_transpose(image), bits)


def _plain(image: Image.Image, bits: int) -> Image.Image:
    """Any mode -> L or RGB: alpha laid on white, more than 8 bits scaled to 8."""
    if image.mode in ("L", "RGB"):
        # a colour that stands for "nothing", as PNG and GIF may name one
        return image if "transparency" not in image.info else _on_white(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I") or image.mode == "F":
        array = np.asarray(image).astype(np.float64)
        if not np.isfinite(array).all() or array.min(initial=0) < 0:
            raise ValueError("pixels below zero")
        scale = 255 if image.mode == "F" and bits == BYTE and array.max(initial=0) <= 1 else byte_scale(bits)
        return Image.fromarray(np.rint(np.minimum(array * scale, 255)).astype(np.uint8))
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    grey = image.mode in _GREY
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("L" if grey else "RGB")


def read_headers(order: Mapping[str, Any], out: IO[bytes]) -> list[ImageHeader]:
    """The headers of order's files."""
    return [header(file) for file in order["files"]]


def decode_all(order: Mapping[str, Any], out: IO[bytes]) -> list[bool]:
    """Write the pixels of those of order's files that can be read, and say which can.
    order: files, shape, bits."""
    readable = []
    for file in order["files"]:
        pixels = decode(file, tuple(order["shape"]), order["bits"])
        readable.append(pixels is not None)
        if pixels is not None:
            out.write(pixels.tobytes())
    return readable


JOBS = {"header": read_headers, "decode": decode_all}

if __name__ == "__main__":
    isolation.serve_jobs(JOBS)
