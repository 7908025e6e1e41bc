"""The advised treatment of rare classes against none, and every treatment that training offers.

    python benchmarks/imbalance.py # all imbalanced sets of ../shared/data/tables, 3 seeds,
    advised against none python benchmarks/imbalance.py --treatments # each treatment too, on a
    part of the training rows (no test row is read)

Each run is `fit` (no search) on the same rows with the same seed. "none" is class_balance none
with the most likely class predicted, "advised" the treatment of the rules and decision prior_corrected.
Every finished (set, seed, treatment) is kept at once, and a second call goes on from there.
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
SETS = [
    "yeast4",
    "attrition",
    "page-blocks0",
    "abalone19",
    "mlc-churn",
    "default-islr",
    "nass-cds",
    "mpls-stops",
]
TREATMENTS = ["reweight", "focal", "oversample", "noise", "smote", "classifier_retraining"]
NONE = {"class_balance": "none", "decision": "most_likely"}
MEASURES = ("loss", "balanced_accuracy", "average_precision", "accuracy")


def measure(folder: Path, seed: int, treatment: str, development: bool) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    fixed = {"none": NONE, "advised": {"decision": "prior_corrected"}}.get(
        treatment, {"class_balance": treatment, "decision": "most_likely"}
    )
    with tempfile.TemporaryDirectory() as out:
        train, test = folder / "train.csv", folder / "test.csv"
        if development:
            rows = pl.read_csv(train, infer_schema_length=None)
            order = np.random.default_rng(1000 + seed).permutation(rows.height)
            train, test = Path(out) / "train.csv", Path(out) / "test.csv"
            rows[np.sort(order[rows.height // 4 :])].write_csv(train)
            rows[np.sort(order[: rows.height // 4])].write_csv(test)
        begun = time.monotonic()
        run = advisor.train(train, target, test=test, seed=seed, fixed=fixed, out=Path(out) / "run")
        result = run.document["test"]["results"][0]
    return {
        "set": folder.name,
        "seed": seed,
        "treatment": treatment,
        "seconds": time.monotonic() - begun,
        **{name: result.get(name) for name in MEASURES},
    }


def table_of(rows: list[dict]) -> str:
    """Per treatment the paired differences to none: mean over the sets of the mean
    over seeds, with its standard error."""
    found = {(row["set"], row["seed"], row["treatment"]): row for row in rows}
    lines = [
        "| set | treatment | seeds | log loss / none | balanced accuracy - none | average precision - none |"
    ]
    lines.append("|" + "---|" * 6)
    overall: dict[str, list[tuple[float, float, float]]] = {}
    for treatment in dict.fromkeys(row["treatment"] for row in rows if row["treatment"] != "none"):
        for name in dict.fromkeys(row["set"] for row in rows):
            pairs = [
                (row, found[name, row["seed"], "none"])
                for row in rows
                if row["set"] == name
                and row["treatment"] == treatment
                and (name, row["seed"], "none") in found
            ]
            if not pairs:
                continue
            ratio = float(np.exp(np.mean([np.log(own["loss"] / none["loss"]) for own, none in pairs])))
            balanced, precision = (
                float(np.mean([own[key] - none[key] for own, none in pairs]))
                if pairs[0][0][key] is not None
                else np.nan
                for key in ("balanced_accuracy", "average_precision")
            )
            overall.setdefault(treatment, []).append((ratio, balanced, precision))
            lines.append(
                f"| {name} | {treatment} | {len(pairs)} | {ratio:.3f} | {balanced:+.3f} | {precision:+.3f} |"
            )
    lines.append("")
    for treatment, values in overall.items():
        ratios, balanced, precision = (np.array(column) for column in zip(*values, strict=True))
        lines.append(
            f"{treatment}: {len(values)} sets, log loss / none {np.exp(np.log(ratios).mean()):.3f} (worse on "
            f"{int((ratios > 1 + 1e-9).sum())}), balanced accuracy {balanced.mean():+.3f} "
            f"(better on {int((balanced > 0).sum())}), "
            f"average precision {np.nanmean(precision):+.3f} (better on {int((precision > 0).sum())})."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument(
        "--treatments", action="store_true", help="every treatment, on parts of the training rows alone"
    )
    arguments = parser.parse_args()
    data, parts = arguments.data, arguments.treatments
    go_on(
        HERE / "results" / ("imbalance_treatments.jsonl" if parts else "imbalance.jsonl"),
        "Rare classes: treatments against none",
        ("seed", "set", "treatment"),
        itertools.product(
            range(arguments.seeds), arguments.sets, ["none", *(TREATMENTS if parts else ["advised"])]
        ),
        lambda seed, name, treatment: measure(data / name, seed, treatment, parts),
        table_of,
    )


if __name__ == "__main__":
    main()
