"""Rows that belong together: what names a thing is found, what only looks so is
not, and what the plan makes of it."""

import numpy as np
import polars as pl
import pytest

import advisor
from advisor.runs.advice import AdviceOptions
from advisor.workflows.recommend import get_advice


def panel(things=40, rows=10, seed=0, name=lambda number: number * 7 % 41 + 100):
    """Rows of persons, whose age and height stay; ``name`` makes their names of
    their numbers, by default in no order."""
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(things), rows)
    age, height, own = (
        draw.integers(20, 80, things),
        draw.normal(170, 10, things).round(),
        draw.normal(size=things),
    )
    x, z = draw.normal(size=(2, len(who))).round(3)
    data = {
        "person": [name(number) for number in who.tolist()],
        "age": age[who],
        "height": height[who],
        "x": x,
        "z": z,
    }
    data["y"] = x + 0.02 * age[who] + own[who]
    return pl.DataFrame(data)[draw.permutation(len(who))]


def measured(train, test=None, **options):
    facts = advisor.measure(train, "y", test=test, **options).values
    return {
        name: facts[name]
        for name in ("columns.unseen_groups", "columns.entity", "columns.of_entities", "groups.entities")
    }


def parted(rows, column="person"):
    """A quarter of the values, those in between, and the rest."""
    new = rows[column].unique().sort().gather_every(4, offset=1).implode()
    return rows.filter(~pl.col(column).is_in(new)), rows.filter(pl.col(column).is_in(new))


def codes(recommendation):
    return {finding.code for finding in recommendation.findings}


@pytest.mark.parametrize("name", [lambda n: n * 7 % 41 + 100, lambda n: f"P{n:03d}", lambda n: n])
def test_what_names_a_thing_of_several_rows_is_found_by_what_stays_with_it(name):
    found = measured(panel(name=name))
    assert found["columns.entity"] == ["person"] and found["columns.of_entities"] == ["age", "height"]
    assert found["groups.entities"] == 40
    advised = advisor.recommend(panel(name=name), "y")
    assert "several-rows-per-entity" in codes(advised) and advised.configuration["validation"] == "kfold"
    assert advised.data["group_column"] is None  # whether rows to come are of new persons no table says


def test_nothing_is_said_where_the_person_said_it_or_the_test_rows_are_of_known_things():
    rows = panel()
    assert measured(rows, group_column="person")["columns.entity"] == []
    assert "several-rows-per-entity" not in codes(advisor.recommend(rows, "y", group_column="person"))
    assert measured(rows, types={"person": "categorical"})["columns.entity"] == []
    found = measured(rows[:300], rows[300:])
    assert found["columns.entity"] == found["columns.unseen_groups"] == []


@pytest.mark.parametrize(
    "columns",
    [
        {
            "time": 100 * (pl.int_range(pl.len()) % 12) + pl.int_range(pl.len()) % 5
        },  # with its hour and minute
        {"town": (pl.int_range(pl.len()) * 7 % 20).cast(pl.String) + "town"},  # in one county: a hierarchy
        {
            name: pl.col("x").rank("dense").cast(pl.Int64) // width
            for name, width in (("fine", 10), ("bin", 30), ("wide", 60))
        },
    ],
)
def test_what_is_computed_from_a_number_or_stands_above_a_name_is_no_thing(columns):
    rows = panel().drop("person", "age", "height").with_columns(**columns)
    if "time" in columns:
        rows = rows.with_columns(hour=pl.col("time") // 100, minute=pl.col("time") % 100)
    if "town" in columns:
        rows = rows.with_columns(county=pl.col("town").str.len_chars().cast(pl.String) + "c")
    found = measured(rows)
    assert found["columns.entity"] == [], found


def test_rows_that_stand_together_are_not_taken_for_one_thing():
    """A grade from 1 to 12 says nothing of the year, but neighbouring rows are of one."""
    draw = np.random.default_rng(0)
    year = np.sort(draw.integers(2000, 2020, 4000))
    rows = pl.DataFrame(
        {"grade": draw.integers(1, 13, 4000), "year": year, "wave": year // 2, "x": draw.normal(size=4000)}
    )
    assert measured(rows.with_columns(y=pl.Series(draw.normal(size=4000))))["columns.entity"] == []


@pytest.mark.parametrize("name", [lambda n: n * 7 % 41 + 100, lambda n: f"P{n:03d}"])
def test_groups_of_which_the_test_rows_have_none_are_held_out_whole(name):
    train, test = parted(panel(name=name))
    advice = get_advice(train, "y", AdviceOptions(test=test))
    (finding,) = [finding for finding in advice.recommendation.findings if finding.code == "unseen-groups"]
    assert finding.columns == ("person",)
    assert advice.recommendation.data["group_column"] == "person"
    data = advice.data.dataset("train")
    assert data.groups is not None and len(np.unique(data.groups)) == 30
    assert "person" not in (*data.features.numeric_names, *data.features.categorical_names)


@pytest.mark.parametrize("options", [{"types": {"person": "categorical"}}, {"without": ["unseen-groups"]}])
def test_a_person_can_say_no_to_the_groups(options):
    train, test = parted(panel(name=lambda n: f"P{n:03d}"))
    advice = get_advice(train, "y", AdviceOptions(test=test, **options))
    assert advice.recommendation.data["group_column"] is None and advice.data.dataset("train").groups is None
    assert "unseen-groups" not in codes(advice.recommendation)


def test_the_coarsest_groups_are_taken_and_a_time_goes_before():
    rows = panel(100, 6, name=lambda n: f"P{n:03d}").with_columns(site="S" + pl.col("person").str.slice(1, 2))
    train, test = parted(rows, "site")
    assert measured(train, test)["columns.unseen_groups"] == ["site", "person"]
    assert get_advice(train, "y", AdviceOptions(test=test)).recommendation.data["group_column"] == "site"
    yearly = [
        part.with_columns(year=first + pl.int_range(pl.len()) % 4)
        for part, first in ((train, 2000), (test, 2010))
    ]
    advice = get_advice(yearly[0], "y", AdviceOptions(test=yearly[1]))
    assert (
        advice.recommendation.data["time_column"] == "year"
        and advice.recommendation.data["group_column"] is None
    )
    assert "later-test-rows" in codes(advice.recommendation) and "unseen-groups" not in codes(
        advice.recommendation
    )


@pytest.mark.parametrize(
    ("column", "helper", "code"),
    [("person_id", "group_column", "unseen-groups"), ("born", "time_column", "later-test-rows")],
)
def test_persons_numbered_as_they_came_are_groups_where_the_name_says_so(column, helper, code):
    rows = panel(name=lambda n: 1900 + n).rename({"person": column})
    train, test = rows.filter(pl.col(column) < 1930), rows.filter(pl.col(column) >= 1930)
    advised = get_advice(train, "y", AdviceOptions(test=test)).recommendation
    assert advised.data[helper] == column
    assert codes(advised) & {"unseen-groups", "later-test-rows"} == {code}


@pytest.mark.parametrize("low, high", [(0, 1000), (0, 20)])
def test_sizes_and_times_beyond_the_training_rows_are_no_groups(low, high):
    draw = np.random.default_rng(0)
    size = np.sort(draw.integers(low, high, 400))
    rows = pl.DataFrame({"size": size, "x": draw.normal(size=400), "y": draw.normal(size=400)})
    assert measured(rows[:300], rows[300:].filter(pl.col("size") > size[299]))["columns.unseen_groups"] == []


def test_static_columns_of_other_groups_are_no_shift():
    """Ten rows of each person tell the person, not on which side it is."""
    train, test = parted(panel(100, 10, name=lambda n: n * 37 % 101 + 100))
    assert advisor.measure(train, "y", test=test, types={"person": "identifier"}).values["shift.detected"]
    facts = advisor.measure(train, "y", test=test, group_column="person").values
    assert facts["shift.detected"] is False and facts["shift.rows"] == 1000
    taller = test.with_columns(pl.col("height") + 15)
    assert advisor.measure(train, "y", test=taller, group_column="person").values["shift.detected"]
    few = advisor.measure(train.filter(pl.col("person") < 120), "y", test=test, group_column="person")
    assert few.values["shift.detected"] is None  # of fewer than 20 persons nothing is known


@pytest.mark.parametrize(
    ("things", "rows", "plan"),
    [
        (
            10,
            900,
            {"validation": "kfold", "folds": 5, "final_members": 1},
        ),  # eight train: a fifth of them would be two
        (5, 1500, {"validation": "kfold", "folds": 4, "final_members": 1}),  # four train
        (80, 90, {"validation": "holdout", "validation_fraction": 0.2, "final_members": 4}),
        (60, 20, {"validation": "kfold", "folds": 5, "final_members": 1}),
        (20, 10, {"validation": "kfold", "folds": 8, "final_members": 1}),
    ],
)
def test_how_many_groups_there_are_decides_how_whole_ones_validate(things, rows, plan):
    advised = advisor.recommend(panel(things, rows, name=str), "y", group_column="person")
    assert {name: advised.configuration[name] for name in plan} == plan
    assert "whole groups" in advised.provenance["validation"].because


def test_whoever_holds_groups_out_keeps_the_networks_that_are_averaged_then():
    advised = advisor.recommend(
        panel(10, 900, name=str), "y", group_column="person", fixed={"validation": "holdout"}
    )
    assert (advised.configuration["validation"], advised.configuration["final_members"]) == ("holdout", 4)


def test_one_group_left_to_train_on_is_told_with_what_to_do(tmp_path):
    rows = panel(2, 100, name=str)  # of which one is set apart for the test
    advised = advisor.recommend(rows, "y", group_column="person")
    assert "whole groups" not in advised.provenance["validation"].because
    with pytest.raises(advisor.errors.UserError, match="give rows of more groups"):
        advisor.train(rows, "y", group_column="person", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_series_of_few_groups_are_cross_validated(tmp_path):
    draw = np.random.default_rng(0)
    series = draw.normal(size=(1600, 1, 32)).astype(np.float32)
    arrays = {"X": series, "y": draw.integers(0, 2, 1600)}
    for things, expected in ((8, "kfold"), (100, "holdout")):
        np.savez(tmp_path / "series.npz", **arrays, group=np.arange(1600) % things)
        advised = advisor.recommend(tmp_path / "series.npz")
        assert advised.configuration["validation"] == expected, things


def test_a_model_of_groups_is_trained_and_judged_on_new_ones(tmp_path):
    train, test = parted(panel())
    run = advisor.train(train, "y", test=test, out=tmp_path / "run", fixed={"epochs": 3, "final_members": 1})
    assert run.document["test"]["rows"] == len(test) and run.document["estimate"]["mean"] > 0


@pytest.mark.parametrize("case", ["target", "numbers"])
@pytest.mark.parametrize("named", ["text", "numbers"])
def test_patients_are_found_by_their_diagnosis_or_by_nearly_equal_measurements(case, named):
    draw = np.random.default_rng(0)
    patient = draw.permutation(np.repeat(np.arange(40), 8))
    sick = draw.integers(0, 2, 40)[patient] if case == "target" else draw.integers(0, 2, 320)
    noise = 0.01 if case == "numbers" else 1.0
    measured = draw.normal(size=(40, 3))[patient] + noise * draw.normal(size=(320, 3))
    frame = pl.DataFrame({f"x{place}": measured[:, place] for place in range(3)}).with_columns(
        patient=pl.Series([f"P{number}" for number in patient] if named == "text" else patient),
        y=pl.Series(np.where(sick == 1, "sick", "well")),
    )
    facts = advisor.measure(frame, "y").values
    assert facts["columns.entity"] == ["patient"] and facts["groups.entities"] == 40
    assert set(facts["columns.of_entities"]) >= ({"y"} if case == "target" else {"x0", "x1", "x2"})
    assert "patient" not in facts["columns.leaking"]


def test_a_number_that_the_target_is_computed_from_names_no_things():
    age = np.random.default_rng(0).integers(18, 70, 400)
    frame = pl.DataFrame({"age": age, "a": np.sin(age * 7.3), "y": np.where(age > 40, "old", "young")})
    assert not advisor.measure(frame, "y").values["groups.entities"]
