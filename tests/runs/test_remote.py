"""Runs in object storage: `--out URL`, any command on a URL, one driver at a
time, nothing lost with a machine."""

import contextlib
import json
import os
import shutil
import socket
import threading
import time

import fsspec
import numpy as np
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import advisor
from advisor.cli.main import _run
from advisor.errors import UserError
from advisor.files import read_json, write_text
from advisor.runs import remote
from advisor.runs.folder import RunFolder
from advisor.runs.remote import Remote, local_copy, mirrored
from advisor.workflows.status import request_stop


class Shelf(MemoryFileSystem):
    """An object store that both machines of a test see."""

    protocol = "shelf"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("shelf://"))


fsspec.register_implementation("shelf", Shelf)

FAST = {"fixed": {"epochs": 3, "validation": "holdout"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remote, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.6)
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.1)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Be another machine: its own name and its own cache."""

    def become(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        monkeypatch.setattr(socket, "gethostname", lambda: name)

    monkeypatch.chdir(tmp_path)
    become("one")
    return become


@pytest.fixture(params=["file", "shelf"])
def url(request, tmp_path, machine):
    """A place for a run that both machines see."""
    if request.param == "shelf":
        Shelf.store.clear()
        return f"shelf://{tmp_path.name}/runs/mine"
    return f"file://{tmp_path}/bucket/runs/mine"


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def content(url):
    files, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root).lstrip("/"): files.cat_file(path) for path in files.find(root)}


def table(rows=90):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, rows))
    return pl.DataFrame({"a": a, "b": b, "y": np.where(a + b > 0, "yes", "no")})


# ------------------------------------------------------------------------------------------------ a whole run


@pytest.mark.slow
def test_a_run_at_a_url_goes_on_and_is_read_on_another_machine(url, machine, tmp_path, capfd):
    table().write_csv("d.csv")
    first = advisor.tune("d.csv", "y", trials=2, out=url, executor="in-process", **FAST)
    there = content(url)
    files = {
        "facts.json",
        "recommendation.yaml",
        "study.journal",
        "result.json",
        "report.html",
        "model/model.json",
    }
    assert files <= there.keys()
    assert not {"lock", "remote.json", "stop"} & there.keys() and not any("tmp~" in name for name in there)
    machine("two")
    again = advisor.tune(url, trials=4, executor="in-process")
    assert again.folder != first.folder and str(again.folder).startswith(str(tmp_path / "two"))
    values = [[t["value"] for t in one.document["search"]["trials"]] for one in (first, again)]
    assert values[1][:2] == values[0] and len(values[1]) == 4
    machine("three")
    assert np.array_equal(advisor.load_model(url).predict(table()), again.model.predict(table()))
    for command in (
        ["status", url],
        ["why", url, "width"],
        ["report", url],
        ["predict", url, "d.csv"],
        ["diff", url, url],
    ):
        assert _run(command) == 0, command
    out, _ = capfd.readouterr()
    assert f"{url}: finished" in out and "next:    advisor report " + url in out
    for command in (
        ["status", url],
        ["stop", url],
        ["predict", url, "d.csv"],
        ["tune", url, "--trials", "4"],
    ):
        assert _run([*command, "--json"]) == 0, command
        assert json.loads(capfd.readouterr().out)["run"] == url, (
            "what the next command takes, not this machine's copy"
        )
    machine("one")
    assert read_json(local_copy(url, new=True) / "result.json") == again.document, (
        "what the second machine found is here, too"
    )


@pytest.mark.slow
def test_recommend_and_check_leave_their_files_at_the_url(url, capfd):
    table().write_csv("d.csv")
    assert _run(["recommend", "d.csv", "--target", "y", "--out", url]) == 0
    assert f"next:   advisor tune {url}" in capfd.readouterr().out
    assert {"facts.json", "recommendation.yaml", "report.html", "report.json"} == content(url).keys()
    assert _run(["check", url, "--out", url, "--seconds", "1"]) in (0, 3)
    assert "preflight.json" in content(url)


# ------------------------------------------------------------------------------------------------ copies


def begun(url, text="one"):
    """A run's working copy, with one file of it there."""
    run = RunFolder(local_copy(url, new=True))
    with run.in_use(), mirrored(run):
        write_text(run.recommendation, text)
    return run


def test_what_was_not_copied_before_a_crash_is_copied_by_the_next_command(url):
    run = begun(url)
    write_text(run.recommendation, "two")  # and here the machine's process dies
    assert local_copy(url, new=True) == run.path and run.recommendation.read_text() == "two", (
        "nothing there is newer"
    )
    with run.in_use(), mirrored(run):
        pass
    assert content(url)["recommendation.yaml"] == b"two"


def test_what_another_machine_wrote_since_is_taken_over(url, machine):
    run = begun(url)
    machine("two")
    other = begun(url, "from two")
    other.model.mkdir()
    write_text(other.model / "m", "weights")
    with other.in_use(), mirrored(other):
        pass
    machine("one")
    write_text(run.recommendation, "never copied")
    assert local_copy(url, new=True) == run.path
    assert run.recommendation.read_text() == "from two"
    assert (run.model / "m").read_text() == "weights"
    with run.in_use(), mirrored(run):
        (run.model / "m").unlink()
    assert content(url).keys() == {"recommendation.yaml"}, "what is removed here goes away there"
    machine("two")
    assert not (RunFolder(local_copy(url, new=True)).model / "m").exists()


def test_what_is_new_is_there_while_the_run_is_in_use(url):
    run = begun(url)
    with run.in_use(), mirrored(run):
        for text in ("a", "ab", "abc"):
            write_text(run.journal, text)
            wait_for(lambda text=text: content(url).get("study.journal") == text.encode())
        (run.checkpoints / "x").mkdir(parents=True)
        write_text(run.checkpoints / "x" / "state", "of a trial under way")
        holder = json.loads(content(url)["lock"])
        assert holder["pid"] == os.getpid() and holder["host"] == "one"
    assert content(url).keys() == {"recommendation.yaml", "study.journal"}


def test_a_run_that_fails_leaves_what_it_had_written(url):
    run = begun(url)
    with pytest.raises(KeyError), run.in_use(), mirrored(run):
        write_text(run.journal, "trials")
        raise KeyError
    assert content(url).keys() == {"recommendation.yaml", "study.journal"}


def test_a_name_that_leads_out_of_the_folder_is_not_copied(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(Shelf, "find", lambda self, root, **more: [f"{root}/../../evil", f"{root}/good"])
    monkeypatch.setattr(Shelf, "cat_file", lambda self, path, **more: b"x")
    monkeypatch.setattr(Shelf, "ukey", lambda self, path: "1")
    monkeypatch.setattr(Shelf, "exists", lambda self, path, **more: True)
    folder = local_copy("shelf://b/run", new=True)
    assert (folder / "good").read_bytes() == b"x"
    assert not list(tmp_path.rglob("evil"))


def test_a_file_that_is_missing_here_comes_back_and_is_not_removed_there(url):
    run = begun(url)
    run.recommendation.unlink()  # somebody tidied the cache
    with run.in_use(), mirrored(run):
        pass
    assert run.recommendation.read_text() == "one" and content(url).keys() == {"recommendation.yaml"}


def test_a_question_replaces_nothing_under_a_driver_that_begins(url, machine, monkeypatch):
    run = begun(url)
    machine("two")
    begun(url, "from two")
    machine("one")
    files = type(Remote.at(url).files)
    read, leases = files.cat_file, contextlib.ExitStack()

    def cat_file(self, path, *more, **options):
        if path.endswith("recommendation.yaml"):
            leases.enter_context(run.in_use())
        return read(self, path, *more, **options)

    with leases, monkeypatch.context() as context:
        context.setattr(files, "cat_file", cat_file)
        before = run.recommendation.stat().st_ino
        local_copy(url)
        assert run.recommendation.stat().st_ino == before


def test_a_copy_of_a_working_copy_is_a_run_of_its_own(url, tmp_path):
    run = begun(url)
    shutil.copytree(run.path, tmp_path / "mine")
    copy = RunFolder(tmp_path / "mine")
    with copy.in_use(), mirrored(copy):
        write_text(copy.recommendation, "mine alone")
    assert content(url)["recommendation.yaml"] == b"one"
    assert remote.url_or_path(copy) == str(copy.path) and remote.url_or_path(run) == url


# ------------------------------------------------------------------------------------------------ one driver


def test_a_second_machine_is_refused_and_hears_who_it_is(url, machine, monkeypatch):
    monkeypatch.setattr(remote, "SILENT_SECONDS", 20.0)  # else a busy machine looks like a lost one
    run = begun(url)
    with run.in_use(), mirrored(run):
        machine("two")
        other = RunFolder(local_copy(url, new=True))
        assert other.driver().host == "one", "advisor status says so, too"
        says = rf"mine is in use by process {os.getpid()} on one: wait until it ends"
        with pytest.raises(UserError, match=says), mirrored(other):
            pass
        machine("one")
    machine("two")
    with other.in_use(), mirrored(other):
        pass


def test_a_lease_that_is_empty_while_it_is_renewed_is_still_held(url, monkeypatch):
    """Regression: a second machine that read it at that moment took the run."""
    begun(url)
    there = Remote.at(url)
    there._say_holder()
    read, answers = there.files.cat_file, iter([b"", b'{"pid": '])
    monkeypatch.setattr(there.files, "cat_file", lambda path: next(answers, None) or read(path))
    assert there._holder()["pid"] == os.getpid()


def test_a_lease_that_is_not_renewed_is_taken_over(url, machine):
    begun(url)
    Remote.at(url)._say_holder()  # and then its machine is lost
    machine("two")
    run, notes = RunFolder(local_copy(url, new=True)), []
    with run.in_use(), mirrored(run, notes.append):
        assert json.loads(content(url)["lock"])["host"] == "two"
    assert len(notes) == 1 and f"process {os.getpid()} on one: if it is silent" in notes[0], (
        "the wait is no mystery"
    )


def test_who_asks_does_not_believe_a_lease_that_is_not_renewed(url, machine, monkeypatch):
    """`status` and `stop` said "running" of a killed driver of another machine for ever."""
    begun(url)
    there, now, ahead = Remote.at(url), time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    there._say_holder()
    machine("two")
    assert RunFolder(local_copy(url)).driver().host == "one", "just renewed: believed at once"
    ahead[0] = 60
    assert RunFolder(local_copy(url)).driver() is None, "its machine is lost"
    with monkeypatch.context() as context:
        context.setattr(remote, "SILENT_SECONDS", 60)  # what is known to be dead is not waited for again
        assert RunFolder(local_copy(url)).driver() is None
    there._say_holder()
    ahead[0] = 3600  # our clock is an hour off, and the driver lives
    monkeypatch.setattr(remote, "SILENT_SECONDS", 20.0)
    again = threading.Timer(0.2, there._say_holder)
    again.start()
    assert RunFolder(local_copy(url)).driver().host == "one"
    again.join()


def test_a_dead_driver_of_this_machine_is_not_waited_for(url, monkeypatch):
    run = begun(url)
    with monkeypatch.context() as context:
        context.setattr(os, "getpid", lambda: 2**22 + 1)  # beyond Linux's largest pid
        Remote.at(url)._say_holder()
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with run.in_use(), mirrored(run):
        pass
    assert len(pauses) == 1, "the one in which another that begins now would be seen"


def test_one_whose_lease_was_taken_stops_and_copies_nothing_more(url, machine):
    run = begun(url)
    says = r"was taken over by process .* on two: what was finished here since then is in"
    with pytest.raises(UserError, match=says), run.in_use(), mirrored(run):
        machine("two")  # while our network was away for longer than the patience
        Remote.at(url)._say_holder()
        machine("one")
        wait_for(run.stop_request.exists)
        write_text(run.recommendation, "too late")
    assert content(url)["recommendation.yaml"] == b"one"


def test_of_two_that_begin_at_once_one_runs(url, machine, monkeypatch):
    begun(url)
    monkeypatch.setattr(remote, "BEAT_SECONDS", 60)
    monkeypatch.setattr(remote, "SILENT_SECONDS", 60)
    monkeypatch.setattr(remote, "LOOK_SECONDS", 1)
    ends, together, over = [], threading.Barrier(2), threading.Event()

    def drive():
        lease = Remote.at(url).lease()
        together.wait()
        try:
            with lease:
                ends.append("ran")
                over.wait(30)
        except UserError:
            ends.append("refused")

    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: "ran" in ends)
    Remote.at(url)._put(
        "lock", json.dumps({**json.loads(content(url)["lock"]), "beat": 2}).encode()
    )  # it lives
    wait_for(lambda: len(ends) == 2)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["ran", "refused"]
    assert "lock" not in content(url)


def test_a_lease_that_was_lost_since_the_last_look_is_noticed_at_the_end(url, machine, monkeypatch):
    run = begun(url)
    monkeypatch.setattr(remote, "BEAT_SECONDS", 60)
    with pytest.raises(UserError, match="was taken over by process"), run.in_use(), mirrored(run):
        write_text(run.recommendation, "too late")
        machine("two")
        Remote.at(url)._say_holder()
        machine("one")
    there = content(url)
    assert there["recommendation.yaml"] == b"one" and json.loads(there["lock"])["host"] == "two"


def test_another_machine_can_ask_it_to_stop(url, machine):
    run = begun(url)
    answers = []
    with run.in_use(), mirrored(run):
        machine("two")
        other = RunFolder(local_copy(url, new=True))
        thread = threading.Thread(target=lambda: answers.append(request_stop(other, wait=30)))
        thread.start()
        wait_for(run.stop_request.exists)
        machine("one")
    machine("two")
    thread.join()
    assert answers == ["stopped"]
    assert content(url).keys() == {"recommendation.yaml"}, "the request went with it"


# -------------------------------------------------------------------------------------------- what goes wrong


def test_storage_that_is_away_for_a_while_is_tried_again(machine, monkeypatch):
    Shelf.store.clear()
    run = begun("shelf://b/run")
    away = [False]
    write = Shelf.pipe_file

    def pipe_file(self, path, value, **more):
        if away[0]:
            raise ConnectionError("no route")
        return write(self, path, value, **more)

    monkeypatch.setattr(Shelf, "pipe_file", pipe_file)
    with run.in_use(), mirrored(run):
        away[0] = True
        write_text(run.journal, "trials")
        time.sleep(0.3)
        away[0] = False
    assert content("shelf://b/run")["study.journal"] == b"trials"
    says = r"run does not answer \(ConnectionError: no route\); the complete run is in .*one"
    with pytest.raises(UserError, match=says), run.in_use(), mirrored(run):
        write_text(run.journal, "more trials")
        away[0] = True
    away[0] = False
    with run.in_use(), mirrored(run):
        pass
    assert content("shelf://b/run")["study.journal"] == b"more trials"


def test_what_else_lies_at_a_url_is_not_copied(url, tmp_path, capfd):
    files, root = fsspec.core.url_to_fs(url)
    files.makedirs(f"{root}/deep", exist_ok=True)
    files.pipe_file(f"{root}/deep/large.bin", b"terabytes")
    assert _run(["why", url]) == 2
    assert _run(["recommend", "sklearn:wine", "--target", "target", "--out", url]) == 2
    first, second = capfd.readouterr().err.splitlines()
    assert (
        "holds no run" in first
        and "is not a run and is not empty (it holds 'deep'): choose another URL" in second
    )
    assert content(url).keys() == {"deep/large.bin"} and not (tmp_path / "one").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "url": 5}'])
def test_a_damaged_memory_of_the_url_is_one_line(text, url, capfd):
    begun(url).remote.write_text(text)
    assert _run(["recommend", "sklearn:wine", "--target", "target", "--out", url]) == 2
    assert "remote.json is damaged" in capfd.readouterr().err


@pytest.mark.parametrize("files", ["5", '{"a": 1}', '{"a": ["b"]}'])
def test_a_damaged_memory_of_what_was_copied_is_one_line(files, url):
    run = begun(url)
    run.remote.write_text(f'{{"format": 1, "url": "{url}", "files": {files}}}')
    with pytest.raises(
        UserError, match=r"remote.json is damaged: it does not say what was copied; remove the folder"
    ):
        local_copy(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sftp://me:secret@nowhere.invalid/run", "the URL holds a password"),
        ("s4://bucket/run", "s4://bucket/run is not in a file system that fsspec supports"),
        ("hdfs://nowhere.invalid/run", "hdfs://nowhere.invalid/run"),
        ("memory://run", "memory://run disappears when this process ends"),
        ("reference://x", "reference://x: a run cannot be stored there"),
        ("generic://x", "generic://x: a run cannot be stored there"),
        ("shelf://empty/run", "shelf://empty/run holds no run: give the URL of a run, or download the data"),
        (
            "https://nowhere.invalid/d.csv",
            "nothing can be stored there; give s3://BUCKET/RUN, or download the data",
        ),
    ],
)
@pytest.mark.parametrize(
    "command", [["why"], ["status"], ["stop"], ["tune", "--executor", "in-process"], ["report"], ["train"]]
)
def test_a_url_that_is_none_is_one_line(url, says, command, machine, capfd):
    Shelf.store.clear()
    assert _run([command[0], url, *command[1:]]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert says in err and "secret" not in err
