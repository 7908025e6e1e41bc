"""Tuning jobs over HTTP: queued, watched, stopped, gone on with; result, report, model, predictions; a fair queue."""

import io
import json
import sqlite3
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import serving

from advisor.runs.model import load_model
from advisor.service.jobs.launching import JobOrder, RayJobs
from advisor.service.jobs.queueing import ended_as, next_runs

FAST = {"epochs": 2, "validation": "holdout", "batch_size": 64}


def wait_for(server, place, *states, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = server.ask("GET", place).json
        if run["state"] in states:
            return run
        time.sleep(0.2)
    raise AssertionError(run)


@pytest.mark.slow
def test_a_run_from_queue_to_predictions(tmp_path):
    """A real server and real processes: stopped, resumed, the server killed meanwhile, the model used."""
    with serving.serving(tmp_path, "--executor", "in-process") as server:
        wanted = {"dataset": server.upload("d.csv", serving.ROWS.encode()), "target": "y", "fixed": FAST}
        wanted |= {"metric": "balanced_accuracy"}
        advised = server.ask("POST", "/v1/recommendations", wanted).json["id"]
        asked = {"recommendation": advised, "trials": 4, "with_trees": True}
        key = {"Idempotency-Key": "run-1"}
        queued = server.ask("POST", "/v1/runs", asked, headers=key)
        assert queued.status == 202 and server.ask("POST", "/v1/runs", asked, headers=key).json == queued.json
        place = queued.headers["location"]
        assert server.ask("GET", f"{place}/result").status == 409
        server.process.kill()  # its job goes on, or is started again
    with serving.serving(tmp_path, "--executor", "in-process") as server:
        run = wait_for(server, place, "done", "failed")
        assert run["state"] == "done", run
        assert run["search"]["done"] == 4 and run["search"]["best"]
        result = server.ask("GET", f"{place}/result").json
        assert len(result["search"]["trials"]) == 4 and result["kind"] == "tune"
        assert result["metric"]["name"] == "balanced_accuracy" and "trees" in result["final"]
        page = server.ask("GET", f"{place}/report")
        assert page.content.startswith(b"<!doctype html>") and str(tmp_path).encode() not in page.content
        archive = server.ask("GET", f"{place}/model").content
        zipfile.ZipFile(io.BytesIO(archive)).extractall(tmp_path / "unzipped")
        model = load_model(tmp_path / "unzipped" / "model")
        rows = [{"a": 1, "b": 10}, {"a": 6, "b": 0}, {"a": None, "b": "?"}]
        answer = server.ask("POST", f"{place}/predict", {"rows": rows})
        assert answer.status == 200, answer.content
        (tmp_path / "rows.csv").write_text("a,b\n1,10\n6,0\n,?\n")
        here = model.predict(tmp_path / "rows.csv").tolist()
        assert [str(one["prediction"]) for one in answer.json["predictions"]] == [str(one) for one in here]
        table = server.ask(
            "POST", f"{place}/predict", raw=b"a,b\n1,10\n", headers={"Content-Type": "text/csv"}
        )
        assert table.content.startswith(b"prediction,probability_")
        lacking = server.ask("POST", f"{place}/predict", {"rows": [{"a": 1}]})
        assert lacking.status == 422 and str(tmp_path) not in lacking.json["detail"]
        assert server.ask("POST", f"{place}/stop").status == 409
        events = server.ask("GET", f"{place}/events").content
        assert events.startswith(b"event: run\ndata: ") and b'"done"' in events
        long = server.ask("POST", "/v1/runs", {"recommendation": advised, "trials": 500}).headers["location"]
        wait_for(server, long, "running")
        assert server.ask("DELETE", long).status == 409
        assert server.ask("POST", f"{long}/stop").json["state"] == "stopping"
        stopped = wait_for(server, long, "stopped")
        assert server.ask("POST", f"{long}/resume").json["state"] == "queued", stopped
        server.ask("POST", f"{long}/stop")
        wait_for(server, long, "stopped")
        assert server.ask("DELETE", long).status == 204 and server.ask("GET", long).status == 404
        actions = {one["action"] for one in server.ask("GET", "/v1/audit").json["items"]}
        assert {"run.create", "run.stop", "run.resume", "run.delete"} <= actions


def test_what_cannot_be_run_is_refused(client):
    dataset = client.upload()
    advised = client.post("/v1/recommendations", json={"dataset": dataset, "target": "y"}).json()["id"]
    facts = client.get(f"/v1/recommendations/{advised}/report.json").json()["facts"]
    alone = client.post("/v1/recommendations", json={"facts": facts}).json()["id"]
    for asked, status, says in [
        ({"recommendation": alone}, 422, "upload them"),
        ({"recommendation": "rc_0"}, 404, "no such recommendation"),
        ({"recommendation": advised, "trials": 10**6}, 422, "at most"),
        ({"recommendation": advised, "seconds": 10**9}, 422, "at most"),
        ({"recommendation": advised, "entrypoint": "rm -rf /"}, 422, "entrypoint"),
        ({"recommendation": advised, "runtime_env": {"pip": ["x"]}}, 422, "runtime_env"),
        ({"recommendation": advised, "objective": "os:system"}, 422, "objective"),
        ({"recommendation": advised, "metric": "os:system"}, 422, "metric"),
    ]:
        answer = client.post("/v1/runs", json=asked)
        assert answer.status_code == status and says in answer.json()["detail"], asked
    assert (
        client.post("/v1/runs", json={"recommendation": advised}, headers=client.as_("advise")).status_code
        == 403
    )


def test_trees_are_refused_for_images_before_anything_is_written(client):
    content = io.BytesIO()
    np.savez(content, images=np.arange(40 * 64).reshape(40, 8, 8) % 251, labels=np.arange(40) % 2)
    dataset = client.upload(content.getvalue(), "d.npz")
    advised = client.post("/v1/recommendations", json={"dataset": dataset, "kind": "image"}).json()["id"]
    answer = client.post("/v1/runs", json={"recommendation": advised, "with_trees": True})
    assert answer.status_code == 422 and "for tables only, not for images" in answer.json()["detail"]
    assert client.get("/v1/runs").json()["items"] == []


def row(number, project, state="queued"):
    return {"id": number, "project": project, "state": state}


@pytest.mark.parametrize(
    ("rows", "most", "at_once", "chosen"),
    [
        ([row(1, "a"), row(2, "a"), row(3, "b")], 2, 2, [1, 3]),
        ([row(1, "a"), row(2, "a"), row(3, "a")], 3, 2, [1, 2]),
        ([row(0, "a", "running"), row(1, "a"), row(2, "b")], 2, 2, [2]),
        ([row(0, "a", "running"), row(1, "a"), row(2, "b")], 3, 1, [2]),
        ([row(0, "a", "running"), row(1, "b", "stopping"), row(2, "c")], 2, 2, []),
    ],
)
def test_the_queue_is_fair(rows, most, at_once, chosen):
    running = [one for one in rows if one["state"] != "queued"]
    assert [one["id"] for one in next_runs(rows, running, most, at_once)] == chosen


def test_ray_is_given_our_words_and_no_job_twice(tmp_path):
    submitted = {}

    class Jobs:
        def get_job_status(self, name):
            if name not in submitted:
                raise RuntimeError("no such job")
            return SimpleNamespace(value="RUNNING")

        def submit_job(self, *, entrypoint, submission_id):
            submitted[submission_id] = entrypoint

    jobs, order = RayJobs("http://head:8265", Jobs()), JobOrder(7, 60.0, "joint", "ray")
    folder = tmp_path / "a folder; rm"
    assert not jobs.runs("rn_1", 1, folder)
    jobs.start("rn_1", 1, folder, order)
    jobs.start("rn_1", 1, folder, order)
    assert jobs.runs("rn_1", 1, folder) and not jobs.runs("rn_1", 2, folder)
    (entry,) = submitted.values()
    assert entry.startswith(f"python -m advisor tune '{folder}' --trials 7 ")
    assert entry.endswith("--time-limit 60 --address auto") and "--with-trees" not in entry
    assert "--with-trees" in JobOrder(7, None, "joint", "ray", with_trees=True).words(folder)


@pytest.mark.parametrize(
    ("log", "state", "ended"),
    [
        ("error: no disk\n", "running", ("failed", "no disk")),
        ("Killed\n", "running", ("queued", "it ended without a message")),
        ("", "stopping", ("stopped", "it was stopped on request; resume continues it")),
    ],
)
def test_what_became_of_a_job_is_read_from_its_folder(tmp_path, log, state, ended):
    (tmp_path / "log").write_text(log)
    assert ended_as(tmp_path, state) == ended


def test_old_things_are_deleted_with_their_files(own_client):
    from advisor.service.app import delete_old

    client = own_client(days=1.0)
    dataset = client.upload()
    state = client.app_itself.state.service
    with sqlite3.connect(state.settings.data / "service.db") as database:
        database.execute("UPDATE advisor_datasets SET created = 0")
    folder = next(Path(state.settings.data).glob("projects/*/datasets/*"))
    import os

    os.utime(folder, (0, 0))
    delete_old(state)
    assert client.get(f"/v1/datasets/{dataset}").status_code == 404 and not folder.exists()
    assert json.loads(client.get("/v1/datasets").text)["items"] == []
