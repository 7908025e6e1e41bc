"""`advisor tune` as a process that is killed, interrupted and started twice:
what was acknowledged is kept."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

pytestmark = pytest.mark.slow

BUDGET = 6
FINISHED = re.compile(r"^trial (\d+): (complete|pruned)")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [f"{i % 7},{(i * 5) % 11},{'yes' if (i % 7) + (i * 5) % 11 > 8 else 'no'}" for i in range(80)]
    path = tmp_path / "data.csv"
    path.write_text("a,b,y\n" + "\n".join(rows) + "\n")
    return path


def start(data: Path, *options: str) -> subprocess.Popen[str]:
    """A search in a process of its own; in-process, so that one kill ends all of it."""
    command = [
        sys.executable,
        "-m",
        "advisor",
        "tune",
        str(data),
        "--target",
        "y",
        "--executor",
        "in-process",
    ]
    command += ["--trials", str(BUDGET), "--out", "run", "--fixed", "epochs=40", "--fixed", "folds=2", *options]
    return subprocess.Popen(
        command,
        cwd=data.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


def acknowledged(process: subprocess.Popen[str], count: int) -> set[int]:
    """Read the progress until ``count`` trials have been reported as finished."""
    assert process.stderr is not None
    numbers: set[int] = set()
    for line in process.stderr:
        found = FINISHED.match(line)
        if found:
            numbers.add(int(found[1]))
        if len(numbers) >= count:
            break
    return numbers


def trials(run: Path) -> list[optuna.trial.FrozenTrial]:
    """What the journal holds, read by plain Optuna from a copy: looking must not fix anything."""
    copy = run.parent / "copy.journal"
    copy.write_bytes((run / "study.journal").read_bytes())
    storage = JournalStorage(JournalFileBackend(str(copy)))
    study = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)
    return study.get_trials()


def test_killed_again_and_again_nothing_that_was_acknowledged_is_lost_and_no_second_driver_gets_in(data):
    """R1, R3 and R8 of the whole command; the next takes over from one that was killed."""
    run, seen = data.parent / "run", {}
    for count in (1, 2):
        process = start(data)
        numbers = acknowledged(process, count)
        if count == 1:
            assert_is_told_who_holds_it(data, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept = {t.number: t.value for t in trials(run) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)}
        assert numbers <= kept.keys()
        assert all(kept[number] == value for number, value in seen.items())
        seen = kept
    process = start(data, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert len(document["search"]["trials"]) == BUDGET
    states = [t.state for t in trials(run)]
    assert TrialState.RUNNING not in states and TrialState.WAITING not in states
    done = {t["number"]: t["value"] for t in document["search"]["trials"]}
    assert all(done[number] == value for number, value in seen.items() if done[number] is not None)
    assert (run / "model" / "weights.safetensors").is_file() and (run / "report.html").is_file()
    assert not [path for path in run.iterdir() if "tmp~" in path.name]


def assert_is_told_who_holds_it(data: Path, first: subprocess.Popen[str]) -> None:
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot end before the second has looked
    second = start(data)
    out, err = second.communicate(timeout=120)
    os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 2 and out == ""
    assert err.count("\n") == 1 and f"process {first.pid} " in err


def on_a_terminal(data: Path) -> tuple[subprocess.Popen[str], int]:
    """The same with stdout and stderr on a pseudo-terminal; its other end is for us."""
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "advisor",
        "tune",
        str(data),
        "--target",
        "y",
        "--executor",
        "in-process",
    ]
    command += ["--trials", str(BUDGET), "--out", "run", "--fixed", "epochs=40", "--fixed", "folds=2"]
    process = subprocess.Popen(
        command,
        cwd=data.parent,
        text=True,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours


def shown(terminal: int, until: str = "") -> str:
    """What a terminal has shown up to a word, or up to the program's end."""
    text = b""
    while not until or until.encode() not in text:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux says so when nobody has the other end any more
            break
        if not part:
            break
        text += part
    return text.decode()


def test_ctrl_c_on_a_terminal_too(data):
    """R9 with the live view, which owns the screen while the search runs."""
    process, terminal = on_a_terminal(data)
    assert ": complete" in shown(terminal, until=": complete")
    os.kill(process.pid, signal.SIGINT)
    last = shown(terminal)
    assert process.wait(120) == 130
    os.close(terminal)
    assert "resume with: advisor tune" in " ".join(last.split())
    assert "Traceback" not in last
    assert [t for t in trials(data.parent / "run") if t.state == TrialState.COMPLETE]


def test_a_terminal_that_is_closed_is_ctrl_c(data):
    process, terminal = on_a_terminal(data)
    assert ": complete" in shown(terminal, until=": complete")
    os.close(terminal)
    os.killpg(process.pid, signal.SIGHUP)  # as Linux does it where the terminal is the process's own
    assert process.wait(120) == 130
    run = data.parent / "run"
    assert [t for t in trials(run) if t.state == TrialState.COMPLETE] and not (run / "error.log").exists()


@pytest.mark.parametrize(("executor", "number"), [("in-process", signal.SIGINT), ("ray", signal.SIGTERM)])
def test_ctrl_c_or_term_keeps_what_is_finished_and_says_how_to_go_on(executor, number, data, request):
    """R9 on a pipe. Ray's core would answer TERM with its stack."""
    address = ("--address", request.getfixturevalue("local_ray")) if executor == "ray" else ()
    process = start(data, "--executor", executor, *address)
    numbers = acknowledged(process, 1)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    *trials_too, again, instead = err.splitlines()
    assert "resume with: advisor tune run --trials 6" in again and instead.endswith(": advisor finish run")
    assert all(line.startswith("trial ") for line in trials_too), err
    kept = {t.number for t in trials(data.parent / "run") if t.state == TrialState.COMPLETE}
    assert numbers <= kept


def test_term_in_the_final_ends_it(data):
    process = start(data)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("final"):
            break
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    # where it came just after the final, while its result is written, the words are those of any command
    words = (f"interrupted: {BUDGET} of {BUDGET} trials are kept", "interrupted: finished work is kept")
    assert process.returncode == 130 and any(word in err for word in words)
    assert sum(t.state == TrialState.COMPLETE for t in trials(data.parent / "run")) > 0
