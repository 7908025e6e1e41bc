"""Whether upsampling draws the pattern of its stride (note N9): measured, since kernel sizes tell half of it.

A flat input has no edges, so that a map which repeats every few points in its middle shows what the layers
draw by themselves. Uneven overlap does that (a kernel that is no multiple of the stride), and so do phases
that were drawn apart (Odena et al. 2016); connections past the decoder hide most of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.checks.findings.case import Case, Measure, first_tensor, measuring
from advisor.checks.tracing import TraceStep

LEARNT = ("conv_transpose", "pixel_shuffle")
UPSAMPLING = (*LEARNT, "interpolate", "upsample")
"""Functions that make a map larger, by the beginnings of their names; the first ones have weights of their
own for each phase."""
PERIODS = (2, 3, 4, 8)
REPEATS = 3
"""Of a period, that the middle of the map must hold."""
LEVELS = (0.0, 1.0, -1.0)
"""Of the flat inputs, in deviations from the mean: at a single one all units may happen to be off."""
MIDDLE = 0.5
"""Share of each axis that is looked at: near the edges padding is seen."""


@measuring("pattern.share", "pattern.period", "pattern.names", "pattern.uneven", "pattern.uneven_names")
def _pattern(case: Case) -> Mapping[str, Any]:
    steps = [s for s in case.passed.steps if _upsamples(s, UPSAMPLING)]
    found = _maps(case) if steps else None
    if found is None:
        return {}
    *flats, noise = (_middle(own) for own in found)
    spread = float((noise - noise.mean(dim=(1, 2), keepdim=True)).square().mean().sqrt())
    strengths = {period: max(_strength(flat, period) for flat in flats) for period in PERIODS}
    period = max(strengths, key=lambda own: (strengths[own], -own))
    if strengths[period] < 0 or not spread > 0 or not math.isfinite(spread):
        return {}
    modules = dict(case.module.named_modules())
    uneven = [s.module for s in steps if _is_uneven(modules.get(s.module))]
    return {
        "pattern.share": strengths[period] / spread,
        "pattern.period": period,
        "pattern.names": [s.module for s in steps if _upsamples(s, LEARNT)] or [s.module for s in steps],
        "pattern.uneven": len(uneven),
        "pattern.uneven_names": uneven,
    }


def _upsamples(step: TraceStep, names: tuple[str, ...]) -> bool:
    return step.function.strip("_").startswith(names)


def _is_uneven(module: nn.Module | None) -> bool:
    """Whether a transposed convolution's kernel is no multiple of its stride along some axis."""
    if not isinstance(module, nn.ConvTranspose2d):
        return False
    return any(kernel % stride for kernel, stride in zip(module.kernel_size, module.stride, strict=True))


def _maps(case: Case) -> list[Tensor] | None:
    """The output (channels, height, width) for a flat input at each of ``LEVELS`` and for noise, in one pass;
    None where it is no map."""
    batch, shape = case.inputs[0], (case.output.shape if case.output is not None else ())
    if len(case.inputs) != 1 or len(shape) != 4 or batch.dim() != 4 or not batch.is_floating_point():
        return None
    axes = (0, 2, 3)
    mean = batch.mean(dim=axes, keepdim=True)
    deviation = batch.std(dim=axes, keepdim=True).clamp(min=1e-6)
    drawn = torch.randn(batch[:1].shape, generator=torch.Generator().manual_seed(0)).to(batch)
    flat = [(mean + level * deviation).expand_as(drawn) for level in LEVELS]
    training = case.module.training
    try:
        with torch.no_grad():
            out = first_tensor(case.module.eval()(torch.cat([*flat, mean + deviation * drawn])))
    finally:
        case.module.train(training)
    return None if out is None or not torch.isfinite(out).all() else list(out.float())


def _middle(own: Tensor) -> Tensor:
    height, width = own.shape[1:]
    edges = [int((1 - MIDDLE) / 2 * size) for size in (height, width)]
    return own[:, edges[0] : height - edges[0], edges[1] : width - edges[1]]


def _strength(own: Tensor, period: int) -> float:
    """Root mean square of what repeats with this period; -1 where the map is too small to say.

    What changes slowly, such as what padding does far into the map, is taken away first: the mean of a period
    around each point.
    """
    channels, height, width = own.shape
    high, wide = (height // period - 1) * period, (width // period - 1) * period
    if min(high, wide) < REPEATS * period:
        return -1.0
    slow, start = F.avg_pool2d(own.unsqueeze(0), period, stride=1)[0], period // 2
    rest = own[:, start : start + slow.shape[1], start : start + slow.shape[2]] - slow
    blocks = rest[:, :high, :wide].reshape(channels, high // period, period, wide // period, period)
    phases = blocks.mean(dim=(1, 3))
    return float((phases - phases.mean(dim=(1, 2), keepdim=True)).square().mean().sqrt())


MEASURES: tuple[Measure, ...] = (_pattern,)
