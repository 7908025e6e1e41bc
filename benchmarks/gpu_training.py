"""How fast our training is on a GPU, in rows per second, beside a plain PyTorch loop over the same network.

    python benchmarks/gpu_training.py # needs an NVIDIA GPU; made data, whose labels mean nothing python
    benchmarks/gpu_training.py --cases digits series --ways plain ours

plain: nn.Conv2d, nn.BatchNorm2d and nn.Linear in place of our stacked layers, channels last, autocast
to bfloat16, fused AdamW, gradients clipped where the advice says so, the rows in the GPU's memory
(those of `stored` in the host's: a DataLoader of four processes, pinned), and a validation after each
epoch, in batches of the same size. ours: ``advisor.training.loop.train_epochs`` with what the rules recommend
for such data beside a GPU, without changes to the images and not compiled. eager: the same without
recording steps (``advisor/training/cuda_graphs.py``); full: in full precision; compiled: with torch.compile;
changed: with the changes to the rows that the rules recommend. The folds of a table: ours trains them
as one stack, plain one after the other.

The first epoch warms up (its excess is what compiling takes); the others count. Rates are compared within a
session: a machine and an hour. Every finished (session, case, way) is kept at once.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resumable import go_on
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.dataset import Dataset, Signals
from advisor.networks.convolutional import SignalNetwork, StackedConvolution, StackedMapNorm
from advisor.networks.tables import StackedLinear
from advisor.objectives.networks import splits_of
from advisor.splits import Split
from advisor.training import cuda_graphs, signal_inputs
from advisor.training.batches import MemberRows
from advisor.training.loop import build, train_epochs
from advisor.training.modalities import prepare
from advisor.workflows.recommend import get_advice, reading_of

HERE = Path(__file__).resolve().parent
UNCHANGED = {
    "image": {"flip": "none", "shift": 0, "rotation": 0, "zoom": 0, "brightness": 0, "cutout": 0, "mixup": 0},
    "sequence": {"flip": "none", "shift": 0, "magnitude": 0, "jitter": 0, "cutout": 0, "mixup": 0},
    "table": {},
}
CASES: dict[str, tuple[str, tuple[int, ...], int]] = {
    # kind, shape of the rows, epochs
    "few": ("image", (1_500, 28, 28), 4),
    "digits": ("image", (20_000, 28, 28), 4),
    "colour": ("image", (10_000, 64, 64, 3), 4),
    "photos": ("image", (4_000, 192, 192, 3), 4),
    "stored": ("image", (4_000, 192, 192, 3), 4),
    "series": ("sequence", (20_000, 3, 512), 4),
    "table": ("table", (50_000, 30), 4),
}
WARM, DEVICE_BYTES = cuda_graphs.WARM, signal_inputs.DEVICE_BYTES
WAYS = ("plain", "ours", "eager", "full", "compiled", "plain compiled", "changed")


def made(case: str, folder: Path) -> tuple[Path, str | None]:
    """A file with random rows and labels."""
    kind, shape, _ = CASES[case]
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, shape[0])
    if kind == "table":
        numbers = draw.normal(size=shape)
        text = "\n".join(
            ",".join(f"{x:.4f}" for x in row) + f",c{label}"
            for row, label in zip(numbers, labels, strict=True)
        )
        file = folder / "rows.csv"
        file.write_text(",".join([f"x{j}" for j in range(shape[1])] + ["y"]) + "\n" + text + "\n")
        return file, "y"
    file = folder / "rows.npz"
    if kind == "image":
        np.savez(file, images=draw.integers(0, 256, shape, dtype=np.uint8), labels=labels)
    else:
        np.savez(file, series=draw.normal(size=shape).astype(np.float32), labels=labels)
    return file, None


@functools.lru_cache(maxsize=1)
def prepared_case(case: str) -> tuple[dict[str, Any], Dataset, list[Split]]:
    """What the rules recommend on this machine, without a change to the rows; the data and their splits."""
    epochs = CASES[case][2]
    with tempfile.TemporaryDirectory() as folder:
        source, target = made(case, Path(folder))
        options: dict[str, Any] = {"fixed": {"epochs": epochs, "patience": epochs}, "test_fraction": 0.1}
        advice = get_advice(source, target, reading_of(options))
        data = advice.data.dataset("train")
        if isinstance(data.features, Signals):  # not of a file that is gone in a moment
            data = Dataset(Signals(np.array(data.features.values)), data.target, data.task, data.classes)
    configuration = dict(advice.recommendation.configuration)
    if case not in ("few", "table"):
        configuration["validation"] = "holdout"
    return configuration, data, splits_of(configuration, data, 0, 0)


def timed(epochs: Iterator[Any], rows: int) -> dict[str, float]:
    """Seconds of the first epoch, and rows per second of the others."""
    times = [time.perf_counter()]
    for _ in epochs:
        torch.cuda.synchronize()
        times.append(time.perf_counter())
    seconds = np.diff(times)
    return {
        "first": float(seconds[0]),
        "seconds": float(seconds[1:].mean()),
        "rows_per_second": rows / float(seconds[1:].mean()),
    }


def ours(case: str, way: str) -> dict[str, float]:
    advised, data, splits = prepared_case(case)
    configuration = advised | ({} if way == "changed" else UNCHANGED[CASES[case][0]])
    configuration["compiled"] = way == "compiled"
    if way == "full":
        configuration |= {"precision": "full", "memory_format": "contiguous"}
    signal_inputs.DEVICE_BYTES = 0 if case == "stored" else DEVICE_BYTES
    cuda_graphs.WARM = 10**9 if way == "eager" else WARM
    inputs = prepare(configuration, data, splits, "cuda")
    epochs = train_epochs(configuration, data, splits, seed=0, device="cuda", prepared=inputs)
    return timed(epochs, sum(len(split.train) for split in splits))


# --------------------------------------------------------------------------------------------- the plain loop


def plainly(module: nn.Module) -> nn.Module:
    """torch's own layers in place of stacked ones of one member."""
    for name, child in module.named_children():
        setattr(module, name, plainly(child))
    if isinstance(module, StackedConvolution):
        made = {1: nn.Conv1d, 2: nn.Conv2d}[len(module.stride)]
        out, into, *kernel = module.weight.shape[1:]
        return made(
            into * module.groups,
            out,
            tuple(kernel),
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            bias=module.bias is not None,
        )
    if isinstance(module, StackedMapNorm) and module.kind == "batch":
        return PlainNorm(module.scale.shape[1])
    if isinstance(module, StackedLinear):
        return nn.Linear(*module.weight.shape[1:])
    return module


class PlainNorm(nn.Module):
    """nn.BatchNorm1d or 2d, whichever the maps want."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = nn.BatchNorm1d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return (self.two if x.dim() == 4 else self.one)(x)


def clipped(network: nn.Module, configuration: dict[str, Any]) -> None:
    if configuration["gradient_clip"]:
        nn.utils.clip_grad_norm_(network.parameters(), configuration["gradient_clip"])


class Batches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Whole batches by their row numbers, for a DataLoader."""

    def __init__(self, values: Tensor, target: Tensor, batches: list[Tensor]) -> None:
        self.values, self.target, self.batches = values, target, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rows = self.batches[index]
        return self.values[rows], self.target[rows]


def plain(case: str, way: str) -> dict[str, float]:
    advised, data, splits = prepared_case(case)
    configuration = advised | UNCHANGED[CASES[case][0]]
    torch.compiler.reset()
    runs = []
    for split in splits:
        if CASES[case][0] == "table":
            epochs = plain_table(configuration, data, split)
        else:
            epochs = plain_signals(
                configuration, data, split, compiled="compiled" in way, stored=case == "stored"
            )
        runs.append(timed(epochs, len(split.train)))
    seconds, rows = sum(run["seconds"] for run in runs), sum(len(split.train) for split in splits)
    return {"first": sum(run["first"] for run in runs), "seconds": seconds, "rows_per_second": rows / seconds}


def plain_signals(
    configuration: dict[str, Any], data: Dataset, split: Split, *, compiled: bool, stored: bool
) -> Iterator[None]:
    inputs = prepare(configuration, data, [split], "cpu")
    rows = MemberRows(configuration, data, [split], [0], "cpu")
    network = build(configuration, inputs, rows, torch.Generator())
    assert isinstance(network, SignalNetwork)
    net: nn.Module = plainly(network).cuda()
    images = len(network.plan.size) == 2
    if images:
        net = net.to(memory_format=torch.channels_last)
    forward = torch.compile(net) if compiled else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    values = torch.from_numpy(np.ascontiguousarray(data.features.values))  # type: ignore[union-attr]
    target = torch.from_numpy(np.asarray(data.target))
    if not stored:
        values, target = values.cuda(), target.cuda()
    place = values.device
    mean, scale = (t.cuda().view(1, -1, *[1] * (values.dim() - 2)) for t in (inputs.mean, inputs.scale))  # type: ignore[union-attr]
    size = int(configuration["batch_size"])

    def batches(rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        parts = list(rows.split(size))
        if not stored:
            yield from ((values[part], target[part]) for part in parts)
            return
        loader = torch.utils.data.DataLoader(
            Batches(values, target, parts), batch_size=None, num_workers=4, pin_memory=True
        )
        for x, y in loader:
            yield x.cuda(non_blocking=True), y.cuda(non_blocking=True)

    def outputs(x: Tensor) -> Tensor:
        x = (x.float() - mean) / scale
        if images:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return forward(x.unsqueeze(0))[0]

    own, validation = (torch.from_numpy(np.array(part)).to(place) for part in (split.train, split.validation))
    for _ in range(int(configuration["epochs"])):
        net.train()
        for x, y in batches(own[torch.randperm(len(own), device=place)]):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(outputs(x).float(), y).backward()
            clipped(net, configuration)
            optimizer.step()
        net.eval()
        with torch.no_grad():
            total = sum(
                float(F.cross_entropy(outputs(x).float(), y, reduction="sum")) for x, y in batches(validation)
            )
        assert np.isfinite(total)
        yield


def plain_table(configuration: dict[str, Any], data: Dataset, split: Split) -> Iterator[None]:
    inputs = prepare(configuration, data, [split], "cuda")
    rows = MemberRows(configuration, data, [split], [0], "cuda")
    net = build(configuration, inputs, rows, torch.Generator()).cuda()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    target, none = torch.from_numpy(np.asarray(data.target)).cuda(), torch.zeros(1, dtype=torch.int64)
    own, validation = (torch.from_numpy(np.array(part)).cuda() for part in (split.train, split.validation))
    noise = torch.Generator("cuda")
    for _ in range(int(configuration["epochs"])):
        net.train()
        for part in own[torch.randperm(len(own), device="cuda")].split(int(configuration["batch_size"])):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(*inputs.inputs(part[None], none.cuda()), noise)[0], target[part]).backward()
            clipped(net, configuration)
            optimizer.step()
        net.eval()
        with torch.no_grad():
            parts = validation.split(8192)
            total = sum(
                float(
                    F.cross_entropy(net(*inputs.inputs(p[None], none.cuda()))[0], target[p], reduction="sum")
                )
                for p in parts
            )
        assert np.isfinite(total)
        yield


# -------------------------------------------------------------------------------------------------- the table


def measure(session: str, case: str, way: str) -> dict[str, Any]:
    begun, before = time.perf_counter(), torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = plain(case, way) if way.startswith("plain") else ours(case, way)
    found["memory"] = (torch.cuda.max_memory_allocated() - before) / 1e9
    torch.cuda.empty_cache()
    known = {
        "session": session,
        "case": case,
        "way": way,
        "torch": torch.__version__,
        "took": time.perf_counter() - begun,
    }
    return known | {"device": torch.cuda.get_device_name(), **found}


def table_of(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| session | case | way | rows/s | of plain | first epoch s | others s | GB | GPU |",
        "|" + "---|" * 9,
    ]
    for session, case in itertools.product(sorted({row["session"] for row in rows}), CASES):
        own = {row["way"]: row for row in rows if (row["session"], row["case"]) == (session, case)}
        for way in (way for way in WAYS if way in own):
            row = own[way]
            ratio = (
                f"{row['rows_per_second'] / own['plain']['rows_per_second']:.2f}" if "plain" in own else ""
            )
            memory = f"{row['memory']:.2f}" if "memory" in row else ""
            lines.append(
                f"| {session} | {case} | {way} | {row['rows_per_second']:,.0f} | {ratio} | "
                f"{row['first']:.2f} "
                f"| {row['seconds']:.3f} | {memory} | {row['device']} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument(
        "--session", default=date.today().isoformat(), help="a name for this machine and hour"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results" / "gpu_training.jsonl")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use")
    wanted = itertools.product([arguments.session], arguments.cases, arguments.ways)
    todo = (one for one in wanted if CASES[one[1]][0] != "table" or one[2] in ("plain", "ours", "eager"))
    go_on(arguments.results, "Training on a GPU", ("session", "case", "way"), todo, measure, table_of)


if __name__ == "__main__":
    main()
