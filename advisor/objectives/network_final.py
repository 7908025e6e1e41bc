"""The final of our own networks: the recommendation and the best few of the
search, trained again on fresh splits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.documents import UNSET, Unset
from advisor.evaluation.by_metric import Judged, judge_constant, judge_rows, metric_report, other_decisions
from advisor.evaluation.by_target import JUDGED
from advisor.evaluation.conformal import Conformal
from advisor.evaluation.judge import Judge
from advisor.evaluation.judgement import DecisionOffer, FinalVerdict, MetricReport
from advisor.evaluation.metrics import metric_of, offered
from advisor.evaluation.selection import blocks_of, constant_losses, decide, estimate
from advisor.executors.base import Job
from advisor.objectives.final_jobs import FINAL_MARGIN, FINAL_REPEATS, AllFailed, final_jobs, train_finalists
from advisor.objectives.jobs import TrainingJob, TrainingResult, WorkerData, final_job, limited
from advisor.objectives.networks import (
    TrainingObjective,
    latest_validate,
    merged_held_out,
    training_sizing,
    training_work,
)
from advisor.objectives.objective import AdvisedRows, FinalOutcome, FinalRequest, RunData
from advisor.runs.advice import Advice
from advisor.runs.enrolment import Familiar
from advisor.runs.model import Model, fit_temperature, tempered
from advisor.runs.result import RECOMMENDED, ContenderReport, FinalReport, TrainingCurve
from advisor.search.curves import CurveDiagnosis, read_curve
from advisor.search.resources import Pace, Sizing
from advisor.tasks import averaged_by_row, weighted
from advisor.training.loop import Fitted

BLEND = "blend"
KEPT_EPOCHS = 200
"""Points of a learning curve of the final that result.json keeps, as of a trial's."""
IMBALANCE = "imbalance"
"""The finding of a rare class."""


@dataclass(frozen=True)
class Contender:
    """A configuration in the final, with its stacks and their held-out scores; a
    blend has the stacks of several.

    scores: before the temperature, as the model averages them;
    losses: after it, as the model predicts.
    cross_fitted: the scores at epochs that other rows chose;
    cross_fitted_losses: theirs, after a temperature of their own.
    epochs_on_all_rows: of each configuration, where its stacks were trained after the judging.
    judged: under the user's metric; None where the loss decides.
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
    similarity: NDArray[np.float64] | None = field(default=None, repr=False)
    recall_at_1: float | None = None


@dataclass(frozen=True)
class TrainedAlone:
    """The recommendation without a search. curve: the validation losses that were finite.
    train_curve: the training losses of the same epochs; none where it diverged. reading: what they say."""

    curve: tuple[float, ...]
    train_curve: tuple[float, ...]
    reading: CurveDiagnosis
    outcome: FinalOutcome


def train_alone(
    given: AdvisedRows, on_epoch: Callable[[int, int, float], None], time_limit: float | None = None
) -> TrainedAlone:
    """Train the recommendation, here. time_limit: seconds for the training."""
    train = given.train
    configuration, seed = given.advice.recommendation.configuration, given.advice.reading.seed
    members = int(configuration["final_members"])
    job = TrainingJob(configuration, seed, repeat=0, members=members, keep=True).as_job(RECOMMENDED)
    job = job if time_limit is None else limited(job, time_limit)
    objective = TrainingObjective(WorkerData(train, seed, given.start))
    curve, result = _run_here(
        objective, job, lambda epoch, loss: on_epoch(epoch, int(configuration["epochs"]), loss)
    )
    contender = _by_metric([_contender(RECOMMENDED, [configuration], [result.stack], train)], given)[0]
    whole = len(result.train_losses) == len(curve) and all(map(math.isfinite, result.train_losses))
    losses = result.train_losses if whole else None  # else it diverged
    verdict = FinalVerdict(RECOMMENDED, "it was trained alone", {})
    report = FinalReport.of(verdict, [_report_of(contender)], {}, RECOMMENDED)
    [final] = _on_all_rows(
        [contender],
        given,
        lambda jobs: [_run_here(objective, job)[1].stack for job in jobs],
        [result.stack],
    )
    outcome = _outcome_of(given, report, final, final)
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
        alone = _contender(RECOMMENDED, [request.entries[RECOMMENDED]], [first.stack], train)
        if _is_finite(alone):
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
        _contender(name, [request.entries[name]], [result.stack for result in own], train)
        for name, own in trained.results.items()
    ]
    incumbent = contenders[0]
    if len(contenders) > 1:
        contenders.append(blend_of(contenders, train))
    contenders = _by_metric(contenders, given)
    incumbent = contenders[0]
    verdict = by_loss = select_winner(contenders, train)
    if given.judge is not None:
        verdict = winner_by_metric(contenders, train, given.judge)
    reports = [_report_of(one, trained.results.get(one.name, ()), verdict) for one in contenders]
    report = FinalReport.of(
        replace(verdict, differences=by_loss.differences),
        reports,
        request.searched,
        incumbent.name,
        trained.failed,
    )
    winner = next(c for c in contenders if c.name == verdict.winner)
    both = [incumbent] if winner is incumbent else [incumbent, winner]
    left = _left(request) * max(1, request.runner.slots)
    final = _on_all_rows(both, given, _runs(request, larger), expects=expects, left=left)
    return _outcome_of(given, replace(report, fewer_networks=fewer), final[-1], final[0])


def select_winner(contenders: Sequence[Contender], train: Dataset) -> FinalVerdict:
    """Who wins on the held-out rows; the first contender is the one to beat."""
    rows, incumbent = contenders[0].rows, contenders[0]
    constant = constant_losses(train.task, train.target, [rows], len(train.classes))
    return decide(
        {c.name: c.losses for c in contenders},
        incumbent.name,
        weighted(constant, train.weights_of(rows)),
        blend=BLEND,
        cross_fitted={c.name: c.cross_fitted_losses for c in contenders},
        blocks=blocks_of(train.groups, train.times, rows),
    )


def winner_by_metric(contenders: Sequence[Contender], train: Dataset, judge: Judge) -> FinalVerdict:
    """Who wins by the user's metric, under the same guards; all contenders have been judged by it."""
    rows = contenders[0].rows
    alike = blocks_of(train.groups, train.times, rows)
    constant = judge_constant(judge, train.target[rows], train.weights_of(rows), alike)
    return decide(
        {c.name: c.judged.row_losses for c in contenders if c.judged is not None},
        contenders[0].name,
        constant.row_losses,
        blend=BLEND,
        blocks=constant.blocks,
    )


def _by_metric(contenders: Sequence[Contender], given: AdvisedRows) -> list[Contender]:
    """The contenders, judged by the user's metric where there is one."""
    judge = given.judge
    return [one if judge is None else judged_by(judge, one, given.train) for one in contenders]


def judged_by(judge: Judge, contender: Contender, train: Dataset) -> Contender:
    """The contender under a metric: at epochs, and by decisions, that other rows chose."""
    fixed = None if _decision(contender) == "for_metric" else shares_of(contender, train)
    return replace(contender, judged=judge_rows(judge, *_held_out(contender, train), fixed=fixed))


def _decision(contender: Contender) -> str:
    return str(contender.configurations[0]["decision"])


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
    one = _contender("", [result.stack.configuration], [result.stack], train)
    return None if _is_finite(one) else "its loss on the held-out rows is not finite"


def _unconfirmed(
    given: RunData,
    request: FinalRequest,
    contender: Contender,
    sizing: Sizing | None,
    expects: Callable[[Job], float],
) -> FinalOutcome:
    """The recommendation's trial as the model: there is no time to judge anything again."""
    verdict = FinalVerdict(RECOMMENDED, "the time limit left no time for a final", {})
    contender = _by_metric([contender], given)[0]
    reports = [_report_of(contender)]
    report = FinalReport.of(verdict, reports, request.searched, RECOMMENDED, confirmed=False)
    left = _left(request) * max(1, request.runner.slots)
    [final] = _on_all_rows(
        [contender], given, _runs(request, sizing), contender.stacks, expects=expects, left=left
    )
    return _outcome_of(given, report, final, final)


def _is_finite(contender: Contender) -> bool:
    return bool(np.isfinite(contender.losses).all() and np.isfinite(contender.cross_fitted_losses).all())


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
        pairs = [fitted[_key(c)] for c in contender.configurations]
        epochs = tuple(on_all_rows.best_epochs[0] for on_all_rows, _ in pairs)
        return replace(
            contender, stacks=tuple(stack for pair in pairs for stack in pair), epochs_on_all_rows=epochs
        )

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


def _contender(
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
        temperatures[0],
        losses[0],
        cross_fitted,
        losses[1],
        similarity=averaged_by_row(train.task, [stack.held_out_rows for stack in stacks], known)[1]
        if known and len(known) == len(stacks)
        else None,
        recall_at_1=float(np.mean(found)) if found and len(found) == len(stacks) else None,
    )


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
    model, test = _model(advice, winner, train), advice.data.dataset("test")
    rows = int(test.known.sum())
    tail = train.task.unseen_loss(len(winner.losses), len(train.classes))
    blocks = blocks_of(train.groups, train.times, winner.rows)
    tested, shares = {}, {"network": model.shares}
    if rows:
        tested["network"] = model.scores(test.features)
        if winner is not recommended:
            other = _model(advice, recommended, train)
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
    return metric_report(given.judge, winner.judged, *_held_out(winner, given.train), new_rows=new_rows)


def _offers(given: AdvisedRows, winner: Contender) -> tuple[DecisionOffer, ...]:
    """What deciding for other metrics would give, where the recommendation found a class rare."""
    train = given.train
    rare = any(finding.code == IMBALANCE for finding in given.advice.recommendation.findings)
    if not rare or given.judge is not None:
        return ()
    judges = [
        Judge.of(metric_of(name), train.task, train.classes, train.target) for name in offered(train.task)
    ]
    return other_decisions(judges, shares_of(winner, train), *_held_out(winner, train))


def _held_out(
    contender: Contender, train: Dataset
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.int64] | None]:
    """Targets, scores, weights and blocks of the held-out rows: at epochs that other rows chose, as the model
    would predict them."""
    rows, scores = contender.rows, contender.cross_fitted
    if train.task.of_classes:
        scores = tempered(scores, contender.temperature)
    return train.target[rows], scores, train.weights_of(rows), blocks_of(train.groups, train.times, rows)


def shares_of(contender: Contender, train: Dataset) -> tuple[float, ...]:
    """What the classes' probabilities are divided by before the largest is taken; () for nothing."""
    if contender.judged is not None:
        return contender.judged.divisors
    if not train.task.of_classes or _decision(contender) != "prior_corrected":
        return ()
    counts = np.bincount(train.target, minlength=len(train.classes))
    return tuple(float(share) for share in np.maximum(counts, 1) / len(train))


def _model(advice: Advice, contender: Contender, train: Dataset) -> Model:
    return Model(
        advice.data.schema,
        contender.stacks,
        contender.temperature,
        shares_of(contender, train),
        _conformal(contender, train),
        None if contender.similarity is None else Familiar.of(contender.similarity),
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
