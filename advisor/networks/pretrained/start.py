"""The weights that a training begins with: of a file, of timm's hub, or of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Label = tuple[str, ...]
"""What one input of a network for tables stands for: its kind, its column, its category."""


@dataclass(frozen=True)
class InputLabels:
    """What the inputs of one member stand for, in their order. codes: the rows of the embeddings."""

    numeric: tuple[Label, ...]
    indicators: tuple[Label, ...]
    embedded: tuple[Label, ...]
    codes: tuple[Label, ...]


@dataclass(frozen=True)
class Start:
    """Weights that training begins with.

    source: in words. backbone: of a timm network, by its own names. state: of the members of an earlier run,
    by the names of our networks; labels: what each of these members reads, for tables.
    same_outputs: whether the output layer has the same meaning, so that it is taken too.
    """

    source: str
    backbone: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    labels: tuple[InputLabels, ...] = field(default=(), repr=False)
    same_outputs: bool = False

    @property
    def members(self) -> int:
        """Of the earlier run."""
        return next(iter(self.state.values())).shape[0] if self.state else 0

    def of_members(self, name: str, members: int) -> Tensor | None:
        """The weights of a name for so many members, those of the earlier run taken in turn; None where the
        earlier run has none."""
        known = self.state.get(name)
        return None if known is None else known[torch.arange(members) % self.members]


def moved(new: Tensor, old: Tensor, axis: int, to: Sequence[Label], of: Sequence[Label]) -> Tensor:
    """The new weights of a member with the old ones of all inputs that both know. axis: that of the inputs.

    Nothing is taken where the other axes differ: the same column may be embedded in another way.
    """
    place = {label: number for number, label in reversed(list(enumerate(of)))}
    known = [number for number, label in enumerate(to) if label in place]
    others = [n for n in range(new.dim()) if n != axis]
    if not known or [new.shape[n] for n in others] != [old.shape[n] for n in others]:
        return new
    taken = old.index_select(axis, torch.tensor([place[to[number]] for number in known]))
    return new.index_copy(axis, torch.tensor(known), taken.to(new))
