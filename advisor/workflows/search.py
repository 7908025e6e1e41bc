"""The search of a run: what may be trained on its rows, the plan, where its study is
kept, and what is kept of its trials."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from advisor.dataset import Dataset
from advisor.errors import UserError
from advisor.evaluation.baselines import expected_seconds
from advisor.executors.base import Executor, Job
from advisor.facts.schema import MIN_SIDE
from advisor.networks.geometry import usable_memory
from advisor.objectives.custom import OwnObjective
from advisor.objectives.final_jobs import FINAL_REPEATS, FINALISTS
from advisor.objectives.jobs import TrainingJob, limited, search_job
from advisor.objectives.networks import Work, rows_at_once, training_sizing, training_work
from advisor.report.page import TIME_TOLERANCE
from advisor.rules import shipped
from advisor.rules.recommendation import library_default
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.search.adaptation import ADJUSTED, read_trial
from advisor.search.curves import advice_of
from advisor.search.driver import search
from advisor.search.events import Listener
from advisor.search.plan import SearchPlan
from advisor.search.resources import Pace
from advisor.search.storage.database import Database, failures
from advisor.search.storage.journal import new_study
from advisor.search.study_space import StudySpace
from advisor.search.trials import END_IN_FILES, SearchResult, configuration_of, end_of, packing_of, ranking
from advisor.spaces.space import Space
from advisor.splits import make_splits
from advisor.training.modalities import cost_of
from advisor.workflows.modalities import MODALITY_OF
from advisor.workflows.options import SearchOptions
from advisor.workflows.status import SearchRequest

RECOMMENDED, DEFAULT = "recommendation", "library default"
SEARCH_SHARE = 0.7
"""Share of the time limit that the search may use until the recommendation's trial
has shown what the final will take."""
LEAST_SEARCH_SHARE = 0.4
"""Share that the search has in any case: a final without its last finalists is better than one without a
search. More than 1 - SEARCH_SHARE is kept for the final's first partition only, without which the search
would be in vain: the others are worth less than more trials (``benchmarks/time_limit.py``)."""
FINAL_MARGIN = 1.2
"""Kept for the final: so many times what it is expected to take."""
BASELINES_SHARE = 0.2
"""Of a time limit, at most kept for the baselines after the final: where they
would take more, they are left out."""
LEAVING_SECONDS, LEAVING_SHARE = 4.0, 0.1
"""Of a time limit, kept for what follows all computing: the workers' end, the page, the interpreter's end."""
IMPORTANCE_TRIALS = 10
"""With fewer complete trials an importance is noise."""


def training_rows(advice: Advice, *, spanning: bool = False) -> Dataset:
    """The training rows, after the plan has been held against them: better now than in every trial.

    spanning: a trial may span GPUs.
    """
    train, recommendation = advice.data.dataset("train"), advice.recommendation
    plan = recommendation.configuration
    loss = train.task.loss
    if recommendation.provenance["loss"].yours and plan["loss"] != loss:
        raise UserError(f"loss {plan['loss']} does not fit a {train.task} target: leave it at {loss}")
    if plan["validation_weights"] == "like_test":
        likeness = MODALITY_OF[advice.data.schema.kind].likeness(advice.data)
        if likeness is None:
            raise UserError(
                f"validation_weights like_test needs a test table (--test) of at least {MIN_SIDE} rows"
            )
        train = replace(train, weights=likeness if train.weights is None else likeness * train.weights)
    if reason := refusal(plan, train, advice.facts.values, spanning=spanning):
        raise UserError(f"the recommendation cannot be trained: {reason}")
    make_splits(
        train,
        scheme=plan["validation"],
        folds=int(plan["folds"]),
        fraction=float(plan["validation_fraction"]),
        seed=advice.reading.seed,
    )
    return train


def refusal(
    configuration: Mapping[str, Any], train: Dataset, facts: Mapping[str, Any], *, spanning: bool = False
) -> str | None:
    """Why a configuration cannot be trained on such rows and such a machine;
    None when nothing speaks against it."""
    members = (
        int(configuration["folds"])
        if configuration["validation"] == "kfold"
        else int(configuration["final_members"])
    )
    memory = usable_memory(facts, gpu=bool(facts["gpu.count"]))
    rows = rows_at_once(configuration, len(train), spanning)
    return cost_of(train).refusal(configuration, rows, members, memory)


@dataclass(frozen=True)
class Deadlines:
    """When search and final are to have ended, and when what follows, on time.monotonic's
    clock; None without a time limit."""

    final: float | None
    baselines: float | None


def deadlines(begun: float, time_limit: float | None, train: Dataset, tested: bool) -> Deadlines:
    """Of a run that began then.
    tested: whether there are test rows, to which the baselines are fitted."""
    if time_limit is None:
        return Deadlines(None, None)
    kept = expected_seconds(train) if tested else 0.0
    kept = kept if kept <= BASELINES_SHARE * time_limit else 0.0
    end = begun + time_limit - min(LEAVING_SECONDS, LEAVING_SHARE * time_limit)
    return Deadlines(end - kept, end + TIME_TOLERANCE * time_limit)


def plan_search(
    advice: Advice,
    request: SearchRequest,
    deadline: float | None,
    options: SearchOptions,
    own: OwnObjective | None,
    train: Dataset,
    *,
    spanning: bool = False,
) -> SearchPlan:
    """What the search of this run is to do; the first two trials are the
    recommendation and the library default.

    deadline: of the search and the final together, on time.monotonic's clock.
    spanning: see ``training_sizing``.
    """
    time_limit = None if deadline is None else max(0.0, deadline - time.monotonic())
    recommendation, seed = advice.recommendation, advice.reading.seed
    configuration, staged = recommendation.configuration, request.strategy == "staged"
    default = library_default(recommendation, shipped.base_space(recommendation.kind))
    enqueue = {RECOMMENDED: configuration, DEFAULT: default}
    own_values = frozenset(name for name, source in recommendation.provenance.items() if source.yours)
    space = StudySpace(
        recommendation.space, request.trials, len(enqueue), staged=staged, adapt=options.adapt, own=own_values
    )
    work = None if own else training_work(train)
    # Where later rows validate, more: on the latest split, on all rows, and as
    # often again on rows of all times.
    partitions = len(FINAL_REPEATS) + (2 + len(FINAL_REPEATS)) * (own is None and latest_validate(train))
    return SearchPlan(
        space=space,
        enqueue=enqueue,
        trials=request.trials,
        max_epochs=int(configuration["epochs"]),
        space_text=repr(recommendation.space.to_dict())
        + (f" for {own.name}" if own else "")
        + " in stages" * staged,
        seed=seed,
        time_limit=time_limit,
        trial_time_limit=options.trial_time_limit,
        # the first trial's networks are the model where the time limit leaves none for a final
        make_payload=lambda asked, place: search_job(
            asked, seed, place, keep=place == 0 and time_limit is not None and own is None
        ).to_dict(),
        sizing=None if own else training_sizing(train, spanning=spanning),
        pace=Pace(work[0]) if work else Pace(),
        reserve=lambda trials, slots: _reserve(
            trials, slots, time_limit or 0.0, partitions, work, recommendation.space
        ),
        refuse=lambda asked: None if own else refusal(asked, train, advice.facts.values, spanning=spanning),
        value_of=own.value_of if own else None,
        limited=None if own else limited,
        more=not options.finishing,
    )


def _reserve(
    trials: Sequence[FrozenTrial],
    slots: int,
    time_limit: float,
    partitions: int,
    work: tuple[Work, Work] | None,
    space: Space,
) -> float:
    """Seconds to keep for the final, as its contenders took in the search.

    partitions: on which each is trained.
    work: of an epoch in the search and in the final; None with an objective of
        one's own, which takes as long in both.
    """
    ranked = ranking(trials)
    recommended = next((trial for trial in ranked if trial.user_attrs.get("origin") == RECOMMENDED), None)
    if recommended is None:
        return (1 - SEARCH_SHARE) * time_limit
    contenders = [recommended, *(trial for trial in ranked if trial is not recommended)][: 1 + FINALISTS]
    seconds: list[float] = [
        trial.user_attrs.get("seconds", 0.0) - trial.user_attrs.get("waited", 0.0) for trial in contenders
    ]
    if work is not None:
        of_trial, of_final = work
        for position, trial in enumerate(contenders):
            configuration = configuration_of(trial, space)
            known = of_trial(configuration)
            seconds[position] *= (
                of_final(configuration) / known if known else int(configuration["final_members"])
            )
    # On several workers the last job may begin when the others are through.
    first, rest = sum(seconds) / max(1, slots), max(seconds) * (1 - 1 / max(1, slots))
    least, whole = (FINAL_MARGIN * (rounds * first + rest) for rounds in (1, partitions))
    return max(min(least, (1 - LEAST_SEARCH_SHARE) * time_limit), min(whole, (1 - SEARCH_SHARE) * time_limit))


def final_seconds(plan: SearchPlan, train: Dataset) -> Callable[[Job], float]:
    """What a job of the final, with its number of networks, is expected to take, in seconds, after what the
    trials took; 0 where nothing is known."""
    of_trial, of_final = training_work(train)

    def expects(job: Job) -> float:
        asked = TrainingJob.of(job)
        known = of_trial(asked.configuration)
        members = {**asked.configuration, "final_members": asked.members}
        share = of_final(members) / known if known else asked.members
        return plan.pace.expects(asked.configuration) * share

    return expects


def latest_validate(train: Dataset) -> bool:
    """Whether the latest rows are held out; groups go before times: see make_splits."""
    return train.times is not None and train.groups is None


def run_search(
    plan: SearchPlan,
    runner: Executor,
    run: RunFolder,
    request: SearchRequest,
    storage: str | None,
    on_event: Listener | None,
    should_stop: Callable[[], bool],
) -> SearchResult:
    """The search, in the run's journal or in the database that the run was begun with."""
    if request.storage is None:
        found = search(plan, runner, run.journal, on_event=on_event, should_stop=should_stop)
    else:
        url, name = storage or request.storage, str(request.study)
        with failures(url):
            found = search(
                plan, runner, lambda: Database.open(url, name), on_event=on_event, should_stop=should_stop
            )
    if not plan.more and not found.trials:
        raise UserError(f"no trial of {run.path} has finished: go on with it (`advisor tune`)")
    return found


def search_section(found: SearchResult, advice: Advice, requested: int) -> dict[str, Any]:
    """What result.json keeps of a search."""
    trials = [
        {
            "number": trial.number,
            "origin": trial.user_attrs.get("origin", "search"),
            "end": END_IN_FILES.get(end_of(trial), end_of(trial)),
            "value": trial.value if trial.value is not None and math.isfinite(trial.value) else None,
            "configuration": configuration_of(trial, advice.recommendation.space),
            "epochs": trial.user_attrs.get("epochs"),
            "seconds": trial.user_attrs.get("seconds"),
            "curve": [[s, v] for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)],
            "reading": asdict(read_trial(trial)),
        }
        for trial in found.trials
    ]
    return {
        "requested": requested,
        "trials": trials,
        "timed_out": found.timed_out,
        "seconds": found.seconds,
        "curve_advice": [
            asdict(change) for change in advice_of([read_trial(trial) for trial in found.trials])
        ],
        "adjustments": _adjustments(found.trials),
        "packing": packing_of(found.trials),
        "importances": _importances(found),
    }


def _adjustments(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """Every range that the curves moved, as it was in the last trial that it was moved
    for, with the first and the last one."""
    found: dict[str, dict[str, Any]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        for moved in trial.user_attrs.get(ADJUSTED, ()):
            first = found.get(moved["parameter"], {}).get("first", trial.number)
            found[moved["parameter"]] = {**moved, "first": first, "last": trial.number}
    return list(found.values())


def _importances(found: SearchResult) -> dict[str, float]:
    ranked = found.ranking()
    if len(ranked) < IMPORTANCE_TRIALS:
        return {}
    study = new_study()  # of its own: the run's journal is closed by now
    study.add_trials(ranked)
    with warnings.catch_warnings():
        # one warning per parameter with few trials in its best region; the
        # report says that these are estimates
        warnings.simplefilter("ignore", UserWarning)
        named = optuna.importance.get_param_importances(study)
    return {name: float(value) for name, value in named.items() if math.isfinite(value)}
