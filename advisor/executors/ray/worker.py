"""What runs in an actor: the objective, whose epochs travel as a stream of messages."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.errors import error_text
from advisor.executors.base import Factory, Failed, Job, Objective, failure
from advisor.executors.ray.threads import limit
from advisor.machine import versions

BATCH_SECONDS = 0.02
"""A worker gathers the epochs of so long into one message: a message costs about
as much as a hundred tiny epochs."""

Message = tuple[str, list[tuple[int, float]], Any]
"""(kind, epochs since the last message, payload); kind is "epochs", "finished" or "failed"."""


@dataclass(frozen=True)
class WorkerIdentity:
    """Who a worker is.
    memory: bytes of its GPU, None without one."""

    pid: int
    node: str
    address: str
    gpus: tuple[str, ...]
    memory: float | None
    versions: dict[str, str]

    @property
    def device(self) -> str:
        return f"{self.node[:8]} {self.address} " + (f"gpu {','.join(self.gpus)}" if self.gpus else "cpu")


def _identity() -> WorkerIdentity:
    """This process's."""
    import ray

    context = ray.get_runtime_context()
    gpus = tuple(str(gpu) for gpu in context.get_accelerator_ids().get("GPU", ()))
    # Only where the objective has loaded it: the engine knows no torch.
    torch = sys.modules.get("torch")
    sees = bool(gpus) and torch is not None and torch.cuda.is_available()
    memory = float(torch.cuda.get_device_properties(0).total_memory) if torch is not None and sees else None
    return WorkerIdentity(
        os.getpid(), context.get_node_id(), ray.util.get_node_ip_address(), gpus, memory, versions()
    )


class RayWorker:
    """What runs in an actor. ``prepare`` comes before the first ``run``."""

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str], threads: int) -> None:
        # Before any import of ours: CUDA reads it when it is loaded. Not as Ray's runtime_env, for which Ray
        # would have to start a fresh process in place of the one that it keeps ready.
        os.environ.update(environment)
        limit(threads)  # Ray has loaded NumPy already, with as many as the driver's environment says
        for name in imports:
            # Seconds of importing torch, spent while the driver still reads data. A module that is missing
            # here is reported by `prepare`, with the objective that needs it.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self._objective: Objective | None = None
        self._complaint = ("the worker was never prepared", "")

    def prepare(self, factory: Factory, shared: Any) -> WorkerIdentity:
        """Make the objective; who we are."""
        try:
            self._objective = factory(shared)
        # told by the first job, as every error of an objective is
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._complaint = (f"the worker could not be set up: {error_text(error)}", traceback.format_exc())
        return _identity()

    def run(self, job: Job) -> Generator[Message, None, None]:
        """The job's epochs in batches, then its end."""
        if self._objective is None:
            yield ("failed", [], Failed(job.id, *self._complaint))
            return
        epochs: list[tuple[int, float]] = []
        sent = time.monotonic()
        try:
            steps = self._objective(job)
            # Closed also when Ray closes us (GeneratorExit at our yield): the objective's `finally` must run.
            with contextlib.closing(steps):
                while True:
                    try:
                        epoch, loss = next(steps)
                    except StopIteration as stop:
                        message: Message = ("finished", epochs, stop.value)
                        break
                    epochs.append((int(epoch), float(loss)))
                    if time.monotonic() - sent >= BATCH_SECONDS:
                        yield ("epochs", epochs, None)
                        epochs, sent = [], time.monotonic()
        # whatever a user's objective raises is the job's end
        except (Exception, SystemExit) as error:  # noqa: BLE001
            message = ("failed", epochs, failure(job.id, error, traceback.format_exc()))
        yield message
