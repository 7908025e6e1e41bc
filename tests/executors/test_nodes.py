"""Nodes that join, share their GPUs and are lost: a Ray cluster of several on
this machine, in a process of its own.

The file is also that process: ``python tests/test_nodes.py FOLDER`` prints what it saw as JSON. (The
session's Ray is another cluster, and a process can be in one alone.)
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contracts import ENQUEUE, ToySpace, assert_run_is_sound, toy_payload

from advisor.errors import UserError
from advisor.executors.base import ENDS, Began, Job
from advisor.executors.ray import pool
from advisor.executors.ray.executor import CLUSTER_SECONDS, RayExecutor
from advisor.executors.ray.packing import Packing
from advisor.executors.ray.pool import RayWorkers
from advisor.machine import version_differences, versions
from advisor.search.driver import search
from advisor.search.events import EpochDone
from advisor.search.executor_contract import LIMIT, SHARED, events_of, script_factory
from advisor.search.plan import SearchPlan
from advisor.search.trials import end_of

TRIALS = 14
MISSED_SOON = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
"""A killed node refuses each look at once: it is missed after 3 s, not 15; a slow one has the usual time."""
HEAD = {"num_cpus": 0, "include_dashboard": False, "_system_config": MISSED_SOON}


def drive(folder):
    """A node with a GPU that four workers share; then a search in which another
    node joins, and the first is lost."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    first = cluster.add_node(num_cpus=2, num_gpus=1)
    executor = RayExecutor(script_factory, SHARED, None, cluster.address, 0.5, 0.25, device_memory=100.0)
    seen = {"slots": executor.slots, "together": together(executor), "asked": asked_after(executor, 7)}

    def payload(configuration, place):
        # the later ones long enough to be in flight when their node is lost, however long its end takes
        return {**toy_payload(configuration, place), "seconds": 0.05 if place < 4 else 0.4}

    nodes = [first]

    def listen(event, progress):
        if isinstance(event, EpochDone) and progress.done >= 3 and len(nodes) == 1:
            nodes.append(cluster.add_node(num_cpus=1, num_gpus=1))
        if isinstance(event, EpochDone) and progress.done >= 6 and len(nodes) == 2 and executor.slots > 4:
            cluster.remove_node(nodes[0], allow_graceful=False)
            nodes.append(None)

    plan = SearchPlan(ToySpace(), ENQUEUE, trials=TRIALS, max_epochs=6, make_payload=payload, seed=1)
    search(plan, executor, Path(folder) / "study.journal", on_event=listen)
    executor.submit(Job("last", {"forever": True, "seconds": 0.05}))
    deadline = time.monotonic() + LIMIT
    while executor.slots != 2 and time.monotonic() < deadline:
        executor.poll(0.5)
    seen["slots after"] = executor.slots
    executor.close()
    ray.init(cluster.address, logging_level="ERROR")
    seen["asked at the end"] = asked()
    ray.shutdown()
    seen["without its head"] = without_its_head(cluster)
    cluster.shutdown()
    sys.stdout.write(json.dumps(seen) + "\n")


def without_its_head(cluster):
    """What a search says whose cluster loses its head with a worker on it, long before Ray says anything."""
    pool.HEAD_SECONDS = 0.5
    executor = RayExecutor(script_factory, SHARED, 2, cluster.address, 0.5)
    executor.submit(Job("last", {"forever": True, "seconds": 0.05}))
    while not any(isinstance(event, Began) for event in executor.poll(1.0)):
        pass
    pid = executor.worker_pids()[0]
    cluster.head_node.kill_all_processes(check_alive=False)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + LIMIT
    try:
        while time.monotonic() < deadline:
            if any(isinstance(event, ENDS) for event in executor.poll(0.5)):
                executor.submit(Job("again", {"forever": True, "seconds": 0.05}))  # as a search does
    except UserError as error:
        return str(error).replace(cluster.address, "HEAD")
    finally:
        executor.close()


def asked():
    """What the cluster's autoscaler is told to make room for."""
    from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.experimental.internal_kv import _internal_kv_get

    return json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "null")


def asked_after(executor, jobs):
    executor.set_demand(jobs)
    time.sleep(CLUSTER_SECONDS)
    executor.submit(Job("asks", {"losses": [1.0]}))
    while not any(isinstance(event, ENDS) for event in executor.poll(1.0)):
        pass
    return asked()


class _DiesAtOnce:
    def prepare(self, factory, shared):
        os._exit(1)


def together(executor):
    """How many jobs of 40 bytes, and of 20, are under way at once on a GPU of
    100: two and four, and not one more."""
    most = []
    for need, expected in ((40.0, 2), (20.0, 4)):
        names = [f"{need}-{number}" for number in range(executor.slots)]
        for name in names:
            executor.submit(Job(name, {"forever": True, "seconds": 0.05}, memory=need))
        begun, ended, deadline = set(), set(), time.monotonic() + LIMIT
        while len(begun) < expected and time.monotonic() < deadline:
            begun |= {event.job_id for event in executor.poll(0.5) if isinstance(event, Began)}
        later = time.monotonic() + 1.0
        while time.monotonic() < later:
            begun |= {event.job_id for event in executor.poll(0.1) if isinstance(event, Began)}
        most.append(len(begun))
        for name in names:
            executor.cancel(name)
        while len(ended) < len(names) and time.monotonic() < deadline:
            ended |= {event.job_id for event in executor.poll(0.5) if isinstance(event, ENDS)}
    return most


@pytest.mark.slow
def test_a_cluster_that_changes(tmp_path):
    """C2, and filling the GPUs: nothing is lost with a node, the next is used,
    memory decides who runs together.

    A head that is gone ends the search in one line.
    """
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    asked = [{"CPU": 0.5, "GPU": 0.25}] * 7
    gone = seen.pop("without its head")
    assert gone.startswith("the head of the Ray cluster at HEAD is gone: finished work is kept"), gone
    assert seen == {"slots": 4, "together": [2, 4], "asked": asked, "slots after": 2, "asked at the end": []}
    trials = assert_run_is_sound(tmp_path / "study.journal", TRIALS)
    assert {end_of(trial) for trial in trials.values()} <= {"complete", "pruned"}
    assert len({trial.user_attrs["device"] for trial in trials.values()}) == 2
    assert any(trial.user_attrs.get("attempts") == 2 for trial in trials.values())


# ------------------------------------------------------------------ versions


def test_versions_that_differ_are_named():
    here = {"python": "3.11", "torch": "2.7.1", "ray": "2.60.0"}
    assert version_differences(here, here) == []
    assert version_differences(here, {"python": "3.11", "torch": "2.6.0"}) == [
        "torch is 2.6.0 there and 2.7.1 here",
        "ray is missing there and 2.60.0 here",
    ]
    assert {"python", "advisor", "torch", "ray"} <= set(versions())
    assert not any("+" in version for version in versions().values())


@pytest.mark.slow
def test_a_worker_with_other_versions_is_found_before_the_first_trial(local_ray, monkeypatch):
    """C9."""
    monkeypatch.setattr("advisor.executors.ray.executor.versions", lambda: {**versions(), "torch": "1.0"})
    executor = RayExecutor(script_factory, SHARED, workers=1)
    try:
        executor.submit(Job("never", {"losses": [1.0]}))
        with pytest.raises(
            UserError, match=r"a worker on .* runs other versions: torch is .* there and 1\.0 here"
        ):
            events_of(executor)
    finally:
        executor.close()


@pytest.mark.slow
def test_workers_that_cannot_start_are_one_line(local_ray, monkeypatch):
    """Not a search that waits for ever."""
    monkeypatch.setattr("advisor.executors.ray.executor.STARTS", 2)

    class Broken(RayWorkers):
        def new_actor(self):
            import ray

            return ray.remote(num_cpus=1)(_DiesAtOnce).remote()

    executor = RayExecutor(script_factory, SHARED, ray_workers=Broken(1))
    try:
        executor.submit(Job("never", {"losses": [1.0]}))
        with pytest.raises(UserError, match="no worker can be started: ActorDiedError"):
            events_of(executor)
    finally:
        executor.close()


# ------------------------------------------------------------------ packing


def test_jobs_are_packed_by_memory():
    packing = Packing()
    packing.add("a", 100.0)
    packing.add("b", 100.0)
    packing.add("cpu", None)
    packing.put("a", "one", 60.0)
    free = [("a2", "a"), ("b1", "b"), ("b2", "b")]
    assert packing.choose(free, 30.0) == "a2"
    assert packing.choose(free, 50.0) == "b1"
    assert packing.choose(free, 0.0) == "a2"
    # Alone on its device it may try; it will say itself that it does not fit.
    assert packing.choose(free, 500.0) == "b1"
    packing.put("b", "two", 60.0)
    assert packing.choose(free, 50.0) is None
    assert packing.choose([*free, ("c1", "cpu")], 50.0) == "c1"
    packing.remove("two")
    packing.remove("never there")
    assert packing.choose(free, 50.0) == "b1"
    assert packing.choose([], 1.0) is None


if __name__ == "__main__":
    drive(sys.argv[1])
