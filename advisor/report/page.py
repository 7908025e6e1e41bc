"""Recommendation, facts and result -> one HTML page, the same as Markdown, and report.json.
Computes nothing: it shows what report.json holds."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from advisor import __version__
from advisor.documents import to_plain
from advisor.evaluation.judgement import Diagnosis
from advisor.facts.schema import Facts
from advisor.files import FORMAT, write_json, write_text
from advisor.report import charts, plots
from advisor.report.verdict import BEYOND_CHANCE, deciding
from advisor.report.view import named_places, shown_trials, view_of, winners
from advisor.report.wording import (
    MOST_NAME,
    bounded,
    cut_middle,
    fact_words,
    measured_words,
    names_words,
    number,
    percent,
    range_words,
    without_folders,
)
from advisor.rules.provenance import LedgerEntry
from advisor.rules.recommendation import Recommendation
from advisor.runs.folder import RunFolder
from advisor.runs.result import RECOMMENDED, PlacedTrial, RunReport, SearchReport, read_result
from advisor.tasks import task_of

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_IMPORTANT = 15
"""Columns whose importance is drawn."""
CHARTS = (
    "target",
    "fields",
    "history",
    "packing",
    "memory",
    "curves",
    "final_curves",
    "importances",
    "parallel",
    "roc",
    "precision_recall",
    "box_precision_recall",
    "pairs",
    "uses",
    "final",
    "test",
    "calibration",
    "residuals",
)
"""All that the page may draw."""


def render_html(
    recommendation: Recommendation,
    facts: Facts,
    result: RunReport | None,
    ledger: Mapping[str, LedgerEntry] | None = None,
) -> str:
    """One self-contained page; the same bytes for the same run. Its one script sorts, filters and copies."""
    from markupsafe import Markup

    environment = _html_pages()
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "report.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    view = view_of(recommendation, facts, result, ledger)
    small = {
        name: [(title, Markup(svg)) for title, svg in some if svg]
        for name, some in _small_charts(result).items()
    }
    drawn = dict.fromkeys(CHARTS, Markup(""))  # what could not be drawn is empty, and the page says so
    drawn |= {name: Markup(svg) for name, svg in _charts(result, facts).items()}
    if network := view.network:
        drawn["fields"] = Markup(charts.fields(network.layers, network.needed, max(network.size)))
    return environment.get_template("report.html").render(
        **vars(view),
        version=__version__,
        charts=drawn,
        small=small,
        script=Markup(script),
        digest=digest,
        whole=lambda text: Markup(escape(text)),
    )


def render_markdown(
    recommendation: Recommendation,
    facts: Facts,
    result: RunReport | None,
    ledger: Mapping[str, LedgerEntry] | None = None,
) -> str:
    """The same sections as text, for a ticket or a terminal."""
    view = view_of(recommendation, facts, result, ledger)
    text = _text_pages().get_template("report.md").render(**vars(view), version=__version__, whole=_Whole)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache  # a template is compiled once in a process
def _html_pages() -> Environment:
    from markupsafe import Markup

    pages = _pages(autoescape=True, finalize=lambda value: bounded(value) if type(value) is str else value)
    pages.filters |= {
        "spark": lambda counts: Markup(charts.spark(counts)),
        "lines": lambda series: Markup(charts.lines(series)),
        "heat": lambda heat: Markup(plots.heat_overlay(heat)),
    }
    return pages


@cache
def _text_pages() -> Environment:
    return _pages(autoescape=False, finalize=_markdown)  # which escapes everything for Markdown


def _pages(*, autoescape: bool, finalize: Callable[[Any], Any]) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("advisor.report", "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    pages.filters |= _filters()
    return pages


class _Whole(str):
    """Text that a template shows as it is."""


def _markdown(value: Any) -> Any:
    """Escapes what would be Markdown or HTML, and breaks no table."""
    if type(value) is not str:
        return value
    shown = bounded(value)
    # one line, but with the blank at an end that a template puts between two values
    ends = [" " if shown[:1].isspace() else "", " " if shown[-1:].isspace() else ""]
    text = " ".join(shown.split())
    text = f"{ends[0]}{text}{ends[1]}" if text else ends[0]
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text)


def busy_share(packing: Sequence[PlacedTrial]) -> float:
    """The share of the workers' time that was spent in trials, from the first
    one's beginning to the last one's end."""
    workers = {(row.device, row.worker) for row in packing}
    span = max(row.ended for row in packing) - min(row.began for row in packing)
    return sum(row.ended - row.began for row in packing) / (len(workers) * span) if span > 0 else 1.0


def _filters() -> dict[str, Any]:
    return {
        "task": task_of,
        "number": number,
        "percent": percent,
        "words": fact_words,
        "names": names_words,
        "busy": busy_share,
        "measured": measured_words,
        "file": without_folders,
        "name": lambda text: cut_middle(str(text), MOST_NAME),
        "state": lambda state: f"{number(state['value'])} ({range_words(state)})",
        "facts": lambda facts: ", ".join(f"{name} = {fact_words(value)}" for name, value in facts.items()),
    }


def _charts(result: RunReport | None, facts: Facts) -> dict[str, str]:
    drawn: dict[str, str] = {}
    if bars := facts.target.histogram:
        drawn["target"] = charts.histogram(
            bars.low, bars.high, bars.counts, "target, its middle 98 %", "The target"
        )
    if result is None:
        return drawn
    loss = result.setup.loss
    drawn |= _search_charts(result.search, loss) if result.search else _training_chart(result, loss)
    drawn["final_curves"] = _final_curves(result, loss)
    by = deciding(result)
    compared = [(c.name, by.of_contender(c)) for c in result.final.contenders]
    pairs = [(name, d.mean, d.standard_error) for name, d in compared if d]
    drawn["final"] = charts.difference_chart(pairs, by.words, BEYOND_CHANCE)
    tested = [(r.name, by.of_score(r)) for r in (result.test.results or ())[1:]]
    drawn["test"] = charts.difference_chart(
        [(n, d.mean, d.standard_error) for n, d in tested], by.words, BEYOND_CHANCE
    )
    if result.test.explanation:
        rows = [(one.name, one.mean, one.low, one.high) for one in result.test.explanation.importances]
        drawn["uses"] = plots.importance_plot(rows[:MOST_IMPORTANT], loss)
    return drawn | _prediction_charts(result)


def _training_chart(result: RunReport, loss: str) -> dict[str, str]:
    validation, training = (
        [(float(epoch), one) for epoch, one in enumerate(losses or (), start=1)]
        for losses in (result.curve, result.train_curve)
    )
    return {"curves": plots.curves_plot([plots.DrawnCurve(RECOMMENDED, validation, training)], loss)}


def _final_curves(result: RunReport, loss: str) -> str:
    """Of each contender's training on the first partition of the final."""
    drawn = [
        plots.DrawnCurve(one.name, one.curves[0].validation, one.curves[0].training)
        for one in result.final.contenders
        if one.curves
    ]
    return plots.curves_plot(drawn, loss, "Learning curves of the final")


def _search_charts(search: SearchReport, loss: str) -> dict[str, str]:
    placed = named_places(search.packing or ())  # a run of before there was one has none
    pruned = {trial.number for trial in search.trials if trial.end == "pruned"}
    shown = shown_trials(search).items()
    curves = [plots.DrawnCurve(name, trial.curve, trial.train_curve or ()) for name, trial in shown]
    return {
        "history": plots.history_plot(_drawn_trials(search), loss),
        "parallel": plots.parallel_plot(_drawn_trials(search), _varied(search), loss),
        "packing": charts.packing(placed, pruned),
        "memory": charts.memory_chart(placed),
        "curves": plots.curves_plot(curves, loss),
        "importances": charts.bars(
            search.importances, "share of the loss's variation", "Parameter importances"
        ),
    }


def _drawn_trials(search: SearchReport) -> list[plots.DrawnTrial]:
    return [
        plots.DrawnTrial(trial.number, trial.origin, trial.end, trial.value, trial.configuration)
        for trial in search.trials
    ]


def _varied(search: SearchReport) -> list[str]:
    """The parameters that differ between trials, the most important first."""
    names = {name for trial in search.trials for name in trial.configuration}
    varied = [n for n in sorted(names) if len({str(t.configuration.get(n)) for t in search.trials}) > 1]
    return sorted(varied, key=lambda name: -search.importances.get(name, 0.0))


def _small_charts(result: RunReport | None) -> dict[str, list[tuple[str, str]]]:
    """Charts that stand side by side, each with its title: slices of the search, partial dependences."""
    drawn: dict[str, list[tuple[str, str]]] = {"slices": [], "dependences": []}
    if result is None:
        return drawn
    if result.search:
        trials = _drawn_trials(result.search)
        drawn["slices"] = plots.slice_plots(trials, _varied(result.search), result.setup.loss)
    if result.test.explanation:
        target = str(result.setup.data.target or "prediction")
        drawn["dependences"] = [
            (one.name, plots.dependence_plot(one.name, one.at, one.predicted, target))
            for one in result.test.explanation.dependences
        ]
    return drawn


def _prediction_charts(result: RunReport) -> dict[str, str]:
    predictions, drawn = result.test.predictions or Diagnosis(), {}
    if found := predictions.curves:
        at = found.at
        labels = ("ROC curve", "false positive rate", "recall")
        drawn["roc"] = plots.curve_plot(found.roc, (at.false_positive_rate, at.recall), labels, None)
        used = None if at.precision is None else (at.recall, at.precision)
        labels = ("Precision-recall curve", "recall", "precision")
        drawn["precision_recall"] = plots.curve_plot(found.pr, used, labels, found.share)
    if boxes := predictions.per_box:
        curves = [one.curve for one in boxes if one.curve]
        mean = [(point[0][0], sum(p for _, p in point) / len(point)) for point in zip(*curves, strict=True)]
        labels = ("Precision-recall curve, mean of the classes", "recall", "precision")
        drawn["box_precision_recall"] = plots.curve_plot(mean, None, labels, 0.0)
    if predictions.pairs:
        drawn["pairs"] = plots.pairs_plot(predictions.pairs, str(result.setup.data.target or "target"))
    if predictions.calibration:
        drawn["calibration"] = charts.reliability(predictions.calibration.bins)
    if bars := predictions.residual_histogram:
        beyond = bars.below + bars.above
        label = "prediction minus truth" + (f"; {beyond:,} rows lie beyond" if beyond else "")
        drawn["residuals"] = charts.histogram(bars.low, bars.high, bars.counts, label, "Residuals")
    return drawn


def report_document(
    recommendation: Recommendation,
    facts: Facts,
    ledger: Mapping[str, LedgerEntry],
    result: RunReport | None,
) -> dict[str, Any]:
    """What report.json holds."""
    return {
        "format": FORMAT,
        "advisor": __version__,
        "recommendation": recommendation.to_dict(),
        "facts": facts.to_dict(),
        "ledger": to_plain(ledger),
        "result": None if result is None else result.to_dict(),
        "model": to_plain(winners(recommendation, result)),
    }


def write_report(
    run: RunFolder,
    recommendation: Recommendation,
    facts: Facts,
    ledger: Mapping[str, LedgerEntry],
    result: RunReport | None,
) -> None:
    """report.html and report.json of a run. Without a new result, one that the
    run has already stays in the report."""
    if result is None and run.result.is_file():
        result = read_result(run)
    write_json(run.report_json, report_document(recommendation, facts, ledger, result))
    write_text(run.report_html, render_html(recommendation, facts, result, ledger))
