"""Real kills, torn and damaged journals, stale locks, Ctrl-C.

The file is also the program that is killed: ``python tests/test_crashes.py JSON`` runs a search and prints a
line per trial that has ended, so whatever was printed before the kill must be in the journal after it. And it
is the long form of its first test: ``python tests/test_crashes.py --kills 200``.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from contracts import (
    ENQUEUE,
    ToySpace,
    assert_run_is_sound,
    open_plainly,
    toy_losses,
    toy_payload,
)
from damage import with_a_flipped_bit
from hypothesis import given, settings
from optuna.trial import TrialState

from advisor.errors import UserError
from advisor.executors.base import InProcessExecutor
from advisor.executors.ray.executor import RayExecutor
from advisor.search.driver import search
from advisor.search.events import Ended, EpochDone
from advisor.search.executor_contract import LIMIT, SHARED, script_factory
from advisor.search.plan import SearchPlan
from advisor.search.storage.journal import Journal, counts, read_journal_study

TRIALS = 30


def run_search(
    journal, trials=TRIALS, executor="in process", seconds=0.0, epochs=6, address=None, listen=None
):
    def payload(configuration, place):
        return {
            **toy_payload(configuration, place),
            "losses": toy_losses(configuration, epochs),
            "seconds": seconds,
        }

    plan = SearchPlan(ToySpace(), ENQUEUE, trials=trials, max_epochs=6, make_payload=payload, seed=1)
    if executor == "ray":
        import contracts
        import ray

        ray.cloudpickle.register_pickle_by_value(contracts)
        place = RayExecutor(script_factory, SHARED, workers=2, address=address)
    else:
        place = InProcessExecutor(script_factory, SHARED)
    try:
        return search(plan, place, Path(journal), on_event=listen)
    finally:
        place.close()


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def drive(arguments):
    """The program that is killed."""

    def listen(event, progress):
        if isinstance(event, Ended) and event.end != "discarded":
            say(json.dumps({"number": event.number, "index": event.index, "value": event.value}))
        if isinstance(event, EpochDone):
            say("epoch")

    result = run_search(**arguments, listen=listen)
    sys.exit(130 if result.interrupted else 0)


def start(**arguments):
    arguments["journal"] = str(arguments["journal"])
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parent,
    )


def kill_after(driver, lines, wait):
    """SIGKILL after this many lines and a moment; what was acknowledged."""
    acknowledged = []
    for _ in range(lines):
        line = driver.stdout.readline()
        if not line:
            break
        acknowledged.append(line)
    time.sleep(wait)
    driver.kill()
    acknowledged += driver.stdout.readlines()
    driver.wait()
    # A last line without its end was being printed: not yet said.
    return [json.loads(line) for line in acknowledged if line.startswith("{") and line.endswith("\n")]


def assert_acknowledged_is_there(journal, acknowledged):
    there = {trial.number: trial for trial in read_journal_study(journal).trials if counts(trial)}
    for trial in acknowledged:
        assert there[trial["number"]].user_attrs["place"] == trial["index"]
        assert there[trial["number"]].value == trial["value"]


def outlive(folder, kills, seed):
    """A search killed this many times at random moments, then finished: what was acknowledged before a kill is
    there after it, once, and in the end the run has asked and found what an uninterrupted one does. How many
    trials were acknowledged before kills."""
    folder.mkdir(exist_ok=True)
    run_search(folder / "whole")
    whole = {
        place: (t.params, t.value, t.state)
        for place, t in assert_run_is_sound(folder / "whole", TRIALS).items()
    }
    journal, moment, acknowledged = folder / "study.journal", random.Random(seed), []
    for _ in range(kills):
        driver = start(journal=journal)
        acknowledged += kill_after(driver, moment.randrange(0, 16), moment.random() * 0.02)
        if journal.exists():
            assert_acknowledged_is_there(journal, acknowledged)
    assert len({trial["index"] for trial in acknowledged}) == len(acknowledged)
    run_search(journal)
    trials = assert_run_is_sound(journal, TRIALS)
    assert_acknowledged_is_there(journal, acknowledged)
    assert {place: (t.params, t.value, t.state) for place, t in trials.items()} == whole
    return len(acknowledged)


@pytest.mark.slow
def test_killed_at_any_moment_nothing_finished_is_lost(tmp_path):
    """R1, R2, R3, and R4; ``python tests/test_crashes.py --kills 200`` does the same at length."""
    assert outlive(tmp_path / "run", kills=20, seed=7)


@pytest.mark.slow
def test_chaos_on_ray(local_ray):
    """R1, R2, R3, C1 and C7: the short form of `benchmarks/chaos.py`, on a Ray
    that is there (so without its nodes)."""
    program = Path(__file__).resolve().parents[2] / "benchmarks" / "chaos.py"
    options = [
        "--kinds",
        "worker,driver,storage",
        "--kills",
        "4",
        "--trials",
        "20",
        "--seed",
        "1",
        "--address",
        local_ray,
    ]
    done = subprocess.run(
        [sys.executable, str(program), *options], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "nothing lost, nothing double, every budget met" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["in process", "ray"])
def test_ctrl_c_ends_in_order_and_can_be_resumed(request, tmp_path, executor):
    """R9: once: what runs is given back, exit 130; the budget is met by the next."""
    address = request.getfixturevalue("local_ray") if executor == "ray" else None
    journal = tmp_path / "study.journal"
    driver = start(journal=journal, executor=executor, address=address, seconds=0.03)
    while not (line := driver.stdout.readline()).startswith("{"):
        assert line, "it ended before its first trial"
    # Into the middle of a trial: between two there is nothing to give back. (On
    # Ray both first trials may end first.)
    while (line := driver.stdout.readline()) != "epoch\n":
        assert line, "it ended before the signal"
    driver.send_signal(signal.SIGINT)
    driver.stdout.read()
    assert driver.wait(LIMIT) == 130
    trials = open_plainly(journal).trials
    assert all(trial.state.is_finished() for trial in trials)
    assert [trial.user_attrs["void"] for trial in trials if not counts(trial)][:1] == ["interrupted"]
    run_search(journal)
    assert_run_is_sound(journal, TRIALS)


def asked(journal):
    """Whether a trial has begun; a driver that has just made the file has no study in it yet."""
    try:
        return bool(read_journal_study(journal).trials)
    except UserError:
        return False


@pytest.mark.slow
def test_ctrl_c_twice_leaves_at_once(tmp_path):
    """R9: twice: in the middle of an epoch that takes an hour, and the run can still be resumed."""
    journal = tmp_path / "study.journal"
    driver = start(journal=journal, seconds=3600)
    deadline = time.monotonic() + LIMIT
    while not asked(journal):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while driver.poll() is None:
        # The first may come before the handler is set, so signals are sent until it has gone.
        driver.send_signal(signal.SIGINT)
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run_search(journal)
    assert_run_is_sound(journal, TRIALS)


# ------------------------------------------------------------------ locks


def test_a_stale_lock_and_a_relative_path_do_not_wait(tmp_path, monkeypatch):
    """R5: Optuna's own lock waits 30 s for the first and for ever for both."""
    monkeypatch.chdir(tmp_path)
    run_search("study.journal", trials=3)
    Path("study.journal.lock").symlink_to("study.journal")
    before = time.monotonic()
    run_search("study.journal", trials=5)
    assert time.monotonic() - before < 25
    assert_run_is_sound("study.journal", 5)


def test_the_journal_goes_on_in_its_folder_after_a_chdir(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run_search("study.journal", trials=3, listen=lambda event, progress: os.chdir(tmp_path / "elsewhere"))
    assert_run_is_sound(tmp_path / "study.journal", 3)
    assert not (tmp_path / "elsewhere" / "study.journal").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*study\.journal"):
        run_search(tmp_path / "absent" / "study.journal")


def test_reading_changes_nothing(tmp_path):
    with pytest.raises(UserError, match="does not exist: run `advisor tune` first"):
        read_journal_study(tmp_path / "study.journal")
    assert list(tmp_path.iterdir()) == []
    run_search(tmp_path / "study.journal", trials=3)
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code"')
    before = (tmp_path / "study.journal").read_bytes()
    study = read_journal_study(tmp_path / "study.journal")
    assert len(study.trials) == 3
    with pytest.raises(RuntimeError, match="opened for reading"):
        study.set_user_attr("a", 1)
    assert (tmp_path / "study.journal").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["study.journal"]


# ------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A journal of two trials, with the offset at which each was told."""
    journal = tmp_path_factory.mktemp("small") / "study.journal"
    told = []

    def listen(event, progress):
        if isinstance(event, Ended):
            told.append(journal.stat().st_size)

    run_search(journal, trials=2, epochs=2, listen=listen)
    return journal.read_bytes(), told


@pytest.fixture
def in_memory(monkeypatch, tmp_path):
    """Where thousands of openings are cheap: this test is about content, not about the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(os, "fdatasync", lambda handle: None)
    return tmp_path / "study.journal"


@pytest.mark.slow
def test_a_journal_torn_at_any_byte_keeps_what_was_told(small, in_memory):
    """R6: every byte opens with all trials that were told before it; a sample of
    them is searched to the end."""
    whole, told = small
    for n in range(len(whole)):
        in_memory.write_bytes(whole[:n])
        journal = Journal.open(in_memory)
        finished = [
            trial for trial in journal.study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE
        ]
        journal.close()
        assert len(finished) == sum(offset <= n for offset in told)
        torn = whole[:n].rpartition(b"\n")[2]
        kept = in_memory.with_name("study.journal.torn-1")
        assert kept.exists() == bool(torn)
        if torn:
            assert kept.read_bytes() == torn
            kept.unlink()
        if n % 149 == 0:
            run_search(in_memory, trials=3)
            assert_run_is_sound(in_memory, 3)


@pytest.mark.slow
def test_a_journal_with_a_flipped_bit_is_named_or_harmless(small, in_memory):
    """R6: a line, a file and a cure; or a search that goes on and is sound."""
    whole, _ = small
    named = []

    @settings(max_examples=250, deadline=None)
    @given(with_a_flipped_bit(whole))
    def check(flipped):
        content, place = flipped
        in_memory.write_bytes(content)
        for leftover in in_memory.parent.glob("*.torn-*"):
            leftover.unlink()
        try:
            run_search(in_memory, trials=3)
        except UserError as error:
            line = whole[:place].count(b"\n") + 1
            assert f"study.journal is damaged at line {line}" in str(error)
            named.append(line)
        else:
            assert_run_is_sound(in_memory, 3)

    check()
    assert len(named) > 150


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\x00" * 50 + b"\n", 1),
        (b"[]\n", 1),
        (b'{"op_code": 99}\n', 1),
        (b'{"op_code": 4, "study_id": 0}\n', 1),
        (
            b'{"op_code":0,"worker_id":"w","study_name":"search","directions":[1]}\n{"op_code":4,"study_id":0}\n',
            2,
        ),
        (b"a,b\n1,2\n", 1),
        (b"[" * 100_000 + b"\n", 1),
        (b'{"op_code": "\xff"}\n', 1),
    ],
)
def test_what_is_no_journal_is_one_line(tmp_path, content, line):
    (tmp_path / "study.journal").write_bytes(content)
    for opening in (lambda path: run_search(path, trials=1), read_journal_study):
        with pytest.raises(UserError, match=f"damaged at line {line}"):
            opening(tmp_path / "study.journal")
    assert (tmp_path / "study.journal").read_bytes() == content


def test_a_journal_of_someone_else_is_one_line(tmp_path):
    (tmp_path / "study.journal").write_bytes(
        b'{"op_code":0,"worker_id":"w","study_name":"theirs","directions":[1]}\n'
    )
    with pytest.raises(UserError, match="holds no study of the advisor"):
        run_search(tmp_path / "study.journal", trials=1)


def test_a_note_from_the_dashboard_is_welcome(tmp_path):
    """Lines that other programs write have no checksum."""
    journal = tmp_path / "study.journal"
    run_search(journal, trials=3)
    open_plainly(journal).set_user_attr("note", "written by someone else")
    run_search(journal, trials=4)
    assert read_journal_study(journal).user_attrs["note"] == "written by someone else"
    assert_run_is_sound(journal, 4)


def test_a_full_disk_loses_nothing_and_is_one_line(small, tmp_path):
    """R7 in small: the file may not grow past any of some sizes; with space again, the search goes on."""
    import resource

    whole, _ = small
    for limit in range(0, len(whole) + 400, 397):
        journal = tmp_path / f"{limit}" / "study.journal"
        journal.parent.mkdir()
        kept = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, kept[1]))
        ended = []
        try:
            run_search(
                journal,
                trials=3,
                listen=lambda e, p, ended=ended: ended.append(e) if isinstance(e, Ended) else None,
            )
        except UserError as error:
            assert "cannot write" in str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, kept)
            signal.signal(signal.SIGXFSZ, before)
        run_search(journal, trials=3)
        assert_run_is_sound(journal, 3)
        assert_acknowledged_is_there(journal, [vars(event) for event in ended])


def test_a_trial_that_was_enqueued_and_never_asked_for_is_closed_soundly(tmp_path):
    """A driver that dies between the two leaves a trial without a start; closed
    as it was, it passed for damage."""
    run_search(tmp_path / "study.journal", trials=1)
    journal = Journal.open(tmp_path / "study.journal")
    journal.study.enqueue_trial({"kind": "a", "x": 1.0})
    journal.close()
    run_search(tmp_path / "study.journal", trials=2)
    assert len(read_journal_study(tmp_path / "study.journal").trials) == 3
    assert_run_is_sound(tmp_path / "study.journal", 2)


def test_trials_left_open_are_closed_before_the_first_ask(tmp_path):
    """The zombie trap: the sampler avoids where a running trial is, for ever."""
    journal = Journal.open(tmp_path / "study.journal")
    journal.close()
    run_search(tmp_path / "study.journal", trials=2)
    journal = Journal.open(tmp_path / "study.journal")
    journal.study.ask()
    journal.study.enqueue_trial({"x": 1.0})
    journal.close()
    run_search(tmp_path / "study.journal", trials=3)
    trials = open_plainly(tmp_path / "study.journal").trials
    assert [trial.user_attrs.get("void") for trial in trials] == [
        None,
        None,
        "its driver died",
        "its driver died",
        None,
    ]
    assert_run_is_sound(tmp_path / "study.journal", 3)
    assert len(read_journal_study(tmp_path / "study.journal").trials) == 5, (
        "and it can be opened again: found by 200 kills"
    )
    run_search(tmp_path / "study.journal", trials=4)


def at_length(kills, each=20):
    """Studies that are killed ``each`` times, until ``kills`` kills are done; an
    AssertionError where a promise fails."""
    done = 0
    with tempfile.TemporaryDirectory() as name:
        while done < kills:
            now = min(each, kills - done)
            acknowledged = outlive(Path(name) / f"{done}", now, seed=done)
            done += now
            say(
                f"{done} kills: {acknowledged} trials acknowledged before the last {now}, none lost, none "
                "twice"
            )


if __name__ == "__main__":
    if sys.argv[1] == "--kills":
        at_length(int(sys.argv[2]))
    else:
        drive(json.loads(sys.argv[1]))
