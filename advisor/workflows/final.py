"""The end of a run: what comes into the final, and what of it result.json holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from advisor.documents import UNSET
from advisor.evaluation.explanation import Predict
from advisor.executors.base import Executor
from advisor.objectives.final_jobs import FINALISTS
from advisor.objectives.network_final import train_alone
from advisor.objectives.objective import AdvisedRows, FinalOutcome, FinalRequest, RunData
from advisor.runs.model import Model
from advisor.runs.result import RECOMMENDED, InterruptedReport, RunReport
from advisor.search.plan import SearchPlan
from advisor.search.trials import SearchResult, configuration_of
from advisor.workflows.results import run_setup, test_results
from advisor.workflows.search import DEFAULT, Deadlines


def final_request(
    found: SearchResult,
    plan: SearchPlan,
    given: RunData,
    runner: Executor,
    ends: Deadlines,
    *,
    stopped: Callable[[], bool],
    on_done: Callable[[int, int], None],
    with_trees: bool = False,
) -> FinalRequest:
    """What a search leaves to the final: the recommendation and the best few.
    with_trees: see ``tune``."""
    recommendation = given.advice.recommendation
    entries: dict[str, Mapping[str, Any]] = {RECOMMENDED: recommendation.configuration}
    searched: dict[str, float | None] = {}
    for trial in found.ranking():
        configuration = configuration_of(trial, recommendation.space)
        if trial.user_attrs.get("origin") == RECOMMENDED:
            searched[RECOMMENDED] = trial.value
        elif len(entries) <= FINALISTS and configuration not in entries.values():
            name = DEFAULT if trial.user_attrs.get("origin") == DEFAULT else f"trial {trial.number}"
            entries[name], searched[name] = configuration, trial.value
    return FinalRequest(
        entries,
        searched,
        runner,
        plan.pace,
        sizing=plan.sizing,
        first=found.first,
        deadline=ends.final,
        with_trees=with_trees,
        trees_until=ends.trees,
        stopped=stopped,
        on_done=on_done,
    )


def search_ended(
    given: RunData,
    outcome: FinalOutcome,
    searched: InterruptedReport,
    baselines_until: float | None,
) -> RunReport:
    """The report of a run after its final, the test rows scored; its seconds are those of the search.

    searched: what was known before it. baselines_until: see ``fit_baselines``.
    """
    return RunReport(
        setup=replace(searched.setup, loss=outcome.loss),
        search=searched.search,
        seconds=searched.seconds,
        time_limit=searched.time_limit,
        objective=outcome.objective,
        final=outcome.final,
        estimate=outcome.estimate,
        metric=outcome.metric,
        offers=tuple(outcome.offers) or UNSET,
        test=test_results(given, outcome.tested, outcome.shares, baselines_until, _predict(outcome)),
    )


def _predict(outcome: FinalOutcome) -> Predict | None:
    """The model of the final where it is ours."""
    return None if outcome.model is None else outcome.model.scores


def recommendation_trained(
    given: AdvisedRows,
    begun: float,
    on_epoch: Callable[[int, int, float], None],
    time_limit: float | None = None,
    *,
    with_trees: bool = False,
) -> tuple[RunReport, Model]:
    """The report and the model of a run that trains the recommendation alone.

    begun: on time.monotonic's clock. on_epoch: told how many of how many epochs were trained, and the loss.
    time_limit: seconds for the training. with_trees: see ``train``.
    """
    trained = train_alone(given, on_epoch, time_limit, with_trees=with_trees)
    outcome = trained.outcome
    test = test_results(given, outcome.tested, outcome.shares, predict=_predict(outcome))
    report = RunReport(
        setup=run_setup(given.advice, "train"),
        curve=trained.curve,
        train_curve=trained.train_curve or UNSET,
        reading=trained.reading,
        seconds=time.monotonic() - begun,
        final=outcome.final,
        estimate=outcome.estimate,
        metric=outcome.metric,
        offers=tuple(outcome.offers) or UNSET,
        test=test,
    )
    assert outcome.model is not None, "a network that was trained alone is the model"
    return report, outcome.model
