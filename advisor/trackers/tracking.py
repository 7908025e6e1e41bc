"""Trackers beside a run: named by the user, told from one place, never waited for.

Each has a thread of its own, for a server may be slow or gone: the search only puts what happened into its
queue. A tracker that raises is told nothing more, which costs one line of warning and nothing else.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from advisor.errors import UserError, did_you_mean
from advisor.trackers.base import Points, TrackedEnd, TrackedResult, TrackedRun, TrackedTrial, Tracker

if TYPE_CHECKING:
    from advisor.runs.result import RunReport
    from advisor.search.events import Listener, Progress, SearchEvent

FLUSH_SECONDS = 2.0
"""Losses are sent on at most so often: a trial of a thousand short epochs is no thousand requests."""
CLOSING_SECONDS = 60.0
"""So long the end of a run waits for what is still to be sent."""
LONGEST_REASON = 200
"""Characters of an error in a warning."""


@dataclass(frozen=True)
class TrackerKind:
    """A tracker that can be named. package: what it imports, which its extra (of the same name as the
    tracker) installs. make: what stands behind the colon ("" for nothing) -> the tracker."""

    package: str
    make: Callable[[str], Tracker]


def _mlflow(place: str) -> Tracker:
    from advisor.trackers.mlflow_runs import MlflowTracker

    return MlflowTracker(place)


def _tensorboard(place: str) -> Tracker:
    from advisor.trackers.tensorboard_events import TensorboardTracker

    return TensorboardTracker(place)


def _wandb(place: str) -> Tracker:
    from advisor.trackers.wandb_runs import WandbTracker

    return WandbTracker(place)


TRACKERS: Mapping[str, TrackerKind] = {
    "mlflow": TrackerKind("mlflow", _mlflow),
    "tensorboard": TrackerKind("tensorboard", _tensorboard),
    "wandb": TrackerKind("wandb", _wandb),
}


def trackers_of(track: str | Sequence[str] | None) -> dict[str, Tracker]:
    """The trackers that are asked for, by what asks for each: ``mlflow:URI``, ``tensorboard:FOLDER``,
    ``wandb:offline``. UserError for an unknown one, and for one whose package is not installed."""
    found = {}
    for text in [track] if isinstance(track, str) else track or ():
        name, _, place = str(text).partition(":")
        kind = TRACKERS.get(name)
        if kind is None:
            known = ", ".join(TRACKERS)
            raise UserError(f"unknown tracker '{name}'{did_you_mean(name, TRACKERS)}; expected {known}")
        if find_spec(kind.package) is None:
            raise UserError(f"{kind.package} is not installed: pip install 'tuning-advisor[{name}]'")
        found[str(text)] = kind.make(place)
    return found


class _Told(threading.Thread):
    """A tracker and its queue."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        super().__init__(name=f"tracker {name}", daemon=True)
        self.tracker, self.failure = tracker, ""
        self._calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self.start()

    def tell(self, call: Callable[[Tracker], None] | None) -> None:
        """None: that was all."""
        self._calls.put(call)

    def run(self) -> None:
        while (call := self._calls.get()) is not None:
            if self.failure:
                continue
            try:
                call(self.tracker)
            except Exception as error:  # noqa: BLE001  # whatever a tracker raises must not end a search
                self.failure = f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_REASON]


class Tracking:
    """The trackers of a run; without any, all of this does nothing.

    Order of calls: ``begin``, ``listen`` for every event of the search, ``finish`` with what the run came
    to. As a context it ends, as interrupted, what was begun and not finished.
    note: told, in one line each, which tracker failed.
    """

    def __init__(self, trackers: Mapping[str, Tracker], note: Callable[[str], None]) -> None:
        self._trackers, self._note = trackers, note
        self._told: dict[str, _Told] = {}
        self._warned: set[str] = set()
        self._open: set[int] = set()
        self._points: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._told:
            self.finish(None)

    def begin(self, run: TrackedRun) -> Listener:
        """The run begins; what to tell of every event of its search."""
        self._told = {name: _Told(name, tracker) for name, tracker in self._trackers.items()}
        self._tell(lambda tracker: tracker.begin(run))
        return self.listen

    def listen(self, event: SearchEvent, progress: Progress | None = None) -> None:
        """A listener of the search."""
        if not self._told:
            return
        configuration, epoch = getattr(event, "configuration", None), getattr(event, "epoch", None)
        if configuration is not None:
            self._begun(TrackedTrial(event.number, str(getattr(event, "origin", "")), dict(configuration)))
        elif epoch is not None:
            self._losses(event.number, int(epoch), float(getattr(event, "loss", math.nan)))
        else:
            self._ended(event)

    def alone(self, report: RunReport) -> None:
        """The training of the recommendation without a search, told as trial 0."""
        if not self._told:
            return
        final = report.final.contender(report.final.winner)
        self._begun(TrackedTrial(0, final.name, dict(final.configurations[0])))
        for epoch, loss in enumerate(report.curve or (), start=1):
            self._losses(0, epoch, loss)
        self._flush()
        training = tuple(enumerate(report.train_curve or (), start=1))
        end = TrackedEnd(0, "complete", final.held_out_loss, training)
        self._tell(lambda tracker: tracker.ended(end))

    def finish(self, result: TrackedResult | None) -> None:
        """What the run came to; None: it was interrupted. Waits for what is still to be sent."""
        self._flush()
        self._tell(lambda tracker: tracker.finish(result))
        for told in self._told.values():
            told.tell(None)
        until = time.monotonic() + CLOSING_SECONDS
        for name, told in self._told.items():
            told.join(max(0.0, until - time.monotonic()))
            if told.is_alive():
                self._note(f"{name} did not answer within {CLOSING_SECONDS:g} s: it lacks some of this run")
        self._warn()
        self._told = {}

    def _begun(self, trial: TrackedTrial) -> None:
        if trial.number not in self._open:
            self._open.add(trial.number)
            self._tell(lambda tracker: tracker.trial(trial))

    def _losses(self, number: int, epoch: int, loss: float) -> None:
        if math.isfinite(loss):
            self._points[number].append((epoch, loss))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def _ended(self, event: Any) -> None:
        self._flush()
        training = getattr(event.result, "train_losses", ())
        points = [(epoch, float(loss)) for epoch, loss in enumerate(training, start=1) if math.isfinite(loss)]
        value = event.value if event.value is not None and math.isfinite(event.value) else None
        end = TrackedEnd(event.number, event.end, value, points)
        self._tell(lambda tracker: tracker.ended(end))
        self._warn()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        for number, points in self._points.items():
            self._send(number, points)
        self._points.clear()

    def _send(self, number: int, points: Points) -> None:
        self._tell(lambda tracker: tracker.losses(number, points))

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for told in self._told.values():
            told.tell(call)

    def _warn(self) -> None:
        for name, told in self._told.items():
            if told.failure and name not in self._warned:
                self._warned.add(name)
                self._note(f"{name} failed and is told nothing more: {told.failure}")
