"""Finds and loads what ships with the product: the rules and the search spaces."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from advisor.spaces import Space, load_space


def folder(name: str) -> Path:
    """The folder ``rules`` or ``search_spaces``: inside the package in a wheel, beside it in a checkout."""
    installed = Path(str(files("advisor"))) / name
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / name


def base_space() -> Space:
    """The base search space for tables, before any rule."""
    return load_space(folder("search_spaces") / "tables.yaml")
