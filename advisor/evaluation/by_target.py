"""What judging knows of each kind of target, one row for each: what a network must beat on it, and where its
predictions are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.evaluation.baselines import ROW_BASELINES, Baselines, expected_seconds, fit_row_baselines
from advisor.evaluation.by_metric import DECISION_FOLDS, Divisors, choose_decision
from advisor.evaluation.diagnosis import class_diagnosis, number_diagnosis
from advisor.evaluation.judge import Judge
from advisor.evaluation.judgement import Diagnosis
from advisor.evaluation.scenes.boxes import (
    BOX_BASELINES,
    box_baseline_seconds,
    box_diagnosis,
    fit_box_baselines,
)
from advisor.evaluation.scenes.masks import (
    MASK_BASELINES,
    fit_mask_baselines,
    mask_baseline_seconds,
    mask_diagnosis,
)
from advisor.splits import make_splits
from advisor.tasks import TargetKind, Task


@dataclass(frozen=True)
class JudgedTarget:
    """One kind of target.

    diagnose: classes, targets, scores and predictions of some rows -> what the report draws of them.
    baselines: training rows, seed, and a time of time.monotonic's clock (None: none) -> the fitted baselines;
        one that is expected to take longer is left out.
    seconds: training rows -> what fitting them is expected to take.
    names: the baselines that rows of any modality have when there is time for them.
    intervals: whether a prediction has an interval, or a set of classes.
    predict_with: what follows the run in an example of ``advisor predict``.
    """

    diagnose: Callable[[int, Any, NDArray[np.float64], NDArray[Any]], Diagnosis]
    baselines: Callable[[Dataset, int, float | None], Baselines] = fit_row_baselines
    seconds: Callable[[Dataset], float] = expected_seconds
    names: tuple[str, ...] = ROW_BASELINES
    intervals: bool = True
    predict_with: str = "new_rows.csv --out predictions.csv"


JUDGED: Mapping[TargetKind, JudgedTarget] = {
    "class": JudgedTarget(class_diagnosis),
    "number": JudgedTarget(number_diagnosis),
    "mask": JudgedTarget(
        mask_diagnosis,
        fit_mask_baselines,
        mask_baseline_seconds,
        MASK_BASELINES,
        intervals=False,
        predict_with="new_images/ --out masks/",
    ),
    "boxes": JudgedTarget(
        box_diagnosis,
        fit_box_baselines,
        box_baseline_seconds,
        BOX_BASELINES,
        intervals=False,
        predict_with="new_images/ --out boxes.csv",
    ),
}


def fit_baselines(train: Dataset, seed: int = 0, until: float | None = None) -> Baselines:
    """Each baseline fitted on all training rows, as a function: features -> scores.

    until: on time.monotonic's clock; a baseline that is expected to take longer is left out.
    """
    return JUDGED[train.task.target].baselines(train, seed, until)


def baseline_decisions(
    judge: Judge | None, train: Dataset, seed: int = 0, until: float | None = None
) -> dict[str, Divisors]:
    """Of each baseline the decision that suits the user's metric, as ours has one: chosen on a part of the
    training rows that a first fit did not see. None where the metric asks for no decision.

    until: as in ``fit_baselines``.
    """
    if judge is None or not judge.decides:
        return {}
    split = make_splits(
        train, scheme="holdout", folds=DECISION_FOLDS, fraction=1 / DECISION_FOLDS, seed=seed
    )[0]
    held_out = train.part(split.validation)
    fitted = fit_baselines(train.part(split.train), seed, until)
    return {
        name: choose_decision(judge, held_out.target, scores(held_out.features), held_out.weights)[0]
        for name, scores in fitted.items()
    }


def baseline_seconds(train: Dataset) -> float:
    """What ``fit_baselines`` is expected to take."""
    return JUDGED[train.task.target].seconds(train)


def diagnose(
    task: Task, classes: int, target: NDArray[Any], scores: NDArray[np.float64], chosen: NDArray[Any]
) -> Diagnosis:
    """What the report draws of the test rows.
    chosen: the prediction for each, as the task decides by the scores."""
    return JUDGED[task.target].diagnose(classes, target, scores, chosen)
