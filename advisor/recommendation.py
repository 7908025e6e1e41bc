"""Facts + rules + space -> a choice and a because for every parameter. Pure: no clock, no files, no chance.

``recommendation_file`` writes a recommendation as YAML that a person can edit, and reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from advisor import combination, recommendation_file
from advisor.combination import Combined, Contradiction, State, Step, Wish, state
from advisor.expressions import Template
from advisor.rules import Rule, Severity, Verdict, judge
from advisor.spaces import Derivation, Parameter, Space, shown

__all__ = [
    "Contradiction", "Finding", "Provenance", "Recommendation", "Step", "Unjudged", "advise", "library_default",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know. rule: the rule that says so, or "" when none does."""

    severity: Severity
    code: str
    message: str
    columns: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    rule: str = ""


@dataclass(frozen=True)
class Unjudged:
    """A rule that could not be judged, and the facts that were not measured (none: a value could not be computed)."""

    rule: str
    title: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """Where a parameter's value comes from: base, every step in order, final, and a sentence or two.

    yours: whether the person's own value or range stands.
    """

    topic: str
    meaning: str
    base: State
    steps: tuple[Step, ...]
    final: State
    because: str
    yours: bool = False


@dataclass(frozen=True)
class Recommendation:
    """What to use, what to search, and why.

    configuration: a value for every parameter. space: narrowed around it. provenance: one entry per parameter.
    data: whatever the caller needs to find its data again; carried along, never looked at.
    """

    configuration: Mapping[str, Any]
    space: Space
    findings: tuple[Finding, ...]
    provenance: Mapping[str, Provenance]
    unjudged: tuple[Unjudged, ...]
    contradictions: tuple[Contradiction, ...]
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON-able) in a fixed order."""
        return {
            "data": dict(self.data),
            "configuration": dict(self.configuration),
            "space": recommendation_file.space_section(self.space),
            "derived": {name: item.to_dict() for name, item in self.space.derivations.items()},
            "findings": [_listed(asdict(finding)) for finding in self.findings],
            "provenance": {name: _listed(asdict(item)) for name, item in self.provenance.items()},
            "unjudged": [_listed(asdict(item)) for item in self.unjudged],
            "contradictions": [_listed(asdict(item)) for item in self.contradictions],
        }

    def to_yaml(self) -> str:
        """The text of ``recommendation.yaml``: same recommendation, same bytes."""
        return recommendation_file.write(self.to_dict())

    @classmethod
    def from_yaml(cls, text: str, base: Space, source: str = "recommendation.yaml") -> Recommendation:
        """Read what `to_yaml` wrote and a person may have edited.

        A value that was changed under `configuration` is fixed and leaves the search; a range that was changed under
        `space` is searched instead of the advised one. Both are marked as the person's own in the provenance.
        base: the search space that bounds every edit. source: the file's name, for errors.
        Raises UserError, one line with file and line, for whatever does not fit.
        """
        read = recommendation_file.read(text, base, source)
        findings = tuple(Finding(**item) for item in read.findings)
        unjudged = tuple(Unjudged(**item) for item in read.unjudged)
        provenance = {name: Provenance(**item) for name, item in read.provenance.items()}
        edited = _with_edits(provenance, base, read)
        configuration = read.space.complete({})
        return cls(
            configuration, read.space, findings, _up_to_date(edited, configuration, read.space), unjudged,
            read.contradictions, read.data,
        )  # fmt: skip


def _listed(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def advise(
    facts: Mapping[str, Any],
    rules: Sequence[Rule],
    space: Space,
    fixed: Mapping[str, Any] | None = None,
    *,
    findings: Sequence[Finding] = (),
    data: Mapping[str, Any] | None = None,
) -> Recommendation:
    """A recommendation for these facts (``Facts.values``); the order of rules does not matter.

    fixed: the person's own values; they beat every rule and leave the search. UserError when one is not allowed.
    findings: those made elsewhere, to be reported with the rules' own. data: kept in the recommendation as it is.
    """
    mine = {name: space[name].check(value) for name, value in (fixed or {}).items()}
    ordered = sorted(rules, key=lambda rule: rule.id)
    verdicts = {rule.id: judge(rule, facts, space) for rule in ordered}
    fired = [rule for rule in ordered if verdicts[rule.id].fires]
    wishes: dict[str, list[Wish]] = {name: [] for name in space.parameters}
    for rule in fired:
        for claim in verdicts[rule.id].claims:
            wishes[claim.parameter].append(Wish(rule, claim))
    combined: dict[str, Combined] = {}
    contradictions: list[Contradiction] = []
    for name, base in space.parameters.items():
        one = combination.combine(base, wishes[name])
        if name in mine:
            contradictions += combination.overruled(base, wishes[name], mine[name])
            one = combination.yours(base, mine[name], one, _yours(name, mine[name]))
        combined[name] = one
        contradictions += one.contradictions
    combined = combination.without_unused(space, combined)
    narrowed = _space(space, combined, set(mine))
    configuration = narrowed.complete({})
    texts = {rule.id: _because(rule, facts, configuration) for rule in fired}
    provenance = {
        name: _provenance(space[name], one, configuration, texts, verdicts, name in mine)
        for name, one in combined.items()
    }
    unjudged = tuple(
        Unjudged(rule.id, rule.title, verdicts[rule.id].missing)
        for rule in ordered if verdicts[rule.id].fires is None
    )  # fmt: skip
    found = _sorted([*findings, *(_finding(rule, verdicts[rule.id], facts, texts) for rule in fired if rule.finding)])
    return Recommendation(configuration, narrowed, found, provenance, unjudged, tuple(contradictions), dict(data or {}))


def library_default(recommendation: Recommendation, base: Space) -> dict[str, Any]:
    """What a person gets who stacks a library's defaults: the base space, trained and judged by the same plan.

    Values that the person fixed stand here too.
    """
    searched, provenance = recommendation.space.searched, recommendation.provenance
    kept = (n for n, p in base.parameters.items() if p.topic == "plan" or (provenance[n].yours and n not in searched))
    return base.complete({name: recommendation.configuration[name] for name in kept})


def _space(space: Space, combined: Mapping[str, Combined], mine: set[str]) -> Space:
    derivations: dict[str, Derivation | None] = {name: None for name in mine}
    for name, one in combined.items():
        if one.derivation is not None:
            derivations[name] = one.derivation
    return space.with_parameters(*(one.parameter for one in combined.values()), derivations=derivations)


def _yours(name: str, value: object) -> str:
    return f"You set {name} to {shown(value)}; it is not searched."


def _known(rule: Rule, facts: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {**configuration, **facts, **rule.limit_values()}


def _because(rule: Rule, facts: Mapping[str, Any], configuration: Mapping[str, Any]) -> str:
    return rule.because.render(_known(rule, facts, configuration))


def _provenance(
    base: Parameter,
    one: Combined,
    configuration: Mapping[str, Any],
    texts: Mapping[str, str],
    verdicts: Mapping[str, Verdict],
    mine: bool,
) -> Provenance:
    value = configuration[base.name]
    steps = tuple(
        combination.with_reason(step, texts[step.rule], verdicts[step.rule].used, value) if step.rule else step
        for step in one.steps
    )  # fmt: skip
    final = {**state(one.parameter), "value": value}
    return Provenance(base.topic, base.meaning, state(base), steps, final, _reason(base, steps), mine)


def _reason(parameter: Parameter, steps: Sequence[Step]) -> str:
    """The sentences of the steps in order, each once; the person's own word alone where there is one."""
    own = [step.because for step in steps if step.effect == "yours"]
    sentences = own or list(dict.fromkeys(step.because for step in steps))
    return " ".join(sentences) if sentences else f"The base of the search space: {parameter.meaning}."


def _finding(rule: Rule, verdict: Verdict, facts: Mapping[str, Any], texts: Mapping[str, str]) -> Finding:
    effect = rule.finding
    assert effect is not None
    message: Template | None = effect.message
    text = texts[rule.id] if message is None else message.render({**facts, **rule.limit_values()})
    return Finding(effect.severity, effect.code, text, verdict.columns, effect.actions, rule.id)


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(findings, key=lambda item: (order[item.severity], item.code, item.rule, item.message)))


def _with_edits(
    provenance: Mapping[str, Provenance], base: Space, read: recommendation_file.Read
) -> dict[str, Provenance]:
    """The provenance with a last step for everything that the person changed."""
    result = dict(provenance)
    for name in base.parameters:
        if name in read.edited:
            old, after = provenance[name], state(read.space[name])
            because = (
                f"You limited the search of {name} to {read.space[name].allowed()}."
                if read.space[name].searched
                else _yours(name, after["value"])
            )
            step = Step("", "your own value", "", "", (), "yours", old.final, after, because)
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
            blank = Step(rule, "", "", "", (), "derive", old.final, after, because)
            step = blank if last is None else replace(last, before=old.final, after=after, because=because)
            result[name] = replace(old, steps=(*old.steps, step), final=after, because=because)
    return result
