"""Held-out outputs at epochs that the rows did not choose themselves.

Training keeps each network at its best epoch, as its validation rows see it. Scored at that epoch, the same
rows look better than new rows will: the best of many epochs is best by luck too, and on a fold of ten rows
that is much (an output that starts at the class shares can then never lose to them, whatever the target). So
the rows of a fold are parted, and each part is scored at the epoch that the other parts chose: cross-fitting
of the one thing that validation rows decide.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = 5
"""Parts of a fold's rows; four fifths of them choose nearly the epoch that all of them choose."""


class HeldOut:
    """Follows the training of a stack; weight (members, columns): of each validating
    row in its member's loss, 0 is none."""

    def __init__(self, weight: Tensor) -> None:
        members, columns = weight.shape
        self._part = torch.arange(columns) % PARTS
        mine = torch.arange(PARTS)[:, None, None] == self._part
        others = torch.where(mine, 0.0, weight)  # (parts, members, columns)
        alone = others.sum(dim=2, keepdim=True) == 0  # a single row: nobody else can choose for it
        self._chooses = torch.where(alone, weight, others)
        self._least = torch.full((PARTS, members), torch.inf, dtype=weight.dtype)
        self._out: Tensor | None = None

    def update(self, losses: Tensor, out: Tensor, going: Tensor) -> None:
        """After an epoch: losses (members, columns) and outputs (members,
        columns, outputs) of the validating rows.

        going (members,): who still trains; what a stopped member does after its time must not matter.
        """
        counted = torch.where(self._chooses > 0, self._chooses * losses, 0.0).sum(dim=2)
        better = (counted < self._least) & going & torch.isfinite(counted)
        if not better.any():
            return
        self._least = torch.where(better, counted, self._least)
        if self._out is None:
            self._out = torch.full_like(out, torch.nan)
        chosen = better[self._part].T
        self._out[chosen] = out[chosen]

    def merged(self, out: Tensor) -> Tensor:
        """The outputs kept; those of ``out`` (the same shape) where no epoch ever had a finite loss."""
        if self._out is None:
            return out
        never = torch.isinf(self._least)[self._part].T
        return torch.where(never[:, :, None], out, self._out)
