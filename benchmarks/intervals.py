"""How often intervals and class sets of 0.9 hold the truth, on test rows of many data sets.

    python benchmarks/intervals.py FOLDER [--epochs 60] [--rows 1500]

FOLDER holds a folder for each set with train.csv, half of whose rows are the test here, and meta.yaml. Where
it has fewer than 30 sets, those that scikit-learn ships and made ones follow. A line per set, then the means.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn import datasets

from advisor.sklearn import AdvisorClassifier, AdvisorRegressor

LEVEL, SETS, TEST_SHARE = 0.9, 30, 0.5

Named = tuple[str, pd.DataFrame, pd.Series]


def given(folder: Path) -> Iterator[Named]:
    """The sets of a folder; their own test part is not read."""
    for meta in sorted(folder.glob("*/meta.yaml")):
        target = yaml.safe_load(meta.read_text())["target"]
        frame = pd.read_csv(meta.parent / "train.csv").dropna(subset=[target])
        yield meta.parent.name, frame.drop(columns=target), frame[target]


def shipped() -> Iterator[Named]:
    """Those of scikit-learn, and made ones: noise that grows or does not, classes that overlap."""
    for name in ("diabetes", "wine", "breast_cancer", "iris"):
        bunch = getattr(datasets, f"load_{name}")(as_frame=True)
        yield name, bunch.data, bunch.target
    for seed in range(SETS):
        draw = np.random.default_rng(seed)
        x = pd.DataFrame(draw.normal(size=(1500, 3 + seed % 5))).add_prefix("x")
        signal = x["x0"] + np.sin(2 * x["x1"]) * (1 + seed % 3)
        noise = draw.normal(size=len(x)) * (0.3 + (seed % 2) * x["x2"].abs())
        if seed % 3 == 2:
            yield f"made classes {seed}", x, (signal + noise > 0).map({True: "p", False: "n"})
        else:
            y = signal + noise
            yield f"made numbers {seed}", x, np.exp(y) if seed % 4 == 3 else y


def covered(name: str, x: pd.DataFrame, y: pd.Series, epochs: int, rows: int) -> tuple[str, float, float]:
    """Task, coverage of the test rows, and mean width (share of the target's spread) or size of the sets."""
    order = np.random.default_rng(0).permutation(len(x))[: 2 * rows]
    cut = int(len(order) * TEST_SHARE)
    train, test = order[:cut], order[cut:]
    numbers = y.dtype.kind == "f" or (y.dtype.kind in "iu" and y.nunique() > 20)
    if numbers:
        fitted = AdvisorRegressor(epochs=epochs).fit(x.iloc[train], y.iloc[train])
        low, high = fitted.model_.predict_interval(x.iloc[test], LEVEL).T
        truth = y.iloc[test].to_numpy()
        return (
            "regression",
            float(((low <= truth) & (truth <= high)).mean()),
            float(np.mean(high - low) / y.std()),
        )
    fitted = AdvisorClassifier(epochs=epochs).fit(x.iloc[train], y.iloc[train])
    sets = fitted.model_.predict_interval(x.iloc[test], LEVEL)
    labels = np.array([str(label) for label in fitted.model_.schema.classes])
    hits = sets & (labels[None, :] == y.iloc[test].astype(str).to_numpy()[:, None])
    return "classes", float(hits.any(axis=1).mean()), float(sets.sum(axis=1).mean())


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rows", type=int, default=1500)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"regression": [], "classes": []}
    for name, x, y in (*given(options.folder), *shipped()):
        if sum(map(len, found.values())) >= SETS:
            break
        try:
            task, coverage, size = covered(name, x, y, options.epochs, options.rows)
        except ValueError as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        found[task].append(coverage)
        print(f"{name:30} {task:10} {coverage:.3f}  {size:.2f}", flush=True)
    for task, values in found.items():
        if values:
            spread = f"{min(values):.3f} to {max(values):.3f}"
            print(f"{task}: {len(values)} sets, mean coverage {np.mean(values):.3f} ({spread})")


if __name__ == "__main__":
    main()
