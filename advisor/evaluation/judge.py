"""A user's metric, computed by scikit-learn of predictions that are there already."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.documents import UNSET, Unset
from advisor.errors import UserError, error_text
from advisor.evaluation.metrics import Costs, Metric, check_fit
from advisor.evaluation.scenes.by_image import MEASURES, MeasuredImages
from advisor.importing import import_own
from advisor.tasks import Task

POSITIVES = ("1", "1.0", "true", "yes", "y")
"""A class that is called so is the positive one of two, as scikit-learn has it of 0 and 1. (The estimators
read True as "class True".)"""


@dataclass(frozen=True)
class Judge:
    """A metric for the rows of one data set.

    classes: in code order. positive: the code of the class that a metric of one class is about: the one that
        the user named, else that of 1, true or yes, else the rarer of two.
    """

    metric: Metric
    task: Task
    classes: tuple[str, ...]
    positive: int | None = None

    @classmethod
    def of(cls, metric: Metric, task: Task, classes: Sequence[str], target: NDArray[Any]) -> Judge:
        """target: of the training rows. UserError where the metric does not fit."""
        check_fit(metric, task.name, classes)
        positive = None
        if task.most_classes == 2:
            positive = _positive(metric, classes, target)
        return cls(metric, task, tuple(classes), positive)

    def value(
        self,
        target: NDArray[Any],
        scores: NDArray[np.float64],
        chosen: NDArray[Any],
        weights: NDArray[np.float64] | None = None,
    ) -> float:
        """What the metric says of some rows, as it is shown; NaN where it is not defined for them.

        target, chosen: class codes or numbers (rows,); of masks ``tasks.Masks`` and codes (rows, height,
        width), of boxes ``Boxes`` and found boxes. scores: probabilities (rows, classes), of masks (rows,
        classes, height, width), or predictions. weights: how much each row counts. UserError where the
        user's own function raises.
        """
        if self.metric.counts:
            return self._measured(target, scores, chosen).value(np.ones(len(target)))
        own = self._own
        truth, said, likely = target, chosen, scores
        if own.by_label:
            truth, said = self._labels[target], self._labels[chosen]
        elif self.positive == 0:
            truth, said, likely = 1 - target, 1 - chosen, scores[:, ::-1]
        codes = self._labels if own.by_label else np.arange(len(self.classes))
        estimator = _said()(likely, said, codes if self.task.of_classes else None)
        more = {} if weights is None or not own.weighted else {"sample_weight": weights}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is not defined for some rows: that is the NaN
            try:
                found = float(own.scorer(estimator, np.arange(len(target)), truth, **more))
            except Exception as error:  # a user's own function may raise anything
                if own.theirs:
                    raise UserError(f"metric {self.metric.name} raised {error_text(error)}") from error
                if not isinstance(error, ValueError):
                    raise
                return math.nan
        return found if self.metric.greater_is_better else 0.0 - found

    def values_without(
        self,
        target: NDArray[Any],
        scores: NDArray[np.float64],
        chosen: NDArray[Any],
        weights: NDArray[np.float64] | None,
        part: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """``value`` of the rows without those of each part in turn, (parts,); part: of each row, (rows,)."""
        parts = int(part.max()) + 1
        if self.metric.counts:
            measured = self._measured(target, scores, chosen)
            return np.array([measured.value((part != number).astype(np.float64)) for number in range(parts)])
        values = np.empty(parts)
        for number in range(parts):
            kept = part != number
            own = None if weights is None else weights[kept]
            values[number] = self.value(target[kept], scores[kept], chosen[kept], own)
        return values

    def _measured(self, target: Any, scores: NDArray[np.float64], chosen: NDArray[Any]) -> MeasuredImages:
        """What a metric of masks or boxes knows of these images."""
        argument = self.metric.argument
        code = self.classes.index(argument) if argument else None
        return MEASURES[self.metric.counts](target, scores, chosen, len(self.classes), code)

    @property
    def positive_class(self) -> str | Unset:
        """The label of the positive class."""
        return UNSET if self.positive is None else self.classes[self.positive]

    def loss(self, value: float) -> float:
        """The same with less for better."""
        return -value if self.metric.greater_is_better else value

    def decided(self, scores: NDArray[np.float64], divisors: Sequence[float] = ()) -> NDArray[Any]:
        """The predictions; divisors: what each class's probability is divided by before the largest is
        taken."""
        return self.task.decided(scores, divisors)

    @property
    def decides(self) -> bool:
        """Whether another decision may be better for it than the most likely class."""
        return self.task.of_classes and self.metric.judges == "decisions"

    @property
    def _own(self) -> _Scorer:
        return _scorer(self)

    @property
    def _labels(self) -> NDArray[Any]:
        whole = all(label.lstrip("-").isdigit() for label in self.classes)
        return np.array([int(label) if whole else label for label in self.classes])

    def __hash__(self) -> int:
        return hash((self.metric.name, self.task.name, self.classes, self.positive))


def _positive(metric: Metric, classes: Sequence[str], target: NDArray[Any]) -> int:
    if metric.takes == "class" and metric.argument:
        return classes.index(metric.argument)
    for code, name in enumerate(classes):
        if name.lower().removeprefix("class ") in POSITIVES:
            return code
    return int(np.bincount(target, minlength=len(classes)).argmin())


@dataclass(frozen=True)
class _Scorer:
    """scorer: of scikit-learn. weighted: whether it takes weights. by_label: it is told classes by their
    labels, not codes. theirs: it is the user's own code."""

    scorer: Callable[..., float]
    weighted: bool
    by_label: bool = False
    theirs: bool = False


@cache
def _scorer(judge: Judge) -> _Scorer:
    from sklearn.metrics import get_scorer, make_scorer, mean_pinball_loss, top_k_accuracy_score

    metric = judge.metric
    if metric.costs is not None:
        matrix = cost_matrix(metric.costs, judge.classes)
        if judge.positive == 0:
            matrix = matrix[::-1, ::-1]  # the codes of two classes are swapped, see Judge.value
        return _Scorer(make_scorer(_mean_cost, greater_is_better=False, costs=matrix), True)
    if metric.takes == "quantile":
        return _Scorer(make_scorer(mean_pinball_loss, greater_is_better=False, alpha=metric.quantile), True)
    if metric.takes == "count":
        made = make_scorer(
            top_k_accuracy_score,
            response_method="predict_proba",
            k=int(metric.argument),
            labels=list(range(len(judge.classes))),
        )
        return _Scorer(made, True)
    if metric.scorer:
        scorer = get_scorer(metric.scorer)
        function = getattr(scorer, "_score_func", None)
        return _Scorer(
            scorer, function is not None and "sample_weight" in inspect.signature(function).parameters
        )
    function = own_function(metric.name)
    weighted = "sample_weight" in inspect.signature(function).parameters
    if hasattr(function, "_score_func"):  # the user's own make_scorer
        return _Scorer(function, False, by_label=judge.task.of_classes, theirs=True)
    return _Scorer(make_scorer(function), weighted, by_label=judge.task.of_classes, theirs=True)


def _mean_cost(
    truth: NDArray[Any],
    said: NDArray[Any],
    costs: NDArray[np.float64],
    sample_weight: NDArray[np.float64] | None = None,
) -> float:
    return float(np.average(costs[truth, said], weights=sample_weight))


def own_function(name: str) -> Callable[..., Any]:
    """The user's ``package.module:function``; their folder is the current one. UserError where there is none,
    or where the module raises."""
    module, _, attribute = name.partition(":")
    found = getattr(import_own(module, str(Path.cwd()), f"metric {name}"), attribute, None)
    if not callable(found):
        raise UserError(f"metric {name}: {module} has no function '{attribute}'")
    return found  # type: ignore[no-any-return]  # callable, as was just asked


@cache
def _said() -> type[Any]:
    """What was predicted, in the form of an estimator: rows are asked for by their places."""
    from sklearn.base import BaseEstimator

    class Said(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
        def __init__(self, scores: Any, chosen: Any, classes: Any) -> None:
            self.scores, self.chosen = scores, chosen
            if classes is not None:
                self.classes_ = classes

        def __sklearn_tags__(self) -> Any:
            from sklearn.utils import ClassifierTags, RegressorTags

            tags = super().__sklearn_tags__()
            of_classes = hasattr(self, "classes_")
            tags.estimator_type = "classifier" if of_classes else "regressor"
            tags.classifier_tags = ClassifierTags() if of_classes else None
            tags.regressor_tags = None if of_classes else RegressorTags()
            return tags

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict(self, rows: Any) -> Any:
            return self.chosen[rows]

        def predict_proba(self, rows: Any) -> Any:
            return self.scores[rows]

    return Said


def cost_matrix(costs: Costs, classes: Sequence[str]) -> NDArray[np.float64]:
    """(true classes, predicted classes); a mistake that is not named costs 1, a hit nothing."""
    matrix = 1.0 - np.eye(len(classes))
    place = {name: code for code, name in enumerate(classes)}
    for truth, row in costs.items():
        for name, cost in row.items():
            matrix[place[truth], place[name]] = cost
    return matrix
