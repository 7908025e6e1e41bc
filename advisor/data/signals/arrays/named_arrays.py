"""NumPy arrays, ``.npz`` and ``.npy`` -> images or sequences: which array is what,
which axis is which, in which range."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.signals.pixels import (
    BYTE,
    MOST_CHANNELS,
    MOST_SIDE,
    bits_of,
    brought_to,
    byte_scale,
    capped,
    on_white,
)
from advisor.data.signals.rows import (
    ArrayValues,
    Found,
    RawRows,
    Request,
    padded,
    regular,
    without_infinities,
)
from advisor.data.sources.reading import available_memory, shown
from advisor.errors import UserError, did_you_mean
from advisor.kinds import AXES, KINDS, GridKind, Kind

VALUES = ("x", "images", "image", "data", "series", "sequences")
LABELS = ("y", "labels", "label", "targets", "target", "classes", "class")
GROUPS = ("group", "groups")
LENGTHS = ("length", "lengths")
PARTS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The part of a data set that a word of an array's name (or a folder's name) stands for."""
SMALLEST_SQUARE = 8
"""Numbers of shape (rows, side, side) are images from this side on: series have as many
channels as points by chance only."""


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of one array says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def kind_of_array(shape: Sequence[int], dtype: np.dtype[Any]) -> GridKind:
    """Images: four dimensions, three of whole numbers of a byte or of a square, two of
    bytes of a square; else sequences."""
    pixels = dtype in (np.uint8, np.bool_)
    if len(shape) == 3:
        pixels |= shape[1] == shape[2] >= SMALLEST_SQUARE
    elif len(shape) == 2:
        pixels &= square_side(shape[1]) >= SMALLEST_SQUARE
    return "image" if len(shape) == 4 or (pixels and len(shape) > 1) else "sequence"


def square_side(count: int) -> int:
    """Of a square of so many pixels; 0 where they make none."""
    side = math.isqrt(count)
    return side if side * side == count else 0


def kind_of_file(path: Path) -> GridKind:
    """The kind of the arrays in a file, from headers alone; "image" where that
    cannot be told (reading it says why)."""
    try:
        headers = _headers(path, shown(path, 200))
    except UserError:
        return "image"
    main = [header for name, header in headers.items() if _role(name, VALUES)] or list(headers.values())
    return kind_of_array(main[0].shape, main[0].dtype) if main else "image"


def read_arrays(source: object, kind: GridKind, request: Request) -> Found:
    """An array, a mapping of arrays, a ``.npz`` or a ``.npy`` file (with its labels beside it)."""
    unnamed = "the arrays" if isinstance(source, Mapping) else f"numpy.{type(source).__name__}"
    origin = shown(source, 200) if isinstance(source, str | Path) else unnamed
    request.refuse(origin, without=("id_column", "time_column"))
    name = "arrays"
    if isinstance(source, str | Path):
        path = Path(source)
        regular(path, ".npz or .npy", origin)
        name = re.sub(r"_?(train|TRAIN)$", "", path.stem) or path.stem
        arrays = (
            _loaded_npz(path, origin, request)
            if path.suffix.lower() == ".npz"
            else _loaded_npy(path, origin, request)
        )
    elif isinstance(source, np.ndarray):
        arrays = {"X": source}
    elif isinstance(source, Mapping):
        arrays = {str(key): as_array(value, str(key), origin) for key, value in source.items()}
    else:
        raise UserError(f"the data is a {type(source).__name__}; expected a path or a NumPy array")
    return _Arranged(_named(arrays), origin, kind, request).found(name)


def as_array(value: object, name: str, origin: str) -> NDArray[Any]:
    """A value of a mapping; series of unequal lengths, each (length,) or (channels,
    length), filled with NaN at their ends.

    UserError for other objects.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # rows of unequal lengths
        array = np.array(None)
    if array.dtype != object or not isinstance(value, Sequence | np.ndarray):
        return array
    try:
        rows = [np.atleast_2d(np.asarray(row, np.float32)) for row in value]
    except (TypeError, ValueError):
        rows = []
    if not rows or any(row.ndim != 2 or len(row) != len(rows[0]) for row in rows):
        raise UserError(
            f"{origin}: '{shown(name)}' holds Python objects; expected numbers, or one array of numbers per "
            "row, each of shape "
            "(length,) or (channels, length) with as many channels"
        )
    return padded(rows, len(rows[0]))


def _named(arrays: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Arrays that ``np.savez`` was given without names, arr_0 and so on, by what they can be: values have
    more dimensions than labels, training rows come before test rows."""
    unnamed = [f"arr_{position}" for position in range(len(arrays))]
    if len(arrays) not in (2, 4) or sorted(arrays) != unnamed:
        return arrays
    given = [arrays[name] for name in unnamed]
    flat = [array.ndim < 2 or (array.ndim == 2 and array.shape[1] == 1) or _one_hot(array) for array in given]
    values, labels = (
        [array for array, is_label in zip(given, flat, strict=True) if is_label == wanted]
        for wanted in (False, True)
    )
    if len(values) != len(labels) or any(len(x) != len(y) for x, y in zip(values, labels, strict=True)):
        return arrays
    suffixes = [""] if len(values) == 1 else ["_train", "_test"]
    return {
        f"{role}{suffix}": array
        for role, them in (("X", values), ("y", labels))
        for suffix, array in zip(suffixes, them, strict=True)
    }


def _one_hot(array: NDArray[Any]) -> bool:
    """Whether every row of (rows, classes) is zero but for a single one."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "biuf" or not len(array):
        return False
    return bool(np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all())


def read_digits(kind: GridKind, request: Request) -> Found:
    """scikit-learn's digits as images, 8 x 8, their sixteen levels of grey spread over the byte."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    request.refuse("sklearn:digits", without=("id_column", "time_column", "group_column"))
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    values = images if AXES[kind] == 2 else bunch.data[:, None].astype(np.float32)
    return _Arranged({"X": values, "target": bunch.target}, "sklearn:digits", kind, request).found("digits")


# --------------------------------------------------------------------------------------------- arrays by name


@dataclass(frozen=True)
class _Arranged:
    """The arrays of one source, found by their names."""

    arrays: Mapping[str, NDArray[Any]]
    origin: str
    kind: GridKind
    request: Request

    @property
    def axes(self) -> int:
        """Of a row's grid."""
        return AXES[self.kind]

    def found(self, name: str) -> Found:
        values = self._by_part(VALUES)
        if not values and len(self.arrays) == 1 and not self.request.needs_target:
            values = {"": next(iter(self.arrays))}
        if not values:
            raise UserError(
                f"{self.origin} has no array of values: expected X, X_train or images (with y, y_train or "
                "labels), "
                f"found {self._names()}"
            )
        target, labels = self._labels()
        first = next(iter(labels.values()), None)
        groups = self._groups()
        lengths = self._by_part(LENGTHS)
        chosen = [part for part in values if part != "test"] or ["test"]
        if (
            self.request.like is not None
        ):  # given as test rows or to predict: the plain rows, else those for the test
            chosen = next(([part] for part in ("", "test") if part in values), chosen)
        notes: dict[str, int] = {}
        last = self.axes == 1 and self._channels_last(values[chosen[0]], notes)
        bits = BYTE
        if self.axes == 2:
            deep = self.request.bits > BYTE
            bits = (
                self.request.bits
                if deep
                else max(bits_of_array(self.arrays[values[part]]) for part in chosen)
            )
        parts = {
            part: self._part(
                part, values[part], labels.get(part), groups.get(part), lengths.get(part), last, bits, notes
            )
            for part in dict.fromkeys([*chosen, *(["test"] if "test" in values else [])])
        }
        shape = self._common_shape(list(parts.values()))
        rows = _joined([parts[part] for part in chosen])
        test = parts["test"] if "test" in values and "test" not in chosen else None
        known = {*values.values(), *labels.values(), *groups.values(), *lengths.values()}
        notes["arrays_ignored"] = len(self.arrays) - len(known)
        texts = first is not None and self.arrays[first].dtype.kind in "US"
        return Found(
            self.kind, name, self.origin, target, shape, rows, test,
            classification=texts or (first is not None and _dense_codes(self._labels_of(first))),
            group_column=_spelled(next(iter(groups.values()))) if rows.groups is not None else None,
            channels_last=last,
            bits=bits,
        ).noting(notes)  # fmt: skip

    def _labels_of(self, name: str) -> NDArray[Any]:
        """An array of labels, one-hot rows as the numbers of their classes."""
        array = self.arrays[name]
        return array.argmax(axis=1) if _one_hot(array) else array

    def _channels_last(self, values: str, notes: dict[str, int]) -> bool:
        """Whether sequences stand as (rows, points, channels): as they stood in
        training, as was asked, else as they look."""
        array, asked = self.arrays[values], self.request.channels
        if array.ndim != 3 or not array.size or array.dtype.kind not in "biuf":
            return False  # what is wrong with it is told where it is read
        if self.request.like is not None:
            channels = self.request.like[0]
            before, other = (2, 1) if asked == "last" else (1, 2)
            return (
                before if array.shape[before] == channels or array.shape[other] != channels else other
            ) == 2
        if asked is not None:
            return asked == "last"
        last = points_before_channels(array)
        notes["channels_last"] = int(last)
        return last

    def _names(self) -> str:
        some = [f"{shown(name, 30)} {array.dtype} {array.shape}" for name, array in self.arrays.items()]
        return ", ".join(some[:6]) + (" and more" if some[6:] else "") if some else "no array at all"

    def _by_part(self, words: Sequence[str]) -> dict[str, str]:
        """Part ("" for all rows) -> the name of the array of this role."""
        found: dict[str, str] = {}
        for word in words:
            for name in self.arrays:
                role = _role(name, (word,))
                if role is not None:
                    found.setdefault(role, name)
        return {part: found[part] for part in ("", "train", "val", "test") if part in found}

    def _labels(self) -> tuple[str, dict[str, str]]:
        """The target's name without its part, and part -> array of labels."""
        asked = self.request.target
        if not self.request.needs_target:
            return asked or "y", {}
        if asked is not None and asked.lower().endswith(".npy"):
            asked = Path(asked).stem
        if asked is None:
            labels = self._by_part(LABELS)
        else:
            stem = _stem(asked)
            labels = self._by_part((stem,))
            if not labels:
                near = did_you_mean(asked, self.arrays)
                raise UserError(
                    f"{self.origin} has no array '{shown(asked)}'{shown(near)}; it has {self._names()}"
                )
        if not labels:
            raise UserError(
                f"{self.origin} has no array of labels: expected y, y_train or labels, or name one as the "
                "target; "
                f"it has {self._names()}"
            )
        return _spelled(next(iter(labels.values()))), labels

    def _groups(self) -> dict[str, str]:
        asked = self.request.group_column
        if not self.request.needs_target:
            return {}
        groups = self._by_part(GROUPS if asked is None else (_stem(asked),))
        if asked is not None and not groups:
            near = did_you_mean(asked, self.arrays)
            raise UserError(
                f"{self.origin} has no array '{shown(asked)}' of groups{shown(near)}; it has {self._names()}"
            )
        return groups

    def _part(
        self,
        part: str,
        values: str,
        labels: str | None,
        groups: str | None,
        lengths: str | None,
        channels_last: bool,
        bits: int,
        notes: dict[str, int],
    ) -> RawRows:
        array = self.arrays[values]
        if not array.ndim or not array.size:
            raise UserError(
                f"{self.origin}: '{shown(values)}' has shape {array.shape}; expected rows of values"
            )
        if labels is None and self.request.needs_target and part != "val":
            raise UserError(
                f"{self.origin}: '{shown(values)}' has no array of labels beside it; expected as many labels"
            )
        cells = None if labels is None else self._per_row(labels, len(array), values)
        own_groups = (
            None
            if groups is None
            else self._per_row(groups, len(array), values).cast(pl.String).fill_null("")
        )
        where = f"{self.origin}: '{shown(values)}'"
        if self.axes == 2:
            return RawRows(ArrayValues(as_images(array, where, self.request.like, bits)), cells, own_groups)
        sequences, infinite = as_sequences(
            np.swapaxes(array, 1, 2) if channels_last and array.ndim == 3 else array, where
        )
        if lengths is not None:
            ends = self._per_row(lengths, len(array), values).to_numpy()
            sequences = sequences.copy()
            sequences[
                np.broadcast_to(np.arange(sequences.shape[2]) >= ends[:, None, None], sequences.shape)
            ] = np.nan
        notes["infinite_values"] = notes.get("infinite_values", 0) + infinite
        return RawRows(ArrayValues(sequences), cells, own_groups)

    def _per_row(self, name: str, rows: int, values: str) -> pl.Series:
        """One cell per row, from an array of shape (rows,) or (rows, 1)."""
        array = self._labels_of(name)
        if array.dtype.kind not in "biufUS":
            raise UserError(
                f"{self.origin}: '{shown(name)}' holds {array.dtype}; expected numbers or texts, one per row"
            )
        flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if flat.ndim != 1:
            raise UserError(
                f"{self.origin}: '{shown(name)}' has shape {array.shape}; expected one label per row, "
                f"({rows},)"
            )
        if len(flat) != rows:
            raise UserError(
                f"{self.origin}: '{shown(values)}' has {rows:,} rows and '{shown(name)}' has {len(flat):,}; "
                "expected as many labels as rows"
            )
        if flat.dtype.kind == "S":
            flat = np.char.decode(flat, "utf-8", "replace")
        if flat.dtype == np.float16:
            flat = flat.astype(np.float32)
        return pl.Series(
            _spelled(name), flat.tolist() if flat.dtype.kind == "U" else np.ascontiguousarray(flat)
        )

    def _common_shape(self, parts: Sequence[RawRows]) -> tuple[int, ...]:
        shapes = [part.values.array.shape[1:] for part in parts if isinstance(part.values, ArrayValues)]
        if self.axes == 2 and len(set(shapes)) > 1:
            raise UserError(
                f"{self.origin}: training and test images have shapes {shapes[0]} and {shapes[1]}; expected "
                "one"
            )
        if len({shape[0] for shape in shapes}) > 1:
            counts = " and ".join(str(shape[0]) for shape in shapes)
            raise UserError(
                f"{self.origin}: training and test sequences have {counts} channels; expected as many"
            )
        return tuple(shapes[0])


_GLUED = re.compile(rf"([xy])({'|'.join(PARTS)})|({'|'.join(PARTS)})([xy])", re.IGNORECASE)


def _words(name: str) -> list[str]:
    """The words of an array's name: X and train of x_train, Xtrain and trainX."""
    if glued := _GLUED.fullmatch(name):
        return [word for word in glued.groups() if word]
    return [word for word in name.split("_") if word]


def _stem(name: str) -> str:
    return "_".join(word for word in map(str.lower, _words(name)) if word not in PARTS)


def _spelled(name: str) -> str:
    """An array's name without the word of its part: y of y_train."""
    kept = [word for word in _words(name) if word.lower() not in PARTS]
    return "_".join(kept) or name


def _role(name: str, words: Sequence[str]) -> str | None:
    """The part that an array's name gives ("" for none) when the rest of the
    name is one of the words, else None."""
    parts = [word for word in map(str.lower, _words(name)) if word in PARTS]
    if len(parts) > 1 or _stem(name) not in words:
        return None
    return PARTS[parts[0]] if parts else ""


def _dense_codes(array: NDArray[Any]) -> bool:
    """Whole numbers that number classes: not negative, few, and nearly all up to the largest are there."""
    if array.dtype.kind not in "iub" or not array.size:
        return False
    distinct = len(np.unique(array))
    return (
        int(array.min()) >= 0
        and int(array.max()) < 2 * distinct
        and distinct * 5 <= array.size
        and distinct <= 1000
    )


def _joined(parts: Sequence[RawRows]) -> RawRows:
    """Training and validation rows as one."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part.values.array for part in parts if isinstance(part.values, ArrayValues)]
    if any(part.answer is None for part in parts):
        parts, arrays = parts[:1], arrays[:1]
    if len(parts) == 1:
        return parts[0]
    longest = max(array.shape[-1] for array in arrays)
    if arrays[0].ndim == 3:
        arrays = [with_length(array, longest) for array in arrays]
    answer = _appended([part.answer for part in parts])
    groups = _appended([part.groups for part in parts])
    return RawRows(ArrayValues(np.concatenate(arrays)), answer, groups)


def _appended(columns: Sequence[pl.Series | None]) -> pl.Series | None:
    filled = [column for column in columns if column is not None]
    if len(filled) < len(columns):
        return None
    return pl.concat(
        [column.alias(filled[0].name).to_frame() for column in filled], how="vertical_relaxed"
    ).to_series()


# ------------------------------------------------------------------------------------------ images, sequences


def with_length(values: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Sequences cut, or filled with NaN at their end, to a length."""
    if values.shape[2] >= length:
        return values[:, :, :length]
    return np.pad(values, ((0, 0), (0, 0), (0, length - values.shape[2])), constant_values=np.nan)


def as_sequences(array: NDArray[Any], where: str) -> tuple[NDArray[np.float32], int]:
    """(n, length) or (n, channels, length) numbers -> float32 (n, channels,
    length), and how many were infinite."""
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where} holds {array.dtype}; expected numbers")
    if array.ndim not in (2, 3):
        raise UserError(
            f"{where} has shape {array.shape}; expected sequences as (rows, channels, length) or (rows, "
            "length)"
        )
    return without_infinities(array[:, None] if array.ndim == 2 else array)


def points_before_channels(array: NDArray[Any]) -> bool:
    """Whether (rows, a, b) numbers are (rows, points, channels), as Keras and tslearn keep them.

    Points are the axis whose order means more: along it neighbours resemble each other, and others less.
    (rows, channels, points), which PyTorch and the archive have, is what they are but for clear signs.
    """
    middle, last = array.shape[1:]
    if last == 1 or middle == 1:
        return bool(middle > last)
    step = -(-array.size // LAYOUT_NUMBERS)
    some = without_infinities(array[::step])[0].astype(np.float64)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # places without any number, or with one number only
        # each place's own mean and spread over the rows taken out: neither a channel's unit nor a
        # shape that all rows share is to decide
        scaled = np.nan_to_num((some - np.nanmean(some, axis=0)) / np.nanstd(some, axis=0))
    signs = _order_matters(np.swapaxes(scaled, 1, 2)) - _order_matters(scaled)
    return bool(signs > (CLEAR_SIGN if middle > last else 2 * CLEAR_SIGN))


def _order_matters(scaled: NDArray[np.float64]) -> float:
    """By how much neighbours along the last axis correlate more than any two of its places do."""
    places = scaled.shape[2]
    neighbours = np.mean(scaled[..., 1:] * scaled[..., :-1])
    pairs = np.mean(scaled.sum(axis=2) ** 2 - (scaled**2).sum(axis=2)) / (places * (places - 1))
    return float(neighbours - pairs)


LAYOUT_NUMBERS = 4_000_000
"""The order of the axes is judged by at most so many numbers."""
CLEAR_SIGN = 0.1
"""The axes are taken for exchanged where the order of the second means so much more;
twice that where it is not the longer."""


def bits_of_array(array: NDArray[Any]) -> int:
    """Those of the largest pixel, where pixels are whole numbers of more than a byte; else a byte's."""
    return bits_of(array.max(initial=0)) if array.dtype.kind in "iu" and array.itemsize > 1 else BYTE


def as_images(
    array: NDArray[Any], where: str, like: tuple[int, ...] | None = None, bits: int = BYTE
) -> NDArray[np.uint8]:
    """(n, h, w), (n, h, w, c), (n, c, h, w) or, of squares, (n, h * h) -> uint8 (n, c,
    h, w), at most MOST_SIDE pixels wide.

    Floats in 0..1 or 0..255, booleans, and whole numbers up to 65,535 are read;
    an alpha channel is laid on white.
    like: channels and size to be brought to.
    bits: those that the largest number may have, scaled to a byte.
    """
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where} holds {array.dtype}; expected images as numbers")
    if array.ndim == 2 and (side := square_side(array.shape[1])):
        array = array.reshape(len(array), side, side)
    if array.ndim not in (3, 4):
        raise UserError(
            f"{where} has shape {array.shape}; expected images as (rows, height, width[, channels])"
        )
    array = array[..., None] if array.ndim == 3 else array
    axis = _channel_axis(array.shape, where)
    images = as_bytes(array, where, bits)
    images = images if axis == 1 else np.moveaxis(images, 3, 1)
    if images.shape[1] == 4:
        images = on_white(images)
    images = np.ascontiguousarray(images)
    size = capped(images.shape[2], images.shape[3], MOST_SIDE)
    if like is None:
        return brought_to(images, (images.shape[1], *size), where)
    return brought_to(images, like, where)


def _channel_axis(shape: Sequence[int], where: str) -> int:
    """1 or 3: the axis that has few entries, the last one where both have."""
    last, first = shape[3], shape[1]
    if last in (1, 3, 4):
        return 3
    if first in (1, 3, 4):
        return 1
    few = min(first, last)
    if few > MOST_CHANNELS:
        raise UserError(
            f"{where} has shape {tuple(shape)}; expected images as (rows, height, width, channels) or "
            f"(rows, channels, height, width) with at most {MOST_CHANNELS} channels"
        )
    return 3 if last == few else 1


def as_bytes(array: NDArray[Any], where: str, bits: int) -> NDArray[np.uint8]:
    """Pixels of any numeric type as bytes; whole numbers of so many bits."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(
            f"{where} has pixels that are missing or infinite; expected numbers in 0..1 or 0..255"
        )
    if array.dtype.kind == "f":
        if low >= 0 and high <= 255:
            scale = 255 if high <= 1 else 1
            return _rounded(array, scale)
        raise UserError(
            f"{where} has pixels from {low:g} to {high:g}; expected numbers in 0..1 or 0..255: scale them so"
        )
    if low < 0 or high > 65535:
        raise UserError(f"{where} has pixels from {low} to {high}; expected 0..255, or 0..65535 for 16 bits")
    return array.astype(np.uint8) if bits == BYTE and high <= 255 else _rounded(array, byte_scale(bits))


def _rounded(array: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    result = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), 4096):  # a copy of the whole in floats would be eight times as large
        result[start : start + 4096] = np.rint(np.minimum(array[start : start + 4096] * scale, 255))
    return result


# ------------------------------------------------------------------------------------------------------ files


def _loaded_npz(path: Path, text: str, request: Request) -> dict[str, NDArray[Any]]:
    headers = _headers(path, text)
    _bounded(headers, text, request)
    with _damage_named(path, text), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in headers}


def _loaded_npy(path: Path, text: str, request: Request) -> dict[str, NDArray[Any]]:
    """The array, those of its other parts beside it (X_test.npy of X_train.npy), and their labels."""
    files = {"X": path}
    part = next((word for word in _words(path.stem.lower()) if word in PARTS), None)
    beside = {file.stem: file for file in sorted(path.parent.glob("*.npy")) if not file.name.startswith(".")}
    if part is not None and _role(path.stem, VALUES) is not None:
        files = {
            stem: file
            for stem, file in beside.items()
            if any(_role(stem, words) for words in (VALUES, LABELS, GROUPS))
        }
    elif request.needs_target and request.target is None:
        for stem in (f"{path.stem}_labels", f"{path.stem}_y", *LABELS):
            match = next(
                (file for name, file in beside.items() if name.lower() == stem.lower() and file != path), None
            )
            if match is not None:
                files["y"] = match
                break
    arrays: dict[str, NDArray[Any]] = {}
    if request.target is not None and request.target.lower().endswith(".npy"):
        files = {"X": path}
        labels = Path(request.target)
        labels = labels if labels.exists() else path.parent / labels
        regular(labels, "a .npy file of labels", shown(labels, 200))
        files[labels.stem] = labels
    for name, file in files.items():
        own = shown(file, 200)
        _bounded(_headers(file, own), own, request)
        with _damage_named(file, own):
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
    if len(arrays) == 1 and request.needs_target:
        raise UserError(
            f"{text} has no labels: name their file as the target, or put {path.stem}_labels.npy or y.npy "
            "beside it"
        )
    return arrays


@contextlib.contextmanager
def _damage_named(path: Path, text: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header of an old Python, a name twice in the archive
            yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{text} does not fit into the memory that is free") from error
    except Exception as error:  # the readers of zip and of array headers raise anything, also TokenError
        kind = path.suffix.lower()
        raise UserError(
            f"{text} is damaged or no {kind} file ({shown(error, 120)}); save or fetch it again"
        ) from error


def _headers(path: Path, text: str) -> dict[str, ArrayHeader]:
    """Array name -> its header; UserError for objects, which could only be unpickled."""
    found: dict[str, ArrayHeader] = {}
    with _damage_named(path, text):
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                found[path.stem] = _header(file)
        else:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".npy"):
                        with archive.open(name) as member:
                            found[name.removesuffix(".npy")] = _header(member)
    for name, header in found.items():
        if header.dtype.hasobject:
            raise UserError(
                f"{text}: '{shown(name)}' holds Python objects, which are never unpickled; save plain "
                "numbers "
                "(pad rows of unequal lengths with NaN) and texts with dtype=str"
            )
    return found


def _header(file: IO[bytes]) -> ArrayHeader:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return ArrayHeader(tuple(shape), dtype)


def _bounded(headers: Mapping[str, ArrayHeader], text: str, request: Request) -> None:
    total = sum(header.bytes for header in headers.values())
    limit = min(request.max_bytes, available_memory() // 3)  # as read, in its order of axes, divided
    if total > limit:
        raise UserError(
            f"{text} declares {total:,} bytes of arrays; at most {limit:,} are read (max_bytes, or a third "
            "of the free memory); "
            "give image files instead, which are decoded into a file"
        )


def check_kind(kind: str) -> Kind:
    """The kind, or a UserError that names the nearest one."""
    if kind not in KINDS:
        *others, last = KINDS
        near = did_you_mean(kind, KINDS)
        raise UserError(f"kind is '{shown(kind)}'{near}; expected {', '.join(others)} or {last}")
    return kind
