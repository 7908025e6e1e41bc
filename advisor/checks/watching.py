"""A user's own loop, watched while it runs: the first steps, and some of every hundred after that.

The first step is traced where it happens, so that it is judged as ``inspect`` judges a batch; later steps
are seen through hooks that cost a small share of a step. Nothing is said while nothing is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advisor.checks.findings import losses, rows, scale, settings, structure
from advisor.checks.findings.case import Case, NetworkFinding
from advisor.checks.findings.loop import LOOP_STEPS, StepLedger, loop_findings
from advisor.checks.findings.losses import chance_loss
from advisor.checks.inspection import told
from advisor.checks.tracing import DEAD_SHARE, Recorder, Trace, TraceStep
from advisor.console import say

FIRST = 3
"""Steps after which the loop is judged the first time: the second is the first that can hold an older
gradient."""
EVERY = 100
"""Steps from one look to the next: a look costs about as much as ten steps of a small network."""
UPDATES_LARGE, UPDATES_SMALL = 0.5, 1e-7
"""Length of a step over that of the weights: about 1e-3 is usual (Karpathy, CS231n); below float32's
rounding of 1.2e-7 most weights stay as they are."""
FLAT = 0.02
"""Share of a constant's loss that must be gone after a few looks."""
LOOKS = 3
RUNAWAY = 5.0
"""Times the loss at the start from which on it explodes."""
APART, RISES = 1.1, 3
"""Validation loss over its best, and how often in a row, while the training loss falls (note N26)."""
KEPT_LOSSES = 400
STATIC = (
    *losses.CHECKS,
    *scale.CHECKS,
    *(
        structure._linear_pairs,
        structure._saturating,
        structure._kernels,
        structure._filters,
        structure._narrow,
    ),
    structure._normalization,
    *(settings._optimizer, settings._frozen, settings._mode, settings._unreached),
    *(rows._finite, rows._registration, rows._mixing),
)
"""What can be judged of one step that is traced where it happens, without training copies."""


class Watch:
    """Watches the steps of one optimizer on one network; a context manager around the loop.

    findings: what was found so far, in the order in which it showed. tell: called with each once; by
    default it is printed on stderr. every: steps from one look to the next after the first three.
    planned: steps of the whole training, where they are known.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        every: int = EVERY,
        planned: int | None = None,
        tell: Callable[[NetworkFinding], None] | None = None,
    ) -> None:
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
        self._inputs: tuple[Any, ...] = ()
        self._first: Trace | None = None
        self._chance: float | None = None
        self._start = math.nan
        self._flat = 0
        self._before: list[tuple[str, Tensor]] = []
        self._ratios: list[float] = []
        self._backward: Any = None
        self._judging = False
        self._still: dict[str, int] = {}

    # --------------------------------------------------------------------------------------- around the loop

    def __enter__(self) -> Watch:
        self._handles.append(self.model.register_forward_pre_hook(self._forward_begins))
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
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._ledger is not None:
            self._add(*loop_findings(self._ledger, self.planned))
            self._ledger.close()
            self._ledger = None

    def validation(self, loss: float) -> None:
        """Tell the validation loss, once an epoch: where it rises while the training loss falls is found
        (N26)."""
        self._validation.append(float(loss))
        best = min(self._validation)
        recent = self._validation[-RISES:]
        falling = len(self._losses) < 2 * RISES or self._mean(-RISES) <= self._start
        if len(self._validation) > RISES and falling and min(recent) > APART * best:
            self._add(
                NetworkFinding(
                    "warning",
                    "validation-apart",
                    f"the validation loss has been above {min(recent):.3g} for {RISES} epochs, its best was "
                    f"{best:.3g}: "
                    "what is learnt now does not hold for other rows",
                    (),
                    "stop at the best epoch; more weight decay, dropout or augmentation",
                    ("N26", "N28"),
                    "regularization",
                )
            )

    def after_step(self, loss: Tensor | float) -> None:
        """Tell a step that no hook can see (a framework's own optimizer), with its loss."""
        self._losses.append(loss.detach() if isinstance(loss, Tensor) else float(loss))
        recorder = self._stop_recording()
        if recorder is not None and self._output is not None:
            self._judge_trace(recorder)
        self._step_ended()  # against the weights after the step before
        if self._looks() or self.steps == FIRST:
            self._before = [(n, p.detach().clone()) for n, p in _weights(self.model)]

    # ---------------------------------------------------------------------------------------------- one step

    def _looks(self) -> bool:
        """Whether the step that comes is looked at closely."""
        return self.steps < FIRST or self.steps % self.every < FIRST

    def _forward_begins(self, module: nn.Module, inputs: Any) -> None:
        if (
            self._judging
            or self._recorder is not None
            or not torch.is_grad_enabled()
            or self.steps % self.every
        ):
            return
        if not inputs or not isinstance(inputs[0], Tensor) or type(module).__name__ == "OptimizedModule":
            return
        self._inputs = tuple(i.detach() if isinstance(i, Tensor) else i for i in inputs)
        self._recorder = Recorder(module, inputs)
        self._hooks = self._recorder.hooks()
        self._hooks.__enter__()
        self._recorder.__enter__()  # type: ignore[no-untyped-call]
        self._output: Any = None
        self._last, self._count = -1, 0
        self._ends = module.register_forward_hook(self._forward_ended)

    def _forward_ended(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._recorder is not None:
            self._output, self._last = output, self._recorder.step_of(output)
            self._count = len(self._recorder.steps)
            self._recorder.watch_loss()
        self._ends.remove()

    def _stop_recording(self) -> Recorder | None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._hooks.__exit__(None, None, None)
            self._ends.remove()
        return recorder

    def _see_loss(self, loss: Tensor) -> None:
        if loss.numel() == 1:
            self._losses.append(loss.detach())
            if len(self._losses) > 2 * KEPT_LOSSES:
                del self._losses[:KEPT_LOSSES]

    def _step_begins(self) -> None:
        recorder = self._stop_recording()
        if recorder is not None and self._output is not None:
            self._judge_trace(recorder)
        if self._looks():
            self._before = [(n, p.detach().clone()) for n, p in _weights(self.model)]

    def _step_ended(self) -> None:
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
            self._add(*loop_findings(self._ledger, self.planned))
        if self._ledger is not None and self._ledger.steps >= LOOP_STEPS:
            self._ledger.close()
            self._ledger = None
        elif self._ledger is None and self.steps % self.every == 0:
            self._ledger = StepLedger(self.model, self.optimizer)

    # -------------------------------------------------------------------------------- what is judged

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
        self._chance = None if call is None or target is None else chance_loss(call.name, target)
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
            for check in STATIC:
                self._add(*check(case))
        finally:
            self._judging = False

    def _judge_units(self, passed: Trace) -> None:
        assert self._first is not None
        before = {s.module: s.dead or 0.0 for s in self._first.watched()}
        died: list[TraceStep] = [
            s for s in passed.watched() if (s.dead or 0.0) - before.get(s.module, 1.0) > DEAD_SHARE
        ]
        if died and not self._mean(-1) < self._start / 2:
            self._add(
                NetworkFinding(
                    "warning",
                    "units-die",
                    f"after {self.steps} steps {died[0].dead:.0%} of the units of {died[0].module} are zero "
                    "on every row, "
                    f"at the start it were {before[died[0].module]:.0%}",
                    tuple(s.module for s in died),
                    "a lower learning rate, leaky ReLU or GELU, normalization before the activation",
                    ("N5", "N29"),
                    "learning rate",
                )
            )

    def _judge_updates(self) -> None:
        now = dict(self.model.named_parameters())
        ratios = []
        for name, before in self._before:
            size = float(before.norm())
            if size > 0 and now[name].shape == before.shape:
                ratios.append(float((now[name].detach() - before).norm()) / size)
                self._still[name] = 0 if ratios[-1] else self._still.get(name, 0) + 1
        self._before = []
        still = [name for name, count in self._still.items() if count >= FIRST]
        if still and any(ratios):
            self._add(
                NetworkFinding(
                    "warning",
                    "weight-never-moves",
                    f"after {self.steps} steps {', '.join(still)} are exactly as they were, and others moved",
                    tuple(still),
                    "look for round, argmax, detach and NumPy after them, and at what the optimizer holds",
                    ("N7",),
                    "gradient",
                )
            )
        if not ratios:
            return
        self._ratios = [*self._ratios[-2:], max(ratios)]
        if len(self._ratios) < FIRST or not all(map(math.isfinite, self._ratios)):
            return
        if min(self._ratios) > UPDATES_LARGE:
            self._add(
                self._update_finding(
                    "updates-too-large", "as large as the weights themselves: they are thrown about"
                )
            )
        elif max(self._ratios) < UPDATES_SMALL:
            words = "exactly 0" if max(self._ratios) == 0 else "lost in rounding"
            self._add(self._update_finding("updates-too-small", f"{words}: the weights do not move"))

    def _update_finding(self, code: str, words: str) -> NetworkFinding:
        return NetworkFinding(
            "warning",
            code,
            f"a step changes the weights by {max(self._ratios):.2g} of their length, {words}",
            (),
            "about 1e-3 is usual: change the learning rate, and look at clipping and at what the optimizer "
            "holds",
            ("N29",),
            "learning rate" if max(self._ratios) else "gradient",
        )

    def _mean(self, last: int) -> float:
        part = [float(value) for value in self._losses[last:]]
        return sum(part) / len(part) if part else math.nan

    def _judge_loss(self) -> None:
        if not self._losses:
            return
        now = float(self._losses[-1])
        if math.isnan(self._start):
            self._start = float(self._losses[0])
        if not math.isfinite(now):
            self._add(
                NetworkFinding(
                    "error",
                    "loss-not-finite",
                    f"the loss is {now} after {self.steps} steps",
                    (),
                    "a lower rate; look for missing numbers in the inputs, and for logarithms and quotients "
                    "of 0",
                    ("N29", "N32"),
                    "learning rate",
                )
            )
            return
        recent = self._mean(-min(20, len(self._losses)))
        if self.steps >= FIRST and self._start > 0 and min(now, recent) > RUNAWAY * self._start:
            self._add(
                NetworkFinding(
                    "warning",
                    "loss-explodes",
                    f"the loss was {self._start:.3g} at the start and is {recent:.3g} after {self.steps} "
                    "steps",
                    (),
                    "a lower rate, scaled inputs and targets, clipped gradients",
                    ("N29",),
                    "learning rate",
                )
            )
        self._judge_flatness(recent)

    def _judge_flatness(self, recent: float) -> None:
        if self.steps < self.every or self._chance is None or self._start < (1 - FLAT) * self._chance:
            return
        self._flat = self._flat + 1 if recent > (1 - FLAT) * min(self._chance, self._start) else 0
        if self._flat >= LOOKS:
            self._add(
                NetworkFinding(
                    "warning",
                    "loss-flat",
                    f"after {self.steps} steps the loss is {recent:.3g}, and a constant has "
                    f"{self._chance:.3g}: nothing "
                    "was learnt",
                    (),
                    "inspect(model, batch, target, loss=..., optimizer=...) looks for the cause",
                    ("N3",),
                    "learning rate",
                )
            )

    def _add(self, *found: NetworkFinding) -> None:
        known = {finding.code for finding in self.findings}
        for finding in found:
            if finding.severity != "info" and finding.code not in known:
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
) -> Watch:
    """Watch your own loop: ``with advisor.watch(model, optimizer) as watched:`` around it.

    The first three steps and three of every ``every`` after that are looked at; a finding is told once, on
    stderr or to ``tell``, and kept in ``watched.findings``. planned: steps of the whole training, where
    they are known. ``watched.validation(loss)`` after each epoch finds validation and training going apart.
    """
    return Watch(model, optimizer, every=every, planned=planned, tell=tell)


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


# --------------------------------------------------------------------------------------------- callbacks


def lightning_callback(**options: Any) -> Any:
    """A callback for Lightning's Trainer that watches its first optimizer; ``watched`` holds the Watch.

    Lightning is imported here and nowhere else. options: as ``watch`` takes them.
    """
    try:
        from lightning.pytorch import Callback  # type: ignore[import-not-found]
    except ImportError:
        from pytorch_lightning import Callback  # type: ignore[import-not-found]

    class WatchedTraining(Callback):  # type: ignore[misc]
        """Hands the loop's events to a Watch."""

        watched: Watch | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.watched = watch(pl_module, trainer.optimizers[0], **options).__enter__()

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            value = trainer.callback_metrics.get("val_loss")
            if self.watched is not None and value is not None:
                self.watched.validation(float(value))

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if self.watched is not None:
                self.watched.__exit__()

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            self.on_train_end(trainer, pl_module)

    return WatchedTraining()


def keras_callback(**options: Any) -> Any:
    """A callback for ``fit`` of Keras on torch; ``watched`` holds the Watch. options: as ``watch`` takes
    them.

    Keras is imported here and nowhere else. Its optimizer is its own, so that gradients are not seen.
    """
    from keras.callbacks import Callback  # type: ignore[import-not-found]

    class WatchedTraining(Callback):  # type: ignore[misc]
        """Hands the loop's events to a Watch."""

        watched: Watch | None = None

        def on_train_begin(self, logs: Any = None) -> None:
            self.watched = watch(self.model, None, **options).__enter__()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.watched is not None:
                self.watched.after_step(float((logs or {}).get("loss", math.nan)))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if self.watched is not None and "val_loss" in (logs or {}):
                self.watched.validation(float(logs["val_loss"]))

        def on_train_end(self, logs: Any = None) -> None:
            if self.watched is not None:
                self.watched.__exit__()

    return WatchedTraining()
