"""The ledger in sentences: one parameter as a paragraph, all of them as a list,
two recommendations as a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advisor.report.wording import measured_words, number
from advisor.rules.provenance import LedgerEntry, ParameterDifference, SourcedStep
from advisor.rules.resolution import ParameterState

if TYPE_CHECKING:
    from advisor.rules.recommendation import Recommendation

SIDES = {
    "strength": "the stronger rule decided",
    "evidence": "the better evidence decided",
    "undecided": "neither is stronger, so neither was applied",
    "yours": "your own value stands",
}


def paragraph(entry: LedgerEntry) -> str:
    """Why a parameter has its value: the base, every step with its facts and sources,
    what was rejected, what flips it."""
    sentences = [
        f"{entry.parameter} is {number(entry.value)} ({entry.meaning}){_searched(entry.searched)}."
    ]
    sentences.append(f"The base space has {_state(entry.base)}.")
    for rule, steps in _by_rule(entry.steps):
        sentences.append(_step(rule, steps))
    if not entry.steps:
        sentences.append("No rule applies to it here.")
    for other in entry.alternatives:
        sentences.append(f"Not {number(other.value)}: {_ended(other.why_not)}")
    for item in entry.contradictions:
        wants = " against ".join(
            f"{side.rule or 'you'} ({_wanted(side.wants)})" for side in item.sides
        )
        sentences.append(f"The rules disagree here, {wants}: {SIDES[item.decided_by]}.")
    sentences.append(_flips(entry))
    return " ".join(sentences)


def overview(recommendation: Recommendation) -> str:
    """One line for each parameter: its value and why. What would flip it is not
    told, so it is not looked for."""
    values, origins = recommendation.configuration, recommendation.provenance
    width = max(len(name) for name in origins)
    return "\n".join(
        f"{name:{width}}  {number(values[name]):>16}  {own.because}" for name, own in origins.items()
    )


def difference(changes: Sequence[ParameterDifference], findings: Mapping[str, Sequence[str]]) -> str:
    """What differs between two recommendations, parameter by parameter, with the rules on either side."""
    lines = []
    for change in changes:
        lines.append(f"{change.parameter}: {_state(change.one)} -> {_state(change.other)}")
        gone = [rule for rule in change.rules_one if rule not in change.rules_other]
        new = [rule for rule in change.rules_other if rule not in change.rules_one]
        if gone or new:
            lines.append(
                "    " + "; ".join([f"no longer {rule}" for rule in gone] + [f"now {rule}" for rule in new])
            )
    lines += [f"no longer found: {message}" for message in findings["gone"]]
    lines += [f"now found: {message}" for message in findings["new"]]
    return "\n".join(lines) if lines else "Nothing differs: the same configuration, search and findings."


def _by_rule(steps: Sequence[SourcedStep]) -> list[tuple[SourcedStep, list[SourcedStep]]]:
    """Steps of one rule together, in the order of its first."""
    groups: dict[str, list[SourcedStep]] = {}
    for step in steps:
        groups.setdefault(step.rule or step.effect, []).append(step)
    return [(own[0], own) for own in groups.values()]


def _step(rule: SourcedStep, steps: Sequence[SourcedStep]) -> str:
    if not rule.rule:
        return _ended(rule.because)
    because = next((step.because for step in steps if step.because), rule.title)
    facts = (
        ", ".join(f"{name} = {_fact(value)}" for name, value in rule.facts.items()) or "it always holds"
    )
    grade = [
        f"rule {rule.rule}",
        rule.strength,
        rule.evidence,
        *([", ".join(rule.notes)] if rule.notes else []),
    ]
    sources = "; ".join(f"{r.cite}: {r.says}" for r in rule.references)
    if rule.measured:
        sources += f"; measured here: {measured_words(rule.measured)}"
    moved = _moved(steps[0].before, steps[-1].after)
    return f"{_ended(because)} [{'; '.join(grade)}; {facts}]{moved}" + (
        f" Source: {_ended(sources)}" if sources else ""
    )


def _moved(before: ParameterState, after: ParameterState) -> str:
    return (
        f" This moved it from {_state(before)} to {_state(after)}."
        if before != after
        else " This agrees with the value so far."
    )


def _flips(entry: LedgerEntry) -> str:
    if entry.yours:
        return "You set this value, so no fact changes it."
    if not entry.flips:
        return "No change of a single fact would change it."
    told = [
        f"{number(flip.value)} if {flip.fact} were {_fact(flip.at)} instead of {_fact(flip.now)}"
        for flip in entry.flips
    ]
    return f"It would be {'; '.join(told)}."


def _searched(searched: ParameterState | None) -> str:
    return f"; searched: {_range(searched)}" if searched else "; it is not searched"


def _state(state: ParameterState) -> str:
    limits = {key: value for key, value in state.items() if key != "value"}
    return number(state["value"]) + (f" ({_range(limits)})" if limits else "")


def _range(limits: ParameterState) -> str:
    if "choices" in limits:
        return ", ".join(number(choice) for choice in limits["choices"])
    return f"{'0 or ' if limits.get('zero') else ''}{number(limits['low'])} to {number(limits['high'])}"


def _wanted(wants: Any) -> str:
    return " to ".join(number(item) for item in wants) if isinstance(wants, list | tuple) else number(wants)


def _fact(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{len(value)} names"
    return "not measured" if value is None else number(value)


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
