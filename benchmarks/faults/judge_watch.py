"""Does ``advisor.watch`` see silent faults within three steps, does it keep quiet on healthy runs, and what does it cost?

python benchmarks/faults/judge_watch.py             # goes on where it was stopped; --fresh begins again
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pairs_network  # noqa: F401
import pairs_output  # noqa: F401
import pairs_setup  # noqa: F401
import torch
from healthy import HEALTHY, held_back
from program import CASES, Case, Program, train

import advisor
from advisor.checks.findings.case import NetworkFinding

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
sys.path.insert(0, str(HERE.parent))
from resumable import Row, keep, kept  # noqa: E402

KEPT = RESULTS / "faults-watch.jsonl"
WITHIN = 3
ROUNDS = 5
COSTLY = ("dense-relu-classes", "plain-convolutions", "resnet")


def watched(program: Program, steps: int) -> list[NetworkFinding]:
    """What is said in this many steps of a program's own loop."""
    with advisor.watch(program.module, program.optimizer, tell=lambda finding: None) as seen:
        try:
            train(program, most_steps=steps)
        except RuntimeError as error:
            print("stopped:", error)
    return seen.findings


def cost(name: str) -> float:
    """Seconds of a training that is watched over those of one that is not; the least of some rounds in turn."""
    plain, seen = [], []
    for _ in range(ROUNDS):
        for times, on in ((plain, False), (seen, True)):
            program = HEALTHY[name]()
            begin = time.thread_time()  # what else runs on the machine does not count
            if on:
                watched(program, 10**9)
            else:
                train(program)
            times.append(time.thread_time() - begin)
    return min(seen) / min(plain)


def cases() -> Iterator[tuple[str, str, Callable[[], Row]]]:
    """What is measured: (kind, name, how)."""
    for case in CASES:
        if case.silent and case.make(False).loader is None:
            yield "silent", case.name, lambda c=case: _seen(c)
    for name in HEALTHY:
        yield "healthy", name, lambda n=name: {"codes": [f.code for f in watched(HEALTHY[n](), 10**9)]}
    for name in COSTLY:
        yield "cost", name, lambda n=name: {"times": cost(n)}


def _seen(case: Case) -> Row:
    said = watched(case.make(False), WITHIN)
    found = any({f.category} & label for f in said for label in case.labels)
    return {"found": found, "codes": [f.code for f in said]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fresh", action="store_true")
    if parser.parse_args().fresh:
        KEPT.unlink(missing_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = kept(KEPT)
    done = {(row["kind"], row["name"]) for row in rows}
    for kind, name, measure in cases():
        if (kind, name) in done:
            continue
        rows.append({"kind": kind, "name": name, **measure()})
        keep(KEPT, rows[-1])
        if not held_back(name):
            print(rows[-1], flush=True)
    report(rows)


def report(rows: list[Row]) -> None:
    lines = ["# advisor.watch", ""]
    silent = {row["name"]: row["found"] for row in rows if row["kind"] == "silent"}
    for part, back in (("development", False), ("held back", True)):
        found = [value for name, value in silent.items() if held_back(name) == back]
        lines.append(f"- silent faults ({part}) named within {WITHIN} steps: {sum(found)} of {len(found)}")
    lines.append(f"- missed: {', '.join(name for name in silent if not silent[name]) or 'none'}")
    quiet = {row["name"]: row["codes"] for row in rows if row["kind"] == "healthy"}
    loud = [f"{name} ({', '.join(codes)})" for name, codes in quiet.items() if codes]
    lines.append(
        f"- healthy runs with anything said, to their end: {len(loud)} of {len(quiet)}: {', '.join(loud) or 'none'}"
    )
    for row in rows:
        if row["kind"] == "cost":
            lines.append(
                f"- processor time of a watched training over a plain one, {row['name']}: {row['times']:.2f}"
            )
    (RESULTS / "faults-watch.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
