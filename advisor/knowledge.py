"""Finds and loads what ships with the product: the rules and the search spaces."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from advisor.facts import FACTS
from advisor.rules import Checked, Rule, check_rules, load_profile, load_rules
from advisor.spaces import Space, load_space


def folder(name: str) -> Path:
    """The folder ``rules`` or ``search_spaces``: inside the package in a wheel, beside it in a checkout."""
    installed = Path(str(files("advisor"))) / f"shipped_{name}"
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / name


@functools.cache  # what ships does not change while a process runs
def base_space() -> Space:
    """The base search space for tables, before any rule."""
    return load_space(folder("search_spaces") / "tables.yaml")


def rules(extra: Sequence[Path | str] = (), without: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The shipped rules and those of a person's own folders, less the ids in `without`; UserError when one is wrong."""
    if not extra:
        return _shipped_rules(tuple(without))
    return load_rules([folder("rules"), *extra], FACTS, base_space(), without=without)


@functools.cache
def _shipped_rules(without: tuple[str, ...]) -> tuple[Rule, ...]:
    return load_rules([folder("rules")], FACTS, base_space(), without=without)


def check(sources: Sequence[Path | str]) -> Checked:
    """Check a person's own rules against the facts and parameters of tables; the shipped rules are not looked at."""
    return check_rules(sources, FACTS, base_space())


def typical_facts() -> dict[str, Any]:
    """The facts of the typical table that the rules' examples start from."""
    return load_profile(folder("rules") / "profiles.yaml", FACTS)
