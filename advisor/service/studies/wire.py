"""What goes over the wire for a study: the space that a client sends, and trials as they are answered."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from optuna import distributions
from optuna.trial import FrozenTrial
from pydantic import Field

from advisor.errors import UserError, shown
from advisor.search.trials import configuration_of, end_of
from advisor.service.base.access import Body
from advisor.spaces import strict_yaml
from advisor.spaces.expressions import Scalar
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Space

MOST_PARAMETERS = 200
DEFAULT_EPOCHS = 100
"""Of a study without a recommendation: the epoch at which a report is the last, unless it says otherwise."""
Name = Annotated[str, Field(min_length=1, max_length=200)]
Plain = str | int | float | bool
Number = Annotated[int, Field(ge=0, le=2**31)]
Cause = Literal["error", "worker died", "node lost", "out of memory", "time limit"]


class StudyRequest(Body):
    """A study: around a recommendation, in a space of your own, or both (then yours adds and replaces).

    space: the text of a search space in our YAML, the same as an object, or Optuna's JSON: a mapping from
    names to distributions. trials: the budget. direction: of the values that are told. enqueue:
    configurations to try first. epochs: the largest epoch that is reported. lease_seconds: after which a
    silent trial is given to the next who asks.
    """

    name: Name | None = None
    recommendation: Name | None = None
    space: str | dict[str, Any] | None = None
    trials: Annotated[int, Field(ge=1)] = 100
    direction: Literal["minimize", "maximize"] = "minimize"
    enqueue: Annotated[list[dict[Name, Plain]], Field(max_length=100)] = Field(default_factory=list)
    epochs: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    lease_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0


class AskRequest(Body):
    """worker: a name for whoever runs the trial, for the log."""

    worker: Annotated[str, Field(max_length=200)] = ""


class ReportRequest(Body):
    """A loss after this many epochs. attempt: the trial's; then a worker that has lost its lease is told
    so."""

    epoch: Annotated[int, Field(ge=1, le=2**31)]
    loss: float | None
    attempt: Annotated[int, Field(ge=1)] | None = None


class CompleteRequest(Body):
    """The trial is trained to its end. value: what it is judged by; None is the best loss that was
    reported."""

    value: float | None = None
    attempt: Annotated[int, Field(ge=1)] | None = None


class FailRequest(Body):
    """The trial has no result. cause: anything but "error" is not the trial's doing, and gives it out
    again."""

    cause: Cause = "error"
    error: Annotated[str, Field(max_length=2000)] = ""
    attempt: Annotated[int, Field(ge=1)] | None = None


class HeartbeatRequest(Body):
    """The worker is alive."""

    attempt: Annotated[int, Field(ge=1)] | None = None


class Operation(Body):
    """One operation of a batch. number: of the trial, for all but ask. key: of an ask, as Idempotency-Key
    is."""

    do: Literal["ask", "report", "heartbeat", "complete", "fail"]
    number: Number | None = None
    key: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    body: dict[str, Any] = Field(default_factory=dict)


class BatchRequest(Body):
    """Operations, done in their order. Each has an answer of its own, with a status of its own."""

    operations: Annotated[list[Operation], Field(min_length=1, max_length=100)]


def space_of(given: str | Mapping[str, Any]) -> Space:
    """The space that a client sent, in either form. UserError with what is wrong."""
    if isinstance(given, str):
        space = Space.from_dict(strict_yaml.parse(given, "space").data)
    elif "parameters" in given and "format" in given:
        space = Space.from_dict(given)
    else:
        space = Space({name: _of_optuna(name, entry) for name, entry in given.items()})
    if len(space.parameters) > MOST_PARAMETERS:
        raise UserError(f"the space has {len(space.parameters)} parameters; at most {MOST_PARAMETERS}")
    if not space.searched:
        raise UserError("nothing is searched in this space")
    return space


def _of_optuna(name: str, entry: Any) -> Parameter:
    """A parameter from Optuna's JSON of a distribution, as a text or as an object."""
    try:
        text = entry if isinstance(entry, str) else json.dumps(entry)
        one = distributions.json_to_distribution(text)
    except Exception:  # noqa: BLE001  Optuna raises whatever its constructors do
        raise UserError(f"space: {shown(name, 60)}: is not a distribution in Optuna's JSON") from None
    if isinstance(one, distributions.CategoricalDistribution):
        choices: tuple[Scalar, ...] = one.choices  # type: ignore[assignment]  # checked by Parameter
        if any(not isinstance(choice, str | int | float | bool) for choice in choices):
            raise UserError(f"space: {shown(name, 60)}: choices are texts, numbers or booleans")
        return Parameter(name, "categorical", choices[0], choices=choices)
    if isinstance(one, distributions.IntDistribution):
        if one.step != 1:
            raise UserError(f"space: {shown(name, 60)}: a step of {one.step} is not supported: give choices")
        middle = math.sqrt(max(1, one.low) * one.high) if one.log else (one.low + one.high) / 2
        return Parameter(name, "int", int(middle), one.low, one.high, log=one.log)
    assert isinstance(one, distributions.FloatDistribution)
    if one.step is not None:
        raise UserError(f"space: {shown(name, 60)}: a step of {one.step} is not supported: give choices")
    middle = math.sqrt(one.low * one.high) if one.log else (one.low + one.high) / 2
    return Parameter(name, "float", middle, one.low, one.high, log=one.log)


def shown_trial(trial: FrozenTrial, space: Space, sign: int) -> dict[str, Any]:
    """A trial that has ended, as it is answered. sign: -1 where greater is better."""
    end = end_of(trial)
    value = trial.value if end in ("complete", "pruned") else None
    curve = sorted(trial.intermediate_values.items())
    return {
        "number": trial.number,
        "state": end,
        "value": None if value is None else sign * value,
        "configuration": configuration_of(trial, space),
        "origin": trial.user_attrs.get("origin", "search"),
        "reason": trial.user_attrs.get("reason", ""),
        "worker": trial.user_attrs.get("worker"),
        "seconds": trial.user_attrs.get("seconds"),
        "curve": [[epoch, sign * loss] for epoch, loss in curve if math.isfinite(loss)],
    }
