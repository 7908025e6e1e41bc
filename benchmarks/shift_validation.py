"""Which validation leads to the lower test loss where the test rows are later or otherwise different?

    python benchmarks/shift_validation.py # sets of ../shared/data with a natural shift, 3 seeds, 20
    trials python benchmarks/shift_validation.py --trials 0 # the recommendation alone, without a
    search python benchmarks/shift_validation.py --trials 0 --sets made-demand --ways random "later,
    no time" "later, held" "later, open"

Paired by seed, `tune` (or `fit`) with: random rows validating; random rows weighed by their likeness to the
test rows (validation_weights=like_test); the latest rows (--time-column), after which the model is trained
again. "random", "like test" and "later, no time" do not read the time, so that they differ in what validates
alone. "random, time a feature" and "later, open" read it as a number, "later, held" never as later than the
latest one trained on; "advised" is what the rules say: the latest rows, and the time held or not as the
training rows say. Of watch the test rows are of other persons: "advised" keeps whole persons together,
"random" does not know them. Every finished run is kept at once, and a second call goes on from there.
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
TIMES = {
    "nass-cds": "yearacc",
    "mpls-stops": "month",
    "flights-by-month": "month",
    "movies-by-year": "year",
    "chicago-ridership": "year",
}
MADE = {"made-demand": "stamp"}
GROUPED = {"watch": "group"}
WAYS = {
    "random": {"fixed": {"validation_weights": "equal"}},
    "like test": {"fixed": {"validation_weights": "like_test"}},
    "later, no time": {"fixed": {"time_trend": "none"}},
    "later, held": {"fixed": {"time_trend": "clamped"}},
    "later, open": {"fixed": {"time_trend": "unclamped"}},
    "advised": {},
    "random, time a feature": {"fixed": {"validation_weights": "equal"}},
}


def make_demand(folder: Path) -> None:
    """Every third hour of a year: a daily round, weekdays and a linear trend; the last 20 % are test rows."""
    draw, rows = np.random.default_rng(0), 3000
    stamp = np.datetime64("2025-01-01T00:00") + np.arange(rows) * np.timedelta64(3, "h")
    days = np.arange(rows) / 8
    weekend = np.isin((days.astype(int) + 2) % 7, (5, 6))  # the first of January 2025 was a Wednesday
    temperature = 10 + 10 * np.sin(2 * np.pi * days / 365) + draw.normal(0, 2, rows)
    rain = draw.random(rows) < 0.2
    y = (
        100
        + 0.08 * days
        + 30 * np.sin(2 * np.pi * days)
        - 20 * weekend
        + temperature
        - 10 * rain
        + draw.normal(0, 3, rows)
    )
    lines = [f"{s},{t:.2f},{r:d},{v:.2f}" for s, t, r, v in zip(stamp, temperature, rain, y, strict=True)]
    for name, part in (("train", lines[: rows * 4 // 5]), ("test", lines[rows * 4 // 5 :])):
        (folder / f"{name}.csv").write_text("\n".join(["stamp,temperature,rain,demand", *part]) + "\n")
    (folder / "meta.yaml").write_text("target: demand\n")


def table_source(folder: Path, way: str) -> tuple[Path, str, dict]:
    """The training rows, the target and the options of a way."""
    target, column = yaml.safe_load((folder / "meta.yaml").read_text())["target"], (TIMES | MADE)[folder.name]
    options = {"test": folder / "test.csv"}
    if way == "advised" or way.startswith("later"):
        options["time_column"] = column
    else:  # a type of one's own: else the column becomes the time column by itself
        kind = "datetime" if folder.name in MADE else "numeric"
        options["types"] = {column: kind if way == "random, time a feature" else "identifier"}
    return folder / "train.csv", target, options


def grouped_source(folder: Path, way: str, out: Path) -> tuple[Path, None, dict]:
    """The same of sequences in groups; without these for "random"."""
    if way == "advised":
        return folder / "data.npz", None, {}
    arrays = dict(np.load(folder / "data.npz"))
    np.savez(
        out / "data.npz",
        **{name: array for name, array in arrays.items() if not name.startswith(GROUPED[folder.name])},
    )
    return out / "data.npz", None, {}


def measure(folder: Path, seed: int, trials: int, way: str) -> dict:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        grouped = folder.name in GROUPED
        source, target, options = (
            grouped_source(folder, way, Path(out)) if grouped else table_source(folder, way)
        )
        options |= {"out": Path(out) / "run", "seed": seed, **WAYS[way]}
        if trials:
            run = advisor.tune(source, target, trials=trials, executor="in-process", **options)
        else:
            run = advisor.train(source, target, **options)
    results, estimate = run.document["test"]["results"], run.document["estimate"]
    loss, final = results[0]["loss"], run.document["final"]
    return {
        "set": folder.name,
        "seed": seed,
        "trials": trials,
        "way": way,
        "loss": loss,
        "promised": estimate["mean"],
        "covered": estimate["low"] <= loss <= estimate["high"],
        "seconds": time.monotonic() - begun,
        "winner": final["winner"],
        "contenders": {
            c["name"]: {key: c[key] for key in ("held_out_loss", "difference")} for c in final["contenders"]
        },
        "test_losses": {result["name"]: result["loss"] for result in results},
    }


def table_of(rows: list[dict]) -> str:
    lines = [
        "| set | trials | seeds | way | test loss / random | lower in | promised / test loss | covered |"
    ]
    lines.append("|" + "---|" * 8)
    found = {(row["set"], row["trials"], row["way"], row["seed"]): row for row in rows}
    means: dict[tuple[int, str], list[float]] = {}
    for name, trials in sorted(
        {(row["set"], row["trials"]) for row in rows}, key=lambda key: (key[1], key[0])
    ):
        for way in WAYS:
            pairs = [
                (row, found[name, trials, "random", seed])
                for (of, its, how, seed), row in found.items()
                if (of, its, how) == (name, trials, way) and (name, trials, "random", seed) in found
            ]
            if not pairs:
                continue
            logs = np.log([row["loss"] / other["loss"] for row, other in pairs])
            if way != "random" and name not in MADE:
                means.setdefault((trials, way), []).append(float(logs.mean()))
            kept = np.exp(np.mean(np.log([row["promised"] / row["loss"] for row, _ in pairs])))
            lines.append(
                f"| {name} | {trials} | {len(pairs)} | {way} | {np.exp(logs.mean()):.3f} | "
                f"{(logs < 0).sum()} of {len(logs)} "
                f"| {kept:.2f} | {sum(row['covered'] for row, _ in pairs)} of {len(pairs)} |"
            )
    lines.append("")
    for (trials, way), logs in sorted(means.items()):
        mean, lower = np.exp(np.mean(logs)), (np.array(logs) < 0).sum()
        lines.append(
            f"{trials} trials, {way} / random: geometric mean {mean:.3f} over {len(logs)} sets, lower on "
            f"{lower}."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--sets", nargs="*", default=[*TIMES, *GROUPED])
    parser.add_argument("--ways", nargs="*", default=["random", "random, time a feature", "advised"])
    arguments = parser.parse_args()

    def measured(trials: int, seed: int, name: str, way: str) -> dict:
        with tempfile.TemporaryDirectory() as made:
            kind = "sequences" if name in GROUPED else "tables"
            folder = (Path(made) if name in MADE else arguments.data / kind) / name
            if name in MADE:
                folder.mkdir()
                make_demand(folder)
            return measure(folder, seed, trials, way)

    go_on(
        HERE / "results" / "shift_validation.jsonl",
        "Validation where the test rows are later",
        ("trials", "seed", "set", "way"),
        (
            (arguments.trials, seed, name, way)
            for seed, name, way in itertools.product(range(arguments.seeds), arguments.sets, arguments.ways)
            if name not in GROUPED or way in ("random", "advised")
        ),
        measured,
        table_of,
    )


if __name__ == "__main__":
    main()
