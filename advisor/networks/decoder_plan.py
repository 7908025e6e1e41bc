"""The plan of a network that gives a class to every point: an encoder as the other networks have, and a
decoder.

Pure arithmetic: no torch, no NumPy. Each level of the decoder doubles the map, puts the encoder's map of the
same
size beside it, and convolves (Ronneberger et al. 2015, U-Net).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from advisor.networks.geometry import (
    BYTES,
    PASS_BYTES,
    Layer,
    batch_problem,
    block_layers,
    kept_numbers,
    layers,
    map_numbers,
    map_sizes,
    multiplications,
    training_bytes,
)
from advisor.networks.plan import BlockPlan, NetworkPlan, plan_of

Upsampling = Literal["resize", "transposed", "subpixel"]
TRANSPOSED_KERNEL = 4
"""Twice the stride of 2, so that every point of the result has as many neighbours (Odena et al. 2016)."""
FEWEST_MAP = 4
"""Points per axis that the coarsest map has at least: below, a 3 x 3 kernel sees little but padding."""
TILE = 512
"""Images with a longer side are predicted in tiles of this many points, which overlap."""
SUPERVISED_FROM = 4
"""Stages from which on coarser maps are trained too (deep supervision), where that is asked for."""


@dataclass(frozen=True)
class DecoderLevel:
    """One doubling of the map. below: channels that come from the coarser map; skip: those of the encoder's
    map
    beside it, 0 without; blocks: the convolutions after it."""

    below: int
    outputs: int
    skip: int
    blocks: tuple[BlockPlan, ...]


@dataclass(frozen=True)
class DecoderPlan:
    """All that is needed to build one network, apart from random numbers.

    encoder: as that of a network which gives a class to an image, without its head. levels: the coarsest
    first.
    size: of the images. crop: side of the squares that training sees, 0: whole images.
    supervised: levels, from the finest but one, whose own maps are trained too.
    """

    encoder: NetworkPlan
    levels: tuple[DecoderLevel, ...]
    upsampling: Upsampling
    size: tuple[int, int]
    crop: int = 0
    supervised: int = 0

    @property
    def multiple(self) -> int:
        """Height and width are padded to multiples of this."""
        return int(2 ** len(self.levels))

    @property
    def trained_size(self) -> tuple[int, int]:
        """Height and width of what a step of training sees."""
        if not self.crop:
            return self.size
        return min(self.crop, self.size[0]), min(self.crop, self.size[1])

    @property
    def width(self) -> int:
        """Channels of the last map."""
        return self.levels[-1].outputs if self.levels else self.encoder.width


def decoder_plan_of(c: Mapping[str, Any], channels: int, size: Sequence[int]) -> DecoderPlan:
    """The network that a configuration of ``search_spaces/masks.yaml`` means for images of this size."""
    height, width = size
    encoder = plan_of(
        {
            **c,
            "network": "convolutional",
            "block_place": "even",
            "dilation": 1,
            "stem_stride": 1,
            "head": "average",
            "resolution": 1.0,
        },
        channels,
        (height, width),
    )
    widths = _stage_widths(encoder)
    levels = []
    for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True):
        skip = fine if c["skips"] else 0
        first = BlockPlan(c["block"], fine + skip, fine, int(c["kernel"]), squeeze=bool(c["squeeze"]))
        more = (replace(first, inputs=fine),) * (int(c["blocks"]) - 1)
        levels.append(DecoderLevel(coarse, fine, skip, (first, *more)))
    supervised = len(levels) - 1 if c["deep_supervision"] and len(widths) >= SUPERVISED_FROM else 0
    return DecoderPlan(
        encoder, tuple(levels), c["upsampling"], (int(height), int(width)), int(c["crop"]), supervised
    )


def _stage_widths(encoder: NetworkPlan) -> list[int]:
    """Channels of each resolution of an encoder, the finest first."""
    widths = []
    for place, block in enumerate(encoder.blocks):
        if block.pool or (place + 1 < len(encoder.blocks) and encoder.blocks[place + 1].stride > 1):
            widths.append(block.outputs)
    return [*widths, encoder.blocks[-1].outputs]


def _padded(plan: DecoderPlan, size: tuple[int, int]) -> tuple[int, int]:
    height, width = (-(-n // plan.multiple) * plan.multiple for n in size)
    return height, width


def padded_encoder(plan: DecoderPlan) -> NetworkPlan:
    """The encoder on what a step of training sees, padded so that each map is twice the next."""
    return replace(plan.encoder, size=_padded(plan, plan.trained_size))


def decoder_layers(plan: DecoderPlan, outputs: int) -> list[tuple[Layer, tuple[int, ...]]]:
    """Every step after the encoder with its map, for what a step of training sees."""
    found: list[tuple[Layer, tuple[int, ...]]] = []
    axes, size = 2, _padded(plan, plan.trained_size)
    for number, level in enumerate(plan.levels):
        share = 2 ** (len(plan.levels) - number - 1)
        here = tuple(n // share for n in size)
        parameters = {
            "resize": (level.below + 1) * level.outputs,
            "transposed": (level.below * TRANSPOSED_KERNEL**axes + 1) * level.outputs,
            "subpixel": 4 * (level.below + 1) * level.outputs,
        }[plan.upsampling]
        found.append((Layer(f"upsampling {number + 1}", (2, 2), (1, 1), level.outputs, parameters), here))
        for block in level.blocks:
            found += [(own, here) for own in block_layers(plan.encoder, block, f"decoder {number + 1}")]
    found.append((Layer("output", (1, 1), (1, 1), outputs, (plan.width + 1) * outputs), size))
    for number in range(plan.supervised):
        level = plan.levels[-2 - number]
        here = tuple(n // 2 ** (number + 1) for n in size)
        parameters = (level.outputs + 1) * outputs
        found.append(
            (Layer(f"output {number + 2}", (1, 1), (1, 1), outputs, parameters, inner=outputs), here)
        )
    return found


def decoder_parameters(plan: DecoderPlan, outputs: int) -> int:
    """Trained numbers of one network."""
    own = sum(layer.parameters for layer, _ in decoder_layers(plan, outputs))
    return own + sum(layer.parameters for layer in layers(plan.encoder))


def decoder_cost(plan: DecoderPlan, outputs: int) -> tuple[int, int]:
    """Multiplications of what a step of training sees of one image, and the numbers in all its maps."""
    encoder, own = padded_encoder(plan), decoder_layers(plan, outputs)
    products = sum(layer.parameters * math.prod(size) for layer, size in own)
    numbers = sum((layer.outputs + layer.inner) * math.prod(size) for layer, size in own)
    beside = sum(level.skip * math.prod(size) for level, size in _level_sizes(plan))
    return multiplications(encoder, 0) + products, map_numbers(encoder) + numbers + beside


def _level_sizes(plan: DecoderPlan) -> list[tuple[DecoderLevel, tuple[int, ...]]]:
    size = _padded(plan, plan.trained_size)
    last = len(plan.levels) - 1
    return [(level, tuple(n // 2 ** (last - place) for n in size)) for place, level in enumerate(plan.levels)]


def crops_of(plan: DecoderPlan) -> int:
    """Crops that cover an image: an epoch sees as many of it."""
    return math.prod(-(-n // own) for n, own in zip(plan.size, plan.trained_size, strict=True))


def decoder_memory(plan: DecoderPlan, outputs: int, batch_size: int, members: int = 1) -> int:
    """What training takes, estimated as ``geometry.memory_bytes`` does."""
    row = kept_numbers(decoder_cost(plan, outputs)[1], plan.encoder.norm)
    return training_bytes(row, decoder_parameters(plan, outputs), batch_size, members)


def decoder_problem(
    plan: DecoderPlan, outputs: int, batch_size: int, *, members: int = 1, memory: float | None = None
) -> str | None:
    """Why a plan cannot be trained, in one line with the fix; None when nothing speaks against it."""
    coarsest = map_sizes(padded_encoder(plan))[-1]
    if min(coarsest) < 1 or 2 ** len(plan.levels) > max(plan.trained_size):
        shown = " x ".join(map(str, plan.trained_size))
        return f"{len(plan.levels) + 1} stages leave nothing of an image of {shown}: use fewer stages"
    needed = decoder_memory(plan, outputs, batch_size, members)
    return batch_problem(plan.encoder, batch_size, needed, memory, "batch_size, crop or width")


def scenes_per_pass(plan: DecoderPlan, members: int, outputs: int) -> int:
    """Images that one pass without gradients takes at a time (see ``geometry.rows_per_pass``)."""
    points = min(plan.size[0], TILE) * min(plan.size[1], TILE)
    widest = max([plan.encoder.stem, outputs, *(level.outputs + level.skip for level in plan.levels[-1:])])
    return max(1, PASS_BYTES // (2 * BYTES * members * points * widest))
