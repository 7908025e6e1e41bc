"""One fact, as a rule's condition and the documentation see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FactType = Literal["int", "float", "bool", "text", "list"]


@dataclass(frozen=True, kw_only=True)
class FactSpec:
    """One fact.

    name: in conditions and in files.
    type: of its value.
    unit: "" where it has none.
    meaning: in one phrase.
    nullable: whether the value may be None: not measured, or it does not apply.
    example: a value that it may have.
    """

    name: str
    type: FactType
    unit: str
    meaning: str
    nullable: bool = False
    example: Any
