"""Trials that span GPUs: a worker that holds none and steers processes, one to a GPU,
that share its batches (``ranks.py``).

The processes are Ray actors that the worker owns: they outlive a trial, so that the next one begins at once,
and they end with the worker, however that ends. (Ray Train, which does the same for one training, needs 14 to
20 s on two cores to start each, and where no dashboard runs the GPUs of a trial whose worker was killed stay
taken until the driver ends: Ray 2.60.)
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from advisor.errors import error_text
from advisor.executors.base import Job, Lost
from advisor.objectives.jobs import TrainingJob, WorkerData
from advisor.objectives.networks import TrainingObjective, processes_of

PER_PROCESS = {"CPU": 1.0, "GPU": 1.0}
"""What a process asks Ray for."""
SECONDS_OF_DYING = 5.0
"""So long we look whether an error of one process is for want of another, and a
process gone for want of its node."""


@dataclass(frozen=True)
class SpanningData:
    """What all trials that span GPUs share.

    processes: the most that a trial is trained by. rows: of the data.
    stored: what ``TrainingObjective`` is given (``WorkerData``), once for all processes: a reference
        into Ray's object store. It is within this, and not an argument of its own, so that Ray hands
        it on as it is.
    """

    processes: int
    rows: int
    stored: Any

    @classmethod
    def of(cls, shared: WorkerData, processes: int) -> Self:
        """With the data put into the store."""
        import ray

        return cls(processes, len(shared.data), ray.put(shared))


class SpanningObjective:
    """The factory and the objective for an executor on Ray."""

    def __init__(self, shared: SpanningData) -> None:
        self._shared = shared
        self._processes: list[Any] = []
        self._nodes: list[str] = []

    def __call__(self, job: Job) -> Generator[tuple[int, float], None, Any]:
        configuration = TrainingJob.of(job).configuration
        wanted = min(self._shared.processes, processes_of(configuration, self._shared.rows))
        try:
            self._start(wanted)
            chosen = self._processes[:wanted]
            address = self._all([chosen[0].listen.remote()])[0]
            self._all([one.begin.remote(job, rank, wanted, address) for rank, one in enumerate(chosen)])
            while True:
                kind, news = self._all([one.step.remote() for one in chosen])[0]
                if kind == "result":
                    return news
                yield news
        except GeneratorExit:
            with suppress(Exception):  # what is wrong with them the next trial will say
                self._all([one.drop.remote() for one in self._processes])
            raise

    def _start(self, wanted: int) -> None:
        """Make what is missing of this many processes, each in its place of the
        placement group that we are in."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        make = ray.remote(num_cpus=PER_PROCESS["CPU"], num_gpus=PER_PROCESS["GPU"])(_Process)
        group, have = ray.util.get_current_placement_group(), len(self._processes)
        places = [
            PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=n)
            for n in range(have, wanted)
        ]
        self._processes += [make.options(scheduling_strategy=place).remote() for place in places]
        self._nodes += self._all([one.prepare.remote(self._shared) for one in self._processes[have:]])

    def _all(self, answers: list[Any]) -> list[Any]:
        """The answers of all; after an error of any no process is left, because the others wait for it."""
        import ray

        waiting, first = list(answers), None
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=None if first is None else SECONDS_OF_DYING)
            if not ready:
                break
            try:
                ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                first = first or error
            except ray.exceptions.RayError as error:
                raise self._lost(error) from error
        if first is not None:
            self._end()
            raise first.cause from first
        return list(ray.get(answers))

    def _lost(self, error: Exception) -> Lost:
        """A process is gone: was it the trial, or the machine?"""
        import ray

        nodes, lost = set(self._nodes), False
        deadline = (
            time.monotonic() + SECONDS_OF_DYING
        )  # a node's processes are gone before Ray has noticed that it is
        while not lost and time.monotonic() < deadline:
            lost = not nodes <= {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            time.sleep(SECONDS_OF_DYING / 20)
        self._end()
        message = f"a process of the trial died: {error_text(error)[:300]}"
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            return Lost(message, "out of memory")
        return Lost(message, "node lost" if lost else "worker died")

    def _end(self) -> None:
        import ray

        for one in self._processes:
            ray.kill(one)
        self._processes, self._nodes = [], []


class _Process:
    """What runs in an actor. For each trial: ``listen`` (the first process), ``begin``,
    ``step`` until a result; or ``drop``."""

    def __init__(self) -> None:
        self._objective: TrainingObjective
        self._steps: Generator[tuple[int, float], None, Any] | None = None
        self._store: Any = None

    def prepare(self, shared: SpanningData) -> str:
        """Make the objective; the node that we are on."""
        import ray

        self._objective = TrainingObjective(ray.get(shared.stored))
        return str(ray.get_runtime_context().get_node_id())

    def listen(self) -> tuple[str, int]:
        """Where the others will find us."""
        import ray
        from torch import distributed

        self.drop()
        host = str(ray.util.get_node_ip_address())
        self._store = distributed.TCPStore(host, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        return host, self._store.port

    def begin(self, job: Job, rank: int, world: int, address: tuple[str, int]) -> None:
        from torch import distributed

        from advisor.training.data_parallel import Ranks

        if rank > 0:
            self.drop()
            self._store = distributed.TCPStore(*address, is_master=False)  # type: ignore[attr-defined]
        backend = "nccl" if self._objective.device == "cuda" else "gloo"
        distributed.init_process_group(backend, store=self._store, rank=rank, world_size=world)
        self._objective.ranks = Ranks(rank, world)
        self._steps = self._objective(job)

    def step(self) -> tuple[str, Any]:
        """("epoch", (number, loss)), or ("result", what the objective returned),
        which only the first process sends."""
        assert self._steps is not None
        try:
            return "epoch", next(self._steps)
        except StopIteration as end:
            result = end.value if self._objective.ranks.rank == 0 else None
            self.drop()
            return "result", result

    def drop(self) -> None:
        """Forget the trial."""
        from torch import distributed

        if self._steps is not None:
            self._steps.close()
            self._steps = None
            distributed.destroy_process_group()
        self._store = None
