"""What a loop does with gradients between a backward pass and the optimizer's step, seen through hooks."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from advisor.checks.findings.case import Case, Measure, measuring
from advisor.errors import error_text

LOOP_STEPS = 12
"""Of the user's own step: a schedule of epochs that is stepped in every batch shows in this many."""
WATCHED_PARAMETERS, WATCHED_SIZE = 6, 20_000
"""The smallest parameters are watched: what a loop does to gradients it does to all of them."""
LEAST_CLIMB = 3
"""Steps in which a rate must have risen for its fall to be one of a warm-up."""
ALIKE = 1e-3
"""Relative difference of two gradients that are the same but for rounding."""


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
class RateClimbs:
    """Counts how often a learning rate that had risen in every step fell back to its start, and rose again.

    A warm-up that counts the steps of an epoch does so. A rate that stays up before it falls is a schedule.
    start, top: the first rate and the highest. restarts: the count.
    """

    start: float = math.nan
    top: float = 0.0
    restarts: int = 0
    _last: float = math.nan
    _rising: int = 0
    _fell: bool = False

    def see(self, rate: float) -> None:
        """The rate of the next step."""
        if math.isnan(self.start):
            self.start = rate
        self.top = max(self.top, rate)
        if rate > self._last:
            self.restarts += self._fell
            self._rising, self._fell = self._rising + 1, False
        else:
            back = rate <= self.start * (1 + ALIKE)
            self._fell = rate < self._last and back and self._rising >= LEAST_CLIMB
            self._rising = 0
        self._last = rate


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
        self._counted: nn.Module | None = None
        self._handles.append(self.module.register_forward_pre_hook(self._before_forward))
        self._parts = [p.register_forward_pre_hook(self._before_forward) for p in callable_parts(self.module)]

    def _forget_parts(self) -> None:
        for handle in self._parts:
            handle.remove()
        self._parts.clear()

    def close(self) -> None:
        self._forget_parts()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before_forward(self, module: nn.Module, arguments: Any) -> None:
        """Count a pass of the module, or of the first part that a loop calls in its place."""
        if module is self.module:
            self._forget_parts()
        if torch.is_grad_enabled():
            self._counted = self._counted or module
        if torch.is_grad_enabled() and module is self._counted:
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


def callable_parts(module: nn.Module) -> list[nn.Module]:
    """The parts that a loop may call without the module itself: its children, or those of a list of them."""
    found, waiting = list[nn.Module](), list(module.children())
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            waiting += part.children()
        else:
            found.append(part)
    return found


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


LOOP_FACTS = (
    *("loop.error", "loop.steps", "loop.passes", "loop.judged", "loop.kept", "loop.cleared", "loop.stale"),
    *("loop.evaluating", "loop.clipped_share", "loop.rate_first", "loop.rate_last", "loop.rate_falls"),
    *("loop.rate_restarts", "loop.rate_top"),
)


def ledger_facts(ledger: StepLedger) -> dict[str, Any]:
    """What a ledger has counted, as facts; it must have seen three steps for most of them."""
    clipped, rates = sorted(ledger.clipped), ledger.rates
    often = 0 < ledger.judged <= len(clipped)
    climbs = RateClimbs()
    for rate in rates:
        climbs.see(rate)
    return {
        "loop.error": "",
        "loop.steps": ledger.steps,
        "loop.passes": ledger.passes,
        "loop.judged": ledger.judged,
        "loop.kept": ledger.kept,
        "loop.cleared": ledger.cleared,
        "loop.stale": ledger.stale,
        "loop.evaluating": ledger.evaluating,
        "loop.clipped_share": clipped[ledger.judged - 1] if often else None,
        "loop.rate_first": rates[0] if rates else None,
        "loop.rate_last": rates[-1] if rates else None,
        "loop.rate_falls": all(b <= a for a, b in itertools.pairwise(rates)),
        "loop.rate_restarts": climbs.restarts,
        "loop.rate_top": climbs.top,
    }


@measuring(*LOOP_FACTS)
def _own_step(case: Case) -> Mapping[str, Any]:
    """A dozen of the user's own steps on the batch, after which network and optimizer are as they were."""
    step, optimizer, loss, target = case.step, case.optimizer, case.loss, case.target
    if step is None or optimizer is None or loss is None or target is None or case.loss_error:
        return {}
    ledger, problem = StepLedger(case.module, optimizer), ""
    with _restored(case.module, optimizer):
        try:
            given: Any = case.inputs if len(case.inputs) > 1 else case.inputs[0]
            rows = max(2, min(len(case.inputs[0]), case.batch_size))
            for number in range(LOOP_STEPS):
                step(case.module, optimizer, loss, *_some(given, target, rows, number))
        except Exception as error:  # noqa: BLE001  # a user's own step may raise anything: it is told
            problem = error_text(error)
        finally:
            ledger.close()
    return {**ledger_facts(ledger), "loop.error": problem}


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


MEASURES: tuple[Measure, ...] = (_own_step,)
