"""The schema of facts: what is measured of a table and of the machine (by ``measurement``).

A rule's condition may look at nothing but the names in ``FACTS``. ``None`` means "not measured" or "does not
apply", never zero. No library of arrays or tables is loaded here: a question to a finished run needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from advisor.documents import from_plain, to_plain
from advisor.facts.specs.boxes import BOX_FACTS
from advisor.facts.specs.cells import CELL_FACTS
from advisor.facts.specs.machine import MACHINE_FACTS
from advisor.facts.specs.masks import MASK_FACTS
from advisor.facts.specs.named import NAMED_FACTS
from advisor.facts.specs.rows import ROW_FACTS
from advisor.facts.specs.shift import SHIFT_FACTS
from advisor.facts.specs.signals import SIGNAL_FACTS
from advisor.facts.specs.spec import FactSpec
from advisor.facts.specs.target import TARGET_FACTS
from advisor.facts.specs.traps import TRAP_FACTS
from advisor.facts.summaries import ColumnSummary, RowSample, TargetSummary
from advisor.kinds import CLASSIFICATIONS
from advisor.notebook import html_table

_SPECS = (
    *ROW_FACTS,
    *TARGET_FACTS,
    *CELL_FACTS,
    *TRAP_FACTS,
    *SHIFT_FACTS,
    *NAMED_FACTS,
    *MACHINE_FACTS,
    *SIGNAL_FACTS,
    *MASK_FACTS,
    *BOX_FACTS,
)
FACTS: Mapping[str, FactSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
"""By name, in the order in which files and pages list them."""


def damage(facts: Facts) -> str | None:
    """Which value is not of its fact's type, in words; None when all are. What is absent
    is no damage, but for what every version has measured."""
    for name in _always_measured(facts.values):
        if facts.values.get(name) is None:
            return f"the fact {name} is missing"
    for name, value in facts.values.items():
        if name not in FACTS:
            return f"there is no fact '{name}'"
        if value is not None and not _IS[FACTS[name].type](value):
            return f"the fact {name} is not a {FACTS[name].type}: {str(value)[:40]!r}"
    if not all(isinstance(how, str) for how in facts.sampled.values()):
        return "what was sampled is not text"
    return None


def _always_measured(values: Mapping[str, Any]) -> tuple[str, ...]:
    if values.get("image.side"):
        inputs: tuple[str, ...] = ("image.height", "image.width", "signal.channels")
    else:
        inputs = ("signal.channels",) if values.get("sequence.length") else ("features",)
    classes = ("classes.count",) if values.get("task") in CLASSIFICATIONS else ()
    return ("rows", "rows_test", "task", *inputs, *classes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: Mapping[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "list": lambda value: isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
}


@dataclass(frozen=True)
class Facts:
    """Measured facts.

    values: every name of FACTS -> its value, or None.
    sampled: fact name -> on how many rows it was measured, such as "10,000 of 1,000,000 rows".
    columns: a summary of each feature column, for the report.
    target: the same of the target.
    samples: a few images or series, for the report.
    """

    values: Mapping[str, Any]
    sampled: Mapping[str, str]
    columns: tuple[ColumnSummary, ...]
    target: TargetSummary = field(default_factory=TargetSummary)
    samples: tuple[RowSample, ...] = ()

    def __repr__(self) -> str:
        known = sum(value is not None for value in self.values.values())
        what = f"{self.values.get('rows', 0):,} rows, {self.values.get('features') or 0:,} features"
        return f"<Facts: {what}, {self.values.get('task')}; {known} of {len(self.values)} values measured>"

    def _repr_html_(self) -> str:
        shown = [(name, value) for name, value in self.values.items() if value is not None]
        return html_table(repr(self).strip("<>"), ("Fact", "Value"), shown)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        plain = {
            "values": dict(self.values),
            "sampled": dict(self.sampled),
            "columns": to_plain(self.columns),
            "target": to_plain(self.target),
        }
        return plain | ({"samples": to_plain(self.samples)} if self.samples else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Facts:
        """The facts that ``to_dict`` wrote. ``damage`` judges their values.

        DocumentError where a column, the target or a sample is not what it writes; KeyError, TypeError or
        ValueError where the values, what was sampled or the columns are absent or something else.
        """
        return cls(
            {**data["values"]},
            {**data["sampled"]},
            from_plain(tuple[ColumnSummary, ...], data["columns"], "columns"),
            from_plain(TargetSummary, data.get("target", {}), "target"),
            from_plain(tuple[RowSample, ...], data.get("samples", ()), "samples"),
        )
