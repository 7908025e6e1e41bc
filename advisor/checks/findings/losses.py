"""The last operation, the loss and the target: what the three are, and where they meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from advisor.checks.findings.case import Case, Measure, by, count_distinct, measuring
from advisor.checks.tracing import LossCall, TraceStep

TargetKind = Literal["classes", "one-hot", "labels", "shares", "numbers"]
"""classes: whole numbers of a type for these; one-hot: one 1 in each row; labels: 0 and 1 that do not
exclude each other, a single column among them; shares: rows that sum to 1; numbers: anything else."""
DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
BOUNDS: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, math.inf),
    "logsigmoid": (-math.inf, 0.0),
    "log_softmax": (-math.inf, 0.0),
}
"""The least and the largest that an operation can return."""
CLOSE = 1e-4
"""By how much rows of float32 may miss a sum of 1."""
MOST_CLASSES_OF_NUMBERS = 30
"""Distinct values of one batch beyond which whole numbers are counts rather than classes."""
TITLES = {
    "cross_entropy": "CrossEntropyLoss",
    "binary_cross_entropy": "BCELoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
    "nll_loss": "NLLLoss",
    "mse_loss": "the squared error",
    "l1_loss": "the absolute error",
}


def _end(case: Case) -> TraceStep | None:
    """The step that made the numbers that the loss was given (or the output), views and cuts aside."""
    call = case.passed.loss_call
    steps = (*case.passed.steps, *case.passed.loss_steps)
    number = case.passed.last if call is None else call.step
    while number >= 0:
        step = steps[number]
        if step.kind != "other" or len(step.sources) != 1:
            return step
        number = step.sources[0]
    return None


def _function(case: Case) -> str:
    """The bounded function at the end; "" where another operation stands there."""
    end = _end(case)
    name = "" if end is None else end.function.strip("_")
    return name if name in BOUNDS else ""


def target_kind(target: Tensor) -> TargetKind:
    """What a batch's target looks like."""
    if not target.is_floating_point():
        return "classes"
    zero_one = bool(((target == 0) | (target == 1)).all())
    if target.dim() == 2 and target.shape[1] > 1:
        sums = target.sum(dim=1)
        if bool(((sums - 1).abs() < CLOSE).all()) and bool((target >= 0).all()):
            return "one-hot" if zero_one else "shares"
    return "labels" if zero_one else "numbers"


def _sums_to_one(values: Tensor, axis: int) -> bool:
    if values.dim() <= axis or values.shape[axis] < 2 or not values.is_floating_point():
        return False
    inside = bool((values >= 0).all()) and bool((values <= 1 + CLOSE).all())
    return inside and bool(((values.sum(dim=axis) - 1).abs() < CLOSE * values.shape[axis]).all())


@measuring(
    *("target.kind", "target.shape", "target.distinct", "target.finite", "target.minimum", "target.maximum"),
    *("target.mean_max", "target.deviation_max", "target.size"),
)
def _target(case: Case) -> Mapping[str, Any]:
    target = case.target
    if target is None or not target.numel():
        return {}
    found: dict[str, Any] = {
        "target.kind": target_kind(target),
        "target.shape": by(target.shape),
        "target.distinct": count_distinct(target),
        "target.finite": bool(torch.isfinite(target).all()),
        "target.minimum": float(target.min()),
        "target.maximum": float(target.max()),
        "target.size": float(target.float().square().mean().sqrt()),
    }
    if target.is_floating_point() and found["target.finite"]:
        found["target.mean_max"] = float(target.mean(dim=0).abs().max())
        found["target.deviation_max"] = float(target.std(dim=0, correction=0).max())
    return found


@measuring(
    "output.shape", "output.axes", "output.columns", "output.finite", "output.size", "output.numbers_agree"
)
def _output(case: Case) -> Mapping[str, Any]:
    out, target = case.output, case.target
    if out is None:
        return {}
    return {
        "output.shape": by(out.shape),
        "output.axes": out.dim(),
        "output.columns": out.shape[1] if out.dim() == 2 else 0,
        "output.finite": bool(torch.isfinite(out).all()),
        "output.size": float(out.float().square().mean().sqrt()) if out.numel() else None,
        "output.numbers_agree": None if target is None else out.numel() == target.numel(),
    }


@measuring(
    *("output.ends_in", "output.end", "output.made_by", "output.lowest", "output.highest", "output.units"),
    *("output.rows_sum_to_one", "output.classes_sum_to_one", "output.unreachable_share", "output.dropout"),
)
def _ending(case: Case) -> Mapping[str, Any]:
    end, out, target = _end(case), case.output, case.target
    name = _function(case)
    low, high = BOUNDS.get(name, (-math.inf, math.inf))
    found: dict[str, Any] = {
        "output.ends_in": name or "none",
        "output.end": name or "a layer without bounds",
        "output.made_by": [end.module] if end is not None else [],
        "output.lowest": low,
        "output.highest": high,
        "output.dropout": end.probability if end is not None and end.kind == "dropout" else 0.0,
    }
    if end is not None and name in ("softmax", "log_softmax") and len(end.shape) == 2:
        found["output.units"] = end.shape[-1]
    if out is not None and out.dim() == 2:
        values = out.exp() if name == "log_softmax" else out
        found["output.rows_sum_to_one"] = len(values) > 2 and _sums_to_one(values, 0)
        found["output.classes_sum_to_one"] = _sums_to_one(values, 1)
    if name and target is not None and target.is_floating_point() and target.numel():
        found["output.unreachable_share"] = float(((target < low) | (target > high)).float().mean())
    return found


@measuring("loss.given", "loss.error", "loss.square")
def _own_loss(case: Case) -> Mapping[str, Any]:
    return {
        "loss.given": case.loss is not None,
        "loss.error": case.loss_error,
        "loss.square": by(case.passed.squared) if case.passed.squared else "",
    }


@measuring(
    *("loss.function", "loss.title", "loss.axes", "loss.columns", "loss.last_axis", "loss.like_input"),
    *("loss.classes_sum_to_one", "loss.powers_sum_to_one", "loss.least_after_softmax", "loss.highest"),
)
def _loss(case: Case) -> Mapping[str, Any]:
    call = case.passed.loss_call
    if call is None or case.target is None:
        return {}
    given = call.input
    return {
        "loss.function": call.name,
        "loss.title": TITLES.get(call.name, call.name),
        "loss.axes": given.dim(),
        "loss.columns": given.shape[1] if given.dim() > 1 else 1,
        "loss.last_axis": given.shape[-1] if given.dim() else 1,
        "loss.like_input": tuple(given.shape[1:]) == tuple(case.inputs[0].shape[1:]),
        "loss.classes_sum_to_one": _sums_to_one(given, 1),
        "loss.powers_sum_to_one": _sums_to_one(given.exp(), 1) if given.is_floating_point() else None,
        "loss.least_after_softmax": least_double_softmax(given.shape[-1]) if given.dim() else None,
        "loss.highest": float(given.max()) if given.numel() else None,
    }


@measuring(
    *("loss.target_minimum", "loss.target_maximum", "loss.target_distinct", "loss.shapes_agree"),
    "loss.stretched",
)
def _loss_target(case: Case) -> Mapping[str, Any]:
    call = case.passed.loss_call
    given = None if call is None else call.target
    if call is None or given is None or case.target is None or not given.numel():
        return {}
    found: dict[str, Any] = {
        "loss.target_minimum": float(given.min()),
        "loss.target_maximum": float(given.max()),
        "loss.target_distinct": count_distinct(given),
        "loss.shapes_agree": given.shape == call.input.shape,
    }
    if call.name in DISTANCES or call.name.startswith("binary_cross_entropy"):
        found["loss.stretched"] = by(np.broadcast_shapes(tuple(given.shape), tuple(call.input.shape)))
    return found


def least_double_softmax(classes: int) -> float:
    """Cross-entropy of softmax(one-hot) on the right class: what is left at best."""
    return math.log(math.e + classes - 1) - 1


def chance_loss(call: LossCall, target: Tensor) -> float | None:
    """What the best constant output has of a loss, on this target; None where that is not known.

    A loss that weights classes or rows has another best constant.
    """
    weighted = any(call.options.get(name) is not None for name in ("weight", "pos_weight"))
    mean = None if weighted else _mean_of_constant(call, target)
    if mean is None or call.options.get("reduction", "mean") != "sum":
        return mean
    return mean * (target.numel() if target.is_floating_point() else len(target))


def _mean_of_constant(call: LossCall, target: Tensor) -> float | None:
    name = call.name
    if name in ("cross_entropy", "nll_loss") and not target.is_floating_point():
        shares = target.flatten().bincount().double() / target.numel()
        return float(-(shares * shares.clamp(min=1e-12).log()).sum())
    if not target.is_floating_point():
        return None
    exact = target.double()
    middle, half = exact.mean(dim=0, keepdim=True), exact.median(dim=0, keepdim=True).values
    if name.startswith("binary_cross_entropy") and bool(((target >= 0) & (target <= 1)).all()):
        share = middle.expand_as(target).clamp(1e-6, 1 - 1e-6)
        return float(F.binary_cross_entropy(share, exact))
    if name == "mse_loss":
        return float((exact - middle).square().mean())
    if name == "l1_loss":
        return float((exact - half).abs().mean())
    if name in (
        "huber_loss",
        "smooth_l1_loss",
    ):  # squares near 0, distances beyond: one or the other is close
        at: Any = F.huber_loss if name == "huber_loss" else F.smooth_l1_loss
        width = {k: v for k, v in call.options.items() if k in ("delta", "beta")}
        return min(float(at(constant.expand_as(exact), exact, **width)) for constant in (middle, half))
    return None


MEASURES: tuple[Measure, ...] = (_target, _output, _ending, _own_loss, _loss, _loss_target)
