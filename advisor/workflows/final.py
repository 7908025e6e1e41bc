"""The final of our own networks: the recommendation and the best few of the
search, trained again on fresh splits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.dataset import Dataset
from advisor.evaluation.selection import (
    Estimate,
    FinalVerdict,
    blocks_of,
    constant_losses,
    decide,
    estimate,
    final_section,
)
from advisor.executors.base import Executor, Job
from advisor.objectives.custom import Final, OwnObjective, not_finite
from advisor.objectives.final_jobs import FINAL_REPEATS, FINALISTS, AllFailed, train_finalists
from advisor.objectives.jobs import TrainingJob, TrainingResult, WorkerData, final_job, limited
from advisor.objectives.networks import TrainingObjective, merged_held_out, training_sizing
from advisor.rules.recommendation import Recommendation
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.runs.model import Model, fit_temperature, tempered
from advisor.search.curves import read_curve
from advisor.search.plan import SearchPlan
from advisor.search.resources import Sizing
from advisor.search.trials import SearchResult, configuration_of
from advisor.tasks import weighted
from advisor.training.loop import Fitted
from advisor.workflows.results import test_results
from advisor.workflows.search import (
    DEFAULT,
    FINAL_MARGIN,
    RECOMMENDED,
    Deadlines,
    final_seconds,
    latest_validate,
)

BLEND = "blend"


@dataclass(frozen=True)
class Contender:
    """A configuration in the final, with its stacks and their held-out scores; a
    blend has the stacks of several.

    scores: before the temperature, as the model averages them;
    losses: after it, as the model predicts.
    cross_fitted: the scores at epochs that other rows chose;
    cross_fitted_losses: theirs, after a temperature of their own.
    epochs_on_all_rows: of each configuration, where its stacks were trained after the judging.
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


def train_alone(
    document: dict[str, Any],
    advice: Advice,
    train: Dataset,
    on_epoch: Callable[[int, int, float], None],
    time_limit: float | None = None,
) -> Model:
    """Train the recommendation, here, and complete the document.
    time_limit: seconds for the training."""
    configuration, seed = advice.recommendation.configuration, advice.reading.seed
    members = int(configuration["final_members"])
    job = TrainingJob(configuration, seed, repeat=0, members=members, keep=True).as_job(RECOMMENDED)
    job = job if time_limit is None else limited(job, time_limit)
    objective = TrainingObjective(WorkerData(train, seed))
    curve, fitted = _run_here(
        objective, job, lambda epoch, loss: on_epoch(epoch, int(configuration["epochs"]), loss)
    )
    contender = _contender(RECOMMENDED, [configuration], [fitted], train)
    trained = (
        objective.train_losses if len(objective.train_losses) == len(curve) else None
    )  # else it diverged
    document |= {"curve": curve, "reading": asdict(read_curve(curve, trained))}
    document["final"] = final_section(
        FinalVerdict(RECOMMENDED, "it was trained alone", {}), [_as_row(contender)], {}, RECOMMENDED
    )
    [final] = _on_all_rows(
        [contender], advice, train, lambda jobs: [_run_here(objective, job)[1] for job in jobs], [fitted]
    )
    return _complete(document, advice, final, final, train)


def _run_here(
    objective: TrainingObjective, job: Job, on_epoch: Callable[[int, float], None] = lambda epoch, loss: None
) -> tuple[list[float], Fitted]:
    curve: list[float] = []
    epochs = objective(job)
    while True:
        try:
            epoch, loss = next(epochs)
        except StopIteration as end:
            return [loss for loss in curve if math.isfinite(loss)], end.value.stack
        curve.append(loss)
        on_epoch(epoch, loss)


def hold_final(
    document: dict[str, Any],
    found: SearchResult,
    advice: Advice,
    train: Dataset,
    runner: Executor,
    ends: Deadlines,
    plan: SearchPlan,
    stopped: Callable[[], bool],
    on_done: Callable[[int, int], None],
) -> Model:
    """Train the recommendation and the best few again on fresh splits, decide, and complete the document.

    The first of them that comes through with a finite loss is the one to beat: the recommendation, or
    where that fails the best of the search. Where the time limit leaves no time for all networks,
    fewer are trained of each; where it leaves none for any final, the recommendation's own trial is
    the model, and nothing is confirmed.
    """
    entries, searched = _finalists(found, advice.recommendation)
    larger = _for_final(plan.sizing, train)
    expects = final_seconds(plan, train)
    left = math.inf if ends.final is None else ends.final - time.monotonic()
    jobs, fewer = _that_fit(entries, advice.reading.seed, expects, left, runner.slots)
    if (
        found.first is not None
        and (found.first.cut or expects(jobs[RECOMMENDED][0]) > left)
        and left < math.inf
    ):
        first = _contender(RECOMMENDED, [advice.recommendation.configuration], [found.first.stack], train)
        if _is_finite(first):
            return _unconfirmed(
                document, first, advice, train, runner, ends, larger, stopped, expects, searched
            )

    def problem(result: TrainingResult) -> str | None:
        one = _contender("", [result.stack.configuration], [result.stack], train)
        return None if _is_finite(one) else "its loss on the held-out rows is not finite"

    trained = train_finalists(
        jobs,
        runner,
        ends.final,
        larger,
        stopped,
        expects=expects,
        limited=limited,
        problem=problem,
        on_done=on_done,
    )
    contenders = [
        _contender(name, [entries[name]], [result.stack for result in own], train)
        for name, own in trained.results.items()
    ]
    incumbent = contenders[0]
    if len(contenders) > 1:
        contenders.append(blend_of(contenders, train))
    constant = constant_losses(train.task, train.target, [contenders[0].rows], len(train.classes))
    constant = weighted(constant, train.weights_of(contenders[0].rows))
    cross_fitted = {c.name: c.cross_fitted_losses for c in contenders}
    losses = {c.name: c.losses for c in contenders}
    blocks = blocks_of(train.groups, train.times, contenders[0].rows)
    verdict = decide(losses, incumbent.name, constant, blend=BLEND, cross_fitted=cross_fitted, blocks=blocks)
    rows = [_as_row(contender) for contender in contenders]
    document["final"] = final_section(verdict, rows, searched, incumbent.name, trained.failed)
    document["final"]["fewer_networks"] = fewer
    winner = next(c for c in contenders if c.name == verdict.winner)
    both = [incumbent] if winner is incumbent else [incumbent, winner]
    left = math.inf if ends.final is None else ends.final - time.monotonic()
    final = _on_all_rows(
        both, advice, train, _runs(runner, larger, stopped), expects=expects, left=left * max(1, runner.slots)
    )
    return _complete(document, advice, final[-1], final[0], train, ends.baselines)


def _unconfirmed(
    document: dict[str, Any],
    contender: Contender,
    advice: Advice,
    train: Dataset,
    runner: Executor,
    ends: Deadlines,
    sizing: Sizing | None,
    stopped: Callable[[], bool],
    expects: Callable[[Job], float],
    searched: Mapping[str, float | None],
) -> Model:
    """The recommendation's trial as the model: there is no time to judge anything again."""
    verdict = FinalVerdict(RECOMMENDED, "the time limit left no time for a final", {})
    document["final"] = final_section(verdict, [_as_row(contender)], searched, RECOMMENDED, confirmed=False)
    run = _runs(runner, sizing, stopped)
    left = math.inf if ends.final is None else ends.final - time.monotonic()
    [final] = _on_all_rows(
        [contender], advice, train, run, contender.stacks, expects=expects, left=left * max(1, runner.slots)
    )
    return _complete(document, advice, final, final, train, ends.baselines)


def _is_finite(contender: Contender) -> bool:
    return bool(np.isfinite(contender.losses).all() and np.isfinite(contender.cross_fitted_losses).all())


def _runs(
    runner: Executor, sizing: Sizing | None, stopped: Callable[[], bool]
) -> Callable[[Sequence[Job]], list[Fitted]]:
    """Runs jobs to their end; the stacks that they trained."""

    def run(jobs: Sequence[Job]) -> list[Fitted]:
        done = train_finalists({RECOMMENDED: jobs}, runner, None, sizing, stopped)
        return [result.stack for result in done.results[RECOMMENDED]]

    return run


def _on_all_rows(
    contenders: Sequence[Contender],
    advice: Advice,
    train: Dataset,
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
    if not latest_validate(train):
        return list(contenders)
    # A blend holds the recommendation, which is then trained once.
    asked = {_key(c): final_job(c, advice.reading.seed, 0) for one in contenders for c in one.configurations}
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
) -> tuple[dict[str, list[Job]], list[int] | None]:
    """The final's jobs, and [networks per split, those wanted] where ``left`` seconds
    leave no time for all that are wanted.

    As many as let the first two entries, one of which is the recommendation, be judged
    on the first partition; at least one.
    """
    wanted = max(int(configuration["final_members"]) for configuration in entries.values())
    for members in range(wanted, 0, -1):
        jobs = _final_jobs(entries, FINAL_REPEATS, seed, members)
        seconds = [expects(own[0]) for own in list(jobs.values())[:2]]
        if members == 1 or FINAL_MARGIN * (sum(seconds) if slots < 2 else max(seconds)) <= left:
            break
    return jobs, [members, wanted] if members < wanted else None


def _final_jobs(
    entries: Mapping[str, Mapping[str, Any]], repeats: Sequence[int], seed: int, most: int | None = None
) -> dict[str, list[Job]]:
    return {
        name: [final_job(c, seed, repeat, most).as_job(f"final/{name}/{repeat}") for repeat in repeats]
        for name, c in entries.items()
    }


def _for_final(sizing: Sizing | None, train: Dataset) -> Sizing | None:
    """What the search has learned, for stacks with the final's number of networks."""
    return None if sizing is None else replace(sizing, predict=training_sizing(train, final=True).predict)


def hold_own_final(
    document: dict[str, Any],
    found: SearchResult,
    advice: Advice,
    train: Dataset,
    runner: Executor,
    ends: Deadlines,
    stopped: Callable[[], bool],
    own: OwnObjective,
    run: RunFolder,
    on_done: Callable[[int, int], None],
) -> None:
    """The same for a person's own objective: the models are theirs, so they are judged by what it returns."""
    entries, searched = _finalists(found, advice.recommendation)
    seed = advice.reading.seed
    own.finish(
        document,
        Final(
            entries,
            searched,
            FINAL_REPEATS,
            train=lambda repeats, names: train_finalists(
                _final_jobs({name: entries[name] for name in names}, repeats, seed),
                runner,
                ends.final,
                None,
                stopped,
                problem=not_finite,
                on_done=on_done,
            ),
            job=lambda name, repeat: final_job(entries[name], seed, repeat),
            test=lambda scores: test_results(advice, train, scores, (), ends.baselines),
        ),
        advice,
        train,
        run,
    )


def _finalists(
    found: SearchResult, recommendation: Recommendation
) -> tuple[dict[str, Mapping[str, Any]], dict[str, float | None]]:
    """The recommendation and the best few: their configurations, and their losses in the search."""
    entries: dict[str, Mapping[str, Any]] = {RECOMMENDED: recommendation.configuration}
    searched: dict[str, float | None] = {}
    for trial in found.ranking():
        configuration = configuration_of(trial, recommendation.space)
        if trial.user_attrs.get("origin") == RECOMMENDED:
            searched[RECOMMENDED] = trial.value
        elif len(entries) <= FINALISTS and configuration not in entries.values():
            name = DEFAULT if trial.user_attrs.get("origin") == DEFAULT else f"trial {trial.number}"
            entries[name], searched[name] = configuration, trial.value
    return entries, searched


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
        np.asarray(np.mean([c.scores for c in contenders], axis=0)),
        np.asarray(np.mean([c.cross_fitted for c in contenders], axis=0)),
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
    return Contender(
        name, configurations, stacks, rows, scores, temperatures[0], losses[0], cross_fitted, losses[1]
    )


def _as_row(contender: Contender) -> dict[str, Any]:
    return {
        "name": contender.name,
        "held_out_loss": float(contender.losses.mean()),
        "held_out_rows": len(contender.losses),
        "temperature": contender.temperature,
        "networks": sum(len(stack.member_split) for stack in contender.stacks),
        "configurations": [dict(configuration) for configuration in contender.configurations],
    }


def _complete(
    document: dict[str, Any],
    advice: Advice,
    winner: Contender,
    recommended: Contender,
    train: Dataset,
    until: float | None = None,
) -> Model:
    """The winner's model; its promised loss, and then, once, the test rows, are added to the document.

    until: see ``fit_baselines``.
    """
    document["final"]["epochs_on_all_rows"] = list(winner.epochs_on_all_rows) or None
    document["final"]["without_latest_rows"] = latest_validate(train) and not winner.epochs_on_all_rows
    model = _model(advice, winner, train)
    rows = int(advice.data.dataset("test").known.sum())
    tail = train.task.unseen_loss(len(winner.losses), len(train.classes))
    blocks = blocks_of(train.groups, train.times, winner.rows)
    expected: Estimate = estimate(
        winner.losses, rows or len(winner.losses), advice.reading.seed, tail, blocks
    )
    document["estimate"] = asdict(expected)
    document["test"] = {"rows": rows, "origin": advice.data.test_origin}
    if rows:
        features = advice.data.dataset("test").features
        scores = {"network": model.scores(features)}
        if winner is not recommended:
            scores[recommended.name] = _model(advice, recommended, train).scores(features)
        document["test"] |= test_results(advice, train, scores, model.shares, until)
    return model


def _model(advice: Advice, contender: Contender, train: Dataset) -> Model:
    shares: tuple[float, ...] = ()
    if train.task.of_classes and contender.configurations[0]["decision"] == "prior_corrected":
        counts = np.bincount(train.target, minlength=len(train.classes))
        shares = tuple(float(share) for share in np.maximum(counts, 1) / len(train))
    return Model(advice.data.schema, contender.stacks, contender.temperature, shares)
