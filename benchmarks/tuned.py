"""40 trials against the recommendation, and whether the promised interval holds the test loss.

    python benchmarks/tuned.py                 # 10 small sets of ../shared/data/tables, 3 seeds, 40 trials each

For each set and seed: `tune` on Ray, and `fit` (the recommendation alone) on the same training rows; both are judged on
the same test rows. Every finished (set, seed) is kept at once, and a second call goes on from there.
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
SETS = ["wine", "sonar", "hitters", "diabetes", "vehicle", "concrete", "german", "oj", "yeast4", "contraceptive"]


def measure(folder: Path, seed: int, trials: int) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    options = {"test": folder / "test.csv", "seed": seed}
    with tempfile.TemporaryDirectory() as out:
        begun = time.monotonic()
        tuned = advisor.tune(folder / "train.csv", target, trials=trials, out=Path(out) / "tuned", **options).document
        seconds = time.monotonic() - begun
        alone = advisor.fit(folder / "train.csv", target, out=Path(out) / "alone", **options).document
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
    }


def table_of(rows: list[dict]) -> str:
    lines = ["| set | runs | tuned | recommendation | tuned / rec. | difference in s.e. | winners | s |"]
    lines.append("|" + "---|" * 8)
    better = worse = 0
    for name in sorted({row["set"] for row in rows}):
        own = [row for row in rows if row["set"] == name]
        tuned, advised = (np.array([row[key] for row in own]) for key in ("tuned", "recommendation"))
        difference = tuned - advised
        error = difference.std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else float("nan")
        better += difference.mean() < 0
        worse += bool(difference.mean() > 2 * error)
        winners = ", ".join(row["winner"] for row in own)
        lines.append(
            f"| {name} | {len(own)} | {tuned.mean():.4g} | {advised.mean():.4g} | {tuned.mean() / advised.mean():.3f} "
            f"| {difference.mean() / error if error else 0:.1f} | {winners} | {np.mean([r['seconds'] for r in own]):.0f} |"
        )
    sets = len({row["set"] for row in rows})
    ratios = [row["tuned"] / row["recommendation"] for row in rows]
    return "\n".join(
        [
            *lines,
            "",
            f"{sets} sets, {len(rows)} runs. Tuned is better on {better} of {sets} sets, worse beyond two standard errors "
            f"on {worse}. Geometric mean of tuned / recommendation {np.exp(np.mean(np.log(ratios))):.3f}.",
            f"The 90 % interval covered the winner's test loss in {np.mean([r['covered'] for r in rows]):.0%} of runs.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "tuned.jsonl")
    arguments = parser.parse_args()
    results = arguments.results
    results.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["set"], row["seed"]) for row in rows}
    for seed in range(arguments.seeds):
        for name in arguments.sets:
            if (name, seed) in done:
                continue
            rows.append(measure(arguments.data / name, seed, arguments.trials))
            with results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
            results.with_suffix(".md").write_text(f"# Tuned against recommended\n\n{table_of(rows)}\n")
    print(table_of(rows))


if __name__ == "__main__":
    main()
