"""The public names as somebody meets them in Python: what they say of arguments that they can't take."""

import inspect

import numpy as np
import pandas as pd
import polars as pl
import pytest

import advisor
from advisor.advice import Reading
from advisor.cli import cli
from advisor.options import DEFAULTS, ReadingOptions
from advisor.table import load_table


@pytest.fixture(scope="module")
def frame():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(120, 2))
    return pd.DataFrame({"a": values[:, 0], "b": values[:, 1], "y": np.where(values[:, 0] > 0, "p", "n")})


FORMS = {
    "arrays": lambda x, y: (x.to_numpy(), y.to_numpy()),
    "an array and a list": lambda x, y: (x.to_numpy(), y.tolist()),
    "pandas": lambda x, y: (x, y),
    "pandas, other index": lambda x, y: (x, y.set_axis(range(500, 620))),
    "polars": lambda x, y: (pl.from_pandas(x), pl.Series("y", y.tolist())),
    "a column of one": lambda x, y: (x, y.to_frame()),
    "the frame's own column": lambda x, y: (x.assign(y=y), y),
}


@pytest.mark.parametrize("form", FORMS)
def test_x_and_y_are_data_too(form, frame):
    by_name = advisor.recommend(frame, "y")
    rec = advisor.recommend(*FORMS[form](frame[["a", "b"]], frame["y"]))
    assert rec.configuration == by_name.configuration
    facts = advisor.measure(*FORMS[form](frame[["a", "b"]], frame["y"]))
    assert (facts.values["features"], facts.values["task"]) == (2, "binary")


@pytest.mark.parametrize("call", [advisor.recommend, advisor.measure, advisor.fit, advisor.tune])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda x, y: (x.to_numpy(), y[:5]), "X has 120 rows and y has 5 values"),
        (lambda x, y: (x.to_numpy(), "y"), "X is an array without column names"),
        (lambda x, y: ("data.csv", y), "the target is a Series and the data is a str"),
        (lambda x, y: (x, np.zeros((120, 2))), r"expected shape \(rows,\)"),
        (lambda x, y: (x, object()), r"expected shape \(rows,\)"),
        (lambda x, y: (x, y.rename("a")), "y is called 'a', as is a column of X with other values"),
    ],
)
def test_what_is_no_x_and_y_is_one_line(call, arguments, says, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"executor": "in-process"} if call is advisor.tune else {}
    with pytest.raises(advisor.UserError, match=says) as told:
        call(*arguments(frame[["a", "b"]], frame["y"]), **options)
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [advisor.recommend, advisor.measure, advisor.fit])
@pytest.mark.parametrize("read", [lambda frame: frame, pl.from_pandas])
def test_without_a_target_the_columns_are_named(call, read, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(advisor.UserError, match=r"^say which column to predict.* the columns are a, b, y$"):
        call(read(frame))


def test_the_public_names_are_found_and_show_their_keywords(frame):
    assert set(dir(advisor)) == set(advisor.__all__) and {"recommend", "tune", "load_model"} <= set(dir(advisor))
    fields = set(Reading.__dataclass_fields__)
    assert fields == set(ReadingOptions.__annotations__)
    assert {name: getattr(Reading(), name) for name in DEFAULTS} == dict(DEFAULTS)
    for function in (advisor.measure, advisor.recommend, advisor.fit, advisor.tune):
        assert fields <= set(inspect.signature(function).parameters)
        assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def test_the_commands_have_the_options_of_the_functions():
    """A keyword of Python is an option of the command line, under the same name or one of these."""
    other = {"fixed": "fixed", "adapt": "keep_ranges", "progress": "quiet"}
    python_only = {"on_event", "on_phase", "on_note", "should_stop", "data", "target"}
    for name, function in {"recommend": advisor.recommend, "train": advisor.fit, "tune": advisor.tune}.items():
        options = {parameter.name for parameter in cli.commands[name].params}
        keywords = {other.get(one, one) for one in inspect.signature(function).parameters} - python_only
        assert keywords <= options, (name, keywords - options)


def test_objects_show_themselves_in_a_line(frame, tmp_path):
    rec, facts = advisor.recommend(frame, "y"), advisor.measure(frame, "y")
    run = advisor.fit(frame, "y", out=tmp_path / "run", fixed={"epochs": 2})
    table = load_table(frame, "y")
    shown = [repr(one) for one in (rec, facts, rec.space, run, run.model, table, table.dataset("train"))]
    assert all(len(text) < 300 and "\n" not in text for text in shown)
    assert "learning_rate" in shown[0] and "96 rows" in shown[1]
