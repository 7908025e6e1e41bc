"""Where the images that a table names lie: which column names them, and which file a cell stands for.

Beside paths relative to the table it finds what competitions and other people's tables have: names of files that lie in a
folder beside the table, names without an ending, backslashes, and paths that began on another machine.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PureWindowsPath

import polars as pl

from advisor.errors import UserError
from advisor.reading import shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm")
MOST_FOLDERS = 50
"""So many folders beside a table are looked into, at most two levels down."""
LOOKED_AT = 50
"""A folder holds images when one of so many of its entries is one."""
JUDGED = 10
"""A column is judged by so many of its first cells."""
MOST_COLUMNS = 8
"""Names without an ending are looked for in so many first columns: an id is among them."""


class ImagePaths:
    """The files of a table's images. table: its file, None for a frame, whose paths are relative to the working directory."""

    def __init__(self, table: Path | None) -> None:
        self.folder = Path() if table is None else table.parent
        self._words = set() if table is None else set(re.split(r"[_\W]+", table.stem.lower()))
        self._last = (self.folder, "")

    def column(self, frame: pl.DataFrame) -> str | None:
        """The column that names images which exist, or None."""
        for name, kind in frame.schema.items():
            if kind == pl.String:
                cells = [cell for cell in frame[name].drop_nulls().to_list() if _has_suffix(cell)]
                if any(self.file(cell) is not None for cell in cells[:JUDGED]):
                    return name
        if not self.folders:
            return None
        for name in frame.columns[:MOST_COLUMNS]:
            if frame.schema[name] == pl.String or frame.schema[name].is_integer():
                cells = frame[name].drop_nulls().cast(pl.String).to_list()
                if len(set(cells)) == len(cells) > 1 and all(self.file(cell) is not None for cell in cells[:JUDGED]):
                    return name
        return None

    def file(self, cell: str) -> Path | None:
        """The image that a cell names, or None. UserError where it could be either of two."""
        if not cell.strip():
            return None
        for tail in _tails(cell):
            endings = ("",) if _has_suffix(tail) else SUFFIXES
            if _exists(found := self._last[0] / (tail + self._last[1])):  # where the one before was: one look for each cell
                return found
            for ending in endings:
                if _exists(found := self.folder / (tail + ending)):
                    return self._at(self.folder, ending, found)
            for near in (True, False):
                there = [
                    (folder, ending)
                    for folder in self.folders
                    if self._is_near(folder) == near
                    for ending in endings
                    if _exists(folder / (tail + ending))
                ]
                if len({folder for folder, _ in there}) > 1:
                    places = " and in ".join(shown(folder, 80) for folder in dict.fromkeys(folder for folder, _ in there[:2]))
                    raise UserError(
                        f"the image '{shown(tail, 60)}' lies in {places}; say in the table which is meant (a table that "
                        "is not about these images is read with --kind table)"
                    )
                if there:
                    return self._at(*there[0], there[0][0] / (tail + there[0][1]))
        return None

    def _at(self, folder: Path, ending: str, found: Path) -> Path:
        self._last = (folder, ending)
        return found

    def _is_near(self, folder: Path) -> bool:
        """Whether a folder has a word of the table's name: train_images of train.csv."""
        own = folder.relative_to(self.folder).as_posix().lower()
        return any(len(word) > 2 and word in own for word in self._words)

    @cached_property
    def folders(self) -> list[Path]:
        """Those below the table's that hold images."""
        first = _subfolders(self.folder)
        below = itertools.chain(first, itertools.chain.from_iterable(map(_subfolders, first)))
        return [folder for folder in itertools.islice(below, MOST_FOLDERS) if _holds_images(folder)]


def _tails(cell: str) -> Iterator[str]:
    """A path as it stands, with slashes for backslashes, and of one that begins at a root its ends, the longest first."""
    yield cell
    windows = "\\" in cell
    parts = PureWindowsPath(cell).parts if windows else Path(cell).parts
    rooted = bool(PureWindowsPath(cell).drive or cell.startswith(("/", "\\")))
    if windows and not rooted:
        yield "/".join(parts)
    if rooted:
        for start in range(1, len(parts) - 1):  # a bare name could be another class's
            yield "/".join(parts[start:])


def _has_suffix(cell: str) -> bool:
    return cell.lower().endswith(SUFFIXES)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith((".", "__")) and child.is_dir())
    except OSError:
        return []


def _holds_images(folder: Path) -> bool:
    try:
        with contextlib.closing(folder.iterdir()) as entries:
            return any(_has_suffix(entry.name) for entry in itertools.islice(entries, LOOKED_AT))
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False
