"""The set-up: what the optimizer holds, what is frozen, the mode, what no gradient reaches, the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from advisor.checks.findings.case import Case, Measure, measuring

LIKE_DRAWN = 0.05
"""By how much the deviation of weights may miss that of PyTorch's draw, beyond chance, to look as if
nobody had trained them."""
ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Rprop", "Adafactor", "Muon")
"""Optimizers that do not look at a gradient's length."""


def looks_drawn(weight: Tensor) -> bool:
    """Whether a weight has still the bounds and the deviation that PyTorch draws for linear layers and
    convolutions."""
    fan = math.prod(weight.shape[1:])
    if weight.dim() < 2 or fan < 1 or not weight.numel():
        return False
    bound = 1 / math.sqrt(fan)
    values = weight.detach()
    chance = 2 / math.sqrt(weight.numel())
    ratio = float(values.square().mean().sqrt()) / (bound / math.sqrt(3))
    return float(values.abs().max()) <= bound * (1 + 1e-5) and abs(ratio - 1) < LIKE_DRAWN + chance


@measuring(
    *("optimizer.given", "optimizer.name", "optimizer.rate", "optimizer.adaptive", "optimizer.decay"),
    "optimizer.effective_decay",
)
def _optimizer(case: Case) -> Mapping[str, Any]:
    if case.optimizer is None:
        return {"optimizer.given": False}
    name, groups = type(case.optimizer).__name__, case.optimizer.param_groups
    decays = [float(group.get("weight_decay", 0.0)) for group in groups]
    # AdamW's decay is multiplied by the rate (Loshchilov and Hutter 2019)
    times = [float(group["lr"]) if "AdamW" in name else 1.0 for group in groups]
    return {
        "optimizer.given": True,
        "optimizer.name": name,
        "optimizer.rate": rates_of(case),
        "optimizer.adaptive": name.startswith(ADAPTIVE),
        "optimizer.decay": max(decays, default=0.0),
        "optimizer.effective_decay": max((d * t for d, t in zip(decays, times, strict=True)), default=0.0),
    }


def rates_of(case: Case, factor: float = 1.0) -> str:
    """The learning rates of the user's optimizer, times a factor."""
    if case.optimizer is None:
        return ""
    return ", ".join(sorted({f"{float(g['lr']) * factor:.3g}" for g in case.optimizer.param_groups}))


@measuring(
    *("optimizer.wanted", "optimizer.missing", "optimizer.missing_names", "optimizer.missing_drawn"),
    "optimizer.foreign",
)
def _held(case: Case) -> Mapping[str, Any]:
    """Every parameter that asks for a gradient should be in the optimizer, and none of another network."""
    if case.optimizer is None:
        return {}
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    own = dict(case.module.named_parameters())
    wanted = [name for name, p in own.items() if p.requires_grad]
    missing = [name for name in wanted if id(own[name]) not in held]
    return {
        "optimizer.wanted": len(wanted),
        "optimizer.missing": len(missing),
        "optimizer.missing_names": missing,
        "optimizer.missing_drawn": sum(own[name].dim() > 1 and looks_drawn(own[name]) for name in missing),
        "optimizer.foreign": len(held - {id(p) for p in own.values()}),
    }


@measuring("frozen.count", "frozen.names", "frozen.drawn", "frozen.drawn_names")
def _frozen(case: Case) -> Mapping[str, Any]:
    """Frozen layers, and those among them that nobody trained before."""
    frozen = {name: p for name, p in case.module.named_parameters() if not p.requires_grad}
    drawn = [name for name, p in frozen.items() if p.dim() > 1 and looks_drawn(p)]
    return {
        "frozen.count": len(frozen),
        "frozen.names": list(frozen),
        "frozen.drawn": len(drawn),
        "frozen.drawn_names": drawn,
    }


@measuring("mode.evaluating", "mode.evaluating_names")
def _mode(case: Case) -> Mapping[str, Any]:
    """eval() left on where it changes something."""
    left = []
    for name, part in case.module.named_modules():
        drops = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
        if part.training or not (drops or isinstance(part, nn.modules.batchnorm._BatchNorm)):
            continue
        parameters = list(part.parameters())
        if not parameters or any(p.requires_grad for p in parameters):
            left.append(name)  # a frozen body keeps its statistics on purpose
    return {"mode.evaluating": len(left), "mode.evaluating_names": left}


@measuring(
    *("gradients.asked", "gradients.reached", "gradients.cut_names", "gradients.cut_working"),
    "gradients.cut_working_names",
)
def _unreached(case: Case) -> Mapping[str, Any]:
    """Parameters that no gradient reaches."""
    cut = [name for name, gradient in case.passed.gradients.items() if gradient is None]
    used = {step.parameter for step in case.passed.steps}
    working = [name for name in cut if name in used]
    return {
        "gradients.asked": len(case.passed.gradients),
        "gradients.reached": len(case.passed.gradients) - len(cut),
        "gradients.cut_names": cut,
        "gradients.cut_working": len(working),
        "gradients.cut_working_names": working,
    }


@measuring("gradients.zero", "gradients.zero_names")
def _zero(case: Case) -> Mapping[str, Any]:
    """Weights that only gradients of 0 reach."""
    short = case.trials.at() if case.trials is not None else None
    if short is None:
        return {}
    own, used = dict(case.module.named_parameters()), {step.parameter for step in case.passed.steps}
    zero = [
        n
        for n, size in short.gradients.items()
        if size == 0 and own[n].requires_grad and own[n].dim() > 1 and n in used
    ]
    return {"gradients.zero": len(zero), "gradients.zero_names": zero}


@measuring(
    *("training.mode", "training.batch_size", "training.batch_is_input", "training.rows", "training.epochs"),
    *("training.steps", "training.steps_known", "training.large_batches"),
)
def _plan(case: Case) -> Mapping[str, Any]:
    return {
        "training.mode": case.training,
        "training.batch_size": case.batch_size,
        "training.batch_is_input": case.batch_size == len(case.inputs[0]),
        "training.rows": case.rows,
        "training.epochs": case.epochs,
        "training.steps": case.steps,
        "training.steps_known": case.steps is not None,
        "training.large_batches": None if case.rows is None else case.batch_size * 4 > case.rows,
    }


MEASURES: tuple[Measure, ...] = (_optimizer, _held, _frozen, _mode, _unreached, _zero, _plan)
