"""What a study is made with: what to search and how long, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial

from advisor.errors import UserError
from advisor.executors.base import Job
from advisor.search.resources import Pace, Sizing
from advisor.search.sampling.tpe import tpe
from advisor.search.trials import SearchSpace


class StudyStore(Protocol):
    """Where a study is kept; ``advisor.search.storage.journal.Journal`` has the methods in words."""

    study: optuna.Study

    def together(self) -> AbstractContextManager[None]: ...
    def sync(self) -> None: ...
    def close_leftovers(self, kept: Collection[int] = ()) -> list[int]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class SearchPlan:
    """What to search and how long.

    enqueue: origin -> configuration, run first, in this order, and never pruned; one outside the space runs
        too, but the sampler does not learn from it.
    space_text: a fingerprint or text of the space; a journal made with another one is refused.
    seed: None takes the seed that the journal was begun with, or 0.
    trial_time_limit: seconds that one trial may take: then it is pruned, or quarantined when it has reported
        nothing.
    make_payload: (configuration, index) -> the payload of the job; index, not number, so that a resumed run
        repeats it.
    sampler: seed -> the sampler that proposes for one index.
    sizing: what is known of memory; with it, a trial that was out of memory is run again with ``micro_batch``
        (rows at once) in its payload, and a ``Measured`` result teaches it what memory was used. None takes
        the end for the trial's own.
    refuse: why a configuration cannot be run at all, or None: then nothing is run, no index is taken, and
        another is proposed.
    pace: what is known of time; with a time limit, no trial is begun that is expected to outlast it.
    reserve: (trials that count, slots) -> seconds of the time limit that are kept for what comes after the
        search.
    value_of: what the objective returned -> the value of a complete trial, finite; None: the best loss that
        it reported.
    limited: a job that ends itself after this many seconds with the best that it has by then; so the first
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
        default=lambda configuration, index: {"configuration": configuration, "place": index}
    )
    sampler: Callable[[int], optuna.samplers.BaseSampler] = field(default=tpe)
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
