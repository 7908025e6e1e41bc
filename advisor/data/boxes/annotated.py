"""What the readers of boxes hand over: image files with the boxes that stand beside them, unchecked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.data.signals.image_paths import SUFFIXES, ImagePaths
from advisor.data.signals.rows import quoted
from advisor.errors import UserError, shown

MOST_TEXT_BYTES = 512 * 1024 * 1024
"""A file of boxes that is larger is none: COCO's own training part has 450 MB."""

ANNOTATIONS = ("annotations", "annotation", "labels")
"""Folders that hold files of boxes and no images."""


@dataclass(frozen=True)
class RawBox:
    """A box as it stands in its file, or its corners made of a width and a height. where: for messages."""

    corners: tuple[float, float, float, float]
    label: str
    where: str = ""


@dataclass(frozen=True)
class Annotated:
    """Images of one part with their boxes.

    boxes: of each image; None where none are asked for. classes: those that the format declares, in its
    order; without them those of the boxes, sorted.
    shares: corners are shares of the image's width and height, not points.
    absent: images that are named and not there. unlisted: files that nothing is said of, which are left out.
    """

    images: tuple[Path, ...]
    names: tuple[str, ...]
    boxes: tuple[tuple[RawBox, ...], ...] | None
    classes: tuple[str, ...] = ()
    shares: bool = False
    absent: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


def together(parts: Sequence[Annotated], origin: str) -> Annotated:
    """Training and validation images as one. UserError where they were written in different ways."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(part.shares != first.shares or part.classes != first.classes for part in parts):
        raise UserError(
            f"{origin}: the training and the validation part have other classes, or another unit of boxes"
        )
    return Annotated(
        tuple(file for part in parts for file in part.images),
        tuple(name for part in parts for name in part.names),
        tuple(own for part in parts for own in part.boxes or ()),
        first.classes,
        first.shares,
        tuple(name for part in parts for name in part.absent),
        tuple(name for part in parts for name in part.unlisted),
    )


def number_of(value: Any, what: str, where: str) -> float:
    """A finite number of a file; UserError, which says where, for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise UserError(f"{where}: {what} is '{shown(value, 40)}'; expected a number")
    return found


def label_of(value: Any, where: str) -> str:
    """The name of a class; UserError where there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise UserError(f"{where}: the class is '{shown(value, 40)}'; expected a name")
    return str(value).strip()


def text_of(path: Path, what: str) -> str:
    """All of a text file of boxes. UserError where it cannot be read."""
    try:
        if path.stat().st_size > MOST_TEXT_BYTES:
            megabytes = MOST_TEXT_BYTES >> 20
            raise UserError(f"{shown(path, 200)} has more than {megabytes:,} MB; it is not a {what}")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path, 200)} is not a {what}: it is not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{shown(path, 200)} cannot be read: {error.strerror or error}") from error


def images_of(folder: Path) -> list[Path]:
    """All image files below a folder, in order."""
    return list(_walked(folder))


def _walked(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith((".", "__")))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(folder) / name


def subfolders(folder: Path) -> list[Path]:
    """Those that hold data, in order; UserError where the folder cannot be read."""
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{shown(folder, 200)} cannot be read: {error.strerror or error}") from error
    return [c for c in children if c.is_dir() and not c.is_symlink() and not c.name.startswith((".", "__"))]


def child(folder: Path, names: Sequence[str]) -> Path | None:
    """The subfolder of one of these names, whatever its capitals; None where there is none."""
    return next((own for own in subfolders(folder) if own.name.lower() in names), None)


class NamedImages:
    """Finds the images that a file of boxes names: beside it, in folders beside it, or, of a file in
    annotations/, beside that folder."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._paths = [ImagePaths(file)]
        if file.resolve().parent.name.lower() in ANNOTATIONS:
            self._paths.append(ImagePaths(file.resolve().parent.parent / file.name))

    def find(self, name: str) -> Path | None:
        """The image's file; None where there is none."""
        return next((found for paths in self._paths if (found := paths.file(name)) is not None), None)

    def checked(self, named: Sequence[tuple[str, Path | None]], origin: str) -> None:
        """UserError where more than half of the named images are not there."""
        absent = [name for name, file in named if file is None]
        if named and 2 * len(absent) > len(named):
            raise UserError(
                f"{origin}: {len(absent):,} of {len(named):,} images are not there: {quoted(absent)}; they "
                f"were looked for beside the file and in the folders of {shown(self.file.parent, 100)}"
            )
