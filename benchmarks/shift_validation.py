"""Which validation leads to the lower test loss where the test rows are later or otherwise different?

    python benchmarks/shift_validation.py              # sets of ../shared/data/tables with a natural shift, 3 seeds, 20 trials
    python benchmarks/shift_validation.py --trials 0   # the recommendation alone, without a search

Paired by seed, `tune` (or `fit`) with: random rows validating; random rows weighed by their likeness to the test rows
(validation_weights=like_test); the latest rows (--time-column), after which the model is trained again on all. "random", "like
test" and "later, no time" do not read the time, so that they differ in what validates alone. "random, time a feature" and
"later, open" read it as a number, "later, held" never as later than the latest one trained on; "later", as advised, begins with
"later, no time" and searches between the two. Every finished run is kept at once, and a second call goes on from there.
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
TIMES = {
    "nass-cds": "yearacc",
    "mpls-stops": "month",
    "flights-by-month": "month",
    "movies-by-year": "year",
    "chicago-ridership": "year",
}
WAYS = {
    "random": {"fixed": {"validation_weights": "equal"}},
    "like test": {"fixed": {"validation_weights": "like_test"}},
    "later, no time": {"fixed": {"time_trend": "none"}},
    "later, held": {"fixed": {"time_trend": "held"}},
    "later, open": {"fixed": {"time_trend": "open"}},
    "later": {},
    "random, time a feature": {"fixed": {"validation_weights": "equal"}},
}


def measure(folder: Path, seed: int, trials: int, way: str) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    options = {"test": folder / "test.csv", "seed": seed, **WAYS[way]}
    if way.startswith("later"):
        options["time_column"] = TIMES[folder.name]
    else:  # a type of one's own: else the column becomes the time column by itself
        options["types"] = {TIMES[folder.name]: "numeric" if way == "random, time a feature" else "identifier"}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        options["out"] = Path(out) / "run"
        if trials:
            run = advisor.tune(folder / "train.csv", target, trials=trials, executor="in-process", **options)
        else:
            run = advisor.fit(folder / "train.csv", target, **options)
    loss, estimate = run.document["test"]["results"][0]["loss"], run.document["estimate"]
    return {
        "set": folder.name,
        "seed": seed,
        "trials": trials,
        "way": way,
        "loss": loss,
        "promised": estimate["mean"],
        "covered": estimate["low"] <= loss <= estimate["high"],
        "seconds": time.monotonic() - begun,
    }


def table_of(rows: list[dict]) -> str:
    lines = ["| set | trials | seeds | way | test loss / random | lower in | promised / test loss | covered |"]
    lines.append("|" + "---|" * 8)
    found = {(row["set"], row["trials"], row["way"], row["seed"]): row for row in rows}
    means: dict[tuple[int, str], list[float]] = {}
    for name, trials in sorted({(row["set"], row["trials"]) for row in rows}, key=lambda key: (key[1], key[0])):
        for way in WAYS:
            pairs = [
                (row, found[name, trials, "random", seed])
                for (of, its, how, seed), row in found.items()
                if (of, its, how) == (name, trials, way) and (name, trials, "random", seed) in found
            ]
            if not pairs:
                continue
            logs = np.log([row["loss"] / other["loss"] for row, other in pairs])
            if way != "random":
                means.setdefault((trials, way), []).append(float(logs.mean()))
            kept = np.exp(np.mean(np.log([row["promised"] / row["loss"] for row, _ in pairs])))
            lines.append(
                f"| {name} | {trials} | {len(pairs)} | {way} | {np.exp(logs.mean()):.3f} | {(logs < 0).sum()} of {len(logs)} "
                f"| {kept:.2f} | {sum(row['covered'] for row, _ in pairs)} of {len(pairs)} |"
            )
    lines.append("")
    for (trials, way), logs in sorted(means.items()):
        mean, lower = np.exp(np.mean(logs)), (np.array(logs) < 0).sum()
        lines.append(f"{trials} trials, {way} / random: geometric mean {mean:.3f} over {len(logs)} sets, lower on {lower}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--sets", nargs="*", default=list(TIMES))
    parser.add_argument("--ways", nargs="*", default=["random", "random, time a feature", "later"])
    arguments = parser.parse_args()
    results = HERE / "results" / "shift_validation.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["set"], row["seed"], row["trials"], row["way"]) for row in rows}
    for seed in range(arguments.seeds):
        for name in arguments.sets:
            for way in arguments.ways:
                if (name, seed, arguments.trials, way) in done:
                    continue
                rows.append(measure(arguments.data / name, seed, arguments.trials, way))
                with results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), flush=True)
                results.with_suffix(".md").write_text(f"# Validation where the test rows are later\n\n{table_of(rows)}\n")
    print(table_of(rows))


if __name__ == "__main__":
    main()
