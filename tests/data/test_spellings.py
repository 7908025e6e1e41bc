"""Spellings of one category or class: joined where nothing else can be meant, told,
kept apart on demand, remembered."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import advisor
from advisor.cli.main import _run
from advisor.data.options import ReadingOptions
from advisor.data.tables.features import encode_new
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.spellings import joins, respelled
from advisor.data.tables.table import load_table

FAST = {"epochs": 2, "validation": "holdout", "batch_size": 64}


def spelled(*labels):
    return pl.Series([label for rank, label in enumerate(labels) for _ in range(20 - rank)])


@pytest.mark.parametrize(
    "labels, by_default, asked",
    [
        (["Yes", "yes ", "YES", "yes."], {"yes ": "Yes", "YES": "Yes", "yes.": "Yes"}, None),
        ([" >50K", " >50K.", "<=50K"], {" >50K.": " >50K"}, None),
        (
            ["New York", "new  york", "New-York"],
            {"new  york": "New York"},
            {"new  york": "New York", "New-York": "New York"},
        ),
        (["M", "m", "F", "f", "M "], {"M ": "M"}, {"m": "M", "f": "F", "M ": "M"}),
        (["CO", "Co"], {}, {"Co": "CO"}),
        (["aB3x", "Ab3X", "house", "House"], {"House": "house"}, {"Ab3X": "aB3x", "House": "house"}),
        (["-1", "1", "A", "A-", "1.1", "11", "+1"], {}, {}),
        (["a b", "ab", "a.b"], {}, {"a.b": "a b"}),
    ],
)
def test_what_is_joined_by_default_and_what_on_demand(labels, by_default, asked):
    assert joins(spelled(*labels), None) == by_default
    assert joins(spelled(*labels), True) == (by_default if asked is None else asked)
    assert joins(spelled(*labels), False) == {}


@given(
    st.lists(st.text(alphabet="aAbB .-_é1", max_size=5), min_size=1, max_size=12),
    st.sampled_from([None, True]),
)
def test_joining_ends_at_a_spelling_that_stays(labels, join):
    joined = joins(pl.Series(labels), join)
    assert not set(joined.values()) & set(joined) and set(joined) | set(joined.values()) <= set(labels)
    kept = sorted(set(labels) - set(joined))
    assert joins(pl.Series([joined.get(label, label) for label in labels]), join) == {}
    assert set(respelled(labels, kept, join).values()) <= set(kept)


def table(rows=240, seed=0):
    draw = np.random.default_rng(seed)
    a = draw.normal(size=rows)
    spellings = np.where(
        a > 0, draw.choice(["Yes", "Yes", "yes ", "YES"], rows), draw.choice(["No", "No", "no."], rows)
    )
    towns = draw.choice(["Paris", "Paris", "paris", "Rome"], rows)
    return pl.DataFrame({"a": a, "town": towns.tolist(), "y": spellings.tolist()})


def test_classes_and_categories_are_joined_told_and_kept_apart_on_demand():
    advice = advisor.recommend(table(), "y")
    (finding,) = (f for f in advice.findings if f.code == "spellings-joined")
    assert (
        finding.columns == ("town", "y")
        and "'YES' as 'Yes'" in finding.message
        and "--keep-spellings" in finding.actions[0]
    )
    loaded = load_table(table(), "y")
    assert loaded.schema.classes == ("No", "Yes") and loaded.schema.levels["town"] == ("Paris", "Rome")
    assert set(loaded.test["town"]) == {"Paris", "Rome"}
    apart = load_table(table(), "y", ReadingOptions(join_spellings=False))
    assert len(apart.schema.classes) == 5 and len(apart.schema.levels["town"]) == 3
    assert "spellings-joined" not in {
        f.code for f in advisor.recommend(table(), "y", join_spellings=False).findings
    }


def test_a_test_table_of_the_uci_kind_is_scored_and_told():
    train = table().with_columns(y=pl.when(pl.col("a") > 0).then(pl.lit(" >50K")).otherwise(pl.lit(" <=50K")))
    test = table(60, 1).with_columns(
        y=pl.when(pl.col("a") > 0).then(pl.lit(" >50K.")).otherwise(pl.lit(" <=50K."))
    )
    loaded = load_table(train, "y", ReadingOptions(test=test))
    assert set(loaded.test["y"]) == {" >50K", " <=50K"}
    (change,) = (change for change in loaded.changes if change.column == "y")
    assert (change.kind, change.cells, change.read) == ("spelling", 60, True)
    finding = next(
        f for f in advisor.recommend(train, "y", test=test).findings if f.code == "format-mismatch"
    )
    assert "y" in finding.columns
    with pytest.raises(advisor.UserError, match=r"no training row has.*--join-spellings"):
        load_table(train, "y", ReadingOptions(test=test, join_spellings=False))


def test_new_rows_are_read_as_the_training_rows_were():
    for join, told in ((None, 1), (False, 1)):
        schema = load_table(table(), "y", ReadingOptions(join_spellings=join)).schema
        schema = TableSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
        features, changes = encode_new(table(40, 2).with_columns(town=pl.lit("PARIS ")), schema)
        assert [change.kind for change in changes] == ["spelling" if join is None else "unseen"] * told
        code = features.categorical[:, 0]
        assert (code == schema.levels["town"].index("Paris")).all() == (join is None)
        assert not encode_new(table(40, 2), schema)[1], "what was joined in training is nothing new"


def test_the_run_remembers_what_was_asked(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    table().write_csv("rows.csv")
    for option, classes in (("--keep-spellings", 5), ("--join-spellings", 2)):
        out = option.strip("-")
        fixed = [word for name, value in FAST.items() for word in ("--set", f"{name}={value}")]
        assert _run(["train", "rows.csv", "--target", "y", option, "--out", out, *fixed]) == 0, (
            capfd.readouterr().err
        )
        model = advisor.load_model(out)
        assert len(model.classes) == classes and set(model.predict("rows.csv")) <= set(table()["y"])
        assert _run(["recommend", "rows.csv", "--target", "y", option, "--out", out]) == 0
        assert option in (tmp_path / out / "report.html").read_text()
