"""What a column of free text does to the recommendation: remarks that have nothing to
do with the target, and telling ones.

    python benchmarks/text_columns.py # 8 sets of ../shared/data/tables, 250 and 500 rows, one draw python
    benchmarks/text_columns.py --draws 2

Remarks are five words drawn from 2,000. In "idle" ones the words are drawn for each row by itself; in
"telling" ones one of them depends on the target (on its class, or on the quarter that its number is in) in
three rows of ten. Each is trained on "as advised" and with the words used, whatever they tell (--type
remark=text), besides without any remark. All rows are of train.csv, up to 1,500 others are tested on; no test
part is read. Every finished case is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from resumable import go_on
from small_tables import HERE, drawn

import advisor

SETS = ["vehicle", "oj", "contraceptive", "segment", "concrete", "deliveries", "cps-wages-9204", "medexp"]
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "no remarks": ("", {}),
    "idle, as advised": ("idle", {}),
    "idle, words used": ("idle", {"types": {"remark": "text"}}),
    "telling, as advised": ("telling", {}),
    "telling, words used": ("telling", {"types": {"remark": "text"}}),
}
WORDS, LENGTH, TELLING = 2000, 5, 0.3


def remarks(target: pl.Series, which: str, draw: np.random.Generator) -> pl.Series:
    words = np.char.add("w", draw.integers(0, WORDS, (len(target), LENGTH)).astype(str))
    if which == "telling":
        codes = (
            (target.rank("average") / len(target) * 4).ceil()
            if target.dtype.is_float()
            else target.cast(pl.String)
        )
        told = draw.random(len(target)) < TELLING
        words = words.astype(object)
        words[told, 0] = np.char.add("about ", codes.cast(pl.String).to_numpy().astype(str))[told]
    return pl.Series("remark", [" ".join(row) for row in words.tolist()])


def measure(folder: Path, rows: int, draw: int, way: str) -> dict[str, Any]:
    train, test, target = drawn(folder, draw, rows)
    which, options = WAYS[way]
    if which:
        both = pl.concat([train, test])
        both = both.with_columns(remarks(both[target], which, np.random.default_rng(draw)))
        train, test = both[: len(train)], both[len(train) :]
    with tempfile.TemporaryDirectory() as out:
        run = advisor.train(train, target, test=test, seed=draw, out=Path(out) / "run", **options)
        reading = yaml.safe_load((Path(out) / "run" / "recommendation.yaml").read_text())["data"]
    losses = {entry["name"]: entry["loss"] for entry in run.document["test"]["results"]}
    left_out = reading["types"].get("remark") == "identifier"
    return {
        "set": folder.name, "rows": rows, "draw": draw, "way": way, "network": losses["network"],
        "boosting": losses["gradient boosting"], "left_out": left_out,
    }  # fmt: skip


def table_of(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| rows | way | pairs | test loss / no remarks | gradient boosting's | remarks left out |",
        "|" + "---|" * 6,
    ]
    found = {(row["set"], row["rows"], row["draw"], row["way"]): row for row in rows}
    for size, way in itertools.product(sorted({row["rows"] for row in rows}), list(WAYS)[1:]):
        pairs = [
            (row, found[name, of, draw, "no remarks"])
            for (name, of, draw, how), row in found.items()
            if (of, how) == (size, way) and (name, of, draw, "no remarks") in found
        ]
        if pairs:
            shown = [
                f"{np.exp(np.mean([np.log(a[who] / b[who]) for a, b in pairs])):.3f}"
                for who in ("network", "boosting")
            ]
            left = f"{sum(row['left_out'] for row, _ in pairs)} of {len(pairs)}"
            lines.append(f"| {size} | {way} | {len(pairs)} | {' | '.join(shown)} | {left} |")
    pairs = [
        (row["network"], found[(*key[:3], "idle, words used")]["network"])
        for key, row in found.items()
        if row["left_out"] and key[3] == "idle, as advised" and (*key[:3], "idle, words used") in found
    ]
    if len(pairs) > 1:
        logs = np.log([a / b for a, b in pairs])
        mean, error = logs.mean(), logs.std(ddof=1) / np.sqrt(len(logs))
        low, middle, high = np.exp([mean - 2 * error, mean, mean + 2 * error])
        lines += [
            "",
            f"Left out / used: {middle:.3f} ({low:.3f} to {high:.3f}) in {len(pairs)} pairs with idle "
            "remarks.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=[250, 500])
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    todo = itertools.product(range(arguments.draws), arguments.rows, arguments.sets, WAYS)
    go_on(
        HERE / "results" / "text_columns.jsonl", "Columns of free text", ["set", "rows", "draw", "way"],
        ((name, rows, draw, way) for draw, rows, name, way in todo),
        lambda name, rows, draw, way: measure(arguments.data / name, rows, draw, way), table_of,
    )  # fmt: skip


if __name__ == "__main__":
    main()
