"""Which files of a source are images with boxes: a table of formats, each of which is tried in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.lists import Boxes
from advisor.data.boxes.annotated import Annotated, images_of, subfolders, together
from advisor.data.boxes.coco import is_coco, read_coco
from advisor.data.boxes.tables import is_box_table, read_box_table
from advisor.data.boxes.voc import read_voc, voc_folders
from advisor.data.boxes.yolo import read_yolo, yolo_folders
from advisor.data.masks.digit_scenes import digit_scenes
from advisor.data.signals.arrays.array_names import PARTS
from advisor.data.signals.image_paths import SUFFIXES
from advisor.data.signals.rows import Request
from advisor.errors import UserError, shown

SOURCE = "sklearn:digit-boxes"
MADE_SCENES = 400
"""Training scenes of ``sklearn:digit-boxes``, and a quarter as many test scenes."""
TABLES = (".csv", ".tsv", ".txt", ".parquet")
EXPECTED = (
    "expected a COCO file (.json), images/ with labels/ (YOLO), images with XML files (Pascal VOC), or a "
    "table with the columns filename, xmin, ymin, xmax, ymax, class"
)


@dataclass(frozen=True)
class BoxedArrays:
    """Images of one part as an array, with their boxes; None where none are asked for."""

    images: NDArray[Any]
    boxes: Boxes | None = None
    classes: tuple[str, ...] = ()


Part = Annotated | BoxedArrays


@dataclass(frozen=True)
class BoxSource:
    """What a source holds."""

    origin: str
    name: str
    train: Part
    test: Part | None = None


def has_boxes(source: object, target: str | None = None) -> bool:
    """Whether a source is images with a list of boxes each."""
    if not isinstance(source, str | Path) or str(source).startswith(("sklearn:", "openml:")):
        return isinstance(source, str) and source == SOURCE
    path = Path(source)
    try:
        if path.is_dir():
            return bool(_parts(path, target))
        return path.is_file() and _reader_of_file(path, target) is not None
    except Exception:  # noqa: BLE001  whatever is wrong with it is told by whoever reads it
        return False


def find_boxes(source: object, request: Request) -> BoxSource:
    """The images of a source and their boxes. UserError for a source that has none."""
    if isinstance(source, str) and source == SOURCE:
        return BoxSource(source, "digit-boxes", _made(MADE_SCENES, "train"), _made(MADE_SCENES // 4, "test"))
    if isinstance(source, np.ndarray) and not request.needs_target:
        return BoxSource("the arrays", "arrays", BoxedArrays(source))
    if not isinstance(source, str | Path):
        raise UserError(f"a {type(source).__name__} is not a source of images with boxes; {EXPECTED}")
    path, origin = Path(source), shown(source, 200)
    if not path.exists():
        raise UserError(f"{origin} does not exist; {EXPECTED}")
    name = path.resolve().stem if path.is_file() else path.resolve().name
    if not request.needs_target:
        return BoxSource(origin, name, _images_alone(path, request, origin))
    if path.is_file():
        reader = _reader_of_file(path, request.target) or _reader_by_ending(path, request)
        if reader is None:
            raise UserError(f"{origin} is not a file of boxes; {EXPECTED}")
        return BoxSource(origin, name, reader(request))
    parts = {part: reader(request) for part, reader in _parts(path, request.target).items()}
    if not parts:
        raise UserError(f"{origin} has no images with boxes; {EXPECTED}")
    test = parts.pop("test", None)
    if test is not None and (request.like is not None or not parts):  # given as test rows
        parts, test = {"train": test}, None
    return BoxSource(origin, name, together(list(parts.values()), origin), test)


Reader = Callable[[Request], Annotated]


def _reader_of_file(path: Path, target: str | None) -> Reader | None:
    if is_coco(path):
        return lambda request: read_coco(path)
    if path.suffix.lower() in TABLES and is_box_table(path, target):
        return lambda request: read_box_table(path, request.target, request.form)
    return None


def _reader_by_ending(path: Path, request: Request) -> Reader | None:
    """Of a file that the user says has boxes, so that what is wrong with it is told."""
    if path.suffix.lower() == ".json":
        return lambda request: read_coco(path)
    if path.suffix.lower() in TABLES:
        return lambda request: read_box_table(path, request.target, request.form)
    return None


def _parts(folder: Path, target: str | None) -> Mapping[str, Reader]:
    """Part ("train", "val", "test") -> how it is read; a folder without parts is "train"."""
    inner = [own for own in subfolders(folder) if own.name.lower() in PARTS]
    found = {
        PARTS[own.name.lower()]: reader
        for own in inner
        if (reader := _reader_of_folder(own, folder, target)) is not None
    }
    found = found or _parts_below(folder) or _coco_parts(folder)
    if not found and (whole := _reader_of_folder(folder, folder, target)) is not None:
        found = {"train": whole}
    if not found and not inner and len(below := subfolders(folder)) == 1:
        return _parts(below[0], target)  # an archive that was unpacked into a folder of its name
    return found


def _reader_of_folder(folder: Path, above: Path, target: str | None) -> Reader | None:
    """One format after the other; a folder has one."""
    files = _coco_files(folder)
    if len(files) == 1:
        return lambda request: read_coco(files[0])
    if (pair := yolo_folders(folder)) is not None:
        return lambda request: read_yolo(*pair, [folder, above])
    if (both := voc_folders(folder)) is not None:
        return lambda request: read_voc(*both)
    tables = [own for own in sorted(folder.glob("*.csv")) if is_box_table(own, target)]
    if len(tables) > 1:
        names = ", ".join(f"'{shown(own.name, 30)}'" for own in tables[:5])
        raise UserError(f"{shown(folder, 200)} has {len(tables)} tables of boxes ({names}): name one of them")
    return (lambda request: read_box_table(tables[0], request.target, request.form)) if tables else None


def _parts_below(folder: Path) -> dict[str, Reader]:
    """YOLO's other form: images/train and labels/train."""
    pair = yolo_folders(folder)
    if pair is None:
        return {}
    images, labels = pair
    there = {PARTS[own.name.lower()]: own.name for own in subfolders(images) if own.name.lower() in PARTS}
    return {
        part: (lambda request, name=name: read_yolo(images / name, labels / name, [labels, folder]))  # type: ignore[misc]
        for part, name in there.items()
        if (labels / name).is_dir()
    }


def _coco_files(folder: Path) -> list[Path]:
    """COCO's files of a folder, or of its folder annotations/."""
    own = [file for file in sorted(folder.glob("*.json")) if is_coco(file)]
    below = folder / "annotations"
    return own or ([file for file in sorted(below.glob("*.json")) if is_coco(file)] if below.is_dir() else [])


def _coco_parts(folder: Path) -> dict[str, Reader]:
    """COCO's own form: annotations/instances_train2017.json and the like."""
    files = _coco_files(folder)
    if len(files) < 2:
        return {}
    found: dict[str, Reader] = {}
    for file in files:
        part = next((PARTS[word] for word in PARTS if word in file.stem.lower()), None)
        if part is None or part in found:
            names = ", ".join(f"'{shown(own.name, 30)}'" for own in files[:5])
            where = f"{shown(folder, 200)} has {len(files)} files of boxes"
            raise UserError(f"{where} ({names}): name one of them")
        found[part] = lambda request, file=file: read_coco(file)  # type: ignore[misc]
    return found


def _images_alone(path: Path, request: Request, origin: str) -> Annotated:
    """The images of a source, whatever stands beside them: of a folder with parts those of test/."""
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return Annotated((path,), (path.name,), None)
    if path.is_file():
        reader = _reader_of_file(path, None)
        if reader is None:
            raise UserError(f"{origin} names no images; expected images, a folder or a file of boxes")
        return reader(request)
    parts = _parts(path, None)
    if parts:
        return (parts.get("test") or next(iter(parts.values())))(request)
    files = images_of(path)
    if not files:
        raise UserError(f"{origin} has no image files; expected PNG, JPEG and the like")
    return Annotated(tuple(files), tuple(file.relative_to(path).as_posix() for file in files), None)


def _made(rows: int, part: Any) -> BoxedArrays:
    made = digit_scenes(rows, part=part)
    return BoxedArrays(made.images, Boxes(made.boxes, made.codes, made.ends), tuple(map(str, range(10))))
