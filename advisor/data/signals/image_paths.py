"""Where the images that a table names lie: which column names them, and which file a cell stands for.

Beside paths relative to the table it finds what competitions and other people's tables have:
names of files that lie in a folder beside the table, names without an ending, backslashes, and
paths that began on another machine.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path, PureWindowsPath

import polars as pl

from advisor.errors import UserError, shown

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".pgm",
    ".ppm",
    ".pbm",
    ".pnm",
)
MOST_FOLDERS = 50
"""This many folders beside a table are looked into, at most two levels down."""
LOOKED_AT = 50
"""A folder holds images when one of so many of its entries is one."""
JUDGED = 10
"""A column is judged by so many of its first cells."""
MOST_COLUMNS = 8
"""Names without an ending are looked for in this many first columns: an id is among them."""
MOSTLY_NAMES = 0.5
"""A column is one of file names when this share of its cells ends like one: a text may speak of a picture."""

_root: ContextVar[Path | None] = ContextVar("image_root", default=None)


@contextlib.contextmanager
def image_root(folder: str | Path) -> Iterator[None]:
    """Within this, a table may name no image outside of ``folder``: neither by
    its path, nor by "..", nor by a link.

    For a server, whose users bring tables: without it a table may name any image
    file that the process can read.

    >>> with advisor.image_root("/srv/uploads/17"):  # doctest: +SKIP
    ...     advisor.recommend("/srv/uploads/17/train.csv", "label")
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise UserError(
            f"{shown(folder, 200)} is not a folder; the image root is the folder that contains all images of "
            "a table"
        )
    before = _root.set(root)
    try:
        yield
    finally:
        _root.reset(before)


class ImagePaths:
    """The files of a table's images. table: its file, None for a frame, whose paths are
    relative to the working directory."""

    def __init__(self, table: Path | None) -> None:
        self.folder = Path() if table is None else table.parent
        self._words = set() if table is None else set(re.split(r"[_\W]+", table.stem.lower()))
        self._last = (self.folder, "")

    def column(self, frame: pl.DataFrame, *, asked: bool = True) -> str | None:
        """The column that names images which exist, or None.

        asked: whether images were asked for. Else the names must be told by themselves: by their ending, or
            by lying in a folder that is called like the table.
        """
        for name, kind in frame.schema.items():
            if kind == pl.String:
                filled = frame[name].drop_nulls().to_list()
                cells = [cell for cell in filled if _has_suffix(cell)]
                likely = len(cells) > (0 if asked else MOSTLY_NAMES * len(filled))
                if likely and any(self.file(cell) is not None for cell in cells[:JUDGED]):
                    return name
        if not asked:
            self.folders = [folder for folder in self.folders if self._is_near(folder)]
        if not self.folders:
            return None
        for name in frame.columns[:MOST_COLUMNS]:
            if frame.schema[name] == pl.String or frame.schema[name].is_integer():
                cells = frame[name].drop_nulls().cast(pl.String).to_list()
                if len(set(cells)) == len(cells) > 1 and all(
                    self.file(cell) is not None for cell in cells[:JUDGED]
                ):
                    return name
        return None

    def file(self, cell: str) -> Path | None:
        """The image that a cell names, or None. UserError where it could be either of two, or lies where none
        may."""
        if not cell.strip():
            return None
        outside = False
        for tail in _tails(cell):
            endings = ("",) if _has_suffix(tail) else SUFFIXES
            # first where the one before was
            places = [self._last, *((self.folder, ending) for ending in endings)]
            for folder, ending in places:
                if not _may_be_named(found := folder / (tail + ending)):
                    outside = True
                elif _exists(found):
                    return self._at(folder, ending, found)
            if (beside := self._beside(tail, endings)) is not None:
                return beside
        if outside:
            raise UserError(
                f"the image '{shown(cell, 60)}' is outside the image root {shown(_root.get(), 100)} (use "
                "--kind table if the table is not about images)"
            )
        return None

    def _beside(self, tail: str, endings: Sequence[str]) -> Path | None:
        """The image in a folder beside the table, first in those that are called like it; None where there is
        none. UserError where two of them have one."""
        for near in (True, False):
            there = [
                (folder, ending)
                for folder in self.folders
                if self._is_near(folder) == near
                for ending in endings
                if _may_be_named(found := folder / (tail + ending)) and _exists(found)
            ]
            if len({folder for folder, _ in there}) > 1:
                both = " and in ".join(
                    shown(folder, 80) for folder in dict.fromkeys(folder for folder, _ in there[:2])
                )
                raise UserError(
                    f"the image '{shown(tail, 60)}' is in {both}; write the folder in the table (use --kind "
                    "table if the table is not about these images)"
                )
            if there:
                folder, ending = there[0]
                return self._at(folder, ending, folder / (tail + ending))
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
    """A path as it stands, with slashes for backslashes, and of one that begins at a
    root its ends, the longest first."""
    yield cell
    windows = "\\" in cell
    parts = PureWindowsPath(cell).parts if windows else Path(cell).parts
    rooted = bool(PureWindowsPath(cell).drive or cell.startswith(("/", "\\")))
    if windows and not rooted:
        yield "/".join(parts)
    if rooted:
        for start in range(1, len(parts) - 1):  # a bare name could be another class's
            yield "/".join(parts[start:])


def _may_be_named(path: Path) -> bool:
    """Whether the path, with its links followed, lies under the image root; any may where there is none."""
    root = _root.get()
    if root is None:
        return True
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # a name too long, with a NUL, or a loop of links
        return False


def _has_suffix(cell: str) -> bool:
    return cell.lower().endswith(SUFFIXES)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(
            child for child in folder.iterdir() if not child.name.startswith((".", "__")) and child.is_dir()
        )
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
