"""New rows whose columns stand in another form than the training rows': read
again where that is certain, and told."""

import datetime
import json
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

import advisor
from advisor.cli.main import _run
from advisor.data.options import ReadingOptions
from advisor.data.tables.features import encode_new
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import load_table, read_frame
from advisor.errors import FormChange, UserError

ROWS = 300
FAST = {"epochs": 2, "validation": "holdout", "batch_size": 64}


def training_rows():
    draw = np.random.default_rng(0)
    hours = draw.integers(0, 24, ROWS)
    return pl.DataFrame(
        {
            "date": [
                str(datetime.date(2019, 1, 1) + datetime.timedelta(days=int(day)))
                for day in draw.integers(0, 1000, ROWS)
            ],
            "size": np.round(np.abs(draw.normal(size=ROWS)) + 0.001, 3),
            "city": draw.choice(["A", "B", "C"], ROWS).tolist(),
            "flag": draw.choice(["yes", "no"], ROWS).tolist(),
            "opens": [f"{hour:02}:30" for hour in hours],
            "lasts": [f"{hour % 5} days {hour:02}:00:00" for hour in hours],
            "holes": [None if draw.random() < 0.5 else float(day) for day in hours],
            "y": draw.choice(["u", "v"], ROWS).tolist(),
        }
    )


ROWS_READ = training_rows()
SCHEMA = TableSchema.from_dict(json.loads(json.dumps(load_table(ROWS_READ, "y").schema.to_dict())))
DATES = [datetime.date.fromisoformat(text) for text in ROWS_READ["date"]]


def as_dates(form):
    return [day.strftime(form) for day in DATES]


def asked(strict=False, **columns):
    given = ROWS_READ.with_columns(**{name: pl.Series(cells) for name, cells in columns.items()})
    return encode_new(given, SCHEMA, strict=strict)


def same(features):
    expected, _ = encode_new(ROWS_READ, SCHEMA)
    np.testing.assert_allclose(features.numeric, expected.numeric, atol=1e-9)
    np.testing.assert_array_equal(features.categorical, expected.categorical)


SECONDS = [int(datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()) for day in DATES]
OTHER_FORMS = [
    ({"date": as_dates("%d.%m.%Y")}, "format"),
    ({"date": as_dates("%d/%m/%Y")}, "format"),
    ({"date": as_dates("%d/%m/%y")}, "format"),
    ({"date": [day.strftime("%Y-%m-%d" if n % 2 else "%d.%m.%Y") for n, day in enumerate(DATES)]}, "format"),
    ({"date": [int(text) for text in as_dates("%Y%m%d")]}, "type"),
    ({"date": SECONDS}, "type"),
    ({"size": [f"{size} mm" for size in ROWS_READ["size"]]}, "format"),
    ({"size": [f"{size}".replace(".", ",") for size in ROWS_READ["size"]]}, "format"),
]  # fmt: skip


@pytest.mark.parametrize("columns, kind", OTHER_FORMS)
def test_another_form_is_read_and_told(columns, kind):
    features, (change,) = asked(**columns)
    same(features)
    assert (change.column, change.kind, change.rows, change.read) == (*columns, kind, ROWS, True)
    assert change.cells == (ROWS // 2 if "-" in str(columns[change.column][1]) else ROWS)
    with pytest.raises(UserError, match=change.column):
        asked(strict=True, **columns)


@pytest.mark.parametrize(
    "columns",
    [
        {"date": DATES},
        {"flag": ROWS_READ["flag"] == "yes"},
        {"size": [f" {size}" for size in ROWS_READ["size"]]},
        {"opens": [datetime.time(int(text[:2]), 30) for text in ROWS_READ["opens"]]},
        {"lasts": pd.to_timedelta(ROWS_READ["lasts"].to_list())},
    ],
)
def test_the_same_cells_stored_otherwise_are_nothing_to_tell(columns):
    features, changes = asked(strict=True, **columns)
    same(features)
    assert not changes


@pytest.mark.parametrize(
    "columns, kind, cells",
    [
        ({"date": ["03/04/2020", "05/06/2020"] * 150}, "format", ROWS),  # days first, or months?
        ({"size": ["1,497", "2,120"] * 150}, "format", ROWS),  # thousands, or a decimal comma?
        ({"date": ["soon", "2020-01-31"] * 150}, "unreadable", 150),
        ({"size": ["much"] * ROWS}, "unreadable", ROWS),
        ({"flag": ["perhaps"] * ROWS}, "unreadable", ROWS),
        ({"flag": [7] * ROWS}, "unreadable", ROWS),
        ({"size": DATES}, "type", ROWS),
        ({"lasts": [3.5] * ROWS}, "type", ROWS),
        ({"city": ["Z"] * ROWS}, "unseen", ROWS),
        ({"city": pl.Series([None] * ROWS, dtype=pl.String)}, "blank", ROWS),
    ],
)
def test_what_cannot_be_read_for_certain_is_missing_and_told(columns, kind, cells):
    _, (change,) = asked(**columns)
    assert (change.kind, change.cells, change.read) == (kind, cells, False)
    assert f"{cells:,}" in change.message and change.column in change.message


def test_what_the_training_rows_have_too_is_nothing_to_tell():
    _, changes = asked(holes=pl.Series([None] * ROWS, dtype=pl.Float64))
    assert [change.kind for change in changes] == ["blank"]
    two = ROWS_READ.head(2).with_columns(holes=pl.lit(None, pl.Float64))
    assert not encode_new(two, SCHEMA)[1], "half of the training cells are missing"
    towns = ROWS_READ.with_columns(city=pl.Series([f"town {n % 280}" for n in range(ROWS)]))
    schema = load_table(towns, "y", ReadingOptions(types={"city": "categorical"})).schema
    assert not encode_new(towns.with_columns(city=pl.lit("elsewhere")).head(1), schema)[1], (
        "new towns are usual"
    )


def test_a_timedelta_is_a_number_from_a_frame_from_parquet_and_from_text(tmp_path):
    frame = pd.DataFrame({"lasts": pd.to_timedelta(np.arange(60) % 7 * 3599, unit="s"), "y": ["u", "v"] * 30})
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    sources = [frame, tmp_path / "rows.parquet", tmp_path / "rows.csv"]
    for one in sources:
        schema = load_table(one, "y").schema
        for other in sources:
            features, changes = encode_new(read_frame(other), schema)
            assert features.numeric[:, 0].tolist() == [float(n % 7 * 3599) for n in range(60)] and not changes


def test_the_command_line_and_python_tell_of_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    ROWS_READ.write_csv("rows.csv")
    ROWS_READ.with_columns(date=pl.Series(as_dates("%d.%m.%Y"))).write_csv("other.csv")
    advisor.train("rows.csv", "y", out="run", fixed=FAST)
    capfd.readouterr()
    answers = []
    for rows, told in (("rows.csv", 0), ("other.csv", 1)):
        assert _run(["predict", "run", rows, "--json"]) == 0
        out, err = capfd.readouterr()
        answers.append(json.loads(out))
        assert len(answers[-1]["changes"]) == told == err.count("column 'date': 300 of 300 cells")
        assert _run(["predict", "run", rows, "--strict", "--out", "p.csv"]) == (2 if told else 0)
        assert len(capfd.readouterr().err.splitlines()) == 1
    assert answers[0]["predictions"] == answers[1]["predictions"]
    with pytest.warns(advisor.DataFormWarning) as record:
        advisor.load_model("run").predict("other.csv")
    assert [change.column for change in record[0].message.changes] == ["date"] and record[
        0
    ].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advisor.load_model("run").predict("rows.csv", strict=True)
    with pytest.raises(UserError, match="strict"):
        advisor.load_model("run").predict_proba("other.csv", strict=True)


def test_a_test_table_is_read_alike():
    other = ROWS_READ.with_columns(
        date=pl.Series(as_dates("%d.%m.%Y")), size=pl.col("size").cast(pl.String) + " mm"
    )
    (finding,) = (
        f for f in advisor.recommend(ROWS_READ, "y", test=other).findings if f.code == "format-mismatch"
    )
    assert finding.columns == ("date", "size") and "300 of 300" in finding.message
    table = load_table(ROWS_READ, "y", ReadingOptions(test=other))
    assert table.test["date"].equals(table.train["date"])
    with pytest.raises(UserError, match="'date'"):
        advisor.recommend(ROWS_READ, "y", test=other, strict=True)


KINDS = {
    "booleans": [True, False] * 30,
    "numbers": list(range(60)),
    "decimals": [Decimal(n) / 8 for n in range(60)],
    "classes": pl.Series(["a", "b"] * 30, dtype=pl.Categorical),
    "dates": DATES[:60],
    "times": [datetime.datetime(2024, 1, 1, n % 24, tzinfo=datetime.UTC) for n in range(60)],
    "hours": [datetime.time(n % 24, 15) for n in range(60)],
    "lengths": [datetime.timedelta(hours=n) for n in range(60)],
    "iso": ROWS_READ["date"].head(60),
    "weights": [f"{n}.5 kg" for n in range(60)],
    "nothing": [None] * 60,
    "far": [float("inf"), float("nan"), -999.0] * 20,
    "mixed": ["1", "x", "2020-01-01", "", "?", "-999"] * 10,
}


@pytest.mark.parametrize("before", KINDS)
def test_whatever_stands_in_a_column_is_read_or_told(before):
    others = {"a": np.arange(60.0) % 7, "y": ["u", "v"] * 30}
    schema = load_table(pl.DataFrame({"c": pl.Series(KINDS[before]), **others}), "y").schema
    for cells in KINDS.values():
        for rows in (60, 1, 0):
            given = pl.DataFrame({"c": pl.Series(cells), **others}).head(rows)
            features, changes = encode_new(given, schema)
            assert len(features) == rows and all(change.cells <= rows for change in changes)
            assert cells is not KINDS[before] or not changes


def test_the_warning_can_be_made_again_from_its_message():
    """pickle and pytest-xdist do so: it must not break a session of tests that is divided among processes."""
    change = FormChange("a", "blank", 2, 2, "", False, "column 'a': all 2 cells are missing")
    warning = advisor.DataFormWarning.of([change])
    assert warning.changes == (change,) and str(type(warning)(*warning.args)) == change.message
