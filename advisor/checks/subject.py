"""What the pre-flight looks at: a configuration, some of the rows that it is for, and the
network that training begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.dataset import Dataset
from advisor.networks.network import Network
from advisor.networks.pretrained.start import Start
from advisor.splits import Split
from advisor.tasks import Masks
from advisor.training.batches import MemberRows
from advisor.training.loop import begin_with, build
from advisor.training.modalities import Prepared, prepare
from advisor.training.targets import LearntTarget

TRAINING_ROWS, VALIDATION_ROWS = 2000, 1000
"""At most this many rows take part: enough to see whether something is learnt, few enough for a minute."""
CELLS = 30_000_000
"""At most this many numbers among all inputs; large images take part in fewer rows."""
FEWEST_ROWS = 20
FIRST_ROWS = 256
"""Rows of the first pass."""
COPIES_AGREE = 0.95
"""Share of the rows with equal inputs whose targets must agree for them to be copies."""


@dataclass(frozen=True)
class Subject:
    """A configuration, the rows that take part and one split of them; ``network`` makes the
    network that training begins with."""

    configuration: Mapping[str, Any]
    data: Dataset
    split: Split
    members: int
    seed: int
    device: str = "cpu"
    start: Start | None = None

    @classmethod
    def of(
        cls,
        configuration: Mapping[str, Any],
        data: Dataset,
        whole: Split,
        *,
        seed: int,
        device: str = "cpu",
        start: Start | None = None,
    ) -> Subject:
        """Of one split of the training rows, thinned out to some thousand."""
        data = _as_trained(configuration, data)
        cells = int(np.prod(data.features.shape))
        share = min(1.0, CELLS / (cells * (TRAINING_ROWS + VALIDATION_ROWS)))
        folds = int(configuration["folds"]) if configuration["validation"] == "kfold" else 1
        subject = cls(configuration, data, whole, folds, seed, device, start)
        return subject._with(int(TRAINING_ROWS * share), int(VALIDATION_ROWS * share))

    def thinned(self, share: float) -> Subject:
        """The same with this share of the rows on either side."""
        return self._with(int(len(self.split.train) * share), int(len(self.split.validation) * share))

    def _with(self, training_rows: int, validation_rows: int) -> Subject:
        """At most this many rows of the split, drawn at random."""
        generator, whole = np.random.default_rng(self.seed), self.split
        train = np.sort(generator.permutation(whole.train)[: max(FEWEST_ROWS, training_rows)])
        validation = np.sort(generator.permutation(whole.validation)[: max(FEWEST_ROWS, validation_rows)])
        rows = np.unique(np.concatenate([train, validation]))  # a leak would have a row on both sides
        split = Split(np.searchsorted(rows, train), np.searchsorted(rows, validation))
        return replace(self, data=self.data.part(rows), split=split)

    @cached_property
    def prepared(self) -> Prepared:
        return prepare(self.configuration, self.data, [self.split], self.device, self.start)

    @property
    def outputs(self) -> int:
        return self.data.outputs

    def network(self, members: int = 1) -> Network:
        """The network as training draws it: its output layer at the class shares where it starts at zero.

        A cosine classifier has the class directions that its steps train: mean embeddings are of a training.
        """
        generator = torch.Generator().manual_seed(self.seed)
        configuration = {**self.configuration, "prototypes": "learned"}
        network = build(configuration, self.prepared, self._rows(members), generator)
        network = begin_with(self.start, network, self.prepared, self.data, [0] * members)
        return network.to(self.device)

    def _rows(self, members: int) -> MemberRows:
        return MemberRows(self.configuration, self.data, [self.split], [0] * members, self.device)

    @cached_property
    def _learnt(self) -> LearntTarget:
        return self._rows(1).learnt

    def inputs(self, rows: Tensor) -> list[Tensor]:
        """What the network reads of these rows (members, rows)."""
        return self.prepared.inputs(rows, torch.zeros(len(rows), dtype=torch.int64))

    @cached_property
    def target(self) -> Tensor:
        """Class codes, or the target as the network sees it: squeezed where that
        is asked for, then standardized."""
        return self._learnt.seen

    def loss(self, out: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy in nats, or squared error in variances of the target; summed over the members."""
        return self._learnt.plain_losses(out, self.target[rows.to(self.device)]).mean() * len(rows)

    def constant_loss(self, rows: NDArray[np.int64]) -> float:
        """The loss of the class shares of the training rows, or of their mean, in the unit of ``loss``."""
        target = self.target[torch.from_numpy(rows).to(self.device)].unsqueeze(0)
        return float(self._learnt.constant_losses(target).mean())

    def first_rows(self) -> Tensor:
        """Some training rows for one pass, (1, rows)."""
        order = np.random.default_rng(self.seed).permutation(self.split.train)
        return torch.from_numpy(np.sort(order[:FIRST_ROWS])).unsqueeze(0)


def _as_trained(configuration: Mapping[str, Any], data: Dataset[Any]) -> Dataset[Any]:
    """Of images that are trained in crops the middle of each: a pass sees no more."""
    side = int(configuration.get("crop", 0))
    if not side:
        return data
    images: Any = data.features
    middle = tuple(
        slice(max(0, (size - side) // 2), max(0, (size - side) // 2) + side)
        for size in images.values.shape[2:]
    )
    cut = replace(images, values=np.ascontiguousarray(images.values[:, :, *middle]))
    return replace(data, features=cut, target=Masks(np.ascontiguousarray(data.target.values[:, *middle])))


def blank(data: Dataset) -> Dataset:
    """The same rows and targets with inputs that are all alike: those of the first row."""
    return replace(data, features=data.features.part(np.zeros(len(data), dtype=np.int64)))


def copies(data: Dataset) -> NDArray[np.int64]:
    """A number for each row, the same for copies of one: equal inputs, and targets that agree.

    Where targets of equal inputs often do not agree, the inputs just take few
    values, and each row is one of its own.
    """
    _, first, which = np.unique(contents(data), return_index=True, return_inverse=True)
    which = np.asarray(which.reshape(-1), dtype=np.int64)
    repeated = np.bincount(which)[which] > 1
    compared = data.task.compared(data.target)
    agree = compared == compared[first[which]]
    if repeated.any() and agree[repeated].mean() < COPIES_AGREE:
        return np.arange(len(data))
    return which


def meaningless(data: Dataset, seed: int) -> Dataset:
    """The same rows with targets drawn at random, the same for copies: all classes
    alike, or a bell of the target's width.

    Whatever then helps on validation rows has got there from training rows.
    """
    which = copies(data)
    generator = np.random.default_rng([seed, 7])
    return replace(data, target=data.task.meaningless(data.target, which, len(data.classes), generator))


def contents(data: Dataset) -> NDArray[Any]:
    """A digest of each row's inputs: equal for equal rows."""
    digests = [
        hashlib.blake2b(b"".join(p[i].tobytes() for p in data.features.arrays), digest_size=8).digest()
        for i in range(len(data))
    ]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
