"""What columns of pure noise do to the recommendation, and what a learned factor of each column does about them.

    python benchmarks/idle_columns.py                                  # 12 sets of ../shared/data/tables, one draw
    python benchmarks/idle_columns.py --draws 2 --rates 0 10 30 60     # the factors' rate: 0 is without them

Each set as it is and with 20 more columns, drawn from a normal distribution. 250, 500 and 2,000 rows are drawn, where train.csv
has FEWEST others to test on, which are up to 1,500; no test part is read. Every finished case is kept at once, and a second call
goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from resumable import go_on
from small_tables import HERE, SETS, drawn

import advisor

FEWEST = 300
KEY = ["set", "rows", "draw", "idle", "rate"]


def measure(folder: Path, rows: int, draw: int, idle: int, rate: float) -> dict[str, Any]:
    train, test, target = drawn(folder, draw, rows)
    noise = np.random.default_rng(draw).normal(size=(idle, len(train) + len(test))).round(4)
    columns = [pl.Series(f"idle {number}", values) for number, values in enumerate(noise)]
    both = pl.concat([train, test]).with_columns(columns)
    train, test = both[: len(train)], both[len(train) :]
    with tempfile.TemporaryDirectory() as out:
        fixed = {"column_scale_rate": rate}
        run = advisor.fit(train, target, test=test, seed=draw, fixed=fixed, out=Path(out) / "run")
    losses = {entry["name"]: entry["loss"] for entry in run.document["test"]["results"]}
    return {
        "set": folder.name, "rows": rows, "draw": draw, "idle": idle, "rate": rate,
        "network": losses["network"], "boosting": losses["gradient boosting"],
    }  # fmt: skip


def table_of(rows: list[dict[str, Any]]) -> str:
    found = {tuple(row[key] for key in KEY): row for row in rows}

    def ratios(size: int, idle: int, rate: float, of: Any, to: Any) -> Iterator[tuple[str, float]]:
        """Set and the logarithm of ``of`` a row to ``to`` a row's key, for each draw of rows that has both."""
        for key, row in found.items():
            if (key[1], key[3], key[4]) == (size, idle, rate) and (other := to(key)) in found:
                yield key[0], float(np.log(of(row) / of(found[other])))

    lines = ["| rows | idle columns | rate | pairs | test loss / without factors | lower in | / without idle columns |"]
    lines.append("|" + "---|" * 7)
    for size, idle, rate in itertools.product(*(sorted({row[key] for row in rows}) for key in ("rows", "idle", "rate"))):
        network = lambda row: row["network"]  # noqa: E731
        plain = [log for _, log in ratios(size, idle, rate, network, lambda key: (*key[:4], 0.0))]
        more = [log for _, log in ratios(size, idle, rate, network, lambda key: (*key[:3], 0, key[4]))]
        if plain:
            last = f"{np.exp(np.mean(more)):.3f}" if idle and more else ""
            ratio = f"{np.exp(np.mean(plain)):.3f}" if rate else "1"
            lower = f"{sum(log < 0 for log in plain)} of {len(plain)}" if rate else ""
            lines.append(f"| {size} | {idle} | {rate:g} | {len(plain)} | {ratio} | {lower} | {last} |")
    lines.append("")
    for idle, rate in sorted({(row["idle"], row["rate"]) for row in rows if row["rate"]}):
        sizes = sorted({row["rows"] for row in rows})
        pairs = [pair for n in sizes for pair in ratios(n, idle, rate, lambda row: row["network"], lambda key: (*key[:4], 0.0))]
        logs = [np.mean([log for of, log in pairs if of == name]) for name in dict.fromkeys(of for of, _ in pairs)]
        if len(logs) > 1:
            mean, error = np.mean(logs), np.std(logs, ddof=1) / np.sqrt(len(logs))
            low, middle, high = np.exp([mean - 2 * error, mean, mean + 2 * error])
            lines.append(f"{idle} idle columns, rate {rate:g}: {middle:.3f} ({low:.3f} to {high:.3f}) over {len(logs)} sets.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=[250, 500, 2000])
    parser.add_argument("--rates", type=float, nargs="*", default=[0, 10])
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    height = {name: pl.scan_csv(arguments.data / name / "train.csv").select(pl.len()).collect().item() for name in arguments.sets}
    todo = itertools.product(range(arguments.draws), arguments.rows, arguments.sets, (0, 20), arguments.rates)
    go_on(
        HERE / "results" / "idle_columns.jsonl", "Columns of noise", KEY,
        ((name, rows, draw, idle, rate) for draw, rows, name, idle, rate in todo if height[name] >= rows + FEWEST),
        lambda name, rows, draw, idle, rate: measure(arguments.data / name, rows, draw, idle, rate), table_of,
    )  # fmt: skip


if __name__ == "__main__":
    main()
