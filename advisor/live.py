"""What a person sees while a search runs: a live line in a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.search import Progress, SearchEvent

FINAL = "final: the best few and the recommendation on fresh splits"


class PlainView:
    """A line per finished trial."""

    def event(self, event: SearchEvent, progress: Progress) -> None:
        end = getattr(event, "end", None)
        if end is None or end == "void":
            return
        value = getattr(event, "value", None)
        shown = "-" if value is None else f"{value:.4g}"
        best = "-" if progress.best_value is None else f"{progress.best_value:.4g} (trial {progress.best_number})"
        reason = f": {event.reason}" if end in ("failed", "set aside") else ""  # type: ignore[union-attr]
        self.line(f"trial {event.number}: {end} {shown}{reason}   {progress.done}/{progress.trials}, best {best}")

    def phase(self, name: str) -> None:
        if name == "final":
            self.line(FINAL)

    def note(self, text: str) -> None:
        self.line(f"note: {text}")

    def line(self, text: str) -> None:
        from advisor.cli import say

        say(text)


class QuietView(PlainView):
    def line(self, text: str) -> None:
        """Nothing is shown."""


class TerminalView(PlainView):
    """A progress bar with the best so far, what is running, and the time left; finished trials scroll by above it."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task = bar.add_task("reading and measuring the data", total=None)

    def event(self, event: SearchEvent, progress: Progress) -> None:
        super().event(event, progress)
        running = ", ".join(f"{t.number} (epoch {t.epoch})" for t in progress.running)
        best = "" if progress.best_value is None else f"best {progress.best_value:.4g}"
        self._bar.update(
            self._task, total=progress.trials, completed=progress.done, description=f"{best}  running {running or '-'}"
        )

    def phase(self, name: str) -> None:
        if name == "final":
            self._bar.update(self._task, total=None, description=FINAL)

    def line(self, text: str) -> None:
        from advisor.cli import printable

        self._bar.console.print(printable(text), markup=False, highlight=False)


@contextmanager
def view(*, quiet: bool) -> Iterator[PlainView]:
    """The view that fits: none, a terminal's, or plain lines."""
    if quiet:
        yield QuietView()
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}", markup=False), *columns, console=Console(stderr=True)) as bar:
            yield TerminalView(bar)
    else:
        yield PlainView()
