"""Does ``advisor tune --time-limit`` keep its limit, as a user sees it: the whole command, by the clock?

    python benchmarks/limit_kept.py [--limits 30 60 200] [--sets NAME ...]

A set of each modality of ../shared/data, on Ray. The bar: at most 1.1 times the limit plus 10 s, from the
command's start to its end; what remains over is said in the verdict. Each run is kept at once, and a second
call goes on from there. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from resumable import go_on

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("mnist-folders", "lfw-faces", "MNIST-1D", "credit-default")
SHARE, MORE = 1.1, 10.0
"""What a command may take: this many times the limit, and this many seconds more."""


def arguments_of(name: str) -> list[str]:
    """The data of a set, as the command line takes them."""
    folder = next(meta.parent for meta in SHARED.glob("*/*/meta.yaml") if meta.parent.name == name)
    target = yaml.safe_load((folder / "meta.yaml").read_text()).get("target")
    if (folder / "train.csv").exists():
        test = ["--test", str(folder / "test.csv")] if (folder / "test.csv").exists() else []
        return [str(folder / "train.csv"), "--target", target, *test]
    if (folder / "data.npz").exists():
        return [str(folder / "data.npz")]
    archive = sorted(folder.glob("*_TRAIN.ts"))
    return [str(archive[0] if archive else folder)]


def measure(name: str, limit: float) -> dict:
    """One command and what it says."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "advisor", "tune", *arguments_of(name), "--trials", "1000"]
        command += ["--time-limit", str(limit), "--out", f"{out}/run", "--quiet", "--json"]
        begun = time.monotonic()
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
        )
        seconds = time.monotonic() - begun
        result = Path(out) / "run" / "result.json"
        document = json.loads(result.read_text()) if result.exists() else {}
    final = document.get("final", {})
    return {
        "set": name,
        "limit": limit,
        "seconds": round(seconds, 1),
        "said": round(document.get("seconds", 0.0), 1),
        "trials": len(document.get("search", {}).get("trials", ())),
        "winner": final.get("winner", f"exit code {done.returncode}"),
        "confirmed": final.get("confirmed"),
        "kept": seconds <= SHARE * limit + MORE,
    }


def table_of(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = [
        "| set | limit, s | whole command, s | allowed, s | the run says, s | trials | winner | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["set"], row["limit"])):
        unconfirmed = "" if row["confirmed"] in (True, None) else ", not confirmed"
        lines.append(
            f"| {row['set']} | {row['limit']:g} | {row['seconds']} | {SHARE * row['limit'] + MORE:g} "
            f"| {row['said']} | {row['trials']} | {row['winner']}{unconfirmed} "
            f"| {'yes' if row['kept'] else 'NO'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limits", nargs="*", type=float, default=[30.0, 60.0, 200.0])
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    arguments = parser.parse_args()
    go_on(
        Path(__file__).resolve().parent / "results" / "limit_kept.jsonl",
        "Whether a time limit is kept",
        ("limit", "set"),
        ((limit, name) for limit in arguments.limits for name in arguments.sets),
        lambda limit, name: measure(name, limit),
        table_of,
    )


if __name__ == "__main__":
    main()
