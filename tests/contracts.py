"""Reusable test classes: what every executor must do, and what must hold for every run.

To test an executor of your own, subclass :class:`ExecutorContract` and give it a fixture ``executor`` that is made with
``script_factory`` and ``SHARED``.
"""

import os
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from advisor.executors import Cancelled, Failed, Finished, Job, Reported

SHARED = {"weights": np.arange(1000.0)}
LIMIT = 60.0
"""Seconds after which a condition that was waited for counts as never met."""


class ToySpace:
    """x in [-5, 5], and y only when kind is b."""

    def suggest(self, trial):
        configuration = {
            "kind": trial.suggest_categorical("kind", ["a", "b"]),
            "x": trial.suggest_float("x", -5, 5),
        }
        if configuration["kind"] == "b":
            configuration["y"] = trial.suggest_float("y", 0.1, 10, log=True)
        return configuration

    def encode(self, configuration):
        return dict(configuration)


ENQUEUE = {
    "recommendation": {"kind": "a", "x": 1.5},
    "default": {"kind": "b", "x": -4.0, "y": 5.0},
}


def toy_losses(configuration, epochs=6):
    return [(configuration["x"] - 1) ** 2 + configuration.get("y", 1.0) / e + 10 / e for e in range(1, epochs + 1)]


def toy_payload(configuration, place):
    return {"configuration": configuration, "place": place, "losses": toy_losses(configuration)}


def script_factory(shared):
    """An objective that does what its payload says.

    losses: yielded one by one. seconds: slept before each. raise_at, exit_at: the epoch at which it raises or kills its
    process. forever: go on without end. mark: a file that gets a line when the objective is closed before its end.
    """

    def objective(job):
        payload = job.payload
        losses = payload.get("losses", [])
        epoch = 0
        try:
            while payload.get("forever") or epoch < len(losses):
                epoch += 1
                time.sleep(payload.get("seconds", 0))
                if payload.get("raise_at") == epoch:
                    raise ValueError("no\ngood")
                if payload.get("exit_at") == epoch:
                    os._exit(3)
                yield epoch, losses[epoch - 1] if losses else 1.0
        finally:
            if "mark" in payload:
                with Path(payload["mark"]).open("a") as file:
                    file.write("closed\n")
        return {"sum": float(shared["weights"].sum()), "array": np.full(payload.get("size", 3), 7.0), "pid": os.getpid()}

    return objective


def events_of(executor, number=1):
    """Poll until ``number`` jobs have ended; all events."""
    events, ended = [], 0
    deadline = time.monotonic() + LIMIT
    while ended < number:
        assert time.monotonic() < deadline, f"only {events}"
        new = executor.poll(1.0)
        events += new
        ended += sum(not isinstance(event, Reported) for event in new)
    return events


class ExecutorContract:
    """Every executor passes these; see ``advisor.executors.Executor`` for the words."""

    def test_reports_in_order_then_the_result(self, executor):
        executor.submit(Job("order", {"losses": [3.0, 2.0, 1.0]}))
        *reports, last = events_of(executor)
        assert reports == [Reported("order", 1, 3.0), Reported("order", 2, 2.0), Reported("order", 3, 1.0)]
        assert isinstance(last, Finished)
        assert last.result["sum"] == SHARED["weights"].sum()

    def test_large_results_are_the_callers_own(self, executor):
        executor.submit(Job("large", {"losses": [1.0], "size": 300_000}))
        array = events_of(executor)[-1].result["array"]
        array += 1
        assert array.sum() == 300_000 * 8

    def test_many_epochs_lose_none(self, executor):
        executor.submit(Job("many", {"losses": [float(i) for i in range(2000)]}))
        events = events_of(executor)
        assert [event.epoch for event in events[:-1]] == list(range(1, 2001))

    def test_not_finite_losses_arrive_as_they_are(self, executor):
        executor.submit(Job("nan", {"losses": [1.0, float("nan"), float("inf")]}))
        losses = [event.loss for event in events_of(executor)[:-1]]
        assert losses[0] == 1.0
        assert np.isnan(losses[1])
        assert losses[2] == float("inf")

    def test_an_error_is_told_with_its_traceback(self, executor):
        executor.submit(Job("error", {"losses": [1.0, 2.0], "raise_at": 2}))
        events = events_of(executor)
        assert events[0] == Reported("error", 1, 1.0)
        failed = events[-1]
        assert isinstance(failed, Failed)
        assert failed.error == "ValueError: no good"
        assert 'raise ValueError("no\\ngood")' in failed.traceback
        assert not failed.worker_died

    def test_the_next_job_runs_after_an_error(self, executor):
        executor.submit(Job("broken", {"losses": [1.0], "raise_at": 1}))
        events_of(executor)
        executor.submit(Job("whole", {"losses": [1.0]}))
        assert isinstance(events_of(executor)[-1], Finished)

    def test_cancel_ends_the_job_and_runs_its_finally(self, executor, tmp_path):
        mark = tmp_path / "mark"
        executor.submit(Job("endless", {"forever": True, "seconds": 0.005, "mark": str(mark)}))
        deadline = time.monotonic() + LIMIT
        while not executor.poll(1.0):
            assert time.monotonic() < deadline
        executor.cancel("endless")
        executor.cancel("endless")
        assert events_of(executor)[-1] == Cancelled("endless")
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        executor.submit(Job("after", {"losses": [1.0]}))
        assert events_of(executor)[-1].job_id == "after"

    def test_cancel_right_after_submit(self, executor):
        executor.submit(Job("early", {"losses": [1.0], "seconds": 0.05}))
        executor.cancel("early")
        assert isinstance(events_of(executor)[-1], Cancelled | Finished)

    def test_cancel_of_what_is_over_does_nothing(self, executor):
        executor.cancel("never there")
        executor.submit(Job("over", {"losses": [1.0]}))
        events_of(executor)
        executor.cancel("over")
        assert executor.poll(0.01) == []

    def test_poll_of_nothing_is_empty(self, executor):
        assert executor.poll(0.0) == []

    def test_slots_are_kept(self, executor):
        for number in range(executor.slots):
            executor.submit(Job(f"slot-{number}", {"losses": [1.0], "seconds": 0.01}))
        with pytest.raises(ValueError, match="slot"):
            executor.submit(Job("one too many", {"losses": [1.0]}))
        ended = [event.job_id for event in events_of(executor, executor.slots) if isinstance(event, Finished)]
        assert sorted(ended) == [f"slot-{number}" for number in range(executor.slots)]


def open_plainly(journal):
    """The study as Optuna itself reads it, without any code of ours. Never writes."""
    storage = JournalStorage(JournalFileBackend(str(Path(journal).resolve())))
    return optuna.load_study(storage=storage, study_name="search")


def assert_run_is_sound(journal, budget):
    """What must hold for every search that has ended, whatever happened on the way."""
    trials = open_plainly(journal).get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert all(trial.state.is_finished() for trial in trials), "a trial is left open"
    counted = [trial for trial in trials if "void" not in trial.user_attrs]
    assert sorted(trial.user_attrs["place"] for trial in counted) == list(range(budget))
    for trial in counted:
        if trial.state == TrialState.COMPLETE:
            assert np.isfinite(trial.value)
            if not trial.user_attrs.get("diverged"):
                assert trial.value == min(trial.intermediate_values.values())
        elif trial.state == TrialState.PRUNED:
            assert trial.intermediate_values
            assert trial.user_attrs["origin"] == "search"
        else:
            assert trial.user_attrs["reason"]
        for name, distribution in trial.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[name]))
    leftovers = [file.name for file in Path(journal).parent.iterdir() if ".tmp~" in file.name]
    assert not leftovers
    return {trial.user_attrs["place"]: trial for trial in counted}
