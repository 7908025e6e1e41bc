"""The executors' contract behind a Ray Client; `test_doctor.py` runs this file with the ADDRESS of a cluster of its own.

A process of its own, because a process that has a client is none of the cluster, and the other tests' is.
"""

import os

import pytest

from advisor.executor_contract import SHARED, ExecutorContract, script_factory
from advisor.ray_client import ClientExecutor, ClientWorkers


@pytest.fixture(scope="module")
def client_executor():
    executor = ClientExecutor(script_factory, SHARED, ClientWorkers(2, os.environ["ADDRESS"]))
    yield executor
    executor.close()
    executor.close()
    assert executor.slots == 0


class TestClientExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self, client_executor):
        return client_executor
