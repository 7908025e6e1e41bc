"""Finds and loads what ships with the product: the rules and the search spaces."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from advisor.facts.module_schema import MODULE_FACTS
from advisor.facts.schema import FACTS
from advisor.kinds import KINDS, MANY, Kind
from advisor.rules.book import (
    NO_PARAMETERS,
    NOT_DECIDING,
    NOT_FIRING,
    Checked,
    ExampleResult,
    Rule,
    check_rules,
    load_profile,
    load_rules,
    run_examples,
)
from advisor.rules.rule import MODULE, Subject
from advisor.spaces.space import Space, load_space

PROFILES: Mapping[Subject, str] = {"table": "typical"}
"""The typical data set of a kind, by its name in profiles.yaml where that is not typical_KIND."""


def folder(name: str) -> Path:
    """The folder ``rules`` or ``search_spaces``: inside the package in a wheel, beside it in a checkout."""
    installed = Path(str(files("advisor"))) / f"shipped_{name}"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / name


@functools.cache  # what ships does not change while a process runs
def base_space(kind: Kind = "table") -> Space:
    """The base search space for one kind of data, before any rule."""
    spaces = folder("search_spaces")
    return load_space(spaces / f"{MANY[kind]}.yaml", spaces / "training.yaml")


def base_spaces() -> dict[Kind, Space]:
    """The base search spaces of all kinds of data."""
    return {kind: base_space(kind) for kind in KINDS}


def rule_book(
    extra: Sequence[Path | str] = (), without: Sequence[str] = (), kind: Subject | None = "table"
) -> tuple[Rule, ...]:
    """The shipped rules and those of a user's own folders, less the ids in
    `without`; UserError when one is wrong.

    kind: of the data that they are for, or "module"; None gives all of them.
    """
    if not extra:
        return _shipped_rules(tuple(without), kind)
    return read_rules([folder("rules"), *extra], without, kind)


def read_rules(
    sources: Sequence[Path | str], without: Sequence[str] = (), kind: Subject | None = None
) -> tuple[Rule, ...]:
    """``load_rules`` with the facts and parameters that the product knows."""
    return load_rules(sources, FACTS, base_spaces(), without=without, kind=kind, of_modules=MODULE_FACTS)


def run_all_examples(paths: Sequence[Path | str] = ()) -> tuple[tuple[Rule, ...], tuple[ExampleResult, ...]]:
    """The rules in some folders or files (the shipped ones where there are none), and their examples, run."""
    book = read_rules(paths or [folder("rules")])
    results: list[ExampleResult] = []
    spaces: list[tuple[Subject, Space]] = [*base_spaces().items(), (MODULE, NO_PARAMETERS)]
    for kind, space in spaces:
        results += run_examples([r for r in book if kind in r.applies_to], space, typical_facts(kind))
    return book, tuple(results)


@functools.cache
def _shipped_rules(without: tuple[str, ...], kind: Subject | None) -> tuple[Rule, ...]:
    return read_rules([folder("rules")], without, kind)


def check_rule_folders(sources: Sequence[Path | str]) -> Checked:
    """Check rules against the facts and parameters; of the shipped ones, which are
    looked at only when they are among the sources, more is asked.

    Each of these shows both sides: an example in which it decides, and one in which it does not fire or,
    where it always fires, the user's own values decide.
    """
    checked = check_rules(sources, FACTS, base_spaces(), MODULE_FACTS)
    own = folder("rules").resolve()
    one_sided = tuple(
        f"{rule.file}:{rule.line}: examples: none in which the rule does not decide: give one, "
        f"'expect: {NOT_FIRING}' or, with the parameters under yours, 'expect: {NOT_DECIDING}'"
        for rule in checked.rules
        if Path(rule.file).resolve().parent == own
        and not any(example.expect in (NOT_FIRING, NOT_DECIDING) for example in rule.examples)
    )
    return replace(checked, complaints=(*checked.complaints, *one_sided))


def typical_facts(kind: Subject = "table") -> dict[str, Any]:
    """The facts of the typical data set (or training) that the rules' examples start from; what its profile
    does not give is None."""
    schema = MODULE_FACTS if kind == MODULE else FACTS
    profile = PROFILES.get(kind, f"typical_{kind}")
    return {**dict.fromkeys(schema), **load_profile(folder("rules") / "profiles.yaml", schema, profile)}
