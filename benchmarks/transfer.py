"""What trained weights are worth: a network of timm, and an earlier run of ours.

    python benchmarks/transfer.py backbones      # digits 0-4 trained by timm, then 5-9 from few rows
    python benchmarks/transfer.py earlier        # half of a table, then 5 % of the rest

backbones: timm's ``test_resnet`` is trained on scikit-learn's digits 0 to 4 in plain torch and saved; then
the advisor learns digits 5 to 9 from 5, 20 and 100 rows of each class, with the weights fine-tuned, frozen,
and from scratch, and is tested on all other rows of these classes. earlier: the advice is trained on one half
of a table, then on 5 % of the rest from scratch and with ``--from``, and tested on what is left. Seconds are
those of the processor. Every finished training is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml
from resumable import go_on
from sklearn.datasets import load_digits
from torch import nn

import advisor
from advisor.networks.pretrained.timm_models import backbone_info, load_timm

HERE = Path(__file__).resolve().parent
NETWORK, SIDE = "test_resnet", 32
"""The smallest residual network of timm, on digits enlarged from 8 to 32 points."""
ROWS, SEEDS, FOLDS = (5, 20, 100), range(3), 3
WAYS = ("frozen", "fine_tuned", "scratch")
EPOCHS, BATCH = 30, 64
TEST_ROWS = 50
"""A run wants some test rows; the figures are those of all."""
TABLES, SHARE = ("phoneme", "spambase", "medexp"), 0.05
EARLIER = {"final_members": 1}


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (rows, 8, 8) of whole numbers, and their digits."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8), labels


def trained_backbone(file: Path, epochs: int = EPOCHS, network: str = NETWORK) -> None:
    """Train timm's network on the digits 0 to 4, as its own scripts do, and write its weights."""
    images, labels = digits()
    first = labels < 5
    info = backbone_info(network)
    x = torch.from_numpy(images[first]).float()[:, None].expand(-1, 3, -1, -1) / 255
    x = nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear")
    mean, deviation = (torch.tensor(one).view(1, 3, 1, 1) for one in (info.mean, info.deviation))
    x, y = (x - mean) / deviation, torch.from_numpy(labels[first])
    torch.manual_seed(0)
    module = load_timm().create_model(network, num_classes=5)
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3, weight_decay=0.05)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            if len(rows) == 1:
                continue
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    torch.save(module.state_dict(), file)


def few_digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the digits 5 to 9 that train, so many of each, and all others, which test."""
    labels = digits()[1]
    draw = np.random.default_rng(seed)
    own = [draw.permutation(np.flatnonzero(labels == digit)) for digit in range(5, 10)]
    train = np.sort(np.concatenate([one[:count] for one in own]))
    return train, np.sort(np.concatenate([one[count:] for one in own]))


def with_tests(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of these training and test rows."""
    images, labels = digits()
    return {
        "X_train": images[train],
        "y_train": labels[train],
        "X_test": images[test],
        "y_test": labels[test],
    }


def transferred(weights: Path, way: str, count: int, seed: int, out: Path, **fixed: object) -> dict:
    """Log loss and accuracy on the test rows, and seconds of the processor."""
    images, labels = digits()
    train, test = few_digits(count, seed)
    own = {
        "network": f"timm:{NETWORK}",
        "backbone_side": SIDE,
        "backbone_training": way,
        "folds": FOLDS,
        **fixed,
    }
    options = {} if way == "scratch" else {"weights": weights}
    begun = time.process_time()
    run = advisor.train(
        with_tests(train, test[:TEST_ROWS]),
        seed=seed,
        fixed=own,
        out=out,
        progress=False,
        **options,
    )
    seconds = time.process_time() - begun
    scores = run.model.predict_proba(images[test])
    place = np.searchsorted(run.model.classes, labels[test])
    right = scores[np.arange(len(test)), place]
    return {
        "accuracy": float((scores.argmax(axis=1) == place).mean()),
        "loss": float(-np.log(np.clip(right, 1e-15, 1)).mean()),
        "seconds": seconds,
    }


def backbones(results: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "digits.pt"

        def one(way: str, count: int, seed: int) -> dict:
            if not weights.exists():
                trained_backbone(weights)
            out = Path(folder) / f"{way}-{count}-{seed}"
            return {"rows": count, "seed": seed, "way": way} | transferred(weights, way, count, seed, out)

        todo = [(way, count, seed) for seed in SEEDS for count in ROWS for way in WAYS]
        case = ("way", "rows", "seed")
        go_on(results, "Digits 5 to 9 from weights of digits 0 to 4", case, todo, one, backbone_table)


def backbone_table(rows: list[dict]) -> str:
    """Means over the seeds with standard errors."""
    frame = pl.DataFrame(rows)
    lines = [
        "| rows of each class | way | accuracy | log loss | seconds | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for (count, way), part in frame.sort("rows").group_by("rows", "way", maintain_order=True):
        shown = [_mean(part[name]) for name in ("accuracy", "loss", "seconds")]
        lines.append(f"| {count} | {way} | {' | '.join(shown)} | {len(part)} |")
    return "\n".join(lines)


def _mean(values: pl.Series) -> str:
    error = (values.std() or 0.0) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{values.mean():.3f} +- {error:.3f}"


def parts_of(folder: Path, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One half of a table's training rows, and 5 % of the other half."""
    rows = pl.read_csv(folder / "train.csv", infer_schema_length=None)
    order = np.random.default_rng(seed).permutation(rows.height)
    half = rows.height // 2
    few = max(20, round(SHARE * (rows.height - half)))
    return rows[np.sort(order[:half])], rows[np.sort(order[half : half + few])]


def earlier_runs(results: Path, tables: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:

        def one(name: str, seed: int, way: str) -> dict:
            source, target = tables / name, _target(tables / name)
            half, few = parts_of(source, seed)
            earlier = Path(folder) / f"{name}-{seed}"
            if not earlier.exists() and way != "scratch":
                advisor.train(
                    half, target, seed=seed, test_fraction=0, fixed=EARLIER, out=earlier, progress=False
                )
            begun = time.process_time()
            if way == "earlier":
                model = advisor.load_model(earlier)
            else:
                options = {"from_run": earlier} if way == "from" else {}
                out = Path(folder) / f"{name}-{seed}-{way}"
                model = advisor.train(
                    few, target, seed=seed, test_fraction=0, out=out, progress=False, **options
                ).model
            seconds = time.process_time() - begun
            loss = _test_loss(model, pl.read_csv(source / "test.csv", infer_schema_length=None), target)
            return {
                "set": name,
                "seed": seed,
                "way": way,
                "rows": few.height,
                "loss": loss,
                "seconds": seconds,
            }

        todo = [
            (name, seed, way) for seed in SEEDS for name in TABLES for way in ("scratch", "from", "earlier")
        ]
        case = ("set", "seed", "way")
        go_on(results, "5 % of the rest of a table, after one half of it", case, todo, one, earlier_table)


def _target(folder: Path) -> str:
    return str(yaml.safe_load((folder / "meta.yaml").read_text())["target"])


def _test_loss(model: advisor.Model, test: pl.DataFrame, target: str) -> float:
    """Log loss, or the squared error as a share of the variance."""
    truth = test[target]
    if not model.schema.classes:
        wrong = truth.cast(pl.Float64).to_numpy() - model.predict(test)
        return float((wrong**2).mean() / truth.cast(pl.Float64).to_numpy().var())
    place = {str(label): number for number, label in enumerate(model.schema.classes)}
    codes = np.array([place[str(label)] for label in truth])
    scores = model.predict_proba(test)
    return float(-np.log(np.clip(scores[np.arange(len(codes)), codes], 1e-15, 1)).mean())


def earlier_table(rows: list[dict]) -> str:
    """Means over the seeds with standard errors."""
    frame = pl.DataFrame(rows)
    lines = ["| set | rows | way | loss | seconds | seeds |", "|---|---|---|---|---|---|"]
    for (name, count, way), part in frame.group_by("set", "rows", "way", maintain_order=True):
        loss, seconds = (_mean(part[one]) for one in ("loss", "seconds"))
        lines.append(f"| {name} | {count} | {way} | {loss} | {seconds} | {len(part)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["backbones", "earlier"])
    parser.add_argument("--tables", type=Path, default=HERE.parents[1] / "shared" / "data" / "tables")
    asked = parser.parse_args()
    results = HERE / "results" / f"transfer_{asked.what}.jsonl"
    if asked.what == "backbones":
        backbones(results)
    else:
        earlier_runs(results, asked.tables)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
