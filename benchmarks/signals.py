"""Images and sequences without a search: the recommendation against a plain
network of three convolutions at defaults.

    python benchmarks/signals.py # MNIST-1D (5 seeds), digits (3), the other sets of ../shared/data
    (1) python benchmarks/signals.py --trials 40 --sets MNIST-1D digits # tuned instead of recommended
    python benchmarks/signals.py --networks recurrent mixer inception --sets MNIST-1D --seeds 0 #
    other families python benchmarks/signals.py --fixed head=average position=ramp --sets
    ItalyPowerDemand # one value changed at a time

Each run is `fit` (or `tune`) on the training part, judged on the test part; "plain" is the base space's own
defaults (three convolutions, max pooling, Adam at 0.001), trained and judged by the same plan. Every finished
(set, seed, what) is kept at once, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from resumable import go_on

import advisor
from advisor.rules import shipped
from advisor.rules.recommendation import library_default
from advisor.workflows.recommend import get_advice, reading_of

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "shared" / "data"
SETS = {
    "MNIST-1D": ("sequences/MNIST-1D/data.npz", 5),
    "digits": ("sklearn:digits", 3),
    "ItalyPowerDemand": ("sequences/ItalyPowerDemand/data.npz", 1),
    "GunPoint": ("sequences/GunPoint/data.npz", 1),
    "Coffee": ("sequences/Coffee/data.npz", 1),
    "BasicMotions": ("sequences/BasicMotions/data.npz", 1),
    "JapaneseVowels": ("sequences/JapaneseVowels/JapaneseVowels_TRAIN.ts", 1),
    "meats-nir": ("sequences/meats-nir/data.npz", 1),
    "watch": ("sequences/watch/data.npz", 1),
    "lfw-faces": ("images/lfw-faces/data.npz", 1),
    "emoji-category": ("images/emoji-category/data.npz", 1),
    "mnist-folders": ("images/mnist-folders", 1),
}
REFERENCES = {
    "MNIST-1D": "CNN 0.94 (arXiv:2011.14439)",
    "Coffee": "1-NN 1.000",
    "watch": "logistic 0.786",
    "meats-nir": "ridge rmse 2.52",
    "lfw-faces": "logistic 1.000",
    "emoji-category": "logistic 0.638",
}


def measure(name: str, seed: int, what: str, trials: int, executor: str) -> dict:
    place, _ = SETS[name]
    source = place if ":" in place else DATA / place
    options: dict = {"seed": seed}
    if ":" in place:
        options |= {"kind": "image", "target": "target", "test_fraction": 0.25}
    target = options.pop("target", None)
    fixed = {}
    if what == "plain":
        recommendation = get_advice(source, target, reading_of(options)).recommendation
        base = shipped.base_space(recommendation.kind)
        fixed = {n: v for n, v in library_default(recommendation, base).items() if base[n].topic != "plan"}
    elif "=" in what:  # the advice around one value
        name_of, _, value = what.partition("=")
        fixed = {name_of: yaml.safe_load(value)}
    elif what != "recommended":  # the advice around another family of networks
        fixed = {"network": what}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        options |= {"out": Path(out) / "run", "fixed": fixed}
        if trials:
            run = advisor.tune(source, target, trials=trials, executor=executor, **options)
        else:
            run = advisor.train(source, target, **options)
    document = run.document
    own = document["test"]["results"][0]
    return {
        "set": name,
        "seed": seed,
        "what": what,
        "trials": trials,
        "loss": own["loss"],
        "accuracy": own.get("accuracy"),
        "rmse": own["loss"] ** 0.5 if document["task"] == "regression" else None,
        "baselines": {
            r["name"]: r.get("accuracy", r["loss"] ** 0.5) for r in document["test"]["results"][-3:]
        },
        "covered": document["estimate"]["low"] <= own["loss"] <= document["estimate"]["high"],
        "seconds": time.monotonic() - begun,
    }


def table_of(rows: list[dict]) -> str:
    lines = [
        "| set | what | seeds | accuracy (or rmse) | test loss | linear | boosting | reference | s |",
        "|" + "---|" * 9,
    ]
    for name in SETS:
        for what in dict.fromkeys((row["what"], row["trials"]) for row in rows if row["set"] == name):
            own = [row for row in rows if row["set"] == name and (row["what"], row["trials"]) == what]
            score = np.mean([row["rmse"] if row["accuracy"] is None else row["accuracy"] for row in own])
            others = {
                key: np.mean([row["baselines"][key] for row in own])
                for key in ("linear", "gradient boosting")
            }
            label = f"{what[0]}, {what[1]} trials" if what[1] else what[0]
            lines.append(
                f"| {name} | {label} | {len(own)} | {score:.4f} | {np.mean([r['loss'] for r in own]):.4g} "
                f"| {others['linear']:.3f} | {others['gradient boosting']:.3f} | {REFERENCES.get(name, '')} "
                f"| {np.mean([r['seconds'] for r in own]):.0f} |"
            )
    covered = np.mean([row["covered"] for row in rows if row["what"] == "recommended"])
    return "\n".join(
        [
            *lines,
            "",
            f"The 90 % interval covered the test loss in {covered:.0%} of the recommendation's runs.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument(
        "--networks", nargs="*", default=[], help="families to take in place of the recommended one"
    )
    parser.add_argument(
        "--fixed", nargs="*", default=[], help="NAME=VALUE pairs, each a run of its own around the advice"
    )
    parser.add_argument(
        "--executor", default="ray", help="in-process leaves the other core to another benchmark"
    )
    parser.add_argument("--seeds", type=int, nargs="*", help="only these")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "signals.jsonl")
    arguments = parser.parse_args()
    usual = ["recommended"] if arguments.trials else ["recommended", "plain"]
    wanted = [*arguments.networks, *arguments.fixed] or usual
    seeds = {
        name: range(SETS[name][1]) if arguments.seeds is None else arguments.seeds for name in arguments.sets
    }
    go_on(
        arguments.results,
        "Images and sequences",
        ("set", "seed", "what", "trials"),
        (
            (name, seed, what, arguments.trials)
            for name in arguments.sets
            for seed in seeds[name]
            for what in wanted
        ),
        lambda *case: measure(*case, arguments.executor),
        table_of,
    )


if __name__ == "__main__":
    main()
