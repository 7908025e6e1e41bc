"""What each finding's change is in code: functions that turn a draft of a training into a better one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.checks.findings.case import NetworkFinding, Step, count_distinct, first_tensor
from advisor.checks.findings.losses import MOST_CLASSES_OF_NUMBERS, target_kind
from advisor.checks.findings.structure import BENDING
from advisor.checks.findings.trials import same_optimizer

ENDS = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.ReLU, nn.ReLU6, nn.Softplus)
"""Modules that may stand at the end and keep the output within bounds."""
USUAL_BATCH_SIZE, MORE_STEPS = 32, 8
USUAL_DECAY, USUAL_DROPOUT = 1e-4, 0.2
DEEP = 8
"""Weighted layers from which on the law of the draw decides whether anything arrives."""


@dataclass(frozen=True)
class Draft:
    """A training as it could be. changes: what differs from the user's, a line of code each.

    optimizer: over the module's parameters. step: the user's own; None is the usual five lines.
    """

    module: nn.Module
    loss: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    epochs: int
    batch_size: int
    target: Tensor
    step: Step | None = None
    changes: tuple[str, ...] = ()

    def with_module(self, module: nn.Module, line: str) -> Draft:
        """Another network; the optimizer is made again, of the same kind, over all that learns."""
        return replace(
            self, module=module, optimizer=remade(self.optimizer, module), changes=(*self.changes, line)
        )

    def copied(self) -> Draft:
        module = copy.deepcopy(self.module)
        return replace(self, module=module, optimizer=same_optimizer(self.optimizer, self.module, module))

    def more(self, line: str, **changed: Any) -> Draft:
        return replace(self, changes=(*self.changes, line), **changed)


def remade(optimizer: torch.optim.Optimizer, module: nn.Module, **changed: float) -> torch.optim.Optimizer:
    """An optimizer of the same kind and settings over all parameters that learn."""
    group = optimizer.param_groups[0]
    names = ("lr", "momentum", "weight_decay", "betas", "nesterov", "alpha")
    settings = {k: group[k] for k in names if k in group} | changed
    settings["lr"] = settings["lr"] if "lr" in changed else group.get("initial_lr", settings["lr"])
    kind: Any = type(optimizer)
    made: torch.optim.Optimizer = kind([p for p in module.parameters() if p.requires_grad], **settings)
    return made


class Standardized(nn.Module):
    """A network behind inputs of mean 0 and deviation 1; numbers that are missing become the mean."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        super().__init__()
        axes = [a for a in range(x.dim()) if a != 1]
        known = torch.where(torch.isfinite(x), x, torch.nan)
        mean = known.nanmean(axes, keepdim=True)
        deviation = (known - mean).square().nanmean(axes, keepdim=True).sqrt()
        self.module = module
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def forward(self, x: Tensor, *others: Any) -> Any:
        return self.module(torch.nan_to_num((x - self.mean) / self.deviation), *others)


class Unscaled(nn.Module):
    """A network that learns a target of mean 0 and deviation 1, and returns it in the target's own unit."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, module: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", y.mean(dim=0))
        self.register_buffer("deviation", y.std(dim=0).clamp(min=1e-12))

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs) * self.deviation + self.mean


def _place(module: nn.Module, name: str, part: nn.Module) -> nn.Module:
    """The network with one part in another's place."""
    if not name:
        return part
    parent = module.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], part)
    return module


def _last_of(module: nn.Module, kinds: Any) -> str | None:
    found = [name for name, part in module.named_modules() if isinstance(part, kinds)]
    return found[-1] if found else None


def _fitting_end(draft: Draft, x: tuple[Any, ...]) -> Draft:
    """No bounds at the end, and the loss that the target asks for."""
    draft = _proper_target(draft, x)
    module, target = draft.module, draft.target
    kind, out = target_kind(target), _output(draft, x)
    if out is None:
        return draft
    name = _last_of(module, ENDS)
    parts = [n for n, part in module.named_modules() if n and not any(part.children())]
    if name is not None and parts and name == parts[-1]:
        draft = draft.with_module(_place(module, name, nn.Identity()), f"remove the last activation ({name})")
        return _loss_of_logits(draft, kind, out)
    end = out.detach()
    if bool((end >= 0).all()) and bool(
        (end <= 1).all()
    ):  # bounded inside of forward: a loss of probabilities
        if kind == "classes":
            return draft.more(
                "loss = nn.NLLLoss() of the logarithm of the output", loss=_nll_of_probabilities
            )
        if kind in ("labels", "one-hot", "shares"):
            return draft.more("loss = nn.BCELoss()", loss=_bce_of_probabilities)
    return _loss_of_logits(draft, kind, out)


def _loss_of_logits(draft: Draft, kind: str, out: Tensor) -> Draft:
    columns = out.shape[1] if out.dim() > 1 else 1
    if kind == "classes" and columns > 1:
        return draft.more("loss = nn.CrossEntropyLoss()", loss=F.cross_entropy)
    if kind == "labels" or (kind == "classes" and columns == 1):
        return draft.more("loss = nn.BCEWithLogitsLoss()", loss=_bce_with_logits)
    if kind in ("one-hot", "shares") and columns > 1:
        return draft.more("loss = nn.CrossEntropyLoss()", loss=F.cross_entropy)
    return draft.more("loss = nn.MSELoss()", loss=_squares)


def _squares(out: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(out, y.reshape(out.shape))


def _bce_with_logits(out: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(out, y.to(out).reshape(out.shape))


def _bce_of_probabilities(out: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(out, y.reshape(out.shape))


def _nll_of_probabilities(out: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(out.clamp(min=1e-9).log(), y)


def _output(draft: Draft, x: tuple[Any, ...]) -> Tensor | None:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        mode = draft.module.training
        out = first_tensor(draft.module.eval()(*x))
        draft.module.train(mode)
    return out


def _proper_target(draft: Draft, x: tuple[Any, ...]) -> Draft:
    """Classes that stand as numbers beyond 0 and 1: numbered from 0, and a column for each."""
    target = draft.target
    whole = target.is_floating_point() and bool((target == target.round()).all())
    count = count_distinct(target)
    if not whole or count > MOST_CLASSES_OF_NUMBERS or bool(((target == 0) | (target == 1)).all()):
        return draft
    if count == 2:
        return draft.more(
            "target = (target == target.max()).float()", target=(target == target.max()).float()
        )
    if target.numel() != len(target) or "binary_cross_entropy" not in _name_of(draft, x):
        return draft
    classes = torch.searchsorted(torch.unique(target), target.flatten())
    name = _last_of(draft.module, nn.Linear)
    if name is None:
        return draft
    old = draft.module.get_submodule(name)
    module = _place(draft.module, name, nn.Linear(int(old.in_features), count))  # type: ignore[arg-type]
    return replace(
        draft.with_module(module, f"nn.Linear({old.in_features}, {count}): a column for each class"),
        target=classes,
    )


def _name_of(draft: Draft, x: tuple[Any, ...]) -> str:
    from advisor.checks.tracing import trace

    rows = tuple(i[:8] if isinstance(i, Tensor) else i for i in x)
    try:
        call = trace(
            draft.module, *rows, loss=lambda out: draft.loss(out, draft.target[: len(rows[0])])
        ).loss_call
    except (RuntimeError, ValueError, TypeError):
        return ""
    return "" if call is None else call.name


def _drawn(draft: Draft, x: tuple[Any, ...]) -> Draft:
    """Weights drawn anew: PyTorch's law, He's where the network is deep."""
    module = draft.module
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in layers:
            layer.reset_parameters()
            if len(layers) >= DEEP:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    law = (
        "nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')"
        if len(layers) >= DEEP
        else "layer.reset_parameters()"
    )
    return draft.more(f"{law}; nn.init.zeros_(layer.bias)")


def _straight(draft: Draft, x: tuple[Any, ...]) -> Draft:
    parts = [n for n, m in draft.module.named_modules() if n and not any(m.children())]
    names = [n for n, m in draft.module.named_modules() if type(m) in BENDING and n != parts[-1]]
    for name in names:
        _place(draft.module, name, nn.ReLU())
    draft = draft.more(f"nn.ReLU() in place of {', '.join(names[:3])}") if names else draft
    return _drawn(draft, x) if names else draft


def _bent(draft: Draft, x: tuple[Any, ...], finding: NetworkFinding) -> Draft:
    for name in dict.fromkeys(finding.where):
        _place(draft.module, name, nn.Sequential(nn.ReLU(), draft.module.get_submodule(name)))
    return draft.more(f"nn.ReLU() before {', '.join(finding.where[:3])}")


def _registered(draft: Draft, x: tuple[Any, ...]) -> Draft:
    found = []
    for part in draft.module.modules():
        for name, value in list(vars(part).items()):
            if name.startswith("_"):
                continue
            if isinstance(value, list) and value and all(isinstance(v, nn.Module) for v in value):
                delattr(part, name)
                setattr(part, name, nn.ModuleList(value))
                found.append(f"self.{name} = nn.ModuleList(self.{name})")
            elif isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
                delattr(part, name)
                setattr(part, name, nn.Parameter(value))
                found.append(f"self.{name} = nn.Parameter(self.{name})")
    return draft.with_module(draft.module, "; ".join(found)) if found else draft


def _shaped(draft: Draft, x: tuple[Any, ...]) -> Draft:
    out = _output(draft, x)
    base = draft.loss
    if out is not None and out.numel() == draft.target.numel():
        return draft.more(
            "target = target.reshape(output.shape)", loss=lambda o, y: base(o, y.reshape(o.shape))
        )
    name = _last_of(draft.module, nn.Linear)
    if out is None or name is None or out.dim() < 3:
        return _fitting_end(draft, x)
    columns = draft.target.shape[1] if draft.target.dim() > 1 else 1
    with torch.random.fork_rng(devices=[]):
        module = _place(draft.module, name, nn.Sequential(nn.Flatten(), nn.LazyLinear(columns)))
        module(*(i[:4] if isinstance(i, Tensor) else i for i in x))
    draft = draft.with_module(module, f"nn.Flatten() before {name}")
    return _loss_of_logits(draft, target_kind(draft.target), draft.target)


def _recurrent(draft: Draft, x: tuple[Any, ...]) -> Draft:
    found = [m for m in draft.module.modules() if isinstance(m, nn.RNNBase) and not m.batch_first]
    for part in found:
        part.batch_first = True
    return draft.more("batch_first=True") if found else draft


def _dropped_less(draft: Draft, x: tuple[Any, ...]) -> Draft:
    for part in draft.module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = min(part.p, USUAL_DROPOUT)
    return draft.more(f"nn.Dropout({USUAL_DROPOUT})")


def _undropped_end(draft: Draft, x: tuple[Any, ...]) -> Draft:
    name = _last_of(draft.module, nn.modules.dropout._DropoutNd)
    if name is None:
        return draft
    return draft.with_module(_place(draft.module, name, nn.Identity()), f"remove the dropout ({name})")


def _usual_loop(draft: Draft, x: tuple[Any, ...]) -> Draft:
    draft.module.train()
    line = "model.train(); optimizer.zero_grad(); loss.backward(); optimizer.step(), schedules once an epoch"
    return draft.more(line, step=None, optimizer=remade(draft.optimizer, draft.module))


def _free(draft: Draft, x: tuple[Any, ...]) -> Draft:
    draft.module.requires_grad_(True)
    return draft.with_module(draft.module, f"model.requires_grad_(True); {_optimizer_line(draft.optimizer)}")


def _optimizer_line(optimizer: torch.optim.Optimizer) -> str:
    return (
        f"torch.optim.{type(optimizer).__name__}(model.parameters(), lr={optimizer.param_groups[0]['lr']:g})"
    )


def _standardized(draft: Draft, x: tuple[Any, ...]) -> Draft:
    return draft.with_module(
        Standardized(draft.module, x[0]), "x = (x - train_x.mean(0)) / train_x.std(0), missing as 0"
    )


def _unscaled(draft: Draft, x: tuple[Any, ...]) -> Draft:
    base, module = draft.loss, Unscaled(draft.module, draft.target)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return base((out - module.mean) / module.deviation, (y - module.mean) / module.deviation)

    return replace(draft.with_module(module, "y = (y - train_y.mean(0)) / train_y.std(0)"), loss=loss)


def _longer(draft: Draft, x: tuple[Any, ...]) -> Draft:
    size = min(draft.batch_size, USUAL_BATCH_SIZE)
    line = f"epochs={MORE_STEPS * draft.epochs}, batch_size={size}"
    return draft.more(line, epochs=MORE_STEPS * draft.epochs, batch_size=size)


def _larger_batches(draft: Draft, x: tuple[Any, ...]) -> Draft:
    epochs = max(draft.epochs, 30)
    return draft.more(
        f"batch_size={USUAL_BATCH_SIZE}, epochs={epochs}", batch_size=USUAL_BATCH_SIZE, epochs=epochs
    )


def _decayed_less(draft: Draft, x: tuple[Any, ...]) -> Draft:
    return draft.more(
        f"weight_decay={USUAL_DECAY:g}",
        optimizer=remade(draft.optimizer, draft.module, weight_decay=USUAL_DECAY),
    )


def adam(draft: Draft, rate: float) -> Draft:
    """The same training by Adam."""
    made = torch.optim.Adam([p for p in draft.module.parameters() if p.requires_grad], lr=rate)
    kept = tuple(line for line in draft.changes if not line.startswith("lr="))
    return replace(draft, changes=kept).more(_optimizer_line(made), optimizer=made)


def _slower(draft: Draft, x: tuple[Any, ...]) -> Draft:
    rate = float(draft.optimizer.param_groups[0]["lr"])
    return draft.more(f"lr={rate / 10:.3g}", optimizer=remade(draft.optimizer, draft.module, lr=rate / 10))


Patch = Callable[[Draft, tuple[Any, ...]], Draft]
PATCHES: dict[str, Patch] = {
    **dict.fromkeys(("layers-not-registered", "weight-is-no-parameter"), _registered),
    **dict.fromkeys(("frozen-layers", "optimizer-holds-nothing", "optimizer-misses-parameters"), _free),
    **dict.fromkeys(("unscaled-inputs", "input-not-finite"), _standardized),
    "shapes-differ": _shaped,
    **dict.fromkeys(
        (
            *("softmax-over-one-unit", "softmax-along-rows", "cross-entropy-of-one-column", "bounded-logits"),
            *(
                "softmax-before-cross-entropy",
                "logits-not-negative",
                "nll-of-no-logarithm",
                "divergence-of-no-logarithm",
                "no-probabilities",
            ),
            *(
                "softmax-for-labels",
                "distance-for-classes",
                "target-out-of-reach",
                "target-outside-loss",
                "loss-fails",
            ),
        ),
        _fitting_end,
    ),
    **dict.fromkeys(("saturating-activations", "softmax-inside", "gradient-vanishes"), _straight),
    **dict.fromkeys(
        ("symmetric-weights", "initialization", "dead-units", "saturated-units", "gradient-explodes"), _drawn
    ),
    "rows-mixed": _recurrent,
    "unscaled-target": _unscaled,
    "dropout-on-the-output": _undropped_end,
    "dropout-too-strong": _dropped_less,
    "weight-decay-too-strong": _decayed_less,
    "batch-norm-small-batch": _larger_batches,
    "too-few-steps": _longer,
    "units-die": _slower,
    **dict.fromkeys(
        (
            *("evaluation-mode", "gradients-kept", "gradients-cleared", "step-without-backward", "no-step"),
            *("clipped-away", "schedule-too-fast", "warm-up-restarts", "rows-in-order"),
        ),
        _usual_loop,
    ),
}
"""Each finding's patch, in the order in which they are made: what learns at all, sizes, the loop."""


def patched(draft: Draft, x: tuple[Any, ...], findings: tuple[NetworkFinding, ...]) -> Draft:
    """A copy of a draft, changed by every patch that its errors and warnings have, each once."""
    loud = {f.code: f for f in findings if f.severity != "note"}
    draft, done = draft.copied(), set[Patch]()
    for code, patch in PATCHES.items():
        if code in loud and patch not in done:
            done.add(patch)
            draft = patch(draft, x)
    if "no-activation-between" in loud:
        draft = _bent(draft, x, loud["no-activation-between"])
    for code in ("learning-rate-too-high", "learning-rate-too-low"):
        line = loud[code].change if code in loud else ""
        if line.startswith("lr=") and "," not in line:
            draft = draft.more(
                line, optimizer=remade(draft.optimizer, draft.module, lr=float(line.removeprefix("lr=")))
            )
    return draft
