"""What an exported file knows of tables, series and images, also those with masks or boxes, one row for each:
its inputs, rows to check it with, and what must be done before it because its format has no operation for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.boxes.lists import MOST_FOUND, SAME_BOX, found_difference
from advisor.data.signals.signal_schema import SignalSchema
from advisor.data.tables.features import encode
from advisor.data.tables.schema import TableSchema
from advisor.dataset import MISSING, UNSEEN, BoxedImages, Features, Scenes, Signals
from advisor.kinds import Kind
from advisor.runs.model import Model
from advisor.training.signal_inputs import (
    BackbonePreprocessor,
    KernelPreprocessor,
    SignalPreprocessor,
    interpolated,
)

CHECK_ROWS = 48
CHECK_POINTS, FEWEST_CHECK_ROWS = 1 << 20, 4
"""Images with masks are checked with fewer rows, of about so many points together: every point has scores."""
MISSING_SHARE = 0.1
"""Of the cells that an export is checked with."""


def _of_scores(model: Model, features: Features | Signals, scores: NDArray[Any]) -> float:
    ours = model.scores(features)
    whole = 1.0 if model.task.has_probabilities else max(float(np.abs(ours).max()), 1e-30)
    return float(np.abs(scores - ours).max()) / whole


@dataclass(frozen=True)
class ExportedModality:
    """inputs: their names in ONNX. doubles: whether to try double precision, in this order.
    arrays: rows that are encoded already, as the module takes them. columns: what each input holds.
    check_rows: made-up rows like a model's training rows, with missing cells and unknown categories.
    as_given: a session of the runtime and rows -> the rows for the inputs that the file has, in their order.
    finish: puts into an ONNX document what reads these rows (onnx, document, rows).
    notes: what must be done before the model, for its schema, and whether categories are codes there.
    labels: of a schema, what ``prediction`` holds for each class, in code order, (classes, ...).
    difference: of our scores and what the file says, in probability or as a share of the largest prediction.
    several: what a file with several networks leaves to others.
    """

    inputs: tuple[str, ...]
    doubles: tuple[bool, ...]
    arrays: Callable[[Any], tuple[Tensor, ...]]
    columns: Callable[[Any], dict[str, tuple[str, ...]]]
    check_rows: Callable[[Model, np.random.Generator], Any]
    as_given: Callable[[Any, Any], list[NDArray[Any]]]
    finish: Callable[[Any, Any, Any], None]
    notes: Callable[[Any, bool], tuple[str, ...]]
    labels: Callable[[Any], NDArray[Any]] = field(
        default=lambda schema: np.array([str(label) for label in schema.classes], dtype=object)
    )
    difference: Callable[[Model, Any, NDArray[Any]], float] = _of_scores
    several: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------- tables


def _table_arrays(features: Features) -> tuple[Tensor, ...]:
    categorical = features.categorical.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(features.numeric)), torch.from_numpy(categorical)


def _table_columns(features: Features) -> dict[str, tuple[str, ...]]:
    return {"numeric": features.numeric_names, "categorical": features.categorical_names}


def _table_check_rows(model: Model, draw: np.random.Generator) -> Features:
    import polars as pl

    fitted: Any = model.stacks[0].preprocessors[0]
    schema: Any = model.schema
    empty = pl.DataFrame({name: [None] for name in _read_columns(schema)}, schema_overrides=None)
    like = encode(empty, schema)
    words = like.word_columns
    numeric = np.zeros((CHECK_ROWS, len(like.numeric_names)))
    count = int((~words).sum())  # sines and cosines of the calendar follow
    plain = draw.normal(size=(CHECK_ROWS, count)) * fitted.scale[:count] + fitted.centre[:count]
    numeric[:, ~words] = np.where(draw.random(plain.shape) < MISSING_SHARE, np.nan, plain)
    counts = [len(levels) for levels in like.levels]
    categorical = np.zeros((CHECK_ROWS, len(counts)))
    for column, count in enumerate(counts):
        categorical[:, column] = draw.integers(UNSEEN, count, CHECK_ROWS)
    return replace(like, numeric=numeric, categorical=categorical.astype(np.int32))


def _read_columns(schema: TableSchema) -> list[str]:
    named = [column.name for column in schema.columns]
    return [*named, schema.time_column] if schema.time_column is not None else named


def _table_as_given(session: Any, features: Features) -> list[NDArray[Any]]:
    texts = [
        ["" if code == MISSING else levels[code] if code >= 0 else "\0 no level" for code in column]
        for column, levels in zip(features.categorical.T.tolist(), features.levels, strict=True)
    ]
    arrays = {"numeric": features.numeric, "categorical": np.array(texts, dtype=object).T}
    return [arrays[one.name] for one in session.get_inputs()]


def _take_texts(onnx: Any, graph: Any, features: Any) -> None:
    """Put encoders of the categories before the codes, which become a matrix of texts."""
    codes = next((one for one in graph.graph.input if one.name == "categorical"), None)
    if codes is None:
        return
    if not features.levels:
        graph.graph.input.remove(codes)  # the model has no categories to read
        return
    helper, nodes, encoded = onnx.helper, [], []
    parts = [f"categorical_{number}" for number in range(len(features.levels))]
    for node in graph.graph.node:
        node.input[:] = ["categorical_codes" if name == "categorical" else name for name in node.input]
    for part, levels in zip(parts, features.levels, strict=True):
        known = {"": MISSING} | {level: number for number, level in enumerate(levels)}
        nodes.append(
            helper.make_node(
                "LabelEncoder", [part], [f"{part}_code"], domain="ai.onnx.ml",
                keys_strings=list(known), values_int64s=list(known.values()), default_int64=UNSEEN,
            )
        )  # fmt: skip
        encoded.append(f"{part}_code")
    split = helper.make_node("Split", ["categorical"], parts, axis=1, num_outputs=len(parts))
    joined = helper.make_node("Concat", encoded, ["categorical_codes"], axis=1)
    codes.type.tensor_type.elem_type = onnx.TensorProto.STRING
    body = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([split, *nodes, joined, *body])
    if all(one.domain != "ai.onnx.ml" for one in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))


def _table_notes(schema: TableSchema, codes: bool) -> tuple[str, ...]:
    notes = []
    for kind, says in (
        ("datetime", "dates become numbers: days since 1970, year, month, day, weekday from 1, hour"),
        ("text", "texts become their words and their length"),
        ("boolean", "true and false become 1 and 0"),
    ):
        if named := [column.name for column in schema.of_type(kind)]:  # type: ignore[arg-type]
            notes.append(f"{says} ({', '.join(named)})")
    if schema.time_parts:
        notes.append(f"the time column becomes {', '.join(schema.time_parts)}")
    if codes and schema.levels:
        notes.append(
            f"categories become codes: their index among the categories, {MISSING} where missing, {UNSEEN} "
            "new"
        )
    return tuple(notes)


# ------------------------------------------------------------------------------------------ images and series


def _signal_arrays(features: Signals) -> tuple[Tensor, ...]:
    return (torch.from_numpy(np.ascontiguousarray(interpolated(features.values))),)


def _fitted_points(model: Model) -> SignalPreprocessor:
    """The statistics of the points themselves."""
    return cast(
        SignalPreprocessor | KernelPreprocessor | BackbonePreprocessor, model.stacks[0].preprocessors[0]
    ).points


def _made_values(model: Model, draw: np.random.Generator, rows: int = CHECK_ROWS) -> NDArray[np.float64]:
    """Normal numbers with the mean and the deviation of each channel of the training rows."""
    fitted, schema = _fitted_points(model), cast(SignalSchema, model.schema)
    size = (rows, len(fitted.mean), *schema.size)
    channels = (1, -1, *[1] * (len(size) - 2))
    values: NDArray[np.float64] = draw.normal(size=size)
    return np.asarray(values * fitted.scale.reshape(channels) + fitted.mean.reshape(channels))


def _image_check_rows(model: Model, draw: np.random.Generator) -> Signals:
    return Signals(_made_values(model, draw).clip(0, 255).astype(np.uint8))


def _scene_values(model: Model, draw: np.random.Generator) -> NDArray[np.uint8]:
    points = math.prod(cast(SignalSchema, model.schema).size)
    rows = max(FEWEST_CHECK_ROWS, min(CHECK_ROWS, CHECK_POINTS // points))
    return np.asarray(_made_values(model, draw, rows).clip(0, 255), np.uint8)


def _of_boxes(model: Model, features: Features | Signals, scores: NDArray[Any]) -> float:
    """The boxes of each network put together as the model does, as shares of the image's longer side."""
    ends = np.cumsum([len(stack.member_split) for stack in model.stacks])[:-1]
    parts = np.split(np.moveaxis(scores, 1, 0), ends)
    joined = model.task.averaged(np.stack([model.task.averaged(part) for part in parts]))
    return found_difference(model.scores(features), joined, max(cast(SignalSchema, model.schema).size))


def _series_check_rows(model: Model, draw: np.random.Generator) -> Signals:
    values = _made_values(model, draw)
    if _fitted_points(model).masked[0]:
        values[::2, :, -max(1, values.shape[-1] // 4) :] = np.nan
    return Signals(values.astype(np.float32))


def _signals(
    name: str, check_rows: Callable[[Model, np.random.Generator], Signals], note: str
) -> ExportedModality:
    return ExportedModality(
        inputs=(name,),
        doubles=(False,),
        arrays=_signal_arrays,
        columns=lambda features: {name: tuple(map(str, features.values.shape[1:]))},
        check_rows=check_rows,
        as_given=lambda session, features: [_signal_arrays(features)[0].numpy()],
        finish=lambda onnx, graph, features: None,
        notes=lambda schema, codes: (note,),
    )


IMAGE_SIZE = "images must have the size and the channels of the training rows"
FOUND_BOXES = (
    f"prediction holds {MOST_FOUND} boxes for each network (rows, networks, {MOST_FOUND}, 6): left, top, "
    "right, bottom in pixels of that size, the score (0: no box), and the number of the class"
)
EXPORTED: Mapping[Kind, ExportedModality] = {
    "table": ExportedModality(
        inputs=("numeric", "categorical"),
        # a table's network is exported in double precision where the runtime has its operations: those of
        # 32 bits are coarser there than torch's
        doubles=(True, False),
        arrays=_table_arrays,
        columns=_table_columns,
        check_rows=_table_check_rows,
        as_given=_table_as_given,
        finish=_take_texts,
        notes=_table_notes,
    ),
    "image": _signals("images", _image_check_rows, IMAGE_SIZE),
    "mask": replace(
        _signals("images", lambda model, draw: Scenes(_scene_values(model, draw)), IMAGE_SIZE),
        labels=lambda schema: schema.palette.written(np.arange(len(schema.classes))),
    ),
    "boxes": replace(
        _signals("images", lambda model, draw: BoxedImages(_scene_values(model, draw)), IMAGE_SIZE),
        notes=lambda schema, codes: (IMAGE_SIZE, FOUND_BOXES),
        difference=_of_boxes,
        several=(f"which boxes of several networks are one (those of a class that overlap by {SAME_BOX})",),
    ),
    "sequence": _signals(
        "series",
        _series_check_rows,
        "gaps inside a series must be filled by linear interpolation",
    ),
}
