"""Facts + rules + space -> a choice and a because for every parameter. Pure: no clock, no files, no chance.

``recommendation_file`` writes a recommendation as YAML that a user can edit, and reads it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from advisor.documents import to_plain
from advisor.kinds import Kind
from advisor.notebook import html_table
from advisor.rules import recommendation_file, resolution
from advisor.rules.book import Judgement, Rule, Severity, judge_rule, own_facts
from advisor.rules.recommendation_file import own_range
from advisor.rules.resolution import Combined, Contradiction, ParameterState, ProvenanceStep, Wish, state
from advisor.spaces.aliases import value_of
from advisor.spaces.expressions import Template
from advisor.spaces.parameter import Parameter, shown_value
from advisor.spaces.space import Derivation, Space

__all__ = [
    "AdvicePlan",
    "Contradiction",
    "Finding",
    "Provenance",
    "ProvenanceStep",
    "Recommendation",
    "Unjudged",
    "advise",
    "library_default",
]


FIRST_CHOICES = ("network", "hidden_layers", "width", "learning_rate", "weight_decay", "validation")
"""The choices that matter most, for every kind of data five of them; shown first."""


@dataclass(frozen=True)
class Finding:
    """Something about the data that a user should know.
    rule: the rule that says so, or "" when none does."""

    severity: Severity
    code: str
    message: str
    columns: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    rule: str = ""

    def _repr_html_(self) -> str:
        return html_table(f"{self.severity}: {self.code}", (), (), [self.message, *self.actions])


@dataclass(frozen=True)
class Unjudged:
    """A rule that could not be judged, and the facts that were not measured
    (none: a value could not be computed)."""

    rule: str
    title: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """Where a parameter's value comes from: base, every step in order, final, and a sentence or two.

    yours: whether the user's own value or range stands.
    """

    topic: str
    meaning: str
    base: ParameterState
    steps: tuple[ProvenanceStep, ...]
    final: ParameterState
    because: str
    yours: bool = False

    def __repr__(self) -> str:
        return (
            f"<{self.topic}: {shown_value(self.final.get('value'))}, {len(self.steps)} steps: {self.because}>"
        )


@dataclass(frozen=True)
class Recommendation:
    """What to use, what to search, and why.

    configuration: a value for every parameter.
    space: narrowed around it.
    provenance: one entry per parameter.
    data: whatever the caller needs to find its data again; carried along, never looked at.
    """

    configuration: Mapping[str, Any]
    space: Space
    findings: tuple[Finding, ...]
    provenance: Mapping[str, Provenance]
    unjudged: tuple[Unjudged, ...]
    contradictions: tuple[Contradiction, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    edited: frozenset[str] = field(default=frozenset(), compare=False)
    """What a user changed in the file since it was written; not part of the file."""

    def __repr__(self) -> str:
        chosen = ", ".join(
            f"{name} {self.configuration[name]}" for name in FIRST_CHOICES if name in self.configuration
        )
        searched = sum("low" in p.final or "choices" in p.final for p in self.provenance.values())
        return (
            f"<Recommendation for '{self.data.get('name', '?')}': {chosen}; {searched} of "
            f"{len(self.configuration)} parameters "
            f"searched, {len(self.findings)} findings>"
        )

    @property
    def kind(self) -> Kind:
        """What the rows of the data are."""
        return self.data.get("kind", "table")  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON-able) in a fixed order."""
        return {
            "data": dict(self.data),
            "configuration": dict(self.configuration),
            "space": recommendation_file.space_section(self.space),
            "derived": {name: item.to_dict() for name, item in self.space.derivations.items()},
            "findings": [to_plain(finding) for finding in self.findings],
            "provenance": {name: to_plain(item) for name, item in self.provenance.items()},
            "unjudged": [to_plain(item) for item in self.unjudged],
            "contradictions": [to_plain(item) for item in self.contradictions],
        }

    def to_yaml(self) -> str:
        """The text of ``recommendation.yaml``: same recommendation, same bytes."""
        return recommendation_file.write_recommendation(self.to_dict())

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], base: Space | Callable[[Any], Space], source: str = "recommendation"
    ) -> Recommendation:
        """Read what `to_dict` gave, checked as `from_yaml` checks a file."""
        return cls.from_yaml(recommendation_file.write_recommendation(document), base, source)

    @classmethod
    def from_yaml(
        cls, text: str, base: Space | Callable[[Any], Space], source: str = "recommendation.yaml"
    ) -> Recommendation:
        """Read what `to_yaml` wrote and a user may have edited.

        A value that was changed under `configuration` is fixed and leaves the search; a range
        that was changed under `space` is searched instead of the advised one. Both are marked
        as the user's own in the provenance.
        base: the search space that bounds every edit, or a function from the kind of data to it.
        source: the file's name, for errors. Raises UserError, one line with file
            and line, for whatever does not fit.
        """
        read = recommendation_file.read_recommendation(text, base, source)
        base = read.base
        findings = tuple(Finding(**item) for item in read.findings)
        unjudged = tuple(Unjudged(**item) for item in read.unjudged)
        provenance = {name: Provenance(**item) for name, item in read.provenance.items()}
        edited = _with_edits(provenance, base, read)
        configuration = read.space.complete({})
        return cls(
            configuration,
            read.space,
            findings,
            _up_to_date(edited, configuration, read.space),
            unjudged,
            read.contradictions,
            read.data,
            read.edited,
        )


def advise(
    facts: Mapping[str, Any],
    rules: Sequence[Rule],
    space: Space,
    fixed: Mapping[str, Any] | None = None,
    *,
    limited: Mapping[str, Parameter] | None = None,
    reasons: Mapping[str, str] | None = None,
    findings: Sequence[Finding] = (),
    data: Mapping[str, Any] | None = None,
) -> Recommendation:
    """A recommendation for these facts (``Facts.values``); the order of rules does not matter.

    fixed: the user's own values; they beat every rule and leave the search.
        UserError when one is not allowed.
    limited: parameters with the user's own range or choices, searched instead of the advised ones.
    reasons: of fixed values that stand for another reason than that the user set them.
    findings: those made elsewhere, to be reported with the rules' own.
    data: kept in the recommendation as it is.
    """
    ordered = sorted(rules, key=lambda rule: rule.id)
    facts = {**facts, **own_facts(fixed or {}, space)}
    verdicts = {rule.id: judge_rule(rule, facts, space) for rule in ordered}
    fired = [rule for rule in ordered if verdicts[rule.id].fires]
    plan = AdvicePlan(ordered, verdicts, space, fixed or {}, limited or {}, reasons or {})
    combined, configuration = plan.combined, plan.configuration
    mine = {*plan.fixed, *plan.limited}
    contradictions = [
        item for name in combined for item in (*plan.overruled(name), *combined[name].contradictions)
    ]
    known = {**configuration, **facts}
    texts = {rule.id: rule.because.render({**known, **rule.limit_values}) for rule in fired}
    provenance = {
        name: _provenance(space[name], one, configuration, texts, verdicts, name in mine)
        for name, one in combined.items()
    }
    unjudged = tuple(
        Unjudged(rule.id, rule.title, verdicts[rule.id].missing)
        for rule in ordered
        if verdicts[rule.id].fires is None
    )
    own = [_finding(rule, verdicts[rule.id], facts, texts) for rule in fired if rule.finding]
    found = _sorted(
        [
            *dict.fromkeys(findings),
            *(one for one in own if not any(_covers(other, one) for other in findings)),
        ]
    )
    return Recommendation(
        configuration, plan.space, found, provenance, unjudged, tuple(contradictions), dict(data or {})
    )


def _covers(one: Finding, other: Finding) -> bool:
    """Whether the first finding says all that the second does."""
    return (one.code, one.rule) == (other.code, other.rule) and set(other.columns) <= set(one.columns)


def library_default(recommendation: Recommendation, base: Space) -> dict[str, Any]:
    """What a user gets who stacks a library's defaults: the base space,
    trained and judged by the same plan.

    Values that the user fixed stand here too.
    """
    searched, provenance = recommendation.space.searched, recommendation.provenance
    base = base.without(base.parameters.keys() - provenance.keys())  # a run of an earlier version knows fewer
    kept = (
        n
        for n, p in base.parameters.items()
        if p.topic == "plan" or (provenance[n].yours and n not in searched)
    )
    return base.complete({name: recommendation.configuration[name] for name in kept})


class AdvicePlan:
    """What the claims of all rules together make of every parameter, before anything is put into words.

    verdicts: by rule id, of the rules that may claim something. fixed, limited: the user's own values, and
    parameters with the user's own ranges; they beat every rule. reasons: see ``advise``.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        verdicts: Mapping[str, Judgement],
        base: Space,
        fixed: Mapping[str, Any],
        limited: Mapping[str, Parameter],
        reasons: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.fixed = {name: base[name].check(value_of(name, value)) for name, value in fixed.items()}
        self.limited, self._reasons = limited, reasons
        self._rules, self._verdicts, self._base = rules, verdicts, base
        wishes = _wishes(rules, verdicts)
        self._alone = {name: self._combine(name, wishes.get(name, ())) for name in base.parameters}
        self.combined = resolution.without_unused(base, self._alone)
        self.space = self._space(self.combined)
        self.configuration = self.space.complete({})

    def moved(self, changed: Mapping[str, Judgement]) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """The parameters that get another value when some rules say something else,
        with it and the rules that act on it.

        Cheaper than a plan of its own.
        """
        verdicts = {**self._verdicts, **changed}
        touched = {
            claim.parameter for id in changed for v in (self._verdicts[id], changed[id]) for claim in v.claims
        }
        wishes = _wishes(self._rules, verdicts)
        new = {name: self._combine(name, wishes.get(name, ())) for name in sorted(touched)}
        if all((one.parameter.default, one.derivation) == self._value(name) for name, one in new.items()):
            return {}
        # what is searched matters only for values that are out of use, and those are what they were
        configuration = self._space({**self._alone, **new}).complete({})
        return {
            name: (
                configuration[name],
                tuple(dict.fromkeys(wish.rule.id for wish in wishes.get(name, ()))),
            )
            for name, value in self.configuration.items()
            if configuration[name] != value
        }

    def overruled(self, name: str) -> tuple[Contradiction, ...]:
        """The rules that the user's own value of a parameter goes against."""
        if name not in self.fixed:
            return ()
        wishes = _wishes(self._rules, self._verdicts).get(name, ())
        return resolution.overruled(self._base[name], wishes, self.fixed[name])

    def _value(self, name: str) -> tuple[Any, Derivation | None]:
        return self._alone[name].parameter.default, self._alone[name].derivation

    def _combine(self, name: str, wishes: Iterable[Wish]) -> Combined:
        one = resolution.combine(self._base[name], wishes)
        if name in self.fixed:
            own = self._base[name].fixed(self.fixed[name])
        elif name in self.limited:
            own = own_range(self.limited[name], one.parameter.default)
        else:
            return one
        return resolution.yours(own, one, self._reasons.get(name) or _yours(own))

    def _space(self, combined: Mapping[str, Combined]) -> Space:
        derivations: dict[str, Derivation | None] = dict.fromkeys((*self.fixed, *self.limited))
        derivations |= {name: one.derivation for name, one in combined.items() if one.derivation is not None}
        return self._base.with_parameters(
            *(one.parameter for one in combined.values()), derivations=derivations
        )


def _wishes(rules: Sequence[Rule], verdicts: Mapping[str, Judgement]) -> dict[str, list[Wish]]:
    """Parameter -> what the rules that fired claim of it, in the order of the rules."""
    found: dict[str, list[Wish]] = {}
    for rule in rules:
        if (verdict := verdicts[rule.id]).fires:
            for claim in verdict.claims:
                found.setdefault(claim.parameter, []).append(Wish(rule, claim))
    return found


def replan(
    recommendation: Recommendation, facts: Mapping[str, Any], rules: Sequence[Rule], base: Space
) -> Recommendation:
    """The recommendation made again around the user's own values and ranges, which stay."""
    space, provenance = recommendation.space, recommendation.provenance
    yours = [name for name, origin in provenance.items() if origin.yours]
    return advise(
        facts,
        rules,
        base,
        own_values(recommendation),
        limited={name: space[name] for name in yours if name in space.searched},
        reasons={name: provenance[name].because for name in yours if name not in space.searched},
        findings=[finding for finding in recommendation.findings if not finding.rule],
        data=recommendation.data,
    )


def own_values(recommendation: Recommendation) -> dict[str, Any]:
    """The values that the user fixed."""
    fixed = (name for name, origin in recommendation.provenance.items() if origin.yours)
    return {
        name: recommendation.configuration[name]
        for name in fixed
        if name not in recommendation.space.searched
    }


def _yours(parameter: Parameter) -> str:
    if parameter.searched:
        return f"You limited the search of {parameter.name} to {parameter.allowed()}."
    return f"You set {parameter.name} to {shown_value(parameter.default)}; it is not searched."


def _provenance(
    base: Parameter,
    one: Combined,
    configuration: Mapping[str, Any],
    texts: Mapping[str, str],
    verdicts: Mapping[str, Judgement],
    mine: bool,
) -> Provenance:
    value = configuration[base.name]
    steps = tuple(
        resolution.with_reason(step, texts[step.rule], verdicts[step.rule].used, value) if step.rule else step
        for step in one.steps
    )
    final = {**state(one.parameter), "value": value}
    return Provenance(base.topic, base.meaning, state(base), steps, final, _reason(base, steps), mine)


def _reason(parameter: Parameter, steps: Sequence[ProvenanceStep]) -> str:
    """The sentences of the steps in order, each once; the user's own word alone where there is one."""
    own = [step.because for step in steps if step.effect == "yours"]
    sentences = own or list(dict.fromkeys(step.because for step in steps))
    return " ".join(sentences) if sentences else f"The base of the search space: {parameter.meaning}."


def _finding(rule: Rule, verdict: Judgement, facts: Mapping[str, Any], texts: Mapping[str, str]) -> Finding:
    effect = rule.finding
    assert effect is not None and effect.severity != "note"  # which only findings about a module are
    message: Template | None = effect.message
    text = texts[rule.id] if message is None else message.render({**facts, **rule.limit_values})
    return Finding(effect.severity, effect.code, text, verdict.columns, effect.actions, rule.id)


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(
        sorted(findings, key=lambda item: (order[item.severity], item.code, item.rule, item.message))
    )


def _with_edits(
    provenance: Mapping[str, Provenance], base: Space, read: recommendation_file.Read
) -> dict[str, Provenance]:
    """The provenance with a last step for everything that the user changed."""
    result = dict(provenance)
    for name in base.parameters:
        if name in read.edited:
            old, after = provenance[name], state(read.space[name])
            because = _yours(read.space[name])
            step = ProvenanceStep("", "your own value", "", "", (), "yours", old.final, after, because)
            result[name] = replace(old, steps=(*old.steps, step), final=after, because=because, yours=True)
    return result


def _up_to_date(
    provenance: Mapping[str, Provenance], configuration: Mapping[str, Any], space: Space
) -> dict[str, Provenance]:
    """The provenance with a last step for derived parameters that an edit of other parameters has moved."""
    result = dict(provenance)
    for name in space.derivations:
        old = provenance[name]
        if old.final.get("value") != configuration[name]:
            rule, after = space.derivations[name].rule, {"value": configuration[name]}
            because = f"Computed again after your changes: {name} is {configuration[name]}."
            last = next((step for step in reversed(old.steps) if step.rule == rule), None)
            blank = ProvenanceStep(rule, "", "", "", (), "derive", old.final, after, because)
            step = blank if last is None else replace(last, before=old.final, after=after, because=because)
            result[name] = replace(old, steps=(*old.steps, step), final=after, because=because)
    return result
