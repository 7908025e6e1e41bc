"""How the network is built: layers that do nothing, activations in the wrong place, kernels, maps, widths."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from advisor.checks.findings.case import Case, Check, NetworkFinding, plural
from advisor.checks.findings.losses import by
from advisor.checks.findings.scale import effect, helps
from advisor.checks.tracing import TraceStep
from advisor.networks.geometry import group_count

SMALL_BATCH = 16
"""Rows below which batch normalization loses a lot (note N4; Wu and He 2018)."""
TINY_BATCH = 4
"""Rows of which mean and variance are mostly noise: the error of a deviation from 4 numbers is 40 %."""
PARAMETERS_PER_ROW = 1000
FIELD_SHARE = 0.5
FEWEST_FOR_POOLING = 3
"""Convolutions from which on it matters where the map is halved."""
SMALL_MAP = 16
LONG_KERNEL = 0.75
"""Share of the map from which on a kernel is a matrix in disguise: it meets the border nearly everywhere."""
SHRINKING = 4
"""Times fewer filters at the end than at the start."""
SATURATING = {"sigmoid", "hardsigmoid", "softmax", "softsign"}
BENDING: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hard sigmoid",
    nn.Softmax: "softmax",
    nn.Softsign: "softsign",
}
"""Modules that a short training replaces by ReLU."""


def _linear_pairs(case: Case) -> Iterator[NetworkFinding]:
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
    if found or pooled:
        only = not found
        yield NetworkFinding(
            "warning",
            "no-activation-between",
            f"{plural(len(found) or len(pooled), 'layer')} right after another, with no activation in "
            "between: "
            + ("a maximum is all that bends" if only else "together they can do no more than one"),
            tuple(found or pooled),
            "put an activation between them, or make them one",
            ("N5", "N27"),
            "activation",
            "nn.ReLU() between them",
        )


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


def _hidden_bends(case: Case) -> list[TraceStep]:
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


def _saturating(case: Case) -> Iterator[NetworkFinding]:
    """N27: sigmoid, softmax and the like inside the network, where a ReLU learns more in the same steps."""
    inside = _hidden_bends(case)
    if not inside:
        return
    softmax = [s for s in inside if s.kind == "softmax"]
    without = changed = None
    replaceable = {s.module for s in inside} & {
        n for n, m in case.module.named_modules() if type(m) in BENDING
    }
    if case.trials is not None and replaceable:
        without = case.trials.at()
        changed = case.trials.run(changed=lambda copied: _straighten(copied, replaceable))
    told = bool(softmax) or helps(without, changed)
    if not told and (len(inside) < 2 or case.trials is not None):
        return
    name = (softmax or inside)[0].function.strip("_")
    yield NetworkFinding(
        "warning",
        "softmax-inside" if softmax else "saturating-activations",
        f"{name} as the activation of {plural(len(inside), 'hidden layer')}: "
        + (
            "the units share a sum of 1, so that all but one say nothing"
            if softmax
            else "hardly any gradient comes through where it is flat"
        ),
        tuple(s.module for s in inside),
        "ReLU (leaky ReLU, GELU) in hidden layers; sigmoid and softmax at the end alone",
        ("N5", "N27"),
        "activation",
        f"nn.ReLU() in place of the hidden {name}",
        effect("with ReLU", without, changed),
    )


def _straighten(module: nn.Module, names: set[str]) -> None:
    for name in names:
        parent = module.get_submodule(name.rpartition(".")[0]) if "." in name else module
        setattr(parent, name.rpartition(".")[2], nn.ReLU())


def _receptive_field(case: Case) -> Iterator[NetworkFinding]:
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
    averaged = _ends_in_a_mean(case)
    yield NetworkFinding(
        "warning" if averaged or case.field_needed else "info",
        "receptive-field-small",
        f"a unit of the last map ({name}) sees {by(reach_of)} of {by(tuple(size))} points: {why}; patterns "
        "beyond that "
        + (
            "are only counted, never seen whole"
            if averaged
            else "are put together by the matrix after it alone"
        ),
        (case.map[0].module,),
        "pool or stride early, deepen, take larger or 1 x N kernels, or dilate the later convolutions",
        ("N20", "N23", "N25"),
    )


def _ends_in_a_mean(case: Case) -> bool:
    """Whether what is read of the last map forgets its places."""
    assert case.map is not None
    return any(s.kind == "whole" for s in case.passed.followers(case.map[0].number))


def _pooling(case: Case) -> Iterator[NetworkFinding]:
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
        f"{before} of {len(convolutions)} convolutions work on the full "
        f"{by(tuple(case.inputs[0].shape[2:]))} points "
        "before the map is first made smaller: most of the computation goes into small receptive fields",
        (halves[0].module,),
        "pool or stride after the first convolutions, and less often later",
        ("N21",),
    )


def _kernels(case: Case) -> Iterator[NetworkFinding]:
    """N25: kernels that hardly move on their map."""
    for step in case.passed.weighted():
        source = step.sources[0] if step.sources else -1
        size = case.passed.steps[source].shape if source >= 0 else tuple(case.inputs[0].shape)
        if step.kind != "convolution" or len(size) != len(step.kernel) + 2:
            continue
        long = [
            k for k, n in zip(step.kernel, size[2:], strict=True) if k > LONG_KERNEL * n and k != n and k > 3
        ]
        if long:
            yield NetworkFinding(
                "warning",
                "kernel-as-large-as-the-map",
                f"a kernel of {by(step.kernel)} on a map of {by(size[2:])}: it sees mostly padding or has "
                "hardly any "
                "place to go, and costs as many weights as a matrix",
                (step.module,),
                "small kernels, and pooling or stride between them",
                ("N20", "N25"),
                "architecture",
                f"kernel_size={min(7, max(3, min(size[2:]) // 4 * 2 - 1))}",
            )


def _filters(case: Case) -> Iterator[NetworkFinding]:
    """N19: filters that become fewer while the map shrinks too, until little is left."""
    convolutions = [s for s in case.passed.weighted() if s.kind == "convolution"]
    out = case.output
    if len(convolutions) < 2 or out is None or out.dim() > 2:
        return
    widths = [s.shape[1] for s in convolutions]
    if widths[-1] * SHRINKING <= max(widths) and widths[-1] == min(widths):
        yield NetworkFinding(
            "warning",
            "filters-become-fewer",
            f"the convolutions have {', '.join(map(str, widths))} filters: while the map shrinks, they "
            "should grow",
            tuple(s.module for s in convolutions),
            "twice as many filters where the map is halved",
            ("N19",),
        )


def _narrow(case: Case) -> Iterator[NetworkFinding]:
    """N19: a layer that all goes through, of fewer units than half of the classes."""
    out = case.output
    classes = out.shape[1] if out is not None and out.dim() == 2 else 0
    if case.target is None or case.target.is_floating_point() or classes < 4:
        return
    for step in case.passed.weighted()[:-1]:
        width = step.shape[step.unit_axis] if step.unit_axis is not None else 0
        if (
            step.kind == "linear"
            and len(step.shape) == 2
            and 2 * width < classes
            and _all_goes_through(case, step)
        ):
            yield NetworkFinding(
                "warning",
                "narrow-layer",
                f"all that the network knows of a row goes through {width} units, for {classes} classes",
                (step.module,),
                "widen that layer",
                ("N19",),
                "architecture",
                f"nn.Linear(..., {max(16, 2 * classes)})",
            )
            return


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


def _normalization(case: Case) -> Iterator[NetworkFinding]:
    """N4: batch statistics of few rows; what stands before batch normalization and does nothing, or harm."""
    batch = [s for s in case.passed.of_kind("norm") if s.function == "batch_norm"]
    if not batch:
        return
    where = tuple(s.module for s in batch)
    if case.batch_size < SMALL_BATCH:
        channels = batch[-1].shape[1] if len(batch[-1].shape) > 1 else 1
        own = case.batch_size == len(case.inputs[0])
        yield NetworkFinding(
            "warning",
            "batch-norm-small-batch",
            f"batch normalization estimates mean and variance from {plural(case.batch_size, 'row')}"
            + (" (those of the input: say batch_size where training has more)" if own else "")
            + ("" if case.training else "; in training mode the network does not take so few"),
            where,
            f"take batches of at least {SMALL_BATCH} rows, or nn.GroupNorm({group_count(channels)}, "
            f"{channels})",
            ("N4",),
            "batch size",
            f"batch_size={2 * SMALL_BATCH}",
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
            f"{plural(len(idle), 'layer')} with a bias before batch normalization, which takes the mean "
            "away again",
            tuple(s.module for s in idle),
            "bias=False there",
            ("N4",),
            "normalization",
            "bias=False",
        )
    dropped = [s for s in case.passed.of_kind("dropout") if s.probability > 0]
    ahead = [d for d in dropped if any(d.number in case.passed.ancestors(b.number) for b in batch)]
    if ahead:
        yield NetworkFinding(
            "warning",
            "dropout-before-batch-norm",
            "dropout changes the variance in training and not in use: the statistics of the batch "
            "normalization after "
            "it fit neither (Li et al. 2019)",
            tuple(d.module for d in ahead),
            "drop after the last batch normalization alone, before the output layer",
            ("N4",),
            "normalization",
        )


def _residual(case: Case) -> Iterator[NetworkFinding]:
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
            "variance to "
            "the stream",
            tuple(bare),
            "put batch normalization (group or layer for small batches) inside each branch; start its last "
            "scale at 0",
            ("N30",),
            "normalization",
        )


def _dropped(case: Case) -> Iterator[NetworkFinding]:
    """N28: so much dropout that nothing is learnt."""
    rates = [s for s in case.passed.of_kind("dropout") if s.probability >= 0.5]
    if not rates or case.trials is None:
        return
    without, changed = case.trials.at(), case.trials.run(changed=_no_dropout, steps=30)
    worst = max(s.probability for s in rates)
    if worst < 0.8 or not helps(without, changed):
        return
    yield NetworkFinding(
        "warning",
        "dropout-too-strong",
        f"dropout takes {worst:.0%} of the units away in every step, and little is left to learn with",
        tuple(s.module for s in rates),
        "0.1 to 0.5 in hidden layers",
        ("N28",),
        "regularization",
        "nn.Dropout(0.2)",
        effect("without dropout", without, changed),
    )


def _no_dropout(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0


def _size(case: Case) -> Iterator[NetworkFinding]:
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


CHECKS: tuple[Check, ...] = (
    *(_linear_pairs, _saturating, _receptive_field, _pooling, _kernels, _filters, _narrow),
    *(_normalization, _residual, _dropped, _size),
)
