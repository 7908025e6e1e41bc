"""The executor on Ray: long-lived actors that train, streaming generators that
report, ``ray.cancel`` that prunes.

:class:`RayWorkers` starts Ray and its actors, in the background, while the driver still reads data;
:class:`RayExecutor` gives them the data and runs jobs on them.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib
import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from advisor.errors import UserError
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
    Objective,
    Reported,
    error_text,
    failure,
    is_out_of_memory,
    over_time,
)
from advisor.executors.ray.errors import core_log, join, tokens, wants_no_token, why_not
from advisor.executors.ray.packing import Packing
from advisor.executors.ray.threads import limit, one_blas_thread
from advisor.machine import version_differences, versions

CLIENT = "ray://"
"""How an address begins that is a Ray Client's (``ray_client.py``)."""
BATCH_SECONDS = 0.02
"""A worker gathers the epochs of so long into one message: a message costs about
as much as a hundred tiny epochs."""
CANCEL_SECONDS = 10.0
"""A cancelled job that reaches no ``yield`` for so long has its worker replaced."""
LIMIT_GRACE_SECONDS = 2.0
"""A job whose time is up may end its epoch for so long; then its worker is replaced."""
CLUSTER_SECONDS = 2.0
"""How often we look for machines that have joined or left."""
MOST_ASKED = 1000
"""Workers that are asked for at once; an autoscaler has a limit of its own besides."""
STARTS = 5
"""Workers that die one after another before any has started, until it is the set-up that is wrong."""
MEMORY_SHARE = 0.92
"""Share of a GPU's memory that jobs may be packed into: each process's CUDA
context takes some hundred MB besides."""
START_SECONDS = 180.0
"""How long Ray may take to start or to join: it usually takes a few seconds, and itself
waits 20 to 30 for each of its parts."""
HEAD_SECONDS = 20.0
"""A head that accepts no connection for so long is gone. Ray itself waits for 60 s, in
silence, and then ends this process."""
CONNECT_SECONDS = 3.0
"""How long a cluster's port may take to answer before we say that nobody is there."""

_Message = tuple[str, list[tuple[int, float]], Any]
"""(kind, epochs since the last message, payload); kind is "epochs", "finished" or "failed"."""


@dataclass(frozen=True)
class _Identity:
    """Who a worker is.
    memory: bytes of its GPU, None without one."""

    pid: int
    node: str
    address: str
    gpus: tuple[str, ...]
    memory: float | None
    versions: dict[str, str]

    @property
    def device(self) -> str:
        return f"{self.node[:8]} {self.address} " + (f"gpu {','.join(self.gpus)}" if self.gpus else "cpu")


def _identity() -> _Identity:
    """This process's."""
    import ray

    context = ray.get_runtime_context()
    gpus = tuple(str(gpu) for gpu in context.get_accelerator_ids().get("GPU", ()))
    # Only where the objective has loaded it: the engine knows no torch.
    torch = sys.modules.get("torch")
    sees = bool(gpus) and torch is not None and torch.cuda.is_available()
    memory = float(torch.cuda.get_device_properties(0).total_memory) if torch is not None and sees else None
    return _Identity(
        os.getpid(), context.get_node_id(), ray.util.get_node_ip_address(), gpus, memory, versions()
    )


class _Worker:
    """What runs in an actor. ``prepare`` comes before the first ``run``."""

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str], threads: int) -> None:
        # Before any import of ours: CUDA reads it when it is loaded. Not as Ray's runtime_env, for which Ray
        # would have to start a fresh process in place of the one that it keeps ready.
        os.environ.update(environment)
        limit(threads)  # Ray has loaded NumPy already, with as many as the driver's environment says
        for name in imports:
            # Seconds of importing torch, spent while the driver still reads data. A module that is missing
            # here is reported by `prepare`, with the objective that needs it.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self._objective: Objective | None = None
        self._complaint = ("the worker was never prepared", "")

    def prepare(self, factory: Factory, shared: Any) -> _Identity:
        """Make the objective; who we are."""
        try:
            self._objective = factory(shared)
        # told by the first job, as every error of an objective is
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._complaint = (f"the worker could not be set up: {error_text(error)}", traceback.format_exc())
        return _identity()

    def run(self, job: Job) -> Generator[_Message, None, None]:
        """The job's epochs in batches, then its end."""
        if self._objective is None:
            yield ("failed", [], Failed(job.id, *self._complaint))
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
        # whatever a user's objective raises is the job's end
        except (Exception, SystemExit) as error:  # noqa: BLE001
            message = ("failed", epochs, failure(job.id, error, traceback.format_exc()))
        yield message


class RayWorkers:
    """Ray, started or joined, with one actor per slot.

    Order of calls: ``start`` (returns at once; the rest goes on in a thread), ``wait`` (a UserError when it
    did not work), ``close``. A Ray that was running in this process is used and left alone.

    address: None starts Ray on this machine for this process only; else HOST:PORT or auto
    (``ray_client.ClientWorkers`` for a ray:// address).
    workers: None is one per ``cpus_per_worker`` of the cluster's CPUs (and per
    ``gpus_per_worker`` of its GPUs).
    imports: modules that every worker imports at once. working_dir: a folder of code
    that is sent to a cluster's workers.
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
        self._processes: tuple[int, dict[str, float]] = (0, {})
        self._thread: threading.Thread | None = None
        self._ready, self._closing, self._over = threading.Event(), threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._began = 0.0
        self._computing = contextlib.ExitStack()
        self._ours = False
        self._head: str | None = None
        self._silent_since: float | None = None
        self.actors: list[Any] = []
        self._groups: dict[Any, Any] = {}

    def start(self) -> None:
        """Begin in the background. Calling it again does nothing."""
        if self._thread is None:
            settle_authentication(self._address)
            self._began = time.monotonic()
            self._computing.enter_context(one_blas_thread())  # until Ray is there: it forks this process
            self._thread = threading.Thread(target=self._live, name="ray-start", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Until Ray and its actors are there; raises what went wrong."""
        self.start()
        if not self._settled():
            where = "here" if self._address is None else f"with {self._address}"
            raise UserError(
                f"Ray did not start {where} within {START_SECONDS:g} s: see `advisor doctor`, or try "
                "--executor in-process"
            )
        if self._error is not None:
            raise self._error

    def _settled(self) -> bool:
        """Wait until the start has ended, one way or the other; False when it takes
        too long and may still be forking."""
        if self._ready.wait(max(0.0, self._began + START_SECONDS - time.monotonic())):
            self._computing.close()
            return True
        return False

    def _live(self) -> None:
        # What Ray starts inherits it: a terminal that is closed ends the search, which then ends them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            self._init()
        # handed to whoever waits, in the thread that can act on it
        except BaseException as error:  # noqa: BLE001
            self._error = error
        finally:
            self._ready.set()
        # Linux ends Ray's processes when the *thread* that started them ends (PR_SET_PDEATHSIG), so it stays.
        self._over.wait()

    def _init(self) -> None:
        if self._address is not None:
            knock(self._address)
        import ray

        if not ray.is_initialized():
            _ray_init(self._address, self._local_resources(), self._working_dir)
            self._ours = True
        if not self._closing.is_set():
            self._begin()

    def _begin(self) -> None:
        import ray

        self._head = ray.get_runtime_context().gcs_address
        for _ in range(self._count(ray.cluster_resources())):
            self.add()

    def head_answers(self) -> bool:
        """Whether the cluster's head accepts a connection: else no call may ask it
        anything, which would last a minute.

        UserError when it has not for HEAD_SECONDS.
        """
        if self._head is None:
            return True
        try:
            join_head(self._head)
        except OSError as error:
            now = time.monotonic()
            self._silent_since = self._silent_since or now
            if now - self._silent_since < HEAD_SECONDS:
                return False
            raise UserError(
                f"the head of the Ray cluster at {self._head} is gone: what was finished is kept; the same "
                "command goes on with "
                "it, on a cluster that runs"
            ) from error
        self._silent_since = None
        return True

    def head_is_there(self) -> bool:
        """The same at the end, when it is nobody's error any more."""
        with contextlib.suppress(UserError):
            return self.head_answers()
        return False

    def span(self, processes: int, resources: dict[str, float]) -> None:
        """From now on a worker holds nothing itself, but a placement group with room for so many processes of
        its own, each with these resources: on one node where there is one with room, and all of them or none.

        UserError when the cluster has no room for those of one worker.
        """
        self.wait()
        for actor in list(self.actors):
            self.end(actor)
        self._processes, self._cpus, self._gpus = (processes, resources), 0, 0
        self._begin()

    def share_gpus(self, share: float) -> bool:
        """From now on each worker holds this share of a GPU, or a smaller one where ``workers`` need it, if
        the cluster has GPUs; whether it has."""
        self.wait()
        import ray

        gpus = ray.cluster_resources().get("GPU", 0)
        if not gpus:
            return False
        on_each = math.ceil((self._workers or 1) / gpus)
        for actor in list(self.actors):
            self.end(actor)
        self._gpus = min(share, math.floor(1e4 / on_each) / 1e4)  # rounded down to what Ray counts in
        self._begin()
        return True

    @property
    def spanning(self) -> bool:
        """Whether ``span`` was called."""
        return self._processes[0] > 0

    def executor(self, factory: Factory, shared: Any) -> Executor:
        """What runs jobs on these workers; see :class:`RayExecutor`."""
        return RayExecutor(factory, shared, ray_workers=self)

    def wanted(self) -> int | None:
        """How many actors the cluster has room for now; None when their number is
        fixed, or nothing can join or leave."""
        fixed = (
            self._workers is not None and not self.spanning
        )  # else as many as there are GPUs for, at most that number
        if fixed or (self._ours and self._address is None):
            return None
        import ray

        try:
            return self._count(ray.cluster_resources())
        except UserError:
            return 0  # all its nodes are gone, and may come back

    def ask_for(self, workers: int) -> None:
        """Tell the cluster's autoscaler, where there is one, to make room for so
        many workers; 0 takes the wish back."""
        from ray.autoscaler.sdk import request_resources

        processes, resources = self._processes
        bundles = [resources] * processes if processes else [self._resources()]
        request_resources(bundles=(bundles * workers)[:MOST_ASKED])

    def _resources(self) -> dict[str, float]:
        return {"CPU": self._cpus} | ({"GPU": self._gpus} if self._gpus else {})

    def _local_resources(self) -> dict[str, Any]:
        cpus = max(len(os.sched_getaffinity(0)), math.ceil((self._workers or 0) * self._cpus))
        return {"num_cpus": cpus}

    def _count(self, resources: dict[str, float]) -> int:
        processes, each = self._processes
        if processes:
            count = int(min(resources.get(name, 0) // (processes * share) for name, share in each.items()))
            if count < 1:
                room = ", ".join(f"{resources.get(name, 0):g} {name}" for name in each)
                raise UserError(
                    f"the Ray cluster ({room}) has no room for {processes} processes: "
                    "--fixed gpus_per_trial=1"
                )
            return min(self._workers or count, count)
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

    def add(self) -> Any:
        """One more actor; it starts in the background."""
        actor = self.new_actor()
        self.actors.append(actor)
        return actor

    def end(self, actor: Any) -> None:
        """End one, and give back what was held for it."""
        import ray

        self.actors.remove(actor)
        if self._silent_since is not None:
            return  # it ends with its cluster
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(actor)
        if actor in self._groups:
            ray.util.remove_placement_group(self._groups.pop(actor))

    def new_actor(self) -> Any:
        """An actor that nobody knows of yet."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        # Ray leaves the variable unset for num_gpus=0, and a CPU trial would then see, and use, every GPU.
        environment = {} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""}
        given = self._imports, environment, max(1, int(self._cpus))
        options = {
            "num_cpus": self._cpus,
            "num_gpus": self._gpus,
            # Otherwise a call that is cancelled before it began leaves a gap in the order of calls, and the
            # actor waits 30 s for it before it takes the next one.
            "allow_out_of_order_execution": True,
        }
        processes, resources = self._processes
        if not processes:
            return ray.remote(_Worker).options(**options).remote(*given)
        group = ray.util.placement_group([resources] * processes, strategy="PACK")
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0
        )
        actor = ray.remote(_Worker).options(**options).remote(*given)
        self._groups[actor] = group
        return actor

    def close(self) -> None:
        """End the actors, and Ray if it is ours. May be called twice, and while Ray is still starting."""
        self._closing.set()
        # A start that hangs is left to itself: what it has started ends with this process.
        if self._thread is None or not self._settled():
            return
        import ray

        if ray.is_initialized():
            self.head_is_there()
            for actor in list(self.actors):
                self.end(actor)
            if self._ours:
                ray.shutdown()
        self.actors, self._groups, self._ours = [], {}, False
        # Only now: Ray's processes end with the thread, and a shutdown without
        # them waits 5 s for their answer.
        self._over.set()
        self._thread.join()


# Of the system, which Ray's core changes beside Python's own; also from a thread that is not the main one.
_signal_handler = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(("PyOS_getsig", ctypes.pythonapi))
_set_signal_handler = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(
    ("PyOS_setsig", ctypes.pythonapi)
)


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
    handler = _signal_handler(signal.SIGTERM)
    try:
        if address is None:
            ray.init(**options)
        else:
            with core_log() as said:
                try:
                    join(**options)
                except Exception as error:  # as below
                    what, do = why_not(address, f"{said()}\n{error}")
                    raise UserError(
                        f"no Ray cluster was joined: {what}; {do} (`advisor doctor --address {address}`)"
                    ) from error
        # Ray prints the death of a worker on *stdout*, whatever log_to_driver
        # says, and breaks a JSON document there.
        ray._private.worker._worker_logs_enabled = False
    except UserError:
        raise
    except (
        Exception
    ) as error:  # a plain one where its node does not come up in time; all are reasons of Ray's
        raise UserError(
            f"Ray did not start here ({_first_line(error)}): try --executor in-process"
        ) from error
    finally:
        _set_signal_handler(
            signal.SIGTERM, handler
        )  # from now on Ray's core would print its stack, and end us


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def knock(address: str) -> None:
    """UserError when nobody listens at the address: Ray itself takes a minute to find out."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"'{address}' is not an address: give HOST:PORT, ray://HOST:PORT or auto")
    if address.startswith(CLIENT) and find_spec("grpc") is None:
        raise UserError(f"{address}: Ray's client is not installed: pip install 'ray[client]'")
    try:
        join_head(f"{host}:{port}")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"no Ray cluster answers at {address} ({reason}): start one, or leave --address out"
        ) from error


def join_head(address: str) -> None:
    """OSError when nobody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def settle_authentication(address: str | None) -> None:
    """Ray's token, without a file in the user's home and without the silent
    failures of clusters that want one, or none.

    A local Ray gets a token of its own through the environment; otherwise Ray would write
    ``~/.ray/auth_token``, which switches authentication on for every cluster that is started on this machine
    later. With an address, a token that is there is used where the cluster wants one: Ray says no more than
    "failed to connect" when RAY_AUTH_MODE is not set, and where none is wanted, a driver with a token refuses
    the cluster's own calls and loses every worker at once. What the user has set is left alone. The variables
    stay set: Ray reads them once per process.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address is not None:
        if tokens():
            os.environ["RAY_AUTH_MODE"] = "disabled" if wants_no_token(address) else "token"
        return
    of_the_user = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    running = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if not of_the_user and not running:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@dataclass
class _Slot:
    """An actor and what it is doing. ``identity`` is None until it has started."""

    actor: Any
    ready: Any
    identity: _Identity | None = None
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
        self._wish = self._asked = 0
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

    def wish(self, jobs: int) -> None:
        self._wish = jobs

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
        if self._wish != self._asked:
            self._workers.ask_for(self._wish)
            self._asked = self._wish
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
