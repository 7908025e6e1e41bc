"""Networks that give a class to every point, built from a plan; several of one shape stacked, as the others
are.

Upsampling without a pattern (note N9): a transposed convolution whose kernel is a multiple of its stride,
begun as
bilinear interpolation; a sub-pixel convolution whose four phases begin alike (Aitken et al. 2017, ICNR); or
interpolation, whose convolution comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
    members_apart,
)
from advisor.networks.decoder_plan import (
    TILE,
    TRANSPOSED_KERNEL,
    DecoderLevel,
    DecoderPlan,
    decoder_memory,
    decoder_plan_of,
    scenes_per_pass,
)
from advisor.networks.network import Network
from advisor.networks.tables import initialize

BILINEAR = (0.25, 0.75, 0.75, 0.25)
"""The kernel of a doubling: each new point lies a quarter of a step from one old point and three from the
next."""
TILE_OVERLAP = 0.25
"""Share of a tile that the next one covers again: what is near the edge of a tile has not seen its
surroundings."""


class Resized(nn.Module):
    """Fewer channels by a 1 x 1 convolution, then twice the size by interpolation (note N8)."""

    def __init__(self, parts: BlockParts, level: DecoderLevel) -> None:
        super().__init__()
        self.narrow = parts.convolution(level.below, level.outputs, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.narrow(x), scale_factor=2, mode="bilinear", align_corners=False)


class StackedTransposed(nn.Module):
    """A transposed convolution of several members, stride 2 (note N9), that begins as bilinear interpolation
    of
    mixed channels: a start with random phases would draw the pattern of its stride."""

    def __init__(self, parts: BlockParts, level: DecoderLevel) -> None:
        super().__init__()
        members, self.members = parts.members, parts.members
        mixed = torch.empty(members, level.below, level.outputs)
        initialize(mixed, parts.plan.weight_init, parts.generator, (level.below, level.outputs))
        kernel = torch.tensor(BILINEAR)
        self.weight = nn.Parameter(mixed[..., None, None] * torch.outer(kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(members, level.outputs))

    def forward(self, x: Tensor) -> Tensor:
        padding = (TRANSPOSED_KERNEL - 2) // 2
        # what lies beyond the edge is like the edge: with zeros there, the border would be darker
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        whole = F.conv_transpose2d(x, weight, bias, stride=2, padding=padding, groups=self.members)
        return whole[:, :, 2:-2, 2:-2]


class SubPixel(nn.Module):
    """A 1 x 1 convolution to four times the channels, which become the four points of a square (Shi et al.
    2016);
    the four begin alike."""

    def __init__(self, parts: BlockParts, level: DecoderLevel) -> None:
        super().__init__()
        self.convolution = parts.convolution(level.below, 4 * level.outputs, 1, bias=True)
        with torch.no_grad():
            first = self.convolution.weight[:, ::4]
            self.convolution.weight.copy_(first.repeat_interleave(4, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.convolution(x), 2)


UPSAMPLINGS: Mapping[str, Callable[[BlockParts, DecoderLevel], nn.Module]] = {
    "resize": Resized,
    "transposed": StackedTransposed,
    "subpixel": SubPixel,
}


class DecoderNetwork(Network):
    """Encoder, decoder and output layer of a plan; ``members`` independent networks in one.

    outputs: classes. prior: (members, outputs), the output bias at the start when the output layer begins at
    zero:
    the logarithms of the class shares.
    """

    def __init__(
        self,
        plan: DecoderPlan,
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
        stem = parts.convolution(own.inputs, own.stem, own.stem_kernel)
        self.stem = nn.Sequential(stem, parts.norm(own.stem), MapActivation(own.activation))
        self.blocks = nn.ModuleList(BLOCKS[block.kind](parts, block) for block in own.blocks)
        self.ups = nn.ModuleList(UPSAMPLINGS[plan.upsampling](parts, level) for level in plan.levels)
        self.merges = nn.ModuleList(
            nn.Sequential(*(BLOCKS[block.kind](parts, block) for block in level.blocks))
            for level in plan.levels
        )
        widths = [plan.width, *(plan.levels[-2 - number].outputs for number in range(plan.supervised))]
        self.heads = nn.ModuleList(parts.convolution(width, outputs, 1, bias=True) for width in widths)
        if own.zero_output:
            with torch.no_grad():
                for head in self.heads:
                    head.weight.zero_()  # type: ignore[operator]  # a StackedConvolution
                    if prior is not None:
                        head.bias.copy_(prior)  # type: ignore[operator]

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(members, rows, channels, height, width) -> logits (members, rows, outputs, height, width); in
        training
        with the logits of coarser maps after them, as further outputs.

        noise: what dropout draws from in training mode, a generator on the inputs' device.
        """
        h = x.transpose(0, 1).flatten(1, 2)
        if self.channels_last:
            h = h.contiguous(memory_format=torch.channels_last)
        if self.training:
            maps = self._maps(h, noise)
        elif max(h.shape[2:]) > TILE:
            maps = [self._tiled(h)]
        else:
            maps = self._maps(h, None)[:1]
        apart = [members_apart(own, self.members) for own in maps]
        return torch.cat(apart, dim=2).transpose(0, 1)

    def _maps(self, h: Tensor, noise: torch.Generator | None) -> list[Tensor]:
        """Logits (rows, members x outputs, height, width) of the last map, then of the coarser ones that are
        trained too."""
        height, width = h.shape[2:]
        bottom, right = -height % self.plan.multiple, -width % self.plan.multiple
        if bottom or right:
            h = F.pad(h, (0, right, 0, bottom), mode="replicate")
        h, skips = self._encoded(h)
        coarser: list[Tensor] = []
        for up, merge, level, skip in zip(self.ups, self.merges, self.plan.levels, skips[::-1], strict=True):
            h = up(h)
            if level.skip:
                both = [members_apart(own, self.members) for own in (h, skip)]
                h = torch.cat(both, dim=2).flatten(1, 2)
            h = merge(h)
            coarser.append(h)
        maps = [self.heads[0](self._drop(h, noise))]
        if self.training:
            for head, own in zip(list(self.heads)[1:], coarser[-2::-1], strict=False):
                maps.append(F.interpolate(head(own), maps[0].shape[2:], mode="bilinear", align_corners=False))
        return [own[:, :, :height, :width] for own in maps]

    def _encoded(self, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest map, and the last map of every finer resolution."""
        h = self.stem(h)
        skips: list[Tensor] = []
        for block, plan in zip(self.blocks, self.plan.encoder.blocks, strict=True):
            if plan.stride > 1:
                skips.append(h)
            h = block(h)
            if plan.pool:
                skips.append(h)
                h = POOLING[plan.pool][2](h, 2)
        return h, skips

    def _tiled(self, h: Tensor) -> Tensor:
        """The last logits, tile by tile; where tiles overlap the mean, weighted by the distance from their
        edge."""
        height, width = h.shape[2:]
        total = h.new_zeros(h.shape[0], self.members * self.outputs, height, width)
        weight = h.new_zeros(height, width)
        for top in _starts(height):
            for left in _starts(width):
                part = h[:, :, top : top + TILE, left : left + TILE]
                own = _nearness(part.shape[2], h.device)[:, None] * _nearness(part.shape[3], h.device)
                rows, columns = slice(top, top + part.shape[2]), slice(left, left + part.shape[3])
                total[:, :, rows, columns] += own * self._maps(part, None)[0]
                weight[rows, columns] += own
        return total / weight

    def _drop(self, h: Tensor, noise: torch.Generator | None) -> Tensor:
        """Whole channels: neighbouring points say nearly the same (Tompson et al. 2015)."""
        dropout = self.plan.encoder.dropout
        if not self.training or not dropout:
            return h
        kept = torch.empty_like(h[:, :, :1, :1]).bernoulli_(1 - dropout, generator=noise)
        return h * kept.div_(1 - dropout)

    @property
    def rows_per_pass(self) -> int:
        """Images of each member that one pass without gradients takes at a time."""
        return scenes_per_pass(self.plan, self.members, self.outputs)

    def accelerate(self, configuration: Mapping[str, Any]) -> None:
        """As ``memory_format`` asks."""
        self.channels_last = configuration.get("memory_format") == "channels_last"

    def head_parameters(self) -> list[nn.Parameter]:
        """The output layers."""
        return list(self.heads.parameters())

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on: kernels, neither biases nor normalization."""
        return [m.weight for m in self.modules() if isinstance(m, StackedConvolution | StackedTransposed)]


def _starts(length: int) -> list[int]:
    """Where tiles begin along an axis: evenly, with at least ``TILE_OVERLAP`` between neighbours."""
    if length <= TILE:
        return [0]
    count = -(-(length - TILE) // round(TILE * (1 - TILE_OVERLAP))) + 1
    return [round(place * (length - TILE) / (count - 1)) for place in range(count)]


def _nearness(length: int, device: torch.device) -> Tensor:
    """Of each point of a tile's axis: 1 in the middle, small at the edges."""
    steps = torch.arange(length, device=device) + 0.5
    return torch.minimum(steps, length - steps) / (length / 2)


class SceneShape(PlannedShape):
    """Of an image with a mask."""

    plan, built = staticmethod(decoder_plan_of), DecoderNetwork
    memory = staticmethod(decoder_memory)
