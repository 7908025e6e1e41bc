"""Images with masks -> training rows and test rows as arrays, with what is needed to read new images alike,
and to write their masks as the training masks were written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.masks.mask_files import as_colours, fitted_mask, nearest, packed, placed, read_mask
from advisor.data.masks.pairs import Paired, PairedFiles, PairedSource, find_pairs
from advisor.data.masks.palette import (
    Palette,
    RawMask,
    find_legend,
    mask_value,
    palette_of,
    read_legend,
    value_text,
)
from advisor.data.options import DEFAULT_OPTIONS, FileForm, ReadingOptions
from advisor.data.signals.arrays.values import as_images, bits_of_array
from advisor.data.signals.image_decoding import decoded_files, headers
from advisor.data.signals.pixels import capped, common_size
from advisor.data.signals.rows import ArrayValues, Request, quoted
from advisor.data.signals.signal_schema import SignalSchema
from advisor.data.signals.signals import SignalSet
from advisor.data.sources.reading import MAX_BYTES
from advisor.data.tables.test_rows import check_tested, held_out_rows, row_keys
from advisor.dataset import Dataset, Scenes
from advisor.errors import UserError, shown
from advisor.tasks import MULTICLASS, SEGMENTATION, UNLABELLED, Masks

MOST_SCENE_SIDE = 1024
"""Images are brought to at most this many points on the longer side: more than for a class alone, since the
mask is as fine as the image."""
STRAY_SHARE = 1e-4
"""A class of fewer of the labelled points is more likely a slip of the brush than a class."""


@dataclass(frozen=True)
class MaskSchema(SignalSchema):
    """All that is needed to read new images as the training images were, and to write their masks.

    values: of each class in the training masks; coloured: whether these are colours; ignored: values of
    unlabelled points.
    """

    values: tuple[int, ...] = ()
    coloured: bool = False
    ignored: tuple[int, ...] = ()

    @property
    def palette(self) -> Palette:
        """What the values of the masks stand for."""
        return Palette(self.values, self.classes, self.coloured, self.ignored)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        return super().to_dict() | {"values": list(self.values), "ignored": list(self.ignored)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MaskSchema:
        """The schema that ``to_dict`` wrote."""
        plain = {name: value for name, value in data.items() if name not in ("values", "coloured", "ignored")}
        read = SignalSchema.from_dict(plain)
        own = {name: getattr(read, name) for name in plain}
        return cls(
            **own, values=tuple(data["values"]), coloured=data["coloured"], ignored=tuple(data["ignored"])
        )


@dataclass(frozen=True)
class _Part:
    """Images and masks of one part, at one size.

    raw: the values of the masks as they were read. sizes: of the masks as they were, which ``raw`` has too.
    """

    images: NDArray[np.uint8]
    raw: tuple[RawMask, ...]
    coloured: bool
    keys: NDArray[np.uint64]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    bits: int
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


def load_masks(
    source: object, target: str | None = None, options: ReadingOptions = DEFAULT_OPTIONS
) -> SignalSet:
    """Read images with a mask each and set test rows apart.

    source: a folder with images/ and masks/ of the same names (also in train/ and test/), arrays X and Y, or
        a table with a column of paths for each, of which ``target`` names that of the masks.
    UserError for everything that the user can fix.
    """
    _refuse(options)
    found, train, tested = _read_parts(source, target, options)
    ignored = None if options.ignore is None else mask_value(str(options.ignore))
    palette = _palette(found, train, tested, ignored)
    size = (train.images.shape[2], train.images.shape[3])
    rows, stray = _rows(train, palette, size, found.origin, of_training=True)
    if tested is None:
        own, other = _apart(rows, _held_out(rows, options.test_fraction, options.seed))
    else:
        own, (other, strange) = rows, _rows(tested, palette, size, found.origin, of_training=False)
        stray += strange
    check_tested(len(other.target), tested is not None or options.test_fraction > 0)
    schema = _schema(found, train, palette, size, own)
    lost = _lost(train, tested)
    counts = {what: len(files) for what, files in lost.items()}
    counts |= {"rows_without_target": rows.unlabelled, "test_rows_of_unseen_class": stray}
    return SignalSet(
        found.name,
        found.origin,
        _fingerprint(rows, schema),
        schema,
        own.dataset(palette),
        other.dataset(palette),
        {what: count for what, count in {**train.notes, **counts}.items() if count},
        "held-out" if tested is None else "file",
        own.names,
        other.names,
        found.ignored,
        lost=lost,
    )


def _read_parts(
    source: object, target: str | None, options: ReadingOptions
) -> tuple[PairedSource, _Part, _Part | None]:
    """What a source holds, its training images, and its test images where they are given."""
    request = Request(target, group_column=options.group_column, max_bytes=MAX_BYTES, form=options.form)
    found = find_pairs(source, request)
    train = _read(found.train, request, found.origin)
    alike = replace(request, like=train.images.shape[1:], bits=train.bits, columns=found.columns)
    given = find_pairs(options.test, alike).train if options.test is not None else found.test
    tested = None if given is None else _read(given, alike, found.origin)
    return found, train, tested


def _refuse(options: ReadingOptions) -> None:
    """UserError for an option that images with masks have no use for."""
    if options.task is not None and options.task != SEGMENTATION.name:
        raise UserError(
            f"task is '{options.task}', but each image has a mask: the task is {SEGMENTATION.name}; leave it "
            "out"
        )
    for name in ("types", "weight_column", "id_column", "time_column", "channels"):
        if getattr(options, name):
            option = name.replace("_", "-").rstrip("s" if name == "types" else "")
            raise UserError(f"--{option} is of no use for images with masks; leave it out")


def _lost(train: _Part, tested: _Part | None) -> dict[str, tuple[str, ...]]:
    """Files that were left out, of both parts."""
    lost = {**train.lost}
    for what, files in (tested.lost if tested else {}).items():
        lost[what] = (*lost.get(what, ()), *files)
    return {what: files for what, files in lost.items() if files}


@dataclass(frozen=True)
class NewScenes:
    """Images to predict. sizes: (height, width) of each as it was given."""

    features: Scenes
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]


def read_scenes(source: object, schema: MaskSchema, form: FileForm) -> NewScenes:
    """New images for a saved model, at its size. UserError where one cannot be read or has other channels."""
    request = Request(
        schema.target,
        max_bytes=MAX_BYTES,
        like=schema.shape,
        needs_target=False,
        columns=schema.columns,
        bits=schema.bits,
        form=form,
    )
    found = find_pairs(source, request)
    paired = found.train
    if isinstance(paired, PairedFiles):
        known = headers(paired.images)
        if bad := [name for name, own in zip(paired.names, known, strict=True) if own.problem]:
            raise UserError(
                f"{found.origin}: {len(bad):,} images cannot be read: {quoted(bad)}; leave them out"
            )
        sizes = tuple((own.height, own.width) for own in known)
    else:
        sizes = ((0, 0),) * len(paired.images)
    part = _read(paired, request, found.origin)
    return NewScenes(Scenes(part.images), part.names, sizes)


def at_size_of(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A map (height, width) of a scene as large as its image was given; (0, 0): as it is."""
    if size == (0, 0) or size == values.shape:
        return values
    top, left, height, width = placed(size, (values.shape[0], values.shape[1]))
    return nearest(values[top : top + height, left : left + width], size)


# --------------------------------------------------------------------------------------------------- reading


def _read(paired: Paired, request: Request, origin: str) -> _Part:
    return (
        _of_files(paired, request, origin)
        if isinstance(paired, PairedFiles)
        else _of_arrays(paired, request, origin)
    )


def _of_files(paired: PairedFiles, request: Request, origin: str) -> _Part:
    read = decoded_files(
        paired.images, paired.names, origin, _size_for, like=request.like, bits=request.bits
    )
    raw, coloured = _mask_values(paired, read.rows, read.sizes)
    lost = {**read.lost, "absent_masks": paired.lonely}
    return _Part(
        read.values,
        tuple(raw),
        coloured,
        read.keys,
        read.names,
        None if paired.groups is None else tuple(paired.groups[row] for row in read.rows),
        read.bits,
        {what: files for what, files in lost.items() if files},
        {**read.notes, "masks_without_image": len(paired.extra)},
    )


def _size_for(rows: Sequence[int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size that all are read at: their own, else the median of each side, capped. (``common_size`` caps
    for images that have one class.)"""
    if len(set(sizes)) == 1:
        return capped(*sizes[0], MOST_SCENE_SIDE)
    heights, widths = np.array(sizes).T
    if max(np.median(heights), np.median(widths)) <= 1:
        return common_size(sizes)
    return capped(round(float(np.median(heights))), round(float(np.median(widths))), MOST_SCENE_SIDE)


def _mask_values(
    paired: PairedFiles, rows: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> tuple[list[RawMask], bool]:
    """The masks of these rows, all as colours where one of them has colours."""
    if paired.masks is None:
        return [], False
    masks: list[RawMask] = []
    colours: list[bool] = []
    for row, size in zip(rows, sizes, strict=True):
        values, coloured = read_mask(paired.masks[row], _name_of(paired.masks[row]))
        if values.shape != size:
            raise UserError(
                f"the mask '{shown(_name_of(paired.masks[row]), 80)}' has {values.shape[1]} x "
                f"{values.shape[0]} points "
                f"and its image {size[1]} x {size[0]}; expected one for each point of the image"
            )
        masks.append(values)
        colours.append(coloured)
    if any(colours):
        masks = [own if coloured else as_colours(own) for own, coloured in zip(masks, colours, strict=True)]
    return masks, any(colours)


def _name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _of_arrays(paired: Any, request: Request, origin: str) -> _Part:
    array, where = np.asarray(paired.images), f"{origin}: the images"
    if array.ndim not in (3, 4) or not array.size:
        raise UserError(f"{where} have shape {array.shape}; expected (rows, height, width[, channels])")
    bits = request.bits or bits_of_array(array)
    images = as_images(array, where, request.like, bits, MOST_SCENE_SIDE)
    raw: tuple[RawMask, ...] = ()
    coloured = False
    if paired.masks is not None:
        values, coloured = _array_masks(np.asarray(paired.masks), origin)
        whole = array.shape[1:3] if values.shape[1:] == array.shape[1:3] else array.shape[2:4]
        if values.shape[1:] != whole:
            raise UserError(
                f"{origin}: the masks have shape {values.shape[1:]} and the images {array.shape[1:]}; "
                f"expected a value "
                "for each point of the image"
            )
        raw = tuple(values)
    keys = ArrayValues(images).keys()
    return _Part(images, raw, coloured, keys, ("",) * len(images), paired.groups, bits)


def _array_masks(masks: NDArray[Any], origin: str) -> tuple[NDArray[np.int32], bool]:
    where = f"{origin}: the masks"
    if masks.dtype.kind not in "biuf":
        raise UserError(f"{where} hold {masks.dtype}; expected whole numbers")
    if masks.ndim == 4 and masks.shape[3] == 3 and masks.dtype == np.uint8:
        return packed(masks)
    if masks.ndim == 4 and 1 in (masks.shape[1], masks.shape[3]):
        masks = masks[:, 0] if masks.shape[1] == 1 else masks[..., 0]
    if masks.ndim != 3:
        raise UserError(
            f"{where} have shape {masks.shape}; expected (rows, height, width), or colours as bytes"
        )
    if masks.dtype.kind == "f" and not np.array_equal(masks, np.rint(masks)):
        raise UserError(f"{where} hold fractions or missing values; expected a whole number for each point")
    if masks.size and (masks.min() < 0 or masks.max() >= 1 << 16):
        raise UserError(
            f"{where} have values from {masks.min():g} to {masks.max():g}; expected 0 to 65,535, and 255 (or "
            f"--ignore) "
            "where a point is not labelled"
        )
    return masks.astype(np.int32), False


# --------------------------------------------------------------------------------------------------- classes


def _palette(found: PairedSource, train: _Part, tested: _Part | None, ignore: int | None) -> Palette:
    folders = [folder for part in (found.train, found.test) if part is not None for folder in part.folders]
    path = find_legend(folders)
    legend, of_colours = (None, False) if path is None else read_legend(path)
    coloured = train.coloured or of_colours or (tested is not None and tested.coloured and train.coloured)
    if legend is not None and coloured and not of_colours:
        raise UserError(
            f"{found.origin}: the masks have colours and the legend {shown(path, 120)} has numbers"
        )
    values = set()
    for mask in train.raw:
        values |= set(np.unique(_like(mask, train.coloured, coloured)).tolist())
    if ignore is not None and coloured and ignore <= UNLABELLED:
        ignore = ignore << 16 | ignore << 8 | ignore
    palette = palette_of(values, coloured, legend, ignore, found.origin)
    if legend is not None and (stray := sorted(values - {*palette.values, *palette.ignored})):
        name = next(
            (
                own
                for own, mask in zip(train.names, train.raw, strict=True)
                if stray[0] in _like(mask, train.coloured, coloured)
            ),
            "",
        )
        value = value_text(stray[0], coloured)
        raise UserError(
            f"{found.origin}: the mask of '{shown(name, 60)}' has the value {value}, which the legend "
            f"{shown(path, 100)} has not; add it there, or name it with --ignore"
        )
    return palette


def _like(mask: RawMask, coloured: bool, wanted: bool) -> RawMask:
    return as_colours(mask) if wanted and not coloured else mask


@dataclass(frozen=True)
class _Rows:
    images: NDArray[np.uint8]
    target: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    names: tuple[str, ...]
    groups: NDArray[np.int64] | None
    unlabelled: int = 0

    def part(self, rows: NDArray[np.int64]) -> _Rows:
        return _Rows(
            self.images[rows],
            self.target[rows],
            self.keys[rows],
            tuple(self.names[row] for row in rows.tolist()),
            None if self.groups is None else self.groups[rows],
        )

    def dataset(self, palette: Palette) -> Dataset[Masks, Scenes]:
        return Dataset(Scenes(self.images), Masks(self.target), SEGMENTATION, palette.names, self.groups)


def _rows(
    part: _Part, palette: Palette, size: tuple[int, int], origin: str, *, of_training: bool
) -> tuple[_Rows, int]:
    """The images that have labelled points, and how many have points of no class that is known."""
    target = np.full((len(part.raw), *size), UNLABELLED, np.uint8)
    strange = 0
    for row, mask in enumerate(part.raw):
        codes, stray = palette.codes(_like(mask, part.coloured, palette.coloured))
        strange += bool(len(stray))
        target[row] = fitted_mask(codes, size)
    labelled = (target != UNLABELLED).any(axis=(1, 2))
    if not labelled.any():
        which = "training" if of_training else "test"
        raise UserError(
            f"{origin}: no {which} image has a labelled point; are the masks those of these images?"
        )
    if of_training and labelled.sum() < 2:
        raise UserError(f"{origin} has {labelled.sum()} labelled images; at least 2 are needed")
    groups = None
    if part.groups is not None:
        groups = np.unique(np.array(part.groups), return_inverse=True)[1].astype(np.int64)
    rows = _Rows(part.images, target, part.keys, part.names, groups)
    kept = rows.part(labelled.nonzero()[0])
    return replace(kept, unlabelled=int((~labelled).sum())), strange


def _apart(rows: _Rows, held: NDArray[np.bool_]) -> tuple[_Rows, _Rows]:
    """The rows that are not held out, and those that are."""
    return rows.part((~held).nonzero()[0]), rows.part(held.nonzero()[0])


def _held_out(rows: _Rows, fraction: float, seed: int) -> NDArray[np.bool_]:
    """The test rows: each rarest class with its share, whole groups."""
    if not fraction:
        return np.zeros(len(rows.target), bool)
    rarest = SEGMENTATION.strata(Masks(rows.target))
    assert rarest is not None
    strata = pl.Series("stratum", rarest.astype(str))
    helpers = [] if rows.groups is None else [pl.Series("group", rows.groups.astype(str))]
    mixed = row_keys(pl.DataFrame({"key": rows.keys}), seed)
    return held_out_rows(strata, MULTICLASS, helpers, mixed, fraction, seed)


def _schema(
    found: PairedSource, part: _Part, palette: Palette, size: tuple[int, int], own: _Rows
) -> MaskSchema:
    return MaskSchema(
        "mask",
        found.target,
        "segmentation",
        palette.names,
        part.images.shape[1],
        size,
        False,
        group_column=None if own.groups is None else "group",
        columns=found.columns,
        bits=part.bits,
        values=palette.values,
        coloured=palette.coloured,
        ignored=palette.ignored,
    )


def _fingerprint(rows: _Rows, schema: MaskSchema) -> str:
    whole = hashlib.sha256(repr((schema.kind, schema.shape, schema.values)).encode())
    digests = (hashlib.blake2b(mask.tobytes(), digest_size=8).hexdigest() for mask in rows.target)
    whole.update(
        "\n".join(
            sorted(f"{key:x} {own}" for key, own in zip(rows.keys.tolist(), digests, strict=True))
        ).encode()
    )
    return whole.hexdigest()[:32]
