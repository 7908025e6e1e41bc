"""What a loop does with gradients between a backward pass and the optimizer's step, seen through hooks."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from advisor.checks.findings.case import Case, Check, NetworkFinding

LOOP_STEPS = 12
"""Of the user's own step: a schedule of epochs that is stepped in every batch shows in so many."""
WATCHED_PARAMETERS, WATCHED_SIZE = 6, 20_000
"""The smallest parameters are watched: what a loop does to gradients it does to all of them."""
ALIKE = 1e-3
"""Relative difference of two gradients that are the same but for rounding."""
CLIPPED_AWAY = 0.01
"""Share of a gradient's length below which clipping sets the step, not the gradient."""
RATE_GONE = 0.2
"""Share of the learning rate that must be left after a dozen steps."""
ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Adadelta", "Rprop", "Adafactor", "Muon")
"""Optimizers that do not look at a gradient's length."""


@dataclass
class _Watched:
    """One parameter: the gradient that came since the last step, and the one that the last step saw."""

    parameter: nn.Parameter
    came: Tensor | None = None
    before: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        with torch.no_grad():
            self.came = gradient.detach().clone() if self.came is None else self.came + gradient.detach()


@dataclass
class StepLedger:
    """Counts, over the steps of an optimizer, what its gradients were. To be closed.

    kept: steps whose gradients hold those of the step before; cleared: that saw none though a backward
    pass had made some; stale: that saw some though none had been made; clipped: the shares of their length
    that were left.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int = 0
    passes: int = 0
    judged: int = 0
    kept: int = 0
    cleared: int = 0
    stale: int = 0
    evaluating: int = 0
    clipped: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = [p for p in self.module.parameters() if p.requires_grad]
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        small = sorted(
            (p for p in own if id(p) in held and p.numel() <= WATCHED_SIZE), key=lambda p: p.numel()
        )
        self._watched = [_Watched(p) for p in small[:WATCHED_PARAMETERS]]
        self._sensitive = mode_sensitive(self.module)
        self._handles: list[Any] = [w.parameter.register_hook(w.add) for w in self._watched]  # type: ignore[no-untyped-call]
        self._handles.append(self.optimizer.register_step_pre_hook(self._before_step))
        self._handles.append(self.module.register_forward_pre_hook(self._before_forward))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before_forward(self, module: nn.Module, arguments: Any) -> None:
        if torch.is_grad_enabled():
            self.passes += 1
            self.evaluating += bool(self._sensitive) and not self._sensitive[0].training

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.steps += 1
        self.rates.append(max(float(group["lr"]) for group in optimizer.param_groups))
        votes = [vote for w in self._watched if (vote := self._vote(w))]
        for w in self._watched:
            w.before = None if w.parameter.grad is None else w.parameter.grad.detach().clone()
            w.came = None
        if not votes:
            return
        self.judged += 1
        verdict = max(set(votes), key=votes.count)
        self.kept += verdict == "kept"
        self.cleared += verdict == "cleared"
        self.stale += verdict == "stale"

    def _vote(self, watched: _Watched) -> str:
        """What one parameter's gradient says of this step; "" where it cannot be told."""
        came, now, before = watched.came, watched.parameter.grad, watched.before
        size_now = 0.0 if now is None else float(now.norm())
        size_came = 0.0 if came is None else float(came.norm())
        if not math.isfinite(size_now) or not math.isfinite(size_came):
            return ""
        if not size_came:
            return "stale" if size_now else ""
        if now is None or not size_now:
            return "cleared"
        assert came is not None
        if float((now - came).norm()) <= ALIKE * size_came:
            return "right"
        if before is not None and _sum_of(now, came, before):
            return "kept"
        share = size_now / size_came
        if float((now / share - came).norm()) <= 10 * ALIKE * size_came:
            if (
                share < 1 and not math.log2(share).is_integer()
            ):  # a scaler of mixed precision divides by powers of 2
                self.clipped.append(share)
            return "right"
        return ""


def _sum_of(now: Tensor, came: Tensor, before: Tensor) -> bool:
    """Whether a gradient is the new one and that of the step before, added up."""
    sizes = float(came.norm()), float(before.norm())
    return sizes[1] > ALIKE * sizes[0] and float((now - came - before).norm()) <= ALIKE * sum(sizes)


def mode_sensitive(module: nn.Module) -> list[nn.Module]:
    """The layers that do another thing in evaluation mode, and are trained."""
    found: list[nn.Module] = []
    for part in module.modules():
        drops = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
        norms = isinstance(part, nn.modules.batchnorm._BatchNorm) and any(
            p.requires_grad for p in part.parameters()
        )
        if drops or norms:
            found.append(part)
    return found


def loop_findings(ledger: StepLedger, planned: int | None = None) -> Iterator[NetworkFinding]:
    """What a ledger says; it must have seen three steps for most of it. planned: steps of the whole
    training."""
    judged = ledger.judged
    if ledger.passes >= 3 and not ledger.steps:
        yield _told(
            "error",
            "no-step",
            "gradients are computed, and the optimizer never takes a step",
            "optimizer.step()",
        )
    if judged >= 2 and ledger.kept >= max(1, (judged - 1) * 0.8):
        yield _told(
            "error",
            "gradients-kept",
            f"in {ledger.kept} of {judged} steps the gradients of earlier steps were still there and were "
            "added up",
            "optimizer.zero_grad()",
        )
    if judged and ledger.cleared >= judged * 0.8:
        yield _told(
            "error",
            "gradients-cleared",
            f"in {ledger.cleared} of {judged} steps the gradients were set to zero between backward() and "
            "step(): no "
            "parameter moves",
            "optimizer.zero_grad(); loss.backward(); optimizer.step()",
        )
    if judged and ledger.stale >= max(2, judged * 0.8):
        yield _told(
            "error",
            "step-without-backward",
            f"in {ledger.stale} of {judged} steps no gradient had been computed since the step before",
            "loss.backward(); optimizer.step()",
        )
    strong = [share for share in ledger.clipped if share < CLIPPED_AWAY]
    adaptive = type(ledger.optimizer).__name__.startswith(ADAPTIVE)
    if not adaptive and judged >= 2 and len(strong) >= judged:
        yield _told(
            "warning",
            "clipped-away",
            f"clipping leaves {sorted(strong)[len(strong) // 2]:.2g} of the gradient's length in every "
            "step: the step is "
            "the clip's, and next to nothing",
            "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
        )
    if ledger.evaluating and ledger.evaluating >= 0.8 * ledger.passes:
        yield NetworkFinding(
            "warning",
            "evaluation-mode",
            f"{ledger.evaluating} of {ledger.passes} passes that were trained on ran in evaluation mode: "
            "batch "
            "normalization and dropout do not work as in training",
            (),
            "call train() before the steps, after every evaluation",
            (),
            "evaluation",
            "model.train()",
        )
    yield from _rate_gone(ledger, planned)


def _rate_gone(ledger: StepLedger, planned: int | None) -> Iterator[NetworkFinding]:
    rates = ledger.rates
    early = planned is None or len(rates) < planned / 4
    falling = all(b <= a for a, b in itertools.pairwise(rates))
    if len(rates) >= 6 and early and falling and rates[0] and rates[-1] < RATE_GONE * rates[0]:
        yield NetworkFinding(
            "warning",
            "schedule-too-fast",
            f"the learning rate falls from {rates[0]:.3g} to {rates[-1]:.3g} in {len(rates)} steps"
            + ("" if planned is None else f" of {planned:,}")
            + ": a schedule of epochs may be stepped in every batch",
            (),
            "step it once an epoch, or give it the number of steps",
            ("N29",),
            "learning rate",
            "scheduler.step()  # after each epoch, not in the loop over batches",
        )


def _told(severity: Any, code: str, message: str, line: str) -> NetworkFinding:
    return NetworkFinding(severity, code, message, (), f"in every step: {line}", (), "loop", line)


def _own_step(case: Case) -> Iterator[NetworkFinding]:
    """A dozen of the user's own steps on the batch, after which network and optimizer are as they were."""
    if (
        case.step is None
        or case.optimizer is None
        or case.loss is None
        or case.target is None
        or case.loss_error
    ):
        return
    ledger = StepLedger(case.module, case.optimizer)
    with _restored(case.module, case.optimizer):
        try:
            given: Any = case.inputs if len(case.inputs) > 1 else case.inputs[0]
            rows = max(2, min(len(case.inputs[0]), case.batch_size))
            for number in range(LOOP_STEPS):
                case.step(case.module, case.optimizer, case.loss, *_some(given, case.target, rows, number))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            yield NetworkFinding(
                "error", "step-fails", f"your step raised {error}", (), "look at its arguments", (), "loop"
            )
        finally:
            ledger.close()
    yield from loop_findings(ledger, case.steps)


def _some(given: Any, target: Tensor, rows: int, number: int) -> tuple[Any, Tensor]:
    """Some rows of the batch, others in every step."""
    size = len(target)
    places = (torch.arange(rows) + number * rows) % size

    def cut(value: Any) -> Any:
        return value[places] if isinstance(value, Tensor) and value.dim() and len(value) == size else value

    return (tuple(map(cut, given)) if isinstance(given, tuple) else cut(given)), target[places]


class _restored:
    """The state of a network and its optimizer, given back afterwards."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer

    def __enter__(self) -> None:
        self._state = copy.deepcopy(self.module.state_dict())
        self._settings = copy.deepcopy(self.optimizer.state_dict())
        self._gradients = [(p, None if p.grad is None else p.grad.clone()) for p in self.module.parameters()]
        self._modes = [(m, m.training) for m in self.module.modules()]
        self._random = torch.random.get_rng_state()

    def __exit__(self, *_: Any) -> None:
        self.module.load_state_dict(self._state)
        self.optimizer.load_state_dict(self._settings)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        for part, mode in self._modes:
            part.training = mode
        torch.random.set_rng_state(self._random)


CHECKS: tuple[Check, ...] = (_own_step,)
