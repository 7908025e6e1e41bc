"""Which rules fire on which data sets, and which parameters no rule ever touches:
is the rule book fit for real tables?

Reads and judges, trains nothing. The target of a test table is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.data.modalities import kind_of
from advisor.errors import UserError
from advisor.kinds import Kind, TaskName
from advisor.rules import shipped
from advisor.rules.book import Rule, judge_rule, own_facts
from advisor.runs.advice import Advice, AdviceOptions
from advisor.spaces import strict_yaml
from advisor.workflows.modalities import MODALITY_OF
from advisor.workflows.recommend import get_advice

ENOUGH_SETS = 5
"""A rule that fires on all of fewer sets may do so by chance; from here on it must say why it does."""
TABLES = (".csv", ".parquet")
IN_FOLDER = ("train.csv", "data.npz", "*_TRAIN.ts", "train")
"""What a data set's folder holds beside meta.yaml: a table, arrays, series, or a
folder for each class of images."""


@dataclass(frozen=True)
class DataSet:
    """A data set to be judged.
    task: None when it is to be inferred from the target;
    target: None where files say it."""

    name: str
    train: Path
    target: str | None
    test: Path | None = None
    task: TaskName | None = None


@dataclass(frozen=True)
class Covered:
    """What the rule book says about one data set: ids of rules, names of parameters,
    and what is wrong with the advice."""

    name: str
    kind: Kind
    fired: tuple[str, ...]
    unjudged: tuple[str, ...]
    touched: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """A rule book over some data sets.
    failed: one line for each set that could not be read."""

    rules: tuple[Rule, ...]
    sets: tuple[Covered, ...]
    failed: tuple[str, ...]
    parameters: tuple[str, ...]

    def fired_on(self, rule: Rule) -> tuple[str, ...]:
        """The names of the sets on which a rule fires."""
        return tuple(one.name for one in self.sets if rule.id in one.fired)

    def unjudged_on(self, rule: Rule) -> tuple[str, ...]:
        """The names of the sets on which a rule could not be judged."""
        return tuple(one.name for one in self.sets if rule.id in one.unjudged)

    @property
    def never(self) -> tuple[str, ...]:
        """The rules that fire on no set."""
        return tuple(rule.id for rule in self.rules if not self.fired_on(rule))

    @property
    def unexplained(self) -> tuple[str, ...]:
        """The rules that fire on all of enough sets and do not say why: what
        always holds is no advice for a case."""
        return tuple(
            r.id
            for r in self.rules
            if self._always(r) and len(self._met(r)) >= ENOUGH_SETS and not r.universal
        )

    def _met(self, rule: Rule) -> list[Covered]:
        """The sets of a kind that the rule is for."""
        return [one for one in self.sets if one.kind in rule.applies_to]

    def _always(self, rule: Rule) -> bool:
        return len(self.fired_on(rule)) == len(self._met(rule)) > 0

    @property
    def untouched(self) -> tuple[str, ...]:
        """The parameters that no rule of the book can touch, whatever the table."""
        known = {effect.parameter for rule in self.rules for effect in rule.effects}
        return tuple(name for name in self.parameters if name not in known)

    @property
    def untouched_here(self) -> tuple[str, ...]:
        """The parameters that some rule could touch, but none did on these sets."""
        touched = {name for one in self.sets for name in one.touched} | {*self.untouched}
        return tuple(name for name in self.parameters if name not in touched)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the recommendations themselves: never anything, unless we have a bug."""
        return tuple(f"{one.name}: {problem}" for one in self.sets for problem in one.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON-able)."""
        return {
            "sets": [one.name for one in self.sets],
            "failed": list(self.failed),
            "rules": [
                {
                    "id": rule.id,
                    "topic": rule.topic,
                    "universal": rule.universal,
                    "fires": list(self.fired_on(rule)),
                    "not_judged": list(self.unjudged_on(rule)),
                }
                for rule in self.rules
            ],
            "never": list(self.never),
            "unexplained": list(self.unexplained),
            "untouched": list(self.untouched),
            "untouched_here": list(self.untouched_here),
            "problems": list(self.problems),
        }

    def to_text(self) -> str:
        """A table of rules, those that fire most first, and the lists of what needs a look."""
        width = max((len(rule.id) for rule in self.rules), default=4)
        lines = [f"{'rule':{width}}  {'fires':>5}  {'not judged':>10}  remark"]
        for rule in sorted(self.rules, key=lambda rule: (-len(self.fired_on(rule)), rule.id)):
            count, unjudged = len(self.fired_on(rule)), len(self.unjudged_on(rule))
            remark = "" if count else "never"
            if self._always(rule) and rule.universal:
                remark = f"everywhere: {rule.universal}"
            elif rule.id in self.unexplained:
                remark = "everywhere, and does not say why: add `universal` or a condition"
            lines.append(f"{rule.id:{width}}  {count:5}  {unjudged:10}  {remark}".rstrip())
        lists = (
            ("rules that never fire", self.never),
            ("rules that fire everywhere and do not say why", self.unexplained),
            ("parameters that no rule touches", self.untouched),
            ("parameters that no rule touches on these sets", self.untouched_here),
            ("problems of recommendations", self.problems),
        )
        fired = len(self.rules) - len(self.never)
        lines += ["", f"{fired} of {len(self.rules)} rules fire on some of {len(self.sets)} data sets"]
        return "\n".join([*lines, *(f"{what}: {', '.join(names) or 'none'}" for what, names in lists)])


def cover(
    paths: Sequence[Path | str], target: str | None = None, rules: Sequence[Path | str] = ()
) -> Coverage:
    """Judge the rule book on data sets: files (with `target`), data set folders, or folders of such folders.

    rules: further folders of rules. UserError for a wrong rule, or when no set at all can be read.
    """
    book = shipped.rule_book(rules, kind=None)
    sets: list[Covered] = []
    failed: list[str] = []
    for path in map(Path, paths):
        try:
            places = list(_places(path))
        except OSError as error:
            failed.append(f"{path}: {error.strerror}")
            continue
        except UserError as error:
            failed.append(str(error))
            continue
        for place in places:
            try:
                one = _data_set(place, target)
                reading = AdviceOptions(test=one.test, task=one.task, rules=list(rules))
                sets.append(_covered(one.name, get_advice(one.train, one.target, reading)))
            except UserError as error:
                failed.append(str(error) if str(place) in str(error) else f"{place}: {error}")
    if not sets:
        raise UserError(f"no data set could be read: {failed[0] if failed else 'none was named'}")
    kinds = {one.kind for one in sets}
    names = dict.fromkeys(name for kind in kinds for name in shipped.base_space(kind).parameters)
    return Coverage(
        tuple(r for r in book if kinds & {*r.applies_to}), tuple(sets), tuple(failed), tuple(sorted(names))
    )


def _places(path: Path) -> Iterator[Path]:
    """The data sets below a path: itself, or the folders in it that hold a train.csv."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file() or _inside(path) is not None:
        yield path
        return
    inside = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and _inside(folder) is not None]
    if not inside:
        raise UserError(f"{path}: no data set here (a folder with train.csv and meta.yaml)")
    yield from inside


def _inside(folder: Path) -> Path | None:
    """The data in a data set's folder."""
    found = (next(iter(sorted(folder.glob(name))), None) for name in IN_FOLDER)
    return next((path for path in found if path is not None), None)


def _data_set(place: Path, target: str | None) -> DataSet:
    if place.is_file():
        if MODALITY_OF[kind_of(place)].names_target:
            if place.suffix.lower() not in TABLES:
                raise UserError(f"{place}: not a table ({', '.join(TABLES)})")
            if target is None:
                raise UserError(f"{place}: name its target with --target")
        return DataSet(place.stem, place, target)
    data = _inside(place)
    assert data is not None
    if data.suffix != ".csv":
        return DataSet(place.resolve().name, place if data.is_dir() else data, target)
    meta = _meta(place / "meta.yaml", needed=target is None)
    wanted = target if target is not None else meta.get("target")
    if not isinstance(wanted, str):
        raise UserError(f"{place / 'meta.yaml'}: target: must be the name of a column")
    test = place / "test.csv"
    return DataSet(
        place.resolve().name, place / "train.csv", wanted, test if test.exists() else None, meta.get("task")
    )


def _meta(file: Path, *, needed: bool) -> dict[str, Any]:
    """What stands beside a table: target, and task when it is given."""
    if not file.exists() and not needed:
        return {}
    document = strict_yaml.read_yaml(file)
    if not isinstance(document.data, dict):
        raise document.error((), "must be a mapping with 'target'")
    return document.data


def _covered(name: str, advice: Advice) -> Covered:
    """Which rules spoke, and whether what they said together is a recommendation that stands."""
    recommendation = advice.recommendation
    base = shipped.base_space(recommendation.kind)
    facts = {**advice.facts.values, **own_facts({}, base)}
    verdicts = {rule.id: judge_rule(rule, facts, base) for rule in advice.rules}
    # what was found at first may have changed how the table is read, and with it the facts
    found = {finding.rule for finding in recommendation.findings}
    problems = []
    try:
        recommendation.space.validate(recommendation.configuration)
    except UserError as error:
        problems.append(str(error))
    for parameter in base.parameters:
        origin = recommendation.provenance.get(parameter)
        if origin is None or not origin.because.strip():
            problems.append(f"{parameter} has no because")
    return Covered(
        name,
        recommendation.kind,
        tuple(id for id, verdict in verdicts.items() if verdict.fires or id in found),
        tuple(id for id, verdict in verdicts.items() if verdict.fires is None and id not in found),
        tuple(sorted({claim.parameter for verdict in verdicts.values() for claim in verdict.claims})),
        tuple(problems),
    )
