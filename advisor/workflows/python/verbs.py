"""The verbs of the command line that ask something of a run, as functions of the same names and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from advisor.errors import UserError, did_you_mean
from advisor.workflows.options import AdviceKeywords, takes_advice_keywords
from advisor.workflows.python.advised import AdviceDifference, Reason, as_written

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from advisor.checks.inspection import Inspection
    from advisor.checks.preflight_result import Preflight
    from advisor.exporting.formats import Exported
    from advisor.exporting.script import Script
    from advisor.facts.specs.spec import FactSpec
    from advisor.rules.book import Checked, ExampleResult
    from advisor.rules.rule import Rule
    from advisor.workflows.rule_coverage import Coverage
    from advisor.workflows.status import Status

REPORT_FORMATS = ("html", "markdown", "json")


@takes_advice_keywords
def check(
    data: Any = None,
    target: Any = None,
    *,
    factory: str | None = None,
    input_shape: str | None = None,
    loss: str | None = None,
    optimizer: str | None = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seconds: float = 60,
    out: str | Path | None = None,
    **options: Unpack[AdviceKeywords],
) -> Preflight | Inspection:
    """Before you train: does the recommendation for the data learn what it should, and nothing else?

    factory: package.module:function that makes your own network, which is looked at instead, on a batch of
        the data or on ``batch_size`` random rows (32) of ``input_shape`` ("3,224,224").
    loss, optimizer, learning_rate, epochs, batch_size: how that network is trained, as on the command line.
    seconds: about, for all checks together. ``passed`` of the result says whether all is well.
    """
    from advisor.workflows.check import TrainingPlan, check_module, check_recommendation

    place = None if out is None else str(out)
    if factory is not None:
        plan = TrainingPlan(loss, optimizer, learning_rate, epochs, batch_size)
        return check_module(factory, data, input_shape, plan, target, place, options)
    if data is None or input_shape is not None:
        raise UserError("say what to check: data, or factory with data or input_shape")
    return check_recommendation(data, target, place, options, seconds=seconds)


def status(run: str | Path) -> Status:
    """Where the search in a run stands: who drives it, what is done, what is running, the best so far."""
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import local_copy
    from advisor.workflows.status import read_status

    return read_status(RunFolder.open(local_copy(run)))


def stop(run: str | Path, *, wait: float = 60) -> str:
    """Stop the search in a run, from another process or machine, and wait this many seconds for its end.

    "nobody": none was running; "stopped": it has ended, and ``tune`` goes on with it; "asked": not ended yet.
    """
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import local_copy
    from advisor.workflows.status import request_stop

    return request_stop(RunFolder.open(local_copy(run)), wait)


def predict(
    run: str | Path,
    rows: Any,
    *,
    strict: bool = False,
    encoding: str | None = None,
    sheet: str | None = None,
    interval: float | None = None,
) -> pl.DataFrame:
    """What ``advisor predict`` writes, for a file, a folder or a frame of rows: ``prediction``, and for
    classes a ``probability_CLASS`` for each; of masks the share of each class. ``load_model`` predicts
    arrays,
    and masks.

    interval: such as 0.9, adds ``low`` and ``high``, or for classes ``set``: where the truth lies so often.
    """
    from advisor.runs.model import load_model, predictions

    return predictions(
        load_model(run), rows, strict=strict, encoding=encoding, sheet=sheet, interval=interval
    ).table


def report_of(run: str | Path, *, form: str = "markdown") -> str:
    """The report of a run, made again from its files: "html", "markdown" or "json" text.

    ``advisor report`` is this; ``advisor.report`` is the package that draws it.
    """
    if form not in REPORT_FORMATS:
        raise UserError(
            f"form is {form!r}{did_you_mean(form, REPORT_FORMATS)}; expected {', '.join(REPORT_FORMATS)}"
        )
    from advisor.report import page
    from advisor.runs.advice import read_run
    from advisor.runs.remote import local_copy
    from advisor.runs.result import read_result

    kept = read_run(Path(local_copy(run)))
    recommendation, facts, ledger = kept.recommendation, kept.facts, kept.ledger()
    result = read_result(kept.run) if kept.run.result.is_file() else None
    if form != "json":
        render = page.render_html if form == "html" else page.render_markdown
        return str(render(recommendation, facts, result, ledger))
    import json

    document = page.report_document(recommendation, facts, ledger, result)
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def why(run: str | Path, parameter: str | None = None) -> Reason:
    """Why a parameter of a run has its value, or in a line each why all have theirs."""
    from advisor.report.reasons import overview, paragraph
    from advisor.runs.advice import read_run
    from advisor.runs.remote import local_copy

    kept = read_run(Path(local_copy(run)))
    known = kept.recommendation.provenance
    if parameter is None:
        return Reason(overview(kept.recommendation))
    if parameter not in known:
        raise UserError(f"there is no parameter '{parameter}'{did_you_mean(parameter, known)}")
    return Reason(paragraph(kept.ledger(parameter)[parameter]))


def what_if(run: str | Path, changes: Mapping[str, Any]) -> AdviceDifference:
    """What would be recommended for a run if some facts had other values: ``{"rows": 1e6}``."""
    from advisor.runs.advice import imagine, read_run
    from advisor.runs.remote import local_copy

    kept = read_run(Path(local_copy(run)))
    other, along = imagine(kept, {name: as_written(value) for name, value in changes.items()})
    return AdviceDifference.between(kept.recommendation, other, along)


def diff(run_a: str | Path, run_b: str | Path) -> AdviceDifference:
    """How the recommendations of two runs differ, and by which rules."""
    from advisor.runs.advice import read_run
    from advisor.runs.remote import local_copy

    one, other = (read_run(Path(local_copy(run))).recommendation for run in (run_a, run_b))
    return AdviceDifference.between(one, other)


def export(
    run: str | Path, *, format: str = "onnx", out: str | Path | None = None, form: str | None = None
) -> Exported | Script:
    """The model of a run for other programs, checked against its own predictions; or its configuration as a
    program.

    format: "onnx", a file with the preprocessing inside, for onnxruntime; "torch", for ``torch.export.load``;
        "script", one plain PyTorch file that trains the configuration (of a run without a model, the
        recommended one) and predicts, without the advisor. ``form`` is its former name.
    out: the file; by default model.onnx, model.pt2 or model.py in the run folder.
    The result has the file; of a model its inputs, the largest difference, and what must be done before it;
    of a script ``notes``, what it leaves out. UserError where an extra is not installed, the format lacks an
    operation, or no script covers the run.
    """
    from advisor.exporting.formats import export_onnx, export_program
    from advisor.exporting.script import export_script
    from advisor.runs.model import load_model
    from advisor.runs.remote import local_copy
    from advisor.workflows.python.scripts import script_subject

    formats: dict[str, tuple[Callable[[str | Path, Path], Exported | Script], str]] = {
        "onnx": (lambda run, path: export_onnx(load_model(run), path), "model.onnx"),
        "torch": (lambda run, path: export_program(load_model(run), path), "model.pt2"),
        "script": (lambda run, path: export_script(script_subject(Path(local_copy(run))), path), "model.py"),
    }
    chosen = form or format
    if chosen not in formats:
        raise UserError(f"format is {chosen!r}{did_you_mean(chosen, formats)}; expected {', '.join(formats)}")
    write, name = formats[chosen]
    return write(run, Path(local_copy(run)) / name if out is None else Path(out))


def leaderboard(*runs: str | Path) -> pd.DataFrame:
    """A row for each run that has ended, the best expected loss first; ``advisor compare`` is this.

    Columns: run, data, target, rows, winner, loss, low, high (what to expect, with its interval), test (the
    loss of the test rows), score (accuracy, or R2), trials, seconds. Runs on other data than the first say
    so. UserError where there is no result.
    """
    import pandas as pd

    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import local_copy
    from advisor.runs.result import read_result
    from advisor.tasks import task_of

    if not runs:
        raise UserError("name the runs to compare")
    rows, first = [], None
    for run in runs:
        folder = RunFolder.open(local_copy(run))
        folder.need(folder.result, "train or tune it first")
        report, identity = read_result(folder), folder.identity()
        first = first or identity
        setup, estimate, own = report.setup, report.estimate, next(iter(report.test.results or ()), None)
        rows.append(
            {
                "run": str(run),
                "data": str(setup.data.name) + ("" if identity.same_data(first) else " (other data)"),
                "target": setup.data.target,
                "rows": setup.data.rows,
                "winner": report.final.winner,
                "loss": estimate.mean,
                "low": estimate.low,
                "high": estimate.high,
                "test": own.loss if own else None,
                "score": getattr(own, task_of(setup.task).score) if own else None,
                "trials": len(report.trials),
                "seconds": report.seconds,
            }
        )
    return pd.DataFrame(rows).sort_values("loss", ignore_index=True)


# ---------------------------------------------------------------------------------------------- the rule book


def rules_list(*, topic: str | None = None, rules: Sequence[str | Path] = ()) -> tuple[Rule, ...]:
    """The rules, or those of a topic. rules: further folders of them."""
    from advisor.rules import shipped

    book = shipped.rule_book(rules, kind=None)
    topics = sorted({rule.topic for rule in book})
    if topic is not None and topic not in topics:
        known = ", ".join(topics)
        raise UserError(f"no rule has the topic '{topic}'{did_you_mean(topic, topics)}; there are {known}")
    return tuple(rule for rule in book if topic in (None, rule.topic))


def rules_show(rule_id: str, *, rules: Sequence[str | Path] = ()) -> Rule:
    """One rule: what, why, when, sources."""
    book = {rule.id: rule for rule in rules_list(rules=rules)}
    if rule_id not in book:
        raise UserError(f"there is no rule '{rule_id}'{did_you_mean(rule_id, book)}")
    return book[rule_id]


def rules_check(paths: Sequence[str]) -> Checked:
    """The rules in files and folders, and every complaint about them as FILE:LINE: FIELD: what is wrong."""
    from advisor.rules import shipped

    return shipped.check_rule_folders(list(paths))


def rules_test(paths: Sequence[str] = ()) -> list[ExampleResult]:
    """The examples of the rules in some folders, by default the shipped ones, with what each gave."""
    from advisor.rules import shipped

    return list(shipped.run_all_examples(list(paths))[1])


def rules_facts(*, module: bool = False) -> Mapping[str, FactSpec]:
    """The facts that a rule's condition may look at, by name. module: those of your own network and its
    training."""
    from advisor.facts.module_schema import MODULE_FACTS
    from advisor.facts.schema import FACTS

    return MODULE_FACTS if module else FACTS


def rules_coverage(paths: Sequence[str], *, target: str | None = None, rules: Sequence[str] = ()) -> Coverage:
    """Which rules fire on the data sets in some folders or files, and which never do."""
    from advisor.workflows.rule_coverage import cover

    return cover(paths, target, rules)


def rules_docs(*, out: str | Path = "docs/rules", rules: Sequence[str | Path] = ()) -> int:
    """Write a page for every rule, and an index; how many pages there are."""
    from advisor.rules import pages

    return pages.write_pages(rules_list(rules=rules), Path(out))


def rules_schema() -> str:
    """The JSON Schema of a rule file, for editors."""
    from advisor.facts.schema import FACTS
    from advisor.rules import json_schema, shipped
    from advisor.rules.book import fact_names, own_names
    from advisor.spaces.space import union

    spaces = shipped.base_spaces()
    return json_schema.to_json(union(spaces.values()), {**fact_names(FACTS), **own_names(spaces)})
