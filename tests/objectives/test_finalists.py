"""The final's trainings on the simulated clock: what dies, is lost or does not fit is run again."""

import pytest

from advisor.errors import UserError
from advisor.executors.base import Job
from advisor.executors.simulated import SimulatedExecutor
from advisor.objectives.final_jobs import train_finalists
from advisor.search.executor_contract import SHARED, script_factory
from advisor.search.resources import Sizing

SCRIPT = {"losses": [1.0, 1.0], "configuration": {}, "batch_size": 64}


def jobs(**changes):
    """Two of each; changes: to the payload of an entry's second."""
    names = ("recommendation", "second", "third")
    return {
        name: [Job(f"{name}/1", SCRIPT), Job(f"{name}/2", {**SCRIPT, **changes.get(name, {})})]
        for name in names
    }


def run(entries, executor=None, deadline=None, sizing=None):
    executor = executor or SimulatedExecutor(script_factory, SHARED, 3)
    return train_finalists(entries, executor, deadline, sizing).results


def test_results_come_in_the_order_of_the_jobs():
    done = run(jobs(second={"size": 9}))
    assert list(done) == ["recommendation", "second", "third"]
    assert [len(result["array"]) for result in done["second"]] == [3, 9]


def test_a_worker_that_dies_once_costs_nothing():
    deaths = ["recommendation/2", "third/1"]

    def dies(job, epoch):
        if job.id in deaths:
            deaths.remove(job.id)
            return True
        return False

    assert len(run(jobs(), SimulatedExecutor(script_factory, SHARED, 2, dies=dies))) == 3
    assert not deaths


def test_what_dies_twice_is_out_whoever_it_is():
    def dying(name):
        return SimulatedExecutor(script_factory, SHARED, 2, dies=lambda job, epoch: job.id == name)

    assert list(run(jobs(), dying("second/1"))) == ["recommendation", "third"]
    trained = train_finalists(jobs(), dying("recommendation/1"), None, None)
    assert list(trained.results) == ["second", "third"] and "worker" in trained.failed["recommendation"]


def test_what_fails_by_itself_is_not_tried_again():
    assert list(run(jobs(third={"raise_at": 1}))) == ["recommendation", "second"]
    assert list(run(jobs(recommendation={"raise_at": 1}))) == ["second", "third"]
    everyone = {name: {"raise_at": 1} for name in ("recommendation", "second", "third")}
    with pytest.raises(
        UserError, match="all finalists failed, the recommendation with: ValueError: no good"
    ):
        run(jobs(**everyone))


def test_past_the_deadline_the_next_takes_the_place_of_a_recommendation_that_fails():
    first = {
        "recommendation": [Job("recommendation/1", {**SCRIPT, "raise_at": 1})],
        "second": [Job("second/1", SCRIPT)],
    }
    assert list(run(first, deadline=0.0)) == ["second"]


def test_what_is_expected_to_outlast_the_deadline_is_not_begun_and_the_awaited_one_is_limited():
    executor = SimulatedExecutor(script_factory, SHARED, 1)
    given = []

    def limited(job, seconds):
        given.append((job.id, seconds))
        return job

    done = train_finalists(
        jobs(), executor, 10.0, None, clock=executor.clock, expects=lambda job: 8.0, limited=limited
    )
    assert {name: len(own) for name, own in done.results.items()} == {"recommendation": 1}
    assert given == [("recommendation/1", 10.0)]


def test_what_does_not_fit_is_made_smaller():
    """C4, in the final."""
    sizing = Sizing(lambda configuration: 64, lambda configuration, rows: float(rows))
    assert len(run(jobs(recommendation={"rows_limit": 20}), sizing=sizing)) == 3
    assert sizing.limit == 32
    assert list(run(jobs(recommendation={"rows_limit": 0}), sizing=sizing)) == ["second", "third"]
    assert list(run(jobs(second={"memory_at": 1}))) == ["recommendation", "third"]


def test_past_the_deadline_only_the_recommendation_is_trained():
    assert {name: len(own) for name, own in run(jobs(), deadline=0.0).items()} == {"recommendation": 1}


@pytest.mark.parametrize(
    ("deadline", "expected"),
    [
        (2.0, {"recommendation": 1}),
        (7.0, {"recommendation": 1, "second": 1}),
        (10.0, {"recommendation": 1, "second": 1, "third": 1}),
        (16.0, {"recommendation": 1, "second": 1, "third": 1}),
        (18.0, {"recommendation": 2, "second": 2, "third": 2}),
    ],
)
def test_what_the_deadline_leaves_is_compared_on_the_same_partitions(deadline, expected):
    """One worker, three seconds a job: each entry's first before the second of any."""
    executor = SimulatedExecutor(script_factory, SHARED, 1)
    done = train_finalists(jobs(), executor, deadline, None, clock=executor.clock).results
    assert {name: len(own) for name, own in done.items()} == expected


@pytest.mark.parametrize("deadline", [None, 0.0])
def test_a_result_that_does_not_count_is_a_failure_and_the_next_is_awaited(deadline):
    entries = {
        "recommendation": [Job("recommendation/1", {**SCRIPT, "size": 9})],
        "second": [Job("second/1", SCRIPT)],
    }

    def problem(result):
        return "not finite" if len(result["array"]) == 9 else None

    executor = SimulatedExecutor(script_factory, SHARED, 1)
    done = train_finalists(entries, executor, deadline, None, problem=problem)
    assert list(done.results) == ["second"] and done.failed == {"recommendation": "not finite"}


def test_who_takes_the_place_past_the_deadline_has_time_for_more_than_a_few_steps():
    entries = {
        "recommendation": [Job("recommendation/1", {**SCRIPT, "raise_at": 1})],
        "second": [Job("second/1", SCRIPT)],
    }
    given = []

    def limited(job, seconds):
        given.append((job.id, seconds))
        return job

    executor = SimulatedExecutor(script_factory, SHARED, 1)
    train_finalists(
        entries, executor, 0.0, None, clock=executor.clock, expects=lambda job: 8.0, limited=limited
    )
    assert given == [("recommendation/1", 4.0), ("second/1", 4.0)]
