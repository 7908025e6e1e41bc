"""What a user sees while a search runs: a bar in a terminal or a notebook, plain
lines elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from advisor.console import printable, say

if TYPE_CHECKING:
    from advisor.search.events import Progress, SearchEvent

READING = "reading and measuring the data"
PHASES = {
    "train": "training: the recommendation alone",
    "final": "final: the recommendation and the best trials, again on fresh splits",
}
"""What is said when one begins; before its colon, what stands beside a bar."""


class PlainView:
    """A line per finished trial.

    Order of calls: ``phase("search")`` when the data are read, ``event`` for each event of the search,
    ``phase("final")``, ``final`` after each of its trainings; without a search ``phase("train")``,
    ``epoch`` after each; ``note`` at any time.
    """

    loss = "loss"
    """What the trials are judged by, set when it is known."""

    def event(self, event: SearchEvent, progress: Progress) -> None:
        end = getattr(event, "end", None)
        if end is None or end == "discarded":
            return
        value, origin = getattr(event, "value", None), getattr(event, "origin", "search")
        named = f"trial {event.number}" + (f" ({origin})" if origin != "search" else "")
        reached = "" if value is None else f", {self.loss} {value:.4g}"
        best = (
            "none yet"
            if progress.best_value is None
            else f"{progress.best_value:.4g} (trial {progress.best_number})"
        )
        reason = f": {event.reason}" if end in ("failed", "quarantined") else ""  # type: ignore[union-attr]
        self.line(f"{named}: {end}{reached}{reason}; {progress.done} of {progress.trials} done, best {best}")

    def phase(self, name: str) -> None:
        if name in PHASES:
            self.line(PHASES[name])

    def epoch(self, done: int, epochs: int, loss: float) -> None:
        """``done`` of at most ``epochs`` epochs have been trained.
        loss: of the last, on the validating rows."""

    def final(self, done: int, trainings: int) -> None:
        """``done`` of the final's ``trainings`` have ended."""

    def note(self, text: str) -> None:
        self.line(f"note: {text}")

    def line(self, text: str) -> None:
        say(text)


class QuietView(PlainView):
    def line(self, text: str) -> None:
        """Nothing is shown."""


class BarView(PlainView):
    """A progress bar with the best so far, what is running, and the time left;
    finished trials scroll by above it."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task = bar.add_task(READING, total=None)

    def event(self, event: SearchEvent, progress: Progress) -> None:
        super().event(event, progress)
        running = ", ".join(f"{t.number} (epoch {t.epoch})" for t in progress.running)
        best = "" if progress.best_value is None else f"best {self.loss} {progress.best_value:.4g}"
        self._bar.update(
            self._task,
            total=progress.trials,
            completed=progress.done,
            description=f"{best}  running {running or '-'}",
        )

    def phase(self, name: str) -> None:
        super().phase(name)
        if name in PHASES:
            # a new task: one whose total is known cannot become one that pulses
            self._bar.remove_task(self._task)
            self._task = self._bar.add_task(PHASES[name].partition(":")[0], total=None)

    def epoch(self, done: int, epochs: int, loss: float) -> None:
        self._bar.update(
            self._task, total=epochs, completed=done, description=f"training, {self.loss} {loss:.4g}"
        )

    def final(self, done: int, trainings: int) -> None:
        self._bar.update(self._task, total=trainings, completed=done)

    def line(self, text: str) -> None:
        self._bar.console.print(printable(text), markup=False, highlight=False)


@contextmanager
def view(*, quiet: bool) -> Iterator[PlainView]:
    """The view that fits: none, a bar in a terminal or a notebook, or plain lines."""
    if quiet:
        yield QuietView()
    elif sys.stderr.isatty() or _in_notebook():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(
            TextColumn("{task.description}", markup=False), *columns, console=Console(stderr=True)
        ) as bar:
            yield BarView(bar)
    else:
        yield PlainView()


def _in_notebook() -> bool:
    """Whether this is a notebook that can show a bar (rich draws it with ipywidgets)."""
    return "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
