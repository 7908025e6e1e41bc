"""Sizes: of the inputs, of the weights at the start, of what goes through the layers and of the gradients
that come back.

The judge is what is measured on the batch, not the law that the weights were drawn by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from advisor.checks.findings.case import Case, Check, MeasuredEffect, NetworkFinding, plural
from advisor.checks.findings.losses import DISTANCES, chance_loss
from advisor.checks.findings.trials import ShortTraining
from advisor.checks.tracing import FLOW, TraceStep, trace

LARGEST_MEAN, LARGEST_SCALE, SMALLEST_SCALE = 3.0, 5.0, 0.02
"""Of an input's column or channel. Pixels from 0 to 1, bits and one-hot columns lie within; a standardized
column of heavy tails does too. Beyond, a short training decides."""
BETTER = 0.8
"""Times the loss that a change must bring for it to be told: below the noise of 30 steps on one batch."""
STILL = 0.02
"""Share of the loss that must change in 30 steps for a curve to say anything."""
LOST = 1e-3
"""Share of the differences between rows that must arrive at the last layer; a plain network of four layers
with PyTorch's own weights keeps 1e-2 (Glorot and Bengio 2010, He et al. 2015)."""
LARGE_START = 5.0
"""Times the loss of a constant that a network may begin with: logits near 0 begin at 1."""
LARGE_OUTPUT = 10.0
"""Times the targets' size that an output may begin with."""


def scaled(x: Tensor) -> Tensor:
    """Columns or channels with mean 0 and deviation 1 over the batch; constant ones are 0."""
    if not x.is_floating_point() or len(x) < 2:
        return x
    axes = [a for a in range(x.dim()) if a != 1]
    mean, deviation = x.mean(axes, keepdim=True), x.std(axes, keepdim=True, correction=0)
    return (x - mean) / torch.where(deviation > 0, deviation, torch.ones_like(deviation))


def helps(without: ShortTraining | None, changed: ShortTraining | None, floor: float = 0.0) -> bool:
    """Whether the loss above its floor is clearly lower with the change."""
    if without is None or changed is None or not math.isfinite(changed.last):
        return False
    return not math.isfinite(without.last) or changed.last - floor < BETTER * (without.last - floor)


def _stands_still(without: ShortTraining | None, changed: ShortTraining | None) -> bool:
    """Whether nothing is learnt either way, so that a short training cannot decide."""
    curves = [run.losses for run in (without, changed) if run is not None]
    return all(math.isfinite(c[-1]) and abs(c[-1] - c[0]) < STILL * abs(c[0]) for c in curves if c)


def effect(label: str, without: ShortTraining | None, changed: ShortTraining | None) -> MeasuredEffect | None:
    if without is None or changed is None:
        return None
    return MeasuredEffect(label, without.losses, changed.losses)


def _inputs(case: Case) -> Iterator[NetworkFinding]:
    """N31 and N32: mean and deviation of each column or channel, and what it does to training."""
    x = case.inputs[0]
    if not x.is_floating_point():
        return
    if not torch.isfinite(x).all():
        yield NetworkFinding(
            "error",
            "input-not-finite",
            "the input has missing or infinite numbers, and the output will too",
            (),
            "impute them, or add a mask as a further channel",
            ("N32",),
            "inputs",
            "x = torch.nan_to_num(x)  # or the column's mean",
        )
        return
    readers = case.passed.followers(-1)
    if len(x) < 2 or (readers and all(s.kind in ("norm", "embedding") for s in readers)):
        return
    channels = x.detach().double().movedim(1, 0).flatten(1) if x.dim() > 1 else x.detach().double()[None]
    mean, deviation = channels.mean(dim=1), channels.std(dim=1, correction=0)
    tiny = (channels.square().mean().sqrt() < SMALLEST_SCALE) & (deviation > 0)
    off = (mean.abs() > LARGEST_MEAN) | (deviation > LARGEST_SCALE) | tiny
    if not off.any():
        return
    worst = int(((mean.abs() + deviation) * off).argmax())
    without = changed = None
    if case.trials is not None:
        standard = (scaled(case.trials.inputs[0]), *case.trials.inputs[1:])
        without, changed = case.trials.at(), case.trials.run(inputs=standard)
    told = case.trials is None or helps(without, changed) or _stands_still(without, changed)
    yield NetworkFinding(
        "warning" if told else "info",
        "unscaled-inputs",
        f"{int(off.sum())} of {len(off)} {'channels' if x.dim() > 2 else 'columns'} of the input are far "
        "from mean 0 "
        f"and deviation 1; number {worst} has {mean[worst]:.3g} and {deviation[worst]:.3g}",
        (),
        "subtract the mean and divide by the deviation of the training rows, or normalize first thing",
        ("N31", "N32"),
        "inputs",
        "x = (x - train_x.mean(0)) / train_x.std(0)",
        effect("with scaled inputs", without, changed),
    )


def _targets(case: Case) -> Iterator[NetworkFinding]:
    """Numbers so large that the output has to travel before it can learn anything."""
    target, call = case.target, case.passed.loss_call
    if target is None or not target.is_floating_point():
        return
    if not torch.isfinite(target).all():
        yield NetworkFinding(
            "error",
            "target-not-finite",
            "the target has missing or infinite numbers: so has the loss",
            (),
            "leave such rows out",
            ("N32",),
            "target",
            "keep = target.isfinite()",
        )
        return
    out = case.output
    if case.trials is None or call is None or call.name not in DISTANCES or out is None:
        return
    mean, deviation = target.mean(dim=0), target.std(dim=0, correction=0).clamp(min=1e-12)
    if float(mean.abs().max()) < LARGEST_MEAN and float(deviation.max()) < LARGEST_SCALE:
        return
    trials = case.trials
    standard = (trials.target - mean) / deviation
    without, changed = trials.at(), trials.run(target=standard)
    floor, unit = chance_loss(call.name, trials.target), chance_loss(call.name, standard)
    if without is None or changed is None or floor is None or unit is None or not floor or not unit:
        return
    if changed.last / unit < BETTER * min(1.0, without.last / floor):
        yield NetworkFinding(
            "warning",
            "unscaled-target",
            f"the target has mean {float(mean.abs().max()):.3g} and deviation {float(deviation.max()):.3g}: "
            "after "
            f"{len(without.losses) - 1} steps the loss is {without.last / floor:.3g} times that of a "
            "constant, and "
            f"{changed.last / unit:.2g} times where the target is scaled",
            (),
            "subtract the target's mean and divide by its deviation; turn predictions back afterwards",
            ("N2", "N32"),
            "target",
            "y = (y - train_y.mean(0)) / train_y.std(0)",
            effect("with a scaled target (in its own unit)", without, changed),
        )


# ------------------------------------------------------------------------------------------- initialization


def symmetric(case: Case) -> list[str]:
    """Hidden layers of which all units have the same weights."""
    hidden = _hidden(case)
    found = []
    for step in hidden:
        weight = case.numbers[step.parameter].detach()
        rows = weight.flatten(1)
        if len(rows) > 1 and bool((rows == rows[:1]).all()):
            found.append(step.module or step.parameter)
    return found


def _hidden(case: Case) -> list[TraceStep]:
    """Weighted layers that are before an activation, which another weighted layer is after."""
    weighted = case.passed.weighted()
    before: set[int] = set()
    for step in case.passed.of_kind("activation"):
        if any(step.number in case.passed.ancestors(w.number) for w in weighted):
            before |= case.passed.ancestors(step.number)
    return [s for s in weighted if s.number in before]


def _symmetry(case: Case) -> Iterator[NetworkFinding]:
    """N22: units that begin alike stay alike."""
    found = symmetric(case)
    if found:
        yield NetworkFinding(
            "error",
            "symmetric-weights",
            f"all units of {plural(len(found), 'hidden layer')} have the same weights: they get the same "
            "gradient and "
            "stay one unit for ever",
            tuple(found),
            "draw the weights at random (biases may be 0)",
            ("N22",),
            "initialization",
            "nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')",
        )


def _initialization(case: Case) -> Iterator[NetworkFinding]:
    """N22 and N31: what is left of the differences between rows at the last layer, and the size of what
    comes out."""
    if symmetric(case) or not torch.isfinite(case.inputs[0].float()).all():
        return
    weighted = case.passed.weighted()
    first = weighted[0] if weighted else None
    if first is not None and len(weighted) > 2 and len(case.inputs[0]) > 1 and first.row_deviation > 0:
        inside = [s for s in weighted[1:-1] if s.row_deviation > 0] or weighted[1:-1]
        share = inside[-1].row_deviation / first.row_deviation
        if share < LOST or share > 1 / LOST:
            yield NetworkFinding(
                "warning",
                "initialization",
                f"the rows differ {share:.2g} times as much at the last hidden layer as at the first: the "
                "signal "
                f"{'is lost' if share < 1 else 'explodes'} on its way through {len(weighted)} layers",
                tuple(s.module or s.parameter for s in weighted),
                "draw the weights by the activation that follows (He's law before ReLU, Glorot's before "
                "tanh), or "
                "normalize between the layers",
                ("N22", "N31"),
                "initialization",
                "nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')",
            )
            return
    yield from _large_start(case)


def _large_start(case: Case) -> Iterator[NetworkFinding]:
    """An output so large that the loss begins far above a constant's, which weights of a usual size do not
    make."""
    call, out, target, value = case.passed.loss_call, case.output, case.target, case.passed.loss
    if call is None or out is None or target is None or value is None or not case.passed.weighted():
        return
    chance = chance_loss(call.name, target)
    if chance is None or chance <= 0 or value < LARGE_START * chance:
        return
    if call.name in DISTANCES:
        large = float(out.float().square().mean().sqrt()) > LARGE_OUTPUT * float(
            target.float().square().mean().sqrt()
        )
    else:
        large = True
    standard = (scaled(case.inputs[0]), *case.inputs[1:])
    measured = trace(case.module, *standard, training=case.training) if large else None
    if measured is None or not measured.weighted():
        return
    size = measured.weighted()[-1].root_mean_square
    if size < LARGE_START:
        return  # the inputs make it, not the weights
    yield NetworkFinding(
        "warning",
        "initialization",
        f"the loss begins at {value:.3g}, and a constant has {chance:.3g}: with inputs of deviation 1 the "
        "output "
        f"has a size of {size:.3g} already, so that the weights are far too large",
        tuple(s.module or s.parameter for s in case.passed.weighted()),
        "draw the weights by the number of inputs of a unit, as PyTorch does where nothing is said",
        ("N22", "N31"),
        "initialization",
        "nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')",
    )


def _units(case: Case) -> Iterator[NetworkFinding]:
    """N5 and N27: units that are off on every row, or on the flat part."""
    dead = case.passed.dead()
    if dead:
        worst = max(dead, key=lambda pair: pair[1])
        yield NetworkFinding(
            "warning",
            "dead-units",
            f"{worst[1]:.0%} of the units of {worst[0].module or worst[0].function} are zero on every row: "
            "no "
            "gradient comes through",
            tuple(s.module for s, _ in dead),
            "initialize biases at 0 and weights by He's law, normalize before the activation, take leaky "
            "ReLU or GELU, "
            "or a smaller learning rate",
            ("N5", "N27"),
            "initialization",
            "nn.init.zeros_(layer.bias)",
        )
    flat = [(s, share) for s, share in case.passed.saturated() if s.number != _end(case)]
    if flat:
        worst = max(flat, key=lambda pair: pair[1])
        yield NetworkFinding(
            "warning",
            "saturated-units",
            f"{worst[1]:.0%} of what {worst[0].function} makes in {worst[0].module or 'the network'} lies "
            "where it is "
            "flat: hardly any gradient comes through",
            tuple(s.module for s, _ in flat),
            "draw the weights before it by Glorot's law, scale the inputs to mean 0 and deviation 1",
            ("N27", "N31"),
            "initialization",
            "nn.init.xavier_normal_(layer.weight)",
        )


def _end(case: Case) -> int:
    return case.passed.last


def _flow(case: Case) -> Iterator[NetworkFinding]:
    """N4: the gradient's size at the first layer against that at the last hidden one."""
    flow = case.passed.flow()
    if flow is None or 1 / FLOW <= flow[2] <= FLOW or not flow[2] or symmetric(case):
        return
    first, last, ratio = flow
    vanishes = ratio < 1
    flat = any(
        s.function.strip("_") in ("sigmoid", "tanh", "hardsigmoid") for s in case.passed.of_kind("activation")
    )
    yield NetworkFinding(
        "warning",
        "gradient-vanishes" if vanishes else "gradient-explodes",
        f"the gradient at {first.module or first.parameter} is {ratio:.2g} times as large as at "
        f"{last.module or last.parameter}",
        (first.module, last.module),
        "normalize inside the hidden layers, initialize by the activation that follows, add residual "
        "connections" + ("" if vanishes else ", clip the gradient"),
        ("N4", "N22"),
        "activation" if flat and vanishes else "initialization",
        "nn.ReLU() in place of nn.Sigmoid()" if flat and vanishes else "",
    )


CHECKS: tuple[Check, ...] = (_inputs, _targets, _symmetry, _initialization, _units, _flow)
