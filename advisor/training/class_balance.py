"""What training does about rare classes (notes N13 to N15 and N18): which rows are
drawn, how they weigh, what is made up.

Whatever makes rare classes count more than their share is taken into account by the loss: the
logarithms of the weights are added to the logits in training alone, so that the network itself keeps
estimating the probabilities of the data as they are (Menon et al. 2021, logit adjustment). Calibration
afterwards has only the usual work to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SYNTHETIC = ("noise", "smote")
DRAWN = ("oversample", *SYNTHETIC)
"""Treatments that draw rows of rare classes more often; the last two change the copies."""
WEIGHTED = ("reweight", *DRAWN)
NEIGHBOURS = 5
"""Of the same class and the same training rows, as in SMOTE (Chawla et al. 2002)."""
NEIGHBOUR_ROWS = 5000
"""Neighbours of a class are looked for among at most so many of its rows."""
CHUNK = 1024


class ClassBalance:
    """One configuration's treatment of the classes, for members that train on rows with these class counts.

    counts: (members, classes). ``class_balance`` is ``none``, ``reweight``, ``focal``, ``oversample``,
    ``noise``, ``smote`` or ``classifier_retraining`` (as none until the head is trained again, see
    ``of_the_head``). A class of n rows weighs (largest class / n) ^ balance_strength before all are
    scaled to a mean of 1 over the rows.
    """

    def __init__(self, configuration: Mapping[str, Any], counts: Tensor, device: str) -> None:
        self.kind: str = configuration["class_balance"]
        self._configuration, self._counts, self._device = configuration, counts, device
        self.gamma = float(configuration["focal_gamma"])
        self.noise = float(configuration["balance_noise"])
        self.log_weight: Tensor | None = None
        if self.kind in WEIGHTED:
            present = counts.clamp(min=1).double()
            relative = (present.max(dim=1, keepdim=True).values / present) ** float(
                configuration["balance_strength"]
            )
            self.relative = (
                relative  # how often a row is drawn for each time that one of the largest class is
            )
            share = counts / counts.sum(dim=1, keepdim=True)
            weight = relative / (share * relative).sum(dim=1, keepdim=True)
            self.log_weight = weight.log().float().to(device)
        self._neighbours: Tensor | None = None

    def of_the_head(self) -> ClassBalance:
        """The second stage of classifier_retraining: rows drawn by class for the head (Kang et al. 2020)."""
        return ClassBalance(
            {**self._configuration, "class_balance": "oversample"}, self._counts, self._device
        )

    def order(self, member: int, target: Tensor, generator: torch.Generator) -> Tensor:
        """Positions among a member's training rows (with their classes ``target``),
        as many, in the order of an epoch."""
        if self.kind not in DRAWN:
            return torch.randperm(len(target), generator=generator)
        chances = self.relative[member][target]
        return torch.multinomial(chances, len(target), replacement=True, generator=generator)

    def losses(self, out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Training loss of each row; out (members, rows, classes), target and result (members, rows)."""
        weight = None
        if self.log_weight is not None:
            out = out + self.log_weight.unsqueeze(1)
            if self.kind == "reweight":
                weight = self.log_weight.gather(1, target).exp()
        flat = F.cross_entropy(
            out.flatten(0, 1), target.flatten(), reduction="none", label_smoothing=label_smoothing
        )
        losses = flat.view(target.shape)
        if self.kind == "focal":
            chosen = out.log_softmax(dim=2).gather(2, target.unsqueeze(2)).squeeze(2)
            return (1 - chosen.exp()) ** self.gamma * losses
        return losses if weight is None else weight * losses

    def prepare(
        self, train: Sequence[Tensor], target: Tensor, numeric: Tensor, indicators: Tensor, start: Tensor
    ) -> None:
        """Look for neighbours, where rows are interpolated; start (members, 1): where a
        member's rows begin in the inputs."""
        if self.kind != "smote":
            return
        table = torch.arange(len(target)).repeat(len(train), NEIGHBOURS, 1).permute(0, 2, 1).contiguous()
        for member, own in enumerate(train):
            for code in torch.unique(target[own]).tolist():
                rows = own[target[own] == code]
                if self.relative[member, code] <= 1 or len(rows) <= 1:
                    continue
                among = rows[:: max(1, -(-len(rows) // NEIGHBOUR_ROWS))]
                first = int(start[member])
                there = torch.cat([numeric[first + among], indicators[first + among]], dim=1)
                for part in torch.split(rows, CHUNK):
                    here = torch.cat([numeric[first + part], indicators[first + part]], dim=1)
                    distance = torch.cdist(here, there)
                    distance.masked_fill_(
                        (part.unsqueeze(1) == among.unsqueeze(0)).to(distance.device), torch.inf
                    )
                    nearest = distance.topk(
                        min(NEIGHBOURS, max(1, len(among) - 1)), largest=False
                    ).indices.cpu()
                    chosen = among[nearest]
                    table[member, part] = chosen.repeat(1, -(-NEIGHBOURS // chosen.shape[1]))[:, :NEIGHBOURS]
        self._neighbours = table

    def synthesize(
        self,
        inputs: list[Tensor],
        batch: Tensor,
        target: Tensor,
        all_numeric: Tensor,
        start: Tensor,
        generator: torch.Generator,
    ) -> list[Tensor]:
        """The inputs of a batch with the numbers of surplus copies changed:
        noise added, or moved toward a neighbour.

        Of a class that is drawn r times as often as the largest, one row in r stays as it is.
        """
        if self.kind not in SYNTHETIC:
            return inputs
        numeric = inputs[0]
        relative = self.relative.gather(1, target.cpu())
        copies = torch.rand(batch.shape, generator=generator, dtype=torch.float64) < 1 - 1 / relative
        mask = copies.to(numeric).unsqueeze(2)
        if self.kind == "noise":
            made = torch.randn(numeric.shape, generator=generator).to(numeric) * self.noise
        else:
            assert self._neighbours is not None
            which = torch.randint(NEIGHBOURS, batch.shape, generator=generator)
            members = torch.arange(len(batch)).unsqueeze(1)
            other = (
                (self._neighbours[members, batch.cpu(), which] + start.cpu()).flatten().to(all_numeric.device)
            )
            toward = all_numeric.index_select(0, other).view(numeric.shape) - numeric
            made = toward * torch.rand(batch.shape, generator=generator).to(numeric).unsqueeze(2)
        return [numeric + mask * made, *inputs[1:]]
