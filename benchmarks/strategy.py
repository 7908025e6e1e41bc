"""A staged search (note N24: first learn, then regularize, then layers) against a joint one, at the same number of trials.

    python benchmarks/strategy.py                    # 20 trials, 6 small sets of ../shared/data/tables, 3 seeds
    python benchmarks/strategy.py --trials 50 100

Each run is `tune` in this process on the training part alone: a quarter of its rows, drawn by the seed, is the test, so that
no test part takes a part in choosing the default. Paired by set and seed; every finished pair is kept at once, and a second
call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

import advisor

HERE = Path(__file__).resolve().parent
SETS = ["vehicle", "german", "concrete", "oj", "contraceptive", "diabetes"]


def measure(folder: Path, seed: int, trials: int) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    row: dict = {"set": folder.name, "seed": seed, "trials": trials}
    for strategy in ("joint", "staged"):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as out:
            options = {"out": Path(out) / "run", "seed": seed, "test_fraction": 0.25, "strategy": strategy}
            run = advisor.tune(folder / "train.csv", target, trials=trials, executor="in-process", **options)
        values = [trial["value"] for trial in run.document["search"]["trials"] if trial["end"] == "complete"]
        row |= {
            f"{strategy}_best": min(values),
            f"{strategy}_test": run.document["test"]["results"][0]["loss"],
            f"{strategy}_seconds": time.monotonic() - begun,
        }
    return row


def table_of(rows: list[dict]) -> str:
    lines = ["| trials | pairs | best validation loss, staged / joint | staged better | test loss | time |"]
    lines.append("|" + "---|" * 6)
    for trials in sorted({row["trials"] for row in rows}):
        own = [row for row in rows if row["trials"] == trials]
        logs = {
            what: np.log([row[f"staged_{what}"] / row[f"joint_{what}"] for row in own]) for what in ("best", "test", "seconds")
        }
        error = logs["best"].std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else float("nan")
        low, high = np.exp(logs["best"].mean() - 2 * error), np.exp(logs["best"].mean() + 2 * error)
        lines.append(
            f"| {trials} | {len(own)} | {np.exp(logs['best'].mean()):.3f} ({low:.3f} to {high:.3f}) "
            f"| {(logs['best'] < 0).mean():.0%} | {np.exp(logs['test'].mean()):.3f} | {np.exp(logs['seconds'].mean()):.2f} |"
        )
    return "\n".join([*lines, "", "Geometric means; in brackets two standard errors either way."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--trials", type=int, nargs="*", default=[20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "strategy.jsonl")
    arguments = parser.parse_args()
    results = arguments.results
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["set"], row["seed"], row["trials"]) for row in rows}
    for trials in arguments.trials:
        for seed in range(arguments.seeds):
            for name in arguments.sets:
                if (name, seed, trials) in done:
                    continue
                rows.append(measure(arguments.data / name, seed, trials))
                with results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), flush=True)
                results.with_suffix(".md").write_text(f"# Staged against joint\n\n{table_of(rows)}\n")
    print(table_of(rows))


if __name__ == "__main__":
    main()
