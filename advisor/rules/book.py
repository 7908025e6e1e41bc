"""Rule files -> checked rules; what a rule says about given facts; and running the rules' own examples.

Reading one rule, field by field, is in ``rule_format``; here are folders of them, and judging.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, get_args

from advisor.errors import UserError, did_you_mean
from advisor.facts.module_schema import MODULE_WORDS
from advisor.kinds import TASK_NAMES, Kind
from advisor.rules.reader import is_of_module, read_rule
from advisor.rules.rule import (
    NOT_DECIDING,
    NOT_FIRING,
    NOT_JUDGED,
    Confidence,
    Effect,
    EffectKind,
    Evidence,
    Example,
    FindingEffect,
    Layers,
    Reference,
    Rule,
    Severity,
    Strength,
    Subject,
)
from advisor.spaces import aliases, expressions, strict_yaml
from advisor.spaces.expressions import Expression, Name, Scalar
from advisor.spaces.parameter import Parameter, number_hint, shown_value
from advisor.spaces.space import Derivation, Space

__all__ = [
    "NOT_DECIDING",
    "NOT_FIRING",
    "NOT_JUDGED",
    "PRIOR_FACTOR",
    "PRIOR_SHARE",
    "Checked",
    "Claim",
    "Confidence",
    "Effect",
    "Evidence",
    "Example",
    "ExampleResult",
    "FindingEffect",
    "Judgement",
    "Reference",
    "Rule",
    "Severity",
    "Strength",
    "check_rules",
    "fact_names",
    "judge_rule",
    "load_profile",
    "load_rules",
    "own_facts",
    "own_names",
    "run_examples",
]  # fmt: skip

FORMAT = 1
MAX_RULES = 1000
NOT_RULES = ("evidence.yaml", "profiles.yaml")
"""Files of a rule folder that hold no rules."""

NO_PARAMETERS = Space({})
"""What rules about a module may set: nothing; they only report."""
PRIOR_FACTOR: Mapping[Confidence, float] = {"low": 30.0, "medium": 10.0, "high": 3.0}
"""How far a prior leaves the search open, each way, for a parameter on a log scale (docs/evidence.md,
range around a recommended value)."""
PRIOR_SHARE: Mapping[Confidence, float] = {"low": 0.5, "medium": 0.25, "high": 0.1}
"""The same for a linear parameter: this share of its base range, each way; at least 1 for whole numbers."""

KNOWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "task": TASK_NAMES,
    "test.origin": ("file", "held-out"),
    **MODULE_WORDS,
}
"""Facts that are one of few words, so that a misspelt word in a condition is
found when the rule is loaded."""


class FactLike(Protocol):
    """What the rules need of a fact's entry in the schema; facts.FactSpec has it."""

    @property
    def type(self) -> str:
        """int, float, bool, text or list."""


def fact_names(schema: Mapping[str, FactLike]) -> dict[str, Name]:
    """The names that conditions may use, from the schema of facts."""
    kinds: dict[str, expressions.ValueKind] = {
        "int": "number",
        "float": "number",
        "bool": "boolean",
        "text": "text",
        "list": "list",
    }
    return {name: Name(kinds[spec.type], KNOWN_WORDS.get(name, ())) for name, spec in schema.items()}


Spaces = Space | Mapping[Kind, Space]
"""One search space for every kind of data, or one for each."""


def _by_kind(spaces: Spaces) -> Mapping[Kind, Space]:
    return dict.fromkeys(get_args(Kind), spaces) if isinstance(spaces, Space) else spaces


def own_names(spaces: Spaces) -> dict[str, Name]:
    """``yours.PARAMETER`` for each parameter that is one of some words: the
    user's own choice, "" without one.

    So a rule can fit the rest to what a user fixed (the learning rate to the optimizer).
    """
    choices: dict[str, dict[Scalar, None]] = {}
    for space in _by_kind(spaces).values():
        for name, parameter in space.parameters.items():
            if _is_of_words(parameter):
                choices.setdefault(name, {"": None}).update(dict.fromkeys(parameter.choices))
    return {f"yours.{name}": Name("text", tuple(words)) for name, words in choices.items()}


def own_facts(fixed: Mapping[str, Any], space: Space) -> dict[str, str]:
    """The values of ``own_names`` where the user fixed some parameters."""
    words = (name for name, parameter in space.parameters.items() if _is_of_words(parameter))
    return {f"yours.{name}": fixed.get(name, "") for name in words}


def _is_of_words(parameter: Parameter) -> bool:
    return parameter.type == "categorical" and all(isinstance(choice, str) for choice in parameter.choices)


@dataclass(frozen=True)
class Checked:
    """Rules sorted by id, and every complaint: ``FILE:LINE: FIELD: MESSAGE``."""

    rules: tuple[Rule, ...]
    complaints: tuple[str, ...]


def load_rules(
    sources: Sequence[Path | str],
    schema: Mapping[str, FactLike],
    spaces: Spaces,
    *,
    without: Sequence[str] = (),
    kind: Subject | None = "table",
    of_modules: Mapping[str, FactLike] = MappingProxyType({}),
) -> tuple[Rule, ...]:
    """The rules of some folders or files, sorted by id; UserError with the first complaint when there is any.

    A rule that another one `replaces` is left out, and so are the ids in `without`
    (UserError for an unknown one) and rules for other kinds of data (kind None takes all).
    The order of sources and files does not matter. of_modules: the facts that rules about a module look at.
    """
    checked = check_rules(sources, schema, spaces, of_modules)
    if checked.complaints:
        more = len(checked.complaints) - 1
        raise UserError(
            checked.complaints[0] + (f" (and {more} more: see 'advisor rules check')" if more else "")
        )
    replaced = {old: rule.id for rule in checked.rules for old in rule.replaces}
    known = [rule.id for rule in checked.rules]
    without = [aliases.rule_id(name) for name in without]
    for name in without:
        if name not in known:
            by = f"; it was replaced by '{replaced[name]}'" if name in replaced else did_you_mean(name, known)
            raise UserError(f"--without: there is no rule '{name}'{by}")
    gone = {*replaced, *without}
    return tuple(
        rule for rule in checked.rules if rule.id not in gone and (kind is None or kind in rule.applies_to)
    )


def check_rules(
    sources: Sequence[Path | str],
    schema: Mapping[str, FactLike],
    spaces: Spaces,
    of_modules: Mapping[str, FactLike] = MappingProxyType({}),
) -> Checked:
    """Read and check all rules of some folders or files; complaints are
    collected, nothing is raised for a rule.

    A rule may only name parameters that every kind of data has which it applies to.

    UserError for a source that is not there, holds no rule file, or holds more
    than anyone can have written by hand.
    """
    by_kind = _by_kind(spaces)
    names = {**fact_names(schema), **own_names(spaces)}
    shared = sorted(set(names) & {name for space in by_kind.values() for name in space.parameters})
    if shared:
        raise UserError(f"'{shared[0]}' is both a fact and a parameter: rules could not tell them apart")
    rules: list[Rule] = []
    complaints: list[str] = []
    for path in _files(sources):
        try:
            found, wrong = _read_file(path, names, by_kind, fact_names(of_modules), MAX_RULES - len(rules))
        except UserError as error:
            complaints.append(str(error))
            continue
        rules += found
        complaints += wrong
    complaints += _clashes(rules)
    for kind, space in by_kind.items():
        complaints += _circles([rule for rule in rules if kind in rule.applies_to], space)
    complaints = list(dict.fromkeys(complaints))
    return Checked(tuple(sorted(rules, key=lambda rule: rule.id)), tuple(complaints))


def _files(sources: Sequence[Path | str]) -> list[Path]:
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if path.suffix in (".yaml", ".yml"))
            if not any(path.name not in NOT_RULES for path in inside):
                raise UserError(f"{source}: no rule file (*.yaml) in this folder")
            found += [path for path in inside if path.name not in NOT_RULES]
        elif source.exists():
            found.append(source)
        else:
            raise UserError(f"{source}: no such file or folder of rules")
    return list(dict.fromkeys(path.resolve() if path.is_symlink() else path for path in found))


def _read_file(
    path: Path,
    names: Mapping[str, Name],
    spaces: Mapping[Kind, Space],
    of_modules: Mapping[str, Name],
    room: int,
) -> tuple[list[Rule], list[str]]:
    document = strict_yaml.read_yaml(path)
    data = document.data
    if not isinstance(data, Mapping) or not isinstance(data.get("rules"), list):
        raise document.error((), "a rule file is a mapping with 'format: 1' and a list 'rules'")
    for key in data:
        if key not in ("format", "rules"):
            raise document.error((key,), f"unknown key{did_you_mean(key, ('format', 'rules'))}")
    _check_format(document)
    if len(data["rules"]) > room:
        raise document.error(("rules",), f"more than {MAX_RULES} rules")
    evidence = _evidence(path.parent / "evidence.yaml")
    rules: list[Rule] = []
    complaints: list[str] = []
    named = replace(document, skip=2)
    for index in range(len(data["rules"])):
        for space in _spaces_of(data["rules"][index], spaces):
            known = of_modules if space is NO_PARAMETERS else names
            rule, wrong = read_rule(named, ("rules", index), known, space)
            if wrong:
                break
        complaints += wrong
        if rule is None:
            continue
        if rule.evidence == "measured" and rule.id not in evidence:
            what = f"'measured' needs an entry for '{rule.id}' in {path.parent / 'evidence.yaml'}"
            complaints.append(named.complaint(("rules", index, "evidence"), what))
        rules.append(replace(rule, measured=evidence.get(rule.id)))
    return rules, complaints


def _spaces_of(rule: Any, spaces: Mapping[Kind, Space]) -> list[Space]:
    """The different spaces that a rule must fit; some space where it does not
    say, which is complained about there."""
    if is_of_module(rule):
        return [NO_PARAMETERS]
    named = rule.get("applies_to") if isinstance(rule, Mapping) else None
    kinds = [kind for kind in named if kind in get_args(Kind)] if isinstance(named, list) else []
    found = {id(spaces[kind]): spaces[kind] for kind in kinds if kind in spaces}
    return list(found.values()) or [next(iter(spaces.values()))]


def _check_format(document: strict_yaml.YamlDocument) -> None:
    number = document.data.get("format")
    if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT:
        raise document.error(("format",), f"{number} was made for a newer advisor; this one reads {FORMAT}")
    if number != FORMAT or isinstance(number, bool):
        raise document.error(("format",), f"must be {FORMAT}, not {shown_value(number)}")


def _evidence(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Measured effects by rule id: ``{effect, interval, sets, command}``; empty without the file."""
    if not path.exists():
        return {}
    document = strict_yaml.read_yaml(path)
    if not isinstance(document.data, Mapping) or not isinstance(document.data.get("evidence"), Mapping):
        raise document.error((), "must be a mapping with 'format: 1' and 'evidence'")
    _check_format(document)
    entries: Mapping[str, Any] = document.data["evidence"]
    for name, entry in entries.items():
        if not isinstance(entry, Mapping) or not {"effect", "interval", "sets", "command"} <= set(entry):
            raise document.error(("evidence", name), "must be {effect, interval, sets, command}")
    return entries


def _clashes(rules: Sequence[Rule]) -> list[str]:
    complaints = []
    first: dict[str, Rule] = {}
    for rule in rules:
        other = first.setdefault(rule.id, rule)
        if other is not rule:
            complaints.append(
                f"{rule.file}:{rule.line}: id: '{rule.id}' is taken by {other.file}:{other.line}"
            )
    for rule in rules:
        for old in rule.replaces:
            if old == rule.id or (old in first and rule.id in first[old].replaces):
                complaints.append(
                    f"{rule.file}:{rule.line}: replaces: '{old}' and '{rule.id}' replace each other"
                )
    return complaints


def _circles(rules: Sequence[Rule], space: Space) -> list[str]:
    """Complaints about parameters that derive rules compute from each other."""
    needs: dict[str, set[str]] = {name: set() for name in space.parameters}
    sources: dict[str, Rule] = {}
    for rule in rules:
        for effect in rule.effects:
            if effect.kind == "derive":
                sources[effect.parameter] = rule
                needs[effect.parameter] |= set(effect.reads)
    while ready := [name for name, wanted in needs.items() if not wanted & set(needs)]:
        for name in ready:
            del needs[name]
    return [
        f"{sources[name].file}:{sources[name].line}: then.derive.{name}: depends on itself through "
        f"{', '.join(others)}"
        for name in sorted(needs)
        if name in sources and (others := sorted(needs[name] & set(needs)))
    ][:1]


@dataclass(frozen=True)
class Claim:
    """What a fired rule wants of one parameter, in numbers.

    value: for set, default and prior.
    low, high: for range, and for a prior of a number.
    choices: for choices.
    """

    kind: EffectKind
    parameter: str
    value: Scalar | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[Scalar, ...] = ()
    derivation: Derivation | None = None
    confidence: Confidence | None = None


@dataclass(frozen=True)
class Judgement:
    """What a rule says about some facts.

    fires: True, False, or None when it cannot be judged.
    used: the facts that it looked at, with their values;
    missing: those that were not measured.
    columns: of its finding.
    """

    fires: bool | None
    used: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    columns: tuple[str, ...] = ()


def judge_rule(rule: Rule, facts: Mapping[str, Any], space: Space) -> Judgement:
    """Evaluate a rule's condition and, when it fires, its effects. Never raises, whatever the facts are.

    An effect whose value cannot be computed (a fact was not measured) makes the whole rule
    unjudged: half a piece of advice is none.
    """
    # in layers, not merged: the facts of a module are measured when they are asked for
    # without a user's choice its name is "", never unknown
    values = Layers(rule.limit_values, facts, dict.fromkeys(rule.own_names, ""))
    used: dict[str, None] = {}
    missing: dict[str, None] = {}

    def compute(amount: Expression | Scalar) -> Any:
        if not isinstance(amount, Expression):
            return amount
        result = amount.evaluate(values)
        used.update(dict.fromkeys(result.used))
        if result.value is None:
            missing.update(dict.fromkeys(result.missing))
        return result.value

    def verdict(fires: bool | None, claims: Sequence[Claim] = (), columns: Sequence[str] = ()) -> Judgement:
        # a choice that the user did not make is no reason
        seen = {
            n: _plain(facts[n])
            for n in used
            if n in facts and not (n.startswith("yours.") and facts[n] == "")
        }
        return Judgement(fires, seen, tuple(missing), tuple(claims), tuple(columns))

    holds = True if rule.when is None else compute(rule.when)
    if holds is not True:
        return verdict(holds)
    claims = []
    complete = True
    for effect in rule.effects:
        used.update(dict.fromkeys(effect.given))
        unknown = [name for name in effect.given if values.get(name) is None]
        missing.update(dict.fromkeys(unknown))
        amounts = [compute(amount) for amount in effect.values]
        parameter = space[effect.parameter]
        word = parameter.type == "categorical"
        if unknown or any(amount is None or (word and parameter.problem(amount)) for amount in amounts):
            complete = False
        else:
            claims.append(_claim(effect, amounts, values, parameter, rule.id))
    columns = () if rule.finding is None else rule.finding.columns
    names = compute(columns) if isinstance(columns, Expression) else columns
    # A finding without the names of its columns is still a finding.
    return verdict(True, claims, [str(name) for name in names or ()]) if complete else verdict(None)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _claim(
    effect: Effect, amounts: list[Any], values: Mapping[str, Any], parameter: Parameter, rule: str
) -> Claim:
    kind, name = effect.kind, effect.parameter
    if kind == "derive":
        given = {fact: values[fact] for fact in effect.given}
        return Claim(kind, name, derivation=Derivation(effect.rows, given, rule))
    if kind == "choices":
        return Claim(kind, name, choices=tuple(amounts))
    if kind == "range":
        return Claim(kind, name, low=min(amounts), high=max(amounts))
    value = parameter.nearest(amounts[0])
    if kind == "prior" and effect.confidence is not None:
        low, high = _around(parameter, value, effect.confidence)
        return Claim(kind, name, value, low, high, confidence=effect.confidence)
    return Claim(kind, name, value)


def _around(parameter: Parameter, value: Scalar, confidence: Confidence) -> tuple[float | None, float | None]:
    """The range around a prior's value; (None, None) where there is nothing to
    narrow: words, or a value of 0."""
    if parameter.type == "categorical" or isinstance(value, str) or (parameter.zero and value == 0):
        return None, None
    if parameter.log:
        return value / PRIOR_FACTOR[confidence], value * PRIOR_FACTOR[confidence]
    assert parameter.low is not None and parameter.high is not None
    share = PRIOR_SHARE[confidence] * (parameter.high - parameter.low)
    reach = max(1, round(share)) if parameter.type == "int" else share
    return value - reach, value + reach


def load_profile(path: Path | str, schema: Mapping[str, FactLike], name: str = "typical") -> dict[str, Any]:
    """The facts of a typical table, from ``profiles.yaml``: what an example does
    not give is taken from here."""
    document = strict_yaml.read_yaml(Path(path))
    data = document.data
    if not isinstance(data, Mapping) or not isinstance(data.get("profiles"), Mapping):
        raise document.error((), "must be a mapping with 'format: 1' and 'profiles'")
    _check_format(document)
    profile = data["profiles"].get(name)
    if not isinstance(profile, Mapping):
        raise document.error(("profiles",), f"no profile '{name}'{did_you_mean(name, data['profiles'])}")
    names = fact_names(schema)
    for fact, value in profile.items():
        if fact not in names:
            raise document.error(("profiles", name, fact), f"unknown fact{did_you_mean(fact, names)}")
        if isinstance(value, str) and names[fact].kind != "text":
            raise document.error(
                ("profiles", name, fact), f"{shown_value(value)} is not a number{number_hint(value)}"
            )
    return dict(profile)


@dataclass(frozen=True)
class ExampleResult:
    """One example of a rule, run. number counts from 1; got has the keys that were expected."""

    rule: str
    number: int
    given: Mapping[str, Any]
    expected: str | Mapping[str, Any]
    got: str | Mapping[str, Any]
    passed: bool
    file: str
    line: int


def run_examples(
    rules: Sequence[Rule], space: Space, profile: Mapping[str, Any]
) -> tuple[ExampleResult, ...]:
    """Run the examples of some rules, each rule by itself on the base space;
    `profile` has the facts not given.

    A rule for several kinds of data is run once with the space and the profile of each.
    """
    results = []
    for rule in rules:
        for number, example in enumerate(rule.examples, 1):
            got = _got(rule, example, space, profile)
            passed = _same(example.expect, got)
            results.append(
                ExampleResult(
                    rule.id, number, example.given, example.expect, got, passed, rule.file, example.line
                )
            )
    return tuple(results)


def _got(rule: Rule, example: Example, space: Space, profile: Mapping[str, Any]) -> str | Mapping[str, Any]:
    verdict = judge_rule(rule, {**profile, **own_facts(example.yours, space), **example.given}, space)
    if verdict.fires is not True:
        return NOT_JUDGED if verdict.fires is None else NOT_FIRING
    left = [claim for claim in verdict.claims if claim.parameter not in example.yours]
    if not left and rule.finding is None:
        return NOT_DECIDING
    verdict = replace(verdict, claims=tuple(left))
    wanted: Mapping[str, Any]
    if isinstance(example.expect, str):
        wanted = {claim.parameter: None for claim in verdict.claims} | (
            {"finding": None} if rule.finding else {}
        )
    else:
        wanted = example.expect
    return {name: _outcome(rule, verdict, name, wanted[name], example, space) for name in wanted}


def _outcome(rule: Rule, verdict: Judgement, name: str, wanted: Any, example: Example, space: Space) -> Any:
    """What a rule gives for one expected name: a list for a range or choices, one value for the rest."""
    if name == "finding":
        return None if rule.finding is None else rule.finding.code
    claims = [claim for claim in verdict.claims if claim.parameter == name]
    limiting = [claim for claim in claims if claim.kind in ("range", "choices")]
    deciding = [claim for claim in claims if claim.kind not in ("range", "choices")]
    if limiting and (isinstance(wanted, list) or not deciding):
        claim = limiting[0]
        return list(claim.choices) if claim.kind == "choices" else [claim.low, claim.high]
    if deciding and isinstance(wanted, list) and deciding[0].kind == "prior":
        return [deciding[0].low, deciding[0].high]
    if not deciding:
        return None
    if deciding[0].derivation is not None:
        return space.derived(name, deciding[0].derivation).complete(example.config)[name]
    return deciding[0].value


def _same(expected: Any, got: Any) -> bool:
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return expected.keys() == got.keys() and all(_same(expected[key], got[key]) for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(_same, expected, got))
    if (
        isinstance(expected, bool)
        or isinstance(got, bool)
        or isinstance(expected, str)
        or isinstance(got, str)
    ):
        return type(expected) is type(got) and bool(expected == got)
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        return math.isclose(expected, got, rel_tol=1e-6, abs_tol=1e-12)
    return bool(expected == got)
