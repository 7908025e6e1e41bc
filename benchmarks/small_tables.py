"""Small tables with enough test rows to judge by: 250 training rows drawn from
larger sets, 1,500 others to test on.

    python benchmarks/small_tables.py # 12 sets of ../shared/data/tables, 2 draws
    each python benchmarks/small_tables.py --variant numeric_embedding=none # the
    same with a value fixed, beside what is kept

Sets that are small themselves leave 45 to 60 test rows, where a model is better or worse by luck.
All rows are of train.csv; no test part is read. Network (the recommendation, trained), linear
model and gradient boosting on the same rows. Every finished (set, draw, variant) is kept at once,
and a second call goes on from there.
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
    "vehicle",
    "oj",
    "cells",
    "phoneme",
    "contraceptive",
    "spambase",
    "mlc-churn",
    "segment",
    "concrete",
    "deliveries",
]
SETS += ["cps-wages-9204", "medexp"]
ROWS, TEST_ROWS = 250, 1500
ADVISED = "as recommended"


def drawn(folder: Path, draw: int, rows: int = ROWS) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    """Training rows, TEST_ROWS others to test on, and the target's name."""
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    frame = pl.read_csv(folder / "train.csv", infer_schema_length=None)
    order = np.random.default_rng(draw).permutation(frame.height)
    return frame[np.sort(order[:rows])], frame[np.sort(order[rows : rows + TEST_ROWS])], target


def measure(folder: Path, draw: int, variant: str) -> dict[str, Any]:
    train, test, target = drawn(folder, draw)
    fixed = (
        {}
        if variant == ADVISED
        else {k: yaml.safe_load(v) for k, _, v in (p.partition("=") for p in variant.split())}
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        run = advisor.train(train, target, test=test, seed=draw, fixed=fixed, out=Path(out) / "run")
    losses = {entry["name"]: entry["loss"] for entry in run.document["test"]["results"]}
    row: dict[str, Any] = {"set": folder.name, "draw": draw, "variant": variant, "network": losses["network"]}
    return row | {
        "linear": losses["linear"],
        "boosting": losses["gradient boosting"],
        "seconds": time.monotonic() - begun,
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    found = {(row["set"], row["draw"], row["variant"]): row for row in rows}
    heads = [
        "set",
        "draws",
        "network",
        "network / linear",
        "network / boosting",
        *(f"{v} / advised" for v in variants[1:]),
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    sums: dict[str, list[float]] = {head: [] for head in heads[3:]}
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name and row["variant"] == ADVISED]
        cells = [name, str(len(own)), f"{np.mean([row['network'] for row in own]):.4g}"]
        for head in heads[3:]:
            other = head.removeprefix("network / ") if head.startswith("network / ") else None
            pairs = (
                [(r["network"], r[other]) for r in own]
                if other
                else [
                    (found[name, r["draw"], head.removesuffix(" / advised")]["network"], r["network"])
                    for r in own
                    if (name, r["draw"], head.removesuffix(" / advised")) in found
                ]
            )
            ratio = float(np.exp(np.mean([np.log(a / b) for a, b in pairs]))) if pairs else float("nan")
            sums[head].append(ratio)
            cells.append(f"{ratio:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for head, ratios in sums.items():
        mean = np.exp(np.nanmean(np.log(ratios)))
        lines.append(
            f"{head}: geometric mean {mean:.3f}, at most 1 on {np.sum(np.array(ratios) <= 1)} of "
            f"{len(ratios)} sets."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--variant", default=ADVISED, help="PARAMETER=VALUE, several with blanks between")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "small_tables.jsonl")
    arguments = parser.parse_args()
    go_on(
        arguments.results,
        "Small tables",
        ("draw", "set", "variant"),
        itertools.product(range(arguments.draws), arguments.sets, [arguments.variant]),
        lambda draw, name, variant: measure(arguments.data / name, draw, variant),
        table_of,
    )


if __name__ == "__main__":
    main()
