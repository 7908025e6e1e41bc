"""What rules and parameters are about, one row for each topic: all that the product knows of it.

A rule or a parameter names its topic; how to add one is in ``docs/architecture.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One topic.

    stage: of a search in stages, from 0: when it varies the parameters; None: only in the last one, which
        varies all of them. The order is that of the work of the notes (N24): first make it learn, then
        regularize and augment, then layers.
    hinders: whether its parameters keep a network from learning rows by heart, so that they are switched off
        to see whether it can.
    rules: whether rules may be about it.
    """

    name: str
    stage: int | None = None
    hinders: bool = False
    rules: bool = True


TOPICS: Mapping[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic("architecture", stage=2),
        Topic("initialization", stage=2),
        Topic("normalization"),
        Topic("activation"),
        Topic("inputs", stage=1),
        Topic("optimization", stage=0),
        Topic("regularization", stage=1, hinders=True),
        Topic("augmentation", stage=1, hinders=True),
        Topic("validation"),
        Topic("imbalance", stage=1, hinders=True),
        Topic("shift"),
        Topic("data_quality"),
        Topic("training_code"),
        Topic("plan", rules=False),
    )
}
RULE_TOPICS: tuple[str, ...] = tuple(name for name, topic in TOPICS.items() if topic.rules)
STAGES: tuple[tuple[str, ...], ...] = tuple(
    tuple(name for name, topic in TOPICS.items() if topic.stage == stage)
    for stage in sorted({topic.stage for topic in TOPICS.values() if topic.stage is not None})
)
"""Topics that each stage looks at, each for an equal share of the trials; the
last share looks at everything."""
