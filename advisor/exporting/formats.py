"""A saved model written as ONNX or as a program of torch.export, and checked against its own predictions."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from advisor.dataset import Features, Signals
from advisor.errors import UserError
from advisor.exporting.modalities import EXPORTED
from advisor.exporting.module import ModelModule
from advisor.files import write_bytes
from advisor.runs.model import Model

TOLERANCE = 1e-5
"""What an exported model may differ from ours: in probability, or as a share of the largest prediction."""
LOG_TOLERANCE = 1e-4
"""... where the target is learned as its logarithm: the exponential makes rounding errors larger."""
EXAMPLE_ROWS = 3
"""Rows that exporters trace: neither 0 nor 1, which they would take for constants."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    difference: the largest from our own predictions, in probability or as a share of the largest one.
    notes: what must be done before the exported model, because its format has no operation for it.
    left_out: what ``advisor predict`` tells of rows and the exported model does not.
    """

    path: Path
    inputs: dict[str, tuple[str, ...]]
    difference: float
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def export_onnx(model: Model, path: Path) -> Exported:
    """Write a model as ONNX: preprocessing inside, categories as text.

    Inputs of tables: ``numeric`` double (rows, numbers), NaN is missing; ``categorical`` text (rows,
    categories), "" is missing. Output: ``probabilities`` (rows, classes) and ``prediction``, the class as
    text or the number; of masks (rows, classes, height, width), and the masks; of boxes ``prediction``, what
    each network found. Columns and classes are in the file's metadata. UserError where an extra is not
    installed, where ONNX lacks an operation, or where the file predicts otherwise than the model.
    """
    _refuse_trees(model)
    onnx, runtime = _extras()
    features = check_rows(model)
    refused = None
    modality = EXPORTED[features.kind]
    for double in modality.doubles:
        graph = _graph(onnx, model, features, double)
        try:
            session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  # the runtime's errors have no class of their own to import
            refused = error
            continue
        output = "probabilities" if model.task.has_probabilities else "prediction"
        given = zip(session.get_inputs(), modality.as_given(session, features), strict=True)
        scores = session.run([output], {one.name: value for one, value in given})[0]
        difference = _checked(model, features, scores, "the ONNX file")
        write_bytes(path, graph.SerializeToString())
        return Exported(path, modality.columns(features), difference, notes_of(model), _left_out(model))
    raise UserError(f"onnxruntime cannot run this network: {_first_line(refused)}; use --format torch")


def _graph(onnx: Any, model: Model, features: Features | Signals, double: bool) -> Any:
    """The model's ONNX document."""
    modality = EXPORTED[features.kind]
    rows = modality.arrays(features)
    dimension = torch.export.Dim("rows")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                ModelModule(model, double=double).eval(),
                tuple(part[:EXAMPLE_ROWS] for part in rows),
                input_names=modality.inputs,
                output_names=["probabilities" if model.task.has_probabilities else "prediction"],
                dynamic_shapes=(tuple({0: dimension} for _ in rows),),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises whatever an operator's translation does
        raise UserError(
            f"this network cannot be exported to ONNX: {_first_line(error)}; use --format torch"
        ) from error
    assert program is not None
    graph = program.model_proto
    modality.finish(onnx, graph, features)
    if model.task.has_probabilities:
        _name_classes(onnx, graph, model)
    described = {
        "classes": list(model.schema.classes),
        "target": model.schema.target,
        **modality.columns(features),
    }
    for key, value in described.items():
        graph.metadata_props.add(key=key, value=json.dumps(value))
    onnx.checker.check_model(graph)
    return graph


def export_program(model: Model, path: Path) -> Exported:
    """Write a model for ``torch.export.load(path).module()``: arrays as ``ModelModule`` takes them."""
    _refuse_trees(model)
    features = check_rows(model)
    modality = EXPORTED[features.kind]
    rows = modality.arrays(features)
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
    return Exported(
        path, modality.columns(features), difference, notes_of(model, codes=True), _left_out(model)
    )


def _refuse_trees(model: Model) -> None:
    if model.trees is not None:
        raise UserError(
            f"this model is a blend with boosted trees (share {model.trees.share:.2f}), with which only the "
            "advisor predicts: to export it, train without --with-trees"
        )


def check_rows(model: Model) -> Features | Signals:
    """Made-up rows like the training rows, with missing cells and unknown categories."""
    modality = EXPORTED[model.schema.kind]
    rows: Features | Signals = modality.check_rows(model, np.random.default_rng(0))
    return rows


def notes_of(model: Model, *, codes: bool = False) -> tuple[str, ...]:
    """What must be done before an exported model, column by column."""
    return EXPORTED[model.schema.kind].notes(model.schema, codes)


def _left_out(model: Model) -> tuple[str, ...]:
    unlike = ("which rows are unlike any class (unlike_any_class)",) if model.familiar else ()
    networks = sum(len(stack.member_split) for stack in model.stacks)
    several = EXPORTED[model.schema.kind].several if networks > 1 else ()
    return (*unlike, *several)


def _extras() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch writes ONNX with
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'tuning-advisor[export]', or use --format torch"
        ) from None
    return onnx, onnxruntime


def _checked(model: Model, features: Features | Signals, scores: NDArray[Any], what: str) -> float:
    logarithmic = any((stack.target_knee > 0).any() for stack in model.stacks)
    difference = EXPORTED[features.kind].difference(model, features, scores)
    if not difference <= (LOG_TOLERANCE if logarithmic else TOLERANCE):
        raise UserError(
            f"{what} predicts otherwise than the model, by {difference:.2g}: report this as a bug"
        )
    return difference


def _name_classes(onnx: Any, graph: Any, model: Model) -> None:
    """A second output, the class that is decided on, as its label: of a row a text, of a point what the
    training masks had there."""
    helper, scores = onnx.helper, "probabilities"
    if model.shares:
        shares = np.asarray(model.shares, dtype=np.float64)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(shares, "shares"))
        graph.graph.node.append(helper.make_node("Div", [scores, "shares"], ["weighed"]))
        scores = "weighed"
    labels = EXPORTED[model.schema.kind].labels(model.schema)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(labels, "classes"))
    graph.graph.node.append(helper.make_node("ArgMax", [scores], ["decided"], axis=1, keepdims=0))
    graph.graph.node.append(helper.make_node("Gather", ["classes", "decided"], ["prediction"], axis=0))
    shape = ["rows", *graph.graph.output[0].type.tensor_type.shape.dim[2:], *labels.shape[1:]]
    shape = [getattr(own, "dim_value", own) for own in shape]
    kind = helper.np_dtype_to_tensor_dtype(labels.dtype)
    graph.graph.output.append(helper.make_tensor_value_info("prediction", kind, shape))


def _first_line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :200
    ]
