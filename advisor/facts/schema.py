"""The schema of facts: what is measured of a table and of the machine (by ``measurement``).

A rule's condition may look at nothing but the names in ``FACTS``. ``None`` means "not measured" or "does not
apply", never zero. No library of arrays or tables is loaded here: a question to a finished run needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

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


def damage(document: Mapping[str, Any]) -> str | None:
    """What is not of its type in facts that ``Facts.to_dict`` wrote; None when
    all is. What is absent is no damage, but for what every version has measured."""
    values = document["values"]
    for name in _always_measured(values):
        if values.get(name) is None:
            return f"the fact {name} is missing"
    for name, value in values.items():
        if name not in FACTS:
            return f"there is no fact '{name}'"
        if value is not None and not _IS[FACTS[name].type](value):
            return f"the fact {name} is not a {FACTS[name].type}: {str(value)[:40]!r}"
    if not all(isinstance(how, str) for how in document["sampled"].values()):
        return "what was sampled is not text"
    for column in document["columns"]:
        if not _is_column(column):
            return "a column lacks what was measured of it, or holds something else"
    return (
        None if _is_shape(document.get("target", {})) else "the target holds neither classes nor a histogram"
    )


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


def _is_column(column: Mapping[str, Any]) -> bool:
    """name, type, why, missing_share and distinct; of numbers quantiles and a histogram, of
    dates two texts, of words a list."""
    texts = all(isinstance(column.get(name), str) for name in ("name", "type", "why"))
    distinct = column.get("distinct", "")  # there, if only as None
    counted = _is_number(column.get("missing_share")) and (distinct is None or _is_number(distinct))
    median = column.get("median")
    quantiles = median is None or all(_is_number(column.get(name)) for name in ("median", "q05", "q95"))
    outliers = column.get("outliers") is None or _is_number(column["outliers"])
    shift = column.get("shift") or {}
    effects = isinstance(shift, Mapping) and not any(
        isinstance(value, list | Mapping) for value in shift.values()
    )
    return texts and counted and quantiles and outliers and effects and _is_shape(column)


def _is_shape(measured: Mapping[str, Any]) -> bool:
    """Whether a histogram, and the counts or shares of classes or levels, are what
    they should be where there are any."""
    histogram = measured.get("histogram", {"low": 0, "high": 1, "counts": []})
    if not (isinstance(histogram, Mapping) and isinstance(histogram.get("counts"), list)):
        return False
    numbers = [histogram.get("low"), histogram.get("high"), *histogram["counts"]]
    pairs = [measured.get("classes", []), measured.get("top", [])]
    return all(map(_is_number, numbers)) and all(
        isinstance(several, list)
        and all(isinstance(one, list) and len(one) == 2 and _is_number(one[1]) for one in several)
        for several in pairs
    )


@dataclass(frozen=True)
class Facts:
    """Measured facts.

    values: every name of FACTS -> its value, or None.
    sampled: fact name -> on how many rows it was measured, such as "10,000 of 1,000,000 rows".
    columns: one mapping per feature column for the report.
    target: the same of the target, its classes with their counts or its histogram.
    samples: a few images or series, for the report.
    """

    values: Mapping[str, Any]
    sampled: Mapping[str, str]
    columns: tuple[Mapping[str, Any], ...]
    target: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        known = sum(value is not None for value in self.values.values())
        what = f"{self.values.get('rows', 0):,} rows, {self.values.get('features') or 0:,} features"
        return f"<Facts: {what}, {self.values.get('task')}; {known} of {len(self.values)} values measured>"

    def _repr_html_(self) -> str:
        shown = [(name, value) for name, value in self.values.items() if value is not None]
        return html_table(repr(self).strip("<>"), ("Fact", "Value"), shown)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        columns = [dict(c) for c in self.columns]
        plain = {
            "values": dict(self.values),
            "sampled": dict(self.sampled),
            "columns": columns,
            "target": dict(self.target),
        }
        return plain | ({"samples": [dict(sample) for sample in self.samples]} if self.samples else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Facts:
        """The facts that ``to_dict`` wrote."""
        columns = tuple(dict(column) for column in data["columns"])
        samples = tuple(dict(sample) for sample in data.get("samples", ()))
        return cls(
            dict(data["values"]), dict(data["sampled"]), columns, dict(data.get("target", {})), samples
        )
