"""What comes into a final: configurations with their trained networks, held-out scores and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.evaluation.by_metric import Judged, judge_constant, judge_rows
from advisor.evaluation.by_target import JUDGED
from advisor.evaluation.conformal import Conformal
from advisor.evaluation.judge import Judge
from advisor.evaluation.judgement import FinalVerdict
from advisor.evaluation.selection import blocks_of, constant_losses, decide
from advisor.evaluation.trees.share import TreePart
from advisor.objectives.networks import merged_held_out
from advisor.objectives.objective import AdvisedRows
from advisor.runs.advice import Advice
from advisor.runs.enrolment import Familiar
from advisor.runs.model import Model, fit_temperature, tempered
from advisor.tasks import averaged_by_row, weighted
from advisor.training.loop import Fitted

BLEND = "blend"


@dataclass(frozen=True)
class Contender:
    """A configuration in the final, with its stacks and their held-out scores; a
    blend has the stacks of several.

    scores: before the temperature, as the model averages them;
    losses: of the scores after the temperature that suits them.
    cross_fitted: the scores at epochs that other rows chose;
    cross_fitted_losses: theirs, after a temperature of their own.
    epochs_on_all_rows: of each configuration, where its stacks were trained after the judging.
    judged: under the user's metric; None where the loss decides.
    trees: that are blended with the stacks.
    similarity, recall_at_1: of ``rows``, as ``Fitted`` has them; None unless all stacks have a cosine
    classifier.
    """

    name: str
    configurations: tuple[Mapping[str, Any], ...]
    stacks: tuple[Fitted, ...]
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    temperature: float
    losses: NDArray[np.float64] = field(repr=False)
    cross_fitted: NDArray[np.float64] = field(repr=False)
    cross_fitted_losses: NDArray[np.float64] = field(repr=False)
    epochs_on_all_rows: tuple[int, ...] = ()
    judged: Judged | None = None
    trees: TreePart | None = field(default=None, repr=False)
    similarity: NDArray[np.float64] | None = field(default=None, repr=False)
    recall_at_1: float | None = None


def contender_of(
    name: str, configurations: Sequence[Mapping[str, Any]], stacks: Sequence[Fitted], train: Dataset
) -> Contender:
    rows, scores = merged_held_out(stacks)
    _, cross_fitted = merged_held_out(stacks, cross_fitted=True)
    return judged(name, tuple(configurations), tuple(stacks), rows, scores, cross_fitted, train)


def blend_of(contenders: Sequence[Contender], train: Dataset) -> Contender:
    """All contenders, averaged: it costs no training, and seldom loses."""
    return judged(
        BLEND,
        tuple(c.configurations[0] for c in contenders),
        tuple(stack for c in contenders for stack in c.stacks),
        contenders[0].rows,
        train.task.averaged(np.stack([c.scores for c in contenders])),
        train.task.averaged(np.stack([c.cross_fitted for c in contenders])),
        train,
    )


def _of_the_average(temperature: float, stacks: Sequence[Fitted]) -> float:
    """The temperature for new rows, of one that suits held-out rows.

    With folds, the networks of one fold predicted each held-out row. New rows get the average of all, which
    is flatter by itself: a temperature above 1 would flatten it twice.
    """
    folds = any(len(set(stack.member_split)) > 1 for stack in stacks)
    return min(temperature, 1.0) if folds else temperature


def judged(
    name: str,
    configurations: tuple[Mapping[str, Any], ...],
    stacks: tuple[Fitted, ...],
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    cross_fitted: NDArray[np.float64],
    train: Dataset,
) -> Contender:
    target = train.target[rows]
    warm = train.task.of_classes and configurations[0]["calibration"] == "temperature"
    temperatures = [fit_temperature(own, target) if warm else 1.0 for own in (scores, cross_fitted)]
    losses = [
        weighted(
            train.task.row_losses(target, tempered(own, temperature) if warm else own),
            train.weights_of(rows),
        )
        for own, temperature in zip((scores, cross_fitted), temperatures, strict=True)
    ]
    similarity, recall = [stack.similarity for stack in stacks], [stack.recall_at_1 for stack in stacks]
    known = [own for own in similarity if own is not None]
    found = [own for own in recall if own is not None]
    return Contender(
        name,
        configurations,
        stacks,
        rows,
        scores,
        _of_the_average(temperatures[0], stacks),
        losses[0],
        cross_fitted,
        losses[1],
        similarity=averaged_by_row(train.task, [stack.held_out_rows for stack in stacks], known)[1]
        if known and len(known) == len(stacks)
        else None,
        recall_at_1=float(np.mean(found)) if found and len(found) == len(stacks) else None,
    )


def is_finite(contender: Contender) -> bool:
    return bool(np.isfinite(contender.losses).all() and np.isfinite(contender.cross_fitted_losses).all())


def by_metric(contenders: Sequence[Contender], given: AdvisedRows) -> list[Contender]:
    """The contenders, judged by the user's metric where there is one."""
    judge = given.judge
    return [one if judge is None else judged_by(judge, one, given.train) for one in contenders]


def judged_by(judge: Judge, contender: Contender, train: Dataset) -> Contender:
    """The contender under a metric: at epochs, and by decisions, that other rows chose."""
    fixed = None if _decision(contender) == "for_metric" else shares_of(contender, train)
    return replace(contender, judged=judge_rows(judge, *held_out_of(contender, train), fixed=fixed))


def select_winner(contenders: Sequence[Contender], train: Dataset, blend: str = BLEND) -> FinalVerdict:
    """Who wins on the held-out rows; the first contender is the one to beat.
    blend: the name of the one that averages it with others."""
    rows, incumbent = contenders[0].rows, contenders[0]
    constant = constant_losses(train.task, train.target, [rows], len(train.classes))
    return decide(
        {c.name: c.losses for c in contenders},
        incumbent.name,
        weighted(constant, train.weights_of(rows)),
        blend=blend,
        cross_fitted={c.name: c.cross_fitted_losses for c in contenders},
        blocks=blocks_of(train.groups, train.times, rows),
    )


def winner_by_metric(
    contenders: Sequence[Contender], train: Dataset, judge: Judge, blend: str = BLEND
) -> FinalVerdict:
    """Who wins by the user's metric, under the same guards; all contenders have been judged by it."""
    rows = contenders[0].rows
    alike = blocks_of(train.groups, train.times, rows)
    constant = judge_constant(judge, train.target[rows], train.weights_of(rows), alike)
    return decide(
        {c.name: c.judged.row_losses for c in contenders if c.judged is not None},
        contenders[0].name,
        constant.row_losses,
        blend=blend,
        blocks=constant.blocks,
    )


def _decision(contender: Contender) -> str:
    return str(contender.configurations[0]["decision"])


def shares_of(contender: Contender, train: Dataset) -> tuple[float, ...]:
    """What the classes' probabilities are divided by before the largest is taken; () for nothing."""
    if contender.judged is not None:
        return contender.judged.divisors
    if not train.task.of_classes or _decision(contender) != "prior_corrected":
        return ()
    counts = np.bincount(train.target, minlength=len(train.classes))
    return tuple(float(share) for share in np.maximum(counts, 1) / len(train))


def held_out_of(
    contender: Contender, train: Dataset
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.int64] | None]:
    """Targets, scores, weights and blocks of the held-out rows: at epochs that other rows chose, as the model
    would predict them."""
    rows, scores = contender.rows, contender.cross_fitted
    if train.task.of_classes:
        scores = tempered(scores, contender.temperature)
    return train.target[rows], scores, train.weights_of(rows), blocks_of(train.groups, train.times, rows)


def model_of(advice: Advice, contender: Contender, train: Dataset) -> Model:
    """The model that a contender is."""
    return Model(
        advice.data.schema,
        contender.stacks,
        contender.temperature,
        shares_of(contender, train),
        _conformal(contender, train),
        None if contender.similarity is None else Familiar.of(contender.similarity),
        trees=contender.trees,
    )


def _conformal(contender: Contender, train: Dataset) -> Conformal | None:
    """The errors of held-out rows, at epochs that other rows chose; None where predictions have no
    interval."""
    if not JUDGED[train.task.target].intervals:
        return None
    target, scores = train.target[contender.rows], contender.cross_fitted
    if train.task.of_classes:
        return Conformal.of_classes(target.astype(np.int64), tempered(scores, contender.temperature))
    knees = np.concatenate([stack.target_knee for stack in contender.stacks])
    return Conformal.of_numbers(target.astype(np.float64), scores, float(np.median(knees)))
