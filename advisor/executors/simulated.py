"""An executor on a simulated clock: hours of a cluster with its misfortunes, in
a second and the same every time.

Objectives really run, epoch by epoch, in this process; only time is made up. What a search does when workers
die, nodes are slow or messages come late, twice or in another order can so be tried a thousand times.
"""

from __future__ import annotations

import heapq
import itertools
import random
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from advisor.executors.base import (
    ENDS,
    Began,
    Cancelled,
    Event,
    Factory,
    Failed,
    Finished,
    Job,
    Reported,
    failure,
    over_time,
)

CANCEL_SECONDS = 10.0
"""A cancelled job that hangs has its worker replaced after so long, as on Ray."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, each a chance in [0, 1] unless it says otherwise.

    death: that the worker dies in an epoch.
    hang: that a job never ends an epoch again, asked once an epoch.
    delay: mean seconds by which an event is told late (exponential).
    duplicate: that an event is told again later, up to ten delays after, ends too.
    overtaken: that a report is told after those that follow it, but before the job's end.
    """

    death: float = 0.0
    hang: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    overtaken: float = 0.0

    def __post_init__(self) -> None:
        for name in ("death", "hang", "duplicate", "overtaken"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], not {getattr(self, name)}")
        if not self.delay >= 0:
            raise ValueError(f"delay must be 0 seconds or more, not {self.delay}")


@dataclass
class _Work:
    """A job under way. ``told_at``, ``overtaken_at``: when the last of its events so far is told, of those in
    order and of those that were overtaken; the end comes after both."""

    job: Job
    worker: int
    epochs: Generator[tuple[int, float], None, Any] | None = None
    epoch: int = 0
    told_at: float = 0.0
    overtaken_at: float = 0.0
    cancelled: bool = False
    over: bool = False


class SimulatedExecutor:
    """``slots`` workers on a clock of their own, ``clock()``, which goes on only in
    ``poll``. Give it to ``search``, too.

    seconds: of an epoch, (job, epoch) -> seconds; by default 1. dies: (job, epoch) -> does its worker die
    there? The same seed, jobs and calls give the same events.
    """

    def __init__(
        self,
        factory: Factory,
        shared: Any,
        slots: int = 4,
        *,
        seconds: Callable[[Job, int], float] = lambda job, epoch: 1.0,
        dies: Callable[[Job, int], bool] = lambda job, epoch: False,
        faults: Faults = Faults(),
        seed: int = 0,
    ) -> None:
        self._objective, self._slots = factory(shared), slots
        self._seconds, self._dies, self._faults = seconds, dies, faults
        self._random = random.Random(seed)
        self._now = 0.0
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, _Work | None, Event | str]] = []
        self._work: dict[str, _Work] = {}

    @property
    def slots(self) -> int:
        return self._slots

    def clock(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def submit(self, job: Job) -> None:
        if job.id in self._work:
            raise ValueError(f"job {job.id} is under way")
        if len(self._work) >= self._slots:
            raise ValueError(f"all {self._slots} slots are taken")
        taken = {work.worker for work in self._work.values()}
        work = _Work(job, next(number for number in itertools.count() if number not in taken))
        self._work[job.id] = work
        self._tell(work, Began(job.id, f"worker {work.worker}", "simulated"))
        if job.time_limit is not None:
            self._plan(self._now + job.time_limit, work, "limit")
        self._next_epoch(work)

    def cancel(self, job_id: str) -> None:
        work = self._work.get(job_id)
        if work is not None and not work.cancelled:
            work.cancelled = True
            self._plan(self._now + CANCEL_SECONDS, work, "deaf")

    def set_demand(self, jobs: int) -> None:
        """The slots are those that it was made with."""

    def poll(self, timeout: float) -> list[Event]:
        if not self._work and not self._agenda and self.slots:
            return []
        until, events = self._now + timeout, list[Event]()
        while self._agenda and self._agenda[0][0] <= (self._now if events else until):
            self._now, _, work, what = heapq.heappop(self._agenda)
            if isinstance(what, str):
                if work is not None and not work.over:
                    self._do(work, what)
                continue
            if isinstance(what, ENDS):
                self._work.pop(what.job_id, None)
            events.append(what)
        if not events and (self._work or not self.slots):
            self._now = max(self._now, until)
        return events

    def close(self) -> None:
        for work in self._work.values():
            self._end(work, None)
        self._work, self._agenda = {}, []

    # ------------------------------------------------------------------ what happens

    def _plan(self, at: float, work: _Work | None, what: Event | str) -> None:
        heapq.heappush(self._agenda, (at, next(self._order), work, what))

    def _next_epoch(self, work: _Work) -> None:
        if self._random.random() >= self._faults.hang:
            self._plan(self._now + self._seconds(work.job, work.epoch + 1), work, "epoch")

    def _do(self, work: _Work, what: str) -> None:
        job = work.job
        if what == "limit":
            self._end(work, over_time(job))
        elif what == "deaf" or work.cancelled:
            self._end(work, Cancelled(job.id))
        elif self._dies(job, work.epoch + 1) or self._random.random() < self._faults.death:
            self._end(work, Failed(job.id, f"worker {work.worker} died", cause="worker died"))
        else:
            self._epoch(work)

    def _epoch(self, work: _Work) -> None:
        job = work.job
        try:
            if work.epochs is None:
                work.epochs = self._objective(job)
            epoch, loss = next(work.epochs)
        except StopIteration as stop:
            self._end(work, Finished(job.id, stop.value))
            return
        # whatever an objective raises is the job's end, not ours
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._end(work, failure(job.id, error, traceback.format_exc()))
            return
        work.epoch += 1
        self._tell(work, Reported(job.id, int(epoch), float(loss)))
        self._next_epoch(work)

    def _end(self, work: _Work, event: Event | None) -> None:
        work.over = True
        if work.epochs is not None:
            try:
                work.epochs.close()
            # what an objective raises while it is being stopped changes nothing
            except (Exception, SystemExit):  # noqa: BLE001
                work.epochs = None
        if event is not None:
            self._tell(work, event)

    def _tell(self, work: _Work, event: Event) -> None:
        """Deliver an event: late, and perhaps again; in order within a job, but
        for a report that is overtaken."""
        faults, at = self._faults, max(self._now, work.told_at)
        if faults.delay:
            at = max(at, self._now + self._random.expovariate(1 / faults.delay))
        if isinstance(event, ENDS):
            at = max(at, work.overtaken_at)
        if isinstance(event, Reported) and self._random.random() < faults.overtaken:
            at += 2 * self._seconds(work.job, work.epoch)
            work.overtaken_at = max(work.overtaken_at, at)
        else:
            work.told_at = at
        self._plan(at, None, event)
        if self._random.random() < faults.duplicate:
            self._plan(at + self._random.random() * 10 * (faults.delay or 1.0), None, event)
