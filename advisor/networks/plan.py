"""The plan of a network for images or sequences, as data: its blocks, stem and head.

A configuration and the shape of the input give a ``NetworkPlan``; ``convolutional`` builds it, the report
draws it, ``geometry`` tells its maps, receptive field and memory, and one that cannot work is refused before
anything is trained. Pure arithmetic: no torch, no NumPy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kernel = tuple[int, ...]
BlockKind = Literal["plain", "residual", "inverted", "inception", "mixer", "recurrent"]

EFFICIENTNET_B0 = (
    # expansion, outputs, repeats, stride, kernel: table 1 of Tan and Le 2019, EfficientNet
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
B0_STEM, B0_HEAD = 32, 1280
DEPTH_BASE, WIDTH_BASE, RESOLUTION_BASE = 1.2, 1.1, 1.15
"""Compound scaling: depth 1.2^phi, width 1.1^phi, resolution 1.15^phi (equation 3 of the same paper)."""
SMALLEST_MAP = 2
"""EfficientNet keeps at least this many points per axis: strides beyond that are
left out, the earliest first."""
INCEPTION_SHORTCUT = 3
"""Every third inception block adds the input of the first of the three (same paper)."""


@dataclass(frozen=True)
class BlockPlan:
    """One block: ``kind`` says how its convolutions are arranged (see ``convolutional``).

    pool: "" or the pooling that follows the block and halves the map. expansion and squeeze are for inverted
        blocks and, squeeze, for residual ones.
    factorised: k x 1 and 1 x k instead of k x k (note N23), images only.
    """

    kind: BlockKind
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    expansion: int = 1
    squeeze: bool = False
    factorised: bool = False
    pool: Literal["", "max", "average"] = ""
    shortcut: int = 0
    """inception: channels of the earlier block whose output is added here, 0 for none."""


@dataclass(frozen=True)
class NetworkPlan:
    """All that is needed to build one network, apart from random numbers.

    channels, size: of the input, after ``resolution`` (height and width, or length).
    stem: channels after the first convolution, 0 without one.
    patch: side of a mixer's patches.
    head: how the last map becomes a vector.
    ramp: whether the network adds a channel to its input that says how far along the series each point lies.
    """

    channels: int
    size: tuple[int, ...]
    stem: int
    stem_kernel: int
    stem_stride: int
    blocks: tuple[BlockPlan, ...]
    norm: Literal["none", "batch", "group", "layer"]
    activation: str
    weight_init: str
    zero_output: bool
    head: Literal["average", "max", "flatten"]
    head_width: int
    dropout: float
    patch: int = 0
    ramp: bool = False

    @property
    def axes(self) -> int:
        return len(self.size)

    @property
    def inputs(self) -> int:
        """Channels that the first layer sees."""
        return self.channels + self.ramp

    @property
    def width(self) -> int:
        """Channels of the last map, before the head."""
        return self.head_width or (self.blocks[-1].outputs if self.blocks else self.stem)


def plan_of(configuration: Mapping[str, Any], channels: int, size: Sequence[int]) -> NetworkPlan:
    """The network that a configuration of ``search_spaces/images.yaml`` or
    ``sequences.yaml`` means for such inputs.

    channels, size: of one input (height and width, or length). ValueError for a
        network that there is none of.
    """
    make = {
        "convolutional": _convolutional,
        "efficientnet": _efficientnet,
        "mixer": _mixer,
        "inception": _inception,
        "recurrent": _recurrent,
    }
    name = configuration["network"]
    if (
        name not in make
        or (len(size) == 2 and name in ("inception", "recurrent"))
        or (len(size) == 1 and name == "efficientnet")
    ):
        raise ValueError(f"there is no {name} network for inputs of {len(size)} axes")
    share = float(configuration["resolution"])
    return make[name](configuration, channels, tuple(max(1, round(n * share)) for n in size))


def _planned(c: Mapping[str, Any], channels: int, size: tuple[int, ...], **own: Any) -> NetworkPlan:
    common: dict[str, Any] = {
        "stem": 0,
        "stem_kernel": 1,
        "stem_stride": 1,
        "head": c["head"],
        "head_width": 0,
        "norm": c["norm_layer"],
    }
    return NetworkPlan(
        channels=channels,
        size=size,
        activation=c["activation"],
        weight_init=c["weight_init"],
        zero_output=c["output_init"] == "zero",
        dropout=float(c["dropout"]),
        ramp=_has_ramp(c),
        **(common | own),
    )


def _has_ramp(c: Mapping[str, Any]) -> bool:
    return bool(
        c.get("position", "none") == "coordinate"
    )  # images and the models of earlier versions have no such parameter


def blocks_per_stage(stages: int, blocks: int, place: str) -> tuple[int, ...]:
    """``blocks`` in each of the stages on average; placed "late", the first
    stages have few and the last have most.

    Pooling then comes often in the early layers (note N21) and the receptive
    field grows toward the end (N20).

    >>> blocks_per_stage(3, 2, "late"), blocks_per_stage(3, 2, "even")
    ((1, 2, 3), (2, 2, 2))
    """
    if place != "late" or stages == 1:
        return (blocks,) * stages
    return tuple(1 + round(2 * (blocks - 1) * stage / (stages - 1)) for stage in range(stages))


def _convolutional(c: Mapping[str, Any], channels: int, size: tuple[int, ...]) -> NetworkPlan:
    stages, kernel, stem = int(c["stages"]), int(c["kernel"]), int(c["width"])
    pooled = c["pooling"] != "stride"
    blocks: list[BlockPlan] = []
    inputs = stem
    for stage, count in enumerate(blocks_per_stage(stages, int(c["blocks"]), c["block_place"])):
        outputs = round(stem * float(c["growth"]) ** stage)
        for number in range(count):
            last = number == count - 1 and stage < stages - 1
            blocks.append(
                BlockPlan(
                    kind=c["block"],
                    inputs=inputs,
                    outputs=outputs,
                    kernel=kernel,
                    stride=2 if number == 0 and stage > 0 and not pooled else 1,
                    dilation=int(c["dilation"]) ** stage,
                    squeeze=bool(c["squeeze"]),
                    factorised=bool(c.get("factorised", False)) and len(size) == 2,
                    pool=c["pooling"] if pooled and last else "",
                )
            )
            inputs = outputs
    return _planned(
        c,
        channels,
        size,
        stem=stem,
        stem_kernel=kernel,
        stem_stride=int(c["stem_stride"]),
        blocks=tuple(blocks),
    )


def _efficientnet(c: Mapping[str, Any], channels: int, size: tuple[int, ...]) -> NetworkPlan:
    phi = float(c["compound"])
    wider = int(c["width"]) / B0_STEM * WIDTH_BASE**phi
    scaled = tuple(max(SMALLEST_MAP, round(n * RESOLUTION_BASE**phi)) for n in size)
    strides = [2, *(row[3] for row in EFFICIENTNET_B0)]
    surplus = sum(stride == 2 for stride in strides) - max(0, int(math.log2(min(scaled) / SMALLEST_MAP)))
    for position, stride in enumerate(strides):
        if stride == 2 and surplus > 0:
            strides[position], surplus = 1, surplus - 1
    stem = _rounded(B0_STEM * wider)
    blocks: list[BlockPlan] = []
    inputs = stem
    for (expansion, width, repeats, _, kernel), stride in zip(EFFICIENTNET_B0, strides[1:], strict=True):
        outputs = _rounded(width * wider)
        for number in range(math.ceil(repeats * DEPTH_BASE**phi)):
            first = stride if number == 0 else 1
            blocks.append(
                BlockPlan("inverted", inputs, outputs, kernel, first, expansion=expansion, squeeze=True)
            )
            inputs = outputs
    return _planned(
        c,
        channels,
        scaled,
        stem=stem,
        stem_kernel=3,
        stem_stride=strides[0],
        blocks=tuple(blocks),
        head_width=_rounded(B0_HEAD * wider),
    )


def _rounded(width: float, divisor: int = 8) -> int:
    """The multiple of 8 next to a width, never less than 90 % of it (as in the
    EfficientNet reference code)."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor


def _mixer(c: Mapping[str, Any], channels: int, size: tuple[int, ...]) -> NetworkPlan:
    width, patch = int(c["width"]), int(c["patch"])
    blocks = tuple(BlockPlan("mixer", width, width, 1) for _ in range(int(c["mixer_layers"])))
    return _planned(
        c,
        channels,
        size,
        stem=width,
        stem_kernel=patch,
        stem_stride=patch,
        blocks=blocks,
        patch=patch,
        norm="layer",
    )


def _inception(c: Mapping[str, Any], channels: int, size: tuple[int, ...]) -> NetworkPlan:
    width, kernel = int(c["width"]), int(c["kernel"])
    blocks: list[BlockPlan] = []
    inputs = entry = channels + _has_ramp(c)
    for number in range(1, int(c["stages"]) * int(c["blocks"]) + 1):
        outputs = 4 * width
        third = number % INCEPTION_SHORTCUT == 0
        blocks.append(BlockPlan("inception", inputs, outputs, kernel, shortcut=entry if third else 0))
        inputs = outputs
        entry = outputs if third else entry
    return _planned(c, channels, size, blocks=tuple(blocks))


def _recurrent(c: Mapping[str, Any], channels: int, size: tuple[int, ...]) -> NetworkPlan:
    width = int(c["width"])
    ends = (channels + _has_ramp(c), *(2 * width for _ in range(int(c["stages"]))))
    pairs = itertools.pairwise(ends)
    blocks = tuple(BlockPlan("recurrent", before, after, 1) for before, after in pairs)
    return _planned(c, channels, size, blocks=blocks, norm="none")
