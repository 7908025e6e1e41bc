"""What a search tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

TrialEnd = Literal["complete", "pruned", "diverged", "failed", "set aside", "void"]
"""complete: trained to its end, also by early stopping. pruned: stopped for being behind. diverged: a loss
was not finite. failed: the objective raised. set aside: its worker died DEATHS times, or that of the same
configuration before; or it was too large for the memory row by row; or it met its time limit before its
first epoch. void: does not count."""


@dataclass(frozen=True)
class Started:
    number: int
    place: int
    origin: str
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class EpochDone:
    number: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class Measured:
    """What a job's result tells the search beside its loss, where it is one of these.

    train_losses: after each epoch. peak_memory: bytes of the device at most, None where it was not measured.
    cut: the time limit ended the job, at its best epoch so far.
    """

    train_losses: tuple[float, ...] = ()
    peak_memory: float | None = None
    cut: bool = False


@dataclass(frozen=True)
class Ended:
    """``result`` is what the objective returned; it is not kept anywhere else."""

    number: int
    place: int
    end: TrialEnd
    value: float | None
    reason: str
    is_best: bool
    result: Any = None
    origin: str = "search"


SearchEvent = Started | EpochDone | Ended


@dataclass(frozen=True)
class RunningTrial:
    number: int
    origin: str
    epoch: int
    best: float


@dataclass(frozen=True)
class Progress:
    """Where the search stands, for a live view."""

    done: int
    trials: int
    running: tuple[RunningTrial, ...]
    best_number: int | None
    best_value: float | None
    seconds: float
    seconds_left: float | None


Listener = Callable[[SearchEvent, Progress], None]
"""Told every event of a search, and where it stands."""
