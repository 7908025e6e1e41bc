"""What result.json says of a run: what it was made of, the promised loss, the test rows scored once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from advisor import __version__
from advisor.documents import UNSET
from advisor.evaluation.by_metric import jackknifed, left_out_parts
from advisor.evaluation.by_target import JUDGED, baseline_decisions, diagnose, fit_baselines
from advisor.evaluation.explanation import Predict
from advisor.evaluation.judge import Judge
from advisor.evaluation.selection import clustered_error
from advisor.exporting.card import CARD, model_card
from advisor.files import write_folder, write_json
from advisor.objectives.objective import AdvisedRows
from advisor.report.page import write_report
from advisor.report.verdict import over_limit
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.runs.model import Model, model_files
from advisor.runs.result import (
    DataReport,
    PairedDifference,
    RunReport,
    RunSetup,
    ScoreReport,
    TestReport,
)
from advisor.workflows.modalities import MODALITY_OF

FORMAT = 1
EXPLAIN_SECONDS = 3.0
"""At most, for what the model uses: shuffling 30 columns of 500 rows takes about one."""
PAGE_SECONDS = 2.0
"""What the files of a run, its page among them, take to be written (two cores, a table of 30 columns)."""


def run_setup(advice: Advice, kind: Literal["train", "tune"]) -> RunSetup:
    """What a run is made of."""
    data = advice.data
    return RunSetup(
        format=FORMAT,
        advisor=__version__,
        kind=kind,
        data=DataReport(
            name=data.name,
            source=data.source,
            target=data.schema.target,
            rows=advice.facts.values["rows"],
        ),
        task=data.schema.task,
        loss=advice.task.loss_name,
        classes=tuple(data.schema.classes),
        seed=advice.reading.seed,
        configuration=dict(advice.recommendation.configuration),
        versions={"advisor": __version__, "torch": torch.__version__, "optuna": optuna.__version__},
    )


def test_results(
    given: AdvisedRows,
    entries: Mapping[str, NDArray[np.float64]],
    shares: Mapping[str, Sequence[float]],
    until: float | None = None,
    predict: Predict | None = None,
) -> TestReport:
    """What is told of the test rows: how many have a known target, and the entries and the baselines on them.

    entries: name -> scores of all test rows, the winner's as "network"; where there are none, or no row's
        target is known, nothing is scored. shares: of each entry, see ``Task.decided``; none is the most
        likely class.
    until: see ``fit_baselines``. predict: our own model, which is asked what it uses.
    """
    advice, train, judge = given.advice, given.train, given.judge
    test = advice.data.dataset("test")
    known, report = test.known, TestReport(rows=int(test.known.sum()), origin=advice.data.test_origin)
    if not (report.rows and entries):
        return report
    fitted = fit_baselines(train, advice.reading.seed, until)
    shares = {**baseline_decisions(judge, train, advice.reading.seed, until), **shares}
    baselines = {name: scores(test.features) for name, scores in fitted.items()}
    target = test.target[known]
    scored = {name: scores[known] for name, scores in {**entries, **baselines}.items()}
    losses = {name: train.task.row_losses(target, scores) for name, scores in scored.items()}
    own = scored["network"]
    decided = {name: train.task.decided(scores, shares.get(name, ())) for name, scores in scored.items()}
    chosen = decided["network"]
    modality = MODALITY_OF[advice.data.schema.kind]
    with_metric = _metric_of(judge, target, scored, decided)
    worst = modality.mistakes(test, known, own, chosen, losses["network"], predict)
    explained = None
    if predict is not None:
        end = min(time.monotonic() + EXPLAIN_SECONDS, until or np.inf)
        explained = modality.explain(test.part(known.nonzero()[0]), predict, advice.reading.seed, end)
    return replace(
        report,
        results=tuple(
            with_metric(
                ScoreReport(
                    name=name,
                    difference_to_network=_paired(losses[name], losses["network"]),
                    **train.task.metrics(target, scores, shares.get(name, ())),  # type: ignore[arg-type]
                )
            )
            for name, scores in scored.items()
        ),
        predictions=diagnose(train.task, len(train.classes), target, own, chosen),
        left_out=tuple(name for name in JUDGED[train.task.target].names if name not in fitted),
        mistakes=UNSET if worst is None else tuple(worst),
        explanation=explained or UNSET,
    )


def _metric_of(
    judge: Judge | None,
    target: NDArray[Any],
    scored: Mapping[str, NDArray[np.float64]],
    decided: Mapping[str, NDArray[Any]],
) -> Callable[[ScoreReport], ScoreReport]:
    """Adds the user's metric to the report of an entry, and its difference to the network's, negative where
    it is better."""
    if judge is None:
        return lambda entry: entry
    parts = left_out_parts(len(target), None)

    def losses(name: str) -> NDArray[np.float64]:
        return jackknifed(judge, target, scored[name], decided[name], None, parts)

    network = losses("network")

    def added(entry: ScoreReport) -> ScoreReport:
        value, paired = (
            judge.value(target, scored[entry.name], decided[entry.name]),
            losses(entry.name) - network,
        )
        if not np.isfinite(paired).all():
            return replace(entry, metric=value if np.isfinite(value) else None)
        mean, several = float(paired.mean()), len(np.unique(parts)) > 1
        error = clustered_error(paired, parts) if several else abs(mean)
        return replace(entry, metric=value, metric_difference=PairedDifference(mean, error))

    return added


def _paired(losses: NDArray[np.float64], others: NDArray[np.float64]) -> PairedDifference:
    """Mean paired difference and its standard error; of a single row, which
    proves nothing, the difference itself."""
    paired = losses - others
    error = paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else abs(paired.mean())
    return PairedDifference(float(paired.mean()), float(error))


# ------------------------------------------------------------------------------------------------- on disk


def write_results(run: RunFolder, advice: Advice, model: Model | None, report: RunReport) -> None:
    """The model where it is ours, result.json, and the report on them."""
    if model is not None:
        card = model_card(advice.recommendation, advice.facts, report)
        write_folder(run.model, model_files(model) | {CARD: card.encode()})
        for former in run.former_models:  # of a training before this one
            shutil.rmtree(former)
    write_json(run.result, report.to_dict())
    write_report(run, advice.recommendation, advice.facts, advice.ledger(), report)


def write_in_time(
    run: RunFolder, advice: Advice, model: Model | None, report: RunReport, begun: float
) -> RunReport:
    """``write_results`` with the run's seconds in them, which hold the writing itself; the report so.

    begun: on time.monotonic's clock. Written again where the writing took so long that the page would
    pass over that the time limit was exceeded.
    """
    limit = report.time_limit or None
    for _ in range(2):
        seconds = time.monotonic() - begun + PAGE_SECONDS
        timed = replace(report, seconds=seconds)
        write_results(run, advice, model, timed)
        if over_limit(seconds, limit) or not over_limit(time.monotonic() - begun, limit):
            break
    return timed
