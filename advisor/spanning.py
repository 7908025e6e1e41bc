"""Trials that span GPUs: each is trained by processes of Ray Train, one to a GPU, that share its batches (``ranks.py``)."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from advisor.executors import Job, Lost, error_text, is_out_of_memory
from advisor.objective import TrainingObjective, processes_of
from advisor.ranks import Ranks

PER_PROCESS = {"CPU": 1.0, "GPU": 1.0}
"""What a process asks Ray for."""
INSTALL = "pip install 'ray[train]'"


def why_not() -> str | None:
    """Why no trial can span GPUs here; None when Ray Train is installed."""
    try:
        import ray.train  # noqa: F401
    except ImportError as error:
        return f"Ray Train is not installed ({INSTALL}, here and on every node): {error_text(error)}"
    return None


def spanning_shared(shared: Mapping[str, Any]) -> dict[str, Any]:
    """What ``TrainingObjective`` is given, with the data put into Ray's object store once for all processes of all trials."""
    import ray

    return {"rows": len(shared["data"]), "all": {"inside": ray.put(shared)}}


class SpanningObjective:
    """The factory and the objective for an executor on Ray; ``shared`` is ``spanning_shared``'s.

    It runs in a worker that holds no GPU, and asks Ray for those of its processes.
    """

    def __init__(self, shared: Mapping[str, Any]) -> None:
        if reason := why_not():
            raise RuntimeError(reason)
        self._rows, self._shared = shared["rows"], shared["all"]["inside"]

    def __call__(self, job: Job) -> Generator[tuple[int, float], None, Any]:
        from ray.util.queue import Queue

        processes = processes_of(job.payload["configuration"], self._rows)
        said, heard = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        nodes, errors = set[str](), list[Exception]()
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
            trainer = _trainer({"shared": [self._shared], "job": job, "said": said, "heard": heard}, processes, folder)
            ended = pool.submit(trainer.fit)
            ended.add_done_callback(lambda _: said.put(("ended", None)))  # after all that the processes said
            try:
                while True:
                    kind, news = said.get()
                    if kind == "node":
                        nodes.add(news)
                    elif kind == "epoch":
                        yield news
                        heard.put(True)
                    elif kind == "failed":
                        errors.append(news)  # perhaps only because another process is gone
                    elif kind == "result":
                        return news
                    else:
                        raise _why_ended(ended.exception(), errors, nodes)
            finally:
                heard.put(False)  # the processes end after their epoch, and the pool waits for that


def _trainer(told: dict[str, Any], processes: int, folder: str) -> Any:
    import torch
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray Train would begin again by itself; the search does, which counts a trial's attempts.
    once = FailureConfig(max_failures=0, max_preemption_failures=0)
    # Not by whether a GPU is there: this worker sees none.
    backend = "nccl" if torch.distributed.is_nccl_available() else "gloo"
    return TorchTrainer(
        _process,
        train_loop_config=told,
        torch_config=TorchConfig(backend=backend),
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=True, resources_per_worker=PER_PROCESS),
        run_config=RunConfig(storage_path=folder, failure_config=once),
    )


def _process(told: dict[str, Any]) -> None:
    """What each process runs. The first one tells, and hears after every epoch whether to go on."""
    import ray
    import torch
    from ray.train import get_context

    context, said = get_context(), told["said"]
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    said.put(("node", ray.get_runtime_context().get_node_id()))
    first = ranks.rank == 0
    try:
        objective = TrainingObjective(ray.get(told["shared"][0]), ranks)
        steps = objective(told["job"])
        while True:
            try:
                epoch = next(steps)
            except StopIteration as end:
                if first:
                    said.put(("result", end.value))
                return
            go_on = torch.ones(1, device=objective.device)
            if first:
                said.put(("epoch", epoch))
                go_on[0] = told["heard"].get()
            if ranks.world > 1:
                torch.distributed.broadcast(go_on, 0)
            if not go_on.item():
                return
    except Exception as error:
        said.put(("failed", _plain(error)))
        raise


def _plain(error: Exception) -> Exception:
    """As it is, where it can be sent; else one that says the same."""
    from ray import cloudpickle

    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever a class does when it is copied
        return MemoryError(error_text(error)) if is_out_of_memory(error) else RuntimeError(error_text(error))
    return error


def _why_ended(ended: BaseException | None, said: Sequence[Exception], nodes: set[str]) -> Exception:
    """Why there is no result: an error of the trial's, or processes that are gone; were they the trial's, or the machine's?

    ended: what Ray Train says. said: the errors that the processes have told, the first one first. nodes: where they were.
    """
    import ray
    from ray.train import PreemptionError

    failures = [*getattr(ended, "worker_failures", {}).values()]
    gone = [failure for failure in failures if hasattr(failure, "health_check_failure")]
    preempted = isinstance(ended, PreemptionError)
    if said and not gone and not preempted:
        return said[0]
    cause = gone[0] if gone else ended
    what = error_text(cause) if cause else "they ended at once"
    if not nodes:
        return RuntimeError(f"the processes of the trial could not be started: {what}")
    message = f"a process of the trial is gone: {what[:300]}"
    if "OutOfMemory" in what:
        return Lost(message, "out of memory")
    there = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return Lost(message, "node lost" if preempted or not nodes <= there else "worker died")
