"""The final's trainings, run to their end whatever becomes of workers, nodes and memory."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advisor.errors import UserError, in_words
from advisor.executors.base import ATTEMPTS, DEATHS, ENDS, Executor, Failed, Finished, Job
from advisor.objectives.jobs import final_job
from advisor.search.resources import Sizing

FINALISTS = 3
"""Best trials that meet the recommendation in the final; more would cost time
and a stricter test for each."""
FINAL_REPEATS = (1, 2)
"""Fresh partitions in the final; the search used number 0. Two halve the luck of the draw,
and their networks are one ensemble."""
FINAL_MARGIN = 1.2
"""Kept for the final: this many times what it is expected to take."""
POLL_SECONDS = 0.5
LEAST_SHARE = 0.5
"""Of what the awaited job is expected to take, that it has even when less time is left:
a network of a few steps is none."""


class FinalStopped(Exception):
    """The final was asked to stop."""


class AllFailed(UserError):
    """No entry came through."""


@dataclass(frozen=True)
class Trained:
    """What the final's trainings came to.

    results: of each entry that came through, in the order of its jobs; of each as many.
    failed: of the entries that failed for a reason of their own, why.
    """

    results: dict[str, list[Any]]
    failed: dict[str, str]


def train_finalists(
    entries: Mapping[str, Sequence[Job]],
    runner: Executor,
    deadline: float | None,
    sizing: Sizing | None,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    *,
    expects: Callable[[Job], float] = lambda job: 0.0,
    limited: Callable[[Job, float], Job] = lambda job, seconds: job,
    problem: Callable[[Any], str | None] = lambda result: None,
    on_done: Callable[[int, int], None] = lambda done, trainings: None,
) -> Trained:
    """The results of each entry's jobs; each entry has as many jobs. The first job of every entry
    is trained before the second of any.

    An entry of which any job failed for a reason of its own is out, whichever it is; AllFailed when all are.
    Past the deadline only the first job of the first entry that is not out is still waited for: then entries
    without a result are out, and of the others those count that all of them have. Other jobs are not begun
    when they are expected to outlast it. Payloads hold a ``configuration``; a job that is out of memory is
    run again with ``micro_batch``, as ``sizing`` says.

    expects: seconds that a job takes; 0 where nothing is known.
    limited: a job that ends itself after this many seconds with the best that it
        has by then; by default jobs cannot.
    problem: why a result does not count, such as a loss that is not
    finite: then the job has failed.
    on_done: told how many of how many jobs have ended. Raises FinalStopped when ``stopped`` says so.
    """
    names = {job.id: name for name, jobs in entries.items() for job in jobs}
    in_order = [
        _sized(job, sizing, None) for round_of in zip(*entries.values(), strict=True) for job in round_of
    ]
    firsts = {job.id: _sized(job, sizing, None) for jobs in entries.values() for job in jobs[:1]}
    waiting = in_order[::-1]
    running, results, attempts = dict[str, Job](), dict[str, Any](), Counter[str]()
    failed = dict[str, str]()
    while True:
        if stopped():
            _cancel(runner, running)
            raise FinalStopped
        left = math.inf if deadline is None else deadline - clock()
        awaited = next((job_id for job_id in firsts if names[job_id] not in failed), None)
        waiting = [job for job in waiting if names[job.id] not in failed]
        waiting = [job for job in waiting if job.id == awaited or (left > 0 and expects(job) <= left)]
        if left <= 0:
            _cancel(runner, running.keys() - {awaited})
        if awaited is not None and not {awaited} & {*running, *results, *(job.id for job in waiting)}:
            waiting.append(firsts[awaited])  # it was given up when another one was awaited
        if not waiting and not running:
            break
        while waiting and len(running) < runner.slots:
            job = waiting.pop()
            running[job.id] = job
            ends = deadline is not None and job.id == awaited
            runner.submit(limited(job, max(left, LEAST_SHARE * expects(job), 0.0)) if ends else job)
        runner.set_demand(len(waiting) + len(running))
        for event in runner.poll(POLL_SECONDS):
            job_of_event = running.pop(event.job_id, None) if isinstance(event, ENDS) else None
            if job_of_event is None:
                continue
            if isinstance(event, Finished):
                if reason := problem(event.result):
                    failed.setdefault(names[event.job_id], reason)
                else:
                    results[event.job_id] = event.result
                    on_done(len(results), len(names))
            elif isinstance(event, Failed):
                again = _again(job_of_event, event, attempts, sizing)
                if again is not None:
                    waiting.append(again)
                else:
                    failed.setdefault(names[event.job_id], event.error)
    if len(failed) == len(entries):
        name, reason = next(iter(failed.items()))
        raise AllFailed(f"all finalists failed, {in_words(name)} with: {reason}")
    done = {
        name: [results[job.id] for job in itertools.takewhile(lambda job: job.id in results, jobs)]
        for name, jobs in entries.items()
        if name not in failed
    }
    in_common = min(len(own) for own in done.values() if own)
    return Trained({name: own[:in_common] for name, own in done.items() if own}, failed)


def final_jobs(
    entries: Mapping[str, Mapping[str, Any]], repeats: Sequence[int], seed: int, most: int | None = None
) -> dict[str, list[Job]]:
    """Of each entry (name -> configuration) a job for each partition. seed, most: as in ``final_job``."""
    return {
        name: [final_job(c, seed, repeat, most).as_job(f"final/{name}/{repeat}") for repeat in repeats]
        for name, c in entries.items()
    }


def _cancel(runner: Executor, job_ids: Iterable[str | None]) -> None:
    for job_id in list(job_ids):
        runner.cancel(str(job_id))


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
    return replace(
        job, payload={**job.payload, "micro_batch": rows}, memory=sizing.memory(configuration, rows)
    )
