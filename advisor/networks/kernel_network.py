"""A linear network on the features of fixed convolutions (``kernels``); several of one shape stacked, as all
networks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advisor.networks.cost import kernel_memory
from advisor.networks.network import Network
from advisor.networks.pretrained.start import Start
from advisor.networks.tables import StackedLinear

PASS_NUMBERS = 20_000_000
"""Features of all members and rows in one pass without gradients: 80 MB."""


@dataclass(frozen=True)
class KernelShape:
    """One input of the network. features: of a row's fixed convolutions."""

    features: int

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> KernelShape:
        """The shape of which ``dataclasses.asdict`` made plain data."""
        return cls(plain["features"])

    def network(
        self,
        configuration: Mapping[str, Any],
        outputs: int,
        *,
        members: int,
        generator: torch.Generator,
        bins: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> KernelNetwork:
        """The network for such features, which have no bins; see ``KernelNetwork``."""
        return KernelNetwork(
            self.features,
            outputs,
            float(configuration["dropout"]),
            members=members,
            generator=generator,
            prior=prior,
        )

    def planned_memory(
        self, configuration: Mapping[str, Any], outputs: int, members: int
    ) -> Callable[[int], float]:
        """Bytes that training takes, by rows of a step."""
        return lambda rows: kernel_memory(self.features, outputs, rows, members)

    @staticmethod
    def saved_bins(state: Mapping[str, Tensor]) -> None:
        """Inputs of this shape have no bins."""


class KernelNetwork(Network):
    """Dropout and one matrix on (members, rows, features); ``members`` independent networks in one.

    It begins at zero, as a linear model may: prior, (members, outputs), is then the output's bias, the
    logarithms of the class shares.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        dropout: float,
        *,
        members: int,
        generator: torch.Generator,
        prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.head = StackedLinear(members, features, outputs, "zero", generator)
        if prior is not None:
            with torch.no_grad():
                self.head.bias.copy_(prior.unsqueeze(1))

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(members, rows, features) -> (members, rows, outputs): logits, or the standardized target.

        noise: what dropout draws from in training mode, a generator on the inputs' device.
        """
        if self.training and self.dropout:
            keep = 1 - self.dropout
            x = x * torch.empty_like(x).bernoulli_(keep, generator=noise).div_(keep)
        out: Tensor = self.head(x)
        return out

    def unlike(self, start: Start) -> str:
        """Features of fixed convolutions are fitted to the rows, so that an output layer has no other use."""
        return (
            "" if start.backbone else "fixed convolutions (network kernels) have no weights that were learned"
        )

    @property
    def rows_per_pass(self) -> int:
        """Rows of each member that one pass without gradients takes at a time."""
        members, features = self.head.weight.shape[:2]
        return max(1, PASS_NUMBERS // (members * features))

    def head_parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return list(self.head.parameters())

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on."""
        return [self.head.weight]
