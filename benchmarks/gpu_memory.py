"""What a trial takes of a GPU's memory beside what is predicted of it, for
configurations drawn from the recommended space.

    python benchmarks/gpu_memory.py                  # needs an NVIDIA GPU; made data
    python benchmarks/gpu_memory.py --kinds series --configurations 50

reserved: the most that PyTorch held (what others on the GPU cannot have); allocated: the most
that was in use. Both without and with recorded steps (``advisor/training/cuda_graphs.py``). Every finished
(kind, configuration) is kept at once.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from gpu_training import CASES, made
from resumable import go_on

from advisor.dataset import Dataset, Signals
from advisor.objectives import networks as objective
from advisor.objectives.jobs import WorkerData, search_job
from advisor.training import cuda_graphs
from advisor.workflows.recommend import get_advice, reading_of

HERE = Path(__file__).resolve().parent
KINDS = {
    "images": ("image", (600, 28, 28), 0),
    "colour images": ("image", (600, 64, 64, 3), 0),
    "series": ("sequence", (600, 3, 512), 0),
    "table": ("table", (2_000, 20), 0),
}
CASES |= {f"{kind} for memory": case for kind, case in KINDS.items()}
WARM = {"recorded": cuda_graphs.WARM, "not recorded": 10**9}


@lru_cache(maxsize=1)
def drawn(kind: str, count: int) -> tuple[Dataset, list[dict[str, Any]]]:
    """The data, and the recommended configuration with others drawn around it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = made(f"{kind} for memory", Path(folder))
        advice = get_advice(source, target, reading_of({"fixed": {"epochs": 1, "patience": 1}}))
        data = advice.data.dataset("train")
        if isinstance(data.features, Signals):  # not of a file that is gone in a moment
            data = Dataset(Signals(np.array(data.features.values)), data.target, data.task, data.classes)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    recommendation = advice.recommendation
    others = [recommendation.space.suggest(study.ask()) for _ in range(count - 1)]
    return data, [one | {"compiled": False} for one in (recommendation.configuration, *others)]


def measure(kind: str, number: int, count: int) -> dict[str, Any]:
    data, configurations = drawn(kind, count)
    configuration = configurations[number]
    train = objective.TrainingObjective(WorkerData(data, 0))
    row: dict[str, Any] = {
        "kind": kind,
        "configuration": number,
        "of": count,
        "gpu": torch.cuda.get_device_name(),
    }
    row["predicted"] = objective.training_sizing(data).predict(
        configuration, int(configuration["batch_size"])
    )
    row["network"] = configuration.get("network", "dense")
    for way, warm in WARM.items():
        cuda_graphs.WARM = warm
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        for _ in train(search_job(configuration, 0, 0).as_job("one")):
            pass
        row[way] = {
            "reserved": torch.cuda.max_memory_reserved(),
            "allocated": torch.cuda.max_memory_allocated(),
        }
    return row


def table_of(rows: list[dict[str, Any]]) -> str:
    lines = ["| kind | network | configurations | what | smallest | median | largest |", "|" + "---|" * 7]
    groups = sorted({(row["kind"], row["network"]) for row in rows})
    for kind, network in groups:
        some = [row for row in rows if (row["kind"], row["network"]) == (kind, network)]
        ratios = {
            "reserved / predicted": [row["recorded"]["reserved"] / row["predicted"] for row in some],
            "allocated / predicted": [row["recorded"]["allocated"] / row["predicted"] for row in some],
            "reserved, recorded / not": [
                row["recorded"]["reserved"] / row["not recorded"]["reserved"] for row in some
            ],
        }
        for what, values in ratios.items():
            low, middle, high = np.quantile(values, (0, 0.5, 1))
            lines.append(
                f"| {kind} | {network} | {len(some)} | {what} | {low:.2f} | {middle:.2f} | {high:.2f} |"
            )
    return "\n".join([*lines, "", f"On {', '.join(sorted({row['gpu'] for row in rows}))}."])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--configurations", type=int, default=24)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "gpu_memory.jsonl")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use")
    count = arguments.configurations
    todo = itertools.product(arguments.kinds, range(count), [count])
    go_on(
        arguments.results,
        "Memory of a trial on a GPU",
        ("kind", "configuration", "of"),
        todo,
        measure,
        table_of,
    )


if __name__ == "__main__":
    main()
