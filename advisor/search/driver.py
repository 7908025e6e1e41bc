"""The search: Optuna asks, an executor runs, Optuna is told. Knows numbers and names, nothing of models.

The budget is a row of places, 0 to trials - 1. A trial takes a place when it ends for a reason of its own
(complete, pruned, failed, set aside); a trial that ended because the driver died, was interrupted or ran out
of time is *void* and gives its place back. The sampler is seeded by place, so a resumed run asks again what
the uninterrupted one would have asked, and the budget is met exactly however often a run is killed.
"""

from __future__ import annotations

import bisect
import json
import math
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from advisor.errors import UserError
from advisor.executors.base import ATTEMPTS, DEATHS, Began, Event, Executor, Failed, Finished, Job, Reported
from advisor.search.events import Ended as Ended
from advisor.search.events import EpochDone as EpochDone
from advisor.search.events import Measured, RunningTrial, TrialEnd
from advisor.search.events import Progress as Progress
from advisor.search.events import SearchEvent as SearchEvent
from advisor.search.events import Started as Started
from advisor.search.interrupts import interrupts
from advisor.search.journal import PLACE, VOID, Journal, agree, counts
from advisor.search.pace import Pace
from advisor.search.pruning import MedianStopping
from advisor.search.sizing import Sizing

KEPT_EPOCHS = 200
"""A learning curve is thinned to so many points: more make the journal grow and
nobody sees the difference."""
REFUSALS = 20
"""Proposals in a row that cannot be run before the place is given up: the space is then nearly empty."""
RESERVE_SHARE = 0.01
"""After each such share of the time limit it is asked again how much of it the rest will
need: not after each of many trials."""
FAILURES_TO_STOP = 3
"""When so many trials have failed and none has worked, it is the set-up that is
wrong and the rest would fail too."""
DIVERGED_LOSS = 1e6
"""The value of a diverged trial when no trial has reported a finite loss yet:
worse than any, and finite for TPE."""
CONFIGURATION = "configuration"
"""Trial attribute: the whole configuration, where the parameters are not all of it."""
TRAIN_LOSSES = "train_losses"
"""Trial attribute: the training loss after each epoch, where the objective tells it."""
CUT = "cut"
"""Trial attribute: the time limit ended the trial, at its best epoch so far."""
FIRST_TRIAL_SHARE = 0.9
"""Of the time limit, after which the first trial ends itself: what comes after
the search takes some time as well."""
MEMORY_LIMIT = "memory_limit"
"""Study attribute: the smallest predicted memory that did not fit (``Sizing.limit``)."""
SECONDS_BETWEEN_CURVES = 2.0
"""How often the curve of a running trial goes to the journal: often enough to
watch it in optuna-dashboard."""
SECONDS_OF_POLLING = 0.2
"""Longest wait for an event: Ctrl-C, the deadline and ``should_stop`` are looked at in between."""


class SearchSpace(Protocol):
    """What the search needs of a space (``advisor.spaces.space.Space`` has it)."""

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The whole configuration of a trial."""

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """What to enqueue so that ``suggest`` returns ``configuration``."""


class StudyStore(Protocol):
    """Where the study is kept (``advisor.search.journal.Journal``,
    ``advisor.search.database.Database``); see Journal for the methods."""

    study: optuna.Study

    def together(self) -> AbstractContextManager[None]: ...
    def sync(self) -> None: ...
    def close_leftovers(self) -> list[int]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class SearchResult:
    """``trials`` are those that count, by place; ``best`` is None when none is complete and finite.

    ``first`` is what the objective returned for the first place, where this call ran it.
    """

    trials: tuple[FrozenTrial, ...]
    best: FrozenTrial | None
    interrupted: bool
    timed_out: bool
    seconds: float
    first: Any = None

    def ranking(self) -> list[FrozenTrial]:
        """Complete trials that did not diverge, best first; of equals the earlier."""
        return ranking(self.trials)

    def number_of(self, end: TrialEnd) -> int:
        return sum(end_of(trial) == end for trial in self.trials)


def end_of(trial: FrozenTrial) -> TrialEnd:
    """How a finished trial ended."""
    if VOID in trial.user_attrs:
        return "void"
    if trial.state == TrialState.PRUNED:
        return "pruned"
    if trial.state == TrialState.COMPLETE:
        return "diverged" if trial.user_attrs.get("diverged") else "complete"
    return "set aside" if trial.user_attrs.get("set_aside") else "failed"


def best_of(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial with the least value, of equals the earlier; None when
    none is complete and finite."""
    return min(filter(_is_success, trials), key=_order, default=None)


def ranking(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """As :meth:`SearchResult.ranking`."""
    return sorted(filter(_is_success, trials), key=_order)


def configuration_of(trial: FrozenTrial, space: SearchSpace) -> dict[str, Any]:
    """The whole configuration that a trial ran with."""
    kept = trial.user_attrs.get(CONFIGURATION)
    return dict(kept) if kept else space.suggest(FixedTrial(trial.params))


def packing_of(trials: Iterable[FrozenTrial]) -> list[dict[str, Any]]:
    """Which trial ran where and when: seconds since the first was asked for, and
    bytes of the device, expected and used.

    Read from the attributes that the search keeps. A trial that was run again is
    where it ran last. None is not known.
    """
    placed = [trial for trial in trials if trial.datetime_start is not None and "device" in trial.user_attrs]
    first = min((trial.datetime_start for trial in placed if trial.datetime_start), default=None)
    rows = []
    for trial in placed:
        assert trial.datetime_start is not None and first is not None
        known = trial.user_attrs
        asked = (trial.datetime_start - first).total_seconds()
        row = {name: known.get(name) for name in ("worker", "device", "memory", "peak_memory", "micro_batch")}
        began, ended = round(asked + known["waited"], 3), round(asked + known["seconds"], 3)
        rows.append(
            {
                "number": trial.number,
                "began": began,
                "ended": ended,
                "attempts": known.get("attempts", 1),
                **row,
            }
        )
    return rows


@dataclass(frozen=True)
class SearchPlan:
    """What to search and how long.

    enqueue: origin -> configuration, run first, in this order, and never pruned; one outside the space runs
        too, but the sampler does not learn from it.
    space_text: a fingerprint or text of the space; a journal made with another one is refused.
    seed: None takes the seed that the journal was begun with, or 0.
    trial_time_limit: seconds that one trial may take: then it is pruned, or set
        aside when it has reported nothing.
    make_payload: (configuration, place) -> the payload of the job; place, not
        number, so that a resumed run repeats it.
    sampler: seed -> the sampler that asks for one place.
    sizing: what is known of memory; with it, a trial that was out of memory is run again with ``micro_batch``
        (rows at once) in its payload, and a ``Measured`` result teaches it what memory was used. None takes
        the end for the trial's own.
    refuse: why a configuration cannot be run at all, or None: then nothing is run, no
        place is taken, and another is asked.
    pace: what is known of time; with a time limit, no trial is begun that is expected to outlast it.
    reserve: (trials that count, slots) -> seconds of the time limit that are
        kept for what comes after the search.
    value_of: what the objective returned -> the value of a complete trial, finite;
        None: the best loss that it reported.
    limited: a job that ends itself after so many seconds with the best that it has by then; so the first
        trial ends within the time limit. None where jobs cannot: then the first is waited for.
    more: False begins no trial: the search is what the journal holds.
    """

    space: SearchSpace
    enqueue: Mapping[str, Mapping[str, Any]]
    trials: int
    max_epochs: int
    space_text: str = ""
    seed: int | None = None
    time_limit: float | None = None
    trial_time_limit: float | None = None
    make_payload: Callable[[dict[str, Any], int], Mapping[str, Any]] = field(
        default=lambda configuration, place: {"configuration": configuration, "place": place}
    )
    sampler: Callable[[int], optuna.samplers.BaseSampler] = field(default=lambda seed: tpe(seed))
    sizing: Sizing | None = None
    refuse: Callable[[Mapping[str, Any]], str | None] = field(default=lambda configuration: None)
    pace: Pace = field(default_factory=Pace)
    reserve: Callable[[Sequence[FrozenTrial], int], float] = field(default=lambda trials, slots: 0.0)
    value_of: Callable[[Any], float] | None = None
    limited: Callable[[Job, float], Job] | None = None
    more: bool = True

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"trials must be at least 1, not {self.trials}")
        if self.max_epochs < 1:
            raise UserError(f"epochs must be at least 1, not {self.max_epochs}")
        if self.time_limit is not None and not self.time_limit >= 0:
            raise UserError(f"the time limit must be 0 seconds or more, not {self.time_limit}")
        if self.trial_time_limit is not None and not self.trial_time_limit > 0:
            raise UserError(
                f"the time limit of a trial must be more than 0 seconds, not {self.trial_time_limit}"
            )


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
    store: the journal's file, or what opens a store.

    Ctrl-C once (or ``should_stop``) ends the running trials and returns with ``interrupted``; twice
    raises KeyboardInterrupt at once, and the journal can still be resumed. UserError when the journal
    is damaged or of another space or seed, and when the first trials all fail. On return the executor
    is open, with nothing running in it.
    """
    journal: StudyStore = Journal.open(store) if isinstance(store, Path) else store()
    try:
        with interrupts() as interrupted:

            def stopped() -> bool:
                return interrupted.is_set() or (should_stop is not None and should_stop())

            return _Driver(plan, executor, journal, on_event, stopped, clock).run()
    finally:
        journal.close()


@dataclass
class _Running:
    """A trial under way. ``told``: it has ended in the journal, and only its slot is still taken."""

    trial: optuna.Trial
    place: int
    origin: str
    configuration: Mapping[str, Any]
    payload: Mapping[str, Any]
    started: float
    attempt: int = 1
    deaths: int = 0
    micro_batch: int | None = None
    memory: float = 0.0
    peak_memory: float = 0.0
    worker: Began | None = None
    waited: float = 0.0
    told: bool = False
    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    returned: float | None = None
    train_losses: list[float] = field(default_factory=list)
    cut: bool = False
    curve: dict[int, float] = field(default_factory=dict)  # kept epochs, those in the journal too
    unwritten: dict[int, float] = field(default_factory=dict)
    last: tuple[int, float] | None = None
    written_at: float = 0.0


class _Outlasted(Exception):
    """What was proposed is expected to take longer than the time that is left, or cannot be run."""


class _Driver:
    """One call of :func:`search`."""

    def __init__(
        self,
        plan: SearchPlan,
        executor: Executor,
        journal: StudyStore,
        on_event: Callable[[SearchEvent, Progress], None] | None,
        stopped: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._plan, self._executor, self._journal, self._study = plan, executor, journal, journal.study
        self._on_event, self._stopped, self._clock = on_event, stopped, clock
        self._seed = agree(journal.study, plan.space_text, plan.seed)
        if plan.sizing is not None:
            plan.sizing.limit = min(plan.sizing.limit, self._study.user_attrs.get(MEMORY_LIMIT, math.inf))
        self._begun = clock()
        self._running: dict[str, _Running] = {}
        self._again: list[_Running] = []
        self._aside: dict[str, int] = {}
        self._median = MedianStopping(plan.max_epochs)
        self._every = math.ceil(plan.max_epochs / KEPT_EPOCHS)
        self._best: tuple[float, int] | None = None
        self._worst: float | None = None
        self._successes = 0
        self._failures = 0
        self._done_here = 0
        self._reserve, self._reserved_at = 0.0, -math.inf
        self._outlasted = False
        self._first: Any = None
        self._free = self._free_places()

    # ------------------------------------------------------------------ the loop

    def run(self) -> SearchResult:
        interrupted = timed_out = closed = False
        try:
            while self._free or self._running or self._again:
                interrupted = interrupted or self._stopped()
                timed_out = timed_out or self._left() <= 0
                closed = timed_out or self._outlasted or self._left() < self._plan.pace.shortest
                if interrupted:
                    self._void_running("interrupted", keep_first=False)
                elif timed_out:
                    self._void_running("out of time", keep_first=True)
                self._submit(only_first=closed, none=interrupted)
                closed = closed or self._outlasted
                # After the submitting, before the waiting: the workers train while the disk writes.
                self._journal.sync()
                if not self._running and not self._again and (interrupted or closed or not self._free):
                    break  # without these, no machine is there for the moment
                self._executor.wish(len(self._free) + len(self._running) + len(self._again))
                for event in self._executor.poll(self._patience()):
                    self._take(event)
        except BaseException:
            self._cancel_all()
            raise
        if not self._successes and self._failures:
            self._stop_for_failures()
        return self._result(interrupted, closed)

    def _submit(self, *, only_first: bool, none: bool) -> None:
        while self._again and len(self._running) < self._executor.slots:
            self._run_job(self._again.pop(0))
        while self._free and len(self._running) < self._executor.slots:
            if none or ((only_first or self._outlasted) and self._free[0] != 0):
                return
            self._start(self._free.pop(0))
            if self._stopped():
                return

    def _patience(self) -> float:
        return min(SECONDS_OF_POLLING, max(0.0, self._left())) or SECONDS_OF_POLLING

    def _left(self) -> float:
        """Seconds that the search still has."""
        limit = self._plan.time_limit
        if limit is None:
            return math.inf
        now = self._clock()
        if now - self._reserved_at >= limit * RESERVE_SHARE:
            trials = [trial for trial in self._study.get_trials(deepcopy=False) if counts(trial)]
            self._reserve, self._reserved_at = self._plan.reserve(trials, self._executor.slots), now
        return self._begun + limit - self._reserve - now

    # ------------------------------------------------------------------ ask

    def _start(self, place: int) -> None:
        origins = list(self._plan.enqueue)
        origin = origins[place] if place < len(origins) else "search"
        try:
            trial, configuration, refused = self._ask_possible(place, origin)
        except _Outlasted:
            self._outlasted = True
            bisect.insort(self._free, place)
            return
        except ValueError as error:
            # Optuna refuses, say, a categorical whose choices differ from the
            # journal's: a space that was changed.
            raise UserError(
                f"the search space does not fit the journal's trials ({error}): use a new run"
            ) from error
        payload = self._plan.make_payload(configuration, place)
        running = _Running(trial, place, origin, configuration, payload, self._clock())
        if self._plan.sizing is not None:
            running.micro_batch = self._plan.sizing.micro_batch(configuration)
        same = self._aside.get(_identity(trial.params or configuration))
        if same is None and refused is None:
            self._run_job(running)
        self._tell_listener(Started(trial.number, place, origin, configuration))
        if refused is not None:
            self._failures += 1
            self._end(running, "failed", refused)
            self._check_failures()
            return
        if same is not None:
            self._set_aside(running, f"the configuration is that of trial {same}, which was set aside")

    def _ask_possible(self, place: int, origin: str) -> tuple[optuna.Trial, dict[str, Any], str | None]:
        """A trial that nothing speaks against; what is refused takes no place,
        unless it was enqueued or REFUSALS were.

        Raises _Outlasted when nothing was proposed that can be run and would be
        complete in the time that is left.
        """
        outlasted = False
        for attempt in range(REFUSALS):
            trial, configuration = self._ask(place, origin, attempt)
            refused = self._plan.refuse(configuration)
            needed, left = self._plan.pace.expects(configuration), self._left()
            if origin != "search" or (refused is None and needed <= left):
                return trial, configuration, refused
            with self._journal.together():
                if refused is None:
                    # Failed, and not infeasible: with another time limit it may be the best.
                    outlasted = True
                    trial.set_user_attr(
                        VOID, f"it is expected to take {needed:.3g} s, and {left:.3g} s are left"
                    )
                    self._study.tell(trial, state=TrialState.FAIL)
                else:
                    # Complete and infeasible, not failed: of failed trials a sampler
                    # learns nothing, and asks there again.
                    trial.set_user_attr(VOID, f"refused: {refused}")
                    trial.set_constraint("refused", 1.0)
                    self._study.tell(trial, DIVERGED_LOSS if self._worst is None else self._worst)
        if outlasted:
            raise _Outlasted
        return *self._ask(
            place, origin, REFUSALS
        ), f"{REFUSALS} proposals could not be trained, the last: {refused}"

    def _ask(self, place: int, origin: str, attempt: int) -> tuple[optuna.Trial, dict[str, Any]]:
        # A sampler per place, not one that runs on: after a restart its state
        # would not be the uninterrupted one's.
        again = f"/{attempt}" if attempt else ""
        self._study.sampler = self._plan.sampler(zlib.crc32(f"{self._seed}/{place}{again}".encode()))
        attributes: dict[str, Any] = {PLACE: place, "origin": origin}
        wanted = self._plan.enqueue.get(origin)
        asked = None if wanted is None else self._encoded(wanted)
        if asked is not None:
            self._study.enqueue_trial(asked, user_attrs=attributes)
            attributes = {}
        elif wanted is not None:
            attributes[CONFIGURATION] = dict(wanted)
        trial = self._study.ask()
        with self._journal.together():
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            outside = wanted is not None and asked is None
            configuration = dict(wanted or {}) if outside else self._plan.space.suggest(trial)
        # Read back: what Optuna has against a parameter it says when it reads
        # the record, and that must be here.
        self._study._storage.get_trial(trial._trial_id)
        return trial, configuration

    def _encoded(self, configuration: Mapping[str, Any]) -> dict[str, Any] | None:
        """What to enqueue; None for a configuration outside the space.

        Optuna would take a value outside its range with a mere warning, and then model a place that
        the search cannot reach. Such a trial runs with its configuration in an attribute and no
        parameters: the sampler learns nothing.
        """
        try:
            return self._plan.space.encode(configuration)
        except UserError:
            return None

    def _run_job(self, running: _Running) -> None:
        sizing, payload = self._plan.sizing, running.payload
        if sizing is not None:
            running.memory = sizing.memory(running.configuration, running.micro_batch)
            payload = {**payload, "micro_batch": running.micro_batch}
        job = Job(
            f"trial-{running.trial.number}.{running.attempt}",
            payload,
            running.memory,
            self._plan.trial_time_limit,
        )
        limit = self._plan.time_limit
        if running.place == 0 and limit is not None and self._plan.limited is not None:
            job = self._plan.limited(job, max(0.0, self._begun + FIRST_TRIAL_SHARE * limit - self._clock()))
        self._running[job.id] = running
        self._executor.submit(job)

    # ------------------------------------------------------------------ events

    def _take(self, event: Event) -> None:
        running = self._running.get(event.job_id)
        if running is None:
            # Delivered twice, or of an attempt that was given up: it has been counted, or must not be.
            return
        if isinstance(event, Began):
            running.worker, running.waited = event, self._clock() - running.started
            return
        if isinstance(event, Reported):
            if not running.told:
                self._report(event, running)
            return
        del self._running[event.job_id]
        if running.told:
            return
        if isinstance(event, Finished):
            self._finish(running, event.result)
        elif isinstance(event, Failed):
            self._fail(running, event)
        else:
            self._end(running, "void", "cancelled")

    def _report(self, event: Reported, running: _Running) -> None:
        loss = event.loss
        if not math.isfinite(loss):
            self._diverge(event, running)
            return
        if loss < running.best:
            running.best, running.best_epoch = loss, event.epoch
        if (event.epoch - 1) % self._every == 0:
            self._keep(running, event.epoch, loss)
        if event.epoch <= running.epoch:
            # Told twice, or overtaken by a later one: where the trial stands it cannot say.
            return
        running.epoch, running.last = event.epoch, (event.epoch, loss)
        now = self._clock()
        if now - running.written_at >= SECONDS_BETWEEN_CURVES:
            self._write_curve(running, now)
        self._tell_listener(EpochDone(running.trial.number, event.epoch, loss))
        if running.origin == "search" and self._median.is_behind(event.epoch, running.best):
            self._executor.cancel(event.job_id)
            self._end(running, "pruned", f"behind the median at epoch {event.epoch}")

    def _keep(self, running: _Running, epoch: int, loss: float) -> None:
        if epoch not in running.curve:
            running.curve[epoch] = running.unwritten[epoch] = loss

    def _diverge(self, event: Reported, running: _Running) -> None:
        self._executor.cancel(event.job_id)
        self._end(running, "diverged", f"the loss was {event.loss} at epoch {event.epoch}")

    def _finish(self, running: _Running, result: Any) -> None:
        if running.last is None:
            self._failures += 1
            self._end(running, "failed", "the objective reported no loss")
            self._check_failures()
            return
        told = result if isinstance(result, Measured) else Measured()
        running.train_losses = [float(f"{loss:.6g}") for loss in told.train_losses]
        if self._plan.sizing is not None and told.peak_memory is not None:
            running.peak_memory = told.peak_memory
            self._plan.sizing.used(running.configuration, running.micro_batch, running.peak_memory)
        running.cut = told.cut
        if running.place == 0:
            self._first = result
        running.returned = None if self._plan.value_of is None else self._plan.value_of(result)
        self._end(running, "complete", "", result)

    def _fail(self, running: _Running, event: Failed) -> None:
        if event.cause == "time limit" and running.last is not None:
            self._end(running, "pruned", event.error)
        elif self._is_worth_another(running, event):
            if self._stopped():
                self._end(running, "void", "interrupted")
                return
            running.attempt += 1
            running.epoch, running.best, running.last, running.curve, running.unwritten = (
                0,
                math.inf,
                None,
                {},
                {},
            )
            self._again.append(running)
        elif event.cause == "error":
            self._failures += 1
            self._end(running, "failed", event.error, details=event.traceback)
            self._check_failures()
        else:
            self._set_aside(running, event.error)

    def _is_worth_another(self, running: _Running, event: Failed) -> bool:
        """Did the trial fail by chance, or may it fit when it is made smaller?"""
        if event.cause == "out of memory" and not self._shrink(running):
            return False
        running.deaths += event.cause == "worker died"
        again = event.cause in ("worker died", "node lost", "out of memory")
        return again and running.deaths < DEATHS and running.attempt < ATTEMPTS

    def _shrink(self, running: _Running) -> bool:
        sizing = self._plan.sizing
        smaller = None if sizing is None else sizing.smaller(running.configuration, running.micro_batch)
        if sizing is None or smaller is None:
            return False
        running.micro_batch = smaller
        # In the study, so that a run that goes on later need not learn it again.
        if math.isfinite(sizing.limit):
            self._study.set_user_attr(MEMORY_LIMIT, sizing.limit)
        return True

    def _set_aside(self, running: _Running, reason: str) -> None:
        self._aside.setdefault(_identity(running.trial.params or running.configuration), running.trial.number)
        self._failures += 1
        self._end(running, "set aside", reason)
        self._check_failures()

    # ------------------------------------------------------------------ tell

    def _end(
        self, running: _Running, end: TrialEnd, reason: str, result: Any = None, *, details: str = ""
    ) -> None:
        """Tell a trial's end, once. Its slot may still be taken until the
        executor says that the job is over."""
        running.told = True
        trial = running.trial
        if running.last is not None:
            # The last epoch is what Optuna takes for a pruned trial's value, the
            # best one is a complete trial's.
            self._keep(running, *running.last)
            if math.isfinite(running.best):
                self._keep(running, running.best_epoch, running.best)
        self._write_curve(running, self._clock())
        self._see(running.curve)
        value = self._value(running, end)
        state = {
            "complete": TrialState.COMPLETE,
            "diverged": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
        }.get(end, TrialState.FAIL)
        # One write: a crash leaves the trial RUNNING or ended with all that belongs to it.
        with self._journal.together():
            for name, attribute in self._attributes(running, end, reason, details).items():
                trial.set_user_attr(name, attribute)
            if end == "diverged":
                trial.set_constraint("diverged", 1.0)
            self._study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
        if end == "void":
            bisect.insort(self._free, running.place)
            self._tell_listener(
                Ended(trial.number, running.place, end, None, reason, False, origin=running.origin)
            )
            return
        self._done_here += 1
        if end == "complete" and not running.cut:
            seconds = self._clock() - running.started - running.waited
            self._plan.pace.took(running.configuration, running.epoch, seconds)
        is_best = self._learn(end, value, trial.number, running.curve)
        self._tell_listener(
            Ended(trial.number, running.place, end, value, reason, is_best, result, running.origin)
        )

    def _value(self, running: _Running, end: TrialEnd) -> float | None:
        if end == "complete":
            return running.best if running.returned is None else running.returned
        if end == "diverged":
            # The worst loss seen, not a constant: a value far off would squash
            # every other in plots and importances.
            return DIVERGED_LOSS if self._worst is None else self._worst
        return running.last[1] if end == "pruned" and running.last is not None else None

    def _attributes(self, running: _Running, end: TrialEnd, reason: str, details: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "epochs": running.epoch,
            "seconds": round(self._clock() - running.started, 3),
        }
        if running.attempt > 1:
            attributes["attempts"] = running.attempt
        if running.micro_batch is not None:
            attributes["micro_batch"] = running.micro_batch
        attributes |= {
            name: round(getattr(running, name))
            for name in ("memory", "peak_memory")
            if getattr(running, name)
        }
        if running.worker is not None:
            attributes |= {
                "worker": running.worker.worker,
                "device": running.worker.device,
                "waited": round(running.waited, 3),
            }
        if running.cut:
            attributes[CUT] = True
        if running.train_losses:
            attributes[TRAIN_LOSSES] = running.train_losses
        if end == "void":
            attributes[VOID] = reason
        elif reason:
            attributes["reason"] = reason
        if end in ("diverged", "set aside"):
            attributes[end.replace(" ", "_")] = True
        if details:
            attributes["traceback"] = details[-4000:]
        return attributes

    def _write_curve(self, running: _Running, now: float) -> None:
        if running.unwritten:
            with self._journal.together():
                for epoch, loss in running.unwritten.items():
                    # Not `trial.report`: a second attempt's epoch takes the place of the first's.
                    self._study._storage.set_trial_intermediate_value(running.trial._trial_id, epoch, loss)
        running.unwritten, running.written_at = {}, now

    def _see(self, curve: Mapping[int, float]) -> None:
        """Remember the worst loss, of the kept epochs only: a resumed run knows
        no others and must decide alike."""
        worst = [*curve.values(), *([] if self._worst is None else [self._worst])]
        self._worst = max(worst, default=None)

    def _learn(self, end: TrialEnd, value: float | None, number: int, curve: Mapping[int, float]) -> bool:
        """Take a counted trial into account; is it the best so far?"""
        if end in ("complete", "pruned", "diverged"):
            self._successes += 1
        if end != "complete" or value is None:
            return False
        self._median.learn(curve)
        if self._best is None or value < self._best[0]:
            self._best = (value, number)
            return True
        return False

    # ------------------------------------------------------------------ stopping

    def _void_running(self, reason: str, *, keep_first: bool) -> None:
        for job_id, running in self._running.items():
            if not running.told and not (keep_first and running.place == 0):
                self._executor.cancel(job_id)
                self._end(running, "void", reason)
        waiting, self._again = self._again, []
        for running in waiting:
            if keep_first and running.place == 0:
                self._again.append(running)
            else:
                self._end(running, "void", reason)

    def _cancel_all(self) -> None:
        for job_id in self._running:
            self._executor.cancel(job_id)

    def _check_failures(self) -> None:
        if not self._successes and self._failures >= FAILURES_TO_STOP:
            self._stop_for_failures()

    def _stop_for_failures(self) -> None:
        failed = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if end_of(trial) in ("failed", "set aside")
        ]
        reason = failed[-1].user_attrs.get("reason", "no reason given")
        raise UserError(f"all of the first {self._failures} trials failed, the last with {reason}")

    # ------------------------------------------------------------------ what has been

    def _free_places(self) -> list[int]:
        """Close what a dead driver left, take in what is finished; the places of the budget that are free."""
        self._journal.close_leftovers()
        taken = set()
        for trial in self._study.get_trials(deepcopy=False):
            if not counts(trial):
                continue
            taken.add(_place(trial))
            self._see(trial.intermediate_values)
            self._learn(end_of(trial), trial.value, trial.number, trial.intermediate_values)
            if end_of(trial) == "set aside":
                self._aside.setdefault(
                    _identity(trial.params or trial.user_attrs.get(CONFIGURATION, {})), trial.number
                )
        return [place for place in range(self._plan.trials) if place not in taken] if self._plan.more else []

    def _result(self, interrupted: bool, timed_out: bool) -> SearchResult:
        trials = sorted(filter(counts, self._study.get_trials(deepcopy=False)), key=_place)
        best = best_of(trials)
        seconds = self._clock() - self._begun
        return SearchResult(
            tuple(trials), best, interrupted, timed_out and bool(self._free), seconds, self._first
        )

    def _tell_listener(self, event: SearchEvent) -> None:
        if self._on_event is not None:
            self._on_event(event, self._progress())

    def _progress(self) -> Progress:
        active = [running for running in self._running.values() if not running.told]
        open_places = len(self._free) + len(active) + len(self._again)
        seconds = self._clock() - self._begun
        left = seconds / self._done_here * open_places if self._done_here else None
        if self._plan.time_limit is not None:
            until = max(0.0, self._left())
            left = until if left is None else min(left, until)
        best_value, best_number = self._best or (None, None)
        return Progress(
            done=self._plan.trials - open_places,
            trials=self._plan.trials,
            running=tuple(RunningTrial(one.trial.number, one.origin, one.epoch, one.best) for one in active),
            best_number=best_number,
            best_value=best_value,
            seconds=seconds,
            seconds_left=left,
        )


def tpe(seed: int) -> optuna.samplers.TPESampler:
    """The sampler by default: a joint model of all parameters, conditional ones within their branch."""
    with warnings.catch_warnings():
        # group=True keeps conditional parameters in the joint model; that it is
        # experimental is known and accepted.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)


def _identity(configuration: Mapping[str, Any]) -> str:
    return json.dumps(configuration, sort_keys=True, default=str)


def _place(trial: FrozenTrial) -> int:
    return int(trial.user_attrs[PLACE])


def _is_success(trial: FrozenTrial) -> bool:
    return end_of(trial) == "complete"


def _order(trial: FrozenTrial) -> tuple[float, int]:
    return (math.inf if trial.value is None else trial.value, trial.number)
