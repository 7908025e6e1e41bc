"""Masks of membranes: the recommendation against segmentation-models-pytorch's U-Net without weights.

    python benchmarks/membranes.py --python VENV/bin/python     # seed 0, 50 epochs of the U-Net
    python benchmarks/membranes.py --python VENV/bin/python --seeds 0 1 2 --epochs 10 50

10 + 5 slices of ../shared/data/masks/membranes. VENV has benchmarks/peers/requirements/segmentation.txt
installed; torch may come from ours (a .pth file), so that both use the same one. Each trains with as many
threads as OMP_NUM_THREADS allows; seconds are the processor's, of training alone for the U-Net and of the
whole of ``advisor.train`` (reading, measuring, training, baselines, report) for ours. The bar: more Dice, the
mean of both classes over all test points, in at most half of the U-Net's seconds. Every finished (what, seed)
is kept at once, and a second call goes on from there; the table is results/membranes.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from resumable import go_on

import advisor
from advisor.tasks import overlaps

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "masks" / "membranes"
OURS = "advice"


def images_of(part: str, kind: str) -> NDArray[np.uint8]:
    files = sorted((DATA / part / kind).glob("*.png"))
    return np.stack([np.asarray(Image.open(file).convert("L")) for file in files])


def scored(said: NDArray[np.uint8]) -> dict[str, float]:
    truth = images_of("test", "masks")
    both, true, found = overlaps((truth > 0).astype(np.uint8), said, 2).sum(axis=0).T
    dice = 2 * both / (true + found)
    return {"dice": float(dice.mean()), "dice_membrane": float(dice[0]), "dice_cell": float(dice[1])}


def ours(seed: int, folder: Path) -> tuple[NDArray[np.uint8], float]:
    begun = time.process_time()
    run = advisor.train(DATA, out=folder / "run", seed=seed, progress=False)
    seconds = time.process_time() - begun
    return (run.model.predict(DATA / "test" / "images") > 0).astype(np.uint8), seconds


def theirs(python: str, seed: int, epochs: int, folder: Path) -> tuple[NDArray[np.uint8], float]:
    rows, out = folder / "rows.npz", folder / "said.npz"
    train = {"X_train": images_of("train", "images"), "Y_train": images_of("train", "masks") > 0}
    np.savez(rows, X_test=images_of("test", "images"), **train)
    script = HERE / "peers" / "smp_unet.py"
    subprocess.run([python, str(script), str(rows), str(out), str(seed), str(epochs)], check=True)
    with np.load(out) as archive:
        return archive["masks"], float(archive["processor"])


def table_of(rows: list[dict]) -> str:
    lines = ["| what | seed | Dice | of membrane | of cell | processor s |", "|---|---|---|---|---|---|"]
    for r in sorted(rows, key=lambda r: (r["what"], r["seed"])):
        scores = " | ".join(f"{r[name]:.3f}" for name in ("dice", "dice_membrane", "dice_cell"))
        lines.append(f"| {r['what']} | {r['seed']} | {scores} | {r['processor']:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, nargs="+", default=[50])
    given = parser.parse_args()
    contestants = {f"U-Net of smp, {epochs} epochs": epochs for epochs in given.epochs}

    def measure(what: str, seed: int) -> dict:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            epochs = contestants.get(what)
            said, seconds = (
                ours(seed, folder) if epochs is None else theirs(given.python, seed, epochs, folder)
            )
        return {"what": what, "seed": seed, **scored(said), "processor": seconds}

    go_on(
        HERE / "results" / "membranes.jsonl",
        "Masks of membranes",
        ("what", "seed"),
        [(what, seed) for seed in given.seeds for what in (OURS, *contestants)],
        measure,
        table_of,
    )
