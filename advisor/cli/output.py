"""What the commands print: JSON documents, the verdict of a run, how to resume one."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from advisor.console import echo, say

if TYPE_CHECKING:
    from advisor.rules.recommendation import Recommendation
    from advisor.workflows.python.run_result import RunResult

EXIT_BUG, EXIT_USER, EXIT_CHECK, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_WIDTH = 80
"""Columns of a terminal that does not report its width."""
WIDEST_TEXT = 100
"""Columns of running text: longer lines are hard to read."""


@contextmanager
def stdout_kept(as_json: bool) -> Iterator[None]:
    """While stdout is reserved for one JSON document, what a user's own code prints
    goes to stderr, from C as well."""
    if not as_json or sys.stdout is None or sys.stderr is None:
        yield
        return
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(own, 1)
        os.close(own)


def echo_json(document: Any) -> None:
    """The document on stdout."""
    click.echo(json_text(document))


def json_text(document: Any) -> str:
    """JSON whose control characters are all escaped: JSON itself lets those beyond ASCII through."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    return "".join(c if c == "\n" or c.isprintable() or c > "\uffff" else f"\\u{ord(c):04x}" for c in text)


def terminal_width(default: int = DEFAULT_WIDTH) -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((default, 24)).columns


def wrapped(text: str) -> str:
    """A paragraph in lines that a terminal shows whole."""
    return textwrap.fill(text, width=min(WIDEST_TEXT, terminal_width(WIDEST_TEXT)), break_long_words=False)


def show_result(result: RunResult, as_json: bool) -> None:
    """The verdict of a run, where its report is and the next command; or its whole document."""
    from advisor.report.verdict import predict_with, verdict
    from advisor.runs.advice import read_run
    from advisor.runs.remote import url_or_path
    from advisor.runs.result import RunReport

    assert isinstance(result.report, RunReport), "an interrupted run has no verdict"
    kept = read_run(result.folder)
    run = kept.run
    if as_json:
        echo_json({"run": url_or_path(run), **result.document})
        return
    for sentence in verdict(result.report, kept.recommendation.findings):
        echo(sentence)
    own = result.report.objective
    if not own:
        step = f"advisor predict {url_or_path(run)} {predict_with(result.report)}"
    elif own.kept:
        step = f"your objective saved its models in {run.winner}"
    else:
        step = "train your model with the winner's configuration"
    echo("", f"report: {run.report_html}", f"next:   {step}")


def leave_interrupted(result: RunResult, trials: int | None) -> None:
    """If a search was stopped, say what can be done with it, and exit.

    trials: the number asked for, or None.
    """
    if not result.interrupted:
        return
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import url_or_path

    run, done = url_or_path(RunFolder(result.folder)), len(result.report.trials)
    asked = "" if trials is None else f" --trials {trials}"
    say(f"interrupted: {done} of {trials or done} trials are kept; resume with: advisor tune {run}{asked}")
    if done:
        say(f"or build a model from these trials: advisor finish {run}")
    raise click.exceptions.Exit(EXIT_INTERRUPTED)


def show_difference(one: Recommendation, other: Recommendation, as_json: bool) -> None:
    """How two recommendations differ: parameters and findings."""
    from advisor.report.reasons import difference
    from advisor.rules.provenance import compare_findings, compare_recommendations

    changes, findings = compare_recommendations(one, other), compare_findings(one, other)
    if as_json:
        echo_json({"parameters": [vars(change) for change in changes], "findings": findings})
    else:
        echo(*difference(changes, findings).splitlines())


def fail_check() -> None:
    """Exit with the code of a failed check."""
    raise click.exceptions.Exit(EXIT_CHECK)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines; every column but the last is as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([*(f"{cell:{w}}" for cell, w in zip(row[:-1], widths, strict=False)), row[-1]] for row in rows)
    return ["  ".join(cells) for cells in padded]
