"""Networks for tables, several of one shape stacked: every weight has a leading member dimension.

A stack trains K folds or seeds in one batched matrix product per layer, 1.2 to 4 times faster
than one by one on a CPU. The members never exchange anything: member m's output and gradient
depend on member m's weights and rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.networks.network import Network
from advisor.networks.pretrained.start import InputLabels, Label, Start, moved

EVALUATION_ROWS = 8192
"""Rows per forward pass without gradients: bounds the memory of wide networks on large tables."""
BINS = ("numbers.left", "numbers.width")
"""Where the bins of a piecewise linear embedding are."""
ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "selu": F.selu,
}


@dataclass(frozen=True)
class InputShape:
    """What the preprocessing hands over: column counts, and the embedding rows
    that each embedded column needs."""

    numeric: int
    indicators: int
    code_counts: tuple[int, ...]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> InputShape:
        """The shape of which ``dataclasses.asdict`` made plain data."""
        return cls(plain["numeric"], plain["indicators"], tuple(plain["code_counts"]))

    def network(
        self,
        configuration: Mapping[str, Any],
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        bins: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> TableNetwork:
        """The network for inputs of this shape; see ``TableNetwork``."""
        return TableNetwork(
            configuration, self, outputs, members=members, generator=generator, bins=bins, prior=prior
        )

    def planned_memory(self, configuration: Mapping[str, Any], outputs: int, members: int) -> None:
        """No plan tells it."""

    @staticmethod
    def saved_bins(state: Mapping[str, Tensor]) -> Tensor | None:
        """Bins for a network of these weights; only their shape counts, the edges come with the weights."""
        bins = state.get("numbers.left")
        return None if bins is None else torch.zeros(bins.shape[0], bins.shape[3] + 1, bins.shape[2])


def initialize(
    weight: Tensor, how: str, generator: torch.Generator, fans: tuple[int, int] | None = None
) -> None:
    """Fill a (members, fan_in, fan_out) weight in place, or one of any shape
    with its (fan_in, fan_out) given.

    he: variance 2 / fan_in (He et al. 2015); xavier: 2 / (fan_in + fan_out) (Glorot
    and Bengio 2010); lecun: 1 / fan_in;
    torch_default: what ``nn.Linear`` does, uniform within 1 / sqrt(fan_in), so a variance of 1 / (3 fan_in).
    """
    fan_in, fan_out = fans or (weight.shape[-2], weight.shape[-1])
    variance = {
        "he_normal": 2 / fan_in,
        "he_uniform": 2 / fan_in,
        "xavier_normal": 2 / (fan_in + fan_out),
        "xavier_uniform": 2 / (fan_in + fan_out),
        "lecun_normal": 1 / fan_in,
        "torch_default": 1 / (3 * fan_in),
    }[how]
    with torch.no_grad():
        if how.endswith("normal"):
            weight.normal_(0.0, math.sqrt(variance), generator=generator)
        else:
            bound = math.sqrt(3 * variance)
            weight.uniform_(-bound, bound, generator=generator)


class StackedLinear(nn.Module):
    """(members, rows, inputs) -> (members, rows, outputs), each member with its own weight and bias."""

    def __init__(self, members: int, inputs: int, outputs: int, how: str, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))
        if how != "zero" and inputs:
            initialize(self.weight, how, generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class StackedNorm(nn.Module):
    """Batch or layer normalization of (members, rows, width) with an affine map per member."""

    def __init__(
        self, members: int, width: int, kind: str, momentum: float = 0.1, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.kind, self.momentum, self.epsilon = kind, momentum, epsilon
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))
        if kind == "batch":
            self.running_mean: Tensor
            self.running_variance: Tensor
            self.register_buffer("running_mean", torch.zeros(members, 1, width))
            self.register_buffer("running_variance", torch.ones(members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            variance, mean = torch.var_mean(x, dim=2, keepdim=True, correction=0)
        elif self.training and x.shape[1] > 1:
            variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_variance.lerp_(variance * (x.shape[1] / (x.shape[1] - 1)), self.momentum)
        else:
            mean, variance = self.running_mean, self.running_variance
        return (x - mean) * torch.rsqrt(variance + self.epsilon) * self.scale + self.shift


class StackedEmbedding(nn.Module):
    """Codes (members, rows, columns) -> (members, rows, columns * size); code 0, an
    unseen level, is the zero vector."""

    def __init__(self, members: int, counts: tuple[int, ...], size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.rows = sum(counts)
        self.weight = nn.Parameter(
            torch.empty(members, self.rows, size).normal_(0.0, 1 / math.sqrt(size), generator=generator)
        )
        offsets = torch.tensor([0, *counts[:-1]]).cumsum(0)
        self.offsets: Tensor
        self.starts: Tensor
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("starts", torch.arange(members)[:, None, None] * self.rows, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        index = codes + self.offsets + self.starts
        looked_up = F.embedding(index, self.weight.flatten(0, 1))
        return (looked_up * (codes != 0).unsqueeze(-1)).flatten(2)


class PiecewiseLinear(nn.Module):
    """Numbers -> vectors: a linear part plus a learned value per quantile bin, started at zero.

    Gorishniy et al. 2022, On Embeddings for Numerical Features; the version of the TabM repository.
    """

    def __init__(self, bins: Tensor, size: int, generator: torch.Generator) -> None:
        super().__init__()
        members, edges, columns = bins.shape
        self.left: Tensor
        self.width: Tensor
        self.register_buffer("left", bins[:, :-1].transpose(1, 2).unsqueeze(1).contiguous())
        # equal neighbouring edges make a bin of no width: with this floor it becomes a step at that value
        self.register_buffer(
            "width", (bins[:, 1:] - bins[:, :-1]).transpose(1, 2).unsqueeze(1).clamp(min=1e-6)
        )
        self.linear = nn.Parameter(
            torch.empty(members, 1, columns, size).uniform_(-1, 1, generator=generator)
        )
        self.bias = nn.Parameter(torch.empty(members, 1, columns, size).uniform_(-1, 1, generator=generator))
        self.weight = nn.Parameter(torch.zeros(members, columns, edges - 1, size))

    def forward(self, x: Tensor) -> Tensor:
        filled = ((x.unsqueeze(-1) - self.left) / self.width).clamp(0.0, 1.0)
        learned = torch.einsum("mbct,mctd->mbcd", filled, self.weight)
        return (x.unsqueeze(-1) * self.linear + self.bias + learned).flatten(2)


class Periodic(nn.Module):
    """Numbers -> vectors by trained frequencies: the PBLD embedding of RealMLP (Holzmueller et al. 2024)."""

    FREQUENCIES = 16

    def __init__(
        self, members: int, columns: int, size: int, sigma: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        k = self.FREQUENCIES
        self.frequency = nn.Parameter(
            torch.empty(members, 1, columns, k).normal_(0.0, sigma, generator=generator)
        )
        self.phase = nn.Parameter(
            torch.empty(members, 1, columns, k).uniform_(-math.pi, math.pi, generator=generator)
        )
        bound = 1 / math.sqrt(k)
        self.weight = nn.Parameter(
            torch.empty(members, columns, k, size - 1).uniform_(-bound, bound, generator=generator)
        )
        self.bias = nn.Parameter(
            torch.empty(members, 1, columns, size - 1).uniform_(-bound, bound, generator=generator)
        )

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.cos(2 * math.pi * self.frequency * x.unsqueeze(-1) + self.phase)
        learned = torch.einsum("mbck,mckd->mbcd", wave, self.weight) + self.bias
        return torch.cat([x.unsqueeze(-1), learned], dim=-1).flatten(2)


class ColumnScale(nn.Module):
    """A learned factor per input column, 1 at the start: columns that tell
    nothing can be turned down as a whole.

    The scaling layer of RealMLP (Holzmueller et al. 2024), with one factor for all inputs that
    stand for one column. counts and sizes: of each part of the inputs, in their order, its columns
    and the inputs that stand for one of them.
    """

    def __init__(self, members: int, counts: tuple[int, ...], sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.counts, self.sizes = counts, sizes
        self.factor = nn.Parameter(torch.ones(members, 1, sum(counts)))

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(torch.split(self.factor, list(self.counts), dim=2), self.sizes, strict=True)
        # not by an index: its gradient adds up in no fixed order on a GPU
        return x * torch.cat(
            [part.unsqueeze(-1).expand(-1, -1, -1, size).flatten(2) for part, size in parts], dim=2
        )


class Block(nn.Module):
    """Linear, normalization, activation, dropout; a residual block normalizes first
    and adds its input (He et al. 2016)."""

    def __init__(
        self,
        members: int,
        inputs: int,
        width: int,
        configuration: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.residual = configuration["block"] == "residual" and inputs == width
        self.linear = StackedLinear(members, inputs, width, configuration["weight_init"], generator)
        norm = configuration["norm"]
        self.norm = None if norm == "none" else StackedNorm(members, width, norm)
        self.activation = ACTIVATIONS[configuration["activation"]]
        self.dropout = float(configuration["dropout"])

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        if self.residual:
            h = x if self.norm is None else self.norm(x)
            return x + self._drop(self.activation(self.linear(h)), noise)  # type: ignore[no-untyped-call]
        h = self.linear(x)
        h = h if self.norm is None else self.norm(h)
        return self._drop(self.activation(h), noise)  # type: ignore[no-untyped-call]

    def _drop(self, h: Tensor, noise: torch.Generator | None) -> Tensor:
        if not self.training or not self.dropout:
            return h
        keep = 1 - self.dropout
        # not F.dropout: it can only draw from the process's global generator
        return h * torch.empty_like(h).bernoulli_(keep, generator=noise).div_(keep)


class TableNetwork(Network):
    """Embeddings, blocks and a head for tables; ``members`` independent networks in one.

    configuration: the architecture, initialization and input parameters of ``search_spaces/tables.yaml``.
    bins: (members, bins + 1, numeric columns) when the numeric embedding is piecewise linear.
    prior: (members, outputs), the head's bias at the start when ``output_init`` is zero: the logarithms of
    the class shares, so that the first loss is that of the class shares.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        shape: InputShape,
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        bins: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        embedding, size = configuration["numeric_embedding"], int(configuration["numeric_embedding_dim"])
        self.numbers: nn.Module | None = None
        number_size = 1
        if embedding != "none" and shape.numeric:
            number_size = size
            if embedding == "piecewise_linear":
                assert bins is not None
                self.numbers = PiecewiseLinear(bins, size, generator)
            else:
                sigma = float(configuration["periodic_sigma"])
                self.numbers = Periodic(members, shape.numeric, size, sigma, generator)
        category_size = int(configuration["category_embedding_dim"])
        self.categories: nn.Module | None = None
        if shape.code_counts:
            self.categories = StackedEmbedding(members, shape.code_counts, category_size, generator)
        counts = (shape.numeric, shape.indicators, len(shape.code_counts))
        self.sizes = sizes = (number_size, 1, category_size)
        inputs = sum(count * size for count, size in zip(counts, sizes, strict=True))
        scaled = inputs and configuration.get(
            "column_scale_rate", 0
        )  # runs begun before there was such a rate have none
        self.scale = ColumnScale(members, counts, sizes) if scaled else None

        widths = [inputs] + [int(configuration["width"])] * int(configuration["hidden_layers"])
        self.blocks = nn.ModuleList(
            Block(members, before, after, configuration, generator) for before, after in pairwise(widths)
        )
        zero = configuration["output_init"] == "zero"
        self.head = StackedLinear(
            members, widths[-1], outputs, "zero" if zero else configuration["weight_init"], generator
        )
        if zero and prior is not None:
            with torch.no_grad():
                self.head.bias.copy_(prior.unsqueeze(1))
        self.skip = (
            StackedLinear(members, inputs, outputs, "zero", generator)
            if configuration["linear_skip"]
            else None
        )

    def forward(
        self, numeric: Tensor, indicators: Tensor, codes: Tensor, noise: torch.Generator | None = None
    ) -> Tensor:
        """(members, rows, columns) of each kind -> (members, rows, outputs):
        logits, or the standardized target.

        noise: what dropout draws from in training mode, a generator on the
            inputs' device; None is torch's global one.
        """
        parts = [numeric if self.numbers is None else self.numbers(numeric), indicators]
        if self.categories is not None:
            parts.append(self.categories(codes))
        x = torch.cat(parts, dim=2)
        x = x if self.scale is None else self.scale(x)
        h = x
        for block in self.blocks:
            h = block(h, noise)
        out: Tensor = self.head(h)
        return out if self.skip is None else out + self.skip(x)

    def begin_with(self, start: Start, labels: Sequence[InputLabels | None]) -> None:
        """As every network; what reads a column takes the weights of that column, whatever its place."""
        own, state = dict(self.state_dict(keep_vars=True)), dict(start.state)
        axes = self._input_axes()
        heads = {id(weight) for weight in self.head_parameters()}
        read = [name for name in axes if start.same_outputs or id(own[name]) not in heads]
        with torch.no_grad():
            for name in (name for name in read if name in state):
                axis, part = axes[name]
                for member, mine in enumerate(labels):
                    earlier = member % start.members
                    assert mine is not None, "the inputs of a table have labels"
                    to, of = self._labels(part, mine), self._labels(part, start.labels[earlier])
                    own[name][member] = moved(own[name][member], state[name][earlier], axis, to, of)
        rest = {name: tensor for name, tensor in state.items() if name not in self.of_inputs()}
        super().begin_with(replace(start, state=rest), labels)

    def of_inputs(self) -> Collection[str]:
        """Names of the weights whose shape follows from the inputs' columns, and of bins."""
        return {*self._input_axes(), *BINS}

    def _input_axes(self) -> dict[str, tuple[int, str]]:
        """Weights that read columns: of a member the axis of the inputs, and which they are."""
        first = "blocks.0.linear" if self.blocks else "head"
        axes = {f"{first}.weight": (0, "inputs")}
        if self.skip is not None:
            axes["skip.weight"] = (0, "inputs")
        if self.scale is not None:
            axes["scale.factor"] = (1, "columns")
        if self.categories is not None:
            axes["categories.weight"] = (0, "codes")
        if isinstance(self.numbers, PiecewiseLinear):
            axes |= {"numbers.linear": (1, "numeric"), "numbers.bias": (1, "numeric")}
            axes["numbers.weight"] = (0, "numeric")
        if isinstance(self.numbers, Periodic):
            axes |= {"numbers.frequency": (1, "numeric"), "numbers.phase": (1, "numeric")}
            axes |= {"numbers.weight": (0, "numeric"), "numbers.bias": (0, "numeric")}
        return axes

    def _labels(self, part: str, labels: InputLabels) -> Sequence[Label]:
        """Of the inputs of a weight, in its order."""
        if part in ("numeric", "codes"):
            known: Sequence[Label] = getattr(labels, part)
            return known
        of_kind = zip((labels.numeric, labels.indicators, labels.embedded), self.sizes, strict=True)
        if part == "columns":
            return [label for kind, _ in of_kind for label in kind]
        return [(*label, str(place)) for kind, size in of_kind for label in kind for place in range(size)]

    @property
    def rows_per_pass(self) -> int:
        """Rows of each member that one pass without gradients takes at a time."""
        return max(1, EVALUATION_ROWS // self.head.weight.shape[0])

    def head_parameters(self) -> list[nn.Parameter]:
        """The classifier on top: the output layer, and the linear path beside the
        hidden layers where there is one."""
        return [*self.head.parameters(), *([] if self.skip is None else self.skip.parameters())]

    def rates(self, configuration: Mapping[str, Any]) -> list[tuple[float, list[nn.Parameter]]]:
        """Factors of columns learn faster."""
        rate = float(configuration.get("column_scale_rate", 0))
        return [] if self.scale is None else [(rate, [self.scale.factor])]

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on: matrices, neither biases nor
        normalization nor embeddings of numbers."""
        return [module.weight for module in self.modules() if isinstance(module, StackedLinear)]
