"""What a training with a backbone takes. Loads timm, and torch, when a size is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.networks.pretrained.names import PREFIX

BYTES = 4
KEPT = 1.5
"""Numbers kept for the gradient beside each output of a layer: of in-place activations fewer, of
normalization more."""
COPIES = 5
"""Of each weight: itself, its gradient, two moments and the best one so far."""


def backbone_memory(name: str, side: int, rows: int, members: int) -> float:
    """Bytes of ``members`` networks that are trained as a whole, with ``rows`` rows of each in a step."""
    from advisor.networks.pretrained.timm_models import backbone_size

    size = backbone_size(name, side)
    return float(BYTES * members * (COPIES * size.parameters + KEPT * rows * size.numbers))


@dataclass(frozen=True)
class BackboneCost:
    """Of a network of timm. channels: of the images. frozen: whether the output layer alone is trained.
    rows: of the data set."""

    name: str
    channels: int
    side: int
    frozen: bool
    outputs: int
    rows: int

    def memory(self, rows: int, members: int, splits: int) -> float:
        """As ``Cost.memory``."""
        from advisor.networks.cost import kernel_memory
        from advisor.networks.pretrained.timm_models import backbone_size

        if not self.frozen:
            return backbone_memory(self.name, self.side, rows, members)
        size = backbone_size(self.name, self.side)
        made = BYTES * (2 * splits * self.rows * size.features + size.parameters + size.numbers)
        return made + kernel_memory(size.features, self.outputs, rows, members)

    def per_row(self) -> tuple[int, int]:
        """As ``Cost.per_row``."""
        from advisor.networks.pretrained.timm_models import backbone_size

        size = backbone_size(self.name, self.side)
        if self.frozen:
            return size.features * self.outputs, 2 * size.features
        return size.products, size.numbers

    def refusal(self, rows: int, members: int, memory: float | None) -> str | None:
        """As ``Cost.refusal``."""
        if self.channels not in (1, 3):
            return (
                f"{PREFIX}{self.name} reads grey or colour images, these have {self.channels} channels: take "
                "network=convolutional"
            )
        needed = self.memory(rows, members, members)
        if memory is None or needed <= memory:
            return None
        return (
            f"{PREFIX}{self.name} on images of {self.side} points takes about {needed / 1e9:.1f} GB and "
            f"{memory / 1e9:.1f} GB are free: use backbone_training=frozen, a smaller batch_size, "
            "backbone_side or network"
        )
