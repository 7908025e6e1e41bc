"""How long reading and measuring a million rows takes, beside polars' bare read; and the whole command on a
table of 5,000 columns.

    python benchmarks/recommend_speed.py [--rows 1000000] [--repeats 3] [--against FOLDER]
    python benchmarks/recommend_speed.py --wide [--against FOLDER]

Makes a table of 20 float, 5 integer and 5 text columns and a target in a temporary folder, as CSV
and as Parquet, and times each step in a process of its own: the imports apart, the best of the
repeats, and the peak of resident memory. What it must reach: on CSV at most 1.5 times polars'
read_csv plus 2 s, within 3 GB; on Parquet 3 s. ``--wide``: `advisor recommend`, report and all, on 2,000 rows
of 5,000 columns, within 10 s of the processor.

Seconds of the processor are those of all threads of the process and of the workers that it waited for: on a
busy machine they tell more than the clock. ``--against``: another checkout, run in turns with this one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

STEP = """
import json, resource, sys, time
import polars as pl
what, path = sys.argv[1:]
if what == "bare":
    work = lambda: pl.read_csv(path) if path.endswith(".csv") else pl.read_parquet(path)
else:
    from advisor.facts.table import measure_table
    from advisor.data.tables.table import load_table
    work = lambda: measure_table(load_table(path, "target"))
def processor():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime

begin, before = time.perf_counter(), processor()
work()
seconds, cpu = time.perf_counter() - begin, processor() - before
print(json.dumps([seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9]))
"""
HERE = Path(__file__).resolve().parents[1]
COMMAND = "from advisor.cli.main import main; main()"
MOST_GB, PARQUET_SECONDS, WIDE_SECONDS = 3.0, 3.0, 10.0
RESULTS = Path(__file__).parent / "results" / "recommend_speed.md"


class Step(NamedTuple):
    """The best of several runs in seconds of the clock and of the processor; the largest peak of memory."""

    seconds: float
    cpu: float
    gigabytes: float


def make(folder: Path, rows: int) -> None:
    """Write data.csv and data.parquet with 30 feature columns and a target that depends on some of them."""
    rng = np.random.default_rng(0)
    columns: dict[str, pl.Series] = {}
    for number in range(20):
        values = rng.normal(size=rows) if number % 2 else rng.lognormal(size=rows)
        columns[f"float{number}"] = pl.Series(values.round(6))
    for number in range(5):
        columns[f"integer{number}"] = pl.Series(rng.integers(0, 10 ** (number + 1), rows))
    for number, levels in enumerate((3, 10, 50, 500, 5000)):
        names = pl.Series([f"level {level}" for level in range(levels)])
        columns[f"text{number}"] = names.gather(rng.integers(0, levels, rows))
    signal = columns["float0"] + columns["float1"] + pl.Series(rng.normal(size=rows))
    columns["target"] = pl.Series(np.where(signal.to_numpy() > 1, "yes", "no"))
    frame = pl.DataFrame(columns)
    frame.write_csv(folder / "data.csv")
    frame.write_parquet(folder / "data.parquet")


def make_wide(folder: Path, rows: int = 2000, columns: int = 5000) -> Path:
    """wide.csv of numbers and a target of two classes that two of them decide."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, columns)).round(5)
    frame = pl.DataFrame(values, schema=[f"c{number}" for number in range(columns)])
    signal = values[:, 0] + values[:, 1] + rng.normal(size=rows)
    frame.with_columns(target=pl.Series(np.where(signal > 0, "yes", "no"))).write_csv(folder / "wide.csv")
    return folder / "wide.csv"


def step(what: str, path: Path, checkout: Path) -> Step:
    """One run in a fresh process, which imports the advisor of the folder that it is begun in."""
    command = [sys.executable, "-c", STEP, what, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=checkout)
    return Step(*json.loads(done.stdout))


def whole_command(path: Path, checkout: Path) -> Step:
    """`advisor recommend`, report and all."""
    out = path.with_name("run")
    subprocess.run(["rm", "-rf", str(out)], check=True)
    command = [sys.executable, "-c", COMMAND, "recommend", str(path), "--target", "target", "--out", str(out)]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), datetime.now(UTC)
    subprocess.run(command, check=True, capture_output=True, cwd=checkout)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), (datetime.now(UTC) - begin).total_seconds()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Step(seconds, cpu, after.ru_maxrss * 1024 / 1e9)


def best(steps: list[Step]) -> Step:
    """Of several runs."""
    return Step(min(s.seconds for s in steps), min(s.cpu for s in steps), max(s.gigabytes for s in steps))


def name_of(checkout: Path) -> str:
    """The commit that is checked out there."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def measure_long(folder: Path, rows: int, repeats: int, checkouts: list[Path]) -> list[str]:
    """A line for each file and checkout."""
    make(folder, rows)
    lines = [
        f"{rows:,} rows x 31 columns",
        "",
        "| file, MB | advisor | s | processor, s | limit, s | GB | met |",
    ]
    lines.append("|---|---|---:|---:|---:|---:|---|")
    for kind in ("csv", "parquet"):
        path = folder / f"data.{kind}"
        runs: dict[str, list[Step]] = {}
        for _ in range(repeats):
            runs.setdefault("polars alone", []).append(step("bare", path, HERE))
            for checkout in checkouts:
                runs.setdefault(name_of(checkout), []).append(step("ours", path, checkout))
        limit = 1.5 * best(runs["polars alone"]).seconds + 2 if kind == "csv" else PARQUET_SECONDS
        for name, steps in runs.items():
            own = best(steps)
            met = "yes" if own.seconds <= limit and own.gigabytes < MOST_GB else "no"
            met = "" if name == "polars alone" else met
            size = path.stat().st_size / 1e6
            lines.append(
                f"| {kind}, {size:.0f} | {name} | {own.seconds:.2f} | {own.cpu:.2f} | {limit:.2f} "
                f"| {own.gigabytes:.2f} | {met} |"
            )
    return lines


def measure_wide(folder: Path, repeats: int, checkouts: list[Path]) -> list[str]:
    """A line for each checkout."""
    path = make_wide(folder)
    lines = [
        "`advisor recommend`, 2,000 rows x 5,000 columns",
        "",
        "| advisor | s | processor, s | limit | met |",
    ]
    lines.append("|---|---:|---:|---:|---|")
    runs: dict[str, list[Step]] = {}
    for _ in range(repeats):
        for checkout in checkouts:
            runs.setdefault(name_of(checkout), []).append(whole_command(path, checkout))
    for name, steps in runs.items():
        own = best(steps)
        met = "yes" if own.cpu <= WIDE_SECONDS else "no"
        lines.append(f"| {name} | {own.seconds:.2f} | {own.cpu:.2f} | {WIDE_SECONDS:.0f} | {met} |")
    return lines


def main() -> None:
    """Make the files, time the steps, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--wide", action="store_true", help="the whole command on 5,000 columns")
    parser.add_argument("--against", type=Path, help="another checkout")
    options = parser.parse_args()
    checkouts = [HERE, *([options.against.resolve()] if options.against else [])]
    with tempfile.TemporaryDirectory() as name:
        if options.wide:
            lines = measure_wide(Path(name), options.repeats, checkouts)
        else:
            lines = measure_long(Path(name), options.rows, options.repeats, checkouts)
    today, load = datetime.now(UTC).date(), os.getloadavg()[0]
    title = f"## {today}, {os.cpu_count()} cores, load {load:.1f}, best of {options.repeats}"
    text = "\n".join([title, "", *lines, ""])
    print(text)
    old = RESULTS.read_text() if RESULTS.is_file() else "# Reading and measuring tables\n"
    RESULTS.write_text(f"{old}\n{text}")


if __name__ == "__main__":
    main()
