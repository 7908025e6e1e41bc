"""The verdict: use this, expect this, look at that, in a sentence or two each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from advisor.documents import UNSET
from advisor.errors import in_words
from advisor.evaluation.judgement import Difference, Estimate
from advisor.report import charts
from advisor.report.wording import cut_middle, number
from advisor.rules.recommendation import Finding
from advisor.runs.result import (
    RECOMMENDED,
    ContenderReport,
    FinalReport,
    PairedDifference,
    RunReport,
    ScoreReport,
)
from advisor.search.curves import CurveDiagnosis
from advisor.tasks import task_of

NOT_A_NETWORK = "A network is not the best tool here"
BEYOND_CHANCE = 1.645
"""Standard errors by which one must be ahead of the other on the same rows (one-sided 5 %) before
any text calls it better or worse."""
TIME_TOLERANCE, TIME_SLACK = 0.1, 10.0
"""Share of a time limit, and seconds, by which it may be exceeded before the verdict says so."""


@dataclass(frozen=True)
class Deciding:
    """What decided in a run: the loss, or the user's metric, on the same rows.

    words: what it is called. more: whether more of it is better. values: its part of a contender and of what
    was scored on the test rows. differences: the same of the difference, negative where the first is better.
    """

    words: str
    more: bool
    values: Callable[[ContenderReport | ScoreReport], float | None]
    of_contender: Callable[[ContenderReport], Difference | None]
    of_score: Callable[[ScoreReport], PairedDifference]
    estimate: Estimate

    def shown(self, entry: ContenderReport | ScoreReport) -> str:
        """Its value in words."""
        value = self.values(entry)
        return "not defined" if value is None else number(value)

    def rank(self, entry: ContenderReport | ScoreReport) -> float:
        """Less is better; what is not defined comes last."""
        value = self.values(entry)
        return math.inf if value is None else -value if self.more else value

    def gap(self, entry: ContenderReport, other: ContenderReport) -> str:
        """By how much one is below or above another; a share only of losses, and where they are positive
        (a likelihood's may be negative)."""
        own, its = self.values(entry) or 0.0, self.values(other) or 0.0
        if own > 0 and its > 0 and not self.more:
            return f"{1 - own / its:.1%} less" if own <= its else f"{own / its - 1:.1%} more"
        return f"{number(abs(its - own))} {'less' if own <= its else 'more'}"


def deciding(result: RunReport) -> Deciding:
    """What decided in a run."""
    if not result.metric:
        return Deciding(
            result.setup.loss,
            False,
            lambda entry: entry.held_out_loss if isinstance(entry, ContenderReport) else entry.loss,
            lambda contender: contender.difference,
            lambda entry: entry.difference_to_network,
            result.estimate,
        )
    metric = result.metric
    return Deciding(
        metric.words,
        metric.greater_is_better,
        lambda entry: None if entry.metric is UNSET else entry.metric,
        lambda contender: contender.metric_difference or None,
        lambda entry: entry.metric_difference or PairedDifference(0.0, 0.0),
        metric.expected,
    )


def verdict(result: RunReport, findings: Sequence[Finding]) -> list[str]:
    """Use this, expect this, look at that: a sentence or two each. That a network
    is not the best tool comes first."""
    final, by = result.final, deciding(result)
    estimate, words = by.estimate, by.words
    if result.setup.kind == "train":
        use = f"The recommendation was trained: {words} {by.shown(final.contenders[0])} on held-out rows."
    else:
        use = _gain(final, by)
    interval = f"{number(estimate.low)} to {number(estimate.high)}"
    expect = (
        f"Expect {words} {number(estimate.mean)} on {estimate.rows:,} new rows like these "
        f"(90 % prediction interval {interval})."
    )
    test = result.test
    if test.results:
        own, *others = test.results
        expect = (
            f"On the {test.rows:,} test rows its {words} is {by.shown(own)}{_score(own)}; "
            f"its 90 % prediction interval was {interval}."
        )
        incumbent = final.to_beat
        compared = _against(own, [o for o in others if o.name != incumbent], by)
        use = f"{compared} {use}" if compared.startswith(NOT_A_NETWORK) else f"{use} {compared}"
        advised = next((o for o in others if o.name == incumbent), None)
        if advised and compare(by.of_score(advised)) == "better":
            use += f" On the test rows {in_words(incumbent)} alone was better: {words} {by.shown(advised)}."
        elif advised and by.rank(advised) < by.rank(own):
            use += (
                f" On the test rows {in_words(incumbent)} alone has {words} {by.shown(advised)}, "
                f"{'higher' if by.more else 'lower'} within chance."
            )
    return [
        use,
        *_limits(result),
        expect,
        *_decisions(result),
        *_by_similarity(result),
        *_trees(result),
        _look_at(findings, _reading(result)),
    ]


def _trees(result: RunReport) -> list[str]:
    """What became of trees beside the networks, where they were asked for."""
    trees = result.final.trees
    if not trees:
        return []
    if trees.left_out:
        return [f"No boosted trees were blended with the networks: {trees.left_out}."]
    losses = (
        f"{result.setup.loss} {number(trees.blend_loss)} on held-out rows, {number(trees.networks_loss)} of "
        f"the networks alone, {number(trees.trees_loss)} of the trees alone"
    )
    if trees.share:
        return [f"The model is a blend: {trees.share:.0%} boosted trees, the rest the networks ({losses})."]
    decided = f", but is not better by {result.metric.words}" if result.metric else ""
    return [f"Boosted trees were tried, and the networks alone are the model: a blend has {losses}{decided}."]


def _by_similarity(result: RunReport) -> list[str]:
    """What a cosine classifier tells beside, and the classes that were added to it."""
    sentences = []
    winner = next((c for c in result.final.contenders if c.name == result.final.winner), None)
    if winner is not None and winner.recall_at_1 is not UNSET:
        sentences.append(
            f"Recall@1 is {winner.recall_at_1:.1%}: for this share of the held-out rows, the training row "
            "nearest by its embedding has the same class."
        )
    if result.enrolled:
        added = ", ".join(
            f"'{cut_middle(label, 40)}' ({rows} example{'s' * (rows != 1)})"
            for label, rows in result.enrolled.items()
        )
        sentences.append(f"Enrolled after training: {added}. All numbers here are of the model before.")
    return sentences


def _decisions(result: RunReport) -> list[str]:
    """Which decision the user's metric asked for, or what others would give where a class is rare."""
    metric, sentences = result.metric, []
    if metric and metric.divisors:
        instead = f"; the most likely class gives {number(metric.most_likely)}" if metric.most_likely else ""
        how = "each class has an offset of its own"
        if metric.threshold:
            likely = f"a probability of {metric.threshold:.2g}"
            how = f"'{cut_middle(str(metric.positive), 40)}' is predicted from {likely} on"
        sentences.append(f"For {metric.words}, {how}, chosen on held-out rows{instead}.")
    for offer in result.offers or ():
        how = "Offsets for the classes"
        if offer.threshold:
            likely = f"a probability of {offer.threshold:.2g}"
            how = f"Predicting '{cut_middle(str(offer.positive), 40)}' from {likely} on"
        sentences.append(
            f"{how} would give {offer.words} {number(offer.value)}, not {number(offer.most_likely)}, and "
            f"accuracy {offer.accuracy:.1%} (--metric {offer.metric})."
        )
    return sentences


def compare(difference: PairedDifference | Difference) -> str:
    """Whether a mean paired difference of losses is ``better`` or ``worse`` beyond chance, or ``level``.

    difference: of a model to another; negative where the first has the smaller loss.
    """
    reach = BEYOND_CHANCE * difference.standard_error
    return "better" if difference.mean < -reach else "worse" if difference.mean > reach else "level"


def _limits(result: RunReport) -> list[str]:
    """What failed in the final, and what the time limit did to it."""
    final, sentences = result.final, []
    failed = final.failed or {}
    if reason := failed.get(RECOMMENDED):
        sentences.append(
            f"The recommendation failed in the final ({cut_middle(reason, 200)}). "
            f"The best of the search, {in_words(final.to_beat)}, took its place as the one to beat."
        )
    if final.confirmed is False:
        sentences.append(
            "The model was not confirmed on fresh splits, because the time limit left no time for a final."
        )
    if fewer := final.fewer_networks:
        trained, wanted = fewer
        sentences.append(
            f"Because of the time limit, the final trained {trained} network{'s' * (trained > 1)} per split, "
            f"not {wanted}."
        )
    if final.without_latest_rows:
        sentences.append(
            "The model has not seen the latest rows: training it again on all rows failed, or took too long."
        )
    if left_out := result.test.left_out:
        sentences.append(f"Left out because of the time limit: the {' and the '.join(left_out)} baseline.")
    limit = result.time_limit
    if limit and over_limit(result.seconds, limit):
        over = result.seconds - limit
        sentences.append(
            f"It took {result.seconds:,.0f} s, {over:,.0f} s more than the time limit of {limit:,.0f} s."
        )
    return sentences


def over_limit(seconds: float, limit: float | None) -> bool:
    """Whether a run took so much more than its time limit that the verdict says so; None is no limit."""
    return limit is not None and seconds > (1 + TIME_TOLERANCE) * limit + TIME_SLACK


def advice_alone(findings: Sequence[Finding]) -> list[str]:
    """The verdict before anything is trained."""
    return [
        "Start with the configuration below: it is what the rules make of the measured data.",
        "Nothing was trained yet, so the loss is unknown. `advisor tune RUN` searches around it and "
        "measures the loss.",
        _look_at(findings, None),
    ]


@dataclass(frozen=True)
class NextStep:
    """What to do next, and the command that does it; RUN stands for the run's folder."""

    what: str
    command: str


def next_step(result: RunReport | None) -> NextStep:
    """After advice a search; after a search that paid off a prediction, else more trials or other data."""
    if result is None:
        return NextStep("search around it, and measure", "advisor tune RUN --trials 40")
    if result.objective:
        return NextStep("read every reason for a value", "advisor why RUN")
    by = deciding(result)
    ahead = [one.name for one in result.test.results or () if compare(by.of_score(one)) == "better"]
    baselines = [name for name in ahead if name != result.final.to_beat]
    if result.setup.kind == "train":
        what = f"use the {baselines[0]} baseline, or search" if baselines else "search around it"
        return NextStep(what, "advisor tune RUN --trials 40")
    search = result.search
    if search and (search.timed_out or result.final.confirmed is False):
        more = max(2 * len(search.trials), search.requested)
        return NextStep("go on with more time, for the limit ended it", f"advisor tune RUN --trials {more}")
    return NextStep("use it for new rows", f"advisor predict RUN {predict_with(result)}")


def predict_with(result: RunReport) -> str:
    """What follows the run in an example of ``advisor predict``."""
    from advisor.evaluation.by_target import JUDGED  # an answer about a recommendation needs none of it

    return JUDGED[task_of(result.setup.task).target].predict_with


def _look_at(findings: Sequence[Finding], reading: CurveDiagnosis | None) -> str:
    grave = [finding for finding in findings if finding.severity in ("error", "warning")]
    if grave:
        action = f" ({grave[0].actions[0]})" if grave[0].actions else ""
        return f"Look at this first: {cut_middle(grave[0].message, 300)}{action}"
    if reading and reading.shape in ("diverging", "noisy", "improving", "slow", "under-fitting"):
        return f"Look at the learning curve: it {reading.words}."
    return "The data need no attention first."


def _reading(result: RunReport) -> CurveDiagnosis | None:
    """The reading of the winner's curve where it is one configuration's, else of the recommendation's."""
    if result.reading:
        return result.reading
    named = {t.origin if t.origin in charts.REFERENCES else f"trial {t.number}": t for t in result.trials}
    trial = named.get(result.final.winner) or named.get(RECOMMENDED)
    return None if trial is None else trial.reading or None


def _gain(final: FinalReport, by: Deciding) -> str:
    incumbent = final.to_beat
    winner, beaten = final.contender(final.winner), final.contender(incumbent)
    if final.confirmed is False:
        return f"Use {in_words(incumbent)}: {by.words} {by.shown(beaten)} on held-out rows."
    if winner is beaten and incumbent == RECOMMENDED:
        return (
            f"Tuning gained nothing over the recommendation ({final.reason}): keep it, "
            f"with {by.words} {by.shown(beaten)} on held-out rows."
        )
    if winner is beaten:
        return f"Use {in_words(incumbent)} ({final.reason}): {by.words} {by.shown(beaten)} on held-out rows."
    difference = by.of_contender(winner)
    chance = "beyond" if difference and difference.high < 0 else "within"
    return (
        f"Use the tuned model ({final.winner}): {by.words} {by.shown(winner)} against "
        f"{by.shown(beaten)} for {in_words(incumbent)} on fresh rows, "
        f"{by.gap(winner, beaten)}, {chance} chance."
    )


def _score(entry: ScoreReport) -> str:
    if entry.accuracy is not UNSET:
        return f", accuracy {entry.accuracy:.1%}"
    if entry.mean_iou is not UNSET:
        return f", mean IoU {entry.mean_iou:.3f}"
    if entry.ap50 is not UNSET:
        return f", AP50 {entry.ap50:.3f}"
    return "" if entry.r2 is UNSET else f", R2 {entry.r2:.3f}"


def _against(own: ScoreReport, baselines: Sequence[ScoreReport], by: Deciding) -> str:
    best = min(baselines, key=by.rank)
    both = f"{by.words} {by.shown(best)} on the same test rows, the network {by.shown(own)}"
    match compare(by.of_score(best)):
        case "worse":
            return f"The best baseline ({best.name}) has {both}: the network is ahead."
        case "better":
            return f"{NOT_A_NETWORK}: the {best.name} baseline has {both}."
    return f"The simpler {best.name} baseline is as good within chance: {both}."
