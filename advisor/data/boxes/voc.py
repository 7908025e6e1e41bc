"""Boxes in Pascal VOC's XML: one file for each image, with the corners of each object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from advisor.data.boxes.annotated import Annotated, RawBox, child, images_of, label_of, number_of, text_of
from advisor.data.signals.rows import quoted
from advisor.errors import UserError, shown

IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")
XML_FOLDERS = ("annotations", "annots", "labels", "xml", "xmls")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of XML files, which may be one; None where there are none."""
    if any(folder.glob("*.xml")):
        return child(folder, IMAGE_FOLDERS) or folder, folder
    files = child(folder, XML_FOLDERS)
    if files is None or next(files.rglob("*.xml"), None) is None:
        return None
    return child(folder, IMAGE_FOLDERS) or folder, files


def read_voc(images: Path, files: Path) -> Annotated:
    """The images of a folder that have an XML file, and their boxes; other images are left out.

    UserError for a file that is not whole, or where few images have one.
    """
    found = sorted(files.rglob("*.xml"))
    by_stem = {image.stem: image for image in images_of(images)}
    read: list[tuple[Path, tuple[RawBox, ...]]] = []
    absent: list[str] = []
    for file in found:
        root = _root(file)
        named = root.findtext("filename") or ""
        image = by_stem.get(file.stem) or by_stem.get(Path(named.replace("\\", "/")).stem)
        if image is None:
            absent.append(file.name)
        else:
            read.append((image, _boxes(root, file)))
    if 2 * len(absent) > len(found):
        raise UserError(
            f"{shown(files, 200)}: {len(absent):,} of {len(found):,} XML files have no image in "
            f"{shown(images, 100)}: {quoted(absent)}; expected images of the same names"
        )
    used = {image for image, _ in read}
    unlisted = [image for image in by_stem.values() if image not in used]
    return Annotated(
        tuple(image for image, _ in read),
        tuple(image.relative_to(images).as_posix() for image, _ in read),
        tuple(_counted_from_zero([own for _, own in read])),
        absent=tuple(absent),
        unlisted=tuple(image.relative_to(images).as_posix() for image in unlisted),
    )


def _root(file: Path) -> ElementTree.Element:
    text = text_of(file, "XML file of boxes")
    if "<!ENTITY" in text:  # a few lines of entities can grow to gigabytes
        raise UserError(f"{shown(file, 200)} declares entities, which no file of boxes needs; remove them")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{shown(file, 200)} is no XML ({shown(error, 80)})") from error


def _boxes(root: ElementTree.Element, file: Path) -> tuple[RawBox, ...]:
    boxes = []
    for place, one in enumerate(root.iter("object")):
        where = f"{shown(file, 200)}: object {place + 1}"
        label, box = label_of(one.findtext("name"), where), one.find("bndbox")
        if box is None:
            raise UserError(f"{where} ('{shown(label, 40)}') has no <bndbox>")
        left, top, right, bottom = (number_of(box.findtext(name), f"<{name}>", where) for name in _CORNERS)
        boxes.append(RawBox((left, top, right, bottom), label, where))
    return tuple(boxes)


def _counted_from_zero(images: Sequence[tuple[RawBox, ...]]) -> list[tuple[RawBox, ...]]:
    """VOC counts points from 1 and the last one belongs to the box; a set where one has the number 0 counts
    from 0, as many programs do."""
    if any(min(box.corners) < 1 for own in images for box in own):
        return list(images)
    return [tuple(RawBox(_first_at_zero(box.corners), box.label, box.where) for box in own) for own in images]


def _first_at_zero(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = corners
    (left, right), (top, bottom) = _lower_less_one(left, right), _lower_less_one(top, bottom)
    return left, top, right, bottom


def _lower_less_one(first: float, second: float) -> tuple[float, float]:
    return (first - 1, second) if first <= second else (first, second - 1)
