"""The executors that can be named, each as a cluster: workers that start before it is known what they run.

A new one is a module with a factory and a row of EXECUTORS.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from advisor.errors import UserError, did_you_mean
from advisor.executors.base import Executor, Factory, InProcessExecutor

EXECUTORS: Mapping[str, str] = {
    "ray": "advisor.executors.ray.cluster:start_ray",
    "in-process": "advisor.executors.clusters:InProcessCluster",
}
"""Name -> module:function, imported when it is asked for. The function takes the ClusterOptions and the
modules that every worker should import at once, and returns the Cluster, which may still be starting."""


@dataclass(frozen=True)
class ClusterOptions:
    """Where trials run.

    executor: a name of EXECUTORS.
    address: of a cluster to join; None starts workers on this machine.
    workers: how many trials at once; None is as many as there is room for.
    gpus_per_worker: share of a GPU for each worker, 0 for CPUs; None leaves it to what is trained.
    working_dir: a folder of code that is sent to a cluster's workers.
    """

    executor: str = "ray"
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    working_dir: str | Path | None = None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            names = " or ".join(EXECUTORS)
            raise UserError(
                f"unknown executor '{self.executor}'{did_you_mean(self.executor, EXECUTORS)}: choose {names}"
            )
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers must be at least 1, not {self.workers}")
        if self.gpus_per_worker is not None and not self.gpus_per_worker >= 0:
            raise UserError(f"gpus_per_worker must be 0 or more, not {self.gpus_per_worker}")


class Cluster(Protocol):
    """Workers for one search.

    Order of calls: the factory in EXECUTORS starts them; ``share_gpus`` and ``span`` as the data ask for;
    ``executor`` once, and then its ``close``, which closes the workers too; without an executor, ``close``.
    """

    @property
    def is_remote(self) -> bool:
        """Whether jobs run in other processes: then code and data are sent to them."""

    def share_gpus(self, share: float) -> bool:
        """From now on each worker holds this share of a GPU, where there are GPUs; whether there are."""

    def span(self, processes: int, resources: dict[str, float]) -> None:
        """From now on each worker has room for this many processes of its own, each with these resources.
        UserError when there is no such room."""

    def executor(self, factory: Factory, shared: Any) -> Executor:
        """What runs jobs on these workers. UserError when they could not be started."""

    def close(self) -> None:
        """End the workers. May be called twice."""


def start_cluster(options: ClusterOptions, imports: Sequence[str]) -> Cluster:
    """Start the workers, in the background where that takes long.

    imports: modules that every worker should import at once. UserError for options that the executor has not.
    """
    module, _, name = EXECUTORS[options.executor].partition(":")
    start: Callable[[ClusterOptions, Sequence[str]], Cluster] = getattr(importlib.import_module(module), name)
    return start(options, imports)


class InProcessCluster:
    """This process, which runs one job at a time."""

    is_remote = False

    def __init__(self, options: ClusterOptions, imports: Sequence[str]) -> None:
        if options.address or options.workers:
            raise UserError(
                "--executor in-process runs one trial at a time here: leave out --address and --workers"
            )

    def share_gpus(self, share: float) -> bool:
        """A GPU is this process's own, and not shared out."""
        return False

    def span(self, processes: int, resources: dict[str, float]) -> None:
        raise UserError(f"one process has no room for {processes}: give --executor ray")

    def executor(self, factory: Factory, shared: Any) -> Executor:
        return InProcessExecutor(factory, shared)

    def close(self) -> None:
        """Nothing was started."""
