"""Combining rules, provenance, and recommendation.yaml: written, edited, read back."""

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna
import pytest
import yaml
from damage import damaged_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.errors import UserError
from advisor.facts.schema import FACTS
from advisor.rules import shipped as knowledge
from advisor.rules.book import KNOWN_WORDS, load_rules
from advisor.rules.recommendation import Finding, Recommendation, advise, library_default
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)
BASE = knowledge.base_space()
SHIPPED = knowledge.rule_book()
TYPICAL = knowledge.typical_facts()


def rule(name, then, strength="should", evidence="reported", when="rows > 10", **more):
    """One rule as plain data; its examples only satisfy the format."""
    kind = next(iter(then))
    expect = {"finding": then["finding"]["code"]} if kind == "finding" else {next(iter(then[kind])): 1}
    examples = [{"expect": expect}, {"expect": "does not fire"}]
    return {
        "id": name, "title": f"Title of {name}", "topic": "architecture", "applies_to": ["table"],
        "strength": strength, "when": when, "then": then, "because": f"{name} says so for {{rows}} rows.",
        "why": "Because.", "references": [{"cite": "A", "url": "https://example.org", "says": "so"}],
        "evidence": evidence, "examples": examples, **more,
    }  # fmt: skip


def loaded(*rules):
    """Rules from plain data, through a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(yaml.safe_dump({"format": 1, "rules": list(rules)}, sort_keys=False))
        return load_rules([path], FACTS, BASE)


def recommend(rules, fixed=None, **facts):
    return advise(
        {**TYPICAL, **{name.replace("__", "."): value for name, value in facts.items()}}, rules, BASE, fixed
    )


def shipped(**facts):
    return recommend(SHIPPED, **facts)


def range_of(rec, name):
    return rec.space[name].low, rec.space[name].high


# Combining


def test_without_rules_everything_is_the_base_and_says_so():
    rec = recommend([])
    assert rec.configuration == BASE.complete({}) and rec.space == BASE
    for name, item in rec.provenance.items():
        assert item.because == f"The base of the search space: {BASE[name].meaning}."
        assert item.base == item.final and not item.steps


def test_ranges_and_choices_are_intersected():
    rec = recommend(loaded(
        rule("a-a", {"range": {"width": [16, 256]}, "choices": {"norm": ["none", "batch"]}}),
        rule("b-b", {"range": {"width": [64, 1024]}, "choices": {"norm": ["layer", "batch"]}}),
    ))  # fmt: skip
    assert range_of(rec, "width") == (64, 256)
    assert rec.configuration["norm"] == "batch" and "norm" not in rec.space.searched
    assert rec.contradictions == ()
    assert [(step.rule, step.effect) for step in rec.provenance["norm"].steps] == [
        ("a-a", "choices"),
        ("b-b", "choices"),
    ]


def test_a_default_outside_a_narrowed_range_is_clipped_in_a_step_of_its_own():
    rec = recommend(loaded(
        rule("a-a", {"default": {"width": 512}}), rule("b-b", {"range": {"width": [32, 256]}}),
    ))  # fmt: skip
    assert rec.configuration["width"] == 256
    steps = rec.provenance["width"].steps
    assert [(step.rule, step.effect, step.after["value"]) for step in steps] == [
        ("a-a", "default", 512), ("b-b", "range", 512), ("b-b", "clip", 256),
    ]  # fmt: skip
    assert all(one.after == two.before for one, two in itertools.pairwise(steps))


def test_a_stronger_rule_decides_and_both_sides_are_reported():
    rules = loaded(
        rule("a-a", {"default": {"width": 512}}, strength="may"), rule("b-b", {"default": {"width": 64}}),
    )  # fmt: skip
    rec = recommend(rules)
    assert rec.configuration["width"] == 64
    (clash,) = rec.contradictions
    assert (clash.parameter, clash.kept, clash.decided_by) == ("width", ("b-b",), "strength")
    assert [(side.rule, side.wants) for side in clash.sides] == [("b-b", 64), ("a-a", 512)]


def test_evidence_decides_between_rules_of_one_strength():
    rules = loaded(
        rule("a-a", {"default": {"width": 512}}, evidence="folklore"), rule("b-b", {"default": {"width": 64}}),
    )  # fmt: skip
    rec = recommend(rules)
    assert rec.configuration["width"] == 64 and rec.contradictions[0].decided_by == "evidence"


def test_equal_rules_that_disagree_leave_the_base():
    rec = recommend(loaded(
        rule("a-a", {"default": {"width": 512}, "range": {"l1": [1e-7, 1e-6]}}),
        rule("b-b", {"default": {"width": 64}, "range": {"l1": [1e-4, 1e-3]}}),
    ))  # fmt: skip
    assert rec.configuration["width"] == 128 and rec.space["l1"] == BASE["l1"]
    assert [(item.parameter, item.kept, item.decided_by) for item in rec.contradictions] == [
        ("width", (), "undecided"), ("l1", (), "undecided"),
    ]  # fmt: skip


def test_a_weaker_range_without_anything_in_common_is_dropped():
    rec = recommend(loaded(
        rule("a-a", {"range": {"width": [16, 32]}}, strength="must"), rule("b-b", {"range": {"width": [64, 128]}}),
    ))  # fmt: skip
    assert range_of(rec, "width") == (16, 32)
    assert rec.contradictions[0].kept == ("a-a",) and rec.contradictions[0].decided_by == "strength"


def test_set_leaves_the_search_and_beats_weaker_rules():
    rec = recommend(loaded(
        rule("a-a", {"set": {"width": 40}}, strength="must"),
        rule("b-b", {"default": {"width": 64}, "range": {"width": [48, 64]}}),
        rule("c-c", {"range": {"width": [32, 64]}}),
    ))  # fmt: skip
    assert rec.configuration["width"] == 40 and "width" not in rec.space.searched
    assert sorted(side.effect for clash in rec.contradictions for side in clash.sides if side.rule == "b-b") == [
        "default", "range",
    ]  # fmt: skip
    assert rec.provenance["width"].final == {"value": 40}


def test_a_set_that_a_measured_range_excludes_is_dropped():
    measured = rule("a-a", {"range": {"width": [64, 128]}}, strength="must", evidence="reported")
    rec = recommend(
        loaded(measured, rule("b-b", {"set": {"width": 40}}, strength="must", evidence="folklore"))
    )
    assert "width" in rec.space.searched and range_of(rec, "width") == (64, 128)
    assert rec.contradictions[0].decided_by == "evidence"


def test_plan_settings_are_set_by_the_stronger_rule():
    rec = recommend(loaded(
        rule("a-a", {"set": {"folds": 8}}), rule("b-b", {"set": {"folds": 4}}, strength="must"),
    ))  # fmt: skip
    assert rec.configuration["folds"] == 4 and rec.contradictions[0].kept == ("b-b",)


def test_a_prior_sets_the_default_and_narrows_unless_its_value_is_overruled():
    prior = rule("a-a", {"prior": {"learning_rate": {"value": 0.01, "confidence": "high"}}})
    rec = recommend(loaded(prior))
    assert rec.configuration["learning_rate"] == 0.01
    assert range_of(rec, "learning_rate") == pytest.approx((0.01 / 3, 0.03))
    rec = recommend(loaded(prior, rule("b-b", {"default": {"learning_rate": 2e-4}}, strength="must")))
    assert (
        rec.configuration["learning_rate"] == 2e-4
        and rec.space["learning_rate"].low == BASE["learning_rate"].low
    )


def test_zero_stays_beside_a_prior_and_leaves_with_a_range_that_excludes_it():
    prior = {"prior": {"weight_decay": {"value": 0.01, "confidence": "high"}}}
    assert recommend(loaded(rule("a-a", prior))).space["weight_decay"].zero
    rec = recommend(loaded(rule("a-a", prior), rule("b-b", {"range": {"weight_decay": [1e-3, 1.0]}})))
    assert not rec.space["weight_decay"].zero


def test_a_rule_that_cannot_be_judged_is_listed_with_what_it_lacks():
    rules = loaded(rule("a-a", {"default": {"width": 64}}, when="rows > 10 and classes.imbalance > 3"))
    rec = recommend(rules, classes__imbalance=None)
    assert rec.configuration["width"] == 128
    assert [(item.rule, item.missing) for item in rec.unjudged] == [("a-a", ("classes.imbalance",))]
    assert recommend(rules, rows=3, classes__imbalance=None).unjudged == ()


def test_derived_parameters_follow_what_the_search_suggests():
    rows = [{"if": 'activation == "tanh" and rows > 100', "value": "xavier_normal"}, {"else": "he_normal"}]
    derive = rule("a-a", {"derive": {"weight_init": rows}}, because="{activation} takes {weight_init}.")
    derive["examples"] = [{"expect": {"weight_init": "he_normal"}}, {"expect": "does not fire"}]
    rec = recommend(loaded(derive))
    assert rec.configuration["weight_init"] == "he_normal"
    assert rec.provenance["weight_init"].because == "relu takes he_normal."
    assert rec.space.complete({"activation": "tanh"})["weight_init"] == "xavier_normal"
    assert (
        recommend(loaded(derive), rows=50).space.complete({"activation": "tanh"})["weight_init"]
        == "he_normal"
    )


def test_what_no_choice_that_is_left_uses_is_not_searched():
    rec = recommend(loaded(rule("a-a", {"choices": {"optimizer": ["adam", "adamw"]}})))
    assert "momentum" not in rec.space.searched and "beta2" in rec.space.searched
    assert rec.provenance["momentum"].steps[0].effect == "inactive"
    rec = recommend(loaded(rule("a-a", {"choices": {"optimizer": ["adam", "sgd"]}})))
    assert {"momentum", "beta2"} <= set(rec.space.searched)


def test_a_condition_over_numbers_keeps_its_parameter_in_the_search():
    depth = Parameter("depth", "int", 1, low=1, high=4)
    skip = Parameter("skip", "int", 1, low=1, high=4, when="depth > 2")
    assert advise(TYPICAL, [], Space({"depth": depth, "skip": skip})).space.searched == ("depth", "skip")


def test_findings_come_from_rules_and_from_outside_in_order_of_severity():
    finding = {"severity": "info", "code": "few", "columns": "= columns.constant", "actions": ["look"]}
    rules = loaded(rule("a-a", {"finding": finding}, strength="may"))
    outside = Finding("error", "shift", "The test rows differ.", ("age",))
    rec = advise(
        {**TYPICAL, "columns.constant": ["c1"]}, rules, BASE, findings=[outside], data={"source": "x.csv"}
    )
    assert [item.code for item in rec.findings] == ["shift", "few"]
    assert rec.findings[1] == Finding("info", "few", "a-a says so for 3000 rows.", ("c1",), ("look",), "a-a")
    assert rec.data == {"source": "x.csv"}


# The user's own values


def test_fixed_values_beat_every_rule_and_are_marked():
    rules = loaded(
        rule("a-a", {"set": {"width": 40}}, strength="must"), rule("b-b", {"range": {"dropout": [0, 0.2]}})
    )
    rec = recommend(rules, fixed={"width": 99, "dropout": 0.5, "weight_init": "he_normal", "folds": 3})
    wanted = {"width": 99, "dropout": 0.5, "weight_init": "he_normal", "folds": 3}
    assert {name: rec.configuration[name] for name in wanted} == wanted
    assert not {"width", "dropout"} & set(rec.space.searched)
    assert [name for name, item in rec.provenance.items() if item.yours] == list(
        name for name in BASE.parameters if name in wanted
    )
    assert rec.provenance["width"].because == "You set width to 99; it is not searched."
    assert [(clash.parameter, clash.decided_by) for clash in rec.contradictions] == [
        ("width", "yours"), ("dropout", "yours"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fixed", "part"),
    [
        ({"widht": 3}, "unknown parameter 'widht' (did you mean 'width'?)"),
        ({"width": 3}, "width: 3 is outside 16 to 1024"),
        ({"width": "64"}, "(write 64 without quotes)"),
        ({"optimizer": "adamv"}, "one of adamw, adam"),
        ({"learning_rate": "1e-3"}, "write 1.0e-3"),
        ({"dropout": None}, "nothing is not a number"),
    ],
)
def test_a_fixed_value_that_is_not_allowed_is_refused(fixed, part):
    with pytest.raises(UserError) as caught:
        shipped_with(fixed)
    assert part in str(caught.value)


def shipped_with(fixed):
    return recommend(SHIPPED, fixed)


# The shipped rules together


@st.composite
def random_facts(draw):
    """Facts of any size and shape, some not measured."""
    facts = dict(TYPICAL)
    for name in draw(st.lists(st.sampled_from(sorted(FACTS)), unique=True, max_size=25)):
        kind = FACTS[name].type
        if draw(st.integers(0, 4)) == 0:
            facts[name] = None
        elif kind == "int":
            facts[name] = draw(st.sampled_from([0, 1, 7, 150, 599, 600, 4999, 5000, 10**5, 10**9]))
        elif kind == "float":
            facts[name] = draw(st.floats(0, 1e9) | st.sampled_from([0.0, float("inf"), float("nan"), -3.0]))
        elif kind == "bool":
            facts[name] = draw(st.booleans())
        else:
            facts[name] = (
                draw(st.sampled_from(KNOWN_WORDS.get(name, ("x",)))) if kind == "text" else ["a", "b"]
            )
    return facts


@settings(max_examples=40, derandomize=True, deadline=None)
@given(random_facts(), st.randoms(use_true_random=False))
def test_any_facts_give_a_recommendation_with_a_because_for_everything(facts, chance):
    rec = advise(facts, SHIPPED, BASE)
    shuffled = list(SHIPPED)
    chance.shuffle(shuffled)
    items = list(facts.items())
    chance.shuffle(items)
    assert advise(dict(items), shuffled, BASE).to_yaml() == rec.to_yaml()
    assert all(BASE[name].problem(value) is None for name, value in rec.configuration.items())
    rec.space.encode(rec.configuration)
    known = {rule.id for rule in SHIPPED}
    for name, item in rec.provenance.items():
        assert item.because and item.final["value"] == rec.configuration[name]
        assert all(one.after == two.before for one, two in itertools.pairwise(item.steps))
        for step in item.steps:
            assert (
                step.because
                and (step.rule in known or step.effect == "inactive")
                and set(step.facts) <= set(FACTS)
            )
    assert set(rec.provenance) == set(BASE.parameters)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("rows", [5, 100, 599, 600, 1999, 2000, 4999, 5000, 19_999, 59_999, 60_000, 10**7])
def test_the_shipped_rules_do_not_contradict_each_other_at_any_size(task, rows):
    classes = {
        "classes__count": None,
        "classes__imbalance": None,
        "target__skew": 0.1,
        "target__kurtosis": 0.0,
    }
    for columns in ({}, {"features__numeric": 0}, {"features__categorical": 0}, {"features__numeric": 500}):
        rec = shipped(rows=rows, task=task, **columns, **(classes if task == "regression" else {}))
        assert rec.contradictions == () and rec.unjudged == ()
        assert rec.configuration["loss"] == (
            "mean_squared_error" if task == "regression" else "cross_entropy"
        )
        assert rec.configuration["weight_init"] != "torch_default"


def test_the_library_default_is_the_base_under_the_recommended_plan():
    rec = shipped(rows=100, task="regression", target__skew=0.0, target__kurtosis=0.0)
    default = library_default(rec, BASE)
    assert default["optimizer"] == "adam" and default["loss"] == "mean_squared_error"
    assert default["folds"] == rec.configuration["folds"] and default["weight_init"] == "torch_default"


def test_the_same_facts_give_the_same_bytes_in_any_process():
    program = (
        "from advisor.rules import shipped\nfrom advisor.rules.recommendation import advise\n"
        "facts = shipped.typical_facts() | {'rows': 9000, 'columns.constant': ['x', 'y'], "
        "'features.constant': 2}\n"
        "print(advise(facts, shipped.rule_book(), shipped.base_space()).to_yaml())\n"
        "import sys; assert not {'torch', 'ray', 'optuna', 'sklearn'} & set(sys.modules)\n"
    )
    outputs = set()
    for seed, zone in [("0", "UTC"), ("4711", "Asia/Tokyo")]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


# recommendation.yaml


FOLLOWS = [{"if": 'activation == "tanh"', "value": "xavier_normal"}, {"else": "he_normal"}]
OWN = loaded(
    rule("a-rate", {"prior": {"learning_rate": {"value": 0.003, "confidence": "medium"}}}),
    rule("b-rate", {"range": {"learning_rate": [0.001, 0.02]}}),
    rule("c-rate", {"default": {"learning_rate": 0.03}}, strength="may"),
    rule(
        "head", {"choices": {"output_init": ["zero"], "activation": ["relu", "tanh", "silu"]}}, id="the-head"
    ),
    rule("dropout", {"range": {"dropout": [0, 0.5]}}, id="the-dropout"),
    rule("init", {"derive": {"weight_init": FOLLOWS}}, id="the-init"),
    rule("plan", {"set": {"folds": 8}}, id="the-plan"),
    rule("gap", {"default": {"width": 64}}, when="groups.count > 3", id="the-gap"),
    rule(
        "few", {"finding": {"severity": "info", "code": "few", "columns": "= columns.constant"}}, id="the-few"
    ),
)
REC = recommend(OWN, columns__constant=["a: b", "ü\u2028", "'"])
TEXT = REC.to_yaml()


def test_what_was_written_is_read_back():
    again = Recommendation.from_yaml(TEXT, BASE)
    assert again == REC and again.to_yaml() == TEXT
    assert REC.contradictions and REC.unjudged and REC.findings and REC.space.derivations
    for mine in (shipped(), shipped_with({"width": 100, "weight_init": "he_uniform"})):
        assert Recommendation.from_yaml(mine.to_yaml(), BASE) == mine


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_the_callers_data_survives_the_file(value):
    rec = advise(TYPICAL, [], BASE, data={"value": value})
    assert Recommendation.from_yaml(rec.to_yaml(), BASE).data == {"value": value}


def edit(section, name, value):
    """The file with one entry of a section changed by hand."""
    lines = TEXT.splitlines()
    start = lines.index(f"{section}:")
    place = next(number for number in range(start + 1, len(lines)) if lines[number].startswith(f"  {name}:"))
    lines[place : place + 1] = [] if value is None else [f"  {name}: {value}"]
    return "\n".join(lines) + "\n"


def suggestions(space, count=8):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_a_value_that_was_changed_is_fixed_in_every_trial():
    rec = Recommendation.from_yaml(edit("configuration", "learning_rate", "0.05"), BASE)
    assert all(item["learning_rate"] == 0.05 for item in suggestions(rec.space))
    entry = rec.provenance["learning_rate"]
    assert (
        entry.yours
        and entry.final == {"value": 0.05}
        and entry.because.startswith("You set learning_rate to 0.05")
    )
    assert entry.steps[-1].effect == "yours" and entry.steps[:-1] == REC.provenance["learning_rate"].steps
    assert rec.configuration["learning_rate"] == 0.05
    assert Recommendation.from_yaml(rec.to_yaml(), BASE) == rec


def test_a_range_that_was_changed_is_searched():
    rec = Recommendation.from_yaml(edit("space", "learning_rate", "{low: 0.01, high: 0.1}"), BASE)
    assert all(0.01 <= item["learning_rate"] <= 0.1 for item in suggestions(rec.space))
    entry = rec.provenance["learning_rate"]
    assert entry.yours and entry.final == {
        "value": rec.configuration["learning_rate"],
        "low": 0.01,
        "high": 0.1,
    }
    assert entry.because == "You limited the search of learning_rate to 0.01 to 0.1."
    assert Recommendation.from_yaml(rec.to_yaml(), BASE) == rec


def test_a_parameter_taken_out_of_the_space_stays_at_its_value_and_one_put_in_is_searched():
    rec = Recommendation.from_yaml(edit("space", "activation", None), BASE)
    assert {item["activation"] for item in suggestions(rec.space)} == {REC.configuration["activation"]}
    text = TEXT.replace("\nspace:\n", "\nspace:\n  output_init: {choices: [zero, same]}\n")
    rec = Recommendation.from_yaml(text, BASE)
    assert {item["output_init"] for item in suggestions(rec.space, 30)} == {"zero", "same"}
    assert rec.provenance["output_init"].yours


def test_what_is_derived_follows_an_edit_and_can_itself_be_fixed():
    rec = Recommendation.from_yaml(edit("configuration", "activation", "tanh"), BASE)
    assert rec.configuration["weight_init"] == "xavier_normal"
    assert rec.provenance["weight_init"].because == (
        "Computed again after your changes: weight_init is xavier_normal."
    )
    assert Recommendation.from_yaml(rec.to_yaml(), BASE) == rec
    rec = Recommendation.from_yaml(edit("configuration", "weight_init", "torch_default"), BASE)
    assert {item["weight_init"] for item in suggestions(rec.space)} == {"torch_default"}
    assert rec.provenance["weight_init"].yours


WRONG = [
    (edit("configuration", "width", "3"), "configuration.width: 3 is outside 16 to 1024"),
    (edit("configuration", "width", "wide"), "configuration.width: 'wide' is not a whole number"),
    (edit("configuration", "width", "64.0"), "configuration.width: 64.0 is not a whole number"),
    (
        edit("configuration", "learning_rate", "1e-3"),
        "configuration.learning_rate: '1e-3' is not a number (write 1.0e-3)",
    ),
    (edit("configuration", "norm", "no"), "configuration.norm: false is not one of none, batch, layer"),
    (edit("configuration", "optimizer", "adamv"), "configuration.optimizer: 'adamv' is not one of"),
    (
        edit("configuration", "width", "64\n  widht: 64"),
        "configuration.widht: unknown key (did you mean 'width'?)",
    ),
    (
        edit("configuration", "width", "64\n  width: 65"),
        "configuration.width: this key is already given above",
    ),
    (edit("configuration", "width", None), "configuration: 'width' is missing"),
    (edit("configuration", "width", ""), "configuration.width: nothing is not a whole number"),
    (edit("configuration", "width", "[64]"), "configuration.width: [64] is not a whole number"),
    (edit("space", "width", "{low: 1, high: 64}"), "space.width.low: 1 is outside 16 to 1024"),
    (edit("space", "width", "{low: 64, high: 32}"), "space.width.low: 64 is above high 32"),
    (edit("space", "width", "{low: 64}"), "space.width: 'high' is missing"),
    (edit("space", "width", "{low: 64, hihg: 100}"), "space.width.hihg: unknown key (did you mean 'high'?)"),
    (edit("space", "width", "{low: 16, high: 100, zero: true}"), "space.width.zero: 0 is not allowed"),
    (edit("space", "width", "[16, 100]"), "space.width: must be a mapping"),
    (
        edit("space", "learning_rate", "{low: 1e-4, high: 0.1}"),
        "space.learning_rate.low: '1e-4' is not a number (write",
    ),
    (edit("space", "activation", "{choices: []}"), "space.activation.choices: must not be empty"),
    (
        edit("space", "activation", "{choices: [relu, gulu]}"),
        "space.activation.choices[1]: 'gulu' is not one of",
    ),
    (
        edit("space", "activation", "{choices: [relu, relu]}"),
        "space.activation.choices: a choice is given twice",
    ),
    (
        edit("space", "width", "{low: 16, high: 64}\n  widht: {low: 16, high: 64}"),
        "space.widht: unknown parameter (did",
    ),
    (
        edit("space", "width", "{low: 16, high: 64}\n  folds: {low: 2, high: 4}"),
        "space.folds: is never searched",
    ),
    (TEXT.replace("format: 1", "format: 2"), "(format 2), this is "),
    (TEXT.replace("format: 1", "format: one"), "format: must be 1, not 'one'"),
    (TEXT.replace("format: 1\n", ""), "not a recommendation"),
    (TEXT.replace("\nspace:", "\nspaec:"), "spaec: unknown key (did you mean 'space'?)"),
    (TEXT.replace("\nunjudged:", "\nfinding:"), "finding: unknown key (did you mean 'findings'?)"),
    (TEXT[: TEXT.index("contradictions:")], "'contradictions' is missing"),
    (TEXT.replace("severity: info", "severity: loud"), "severity: 'loud' is not one of error, warning, info"),
    (TEXT.replace("    yours: false", "    yours: perhaps", 1), "yours: must be true or false"),
    (TEXT.replace("{else: he_normal}", "{else: he}"), "derived: weight_init: 'he' is not one of"),
    (
        TEXT.replace("if: activation ==", "if: activaton =="),
        "unknown name 'activaton' (did you mean 'activation'?)",
    ),
    (
        TEXT.replace("else: he_normal", "otherwise: he_normal"),
        "derived.weight_init.rows[1]: the last row must be",
    ),
    (
        TEXT.replace("\nderived:", "\nderived:\n  width:\n    rows: [{else: 64}]"),
        "derived: width: is searched",
    ),
    (TEXT.replace("decided_by: strength", "decided_by: luck"), "decided_by: 'luck' is not one of strength"),
    ("", "not a recommendation"),
    ("just text", "not a recommendation"),
    ("a: &a 1\nb: *a", "anchors and aliases"),
    ("x: [", "not YAML"),
    ("\x00", "not YAML"),
]


@pytest.mark.parametrize(("text", "part"), WRONG, ids=[part[:50] for _, part in WRONG])
def test_a_wrong_edit_is_one_line_with_its_place(text, part):
    assert text != TEXT
    with pytest.raises(UserError) as caught:
        Recommendation.from_yaml(text, BASE, "RUN/recommendation.yaml")
    assert str(caught.value).startswith("RUN/recommendation.yaml:") and part in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.data())
def test_an_edited_file_is_honoured_in_all_trials_or_refused(data):
    name = data.draw(st.sampled_from(sorted(BASE.parameters)))
    values = st.one_of(
        st.integers(-2, 1100), st.floats(-1, 12).map(lambda number: round(number, 4)), st.booleans(),
        st.sampled_from([*BASE[name].choices, "1e-3", "nonsense", 0, 0.01, 64, 5]),
    )  # fmt: skip
    value = data.draw(values)
    written = yaml.safe_dump(value).splitlines()[0]
    try:
        rec = Recommendation.from_yaml(edit("configuration", name, written), BASE)
    except UserError as error:
        assert name in str(error) and "\n" not in str(error)
        return
    for configuration in [*suggestions(rec.space, 3), rec.configuration]:
        assert configuration[name] == value or value == REC.configuration[name]


@settings(max_examples=120, deadline=None)
@given(damaged_bytes(TEXT.encode()))
def test_a_damaged_file_is_read_or_refused_in_one_line(content):
    try:
        rec = Recommendation.from_yaml(content.decode("utf-8", "replace"), BASE)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        rec.space.encode(rec.configuration)
        rec.to_yaml()


def test_the_file_shows_a_person_how_to_edit_it():
    assert TEXT.startswith("# What the advisor recommends") and "\nconfiguration:\n  hidden_layers: " in TEXT
    space = yaml.safe_load(TEXT)["space"]
    assert list(space) == list(REC.space.searched)
    assert set(space["dropout"]) == {"low", "high", "zero"}
    assert max(len(line) for line in TEXT.splitlines()) < 200
    assert not Path("recommendation.yaml").exists()
