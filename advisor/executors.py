"""Where jobs run: the Executor protocol and the executor that runs them in this process.

A job is a piece of plain data; an objective turns it into a generator of ``(epoch, loss)`` whose return value is the
job's result. Training as a generator is what makes a job stoppable everywhere: it ends at its next ``yield``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """Something to run. ``id`` is unique among the jobs of an executor; ``payload`` is plain, picklable data."""

    id: str
    payload: Mapping[str, Any]


Objective = Callable[[Job], Generator[tuple[int, float], None, Any]]
"""Yields (epoch, loss) and returns the result."""
Factory = Callable[[Any], Objective]
"""Called once per worker with what all jobs share (arrays in it may be read-only); importable on the workers."""


@dataclass(frozen=True)
class Reported:
    """The job finished an epoch. Loss is as the objective gave it, also NaN or infinity."""

    job_id: str
    epoch: int
    loss: float


@dataclass(frozen=True)
class Finished:
    """The objective returned ``result``."""

    job_id: str
    result: Any


@dataclass(frozen=True)
class Failed:
    """The objective raised, or (``worker_died``) the process that ran it is gone: then the job may be run again."""

    job_id: str
    error: str
    traceback: str
    worker_died: bool = False


@dataclass(frozen=True)
class Cancelled:
    """The job ended because of :meth:`Executor.cancel`."""

    job_id: str


Event = Reported | Finished | Failed | Cancelled


class Executor(Protocol):
    """Runs jobs and tells what becomes of them.

    Order of calls: ``submit`` up to ``slots`` jobs; ``poll`` until each of them has ended; ``submit`` more when one
    has; ``close`` once, also after an exception. In the life of a job: any number of Reported in the order of its
    epochs, then exactly one of Finished, Failed and Cancelled, and nothing after that.

    ========================================  ==========================================================
    ``submit(a)``, ``poll``, ``poll``, …      Reported(a, 1), Reported(a, 2), …, Finished(a)
    ``submit(a)``, ``cancel(a)``, ``poll``…   Cancelled(a); or Finished(a) when it was faster
    ``cancel`` of an ended or unknown job     nothing happens
    ``poll`` while nothing is submitted       an empty list, at once
    a worker dies in ``a``                    Failed(a, worker_died=True); the worker is replaced
    ========================================  ==========================================================
    """

    @property
    def slots(self) -> int:
        """How many jobs may be under way at once."""

    def submit(self, job: Job) -> None:
        """Start a job. ValueError when ``slots`` jobs are under way or the id is in use."""

    def poll(self, timeout: float) -> list[Event]:
        """Wait up to ``timeout`` seconds for the first event; then all that are there."""

    def cancel(self, job_id: str) -> None:
        """Ask a job to end at its next epoch. Returns at once."""

    def close(self) -> None:
        """Stop everything. May be called twice."""


def error_text(error: BaseException) -> str:
    """An exception in one line: its type and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class InProcessExecutor:
    """Runs one job at a time in this process, an epoch per ``poll``. For debugging, and for small searches."""

    slots = 1

    def __init__(self, factory: Factory, shared: Any) -> None:
        self._objective = factory(shared)
        self._job: Job | None = None
        self._epochs: Generator[tuple[int, float], None, Any] | None = None
        self._cancelled = False

    def submit(self, job: Job) -> None:
        if self._job is not None:
            raise ValueError(f"job {self._job.id} is under way: one slot, one job")
        self._job, self._epochs, self._cancelled = job, None, False

    def poll(self, timeout: float) -> list[Event]:
        if self._job is None:
            return []
        job = self._job
        try:
            event = self._step(job)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's objective raises is the job's end, not ours
            event = Failed(job.id, error_text(error), traceback.format_exc())
        if not isinstance(event, Reported):
            self._job = self._epochs = None
        return [event]

    def _step(self, job: Job) -> Event:
        if self._cancelled:
            self._stop()
            return Cancelled(job.id)
        if self._epochs is None:
            self._epochs = self._objective(job)
        try:
            epoch, loss = next(self._epochs)
        except StopIteration as stop:
            return Finished(job.id, stop.value)
        return Reported(job.id, int(epoch), float(loss))

    def _stop(self) -> None:
        if self._epochs is not None:
            try:
                self._epochs.close()
            except (Exception, SystemExit):  # noqa: BLE001 - what an objective raises while it is being stopped changes nothing
                return

    def cancel(self, job_id: str) -> None:
        if self._job is not None and self._job.id == job_id:
            self._cancelled = True

    def close(self) -> None:
        self._stop()
        self._job = self._epochs = None
