"""Shift: found where there is one, no alarm where there is none, and what the plan makes of it."""

import json
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

import advisor
from advisor.data.options import ReadingOptions
from advisor.data.tables.table import load_table
from advisor.errors import UserError
from advisor.facts.schema import FACTS
from advisor.facts.shift.shift import likeness_to_test
from advisor.rules.shipped import base_space
from advisor.runs.advice import AdviceOptions
from advisor.workflows.recommend import get_advice


def frame(rows=300, seed=0, width=6, **columns):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, width)) @ (np.eye(width) + 0.5)
    data = {f"x{i}": numbers[:, i] for i in range(width)}
    data["colour"] = rng.choice(["red", "green", "blue"], rows, p=[0.6, 0.3, 0.1]).tolist()
    data["y"] = rng.choice(["no", "yes"], rows).tolist()
    return pl.DataFrame(data).with_columns(**columns)


def shift_of(train, test=None, **options):
    return advisor.measure(train, "y", test=test, **options).values


def findings(recommendation):
    return {finding.code for finding in recommendation.findings}


@pytest.mark.slow
def test_at_most_one_in_twenty_alarms_where_nothing_has_shifted():
    """D14 in small; with 200 seeds for each size: ``python benchmarks/shift.py --shifts none``."""
    seeds = 30
    alarms = 0
    for seed in range(seeds):
        rows = (40, 100, 300)[seed % 3]
        alarms += shift_of(frame(rows, seed, width=4), frame(60, 10_000 + seed, width=4))["shift.detected"]
    # 5 % may alarm; this many or more do in one run of a thousand
    assert alarms <= binom.ppf(0.999, seeds, 0.05)


@pytest.mark.parametrize(
    "years", [(1992, 2004), ("1992", "2004"), (1992.0, "2004"), (None, 2004), ("a", 2004.5)]
)
def test_a_constant_column_that_has_another_value_in_the_test_rows_is_reported(years):
    """No test of the inputs sees it: a column with one value is none."""
    train, test = (frame(seed=seed, year=pl.lit(year)) for seed, year in enumerate(years))
    facts = advisor.measure(train, "y", test=test).values
    assert facts["columns.constant"] == facts["columns.changed"] == ["year"]
    assert facts["shift.changed_share"] == 1.0 and not facts["shift.detected"]
    assert "changed-constants" in findings(advisor.recommend(train, "y", test=test))


@pytest.mark.parametrize("other", [1992.0, "1992", None])
def test_a_constant_column_that_stays_or_is_lost_is_not_reported(other):
    train, test = frame(year=pl.lit(1992)), frame(seed=1, year=pl.lit(other))
    facts = advisor.measure(train, "y", test=test).values
    assert facts["columns.changed"] == [] and facts["shift.changed_share"] == 0.0
    assert advisor.measure(train, "y", test=test.drop("year")).values["shift.changed_share"] == 0.0


def test_other_values_than_the_constant_count_beyond_chance_and_not_in_columns_that_were_called_constant():
    train, test = frame(900, site=pl.lit("a")), frame(100, seed=1)
    for rows, share in (
        (2, 0.0),
        (3, 0.03),
    ):  # three that are all among the test rows: a chance of 1 in 1,000
        site = pl.when(pl.int_range(100) < rows).then(pl.lit("b")).otherwise(pl.lit("a"))
        assert shift_of(train, test.with_columns(site=site))["shift.changed_share"] == share
    values = shift_of(train, test.with_columns(site=pl.lit("a")), types={"x0": "constant"})
    assert values["columns.constant"] == ["site", "x0"] and values["columns.changed"] == []


@pytest.mark.parametrize(
    ("name", "change", "test"),
    [
        ("one mean", lambda f: f.with_columns(x0=pl.col("x0") + 1.0), "columns"),
        (
            "all means",
            lambda f: f.with_columns(*(pl.col(f"x{i}") - 0.25 + 0.5 * (i % 2) for i in range(6))),
            "moments",
        ),
        ("spread", lambda f: f.with_columns(x0=pl.col("x0") * 2), "moments"),
        ("correlation", lambda f: f.with_columns(x0=pl.col("x0").shuffle(seed=1)), "moments"),
        ("levels", lambda f: f.with_columns(colour=pl.lit("red")), "columns"),
        (
            "missing",
            lambda f: f.with_columns(x0=pl.when(pl.int_range(pl.len()) % 3 > 0).then("x0")),
            "columns",
        ),
    ],
)
def test_planted_shifts_are_found(name, change, test):
    values = shift_of(frame(), change(frame(seed=1)))
    assert values["shift.compared_with"] == "test"
    assert values["shift.detected"] and test in values["shift.tests"], name
    assert 0 <= values["shift.auc_low"] <= values["shift.auc"] <= values["shift.auc_high"] <= 1


def test_trees_find_what_neither_columns_nor_products_show():
    """Three signs whose product is always positive: every pair of them is independent."""
    signs = np.sign(np.random.default_rng(0).normal(size=(1500, 3)))
    noise = np.random.default_rng(1).uniform(0.5, 1.5, size=(1500, 3))
    parity = signs.copy()
    parity[:, 2] = signs[:, 0] * signs[:, 1]
    names = ["x0", "x1", "x2"]
    answer = pl.Series("y", ["no", "yes"] * 750)
    free, tied = (pl.DataFrame(s * noise, schema=names).with_columns(answer) for s in (signs, parity))
    values = shift_of(free, tied)
    assert "trees" in values["shift.tests"] and "columns" not in values["shift.tests"]


def test_the_columns_that_shifted_are_named_with_their_sizes():
    train, test = frame(), frame(seed=1)
    facts = advisor.measure(train, "y", test=test.with_columns(x3=pl.col("x3") + 1.5))
    assert facts.values["columns.shifted"] == ["x3"]
    sizes = {column.name: column.shift for column in facts.columns}
    assert sizes["x3"]["distance"] == facts.values["shift.max_distance"] > 0.3
    assert sizes["x3"]["psi"] == facts.values["shift.max_psi"] > 0.25 > sizes["x1"]["psi"] >= 0
    assert 0 <= sizes["colour"]["jensen_shannon"] < 0.05


def test_nothing_is_compared_without_a_test_table_time_or_groups():
    values = shift_of(frame())
    assert values["shift.compared_with"] == "nothing"
    for name, spec in FACTS.items():
        if name.startswith("shift.") and spec.nullable:
            assert values[name] is None
    recommendation = advisor.recommend(frame(), "y")
    assert not {item.rule for item in recommendation.unjudged} & {
        rule.rule for rule in recommendation.findings
    }
    assert recommendation.configuration["validation_weights"] == "equal"
    assert findings(recommendation).isdisjoint({"shift", "drift", "target-drift", "not-covered"})


def test_time_and_groups_are_compared_inside_the_training_rows():
    rising = frame(400, day=pl.int_range(400)).with_columns(x0=pl.col("x0") + pl.col("day") / 100)
    values = shift_of(rising, time_column="day")
    assert values["shift.compared_with"] == "time" and values["shift.detected"]
    assert values["shift.target_detected"] is False
    assert "drift" in findings(advisor.recommend(rising, "y", time_column="day"))
    turned = rising.with_columns(y=pl.when(pl.col("day") < 150).then(pl.lit("no")).otherwise(pl.lit("yes")))
    turned = turned.with_columns(y=pl.when(pl.col("day") % 10 == 0).then(pl.lit("no")).otherwise("y"))
    assert "target-drift" in findings(advisor.recommend(turned, "y", time_column="day"))
    grouped = frame(400, person=pl.int_range(400) // 40)
    values = shift_of(grouped, group_column="person")
    assert values["shift.compared_with"] == "groups" and not values["shift.detected"]
    far = grouped.with_columns(x0=pl.col("x0") + 5 * (pl.col("person") % 5))
    assert shift_of(far, group_column="person")["shift.detected"]


def test_new_levels_values_out_of_range_and_period_columns_are_reported():
    train = frame(year=2000 + pl.int_range(300) // 100)
    test = frame(seed=1, year=2003 + pl.int_range(300) // 100)
    test = test.with_columns(colour=pl.when(pl.int_range(300) < 12).then(pl.lit("mauve")).otherwise("colour"))
    facts = advisor.measure(train, "y", test=test).values
    assert facts["columns.unseen_categories"] == ["colour"] and facts["shift.unseen_category_share"] == 0.04
    assert facts["columns.out_of_range"] == ["year"] and facts["shift.out_of_range_share"] == 1.0
    assert facts["columns.separating"] == ["year"] and facts["shift.separating_columns"] == 1
    recommendation = advisor.recommend(train, "y", test=test)
    assert findings(recommendation) >= {"unseen-categories", "separating-columns"}


def test_a_column_that_names_the_period_is_left_out_unless_the_person_keeps_it():
    train = frame(year=2000 + pl.int_range(300) // 100)
    test = frame(seed=1, year=1997 + pl.int_range(300) // 100)
    advice = get_advice(train, "y", AdviceOptions(test=test))
    (finding,) = [
        finding for finding in advice.recommendation.findings if finding.code == "separating-columns"
    ]
    assert finding.columns == ("year",) and "--type COLUMN=numeric" in finding.actions[0]
    assert advice.recommendation.data["types"] == {"year": "identifier"}
    assert "year" not in advice.data.dataset("train").features.numeric_names
    assert advice.facts.values["columns.separating"] == [] and advice.facts.values["shift.detected"] is False
    kept = get_advice(train, "y", AdviceOptions(test=test, types={"year": "numeric"}))
    assert "year" in kept.data.dataset("train").features.numeric_names and "separating-columns" in findings(
        kept.recommendation
    )
    without = get_advice(train, "y", AdviceOptions(test=test, without=["separating-columns"]))
    assert "year" in without.data.dataset("train").features.numeric_names


def test_a_column_by_which_the_test_rows_are_later_orders_the_validation_unless_the_person_prevents_it():
    rows = 700
    train, test = frame(rows, year=2000 + pl.int_range(rows) // 100), frame(300, seed=1, year=pl.lit(2007))
    advice = get_advice(train, "y", AdviceOptions(test=test))
    assert advice.reading.time_column == advice.recommendation.data["time_column"] == "year"
    assert advice.data.dataset("train").times is not None
    assert advice.data.dataset("train").features.trend == ("year",)
    assert "year" not in advice.facts.values["columns.shifted"], "its shift is what a time is"
    (finding,) = [finding for finding in advice.recommendation.findings if finding.code == "later-test-rows"]
    assert finding.columns == ("year",)
    configuration = advice.recommendation.configuration
    assert (configuration["validation"], configuration["final_members"]) == ("holdout", 5)
    assert configuration["time_trend"] == "none" and advice.recommendation.space["time_trend"].choices == (
        "none",
        "clamped",
    )
    for kept in (
        AdviceOptions(test=test, types={"year": "numeric"}),
        AdviceOptions(test=test, without=["test-rows-are-later"]),
    ):
        assert get_advice(train, "y", kept).reading.time_column is None
    own = get_advice(
        train.with_columns(t=pl.int_range(rows)),
        "y",
        AdviceOptions(test=test.with_columns(t=pl.lit(0)), time_column="t"),
    )
    assert own.reading.time_column == "t", "a user's own stays"
    steep = frame(
        rows, year=2000 + (pl.int_range(rows) >= 100).cast(int) + (pl.int_range(rows) >= 200).cast(int)
    )
    assert get_advice(steep, "y", AdviceOptions(test=test)).reading.time_column is None, (
        "most rows would validate"
    )
    few = frame(rows, year=2000 + pl.int_range(rows) // 400)
    assert get_advice(few, "y", AdviceOptions(test=test)).reading.time_column is None, (
        "two years are no order to split"
    )


def test_the_plan_weighs_validation_by_likeness_when_the_rows_differ_and_overlap():
    train, test = frame(800), frame(400, seed=1).with_columns(x0=pl.col("x0") + 1.2)
    advice = get_advice(train, "y", AdviceOptions(test=test))
    recommendation = advice.recommendation
    assert recommendation.configuration["validation_weights"] == "like_test"
    assert recommendation.provenance["validation_weights"].steps[-1].rule == "validate-like-the-test-rows"
    assert "validation_weights" not in recommendation.space.searched
    weights = likeness_to_test(advice.data)
    assert weights is not None and weights.mean() == pytest.approx(1) and weights.min() > 0
    assert np.array_equal(weights, likeness_to_test(advice.data))
    x0 = train["x0"].to_numpy()
    assert x0.mean() + 0.4 < np.average(x0, weights=weights) < test["x0"].mean() + 0.4
    equal = advisor.recommend(train, "y", test=frame(400, seed=1))
    assert equal.configuration["validation_weights"] == "equal"


def test_rows_that_do_not_overlap_are_not_weighted():
    apart = frame(400, seed=1).with_columns(*(pl.col(f"x{i}") + 9 for i in range(6)))
    recommendation = advisor.recommend(frame(800), "y", test=apart)
    assert recommendation.configuration["validation_weights"] == "equal"
    assert "not-covered" in findings(recommendation)


def test_weights_reach_the_validation_loss_and_only_it():
    from dataclasses import replace

    from advisor.splits import make_splits
    from advisor.training.loop import train_epochs

    data = load_table(frame(), "y", ReadingOptions(test=frame(seed=1))).dataset("train")
    splits = make_splits(data, scheme="holdout", folds=5, fraction=0.3, seed=0)
    configuration = base_space().complete({"epochs": 2})
    weights = np.where(np.arange(len(data)) % 2, 1.9, 0.1)
    curves = []
    for own in (data, replace(data, weights=np.ones(len(data))), replace(data, weights=weights)):
        curves.append(
            [
                (epoch.train_loss, epoch.validation_loss)
                for epoch in train_epochs(configuration, own, splits, seed=0)
            ]
        )
    assert curves[0] == curves[1]
    assert [loss for loss, _ in curves[0]] == [loss for loss, _ in curves[2]]
    assert all(a != b for (_, a), (_, b) in zip(curves[0], curves[2], strict=True))


@pytest.mark.slow
def test_training_with_weights_runs_to_the_end(tmp_path):
    test = frame(60, seed=1).with_columns(x0=pl.col("x0") + 1.2)
    fixed = {"validation_weights": "like_test", "epochs": 2, "hidden_layers": 1}
    run = advisor.train(frame(120), "y", test=test, out=tmp_path / "run", fixed=fixed)
    assert math.isfinite(run.document["estimate"]["mean"])
    with pytest.raises(UserError, match="needs a test table"):
        advisor.train(frame(120), "y", out=tmp_path / "other", fixed=fixed)


def test_the_test_target_changes_nothing():
    train, test = frame(), frame(seed=1).with_columns(x0=pl.col("x0") + 1)
    first, second = (
        load_table(train, "y", ReadingOptions(test=t)) for t in (test, test.with_columns(y=pl.lit("yes")))
    )
    assert np.array_equal(likeness_to_test(first), likeness_to_test(second))
    facts = [advisor.measure(train, "y", test=t) for t in (test, test.with_columns(y=pl.col("y").reverse()))]
    assert {n: v for n, v in facts[0].values.items() if not n.startswith("memory")} == {
        n: v for n, v in facts[1].values.items() if not n.startswith("memory")
    }
    assert facts[0].columns == facts[1].columns


@pytest.mark.parametrize("rows", [1, 5, 25])
@pytest.mark.parametrize("swap", [False, True])
def test_dirty_and_tiny_tables_are_compared_without_a_failure(rows, swap):
    words = ["a little text here", "some more words", "and yet another line of it"]
    dirty = frame(60).with_columns(
        x0=pl.lit(None, pl.Float64), x1=pl.lit("same"), x2=pl.col("x2") * 1e300,
        note=pl.Series([f"{words[i % 3]} {i} {words[i * 7 % 3]}" for i in range(60)]),
        day=pl.Series([f"2024-01-{1 + i % 28:02}" for i in range(60)]),
    )  # fmt: skip
    other = frame(rows, seed=1).with_columns(
        x0=pl.lit(5.0), x1=pl.lit(
            "new"
        ), x2=pl.lit(math.inf), x3=pl.lit(math.nan), x4=pl.lit(None, pl.Float64),
        colour=pl.lit(None, pl.String), note=pl.lit(""), day=pl.lit("never"),
    )  # fmt: skip
    types = {"note": "text", "day": "datetime"}
    first, second = (other, dirty) if swap and rows == 25 else (dirty, other)
    if first is other:
        first, types = other.with_columns(note=dirty["note"].head(rows), day=dirty["day"].head(rows)), types
    facts = advisor.measure(first, "y", test=second, types=types, task="binary")
    json.dumps(facts.to_dict(), allow_nan=False)
    if second.height < 20:
        assert facts.values["shift.detected"] is None and facts.values["shift.rows"] == first.height + rows
    else:
        assert facts.values["shift.detected"] is (first is dirty)


def test_a_test_table_without_rows_is_refused():
    with pytest.raises(UserError, match="no row is left for the test part"):
        advisor.measure(frame(), "y", test=frame().clear())


def test_a_sample_is_compared_of_large_tables_and_says_so():
    facts = advisor.measure(frame(7000), "y", test=frame(6000, seed=1))
    assert facts.values["shift.rows"] == 10_000
    assert facts.sampled["shift.auc"] == "10,000 of 13,000 rows"


def test_recommending_imports_no_learning_library_that_is_not_needed(tmp_path):
    frame().write_csv(tmp_path / "train.csv")
    code = (
        "import sys, advisor; advisor.recommend(sys.argv[1], 'y');"
        "print([m for m in ('torch', 'ray', 'optuna', 'sklearn', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "train.csv")], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_a_level_that_the_test_rows_alone_have_is_found_and_rare_ones_are_no_alarm():
    draw = np.random.default_rng(0)
    train, test = (
        pl.DataFrame({"c": draw.choice(list("abcd"), 400), "y": draw.choice(["u", "v"], 400)})
        for _ in range(2)
    )
    new = test.with_columns(pl.when(pl.int_range(400) < 12).then(pl.lit("new")).otherwise("c").alias("c"))
    assert advisor.measure(train, "y", test=test).values["shift.detected"] is False
    facts = advisor.measure(train, "y", test=new).values
    assert facts["shift.detected"] and "new levels" in facts["shift.tests"]
    many = [
        pl.DataFrame({"c": draw.integers(0, 300, 400).astype(str), "y": draw.choice(["u", "v"], 400)})
        for _ in range(2)
    ]
    assert (
        "new levels"
        not in advisor.measure(many[0], "y", test=many[1], types={"c": "categorical"}).values["shift.tests"]
    )


def of_groups(names, rows=60, seed=0, away=0.0):
    draw = np.random.default_rng(seed)
    each = np.repeat(names, rows)
    x = (
        np.repeat(draw.normal(0, 0.5, (len(names), 3)), rows, axis=0)
        + draw.normal(size=(len(each), 3))
        + away
    )
    columns = {f"x{place}": x[:, place] for place in range(3)}
    return pl.DataFrame(
        columns | {"state": [f"S{name}" for name in each], "y": draw.choice(["u", "v"], len(each)).tolist()}
    )


@pytest.mark.parametrize("tested, train, away, code", [
    (1, 30, 0.0, "few-test-groups"), (1, 30, 3.0, "test-groups-far-off"), (6, 30, 0.0, "few-test-groups"),
    (6, 6, 0.0, "few-test-groups"),
])  # fmt: skip
def test_groups_too_few_for_a_test_are_told_by_how_far_they_lie(tested, train, away, code):
    test = of_groups(range(100, 100 + tested), seed=1, away=away)
    found = advisor.recommend(of_groups(range(train)), "y", test=test, group_column="state").findings
    finding = next(f for f in found if f.code in ("few-test-groups", "test-groups-far-off"))
    assert finding.code == code and "x0 (" in finding.message
    facts = shift_of(of_groups(range(train)), test=test, group_column="state")
    assert facts["shift.detected"] is None and facts["shift.test_groups"] == tested
    assert (facts["shift.group_share"] is None) == (tested >= train)
    assert (facts["shift.group_distance"] > 0.5) == (away > 0)
