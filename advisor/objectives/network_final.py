"""The final of our own networks: the recommendation and the best few of the
search, trained again on fresh splits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from advisor.dataset import Dataset
from advisor.documents import UNSET, Unset
from advisor.evaluation.by_metric import metric_report, other_decisions
from advisor.evaluation.judge import Judge
from advisor.evaluation.judgement import DecisionOffer, Difference, FinalVerdict, MetricReport
from advisor.evaluation.metrics import metric_of, offered
from advisor.evaluation.selection import blocks_of, estimate
from advisor.executors.base import Job
from advisor.objectives.contenders.contender import (
    Contender,
    blend_of,
    by_metric,
    contender_of,
    held_out_of,
    is_finite,
    model_of,
    select_winner,
    shares_of,
    winner_by_metric,
)
from advisor.objectives.contenders.trees import TreesJudged, judge_trees, trees_on_all_rows
from advisor.objectives.final_jobs import (
    FINAL_MARGIN,
    FINAL_REPEATS,
    AllFailed,
    Trained,
    final_jobs,
    train_finalists,
)
from advisor.objectives.jobs import TrainingJob, TrainingResult, WorkerData, final_job, limited
from advisor.objectives.networks import (
    TrainingObjective,
    latest_validate,
    training_sizing,
    training_work,
)
from advisor.objectives.objective import AdvisedRows, FinalOutcome, FinalRequest, RunData
from advisor.runs.result import RECOMMENDED, ContenderReport, FinalReport, TrainingCurve, TreesReport
from advisor.search.curves import CurveDiagnosis, read_curve
from advisor.search.resources import Pace, Sizing
from advisor.training.loop import Fitted

KEPT_EPOCHS = 200
"""Points of a learning curve of the final that result.json keeps, as of a trial's."""
IMBALANCE = "imbalance"
"""The finding of a rare class."""


@dataclass(frozen=True)
class TrainedAlone:
    """The recommendation without a search. curve: the validation losses that were finite.
    train_curve: the training losses of the same epochs; none where it diverged. reading: what they say."""

    curve: tuple[float, ...]
    train_curve: tuple[float, ...]
    reading: CurveDiagnosis
    outcome: FinalOutcome


def train_alone(
    given: AdvisedRows,
    on_epoch: Callable[[int, int, float], None],
    time_limit: float | None = None,
    *,
    with_trees: bool = False,
) -> TrainedAlone:
    """Train the recommendation, here. time_limit: seconds for the training.
    with_trees: also its blend with boosted trees, which is the model where held-out rows say so."""
    train, until = given.train, None if time_limit is None else time.monotonic() + time_limit
    configuration, seed = given.advice.recommendation.configuration, given.advice.reading.seed
    members = int(configuration["final_members"])
    job = TrainingJob(configuration, seed, repeat=0, members=members, keep=True).as_job(RECOMMENDED)
    job = job if time_limit is None else limited(job, time_limit)
    objective = TrainingObjective(WorkerData(train, seed, given.start))
    curve, result = _run_here(
        objective, job, lambda epoch, loss: on_epoch(epoch, int(configuration["epochs"]), loss)
    )
    contender = by_metric([contender_of(RECOMMENDED, [configuration], [result.stack], train)], given)[0]
    whole = len(result.train_losses) == len(curve) and all(map(math.isfinite, result.train_losses))
    losses = result.train_losses if whole else None  # else it diverged
    verdict = FinalVerdict(RECOMMENDED, "it was trained alone", {})
    trees = judge_trees(contender, contender, given, (0,), until) if with_trees else None
    report, both = _judged_report([contender], verdict, {}, trees), [contender]
    if trees is not None and trees.blend is not None:
        both.append(trees.blend)
    final = _on_all_rows(
        both,
        given,
        lambda jobs: [_run_here(objective, job)[1].stack for job in jobs],
        [result.stack],
    )
    outcome = _outcome_of(given, report, final[-1], final[0])
    return TrainedAlone(tuple(curve), losses or (), read_curve(curve, losses), outcome)


def _run_here(
    objective: TrainingObjective, job: Job, on_epoch: Callable[[int, float], None] = lambda epoch, loss: None
) -> tuple[list[float], TrainingResult]:
    curve: list[float] = []
    epochs = objective(job)
    while True:
        try:
            epoch, loss = next(epochs)
        except StopIteration as end:
            return [loss for loss in curve if math.isfinite(loss)], end.value
        curve.append(loss)
        on_epoch(epoch, loss)


def hold_network_final(given: RunData, request: FinalRequest) -> FinalOutcome:
    """Train the recommendation and the best few again on fresh splits, and decide.

    The first of them that comes through with a finite loss is the one to beat: the recommendation, or
    where that fails the best of the search. Where the time limit leaves no time for all networks,
    fewer are trained of each; where it leaves none for any final, the recommendation's own trial is
    the model, and nothing is confirmed.
    """
    train, seed = given.train, given.advice.reading.seed
    larger, expects = _for_final(request.sizing, train), final_seconds(request.pace, train)
    left = _left(request)
    jobs, fewer = _that_fit(request.entries, seed, expects, left, request.runner.slots)
    first = request.first
    if first is not None and left < math.inf and (first.cut or expects(jobs[RECOMMENDED][0]) > left):
        alone = contender_of(RECOMMENDED, [request.entries[RECOMMENDED]], [first.stack], train)
        if is_finite(alone):
            return _unconfirmed(given, request, alone, larger, expects)
    trained = train_finalists(
        jobs,
        request.runner,
        request.deadline,
        larger,
        request.stopped,
        expects=expects,
        limited=limited,
        problem=lambda result: _problem(result, train),
        on_done=request.on_done,
    )
    contenders = [
        contender_of(name, [request.entries[name]], [result.stack for result in own], train)
        for name, own in trained.results.items()
    ]
    incumbent = contenders[0]
    if len(contenders) > 1:
        contenders.append(blend_of(contenders, train))
    contenders = by_metric(contenders, given)
    incumbent = contenders[0]
    verdict = by_loss = select_winner(contenders, train)
    if given.judge is not None:
        verdict = winner_by_metric(contenders, train, given.judge)
    winner, trees = next(c for c in contenders if c.name == verdict.winner), None
    if request.with_trees:
        partitions = FINAL_REPEATS[: len(incumbent.stacks)]
        trees = judge_trees(winner, incumbent, given, partitions, request.trees_until)
        winner = trees.blend or winner
    report = _judged_report(contenders, verdict, by_loss.differences, trees, request.searched, trained)
    both = [incumbent] if winner is incumbent else [incumbent, winner]
    left = _left(request) * max(1, request.runner.slots)
    final = _on_all_rows(both, given, _runs(request, larger), expects=expects, left=left)
    return _outcome_of(given, replace(report, fewer_networks=fewer), final[-1], final[0])


def _judged_report(
    contenders: Sequence[Contender],
    verdict: FinalVerdict,
    by_loss: Mapping[str, Difference],
    trees: TreesJudged | None,
    searched: Mapping[str, float | None] | None = None,
    trained: Trained | None = None,
) -> FinalReport:
    """What result.json holds of the contenders, the first of which is the incumbent, and of trees.

    by_loss: their differences to it, whatever decided. searched: name -> loss in the search. trained: in the
    final.
    """
    contenders, incumbent = list(contenders), contenders[0].name
    if trees is not None and trees.blend is not None:
        contenders.append(trees.blend)
        differences, by_loss = {**verdict.differences, **trees.differences}, {**by_loss, **trees.by_loss}
        verdict = replace(verdict, winner=trees.blend.name, reason=trees.reason, differences=differences)
    results = {} if trained is None else trained.results
    reports = [_report_of(one, results.get(one.name, ()), verdict) for one in contenders]
    report = FinalReport.of(
        replace(verdict, differences=by_loss),
        reports,
        searched or {},
        incumbent,
        None if trained is None else trained.failed,
    )
    return replace(report, trees=UNSET if trees is None else trees.report)


def final_seconds(pace: Pace, train: Dataset) -> Callable[[Job], float]:
    """What a job of the final, with its number of networks, is expected to take, in seconds, after what the
    trials took; 0 where nothing is known."""
    of_trial, of_final = training_work(train)

    def expects(job: Job) -> float:
        asked = TrainingJob.of(job)
        known = of_trial(asked.configuration)
        members = {**asked.configuration, "final_members": asked.members}
        share = of_final(members) / known if known else asked.members
        return pace.expects(asked.configuration) * share

    return expects


def _left(request: FinalRequest) -> float:
    """Seconds until the deadline."""
    return math.inf if request.deadline is None else request.deadline - time.monotonic()


def _problem(result: TrainingResult, train: Dataset) -> str | None:
    one = contender_of("", [result.stack.configuration], [result.stack], train)
    return None if is_finite(one) else "its loss on the held-out rows is not finite"


def _unconfirmed(
    given: RunData,
    request: FinalRequest,
    contender: Contender,
    sizing: Sizing | None,
    expects: Callable[[Job], float],
) -> FinalOutcome:
    """The recommendation's trial as the model: there is no time to judge anything again."""
    verdict = FinalVerdict(RECOMMENDED, "the time limit left no time for a final", {})
    contender = by_metric([contender], given)[0]
    reports = [_report_of(contender)]
    report = FinalReport.of(verdict, reports, request.searched, RECOMMENDED, confirmed=False)
    if request.with_trees:
        report = replace(report, trees=TreesReport(left_out="the time limit left no time for them"))
    left = _left(request) * max(1, request.runner.slots)
    [final] = _on_all_rows(
        [contender], given, _runs(request, sizing), contender.stacks, expects=expects, left=left
    )
    return _outcome_of(given, report, final, final)


def _runs(request: FinalRequest, sizing: Sizing | None) -> Callable[[Sequence[Job]], list[Fitted]]:
    """Runs jobs to their end; the stacks that they trained."""

    def run(jobs: Sequence[Job]) -> list[Fitted]:
        done = train_finalists({RECOMMENDED: jobs}, request.runner, None, sizing, request.stopped)
        return [result.stack for result in done.results[RECOMMENDED]]

    return run


def _on_all_rows(
    contenders: Sequence[Contender],
    given: AdvisedRows,
    run: Callable[[Sequence[Job]], list[Fitted]],
    latest: Sequence[Fitted] | None = None,
    *,
    expects: Callable[[Job], float] = lambda job: 0.0,
    left: float = math.inf,
) -> list[Contender]:
    """The contenders with the stacks that they predict with: those that were judged, or ones trained again.

    Where later rows validate, what was judged has never seen the latest ones, and those resemble the rows to
    come most. So each configuration is trained again in two ways, whose predictions are averaged: on all
    rows, for as many epochs as were best on the latest split (which the partitions of a final leave to the
    search); and by about as many networks as were judged, of which each keeps its best epoch as a random part
    of the rows sees it. The first are trained as long as later rows want, but keep their last weights, good
    or bad; the second keep good ones, but no later rows say when to stop.
    latest: the stacks of the latest split, where the caller has them. What is judged stays as it is where the
        trainings are expected to take longer than what is ``left`` (seconds of all workers together).
    """
    train, seed = given.train, given.advice.reading.seed
    if not latest_validate(train):
        return list(contenders)
    # A blend holds the recommendation, which is then trained once.
    asked = {_key(c): final_job(c, seed, 0) for one in contenders for c in one.configurations}
    trainings = 1 + (latest is None) + len(contenders[0].stacks)
    if trainings * sum(expects(own.as_job("")) for own in asked.values()) > left:
        return list(contenders)
    try:
        # the first is no blend: a stack for each partition
        fitted = _trained_again(asked, run, latest, len(contenders[0].stacks), len(train))
    except AllFailed:
        return list(contenders)  # what was judged is a model too

    def final(contender: Contender) -> Contender:
        """With trees that were fitted again too, where it has any."""
        pairs = [fitted[_key(c)] for c in contender.configurations]
        epochs = tuple(on_all_rows.best_epochs[0] for on_all_rows, _ in pairs)
        stacks = tuple(stack for pair in pairs for stack in pair)
        return trees_on_all_rows(replace(contender, stacks=stacks, epochs_on_all_rows=epochs), train, seed)

    return [final(contender) for contender in contenders]


def _trained_again(
    asked: Mapping[str, TrainingJob],
    run: Callable[[Sequence[Job]], list[Fitted]],
    latest: Sequence[Fitted] | None,
    partitions: int,
    rows: int,
) -> dict[str, tuple[Fitted, Fitted]]:
    """Of each configuration: the stack of all rows, and the one of rows of all times.
    partitions: on which it was judged."""
    if latest is None:
        latest = run(
            [own.as_job(f"on the latest rows/{number}") for number, own in enumerate(asked.values())]
        )
    jobs = []
    for number, (own, stack) in enumerate(zip(asked.values(), latest, strict=True)):
        networks = len(stack.member_split)
        again = replace(own, until=_epochs_of_latest(stack), members=networks)
        jobs += [
            again.as_job(f"on all rows/{number}"),
            own.of_all_times(networks * partitions, rows).as_job(f"on rows of all times/{number}"),
        ]
    stacks = run(jobs)
    return dict(zip(asked, zip(stacks[::2], stacks[1::2], strict=True), strict=True))


def _key(configuration: Mapping[str, Any]) -> str:
    return json.dumps(dict(configuration), sort_keys=True)


def _epochs_of_latest(stack: Fitted) -> tuple[int, int]:
    """The medians of the epochs that were best on the stack's last split: of the
    whole network, and of its head alone."""
    last = max(stack.member_split)
    phases = [phases for phases, split in zip(stack.phases, stack.member_split, strict=True) if split == last]
    whole, head = (round(float(median)) for median in np.median(phases, axis=0))
    return max(1, whole), head


def _that_fit(
    entries: Mapping[str, Mapping[str, Any]],
    seed: int,
    expects: Callable[[Job], float],
    left: float,
    slots: int,
) -> tuple[dict[str, list[Job]], tuple[int, int] | None]:
    """The final's jobs, and (networks per split, those wanted) where ``left`` seconds
    leave no time for all that are wanted.

    As many as let the first two entries, one of which is the recommendation, be judged
    on the first partition; at least one.
    """
    wanted = max(int(configuration["final_members"]) for configuration in entries.values())
    for members in range(wanted, 0, -1):
        jobs = final_jobs(entries, FINAL_REPEATS, seed, members)
        seconds = [expects(own[0]) for own in list(jobs.values())[:2]]
        if members == 1 or FINAL_MARGIN * (sum(seconds) if slots < 2 else max(seconds)) <= left:
            break
    return jobs, (members, wanted) if members < wanted else None


def _for_final(sizing: Sizing | None, train: Dataset) -> Sizing | None:
    """What the search has learned, for stacks with the final's number of networks."""
    return None if sizing is None else replace(sizing, predict=training_sizing(train, final=True).predict)


def _report_of(
    contender: Contender, results: Sequence[TrainingResult] = (), by_metric: FinalVerdict | None = None
) -> ContenderReport:
    """results: of the contender's trainings in the final, one on each partition.
    by_metric: where the user's metric decided."""
    curves = tuple(_curve_of(one) for one in results)
    judged, differences = contender.judged, by_metric.differences if by_metric else {}
    return ContenderReport(
        metric=UNSET if judged is None else judged.value if math.isfinite(judged.value) else None,
        metric_difference=UNSET if judged is None else differences.get(contender.name, UNSET),
        name=contender.name,
        held_out_loss=float(contender.losses.mean()),
        held_out_rows=len(contender.losses),
        temperature=contender.temperature,
        networks=sum(len(stack.member_split) for stack in contender.stacks),
        configurations=tuple(dict(configuration) for configuration in contender.configurations),
        curves=curves or UNSET,
        recall_at_1=UNSET if contender.recall_at_1 is None else contender.recall_at_1,
    )


def _curve_of(result: TrainingResult) -> TrainingCurve:
    """Finite losses at about evenly spaced epochs, at most ``KEPT_EPOCHS``."""
    both = zip(result.validation_losses, result.train_losses, strict=True)
    epochs = list(enumerate(both, start=1))[:: math.ceil(len(result.train_losses) / KEPT_EPOCHS) or 1]
    rounded = [(epoch, [float(f"{loss:.6g}") for loss in pair]) for epoch, pair in epochs]
    there = [(float(epoch), pair) for epoch, pair in rounded if all(map(math.isfinite, pair))]
    return TrainingCurve(
        validation=tuple((epoch, validated) for epoch, (validated, _) in there),
        training=tuple((epoch, trained) for epoch, (_, trained) in there),
    )


def _outcome_of(
    given: AdvisedRows, report: FinalReport, winner: Contender, recommended: Contender
) -> FinalOutcome:
    """The winner's model, its promised loss, and its scores of the test rows beside the recommendation's."""
    advice, train = given.advice, given.train
    report = replace(
        report,
        epochs_on_all_rows=winner.epochs_on_all_rows or None,
        without_latest_rows=latest_validate(train) and not winner.epochs_on_all_rows,
    )
    model, test = model_of(advice, winner, train), advice.data.dataset("test")
    rows = int(test.known.sum())
    tail = train.task.unseen_loss(len(winner.losses), len(train.classes))
    blocks = blocks_of(train.groups, train.times, winner.rows)
    tested, shares = {}, {"network": model.shares}
    if rows:
        tested["network"] = model.scores(test.features)
        if winner is not recommended:
            other = model_of(advice, recommended, train)
            tested[recommended.name] = other.scores(test.features)
            shares[recommended.name] = other.shares
    new_rows = rows or len(winner.losses)
    return FinalOutcome(
        report,
        train.task.loss_name,
        estimate(winner.losses, new_rows, advice.reading.seed, tail, blocks),
        tested,
        shares,
        model,
        metric=_metric_report(given, winner, new_rows),
        offers=_offers(given, winner),
    )


def _metric_report(given: AdvisedRows, winner: Contender, new_rows: int) -> MetricReport | Unset:
    """What the user's metric says of the winner."""
    if given.judge is None or winner.judged is None:
        return UNSET
    return metric_report(given.judge, winner.judged, *held_out_of(winner, given.train), new_rows=new_rows)


def _offers(given: AdvisedRows, winner: Contender) -> tuple[DecisionOffer, ...]:
    """What deciding for other metrics would give, where the recommendation found a class rare."""
    train = given.train
    rare = any(finding.code == IMBALANCE for finding in given.advice.recommendation.findings)
    if not rare or given.judge is not None:
        return ()
    judges = [
        Judge.of(metric_of(name), train.task, train.classes, train.target) for name in offered(train.task)
    ]
    return other_decisions(judges, shares_of(winner, train), *held_out_of(winner, train))
