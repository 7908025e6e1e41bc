"""Rows that train and test, columns of one value: the facts, and the findings that they make."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import advisor
from advisor.facts.duplicates import disagreement
from advisor.runs.advice import AdviceOptions
from advisor.runs.model import load_model
from advisor.workflows.recommend import get_advice


def frame(rows=200, seed=0):
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, rows))
    return pl.DataFrame(
        {"a": a, "b": b, "c": draw.choice(["u", "v"], rows), "y": np.where(a > 0, "yes", "no")}
    )


def codes(recommendation):
    return {finding.code for finding in recommendation.findings}


@pytest.mark.parametrize("repeated", [0, 10])
def test_test_rows_that_are_training_rows_are_counted(repeated):
    train, test = frame(), frame(100, seed=1)
    test = pl.concat([train.head(repeated), test.tail(100 - repeated)])
    facts = advisor.measure(train, "y", test=test).values
    assert facts["duplicates.test_share"] == pytest.approx(repeated / 100)
    assert ("test-rows-in-training-data" in codes(advisor.recommend(train, "y", test=test))) == (repeated > 0)


def test_rows_that_differ_by_rounding_are_near():
    train = frame()
    test = pl.concat([train.head(20).with_columns(pl.col("a").round_sig_figs(4)), frame(80, seed=2)])
    facts = advisor.measure(train, "y", test=test).values
    assert facts["duplicates.test_share"] < 0.02
    assert facts["duplicates.near_test_share"] >= 0.1
    assert "near-test-rows-in-training-data" in codes(advisor.recommend(train, "y", test=test))


def coarse(rows, seed, task):
    """Two columns of a few values, and a target that owes them little, or nearly everything ("rare")."""
    draw = np.random.default_rng(seed)
    data = pl.DataFrame({"a": draw.integers(0, 5, rows), "b": draw.choice(["u", "v", "w"], rows).tolist()})
    if task == "rare":
        chance = np.where(data["a"].to_numpy() == 0, 0.7, 0.02)
        return data.with_columns(y=pl.Series(np.where(draw.random(rows) < chance, "yes", "no")))
    if task == "regression":
        return data.with_columns(y=pl.Series(draw.lognormal(size=rows) * (1 + 0.1 * data["a"].to_numpy())))
    return data.with_columns(y=pl.Series(draw.choice(["no", "yes", "so"], rows, p=[0.7, 0.2, 0.1]).tolist()))


@pytest.mark.parametrize("task", ["regression", "multiclass", "rare"])
def test_rows_that_look_alike_by_nature_are_not_called_copies(task):
    train, test = coarse(400, 0, task), coarse(100, 1, task)
    facts = advisor.measure(train, "y", test=test, types={"a": "numeric"}).values
    assert facts["duplicates.test_share"] == 1.0 and facts["duplicates.share"] > 0.9
    assert 0.7 < facts["duplicates.target_disagreement"] < 1.3
    assert 0.7 < facts["duplicates.test_target_disagreement"] < 1.3
    assert facts["duplicates.near_target_disagreement"] == facts["duplicates.test_target_disagreement"]
    found = codes(advisor.recommend(train, "y", test=test))
    assert "rows-recur" in found and found.isdisjoint(
        {"test-rows-in-training-data", "near-test-rows-in-training-data", "duplicates"}
    )


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_copies_are_called_copies(task):
    rows = frame().with_columns(coarse(200, 2, task)["y"])
    train, test = (
        pl.concat([rows, rows.head(60)]),
        pl.concat([rows.head(50), frame(50, seed=3).with_columns(rows["y"].head(50))]),
    )
    facts = advisor.measure(train, "y", test=test).values
    assert facts["duplicates.share"] == pytest.approx(60 / 260) and facts["duplicates.test_share"] == 0.5
    assert facts["duplicates.target_disagreement"] == 0.0
    found = codes(advisor.recommend(train, "y", test=test))
    assert found >= {"test-rows-in-training-data", "duplicates"} and "rows-recur" not in found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60), st.booleans())
def test_without_inputs_disagreement_is_beside_that_of_all_rows(rows, regression):
    keys, target = (np.array(side) for side in zip(*rows, strict=True))
    if regression:
        columns = [
            [
                sum(other < one for other in target) + sum(other == one for other in target) / 2
                for one in target
            ]
        ]
    else:
        columns = [[float(code == one) for code in target] for one in set(target.tolist())]
    within = left = 0.0
    for key in set(keys.tolist()):
        own = np.flatnonzero(keys == key)
        for column in np.array(columns, dtype=float):
            pairs = itertools.combinations(column[own], 2)
            within += sum((one - other) ** 2 for one, other in pairs) / len(own)
            left += sum((column[own] - column.mean()) ** 2) * (len(own) - 1) / len(own)
    expected = within / left if left > 1e-9 else 0.0
    assert disagreement(keys, target, regression=regression) == pytest.approx(expected, abs=1e-9)


def test_the_target_of_the_test_rows_tells_copies_and_nothing_else():
    train = frame()
    test = train.head(30)
    other = test.with_columns(pl.Series("y", ["no", "yes"] * 15))
    one, two = (advisor.measure(train, "y", test=part).values for part in (test, other))
    assert one["duplicates.test_share"] == two["duplicates.test_share"] == 1.0
    assert one["duplicates.test_target_disagreement"] == 0.0 < two["duplicates.test_target_disagreement"]
    judged = {
        "duplicates.test_target_disagreement",
        "duplicates.near_target_disagreement",
        "memory.available_gb",
    }
    assert {name for name in one if one[name] != two[name]} <= judged


def test_a_copied_test_is_called_so_though_two_training_rows_contradict_each_other():
    rows = frame(300)
    twin = rows.head(1).with_columns(y=pl.lit("no") if rows["y"][0] == "yes" else pl.lit("yes"))
    found = codes(advisor.recommend(pl.concat([rows, twin]), "y", test=rows.slice(50, 100)))
    assert "test-rows-in-training-data" in found and "rows-recur" not in found


def test_a_finding_is_told_once():
    def part(rows, year, seed):
        when = pl.select(pl.datetime(year, 1, 1) + pl.duration(days=pl.int_range(rows) % 300)).to_series()
        return frame(rows, seed).with_columns(
            when.alias("when"), (when + pl.duration(days=30)).alias("due"), year=pl.lit(year)
        )

    findings = advisor.recommend(part(200, 2019, 0), "y", test=part(100, 2021, 1)).findings
    assert "separating-columns" in {finding.code for finding in findings}
    assert len({finding.code for finding in findings}) == len(findings)


def test_columns_of_nearly_one_value_are_named():
    data = frame(1000).with_columns(
        pl.when(pl.int_range(1000) < 5).then(1.0).otherwise(0.0).alias("flag"),
        pl.Series("word", ["x"] * 996 + ["z"] * 4),
    )
    recommendation = advisor.recommend(data, "y")
    finding = next(f for f in recommendation.findings if f.code == "nearly-constant-columns")
    assert set(finding.columns) == {"flag", "word"}


@pytest.mark.parametrize("given, code", [({}, True), ({"time_column": "when"}, False)])
def test_rows_in_order_of_time(given, code):
    start = pl.datetime(2024, 1, 1)
    when = pl.select((start + pl.duration(days=pl.int_range(200))).alias("when"))
    data = frame().hstack(when)
    assert ("rows-in-order-of-time" in codes(advisor.recommend(data, "y", **given))) == code


def test_a_class_of_few_rows_and_rows_without_a_target():
    data = frame().with_columns(
        pl.when(pl.int_range(200) < 4)
        .then(pl.lit("rare"))
        .when(pl.int_range(200) < 40)
        .then(None)
        .otherwise("y")
        .alias("y")
    )
    assert {"tiny-classes", "target-with-missing-values"} <= codes(advisor.recommend(data, "y"))


def remarked(rows=300, telling=False, task="classes"):
    """Three numbers, a target, and remarks of five words, one of which tells of the
    target in half of the rows if asked."""
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(rows, 3))
    y = numbers[:, 0] + draw.normal(size=rows)
    words = np.char.add("w", draw.integers(0, 60, (rows, 5)).astype(str)).astype(object)
    if telling:
        words[::2, 0] = np.where(y[::2] > 0, "high", "low")
    answer = pl.Series(np.where(y > 0, "yes", "no")) if task == "classes" else pl.Series(np.exp(3 * y))
    return pl.DataFrame({f"x{place}": numbers[:, place] for place in range(3)}).with_columns(
        remark=pl.Series([" ".join(row) for row in words.tolist()]), y=answer
    )


@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_a_text_that_tells_nothing_is_left_out_unless_the_person_keeps_it(task):
    frame = remarked(task=task)
    advice = get_advice(frame, "y")
    assert {c.name: c.type for c in advice.data.schema.columns}["remark"] == "identifier"
    (finding,) = [found for found in advice.recommendation.findings if found.code == "uninformative-text"]
    assert finding.columns == ("remark",) and "--type COLUMN=text" in finding.actions[0]
    kept = get_advice(frame, "y", AdviceOptions(types={"remark": "text"}))
    assert {c.name: c.type for c in kept.data.schema.columns}["remark"] == "text"
    assert kept.facts.values["columns.uninformative_text"] == ["remark"]
    without = get_advice(frame, "y", AdviceOptions(without=["uninformative-text"]))
    assert {c.name: c.type for c in without.data.schema.columns}["remark"] == "text"
    alone = get_advice(frame.select("remark", "y"), "y")  # there is nothing else
    assert {c.name: c.type for c in alone.data.schema.columns}["remark"] == "text"


@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_a_text_that_tells_of_the_target_is_used(task):
    advice = get_advice(remarked(telling=True, task=task), "y")
    assert {c.name: c.type for c in advice.data.schema.columns}["remark"] == "text"
    assert advice.facts.values["text.uninformative"] == 0
    assert {"high", "low"} <= set(advice.data.schema.words["remark"])


def test_a_model_reads_words_in_new_rows(tmp_path):
    frame = remarked(telling=True)
    advisor.train(frame, "y", out=tmp_path / "run", fixed={"epochs": 20, "validation": "holdout"})
    row = frame.head(1)
    told = pl.concat([row.with_columns(remark=pl.lit(text)) for text in ("high", "low")])
    high, low = load_model(tmp_path / "run").predict_proba(told)[:, 1]
    assert high > low


def test_a_column_of_any_kind_that_is_filled_for_one_class_gives_the_target_away():
    draw = np.random.default_rng(0)
    gone = draw.random(400) < 0.3
    cells = {
        "left": pl.select(pl.datetime(2024, 1, 1) + pl.duration(days=pl.int_range(400) % 90)).to_series(),
        "why": pl.Series(
            [" ".join(draw.choice(["too", "dear", "slow", "moved", "away"], 5)) for _ in range(400)]
        ),
        "fee": pl.Series(draw.normal(size=400)),
        "note": pl.Series(["x"] * 400),
    }
    kept = {"left": gone, "why": gone & (draw.random(400) < 0.7), "fee": gone, "note": draw.random(400) < 0.5}
    data = frame(400).with_columns(y=pl.Series(np.where(gone, "gone", "there")))
    for name, series in cells.items():
        data = data.with_columns(pl.when(pl.Series(kept[name])).then(series).alias(name))
    assert advisor.measure(data, "y").values["columns.leaking"] == ["fee", "left", "why"]
