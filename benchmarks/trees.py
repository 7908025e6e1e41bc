"""Networks alone against their blend with boosted trees (`advisor train --with-trees`), trained once.

    python benchmarks/trees.py              # the test rows of sixteen tables, one seed
    python benchmarks/trees.py --sets oj    # only these

A run with trees has the test loss of its model and, where that is a blend, of the networks alone, which are
what a run without trees trains with the same seed. On the sets of DEVELOPMENT the share's prior and what
judges the blend were chosen, by a quarter of their training rows; the others were used for nothing. Every
finished (set, seed) is kept at once, and a second call goes on from there.
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
from scipy.stats import wilcoxon

import advisor
from advisor.checks.throughput import one_thread
from advisor.runs.result import RECOMMENDED

HERE = Path(__file__).resolve().parent
DEVELOPMENT = ("concrete", "contraceptive", "german", "hitters", "oj", "segment", "vehicle", "wine")
OTHERS = ("attrition", "cells", "diabetes", "leaf-flavia", "phoneme", "sonar", "splice", "yeast4")


def measure(folder: Path, seed: int) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as out, one_thread():
        run = advisor.train(
            folder / "train.csv",
            target,
            test=folder / "test.csv",
            seed=seed,
            with_trees=True,
            out=Path(out) / "run",
            progress=False,
        )
        size = sum(file.stat().st_size for file in (Path(out) / "run" / "model").iterdir())
    trees, scores = run.report.final.trees, {one.name: one for one in run.report.test.results}
    blend = scores["network"]
    alone = scores.get(RECOMMENDED, blend)  # not there where the networks alone are the model
    difference = alone.difference_to_network
    return {
        "set": folder.name,
        "seed": seed,
        "task": run.report.setup.task,
        "rows": run.report.setup.data.rows,
        "share": trees.share,
        "held_out": trees.blend_loss / trees.networks_loss,
        "blend": blend.loss,
        "networks": alone.loss,
        "boosting": scores["gradient boosting"].loss,
        # of the blend's loss to that of the networks, in standard errors
        "z": -difference.mean / difference.standard_error if alone is not blend else 0.0,
        "seconds": time.process_time() - begun,
        "megabytes": size / 1e6,
    }


def table_of(rows: list[dict]) -> str:
    lines = [
        "| set | task | rows | trees' share | loss, networks | with trees | ratio | standard errors "
        "| boosting | model, MB |",
        "|" + "---|" * 10,
    ]
    for name in sorted({row["set"] for row in rows}):
        own = [row for row in rows if row["set"] == name]
        numbers = [key for key in own[0] if key not in ("set", "task")]
        mean = {key: float(np.mean([row[key] for row in own])) for key in numbers}
        developed = " (development)" if name in DEVELOPMENT else ""
        lines.append(
            f"| {name}{developed} | {own[0]['task']} | {mean['rows']:.0f} "
            f"| {mean['share']:.2f} | {mean['networks']:.4g} | {mean['blend']:.4g} "
            f"| {mean['blend'] / mean['networks']:.3f} | {mean['z']:+.1f} | {mean['boosting']:.4g} "
            f"| {mean['megabytes']:.1f} |"
        )
    lines.append("")
    for words, chosen in (
        ("Development sets", [row for row in rows if row["set"] in DEVELOPMENT]),
        ("Other sets", [row for row in rows if row["set"] not in DEVELOPMENT]),
        ("All", rows),
    ):
        if chosen:
            lines.append(f"- {words}: {_summary(chosen)}")
    return "\n".join(lines)


def _summary(rows: list[dict]) -> str:
    logs = np.log([row["blend"] / row["networks"] for row in rows])
    wins, losses = int((logs < 0).sum()), int((logs > 0).sum())
    test = f", signed ranks p {wilcoxon(logs).pvalue:.3f}" if wins + losses > 5 else ""
    return (
        f"{len(rows)} runs, blend / networks {np.exp(logs.mean()):.3f} (geometric mean), better in {wins}, "
        f"worse in {losses} (beyond two standard errors in {sum(row['z'] > 2 for row in rows)}), networks "
        f"kept in {sum(row['share'] == 0 for row in rows)}{test}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--sets", nargs="*", default=[*DEVELOPMENT, *OTHERS])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "trees.jsonl")
    arguments = parser.parse_args()
    folders = [arguments.data / name for name in arguments.sets]
    go_on(
        arguments.results,
        "Networks blended with boosted trees",
        ("set", "seed"),
        itertools.product([folder.name for folder in folders], arguments.seeds),
        lambda name, seed: measure(arguments.data / name, seed),
        table_of,
    )


if __name__ == "__main__":
    main()
