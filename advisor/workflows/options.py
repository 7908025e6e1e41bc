"""The options of the public functions that read data: their names, types and
defaults, as help and editors show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypedDict, TypeVar, get_type_hints

Label = str | int | tuple[Any, ...]
"""What a frame may call a column: pandas knows numbers, and tuples of several levels."""


class ReadingOptions(TypedDict, total=False):
    """The keywords of ``measure``, ``recommend``, ``train`` and ``tune`` that say how to read the data and
    by which rules to advise; the fields of ``advice.Reading``."""

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


DEFAULTS: Mapping[str, Any] = {
    "types": {}, "test_fraction": 0.2, "seed": 0, "rules": (), "without": (), "fixed": {}, "strict": False,
}  # fmt: skip
"""Of those options whose default is not None."""

P = ParamSpec("P")
R = TypeVar("R")


def takes_reading_options(function: Callable[P, R]) -> Callable[P, R]:
    """Show the keywords that ``**options`` stands for in the function's signature."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name), annotation=hint)
        for name, hint in get_type_hints(ReadingOptions).items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *further])  # type: ignore[attr-defined]
    return function
