"""The search of a run: what may be trained on its rows, the plan, where its study is
kept, and what is kept of its trials."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.trial import FrozenTrial

from advisor.dataset import Dataset
from advisor.documents import UNSET
from advisor.errors import UserError
from advisor.evaluation.by_target import baseline_seconds
from advisor.executors.base import Executor
from advisor.facts.specs.thresholds import MIN_SIDE
from advisor.objectives.final_jobs import FINAL_MARGIN, FINAL_REPEATS, FINALISTS
from advisor.objectives.networks import refusal
from advisor.objectives.objective import Objective, RunData, TrialSetup
from advisor.report.verdict import TIME_TOLERANCE
from advisor.rules import shipped
from advisor.rules.recommendation import library_default
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.runs.result import RECOMMENDED, MovedRange, SearchAsked, SearchReport, TrialReport
from advisor.search.adaptation import ADJUSTED, read_trial
from advisor.search.curves import advice_of
from advisor.search.driver import search
from advisor.search.events import END_IN_FILES, Listener
from advisor.search.plan import SearchPlan
from advisor.search.resources import Pace
from advisor.search.storage.database import Database, failures
from advisor.search.storage.journal import new_study
from advisor.search.study_space import StudySpace
from advisor.search.trials import (
    SearchResult,
    configuration_of,
    end_of,
    packing_of,
    ranking,
    training_points,
)
from advisor.spaces.space import Space
from advisor.splits import make_splits
from advisor.workflows.modalities import MODALITY_OF
from advisor.workflows.options import SearchOptions
from advisor.workflows.status import SearchRequest

DEFAULT = "library default"
SEARCH_SHARE = 0.7
"""Share of the time limit that the search may use until the recommendation's trial
has shown what the final will take."""
LEAST_SEARCH_SHARE = 0.4
"""Share that the search has in any case: a final without its last finalists is better than one without a
search. More than 1 - SEARCH_SHARE is kept for the final's first partition only, without which the search
would be in vain: the others are worth less than more trials (``benchmarks/time_limit.py``)."""
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
    train, plan = advice.training_rows(), advice.recommendation.configuration
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


@dataclass(frozen=True)
class Deadlines:
    """When search and final are to have ended, and when what follows, on time.monotonic's
    clock; None without a time limit. trees: when those of the final are to have been fitted."""

    final: float | None
    baselines: float | None
    trees: float | None = None


def deadlines(
    begun: float, time_limit: float | None, train: Dataset, tested: bool, tree_fits: int = 0
) -> Deadlines:
    """Of a run that began then.
    tested: whether there are test rows, to which the baselines are fitted. tree_fits: of trees, in the final.
    """
    if time_limit is None:
        return Deadlines(None, None)
    once = baseline_seconds(train) if tested or tree_fits else 0.0
    most = BASELINES_SHARE * time_limit
    kept, trees = (seconds if seconds <= most else 0.0 for seconds in (once * tested, once * tree_fits))
    end = begun + time_limit - min(LEAVING_SECONDS, LEAVING_SHARE * time_limit)
    return Deadlines(end - kept - trees, end + TIME_TOLERANCE * time_limit, end - kept)


def fits_of_trees(advice: Advice) -> int:
    """How many fits of trees a final has: one for each split."""
    plan = advice.recommendation.configuration
    return len(FINAL_REPEATS) * (int(plan["folds"]) if plan["validation"] == "kfold" else 1)


def plan_search(
    given: RunData,
    request: SearchRequest,
    objective: Objective,
    deadline: float | None,
    options: SearchOptions,
) -> SearchPlan:
    """What the search of this run is to do; the first two trials are the
    recommendation and the library default.

    deadline: of the search and the final together, on time.monotonic's clock.
    """
    time_limit = None if deadline is None else max(0.0, deadline - time.monotonic())
    recommendation, staged = given.advice.recommendation, request.strategy == "staged"
    default = library_default(recommendation, shipped.base_space(recommendation.kind))
    enqueue = {RECOMMENDED: recommendation.configuration, DEFAULT: default}
    own_values = frozenset(name for name, source in recommendation.provenance.items() if source.yours)
    space = StudySpace(
        recommendation.space, request.trials, len(enqueue), staged=staged, adapt=options.adapt, own=own_values
    )
    trials = objective.trials(given)
    return SearchPlan(
        space=space,
        enqueue=enqueue,
        trials=request.trials,
        max_epochs=int(recommendation.configuration["epochs"]),
        space_text=repr(recommendation.space.to_dict())
        + (f" for {objective.name}" if objective.name else "")
        + " in stages" * staged,
        seed=given.advice.reading.seed,
        time_limit=time_limit,
        trial_time_limit=options.trial_time_limit,
        # the first trial's networks are the model where the time limit leaves none for a final
        make_payload=lambda asked, place: trials.job(
            asked, place, place == 0 and time_limit is not None
        ).to_dict(),
        sizing=trials.sizing,
        pace=Pace(trials.work),
        reserve=lambda done, slots: _reserve(done, slots, time_limit or 0.0, trials, recommendation.space),
        refuse=trials.refuse,
        value_of=trials.value_of,
        limited=trials.limited,
        more=not options.finishing,
    )


def _reserve(
    done: Sequence[FrozenTrial], slots: int, time_limit: float, trials: TrialSetup, space: Space
) -> float:
    """Seconds to keep for the final, as its contenders took in the search."""
    ranked = ranking(done)
    recommended = next((trial for trial in ranked if trial.user_attrs.get("origin") == RECOMMENDED), None)
    if recommended is None:
        return (1 - SEARCH_SHARE) * time_limit
    contenders = [recommended, *(trial for trial in ranked if trial is not recommended)][: 1 + FINALISTS]
    seconds: list[float] = [
        (trial.user_attrs.get("seconds", 0.0) - trial.user_attrs.get("waited", 0.0))
        * trials.final_work(configuration_of(trial, space))
        for trial in contenders
    ]
    # On several workers the last job may begin when the others are through.
    first, rest = sum(seconds) / max(1, slots), max(seconds) * (1 - 1 / max(1, slots))
    least, whole = (FINAL_MARGIN * (rounds * first + rest) for rounds in (1, trials.partitions))
    return max(min(least, (1 - LEAST_SEARCH_SHARE) * time_limit), min(whole, (1 - SEARCH_SHARE) * time_limit))


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
        raise UserError(f"no trial of {run.path} has finished: resume it (`advisor tune`)")
    return found


def search_report(
    found: SearchResult, advice: Advice, request: SearchRequest, options: SearchOptions
) -> SearchReport:
    """What result.json keeps of a search."""
    trials = found.trials
    asked = SearchAsked(
        strategy=request.strategy or options.strategy,
        adapt=options.adapt,
        trial_time_limit=options.trial_time_limit,
    )
    return SearchReport(
        requested=max(request.trials, len(trials)),
        trials=tuple(_trial_report(trial, advice.recommendation.space) for trial in trials),
        timed_out=found.timed_out,
        seconds=found.seconds,
        curve_advice=tuple(advice_of([read_trial(trial) for trial in trials])),
        adjustments=_adjustments(trials),
        packing=tuple(packing_of(trials)),
        options=asked,
        importances=_importances(found),
    )


def _trial_report(trial: FrozenTrial, space: Space) -> TrialReport:
    value, points = trial.value, sorted(trial.intermediate_values.items())
    curve = tuple((epoch, loss) for epoch, loss in points if math.isfinite(loss))
    trained = training_points(trial)
    return TrialReport(
        number=trial.number,
        origin=trial.user_attrs.get("origin", "search"),
        end=END_IN_FILES.get(end_of(trial), end_of(trial)),
        value=value if value is not None and math.isfinite(value) else None,
        configuration=configuration_of(trial, space),
        epochs=trial.user_attrs.get("epochs"),
        seconds=trial.user_attrs.get("seconds"),
        curve=curve,
        train_curve=tuple((epoch, trained[epoch]) for epoch, _ in curve if epoch in trained) or UNSET,
        reading=read_trial(trial),
    )


def _adjustments(trials: Sequence[FrozenTrial]) -> tuple[MovedRange, ...]:
    """Every range that the curves moved, as it was in the last trial that it was moved
    for, with the first and the last one."""
    found: dict[str, MovedRange] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        for moved in trial.user_attrs.get(ADJUSTED, ()):
            before = found.get(moved["parameter"])
            first = before.first if before else trial.number
            found[moved["parameter"]] = MovedRange(**moved, first=first, last=trial.number)
    return tuple(found.values())


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
