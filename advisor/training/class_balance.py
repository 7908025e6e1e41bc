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
TEACHER = "teacher"
TEACHER_SHARE = 0.5
"""Of the student's loss, beside its own cross-entropy."""
TEACHER_TEMPERATURE = 2.0
"""Of the soft targets, within the 1 to 4 that are usual (Hinton et al. 2015)."""
CLASS_GROUPS = 3
"""Of common, medium and rare classes, as on long-tailed sets (Liu et al. 2019)."""
LEAST_SHARE = 1e-6
"""Of a class in what a teacher says: one that it has never seen is not divided by zero."""
LEAST_WIDTH = 4
NEIGHBOURS = 5
"""Of the same class and the same training rows, as in SMOTE (Chawla et al. 2002)."""
NEIGHBOUR_ROWS = 5000
"""Neighbours of a class are looked for among at most so many of its rows."""
CHUNK = 1024


class ClassBalance:
    """One configuration's treatment of the classes, for members that train on rows with these class counts.

    counts: (members, classes). ``class_balance`` is ``none``, ``reweight``, ``focal``, ``oversample``,
    ``noise``, ``smote``, ``classifier_retraining`` (as none until the head is trained again, see
    ``of_the_head``) or ``teacher`` (as none; see ``Lesson``). A class of n rows weighs (largest class / n) ^
    balance_strength before all are scaled to a mean of 1 over the rows.
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


def student_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the network that a teacher teaches: as wide as the teacher, or half as wide."""
    width = round(int(configuration["width"]) * float(configuration["student_width"]))
    return {**configuration, "width": max(width, min(LEAST_WIDTH, int(configuration["width"])))}


class Lesson:
    """What a teacher says of the training rows, its class shares taken out, and the loss of who learns it.

    A network that was trained on rows as they are says the common classes too readily. So its logarithms of
    the probabilities lose those of the shares that it gives to the classes on its training rows, and so do
    the student's; both are compared between groups of classes (common, medium, rare) and within each group,
    where all groups weigh alike. After LTKD (arXiv 2506.18496). The student's own outputs stay the logits of
    the data as they are: nothing has to be put back at prediction.

    said: log probabilities (splits, rows, classes). train: rows of each split. member_split: (members,).
    counts: (splits, classes) of the training rows. epochs: for how many each member's teacher was trained.
    """

    def __init__(
        self,
        said: Tensor,
        train: Sequence[Tensor],
        member_split: Tensor,
        counts: Tensor,
        epochs: tuple[int, ...],
    ) -> None:
        self.epochs, self._member_split = epochs, member_split
        given = [own[rows.to(said.device)].exp().mean(dim=0) for own, rows in zip(said, train, strict=True)]
        log_share = torch.stack(given).clamp(min=LEAST_SHARE).log().unsqueeze(1)
        self._targets = ((said - log_share) / TEACHER_TEMPERATURE).log_softmax(dim=2)
        self._log_share = log_share[member_split]
        outside = torch.ones_like(counts, dtype=torch.bool).unsqueeze(1).repeat(1, CLASS_GROUPS, 1)
        for split, own in enumerate(counts.argsort(dim=1, descending=True, stable=True)):
            for group, classes in enumerate(own.tensor_split(CLASS_GROUPS)):
                outside[split, group, classes] = False
        self._outside = outside.to(said.device)[member_split].unsqueeze(1)

    def losses(self, own: Tensor, out: Tensor, rows: Tensor) -> Tensor:
        """Of the student in training; own: its losses without a teacher (members, rows), out: its logits
        (members, rows, classes), rows: which of the data set's."""
        taught = self._targets[self._member_split.unsqueeze(1), rows]
        learnt = ((out - self._log_share) / TEACHER_TEMPERATURE).log_softmax(dim=2)
        missed = taught.exp() * (taught - learnt)
        of_taught, of_learnt = self._by_group(taught), self._by_group(learnt)
        chance = of_taught.exp()
        between = chance * (of_taught - of_learnt)
        inside = missed.unsqueeze(2).masked_fill(self._outside, 0.0).sum(dim=3)
        # of a group's own conditional probabilities: what is left of its part when the group's chance is out
        within = inside / chance.clamp(min=LEAST_SHARE) - (of_taught - of_learnt)
        within = torch.where(chance > LEAST_SHARE, within, 0.0)
        distance = between.sum(dim=2) + within.mean(dim=2)
        return (1 - TEACHER_SHARE) * own + TEACHER_SHARE * TEACHER_TEMPERATURE**2 * distance

    def _by_group(self, logs: Tensor) -> Tensor:
        """Log probabilities of groups, (members, rows, groups); of one without classes nearly -inf."""
        least = torch.finfo(logs.dtype).min / 4
        return logs.unsqueeze(2).masked_fill(self._outside, least).logsumexp(dim=3)
