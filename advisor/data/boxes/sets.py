"""Images with boxes -> training rows and test rows as arrays, with what is needed to read new images alike,
and to give found boxes in the points of the image that was given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.boxes.lists import CORNERS, Boxes, Found
from advisor.data.boxes.annotated import Annotated
from advisor.data.boxes.checked import ClassNames, Repairs, checked
from advisor.data.boxes.sources import BoxedArrays, Part, find_boxes
from advisor.data.masks.mask_files import placed
from advisor.data.options import DEFAULT_OPTIONS, FileForm, ReadingOptions
from advisor.data.signals.arrays.values import as_images, bits_of_array
from advisor.data.signals.image_decoding import ImageRows, decoded_files
from advisor.data.signals.pixels import capped
from advisor.data.signals.rows import ArrayValues, Request, quoted
from advisor.data.signals.signal_schema import SignalSchema
from advisor.data.signals.signals import SignalSet
from advisor.data.sources.reading import MAX_BYTES
from advisor.data.tables.test_rows import check_tested, held_out_rows, row_keys
from advisor.dataset import BoxedImages, Dataset
from advisor.errors import UserError
from advisor.tasks import DETECTION, MULTICLASS

LEAST_SIDE, MOST_SIDE = 256, 640
"""The longer side of the images is brought to at most the first, to more where boxes would be too small, and
never to more than the second (what YOLO and most others train on)."""
SMALL_SHARE, SMALL_SIDE = 0.1, 16.0
"""A tenth of the boxes may have a shorter side than so many points."""
TARGET = "boxes"


@dataclass(frozen=True)
class _Rows:
    """Images and their boxes, in points of the images as they are read."""

    images: ImageRows
    boxes: Boxes
    repairs: Repairs = field(default_factory=Repairs)
    strange: int = 0

    def dataset(self, rows: NDArray[np.int64], classes: tuple[str, ...]) -> Dataset[Boxes, BoxedImages]:
        return Dataset(BoxedImages(self.images.values[rows]), self.boxes[rows], DETECTION, classes)

    def names(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self.images.names[row] for row in rows.tolist())


def load_boxes(
    source: object, target: str | None = None, options: ReadingOptions = DEFAULT_OPTIONS
) -> SignalSet:
    """Read images with a list of boxes each and set test rows apart.

    source: a COCO file, a folder in YOLO's or Pascal VOC's form (also with train/ and test/), or a table with
        a row for each box, of which ``target`` names the column of classes.
    UserError for everything that the user can fix.
    """
    _refuse(options)
    request = Request(target, max_bytes=MAX_BYTES, form=options.form)
    found = find_boxes(source, request)
    names = _names(found.train)
    if not names.names:
        raise UserError(f"{found.origin} has no box in any training image; at least one is needed")
    train = _read(found.train, request, names, found.origin)
    if len(train.boxes) < 2:
        raise UserError(f"{found.origin} has {len(train.boxes)} training images; at least 2 are needed")
    shape = train.images.values.shape[1:]
    alike = replace(request, like=shape, bits=train.images.bits)
    given = find_boxes(options.test, alike).train if options.test is not None else found.test
    everything = np.arange(len(train.boxes))
    if given is None:
        other = train
        held = _held_out(train, options)
        kept, tested = everything[~held], everything[held]
    else:
        other = _read(given, alike, names, found.origin)
        kept, tested = everything, np.arange(len(other.boxes))
    check_tested(len(tested), options.tested or given is not None)
    schema = SignalSchema(
        "boxes",
        TARGET,
        DETECTION.name,
        names.names,
        shape[0],
        tuple(shape[1:]),
        False,
        bits=train.images.bits,
    )
    return _set_of(found.name, found.origin, schema, train, other, kept, tested, given is not None)


def _refuse(options: ReadingOptions) -> None:
    if options.task is not None and options.task != DETECTION.name:
        raise UserError(
            f"task is '{options.task}', but each image has boxes: the task is {DETECTION.name}; leave it out"
        )
    names = ("types", "weight_column", "id_column", "time_column", "group_column", "channels")
    for name in (*names, "ignore"):
        if getattr(options, name):
            option = name.replace("_", "-").rstrip("s" if name == "types" else "")
            raise UserError(f"--{option} is of no use for images with boxes; leave it out")


def _set_of(
    name: str,
    origin: str,
    schema: SignalSchema,
    train: _Rows,
    other: _Rows,
    kept: NDArray[np.int64],
    tested: NDArray[np.int64],
    given: bool,
) -> SignalSet:
    repairs = train.repairs + other.repairs if given else train.repairs
    lost = {**train.images.lost}
    for what, files in (other.images.lost if given else {}).items():
        lost[what] = (*lost.get(what, ()), *files)
    spellings = tuple(f"{kept_name} ({', '.join(others)})" for kept_name, others in repairs.spellings.items())
    lost["joined_classes"] = spellings
    notes = {**train.images.notes, **{what: len(files) for what, files in lost.items()}, **repairs.notes()}
    notes["test_rows_of_unseen_class"] = other.strange if given else 0
    return SignalSet(
        name,
        origin,
        _fingerprint(train, schema),
        schema,
        train.dataset(kept, schema.classes),
        other.dataset(tested, schema.classes),
        {what: count for what, count in notes.items() if count},
        "file" if given else "held-out",
        train.names(kept),
        other.names(tested),
        lost={what: files for what, files in lost.items() if files},
    )


@dataclass(frozen=True)
class NewImages:
    """Images to predict. sizes: (height, width) of each as it was given."""

    features: BoxedImages
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]


def read_boxed_images(source: object, schema: SignalSchema, form: FileForm) -> NewImages:
    """New images for a saved model, at its size. UserError where one cannot be read or has other channels."""
    request = Request(max_bytes=MAX_BYTES, like=schema.shape, needs_target=False, bits=schema.bits, form=form)
    found = find_boxes(source, request)
    images = _images(found.train, request, found.origin)
    if bad := images.lost.get("corrupt_files"):
        raise UserError(f"{found.origin}: {len(bad):,} images cannot be read: {quoted(bad)}; leave them out")
    return NewImages(BoxedImages(images.values), images.names, images.sizes)


def in_given_points(found: Found, size: tuple[int, int], into: tuple[int, int]) -> Found:
    """Found boxes (most, 6) of an image brought ``into`` a size, in points of the image as it was given."""
    top, left, height, width = placed(size, into)
    scale = np.array([size[1] / width, size[0] / height])
    result = found.copy()
    corners = (found[:, CORNERS] - np.tile([left, top], 2)) * np.tile(scale, 2)
    result[:, CORNERS] = np.clip(corners, 0, np.tile([size[1], size[0]], 2))
    return result


# --------------------------------------------------------------------------------------------------- reading


def _names(part: Part) -> ClassNames:
    return ClassNames(part.classes) if isinstance(part, BoxedArrays) else ClassNames.of(part)


def _read(part: Part, request: Request, names: ClassNames, origin: str) -> _Rows:
    images = _images(part, request, origin)
    if isinstance(part, BoxedArrays):
        assert part.boxes is not None
        return _Rows(images, part.boxes)
    boxes, repairs, strange = checked(part, images.rows, images.sizes, names, origin)
    into = (images.values.shape[2], images.values.shape[3])
    moved = boxes.corners.copy()
    for row, size in enumerate(images.sizes):
        own = boxes.rows == row
        top, left, height, width = placed(size, into)
        scale = np.array([width / size[1], height / size[0]])
        moved[own] = boxes.corners[own] * np.tile(scale, 2) + np.tile([left, top], 2)
    repairs = replace(repairs, spellings=names.spellings)
    return _Rows(images, Boxes(moved, boxes.codes, boxes.ends), repairs, strange)


def _images(part: Part, request: Request, origin: str) -> ImageRows:
    return (
        _of_array(part, request, origin)
        if isinstance(part, BoxedArrays)
        else _of_files(part, request, origin)
    )


def _of_files(part: Annotated, request: Request, origin: str) -> ImageRows:
    read = decoded_files(
        part.images, part.names, origin, partial(_common, part), like=request.like, bits=request.bits
    )
    lost = {**read.lost, "absent_files": part.absent, "images_without_list": part.unlisted}
    return replace(read, lost={what: files for what, files in lost.items() if files})


def _common(part: Annotated, rows: Sequence[int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The median of each side, smaller where boxes stay large enough to be seen."""
    heights, widths = np.array(sizes).T
    height, width = round(float(np.median(heights))), round(float(np.median(widths)))
    sides = [
        min(abs(box.corners[2] - box.corners[0]), abs(box.corners[3] - box.corners[1]))
        * (min(size) if part.shares else 1.0)
        for row, size in zip(rows, sizes, strict=True)
        for box in (part.boxes or ((),) * len(part.images))[row]
    ]
    small = float(np.quantile(sides, SMALL_SHARE)) if sides else 0.0
    wanted = max(height, width) * SMALL_SIDE / small if small > 0 else MOST_SIDE
    return capped(height, width, int(min(max(LEAST_SIDE, wanted), MOST_SIDE)))


def _of_array(part: BoxedArrays, request: Request, origin: str) -> ImageRows:
    array, where = np.asarray(part.images), f"{origin}: the images"
    if array.ndim not in (3, 4) or not array.size:
        raise UserError(f"{where} have shape {array.shape}; expected (rows, height, width[, channels])")
    bits = request.bits or bits_of_array(array)
    values = as_images(array, where, request.like, bits, MOST_SIDE)
    size = array.shape[1:3] if array.ndim == 3 or array.shape[3] in (1, 3, 4) else array.shape[2:4]
    rows = len(values)
    return ImageRows(
        values,
        ArrayValues(values).keys(),
        ("",) * rows,
        ((int(size[0]), int(size[1])),) * rows,
        tuple(range(rows)),
        bits,
    )


def _held_out(rows: _Rows, options: ReadingOptions) -> NDArray[np.bool_]:
    """The test rows: each rarest class with its share."""
    if not options.test_fraction:
        return np.zeros(len(rows.boxes), bool)
    rarest = DETECTION.strata(rows.boxes)
    assert rarest is not None
    mixed = row_keys(pl.DataFrame({"key": rows.images.keys}), options.seed)
    strata = pl.Series("stratum", rarest.astype(str))
    return held_out_rows(strata, MULTICLASS, [], mixed, options.test_fraction, options.seed)


def _fingerprint(rows: _Rows, schema: SignalSchema) -> str:
    whole = hashlib.sha256(repr((schema.kind, schema.shape, schema.classes)).encode())
    lists = (corners.tobytes() + codes.tobytes() for corners, codes in rows.boxes.each())
    digests = (hashlib.blake2b(own, digest_size=8).hexdigest() for own in lists)
    whole.update(
        "\n".join(
            sorted(f"{key:x} {own}" for key, own in zip(rows.images.keys.tolist(), digests, strict=True))
        ).encode()
    )
    return whole.hexdigest()[:32]
