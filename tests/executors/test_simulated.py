"""Whole studies on the simulated clock: everything goes wrong, and the budget is still met once."""

import collections
import itertools
import json

import optuna
import pytest
from contracts import ENQUEUE, ToySpace, assert_run_is_sound, open_plainly, toy_losses, toy_payload
from optuna.trial import TrialState

from advisor.errors import UserError
from advisor.executors.base import ENDS, InProcessExecutor, Job, Reported
from advisor.executors.simulated import Faults, SimulatedExecutor
from advisor.search.driver import search
from advisor.search.events import Ended
from advisor.search.executor_contract import SHARED, script_factory
from advisor.search.plan import SearchPlan
from advisor.search.resources import Sizing
from advisor.search.storage.database import InMemory
from advisor.search.trials import end_of

EVERYTHING = Faults(death=0.01, hang=0.002, delay=0.5, duplicate=0.1, overtaken=0.1)


def plan(trials, **changes):
    settings = {
        "space": ToySpace(),
        "enqueue": ENQUEUE,
        "max_epochs": 6,
        "make_payload": toy_payload,
        "seed": 2,
    }
    return SearchPlan(trials=trials, **{**settings, **changes})


def simulated(slots=4, **options):
    return SimulatedExecutor(script_factory, SHARED, slots, **options)


@pytest.fixture
def quick_disk(monkeypatch):
    """Waiting for the disk is no part of these tests."""
    monkeypatch.setattr("os.fdatasync", lambda handle: None)


def test_a_thousand_trials_through_every_fault(tmp_path, quick_disk):
    """R2 and R3: nothing is lost or counted twice; hours go by on a clock that nobody waits for."""
    executor = simulated(8, seconds=lambda job, epoch: 1.0 + job.payload["place"] % 3, faults=EVERYTHING)
    ended = []
    result = search(
        plan(1000, sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed), trial_time_limit=60),
        executor,
        tmp_path / "j",
        on_event=lambda event, progress: ended.append(event) if isinstance(event, Ended) else None,
        clock=executor.clock,
    )
    trials = assert_run_is_sound(tmp_path / "j", 1000)
    assert sorted(event.index for event in ended) == list(range(1000))
    kinds = collections.Counter(map(end_of, trials.values()))
    assert set(kinds) >= {"complete", "pruned", "quarantined"}
    reasons = {trial.user_attrs.get("reason", "").partition(" for ")[0] for trial in trials.values()}
    assert "it reached its time limit of 60 s" in reasons
    assert sum(trial.user_attrs.get("attempts", 1) for trial in trials.values()) > 1000
    for place, trial in trials.items():
        if end_of(trial) == "complete":
            assert trial.value == min(toy_losses(trial.params)), place
    assert executor.clock() > 600
    assert result.seconds == executor.clock()


def test_in_memory_the_search_is_the_same(tmp_path, quick_disk):
    """Nothing of what the engine does hangs on the journal; and a study that is held is gone on with."""

    def searched(store, trials=60):
        executor = simulated(4, faults=EVERYTHING)
        result = search(plan(trials, trial_time_limit=60), executor, store, clock=executor.clock)
        return [
            (t.number, t.params, t.value, t.state, end_of(t), t.intermediate_values) for t in result.trials
        ]

    kept = InMemory()
    assert searched(lambda: kept) == searched(tmp_path / "j")
    kept.study.ask()  # and its driver died
    assert len(searched(lambda: kept, 70)) == 70
    assert [t.state for t in kept.study.trials if not t.state.is_finished()] == []


def test_the_same_seed_gives_the_same_events():
    def events(seed):
        executor = simulated(3, faults=EVERYTHING, seed=seed)
        found = []
        for round_ in range(10):
            for slot in range(3):
                executor.submit(Job(f"{round_}.{slot}", {"losses": [1.0, 2.0, 3.0]}, time_limit=20.0))
            ends = 0
            while ends < 3:
                new = executor.poll(0.3)
                ends = len(
                    {
                        e.job_id
                        for e in [*found, *new]
                        if isinstance(e, ENDS) and e.job_id.startswith(f"{round_}.")
                    }
                )
                found += new
        return [(round(executor.clock(), 9), repr(event)) for event in found]

    assert events(1) == events(1)
    assert events(1) != events(2)
    # Told twice, or out of order, is what was asked for; a report after its job's end only as a repetition.
    for repetitions in (1, 2, 3):
        seen, over = set(), set()
        for _, text in events(repetitions):
            job = text.partition("job_id='")[2].partition("'")[0]
            assert not (text.startswith("Reported") and job in over and text not in seen)
            seen.add(text)
            if not text.startswith(("Reported", "Began")):
                over.add(job)


def test_a_search_waits_while_no_machine_is_there(tmp_path, quick_disk):
    """All nodes are gone for a while: that is no end of the search."""

    class Gone(SimulatedExecutor):
        @property
        def slots(self):
            return 0 if 10 < self.clock() < 50 else 2

    executor = Gone(script_factory, SHARED, 2)
    search(plan(10), executor, tmp_path / "j", clock=executor.clock)
    assert_run_is_sound(tmp_path / "j", 10)
    assert executor.clock() > 50


def test_without_faults_time_is_the_epochs_alone():
    executor = simulated(2, seconds=lambda job, epoch: 10.0)
    executor.submit(Job("a", {"losses": [1.0, 2.0]}))
    events = []
    while not any(isinstance(event, ENDS) for event in events):
        events += executor.poll(0.2)
    assert [event.epoch for event in events if isinstance(event, Reported)] == [1, 2]
    assert executor.clock() == 30.0


@pytest.mark.parametrize("faults", [{"death": 1.5}, {"hang": -0.1}, {"delay": -1.0}])
def test_impossible_faults_are_refused(faults):
    with pytest.raises(ValueError, match="not"):
        Faults(**faults)


def test_a_driver_killed_after_any_trial_asks_on_as_if_nothing_had_been(tmp_path, quick_disk):
    """R4: the sampler's state is in the journal, for every number of finished trials."""

    def kinds(journal):
        return {
            place: (end_of(trial), trial.params) for place, trial in assert_run_is_sound(journal, 20).items()
        }

    sizes, whole = [], tmp_path / "whole"

    def listen(event, progress):
        if isinstance(event, Ended):
            sizes.append(whole.stat().st_size)

    search(plan(20), simulated(1), whole, on_event=listen)
    expected = kinds(whole)
    assert any(end == "pruned" for end, _ in expected.values())
    for size in sizes[:-1]:
        journal = tmp_path / f"j{size}"
        # A bit more: the next trial has been asked for, and was running when the driver died.
        cut = whole.read_bytes()[: size + 700]
        journal.write_bytes(cut[: cut.rfind(b"\n") + 1])
        search(plan(20), simulated(1), journal)
        assert kinds(journal) == expected


# ------------------------------------------------------------------ set aside


def test_a_configuration_that_was_set_aside_is_not_run_again(tmp_path):
    """C1: its worker died twice; the same configuration, asked for again, also
    by a later driver, does not run."""

    class OneOfThree(ToySpace):
        def suggest(self, trial):
            return {"x": float(trial.suggest_int("x", 0, 2))}

    ran = []

    def dies(job, epoch):
        if epoch == 1:
            ran.append((job.payload["place"], job.payload["configuration"]["x"]))
        return job.payload["configuration"]["x"] == 1.0

    for trials in (10, 20):
        search(
            plan(trials, space=OneOfThree(), enqueue={"good": {"x": 0}}),
            simulated(1, dies=dies),
            tmp_path / "j",
        )
    found = assert_run_is_sound(tmp_path / "j", 20)
    aside = [place for place, trial in found.items() if trial.params["x"] == 1]
    assert len(aside) > 2
    assert all(end_of(found[place]) == "quarantined" for place in aside)
    assert [place for place, x in ran if x == 1.0] == [aside[0], aside[0]]
    assert found[aside[0]].user_attrs["reason"] == "worker 0 died"
    number = found[aside[0]].number
    assert all(
        found[place].user_attrs["reason"]
        == f"the configuration is that of trial {number}, which was quarantined"
        for place in aside[1:]
    )


def test_a_trial_over_its_time_limit_is_pruned_or_set_aside(tmp_path):
    """C3: with its last value where it has one."""

    def seconds(job, epoch):
        return {3: 3.0, 4: 100.0}.get(job.payload["place"], 1.0)

    search(plan(6, trial_time_limit=10.0), simulated(2, seconds=seconds), tmp_path / "j")
    found = assert_run_is_sound(tmp_path / "j", 6)
    assert [end_of(found[place]) for place in range(6)] == ["complete"] * 3 + [
        "pruned",
        "quarantined",
        "complete",
    ]
    assert (
        found[3].user_attrs["reason"]
        == found[4].user_attrs["reason"]
        == "it reached its time limit of 10 s"
    )
    assert found[3].state == TrialState.PRUNED
    assert found[3].value == toy_losses(found[3].params)[2]


@pytest.mark.parametrize("limit", [0, -1.0])
def test_a_time_limit_of_nothing_is_refused(limit):
    with pytest.raises(UserError, match="time limit of a trial must be more than 0"):
        plan(3, trial_time_limit=limit)


# ------------------------------------------------------------------ memory


def sizing(predict=lambda configuration, rows: float(rows)):
    return Sizing(lambda configuration: 100, predict)


def sized(limit, calls, **by_place):
    def payload(configuration, place):
        return {
            **toy_payload(configuration, place),
            "batch_size": 100,
            "rows_limit": by_place.get(f"p{place}", limit),
        }

    def factory(shared):
        inner = script_factory(shared)

        def objective(job):
            calls.append((job.payload["place"], job.payload["micro_batch"]))
            return inner(job)

        return objective

    return plan(6, make_payload=payload, sizing=sizing()), InProcessExecutor(factory, SHARED)


def test_what_does_not_fit_is_made_smaller_and_the_limit_is_learned(tmp_path):
    """C4: halved until it fits; those after it begin there, also in a run that goes on later."""
    calls = []
    search(*sized(30, calls), tmp_path / "j")
    assert calls[:3] == [(0, None), (0, 50), (0, 25)]
    assert calls[3:] == [(place, 25) for place in range(1, 6)]
    found = assert_run_is_sound(tmp_path / "j", 6)
    assert {end_of(trial) for trial in found.values()} <= {"complete", "pruned"}
    assert [found[place].user_attrs.get("attempts", 1) for place in range(3)] == [3, 1, 1]
    assert open_plainly(tmp_path / "j").user_attrs["memory_limit"] == 50.0
    later, executor = sized(30, calls)
    search(SearchPlan(**{**vars(later), "trials": 8}), executor, tmp_path / "j")
    assert calls[-2:] == [(6, 25), (7, 25)]


def test_what_does_not_fit_row_by_row_is_set_aside_with_its_reason(tmp_path):
    calls = []
    search(*sized(1000, calls, p2=0), tmp_path / "j")
    found = assert_run_is_sound(tmp_path / "j", 6)
    assert [rows for place, rows in calls if place == 2] == [None, 50, 25, 13, 7, 4, 2, 1]
    assert end_of(found[2]) == "quarantined"
    assert found[2].user_attrs["reason"] == "MemoryError: the device is full"


def test_want_of_memory_without_a_sizing_is_told_once(tmp_path):
    def payload(configuration, place):
        return {**toy_payload(configuration, place), "memory_at": 1 if place == 2 else 0}

    search(plan(4, make_payload=payload), InProcessExecutor(script_factory, SHARED), tmp_path / "j")
    found = assert_run_is_sound(tmp_path / "j", 4)
    assert end_of(found[2]) == "quarantined"
    assert "attempts" not in found[2].user_attrs


def test_sizing_learns_from_what_was_used():
    wide = sizing(lambda configuration, rows: 10.0 * configuration["width"] + rows * configuration["width"])
    assert wide.micro_batch({"width": 8}) is None
    assert wide.memory({"width": 8}, None) == 880
    wide.used({"width": 8}, None, 1760)
    assert wide.memory({"width": 2}, None) == 440
    wide.used({"width": 8}, None, 880)
    assert wide.memory({"width": 2}, None) == 440
    assert wide.smaller({"width": 8}, None) == 50
    assert wide.limit == 880
    assert wide.micro_batch({"width": 8}) == 50
    assert wide.micro_batch({"width": 4}) is None
    assert wide.micro_batch({"width": 16}) == 25
    assert json.dumps(wide.limit)


def test_rows_at_once_never_exceed_what_failed():
    for batch, limit in itertools.product((1, 2, 3, 100, 257), (1.0, 2.0, 50.0, 1e9)):
        one = Sizing(lambda configuration, batch=batch: batch, lambda configuration, rows: float(rows), limit)
        tried, rows = [], one.micro_batch({})
        while True:
            tried.append(rows or batch)
            rows = one.smaller({}, rows)
            if rows is None:
                break
        assert tried == sorted(tried, reverse=True)
        assert tried[-1] == 1
