"""A saved model as one torch module, its preprocessing inside: arrays of rows in, scores out.

It computes what ``Model.scores`` does in operations that exporters know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.networks.kernels import KERNELS, SPAN
from advisor.networks.pretrained.backbone import FrozenBackbone
from advisor.runs.model import Model
from advisor.tasks import SMALLEST_PROBABILITY, TargetKind
from advisor.training.loop import Fitted
from advisor.training.preprocessing import RESERVED_CODES, SMOOTH_CLIP, WAVE_DIGITS, Preprocessor
from advisor.training.signal_inputs import (
    SMALLEST_SCALE,
    BackbonePreprocessor,
    KernelPreprocessor,
    SignalPreprocessor,
)
from advisor.training.targets import stretched

LEAST_RANK, MOST_RANK = 0.0035, 0.9965
"""As in the quantile scaling of ``training/preprocessing.py``."""
ROUNDED = 10.0**WAVE_DIGITS
ACKLAM_A = (
    -39.69683028665376, 220.9460984245205, -275.9285104469687, 138.3577518672690, -30.66479806614716,
    2.506628277459239,
)  # fmt: skip
ACKLAM_B = (
    -54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1.0,
)  # fmt: skip
ACKLAM_C = (
    -0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968,
    2.938163982698783,
)  # fmt: skip
ACKLAM_D = (0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0)
"""The normal quantile as rational functions (Acklam 2003), relative error below 1.2e-9: ONNX has none."""
ACKLAM_LOW = 0.02425


class ModelModule(nn.Module):
    """Rows as arrays -> probabilities (rows, classes), of masks (rows, classes, height, width), predictions
    (rows,), or the boxes that each network found (rows, networks, MOST_FOUND, 6), in double precision.

    Tables: ``numeric`` double (rows, numeric columns), NaN is missing, and ``categorical`` int64 (rows,
    categorical columns), -1 is missing and -2 unknown; the columns as ``Features`` has them. Images, also
    those with masks or boxes: uint8 (rows, channels, height, width). Series: float32 (rows, channels,
    length), NaN before their begin and after their end.
    """

    def __init__(self, model: Model, *, double: bool = False) -> None:
        """double: networks in double precision too, for runtimes whose 32-bit functions are coarser."""
        super().__init__()
        self.of_classes, self.temperature = model.task.of_classes, model.temperature
        self.read = READ[model.task.target]
        self.stacks = nn.ModuleList(StackModule(stack, self.read, double) for stack in model.stacks)

    def forward(self, *rows: Tensor) -> Tensor:
        """The mean over the stacks, which the temperature then flattens or sharpens; boxes side by side."""
        mean = self.read.joined([stack(*rows) for stack in self.stacks])
        if not self.of_classes:
            return mean
        logs = mean.clamp(SMALLEST_PROBABILITY, 1.0).log() / self.temperature
        return logs.softmax(dim=1)


class StackModule(nn.Module):
    """One fitted stack; the mean over its members."""

    mean: Tensor
    scale: Tensor
    knee: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, stack: Fitted, read: OutputsRead, double: bool) -> None:
        super().__init__()
        self.read, self.double_precision = read, double
        self.split = list(stack.member_split)
        self.network = stack.network("cpu").requires_grad_(False).exportable()
        if double:
            self.network.double()
        self.inputs = nn.ModuleList(PART_OF[type(one)](one, stack.shape) for one in stack.preprocessors)
        scaling = stack.target_scaling
        for name in ("mean", "scale", "knee"):
            self.register_buffer(name, torch.from_numpy(getattr(scaling, name).copy())[:, None])
        self.register_buffer("low", torch.from_numpy(scaling.range[:, :1].copy()))
        self.register_buffer("high", torch.from_numpy(scaling.range[:, 1:].copy()))

    def forward(self, *rows: Tensor) -> Tensor:
        """Scores of the rows."""
        parts = [part(*rows) for part in self.inputs]
        inputs = [torch.stack([parts[split][k] for split in self.split]) for k in range(len(parts[0]))]
        if self.double_precision:
            inputs = [part.double() if part.is_floating_point() else part for part in inputs]
        out: Tensor = self.network(*inputs).double()
        return self.read.scores(self, out)


@dataclass(frozen=True)
class OutputsRead:
    """How outputs become scores, of one kind of target.

    scores: a stack and its outputs (members, rows, ...) -> (rows, ...). joined: those of all stacks as one.
    """

    scores: Callable[[StackModule, Tensor], Tensor]
    joined: Callable[[Sequence[Tensor]], Tensor] = lambda parts: torch.stack([*parts]).mean(dim=0)


def _numbers(stack: StackModule, out: Tensor) -> Tensor:
    values = stretched(out[:, :, 0] * stack.scale + stack.mean, stack.knee)
    return torch.minimum(torch.maximum(values, stack.low), stack.high).mean(dim=0)


READ: Mapping[TargetKind, OutputsRead] = {
    "class": OutputsRead(lambda stack, out: out.softmax(dim=2).mean(dim=0)),
    "mask": OutputsRead(lambda stack, out: out.softmax(dim=2).mean(dim=0)),
    "number": OutputsRead(_numbers),
    "boxes": OutputsRead(lambda stack, out: out.transpose(0, 1), lambda parts: torch.cat([*parts], dim=1)),
}


class TablePart(nn.Module):
    """``Preprocessor.transform`` of one split: numbers, indicators and codes."""

    centre: Tensor
    scale: Tensor
    quantiles: Tensor
    latest: Tensor
    code_maps: Tensor

    def __init__(self, fitted: Preprocessor, shape: Any) -> None:
        super().__init__()
        self.scaling, self.width = fitted.scaling, int(shape.indicators)
        words = np.asarray(fitted.words, bool)
        cycles, products = np.array(fitted.cycles), np.array(fitted.products, np.int64)
        count = len(fitted.centre) - 2 * len(cycles) - len(products) + int(words.sum())
        self.rounding, self.periods = cycles[:, 0].astype(int).tolist(), cycles[:, 1].tolist()
        self.products = products.tolist()
        self.words, self.plain = np.flatnonzero(words).tolist(), np.flatnonzero(~words).tolist()
        self.plain = self.plain if len(words) else list(range(count))
        self.missing = [int(column) for column in fitted.missing_columns]
        self.one_hot = [int(column) for column in fitted.one_hot_columns]
        self.embedded = [int(column) for column in fitted.embedded_columns]
        self.counts = [int(count) for count in fitted.code_counts]
        self.has_latest = len(fitted.latest) > 0
        for name in ("centre", "scale", "quantiles", "latest", "code_maps"):
            array = np.array(getattr(fitted, name))
            if array.size:  # torch.export cannot save an empty one
                self.register_buffer(name, torch.from_numpy(array))

    def forward(self, numeric: Tensor, categorical: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the network reads them, for one member."""
        plain = numeric[:, self.plain]
        if not self.plain:
            return plain.float(), *self._others(numeric, categorical, plain)
        known = self._with_calendar(plain)
        values = torch.minimum(known, self.latest) if self.has_latest else known
        # a comparison with NaN is False in every runtime
        values = torch.where(torch.isnan(known), known, values)
        return self._scaled(values).float(), *self._others(numeric, categorical, plain)

    def _with_calendar(self, plain: Tensor) -> Tensor:
        """As ``preprocessing.with_calendar`` does it."""
        waves = []
        for column, period in zip(self.rounding, self.periods, strict=True):
            angle = 2 * math.pi * plain[:, column] / period
            # onnxruntime has no cosine in double precision
            waves += [(wave.sin() * ROUNDED).round() / ROUNDED for wave in (angle, angle + math.pi / 2)]
        known = torch.cat([plain, *(wave[:, None] for wave in waves)], dim=1) if waves else plain
        crossed = [(known[:, one] * known[:, other])[:, None] for one, other in self.products]
        return torch.cat([known, *crossed], dim=1) if crossed else known

    def _others(self, numeric: Tensor, categorical: Tensor, plain: Tensor) -> tuple[Tensor, Tensor]:
        """Indicators and codes."""
        blocks = [torch.isnan(plain[:, self.missing]).float()]
        for column in self.one_hot:
            levels = torch.arange(1, self.counts[column])
            blocks.append((self._codes(categorical, column)[:, None] == levels[None, :]).float())
        if self.words:
            blocks.append(numeric[:, self.words].float())
        indicators = torch.cat(blocks, dim=1)
        # a split that knows fewer levels has its columns padded with zeros
        if lacking := self.width - indicators.shape[1]:
            indicators = torch.cat([indicators, indicators.new_zeros(indicators.shape[0], lacking)], dim=1)
        codes = [self._codes(categorical, column)[:, None] for column in self.embedded]
        return indicators, torch.cat(codes, dim=1) if codes else categorical[:, :0]

    def _codes(self, categorical: Tensor, column: int) -> Tensor:
        return self.code_maps[column].index_select(0, categorical[:, column] + RESERVED_CODES)

    def _scaled(self, values: Tensor) -> Tensor:
        missing = torch.isnan(values)
        known = torch.where(missing, self.centre, values)
        if self.scaling == "quantile":
            scaled = self._normal_scores(known)
        else:
            scaled = (known - self.centre) / torch.where(self.scale > 0, self.scale, 1.0)
            if self.scaling == "robust":
                scaled = scaled.clamp(-1e9, 1e9)
                scaled = scaled / (1 + (scaled / SMOOTH_CLIP).square()).sqrt()
        return torch.where(missing | (self.scale == 0), 0.0, scaled.clamp(-1e3, 1e3))

    def _normal_scores(self, values: Tensor) -> Tensor:
        left, right = self.quantiles[:-1].T, self.quantiles[1:].T
        x = values.unsqueeze(2)
        width = torch.where(right > left, right - left, 1.0)
        within = ((x - left) / width).clamp(0.0, 1.0)
        # a step of no width is half passed by a value that lies on it: the middle of its ranks
        steps = 0.5 * ((x >= left).double() + (x > left).double())
        rank = torch.where(right > left, within, steps).mean(dim=2)
        return _normal_quantile(rank.clamp(LEAST_RANK, MOST_RANK))


class SignalPart(nn.Module):
    """``SignalInputs.inputs`` of one split."""

    mean: Tensor
    scale: Tensor

    def __init__(self, fitted: Any, shape: Any = None) -> None:
        super().__init__()
        self.scaling, self.masked = fitted.scaling, bool(fitted.masked[0])
        self.register_buffer("mean", torch.from_numpy(np.array(fitted.mean)))
        self.register_buffer("scale", torch.from_numpy(np.array(fitted.scale)))

    def forward(self, values: Tensor) -> tuple[Tensor]:
        """As the network reads them, for one member."""
        x = values.float()
        ones = [1] * (x.dim() - 2)
        there = ~torch.isnan(x)
        x = torch.where(there, x, 0.0)
        if self.scaling == "instance":
            x = _by_itself(x, there.float())
        else:
            x = (x - self.mean.view(1, -1, *ones)) / self.scale.view(1, -1, *ones)
        x = torch.where(there, x, 0.0)
        return (torch.cat([x, there.float().mean(dim=1, keepdim=True)], dim=1) if self.masked else x,)


class KernelPart(nn.Module):
    """``KernelPreprocessor.transform`` of one split: the features of fixed convolutions."""

    mean: Tensor
    scale: Tensor

    def __init__(self, fitted: KernelPreprocessor, shape: Any) -> None:
        super().__init__()
        self.points = SignalPart(fitted.points)
        self.register_buffer("mean", torch.from_numpy(fitted.mean.copy()))
        self.register_buffer("scale", torch.from_numpy(fitted.scale.copy()))
        channels = len(fitted.points.mean) + self.points.masked
        self.dilations = [int(dilation) for dilation in fitted.kernels.dilations]
        for number, quantiles in enumerate(fitted.kernels.quantiles):
            weights = np.zeros((len(KERNELS), SPAN, channels))
            for k, (kernel, some) in enumerate(zip(KERNELS, fitted.kernels.channels[number], strict=True)):
                weights[k][:, some] = -1.0
                weights[k][np.ix_(kernel, some)] = 2.0
            inner = (number + np.arange(len(KERNELS))) % 2 == 1
            self.register_buffer(f"weights_{number}", torch.from_numpy(weights).flatten(1))
            self.register_buffer(f"quantiles_{number}", torch.from_numpy(quantiles.astype(np.float64)))
            self.register_buffer(f"inner_{number}", torch.from_numpy(inner)[:, None])

    def forward(self, values: Tensor) -> tuple[Tensor]:
        """As the network reads them, for one member."""
        [x] = self.points(values)
        x = F.pad(x.double(), (0, max(0, SPAN - x.shape[2])))
        found = [self._shares(x, number, dilation) for number, dilation in enumerate(self.dilations)]
        return ((torch.cat(found, dim=1) - self.mean) / self.scale,)

    def _shares(self, x: Tensor, number: int, dilation: int) -> Tensor:
        """Of the points at which the kernels of one dilation are above each of their quantiles."""
        reach, length = dilation * (SPAN // 2), x.shape[2]
        padded = F.pad(x, (reach, reach))
        shifted = [padded[:, :, place * dilation : place * dilation + length] for place in range(SPAN)]
        # a matrix product, because runtimes have convolutions in single precision alone
        output = torch.matmul(getattr(self, f"weights_{number}"), torch.stack(shifted, dim=1).flatten(1, 2))
        above = (output.unsqueeze(2) > getattr(self, f"quantiles_{number}").unsqueeze(2)).float()
        inside = above[:, :, :, reach : length - reach]
        return torch.where(getattr(self, f"inner_{number}"), inside.mean(dim=3), above.mean(dim=3)).flatten(1)


class FrozenPart(nn.Module):
    """``BackbonePreprocessor`` of one split: the features of a backbone."""

    mean: Tensor
    scale: Tensor

    def __init__(self, fitted: BackbonePreprocessor, shape: Any) -> None:
        super().__init__()
        weights = {name: torch.from_numpy(np.array(array)) for name, array in fitted.weights.items()}
        self.backbone = FrozenBackbone(fitted.shape, weights)
        self.register_buffer("mean", torch.from_numpy(np.array(fitted.mean)))
        self.register_buffer("scale", torch.from_numpy(np.array(fitted.scale)))

    def forward(self, values: Tensor) -> tuple[Tensor]:
        """As the network reads them, for one member."""
        return ((self.backbone(values) - self.mean) / self.scale,)


PART_OF: Mapping[type, Callable[[Any, Any], nn.Module]] = {
    Preprocessor: TablePart,
    SignalPreprocessor: SignalPart,
    KernelPreprocessor: KernelPart,
    BackbonePreprocessor: FrozenPart,
}
"""The module of each kind of fitted statistics, of these and a network's shape."""


def _by_itself(x: Tensor, there: Tensor) -> Tensor:
    axes = list(range(2, x.dim()))
    count = there.sum(dim=axes, keepdim=True).clamp(min=1.0)
    mean = x.sum(dim=axes, keepdim=True) / count
    away = x - mean
    variance = (there * away.square()).sum(dim=axes, keepdim=True) / count
    return away / torch.where(variance > SMALLEST_SCALE**2, variance.sqrt(), 1.0)


def _normal_quantile(rank: Tensor) -> Tensor:
    near = rank - 0.5
    square = near * near
    middle = _polynomial(ACKLAM_A, square) * near / _polynomial(ACKLAM_B, square)
    tail = torch.minimum(rank, 1 - rank).clamp(max=ACKLAM_LOW)
    far = (-2 * tail.log()).sqrt()
    outer = _polynomial(ACKLAM_C, far) / _polynomial(ACKLAM_D, far)
    outer = torch.where(near < 0, outer, -outer)
    return torch.where(near.abs() <= 0.5 - ACKLAM_LOW, middle, outer)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    # as a tensor: ONNX exporters write a plain number with 32 bits, too few for what cancels out here
    exact = torch.tensor(coefficients, dtype=x.dtype)
    value = exact[0].expand_as(x)
    for number in range(1, len(coefficients)):
        value = value * x + exact[number]
    return value
