"""Boxes in a table: a row for each box, with the file of its image, its corners and its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from advisor.data.boxes.annotated import Annotated, NamedImages, RawBox, label_of, number_of
from advisor.data.options import FileForm
from advisor.data.signals.image_paths import SUFFIXES
from advisor.data.signals.image_sets import first_frame
from advisor.data.sources.reading import read_source
from advisor.errors import UserError, did_you_mean, shown

CORNER_NAMES = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
SIDE_NAMES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)
"""Those of the left upper corner, the width and the height."""
IMAGE_NAMES = (
    "filename",
    "file_name",
    "file",
    "image",
    "image_path",
    "path",
    "img",
    "image_id",
    "image_name",
)
CLASS_NAMES = ("class", "label", "category", "class_name", "category_name", "name", "classname")
FEWEST_SEEN = 10
"""Images by which a table is told to be one of boxes."""


@dataclass(frozen=True)
class BoxColumns:
    """Which column is what. sides: the last two numbers are a width and a height."""

    image: str
    numbers: tuple[str, ...]
    label: str | None
    sides: bool = False

    @classmethod
    def of(cls, names: Sequence[str], target: str | None = None) -> BoxColumns | None:
        """By the names of a table's columns, whatever their capitals; None where they are no boxes."""
        by_word = {name.strip().lower(): name for name in names}
        image = next((by_word[word] for word in IMAGE_NAMES if word in by_word), None)
        for words, sides in [(own, False) for own in CORNER_NAMES] + [(own, True) for own in SIDE_NAMES]:
            if image is not None and all(word in by_word for word in words):
                label = next((by_word[word] for word in CLASS_NAMES if word in by_word), None)
                numbers = tuple(by_word[word] for word in words)
                return cls(image, numbers, target if target in names else label, sides)
        return None


def is_box_table(path: Path, target: str | None) -> bool:
    """Whether a file is a table of boxes whose images are there."""
    frame = first_frame(path)
    if frame is None or (columns := BoxColumns.of(frame.columns, target)) is None:
        return False
    cells = frame[columns.image].cast(pl.String).drop_nulls().to_list()[:FEWEST_SEEN]
    places = NamedImages(path)
    return any(places.find(cell) is not None or cell.lower().endswith(SUFFIXES) for cell in cells)


def read_box_table(path: Path, target: str | None, form: FileForm) -> Annotated:
    """The images that a table names and their boxes; a row without corners names an image that has none.

    UserError for a table without such columns, and for cells that are no numbers.
    """
    origin = shown(path, 200)
    frame = read_source(path, form=form).frame
    columns = BoxColumns.of(frame.columns, target)
    if columns is None:
        expected = "filename, xmin, ymin, xmax, ymax, class"
        raise UserError(f"{origin} is not a table of boxes: expected the columns {expected}")
    if target is not None and target not in frame.columns:
        near = shown(did_you_mean(target, frame.columns))
        raise UserError(f"{origin} has no column '{shown(target)}'{near}")
    if columns.label is None:
        raise UserError(f"{origin} has no column of classes; name it with --target")
    texts = frame.select(pl.col(columns.image, columns.label, *columns.numbers).cast(pl.String))
    places = NamedImages(path)
    found: dict[str, Path | None] = {}
    boxes: dict[str, list[RawBox]] = {}
    for place, (image, label, *cells) in enumerate(texts.rows()):
        where = f"{origin}, row {place + 1:,}"
        if image is None:
            raise UserError(f"{where} names no image (column '{shown(columns.image, 40)}')")
        if image not in found:
            found[image], boxes[image] = places.find(image), []
        if any((cell or "").strip() for cell in cells):
            numbers = [
                number_of(cell, f"'{shown(name, 30)}'", where)
                for name, cell in zip(columns.numbers, cells, strict=True)
            ]
            boxes[image].append(RawBox(_corners(numbers, columns), label_of(label, where), where))
    places.checked(list(found.items()), origin)
    there = {image: file for image, file in found.items() if file is not None}
    every = [corner for own in boxes.values() for box in own for corner in box.corners]
    return Annotated(
        tuple(there.values()),
        tuple(there),
        tuple(tuple(boxes[image]) for image in there),
        shares=bool(every) and min(every) >= 0 and max(every) <= 1,
        absent=tuple(image for image, file in found.items() if file is None),
    )


def _corners(numbers: Sequence[float], columns: BoxColumns) -> tuple[float, float, float, float]:
    left, top, right, bottom = numbers
    return (left, top, left + right, top + bottom) if columns.sides else (left, top, right, bottom)
