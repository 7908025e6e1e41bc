"""What a unit of a network's last map sees of the input: by arithmetic over a traced
pass, and by the gradient's support."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.checks.tracing import Recorder, Trace, TraceStep, left_as_it_was

AVERAGES: dict[str, Any] = {
    "max_pool1d": F.avg_pool1d,
    "max_pool2d": F.avg_pool2d,
    "max_pool3d": F.avg_pool3d,
}


@dataclass(frozen=True)
class Seen:
    """After a step: how many points of the input one unit sees per axis, and the
    input points between two neighbours.

    whole: it may see all of the input (attention, recurrence, global pooling, a matrix over a flattened map).
    """

    size: tuple[int, ...]
    step: tuple[float, ...]
    whole: bool


def fields_of(trace: Trace, axes: int) -> dict[int, Seen]:
    """Each step's receptive field, by its number; steps after what the arithmetic does not know are left out.

    axes: of the input beside rows and channels. r grows by (kernel - 1) x dilation x step, the step by the
        stride (Araujo et al. 2019); where paths meet, the largest counts (notes N20 and N25).
    """
    found = {-1: Seen((1,) * axes, (1.0,) * axes, False)}
    for step in trace.steps:
        before = [found[source] for source in step.sources if source in found]
        if len(before) < len(step.sources):
            continue
        seen = Seen(
            tuple(max(sizes) for sizes in zip(*(b.size for b in before), strict=True)),
            tuple(max(steps) for steps in zip(*(b.step for b in before), strict=True)),
            any(b.whole for b in before),
        )
        after = _after(step, seen, axes)
        if after is not None:
            found[step.number] = after
    return found


def _after(step: TraceStep, seen: Seen, axes: int) -> Seen | None:
    if step.kind in ("convolution", "pooling"):
        if len(step.kernel) != axes or "transpose" in step.function:
            return None
        windows = zip(seen.size, step.kernel, step.dilation, seen.step, strict=True)
        size = tuple(int(r + (k - 1) * d * j) for r, k, d, j in windows)
        return Seen(size, tuple(j * s for j, s in zip(seen.step, step.stride, strict=True)), seen.whole)
    whole = seen.whole or step.kind == "whole" or (step.kind == "linear" and len(step.shape) <= 2)
    return Seen(seen.size, seen.step, whole)


def last_map(trace: Trace, axes: int) -> tuple[TraceStep, Seen] | None:
    """The last step that still has a place for each unit, with its field; None when there is no map."""
    fields = fields_of(trace, axes)
    upstream = trace.ancestors(trace.last)
    maps = [
        (step, fields[step.number])
        for step in trace.steps
        if step.number in upstream
        and step.number in fields
        and len(step.shape) == axes + 2
        and not fields[step.number].whole
    ]
    return maps[-1] if maps and any(step.kind == "convolution" for step, _ in maps) else None


def support(module: nn.Module, number: int, *inputs: Tensor) -> tuple[int, ...] | None:
    """Input points per axis that the gradient of a step's middle unit reaches: what it really can see.

    Measured on a copy without what would hide or spread it: non-linearities pass all, normalization does
    nothing, maximum pooling takes means, weights that are all zero are drawn.
    number: the step's, from a trace of the same inputs. None when the copy takes another way,
        or the input cannot have a gradient.
    """
    try:
        straight = copy.deepcopy(module).float()
    except (RuntimeError, TypeError):
        return None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in straight.parameters():
            if not parameter.any():
                parameter.copy_(torch.rand(parameter.shape, generator=generator))
    x = inputs[0][:1].detach().float().requires_grad_()
    with left_as_it_was(straight, training=False), torch.enable_grad():
        recorder = _Straight(straight, (x, *inputs[1:]))
        with recorder.hooks(), recorder:
            straight(
                x, *(i[:1] if isinstance(i, Tensor) and len(i) == len(inputs[0]) else i for i in inputs[1:])
            )
        if number >= len(recorder.made) or recorder.made[number].dim() != x.dim():
            return None
        out = recorder.made[number]
        middle = out
        for axis in range(2, out.dim()):
            middle = middle.narrow(axis, out.shape[axis] // 2, 1)
        if not middle.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(middle.abs().sum(), x, allow_unused=True)
    if gradient is None:
        return None
    reached = gradient.abs().amax(dim=(0, 1)) > 0
    extents = []
    for axis in range(reached.dim()):
        others = [a for a in range(reached.dim()) if a != axis]
        along = torch.nonzero(reached.any(dim=others) if others else reached).flatten()
        extents.append(int(along[-1] - along[0] + 1) if len(along) else 0)
    return tuple(extents)


class _Straight(Recorder):
    """A pass whose gradient goes wherever a weight or a window leads."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")
        if name in self.POINTWISE:
            return kwargs.get("input", args[0] if args else None)
        if name in AVERAGES:
            window = [
                kwargs.get(key, args[i + 1] if len(args) > i + 1 else default)
                for i, (key, default) in enumerate((("kernel_size", 1), ("stride", None), ("padding", 0)))
            ]
            return AVERAGES[name](kwargs.get("input", args[0] if args else None), *window)
        return super().call(func, args, kwargs)
