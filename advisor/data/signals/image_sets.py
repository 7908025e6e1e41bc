"""Folders and tables of image files: which files, with which labels, and the one
size that they are brought to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from advisor.data.signals.arrays.array_names import PARTS
from advisor.data.signals.image_decoding import FileValues, headers
from advisor.data.signals.image_paths import SUFFIXES, ImagePaths
from advisor.data.signals.image_worker import ImageHeader
from advisor.data.signals.pixel_tables import named_pixels, read_pixels
from advisor.data.signals.pixels import BYTE, common_size
from advisor.data.signals.rows import Found, RawRows, Request, quoted
from advisor.data.sources.isolated_files import first_rows
from advisor.data.sources.reading import read_source
from advisor.data.sources.source import summed_notes
from advisor.errors import UserError, did_you_mean, shown

HEAD_BYTES, FIRST_ROWS = 1 << 16, 100
"""A table is judged by its beginning: a column of image files has one in its first rows."""

MOST_WRAPPINGS = 4
PROBLEMS = {"corrupt": "cannot be read as images", "oversized": "declare more than 100 million pixels"}
"""What is wrong with files, by the word of their headers."""


@dataclass(frozen=True)
class _Listed:
    """Image files of one part with their labels.

    absent: those that a table names and that do not exist.
    notes: files that are no rows, as counts.
    """

    files: tuple[Path, ...]
    labels: pl.Series | None
    names: tuple[str, ...]
    groups: pl.Series | None = None
    absent: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Set:
    """The image files that a source names.

    parts: "train" (with the validation rows) and "test".
    columns: of a table, the one that names them.
    """

    parts: Mapping[str, _Listed]
    name: str
    origin: str
    target: str = "class"
    columns: tuple[str, ...] = ()


def are_images(source: object, target: str | None = None) -> bool:
    """Whether a table has a column for each pixel, or its file a column of image files
    that exist: judged by its first rows.

    target: the column to predict, which names no images. A frame has no files
        beside it: only its columns are looked at.
    """
    if isinstance(source, pl.DataFrame) or type(source).__module__.partition(".")[0] == "pandas":
        return bool(named_pixels([str(name) for name in getattr(source, "columns", ())]))
    if not isinstance(source, str | Path) or str(source).startswith(("sklearn:", "openml:")):
        return False
    path = Path(source)
    if not path.is_file() or (frame := first_frame(path)) is None:
        return False
    paths = ImagePaths(path)
    if named_pixels(frame.columns):
        return True
    return paths.column(frame.drop(target or (), strict=False), asked=False) is not None


def first_frame(path: Path) -> pl.DataFrame | None:
    """The beginning of a table's file, where it may be about images; None: it is not, or cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
        if start.startswith(b"PAR1"):
            return first_rows(path, FIRST_ROWS)
        if not (
            re.search(rb"\.(png|jpe?g|jfif|bmp|gif|tiff?|webp|p[gpbn]m)\b|pix|px|\dx\d", start, re.IGNORECASE)
            or ImagePaths(path).folders
        ):
            return None
        # as a table of its own, so that delimiters, quotes and encodings are read as in the whole
        lines = start.splitlines()[: -1 if len(start) == HEAD_BYTES else None]
        head, mark = b"\n".join(lines[:FIRST_ROWS]), _delimiter(lines[0])
        return pl.read_csv(head, infer_schema_length=0, separator=mark, truncate_ragged_lines=True)
    except (OSError, pl.exceptions.PolarsError, IndexError):
        return None


def _delimiter(line: bytes) -> str:
    return max((",", ";", "\t", "|"), key=lambda mark: line.count(mark.encode()))


def read_images(source: object, request: Request) -> Found:
    """A folder (a folder per class, with train/, val/, test/ where present), a table of
    paths or pixels, or an image file."""
    path = Path(source) if isinstance(source, str | Path) else None
    origin = "data-frame" if path is None else shown(source, 200)
    if path is not None and not str(source).startswith("sklearn:") and path.is_dir():
        return _found(_of_folder(path, origin, request), request)
    if path is not None and path.suffix.lower() in SUFFIXES:
        return _found(_of_one_image(path, origin, request), request)
    return _from_table(source, path, origin, request)


def _of_folder(path: Path, origin: str, request: Request) -> _Set:
    request.refuse(origin, without=("id_column", "time_column", "group_column"))
    return _Set(_folder(path, request), path.resolve().name, origin)


def _of_one_image(path: Path, origin: str, request: Request) -> _Set:
    if request.needs_target:
        raise UserError(
            f"{origin} is one image; expected a folder with a folder of images per class, or a table of paths"
        )
    return _Set({"train": _Listed((path,), None, (path.name,))}, path.stem, origin)


def _from_table(source: object, path: Path | None, origin: str, request: Request) -> Found:
    """A table of pixels, where it has a column for each of a square, else of paths."""
    read = read_source(source, max_bytes=request.max_bytes, form=request.form)
    paths = ImagePaths(path)
    _refuse_roles(read.frame, origin, request)
    if len(request.columns) != 1:
        named = not request.columns and _named_column(read.frame, paths, request) is not None
        if not named and (found := read_pixels(read, origin, request)) is not None:
            return found
    column = _chosen_column(read.frame, paths, origin, request)
    listed = _table(read.frame, paths, column, origin, request)
    return _found(_Set({"train": listed}, read.name, origin, str(request.target), (column,)), request)


def _found(images: _Set, request: Request) -> Found:
    """The files as rows, by what their headers say."""
    train, notes = _readable(images.parts["train"], images.origin, request)
    assert isinstance(train.values, FileValues)
    shape, bits, test = train.values.shape, train.values.bits, None
    if (listed := images.parts.get("test")) is not None:
        alike = replace(request, like=shape, bits=bits)
        test, counts = _readable(listed, images.origin, alike)
        notes = summed_notes(notes, counts)
    return Found(
        kind="image",
        name=images.name,
        origin=images.origin,
        target=images.target,
        shape=shape,
        train=train,
        test=test,
        classification=not images.columns,
        group_column=request.group_column if images.columns and train.groups is not None else None,
        columns=images.columns,
        id_column=request.id_column,
        bits=bits,
    ).noting(notes)


def _readable(listed: _Listed, origin: str, request: Request) -> tuple[RawRows, dict[str, int]]:
    """The files whose headers can be read, and the count of the others."""
    found = headers(listed.files)
    lost = {
        f"{problem}_files": _with_problem(listed, found, problem, origin, request) for problem in PROBLEMS
    }
    good = [position for position, own in enumerate(found) if not own.problem]
    if not good:
        raise UserError(
            f"{origin}: none of the {len(found):,} image files can be read; expected PNG, JPEG and the like"
        )
    known, rows = [found[position] for position in good], np.array(good)
    shape = _shape_of(known, origin, request)
    sizes = len({(own.height, own.width) for own in known})
    notes = {
        **{note: len(files) for note, files in lost.items()},
        "image_sizes": sizes if request.like is None and sizes > 1 else 0,
        "converted_channels": sum(own.channels != shape[0] for own in known),
    }
    values = FileValues(
        files=tuple(listed.files[position] for position in good),
        shape=shape,
        bits=request.bits if request.bits > BYTE else max(own.bits for own in known),
        content=np.array([own.key for own in known], np.uint64),
    )
    readable = RawRows(
        values=values,
        answer=None if listed.labels is None else listed.labels.gather(rows),
        groups=None if listed.groups is None else listed.groups.gather(rows),
        names=tuple(listed.names[position] for position in good),
        lost={note: files for note, files in {"absent_files": listed.absent, **lost}.items() if files},
    )
    return readable, summed_notes(listed.notes, notes)


def _with_problem(
    listed: _Listed, found: Sequence[ImageHeader], problem: str, origin: str, request: Request
) -> tuple[str, ...]:
    """The files with a problem; UserError where these are all, or every row is needed."""
    bad = tuple(name for name, own in zip(listed.names, found, strict=True) if own.problem == problem)
    if bad and (not request.needs_target or len(bad) == len(found)):
        raise UserError(
            f"{origin}: {len(bad):,} of {len(found):,} files {PROBLEMS[problem]}: {quoted(bad)}; "
            "leave them out"
        )
    return bad


def _shape_of(known: Sequence[ImageHeader], origin: str, request: Request) -> tuple[int, ...]:
    """(channels, height, width) that these images are brought to."""
    shape = request.like
    if shape is None:
        colour = any(own.channels == 3 for own in known)
        shape = (3 if colour else 1, *common_size([(own.height, own.width) for own in known]))
    if shape[0] not in (1, 3):
        raise UserError(f"{origin}: the training images have {shape[0]} channels, image files have 1 or 3")
    return shape


# ---------------------------------------------------------------------------------------------------- folders


def _folder(folder: Path, request: Request) -> dict[str, _Listed]:
    """Part ("train", with the validation rows; "test") -> its files."""
    root = _unwrapped(folder)
    by_part = _folders_by_part(root, request)
    parts = {part: _listed(folder, roots, request) for part, roots in by_part.items() if roots}
    if not request.needs_target:
        return parts
    names = ", ".join(f"'{shown(child.name, 30)}'" for child in _subfolders(root)[:6])
    for part, listed in parts.items():
        where = shown(root, 200) if part == "train" else f"{shown(root, 200)}: test"
        if not listed.files:
            raise UserError(
                f"{where} has no images in folders of classes (it has "
                f"{f'the folders {names}' if names else 'no folders'}); "
                f"expected a folder of PNG or JPEG files per class{_or_a_table(root)}"
            )
    classes = parts["train"].labels
    if classes is not None and request.like is None and classes.n_unique() < 2:
        raise UserError(
            f"{shown(root, 200)} has images of one class only, '{shown(classes[0], 40)}'; expected a folder "
            "per class"
            f"{_or_a_table(root)}"
        )
    return parts


def _folders_by_part(root: Path, request: Request) -> dict[str, list[Path]]:
    """The folders of the training and of the test rows, by their names; all is for training where none has
    such a name."""
    named: dict[str, list[Path]] = {}
    for child in _subfolders(root):
        if child.name.lower() in PARTS and (_subfolders(child) or not request.needs_target):
            named.setdefault(PARTS[child.name.lower()], []).append(child)
    if not set(named) & {"train", "test"}:
        return {"train": [root]}
    train, test = named.get("train", []) + named.get("val", []), named.get("test", [])
    if test and (request.like is not None or not train):  # given as test rows, or to predict
        return {"train": test}
    return {"train": train, "test": test}


def _or_a_table(root: Path) -> str:
    found = sorted(
        file.name for file in root.iterdir() if file.suffix.lower() in (".csv", ".tsv", ".parquet")
    )
    return (
        f", or the table of the images as the data: is it {shown(root / found[0], 100)}?"
        if found
        else ", or a table of paths"
    )


def _unwrapped(folder: Path) -> Path:
    """The folder, or the only one in it where an archive was unpacked into a
    folder of its own name, maybe twice."""
    for _ in range(MOST_WRAPPINGS):
        children = _subfolders(folder)
        if len(children) != 1 or children[0].name.lower() in PARTS or not _subfolders(children[0]):
            break
        folder = children[0]
    return folder


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = [child for child in folder.iterdir() if not _hidden(child.name)]
        return sorted(child for child in children if child.is_dir() and not child.is_symlink())
    except OSError as error:
        raise UserError(f"{shown(folder, 200)} cannot be read: {error.strerror or error}") from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _listed(folder: Path, roots: Sequence[Path], request: Request) -> _Listed:
    """Image files under the roots; their class is the first folder below the root."""
    files: list[Path] = []
    labels: list[str] = []
    inside = folder.resolve()
    ignored = 0
    for root in roots:
        for file in _walked(root):
            own = file.relative_to(root).parts
            usable = file.suffix.lower() in SUFFIXES and not any(_hidden(part) for part in own)
            if not usable or (request.needs_target and len(own) < 2) or not _regular_inside(file, inside):
                ignored += 1
                continue
            files.append(file)
            labels.append(own[0])
    if not files and not request.needs_target:
        raise UserError(f"{shown(folder, 200)} has no image files; expected PNG, JPEG and the like")
    names = tuple(os.fsencode(file.relative_to(folder)).decode("utf-8", "replace") for file in files)
    texts = [os.fsencode(label).decode("utf-8", "replace") for label in labels]
    classes = pl.Series("class", texts, dtype=pl.String) if request.needs_target else None
    return _Listed(tuple(files), classes, names, notes={"files_ignored": ignored})


def _walked(root: Path) -> Iterator[Path]:
    """All files below, in the order of their names; linked folders are not entered."""
    for folder, below, files in os.walk(root):
        below.sort()
        linked = [name for name in below if (Path(folder) / name).is_symlink()]
        for name in sorted([*files, *linked]):
            yield Path(folder) / name


def _regular_inside(file: Path, inside: Path) -> bool:
    """A plain file, and no link that leaves the folder."""
    try:
        if file.is_symlink() and not file.resolve().is_relative_to(inside):
            return False
        return file.is_file()
    except (OSError, RuntimeError):
        return False


# ----------------------------------------------------------------------------------------------------- tables


def _refuse_roles(frame: pl.DataFrame, origin: str, request: Request) -> None:
    """UserError for a column that was asked for and is not there, or has no use."""
    for role in ("target", "id_column", "group_column"):
        asked = getattr(request, role)
        if request.needs_target and asked is not None and asked not in frame.columns:
            near = shown(did_you_mean(asked, frame.columns))
            raise UserError(
                f"{origin} has no column '{shown(asked)}'{near}; it has "
                f"{', '.join(map(shown, frame.columns[:8]))}"
            )
    if request.time_column is not None:
        raise UserError(
            f"{origin} is a table of images, which cannot use the time column '{shown(request.time_column)}'"
        )


def _named_column(frame: pl.DataFrame, paths: ImagePaths, request: Request) -> str | None:
    return paths.column(frame.drop(request.target or (), strict=False).head(FIRST_ROWS))


def _chosen_column(frame: pl.DataFrame, paths: ImagePaths, origin: str, request: Request) -> str:
    if request.columns:
        if request.columns[0] not in frame.columns:
            raise UserError(
                f"{origin} has no column '{shown(request.columns[0])}' of image files, as the training "
                "table had"
            )
        return request.columns[0]
    column = _named_column(frame, paths, request)
    if column is None:
        raise UserError(
            f"{origin} has neither a column of existing image files nor a column for each pixel of a square; "
            f"expected paths such as cats/1.png, relative to {shown(paths.folder.resolve(), 100)} or to a "
            "folder in it"
        )
    return column


def _table(frame: pl.DataFrame, paths: ImagePaths, column: str, origin: str, request: Request) -> _Listed:
    """The files that a column names, with the targets and groups beside them."""
    if request.needs_target and request.target is None:
        others = ", ".join(f"'{shown(name, 30)}'" for name in frame.columns if name != column)
        raise UserError(
            f"{origin} is a table of images: name the column to predict as its target, of {others or 'none'}"
        )
    if request.target == column:
        raise UserError(f"the target '{shown(column)}' is the column of image files; name another column")
    cells = frame[column].cast(pl.String).fill_null("").to_list()
    files = [paths.file(cell) for cell in cells]
    absent = tuple(cell for cell, file in zip(cells, files, strict=True) if file is None)
    if absent and (not request.needs_target or len(absent) > len(files) / 2):
        raise UserError(
            f"{origin}: {len(absent):,} of {len(files):,} image files do not exist: {quoted(absent)}; "
            f"paths are relative to {shown(paths.folder.resolve(), 100)} or to a folder in it"
        )
    kept = np.array([row for row, file in enumerate(files) if file is not None], np.int64)
    needed = request.needs_target and request.target is not None
    group = request.group_column if request.group_column in frame.columns else None
    named_by = request.id_column if request.id_column in frame.columns else column
    return _Listed(
        files=tuple(file for file in files if file is not None),
        labels=frame[str(request.target)].gather(kept) if needed else None,
        names=tuple(frame[named_by].cast(pl.String).fill_null("").gather(kept).to_list()),
        groups=None if group is None else frame[group].gather(kept).cast(pl.String).fill_null(""),
        absent=absent,
        notes={"absent_files": len(absent)},
    )
