"""Why every value is what it is, what would change it, and how two
recommendations differ. Pure, like the engine.

The ledger is the one source of ``advisor why``, of the report's reasons and of
their JSON. A flip is found by the engine
itself: facts are moved, one at a time, and the recommendation is made again.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from advisor.errors import UserError, did_you_mean
from advisor.rules.book import KNOWN_WORDS, FactLike, Judgement, Reference, Rule, judge_rule, own_facts
from advisor.rules.recommendation import AdvicePlan, Recommendation, own_values
from advisor.rules.resolution import Contradiction, ParameterState, ProvenanceStep, searched_range
from advisor.spaces.aliases import fact_name
from advisor.spaces.expressions import Expression, Scalar
from advisor.spaces.space import Space

FLIPS = 3
"""Flips kept for each parameter, the nearest ones, each of another fact."""
GRID = tuple(4.0**k for k in range(1, 6))
"""Factors by which a number is moved both ways when no number in a rule says
where its condition turns over."""
HALVINGS = 40
"""Bisections between two values of a fact: more than a double between 1 and 1e9 needs to three digits."""
CLOSE = 1e-3
"""Relative width at which a bisection of fractions stops."""
OTHER_WORD = math.log(1000)
"""Distance of another word or truth value, in the unit of numbers (a logarithm of
their ratio): after any near number."""


@dataclass(frozen=True)
class Flip:
    """The nearest change of one fact, all others kept, that gives a parameter another value.

    now, at: the fact's value, and where the recommendation turns over.
    value: what the parameter would be there.
    rules: those that would act on it then.
    """

    fact: str
    now: Any
    at: Any
    value: Any
    rules: tuple[str, ...]


@dataclass(frozen=True)
class ParameterDifference:
    """One parameter in two recommendations. Each side: its state, and the rules that moved it."""

    parameter: str
    one: ParameterState
    other: ParameterState
    rules_one: tuple[str, ...]
    rules_other: tuple[str, ...]


@dataclass(frozen=True)
class RejectedValue:
    """Another value that a rule names, and why it is not advised."""

    value: Scalar
    why_not: str
    rule: str


@dataclass(frozen=True)
class SourcedStep(ProvenanceStep):
    """A step with what its rule rests on.
    measured: its entry of evidence.yaml; None without one, and of a rule that the book no longer has."""

    references: tuple[Reference, ...] = ()
    measured: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class LedgerEntry:
    """The complete because of one parameter.

    searched: what is still searched; None when it is fixed.
    base: its state in the search space before any rule.
    yours: whether the user's own value or range stands.
    flips: the nearest changes of single facts that give it another value, nearest first.
    """

    parameter: str
    topic: str
    meaning: str
    value: Any
    searched: ParameterState | None
    base: ParameterState
    yours: bool
    because: str
    steps: tuple[SourcedStep, ...]
    alternatives: tuple[RejectedValue, ...]
    flips: tuple[Flip, ...]
    contradictions: tuple[Contradiction, ...]


# ------------------------------------------------------------------------------------------------- the ledger


def ledger(
    recommendation: Recommendation,
    facts: Mapping[str, Any],
    rules: Sequence[Rule],
    base: Space,
    parameter: str | None = None,
) -> dict[str, LedgerEntry]:
    """The complete because of every parameter (or of one alone), by its name.

    facts: those that the recommendation was made of.
    rules: the same rule book; what it does not hold any more is left out.
    base: the search space before any rule.
    """
    book = {rule.id: rule for rule in rules}
    turns = flips(recommendation, facts, rules, base, parameter)
    return {name: _entry(name, recommendation, book, turns[name]) for name in turns}


def _entry(
    name: str, recommendation: Recommendation, book: Mapping[str, Rule], turns: tuple[Flip, ...]
) -> LedgerEntry:
    origin, value = recommendation.provenance[name], recommendation.configuration[name]
    acting = dict.fromkeys(step.rule for step in origin.steps if step.rule in book)
    return LedgerEntry(
        parameter=name,
        topic=origin.topic,
        meaning=origin.meaning,
        value=value,
        searched={key: item for key, item in origin.final.items() if key != "value"} or None,
        base=origin.base,
        yours=origin.yours,
        because=origin.because,
        steps=tuple(_sourced(step, book.get(step.rule)) for step in origin.steps),
        alternatives=tuple(
            RejectedValue(other.value, other.why_not, id)
            for id in acting
            for other in book[id].alternatives
            if other.value != value
        ),
        flips=turns,
        contradictions=tuple(item for item in recommendation.contradictions if item.parameter == name),
    )


def _sourced(step: ProvenanceStep, rule: Rule | None) -> SourcedStep:
    own = {field.name: getattr(step, field.name) for field in fields(step)}
    return SourcedStep(
        **own, references=rule.references if rule else (), measured=rule.measured if rule else None
    )


# ----------------------------------------------------------------------------------------- what would flip it


def flips(
    recommendation: Recommendation,
    facts: Mapping[str, Any],
    rules: Sequence[Rule],
    base: Space,
    parameter: str | None = None,
) -> dict[str, tuple[Flip, ...]]:
    """For each parameter (or for one alone) the nearest changes of single facts that give it another
    value; at most FLIPS, nearest first.

    A fact that was not measured is not moved, and what the user fixed does not flip.
    """
    plan = _Replanner(recommendation, facts, rules, base, parameter)
    names = recommendation.provenance if parameter is None else [parameter]
    found: dict[str, list[tuple[float, Flip]]] = {name: [] for name in names}
    for fact in sorted(plan.readers):
        for name, at in plan.edges(fact).items():
            if name not in found:
                continue
            flip = Flip(fact, facts[fact], at, *plan.moved(fact, at)[name])
            found[name].append((_distance(facts[fact], at), flip))
    return {
        name: tuple(flip for _, flip in sorted(items, key=lambda item: (item[0], item[1].fact))[:FLIPS])
        for name, items in found.items()
    }


class _Replanner:
    """The engine with one fact moved; what no rule notices costs nothing."""

    def __init__(
        self,
        recommendation: Recommendation,
        facts: Mapping[str, Any],
        rules: Sequence[Rule],
        base: Space,
        parameter: str | None,
    ) -> None:
        self._base = base
        self._fixed = own_values(recommendation)
        self._facts = {**facts, **own_facts(self._fixed, base)}
        self._verdicts = {rule.id: judge_rule(rule, self._facts, base) for rule in rules}
        self._engine = AdvicePlan(rules, self._verdicts, base, self._fixed, {})
        self._changed: dict[tuple[str, Any], dict[str, tuple[Any, tuple[str, ...]]]] = {}
        self.readers: dict[str, list[Rule]] = {}
        # a derived parameter follows others: any rule may move it
        every = parameter is None or parameter in self._engine.space.derivations
        for rule in rules:
            if not any(every or effect.parameter == parameter for effect in rule.effects):
                continue
            for fact in _facts_of(rule):
                if facts.get(fact) is not None:
                    self.readers.setdefault(fact, []).append(rule)

    def edges(self, fact: str) -> dict[str, Any]:
        """Parameter -> the value of the fact, nearest to the one now, at which
        the parameter gets another value."""
        now = self._facts[fact]
        nearest: dict[str, Any] = {}
        for side in self._candidates(fact):
            inside, seen = now, set[str]()
            for candidate in side:
                for name in self.moved(fact, candidate):
                    if name not in seen:
                        seen.add(name)
                        at = self._edge(fact, inside, candidate, name)
                        if name not in nearest or _distance(now, at) < _distance(now, nearest[name]):
                            nearest[name] = at
                inside = candidate
        return nearest

    def _candidates(self, fact: str) -> list[list[Any]]:
        """Values worth a try, below and above, nearest first: beside the rules'
        own numbers, and some far ones."""
        now = self._facts[fact]
        if isinstance(now, bool):
            return [[not now]]
        if isinstance(now, str):
            return [[word] for word in KNOWN_WORDS.get(fact, ()) if word != now]
        if not isinstance(now, int | float) or not math.isfinite(now):
            return []
        whole = isinstance(now, int)
        marks = {float(number) for rule in self.readers[fact] for number in _numbers_of(rule, fact)}
        marks |= {
            mark + sign * (1 if whole else CLOSE * max(abs(mark), CLOSE))
            for mark in marks
            for sign in (-1, 1)
        }
        marks |= {now * factor for factor in GRID} | {now / factor for factor in GRID}
        values = {round(mark) if whole else mark for mark in marks if mark >= 0}
        return [sorted((v for v in values if v < now), reverse=True), sorted(v for v in values if v > now)]

    def moved(self, fact: str, value: Any) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """The parameters that get another value when the fact is moved there,
        with it and the rules that then act."""
        key = (fact, value)
        if key not in self._changed:
            facts = {**self._facts, fact: value}
            changed = {rule.id: judge_rule(rule, facts, self._base) for rule in self.readers[fact]}
            self._changed[key] = self._engine.moved(
                {i: v for i, v in changed.items() if not _alike(v, self._verdicts[i])}
            )
        return self._changed[key]

    def _edge(self, fact: str, inside: Any, beyond: Any, name: str) -> Any:
        """The value between the two, as near to ``inside`` as can be, at which the parameter has moved."""
        if isinstance(beyond, bool | str):
            return beyond
        whole = isinstance(beyond, int)
        for _ in range(HALVINGS):
            if abs(beyond - inside) <= (1 if whole else CLOSE * max(abs(beyond), abs(inside))):
                break
            middle = (inside + beyond) // 2 if whole else (inside + beyond) / 2
            if name in self.moved(fact, middle):
                beyond = middle
            else:
                inside = middle
        return beyond


def _alike(one: Judgement, other: Judgement) -> bool:
    return one.fires == other.fires and one.claims == other.claims


def _facts_of(rule: Rule) -> list[str]:
    """The facts that decide whether a rule fires and what it then wants."""
    names: dict[str, None] = {}
    for expression in _expressions(rule):
        names.update(dict.fromkeys(expression.names))
    for effect in rule.effects:
        names.update(dict.fromkeys(effect.given))
    return [name for name in names if not name.startswith("limits.")]


def _numbers_of(rule: Rule, fact: str) -> Iterator[float]:
    """Every number that a rule's expressions hold: where a condition on the fact may turn over."""
    yield from rule.limits.values()
    for expression in _expressions(rule):
        if fact in expression.names:
            for node in ast.walk(expression.tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
                    yield float(node.value)


def _expressions(rule: Rule) -> list[Expression]:
    values = [value for effect in rule.effects for value in effect.values if isinstance(value, Expression)]
    return values if rule.when is None else [rule.when, *values]


def _distance(now: Any, at: Any) -> float:
    """How far a fact is moved: a logarithm of the ratio, so that counts, shares and gigabytes compare."""
    if isinstance(now, bool | str):
        return OTHER_WORD
    if now <= 0 or at <= 0:
        return math.log1p(abs(at - now)) + math.log(2)
    return abs(math.log(at / now))


# ----------------------------------------------------------------------------------- what if, and differences


def read_fact(name: str, text: str, schema: Mapping[str, FactLike]) -> Any:
    """The value of a fact as a user writes it (``1000000``, ``0.5``, ``true``,
    ``none``); UserError when it is none."""
    name = fact_name(name)
    if name not in schema:
        raise UserError(f"there is no fact '{name}'{did_you_mean(name, schema)}: see `advisor rules facts`")
    kind, clean = schema[name].type, text.strip()
    if clean.lower() in ("none", "null"):
        return None
    if kind == "bool" and clean.lower() in ("true", "false"):
        return clean.lower() == "true"
    if kind == "text":
        words = KNOWN_WORDS.get(name, ())
        if words and clean not in words:
            raise UserError(
                f"fact {name} is one of {', '.join(words)}, not '{clean}'{did_you_mean(clean, words)}"
            )
        return clean
    if kind == "list":
        return [word.strip() for word in clean.split(",") if word.strip()]
    if kind in ("int", "float"):
        try:
            number = float(clean.replace(",", "").replace("_", ""))
        except ValueError:
            number = math.nan
        if math.isfinite(number) and (kind == "float" or number == int(number)):
            return int(number) if kind == "int" else number
    raise UserError(f"fact {name} is {_article(kind)}, not '{clean}'")


def _article(kind: str) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false"}[kind]


def with_facts(facts: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts with some changed, and what else had to move with them so that they still fit together.

    More rows are more rows per column and, with the same shares, more rows of the rarest class; memory of a
    GPU needs a GPU, and without one there is none.
    """
    new = {**facts, **changes}
    old_rows, rows, used = facts.get("rows"), new.get("rows"), new.get("features.used")
    along: dict[str, Any] = {}
    if rows and used and ("rows" in changes or "features.used" in changes):
        along["rows_per_feature"] = rows / used
    if rows and old_rows and "rows" in changes and facts.get("classes.smallest") is not None:
        along["classes.smallest"] = max(1, round(facts["classes.smallest"] * rows / old_rows))
    if changes.get("gpu.memory_gb") and not facts.get("gpu.count"):
        along["gpu.count"] = 1
    if changes.get("gpu.count") == 0:
        along["gpu.memory_gb"] = None
    along = {name: value for name, value in along.items() if name not in changes and value != facts.get(name)}
    return {**new, **along}, along


def compare_recommendations(one: Recommendation, other: Recommendation) -> list[ParameterDifference]:
    """The parameters whose value or search differs, in the order of the space."""
    changes = []
    for name, before in one.provenance.items():
        after = other.provenance.get(name)
        if after is not None and _state(one, name) != _state(other, name):
            rules = (tuple(dict.fromkeys(s.rule for s in p.steps if s.rule)) for p in (before, after))
            changes.append(ParameterDifference(name, _state(one, name), _state(other, name), *rules))
    return changes


def compare_findings(one: Recommendation, other: Recommendation) -> dict[str, list[str]]:
    """The messages of findings that only one side has: ``{"gone": [...], "new": [...]}``."""
    here, there = ({(f.code, f.columns): f.message for f in side.findings} for side in (one, other))
    return {
        "gone": [message for key, message in here.items() if key not in there],
        "new": [message for key, message in there.items() if key not in here],
    }


def _state(recommendation: Recommendation, name: str) -> dict[str, Any]:
    """The value that stands, and what is searched around it."""
    parameter = recommendation.space[name]
    return {"value": recommendation.configuration[name], **(searched_range(parameter) or {})}
