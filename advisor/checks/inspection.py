"""Any ``torch.nn.Module``, traced on one batch, and what the notes say about what was seen: findings as data.

The module is watched from outside and is afterwards as it was. Nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from advisor.checks.gradients import module_gradients
from advisor.checks.receptive_fields import Seen, last_map, support
from advisor.checks.tracing import FLOW, Trace, TraceStep, left_as_it_was, trace
from advisor.errors import UserError, did_you_mean
from advisor.executors.base import error_text
from advisor.networks.geometry import group_count
from advisor.objectives.importing import import_own, split_name

InspectionSeverity = Literal["error", "warning", "info"]
"""error: the network is wrong; warning: it will learn worse than it could; info: worth knowing."""

HE = {
    "relu",
    "leaky_relu",
    "gelu",
    "silu",
    "mish",
    "elu",
    "celu",
    "relu6",
    "hardswish",
    "softplus",
    "prelu",
    "rrelu",
}
XAVIER = {"tanh", "sigmoid", "softsign", "hardtanh", "hardsigmoid"}
LECUN = {"selu"}
INIT_FACTOR = 2.0
"""A variance is off when it is more than so many times too large or too small,
beyond what the draw itself does."""
SMALL_BATCH = 16
"""Rows below which batch normalization loses a lot (note N4; Wu and He 2018)."""
PARAMETERS_PER_ROW = 1000
FIELD_SHARE = 0.5
FEWEST_FOR_POOLING = 3
"""Convolutions from which on it matters where the map is halved."""
SMALL_MAP = 16
LARGEST_MEAN, SMALLEST_SCALE, LARGEST_SCALE = 2.0, 0.05, 5.0
"""Of a scaled input's column or channel; pixels from 0 to 1 pass."""
BETWEEN = ("norm", "add", "dropout", "pooling", "other", "whole")
"""What may stand between a weight and the activation that its variance has to fit."""


@dataclass(frozen=True)
class NetworkFinding:
    """One thing to know about a network.
    where: dotted names of modules;
    notes: those that it acts on (docs/notes.md)."""

    severity: InspectionSeverity
    code: str
    message: str
    where: tuple[str, ...]
    fix: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What was found, the gravest first.
    layers: per weighted layer its module, operation, output shape, the root mean square of its output and
        the norm of the loss's gradient by it.
    receptive_field: of the last map, input points per axis."""

    findings: tuple[NetworkFinding, ...]
    parameters: int
    input_shape: tuple[int, ...]
    receptive_field: tuple[int, ...] | None
    layers: tuple[dict[str, Any], ...]

    @property
    def passed(self) -> bool:
        """Whether there is no error; a warning says what is likely to hurt, not that it cannot work."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self) | {"passed": self.passed}

    def __str__(self) -> str:
        seen = "" if self.receptive_field is None else f", receptive field {_by(self.receptive_field)}"
        lines = [f"{self.parameters:,} parameters, {len(self.layers)} layers with weights{seen}"]
        for finding in self.findings:
            names = ", ".join(name or "the network" for name in finding.where[:4])
            where = f" [{names}{' ...' if finding.where[4:] else ''}]"
            lines.append(f"{finding.severity}: {finding.code}{where if finding.where else ''}")
            lines.append(f"  {finding.message}")
            notes = f" ({', '.join(finding.notes)})" if finding.notes else ""
            lines.append(f"  fix: {finding.fix}{notes}")
        if not self.findings:
            lines.append("nothing speaks against it")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Case:
    """One network with all that was seen of it."""

    module: nn.Module
    inputs: tuple[Any, ...]
    target: Tensor | None
    rows: int | None
    batch_size: int
    field_needed: float | None
    training: bool
    passed: Trace
    axes: int
    map: tuple[TraceStep, Seen] | None
    reach: tuple[int, ...] | None
    numbers: dict[str, Tensor] = field(repr=False)


def inspect(
    module: nn.Module,
    input: Any,
    target: Any = None,
    *,
    rows: int | None = None,
    batch_size: int | None = None,
    field_needed: float | None = None,
) -> Inspection:
    """Trace ``module`` on ``input`` and say what the rules would: initialization,
    dead units, receptive field, and so on.

    input: a batch as the module takes it in training (a tensor or array, rows first, or a tuple
        of several); its scale is looked at.
    target: the batch's classes (integers) or numbers; without it the output's loss is a random projection.
    rows: how many the module will be trained on.
    batch_size: in training; by default the rows of ``input``.
    field_needed: input points that the task is likely to need; by default half of the input.
    UserError when the module does not take the input.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"inspect takes a torch.nn.Module, not {type(module).__name__}")
    if any(is_lazy(p) for p in module.parameters()):
        raise UserError(
            f"{type(module).__name__} has lazy layers without weights yet: pass one batch through it first"
        )
    inputs = _inputs(input, module)
    goal = None if target is None else torch.as_tensor(target).to(inputs[0].device)
    if goal is not None and len(goal) != len(inputs[0]):
        raise UserError(f"the target has {len(goal)} rows and the input {len(inputs[0])}: give one for each")
    passed, training = _traced(module, inputs, goal)
    axes = inputs[0].dim() - 2
    seen = last_map(passed, axes) if 1 <= axes <= 3 and inputs[0].is_floating_point() else None
    reached = None
    if seen is not None and not seen[1].whole:
        arithmetic = tuple(min(s, n) for s, n in zip(seen[1].size, inputs[0].shape[2:], strict=True))
        reached = support(module, seen[0].number, *inputs) or arithmetic
    case = _Case(
        module,
        inputs,
        goal,
        rows,
        batch_size or len(inputs[0]),
        field_needed,
        training,
        passed,
        axes,
        seen,
        reached,
        dict(module.named_parameters()),
    )
    order = {"error": 0, "warning": 1, "info": 2}
    findings = sorted((f for check in CHECKS for f in check(case)), key=lambda f: order[f.severity])
    layers = [
        {
            "module": s.module,
            "operation": s.function,
            "shape": s.shape,
            "root_mean_square": s.root_mean_square,
            "gradient": s.gradient,
        }
        for s in case.passed.weighted()
    ]
    count = sum(p.numel() for p in module.parameters())
    return Inspection(tuple(findings), count, tuple(inputs[0].shape), reached, tuple(layers))


def load_module(name: str) -> nn.Module:
    """The module that ``package.module:factory`` makes; the working directory is looked in too.

    UserError when it cannot be imported, raises, or makes no ``torch.nn.Module``.
    """
    parts = split_name(name)
    if parts is None:
        raise UserError(
            f"--module {name}: write package.module:factory, the factory a function that returns a Module"
        )
    package, attribute = parts
    home = import_own(package, str(Path.cwd()), f"--module {name}")
    if not hasattr(home, attribute):
        raise UserError(
            f"--module {name}: {package} has no '{attribute}'{did_you_mean(attribute, dir(home))}"
        )
    made = getattr(home, attribute)
    if callable(made) and not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:  # a person's own code may raise anything
            raise UserError(f"--module {name}: {attribute}() raised {error_text(error)}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"--module {name} made a {type(made).__name__}: expected a torch.nn.Module")
    return made


def random_input(shape: str, rows: int) -> Tensor:
    """Numbers with mean 0 and deviation 1, (rows, *shape); shape as a person writes it: "1,28,28".

    UserError for what is no shape.
    """
    try:
        sizes = [int(part) for part in shape.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or math.prod(sizes) * rows > 10**9:
        raise UserError(f"--input-shape {shape}: write the shape of one row, as 1,28,28 or 30")
    return torch.randn(rows, *sizes, generator=torch.Generator().manual_seed(0))


def _inputs(given: Any, module: nn.Module) -> tuple[Any, ...]:
    """The inputs as tensors on the module's device, numbers in its precision."""
    weight = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    values = tuple(given) if isinstance(given, tuple | list) else (given,)
    inputs = tuple(
        _placed(torch.as_tensor(v), weight) if isinstance(v, Tensor | np.ndarray) else v for v in values
    )
    if not inputs or not isinstance(inputs[0], Tensor) or inputs[0].dim() < 1 or not inputs[0].numel():
        raise UserError(
            "the input must be a tensor or array with at least one row, or a tuple that begins with one"
        )
    return inputs


def _placed(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)


def _traced(module: nn.Module, inputs: tuple[Any, ...], target: Tensor | None) -> tuple[Trace, bool]:
    """A pass as in training; in evaluation mode where training mode cannot take so few rows."""
    problems = []
    for training in (True, False):
        try:
            return trace(module, *inputs, loss=lambda out: _loss(out, target), training=training), training
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  # a person's own code may raise anything
            problems.append(error_text(error))
    shapes = ", ".join(_by(v.shape) for v in inputs if isinstance(v, Tensor))
    raise UserError(f"{type(module).__name__} does not take an input of {shapes} (rows first): {problems[0]}")


def _loss(output: Any, target: Tensor | None) -> Tensor:
    out = next(
        (o for o in (output if isinstance(output, tuple | list) else [output]) if isinstance(o, Tensor)), None
    )
    if out is None or not out.is_floating_point():
        raise UserError(
            "the module's output is no tensor of numbers: return one, or a tuple that begins with one"
        )
    if target is None:
        return (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)).sum() / len(
            out
        )
    if target.is_floating_point():
        if out.numel() != target.numel():
            raise UserError(
                f"the output has shape {_by(out.shape)} and the target {_by(target.shape)}: they must agree"
            )
        return F.mse_loss(out.reshape(target.shape), target.to(out))
    if out.dim() < 2 or int(target.max()) >= out.shape[1] or int(target.min()) < 0:
        raise UserError(
            f"the output has shape {_by(out.shape)}: {int(target.max()) + 1} classes need as many columns"
        )
    return F.cross_entropy(out, target.long())


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


# ------------------------------------------------------------------------------------------------- the checks


def _initialization(case: _Case) -> Iterator[NetworkFinding]:
    """N22 and N31: the variance of each weight against the one that keeps the
    signal's size under its activation."""
    wrong: dict[str, list[tuple[str, float]]] = {}
    for step in case.passed.weighted():
        found = _activation_after(case.passed, step)
        if found is None or found[1]:
            continue
        weight, function = case.numbers[step.parameter], found[0].function.rstrip("_")
        inputs, outputs = _fans(weight, step)
        slope = found[0].negative_slope
        if function in HE:
            wanted = 2 / ((1 + slope**2) * inputs)
        elif function in XAVIER:
            wanted = 2 / (inputs + outputs)
        elif function in LECUN:
            wanted = 1 / inputs
        else:
            continue
        ratio = float(weight.detach().square().mean()) / wanted
        by_chance = 3 * math.sqrt(2 / weight.numel())
        if ratio == 0 or abs(math.log(ratio)) > math.log(INIT_FACTOR) + by_chance:
            wrong.setdefault(function, []).append((step.module or step.parameter, ratio))
    for function, layers in wrong.items():
        middle = float(np.median([ratio for _, ratio in layers]))
        law, call = (
            ("He's", "kaiming_normal_(layer.weight, nonlinearity='relu')")
            if function in HE
            else (
                ("Glorot's", "xavier_normal_(layer.weight)")
                if function in XAVIER
                else ("LeCun's", "kaiming_normal_(layer.weight, nonlinearity='linear')")
            )
        )
        yield NetworkFinding(
            "warning",
            "initialization",
            f"{len(layers)} layer{'s' * (len(layers) > 1)} before {function} "
            f"{'have' if len(layers) > 1 else 'has'} weights with "
            f"{middle:.2g} times {law} variance and no normalization in between: the signal "
            f"{'shrinks' if middle < 1 else 'grows'} from layer to layer",
            tuple(name for name, _ in layers),
            f"draw them by torch.nn.init.{call}, with biases of 0 (a network that is trained already is "
            "past this)",
            ("N22", "N31"),
        )


def _activation_after(passed: Trace, step: TraceStep) -> tuple[TraceStep, bool] | None:
    """The first activation that reads a step's result, and whether a normalization stands in between."""
    waiting, seen = [(step, False)], set[int]()
    while waiting:
        current, normed = waiting.pop(0)
        for after in passed.followers(current.number):
            if after.kind == "activation":
                return after, normed
            if after.kind in BETWEEN and after.number not in seen:
                seen.add(after.number)
                waiting.append((after, normed or after.kind == "norm"))
    return None


def _fans(weight: Tensor, step: TraceStep) -> tuple[int, int]:
    """Inputs and outputs of one unit: of Linear (outputs, inputs), of convolutions (outputs, inputs,
    *kernel), of stacks with the members in front."""
    if step.function == "baddbmm":
        return weight.shape[-2], weight.shape[-1]
    shape = weight.shape[1:] if step.kernel and weight.dim() > len(step.kernel) + 2 else weight.shape
    area = math.prod(shape[2:])
    return int(shape[1] * area) if len(shape) > 1 else 1, int(shape[0] * area)


def _units(case: _Case) -> Iterator[NetworkFinding]:
    """N5 and N27: units that pass nothing on, or work where their function is flat."""
    dead = case.passed.dead()
    if dead:
        worst = max(dead, key=lambda pair: pair[1])
        yield NetworkFinding(
            "warning",
            "dead-units",
            f"{worst[1]:.0%} of the units after {worst[0].module or worst[0].function} are 0 on all "
            f"{case.inputs[0].shape[0]} rows: their gradient is 0 too, and they stay so",
            tuple(s.module for s, _ in dead),
            "initialize biases at 0 and weights by He's law, normalize before the activation, take leaky "
            "ReLU or GELU, "
            "or a smaller learning rate",
            ("N5", "N27"),
        )
    flat = case.passed.saturated()
    if flat:
        worst = max(flat, key=lambda pair: pair[1])
        yield NetworkFinding(
            "warning",
            "saturated-units",
            f"{worst[1]:.0%} of what {worst[0].function} makes in {worst[0].module or 'the network'} lies "
            "where it is flat: "
            "hardly any gradient comes through",
            tuple(s.module for s, _ in flat),
            "draw the weights before it by Glorot's law (xavier_normal_), scale the inputs to mean 0 and "
            "deviation 1",
            ("N27", "N31"),
        )


def _flow(case: _Case) -> Iterator[NetworkFinding]:
    """N4: the gradient's size at the first layer against that at the last hidden one."""
    flow = case.passed.flow()
    if flow is None or 1 / FLOW <= flow[2] <= FLOW:
        return
    first, last, ratio = flow
    vanishes = ratio < 1
    yield NetworkFinding(
        "warning",
        "gradient-vanishes" if vanishes else "gradient-explodes",
        f"the gradient at {first.module or first.parameter} is {ratio:.2g} times as large as at "
        f"{last.module or last.parameter}",
        (first.module, last.module),
        "normalize inside the hidden layers, initialize by the activation that follows, add residual "
        "connections" + ("" if vanishes else ", clip the gradient"),
        ("N4", "N22"),
    )


def _receptive_field(case: _Case) -> Iterator[NetworkFinding]:
    """N20, N23 and N25: what a unit of the last map sees, against the input."""
    if case.map is None or case.reach is None:
        return
    size, reach_of = case.inputs[0].shape[2:], case.reach
    needed = case.field_needed or FIELD_SHARE * min(size)
    narrow = min(range(len(size)), key=lambda axis: reach_of[axis] / size[axis])
    reach, points = reach_of[narrow], size[narrow]
    if reach >= min(needed, points):
        return
    why = f"the task is likely to need {needed:.0f}" if case.field_needed else "less than half"
    name = case.map[0].module or case.map[0].function
    yield NetworkFinding(
        "warning",
        "receptive-field-small",
        f"a unit of the last map ({name}) sees {_by(reach_of)} of {_by(size)} points: {why}; "
        "patterns beyond that are only counted, never seen whole",
        (case.map[0].module,),
        "pool or stride early, deepen, take larger or 1 x N kernels, or dilate the later convolutions",
        ("N20", "N23", "N25"),
    )


def _pooling(case: _Case) -> Iterator[NetworkFinding]:
    """N21: where along the convolutions the map gets smaller."""
    if not 1 <= case.axes <= 3 or max(case.inputs[0].shape[2:]) < SMALL_MAP:
        return
    windows = [s for s in case.passed.of_kind("convolution", "pooling") if s.kernel]
    convolutions = [s for s in windows if s.kind == "convolution" and max(s.kernel) > 1]
    halves = [s for s in windows if max(s.stride) > 1]
    if len(convolutions) < FEWEST_FOR_POOLING or not halves:
        return
    before = sum(s.number < halves[0].number for s in convolutions)
    if before <= len(convolutions) / 2:
        return
    yield NetworkFinding(
        "warning",
        "late-pooling",
        f"{before} of {len(convolutions)} convolutions work on the full {_by(case.inputs[0].shape[2:])} "
        "points before the map is "
        "first made smaller: most of the computation goes into small receptive fields",
        (halves[0].module,),
        "pool or stride after the first convolutions, and less often later",
        ("N21",),
    )


def _normalization(case: _Case) -> Iterator[NetworkFinding]:
    """N4: batch statistics of few rows; what stands before batch normalization and does nothing, or harm."""
    batch = [s for s in case.passed.of_kind("norm") if s.function == "batch_norm"]
    if not batch:
        return
    where = tuple(s.module for s in batch)
    if case.batch_size < SMALL_BATCH:
        channels = batch[-1].shape[1] if len(batch[-1].shape) > 1 else 1
        yield NetworkFinding(
            "warning",
            "batch-norm-small-batch",
            f"batch normalization estimates mean and variance from {case.batch_size} rows"
            + (
                " (those of the input: say batch_size where training has more)"
                if case.batch_size == len(case.inputs[0])
                else ""
            )
            + ("" if case.training else "; in training mode the network does not take so few"),
            where,
            f"take batches of at least {SMALL_BATCH} rows, or nn.GroupNorm({group_count(channels)}, "
            f"{channels})",
            ("N4",),
        )
    idle = [
        s
        for s in case.passed.weighted()
        if s.bias and (after := case.passed.followers(s.number)) and all(a in batch for a in after)
    ]
    if idle:
        yield NetworkFinding(
            "info",
            "bias-before-batch-norm",
            f"{len(idle)} layer{'s' * (len(idle) > 1)} with a bias before batch normalization, which takes "
            "the mean away again",
            tuple(s.module for s in idle),
            "bias=False there",
            ("N4",),
        )
    dropped = [s for s in case.passed.of_kind("dropout") if s.probability > 0]
    ahead = [d for d in dropped if any(d.number in case.passed.ancestors(b.number) for b in batch)]
    if ahead:
        yield NetworkFinding(
            "warning",
            "dropout-before-batch-norm",
            "dropout changes the variance in training and not in use: the statistics of the batch "
            "normalization after it fit "
            "neither (Li et al. 2019)",
            tuple(d.module for d in ahead),
            "drop after the last batch normalization alone, before the output layer",
            ("N4",),
        )


def _residual(case: _Case) -> Iterator[NetworkFinding]:
    """N30: branches that are added to what they came from, and normalize nothing."""
    bare = []
    for step in case.passed.of_kind("add"):
        one, other = (case.passed.ancestors(source) for source in step.sources)
        branch = [case.passed.steps[n] for n in (one ^ other) if n >= 0]
        weights = [s for s in branch if s.kind in ("linear", "convolution", "whole") and s.parameter]
        if one & other and weights and not any(s.kind == "norm" for s in branch):
            bare.append(weights[-1].module or step.module)
    if bare:
        yield NetworkFinding(
            "warning",
            "residual-without-norm",
            f"{len(bare)} residual branch{'es' * (len(bare) > 1)} without normalization: each adds its "
            "variance to the stream",
            tuple(bare),
            "put batch normalization (group or layer for small batches) inside each branch; start its last "
            "scale at 0",
            ("N30",),
        )


def _size(case: _Case) -> Iterator[NetworkFinding]:
    """N19: how much the network can hold against how much there is to learn from."""
    count = sum(p.numel() for p in case.module.parameters() if p.requires_grad)
    if case.rows and count > PARAMETERS_PER_ROW * case.rows:
        yield NetworkFinding(
            "warning",
            "many-parameters-for-the-rows",
            f"{count:,} parameters for {case.rows:,} training rows, {count / case.rows:,.0f} for each",
            (),
            "narrow the layers before you take any away; else dropout, weight decay, augmentation, early "
            "stopping",
            ("N19", "N28"),
        )
    unused = [name for name, gradient in case.passed.gradients.items() if gradient is None]
    if unused:
        yield NetworkFinding(
            "warning",
            "unused-parameters",
            f"{len(unused)} parameters take no part in the output: no gradient reaches them",
            tuple(unused),
            "use them in forward, or take them away",
            (),
        )


def _scale(case: _Case) -> Iterator[NetworkFinding]:
    """N31 and N32: mean and deviation of each column or channel of the input."""
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
        )
        return
    readers = case.passed.followers(-1)
    if len(x) < 2 or (readers and all(s.kind in ("norm", "embedding") for s in readers)):
        return
    channels = x.detach().double().movedim(1, 0).flatten(1) if x.dim() > 1 else x.detach().double()[None]
    mean, deviation = channels.mean(dim=1), channels.std(dim=1, correction=0)
    small = (deviation < SMALLEST_SCALE) & (deviation > 0) & (channels.abs().amax(dim=1) < 1)
    off = (mean.abs() > LARGEST_MEAN) | (deviation > LARGEST_SCALE) | small
    if off.any():
        worst = int(((mean.abs() + deviation) * off).argmax())
        yield NetworkFinding(
            "warning",
            "unscaled-inputs",
            f"{int(off.sum())} of {len(off)} {'channels' if x.dim() > 2 else 'columns'} of the input are "
            "far from mean 0 and "
            f"deviation 1; number {worst} has {mean[worst]:.3g} and {deviation[worst]:.3g}",
            (),
            "subtract the mean and divide by the deviation of the training rows, or normalize first thing",
            ("N31", "N32"),
        )


def _output(case: _Case) -> Iterator[NetworkFinding]:
    """N1: what comes out, and whether the loss will do its part again."""
    out = next((o for o in _flat(case.passed.output) if isinstance(o, Tensor)), None)
    if out is not None and torch.isfinite(case.inputs[0].float()).all() and not torch.isfinite(out).all():
        yield NetworkFinding(
            "error",
            "output-not-finite",
            "the output is not finite for a finite input",
            (),
            "look for a logarithm, a root or a quotient of what may be 0, and for exploding layers",
            ("N4",),
        )
    last = case.passed.last
    while last >= 0 and case.passed.steps[last].kind == "other" and len(case.passed.steps[last].sources) == 1:
        last = case.passed.steps[last].sources[0]
    end = case.passed.steps[last] if last >= 0 else None
    if end is None or end.function not in ("softmax", "_softmax"):
        return
    classes = case.target is not None and not case.target.is_floating_point()
    yield NetworkFinding(
        "error" if classes else "warning",
        "softmax-before-cross-entropy",
        "the output is a softmax already; nn.CrossEntropyLoss takes logits and would do it again: gradients "
        "shrink and the loss "
        f"cannot fall below {_least_double_softmax(end.shape[-1]):.2f}",
        (end.module,),
        "return the logits, and apply softmax where probabilities are wanted",
        ("N1",),
    )


def _least_double_softmax(classes: int) -> float:
    """Cross-entropy of softmax(one-hot) on the right class: what is left at best."""
    return math.log(math.e + classes - 1) - 1


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _linear_pairs(case: _Case) -> Iterator[NetworkFinding]:
    """N5: matrices with nothing but views, normalization and dropout between them are one matrix."""
    found = []
    for step in case.passed.weighted():
        if step.kind != "linear":
            continue
        waiting = [a for a in case.passed.followers(step.number)]
        while waiting:
            after = waiting.pop()
            if after.kind == "linear" and after.parameter:
                found.append(after.module)
            elif after.kind == "dropout" or (after.kind == "norm" and after.function == "batch_norm"):
                waiting += case.passed.followers(after.number)
    if found:
        yield NetworkFinding(
            "warning",
            "no-activation-between",
            f"{len(found)} linear layer{'s' * (len(found) > 1)} right after another, with no activation in "
            "between: together "
            "they can do no more than one",
            tuple(found),
            "put an activation between them, or make them one",
            ("N5", "N27"),
        )


def _mixing(case: _Case) -> Iterator[NetworkFinding]:
    """Whether in evaluation mode the output of one row depends on another: a view gone wrong."""
    x = case.inputs[0]
    if not x.is_floating_point() or len(x) < 2 or not torch.isfinite(x).all():
        return
    watched = x.detach().clone().requires_grad_()
    with left_as_it_was(case.module, training=False), torch.enable_grad():
        out = next((o for o in _flat(case.module(watched, *case.inputs[1:])) if isinstance(o, Tensor)), None)
        if out is None or not out.dim() or len(out) != len(x) or not out.requires_grad:
            return
        weights = torch.randn(out[0].shape, generator=torch.Generator().manual_seed(0)).to(out)
        (gradient,) = torch.autograd.grad((out[0] * weights).sum(), watched, allow_unused=True)
    if gradient is not None and gradient[1:].any():
        yield NetworkFinding(
            "warning",
            "rows-mixed",
            "the output of one row depends on other rows, in evaluation mode too",
            (),
            "look for a view, reshape or transpose that puts rows into another axis; a recurrent layer may "
            "need batch_first=True",
            (),
        )


def _derivatives(case: _Case) -> Iterator[NetworkFinding]:
    """N7: gradients of what is written by hand."""
    if not torch.isfinite(case.inputs[0].float()).all():
        return
    for name, problem in module_gradients(case.module, *case.inputs).items():
        if problem is None:
            continue
        unknown = problem.startswith("cannot be")
        yield NetworkFinding(
            "info" if unknown else "error",
            "gradient-not-checked" if unknown else "gradient-wrong",
            f"the gradient of {name or type(case.module).__name__} "
            + (
                problem if unknown else "is not its derivative by the difference quotient in double precision"
            ),
            (name,),
            "keep the dtype of what comes in" if unknown else "fix its backward, or leave it to autograd",
            ("N7",),
        )


CHECKS: tuple[Callable[[_Case], Iterator[NetworkFinding]], ...] = (
    *(
        _scale,
        _output,
        _derivatives,
        _initialization,
        _units,
        _flow,
        _linear_pairs,
        _receptive_field,
        _pooling,
    ),
    *(_normalization, _residual, _size, _mixing),
)
