"""The best networks of a final, blended with boosted trees where held-out rows say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from advisor.dataset import Dataset
from advisor.evaluation.baselines import matrix_of
from advisor.evaluation.judgement import Difference, FinalVerdict
from advisor.evaluation.selection import blocks_of
from advisor.evaluation.trees.fitting import HeldOutTrees, held_out_trees, trees_of
from advisor.evaluation.trees.share import TreePart, averaged_scores, choose_share
from advisor.objectives.contenders.contender import (
    Contender,
    by_metric,
    is_finite,
    judged,
    select_winner,
    winner_by_metric,
)
from advisor.objectives.networks import splits_of
from advisor.objectives.objective import AdvisedRows
from advisor.runs.result import TreesReport
from advisor.tasks import weighted

WITH_TREES = "blend with trees"


@dataclass(frozen=True)
class TreesJudged:
    """What became of the trees.

    report: what result.json holds. blend: it, where it won, and reason: why. differences, by_loss: its
    differences to the incumbent, by what decides and by the loss.
    """

    report: TreesReport
    blend: Contender | None = None
    reason: str = ""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    by_loss: Mapping[str, Difference] = field(default_factory=dict)


def judge_trees(
    networks: Contender,
    incumbent: Contender,
    given: AdvisedRows,
    repeats: Sequence[int],
    until: float | None = None,
) -> TreesJudged:
    """Fit trees on the splits that the networks were judged on, and judge the blend of both like any
    contender: each held-out row has the share of trees that other rows chose.

    networks: the contender that won without trees. repeats: numbers of the partitions. until: on
    time.monotonic's clock; trees that are expected to take longer are left out.
    """
    train, seed = given.train, given.advice.reading.seed
    if not is_finite(networks):
        return TreesJudged(TreesReport(left_out="the loss of the networks is not finite"))
    plan = networks.configurations[0]
    splits = [split for repeat in repeats for split in splits_of(plan, train, seed, repeat)]
    trees = held_out_trees(train, splits, seed, until)
    if trees is None:
        return TreesJudged(TreesReport(left_out="the time limit left no time for them"))
    [blend] = by_metric([_blend(networks, trees, train, seed)], given)
    # The networks' own epochs favour them; but of new rows they gain more by averaging than trees do, and at
    # epochs that other rows chose trees got too large a share (benchmarks/results/notes.md).
    verdict = _verdict([networks, blend], given)
    assert blend.trees is not None, "it was made with them"
    won = verdict.winner == WITH_TREES and blend.trees.share > 0
    report = TreesReport(
        share=blend.trees.share if won else 0.0,
        networks=networks.name,
        networks_loss=float(networks.losses.mean()),
        trees_loss=_mean_loss(trees, train),
        blend_loss=float(blend.losses.mean()),
        difference=verdict.differences[WITH_TREES],
        fits=len(trees.fits),
    )
    if not won:
        return TreesJudged(report)
    by_loss = select_winner([incumbent, blend], train, WITH_TREES).differences
    deciding = _verdict([incumbent, blend], given).differences
    return TreesJudged(report, blend, verdict.reason, deciding, by_loss)


def _verdict(pair: Sequence[Contender], given: AdvisedRows) -> FinalVerdict:
    if given.judge is not None:
        return winner_by_metric(pair, given.train, given.judge, WITH_TREES)
    return select_winner(pair, given.train, WITH_TREES)


def _mean_loss(trees: HeldOutTrees, train: Dataset) -> float:
    losses = train.task.row_losses(train.target[trees.rows], trees.scores)
    return float(weighted(losses, train.weights_of(trees.rows)).mean())


def _blend(networks: Contender, trees: HeldOutTrees, train: Dataset, seed: int) -> Contender:
    rows = networks.rows
    if not np.array_equal(rows, trees.rows):
        raise ValueError("trees and networks were held out from different rows")
    share = choose_share(
        train.task,
        train.target[rows],
        networks.scores,
        trees.scores,
        train.weights_of(rows),
        blocks_of(train.groups, train.times, rows),
        seed,
    )
    blend = judged(
        WITH_TREES,
        networks.configurations,
        networks.stacks,
        rows,
        averaged_scores(networks.scores, trees.scores, share.by_row),
        averaged_scores(networks.cross_fitted, trees.scores, share.by_row),
        train,
    )
    columns = matrix_of(train.features.part(slice(0, 1))).shape[1]
    return replace(blend, trees=TreePart(trees.fits, share.share, columns))


def trees_on_all_rows(contender: Contender, train: Dataset, seed: int) -> Contender:
    """A blend whose networks were trained again on all rows, with trees that were too."""
    if contender.trees is None or not contender.epochs_on_all_rows:
        return contender
    return replace(contender, trees=replace(contender.trees, fits=(trees_of(train, seed),)))
