"""What is learnt: one object per task with all that differs between them, in NumPy.

A task says what a row's target is, how many outputs a network needs, the loss of each row, the constant to
beat, how scores become predictions and which metrics people know. ``TASKS`` has them by the names that files
and commands use. What torch does with a target is ``training/targets.py``, by the kind of the target.

Scores are what a model says of rows: probabilities (rows, classes), or predictions (rows,) in the target's
unit; of masks probabilities (rows, classes, height, width), of held-out rows at some of the points
(``sparse_points``); of boxes those that were found (rows, MOST_FOUND, 6), as ``boxes/lists.py`` has them.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.lists import MOST_FOUND, Boxes, fused, losses_of
from advisor.boxes.precision import matches, mean_precision
from advisor.kinds import TaskName

TargetKind = Literal["class", "number", "mask", "boxes"]
"""What the target of a row is: a class, a number, a class for each point, a list of boxes."""

SMALLEST_PROBABILITY = 1e-12
"""Probabilities are not taken below this: a single certain and wrong prediction
would make every mean infinite."""
UNLABELLED = 255
"""In a mask: a point whose class nobody knows, which neither trains nor validates."""
MOST_HELD_POINTS = 1024
"""Of a held-out mask the probabilities of at most about this many points are kept, on a regular grid: the
loss of a row is known from them, and those of thousands of images fit into memory."""

RowTarget = NDArray[np.int64] | NDArray[np.float64]
"""One value per row, (rows,): int64 class codes, or float64 numbers."""
Scores = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Masks:
    """A class for every point of an image.

    values: uint8, shape (rows, height, width): class codes, UNLABELLED where there is none.
    """

    values: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.dtype != np.uint8:
            raise ValueError(
                f"masks are uint8 (rows, height, width), not {self.values.dtype} {self.values.shape}"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: NDArray[np.generic] | slice) -> Masks:
        """The masks of these rows, in their order."""
        return Masks(self.values[rows])


Target = RowTarget | Masks | Boxes
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    TargetT = TypeVar("TargetT", bound=Target, default=RowTarget)
else:
    from typing import TypeVar

    TargetT = TypeVar("TargetT")
"""The target of a task; without a word that of the tasks with one value per row."""


@dataclass(frozen=True)
class Task(ABC, Generic[TargetT]):
    """One thing that can be learnt.

    loss: the value of the parameter ``loss``; loss_name: the same for people.
    score: the metric beside the loss that people know, by its key in result.json; score_name: for people.
    most_classes: None where any number of them will do, or where there are none.
    quantile: of the loss ``quantile``.
    has_chances: whether scores are probabilities, where there are classes.
    """

    name: TaskName
    target: TargetKind
    loss: str
    loss_name: str
    score: str
    score_name: str
    most_classes: int | None = None
    quantile: float = 0.5
    has_chances: bool = True

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return task_of, (self.name,)  # a worker's task is the worker's own object

    def with_loss(self, loss: str, quantile: float) -> Task[TargetT] | None:
        """The same task, trained and judged by another loss; None where it has no such loss.
        quantile: what the loss ``quantile`` asks for."""
        return self if loss == self.loss else None

    @property
    def of_classes(self) -> bool:
        """Whether a row has one class, so that scores are probabilities."""
        return self.target == "class"

    @property
    def has_probabilities(self) -> bool:
        """Whether scores are probabilities of classes, of a row or of each of its points."""
        return self.of_classes

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """Outputs of a network, of a row."""

    @abstractmethod
    def score_shape(self, rows: int, classes: int) -> tuple[int, ...]:
        """The shape of the scores of this many rows."""

    @abstractmethod
    def known(self, target: TargetT) -> NDArray[np.bool_]:
        """Which rows have a target, (rows,)."""

    @abstractmethod
    def compared(self, target: TargetT) -> NDArray[np.float64]:
        """A number for each row, (rows,), by which targets are told to be alike."""

    @abstractmethod
    def meaningless(
        self, target: TargetT, which: NDArray[np.int64], classes: int, generator: np.random.Generator
    ) -> TargetT:
        """Targets drawn at random, one for each number of ``which`` (rows,): classes all alike, a bell of the
        target's width, one class for the whole of a mask, or the boxes of another image."""

    @abstractmethod
    def strata(self, target: TargetT) -> NDArray[np.int64] | None:
        """A code for each row, (rows,), of which every fold should have its share; None: any will do."""

    @abstractmethod
    def row_losses(self, target: TargetT, scores: Scores) -> NDArray[np.float64]:
        """The loss of each row, (rows,)."""

    @abstractmethod
    def constant_scores(self, target: TargetT, classes: int) -> Scores:
        """Of the best constant for these targets, for each row: what a model has to beat."""

    @abstractmethod
    def unseen_loss(self, rows: int, classes: int) -> float:
        """What a model that was right on this many rows may lose on one where it is wrong; 0: not known."""

    @abstractmethod
    def decided(self, scores: Scores, shares: Sequence[float] = ()) -> NDArray[Any]:
        """The prediction for each row, in the form of a target, (rows,).

        shares: what each class's probability is divided by before the largest is taken: their shares
            among the training rows, or what suits the user's metric.
        """

    def averaged(self, scores: NDArray[Any]) -> Scores:
        """The mean of what several models say of some rows: (models, rows, ...) -> (rows, ...)."""
        return np.asarray(scores.mean(axis=0))

    @abstractmethod
    def metrics(self, target: TargetT, scores: Scores, shares: Sequence[float] = ()) -> dict[str, float]:
        """The mean loss, ``loss``, beside what people know, by its key in result.json."""


class _Classification(Task):
    """One of some classes; the loss is the cross-entropy in nats (note N1)."""

    def outputs(self, classes: int) -> int:
        return max(1, classes)

    def score_shape(self, rows: int, classes: int) -> tuple[int, ...]:
        return rows, classes

    def known(self, target: RowTarget) -> NDArray[np.bool_]:
        return np.asarray(target >= 0)

    def compared(self, target: RowTarget) -> NDArray[np.float64]:
        return target.astype(np.float64)

    def meaningless(
        self, target: RowTarget, which: NDArray[np.int64], classes: int, generator: np.random.Generator
    ) -> RowTarget:
        return np.asarray(generator.integers(0, classes, which.max() + 1)[which], np.int64)

    def strata(self, target: RowTarget) -> NDArray[np.int64]:
        return target.astype(np.int64)

    def row_losses(self, target: RowTarget, scores: Scores) -> NDArray[np.float64]:
        chosen = scores[np.arange(len(target)), target]
        return np.asarray(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0)), dtype=np.float64)

    def constant_scores(self, target: RowTarget, classes: int) -> Scores:
        shares = np.bincount(target, minlength=classes) / len(target)
        return np.tile(shares, (len(target), 1))

    def unseen_loss(self, rows: int, classes: int) -> float:
        """n rows without a mistake leave about one in n + K possible (Laplace's rule of succession)."""
        return math.log(rows + classes)

    def decided(self, scores: Scores, shares: Sequence[float] = ()) -> NDArray[np.int64]:
        """The most likely class, or with shares the one of the largest p / share."""
        return np.asarray(
            (scores / np.asarray(shares) if len(shares) else scores).argmax(axis=1), dtype=np.int64
        )

    def metrics(self, target: RowTarget, scores: Scores, shares: Sequence[float] = ()) -> dict[str, float]:
        result = {"loss": float(self.row_losses(target, scores).mean())}
        chosen = self.decided(scores, shares)
        result["accuracy"] = float(np.mean(chosen == target))
        result["balanced_accuracy"] = float(
            np.mean([np.mean(chosen[target == code] == code) for code in np.unique(target)])
        )
        if self.most_classes == 2 and 0 < target.sum() < len(target):
            from sklearn.metrics import average_precision_score

            rare = int(np.bincount(target, minlength=2).argmin())
            result["average_precision"] = float(average_precision_score(target == rare, scores[:, rare]))
        return result


@dataclass(frozen=True)
class NumberLoss:
    """What a missed number costs. words: for people.

    rows: prediction minus truth (rows,), and the quantile -> the loss of each row.
    constant: targets and the quantile -> the number with the least mean loss.
    """

    words: str
    rows: Callable[[NDArray[np.float64], float], NDArray[np.float64]]
    constant: Callable[[NDArray[np.float64], float], float]


NUMBER_LOSSES: Mapping[str, NumberLoss] = {
    "mean_squared_error": NumberLoss(
        "mean squared error", lambda missed, q: np.square(missed), lambda target, q: float(np.mean(target))
    ),
    "mean_absolute_error": NumberLoss(
        "mean absolute error", lambda missed, q: np.abs(missed), lambda target, q: float(np.median(target))
    ),
    "quantile": NumberLoss(
        "pinball loss",
        lambda missed, q: np.maximum(-q * missed, (1 - q) * missed),
        lambda target, q: float(np.quantile(target, q)),
    ),
}
"""By the values of the parameter ``loss``."""


class _Regression(Task):
    """A number; the loss is the squared error (note N2) in the target's unit squared, unless a rule follows a
    metric: then one of NUMBER_LOSSES."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _regression, (self.loss, self.quantile)

    def with_loss(self, loss: str, quantile: float) -> Task | None:
        return _regression(loss, quantile) if loss in NUMBER_LOSSES else None

    def outputs(self, classes: int) -> int:
        return 1

    def score_shape(self, rows: int, classes: int) -> tuple[int, ...]:
        return (rows,)

    def known(self, target: RowTarget) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(target))

    def compared(self, target: RowTarget) -> NDArray[np.float64]:
        return target.astype(np.float64)

    def meaningless(
        self, target: RowTarget, which: NDArray[np.int64], classes: int, generator: np.random.Generator
    ) -> RowTarget:
        drawn = generator.normal(0.0, float(np.std(target)) or 1.0, which.max() + 1)[which]
        return np.asarray(drawn, np.float64)

    def strata(self, target: RowTarget) -> None:
        return None

    def row_losses(self, target: RowTarget, scores: Scores) -> NDArray[np.float64]:
        return np.asarray(NUMBER_LOSSES[self.loss].rows(scores - target, self.quantile), dtype=np.float64)

    def constant_scores(self, target: RowTarget, classes: int) -> Scores:
        return np.full(
            len(target), NUMBER_LOSSES[self.loss].constant(np.asarray(target, np.float64), self.quantile)
        )

    def unseen_loss(self, rows: int, classes: int) -> float:
        return 0.0

    def decided(self, scores: Scores, shares: Sequence[float] = ()) -> NDArray[np.float64]:
        return scores

    def metrics(self, target: RowTarget, scores: Scores, shares: Sequence[float] = ()) -> dict[str, float]:
        result = {"loss": float(self.row_losses(target, scores).mean())}
        missed, spread = np.mean(np.square(scores - target)), np.mean(np.square(target - target.mean()))
        result["r2"] = 1 - float(missed) / float(spread) if spread > 0 else 0.0
        return result


class _Segmentation(Task[Masks]):
    """A class for every point of an image; the loss of a row is the mean cross-entropy of its labelled
    points."""

    @property
    def has_probabilities(self) -> bool:
        return True

    def outputs(self, classes: int) -> int:
        return max(1, classes)

    def score_shape(self, rows: int, classes: int) -> tuple[int, ...]:
        """Of a constant's; a network's have the height and the width of the points that are scored."""
        return rows, classes, 1, 1

    def known(self, target: Masks) -> NDArray[np.bool_]:
        return np.asarray((target.values != UNLABELLED).any(axis=(1, 2)))

    def compared(self, target: Masks) -> NDArray[np.float64]:
        """Equal masks have equal numbers: a digest of this many bits as a float holds."""
        digests = (hashlib.blake2b(mask.tobytes(), digest_size=6).digest() for mask in target.values)
        return np.array([float(int.from_bytes(own)) for own in digests])

    def meaningless(
        self, target: Masks, which: NDArray[np.int64], classes: int, generator: np.random.Generator
    ) -> Masks:
        codes = generator.integers(0, classes, which.max() + 1)[which].astype(np.uint8)
        labelled = target.values != UNLABELLED
        return Masks(np.where(labelled, codes[:, None, None], np.uint8(UNLABELLED)))

    def strata(self, target: Masks) -> NDArray[np.int64]:
        """Of the classes that an image shows the one that the fewest images show."""
        classes = int(target.values[target.values != UNLABELLED].max(initial=0)) + 1
        shown = np.stack([(target.values == code).any(axis=(1, 2)) for code in range(classes)], axis=1)
        counts = np.where(shown, shown.sum(axis=0), len(target) + 1)
        return np.asarray(counts.argmin(axis=1), np.int64)

    def row_losses(self, target: Masks, scores: Scores) -> NDArray[np.float64]:
        """scores: of all points, of those of ``sparse_points``, or one for all points of a row (1, 1)."""
        values = points_of(target.values, scores)
        losses = np.zeros(len(values))
        for row, (codes, own) in enumerate(zip(values, scores, strict=True)):
            labelled = codes != UNLABELLED
            index = np.where(labelled, codes, 0)[None].astype(np.int64)
            chosen = np.take_along_axis(np.broadcast_to(own, (len(own), *codes.shape)), index, axis=0)[0]
            logs = -np.log(np.clip(chosen[labelled], SMALLEST_PROBABILITY, 1.0, dtype=np.float64))
            losses[row] = logs.mean() if len(logs) else 0.0
        return losses

    def constant_scores(self, target: Masks, classes: int) -> Scores:
        counts = np.bincount(target.values.reshape(-1), minlength=UNLABELLED + 1)[:classes]
        shares = (counts / max(1, counts.sum())).reshape(1, classes, 1, 1)
        return np.broadcast_to(shares, (len(target), classes, 1, 1))

    def unseen_loss(self, rows: int, classes: int) -> float:
        return 0.0

    def decided(self, scores: Scores, shares: Sequence[float] = ()) -> NDArray[np.uint8]:
        """The most likely class of each point, (rows, height, width)."""
        return np.asarray(scores.argmax(axis=1), dtype=np.uint8)

    def metrics(self, target: Masks, scores: Scores, shares: Sequence[float] = ()) -> dict[str, float]:
        """IoU and Dice of each class over all points together, and their means over the classes there are."""
        result = {"loss": float(self.row_losses(target, scores).mean())}
        found = overlaps(points_of(target.values, scores), self.decided(scores), scores.shape[1]).sum(axis=0)
        both, true, said = found.T
        there = true + said > 0
        result["mean_iou"] = float((both[there] / (true + said - both)[there]).mean())
        result["mean_dice"] = float((2 * both[there] / (true + said)[there]).mean())
        result["point_accuracy"] = float(both.sum() / max(1, true.sum()))
        return result


def thinning(height: int, width: int) -> int:
    """Of a mask of this size every so many-th point is kept along both axes (``MOST_HELD_POINTS``)."""
    return max(1, math.ceil(math.sqrt(height * width / MOST_HELD_POINTS)))


def sparse_points(points: Any, stride: int) -> Any:
    """Every so many-th point of an array or a tensor (..., height, width), from the middle of the first."""
    return points[..., stride // 2 :: stride, stride // 2 :: stride]


def points_of(values: NDArray[np.uint8], scores: Scores) -> NDArray[np.uint8]:
    """The masks (rows, height, width) at the points that were scored."""
    size = scores.shape[2:]
    if size in ((1, 1), values.shape[1:]):
        return values
    return np.asarray(sparse_points(values, thinning(*values.shape[1:])))


def overlaps(truth: NDArray[np.uint8], chosen: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Points of each row and class, (rows, classes, 3): right, true, and predicted, all among the labelled
    ones."""
    result = np.zeros((len(truth), classes, 3), np.int64)
    chosen = np.broadcast_to(chosen, truth.shape)
    for row, (codes, said) in enumerate(zip(truth, chosen, strict=True)):
        labelled = codes != UNLABELLED
        own, others = codes[labelled], said[labelled]
        result[row, :, 0] = np.bincount(own[own == others], minlength=classes)[:classes]
        result[row, :, 1] = np.bincount(own, minlength=classes)[:classes]
        result[row, :, 2] = np.bincount(others, minlength=classes)[:classes]
    return result


class _Detection(Task[Boxes]):
    """A list of boxes for an image; the loss of a row is that of ``boxes.lists.losses_of``."""

    def outputs(self, classes: int) -> int:
        return max(1, classes)

    def score_shape(self, rows: int, classes: int) -> tuple[int, ...]:
        return rows, MOST_FOUND, 6

    def known(self, target: Boxes) -> NDArray[np.bool_]:
        """All: an image without boxes is one that shows none."""
        return np.ones(len(target), bool)

    def compared(self, target: Boxes) -> NDArray[np.float64]:
        """Equal lists have equal numbers: a digest of so many bits as a float holds."""
        lists = (corners.tobytes() + codes.tobytes() for corners, codes in target.each())
        digests = (hashlib.blake2b(own, digest_size=6).digest() for own in lists)
        return np.array([int.from_bytes(own) for own in digests], np.float64)

    def meaningless(
        self, target: Boxes, which: NDArray[np.int64], classes: int, generator: np.random.Generator
    ) -> Boxes:
        return target[generator.permutation(len(target))[which]]

    def strata(self, target: Boxes) -> NDArray[np.int64]:
        """The rarest class that an image shows; one more than the last for none."""
        if not len(target.codes):
            return np.zeros(len(target), np.int64)
        often = np.bincount(target.codes)
        return np.array(
            [int(codes[often[codes].argmin()]) if len(codes) else len(often) for _, codes in target.each()],
            np.int64,
        )

    def row_losses(self, target: Boxes, scores: Scores) -> NDArray[np.float64]:
        return losses_of(target, scores)

    def constant_scores(self, target: Boxes, classes: int) -> Scores:
        """Nothing found, which no list of boxes that is the same for every image beats."""
        return np.zeros(self.score_shape(len(target), classes))

    def unseen_loss(self, rows: int, classes: int) -> float:
        return 0.0

    def decided(self, scores: Scores, shares: Sequence[float] = ()) -> Scores:
        """All that was found, by falling score: who uses it chooses the score from which on a box counts."""
        return scores

    def averaged(self, scores: NDArray[Any]) -> Scores:
        return fused(scores)

    def metrics(self, target: Boxes, scores: Scores, shares: Sequence[float] = ()) -> dict[str, float]:
        """The mean over the classes of the average precision at an overlap of 0.5, and over ten of them."""
        found = scores[:, :, -1][scores[:, :, -2] > 0]
        classes = int(max(target.codes.max(initial=-1), found.max(initial=-1))) + 1
        precision = mean_precision(matches(target, scores, classes))
        loss = float(self.row_losses(target, scores).mean())
        return {"loss": loss, "ap50": precision[0], "ap": precision[1]}


@cache
def _regression(loss: str, quantile: float) -> Task:
    if loss == REGRESSION.loss:
        return REGRESSION
    words = NUMBER_LOSSES[loss].words
    words = f"{words} at {quantile:g}" if loss == "quantile" else words
    return replace(REGRESSION, loss=loss, loss_name=words, quantile=quantile)


BINARY: Task = _Classification("binary", "class", "cross_entropy", "log loss", "accuracy", "accuracy", 2)
MULTICLASS: Task = _Classification("multiclass", "class", "cross_entropy", "log loss", "accuracy", "accuracy")
REGRESSION = _Regression("regression", "number", "mean_squared_error", "mean squared error", "r2", "R2")
SEGMENTATION: Task[Masks] = _Segmentation(
    "segmentation", "mask", "cross_entropy", "log loss of a point", "mean_iou", "mean IoU"
)
DETECTION: Task[Boxes] = _Detection(
    "detection", "boxes", "detection", "detection loss", "ap50", "AP50", has_chances=False
)
TASKS: Mapping[TaskName, Task[Any]] = {
    task.name: task for task in (BINARY, MULTICLASS, REGRESSION, SEGMENTATION, DETECTION)
}


def task_of(name: str) -> Task[Any]:
    """The task of that name; KeyError for another word."""
    return TASKS[name]  # type: ignore[index]


def averaged_by_row(
    task: Task[Any], parts: Sequence[NDArray[np.int64]], scores_of_parts: Sequence[NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The rows of all parts, each once and ascending, and what its scores come to together.
    No part has a row twice."""
    unique, counts = np.unique(np.concatenate(parts), return_counts=True)
    first = scores_of_parts[0]
    layers = np.zeros((int(counts.max(initial=0)), len(unique), *first.shape[1:]), first.dtype)
    filled = np.zeros(len(unique), np.int64)
    for rows, scores in zip(parts, scores_of_parts, strict=True):
        places = np.searchsorted(unique, rows)
        layers[filled[places], places] = scores
        filled[places] += 1
    result = np.zeros(layers.shape[1:], first.dtype)
    for count in np.unique(counts).tolist():
        own = counts == count
        result[own] = task.averaged(layers[:count, own])
    return unique, result


def weighted(losses: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Losses (rows,) whose plain mean is their weighted one; no weights leave them as they are."""
    return losses if weights is None else np.asarray(losses * weights / weights.mean())
