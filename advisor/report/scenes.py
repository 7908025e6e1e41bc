"""Images with their masks or boxes as a page can show them: the classes in colours, small PNG pictures. No
torch."""

from __future__ import annotations

import base64
import colorsys
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.lists import CODE, CORNERS, SCORE, Boxes
from advisor.dataset import Dataset
from advisor.facts.summaries import RowSample
from advisor.runs.result import Mistake
from advisor.tasks import UNLABELLED

SHOWN, WORST = 8, 8
"""Examples, and images with the largest losses, that a page shows."""
SIDE = 128
"""Pixels of a picture's longer side."""
VEIL = 0.5
"""Share of a class's colour where it lies over its image."""
BOX_SIDE = 192
"""The same of a picture with boxes, whose lines need some room."""
SHOWN_SCORE = 0.3
"""Boxes that were found with a lower score are not drawn."""
GOLDEN = 0.618033988749895
"""Hues this far apart stay apart, however many there are."""


def class_colours(classes: int, most: int) -> NDArray[np.uint8]:
    """A colour for each class, (256, 3): black for class number ``most``, the most frequent one; grey where
    there is
    no label."""
    table = np.full((UNLABELLED + 1, 3), 128, np.uint8)
    hue = 0.0
    for code in range(classes):
        if code == most:
            table[code] = 0
            continue
        table[code] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, 0.85, 0.95)]
        hue += GOLDEN
    return table


def mask_samples(data: Dataset[Any], seed: int) -> list[RowSample]:
    """A few images with their masks over them, the same for a seed."""
    colours = class_colours(len(data.classes), _most(data))
    chosen = np.random.default_rng(seed).permutation(len(data))[:SHOWN]
    return [
        RowSample(
            image=_png(_veiled(image_of(data, row), data.target.values[row], colours)),
            label=_shown(data, row),
        )
        for row in chosen
    ]


def worst_scenes(data: Dataset[Any], chosen: NDArray[Any], losses: NDArray[np.float64]) -> list[Mistake]:
    """The images with the largest losses: each with its mask and the predicted one.

    chosen: predicted codes (rows, height, width). losses: (rows,).
    """
    colours = class_colours(len(data.classes), _most(data))
    order = np.argsort(-losses, kind="stable")[:WORST]
    return [
        Mistake(
            image=_png(image_of(data, row)),
            mask=_png(colours[data.target.values[row]]),
            predicted_mask=_png(colours[chosen[row]]),
            label=_shown(data, row),
            predicted=_named(data, chosen[row]),
        )
        for row in order.tolist()
    ]


def image_of(data: Dataset[Any], row: int) -> NDArray[np.uint8]:
    """Of one row, (height, width, 3)."""
    images: Any = data.features
    values = np.asarray(images.values[row])
    shown = np.moveaxis(values[:3] if len(values) >= 3 else values[:1], 0, 2)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def _most(data: Dataset[Any]) -> int:
    return int(np.bincount(data.target.values.reshape(-1), minlength=UNLABELLED + 1)[:UNLABELLED].argmax())


def _shown(data: Dataset[Any], row: int) -> str:
    return _named(data, data.target.values[row])


def _named(data: Dataset[Any], codes: NDArray[Any]) -> str:
    """The classes of a mask, the rarest first, without the most frequent one of all masks."""
    found, counts = np.unique(codes[codes != UNLABELLED], return_counts=True)
    named = [
        data.classes[code]
        for code in found[np.argsort(counts, kind="stable")].tolist()
        if code != _most(data)
    ]
    return ", ".join(named) or "nothing else"


def _veiled(
    image: NDArray[np.uint8], codes: NDArray[np.uint8], colours: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    over = colours[codes].astype(np.float32)
    share = np.where(over.any(axis=2, keepdims=True), VEIL, 0.0)
    return np.asarray(np.rint(image * (1 - share) + over * share), np.uint8)


def box_samples(data: Dataset[Any], seed: int) -> list[RowSample]:
    """A few images with their boxes, the same for a seed."""
    colours = class_colours(len(data.classes), -1)
    chosen = np.random.default_rng(seed).permutation(len(data))[:SHOWN]
    return [
        RowSample(
            image=_boxed(image_of(data, row), *_own(data.target, row), colours),
            label=_classes(data, _own(data.target, row)[1]),
        )
        for row in chosen.tolist()
    ]


def worst_boxes(data: Dataset[Any], chosen: NDArray[Any], losses: NDArray[np.float64]) -> list[Mistake]:
    """The images with the largest losses: each with its boxes, and with those that were found.

    chosen: found boxes (rows, most, 6). losses: (rows,).
    """
    colours = class_colours(len(data.classes), -1)
    result = []
    for row in np.argsort(-losses, kind="stable")[:WORST].tolist():
        image, own = image_of(data, row), _own(data.target, row)
        said = chosen[row][chosen[row][:, SCORE] >= SHOWN_SCORE]
        codes = said[:, CODE].astype(np.int64)
        result.append(
            Mistake(
                boxes=_boxed(image, *own, colours),
                found_boxes=_boxed(image, said[:, CORNERS], codes, colours),
                label=_classes(data, own[1]),
                predicted=_classes(data, codes),
            )
        )
    return result


def _own(boxes: Boxes, row: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners and classes of one row."""
    one = boxes[row : row + 1]
    return one.corners, one.codes


def _classes(data: Dataset[Any], codes: NDArray[np.int64]) -> str:
    """The classes of some boxes, each with how many there are of it, where there are several."""
    found, counts = np.unique(codes, return_counts=True)
    named = (
        data.classes[code] if count == 1 else f"{count} x {data.classes[code]}"
        for code, count in zip(found.tolist(), counts.tolist(), strict=True)
    )
    return ", ".join(named) or "nothing"


def _boxed(
    image: NDArray[np.uint8],
    corners: NDArray[np.float64],
    codes: NDArray[np.int64],
    colours: NDArray[np.uint8],
) -> str:
    """An image with boxes drawn in the colours of their classes."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    scale = BOX_SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for box, code in zip(corners * scale, codes.tolist(), strict=True):
        left, top, right, bottom = np.rint(box).astype(int).tolist()
        if right > left and bottom > top:
            draw.rectangle((left, top, right - 1, bottom - 1), outline=tuple(colours[code].tolist()), width=2)
    return _encoded(picture)


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE))
    return _encoded(picture)


def _encoded(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
