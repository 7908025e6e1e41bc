"""How long reading and measuring a million rows takes, beside polars' bare read.

    python benchmarks/recommend_speed.py [--rows 1000000] [--repeats 3]

Makes a table of 20 float, 5 integer and 5 text columns and a target in a temporary folder, as CSV
and as Parquet, and times each step in a process of its own: the imports apart, the best of the
repeats, and the peak of resident memory. What it must reach: on CSV at most 1.5 times polars'
read_csv plus 2 s, within 3 GB; on Parquet 3 s.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

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
begin = time.perf_counter()
work()
seconds = time.perf_counter() - begin
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9]))
"""


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


def timed(what: str, path: Path, repeats: int) -> tuple[float, float]:
    """Best seconds and largest peak memory in GB of ``repeats`` fresh processes."""
    results = []
    for _ in range(repeats):
        command = [sys.executable, "-c", STEP, what, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout))
    return min(seconds for seconds, _ in results), max(peak for _, peak in results)


def main() -> None:
    """Make the files, time the four steps, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.rows)
        print(f"{options.rows:,} rows x 31 columns, best of {options.repeats}, peak memory of the process")
        print("file         MB  bare read  load+measure   limit  ratio     GB  verdict")
        for kind in ("csv", "parquet"):
            path = folder / f"data.{kind}"
            bare, _ = timed("bare", path, options.repeats)
            ours, peak = timed("ours", path, options.repeats)
            limit = 1.5 * bare + 2 if kind == "csv" else 3.0
            verdict = "met" if ours <= limit and peak < 3 else "MISSED"
            print(
                f"{kind:8} {path.stat().st_size / 1e6:6.0f} {bare:8.2f} s {ours:11.2f} s {limit:5.2f} s "
                f"{ours / bare:6.2f} {peak:6.2f}  {verdict}"
            )


if __name__ == "__main__":
    main()
