"""The advised space as a search sees it: moved by what the curves say, and, when asked, looked at in stages.

The topics of each stage are in ``spaces/topics.py``. What a stage does not look at keeps the values of the
best trial so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from optuna.trial import FrozenTrial

from advisor.search.adaptation import ADJUSTED, WINDOW, Adjustment, adjusted
from advisor.search.storage.journal import counts
from advisor.search.trials import CONFIGURATION, best_of, configuration_of
from advisor.spaces.space import Space
from advisor.spaces.topics import STAGES


@dataclass(frozen=True)
class StudySpace:
    """``space`` searched over ``trials`` places, of which the first ``enqueued`` are given.

    staged: in stages.
    adapt: with ranges that the curves of the trials before move.
    own: parameters that stay as they are.
    """

    space: Space
    trials: int
    enqueued: int
    staged: bool = False
    adapt: bool = True
    own: frozenset[str] = frozenset()

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The configuration of an Optuna trial that belongs to a study; it
        follows from the trials that have ended."""
        if trial.user_attrs.get("origin", "search") != "search":
            return self.space.suggest(trial)  # what was enqueued is given
        trials = trial.study.get_trials(deepcopy=False)

        def find_best() -> FrozenTrial | None:
            return best_of(filter(counts, trials))

        space, adjustments = self.space, list[Adjustment]()
        if self.adapt:
            latest = list(islice(filter(counts, reversed(trials)), WINDOW))
            space, adjustments = adjusted(self.space, latest, self.own, find_best)
        topics = self.topics(sum(map(counts, trials))) if self.staged else None
        names = {name for name in space.searched if topics and space[name].topic in topics}
        if names:
            best = find_best()
            configuration = space.suggest_some(
                trial, names, {} if best is None else configuration_of(best, self.space)
            )
        else:  # all topics, or none of these is searched here: better look at everything than at nothing
            configuration = space.suggest(trial)
        if adjustments:
            trial.set_user_attr(ADJUSTED, [asdict(adjustment) for adjustment in adjustments])
        if adjustments or names:
            trial.set_user_attr(CONFIGURATION, configuration)
        return configuration

    def topics(self, ended: int) -> tuple[str, ...] | None:
        """What a trial may change after this many have ended; None: everything."""
        if ended < self.enqueued:
            return None
        stage = (ended - self.enqueued) * (len(STAGES) + 1) // max(1, self.trials - self.enqueued)
        return STAGES[stage] if stage < len(STAGES) else None

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """As the space itself does."""
        return self.space.encode(configuration)
