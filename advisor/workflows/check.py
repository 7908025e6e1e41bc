"""``advisor check``: the pre-flight of a recommendation, or the inspection of a user's own network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from advisor.checks.inspection import Inspection, inspect, load_module, random_input
from advisor.checks.preflight import Preflight, preflight
from advisor.checks.subject import Subject
from advisor.errors import UserError
from advisor.files import write_json
from advisor.objectives.networks import splits_of
from advisor.runs.advice import Advice
from advisor.runs.folder import RunFolder
from advisor.runs.remote import here, mirrored
from advisor.workflows.open_run import is_run, open_run, write_advice
from advisor.workflows.recommend import get_advice, reading_of


def advice_for(
    data: str, target: str | None, out: str | None, options: Mapping[str, Any]
) -> tuple[Advice, RunFolder | None]:
    """The advice for some data, or that of a run; a run folder is made only where ``out`` asks for one."""
    data = str(here(data))
    if out is None and not is_run(data):
        return get_advice(data, target, reading_of(options)), None
    advice, run = open_run(data, target, out, options)
    if out is None:
        return advice, None
    with run.in_use(), mirrored(run):
        write_advice(run, advice)
    return advice, run


def check_recommendation(
    data: str, target: str | None, out: str | None, options: Mapping[str, Any], *, seconds: float
) -> Preflight:
    """``preflight`` of the recommendation for some data, or of a run's; kept in the
    run folder where ``out`` names one."""
    advice, run = advice_for(data, target, out, options)
    result = preflight(advice, seconds=seconds)
    if run is not None:
        with run.in_use(), mirrored(run):
            write_json(run.preflight, result.to_dict())
    return result


def check_module(
    factory: str,
    data: str | None,
    input_shape: str | None,
    batch_size: int,
    target: str | None,
    out: str | None,
    options: Mapping[str, Any],
) -> Inspection:
    """``inspect`` of a person's own network, on a batch of data or on random numbers of a shape."""
    if (data is None) == (input_shape is None):
        raise UserError("--module needs a batch: give either DATA or --input-shape")
    if batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {batch_size}")
    module = load_module(factory)
    if data is not None:
        return inspect_for(module, advice_for(data, target, out, options)[0])
    return inspect(module, random_input(str(input_shape), batch_size))


def inspect_for(module: nn.Module, advice: Advice) -> Inspection:
    """``inspect`` on a batch of a data set's training rows, prepared as recommended.

    The module gets numbers alone: images or series (rows, channels, *size) scaled, a table (rows, columns)
    with categories one-hot. UserError when it does not take them.
    """
    # ten thousand levels at most: a column of more is no category
    plain = dict(advice.recommendation.configuration) | {"one_hot_max": 10_000, "numeric_embedding": "none"}
    data, seed = advice.data.dataset("train"), advice.reading.seed
    subject = Subject.of(plain, data, splits_of(plain, data, seed, 0)[0], seed=seed)
    batch = int(plain["batch_size"])
    rows = subject.first_rows()[:, :batch]
    target = subject.target[rows[0]]
    return inspect(
        module,
        torch.cat([part for part in subject.inputs(rows) if part.is_floating_point()], dim=2)[0],
        target if data.classes else target.unsqueeze(1),
        rows=len(data),
        batch_size=batch,
        field_needed=advice.facts.values.get("receptive.needed"),
    )
