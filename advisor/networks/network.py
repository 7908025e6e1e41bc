"""What training asks of any network: a stack of members that takes inputs and gives outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


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

    def accelerate(self, configuration: Mapping[str, Any]) -> None:
        """Before training on a GPU: what the configuration asks of memory layout and compilation."""
