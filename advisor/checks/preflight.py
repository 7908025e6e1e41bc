"""The pre-flight (note N24, first make it learn): is the recommendation ready to
be trained, within about a minute.

Each check provokes what would go wrong later: at the start, on one batch, against
inputs and labels that mean nothing.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.checks.gradients import own_gradients
from advisor.checks.preflight_result import Preflight, PreflightCheck, first_loss, no_leak
from advisor.checks.subject import Subject, blank, contents, copies, meaningless
from advisor.checks.throughput import device_bytes, edge, kept_bytes, knee, one_thread, rates
from advisor.checks.tracing import FLOW, Trace, trace
from advisor.dataset import Dataset
from advisor.errors import UserError
from advisor.networks.convolutional import StackedConvolution, StackedMapNorm
from advisor.networks.geometry import usable_memory
from advisor.networks.network import Network
from advisor.networks.pretrained.start import Start
from advisor.networks.tables import StackedLinear, StackedNorm, initialize
from advisor.objectives.networks import splits_of
from advisor.rules import shipped
from advisor.runs.advice import Advice
from advisor.spaces.topics import TOPICS
from advisor.splits import Split
from advisor.tasks import Task
from advisor.training.loop import train_epochs
from advisor.training.modalities import cost_of
from advisor.training.optimizer import pass_and_optimizer

BATCH_ROWS = 16
"""Rows of the batch that is to be learnt by heart."""
BATCH_STEPS = 600
MEASURING_RATE = 1e-6
"""The learning rate of steps whose time is measured."""
LEARNT = 0.1
"""A batch is learnt by heart at this share of the loss that a constant has on it."""
MOST_EPOCHS, FEWEST_EPOCHS = 15, 5
OVERHEAD = 1.5
"""Time of an epoch beside that of its training steps as measured: shuffling, augmentation, validation."""
FEWEST_ROWS = 100
"""Fewer than these say nothing about what can be learnt."""
BETTER = 2.0
"""Standard errors by which real inputs must beat blank ones."""
LITTLE = 0.05
"""Share of its loss by which real inputs at least should beat blank ones; less, for sure, is a failure."""
COPIES_SHARE = 0.01
"""Of the validation rows: fewer copies change no loss that anybody would notice."""
LEAK_FEWEST = 6
"""Validation rows below which labels may be met by luck (2 to the power of -6 for two classes)."""
LEAK_ROWS = 32
"""Training rows, and validation rows, that get labels without meaning."""
SHARES = {"throughput": 0.2, "one-batch": 0.3, "inputs-count": 0.7, "no-leak": 0.3}
"""The first two of the time budget, the others of what they leave."""


def preflight(
    advice: Advice,
    *,
    seconds: float = 60.0,
    device: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    start: Start | None = None,
) -> Preflight:
    """Check a recommendation on its training rows within about ``seconds``; nothing is written.

    device: by default a GPU where there is one.
    start: the weights that training begins with.
    clock: seconds, for the budget and the rates. UserError for a budget that is
        none, or data that cannot be split.
    """
    if not seconds > 0:
        raise UserError(f"the time budget must be more than 0 seconds, not {seconds}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    begun = clock()
    with one_thread():
        configuration, seed = advice.recommendation.configuration, advice.reading.seed
        data = advice.training_rows()
        first = splits_of(configuration, data, seed, 0)[0]
        subject = Subject.of(configuration, data, first, seed=seed, device=device, start=start)
        checks = list(_checks(subject, advice, seconds, begun, clock))
    return Preflight(
        tuple(checks), (len(subject.split.train), len(subject.split.validation)), clock() - begun
    )


def _checks(
    subject: Subject, advice: Advice, seconds: float, begun: float, clock: Callable[[], float]
) -> Iterator[PreflightCheck]:
    yield (plan := check_plan(subject))
    yield check_gradients_of_functions(subject.configuration)
    if plan.passed is False:
        return  # there is no network to look at
    yield check_first_loss(subject)
    yield from check_flow(first_pass(subject))
    batch, device = int(subject.configuration["batch_size"]), subject.device
    folds = subject.network(subject.members)
    budget = SHARES["throughput"] * seconds
    measured = rates(_steps(subject, folds), seconds=0.8 * budget, device=device, clock=clock)
    del folds
    one = subject.network()
    alone = rates(_steps(subject, one), seconds=0.2 * budget, sizes=[batch], device=device, clock=clock)
    yield check_throughput(measured, batch)
    yield check_memory(subject, advice.facts.values)
    yield check_one_batch(subject, deadline=clock() + SHARES["one-batch"] * seconds, clock=clock)
    left = seconds - (clock() - begun)
    yield check_inputs_count(
        *affordable(subject, alone[batch], left * SHARES["inputs-count"] / 2)
    )  # it trains twice
    yield check_no_leak(
        subject, deadline=max(begun + seconds, clock() + SHARES["no-leak"] * left), clock=clock
    )


# -------------------------------------------------------------------------------------------- before training


def check_plan(subject: Subject) -> PreflightCheck:
    """Whether there is such a network at all for inputs of this size."""
    rows = int(subject.configuration["batch_size"])
    reason = cost_of(subject.data).refusal(subject.configuration, rows, 1, None)
    if reason is None:
        return PreflightCheck("plan", True, "the network can be built")
    cause, _, fix = reason.partition(": ")
    return PreflightCheck("plan", False, "the network cannot be trained", {}, cause, fix)


def check_gradients_of_functions(configuration: Mapping[str, Any]) -> PreflightCheck:
    """N7: activations, losses, target transforms, norms and embeddings against
    the definition of the derivative."""
    results = own_gradients(configuration)
    wrong = [name for name, reason in results.items() if reason is not None]
    numbers = {"checked": len(results), "wrong": wrong}
    if wrong:
        return PreflightCheck(
            "gradients-agree", False, f"{len(wrong)} of {len(results)} functions have a gradient that is no "
                                      "derivative", numbers,
            f"{', '.join(wrong)}: gradient and difference quotient differ in double precision",
            "this is a bug of the advisor or of this PyTorch version: please report it with both versions",
        )  # fmt: skip
    return PreflightCheck(
        "gradients-agree",
        True,
        f"the gradients of all {len(results)} functions agree with the difference quotient",
        numbers,
    )


def check_first_loss(subject: Subject) -> PreflightCheck:
    """The loss before training is a constant's: the class shares', or the mean's."""
    rows = subject.first_rows()
    network = subject.network().train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(subject.seed)
        loss = float(subject.loss(network(*subject.inputs(rows)), rows))
    return first_loss(
        loss, subject.constant_loss(rows[0].numpy()), zero=subject.configuration["output_init"] == "zero"
    )


def first_pass(subject: Subject, network: Network | None = None) -> Trace:
    """One pass and its gradients, with what starts at zero drawn: else no
    gradient would come through at first."""
    network = copy.deepcopy(network or subject.network())
    generator = torch.Generator().manual_seed(subject.seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StackedLinear | StackedConvolution) and not module.weight.any():
                drawn = torch.empty(module.weight.shape)
                fans = None if drawn.dim() == 3 else (drawn[0, 0].numel(), drawn.shape[1])
                initialize(drawn, "xavier_normal", generator, fans)
                module.weight.copy_(drawn)
            elif isinstance(module, StackedMapNorm | StackedNorm) and not module.scale.any():
                module.scale.fill_(1.0)
    rows = subject.first_rows()
    return trace(network, *subject.inputs(rows), loss=lambda out: subject.loss(out, rows), training=True)


def check_flow(passed: Trace) -> Iterator[PreflightCheck]:
    """N5 and N4: dead and saturated units, and the gradient's way from the output to the first layer."""
    activations = passed.of_kind("activation")
    known = [s.dead for s in passed.watched() if s.dead is not None]
    numbers: dict[str, Any] = {"largest_share": max(known, default=None), "layers": len(known)}
    if not known:
        yield PreflightCheck("units-alive", None, "there is no activation to check", numbers)
    elif dead := passed.dead():
        step, share = max(dead, key=lambda pair: pair[1])
        yield PreflightCheck(
            "units-alive", False, f"{share:.0%} of the units of {step.module or step.function} are 0 on "
                                  "every row", numbers,
            "their weighted sum is never positive, so their gradient is 0 and they stay dead",
            "--fixed activation=leaky_relu or gelu, --fixed weight_init=he_normal, or a norm; scale inputs",
        )  # fmt: skip
    else:
        yield PreflightCheck(
            "units-alive", True, f"at most {max(known):.0%} of a layer's units are zero on every row", numbers
        )
    flat = passed.saturated()
    shares = [s.saturated for s in activations if s.saturated is not None]
    if flat:
        step, share = max(flat, key=lambda pair: pair[1])
        yield PreflightCheck(
            "units-not-saturated", False, f"{share:.0%} of what {step.function} makes in {step.module} lies "
                                          "where it is flat",
            {"largest_share": share}, "its inputs are too large, so no gradient passes",
            "--fixed weight_init=xavier_normal, --fixed activation=relu, or a norm; scale the inputs",
        )  # fmt: skip
    elif shares:
        words = f"at most {max(shares):.0%} of a layer is saturated"
        yield PreflightCheck("units-not-saturated", True, words, {"largest_share": max(shares)})
    yield _gradient_flow(passed)


def _gradient_flow(passed: Trace) -> PreflightCheck:
    flow = passed.flow()
    if flow is None:
        return PreflightCheck("gradient-flows", None, "fewer than two hidden layers: nothing to compare")
    first, last, ratio = flow
    numbers = {
        "ratio": ratio,
        "first": first.gradient,
        "last": last.gradient,
        "layers": len(passed.weighted()),
    }
    words = f"the gradient at {first.module} is {ratio:.2g} times as large as at {last.module}"
    if 1 / FLOW <= ratio <= FLOW:
        return PreflightCheck("gradient-flows", True, words, numbers)
    vanishes = ratio < 1
    changes = "smaller" if vanishes else "larger"
    cause = f"each layer makes it {changes}: the weights do not fit the activation, or there are many layers"
    fix = (
        "--fixed norm=batch (channel for images and sequences), --fixed block=residual, a weight_init "
        "that fits the activation" + ("" if vanishes else ", --fixed gradient_clip=1")
    )
    return PreflightCheck("gradient-flows", False, words, numbers, cause, fix)


# ------------------------------------------------------------------------------------------- speed and memory


def _losses(
    subject: Subject, network: Network, forward: Callable[..., Tensor] | None = None
) -> Callable[[int], Tensor]:
    """The loss of a batch of any size, of random training rows, for each of the members at once.

    forward: the pass through the network, where it is not just its call.
    """
    generator, members = np.random.default_rng(subject.seed), next(network.parameters()).shape[0]
    through = forward or network

    def loss_of(size: int) -> Tensor:
        rows = torch.from_numpy(generator.choice(subject.split.train, (members, size)))
        return subject.loss(through(*subject.inputs(rows)), rows)

    return loss_of


def _steps(subject: Subject, network: Network) -> Callable[[int], None]:
    """What takes steps as training does, but for a compiler's minute, and at a rate
    at which the weights hardly move."""
    noise = torch.Generator(subject.device).manual_seed(subject.seed)
    forward, optimizer = pass_and_optimizer(network, {**subject.configuration, "compiled": False}, noise)
    loss_of = _losses(subject, network, forward)

    def step(size: int) -> None:
        optimizer.zero_grad()
        loss_of(size).backward()  # type: ignore[no-untyped-call]
        optimizer.step(MEASURING_RATE)

    return step


def check_throughput(measured: Mapping[int, float], batch_size: int) -> PreflightCheck:
    """Where larger batches stop to be faster; rows per second by batch size in, knee and judgement out."""
    bend, best = knee(measured), max(measured.values())
    nearest = min(measured, key=lambda size: abs(size - batch_size))
    share = measured[nearest] / best
    numbers = {
        "rows_per_second": {size: round(rate) for size, rate in measured.items()},
        "knee": bend,
        "batch_size": batch_size,
    }
    words = (
        f"throughput levels off at batches of {bend} rows ({measured[bend]:,.0f} rows/s); {nearest} reach "
        f"{share:.0%} of the best"
    )
    return PreflightCheck("throughput", True, words, numbers)


def check_memory(subject: Subject, facts: Mapping[str, Any]) -> PreflightCheck:
    """The largest batch that the memory bears for all folds at once: measured on
    a GPU, estimated on a CPU."""
    batch, members = int(subject.configuration["batch_size"]), subject.members
    on_gpu = subject.device.startswith("cuda")
    free = usable_memory(facts, gpu=on_gpu)
    if free is None:
        return PreflightCheck("memory", None, "free memory was not measured")
    needed, how = _needed(subject, members)
    most, wanted = edge(free, needed), needed(batch)
    numbers = {
        "edge": most,
        "batch_size": batch,
        "bytes": round(wanted),
        "free": round(free),
        "members": members,
        "how": how,
    }
    words = (
        f"{batch} rows of {members} networks take about {wanted / 1e9:.2g} GB ({how}); the limit is "
        f"{most:,} rows"
    )
    if most >= batch:
        return PreflightCheck("memory", True, words, numbers)
    cause = f"training takes about {wanted / 1e9:.2g} GB, and {free / 1e9:.2g} GB are available"
    fix = f"--fixed batch_size={max(2, most)} or smaller, a smaller width, fewer folds"
    return PreflightCheck("memory", False, words, numbers, cause, fix)


def _needed(subject: Subject, members: int) -> tuple[Callable[[int], float], str]:
    """Bytes by batch size, and how they are known."""
    if subject.device.startswith("cuda"):
        step = _steps(subject, subject.network(members))
        small, large = (device_bytes(step, rows, subject.device) for rows in (BATCH_ROWS, 4 * BATCH_ROWS))
        slope = max(0.0, (large - small) / (3 * BATCH_ROWS))
        return lambda rows: small + slope * (rows - BATCH_ROWS), "measured"
    planned = subject.prepared.shape.planned_memory(subject.configuration, subject.outputs, members)
    if planned is not None:
        return planned, "estimated from the plan"
    network = subject.network()
    loss_of = _losses(subject, network)
    weights = 4 * sum(
        p.numel() * p.element_size() for p in network.parameters()
    )  # with gradient and AdamW's two moments
    kept = [kept_bytes(loss_of, rows, network) for rows in (BATCH_ROWS, 2 * BATCH_ROWS)]
    slope = (kept[1] - kept[0]) / BATCH_ROWS
    return lambda rows: members * (weights + slope * rows), "counted in one pass"


# ------------------------------------------------------------------------------------------ training a little


def without_help(configuration: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    """The configuration with all that keeps a network from learning rows by heart
    switched off, and a constant rate."""
    plain = dict(configuration)
    for name, parameter in shipped.base_space(data.features.kind).parameters.items():
        if name in plain and TOPICS[parameter.topic].hinders:
            if isinstance(plain[name], str):
                plain[name] = "none"
            elif getattr(parameter, "zero", False):
                plain[name] = 0.0
    return plain | {"schedule": "constant", "warmup": 0.0}


def check_one_batch(subject: Subject, *, deadline: float, clock: Callable[[], float]) -> PreflightCheck:
    """Can one batch be learnt by heart, with the optimizer and rate that are recommended."""
    rows = batch_to_learn(subject)
    target = subject.data.target[rows]
    task = subject.data.task
    if len(rows) < 2 or len(np.unique(task.compared(target))) < 2:
        return PreflightCheck(
            "one-batch", None, "no two training rows with different inputs and different targets"
        )
    constant = _constant_loss(task, target, len(subject.data.classes))
    batch = subject.data.part(rows)
    everyone = np.arange(len(rows))
    configuration = without_help(subject.configuration, subject.data)
    configuration |= {"batch_size": len(rows), "epochs": BATCH_STEPS, "patience": BATCH_STEPS}
    losses: list[float] = []
    for epoch in train_epochs(
        configuration,
        batch,
        [Split(everyone, everyone)],
        seed=subject.seed,
        device=subject.device,
        start=subject.start,
    ):
        losses.append(epoch.validation_loss)
        if losses[-1] <= LEARNT * constant or clock() > deadline:
            break
    return one_batch(
        losses, constant, rows=len(rows), in_time=clock() <= deadline, unit=subject.data.task.loss_name
    )


def one_batch(
    losses: Sequence[float], constant: float, *, rows: int, in_time: bool, unit: str
) -> PreflightCheck:
    """Judge the losses on one batch, step by step, against a constant's;
    in_time: whether all steps could be made."""
    best = min((loss for loss in losses if np.isfinite(loss)), default=float("inf"))
    numbers = {"rows": rows, "steps": len(losses), "best_loss": best, "constant": constant}
    words = (
        f"{rows} rows: the {unit} falls from {constant:.3g} (a constant's) to {best:.3g} in "
        f"{len(losses)} steps"
    )
    if best <= LEARNT * constant:
        return PreflightCheck("one-batch", True, words, numbers)
    if not in_time:
        return PreflightCheck(
            "one-batch", None, f"{words}, then the time was up: allow more with --seconds", numbers
        )
    if not np.isfinite(losses[-1]) or losses[-1] > 2 * constant:
        cause, fix = (
            "the loss rises: the learning rate is too large",
            "a smaller learning_rate, --fixed gradient_clip=1",
        )
    elif best > 0.8 * constant:
        cause = (
            "hardly anything is learned: the learning rate is far too small, or no gradient reaches the "
            "weights (see above)"
        )
        fix = "a larger learning_rate; a weight_init that fits the activation"
    else:
        cause = (
            "it is only partly learned: the network is too small to tell these rows apart, or the learning "
            "rate is too small"
        )
        fix = (
            "more width or hidden layers (stages and blocks for images and sequences), or a larger "
            "learning_rate"
        )
    return PreflightCheck("one-batch", False, words, numbers, cause, fix)


def batch_to_learn(subject: Subject) -> NDArray[np.int64]:
    """Training rows with inputs that all differ, the classes in turn."""
    own = np.random.default_rng(subject.seed).permutation(subject.split.train)
    digests = contents(subject.data)[own]
    own = own[np.sort(np.unique(digests, return_index=True)[1])]
    if subject.data.task.of_classes:
        codes = subject.data.target[own]
        turn = np.zeros(len(own), dtype=np.int64)
        for code in np.unique(codes):
            turn[codes == code] = np.arange(int((codes == code).sum()))
        own = own[np.argsort(turn, kind="stable")]
    return np.sort(own[:BATCH_ROWS])


def affordable(subject: Subject, rate: float, seconds: float) -> tuple[Subject, int]:
    """What fits into ``seconds`` at ``rate`` training rows per second, validation and all: the subject,
    with fewer rows where FEWEST_EPOCHS would not fit else, and the epochs, at most MOST_EPOCHS; 0 when so
    little fits that nothing can be learnt."""
    rows = len(subject.split.train) + len(subject.split.validation)
    passes = seconds * rate / (OVERHEAD * rows)
    if passes >= FEWEST_EPOCHS:
        return subject, int(min(MOST_EPOCHS, passes))
    share = passes / FEWEST_EPOCHS
    if share * rows < FEWEST_ROWS:
        return subject, 0
    return subject.thinned(share), FEWEST_EPOCHS


def _trained_losses(
    subject: Subject, configuration: Mapping[str, Any], data: Dataset, epochs: int
) -> NDArray[np.float64]:
    """The validation rows' losses at the best epoch of a short training."""
    short = dict(configuration) | {"epochs": epochs, "patience": epochs}
    run = train_epochs(
        short, data, [subject.split], seed=subject.seed, device=subject.device, start=subject.start
    )
    while True:
        try:
            next(run)
        except StopIteration as end:
            fitted = end.value
            break
    return data.task.row_losses(data.target[fitted.held_out_rows], fitted.held_out)


def _gain(worse: NDArray[np.float64], better: NDArray[np.float64]) -> tuple[float, float]:
    """The mean difference of paired losses as a share of the first's mean, and in its standard errors."""
    difference = worse - better
    error = float(difference.std(ddof=1)) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
    mean = float(difference.mean())
    return mean / max(float(worse.mean()), 1e-300), mean / error if error > 0 else np.sign(mean) * np.inf


def _constant_loss(task: Task, target: Any, classes: int) -> float:
    """The mean loss of the best constant."""
    return float(task.row_losses(target, task.constant_scores(target, classes)).mean())


def check_inputs_count(subject: Subject, epochs: int) -> PreflightCheck:
    """Real inputs must beat inputs that are all alike, on the same validation rows."""
    if epochs < 1:
        return PreflightCheck(
            "inputs-count", None, "too little can be trained in the time limit: allow more with --seconds"
        )
    real = _trained_losses(subject, subject.configuration, subject.data, epochs)
    empty = _trained_losses(subject, subject.configuration, blank(subject.data), epochs)
    gain, errors = _gain(empty, real)
    numbers = {"real": float(real.mean()), "blank": float(empty.mean()), "standard_errors": errors}
    numbers |= {"epochs": epochs, "rows": len(subject.split.train)}
    unit = subject.data.task.loss_name
    words = (
        f"validation {unit} {real.mean():.3g} with the inputs, {empty.mean():.3g} with blank inputs, after "
        f"{epochs} epochs"
    )
    if errors > BETTER and gain > 0:
        return PreflightCheck("inputs-count", True, words, numbers)
    if gain > 0 and gain * (1 + BETTER / errors) > LITTLE:
        return PreflightCheck(
            "inputs-count", None, f"{words}: too few rows to tell that from chance", numbers
        )
    return PreflightCheck(
        "inputs-count", False, words, numbers,
        "the inputs do not help yet: they carry little information about the target, or the network has not "
        "learned from them yet",
        "look at the findings of `advisor recommend` (types, scaling, target); allow more time with "
        "--seconds; if one-batch failed too, fix that first",
    )  # fmt: skip


def check_no_leak(subject: Subject, *, deadline: float, clock: Callable[[], float]) -> PreflightCheck:
    """Labels that mean nothing cannot be learnt on validation rows, unless those rows,
    or copies of them, are trained on too.

    The validation rows that look like copies take part first: among the others they would go under.
    """
    split, shared = leak_rows(subject)
    data = meaningless(subject.data, subject.seed)
    target = data.target[split.train]
    constant = _constant_loss(data.task, target, len(data.classes))
    # nothing may hinder it from learning the training rows by heart: a leak shows only then
    configuration = without_help(subject.configuration, data)
    configuration |= {"batch_size": BATCH_ROWS, "epochs": BATCH_STEPS, "patience": BATCH_STEPS}
    if len(split.validation) < LEAK_FEWEST:
        return PreflightCheck(
            "no-leak", None, f"{len(split.validation)} validation rows are too few to tell a leak from chance"
        )
    trained, validated, epochs = float("inf"), float("inf"), 0
    for epoch in train_epochs(
        configuration, data, [split], seed=subject.seed, device=subject.device, start=subject.start
    ):
        trained, validated, epochs = epoch.train_loss, epoch.validation_loss, epoch.number
        if trained <= LEARNT * constant or clock() > deadline:
            break
    return no_leak(validated, trained, constant, copies=shared, epochs=epochs)


def leak_rows(subject: Subject) -> tuple[Split, int]:
    """Few training rows that can be learnt by heart soon, few validation rows,
    and how many of all those are copies.

    Copies come first on either side, where there are so many that they matter.
    """
    identity, (own, others) = copies(subject.data), (subject.split.train, subject.split.validation)
    generator = np.random.default_rng(subject.seed)
    own, others = generator.permutation(own), generator.permutation(others)
    shared = np.isin(identity[others], identity[own])
    matter = shared.sum() >= max(LEAK_FEWEST, COPIES_SHARE * len(others))
    validation = (others[shared] if matter else others)[:LEAK_ROWS]
    first = np.isin(identity[own], identity[validation])
    training = np.concatenate([own[first], own[~first]])
    training = training[np.sort(np.unique(identity[training], return_index=True)[1])][:LEAK_ROWS]
    return Split(np.sort(training), np.sort(validation)), int(shared.sum())


# -------------------------------------------------------------------------------------- from the command line
