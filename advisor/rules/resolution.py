"""What several rules together make of one parameter: order-independent, and nothing resolved in silence.

1. Values (set, default, prior, derive): the highest rank decides, where rank is
strength (must, should, may) and then
   evidence (measured, reported, folklore). Different values of one rank decide nothing: the base stays.
2. Ranges and choices (a decided prior's range and a decided set among them) are
intersected, rank by rank. What leaves
   nothing of the ranks above is dropped; what contradicts itself within a rank is dropped together.
3. A value outside what is left is clipped.

Everything dropped is a `Contradiction` with both sides; everything applied is a `Step` with before and after.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from typing import Any, Literal

from advisor.errors import UserError
from advisor.rules.book import Claim, Evidence, Rule, Strength
from advisor.spaces.expressions import Scalar
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Derivation, Space

DecidedBy = Literal["strength", "evidence", "undecided", "yours"]
"""undecided: both sides are equally strong and were left out. yours: the user's own value stands."""

_STRENGTH: Mapping[Strength, int] = {"must": 2, "should": 1, "may": 0}
_EVIDENCE: Mapping[Evidence, int] = {"measured": 2, "reported": 1, "folklore": 0}

ParameterState = Mapping[str, Any]
"""A parameter at one moment: ``{value}``, and while it is searched ``low, high``
(and ``zero``) or ``choices``."""


@dataclass(frozen=True)
class ProvenanceStep:
    """One rule's (or the user's) doing to one parameter.
    facts: those that its rule looked at, with their values.

    effect: set, default, prior, derive, range, choices; clip (the value did not fit a narrowed range);
        inactive (no choice that is left makes use of the parameter); yours.
    """

    rule: str
    title: str
    strength: str
    evidence: str
    notes: tuple[str, ...]
    effect: str
    before: ParameterState
    after: ParameterState
    because: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One side of a contradiction: who wanted what."""

    rule: str
    strength: str
    evidence: str
    effect: str
    wants: Any


@dataclass(frozen=True)
class Contradiction:
    """Rules that want different things of a parameter.
    kept: the rules that had their way, none when undecided."""

    parameter: str
    sides: tuple[Side, ...]
    kept: tuple[str, ...]
    decided_by: DecidedBy


@dataclass(frozen=True)
class Wish:
    """A fired rule's claim on a parameter."""

    rule: Rule
    claim: Claim

    @property
    def rank(self) -> tuple[int, int]:
        """Strength, then evidence; higher decides."""
        return _STRENGTH[self.rule.strength], _EVIDENCE[self.rule.evidence]

    def side(self) -> Side:
        """Who wants what, for a contradiction."""
        claim = self.claim
        wants: Any = claim.value
        if claim.kind == "derive":
            wants = "computed from other parameters"
        elif claim.kind == "range":
            wants = [claim.low, claim.high]
        elif claim.kind == "choices":
            wants = list(claim.choices)
        return Side(self.rule.id, self.rule.strength, self.rule.evidence, claim.kind, wants)


@dataclass(frozen=True)
class Combined:
    """A parameter after all rules: itself, how it is derived (if it is), what was done, what contradicted."""

    parameter: Parameter
    derivation: Derivation | None
    steps: tuple[ProvenanceStep, ...]
    contradictions: tuple[Contradiction, ...]


def state(parameter: Parameter) -> dict[str, Any]:
    """What of a parameter a step changes: its value and, while it is searched, what is searched."""
    result: dict[str, Any] = {"value": parameter.default}
    return result | (searched_range(parameter) or {})


def searched_range(parameter: Parameter) -> dict[str, Any] | None:
    """What is searched of a parameter; None when it is not searched."""
    if not parameter.searched:
        return None
    if parameter.type == "categorical":
        return {"choices": list(parameter.choices)}
    bounds: dict[str, Any] = {"low": parameter.low, "high": parameter.high}
    return bounds | ({"zero": True} if parameter.zero else {})


def combine(base: Parameter, wishes: Iterable[Wish]) -> Combined:
    """Apply the claims of all fired rules to one parameter, whatever their order."""
    wishes = tuple(wishes)
    if not wishes:
        return Combined(base, None, (), ())
    ordered = sorted(wishes, key=lambda wish: (-wish.rank[0], -wish.rank[1], wish.rule.id, wish.claim.kind))
    winners, contradictions = _decide(
        [wish for wish in ordered if wish.claim.kind not in ("range", "choices")], base
    )
    limiting = [
        wish for wish in ordered
        if wish.claim.kind in ("range", "choices")
        or (wish in winners and (wish.claim.kind == "set" or wish.claim.low is not None))
    ]  # fmt: skip
    accepted, dropped = _intersect(limiting, base)
    winners = [wish for wish in winners if wish.claim.kind != "set" or wish in accepted]
    current, steps = _apply_values(base, winners)
    for wish in accepted:
        if wish.claim.kind != "set":
            current, more = _apply_limit(current, wish)
            steps += more
    if base.searched and not current.searched:
        # A parameter outside the search keeps its base range: only its value is said.
        current = base.fixed(current.default)
    derivation = next((wish.claim.derivation for wish in winners if wish.claim.derivation is not None), None)
    return Combined(current, derivation, tuple(steps), (*contradictions, *dropped))


def yours(parameter: Parameter, combined: Combined, because: str) -> Combined:
    """The same parameter with a user's own value or range, which beats every rule."""
    step = ProvenanceStep(
        "", "your own value", "", "", (), "yours", state(combined.parameter), state(parameter), because
    )
    return Combined(parameter, None, (*combined.steps, step), combined.contradictions)


def without_unused(space: Space, combined: Mapping[str, Combined]) -> dict[str, Combined]:
    """Takes out of the search what no choice that is left makes use of (the
    momentum, when only Adam is left)."""
    result = dict(combined)
    for name, one in combined.items():
        current = one.parameter
        if current.searched and current.when is not None and not _reachable(space, combined, name):
            after = space[name].fixed(current.default)
            because = f"Not used and not searched: it only matters when {current.when}."
            step = ProvenanceStep(
                "", "not used", "", "", (), "inactive", state(current), state(after), because
            )
            result[name] = replace(one, parameter=after, steps=(*one.steps, step))
    return result


def _reachable(space: Space, combined: Mapping[str, Combined], name: str) -> bool:
    """Whether some combination of the words that are left makes a parameter's
    condition true; True when it reads numbers."""
    condition = space.condition(name)
    read = [combined[name].parameter for name in condition.names]
    if any(item.type != "categorical" or combined[item.name].derivation is not None for item in read):
        return True
    left = [item.choices if item.searched else (item.default,) for item in read]
    return any(
        condition.evaluate(dict(zip(condition.names, values, strict=True))).value for values in product(*left)
    )


def overruled(base: Parameter, wishes: Iterable[Wish], value: object) -> tuple[Contradiction, ...]:
    """The rules that a user's own value goes against: a set or derived value, a range, choices."""
    found = []
    for wish in sorted(wishes, key=lambda wish: (wish.rule.id, wish.claim.kind)):
        against = (wish.claim.kind == "set" and wish.claim.value != value) or (
            wish.claim.kind in ("range", "choices")
            and _cut(base.with_default(value).fixed(value), wish) is None
        )
        if against:
            mine = Side("", "", "", "yours", value)
            found.append(Contradiction(base.name, (mine, wish.side()), (), "yours"))
    return tuple(found)


def _decide(wishes: Sequence[Wish], base: Parameter) -> tuple[list[Wish], list[Contradiction]]:
    """The wishes for the value that is taken (sorted by rank), and what it was taken against."""
    if not wishes:
        return [], []
    top = [wish for wish in wishes if wish.rank == wishes[0].rank]
    if any(_outcome(wish) != _outcome(top[0]) for wish in top):
        clash = Contradiction(base.name, tuple(wish.side() for wish in wishes), (), "undecided")
        return [], [clash]
    winners = [wish for wish in wishes if _outcome(wish) == _outcome(top[0])]
    losers = [wish for wish in wishes if wish not in winners]
    return winners, [_lost(base, winners, loser) for loser in losers]


def _outcome(wish: Wish) -> tuple[Any, Any]:
    claim = wish.claim
    if claim.derivation is not None:
        return claim.derivation.rows, dict(claim.derivation.given)
    return claim.value, None


def _lost(base: Parameter, winners: Sequence[Wish], loser: Wish) -> Contradiction:
    if not winners:
        whole = Side("", "", "", "base", base.allowed())
        return Contradiction(base.name, (whole, loser.side()), (), "undecided")
    above = [wish for wish in winners if wish.rank > loser.rank] or list(winners)
    stronger = any(wish.rank[0] > loser.rank[0] for wish in above)
    sides = (*(wish.side() for wish in above), loser.side())
    kept = tuple(wish.rule.id for wish in above)
    return Contradiction(base.name, sides, kept, "strength" if stronger else "evidence")


def _intersect(limiting: Sequence[Wish], base: Parameter) -> tuple[list[Wish], list[Contradiction]]:
    """The limits that can hold together, decided rank by rank, and those that cannot."""
    if not limiting:
        return [], []
    # Searched for the time being, so that "not searched" means fixed by a rule of a rank above.
    current = base if base.searched else replace(base, searched=True)
    accepted, dropped = list[Wish](), list[Contradiction]()
    for _, group in groupby(limiting, key=lambda wish: wish.rank):
        tier = list(group)
        fitting = [wish for wish in tier if _cut(current, wish) is not None]
        dropped += [_lost(base, accepted, wish) for wish in tier if wish not in fitting]
        together: Parameter | None = current
        for wish in fitting:
            together = None if together is None else _cut(together, wish)
        if together is None:
            # Whatever subset were kept, its choice would depend on the order: leave all of this rank out.
            dropped.append(Contradiction(base.name, tuple(wish.side() for wish in fitting), (), "undecided"))
        else:
            current = together
            accepted += fitting
    return accepted, dropped


def _cut(parameter: Parameter, wish: Wish) -> Parameter | None:
    """What a limit leaves of a parameter (for one at a fixed value: all of it or
    nothing); None for nothing."""
    claim = wish.claim
    return _limited(parameter, claim.kind, claim.value, claim.low, claim.high, claim.choices)


@functools.lru_cache(4096, typed=True)  # most rules limit a parameter in the same way, whatever the facts are
def _limited(
    parameter: Parameter,
    kind: str,
    value: Scalar | None,
    low: float | None,
    high: float | None,
    choices: tuple[Scalar, ...],
) -> Parameter | None:
    if kind == "set":
        return parameter.fixed(value) if _allows(parameter, value) else None
    # A fixed parameter still carries its range, so the limit is tried on that and
    # the value looked up in the result.
    fixed = not parameter.searched
    try:
        if kind == "choices":
            left = parameter.restricted(choices)
        elif low is None or high is None:
            return parameter
        else:
            left = parameter.narrowed(low, high, keep_zero=kind == "prior")
    except UserError:
        return None
    if fixed:
        return parameter if left.default == parameter.default else None
    return left


def _allows(parameter: Parameter, value: Scalar | None) -> bool:
    if not parameter.searched:
        return parameter.default == value
    return parameter.problem(value) is None


def _apply_values(base: Parameter, winners: Sequence[Wish]) -> tuple[Parameter, list[ProvenanceStep]]:
    current = base
    steps = []
    for wish in winners:
        before = state(current)
        if wish.claim.kind == "set":
            current = current.fixed(wish.claim.value)
        elif wish.claim.derivation is None:
            current = current.with_default(wish.claim.value)
        steps.append(_step(wish, wish.claim.kind, before, state(current)))
    return current, steps


def _apply_limit(current: Parameter, wish: Wish) -> tuple[Parameter, list[ProvenanceStep]]:
    """The parameter after one limit; clipping its value is a step of its own."""
    before = state(current)
    kind = "choices" if wish.claim.kind == "choices" else "range"
    after = _cut(current, wish)
    if after is None:
        return current, []
    narrowed = state(after) | ({"value": current.default} if after.searched else {})
    steps = [_step(wish, kind, before, narrowed)]
    if after.default != current.default and after.searched:
        steps.append(_step(wish, "clip", narrowed, state(after)))
    return after, steps


def _step(wish: Wish, effect: str, before: ParameterState, after: ParameterState) -> ProvenanceStep:
    rule = wish.rule
    return ProvenanceStep(
        rule.id, rule.title, rule.strength, rule.evidence, rule.notes, effect, before, after
    )


def with_reason(
    step: ProvenanceStep, because: str, facts: Mapping[str, Any], value: object
) -> ProvenanceStep:
    """A step with its sentence and facts; a derived parameter's value is only known at the end."""
    after = {"value": value} if step.effect == "derive" else step.after
    told = (step.rule, step.title, step.strength, step.evidence, step.notes, step.effect, step.before, after)
    return ProvenanceStep(*told, because, facts)
