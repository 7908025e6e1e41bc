"""Rule files: what is refused with which line, folders and packs, and the shipped rules' own examples."""

import os
import re
from pathlib import Path

import pytest
import yaml

from advisor.errors import UserError
from advisor.facts.module_schema import MODULE_FACTS
from advisor.facts.schema import FACTS
from advisor.rules import shipped
from advisor.rules.book import PRIOR_FACTOR, check_rules, judge_rule, load_profile, load_rules, run_examples
from advisor.rules.rule import MODULE

SPACE = shipped.base_space()
SHIPPED = shipped.rule_book()
TYPICAL = shipped.typical_facts()
RESULTS = run_examples(SHIPPED, SPACE, TYPICAL)

GOOD = """\
format: 1
rules:
- id: narrow-nets-for-few-rows
  title: At most 64 units below 500 rows
  topic: architecture
  applies_to: [table]
  notes: [N19]
  strength: should
  limits: {rows: 500}
  when: rows < limits.rows and task == "binary"
  then:
    default: {width: 32}
    range: {width: [16, 64]}
    finding:
      severity: info
      code: few
      columns: '= columns.constant'
      actions: [look]
  because: 'Only {rows} rows (fewer than {limits.rows:.0f}).'
  why: Few rows cannot fill many units.
  alternatives:
    - {value: 128, why_not: Too many.}
  known_problems: [none known]
  references:
    - {cite: Somebody, url: 'https://example.org/x', says: it is so}
  evidence: folklore
  examples:
    - {given: {rows: 499}, expect: {width: 32}}
    - {given: {rows: 500}, expect: does not fire}
"""


def checked(text, tmp_path, monkeypatch, name="p.yaml"):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    return check_rules([name], FACTS, SPACE)


# The shipped rules


@pytest.mark.parametrize("result", RESULTS, ids=[f"{result.rule}-{result.number}" for result in RESULTS])
def test_every_example_of_every_shipped_rule_holds(result):
    assert result.got == result.expected or result.passed, f"{result.file}:{result.line}"


def test_every_example_of_the_rules_about_training_code_holds():
    book, results = shipped.run_all_examples([shipped.folder("rules")])
    about = {rule.id: rule for rule in book if rule.applies_to == (MODULE,)}
    mine = [result for result in results if result.rule in about]
    assert len(about) > 90 and not [result for result in mine if not result.passed]
    for rule in about.values():
        assert rule.topic == "training_code" and rule.finding.fix is not None, rule.id
        expected = {str(example.expect) for example in rule.examples}
        assert {"does not fire", "cannot be judged"} < expected, rule.id
        assert len(rule.why) > 60 and rule.because.text[-1] == "." and rule.title[-1] != ".", rule.id
        numbers = {float(n) for n in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", rule.when.text)}
        assert not numbers, f"{rule.id}: thresholds are limits"


MODULE_RULE = """\
format: 1
rules:
- id: adam-for-us
  title: Our networks are trained with Adam
  topic: training_code
  applies_to: [module]
  strength: may
  when: optimizer.name != "Adam"
  then:
    finding: {severity: warning, code: not-adam, category: optimizer, fix: take Adam, where: '= frozen.names'}
  because: 'The optimizer is {optimizer.name}.'
  why: It is what we know.
  references:
    - {cite: Somebody, url: 'https://example.org/x', says: it is so}
  evidence: folklore
  examples:
    - {given: {optimizer.name: SGD}, expect: {finding: not-adam}}
    - {given: {optimizer.name: Adam}, expect: does not fire}
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("optimizer.name !=", "optimiser.name !=", "8: when: unknown name 'optimiser.name' (did you mean 'opt"),
        ("when: opt", "when: rows > 3 and opt", "8: when: unknown name 'rows'"),
        ("[module]", "[module, table]", "6: applies_to: a rule about a module is about nothing else"),
        ("    finding:", "    default: {width: 64}\n    finding:", "9: then: a rule about a module has a finding"),
        ("severity: warning", "severity: info", "10: then.finding.severity: 'info' is not one of error, warning"),
        ("category: optimizer", "category: optimiser", "10: then.finding.category: 'optimiser' is not one of"),
        ("fix: take Adam, ", "", "10: then.finding: fix: missing"),
        ("fix: take", "fix: 'take {rate}', effect: no_decay, change:", "10: then.finding.fix: unknown name 'rate'"),
        ("where: '= frozen.names'", "effect: decay", "10: then.finding.effect: 'decay' is not one of"),
        ("where: ", "columns: ", "10: then.finding.columns: unknown field"),
        ("'= frozen.names'", "'= frozen.count'", "10: then.finding.where: gives a number, not a list"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rule_about_training_code_is_one_line(old, new, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(MODULE_RULE)
    assert shipped.check_rule_folders(["p.yaml"]).complaints == ()
    Path("p.yaml").write_text(MODULE_RULE.replace(old, new, 1))
    (complaint,) = shipped.check_rule_folders(["p.yaml"]).complaints
    assert complaint.startswith(f"p.yaml:{line}")


def test_rules_about_training_code_advise_nothing_about_data(tmp_path):
    (tmp_path / "p.yaml").write_text(MODULE_RULE)
    assert "adam-for-us" in {rule.id for rule in shipped.rule_book([tmp_path], kind=MODULE)}
    assert not {rule.id for rule in shipped.rule_book([tmp_path])} & {"adam-for-us", "frozen-layers"}


def test_the_typical_profile_has_every_fact():
    assert list(shipped.typical_facts(MODULE)) == list(MODULE_FACTS)
    assert list(TYPICAL) == list(FACTS)
    for name, spec in FACTS.items():
        assert TYPICAL[name] is not None or spec.nullable, name


def test_the_notes_for_tables_are_all_encoded():
    cited = {note for rule in SHIPPED for note in rule.notes}
    assert cited >= {"N1", "N2", "N3", "N4", "N19", "N22", *(f"N{number}" for number in range(26, 33))}


def test_a_shipped_rule_with_a_nullable_fact_says_when_it_cannot_be_judged():
    for rule in SHIPPED:
        if rule.when is None or not any(FACTS[name].nullable for name in rule.when.names if name in FACTS):
            continue
        assert any(example.expect == "cannot be judged" for example in rule.examples), rule.id


def test_rules_have_reasons_worth_reading():
    for rule in SHIPPED:
        assert len(rule.why) > 60 and rule.references and (rule.evidence != "measured" or rule.measured), (
            rule.id
        )
        assert rule.because.text[-1] in ".:}" and rule.title[-1] != ".", rule.id


# One mistake, one line


MISTAKES = [
    ("limits: {rows: 500}", "limits: {rows: 5e2}", "9: limits.rows: '5e2' is not a number (write 5.0e+2)"),
    ("limits: {rows: 500}", "limits: {rows: yes}", "9: limits.rows: true is not a number"),
    ("limits: {rows: 500}", "limits: {r-s: 500, rows: 1}", "9: limits.r-s: a limit's name"),
    (
        "when: rows",
        f"universal: {'x' * 201}\n  when: rows",
        "10: universal: longer than 200 characters (201)",
    ),
    (
        "when: rows",
        "univresal: It must.\n  when: rows",
        "10: univresal: unknown field (did you mean 'universal'?)",
    ),
    ("when: rows", "when: rosw", "10: when: unknown name 'rosw' (did you mean 'rows'?)"),
    (
        "limits.rows and",
        "limits.row and",
        "10: when: unknown name 'limits.row' (did you mean 'limits.rows'?)",
    ),
    (
        '"binary"',
        '"binray"',
        "10: when: 'task' is never 'binray'; it is one of binary, multiclass, regression, segmentation, detection (did",
    ),
    ("rows < limits", "task < limits", "10: when: 'task' is a text and 'limits.rows' is a number"),
    ("when: rows < limits.rows", "when: rows = limits.rows", "10: when: 'rows = limits.rows and"),
    ("when: rows", "wehn: rows", "10: wehn: unknown field (did you mean 'when'?)"),
    (
        "strength: should",
        "strength: shoud",
        "8: strength: 'shoud' is not one of must, should, may (did you mean",
    ),
    ("strength: should", "strength: may", "13: then.range.width: strength 'may' only sets where the search starts"),
    ("topic: architecture", "topic: architectur", "5: topic: 'architectur' is not one of"),
    ("topic: architecture", "colour: red\n  topic: architecture", "5: colour: unknown field"),
    ("notes: [N19]", "notes: [N34]", "7: notes[0]: 'N34' is not one of N1 to N33"),
    ("notes: [N19]", "notes: N19", "7: notes: must be a list"),
    (
        "applies_to: [table]",
        "applies_to: [tables]",
        "6: applies_to[0]: 'tables' is not one of table, image, sequence",
    ),
    (
        "{width: 32}\n    range",
        "{widht: 32}\n    range",
        "12: then.default.widht: unknown parameter (did you",
    ),
    (
        "default: {width: 32}",
        "defualt: {width: 32}",
        "12: then.defualt: unknown effect (did you mean 'default'?)",
    ),
    (
        "default: {width: 32}",
        "default: {width: 2e1}",
        "12: then.default.width: '2e1' is not a whole number (write",
    ),
    ("default: {width: 32}", "default: {width: 3}", "12: then.default.width: 3 is outside 16 to 1024"),
    (
        "default: {width: 32}",
        "default: {width: 32, norm: no}",
        "12: then.default.norm: false is not one of none",
    ),
    (
        "default: {width: 32}",
        "default: {width: 32, norm: bacth}",
        "12: then.default.norm: 'bacth' is not one of none",
    ),
    ("default: {width: 32}", "default: {width: '= rosw'}", "12: then.default.width: unknown name 'rosw'"),
    (
        "default: {width: 32}",
        "default: {width: '= task'}",
        "12: then.default.width: gives a text; width is a number",
    ),
    (
        "default: {width: 32}",
        "set: {width: 32}",
        "12: then.set.width: set takes a parameter out of the search",
    ),
    (
        "default: {width: 32}",
        "derive: {width: [{else: 32}]}",
        "12: then.derive.width: is searched, so it cannot be",
    ),
    ("default: {width: 32}", "prior: {width: 32}", "12: then.prior.width: must be {value"),
    (
        "default: {width: 32}",
        "prior: {width: {value: 32, confidence: sure}}",
        "12: then.prior.width.confidence:",
    ),
    ("range: {width: [16, 64]}", "range: {width: [64, 16]}", "13: then.range.width: low 64 is above high 16"),
    (
        "range: {width: [16, 64]}",
        "range: {width: [8, 64]}",
        "13: then.range.width[0]: 8 is outside 16 to 1024",
    ),
    (
        "range: {width: [16, 64]}",
        "range: {norm: [16, 64]}",
        "13: then.range.norm: norm has choices, not a range",
    ),
    ("range: {width: [16, 64]}", "choices: {width: [16, 64]}", "13: then.choices.width: width has a range"),
    ("range: {width: [16, 64]}", "range: {folds: [2, 4]}", "13: then.range.folds: is not searched; use set"),
    ("severity: info", "severity: warn", "15: then.finding.severity: 'warn' is not error, warning or info"),
    ("code: few", "code: Few Rows", "16: then.finding.code: 'Few Rows' is not like"),
    ("'= columns.constant'", "'= rows'", "17: then.finding.columns: gives a number, not a list"),
    ("actions: [look]", "action: [look]", "18: then.finding.action: unknown field (did you mean 'actions'?)"),
    ("{rows} rows", "{rosw} rows", "19: because: unknown name 'rosw' in braces (did you mean 'rows'?)"),
    ("{limits.rows:.0f}", "{limits.rows:>9999}", "19: because: format '>9999'"),
    ("why: Few", "why: He: few", "20: not YAML: mapping values are not allowed"),
    ("why: Few rows cannot fill many units.", "why: true", "20: why: true is not text"),
    (
        "why_not: Too many.",
        "whynot: Too many.",
        "22: alternatives[0].whynot: unknown field (did you mean 'why_not'?)",
    ),
    (", says: it is so", "", "25: references[0]: says: missing"),
    (
        "https://example.org/x",
        "example.org",
        "25: references[0].url: 'example.org' is not a web address, nor docs/PAGE.md",
    ),
    ("evidence: folklore", "evidence: measured", "26: evidence: 'measured' needs an entry for"),
    (
        "evidence: folklore",
        "evidence: proven",
        "26: evidence: 'proven' is not one of measured, reported, folklore",
    ),
    ("{rows: 499}", "{rosw: 499}", "28: examples[0].given.rosw: unknown fact (did you mean 'rows'?)"),
    ("{rows: 499}", "{rows: 4e2}", "28: examples[0].given.rows: '4e2' is not a number (write 4.0e+2)"),
    (
        "expect: {width: 32}",
        "expect: {depth: 32}",
        "28: examples[0].expect.depth: the rule does not touch it",
    ),
    ("{rows: 499}", "{rows: 499}, config: {widht: 3}", "28: examples[0].config.widht: unknown parameter"),
    ("expect: does not fire", "expect: doesnt fire", "29: examples[1].expect: 'doesnt fire' is neither"),
    ("    - {given: {rows: 500}, expect: does not fire}\n", "", "27: examples: no near miss"),
    ("    - {given: {rows: 499}, expect: {width: 32}}\n", "", "27: examples: none of them fires"),
    ("  title: At", "  id: again-and-again\n  title: At", "4: rules[0].id: this key is already given above"),
    ("id: narrow-nets-for-few-rows", "id: Narrow", "3: id: 'Narrow' is not like"),
    ("format: 1", "format: 2", "1: format: 2 was made for a newer advisor"),
    ("format: 1", "formt: 1\nformat: 1", "1: formt: unknown key (did you mean 'format'?)"),
]


@pytest.mark.parametrize(("old", "new", "line"), MISTAKES, ids=[line[:40] for _, _, line in MISTAKES])
def test_a_mistake_in_a_rule_is_exactly_one_line_with_its_place(old, new, line, tmp_path, monkeypatch):
    assert GOOD.count(old) >= 1
    complaints = checked(GOOD.replace(old, new, 1), tmp_path, monkeypatch).complaints
    assert len(complaints) == 1, complaints
    assert complaints[0].startswith(f"p.yaml:{line}") and "\n" not in complaints[0]


def test_the_good_rule_is_good(tmp_path, monkeypatch):
    result = checked(GOOD, tmp_path, monkeypatch)
    assert result.complaints == ()
    assert [item.passed for item in run_examples(result.rules, SPACE, TYPICAL)] == [True, True]


@pytest.mark.parametrize(
    ("old", "new", "got"),
    [
        ("expect: {width: 32}", "expect: {width: 33}", {"width": 32}),
        ("expect: {width: 32}", "expect: {width: [16, 65]}", {"width": [16, 64]}),
        ("expect: {width: 32}", "expect: {width: [16]}", {"width": [16, 64]}),
        ("expect: {width: 32}", "expect: {finding: many, width: 32}", {"finding": "few", "width": 32}),
        ("{rows: 499}", "{rows: 501}", "does not fire"),
        ("{rows: 499}", "{rows: null}", "cannot be judged"),
        ("given: {rows: 500}", "given: {rows: 499}", {"width": 32, "finding": "few"}),
    ],
)
def test_an_example_that_does_not_hold_is_shown_with_what_came_instead(old, new, got, tmp_path, monkeypatch):
    result = checked(GOOD.replace(old, new, 1), tmp_path, monkeypatch)
    assert result.complaints == ()
    (failed,) = [item for item in run_examples(result.rules, SPACE, TYPICAL) if not item.passed]
    shown = failed.got if isinstance(failed.got, str) else {name: failed.got[name] for name in got}
    assert shown == got and failed.file == "p.yaml" and failed.line in (28, 29)


def test_several_mistakes_are_several_lines_and_the_first_is_raised(tmp_path, monkeypatch):
    text = GOOD.replace("topic: architecture", "topic: x").replace("evidence: folklore", "evidence: y")
    assert len(checked(text, tmp_path, monkeypatch).complaints) == 2
    with pytest.raises(UserError, match=r"p\.yaml:5: topic: .* \(and 1 more"):
        load_rules(["p.yaml"], FACTS, SPACE)


def derive_rule(name, parameter, rows, rule_id="one-from-another"):
    """A file with the good rule, made to derive a parameter."""
    rule = yaml.safe_load(GOOD)["rules"][0]
    rule |= {"id": rule_id, "when": True, "then": {"derive": {parameter: rows}}, "because": "So."}
    rule["examples"] = [{"expect": {parameter: 1}, "config": {}} for _ in rows]
    Path(name).write_text(yaml.safe_dump({"format": 1, "rules": [rule]}))


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([{"else": "zzz"}], "then.derive.weight_init[0].else: 'zzz' is not one of"),
        (
            [{"if": "activaton == 'relu'", "value": "he_normal"}, {"else": "he_normal"}],
            "did you mean 'activation'?",
        ),
        ([{"if": "rows > 3", "value": "he_normal"}], "the last row must be {else: VALUE}"),
        ([{"else": "he_normal"}, {"else": "he_normal"}], "a row is {if: CONDITION, value: VALUE}"),
        (
            [{"if": "weight_init == 'he_normal'", "value": "he_normal"}, {"else": "he_normal"}],
            "computed from itself",
        ),
    ],
)
def test_decision_lists_are_checked(rows, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    derive_rule("d.yaml", "weight_init", rows)
    complaints = check_rules(["d.yaml"], FACTS, SPACE).complaints
    assert len(complaints) == 1 and part in complaints[0]


def test_parameters_derived_in_a_circle_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    derive_rule("a.yaml", "folds", [{"if": "patience > 3", "value": 4}, {"else": 5}], "folds-from-patience")
    derive_rule("b.yaml", "patience", [{"if": "folds > 3", "value": 4}, {"else": 5}], "patience-from-folds")
    complaints = check_rules(["a.yaml", "b.yaml"], FACTS, SPACE).complaints
    assert len(complaints) == 1 and "depends on itself through patience" in complaints[0]


# Folders and packs


def pack(folder, name="mine.yaml", **changes):
    text = GOOD
    for old, new in changes.items():
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_a_folder_of_ones_own_adds_to_the_shipped_rules_and_without_takes_away(tmp_path):
    own = pack(tmp_path / "mine")
    rules = shipped.rule_book([own], without=["monitor-validation-loss"])
    ids = [rule.id for rule in rules]
    assert "narrow-nets-for-few-rows" in ids and "monitor-validation-loss" not in ids
    assert ids == sorted(ids) and len(ids) == len(SHIPPED)


def test_an_unknown_id_in_without_gets_a_suggestion():
    with pytest.raises(
        UserError, match=r"no rule 'monitor-validation-los' .did you mean 'monitor-validation-loss'"
    ):
        shipped.rule_book(without=["monitor-validation-los"])


def test_a_rule_replaces_another(tmp_path):
    text = {"  strength: should": "  strength: should\n  replaces: [monitor-validation-loss]"}
    rules = shipped.rule_book([pack(tmp_path / "mine", **text)])
    assert "monitor-validation-loss" not in [rule.id for rule in rules]
    with pytest.raises(UserError, match="it was replaced by 'narrow-nets-for-few-rows'"):
        text = {"  strength: should": "  strength: should\n  replaces: [old-name]"}
        shipped.rule_book([pack(tmp_path / "mine", **text)], without=["old-name"])


def test_rules_that_replace_each_other_and_ids_used_twice_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pack(tmp_path / "a")
    pack(tmp_path / "a", "other.yaml")
    complaints = check_rules(["a"], FACTS, SPACE).complaints
    assert complaints == ("a/other.yaml:3: id: 'narrow-nets-for-few-rows' is taken by a/mine.yaml:3",)
    itself = {"  strength: should": "  strength: should\n  replaces: [narrow-nets-for-few-rows]"}
    assert "replace each other" in check_rules([pack(tmp_path / "b", **itself)], FACTS, SPACE).complaints[0]
    first = {"  strength: should": "  strength: should\n  replaces: [the-other]"}
    pack(tmp_path / "c", **first)
    pack(tmp_path / "c", "other.yaml", **{**itself, "id: narrow-nets-for-few-rows": "id: the-other"})
    both = check_rules([tmp_path / "c"], FACTS, SPACE).complaints
    assert len(both) == 2 and all("replace each other" in line for line in both)


def test_rules_for_other_kinds_of_data_are_left_out(tmp_path):
    own = pack(tmp_path / "mine", **{"applies_to: [table]": "applies_to: [image]"})
    assert load_rules([own], FACTS, SPACE) == ()
    assert len(load_rules([own], FACTS, SPACE, kind="image")) == 1


def test_what_is_said_to_be_measured_is_of_a_rule_that_is_there():
    entries = yaml.safe_load((shipped.folder("rules") / "evidence.yaml").read_text())["evidence"]
    assert entries.keys() <= {rule.id for rule in shipped.rule_book(kind=None)}
    assert all(entry["sets"] >= 4 and "benchmarks/" in entry["command"] for entry in entries.values())


def test_evidence_is_measured_only_with_an_entry(tmp_path):
    own = pack(tmp_path / "mine", **{"evidence: folklore": "evidence: measured"})
    entry = "{effect: -0.02, interval: [-0.03, -0.01], sets: 12, command: 'advisor rules evaluate'}"
    (own / "evidence.yaml").write_text(f"format: 1\nevidence:\n  narrow-nets-for-few-rows: {entry}\n")
    (rule,) = load_rules([own], FACTS, SPACE)
    assert rule.measured["sets"] == 12
    (own / "evidence.yaml").write_text("format: 1\nevidence:\n  narrow-nets-for-few-rows: {effect: 1}\n")
    with pytest.raises(UserError, match=r"evidence\.yaml:3: evidence\.narrow-nets-for-few-rows: must be"):
        load_rules([own], FACTS, SPACE)


def test_sources_that_hold_no_rules_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.yaml").write_text("- 1")
    for source, part in [("none", "no such file or folder"), ("empty", "no rule file")]:
        with pytest.raises(UserError, match=part):
            check_rules([tmp_path / source], FACTS, SPACE)
    assert "a rule file is a mapping" in check_rules([tmp_path / "list.yaml"], FACTS, SPACE).complaints[0]


def test_a_profile_with_an_unknown_fact_is_refused(tmp_path):
    for text, part in [
        ("format: 1\nprofiles: {typical: {rosw: 3}}", "unknown fact .did you mean 'rows'"),
        ("format: 1\nprofiles: {typical: {rows: 3e2}}", "is not a number .write 3.0e.2"),
        ("format: 1\nprofiles: {typicl: {rows: 3}}", "no profile 'typical' .did you mean 'typicl'"),
    ]:
        (tmp_path / "profiles.yaml").write_text(text)
        with pytest.raises(UserError, match=part):
            load_profile(tmp_path / "profiles.yaml", FACTS)


# Hostile packs (D9)


HOSTILE = {
    "alias bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "depth": "rules: " + "[" * 100_000,
    "depth of mappings": "{a: " * 50_000,
    "python object": GOOD.replace("why: Few", "why: !!python/object/apply:os.system [ls]  #"),
    "dunder": GOOD.replace("when: rows", "when: rows.__class__.__mro__ == rows and rows"),
    "power": GOOD.replace("when: rows", "when: 9**9**9 > rows and rows"),
    "power in a value": GOOD.replace("{width: 32}", "{width: '= 9**9**9'}"),
    "long text": GOOD.replace("when: rows", "when: rows > " + "(a+)+" * 100_000 + " and rows"),
    "long template": GOOD.replace("{rows} rows", "{rows:>" + "9" * 1000 + "}"),
    "attribute in a template": GOOD.replace("{rows} rows", "{rows.__class__}"),
    "many rules": "format: 1\nrules:\n" + "- {id: a-b}\n" * 5000,
    "long key": "format: 1\n" + "k" * 500_000 + ": 1\nrules: []\n",
    "large": "# " + "x" * 1_100_000,
    "binary": "\x00\x01\x02",
    "many documents": "---\n" * 1000,
    "merge key": "format: 1\nrules: [{<<: {id: a-b}}]\n",
    "rules inside rules": "format: 1\nrules: [[[[{}]]]]\n",
    "numbers": "format: 1\nrules: [" + "9" * 4000 + "e" + "9" * 10 + "]\n",
    "no text": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pack_is_refused_in_one_line(name, tmp_path, monkeypatch):
    complaints = checked(HOSTILE[name], tmp_path, monkeypatch).complaints
    assert complaints
    for line in complaints:
        assert line.startswith("p.yaml") and "\n" not in line and len(line) < 700
    with pytest.raises(UserError):
        load_rules(["p.yaml"], FACTS, SPACE)


def test_a_link_to_nowhere_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "a.yaml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "b.yaml")
    assert all("not a file" in line for line in check_rules([tmp_path], FACTS, SPACE).complaints)


# Judging


def test_an_effect_that_cannot_be_computed_makes_the_rule_unjudged(tmp_path):
    own = pack(tmp_path / "mine", **{"default: {width: 32}": "default: {width: '= 16 * classes.count'}"})
    (rule,) = load_rules([own], FACTS, SPACE)
    verdict = judge_rule(rule, {**TYPICAL, "rows": 10, "classes.count": None}, SPACE)
    assert (verdict.fires, verdict.missing, verdict.claims) == (None, ("classes.count",), ())
    verdict = judge_rule(rule, {**TYPICAL, "rows": 10, "classes.count": 3}, SPACE)
    assert [claim.value for claim in verdict.claims] == [48, None]
    assert verdict.used["classes.count"] == 3


def test_a_prior_narrows_by_its_confidence(tmp_path):
    for confidence, factor in PRIOR_FACTOR.items():
        prior = f"prior: {{learning_rate: {{value: 0.01, confidence: {confidence}}}}}"
        own = pack(tmp_path / "mine", **{"default: {width: 32}": prior})
        (rule,) = load_rules([own], FACTS, SPACE)
        claim = judge_rule(rule, {**TYPICAL, "rows": 10}, SPACE).claims[0]
        assert (claim.value, claim.low, claim.high) == pytest.approx((0.01, 0.01 / factor, 0.01 * factor))


# The documentation


def test_every_example_in_the_documentation_is_a_rule_whose_examples_hold(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.S)
    packs = [block for block in blocks if "rules:" in block]
    assert len(packs) >= 2
    for number, block in enumerate(packs):
        path = tmp_path / f"doc{number}.yaml"
        path.write_text(block)
        result = shipped.check_rule_folders([path])
        assert result.complaints == ()
        for item in shipped.run_all_examples([path])[1]:
            assert item.passed, item


def test_the_documentation_shows_complaints_as_they_are(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    rule = re.findall(r"```yaml\n(.*?)```", text, re.S)[0]
    monkeypatch.chdir(tmp_path)
    Path("my-rules").mkdir()
    for old, new, line in re.findall(r"\| `([^`]+)` \| `([^`]+)` \| `(my-rules[^`]+)` \|", text):
        assert old in rule
        Path("my-rules/widths.yaml").write_text(rule.replace(old, new, 1))
        assert shipped.check_rule_folders(["my-rules"]).complaints == (line,)
