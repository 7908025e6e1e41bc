"""Learning curves one by one and turned into changes for the trials that follow."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.rules.shipped import base_spaces
from advisor.search.curves import MEANINGS, CurveDiagnosis, RangeChange, advice_of, read_curve

NAN = float("nan")


def levels_off(first, last, epochs=20, speed=0.5):
    return [last + (first - last) * math.exp(-speed * e) for e in range(epochs)]


@pytest.mark.parametrize(
    ("losses", "shape"),
    [
        ([], "short"),
        ([1.0, 0.5, 0.4], "short"),
        ([1.0, 0.9, NAN], "diverging"),
        ([1.0, 0.9, 1.5, 2.0, 3.0, 4.0], "diverging"),
        ([1 / e for e in range(1, 40)], "plateau"),
        ([1 - 0.02 * e for e in range(20)], "slow"),
        (levels_off(1.0, 0.2, speed=0.07), "improving"),
        ([1.0, 0.6, 0.4, 0.3, 0.4, 0.5, 0.6, 0.7], "over-fitting"),
        ([1.0, 0.5, 1.1, 0.4, 1.0, 0.45, 1.05, 0.5], "noisy"),
        ([1.0] * 8, "plateau"),
    ],
)
def test_a_curve_is_read(losses, shape):
    assert read_curve(losses).shape == shape
    assert read_curve([3.7 * loss for loss in losses]).shape == shape, "the unit does not matter"


def test_the_best_epoch_is_named():
    assert read_curve([1.0, 0.6, 0.4, 0.3, 0.4, 0.5, 0.6, 0.7]).epoch == 4


@pytest.mark.parametrize(
    ("train_losses", "losses", "shape"),
    [
        (levels_off(1.0, 0.9), levels_off(1.0, 0.91), "under-fitting"),
        ([1.0] * 10, [1.0] * 10, "under-fitting"),
        (levels_off(1.0, 0.1), levels_off(1.0, 0.9), "plateau"),  # it fits the training rows
        (levels_off(1.0, 0.2), levels_off(1.0, 0.2), "plateau"),  # it fits both
        (levels_off(1.0, 0.1), [1.0, 0.6, 0.4, 0.3, 0.4, 0.5, 0.6, 0.7, *[0.8] * 12], "over-fitting"),
        ([1.0, 0.5, 0.2, 0.1, 0.05, 0.02], [1.0, 0.9, 1.5, 2.0, 3.0, 4.0], "over-fitting"),
        ([1.0, 1.5, 3.0, 9.0, 30.0, 99.0], [1.0, 0.9, 1.5, 2.0, 3.0, 4.0], "diverging"),
        ([1.0, 0.9, NAN, NAN, NAN], [1.0, 0.9, 0.8, 0.8, 0.8], "diverging"),
    ],
)
def test_the_training_losses_tell_what_the_validation_losses_cannot(train_losses, losses, shape):
    assert read_curve(losses, train_losses).shape == shape


def test_finished_early_is_not_pruned():
    losses = levels_off(1.0, 0.2)
    early, full = read_curve(losses, planned=100), read_curve(losses, planned=20)
    pruned, unsaid = read_curve(losses[:6], planned=100, pruned=True), read_curve(losses)
    assert (early.ended, full.ended, pruned.ended, unsaid.ended) == ("early", "full", "pruned", "")
    assert "stopped at epoch 20 of 100 because it was finished" in early.words
    assert (
        "pruned after epoch 6 because others were better" in pruned.words and "finished" not in pruned.words
    )
    assert full.words == unsaid.words


def test_losses_must_go_together():
    with pytest.raises(ValueError, match="2 training losses for 3 validation losses"):
        read_curve([1.0, 0.9, 0.8], [1.0, 0.9])


def readings(**counts):
    return [
        CurveDiagnosis(name.replace("_", "-"), 3, "words")
        for name, count in counts.items()
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        ({}, set()),
        ({"diverging": 2}, set()),  # two trials are no pattern
        ({"diverging": 3}, {("learning_rate", "down"), ("gradient_clip", "down")}),
        ({"slow": 5, "plateau": 5}, {("learning_rate", "up")}),
        ({"slow": 3, "plateau": 17}, set()),
        ({"slow": 4, "diverging": 4}, {("gradient_clip", "down")}),  # the range holds both sides: leave it
        ({"improving": 6, "over_fitting": 2}, {("epochs", "up")}),
        ({"over_fitting": 4}, {("weight_decay", "up"), ("dropout", "up")}),
        (
            {"under_fitting": 4, "over_fitting": 1},
            {("width", "up"), ("weight_decay", "down"), ("dropout", "down")},
        ),
        ({"noisy": 4}, {("batch_size", "up"), ("learning_rate", "down")}),
        ({"plateau": 30, "short": 9}, set()),
    ],
)
def test_curves_become_changes(counts, changes):
    found = advice_of(readings(**counts))
    assert {(change.parameter, change.direction) for change in found} == changes
    assert all(
        change.words.startswith(f"move {change.parameter} {change.direction}: in ") for change in found
    )


def test_a_pruned_curve_says_nothing_of_its_end():
    cut = [CurveDiagnosis("improving", 5, "words", "pruned")] * 9
    assert advice_of(cut) == []
    assert [c.parameter for c in advice_of([*cut, *readings(improving=3)])] == ["epochs"]
    assert advice_of([CurveDiagnosis("diverging", 5, "words", "pruned")] * 3)


def test_what_is_moved_is_a_parameter_of_every_kind_of_data():
    for space in base_spaces().values():
        for entries in MEANINGS.values():
            assert {parameter for parameter, _, _ in entries} <= space.parameters.keys()


numbers = st.floats(min_value=-1e6, max_value=1e6) | st.sampled_from([NAN, math.inf, -math.inf])
shapes = st.sampled_from(["short", "plateau", *MEANINGS])
ends = st.sampled_from(["", "full", "early", "pruned"])
some_readings = st.lists(
    st.builds(CurveDiagnosis, shapes, st.integers(0, 99), st.just("words"), ends), max_size=20
)


@given(
    st.lists(st.tuples(numbers, numbers), max_size=40),
    st.booleans(),
    st.none() | st.integers(1, 50),
    st.booleans(),
)
def test_every_curve_has_a_reading(pairs, with_training, planned, pruned):
    losses = [validation for _, validation in pairs]
    found = read_curve(
        losses, [t for t, _ in pairs] if with_training else None, planned=planned, pruned=pruned
    )
    assert 0 <= found.epoch <= len(losses) and found.words
    if found.shape != "diverging" and losses and found.epoch:
        assert losses[found.epoch - 1] == min(losses)


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=40), st.integers(-6, 6))
def test_a_unit_changes_nothing(losses, power):
    # powers of two: exact, so that no threshold is crossed by rounding
    assert read_curve([loss * 2.0**power for loss in losses]).shape == read_curve(losses).shape


@given(some_readings, st.randoms())
def test_the_order_of_trials_changes_nothing(given_readings, random):
    mixed = list(given_readings)
    random.shuffle(mixed)
    assert advice_of(mixed) == advice_of(given_readings)


@given(some_readings)
def test_no_parameter_is_moved_both_ways(given_readings):
    changes = advice_of(given_readings)
    assert len({change.parameter for change in changes}) == len(changes)
    assert all(isinstance(change, RangeChange) and 1 / 3 <= change.share <= 1 for change in changes)


@given(some_readings, st.integers(1, 50))
def test_sound_curves_never_add_a_change(given_readings, sound):
    more = advice_of([*given_readings, *readings(plateau=sound)])
    assert {(c.parameter, c.direction) for c in more} <= {
        (c.parameter, c.direction) for c in advice_of(given_readings)
    }
