"""Does validation that looks like the test rows lead to a lower test loss? Only sets where the advice changes the plan.

    python benchmarks/shift_validation.py              # sets of ../shared/data/tables with a natural shift, 3 seeds
    python benchmarks/shift_validation.py --trials 0   # the recommendation alone, without a search

Paired by seed: `tune` (or `fit`) as advised, and with validation_weights fixed to equal. Every finished (set, seed, trials)
is kept at once, and a second call goes on from there.
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
SETS = ["chicago-ridership", "cps-wages-9204", "nass-cds", "mpls-stops", "flights-by-month", "movies-by-year"]


def measure(folder: Path, seed: int, trials: int) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    row = {"set": folder.name, "seed": seed, "trials": trials}
    options = {"test": folder / "test.csv", "seed": seed}
    advised = advisor.recommend(folder / "train.csv", target, **options).configuration["validation_weights"]
    row["advised"] = advised
    if advised == "equal":  # nothing to compare
        return row
    for name, fixed in (("like_test", {}), ("equal", {"validation_weights": "equal"})):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as out:
            options |= {"fixed": fixed, "out": Path(out) / "run"}
            if trials:
                run = advisor.tune(folder / "train.csv", target, trials=trials, **options)
            else:
                run = advisor.fit(folder / "train.csv", target, **options)
        row[name] = run.document["test"]["results"][0]["loss"]
        row[f"{name}_promised"] = run.document["estimate"]["mean"]
        row[f"{name}_seconds"] = time.monotonic() - begun
    return row


def table_of(rows: list[dict]) -> str:
    lines = ["| set | trials | seeds | like the test | equal | ratio | promised / test: like the test | equal |"]
    lines.append("|" + "---|" * 8)
    ratios = []
    for name, trials in sorted({(row["set"], row["trials"]) for row in rows}):
        own = [row for row in rows if (row["set"], row["trials"]) == (name, trials)]
        if own[0]["advised"] == "equal":
            lines.append(f"| {name} | {trials} | {len(own)} | the advice is equal weights | | | | |")
            continue
        like, equal = (np.array([row[key] for row in own]) for key in ("like_test", "equal"))
        kept = [np.mean([row[f"{key}_promised"] / row[key] for row in own]) for key in ("like_test", "equal")]
        ratios.append(float(np.exp(np.mean(np.log(like / equal)))))
        lines.append(
            f"| {name} | {trials} | {len(own)} | {like.mean():.4g} | {equal.mean():.4g} | {ratios[-1]:.3f} "
            f"| {kept[0]:.2f} | {kept[1]:.2f} |"
        )
    if ratios:
        lower = sum(ratio < 1 for ratio in ratios)
        lines += ["", f"Geometric mean of the ratios {np.exp(np.mean(np.log(ratios))):.3f}; lower on {lower} of {len(ratios)}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    results = HERE / "results" / "shift_validation.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["set"], row["seed"], row["trials"]) for row in rows}
    for seed in range(arguments.seeds):
        for name in arguments.sets:
            if (name, seed, arguments.trials) in done:
                continue
            rows.append(measure(arguments.data / name, seed, arguments.trials))
            with results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
            results.with_suffix(".md").write_text(f"# Validation that looks like the test rows\n\n{table_of(rows)}\n")
    print(table_of(rows))


if __name__ == "__main__":
    main()
