"""``--with-trees``: networks blended with boosted trees where held-out rows say so, and only there."""

import json
import warnings

import numpy as np
import polars as pl
import pytest

import advisor
from advisor.errors import UserError
from advisor.objectives.contenders import trees as tree_contender
from advisor.report.verdict import verdict
from advisor.sklearn import AdvisorRegressor

FAST = {"epochs": 2, "validation": "holdout", "batch_size": 64}


def steps(rows=300, seed=0, task="regression"):
    """What trees learn at once and two epochs do not: a step in a number, and single categories."""
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, rows))
    word = draw.choice(list("uvwxyz"), rows)
    score = 3.0 * (a > 0.3) + 2.0 * np.isin(word, list("vxz")) + 0.1 * draw.normal(size=rows)
    target = {"regression": 100 + 10 * score, "multiclass": np.digitize(score, [1, 3]).astype(str)}
    frame = pl.DataFrame({"a": a, "b": b, "word": word, "y": target[task]})
    return frame.with_columns(
        pl.when(pl.int_range(rows) % 9 == 3).then(None).otherwise(pl.col("a")).alias("a")
    )


@pytest.fixture(scope="module", params=["regression", "multiclass"])
def blended(request, tmp_path_factory):
    """A run whose trees are ahead of its networks, and its table."""
    frame = steps(task=request.param)
    out = tmp_path_factory.mktemp("blended") / "run"
    return advisor.train(frame, "y", out=out, fixed=FAST, with_trees=True, progress=False), frame


def test_a_blend_is_the_model_where_trees_are_ahead(blended):
    run, frame = blended
    final = run.report.final
    assert final.winner == "blend with trees"
    assert final.trees.share == run.model.trees.share > 0
    assert final.trees.blend_loss < final.trees.networks_loss
    scores = {one.name: one.loss for one in run.report.test.results}
    assert scores["network"] < scores["recommendation"], "the second is the networks alone"
    assert run.report.test.explanation, "what the blend uses is told like that of any model"
    again = advisor.load_model(run.folder)
    new = frame.drop("y").with_columns(word=pl.lit("never seen"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (again.predict(new) == run.model.predict(new)).all()
        assert len(again.predict_interval(new)) == len(new)


def test_the_report_the_card_and_the_verdict_tell_the_share(blended):
    run, _ = blended
    share = f"{run.model.trees.share:.0%} boosted trees"
    assert any(share in sentence for sentence in verdict(run.report, ()))
    assert share in (run.folder / "model" / "README.md").read_text()
    page = (run.folder / "report.html").read_text()
    assert "Beside the networks the model has boosted trees" in page
    assert "blend with trees" in page
    assert f"share {run.model.trees.share:.2f}" in repr(run.model)


def test_damaged_trees_are_one_line(blended, tmp_path):
    run, _ = blended
    model = json.loads((run.folder / "model" / "model.json").read_text())
    assert model["format"] == 2, "an older advisor must refuse it: it would predict with the networks alone"
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (run.folder / "model").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(bytes(weights))
    with pytest.raises(UserError, match="changed or damaged"):
        advisor.load_model(folder)


def test_a_blend_is_not_exported_but_as_a_script_of_its_networks(blended, tmp_path):
    run, _ = blended
    for form in ("onnx", "torch"):
        with pytest.raises(UserError, match=r"blend with boosted trees .* train without --with-trees$"):
            advisor.export(run.folder, out=tmp_path / "model", format=form)
    script = advisor.export(run.folder, out=tmp_path / "model.py", format="script")
    assert any("here the networks alone" in note for note in script.notes)


def test_trees_that_are_behind_leave_the_networks_alone(tmp_path, monkeypatch):
    frame = steps(120)
    behind = frame.with_columns(y=pl.col("a").fill_null(0) + 0.5 * pl.col("b"))
    monkeypatch.setattr(
        tree_contender, "choose_share", lambda task, target, *rest: _all_trees(len(target))
    )
    plan = FAST | {"epochs": 60, "learning_rate": 0.02}
    options = {"fixed": plan, "metric": "r2", "with_trees": True, "progress": False}
    run = advisor.train(behind, "y", out=tmp_path / "run", **options)
    assert run.model.trees is None
    assert run.report.final.winner == "recommendation"
    assert run.report.final.trees.share == 0
    [told] = [one for one in verdict(run.report, ()) if "the networks alone are the model" in one]
    assert told.endswith(", but is not better by R2.")


def _all_trees(rows):
    from advisor.evaluation.trees.share import ChosenShare

    return ChosenShare(1.0, np.ones(rows))


def test_networks_are_those_of_a_run_without_trees(blended, tmp_path):
    run, frame = blended
    if run.model.task.of_classes:
        return  # a training costs a second, and this is no matter of the task
    alone = advisor.train(frame, "y", out=tmp_path / "run", fixed=FAST, progress=False)
    assert alone.report.final.contenders[0] == run.report.final.contenders[0]
    assert not alone.report.final.trees


def test_a_search_ends_in_a_blend_and_is_finished_again_with_trees(tmp_path):
    frame = steps(150)
    asked = {"trials": 2, "executor": "in-process", "fixed": FAST, "progress": False, "out": tmp_path / "run"}
    frame.write_csv(tmp_path / "d.csv")
    without = advisor.tune(tmp_path / "d.csv", "y", **asked)
    assert not without.report.final.trees
    run = advisor.tune(tmp_path / "d.csv", "y", with_trees=True, **asked)
    assert len(run.report.trials) == 2, "the search is not begun again"
    assert run.report.final.winner == "blend with trees"
    assert run.report.final.trees.networks in {one.name for one in run.report.final.contenders}
    assert run.report.final.contenders[-1].difference.mean < 0
    assert run.report.final.trees.fits == 2, "one for each fresh partition"


def test_rows_in_order_of_time_have_trees_of_all_rows_by_a_metric_too(tmp_path):
    frame = steps(200).with_columns(day=pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 7, 18)))
    options = {"time_column": "day", "metric": "mae", "fixed": FAST, "progress": False}
    run = advisor.train(frame, "y", out=tmp_path / "run", with_trees=True, **options)
    assert run.report.final.epochs_on_all_rows
    assert len(run.model.trees.fits) == 1
    assert run.report.final.contenders[-1].metric_difference.mean < 0


def test_no_time_leaves_trees_out_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("advisor.evaluation.trees.fitting.expected_seconds", lambda train: 1e9)
    options = {"time_limit": 60, "fixed": FAST, "progress": False}
    run = advisor.train(steps(80), "y", out=tmp_path / "run", with_trees=True, **options)
    assert run.model.trees is None
    assert any("the time limit left no time for them" in one for one in verdict(run.report, ()))


def test_estimators_take_it():
    frame = steps(120).drop_nulls().to_pandas()
    estimator = AdvisorRegressor(with_trees=True, fixed=FAST | {"epochs": 1})
    estimator.fit(frame[["a", "b"]], frame["y"])
    assert estimator.get_params()["with_trees"]
    assert estimator.model_.trees is not None
    assert estimator.predict(frame[["a", "b"]]).shape == (len(frame),)


def test_images_and_own_objectives_are_refused_in_one_line(tmp_path):
    draw = np.random.default_rng(0)
    np.savez(
        tmp_path / "d.npz", X=draw.integers(0, 255, (40, 8, 8), dtype=np.uint8), y=np.arange(40) % 2
    )
    with pytest.raises(UserError, match=r"for tables only, not for images: leave out --with-trees$"):
        advisor.train(tmp_path / "d.npz", out=tmp_path / "run", with_trees=True, progress=False)
    asked = {"trials": 1, "executor": "in-process", "progress": False, "out": tmp_path / "own"}
    with pytest.raises(UserError, match=r"not with an objective of your own: leave out --with-trees$"):
        advisor.tune(steps(60), "y", objective=lambda trial: 1.0, with_trees=True, **asked)
