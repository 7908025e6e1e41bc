"""The search: a study is asked, an executor runs, the study is told. Knows nothing of models."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advisor.executors.base import Began, Event, Executor, Failed, Finished, Job, Reported
from advisor.machine import interrupts
from advisor.search.events import (
    Assignment,
    Complete,
    Failure,
    Interruption,
    Progress,
    SearchEvent,
    TrialOutcome,
)
from advisor.search.plan import SearchPlan, StudyStore
from advisor.search.storage.journal import Journal
from advisor.search.study import Study
from advisor.search.trials import SearchResult, best_of

FIRST_TRIAL_SHARE = 0.9
"""Of the time limit, after which the first trial ends itself: what comes after the search takes some time as
well."""
SECONDS_OF_POLLING = 0.2
"""Longest wait for an event: Ctrl-C, the deadline and ``should_stop`` are looked at in between."""


def search(
    plan: SearchPlan,
    executor: Executor,
    store: Path | Callable[[], StudyStore],
    *,
    on_event: Callable[[SearchEvent, Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Run the plan to its end, or go on with a journal that has trials.

    store: the journal's file, or what opens a store; a run's lease keeps others away from it.
    on_event: told every event, and where the search stands.
    should_stop: asked between two steps.

    Ctrl-C once (or ``should_stop``) ends the running trials and returns with ``interrupted``; twice
    raises KeyboardInterrupt at once, and the journal can still be resumed. UserError when the journal
    is damaged or of another space or seed, and when the first trials all fail. On return the executor
    is open, with nothing running in it.
    """
    opened: StudyStore = Journal.open(store) if isinstance(store, Path) else store()
    try:
        with interrupts() as interrupted:

            def stopped() -> bool:
                return interrupted.is_set() or (should_stop is not None and should_stop())

            def listen(event: SearchEvent) -> None:
                if on_event is not None:
                    on_event(event, study.progress())

            study = Study(plan, opened, clock=clock, on_event=listen)
            return _Driver(plan, executor, study, stopped, clock).run()
    finally:
        opened.close()


class _Driver:
    """One call of :func:`search`: the study's trials as the executor's jobs."""

    def __init__(
        self,
        plan: SearchPlan,
        executor: Executor,
        study: Study,
        stopped: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._plan, self._executor, self._study = plan, executor, study
        self._stopped, self._clock = stopped, clock
        self._begun = clock()
        self._jobs: dict[str, Assignment] = {}  # under way, also those whose trial the study has ended
        self._first: Any = None

    def run(self) -> SearchResult:
        interrupted = timed_out = closed = False
        study, executor = self._study, self._executor
        try:
            while study.remaining or self._jobs:
                study.slots = executor.slots
                interrupted = interrupted or self._stopped()
                timed_out = timed_out or study.seconds_left() <= 0
                if interrupted:
                    self._discard("interrupted", keep_first=False)
                else:
                    if timed_out:
                        self._discard("out of time", keep_first=True)
                    self._submit()
                closed = timed_out or study.is_closed()
                # After the submitting, before the waiting: the workers train while the disk writes.
                study.sync()
                if not self._jobs and not study.waiting and (interrupted or closed or not study.free):
                    break  # without these, no machine is there for the moment
                executor.set_demand(study.free + len(study.waiting) + len(self._jobs))
                for event in executor.poll(self._patience()):
                    self._take(event)
        except BaseException:
            for job_id in self._jobs:
                executor.cancel(job_id)
            raise
        study.check(failures=1)
        trials = study.trials
        seconds = self._clock() - self._begun
        return SearchResult(
            trials, best_of(trials), interrupted, closed and bool(study.free), seconds, self._first
        )

    def _submit(self) -> None:
        while len(self._jobs) < self._executor.slots:
            assignment = self._study.ask()
            if assignment is None:
                return
            job = self._job(assignment)
            self._jobs[job.id] = assignment
            self._executor.submit(job)
            if self._stopped():
                return

    def _job(self, assignment: Assignment) -> Job:
        payload = self._plan.make_payload(dict(assignment.configuration), assignment.index)
        if self._plan.sizing is not None:
            payload = {**payload, "micro_batch": assignment.micro_batch}
        name = f"trial-{assignment.number}.{assignment.attempt}"
        job = Job(name, payload, assignment.memory, self._plan.trial_time_limit)
        limit = self._plan.time_limit
        if assignment.index == 0 and limit is not None and self._plan.limited is not None:
            job = self._plan.limited(job, max(0.0, self._begun + FIRST_TRIAL_SHARE * limit - self._clock()))
        return job

    def _patience(self) -> float:
        return min(SECONDS_OF_POLLING, max(0.0, self._study.seconds_left())) or SECONDS_OF_POLLING

    def _take(self, event: Event) -> None:
        assignment = self._jobs.get(event.job_id)
        if assignment is None:
            # Delivered twice, or of an attempt that was given up: it has been counted, or must not be.
            return
        number, attempt = assignment.number, assignment.attempt
        if isinstance(event, Began):
            if self._study.is_open(number):
                self._study.begin(number, event.worker, event.device)
        elif isinstance(event, Reported):
            if self._study.report(number, event.epoch, event.loss, attempt=attempt):
                self._executor.cancel(event.job_id)
        else:
            del self._jobs[event.job_id]
            if self._study.is_open(number):
                self._tell(number, _outcome(event))

    def _tell(self, number: int, outcome: TrialOutcome) -> None:
        ended = self._study.tell(number, outcome)
        if ended is None:
            if self._stopped():
                self._study.tell(number, Interruption("interrupted"))
            return
        if ended.index == 0 and ended.end == "complete":
            self._first = ended.result
        self._study.check()

    def _discard(self, reason: str, *, keep_first: bool) -> None:
        """End the open trials."""
        for job_id, assignment in self._jobs.items():
            if self._study.is_open(assignment.number) and not (keep_first and assignment.index == 0):
                self._executor.cancel(job_id)
                self._study.tell(assignment.number, Interruption(reason))
        for assignment in self._study.waiting:
            if not (keep_first and assignment.index == 0):
                self._study.tell(assignment.number, Interruption(reason))


def _outcome(event: Event) -> TrialOutcome:
    """What the end of a job is for its trial."""
    if isinstance(event, Finished):
        return Complete(result=event.result)
    if isinstance(event, Failed):
        return Failure(event.cause, event.error, event.traceback)
    return Interruption("cancelled")
