"""Ways to search, at the same number of trials: ranges as advised, ranges that learning
curves move (the default), in stages.

    python benchmarks/strategy.py # 20 trials, 6 small sets of ../shared/data/tables, 3 seeds python
    benchmarks/strategy.py --trials 50 100

as advised: `adapt=False`. adapted: the ranges of later trials are moved by what the curves of finished ones
say (notes N24, N26). staged: that, and first what makes it learn, then what regularizes, then the layers
(N24). Each run is `tune` in this process on the training part alone: a quarter of its rows, drawn by the
seed, is the test, so that no test part takes a part in choosing the default. Paired by set and seed with "as
advised"; every finished run is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from resumable import go_on

import advisor

HERE = Path(__file__).resolve().parent
SETS = ["vehicle", "german", "concrete", "oj", "contraceptive", "diabetes"]
WAYS = {
    "as advised": {"adapt": False},
    "adapted": {},
    "staged": {"strategy": "staged"},
}


def measure(folder: Path, seed: int, trials: int, way: str) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        options = {"out": Path(out) / "run", "seed": seed, "test_fraction": 0.25, **WAYS[way]}
        run = advisor.tune(folder / "train.csv", target, trials=trials, executor="in-process", **options)
    found = run.document["search"]
    return {
        "set": folder.name,
        "seed": seed,
        "trials": trials,
        "way": way,
        "best": min(trial["value"] for trial in found["trials"] if trial["end"] == "complete"),
        "test": run.document["test"]["results"][0]["loss"],
        "seconds": time.monotonic() - begun,
        "moved": [moved["parameter"] for moved in found["adjustments"]],
    }


def table_of(rows: list[dict]) -> str:
    lines = [
        "| trials | way | pairs | best validation loss / as advised | better in | test loss | time | ranges "
        "moved in |"
    ]
    lines.append("|" + "---|" * 8)
    found = {(row["trials"], row["way"], row["set"], row["seed"]): row for row in rows}
    for trials in sorted({row["trials"] for row in rows}):
        for way in list(WAYS)[1:]:
            pairs = [
                (row, found[trials, "as advised", *key])
                for (of, its, *key), row in found.items()
                if (of, its) == (trials, way) and (trials, "as advised", *key) in found
            ]
            if not pairs:
                continue
            logs = {
                what: np.log([a[what] / b[what] for a, b in pairs]) for what in ("best", "test", "seconds")
            }
            error = logs["best"].std(ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else float("nan")
            low, high = np.exp(logs["best"].mean() - 2 * error), np.exp(logs["best"].mean() + 2 * error)
            lines.append(
                f"| {trials} | {way} | {len(pairs)} | {np.exp(logs['best'].mean()):.3f} ({low:.3f} to "
                f"{high:.3f}) "
                f"| {(logs['best'] < 0).mean():.0%} | {np.exp(logs['test'].mean()):.3f} | "
                f"{np.exp(logs['seconds'].mean()):.2f} "
                f"| {sum(bool(a['moved']) for a, _ in pairs)} |"
            )
    return "\n".join(
        [
            *lines,
            "",
            "Geometric means of ratios, below 1 is better; in brackets two standard errors either way.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--trials", type=int, nargs="*", default=[20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "strategy.jsonl")
    arguments = parser.parse_args()
    data, seeds = arguments.data, range(arguments.seeds)
    go_on(
        arguments.results,
        "Ways to search",
        ("trials", "seed", "set", "way"),
        itertools.product(arguments.trials, seeds, arguments.sets, WAYS),
        lambda trials, seed, name, way: measure(data / name, seed, trials, way),
        table_of,
    )


if __name__ == "__main__":
    main()
