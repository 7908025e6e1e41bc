"""The advised treatment of rare classes against none, and every treatment that training offers.

    python benchmarks/imbalance.py               # all imbalanced sets of ../shared/data/tables, 3 seeds
    python benchmarks/imbalance.py --treatments  # each treatment, on parts of the training rows
    python benchmarks/imbalance.py --teacher     # a teacher beside classifier re-training

The last two read no test row. The last has images and series too: scikit-learn's digits and MNIST-1D, from
which rows are left out until the largest class has 20 times the rows of the smallest; they are tested on
rows of the same shares.

Each run is `fit` (no search) on the same rows with the same seed. "none" is class_balance none
with the most likely class predicted, "advised" the treatment of the rules and decision prior_corrected.
Every finished (set, seed, treatment) is kept at once, and a second call goes on from there. Balanced
accuracy and macro F1 of --teacher are those of the class that stands out most against its share, for every
treatment.
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
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, log_loss

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
TREATMENTS = ["reweight", "focal", "oversample", "noise", "smote", "classifier_retraining", "teacher"]
TEACHER_SETS = [
    "yeast4",
    "attrition",
    "digits",
    "mlc-churn",
    "MNIST-1D",
    "page-blocks0",
    "abalone19",
    "default-islr",
]
TEACHERS = ["none", "classifier_retraining", "teacher", "teacher of half the width"]
LONG_TAIL = 20
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


def measure_teacher(data: Path, name: str, seed: int, treatment: str) -> dict:
    """One of TEACHERS on a part of a set's training rows, judged on the other part."""
    fixed = {"class_balance": treatment.split()[0], "decision": "most_likely"}
    if treatment.endswith("half the width"):
        fixed["student_width"] = 0.5
    with tempfile.TemporaryDirectory() as out:
        begun = time.process_time()
        if (data / "tables" / name).is_dir():
            folder = data / "tables" / name
            label = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
            rows = pl.read_csv(folder / "train.csv", infer_schema_length=None)
            order = np.random.default_rng(1000 + seed).permutation(rows.height)
            train, new = rows[np.sort(order[rows.height // 4 :])], rows[np.sort(order[: rows.height // 4])]
            run = advisor.train(train, label, seed=seed, fixed=fixed, out=Path(out) / "run")
            truth, learnt = new[label].to_numpy(), train[label].to_numpy()
        else:
            x, y = long_tail(data, name, seed)
            order = np.random.default_rng(1000 + seed).permutation(len(y))
            kept, held = order[len(y) // 4 :], order[: len(y) // 4]
            np.savez(Path(out) / "data.npz", X_train=x[kept], y_train=y[kept])
            run = advisor.train(Path(out) / "data.npz", seed=seed, fixed=fixed, out=Path(out) / "run")
            new, truth, learnt = x[held], y[held], y[kept]
        said = run.model.predict_proba(new)
        seconds = time.process_time() - begun
        labels = [str(label) for label in run.model.classes.tolist()]
        shares = np.array([np.mean([str(value) == one for value in learnt.tolist()]) for one in labels])
        codes = np.array([labels.index(str(value)) for value in truth.tolist()])
    decided = (said / shares).argmax(axis=1)
    return {
        "set": name,
        "seed": seed,
        "treatment": treatment,
        "processor_seconds": seconds,
        "loss": float(log_loss(codes, said, labels=range(len(labels)))),
        "balanced_accuracy": float(balanced_accuracy_score(codes, decided)),
        "macro_f1": float(f1_score(codes, decided, average="macro")),
        "average_precision": float(average_precision_score(codes, said[:, 1])) if len(labels) == 2 else None,
    }


def long_tail(data: Path, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images or series with rows of all but the first class left out, ever more."""
    if name == "digits":
        digits = load_digits()
        x, y = np.round(digits.images * 255 / 16).astype(np.uint8)[:, None], digits.target
    else:
        arrays = np.load(data / "sequences" / name / "data.npz")
        x, y = arrays["X_train"], arrays["y_train"]
    draw, kept = np.random.default_rng(seed), []
    classes, counts = np.unique(y, return_counts=True)
    for place, one in enumerate(classes):
        share = LONG_TAIL ** -(place / (len(classes) - 1))
        kept.append(draw.choice(np.flatnonzero(y == one), round(counts.min() * share), replace=False))
    rows = draw.permutation(np.concatenate(kept))
    return x[rows], y[rows]


def teacher_table(rows: list[dict]) -> str:
    """As ``table_of``, with macro F1 for the average precision, and the standard errors over sets."""
    return table_of([row | {"average_precision": row["macro_f1"]} for row in rows]).replace(
        "average precision", "macro F1"
    )


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
        error = np.log(ratios).std(ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else np.nan
        lines.append(
            f"{treatment}: {len(values)} sets, log loss / none {np.exp(np.log(ratios).mean()):.3f} "
            "(standard error "
            f"{error:.3f}, worse on {int((ratios > 1 + 1e-9).sum())}), balanced accuracy "
            f"{balanced.mean():+.3f} "
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
    parser.add_argument("--teacher", action="store_true", help="a teacher, and what it must beat")
    arguments = parser.parse_args()
    data, parts = arguments.data, arguments.treatments
    if arguments.teacher:
        sets = TEACHER_SETS if arguments.sets == SETS else arguments.sets
        return go_on(
            HERE / "results" / "imbalance_teacher.jsonl",
            "Rare classes: a teacher and classifier re-training against none",
            ("seed", "set", "treatment"),
            itertools.product(range(arguments.seeds), sets, TEACHERS),
            lambda seed, name, treatment: measure_teacher(data.parent, name, seed, treatment),
            teacher_table,
        )
    return go_on(
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
