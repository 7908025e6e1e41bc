"""The final: who wins on rows that did not choose, by how much, and what loss to
expect. Pure NumPy statistics.

A contender is judged by the losses of held-out rows under splits that the search never saw. All contenders
are held out on the same rows, so that they are compared pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.errors import in_words
from advisor.evaluation.judgement import Difference, Estimate, FinalVerdict
from advisor.tasks import Task

Losses = NDArray[np.float64]

SIGNIFICANCE = 0.05
"""One-sided, shared among the challengers (Bonferroni): a recommendation that is
as good keeps its place in 95 %."""
BEYOND_CHANCE = "better than {incumbent} beyond chance on rows that did not choose it"
WITHIN_CHANCE = (
    "an average that contains {incumbent}, and better than it on rows that did not choose it, within chance"
)
BEHIND, ALONE = "no challenger was better than {incumbent} beyond chance", "nothing else reached the final"
STRETCHES = 20
"""Of time, into which held-out rows are divided where they are later ones."""
COVERAGE = 0.90
RESAMPLES = 2000
FEWEST_RESAMPLES, MAX_DRAWS = 100, 200_000_000
"""Large tables are resampled less often, down to FEWEST_RESAMPLES: their means
hardly vary, and draws take seconds."""
MAX_RESAMPLED = 2_000_000
"""Row draws at a time while resampling: bounds the memory on large tables."""


def held_out_losses(
    task: Task, target: NDArray[Any], parts: Sequence[tuple[NDArray[np.int64], Losses]]
) -> Losses:
    """Losses of the held-out rows of several stacks, one after another;
    parts: (rows, scores) of each."""
    return np.concatenate([task.row_losses(target[rows], scores) for rows, scores in parts])


def constant_losses(
    task: Task, target: NDArray[Any], rows: Sequence[NDArray[np.int64]], classes: int
) -> Losses:
    """Losses of always predicting the class shares, or the mean, on the same held-out rows."""
    scores = task.constant_scores(target, classes)
    return held_out_losses(task, target, [(part, scores[part]) for part in rows])


def decide(
    losses: Mapping[str, Losses],
    incumbent: str,
    constant: Losses,
    blend: str | None = None,
    cross_fitted: Mapping[str, Losses] | None = None,
    blocks: NDArray[np.int64] | None = None,
) -> FinalVerdict:
    """The incumbent, unless a challenger is better than it and than a constant, both beyond chance.

    The second condition is for targets that nothing can predict: there a smoother model is
    "better" than another one without either having learnt anything. Among the challengers that
    pass the one with the least mean loss wins.

    cross_fitted: the losses at epochs that other rows chose, by default the same ones; with a
        constant these are compared. A network that begins as a constant, stopped where its validation
        rows like it best, is never worse than a constant on them; among networks that is an equal
        favour (``benchmarks/pure_noise.py``).

    blend: the challenger that averages the incumbent with others. It need only have the smaller mean loss. A
        convex loss of an average is at most the average of the losses (Jensen), so that what chance can do to
        a single challenger, it can hardly do to this one; asking for proof would throw away what averaging
        nearly always gains (``benchmarks/tuned.py``).

    blocks: of each row, which rows are alike (``blocks_of``); None where each is a draw of its own.
    """
    challengers = [name for name in losses if name != incumbent]
    chance = SIGNIFICANCE / max(1, len(challengers))
    differences = {name: _difference(losses[name], losses[incumbent], chance, blocks) for name in challengers}
    better = [name for name, d in differences.items() if d.high < 0 or (name == blend and d.mean < 0)]
    honest = losses if cross_fitted is None else cross_fitted
    informed = [name for name in better if _difference(honest[name], constant, chance, blocks).high < 0]
    if not challengers:
        return FinalVerdict(incumbent, ALONE, differences)
    if informed:
        winner = min(informed, key=lambda name: (float(losses[name].mean()), name))
        beyond = differences[winner].high < 0
        reason = BEYOND_CHANCE if beyond else WITHIN_CHANCE
        return FinalVerdict(winner, reason.format(incumbent=in_words(incumbent)), differences)
    if better:
        return FinalVerdict(incumbent, "no challenger predicts better than a constant", differences)
    return FinalVerdict(incumbent, BEHIND.format(incumbent=in_words(incumbent)), differences)


def blocks_of(
    groups: NDArray[np.int64] | None, times: NDArray[np.int64] | None, rows: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Which of these rows are alike: those of a group, or of a stretch of time; None where neither is known.

    Rows of one time stay together; so many stretches as still leave each long beside what neighbours have
    in common (batch means: Schmeiser 1982 finds 10 to 30 enough).
    """
    if groups is not None:
        return groups[rows]
    if times is None:
        return None
    _, code, counts = np.unique(times[rows], return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts
    return np.asarray((before * STRETCHES // len(rows))[code], np.int64)


def _difference(
    losses: Losses, others: Losses, chance: float, blocks: NDArray[np.int64] | None
) -> Difference:
    """With blocks the standard error is that of their mean, and the bound Student's with their number."""
    paired = losses - others
    mean = float(paired.mean())
    if blocks is None:
        error = float(paired.std(ddof=1) / np.sqrt(len(paired)))
        return Difference(mean, error, mean + NormalDist().inv_cdf(1 - chance) * error)
    number = len(np.unique(blocks))
    if number < 2:  # of how blocks differ nothing is known: no proof, whatever the rows say
        return Difference(mean, float(paired.std()), max(0.0, float(paired.max())))
    error = clustered_error(paired, blocks)
    return Difference(mean, error, mean + student(1 - chance, number - 1) * error)


def clustered_error(values: Losses, blocks: NDArray[np.int64]) -> float:
    """The cluster-robust standard error of the mean (Liang and Zeger 1986), with
    the correction for few clusters."""
    sums = np.bincount(np.unique(blocks, return_inverse=True)[1], weights=values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values))


def student(probability: float, freedom: int) -> float:
    """Student's quantile."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))


def estimate(
    losses: Losses, new_rows: int, seed: int, tail: float = 0.0, blocks: NDArray[np.int64] | None = None
) -> Estimate:
    """Mean loss of ``new_rows`` rows to come, by resampling the held-out rows.

    Both means vary: that of the held-out rows about the truth, and that of the new rows. Each is
    resampled, and their differences give the interval (a prediction interval by the basic
    bootstrap). New rows may be worse than any row
    seen: they are drawn with one row more, as far beyond the worst as that is from the
    mean, or ``tail`` (``Task.unseen_loss``) where that is more.

    blocks: which held-out rows are alike (``blocks_of``). New rows come from blocks of their own, and the
        interval is at least Student's for the mean of these.
    """
    generator = np.random.default_rng(seed)
    count, mean = len(losses), float(losses.mean())
    worse = np.append(losses, max(2 * float(losses.max()) - mean, tail))
    draws = np.concatenate(
        [
            worse[generator.integers(count + 1, size=(block, new_rows))].mean(axis=1)
            - losses[generator.integers(count, size=(block, count))].mean(axis=1)
            for block in _blocks(count + new_rows)
        ]
    )
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    if blocks is not None and (number := len(np.unique(blocks))) > 1:
        error = clustered_error(losses, blocks) * math.sqrt(1 + count / new_rows)
        far = error * student((1 + COVERAGE) / 2, number - 1)
        low, high = min(low, -far), max(high, far)
    return Estimate(mean, max(0.0, mean + float(low)), mean + float(high), new_rows)


def _blocks(rows: int) -> list[int]:
    block = max(1, min(RESAMPLES, MAX_RESAMPLED // rows))
    return [block] * -(-min(RESAMPLES, FEWEST_RESAMPLES + MAX_DRAWS // rows) // block)
