"""A training as data: what a worker is asked for, what all workers share, and what comes back.

Frozen and checked where they are made. On its way through an executor a training is a plain mapping, a
job's payload: ``TrainingJob.as_job`` and ``TrainingJob.of`` are the two ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

from advisor.executors.base import Job
from advisor.search.events import Measured

if TYPE_CHECKING:
    from advisor.dataset import Dataset
    from advisor.networks.pretrained.start import Start
    from advisor.training.loop import Fitted


@dataclass(frozen=True)
class TrainingJob:
    """Train networks on the splits of a validation plan.

    configuration: the parameters by name; plain values.
    seed: of whatever is random in the training. repeat: which partition of the rows; 0 is the search's.
    members: networks per split. keep: whether the result holds the trained stack.
    until: all rows train, for this many epochs of the whole network and of its head alone, and
        none validates.
    parts: only the first this many folds, drawn at random whatever the rows' times.
    micro_batch: rows that are trained at once; None is the whole batch.
    seconds, ends_at: after this many seconds, and about at this time of ``time.time``, it ends itself with
        the best epoch that it has had by then; None is no limit.
    """

    configuration: Mapping[str, Any]
    seed: int
    repeat: int
    members: int
    keep: bool
    until: tuple[int, int] | None = None
    parts: int | None = None
    micro_batch: int | None = None
    seconds: float | None = None
    ends_at: float | None = None

    def __post_init__(self) -> None:
        """ValueError for a job that no worker could train."""
        object.__setattr__(self, "configuration", dict(self.configuration))
        if self.until is not None:
            object.__setattr__(self, "until", (int(self.until[0]), int(self.until[1])))
        for name, least in (("seed", 0), ("repeat", 0), ("members", 1), ("parts", 1), ("micro_batch", 1)):
            number = getattr(self, name)
            if number is not None and number < least:
                raise ValueError(f"a training job's {name} is {number}; it must be at least {least}")
        if (self.seconds is None) != (self.ends_at is None):
            raise ValueError("a training job with a limit has both: its seconds, and when it ends")

    def to_dict(self) -> dict[str, Any]:
        """The payload of a job: plain data; what is None is left out."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def of(cls, job: Job) -> Self:
        """The training that a job asks for. TypeError or ValueError when it asks for none."""
        return cls(**job.payload)

    def as_job(self, name: str) -> Job:
        """A job for an executor. name: unique among its jobs."""
        return Job(name, self.to_dict())

    def of_all_times(self, networks: int, rows: int) -> Self:
        """The same with about this many networks, each of which validates on a random part of the rows,
        whatever their times.

        The parts are disjoint: as many of the configuration's folds as there are networks, or several
        networks for each. rows: of the data set.
        """
        folds = min(int(self.configuration["folds"]), rows)
        members = max(1, round(networks / folds))
        folded = {**self.configuration, "validation": "kfold", "folds": folds, "final_members": members}
        return replace(self, configuration=folded, members=members, parts=min(networks, folds))

    def time_used(self) -> Callable[[], float]:
        """The share of its time that is gone since this was called; always 0 for a job without a limit."""
        if self.seconds is None or self.ends_at is None:
            return lambda: 0.0
        begun = time.monotonic()
        seconds = min(self.seconds, max(self.seconds / 2, self.ends_at - time.time()))
        return lambda: (time.monotonic() - begun) / max(seconds, 1e-9)


FINAL_SEEDS = 1000
"""Seeds of the final begin so far above the run's: no trial of the search has trained with one of them."""


def search_job(configuration: Mapping[str, Any], seed: int, place: int, *, keep: bool = False) -> TrainingJob:
    """What a trial of the search trains. seed: of the run. place: in the budget."""
    return TrainingJob(configuration, seed=seed + place, repeat=0, members=1, keep=keep)


def final_job(
    configuration: Mapping[str, Any], seed: int, repeat: int, most: int | None = None
) -> TrainingJob:
    """What the final trains on a partition, with the configuration's number of networks.

    seed: of the run. repeat: the partition. most: networks per split at most; None is no limit.
    """
    members = int(configuration["final_members"])
    members = members if most is None else min(members, most)
    return TrainingJob(configuration, seed + FINAL_SEEDS + repeat, repeat, members, keep=True)


def limited(job: Job, seconds: float) -> Job:
    """The same job, that ends itself this many seconds from now with the best epoch that it has had by then.

    Whatever the worker's clock says, it is never given more than ``seconds``, nor less than half of them: the
    wait for a worker counts, and a clock that is wrong must not undo the trial.
    """
    training = replace(TrainingJob.of(job), seconds=seconds, ends_at=time.time() + seconds)
    return replace(job, payload=training.to_dict())


@dataclass(frozen=True)
class WorkerData:
    """What all trainings of a worker share. seed: of the splits. start: the weights that all begin with."""

    data: Dataset
    seed: int
    start: Start | None = None


@dataclass(frozen=True)
class TrainingResult(Measured):
    """What a training came to. fitted: the trained stack, None unless it was to be kept.
    validation_losses: after each epoch, as ``train_losses``."""

    fitted: Fitted | None = None
    validation_losses: tuple[float, ...] = ()

    @property
    def stack(self) -> Fitted:
        """The trained stack. ValueError when it was not kept."""
        if self.fitted is None:
            raise ValueError("the trained networks were not kept: the job had keep=False")
        return self.fitted
