"""The generated pages and the schema are in step with the rule book, and the schema
finds what an editor should show."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from advisor.cli.main import _run
from advisor.facts.schema import FACTS
from advisor.rules import json_schema, shipped
from advisor.rules import pages as rule_docs
from advisor.rules import rule as rule_format
from advisor.rules.book import NOT_RULES, fact_names, own_names
from advisor.spaces.space import union

DOCS = Path(__file__).parents[2] / "docs"
SPACE = union(shipped.base_spaces().values())
SHIPPED = shipped.rule_book(kind=None)
SCHEMA = json_schema.schema(SPACE, {**fact_names(FACTS), **own_names(shipped.base_spaces())})
CHECKER = jsonschema.Draft202012Validator(SCHEMA)
FILES = [file for file in sorted(shipped.folder("rules").glob("*.yaml")) if file.name not in NOT_RULES]


def test_the_pages_are_in_step_with_the_rule_book():
    kept = {file.name: file.read_text() for file in (DOCS / "rules").glob("*.md")}
    assert kept == rule_docs.pages(SHIPPED), "run `advisor rules docs`"


def test_pages_do_not_depend_on_the_order_and_say_all_of_a_rule():
    assert rule_docs.pages(tuple(reversed(SHIPPED))) == rule_docs.pages(SHIPPED)
    pages = rule_docs.pages(SHIPPED)
    for rule in SHIPPED:
        text = pages[f"{rule.id}.md"]
        assert f"({rule.id}.md)" in pages["README.md"]
        assert all(f"({re.sub('^docs/', '../', reference.url)})" in text for reference in rule.references)
        assert all(f"`{effect.parameter}`" in text for effect in rule.effects)
        assert ("## Alternatives" in text) == bool(rule.alternatives)
        assert text.count("\n| ") >= 7 + len(rule.examples)


def test_pages_of_rules_that_are_gone_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "old-rule.md").write_text(rule_docs.MARK + "\n# Old\n")
    (tmp_path / "mine.md").write_text("# Mine\n")
    assert _run(["rules", "docs", "--out", str(tmp_path)]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"mine.md", *rule_docs.pages(SHIPPED)}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert _run(["rules", "docs", "--out", str(tmp_path / "file")]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_the_schema_is_in_step_with_the_format(capfd):
    assert _run(["rules", "schema"]) == 0
    assert capfd.readouterr().out == (DOCS / "rules.schema.json").read_text(), "run `advisor rules schema`"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_shipped_rule_files_fit_the_schema(file):
    assert [error.message for error in CHECKER.iter_errors(yaml.safe_load(file.read_text()))] == []


RULE = {
    "id": "narrow-nets",
    "title": "Narrow",
    "topic": "architecture",
    "applies_to": ["table"],
    "notes": ["N19"],
    "strength": "should",
    "limits": {"rows": 500},
    "when": "rows < limits.rows",
    "then": {"default": {"width": 64}, "range": {"width": [16, "= limits.rows"]}},
    "because": "Few.",
    "why": "Few.",
    "alternatives": [{"value": 8, "why_not": "Too few."}],
    "references": [{"cite": "A", "url": "https://example.org/", "says": "so"}],
    "evidence": "folklore",
    "universal": "It must.",
    "examples": [
        {"given": {"rows": 499}, "config": {"width": 32}, "expect": {"width": 64}},
        {"expect": "does not fire"},
    ],
}


def holds(rule):
    return CHECKER.is_valid({"format": 1, "rules": [rule]})


def test_a_rule_with_everything_fits():
    assert holds(RULE)


@pytest.mark.parametrize(
    "field", [*rule_format.REQUIRED, *(name for name in rule_format.OPTIONAL if name in RULE)]
)
def test_a_misspelt_or_missing_field_does_not_fit(field):
    rest = {name: value for name, value in RULE.items() if name != field}
    assert not holds(rest | {f"{field}s": RULE[field]})
    assert holds(rest) == (field in rule_format.OPTIONAL)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("then",), {"defaults": {"width": 64}}),
        (("then",), {"default": {"widht": 64}}),
        (("then",), {"default": {"width": 4}}),
        (("then",), {"default": {"width": "64"}}),
        (("then",), {"range": {"activation": ["relu", "silu"]}}),
        (("then",), {"choices": {"activation": ["relux"]}}),
        (("then",), {"derive": {"width": [{"else": 64}]}}),
        (("then",), {"prior": {"width": {"value": 64, "confidence": "sure"}}}),
        (("then",), {"finding": {"severity": "bad", "code": "few"}}),
        (("topic",), "architectures"),
        (("notes",), ["N34"]),
        (("limits", "rows"), "5e2"),
        (("when",), False),
        (("references", 0, "url"), "example.org"),
        (("alternatives", 0), {"value": 8, "because": "no"}),
        (("examples", 0, "given"), {"row": 499}),
        (("examples", 0, "given"), {"rows": "many"}),
        (("examples", 0, "expect"), "does not fires"),
    ],
)
def test_what_the_format_refuses_does_not_fit(place, value):
    wrong = copy.deepcopy(RULE)
    inside = wrong
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    assert not holds(wrong)


def test_the_schema_is_plain_json():
    assert json.loads(json_schema.to_json(SPACE, fact_names(FACTS)))["title"] == "A rule file of advisor"


def test_a_reference_to_our_own_documentation_names_a_page_and_a_section_that_are_there():
    for rule in SHIPPED:
        for reference in rule.references:
            if reference.url.startswith("docs/"):
                page, _, anchor = reference.url.partition("#")
                headings = re.findall(r"^#+ (.+)$", (DOCS.parent / page).read_text(), flags=re.MULTILINE)
                anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
                assert anchor in anchors, reference.url
