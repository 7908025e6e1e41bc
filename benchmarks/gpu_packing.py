"""Trials that share a GPU: how many an hour with 1, 2, 4 and 8 workers on it, and
the memory expected of them and taken.

    python benchmarks/gpu_packing.py                  # needs an NVIDIA GPU and Ray; made data
    python benchmarks/gpu_packing.py --workers 1 8 --kinds table --trials 24

Each run is `advisor tune` of the recommended space, with the epochs fixed so that every run
trains as long. Counted from the beginning of the first trial to the end of the last. Every
finished (kind, workers) is kept at once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import torch
from gpu_training import CASES, made
from resumable import go_on

import advisor

HERE = Path(__file__).resolve().parent
CASES |= {
    "small images": ("image", (1_000, 28, 28), 0),
    "small series": ("sequence", (1_000, 2, 128), 0),
    "small table": ("table", (2_000, 20), 0),
}
FIXED = {"epochs": 5, "patience": 5, "final_members": 1}


def measure(kind: str, workers: int, trials: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = made(f"small {kind}", Path(folder))
        run = advisor.tune(
            source,
            target,
            out=Path(folder) / "run",
            trials=trials,
            workers=workers,
            gpus_per_worker=1 / workers,
            fixed=FIXED,
            seed=0,
        )
        placed = run.document["search"]["packing"]
    seconds = max(row["ended"] for row in placed) - min(row["began"] for row in placed)
    known = [row for row in placed if row["peak_memory"]]
    ratios = [row["peak_memory"] / row["memory"] for row in known if row["memory"]]
    return {
        "kind": kind,
        "workers": workers,
        "trials": trials,
        "seconds": seconds,
        "trial": float(np.median([row["ended"] - row["began"] for row in placed])),
        "devices": sorted({row["device"].split(" ", 2)[-1] for row in placed}),
        "peak": max((row["peak_memory"] for row in known), default=None),
        "used_of_expected": [float(q) for q in np.quantile(ratios, (0, 0.5, 1))] if ratios else None,
        "gpu": torch.cuda.get_device_name(),
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    head = (
        "| kind | workers | trials | s | trials an hour | of one worker's | a trial s | most GB | used / "
        "expected |"
    )
    lines = [head, "|" + "---|" * 9]
    for row in sorted(rows, key=lambda row: (row["kind"], row["workers"])):
        like = (row["kind"], 1, row["trials"])
        alone = next((r for r in rows if (r["kind"], r["workers"], r["trials"]) == like), row)
        peak = "" if row["peak"] is None else f"{row['peak'] / 1e9:.2f}"
        share = (
            "" if row["used_of_expected"] is None else " ".join(f"{q:.2f}" for q in row["used_of_expected"])
        )
        lines.append(
            f"| {row['kind']} | {row['workers']} | {row['trials']} | {row['seconds']:.1f} "
            f"| {3600 * row['trials'] / row['seconds']:,.0f} | {alone['seconds'] / row['seconds']:.2f} | "
            f"{row['trial']:.2f} "
            f"| {peak} | {share} |"
        )
    return "\n".join([*lines, "", f"On {rows[0]['gpu']}." if rows else ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="*", default=["images", "series", "table"])
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "gpu_packing.jsonl")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use")
    todo = (
        (kind, workers, arguments.trials)
        for kind, workers in itertools.product(arguments.kinds, arguments.workers)
    )
    go_on(
        arguments.results, "Trials that share a GPU", ("kind", "workers", "trials"), todo, measure, table_of
    )


if __name__ == "__main__":
    main()
