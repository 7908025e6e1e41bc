"""``advisor enrol``: a class from a few examples, known to prediction, report and export."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image

import advisor
from advisor.cli.main import cli
from advisor.errors import UserError
from advisor.runs.enrolment import FALSE_ALARMS
from advisor.runs.folder import RunFolder
from advisor.runs.result import read_result

COSINE = {
    "classifier": "cosine",
    "embedding_dim": 16,
    "epochs": 25,
    "validation": "holdout",
    "final_members": 1,
}
CENTRES = np.random.default_rng(7).normal(size=(8, 6)) * 3


def rows(code, count=30, seed=0):
    x = CENTRES[code] + 0.5 * np.random.default_rng([seed, code]).normal(size=(count, 6))
    return pl.DataFrame({f"x{place}": x[:, place] for place in range(6)})


def table(codes, count=30):
    return pl.concat([rows(code, count).with_columns(y=pl.lit(f"k{code}")) for code in codes])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enrol")
    table(range(6)).write_csv(folder / "data.csv")
    advisor.train(folder / "data.csv", "y", out=folder / "run", fixed=COSINE)
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_rows_of_a_class_that_was_never_seen_are_unlike_any(run):
    strange, known = (advisor.predict(run, rows(code, 40, seed=1)) for code in (6, 2))
    assert strange["unlike_any_class"].mean() > 0.4
    assert known["unlike_any_class"].mean() < 0.2
    familiar = advisor.load_model(run).familiar
    assert familiar.share == pytest.approx(FALSE_ALARMS, abs=0.03)


def test_a_class_is_added_from_five_examples(run):
    before = advisor.load_model(run)
    rows(6, 5).write_csv(run.parent / "moth.csv")
    done = advisor.enrol(run, run.parent / "moth.csv")
    assert (done.label, done.rows, done.classes) == ("moth", 5, 7)
    after = advisor.load_model(run)
    assert (after.predict(rows(6, 40, seed=2)) == "moth").mean() > 0.85
    assert not advisor.predict(run, rows(6, 40, seed=2))["unlike_any_class"].all()
    old = table(range(6))
    assert (after.predict(old) == old["y"].to_numpy()).mean() > 0.95
    np.testing.assert_allclose(after.predict_proba(old).sum(axis=1), 1)
    # the version before stays as it was, and another class makes another
    former = advisor.load_model(done.former)
    np.testing.assert_array_equal(former.predict_proba(old), before.predict_proba(old))
    again = advisor.enrol(run, rows(7, 3), name="wasp")
    assert again.classes == 8 and again.former.name == "model-2"
    assert (advisor.load_model(run).predict(rows(7, 40, seed=2)) == "wasp").mean() > 0.9
    assert advisor.load_model(again.former).classes.tolist() == after.classes.tolist()
    assert read_result(RunFolder(run)).enrolled == {"moth": 5, "wasp": 3}
    for text in (advisor.report_of(run), (run / "report.html").read_text()):
        assert "moth" in text and "wasp" in text and "of the model before" in text
        assert "Recall@1" in text


def test_exported_models_know_the_class(run):
    advisor.enrol(run, rows(6, 5), name="moth")
    for form in ("torch", "onnx"):
        if form == "onnx":
            pytest.importorskip("onnxruntime")
        written = advisor.export(run, format=form)
        assert written.difference < 1e-5
        assert any("unlike_any_class" in note for note in written.left_out)
    script = advisor.export(run, format="script")
    assert "(moth): add rows" in script.notes[0] and '"moth"]' in script.path.read_text()


def test_training_again_removes_the_versions_of_before(run):
    advisor.enrol(run, rows(6, 5), name="moth")
    advisor.train(run)
    assert not RunFolder(run).former_models and len(advisor.load_model(run).classes) == 6
    assert not read_result(RunFolder(run)).enrolled


def test_the_command_line(run):
    rows(6, 5).write_csv(run.parent / "moth.csv")
    called = CliRunner().invoke(cli, ["enrol", str(run), str(run.parent / "moth.csv"), "--json"])
    document = json.loads(called.stdout)
    assert called.exit_code == 0 and document["label"] == "moth" and Path(document["former"]).is_dir()


def test_classes_that_are_numbers_stay_numbers(run, tmp_path):
    frame = table(range(3), 20).to_pandas()
    frame["y"] = frame["y"].str[1:].astype(int)
    own = advisor.train(frame, "y", out=tmp_path / "numbers", fixed={**COSINE, "epochs": 3})
    advisor.enrol(own.folder, rows(6, 5), name="17")
    assert advisor.load_model(own.folder).classes.tolist() == [0, 1, 2, 17]
    advisor.enrol(own.folder, rows(7, 5), name="moth")
    assert advisor.load_model(own.folder).classes.tolist() == ["0", "1", "2", "17", "moth"]


def bad(run, what):
    folder = run.parent
    rows(6, 5).write_csv(folder / "moth.csv")
    pl.DataFrame({"a": [1.0]}).write_csv(folder / "wrong.csv")
    rows(6, 5).head(0).write_csv(folder / "none.csv")
    (folder / "empty").mkdir()
    return {
        "a known class": ((folder / "moth.csv",), {"name": "k3"}, "knows a class 'k3' already"),
        "no rows": ((folder / "none.csv",), {}, "no examples of 'none'"),
        "wrong columns": ((folder / "wrong.csv",), {}, "no column 'x0'"),
        "an empty folder": ((folder / "empty",), {}, "empty"),
        "no file": ((folder / "nowhere.csv",), {}, "does not exist"),
        "no name": ((rows(6, 5),), {}, "--name"),
        "a name of spaces": ((rows(6, 5),), {"name": "  "}, "--name"),
        "a name of two lines": ((rows(6, 5),), {"name": "a\nb"}, "not a class name"),
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "a known class",
        "no rows",
        "wrong columns",
        "an empty folder",
        "no file",
        "no name",
        "a name of spaces",
        "a name of two lines",
    ],
)
def test_what_cannot_be_enrolled_is_one_line_and_changes_nothing(run, what):
    given, options, says = bad(run, what)
    before = {path: path.read_bytes() for path in (run / "model").iterdir()}
    with pytest.raises(UserError, match=says) as told:
        advisor.enrol(run, *given, **options)
    assert "\n" not in str(told.value)
    assert {path: path.read_bytes() for path in (run / "model").iterdir()} == before
    assert not RunFolder(run).former_models


def test_runs_that_know_no_embedding(tmp_path):
    table(range(2), 20).write_csv(tmp_path / "data.csv")
    plain = {"epochs": 1, "validation": "holdout"}
    advisor.train(tmp_path / "data.csv", "y", out=tmp_path / "run", fixed=plain)
    assert "unlike_any_class" not in advisor.predict(tmp_path / "run", rows(0, 3)).columns
    with pytest.raises(UserError, match="no cosine classifier"):
        advisor.enrol(tmp_path / "run", rows(6, 5), name="moth")
    advised = ["recommend", str(tmp_path / "data.csv"), "--target", "y", "--out", str(tmp_path / "advised")]
    assert CliRunner().invoke(cli, advised).exit_code == 0
    with pytest.raises(UserError, match="has no model: train it first"):
        advisor.enrol(tmp_path / "advised", rows(6, 5), name="moth")
    with pytest.raises(UserError, match="is a URL"):
        advisor.enrol("s3://bucket/run", rows(6, 5), name="moth")
    with pytest.raises(UserError, match="classifier cosine"):
        frame = rows(0, 40)
        advisor.train(frame, "x0", out=tmp_path / "numbers", fixed={**COSINE, "epochs": 1})


def test_a_folder_of_images_is_a_class(tmp_path):
    draw = np.random.default_rng(0)
    for code in range(4):
        folder = tmp_path / ("data" if code < 3 else "new") / f"shape{code}"
        folder.mkdir(parents=True)
        for number in range(24):
            pixels = draw.integers(0, 60, (12, 12))
            pixels[3 * code : 3 * code + 3] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    fixed = {**COSINE, "epochs": 8, "network": "convolutional", "stages": 2, "width": 8}
    advisor.train(tmp_path / "data", out=tmp_path / "run", fixed=fixed)
    done = advisor.enrol(tmp_path / "run", tmp_path / "new" / "shape3")
    assert (done.label, done.rows, done.classes) == ("shape3", 24, 4)
    told = advisor.predict(tmp_path / "run", tmp_path / "new" / "shape3")
    assert (told["prediction"] == "shape3").mean() > 0.9


def test_a_file_of_series_is_a_class(tmp_path):
    draw = np.random.default_rng(0)

    def waves(code, count=30):
        return (np.sin(np.arange(24) * (0.3 + 0.3 * code)) + 0.1 * draw.normal(size=(count, 1, 24))).astype(
            "f4"
        )

    x, y = np.concatenate([waves(code) for code in range(3)]), np.repeat(["a", "b", "c"], 30)
    np.savez(tmp_path / "data.npz", X_train=x, y_train=y)
    fixed = {**COSINE, "epochs": 8, "network": "kernels", "kernel_features": 1008}
    advisor.train(tmp_path / "data.npz", out=tmp_path / "run", fixed=fixed)
    np.save(tmp_path / "d.npy", waves(3, 6))
    assert advisor.enrol(tmp_path / "run", tmp_path / "d.npy").classes == 4
    assert (advisor.load_model(tmp_path / "run").predict(waves(3)) == "d").mean() > 0.9
