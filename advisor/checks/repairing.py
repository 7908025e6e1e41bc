"""A patch for a user's own training, from its findings, tried by at most five short trainings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advisor.checks.findings.case import NetworkFinding, Step, first_tensor
from advisor.checks.findings.judging import module_rules
from advisor.checks.findings.losses import target_kind
from advisor.checks.findings.patches import Draft, adam, patched
from advisor.checks.inspection import inspect, shapes_told_once
from advisor.errors import UserError

MOST_TRAININGS = 5
SHORT_STEPS = 300
"""Of one short training."""
LEAST_STEPS = 400
"""That the longest proposal takes: what small networks need at usual rates (docs/evidence.md)."""
HELD_OUT = 4
"""One row in this many judges."""
SHOWN = 256
"""Rows that an inspection is given."""
RATES = (3e-3, 2e-2)
"""Of Adam in the last two trainings: small networks need one or the other (docs/evidence.md)."""
CLEARLY = 0.02
"""By how much a score must be higher for the longer list of changes."""


@dataclass(frozen=True)
class TriedRepair:
    """One short training. score: on held-out rows, 1 is perfect and 0 no better than a constant."""

    changes: tuple[str, ...]
    score: float
    steps: int


@dataclass(frozen=True)
class RepairProposal:
    """The training that did best, and all that was tried, the user's own first.

    draft: the changed network, untrained, with its loss, optimizer, epochs and batch size.
    findings: of the training as it was.
    """

    draft: Draft
    tried: tuple[TriedRepair, ...]
    findings: tuple[NetworkFinding, ...]

    @property
    def improved(self) -> bool:
        """Whether a change did better than the training as it was."""
        return bool(self.draft.changes)

    @property
    def passed(self) -> bool:
        """Whether nothing needs to be changed."""
        return not self.improved

    def to_dict(self) -> Mapping[str, Any]:
        """The trainings and the changes as plain data."""
        return {
            "changes": list(self.draft.changes),
            "epochs": self.draft.epochs,
            "batch_size": self.draft.batch_size,
            "tried": [{"changes": list(t.changes), "score": t.score, "steps": t.steps} for t in self.tried],
            "findings": [f.code for f in self.findings],
        }

    def __str__(self) -> str:
        lines = ["score on held-out rows (1 is perfect, 0 no better than a constant):"]
        for tried in self.tried:
            lines.append(
                f"  {tried.score:5.2f} after {tried.steps} steps: {'; '.join(tried.changes) or 'as it is'}"
            )
        lines.append(
            "change:" if self.improved else "none of the changes tried is better than your current training"
        )
        return "\n".join([*lines, *(f"  {change}" for change in self.draft.changes)])


@shapes_told_once()
def repair(
    module: nn.Module,
    batch: Any,
    target: Any,
    *,
    loss: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    step: Step | None = None,
    rules: Sequence[str | Path] = (),
    without: Sequence[str] = (),
) -> RepairProposal:
    """Propose a patch for a training: its findings' changes, tried by at most five short trainings.

    batch, target: training rows (all of them, or some hundreds); one in four judges. The rest as ``inspect``
        takes it. The module and the optimizer stay as they are. UserError for a target that is missing, and
        for a rule that is wrong.
    """
    x = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    x = tuple(torch.as_tensor(part) for part in x)
    y = torch.as_tensor(target)
    if len(y) < 4 or len(y) != len(x[0]):
        raise UserError(
            f"repair needs a target for each of at least 4 rows; there are {len(y)} for {len(x[0])}"
        )
    draft = Draft(module, loss, optimizer, epochs, batch_size, y, step)
    module_rules(rules, without)  # a rule that is wrong is told, not taken for a draft that does not run
    book = {"rules": rules, "without": without}
    first = _findings(draft, x, book)
    tried = [(draft, _score(draft, x))]
    current, found = draft, first
    while len(tried) < MOST_TRAININGS - len(RATES):
        proposed = patched(current, x, found)
        if proposed.changes == current.changes:
            break
        tried.append((proposed, _score(proposed, x)))
        current, found = proposed, _findings(proposed, x, book)
    start = max(tried[1:] or tried, key=lambda pair: pair[1][0])[0]
    for rate in RATES:
        longer = _longer_by_adam(start, len(y), rate)
        tried.append((longer, _score(longer, x)))
    best = _best(tried, patched_at_all=len(tried) > 1 + len(RATES))
    kept = tuple(TriedRepair(d.changes, round(s, 4), steps) for d, (s, steps) in tried)
    return RepairProposal(best[0], kept, first)


def _best(
    tried: list[tuple[Draft, tuple[float, int]]], *, patched_at_all: bool
) -> tuple[Draft, tuple[float, int]]:
    """The shortest list of changes that nothing clearly beats.

    Where findings asked for changes, the training as it was must clearly beat them to stay: what is wrong in
    a loop need not show in a short training on a copy.
    """
    best, *others = tried[1:] if patched_at_all else tried
    for pair in others:
        if pair[1][0] > best[1][0] + CLEARLY:
            best = pair
    return tried[0] if patched_at_all and tried[0][1][0] > best[1][0] + CLEARLY else best


def _longer_by_adam(draft: Draft, rows: int, rate: float) -> Draft:
    """The same by Adam and long enough."""
    draft = adam(draft.copied(), rate)
    per_epoch = max(1, math.ceil(rows / draft.batch_size))
    epochs = max(draft.epochs, math.ceil(LEAST_STEPS / per_epoch))
    return draft if epochs == draft.epochs else draft.more(f"epochs={epochs}", epochs=epochs)


def _findings(
    draft: Draft, x: tuple[Any, ...], book: Mapping[str, Sequence[Any]]
) -> tuple[NetworkFinding, ...]:
    size = max(1, min(len(draft.target), SHOWN if draft.batch_size > 2 else draft.batch_size))
    order = torch.randperm(len(draft.target), generator=torch.Generator().manual_seed(1))[:size]
    try:
        found = inspect(
            draft.module,
            tuple(part[order] for part in x),
            draft.target[order],
            loss=draft.loss,
            optimizer=draft.optimizer,
            epochs=draft.epochs,
            rows=len(draft.target),
            batch_size=draft.batch_size,
            step=draft.step,
            rules=book["rules"],
            without=book["without"],
        )
    except UserError:
        return ()
    return found.findings


def _score(draft: Draft, x: tuple[Any, ...]) -> tuple[float, int]:
    """Train a copy on three rows of four, and judge it on the others; steps taken."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny = len(draft.target) < 4 * HELD_OUT  # a truth table judges itself
        order = torch.randperm(len(draft.target))
        held = order if tiny else order[: len(order) // HELD_OUT]
        rows = order if tiny else order[len(order) // HELD_OUT :]
        copied = draft.copied()
        steps = _train(copied, x, rows)
        return _judged(copied, x, held), steps


def _train(draft: Draft, x: tuple[Any, ...], rows: Tensor) -> int:
    done, step = 0, draft.step or _usual_step
    draft.module.train(draft.module.training if draft.step is not None else True)
    for _ in range(draft.epochs):
        for part in torch.split(rows[torch.randperm(len(rows))], draft.batch_size):
            if done >= SHORT_STEPS or (len(part) < draft.batch_size and len(rows) > draft.batch_size):
                continue
            given: Any = tuple(i[part] for i in x)
            try:
                step(
                    draft.module,
                    draft.optimizer,
                    draft.loss,
                    given if len(given) > 1 else given[0],
                    draft.target[part],
                )
            except (RuntimeError, ValueError, IndexError, TypeError):
                return done
            done += 1
    return done


def _usual_step(
    module: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[..., Tensor], batch: Any, target: Any
) -> Tensor:
    optimizer.zero_grad()
    value = loss(module(*batch) if isinstance(batch, tuple) else module(batch), target)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value


@torch.no_grad()
def _judged(draft: Draft, x: tuple[Any, ...], rows: Tensor) -> float:
    """How much better than a constant: of classes by accuracy, of labels by ranks, of numbers by squares."""
    try:
        out = first_tensor(copy.deepcopy(draft.module).eval()(*(i[rows] for i in x)))
    except (RuntimeError, ValueError, IndexError):
        return 0.0
    y = draft.target[rows]
    if out is None or not out.dim() or len(out) != len(y) or not torch.isfinite(out).all():
        return 0.0
    if target_kind(draft.target) == "classes" and out.dim() == 2 and out.shape[1] > 1:
        right = float((out.argmax(dim=1) == y).float().mean())
        chance = float(draft.target.bincount().max()) / len(draft.target)
        return max(0.0, (right - chance) / max(1e-9, 1 - chance))
    if out.numel() != y.numel():
        return 0.0
    out, y = out.reshape(len(y), -1).double(), y.reshape(len(y), -1).double()
    if target_kind(draft.target) == "labels":
        return max(0.0, sum(_ranked(o, t) for o, t in zip(out.T, y.T, strict=True)) / y.shape[1])
    spread = float((y - y.mean(dim=0)).square().sum())
    return max(0.0, 1 - float((out - y).square().sum()) / max(spread, 1e-12))


def _ranked(out: Tensor, truth: Tensor) -> float:
    """Somers' D: the share of pairs in the right order, less that in the wrong one."""
    one, zero = out[truth > 0.5], out[truth <= 0.5]
    if not len(one) or not len(zero):
        return 0.0
    return float((one[:, None] - zero[None]).sign().mean())
