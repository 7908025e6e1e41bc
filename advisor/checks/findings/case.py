"""What the families of findings are given, and what they give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from advisor.checks.findings.trials import Trials
from advisor.checks.receptive_fields import Seen
from advisor.checks.tracing import Trace, TraceStep
from advisor.rules.rule import FindingCategory, ModuleSeverity

Step = Callable[[nn.Module, torch.optim.Optimizer, Callable[..., Tensor], Any, Any], Any]
"""One step of a user's own loop: module, optimizer, loss, batch, target -> the loss."""


@dataclass(frozen=True)
class MeasuredEffect:
    """What a short training brought, with and without the change.

    without, with_change: the loss after each step, as the loss was given. label: what was changed.
    """

    label: str
    without: tuple[float, ...]
    with_change: tuple[float, ...]

    def __str__(self) -> str:
        def ends(curve: tuple[float, ...]) -> str:
            return f"{curve[0]:.3g} -> {curve[-1]:.3g}" if curve else "stops"

        steps = max(len(self.without), len(self.with_change), 1) - 1
        return f"{steps} steps on this batch: {ends(self.without)}; {self.label}: {ends(self.with_change)}"


@dataclass(frozen=True)
class NetworkFinding:
    """One thing to know about a network or its training: what a rule says of its facts.

    where: dotted names of modules or parameters. notes: those that it acts on (docs/notes.md).
    change: a line of code that makes it right, "" where none can be given.
    effect: both curves, where a short training decided. rule: its id; ``page`` describes it.
    """

    severity: ModuleSeverity
    code: str
    message: str
    where: tuple[str, ...]
    fix: str
    notes: tuple[str, ...]
    category: FindingCategory
    change: str
    effect: MeasuredEffect | None
    rule: str

    @property
    def page(self) -> str:
        """The rule's page in the documentation, of a shipped rule."""
        return f"rules/{self.rule}.md"


@dataclass(frozen=True)
class Case:
    """One network, its training's set-up, and all that was seen of them.

    training: whether the pass was in training mode (it cannot be where normalization has too few rows).
    loss, optimizer, step: as the user gave them; None where they did not.
    loss_error: what the given loss raised on this output and target.
    rows, batch_size, epochs: of the training that is planned.
    map, reach: the last step that has places, and what one unit of it sees.
    trials: short trainings on copies.
    """

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
    loss: Callable[..., Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None
    epochs: int | None = None
    step: Step | None = None
    loader: DataLoader[Any] | None = None
    loss_error: str = ""
    trials: Trials | None = None

    @property
    def output(self) -> Tensor | None:
        """The first tensor of what the network returned."""
        return first_tensor(self.passed.output)

    @property
    def steps(self) -> int | None:
        """Steps of the whole training."""
        if self.epochs is None or self.rows is None:
            return None
        return self.epochs * max(1, -(-self.rows // self.batch_size))


@dataclass(frozen=True)
class Measure:
    """Facts that are measured together, when a rule asks for the first of them.

    names: of ``facts.module_schema.MODULE_FACTS``. run: their values; one that is left out is not known.
    """

    names: tuple[str, ...]
    run: Callable[[Case], Mapping[str, Any]]


def measuring(*names: str) -> Callable[[Callable[[Case], Mapping[str, Any]]], Measure]:
    """Make a function of a case the measure of some facts."""
    return lambda run: Measure(names, run)


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of nested tuples and lists."""
    if isinstance(value, tuple | list):
        return next((found for item in value if (found := first_tensor(item)) is not None), None)
    return value if isinstance(value, Tensor) else None


def by(shape: torch.Size | tuple[int, ...]) -> str:
    """ "32 x 10"; "a single number" for none."""
    return " x ".join(map(str, shape)) or "a single number"


def count_distinct(values: Tensor) -> int:
    """How many different numbers there are."""
    ordered = values.flatten().sort().values
    return 0 if not len(ordered) else int((ordered[1:] != ordered[:-1]).sum()) + 1
