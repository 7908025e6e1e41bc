"""Recommendation, facts and result -> what people read: sentences, a terminal summary, one HTML page,
the same as Markdown. Computes nothing: it shows what report.json holds."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from advisor import __version__
from advisor.errors import in_words
from advisor.report import charts
from advisor.report.network import blueprint
from advisor.rules.recommendation import FIRST_CHOICES
from advisor.tasks import task_of

if TYPE_CHECKING:
    from advisor.runs.folder import RunFolder

RunDocument = Mapping[str, Any]

MOST_COLUMNS = 200
CURVES_SHOWN = 5
MOST_TEXT, MOST_NAME, NAMES_SHOWN = 600, 60, 8
"""Characters of a text and of a name, and names of a list, that are shown: a
page of hostile names stays a page."""
SEVERITIES = {"error": "!!", "warning": "! ", "info": "- "}
SHIFT_EFFECTS = {
    "psi": "PSI",
    "distance": "distance",
    "jensen_shannon": "Jensen-Shannon",
    "new_level_share": "share of new levels",
    "out_of_range_share": "share out of range",
}
UNUSED = "Not used and not searched"
"""How the because of a parameter begins that the configuration does not read."""
END_IN_REPORT = {"set aside": "quarantined"}
"""Ends of trials that have another name in result.json than in the report."""
CHARTS = (
    *(
        "target",
        "fields",
        "history",
        "packing",
        "memory",
        "curves",
        "importances",
        "final",
        "test",
        "calibration",
    ),
    "residuals",
)
"""All that the page may draw."""
NOT_A_NETWORK = "A network is not the best tool here"
BEYOND_CHANCE = 1.645
"""Standard errors by which one must be ahead of the other on the same rows (one-sided 5 %) before
any text calls it better or worse."""
TIME_TOLERANCE, TIME_SLACK = 0.1, 10.0
"""Share of a time limit, and seconds, by which it may be exceeded before the verdict says so."""


def number(value: Any) -> str:
    """Three significant digits; words and whole numbers as they are."""
    if isinstance(value, bool) or not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if 1000 <= abs(value) < 1e4:
        return f"{float(f'{value:.3g}'):,.0f}"
    return (
        f"{value:.3g}"
        if value == 0 or 1e-4 <= abs(value) < 1e4
        else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    )


def verdict(result: RunDocument, findings: Sequence[RunDocument]) -> list[str]:
    """Use this, expect this, look at that: a sentence or two each. That a network
    is not the best tool comes first."""
    final, estimate, loss = result["final"], result["estimate"], result["loss"]
    if result["kind"] == "train":
        held_out = number(final["contenders"][0]["held_out_loss"])
        use = f"The recommendation was trained: {loss} {held_out} on held-out rows."
    else:
        use = _gain(final, loss)
    interval = f"{number(estimate['low'])} to {number(estimate['high'])}"
    expect = (
        f"Expect {loss} {number(estimate['mean'])} on {estimate['rows']:,} new rows like these (90 % "
        f"interval {interval})."
    )
    test = result["test"]
    if test.get("results"):
        own, *others = test["results"]
        expect = (
            f"On the {test['rows']:,} test rows its {loss} is {number(own['loss'])}{_score(own)}; "
            f"90 % of such tests were expected within {interval}."
        )
        incumbent = final.get("incumbent", "recommendation")
        compared = _against(own, [o for o in others if o["name"] != incumbent], loss)
        use = f"{compared} {use}" if compared.startswith(NOT_A_NETWORK) else f"{use} {compared}"
        advised = next((o for o in others if o["name"] == incumbent), None)
        if advised and compare(advised["difference_to_network"]) == "better":
            use += (
                f" On the test rows {in_words(incumbent)} alone was better: {loss} {number(advised['loss'])}."
            )
        elif advised and advised["loss"] < own["loss"]:
            use += (
                f" On the test rows {in_words(incumbent)} alone has {loss} {number(advised['loss'])}, "
                "lower within chance."
            )
    return [use, *_limits(result), expect, _look_at(findings, _reading(result))]


def compare(difference: RunDocument) -> str:
    """Whether a mean paired difference of losses is ``better`` or ``worse`` beyond chance, or ``level``.

    difference: of a model to another, mean and standard_error; negative where the first has the smaller loss.
    """
    reach = BEYOND_CHANCE * difference["standard_error"]
    return "better" if difference["mean"] < -reach else "worse" if difference["mean"] > reach else "level"


def _limits(result: RunDocument) -> list[str]:
    """What failed in the final, and what the time limit did to it."""
    final, sentences = result["final"], []
    failed, incumbent = final.get("failed", {}), final.get("incumbent", "recommendation")
    if reason := failed.get("recommendation"):
        sentences.append(
            f"The recommendation failed in the final ({_middle(reason, 200)}). "
            f"The best of the search, {in_words(incumbent)}, took its place as the one to beat."
        )
    if not final.get("confirmed", True):
        sentences.append(
            "The model was not confirmed on fresh splits: the time limit left no time for a final."
        )
    if fewer := final.get("fewer_networks"):
        trained, wanted = fewer
        sentences.append(
            f"For the time limit, the final trained {trained} network{'s' * (trained > 1)} per split, not "
            f"{wanted}."
        )
    if final.get("without_latest_rows"):
        sentences.append(
            "The model has not seen the latest rows: training it again on all rows failed, or took too long."
        )
    if left_out := result["test"].get("left_out"):
        sentences.append(f"Left out, for the time limit: the {' and the '.join(left_out)} baseline.")
    limit = result.get("time_limit")
    if limit and over_limit(result["seconds"], limit):
        over = result["seconds"] - limit
        sentences.append(
            f"It took {result['seconds']:,.0f} s, {over:,.0f} s more than the time limit of {limit:,.0f} s."
        )
    return sentences


def over_limit(seconds: float, limit: float | None) -> bool:
    """Whether a run took so much more than its time limit that the verdict says so; None is no limit."""
    return limit is not None and seconds > (1 + TIME_TOLERANCE) * limit + TIME_SLACK


def advice_alone(findings: Sequence[RunDocument]) -> list[str]:
    """The verdict before anything is trained."""
    return [
        "Start with the configuration below: it is what the rules make of the measured data.",
        "Nothing was trained yet, so no loss is promised; `advisor tune RUN` searches around it and "
        "measures one.",
        _look_at(findings, None),
    ]


def _look_at(findings: Sequence[RunDocument], reading: RunDocument | None) -> str:
    grave = [finding for finding in findings if finding["severity"] in ("error", "warning")]
    if grave:
        action = f" ({grave[0]['actions'][0]})" if grave[0]["actions"] else ""
        return f"Look at this first: {_middle(grave[0]['message'], 300)}{action}"
    if reading and reading["shape"] in ("diverging", "noisy", "improving", "slow", "under-fitting"):
        return f"Look at the learning curve: it {reading['words']}."
    return "Nothing in the data asks for your attention first."


def _reading(result: RunDocument) -> RunDocument | None:
    """The reading of the winner's curve where it is one configuration's, else of the recommendation's."""
    if "reading" in result:
        return dict(result["reading"])
    trials = result.get("search", {}).get("trials", ())
    named = {t["origin"] if t["origin"] in charts.REFERENCES else f"trial {t['number']}": t for t in trials}
    trial = named.get(result["final"]["winner"]) or named.get("recommendation")
    return trial.get("reading") if trial else None


def _gain(final: RunDocument, loss: str) -> str:
    by_name = {c["name"]: c for c in final["contenders"]}
    incumbent = final.get("incumbent", "recommendation")
    winner, beaten = by_name[final["winner"]], by_name[incumbent]
    if not final.get("confirmed", True):
        return f"Use {in_words(incumbent)}: {loss} {number(beaten['held_out_loss'])} on held-out rows."
    if winner is beaten and incumbent == "recommendation":
        return (
            f"Tuning gained nothing over the recommendation ({final['reason']}): it is kept, "
            f"with {loss} {number(beaten['held_out_loss'])} on held-out rows."
        )
    if winner is beaten:
        return (
            f"Use {in_words(incumbent)} ({final['reason']}): {loss} {number(beaten['held_out_loss'])} on "
            "held-out rows."
        )
    difference = winner["difference"]
    chance = "beyond" if difference.get("high", 0.0) < 0 else "within"
    return (
        f"Use the tuned model ({final['winner']}): {loss} {number(winner['held_out_loss'])} against "
        f"{number(beaten['held_out_loss'])} for {in_words(incumbent)} on rows that did not choose it, "
        f"{_less(winner['held_out_loss'], beaten['held_out_loss'])}, {chance} chance."
    )


def _less(loss: float, other: float) -> str:
    """By how much a loss is below another; a share only where losses are positive
    (a likelihood's may be negative)."""
    if loss > 0 and other > 0:
        return f"{1 - loss / other:.1%} less" if loss <= other else f"{loss / other - 1:.1%} more"
    return f"{number(abs(other - loss))} {'less' if loss <= other else 'more'}"


def _score(entry: RunDocument) -> str:
    if "accuracy" in entry:
        return f", accuracy {entry['accuracy']:.1%}"
    return f", R2 {entry['r2']:.3f}"


def _against(own: RunDocument, baselines: Sequence[RunDocument], loss: str) -> str:
    best = min(baselines, key=lambda entry: entry["loss"])
    both = f"{loss} {number(best['loss'])} on the same test rows, the network {number(own['loss'])}"
    match compare(best["difference_to_network"]):
        case "worse":
            return f"The best baseline ({best['name']}) has {both}: the network is ahead."
        case "better":
            return f"{NOT_A_NETWORK}: the {best['name']} baseline has {both}."
    return f"The {best['name']} baseline is as good within chance, and simpler: it has {both}."


def summary(
    recommendation: RunDocument, facts: RunDocument, width: int = 80, *, everything: bool = False
) -> list[str]:
    """The recommendation for a terminal, in lines of at most ``width``
    characters: the data, its faults, the choices.

    everything: a table of all choices with their reasons, by topic; else of those that
        matter most, and the others by name.
    """
    values, data = facts["values"], recommendation["data"]
    head = [
        f"{data['name']}: {values['rows']:,} training rows, {_inputs(values)}, "
        f"target '{data['target']}' ({values['task']}); {values['rows_test']:,} rows set apart for the test",
        *(["columns: " + ", ".join(_type_counts(facts["columns"]))] if facts["columns"] else []),
        *_network_lines(recommendation, values),
    ]
    lines = [line for text in head for line in _wrapped(text, width)]
    for finding in recommendation["findings"]:
        actions = f" -> {finding['actions'][0]}" if finding["actions"] else ""
        mark = SEVERITIES[finding["severity"]]
        lines += ["", *_wrapped(f"{mark} {finding['message']}{actions}", width, indent=" " * (len(mark) + 1))]
    by_topic = topics(recommendation)
    entries = [entry for _, group in by_topic for entry in group]
    if everything:
        for topic, group in by_topic:
            lines += ["", topic, *_table([entry for entry in group if entry["moved"]], width)]
    else:
        first = sorted(
            (e for e in entries if e["name"] in FIRST_CHOICES), key=lambda e: FIRST_CHOICES.index(e["name"])
        )
        lines += ["", *_table(first, width)]
        others = [e for e in entries if e["name"] not in FIRST_CHOICES and e["moved"] and not _unused(e)]
        searched = [f"{e['name']} {e['value']} ({e['searched']})" for e in others if e["searched"] != "fixed"]
        fixed = [f"{e['name']} {e['value']}" for e in others if e["searched"] == "fixed"]
        lines += [*_folded("also searched", searched, width), *_folded("fixed", fixed, width)]
        lines += _folded("not used", [e["name"] for e in entries if _unused(e)], width)
    lines += _folded("unchanged", [f"{e['name']} {e['value']}" for e in entries if not e["moved"]], width)
    more = "every choice with its reason: the same command with --all, or `advisor why`"
    return lines if everything else [*lines, "", *_wrapped(more, width)]


def _unused(entry: RunDocument) -> bool:
    return bool(entry["because"].startswith(UNUSED))


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False) or [""]


def _folded(what: str, items: Sequence[str], width: int) -> list[str]:
    return ["", *_wrapped(f"{what}: {', '.join(items)}", width, indent="  ")] if items else []


def _table(entries: Sequence[RunDocument], width: int) -> list[str]:
    """A table of choices in plain text, as wide as asked."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not entries:
        return []
    table = Table(box=SIMPLE_HEAD, width=width, pad_edge=False, show_edge=False)
    table.add_column("parameter", no_wrap=True)
    values = max(len(str(entry["value"])) for entry in entries)
    table.add_column("value", width=max(5, min(values, width // 5)), overflow="fold")
    for name, ratio in (("searched", 2), ("because", 4)):
        table.add_column(name, ratio=ratio, overflow="fold")
    for entry in entries:
        table.add_row(*(Text(str(entry[key])) for key in ("name", "value", "searched", "because")))
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _inputs(values: RunDocument) -> str:
    """What a row is: features of a table, an image, a series."""
    channels = values.get("signal.channels")
    plural = "channel" if channels == 1 else "channels"
    if values.get("image.side"):
        return f"images of {values['image.height']} x {values['image.width']} pixels in {channels} {plural}"
    if values.get("sequence.length"):
        return f"series of {values['sequence.length']:,} points in {channels} {plural}"
    return f"{values['features']} features"


def _network_lines(recommendation: RunDocument, values: RunDocument) -> list[str]:
    network = blueprint(recommendation["configuration"], values)
    if network is None:
        return []
    return [
        f"network: {network['parameters']:,} weights in {len(network['layers'])} layers, about "
        f"{network['memory_mb']:,.0f} MB in "
        f"training; its last units see {network['field']} of {max(network['size'])} points"
    ]


def _type_counts(columns: Sequence[RunDocument]) -> list[str]:
    counts: dict[str, int] = {}
    for column in columns:
        counts[column["type"]] = counts.get(column["type"], 0) + 1
    return [f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])] or [
        "none"
    ]


def topics(
    recommendation: RunDocument,
    ledger: RunDocument | None = None,
    used: Mapping[str, Any] | None = None,
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The parameters by topic, in their order: name, value, what is still searched, because, steps, yours.

    ledger: adds each one's alternatives and what would flip it, and the sources of its steps.
    used: the winner's configuration; ``won`` is its value where that is not the recommendation's, else "".
    """
    entries = [
        _entry(name, recommendation, (ledger or {}).get(name, {}), used)
        for name in recommendation["provenance"]
    ]
    return [(topic, list(group)) for topic, group in groupby(entries, key=lambda entry: str(entry["topic"]))]


def _entry(
    name: str, recommendation: RunDocument, kept: RunDocument, used: Mapping[str, Any] | None
) -> dict[str, Any]:
    advised = recommendation["configuration"][name]
    won = advised if used is None else used.get(name, advised)
    provenance = recommendation["provenance"][name]
    steps = kept.get("steps", provenance["steps"])
    return {
        "name": name,
        "topic": provenance["topic"],
        "meaning": provenance["meaning"],
        "value": number(advised),
        "won": number(won) if won != advised else "",
        "searched": _range(provenance["final"]),
        "because": provenance["because"],
        "steps": steps,
        "base": provenance["base"],
        "strength": next((step["strength"] for step in reversed(steps) if step["strength"]), ""),
        "moved": bool(provenance["steps"]),
        "yours": provenance["yours"],
        "alternatives": kept.get("alternatives", ()),
        "flips": kept.get("flips", ()),
    }


def _range(state: RunDocument) -> str:
    if "low" in state:
        return f"{'0 or ' if state.get('zero') else ''}{number(state['low'])} to {number(state['high'])}"
    return (
        "one of " + ", ".join(number(choice) for choice in state["choices"])
        if "choices" in state
        else "fixed"
    )


# ---------------------------------------------------------------------------------------------- the two pages


def render_html(
    recommendation: RunDocument,
    facts: RunDocument,
    result: RunDocument | None,
    ledger: RunDocument | None = None,
) -> str:
    """One self-contained page; the same bytes for the same run. Its one script sorts, filters and copies."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("advisor.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _shown(value) if type(value) is str else value,
    )
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "report.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.filters |= _filters() | {
        "spark": lambda counts: Markup(charts.spark(counts)),
        "lines": lambda series: Markup(charts.lines(series)),
    }
    view = _view(recommendation, facts, result, ledger)
    drawn = dict.fromkeys(CHARTS, Markup(""))  # what could not be drawn is empty, and the page says so
    drawn |= {name: Markup(svg) for name, svg in _charts(result, facts).items()}
    if view["network"]:
        network = view["network"]
        drawn["fields"] = Markup(charts.fields(network["layers"], network["needed"], max(network["size"])))
    return environment.get_template("report.html").render(
        **view, charts=drawn, script=Markup(script), digest=digest, whole=lambda text: Markup(escape(text))
    )


def render_markdown(
    recommendation: RunDocument,
    facts: RunDocument,
    result: RunDocument | None,
    ledger: RunDocument | None = None,
) -> str:
    """The same sections as text, for a ticket or a terminal."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("advisor.report", "templates"),
        autoescape=False,  # finalize escapes everything for Markdown instead
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_markdown,
    )
    environment.filters |= _filters()
    view = _view(recommendation, facts, result, ledger)
    text = environment.get_template("report.md").render(**view, whole=_Whole)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


class _Whole(str):
    """Text that a template shows as it is."""


def _markdown(value: Any) -> Any:
    """Escapes what would be Markdown or HTML, and breaks no table."""
    if type(value) is not str:
        return value
    shown = _shown(value)
    # one line, but with the blank at an end that a template puts between two values
    ends = [" " if shown[:1].isspace() else "", " " if shown[-1:].isspace() else ""]
    text = " ".join(shown.split())
    text = f"{ends[0]}{text}{ends[1]}" if text else ends[0]
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text)


def _shown(text: str) -> str:
    """Text of the data as a page shows it: bounded, and nothing invisible that turns a line round."""
    clean = "".join(
        c if c.isprintable() or c in "\n\u00a0" else repr(c)[1:-1] for c in _middle(text, MOST_TEXT)
    )
    return clean


def _middle(text: str, most: int) -> str:
    """Long text cut in its middle: both ends tell names apart."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def _names(names: Sequence[str]) -> str:
    """A list of names, the first few in full."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(_middle(name, MOST_NAME) for name in names[:NAMES_SHOWN]) + more


def percent(share: float) -> str:
    """A share; a small one is never shown as none."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.3g} %"


def _words(value: Any) -> str:
    """A fact or a wish in a sentence."""
    if isinstance(value, list | tuple):
        return (
            f"{len(value)} names" if len(value) > 2 else " to ".join(number(item) for item in value) or "none"
        )
    return "not measured" if value is None else number(value)


def measured_words(measured: Mapping[str, Any]) -> str:
    """An entry of evidence.yaml in a few words."""
    return f"{measured['effect']} ({measured['interval']}) on {measured['sets']} sets"


def busy_share(packing: Sequence[Mapping[str, Any]]) -> float:
    """The share of the workers' time that was spent in trials, from the first
    one's beginning to the last one's end."""
    workers = {(row["device"], row["worker"]) for row in packing}
    span = max(row["ended"] for row in packing) - min(row["began"] for row in packing)
    return (
        float(sum(row["ended"] - row["began"] for row in packing) / (len(workers) * span))
        if span > 0
        else 1.0
    )


def _filters() -> dict[str, Any]:
    return {
        "task": task_of,
        "number": number,
        "percent": percent,
        "words": _words,
        "names": _names,
        "busy": busy_share,
        "measured": measured_words,
        "name": lambda text: _middle(str(text), MOST_NAME),
        "state": lambda state: f"{number(state['value'])} ({_range(state)})",
        "facts": lambda facts: ", ".join(f"{name} = {_words(value)}" for name, value in facts.items()),
    }


def _view(
    recommendation: RunDocument, facts: RunDocument, result: RunDocument | None, ledger: RunDocument | None
) -> dict[str, Any]:
    """What both pages show, in the order of their sections."""
    findings = recommendation["findings"]
    won = winners(recommendation, result)
    columns = facts["columns"][:MOST_COLUMNS]
    return {
        "recommendation": recommendation,
        "facts": facts,
        "inputs": _inputs(facts["values"]),
        # with an own objective it is not the advised network that was trained
        "network": None
        if "objective" in (result or {})
        else blueprint(recommendation["configuration"], facts["values"]),
        "samples": facts.get("samples", ()),
        "mistakes": (result or {}).get("test", {}).get("mistakes", ()),
        "result": result,
        "verdict": verdict(result, findings) if result else advice_alone(findings),
        "topics": topics(recommendation, ledger, _used(won)),
        "won": won,
        "trials": _trials(recommendation, result),
        "yaml": _configuration_yaml(_used(won) or recommendation["configuration"]),
        "target": facts.get("target", {}),
        "columns": [(column, _remarks(column, findings)) for column in columns],
        "hidden": len(facts["columns"]) - len(columns),
        "ends": _ends(result),
        "readings": _readings(result),
        "command": _command(recommendation, result),
        "version": __version__,
    }


def winners(recommendation: RunDocument, result: RunDocument | None) -> list[dict[str, Any]]:
    """What the model is made of: one configuration, or those of a blend.

    Each: its name, its share of the prediction, the whole configuration, and ``changes``, a row (parameter,
    recommended, used) for each value that is not the recommendation's. Empty before anything was trained.
    """
    if result is None:
        return []
    contenders = result["final"]["contenders"]
    winner = next((c for c in contenders if c["name"] == result["final"]["winner"]), None)
    used = (winner or {}).get("configurations", ())
    names = (
        [c["name"] for c in contenders if c is not winner] if len(used) > 1 else [result["final"]["winner"]]
    )
    return [
        {
            "name": name,
            "share": 1 / len(used),
            "configuration": configuration,
            "changes": _changes(recommendation["configuration"], configuration),
        }
        for name, configuration in zip(names, used, strict=False)
    ]


def _used(won: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The configuration of a model that has only one."""
    return won[0]["configuration"] if len(won) == 1 else None


def _changes(recommended: Mapping[str, Any], used: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, number(recommended[name]), number(used[name]))
        for name in recommended
        if name in used and used[name] != recommended[name]
    ]


def _trials(recommendation: RunDocument, result: RunDocument | None) -> list[dict[str, Any]]:
    """A row for each trial: what it was, how it ended, what it cost, and where it differs from the
    recommendation."""
    return [
        {
            "number": trial["number"],
            "origin": trial["origin"],
            "end": END_IN_REPORT.get(trial["end"], trial["end"]),
            "loss": trial["value"],
            "epochs": trial.get("epochs") or (trial["curve"][-1][0] if trial["curve"] else None),
            "seconds": trial.get("seconds"),
            "changes": _changes(recommendation["configuration"], trial["configuration"]),
        }
        for trial in (result or {}).get("search", {}).get("trials", ())
    ]


def _configuration_yaml(configuration: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump({"configuration": dict(configuration)}, sort_keys=False, width=120))


def _remarks(column: RunDocument, findings: Sequence[RunDocument]) -> list[str]:
    """What there is to say of a column: how its type was found, its numbers, the
    test rows, the findings that name it."""
    remarks = [str(column["why"])]
    if column.get("median") is not None:
        remarks.append(
            f"median {number(column['median'])}, 90 % within {number(column['q05'])} to "
            f"{number(column['q95'])}"
        )
    elif column.get("minimum") is not None:
        remarks.append(f"{column['minimum']} to {column['maximum']}")
    if column.get("outliers"):
        remarks.append(f"{number(column['outliers'])} far outliers")
    if column.get("top"):
        remarks.append(
            ", ".join(f"{_middle(str(level), 24)} {percent(share)}" for level, share in column["top"][:4])
        )
    effects = column.get("shift") or {}
    measured = [
        f"{word} {number(effects[name])}" for name, word in SHIFT_EFFECTS.items() if effects.get(name)
    ]
    if measured:
        remarks.append(f"shift to the rows compared: {', '.join(measured)}")
    named = [finding["code"] for finding in findings if column["name"] in finding["columns"]]
    if named:
        remarks.append(f"see {', '.join(named)}")
    return remarks


def _ends(result: RunDocument | None) -> list[tuple[str, int]]:
    """How many trials ended how, in the order in which they first did."""
    counts: dict[str, int] = {}
    for trial in (result or {}).get("search", {}).get("trials", ()):
        end = END_IN_REPORT.get(trial["end"], trial["end"])
        counts[end] = counts.get(end, 0) + 1
    return list(counts.items())


def _shown_trials(search: RunDocument) -> dict[str, RunDocument]:
    """The trials whose curves are drawn: the recommendation and the best few."""
    complete = [t for t in search["trials"] if t["end"] == "complete" and t["value"] is not None]
    finished = sorted(complete, key=lambda trial: trial["value"])
    shown = [t for t in finished if t["origin"] == "recommendation"] + finished[:CURVES_SHOWN]
    return {t["origin"] if t["origin"] in charts.REFERENCES else f"trial {t['number']}": t for t in shown}


def _readings(result: RunDocument | None) -> list[tuple[str, RunDocument]]:
    """What the drawn curves say; nothing of a run that was made before curves were read."""
    if result is None:
        return []
    if "search" not in result:
        return [("recommendation", result["reading"])] if "reading" in result else []
    return [
        (name, trial["reading"])
        for name, trial in _shown_trials(result["search"]).items()
        if "reading" in trial
    ]


def _command(recommendation: RunDocument, result: RunDocument | None) -> str:
    """The command line that makes this run again."""
    data = recommendation["data"]
    kind = result["kind"] if result else "recommend"
    parts = [
        "advisor",
        kind,
        shlex.quote(_shown(data.get("source") or "DATA")),
        "--target",
        shlex.quote(_shown(data["target"])),
    ]
    for option in (
        "test",
        "kind",
        "task",
        "id_column",
        "time_column",
        "group_column",
        "weight_column",
        "channels",
    ):
        if data.get(option):
            parts += [f"--{option.replace('_', '-')}", shlex.quote(_shown(str(data[option])))]
    parts += [
        f"--type {shlex.quote(_shown(f'{name}={kind_}'))}"
        for name, kind_ in (data.get("types") or {}).items()
    ]
    parts += [f"--rules {shlex.quote(_shown(folder))}" for folder in data.get("rules") or ()]
    parts += [f"--without {shlex.quote(rule)}" for rule in data.get("without") or ()]
    origins = recommendation["provenance"].items()
    own = (name for name, origin in origins if origin["yours"] and _range(origin["final"]) == "fixed")
    parts += [f"--fixed {name}={shlex.quote(str(recommendation['configuration'][name]))}" for name in own]
    if (join := data.get("join_spellings")) is not None:
        parts.append("--join-spellings" if join else "--keep-spellings")
    if data.get("test_fraction", 0.2) != 0.2:
        parts += ["--test-fraction", str(data["test_fraction"])]
    parts += ["--seed", str(data.get("seed", 0))]
    if result and "search" in result:
        parts += ["--trials", str(result["search"]["requested"])]
    if result and "objective" in result:
        parts += ["--objective", shlex.quote(_shown(result["objective"]["name"]))]
    return " ".join(parts)


def _charts(result: RunDocument | None, facts: RunDocument) -> dict[str, str]:
    drawn: dict[str, str] = {}
    target = facts.get("target", {})
    if "histogram" in target:
        drawn["target"] = charts.histogram(target["histogram"], "target, its middle 98 %", "The target")
    if result is None:
        return drawn
    search, loss = result.get("search"), result["loss"]
    if search is None:
        drawn["curves"] = charts.curves({"recommendation": list(enumerate(result["curve"], start=1))}, loss)
    else:
        drawn["history"] = charts.history(search["trials"], loss)
        placed = search.get("packing", [])  # a run of before there was one has none
        drawn["packing"] = charts.packing(
            placed, {t["number"] for t in search["trials"] if t["end"] == "pruned"}
        )
        drawn["memory"] = charts.memory_chart(placed)
        drawn["curves"] = charts.curves({name: t["curve"] for name, t in _shown_trials(search).items()}, loss)
        drawn["importances"] = charts.bars(
            search["importances"], "share of the loss's variation", "Parameter importances"
        )
    compared = [(c["name"], c["difference"]) for c in result["final"]["contenders"] if c["difference"]]
    pairs = [(name, d["mean"], d["standard_error"]) for name, d in compared]
    drawn["final"] = charts.difference_chart(pairs, loss, BEYOND_CHANCE)
    tested = [(r["name"], r["difference_to_network"]) for r in result["test"].get("results", ())[1:]]
    drawn["test"] = charts.difference_chart(
        [(n, d["mean"], d["standard_error"]) for n, d in tested], loss, BEYOND_CHANCE
    )
    predictions = result["test"].get("predictions", {})
    if "calibration" in predictions:
        drawn["calibration"] = charts.reliability(predictions["calibration"]["bins"])
    if "residual_histogram" in predictions:
        found = predictions["residual_histogram"]
        beyond = found.get("below", 0) + found.get("above", 0)
        label = "prediction minus truth" + (f"; {beyond:,} rows lie beyond" if beyond else "")
        drawn["residuals"] = charts.histogram(found, label, "Residuals")
    return drawn


def write_report(
    run: RunFolder,
    recommendation: RunDocument,
    facts: RunDocument,
    ledger: RunDocument,
    result: RunDocument | None,
) -> None:
    """report.html and report.json of a run. Without a new result, one that the
    run has already stays in the report."""
    from advisor.files import FORMAT, write_json, write_text
    from advisor.runs.result import read_result

    if result is None and run.result.is_file():
        result = read_result(run)
    document = {
        "recommendation": recommendation,
        "facts": facts,
        "ledger": ledger,
        "result": result,
        "model": winners(recommendation, result),
    }
    write_json(run.report_json, {"format": FORMAT, "advisor": __version__, **document})
    write_text(run.report_html, render_html(recommendation, facts, result, ledger))
