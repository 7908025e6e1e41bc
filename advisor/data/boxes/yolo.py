"""Boxes in YOLO's text files: one for each image, a line for each box: the number of its class, then its
middle, width and height as shares of the image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from advisor.data.boxes.annotated import Annotated, RawBox, child, images_of, number_of, text_of
from advisor.data.signals.rows import quoted
from advisor.errors import UserError, shown

IMAGE_FOLDERS, LABEL_FOLDERS = ("images", "image", "imgs", "img"), ("labels", "label")
NAMES = ("classes.txt", "obj.names", "names.txt", "_darknet.labels")
CONFIGURATIONS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
POLYGON = 6
"""Numbers from which on a line is the outline of an object: its box is around it."""


def yolo_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of text files; None where there are none."""
    labels, images = child(folder, LABEL_FOLDERS), child(folder, IMAGE_FOLDERS)
    if labels is None or images is None or next(labels.rglob("*.txt"), None) is None:
        return None
    return images, labels


def read_yolo(images: Path, labels: Path, near: Sequence[Path]) -> Annotated:
    """The images of a folder and their boxes; one without a text file, or with an empty one, has none.

    near: folders in which the names of the classes may stand. UserError for a file that is not whole.
    """
    names = class_names([labels, *near])
    by_stem = {
        file.relative_to(labels).with_suffix("").as_posix(): file
        for file in sorted(labels.rglob("*.txt"))
        if file.name not in NAMES
    }
    files = images_of(images)
    if not files:
        raise UserError(f"{shown(images, 200)} has no image files; expected PNG, JPEG and the like")
    stems = [file.relative_to(images).with_suffix("").as_posix() for file in files]
    lonely = sorted(set(by_stem) - set(stems))
    if 2 * len(lonely) > len(by_stem):
        raise UserError(
            f"{shown(labels, 200)}: {len(lonely):,} of {len(by_stem):,} text files have no image of the same "
            f"name in {shown(images, 100)}: {quoted(lonely)}"
        )
    boxes = [_boxes(by_stem[stem], names) if stem in by_stem else () for stem in stems]
    return Annotated(
        tuple(files),
        tuple(file.relative_to(images).as_posix() for file in files),
        tuple(boxes),
        tuple(names[code] for code in sorted(names)),
        shares=True,
        absent=tuple(f"{stem}.txt" for stem in lonely),
    )


def class_names(folders: Sequence[Path]) -> dict[int, str]:
    """The names of the classes by their numbers, as a file beside the data has them; empty without one."""
    for folder in folders:
        for name in NAMES:
            if (file := folder / name).is_file():
                lines = [line.strip() for line in text_of(file, "list of classes").splitlines()]
                return dict(enumerate(line for line in lines if line))
        for name in CONFIGURATIONS:
            if (file := folder / name).is_file():
                return _of_yaml(file)
    return {}


def _of_yaml(file: Path) -> dict[int, str]:
    import yaml

    try:
        document = yaml.safe_load(text_of(file, "YAML file"))
    except yaml.YAMLError as error:
        raise UserError(f"{shown(file, 200)} is no YAML ({shown(error, 80)})") from error
    names = document.get("names") if isinstance(document, Mapping) else None
    if isinstance(names, list):
        return {code: str(name) for code, name in enumerate(names)}
    if isinstance(names, Mapping) and all(isinstance(code, int) for code in names):
        return {code: str(name) for code, name in names.items()}
    raise UserError(f"{shown(file, 200)} has no 'names', the list of the classes")


def _boxes(file: Path, names: Mapping[int, str]) -> tuple[RawBox, ...]:
    found = []
    for place, line in enumerate(text_of(file, "text file of boxes").splitlines()):
        where = f"{shown(file, 200)}, line {place + 1}"
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 5 and (len(cells) <= POLYGON or len(cells) % 2 == 0):
            raise UserError(
                f"{where} has {len(cells)} numbers; expected five: class, middle x, middle y, width, height"
            )
        if not re.fullmatch(r"\d{1,6}", cells[0]):
            raise UserError(f"{where}: the class is '{shown(cells[0], 30)}'; expected its number, from 0")
        code = int(cells[0])
        if names and code not in names:
            raise UserError(f"{where} has the class {code}; the list of classes has {len(names)}, from 0")
        numbers = [number_of(cell, "a number of its box", where) for cell in cells[1:]]
        found.append(RawBox(_corners(numbers), names.get(code, str(code)), where))
    return tuple(found)


def _corners(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    if len(numbers) > 4:
        return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    x, y, width, height = numbers
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
