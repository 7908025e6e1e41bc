"""A study that is driven from outside, without an executor: ask, report, tell."""

import errno
import math
import threading
from pathlib import Path

import pytest
from contracts import ENQUEUE, ToySpace, assert_run_is_sound, open_plainly, toy_losses, toy_payload
from optuna.trial import TrialState

from advisor.errors import UserError
from advisor.executors.base import InProcessExecutor
from advisor.search.driver import search
from advisor.search.events import Ended, EpochDone, Started
from advisor.search.executor_contract import SHARED, script_factory
from advisor.search.plan import SearchPlan
from advisor.search.resources import Sizing
from advisor.search.storage.database import Database, InMemory
from advisor.search.storage.journal import Journal, read_journal_study
from advisor.search.study import Complete, Failure, Interruption, Study, TrialTaken, UnknownTrial
from advisor.search.trials import end_of


def plan(trials=8, **changes):
    settings = {
        "space": ToySpace(),
        "enqueue": ENQUEUE,
        "trials": trials,
        "max_epochs": 6,
        "make_payload": toy_payload,
    }
    return SearchPlan(**{**settings, **changes})


def in_memory(trials=8, *, clock=lambda: 0.0, on_event=None, **changes):
    return Study(plan(trials, **changes), InMemory(), clock=clock, on_event=on_event)


def train(study, assignment, losses=None):
    """Report the losses until the study says stop, and tell the end; how the trial ended."""
    for epoch, loss in enumerate(losses or toy_losses(assignment.configuration), start=1):
        if study.report(assignment.number, epoch, loss):
            break
    return study.tell(assignment.number, Complete())


def drive(study, trials=10**9):
    """Run trials one after the other until there is nothing more to ask for."""
    for _ in range(trials):
        if (assignment := study.ask()) is None:
            return
        train(study, assignment)


def kept(journal):
    """What a finished study says of each trial, but for the time that it took."""
    timed = ("seconds", "waited", "worker", "device")
    return [
        (
            trial.number,
            trial.state,
            trial.params,
            trial.value,
            trial.intermediate_values,
            {name: value for name, value in trial.user_attrs.items() if name not in timed},
        )
        for trial in open_plainly(journal).trials
    ]


def test_where_nothing_can_be_written_trials_stay_open_and_indices_free(tmp_path, monkeypatch):
    def full(handle, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Study.open(plan(4), tmp_path / "journal") as study:
        first = study.ask()
        with monkeypatch.context() as disk:
            disk.setattr("advisor.files.os.write", full)
            for call in (study.ask, lambda: study.tell(first.number, Complete(0.5))):
                with pytest.raises(UserError, match="No space left"):
                    call()
        assert study.tell(first.number, Complete(0.5)).end == "complete"
        drive(study)
        assert sorted(trial.user_attrs["place"] for trial in study.trials) == [0, 1, 2, 3]


# ------------------------------------------------------------------ the same decisions as the driver


def test_a_study_decides_what_the_search_decides(tmp_path):
    executor = InProcessExecutor(script_factory, SHARED)
    found = search(plan(24, seed=3), executor, tmp_path / "driver")
    with Study.open(plan(24, seed=3), tmp_path / "outside") as study:
        drive(study)
        assert study.remaining == 0 and study.ask() is None
        assert [trial.number for trial in study.trials] == [trial.number for trial in found.trials]
        assert study.best.number == found.best.number
    assert kept(tmp_path / "outside") == kept(tmp_path / "driver")
    assert {end_of(trial) for trial in found.trials} >= {"complete", "pruned"}


@pytest.mark.parametrize("after", [1, 5, 11])
def test_one_that_is_gone_on_with_by_the_driver_ends_the_same(after, tmp_path):
    """Also with a trial under way, whose index is asked for again."""
    search(plan(16, seed=3), InProcessExecutor(script_factory, SHARED), tmp_path / "whole")
    with Study.open(plan(16, seed=3), tmp_path / "half") as study:
        drive(study, after)
        cut_off = study.ask()
        study.report(cut_off.number, 1, 7.0)
    search(plan(16, seed=3), InProcessExecutor(script_factory, SHARED), tmp_path / "half")
    whole, half = (assert_run_is_sound(tmp_path / name, 16) for name in ("whole", "half"))
    assert [(end_of(trial), trial.params) for _, trial in sorted(half.items())] == [
        (end_of(trial), trial.params) for _, trial in sorted(whole.items())
    ]


# ------------------------------------------------------------------ ask


def test_what_is_enqueued_comes_first_then_what_the_sampler_proposes():
    study = in_memory(4)
    asked = [study.ask() for _ in range(4)]
    assert [(one.index, one.origin) for one in asked] == [
        (0, "recommendation"),
        (1, "default"),
        (2, "search"),
        (3, "search"),
    ]
    assert [one.configuration for one in asked[:2]] == list(ENQUEUE.values())
    assert study.ask() is None and study.remaining == 4
    assert study.running == tuple(asked)
    ends = [train(study, one) for one in reversed(asked)]
    assert [ended.end for ended in ends] == ["complete"] * 4 and study.remaining == 0


def test_what_is_refused_takes_no_index():
    events = []
    refuse = lambda configuration: "too wide" if configuration["x"] > 0 else None  # noqa: E731
    study = in_memory(12, enqueue={}, refuse=refuse, on_event=events.append)
    drive(study)
    assert [trial.user_attrs["place"] for trial in study.trials] == list(range(12))
    assert all(trial.params["x"] <= 0 for trial in study.trials)
    assert [event.index for event in events if isinstance(event, Ended)] == list(range(12))


def test_a_refused_reference_ends_within_ask_and_the_next_is_given():
    events = []
    refuse = lambda configuration: "too wide" if configuration["x"] == 1.5 else None  # noqa: E731
    study = in_memory(3, refuse=refuse, on_event=events.append)
    assert study.ask().origin == "default"
    assert [type(event) for event in events] == [Started, Ended, Started]
    assert (events[1].end, events[1].reason) == ("failed", "too wide")


def test_without_time_only_the_first_is_begun():
    now = [0.0]
    study = in_memory(4, clock=lambda: now[0], time_limit=10.0)
    now[0] = 11.0
    first = study.ask()
    assert first.index == 0 and study.ask() is None and study.remaining == 4
    train(study, first)
    assert study.ask() is None and study.is_closed()


def test_many_threads_ask_for_different_trials(tmp_path):
    given = []
    with Study.open(plan(40), tmp_path / "j") as study:

        def work():
            while (assignment := study.ask()) is not None:
                given.append(assignment.index)
                train(study, assignment)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(given) == list(range(40))
    assert_run_is_sound(tmp_path / "j", 40)


# ------------------------------------------------------------------ report


def test_a_trial_behind_the_median_is_told_to_stop():
    study = in_memory(9, max_epochs=20)
    for _ in range(8):
        train(study, study.ask(), [1.0] * 20)
    last = study.ask()
    said = [study.report(last.number, epoch, 9.0) for epoch in range(1, 21)]
    assert said == [False, False] + [True] * 18
    ended = study.tell(last.number, Complete())
    assert (ended.end, ended.value, ended.reason) == ("pruned", 9.0, "worse than the median at epoch 3")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_trial(loss):
    study = in_memory(3)
    first = study.ask()
    assert not study.report(first.number, 1, 4.0)
    assert study.report(first.number, 2, loss)
    ended = study.ended(first.number)
    assert (ended.end, ended.value) == ("diverged", 4.0)
    assert study.best is None


def test_reports_that_come_twice_or_late_change_nothing():
    events = []
    study = in_memory(2, on_event=events.append)
    first = study.ask()
    for epoch, loss in [(1, 3.0), (1, 3.0), (3, 1.0), (2, 2.0), (3, 1.0)]:
        assert not study.report(first.number, epoch, loss)
    assert [event.epoch for event in events if isinstance(event, EpochDone)] == [1, 3]
    assert study.tell(first.number, Complete()).value == 1.0


# ------------------------------------------------------------------ tell


def test_a_value_may_be_told_without_reports():
    study = in_memory(3)
    first, second, third = (study.ask() for _ in range(3))
    assert study.tell(first.number, Complete(0.25)).value == 0.25
    assert study.tell(second.number, Complete(math.nan)).end == "diverged"
    ended = study.tell(third.number, Complete())
    assert (ended.end, ended.reason) == ("failed", "the objective reported no loss")
    assert study.best.value == 0.25


def test_an_end_is_told_once():
    events = []
    study = in_memory(2, on_event=events.append)
    first = study.ask()
    told = [train(study, first), study.tell(first.number, Failure("error", "late"))]
    assert told[0] == told[1] and told[0].is_best
    assert study.report(first.number, 7, 0.0) and study.best.value == told[0].value
    assert sum(isinstance(event, Ended) for event in events) == 1


def test_a_trial_that_was_never_asked_for_is_unknown():
    study = in_memory(2)
    for call in (
        lambda: study.report(5, 1, 1.0),
        lambda: study.tell(5, Complete(1.0)),
        lambda: study.begin(5, "worker"),
        lambda: study.assignment(5),
    ):
        with pytest.raises(UnknownTrial, match="trial 5"):
            call()


def test_an_interrupted_trial_gives_its_index_back():
    study = in_memory(3)
    first = study.ask()
    assert study.tell(first.number, Interruption("closed")).end == "discarded"
    again = study.ask()
    assert (again.index, again.configuration) == (first.index, first.configuration)
    assert again.number > first.number


def test_a_lost_trial_is_given_to_the_next_who_asks():
    """As a server does when a worker is silent for too long; the first may still come back."""
    study = in_memory(3)
    first = study.ask()
    assert not study.report(first.number, 1, 1.0, attempt=first.attempt)
    assert study.tell(first.number, Failure("node lost", "silent for 60 s")) is None
    assert study.waiting and study.report(first.number, 2, 0.5, attempt=first.attempt)
    again = study.ask()
    assert (again.number, again.index, again.attempt) == (first.number, first.index, 2)
    assert again.configuration == first.configuration
    assert study.report(first.number, 2, 0.1, attempt=first.attempt), "the first has lost it"
    with pytest.raises(TrialTaken, match="attempt 2"):
        study.tell(first.number, Complete(0.1), attempt=first.attempt)
    assert not study.report(again.number, 1, 4.0, attempt=again.attempt)
    assert study.tell(again.number, Complete(), attempt=again.attempt).value == 4.0
    assert study.trials[0].intermediate_values == {1: 4.0}


def test_what_kills_its_worker_twice_is_quarantined_and_its_like_is_not_run():
    same = {"recommendation": ENQUEUE["recommendation"], "again": ENQUEUE["recommendation"]}
    study = in_memory(3, enqueue=same)
    for attempt in (1, 2):
        assignment = study.ask()
        assert assignment.attempt == attempt
        ended = study.tell(assignment.number, Failure("worker died", "signal 9"))
    assert (ended.end, ended.reason) == ("quarantined", "signal 9")
    assert study.ask().index == 2
    assert study.ended(1).reason == "the configuration is that of trial 0, which was quarantined"


def test_what_is_too_large_comes_again_smaller():
    sizing = Sizing(lambda configuration: 64, lambda configuration, rows: float(rows))
    study = in_memory(2, sizing=sizing)
    first = study.ask()
    assert (first.micro_batch, first.memory) == (None, 64.0)
    assert study.tell(first.number, Failure("out of memory", "the device is full")) is None
    again = study.ask()
    assert (again.number, again.micro_batch, again.memory) == (first.number, 32, 32.0)
    assert study.ask().micro_batch == 32, "what did not fit is known to the next"


def test_a_time_limit_prunes_what_has_reported_and_quarantines_what_has_not():
    study = in_memory(3)
    first, second = study.ask(), study.ask()
    study.report(first.number, 1, 2.0)
    ends = [study.tell(one.number, Failure("time limit", "10 s")).end for one in (first, second)]
    assert ends == ["pruned", "quarantined"]


def test_when_the_first_trials_all_fail_the_next_ask_says_why():
    study = in_memory(9)
    for _ in range(3):
        assignment = study.ask()
        assert study.tell(assignment.number, Failure("error", "ValueError: no good", "trace")).end == "failed"
    with pytest.raises(
        UserError, match="all of the first 3 trials failed, the last with ValueError: no good"
    ):
        study.ask()


# ------------------------------------------------------------------ from a store


def opener(kind, folder):
    if kind == "journal":
        return folder / "j"
    return lambda: Database.open(f"sqlite:///{folder}/d.db", "s")


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_open_trials_outlive_their_owner(kind, tmp_path):
    """A server that died gives no trial twice: who has one goes on with it, its curve and its note are kept."""
    store = opener(kind, tmp_path)
    now = [0.0]
    with Study.open(plan(6), store, clock=lambda: now[0]) as study:
        drive(study, 1)
        second, third = study.ask(note={"key": "b"}), study.ask(note={"key": "c"})
        now[0] = 10.0  # a curve goes to the store every few seconds
        study.report(second.number, 1, 3.0)
        study.report(second.number, 2, 5.0)
        now[0] = 20.0
        study.report(second.number, 3, 4.0)
    with Study.open(plan(6), store, adopt=True) as study:
        assert study.running == (second, third)
        assert study.assignment(third.number).note == {"key": "c"}
        assert not study.report(second.number, 4, 4.5)
        ended = study.tell(second.number, Complete())
        assert (ended.value, ended.index) == (3.0, 1)
        assert study.ask().index == 3
    with Study.open(plan(6), store) as study:
        assert study.running == () and study.ask().index == 2


def test_an_ask_that_was_cut_off_is_adopted_whole(tmp_path):
    """Killed between the trial's record and that of its parameters: an enqueued trial has only the first."""
    with Study.open(plan(3), tmp_path / "j"):
        pass
    journal = Journal.open(tmp_path / "j")
    attributes = {"place": 0, "origin": "recommendation"}
    journal.study.enqueue_trial(ENQUEUE["recommendation"], user_attrs=attributes)
    journal.study.ask()  # its parameters were never suggested
    journal.study.ask()  # ... and this one has no index yet
    journal.close()
    with Study.open(plan(3), tmp_path / "j", adopt=True) as study:
        (first,) = study.running
        assert (first.index, first.configuration) == (0, ENQUEUE["recommendation"])
        assert study.ended(1).end == "discarded"
        train(study, first)
        drive(study)
    assert_run_is_sound(tmp_path / "j", 3)


def test_a_study_has_one_owner(tmp_path):
    with Study.open(plan(2), tmp_path / "j") as study:
        with (
            pytest.raises(UserError, match=r"j is in use by another process"),
            Study.open(plan(2), tmp_path / "j"),
        ):
            pass
        drive(study)
    with Study.open(plan(2), tmp_path / "j") as study:
        assert study.remaining == 0


def test_where_it_stands_adds_up():
    now = [0.0]
    study = in_memory(4, clock=lambda: now[0])
    first, second = study.ask(), study.ask()
    study.begin(first.number, "worker 1", "cuda:0")
    study.report(first.number, 1, 2.0)
    now[0] = 6.0
    study.tell(first.number, Complete())
    progress = study.progress()
    assert (progress.done, progress.trials, progress.seconds) == (1, 4, 6.0)
    assert [one.number for one in progress.running] == [second.number]
    assert (progress.best_value, progress.best_number, progress.seconds_left) == (2.0, 0, 18.0)
    assert study.trials[0].user_attrs["device"] == "cuda:0"


def test_what_was_told_is_there_for_a_reader_at_once(tmp_path):
    with Study.open(plan(2), Path(tmp_path / "j")) as study:
        train(study, study.ask())
        study.sync()
        (trial,) = read_journal_study(tmp_path / "j").trials
        assert trial.state == TrialState.COMPLETE
