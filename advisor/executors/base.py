"""Where jobs run: the Executor protocol and the executor that runs them in this process.

A job is a piece of plain data; an objective turns it into a generator of ``(epoch, loss)`` whose
return value is the job's result. Training as a generator is what makes a job stoppable
everywhere: it ends at its next ``yield``.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from advisor.errors import error_text


@dataclass(frozen=True)
class Job:
    """Something to run. ``id`` is unique among the jobs of an executor; ``payload`` is plain, picklable data.

    memory: bytes of a worker's device that the job is expected to need; 0 is not known. An executor
        that shares devices packs jobs by it.
    time_limit: seconds from its beginning until it is ended; None is no limit.
    """

    id: str
    payload: Mapping[str, Any]
    memory: float = 0.0
    time_limit: float | None = None


Objective = Callable[[Job], Generator[tuple[int, float], None, Any]]
"""Yields (epoch, loss) and returns the result."""
Factory = Callable[[Any], Objective]
"""Called once per worker with what all jobs share (arrays in it may be
read-only); importable on the workers."""

Cause = Literal["error", "worker died", "node lost", "out of memory", "time limit"]
"""Why a job failed. error: the objective raised. worker died: the process that ran it is gone, and the job
may be why. node lost: the machine is gone with it, which says nothing about the job. out of memory: of a GPU
or the host; a smaller job may work. time limit: it was under way for longer than its ``time_limit``."""


@dataclass(frozen=True)
class Began:
    """A worker has taken the job. ``worker`` names it for people; ``device`` is the
    GPU or the node that it trains on."""

    job_id: str
    worker: str
    device: str


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
    """The job ended without a result, for a ``cause``; ``error`` is one line,
    ``traceback`` empty when there is none."""

    job_id: str
    error: str
    traceback: str = ""
    cause: Cause = "error"


@dataclass(frozen=True)
class Cancelled:
    """The job ended because of :meth:`Executor.cancel`."""

    job_id: str


DEATHS = 2
"""A job is run again after its worker died; after this many deaths it is the job that kills it."""
ATTEMPTS = 20
"""However a job ends without an end of its own (nodes that are lost, memory that is
too small): so often and no more."""

Event = Began | Reported | Finished | Failed | Cancelled
ENDS = (Finished, Failed, Cancelled)
"""The events after which a job's slot is free."""


class Executor(Protocol):
    """Runs jobs and tells what becomes of them.

    Order of calls: ``submit`` up to ``slots`` jobs; ``poll`` until each of them has ended; ``submit`` more
    when one has; ``close`` once, also after an exception. In the life of a job: Began once a worker has it (a
    job may wait for one), any number of Reported in the order of its epochs, then exactly one of Finished,
    Failed and Cancelled, and nothing after that. Jobs are independent: their events come in any order.

    ======================================== ==============================================================
    ``submit(a)``, ``poll``, ``poll``, … Began(a), Reported(a, 1), Reported(a, 2), …, Finished(a)
    ``submit(a)``, ``cancel(a)``, ``poll``… Cancelled(a); or Finished(a) when it was faster ``cancel`` of an
    ended or unknown job nothing happens ``poll`` while nothing is submitted an empty list, at once a worker
    dies in ``a`` Failed(a, cause "worker died"); the worker is replaced a node is gone, and ``a`` with it
    Failed(a, cause "node lost"); ``slots`` may be fewer from then on ``a`` raises for want of memory
    Failed(a, cause "out of memory") ``a`` runs for ``a.time_limit`` seconds Failed(a, cause "time limit"); a
    worker that hangs in it is replaced ========================================
    ==============================================================

    ``advisor.search.executor_contract.ExecutorContract`` tests all of this on any executor.
    """

    @property
    def slots(self) -> int:
        """How many jobs may be under way at once. It changes where machines join and leave."""

    def submit(self, job: Job) -> None:
        """Start a job. ValueError when ``slots`` jobs are under way or the id is in use."""

    def set_demand(self, jobs: int) -> None:
        """How many jobs could be under way if there were slots for them: where
        machines can be got, they are asked for."""

    def poll(self, timeout: float) -> list[Event]:
        """Wait up to ``timeout`` seconds for the first event; then all that are
        there. Waits too while ``slots`` is 0."""

    def cancel(self, job_id: str) -> None:
        """Ask a job to end at its next epoch. Returns at once."""

    def close(self) -> None:
        """Stop everything. May be called twice."""


class Lost(Exception):
    """For an objective that has lost processes of its own: why its job ends."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


def failure(job_id: str, error: BaseException, traceback: str = "") -> Failed:
    """What an exception of an objective is for its job."""
    if isinstance(error, Lost):
        return Failed(job_id, " ".join(str(error).split()), traceback, error.cause)
    return Failed(
        job_id, error_text(error), traceback, "out of memory" if is_out_of_memory(error) else "error"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Is it for want of memory? By name, because the class is torch's, Ray's or another library's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says in a plain RuntimeError: CUDA's libraries, and its allocator on the CPU."""


class InProcessExecutor:
    """Runs one job at a time in this process, an epoch per ``poll``. For debugging, and for small searches.

    A time limit is looked at between two epochs: nothing can end an epoch that runs in this very thread.
    """

    slots = 1

    def __init__(self, factory: Factory, shared: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._objective = factory(shared)
        self._clock = clock
        self._job: Job | None = None
        self._epochs: Generator[tuple[int, float], None, Any] | None = None
        self._cancelled = False
        self._began = 0.0

    def submit(self, job: Job) -> None:
        if self._job is not None:
            raise ValueError(f"job {self._job.id} is under way: one slot, one job")
        self._job, self._epochs, self._cancelled = job, None, False

    def set_demand(self, jobs: int) -> None:
        """There is one slot, whatever the demand."""

    def poll(self, timeout: float) -> list[Event]:
        if self._job is None:
            return []
        job, events = self._job, list[Event]()
        try:
            if self._epochs is None and not self._cancelled:
                self._epochs, self._began = self._objective(job), self._clock()
                events.append(Began(job.id, "this process", "this machine"))
            events.append(self._step(job))
        # whatever a user's objective raises is the job's end, not ours
        except (Exception, SystemExit) as error:  # noqa: BLE001
            events.append(failure(job.id, error, traceback.format_exc()))
        if isinstance(events[-1], ENDS):
            self._job = self._epochs = None
        return events

    def _step(self, job: Job) -> Event:
        if self._cancelled or self._epochs is None:
            self._stop()
            return Cancelled(job.id)
        if job.time_limit is not None and self._clock() - self._began >= job.time_limit:
            self._stop()
            return over_time(job)
        try:
            epoch, loss = next(self._epochs)
        except StopIteration as stop:
            return Finished(job.id, stop.value)
        return Reported(job.id, int(epoch), float(loss))

    def _stop(self) -> None:
        if self._epochs is not None:
            try:
                self._epochs.close()
            # what an objective raises while it is being stopped changes nothing
            except (Exception, SystemExit):  # noqa: BLE001
                return

    def cancel(self, job_id: str) -> None:
        if self._job is not None and self._job.id == job_id:
            self._cancelled = True

    def close(self) -> None:
        self._stop()
        self._job = self._epochs = None


def over_time(job: Job) -> Failed:
    """The end of a job that met its limit."""
    return Failed(job.id, f"it reached its time limit of {job.time_limit:g} s", cause="time limit")
