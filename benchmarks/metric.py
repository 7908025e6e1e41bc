"""What `--metric` gains, and whether a search should select its trials by it.

    nice -n 15 python benchmarks/metric.py [--data FOLDER] [--trials 4] [--rows 500]

Of each set with two classes one small search (the recommendation and random configurations of its space, in
this process) serves all metrics: the winner by the loss with the most likely class, which is the default
run, against the winner by the metric with the decision that suits it; and, for the selection, the single
trial with the best loss against the one with the best metric, both decided for the metric. Of each set with
a number the recommendation is trained as it is, and with `--metric neg_mean_absolute_error`. Only rows of
the training parts are read: `--rows` of them train and the rest, at most TEST_ROWS, test. Every finished
set is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import yaml
from resumable import go_on
from sklearn import datasets

from advisor.data.modalities import read_new_rows
from advisor.data.options import FileForm
from advisor.dataset import Dataset
from advisor.evaluation.by_metric import jackknifed, left_out_parts
from advisor.evaluation.judge import Judge
from advisor.evaluation.metrics import metric_of
from advisor.evaluation.selection import clustered_error
from advisor.objectives.contenders.contender import (
    BLEND,
    Contender,
    blend_of,
    judged,
    judged_by,
    select_winner,
    winner_by_metric,
)
from advisor.objectives.jobs import TrainingJob, WorkerData
from advisor.objectives.networks import TrainingObjective, merged_held_out
from advisor.runs.advice import Advice
from advisor.runs.model import tempered
from advisor.runs.result import RECOMMENDED
from advisor.workflows.recommend import get_advice, reading_of

HERE = Path(__file__).resolve().parent
RARE = tuple(
    [
        "abalone19",
        "attrition",
        "default-islr",
        "mlc-churn",
        "mpls-stops",
        "nass-cds",
        "page-blocks0",
        "yeast4",
        "segment:BRICKFACE",
        "digits:8",
    ]
)
EVEN = tuple(
    [
        "cells",
        "german",
        "magic",
        "oj",
        "phoneme",
        "sonar",
        "spambase",
        "credit-default",
        "breast_cancer",
        "contraceptive:0",
    ]
)
NUMBERS = tuple(
    [
        "check-times",
        "chicago-ridership",
        "concrete",
        "cps-wages-9204",
        "deliveries",
        "diabetes",
        "diamonds",
        "flights-by-month",
        "hitters",
        "medexp",
    ]
)
OF_CLASSES, OF_NUMBERS = ("roc_auc", "f1", "balanced_accuracy"), "neg_mean_absolute_error"
TEST_ROWS, EPOCHS, FOLDS, SEED = 2000, 25, 3, 0
PLAN = {"epochs": EPOCHS, "folds": FOLDS}


def rows_of(folder: Path, name: str) -> tuple[pd.DataFrame, str]:
    """The training part of a set and its target; with ``:CLASS`` one class against the rest (of a class that
    is not there: the rarest)."""
    base, colon, one = name.partition(":")
    if (folder / base).is_dir():
        target = str(yaml.safe_load((folder / base / "meta.yaml").read_text())["target"])
        frame = pd.read_csv(folder / base / "train.csv", low_memory=False).dropna(subset=[target])
    else:
        bunch = getattr(datasets, f"load_{base}")(as_frame=True)
        frame, target = bunch.frame, "target"
    if colon:
        labels = frame[target].astype(str)
        chosen = one if one in set(labels) else labels.value_counts().index[-1]
        frame[target] = np.where(labels == chosen, "one", "rest")
    if name not in NUMBERS:
        frame[target] = [f"class {label}" for label in frame[target]]
    return frame, target


def divided(frame: pd.DataFrame, rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that train, and rows that test: at least three tenths."""
    order = np.random.default_rng(SEED).permutation(len(frame))
    cut = min(rows, int(0.7 * len(frame)))
    return frame.iloc[order[:cut]], frame.iloc[order[cut : cut + TEST_ROWS]]


def tested(advice: Advice, rows: pd.DataFrame, target: str) -> Dataset:
    """The test rows as the training rows were read; without those of a class that did not train."""
    train = advice.training_rows()
    if train.task.of_classes:
        rows = rows[rows[target].isin(train.classes)]
    features = read_new_rows(rows, advice.data.schema, FileForm(), strict=False).features
    truth = rows[target]
    codes = [train.classes.index(label) for label in truth] if train.task.of_classes else truth.astype(float)
    return Dataset(features, np.asarray(codes), train.task, train.classes)


def trained(train: Dataset, configuration: dict, name: str, members: int) -> Contender:
    job = TrainingJob(configuration, seed=SEED, repeat=0, members=members, keep=True).as_job(name)
    epochs = TrainingObjective(WorkerData(train, SEED))(job)
    try:
        while True:
            next(epochs)
    except StopIteration as end:
        stack = end.value.stack
    rows, scores = merged_held_out([stack])
    _, honest = merged_held_out([stack], cross_fitted=True)
    return judged(name, (configuration,), (stack,), rows, scores, honest, train)


def test_scores(contender: Contender, test: Dataset) -> np.ndarray:
    mean = np.mean([stack.predict(test.features) for stack in contender.stacks], axis=0)
    return tempered(mean, contender.temperature) if test.task.of_classes else mean


def difference(judge: Judge, test: Dataset, own: tuple, other: tuple) -> dict:
    """Of (scores, predictions) under the metric: both values, the gain, and its standard error."""
    parts = left_out_parts(len(test), None)
    losses = [jackknifed(judge, test.target, *one, None, parts) for one in (own, other)]
    values = [judge.value(test.target, *one) for one in (own, other)]
    gain = -(losses[0] - losses[1])
    return {
        "own": values[0],
        "other": values[1],
        "gain": float(gain.mean()),
        "error": clustered_error(gain, parts),
    }


def search(folder: Path, name: str, trials: int, rows: int) -> dict:
    """One small search of a set with two classes."""
    frame, target = rows_of(folder, name)
    train_rows, test_rows = divided(frame, rows)
    advice = get_advice(train_rows, target, reading_of({"test_fraction": 0, "fixed": PLAN}))
    train, test = advice.training_rows(), tested(advice, test_rows, target)
    rec, study = advice.recommendation, optuna.create_study(sampler=optuna.samplers.RandomSampler(SEED))
    found = [trained(train, dict(rec.configuration), RECOMMENDED, 1)]
    for number in range(1, trials):
        configuration = {**rec.configuration, **rec.space.suggest(study.ask())}
        found.append(trained(train, configuration, f"trial {number}", 1))
    found = [
        one for one in found if np.isfinite(one.losses).all() and np.isfinite(one.cross_fitted_losses).all()
    ]
    whole = [*found, blend_of(found, train)] if len(found) > 1 else found
    scores = {one.name: test_scores(one, test) for one in whole}
    result: dict = {
        "rows": len(train),
        "test": len(test),
        "share": float(np.bincount(train.target).min() / len(train)),
    }
    for metric in OF_CLASSES:
        judge = Judge.of(metric_of(metric), train.task, train.classes, train.target)
        under = [judged_by(judge, replace_decision(one), train) for one in whole]
        divisors = {one.name: one.judged.divisors for one in under}
        plain, decided = (
            {n: (s, judge.decided(s, divisors[n] if tuned else ())) for n, s in scores.items()}
            for tuned in (0, 1)
        )
        by_loss, by_metric = select_winner(whole, train).winner, winner_by_metric(under, train, judge).winner
        best = min(found, key=lambda one: one.losses.mean()).name
        most = min(
            (one for one in under if one.name != BLEND), key=lambda one: one.judged.row_losses.mean()
        ).name
        result[metric] = {
            "winners": [by_metric, by_loss],
            "divisors": divisors[by_metric],
            "product": difference(judge, test, decided[by_metric], plain[by_loss]),
            "selected": [most, best],
            "selection": difference(judge, test, decided[most], decided[best]),
            "decision": difference(judge, test, decided[by_loss], plain[by_loss]),
        }
    return result


def replace_decision(contender: Contender) -> Contender:
    """As the rule would have it with a metric of decisions."""
    return replace(contender, configurations=({**contender.configurations[0], "decision": "for_metric"},))


def numbers(folder: Path, name: str, trials: int, rows: int) -> dict:
    """The recommendation as it is, and with the metric."""
    frame, target = rows_of(folder, name)
    train_rows, test_rows = divided(frame, rows)
    scores = {}
    for metric in (OF_NUMBERS, None):
        advice = get_advice(
            train_rows, target, reading_of({"test_fraction": 0, "fixed": PLAN, "metric": metric})
        )
        train, test = advice.training_rows(), tested(advice, test_rows, target)
        configuration = dict(advice.recommendation.configuration)
        one = trained(train, configuration, RECOMMENDED, 1)
        predicted = test_scores(one, test)
        scores[metric] = (predicted, predicted)
    judge = Judge.of(metric_of(OF_NUMBERS), test.task, (), train.target)
    found = difference(judge, test, scores[OF_NUMBERS], scores[None])
    squared = [float(np.mean((scores[one][0] - test.target) ** 2)) for one in (OF_NUMBERS, None)]
    return {"rows": len(train), "test": len(test), OF_NUMBERS: {"product": found, "squared": squared}}


def summary(gains: list[dict], relative: bool = False) -> str:
    """Mean gain over the sets with its standard error, and how often it is beyond two standard errors."""
    own = np.array([g["gain"] / (abs(g["other"]) if relative else 1.0) for g in gains])
    sure = np.array([g["gain"] / g["error"] if g["error"] > 0 else 0.0 for g in gains])
    spread = own.std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else np.nan
    unit = " of the error" if relative else ""
    return (
        f"{own.mean():+.4f}{unit} (± {spread:.4f}), better on {(own > 0).sum()} of {len(own)}, beyond two "
        f"standard errors on {(sure > 2).sum()}, worse beyond two on {(sure < -2).sum()}"
    )


def table_of(rows: list[dict]) -> str:
    """A line for each set and metric, then the means."""
    heads = (
        "set",
        "rarer class",
        "metric",
        "with it",
        "default",
        "gain",
        "error",
        "selected by it - by loss",
    )
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        for metric in (*OF_CLASSES, OF_NUMBERS):
            if metric in row:
                own, selection = row[metric]["product"], row[metric].get("selection")
                chosen = f"{selection['gain']:+.4f} ± {selection['error']:.4f}" if selection else ""
                share = f"{row['share']:.3f}" if "share" in row else ""
                values = f"{own['own']:.4g} | {own['other']:.4g} | {own['gain']:+.4g} | {own['error']:.2g}"
                lines.append(f"| {row['set']} | {share} | {metric} | {values} | {chosen} |")
    lines.append("")
    for title, names in (("imbalanced", RARE), ("other", EVEN)):
        part = [row for row in rows if row["set"] in names]
        for metric in OF_CLASSES if part else ():
            for what, words in (
                ("product", "with the metric against the default"),
                ("decision", "of this the decision alone"),
                ("selection", "trial selected by the metric against by the loss, both decided for it"),
            ):
                lines.append(f"- {title}, {metric}, {words}: {summary([row[metric][what] for row in part])}.")
    if part := [row for row in rows if row["set"] in NUMBERS]:
        lines.append(
            f"- {OF_NUMBERS}: {summary([row[OF_NUMBERS]['product'] for row in part], relative=True)}."
        )
    return "\n".join(lines)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--sets", nargs="*", default=[*sum(zip(RARE, NUMBERS, EVEN, strict=True), ())])
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")

    def measure(name: str) -> dict:
        how = numbers if name in NUMBERS else search
        return {"set": name, **how(options.data, name, options.trials, options.rows)}

    results = HERE / "results" / "metric.jsonl"
    go_on(results, "What --metric gains", ["set"], [(name,) for name in options.sets], measure, table_of)


if __name__ == "__main__":
    main()
