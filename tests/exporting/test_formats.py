"""A model that was exported predicts what the model predicts, with the preprocessing inside."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import advisor
from advisor.cli.main import _run

FIXED = {"epochs": 1, "folds": 2, "batch_size": 32}


def table(rows=160):
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draw.normal(size=rows), "b": draw.exponential(size=rows).round(1)})
    frame["c"], frame["d"] = draw.choice(list("uvw"), rows), draw.choice([f"l{n}" for n in range(20)], rows)
    frame.loc[::7, "b"], frame.loc[::11, "c"] = np.nan, None
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    frame = table()
    frame["y"] = np.where(frame["a"] + (frame["c"] == "u") > 0, "p", "n")
    frame["when"] = pd.date_range("2024-01-01", periods=len(frame)).astype(str)
    fixed = FIXED | {"numeric_scaling": "quantile", "numeric_embedding": "periodic"}
    return advisor.train(frame, "y", out=tmp_path_factory.mktemp("r") / "run", progress=False, fixed=fixed)


def test_onnx_takes_raw_cells_and_gives_our_probabilities_and_classes(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    written = advisor.export(run.folder, out=tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    known = json.loads(session.get_modelmeta().custom_metadata_map["numeric"])
    assert written.inputs["categorical"] == ("c", "d") and tuple(known) == written.inputs["numeric"]
    assert written.difference < 1e-5 and any("when" in note for note in written.notes)
    new = table(40).assign(when="2024-02-03", d="never seen")
    features = run.model.read(new)
    texts = new[["c", "d"]].fillna("").to_numpy(dtype=object)
    probabilities, chosen = session.run(None, {"numeric": features.numeric, "categorical": texts})
    assert np.abs(probabilities - run.model.predict_proba(new)).max() < 1e-5
    assert chosen.tolist() == run.model.predict(new).tolist()


def test_a_torch_program_takes_codes(run, tmp_path):
    assert advisor.export(run.folder, form="torch", out=tmp_path / "m.pt2").difference < 1e-5
    features = run.model.read(table(9).assign(when="2024-02-03"))
    rows = torch.from_numpy(features.numeric), torch.from_numpy(features.categorical.astype(np.int64))
    scores = torch.export.load(tmp_path / "m.pt2").module()(*rows)
    assert np.abs(scores.numpy() - run.model.scores(features)).max() < 1e-5


@pytest.mark.parametrize(
    ("scaling", "transform"), [("robust", "log"), ("standard", "none"), ("quantile", "none")]
)
def test_numbers_alone_and_a_target_as_its_logarithm(scaling, transform, tmp_path):
    frame = table(80)[["a", "b"]]
    fixed = FIXED | {"numeric_scaling": scaling, "target_transform": transform}
    run = advisor.train(
        frame.assign(y=np.exp(frame["a"])), "y", out=tmp_path / "run", progress=False, fixed=fixed
    )
    assert advisor.export(run.folder, form="torch").difference < 1e-5


def test_a_calendar_is_within_the_model(tmp_path):
    draw = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"hr": np.arange(96) % 24, "dow": draw.integers(0, 7, 96), "holiday": draw.random(96) < 0.2}
    )
    frame["x"] = np.where(draw.random(96) < 0.1, np.nan, draw.normal(size=96))
    frame["day"] = pd.date_range("2023-01-01", periods=96, freq="4D").astype(str)
    frame["y"] = np.cos(frame["hr"] / 12 * np.pi) * frame["holiday"]
    fixed = FIXED | {"calendar_features": "crossed"}
    run = advisor.train(frame, "y", out=tmp_path / "run", progress=False, fixed=fixed)
    fitted = run.model.stacks[0].preprocessors[0]
    # two dates' cycles (weekday, day of the year), hr and its half, dow; hr's four waves by two weekdays and holiday
    assert len(fitted.cycles) == 5 and len(fitted.products) == 4 * (2 + 2 + 1)
    assert run.model.predict(frame.iloc[[50]]) == pytest.approx(run.model.predict(frame)[[50]], rel=1e-5)
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    assert advisor.export(run.folder).difference < 1e-5


@pytest.mark.parametrize("network", ["convolutional", "mixer"])
def test_images(network, tmp_path):
    draw = np.random.default_rng(1)
    images, codes = draw.integers(0, 255, (60, 12, 12, 3)).astype(np.uint8), np.arange(60) % 3
    run = advisor.train(
        images, codes, out=tmp_path / "run", progress=False, fixed=FIXED | {"network": network}, kind="image"
    )
    assert advisor.export(run.folder, form="torch").difference < 1e-5
    if network == "convolutional":
        pytest.importorskip("onnxruntime", reason="the extra export is not installed")
        assert advisor.export(run.folder).difference < 1e-5


@pytest.mark.parametrize("network", ["convolutional", "inception", "kernels"])
def test_series_of_unequal_length(network, tmp_path):
    draw = np.random.default_rng(2)
    series = draw.normal(size=(60, 2, 40)).astype(np.float32)
    series[:30, :, 30:] = np.nan
    np.savez(tmp_path / "s.npz", X=series, y=(np.nanmean(series[:, 0], axis=1) > 0).astype(int))
    out = tmp_path / "run"
    fixed = FIXED | {"network": network, "kernel_features": 1008}
    run = advisor.train(tmp_path / "s.npz", out=out, progress=False, fixed=fixed)
    assert advisor.export(run.folder, form="torch").difference < 1e-5
    if network == "kernels":
        pytest.importorskip("onnxruntime", reason="the extra export is not installed")
        assert advisor.export(run.folder).difference < 1e-5
        script = advisor.export(run.folder, form="script").path.read_text()
        assert "there.float()" in script and "torch.randperm(channels)" in script, "three channels"


def test_the_command_tells_inputs_and_notes(run, capsys):
    assert _run(["export", str(run.folder), "--format", "torch"]) == 0
    out, err = capsys.readouterr()
    assert "input categorical: c, d" in out and "model.pt2" in err and "dates become numbers" in err
    assert _run(["export", str(run.folder), "--format", "onxx"]) == 2


def test_the_model_has_a_card(run):
    card = (run.folder / "model" / "README.md").read_text()
    assert card.startswith("# Model of y\n") and "| learning_rate |" in card and "On the test rows" in card
    assert advisor.load_model(run.folder).schema.target == "y"


def test_runs_are_compared(run, capsys):
    table = advisor.compare(run.folder, run.folder)
    assert table["winner"].tolist() == ["recommendation"] * 2 and table["loss"].notna().all()
    assert _run(["compare", str(run.folder)]) == 0
    assert "recommendation" in capsys.readouterr().out
