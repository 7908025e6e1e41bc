"""The model card: what a saved model is for, how good it is, what it was trained on, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.facts.schema import Facts
from advisor.report.verdict import verdict
from advisor.report.wording import number
from advisor.rules.recommendation import Recommendation
from advisor.runs.result import Configuration, FinalReport, RunReport
from advisor.tasks import task_of

CARD = "README.md"
"""Its name in the model's folder."""


def model_card(recommendation: Recommendation, facts: Facts, report: RunReport) -> str:
    """The card of a run's model."""
    setup, test, values = report.setup, report.test, facts.values
    data = setup.data
    findings = [one for one in recommendation.findings if one.severity in ("error", "warning")]
    rows = f"{values['rows']:,} training rows of {data.name}"
    classes = f"; classes: {', '.join(map(str, setup.classes))}" if setup.classes else ""
    columns = ", ".join(column.name for column in facts.columns) or "the values of each row"
    versions = ", ".join(f"{name} {version}" for name, version in setup.versions.items())
    lines = [
        f"# Model of {data.target}",
        "",
        f"Predicts {data.target} ({setup.task}{classes}). Trained on {rows} by the tuning advisor "
        f"{setup.advisor}.",
        "",
        "## How good it is",
        "",
        *(f"- {sentence}" for sentence in verdict(report, ())[:-1]),
        "",
        *_scores(report),
        "## What it was trained on",
        "",
        f"- Columns: {columns}",
        f"- Test rows: {test.rows:,} ({test.origin})",
        f"- Seed {setup.seed}; {versions}",
        "",
        "## Limits",
        "",
        *(f"- {one.message}" for one in findings),
        "- The losses hold for rows like the training rows; `advisor predict` reports rows in another "
        "format.",
        "",
        "## Configuration",
        "",
        "| Parameter | Value |",
        "|---|---|",
        *(f"| {name} | {number(value)} |" for name, value in _configuration(report.final).items()),
        "",
        "## How to use it",
        "",
        "```python",
        "import advisor",
        "",
        'advisor.load_model("RUN").predict(rows)',
        "```",
        "",
    ]
    return "\n".join(lines)


def _scores(report: RunReport) -> Sequence[str]:
    """The network beside the baselines on the test rows."""
    if not report.test.results:
        return ["No test rows.", ""]
    score = task_of(report.setup.task).score
    rows = [f"| {one.name} | {one.loss:.4g} | {getattr(one, score):.4g} |" for one in report.test.results]
    return [f"| On the test rows | {report.setup.loss} | {score} |", "|---|---|---|", *rows, ""]


def _configuration(final: FinalReport) -> Configuration:
    return final.contender(final.winner).configurations[0]
