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
from resumable import go_on
from sklearn.datasets import load_digits
from torch import nn

import advisor
from advisor.networks.pretrained.timm_models import backbone_info, load_timm

HERE = Path(__file__).resolve().parent
NETWORK, SIDE = "test_resnet", 32
"""The smallest residual network of timm, on digits enlarged from 8 to 32 points."""
ROWS, SEEDS, FOLDS = (5, 20, 100), range(3), 3
WAYS = ("fine_tuned", "frozen", "scratch", "advised")
EPOCHS, BATCH = 30, 64


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


def transferred(weights: Path, way: str, count: int, seed: int, out: Path, **fixed: object) -> dict:
    """Log loss and accuracy on the test rows, and seconds of the processor."""
    images, labels = digits()
    train, test = few_digits(count, seed)
    own = {"network": f"timm:{NETWORK}", "backbone_side": SIDE, "backbone_training": way, **fixed}
    own = {"folds": FOLDS} | ({} if way == "advised" else own)
    options = {"weights": weights} if way in ("fine_tuned", "frozen") else {}
    begun = time.process_time()
    run = advisor.train(
        images[train],
        labels[train],
        test_fraction=0,
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["backbones"])
    parser.parse_args()
    backbones(HERE / "results" / "transfer_backbones.jsonl")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
