"""Where nothing can be learnt, tuning must return the recommendation (D13): how often it does.

    python benchmarks/pure_noise.py # 100 seeds of tables whose target is noise; results/pure_noise.md python
    benchmarks/pure_noise.py --seeds 300 # goes on from there

By turns a binary, a three-class and a regression target, 100 rows, 5 columns; 10 trials in this process, 10
epochs each. What it must reach: the recommendation in at least 95 % of the seeds, up to what chance allows:
the bar is missed where so few or fewer would come of a true 95 % in less than one of a hundred such
benchmarks (binomial). Every finished seed is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from resumable import go_on
from scipy.stats import binom

import advisor

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "pure_noise.jsonl"
TASKS = ("binary", "multiclass", "regression")
ROWS, WIDTH, TRIALS, EPOCHS = 100, 5, 10, 10
PROMISED, CHANCE = 0.95, 0.01


def measure(seed: int) -> dict:
    task, rng = TASKS[seed % len(TASKS)], np.random.default_rng(seed)
    columns = {f"x{j}": rng.normal(size=ROWS) for j in range(WIDTH)}
    words = rng.choice(["a", "b", "c"] if task == "multiclass" else ["a", "b"], ROWS)
    frame = pl.DataFrame(columns | {"y": rng.normal(size=ROWS) if task == "regression" else words})
    with tempfile.TemporaryDirectory() as out:
        run = advisor.tune(
            frame,
            "y",
            trials=TRIALS,
            seed=seed,
            out=Path(out) / "run",
            executor="in-process",
            fixed={"epochs": EPOCHS},
        )
    final = run.document["final"]
    return {"seed": seed, "task": task, "winner": final["winner"], "reason": final["reason"]}


def table_of(rows: list[dict]) -> str:
    lines = ["| target | seeds | recommendation kept | at least | met |", "|" + "---|" * 5]
    for task in (*TASKS, "all"):
        own = [row for row in rows if task in (row["task"], "all")]
        if own:
            kept, least = (
                sum(row["winner"] == "recommendation" for row in own),
                int(binom.ppf(CHANCE, len(own), PROMISED)),
            )
            verdict = "yes" if kept >= least else "no"
            lines.append(f"| {task} | {len(own)} | {kept} ({kept / len(own):.0%}) | {least} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    seeds = ((seed,) for seed in range(arguments.seeds))
    go_on(arguments.results, "Targets that are noise", ("seed",), seeds, measure, table_of)


if __name__ == "__main__":
    main()
