"""Reading a rule from a file: every field checked, every complaint one line with file and line.

``docs/rules.md`` describes the format for people who write rules. Here a rule's text becomes a ``Rule`` whose
names, types and values have all been checked, so that nothing later can fail on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from advisor.errors import UserError, did_you_mean
from advisor.facts.module_schema import EXPERIMENTS
from advisor.rules.rule import (
    ALTERNATIVE,
    CODE,
    EFFECTS,
    EXAMPLE,
    FINDING,
    ID,
    MAX_SENTENCE,
    MAX_TEXT,
    MAX_TITLE,
    MODULE,
    MODULE_FINDING,
    NOT_DECIDING,
    NOT_FIRING,
    NOTES,
    OPTIONAL,
    OUTCOMES,
    REFERENCE,
    REQUIRED,
    SUBJECTS,
    URL,
    Alternative,
    Confidence,
    Effect,
    EffectKind,
    Evidence,
    Example,
    FindingCategory,
    FindingEffect,
    ModuleSeverity,
    Reference,
    Rule,
    Severity,
    Strength,
    not_fit,
)
from advisor.spaces.expressions import (
    Expression,
    Name,
    Scalar,
    Template,
    computed_text,
    is_computed,
    parse_condition,
    parse_template,
    parse_value,
)
from advisor.spaces.parameter import Parameter, number_hint, shown_value
from advisor.spaces.space import Space, read_rows
from advisor.spaces.strict_yaml import Key, YamlDocument, YamlPath
from advisor.spaces.topics import RULE_TOPICS

_WORD_HINT = " (YAML reads no, yes, on and off as false and true: put the word in quotes)"


def read_rule(
    document: YamlDocument, place: YamlPath, facts: Mapping[str, Name], space: Space
) -> tuple[Rule | None, list[str]]:
    """One rule and the complaints about it; no rule when there are complaints."""
    return _Reader(document, place, facts, space).rule()


class _Reader:
    """Reads one rule; collects complaints instead of stopping at the first."""

    def __init__(
        self, document: YamlDocument, place: YamlPath, facts: Mapping[str, Name], space: Space
    ) -> None:
        self.document = document
        self.place = place
        self.data = _at(document.data, place)
        self.facts = facts
        self.space = space
        self.names: dict[str, Name] = dict(facts)
        self.of_module = is_of_module(self.data)
        self.complaints: list[str] = []
        self.effects_known = False

    def complain(self, message: str, *place: Key) -> None:
        self.complaints.append(self.document.complaint((*self.place, *place), message))

    def rule(self) -> tuple[Rule | None, list[str]]:
        if not isinstance(self.data, Mapping):
            self.complain("a rule is a mapping with id, title, when, then, ...")
            return None, self.complaints
        for key in self.data:
            if key not in REQUIRED + OPTIONAL:
                self.complain(f"unknown field{did_you_mean(key, REQUIRED + OPTIONAL)}", key)
        for key in (key for key in REQUIRED if key not in self.data):
            # A misspelt field has already been complained about: one mistake, one line.
            if not any(did_you_mean(other, [key]) for other in self.data if other not in REQUIRED + OPTIONAL):
                self.complain(f"{key}: missing")
        rule = self.build()
        return (None if self.complaints else rule), self.complaints

    def build(self) -> Rule | None:
        limits = self.limits()
        self.names |= {f"limits.{name}": Name("number") for name in limits}
        strength = self.word("strength", get_args(Strength))
        before = len(self.complaints)
        effects, finding = self.then(strength)
        # An effect that could not be read must not make its examples look wrong
        # as well: one mistake, one line.
        self.effects_known = len(self.complaints) == before and "then" in self.data
        fields = {
            "id": self.identifier(),
            "title": self.text("title", MAX_TITLE),
            "topic": self.word("topic", RULE_TOPICS),
            "applies_to": self.subjects(),
            "notes": self.words("notes", NOTES),
            "strength": strength,
            "limits": limits,
            "when": self.when(),
            "effects": effects,
            "finding": finding,
            "because": self.because(),
            "why": self.text("why", MAX_TEXT),
            "alternatives": self.alternatives(),
            "known_problems": self.words("known_problems"),
            "references": self.references(),
            "evidence": self.word("evidence", get_args(Evidence)),
            "examples": self.examples(effects, finding),
            "replaces": self.words("replaces"),
            "file": self.document.file,
            "line": self.document.line(self.place) or 1,
            "universal": self.text("universal", MAX_SENTENCE),
        }
        return None if self.complaints else Rule(**fields)

    # Plain fields

    def identifier(self) -> str:
        value = self.data.get("id")
        if "id" in self.data and not (isinstance(value, str) and re.fullmatch(ID, value)):
            self.complain(
                f"{shown_value(value)} is not like 'init-follows-activation' (words joined by -)", "id"
            )
        return str(value)

    def text(self, key: str, longest: int) -> str:
        return self.text_at(longest, key) if key in self.data else ""

    def text_at(self, longest: int, *place: Key) -> str:
        value = _at(self.data, place)
        if not isinstance(value, str) or not value.strip():
            hint = _WORD_HINT if isinstance(value, bool) else ""
            self.complain(f"{shown_value(value)} is not text{hint}", *place)
            return ""
        if len(value) > longest:
            self.complain(f"longer than {longest} characters ({len(value)})", *place)
        return " ".join(value.split())

    def word(self, key: str, words: tuple[str, ...]) -> Any:
        value = self.data.get(key)
        if key in self.data and value not in words:
            near = did_you_mean(value, words) if isinstance(value, str) else ""
            self.complain(f"{shown_value(value)} is not one of {', '.join(words)}{near}", key)
            return None
        return value

    def words(self, key: str, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
        if key not in self.data:
            return ()
        value = self.data[key]
        if not isinstance(value, list):
            self.complain(f"must be a list, not {shown_value(value)}", key)
            return ()
        for index, item in enumerate(value):
            if allowed and item not in allowed:
                near = did_you_mean(item, allowed) if isinstance(item, str) else ""
                self.complain(f"{shown_value(item)} is not one of {_few(allowed)}{near}", key, index)
            else:
                self.text_at(MAX_TEXT, key, index)
        if not value and key in REQUIRED:
            self.complain("must not be empty", key)
        return tuple(str(item) for item in value)

    def subjects(self) -> tuple[str, ...]:
        found = self.words("applies_to", SUBJECTS)
        if MODULE in found and len(found) > 1:
            self.complain(
                "a rule about a module is about nothing else: it has facts of its own", "applies_to"
            )
        return found

    def limits(self) -> dict[str, float]:
        data = self.data.get("limits", {})
        if not isinstance(data, Mapping):
            self.complain("must map names to numbers", "limits")
            return {}
        for name, value in data.items():
            if not name.isidentifier():
                self.complain("a limit's name has letters, digits and _ only", "limits", name)
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                self.complain(f"{shown_value(value)} is not a number{number_hint(value)}", "limits", name)
        return dict(data)

    def when(self) -> Expression | None:
        value = self.data.get("when")
        if "when" not in self.data or value is True:
            return None
        if not isinstance(value, str):
            self.complain(f"{shown_value(value)} is neither true nor a condition in text", "when")
            return None
        condition: Expression | None = self.parsed(lambda: parse_condition(value, self.names), "when")
        return condition

    def because(self) -> Template:
        text = self.text("because", MAX_TEXT)
        names = {**self.names, **self.space.names()}
        return self.parsed(lambda: parse_template(text, names), "because") or Template("", ())

    def parsed(self, parse: Any, *place: Key) -> Any:
        try:
            return parse()
        except UserError as error:
            self.complain(str(error), *place)
            return None

    # Lists of small mappings

    def entries(self, key: str, wanted: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The mappings of a list that have exactly the wanted keys; complains about the others."""
        data = self.data.get(key, [])
        if not isinstance(data, list):
            self.complain(f"must be a list of {{{', '.join(wanted)}}}", key)
            return
        for index, item in enumerate(data):
            if not isinstance(item, Mapping):
                self.complain(f"must be {{{', '.join(wanted)}}}", key, index)
                continue
            strange = [name for name in item if name not in wanted]
            lacking = [name for name in wanted if name not in item]
            if strange:
                self.complain(f"unknown field{did_you_mean(strange[0], wanted)}", key, index, strange[0])
            elif lacking:
                self.complain(f"{lacking[0]}: missing", key, index)
            else:
                yield index, item

    def alternatives(self) -> tuple[Alternative, ...]:
        found = []
        for index, item in self.entries("alternatives", ALTERNATIVE):
            if not isinstance(item["value"], (str, int, float)):
                self.complain(
                    f"{shown_value(item['value'])} is not a word or number", "alternatives", index, "value"
                )
            found.append(Alternative(item["value"], self.text_at(MAX_TEXT, "alternatives", index, "why_not")))
        return tuple(found)

    def references(self) -> tuple[Reference, ...]:
        found = []
        for index, _ in self.entries("references", REFERENCE):
            cite, url, says = (self.text_at(MAX_TEXT, "references", index, key) for key in REFERENCE)
            if url and not re.fullmatch(URL, url):
                self.complain(
                    f"{shown_value(url)} is not a web address, nor docs/PAGE.md", "references", index, "url"
                )
            found.append(Reference(cite, url, says))
        if self.data.get("references") == []:
            self.complain("must not be empty: a rule says where it comes from", "references")
        return tuple(found)

    # Effects

    def then(self, strength: Strength | None) -> tuple[tuple[Effect, ...], FindingEffect | None]:
        data = self.data.get("then", {})
        if not isinstance(data, Mapping) or ("then" in self.data and not data):
            self.complain(f"must be a mapping with some of {', '.join(EFFECTS)}", "then")
            return (), None
        if self.of_module:
            if set(data) - {"finding"}:
                self.complain("a rule about a module has a finding and no other effect", "then")
            return (), self.module_finding() if set(data) == {"finding"} else None
        effects: list[Effect] = []
        for kind, targets in data.items():
            if kind not in EFFECTS:
                self.complain(f"unknown effect{did_you_mean(kind, EFFECTS)}", "then", kind)
            elif kind != "finding" and not (isinstance(targets, Mapping) and targets):
                self.complain("must map parameters to values", "then", kind)
            elif kind != "finding":
                effects += [effect for name in targets if (effect := self.effect(kind, name, strength))]
        deciding: dict[str, str] = {}
        for effect in effects:
            first = deciding.setdefault(effect.parameter, effect.kind)
            if first != effect.kind and {first, effect.kind} - {"default", "range", "choices"}:
                self.complain(f"is already given by '{first}'", "then", effect.kind, effect.parameter)
        return tuple(effects), self.finding() if "finding" in data else None

    def effect(self, kind: EffectKind, name: str, strength: Strength | None) -> Effect | None:
        place: tuple[Key, ...] = ("then", kind, name)
        if name not in self.space.parameters:
            self.complain(f"unknown parameter{did_you_mean(name, self.space.parameters)}", *place)
            return None
        parameter = self.space[name]
        refusal = not_fit(kind, parameter, strength)
        if refusal:
            self.complain(refusal, *place)
            return None
        value = _at(self.data, place)
        if kind == "derive":
            return self.derive(name, parameter)
        if kind == "prior":
            return self.prior(name, parameter)
        if kind in ("range", "choices"):
            if not isinstance(value, list) or (len(value) != 2 if kind == "range" else not value):
                self.complain(
                    "must be [low, high]" if kind == "range" else "must be a list of choices", *place
                )
                return None
            values = [self.amount(item, parameter, *place, index) for index, item in enumerate(value)]
            if (
                kind == "range"
                and all(isinstance(item, (int, float)) for item in value)
                and value[0] > value[1]
            ):
                self.complain(f"low {shown_value(value[0])} is above high {shown_value(value[1])}", *place)
        else:
            values = [self.amount(value, parameter, *place)]
        return Effect(kind, name, tuple(item for item in values if item is not None))

    def amount(self, value: object, parameter: Parameter, *place: Key) -> Expression | Scalar | None:
        """A literal that the parameter allows, or a checked expression of its kind."""
        if isinstance(value, str) and is_computed(value):
            expression: Expression | None = self.parsed(
                lambda: parse_value(computed_text(value), self.names), *place
            )
            if expression is not None and expression.kind != parameter.kind.kind:
                self.complain(
                    f"gives a {expression.kind}; {parameter.name} is a {parameter.kind.kind}", *place
                )
            return expression
        problem = parameter.problem(value)
        if problem is not None:
            words = isinstance(value, bool) and parameter.kind.kind == "text"
            self.complain(problem + (_WORD_HINT if words else ""), *place)
            return None
        return parameter.check(value)

    def prior(self, name: str, parameter: Parameter) -> Effect | None:
        value = self.data["then"]["prior"][name]
        place = ("then", "prior", name)
        if not isinstance(value, Mapping) or set(value) != {"value", "confidence"}:
            self.complain("must be {value: ..., confidence: low, medium or high}", *place)
            return None
        confidence = value["confidence"]
        if confidence not in get_args(Confidence):
            self.complain(f"{shown_value(confidence)} is not low, medium or high", *place, "confidence")
            return None
        amount = self.amount(value["value"], parameter, *place, "value")
        return None if amount is None else Effect("prior", name, (amount,), confidence)

    def derive(self, name: str, parameter: Parameter) -> Effect | None:
        place = ("then", "derive", name)
        try:
            rows = read_rows(self.document, (*self.place, *place), self.data["then"]["derive"][name])
        except UserError as error:
            self.complaints.append(str(error))
            return None
        names = {**self.names, **self.space.names()}
        used: set[str] = set()
        for index, row in enumerate(rows):
            parts: list[Expression | None] = []
            if row.condition is not None:
                text = row.condition
                parts.append(self.parsed(lambda text=text: parse_condition(text, names), *place, index, "if"))
            if isinstance(row.value, str) and is_computed(row.value):
                text = computed_text(row.value)
                parts.append(self.parsed(lambda text=text: parse_value(text, names), *place, index))
            else:
                self.amount(row.value, parameter, *place, index, "else" if row.condition is None else "value")
            used |= {word for part in parts if part is not None for word in part.names}
        if name in used:
            self.complain("is computed from itself", *place)
        reads = used & set(self.space.parameters)
        return Effect(
            "derive", name, rows=rows, given=tuple(sorted(used - reads)), reads=tuple(sorted(reads))
        )

    def finding(self) -> FindingEffect | None:
        data, place = self.data["then"]["finding"], ("then", "finding")
        if not isinstance(data, Mapping):
            self.complain("must be {severity, code, message, columns, actions}", *place)
            return None
        for key in data:
            if key not in FINDING:
                self.complain(f"unknown field{did_you_mean(key, FINDING)}", *place, key)
        if data.get("severity") not in get_args(Severity):
            self.complain(
                f"{shown_value(data.get('severity'))} is not error, warning or info", *place, "severity"
            )
        code = data.get("code")
        if not isinstance(code, str) or not re.fullmatch(CODE, code):
            self.complain(f"{shown_value(code)} is not like 'covariate-shift'", *place, "code")
        message = None
        if "message" in data:
            text = self.text_at(MAX_TEXT, *place, "message")
            message = self.parsed(lambda: parse_template(text, self.names), *place, "message")
        actions = data.get("actions", [])
        if not isinstance(actions, list) or not all(isinstance(action, str) and action for action in actions):
            self.complain("must be a list of texts", *place, "actions")
            actions = []
        columns = self.columns(data.get("columns", []))
        return FindingEffect(data.get("severity", "info"), str(code), message, columns, tuple(actions))

    def module_finding(self) -> FindingEffect | None:
        """A finding about a module: how sure it is, what it is about, and what to change."""
        data, place = self.data["then"]["finding"], ("then", "finding")
        if not isinstance(data, Mapping):
            self.complain(f"must be {{{', '.join(MODULE_FINDING)}}}", *place)
            return None
        for key in data:
            if key not in MODULE_FINDING:
                self.complain(f"unknown field{did_you_mean(key, MODULE_FINDING)}", *place, key)
        for key in ("severity", "code", "category", "fix"):
            if key not in data:
                self.complain(f"{key}: missing", *place)
        allowed = {
            "severity": get_args(ModuleSeverity),
            "category": get_args(FindingCategory),
            "effect": tuple(EXPERIMENTS),
        }
        for key, words in allowed.items():
            if key in data and data[key] not in words:
                near = did_you_mean(data[key], words) if isinstance(data[key], str) else ""
                self.complain(f"{shown_value(data[key])} is not one of {', '.join(words)}{near}", *place, key)
        code = data.get("code")
        if "code" in data and (not isinstance(code, str) or not re.fullmatch(CODE, code)):
            self.complain(f"{shown_value(code)} is not like 'unscaled-inputs'", *place, "code")
        texts: dict[str, Template | None] = {"fix": None, "change": None}
        for key in [key for key in texts if key in data]:
            text = self.text_at(MAX_TEXT, *place, key)
            texts[key] = self.parsed(lambda text=text: parse_template(text, self.names), *place, key)
        return FindingEffect(
            data.get("severity", "note"),
            str(code),
            None,
            self.columns(data.get("where", []), "where"),
            (),
            str(data.get("category", "")),
            texts["fix"],
            texts["change"],
            str(data.get("effect", "")),
        )

    def columns(self, data: object, key: str = "columns") -> Expression | tuple[str, ...]:
        place = ("then", "finding", key)
        if isinstance(data, str) and is_computed(data):
            expression: Expression | None = self.parsed(
                lambda: parse_value(computed_text(data), self.names), *place
            )
            if expression is not None and expression.kind != "list":
                self.complain(f"gives a {expression.kind}, not a list of columns", *place)
            return expression or ()
        if isinstance(data, list) and all(isinstance(item, str) for item in data):
            return tuple(data)
        self.complain(
            f"{shown_value(data)} is neither a list of names nor an expression like '= columns.constant'",
            *place,
        )
        return ()

    # Examples

    def examples(self, effects: tuple[Effect, ...], finding: FindingEffect | None) -> tuple[Example, ...]:
        data = self.data.get("examples", [])
        if not isinstance(data, list):
            self.complain("must be a list of {given, config, yours, expect}", "examples")
            return ()
        before = len(self.complaints)
        found = [self.example(index, item, effects, finding) for index, item in enumerate(data)]
        examples = tuple(example for example in found if example is not None)
        if len(self.complaints) > before or "examples" not in self.data:
            return examples
        if all(isinstance(example.expect, str) for example in examples):
            self.complain("none of them fires: give one with the values to expect", "examples")
        rows = max((len(effect.rows) for effect in effects), default=0)
        if self.data.get("when") is True:
            given = sum(example.expect != NOT_DECIDING for example in examples)
            if given < rows:
                self.complain(f"give one per row of derive ({rows}), not {given}", "examples")
        elif all(example.expect != NOT_FIRING for example in examples):
            self.complain(
                f"no near miss: give one that just fails the condition, 'expect: {NOT_FIRING}'", "examples"
            )
        return examples

    def example(
        self, index: int, data: object, effects: tuple[Effect, ...], finding: FindingEffect | None
    ) -> Example | None:
        place = ("examples", index)
        if not isinstance(data, Mapping) or "expect" not in data:
            self.complain("must be {given, config, yours, expect}", *place)
            return None
        for key in data:
            if key not in EXAMPLE:
                self.complain(f"unknown field{did_you_mean(key, EXAMPLE)}", *place, key)
        given, config, yours, expect = (*(data.get(key, {}) for key in EXAMPLE[:3]), data["expect"])
        for key, value in (("given", given), ("config", config), ("yours", yours)):
            if not isinstance(value, Mapping):
                self.complain("must be a mapping", *place, key)
                return None
        for name, value in given.items():
            self.given_fact(name, value, *place, "given", name)
        for key, values in (("config", config), ("yours", yours)):
            for name, value in values.items():
                known = name in self.space.parameters
                problem = (
                    self.space[name].problem(value)
                    if known
                    else (f"unknown parameter{did_you_mean(name, self.space.parameters)}")
                )
                if problem:
                    self.complain(problem, *place, key, name)
        self.expectation(
            expect, {effect.parameter for effect in effects} | ({"finding"} if finding else set()), *place
        )
        return Example(given, config, yours, expect, self.document.line((*self.place, *place)) or 1)

    def given_fact(self, name: str, value: object, *place: Key) -> None:
        if name not in self.facts:
            self.complain(f"unknown fact{did_you_mean(name, self.facts)}", *place)
            return
        kind = self.facts[name].kind
        if value is not None and not _is_kind(value, kind):
            self.complain(
                f"{shown_value(value)} is not a {kind}{number_hint(value) if kind == 'number' else ''}",
                *place,
            )

    def expectation(self, expect: object, touched: set[str], *place: Key) -> None:
        if isinstance(expect, str):
            if expect not in OUTCOMES:
                some = "' nor '".join(OUTCOMES)
                self.complain(
                    f"{shown_value(expect)} is neither '{some}' nor values{did_you_mean(expect, OUTCOMES)}",
                    *place,
                    "expect",
                )
        elif not isinstance(expect, Mapping) or not expect:
            self.complain(
                f"must be values, {', '.join(map(repr, OUTCOMES[:-1]))} or {OUTCOMES[-1]!r}", *place, "expect"
            )
        elif self.effects_known:
            for name in expect:
                if name not in touched:
                    self.complain(
                        f"the rule does not touch it{did_you_mean(name, touched)}", *place, "expect", name
                    )


def is_of_module(rule: object) -> bool:
    """Whether a rule as it is written is about a user's own network, and so looks at other facts."""
    applies = rule.get("applies_to") if isinstance(rule, Mapping) else None
    return isinstance(applies, list) and MODULE in applies


def _is_kind(value: object, kind: str) -> bool:
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"text": str, "boolean": bool, "list": list}[kind])


def _few(words: tuple[str, ...]) -> str:
    return ", ".join(words) if len(words) <= 12 else f"{words[0]} to {words[-1]}"


def _at(data: Any, place: YamlPath) -> Any:
    for key in place:
        data = data[key]
    return data
