"""Rows that train and test, columns of one value: the facts, and the findings that they make."""

import numpy as np
import polars as pl
import pytest

import advisor


def frame(rows=200, seed=0):
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, rows))
    return pl.DataFrame({"a": a, "b": b, "c": draw.choice(["u", "v"], rows), "y": np.where(a > 0, "yes", "no")})


def codes(recommendation):
    return {finding.code for finding in recommendation.findings}


@pytest.mark.parametrize("repeated", [0, 10])
def test_test_rows_that_are_training_rows_are_counted(repeated):
    train, test = frame(), frame(100, seed=1)
    test = pl.concat([train.head(repeated), test.tail(100 - repeated)])
    facts = advisor.measure(train, "y", test=test).values
    assert facts["duplicates.test_share"] == pytest.approx(repeated / 100)
    assert ("test-rows-that-train" in codes(advisor.recommend(train, "y", test=test))) == (repeated > 0)


def test_rows_that_differ_by_rounding_are_near():
    train = frame()
    test = pl.concat([train.head(20).with_columns(pl.col("a").round_sig_figs(4)), frame(80, seed=2)])
    facts = advisor.measure(train, "y", test=test).values
    assert facts["duplicates.test_share"] < 0.02
    assert facts["duplicates.near_test_share"] >= 0.1
    assert "test-rows-that-nearly-train" in codes(advisor.recommend(train, "y", test=test))


def test_the_target_of_the_test_rows_plays_no_part():
    train = frame()
    test = train.head(30)
    other = test.with_columns(pl.Series("y", ["no", "yes"] * 15))
    one, two = (advisor.measure(train, "y", test=part).values for part in (test, other))
    assert one["duplicates.test_share"] == two["duplicates.test_share"] == 1.0


def test_columns_of_nearly_one_value_are_named():
    data = frame(1000).with_columns(
        pl.when(pl.int_range(1000) < 5).then(1.0).otherwise(0.0).alias("flag"), pl.Series("word", ["x"] * 996 + ["z"] * 4)
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
        pl.when(pl.int_range(200) < 4).then(pl.lit("rare")).when(pl.int_range(200) < 40).then(None).otherwise("y").alias("y")
    )
    assert {"tiny-classes", "target-with-missing-values"} <= codes(advisor.recommend(data, "y"))
