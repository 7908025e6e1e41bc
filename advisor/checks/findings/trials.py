"""Short trainings on copies of a network: what a change brings, measured on one batch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 30
"""Of one short training: enough for Adam's moments to settle (1 / (1 - 0.9) = 10 steps, three times over)."""
SECONDS = 3.0
"""Of this thread, for all short trainings of a program together: so that what else runs on the machine
decides nothing. The rest of the five seconds that an inspection may take is for the passes."""
MOST_ROWS = 256
"""Of the batch: more make each step slower and its curve hardly smoother."""


@dataclass(frozen=True)
class ShortTraining:
    """losses: before each step, and after the last; it ends where one is not finite.
    module: the copy, as it is afterwards. gradients: the largest norm that each parameter's gradient had."""

    losses: tuple[float, ...]
    module: nn.Module
    gradients: Mapping[str, float]

    @property
    def last(self) -> float:
        """The mean of the last tenth; infinite where training ran away."""
        if not all(map(math.isfinite, self.losses)):
            return math.inf
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail)


class Trials:
    """Short trainings of copies of ``module`` on one batch, within a time limit; its rows in a random order.

    forward: how the module is called. loss: of output and target. Every training draws the same random
    numbers.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[Any, ...],
        target: Tensor,
        loss: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        seconds: float = SECONDS,
    ) -> None:
        self.module, self.loss, self.optimizer = module, loss, optimizer
        size = len(inputs[0])
        order = torch.randperm(size, generator=torch.Generator().manual_seed(0))[:MOST_ROWS].to(target.device)
        self.inputs = tuple(pick_rows(i, order, size) for i in inputs)
        self.target = target[order]
        self._seconds, self._kept = seconds, dict[tuple[float, float], ShortTraining | None]()
        self._named = dict[str, ShortTraining | None]()

    @property
    def out_of_time(self) -> bool:
        return self._seconds <= 0

    def at(self, factor: float = 1.0, decay: float = 1.0) -> ShortTraining | None:
        """With the rate and the weight decay times a factor; kept, so that it costs nothing the second
        time."""
        key = (factor, decay)
        if key not in self._kept:
            self._kept[key] = self.run(factor=factor, decay=decay)
        return self._kept[key]

    def once(self, name: str, run: Callable[[], ShortTraining | None]) -> ShortTraining | None:
        """What a training came to; under one name only one is made."""
        if name not in self._named:
            self._named[name] = run()
        return self._named[name]

    def run(
        self,
        *,
        factor: float = 1.0,
        decay: float = 1.0,
        steps: int = STEPS,
        changed: Callable[[nn.Module], Any] | None = None,
        inputs: tuple[Any, ...] | None = None,
        target: Tensor | None = None,
        loss: Callable[..., Tensor] | None = None,
    ) -> ShortTraining | None:
        """One training; None when the time is over or it raises.

        changed: what is done to the copy before. inputs, target, loss: in place of the batch's.
        """
        if self.out_of_time:
            return None
        begin = time.thread_time()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return self._trained(factor, decay, steps, changed, inputs, target, loss)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
            return None
        finally:
            self._seconds -= time.thread_time() - begin

    def _trained(
        self,
        factor: float,
        decay: float,
        steps: int,
        changed: Callable[[nn.Module], Any] | None,
        inputs: tuple[Any, ...] | None,
        target: Tensor | None,
        loss: Callable[..., Tensor] | None,
    ) -> ShortTraining:
        module = copy.deepcopy(self.module).train()
        optimizer = same_optimizer(self.optimizer, self.module, module, factor, decay)
        if changed is not None:
            changed(module)
        given, goal, measure = (
            inputs or self.inputs,
            self.target if target is None else target,
            loss or self.loss,
        )
        losses, gradients, begin = [], dict[str, float](), time.thread_time()
        for number in range(steps + 1):
            optimizer.zero_grad()
            value = measure(module(*given), goal)
            losses.append(float(value.detach()))
            if number == steps or not math.isfinite(losses[-1]):
                break
            value.backward()  # type: ignore[no-untyped-call]
            if number in (0, 1, steps // 2, steps - 1):
                _largest(module, gradients)
            optimizer.step()
            if time.thread_time() - begin > self._seconds:
                break
        return ShortTraining(tuple(losses), module, gradients)


def _largest(module: nn.Module, found: dict[str, float]) -> None:
    for name, parameter in module.named_parameters():
        size = 0.0 if parameter.grad is None else float(parameter.grad.norm())
        found[name] = max(found.get(name, 0.0), size)


def pick_rows(value: Any, rows: Tensor, of: int) -> Any:
    """Some rows of an input that has one for each of ``of``; anything else as it is."""
    return value[rows] if isinstance(value, Tensor) and value.dim() and len(value) == of else value


def same_optimizer(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    other: nn.Module,
    factor: float = 1.0,
    decay: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimizer of the same kind and settings, over the same parameters of a copy.

    Parameters that the module does not know are left out; factor, decay: times the rate and the weight decay.
    """
    twins = dict(zip(map(id, module.parameters()), other.parameters(), strict=True))
    groups = []
    for group in optimizer.param_groups:
        settings = {k: v for k, v in group.items() if k != "params" and k != "initial_lr"}
        settings["lr"] = settings["lr"] * factor
        if "weight_decay" in settings:
            settings["weight_decay"] = settings["weight_decay"] * decay
        groups.append({"params": [twins[id(p)] for p in group["params"] if id(p) in twins], **settings})
    groups = [group for group in groups if group["params"]]
    if not groups:
        return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    kind: Any = type(optimizer)
    known = {"lr": groups[0]["lr"]}
    made: torch.optim.Optimizer = kind(groups, **known)
    return made
