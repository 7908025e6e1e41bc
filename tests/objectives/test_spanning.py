"""Trials that span GPUs, on a Ray cluster of two nodes with a (pretended) GPU each, in a process of its own.

The file is also that process: ``python tests/test_spanning.py "use both" FOLDER`` prints what it saw as JSON.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import advisor
from advisor.dataset import Dataset, Features
from advisor.errors import UserError
from advisor.executors.base import ENDS, Reported
from advisor.executors.ray.cluster import RayCluster
from advisor.objectives.jobs import WorkerData, search_job
from advisor.objectives.multi_gpu import PER_PROCESS, SpanningData, SpanningObjective
from advisor.objectives.networks import TrainingObjective, processes_of, training_sizing
from advisor.rules import shipped

SHARED_BATCH = {"gpus_per_trial": 2, "batch_size": 32, "width": 16, "hidden_layers": 1, "epochs": 4}


def configured(**changes):
    return shipped.base_space().complete({**SHARED_BATCH, **changes})


def rows(count=120):
    draw = np.random.default_rng(0)
    target = draw.integers(0, 2, count)
    numeric = draw.normal(size=(count, 2)) + 2 * target[:, None]
    names = ("a", "b")
    return Dataset(
        Features(numeric, np.zeros((count, 0), np.int32), names, (), ()), target, "binary", ("no", "yes")
    )


SHARED = WorkerData(rows(), 0)


def job(name, **changes):
    return search_job(configured(**changes), 1, 0).as_job(name)


def alone(asked):
    """The losses of a job in this process."""
    return [loss for _, loss in TrainingObjective(SHARED)(asked)]


def processes_of_trials():
    """Of all trials on this machine that are ours: Ray names its processes after what they run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"ray::_Process" in command:
                found.append(int(entry.name))
    return found


def drive(folder):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1, num_gpus=1)
    workers = RayCluster(None, cluster.address, 1, 1)
    workers.start()
    workers.wait()
    try:
        workers.span(3, PER_PROCESS)
    except UserError as error:
        seen = {"refused": str(error)}
    workers.span(2, PER_PROCESS)
    executor = workers.executor(SpanningObjective, SpanningData.of(SHARED, 2))
    seen["slots"] = executor.slots

    def end_of(asked, act=lambda: None):
        """The losses of a job and how it ended; ``act`` is done after its first epoch."""
        executor.submit(asked)
        losses = []
        while True:
            for event in executor.poll(1.0):
                if isinstance(event, Reported):
                    losses.append(event.loss)
                    if len(losses) == 1:
                        act()
                if isinstance(event, ENDS):
                    return (
                        losses,
                        type(event).__name__,
                        getattr(event, "cause", ""),
                        getattr(event, "error", ""),
                    )

    def kill_one():
        os.kill(processes_of_trials()[0], signal.SIGKILL)

    long = {"epochs": 1000, "patience": 1000}
    seen["plain"] = end_of(job("plain"))
    seen["one process"] = end_of(job("one process", gpus_per_trial=1))[1:]
    seen["killed"] = end_of(job("killed", **long), kill_one)[1:]
    seen["worker killed"] = end_of(
        job("worker", **long), lambda: os.kill(executor.worker_pids()[0], signal.SIGKILL)
    )[1:3]
    wrong = search_job({**configured(), "optimizer": "none"}, 1, 0)
    seen["wrong"] = end_of(wrong.as_job("wrong"))[1:]
    seen["again"] = end_of(job("again"))
    executor.close()
    told = advisor.tune(
        "sklearn:wine", "target", trials=1, address=cluster.address, gpus_per_worker=1, out=Path(folder) / "run",
        fixed={"gpus_per_trial": 2, "epochs": 3, "validation": "holdout"},
    ).document  # fmt: skip
    seen["tuned"] = [
        told["final"]["winner"],
        told["configuration"]["gpus_per_trial"],
        len(told["search"]["trials"]),
    ]
    many = RayCluster(3, cluster.address, 0.5)
    seen["shares"] = many.share_gpus(0.9)  # two of three must go on one GPU
    three, deadline = many.executor(TrainingObjective, SHARED), time.monotonic() + 60
    while len(three.worker_pids()) < 3 and time.monotonic() < deadline:
        three.poll(0.5)
    seen["started"] = len(three.worker_pids())
    three.close()
    deadline = time.monotonic() + 20
    while processes_of_trials() and time.monotonic() < deadline:
        time.sleep(0.2)
    seen["left"] = processes_of_trials()
    if ray.is_initialized():
        ray.shutdown()
    cluster.shutdown()
    sys.stdout.write(json.dumps(seen) + "\n")


def drive_and_lose_a_node():
    """Two trials at once, each on two GPUs; then a node with two of the four goes, and one trial with it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2, "num_gpus": 2, "include_dashboard": False,
            # a killed node refuses each look at once: it is missed after 3 s, not 15
            "_system_config": {"health_check_period_ms": 1000, "health_check_failure_threshold": 3},
        },
    )  # fmt: skip
    node = cluster.add_node(num_cpus=2, num_gpus=2)
    workers = RayCluster(2, cluster.address, 1, 1)
    workers.span(2, PER_PROCESS)
    executor = workers.executor(SpanningObjective, SpanningData.of(SHARED, 2))
    seen = {"slots": executor.slots, "ends": []}
    ends, reported = seen["ends"], set()
    for name in ("a", "b"):
        executor.submit(
            job(name, epochs=1000, patience=1000, batch_size=8)
        )  # longer than the 3 s after which Ray misses a node
    deadline = time.monotonic() + 300  # beside other tests its processes may take a minute to start
    while (len(ends) < 1 or executor.slots > 1) and time.monotonic() < deadline:
        for event in executor.poll(0.5):
            if isinstance(event, Reported) and event.job_id not in reported:
                reported.add(event.job_id)
                if len(reported) == 2:
                    cluster.remove_node(node, allow_graceful=False)
            if isinstance(event, ENDS):
                ends.append([type(event).__name__, getattr(event, "cause", "")])
    seen["slots after"] = executor.slots
    for name in {"a", "b"}:
        executor.cancel(name)
    while len(ends) < 2 and time.monotonic() < deadline:
        ends += [[type(event).__name__, ""] for event in executor.poll(0.5) if isinstance(event, ENDS)]
    executor.submit(job("next"))
    while len(ends) < 3 and time.monotonic() < deadline:
        ends += [[type(event).__name__, ""] for event in executor.poll(0.5) if isinstance(event, ENDS)]
    executor.close()
    if ray.is_initialized():
        ray.shutdown()
    cluster.shutdown()
    sys.stdout.write(json.dumps(seen) + "\n")


def driven(*arguments):
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_as_many_trials_as_there_are_gpus_left_for():
    """Also where a number of workers was asked for: one that waits for GPUs which
    never come would hold up the end."""
    seen = driven("lose a node")
    assert seen == {
        "slots": 2,
        "slots after": 1,
        "ends": [["Failed", "node lost"], ["Cancelled", ""], ["Finished", ""]],
    }


@pytest.mark.slow
def test_trials_on_two_gpus_of_two_nodes(tmp_path):
    seen = driven("use both", str(tmp_path))
    assert "(2 CPU, 2 GPU) has no room for 3 processes: --fixed gpus_per_trial=1" in seen["refused"]
    assert seen["slots"] == 1
    losses, *end = seen["plain"]
    np.testing.assert_allclose(losses, alone(job("plain")), rtol=2e-3)
    assert end == ["Finished", "", ""]
    assert seen["one process"] == ["Finished", "", ""]
    kind, cause, error = seen["killed"]
    assert (kind, cause) == ("Failed", "worker died"), error
    assert "a process of the trial died" in error
    assert seen["worker killed"] == ["Failed", "worker died"]
    kind, cause, error = seen["wrong"]
    assert (kind, cause) == ("Failed", "error")
    assert error.startswith("KeyError")
    assert seen["again"] == seen["plain"]  # after all that
    assert seen["tuned"] == ["recommendation", 2, 1]
    assert (seen["shares"], seen["started"]) == (True, 3)
    assert seen["left"] == []


def test_as_many_processes_as_a_batch_has_rows_for():
    assert processes_of(configured(), 1000) == 2
    assert processes_of(configured(gpus_per_trial=1), 1000) == 1
    assert processes_of(configured(gpus_per_trial=8, batch_size=8), 1000) == 4
    assert processes_of(configured(gpus_per_trial=8), 12) == 3


def test_a_process_needs_memory_for_its_part_of_a_batch():
    whole, part = training_sizing(rows()), training_sizing(rows(), spanning=True)
    assert part.memory(configured(), None) < whole.memory(configured(), None)
    assert part.smaller(configured(), None) == 8
    assert whole.smaller(configured(), None) == 16


def test_a_trial_spans_gpus_only_where_workers_have_them(tmp_path):
    options = {"trials": 1, "executor": "in-process", "out": tmp_path / "run"}
    with pytest.raises(
        UserError, match="gpus_per_trial 2 needs workers with GPUs: give --gpus-per-worker 1 as well"
    ):
        advisor.tune("sklearn:wine", "target", fixed={"gpus_per_trial": 2}, **options)


if __name__ == "__main__":
    drive(sys.argv[2]) if sys.argv[1] == "use both" else drive_and_lose_a_node()
