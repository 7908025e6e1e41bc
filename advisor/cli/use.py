"""What is done with a run that has ended: predict, enrol, report, export, compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.options import Choice, examples, image_root_option, json_option, run_argument
from advisor.cli.output import columns, echo_json, json_text
from advisor.console import echo, say

if TYPE_CHECKING:
    import polars as pl

FORMULA = r"^[=+\-@\t\r]"
"""How a text begins that a spreadsheet would run."""
NUMBER_OR_SIGN = r"^[-+](?:\d[\d.,]*(?:[eE][-+]?\d+)?%?)?$"
"""Texts that begin like a formula and are none: -1 and +1, - and +."""


@click.command(
    epilog=examples(
        "advisor predict runs/data new_rows.csv --out predictions.csv",
        "advisor predict runs/cells new_images/ --out masks/",
    )
)
@run_argument("run")
@click.argument("rows")
@click.option(
    "--out",
    metavar="FILE",
    help="Where to write the CSV; by default stdout. Of masks: a folder for PNG files. Of boxes: "
    "also a .json file (COCO).",
)
@click.option(
    "--raw", is_flag=True, help="Write texts unchanged even if a spreadsheet would run them as formulas."
)
@click.option(
    "--strict", is_flag=True, help="Refuse rows if a column's format differs from the training rows."
)
@click.option(
    "--encoding", metavar="NAME", help="Encoding of a text file; by default as in training, or detected."
)
@click.option(
    "--sheet",
    metavar="NAME",
    help="Sheet of a spreadsheet; by default as in training, or the first that holds a table.",
)
@click.option(
    "--interval",
    type=float,
    metavar="SHARE",
    help="Add low and high, or for classes the set, that hold the truth so often: 0.9.",
)
@image_root_option
@json_option
def predict(run: str, rows: str, out: str | None, raw: bool, as_json: bool, **options: Any) -> None:
    """Predict ROWS with the model of RUN. ROWS are like the training rows: a table, a
    folder of images, a file of series.

    The result is a CSV with a column prediction, or with a row for each box; or a folder of masks, or a
    file of boxes in COCO's form.
    """
    from advisor import load_model
    from advisor.files import write_bytes
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import predictions
    from advisor.runs.remote import url_or_path

    found = predictions(load_model(run), rows, **options)
    table, extra = found.table, found.unused
    if extra:
        names = f"{', '.join(extra[:5])}{' ...' if extra[5:] else ''}"
        say(f"note: {len(extra)} columns of {rows} are not used: {names}")
    for sentence in [*(change.message for change in found.changes), *found.told.values()]:
        say(f"note: {sentence}")
    if found.files and out and not out.endswith(".csv"):
        _write_all(Path(out), found.files)
        if not as_json:
            say(f"{len(found.files):,} {'file' if len(found.files) == 1 else 'files'}: {out}")
            return
    if as_json:
        document = {
            "run": url_or_path(RunFolder(Path(run))),
            "rows": table.height,
            "out": out,
            "changes": [vars(change) for change in found.changes],
            "reading": dict(found.told),
        }
        echo_json({**document, "predictions": table.to_dicts() if not out else None})
        if found.files and out and not out.endswith(".csv"):
            return
    written, quoted = (table, 0) if raw else without_formulas(table)
    if quoted and (out or not as_json):
        say(f"note: {quoted:,} texts look like formulas and got a leading '; --raw leaves them as they are")
    if out:
        write_bytes(Path(out), written.write_csv().encode())
        if not as_json:
            say(f"{table.height:,} predictions: {out}")
    elif not as_json:
        click.echo(written.write_csv(), nl=False)


@click.command(
    epilog=examples(
        "advisor enrol runs/birds new_birds/kestrel/", "advisor enrol runs/data moths.csv --name moth"
    )
)
@run_argument("run")
@click.argument("examples", metavar="EXAMPLES")
@click.option("--name", metavar="CLASS", help="Name of the class; by default that of the file or folder.")
@click.option(
    "--encoding", metavar="NAME", help="Encoding of a text file; by default as in training, or detected."
)
@click.option(
    "--sheet",
    metavar="NAME",
    help="Sheet of a spreadsheet; by default as in training, or the first that holds a table.",
)
@image_root_option
@json_option
def enrol(run: str, examples: str, as_json: bool, **options: Any) -> None:
    """Add a class to the model of RUN from EXAMPLES of it, without training: a table, a folder of images, a
    file of series.

    The run needs a cosine classifier (--fixed classifier=cosine). The model before stays in RUN/model-1.
    """
    from advisor import enrol as add_class

    done = add_class(run, examples, **options)
    if as_json:
        echo_json(done.to_dict())
        return
    for sentence in done.told:
        say(f"note: {sentence}")
    say(
        f"{done.model} knows {done.classes} classes now, with '{done.label}' from {done.rows:,} "
        f"example{'s' * (done.rows != 1)}; the model before is {done.former}"
    )
    say("note: the numbers of the report are of the model before: no row has tested the new class")
    if done.false_alarms is not None:
        say(
            f"note: predict's column unlike_any_class marked {done.false_alarms:.1%} of the held-out rows "
            "of known classes"
        )


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """The files into a folder, beside what is there already; one alone under the name of a file like it."""
    from advisor.errors import UserError
    from advisor.files import write_bytes

    alone = len(files) == 1 and folder.suffix == Path(next(iter(files))).suffix
    if alone:  # a name like the file's is one of a file
        write_bytes(folder, next(iter(files.values())))
        return
    if folder.is_file():
        raise UserError(f"{folder} is a file; predictions are written into a folder: name another place")
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, content)


def without_formulas(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The table with a ' before each text (headers too) that a spreadsheet would
    run, and the number of these texts.

    Numbers are no texts: a negative one stays a number.
    """
    import polars as pl

    texts = [pl.col(name) for name, kind in table.schema.items() if kind == pl.String]
    begins = [text.str.contains(FORMULA) & ~text.str.contains(NUMBER_OR_SIGN) for text in texts]
    quoted = sum(table.select(*(one.sum() for one in begins)).row(0)) if texts else 0
    quotes = (
        pl.when(one).then(pl.lit("'") + text).otherwise(text) for one, text in zip(begins, texts, strict=True)
    )
    safe = table.with_columns(
        *(quote.alias(text.meta.output_name()) for quote, text in zip(quotes, texts, strict=True))
    )
    names = {name: f"'{name}" for name in table.columns if name.startswith(("=", "+", "-", "@", "\t", "\r"))}
    return safe.rename(names), quoted + len(names)


@click.command(
    epilog=examples(
        "advisor report runs/data --out report.md", "advisor report runs/data --format json --out report.json"
    )
)
@run_argument("run")
@click.option(
    "--format",
    "form",
    type=Choice(("html", "markdown", "json")),
    default="markdown",
    show_default=True,
    help="Format of the report.",
)
@click.option("--out", metavar="FILE", help="Where to write it; by default stdout.")
def report(run: str, form: str, out: str | None) -> None:
    """Render the report of RUN again from its files, as HTML, Markdown or JSON."""
    from advisor.files import write_bytes
    from advisor.report.page import render_html, render_markdown, report_document
    from advisor.runs.advice import read_run
    from advisor.runs.result import read_result

    kept = read_run(Path(run))
    recommendation, facts, ledger = kept.recommendation, kept.facts, kept.ledger()
    result = read_result(kept.run) if kept.run.result.is_file() else None
    if form == "json":
        text = json_text(report_document(recommendation, facts, ledger, result)) + "\n"
    else:
        text = (render_html if form == "html" else render_markdown)(recommendation, facts, result, ledger)
    if out:
        write_bytes(Path(out), text.encode())
        say(f"report: {out}")
    else:
        click.echo(text, nl=False)


@click.command(
    epilog=examples("advisor export runs/data", "advisor export runs/data --format script --out model.py")
)
@run_argument("run")
@click.option(
    "--format",
    "form",
    type=Choice(("onnx", "torch", "script")),
    default="onnx",
    show_default=True,
    help="onnx: for onnxruntime, with the preprocessing inside; torch: for torch.export.load; script: one "
    "plain PyTorch file that trains the configuration and predicts.",
)
@click.option("--out", metavar="FILE", help="Where to write it; by default into the run folder.")
@json_option
def export(run: str, form: str, out: str | None, as_json: bool) -> None:
    """Write the model of RUN for other programs, checked against its own predictions; or its configuration
    as a program of your own."""
    from advisor import export as export_run

    written = export_run(run, format=form, out=out)
    if as_json:
        echo_json({**vars(written), "path": str(written.path)})
        return
    for name, cells in getattr(written, "inputs", {}).items():
        echo(f"input {name}: {', '.join(cells)}")
    if (difference := getattr(written, "difference", None)) is None:
        for note in written.notes:
            say(f"note: the file leaves out {note}")
        say(f"{written.path}: python {written.path} train DATA, then predict ROWS")
        return
    for note in written.notes:
        say(f"note: to be done before: {note}")
    for note in getattr(written, "left_out", ()):
        say(f"note: the file leaves out {note}")
    say(f"{written.path}: differs from the model by at most {difference:.2g}")


@click.command(epilog=examples("advisor compare runs/a runs/b", "advisor compare runs/a runs/b --json"))
@click.argument("runs", nargs=-1, required=True)
@json_option
def compare(runs: Sequence[str], as_json: bool) -> None:
    """A leaderboard of RUNS: expected loss with its interval, test loss, trials, seconds."""
    from advisor import compare as compare_runs

    table = compare_runs(*runs)
    if as_json:
        echo_json(json.loads(table.to_json(orient="records")))
        return
    shown = table.to_dict("records")
    cells = [[_cell(row[name]) for name in table.columns] for row in shown]
    echo(*columns([list(table.columns), *cells]))


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN: a run without it
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
