"""A time limit shared between the search and the final: by what the final is
expected to take, against a fixed 70 to 30.

    python benchmarks/time_limit.py # 6 sets of ../shared/data, limits of 60 and 180 s, one seed python
    benchmarks/time_limit.py --limits 60 --seeds 3

Each run is `tune` in this process with more trials than the time allows. "challengers" are the configurations
beside the recommendation that the final could judge: without one, all of the search was in vain. "over" is
the time taken over the limit. Every finished run is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml
from resumable import go_on

import advisor
from advisor.workflows import search as run_search

HERE = Path(__file__).resolve().parent
SETS = ("vehicle", "concrete", "oj", "segment", "cells", "credit-default")
WAYS = ("fixed", "expected")


def fixed(trials, slots, time_limit, *others):
    """As it was: 30 % for the final, whatever it takes."""
    return (1 - run_search.SEARCH_SHARE) * time_limit


def measure(folder: Path, limit: float, seed: int, way: str) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    reserve = fixed if way == "fixed" else run_search._reserve
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out, patch.object(run_search, "_reserve", reserve):
        options = {
            "test": folder / "test.csv",
            "seed": seed,
            "out": Path(out) / "run",
            "executor": "in-process",
        }
        run = advisor.tune(folder / "train.csv", target, trials=1000, time_limit=limit, **options)
    seconds, document = time.monotonic() - begun, run.document
    contenders = [one["name"] for one in document["final"]["contenders"]]
    return {
        "set": folder.name,
        "limit": limit,
        "seed": seed,
        "way": way,
        "trials": len(document["search"]["trials"]),
        "challengers": len([name for name in contenders if name not in ("recommendation", "blend")]),
        "winner": document["final"]["winner"],
        "loss": document["test"]["results"][0]["loss"],
        "search": document["search"]["seconds"],
        "seconds": seconds,
    }


def table_of(rows: list[dict]) -> str:
    lines = [
        "| limit, s | share for the final | runs | trials | challengers | none | over | loss / fixed |",
        "|" + "---|" * 8,
    ]
    found = {(row["set"], row["limit"], row["seed"], row["way"]): row for row in rows}
    for limit in sorted({row["limit"] for row in rows}):
        for way in WAYS:
            own = [row for row in rows if (row["limit"], row["way"]) == (limit, way)]
            if not own:
                continue
            pairs = [
                (row["loss"], found.get((row["set"], limit, row["seed"], "fixed"), row)["loss"])
                for row in own
            ]
            ratio = np.exp(np.mean(np.log([loss / other for loss, other in pairs])))
            lines.append(
                f"| {limit:g} | {way} | {len(own)} | {np.mean([row['trials'] for row in own]):.1f} "
                f"| {np.mean([row['challengers'] for row in own]):.1f} | "
                f"{sum(not row['challengers'] for row in own)} "
                f"| {np.mean([max(0, row['seconds'] / limit - 1) for row in own]):.0%} | {ratio:.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--limits", nargs="*", type=float, default=[60.0, 180.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    arguments = parser.parse_args()
    go_on(
        HERE / "results" / "time_limit.jsonl",
        "A time limit shared between search and final",
        ("seed", "limit", "set", "way"),
        itertools.product(range(arguments.seeds), arguments.limits, arguments.sets, WAYS),
        lambda seed, limit, name, way: measure(arguments.data / name, limit, seed, way),
        table_of,
    )


if __name__ == "__main__":
    main()
