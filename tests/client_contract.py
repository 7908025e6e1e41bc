"""The executors' contract behind a Ray Client; `test_doctor.py` runs this file with
the ADDRESS of a cluster of its own.

A process of its own, because a process that has a client is none of the cluster, and the other tests' is.
"""

import os

import pytest
import ray

from advisor.errors import UserError
from advisor.executors.ray import client as ray_client
from advisor.executors.ray.client import ClientExecutor, ClientWorkers
from advisor.machine import versions
from advisor.search.executor_contract import SHARED, ExecutorContract, script_factory


@pytest.fixture(scope="module")
def client_executor():
    """Made although the head could not serve the first connection: the process it
    starts for each dies now and then."""
    init, unserved = (
        ray.init,
        [ConnectionAbortedError("RuntimeError: Starting Ray client server failed. See")],
    )

    def first_fails(**options):
        if unserved:
            raise unserved.pop()
        return init(**options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", first_fails)
        workers = ClientWorkers(2, os.environ["ADDRESS"])
        workers.wait()
    assert not unserved
    assert workers.share_gpus(0.5) is False  # there are none
    executor = ClientExecutor(script_factory, SHARED, workers)
    yield executor
    executor.close()
    executor.close()
    assert executor.slots == 0


def test_other_versions_on_the_cluster_are_named(monkeypatch):
    monkeypatch.setattr(ray_client, "versions", lambda: {**versions(), "torch": "1.0"})
    with pytest.raises(
        UserError, match=r"the cluster runs other versions: .*torch.*: install the same there"
    ):
        ClientExecutor(script_factory, SHARED, ClientWorkers(1, os.environ["ADDRESS"]))


def test_no_room_on_the_cluster_is_one_line():
    with pytest.raises(UserError, match="the Ray cluster has no room for a worker with 1000 CPU"):
        ClientExecutor(
            script_factory, SHARED, ClientWorkers(None, os.environ["ADDRESS"], cpus_per_worker=1000)
        )


class TestClientExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self, client_executor):
        return client_executor
