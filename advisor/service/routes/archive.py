"""Archives of images: unpacked once, beside the upload, with bounds on everything that an archive can claim.

Runs in the process that reads an upload, never in the server.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from advisor.data.signals.image_paths import SUFFIXES
from advisor.errors import UserError, shown

ENDING = ".zip"
UNPACKED = "unpacked"
"""The folder beside an archive that has its files."""
TABLES = (".csv", ".tsv")
"""Tables of labels beside the images."""
MOST_FILES = 200_000
MOST_DEPTH, MOST_NAME = 12, 200
"""Folders within each other, and the characters of a name."""
PART = 1 << 20  # bytes that are unpacked at once


def source_in(archive: Path, most_bytes: int) -> Path:
    """What is read of an uploaded archive: its one table of labels, or its folder of images. (A table beside
    masks is their legend.)

    most_bytes: that the unpacked files may have together. UserError for what is no archive of images.
    """
    folder = archive.with_name(UNPACKED)
    if not folder.is_dir():
        partial = archive.with_name(f"{UNPACKED}.{os.getpid()}")
        try:
            _unpack(archive, partial, most_bytes)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    from advisor.data.masks.pairs import has_masks  # the server needs the names of this file alone

    if has_masks(folder):
        return folder
    tables = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in TABLES]
    return tables[0] if len(tables) == 1 else folder


def remove_partial(archive: Path) -> None:
    """Delete what a process had unpacked that was ended before it was done."""
    for partial in archive.parent.glob(f"{UNPACKED}.*"):
        if not Path("/proc", partial.suffix[1:]).exists():
            shutil.rmtree(partial, ignore_errors=True)


def _unpack(archive: Path, folder: Path, most_bytes: int) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            if len(entries) > MOST_FILES:
                raise UserError(f"the archive has {len(entries):,} files; at most {MOST_FILES:,}")
            left = most_bytes
            for entry in entries:
                if (path := _place(entry)) is not None:
                    target = folder / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(entry) as packed, target.open("xb") as file:
                        left = _copy(packed, file, left, most_bytes)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"the archive cannot be unpacked: {shown(error, 100)}") from None
    except FileExistsError:
        raise UserError("the archive has two files of one name") from None
    if not folder.is_dir():
        raise UserError(f"the archive has no images ({', '.join(SUFFIXES[:3])} ...)")


def _place(entry: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a file of an archive goes; None for what is no image and no table. UserError for what leaves the
    folder or is no plain file."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    kind = stat.S_IFMT(entry.external_attr >> 16)
    parts = path.parts
    if path.is_absolute() or ".." in parts or ":" in entry.filename or "\0" in entry.filename:
        raise UserError(f"the archive has a file outside of its folder: {shown(entry.filename, 60)}")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(f"the archive has a link or a device: {shown(entry.filename, 60)}")
    if len(parts) > MOST_DEPTH or any(len(os.fsencode(part)) > MOST_NAME for part in parts):
        raise UserError(f"the archive has a name that is too long or too deep: {shown(entry.filename, 60)}")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    if entry.is_dir() or hidden or path.suffix.lower() not in (*SUFFIXES, *TABLES):
        return None
    return path


def _copy(packed: IO[bytes], file: IO[bytes], left: int, most: int) -> int:
    """The bytes that are left of the bound; what an archive says of its sizes is not believed."""
    while part := packed.read(PART):
        left -= len(part)
        if left < 0:
            raise UserError(f"the archive has more than {most:,} bytes when it is unpacked")
        file.write(part)
    return left
