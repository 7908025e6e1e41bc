"""What the curves say turned into the ranges of the trials that follow (notes N24 and N26)."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial

from advisor.search.curves import CurveDiagnosis, RangeChange, advice_of, asks_for, read_curve
from advisor.search.storage.journal import counts
from advisor.search.trials import CONFIGURATION, TRAIN_LOSSES, best_of, end_of
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Space

ADJUSTED = "adjusted"
"""Trial attribute: the ranges that were moved for it, a list of Adjustment as data."""
WINDOW = 30
"""So many of the latest trials are read: older ones ran with other ranges."""
MORE_EPOCHS = 1.5
"""Epochs of the trials that follow, beside those of a plan that ends while the loss still falls."""


@dataclass(frozen=True)
class Adjustment:
    """A range that was moved for a trial: [low, high] of what may be proposed, low =
    high for a value that is no search's.

    words: why, in one sentence.
    """

    parameter: str
    low: float
    high: float
    words: str


def read_trial(trial: FrozenTrial) -> CurveDiagnosis:
    """What its curve says; of a pruned trial, what it said up to there. With the
    training losses, where they are kept."""
    points, end = sorted(trial.intermediate_values.items()), end_of(trial)
    losses = [value for _, value in points]
    if end == "diverged":
        return read_curve([*losses, math.inf])  # the loss that ended it is not kept
    trained = trial.user_attrs.get(TRAIN_LOSSES, ())
    known = len(trained) >= max((epoch for epoch, _ in points), default=math.inf)
    return read_curve(
        losses, [trained[epoch - 1] for epoch, _ in points] if known else None, pruned=end == "pruned"
    )


def adjusted(
    space: Space,
    trials: Sequence[FrozenTrial],
    own: Container[str] = (),
    find_best: Callable[[], FrozenTrial | None] | None = None,
) -> tuple[Space, list[Adjustment]]:
    """The space for the next trial, and what was moved in it because of the curves of the latest ``trials``.

    find_best: the best trial of the study, where ``trials`` are only its latest.
    own: parameters that a person has fixed; they stay. A range loses at most its half (of its
        logarithm, where it is searched so), only on the side where the trials lie that say so,
        and never the value of the best trial.
    """
    latest = sorted(filter(counts, trials), key=lambda trial: trial.number)[-WINDOW:]
    readings = [read_trial(trial) for trial in latest]
    changes = advice_of(readings)
    best = None if not changes else best_of(trials) if find_best is None else find_best()
    adjustments = []
    for change in changes:
        if (
            change.parameter in own
            or change.parameter not in space.parameters
            or change.parameter in space.derivations
        ):
            continue
        asking = [trial for trial, reading in zip(latest, readings, strict=True) if asks_for(reading, change)]
        values = [value for trial in asking if (value := value_in(trial, change.parameter)) is not None]
        moved = _moved(
            space[change.parameter],
            change,
            values,
            None if best is None else value_in(best, change.parameter),
        )
        if moved is None:
            continue
        space = space.with_parameters(moved)
        low, high = (moved.low, moved.high) if moved.searched else (moved.default, moved.default)
        adjustments.append(Adjustment(change.parameter, low, high, change.words))  # type: ignore[arg-type]
    return space, adjustments


def value_in(trial: FrozenTrial, parameter: str) -> float | None:
    """The number that a trial ran with; None where there is none above 0."""
    kept: Mapping[str, Any] = trial.user_attrs.get(CONFIGURATION, {})
    value = kept.get(parameter, trial.params.get(parameter))
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _moved(
    parameter: Parameter, change: RangeChange, values: Sequence[float], best: float | None
) -> Parameter | None:
    """The parameter with the range that the change asks for; None where nothing can be moved."""
    if parameter.type == "categorical" or parameter.low is None or parameter.high is None:
        return None
    if not parameter.searched:
        return _more_epochs(parameter) if parameter.name == "epochs" and change.direction == "up" else None
    if not values or not parameter.low < parameter.high:
        return None
    scale, back = (math.log, math.exp) if parameter.log else (float, float)
    middle = back((scale(parameter.low) + scale(parameter.high)) / 2)
    cut = sorted(values)[len(values) // 2]
    if change.direction == "up":
        low = min(cut, middle, parameter.high if best is None else best)
        return parameter.narrowed(low, parameter.high, keep_zero=True) if low > parameter.low else None
    high = max(cut, middle, parameter.low if best is None else best)
    return parameter.narrowed(parameter.low, high, keep_zero=True) if high < parameter.high else None


def _more_epochs(parameter: Parameter) -> Parameter:
    assert isinstance(parameter.default, int)
    return replace(parameter, default=parameter.nearest(MORE_EPOCHS * parameter.default))
