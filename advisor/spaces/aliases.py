"""Names that changed, old -> new: the one table. Names of facts, parameters' values and findings are a file
format, so the old ones stay readable in rule files, recommendation.yaml, facts.json, models and studies, and
on the command line.

A study keeps the old words for good: Optuna lets nobody change the choices of a parameter that has trials.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

FACTS: Mapping[str, str] = {
    "rows_alone_in_their_class": "rows_in_singleton_classes",
    "time.held_to_none": "time.clamped_error_ratio",
    "duplicates.disagreement": "duplicates.target_disagreement",
    "duplicates.test_disagreement": "duplicates.test_target_disagreement",
    "duplicates.near_disagreement": "duplicates.near_target_disagreement",
    "test.unlike_columns": "test.format_mismatch_columns",
    "test.unlike_cells": "test.format_mismatch_cells",
    "columns.unlike_training": "columns.format_mismatch",
    "groups.apart": "groups.unseen_columns",
    "columns.groups_apart": "columns.unseen_groups",
    "groups.things": "groups.entities",
    "columns.things": "columns.entity",
    "columns.of_things": "columns.of_entities",
    "text.tells_nothing": "text.uninformative",
    "columns.text_tells_nothing": "columns.uninformative_text",
    "shift.new_level_share": "shift.unseen_category_share",
    "columns.new_levels": "columns.unseen_categories",
    "shift.period_columns": "shift.separating_columns",
    "columns.period": "columns.separating",
    "spellings.levels": "spellings.categories",
    "marked.values": "sentinels.cells",
    "marked.marks": "sentinels.codes",
    "columns.marked": "columns.sentinels",
    "junk.values": "unreadable.cells",
    "sequence.places_lead": "sequence.position_gain",
    "sequence.scale_carries": "sequence.scale_informative",
}
"""Facts."""
FINDINGS: Mapping[str, str] = {
    "rows-alone-in-their-class": "singleton-classes",
    "classes-only-in-the-test": "unseen-classes",
    "new-levels": "unseen-categories",
    "other-groups": "unseen-groups",
    "rows-of-one-thing": "several-rows-per-entity",
    "period-columns": "separating-columns",
    "test-columns-in-another-form": "format-mismatch",
    "test-rows-that-train": "test-rows-in-training-data",
    "test-rows-that-nearly-train": "near-test-rows-in-training-data",
    "text-tells-nothing": "uninformative-text",
    "marked-missing": "sentinel-values",
}
"""Codes of findings."""
RULES: Mapping[str, str] = {
    "rows-alone-in-their-class": "singleton-classes",
    "classes-only-in-the-test": "unseen-classes",
    "rows-of-one-thing": "several-rows-per-entity",
    "test-columns-in-another-form": "format-mismatch",
    "test-rows-that-train": "test-rows-in-training-data",
    "test-rows-that-nearly-train": "near-test-rows-in-training-data",
    "text-that-tells-nothing": "uninformative-text",
    "numbers-that-mark-missing-cells": "sentinel-values",
    "many-levels": "high-cardinality",
    "levels-spelt-in-several-ways": "categories-spelt-in-several-ways",
    "new-levels-in-test-rows": "unseen-categories",
    "columns-that-name-the-period": "separating-columns",
    "test-rows-of-other-groups": "unseen-groups",
    "time-held-at-the-latest": "time-clamped",
    "time-not-followed-further": "time-not-extrapolated",
    "a-ramp-that-tells-moments": "coordinate-channel",
    "moments-of-aligned-series-have-weights-of-their-own": "flatten-aligned-series",
    "offer-made-up-rows": "offer-synthetic-rows",
    "decide-against-the-share": "most-likely-class-among-rare-ones",
    "prior-corrected-decision": "most-likely-class-among-rare-ones",
    "light-differs-between-train-and-test": "brightness-shift",
}
"""Ids of rules."""
VALUES: Mapping[str, Mapping[str, str]] = {
    "time_trend": {"held": "clamped", "open": "unclamped"},
    "position": {"ramp": "coordinate"},
    "class_balance": {"balanced_head": "classifier_retraining"},
    "decision": {"balanced": "prior_corrected"},
}
"""Values of parameters."""
_FIRST = {name: {new: old for old, new in words.items()} for name, words in VALUES.items()}
_CODES = ("code", "finding")
_FACT_LISTS, _RULE_LISTS = ("missing",), ("rule", "replaces", "kept")
_USERS = ("data",)
"""Sections of a recommendation whose keys are the user's own names."""

Place = tuple[str | int, ...]


def fact_name(name: str) -> str:
    """The name of today of a fact; other names stay."""
    return FACTS.get(name, name)


def finding_code(code: str) -> str:
    """The code of today of a finding."""
    return FINDINGS.get(code, code)


def rule_id(name: str) -> str:
    """The id of today of a rule; that of a user's rule stays."""
    return RULES.get(name, name)


def value_of(parameter: str, value: Any) -> Any:
    """The word of today for a parameter's value, also inside a list."""
    words = VALUES.get(parameter.removeprefix("yours."))
    if words is None:
        return value
    if isinstance(value, list):
        return [value_of(parameter, one) for one in value]
    return words.get(value, value) if isinstance(value, str) else value


def values_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the words of today."""
    return {name: value_of(name, value) for name, value in configuration.items()}


def words_of_today(text: str) -> str:
    """The text of a space's ``to_dict`` with every quoted word that is an old one of a value or a rule in
    today's word, without meanings, which are prose, and without choices of what is not searched, which grow;
    two that differ in nothing else become equal."""
    words = {old: new for one in (RULES, *VALUES.values()) for old, new in one.items()}
    text = re.sub(r"""'meaning': (?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", "", text)
    text = re.sub(r"'choices': \[[^\]]*\], 'searched': False", "'searched': False", text)
    return re.sub(r"""(["'])([\w-]+)\1""", lambda m: f"{m[1]}{words.get(m[2], m[2])}{m[1]}", text)


def to_study(parameter: str, value: Any) -> Any:
    """The word that a study keeps for a value."""
    return _FIRST.get(parameter, {}).get(value, value) if isinstance(value, str) else value


def facts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Facts by their names of today."""
    return {fact_name(name): value for name, value in values.items()}


def key_at(place: Place, key: str) -> str:
    """A key of a rule file, a recommendation or evidence: facts and rules have names of today."""
    if place[:1] == _USERS:
        return key
    return rule_id(key) if place[:1] == ("evidence",) else fact_name(key)


def text_at(place: Place, text: str) -> str:
    """A text of a rule file or a recommendation: codes, names of facts in lists and values of parameters."""
    if not place or place[:1] == _USERS:
        return text
    if place[-1] in _CODES:
        return finding_code(text)
    if any(key in _FACT_LISTS for key in place):
        return fact_name(text)
    if any(key in _RULE_LISTS for key in place):
        return rule_id(text)
    named = next(
        (key for key in place if isinstance(key, str) and key.removeprefix("yours.") in VALUES), None
    )
    return text if named is None else str(value_of(named, text))


class _Renaming(ast.NodeTransformer):
    """Values of parameters in the comparisons of an expression."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        sides = [node.left, *node.comparators]
        name = next((ast.unparse(side) for side in sides if isinstance(side, ast.Name | ast.Attribute)), "")
        if name.removeprefix("yours.") in VALUES:
            for part in ast.walk(node):
                if isinstance(part, ast.Constant):
                    part.value = value_of(name, part.value)
        self.generic_visit(node)
        return node


def renamed_tree(tree: ast.expr) -> ast.expr:
    """An expression with values of today; its facts are renamed where they are looked up."""
    renamed: ast.expr = _Renaming().visit(tree)
    return renamed
