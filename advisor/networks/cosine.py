"""A cosine classifier: embeddings of unit length, compared with one direction for each class (note N17).

It wraps any of the other networks, whose output layer gives the embedding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from advisor.networks.network import Network
from advisor.networks.pretrained.start import InputLabels, Start
from advisor.networks.tables import initialize

INNER = "inner."
"""Before the names of the wrapped network's weights."""
PROTOTYPES = ("weight", "means")
"""The names of the tensors (members, embedding, classes) that have a direction for each class."""

SHORTEST = 1e-12
"""Added to squared lengths, so that a vector of zeros has a gradient."""


def unit_length(vectors: Tensor, dim: int) -> Tensor:
    """Divided by their lengths along an axis. Not ``F.normalize``, which asks for the number of rows:
    exported to ONNX, it then reads it from an input that may not be there."""
    return vectors * (vectors.square().sum(dim=dim, keepdim=True) + SHORTEST).rsqrt()


def is_cosine(configuration: Mapping[str, Any]) -> bool:
    """Whether a configuration asks for a cosine classifier; those of before there was one do not."""
    return configuration.get("classifier") == "cosine"


def _inner(start: Start) -> Start:
    """The weights of the wrapped network by its own names."""
    own = {name.removeprefix(INNER): one for name, one in start.state.items() if name.startswith(INNER)}
    return replace(start, state=own)


class CosineNetwork(Network):
    """Logits are ``cosine_scale`` times the cosines between an embedding and the classes' directions.

    CosFace (Wang et al. 2018); its margin is part of the training loss.

    weight: the trained directions, (members, embedding, classes). means: directions of the mean embeddings of
    each class's training rows, which training sets before each validation; with ``prototypes: class_means``
    they are what predicts.
    """

    means: Tensor

    def __init__(
        self,
        configuration: Mapping[str, Any],
        inner: Network,
        classes: int,
        *,
        members: int,
        generator: torch.Generator,
    ) -> None:
        """inner: with ``embedding_dim`` outputs."""
        super().__init__()
        self.inner, self.scale = inner, float(configuration["cosine_scale"])
        self.by_means = configuration["prototypes"] == "class_means"
        # an output layer that starts at zero would give embeddings without a direction
        initialize(inner.head_parameters()[0].data, "lecun_normal", generator)
        dim = int(configuration["embedding_dim"])
        self.weight = nn.Parameter(torch.empty(members, dim, classes).normal_(generator=generator))
        self.register_buffer("means", self.weight.detach().clone())

    def forward(self, *inputs: Any) -> Tensor:
        """The inputs of the wrapped network, and its generator -> logits (members, rows, classes)."""
        directions = self.means if self.by_means and not self.training else self.weight
        return self.scale * torch.bmm(self.embed(*inputs), unit_length(directions, 1))

    def embed(self, *inputs: Any) -> Tensor:
        """Embeddings of unit length, (members, rows, embedding)."""
        return unit_length(self.inner(*inputs), 2)

    def cosines(self, out: Tensor) -> Tensor:
        """Of logits that this network gave."""
        return out / self.scale

    @property
    def rows_per_pass(self) -> int:
        """Rows of each member that one pass without gradients takes at a time."""
        return self.inner.rows_per_pass

    def head_parameters(self) -> list[nn.Parameter]:
        """The classes' directions, and the layer that gives the embedding."""
        return [self.weight, *self.inner.head_parameters()]

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on: of directions only the length would change."""
        return self.inner.decayed()

    def rates(self, configuration: Mapping[str, Any]) -> list[tuple[float, list[nn.Parameter]]]:
        """Those of the wrapped network."""
        return self.inner.rates(configuration)

    def begin_with(self, start: Start, labels: Sequence[InputLabels | None]) -> None:
        """The wrapped network takes its part, with the layer that gives the embedding; the directions are
        taken where the classes are the same."""
        self.inner.begin_with(replace(_inner(start), same_outputs=True), labels)
        own = {name: start.state[name] for name in PROTOTYPES if name in start.state}
        super().begin_with(replace(start, state=own), labels)

    def of_inputs(self) -> Collection[str]:
        """Those of the wrapped network; and the means, which training sets by itself."""
        return {"means", *(f"{INNER}{name}" for name in self.inner.of_inputs())}

    def accelerate(self, configuration: Mapping[str, Any]) -> None:
        """As the wrapped network."""
        self.inner.accelerate(configuration)
