"""How long `why`, `what-if` and `diff` take beside start-up, which is `advisor --help` in the same round.

    python benchmarks/answers.py                  # 7 rounds; results/answers.md
    python benchmarks/answers.py --rounds 20      # goes on from there

Two runs of `advisor recommend` in a temporary folder are asked, on data that a dependency ships. In
each round every command runs once, in a process of its own, in an order that changes. What it must
reach: 0.5 s beyond start-up, by the median of the differences within a round. The processor's seconds
stand beside the clock's: on a busy machine only they can be compared. Every round is kept at once,
and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resumable import keep, kept

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "answers.jsonl"
LIMIT = 0.5
START_UP = "--help"
COMMANDS = {
    START_UP: ["--help"],
    "why": ["why", "a"],
    "why --json": ["why", "a", "--json"],
    "why PARAMETER": ["why", "a", "learning_rate"],
    "what-if": ["what-if", "a", "--set", "rows=1000000", "--set", "gpu.memory_gb=8"],
    "diff": ["diff", "a", "b"],
}


def advisor(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of one command: by the clock, and of the processor."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from advisor.cli.main import main; main()", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begun, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def table_of(rounds: list[dict[str, tuple[float, float]]]) -> str:
    lines = [
        "| command | median s | ratio to `--help` | beyond start-up: s | processor s | limit | met |",
        "|" + "---|" * 7,
    ]
    for name in COMMANDS:
        clock, processor = (
            statistics.median(row[name][i] - row[START_UP][i] for row in rounds) for i in (0, 1)
        )
        ratio = statistics.median(row[name][0] / row[START_UP][0] for row in rounds)
        verdict = "| | |" if name == START_UP else f"| {LIMIT} | {'yes' if clock <= LIMIT else 'no'} |"
        seconds = statistics.median(row[name][0] for row in rounds)
        lines.append(f"| {name} | {seconds:.2f} | {ratio:.1f} | {clock:.2f} | {processor:.2f} {verdict}")
    return "\n".join([*lines, "", f"{len(rounds)} rounds."])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = arguments.results
    results.parent.mkdir(exist_ok=True)
    rounds = kept(results)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run, source, target in (
            ("a", "sklearn:breast_cancer", "target"),
            ("b", "sklearn:wine", "target"),
        ):
            advisor(["recommend", source, "--target", target, "--out", run], folder)
        while len(rounds) < arguments.rounds:
            names = random.Random(len(rounds)).sample(sorted(COMMANDS), len(COMMANDS))
            rounds.append({name: advisor(COMMANDS[name], folder) for name in names})
            keep(results, rounds[-1])
    table = table_of(rounds)
    results.with_suffix(".md").write_text(f"# Answers beside start-up\n\n{table}\n")
    print(table)


if __name__ == "__main__":
    main()
