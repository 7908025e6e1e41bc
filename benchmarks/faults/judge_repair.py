"""Does ``advisor.repair`` make faulty programs right? Each proposal is trained to its end on all training rows, and its
score on the test rows is compared with that of the repaired twin.

    python benchmarks/faults/judge_repair.py            # goes on where it was stopped; --fresh begins again

Programs come in the order of the hash of their names, so that what is kept is a fair sample at any time.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
import warnings
from pathlib import Path

import pairs_network  # noqa: F401
import pairs_output  # noqa: F401
import pairs_setup  # noqa: F401
import torch
from healthy import held_back
from program import CASES, Data, Program, score, train

import advisor

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
sys.path.insert(0, str(HERE.parent))
from resumable import Row, keep, kept  # noqa: E402

REACHES = 0.95
"""Of the twin's score: what counts as repaired."""


def trained(program: Program) -> float:
    try:
        train(program)
        return score(program)
    except (RuntimeError, ValueError, IndexError):
        return 0.0


def repaired(program: Program) -> tuple[float, advisor.checks.repairing.RepairProposal]:
    proposal = advisor.repair(
        program.module,
        program.data.x,
        program.data.y,
        loss=program.loss,
        optimizer=program.optimizer,
        epochs=program.epochs,
        batch_size=program.batch_size,
        step=program.step,
    )
    draft = proposal.draft
    data = program.data
    data = Data(data.x, draft.target, data.test_x, data.test_y)
    made = Program(
        draft.module, data, draft.loss, draft.optimizer, draft.epochs, draft.batch_size, program.score
    )
    made.step = draft.step
    return trained(made), proposal


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--only", nargs="*")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path = RESULTS / "faults-repair.jsonl"
    if chosen.fresh:
        path.unlink(missing_ok=True)
    rows: list[Row] = [] if chosen.only else kept(path)
    done = {row["name"] for row in rows}
    for case in sorted(CASES, key=lambda case: hashlib.sha256(case.name.encode()).hexdigest()):
        if case.name in done or (chosen.only and not any(word in case.name for word in chosen.only)):
            continue
        begin = time.thread_time()
        after, proposal = repaired(case.make(False))
        seconds = time.thread_time() - begin
        row = {
            "name": case.name,
            "buggy": trained(case.make(False)),
            "fixed": trained(case.make(True)),
            "repaired": after,
            "trainings": len(proposal.tried),
            "changes": list(proposal.draft.changes),
            "processor": round(seconds, 2),
        }
        rows.append(row)
        if not chosen.only:
            keep(path, row)
        if chosen.only or not held_back(case.name):
            print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    report(rows, write=not chosen.only)


def report(rows: list[Row], *, write: bool) -> None:
    lines = [
        "# advisor.repair",
        "",
        "| | programs | reach 95 % of the twin | of those that were below it before |",
        "|---|---|---|---|",
    ]
    for part, own in (
        ("development", [r for r in rows if not held_back(r["name"])]),
        ("held back", [r for r in rows if held_back(r["name"])]),
        ("all", rows),
    ):
        reached = [r["repaired"] >= REACHES * r["fixed"] for r in own]
        hurt = [r for r in own if r["buggy"] < REACHES * r["fixed"]]
        healed = [r["repaired"] >= REACHES * r["fixed"] for r in hurt]
        lines.append(f"| {part} | {len(own)} | {_share(reached)} | {_share(healed)} of {len(hurt)} |")
    misses = [
        f"{r['name']} ({r['buggy']:.2f} -> {r['repaired']:.2f}, twin {r['fixed']:.2f})"
        for r in rows
        if r["repaired"] < REACHES * r["fixed"]
    ]
    lines += ["", f"Not reached: {', '.join(misses) or 'none'}."]
    lines.append(f"Programs that were tried: {len(rows)} of {len(CASES)}.")
    seconds = sorted(r["processor"] for r in rows) or [math.nan]
    lines.append(
        f"Processor seconds with the last training: median {seconds[len(seconds) // 2]}, most {seconds[-1]}."
    )
    print("\n".join(lines))
    if write:
        (RESULTS / "faults-repair.md").write_text("\n".join(lines) + "\n")


def _share(values: list[bool]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else "-"


if __name__ == "__main__":
    main()
