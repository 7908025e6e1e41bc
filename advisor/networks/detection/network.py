"""Networks that find boxes, built from a plan; several of one shape stacked, as the others are.

In training such a network gives what its head says of every place, which the losses read; else the boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.networks.convolutional import (
    BLOCKS,
    POOLING,
    BlockParts,
    MapActivation,
    PlannedShape,
    StackedConvolution,
)
from advisor.networks.detection.heat_map import HeatMapHead
from advisor.networks.detection.plan import (
    DetectionPlan,
    detection_memory,
    detection_plan_of,
    images_per_pass,
)
from advisor.networks.detection.queries import QueryHead
from advisor.networks.network import Network
from advisor.networks.tables import StackedLinear


class Head(Protocol):
    """What finds boxes on a map (rows, members x width, height, width)."""

    def __call__(self, h: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """What it says, (members, rows, ...), as its losses read it."""

    def found(self, out: Tensor) -> Tensor:
        """The boxes in what it says, (members, rows, MOST_FOUND, 6), as ``boxes/lists.py`` has them."""

    def output_parameters(self) -> list[nn.Parameter]:
        """Those of the output layers."""


HEADS: Mapping[str, Callable[[BlockParts, DetectionPlan, int, Tensor | None], Any]] = {
    "heat_map": HeatMapHead,
    "queries": QueryHead,
}
"""By the values of the parameter ``network``: parts, plan, classes and prior -> a head."""


class DetectionNetwork(Network):
    """Backbone, neck and head of a plan; ``members`` independent networks in one.

    outputs: classes. prior: (members, outputs), logarithms of the odds that a place is the middle of a box of
    each class, with which the scores begin: most places are none (Lin et al. 2017, focal loss).
    """

    def __init__(
        self,
        plan: DetectionPlan,
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.members, self.outputs, self.channels_last = plan, members, outputs, False
        own = plan.encoder
        parts = BlockParts(own, members, generator)
        stem = parts.convolution(own.inputs, own.stem, own.stem_kernel, stride=own.stem_stride)
        self.stem = nn.Sequential(stem, parts.norm(own.stem), MapActivation(own.activation))
        self.blocks = nn.ModuleList(BLOCKS[block.kind](parts, block) for block in own.blocks)
        added = plan.stages[len(plan.stages) - 1 - plan.levels :][::-1]  # the coarsest first
        self.sideways = nn.ModuleList(
            parts.convolution(channels, plan.width, 1, bias=True) for channels in added
        )
        self.neck = nn.Sequential(
            parts.convolution(plan.width, plan.width, 3),
            parts.norm(plan.width),
            MapActivation(own.activation),
        )
        self.head = HEADS[plan.head](parts, plan, outputs, prior)

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(members, rows, channels, height, width) -> in training what the head says, (members, rows, ...),
        else the boxes that it found, (members, rows, MOST_FOUND, 6).

        noise: what dropout draws from in training mode, a generator on the inputs' device.
        """
        h = x.transpose(0, 1).flatten(1, 2)
        if self.channels_last:
            h = h.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.head(self._drop(self._map(h), noise), noise)
        if self.training:
            return out
        found: Tensor = self.head.found(out)
        return found

    def _map(self, h: Tensor) -> Tensor:
        """The map that the head reads: each coarser one, enlarged, is added to the next."""
        height, width = h.shape[2:]
        bottom, right = -height % self.plan.multiple, -width % self.plan.multiple
        if bottom or right:
            h = F.pad(h, (0, right, 0, bottom), mode="replicate")
        stages = self._stages(self.stem(h))[::-1]
        total = self.sideways[0](stages[0])
        for step, stage in zip(list(self.sideways)[1:], stages[1:], strict=False):
            total = F.interpolate(total, scale_factor=2, mode="nearest") + step(stage)
        out: Tensor = self.neck(total)
        return out

    def _stages(self, h: Tensor) -> list[Tensor]:
        """The last map of every resolution, the finest first."""
        stages: list[Tensor] = []
        for block, plan in zip(self.blocks, self.plan.encoder.blocks, strict=True):
            if plan.stride > 1:
                stages.append(h)
            h = block(h)
            if plan.pool:
                stages.append(h)
                h = POOLING[plan.pool][2](h, 2)
        return [*stages, h]

    def _drop(self, h: Tensor, noise: torch.Generator | None) -> Tensor:
        """Whole channels, as networks for masks do."""
        dropout = self.plan.encoder.dropout
        if not self.training or not dropout:
            return h
        kept = torch.empty_like(h[:, :, :1, :1]).bernoulli_(1 - dropout, generator=noise)
        return h * kept.div_(1 - dropout)

    @property
    def rows_per_pass(self) -> int:
        """Images of each member that one pass without gradients takes at a time."""
        return images_per_pass(self.plan, self.members)

    def accelerate(self, configuration: Mapping[str, Any]) -> None:
        """As ``memory_format`` asks."""
        self.channels_last = configuration.get("memory_format") == "channels_last"

    def head_parameters(self) -> list[nn.Parameter]:
        """The output layers."""
        found: list[nn.Parameter] = self.head.output_parameters()
        return found

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on: kernels and matrices, no biases or normalization."""
        return [m.weight for m in self.modules() if isinstance(m, StackedConvolution | StackedLinear)]


class DetectionShape(PlannedShape):
    """Of an image with a list of boxes."""

    plan, built = staticmethod(detection_plan_of), DetectionNetwork
    memory = staticmethod(detection_memory)
