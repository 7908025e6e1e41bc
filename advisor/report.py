"""Recommendation, facts and result -> what people read: sentences, a terminal summary, one HTML page. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from advisor import __version__, charts

if TYPE_CHECKING:
    from advisor.run_folder import RunFolder

Document = Mapping[str, Any]

MOST_COLUMNS = 200
CURVES_SHOWN = 5
SEVERITIES = {"error": "!!", "warning": "! ", "info": "- "}
NOT_A_NETWORK = "A network is not the best tool here"
BEYOND_CHANCE = 1.645
"""Standard errors by which a baseline must be ahead on the test rows (one-sided 5 %) before the page says the above."""


def number(value: Any) -> str:
    """Three significant digits; words and whole numbers as they are."""
    if isinstance(value, bool) or not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"{value:.3g}" if value == 0 or 1e-4 <= abs(value) < 1e4 else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def verdict(result: Document) -> list[str]:
    """What to do and what to expect, in a few sentences."""
    final, estimate, loss = result["final"], result["estimate"], result["loss"]
    sentences = []
    if result["kind"] == "train":
        held_out = number(final["contenders"][0]["held_out_loss"])
        sentences.append(f"The recommendation was trained: {loss} {held_out} on held-out rows.")
    else:
        sentences.append(_gain(final, loss))
    test = result["test"]
    if test.get("results"):
        own, *others = test["results"]
        sentences.append(
            f"On the {test['rows']:,} test rows its {loss} is {number(own['loss'])}{_score(own)}; "
            f"90 % of such tests were expected within {number(estimate['low'])} to {number(estimate['high'])}."
        )
        sentences.append(_against(own, [o for o in others if o["name"] != "recommendation"], loss))
    return sentences


def _gain(final: Document, loss: str) -> str:
    by_name = {c["name"]: c for c in final["contenders"]}
    winner, advised = by_name[final["winner"]], by_name["recommendation"]
    if final["winner"] == "recommendation":
        return (
            f"Tuning gained nothing over the recommendation ({final['reason']}): it is kept, "
            f"with {loss} {number(advised['held_out_loss'])} on rows that chose nothing."
        )
    gain = 1 - winner["held_out_loss"] / advised["held_out_loss"] if advised["held_out_loss"] else 0.0
    return (
        f"Use the tuned model ({final['winner']}): {loss} {number(winner['held_out_loss'])} against "
        f"{number(advised['held_out_loss'])} for the recommendation, {gain:.1%} less, on rows that did not choose it."
    )


def _score(entry: Document) -> str:
    if "accuracy" in entry:
        return f", accuracy {entry['accuracy']:.1%}"
    return f", R2 {entry['r2']:.3f}"


def _against(own: Document, baselines: Sequence[Document], loss: str) -> str:
    best = min(baselines, key=lambda entry: entry["loss"])
    both = f"{loss} {number(best['loss'])} on the same test rows, the network {number(own['loss'])}"
    difference = best["difference_to_network"]
    if difference["mean"] > 0:
        return f"The best baseline ({best['name']}) has {both}: the network is ahead."
    if -difference["mean"] > BEYOND_CHANCE * difference["standard_error"]:
        return f"{NOT_A_NETWORK}: the {best['name']} baseline has {both}."
    return f"The {best['name']} baseline is as good within chance, and simpler: it has {both}."


def summary(recommendation: Document, facts: Document) -> str:
    """The recommendation for a terminal: the data, what is wrong with it, the choices by topic with their reasons."""
    values, data = facts["values"], recommendation["data"]
    lines = [
        f"{data['name']}: {values['rows']:,} training rows, {values['features']} features, "
        f"target '{data['target']}' ({values['task']}); {values['rows_test']:,} rows set apart for the test",
        "columns: " + ", ".join(_type_counts(facts["columns"])),
        "",
    ]
    for finding in recommendation["findings"]:
        actions = f" -> {finding['actions'][0]}" if finding["actions"] else ""
        lines.append(f"{SEVERITIES[finding['severity']]} {finding['message']}{actions}")
    for topic, entries in topics(recommendation):
        lines += ["", topic]
        lines += [f"  {e['name']:24} {e['value']:16} {e['searched']:28} {e['because']}" for e in entries if e["moved"]]
        rest = [f"{e['name']} {e['value']}" for e in entries if not e["moved"]]
        if rest:
            lines.append(f"  unchanged: {', '.join(rest)}")
    return "\n".join(lines)


def _type_counts(columns: Sequence[Document]) -> list[str]:
    counts: dict[str, int] = {}
    for column in columns:
        counts[column["type"]] = counts.get(column["type"], 0) + 1
    return [f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])] or ["none"]


def topics(recommendation: Document) -> list[tuple[str, list[dict[str, Any]]]]:
    """The parameters by topic, in their order: name, value, what is still searched, because, steps, yours."""
    entries = [_entry(name, recommendation) for name in recommendation["provenance"]]
    return [(topic, list(group)) for topic, group in groupby(entries, key=lambda entry: str(entry["topic"]))]


def _entry(name: str, recommendation: Document) -> dict[str, Any]:
    provenance = recommendation["provenance"][name]
    final = provenance["final"]
    return {
        "name": name,
        "topic": provenance["topic"],
        "meaning": provenance["meaning"],
        "value": number(recommendation["configuration"][name]),
        "searched": _range(final),
        "because": provenance["because"],
        "steps": provenance["steps"],
        "base": provenance["base"],
        "moved": bool(provenance["steps"]),
        "yours": provenance["yours"],
    }


def _range(state: Document) -> str:
    if "low" in state:
        return f"{'0 or ' if state.get('zero') else ''}{number(state['low'])} to {number(state['high'])}"
    return "one of " + ", ".join(number(choice) for choice in state["choices"]) if "choices" in state else "fixed"


def render_html(recommendation: Document, facts: Document, result: Document | None) -> str:
    """One self-contained page; the same bytes for the same run."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("advisor", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["state"] = lambda state: f"{number(state['value'])} ({_range(state)})"
    return environment.get_template("report.html").render(
        recommendation=recommendation,
        facts=facts,
        columns=facts["columns"][:MOST_COLUMNS],
        topics=topics(recommendation),
        result=result,
        verdict=verdict(result) if result else [],
        charts=_charts(result) if result else {},
        version=__version__,
    )


def _charts(result: Document) -> dict[str, str]:
    search, loss = result.get("search"), result["loss"]
    if search is None:
        return {"curves": charts.curves({"recommendation": list(enumerate(result["curve"], start=1))}, loss)}
    complete = [t for t in search["trials"] if t["end"] == "complete" and t["value"] is not None]
    finished = sorted(complete, key=lambda trial: trial["value"])
    shown = [t for t in finished if t["origin"] == "recommendation"] + finished[:CURVES_SHOWN]
    lines = {t["origin"] if t["origin"] in charts.REFERENCES else f"trial {t['number']}": t["curve"] for t in shown}
    return {
        "history": charts.history(search["trials"], loss),
        "curves": charts.curves(lines, loss),
        "importances": charts.bars(search["importances"], "share of the loss's variation", "Parameter importances"),
    }


def write_report(run: RunFolder, recommendation: Document, facts: Document, ledger: Document, result: Document | None) -> None:
    """report.html and report.json of a run. Without a new result, one that the run has already stays in the report."""
    from advisor.run_folder import FORMAT, read_json, write_json, write_text

    if result is None and run.result.is_file():
        result = read_json(run.result)
    document = {"recommendation": recommendation, "facts": facts, "ledger": ledger, "result": result}
    write_json(run.report_json, {"format": FORMAT, **document})
    write_text(run.report_html, render_html(recommendation, facts, result))
