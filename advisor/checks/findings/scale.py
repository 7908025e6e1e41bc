"""Sizes: of the inputs, of the weights at the start, of what goes through the layers and of the gradients
that come back.

What is measured is what the batch does, not the law that the weights were drawn by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from advisor.checks.findings.case import Case, Measure, by, measuring
from advisor.checks.findings.losses import chance_loss
from advisor.checks.tracing import TraceStep, trace


def scaled(x: Tensor) -> Tensor:
    """Columns or channels with mean 0 and deviation 1 over the batch; constant ones are 0."""
    if not x.is_floating_point() or len(x) < 2:
        return x
    axes = [a for a in range(x.dim()) if a != 1]
    mean, deviation = x.mean(axes, keepdim=True), x.std(axes, keepdim=True, correction=0)
    return (x - mean) / torch.where(deviation > 0, deviation, torch.ones_like(deviation))


@measuring("inputs.rows", "inputs.shape", "inputs.floating", "inputs.finite", "inputs.normalized_first")
def _inputs(case: Case) -> Mapping[str, Any]:
    x, readers = case.inputs[0], case.passed.followers(-1)
    return {
        "inputs.rows": len(x),
        "inputs.shape": by(x.shape),
        "inputs.floating": x.is_floating_point(),
        "inputs.finite": bool(torch.isfinite(x.float()).all()),
        "inputs.normalized_first": bool(readers) and all(s.kind in ("norm", "embedding") for s in readers),
    }


@measuring(
    *("inputs.columns", "inputs.mean_max", "inputs.deviation_max", "inputs.worst", "inputs.worst_mean"),
    *("inputs.worst_deviation", "inputs.size", "inputs.varies"),
)
def _columns(case: Case) -> Mapping[str, Any]:
    """Mean and deviation of each column or channel of the first input."""
    x = case.inputs[0].detach()
    if not x.is_floating_point() or not torch.isfinite(x).all():
        return {}
    channels = x.double().movedim(1, 0).flatten(1) if x.dim() > 1 else x.double()[None]
    mean, deviation = channels.mean(dim=1), channels.std(dim=1, correction=0)
    worst = int((mean.abs() + deviation).argmax())
    return {
        "inputs.columns": len(mean),
        "inputs.mean_max": float(mean.abs().max()),
        "inputs.deviation_max": float(deviation.max()),
        "inputs.worst": worst,
        "inputs.worst_mean": float(mean[worst]),
        "inputs.worst_deviation": float(deviation[worst]),
        "inputs.size": float(channels.square().mean().sqrt()),
        "inputs.varies": bool((deviation > 0).any()),
    }


# ------------------------------------------------------------------------------------------- initialization


def _hidden(case: Case) -> list[TraceStep]:
    """Weighted layers that are before an activation, which another weighted layer is after."""
    weighted = case.passed.weighted()
    before: set[int] = set()
    for step in case.passed.of_kind("activation"):
        if any(step.number in case.passed.ancestors(w.number) for w in weighted):
            before |= case.passed.ancestors(step.number)
    return [s for s in weighted if s.number in before]


@measuring("weights.symmetric", "weights.symmetric_names")
def _symmetry(case: Case) -> Mapping[str, Any]:
    """N22: units that begin alike stay alike."""
    found = []
    for step in _hidden(case):
        rows = case.numbers[step.parameter].detach().flatten(1)
        if len(rows) > 1 and bool((rows == rows[:1]).all()):
            found.append(step.module or step.parameter)
    return {"weights.symmetric": len(found), "weights.symmetric_names": found}


@measuring("weights.parameters", "weights.layers", "weights.names", "signal.kept")
def _signal(case: Case) -> Mapping[str, Any]:
    """N22 and N31: what is left of the differences between rows at the last hidden layer."""
    weighted = case.passed.weighted()
    found: dict[str, Any] = {
        "weights.parameters": sum(p.numel() for p in case.module.parameters() if p.requires_grad),
        "weights.layers": len(weighted),
        "weights.names": [s.module or s.parameter for s in weighted],
    }
    if len(weighted) > 2 and len(case.inputs[0]) > 1 and weighted[0].row_deviation > 0:
        inside = [s for s in weighted[1:-1] if s.row_deviation > 0] or weighted[1:-1]
        found["signal.kept"] = inside[-1].row_deviation / weighted[0].row_deviation
    return found


@measuring("start.loss", "start.constant_loss")
def _start(case: Case) -> Mapping[str, Any]:
    call, target = case.passed.loss_call, case.target
    constant = None if call is None or target is None else chance_loss(call, target)
    return {"start.loss": case.passed.loss, "start.constant_loss": constant}


@measuring("start.scaled_size")
def _scaled_size(case: Case) -> Mapping[str, Any]:
    """What the last layer makes of inputs of deviation 1: large weights show there, large inputs do not."""
    standard = (scaled(case.inputs[0]), *case.inputs[1:])
    weighted = trace(case.module, *standard, training=case.training).weighted()
    return {"start.scaled_size": weighted[-1].root_mean_square} if weighted else {}


@measuring(
    *("units.dead_share", "units.dead_layer", "units.saturated_share", "units.saturated_layer"),
    "units.saturated_function",
)
def _units(case: Case) -> Mapping[str, Any]:
    """N5 and N27: units that are off on every row, or on the flat part."""
    found: dict[str, Any] = {"units.dead_share": 0.0, "units.saturated_share": 0.0}
    dead = max(case.passed.watched(), key=lambda s: s.dead or 0.0, default=None)
    if dead is not None:
        found |= {"units.dead_share": dead.dead or 0.0, "units.dead_layer": [dead.module]}
    inside = [s for s in case.passed.of_kind("activation") if s.number != case.passed.last]
    flat = max(inside, key=lambda s: s.saturated or 0.0, default=None)
    if flat is not None:
        found |= {
            "units.saturated_share": flat.saturated or 0.0,
            "units.saturated_layer": [flat.module],
            "units.saturated_function": flat.function,
        }
    return found


@measuring("flow.ratio", "flow.layers", "flow.saturating")
def _flow(case: Case) -> Mapping[str, Any]:
    """N4: the gradient's size at the first layer against that at the last hidden one."""
    flow = case.passed.flow()
    if flow is None:
        return {}
    first, last, ratio = flow
    bends = case.passed.of_kind("activation")
    return {
        "flow.ratio": ratio,
        "flow.layers": [first.module or first.parameter, last.module or last.parameter],
        "flow.saturating": any(s.function.strip("_") in ("sigmoid", "tanh", "hardsigmoid") for s in bends),
    }


MEASURES: tuple[Measure, ...] = (
    *(_inputs, _columns, _symmetry, _signal, _start, _scaled_size, _units, _flow),
)
