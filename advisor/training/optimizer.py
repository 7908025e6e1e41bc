"""A step of training: the pass through the network, the learning rate, and an optimizer with what torch's
optimizers lack. On a GPU both may be recorded."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advisor.networks.network import Network
from advisor.training.cuda_graphs import RecordedPass, RecordedStep
from advisor.training.data_parallel import ALONE, Ranks

RECORDED = frozenset({"adam", "adamw"})
"""Optimizers whose step can be recorded on a GPU; the others read the learning
rate, or count steps, on the host."""
RMS_SMOOTHING = 0.99
ONE_CYCLE_RISE = 0.3
"""Share of the steps in which one_cycle rises to its peak, from peak / 25; it
ends at peak / 10,000 (Smith 2018)."""


def learning_rate(configuration: Mapping[str, Any], step: float, total: int) -> float:
    """The rate at ``step`` of ``total``: linear warm-up, then constant or cosine to 0; or one_cycle."""
    peak, schedule = float(configuration["learning_rate"]), configuration["schedule"]
    done = step / max(1, total)
    if schedule == "one_cycle":
        if done < ONE_CYCLE_RISE:
            return _cosine(peak / 25, peak, done / ONE_CYCLE_RISE)
        return _cosine(peak, peak / 1e4, (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    warmup = float(configuration["warmup"])
    if done < warmup:
        return peak * (step + 1) / (warmup * total + 1)
    return peak if schedule == "constant" else _cosine(peak, 0.0, (done - warmup) / (1 - warmup))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def pass_and_optimizer(
    network: Network,
    configuration: Mapping[str, Any],
    noise: torch.Generator,
    ranks: Ranks = ALONE,
    *,
    recorded: bool = True,
) -> tuple[Callable[..., Tensor], Optimizer]:
    """A training's pass through the network, called with its inputs, and its optimizer.

    noise: on the network's device; the pass draws from it.
    recorded: on a GPU both may be recorded (``cuda_graphs.py``), since a step has a single pass.
    """
    forward = _forward_of(network, configuration, noise, ranks)
    if not recorded or noise.device.type != "cuda" or ranks.world > 1:
        return forward, Optimizer(configuration, network)
    replayed = RecordedPass(forward, network, noise, compiled=bool(configuration.get("compiled")))
    return replayed, Optimizer(configuration, network, recorded=replayed)


def _forward_of(
    network: Network, configuration: Mapping[str, Any], noise: torch.Generator, ranks: Ranks
) -> Callable[..., Tensor]:
    """The pass as the configuration wants it on a GPU; on a CPU the network as it is."""
    if noise.device.type != "cuda":
        alone = ranks.parallel(network)
        return lambda *inputs: alone(*inputs, noise)
    network.accelerate(configuration)
    parallel: Callable[..., Tensor] = ranks.parallel(network)
    half = configuration.get("precision") == "mixed"

    def forward(*inputs: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            out = parallel(*inputs, noise)
        return out.float()

    return forward


class Optimizer:
    """A torch optimizer with what it lacks: a decoupled L2 for all but Adam, a
    proximal L1, clipping member by member."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        network: Network,
        parameters: Sequence[nn.Parameter] | None = None,
        recorded: RecordedPass | None = None,
    ) -> None:
        """recorded: the pass that the gradients come from, where it is one."""
        c, name = configuration, configuration["optimizer"]
        self.parameters = list(network.parameters()) if parameters is None else list(parameters)
        chosen = {id(p) for p in self.parameters}
        self.decayed = [weight for weight in network.decayed() if id(weight) in chosen]
        self._rate = {id(weight): share for share, group in network.rates(c) for weight in group}
        self._decayed_by_rate: dict[float, list[nn.Parameter]] = {}
        for weight in self.decayed:
            self._decayed_by_rate.setdefault(self._rate.get(id(weight), 1.0), []).append(weight)
        self.clip, self.l1 = float(c["gradient_clip"]), float(c["l1"])
        self.decay = 0.0 if name == "adam" else float(c["weight_decay"])
        betas, momentum = (0.9, float(c["beta2"])), float(c["momentum"])
        groups = self._groups(float(c["weight_decay"]) if name == "adam" else 0.0)
        # the rate is set before every step; foreach and fused variants differ in speed alone
        make = {
            "adamw": lambda: torch.optim.AdamW(groups, betas=betas, weight_decay=0.0, fused=True),
            "adam": lambda: torch.optim.Adam(groups, betas=betas, fused=True),
            "nadam": lambda: torch.optim.NAdam(groups, betas=betas),
            "rmsprop": lambda: torch.optim.RMSprop(groups, alpha=RMS_SMOOTHING, momentum=momentum),
            "adagrad": lambda: torch.optim.Adagrad(groups),
            "adadelta": lambda: torch.optim.Adadelta(groups),
            "sgd": lambda: torch.optim.SGD(
                groups, lr=1.0, momentum=momentum, nesterov=momentum > 0, fused=True
            ),
        }
        with _without_dynamo():
            self.optimizer: torch.optim.Optimizer = make[name]()  # type: ignore[no-untyped-call]
        self._step = inspect.unwrap(type(self.optimizer).step)
        self._recorded = RecordedStep(recorded) if recorded and name in RECORDED else None

    def _groups(self, l2: float) -> list[dict[str, Any]]:
        """Adam's classic L2, added to the gradient, on the penalized weights only; weights with a learning
        rate of their own apart."""
        penalized = {id(p) for p in self.decayed} if l2 else set()
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for parameter in self.parameters:
            kind = (id(parameter) not in penalized, self._rate.get(id(parameter), 1.0))
            groups.setdefault(kind, []).append(parameter)
        return [
            {"params": own, "rate": rate} | ({} if plain else {"weight_decay": l2})
            for (plain, rate), own in sorted(groups.items(), key=lambda item: item[0])
        ]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, rate: float) -> None:
        """Apply the gradients that were added up since ``zero_grad``."""
        if self._recorded is None:
            self._apply(rate)
        else:
            self._recorded(self._apply, rate)

    def _apply(self, rate: float | Tensor) -> None:
        """The step itself;
        rate: a tensor where it is recorded."""
        if self.clip:
            self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
            group["capturable"] = isinstance(rate, Tensor)
        with torch.no_grad():
            self._step(self.optimizer)
            if self.decay:
                for share, weights in self._decayed_by_rate.items():
                    # or a number
                    torch._foreach_mul_([*weights], 1 - rate * share * self.decay)  # type: ignore[arg-type]
            if self.l1:
                for share, weights in self._decayed_by_rate.items():
                    for weight in weights:
                        reached = weight.abs() - rate * share * self.l1
                        weight.copy_(weight.sign() * reached.clamp_(min=0.0))

    def _clip(self) -> None:
        """Scale each member's gradient to a norm of at most ``clip``: one norm over
        the stack would couple the members."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norms = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0).sqrt()
        factor = (self.clip / (norms + 1e-12)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Optimizers are made without loading torch._dynamo, which takes a process 1.3 s and 80 MB.

    Every method of ``torch.optim.Optimizer`` loads it when it is first called, to hide itself from
    torch.compile; we compile no optimizer. Of ``step`` we call what it wraps, in place of ``zero_grad``
    stands a line of ours, and for ``add_param_group`` we put beside the function, while we make an optimizer,
    what torch would keep there (torch/_compile.py). A torch that does all this otherwise loads it as ever.
    """
    plain = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if plain is None or hasattr(plain, "__dynamo_disable"):
        yield
        return
    setattr(plain, "__dynamo_disable", plain)
    try:
        yield
    finally:
        delattr(plain, "__dynamo_disable")
