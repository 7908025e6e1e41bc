"""Does ``advisor.watch`` see silent faults within three steps, does it keep quiet on healthy runs, and what does it cost?

python benchmarks/faults/judge_watch.py
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pairs_network  # noqa: F401
import pairs_output  # noqa: F401
import pairs_setup  # noqa: F401
import torch
from healthy import HEALTHY, held_back
from program import CASES, Program, train

import advisor
from advisor.checks.findings.case import NetworkFinding

RESULTS = Path(__file__).resolve().parent.parent / "results"
WITHIN = 3
ROUNDS = 5


def watched(program: Program, steps: int) -> list[NetworkFinding]:
    """What is said in so many steps of a program's own loop."""
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


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = ["# advisor.watch", ""]
    silent = [c for c in CASES if c.silent and c.make(False).loader is None]
    found = {}
    for case in silent:
        said = watched(case.make(False), WITHIN)
        found[case.name] = any({f.category} & label for f in said for label in case.labels)
        if not held_back(case.name):
            print(found[case.name], case.name, [f.code for f in said])
    alarms = {}
    for name in HEALTHY:
        alarms[name] = [f.code for f in watched(HEALTHY[name](), 10**9)]
        if alarms[name] and not held_back(name):
            print("false alarm", name, alarms[name])
    parts = {
        "development": [n for n in found if not held_back(n)],
        "held back": [n for n in found if held_back(n)],
    }
    for part, names in parts.items():
        lines.append(
            f"- silent faults ({part}) named within {WITHIN} steps: {sum(found[n] for n in names)} of {len(names)}"
        )
    lines.append(f"- missed: {', '.join(n for n in found if not found[n]) or 'none'}")
    loud = [f"{n} ({', '.join(codes)})" for n, codes in alarms.items() if codes]
    lines.append(
        f"- healthy runs with anything said, to their end: {len(loud)} of {len(alarms)}: {', '.join(loud) or 'none'}"
    )
    for name in ("dense-relu-classes", "plain-convolutions", "resnet"):
        lines.append(f"- processor time of a watched training over a plain one, {name}: {cost(name):.2f}")
    (RESULTS / "faults-watch.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
