"""A cosine classifier beside a linear one, and a class that is added from five examples.

    python benchmarks/metric_learning.py              # 3 sets, 3 seeds; what is finished is kept
    python benchmarks/metric_learning.py --seeds 1

Sets: scikit-learn's digits (images), MNIST-1D (series; 20 rows of each class train and 400 rows are judged,
of both) and leaf-flavia (a table of 32 classes, a quarter is judged), the last two from ../shared/data. All
rows are of their training parts: no test row is read.

"linear" and "cosine" are `advisor train` with every class. "without C" trains without one class, and then
adds it by `advisor enrol` from 5 examples. unknown_found: share of the judged rows of C that
`unlike_any_class` marks before C is added; false_alarms: of the judged rows of the other classes. old_before,
old_after: accuracy on the other classes, new: on C.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from resumable import go_on
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

import advisor

HERE = Path(__file__).resolve().parent
SETS = ("digits", "leaf-flavia", "MNIST-1D")
TRAINED, JUDGED, EXAMPLES = 20, 400, 5
LEFT_OUT = 3
"""Classes that are left out of a set, one after the other."""
COSINE = {"classifier": "cosine"}


class Rows:
    """Rows with labels, as a table or an array. parts: a file that the advisor reads."""

    def __init__(self, x: Any, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def of(self, chosen: np.ndarray) -> Rows:
        return Rows(self.x[chosen], self.y[chosen])

    def source(self, folder: Path) -> tuple[Any, ...]:
        if isinstance(self.x, pl.DataFrame):
            return self.x.with_columns(label=pl.Series(self.y)), "label"
        np.savez(folder / "data.npz", X_train=self.x, y_train=self.y)
        return (folder / "data.npz",)


def rows_of(data: Path, name: str, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on and rows to judge."""
    draw = np.random.default_rng(1000 + seed)
    if name == "leaf-flavia":
        folder = data / "tables" / name
        table = pl.read_csv(folder / "train.csv", infer_schema_length=None)
        label = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
        rows = Rows(table.drop(label), table[label].cast(pl.String).to_numpy().astype(str))
        order = draw.permutation(len(rows.y))
        judged, train = order[: len(order) // 4], order[len(order) // 4 :]
    else:
        if name == "digits":
            digits = load_digits()
            x, y = np.round(digits.images * 255 / 16).astype(np.uint8)[:, None], digits.target
        else:
            arrays = np.load(data / "sequences" / name / "data.npz")
            x, y = arrays["X_train"], arrays["y_train"]
        rows = Rows(x, y.astype(str))
        order = draw.permutation(len(rows.y))
        judged, rest = order[:JUDGED], order[JUDGED:]
        train = np.concatenate([rest[rows.y[rest] == one][:TRAINED] for one in np.unique(rows.y)])
    return rows.of(np.sort(train)), rows.of(judged)


def right(run: Any, rows: Rows) -> np.ndarray:
    return advisor.load_model(run.folder).predict(rows.x).astype(str) == rows.y


def measure(data: Path, name: str, seed: int, case: str) -> dict:
    train, judged = rows_of(data, name, seed)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out)
        if case in ("linear", "cosine"):
            fixed = COSINE if case == "cosine" else {}
            run = advisor.train(*train.source(folder), seed=seed, fixed=fixed, out=folder / "run")
            labels = [str(one) for one in run.model.classes.tolist()]
            said = run.model.predict_proba(judged.x)
            found = {
                "loss": float(log_loss(judged.y, said[:, np.argsort(labels)], labels=sorted(labels))),
                "accuracy": float(right(run, judged).mean()),
                "recall_at_1": run.document["final"]["contenders"][0].get("recall_at_1"),
            }
        else:
            found = left_out(folder, train, judged, seed, int(case.split()[-1]))
    seconds = time.process_time() - begun
    return {"set": name, "seed": seed, "case": case, "processor_seconds": seconds, **found}


def left_out(folder: Path, train: Rows, judged: Rows, seed: int, place: int) -> dict:
    classes = np.unique(train.y)
    one = classes[np.random.default_rng(seed).permutation(len(classes))[place]]
    others = train.of(np.flatnonzero(train.y != one))
    run = advisor.train(*others.source(folder), seed=seed, fixed=COSINE, out=folder / "run")
    old, new = judged.of(np.flatnonzero(judged.y != one)), judged.of(np.flatnonzero(judged.y == one))
    alarms, marked = (
        advisor.predict(run.folder, _file(folder, rows))["unlike_any_class"] for rows in (old, new)
    )
    before = right(run, old).mean()
    examples = train.of(np.flatnonzero(train.y == one)[:EXAMPLES])
    advisor.enrol(run.folder, examples.x, name=str(one))
    return {
        "class": str(one),
        "rows_of_it": len(new.y),
        "false_alarms": float(alarms.mean()),
        "unknown_found": float(marked.mean()),
        "old_before": float(before),
        "old_after": float(right(run, old).mean()),
        "new": float(right(run, new).mean()),
    }


def _file(folder: Path, rows: Rows) -> Any:
    if isinstance(rows.x, pl.DataFrame):
        return rows.x
    np.save(folder / "rows.npy", rows.x)
    return folder / "rows.npy"


def table_of(rows: list[dict]) -> str:
    """Means over seeds, and over the classes left out."""
    lines = [
        "| set | classifier | runs | log loss | accuracy | recall@1 | processor seconds |",
        "|" + "---|" * 7,
    ]
    for name in SETS:
        for case in ("linear", "cosine"):
            own = [row for row in rows if row["set"] == name and row["case"] == case]
            if own:
                recall = [row["recall_at_1"] for row in own if row["recall_at_1"] is not None]
                shown = f"{np.mean(recall):.3f}" if recall else "-"
                lines.append(
                    f"| {name} | {case} | {len(own)} | {_mean(own, 'loss')} | "
                    f"{_mean(own, 'accuracy')} | {shown} | "
                    f"{np.mean([row['processor_seconds'] for row in own]):.0f} |"
                )
    keys = ("old_before", "old_after", "new", "false_alarms", "unknown_found")
    lines += ["", f"| set | runs | {' | '.join(key.replace('_', ' ') for key in keys)} |", "|" + "---|" * 7]
    for name in SETS:
        own = [row for row in rows if row["set"] == name and row["case"].startswith("without")]
        if own:
            lines.append(f"| {name} | {len(own)} | {' | '.join(_mean(own, key) for key in keys)} |")
    return "\n".join(lines)


def _mean(rows: list[dict], key: str) -> str:
    values = [row[key] for row in rows]
    if len(values) < 2:
        return f"{np.mean(values):.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    cases = ["linear", "cosine", *(f"without class {place}" for place in range(LEFT_OUT))]
    go_on(
        HERE / "results" / "metric_learning.jsonl",
        "A cosine classifier beside a linear one, and a class added from five examples",
        ("seed", "set", "case"),
        [(seed, name, case) for seed in range(arguments.seeds) for name in arguments.sets for case in cases],
        lambda seed, name, case: measure(arguments.data, name, seed, case),
        table_of,
    )


if __name__ == "__main__":
    main()
