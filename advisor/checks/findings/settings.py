"""The set-up: what the optimizer holds, what is frozen, the learning rate, steps, weight decay, the mode."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from advisor.checks.findings.case import Case, Check, MeasuredEffect, NetworkFinding, plural
from advisor.checks.findings.scale import BETTER, effect, helps, symmetric
from advisor.checks.findings.trials import STEPS, ShortTraining
from advisor.checks.tracing import DEAD_SHARE, trace

SLOW = 0.02
"""Share of the loss: what 30 steps take away less of is within the noise of the batches."""
FAST = 0.15
"""Share of the loss that a higher rate must take away in 30 steps, and five times what this one does."""
WANTED = 0.5
"""Share of the loss that the whole training should be able to take away, drawn on from its first 30 steps."""
FACTORS_UP, FACTORS_DOWN = (10.0, 100.0, 1e3, 1e4), (0.1, 0.01)
OVERSHOOT = 3.0
"""Times the loss at the start that a rate may reach on its way."""
FEW_STEPS = 2 * STEPS
"""A training of more is not called too short: what is missing then is better seen from its curve."""
LONGER = 8
STILL_FALLING = 0.75
"""Times the loss of held-out rows that eight times the steps must reach."""
STRONG_DECAY = 0.01
"""Of a weight decay that is added to the gradients (Adam, SGD); AdamW's is multiplied by the rate
(Loshchilov and Hutter 2019) and usual up to 0.3."""
LIKE_DRAWN = 0.05
"""By how much the deviation of weights may miss that of PyTorch's draw, beyond chance, to look as if
nobody had trained them."""


def _optimizer(case: Case) -> Iterator[NetworkFinding]:
    """Every parameter that asks for a gradient is in the optimizer, and none of another network is."""
    if case.optimizer is None:
        return
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    own = dict(case.module.named_parameters())
    wanted = {name: p for name, p in own.items() if p.requires_grad}
    missing = tuple(name for name, p in wanted.items() if id(p) not in held)
    foreign = len(held - {id(p) for p in own.values()})
    line = f"optimizer = torch.optim.{type(case.optimizer).__name__}(model.parameters(), lr=...)"
    if wanted and len(missing) == len(wanted):
        yield NetworkFinding(
            "error",
            "optimizer-holds-nothing",
            "the optimizer holds none of the parameters that ask for a gradient: it was made for another "
            "network, or "
            "for parts that are frozen",
            missing,
            "make the optimizer of the network that is trained, after its last layer is in place",
            (),
            "optimizer",
            line,
        )
    elif missing:
        drawn = [name for name in missing if own[name].dim() > 1 and looks_drawn(own[name])]
        yield NetworkFinding(
            "warning" if foreign or drawn else "info",
            "optimizer-misses-parameters",
            f"the optimizer does not hold {plural(len(missing), 'parameter')} that ask for a gradient"
            + (f", and holds {foreign} that are not the network's" if foreign else ""),
            missing,
            "make the optimizer after the last change of the network; what is to stay as it is gets "
            "requires_grad_(False)",
            (),
            "optimizer",
            line,
        )
    elif foreign and not missing:
        yield NetworkFinding(
            "info",
            "optimizer-holds-others",
            f"the optimizer holds {plural(foreign, 'parameter')} that are not the network's",
            (),
            "right where several networks are trained together",
            (),
            "optimizer",
        )


def looks_drawn(weight: Tensor) -> bool:
    """Whether a weight has still the bounds and the deviation that PyTorch draws for linear layers and
    convolutions."""
    fan = math.prod(weight.shape[1:])
    bound = 1 / math.sqrt(fan)
    if weight.dim() < 2 or fan < 1 or not weight.numel():
        return False
    values = weight.detach()
    chance = 2 / math.sqrt(weight.numel())
    ratio = float(values.square().mean().sqrt()) / (bound / math.sqrt(3))
    return float(values.abs().max()) <= bound * (1 + 1e-5) and abs(ratio - 1) < LIKE_DRAWN + chance


def _frozen(case: Case) -> Iterator[NetworkFinding]:
    """Frozen layers that nobody trained before."""
    frozen = [name for name, p in case.module.named_parameters() if not p.requires_grad]
    if not frozen:
        return
    own = dict(case.module.named_parameters())
    weights = [name for name in frozen if own[name].dim() > 1]
    drawn = [name for name in weights if looks_drawn(own[name])]
    yield NetworkFinding(
        "warning" if drawn else "info",
        "frozen-layers",
        f"{plural(len(frozen), 'parameter')} are frozen"
        + (
            f", and {len(drawn)} of them look as they were drawn: nobody trained them, and nobody will"
            if drawn
            else ": right for layers that were trained before"
        ),
        tuple(drawn or frozen),
        "let them learn, or load what was trained",
        (),
        "frozen",
        "model.requires_grad_(True)" if drawn else "",
    )


def _mode(case: Case) -> Iterator[NetworkFinding]:
    """eval() left on where it changes something."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    left = []
    for name, part in case.module.named_modules():
        if (
            not isinstance(part, kinds)
            or part.training
            or (isinstance(part, nn.modules.dropout._DropoutNd) and not part.p)
        ):
            continue
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            continue  # a frozen body keeps its statistics on purpose
        left.append(name)
    if left and case.optimizer is not None:
        yield NetworkFinding(
            "warning",
            "evaluation-mode",
            f"{plural(len(left), 'layer')} are in evaluation mode: batch normalization uses statistics that "
            "nobody "
            "updates, dropout does nothing",
            tuple(left),
            "call train() before the steps, after every evaluation",
            (),
            "evaluation",
            "model.train()",
        )


def _unreached(case: Case) -> Iterator[NetworkFinding]:
    """Parameters that no gradient reaches, or only a gradient of 0."""
    cut = [name for name, gradient in case.passed.gradients.items() if gradient is None]
    if cut and len(cut) == len(case.passed.gradients) and case.loss is not None:
        return  # said by the losses' family
    used = {step.parameter for step in case.passed.steps}
    working = [name for name in cut if name in used]
    if cut:
        yield NetworkFinding(
            "warning",
            "gradient-cut" if working else "unused-parameters",
            f"{plural(len(working), 'weight')} work in the network, and no gradient reaches them"
            if working
            else f"{len(cut)} parameters take no part in the output: no gradient reaches them",
            tuple(working or cut),
            "look for detach(), .data, .item(), NumPy and torch.no_grad() after them"
            if working
            else "use them in forward, or take them away",
            (),
            "gradient",
        )
    short = case.trials.at() if case.trials is not None else None
    if short is None or cut or symmetric(case) or case.passed.dead():
        return
    own = dict(case.module.named_parameters())
    zero = [
        n
        for n, size in short.gradients.items()
        if size == 0 and own[n].requires_grad and own[n].dim() > 1 and n in used
    ]
    if zero:
        yield NetworkFinding(
            "warning",
            "gradient-zero",
            f"the gradient of {plural(len(zero), 'weight')} is exactly 0 in every step",
            tuple(zero),
            "look for round, sign, argmax and comparisons: their derivative is 0",
            ("N7",),
            "gradient",
        )


# ----------------------------------------------------------------------------------------- learning rate


def _rate(case: Case) -> Iterator[NetworkFinding]:
    """A range test of 30 steps: the rate as it is, and ten and a hundred times up and down."""
    trials = case.trials
    if trials is None or case.optimizer is None:
        return
    here = trials.at()
    if here is None or not here.losses or not math.isfinite(here.losses[0]) or case.loss_error:
        return
    yield from _too_high(case, here) or _too_low(case, here) or ()


def _rates(case: Case, factor: float) -> str:
    assert case.optimizer is not None
    return ", ".join(sorted({f"{float(g['lr']) * factor:.3g}" for g in case.optimizer.param_groups}))


def _too_high(case: Case, here: ShortTraining) -> list[NetworkFinding]:
    assert case.trials is not None
    start = here.losses[0]
    runs_away = not math.isfinite(here.last)
    shoots = runs_away or max(here.losses) > OVERSHOOT * start
    if start <= 0 or (not shoots and here.last < BETTER * start):
        return []
    best: tuple[float, ShortTraining] | None = None
    for factor in FACTORS_DOWN:
        lower = case.trials.at(factor)
        calm = lower is not None and math.isfinite(lower.last) and max(lower.losses) < OVERSHOOT * start
        if lower is not None and calm and lower.last < start and lower.last < BETTER * here.last:
            best = (factor, lower) if best is None or lower.last < best[1].last else best
    if best is None:
        if not runs_away:
            return []
        best = (FACTORS_DOWN[-1], case.trials.at(FACTORS_DOWN[-1]) or here)
    factor, lower = best
    return [
        NetworkFinding(
            "error" if runs_away else "warning",
            "learning-rate-too-high",
            f"at a learning rate of {_rates(case, 1)} the loss "
            + ("runs away" if runs_away else f"goes up to {max(here.losses):.3g} and is at {here.last:.3g}")
            + f" after {len(here.losses) - 1} steps; at {_rates(case, factor)} it falls to {lower.last:.3g}",
            (),
            "a lower rate (or scale inputs and target, and clip gradients)",
            ("N29",),
            "learning rate",
            f"lr={_rates(case, factor)}",
            MeasuredEffect(f"at {_rates(case, factor)}", here.losses, lower.losses),
        )
    ]


def _too_low(case: Case, here: ShortTraining) -> list[NetworkFinding]:
    assert case.trials is not None
    start = here.losses[0]
    gone = (start - here.last) / start if start > 0 else 1.0
    expected = gone * (case.steps / STEPS if case.steps else 1.0)
    if (
        gone >= SLOW * 5
        or (gone >= SLOW and case.steps is None)
        or (case.steps is not None and expected >= WANTED)
    ):
        return []
    if case.steps is None or case.steps > STEPS:
        longer = case.trials.run(steps=min(case.steps or LONGER * STEPS, LONGER * STEPS))
        if longer is not None and longer.last < (1 - FAST) * start:
            return []  # a plateau at the start, which is over soon
    for factor in FACTORS_UP:
        higher = case.trials.at(factor)
        if higher is None or not math.isfinite(higher.last):
            continue
        if (start - higher.last) / start < max(FAST, 5 * gone):
            continue
        planned = "" if case.steps is None else f", of {case.steps:,} that are planned"
        return [
            NetworkFinding(
                "warning",
                "learning-rate-too-low",
                f"{len(here.losses) - 1} steps{planned}, at a learning rate of {_rates(case, 1)} take "
                f"{gone:.1%} of the "
                f"loss away; at {_rates(case, factor)} they take {(start - higher.last) / start:.0%}",
                (),
                "a higher rate, or many more steps",
                ("N29",),
                "learning rate",
                f"lr={_rates(case, factor)}",
                MeasuredEffect(f"at {_rates(case, factor)}", here.losses, higher.losses),
            )
        ]
    return []


def _dying(case: Case) -> Iterator[NetworkFinding]:
    """N5: units that live at the start and are dead after some steps."""
    short = case.trials.at() if case.trials is not None else None
    if short is None or case.passed.dead() or not math.isfinite(short.last):
        return
    before = {s.module: s.dead or 0.0 for s in case.passed.watched()}
    try:
        after = trace(short.module, *case.inputs, training=case.training)
    except (RuntimeError, ValueError):
        return
    died = [s for s in after.watched() if (s.dead or 0.0) - before.get(s.module, 1.0) > DEAD_SHARE]
    if died:
        yield NetworkFinding(
            "warning",
            "units-die",
            f"after {len(short.losses) - 1} steps {died[0].dead:.0%} of the units of "
            f"{died[0].module or 'the network'} "
            f"are zero on every row, before it were {before[died[0].module]:.0%}",
            tuple(s.module for s in died),
            "a lower learning rate, leaky ReLU or GELU, normalization before the activation",
            ("N5", "N29"),
            "learning rate",
            f"lr={_rates(case, FACTORS_DOWN[0])}",
        )


def _steps(case: Case) -> Iterator[NetworkFinding]:
    """N26: so few steps that the loss of held-out rows still falls fast where training ends."""
    total, trials, target = case.steps, case.trials, case.target
    if total is None or trials is None or target is None or total >= FEW_STEPS or len(trials.target) < 6:
        return
    cut = 2 * len(trials.target) // 3
    inputs = tuple(
        i[:cut] if isinstance(i, Tensor) and len(i) == len(trials.target) else i for i in trials.inputs
    )
    losses: dict[int, tuple[ShortTraining, float]] = {}
    for steps in (total, LONGER * total):
        run = trials.run(steps=steps, inputs=inputs, target=trials.target[:cut])
        if run is None:
            return
        losses[steps] = run, _held_out(case, run.module, cut)
    ended, longer = losses[total], losses[LONGER * total]
    if not longer[1] < STILL_FALLING * ended[1]:
        return
    large = case.rows is not None and case.batch_size * 4 > case.rows
    yield NetworkFinding(
        "warning",
        "too-few-steps",
        f"{plural(case.epochs or 0, 'epoch')} of {case.rows:,} rows in batches of {case.batch_size} are "
        f"{plural(total, 'step')}: the loss of held-out rows is {ended[1]:.3g} then, and {longer[1]:.3g} "
        "after "
        f"{LONGER * total}",
        (),
        "more epochs"
        + (", and smaller batches: each is a step" if large else "")
        + "; stop when the validation loss rises",
        ("N26",),
        "batch size" if large and (case.epochs or 0) >= 10 else "steps",
        f"batch_size=32, epochs={max(case.epochs or 1, 30)}"
        if large
        else f"epochs={LONGER * 2 * (case.epochs or 1)}",
        MeasuredEffect(f"{LONGER} times the steps", ended[0].losses, longer[0].losses),
    )


@torch.no_grad()
def _held_out(case: Case, module: nn.Module, cut: int) -> float:
    assert case.trials is not None
    trials = case.trials
    held = tuple(
        i[cut:] if isinstance(i, Tensor) and len(i) == len(trials.target) else i for i in trials.inputs
    )
    with torch.random.fork_rng(devices=[]):
        try:
            return float(trials.loss(module(*held), trials.target[cut:]))
        except (RuntimeError, ValueError):
            return math.nan


def _decay(case: Case) -> Iterator[NetworkFinding]:
    """N28: a weight decay that wins against the loss."""
    if case.optimizer is None or case.trials is None:
        return
    decoupled = "AdamW" in type(case.optimizer).__name__
    sizes = [
        float(g.get("weight_decay", 0.0)) * (float(g["lr"]) if decoupled else 1.0)
        for g in case.optimizer.param_groups
    ]
    if max(sizes, default=0.0) <= STRONG_DECAY:
        return
    without, changed = case.trials.at(), case.trials.at(decay=0.0)
    if not helps(without, changed):
        return
    yield NetworkFinding(
        "warning",
        "weight-decay-too-strong",
        f"a weight decay of {max(float(g.get('weight_decay', 0)) for g in case.optimizer.param_groups):.3g} "
        "pulls the "
        "weights to 0 faster than the loss can move them",
        (),
        "1e-4 for SGD and Adam; torch.optim.AdamW with 1e-2",
        ("N28",),
        "regularization",
        "weight_decay=1e-4",
        effect("without weight decay", without, changed),
    )


CHECKS: tuple[Check, ...] = (_optimizer, _frozen, _mode, _unreached, _rate, _dying, _steps, _decay)
