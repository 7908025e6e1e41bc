"""Networks for images and sequences, built from a plan; several of one shape
stacked, as those for tables are.

Every weight has a leading member dimension. The members' channels lie side by side in one map, (rows,
members x channels, *size), and every convolution has a group for each member: one call trains all folds,
and no member sees another's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from advisor.networks.geometry import (
    BOTTLENECK,
    group_count,
    head_inputs,
    inception_kernels,
    memory_bytes,
    mixer_tokens,
    mixer_widths,
    rows_per_pass,
    squeeze_width,
)
from advisor.networks.network import Network
from advisor.networks.plan import BlockPlan, NetworkPlan, plan_of
from advisor.networks.tables import ACTIVATIONS, StackedLinear, StackedNorm, initialize

CONVOLUTION: dict[int, Any] = {1: F.conv1d, 2: F.conv2d}
POOLING: dict[str, dict[int, Any]] = {
    "max": {1: F.max_pool1d, 2: F.max_pool2d},
    "average": {1: F.avg_pool1d, 2: F.avg_pool2d},
}


class StackedConvolution(nn.Module):
    """(rows, members x inputs, *size) -> (rows, members x outputs, *size /
    stride), "same" padding, odd kernels.

    kernel, stride: per axis. groups: of one member's channels (its own inputs make it depthwise).
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        how: str,
        generator: torch.Generator,
        *,
        stride: Sequence[int] = (),
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        same: bool = True,
    ) -> None:
        super().__init__()
        self.members, self.groups, self.dilation = members, groups, dilation
        self.stride = tuple(stride) or (1,) * len(kernel)
        self.padding = tuple(dilation * (k - 1) // 2 if same else 0 for k in kernel)
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs // groups, *kernel))
        self.bias = nn.Parameter(torch.zeros(members, outputs)) if bias else None
        area = int(torch.tensor(kernel).prod())
        initialize(self.weight, how, generator, (inputs // groups * area, outputs // groups * area))

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.flatten()
        groups, weight = self.members * self.groups, self.weight.flatten(0, 1)
        out: Tensor = CONVOLUTION[len(self.stride)](
            x, weight, bias, self.stride, self.padding, self.dilation, groups
        )
        return out


class StackedMapNorm(nn.Module):
    """Batch, group or layer normalization of the maps of several members, with an affine map for each."""

    def __init__(
        self, members: int, channels: int, kind: str, momentum: float = 0.1, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.kind, self.momentum, self.epsilon = kind, momentum, epsilon
        self.groups = members * (group_count(channels) if kind == "group" else 1)
        self.scale = nn.Parameter(torch.ones(members, channels))
        self.shift = nn.Parameter(torch.zeros(members, channels))
        if kind == "batch":
            self.running_mean: Tensor
            self.running_variance: Tensor
            self.register_buffer("running_mean", torch.zeros(members, channels))
            self.register_buffer("running_variance", torch.ones(members, channels))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale.flatten(), self.shift.flatten()
        if self.kind != "batch":
            return F.group_norm(x, self.groups, scale, shift, self.epsilon)
        # a view of the buffers: updated in place
        mean, variance = self.running_mean.view(-1), self.running_variance.view(-1)
        statistics = self.training and x.numel() > x.shape[1]
        return F.batch_norm(x, mean, variance, scale, shift, statistics, self.momentum, self.epsilon)


def members_apart(maps: Tensor, members: int) -> Tensor:
    """(rows, members x channels, *size) -> (rows, members, channels, *size)."""
    return maps.reshape(maps.shape[0], members, -1, *maps.shape[2:])


class BlockParts:
    """What all blocks of one network are made with."""

    def __init__(self, plan: NetworkPlan, members: int, generator: torch.Generator) -> None:
        self.plan, self.members, self.generator = plan, members, generator

    def convolution(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        **more: Any,
    ) -> StackedConvolution:
        axes = self.plan.axes
        area = (kernel,) * axes if isinstance(kernel, int) else kernel
        steps = (stride,) * axes if isinstance(stride, int) else stride
        more = {"bias": self.plan.norm == "none", **more}
        how = self.plan.weight_init
        return StackedConvolution(
            self.members, inputs, outputs, area, how, self.generator, stride=steps, **more
        )

    def norm(self, channels: int) -> nn.Module:
        kind = self.plan.norm
        return nn.Identity() if kind == "none" else StackedMapNorm(self.members, channels, kind)

    def linear(self, inputs: int, outputs: int) -> StackedLinear:
        return StackedLinear(self.members, inputs, outputs, self.plan.weight_init, self.generator)


class MapActivation(nn.Module):
    """An activation by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = ACTIVATIONS[self.name](x)
        return out


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): each channel is scaled by what
    the means of all channels say."""

    def __init__(self, parts: BlockParts, channels: int, narrow: int) -> None:
        super().__init__()
        self.reduce = parts.convolution(channels, narrow, 1, bias=True)
        self.expand = parts.convolution(narrow, channels, 1, bias=True)
        self.activation = MapActivation(parts.plan.activation)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(2).mean(dim=2).reshape(*x.shape[:2], *[1] * (x.dim() - 2))
        return x * torch.sigmoid(self.expand(self.activation(self.reduce(mean))))


def _convolutions(parts: BlockParts, block: BlockPlan, inputs: int, stride: int) -> list[nn.Module]:
    """A k x k convolution and its normalization; or k x 1 and 1 x k (note N23)."""
    k, more = block.kernel, {"dilation": block.dilation}
    if not block.factorised:
        return [parts.convolution(inputs, block.outputs, k, stride=stride, **more), parts.norm(block.outputs)]
    return [
        parts.convolution(inputs, block.outputs, (k, 1), stride=(stride, 1), bias=False, **more),
        parts.convolution(block.outputs, block.outputs, (1, k), stride=(1, stride), **more),
        parts.norm(block.outputs),
    ]


class PlainBlock(nn.Sequential):
    """Convolution, normalization, activation."""

    def __init__(self, parts: BlockParts, block: BlockPlan) -> None:
        steps = _convolutions(parts, block, block.inputs, block.stride)
        if block.squeeze:
            steps.append(Squeeze(parts, block.outputs, squeeze_width(block)))
        super().__init__(*steps, MapActivation(parts.plan.activation))


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to the input (He et al. 2016),
    normalized inside the branch (note N30).

    The branch's last normalization starts at zero, so that the block starts as
    the identity (Goyal et al. 2017).
    """

    def __init__(self, parts: BlockParts, block: BlockPlan) -> None:
        super().__init__()
        activation = MapActivation(parts.plan.activation)
        branch = [*_convolutions(parts, block, block.inputs, block.stride), activation]
        branch += _convolutions(parts, block, block.outputs, 1)
        if isinstance(branch[-1], StackedMapNorm):
            nn.init.zeros_(branch[-1].scale)
        if block.squeeze:
            branch.append(Squeeze(parts, block.outputs, squeeze_width(block)))
        self.branch = nn.Sequential(*branch)
        self.activation = activation
        self.shortcut: nn.Module = nn.Identity()
        if block.inputs != block.outputs or block.stride != 1:
            projection = parts.convolution(block.inputs, block.outputs, 1, stride=block.stride)
            self.shortcut = nn.Sequential(projection, parts.norm(block.outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.shortcut(x) + self.branch(x))
        return out


class InvertedBlock(nn.Module):
    """EfficientNet's block (Tan and Le 2019): expand, convolve each channel by
    itself, squeeze, project, add."""

    def __init__(self, parts: BlockParts, block: BlockPlan) -> None:
        super().__init__()
        middle, steps = block.inputs * block.expansion, list[nn.Module]()
        if block.expansion != 1:
            steps += [
                parts.convolution(block.inputs, middle, 1),
                parts.norm(middle),
                MapActivation(parts.plan.activation),
            ]
        depthwise = parts.convolution(middle, middle, block.kernel, stride=block.stride, groups=middle)
        steps += [depthwise, parts.norm(middle), MapActivation(parts.plan.activation)]
        if block.squeeze:
            steps.append(Squeeze(parts, middle, squeeze_width(block)))
        steps += [parts.convolution(middle, block.outputs, 1), parts.norm(block.outputs)]
        self.branch = nn.Sequential(*steps)
        self.added = block.inputs == block.outputs and block.stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x)
        return x + out if self.added else out


class InceptionBlock(nn.Module):
    """Three kernel sizes and a pooled path side by side (Ismail Fawaz et al. 2020, InceptionTime)."""

    def __init__(self, parts: BlockParts, block: BlockPlan) -> None:
        super().__init__()
        self.members = parts.members
        width = block.outputs // 4
        narrow = BOTTLENECK if block.inputs > 1 else 1
        self.bottleneck = (
            parts.convolution(block.inputs, narrow, 1, bias=False) if block.inputs > 1 else nn.Identity()
        )
        self.paths = nn.ModuleList(
            parts.convolution(narrow, width, k, bias=False) for k in inception_kernels(block.kernel)
        )
        self.pooled = parts.convolution(block.inputs, width, 1, bias=False)
        self.bias = (
            nn.Parameter(torch.zeros(parts.members, block.outputs)) if parts.plan.norm == "none" else None
        )
        self.norm = parts.norm(block.outputs)
        self.activation = MapActivation(parts.plan.activation)
        self.shortcut: nn.Module | None = None
        if block.shortcut:
            self.shortcut = nn.Sequential(
                parts.convolution(block.shortcut, block.outputs, 1), parts.norm(block.outputs)
            )

    def forward(self, x: Tensor, entry: Tensor) -> Tensor:
        narrowed = self.bottleneck(x)
        pooled = F.max_pool1d(x, 3, stride=1, padding=1)
        paths = [path(narrowed) for path in self.paths] + [self.pooled(pooled)]
        # member by member: each one's four paths lie side by side
        split = [members_apart(path, self.members) for path in paths]
        out: Tensor = torch.cat(split, dim=2).flatten(1, 2)
        if self.bias is not None:
            out = out + self.bias.flatten().unsqueeze(1)
        out = self.activation(self.norm(out))
        if self.shortcut is not None:
            out = self.activation(out + self.shortcut(entry))
        return out


class MixerBlock(nn.Module):
    """An MLP over the patches and one over the channels, each normalized and added (Tolstikhin et al. 2021).

    (members, rows, tokens, width) in and out.
    """

    def __init__(self, parts: BlockParts, block: BlockPlan) -> None:
        super().__init__()
        tokens, width = mixer_tokens(parts.plan), block.outputs
        over_tokens, over_channels = mixer_widths(width)
        self.token_norm = StackedNorm(parts.members, width, "layer")
        self.token_in, self.token_out = parts.linear(tokens, over_tokens), parts.linear(over_tokens, tokens)
        self.channel_norm = StackedNorm(parts.members, width, "layer")
        self.channel_in, self.channel_out = (
            parts.linear(width, over_channels),
            parts.linear(over_channels, width),
        )
        self.activation = MapActivation(parts.plan.activation)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        flat = self.token_norm(x.flatten(1, 2)).view(shape).transpose(2, 3)
        mixed = self.token_out(self.activation(self.token_in(flat.flatten(1, 2)))).view(flat.shape)
        x = x + mixed.transpose(2, 3)
        flat = self.channel_norm(x.flatten(1, 2))
        added: Tensor = self.channel_out(self.activation(self.channel_in(flat))).view(shape)
        return x + added


class RecurrentBlock(nn.Module):
    """One bidirectional GRU layer for each member; (rows, members x channels, length) in and out."""

    def __init__(self, parts: BlockParts, block: BlockPlan) -> None:
        super().__init__()
        self.members, hidden = parts.members, block.outputs // 2
        with torch.random.fork_rng(devices=[]):  # torch draws its own first weights, which are not used
            gru = nn.GRU(block.inputs, hidden, batch_first=True, bidirectional=True)
        self._shape = [gru]  # in a list: no submodule, whose weights would be trained and saved
        bound = hidden**-0.5
        for name, weight in gru.named_parameters():
            drawn = torch.empty(parts.members, *weight.shape).uniform_(
                -bound, bound, generator=parts.generator
            )
            self.register_parameter(name, nn.Parameter(drawn))

    def forward(self, x: Tensor) -> Tensor:
        steps = members_apart(x, self.members).transpose(2, 3)
        outs = []
        for member in range(self.members):
            weights = {name: weight[member] for name, weight in self.named_parameters()}
            outs.append(functional_call(self._shape[0], weights, (steps[:, member],))[0])
        return torch.stack(outs, dim=1).transpose(2, 3).flatten(1, 2)


BLOCKS: dict[str, Any] = {
    "plain": PlainBlock,
    "residual": ResidualBlock,
    "inverted": InvertedBlock,
    "inception": InceptionBlock,
    "mixer": MixerBlock,
    "recurrent": RecurrentBlock,
}


def with_ramp(x: Tensor) -> Tensor:
    """(members, rows, channels, length) with one more channel, which rises from -1
    to 1 (CoordConv, Liu et al. 2018)."""
    ramp = torch.linspace(-1, 1, x.shape[3], device=x.device, dtype=x.dtype)
    return torch.cat([x, ramp.expand(*x.shape[:2], 1, -1)], dim=2)


@dataclass(frozen=True)
class PlannedShape:
    """One input of a network that is built from a plan: channels (the mask of missing points is one)
    and height and width, or length. A saved model keeps it as plain data.

    plan: configuration, channels and size -> the plan. built: the network of a plan. memory: plan, outputs,
    rows and members -> bytes.
    """

    channels: int
    size: tuple[int, ...]
    plan: ClassVar[Callable[..., Any]]
    built: ClassVar[Callable[..., Network]]
    memory: ClassVar[Callable[..., int]]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """The shape of which ``dataclasses.asdict`` made plain data."""
        return cls(plain["channels"], tuple(plain["size"]))

    def network(
        self,
        configuration: Mapping[str, Any],
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        bins: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> Network:
        """The network for inputs of this shape, which have no bins."""
        plan = type(self).plan(configuration, self.channels, self.size)
        return type(self).built(plan, outputs, members=members, generator=generator, prior=prior)

    def planned_memory(
        self, configuration: Mapping[str, Any], outputs: int, members: int
    ) -> Callable[[int], float]:
        """Bytes that training takes, by rows of a step, as the plan tells."""
        plan = type(self).plan(configuration, self.channels, self.size)
        return lambda rows: float(type(self).memory(plan, outputs, rows, members))

    @staticmethod
    def saved_bins(state: Mapping[str, Tensor]) -> None:
        """Inputs of this shape have no bins."""


class SignalNetwork(Network):
    """Stem, blocks, head and output layer of a plan; ``members`` independent networks in one.

    outputs: classes, or 1 for regression. prior: (members, outputs), the output bias at the start when the
    plan's ``zero_output`` holds: the logarithms of the class shares.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.members, self.channels_last = plan, members, False
        self.compiled: Callable[[SignalNetwork, Tensor], Tensor] | None = None
        """``features``, compiled, for training: dropout's generator, which only
        the rest knows, cannot be compiled."""
        parts = BlockParts(plan, members, generator)
        self.stem: nn.Module = nn.Identity()
        if plan.patch:
            self.stem = parts.convolution(
                plan.inputs, plan.stem, plan.patch, stride=plan.patch, bias=True, same=False
            )
        elif plan.stem:
            convolution = parts.convolution(plan.inputs, plan.stem, plan.stem_kernel, stride=plan.stem_stride)
            self.stem = nn.Sequential(convolution, parts.norm(plan.stem), MapActivation(plan.activation))
        self.blocks = nn.ModuleList(BLOCKS[block.kind](parts, block) for block in plan.blocks)
        self.last: nn.Module = nn.Identity()
        if plan.patch:
            self.last = StackedNorm(members, plan.stem, "layer")
        elif plan.head_width:
            convolution = parts.convolution(plan.blocks[-1].outputs, plan.head_width, 1)
            self.last = nn.Sequential(
                convolution, parts.norm(plan.head_width), MapActivation(plan.activation)
            )
        zero = plan.zero_output
        how = "zero" if zero else plan.weight_init
        self.head = StackedLinear(members, head_inputs(plan), outputs, how, generator)
        if zero and prior is not None:
            with torch.no_grad():
                self.head.bias.copy_(prior.unsqueeze(1))

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(members, rows, channels, *size) -> (members, rows, outputs): logits, or the standardized target.

        noise: what dropout draws from in training mode, a generator on the inputs' device.
        """
        maps = self.features(x) if self.compiled is None or not self.training else self.compiled(self, x)
        h = self._drop(self._pooled(maps), noise)
        out: Tensor = self.head(h)
        return out

    @property
    def rows_per_pass(self) -> int:
        """Rows of each member that one pass without gradients takes at a time."""
        return rows_per_pass(self.plan, self.members)

    def accelerate(self, configuration: Mapping[str, Any]) -> None:
        """As ``memory_format`` and ``compiled`` ask."""
        if configuration.get("memory_format") == "channels_last":
            self.channels_last = True
        if configuration.get("compiled"):
            # else the networks of earlier trials count against the number of recompilations
            torch.compiler.reset()
            self.compiled = torch.compile(SignalNetwork.features)

    def features(self, x: Tensor) -> Tensor:
        """The last map, (rows, members x width, *size); of a mixer (members, rows, width, tokens)."""
        h = self._resized((with_ramp(x) if self.plan.ramp else x).transpose(0, 1).flatten(1, 2))
        if self.channels_last and h.dim() == 4:
            h = h.contiguous(memory_format=torch.channels_last)
        h = self.stem(h)
        if self.plan.patch:
            return self._mixed(h)
        entry = h
        for block, plan in zip(self.blocks, self.plan.blocks, strict=True):
            if isinstance(block, InceptionBlock):
                h = block(h, entry)
                entry = h if plan.shortcut else entry
            else:
                h = block(h)
            if plan.pool:
                h = POOLING[plan.pool][self.plan.axes](h, 2)
        out: Tensor = self.last(h)
        return out

    def _resized(self, h: Tensor) -> Tensor:
        if tuple(h.shape[2:]) == self.plan.size:
            return h
        if self.plan.axes == 1:
            return F.adaptive_avg_pool1d(h, self.plan.size[0])
        return F.interpolate(h, self.plan.size, mode="bilinear", antialias=True, align_corners=False)

    def _mixed(self, h: Tensor) -> Tensor:
        tokens = members_apart(h, self.members).flatten(3).permute(1, 0, 3, 2)
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.last(tokens.flatten(1, 2)).view(tokens.shape)
        return normed.transpose(2, 3)

    def _pooled(self, h: Tensor) -> Tensor:
        """(members, rows, numbers) for the output layer."""
        if not self.plan.patch:
            h = members_apart(h, self.members).transpose(0, 1)
        h = h.flatten(3)
        if self.plan.head == "flatten":
            return h.flatten(2)
        return h.amax(dim=3) if self.plan.head == "max" else h.mean(dim=3)

    def _drop(self, h: Tensor, noise: torch.Generator | None) -> Tensor:
        """After the last normalization alone: dropout before one shifts its statistics (Li et al. 2019)."""
        if not self.training or not self.plan.dropout:
            return h
        keep = 1 - self.plan.dropout
        return h * torch.empty_like(h).bernoulli_(keep, generator=noise).div_(keep)

    def head_parameters(self) -> list[nn.Parameter]:
        """The classifier on top."""
        return list(self.head.parameters())

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on: kernels and matrices,
        neither biases nor normalization."""
        matrices = [m.weight for m in self.modules() if isinstance(m, StackedConvolution | StackedLinear)]
        recurrent = [m for m in self.modules() if isinstance(m, RecurrentBlock)]
        return matrices + [
            w for m in recurrent for name, w in m.named_parameters() if name.startswith("weight")
        ]


class SignalShape(PlannedShape):
    """Of an image or a sequence that has one target."""

    plan, built, memory = staticmethod(plan_of), SignalNetwork, staticmethod(memory_bytes)
