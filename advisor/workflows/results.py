"""What result.json says of a run: what it was made of, the promised loss, the test rows scored once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from advisor import __version__
from advisor.dataset import Dataset
from advisor.evaluation.baselines import BASELINES, fit_baselines
from advisor.evaluation.diagnosis import diagnose
from advisor.files import write_folder, write_json
from advisor.report.page import over_limit, write_report
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.runs.model import Model, model_files
from advisor.tasks import task_of
from advisor.workflows.modalities import MODALITY_OF

FORMAT = 1
PAGE_SECONDS = 2.0
"""What the files of a run, its page among them, take to be written (two cores, a table of 30 columns)."""


def new_document(advice: Advice, kind: str) -> dict[str, Any]:
    """The beginning of result.json.
    kind: train or tune."""
    data = advice.data
    return {
        "format": FORMAT,
        "advisor": __version__,
        "kind": kind,
        "data": {
            "name": data.name,
            "source": data.source,
            "target": data.schema.target,
            "rows": advice.facts.values["rows"],
        },
        "task": data.schema.task,
        "loss": task_of(data.schema.task).loss_name,
        "classes": list(data.schema.classes),
        "seed": advice.reading.seed,
        "configuration": dict(advice.recommendation.configuration),
        "versions": {"advisor": __version__, "torch": torch.__version__, "optuna": optuna.__version__},
    }


def test_results(
    advice: Advice,
    train: Dataset,
    entries: Mapping[str, NDArray[np.float64]],
    shares: Sequence[float],
    until: float | None = None,
) -> dict[str, Any]:
    """The test rows, scored: the entries (name -> scores of all test rows, the
    winner's as "network") and the baselines.

    until: see ``fit_baselines``.
    """
    test, ours = advice.data.dataset("test"), tuple(entries)
    known = test.known
    fitted = fit_baselines(train, advice.reading.seed, until)
    baselines = {name: scores(test.features) for name, scores in fitted.items()}
    target, entries = test.target[known], {**entries, **baselines}
    losses = {name: train.task.row_losses(target, scores[known]) for name, scores in entries.items()}
    results = [
        {
            "name": name,
            **train.task.metrics(target, scores[known], shares if name in ours else ()),
            "difference_to_network": _paired(losses[name], losses["network"]),
        }
        for name, scores in entries.items()
    ]
    own = entries["network"][known]
    chosen = train.task.decided(own, shares)
    section = {
        "results": results,
        "predictions": diagnose(train.task, len(train.classes), target, own, chosen),
    }
    section["left_out"] = [name for name in BASELINES if name not in fitted]
    worst = MODALITY_OF[advice.data.schema.kind].mistakes(test, known, own, chosen, losses["network"])
    if worst is not None:
        section["mistakes"] = worst
    return section


def _paired(losses: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, float]:
    """Mean paired difference and its standard error; of a single row, which
    proves nothing, the difference itself."""
    paired = losses - others
    error = paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else abs(paired.mean())
    return {"mean": float(paired.mean()), "standard_error": float(error)}


# ------------------------------------------------------------------------------------------------- on disk


def write_results(run: RunFolder, advice: Advice, model: Model | None, document: Mapping[str, Any]) -> None:
    """The model where it is ours, result.json, and the report on them."""
    if model is not None:
        write_folder(run.model, model_files(model))
    write_json(run.result, document)
    write_report(run, advice.recommendation.to_dict(), advice.facts.to_dict(), advice.ledger(), document)


def write_in_time(
    run: RunFolder, advice: Advice, model: Model | None, document: Mapping[str, Any], begun: float
) -> dict[str, Any]:
    """``write_results`` with the run's seconds in them, which hold the writing itself; the document so.

    begun: on time.monotonic's clock. Written again where the writing took so long that the page would
    pass over that the time limit was exceeded.
    """
    limit = document["time_limit"]
    for _ in range(2):
        seconds = time.monotonic() - begun + PAGE_SECONDS
        timed = {**document, "seconds": seconds}
        write_results(run, advice, model, timed)
        if over_limit(seconds, limit) or not over_limit(time.monotonic() - begun, limit):
            break
    return timed
