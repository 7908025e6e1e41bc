"""A user's own network and its training, looked at on one batch: what is wrong, and what would be better,
as findings.

The module is watched from outside and is afterwards as it was: what is trained, for a few steps, is a copy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from advisor.checks.findings.case import Case, NetworkFinding, Step, by, first_tensor
from advisor.checks.findings.judging import ModuleFacts, findings_of, module_rules
from advisor.checks.findings.trials import Trials
from advisor.checks.receptive_fields import last_map, support
from advisor.checks.tracing import Trace, trace
from advisor.errors import UserError, did_you_mean, error_text
from advisor.importing import import_own, split_name

USUAL_RATE = 1e-3
"""Of the Adam that short trainings use where no optimizer is given."""


@dataclass(frozen=True)
class Inspection:
    """What was found, the gravest first.

    layers: per weighted layer its module, operation, output shape, the root mean square of its output and
    the norm of the loss's gradient by it.
    receptive_field: of the last map, input points per axis.
    """

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
        seen = "" if self.receptive_field is None else f", receptive field {by(self.receptive_field)}"
        lines = [f"{self.parameters:,} parameters, {len(self.layers)} layers with weights{seen}"]
        for finding in self.findings:
            lines += told(finding)
        if not self.findings:
            lines.append("the checks found no problem")
        return "\n".join(lines)


def told(finding: NetworkFinding) -> list[str]:
    """A finding in lines."""
    names = ", ".join(name or "the network" for name in finding.where[:4])
    where = f" [{names}{' ...' if finding.where[4:] else ''}]"
    notes = f" ({', '.join(finding.notes)})" if finding.notes else ""
    lines = [f"{finding.severity}: {finding.code}{where if finding.where else ''}", f"  {finding.message}"]
    if finding.effect is not None:
        lines.append(f"  measured: {finding.effect}")
    lines.append(f"  fix: {finding.fix}{notes}")
    if finding.change:
        lines.append(f"  code: {finding.change}")
    lines.append(f"  rule: {finding.rule} (advisor rules show {finding.rule})")
    return lines


@contextmanager
def shapes_told_once() -> Iterator[None]:
    """Without PyTorch's warning of shapes that differ in a loss, which names our lines: a finding says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using a target size")
        yield


@shapes_told_once()
def inspect(
    module: nn.Module,
    batch: Any,
    target: Any = None,
    *,
    loss: Callable[..., Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    epochs: int | None = None,
    rows: int | None = None,
    batch_size: int | None = None,
    forward: Callable[..., Any] | None = None,
    step: Step | None = None,
    field_needed: float | None = None,
    rules: Sequence[str | Path] = (),
    without: Sequence[str] = (),
) -> Inspection:
    """Look at ``module`` on one batch, and at the training that is planned for it.

    batch: as the module takes it in training (a tensor or array, rows first, or a tuple of several), not
    scaled for the occasion; or the DataLoader, whose first batch is taken.
    target: the batch's classes (integers) or numbers; without it the output's loss is a random projection,
    and nothing is trained for a few steps.
    loss: as in training, of output and target. optimizer: as in training, over this module's parameters.
    epochs, rows, batch_size: of the training; the batch size is by default that of the loader or the batch.
    forward: how the module is called, where ``module(*batch)`` is not how: ``forward(module, *batch)``.
    step: one step of your own loop, ``step(module, optimizer, loss, batch, target)``; a dozen are taken,
    and network and optimizer are put back (what else the step keeps, such as a schedule, goes on).
    field_needed: input points that the task is likely to need; by default half of the input.
    rules: folders or files of rules of your own about training code (docs/rules.md). without: ids of rules
    that are left out.
    UserError when the module does not take the batch, and for a rule that is wrong.
    """
    book = module_rules(rules, without)
    if not isinstance(module, nn.Module):
        raise UserError(f"inspect takes a torch.nn.Module, not {type(module).__name__}")
    if any(is_lazy(p) for p in module.parameters()):
        raise UserError(
            f"{type(module).__name__} has lazy layers without weights yet: pass one batch through it first"
        )
    loader = batch if isinstance(batch, DataLoader) else None
    if loader is not None:
        batch, target = _first_of(loader, target)
        rows = rows or _length(loader.dataset)
        batch_size = batch_size or loader.batch_size
    inputs = _inputs(batch, module)
    goal = _target(target, inputs[0])
    called = module if forward is None else CalledBy(module, forward)
    passed, training, problem = _traced(called, inputs, goal, loss)
    case = _case(called, inputs, goal, passed, field_needed)
    trials = None
    if goal is not None and not problem and any(p.requires_grad for p in module.parameters()):
        chosen = optimizer or torch.optim.Adam(called.parameters(), lr=USUAL_RATE)
        trials = Trials(called, inputs, goal, loss or _default_loss, chosen)
    case = replace(
        case,
        rows=rows,
        batch_size=batch_size or len(inputs[0]),
        training=training,
        loss=loss,
        optimizer=optimizer,
        epochs=epochs,
        step=step,
        loader=loader,
        loss_error=problem,
        trials=trials,
    )
    found = findings_of(book, ModuleFacts(case))
    if forward is not None:
        found = [replace(f, where=tuple(w.removeprefix("module.") for w in f.where)) for f in found]
    layers = tuple(
        {
            "module": s.module,
            "operation": s.function,
            "shape": s.shape,
            "root_mean_square": s.root_mean_square,
            "gradient": s.gradient,
        }
        for s in passed.weighted()
    )
    count = sum(p.numel() for p in module.parameters())
    return Inspection(tuple(found), count, tuple(inputs[0].shape), case.reach, layers)


class CalledBy(nn.Module):
    """A module that is called in its user's way."""

    def __init__(self, module: nn.Module, way: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.way = module, way

    def forward(self, *inputs: Any) -> Any:
        return self.way(self.module, *inputs)


def _case(
    module: nn.Module,
    inputs: tuple[Any, ...],
    target: Tensor | None,
    passed: Trace,
    field_needed: float | None,
) -> Case:
    axes = inputs[0].dim() - 2
    seen = last_map(passed, axes) if 1 <= axes <= 3 and inputs[0].is_floating_point() else None
    reached = None
    if seen is not None and not seen[1].whole:
        arithmetic = tuple(min(s, n) for s, n in zip(seen[1].size, inputs[0].shape[2:], strict=True))
        reached = support(module, seen[0].number, *inputs) or arithmetic
    return Case(
        module,
        inputs,
        target,
        None,
        len(inputs[0]),
        field_needed,
        True,
        passed,
        axes,
        seen,
        reached,
        dict(module.named_parameters()),
    )


def load_module(name: str) -> nn.Module:
    """The module that ``package.module:factory`` makes; the working directory is looked in too.

    UserError when it cannot be imported, raises, or makes no ``torch.nn.Module``.
    """
    made = load_own(name, "--module", "a function that returns a Module")
    if callable(made) and not isinstance(made, nn.Module):
        attribute = name.rpartition(":")[2]
        try:
            made = made()
        except Exception as error:  # a user's own code may raise anything
            raise UserError(f"--module {name}: {attribute}() raised {error_text(error)}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"--module {name} made a {type(made).__name__}: expected a torch.nn.Module")
    return made


def load_own(name: str, option: str, what: str) -> Any:
    """What ``package.module:name`` names. UserError, which begins with the option, when there is no such
    thing."""
    parts = split_name(name)
    if parts is None:
        raise UserError(f"{option} {name}: write package.module:factory, the factory {what}")
    package, attribute = parts
    home = import_own(package, str(Path.cwd()), f"{option} {name}")
    if not hasattr(home, attribute):
        raise UserError(
            f"{option} {name}: {package} has no '{attribute}'{did_you_mean(attribute, dir(home))}"
        )
    return getattr(home, attribute)


def random_input(shape: str, rows: int) -> Tensor:
    """Numbers with mean 0 and deviation 1, (rows, *shape); shape as a user writes it: "1,28,28".

    UserError for what is no shape.
    """
    try:
        sizes = [int(part) for part in shape.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or math.prod(sizes) * rows > 10**9:
        raise UserError(f"--input-shape {shape}: write the shape of one row, as 1,28,28 or 30")
    return torch.randn(rows, *sizes, generator=torch.Generator().manual_seed(0))


def _first_of(loader: DataLoader[Any], target: Any) -> tuple[Any, Any]:
    drawn = next(iter(loader))
    if target is None and isinstance(drawn, tuple | list) and len(drawn) > 1:
        *given, target = drawn
        return (tuple(given) if len(given) > 1 else given[0]), target
    return drawn, target


def _length(dataset: Any) -> int | None:
    return len(dataset) if hasattr(dataset, "__len__") else None


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


def _target(target: Any, x: Tensor) -> Tensor | None:
    if target is None:
        return None
    goal = torch.as_tensor(target).to(x.device)
    goal = goal.to(x.dtype) if goal.is_floating_point() and x.is_floating_point() else goal
    if goal.dim() < 1 or len(goal) != len(x):
        raise UserError(
            f"the target has {len(goal) if goal.dim() else 1} rows and the input {len(x)}: give one for each"
        )
    return goal


def _traced(
    module: nn.Module, inputs: tuple[Any, ...], target: Tensor | None, loss: Callable[..., Tensor] | None
) -> tuple[Trace, bool, str]:
    """A pass as in training, with the loss's complaint; in evaluation mode where training mode cannot take
    so few."""
    problems = []
    for training in (True, False):
        complaint: list[str] = []

        def measured(out: Any, complaint: list[str] = complaint) -> Tensor:
            if loss is None or target is None:
                return _default_loss(out, target)
            try:
                return loss(out, target)
            except Exception as error:  # noqa: BLE001  # a user's own code may raise anything
                complaint.append(error_text(error))
                return _projected(out)

        try:
            return trace(module, *inputs, loss=measured, training=training), training, "".join(complaint)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  # a user's own code may raise anything
            problems.append(error_text(error))
    shapes = ", ".join(by(v.shape) for v in inputs if isinstance(v, Tensor))
    raise UserError(f"{type(module).__name__} does not take an input of {shapes} (rows first): {problems[0]}")


def _projected(output: Any) -> Tensor:
    """A random projection of the output, for gradients where there is no loss."""
    out = first_tensor(output)
    if out is None or not out.is_floating_point():
        raise UserError(
            "the module's output is no tensor of numbers: return one, or a tuple that begins with one"
        )
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
    return (out * weights).sum() / max(1, len(out) if out.dim() else 1)


def _default_loss(output: Any, target: Tensor | None) -> Tensor:
    """Where no loss is given: cross-entropy for classes (of one logit for two), squared error for numbers."""
    projected, out = _projected(output), first_tensor(output)
    if target is None or out is None:
        return projected
    if target.is_floating_point():
        if out.numel() != target.numel():
            raise UserError(
                f"the output has shape {by(out.shape)} and the target {by(target.shape)}: they must agree"
            )
        return F.mse_loss(out.reshape(target.shape), target.to(out))
    top = int(target.max())
    if out.numel() == target.numel() and top <= 1 and int(target.min()) >= 0:
        return F.binary_cross_entropy_with_logits(out.reshape(target.shape), target.to(out))
    if out.dim() < 2 or top >= out.shape[1] or int(target.min()) < 0:
        raise UserError(f"the output has shape {by(out.shape)}: {top + 1} classes need as many columns")
    return F.cross_entropy(out, target.long())
