"""The recommendation for a terminal: the data, its faults, the choices."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from advisor.facts.schema import Facts
from advisor.facts.summaries import ColumnSummary
from advisor.report.network import blueprint
from advisor.report.view import ParameterView, described, topics
from advisor.rules.recommendation import FIRST_CHOICES, Recommendation

SEVERITIES = {"error": "!!", "warning": "! ", "info": "- "}
UNUSED = "Not used and not searched"
"""How the because of a parameter begins that the configuration does not read."""


def summary(
    recommendation: Recommendation, facts: Facts, width: int = 80, *, everything: bool = False
) -> list[str]:
    """The recommendation for a terminal, in lines of at most ``width``
    characters: the data, its faults, the choices.

    everything: a table of all choices with their reasons, by topic; else of those that
        matter most, and the others by name.
    """
    values, data = facts.values, recommendation.data
    head = [
        f"{data['name']}: {values['rows']:,} training rows, {described(values)}, "
        f"target '{data['target']}' ({values['task']}); {values['rows_test']:,} test rows held out",
        *(["columns: " + ", ".join(_type_counts(facts.columns))] if facts.columns else []),
        *_network_lines(recommendation, values),
    ]
    lines = [line for text in head for line in _wrapped(text, width)]
    for finding in recommendation.findings:
        actions = f" -> {finding.actions[0]}" if finding.actions else ""
        mark = SEVERITIES[finding.severity]
        lines += ["", *_wrapped(f"{mark} {finding.message}{actions}", width, indent=" " * (len(mark) + 1))]
    by_topic = topics(recommendation)
    entries = [entry for _, group in by_topic for entry in group]
    if everything:
        for topic, group in by_topic:
            lines += ["", topic, *_table([entry for entry in group if entry.moved], width)]
    else:
        first = sorted(
            (e for e in entries if e.name in FIRST_CHOICES), key=lambda e: FIRST_CHOICES.index(e.name)
        )
        lines += ["", *_table(first, width)]
        others = [e for e in entries if e.name not in FIRST_CHOICES and e.moved and not _unused(e)]
        searched = [f"{e.name} {e.value} ({e.searched})" for e in others if e.searched != "fixed"]
        fixed = [f"{e.name} {e.value}" for e in others if e.searched == "fixed"]
        lines += [*_folded("also searched", searched, width), *_folded("fixed", fixed, width)]
        lines += _folded("not used", [e.name for e in entries if _unused(e)], width)
    lines += _folded("unchanged", [f"{e.name} {e.value}" for e in entries if not e.moved], width)
    more = "every choice with its reason: the same command with --all, or `advisor why`"
    return lines if everything else [*lines, "", *_wrapped(more, width)]


def _unused(entry: ParameterView) -> bool:
    return entry.because.startswith(UNUSED)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False) or [""]


def _folded(what: str, items: Sequence[str], width: int) -> list[str]:
    return ["", *_wrapped(f"{what}: {', '.join(items)}", width, indent="  ")] if items else []


def _table(entries: Sequence[ParameterView], width: int) -> list[str]:
    """A table of choices in plain text, as wide as asked."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not entries:
        return []
    table = Table(box=SIMPLE_HEAD, width=width, pad_edge=False, show_edge=False)
    table.add_column("parameter", no_wrap=True)
    values = max(len(entry.value) for entry in entries)
    table.add_column("value", width=max(5, min(values, width // 5)), overflow="fold")
    for name, ratio in (("searched", 2), ("because", 4)):
        table.add_column(name, ratio=ratio, overflow="fold")
    for entry in entries:
        table.add_row(*map(Text, (entry.name, entry.value, entry.searched, entry.because)))
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _network_lines(recommendation: Recommendation, values: Mapping[str, Any]) -> list[str]:
    network = blueprint(recommendation.configuration, values)
    if network is None:
        return []
    return [
        f"network: {network.parameters:,} weights in {len(network.layers)} layers, about "
        f"{network.memory_mb:,.0f} MB in training; receptive field {network.field} of {max(network.size)} "
        "points"
    ]


def _type_counts(columns: Sequence[ColumnSummary]) -> list[str]:
    counts = Counter(column.type for column in columns)
    return [f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])] or [
        "none"
    ]
