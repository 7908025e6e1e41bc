"""NumPy arrays, in memory or in files -> rows of images or sequences with their labels and groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.signals.arrays.array_files import load_npy, load_npz
from advisor.data.signals.arrays.array_names import (
    GROUPS,
    LABELS,
    LENGTHS,
    VALUES,
    part_in_role,
    spelled_without_part,
    stem_of,
)
from advisor.data.signals.arrays.axes import points_before_channels
from advisor.data.signals.arrays.values import as_images, as_sequences, bits_of_array, with_length
from advisor.data.signals.pixels import BYTE
from advisor.data.signals.rows import ArrayValues, Found, RawRows, Request, padded, regular
from advisor.errors import UserError, did_you_mean, shown
from advisor.kinds import AXES, GridKind


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
            load_npz(path, origin, request)
            if path.suffix.lower() == ".npz"
            else load_npy(path, origin, request)
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
class _Roles:
    """The names of the arrays by what they hold and their part ("" for all rows).

    target: the labels' name without their part.
    """

    values: Mapping[str, str]
    target: str
    labels: Mapping[str, str]
    groups: Mapping[str, str]
    lengths: Mapping[str, str]

    @property
    def names(self) -> set[str]:
        """All arrays that have a role."""
        of_all = (self.values, self.labels, self.groups, self.lengths)
        return {name for by_part in of_all for name in by_part.values()}


@dataclass(frozen=True)
class _Layout:
    """channels_last: sequences stand as (rows, points, channels); guessed: because they look so.
    bits: those of the largest pixel."""

    channels_last: bool = False
    guessed: bool = False
    bits: int = BYTE


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
        """The rows, divided as the names of the arrays say."""
        roles = self._roles()
        training = self._training_parts(roles.values)
        apart = [part for part in roles.values if part == "test" and part not in training]
        layout = self._layout([roles.values[part] for part in training])
        read = {part: self._part(part, roles, layout) for part in [*training, *apart]}
        shape = self._common_shape([rows for rows, _ in read.values()])
        rows = _joined([read[part][0] for part in training])
        groups = next(iter(roles.groups.values()), "")
        notes = {
            "channels_last": int(layout.guessed and layout.channels_last),
            "infinite_values": sum(infinite for _, infinite in read.values()),
            "arrays_ignored": len(self.arrays) - len(roles.names),
        }
        return Found(
            kind=self.kind,
            name=name,
            origin=self.origin,
            target=roles.target,
            shape=shape,
            train=rows,
            test=read[apart[0]][0] if apart else None,
            classification=self._are_classes(roles.labels),
            group_column=spelled_without_part(groups) if rows.groups is not None else None,
            channels_last=layout.channels_last,
            bits=layout.bits,
        ).noting(notes)

    def _roles(self) -> _Roles:
        """Which array is what; UserError where one that is needed is missing."""
        values = self._by_part(VALUES)
        if not values and len(self.arrays) == 1 and not self.request.needs_target:
            values = {"": next(iter(self.arrays))}
        if not values:
            raise UserError(
                f"{self.origin} has no array of values: expected X, X_train or images (with y, y_train or "
                f"labels), it has {self._names()}"
            )
        target, labels = self._labels()
        return _Roles(values, target, labels, self._groups(), self._by_part(LENGTHS))

    def _training_parts(self, values: Mapping[str, str]) -> list[str]:
        """All but the test rows; of what is given as test rows or to predict the plain rows, else those for
        the test."""
        training = [part for part in values if part != "test"] or ["test"]
        if self.request.like is None:
            return training
        return next(([part] for part in ("", "test") if part in values), training)

    def _layout(self, values: Sequence[str]) -> _Layout:
        """How the training values stand.
        values: the names of their arrays."""
        if self.axes == 1:
            return self._channels(self.arrays[values[0]])
        if self.request.bits > BYTE:
            return _Layout(bits=self.request.bits)
        return _Layout(bits=max(bits_of_array(self.arrays[name]) for name in values))

    def _are_classes(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels are texts, or numbers of classes."""
        first = next(iter(labels.values()), None)
        if first is None:
            return False
        return self.arrays[first].dtype.kind in "US" or _dense_codes(self._labels_of(first))

    def _labels_of(self, name: str) -> NDArray[Any]:
        """An array of labels, one-hot rows as the numbers of their classes."""
        array = self.arrays[name]
        return array.argmax(axis=1) if _one_hot(array) else array

    def _channels(self, array: NDArray[Any]) -> _Layout:
        """Whether sequences stand as (rows, points, channels): as they stood in
        training, as was asked, else as they look."""
        asked = self.request.channels
        if array.ndim != 3 or not array.size or array.dtype.kind not in "biuf":
            return _Layout()  # what is wrong with it is told where it is read
        if self.request.like is not None:
            channels = self.request.like[0]
            before, other = (2, 1) if asked == "last" else (1, 2)
            as_before = array.shape[before] == channels or array.shape[other] != channels
            return _Layout(channels_last=(before if as_before else other) == 2)
        if asked is not None:
            return _Layout(channels_last=asked == "last")
        return _Layout(channels_last=points_before_channels(array), guessed=True)

    def _names(self) -> str:
        some = [f"{shown(name, 30)} {array.dtype} {array.shape}" for name, array in self.arrays.items()]
        return ", ".join(some[:6]) + (" and more" if some[6:] else "") if some else "not an array"

    def _by_part(self, words: Sequence[str]) -> dict[str, str]:
        """Part ("" for all rows) -> the name of the array of this role."""
        found: dict[str, str] = {}
        for word in words:
            for name in self.arrays:
                role = part_in_role(name, (word,))
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
            stem = stem_of(asked)
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
        return spelled_without_part(next(iter(labels.values()))), labels

    def _groups(self) -> dict[str, str]:
        asked = self.request.group_column
        if not self.request.needs_target:
            return {}
        groups = self._by_part(GROUPS if asked is None else (stem_of(asked),))
        if asked is not None and not groups:
            near = did_you_mean(asked, self.arrays)
            raise UserError(
                f"{self.origin} has no array '{shown(asked)}' of groups{shown(near)}; it has {self._names()}"
            )
        return groups

    def _part(self, part: str, roles: _Roles, layout: _Layout) -> tuple[RawRows, int]:
        """The rows of a part, and how many of their values were infinite."""
        values, labels, groups = roles.values[part], roles.labels.get(part), roles.groups.get(part)
        array = self.arrays[values]
        if not array.ndim or not array.size:
            raise UserError(
                f"{self.origin}: '{shown(values)}' has shape {array.shape}; expected rows of values"
            )
        if labels is None and self.request.needs_target and part != "val":
            raise UserError(
                f"{self.origin}: '{shown(values)}' has no array of labels beside it; expected as many labels"
            )
        answer = None if labels is None else self._per_row(labels, len(array), values)
        of_groups = None if groups is None else self._per_row(groups, len(array), values)
        of_groups = None if of_groups is None else of_groups.cast(pl.String).fill_null("")
        where, infinite = f"{self.origin}: '{shown(values)}'", 0
        if self.axes == 2:
            grids: NDArray[Any] = as_images(array, where, self.request.like, layout.bits)
        else:
            turned = np.swapaxes(array, 1, 2) if layout.channels_last and array.ndim == 3 else array
            grids, infinite = as_sequences(turned, where)
            if (lengths := roles.lengths.get(part)) is not None:
                grids = _cut_at(grids, self._per_row(lengths, len(array), values).to_numpy())
        return RawRows(ArrayValues(grids), answer, of_groups), infinite

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
            spelled_without_part(name),
            flat.tolist() if flat.dtype.kind == "U" else np.ascontiguousarray(flat),
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


def _cut_at(sequences: NDArray[np.float32], ends: NDArray[Any]) -> NDArray[np.float32]:
    """Sequences with NaN from each one's end on."""
    cut = sequences.copy()
    cut[np.broadcast_to(np.arange(cut.shape[2]) >= ends[:, None, None], cut.shape)] = np.nan
    return cut


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
