"""How long a trial takes: predicted from its configuration, in the proportion that
was seen. As ``sizing`` for memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Pace:
    """One search's knowledge of time.

    work: of a configuration, what an epoch takes; comparable between
        configurations, and 0 where nothing is known.
    shortest: seconds of the fastest complete trial; 0 until one was seen.
    """

    work: Callable[[Mapping[str, Any]], float] = lambda configuration: 0.0
    shortest: float = 0.0
    _seconds_per_work: list[float] = field(default_factory=list)
    _epochs: list[int] = field(default_factory=list)

    def took(self, configuration: Mapping[str, Any], epochs: int, seconds: float) -> None:
        """Learn from a trial that was complete after so many epochs."""
        self.shortest = min(self.shortest or seconds, seconds)
        if epochs and (work := self.work(configuration)) > 0:
            self._seconds_per_work.append(seconds / (epochs * work))
            self._epochs.append(epochs)

    def expects(self, configuration: Mapping[str, Any]) -> float:
        """Seconds until the trial is complete: the medians of what was seen, of time and of epochs.

        Without a prediction as long as the fastest took, and 0 before any was complete.
        """
        work = self.work(configuration)
        if not (work and self._epochs):
            return self.shortest
        return median(self._seconds_per_work) * median(self._epochs) * work
