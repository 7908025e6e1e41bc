"""What training asks of any network: a stack of members that takes inputs and gives outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from advisor.networks.pretrained.start import InputLabels, Start


class Network(nn.Module):
    """A stack of independent networks, each weight with a leading member dimension.

    Called with its inputs, each (members, rows, ...), and the generator that dropout draws from; it gives
    (members, rows, outputs): logits, or the standardized target.
    """

    @property
    def rows_per_pass(self) -> int:
        """Rows of each member that one pass without gradients takes at a time."""
        raise NotImplementedError

    def head_parameters(self) -> list[nn.Parameter]:
        """The weights of the output layer, which can be trained alone."""
        raise NotImplementedError

    def decayed(self) -> list[nn.Parameter]:
        """The weights that L1 and L2 penalties act on."""
        raise NotImplementedError

    def rates(self, configuration: Mapping[str, Any]) -> list[tuple[float, list[nn.Parameter]]]:
        """Weights whose learning rate is another one: its share of the rate, and which."""
        return []

    def begin_with(self, start: Start, labels: Sequence[InputLabels | None]) -> None:
        """Take the weights that a training begins with. labels: of tables, what each member's inputs mean.

        The members of an earlier run are taken in turn, and its output layer where it has the same meaning.
        What the earlier run does not have, or in another shape, stays as it was drawn.
        """
        head = {id(weight) for weight in self.head_parameters()}
        with torch.no_grad():
            for name, own in self.state_dict(keep_vars=True).items():
                known = start.of_members(name, own.shape[0])
                is_head = id(own) in head
                if known is not None and known.shape == own.shape and (start.same_outputs or not is_head):
                    own.copy_(known)

    def of_inputs(self) -> Collection[str]:
        """Names of the weights whose shape follows from the inputs' columns."""
        return ()

    def unlike(self, start: Start) -> str:
        """In what the weights of an earlier run differ from this network's, but for inputs and outputs;
        "" for nothing."""
        free = {id(weight) for weight in self.head_parameters()}
        for name, own in self.state_dict(keep_vars=True).items():
            if id(own) in free or name in self.of_inputs():
                continue
            known = start.state.get(name)
            if known is None:
                return f"'{name}' is missing there"
            if known.shape[1:] != own.shape[1:]:
                return (
                    f"'{name}' has the shape {tuple(known.shape[1:])} there and {tuple(own.shape[1:])} here"
                )
        return ""

    def exportable(self) -> nn.Module:
        """The same computation, without gradients or dropout, in modules that exporters can follow."""
        return self

    def accelerate(self, configuration: Mapping[str, Any]) -> None:
        """Before training on a GPU: what the configuration asks of memory layout and compilation."""
