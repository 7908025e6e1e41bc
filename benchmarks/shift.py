"""Planted shifts: false alarms and power of the detector, against each single test at the same 5 %.

    python benchmarks/shift.py                  # repetitions in turn, until stopped or --repetitions are done
    python benchmarks/shift.py --seconds 300    # ... or this many seconds have passed
    python benchmarks/shift.py --shifts none    # ... of these shifts alone: false alarms need more than power
    python benchmarks/shift.py --natural        # which development sets have test rows that look different

20 correlated Gaussian columns. Single tests: Kolmogorov-Smirnov with Bonferroni (a chi-squared test joins
it for the new level), and held-out accuracy (half of the rows, binomial) of a logistic and a forest
domain classifier. Every finished repetition is kept in results/shift.jsonl at once and a second call goes
on; the tables are in results/shift.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from resumable import keep, kept
from scipy.stats import binom, fisher_exact, ks_2samp
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from advisor.data.options import ReadingOptions
from advisor.data.tables.table import load_table
from advisor.facts.shift.shift import measure_shift

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "shift.jsonl"
NATURAL = HERE / "results" / "shift_natural.jsonl"
WIDTH, LEVEL = 20, 0.05
SIZES = (500, 2000)
SHIFTS = ("none", "one mean", "all means", "tenth of rows", "variance", "correlation", "new level")
FALSE_ALARMS, POWER = 0.07, 0.95
METHODS = ("advisor", "ks", "logistic", "forest")


def covariance() -> np.ndarray:
    """One fixed correlation matrix: absolute correlations of about 0.2 on average."""
    mix = np.random.default_rng(0).normal(size=(WIDTH, WIDTH))
    product = mix @ mix.T
    scale = np.sqrt(np.diag(product))
    return product / np.outer(scale, scale)


def sides(shift: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples; of "new level" the last column is a category code, of which the
    second side has a new one in 2 %."""
    rng = np.random.default_rng([seed, rows, SHIFTS.index(shift)])
    root = np.linalg.cholesky(covariance() + 1e-9 * np.eye(WIDTH))
    old, new = (rng.normal(size=(rows, WIDTH)) @ root.T for _ in range(2))
    if shift == "one mean":
        new[:, 0] += 0.3
    elif shift == "all means":
        new += 0.1
    elif shift == "tenth of rows":
        new[: rows // 10, :5] += 1.5
    elif shift == "variance":
        new[:, :5] *= np.sqrt(1.2)
    elif shift == "correlation":
        new = rng.normal(size=(rows, WIDTH))
    elif shift == "new level":
        old[:, -1], new[:, -1] = rng.integers(0, 5, (2, rows))
        new[: rows // 50, -1] = 5
    return old, new


def singles(old: np.ndarray, new: np.ndarray, shift: str, seed: int) -> dict[str, bool]:
    p = [ks_2samp(old[:, j], new[:, j], method="asymp").pvalue for j in range(WIDTH)]
    if shift == "new level":
        p[-1] = fisher_exact([[len(old), 0], [(new[:, -1] < 5).sum(), (new[:, -1] == 5).sum()]])[1]
    x, label = np.concatenate([old, new]), np.repeat([0, 1], [len(old), len(new)])
    order = np.random.default_rng(seed).permutation(len(x))
    train, held = order[: len(x) // 2], order[len(x) // 2 :]
    result = {"ks": bool(min(p) <= LEVEL / WIDTH)}
    models = {
        "logistic": LogisticRegression(max_iter=1000),
        "forest": RandomForestClassifier(50, random_state=seed),
    }
    for name, model in models.items():
        hits = int((model.fit(x[train], label[train]).predict(x[held]) == label[held]).sum())
        result[name] = bool(binom.sf(hits - 1, len(held), 0.5) <= LEVEL)
    return result


def table_of(side: np.ndarray, shift: str) -> pl.DataFrame:
    data = pl.DataFrame({f"x{j}": side[:, j] for j in range(WIDTH)} | {"y": np.arange(len(side)) % 2})
    if shift == "new level":
        data = data.with_columns(
            pl.format("level{}", pl.col(f"x{WIDTH - 1}").cast(pl.Int64)).alias(f"x{WIDTH - 1}")
        )
    return data


def repetition(shift: str, rows: int, seed: int) -> dict:
    old, new = sides(shift, rows, seed)
    table = load_table(table_of(old, shift), "y", ReadingOptions(test=table_of(new, shift)))
    begun = time.monotonic()
    values = measure_shift(table)[0]
    seconds = time.monotonic() - begun
    found = {"advisor": values["shift.detected"], "tests": values["shift.tests"], "auc": values["shift.auc"]}
    return {
        "shift": shift,
        "rows": rows,
        "seed": seed,
        "seconds": seconds,
        **found,
        **singles(old, new, shift, seed),
    }


def planted_table(rows: list[dict]) -> str:
    lines = [
        "| shift | rows | repetitions | advisor | KS | logistic | forest | bar | met | s |",
        "|" + "---|" * 10,
    ]
    for shift in SHIFTS:
        for size in SIZES:
            own = [row for row in rows if row["shift"] == shift and row["rows"] == size]
            if not own:
                continue
            rate = {name: float(np.mean([row[name] for row in own])) for name in METHODS}
            none = shift == "none"
            bar = FALSE_ALARMS if none else POWER * max(rate[name] for name in METHODS[1:])
            met = rate["advisor"] <= bar if none else rate["advisor"] >= bar
            rates = " | ".join(f"{rate[name]:.2f}" for name in METHODS)
            seconds = np.median([row["seconds"] for row in own])
            sign = "at most" if none else "at least"
            lines.append(
                f"| {shift} | {size} | {len(own)} | {rates} | {sign} {bar:.2f} | {'yes' if met else 'no'} | "
                f"{seconds:.1f} |"
            )
    return "\n".join(lines)


def natural(folder: Path) -> dict:
    """Whether test.csv looks different from train.csv; the test target is read by nothing here."""
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    table = load_table(folder / "train.csv", meta["target"], ReadingOptions(test=folder / "test.csv"))
    begun = time.monotonic()
    values = measure_shift(table)[0]
    names = (
        "detected",
        "tests",
        "auc",
        "auc_low",
        "auc_high",
        "max_psi",
        "overlap",
        "new_level_share",
        "out_of_range_share",
    )
    row = {
        "set": folder.name,
        "said": "shift" in json.dumps(meta, default=str),
        "seconds": time.monotonic() - begun,
    }
    return row | {name: values[f"shift.{name}"] for name in names} | {"period": values["columns.separating"]}


def natural_table(rows: list[dict]) -> str:
    lines = [
        "| set | split said to shift | detected | by | AUC (95 %) | PSI | overlap | period columns | s |",
        "|" + "---|" * 9,
    ]
    for row in sorted(rows, key=lambda row: (not row["said"], row["set"])):
        area = f"{row['auc']:.3f} ({row['auc_low']:.3f} to {row['auc_high']:.3f})"
        lines.append(
            f"| {row['set']} | {'yes' if row['said'] else 'no'} | {'yes' if row['detected'] else 'no'} "
            f"| {', '.join(row['tests'])} | {area} | {row['max_psi']:.2f} | {row['overlap']:.2f} "
            f"| {', '.join(row['period'])} | {row['seconds']:.1f} |"
        )
    return "\n".join(lines)


def report() -> str:
    parts = ["# Shift"]
    if rows := kept(RESULTS):
        parts.append(
            f"## Planted shifts\n\nRates of alarms, single tests at {LEVEL:.0%} "
            f"each.\n\n{planted_table(rows)}"
        )
    if rows := kept(NATURAL):
        parts.append(f"## Development sets, features of train.csv against test.csv\n\n{natural_table(rows)}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--shifts", nargs="*", choices=SHIFTS, default=list(SHIFTS))
    parser.add_argument("--natural", action="store_true")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    end = time.monotonic() + arguments.seconds
    if arguments.natural:
        done = {row["set"] for row in kept(NATURAL)}
        for folder in sorted(arguments.data.iterdir(), key=lambda f: (f / "train.csv").stat().st_size):
            if folder.name not in done and time.monotonic() < end:
                keep(NATURAL, natural(folder))
    else:
        done = {(row["shift"], row["rows"], row["seed"]) for row in kept(RESULTS)}
        todo = (
            (s, n, r) for r in range(arguments.repetitions) for n in arguments.sizes for s in arguments.shifts
        )
        for case in todo:
            if case not in done and time.monotonic() < end:
                keep(RESULTS, repetition(*case))
    (HERE / "results" / "shift.md").write_text(report())
    print(report())


if __name__ == "__main__":
    main()
