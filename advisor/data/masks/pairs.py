"""Which mask belongs to which image: in folders, in tables of paths, and among arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.masks.digit_scenes import SOURCE, digit_scenes
from advisor.data.signals.arrays.array_files import load_npz
from advisor.data.signals.arrays.array_names import PARTS
from advisor.data.signals.arrays.named_arrays import as_array
from advisor.data.signals.image_paths import SUFFIXES, ImagePaths
from advisor.data.signals.image_sets import first_frame
from advisor.data.signals.rows import Request, quoted, regular
from advisor.data.sources.reading import read_source
from advisor.errors import UserError, did_you_mean, shown

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentation")
MASK_ENDINGS = ("", "_mask", "-mask", "_masks", "_label", "_labels", "_seg", "_gt")
"""What a mask's name may have after its image's."""
VALUE_NAMES = ("x", "images", "image")
MASK_NAMES = ("y", "masks", "mask", "labels", "label", "target")
MADE_SCENES = 400
"""Training scenes of ``sklearn:digit-scenes``, and a quarter as many test scenes."""
_NAME = re.compile(
    rf"({'|'.join((*VALUE_NAMES, *MASK_NAMES, 'groups', 'group'))})_?({'|'.join(PARTS)})?", re.I
)


@dataclass(frozen=True)
class PairedFiles:
    """Images of one part with their masks, as files.

    masks: None where none are asked for. lonely: images without a mask, extra: masks without an image.
    folders: where a legend may lie.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...] | None
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    lonely: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PairedArrays:
    """Images of one part with their masks, as arrays with as many rows. masks: None where none are asked
    for."""

    images: NDArray[Any]
    masks: NDArray[Any] | None
    groups: tuple[str, ...] | None = None
    folders: tuple[Path, ...] = field(default=())


Paired = PairedFiles | PairedArrays


@dataclass(frozen=True)
class PairedSource:
    """What a source holds. columns: of a table, those of the images and of the masks."""

    origin: str
    name: str
    target: str
    train: Paired
    test: Paired | None = None
    columns: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def has_masks(source: object, target: str | None = None) -> bool:
    """Whether a source is images with a mask each: a folder with images/ and masks/ (or parts of such),
    arrays X and Y of which Y has a number for every point, or a table of which the target and another column
    name image files."""
    if isinstance(source, Mapping):
        return _masks_among({str(name): _shape(value) for name, value in source.items()})
    if not isinstance(source, str | Path) or str(source).startswith(("sklearn:", "openml:")):
        return isinstance(source, str) and source == SOURCE
    path = Path(source)
    try:
        if path.is_dir():
            return bool(_folders(path))
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return _masks_among(
                    {name: archive[name].shape for name in archive.files if _NAME.fullmatch(name)}
                )
        if target is None or not path.is_file() or (frame := first_frame(path)) is None:
            return False
    except Exception:  # noqa: BLE001  whatever is wrong with it is told by whoever reads it
        return False
    paths = ImagePaths(path)
    others = (frame[name] for name in frame.columns if name != target)
    return target in frame.columns and _names_images(frame[target], paths) and any(
        _names_images(cells, paths) for cells in others
    )


def _shape(value: object) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _masks_among(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    named = [
        shape
        for name, shape in shapes.items()
        if (found := _NAME.fullmatch(name)) and found[1].lower() in MASK_NAMES
    ]
    images = [
        shape
        for name, shape in shapes.items()
        if (found := _NAME.fullmatch(name)) and found[1].lower() in VALUE_NAMES
    ]
    return any(len(shape) in (3, 4) and shape[2] > 1 for shape in named) and any(len(s) > 2 for s in images)


def _names_images(cells: pl.Series, paths: ImagePaths) -> bool:
    if cells.dtype != pl.String:
        return False
    filled = [cell for cell in cells.drop_nulls().to_list() if cell.lower().endswith(SUFFIXES)][:10]
    return any(paths.file(cell) is not None for cell in filled)


def find_pairs(source: object, request: Request) -> PairedSource:
    """The images of a source and their masks. UserError for a source that has none."""
    if isinstance(source, str) and source == SOURCE:
        made, tested = digit_scenes(MADE_SCENES), digit_scenes(MADE_SCENES // 4, part="test")
        train, test = (PairedArrays(own.images, own.masks) for own in (made, tested))
        return PairedSource(source, "digit-scenes", "mask", train, test)
    if isinstance(source, Mapping | np.ndarray) or Path(str(source)).suffix.lower() == ".npz":
        return _of_arrays(source, request)
    if isinstance(source, str | Path):
        path, text = Path(source), shown(source, 200)
        if not path.exists():
            raise UserError(
                f"{text} does not exist; expected a folder with images/ and masks/, .npz, or a table"
            )
        if path.is_dir():
            return _of_folder(path, request)
        if path.suffix.lower() in SUFFIXES:
            if request.needs_target:
                raise UserError(f"{text} is one image; expected a folder with images/ and masks/")
            return PairedSource(text, path.stem, "mask", PairedFiles((path,), None, (path.name,)))
    return _of_table(source, request)


# --------------------------------------------------------------------------------------------------- folders


def _folders(root: Path) -> dict[str, tuple[Path, Path | None]]:
    """Part ("train", "val", "test") -> its folders of images and of masks; the root itself is "train"."""
    inner = [child for child in _subfolders(root) if child.name.lower() in PARTS]
    if len(_subfolders(root)) == 1 and not inner and _child(root, IMAGE_FOLDERS) is None:
        return _folders(_subfolders(root)[0])  # an archive that was unpacked into a folder of its name
    found = {PARTS[child.name.lower()]: _pair(child) for child in inner if _pair(child) is not None}
    if not found and (pair := _pair(root)) is not None:
        found = {"train": pair}
    return {part: pair for part, pair in found.items() if pair is not None}


def _pair(folder: Path) -> tuple[Path, Path | None] | None:
    images, masks = _child(folder, IMAGE_FOLDERS), _child(folder, MASK_FOLDERS)
    return None if images is None or masks is None else (images, masks)


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    return next((child for child in _subfolders(folder) if child.name.lower() in names), None)


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{shown(folder, 200)} cannot be read: {error.strerror or error}") from error
    return [c for c in children if c.is_dir() and not c.is_symlink() and not c.name.startswith((".", "__"))]


def _of_folder(folder: Path, request: Request) -> PairedSource:
    request.refuse(shown(folder, 200), without=("id_column", "time_column", "group_column"))
    name = folder.resolve().name
    if not request.needs_target:
        return PairedSource(shown(folder, 200), name, "mask", _images_alone(folder))
    parts = _folders(folder)
    if not parts:
        there = ", ".join(f"'{shown(child.name, 30)}'" for child in _subfolders(folder)[:6]) or "none"
        raise UserError(
            f"{shown(folder, 200)} has no folders images/ and masks/ with files of the same names (its "
            f"folders: "
            f"{there})"
        )
    pairs = {part: _paired(folder, *own) for part, own in parts.items()}
    test = pairs.pop("test", None)
    if request.like is not None and test is not None:  # given as test rows
        pairs, test = {"train": test}, None
    if not pairs:
        assert test is not None
        pairs, test = {"train": test}, None
    return PairedSource(shown(folder, 200), name, "mask", _together(list(pairs.values())), test)


def _images_alone(folder: Path) -> PairedFiles:
    """All images of a folder, of images/ where it has that, of test/images/ where it has parts."""
    parts = _folders(folder)
    if parts:
        roots = [parts["test"][0]] if "test" in parts else [images for images, _ in parts.values()]
    else:
        roots = [_child(folder, IMAGE_FOLDERS) or folder]
    found = [(root, file) for root in roots for file in _walked(root)]
    if not found:
        raise UserError(f"{shown(folder, 200)} has no image files; expected PNG, JPEG and the like")
    names = tuple(_text(file.relative_to(root)) for root, file in found)
    return PairedFiles(tuple(file for _, file in found), None, names)


def _paired(folder: Path, images: Path, masks: Path | None) -> PairedFiles:
    assert masks is not None
    by_stem: dict[str, Path] = {}
    for file in _walked(masks):
        stem = _text(file.relative_to(masks).with_suffix(""))
        if stem in by_stem:
            raise UserError(f"{shown(masks, 200)} has two masks named '{shown(stem, 60)}'; leave one of them")
        by_stem[stem] = file
    pairs: list[tuple[Path, Path, str]] = []
    lonely: list[str] = []
    used: set[str] = set()
    for file in _walked(images):
        stem = _text(file.relative_to(images).with_suffix(""))
        own = next((stem + ending for ending in MASK_ENDINGS if stem + ending in by_stem), None)
        if own is None:
            lonely.append(_text(file.relative_to(folder)))
        else:
            used.add(own)
            pairs.append((file, by_stem[own], _text(file.relative_to(images))))
    if not pairs and not lonely:
        raise UserError(f"{shown(images, 200)} has no image files; expected PNG, JPEG and the like")
    if not pairs:
        raise UserError(
            f"{shown(masks, 200)} has no mask for any of the {len(lonely):,} images, such as "
            f"{quoted(lonely[:1])}; "
            "expected files of the same names"
        )
    if len(lonely) > len(pairs):
        raise UserError(
            f"{shown(folder, 200)}: {len(lonely):,} of {len(lonely) + len(pairs):,} images have no mask: "
            f"{quoted(lonely)}"
        )
    files, own_masks, names = zip(*pairs, strict=True)
    extra = sorted(set(by_stem) - used)
    return PairedFiles(
        files, own_masks, names, None, tuple(lonely), tuple(extra), (images.parent, folder, masks)
    )


def _together(parts: Sequence[PairedFiles]) -> PairedFiles:
    """Training and validation rows as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return PairedFiles(
        tuple(file for part in parts for file in part.images),
        tuple(file for part in parts for file in part.masks or ()),
        tuple(name for part in parts for name in part.names),
        None,
        tuple(name for part in parts for name in part.lonely),
        tuple(name for part in parts for name in part.extra),
        tuple(folder for part in parts for folder in part.folders),
    )


def _walked(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith((".", "__")))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(folder) / name


def _text(path: Path) -> str:
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


# ---------------------------------------------------------------------------------------------------- tables


def _of_table(source: object, request: Request) -> PairedSource:
    origin = shown(source, 200) if isinstance(source, str | Path) else "data-frame"
    read = read_source(source, max_bytes=request.max_bytes, form=request.form)
    frame, paths = read.frame, ImagePaths(Path(source) if isinstance(source, str | Path) else None)
    _check_columns(frame, origin, request)
    column = _image_column(frame, paths, origin, request)
    images = _files(frame[column], paths, "image", origin)
    if not request.needs_target:
        lost = [cell for cell, file in images if file is None]
        if lost:
            raise UserError(f"{origin}: {len(lost):,} image files do not exist: {quoted(lost)}")
        files = tuple(file for _, file in images if file is not None)
        train = PairedFiles(files, None, tuple(cell for cell, _ in images))
        name = str(request.target or "mask")
        return PairedSource(origin, read.name, name, train, columns=request.columns)
    target, group = str(request.target), request.group_column
    masks = _files(frame[target], paths, "mask", origin)
    kept = [row for row in range(frame.height) if images[row][1] is not None and masks[row][1] is not None]
    lonely = tuple(images[row][0] for row in range(frame.height) if row not in set(kept))
    if len(lonely) > len(kept):
        raise UserError(
            f"{origin}: {len(lonely):,} of {frame.height:,} rows name an image or a mask that is not there: "
            f"{quoted(lonely)}"
        )
    groups = None if group is None else frame[group].cast(pl.String).fill_null("").gather(kept).to_list()
    train = PairedFiles(
        tuple(file for row in kept if (file := images[row][1]) is not None),
        tuple(file for row in kept if (file := masks[row][1]) is not None),
        tuple(images[row][0] for row in kept),
        None if groups is None else tuple(groups),
        lonely,
        folders=(paths.folder,),
    )
    unused = tuple(name for name in frame.columns if name not in (column, target, group))
    return PairedSource(origin, read.name, target, train, columns=(column,), ignored=unused)


def _check_columns(frame: pl.DataFrame, origin: str, request: Request) -> None:
    """UserError where a column that the user named is not there, or the target is not named."""
    if request.time_column is not None:
        raise UserError(f"{origin} is a table of images, which has no use for the time column")
    if request.needs_target and request.target is None:
        raise UserError(f"{origin} is a table of images: name the column of their masks as the target")
    if request.needs_target and request.target not in frame.columns:
        near = shown(did_you_mean(str(request.target), frame.columns))
        raise UserError(f"{origin} has no column '{shown(request.target)}'{near}")
    if request.group_column is not None and request.group_column not in frame.columns:
        raise UserError(f"{origin} has no column '{shown(request.group_column)}'")


def _image_column(frame: pl.DataFrame, paths: ImagePaths, origin: str, request: Request) -> str:
    if request.columns:
        if request.columns[0] not in frame.columns:
            raise UserError(f"{origin} has no column '{shown(request.columns[0])}' of image files")
        return request.columns[0]
    others = frame.drop([name for name in (request.target, request.group_column) if name], strict=False)
    column = next((name for name in others.columns if _names_images(others[name], paths)), None)
    if column is None:
        raise UserError(
            f"{origin} has no column of image files that exist; expected paths relative to "
            f"{shown(paths.folder.resolve(), 100)}"
        )
    return column


def _files(cells: pl.Series, paths: ImagePaths, what: str, origin: str) -> list[tuple[str, Path | None]]:
    texts = cells.cast(pl.String).fill_null("").to_list()
    found = [(cell, paths.file(cell)) for cell in texts]
    if found and not any(file for _, file in found):
        raise UserError(
            f"{origin}: no {what} file of column '{shown(cells.name)}' exists, such as {quoted(texts[:1])}; "
            f"paths "
            f"are relative to {shown(paths.folder.resolve(), 100)}"
        )
    return found


# ---------------------------------------------------------------------------------------------------- arrays


def _of_arrays(source: object, request: Request) -> PairedSource:
    origin = shown(source, 200) if isinstance(source, str | Path) else "the arrays"
    request.refuse(origin, without=("id_column", "time_column"))
    name = "arrays"
    if isinstance(source, np.ndarray):
        arrays: Mapping[str, NDArray[Any]] = {"X": source}
    elif isinstance(source, Mapping):
        arrays = {str(key): as_array(value, str(key), origin) for key, value in source.items()}
    else:
        path = Path(str(source))
        regular(path, ".npz", origin)
        arrays, name = load_npz(path, origin, request), path.stem
    parts = _named_parts(arrays)
    there = ", ".join(f"{shown(given, 30)} {array.dtype} {array.shape}" for given, array in arrays.items())
    if not request.needs_target:
        named = next((own for own in ("test", "train") if ("x", own) in parts), None)
        if named is None and len(arrays) != 1:
            raise UserError(f"{origin} has no array of images: expected X, found {there or 'none'}")
        images = parts["x", named] if named else next(iter(arrays.values()))
        return PairedSource(origin, name, "mask", PairedArrays(images, None))
    wanted = [part for part in ("train", "val", "test") if ("x", part) in parts and ("y", part) in parts]
    if not wanted:
        raise UserError(
            f"{origin} needs images X and masks Y (rows, height, width); it has {there or 'none'}"
        )
    paired = {part: _pair_of(parts, part, origin) for part in wanted}
    test = paired.pop("test", None)
    if request.like is not None and test is not None:
        paired, test = {"train": test}, None
    if not paired:
        assert test is not None
        paired, test = {"train": test}, None
    train = paired.pop("train", None) or paired.pop("val")
    if "val" in paired:
        train = _joined(train, paired["val"], origin)
    return PairedSource(origin, name, "mask", train, test)


def _named_parts(arrays: Mapping[str, NDArray[Any]]) -> dict[tuple[str, str], NDArray[Any]]:
    """(role, part) -> its array: roles "x", "y" and "group"; parts "train", "val" and "test"."""
    parts: dict[tuple[str, str], NDArray[Any]] = {}
    for given, array in arrays.items():
        if found := _NAME.fullmatch(given):
            word = found[1].lower()
            role = "x" if word in VALUE_NAMES else "y" if word in MASK_NAMES else "group"
            part = PARTS[found[2].lower()] if found[2] else "train"
            parts.setdefault((role, part), array)
    return parts


def _pair_of(parts: Mapping[tuple[str, str], NDArray[Any]], part: str, origin: str) -> PairedArrays:
    images, masks = parts["x", part], parts["y", part]
    if len(images) != len(masks):
        raise UserError(
            f"{origin}: {len(images):,} images and {len(masks):,} masks; expected a mask for each image"
        )
    groups = parts.get(("group", part))
    if groups is not None and groups.shape != (len(images),):
        raise UserError(
            f"{origin}: groups have shape {groups.shape}; expected one for each of {len(images):,} images"
        )
    return PairedArrays(images, masks, None if groups is None else tuple(map(str, groups.tolist())))


def _joined(one: PairedArrays, other: PairedArrays, origin: str) -> PairedArrays:
    assert one.masks is not None and other.masks is not None
    try:
        images, masks = np.concatenate([one.images, other.images]), np.concatenate([one.masks, other.masks])
    except ValueError as error:
        raise UserError(f"{origin}: training and validation images differ in shape: {error}") from error
    groups = None if one.groups is None or other.groups is None else one.groups + other.groups
    return PairedArrays(images, masks, groups)
