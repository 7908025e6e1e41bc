"""A class added to a finished model from examples, without training; and rows that are unlike any class.

Both need a cosine classifier: a class is a direction, so the mean embedding of a few examples is one more
(Qi et al. 2018, Low-Shot Learning with Imprinted Weights). Nothing else of the model changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from advisor.data.tables.target import ClassValues
from advisor.dataset import Features, Signals
from advisor.errors import UserError, shown
from advisor.networks.cosine import PROTOTYPES, is_cosine
from advisor.training.loop import Fitted

if TYPE_CHECKING:
    from advisor.runs.model import Model

FALSE_ALARMS = 0.05
"""Share of held-out rows of known classes that are told to be unlike any class."""


@dataclass(frozen=True)
class Familiar:
    """From which similarity on a row resembles one of the classes.

    threshold: a cosine. share: of the held-out rows that lie below it. rows: how many there were.
    """

    threshold: float
    share: float
    rows: int

    @classmethod
    def of(cls, similarity: NDArray[np.float64]) -> Familiar:
        """similarity: of held-out rows to the class that each resembles most, (rows,)."""
        threshold = float(np.quantile(similarity, FALSE_ALARMS))
        return cls(threshold, float((similarity < threshold).mean()), len(similarity))


@dataclass(frozen=True)
class Enrolled:
    """A class that was added after training. label: its name. rows: the examples that it was made from."""

    label: str
    rows: int


def similarity_of(stacks: Sequence[Fitted], features: Features | Signals) -> NDArray[np.float64]:
    """Of each row to the class that it resembles most, the mean cosine over the stacks, (rows,)."""
    return np.asarray(np.mean([stack.similarities(features) for stack in stacks], axis=0))


def with_class(model: Model, label: str, features: Features | Signals) -> Model:
    """The model with one more class, the last one, from examples of it.

    Its direction in each network is that of the examples' mean embedding. UserError for a model without a
    cosine classifier, for a name that a class has already, and without examples.
    """
    if not model.task.of_classes or not all(is_cosine(stack.configuration) for stack in model.stacks):
        raise UserError(
            "this model has no cosine classifier, so a class cannot be added without training: "
            "train one with --fixed classifier=cosine"
        )
    if model.trees is not None:
        raise UserError(
            "this model is a blend with boosted trees, which cannot learn a class from a few examples: "
            "train without --with-trees"
        )
    if label in model.schema.classes:
        raise UserError(f"the model knows a class '{shown(label, 60)}' already: give another --name")
    if not len(features):
        raise UserError(f"there are no examples of '{shown(label, 60)}': give at least one row")
    shares = model.shares
    if shares:  # it was in no training row; as if it were a usual class
        shares = (*shares, float(np.median(shares)))
    schema = replace(
        model.schema, classes=(*model.schema.classes, label), given=_given(model.schema.given, label)
    )
    return replace(
        model,
        schema=schema,
        stacks=tuple(_imprinted(stack, features) for stack in model.stacks),
        shares=shares,
        enrolled=(*model.enrolled, Enrolled(label, len(features))),
    )


def _imprinted(stack: Fitted, features: Features | Signals) -> Fitted:
    direction = F.normalize(stack.embeddings(features).mean(dim=1), dim=1).unsqueeze(2)
    state = dict(stack.state)
    for name in PROTOTYPES:
        state[name] = torch.cat([state[name], direction], dim=2)
    return replace(stack, state=state, outputs=stack.outputs + 1)


def _given(given: ClassValues | None, label: str) -> ClassValues | None:
    """The classes' values with one more: of the others' type where the label is written so, else all as
    text."""
    if given is None:
        return None
    try:
        value: Any = np.array([label]).astype(given.dtype).item()
    except (ValueError, TypeError):
        value = None
    if value is None or str(value) != label or np.dtype(given.dtype).kind in "bUS":
        return ClassValues((*map(str, given.values), label), "str")
    return ClassValues((*given.values, value), given.dtype)
