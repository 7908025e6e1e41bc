"""The options of the public functions: their names, types and defaults, as help and editors show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, get_args, get_type_hints

from advisor.errors import UserError, did_you_mean

Label = str | int | tuple[Any, ...]
"""What a frame may call a column: pandas knows numbers, and tuples of several levels."""

Strategy = Literal["joint", "staged"]
"""joint: everything is searched at once. staged: first what makes it learn, then what regularizes, then the
layers."""


@dataclass(frozen=True)
class SearchOptions:
    """How long to search, and in which order; the keywords of ``tune``.

    time_limit: seconds, for the search and the final together.
    trial_time_limit: seconds after which a trial is ended.
    adapt: whether the curves of finished trials may move the ranges of those that follow.
    finishing: no trial is begun; ``trials`` is 0 then.
    """

    trials: int = 40
    time_limit: float | None = None
    trial_time_limit: float | None = None
    strategy: str = "joint"
    adapt: bool = True
    finishing: bool = False

    def __post_init__(self) -> None:
        strategies = get_args(Strategy)
        if self.strategy not in strategies:
            meant = did_you_mean(self.strategy, strategies)
            raise UserError(f"unknown strategy '{self.strategy}'{meant}: choose {' or '.join(strategies)}")
        if self.trials < 1 and not self.finishing:
            raise UserError(f"trials must be at least 1, not {self.trials}")
        for what, seconds in (
            ("the time limit", self.time_limit),
            ("the time limit of a trial", self.trial_time_limit),
        ):
            if seconds is not None and not seconds > 0:
                raise UserError(f"{what} must be more than 0 seconds, not {seconds}")


class AdviceKeywords(TypedDict, total=False):
    """The keywords of ``measure``, ``recommend``, ``train`` and ``tune`` that say how to read the data and
    by which rules to advise: the fields of ``AdviceOptions``, with columns as a frame has them."""

    test: Any
    types: Mapping[Label, str]
    kind: str | None
    task: str | None
    id_column: Label | None
    time_column: Label | None
    group_column: Label | None
    weight_column: Label | None
    channels: str | None
    test_fraction: float
    seed: int
    rules: Sequence[str | Path]
    without: Sequence[str]
    fixed: Mapping[str, Any]
    strict: bool
    join_spellings: bool | None
    encoding: str | None
    sheet: str | None
    ignore: str | int | None
    metric: str | Callable[..., Any] | None
    cost: str | Path | Mapping[str, Mapping[str, float]] | None
    weights: str | Path | None
    from_run: str | Path | None


DEFAULTS: Mapping[str, Any] = {
    "types": {}, "test_fraction": 0.2, "seed": 0, "rules": (), "without": (), "fixed": {}, "strict": False,
}  # fmt: skip
"""Of those options whose default is not None."""

P = ParamSpec("P")
R = TypeVar("R")


def takes_advice_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Show the keywords that ``**options`` stands for in the function's signature."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name), annotation=hint)
        for name, hint in get_type_hints(AdviceKeywords).items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *further])  # type: ignore[attr-defined]
    return function
