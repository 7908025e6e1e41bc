"""The final's trainings, run to their end whatever becomes of workers, nodes and memory."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor.errors import UserError
from advisor.executors import ATTEMPTS, DEATHS, ENDS, Executor, Failed, Finished, Job
from advisor.sizing import Sizing

FINALISTS = 3
"""Best trials that meet the recommendation in the final; more would cost time and a stricter test for each."""
FINAL_REPEATS = (1, 2)
"""Fresh partitions in the final; the search used number 0. Two halve the luck of the draw, and their networks are one
ensemble."""
POLL_SECONDS = 0.5


class Stopped(Exception):
    """The final was asked to stop."""


def train_finalists(
    entries: Mapping[str, Sequence[Job]],
    essential: str,
    runner: Executor,
    deadline: float | None,
    sizing: Sizing | None,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, list[Any]]:
    """The results of each entry's jobs, in their order; each entry has as many jobs, and of each as many results are returned.

    The first job of every entry is trained before the second of any. Past the deadline only the first one of the essential
    entry is still waited for: then entries without a result are out, and of the others those count that all of them have.
    An entry of which any job failed for a reason of its own is out; of the essential one that is a UserError. Payloads
    hold a ``configuration``; a job that is out of memory is run again with ``micro_batch``, as ``sizing`` says. Raises
    Stopped when ``stopped`` says so.
    """
    names = {job.id: name for name, jobs in entries.items() for job in jobs}
    last_awaited = entries[essential][0].id
    waiting = [_sized(job, sizing, None) for round_of in zip(*entries.values(), strict=True) for job in round_of][::-1]
    running, results, attempts = dict[str, Job](), dict[str, Any](), Counter[str]()
    failed = set[str]()
    while waiting or running:
        if stopped():
            for job_id in running:
                runner.cancel(job_id)
            raise Stopped
        if deadline is not None and clock() > deadline:
            waiting = [job for job in waiting if job.id == last_awaited]
            for job_id in running:
                if job_id != last_awaited:
                    runner.cancel(job_id)
        while waiting and len(running) < runner.slots:
            job = waiting.pop()
            running[job.id] = job
            runner.submit(job)
        runner.wish(len(waiting) + len(running))
        for event in runner.poll(POLL_SECONDS):
            job_of_event = running.pop(event.job_id, None) if isinstance(event, ENDS) else None
            if job_of_event is None:
                continue
            if isinstance(event, Finished):
                results[event.job_id] = event.result
            elif isinstance(event, Failed):
                again = _again(job_of_event, event, attempts, sizing)
                if again is not None:
                    waiting.append(again)
                elif names[event.job_id] == essential:
                    raise UserError(f"the {essential} could not be trained in the final: {event.error}")
                else:
                    failed.add(names[event.job_id])
    done = {
        name: [results[job.id] for job in itertools.takewhile(lambda job: job.id in results, jobs)]
        for name, jobs in entries.items()
        if name not in failed
    }
    in_common = min(len(own) for own in done.values() if own)
    return {name: own[:in_common] for name, own in done.items() if own}


def _again(job: Job, event: Failed, attempts: Counter[str], sizing: Sizing | None) -> Job | None:
    """The job to run in its place, or None when it failed for a reason of its own."""
    attempts[job.id] += 1
    attempts[f"deaths of {job.id}"] += event.cause == "worker died"
    if attempts[job.id] >= ATTEMPTS or attempts[f"deaths of {job.id}"] >= DEATHS:
        return None
    if event.cause == "out of memory" and sizing is not None:
        smaller = sizing.smaller(job.payload["configuration"], job.payload.get("micro_batch"))
        return None if smaller is None else _sized(job, sizing, smaller)
    return job if event.cause in ("worker died", "node lost") else None


def _sized(job: Job, sizing: Sizing | None, micro_batch: int | None) -> Job:
    if sizing is None:
        return job
    configuration = job.payload["configuration"]
    rows = micro_batch or sizing.micro_batch(configuration)
    return replace(job, payload={**job.payload, "micro_batch": rows}, memory=sizing.memory(configuration, rows))
