"""The processes that share every batch of one training: data parallel, by torch.distributed.

Each process trains on its part of a batch and the gradients are averaged, so that they are those of the whole
batch: the configuration means what it means in one process. All draw the same batches from the same seed and
judge the same validation losses, so that they stop in the same epoch without asking each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """Which of the ``world`` processes this is; with more than one,
    torch.distributed has been initialised."""

    rank: int = 0
    world: int = 1

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of (members, rows): nearly equal ones, of neighbours."""
        return rows.tensor_split(self.world, dim=1)[self.rank]

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network with gradients that are the mean over all processes."""
        if self.world == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.world > 1:
            torch.distributed.all_reduce(value)
            value /= self.world
        return value

    def same_buffers(self, network: nn.Module) -> None:
        """Running statistics, which the last step has moved apart, become their mean."""
        if self.world > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    self.mean(buffer)

    def gathered(self, pieces: Sequence[Tensor]) -> Tensor:
        """The pieces (members, rows, ...) of all processes, in order, as one; they lie on the CPU."""
        own = torch.cat([*pieces], dim=1)
        if self.world == 1:
            return own
        everyone: list[Tensor] = [own] * self.world
        torch.distributed.all_gather_object(everyone, own)
        return torch.cat(everyone, dim=1)


ALONE = Ranks()
