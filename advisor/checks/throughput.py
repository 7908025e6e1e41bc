"""How fast a network trains at each batch size, and how large a batch the memory bears: measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advisor.training.cuda_graphs import WARM

BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024)
NEAR_BEST = 0.9
"""The knee is the smallest batch that reaches this share of the best rate."""
SLOWDOWN = 4
"""Larger batches are left out when one pass is expected to take this many times what is left of the time."""

FIRST_STEPS = {"cpu": 1, "cuda": WARM + 1}
"""Steps of a size before those that count: they allocate, and on a GPU look for algorithms and record."""

TrainingStep = Callable[[int], object]
"""Takes a training step with a batch of this many rows."""
Pass = Callable[[int], Tensor]
"""A batch size -> the loss of a fresh batch of this many rows, with its graph."""


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: two busy threads on two cores make a small step 20 to 50 times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rates(
    step: TrainingStep,
    *,
    seconds: float,
    sizes: Sequence[int] = BATCH_SIZES,
    device: str = "cpu",
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, float]:
    """Rows per second of training steps by batch size, within about ``seconds``.

    The smallest batch is always measured; larger ones while the time and the device's memory last.
    """
    begun, found = clock(), dict[int, float]()
    share = seconds / len(sizes)
    for size in sizes:
        if found and size / found[max(found)] * SLOWDOWN > seconds - (clock() - begun):
            break
        try:
            for _ in range(FIRST_STEPS["cuda" if device.startswith("cuda") else "cpu"]):
                _take(step, size, device)
            start, steps = clock(), 0
            while steps < 2 or (steps < 50 and clock() - start < share / 2):
                _take(step, size, device)
                steps += 1
        except torch.OutOfMemoryError:
            if not found:
                raise
            break
        found[size] = size * steps / max(clock() - start, 1e-9)
    return found


def _take(step: TrainingStep, size: int, device: str) -> None:
    step(size)
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def knee(measured: Mapping[int, float]) -> int:
    """The smallest batch within 10 % of the best rate.

    >>> knee({16: 100.0, 32: 190.0, 64: 205.0, 128: 200.0})
    32
    """
    best = max(measured.values())
    return min(size for size, rate in measured.items() if rate >= NEAR_BEST * best)


def kept_bytes(loss_of: Pass, rows: int, network: nn.Module) -> int:
    """Bytes that a pass keeps for the way back, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(rows)
    del loss  # until here no storage was freed, so that no two had one address
    return sum(sizes.values())


def device_bytes(step: TrainingStep, rows: int, device: str) -> int:
    """The most that one training step had allocated on a GPU."""
    _take(step, rows, device)  # the first one makes the optimizer's moments
    torch.cuda.reset_peak_memory_stats(device)
    _take(step, rows, device)
    return int(torch.cuda.max_memory_allocated(device))


def edge(free: float, needed: Callable[[int], float]) -> int:
    """The largest batch whose ``needed`` bytes, about linear in the rows, are at
    most ``free``; 0 when none fits.

    >>> edge(1000, lambda rows: 100 + 9 * rows)
    100
    """
    fixed, slope = needed(0), needed(1) - needed(0)
    if fixed > free:
        return 0
    return int((free - fixed) / slope) if slope > 0 else 2**31
