"""What goes between a study and whoever drives or watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from advisor.documents import UNSET, Unset
from advisor.errors import UserError
from advisor.executors.base import Cause

TrialEnd = Literal["complete", "pruned", "diverged", "failed", "quarantined", "discarded"]
"""How a trial ended.

complete: trained to its end, also by early stopping.
pruned: stopped, because it was below the median.
diverged: a loss was not finite.
failed: the objective raised.
quarantined: it is not run again, because its worker died DEATHS times, or that of the same configuration
    before; or it was too large for the memory row by row; or it met its time limit before its first epoch.
discarded: does not count, for a reason outside the trial.

In the study quarantined and discarded trials have Optuna's state FAIL and the attributes ``set_aside`` and
``void``."""

END_IN_FILES: dict[str, str] = {"quarantined": "set aside", "discarded": "void"}
"""Ends that have another name in the files of a run, which 0.1.0 can read."""
END_OF_FILES = {written: end for end, written in END_IN_FILES.items()}
"""The same, from the files to the ends."""


@dataclass(frozen=True)
class Assignment:
    """A trial that somebody has to run.

    number: names the trial in ``report`` and ``tell``.
    index: its index in the budget; seeds belong to it, so that a resumed study repeats them.
    attempt: 1, and one more each time that the trial is given out again.
    origin: the name under which it was enqueued, or "search".
    micro_batch: rows to train at once so that it fits, None for the whole batch.
    memory: bytes that it is expected to need, 0 when not known.
    note: what ``ask`` was given to keep with it.
    """

    number: int
    index: int
    attempt: int
    origin: str
    configuration: Mapping[str, Any]
    micro_batch: int | None = None
    memory: float = 0.0
    note: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Complete:
    """The trial was trained to its end, also by early stopping.

    value: what it is judged by; None: ``SearchPlan.value_of`` of the result, or the best loss reported.
    result: what the objective returned; where it is ``Measured``, the study learns from it.
    """

    value: float | None = None
    result: Any = None


@dataclass(frozen=True)
class Failure:
    """The trial ended without a result. The cause says whether by its own doing: see ``Cause``."""

    cause: Cause = "error"
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Interruption:
    """The trial was stopped for a reason outside it: it is discarded, and its index is free again."""

    reason: str


TrialOutcome = Complete | Failure | Interruption


class UnknownTrial(UserError):
    """There is no open trial of that number."""


class TrialTaken(UserError):
    """The trial was given to another worker since."""


@dataclass(frozen=True)
class Started:
    number: int
    index: int
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
    index: int
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


@dataclass(frozen=True, kw_only=True)
class PlacedTrial:
    """Where a trial ran and when: seconds since the first trial was asked for, and bytes of the device,
    expected and used at most. A trial that was run again is where it ran last. None is not known."""

    number: int
    began: float
    ended: float
    attempts: int | Unset = UNSET
    worker: str
    device: str
    memory: float | None
    peak_memory: float | None
    micro_batch: int | Unset | None = UNSET
