"""Names stay names: classes come back as they were given, and no name goes
through a float: a class is its text."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import advisor
from advisor.data.columns.inference import infer
from advisor.data.options import ReadingOptions
from advisor.data.tables.features import encode
from advisor.data.tables.table import load_table, read_frame

ROWS = 120


@pytest.fixture(scope="module")
def numbers():
    return np.random.default_rng(0).normal(size=(ROWS, 2))


def frame(numbers, target, **more):
    return pd.DataFrame({"a": numbers[:, 0], "b": numbers[:, 1], **more, "y": target})


def hit(numbers):
    return numbers[:, 0] > 0


def written(folder, numbers, cells, name="data.csv", column="y"):
    """A CSV whose column has these cells, each as it stands here."""
    lines = [f"a,b,{column}", *(f"{a},{b},{cell}" for (a, b), cell in zip(numbers, cells, strict=True))]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


TARGETS = {
    "bool": lambda on: on,
    "texts of digits": lambda on: np.where(on, "1", "0"),
    "floats": lambda on: np.where(on, 1.0, 2.0),
    "float32": lambda on: np.where(on, 1.5, 15.0).astype("float32"),
    "int8": lambda on: on.astype("int8"),
    "large ints": lambda on: np.where(on, 2**60 + 1, 2**60 + 2),
    "texts with blanks": lambda on: np.where(on, " a", "b "),
    "category of ints": lambda on: pd.Categorical(on.astype(int)),
    "category of digits": lambda on: pd.Categorical(np.where(on, "10", "20")),
    "pandas string": lambda on: pd.Series(np.where(on, "1", "0"), dtype="string"),
    "pandas Int64": lambda on: pd.Series(on.astype(int), dtype="Int64"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_labels_of_a_frame_come_back_with_its_values_and_type(kind, numbers, tmp_path):
    data = frame(numbers, TARGETS[kind](hit(numbers)))
    run = advisor.train(data, "y", out=tmp_path / "run", fixed={"epochs": 2, "folds": 2})
    given_values, plain = set(data["y"].tolist()), data["y"].to_numpy()
    for model in (run.model, advisor.load_model(tmp_path / "run")):
        predicted = model.predict(data)
        assert predicted.dtype == (plain.dtype if plain.dtype.kind != "U" else object)
        assert all(
            label in given_values and type(label) in map(type, given_values)
            for label in model.classes.tolist()
        )
        assert set(predicted.tolist()) <= given_values


def test_polars_frames_and_arrays_of_labels_too(numbers, tmp_path):
    on = hit(numbers)
    data = pl.DataFrame({"a": numbers[:, 0], "y": on})
    assert load_table(data, "y").schema.given.array().tolist() == [False, True]
    assert (
        load_table(data.with_columns(y=pl.Series(on).cast(pl.UInt8)), "y").schema.given.array().dtype
        == np.uint8
    )
    data.write_parquet(tmp_path / "data.parquet")
    assert load_table(tmp_path / "data.parquet", "y").schema.given.dtype == "bool"
    images = np.random.default_rng(0).integers(0, 255, (80, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", X=images, y=images[:, 0, 0] > 127)
    model = advisor.train(tmp_path / "images.npz", out=tmp_path / "run", fixed={"epochs": 1}).model
    assert model.classes.tolist() == [False, True] and model.predict(images).dtype == bool


FLOATS = st.sampled_from([0.5, 1.0, 1e10])
LABELS = st.one_of(st.integers(-(2**40), 2**40), st.booleans(), st.text(min_size=1, max_size=4), FLOATS)


@settings(max_examples=60, deadline=None)
@given(st.lists(LABELS, min_size=2, max_size=2))
def test_each_class_is_one_of_the_given(values):
    target = pd.Series([values[i % 2] for i in range(60)], dtype=object)
    try:
        table = load_table(pd.DataFrame({"a": range(0, 600, 10), "b": np.sin(range(60)), "y": target}), "y")
    except advisor.UserError:
        return  # 0 and False, a and "a ", a text of blanks: one class
    known = [(type(value), value) for value in target]
    assert all((type(label), label) in known for label in table.schema.given.array().tolist())


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (("1.1", "1.10", "1.2"), ["1.1", "1.10", "1.2"]),
        (("1E10", "2E10"), ["1E10", "2E10"]),
        (("15", "1.5"), ["1.5", "15"]),
        (("1.0", "0.0"), [0.0, 1.0]),
        (("1", "0"), [0, 1]),
        (("007", "7"), ["007", "7"]),
        (("TRUE", "FALSE"), ["FALSE", "TRUE"]),
    ],
)
def test_classes_of_a_csv_are_as_they_are_written(cells, classes, numbers, tmp_path):
    table = load_table(written(tmp_path, numbers, [cells[i % len(cells)] for i in range(ROWS)]), "y")
    assert table.schema.given.array().tolist() == classes
    assert table.train["y"].n_unique() == len(classes)


def test_predictions_of_a_csv_are_spelled_as_there(numbers, tmp_path, capsys):
    from advisor.cli.main import _run

    path = written(tmp_path, numbers, np.where(hit(numbers), "1.10", "1.1"))
    advisor.train(path, "y", out=tmp_path / "run", fixed={"epochs": 20, "folds": 2})
    assert _run(["predict", str(tmp_path / "run"), str(path), "--out", str(tmp_path / "out.csv")]) == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "prediction,probability_1.1,probability_1.10"
    assert {line.partition(",")[0] for line in lines[1:]} == {"1.1", "1.10"}


@pytest.mark.parametrize(
    ("train", "test"),
    [(("1.0", "0.0"), ("1", "0")), (("1", "0"), ("1.0", "0.0")), (("1.1", "1.10"), ("1.1", "1.10"))],
)
def test_a_test_table_may_write_the_same_numbers_otherwise(train, test, numbers, tmp_path):
    on = hit(numbers)
    tables = [
        written(tmp_path, numbers, np.where(on, *cells), f"{name}.csv")
        for name, cells in (("a", train), ("b", test))
    ]
    table = load_table(tables[0], "y", ReadingOptions(test=tables[1]))
    assert table.test.height == ROWS and table.test["y"].n_unique() == 2


def test_a_word_for_a_missing_cell_is_no_class_of_numbers(numbers, tmp_path):
    cells = ["?" if i % 30 == 0 else "10"[int(on)] for i, on in enumerate(hit(numbers))]
    table = load_table(written(tmp_path, numbers, cells), "y")
    assert table.schema.task == "binary" and table.notes["rows_without_target"] == 4


@pytest.mark.parametrize("last", [lambda i: i, lambda i: i // 4])
def test_long_identifiers_are_names_whatever_a_float_makes_of_them(last, numbers, tmp_path):
    path = written(tmp_path, numbers, [1234567890123456000 + last(i) for i in range(ROWS)], column="user")
    column = infer(cells := read_frame(path)["user"], cells)
    assert column.type == ("identifier" if cells.n_unique() == ROWS else "categorical")
    texts = cells.cast(pl.String)
    assert infer(texts, texts).type == column.type
    moments = pl.Series("t", np.random.default_rng(0).integers(1_600_000_000, 1_700_000_000, 500) * 10**9)
    assert infer(moments, moments).type == "numeric"


@pytest.mark.parametrize("source", ["pandas", "polars", "parquet"])
def test_a_declared_category_stays_one_even_of_digits(source, numbers, tmp_path):
    digits, whole = (
        pd.Categorical([str(i % 4) for i in range(ROWS)]),
        pd.Categorical([i % 5 for i in range(ROWS)]),
    )
    data = frame(numbers, hit(numbers), c=digits, i=whole)
    if source == "parquet":
        data.to_parquet(tmp_path / "data.parquet", row_group_size=50)
    given_data = {
        "pandas": data,
        "polars": pl.from_pandas(data.drop(columns="i")),
        "parquet": tmp_path / "data.parquet",
    }[source]
    types = {column.name: column.type for column in load_table(given_data, "y").schema.columns}
    assert types.pop("c") == "categorical" and types.pop("i", "categorical") == "categorical"
    many = data.assign(y=pd.Categorical([str(i % 7) for i in range(ROWS)]))
    assert load_table(many, "y").schema.task == "multiclass"


def test_a_column_of_names_is_read_as_it_is_written(numbers, tmp_path):
    cells = [("1.1", "1.10", "1.2")[i % 3] for i in range(ROWS)]
    both = [f"{cell},{'np'[int(on)]}" for cell, on in zip(cells, hit(numbers), strict=True)]
    path = written(tmp_path, numbers, both, column="v,y")
    assert load_table(path, "y").schema.of_type("numeric")[-1].name == "v"
    schema = load_table(path, "y", ReadingOptions(types={"v": "categorical"})).schema
    assert schema.levels["v"] == ("1.1", "1.10", "1.2")
    codes = encode(read_frame(path, schema.names), schema).categorical[:, 0]
    assert np.bincount(codes).tolist() == [40, 40, 40]
    grouped = load_table(path, "y", ReadingOptions(group_column="v"))
    assert set(grouped.train["v"]) | set(grouped.test["v"]) == {"1.1", "1.10", "1.2"}
