"""Masks of scenes of one to four digits: the recommendation against the base space's own defaults.

    python benchmarks/scenes.py                 # 2,000 scenes, both, seed 0; results/scenes.md
    python benchmarks/scenes.py --seeds 0 1 2   # goes on from there
    python benchmarks/scenes.py --rows 500      # fewer scenes

Scenes of 64 x 64 points (``advisor.data.masks.digit_scenes``), four fifths to learn from; no digit of a test
scene is in a training scene. "plain" is the base space's own defaults (three resolutions, transposed
convolution, Adam at 0.001, no normalization), trained and judged by the same plan. What it must reach: a mean
IoU of 0.75 within ten minutes on two idle cores, and more than plain. Processor seconds are told beside those
of the clock, and the load of the machine: on a busy one only the first compare. Every finished (rows, seed,
what) is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from resumable import go_on

import advisor
from advisor.data.masks.digit_scenes import digit_scenes
from advisor.rules import shipped
from advisor.rules.recommendation import library_default
from advisor.workflows.recommend import get_advice

HERE = Path(__file__).resolve().parent
TEST_SHARE = 0.2
WANTED = 0.75


def measure(rows: int, seed: int, what: str) -> dict:
    test_rows = round(TEST_SHARE * rows)
    train, test = digit_scenes(rows - test_rows, seed), digit_scenes(test_rows, seed, "test")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "scenes.npz"
        arrays = {
            "X_train": train.images,
            "Y_train": train.masks,
            "X_test": test.images,
            "Y_test": test.masks,
        }
        np.savez(source, **arrays)
        fixed = {}
        if what == "plain":
            recommendation = get_advice(source, None).recommendation
            base = shipped.base_space(recommendation.kind)
            whole = library_default(recommendation, base)
            fixed = {name: value for name, value in whole.items() if base[name].topic != "plan"}
        begun, used = time.monotonic(), time.process_time()
        run = advisor.train(source, out=Path(folder) / "run", seed=seed, fixed=fixed)
        seconds, processor = time.monotonic() - begun, time.process_time() - used
    own, *others = run.report.test.results
    return {
        "rows": rows,
        "seed": seed,
        "what": what,
        "mean_iou": own.mean_iou,
        "mean_dice": own.mean_dice,
        "loss": own.loss,
        "forest_iou": next(one.mean_iou for one in others if "forest" in one.name),
        "seconds": seconds,
        "processor": processor,
        "load": os.getloadavg()[0],
        "cores": len(os.sched_getaffinity(0)),
    }


def table_of(rows: list[dict]) -> str:
    columns = ["scenes", "seed", "what", "mean IoU", "mean Dice", "log loss", "forest's IoU"]
    columns += ["processor s", "s", "load"]
    lines = []
    for r in sorted(rows, key=lambda r: (r["rows"], r["seed"], r["what"])):
        scores = (f"{r[name]:.3f}" for name in ("mean_iou", "mean_dice", "loss", "forest_iou"))
        times = (f"{r[name]:,.0f}" for name in ("processor", "seconds", "load"))
        lines.append(" | ".join([f"{r['rows']:,}", str(r["seed"]), r["what"], *scores, *times]))
    head = [" | ".join(columns), " | ".join(["---"] * len(columns))]
    return "\n".join([*(f"| {line} |" for line in (*head, *lines)), "", f"Wanted: {WANTED}."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--whats", nargs="+", default=["advised", "plain"])
    given = parser.parse_args()
    cases = [(given.rows, seed, what) for seed in given.seeds for what in given.whats]
    go_on(
        HERE / "results" / "scenes.jsonl",
        "Masks of scenes",
        ("rows", "seed", "what"),
        cases,
        measure,
        table_of,
    )
