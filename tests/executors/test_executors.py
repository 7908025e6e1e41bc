"""The executors, one contract for all, and what only Ray can show."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from advisor.errors import UserError
from advisor.executors.base import Began, Cancelled, Failed, Finished, InProcessExecutor, Job
from advisor.executors.ray.client import unpacked
from advisor.executors.ray.executor import RayExecutor
from advisor.executors.ray.pool import RayWorkers
from advisor.executors.simulated import SimulatedExecutor
from advisor.search.executor_contract import LIMIT, SHARED, ExecutorContract, events_of, script_factory


class TestInProcessExecutor(ExecutorContract):
    outlives_its_workers = ends_what_hangs = False

    @pytest.fixture
    def executor(self):
        executor = InProcessExecutor(script_factory, SHARED)
        yield executor
        executor.close()
        executor.close()

    def test_sys_exit_in_an_objective_does_not_end_us(self):
        def factory(shared):
            def objective(job):
                sys.exit(3)
                yield 1, 1.0

            return objective

        executor = InProcessExecutor(factory, None)
        executor.submit(Job("exit", {}))
        assert events_of(executor)[-1].error == "SystemExit: 3"

    def test_a_raising_finally_does_not_spoil_a_cancel(self):
        def factory(shared):
            def objective(job):
                try:
                    yield 1, 1.0
                finally:
                    raise RuntimeError("while closing")

            return objective

        executor = InProcessExecutor(factory, None)
        executor.submit(Job("bad", {}))
        executor.poll(0)
        executor.cancel("bad")
        assert executor.poll(0) == [Cancelled("bad")]


class TestSimulatedExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self):
        executor = SimulatedExecutor(
            script_factory,
            SHARED,
            3,
            seconds=lambda job, epoch: math.inf if job.payload.get("hang_at") == epoch else 0.1,
            dies=lambda job, epoch: job.payload.get("exit_at") == epoch,
        )
        yield executor
        executor.close()
        executor.close()


def polled(executor):
    """The first events that come."""
    deadline = time.monotonic() + LIMIT
    while not (events := executor.poll(1.0)):
        assert time.monotonic() < deadline
    return events


@pytest.fixture(scope="module")
def ray_executor(local_ray):
    executor = RayExecutor(script_factory, SHARED, workers=2)
    yield executor
    executor.close()
    executor.close()


@pytest.mark.slow
class TestRayExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self, ray_executor):
        return ray_executor

    def test_workers_are_other_processes_and_stay_warm(self, executor):
        pids = set()
        for number in range(4):
            executor.submit(Job(f"pid-{number}", {"losses": [1.0]}))
            pids.add(events_of(executor)[-1].result["pid"])
        assert pids <= set(executor.worker_pids())
        assert os.getpid() not in pids

    def test_short_epochs_travel_together(self, executor):
        executor.submit(Job("batch", {"losses": [1.0] * 50}))
        deadline = time.monotonic() + LIMIT
        batches = []
        while not batches or not isinstance(batches[-1][-1], Finished):
            assert time.monotonic() < deadline
            if events := executor.poll(1.0):
                batches.append(events)
        assert len(batches) < 25

    def test_a_killed_worker_is_told_and_replaced(self, executor):
        executor.submit(Job("killed", {"forever": True, "seconds": 0.01}))
        began = next(event for event in polled(executor) if isinstance(event, Began))
        os.kill(int(began.worker.rpartition(" ")[2]), signal.SIGKILL)
        failed = events_of(executor)[-1]
        assert isinstance(failed, Failed)
        assert failed.cause == "worker died"
        executor.submit(Job("next", {"losses": [1.0]}))
        assert isinstance(events_of(executor)[-1], Finished)

    def test_a_deaf_job_costs_its_worker_only(self, executor, monkeypatch):
        monkeypatch.setattr("advisor.executors.ray.executor.CANCEL_SECONDS", 0.3)
        executor.submit(Job("deaf", {"losses": [1.0], "seconds": 3600}))
        polled(executor)
        executor.cancel("deaf")
        assert events_of(executor)[-1] == Cancelled("deaf")
        executor.submit(Job("next", {"losses": [1.0]}))
        assert isinstance(events_of(executor)[-1], Finished)

    def test_a_worker_that_cannot_be_set_up_fails_its_jobs(self, local_ray):
        def factory(shared):
            raise ImportError("no module named 'theirs'")

        executor = RayExecutor(factory, None, workers=1)
        try:
            executor.submit(Job("a", {}))
            failed = events_of(executor)[-1]
            assert failed.error == "the worker could not be set up: ImportError: no module named 'theirs'"
            assert failed.cause == "error"
        finally:
            executor.close()

    def test_the_environment_of_a_cpu_worker(self, local_ray):
        def factory(shared):
            def objective(job):
                yield 1, 1.0
                return {
                    name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
                }, shared

            return objective

        executor = RayExecutor(factory, SHARED["weights"], workers=1)
        try:
            executor.submit(Job("env", {}))
            environment, _ = events_of(executor)[-1].result
            assert environment == {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        finally:
            executor.close()

    def test_a_ray_that_was_there_is_left_running(self, local_ray):
        import ray

        workers = RayWorkers(1)
        workers.start()
        workers.start()
        workers.wait()
        workers.close()
        assert ray.is_initialized()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:1", "no Ray cluster answers at ray://127.0.0.1:1"),
        ("ray://nonsense", "'ray://nonsense' is not an address"),
        ("nonsense", "'nonsense' is not an address"),
        ("host:", "'host:' is not an address"),
        ("host:99999", "'host:99999' is not an address"),
    ],
)
def test_an_unreachable_address_is_one_line(address, words):
    threads = threading.active_count()
    with pytest.raises(UserError, match=r"address|answers") as caught:
        RayExecutor(script_factory, SHARED, address=address)
    assert words in str(caught.value)
    assert threading.active_count() == threads


def test_no_workers_is_an_error():
    with pytest.raises(UserError, match="workers must be at least 1, not 0"):
        RayWorkers(0)


LOCAL_START = """
from pathlib import Path
from advisor.executors.base import ENDS, Job
from advisor.executors.ray.executor import RayExecutor
from advisor.executors.ray.pool import RayWorkers
import os, sys, threading
def factory(shared):
    def objective(job):
        if job.payload:
            os._exit(3)
        yield 1, 1.0
        return sum(shared)
    return objective
workers = RayWorkers(workers=2, imports=["json", "no_such_module"])
workers.start()
executor = RayExecutor(factory, [1, 2], ray_workers=workers)
results = []
for payload in ({}, {"die": 1}, {}):
    executor.submit(Job("a", payload))
    while not isinstance(results[-1:] and results[-1], ENDS):
        results += executor.poll(1.0)
    results.append(None)
executor.close()
results = [event for event in results if event is not None]
kinds = [type(event).__name__ for event in results]
assert kinds == ["Began", "Reported", "Finished", "Began", "Failed", "Began", "Reported", "Finished"], kinds
assert results[2].result == 3
assert [file for file in Path.home().rglob("*")] == [], list(Path.home().rglob("*"))
"""


@pytest.mark.slow
def test_a_ray_of_our_own_leaves_nothing(tmp_path):
    """C10 and L2: no token in the user's home, nothing on stdout even when a worker dies, no process left."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    del environment["RAY_AUTH_MODE"]
    done = subprocess.run(
        [sys.executable, "-c", LOCAL_START], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert _processes_with_home(tmp_path) == []


@pytest.mark.slow
def test_ray_ends_with_a_killed_driver(tmp_path):
    """C7: nothing of ours runs on when the driver is gone. (Ray's agents and log
    monitor take a minute to notice.)"""
    code = LOCAL_START.replace("results = []", "print('up', flush=True); threading.Event().wait()")
    environment = {**os.environ, "HOME": str(tmp_path)}
    driver = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout.readline() == "up\n"
        assert len(_processes_with_home(tmp_path)) > 2
    finally:
        driver.kill()
        driver.wait()
    ours = (
        "raylet",
        "gcs_server",
        "ray::IDLE",
        "_Worker",
        "_Worker.run",
        "_Worker.prepare",
        "_Worker.__init__",
    )
    deadline = time.monotonic() + LIMIT
    while left := [name for name in _processes_with_home(tmp_path) if name.endswith(ours)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _processes_with_home(home):
    """Processes that inherited this home: Ray's, whatever they are called."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"HOME={home}\0".encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().split(b"\0")[0].decode())
            except OSError:
                continue
    return found


FORKS = """
import subprocess, threading
import numpy as np
from threadpoolctl import threadpool_info
from advisor.executors.ray import pool
def forks(address, local, working_dir):
    for _ in range(200):  # as Ray starts its processes
        subprocess.run(["/bin/true"], preexec_fn=lambda: None)
    raise OSError("no Ray today")
pool.init_ray = forks
matrix = np.random.default_rng(0).normal(size=(130, 266))
matrix.T @ matrix
before = [library["num_threads"] for library in threadpool_info()]
workers = pool.RayWorkers()
workers.start()
import scipy.linalg
while not workers._ready.is_set():
    matrix.T @ matrix
    scipy.linalg.blas.dgemm(1.0, matrix.T, matrix)
    assert {library["num_threads"] for library in threadpool_info()} == {1}
workers.close()
after = [library["num_threads"] for library in threadpool_info()]
assert len(after) > len(before) and set(after) == set(before), (before, after)
"""


def test_products_beside_the_start_of_ray_go_on():
    """Ray forks this process: on more than one thread OpenBLAS would then wait
    for ever, also if loaded meanwhile."""
    unset = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", FORKS], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_start_that_does_not_end_is_one_line(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr("advisor.executors.ray.pool.START_SECONDS", 0.2)
    monkeypatch.setattr("advisor.executors.ray.pool.init_ray", lambda *options: over.wait(LIMIT))
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    workers = RayWorkers()
    try:
        with pytest.raises(UserError, match=r"Ray did not start here within 0.2 s: see `advisor doctor`"):
            workers.wait()
        workers.close()  # and this does not wait for it either
    finally:
        over.set()


def test_a_client_that_ray_has_given_up_is_one_line():
    """In Ray's own words, which are a plain Exception."""
    pytest.importorskip("grpc")
    import ray
    from ray.util.client import ray as client

    with (
        pytest.raises(UserError, match="the connection to the cluster is lost: finished work is kept"),
        unpacked(ray),
    ):
        client.call_remote(None)
