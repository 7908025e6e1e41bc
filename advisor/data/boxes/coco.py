"""Boxes in COCO's JSON: images, annotations (left, top, width, height) and categories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.data.boxes.annotated import Annotated, NamedImages, RawBox, label_of, number_of, text_of
from advisor.errors import UserError, shown

HEAD = 4096
"""Characters by which a file is told to be COCO's."""
WORDS = ('"images"', '"annotations"', '"categories"', '"info"', '"licenses"')


def is_coco(path: Path) -> bool:
    """Whether a JSON file begins as COCO's do."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return False
    return path.suffix.lower() == ".json" and any(word in head for word in WORDS)


def read_coco(path: Path) -> Annotated:
    """The images of a COCO file and their boxes. UserError for a file that is not whole."""
    origin = shown(path, 200)
    document = _document(path, origin)
    images, annotations = (_list(document, name, origin) for name in ("images", "annotations"))
    names = _categories(document, origin)
    places = NamedImages(path)
    found: dict[Any, tuple[str, Path | None]] = {}
    boxes: dict[Any, list[RawBox]] = {}
    for place, image in enumerate(images):
        where = f"{origin}: image {place + 1:,}"
        if not isinstance(image, Mapping) or not isinstance(image.get("file_name"), str):
            raise UserError(f"{where} has no 'file_name'; expected {{'id': 1, 'file_name': 'a.jpg', ...}}")
        if image.get("id") is None or isinstance(image["id"], list | dict):
            raise UserError(f"{where} ('{shown(image['file_name'], 60)}') has no 'id'")
        if image["id"] in found:
            raise UserError(f"{where} has the id {shown(image['id'], 30)}, as an earlier one has")
        found[image["id"]] = (image["file_name"], places.find(image["file_name"]))
        boxes[image["id"]] = []
    for place, annotation in enumerate(annotations):
        where = f"{origin}: annotation {place + 1:,}"
        if not isinstance(annotation, Mapping):
            raise UserError(f"{where} is not an object; expected {{'image_id': 1, 'bbox': [...], ...}}")
        own = annotation.get("image_id")
        if isinstance(own, list | dict) or own not in boxes:
            raise UserError(f"{where} is of the image {shown(own, 30)}, which is not among the images")
        if not annotation.get("iscrowd"):
            boxes[own].append(_box(annotation, names, where))
    places.checked(list(found.values()), origin)
    if not found:
        raise UserError(f"{origin} names no images")
    there = {own: file for own, (_, file) in found.items() if file is not None}
    return Annotated(
        tuple(there.values()),
        tuple(found[own][0] for own in there),
        tuple(tuple(boxes[own]) for own in there),
        tuple(names.values()),
        absent=tuple(name for name, file in found.values() if file is None),
    )


def _document(path: Path, origin: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text_of(path, "file of boxes in COCO's format"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} is no JSON ({shown(error, 80)}); expected COCO's format") from error
    if not isinstance(document, Mapping):
        raise UserError(f"{origin} is not an object with images, annotations and categories (COCO's format)")
    return document


def _list(document: Mapping[str, Any], name: str, origin: str) -> list[Any]:
    found = document.get(name)
    if not isinstance(found, list):
        raise UserError(f"{origin} has no list of {name}; expected COCO's format")
    return found


def _categories(document: Mapping[str, Any], origin: str) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for place, category in enumerate(_list(document, "categories", origin)):
        where = f"{origin}: category {place + 1}"
        if not isinstance(category, Mapping) or category.get("id") is None:
            raise UserError(f"{where} has no 'id'; expected {{'id': 1, 'name': 'dog'}}")
        if category["id"] in names:
            raise UserError(f"{where} has the id {shown(category['id'], 30)}, as an earlier one has")
        names[category["id"]] = label_of(category.get("name"), where)
    return names


def _box(annotation: Mapping[str, Any], names: Mapping[Any, str], where: str) -> RawBox:
    box, category = annotation.get("bbox"), annotation.get("category_id")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where}: its box is '{shown(box, 40)}'; expected [left, top, width, height]")
    if isinstance(category, list | dict) or category not in names:
        raise UserError(f"{where} has the category {shown(category, 30)}, which is not among the categories")
    left, top, width, height = (number_of(value, "a number of its box", where) for value in box)
    return RawBox((left, top, left + width, top + height), names[category], where)
