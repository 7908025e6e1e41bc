"""What columns of pure noise do to the recommendation, and what a learned factor
of each column does about them.

    python benchmarks/idle_columns.py # 12 sets of ../shared/data/tables, one draw python
    benchmarks/idle_columns.py --draws 2 --rates 0 10 30 60 # the factors' rate: 0 is without them

Each set as it is and with 20 more columns, drawn from a normal distribution. 250, 500 and 2,000 rows are
drawn, where train.csv has FEWEST others to test on, which are up to 1,500; no test part is read. Every
finished case is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from resumable import go_on
from small_tables import HERE, SETS, drawn

import advisor

FEWEST = 300
NEAR_COPIES = {"mlc-churn", "oj", "segment", "vehicle"}
"""Sets without factors as advised, unless columns of noise are added: too many pairs
of their columns are nearly copies."""
KEY = ["set", "rows", "draw", "idle", "rate"]
Case = tuple[Any, ...]


def measure(folder: Path, rows: int, draw: int, idle: int, rate: float) -> dict[str, Any]:
    train, test, target = drawn(folder, draw, rows)
    noise = np.random.default_rng(draw).normal(size=(idle, len(train) + len(test))).round(4)
    columns = [pl.Series(f"idle {number}", values) for number, values in enumerate(noise)]
    both = pl.concat([train, test]).with_columns(columns)
    train, test = both[: len(train)], both[len(train) :]
    with tempfile.TemporaryDirectory() as out:
        fixed = {"column_scale_rate": rate}
        run = advisor.train(train, target, test=test, seed=draw, fixed=fixed, out=Path(out) / "run")
    losses = {entry["name"]: entry["loss"] for entry in run.document["test"]["results"]}
    return {
        "set": folder.name,
        "rows": rows,
        "draw": draw,
        "idle": idle,
        "rate": rate,
        "network": losses["network"],
        "boosting": losses["gradient boosting"],
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    found = {tuple(row[key] for key in KEY): row for row in rows}

    def ratios(to: Callable[[Case], Case], **cases: Any) -> list[tuple[str, float]]:
        """Set and the logarithm of a case's test loss to that of the case ``to``
        it, where both are measured."""
        return [
            (row["set"], float(np.log(row["network"] / found[to(case)]["network"])))
            for case, row in found.items()
            if all(row[name] == value for name, value in cases.items()) and to(case) in found
        ]

    lines = [
        "| rows | idle columns | rate | pairs | test loss / without factors | lower in | / without idle "
        "columns |"
    ]
    lines.append("|" + "---|" * 7)
    for size, idle, rate in itertools.product(
        *(sorted({row[key] for row in rows}) for key in ("rows", "idle", "rate"))
    ):
        plain = [log for _, log in ratios(lambda case: (*case[:4], 0.0), rows=size, idle=idle, rate=rate)]
        more = [
            log for _, log in ratios(lambda case: (*case[:3], 0, case[4]), rows=size, idle=idle, rate=rate)
        ]
        if plain:
            last = f"{np.exp(np.mean(more)):.3f}" if idle and more else ""
            ratio = f"{np.exp(np.mean(plain)):.3f}" if rate else "1"
            lower = f"{sum(log < 0 for log in plain)} of {len(plain)}" if rate else ""
            lines.append(f"| {size} | {idle} | {rate:g} | {len(plain)} | {ratio} | {lower} | {last} |")
    lines.append("")
    for idle, rate in sorted({(row["idle"], row["rate"]) for row in rows if row["rate"]}):
        by_set: dict[str, list[float]] = {}
        for name, log in ratios(lambda case: (*case[:4], 0.0), idle=idle, rate=rate):
            by_set.setdefault(name, []).append(log)
        said = {"": set(by_set)}
        if not idle:
            said |= {
                ", where factors are advised": set(by_set) - NEAR_COPIES,
                ", where they are not": set(by_set) & NEAR_COPIES,
            }
        for which, names in said.items():
            logs = [np.mean(by_set[name]) for name in sorted(names)]
            if len(logs) > 1:
                mean, error = np.mean(logs), np.std(logs, ddof=1) / np.sqrt(len(logs))
                low, middle, high = np.exp([mean - 2 * error, mean, mean + 2 * error])
                ratio = f"{middle:.3f} ({low:.3f} to {high:.3f}) over {len(logs)} sets."
                lines.append(f"{idle} idle columns, rate {rate:g}{which}: {ratio}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=[250, 500, 2000])
    parser.add_argument("--rates", type=float, nargs="*", default=[0, 10])
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    height = {
        name: pl.scan_csv(arguments.data / name / "train.csv").select(pl.len()).collect().item()
        for name in arguments.sets
    }
    todo = itertools.product(range(arguments.draws), arguments.rows, arguments.sets, (0, 20), arguments.rates)
    go_on(
        HERE / "results" / "idle_columns.jsonl",
        "Columns of noise",
        KEY,
        (
            (name, rows, draw, idle, rate)
            for draw, rows, name, idle, rate in todo
            if height[name] >= rows + FEWEST
        ),
        lambda name, rows, draw, idle, rate: measure(arguments.data / name, rows, draw, idle, rate),
        table_of,
    )


if __name__ == "__main__":
    main()
