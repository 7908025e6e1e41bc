"""The public names as somebody meets them in Python: what they say of arguments that they can't take."""

import fcntl
import inspect
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import click
import numpy as np
import pandas as pd
import polars as pl
import pytest

import advisor
from advisor.cli.main import cli
from advisor.data.tables.table import load_table
from advisor.runs.advice import AdviceOptions
from advisor.workflows.options import DEFAULTS, AdviceKeywords


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


@pytest.mark.parametrize("call", [advisor.recommend, advisor.measure, advisor.train, advisor.tune])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda x, y: (x.to_numpy(), y[:5]), "X has 120 rows and y has 5 values"),
        (lambda x, y: (x.to_numpy(), "y"), "X is an array without column names"),
        (lambda x, y: ("data.csv", y), "the target is a Series and the data is a str"),
        (lambda x, y: (x, np.zeros((120, 2))), r"expected shape \(rows,\)"),
        (lambda x, y: (x, object()), r"expected shape \(rows,\)"),
        (lambda x, y: (x, y.rename(
            "a"
        )), "y is called 'a', and X has a column of that name with other values"),
    ],
)
def test_what_is_no_x_and_y_is_one_line(call, arguments, says, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"executor": "in-process"} if call is advisor.tune else {}
    with pytest.raises(advisor.UserError, match=says) as told:
        call(*arguments(frame[["a", "b"]], frame["y"]), **options)
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [advisor.recommend, advisor.measure, advisor.train])
@pytest.mark.parametrize("read", [lambda frame: frame, pl.from_pandas])
def test_without_a_target_the_columns_are_named(call, read, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(advisor.UserError, match=r"^say which column to predict.* the columns are a, b, y$"):
        call(read(frame))


def test_the_public_names_are_found_and_show_their_keywords(frame):
    assert set(dir(advisor)) == set(advisor.__all__) and {"recommend", "tune", "load_model"} <= set(
        dir(advisor)
    )
    fields = set(AdviceOptions.__dataclass_fields__)
    assert fields == set(AdviceKeywords.__annotations__)
    assert {name: getattr(AdviceOptions(), name) for name in DEFAULTS} == dict(DEFAULTS)
    for function in (advisor.measure, advisor.recommend, advisor.train, advisor.tune):
        assert fields <= set(inspect.signature(function).parameters)
        assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def test_the_commands_have_the_options_of_the_functions():
    """A keyword of Python is an option of the command line, under the same name."""
    python_only = {"on_event", "on_phase", "on_note", "should_stop", "begun", "data", "target"}
    for name, function in {
        "recommend": advisor.recommend,
        "train": advisor.train,
        "tune": advisor.tune,
    }.items():
        options = {parameter.name for parameter in cli.get_command(click.Context(cli), name).params}
        keywords = set(inspect.signature(function).parameters) - python_only
        assert keywords <= options, (name, keywords - options)


def test_objects_show_themselves_in_a_line(frame, tmp_path):
    rec, facts = advisor.recommend(frame, "y"), advisor.measure(frame, "y")
    run = advisor.train(frame, "y", out=tmp_path / "run", fixed={"epochs": 2})
    table = load_table(frame, "y")
    origin = rec.provenance["learning_rate"]
    shown = [
        repr(one) for one in (rec, facts, rec.space, origin, run, run.model, table, table.dataset("train"))
    ]
    assert all(len(text) < 300 and "\n" not in text for text in shown)
    assert "learning_rate" in shown[0] and "96 rows" in shown[1]


def test_progress_is_on_stderr_unless_it_is_switched_off(frame, tmp_path, capfd):
    options = {"fixed": {"epochs": 2, "validation": "holdout"}}
    advisor.train(frame, "y", out=tmp_path / "train", **options)
    advisor.tune(frame, "y", out=tmp_path / "tune", trials=1, executor="in-process", **options)
    out, err = capfd.readouterr()
    assert (
        out == ""
        and "training: the recommendation alone" in err
        and "trial 0 (recommendation): complete, log loss" in err
    )
    advisor.train(frame, "y", out=tmp_path / "train2", progress=False, **options)
    advisor.tune(
        frame, "y", out=tmp_path / "tune2", trials=1, executor="in-process", progress=False, **options
    )
    assert capfd.readouterr() == ("", "")


def test_a_bar_moves_in_training_and_final_and_fits_a_narrow_terminal(frame, tmp_path):
    """A real terminal of 80 columns: the final's count was cut off, and its bar stood still."""
    run = (
        "import advisor, polars, sys; f = polars.read_csv(sys.argv[1]); o = {'epochs': 2, 'validation': "
        "'holdout'}; "
        "advisor.train(f, 'y', out=sys.argv[1] + '.1', fixed=o); "
        "advisor.tune(f, 'y', out=sys.argv[1] + '.2', trials=2, executor='in-process', fixed=o)"
    )
    frame.to_csv(tmp_path / "d.csv", index=False)
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-c", run, str(tmp_path / "d.csv")]
    with subprocess.Popen(command, stderr=child, env={**os.environ, "TERM": "xterm"}):
        os.close(child)
        shown = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(parent, 4096):
                shown += part
    os.close(parent)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    lines = re.split(r"[\r\n]+", text)
    for phase in ("training, log loss", "final"):
        assert any(line.startswith(phase) and re.search(r" ([1-9]\d*)/\d+ ", line) for line in lines), (
            phase,
            text,
        )


LEVELS = pd.MultiIndex.from_tuples([("f", "a"), ("f", "b"), ("y", ""), ("g", "h")])


def columns_of(frame, labels):
    """The frame with a group column, its columns called so."""
    return frame.assign(group=np.arange(len(frame)) % 12)[["a", "b", "y", "group"]].set_axis(
        labels, axis="columns"
    )


@pytest.mark.parametrize(
    ("labels", "target", "group", "names"),
    [
        ([0, 1, 2, 3], 2, 3, ("2", "3")),
        ([0, 1, 2, 3], np.int64(2), 3, ("2", "3")),
        ([0, 1, 2, 3], "2", "3", ("2", "3")),
        (["2", "b", 2, 3], 2, 3, ("2_2", "3")),
        (LEVELS, ("y", ""), ("g", "h"), ("y_", "g_h")),
        (LEVELS, "y", ("g", "h"), ("y_", "g_h")),
    ],
)
def test_columns_are_named_as_the_frame_has_them(labels, target, group, names, frame):
    data = columns_of(frame, labels)
    made = advisor.recommend(data, target, group_column=group).data
    assert (made["target"], made["group_column"]) == names
    assert advisor.recommend(data, data.iloc[:, 2]).data["target"] == names[0]
    types = advisor.recommend(data, target, types={group: "categorical"}).data["types"]
    assert types == {names[1]: "categorical"}


@pytest.mark.parametrize(("labels", "target"), [([0, 1, 2, 3], 7), (LEVELS, ("f", "c"))])
def test_a_label_that_no_column_has_is_named(labels, target, frame):
    with pytest.raises(advisor.UserError, match=r"has no target '(7|f_c)'.*its columns are") as told:
        advisor.recommend(columns_of(frame, labels), target)
    assert "first line" not in str(told.value)


@pytest.mark.parametrize("labels", [np.array, list, pd.Series], ids=["array", "list", "series"])
@pytest.mark.parametrize(
    ("shape", "kind"), [((60, 8, 8), "image"), ((60, 1, 20), "sequence")], ids=["images", "series"]
)
def test_images_and_series_are_x_and_y_too(shape, kind, labels):
    x = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    y = labels(["even" if row % 2 == 0 else "odd" for row in range(60)])
    rec = advisor.recommend(x, y, kind=kind)
    assert rec.configuration["network"]
    with pytest.raises(advisor.UserError, match="X has 60 rows and y has 59 values"):
        advisor.recommend(x, y[:59], kind=kind)


def test_a_model_of_arrays_predicts_arrays(frame, tmp_path):
    x, y = frame[["a", "b"]].to_numpy(), frame["y"].to_numpy()
    model = advisor.train(x, y, out=tmp_path / "run", fixed={"epochs": 2, "folds": 2}, progress=False).model
    assert (model.predict(x) == model.predict(pd.DataFrame(x, columns=["x0", "x1"]))).all()
    assert model.predict_proba(x).shape == (120, 2)
    for wrong in (x[:, :1], x[0], np.hstack([x, x])):
        with pytest.raises(
            advisor.UserError, match=r"expected \(rows, 2\), the columns of the training rows"
        ):
            model.predict(wrong)


@pytest.mark.parametrize(
    ("old", "new"), [("fit", "train"), ("Outcome", "TrialResult"), ("SignalRows", "ArrayRows")]
)
def test_an_old_name_still_works_with_a_note(old, new):
    with pytest.warns(FutureWarning, match=rf"advisor\.{old} is now advisor\.{new}"):
        assert getattr(advisor, old) is getattr(advisor, new)
    assert old not in dir(advisor)
