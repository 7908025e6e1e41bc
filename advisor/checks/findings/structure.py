"""How the network is built: layers that do nothing, activations in the wrong place, kernels, maps, widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from advisor.checks.findings.case import Case, Measure, by, measuring
from advisor.checks.tracing import TraceStep
from advisor.networks.geometry import group_count

SATURATING = {"sigmoid", "hardsigmoid", "softmax", "softsign"}
BENDING: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hard sigmoid",
    nn.Softmax: "softmax",
    nn.Softsign: "softsign",
}
"""Modules that a short training replaces by ReLU."""


@measuring("layers.pairs", "layers.pairs_names", "layers.pooled_pairs", "layers.pooled_names")
def _linear_pairs(case: Case) -> Mapping[str, Any]:
    """N5: matrices with nothing but views, means, normalization and dropout between them are one matrix."""
    found: list[str] = []
    pooled: list[str] = []
    for step in case.passed.weighted():
        waiting: list[tuple[TraceStep, bool]] = [(a, False) for a in case.passed.followers(step.number)]
        seen = set[int]()
        while waiting:
            after, maximum = waiting.pop()
            if after.number in seen:
                continue
            seen.add(after.number)
            if after.kind in ("linear", "convolution") and after.parameter:
                if not _on_purpose(case, step, after):
                    (pooled if maximum else found).append(after.module)
            elif _bends_nothing(after):
                waiting += [
                    (n, maximum or "max" in after.function) for n in case.passed.followers(after.number)
                ]
    return {
        "layers.pairs": len(found),
        "layers.pairs_names": found,
        "layers.pooled_pairs": len(pooled),
        "layers.pooled_names": pooled,
    }


def _bends_nothing(step: TraceStep) -> bool:
    if step.kind == "dropout" or (step.kind == "norm" and step.function == "batch_norm"):
        return True
    if (
        step.kind == "pooling"
        or (step.kind == "whole" and "pool" in step.function)
        or "pool" in step.function
    ):
        return True
    views = {
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "transpose",
        "permute",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "movedim",
    }
    return step.kind == "other" and len(step.sources) == 1 and step.function.strip("_") in views


def _on_purpose(case: Case, one: TraceStep, two: TraceStep) -> bool:
    """A matrix in two narrow parts, and a convolution per channel before one across channels."""
    first, second = case.numbers[one.parameter], case.numbers[two.parameter]
    if one.kind == two.kind == "linear" and first.dim() == second.dim() == 2:
        return first.shape[0] < min(first.shape[1], second.shape[0]) and not one.bias
    depthwise = one.kind == "convolution" and first.dim() > 2 and first.shape[1] == 1 and first.shape[0] > 1
    return depthwise and one.shape[1] > 1 and set(two.kernel) == {1}


def hidden_bends(case: Case) -> list[TraceStep]:
    """Saturating functions inside: a layer with weights reads what they make."""
    found = []
    for step in case.passed.of_kind("activation", "softmax"):
        if step.function.strip("_") not in SATURATING:
            continue
        waiting, seen = list(case.passed.followers(step.number)), set[int]()
        while waiting:
            after = waiting.pop()
            if after.number in seen:
                continue
            seen.add(after.number)
            if after.kind in ("linear", "convolution") and after.parameter:
                found.append(step)
                break
            if _bends_nothing(after):
                waiting += case.passed.followers(after.number)
    return found


@measuring(
    *("layers.saturating", "layers.saturating_names", "layers.saturating_function", "layers.softmax_inside"),
)
def _saturating(case: Case) -> Mapping[str, Any]:
    """N27: sigmoid, softmax and the like inside the network."""
    inside = hidden_bends(case)
    softmax = [s for s in inside if s.kind == "softmax"]
    return {
        "layers.saturating": len(inside),
        "layers.saturating_names": [s.module for s in inside],
        "layers.saturating_function": (softmax or inside)[0].function.strip("_") if inside else None,
        "layers.softmax_inside": len(softmax),
    }


@measuring(
    *("layers.kernel_share", "layers.kernel", "layers.kernel_map", "layers.kernel_names"),
    "layers.kernel_proposed",
)
def _kernels(case: Case) -> Mapping[str, Any]:
    """N25: the kernel that moves least on its map. One of 3 points is small on any map; one as large as the
    map is a matrix on purpose."""
    found: dict[str, Any] = {"layers.kernel_share": 0.0}
    for step in case.passed.weighted():
        source = step.sources[0] if step.sources else -1
        size = case.passed.steps[source].shape if source >= 0 else tuple(case.inputs[0].shape)
        if step.kind != "convolution" or len(size) != len(step.kernel) + 2:
            continue
        shares = [k / n for k, n in zip(step.kernel, size[2:], strict=True) if k != n and k > 3]
        if max(shares, default=0.0) > found["layers.kernel_share"]:
            found = {
                "layers.kernel_share": max(shares),
                "layers.kernel": by(step.kernel),
                "layers.kernel_map": by(size[2:]),
                "layers.kernel_names": [step.module],
                "layers.kernel_proposed": min(7, max(3, min(size[2:]) // 4 * 2 - 1)),
            }
    return found


@measuring(
    *("layers.convolutions", "layers.filters", "layers.filters_last", "layers.filters_most"),
    *("layers.filters_least", "layers.convolution_names"),
)
def _filters(case: Case) -> Mapping[str, Any]:
    """N19: how many filters the convolutions have, in turn; one that makes the output does not count."""
    convolutions = [s for s in case.passed.weighted()[:-1] if s.kind == "convolution"]
    widths = [s.shape[1] for s in convolutions]
    found: dict[str, Any] = {"layers.convolutions": len(widths)}
    if widths:
        found |= {
            "layers.filters": widths,
            "layers.filters_last": widths[-1],
            "layers.filters_most": max(widths),
            "layers.filters_least": min(widths),
            "layers.convolution_names": [s.module for s in convolutions],
        }
    return found


@measuring("layers.narrowest", "layers.narrowest_names")
def _narrow(case: Case) -> Mapping[str, Any]:
    """N19: the narrowest hidden layer that all goes through."""
    found: list[tuple[int, str]] = []
    for step in case.passed.weighted()[:-1]:
        if (
            step.kind == "linear"
            and step.unit_axis is not None
            and len(step.shape) == 2
            and _all_goes_through(case, step)
        ):
            found.append((step.shape[step.unit_axis], step.module))
    if not found:
        return {}
    width, name = min(found)
    return {"layers.narrowest": width, "layers.narrowest_names": [name]}


def _all_goes_through(case: Case, step: TraceStep) -> bool:
    """Whether no way leads from the input to the output around a step."""
    waiting, seen = [case.passed.last], {step.number}
    while waiting:
        current = waiting.pop()
        if current == -1:
            return False
        if current not in seen:
            seen.add(current)
            waiting += case.passed.steps[current].sources
    return True


@measuring("layers.bare_residual", "layers.bare_residual_names")
def _residual(case: Case) -> Mapping[str, Any]:
    """N30: branches that are added to what they came from, and normalize nothing."""
    bare = []
    for step in case.passed.of_kind("add"):
        one, other = (case.passed.ancestors(source) for source in step.sources)
        branch = [case.passed.steps[n] for n in (one ^ other) if n >= 0]
        weights = [s for s in branch if s.kind in ("linear", "convolution", "whole") and s.parameter]
        if one & other and weights and not any(s.kind == "norm" for s in branch):
            bare.append(weights[-1].module or step.module)
    return {"layers.bare_residual": len(bare), "layers.bare_residual_names": bare}


@measuring("layers.dropout", "layers.dropout_names")
def _dropped(case: Case) -> Mapping[str, Any]:
    worst = max(case.passed.of_kind("dropout"), key=lambda s: s.probability, default=None)
    if worst is None:
        return {"layers.dropout": 0.0}
    return {"layers.dropout": worst.probability, "layers.dropout_names": [worst.module]}


@measuring(
    *("field.reach", "field.points", "field.shortest", "field.reach_text", "field.size_text", "field.asked"),
    *("field.needed", "field.averaged", "field.names"),
)
def _receptive_field(case: Case) -> Mapping[str, Any]:
    """N20, N23 and N25: what a unit of the last map sees, against the input."""
    if case.map is None or case.reach is None:
        return {}
    size, reach = case.inputs[0].shape[2:], case.reach
    narrow = min(range(len(size)), key=lambda axis: reach[axis] / size[axis])
    readers = case.passed.followers(case.map[0].number)
    return {
        "field.reach": reach[narrow],
        "field.points": size[narrow],
        "field.shortest": min(size),
        "field.reach_text": by(reach),
        "field.size_text": by(tuple(size)),
        "field.asked": bool(case.field_needed),
        "field.needed": case.field_needed,
        "field.averaged": any(s.kind == "whole" for s in readers),
        "field.names": [case.map[0].module],
    }


@measuring(
    *("maps.longest", "maps.size_text", "maps.convolutions", "maps.halvings", "maps.before_halving"),
    "maps.halving_names",
)
def _maps(case: Case) -> Mapping[str, Any]:
    """N21: where along the convolutions the map gets smaller."""
    if not 1 <= case.axes <= 3:
        return {"maps.longest": 0}
    windows = [s for s in case.passed.of_kind("convolution", "pooling") if s.kernel]
    convolutions = [s for s in windows if s.kind == "convolution" and max(s.kernel) > 1]
    halves = [s for s in windows if max(s.stride) > 1]
    before = sum(s.number < halves[0].number for s in convolutions) if halves else 0
    return {
        "maps.longest": max(case.inputs[0].shape[2:]),
        "maps.size_text": by(tuple(case.inputs[0].shape[2:])),
        "maps.convolutions": len(convolutions),
        "maps.halvings": len(halves),
        "maps.before_halving": before,
        "maps.halving_names": [halves[0].module] if halves else [],
    }


@measuring(
    *("norms.batch", "norms.batch_names", "norms.group_norm", "norms.idle_bias", "norms.idle_bias_names"),
    *("norms.dropout_before", "norms.dropout_before_names"),
)
def _normalization(case: Case) -> Mapping[str, Any]:
    """N4: batch normalizations, and what stands before them."""
    passed = case.passed
    batch = [s for s in passed.of_kind("norm") if s.function == "batch_norm"]
    if not batch:
        return {"norms.batch": 0, "norms.idle_bias": 0, "norms.dropout_before": 0}
    channels = batch[-1].shape[1] if len(batch[-1].shape) > 1 else 1
    idle = [
        s.module
        for s in passed.weighted()
        if s.bias and (after := passed.followers(s.number)) and all(a in batch for a in after)
    ]
    dropped = [s for s in passed.of_kind("dropout") if s.probability > 0]
    ahead = [d.module for d in dropped if any(d.number in passed.ancestors(b.number) for b in batch)]
    return {
        "norms.batch": len(batch),
        "norms.batch_names": [s.module for s in batch],
        "norms.group_norm": f"nn.GroupNorm({group_count(channels)}, {channels})",
        "norms.idle_bias": len(idle),
        "norms.idle_bias_names": idle,
        "norms.dropout_before": len(ahead),
        "norms.dropout_before_names": ahead,
    }


MEASURES: tuple[Measure, ...] = (
    *(_linear_pairs, _saturating, _kernels, _filters, _narrow, _residual, _dropped),
    *(_receptive_field, _maps, _normalization),
)
