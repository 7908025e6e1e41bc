"""Why a value is what it is, what would flip it, what-if and diff: the engine's own
answers, through API and command line."""

import json

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import advisor
from advisor.cli.main import _run
from advisor.documents import from_plain, to_plain
from advisor.errors import UserError
from advisor.facts.schema import FACTS
from advisor.rules import shipped
from advisor.rules.provenance import (
    LedgerEntry,
    compare_findings,
    compare_recommendations,
    ledger,
    read_fact,
    with_facts,
)
from advisor.rules.recommendation import advise
from advisor.runs.advice import imagine, read_run
from advisor.workflows import search as run_search

BASE, RULES, TYPICAL = shipped.base_space(), shipped.rule_book(), shipped.typical_facts()
REC = advise(TYPICAL, RULES, BASE)
LEDGER = ledger(REC, TYPICAL, RULES, BASE)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A recommendation for wine, in a folder."""
    folder = tmp_path_factory.mktemp("ledger") / "run"
    assert _run(["recommend", "sklearn:wine", "--target", "target", "--out", str(folder)]) == 0
    return folder


def said(capsys, *arguments):
    code = _run([str(word) for word in arguments])
    return code, capsys.readouterr()


# ------------------------------------------------------------------------------------------------- the ledger


def test_every_parameter_has_a_complete_because():
    assert set(LEDGER) == set(BASE.parameters)
    for name, entry in LEDGER.items():
        assert entry.value == REC.configuration[name]
        assert entry.because
        for step in entry.steps:
            assert not step.rule or step.references
    written = json.loads(json.dumps(to_plain(LEDGER)))
    assert {name: from_plain(LedgerEntry, entry) for name, entry in written.items()} == LEDGER


def test_the_steps_lead_from_the_base_to_the_value():
    for name, entry in LEDGER.items():
        states = [entry.base, *(step.after for step in entry.steps)]
        assert states[-1]["value"] == entry.value, name
        for before, step in zip(states, entry.steps, strict=False):
            assert step.before == before, name


def test_a_flip_flips_and_nothing_nearer_does():
    """The engine is asked again at the edge and just inside it."""
    told = 0
    for name, entry in LEDGER.items():
        for flip in entry.flips:
            told += 1
            there = advise({**TYPICAL, flip.fact: flip.at}, RULES, BASE)
            assert there.configuration[name] == flip.value != entry.value
            now, at = flip.now, flip.at
            if isinstance(now, int) and not isinstance(now, bool):
                inside = at + (1 if at < now else -1)
                here = advise({**TYPICAL, flip.fact: inside}, RULES, BASE)
                assert here.configuration[name] == entry.value, (name, flip)
    assert told > 20


@settings(max_examples=10, deadline=None)  # an example asks the engine several hundred times
@given(rows=st.integers(20, 10**6), task=st.sampled_from(["binary", "regression"]), skew=st.floats(0, 50))
def test_flips_hold_for_any_facts(rows, task, skew):
    facts = {**TYPICAL, "rows": rows, "task": task, "skew.max": skew}
    entries = ledger(advise(facts, RULES, BASE), facts, RULES, BASE)
    for name, entry in entries.items():
        for flip in entry.flips:
            there = advise({**facts, flip.fact: flip.at}, RULES, BASE)
            assert there.configuration[name] == flip.value != entry.value


def test_the_person_s_own_value_does_not_flip_and_the_rest_is_judged_with_it():
    own = advise(TYPICAL, RULES, BASE, {"hidden_layers": 7})
    entry = ledger(own, TYPICAL, RULES, BASE)["hidden_layers"]
    assert entry.yours and entry.flips == () and entry.steps[-1].effect == "yours"


# -------------------------------------------------------------------------------------------------------- why


def test_why_answers_in_a_paragraph_with_rule_fact_source_and_flip(run, capsys):
    code, out = said(capsys, "why", run, "learning_rate")
    text = " ".join(out.out.split())
    assert code == 0
    for part in (
        "learning_rate is 0.006",
        "learning-rate-for-small-tables",
        "rows = 142",
        "N29",
        "Source:",
        "if rows were 600",
    ):
        assert part in text


def test_why_of_all_parameters_is_a_line_each(run, capsys):
    code, out = said(capsys, "why", run)
    assert code == 0
    assert [line.split()[0] for line in out.out.splitlines()] == list(BASE.parameters)


def test_why_as_json_is_the_ledger_s_entry(run, capsys):
    code, out = said(capsys, "why", run, "dropout", "--json")
    entry = json.loads(out.out)
    assert code == 0
    assert entry["parameter"] == "dropout"
    assert {"base", "steps", "alternatives", "flips", "contradictions", "because"} <= set(entry)


def test_why_of_a_parameter_that_is_not_there_names_the_nearest(run, capsys):
    code, out = said(capsys, "why", run, "lerning_rate")
    assert code == 2
    assert "did you mean 'learning_rate'" in out.err


def test_why_of_something_that_is_no_run(tmp_path, capsys):
    code, out = said(capsys, "why", tmp_path, "width")
    assert code == 2
    assert len(out.err.strip().splitlines()) == 1


def test_the_report_holds_the_ledger(run):
    assert json.loads((run / "report.json").read_text())["ledger"]["width"]["flips"]


# ---------------------------------------------------------------------------------------------------- what if


def test_what_if_plans_again_and_shows_the_difference(run, capsys):
    code, out = said(capsys, "what-if", run, "--set", "rows=1000000", "--set", "gpu.memory_gb=8")
    assert code == 0
    assert "hidden_layers: 1" in out.out and "now depth-for-large-tables" in out.out
    assert "rows_per_feature = 76923" in out.err and "gpu.count = 1" in out.err


def test_what_if_of_nothing_new_says_so(run, capsys):
    code, out = said(capsys, "what-if", run, "--set", "rows=142")
    assert (code, "Nothing differs" in out.out) == (0, True)


def test_what_if_agrees_with_a_recommendation_for_those_facts(run):
    kept = read_run(run)
    other, _ = imagine(kept, {"rows": "20000", "rows_per_feature": "1500", "classes.smallest": "6000"})
    facts = {**kept.facts.values, "rows": 20000, "rows_per_feature": 1500.0, "classes.smallest": 6000}
    assert other.configuration == advise(facts, RULES, BASE).configuration


@pytest.mark.parametrize(
    "change, part",
    [
        ("rowz=5", "did you mean 'rows'"),
        ("rows=many", "a whole number"),
        ("rows=1.5", "a whole number"),
        ("task=bin", "one of binary, multiclass, regression"),
        ("has_time=perhaps", "true or false"),
        ("skew.max=inf", "a number"),
        ("rows", "write NAME=VALUE"),
    ],
)
def test_what_if_with_an_impossible_fact_is_one_line(run, capsys, change, part):
    code, out = said(capsys, "what-if", run, "--set", change)
    assert code == 2
    assert part in out.err and len(out.err.strip().splitlines()) == 1


@pytest.mark.parametrize("text, value", [("1,000", 1000), ("1e6", 1000000), ("1_000", 1000), ("none", None)])
def test_facts_are_read_as_people_write_them(text, value):
    assert read_fact("rows", text, FACTS) == value


def test_what_the_person_says_beats_what_would_move_along():
    facts, along = with_facts(TYPICAL, {"rows": 10, "rows_per_feature": 99.0})
    assert facts["rows_per_feature"] == 99.0 and "rows_per_feature" not in along
    with pytest.raises(UserError, match="no fact"):
        read_fact("nothing", "1", FACTS)


# ------------------------------------------------------------------------------------------------------- diff


def test_diff_of_two_runs_names_parameters_and_rules(run, tmp_path, capsys):
    other = [
        "recommend",
        "sklearn:breast_cancer",
        "--target",
        "target",
        "--out",
        str(tmp_path / "b"),
        "--set",
        "width=77",
    ]
    assert _run(other) == 0
    capsys.readouterr()
    code, out = said(capsys, "diff", run, tmp_path / "b", "--json")
    names = {change["parameter"] for change in json.loads(out.out)["parameters"]}
    assert code == 0
    assert "width" in names
    code, out = said(capsys, "diff", run, run)
    assert (code, "Nothing differs" in out.out) == (0, True)


def test_a_difference_with_itself_is_empty_and_findings_are_compared():
    assert compare_recommendations(REC, REC) == []
    few = advise({**TYPICAL, "rows": 150}, RULES, BASE)
    assert any("150" in message for message in compare_findings(REC, few)["new"])
    assert compare_findings(few, REC)["gone"] == compare_findings(REC, few)["new"]


# ------------------------------------------------------------------------------------------------------ edits


def edited(run, change):
    document = yaml.safe_load((run / "recommendation.yaml").read_text())
    change(document)
    (run / "recommendation.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def fresh(tmp_path):
    frame = pl.DataFrame(
        {"a": [float(i % 17) for i in range(90)], "b": list(range(90)), "y": ["u", "v", "w"] * 30}
    )
    frame.write_csv(tmp_path / "d.csv")
    assert _run(["recommend", str(tmp_path / "d.csv"), "--target", "y", "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_an_edit_plans_the_rest_again_around_it(tmp_path):
    """The momentum is no part of the advised search; an own choice of SGD brings it in."""
    run = fresh(tmp_path)
    before = read_run(run).recommendation
    assert "momentum" not in before.space.searched
    edited(run, lambda document: document["configuration"].update(optimizer="sgd"))
    after = read_run(run).recommendation
    assert after.configuration["optimizer"] == "sgd" and after.provenance["optimizer"].yours
    assert "momentum" in after.space.searched and "beta2" not in after.space.searched
    assert not after.provenance["momentum"].yours


def test_an_own_range_stays_when_the_rest_is_planned_again(tmp_path):
    run = fresh(tmp_path)

    def change(document):
        document["space"]["dropout"] = {"low": 0.3, "high": 0.4}
        document["configuration"]["optimizer"] = "sgd"

    edited(run, change)
    rec = read_run(run).recommendation
    assert rec.provenance["dropout"].yours
    assert (rec.space["dropout"].low, rec.space["dropout"].high) == (0.3, 0.4)
    assert 0.3 <= rec.configuration["dropout"] <= 0.4


@pytest.mark.slow
def test_a_tuned_run_keeps_the_edit_and_is_found_again(tmp_path, monkeypatch):
    run = fresh(tmp_path)
    edited(run, lambda document: document["configuration"].update(optimizer="sgd", epochs=2))
    first = advisor.tune(run / "recommendation.yaml", trials=2, executor="in-process")
    assert first.document["configuration"]["optimizer"] == "sgd"
    monkeypatch.setattr(run_search, "run_search", None)  # a finished run is not searched again
    again = advisor.tune(run, trials=2, executor="in-process")
    assert again.document["configuration"] == first.document["configuration"]


def test_the_learning_rate_follows_an_own_optimizer(tmp_path):
    run = fresh(tmp_path)
    edited(run, lambda document: document["configuration"].update(optimizer="sgd"))
    rec = read_run(run).recommendation
    assert rec.configuration["learning_rate"] == 0.05
    assert rec.provenance["learning_rate"].steps[0].facts == {"yours.optimizer": "sgd"}
    assert "You chose SGD" in rec.provenance["learning_rate"].because


def test_one_parameter_alone_has_the_entry_that_it_has_among_all():
    for name in BASE.parameters:
        assert ledger(REC, TYPICAL, RULES, BASE, name) == {name: LEDGER[name]}
