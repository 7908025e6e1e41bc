"""The geometry of a planned network: its layers, maps, receptive field, parameters and memory.

Per axis and the same for every axis, except that images may be higher than wide. Convolutions have odd
kernels and "same" padding, so an axis of n becomes ceil(n / stride); pooling by 2 makes it floor(n / 2). Pure
arithmetic: no torch, no NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from advisor.networks.plan import BlockPlan, Kernel, NetworkPlan

SQUEEZE = 4
"""Squeeze-and-excitation narrows to a quarter of the block's input channels, as in EfficientNet."""
BOTTLENECK = 32
"""Channels of an inception block's bottleneck (Ismail Fawaz et al. 2020, InceptionTime)."""
CHANNELS_PER_GROUP = 8
"""Group normalization: this many channels share statistics, at most 32 groups (Wu and He 2018)."""
MOST_GROUPS = 32

TRAINING_COPIES = 4
"""Memory of a weight in training: itself, its gradient and two moments of Adam."""
ACTIVATION_COPIES, NORM_COPIES = 1.5, 1.0
"""Each layer's outputs are kept for the backward pass, with their gradients in part; and
once more before a normalization."""
BYTES = 4
MEMORY_SHARE = 0.8
"""Share of the free memory that one training may be expected to take; the estimate is no promise."""
PASS_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Layer:
    """One step of the widest path from input to output, as far as geometry goes.

    kernel, stride: per axis.
    outputs: channels.
    parameters: of the whole step, those of its branches included.
    inner: channels of the maps on the way to its outputs, which training keeps as well.
    whole: its units see the whole input (attention over all tokens, recurrence,
        squeeze-and-excitation, global pooling).
    """

    name: str
    kernel: Kernel
    stride: Kernel
    outputs: int
    parameters: int
    dilation: int = 1
    whole: bool = False
    pooling: bool = False
    inner: int = 0


def layers(plan: NetworkPlan) -> tuple[Layer, ...]:
    """Every step of the path with the largest receptive field, in order, with all
    parameters but the output layer's."""
    found: list[Layer] = []
    axes = plan.axes
    if plan.stem:
        convolution = _kernel_parameters(plan.inputs, plan.stem, plan.stem_kernel, axes)
        norm = (
            plan.stem if plan.patch else _norm_parameters(plan, plan.stem)
        )  # a patch's convolution has a bias
        found.append(_layer("stem", plan.stem_kernel, plan.stem_stride, plan.stem, convolution + norm, axes))
    for number, block in enumerate(plan.blocks, 1):
        found += block_layers(plan, block, f"block {number}")
        if block.pool:
            found.append(_layer(f"{block.pool} pooling {number}", 2, 2, block.outputs, 0, axes, pooling=True))
    if plan.head_width:
        parameters = plan.blocks[-1].outputs * plan.head_width + _norm_parameters(plan, plan.head_width)
        found.append(_layer("head", 1, 1, plan.head_width, parameters, axes))
    if plan.patch:
        found.append(_layer("last norm", 1, 1, plan.stem, 2 * plan.stem, axes))
    return tuple(found)


def _layer(
    name: str, kernel: int, stride: int, outputs: int, parameters: int, axes: int, **more: Any
) -> Layer:
    return Layer(name, (kernel,) * axes, (stride,) * axes, outputs, parameters, **more)


def _kernel_parameters(inputs: int, outputs: int, kernel: int, axes: int, groups: int = 1) -> int:
    return int(inputs // groups * outputs * kernel**axes)


def _norm_parameters(plan: NetworkPlan, channels: int) -> int:
    """Scale and shift; without normalization the convolution has a bias instead."""
    return channels if plan.norm == "none" else 2 * channels


def block_layers(plan: NetworkPlan, block: BlockPlan, name: str) -> list[Layer]:
    """The steps of a block of this plan, or of one with its normalization. name: for their names."""
    return {
        "plain": _plain_layers,
        "residual": _residual_layers,
        "inverted": _inverted_layers,
        "inception": _inception_layers,
        "mixer": _mixer_layers,
        "recurrent": _recurrent_layers,
    }[block.kind](plan, block, name)


def _convolution(plan: NetworkPlan, block: BlockPlan, name: str, inputs: int, stride: int) -> list[Layer]:
    """A k x k convolution with its normalization, or k x 1 and 1 x k with one normalization after both."""
    norm, axes, k = _norm_parameters(plan, block.outputs), plan.axes, block.kernel
    if not block.factorised:
        parameters = _kernel_parameters(inputs, block.outputs, k, axes) + norm
        return [_layer(name, k, stride, block.outputs, parameters, axes, dilation=block.dilation)]
    first = Layer(
        f"{name}, {k} x 1", (k, 1), (stride, 1), block.outputs, inputs * block.outputs * k, block.dilation
    )
    second = Layer(
        f"{name}, 1 x {k}", (1, k), (1, stride), block.outputs, block.outputs**2 * k + norm, block.dilation
    )
    return [first, second]


def _plain_layers(plan: NetworkPlan, block: BlockPlan, name: str) -> list[Layer]:
    return [
        *_convolution(plan, block, name, block.inputs, block.stride),
        *_squeezed(plan, block, name, block.outputs),
    ]


def _residual_layers(plan: NetworkPlan, block: BlockPlan, name: str) -> list[Layer]:
    first = _convolution(plan, block, f"{name}a", block.inputs, block.stride)
    second = _convolution(plan, block, f"{name}b", block.outputs, 1)
    shortcut = 0
    if block.inputs != block.outputs or block.stride != 1:
        shortcut = block.inputs * block.outputs + _norm_parameters(plan, block.outputs)
    last = second[-1]
    second[-1] = Layer(
        last.name, last.kernel, last.stride, last.outputs, last.parameters + shortcut, last.dilation
    )
    return [*first, *second, *_squeezed(plan, block, name, block.outputs)]


def _squeezed(plan: NetworkPlan, block: BlockPlan, name: str, channels: int) -> list[Layer]:
    if not block.squeeze:
        return []
    narrow = squeeze_width(block)
    parameters = 2 * channels * narrow + narrow + channels
    return [_layer(f"{name}, squeeze", 1, 1, channels, parameters, plan.axes, whole=True)]


def squeeze_width(block: BlockPlan) -> int:
    """Channels in the middle of squeeze-and-excitation."""
    return max(1, block.inputs // SQUEEZE)


def _inverted_layers(plan: NetworkPlan, block: BlockPlan, name: str) -> list[Layer]:
    middle, axes = block.inputs * block.expansion, plan.axes
    found = []
    if block.expansion != 1:
        expanded = block.inputs * middle + _norm_parameters(plan, middle)
        found.append(_layer(f"{name}, expansion", 1, 1, middle, expanded, axes))
    depthwise = _kernel_parameters(middle, middle, block.kernel, axes, groups=middle) + _norm_parameters(
        plan, middle
    )
    found.append(_layer(f"{name}, depthwise", block.kernel, block.stride, middle, depthwise, axes))
    found += _squeezed(plan, block, name, middle)
    projected = middle * block.outputs + _norm_parameters(plan, block.outputs)
    return [*found, _layer(f"{name}, projection", 1, 1, block.outputs, projected, axes)]


def inception_kernels(kernel: int) -> tuple[int, int, int]:
    """Three odd kernels: the given one, about half and about a quarter of it
    (40, 20, 10 in the paper, made odd)."""
    return kernel, kernel // 2 | 1, max(3, kernel // 4 | 1)


def _inception_layers(plan: NetworkPlan, block: BlockPlan, name: str) -> list[Layer]:
    width = block.outputs // 4
    narrow = BOTTLENECK if block.inputs > 1 else 1
    parameters = block.inputs * narrow if block.inputs > 1 else 0
    parameters += sum(narrow * width * k for k in inception_kernels(block.kernel)) + block.inputs * width
    parameters += _norm_parameters(plan, block.outputs)
    if block.shortcut:
        parameters += block.shortcut * block.outputs + _norm_parameters(plan, block.outputs)
    return [_layer(name, block.kernel, 1, block.outputs, parameters, plan.axes, inner=narrow + block.inputs)]


def mixer_tokens(plan: NetworkPlan) -> int:
    """Patches of an input; the rest at the edges is left out."""
    return reduce(lambda product, n: product * (n // plan.patch), plan.size, 1)


def _mixer_layers(plan: NetworkPlan, block: BlockPlan, name: str) -> list[Layer]:
    width, tokens = block.outputs, mixer_tokens(plan)
    over_tokens, over_channels = mixer_widths(width)
    parameters = 4 * width  # two layer normalizations
    parameters += 2 * tokens * over_tokens + over_tokens + tokens
    parameters += 2 * width * over_channels + over_channels + width
    return [_layer(name, 1, 1, width, parameters, plan.axes, whole=True)]


def mixer_widths(width: int) -> tuple[int, int]:
    """Hidden widths of the token and the channel MLP: half and four times the
    width, as in Mixer-S/16 and B/16."""
    return width // 2, 4 * width


def _recurrent_layers(plan: NetworkPlan, block: BlockPlan, name: str) -> list[Layer]:
    hidden = block.outputs // 2
    parameters = 2 * (3 * hidden * (block.inputs + hidden) + 6 * hidden)  # both directions of a GRU
    return [_layer(name, 1, 1, block.outputs, parameters, plan.axes, whole=True)]


def map_sizes(plan: NetworkPlan) -> tuple[tuple[int, ...], ...]:
    """The map after each of ``layers``, per axis; an axis of 0 is a network that cannot work."""
    size, sizes = plan.size, []
    for layer in layers(plan):
        floor = layer.pooling or (plan.patch and layer.name == "stem")
        size = tuple(n // s if floor else -(-n // s) for n, s in zip(size, layer.stride, strict=True))
        sizes.append(size)
    return tuple(sizes)


@dataclass(frozen=True)
class Field:
    """The receptive field after a layer: how many points of the input one of its units sees, per axis.

    step: input points between two neighbouring units.
    whole: it sees all of the input, whatever the arithmetic says.
    """

    layer: str
    size: tuple[int, ...]
    step: tuple[int, ...]
    whole: bool


def receptive_fields(plan: NetworkPlan) -> tuple[Field, ...]:
    """Exact, layer by layer (notes N20 and N25): r grows by (kernel - 1) x
    dilation x step, the step by the stride.

    (Araujo et al. 2019, Computing Receptive Fields of Convolutional Neural Networks.) A residual block's
    field is that of its longest path. It may exceed the input: then a unit in the middle sees all of it.
    """
    size, step = (1,) * plan.axes, (1,) * plan.axes
    whole, found = False, []
    for layer in layers(plan):
        size = tuple(
            r + (k - 1) * layer.dilation * j for r, k, j in zip(size, layer.kernel, step, strict=True)
        )
        step = tuple(j * s for j, s in zip(step, layer.stride, strict=True))
        whole = whole or layer.whole
        found.append(Field(layer.name, size, step, whole))
    return tuple(found)


def receptive_field(plan: NetworkPlan) -> int:
    """Input points that a unit of the last map sees along its narrowest axis, at most the input itself."""
    found = receptive_fields(plan)
    if not found or found[-1].whole:
        return min(plan.size)
    return min(min(r, n) for r, n in zip(found[-1].size, plan.size, strict=True))


def parameter_count(plan: NetworkPlan, outputs: int) -> int:
    """Trained numbers of one network."""
    return sum(layer.parameters for layer in layers(plan)) + (head_inputs(plan) + 1) * outputs


def multiplications(plan: NetworkPlan, outputs: int) -> int:
    """Of one input's way through the network: each weight of a layer is used at every point of its map."""
    sizes = zip(layers(plan), map_sizes(plan), strict=True)
    return sum(layer.parameters * math.prod(size) for layer, size in sizes) + head_inputs(plan) * outputs


def map_numbers(plan: NetworkPlan) -> int:
    """Numbers in all maps of one input."""
    sizes = zip(layers(plan), map_sizes(plan), strict=True)
    return sum((layer.outputs + layer.inner) * math.prod(size) for layer, size in sizes)


def head_inputs(plan: NetworkPlan) -> int:
    """Numbers that the output layer reads."""
    points = math.prod(map_sizes(plan)[-1]) if plan.head == "flatten" and map_sizes(plan) else 1
    return plan.width * points


def memory_bytes(plan: NetworkPlan, outputs: int, batch_size: int, members: int = 1) -> int:
    """What training takes, estimated: weights with gradient and moments, and the
    maps that the backward pass needs."""
    inputs = plan.inputs * math.prod(plan.size)
    row = kept_numbers(map_numbers(plan), plan.norm) + inputs
    return training_bytes(row, parameter_count(plan, outputs), batch_size, members)


def kept_numbers(maps: int, norm: str) -> float:
    """Numbers that the backward pass needs of one row. maps: numbers in all its maps."""
    return maps * (ACTIVATION_COPIES + (NORM_COPIES if norm != "none" else 0.0))


def training_bytes(row: float, parameters: int, batch_size: int, members: int) -> int:
    """row: numbers that the backward pass needs of one. parameters: trained numbers of one network."""
    return int(BYTES * members * (row * batch_size + TRAINING_COPIES * parameters))


def usable_memory(facts: Mapping[str, Any], *, gpu: bool) -> float | None:
    """Bytes that one training may be expected to take, of a GPU or of the host; None: not known."""
    gb = facts.get("gpu.memory_gb" if gpu else "memory.available_gb")
    return None if gb is None else gb * 1e9 * MEMORY_SHARE


def problem(
    plan: NetworkPlan, outputs: int, batch_size: int, *, members: int = 1, memory: float | None = None
) -> str | None:
    """Why a plan cannot be trained, in one line with the cure; None when nothing speaks against it.

    memory: bytes that one training may use; None: not known.
    """
    for layer, size in zip(layers(plan), map_sizes(plan), strict=True):
        if min(size) < 1:
            shown = " x ".join(map(str, plan.size))
            return (
                f"after {layer.name} nothing is left of an input of {shown}: use fewer stages, a smaller "
                "stem_stride or a "
                "smaller patch"
            )
    return batch_problem(plan, batch_size, memory_bytes(plan, outputs, batch_size, members), memory)


def batch_problem(
    plan: NetworkPlan,
    batch_size: int,
    needed: int,
    memory: float | None,
    smaller: str = "batch_size or width",
) -> str | None:
    """Why batches of this size cannot be trained; None when nothing speaks against it.

    needed, memory: bytes that training takes and may use; None: not known. smaller: what takes less memory.
    """
    if plan.norm == "batch" and batch_size < 2:
        return (
            "batch normalization cannot be trained on batches of one row: use a larger batch_size or norm "
            "layer"
        )
    if memory is not None and needed > memory:
        return (
            f"training it takes about {needed / 1e9:.1f} GB and {memory / 1e9:.1f} GB are free: use a "
            f"smaller {smaller}"
        )
    return None


def rows_per_pass(plan: NetworkPlan, members: int = 1) -> int:
    """Rows that one pass without gradients takes at a time, so that its two
    largest maps stay within PASS_BYTES."""
    sizes = zip(layers(plan), map_sizes(plan), strict=True)
    largest = max((layer.outputs * reduce(lambda a, b: a * b, size, 1) for layer, size in sizes), default=1)
    return max(1, PASS_BYTES // (2 * BYTES * members * max(1, largest)))


def group_count(channels: int) -> int:
    """Groups of group normalization: about eight channels each, at most 32, and a divisor of the channels."""
    wanted = min(MOST_GROUPS, max(1, channels // CHANNELS_PER_GROUP))
    return next(groups for groups in range(wanted, 0, -1) if channels % groups == 0)
