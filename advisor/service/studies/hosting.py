"""An open study: leases on its trials, proposals made ahead in the background, events for who listens.

What is proposed, pruned, requeued and refused is the study's own business (``advisor.search.study``), which
keeps it too. A lease is a row in the service's database, written before the trial is answered: after a kill,
trials with a row stay with their workers, and those without one were never given to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from advisor.search.events import Ended, EpochDone, SearchEvent, Started
from advisor.search.study import Assignment, Complete, Failure, Study
from advisor.service.base import tables
from advisor.service.base.problems import Problem
from advisor.service.base.store import Store, now
from advisor.spaces.space import Space

T = TypeVar("T")
MOST_AHEAD, AHEAD_SECONDS, RATE_SECONDS = 3, 0.1, 1.0
"""At most this many proposals wait for who asks, as many as are expected to be asked for in 0.1 s, by what
was
asked in the last second: a proposal made ahead knows nothing of the results that come after it. Who asks less
often than 10 times a second gets one that knows all."""
KEPT_EVENTS = 2_000
"""Events that a listener who comes back can still be told."""


@dataclass
class TrialLease:
    """Who has a trial. until: on time.monotonic's clock; it moves with every sign of life."""

    assignment: Assignment
    attempt: int
    key: str | None
    worker: str
    until: float


@dataclass(frozen=True)
class StudyEvent:
    """Something that happened in a study. number: in their order, from 1."""

    number: int
    kind: str
    data: Mapping[str, Any]


class StudyHost:
    """One study, open in this process, which alone may.

    Its methods are called from the event loop; what may wait for the study's lock runs in ``calls``, what
    proposes in ``proposals``.
    """

    def __init__(
        self,
        row_id: str,
        study: Study,
        space: Space,
        request: Mapping[str, Any],
        store: Store,
        calls: Executor,
        proposals: Executor,
    ) -> None:
        self.id, self.study, self.space, self.request = row_id, study, space, request
        self.sign = -1 if request["direction"] == "maximize" else 1
        self.seconds: float = request["lease_seconds"]
        self._store, self._calls, self._proposals = store, calls, proposals
        self._loop = asyncio.get_running_loop()
        self.leases: dict[int, TrialLease] = {}
        self._keys: dict[str, tuple[int, int]] = {}
        self._attempts: dict[int, int] = {}
        self._ready: deque[Assignment] = deque()
        self._asked: deque[float] = deque()  # when, in the last RATE_SECONDS
        self._waiters: deque[asyncio.Future[Assignment | None]] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._next_sync: asyncio.Task[None] | None = None
        self._syncing = asyncio.Lock()
        self._asking: dict[str, asyncio.Future[TrialLease | None]] = {}
        self._numbers = itertools.count(1)
        self.events: deque[StudyEvent] = deque(maxlen=KEPT_EVENTS)
        self._heard = asyncio.Event()
        self.used = time.monotonic()

    async def begin(self) -> None:
        """Take up the leases that stand in the database; each worker has the whole time again."""
        query = sa.select(tables.leases).where(tables.leases.c.study == self.id)
        rows = await self._store.reading(lambda connection: connection.execute(query).mappings().all())
        known = {row["number"]: row for row in rows}
        self._attempts = {row["number"]: row["attempt"] for row in rows}
        self._keys = {row["key"]: (row["number"], row["attempt"]) for row in rows if row["key"]}
        for one in self.study.running:
            row = known.get(one.number)
            if row is None:
                self._ready.append(one)
            else:
                until = time.monotonic() + self.seconds
                self.leases[one.number] = TrialLease(one, row["attempt"], row["key"], row["worker"], until)
        self.fill()

    # ------------------------------------------------------------------------------------------- asking

    async def ask(self, key: str | None, worker: str) -> tuple[TrialLease | None, bool]:
        """A trial with a lease, and whether it is a new one; None: there is none for the moment.

        The same key gets the same trial, also when both requests are under way at once.
        """
        if key is None:
            return await self._lease(None, worker), True
        if (known := self._by_key(key)) is not None:
            return known, False
        if key in self._asking:
            return await asyncio.shield(self._asking[key]), False
        future = self._asking[key] = self._loop.create_future()
        try:
            lease = await self._lease(key, worker)
            future.set_result(lease)
            return lease, True
        except BaseException as error:  # also a cancellation: whoever waits for the same key must not hang
            future.set_exception(error)
            future.exception()  # whoever waits has it; nobody need
            raise
        finally:
            del self._asking[key]

    def _by_key(self, key: str) -> TrialLease | None:
        number, attempt = self._keys.get(key, (-1, 0))
        lease = self.leases.get(number)
        if lease is not None and lease.attempt == attempt:
            lease.until = time.monotonic() + self.seconds
            return lease
        if lease is None and number >= 0 and self._attempts.get(number) == attempt:
            return self._of_ended(number, attempt, key)
        return None

    def _of_ended(self, number: int, attempt: int, key: str) -> TrialLease | None:
        """The lease of a trial that has ended since: its asker never heard of it, or asks again."""
        trial = next((one for one in self.study.trials if one.number == number), None)
        if trial is None:
            return None
        from advisor.search.trials import configuration_of, index_of

        configuration = configuration_of(trial, self.space)
        origin = trial.user_attrs.get("origin", "search")
        assignment = Assignment(number, index_of(trial), attempt, origin, configuration)
        return TrialLease(assignment, attempt, key, "", time.monotonic())

    async def _lease(self, key: str | None, worker: str) -> TrialLease | None:
        assignment = await self._take()
        if assignment is None:
            return None
        number = assignment.number
        attempt = self._attempts.get(number, 0) + 1
        row = {"study": self.id, "number": number, "attempt": attempt, "key": key, "worker": worker}
        try:
            await self._store.writing(lambda connection: _write_lease(connection, row))
        except BaseException:
            self._ready.appendleft(assignment)
            raise
        lease = TrialLease(assignment, attempt, key, worker, time.monotonic() + self.seconds)
        self.leases[number], self._attempts[number] = lease, attempt
        if key is not None:
            self._keys[key] = (number, attempt)
        self._tell("leased", {"number": number, "attempt": attempt, "worker": worker})
        return lease

    async def _take(self) -> Assignment | None:
        self._asked.append(time.monotonic())
        self.study.check()  # where all have failed, what was proposed before is not given either
        if self._ready:
            assignment = self._ready.popleft()
            self.fill()
            return assignment
        if not self.study.free and not self.study.waiting and not self._is_filling():
            return None
        waiter: asyncio.Future[Assignment | None] = self._loop.create_future()
        self._waiters.append(waiter)
        self.fill()
        return await waiter

    def fill(self) -> None:
        """See to it that proposals are made while somebody waits for one, or will soon."""
        if not self._is_filling():
            self._filling = asyncio.create_task(self._fill())

    def _is_filling(self) -> bool:
        return self._filling is not None and not self._filling.done()

    async def _fill(self) -> None:
        while self._waiters or len(self._ready) < self._ahead():
            try:
                made = await self._loop.run_in_executor(self._proposals, self.study.ask)
            except Exception as error:  # noqa: BLE001  whoever waits is told, and the next who asks tries again
                self._release(error)
                return
            if made is None:
                self._release(None)
                return
            self._give(made)

    def _ahead(self) -> int:
        """How many proposals should wait for who asks next."""
        while self._asked and self._asked[0] < time.monotonic() - RATE_SECONDS:
            self._asked.popleft()
        return min(MOST_AHEAD, int(len(self._asked) * AHEAD_SECONDS / RATE_SECONDS))

    def _give(self, made: Assignment, *, first: bool = False) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(made)
                return
        if first:
            self._ready.appendleft(made)
        else:
            self._ready.append(made)

    def _release(self, error: Exception | None) -> None:
        """Tell all who wait that there is no trial, or why."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    # -------------------------------------------------------------------------------- reporting and telling

    async def report(self, number: int, epoch: int, loss: float | None, attempt: int | None) -> bool:
        """Take a loss (None: it is not finite); whether the trial is to stop. A sign of life."""
        if self.is_taken(number, attempt):
            return True
        self.renew(number)
        value = float("nan") if loss is None else self.sign * loss
        stop = await self._call(lambda: self.study.report(number, epoch, value))
        if stop:
            await self._end(number)
        return stop

    async def complete(self, number: int, value: float | None, attempt: int | None) -> Ended:
        """Take a trial's value; how it ended, when that is on the disk."""
        self._check(number, attempt)
        outcome = Complete(None if value is None else self.sign * value)
        ended = await self._call(lambda: self.study.tell(number, outcome))
        await self._end(number)
        assert ended is not None
        told = outcome.value
        if told is not None and ended.end == "complete" and ended.value != told:
            raise Problem(409, f"trial {number} was already told, with another value")
        return ended

    async def fail(self, number: int, failure: Failure, attempt: int | None) -> Ended | None:
        """Take a failure; None where the trial is given out again."""
        self._check(number, attempt)
        ended = await self._call(lambda: self.study.tell(number, failure))
        if ended is None:
            await self._requeue()
        await self._end(number)
        return ended

    def renew(self, number: int) -> float | None:
        """The worker is alive: its seconds begin again. None where the trial has ended."""
        lease = self.leases.get(number)
        if lease is None:
            return None
        lease.until = time.monotonic() + self.seconds
        self.used = time.monotonic()
        return self.seconds

    def is_taken(self, number: int, attempt: int | None) -> bool:
        """Whether the worker of that attempt has lost the trial. 404 for a trial that was never given out."""
        if number not in self._attempts:
            raise Problem(404, f"this study has not given out trial {number}")
        return attempt is not None and attempt != self._attempts[number]

    def _check(self, number: int, attempt: int | None) -> None:
        if self.is_taken(number, attempt):
            detail = f"the lease on trial {number} had expired, and another worker has the trial"
            raise Problem(409, detail, attempt=self._attempts[number])
        if number not in self.leases and self.study.is_open(number):
            raise Problem(409, f"the lease on trial {number} had expired: the next worker gets the trial")

    async def _end(self, number: int) -> None:
        self.leases.pop(number, None)
        await self._durable()
        self.fill()

    async def lapse(self) -> None:
        """Give back the trials of workers that have been silent for too long; they are the next to be
        given."""
        moment = time.monotonic()
        failure = Failure("node lost", f"silent for {self.seconds:g} s")
        for number, lease in [one for one in self.leases.items() if one[1].until <= moment]:
            del self.leases[number]
            try:
                ended = await self._call(partial(self.study.tell, number, failure))
            except BaseException:
                self.leases[number] = lease  # looked at again: nothing was written
                raise
            self._tell("lapsed", {"number": number, "attempt": lease.attempt, "worker": lease.worker})
            if ended is None:
                await self._requeue()

    async def _requeue(self) -> None:
        """Fetch the trial that was given back, before any other: the study gives it first."""
        made = await self._loop.run_in_executor(self._proposals, self.study.ask)
        if made is not None:
            self._give(made, first=True)

    async def _durable(self) -> None:
        """Wait until what was told is on the disk; all who wait share one write."""
        if self._next_sync is None:
            self._next_sync = asyncio.create_task(self._sync())
        await asyncio.shield(self._next_sync)

    async def _sync(self) -> None:
        async with self._syncing:
            self._next_sync = None
            await self._call(self.study.sync)

    async def _call(self, work: Callable[[], T]) -> T:
        self.used = time.monotonic()
        return await self._loop.run_in_executor(self._calls, work)

    # -------------------------------------------------------------------------------------------- events

    def on_event(self, event: SearchEvent) -> None:
        """Told by the study, within a thread of ours."""
        if isinstance(event, Started):
            kind, data = "proposed", {"number": event.number, "origin": event.origin}
        elif isinstance(event, EpochDone):
            kind, data = (
                "report",
                {"number": event.number, "epoch": event.epoch, "loss": self.sign * event.loss},
            )
        else:
            kind, data = "ended", shown_end(event, self.sign)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._tell, kind, data)

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        self.events.append(StudyEvent(next(self._numbers), kind, data))
        self._heard.set()
        self._heard = asyncio.Event()

    def after(self, number: int) -> list[StudyEvent]:
        """The events that are kept and came after that one."""
        return [event for event in self.events if event.number > number]

    async def listen(self, seconds: float) -> None:
        """Wait for the next event, or so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), seconds)

    def is_idle(self, seconds: float) -> bool:
        """Whether nobody has a trial, waits for one, or has asked anything for so long."""
        busy = self.leases or self._waiters or self._is_filling()
        return not busy and time.monotonic() - self.used > seconds


def shown_end(ended: Ended, sign: int) -> dict[str, Any]:
    """How a trial ended, as it is answered."""
    value = None if ended.value is None or ended.end not in ("complete", "pruned") else sign * ended.value
    shown = {"number": ended.number, "state": ended.end, "value": value}
    return {**shown, "reason": ended.reason, "is_best": ended.is_best}


def _write_lease(connection: Connection, row: Mapping[str, Any]) -> None:
    columns = tables.leases.c
    mine = (columns.study == row["study"], columns.number == row["number"])
    values = {name: row[name] for name in ("attempt", "key", "worker")}
    again = connection.execute(sa.update(tables.leases).where(*mine).values(**values, created=now()))
    if not again.rowcount:
        connection.execute(sa.insert(tables.leases).values(**row, created=now()))


def lease_times(lease: TrialLease) -> Iterator[tuple[str, float]]:
    """When a lease ends, in seconds since 1970 and from now."""
    left = max(0.0, lease.until - time.monotonic())
    yield "lease_seconds", round(left, 3)
    yield "lease_expires_at", round(now() + left, 3)
