"""How many rows a trial trains at once, so that it fits: predicted, then learned
from what did not fit and what was used.

A batch that is too large for the memory is trained in micro-batches whose gradients are added up: the same
effective batch, in less memory and more time. Knows numbers, not networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
        """Learn that so many rows at once did not fit; how many to try next, or
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
