"""What learning curves say (note N26): one in words, several as changes of the search
space. Pure: numbers in, data out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Shape = Literal[
    "short", "diverging", "over-fitting", "under-fitting", "slow", "improving", "noisy", "plateau"
]
"""short: too few epochs to read. diverging: not finite, or worse than at the start. over-fitting: the
validation loss rises again. under-fitting: levelled off while even the training loss stays high. slow: falls
in a straight line, no knee yet: the rate is too low. improving: flattens, but was still falling at the end.
noisy: fluctuates as much as it improves. plateau: levelled off; nothing to fix."""
End = Literal["", "full", "early", "pruned"]
"""full: all planned epochs were run. early: stopped because it was finished (patience). pruned: because
others were better, so what was still to come is not known. "": it was not said."""
Direction = Literal["up", "down"]

FEWEST = 5
"""Epochs below which a curve has no shape yet."""
RISE = 0.1
"""Part of the curve's whole drop that must be lost again, or still be won, before we speak of it."""
NOISY = 0.5
"""Median jump between neighbours, as a part of the whole drop, from which the
curve is noise more than learning."""
STRAIGHT = 0.75
"""A curve has no knee when its second half wins at least this share of what its first half wins."""
HIGH = 0.7
"""The training loss stays high when it ends above this share of its first value,
without a gap to the validation loss."""
GAP = 0.1
"""Training and validation loss are alike when they differ by less than this share of the validation loss."""
FEWEST_READINGS = 3
SHARE = 1 / 3
"""Of the curves that can be read, from which on what they say becomes a change for the trials that follow."""


@dataclass(frozen=True)
class CurveDiagnosis:
    """shape, and what it means in one sentence.
    epoch: where the validation loss was least.
    ended: how the training ended."""

    shape: Shape
    epoch: int
    words: str
    ended: End = ""


@dataclass(frozen=True)
class RangeChange:
    """A change of the search space for the trials that follow: move ``parameter``'s range ``direction``.

    share: of the readings that say so.
    words: why, in one sentence.
    """

    parameter: str
    direction: Direction
    share: float
    words: str


def read_curve(
    losses: Sequence[float],
    train_losses: Sequence[float] | None = None,
    *,
    planned: int | None = None,
    pruned: bool = False,
) -> CurveDiagnosis:
    """The reading of validation losses, the first epoch first. Compared with the
    curve's own drop, so it has no unit.

    train_losses: of the same epochs and in the same unit, where they are known;
        they tell under-fitting from the rest.
    planned: epochs that the configuration asked for;
    pruned: whether the search ended the training. ValueError when there are not as many
        training losses as validation losses.
    """
    if train_losses is not None and len(train_losses) != len(losses):
        raise ValueError(f"{len(train_losses)} training losses for {len(losses)} validation losses")
    ended: End = (
        "pruned" if pruned else "" if planned is None else "early" if len(losses) < planned else "full"
    )
    shape, epoch, words = _read(losses, train_losses)
    if shape == "short" and ended != "pruned":
        ended = ""
    if ended == "pruned":
        words += (
            f"; pruned after epoch {len(losses)} because others were better by then; the rest of its curve "
            "is unknown"
        )
    elif ended == "early" and shape != "diverging":
        words += f"; stopped at epoch {len(losses)} of {planned} because it was finished"
    return CurveDiagnosis(shape, epoch, words, ended)


def _read(losses: Sequence[float], train_losses: Sequence[float] | None) -> tuple[Shape, int, str]:
    if not losses:
        return "short", 0, "no finite loss was reported"
    for name, values in (("", losses), ("training loss ", train_losses or ())):
        if (
            first := next((i for i, loss in enumerate(values, start=1) if not math.isfinite(loss)), None)
        ) is not None:
            return "diverging", first, f"{name}diverged at epoch {first}: try a smaller learning rate"
    best = min(range(len(losses)), key=lambda i: losses[i])
    epoch, count = best + 1, len(losses)
    if count < FEWEST:
        return "short", epoch, f"only {count} epoch{'s' * (count > 1)}: too few to read"
    drop = losses[0] - losses[best]
    tail = median(losses[-max(1, count // 5) :])  # one bad last epoch is no trend
    if tail > losses[0] + RISE * abs(losses[0]):
        if train_losses is not None and train_losses[-1] < train_losses[0]:
            return (
                "over-fitting",
                epoch,
                f"overfits from epoch {epoch} on: the training loss falls while this one rises",
            )
        return (
            "diverging",
            epoch,
            "ended worse than it began: the learning rate is too large, or the data changed",
        )
    under = train_losses is not None and _under_fits(losses, train_losses)
    if drop <= 0:
        if under:
            return "under-fitting", epoch, UNDER
        return "plateau", epoch, "never better than after the first epoch: nothing more was learned"
    jumps = median(abs(b - a) for a, b in zip(losses[count // 2 :], losses[count // 2 + 1 :], strict=False))
    if jumps > NOISY * drop:
        return "noisy", epoch, "fluctuates as much as it improves: try larger batches or a smaller rate"
    if tail - losses[best] > RISE * drop:
        return (
            "over-fitting",
            epoch,
            f"overfits from epoch {epoch} on; the weights of epoch {epoch} were kept",
        )
    if _still_falling(losses, best, drop):
        if _straight(losses):
            return (
                "slow",
                epoch,
                "fell in a straight line to the end, without levelling off: try a larger learning rate",
            )
        return "improving", epoch, "was still improving at the end: more epochs may help"
    if under:
        return "under-fitting", epoch, UNDER
    return "plateau", epoch, f"levelled off; best at epoch {epoch} of {count}"


UNDER = (
    "levelled off with an equally high training loss: even the training rows are underfitted; try a larger "
    "network or less "
    "regularization, unless the inputs carry no more information"
)


def _still_falling(losses: Sequence[float], best: int, drop: float) -> bool:
    """Whether the last quarter won a good part of the whole drop, and the best epoch is one of the last."""
    count = len(losses)
    before = losses[: max(1, (3 * count) // 4)]
    return min(before) - losses[best] > RISE * drop and best + 1 > 0.9 * count


def _straight(losses: Sequence[float]) -> bool:
    """Whether the second half wins about as much as the first: the middles of the thirds
    keep single epochs from deciding."""
    third = max(1, len(losses) // 3)
    first, middle, last = median(losses[:third]), median(losses[third:-third]), median(losses[-third:])
    return middle - last >= STRAIGHT * (first - middle) > 0


def _under_fits(losses: Sequence[float], train_losses: Sequence[float]) -> bool:
    """Whether the training loss has hardly fallen at its end, and lies no deeper than the validation loss."""
    end = max(1, len(losses) // 5)
    trained, first = median(train_losses[-end:]), train_losses[0]
    validated = median(losses[-end:])
    return trained > HIGH * first and trained > validated - GAP * abs(validated)


MEANINGS: Mapping[Shape, Sequence[tuple[str, Direction, str]]] = {
    "diverging": [
        ("learning_rate", "down", "training diverges"),
        ("gradient_clip", "down", "training diverges, and stronger gradient clipping stabilizes it"),
    ],
    "noisy": [
        ("batch_size", "up", "the validation loss fluctuates as much as it improves"),
        ("learning_rate", "down", "the validation loss fluctuates as much as it improves"),
    ],
    "slow": [("learning_rate", "up", "the loss falls in a straight line to the end")],
    "improving": [("epochs", "up", "the loss was still falling when the epochs ended")],
    "over-fitting": [
        ("weight_decay", "up", "the validation loss rises again while training continues"),
        ("dropout", "up", "the validation loss rises again while training continues"),
    ],
    "under-fitting": [
        ("width", "up", "even the training loss stays high"),
        ("weight_decay", "down", "even the training loss stays high"),
        ("dropout", "down", "even the training loss stays high"),
    ],
}
"""What a shape asks for: parameter, direction, because."""


def advice_of(readings: Sequence[CurveDiagnosis]) -> list[RangeChange]:
    """What many curves ask of the trials that follow, the change with the largest share first.

    A parameter is moved when at least FEWEST_READINGS curves, and a third of those that can be read, ask for
    it, and twice as many as ask for the contrary. A pruned curve says nothing of its end: neither that it was
    slow nor that it was still falling. The order of the readings does not matter.
    """
    readable = [reading for reading in readings if _speaks(reading)]
    votes: dict[tuple[str, Direction], list[str]] = {}
    for reading in readable:
        for parameter, direction, because in MEANINGS.get(reading.shape, ()):
            votes.setdefault((parameter, direction), []).append(because)
    changes = []
    for (parameter, direction), said in votes.items():
        against = votes.get((parameter, "down" if direction == "up" else "up"), [])
        share = len(said) / len(readable)
        if len(said) < FEWEST_READINGS or share < SHARE or len(said) < 2 * len(against):
            continue
        because = max(sorted(set(said)), key=said.count)
        words = f"move {parameter} {direction}: in {len(said)} of {len(readable)} trials {because}"
        changes.append(RangeChange(parameter, direction, share, words))
    return sorted(changes, key=lambda change: (-change.share, change.parameter))


def asks_for(reading: CurveDiagnosis, change: RangeChange) -> bool:
    """Whether this curve is one of those that ask for the change."""
    asked = ((parameter, direction) for parameter, direction, _ in MEANINGS.get(reading.shape, ()))
    return _speaks(reading) and (change.parameter, change.direction) in asked


def _speaks(reading: CurveDiagnosis) -> bool:
    return reading.shape != "short" and not (
        reading.ended == "pruned" and reading.shape in ("slow", "improving")
    )
