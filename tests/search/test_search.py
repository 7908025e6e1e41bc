"""The search loop: budget, states, pruning, failures, resuming. In process, simulated and on Ray."""

import itertools
import math
import random
import re
import signal
import threading

import optuna
import pytest
from contracts import (
    ENQUEUE,
    ToySpace,
    assert_run_is_sound,
    open_plainly,
    toy_losses,
    toy_payload,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from advisor.errors import UserError
from advisor.executors.base import Cancelled, Failed, Finished, InProcessExecutor, Reported
from advisor.executors.ray.executor import RayExecutor
from advisor.search import history
from advisor.search.driver import search
from advisor.search.events import Ended, EpochDone, Started
from advisor.search.executor_contract import SHARED, script_factory
from advisor.search.plan import SearchPlan
from advisor.search.resources import Pace
from advisor.search.storage.journal import Journal, read_journal_study, shared_storage
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


def in_process():
    return InProcessExecutor(script_factory, SHARED)


def with_payload(**by_place):
    """A make_payload that changes the toy's payload at some places: p3={"losses": [...]}."""
    return lambda configuration, place: {**toy_payload(configuration, place), **by_place.get(f"p{place}", {})}


@pytest.fixture(params=["in process", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request):
    if request.param == "in process":
        executor = in_process()
    else:
        request.getfixturevalue("local_ray")
        executor = RayExecutor(script_factory, SHARED, workers=2)
    yield executor
    executor.close()


# ------------------------------------------------------------------ over both executors


def test_states_are_what_they_say(executor, tmp_path):
    """C5 and C6: complete, early stopped, pruned, diverged and failed, each in the study as what it is."""
    journal = tmp_path / "study.journal"
    steps = {f"p{place}": {"losses": [3.0 - 0.1 * e for e in range(20)]} for place in range(20)}
    steps["p2"] = {"losses": [1.0, 0.5, 0.6]}  # stopped early by itself
    steps["p3"] = {"losses": [math.nan]}
    steps["p4"] = {"losses": [2.0, 1.0, math.inf]}
    steps["p5"] = {"losses": [2.0, 1.0], "raise_at": 2}
    steps["p14"] = {"losses": [9.0 - 0.01 * e for e in range(20)], "seconds": 0.01}  # behind from the start
    ended = {}

    def listen(event, progress):
        if isinstance(event, Ended):
            assert event.index not in ended
            ended[event.index] = event

    result = search(
        plan(15, max_epochs=20, make_payload=with_payload(**steps)), executor, journal, on_event=listen
    )
    trials = assert_run_is_sound(journal, 15)
    assert {place: end_of(trial) for place, trial in trials.items()} == {
        place: e.end for place, e in ended.items()
    }
    ends = {place: end_of(trial) for place, trial in trials.items()}
    assert (ends[2], ends[3], ends[4], ends[5], ends[14]) == (
        "complete",
        "diverged",
        "diverged",
        "failed",
        "pruned",
    )
    assert trials[2].state == TrialState.COMPLETE
    assert trials[2].value == 0.5
    assert trials[14].state == TrialState.PRUNED
    for place in (3, 4):
        assert trials[place].state == TrialState.COMPLETE
        assert math.isfinite(trials[place].value)
        assert trials[place].constraints == {"diverged": 1.0}
        assert trials[place].value >= 2.0
    assert trials[5].state == TrialState.FAIL
    assert trials[5].user_attrs["reason"] == "ValueError: no good"
    assert "raise ValueError" in trials[5].user_attrs["traceback"]
    assert result.best.user_attrs["place"] == 2
    assert open_plainly(journal).best_trial.number == result.best.number
    assert ended[2].result["sum"] == SHARED["weights"].sum()
    assert ended[2].is_best
    assert [result.number_of(end) for end in ("pruned", "diverged", "failed", "quarantined")] == [1, 2, 1, 0]
    assert [trial.value for trial in result.ranking()] == sorted(trial.value for trial in result.ranking())


def test_origins_and_configurations(executor, tmp_path):
    started = []
    search(
        plan(4),
        executor,
        tmp_path / "j",
        on_event=lambda e, p: started.append(e) if isinstance(e, Started) else None,
    )
    trials = assert_run_is_sound(tmp_path / "j", 4)
    assert [trials[place].user_attrs["origin"] for place in range(4)] == [
        "recommendation",
        "default",
        "search",
        "search",
    ]
    assert [trials[place].params for place in range(2)] == list(ENQUEUE.values())
    assert sorted(event.index for event in started) == [0, 1, 2, 3]
    for event in started:
        assert event.configuration == trials[event.index].params


def test_an_enqueued_configuration_outside_the_space_runs_and_teaches_nothing(tmp_path):
    class Narrow(ToySpace):
        def encode(self, configuration):
            raise UserError("x is outside")

    outside = {"kind": "a", "x": 40.0}
    search(plan(2, space=Narrow(), enqueue={"default": outside}), in_process(), tmp_path / "j")
    trial = assert_run_is_sound(tmp_path / "j", 2)[0]
    assert trial.params == {}
    assert trial.user_attrs["configuration"] == outside
    assert trial.value == min(toy_losses(outside))


@pytest.mark.slow
def test_a_job_whose_worker_dies_is_run_again_then_set_aside(local_ray, tmp_path):
    executor = RayExecutor(script_factory, SHARED, workers=2)
    try:
        payload = with_payload(p1={"exit_at": 2})
        result = search(plan(4, make_payload=payload), executor, tmp_path / "j")
    finally:
        executor.close()
    trials = assert_run_is_sound(tmp_path / "j", 4)
    assert end_of(trials[1]) == "quarantined"
    assert trials[1].user_attrs["attempts"] == 2
    assert result.number_of("complete") == 3


# ------------------------------------------------------------------ losses, curves, pruning


@pytest.mark.parametrize("losses", [[math.nan], [math.inf, 1.0], [1.0, 2.0, -math.inf], [1.0, math.nan, 0.1]])
def test_a_diverged_trial_never_vanishes(tmp_path, losses):
    """C5, and the sampler sees it."""
    result = search(plan(3, make_payload=with_payload(p0={"losses": losses})), in_process(), tmp_path / "j")
    trial = assert_run_is_sound(tmp_path / "j", 3)[0]
    assert end_of(trial) == "diverged"
    assert trial.value == max(
        [x for x in losses[: len(trial.intermediate_values)]], default=history.DIVERGED_LOSS
    )
    assert result.best.user_attrs["place"] != 0


def test_all_diverged_is_no_best_and_no_error(tmp_path):
    result = search(plan(3, make_payload=lambda c, p: {"losses": [math.nan]}), in_process(), tmp_path / "j")
    assert result.best is None
    assert len(assert_run_is_sound(tmp_path / "j", 3)) == 3


def test_enqueued_trials_are_never_pruned_and_early_epochs_neither(tmp_path):
    bad = {"losses": [100.0] * 30}
    good = {f"p{place}": {"losses": [1.0] * 30} for place in range(2, 9)}
    payload = with_payload(**{**good, "p0": bad, "p1": bad, "p9": bad})
    search(plan(10, max_epochs=30, make_payload=payload), in_process(), tmp_path / "j")
    trials = assert_run_is_sound(tmp_path / "j", 10)
    assert [end_of(trials[place]) for place in (0, 1, 9)] == ["complete", "complete", "pruned"]
    assert trials[9].user_attrs["epochs"] == 5  # 15 % of 30, rounded up
    assert trials[9].user_attrs["reason"] == "worse than the median at epoch 5"


def test_a_trial_that_stopped_early_is_still_compared_with(tmp_path):
    """Good trials that end at epoch 10 must not leave late epochs to the slow learners."""
    early = {f"p{place}": {"losses": [1.0] * 10} for place in range(6)}
    late = {"p6": {"losses": [0.9] * 20 + [0.8]}, "p7": {"losses": [5.0 - 0.1 * e for e in range(30)]}}
    search(plan(8, max_epochs=30, make_payload=with_payload(**early, **late)), in_process(), tmp_path / "j")
    trials = assert_run_is_sound(tmp_path / "j", 8)
    assert [end_of(trials[place]) for place in (6, 7)] == ["complete", "pruned"]


def test_long_curves_are_thinned_and_keep_best_and_last(tmp_path):
    losses = [1.0 + abs(e - 777) / 1000 for e in range(1000)]
    search(
        plan(1, max_epochs=1000, make_payload=with_payload(p0={"losses": losses})),
        in_process(),
        tmp_path / "j",
    )
    (trial,) = assert_run_is_sound(tmp_path / "j", 1).values()
    curve = trial.intermediate_values
    assert len(curve) <= 202
    assert trial.value == 1.0
    assert curve[778] == 1.0
    assert curve[1000] == losses[-1]
    assert trial.user_attrs["epochs"] == 1000


def test_a_running_trials_curve_can_be_watched(tmp_path):
    clock = [0.0]
    seen = []

    def listen(event, progress):
        clock[0] += 1.0
        if isinstance(event, EpochDone):
            seen.append(len(read_journal_study(tmp_path / "j").trials[0].intermediate_values))

    search(plan(1), in_process(), tmp_path / "j", on_event=listen, clock=lambda: clock[0])
    assert seen[-1] > 1


# ------------------------------------------------------------------ failures


def test_the_first_failures_stop_the_search_with_the_reason(tmp_path):
    with pytest.raises(
        UserError, match=r"all of the first 3 trials failed, the last with ValueError: no good"
    ):
        search(
            plan(10, make_payload=lambda c, p: {"losses": [1.0], "raise_at": 1}), in_process(), tmp_path / "j"
        )
    assert len(open_plainly(tmp_path / "j").trials) == 3
    with pytest.raises(UserError, match="all of the first 2 trials failed"):
        search(
            plan(2, make_payload=lambda c, p: {"losses": [1.0], "raise_at": 1}), in_process(), tmp_path / "k"
        )


def test_failures_after_a_success_do_not_stop_it(tmp_path):
    payload = with_payload(**{f"p{place}": {"raise_at": 1} for place in range(1, 7)})
    result = search(plan(8, make_payload=payload), in_process(), tmp_path / "j")
    assert result.number_of("failed") == 6
    assert_run_is_sound(tmp_path / "j", 8)


def test_an_objective_that_reports_nothing_has_failed(tmp_path):
    result = search(plan(3, make_payload=with_payload(p1={"losses": []})), in_process(), tmp_path / "j")
    assert result.trials[1].user_attrs["reason"] == "the objective reported no loss"


@pytest.mark.parametrize(
    ("name", "value"), [("trials", 0), ("max_epochs", 0), ("time_limit", -1.0), ("time_limit", math.nan)]
)
def test_impossible_plans_are_refused(name, value):
    with pytest.raises(UserError, match="must be"):
        plan(**{name: value})


# ------------------------------------------------------------------ stopping


def slow_clock():
    """A clock that goes on by a second per epoch."""
    now = [0.0]

    def listen(event, progress):
        now[0] += isinstance(event, EpochDone)

    return {"clock": lambda: now[0], "on_event": listen}


@pytest.mark.parametrize(("limit", "finished"), [(0, 1), (3, 1), (6, 1), (8, 1), (13, 2), (20, 3)])
def test_the_time_limit_lets_the_first_finish_and_voids_the_rest(tmp_path, limit, finished):
    result = search(plan(8, time_limit=limit), in_process(), tmp_path / "j", **slow_clock())
    assert result.timed_out
    assert not result.interrupted
    assert [trial.user_attrs["place"] for trial in result.trials] == list(range(finished))
    resumed = search(plan(8), in_process(), tmp_path / "j")
    assert not resumed.timed_out
    assert_run_is_sound(tmp_path / "j", 8)


def test_the_last_trial_cut_off_by_the_limit_is_said(tmp_path):
    seen = []
    now = slow_clock()

    def listen(event, progress):
        now["on_event"](event, progress)
        seen.append(progress.done)

    result = search(plan(2, time_limit=8), in_process(), tmp_path / "j", clock=now["clock"], on_event=listen)
    assert result.timed_out
    assert seen[-1] == 1


@pytest.mark.parametrize("limit", [8, 11, 13, 17])
def test_no_trial_is_begun_that_would_be_thrown_away(tmp_path, limit):
    """Trials of 6 s: with less than that left, the final may as well begin."""
    begun, now = [], slow_clock()

    def listen(event, progress):
        now["on_event"](event, progress)
        begun.extend([event.index] if isinstance(event, Started) else [])

    result = search(
        plan(8, time_limit=limit), in_process(), tmp_path / "j", clock=now["clock"], on_event=listen
    )
    assert result.timed_out and begun == list(range(limit // 6)) == [
        trial.user_attrs["place"] for trial in result.trials
    ]
    assert now["clock"]() == 6 * len(begun)


def test_what_comes_after_the_search_keeps_its_share_of_the_limit(tmp_path):
    """Asked again as trials end: after the second one, 13 of the 25 seconds are to be kept."""
    asked = []

    def reserve(trials, slots):
        asked.append((len(trials), slots))
        return 13.0 if len(trials) > 1 else 0.0

    result = search(plan(8, time_limit=25, reserve=reserve), in_process(), tmp_path / "j", **slow_clock())
    assert result.timed_out and len(result.trials) == 2
    assert {slots for _, slots in asked} == {1} and max(seen for seen, _ in asked) == 2
    search(plan(8), in_process(), tmp_path / "j")
    assert_run_is_sound(tmp_path / "j", 8)


@pytest.mark.parametrize(("costly", "places"), [(lambda c: c["kind"] == "a", 5), (lambda c: True, 2)])
def test_what_would_outlast_the_limit_gives_way_to_what_does_not(tmp_path, costly, places):
    """An epoch of the costly ones is expected to take a minute; a limit of 33 s holds five of the others."""
    pace = Pace(lambda c: 60.0 if "x" in c and costly(c) else 1.0)
    for _ in range(9):  # more than what runs here may teach
        pace.took({}, 6, 6.0)
    limited = plan(8, time_limit=33, pace=pace)
    result = search(limited, in_process(), tmp_path / "j", **slow_clock())
    assert result.timed_out
    assert [trial.user_attrs["place"] for trial in result.trials] == list(range(places))
    assert all(trial.params["kind"] == "b" for trial in result.trials[2:])
    refused = [
        trial
        for trial in open_plainly(tmp_path / "j").trials
        if "expected to take" in trial.user_attrs.get("void", "")
    ]
    assert refused and all(trial.state == TrialState.FAIL and costly(trial.params) for trial in refused)
    search(plan(8), in_process(), tmp_path / "j")  # with more time they may be tried
    assert_run_is_sound(tmp_path / "j", 8)


def test_a_proposal_that_cannot_be_run_after_ones_that_would_outlast_the_limit_takes_no_place(tmp_path):
    """Regression: that the time is short is no failure, whatever the last proposal was."""
    pace = Pace(lambda c: 60.0 if "x" in c else 1.0)
    for _ in range(9):
        pace.took({}, 6, 6.0)
    asked = []

    def refuse(configuration):
        asked.append(configuration)
        return "too large" if len(asked) > 2 and len(asked) % 2 == 0 else None

    result = search(
        plan(8, time_limit=33, pace=pace, refuse=refuse), in_process(), tmp_path / "j", **slow_clock()
    )
    assert result.timed_out and result.number_of("failed") == 0
    assert [trial.user_attrs["place"] for trial in result.trials] == [0, 1]


def test_a_limit_that_is_not_reached_is_not_reported(tmp_path):
    result = search(plan(2, time_limit=13), in_process(), tmp_path / "j", **slow_clock())
    assert not result.timed_out


def test_should_stop_gives_the_running_places_back(executor, tmp_path):
    epochs = []

    def listen(event, progress):
        epochs.append(event)

    payload = with_payload(**{f"p{place}": {"seconds": 0.02} for place in range(9)})
    result = search(
        plan(8, make_payload=payload),
        executor,
        tmp_path / "j",
        on_event=listen,
        should_stop=lambda: len(epochs) > 20,
    )
    assert result.interrupted
    void = [trial for trial in open_plainly(tmp_path / "j").trials if "void" in trial.user_attrs]
    assert void
    assert all(trial.user_attrs["void"] == "interrupted" for trial in void)
    assert all(trial.state.is_finished() for trial in open_plainly(tmp_path / "j").trials)
    assert executor.poll(0) == []
    search(plan(8), executor, tmp_path / "j")
    assert_run_is_sound(tmp_path / "j", 8)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_once_stops_cleanly_twice_at_once(number, tmp_path):
    def once(event, progress):
        if isinstance(event, EpochDone) and event.number == 1:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    result = search(plan(8), in_process(), tmp_path / "j", on_event=once)
    assert result.interrupted
    assert len(result.trials) == 1

    def twice(event, progress):
        signal.raise_signal(number)
        signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        search(plan(8), in_process(), tmp_path / "j", on_event=twice)
    assert signal.getsignal(number) is before
    search(plan(8), in_process(), tmp_path / "j")
    assert_run_is_sound(tmp_path / "j", 8)


def test_a_search_in_a_thread_leaves_ctrl_c_alone(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(search(plan(2), in_process(), tmp_path / "j")))
    thread.start()
    thread.join()
    assert len(results[0].trials) == 2


# ------------------------------------------------------------------ resuming


def test_a_resumed_run_asks_what_the_uninterrupted_one_would_have(tmp_path):
    """R4: stopped after every number of epochs, so also in the middle of every trial."""
    search(plan(16, seed=3), in_process(), tmp_path / "whole")
    whole = {
        place: (end_of(trial), trial.params)
        for place, trial in assert_run_is_sound(tmp_path / "whole", 16).items()
    }
    assert any(end == "pruned" for end, _ in whole.values())
    for after in range(12, 72, 7):
        journal, interruptions = tmp_path / f"j{after}", 0
        while True:
            looks = itertools.count()
            result = search(
                plan(16, seed=3),
                in_process(),
                journal,
                should_stop=lambda looks=looks, after=after: next(looks) > after,
            )
            if not result.interrupted:
                break
            interruptions += 1
        assert interruptions
        trials = assert_run_is_sound(journal, 16)
        assert {place: (end_of(trial), trial.params) for place, trial in trials.items()} == whole


def test_a_finished_run_is_not_run_again_and_can_grow(tmp_path):
    search(plan(4), in_process(), tmp_path / "j")
    size = (tmp_path / "j").stat().st_size
    result = search(plan(4), in_process(), tmp_path / "j")
    assert (tmp_path / "j").stat().st_size == size
    assert len(result.trials) == 4
    assert len(search(plan(6), in_process(), tmp_path / "j").trials) == 6
    assert len(search(plan(3), in_process(), tmp_path / "j").trials) == 6
    assert_run_is_sound(tmp_path / "j", 6)


def test_another_space_or_seed_is_refused_with_the_cure(tmp_path):
    search(plan(2, space_text="one", seed=5), in_process(), tmp_path / "j")
    with pytest.raises(UserError, match=r"the search space or the objective differs .*new run"):
        search(plan(3, space_text="two", seed=5), in_process(), tmp_path / "j")
    with pytest.raises(UserError, match="this run has seed 5, not 6"):
        search(plan(3, space_text="one", seed=6), in_process(), tmp_path / "j")
    assert len(search(plan(3, space_text="one"), in_process(), tmp_path / "j").trials) == 3


def test_a_changed_space_under_the_same_text_is_one_line(tmp_path):
    class Changed(ToySpace):
        def suggest(self, trial):
            return {"kind": trial.suggest_categorical("kind", ["a", "b", "c"])}

    search(plan(2), in_process(), tmp_path / "j")
    with pytest.raises(UserError, match="does not fit the journal's trials"):
        search(plan(3, space=Changed()), in_process(), tmp_path / "j")


def test_other_peoples_studies_and_newer_ones_are_refused(tmp_path):
    journal = Journal.open(tmp_path / "j")
    journal.study.tell(journal.study.ask(), 1.0)
    with pytest.raises(UserError, match="was not created by advisor"):
        search(plan(3), in_process(), tmp_path / "j")
    journal.close()
    search(plan(1), in_process(), tmp_path / "k")
    journal = Journal.open(tmp_path / "k")
    journal.study.set_user_attr("advisor_format", 9)
    journal.close()
    with pytest.raises(UserError, match="format 9"):
        search(plan(3), in_process(), tmp_path / "k")


def test_a_trial_added_by_hand_does_not_count(tmp_path):
    search(plan(2), in_process(), tmp_path / "j")
    journal = Journal.open(tmp_path / "j")
    journal.study.add_trial(
        optuna.trial.create_trial(
            params={"x": 0.0}, distributions={"x": optuna.distributions.FloatDistribution(-5, 5)}, value=0.1
        )
    )
    journal.close()
    result = search(plan(4), in_process(), tmp_path / "j")
    assert sorted(trial.user_attrs["place"] for trial in result.trials) == [0, 1, 2, 3]


# ------------------------------------------------------------------ progress


def test_progress_adds_up(tmp_path):
    seen = []
    search(
        plan(5), in_process(), tmp_path / "j", on_event=lambda event, progress: seen.append((event, progress))
    )
    assert [progress.done for event, progress in seen if isinstance(event, Ended)] == [1, 2, 3, 4, 5]
    for event, progress in seen:
        assert progress.trials == 5
        assert len(progress.running) == (0 if isinstance(event, Ended) else 1)
    best = seen[-1][1]
    assert best.best_value == min(
        event.value for event, _ in seen if isinstance(event, Ended) and event.end == "complete"
    )
    assert best.seconds_left == 0.0


# ------------------------------------------------------------------ every interleaving


class ChaoticExecutor:
    """Jobs advance in any order; events come late and twice; workers die."""

    slots = 3

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._jobs = {}
        self._old = []
        self._cancelled = set()

    def submit(self, job):
        assert len(self._jobs) < self.slots
        self._jobs[job.id] = [iter(enumerate(toy_losses(job.payload["configuration"]), start=1)), 0]

    def set_demand(self, jobs):
        assert jobs >= 0

    def poll(self, timeout):
        events = [self._step(job) for job in list(self._jobs) if self._random.random() < 0.7]
        self._old += events
        if self._old and self._random.random() < 0.3:
            events.insert(self._random.randrange(len(events) + 1), self._random.choice(self._old))
        return events

    def _step(self, job):
        steps, _ = self._jobs[job]
        if job in self._cancelled and self._random.random() < 0.5:
            return self._gone(job, Cancelled(job))
        if self._random.random() < 0.04:
            return self._gone(job, Failed(job, "died", cause="worker died"))
        if self._random.random() < 0.02:
            return self._gone(job, Failed(job, "ValueError: x", "trace"))
        step = next(steps, None)
        return self._gone(job, Finished(job, None)) if step is None else Reported(job, *step)

    def _gone(self, job, event):
        del self._jobs[job]
        return event

    def cancel(self, job):
        self._cancelled.add(job)

    def close(self):
        pass


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), stops=st.lists(st.integers(5, 60), max_size=2))
def test_any_interleaving_meets_the_budget_once(tmp_path_factory, seed, stops):
    """R2 and R3: reordered, repeated and lost, stopped and resumed: every place once, every end told once."""
    journal = tmp_path_factory.mktemp("chaos") / "study.journal"
    ended = []

    def listen(event, progress):
        if isinstance(event, Ended):
            ended.append((event.number, event.index, event.end))

    try:
        for limit in [*stops, 10**9]:
            calls = iter(range(10**9))
            search(
                plan(12),
                ChaoticExecutor(seed + limit),
                journal,
                on_event=listen,
                should_stop=lambda calls=calls, limit=limit: next(calls) > limit,
            )
    except UserError as error:
        assert re.match("all of the first", str(error))
        return
    trials = assert_run_is_sound(journal, 12)
    assert len({number for number, _, _ in ended}) == len(ended)
    assert sorted(place for _, place, end in ended if end != "discarded") == list(range(12))
    assert all(end_of(trials[place]) == end for _, place, end in ended if end != "discarded")


# ------------------------------------------------------------------ what cannot be run


def test_what_cannot_be_run_is_refused_and_costs_no_place(tmp_path):
    """A refused proposal is in the study as what it is, and the budget is met by others."""
    ran, journal = [], tmp_path / "study.journal"

    def refuse(configuration):
        return "too wide" if configuration["x"] > 0.5 else None

    def payload(configuration, place):
        ran.append(configuration["x"])
        return toy_payload(configuration, place)

    result = search(plan(20, enqueue={}, make_payload=payload, refuse=refuse), in_process(), journal)
    assert len(result.trials) == 20 and max(ran) <= 0.5
    assert result.best.value == min(trial.value for trial in result.trials if trial.value is not None)
    assert_run_is_sound(journal, 20)
    void = [t.user_attrs["void"] for t in open_plainly(journal).trials if "void" in t.user_attrs]
    assert void and set(void) == {"refused: too wide"}


def test_a_refused_reference_is_a_failed_trial_with_its_reason(tmp_path):
    """The library's default may be impossible on such data: it is said, and the rest goes on."""
    default = list(ENQUEUE)[1]
    refuse = {repr(ENQUEUE[default]): "too wide"}
    made = plan(5, refuse=lambda configuration: refuse.get(repr(configuration)))
    result = search(made, in_process(), tmp_path / "study.journal")
    (failed,) = [trial for trial in result.trials if end_of(trial) == "failed"]
    assert failed.user_attrs["origin"] == default and failed.user_attrs["reason"] == "too wide"


def test_a_space_in_which_nothing_can_be_run_ends(tmp_path):
    with pytest.raises(UserError, match="20 proposals in a row could not be trained: nothing fits"):
        search(
            plan(5, enqueue={}, refuse=lambda configuration: "nothing fits"),
            in_process(),
            tmp_path / "study.journal",
        )


# ----------------------------------------------------------------------------------- the journal's short ways


@given(st.lists(st.sampled_from(["ask", "tell", "enqueue", "fail", "outside", "attribute"]), max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_journal_knows_what_plain_optuna_reads_from_it(tmp_path_factory, steps):
    """Through the open handle, and without going through the trials that have
    ended; others may write in between."""
    path = tmp_path_factory.mktemp("journal") / "study.journal"
    journal = Journal.open(path)
    asked = []
    for number, step in enumerate(steps):
        if step == "ask":
            asked.append(journal.study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}))
        elif step == "enqueue":
            journal.study.enqueue_trial({"x": 0.5}, user_attrs={"n": number})
        elif step == "attribute" and asked:
            with journal.together():
                asked[-1].set_user_attr("text", "line\u2028\r\n")
        elif step == "outside":
            plain = optuna.load_study(study_name="search", storage=shared_storage(path))
            plain.enqueue_trial({"x": 0.25})
        elif asked and step in ("tell", "fail"):
            state = TrialState.COMPLETE if step == "tell" else TrialState.FAIL
            journal.study.tell(asked.pop(0), 1.0 if step == "tell" else None, state=state)
    plain = optuna.load_study(study_name="search", storage=shared_storage(path))
    for states in (
        None,
        (TrialState.WAITING,),
        (TrialState.RUNNING, TrialState.WAITING),
        (TrialState.COMPLETE,),
    ):
        ours, theirs = (study.get_trials(deepcopy=False, states=states) for study in (journal.study, plain))
        assert ours == theirs
    journal.close()
