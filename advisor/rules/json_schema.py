"""JSON Schema of a rule file, for editors: what ``rule_format`` checks, as far as a schema can say it.

Conditions, computed values and the examples' names of facts are checked by `advisor rules check` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from advisor.facts.module_schema import EXPERIMENTS, MODULE_FACTS
from advisor.rules import rule as words
from advisor.rules.book import fact_names
from advisor.spaces.expressions import Name
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Space
from advisor.spaces.topics import RULE_TOPICS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TEXT = {"type": "string", "minLength": 1, "maxLength": words.MAX_TEXT}
COMPUTED = {"type": "string", "pattern": r"^\s*=", "description": "computed: '= min(8, rows)'"}
SCALAR = {"type": ["string", "number", "boolean"]}

JsonSchema = dict[str, Any]


def to_json(space: Space, facts: Mapping[str, Name]) -> str:
    """The text of ``docs/rules.schema.json``: same format, same bytes."""
    return json.dumps(schema(space, facts), indent=1, ensure_ascii=False) + "\n"


def schema(space: Space, facts: Mapping[str, Name]) -> JsonSchema:
    """The schema of a rule file.
    facts: the names that examples of rules about data may give, with their kinds."""
    fields = _fields(space, facts)
    # by the lists that rule_format goes by: a field that it gets and we lack is a KeyError in the first test
    rule = _object({name: fields[name] for name in (*words.REQUIRED, *words.OPTIONAL)}, words.REQUIRED)
    return {
        "$schema": DRAFT,
        "title": "A rule file of advisor",
        **_object(
            {"format": {"const": 1}, "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}}},
            ("format", "rules"),
        ),
        "$defs": {"rule": rule},
    }


def _fields(space: Space, facts: Mapping[str, Name]) -> dict[str, JsonSchema]:
    given = {name: _fact(known) for name, known in {**fact_names(MODULE_FACTS), **facts}.items()}
    outcomes: dict[str, JsonSchema] = {name: {} for name in space.parameters} | {
        "finding": {"type": "string"}
    }
    example = {
        "given": _object(given),
        **dict.fromkeys(
            ("config", "yours"),
            _object({name: _literal(parameter) for name, parameter in space.parameters.items()}),
        ),
        "expect": {"anyOf": [{"enum": list(words.OUTCOMES)}, _object(outcomes, least=1)]},
    }
    return {
        "id": {"type": "string", "pattern": f"^{words.ID}$"},
        "title": {**TEXT, "maxLength": words.MAX_TITLE},
        "topic": {"enum": list(RULE_TOPICS)},
        "applies_to": {"type": "array", "items": {"enum": list(words.SUBJECTS)}, "minItems": 1},
        "notes": {"type": "array", "items": {"enum": list(words.NOTES)}},
        "strength": _enum(words.Strength),
        "limits": {"type": "object", "additionalProperties": {"type": "number"}},
        "when": {"anyOf": [{"const": True}, {"type": "string"}]},
        "then": _object({kind: _effect(kind, space) for kind in words.EFFECTS}, least=1),
        "because": TEXT,
        "why": TEXT,
        "alternatives": _list(dict(zip(words.ALTERNATIVE, (SCALAR, TEXT), strict=True))),
        "known_problems": {"type": "array", "items": TEXT},
        "references": {
            **_list(
                dict(
                    zip(
                        words.REFERENCE,
                        (TEXT, {"type": "string", "pattern": f"^({words.URL})$"}, TEXT),
                        strict=True,
                    )
                )
            ),
            "minItems": 1,
        },
        "evidence": _enum(words.Evidence),
        "examples": {"type": "array", "items": _object(example, ("expect",)), "minItems": 1},
        "replaces": {"type": "array", "items": TEXT},
        "universal": {**TEXT, "maxLength": words.MAX_SENTENCE},
    }


def _effect(kind: str, space: Space) -> JsonSchema:
    if kind == "finding":
        finding = {
            "severity": {
                "enum": list(dict.fromkeys((*get_args(words.Severity), *get_args(words.ModuleSeverity))))
            },
            "code": {"type": "string", "pattern": f"^{words.CODE}$"},
            "message": TEXT,
            "columns": {"anyOf": [{"type": "array", "items": {"type": "string"}}, COMPUTED]},
            "actions": {"type": "array", "items": {"type": "string", "minLength": 1}},
            "category": _enum(words.FindingCategory),
            **dict.fromkeys(("fix", "change"), TEXT),
            "effect": {"enum": list(EXPERIMENTS)},
        }
        finding["where"] = finding["columns"]
        names = dict.fromkeys((*words.FINDING, *words.MODULE_FINDING))
        return _object({name: finding[name] for name in names}, ("severity", "code"))
    effect: words.EffectKind = kind  # type: ignore[assignment]  # one of EFFECTS that is no finding
    # strength is another field: what the strongest rule may do is allowed here
    fit = [
        parameter
        for parameter in space.parameters.values()
        if words.not_fit(effect, parameter, "must") is None
    ]
    return _object({parameter.name: _amounts(effect, parameter) for parameter in fit}, least=1)


def _amounts(kind: words.EffectKind, parameter: Parameter) -> JsonSchema:
    """What an effect of this kind gives a parameter."""
    amount = {"anyOf": [_literal(parameter), COMPUTED]}
    described = {"description": parameter.meaning}
    if kind == "range":
        return {"type": "array", "items": amount, "minItems": 2, "maxItems": 2, **described}
    if kind == "choices":
        return {"type": "array", "items": amount, "minItems": 1, **described}
    if kind == "prior":
        prior = {"value": amount, "confidence": _enum(words.Confidence)}
        return {**_object(prior, tuple(prior)), **described}
    if kind == "derive":
        row = {"if": {"type": "string"}, "value": amount}
        rows = {"anyOf": [_object(row, tuple(row)), _object({"else": amount}, ("else",))]}
        return {"type": "array", "items": rows, "minItems": 1, **described}
    return {**amount, **described}


def _literal(parameter: Parameter) -> JsonSchema:
    if parameter.type == "categorical":
        words = {"enum": list(parameter.choices)}
        named = {"type": "string", "pattern": f"^{parameter.prefix}."}
        return {"anyOf": [words, named]} if parameter.prefix else words
    number = {
        "type": "integer" if parameter.type == "int" else "number",
        "minimum": parameter.low,
        "maximum": parameter.high,
    }
    return {"anyOf": [{"const": 0}, number]} if parameter.zero else number


def _fact(known: Name) -> JsonSchema:
    kind = {"number": "number", "text": "string", "boolean": "boolean", "list": "array"}[known.kind]
    return {"type": [kind, "null"]}


def _enum(literal: Any) -> JsonSchema:
    return {"enum": list(get_args(literal))}


def _list(fields: Mapping[str, Any]) -> JsonSchema:
    return {"type": "array", "items": _object(fields, tuple(fields))}


def _object(fields: Mapping[str, Any], required: tuple[str, ...] = (), least: int = 0) -> JsonSchema:
    """A mapping with these fields and no others: a misspelt one is the mistake
    that an editor can show best."""
    result: JsonSchema = {"type": "object", "properties": dict(fields), "additionalProperties": False}
    return (
        result
        | ({"required": list(required)} if required else {})
        | ({"minProperties": least} if least else {})
    )
