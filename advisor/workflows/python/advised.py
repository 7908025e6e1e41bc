"""A recommendation that can be asked: why, and what if."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from advisor.errors import UserError, did_you_mean
from advisor.facts.schema import FACTS, Facts
from advisor.notebook import html_table
from advisor.report.reasons import difference, overview, paragraph
from advisor.rules import shipped
from advisor.rules.book import Rule
from advisor.rules.provenance import (
    ParameterDifference,
    compare_findings,
    compare_recommendations,
    ledger,
    read_fact,
    with_facts,
)
from advisor.rules.recommendation import FIRST_CHOICES, Recommendation, replan

MAIN_CHOICES = 5
"""A notebook shows this many choices, those that matter most."""


class Reason(str):
    """A text that a notebook and a terminal both show as it reads, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class AdviceDifference:
    """How two recommendations differ.
    moved: facts that changed along with those that were asked for."""

    parameters: tuple[ParameterDifference, ...]
    findings: dict[str, list[str]]
    moved: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return difference(self.parameters, self.findings)

    __repr__ = __str__

    @classmethod
    def between(
        cls, one: Recommendation, other: Recommendation, moved: dict[str, Any] | None = None
    ) -> AdviceDifference:
        """What differs in the second."""
        changes = compare_recommendations(one, other)
        return cls(tuple(changes), compare_findings(one, other), moved or {})


@dataclass(frozen=True, eq=False, repr=False)
class AdvisedRecommendation(Recommendation):
    """What ``advisor.recommend`` returns: the recommendation with the facts and the rules that it is made of.

    It equals the plain recommendation of the same content.
    """

    facts: Facts = field(default_factory=lambda: Facts({}, {}, ()))
    rules: tuple[Rule, ...] = ()

    def __eq__(self, other: object) -> bool:
        names = [one.name for one in fields(Recommendation) if one.compare]
        return isinstance(other, Recommendation) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )

    __hash__ = None  # type: ignore[assignment]  # as of every recommendation: it holds dictionaries

    @classmethod
    def of(
        cls, recommendation: Recommendation, facts: Facts, rules: tuple[Rule, ...]
    ) -> AdvisedRecommendation:
        """The recommendation with what it was made of."""
        own = {one.name: getattr(recommendation, one.name) for one in fields(Recommendation)}
        return cls(**own, facts=facts, rules=rules)

    def why(self, parameter: str | None = None) -> Reason:
        """Why a parameter has its value, or in a line each why all have theirs."""
        if parameter is None:
            return Reason(overview(self))
        known = self.provenance
        if parameter not in known:
            raise UserError(f"there is no parameter '{parameter}'{did_you_mean(parameter, known)}")
        base = shipped.base_space(self.kind)
        return Reason(paragraph(ledger(self, self.facts.values, self.rules, base, parameter)[parameter]))

    def what_if(self, changes: dict[str, Any] | None = None, **facts: Any) -> AdviceDifference:
        """What would be recommended if some facts had other values: ``what_if(rows=1e6)``, and for a fact
        with a dot in its name ``what_if({"gpu.memory_gb": 8})``. UserError for an unknown fact or value."""
        wanted = {
            name: read_fact(name, as_written(value), FACTS)
            for name, value in {**(changes or {}), **facts}.items()
        }
        values, along = with_facts(self.facts.values, wanted)
        other = replan(self, values, self.rules, shipped.base_space(self.kind))
        return AdviceDifference.between(self, other, along)

    def _repr_html_(self) -> str:
        first = [name for name in FIRST_CHOICES if name in self.configuration]
        first += [name for name in self.configuration if name not in first]
        rows = [
            (name, self.configuration[name], self.provenance[name].because) for name in first[:MAIN_CHOICES]
        ]
        grave = [one for one in self.findings if one.severity in ("error", "warning")]
        notes = [f"Look at this first: {grave[0].message}"] if grave else []
        title = f"Recommendation for {self.data.get('name', 'the data')}"
        return html_table(title, ("Parameter", "Value", "Because"), rows, notes)


def as_written(value: Any) -> str:
    """A value as the command line has it: 1e6 rows are 1000000."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
