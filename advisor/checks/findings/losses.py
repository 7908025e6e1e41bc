"""The last operation, the loss and the target: do the three fit each other?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from advisor.checks.findings.case import Case, Check, NetworkFinding, count_distinct
from advisor.checks.tracing import LossCall, TraceStep

TargetKind = Literal["classes", "one-hot", "labels", "shares", "numbers"]
"""classes: whole numbers of a type for these; one-hot: one 1 in each row; labels: 0 and 1 that do not
exclude each other, a single column among them; shares: rows that sum to 1; numbers: anything else."""
ENTROPIES = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits")
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
OUT_OF_REACH = 0.02
"""Share of the targets beyond the output's bounds from which on it is no outlier."""
CLOSE = 1e-4
"""By how much rows of float32 may miss a sum of 1."""
MOST_CLASSES_OF_NUMBERS = 30
"""Distinct values of one batch beyond which whole numbers are counts rather than classes."""


@dataclass(frozen=True)
class _Fit:
    """The three, as they meet in the loss. end: the last operation that changes numbers; last: its
    function."""

    case: Case
    call: LossCall
    end: TraceStep | None
    last: str
    kind: TargetKind

    @property
    def where(self) -> tuple[str, ...]:
        return (self.end.module,) if self.end is not None else ()


def _fit(case: Case) -> _Fit | None:
    call = case.passed.loss_call
    if call is None or case.target is None:
        return None
    end = _last_change(case, call.step)
    last = "" if end is None else end.function.strip("_")
    return _Fit(case, call, end, last if last in BOUNDS else "", target_kind(case.target))


def _last_change(case: Case, number: int) -> TraceStep | None:
    """The step that made these numbers, views and cuts aside."""
    steps = (*case.passed.steps, *case.passed.loss_steps)
    while number >= 0:
        step = steps[number]
        if step.kind != "other" or len(step.sources) != 1:
            return step
        number = step.sources[0]
    return None


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


def _last_operation(case: Case) -> Iterator[NetworkFinding]:
    """A softmax that normalizes what it must not: one unit, or the rows of the batch. Needs no loss."""
    call = case.passed.loss_call
    end = _last_change(case, case.passed.last if call is None else call.step)
    out = case.output
    if end is None or out is None or end.function.strip("_") not in ("softmax", "log_softmax"):
        return
    if end.shape and end.shape[-1] == 1 and len(end.shape) == 2:
        yield NetworkFinding(
            "error",
            "softmax-over-one-unit",
            "a softmax over one unit is 1 for every row, whatever the weights: nothing can be learnt",
            (end.module,),
            "one unit needs a sigmoid; or return the logit and take BCEWithLogitsLoss",
            ("N1",),
            "output",
            "nn.Sigmoid() in place of nn.Softmax(dim=1)",
        )
        return
    values = out.exp() if end.function.strip("_") == "log_softmax" else out
    if values.dim() == 2 and len(values) > 2 and _sums_to_one(values, 0) and not _sums_to_one(values, 1):
        yield NetworkFinding(
            "error",
            "softmax-along-rows",
            "the softmax runs along the rows of the batch, not along the classes: each row's output depends "
            "on "
            "which others are drawn with it",
            (end.module,),
            "normalize along the classes",
            ("N1",),
            "output",
            f"nn.{'LogSoftmax' if 'log' in end.function else 'Softmax'}(dim=1)",
        )


def _loss_fails(case: Case) -> Iterator[NetworkFinding]:
    if case.loss_error:
        yield NetworkFinding(
            "error",
            "loss-fails",
            f"the loss does not take this output and target: {case.loss_error}",
            (),
            "look at the shapes and the ranges of both",
            ("N1", "N2"),
            "loss",
        )


def _entropy_of_logits(case: Case) -> Iterator[NetworkFinding]:
    """Losses that take logits, after something that is none any more."""
    fit = _fit(case)
    if fit is None or fit.call.name not in ("cross_entropy", "binary_cross_entropy_with_logits"):
        return
    own = "softmax" if fit.call.name == "cross_entropy" else "sigmoid"
    if fit.call.name == "cross_entropy" and fit.call.input.dim() > 1 and fit.call.input.shape[1] == 1:
        yield NetworkFinding(
            "error",
            "cross-entropy-of-one-column",
            "cross-entropy over a single column is 0 whatever the weights: nothing can be learnt",
            fit.where,
            "two classes need two columns, or one column and BCEWithLogitsLoss",
            ("N1",),
            "loss",
            "loss = nn.BCEWithLogitsLoss()",
        )
    elif fit.last == "softmax" or (own == "softmax" and _sums_to_one(fit.call.input, 1)):
        least = least_double_softmax(fit.call.input.shape[-1])
        yield NetworkFinding(
            "error",
            "softmax-before-cross-entropy",
            f"the output is a softmax already, and {_name(fit)} takes logits and does its own {own}: "
            "gradients "
            + (f"shrink and the loss cannot fall below {least:.2f}" if own == "softmax" else "shrink"),
            fit.where,
            "return the logits, and apply softmax where probabilities are wanted",
            ("N1",),
            "output",
            "remove the softmax from the end of forward",
        )
    elif fit.last in ("sigmoid", "hardsigmoid", "tanh", "softsign"):
        low, high = BOUNDS[fit.last]
        yield NetworkFinding(
            "error" if own == "sigmoid" and "sigmoid" in fit.last else "warning",
            "bounded-logits",
            f"{_name(fit)} takes logits, and {fit.last} keeps them between {low:g} and {high:g}: no "
            "prediction can "
            "be sure, and gradients shrink",
            fit.where,
            f"return what comes before the {fit.last}",
            ("N1",),
            "output",
            f"remove the {fit.last} from the end of forward",
        )
    elif fit.last in ("relu", "relu6", "softplus"):
        yield NetworkFinding(
            "warning",
            "logits-not-negative",
            f"{fit.last} after the last layer: no logit is below 0, and a unit that is never positive "
            "learns nothing",
            fit.where,
            f"remove the {fit.last} after the last layer",
            ("N1", "N5"),
            "output",
            f"remove the {fit.last} from the end of forward",
        )


def least_double_softmax(classes: int) -> float:
    """Cross-entropy of softmax(one-hot) on the right class: what is left at best."""
    return math.log(math.e + classes - 1) - 1


def _entropy_of_probabilities(case: Case) -> Iterator[NetworkFinding]:
    """BCELoss and NLLLoss, after something that is no probability, or no logarithm of one."""
    fit = _fit(case)
    if fit is None:
        return
    if fit.call.name == "nll_loss":
        values = fit.call.input
        if not _sums_to_one(values.exp(), 1):
            probabilities = _sums_to_one(values, 1)
            yield NetworkFinding(
                "error",
                "nll-of-no-logarithm",
                "NLLLoss takes logarithms of probabilities, and the network returns "
                + ("probabilities" if probabilities else "raw scores, of which the loss has no lower end"),
                fit.where,
                "return log_softmax, or keep the logits and take CrossEntropyLoss",
                ("N1",),
                "output",
                "nn.LogSoftmax(dim=1) in place of nn.Softmax(dim=1)"
                if probabilities
                else "loss = nn.CrossEntropyLoss()",
            )
    elif fit.call.name == "binary_cross_entropy":
        if fit.last == "softmax" and fit.kind == "labels" and fit.call.input.shape[-1] > 1:
            yield _softmax_for_labels(fit)
        elif fit.last not in ("sigmoid", "hardsigmoid", "softmax"):
            yield NetworkFinding(
                "error",
                "no-probabilities",
                "BCELoss takes probabilities, and the network ends in "
                f"{fit.last or 'a layer without bounds'}",
                fit.where,
                "return the logits and take BCEWithLogitsLoss, or end in a sigmoid",
                ("N1",),
                "output",
                "loss = nn.BCEWithLogitsLoss()",
            )


def _softmax_for_labels(fit: _Fit) -> NetworkFinding:
    return NetworkFinding(
        "error",
        "softmax-for-labels",
        "the labels do not exclude each other, and a softmax lets their probabilities sum to 1",
        fit.where,
        "a sigmoid for each label: logits and BCEWithLogitsLoss",
        ("N1",),
        "output",
        "loss = nn.BCEWithLogitsLoss(), without the softmax",
    )


def _distances(case: Case) -> Iterator[NetworkFinding]:
    """Squared and absolute errors: of classes, and out of the output's reach."""
    fit = _fit(case)
    target = case.target
    if fit is None or target is None or fit.call.name not in DISTANCES:
        return
    if fit.last == "softmax" and fit.kind == "labels" and fit.call.input.shape[-1] > 1:
        yield _softmax_for_labels(fit)
        return
    columns = fit.call.input.shape[1] if fit.call.input.dim() > 1 else 1
    classes = (
        fit.kind in ("one-hot",)
        or (fit.kind == "labels" and columns == 1)
        or (fit.kind == "classes" and columns > 1 and count_distinct(target) <= MOST_CLASSES_OF_NUMBERS)
    )
    if classes and tuple(fit.call.input.shape[1:]) != tuple(case.inputs[0].shape[1:]):
        yield NetworkFinding(
            "warning",
            "distance-for-classes",
            f"{_name(fit)} for classes: where the network is wrong and sure, hardly any gradient is left",
            fit.where,
            "cross-entropy for classes: CrossEntropyLoss of logits, or BCEWithLogitsLoss of one",
            ("N1",),
            "loss",
            "loss = nn.BCEWithLogitsLoss()" if columns == 1 else "loss = nn.CrossEntropyLoss()",
        )
    bounds = BOUNDS.get(fit.last)
    if bounds is None or not target.is_floating_point():
        return
    beyond = float(((target < bounds[0]) | (target > bounds[1])).float().mean())
    if beyond > OUT_OF_REACH:
        yield NetworkFinding(
            "error",
            "target-out-of-reach",
            f"{beyond:.0%} of the targets lie outside of {bounds[0]:g} to {bounds[1]:g}, which is all that a "
            f"{fit.last} can return (they reach from {float(target.min()):.3g} to {float(target.max()):.3g})",
            fit.where,
            "end in a linear layer without activation, or scale the target into the range",
            ("N2",),
            "output",
            f"remove the {fit.last} from the end of forward",
        )


def _target_range(case: Case) -> Iterator[NetworkFinding]:
    fit = _fit(case)
    if fit is None or fit.call.target is None or not fit.call.name.startswith("binary_cross_entropy"):
        return
    given = fit.call.target
    low, high = float(given.min()), float(given.max())
    if low < 0 or high > 1:
        yield NetworkFinding(
            "error",
            "target-outside-loss",
            f"a binary loss takes targets from 0 to 1, and these reach from {low:.3g} to {high:.3g}: it has "
            "no lower "
            "end, and rewards ever larger outputs",
            (),
            "number the two classes 0 and 1; more than two need CrossEntropyLoss and a column for each",
            ("N1",),
            "target",
            "target = (target == target.max()).float()"
            if count_distinct(given) == 2
            else "loss = nn.CrossEntropyLoss()",
        )


def _shapes(case: Case) -> Iterator[NetworkFinding]:
    """Output and target that only broadcasting makes alike."""
    fit, out, target = _fit(case), case.output, case.target
    if fit is None or out is None or target is None:
        return
    elementwise = fit.call.name in DISTANCES or fit.call.name.startswith("binary_cross_entropy")
    given = fit.call.target
    if not elementwise or given is None:
        return
    if given.shape != fit.call.input.shape or out.numel() != target.numel():
        yield NetworkFinding(
            "error",
            "shapes-differ",
            f"the output has shape {by(out.shape)} and the target {by(target.shape)}: they are stretched to "
            "each "
            f"other ({by(_stretched(given, fit.call.input))}), so that rows are "
            "compared with "
            "other rows",
            (),
            "give the target the output's shape (or take the surplus axes off the output: a flatten before "
            "the last "
            "layer)",
            ("N2",),
            "shape",
            "target = target.reshape(output.shape)"
            if out.numel() == target.numel()
            else "nn.Flatten() before the last layer",
        )


def _gradient_reaches(case: Case) -> Iterator[NetworkFinding]:
    """Whether the loss has a gradient at all."""
    if case.loss is None or case.loss_error or not case.passed.gradients:
        return
    if all(size is None for size in case.passed.gradients.values()):
        yield NetworkFinding(
            "error",
            "no-gradient",
            "no gradient of the loss reaches any parameter: training changes nothing",
            (),
            "look for detach(), .data, .item(), NumPy, argmax and torch.no_grad() between the network and "
            "the loss",
            (),
            "gradient",
        )


def _stretched(one: Tensor, two: Tensor) -> torch.Size:
    return torch.Size(np.broadcast_shapes(tuple(one.shape), tuple(two.shape)))


def _name(fit: _Fit) -> str:
    return {
        "cross_entropy": "CrossEntropyLoss",
        "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
        "mse_loss": "the squared error",
        "l1_loss": "the absolute error",
    }.get(fit.call.name, fit.call.name)


def by(shape: torch.Size | tuple[int, ...]) -> str:
    """ "32 x 10"; "a single number" for none."""
    return " x ".join(map(str, shape)) or "a single number"


def chance_loss(name: str, target: Tensor) -> float | None:
    """What the best constant output has of a loss, on this target; None where that is not known."""
    if name in ("cross_entropy", "nll_loss") and not target.is_floating_point():
        shares = target.flatten().bincount().double() / target.numel()
        return float(-(shares * shares.clamp(min=1e-12).log()).sum())
    if not target.is_floating_point():
        return None
    middle = target.double().mean(dim=0, keepdim=True)
    if name.startswith("binary_cross_entropy") and bool(((target >= 0) & (target <= 1)).all()):
        share = middle.expand_as(target).clamp(1e-6, 1 - 1e-6)
        return float(F.binary_cross_entropy(share, target.double()))
    if name == "mse_loss":
        return float((target.double() - middle).square().mean())
    if name == "l1_loss":
        return float((target.double() - target.double().median(dim=0, keepdim=True).values).abs().mean())
    return None


CHECKS: tuple[Check, ...] = (
    _loss_fails,
    _last_operation,
    _entropy_of_logits,
    _entropy_of_probabilities,
    _distances,
    _target_range,
    _shapes,
    _gradient_reaches,
)
