"""The final of a user's objective: a contender is judged by the held-out scores that the objective
returns, or by the losses that it returns, split by split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.errors import in_words
from advisor.evaluation.judgement import Difference, Estimate, FinalVerdict
from advisor.evaluation.selection import (
    ALONE,
    BEHIND,
    COVERAGE,
    SIGNIFICANCE,
    blocks_of,
    constant_losses,
    decide,
    estimate,
)
from advisor.objectives.final_jobs import FINAL_REPEATS, AllFailed, Trained, final_jobs, train_finalists
from advisor.objectives.objective import FinalRequest, RunData
from advisor.objectives.trial import ObjectiveResult
from advisor.runs.advice import Advice
from advisor.runs.result import ContenderReport, FinalReport
from advisor.tasks import averaged_by_row, weighted

FEWEST_SPLITS = 5
"""Losses that a comparison split by split needs; a hold-out plan is repeated so often."""
SAME_LOSS = 0.01
"""Relative difference up to which a returned loss is taken for the mean row loss of the returned scores."""


@dataclass(frozen=True)
class _Judged:
    """A contender: its losses, row by row (``rows``) or split by split, and its scores of the test rows."""

    name: str
    configuration: Mapping[str, Any]
    losses: NDArray[np.float64]
    rows: NDArray[np.int64] | None
    trainings: int
    test: NDArray[np.float64] | None


@dataclass(frozen=True)
class CustomFinal:
    """What the final of a user's objective comes to.

    loss: what was compared, in words. compared: row by row, or split by split. repeats: the partitions that
    were trained on. read: parameters that its trainings read.
    tested: scores of the test rows of each contender; None where it cannot score them.
    """

    report: FinalReport
    loss: str
    estimate: Estimate
    compared: str
    repeats: tuple[int, ...]
    read: frozenset[str]
    tested: Mapping[str, NDArray[np.float64] | None]


Train = Callable[[Sequence[int], Sequence[str]], Trained]
"""(partitions, names of entries) -> their results on them."""


def hold_custom_final(given: RunData, request: FinalRequest) -> CustomFinal:
    """Train the finalists on fresh splits and judge them by what the objective returns."""

    def train(repeats: Sequence[int], names: Sequence[str]) -> Trained:
        chosen = {name: request.entries[name] for name in names}
        return train_finalists(
            final_jobs(chosen, repeats, given.advice.reading.seed),
            request.runner,
            request.deadline,
            None,
            request.stopped,
            problem=not_finite,
            on_done=request.on_done,
        )

    return judge_results(request.entries, request.searched, train, given.advice, given.train)


def judge_results(
    entries: Mapping[str, Mapping[str, Any]],
    searched: Mapping[str, float | None],
    train: Train,
    advice: Advice,
    data: Dataset,
) -> CustomFinal:
    """Have the entries trained on fresh splits, and decide; where their losses are compared and are too few,
    on more splits.

    entries: name -> configuration, the recommendation first. searched: name -> its loss in the search.
    """
    repeats: list[int] = []
    read: set[str] = set()

    def trained_on(wanted: Sequence[int], names: Sequence[str]) -> Trained:
        done = train(wanted, names)
        repeats.extend(wanted[: max(map(len, done.results.values()), default=0)])
        read.update(*(result.read for several in done.results.values() for result in several))
        return done

    trained = trained_on(FINAL_REPEATS, tuple(entries))
    results, failed = {name: list(own) for name, own in trained.results.items()}, dict(trained.failed)
    by_row = all(_scores_fit(result, data) for own in results.values() for result in own)
    if not by_row:
        results, further_failed = _with_enough_splits(results, trained_on)
        failed |= further_failed
    incumbent = next(iter(results))
    judged = [_judged(name, entries[name], own, data, by_row) for name, own in results.items()]
    verdict = (
        _decide_by_row(judged, incumbent, data) if by_row else _decide_by_split(judged, incumbent, results)
    )
    winner = next(one for one in judged if one.name == verdict.winner)
    return CustomFinal(
        FinalReport.of(verdict, [_report_of(one) for one in judged], searched, incumbent, failed),
        data.task.loss_name if by_row else "validation loss",
        _expected(winner, advice, data, results),
        "row by row" if by_row else "split by split",
        tuple(repeats),
        frozenset(read),
        {one.name: one.test for one in judged},
    )


def _with_enough_splits(
    results: Mapping[str, list[ObjectiveResult]], train: Train
) -> tuple[dict[str, list[ObjectiveResult]], dict[str, str]]:
    """The results with those of further partitions, where they have fewer than FEWEST_SPLITS losses; and
    which entries failed on these, and why."""
    kept = dict(results)
    fewest = min(sum(len(result.losses) for result in own) for own in kept.values())
    if fewest >= FEWEST_SPLITS:
        return kept, {}
    per_repeat, last = max(1, fewest // len(next(iter(kept.values())))), max(FINAL_REPEATS)
    further = range(last + 1, last + 1 + math.ceil((FEWEST_SPLITS - fewest) / per_repeat))
    try:
        more = train(further, tuple(kept))
    except AllFailed:
        return kept, {}  # what came through before counts
    failed = dict(more.failed) if more.results else {}
    kept = {name: own for name, own in kept.items() if name not in failed}
    if more.results.keys() == kept.keys():  # else the time limit left some out: all keep as many splits
        kept = {name: own + more.results[name] for name, own in kept.items()}
    return kept, failed


def not_finite(result: ObjectiveResult) -> str | None:
    """Why a result of the final does not count; None when it does."""
    return None if math.isfinite(result.loss) else f"the objective returned {result.loss}"


def _scores_fit(result: ObjectiveResult, data: Dataset) -> bool:
    """Whether there are scores and the returned loss is their mean row loss: else the
    final must compare what was returned."""
    if result.scores is None:
        return False
    ends = np.cumsum([0, *result.sizes])
    losses = data.task.row_losses(data.target[result.rows], result.scores)
    return all(
        math.isclose(float(losses[a:b].mean()), loss, rel_tol=SAME_LOSS, abs_tol=1e-9)
        for a, b, loss in zip(ends, ends[1:], result.losses, strict=False)
    )


def _judged(
    name: str,
    configuration: Mapping[str, Any],
    results: Sequence[ObjectiveResult],
    data: Dataset,
    by_row: bool,
) -> _Judged:
    trainings = sum(len(result.losses) for result in results)
    tests = [result.test for result in results if result.test is not None]
    test = np.asarray(np.mean(tests, axis=0)) if len(tests) == len(results) else None
    if not by_row:
        return _Judged(
            name, configuration, np.concatenate([r.losses for r in results]), None, trainings, test
        )
    scored = [r.scores for r in results if r.scores is not None]
    rows, scores = averaged_by_row(data.task, [r.rows for r in results], scored)
    losses = data.task.row_losses(data.target[rows], scores)
    return _Judged(name, configuration, weighted(losses, data.weights_of(rows)), rows, trainings, test)


def _decide_by_row(judged: Sequence[_Judged], incumbent: str, data: Dataset) -> FinalVerdict:
    rows = judged[0].rows
    assert rows is not None
    constant = constant_losses(data.task, data.target, [rows], len(data.classes))
    losses = {one.name: one.losses for one in judged}
    return decide(
        losses,
        incumbent,
        weighted(constant, data.weights_of(rows)),
        blocks=blocks_of(data.groups, data.times, rows),
    )


def _decide_by_split(
    judged: Sequence[_Judged], incumbent: str, results: Mapping[str, Sequence[ObjectiveResult]]
) -> FinalVerdict:
    """The incumbent, unless a challenger's losses are smaller beyond chance: the corrected resampled t-test.

    The splits share training rows, so their losses vary together: the variance of their mean is taken as
    (1 / splits + validation rows / training rows) times that of the differences (Nadeau and Bengio 2003).
    """
    from scipy.stats import t

    challengers = [one for one in judged if one.name != incumbent]
    reference = next(one for one in judged if one.name == incumbent)
    ratio = float(np.mean([result.validation_share for result in results[incumbent]]))
    differences = {}
    for one in challengers:
        paired = one.losses - reference.losses
        error = float(paired.std(ddof=1) * math.sqrt(1 / len(paired) + ratio))
        quantile = float(t.ppf(1 - SIGNIFICANCE / len(challengers), len(paired) - 1))
        differences[one.name] = Difference(
            float(paired.mean()), error, float(paired.mean()) + quantile * error
        )
    better = [one for one in challengers if differences[one.name].high < 0]
    if not better:
        return FinalVerdict(
            incumbent, BEHIND.format(incumbent=in_words(incumbent)) if challengers else ALONE, differences
        )
    winner = min(better, key=lambda one: (float(one.losses.mean()), one.name))
    return FinalVerdict(
        winner.name,
        f"better than {in_words(incumbent)} beyond chance on splits that did not choose it",
        differences,
    )


def _expected(
    winner: _Judged, advice: Advice, data: Dataset, results: Mapping[str, Sequence[ObjectiveResult]]
) -> Estimate:
    """The loss to expect: of the test rows from held-out rows, or of another
    split's rows from the splits' losses."""
    new_rows = max(1, len(advice.data.dataset("test")))
    if winner.rows is not None:
        tail = data.task.unseen_loss(len(winner.losses), len(data.classes))
        blocks = blocks_of(data.groups, data.times, winner.rows)
        return estimate(winner.losses, new_rows, advice.reading.seed, tail, blocks)
    from scipy.stats import t

    losses = winner.losses
    mean = float(losses.mean())
    half = float(
        t.ppf((1 + COVERAGE) / 2, len(losses) - 1) * losses.std(ddof=1) * math.sqrt(1 + 1 / len(losses))
    )
    rows = int(np.mean([size for result in results[winner.name] for size in result.sizes]))
    # Of losses above 0 the lower end is found on the scale of logarithms (the delta method): none is below 0.
    low = mean * math.exp(-half / mean) if (losses > 0).all() else mean - half
    return Estimate(mean, low, mean + half, rows)


def _report_of(one: _Judged) -> ContenderReport:
    return ContenderReport(
        name=one.name,
        held_out_loss=float(one.losses.mean()),
        held_out_rows=len(one.losses) if one.rows is not None else None,
        temperature=1.0,
        networks=one.trainings,
        configurations=(dict(one.configuration),),
    )
