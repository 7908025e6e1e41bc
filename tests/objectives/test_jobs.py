"""A training as data: what a worker gets is what was asked for, and what no worker could train is refused."""

import pickle

import pytest

from advisor.objectives.jobs import TrainingJob, final_job, limited, search_job

CONFIGURATION = {"learning_rate": 0.1, "folds": 5, "final_members": 3}


@pytest.mark.parametrize(
    "more", [{}, {"until": (4, 0)}, {"parts": 3}, {"micro_batch": 16}, {"seconds": 2.0, "ends_at": 1e9}]
)
def test_a_worker_gets_what_was_asked_for(more):
    asked = TrainingJob(CONFIGURATION, seed=7, repeat=1, members=3, keep=True, **more)
    job = pickle.loads(pickle.dumps(asked.as_job("one")))
    assert TrainingJob.of(job) == asked
    kept = {"configuration": CONFIGURATION, "seed": 7, "repeat": 1, "members": 3, "keep": True}
    assert job.payload == kept | more, "the format of a payload; what is not asked for is left out"


@pytest.mark.parametrize(
    "wrong",
    [{"members": 0}, {"seed": -1}, {"repeat": -1}, {"micro_batch": 0}, {"parts": 0}, {"seconds": 1.0}],
)
def test_what_no_worker_could_train_is_refused_where_it_is_made(wrong):
    asked = {"configuration": CONFIGURATION, "seed": 0, "repeat": 0, "members": 1, "keep": False}
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("seconds", "limit")):
        TrainingJob(**{**asked, **wrong})


def test_the_final_trains_with_other_seeds_and_partitions_than_the_search():
    trials = [search_job(CONFIGURATION, 5, place) for place in range(100)]
    finals = [final_job(CONFIGURATION, 5, repeat) for repeat in (1, 2)]
    assert not {one.seed for one in trials} & {one.seed for one in finals}
    assert {one.repeat for one in trials} == {0} and [one.repeat for one in finals] == [1, 2]
    assert [final_job(CONFIGURATION, 5, 1, most).members for most in (None, 2, 9)] == [3, 2, 3]


def test_a_limit_is_never_less_than_half_of_it_whatever_the_clocks_say():
    asked = TrainingJob.of(limited(search_job(CONFIGURATION, 0, 0).as_job("one"), 1e6))
    behind = TrainingJob(**{**asked.to_dict(), "ends_at": 0.0})  # a worker whose clock is ahead
    assert 0 <= asked.time_used()() < 0.1 and 0 <= behind.time_used()() < 0.1
    assert search_job(CONFIGURATION, 0, 0).time_used()() == 0
