"""What reading knows of tables, images and sequences, one row for each: the schema that a saved model has of
its rows, and how new rows are read by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.data.boxes.found import box_answers, box_files, box_table
from advisor.data.boxes.sets import read_boxed_images
from advisor.data.boxes.sources import has_boxes
from advisor.data.masks.mask_files import as_png
from advisor.data.masks.pairs import has_masks
from advisor.data.masks.scenes import MaskSchema, at_size_of, read_scenes
from advisor.data.options import FileForm
from advisor.data.signals.signal_schema import SignalSchema
from advisor.data.signals.signals import SignalSet, read_signals, signal_kind
from advisor.data.sources.reading import read_source
from advisor.data.tables.features import encode_new, encode_none
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import Table, with_names
from advisor.dataset import Features, Signals
from advisor.errors import FormChange, UserError
from advisor.kinds import Kind

AnyData = Table | SignalSet
AnySchema = TableSchema | SignalSchema  # of which a MaskSchema is one


@dataclass(frozen=True)
class NewRows:
    """Rows to predict, read as the training rows were.

    names: of each row, where it has one. unused: columns that no network reads.
    changes: what is unlike the training rows in form. told: what else to know of the file, code -> sentence.
    sizes: of each image as it was given, where predictions are as large as it is.
    """

    features: Features | Signals
    names: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    changes: tuple[FormChange, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ReadModality:
    """claims: a source and its target -> the kind of its rows where they are this modality's, else None.
    schema_of: what ``to_dict`` of a schema wrote -> the schema.
    new_rows: source, schema, form of its file, whether to refuse columns of another form -> its rows.
    answers: schema, new rows and the prediction of each -> predictions as the training rows' target was
    given.
    files: the same -> predictions that do not stand in a table, by the name of their file; None: all stand
    there. table: the same -> the columns of the table that is written instead of them.
    no_rows: schema -> features of no row, where features have names."""

    claims: Callable[[object, str | None], Kind | None]
    schema_of: Callable[[Mapping[str, Any]], AnySchema]
    new_rows: Callable[[Any, Any, FileForm, bool], NewRows]
    answers: Callable[[Any, NewRows, NDArray[Any]], Any] = lambda schema, rows, decided: decided
    files: Callable[[Any, NewRows, NDArray[Any]], Mapping[str, bytes]] | None = None
    table: Callable[[Any, NewRows, NDArray[Any]], Mapping[str, Any]] | None = None
    no_rows: Callable[[Any], Features | None] = lambda schema: None


def _of_table(source: Any, schema: TableSchema, form: FileForm, strict: bool) -> NewRows:
    read = with_names(read_source(_with_names_of(source, schema), form=form), schema.names)
    special = (schema.target, schema.time_column, schema.weight_column)
    known = {*special, *(column.name for column in schema.columns)}
    unused = tuple(name for name in read.frame.columns if name not in known)
    features, changes = encode_new(read.frame, schema, strict=strict)
    return NewRows(features, (), unused, changes, read.told)


def _with_names_of(data: Any, schema: TableSchema) -> Any:
    """An array of shape (rows, columns) as a frame with the names of the
    training rows' columns; else the data."""
    if not (isinstance(data, np.ndarray) or hasattr(data, "toarray")):
        return data
    names = [column.name for column in schema.columns]
    if schema.time_column is not None or schema.group_column is not None:
        raise UserError("an array has no column names, so no time or group column can be named: give a frame")
    if data.ndim != 2 or data.shape[1] != len(names):
        expected = f"(rows, {len(names)})"
        raise UserError(
            f"X has shape {data.shape}; expected {expected}, the columns of the training rows in their order"
        )
    import pandas as pd

    return pd.DataFrame(data.toarray() if hasattr(data, "toarray") else data, columns=names)


def _of_signals(source: Any, schema: SignalSchema, form: FileForm, strict: bool) -> NewRows:
    signals, names = read_signals(source, schema, form)
    return NewRows(signals, names)


def _of_masks(source: Any, schema: MaskSchema, form: FileForm, strict: bool) -> NewRows:
    found = read_scenes(source, schema, form)
    return NewRows(found.features, found.names, sizes=found.sizes)


def _mask_answers(schema: MaskSchema, rows: NewRows, decided: NDArray[Any]) -> Any:
    """The masks with the values of the training masks, each as large as its image: one array where all are
    alike, else a list."""
    written = _written_masks(schema, rows, decided)
    return np.stack(written) if len({own.shape for own in written}) == 1 else written


def _written_masks(schema: MaskSchema, rows: NewRows, decided: NDArray[Any]) -> list[NDArray[Any]]:
    masks = (at_size_of(codes, size) for codes, size in zip(decided, rows.sizes, strict=True))
    return [schema.palette.written(codes) for codes in masks]


def _mask_files(schema: MaskSchema, rows: NewRows, decided: NDArray[Any]) -> dict[str, bytes]:
    """A PNG of each image, by the image's name; of an array's rows by their numbers."""
    written = _written_masks(schema, rows, decided)
    names = [name or f"{number:05}" for number, name in enumerate(rows.names)]
    return {
        f"{PurePosixPath(name).with_suffix('')}.png": as_png(own)
        for name, own in zip(names, written, strict=True)
    }


def _mask_table(schema: MaskSchema, rows: NewRows, decided: NDArray[Any]) -> dict[str, Any]:
    """The share of each class among the points of a mask."""
    named = {"name": rows.names} if any(rows.names) else {}
    shares = {
        f"share_{label}": (decided == code).mean(axis=(1, 2)) for code, label in enumerate(schema.classes)
    }
    return {**named, **shares}


def _of_boxes(source: Any, schema: SignalSchema, form: FileForm, strict: bool) -> NewRows:
    found = read_boxed_images(source, schema, form)
    return NewRows(found.features, found.names, sizes=found.sizes)


_SIGNALS = ReadModality(signal_kind, SignalSchema.from_dict, _of_signals)
READ_MODALITIES: Mapping[Kind, ReadModality] = {
    # before masks: YOLO's folder of text files has a name that masks have too
    "boxes": ReadModality(
        lambda source, target: "boxes" if has_boxes(source, target) else None,
        SignalSchema.from_dict,
        _of_boxes,
        lambda schema, rows, decided: box_answers(schema, rows.sizes, decided),
        lambda schema, rows, decided: box_files(schema, rows.names, rows.sizes, decided),
        lambda schema, rows, decided: box_table(schema, rows.names, rows.sizes, decided),
    ),
    "mask": ReadModality(
        lambda source, target: "mask" if has_masks(source, target) else None,
        MaskSchema.from_dict,
        _of_masks,
        _mask_answers,
        _mask_files,
        _mask_table,
    ),
    "image": _SIGNALS,
    "sequence": _SIGNALS,
    "table": ReadModality(
        lambda source, target: "table", TableSchema.from_dict, _of_table, no_rows=encode_none
    ),
}
"""The first that claims a source has it: what is nothing else is a table."""


def kind_of(source: object, kind: Kind | None = None, target: str | None = None) -> Kind:
    """What the rows of a source are; ``kind``, where it is given, decides."""
    if kind is not None:
        return kind
    claims = dict.fromkeys(modality.claims for modality in READ_MODALITIES.values())
    return next(found for claim in claims if (found := claim(source, target)) is not None)


def read_new_rows(source: Any, schema: AnySchema, form: FileForm, *, strict: bool = False) -> NewRows:
    """New rows for a model with this schema; UserError where a column is missing or rows have another shape.

    strict: refuse a table with a column that is unlike the training rows in form.
    """
    return READ_MODALITIES[schema.kind].new_rows(source, schema, form, strict)


def schema_from_dict(data: Mapping[str, Any]) -> AnySchema:
    """The schema that ``to_dict`` of any kind of it wrote."""
    # a table's schema has no kind: models of the first release have none
    return READ_MODALITIES[data.get("kind", "table")].schema_of(data)
