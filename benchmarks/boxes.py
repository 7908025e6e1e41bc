"""How well boxes are found, and in how many seconds of the processor: what is advised, and the base space's
default.

    python benchmarks/boxes.py scenes            # 2,000 scenes of one to four digits, 500 of other digits
    python benchmarks/boxes.py scenes --default  # the same with the defaults of search_spaces/boxes.yaml
    python benchmarks/boxes.py scenes --rows 100 --fixed network=queries  # the other head, few images
    python benchmarks/boxes.py scenes --rows 100 --fixed copy_paste=2     # boxes of other images pasted in
    python benchmarks/boxes.py FOLDER            # any set with boxes that has a test part

Each prints one line of JSON. 2,000 scenes must reach an AP50 of 0.85 in 1,200 seconds of the processor (ten
minutes of two cores).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import advisor
from advisor.data.masks.digit_scenes import digit_scenes
from advisor.rules import shipped

ROWS, TEST_ROWS = 2000, 500
BAR, SECONDS = 0.85, 1200.0
PLAN = ("epochs", "patience", "validation", "validation_fraction", "final_members", "loss", "norm_layer")
"""What is a plan and no network: the default has that of the advice, so that both train as long."""


def written(folder: Path, part: str, rows: int, seed: int) -> None:
    """Scenes as a COCO file with its images."""
    made = digit_scenes(rows, seed=seed, part=part)  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    begins = np.append(0, made.ends)
    annotations = []
    for row, image in enumerate(made.images):
        Image.fromarray(image).save(folder / f"{row}.png")
        for place in range(begins[row], begins[row + 1]):
            left, top, right, bottom = made.boxes[place].tolist()
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": row, "category_id": int(made.codes[place]), "bbox": box})
    images = [{"id": row, "file_name": f"{row}.png"} for row in range(rows)]
    categories = [{"id": digit, "name": str(digit)} for digit in range(10)]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "boxes.json").write_text(json.dumps(document))


def used() -> float:
    """Seconds of the processor of this process and of those that it started."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def measured(source: Path, out: Path, seed: int, fixed: dict[str, object]) -> dict[str, object]:
    """One training, and what it is worth on the test images."""
    before = used()
    run = advisor.train(source, out=out, seed=seed, fixed=fixed)
    network = run.report.test.results[0]
    return {
        "ap50": round(network.ap50, 4),
        "ap": round(network.ap, 4),
        "loss": round(network.loss, 4),
        "processor_seconds": round(used() - before, 1),
        "epochs": run.document["configuration"]["epochs"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="scenes, or a folder with images, boxes and a test part")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--fixed", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source = Path(asked.source)
        if asked.source == "scenes":
            source = Path(place) / "scenes"
            written(source / "train", "train", asked.rows, asked.seed)
            written(source / "test", "test", TEST_ROWS, asked.seed)
        fixed: dict[str, object] = {}
        if asked.default:
            defaults = {name: own.default for name, own in shipped.base_space("boxes").parameters.items()}
            fixed = {name: value for name, value in defaults.items() if name not in PLAN}
        for pair in asked.fixed:
            name, value = pair.split("=")
            fixed[name] = json.loads(value) if value[:1] in "0123456789-tf" else value
        found = measured(source, Path(place) / "run", asked.seed, fixed)
    passed = found["ap50"] >= BAR and found["processor_seconds"] <= SECONDS  # type: ignore[operator]
    said = {"set": asked.source, "rows": asked.rows, "default": asked.default, "fixed": asked.fixed, **found}
    has_bar = asked.source == "scenes" and asked.rows == ROWS
    print(json.dumps(said | ({"passed": passed} if has_bar else {})), flush=True)


if __name__ == "__main__":
    main()
