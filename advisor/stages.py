"""A search in stages, in the order of work of the notes (N24): first make it learn, then regularize and augment, then layers.

A space like another one for the search: what a stage does not look at keeps the values of the best trial so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState

from advisor.journal import counts
from advisor.spaces import Space

STAGES: tuple[tuple[str, ...], ...] = (
    ("optimization",),
    ("regularization", "augmentation", "inputs", "imbalance"),
    ("architecture", "initialization"),
)
"""Topics that each stage looks at, each for an equal share of the trials; the last share looks at everything."""
CONFIGURATION = "configuration"
"""Trial attribute: the whole configuration, of which the parameters are only what the stage asked for."""


@dataclass(frozen=True)
class StagedSpace:
    """``space`` searched in stages over ``trials`` places, of which the first ``enqueued`` are given."""

    space: Space
    trials: int
    enqueued: int

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The configuration of an Optuna trial that belongs to a study; the stage follows from the trials that have ended."""
        trials = trial.study.get_trials(deepcopy=False)
        topics = self.topics(sum(map(counts, trials)))
        if topics is None:
            return self.space.suggest(trial)
        names = {name for name in self.space.searched if self.space[name].topic in topics}
        if not names:  # nothing of these topics is searched here: better look at everything than at nothing
            return self.space.suggest(trial)
        configuration = self.space.suggest_some(trial, names, self._best(trials))
        trial.set_user_attr(CONFIGURATION, configuration)
        return configuration

    def topics(self, ended: int) -> tuple[str, ...] | None:
        """What a trial may change after so many have ended; None: everything."""
        if ended < self.enqueued:
            return None
        stage = (ended - self.enqueued) * (len(STAGES) + 1) // max(1, self.trials - self.enqueued)
        return STAGES[stage] if stage < len(STAGES) else None

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """As the space itself does."""
        return self.space.encode(configuration)

    def _best(self, trials: list[FrozenTrial]) -> Mapping[str, Any]:
        done = [t for t in trials if counts(t) and t.state == TrialState.COMPLETE and t.value is not None]
        feasible = [t for t in done if not t.user_attrs.get("diverged")]
        if not feasible:
            return {}
        best = min(feasible, key=lambda t: (t.value, t.number))
        kept = best.user_attrs.get(CONFIGURATION)
        return dict(kept) if kept else self.space.suggest(FixedTrial(best.params))
