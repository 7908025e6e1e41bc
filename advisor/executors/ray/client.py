"""Ray Client (``ray://``): the whole executor lives in an actor of the cluster,
and what is asked of it travels there.

In Ray 2.60 a client cannot read the streaming generators through which trials report.
The actor can, and it sits beside the
workers: a call of ours is then one message out and one back.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from advisor.errors import UserError
from advisor.executors.base import Event, Executor, Factory, Job
from advisor.executors.ray.cluster import RayCluster
from advisor.executors.ray.executor import RayExecutor
from advisor.executors.ray.pool import RayWorkers
from advisor.machine import version_differences, versions

NOT_CONNECTED = "Ray Client is not connected"
"""In a plain Exception: how Ray answers every call after it has given up a connection,
half a minute after that was lost."""


class _Bridge:
    """What runs in the actor: an executor of this cluster, with the workers that the driver asked for."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._workers = RayWorkers(**options)
        self._executor: RayExecutor | None = None

    def start(self, driver: dict[str, str]) -> None:
        """Start the workers;
        driver: its versions. Not in ``__init__``: what that raises arrives as an actor that died."""
        if differing := version_differences(driver, versions()):
            raise UserError(
                f"the cluster runs other versions: {'; '.join(differing)}: install the same there"
            )
        self._workers.wait()

    def span(self, processes: int, resources: dict[str, float]) -> None:
        """See :class:`RayWorkers`."""
        self._workers.span(processes, resources)

    def share_gpus(self, share: float) -> bool:
        """See :class:`RayWorkers`."""
        return self._workers.share_gpus(share)

    def prepare(self, factory: Factory, shared: Any) -> int:
        """Make the executor; its slots."""
        self._executor = RayExecutor(factory, shared, ray_workers=self._workers)
        return self._executor.slots

    def call(self, name: str, *arguments: Any) -> tuple[int, Any]:
        """One of the executor's methods; its slots, and what the method returned."""
        assert self._executor is not None
        answer = getattr(self._executor, name)(*arguments)
        return self._executor.slots, answer


class ClientWorkers(RayCluster):
    """:class:`RayCluster` behind ``ray://HOST:PORT``: the same calls, and workers
    that the cluster's own side starts."""

    def __init__(
        self,
        workers: int | None,
        address: str,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        imports: Sequence[str] = (),
        working_dir: str | Path | None = None,
    ) -> None:
        super().__init__(workers, address, cpus_per_worker, gpus_per_worker, imports, working_dir)
        self._options = {
            "workers": workers,
            "cpus_per_worker": cpus_per_worker,
            "gpus_per_worker": gpus_per_worker,
            "imports": tuple(imports),
        }
        self.bridge: Any = None

    def _begin(self) -> None:
        import ray

        logging.getLogger("ray.util.client.logsclient").setLevel(
            logging.ERROR
        )  # what it says of a lost connection is not ours
        # On no CPU: it only waits, and a cluster whose CPUs are all the workers' must still have room for it.
        self.bridge = ray.remote(_Bridge).options(num_cpus=0).remote(self._options)
        self.actors.append(self.bridge)
        with unpacked(ray):
            ray.get(self.bridge.start.remote(versions()))

    def span(self, processes: int, resources: dict[str, float]) -> None:
        self.wait()
        import ray

        with unpacked(ray):
            ray.get(self.bridge.span.remote(processes, resources))

    def share_gpus(self, share: float) -> bool:
        self.wait()
        import ray

        with unpacked(ray):
            return bool(ray.get(self.bridge.share_gpus.remote(share)))

    def executor(self, factory: Factory, shared: Any) -> ClientExecutor:
        return ClientExecutor(factory, shared, self)


class ClientExecutor(Executor):
    """:class:`RayExecutor` on the other side of a Ray Client."""

    def __init__(self, factory: Factory, shared: Any, workers: ClientWorkers) -> None:
        self._workers, self._slots, self._demand = workers, 0, 0
        try:
            workers.wait()
            import ray

            self._ray = ray
            with unpacked(ray):
                self._slots = ray.get(workers.bridge.prepare.remote(factory, shared))
        except BaseException:
            workers.close()
            raise

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, job: Job) -> None:
        self._call("submit", job)

    def set_demand(self, jobs: int) -> None:
        if jobs != self._demand:  # asked before every poll, and each call travels
            self._call("set_demand", jobs)
            self._demand = jobs

    def poll(self, timeout: float) -> list[Event]:
        events: list[Event] = copy.deepcopy(self._call("poll", timeout))  # arrays arrive read-only
        return events

    def cancel(self, job_id: str) -> None:
        self._call("cancel", job_id)

    def close(self) -> None:
        if self._workers.bridge is not None:
            with contextlib.suppress(UserError):  # a cluster that is gone needs no closing
                self._call("close")
        self._workers.close()
        self._workers.bridge, self._slots = None, 0

    def _call(self, name: str, *arguments: Any) -> Any:
        with unpacked(self._ray):
            self._slots, answer = self._ray.get(self._workers.bridge.call.remote(name, *arguments))
        return answer


@contextlib.contextmanager
def unpacked(ray: Any) -> Iterator[None]:
    """What the actor's side raised, as it would be raised here; a lost connection or cluster is one line."""
    try:
        yield
    except Exception as error:  # Ray's client has no class of its own for a lost connection
        if not isinstance(error, ray.exceptions.RayError | ConnectionError) and NOT_CONNECTED not in str(
            error
        ):
            raise
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError | ValueError):
            raise type(cause)(str(cause)) from error
        if isinstance(error, ray.exceptions.RayTaskError):
            raise  # a bug of ours, on the other side
        first = (str(error).strip().splitlines() or [""])[0][:200]
        why = "" if NOT_CONNECTED in first else f" ({type(error).__name__}: {first})"
        raise UserError(
            f"the connection to the cluster is lost{why}: finished work is kept; the same command resumes it"
        ) from error
