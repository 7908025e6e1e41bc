"""Ray with one actor to a slot, started in the background while the driver still reads data."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advisor.errors import UserError
from advisor.executors.ray.connection import check_connection, init_ray, join_head, settle_authentication
from advisor.executors.ray.threads import one_blas_thread
from advisor.executors.ray.worker import RayWorker

START_SECONDS = 180.0
"""How long Ray may take to start or to join: it usually takes a few seconds, and itself
waits 20 to 30 for each of its parts."""
HEAD_SECONDS = 20.0
"""A head that accepts no connection for so long is gone. Ray itself waits for 60 s, in
silence, and then ends this process."""
MOST_ASKED = 1000
"""Workers that are asked for at once; an autoscaler has a limit of its own besides."""


class RayWorkers:
    """Ray, started or joined, with one actor per slot.

    Order of calls: ``start`` (returns at once; the rest goes on in a thread), ``wait`` (a UserError when it
    did not work), ``close``. A Ray that was running in this process is used and left alone.

    address: None starts Ray on this machine for this process only; else HOST:PORT or auto
    (``client.ClientWorkers`` for a ray:// address).
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
            check_connection(self._address)
        import ray

        if not ray.is_initialized():
            init_ray(self._address, self._local_resources(), self._working_dir)
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
                f"the head of the Ray cluster at {self._head} is gone: finished work is kept; the same "
                "command resumes it, on a cluster that runs"
            ) from error
        self._silent_since = None
        return True

    def head_is_there(self) -> bool:
        """The same at the end, when it is nobody's error any more."""
        with contextlib.suppress(UserError):
            return self.head_answers()
        return False

    def span(self, processes: int, resources: dict[str, float]) -> None:
        """From now on a worker holds nothing itself, but a placement group with room for this many
        processes of its own, each with these resources: on one node where there is one with room, and all
        of them or none.

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
        many workers; 0 takes the demand back."""
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
            return ray.remote(RayWorker).options(**options).remote(*given)
        group = ray.util.placement_group([resources] * processes, strategy="PACK")
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0
        )
        actor = ray.remote(RayWorker).options(**options).remote(*given)
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
