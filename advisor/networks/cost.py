"""What training takes, predicted from the configuration: bytes on the device, and an epoch's time.

Counted as the network is built and trained (``networks/tables.py``, ``loop.py``), with 4 bytes a number: good
to a factor of 2 to 3 (`tests/training/test_cost.py` holds it against what torch keeps), which is why what was
seen corrects it (``sizing.Sizing``, ``pace.Pace``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from advisor.dataset import Features, Signals
from advisor.networks.decoder_plan import (
    DecoderPlan,
    crops_of,
    decoder_cost,
    decoder_memory,
    decoder_plan_of,
    decoder_problem,
)
from advisor.networks.detection.plan import (
    DetectionPlan,
    detection_cost,
    detection_memory,
    detection_plan_of,
    detection_problem,
)
from advisor.networks.geometry import map_numbers, memory_bytes, multiplications, problem
from advisor.networks.kernels import kernel_features
from advisor.networks.plan import NetworkPlan, plan_of
from advisor.networks.pretrained.cost import BackboneCost
from advisor.networks.pretrained.names import backbone_name, is_frozen

BYTES = 4
READ = frozenset(
    {
        "hidden_layers",
        "width",
        "numeric_embedding",
        "numeric_embedding_dim",
        "category_embedding_dim",
        "one_hot_max",
    }
)
"""Parameters without which there is no prediction: those of the networks for tables."""
FREQUENCIES = 16
"""``networks.Periodic.FREQUENCIES``, which lies behind an import of torch."""
KEPT_BY_OPTIMIZER = {"adamw": 2, "adam": 2, "nadam": 2, "rmsprop": 2, "adagrad": 1, "adadelta": 2, "sgd": 1}
"""Numbers that the optimizer keeps beside each weight."""
STEP_SECONDS, MULTIPLICATION_SECONDS, NUMBER_SECONDS = 3e-3, 1.5e-10, 2e-9
"""Of an optimizer's step, and of each multiplication and number of a row, forward and backward, rounded. On
one core of 2026 complete trials of five sets took 0.8 to 1.6 times as long, by the medians; within a set
nine of ten 0.5 to 1.6 of the median."""
KEPT_BESIDE = 3
"""The weight itself, its gradient, and the best one so far."""


@dataclass(frozen=True)
class TableSize:
    """A data set as far as memory goes.
    levels: of each categorical column;
    outputs: classes, or 1;
    words: columns of them."""

    rows: int
    numeric: int
    missing: int
    levels: tuple[int, ...]
    outputs: int
    words: int = 0

    @classmethod
    def of(cls, features: Features, outputs: int) -> TableSize:
        return cls(
            len(features),
            features.numeric.shape[1] - len(features.words),
            int(np.isnan(features.numeric).any(axis=0).sum()),
            tuple(len(levels) for levels in features.levels),
            outputs,
            len(features.words),
        )


def weights(configuration: Mapping[str, Any], table: TableSize) -> int:
    """Trained numbers of one network."""
    inputs, total = _inputs(configuration, table), 0
    size, codes = int(configuration["category_embedding_dim"]), _embedded(configuration, table)
    total += sum(levels + 2 for levels in codes) * size
    dim, kind = int(configuration["numeric_embedding_dim"]), configuration["numeric_embedding"]
    if kind == "piecewise_linear":
        total += table.numeric * dim * (2 + int(configuration.get("numeric_embedding_bins", 0)))
    elif kind != "none":
        total += table.numeric * (2 * FREQUENCIES + (FREQUENCIES + 1) * (dim - 1))
    widths = _widths(configuration, inputs)
    normalized = 2 if configuration.get("norm", "none") != "none" else 0
    total += sum(before * after + after + normalized * after for before, after in pairwise(widths))
    total += (widths[-1] + 1) * table.outputs
    return total + ((inputs + 1) * table.outputs if configuration.get("linear_skip") else 0)


def numbers_per_row(configuration: Mapping[str, Any], table: TableSize) -> int:
    """Numbers that a step keeps for one row of one network until its gradients are there."""
    inputs = _inputs(configuration, table)
    kind, dim = configuration["numeric_embedding"], int(configuration["numeric_embedding_dim"])
    kept = inputs + _columns(configuration, table)
    if kind == "piecewise_linear":
        kept += table.numeric * (int(configuration.get("numeric_embedding_bins", 0)) + dim)
    elif kind != "none":
        kept += table.numeric * 3 * FREQUENCIES
    # Of each layer: its product, the activation's output; what normalization and dropout keep beside.
    per_layer: int = (
        2
        + 2 * (configuration.get("norm", "none") != "none")
        + 2 * (float(configuration.get("dropout", 0)) > 0)
    )
    return (
        kept
        + per_layer * int(configuration["hidden_layers"]) * int(configuration["width"])
        + 4 * table.outputs
    )


def predicted_memory(
    configuration: Mapping[str, Any], table: TableSize, rows: int, members: int, splits: int
) -> float:
    """Bytes: the inputs of all rows under every split, ``members`` networks, and
    a step with ``rows`` rows of each."""
    data = table.rows * splits * (_columns(configuration, table) + 2 * len(_embedded(configuration, table)))
    kept = KEPT_BESIDE + KEPT_BY_OPTIMIZER.get(str(configuration.get("optimizer")), 2)
    networks = members * weights(configuration, table) * kept
    step = members * rows * numbers_per_row(configuration, table)
    return float(BYTES * (data + networks + step))


def multiplications_per_row(configuration: Mapping[str, Any], table: TableSize) -> int:
    """Of one row's way through the network: each weight is used once, and of an embedding one row is read."""
    looked_up = sum(levels + 2 for levels in _embedded(configuration, table)) * int(
        configuration["category_embedding_dim"]
    )
    return weights(configuration, table) - looked_up


class Cost(Protocol):
    """What a training on some data set takes, by configuration. None: of another family of networks, of which
    nothing is known."""

    def memory(self, configuration: Mapping[str, Any], rows: int, members: int, splits: int) -> float | None:
        """Bytes of ``members`` networks on ``splits`` splits, with ``rows`` rows of each in a step."""

    def per_row(self, configuration: Mapping[str, Any]) -> tuple[int, int] | None:
        """Multiplications of a row in one network, and the numbers kept for its gradient."""

    def refusal(
        self, configuration: Mapping[str, Any], rows: int, members: int, memory: float | None
    ) -> str | None:
        """Why it cannot be trained, in one line with the fix; None where nothing speaks against it.

        memory: bytes that it may use; None: not known.
        """


@dataclass(frozen=True)
class TableCost:
    """Of the networks for a table."""

    table: TableSize

    @classmethod
    def of(cls, features: Features, outputs: int) -> TableCost:
        return cls(TableSize.of(features, outputs))

    def memory(self, configuration: Mapping[str, Any], rows: int, members: int, splits: int) -> float | None:
        if not configuration.keys() >= READ:
            return None
        return predicted_memory(configuration, self.table, rows, members, splits)

    def per_row(self, configuration: Mapping[str, Any]) -> tuple[int, int] | None:
        if not configuration.keys() >= READ:
            return None
        return multiplications_per_row(configuration, self.table), numbers_per_row(configuration, self.table)

    def refusal(
        self, configuration: Mapping[str, Any], rows: int, members: int, memory: float | None
    ) -> str | None:
        """Nothing speaks against a network for a table before it is tried."""
        return None


def kernel_memory(features: int, outputs: int, rows: int, members: int) -> float:
    """Bytes of ``members`` linear networks on fixed convolutions, with ``rows`` rows of each in a step."""
    kept = KEPT_BESIDE + max(KEPT_BY_OPTIMIZER.values())
    return float(BYTES * members * features * (kept * outputs + 2 * rows))


@dataclass(frozen=True)
class KernelCost:
    """Of linear networks on fixed convolutions, whose features of all rows are made before training.
    rows: of the data set."""

    features: int
    outputs: int
    rows: int

    def memory(self, rows: int, members: int, splits: int) -> float:
        """As ``Cost.memory``; the features of every split, and a copy while they are put together."""
        made = 2 * BYTES * splits * self.rows * self.features
        return made + kernel_memory(self.features, self.outputs, rows, members)

    def per_row(self) -> tuple[int, int]:
        """As ``Cost.per_row``."""
        return self.features * self.outputs, 2 * self.features

    def refusal(self, rows: int, members: int, memory: float | None) -> str | None:
        """As ``Cost.refusal``; a member for each split is what takes most."""
        needed = self.memory(rows, members, members)
        if memory is None or needed <= memory:
            return None
        return (
            f"{self.features:,} features of {self.rows:,} series take about {needed / 1e9:.1f} GB and "
            f"{memory / 1e9:.1f} GB are free: use fewer kernel_features, or network=convolutional"
        )


@dataclass(frozen=True)
class SignalCost:
    """Of the networks for images or sequences: of plans, or of fixed convolutions.
    rows: of the data set."""

    channels: int
    size: tuple[int, ...]
    outputs: int
    rows: int = 0

    @classmethod
    def of(cls, signals: Signals, outputs: int) -> SignalCost:
        channels, *size = signals.shape
        return cls(channels, tuple(size), outputs, len(signals))

    def _plan(self, configuration: Mapping[str, Any]) -> NetworkPlan | None:
        return plan_of(configuration, self.channels, self.size) if "network" in configuration else None

    def _features(self, configuration: Mapping[str, Any]) -> KernelCost | BackboneCost | None:
        """Of networks that have no plan of ours."""
        if (name := backbone_name(configuration)) is not None:
            side, frozen = int(configuration["backbone_side"]), is_frozen(configuration)
            return BackboneCost(name, self.channels, side, frozen, self.outputs, self.rows)
        features = kernel_features(configuration)
        return None if features is None else KernelCost(features, self.outputs, self.rows)

    def memory(self, configuration: Mapping[str, Any], rows: int, members: int, splits: int) -> float | None:
        if known := self._features(configuration):
            return known.memory(rows, members, splits)
        plan = self._plan(configuration)
        return None if plan is None else memory_bytes(plan, self.outputs, rows, members)

    def per_row(self, configuration: Mapping[str, Any]) -> tuple[int, int] | None:
        if known := self._features(configuration):
            return known.per_row()
        plan = self._plan(configuration)
        return None if plan is None else (multiplications(plan, self.outputs), map_numbers(plan))

    def refusal(
        self, configuration: Mapping[str, Any], rows: int, members: int, memory: float | None
    ) -> str | None:
        if known := self._features(configuration):
            return known.refusal(rows, members, memory)
        plan = plan_of(configuration, self.channels, self.size)
        return problem(plan, self.outputs, rows, members=members, memory=memory)


@dataclass(frozen=True)
class SceneCost:
    """Of the networks that give a class to every point, by their plans."""

    channels: int
    size: tuple[int, ...]
    outputs: int

    @classmethod
    def of(cls, scenes: Signals, outputs: int) -> SceneCost:
        channels, *size = scenes.shape
        return cls(channels, tuple(size), outputs)

    def _plan(self, configuration: Mapping[str, Any]) -> DecoderPlan | None:
        known = "upsampling" in configuration
        return decoder_plan_of(configuration, self.channels, self.size) if known else None

    def memory(self, configuration: Mapping[str, Any], rows: int, members: int, splits: int) -> float | None:
        plan = self._plan(configuration)
        return None if plan is None else decoder_memory(plan, self.outputs, rows, members)

    def per_row(self, configuration: Mapping[str, Any]) -> tuple[int, int] | None:
        plan = self._plan(configuration)
        if plan is None:
            return None
        products, numbers = decoder_cost(plan, self.outputs)
        turns = crops_of(plan)
        return turns * products, turns * numbers

    def refusal(
        self, configuration: Mapping[str, Any], rows: int, members: int, memory: float | None
    ) -> str | None:
        plan = decoder_plan_of(configuration, self.channels, self.size)
        return decoder_problem(plan, self.outputs, rows, members=members, memory=memory)


@dataclass(frozen=True)
class DetectionCost:
    """Of the networks that find boxes, by their plans."""

    channels: int
    size: tuple[int, ...]
    outputs: int

    @classmethod
    def of(cls, images: Signals, outputs: int) -> DetectionCost:
        channels, *size = images.shape
        return cls(channels, tuple(size), outputs)

    def _plan(self, configuration: Mapping[str, Any]) -> DetectionPlan | None:
        known = "map_stride" in configuration
        return detection_plan_of(configuration, self.channels, self.size) if known else None

    def memory(self, configuration: Mapping[str, Any], rows: int, members: int, splits: int) -> float | None:
        plan = self._plan(configuration)
        return None if plan is None else detection_memory(plan, self.outputs, rows, members)

    def per_row(self, configuration: Mapping[str, Any]) -> tuple[int, int] | None:
        plan = self._plan(configuration)
        return None if plan is None else detection_cost(plan, self.outputs)

    def refusal(
        self, configuration: Mapping[str, Any], rows: int, members: int, memory: float | None
    ) -> str | None:
        plan = detection_plan_of(configuration, self.channels, self.size)
        return detection_problem(plan, self.outputs, rows, members=members, memory=memory)


def epoch_seconds(steps: float, rows: float, multiplications_per_row: int, numbers: int) -> float:
    """Seconds of one epoch on a core of this decade; its worth is in
    comparisons, ``pace.Pace`` learns the scale.

    rows: of all networks together. multiplications, numbers: of one row in one network;
        numbers are those kept for its gradient.
    """
    return steps * STEP_SECONDS + rows * (
        multiplications_per_row * MULTIPLICATION_SECONDS + numbers * NUMBER_SECONDS
    )


def _embedded(configuration: Mapping[str, Any], table: TableSize) -> list[int]:
    return [levels for levels in table.levels if levels > int(configuration["one_hot_max"])]


def _columns(configuration: Mapping[str, Any], table: TableSize) -> int:
    """Columns of numbers and indicators."""
    one_hot = sum(levels + 1 for levels in table.levels if levels <= int(configuration["one_hot_max"]))
    return table.numeric + table.missing + one_hot + table.words


def _inputs(configuration: Mapping[str, Any], table: TableSize) -> int:
    """Width of the first layer's input."""
    vector = (
        1 if configuration["numeric_embedding"] == "none" else int(configuration["numeric_embedding_dim"])
    )
    embedded = len(_embedded(configuration, table)) * int(configuration["category_embedding_dim"])
    return _columns(configuration, table) + table.numeric * (vector - 1) + embedded


def _widths(configuration: Mapping[str, Any], inputs: int) -> list[int]:
    return [inputs] + [int(configuration["width"])] * int(configuration["hidden_layers"])
