"""What each rule for tables is worth: the recommendation trained with all rules, and with one left out.

    python benchmarks/rule_evidence.py # 250 and 1,000 rows of 8 sets of ../shared/data/tables, one draw
    python benchmarks/rule_evidence.py --rules embed-numbers clip-the-gradient --draws 3 python
    benchmarks/rule_evidence.py --write # rules/evidence.yaml anew, from what is measured

A rule is measured where it changes a value of the configuration. The training rows are drawn from larger
sets and 1,500 others test, as in small_tables.py; no test part is read. Every finished (set, rows, draw,
rule) is kept at once, and a second call goes on from there. The effect of a rule is the geometric mean over
sets of test loss with it / without it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from resumable import keep, kept
from small_tables import drawn

import advisor

HERE = Path(__file__).resolve().parent
SETS = ["phoneme", "cells", "spambase", "deliveries", "mlc-churn", "cps-wages-9204", "segment", "medexp"]
ROWS = (250, 1000)
NOT_MEASURED = (
    *("squared-error-for-numbers", "monitor-validation-loss"),
    *("eight-folds-for-tiny-tables", "five-folds-for-small-tables"),
)
"""They say what the loss is and how it is judged, or make the final model of
several networks: another question."""
FEWEST_SETS = 4
EVIDENCE = HERE.parent / "rules" / "evidence.yaml"


def trained(folder: Path, rows: int, draw: int, without: Sequence[str]) -> dict[str, Any]:
    train, test, target = drawn(folder, draw, rows)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        run = advisor.train(train, target, test=test, seed=draw, without=list(without), out=Path(out) / "run")
    loss = next(entry["loss"] for entry in run.document["test"]["results"] if entry["name"] == "network")
    seconds = time.monotonic() - begun
    return {
        "set": folder.name,
        "rows": rows,
        "draw": draw,
        "without": list(without),
        "loss": loss,
        "seconds": seconds,
    }


def rules_that_matter(folder: Path, rows: int, draw: int) -> list[str]:
    """Ids of the rules without which the configuration would be another one."""
    train, test, target = drawn(folder, draw, rows)
    advised = advisor.recommend(train, target, test=test)
    took_part = {step.rule for source in advised.provenance.values() for step in source.steps if step.rule}
    return [
        name
        for name in sorted(took_part - set(NOT_MEASURED))
        if advisor.recommend(train, target, test=test, without=[name]).configuration != advised.configuration
    ]


def effects(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rule -> ratios: set -> mean logarithm of the test loss with the rule over that without it."""
    base = {(row["set"], row["rows"], row["draw"]): row["loss"] for row in found if not row["without"]}
    logs: dict[str, dict[str, list[float]]] = {}
    for row in found:
        if row["without"]:
            ratio = np.log(base[row["set"], row["rows"], row["draw"]] / row["loss"])
            logs.setdefault(row["without"][0], {}).setdefault(row["set"], []).append(float(ratio))
    return {name: {s: float(np.mean(values)) for s, values in own.items()} for name, own in logs.items()}


def summary(by_set: dict[str, float]) -> tuple[float, float, float]:
    """Geometric mean of the ratios, and two standard errors over the sets either way."""
    values = np.array(list(by_set.values()))
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    return (
        float(np.exp(values.mean())),
        float(np.exp(values.mean() - 2 * error)),
        float(np.exp(values.mean() + 2 * error)),
    )


def table_of(found: list[dict[str, Any]]) -> str:
    lines = ["| rule | sets | test loss with / without | interval | lower on |", "|---|---|---|---|---|"]
    for name, by_set in sorted(effects(found).items(), key=lambda item: summary(item[1])[0]):
        mean, low, high = summary(by_set)
        lower = sum(value < 0 for value in by_set.values())
        lines.append(
            f"| {name} | {len(by_set)} | {mean:.3f} | {low:.3f} to {high:.3f} | {lower} of {len(by_set)} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "Below 1: the rule lowers the test loss. Intervals are two standard errors over the sets.",
        ]
    )


def evidence_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Entries of evidence.yaml for the rules that were measured on FEWEST_SETS sets or more."""
    entries = {}
    for name, by_set in sorted(effects(found).items()):
        if len(by_set) < FEWEST_SETS:
            continue
        mean, low, high = summary(by_set)
        entries[name] = {
            "effect": f"test loss {mean:.3f} times that without the rule",
            "interval": f"{low:.3f} to {high:.3f}",
            "sets": len(by_set),
            "command": f"python benchmarks/rule_evidence.py --rules {name}",
        }
    return entries


def write_evidence(found: list[dict[str, Any]]) -> None:
    """Measured rules anew; entries that other programs measured stay."""
    kept = yaml.safe_load(EVIDENCE.read_text())["evidence"] if EVIDENCE.exists() else {}
    kept = {name: entry for name, entry in kept.items() if "rule_evidence.py" not in entry["command"]}
    head = "# Measured effects of rules, by id: shown with the rule wherever it is.\n"
    head += (
        "# Made by benchmarks/rule_evidence.py --write; entries with another command are kept as they are.\n"
    )
    entries = dict(sorted({**evidence_of(found), **kept}.items()))
    EVIDENCE.write_text(head + yaml.safe_dump({"format": 1, "evidence": entries}, sort_keys=False, width=130))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--rules", nargs="*", help="By default all that change the configuration.")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    results = HERE / "results" / "rule_evidence.jsonl"
    found = kept(results)
    if arguments.write:
        write_evidence(found)
        return
    done = {(row["set"], row["rows"], row["draw"], *row["without"]) for row in found}
    for draw in range(arguments.draws):
        for rows in arguments.rows:
            for name in arguments.sets:
                folder = arguments.data / name
                rules = rules_that_matter(folder, rows, draw)
                for without in [
                    [],
                    *([rule] for rule in rules if not arguments.rules or rule in arguments.rules),
                ]:
                    if (name, rows, draw, *without) in done:
                        continue
                    found.append(trained(folder, rows, draw, without))
                    keep(results, found[-1])
                results.with_suffix(".md").write_text(f"# What each rule is worth\n\n{table_of(found)}\n")
    print(table_of(found))


if __name__ == "__main__":
    main()
