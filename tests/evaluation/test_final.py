"""The final: who wins, and what loss to expect; error rates by simulation with binomial margins (D13)."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from advisor.evaluation.selection import (
    COVERAGE,
    RESAMPLES,
    STRETCHES,
    blocks_of,
    constant_losses,
    decide,
    estimate,
    held_out_losses,
)
from advisor.tasks import BINARY, REGRESSION

ROWS = 200


def least(share, runs, confidence=0.9999):
    """The fewest successes in `runs` that a true `share` gives, but for one time in 10,000."""
    return math.floor(runs * share - NormalDist().inv_cdf(confidence) * math.sqrt(runs * share * (1 - share)))


def equal_contenders(rng, challengers, noise):
    """Contenders with the same expected loss, correlated row by row as losses of the same rows are."""
    shared = rng.lognormal(size=ROWS)
    names = ["recommended", *(f"trial {k}" for k in range(challengers))]
    return {name: shared + noise(rng) for name in names}


def normal(rng):
    return rng.normal(0, 0.3, ROWS)


def skewed(rng):
    return rng.lognormal(0, 1, ROWS)


# Who wins


@pytest.mark.parametrize("challengers", [1, 4])
@pytest.mark.parametrize("noise", [normal, skewed])
def test_among_equal_contenders_the_incumbent_keeps_its_place(challengers, noise):
    runs = 1500
    kept = 0
    for seed in range(runs):
        losses = equal_contenders(np.random.default_rng(seed), challengers, noise)
        # a constant that everyone beats: the one condition left is that of being better than the incumbent
        kept += decide(losses, "recommended", np.full(ROWS, 100.0)).winner == "recommended"
    assert kept >= least(0.95, runs)


def test_one_challenger_wins_by_chance_as_often_as_the_significance_says():
    """Neither too bold nor so timid that nothing could ever win."""
    runs = 1500
    won = sum(
        decide(
            equal_contenders(np.random.default_rng(s), 1, normal), "recommended", np.full(ROWS, 100.0)
        ).winner
        != "recommended"
        for s in range(runs)
    )
    assert least(0.05, runs) <= won <= runs - least(0.95, runs)


@pytest.mark.parametrize("kind", ["groups", "times"])
def test_rows_that_are_alike_are_no_more_evidence_than_their_groups_or_times(kind):
    """A year in which one network is luckier than another is one draw, however many rows it has."""
    years, runs, every = np.repeat(np.arange(15), 40), 1500, np.arange(600)
    blocks = blocks_of(years, None, every) if kind == "groups" else blocks_of(None, years, every)

    def kept(run, blocks):
        rng = np.random.default_rng(run)
        shared = rng.lognormal(size=len(years))
        challenger = shared + rng.normal(0, 0.2, 15)[years] + rng.normal(0, 0.3, len(years))
        losses = {"recommended": shared, "a": challenger}
        return (
            decide(losses, "recommended", np.full(len(years), 100.0), blocks=blocks).winner == "recommended"
        )

    assert least(0.95, runs) <= sum(kept(run, blocks) for run in range(runs)) <= runs - least(0.05, runs)
    assert sum(kept(run, None) for run in range(runs)) < 0.8 * runs


def test_a_better_challenger_wins_in_most_years_and_not_by_one_of_them():
    years, rng = np.repeat(np.arange(15), 40), np.random.default_rng(0)
    shared = rng.lognormal(size=600)
    steady = shared - 0.1 + normal_of(rng, 600)
    lucky = np.where(years == 7, shared - 3.0, shared + normal_of(rng, 600))
    for losses, winner in ((steady, "a"), (lucky, "recommended")):
        verdict = decide({"recommended": shared, "a": losses}, "recommended", shared + 1, blocks=years)
        assert verdict.winner == winner


def normal_of(rng, rows):
    return rng.normal(0, 0.3, rows)


def test_what_is_alike():
    every = np.arange(200)
    assert blocks_of(None, None, every) is None
    np.testing.assert_array_equal(blocks_of(np.array([3, 3, 5]), np.arange(3), np.array([0, 2])), [3, 5])
    stretches = blocks_of(None, every[::-1].copy(), every)
    assert len(np.unique(stretches)) == STRETCHES
    assert (np.bincount(stretches) == 200 // STRETCHES).all()
    few = blocks_of(None, np.repeat([2001, 2002, 2003], [100, 60, 40]), every)
    assert len(np.unique(few)) == 3
    alone = decide(
        {"r": np.zeros(3), "a": np.array([-1.0, -1, -2])}, "r", np.ones(3), blocks=np.zeros(3, int)
    )
    assert alone.winner == "r"  # of a single group nothing is known
    assert math.isfinite(alone.differences["a"].high)


def test_the_best_of_the_clearly_better_ones_wins():
    rng = np.random.default_rng(0)
    base = rng.lognormal(size=ROWS)
    losses = {"recommended": base, "a": base - 0.1 + normal(rng) / 10, "b": base - 0.2 + normal(rng) / 10}
    verdict = decide(losses, "recommended", base + 1)
    assert verdict.winner == "b"
    assert "beyond chance" in verdict.reason
    assert set(verdict.differences) == {"a", "b"}
    assert verdict.differences["b"].mean == pytest.approx(np.mean(losses["b"] - base))
    expected = np.std(losses["b"] - base, ddof=1) / np.sqrt(ROWS)
    assert verdict.differences["b"].standard_error == pytest.approx(expected)


def test_a_small_difference_is_found_because_contenders_are_compared_row_by_row():
    """The rows differ a hundred times more than the contenders do."""
    rng = np.random.default_rng(1)
    base = rng.lognormal(0, 2, ROWS)
    assert (
        decide({"recommended": base, "a": base - 0.01 + normal(rng) / 100}, "recommended", base + 1).winner
        == "a"
    )


def test_a_challenger_that_is_better_on_average_by_one_lucky_row_does_not_win():
    base = np.ones(ROWS)
    lucky = base + 0.001
    lucky[0] -= 0.9
    assert lucky.mean() < base.mean()
    assert decide({"recommended": base, "a": lucky}, "recommended", base + 1).winner == "recommended"


def test_the_worse_challenger_never_wins_and_its_difference_is_positive():
    rng = np.random.default_rng(2)
    base = rng.lognormal(size=ROWS)
    verdict = decide({"recommended": base, "a": base + 0.2 + normal(rng) / 10}, "recommended", base + 1)
    assert verdict.winner == "recommended"
    assert verdict.differences["a"].mean > 0


def test_nothing_wins_that_does_not_beat_a_constant():
    """Unpredictable target: a smoother model is better than a wild one without having learnt anything."""
    rng = np.random.default_rng(3)
    constant = rng.lognormal(size=ROWS)
    losses = {"recommended": constant + 1, "a": constant + normal(rng) / 100}
    verdict = decide(losses, "recommended", constant)
    assert verdict.winner == "recommended"
    assert "constant" in verdict.reason
    assert verdict.differences["a"].high < 0


def test_nothing_wins_on_pure_noise_however_wild_the_recommendation():
    runs, kept = 600, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        target = rng.normal(size=ROWS)
        scores = {
            name: rng.normal(0, size, ROWS) for name, size in (("recommended", 0.8), ("a", 0.2), ("b", 0.05))
        }
        losses = {name: np.square(values - target) for name, values in scores.items()}
        kept += decide(losses, "recommended", np.square(target - target.mean())).winner == "recommended"
    assert kept >= least(0.95, runs)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # one row has no standard error
def test_equal_losses_a_single_row_and_no_challenger_leave_the_incumbent():
    base = np.ones(ROWS)
    assert decide({"recommended": base, "a": base.copy()}, "recommended", base + 1).winner == "recommended"
    alone = decide({"recommended": base}, "recommended", base + 1)
    assert (alone.winner, alone.reason) == ("recommended", "nothing else reached the final")
    one = decide({"recommended": base[:1], "a": base[:1] - 0.5}, "recommended", base[:1] + 1)
    assert one.winner == "recommended"


def test_the_verdict_does_not_depend_on_the_order_of_the_contenders_nor_on_the_unit():
    rng = np.random.default_rng(4)
    base = rng.lognormal(size=ROWS)
    losses = {"recommended": base, **{f"t{k}": base - k / 20 + normal(rng) / 10 for k in range(4)}}
    winner = decide(losses, "recommended", base + 1).winner
    assert winner == "t3"
    assert decide(dict(reversed(losses.items())), "recommended", base + 1).winner == winner
    assert decide({n: 1e6 * v for n, v in losses.items()}, "recommended", 1e6 * (base + 1)).winner == winner
    same = {"recommended": base, "y": base - 1, "x": base - 1}
    assert decide(same, "recommended", base + 1).winner == "x"


# The losses that are compared


def test_held_out_losses_are_in_the_order_of_the_parts():
    target = np.array([1.0, 2.0, 3.0])
    parts = [(np.array([2, 0]), np.array([3.5, 1.0])), (np.array([1]), np.array([0.0]))]
    assert held_out_losses(REGRESSION, target, parts).tolist() == [0.25, 0.0, 4.0]


def test_the_constant_predicts_the_mean_or_the_class_shares():
    target = np.array([0, 0, 0, 1])
    rows = [np.array([0, 3]), np.array([1])]
    assert constant_losses(BINARY, target, rows, 2) == pytest.approx(-np.log([0.75, 0.25, 0.75]))
    values = np.array([1.0, 2.0, 6.0])
    assert constant_losses(REGRESSION, values, [np.array([2, 0])], 0) == pytest.approx([9.0, 4.0])


# What loss to expect


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "held_out", "new_rows"),
    [
        (lambda rng, n: rng.normal(5, 1, n), 100, 50),
        (lambda rng, n: rng.normal(5, 1, n), 100, 200),
        (lambda rng, n: rng.normal(5, 1, n), 50, 50),
        (lambda rng, n: rng.standard_gamma(0.5, n), 100, 50),
        (lambda rng, n: rng.lognormal(0, 1, n), 200, 100),
        (lambda rng, n: rng.standard_t(3, n) + 9, 200, 100),
    ],
    ids=["normal", "normal, many new", "normal, few", "gamma", "lognormal", "t with 3 degrees"],
)
def test_the_mean_loss_of_new_rows_lies_in_the_interval_as_often_as_promised(draw, held_out, new_rows):
    runs, inside = 120, 0
    for seed in range(runs):
        rng = np.random.default_rng([seed, held_out])
        expected = estimate(draw(rng, held_out), new_rows, seed)
        inside += expected.low <= draw(rng, new_rows).mean() <= expected.high
    assert inside >= least(COVERAGE, runs)
    assert inside < runs  # an interval that holds everything would tell nothing


@pytest.mark.parametrize("new_years", [2, 15])
def test_the_interval_of_new_years_lies_as_wide_as_years_differ(new_years):
    runs, years = 200, np.repeat(np.arange(15), 40)
    covered = {True: 0, False: 0}
    for run in range(runs):
        rng = np.random.default_rng(run)
        of_year = rng.lognormal(0, 0.5, 15 + new_years)
        held, new = of_year[years] * rng.lognormal(0, 0.5, 600), np.repeat(of_year[15:], 40)
        truth = (new * rng.lognormal(0, 0.5, len(new))).mean()
        for known in covered:
            expected = estimate(held, len(new), run, blocks=years if known else None)
            covered[known] += expected.low <= truth <= expected.high
    assert covered[True] >= least(0.85, runs)
    assert covered[False] < 0.5 * runs


def test_the_interval_holds_the_mean_narrows_with_the_rows_and_never_falls_below_zero():
    rng = np.random.default_rng(0)
    few, many = rng.lognormal(size=60), rng.lognormal(size=2000)
    wide, narrow = estimate(few, 100, 0), estimate(many, 5000, 0)
    for expected, losses in ((wide, few), (narrow, many)):
        assert expected.low < expected.mean < expected.high
        assert expected.mean == pytest.approx(losses.mean())
    assert narrow.high - narrow.low < (wide.high - wide.low) / 3
    assert estimate(np.array([0.0] * 20 + [10.0]), 5, 0).low == 0.0
    assert (wide.rows, narrow.rows) == (100, 5000)


def test_the_width_is_at_least_that_of_two_independent_means_and_not_much_more():
    losses = np.random.default_rng(1).normal(9, 1, 400)
    expected = estimate(losses, 100, 0)
    width = 2 * NormalDist().inv_cdf(0.95) * losses.std() * math.sqrt(1 / 400 + 1 / 100)
    slack = 4 / math.sqrt(RESAMPLES)
    assert 1 - slack < (expected.high - expected.low) / width < 1.3 + slack


def test_estimates_are_deterministic_and_work_at_the_edges():
    losses = np.random.default_rng(2).lognormal(size=50)
    assert estimate(losses, 10, 7) == estimate(losses, 10, 7)
    assert estimate(losses, 10, 7) != estimate(losses, 10, 8)
    one = estimate(np.array([2.0]), 1, 0)
    assert (one.mean, one.low, one.rows) == (2.0, 2.0, 1)
    assert one.high >= 2.0
    state = np.random.get_state()[1].copy()
    estimate(losses, 10, 7)
    assert np.array_equal(state, np.random.get_state()[1])


def test_a_blend_need_only_have_the_smaller_mean():
    rng = np.random.default_rng(5)
    base = rng.lognormal(size=ROWS)
    slightly = base + normal(rng)
    slightly -= (slightly - base).mean() + 1e-3
    losses = {"recommended": base, "blend": slightly}
    assert decide(losses, "recommended", base + 1).winner == "recommended"
    verdict = decide(losses, "recommended", base + 1, blend="blend")
    assert (verdict.winner, verdict.differences["blend"].high > 0) == ("blend", True)
    assert "within chance" in verdict.reason
    assert (
        decide({"recommended": base, "blend": slightly + 2e-3}, "recommended", base + 1, blend="blend").winner
        == "recommended"
    )
    clearly = decide({"recommended": base, "blend": base - 1}, "recommended", base + 1, blend="blend")
    assert "beyond chance" in clearly.reason


def test_no_blend_wins_where_nothing_beats_a_constant():
    base = np.random.default_rng(6).lognormal(size=ROWS)
    assert (
        decide({"recommended": base + 1, "blend": base + 0.5}, "recommended", base, blend="blend").winner
        == "recommended"
    )


def test_with_a_constant_the_losses_at_epochs_that_other_rows_chose_are_compared():
    """Among networks all are favoured alike by their best epoch; a constant has none."""
    base = np.random.default_rng(7).lognormal(size=ROWS)
    losses, constant = {"recommended": base, "a": base - 0.5}, base + 1
    assert decide(losses, "recommended", constant).winner == "a"
    chance = normal(np.random.default_rng(8))
    unlucky = decide(
        losses, "recommended", constant, cross_fitted={"recommended": constant, "a": constant + chance}
    )
    assert (unlucky.winner, unlucky.reason) == ("recommended", "no challenger predicts better than a constant")
    assert (
        decide(losses, "recommended", constant, cross_fitted={"recommended": base, "a": base}).winner == "a"
    )
