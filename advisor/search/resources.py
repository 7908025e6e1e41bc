"""What a trial takes of memory and of time: predicted from its configuration, in the proportion that was
seen.

Of memory: how many rows it trains at once, so that it fits. A batch that is too large for the memory is
trained in micro-batches whose gradients are added up: the same effective batch, in less memory and more time.
Knows numbers, not networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Sizing:
    """One search's knowledge of memory.

    batch_size: of a configuration, in rows.
    predict: (configuration, rows at once) -> bytes; it must grow with the rows, and be comparable between
        configurations; 0 where nothing is known, and then no limit is learned.
    limit: the smallest prediction that did not fit; infinite until one has not.
    ratio: the largest use seen over its prediction; 1 until a use was seen.
    """

    batch_size: Callable[[Mapping[str, Any]], int]
    predict: Callable[[Mapping[str, Any], int], float]
    limit: float = math.inf
    ratio: float = 1.0
    _seen: bool = False

    def micro_batch(self, configuration: Mapping[str, Any]) -> int | None:
        """Rows at once that are expected to fit, by halving; None when the whole batch is."""
        whole = rows = max(1, self.batch_size(configuration))
        while rows > 1 and self.predict(configuration, rows) >= self.limit:
            rows = -(-rows // 2)
        return None if rows == whole else rows

    def smaller(self, configuration: Mapping[str, Any], micro_batch: int | None) -> int | None:
        """Learn that this many rows at once did not fit; how many to try next, or
        None when it was a single row."""
        rows = micro_batch or max(1, self.batch_size(configuration))
        predicted = self.predict(configuration, rows)
        if predicted > 0:
            self.limit = min(self.limit, predicted)
        if rows == 1:
            return None
        return min(self.micro_batch(configuration) or rows, -(-rows // 2))

    def memory(self, configuration: Mapping[str, Any], micro_batch: int | None) -> float:
        """Bytes that a trial is expected to use: the prediction, in the proportion that was seen."""
        rows = micro_batch or max(1, self.batch_size(configuration))
        return self.ratio * self.predict(configuration, rows)

    def used(self, configuration: Mapping[str, Any], micro_batch: int | None, peak: float) -> None:
        """Learn from the bytes that a trial used at most. The largest ratio
        counts: a guess too low costs a trial."""
        rows = micro_batch or max(1, self.batch_size(configuration))
        predicted = self.predict(configuration, rows)
        if peak > 0 and predicted > 0:
            self.ratio = max(self.ratio, peak / predicted) if self._seen else peak / predicted
            self._seen = True


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
        """Learn from a trial that was complete after this many epochs."""
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
