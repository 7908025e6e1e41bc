"""A user's metric on held-out rows: its value, how far chance moves it, and the decision that suits it.

A metric need be no mean of rows' losses. Its variation is found by leaving out parts of the rows (the
jackknife of groups: Efron and Tibshirani 1993, chapter 11), which gives each row a number whose mean is the
metric and whose variation is that of the metric: so the final compares metrics as it compares losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.documents import UNSET, Unset
from advisor.evaluation.judge import Judge
from advisor.evaluation.judgement import DecisionOffer, Estimate, MetricReport
from advisor.evaluation.selection import COVERAGE, clustered_error, student

Numbers = NDArray[np.float64]
Codes = NDArray[Any]
"""Targets or predictions, (rows,): codes or numbers."""

LEFT_OUT = 60
"""Parts of the rows that the jackknife leaves out in turn: with this many, Student's quantile is the
normal."""
DECISION_FOLDS = 5
"""A decision is chosen on the rows of all folds but one, and used on that one."""
DECISION_ROWS = 10_000
"""A decision is chosen on at most this many rows: a threshold has no more to learn from them."""
TEMPERED_PRIORS = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Powers of the class shares that probabilities are divided by; 1 is the best for balanced accuracy (Menon et
al. 2021), 0 the most likely class."""
THRESHOLDS = 24
"""Tried for one of two classes, dense where a class is rare."""
SMOOTHED = 3
"""Neighbouring thresholds whose values are averaged, so that no lucky one is chosen."""
STEPS = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)
"""By which the logarithm of a class's divisor is moved."""
MOST_OFFSETS = 20
"""With more classes, none has a divisor of its own."""
SEED = 0

Divisors = tuple[float, ...]


@dataclass(frozen=True)
class Judged:
    """Scores of held-out rows under a metric.

    value: of the metric, as it is shown. row_losses: (rows,), whose mean is its loss (less is better), for
    ``selection.decide`` with ``blocks``. chosen: the predictions (rows,), each by a decision that other rows
    chose. divisors: the decision that all rows choose; () is the most likely class.
    """

    value: float
    row_losses: Numbers
    chosen: Codes
    divisors: Divisors
    blocks: NDArray[np.int64]


def judge_rows(
    judge: Judge,
    target: Codes,
    scores: Numbers,
    weights: Numbers | None = None,
    blocks: NDArray[np.int64] | None = None,
    *,
    fixed: Divisors | None = None,
) -> Judged:
    """Held-out rows under a metric.

    weights: how much each row counts. blocks: which rows are alike; they choose, and are left out, together.
    fixed: a decision that is there already.
    """
    parts = left_out_parts(len(target), blocks)
    divisors: Divisors = fixed or ()
    chosen = judge.decided(scores, divisors)
    if judge.decides and fixed is None:
        divisors, chosen = choose_decision(judge, target, scores, weights, blocks)
    value = judge.value(target, scores, chosen, weights)
    return Judged(value, jackknifed(judge, target, scores, chosen, weights, parts), chosen, divisors, parts)


def left_out_parts(rows: int, blocks: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Which rows the jackknife leaves out together, (rows,): those that are alike, else LEFT_OUT random parts
    that are the same for all contenders."""
    if blocks is not None:
        return blocks
    order = np.random.default_rng(SEED).permutation(rows)
    parts = np.empty(rows, dtype=np.int64)
    parts[order] = np.arange(rows) * min(LEFT_OUT, rows) // rows
    return parts


def jackknifed(
    judge: Judge,
    target: Codes,
    scores: Numbers,
    chosen: Codes,
    weights: Numbers | None,
    parts: NDArray[np.int64],
) -> Numbers:
    """A number for each row, (rows,), the same within a part: their mean is the metric's loss, their
    variation over the parts that of the metric. Exactly the parts' means where the metric is a mean."""
    whole = judge.loss(judge.value(target, scores, chosen, weights))
    codes, place = np.unique(parts, return_inverse=True)
    counts = np.ones(len(target)) if weights is None else weights
    share = np.bincount(place, weights=counts) / counts.sum()
    values = np.full(len(codes), whole)
    if len(codes) > 1:
        without = judge.values_without(target, scores, chosen, weights, place)
        for code, value in enumerate(without.tolist()):
            if np.isfinite(value) and share[code] > 0:  # without its only rows of a class many are undefined
                values[code] = whole + (1 - share[code]) / share[code] * (whole - judge.loss(value))
    by_row = values[place]
    return np.asarray(by_row + (whole - by_row.mean()))


def expected_value(judged: Judged, judge: Judge, new_rows: int) -> Estimate:
    """The metric on this many rows to come, with the interval that holds it in COVERAGE of the cases: both
    the held-out rows and the new ones vary."""
    number = len(np.unique(judged.blocks))
    if number < 2:
        return Estimate(judged.value, judge.metric.low, judge.metric.high, new_rows)
    error = clustered_error(judged.row_losses, judged.blocks)
    reach = student((1 + COVERAGE) / 2, number - 1) * error * np.sqrt(1 + len(judged.chosen) / new_rows)
    low, high = max(judge.metric.low, judged.value - reach), min(judge.metric.high, judged.value + reach)
    return Estimate(judged.value, float(low), float(high), new_rows)


def metric_report(
    judge: Judge,
    judged: Judged,
    target: Codes,
    scores: Numbers,
    weights: Numbers | None,
    blocks: NDArray[np.int64] | None,
    *,
    new_rows: int,
) -> MetricReport:
    """What the metric says of held-out rows and of this many to come; arguments as of ``judge_rows``."""
    metric, constant = judge.metric, judge_constant(judge, target, weights, blocks)
    report = MetricReport(
        name=metric.name,
        words=metric.words,
        greater_is_better=metric.greater_is_better,
        expected=expected_value(judged, judge, new_rows),
        constant=_finite(constant.value),
        positive=judge.positive_class,
    )
    if not judged.divisors:
        return report
    plain = judge.value(target, scores, judge.decided(scores), weights)
    threshold = threshold_of(judge, judged.divisors)
    return replace(report, most_likely=_finite(plain), divisors=judged.divisors, threshold=threshold)


def other_decisions(
    judges: Sequence[Judge],
    used: Divisors,
    target: Codes,
    scores: Numbers,
    weights: Numbers | None,
    blocks: NDArray[np.int64] | None,
) -> tuple[DecisionOffer, ...]:
    """What decisions that suit other metrics would give in place of the one in use (``used``); those that
    would give nothing are left out."""
    offers = []
    for judge in judges:
        divisors, chosen = choose_decision(judge, target, scores, weights, blocks)
        value = judge.value(target, scores, chosen, weights)
        plain = judge.value(target, scores, judge.decided(scores, used), weights)
        if judge.loss(value) < judge.loss(plain):
            offers.append(
                DecisionOffer(
                    metric=judge.metric.name,
                    words=judge.metric.words,
                    value=value,
                    most_likely=plain,
                    accuracy=float(np.mean(chosen == target)),
                    positive=judge.positive_class,
                    threshold=threshold_of(judge, divisors),
                )
            )
    return tuple(offers)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def judge_constant(
    judge: Judge,
    target: Codes,
    weights: Numbers | None = None,
    blocks: NDArray[np.int64] | None = None,
) -> Judged:
    """The best that the metric says of predictions that ask nothing of a row: the class shares or the mean,
    and for a metric of decisions that class which is best for all rows."""
    scores = judge.task.constant_scores(target, len(judge.classes))
    said = [judge.decided(scores)]
    if judge.decides:
        common = np.bincount(target.astype(np.int64), minlength=len(judge.classes)).argsort()[::-1]
        said = [np.full(len(target), code) for code in common[:MOST_OFFSETS]]
    losses = [judge.loss(judge.value(target, scores, one, weights)) for one in said]
    chosen = said[int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))]
    parts = left_out_parts(len(target), blocks)
    value = judge.value(target, scores, chosen, weights)
    return Judged(value, jackknifed(judge, target, scores, chosen, weights, parts), chosen, (), parts)


# -------------------------------------------------------------------------------------------------- decisions


def choose_decision(
    judge: Judge,
    target: Codes,
    scores: Numbers,
    weights: Numbers | None = None,
    blocks: NDArray[np.int64] | None = None,
) -> tuple[Divisors, Codes]:
    """The divisors that suit the metric, and the predictions of these rows, each by divisors that the rows of
    other folds chose.

    Three ways to decide are tried, the simpler first: the most likely class; probabilities divided by a power
    of the class shares; a divisor for each class. That way is taken which is best on the rows that did not
    choose its divisors, the simpler where they are level; each fold is predicted by the way that is best on
    the others. () is the most likely class.
    """
    fold = _folds(len(target), blocks)
    ways: list[_Way] = [_by_most_likely, _by_shares]
    if scores.shape[1] <= MOST_OFFSETS:
        ways.append(_by_threshold if scores.shape[1] == len(_TWO) else _by_class)

    def chosen_by(way: _Way, rows: NDArray[np.int64]) -> Divisors:
        some = _some(rows)
        return way(judge, target[some], scores[some], None if weights is None else weights[some])

    folds = [np.flatnonzero(fold == number) for number in np.unique(fold)]
    said = [judge.decided(scores) for _ in ways]
    for way, chosen in zip(ways[1:], said[1:], strict=True):
        for own in folds:
            rest = np.setdiff1d(np.arange(len(target)), own)
            chosen[own] = judge.decided(scores[own], chosen_by(way, rest))

    def best_on(rows: NDArray[np.int64]) -> int:
        own = None if weights is None else weights[rows]
        values = [judge.value(target[rows], scores[rows], chosen[rows], own) for chosen in said]
        losses = [judge.loss(value) if np.isfinite(value) else np.inf for value in values]
        return int(np.argmin(losses))

    honest = said[0].copy()
    for own in folds:
        honest[own] = said[best_on(np.setdiff1d(np.arange(len(target)), own))][own]
    everything = np.arange(len(target))
    return chosen_by(ways[best_on(everything)], everything), honest


def threshold_of(judge: Judge, divisors: Divisors) -> float | Unset:
    """Of two classes: the probability of the positive one from which on it is predicted."""
    if judge.positive is None:
        return UNSET
    own = divisors or (0.5, 0.5)
    return own[judge.positive] / sum(own)


_Way = Callable[[Judge, Codes, Numbers, Numbers | None], Divisors]
_TWO = (0, 1)


def _folds(rows: int, blocks: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The fold of each row, (rows,); rows that are alike share one."""
    alike = np.arange(rows) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    number = int(alike.max()) + 1
    order = np.random.default_rng(SEED).permutation(number)
    return np.asarray((order * min(DECISION_FOLDS, number) // number)[alike])


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most DECISION_ROWS of them, by chance, ascending."""
    if len(rows) <= DECISION_ROWS:
        return rows
    return np.sort(np.random.default_rng(SEED).choice(rows, DECISION_ROWS, replace=False))


def _shares(target: Codes, classes: int) -> Numbers:
    counts = np.bincount(target.astype(np.int64), minlength=classes)
    return np.asarray(np.maximum(counts, 1) / len(target))


def _by_most_likely(judge: Judge, target: Codes, scores: Numbers, weights: Numbers | None) -> Divisors:
    return ()


def _by_shares(judge: Judge, target: Codes, scores: Numbers, weights: Numbers | None) -> Divisors:
    """The best power of the class shares."""
    shares = _shares(target, scores.shape[1])
    tried: list[Divisors] = [tuple((shares**power).tolist()) for power in TEMPERED_PRIORS]
    return min(tried, key=lambda divisors: _loss(judge, target, scores, weights, divisors))


def _by_threshold(judge: Judge, target: Codes, scores: Numbers, weights: Numbers | None) -> Divisors:
    """Of two classes: the probability of the second from which on it is predicted."""
    ordered = np.sort(scores[:, 1])
    far = np.unique(np.geomspace(1, max(1, len(ordered) / 2), THRESHOLDS // 2).round().astype(np.int64))
    places = np.unique(np.concatenate([far, len(ordered) - far])) - 1
    places = places[(places >= 0) & (places < len(ordered) - 1)]
    middles = (ordered[places] + ordered[places + 1]) / 2
    thresholds = np.unique(np.append(middles, 0.5))
    thresholds = thresholds[(thresholds > 0) & (thresholds < 1)]
    losses = np.array(
        [_loss(judge, target, scores, weights, (1 - float(one), float(one))) for one in thresholds]
    )
    losses = np.where(np.isfinite(losses), losses, np.inf)
    if np.isfinite(losses).all():
        width = min(SMOOTHED, len(losses) // 2 * 2 - 1) if len(losses) > 1 else 1
        padded = np.pad(losses, width // 2, mode="edge")
        losses = np.convolve(padded, np.ones(width) / width, mode="valid")
    chosen = float(thresholds[int(losses.argmin())])
    return 1 - chosen, chosen


def _by_class(judge: Judge, target: Codes, scores: Numbers, weights: Numbers | None) -> Divisors:
    """A divisor for each class, moved one after another as long as that helps."""
    logs = np.log(np.array(_by_shares(judge, target, scores, weights)))
    least = _loss(judge, target, scores, weights, tuple(np.exp(logs).tolist()))
    flat = _loss(judge, target, scores, weights, ())
    if flat <= least:
        logs, least = np.zeros(scores.shape[1]), flat
    for code in range(scores.shape[1]):
        for step in STEPS:
            moved = logs.copy()
            moved[code] += step
            loss = _loss(judge, target, scores, weights, tuple(np.exp(moved).tolist()))
            if loss < least:
                logs, least = moved, loss
    return tuple(np.exp(logs).tolist())


def _loss(
    judge: Judge,
    target: Codes,
    scores: Numbers,
    weights: Numbers | None,
    divisors: Sequence[float],
) -> float:
    value = judge.value(target, scores, judge.decided(scores, divisors), weights)
    return judge.loss(value) if np.isfinite(value) else np.inf
