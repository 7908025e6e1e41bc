"""Which rows each member of a stack trains and validates on, and what validation says of them.

Training keeps each network at its best epoch, as its validation rows see it. Scored at that epoch, the same
rows look better than new rows will: the best of many epochs is best by luck too, and on a fold of ten rows
that is much (an output that starts at the class shares can then never lose to them, whatever the target). So
the rows of a fold are parted, and each part is scored at the epoch that the other parts chose: cross-fitting
of the one thing that validation rows decide (``HeldOut``).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from advisor.dataset import Dataset
from advisor.errors import UserError
from advisor.networks.cosine import CosineNetwork, is_cosine
from advisor.networks.network import Network
from advisor.splits import Split
from advisor.tasks import averaged_by_row
from advisor.training.augmentation import Mix, Moved
from advisor.training.class_balance import ClassBalance, Lesson
from advisor.training.data_parallel import ALONE, Ranks
from advisor.training.modalities import Prepared
from advisor.training.targets import TARGETS, LearntTarget

GALLERY_ROWS = 5000
"""Of training rows of each member that recall@1 looks among, at most."""
PARTS = 5
"""Parts of a fold's rows; four fifths of them choose nearly the epoch that all of them choose."""


def _check_without_classes(configuration: Mapping[str, Any]) -> None:
    """UserError for what a target with no class for each row has no use for."""
    if is_cosine(configuration):
        raise UserError("classifier cosine compares rows with classes, and this target has none: use linear")
    if (balance := configuration["class_balance"]) != "none":
        raise UserError(f"class_balance {balance} treats rare classes, and this target has none: use none")


class MemberRows:
    """Which rows each member trains and validates on, and the targets as the network sees them."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        data: Dataset,
        splits: Sequence[Split],
        member_split: Sequence[int],
        device: str,
        micro_batch: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.micro_batch, self.ranks = micro_batch, ranks
        self.task, self.rows, self.device = data.task, len(data), device
        self.outputs = data.outputs
        self.train = [torch.from_numpy(np.array(splits[s].train)) for s in member_split]
        self.member_split, self._configuration = torch.tensor(member_split, device=device), configuration
        members = len(member_split)
        self.learnt: LearntTarget = TARGETS[data.task.target](
            configuration, data, [splits[s] for s in member_split], device
        )
        widest = max(self.ranks.world, *(len(splits[s].validation) for s in member_split))
        # members validate on equally many columns, processes on one at least; the
        # padding repeats row 0 with weight 0
        self.validation = torch.zeros(members, widest, dtype=torch.int64)
        self.weight = torch.zeros(members, widest, dtype=torch.float64)
        for m, s in enumerate(member_split):
            count = len(splits[s].validation)
            self.validation[m, :count] = torch.from_numpy(np.array(splits[s].validation))
            own = np.ones(count) if data.weights is None else data.weights[splits[s].validation]
            self.weight[m, :count] = torch.from_numpy(own / max(own.sum(), 1e-300))
        self.lesson: Lesson | None = None
        if self.learnt.counts is None:
            _check_without_classes(configuration)
        self._kept = HeldOut(self.weight)
        counts = data.training_weights
        self._row_weight = None if counts is None else torch.from_numpy(counts).to(device)

    @property
    def target(self) -> Tensor:
        """Of all rows, on the device."""
        return self.learnt.values

    @property
    def balance(self) -> ClassBalance | None:
        """What training does about rare classes now."""
        return self.learnt.balance

    def steps(self, batch_size: int) -> int:
        return max(1, round(self.learnt.turns * max(len(t) for t in self.train) / batch_size))

    def batches(self, steps: int, generator: torch.Generator, place: torch.device) -> Sequence[Tensor]:
        """Row numbers (members, batch) of each step, on ``place``: a fresh permutation per
        member (one for each turn), cut into nearly equal batches.

        Equal batches instead of a small last one: batch normalization of a single row is undefined. A member
        with fewer rows than the largest goes on with its first ones.
        """
        length = max(len(t) for t in self.train)
        orders = []
        turns = [(member, own) for _ in range(self.learnt.turns) for member, own in enumerate(self.train)]
        for member, own in turns:
            if self.balance is None:
                order = own[torch.randperm(len(own), generator=generator)]
            else:
                order = own[self.balance.order(member, self.target.cpu()[own], generator)]
            orders.append(order.repeat(-(-length // len(own)))[:length])
        members = len(self.train)
        whole = torch.cat(
            [torch.stack(orders[at : at + members]) for at in range(0, len(orders), members)], dim=1
        )
        return whole.to(place).tensor_split(steps, dim=1)

    def parts(self, batch: Tensor) -> list[tuple[Tensor, float]]:
        """Nearly equal pieces (members, rows) of at most ``micro_batch`` rows,
        with each one's share of the batch.

        With several processes those of this one's part, as many as in any other (their gradients are averaged
        piece by piece), and the share is this many times as large as a mean over the processes takes from it.
        """
        rows, world = batch.shape[1], self.ranks.world
        if rows < world:
            raise UserError(
                f"a batch of {rows} rows cannot be shared by {world} processes: use a larger batch_size"
            )
        most = -(-rows // world)
        pieces = 1 if self.micro_batch is None else min(-(-most // self.micro_batch), rows // world)
        own = self.ranks.share(batch).tensor_split(pieces, dim=1)
        return [(part, world * part.shape[1] / rows) for part in own]

    def inputs(self, prepared: Prepared, batch: Tensor) -> list[Tensor]:
        return prepared.inputs(batch, self.member_split)

    def find_neighbours(self, prepared: Prepared) -> None:
        """Once before training, for what interpolates between rows."""
        if self.balance is not None:
            prepared.find_neighbours(self.balance, self.train, self.target.cpu(), self.member_split)

    def training_inputs(
        self, prepared: Prepared, batch: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Mix | Moved | None]:
        """What the network reads in a step of training, with rows made up, changed
        or mixed as the configuration asks."""
        # a table's steps are short: what nothing reads is not looked up
        read = self.balance is not None or self.target.dim() > 1
        target = self.target[batch.to(self.device)] if read else None
        return prepared.training_inputs(
            batch, self.member_split, self._configuration, generator, self.balance, target
        )

    def loss(
        self, out: Tensor, batch: Tensor, change: Mix | Moved | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Mean loss of each member; of numbers in units of the standardized target.

        change: what was done to the rows that the target must know of.
        """
        if isinstance(change, Mix):
            own = self.loss(out, batch, label_smoothing=label_smoothing)
            return change.loss(
                own,
                self.loss(out, batch[:, change.partner.to(batch.device)], label_smoothing=label_smoothing),
            )
        rows = batch.to(self.device)
        target = self.target[rows] if change is None else change.target
        losses = self.learnt.training_losses(out, target, label_smoothing)
        if self.lesson is not None:
            losses = self.lesson.losses(losses, out, rows)
        if self._row_weight is not None:
            losses = losses * self._row_weight[rows].to(out.dtype)
        return losses.mean(dim=1)

    def validate(self, network: Network, prepared: Prepared, going: Tensor) -> Tensor:
        """Validation loss of each member, of numbers in the target's unit squared; what is not finite
        counts as inf.

        going (members,): who still trains.
        """
        network.eval()
        self._place_means(network, prepared)
        by_row, outs = [], []
        for batch, out in self._evaluate(network, prepared):
            losses = self.learnt.row_losses(out, self.target[batch.to(self.device)])
            by_row.append(losses.double().cpu())
            outs.append(self.learnt.kept(out).cpu())
        losses_by_row = self.ranks.gathered(by_row)
        self._kept.update(losses_by_row, self.ranks.gathered(outs), going)
        total = (losses_by_row * self.weight).sum(dim=1)
        return torch.where(torch.isfinite(total), total, torch.inf)

    def held_out(
        self, network: Network, prepared: Prepared
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The validating rows in ascending order, and for each the mean score of the members that validated
        on it: of this network, and at the epochs that other validating rows chose."""
        network.eval()
        parts = self._evaluate(network, prepared)
        out = self.ranks.gathered([self.learnt.kept(part).cpu() for _, part in parts])
        rows, mean = self._by_row(self.learnt.scores(out, self.learnt.scale))
        return rows, mean, self._by_row(self.learnt.scores(self._kept.merged(out), self.learnt.scale))[1]

    def similarity(self, network: Network, prepared: Prepared) -> NDArray[np.float64] | None:
        """Of the same rows, as ``Fitted.similarity``; None of a network that is no cosine classifier."""
        if not isinstance(network, CosineNetwork):
            return None
        network.eval()
        cosines = [network.cosines(out).amax(dim=2).cpu() for _, out in self._evaluate(network, prepared)]
        return self._by_row(self.ranks.gathered(cosines).double().numpy())[1]

    def recall_at_1(self, network: Network, prepared: Prepared) -> float | None:
        """See ``Fitted.recall_at_1``; None of a network that is no cosine classifier."""
        if not isinstance(network, CosineNetwork):
            return None
        gallery, _ = self._padded_training_rows()
        gallery = gallery[:, :: -(-gallery.shape[1] // GALLERY_ROWS)]
        known = torch.cat([e for _, e in self._embedded(network, prepared, gallery)], dim=1)
        labels, found = self.target[gallery.to(self.device)], []
        for part, embedded in self._embedded(network, prepared, self.validation):
            nearest = torch.bmm(embedded, known.transpose(1, 2)).argmax(dim=2)
            found.append((labels.gather(1, nearest) == self.target[part.to(self.device)]).cpu())
        real = self.weight > 0
        return float(torch.cat(found, dim=1)[real].double().mean())

    def _place_means(self, network: Network, prepared: Prepared) -> None:
        """The directions of the classes' mean embeddings, on each member's training rows; of a class without
        any, the trained one."""
        if not isinstance(network, CosineNetwork) or not network.by_means:
            return
        rows, real = self._padded_training_rows()
        sums, start = torch.zeros_like(network.means), 0
        for part, embedded in self._embedded(network, prepared, rows):
            there = real[:, start : start + part.shape[1]].to(embedded)
            start += part.shape[1]
            of_class = F.one_hot(self.target[part.to(self.device)], self.outputs).to(embedded)
            sums += torch.bmm(embedded.transpose(1, 2), of_class * there.unsqueeze(2))
        has_rows = sums.abs().sum(dim=1, keepdim=True) > 0
        network.means.copy_(torch.where(has_rows, F.normalize(sums, dim=1), network.weight.detach()))

    def _padded_training_rows(self) -> tuple[Tensor, Tensor]:
        """Each member's training rows, all as many, and which are no padding."""
        length = max(len(own) for own in self.train)
        padded = torch.stack([own.repeat(-(-length // len(own)))[:length] for own in self.train])
        return padded, torch.stack([torch.arange(length) < len(own) for own in self.train])

    def _embedded(
        self, network: CosineNetwork, prepared: Prepared, rows: Tensor
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        per_pass = min(network.rows_per_pass, self.micro_batch or network.rows_per_pass)
        for part in torch.split(rows, per_pass, dim=1):
            with torch.no_grad():
                embedded = network.embed(*self.inputs(prepared, part))
            yield part, embedded

    def _by_row(self, values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Validating rows, ascending, and the mean of each one's values (members, columns, ...)."""
        real, validation = self.weight.numpy() > 0, self.validation.numpy()
        parts_of = [validation[member, columns] for member, columns in enumerate(real)]
        scores = [values[member, columns] for member, columns in enumerate(real)]
        return np.unique(validation[real]), averaged_by_row(self.task, parts_of, scores)[1]

    def _evaluate(self, network: Network, prepared: Prepared) -> Generator[tuple[Tensor, Tensor], None, None]:
        """This process's part of the validating rows and the network's outputs for them, piece by piece."""
        per_pass = min(network.rows_per_pass, self.micro_batch or network.rows_per_pass)
        with torch.no_grad():
            for batch in torch.split(self.ranks.share(self.validation), per_pass, dim=1):
                yield batch, network(*self.inputs(prepared, batch))


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
        return torch.where(never.view(*never.shape, *[1] * (out.dim() - 2)), out, self._out)
