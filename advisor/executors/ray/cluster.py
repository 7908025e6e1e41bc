"""Ray as one of the executors that can be named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.executors.base import Executor, Factory
from advisor.executors.clusters import Cluster, ClusterOptions
from advisor.executors.ray.connection import CLIENT
from advisor.executors.ray.executor import RayExecutor
from advisor.executors.ray.pool import RayWorkers


class RayCluster(RayWorkers):
    """Ray's workers, and the executor that runs jobs on them."""

    is_remote = True

    def executor(self, factory: Factory, shared: Any) -> Executor:
        """What runs jobs on these workers; see :class:`RayExecutor`."""
        return RayExecutor(factory, shared, ray_workers=self)


def start_ray(options: ClusterOptions, imports: Sequence[str]) -> Cluster:
    """Start Ray on this machine, or join the cluster at the address; in the background."""
    asked: dict[str, Any] = {
        "gpus_per_worker": options.gpus_per_worker or 0,
        "imports": imports,
        "working_dir": options.working_dir,
    }
    cluster: RayCluster
    if options.address is not None and options.address.startswith(CLIENT):
        from advisor.executors.ray.client import ClientWorkers

        cluster = ClientWorkers(options.workers, options.address, **asked)
    else:
        cluster = RayCluster(options.workers, options.address, **asked)
    cluster.start()
    return cluster
