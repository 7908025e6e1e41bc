"""A user's own loop, watched while it runs: the first steps, and some of every hundred after that.

The first step is traced where it happens, so that it is judged as ``inspect`` judges a batch; later steps
are seen through hooks that cost a small share of a step. Nothing is said while nothing is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advisor.checks.findings.case import Case, NetworkFinding
from advisor.checks.findings.judging import ModuleFacts, findings_of, module_rules, rules_about
from advisor.checks.findings.loop import LOOP_STEPS, RateClimbs, StepLedger, callable_parts, ledger_facts
from advisor.checks.findings.losses import chance_loss
from advisor.checks.findings.rows import INSPECTED_ONLY
from advisor.checks.findings.settings import ADAPTIVE
from advisor.checks.inspection import told
from advisor.checks.tracing import Recorder, Trace
from advisor.console import say

FIRST = 3
"""Steps after which the loop is judged the first time: the second is the first that can hold an older
gradient."""
EVERY = 100
"""Steps from one look to the next: a look costs about as much as ten steps of a small network."""
LOOKS = 3
"""That a loss must be seen high, and an update or a validation loss be judged by."""
RECENT = 20
"""Losses whose mean is the recent loss."""
KEPT_LOSSES = 400
FAMILIES = ("losses", "updates", "died", "validation", "loop")
"""Of facts that only a loop shows; what else a rule looks at is known after the first step."""


class Watch:
    """Watches the steps of one optimizer on one network; a context manager around the loop.

    findings: what was found so far, in the order in which it showed. tell: called with each once; by
    default it is printed on stderr. every: steps from one look to the next after the first three.
    planned: steps of the whole training, where they are known. rules: folders or files of rules of your own.
    without: ids of rules that are left out.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        every: int = EVERY,
        planned: int | None = None,
        tell: Callable[[NetworkFinding], None] | None = None,
        rules: Sequence[str | Path] = (),
        without: Sequence[str] = (),
    ) -> None:
        book = module_rules(rules, without)
        self._rules = {family: rules_about(book, family) for family in FAMILIES}
        lively = {rule.id for family in self._rules.values() for rule in family}
        self._static = tuple(rule for rule in book if rule.id not in lively)
        self.model, self.optimizer, self.every, self.planned = (
            model,
            optimizer,
            max(every, 2 * FIRST),
            planned,
        )
        self.findings: list[NetworkFinding] = []
        self.steps = 0
        self._tell = tell or _print
        self._handles: list[Any] = []
        self._losses: list[Tensor | float] = []
        self._validation: list[float] = []
        self._ledger: StepLedger | None = None
        self._recorder: Recorder | None = None
        self._recorded: Recorder | None = None
        self._inputs: tuple[Any, ...] = ()
        self._first: Trace | None = None
        self._chance: float | None = None
        self._start = math.nan
        self._least: list[float] = []
        self._before: list[tuple[str, Tensor]] = []
        self._ratios: list[float] = []
        self._backward: Any = None
        self._judging = False
        self._ends: Any = None
        self._parts: list[Any] = []
        self._backward_seen = False
        self._still: dict[str, int] = {}
        self._climbs = RateClimbs()

    # --------------------------------------------------------------------------------------- around the loop

    def __enter__(self) -> Watch:
        self._handles.append(self.model.register_forward_pre_hook(self._forward_begins))
        self._parts = [p.register_forward_pre_hook(self._forward_begins) for p in callable_parts(self.model)]
        if self.optimizer is not None:
            self._ledger = StepLedger(self.model, self.optimizer)
            self._handles.append(self.optimizer.register_step_pre_hook(lambda *_: self._step_begins()))
            self._handles.append(self.optimizer.register_step_post_hook(lambda *_: self._step_ended()))
        backward = torch.Tensor.backward
        self._backward = backward

        def watched_backward(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._see_loss(tensor)
            return backward(tensor, *args, **kwargs)  # type: ignore[no-untyped-call]

        torch.Tensor.backward = watched_backward  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: Any) -> None:
        torch.Tensor.backward = self._backward  # type: ignore[method-assign]
        self._stop_recording()
        self._recorded = None
        self._forget_parts()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._ledger is not None:
            self._judge_ledger()
            self._ledger.close()
            self._ledger = None

    def validation(self, loss: float) -> None:
        """Tell the validation loss, once an epoch: where it rises while the training loss falls is found
        (N26)."""
        self._validation.append(float(loss))
        recent = self._validation[-LOOKS:]
        falling = len(self._losses) < 2 * LOOKS or self._mean(-LOOKS) <= self._start
        self._judge(
            "validation",
            {
                "validation.epochs": len(self._validation),
                "validation.best": min(self._validation),
                "validation.least_recent": min(recent) if len(recent) == LOOKS else None,
                "losses.falling": falling,
            },
        )

    def after_step(self, loss: Tensor | float) -> None:
        """Tell a step that no hook can see (a framework's own optimizer), with its loss, which is not needed
        where a backward pass was seen since the step before."""
        if not self._backward_seen:
            self._losses.append(loss.detach() if isinstance(loss, Tensor) else float(loss))
        self._stop_recording()
        self._step_ended()  # against the weights after the step before
        if self._looks() or self.steps == FIRST:
            self._before = [(n, p.detach().clone()) for n, p in _weights(self.model)]

    # ---------------------------------------------------------------------------------------------- one step

    def _looks(self) -> bool:
        """Whether the step that comes is looked at closely."""
        return self.steps < FIRST or self.steps % self.every < FIRST

    def _forward_begins(self, module: nn.Module, inputs: Any) -> None:
        if module is self.model:
            self._forget_parts()
        if (
            self._judging
            or self._recorder is not None
            or self._recorded is not None
            or not torch.is_grad_enabled()
            or self.steps % self.every
        ):
            return
        if not inputs or not isinstance(inputs[0], Tensor) or type(module).__name__ == "OptimizedModule":
            return
        self._inputs = tuple(i.detach() if isinstance(i, Tensor) else i for i in inputs)
        self._recorder = Recorder(self.model, inputs)
        self._hooks = self._recorder.hooks()
        self._hooks.__enter__()
        self._recorder.__enter__()  # type: ignore[no-untyped-call]
        self._output: Any = None
        self._last, self._count = -1, 0
        if module is self.model:
            self._ends = module.register_forward_hook(self._forward_ended)
        else:  # a loop that calls the parts itself: what the loss is given is the output
            self._recorder.before_loss = self._output_made

    def _forget_parts(self) -> None:
        """A module that is called itself needs no hooks on its parts, which cost each of them some time."""
        for handle in self._parts:
            handle.remove()
        self._parts.clear()

    def _forward_ended(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._output_made(output)
        self._ends.remove()

    def _output_made(self, output: Any) -> None:
        """From here on the loss is computed, not the network."""
        if self._recorder is not None:
            self._output, self._last = output, self._recorder.step_of(output)
            self._count = len(self._recorder.steps)
            self._recorder.watch_loss()

    def _stop_recording(self) -> None:
        """What was recorded waits for its gradients."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._hooks.__exit__(None, None, None)
            if self._ends is not None:
                self._ends.remove()
            self._recorded = recorder

    def _see_loss(self, loss: Tensor) -> None:
        if self._recorder is not None and self._output is None and loss.numel() == 1:
            self._output_made(
                loss
            )  # a loss that is none of PyTorch's, of parts that are called by themselves
        self._stop_recording()
        self._backward_seen = True
        if loss.numel() == 1:
            self._losses.append(loss.detach())
            if len(self._losses) > 2 * KEPT_LOSSES:
                del self._losses[:KEPT_LOSSES]

    def _step_begins(self) -> None:
        self._judge_recorded()
        self._see_rate()
        if self._looks():
            self._before = [(n, p.detach().clone()) for n, p in _weights(self.model)]

    def _see_rate(self) -> None:
        """A warm-up may be longer than the steps that are looked at closely."""
        assert self.optimizer is not None  # it is its hook that calls
        before = self._climbs.restarts
        self._climbs.see(max(float(group["lr"]) for group in self.optimizer.param_groups))
        if self._climbs.restarts > before:
            facts = {
                "loop.rate_restarts": self._climbs.restarts,
                "loop.rate_first": self._climbs.start,
                "loop.rate_top": self._climbs.top,
            }
            self._judge("loop", facts)

    def _judge_recorded(self) -> None:
        recorder, self._recorded = self._recorded, None
        if recorder is not None and self._output is not None:
            self._judge_trace(recorder)

    def _step_ended(self) -> None:
        self._judge_recorded()  # a closure of the optimizer's step computes loss and gradients within it
        self._backward_seen = False
        self.steps += 1
        if self._before:
            self._judge_updates()
        if self.steps <= FIRST or self.steps % self.every == 0:
            self._judge_loss()
        self._turn_ledger()

    def _turn_ledger(self) -> None:
        """Hooks on gradients for the first dozen steps, and for three of every hundred."""
        if self.optimizer is None:
            return
        if self._ledger is not None and self._ledger.steps in (FIRST, LOOP_STEPS):
            self._judge_ledger()
        if self._ledger is not None and self._ledger.steps >= LOOP_STEPS:
            self._ledger.close()
            self._ledger = None
        elif self._ledger is None and self.steps % self.every == 0:
            self._ledger = StepLedger(self.model, self.optimizer)

    # -------------------------------------------------------------------------------- what is judged

    def _judge(self, family: str, facts: Mapping[str, Any]) -> None:
        """The rules about one family of facts, on what is known of it now."""
        known = {
            **facts,
            "losses.looks": self.steps,
            "training.steps": self.planned,
            "training.steps_known": self.planned is not None,
        }
        if self.optimizer is not None:
            known["optimizer.adaptive"] = type(self.optimizer).__name__.startswith(ADAPTIVE)
        self._add(*findings_of(self._rules[family], ModuleFacts(None, known)))

    def _judge_ledger(self) -> None:
        assert self._ledger is not None
        self._judge("loop", ledger_facts(self._ledger))

    def _judge_trace(self, recorder: Recorder) -> None:
        gradients = {
            n: None if p.grad is None else float(p.grad.norm())
            for n, p in self.model.named_parameters()
            if p.requires_grad
        }
        value = float(self._losses[-1]) if self._losses else None
        passed = recorder.traced(self._output, self._last, self._count, value, gradients)
        self._output = None
        if self._first is not None:
            self._judge_units(passed)
            return
        self._first, self._judging = passed, True
        call = passed.loss_call
        target = None if call is None else call.target
        self._start = math.nan if value is None else value
        self._chance = None if call is None or target is None else chance_loss(call, target)
        case = Case(
            self.model,
            self._inputs,
            target,
            None,
            len(self._inputs[0]),
            None,
            self.model.training,
            passed,
            self._inputs[0].dim() - 2,
            None,
            None,
            dict(self.model.named_parameters()),
            loss=_seen,
            optimizer=self.optimizer,
        )
        try:
            self._add(*findings_of(self._static, ModuleFacts(case, without=INSPECTED_ONLY)))
        finally:
            self._judging = False

    def _judge_units(self, passed: Trace) -> None:
        """Units that lived at the first step and are off on every row now."""
        assert self._first is not None
        before = {s.module: s.dead or 0.0 for s in self._first.watched()}
        increase = {s.module: (s.dead or 0.0) - before.get(s.module, 1.0) for s in passed.watched()}
        if not increase:
            return
        worst = max(increase, key=lambda name: increase[name])
        facts = {
            "died.increase": increase[worst],
            "died.share": increase[worst] + before.get(worst, 1.0),
            "died.before": before.get(worst),
            "died.layer": [worst],
            "died.after": self.steps,
        }
        self._judge("died", {**facts, **self._losses_now()})

    def _judge_updates(self) -> None:
        now = dict(self.model.named_parameters())
        ratios = []
        for name, before in self._before:
            size = float(before.norm())
            if size > 0 and now[name].shape == before.shape:
                ratios.append(float((now[name].detach() - before).norm()) / size)
                self._still[name] = 0 if ratios[-1] else self._still.get(name, 0) + 1
        self._before = []
        if not ratios:
            return
        still = [name for name, count in self._still.items() if count >= LOOKS]
        facts: dict[str, Any] = {
            "updates.still": len(still),
            "updates.still_names": still,
            "updates.others_move": any(ratios),
        }
        self._ratios = [*self._ratios[1 - LOOKS :], max(ratios)]
        if len(self._ratios) == LOOKS and all(map(math.isfinite, self._ratios)):
            facts |= {"updates.least": min(self._ratios), "updates.most": max(self._ratios)}
        self._judge("updates", facts)

    def _mean(self, last: int) -> float:
        part = [float(value) for value in self._losses[last:]]
        return sum(part) / len(part) if part else math.nan

    def _losses_now(self) -> dict[str, Any]:
        """The loss of the last step and of the first, as facts."""
        now = float(self._losses[-1]) if self._losses else math.nan
        recent = self._mean(-min(RECENT, len(self._losses))) if self._losses else math.nan
        return {
            "losses.now": now,
            "losses.finite": math.isfinite(now) if self._losses else None,
            "losses.start": self._start,
            "losses.recent": recent,
            "losses.constant": self._chance,
        }

    def _judge_loss(self) -> None:
        if not self._losses:
            return
        if math.isnan(self._start):
            self._start = float(self._losses[0])
        facts = self._losses_now()
        if self.steps >= self.every:
            self._least = [*self._least[1 - LOOKS :], facts["losses.recent"]]
            facts["losses.least_recent"] = min(self._least) if len(self._least) == LOOKS else None
        self._judge("losses", facts)

    def _add(self, *found: NetworkFinding) -> None:
        known = {finding.code for finding in self.findings}
        for finding in found:
            if finding.severity != "note" and finding.code not in known:
                known.add(finding.code)
                self.findings.append(finding)
                self._tell(finding)


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    every: int = EVERY,
    planned: int | None = None,
    tell: Callable[[NetworkFinding], None] | None = None,
    rules: Sequence[str | Path] = (),
    without: Sequence[str] = (),
) -> Watch:
    """Watch your own loop: ``with advisor.watch(model, optimizer) as watched:`` around it.

    The first three steps and three of every ``every`` after that are looked at; a finding is told once, on
    stderr or to ``tell``, and kept in ``watched.findings``. planned: steps of the whole training, where
    they are known. rules: folders or files of rules of your own about training code (docs/rules.md);
    without: ids of rules that are left out.
    ``watched.validation(loss)`` after each epoch finds validation and training going apart.
    """
    return Watch(model, optimizer, every=every, planned=planned, tell=tell, rules=rules, without=without)


def _print(finding: NetworkFinding) -> None:
    for line in told(finding):
        say(line)


def _seen(output: Any, target: Any) -> Tensor:
    """Stands for the loss of a loop, which is called there and not here."""
    raise NotImplementedError


def _weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Up to four weights, none very large."""
    found = [(n, p) for n, p in model.named_parameters() if p.requires_grad and p.dim() > 1]
    return sorted(found, key=lambda pair: pair[1].numel())[:4]
