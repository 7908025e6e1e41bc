"""What result.json says of a run: what it was made of, the promised loss, the test rows scored once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from advisor import __version__
from advisor.dataset import Dataset
from advisor.documents import UNSET
from advisor.evaluation.by_target import JUDGED, diagnose, fit_baselines
from advisor.evaluation.explanation import Predict
from advisor.exporting.card import CARD, model_card
from advisor.files import write_folder, write_json
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
from advisor.tasks import task_of
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
        loss=task_of(data.schema.task).loss_name,
        classes=tuple(data.schema.classes),
        seed=advice.reading.seed,
        configuration=dict(advice.recommendation.configuration),
        versions={"advisor": __version__, "torch": torch.__version__, "optuna": optuna.__version__},
    )


def test_results(
    advice: Advice,
    train: Dataset,
    entries: Mapping[str, NDArray[np.float64]],
    shares: Sequence[float] = (),
    until: float | None = None,
    predict: Predict | None = None,
) -> TestReport:
    """What is told of the test rows: how many have a known target, and the entries and the baselines on them.

    entries: name -> scores of all test rows, the winner's as "network"; where there are none, or no row's
        target is known, nothing is scored. shares: of the classes, where they take part in the decision.
    until: see ``fit_baselines``. predict: our own model, which is asked what it uses.
    """
    test, ours = advice.data.dataset("test"), tuple(entries)
    known, report = test.known, TestReport(rows=int(test.known.sum()), origin=advice.data.test_origin)
    if not (report.rows and entries):
        return report
    fitted = fit_baselines(train, advice.reading.seed, until)
    baselines = {name: scores(test.features) for name, scores in fitted.items()}
    target = test.target[known]
    scored = {name: scores[known] for name, scores in {**entries, **baselines}.items()}
    losses = {name: train.task.row_losses(target, scores) for name, scores in scored.items()}
    own = scored["network"]
    chosen = train.task.decided(own, shares)
    modality = MODALITY_OF[advice.data.schema.kind]
    worst = modality.mistakes(test, known, own, chosen, losses["network"], predict)
    explained = None
    if predict is not None:
        end = min(time.monotonic() + EXPLAIN_SECONDS, until or np.inf)
        explained = modality.explain(test.part(known.nonzero()[0]), predict, advice.reading.seed, end)
    return replace(
        report,
        results=tuple(
            ScoreReport(
                name=name,
                **train.task.metrics(target, scores, shares if name in ours else ()),
                difference_to_network=_paired(losses[name], losses["network"]),
            )
            for name, scores in scored.items()
        ),
        predictions=diagnose(train.task, len(train.classes), target, own, chosen),
        left_out=tuple(name for name in JUDGED[train.task.target].names if name not in fitted),
        mistakes=UNSET if worst is None else tuple(worst),
        explanation=explained or UNSET,
    )


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
