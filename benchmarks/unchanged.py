"""Did a change of the code's structure change any advice or result? Records both sides and compares them.

    git worktree add ../before REVISION
    PYTHONPATH=../before python benchmarks/unchanged.py record before.jsonl    # the product at REVISION
    python benchmarks/unchanged.py record after.jsonl                          # the product as it stands here
    python benchmarks/unchanged.py compare before.jsonl after.jsonl

A recording runs only the command line, so it works with any layout of the code. For every data set it keeps
what was measured, the recommendation (values, ranges, findings, provenance) and, for those of at most
``--search-rows`` training rows, the result of a search of 12 trials of 3 epochs in one process: each trial's
configuration and losses epoch by epoch (which the folds and the seeds decide), the final and the test.
Finished sets are kept; a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from resumable import keep, kept

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SKLEARN = ["iris", "wine", "breast_cancer", "digits", "diabetes"]
VOLATILE = {
    "advisor",
    "versions",
    "seconds",
    "took",
    "when",
    "begun",
    "ended",
    "pace",
    "rate",
    "driver",
    "made",
    "host",
    "pid",
    "packing",
}
"""Keys of what a machine and a moment decide; left out on both sides."""


def cases() -> Iterator[tuple[str, list[str]]]:
    """Each data set's name and its arguments for the command line."""
    for name in SKLEARN:
        yield f"sklearn:{name}", [f"sklearn:{name}", "--target", "target"]
    for meta in sorted(SHARED.glob("*/*/meta.yaml")):
        folder, about = meta.parent, yaml.safe_load(meta.read_text())
        if (folder / "train.csv").exists():
            test = ["--test", str(folder / "test.csv")] if (folder / "test.csv").exists() else []
            yield folder.name, [str(folder / "train.csv"), "--target", about["target"], *test]
        elif (folder / "data.npz").exists():
            yield folder.name, [str(folder / "data.npz")]
        elif archive := sorted(folder.glob("*_TRAIN.ts")):
            yield folder.name, [str(archive[0])]
        elif any(child.is_dir() for child in folder.iterdir()):
            yield folder.name, [str(folder)]


def stable(value: Any) -> Any:
    """A document without what differs from one run to the next."""
    if isinstance(value, dict):
        return {
            key: stable(inner)
            for key, inner in value.items()
            if key not in VOLATILE and not key.startswith(("hardware.", "memory.")) and "seconds" not in key
        }
    if isinstance(value, list):
        return [stable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def run(arguments: list[str], timeout: float) -> str:
    """The command's last lines on stderr; its exit code is part of what is compared."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "advisor", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout,
        check=False,
    )
    return (
        f"{done.returncode}" if done.returncode == 0 else f"{done.returncode}: {done.stderr.strip()[-300:]}"
    )


def record_one(name: str, arguments: list[str], search_rows: int, timeout: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        row: dict[str, Any] = {
            "set": name,
            "recommend": run(["recommend", *arguments, "--out", str(out)], timeout),
        }
        if not (out / "facts.json").exists():
            return row
        facts = json.loads((out / "facts.json").read_text())["values"]
        row["facts"] = stable(facts)
        row["recommendation"] = stable(yaml.safe_load((out / "recommendation.yaml").read_text()))
        if facts["rows"] <= search_rows:
            search = ["tune", *arguments, "--trials", "12", "--set", "epochs=3", "--executor", "in-process"]
            row["tune"] = run([*search, "--out", str(Path(scratch) / "tuned")], timeout)
            result = Path(scratch) / "tuned" / "result.json"
            row["result"] = stable(json.loads(result.read_text())) if result.exists() else None
        return row


def record(results: Path, search_rows: int, timeout: float) -> None:
    done = {row["set"] for row in kept(results)}
    for name, arguments in cases():
        if name not in done:
            try:
                keep(results, record_one(name, arguments, search_rows, timeout))
            except subprocess.TimeoutExpired:
                keep(results, {"set": name, "timeout": timeout})
            print(name, flush=True)


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Every place where two documents differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys(), key=str):
            yield from differences(a.get(key, "(absent)"), b.get(key, "(absent)"), f"{where}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from differences(left, right, f"{where}/{index}")
    elif a != b:
        yield f"{where}: {json.dumps(a)[:150]} -> {json.dumps(b)[:150]}"


def compare(before: Path, after: Path) -> int:
    sides = [{row["set"]: row for row in kept(path)} for path in (before, after)]
    changed = 0
    for name in sides[0].keys() & sides[1].keys():
        found = list(differences(sides[0][name], sides[1][name]))
        changed += bool(found)
        for line in found[:10]:
            print(f"{name}{line}")
    searched = sum(row.get("result") is not None for row in sides[0].values())
    both = len(sides[0].keys() & sides[1].keys())
    print(f"{both} sets on both sides, {searched} of them searched, {changed} differ")
    return int(changed > 0 or not both)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("results", type=Path)
    recording.add_argument("--search-rows", type=int, default=1000)
    recording.add_argument("--timeout", type=float, default=300)
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "record":
        record(arguments.results, arguments.search_rows, arguments.timeout)
    else:
        sys.exit(compare(arguments.before, arguments.after))


if __name__ == "__main__":
    main()
