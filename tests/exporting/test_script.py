"""A configuration as a plain PyTorch file: it reads well, runs without the advisor, and is as good as ours."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import advisor

FAST = {"epochs": 6, "patience": 6, "folds": 2}
RUFF = ["check", "--isolated", "--select", "E,F,W,B,I", "--ignore", "E501", "--target-version", "py311"]


def command(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-I", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_losses(out):
    return {name: float(value) for name, value in re.findall(r"^test (\w+): (\S+)$", out, re.M)}


test_losses.__test__ = False


def table(rows=240, seed=0):
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": draw.normal(size=rows), "b": draw.exponential(size=rows).round(1)})
    frame["c"] = draw.choice(["red", "green", "blue"], rows)
    frame["d"] = draw.choice([f"level {n}" for n in range(15)], rows)
    frame["when"] = (pd.Timestamp("2023-01-01") + pd.to_timedelta(draw.integers(0, 700, rows), "D")).strftime(
        "%d/%m/%Y"
    )
    frame["flag"] = draw.choice(["yes", "no"], rows)
    logit = 1.5 * frame["a"] + 2 * (frame["c"] == "red") - (frame["flag"] == "yes")
    frame["number"] = logit + draw.normal(size=rows) / 4
    frame["class"] = np.where(logit + draw.logistic(size=rows) / 2 > 0, "good", "bad")
    frame.loc[::7, "b"], frame.loc[::11, "c"] = np.nan, None
    return frame


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    table(seed=0).to_csv(folder / "train.csv", index=False)
    table(seed=1).to_csv(folder / "test.csv", index=False)
    return folder


@pytest.mark.parametrize("target", ["class", "number"])
def test_the_script_of_a_table_is_as_good_as_the_model(files, target, tmp_path):
    other = {"class": "number", "number": "class"}[target]
    for name in ("train", "test"):
        pd.read_csv(files / f"{name}.csv").drop(columns=other).to_csv(tmp_path / f"{name}.csv", index=False)
    run = advisor.train(
        tmp_path / "train.csv", target, test=tmp_path / "test.csv", out=tmp_path / "run", progress=False,
        fixed=FAST | {"epochs": 30, "patience": 10},
    )  # fmt: skip
    advisor.export(run.folder, format="script", out=tmp_path / "model.py")
    out = command("model.py", "train", "train.csv", "--test", "test.csv", cwd=tmp_path)
    ours, constant = (one.loss for one in (run.report.test.results[0], run.report.test.results[-1]))
    assert abs(test_losses(out)["loss"] - ours) < 0.15 * constant, (out, ours, constant)
    command("model.py", "predict", "test.csv", "--out", "predictions.csv", cwd=tmp_path)
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    assert len(predictions) == 240 and predictions["prediction"].notna().all()
