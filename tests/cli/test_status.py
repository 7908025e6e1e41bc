"""`advisor status`, `stop` and `dashboard`: where a search stands, and ending it from outside."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import advisor
from advisor.cli import dashboard
from advisor.cli.main import _run
from advisor.files import write_json
from advisor.runs.folder import RunFolder
from advisor.workflows import status
from advisor.workflows.status import read_status, request_stop

PLAN = {"epochs": 2, "validation": "holdout", "batch_size": 64}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 7},{(i * 5) % 11},{'yes' if (i % 7) + (i * 5) % 11 > 8 else 'no'}" for i in range(80)]
    Path("d.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    return tmp_path


def says(command, capfd, code=0):
    assert _run(shlex.split(command)) == code
    out, err = capfd.readouterr()
    return out if code == 0 else err


def start(*options):
    command = [
        sys.executable,
        "-m",
        "advisor",
        "tune",
        "d.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--out",
        "run",
    ]
    command += ["--fixed", "epochs=60", "--fixed", "validation=holdout", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(process, pattern):
    for line in process.stderr:
        if re.search(pattern, line):
            return
    raise AssertionError(f"ended with {process.wait()}")


@pytest.mark.slow
def test_status_and_stop_from_outside(here, capfd):
    """The whole life: running, stopped by another process, gone on with, finished."""
    with start("--trials", "500") as process:
        wait_for(process, r"^trial 1\b")
        text = says("status run", capfd)
        assert text.startswith(f"run: running, by process {process.pid} on {socket.gethostname()} since ")
        assert "of 500 done" in text and "next:    advisor stop run" in text
        assert re.search(r"\nleft: +about \d+:\d\d:\d\d of search, then the final\n", text)
        assert _run(["stop", "run", "--json"]) == 0
        assert json.loads(capfd.readouterr().out) == {"run": "run", "answer": "stopped"}
        *_, again, instead = process.stderr.read().splitlines()
        assert again.endswith("resume with: advisor tune run --trials 500")
        assert instead == "or build a model from these trials: advisor finish run"
        assert process.wait(60) == 130
    found = json.loads(says("status run --json", capfd))
    assert (
        found["state"] == "interrupted"
        and found["driver"] is None
        and found["done"] >= 2
        and found["running"] == []
    )
    assert found["seconds_left"] is None
    assert not Path("run/stop").exists()
    assert says("stop run", capfd) == "no search is running in run\n"
    done = found["done"]
    assert "advisor finish run" in says("status run", capfd)
    result = advisor.finish("run", executor="in-process")
    assert result.model is not None and Path("run/report.html").is_file()
    assert len(result.document["search"]["trials"]) == done and result.document["search"]["requested"] == 500
    text = says("status run", capfd)
    assert (
        text.startswith("run: finished\n")
        and f"trials:  {done} of {done} done" in text
        and "winner:  " in text
    )


@pytest.mark.slow
def test_a_killed_driver_is_not_taken_for_a_running_one(here):
    with start("--trials", "500") as process:
        wait_for(process, r"^trial 0\b")
        assert read_status(RunFolder(Path("run"))).state == "running"
        os.killpg(process.pid, signal.SIGKILL)
    found = read_status(RunFolder(Path("run")))
    assert (found.state, found.driver, found.running) == ("interrupted", None, [])


@pytest.mark.slow
def test_the_final_can_be_stopped_too(here):
    phases = []

    def phase(name):
        phases.append(name)
        if name == "final":
            write_json(RunFolder(Path("run")).stop_request, {"format": 1})

    options = {"trials": 2, "out": "run", "executor": "in-process", "fixed": PLAN}
    result = advisor.tune("d.csv", "y", on_phase=phase, **options)
    assert phases == ["search", "final"] and result.interrupted and not Path("run/result.json").exists()
    assert advisor.tune("d.csv", "y", **options).model is not None


@pytest.mark.slow
def test_a_staged_search_is_finished_and_gone_on_with(here, capfd):
    """Once a trial has ended; the strategy is known, and later the search goes on as it was begun."""
    options = {"out": "run", "executor": "in-process", "fixed": PLAN, "strategy": "staged"}
    ended = []
    first = advisor.tune(
        "d.csv",
        "y",
        trials=4,
        on_event=lambda *_: ended.append(_),
        should_stop=lambda: bool(ended),
        **options,
    )
    assert first.interrupted and first.document["search"]["trials"] == []
    assert "no trial of run has finished: resume it" in says(
        "finish run --executor in-process", capfd, code=2
    )
    advisor.tune("d.csv", "y", trials=1, **options)
    says("finish run --executor in-process --quiet", capfd)
    assert read_status(RunFolder(Path("run"))).state == "finished"
    assert len(advisor.tune("d.csv", "y", trials=3, **options).document["search"]["trials"]) == 3


@pytest.mark.parametrize("what", ["d.csv", "run"])
def test_what_was_not_searched_cannot_be_finished(what, here, capfd):
    says("recommend d.csv --target y --out run", capfd)
    assert f"{what} holds no search to finish" in says(f"finish {what}", capfd, code=2)


def test_a_recommendation_was_not_searched(here, capfd):
    says("recommend d.csv --target y --out run", capfd)
    assert says("status run", capfd) == "run: not searched\nnext:    advisor tune run\n"
    assert json.loads(says("stop run --json", capfd))["answer"] == "nobody"


def test_a_driver_of_another_machine_is_believed_and_asked(here, capfd):
    says("recommend d.csv --target y --out run", capfd)
    run = RunFolder(Path("run"))
    run.lock.write_text(json.dumps({"pid": 7, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}))
    assert read_status(run).driver.host == "elsewhere"
    now = iter(range(100))
    assert "run has not stopped within 0.01 s" in says("stop run --wait 0.01", capfd, code=3)
    assert "stop requested" in says("stop run --wait 0", capfd)
    assert request_stop(run, wait=5, clock=lambda: next(now), sleep=lambda seconds: None) == "asked"
    assert run.stop_request.is_file() and read_status(run).state == "stopping"
    assert (
        request_stop(run, wait=5, clock=lambda: next(now), sleep=lambda seconds: run.lock.write_text(""))
        == "stopped"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\xff"])
def test_an_empty_or_odd_lock_is_nobodys(text, here):
    Path("run").mkdir()
    Path("run/lock").write_text(text)
    assert RunFolder(Path("run")).driver() is None


@pytest.mark.parametrize("command", ["status", "stop", "dashboard"])
@pytest.mark.parametrize(
    ("folder", "word"), [("nowhere", "does not exist"), ("d.csv", "is a file"), (".", "is not a run")]
)
def test_what_is_no_run_is_one_line(command, folder, word, here, capfd):
    err = says(f"{command} {folder}", capfd, code=2)
    assert err.count("\n") == 1 and word in err


@pytest.mark.parametrize("damage", [{"trials": "many"}, {"storage": 3}, {"storage": "text"}, {"format": 99}])
def test_a_damaged_request_is_named(damage, here, capfd):
    says("recommend d.csv --target y --out run", capfd)
    whole = {"format": 1, "trials": 3, "objective": None, "working_dir": None, "storage": None, "study": None}
    write_json(Path("run/search.json"), whole | damage)
    assert "search.json" in says("status run", capfd, code=2)


# ---------------------------------------------------------------------------------------------- the dashboard


def test_the_dashboard_that_is_not_installed_is_one_line(here, capfd, monkeypatch):
    says("recommend d.csv --target y --out run", capfd)
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert "pip install 'tuning-advisor[dashboard]'" in says("dashboard run", capfd, code=2)


def test_a_run_without_a_search_has_no_dashboard(here, capfd):
    pytest.importorskip("optuna_dashboard")
    says("recommend d.csv --target y --out run", capfd)
    assert "run `advisor tune` first" in says("dashboard run", capfd, code=2)


def page(address):
    """What a server says that is just starting."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nobody answers at {address}")


@pytest.mark.slow
def test_the_dashboard_shows_the_study(here):
    pytest.importorskip("optuna_dashboard")
    advisor.tune("d.csv", "y", trials=2, out="run", executor="in-process", fixed=PLAN)
    before = Path("run/study.journal").read_bytes()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "advisor", "dashboard", "run", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            studies = json.loads(page(f"http://localhost:{port}/api/studies"))["study_summaries"]
        finally:
            process.kill()
    assert [study["study_name"] for study in studies] == ["search"]
    assert Path("run/study.journal").read_bytes() == before
    assert status.study_of(RunFolder(Path("run"))).trials[0].value is not None
