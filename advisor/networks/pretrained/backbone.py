"""A network of timm as a stack of members, each with weights of its own and our output layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from advisor.networks.network import Network
from advisor.networks.pretrained.cost import backbone_memory
from advisor.networks.pretrained.names import SCRATCH, backbone_name
from advisor.networks.pretrained.start import InputLabels, Start
from advisor.networks.pretrained.timm_models import (
    COLOURS,
    backbone_info,
    backbone_module,
    backbone_size,
    layer_groups,
)
from advisor.networks.tables import StackedLinear

PASS_NUMBERS = 30_000_000
"""Outputs of all layers, members and rows in one pass without gradients, which keeps one or two layers' at a
time."""
WHITE = 255.0
"""Images are read as whole numbers from 0 to this."""


@dataclass(frozen=True)
class BackboneShape:
    """One input of the network: a grey or colour image. side: to which it is resized.
    mean, deviation: of each colour in the training of the weights, white being 1."""

    name: str
    channels: int
    side: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, configuration: Mapping[str, Any], shape: Sequence[int]) -> BackboneShape:
        """For images of a shape (channels, height, width), with 1 or 3 channels."""
        name = backbone_name(configuration)
        assert name is not None
        info = backbone_info(name)
        return cls(name, shape[0], int(configuration["backbone_side"]), info.mean, info.deviation)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> BackboneShape:
        """The shape of which ``dataclasses.asdict`` made plain data."""
        numbers = {name: tuple(plain[name]) for name in ("mean", "deviation")}
        return cls(plain["name"], plain["channels"], plain["side"], **numbers)

    @property
    def own_mean(self) -> tuple[float, ...]:
        """Of each channel of the images; of a grey one the mean over the colours."""
        return self.mean if self.channels == COLOURS else (sum(self.mean) / len(self.mean),)

    @property
    def own_deviation(self) -> tuple[float, ...]:
        """As ``own_mean``."""
        known = self.deviation
        return known if self.channels == COLOURS else (sum(known) / len(known),)

    def network(
        self,
        configuration: Mapping[str, Any],
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        bins: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> BackboneNetwork:
        """The network for such images, which have no bins; see ``BackboneNetwork``."""
        return BackboneNetwork(
            self, configuration, outputs, members=members, generator=generator, prior=prior
        )

    def planned_memory(
        self, configuration: Mapping[str, Any], outputs: int, members: int
    ) -> Callable[[int], float]:
        """Bytes that training takes, by rows of a step."""
        return lambda rows: backbone_memory(self.name, self.side, rows, members)

    @staticmethod
    def saved_bins(state: Mapping[str, Tensor]) -> None:
        """Inputs of this shape have no bins."""


class ImageScale(nn.Module):
    """Images of (rows, channels, height, width), scaled by the shape's own mean and deviation, as the weights
    know them: of the network's side, in three colours."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        self.side = shape.side
        mean, own_mean = torch.tensor(shape.mean), torch.tensor(shape.own_mean)
        deviation, own_deviation = torch.tensor(shape.deviation), torch.tensor(shape.own_deviation)
        self.factor: Tensor
        self.offset: Tensor
        self.register_buffer("factor", (own_deviation / deviation).view(1, -1, 1, 1), persistent=False)
        offset = ((own_mean - mean) / deviation).view(1, -1, 1, 1)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != (self.side, self.side):
            size = (self.side, self.side)
            x = F.interpolate(x, size, mode="bilinear", antialias=max(x.shape[2:]) > self.side)
        return x * self.factor + self.offset


class BackboneNetwork(Network):
    """``members`` copies of a timm network with weights of their own, dropout and an output layer each.

    The output layer begins at zero: prior, (members, outputs), is then its bias, the logarithms of the class
    shares. Without a ``Start`` the backbone is as timm draws it.
    """

    def __init__(
        self,
        shape: BackboneShape,
        configuration: Mapping[str, Any],
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.members, self.dropout = shape, members, float(configuration["dropout"])
        self.image = ImageScale(shape)
        alike = configuration["backbone_training"] != SCRATCH
        seeds = torch.randint(2**31, (1 if alike else members,), generator=generator).tolist()
        drawn = [backbone_module(shape.name, seed) for seed in seeds]
        self._template = [drawn[0]]  # in a list: no submodule, whose weights would be trained and saved
        self._names: dict[str, str] = {}
        for name, own in drawn[0].state_dict().items():
            ours = f"backbone_{name.replace('.', '__')}"
            stacked = torch.stack([module.state_dict()[name].clone() for module in drawn])
            stacked = stacked.repeat(members, *[1] * own.dim()) if alike else stacked
            stacked = stacked.unsqueeze(1) if own.dim() == 0 else stacked  # every weight has a second axis
            self._names[name] = ours
            if name in dict(drawn[0].named_parameters()):
                self.register_parameter(ours, nn.Parameter(stacked))
            else:
                self.register_buffer(ours, stacked)
        features = backbone_size(shape.name, shape.side).features
        self.head = StackedLinear(members, features, outputs, "zero", generator)
        if prior is not None:
            with torch.no_grad():
                self.head.bias.copy_(prior.unsqueeze(1))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BackboneNetwork:
        """Moves what is not saved along: tables of positions that the network computes itself."""
        self._template[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(members, rows, channels, height, width) -> (members, rows, outputs): logits, or the standardized
        target.

        noise: what dropout draws from in training mode, a generator on the inputs' device.
        """
        h = torch.stack([self._features(member, x[member]) for member in range(self.members)])
        if self.training and self.dropout:
            keep = 1 - self.dropout
            h = h * torch.empty_like(h).bernoulli_(keep, generator=noise).div_(keep)
        out: Tensor = self.head(h)
        return out

    def _features(self, member: int, x: Tensor) -> Tensor:
        template = self._template[0].train(self.training)
        shapes = {name: tensor.shape for name, tensor in template.state_dict().items()}
        own = {n: getattr(self, ours)[member].view(shapes[n]) for n, ours in self._names.items()}
        features: Tensor = functional_call(template, own, (self.image(x),))
        return features

    def exportable(self) -> nn.Module:
        """Every member as a module of timm of its own."""
        return ExportedBackbones(self)

    def member(self, number: int) -> nn.Module:
        """A copy of timm's network with the weights of one member."""
        module = copy.deepcopy(self._template[0])
        own = {
            name: getattr(self, self._names[name])[number].view(tensor.shape)
            for name, tensor in module.state_dict().items()
        }
        module.load_state_dict(own)
        return module

    @property
    def rows_per_pass(self) -> int:
        """Rows of each member that one pass without gradients takes at a time."""
        numbers = backbone_size(self.shape.name, self.shape.side).numbers
        return max(1, PASS_NUMBERS // numbers)

    def begin_with(self, start: Start, labels: Sequence[InputLabels | None]) -> None:
        """The backbone's weights for every member, or those of an earlier run."""
        super().begin_with(start, labels)
        with torch.no_grad():
            for name, tensor in start.backbone.items():
                own = getattr(self, self._names[name])
                own.copy_(tensor.view(1, *own.shape[1:]))

    def rates(self, configuration: Mapping[str, Any]) -> list[tuple[float, list[nn.Parameter]]]:
        """The rate of each group of layers, as a share of the output layer's."""
        share = float(configuration["layer_decay"])
        groups = layer_groups(self._template[0])
        last = max(groups.values(), default=0)
        found: dict[int, list[nn.Parameter]] = {}
        for name, group in groups.items():
            found.setdefault(group, []).append(getattr(self, self._names[name]))
        return [(share ** (last + 1 - group), weights) for group, weights in sorted(found.items())]

    def head_parameters(self) -> list[nn.Parameter]:
        """The output layer."""
        return list(self.head.parameters())

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on: kernels and matrices."""
        own = [w for name, w in self.named_parameters() if name.startswith("backbone_") and w.dim() > 2]
        return [*own, self.head.weight]


class ExportedBackbones(nn.Module):
    """What ``BackboneNetwork`` computes, without its tricks: (members, rows, ...) in and out."""

    def __init__(self, network: BackboneNetwork) -> None:
        super().__init__()
        self.image, self.head = network.image, network.head
        self.members = nn.ModuleList(network.member(number).eval() for number in range(network.members))

    def forward(self, x: Tensor) -> Tensor:
        features = [member(self.image(x[number])) for number, member in enumerate(self.members)]
        out: Tensor = self.head(torch.stack(features))
        return out


def features_of(
    shape: BackboneShape, weights: Mapping[str, Tensor], images: Tensor, device: str = "cpu"
) -> Tensor:
    """What a backbone of these weights makes of images (rows, channels, height, width) of whole numbers:
    (rows, features), on the CPU."""
    module = FrozenBackbone(shape, weights).to(device).eval()
    rows = max(1, PASS_NUMBERS // backbone_size(shape.name, shape.side).numbers)
    with torch.no_grad():
        parts = [module(part.to(device)).cpu() for part in images.split(rows)]  # type: ignore[no-untyped-call]
    return torch.cat(parts) if parts else torch.zeros(0, backbone_size(shape.name, shape.side).features)


class FrozenBackbone(nn.Module):
    """Images of whole numbers -> features, by weights that are not trained."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: BackboneShape, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.image, self.module = ImageScale(shape), backbone_module(shape.name)
        self.module.load_state_dict(dict(weights), strict=False)
        for name, numbers in (("mean", shape.own_mean), ("deviation", shape.own_deviation)):
            self.register_buffer(name, WHITE * torch.tensor(numbers).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(rows, channels, height, width) -> (rows, features)."""
        features: Tensor = self.module(self.image((images.float() - self.mean) / self.deviation))
        return features
