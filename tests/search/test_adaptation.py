"""What the curves say moves the ranges of the trials that follow: by how much, and what it never does."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FixedTrial, TrialState, create_trial

from advisor.executors.base import InProcessExecutor
from advisor.rules import shipped
from advisor.search.adaptation import ADJUSTED, adjusted
from advisor.search.driver import search
from advisor.search.plan import SearchPlan
from advisor.search.storage.journal import PLACE
from advisor.search.study_space import StudySpace
from advisor.search.trials import CONFIGURATION
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Space

RATE = Parameter("learning_rate", "float", 1e-2, 1e-4, 1.0, log=True, topic="optimization")
EPOCHS = Parameter("epochs", "int", 20, 1, 1000, searched=False, topic="plan")
DROPOUT = Parameter("dropout", "float", 0.0, 0.05, 0.5, zero=True, topic="regularization")
SPACE = Space({one.name: one for one in (RATE, EPOCHS, DROPOUT)})

FALLS = [2.0 - 0.09 * e for e in range(20)]
LEVELS = [1.0 + math.exp(-e) for e in range(20)]
CLIMBS = [1.0, 0.6, 0.4, 0.3, 0.4, 0.5, 0.6, 0.7]
BENDS = [1.0 + math.exp(-0.07 * e) for e in range(20)]


def ended(number, rate, losses, *, diverged=False, **attributes):
    """A finished trial with this learning rate and this curve."""
    trial = create_trial(
        state=TrialState.COMPLETE,
        value=min(losses),
        params={"learning_rate": rate},
        distributions={"learning_rate": FloatDistribution(1e-4, 1.0, log=True)},
        intermediate_values=dict(enumerate(losses, start=1)),
        user_attrs={PLACE: number} | ({"diverged": True} if diverged else {}) | attributes,
    )
    trial.number = number
    return trial


def test_rates_that_diverge_are_no_longer_proposed():
    trials = [ended(i, rate, [2.0, 1.9], diverged=True) for i, rate in enumerate((0.3, 0.5, 0.8))]
    trials += [ended(3 + i, rate, LEVELS) for i, rate in enumerate((1e-3, 3e-3))]
    space, moved = adjusted(SPACE, trials)
    assert space["learning_rate"].low == 1e-4 and space["learning_rate"].high == 0.5
    assert [(one.parameter, one.high) for one in moved] == [("learning_rate", 0.5)]
    assert "3 of 5 trials training diverges" in moved[0].words


def test_rates_that_are_too_low_are_left_but_no_more_than_half_the_range():
    trials = [ended(i, rate, [loss - i for loss in FALLS]) for i, rate in enumerate((1e-4, 2e-4, 5e-4))]
    assert adjusted(SPACE, trials)[0]["learning_rate"].low == 2e-4
    trials = [ended(i, rate, [loss - i for loss in FALLS]) for i, rate in enumerate((0.5, 0.6, 0.7))]
    assert adjusted(SPACE, trials)[0]["learning_rate"].low == pytest.approx(1e-2), (
        "the middle of the logarithms"
    )


def test_the_value_of_the_best_trial_stays_possible():
    trials = [ended(i, rate, FALLS) for i, rate in enumerate((1e-3, 2e-3, 5e-3))]
    trials.append(ended(3, 3e-4, [loss - 5 for loss in FALLS]))
    assert adjusted(SPACE, trials)[0]["learning_rate"].low == 3e-4


def test_a_plan_that_ends_too_early_gets_half_as_many_epochs_again():
    trials = [ended(i, 1e-2, BENDS) for i in range(3)]
    space, moved = adjusted(SPACE, trials)
    assert space["epochs"].default == 30 and not space["epochs"].searched
    assert (moved[0].parameter, moved[0].low, moved[0].high) == ("epochs", 30, 30)
    assert adjusted(SPACE, trials, own={"epochs"}) == (SPACE, []), "what a user has fixed stays"


def test_where_over_fitting_asks_for_more_dropout_none_at_all_stays_possible():
    trials = [
        ended(i, 1e-2, CLIMBS, **{CONFIGURATION: {"dropout": d}}) for i, d in enumerate((0.1, 0.1, 0.2, 0.0))
    ]
    dropout = adjusted(SPACE, trials)[0]["dropout"]
    assert (dropout.low, dropout.high, dropout.zero) == (0.1, 0.5, True)


def test_training_losses_tell_under_fitting():
    flat = [1.0] * 20
    space = shipped.base_space()
    trials = [
        ended(i, 1e-2, flat, train_losses=flat, **{CONFIGURATION: {"width": w}})
        for i, w in enumerate((32, 32, 64))
    ]
    widths = adjusted(space, trials)[0]["width"]
    assert (widths.low, widths.high) == (32, space["width"].high)
    assert adjusted(space, [ended(i, 1e-2, flat) for i in range(3)]) == (space, [])


def test_pruned_trials_void_ones_and_too_few_say_nothing():
    assert adjusted(SPACE, [ended(i, 1e-3, FALLS) for i in range(2)]) == (SPACE, [])
    void = [ended(i, 1e-3, FALLS) for i in range(5)]
    for trial in void:
        del trial.user_attrs[PLACE]
    assert adjusted(SPACE, void) == (SPACE, [])


CURVES = st.lists(
    st.tuples(
        st.floats(1e-4, 1.0),
        st.sampled_from([FALLS, LEVELS, CLIMBS, BENDS, [3.0, 1.0]]),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(CURVES, st.randoms(use_true_random=False))
def test_a_moved_space_is_a_part_of_the_advised_one_and_keeps_the_best(curves, random):
    trials = [ended(i, rate, losses, diverged=diverged) for i, (rate, losses, diverged) in enumerate(curves)]
    space, moved = adjusted(SPACE, trials)
    for name in ("learning_rate", "dropout"):
        assert SPACE[name].low <= space[name].low < space[name].high <= SPACE[name].high
    assert math.log(space["learning_rate"].high / space["learning_rate"].low) >= math.log(1e4) / 2 - 1e-9
    fine = [trial for trial in trials if "diverged" not in trial.user_attrs]
    if fine:
        best = min(fine, key=lambda trial: (trial.value, trial.number))
        assert space["learning_rate"].problem(best.params["learning_rate"]) is None
    order = trials.copy()
    random.shuffle(order)
    assert adjusted(SPACE, order) == (space, moved)


# ------------------------------------------------------------------ in a search


def diverges_above(shared):
    def objective(job):
        rate = job.payload["configuration"]["learning_rate"]
        for epoch in range(1, 13):
            yield (
                epoch,
                math.nan if rate > 0.03 and epoch > 2 else 1 + abs(math.log(rate / 1e-2)) + math.exp(-epoch),
            )

    return objective


def run(path, trials, adapt=True, stop_after=None):
    space = StudySpace(SPACE, trials, 1, adapt=adapt)
    start = {"recommendation": SPACE.complete({})}
    done = []
    executor = InProcessExecutor(diverges_above, None)
    plan = SearchPlan(space, start, trials, 12, seed=3)
    result = search(
        plan,
        executor,
        path,
        on_event=lambda event, progress: done.append(progress.done),
        should_stop=lambda: stop_after is not None and bool(done) and done[-1] >= stop_after,
    )
    executor.close()
    return result.trials


def test_a_search_leaves_rates_that_diverge_and_resumes_to_the_same_trials(tmp_path):
    whole = run(tmp_path / "whole", 40)
    moved = [trial for trial in whole if ADJUSTED in trial.user_attrs]
    assert moved
    for trial in moved:
        [rate] = [one for one in trial.user_attrs[ADJUSTED] if one["parameter"] == "learning_rate"]
        assert rate["low"] <= trial.params["learning_rate"] <= rate["high"] < 1.0
        assert trial.user_attrs[CONFIGURATION] == SPACE.suggest(FixedTrial(trial.params))
    run(tmp_path / "parts", 40, stop_after=12)
    parts = run(tmp_path / "parts", 40)
    assert [trial.params for trial in parts] == [trial.params for trial in whole]
    as_advised = run(tmp_path / "as-advised", 40, adapt=False)
    assert not any(ADJUSTED in trial.user_attrs for trial in as_advised)

    def diverged(trials):
        return sum(trial.user_attrs.get("diverged", False) for trial in trials)

    assert diverged(whole) < diverged(as_advised)
