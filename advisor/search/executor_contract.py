"""What every executor must do, as tests: for an executor of your own, subclass
:class:`ExecutorContract` under pytest.

    from advisor.search.executor_contract import SHARED, ExecutorContract, script_factory

    class TestMine(ExecutorContract):
        @pytest.fixture
        def executor(self):
            executor = MyExecutor(script_factory, SHARED)
            yield executor
            executor.close()

Where it cannot do a thing (end a job that hangs, outlive one that kills its
process), say so by the class attributes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from advisor.executors.base import (
    ENDS,
    Began,
    Cancelled,
    Event,
    Executor,
    Failed,
    Finished,
    InProcessExecutor,
    Job,
    Objective,
    Reported,
)
from advisor.search.driver import search
from advisor.search.plan import SearchPlan
from advisor.search.resources import Sizing
from advisor.search.trials import SearchResult, end_of

SHARED: Mapping[str, NDArray[np.float64]] = {"weights": np.arange(1000.0)}
"""What the contract's executors are made with."""
LIMIT = 60.0
"""Seconds after which a condition that was waited for counts as never met."""
HANGING = 3600.0


def script_factory(shared: Mapping[str, NDArray[np.float64]]) -> Objective:
    """An objective that does what its payload says.

    losses: yielded one by one. seconds: slept before each. forever: go on
    without end. raise_at, memory_at, exit_at,
    hang_at: the epoch at which it raises, is out of memory, kills its process or sleeps for an hour.
    rows_limit: it is out of memory when ``micro_batch`` (or ``batch_size``) is more. size: of the array in
    the result. mark: a file that gets a line when the objective is closed before its end, or ends.
    """

    def objective(job: Job) -> Generator[tuple[int, float], None, Any]:
        payload = job.payload
        losses, epoch = payload.get("losses", []), 0
        if (
            "rows_limit" in payload
            and (payload.get("micro_batch") or payload["batch_size"]) > payload["rows_limit"]
        ):
            raise MemoryError("the device is full")
        try:
            while payload.get("forever") or epoch < len(losses):
                epoch += 1
                time.sleep(payload.get("seconds", 0))
                _misfortune(payload, epoch)
                yield epoch, losses[epoch - 1] if losses else 1.0
        finally:
            if "mark" in payload:
                with Path(payload["mark"]).open("a") as file:
                    file.write("closed\n")
        return {
            "sum": float(shared["weights"].sum()),
            "array": np.full(payload.get("size", 3), 7.0),
            "pid": os.getpid(),
        }

    return objective


def _misfortune(payload: Mapping[str, Any], epoch: int) -> None:
    if payload.get("raise_at") == epoch:
        raise ValueError("no\ngood")
    if payload.get("memory_at") == epoch:
        raise MemoryError("the device is full")
    if payload.get("exit_at") == epoch:
        os._exit(3)
    if payload.get("hang_at") == epoch:
        time.sleep(HANGING)


def events_of(executor: Executor, number: int = 1) -> list[Event]:
    """Poll until ``number`` jobs have ended; all events but Began. AssertionError after ``LIMIT`` seconds."""
    events, ended = list[Event](), 0
    deadline = time.monotonic() + LIMIT
    while ended < number:
        assert time.monotonic() < deadline, f"only {events}"
        new = executor.poll(1.0)
        events += [event for event in new if not isinstance(event, Began)]
        ended += sum(isinstance(event, ENDS) for event in new)
    return events


def outcome(executor: Executor, payload: Mapping[str, Any], name: str = "job") -> Event:
    """The end of a job."""
    executor.submit(Job(name, payload))
    return events_of(executor)[-1]


class PointSpace:
    """x in [-5, 5]."""

    def suggest(self, trial: Any) -> dict[str, Any]:
        return {"x": trial.suggest_float("x", -5, 5)}

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        return dict(configuration)


def study(executor: Executor, journal: Path, **changes: Mapping[str, Any]) -> SearchResult:
    """12 trials whose parameters and losses depend on their place alone;
    changes: to the payload, p3={...}."""

    def payload(configuration: dict[str, Any], place: int) -> Mapping[str, Any]:
        losses = [configuration["x"] ** 2 + 1 / epoch for epoch in (1, 2)]  # too few to be pruned
        return {"place": place, "losses": losses, "batch_size": 64, **changes.get(f"p{place}", {})}

    plan = SearchPlan(
        PointSpace(),
        {"recommendation": {"x": 1.0}},
        trials=12,
        max_epochs=2,
        seed=5,
        make_payload=payload,
        sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed),
        trial_time_limit=LIMIT,
        sizing=Sizing(lambda configuration: 64, lambda configuration, rows: float(rows)),
    )
    return search(plan, executor, journal)


def ends(result: SearchResult) -> list[tuple[Any, ...]]:
    """Place, end, parameters and value of every trial that counts."""
    return [(t.user_attrs["place"], end_of(t), t.params, t.value) for t in result.trials]


class ExecutorContract:
    """Every executor passes these; see ``advisor.executors.base.Executor`` for the words.

    The fixture ``executor`` is made with ``script_factory`` and ``SHARED``; one may serve several tests.
    """

    outlives_its_workers = True
    """A job may kill the process that it runs in, and the executor replaces it."""
    ends_what_hangs = True
    """A job that reaches no ``yield`` is ended when its time is up."""

    def test_began_then_reports_in_order_then_the_result(self, executor: Executor) -> None:
        executor.submit(Job("order", {"losses": [3.0, 2.0, 1.0]}))
        events, deadline = list[Event](), time.monotonic() + LIMIT
        while not events or not isinstance(events[-1], ENDS):
            assert time.monotonic() < deadline
            events += executor.poll(1.0)
        began, *reports, last = events
        assert isinstance(began, Began)
        assert began.job_id == "order"
        assert reports == [Reported("order", 1, 3.0), Reported("order", 2, 2.0), Reported("order", 3, 1.0)]
        assert isinstance(last, Finished)
        assert last.result["sum"] == SHARED["weights"].sum()

    def test_a_demand_for_more_slots_changes_nothing_that_is_under_way(self, executor: Executor) -> None:
        slots = executor.slots
        executor.set_demand(1000)
        finished = outcome(executor, {"losses": [3.0, 2.0]})
        executor.set_demand(0)
        assert isinstance(finished, Finished)
        assert executor.slots == slots

    def test_large_results_are_the_callers_own(self, executor: Executor) -> None:
        finished = outcome(executor, {"losses": [1.0], "size": 300_000})
        assert isinstance(finished, Finished)
        array = finished.result["array"]
        array += 1
        assert array.sum() == 300_000 * 8

    def test_many_epochs_lose_none(self, executor: Executor) -> None:
        executor.submit(Job("many", {"losses": [float(i) for i in range(2000)]}))
        events = events_of(executor)
        assert [event.epoch for event in events if isinstance(event, Reported)] == list(range(1, 2001))

    def test_not_finite_losses_arrive_as_they_are(self, executor: Executor) -> None:
        executor.submit(Job("nan", {"losses": [1.0, float("nan"), float("inf")]}))
        losses = [event.loss for event in events_of(executor) if isinstance(event, Reported)]
        assert losses[0] == 1.0
        assert np.isnan(losses[1])
        assert losses[2] == float("inf")

    def test_an_error_is_told_with_its_traceback(self, executor: Executor) -> None:
        executor.submit(Job("error", {"losses": [1.0, 2.0], "raise_at": 2}))
        first, failed = events_of(executor)
        assert first == Reported("error", 1, 1.0)
        assert isinstance(failed, Failed)
        assert failed.error == "ValueError: no good"
        assert 'raise ValueError("no\\ngood")' in failed.traceback
        assert failed.cause == "error"

    def test_want_of_memory_is_told_as_such(self, executor: Executor) -> None:
        executor.submit(Job("memory", {"losses": [1.0, 2.0], "memory_at": 2}))
        first, failed = events_of(executor)
        assert first == Reported("memory", 1, 1.0)
        assert isinstance(failed, Failed)
        assert failed.cause == "out of memory"
        assert failed.error == "MemoryError: the device is full"

    def test_the_next_job_runs_after_an_error(self, executor: Executor) -> None:
        outcome(executor, {"losses": [1.0], "raise_at": 1}, "broken")
        assert isinstance(outcome(executor, {"losses": [1.0]}, "whole"), Finished)

    def test_a_time_limit_ends_a_job_between_epochs(self, executor: Executor) -> None:
        executor.submit(Job("long", {"forever": True, "seconds": 0.02}, time_limit=0.5))
        *reports, failed = events_of(executor)
        assert reports
        assert isinstance(failed, Failed)
        assert failed.cause == "time limit"
        assert isinstance(outcome(executor, {"losses": [1.0]}, "after"), Finished)

    def test_a_job_that_hangs_meets_its_time_limit(self, executor: Executor) -> None:
        if not self.ends_what_hangs:
            return
        executor.submit(Job("hangs", {"losses": [1.0, 1.0], "hang_at": 2}, time_limit=0.5))
        failed = events_of(executor)[-1]
        assert isinstance(failed, Failed)
        assert failed.cause == "time limit"
        assert isinstance(outcome(executor, {"losses": [1.0]}, "after"), Finished)

    def test_a_limit_that_is_not_met_changes_nothing(self, executor: Executor) -> None:
        executor.submit(Job("short", {"losses": [1.0]}, time_limit=LIMIT))
        assert isinstance(events_of(executor)[-1], Finished)

    def test_a_dead_worker_is_told_and_replaced(self, executor: Executor) -> None:
        if not self.outlives_its_workers:
            return
        failed = outcome(executor, {"losses": [1.0], "exit_at": 1}, "dies")
        assert isinstance(failed, Failed)
        assert failed.cause == "worker died"
        assert "\n" not in failed.error
        for number in range(executor.slots):
            executor.submit(Job(f"again-{number}", {"losses": [1.0]}))
        ended = [event for event in events_of(executor, executor.slots) if not isinstance(event, Reported)]
        assert all(isinstance(event, Finished) for event in ended)

    def test_cancel_ends_the_job_and_runs_its_finally(self, executor: Executor, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        executor.submit(Job("endless", {"forever": True, "seconds": 0.005, "mark": str(mark)}))
        deadline = time.monotonic() + LIMIT
        while not any(isinstance(event, Reported) for event in executor.poll(1.0)):
            assert time.monotonic() < deadline
        executor.cancel("endless")
        executor.cancel("endless")
        assert events_of(executor)[-1] == Cancelled("endless")
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert isinstance(outcome(executor, {"losses": [1.0]}, "after"), Finished)

    def test_cancel_right_after_submit(self, executor: Executor) -> None:
        executor.submit(Job("early", {"losses": [1.0], "seconds": 0.05}))
        executor.cancel("early")
        assert isinstance(events_of(executor)[-1], Cancelled | Finished)

    def test_cancel_of_what_is_over_does_nothing(self, executor: Executor) -> None:
        executor.cancel("never there")
        outcome(executor, {"losses": [1.0]}, "over")
        executor.cancel("over")
        assert executor.poll(0.01) == []

    def test_poll_of_nothing_is_empty(self, executor: Executor) -> None:
        assert executor.poll(0.0) == []

    def test_slots_are_kept(self, executor: Executor) -> None:
        for number in range(executor.slots):
            executor.submit(Job(f"slot-{number}", {"losses": [1.0], "seconds": 0.01}))
        try:
            executor.submit(Job("one too many", {"losses": [1.0]}))
        except ValueError as error:
            assert "slot" in str(error)
        else:
            raise AssertionError("one job more than there are slots was accepted")
        ended = [event.job_id for event in events_of(executor, executor.slots) if isinstance(event, Finished)]
        assert sorted(ended) == [f"slot-{number}" for number in range(executor.slots)]

    def test_a_study_is_the_same_everywhere(self, executor: Executor, tmp_path: Path) -> None:
        """The same trials with the same ends and values as in this process, whatever runs them."""
        changes: dict[str, Any] = {
            "p3": {"losses": [1.0, float("nan")]},
            "p4": {"raise_at": 2},
            "p5": {"rows_limit": 16},
        }
        here = study(InProcessExecutor(script_factory, SHARED), tmp_path / "here", **changes)
        there = study(executor, tmp_path / "there", **changes)
        # The value of a diverged trial is the worst loss so far, which depends on who was first.
        alike = [
            [row if row[1] != "diverged" else row[:3] for row in ends(result)] for result in (here, there)
        ]
        assert alike[0] == alike[1]
        assert [row[1] for row in ends(there)[3:6]] == ["diverged", "failed", "complete"]
        assert there.trials[5].user_attrs["micro_batch"] == 16

    def test_a_configuration_that_kills_its_worker_is_set_aside(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        if not self.outlives_its_workers:
            return
        result = study(executor, tmp_path / "journal", p2={"exit_at": 1}, p7={"exit_at": 2})
        assert [row[0] for row in ends(result) if row[1] == "quarantined"] == [2, 7]
        assert [result.trials[place].user_attrs["attempts"] for place in (2, 7)] == [2, 2]
        assert all(result.trials[place].user_attrs["reason"] for place in (2, 7))
