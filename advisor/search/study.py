"""A search that is driven from outside: ask for a trial, report its losses, tell its end.

Knows no executor, loop, signal or terminal: ``advisor tune``, a server, a test and a benchmark drive it.

The budget is a row of indices, 0 to trials - 1. A trial takes an index when it ends for a reason of its own
(complete, pruned, diverged, failed, quarantined). One that ended because its owner died, was interrupted or
ran out of time is *discarded* and gives its index back. The sampler is seeded by index, so a resumed study
proposes what the uninterrupted one would have proposed, and the budget is met exactly however often it is
killed.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from advisor.errors import UserError
from advisor.executors.base import ATTEMPTS, DEATHS, Cause
from advisor.search.events import (
    Assignment,
    Complete,
    Ended,
    EpochDone,
    Failure,
    Interruption,
    Measured,
    Progress,
    RunningTrial,
    SearchEvent,
    Started,
    TrialEnd,
    TrialOutcome,
    TrialTaken,
    UnknownTrial,
)
from advisor.search.history import History
from advisor.search.open_trials import NOTE, OpenTrial, Proposer, adoptable
from advisor.search.plan import SearchPlan, StudyStore
from advisor.search.storage.journal import PLACE, VOID, Journal, counts, study_seed
from advisor.search.trials import best_of, end_of, index_of

__all__ = [
    "Assignment",
    "Complete",
    "Failure",
    "Interruption",
    "SearchPlan",
    "Study",
    "TrialTaken",
    "UnknownTrial",
]

KEPT_EPOCHS = 200
"""A learning curve is thinned to at most this many points: more make the journal grow and nobody sees the
difference."""
REFUSALS = 20
"""Proposals in a row that cannot be run before the index is given up: the space is then nearly empty."""
RESERVE_SHARE = 0.01
"""After each such share of the time limit it is asked again how much of it the rest will need: not after each
of many trials."""
FAILURES_TO_STOP = 3
"""When this many trials have failed and none has worked, it is the set-up that is wrong and the rest would
fail too."""
MEMORY_LIMIT = "memory_limit"
"""Study attribute: the smallest predicted memory that did not fit (``Sizing.limit``)."""
SECONDS_BETWEEN_CURVES = 2.0
"""How often the curve of a running trial goes to the journal: to be watched in optuna-dashboard."""

_STATES: Mapping[TrialEnd, TrialState] = {
    "complete": TrialState.COMPLETE,
    "diverged": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
}
"""Optuna's state of an end; of all others FAIL."""


class _Outlasted(Exception):
    """What was proposed is expected to take longer than the time that is left, or cannot be run."""


class Study:
    """One owner's view of a study that is kept in a store.

    Order of calls: ``ask``; for each assignment ``begin`` (where somebody wants to know), any number of
    ``report`` in the order of its epochs, then one ``tell``. Several assignments may be out at once, and
    their calls come in any order, from any thread.

    ========================================== ========================================================
    ``ask``                                    an Assignment, or None: nothing to begin for the moment
    ``report(n, ...)`` is True                 stop: the study has ended the trial
    ``tell(n, Failure("node lost"))`` is None  the trial waits, and the next ``ask`` gives it out again
    ``tell(n, ...)`` a second time             how the trial ended; nothing changes
    ========================================== ========================================================
    """

    def __init__(
        self,
        plan: SearchPlan,
        store: StudyStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_event: Callable[[SearchEvent], None] | None = None,
        adopt: bool = False,
    ) -> None:
        """Take in what the store holds.

        store: opened, and nobody else's.
        clock: seconds, for time limits and for how long trials took.
        on_event: told every event, within the call that caused it.
        adopt: trials that the last owner left open stay out; otherwise they are discarded, and their
            indices are asked for again.

        UserError when the study is of another space, seed or program.
        """
        self._plan, self._store, self._study = plan, store, store.study
        self._clock, self._on_event = clock, on_event
        self._lock = threading.RLock()
        self.seed = study_seed(store.study, plan.space_text, plan.seed)
        if plan.sizing is not None:
            plan.sizing.limit = min(plan.sizing.limit, self._study.user_attrs.get(MEMORY_LIMIT, math.inf))
        self.slots = 1
        """How many trials run at once; what is kept of a time limit for the time after the search depends on
        it."""
        self._begun = clock()
        self._out: dict[int, OpenTrial] = {}
        self._waiting: dict[int, OpenTrial] = {}
        self._history = History(plan.max_epochs)
        self._proposer = Proposer(plan, store, self.seed)
        self._every = math.ceil(plan.max_epochs / KEPT_EPOCHS)
        self._done_here = 0
        self._reserve, self._reserved_at = 0.0, -math.inf
        self._outlasted = self._timed_out = False
        self._free = self._take_in(adopt=adopt)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, plan: SearchPlan, store: Path | Callable[[], StudyStore], **options: Any
    ) -> Iterator[Study]:
        """The study in a journal's file, or in what opens a store, closed at the end of the block.

        options: those of Study.
        A journal is locked for this owner; UserError when another one has it.
        """
        opened: StudyStore = Journal.open(store, owned=True) if isinstance(store, Path) else store()
        try:
            yield cls(plan, opened, **options)
        finally:
            opened.close()

    # ------------------------------------------------------------------ where it stands

    @property
    def running(self) -> tuple[Assignment, ...]:
        """The trials that are out."""
        with self._lock:
            return tuple(one.assignment() for one in self._out.values())

    @property
    def waiting(self) -> tuple[Assignment, ...]:
        """The trials that the next to ask are given again."""
        with self._lock:
            return tuple(one.assignment() for one in self._waiting.values())

    @property
    def free(self) -> int:
        """How many indices of the budget no trial has."""
        return len(self._free)

    @property
    def remaining(self) -> int:
        """How many trials of the budget have not ended: free, waiting and out."""
        return len(self._free) + len(self._waiting) + len(self._out)

    @property
    def trials(self) -> tuple[FrozenTrial, ...]:
        """The trials that count, by their index."""
        with self._lock:
            return tuple(sorted(filter(counts, self._study.get_trials(deepcopy=False)), key=index_of))

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the least value, of equals the earlier."""
        return best_of(self.trials)

    def assignment(self, number: int) -> Assignment:
        """An open trial, as it was given out. UnknownTrial when there is none of that number."""
        with self._lock:
            return self._of(number).assignment()

    def ended(self, number: int) -> Ended | None:
        """How a trial ended, without what its objective returned; None while it is open or unknown."""
        with self._lock:
            trials = self._study.get_trials(deepcopy=False)
            if not 0 <= number < len(trials) or not trials[number].state.is_finished():
                return None
            trial, end = trials[number], end_of(trials[number])
            reason = trial.user_attrs.get(VOID) or trial.user_attrs.get("reason", "")
            return Ended(
                number,
                trial.user_attrs.get(PLACE, -1),
                end,
                None if end == "discarded" else trial.value,
                reason,
                self._history.best is not None and self._history.best[1] == number,
                origin=trial.user_attrs.get("origin", "search"),
            )

    def progress(self) -> Progress:
        """Where the study stands, for a live view."""
        with self._lock:
            seconds, remaining = self._clock() - self._begun, self.remaining
            left = seconds / self._done_here * remaining if self._done_here else None
            if self._plan.time_limit is not None:
                until = max(0.0, self.seconds_left())
                left = until if left is None else min(left, until)
            best_value, best_number = self._history.best or (None, None)
            return Progress(
                done=self._plan.trials - remaining,
                trials=self._plan.trials,
                running=tuple(
                    RunningTrial(one.trial.number, one.origin, one.epoch, one.best)
                    for one in self._out.values()
                ),
                best_number=best_number,
                best_value=best_value,
                seconds=seconds,
                seconds_left=left,
            )

    def seconds_left(self) -> float:
        """Seconds that trials still have; infinite without a time limit."""
        limit = self._plan.time_limit
        if limit is None:
            return math.inf
        with self._lock:
            now = self._clock()
            if now - self._reserved_at >= limit * RESERVE_SHARE:
                trials = [trial for trial in self._study.get_trials(deepcopy=False) if counts(trial)]
                self._reserve, self._reserved_at = self._plan.reserve(trials, self.slots), now
            return self._begun + limit - self._reserve - now

    def is_closed(self) -> bool:
        """Whether the time is too short for another trial. The first of the budget is begun all the same."""
        left = self.seconds_left()
        self._timed_out = self._timed_out or left <= 0
        return self._timed_out or self._outlasted or left < self._plan.pace.shortest

    def is_open(self, number: int) -> bool:
        """Whether the trial was given out and has not ended."""
        return number in self._out or number in self._waiting

    def check(self, failures: int = FAILURES_TO_STOP) -> None:
        """UserError when this many trials have failed and none has worked."""
        if self._history.successes or self._history.failures < failures:
            return
        with self._lock:
            trials = self._study.get_trials(deepcopy=False)
            ended = [trial for trial in trials if trial.state.is_finished()]
            failed = [trial for trial in ended if end_of(trial) in ("failed", "quarantined")]
        reason = failed[-1].user_attrs.get("reason", "no reason given")
        raise UserError(f"all of the first {self._history.failures} trials failed, the last with {reason}")

    def sync(self) -> None:
        """Wait until what was told is on the disk."""
        with self._lock:
            self._store.sync()

    # ------------------------------------------------------------------ ask

    def ask(self, *, note: Mapping[str, str] | None = None) -> Assignment | None:
        """The next trial: one that was lost on its way, or a new one.

        note: kept with a new trial, in the same write as its configuration.

        None when there is nothing to begin: every index is taken, or the time is too short. UserError when
        the first trials have all failed, and when the space does not fit the trials in the store.
        """
        with self._lock:
            if self._waiting:
                number = next(iter(self._waiting))
                return self._give_out(self._waiting.pop(number))
            while self._free and (self._free[0] == 0 or not self.is_closed()):
                self.check()
                given = self._propose(self._free.pop(0), note or {})
                if given is not None:
                    return given
            return None

    def _give_out(self, one: OpenTrial) -> Assignment:
        if self._plan.sizing is not None:
            one.memory = self._plan.sizing.memory(one.configuration, one.micro_batch)
        self._out[one.trial.number] = one
        return one.assignment()

    def _propose(self, index: int, note: Mapping[str, str]) -> Assignment | None:
        """A new trial for the index; None when it could not be run, and has ended."""
        origins = list(self._plan.enqueue)
        origin = origins[index] if index < len(origins) else "search"
        try:
            trial, configuration, refused = self._ask_possible(index, origin, note)
        except _Outlasted:
            self._outlasted = True
            bisect.insort(self._free, index)
            return None
        except UserError:  # the store cannot write: the index is for the next who asks
            bisect.insort(self._free, index)
            raise
        except ValueError as error:
            raise UserError(
                f"the search space does not fit the journal's trials ({error}): use a new run"
            ) from error
        one = OpenTrial(trial, index, origin, configuration, self._clock(), note)
        if self._plan.sizing is not None:
            one.micro_batch = self._plan.sizing.micro_batch(configuration)
        same = self._history.quarantined(trial.params or configuration)
        given = self._give_out(one) if same is None and refused is None else None
        self._tell_listener(Started(trial.number, index, origin, configuration))
        if refused is not None:
            self._history.failures += 1
            self._end(one, "failed", refused)
        elif same is not None:
            self._quarantine(one, f"the configuration is that of trial {same}, which was quarantined")
        if given is None:
            self.check()
        return given

    def _ask_possible(
        self, index: int, origin: str, note: Mapping[str, str]
    ) -> tuple[optuna.Trial, dict[str, Any], str | None]:
        """A trial that nothing speaks against; what is refused takes no index, unless it was enqueued or
        REFUSALS were.

        Raises _Outlasted when nothing was proposed that can be run and would be complete in the time that is
        left.
        """
        outlasted = False
        for attempt in range(REFUSALS):
            trial, configuration = self._proposer.propose(index, origin, attempt, note)
            refused = self._plan.refuse(configuration)
            needed, left = self._plan.pace.expects(configuration), self.seconds_left()
            if origin != "search" or (refused is None and needed <= left):
                return trial, configuration, refused
            with self._store.together():
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
                    self._study.tell(trial, self._history.infeasible)
        if outlasted:
            raise _Outlasted
        trial, configuration = self._proposer.propose(index, origin, REFUSALS, note)
        return trial, configuration, f"{REFUSALS} proposals in a row could not be trained: {refused}"

    # ------------------------------------------------------------------ report

    def begin(self, number: int, worker: str, device: str = "") -> None:
        """A worker has taken the trial. device: the GPU or the node that it trains on."""
        with self._lock:
            one = self._of(number)
            one.worker, one.device, one.waited = worker, device, self._clock() - one.started

    def report(self, number: int, epoch: int, loss: float, *, attempt: int | None = None) -> bool:
        """Take a loss after this many epochs; whether the trial is to stop, because it has ended.

        A loss that is not finite ends it as diverged. One that is told twice, or was overtaken by a later
        epoch, changes nothing. attempt: the Assignment's, where a trial may be at two workers; then the one
        that lost it is told to stop. UnknownTrial when there never was such a trial.
        """
        with self._lock:
            one = self._out.get(number)
            if one is None or attempt not in (None, one.attempt):
                self._known(number)
                return True
            if not math.isfinite(loss):
                self._end(one, "diverged", f"the loss was {loss} at epoch {epoch}")
                return True
            if loss < one.best:
                one.best, one.best_epoch = loss, epoch
            if (epoch - 1) % self._every == 0:
                one.keep(epoch, loss)
            if epoch <= one.epoch:
                # Told twice, or overtaken by a later one: where the trial stands it cannot say.
                return False
            one.epoch, one.last = epoch, (epoch, loss)
            now = self._clock()
            if now - one.written_at >= SECONDS_BETWEEN_CURVES:
                self._write_curve(one, now)
            self._tell_listener(EpochDone(number, epoch, loss))
            if one.origin == "search" and self._history.median.should_prune(epoch, one.best):
                self._end(one, "pruned", f"worse than the median at epoch {epoch}")
                return True
            return False

    # ------------------------------------------------------------------ tell

    def tell(self, number: int, outcome: TrialOutcome, *, attempt: int | None = None) -> Ended | None:
        """Take a trial's end, once; how it ended, or None when it waits to be asked for again.

        attempt: as in ``report``; TrialTaken when the trial was given to another worker since.
        UnknownTrial when there never was such a trial.
        """
        with self._lock:
            one = self._out.get(number) or self._waiting.get(number)
            if one is None:
                self._known(number)
                return self.ended(number)
            if attempt not in (None, one.attempt):
                raise TrialTaken(f"trial {number} was given to another worker (attempt {one.attempt})")
            if isinstance(outcome, Interruption):
                return self._end(one, "discarded", outcome.reason)
            if isinstance(outcome, Failure):
                return self._fail(one, outcome)
            return self._complete(one, outcome)

    def _complete(self, one: OpenTrial, outcome: Complete) -> Ended:
        if one.last is None and outcome.value is None:
            self._history.failures += 1
            return self._end(one, "failed", "the objective reported no loss")
        result, sizing = outcome.result, self._plan.sizing
        told = result if isinstance(result, Measured) else Measured()
        one.train_losses = [float(f"{loss:.6g}") for loss in told.train_losses]
        if sizing is not None and told.peak_memory is not None:
            one.peak_memory = told.peak_memory
            sizing.used(one.configuration, one.micro_batch, one.peak_memory)
        one.cut = told.cut
        value = outcome.value
        if value is None:
            value = one.best if self._plan.value_of is None else self._plan.value_of(result)
        elif not math.isfinite(value):
            return self._end(one, "diverged", f"the value was {value}")
        return self._end(one, "complete", "", value=value, result=result)

    def _fail(self, one: OpenTrial, failure: Failure) -> Ended | None:
        if failure.cause == "time limit" and one.last is not None:
            return self._end(one, "pruned", failure.error)
        if self._is_worth_another(one, failure.cause):
            one.begin_again()
            del self._out[one.trial.number]
            self._waiting[one.trial.number] = one
            return None
        if failure.cause == "error":
            self._history.failures += 1
            return self._end(one, "failed", failure.error, details=failure.traceback)
        return self._quarantine(one, failure.error)

    def _is_worth_another(self, one: OpenTrial, cause: Cause) -> bool:
        """Did the trial fail by chance, or may it fit when it is made smaller?"""
        if cause == "out of memory" and not self._shrink(one):
            return False
        one.deaths += cause == "worker died"
        again = cause in ("worker died", "node lost", "out of memory")
        return again and one.deaths < DEATHS and one.attempt < ATTEMPTS

    def _shrink(self, one: OpenTrial) -> bool:
        sizing = self._plan.sizing
        smaller = None if sizing is None else sizing.smaller(one.configuration, one.micro_batch)
        if sizing is None or smaller is None:
            return False
        one.micro_batch = smaller
        # In the study, so that a run that goes on later need not learn it again.
        if math.isfinite(sizing.limit):
            self._study.set_user_attr(MEMORY_LIMIT, sizing.limit)
        return True

    def _quarantine(self, one: OpenTrial, reason: str) -> Ended:
        self._history.quarantine(one.trial.params or one.configuration, one.trial.number)
        self._history.failures += 1
        return self._end(one, "quarantined", reason)

    def _end(
        self,
        one: OpenTrial,
        end: TrialEnd,
        reason: str,
        *,
        value: float | None = None,
        result: Any = None,
        details: str = "",
    ) -> Ended:
        """Write a trial's end, and take it into account.

        value: of a complete trial.
        """
        trial = one.trial
        if one.last is not None:
            # The last epoch is what Optuna takes for a pruned trial's value, the best a complete trial's.
            one.keep(*one.last)
            if math.isfinite(one.best):
                one.keep(one.best_epoch, one.best)
        self._write_curve(one, self._clock())
        self._history.see(one.curve)
        if end == "diverged":
            value = self._history.infeasible
        elif end == "pruned" and one.last is not None:
            value = one.last[1]
        state = _STATES.get(end, TrialState.FAIL)
        attributes = one.attributes(end, reason, details, self._clock() - one.started)
        # One write: a crash leaves the trial RUNNING or ended with all that belongs to it.
        with self._store.together():
            for name, attribute in attributes.items():
                trial.set_user_attr(name, attribute)
            if end == "diverged":
                trial.set_constraint("diverged", 1.0)
            self._study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
        # Only now: where nothing could be written, the trial is still open.
        self._out.pop(trial.number, None)
        self._waiting.pop(trial.number, None)
        is_best = False
        if end == "discarded":
            bisect.insort(self._free, one.index)
        else:
            self._done_here += 1
            if end == "complete" and not one.cut:
                seconds = self._clock() - one.started - one.waited
                self._plan.pace.took(one.configuration, one.epoch, seconds)
            is_best = self._history.learn(end, value, trial.number, one.curve)
        ended = Ended(trial.number, one.index, end, value, reason, is_best, result, one.origin)
        self._tell_listener(ended)
        return ended

    def _write_curve(self, one: OpenTrial, now: float) -> None:
        if one.unwritten:
            with self._store.together():
                for epoch, loss in one.unwritten.items():
                    # Not `trial.report`: a second attempt's epoch takes the place of the first's.
                    self._study._storage.set_trial_intermediate_value(one.trial._trial_id, epoch, loss)
        one.unwritten, one.written_at = {}, now

    # ------------------------------------------------------------------ what has been

    def _take_in(self, *, adopt: bool) -> list[int]:
        """Close what a dead owner left, take in what has ended; the indices of the budget that are free."""
        left = adoptable(self._study.get_trials(deepcopy=False)) if adopt else {}
        self._store.close_leftovers(kept=[trial.number for trial in left.values()])
        taken = set()
        for trial in self._study.get_trials(deepcopy=False):
            if not counts(trial):
                continue
            taken.add(index_of(trial))
            self._history.take_in(trial)
        for index, trial in left.items():
            self._adopt(index, trial)
        taken |= set(left)
        return [index for index in range(self._plan.trials) if index not in taken] if self._plan.more else []

    def _adopt(self, index: int, kept: FrozenTrial) -> None:
        """Go on with a trial that the last owner gave out."""
        trial, configuration = self._proposer.repeat(index, kept)
        since = 0.0 if kept.datetime_start is None else time.time() - kept.datetime_start.timestamp()
        one = OpenTrial(
            trial,
            index,
            kept.user_attrs.get("origin", "search"),
            configuration,
            self._clock() - max(0.0, since),
            kept.user_attrs.get(NOTE, {}),
            curve=dict(kept.intermediate_values),
        )
        if self._plan.sizing is not None:
            one.micro_batch = self._plan.sizing.micro_batch(configuration)
        if one.curve:
            one.epoch = max(one.curve)
            one.last = (one.epoch, one.curve[one.epoch])
            one.best_epoch = min(one.curve, key=lambda epoch: (one.curve[epoch], epoch))
            one.best = one.curve[one.best_epoch]
        self._give_out(one)

    def _of(self, number: int) -> OpenTrial:
        one = self._out.get(number) or self._waiting.get(number)
        if one is None:
            raise UnknownTrial(f"no trial {number} is open")
        return one

    def _known(self, number: int) -> None:
        if self.is_open(number):
            return
        if self.ended(number) is None:
            raise UnknownTrial(f"this study has no trial {number}")

    def _tell_listener(self, event: SearchEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
