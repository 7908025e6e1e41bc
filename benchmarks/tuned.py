"""40 trials against the recommendation, and whether the promised interval holds the test loss.

    python benchmarks/tuned.py # 10 small sets of ../shared/data/tables, 3 seeds, 40 trials each

For each set and seed: `tune` in this process, and `train` (the recommendation alone) on the same training
rows; both are judged on the same test rows. Differences are given in standard errors, over the seeds and over
the test rows. Seconds are of the processor, for the search and its final. Every finished (set, seed) is kept
at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from resumable import go_on

import advisor

HERE = Path(__file__).resolve().parent
SETS = [
    "wine",
    "sonar",
    "hitters",
    "diabetes",
    "vehicle",
    "concrete",
    "german",
    "oj",
    "yeast4",
    "contraceptive",
]


def measure(folder: Path, seed: int, trials: int) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    options = {"test": folder / "test.csv", "seed": seed, "progress": False}
    with tempfile.TemporaryDirectory() as out:
        begun = time.process_time()
        searched = advisor.tune(
            folder / "train.csv",
            target,
            trials=trials,
            executor="in-process",
            out=Path(out) / "tuned",
            **options,
        )
        seconds = time.process_time() - begun
        fitted = advisor.train(folder / "train.csv", target, out=Path(out) / "alone", **options)
        by_row = losses_of(searched.model, folder / "test.csv") - losses_of(fitted.model, folder / "test.csv")
    tuned, alone = searched.document, fitted.document
    estimate, network = tuned["estimate"], tuned["test"]["results"][0]["loss"]
    final = {c["name"]: c["held_out_loss"] for c in tuned["final"]["contenders"]}
    return {
        "set": folder.name,
        "seed": seed,
        "trials": len(tuned["search"]["trials"]),
        "winner": tuned["final"]["winner"],
        "tuned": network,
        "recommendation": alone["test"]["results"][0]["loss"],
        "held_out_tuned": final[tuned["final"]["winner"]],
        "held_out_recommendation": final["recommendation"],
        "covered": estimate["low"] <= network <= estimate["high"],
        "seconds": seconds,
        "difference_by_row": [float(f"{value:.5g}") for value in by_row],
    }


def losses_of(model: Any, path: Path) -> np.ndarray:
    """The model's loss on each test row: log loss, or squared error."""
    frame = pl.read_csv(path, infer_schema_length=None)
    target = frame[model.schema.target]
    if model.schema.task == "regression":
        return np.square(model.predict(frame) - target.to_numpy())
    codes = target.cast(pl.String).replace_strict(
        {str(label): code for code, label in enumerate(model.classes)}
    )
    return -np.log(np.clip(model.predict_proba(frame)[np.arange(len(codes)), codes.to_numpy()], 1e-12, 1))


def table_of(rows: list[dict]) -> str:
    lines = [
        "| set | runs | tuned | recommendation | tuned / rec. | s.e. over seeds | s.e. over rows | winners "
        "| s |"
    ]
    lines.append("|" + "---|" * 9)
    better = worse = worse_by_seeds = 0
    for name in sorted({row["set"] for row in rows}):
        own = [row for row in rows if row["set"] == name]
        tuned, advised = (np.array([row[key] for row in own]) for key in ("tuned", "recommendation"))
        difference = (tuned - advised).mean()
        over_seeds = (tuned - advised).std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else 0.0
        # all seeds share the test rows: what other rows would have said is the larger doubt
        by_row = np.mean([row["difference_by_row"] for row in own], axis=0)
        over_rows = by_row.std(ddof=1) / np.sqrt(len(by_row))
        better += difference < 0
        worse += bool(difference > 2 * np.hypot(over_seeds, over_rows))
        worse_by_seeds += len(own) > 1 and bool(difference > 2 * over_seeds)
        winners = ", ".join(row["winner"] for row in own)
        lines.append(
            f"| {name} | {len(own)} | {tuned.mean():.4g} | {advised.mean():.4g} | "
            f"{tuned.mean() / advised.mean():.3f} "
            f"| {difference / over_seeds if over_seeds else 0:.1f} | {difference / over_rows:.1f} | "
            f"{winners} "
            f"| {np.mean([r['seconds'] for r in own]):.0f} |"
        )
    sets = len({row["set"] for row in rows})
    ratios = [row["tuned"] / row["recommendation"] for row in rows]
    return "\n".join(
        [
            *lines,
            "",
            f"{sets} sets, {len(rows)} runs. Tuned is better on {better} of {sets} sets, worse beyond two "
            "standard errors "
            f"on {worse} (of the seeds alone: on {worse_by_seeds}). "
            f"Geometric mean of tuned / recommendation {np.exp(np.mean(np.log(ratios))):.3f}.",
            "The 90 % interval covered the winner's test loss in "
            f"{np.mean([r['covered'] for r in rows]):.0%} of runs.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "tuned.jsonl")
    arguments = parser.parse_args()
    go_on(
        arguments.results,
        "Tuned against recommended",
        ("seed", "set"),
        itertools.product(range(arguments.seeds), arguments.sets),
        lambda seed, name: measure(arguments.data / name, seed, arguments.trials),
        table_of,
    )


if __name__ == "__main__":
    main()
