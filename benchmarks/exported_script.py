"""Is an exported script as good as the model that it was made from? On real sets, three seeds each: the test
loss of ``advisor train`` beside that of the script, both on the same rows held out beforehand.

python benchmarks/exported_script.py run [--sets a,b]    # resumable: benchmarks/results/exported_script.jsonl
python benchmarks/exported_script.py report              # the summary, as Markdown
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import transfer

import advisor
from advisor.data.masks.digit_scenes import digit_scenes

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LINES, SUMMARY = RESULTS / "exported_script.jsonl", RESULTS / "exported_script.md"
DATA = HERE.parent.parent / "shared" / "data"
SEEDS = (0, 1, 2)
SHORT = {"network": "convolutional", "epochs": 20, "validation": "holdout", "final_members": 1}
"""Images and series are trained so: whole trainings of both take an hour of a core."""

SHORT_OF_COSINE = {"classifier": "cosine", "epochs": 60, "folds": 3}
SHORT_OF_RETRAINING = {"class_balance": "classifier_retraining", "epochs": 60, "folds": 3}
SHORT_OF_MASKS = {"epochs": 60, "validation": "holdout", "final_members": 1, "width": 8, "stages": 2}
TIMM = {"network": f"timm:{transfer.NETWORK}", "backbone_side": transfer.SIDE, "folds": 3, "epochs": 30}
ROWS_OF_EACH_DIGIT = 20
WITH_TIMM = (
    "import runpy, sys; from advisor.networks.pretrained.timm_models import load_timm; load_timm();"
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a script where timm has no torchvision to import."""
SCENES, TEST_SCENES, SCENE_SIDE = 48, 100, 32


@dataclass(frozen=True)
class Case:
    """place: of a data set below shared/data; "" for one that ``made`` writes to a file. target: of a table,
    which has files train.csv and test.csv; a file of arrays has both parts. fixed: what the user fixes.
    made: writes a file and returns further options."""

    place: str = ""
    target: str | None = None
    fixed: Mapping[str, object] = field(default_factory=dict)
    made: Callable[[Path], Mapping[str, object]] = lambda path: {}


def made_scenes(path: Path) -> Mapping[str, object]:
    """Images and masks of three classes: the ground, digits below five, the others."""
    arrays = {}
    for part, count in (("train", SCENES), ("test", TEST_SCENES)):
        made = digit_scenes(count, part=part)
        masks = np.where(made.masks > 5, 2, np.minimum(made.masks, 1)).astype(np.uint8)
        arrays[f"X_{part}"] = made.images[:, :SCENE_SIDE, :SCENE_SIDE]
        arrays[f"Y_{part}"] = masks[:, :SCENE_SIDE, :SCENE_SIDE]
    np.savez(path, **arrays)
    return {}


def made_digits(path: Path) -> Mapping[str, object]:
    """The digits 5 to 9, and weights of a network of timm that has learned 0 to 4."""
    weights = path.with_name("weights.pt")
    transfer.trained_backbone(weights)
    train, test = transfer.few_digits(ROWS_OF_EACH_DIGIT, seed=0)
    images, labels = transfer.digits()
    parts = {
        "X_train": images[train],
        "y_train": labels[train],
        "X_test": images[test],
        "y_test": labels[test],
    }
    np.savez(path, **parts)
    return {"weights": weights}


CASES = {
    "german": Case("tables/german", "class"),
    "contraceptive": Case("tables/contraceptive", "class"),
    "attrition": Case("tables/attrition", "Attrition"),
    "hitters": Case("tables/hitters", "Salary"),
    "concrete": Case("tables/concrete", "compressive_strength"),
    "images/lfw-faces": Case("images/lfw-faces", fixed=SHORT),
    "sequences/ItalyPowerDemand": Case("sequences/ItalyPowerDemand", fixed=SHORT),
    "sequences/meats-nir": Case("sequences/meats-nir", fixed=SHORT),
    "ItalyPowerDemand (kernels)": Case("sequences/ItalyPowerDemand"),
    "BasicMotions (kernels)": Case("sequences/BasicMotions"),
    "vehicle (cosine)": Case("tables/vehicle", "class", fixed=SHORT_OF_COSINE),
    "vehicle (classifier_retraining)": Case("tables/vehicle", "class", fixed=SHORT_OF_RETRAINING),
    "digit scenes (masks)": Case(fixed=SHORT_OF_MASKS, made=made_scenes),
    "digits (frozen timm)": Case(fixed=TIMM | {"backbone_training": "frozen"}, made=made_digits),
    "digits (fine-tuned timm)": Case(fixed=TIMM | {"backbone_training": "fine_tuned"}, made=made_digits),
}


def measured(name: str, seed: int) -> dict[str, object]:
    """Both test losses, and the loss of a constant."""
    case = CASES[name]
    files = {part: DATA / case.place / f"{part}.csv" for part in ("train", "test")}
    asked: dict[str, object] = {"target": case.target, "fixed": case.fixed}
    if case.target is None:
        files = dict.fromkeys(files, DATA / case.place / "data.npz")
    else:
        asked["test"] = files["test"]
    train, test = files["train"], files["test"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if not case.place:
            train = test = folder / "data.npz"
            asked |= case.made(train)
        run = advisor.train(train, seed=seed, out=folder / "run", progress=False, **asked)
        script = folder / "model.py"
        advisor.export(run.folder, format="script", out=script)
        began = [script] if "weights" not in asked else ["-c", WITH_TIMM, script]
        arguments = [sys.executable, *began, "train", train, "--test", test, "--seed", seed]
        done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=True)
        [theirs] = re.findall(r"^test loss: (\S+)$", done.stdout, re.M)
        results = {one.name: one.loss for one in run.report.test.results or ()}
        lines = len(script.read_text().splitlines())
    return {
        "set": name, "seed": seed, "ours": results["network"], "script": float(theirs),
        "constant": max(results.values()), "lines": lines,
    }  # fmt: skip


def run(sets: list[str]) -> None:
    """Measure what is not measured yet."""
    RESULTS.mkdir(exist_ok=True)
    done = {(row["set"], row["seed"]) for row in rows()}
    for name in sets:
        for seed in SEEDS:
            if (name, seed) not in done:
                row = measured(name, seed)
                with LINES.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


def rows() -> list[dict[str, object]]:
    """What was measured."""
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def report() -> str:
    """The summary, in Markdown."""
    table = pd.DataFrame(rows())
    lines = [
        "# An exported script beside the model that it was made from",
        "",
        "`python benchmarks/exported_script.py run`: `advisor train` and `advisor export --format script` on",
        f"the same training and test rows, {len(SEEDS)} seeds. Losses on the test rows: mean and standard",
        f"deviation over the seeds. Networks of images and series with {SHORT},",
        "fixed convolutions as advised, the others with the parameters in `CASES`.",
        "",
        "| set | ours | script | difference | of the worst baseline's loss | lines |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in table.groupby("set", sort=False):
        if len(own) < len(SEEDS):
            continue  # not measured to its end
        difference = own["script"].mean() - own["ours"].mean()
        spread = [f"{own[one].mean():.4g} ± {own[one].std():.2g}" for one in ("ours", "script")]
        share = difference / own["constant"].mean()
        cells = [name, *spread, f"{difference:+.3g}", f"{share:+.1%}", str(own["lines"].iloc[0])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--sets", default=",".join(CASES))
    given = parser.parse_args()
    if given.what == "run":
        run(given.sets.split(","))
    SUMMARY.write_text(report())
    print(report())
