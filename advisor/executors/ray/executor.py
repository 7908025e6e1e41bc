"""The executor on Ray: long-lived actors that train, streaming generators that report, ``ray.cancel`` that
prunes."""

from __future__ import annotations

import contextlib
import copy
import time
from dataclasses import dataclass
from typing import Any

from advisor.errors import UserError, error_text
from advisor.executors.base import (
    Began,
    Cancelled,
    Cause,
    Event,
    Executor,
    Factory,
    Failed,
    Finished,
    Job,
    Reported,
    is_out_of_memory,
    over_time,
)
from advisor.executors.ray.packing import Packing
from advisor.executors.ray.pool import RayWorkers
from advisor.executors.ray.worker import WorkerIdentity
from advisor.machine import version_differences, versions

CANCEL_SECONDS = 10.0
"""A cancelled job that reaches no ``yield`` for so long has its worker replaced."""
LIMIT_GRACE_SECONDS = 2.0
"""A job whose time is up may end its epoch for so long; then its worker is replaced."""
CLUSTER_SECONDS = 2.0
"""How often we look for machines that have joined or left."""
STARTS = 5
"""Workers that die one after another before any has started, until it is the set-up that is wrong."""
MEMORY_SHARE = 0.92
"""Share of a GPU's memory that jobs may be packed into: each process's CUDA
context takes some hundred MB besides."""


@dataclass
class _Slot:
    """An actor and what it is doing. ``identity`` is None until it has started."""

    actor: Any
    ready: Any
    identity: WorkerIdentity | None = None
    job: Job | None = None
    stream: Any = None
    began: float = 0.0
    cancelled_at: float | None = None
    over_time: bool = False


class RayExecutor(Executor):
    """Runs jobs on Ray actors, one per slot.

    factory(shared) is called once per worker. ``shared`` is put into Ray's object store once;
    NumPy arrays in it are read there without a copy, so they are read-only. Results are
    copied out of the store: they outlive it.

    Jobs wait here until a worker has started whose GPU has room for their ``memory``. On a cluster, and
    without a number of workers, nodes that join are used and the slots of those that leave are given up.
    """

    def __init__(
        self,
        factory: Factory,
        shared: Any,
        workers: int | None = None,
        address: str | None = None,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        *,
        ray_workers: RayWorkers | None = None,
        device_memory: float | None = None,
    ) -> None:
        """ray_workers: those that were started earlier, in place of the four arguments before it.
        device_memory: bytes of each GPU; None asks the GPU."""
        self._workers = ray_workers or RayWorkers(workers, address, cpus_per_worker, gpus_per_worker)
        self._device_memory = device_memory
        self._events: list[Event] = []
        self._slots: list[_Slot] = []
        self._queue: list[Job] = []
        self._packing = Packing()
        self._looked_at, self._failed_starts, self._served = 0.0, 0, False
        self._demand = self._asked = 0
        self._missing = 0
        try:
            self._workers.wait()
            import ray

            self._ray = ray
            self._factory, self._shared = ray.put(factory), ray.put(shared)
            self._slots = [self._slot(actor) for actor in self._workers.actors]
        except BaseException:
            self._workers.close()
            raise

    @property
    def slots(self) -> int:
        return len(self._slots)

    def set_demand(self, jobs: int) -> None:
        self._demand = jobs

    def worker_pids(self) -> list[int]:
        """Process ids of the workers; waits until they are ready."""
        return [int(self._ray.get(slot.ready).pid) for slot in self._slots]

    def _slot(self, actor: Any) -> _Slot:
        return _Slot(actor, actor.prepare.remote(self._factory, self._shared))

    def submit(self, job: Job) -> None:
        under_way = [slot.job for slot in self._slots if slot.job is not None] + self._queue
        if any(other.id == job.id for other in under_way):
            raise ValueError(f"job {job.id} is under way")
        if len(under_way) >= self.slots:
            raise ValueError(f"all {self.slots} slots are taken")
        self._queue.append(job)
        self._dispatch()

    def cancel(self, job_id: str) -> None:
        for job in [job for job in self._queue if job.id == job_id]:
            self._queue.remove(job)
            self._events.append(Cancelled(job_id))
        for slot in self._slots:
            if slot.job is not None and slot.job.id == job_id and slot.cancelled_at is None:
                slot.cancelled_at = time.monotonic()
                self._ray.cancel(slot.stream)

    def poll(self, timeout: float) -> list[Event]:
        if self._queue or not self._slots or any(slot.job is not None for slot in self._slots):
            self._follow_the_cluster()
            self._read(0.0, len(self._slots))
            if not self._events:
                self._read(timeout, 1)
            self._end_what_hangs()
            self._dispatch()
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------ jobs to workers

    def _dispatch(self) -> None:
        """Give waiting jobs, in order, to free workers with room for them."""
        while self._queue:
            free = [
                (slot, slot.identity.device)
                for slot in self._slots
                if slot.job is None and slot.identity is not None
            ]
            slot = self._packing.choose(free, self._queue[0].memory)
            if slot is None or slot.identity is None:
                return
            job = self._queue.pop(0)
            slot.job, slot.began, slot.cancelled_at, slot.over_time = job, time.monotonic(), None, False
            slot.stream = slot.actor.run.remote(job)
            self._packing.put(slot.identity.device, job.id, job.memory)
            self._served = True
            self._events.append(
                Began(job.id, f"{slot.identity.address} pid {slot.identity.pid}", slot.identity.device)
            )

    def _welcome(self, slot: _Slot) -> None:
        """A worker has started, or could not."""
        try:
            identity = self._ray.get(slot.ready)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= STARTS and not any(other.identity for other in self._slots):
                # The last line: above it stand Ray's ids and, of an import that failed, the stack.
                last = str(error).strip().splitlines()[-1:] or [""]
                raise UserError(
                    f"no worker can be started: {type(error).__name__}: {last[0].strip()[:300]}"
                ) from error
            self._renew(slot)
            return
        self._failed_starts = 0
        if differing := version_differences(versions(), identity.versions):
            if not self._served:
                raise UserError(
                    f"a worker on {identity.address} runs other versions: {'; '.join(differing)}: install "
                    "the same there"
                )
            # One that joins later is not worth a search that runs well: it is left out.
            self._drop(slot)
            return
        slot.identity = identity
        capacity = (self._device_memory or identity.memory) if identity.gpus else None
        self._packing.add(identity.device, None if capacity is None else MEMORY_SHARE * capacity)

    # ------------------------------------------------------------------ events

    def _read(self, timeout: float, number: int) -> None:
        """Take in one message of every worker that has one, or the first that comes within the timeout.

        One, not all: a worker that reports faster than we read must not keep the driver here.
        """
        # Of a cancelled stream Ray says that it is ready, and then `next` waits for the
        # job's very end: without limit when the job never gets to a yield. So there we wait
        # for the end first, and only then read.
        busy = [slot for slot in self._slots if slot.job is not None]
        sources = {
            slot.stream if slot.cancelled_at is None else slot.stream.completed(): slot for slot in busy
        }
        if self._queue:
            sources |= {slot.ready: slot for slot in self._slots if slot.identity is None}
        if not sources:
            time.sleep(timeout)  # every worker's node is gone; others may join
            return
        ready, _ = self._ray.wait(list(sources), num_returns=min(number, len(sources)), timeout=timeout)
        for source in ready:
            slot = sources[source]
            if slot.identity is None:
                self._welcome(slot)
                continue
            self._take(slot)
            while slot.job is not None and slot.cancelled_at is not None:
                self._take(slot)

    def _take(self, slot: _Slot) -> None:
        job = slot.job
        assert job is not None
        errors = self._ray.exceptions
        try:
            kind, epochs, payload = self._ray.get(next(slot.stream))
        except (StopIteration, errors.TaskCancelledError):
            stopped = Failed(job.id, "the worker stopped", cause="worker died")
            self._end(slot, self._stopped(slot, job) if slot.cancelled_at is not None else stopped)
            return
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.TaskCancelledError):
                self._end(slot, self._stopped(slot, job))
            else:
                # Not the objective's own (that comes as a message) but, say, a result that cannot be sent.
                self._end(slot, Failed(job.id, error_text(error.cause or error), str(error)))
            return
        except errors.RayError as error:
            # The actor died, is out of reach, was killed for memory, or its node is gone.
            cause = self._cause(slot, error)
            self._renew(slot)
            self._end(slot, Failed(job.id, " ".join(error_text(error).split())[:500], cause=cause))
            return
        self._events.extend(Reported(job.id, epoch, loss) for epoch, loss in epochs)
        if kind == "finished":
            # Out of the object store: its memory is gone after the shutdown, and its arrays are read-only.
            self._end(slot, Finished(job.id, copy.deepcopy(payload)))
        elif kind == "failed":
            self._end(slot, payload)

    def _stopped(self, slot: _Slot, job: Job) -> Event:
        return over_time(job) if slot.over_time else Cancelled(job.id)

    def _end(self, slot: _Slot, event: Event) -> None:
        self._events.append(event)
        self._packing.remove(event.job_id)
        slot.job = slot.stream = slot.cancelled_at = None

    def _cause(self, slot: _Slot, error: BaseException) -> Cause:
        """Was it the job, or the machine?"""
        if is_out_of_memory(error):
            return "out of memory"
        if isinstance(error, self._ray.exceptions.ActorUnavailableError):
            # Of a process that died Ray knows that it did. This is a machine that no longer answers.
            return "node lost"
        if not self._workers.head_answers():
            return "node lost"  # with the head, as far as we can know
        return (
            "worker died"
            if slot.identity is not None and slot.identity.node in self._nodes()
            else "node lost"
        )

    def _nodes(self) -> set[str]:
        """Those that are there."""
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    # ------------------------------------------------------------------ workers

    def _renew(self, slot: _Slot) -> None:
        """Another actor in the slot, wherever there is room; later where the head,
        which places it, does not answer now."""
        if not self._workers.head_answers():
            self._drop(slot)
            self._missing += 1
            return
        self._workers.end(slot.actor)
        new = self._slot(self._workers.add())
        slot.actor, slot.ready, slot.identity = new.actor, new.ready, None

    def _drop(self, slot: _Slot) -> None:
        self._workers.end(slot.actor)
        self._slots.remove(slot)

    def _follow_the_cluster(self) -> None:
        """A slot for every place that nodes have brought, none for those that have gone with theirs."""
        if time.monotonic() - self._looked_at < CLUSTER_SECONDS:
            return
        self._looked_at = time.monotonic()
        if not self._workers.head_answers():
            return
        self._slots += [self._slot(self._workers.add()) for _ in range(self._missing)]
        self._missing = 0
        wanted = self._workers.wanted()
        if wanted is None:
            return
        if self._demand != self._asked:
            self._workers.ask_for(self._demand)
            self._asked = self._demand
        # What a worker's own processes hold may be gone with another node than
        # its own, and idle ones keep the rest.
        unused = [
            slot
            for slot in self._slots
            if slot.identity is None or (self._workers.spanning and slot.job is None)
        ]
        for slot in unused[: max(0, self.slots - wanted)]:
            self._drop(slot)
        for _ in range(wanted - self.slots):
            self._slots.append(self._slot(self._workers.add()))

    def _end_what_hangs(self) -> None:
        """Jobs whose time is up; and those that were told to end and never reach a yield (blocked in C, an
        endless loop): these cost their worker, not the run."""
        now = time.monotonic()
        for slot in list(self._slots):
            job = slot.job
            if job is None:
                continue
            if (
                job.time_limit is not None
                and slot.cancelled_at is None
                and now - slot.began >= job.time_limit
            ):
                slot.over_time = True
                self.cancel(job.id)
            patience = LIMIT_GRACE_SECONDS if slot.over_time else CANCEL_SECONDS
            if slot.cancelled_at is not None and now - slot.cancelled_at > patience:
                self._renew(slot)
                self._end(slot, self._stopped(slot, job))

    def close(self) -> None:
        if self._asked and self._ray.is_initialized() and self._workers.head_is_there():
            with contextlib.suppress(
                self._ray.exceptions.RayError
            ):  # a cluster that is gone has forgotten it
                self._workers.ask_for(0)
        self._asked = 0
        self._workers.close()
        self._slots, self._queue, self._events = [], [], []
