"""What torch does with a target, one class for each kind of it: how members see it, its losses, and a
network's outputs as scores. ``TARGETS`` has them by the kind that a task names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from advisor.boxes.lists import Boxes
from advisor.dataset import Dataset
from advisor.networks.cosine import is_cosine
from advisor.networks.detection.plan import detection_plan_of
from advisor.splits import Split
from advisor.tasks import DETECTION, UNLABELLED, TargetKind, sparse_points, thinning
from advisor.training.class_balance import ClassBalance
from advisor.training.detection.losses import DETECTION_LOSSES

LARGEST_POWER = 50.0
"""No target is e^50 times its own median; a diverging network may say so."""


@dataclass(frozen=True)
class TargetScale:
    """A number as each member's network sees it, fitted on its training rows; of classes nothing is scaled.

    knee: (members,), see ``squeezed``. mean, scale: (members,), of the squeezed target.
    range: (members, 2), of the plain one.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    range: NDArray[np.float64]
    knee: NDArray[np.float64]

    @classmethod
    def none(cls, members: int) -> TargetScale:
        """Of targets that are no numbers."""
        return cls(np.zeros(members), np.ones(members), np.zeros((members, 2)), np.zeros(members))

    @classmethod
    def fit(cls, trained: Sequence[NDArray[np.float64]], transform: str) -> TargetScale:
        """Of each member's training targets; transform: ``none`` or ``log``."""
        ranges = np.array([(own.min(), own.max()) for own in trained])
        knee = np.zeros(len(trained))
        if transform == "log":
            knee = np.array([float(np.median(np.abs(own))) or float(np.abs(own).max()) for own in trained])
        seen = [
            squeezed(torch.from_numpy(o), torch.tensor(k)).numpy() for o, k in zip(trained, knee, strict=True)
        ]
        mean = np.array([own.mean() for own in seen])
        deviation = np.array([own.std() for own in seen])
        return cls(mean, np.where(deviation > 0, deviation, 1.0), ranges, knee)


class LearntTarget(Protocol):
    """The targets of all rows as the members of a stack learn them.

    values: of all rows, on the device.
    unit: (members,), what turns a member's training loss into the unit of its validation loss.
    balance: what training does about rare classes, None where there are no classes.
    turns: how often an epoch sees each row.
    counts: of the classes among each member's training rows, (members, classes); None where rows have none.
    """

    values: Tensor
    scale: TargetScale
    unit: Tensor
    balance: ClassBalance | None
    turns: int
    counts: Tensor | None

    def __init__(
        self, configuration: Mapping[str, Any], data: Dataset, splits: Sequence[Split], device: str
    ) -> None:
        """splits: of each member."""

    @property
    def seen(self) -> Tensor:
        """Of all rows, as the first member's network sees them."""

    def plain_losses(self, out: Tensor, seen: Tensor) -> Tensor:
        """In training without a treatment of rare classes, (members, rows). seen: (members, rows, ...), as
        ``seen``."""

    def constant_losses(self, seen: Tensor) -> Tensor:
        """``plain_losses`` of the same outputs for every row: the shares of the classes, or the mean."""

    def prior(self) -> Tensor | None:
        """What the output layer begins with, (members, outputs); None: zeros."""

    def training_losses(self, out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Of a batch, out (members, rows, outputs) and its targets (members, rows): (members, rows)."""

    def row_losses(self, out: Tensor, target: Tensor) -> Tensor:
        """Of validating rows, in the unit of the task's losses: (members, rows)."""

    @staticmethod
    def kept(out: Tensor) -> Tensor:
        """What is kept of the outputs for validating rows, (members, rows, ...)."""

    @staticmethod
    def scores(out: Tensor, scale: TargetScale) -> NDArray[np.float64]:
        """Outputs (members, rows, outputs) as scores, one array for each member."""


class ClassTarget:
    """A class of each row; outputs are logits."""

    turns = 1

    def __init__(
        self, configuration: Mapping[str, Any], data: Dataset, splits: Sequence[Split], device: str
    ) -> None:
        self.values = torch.from_numpy(np.array(data.target)).to(device)
        self.scale = TargetScale.none(len(splits))
        self.unit = torch.ones(len(splits), dtype=torch.float64, device=device)
        rows = (torch.from_numpy(data.target[split.train]) for split in splits)
        counts = torch.stack([torch.bincount(own, minlength=data.outputs) for own in rows])
        self.counts: Tensor | None = counts
        self.balance: ClassBalance | None = ClassBalance(configuration, counts, device)
        self._margin = 0.0
        if is_cosine(configuration):
            self._margin = float(configuration["cosine_scale"]) * float(configuration["cosine_margin"])

    @property
    def seen(self) -> Tensor:
        return self.values

    def plain_losses(self, out: Tensor, seen: Tensor) -> Tensor:
        return self.row_losses(out, seen)

    def constant_losses(self, seen: Tensor) -> Tensor:
        return self.plain_losses(self.prior()[0].float().to(seen.device).expand(*seen.shape, -1), seen)

    def prior(self) -> Tensor:
        """Logarithms of each member's class shares, with one row added to each class."""
        assert self.counts is not None
        return ((self.counts + 1.0) / (self.counts + 1.0).sum(dim=1, keepdim=True)).log()

    def training_losses(self, out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        assert self.balance is not None
        if self._margin:  # CosFace: the true class's cosine must be the largest by so much
            true = target.unsqueeze(2)
            out = out.scatter_add(2, true, out.new_full(true.shape, -self._margin))
        return self.balance.losses(out, target, label_smoothing)

    def row_losses(self, out: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(out.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)

    @staticmethod
    def kept(out: Tensor) -> Tensor:
        return out

    @staticmethod
    def scores(out: Tensor, scale: TargetScale) -> NDArray[np.float64]:
        """Probabilities (members, rows, classes)."""
        return out.double().softmax(dim=2).cpu().numpy()


TRAINED_LOSSES: Mapping[str, tuple[Callable[..., Tensor], int]] = {
    "mean_squared_error": (lambda missed, quantile: missed.square(), 2),
    "mean_absolute_error": (lambda missed, quantile: missed.abs(), 1),
    "quantile": (lambda missed, quantile: torch.maximum(-quantile * missed, (1 - quantile) * missed), 1),
}
"""Of numbers, by the loss of the task: prediction minus truth and the quantile -> the loss of each, and its
power of the target's unit. ``tasks.NUMBER_LOSSES`` has the same in NumPy."""


class NumberTarget:
    """A number of each row; the single output is the squeezed and standardized one. Of a quantile or an
    absolute error that is the same quantile, as squeezing keeps the order."""

    balance: ClassBalance | None = None
    counts: Tensor | None = None
    turns = 1

    def __init__(
        self, configuration: Mapping[str, Any], data: Dataset, splits: Sequence[Split], device: str
    ) -> None:
        self.values = torch.from_numpy(np.array(data.target)).to(device)
        values = np.asarray(data.target, dtype=np.float64)
        # each member's own: the other splits' training rows are rows that this one validates on
        self.scale = TargetScale.fit(
            [values[split.train] for split in splits], configuration["target_transform"]
        )
        arrays = (self.scale.mean, self.scale.scale, self.scale.knee)
        self._mean, self._scale, self._knee = (torch.from_numpy(a).to(device)[:, None] for a in arrays)
        loss, power = TRAINED_LOSSES[data.task.loss]
        self._loss = partial(loss, quantile=data.task.quantile)
        self.unit = self._scale.squeeze(1) ** power

    @property
    def seen(self) -> Tensor:
        return self.standardized(self.values)[0].float()

    def plain_losses(self, out: Tensor, seen: Tensor) -> Tensor:
        return (out[:, :, 0] - seen).square()

    def constant_losses(self, seen: Tensor) -> Tensor:
        return self.plain_losses(seen.new_zeros(*seen.shape, 1), seen)

    def prior(self) -> None:
        """The mean of a standardized target is 0."""

    def standardized(self, target: Tensor) -> Tensor:
        """A target (members or 1, rows) as each member's network sees it, (members, rows)."""
        return (squeezed(target, self._knee) - self._mean) / self._scale

    def training_losses(self, out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return self._loss(out[:, :, 0] - self.standardized(target).to(out.dtype))

    def row_losses(self, out: Tensor, target: Tensor) -> Tensor:
        values = stretched(out[:, :, 0].double() * self._scale + self._mean, self._knee)
        return self._loss(values - target)

    @staticmethod
    def kept(out: Tensor) -> Tensor:
        return out

    @staticmethod
    def scores(out: Tensor, scale: TargetScale) -> NDArray[np.float64]:
        """Predictions (members, rows) within the range of each member's training target."""
        mean, width, knee = (torch.from_numpy(a)[:, None] for a in (scale.mean, scale.scale, scale.knee))
        values = out[:, :, 0].double().cpu() * width + mean
        plain = stretched(values, knee).numpy()
        return np.asarray(np.clip(plain, scale.range[:, :1], scale.range[:, 1:]))


class MaskTarget:
    """A class of each point; outputs are logits (members, rows, classes, height, width).

    The loss is the mean cross-entropy of a row's labelled points and, by ``dice_weight``, one minus the soft
    Dice of
    the classes in the batch (Milletari et al. 2016), which counts a class of few points as much as one of
    many.
    An epoch sees of each image as many crops as cover it.
    """

    balance: ClassBalance | None = None
    counts: Tensor | None = None

    def __init__(
        self, configuration: Mapping[str, Any], data: Dataset[Any], splits: Sequence[Split], device: str
    ) -> None:
        values: NDArray[np.uint8] = data.target.values
        self.values = torch.from_numpy(values).to(device)
        self.scale = TargetScale.none(len(splits))
        self.unit = torch.ones(len(splits), dtype=torch.float64, device=device)
        self._dice, self._classes = float(configuration["dice_weight"]), data.outputs
        side = int(configuration["crop"]) or max(values.shape[1:])
        self.turns = math.prod(-(-axis // side) for axis in values.shape[1:])
        counts = np.stack([np.bincount(own.reshape(-1), minlength=256)[: self._classes] for own in values])
        self._counts = torch.stack([torch.from_numpy(counts[split.train].sum(axis=0)) for split in splits])

    @property
    def seen(self) -> Tensor:
        return self.values

    def plain_losses(self, out: Tensor, seen: Tensor) -> Tensor:
        return self._of_maps(out, lambda own: _mean_of_points(own, seen))

    def constant_losses(self, seen: Tensor) -> Tensor:
        prior = self.prior()[0].float().to(seen.device).view(1, 1, -1, 1, 1)
        return self.plain_losses(prior.expand(*seen.shape[:2], -1, *seen.shape[2:]), seen)

    def prior(self) -> Tensor:
        """Logarithms of each member's shares of the points, with one point added to each class."""
        return ((self._counts + 1.0) / (self._counts + 1.0).sum(dim=1, keepdim=True)).log()

    def training_losses(self, out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """out: with the logits of coarser maps after those of the last one, each of which counts half of the
        one
        before it (Isensee et al. 2021)."""
        return self._of_maps(out, lambda own: self._losses(own, target, label_smoothing))

    def _of_maps(self, out: Tensor, losses_of: Callable[[Tensor], Tensor]) -> Tensor:
        maps = torch.split(out, self._classes, dim=2)
        shares = [0.5**place for place in range(len(maps))]
        losses = [share / sum(shares) * losses_of(own) for share, own in zip(shares, maps, strict=True)]
        return torch.stack(losses).sum(dim=0)

    def _losses(self, out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        losses = _mean_of_points(out, target, label_smoothing)
        if not self._dice:
            return losses
        return (1 - self._dice) * losses + self._dice * (1 - soft_dice(out, target)).unsqueeze(1)

    def row_losses(self, out: Tensor, target: Tensor) -> Tensor:
        return _mean_of_points(out, target)

    @staticmethod
    def kept(out: Tensor) -> Tensor:
        """The logits of some of the points, as many as ``tasks.sparse_points`` keeps."""
        return torch.as_tensor(sparse_points(out, thinning(out.shape[-2], out.shape[-1])))

    @staticmethod
    def scores(out: Tensor, scale: TargetScale) -> NDArray[Any]:
        """Probabilities (members, rows, classes, height, width), float32: of thousands of images they are
        large."""
        return out.float().softmax(dim=2).cpu().numpy()


class BoxTarget:
    """A list of boxes for each image, padded: (rows, most, 5), corners in points of the image and the class,
    -1 where there is no box. What is trained is what the network's head says of every place; what is
    validated and predicted are the boxes that were found, (members, rows, MOST_FOUND, 6)."""

    balance: ClassBalance | None = None
    counts: Tensor | None = None
    turns = 1

    def __init__(
        self, configuration: Mapping[str, Any], data: Dataset[Any], splits: Sequence[Split], device: str
    ) -> None:
        boxes: Boxes = data.target
        self.values = torch.from_numpy(padded_boxes(boxes)).to(device)
        self.scale = TargetScale.none(len(splits))
        self.unit = torch.ones(len(splits), dtype=torch.float64, device=device)
        channels, *size = data.features.shape
        plan = detection_plan_of(configuration, channels, size)
        self._loss = DETECTION_LOSSES[plan.head](plan, data.outputs)
        self._places = plan.places
        shown = np.zeros((len(boxes), data.outputs), np.int64)
        np.add.at(shown, (boxes.rows, boxes.codes), 1)
        self._counts = torch.stack([torch.from_numpy(shown[split.train].sum(axis=0)) for split in splits])
        self._images = torch.tensor([[len(split.train)] for split in splits])

    @property
    def seen(self) -> Tensor:
        return self.values

    def plain_losses(self, out: Tensor, seen: Tensor) -> Tensor:
        return self.training_losses(out, seen, 0.0)

    def constant_losses(self, seen: Tensor) -> Tensor:
        images = seen.shape[0] * seen.shape[1]
        out = self._loss.constant(self.prior()[0].to(seen.device), images)
        return self.training_losses(out.view(*seen.shape[:2], *out.shape[1:]), seen, 0.0)

    def prior(self) -> Tensor:
        """Logarithms of the odds that a place shows a box of each class, with one box added."""
        share = (self._counts + 1.0) / (self._images * self._places + 1.0)
        return torch.log(share / (1 - share.clamp(max=0.5)))

    def training_losses(self, out: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        losses = self._loss(out.flatten(0, 1), target.flatten(0, 1))
        return losses.view(target.shape[:2])

    def row_losses(self, out: Tensor, target: Tensor) -> Tensor:
        """out: found boxes. The loss of the task, which has no gradient."""
        found = out.detach().double().flatten(0, 1).cpu().numpy()
        losses = DETECTION.row_losses(_as_lists(target.flatten(0, 1).cpu().numpy()), found)
        return torch.from_numpy(losses).view(target.shape[:2]).to(out.device)

    @staticmethod
    def kept(out: Tensor) -> Tensor:
        return out

    @staticmethod
    def scores(out: Tensor, scale: TargetScale) -> NDArray[np.float64]:
        return out.double().cpu().numpy()


def padded_boxes(boxes: Boxes) -> NDArray[np.float32]:
    """(rows, most, 5): corners and class of each row's boxes, -1 as the class of none."""
    result = np.full((len(boxes), max(1, int(boxes.counts.max(initial=0))), 5), -1.0, np.float32)
    for row, (corners, codes) in enumerate(boxes.each()):
        result[row, : len(codes), :4], result[row, : len(codes), 4] = corners, codes
    return result


def _as_lists(padded: NDArray[np.float32]) -> Boxes:
    there = padded[:, :, 4] >= 0
    flat = padded[there]
    return Boxes(flat[:, :4].astype(np.float64), flat[:, 4].astype(np.int64), np.cumsum(there.sum(axis=1)))


TARGETS: Mapping[TargetKind, type[LearntTarget]] = {
    "class": ClassTarget,
    "number": NumberTarget,
    "mask": MaskTarget,
    "boxes": BoxTarget,
}


def _mean_of_points(out: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the labelled points of each row, (members, rows)."""
    losses = F.cross_entropy(
        out.flatten(0, 1),
        target.flatten(0, 1).long(),
        reduction="none",
        ignore_index=UNLABELLED,
        label_smoothing=label_smoothing,
    )
    labelled = (target != UNLABELLED).flatten(2).sum(dim=2).clamp(min=1)
    return losses.view(*target.shape[:2], -1).sum(dim=2) / labelled


def soft_dice(out: Tensor, target: Tensor) -> Tensor:
    """Of each member's batch, (members,): 2 |truth and prediction| / (|truth| + |prediction|), the mean over
    the
    classes of its targets.

    out: logits (members, rows, classes, height, width); target: codes (members, rows, height, width).
    """
    labelled = (target != UNLABELLED).unsqueeze(2)
    codes = torch.where(labelled, target.unsqueeze(2), 0).long()
    said = out.softmax(dim=2) * labelled
    truth = torch.zeros_like(said).scatter_(2, codes, 1.0) * labelled
    axes = (1, 3, 4)
    both, size = (said * truth).sum(dim=axes), truth.sum(dim=axes)
    dice = (2 * both + 1) / (said.sum(dim=axes) + size + 1)
    there = (size > 0).to(dice.dtype)
    return (dice * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)


def squeezed(values: Tensor, knee: Tensor) -> Tensor:
    """sign(y) log(1 + |y| / knee): about linear below the knee, a logarithm far above it;
    the values alone for a knee of 0."""
    return torch.where(
        knee > 0, values.sign() * (values.abs() / torch.where(knee > 0, knee, 1.0)).log1p(), values
    )


def stretched(values: Tensor, knee: Tensor) -> Tensor:
    """The inverse of ``squeezed``; what would overflow stays finite."""
    return torch.where(knee > 0, values.sign() * knee * values.abs().clamp(max=LARGEST_POWER).expm1(), values)
