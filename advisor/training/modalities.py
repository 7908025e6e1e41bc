"""What training knows of tables, images and sequences, one row for each: how their rows become inputs of a
network, and what a training takes. No torch until inputs are asked for: a driver that only hands out trials
does without those seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from advisor.dataset import Dataset, Features, Signals
from advisor.kinds import Kind
from advisor.networks.cost import Cost, DetectionCost, SceneCost, SignalCost, TableCost
from advisor.networks.kernels import kernel_features
from advisor.networks.pretrained.names import backbone_name, is_frozen
from advisor.splits import Split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from advisor.networks.network import Network
    from advisor.networks.pretrained.start import InputLabels, Start
    from advisor.training.augmentation import Mix, Moved
    from advisor.training.class_balance import ClassBalance


class Shape(Protocol):
    """What a network must know of its inputs; a frozen dataclass that a saved model keeps."""

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
        """The network that a configuration means for such inputs, on the CPU.

        bins: see ``Prepared.bins``. prior: (members, outputs), what its output layer begins with.
        """

    def planned_memory(
        self, configuration: Mapping[str, Any], outputs: int, members: int
    ) -> Callable[[int], float] | None:
        """Bytes that training takes, by rows of a step, where the network's plan tells it."""

    def saved_bins(self, state: Mapping[str, Tensor]) -> Tensor | None:
        """Bins of the right shape for a network with these weights."""


class Statistics(Protocol):
    """Fitted on training rows; ``arrays`` and ``scaling`` are all there is to save."""

    @property
    def scaling(self) -> str:
        """The configuration's word for it."""

    def arrays(self) -> dict[str, Any]:
        """The statistics as arrays by name."""


class Prepared(Protocol):
    """All rows of a data set under the statistics of every split."""

    @property
    def preprocessors(self) -> tuple[Statistics, ...]:
        """Of each split."""

    @property
    def shape(self) -> Shape:
        """Of a network's inputs."""

    @classmethod
    def prepare(
        cls,
        configuration: Mapping[str, Any],
        features: Any,
        splits: Sequence[Split],
        device: str,
        start: Start | None = None,
    ) -> Prepared:
        """Fit each split's statistics on its training rows. start: the weights that training begins with.

        UserError for a treatment of rare classes that such rows do not allow.
        """

    @classmethod
    def of_new_rows(cls, preprocessors: tuple[Any, ...], shape: Any, features: Any, device: str) -> Prepared:
        """Rows under statistics that were fitted on others."""

    @property
    def place(self) -> torch.device:
        """Where rows are looked up."""

    @property
    def rows(self) -> int:
        """Their number."""

    def inputs(self, batch: Tensor, member_split: Tensor) -> list[Tensor]:
        """Row numbers (members, rows) and each member's split -> what the network
        reads, each (members, rows, ...)."""

    def training_inputs(
        self,
        batch: Tensor,
        member_split: Tensor,
        configuration: Mapping[str, Any],
        generator: torch.Generator,
        balance: ClassBalance | None = None,
        target: Tensor | None = None,
    ) -> tuple[list[Tensor], Mix | Moved | None]:
        """The same in a step of training, with rows made up, changed or mixed as the configuration asks.

        target: of the batch, (members, rows) where there is a ``balance``, of masks (members, rows,
        height, width), or of boxes (members, rows, most, 5).
        """

    def find_neighbours(
        self, balance: ClassBalance, train: Sequence[Tensor], target: Tensor, member_split: Tensor
    ) -> None:
        """Once before training, for what interpolates between rows; train: each member's rows."""

    def labels(self, features: Any, split: int) -> InputLabels | None:
        """What the inputs of a split stand for, of tables. features: the rows that they are of."""

    def bins(self, configuration: Mapping[str, Any], members_per_split: int) -> Tensor | None:
        """Edges of the numbers' bins for each member, where the network needs them."""


@dataclass(frozen=True)
class InputTypes:
    """The classes of a modality's prepared rows; of their shape, which has ``from_dict``; and of fitted
    statistics, which have ``from_arrays``."""

    inputs: type[Prepared]
    shape: Any
    statistics: Any


@dataclass(frozen=True)
class TrainedModality:
    """types: what the inputs of a configuration's network are made of, loaded when they are asked for.
    cost: features and outputs -> what a training takes."""

    types: Callable[[Mapping[str, Any]], InputTypes]
    cost: Callable[[Any, int], Cost]


def _tables(configuration: Mapping[str, Any]) -> InputTypes:
    from advisor.networks.tables import InputShape
    from advisor.training.preprocessing import Preprocessor
    from advisor.training.table_inputs import TableInputs

    return InputTypes(TableInputs, InputShape, Preprocessor)


def _signals(configuration: Mapping[str, Any]) -> InputTypes:
    if kernel_features(configuration) is not None:
        from advisor.networks.kernel_network import KernelShape
        from advisor.training.signal_inputs import KernelInputs, KernelPreprocessor

        return InputTypes(KernelInputs, KernelShape, KernelPreprocessor)
    if backbone_name(configuration) is not None:
        return _backbones(configuration)
    from advisor.networks.convolutional import SignalShape
    from advisor.training.signal_inputs import SignalInputs, SignalPreprocessor

    return InputTypes(SignalInputs, SignalShape, SignalPreprocessor)


def _backbones(configuration: Mapping[str, Any]) -> InputTypes:
    from advisor.networks.kernel_network import KernelShape
    from advisor.networks.pretrained.backbone import BackboneShape
    from advisor.training.signal_inputs import (
        BackboneInputs,
        BackbonePreprocessor,
        FrozenInputs,
        SignalPreprocessor,
    )

    if is_frozen(configuration):
        return InputTypes(FrozenInputs, KernelShape, BackbonePreprocessor)
    return InputTypes(BackboneInputs, BackboneShape, SignalPreprocessor)


def _masks(configuration: Mapping[str, Any]) -> InputTypes:
    from advisor.networks.decoder import SceneShape
    from advisor.training.signal_inputs import SceneInputs, SignalPreprocessor

    return InputTypes(SceneInputs, SceneShape, SignalPreprocessor)


def _boxes(configuration: Mapping[str, Any]) -> InputTypes:
    from advisor.networks.detection.network import DetectionShape
    from advisor.training.detection.inputs import BoxedInputs
    from advisor.training.signal_inputs import SignalPreprocessor

    return InputTypes(BoxedInputs, DetectionShape, SignalPreprocessor)


_SIGNALS = TrainedModality(_signals, SignalCost.of)
MODALITIES: Mapping[Kind, TrainedModality] = {
    "table": TrainedModality(_tables, TableCost.of),
    "image": _SIGNALS,
    "sequence": _SIGNALS,
    "mask": TrainedModality(_masks, SceneCost.of),
    "boxes": TrainedModality(_boxes, DetectionCost.of),
}


def inputs_of(kind: Kind, configuration: Mapping[str, Any]) -> type[Prepared]:
    """The class of the inputs that a configuration's network reads, for this kind of rows."""
    return MODALITIES[kind].types(configuration).inputs


def cost_of(data: Dataset) -> Cost:
    """What a training on these rows takes, by configuration."""
    return MODALITIES[data.features.kind].cost(data.features, data.outputs)


def prepare(
    configuration: Mapping[str, Any],
    data: Dataset,
    splits: Sequence[Split],
    device: str = "cpu",
    start: Start | None = None,
) -> Prepared:
    """Fit each split's preprocessing on its training rows and transform all rows with it.

    start: the weights that training begins with.
    UserError for a treatment of rare classes that such data do not allow.
    """
    features: Features | Signals = data.features
    inputs = inputs_of(features.kind, configuration)
    return inputs.prepare(configuration, features, splits, device, start)
