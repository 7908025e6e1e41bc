"""A table's rows as a network reads them: numbers, indicators and codes, under every split's statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advisor.dataset import Features
from advisor.networks.pretrained.start import InputLabels, Start
from advisor.networks.tables import InputShape
from advisor.splits import Split
from advisor.training.augmentation import Mix
from advisor.training.class_balance import ClassBalance
from advisor.training.preprocessing import Inputs, Preprocessor


@dataclass(frozen=True)
class TableInputs:
    """A table's rows under every split's own preprocessing; row r of split s lies at s * rows + r."""

    preprocessors: tuple[Preprocessor, ...]
    shape: InputShape
    rows: int
    numeric: Tensor
    indicators: Tensor
    codes: Tensor

    @classmethod
    def prepare(
        cls,
        configuration: Mapping[str, Any],
        features: Features,
        splits: Sequence[Split],
        device: str,
        start: Start | None = None,
    ) -> TableInputs:
        """Fit each split's preprocessing on its training rows and transform all rows with it."""
        preprocessors = tuple(Preprocessor.fit(features, split.train, configuration) for split in splits)
        inputs = [p.transform(features) for p in preprocessors]
        counts = np.max([p.embedded_counts for p in preprocessors], axis=0)
        shape = InputShape(
            numeric=inputs[0].numeric.shape[1],
            indicators=max(i.indicators.shape[1] for i in inputs),
            code_counts=tuple(int(c) for c in counts),
        )
        return cls(preprocessors, shape, len(features), *(t.to(device) for t in _stack(inputs, shape)))

    @classmethod
    def of_new_rows(
        cls, preprocessors: tuple[Preprocessor, ...], shape: InputShape, features: Features, device: str
    ) -> TableInputs:
        """Rows under preprocessing that was fitted on others."""
        inputs = [p.transform(features) for p in preprocessors]
        return cls(preprocessors, shape, len(features), *(t.to(device) for t in _stack(inputs, shape)))

    @property
    def place(self) -> torch.device:
        """Where rows are looked up."""
        return self.numeric.device

    def inputs(self, batch: Tensor, member_split: Tensor) -> list[Tensor]:
        """Row numbers (members, rows) and each member's split -> what the network
        reads, each (members, rows, columns)."""
        index = (batch.to(self.place) + member_split.to(self.place).unsqueeze(1) * self.rows).flatten()
        return [
            t.index_select(0, index).view(*batch.shape, -1)
            for t in (self.numeric, self.indicators, self.codes)
        ]

    def training_inputs(
        self,
        batch: Tensor,
        member_split: Tensor,
        configuration: Mapping[str, Any],
        generator: torch.Generator,
        balance: ClassBalance | None = None,
        target: Tensor | None = None,
    ) -> tuple[list[Tensor], Mix | None]:
        """The inputs of a batch, with numbers of rare classes made up where ``balance`` does so."""
        inputs = self.inputs(batch, member_split)
        if balance is None:
            return inputs, None
        assert target is not None
        start = member_split.unsqueeze(1) * self.rows
        return balance.synthesize(inputs, batch, target, self.numeric, start, generator), None

    def find_neighbours(
        self, balance: ClassBalance, train: Sequence[Tensor], target: Tensor, member_split: Tensor
    ) -> None:
        """For made-up rows that lie between two of one class."""
        start = member_split.unsqueeze(1) * self.rows
        balance.prepare(train, target, self.numeric, self.indicators, start)

    def labels(self, features: Features, split: int) -> InputLabels:
        """What the inputs of a split stand for; what other splits alone know has names of its own."""
        return (
            self.preprocessors[split].labels(features).padded(self.shape.indicators, self.shape.code_counts)
        )

    def bins(self, configuration: Mapping[str, Any], members_per_split: int) -> Tensor | None:
        """Edges of the piecewise linear embedding's bins, (members, bins + 1, numeric columns)."""
        if configuration["numeric_embedding"] != "piecewise_linear":
            return None
        edges = np.stack([p.bins for p in self.preprocessors]).astype(np.float32)
        return torch.from_numpy(edges).repeat_interleave(members_per_split, dim=0)


def _stack(inputs: Sequence[Inputs], shape: InputShape) -> tuple[Tensor, Tensor, Tensor]:
    """The splits' inputs one after another; a split that knows fewer levels has its
    one-hot columns padded with zeros."""
    padded = [np.pad(i.indicators, ((0, 0), (0, shape.indicators - i.indicators.shape[1]))) for i in inputs]
    numeric = torch.from_numpy(np.concatenate([i.numeric for i in inputs]))
    codes = torch.from_numpy(np.concatenate([i.codes for i in inputs]))
    return numeric, torch.from_numpy(np.concatenate(padded)), codes
