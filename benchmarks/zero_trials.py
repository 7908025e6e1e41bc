"""Zero trials: the recommendation, trained, against scikit-learn's MLP and linear model at their defaults.

    python benchmarks/zero_trials.py # every set of ../shared/data/tables, test parts, 3 seeds python
    benchmarks/zero_trials.py --dev --seeds 1 # only training parts, for developing a rule

Test loss (log loss or mean squared error) of the same test rows for all. Every finished (set,
seed) is kept in the results file at once, and a second call goes on from there; the table is
printed, and written beside it as Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import yaml
from resumable import go_on

import advisor
from advisor.data.options import ReadingOptions
from advisor.data.tables.table import load_table
from advisor.evaluation.baselines import _linear_inputs, matrix_of

HERE = Path(__file__).resolve().parent
SMALL_ROWS = 600


def sklearn_mlp(table, seed: int) -> tuple[float, float]:
    """Test loss and seconds of MLPClassifier or MLPRegressor at defaults, on
    imputed, scaled and one-hot inputs."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline

    train, test = table.dataset("train"), table.dataset("test")
    begun = time.monotonic()
    network = MLPRegressor if not train.task.of_classes else MLPClassifier
    model = make_pipeline(_linear_inputs(train.features), network(random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(matrix_of(train.features), train.target)
    if not train.task.of_classes:
        scores = model.predict(matrix_of(test.features))
    else:
        scores = np.zeros((len(test), len(train.classes)))
        scores[:, model.classes_] = model.predict_proba(matrix_of(test.features))
    return float(train.task.row_losses(test.target, scores).mean()), time.monotonic() - begun


def measure(folder: Path, seed: int, dev: bool) -> dict:
    target = yaml.safe_load((folder / "meta.yaml").read_text())["target"]
    source, test = folder / "train.csv", None if dev else folder / "test.csv"
    options = {"test": test, "seed": seed, "test_fraction": 0.25}
    with tempfile.TemporaryDirectory() as out:
        begun = time.monotonic()
        run = advisor.train(source, target, out=Path(out) / "run", **options)
        seconds = time.monotonic() - begun
    table = load_table(source, target, ReadingOptions(**options))
    losses = {entry["name"]: entry["loss"] for entry in run.document["test"]["results"]}
    mlp, mlp_seconds = sklearn_mlp(table, seed)
    estimate = run.document["estimate"]
    return {
        "set": folder.name,
        "seed": seed,
        "rows": table.train.height,
        "task": table.schema.task,
        "network": losses["network"],
        "mlp": mlp,
        "linear": losses["linear"],
        "boosting": losses["gradient boosting"],
        "covered": estimate["low"] <= losses["network"] <= estimate["high"],
        "seconds": seconds,
        "mlp_seconds": mlp_seconds,
    }


def geometric(values) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-12)))))


def table_of(rows: list[dict]) -> str:
    lines = [
        "| set | rows | task | network | MLP | linear | boosting | network / MLP | network / linear | s | "
        "MLP s |"
    ]
    lines.append("|" + "---|" * 11)
    means = []
    for name in sorted({row["set"] for row in rows}):
        own = [row for row in rows if row["set"] == name]
        mean = {
            key: float(np.mean([row[key] for row in own]))
            for key in own[0]
            if not isinstance(own[0][key], str)
        }
        mean["set"] = name
        means.append(mean)
        numbers = " | ".join(f"{mean[key]:.4g}" for key in ("network", "mlp", "linear", "boosting"))
        ratios = f"{mean['network'] / mean['mlp']:.3f} | {mean['network'] / mean['linear']:.3f}"
        lines.append(
            f"| {name} | {mean['rows']:.0f} | {own[0]['task']} | {numbers} | {ratios} "
            f"| {mean['seconds']:.0f} | {mean['mlp_seconds']:.0f} |"
        )
    ratio = [m["network"] / m["mlp"] for m in means]
    small = [m["network"] / m["linear"] for m in means if m["rows"] < SMALL_ROWS]
    lines += [
        "",
        f"{len(means)} sets, {len(rows)} runs. Network / MLP: geometric mean {geometric(ratio):.3f}, better "
        "on "
        f"{sum(r < 1 for r in ratio)} of {len(ratio)} sets.",
    ]
    if small:
        lines.append(
            f"Under {SMALL_ROWS} rows, network / linear: geometric mean {geometric(small):.3f}, "
            f"no worse on {sum(r <= 1 for r in small)} of {len(small)} sets."
        )
    boosted = [m["network"] / m["boosting"] for m in means]
    lines.append(f"Network / gradient boosting: geometric mean {geometric(boosted):.3f}.")
    lines.append(
        f"The 90 % interval covered the test loss in {np.mean([row['covered'] for row in rows]):.0%} of runs."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--dev", action="store_true", help="hold rows out of the training part; never read a test part"
    )
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    folders = {f.name: f for f in arguments.data.iterdir() if f.is_dir()}
    by_size = sorted(folders, key=lambda name: (folders[name] / "train.csv").stat().st_size)
    go_on(
        arguments.results
        or HERE / "results" / ("zero_trials_dev.jsonl" if arguments.dev else "zero_trials.jsonl"),
        "Zero trials",
        ("seed", "set"),
        itertools.product(
            range(arguments.seeds), [name for name in by_size if name in (arguments.sets or folders)]
        ),
        lambda seed, name: measure(folders[name], seed, arguments.dev),
        table_of,
    )


if __name__ == "__main__":
    main()
