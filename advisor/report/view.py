"""What a page shows of a run, as data: the parameters by topic, the winner, the trials, the columns."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from advisor.documents import UNSET
from advisor.facts.schema import Facts
from advisor.facts.summaries import ColumnSummary, RowSample, TargetSummary
from advisor.report import charts
from advisor.report.network import NetworkView, blueprint
from advisor.report.verdict import NextStep, advice_alone, next_step, verdict
from advisor.report.wording import bounded, cut_middle, number, percent, range_words, without_folders
from advisor.rules.provenance import Flip, LedgerEntry, RejectedValue
from advisor.rules.recommendation import FIRST_CHOICES, Finding, Recommendation
from advisor.rules.resolution import ParameterState, ProvenanceStep
from advisor.runs.result import (
    RECOMMENDED,
    Configuration,
    Mistake,
    PlacedTrial,
    RunReport,
    SearchAsked,
    SearchReport,
    TrialReport,
)
from advisor.search.curves import CurveDiagnosis
from advisor.search.events import END_OF_FILES

MOST_COLUMNS = 200
CURVES_SHOWN = 5
COLUMN_OPTIONS = ("id_column", "time_column", "group_column", "weight_column")
READING_OPTIONS = ("test", "encoding", "sheet", "kind", "task", *COLUMN_OPTIONS, "channels", "metric")
"""How the data were read, in the order in which the command line that is shown names it."""
_DEVICE = re.compile(r"(gpu [\d,]+|cpu)$")
"""What ends the name of a device, after the node and its address (``executors.ray.worker``)."""
SHIFT_EFFECTS = {
    "psi": "PSI",
    "distance": "distance",
    "jensen_shannon": "Jensen-Shannon",
    "new_level_share": "share of unseen categories",
    "out_of_range_share": "share out of range",
}
LEAST_SHIFT = {"psi": 0.1, "new_level_share": 0.01, "out_of_range_share": 0.01}
"""From which of these on a column is said to have shifted. A population stability index below 0.1 is none
(Siddiqi 2006, Credit Risk Scorecards)."""


@dataclass(frozen=True)
class ParameterView:
    """A parameter as both pages show it.

    value: the recommended one. won: the winner's where it is another, else "". searched: what is still
    searched. base: the state in the base space. moved: whether any rule said something about it.
    first: whether it is one of those that matter most. steps, alternatives, flips: of the ledger
    (``advisor.rules.provenance``), the last two only with one.
    """

    name: str
    topic: str
    meaning: str
    value: str
    won: str
    searched: str
    because: str
    steps: Sequence[ProvenanceStep]
    base: ParameterState
    strength: str
    moved: bool
    yours: bool
    first: bool
    alternatives: Sequence[RejectedValue]
    flips: Sequence[Flip]


@dataclass(frozen=True)
class WinnerView:
    """A configuration that the model is made of. share: of the prediction. changes: (parameter, recommended,
    used) for each value that is not the recommendation's."""

    name: str
    share: float
    configuration: Configuration
    changes: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class TrialView:
    """A trial as a row: what it was, how it ended, what it cost, where it differs from the recommendation."""

    number: int
    origin: str
    end: str
    loss: float | None
    epochs: float | None
    seconds: float | None
    changes: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class PageView:
    """What both pages show, in the order of their sections. network: None where another one was trained.
    main: the parameters that matter most, those that a user fixed and those that the winner has
    otherwise; others: the rest. columns: each with its remarks. hidden: columns that are left out. ends: how
    many trials ended how."""

    recommendation: Recommendation
    facts: Facts
    inputs: str
    network: NetworkView | None
    samples: Sequence[RowSample]
    mistakes: Sequence[Mistake]
    result: RunReport | None
    verdict: Sequence[str]
    next: NextStep
    topics: Sequence[tuple[str, Sequence[ParameterView]]]
    main: Sequence[ParameterView]
    others: Sequence[ParameterView]
    won: Sequence[WinnerView]
    trials: Sequence[TrialView]
    yaml: str
    target: TargetSummary
    columns: Sequence[tuple[ColumnSummary, Sequence[str]]]
    hidden: int
    ends: Sequence[tuple[str, int]]
    readings: Sequence[tuple[str, CurveDiagnosis]]
    command: str


def view_of(
    recommendation: Recommendation,
    facts: Facts,
    result: RunReport | None,
    ledger: Mapping[str, LedgerEntry] | None,
) -> PageView:
    """All that the pages show of a run. result: None before anything was trained."""
    findings, configuration = recommendation.findings, recommendation.configuration
    won = winners(recommendation, result)
    columns = facts.columns[:MOST_COLUMNS]
    own = result is not None and bool(result.objective)
    trials = result.trials if result else ()
    by_topic = topics(recommendation, ledger, _used(won))
    entries = [entry for _, group in by_topic for entry in group]
    main = [entry for entry in entries if entry.first or entry.won or entry.yours]
    return PageView(
        recommendation=recommendation,
        facts=facts,
        inputs=described(facts.values),
        network=None if own else blueprint(configuration, facts.values),
        samples=facts.samples,
        mistakes=(result.test.mistakes or ()) if result else (),
        result=result,
        verdict=verdict(result, findings) if result else advice_alone(findings),
        next=next_step(result),
        topics=by_topic,
        main=main,
        others=[entry for entry in entries if entry not in main],
        won=won,
        trials=[_trial(trial, configuration) for trial in trials],
        yaml=_configuration_yaml(_used(won) or configuration),
        target=facts.target,
        columns=[(column, _remarks(column, findings)) for column in columns],
        hidden=len(facts.columns) - len(columns),
        ends=list(Counter(map(_end, trials)).items()),
        readings=_readings(result),
        command=_command(recommendation, result),
    )


def topics(
    recommendation: Recommendation,
    ledger: Mapping[str, LedgerEntry] | None = None,
    used: Configuration | None = None,
) -> list[tuple[str, list[ParameterView]]]:
    """The parameters by topic, in their order.

    ledger: adds each one's alternatives and what would flip it, and the sources of its steps.
    used: the winner's configuration.
    """
    entries = [
        _parameter(name, recommendation, (ledger or {}).get(name), used) for name in recommendation.provenance
    ]
    return [(topic, list(group)) for topic, group in groupby(entries, key=lambda entry: entry.topic)]


def _parameter(
    name: str, recommendation: Recommendation, kept: LedgerEntry | None, used: Configuration | None
) -> ParameterView:
    advised = recommendation.configuration[name]
    won = advised if used is None else used.get(name, advised)
    provenance = recommendation.provenance[name]
    steps = kept.steps if kept else provenance.steps
    return ParameterView(
        name=name,
        topic=provenance.topic,
        meaning=provenance.meaning,
        value=number(advised),
        won=number(won) if won != advised else "",
        searched=range_words(provenance.final),
        because=provenance.because,
        steps=steps,
        base=provenance.base,
        strength=next((step.strength for step in reversed(steps) if step.strength), ""),
        moved=bool(provenance.steps),
        yours=provenance.yours,
        first=name in FIRST_CHOICES,
        alternatives=kept.alternatives if kept else (),
        flips=kept.flips if kept else (),
    )


def winners(recommendation: Recommendation, result: RunReport | None) -> list[WinnerView]:
    """What the model is made of: one configuration, or those of a blend. Empty before any training."""
    if result is None:
        return []
    winner = result.final.contender(result.final.winner)
    used, names = winner.configurations, [winner.name]
    whole = 1 - (result.final.trees.share if result.final.trees else 0)
    if len(used) > 1:
        names = [one.name for one in result.final.contenders if one is not winner]
    return [
        WinnerView(
            name, whole / len(used), configuration, _changes(recommendation.configuration, configuration)
        )
        for name, configuration in zip(names, used, strict=False)
    ]


def _used(won: Sequence[WinnerView]) -> Configuration | None:
    """The configuration of a model that has only one."""
    return won[0].configuration if len(won) == 1 else None


def _changes(recommended: Configuration, used: Configuration) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (name, number(recommended[name]), number(used[name]))
        for name in recommended
        if name in used and used[name] != recommended[name]
    )


def _end(trial: TrialReport) -> str:
    return END_OF_FILES.get(trial.end, trial.end)


def _trial(trial: TrialReport, recommended: Configuration) -> TrialView:
    return TrialView(
        number=trial.number,
        origin=trial.origin,
        end=_end(trial),
        loss=trial.value,
        epochs=trial.epochs or (trial.curve[-1][0] if trial.curve else None),
        seconds=None if trial.seconds is UNSET else trial.seconds,
        changes=_changes(recommended, trial.configuration),
    )


def described(values: Mapping[str, Any]) -> str:
    """What a row is: features of a table, an image, a series."""
    channels = values.get("signal.channels")
    plural = "channel" if channels == 1 else "channels"
    if values.get("image.side"):
        return f"images of {values['image.height']} x {values['image.width']} pixels in {channels} {plural}"
    if values.get("sequence.length"):
        return f"series of {values['sequence.length']:,} points in {channels} {plural}"
    return f"{values['features']} features"


def _configuration_yaml(configuration: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump({"configuration": dict(configuration)}, sort_keys=False, width=120))


def _remarks(column: ColumnSummary, findings: Sequence[Finding]) -> list[str]:
    """What there is to say of a column: how its type was found, its numbers, the
    test rows, the findings that name it."""
    remarks = [column.why]
    middle = [one for one in (column.median, column.q05, column.q95) if isinstance(one, int | float)]
    if len(middle) == 3:
        median, low, high = middle
        remarks.append(f"median {number(median)}, 90 % within {number(low)} to {number(high)}")
    elif isinstance(column.minimum, str):
        remarks.append(f"{column.minimum} to {column.maximum}")
    if column.outliers:
        remarks.append(f"{number(column.outliers)} far outliers")
    if column.top:
        levels = [f"{cut_middle(name, 24)} {percent(share)}" for name, share in column.top[:4]]
        remarks.append(", ".join(levels))
    effects = column.shift or {}
    measured = [
        f"{word} {number(effects[name])}" for name, word in SHIFT_EFFECTS.items() if effects.get(name)
    ]
    if measured and any((effects.get(name) or 0.0) >= least for name, least in LEAST_SHIFT.items()):
        remarks.append(f"shift to the rows compared: {', '.join(measured)}")
    named = [finding.code for finding in findings if column.name in finding.columns]
    if named:
        remarks.append(f"see {', '.join(named)}")
    return remarks


def shown_trials(search: SearchReport) -> dict[str, TrialReport]:
    """The trials whose curves are drawn, by name: the recommendation and the best few."""
    values = {t.number: t.value for t in search.trials if t.end == "complete" and t.value is not None}
    finished = sorted((t for t in search.trials if t.number in values), key=lambda t: values[t.number])
    drawn = [t for t in finished if t.origin == RECOMMENDED] + finished[:CURVES_SHOWN]
    return {t.origin if t.origin in charts.REFERENCES else f"trial {t.number}": t for t in drawn}


def named_places(packing: Sequence[PlacedTrial]) -> list[PlacedTrial]:
    """The same trials on numbered nodes and workers: a page names no process and no address of a machine."""
    known = [_DEVICE.search(row.device) for row in packing]
    kinds = [found[0] if found else "" for found in known]
    homes = [
        row.device[: found.start()] if found else row.device
        for row, found in zip(packing, known, strict=True)
    ]
    nodes, several = list(dict.fromkeys(homes)), len(set(homes)) > 1
    workers: dict[tuple[str, str], int] = {}
    rows = []
    for row, home, kind in zip(packing, homes, kinds, strict=True):
        number_ = workers.setdefault((home, row.worker), len(workers) + 1)
        node = f"node {nodes.index(home) + 1}" if several else ""
        device = " ".join(filter(None, [node, kind])) or "this machine"
        rows.append(replace(row, worker=f"worker {number_}", device=device))
    return rows


def _readings(result: RunReport | None) -> list[tuple[str, CurveDiagnosis]]:
    """What the drawn curves say; nothing of a run that was made before curves were read."""
    if result is None:
        return []
    if not result.search:
        return [(RECOMMENDED, result.reading)] if result.reading else []
    return [(name, t.reading) for name, t in shown_trials(result.search).items() if t.reading]


def _command(recommendation: Recommendation, result: RunReport | None) -> str:
    """The command line that makes this run again."""
    data = recommendation.data
    kind = result.setup.kind if result else "recommend"
    parts = [
        "advisor",
        kind,
        _shell(data.get("source") or "DATA"),
        "--target",
        _shell(data["target"]),
    ]
    for option in READING_OPTIONS:
        if data.get(option):
            parts += [f"--{option.replace('_', '-')}", _shell(data[option])]
    if data.get("cost"):
        parts += ["--cost", "COSTS.csv"]  # the costs are kept, the name of their file is not
    parts += [f"--type {_shell(f'{name}={kind_}')}" for name, kind_ in (data.get("types") or {}).items()]
    parts += [f"--rules {_shell(folder)}" for folder in data.get("rules") or ()]
    parts += [f"--without {shlex.quote(rule)}" for rule in data.get("without") or ()]
    origins = recommendation.provenance.items()
    own = (name for name, origin in origins if origin.yours and range_words(origin.final) == "fixed")
    parts += [f"--fixed {name}={shlex.quote(str(recommendation.configuration[name]))}" for name in own]
    if (join := data.get("join_spellings")) is not None:
        parts.append("--join-spellings" if join else "--keep-spellings")
    if data.get("test_fraction", 0.2) != 0.2:
        parts += ["--test-fraction", str(data["test_fraction"])]
    parts += ["--seed", str(data.get("seed", 0))]
    if result and result.search:
        parts += ["--trials", str(result.search.requested), *_search_options(result.search)]
    if result and result.time_limit:
        parts += ["--time-limit", f"{result.time_limit:g}"]
    if result and result.objective:
        parts += ["--objective", _shell(result.objective.name)]
    return " ".join(parts)


def _search_options(search: SearchReport) -> list[str]:
    """Those that are not as they are by default; none of a run whose version did not keep them."""
    asked = search.options or SearchAsked()
    parts = ["--strategy", _shell(asked.strategy)] if asked.strategy != SearchAsked.strategy else []
    if asked.trial_time_limit is not None:
        parts += ["--trial-time-limit", f"{asked.trial_time_limit:g}"]
    return parts if asked.adapt else [*parts, "--no-adapt"]


def _shell(text: object) -> str:
    """Text as a word of a command line, of a path no more than the name."""
    return shlex.quote(bounded(without_folders(str(text))))
