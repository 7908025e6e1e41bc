"""The executor on Ray: long-lived actors that train, streaming generators that report, ``ray.cancel`` that prunes.

:class:`RayWorkers` starts Ray and its actors, in the background, while the driver still reads data;
:class:`RayExecutor` gives them the data and runs jobs on them.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import math
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.errors import UserError
from advisor.executors import (
    Cancelled,
    Event,
    Executor,
    Factory,
    Failed,
    Finished,
    Job,
    Objective,
    Reported,
    error_text,
)
from advisor.ray_errors import CLIENT, core_log, why_not

BATCH_SECONDS = 0.02
"""A worker gathers the epochs of so long into one message: a message costs about as much as a hundred tiny epochs."""
CANCEL_SECONDS = 10.0
"""A cancelled job that reaches no ``yield`` for so long has its worker replaced."""
CONNECT_SECONDS = 3.0
"""How long a cluster's port may take to answer before we say that nobody is there."""

_Message = tuple[str, list[tuple[int, float]], Any]
"""(kind, epochs since the last message, payload); kind is "epochs", "finished" or "failed"."""


class _Worker:
    """What runs in an actor. ``prepare`` comes before the first ``run``, which waits for its result."""

    def __init__(self, imports: Sequence[str]) -> None:
        for name in imports:
            # Seconds of importing torch, spent while the driver still reads data. A module that is missing here
            # is reported by `prepare`, with the objective that needs it.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self._objective: Objective | None = None
        self._complaint = ("the worker was never prepared", "")

    def prepare(self, factory: Factory, shared: Any) -> int:
        """Make the objective; the worker's process id."""
        try:
            self._objective = factory(shared)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told by the first job, as every error of an objective is
            self._complaint = (f"the worker could not be set up: {error_text(error)}", traceback.format_exc())
        return os.getpid()

    def run(self, job: Job, pid: int) -> Generator[_Message, None, None]:
        """The job's epochs in batches, then its end. ``pid``, of ``prepare``, is there to be waited for."""
        if self._objective is None:
            yield ("failed", [], self._complaint)
            return
        epochs: list[tuple[int, float]] = []
        sent = time.monotonic()
        try:
            steps = self._objective(job)
            # Closed also when Ray closes us (GeneratorExit at our yield): the objective's `finally` must run.
            with contextlib.closing(steps):
                while True:
                    try:
                        epoch, loss = next(steps)
                    except StopIteration as stop:
                        message: _Message = ("finished", epochs, stop.value)
                        break
                    epochs.append((int(epoch), float(loss)))
                    if time.monotonic() - sent >= BATCH_SECONDS:
                        yield ("epochs", epochs, None)
                        epochs, sent = [], time.monotonic()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's objective raises is the job's end
            message = ("failed", epochs, (error_text(error), traceback.format_exc()))
        yield message


class RayWorkers:
    """Ray, started or joined, with one actor per slot.

    Order of calls: ``start`` (returns at once; the rest goes on in a thread), ``wait`` (a UserError when it did not
    work), ``close``. A Ray that was running in this process is used and left alone.

    address: None starts Ray on this machine for this process only; else HOST:PORT or auto.
    workers: None is one per ``cpus_per_worker`` of the cluster's CPUs (and per ``gpus_per_worker`` of its GPUs).
    imports: modules that every worker imports at once. working_dir: a folder of code that is sent to a cluster's workers.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        imports: Sequence[str] = (),
        working_dir: str | Path | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"workers must be at least 1, not {workers}")
        self._workers, self._address, self._imports = workers, address, tuple(imports)
        self._cpus, self._gpus, self._working_dir = cpus_per_worker, gpus_per_worker, working_dir
        self._thread: threading.Thread | None = None
        self._ready, self._closing, self._over = threading.Event(), threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._ours = False
        self.actors: list[Any] = []

    def start(self) -> None:
        """Begin in the background. Calling it again does nothing."""
        if self._thread is None:
            _settle_authentication(self._address)
            self._thread = threading.Thread(target=self._live, name="ray-start", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Until Ray and its actors are there; raises what went wrong."""
        self.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def _live(self) -> None:
        try:
            self._init()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, in the thread that can act on it
            self._error = error
        finally:
            self._ready.set()
        # Linux ends Ray's processes when the *thread* that started them ends (PR_SET_PDEATHSIG), so it stays.
        self._over.wait()

    def _init(self) -> None:
        if self._address is not None:
            _knock(self._address)
        import ray

        if not ray.is_initialized():
            _ray_init(self._address, self._local_resources(), self._working_dir)
            self._ours = True
        if self._closing.is_set():
            return
        for _ in range(self._count(ray.cluster_resources())):
            self.actors.append(self.new_actor())

    def _local_resources(self) -> dict[str, Any]:
        cpus = max(len(os.sched_getaffinity(0)), math.ceil((self._workers or 0) * self._cpus))
        return {"num_cpus": cpus}

    def _count(self, resources: dict[str, float]) -> int:
        if self._workers is not None:
            return self._workers
        fitting = [resources.get("CPU", 0) / self._cpus] if self._cpus else []
        if self._gpus:
            fitting.append(resources.get("GPU", 0) / self._gpus)
        count = int(min(fitting, default=1))
        if count < 1:
            wanted = f"{self._cpus:g} CPU" + (f" and {self._gpus:g} GPU" if self._gpus else "")
            raise UserError(f"the Ray cluster has no room for a worker with {wanted}: give fewer per worker")
        return count

    def new_actor(self) -> Any:
        """One more actor; it starts in the background."""
        import ray

        environment = {"OMP_NUM_THREADS": str(max(1, int(self._cpus))), "MKL_NUM_THREADS": str(max(1, int(self._cpus)))}
        if not self._gpus:
            # Ray leaves the variable unset for num_gpus=0, and a CPU trial would then see, and use, every GPU.
            environment["CUDA_VISIBLE_DEVICES"] = ""
        # In the environment of a fresh process: OpenMP reads it when it is loaded, setting it in the actor is too late.
        options = {
            "num_cpus": self._cpus,
            "num_gpus": self._gpus,
            "runtime_env": {"env_vars": environment},
            # Otherwise a call that is cancelled before it began leaves a gap in the order of calls, and the actor waits
            # 30 s for it before it takes the next one.
            "allow_out_of_order_execution": True,
        }
        return ray.remote(_Worker).options(**options).remote(self._imports)

    def close(self) -> None:
        """End the actors, and Ray if it is ours. May be called twice, and while Ray is still starting."""
        self._closing.set()
        if self._thread is None:
            return
        self._ready.wait()
        import ray

        if ray.is_initialized():
            for actor in self.actors:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.kill(actor)
            if self._ours:
                ray.shutdown()
        self.actors, self._ours = [], False
        # Only now: Ray's processes end with the thread, and a shutdown without them waits 5 s for their answer.
        self._over.set()
        self._thread.join()


def _ray_init(address: str | None, local: dict[str, Any], working_dir: str | Path | None = None) -> None:
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # "local", because a bare init joins whatever cluster this machine last started.
        options |= {"address": "local", "include_dashboard": False, **local}
    else:
        options["address"] = address
        if working_dir is not None:
            options["runtime_env"] = {"working_dir": str(Path(working_dir).resolve())}
    failures = (ConnectionError, ValueError, RuntimeError, TimeoutError, ImportError, ray.exceptions.RayError)
    try:
        if address is None:
            ray.init(**options)
        else:
            with core_log() as said:
                try:
                    ray.init(**options)
                except failures as error:
                    what, do = why_not(address, f"{said()}\n{error}")
                    raise UserError(f"no Ray cluster was joined: {what}; {do} (`advisor doctor --address {address}`)") from error
        # Ray prints the death of a worker on *stdout*, whatever log_to_driver says, and breaks a JSON document there.
        ray._private.worker._worker_logs_enabled = False
    except failures as error:
        raise UserError(f"Ray did not start here ({_first_line(error)}): try --executor in-process") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _knock(address: str) -> None:
    """UserError when nobody listens at the address: Ray itself takes a minute to find out."""
    if address in ("auto", "local"):
        return
    if address.startswith("ray://"):
        raise UserError(f"{address}: {CLIENT}")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"'{address}' is not an address: give HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"no Ray cluster answers at {address} ({reason}): start one, or leave --address out") from error


def _settle_authentication(address: str | None) -> None:
    """Ray's token, without a file in the user's home and without the silent failure of a cluster that wants one.

    A local Ray gets a token of its own through the environment; otherwise Ray would write ``~/.ray/auth_token``, which
    switches authentication on for every cluster that is started on this machine later. With an address, a token that is
    there is used: Ray says no more than "failed to connect" when the cluster wants one and RAY_AUTH_MODE is not set.
    What the user has set is left alone. The variables stay set: Ray reads them once per process.
    """
    if any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        if address is not None and "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"] = "token"
        return
    if address is None:
        if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    elif (Path.home() / ".ray" / "auth_token").is_file():
        os.environ["RAY_AUTH_MODE"] = "token"


@dataclass
class _Slot:
    """An actor and what it is doing."""

    actor: Any
    pid: Any = None
    job: Job | None = None
    stream: Any = None
    cancelled_at: float | None = None


class RayExecutor(Executor):
    """Runs jobs on Ray actors, one per slot.

    factory(shared) is called once per worker. ``shared`` is put into Ray's object store once; NumPy arrays in it are
    read there without a copy, so they are read-only. Results are copied out of the store: they outlive it.
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
    ) -> None:
        """ray_workers: those that were started earlier, in place of the four arguments before it."""
        self._workers = ray_workers or RayWorkers(workers, address, cpus_per_worker, gpus_per_worker)
        self._events: list[Event] = []
        self._slots: list[_Slot] = []
        try:
            self._workers.wait()
            import ray

            self._ray = ray
            self._factory, self._shared = ray.put(factory), ray.put(shared)
            self._slots = [self._prepared(actor) for actor in self._workers.actors]
        except BaseException:
            self._workers.close()
            raise

    @property
    def slots(self) -> int:
        return len(self._slots)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers; waits until they are ready."""
        return [int(self._ray.get(slot.pid)) for slot in self._slots]

    def _prepared(self, actor: Any) -> _Slot:
        return _Slot(actor, pid=actor.prepare.remote(self._factory, self._shared))

    def submit(self, job: Job) -> None:
        if any(slot.job is not None and slot.job.id == job.id for slot in self._slots):
            raise ValueError(f"job {job.id} is under way")
        free = next((slot for slot in self._slots if slot.job is None), None)
        if free is None:
            raise ValueError(f"all {self.slots} slots are taken")
        free.job, free.cancelled_at = job, None
        free.stream = free.actor.run.remote(job, free.pid)

    def cancel(self, job_id: str) -> None:
        for slot in self._slots:
            if slot.job is not None and slot.job.id == job_id and slot.cancelled_at is None:
                slot.cancelled_at = time.monotonic()
                self._ray.cancel(slot.stream)

    def poll(self, timeout: float) -> list[Event]:
        busy = [slot for slot in self._slots if slot.job is not None]
        if busy:
            self._read(busy, 0.0, len(busy))
            if not self._events:
                self._read(busy, timeout, 1)
            self._replace_deaf()
        events, self._events = self._events, []
        return events

    def _read(self, busy: list[_Slot], timeout: float, number: int) -> None:
        """Take in one message of every worker that has one, or the first that comes within the timeout.

        One, not all: a worker that reports faster than we read must not keep the driver here.
        """
        # Of a cancelled stream Ray says that it is ready, and then `next` waits for the job's very end: without limit
        # when the job never gets to a yield. So there we wait for the end first, and only then read.
        sources = {slot.stream if slot.cancelled_at is None else slot.stream.completed(): slot for slot in busy}
        ready, _ = self._ray.wait(list(sources), num_returns=number, timeout=timeout)
        for source in ready:
            slot = sources[source]
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
            self._end(slot, Cancelled(job.id) if slot.cancelled_at is not None else _died(job, "the worker stopped"))
            return
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.TaskCancelledError):
                self._end(slot, Cancelled(job.id))
            else:
                # Not the objective's own (that comes as a message) but, say, a result that cannot be sent.
                self._end(slot, Failed(job.id, error_text(error.cause or error), str(error)))
            return
        except errors.RayError as error:
            # The actor died, is out of reach, was killed for memory, or its node is gone: to us it is all the same.
            self._renew(slot)
            self._end(slot, _died(job, error_text(error)))
            return
        self._events.extend(Reported(job.id, epoch, loss) for epoch, loss in epochs)
        if kind == "finished":
            # Out of the object store: its memory is gone after the shutdown, and its arrays are read-only.
            self._end(slot, Finished(job.id, copy.deepcopy(payload)))
        elif kind == "failed":
            self._end(slot, Failed(job.id, *payload))

    def _end(self, slot: _Slot, event: Event) -> None:
        self._events.append(event)
        slot.job = slot.stream = slot.cancelled_at = None

    def _renew(self, slot: _Slot) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(slot.actor)
        actors = self._workers.actors
        fresh = self._workers.new_actor()
        actors[actors.index(slot.actor)] = fresh
        slot.actor, slot.pid = fresh, self._prepared(fresh).pid

    def _replace_deaf(self) -> None:
        """A cancelled job that never reaches a yield (blocked in C, an endless loop) costs its worker, not the run."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.job is not None and slot.cancelled_at is not None and now - slot.cancelled_at > CANCEL_SECONDS:
                self._renew(slot)
                self._end(slot, Cancelled(slot.job.id))

    def close(self) -> None:
        self._workers.close()
        self._slots, self._events = [], []


def _died(job: Job, error: str) -> Failed:
    return Failed(job.id, " ".join(error.split())[:500], "", worker_died=True)
