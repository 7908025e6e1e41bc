"""A saved model written as ONNX or as a program of torch.export, and checked against its own predictions."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from advisor.data.tables.table import TableSchema, encode
from advisor.dataset import MISSING, UNSEEN, Features, Signals
from advisor.errors import UserError
from advisor.exporting.module import ModelModule, rows_of
from advisor.files import write_bytes
from advisor.runs.model import Model

TOLERANCE = 1e-5
"""What an exported model may differ from ours: in probability, or as a share of the largest prediction."""
LOG_TOLERANCE = 1e-4
"""... where the target is learnt as its logarithm: the exponential makes rounding errors larger."""
CHECK_ROWS = 48
EXAMPLE_ROWS = 3
"""Rows that exporters trace: neither 0 nor 1, which they would take for constants."""
MISSING_SHARE = 0.1
"""Of the cells that an export is checked with."""
INPUTS = {"table": ("numeric", "categorical"), "image": ("images",), "sequence": ("series",)}


@dataclass(frozen=True)
class Exported:
    """What was written.

    difference: the largest from our own predictions, in probability or as a share of the largest one.
    notes: what must be done before the exported model, because its format has no operation for it.
    """

    path: Path
    inputs: dict[str, tuple[str, ...]]
    difference: float
    notes: tuple[str, ...]


def export_onnx(model: Model, path: Path) -> Exported:
    """Write a model as ONNX: preprocessing inside, categories as text.

    Inputs of tables: ``numeric`` double (rows, numbers), NaN is missing; ``categorical`` text (rows,
    categories), "" is missing. Output: ``probabilities`` (rows, classes) and ``prediction``, the class as
    text or the number. Columns and classes are in the file's metadata. UserError where an extra is not
    installed, where ONNX lacks an operation, or where the file predicts otherwise than the model.
    """
    onnx, runtime = _extras()
    features = check_rows(model)
    refused = None
    # a table's network is exported in double precision where the runtime has its operations: those of 32 bits
    # are coarser there than torch's
    for double in (True, False) if features.kind == "table" else (False,):
        graph = _graph(onnx, model, features, double)
        try:
            session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  # the runtime's errors have no class of their own to import
            refused = error
            continue
        output = "probabilities" if model.task.of_classes else "prediction"
        given = zip(session.get_inputs(), _as_given(session, features), strict=True)
        scores = session.run([output], {one.name: value for one, value in given})[0]
        difference = _checked(model, features, scores, "the ONNX file")
        write_bytes(path, graph.SerializeToString())
        return Exported(path, _columns(model, features), difference, notes_of(model))
    raise UserError(f"onnxruntime cannot run this network: {_first_line(refused)}; take --format torch")


def _graph(onnx: Any, model: Model, features: Features | Signals, double: bool) -> Any:
    """The model's ONNX document."""
    rows, names = rows_of(features), INPUTS[features.kind]
    dimension = torch.export.Dim("rows")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                ModelModule(model, double=double).eval(),
                tuple(part[:EXAMPLE_ROWS] for part in rows),
                input_names=names,
                output_names=["probabilities" if model.task.of_classes else "prediction"],
                dynamic_shapes=(tuple({0: dimension} for _ in rows),),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise UserError(
            f"ONNX has no form of this network: {_first_line(error)}; take --format torch"
        ) from error
    assert program is not None
    graph = program.model_proto
    if isinstance(model.schema, TableSchema):
        _take_texts(onnx, graph, features)
    if model.task.of_classes:
        _name_classes(onnx, graph, model)
    described = {
        "classes": list(model.schema.classes),
        "target": model.schema.target,
        **_columns(model, features),
    }
    for key, value in described.items():
        graph.metadata_props.add(key=key, value=json.dumps(value))
    onnx.checker.check_model(graph)
    return graph


def export_program(model: Model, path: Path) -> Exported:
    """Write a model for ``torch.export.load(path).module()``: arrays as ``ModelModule`` takes them."""
    features = check_rows(model)
    rows = rows_of(features)
    dimension = torch.export.Dim("rows")
    program = torch.export.export(
        ModelModule(model).eval(),
        tuple(part[:EXAMPLE_ROWS] for part in rows),
        dynamic_shapes=(tuple({0: dimension} for _ in rows),),
    )
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, Path(folder) / "model.pt2")
        content = (Path(folder) / "model.pt2").read_bytes()
        scores = torch.export.load(Path(folder) / "model.pt2").module()(*rows).detach().numpy()
    difference = _checked(model, features, scores, "the torch program")
    write_bytes(path, content)
    return Exported(path, _columns(model, features), difference, notes_of(model, codes=True))


def check_rows(model: Model) -> Features | Signals:
    """Made-up rows like the training rows, with missing cells and unknown categories."""
    draw = np.random.default_rng(0)
    fitted: Any = model.stacks[0].preprocessors[0]
    if not isinstance(model.schema, TableSchema):
        size = (CHECK_ROWS, len(fitted.mean), *model.stacks[0].shape.size)  # type: ignore[attr-defined]
        ones = [1] * (len(size) - 2)
        values = draw.normal(size=size) * fitted.scale.reshape(1, -1, *ones) + fitted.mean.reshape(
            1, -1, *ones
        )
        if model.schema.kind == "image":
            return Signals(values.clip(0, 255).astype(np.uint8))
        if fitted.masked[0]:
            values[::2, :, -max(1, size[-1] // 4) :] = np.nan
        return Signals(values.astype(np.float32))
    import polars as pl

    empty = pl.DataFrame({name: [None] for name in _read_columns(model.schema)}, schema_overrides=None)
    like = encode(empty, model.schema)
    words = like.word_columns
    numeric = np.zeros((CHECK_ROWS, len(like.numeric_names)))
    plain = draw.normal(size=(CHECK_ROWS, int((~words).sum()))) * fitted.scale + fitted.centre
    numeric[:, ~words] = np.where(draw.random(plain.shape) < MISSING_SHARE, np.nan, plain)
    counts = [len(levels) for levels in like.levels]
    categorical = np.zeros((CHECK_ROWS, len(counts)))
    for column, count in enumerate(counts):
        categorical[:, column] = draw.integers(UNSEEN, count, CHECK_ROWS)
    return replace(like, numeric=numeric, categorical=categorical.astype(np.int32))


def notes_of(model: Model, *, codes: bool = False) -> tuple[str, ...]:
    """What must be done before an exported model, column by column."""
    schema = model.schema
    if not isinstance(schema, TableSchema):
        if schema.kind == "image":
            return ("images must have the size and the channels of the training rows",)
        return ("gaps inside a series must be filled on the straight line between their ends",)
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
            f"categories become codes: their place among the levels, {MISSING} where missing, {UNSEEN} new"
        )
    return tuple(notes)


def _read_columns(schema: TableSchema) -> list[str]:
    named = [column.name for column in schema.columns]
    return [*named, schema.time_column] if schema.time_column is not None else named


def _extras() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch writes ONNX with
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'tuning-advisor[export]', or take --format torch"
        ) from None
    return onnx, onnxruntime


def _columns(model: Model, features: Features | Signals) -> dict[str, tuple[str, ...]]:
    if isinstance(features, Signals):
        return {INPUTS[features.kind][0]: tuple(map(str, features.values.shape[1:]))}
    return {"numeric": features.numeric_names, "categorical": features.categorical_names}


def _as_given(session: Any, features: Features | Signals) -> list[NDArray[Any]]:
    """The rows for the inputs that a file has: one that nothing reads is not among them."""
    if isinstance(features, Signals):
        return [rows_of(features)[0].numpy()]
    texts = [
        ["" if code == MISSING else levels[code] if code >= 0 else "\0 no level" for code in column]
        for column, levels in zip(features.categorical.T.tolist(), features.levels, strict=True)
    ]
    arrays = {"numeric": features.numeric, "categorical": np.array(texts, dtype=object).T}
    return [arrays[one.name] for one in session.get_inputs()]


def _checked(model: Model, features: Features | Signals, scores: NDArray[Any], what: str) -> float:
    ours = model.scores(features)
    whole = 1.0 if model.task.of_classes else max(float(np.abs(ours).max()), 1e-30)
    logarithmic = any((stack.target_knee > 0).any() for stack in model.stacks)
    difference = float(np.abs(scores - ours).max()) / whole
    if not difference <= (LOG_TOLERANCE if logarithmic else TOLERANCE):
        raise UserError(
            f"{what} predicts otherwise than the model, by {difference:.2g}: report this as a bug"
        )
    return difference


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


def _name_classes(onnx: Any, graph: Any, model: Model) -> None:
    """A second output, the class that is decided on, as text."""
    helper, scores = onnx.helper, "probabilities"
    if model.shares:
        shares = np.asarray(model.shares, dtype=np.float64)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(shares, "shares"))
        graph.graph.node.append(helper.make_node("Div", [scores, "shares"], ["weighed"]))
        scores = "weighed"
    names = np.array([str(label) for label in model.schema.classes], dtype=object)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(names, "classes"))
    graph.graph.node.append(helper.make_node("ArgMax", [scores], ["decided"], axis=1, keepdims=0))
    graph.graph.node.append(helper.make_node("Gather", ["classes", "decided"], ["prediction"], axis=0))
    rows = helper.make_tensor_value_info("prediction", onnx.TensorProto.STRING, ["rows"])
    graph.graph.output.append(rows)


def _first_line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :200
    ]
