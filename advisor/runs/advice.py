"""What a run keeps of advice: the options by which data are read, the facts, the
recommendation and its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.data.options import ReadingOptions
from advisor.documents import DocumentError
from advisor.errors import UserError
from advisor.evaluation.metrics import Costs, Metric, asked_metric
from advisor.facts.schema import FACTS, Facts, damage
from advisor.files import read_text
from advisor.rules import shipped
from advisor.rules.book import Rule
from advisor.rules.provenance import LedgerEntry, ledger, read_fact, with_facts
from advisor.rules.recommendation import Recommendation, replan
from advisor.runs.folder import DataIdentity, RunFolder
from advisor.spaces.aliases import facts_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl

    from advisor.data.signals.signals import SignalSet
    from advisor.data.tables.table import Table
    from advisor.dataset import Dataset
    from advisor.tasks import Task

    Source = str | Path | pl.DataFrame | pd.DataFrame | np.ndarray[Any, Any]
    Target = str | int | pd.Series[Any] | pl.Series | np.ndarray[Any, Any] | list[Any] | None

RECOMMENDATION = "recommendation.yaml"

MEDIAN = 0.5
"""The quantile of a plan whose metric names none."""


@dataclass(frozen=True)
class AdviceOptions(ReadingOptions):
    """How to read the data and which rules to apply: the options that all commands share.

    rules: further folders of rules. without: ids of rules to leave out.
    fixed: parameter -> the value that must stand.
    weights: a file with the trained weights of a network of timm.
    from_run: an earlier run, with whose weights training begins.
    """

    rules: Sequence[str | Path] = ()
    without: Sequence[str] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    cost: Costs | None = None
    weights: str | Path | None = None
    from_run: str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.fixed, Mapping):
            raise UserError(f"fixed is {self.fixed!r}; expected NAME: VALUE pairs")
        for name in ("rules", "without"):
            given = getattr(self, name)
            if not isinstance(given, list | tuple) or not all(
                isinstance(entry, str | Path) for entry in given
            ):
                raise UserError(f"{name} is {given!r}; expected a list of texts")
        for name, what in (("weights", "the name of a file"), ("from_run", "a run folder")):
            if not isinstance(getattr(self, name), str | Path | None):
                raise UserError(f"{name} is {getattr(self, name)!r}; expected {what}")
        asked_metric(self.metric, self.cost)

    @property
    def judged_by(self) -> Metric | None:
        """The user's metric; None: the loss."""
        return asked_metric(self.metric, self.cost)

    def to_dict(self) -> dict[str, Any]:
        """What a recommendation keeps to read the same data again."""
        return {
            "test": absolute(self.test),
            "types": dict(self.types),
            "kind": self.kind,
            "task": self.task,
            "id_column": self.id_column,
            "time_column": self.time_column,
            "group_column": self.group_column,
            "weight_column": self.weight_column,
            "channels": self.channels,
            "test_fraction": self.test_fraction,
            "seed": self.seed,
            "join_spellings": self.join_spellings,
            "encoding": self.encoding,
            "sheet": self.sheet,
            "ignore": self.ignore,
            "metric": self.metric,
            "cost": self.cost,
            "weights": absolute(self.weights),
            "from_run": absolute(self.from_run),
            "rules": [str(Path(folder).resolve()) for folder in self.rules],
            "without": list(self.without),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdviceOptions:
        known = {
            **cls().to_dict(),
            "join_spellings": False,
        }  # runs of before there was the option joined none
        return cls(**{name: data.get(name, default) for name, default in known.items()})


@dataclass(frozen=True)
class Advice:
    """A data set with what was measured of it and what is recommended for it."""

    data: Table | SignalSet
    facts: Facts
    recommendation: Recommendation
    reading: AdviceOptions
    rules: tuple[Rule, ...]

    def ledger(self) -> dict[str, LedgerEntry]:
        """The complete because of every parameter."""
        base = shipped.base_space(self.recommendation.kind)
        return ledger(self.recommendation, self.facts.values, self.rules, base)

    @property
    def task(self) -> Task:
        """What is learnt, judged by the loss that the plan trains on. UserError where the user's loss fits no
        such target."""
        from advisor.tasks import task_of  # which loads NumPy: a finished run is asked without

        own, recommendation = task_of(self.data.schema.task), self.recommendation
        plan = recommendation.configuration
        metric = self.reading.judged_by
        found = own.with_loss(str(plan["loss"]), (metric.quantile if metric else None) or MEDIAN)
        if found is None and recommendation.provenance["loss"].yours:
            raise UserError(f"loss {plan['loss']} does not fit a {own} target: leave it at {own.loss}")
        return found or own

    def training_rows(self) -> Dataset:
        """The training rows with that task."""
        return replace(self.data.dataset("train"), task=self.task)

    @property
    def identity(self) -> DataIdentity:
        data = self.data
        return DataIdentity(data.name, data.source, data.fingerprint, data.schema.target)


@dataclass(frozen=True)
class Kept:
    """What a run says without its data: what is recommended and why.
    rules: the book that it was made with, as it is now."""

    run: RunFolder
    file: Path
    facts: Facts
    recommendation: Recommendation
    reading: AdviceOptions
    rules: tuple[Rule, ...]

    def ledger(self, parameter: str | None = None) -> dict[str, LedgerEntry]:
        """The complete because of every parameter, or of one alone."""
        base = shipped.base_space(self.recommendation.kind)
        return ledger(self.recommendation, self.facts.values, self.rules, base, parameter)


def read_run(path: Path) -> Kept:
    """The advice of a run (its folder or its recommendation.yaml), with the rest
    planned again around a user's edits."""
    file = path / RECOMMENDATION if path.is_dir() else path
    if path.is_dir():
        RunFolder.open(path)  # a folder that is no run is better said so than by the file that it lacks
    recommendation = Recommendation.from_yaml(read_text(file), shipped.base_space, str(file))
    if not RunFolder(file.parent).facts.is_file():
        raise UserError(
            f"{file} is not in its run folder: move it next to its facts.json, and run the command again"
        )
    run = RunFolder.open(file.parent)
    for name in ("source", "target", "fingerprint", "test"):
        if not isinstance(recommendation.data.get(name), str | None):
            raise UserError(f"{file}: data.{name} must be text, not {recommendation.data[name]!r}")
    for name in ("name", "target", "seed"):
        if recommendation.data.get(name) is None:
            raise UserError(f"{file}: data.{name} is missing; recommend again")
    try:
        reading = AdviceOptions.from_dict(recommendation.data)
    except UserError as error:
        raise UserError(f"{file}: data.{error}") from None
    rules, facts = shipped.rule_book(reading.rules, reading.without, recommendation.kind), read_facts(run)
    if recommendation.edited:
        recommendation = replan(recommendation, facts.values, rules, shipped.base_space(recommendation.kind))
    return Kept(run, file, facts, recommendation, reading, rules)


def imagine(kept: Kept, changes: Mapping[str, str]) -> tuple[Recommendation, dict[str, Any]]:
    """The recommendation of a run if some facts were others, and the facts that moved along with them.

    changes: fact -> its value as a user writes it. Raises UserError for an
        unknown fact or an impossible value.
    """
    wanted = {name: read_fact(name, text, FACTS) for name, text in changes.items()}
    facts, along = with_facts(kept.facts.values, wanted)
    return replan(kept.recommendation, facts, kept.rules, shipped.base_space(kept.recommendation.kind)), along


def check_fingerprint(kept: Kept, data: Table | SignalSet) -> None:
    """UserError unless the data are those that the recommendation was made for."""
    if data.fingerprint != kept.recommendation.data.get("fingerprint"):
        raise UserError(
            f"{kept.file} was made for different data than {data.source} now holds: run `advisor recommend` "
            "again with --out"
        )


_LATER_FACTS: Mapping[str, Any] = {
    "has_metric": False,
    "has_earlier_run": False,
    "has_backbone": False,
    "calendar.cycles": 0,
    "calendar.hours": 0,
    "calendar.crosses": 0,
    "calendar.found": [],
}
"""What was not measured before it could be used: a run of that time used none."""


def read_facts(run: RunFolder) -> Facts:
    """The facts of a run; UserError when they are not what we wrote."""
    try:
        document = run.read_facts()
        document |= {part: facts_of(document[part]) for part in ("values", "sampled")}
        for name, value in _LATER_FACTS.items():
            document["values"].setdefault(name, value)
        facts = Facts.from_dict(document)
        wrong = damage(facts)
    except DocumentError as error:
        wrong = str(error)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{run.facts} is damaged: values, sampled or columns are missing; recommend again"
        ) from None
    if wrong:
        raise UserError(f"{run.facts} is damaged: {wrong}; recommend again")
    return facts


def absolute(source: Any) -> str | None:
    if source is None:
        return None
    if not isinstance(source, str | Path):
        return None  # a frame can't be found again; the user gives it again
    return str(Path(source).resolve()) if Path(source).exists() else str(source)
