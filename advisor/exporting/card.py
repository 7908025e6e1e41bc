"""The model card: what a saved model is for, how good it is, what it was trained on, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.report.verdict import verdict
from advisor.report.wording import number
from advisor.runs.result import RunReport

CARD = "README.md"
"""Its name in the model's folder."""


def model_card(recommendation: Mapping[str, Any], facts: Mapping[str, Any], report: RunReport) -> str:
    """The card of a run's model.

    recommendation, facts: what recommendation.yaml and facts.json hold.
    """
    result = report.to_dict()
    data, values = result["data"], facts["values"]
    findings = [one for one in recommendation["findings"] if one["severity"] in ("error", "warning")]
    rows = f"{values['rows']:,} training rows of {data['name']}"
    classes = f"; classes: {', '.join(map(str, result['classes']))}" if result["classes"] else ""
    columns = ", ".join(str(column["name"]) for column in facts["columns"]) or "the values of each row"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"# Model of {data['target']}",
        "",
        f"Predicts {data['target']} ({result['task']}{classes}). Trained on {rows} by the tuning advisor "
        f"{result['advisor']}.",
        "",
        "## How good it is",
        "",
        *(f"- {sentence}" for sentence in verdict(report, ())[:-1]),
        "",
        *_scores(result),
        "## What it was trained on",
        "",
        f"- Columns: {columns}",
        f"- Test rows: {result['test']['rows']:,} ({result['test']['origin']})",
        f"- Seed {result['seed']}; {versions}",
        "",
        "## Limits",
        "",
        *(f"- {one['message']}" for one in findings),
        "- The losses hold for rows like the training rows; `advisor predict` tells of rows in another form.",
        "",
        "## Configuration",
        "",
        "| Parameter | Value |",
        "|---|---|",
        *(f"| {name} | {number(value)} |" for name, value in _configuration(result).items()),
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


def _scores(result: Mapping[str, Any]) -> Sequence[str]:
    """The network beside the baselines on the test rows."""
    entries = result["test"].get("results", ())
    if not entries:
        return ["No test rows.", ""]
    score = "accuracy" if result["classes"] else "r2"
    rows = [f"| {one['name']} | {one['loss']:.4g} | {one[score]:.4g} |" for one in entries]
    return [f"| On the test rows | {result['loss']} | {score} |", "|---|---|---|", *rows, ""]


def _configuration(result: Mapping[str, Any]) -> Mapping[str, Any]:
    won = next(one for one in result["final"]["contenders"] if one["name"] == result["final"]["winner"])
    configuration: Mapping[str, Any] = won["configurations"][0]
    return configuration
