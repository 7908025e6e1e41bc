"""Trackers against the real libraries, on a local folder; and that no tracker ever breaks a search."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import advisor
from advisor.cli.main import _run
from advisor.errors import UserError
from advisor.runs.folder import RunFolder
from advisor.runs.result import read_result
from advisor.trackers import tracking
from advisor.trackers.base import OUTCOMES, metrics_of
from advisor.trackers.tracking import TRACKERS, TrackerKind, trackers_of

FIXED = {"epochs": 2, "folds": 2, "batch_size": 32, "final_members": 1}
TRIALS = 2
FIRST_RUN = Path(__file__).parents[1] / "fixtures" / "runs" / "0.1.0"


def frame(rows=60):
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"a": draw.normal(size=rows), "c": draw.choice(list("uvw"), rows)})
    return table.assign(y=np.where(table["a"] + (table["c"] == "u") > 0, "p", "n"))


def search(folder, track, **more):
    return advisor.tune(
        frame(), "y", trials=TRIALS, executor="in-process", out=folder / "run", progress=False, fixed=FIXED,
        track=track, test_fraction=0, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """One search that all three are told of; those that are not installed are left out."""
    folder = tmp_path_factory.mktemp("tracked")
    wanted = {"mlflow": f"mlflow:sqlite:///{folder}/m.db", "tensorboard": f"tensorboard:{folder}/events"}
    wanted["wandb"] = "wandb:offline"
    there = {name: text for name, text in wanted.items() if tracking.find_spec(TRACKERS[name].package)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_DIR", str(folder))
        notes = []
        run = search(folder, list(there.values()), on_note=notes.append)
    assert not notes
    return folder, run, there


def only_if(tracked, name):
    if name not in tracked[2]:
        pytest.skip(f"the extra {name} is not installed")


@pytest.mark.slow
def test_mlflow_has_a_nested_run_for_each_trial_with_its_curve(tracked):
    only_if(tracked, "mlflow")
    import mlflow

    _, run, there = tracked
    client = mlflow.MlflowClient(tracking_uri=there["mlflow"].partition(":")[2])
    [experiment] = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    trials = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.run_name == "run" and parent.info.status == "FINISHED" and len(trials) == TRIALS
    assert parent.data.metrics["expected_loss"] == pytest.approx(run.report.estimate.mean)
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"report.html", "result.json"}
    by_name = {one.info.run_name: one for one in trials}
    for report in run.report.trials:
        one = by_name[f"trial {report.number}"]
        assert one.data.tags["end"] == report.end and one.data.params["width"] == str(
            report.configuration["width"]
        )
        curve = client.get_metric_history(one.info.run_id, "validation_loss")
        assert [(point.step, point.value) for point in curve] == list(report.curve)


@pytest.mark.slow
def test_mlflow_loads_the_model_with_its_signature(tracked, monkeypatch):
    only_if(tracked, "mlflow")
    import mlflow

    folder, run, there = tracked
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(there["mlflow"].partition(":")[2])
    [logged] = mlflow.search_logged_models(output_format="list", experiment_ids=["1"])
    model = mlflow.pyfunc.load_model(logged.model_uri)
    assert model.metadata.signature.inputs.input_names() == ["a", "c"]
    rows = frame(20).drop(columns="y")
    assert model.predict(rows).tolist() == run.model.predict(rows).tolist()


@pytest.mark.slow
def test_tensorboard_has_curves_and_hyperparameters(tracked):
    only_if(tracked, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, run, _ = tracked
    for report in run.report.trials:
        events = EventAccumulator(str(folder / "events" / "run" / f"trial-{report.number}")).Reload()
        curve = [(point.step, point.value) for point in events.Scalars("validation_loss")]
        assert curve == [(epoch, pytest.approx(loss)) for epoch, loss in report.curve]
        session = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert b"learning_rate" in session
    whole = EventAccumulator(str(folder / "events" / "run")).Reload()
    assert whole.Scalars("expected_loss")[0].value == pytest.approx(run.report.estimate.mean)


@pytest.mark.slow
def test_wandb_writes_offline_runs(tracked):
    only_if(tracked, "wandb")
    folder = tracked[0]
    kept = [path.name for path in (folder / "wandb").glob("offline-run-*")]
    assert len(kept) == 1 + TRIALS


class Failing:
    def begin(self, run):
        raise OSError("the server is gone")


def test_a_tracker_that_fails_costs_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.TRACKERS, "failing", TrackerKind("json", lambda place: Failing()))
    notes = []
    run = search(tmp_path, "failing:now", on_note=notes.append)
    assert run.model is not None and len(run.report.trials) == TRIALS
    assert notes == ["failing:now failed and is told nothing more: OSError: the server is gone"]


def test_what_cannot_be_tracked_is_said_before_anything_is_read(monkeypatch, capsys):
    with pytest.raises(UserError, match="unknown tracker 'mlfow'"):
        trackers_of("mlfow:sqlite:///x")
    with pytest.raises(UserError, match="tensorboard:FOLDER"):
        trackers_of(["tensorboard"])
    with pytest.raises(UserError, match="wandb:offline"):
        trackers_of("wandb")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert _run(["train", "none.csv", "--target", "y", "--track", "wandb:offline"]) == 2
    assert "pip install 'tuning-advisor[wandb]'" in capsys.readouterr().err


def test_a_run_is_told_with_its_scores_on_the_test_rows():
    found = metrics_of(read_result(RunFolder(FIRST_RUN)))
    assert {"expected_loss", "expected_loss_low", "test_loss", "test_accuracy"} <= found.keys()
    assert "test_r2" not in found


def test_every_end_of_a_trial_has_its_outcome():
    from typing import get_args

    from advisor.search.events import TrialEnd

    assert set(OUTCOMES) == set(get_args(TrialEnd))
