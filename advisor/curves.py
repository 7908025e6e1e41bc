"""What a learning curve says, in words. Pure: numbers in, a reading out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Shape = Literal["short", "diverging", "over-fitting", "improving", "noisy", "plateau"]

FEWEST = 5
"""Epochs below which a curve has no shape yet."""
RISE = 0.1
"""Part of the curve's whole drop that must be lost again, or still be won, before we speak of it."""
NOISY = 0.5
"""Median jump between neighbours, as a part of the whole drop, from which the curve is noise more than learning."""


@dataclass(frozen=True)
class Reading:
    """shape, and what it means in one sentence. epoch: where the validation loss was least."""

    shape: Shape
    epoch: int
    words: str


def read_curve(losses: Sequence[float]) -> Reading:
    """The reading of validation losses, the first epoch first. Compared with the curve's own drop, so it has no unit."""
    if not losses:
        return Reading("short", 0, "no finite loss was reported")
    if any(not math.isfinite(loss) for loss in losses):
        first = next(i for i, loss in enumerate(losses, start=1) if not math.isfinite(loss))
        return Reading("diverging", first, f"diverged at epoch {first}: try a smaller learning rate")
    best = min(range(len(losses)), key=lambda i: losses[i])
    epoch, count = best + 1, len(losses)
    if count < FEWEST:
        return Reading("short", epoch, f"only {count} epochs: too few to read")
    drop = losses[0] - losses[best]
    tail = median(losses[-max(1, count // 5) :])  # one bad last epoch is no trend
    if tail > losses[0] + RISE * abs(losses[0]):
        return Reading("diverging", epoch, "ended worse than it began: the learning rate is too large, or the data changed")
    if drop <= 0:
        return Reading("plateau", epoch, "never better than after the first epoch: nothing more was learnt")
    jumps = median(abs(b - a) for a, b in zip(losses[count // 2 :], losses[count // 2 + 1 :], strict=False))
    if jumps > NOISY * drop:
        return Reading("noisy", epoch, "jumps as much as it learns: try a larger batch or a smaller learning rate")
    if tail - losses[best] > RISE * drop:
        return Reading("over-fitting", epoch, f"over-fits from epoch {epoch} on; the weights of epoch {epoch} were kept")
    half = losses[: max(1, (3 * count) // 4)]
    if min(half) - losses[best] > RISE * drop and epoch > 0.9 * count:
        return Reading("improving", epoch, "was still improving at the end: more epochs may help")
    return Reading("plateau", epoch, f"levelled off; best at epoch {epoch} of {count}")
