"""The public names as somebody meets them in Python: what they say of arguments that they can't take."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

import advisor


@pytest.fixture(scope="module")
def frame():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(120, 2))
    return pd.DataFrame({"a": values[:, 0], "b": values[:, 1], "y": np.where(values[:, 0] > 0, "p", "n")})


@pytest.mark.parametrize("call", [advisor.recommend, advisor.measure, advisor.fit, advisor.tune])
@pytest.mark.parametrize("values", [lambda y: y, lambda y: y.to_numpy(), lambda y: pl.Series(y.tolist()), lambda y: y.tolist()])
def test_a_target_of_values_is_one_line_that_asks_for_a_name(call, values, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"executor": "in-process"} if call is advisor.tune else {}
    with pytest.raises(advisor.UserError, match=r"^target is a \w+; expected the name of a column: .*target='y'") as told:
        call(frame, values(frame["y"]), **options)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [advisor.recommend, advisor.measure, advisor.fit])
@pytest.mark.parametrize("read", [lambda frame: frame, pl.from_pandas])
def test_without_a_target_the_columns_are_named(call, read, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(advisor.UserError, match=r"^say which column to predict.* the columns are a, b, y$"):
        call(read(frame))
