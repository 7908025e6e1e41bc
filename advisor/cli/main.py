"""The command line: parse, call the public names, print. Results on stdout,
everything about how it went on stderr.

Exit codes: 0 done; 1 a bug of ours; 2 something the user can fix; 3 a check
failed; 130 interrupted, can be resumed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from advisor import __version__
from advisor.console import echo, printable, say
from advisor.errors import UserError, did_you_mean
from advisor.search.interrupts import as_ctrl_c

if TYPE_CHECKING:
    import polars as pl

    from advisor.rules.recommendation import Recommendation
    from advisor.workflows.tune import RunResult

MENDABLE = (errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT)
"""What the system may say of a name on the command line, or of stdout, wherever it is met."""
KINDS, TASKS = ("table", "image", "sequence"), ("binary", "multiclass", "regression")
EXIT_BUG, EXIT_USER, EXIT_CHECK, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_WIDTH = 80
"""Columns of a terminal that does not tell."""
FORMULA = r"^[=+\-@\t\r]"
"""How a text begins that a spreadsheet would run."""
NUMBER_OR_SIGN = r"^[-+](?:\d[\d.,]*(?:[eE][-+]?\d+)?%?)?$"
"""Texts that begin so and are no formula: -1 and +1, - and +."""
EXAMPLES = """\b
  advisor recommend data.csv --target income
  advisor tune data.csv --target income --trials 40
  advisor predict runs/data new_rows.csv --out predictions.csv
"""


@contextmanager
def stdout_kept(as_json: bool) -> Iterator[None]:
    """Where stdout is for one JSON document, what a person's own code prints
    meanwhile goes to stderr, from C as well."""
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
    click.echo(_json(document))


def _json(document: Any) -> str:
    """JSON whose control characters are all escaped: JSON itself lets those beyond ASCII through."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    return "".join(c if c == "\n" or c.isprintable() or c > "\uffff" else f"\\u{ord(c):04x}" for c in text)


class Choice(click.Choice[str]):
    """One of a few words; a misspelt one is answered with the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        words = [str(choice) for choice in self.choices]
        return f"'{value}' is not one of {', '.join(words)}{did_you_mean(str(value), words)}"


def pairs(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE options as a dictionary."""
    result = {}
    for value in values:
        name, sign, right = value.rpartition("=") if parameter.name == "types" else value.partition("=")
        if not sign or not name:
            raise UserError(f"{parameter.opts[0]} {value}: write NAME=VALUE")
        result[name] = right
    return result


def fixed_values(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """PARAMETER=VALUE options; numbers and true/false are read as such."""
    return {name: _scalar(text) for name, text in pairs(context, parameter, values).items()}


def _scalar(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _only_under(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """The image root for as long as the command runs."""
    if value is not None:
        from advisor.data.signals.image_paths import image_root

        context.with_resource(image_root(value))


def image_root_option(command: Callable[..., Any]) -> Callable[..., Any]:
    says = "A table may name no image file outside of this folder; for servers."
    return click.option("--image-root", metavar="DIR", expose_value=False, callback=_only_under, help=says)(
        command
    )


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how to read the data and which rules to apply; the same
    for every command that reads data."""
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
        click.option("--target", help="The column to predict."),
        click.option("--test", metavar="FILE", help="A table of test rows; else a part is held out."),
        click.option(
            "--type", "types", multiple=True, metavar="COLUMN=TYPE", callback=pairs, help="Override a type."
        ),
        click.option(
            "--encoding", metavar="NAME", help="Of text files that are not in Unicode; else found out."
        ),
        click.option("--sheet", metavar="NAME", help="Of a spreadsheet; else the first that holds a table."),
        click.option("--kind", type=Choice(KINDS), help="What the rows are; else inferred from the data."),
        click.option("--task", type=Choice(TASKS), help="What to learn; else inferred from the target."),
        click.option("--id-column", help="Sequences in a long table: the column that names the sequence."),
        click.option(
            "--time-column",
            help="Hold out and validate on the latest rows by this column; the time of a sequence.",
        ),
        click.option(
            "--channels",
            type=Choice(("first", "last")),
            help="Arrays of sequences: where they are; else found out.",
        ),
        click.option("--group-column", help="Keep rows with the same value of this column together."),
        click.option(
            "--strict",
            is_flag=True,
            help="Refuse a test table with a column unlike the training rows in form.",
        ),
        click.option(
            "--join-spellings/--keep-spellings",
            default=None,
            help="Read Yes, YES and yes. as one category or class, or as three; by default joined where "
            "that is certain.",
        ),
        click.option(
            "--test-fraction", type=float, default=0.2, show_default=True, help="Share of rows held out."
        ),
        click.option(
            "--seed",
            type=int,
            default=0,
            show_default=True,
            help="Of every random choice, from the rows held out on.",
        ),
        click.option("--rules", multiple=True, metavar="DIR", help="A further folder of rules; repeatable."),
        click.option("--without", multiple=True, metavar="ID", help="Leave out a rule; repeatable."),
        click.option(
            "--set",
            "fixed",
            multiple=True,
            metavar="PARAMETER=VALUE",
            callback=fixed_values,
            help="Your own value.",
        ),
        click.option(
            "--out", metavar="DIR", help="The run folder, or its URL (s3://BUCKET/RUN); by default runs/NAME."
        ),
        image_root_option,
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def running_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where trials and the final run, and for how long; the same
    for every command that runs them."""
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
        click.option(
            "--time-limit", type=float, metavar="SECONDS", help="For the search and the final together."
        ),
        click.option(
            "--executor",
            type=Choice(("ray", "in-process")),
            default="ray",
            show_default=True,
            help="in-process is for debugging.",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="A Ray cluster: HOST:PORT, ray://HOST:PORT or auto; else one is started here.",
        ),
        click.option("--workers", type=int, help="Trials at once; by default one per core."),
        click.option(
            "--gpus-per-worker",
            type=float,
            metavar="SHARE",
            help="GPU share per trial; 0 trains on CPUs. By default a quarter for images and series where "
            "there are GPUs.",
        ),
        click.option(
            "--objective", metavar="MODULE:FUNCTION", help="Your own training code in place of our networks."
        ),
        click.option(
            "--working-dir",
            metavar="DIR",
            help="Where its code lies, by default here; sent to a cluster's workers.",
        ),
        click.option(
            "--storage",
            metavar="URL",
            help="A database for the study: postgresql://, mysql:// or sqlite:///FILE.",
        ),
        click.option("--quiet", is_flag=True, help="No progress on stderr."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def run_argument(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A run folder, or the URL of one, which is then brought here."""
    return click.argument(name, callback=_local)


def _local(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from advisor.runs.remote import here

    return str(here(value))


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")(
        command
    )


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, defaults left out: a run folder knows its own."""
    defaults = {"test_fraction": 0.2, "seed": 0, "strict": False}
    return {name: v for name, v in options.items() if v not in (None, (), {}) and defaults.get(name) != v}


class Commands(click.Group):
    """Click makes exit code 1 of a reader that has left; it is no failure of ours."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            _leave_stdout()
            return 0


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=f"Advice before you tune a neural network, and the tuning.\n\n{EXAMPLES}",
    epilog="Exit codes: 0 done, 1 our bug, 2 something you can fix, 3 a check failed, 130 interrupted "
    "(resumable).",
)
@click.version_option(__version__, prog_name="advisor")
def cli() -> None:
    """See ``help`` above."""


@cli.command()
@click.argument("data")
@click.option(
    "--all", "everything", is_flag=True, help="Every choice with its reason, not only those that matter most."
)
@reading_options
def recommend(
    data: str, everything: bool, as_json: bool, out: str | None, target: str | None, **options: Any
) -> None:
    """What to use, what to search, and why: in seconds, without training.

    DATA is a CSV or Parquet file, sklearn:NAME or openml:ID; a folder of images with a folder for each class;
    or an .npz, .npy, .ts or .arff file of images or sequences.
    """
    from advisor.report.page import summary, write_report
    from advisor.runs.remote import mirrored, url_or_path
    from advisor.workflows.open_run import open_run, write_advice

    advice, run = open_run(data, target, out, given(options))
    with run.in_use(), mirrored(run):
        write_advice(run, advice)
        write_report(run, advice.recommendation.to_dict(), advice.facts.to_dict(), advice.ledger(), None)
    if as_json:
        echo_json(
            {"run": url_or_path(run), "facts": dict(advice.facts.values), **advice.recommendation.to_dict()}
        )
        return
    width = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
    echo(*summary(advice.recommendation.to_dict(), advice.facts.to_dict(), width, everything=everything))
    echo("", f"report: {run.report_html}", f"next:   advisor tune {url_or_path(run)}")


@cli.command()
@click.argument("data")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@reading_options
def train(data: str, quiet: bool, as_json: bool, out: str | None, target: str | None, **options: Any) -> None:
    """Train the recommendation alone: a model without a search. DATA as for recommend, or a run folder."""
    from advisor import fit

    _show(fit(data, target, out=out, progress=not quiet, **given(options)), as_json)


@cli.command()
@click.argument("data")
@click.option(
    "--trials", type=int, default=40, show_default=True, help="How many in all, earlier ones included."
)
@running_options
@click.option(
    "--trial-time-limit",
    type=float,
    metavar="SECONDS",
    help="End a trial, also one that hangs, after so long.",
)
@click.option(
    "--strategy",
    type=Choice(("joint", "staged")),
    default="joint",
    show_default=True,
    help="staged: first learn, then layers.",
)
@click.option(
    "--keep-ranges", is_flag=True, help="Search the advised ranges to the end, whatever learning curves say."
)
@reading_options
def tune(
    data: str,
    trials: int,
    time_limit: float | None,
    executor: str,
    address: str | None,
    workers: int | None,
    gpus_per_worker: float | None,
    trial_time_limit: float | None,
    strategy: str,
    keep_ranges: bool,
    objective: str | None,
    working_dir: str | None,
    storage: str | None,
    quiet: bool,
    as_json: bool,
    out: str | None,
    target: str | None,
    **options: Any,
) -> None:
    """Search around the recommendation on Ray; leave a model and a report. The
    same command goes on with a run.

    DATA as for recommend, or a run folder, or its (edited) recommendation.yaml.
    """
    from advisor import tune as tune_run

    with stdout_kept(as_json):
        result = tune_run(
            data,
            target,
            trials=trials,
            time_limit=time_limit,
            executor=executor,
            address=address,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            trial_time_limit=trial_time_limit,
            strategy=strategy,
            adapt=not keep_ranges,
            objective=objective,
            working_dir=working_dir,
            storage=storage,
            out=out,
            progress=not quiet,
            **given(options),
        )
    _leave_interrupted(result, trials)
    _show(result, as_json)


@cli.command()
@run_argument("run")
@running_options
@json_option
def finish(run: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """End a search that was stopped: the final on the trials that RUN has, a model and a report.

    `advisor tune RUN` can still go on with it later.
    """
    from advisor import finish as finish_run

    with stdout_kept(as_json):
        result = finish_run(run, progress=not quiet, **options)
    _leave_interrupted(result, None)
    _show(result, as_json)


def _leave_interrupted(result: RunResult, trials: int | None) -> None:
    """Where a search was stopped, say what can be done with it, and leave.
    trials: that were asked for, where any were."""
    if not result.interrupted:
        return
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import url_or_path

    run, done = url_or_path(RunFolder(result.folder)), len(result.document["search"]["trials"])
    asked = "" if trials is None else f" --trials {trials}"
    say(f"interrupted: {done} of {trials or done} trials are kept; go on with: advisor tune {run}{asked}")
    if done:
        say(f"or make a model of what is there: advisor finish {run}")
    raise click.exceptions.Exit(EXIT_INTERRUPTED)


@cli.command()
@click.argument("data", required=False)
@click.option(
    "--module",
    "factory",
    metavar="PACKAGE.MODULE:FACTORY",
    help="Your own network in place of the recommended one.",
)
@click.option(
    "--input-shape", metavar="1,28,28", help="With --module: the shape of one row, in place of DATA."
)
@click.option(
    "--batch-size", type=int, default=32, show_default=True, help="With --input-shape: rows in training."
)
@click.option("--seconds", type=float, default=60, show_default=True, help="For all checks together, about.")
@reading_options
def check(
    data: str | None,
    factory: str | None,
    input_shape: str | None,
    batch_size: int,
    seconds: float,
    as_json: bool,
    out: str | None,
    target: str | None,
    **options: Any,
) -> None:
    """Check before you train, in about a minute: does the recommendation for DATA
    learn at all, and nothing it should not?

    DATA as for recommend, or a run folder. With --module your own network is looked at, on a
    batch of DATA or on random numbers. Exit code 3 when a check fails or the network has an
    error; warnings and notes leave it at 0.
    """
    from advisor.workflows.check import check_module, check_recommendation

    if factory is not None:
        with stdout_kept(as_json):
            result: Any = check_module(factory, data, input_shape, batch_size, target, out, given(options))
    elif data is None or input_shape is not None:
        raise UserError(
            "say what to check: DATA, or --module PACKAGE.MODULE:FACTORY with DATA or --input-shape"
        )
    else:
        result = check_recommendation(data, target, out, given(options), seconds=seconds)
    if as_json:
        echo_json(result.to_dict())
    else:
        echo(*str(result).splitlines())
    if not result.passed:
        raise click.exceptions.Exit(EXIT_CHECK)


def _show(result: RunResult, as_json: bool) -> None:
    from advisor.report.page import verdict
    from advisor.runs.advice import read_run
    from advisor.runs.remote import url_or_path

    kept = read_run(result.folder)
    run = kept.run
    if as_json:
        echo_json({"run": url_or_path(run), **result.document})
        return
    for sentence in verdict(result.document, kept.recommendation.to_dict()["findings"]):
        echo(sentence)
    step = f"advisor predict {url_or_path(run)} NEW_ROWS.csv --out predictions.csv"
    if own := result.document.get("objective"):
        step = (
            f"the models are yours: {run.winner}"
            if own["kept"]
            else "train your model with the winner's configuration"
        )
    echo("", f"report: {run.report_html}", f"next:   {step}")


@cli.command()
@click.option(
    "--address", metavar="ADDRESS", help="A Ray cluster to look at too: HOST:PORT, ray://HOST:PORT or auto."
)
@click.option("--storage", metavar="URL", help="A database to look at too.")
@json_option
def doctor(address: str | None, storage: str | None, as_json: bool) -> None:
    """What is wrong with this machine or a cluster, and what to do. Exit code 3
    when something needs fixing."""
    from advisor.cli.doctor import examine

    checks = examine(address, storage)
    wrong = [check for check in checks if check.state == "problem"]
    if as_json:
        echo_json({"healthy": not wrong, "checks": [vars(check) for check in checks]})
    else:
        marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
        for check in checks:
            echo(f"{marks[check.state]} {check.name}: {check.says}{f' -> {check.do}' if check.do else ''}")
        say(
            "nothing needs fixing"
            if not wrong
            else f"needs fixing: {', '.join(check.name for check in wrong)}"
        )
    if wrong:
        raise click.exceptions.Exit(EXIT_CHECK)


@cli.command()
@run_argument("run")
@json_option
def status(run: str, as_json: bool) -> None:
    """Where the search in RUN stands: who drives it, what is done, what is running, the best so far."""
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import url_or_path
    from advisor.workflows.status import read_status, status_in_words

    folder = RunFolder.open(run)
    found = read_status(folder)
    if as_json:
        echo_json({"run": url_or_path(folder), "done": found.done, **vars(found)})
    else:
        echo(*status_in_words(url_or_path(folder), found))


@cli.command()
@run_argument("run")
@click.option(
    "--wait", type=float, default=60, show_default=True, metavar="SECONDS", help="For it to end; 0 only asks."
)
@json_option
def stop(run: str, wait: float, as_json: bool) -> None:
    """Stop the search in RUN, from another terminal or machine. What is finished
    is kept; `advisor tune RUN` goes on.

    Exit code 3 when it has not stopped within --wait.
    """
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import url_or_path
    from advisor.workflows.status import read_status
    from advisor.workflows.status import request_stop as ask

    folder = RunFolder.open(run)
    answer, name = ask(folder, wait), url_or_path(folder)
    instead = f", or make a model of what is there: advisor finish {name}" if read_status(folder).done else ""
    words = {
        "nobody": f"nothing runs in {name}",
        "stopped": f"stopped; go on with: advisor tune {name}{instead}",
        "asked": f"asked to stop: it does at its trials' next epoch, see advisor status {name}",
    }
    if as_json:
        echo_json({"run": name, "answer": answer})
    elif answer != "asked" or not wait:
        echo(words[answer])
    if answer == "asked" and wait:
        say(
            f"{name} has not stopped within {wait:g} s: it does at its trials' next epoch, see advisor "
            f"status {name}"
        )
        raise click.exceptions.Exit(EXIT_CHECK)


@cli.command()
@run_argument("run")
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="Interface to bind; use 0.0.0.0 to allow other machines.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
def dashboard(run: str, host: str, port: int) -> None:
    """Open optuna-dashboard on the study of RUN, also while it is searched. Ctrl-C ends it."""
    from advisor.cli.dashboard import check_installed, serve
    from advisor.runs.folder import RunFolder

    check_installed()
    serve(RunFolder.open(run), host, port, lambda: say(f"the dashboard of {run} is at http://{host}:{port}"))


@cli.command()
@run_argument("run")
@click.argument("rows")
@click.option("--out", metavar="FILE", help="Where to write the CSV; by default stdout.")
@click.option(
    "--raw", is_flag=True, help="Leave texts as they are that a spreadsheet would take for a formula."
)
@click.option(
    "--strict", is_flag=True, help="Refuse rows with a column that is unlike the training rows in form."
)
@click.option("--encoding", metavar="NAME", help="Of a text file; else as in training, or found out.")
@click.option(
    "--sheet", metavar="NAME", help="Of a spreadsheet; else as in training, or the first that holds a table."
)
@image_root_option
@json_option
def predict(
    run: str,
    rows: str,
    out: str | None,
    raw: bool,
    strict: bool,
    encoding: str | None,
    sheet: str | None,
    as_json: bool,
) -> None:
    """Predict ROWS (like the training ones: a table, a folder of images, a file
    of series) with the model of RUN.

    The result is a CSV with a column prediction.
    """
    from advisor import load_model
    from advisor.files import write_bytes
    from advisor.runs.folder import RunFolder
    from advisor.runs.model import predictions
    from advisor.runs.remote import url_or_path

    table, extra, changes, read = predictions(
        load_model(run), rows, strict=strict, encoding=encoding, sheet=sheet
    )
    if extra:
        say(
            f"note: {len(extra)} columns of {rows} are not used: "
            f"{', '.join(extra[:5])}{' ...' if extra[5:] else ''}"
        )
    for change in changes:
        say(f"note: {change.message}")
    for sentence in read.values():
        say(f"note: {sentence}")
    if as_json:
        name = url_or_path(RunFolder(Path(run)))
        told = {
            "run": name,
            "rows": table.height,
            "out": out,
            "changes": [vars(change) for change in changes],
            "reading": read,
        }
        echo_json({**told, "predictions": table.to_dicts() if not out else None})
    written, quoted = (table, 0) if raw else without_formulas(table)
    if quoted and (out or not as_json):
        say(
            f"note: {quoted:,} texts begin like a formula and got a ' in front; --raw leaves them as they are"
        )
    if out:
        write_bytes(Path(out), written.write_csv().encode())
        if not as_json:
            say(f"{table.height:,} predictions: {out}")
    elif not as_json:
        click.echo(written.write_csv(), nl=False)


def without_formulas(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The table with a ' before each text (headers too) that a spreadsheet would
    run, and how many there were.

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


@cli.command()
@run_argument("run")
@click.option(
    "--format", "form", type=click.Choice(["html", "markdown", "json"]), default="markdown", show_default=True
)
@click.option("--out", metavar="FILE", help="Where to write it; by default stdout.")
def report(run: str, form: str, out: str | None) -> None:
    """The report of RUN again, from its files: as HTML, Markdown or JSON."""
    from advisor.files import FORMAT, write_bytes
    from advisor.report.page import render_html, render_markdown, winners
    from advisor.runs.advice import read_run
    from advisor.runs.result import read_result

    kept = read_run(Path(run))
    recommendation, facts, ledger = kept.recommendation.to_dict(), kept.facts.to_dict(), kept.ledger()
    result = read_result(kept.run) if kept.run.result.is_file() else None
    if form == "json":
        content = {
            "recommendation": recommendation,
            "facts": facts,
            "ledger": ledger,
            "result": result,
            "model": winners(recommendation, result),
        }
        document = {"format": FORMAT, "advisor": __version__, **content}
        text = _json(document) + "\n"
    else:
        text = (render_html if form == "html" else render_markdown)(recommendation, facts, result, ledger)
    if out:
        write_bytes(Path(out), text.encode())
        say(f"report: {out}")
    else:
        click.echo(text, nl=False)


@cli.command()
@run_argument("run")
@click.argument("parameter", required=False)
@json_option
def why(run: str, parameter: str | None, as_json: bool) -> None:
    """Why a PARAMETER has its value, or in a line each why all have theirs. RUN is a
    folder or its recommendation.yaml."""
    from advisor.report.reasons import overview, paragraph
    from advisor.runs.advice import read_run

    kept = read_run(Path(run))
    known = kept.recommendation.provenance
    if parameter is not None and parameter not in known:
        raise UserError(
            f"there is no parameter '{parameter}'{did_you_mean(parameter, known)}: see `advisor why {run}`"
        )
    if parameter is None and not as_json:
        echo(*overview(kept.recommendation).splitlines())
        return
    entries = kept.ledger(parameter)
    if as_json:
        echo_json(entries if parameter is None else entries[parameter])
    elif parameter is not None:
        echo(*wrapped(paragraph(entries[parameter])).splitlines())


@cli.command("what-if")
@run_argument("run")
@click.option(
    "--set", "changes", multiple=True, required=True, metavar="FACT=VALUE", callback=pairs, help="Repeatable."
)
@json_option
def what_if(run: str, changes: Mapping[str, str], as_json: bool) -> None:
    """What would be recommended if some facts were others: `--set rows=1000000 --set gpu.memory_gb=8`."""
    from advisor.runs.advice import imagine, read_run

    kept = read_run(Path(run))
    other, along = imagine(kept, changes)
    if along and not as_json:
        say("moved along: " + ", ".join(f"{name} = {value}" for name, value in along.items()))
    _difference(kept.recommendation, other, as_json)


@cli.command()
@run_argument("run_a")
@run_argument("run_b")
@json_option
def diff(run_a: str, run_b: str, as_json: bool) -> None:
    """How the recommendations of two runs differ, and by which rules."""
    from advisor.runs.advice import read_run

    _difference(read_run(Path(run_a)).recommendation, read_run(Path(run_b)).recommendation, as_json)


def _difference(one: Recommendation, other: Recommendation, as_json: bool) -> None:
    from advisor.report.reasons import difference
    from advisor.rules.provenance import compare_findings, compare_recommendations

    changes, findings = compare_recommendations(one, other), compare_findings(one, other)
    if as_json:
        echo_json({"parameters": [vars(change) for change in changes], "findings": findings})
    else:
        echo(*difference(changes, findings).splitlines())


def wrapped(text: str) -> str:
    """A paragraph in lines that a terminal shows whole."""
    return textwrap.fill(
        text, width=min(100, shutil.get_terminal_size((100, 24)).columns), break_long_words=False
    )


@cli.group()
def rules() -> None:
    """The rule book: list, show, check, test, facts, coverage, docs, schema."""


@rules.command("list")
@click.option("--topic", help="Only this topic.")
@click.option("--rules", "folders", multiple=True, metavar="DIR", help="A further folder of rules.")
@json_option
def rules_list(topic: str | None, folders: Sequence[str], as_json: bool) -> None:
    """One line per rule."""
    book = _book(folders)
    topics = sorted({rule.topic for rule in book})
    if topic and topic not in topics:
        raise UserError(
            f"no rule has the topic '{topic}'{did_you_mean(topic, topics)}; there are {', '.join(topics)}"
        )
    chosen = [rule for rule in book if topic in (None, rule.topic)]
    keys = ("id", "title", "topic", "strength", "evidence", "notes")
    if as_json:
        echo_json([{key: getattr(rule, key) for key in keys} for rule in chosen])
        return
    width = max((len(rule.id) for rule in chosen), default=0)
    for rule in chosen:
        echo(f"{rule.id:{width}}  {rule.strength:6}  {rule.evidence:8}  {rule.title}")


@rules.command("show")
@click.argument("rule_id")
@click.option("--rules", "folders", multiple=True, metavar="DIR", help="A further folder of rules.")
@json_option
def rules_show(rule_id: str, folders: Sequence[str], as_json: bool) -> None:
    """All that a rule says: what, why, when, sources."""
    book = {rule.id: rule for rule in _book(folders)}
    if rule_id not in book:
        raise UserError(
            f"there is no rule '{rule_id}'{did_you_mean(rule_id, book)}: see `advisor rules list`"
        )
    rule = book[rule_id]
    when = "always" if rule.when is None else rule.when.text
    if as_json:
        simple = {
            k: getattr(rule, k)
            for k in ("id", "title", "topic", "strength", "evidence", "notes", "why", "limits")
        }
        references = [vars(reference) for reference in rule.references]
        echo_json({**simple, "when": when, "because": rule.because.text, "references": references})
        return
    lines = [rule.title, "", rule.why, "", f"when      {when}"]
    lines += [f"limit     {name} = {value}" for name, value in rule.limits.items()]
    from advisor.report.page import measured_words

    told = f"; measured: {measured_words(rule.measured)}" if rule.measured else ""
    lines += [
        f"strength  {rule.strength}",
        f"evidence  {rule.evidence}{told}",
        f"notes     {', '.join(rule.notes) or '-'}",
    ]
    lines += [f"not       {alternative.value}: {alternative.why_not}" for alternative in rule.alternatives]
    lines += [f"source    {reference.cite}: {reference.says}" for reference in rule.references]
    echo(*lines)


@rules.command("check")
@click.argument("paths", nargs=-1, required=True)
@json_option
def rules_check(paths: Sequence[str], as_json: bool) -> None:
    """Check rule files: every complaint is a line FILE:LINE: FIELD: what is
    wrong. Exit code 3 when there is one."""
    from advisor.rules import shipped

    checked = shipped.check_rule_folders(list(paths))
    if as_json:
        echo_json({"rules": len(checked.rules), "complaints": list(checked.complaints)})
    else:
        for complaint in checked.complaints:
            echo(complaint)
        say(f"{len(checked.rules)} rules are sound, {len(checked.complaints)} complaints")
    if checked.complaints:
        raise click.exceptions.Exit(EXIT_CHECK)


@rules.command("test")
@click.argument("paths", nargs=-1)
@json_option
def rules_test(paths: Sequence[str], as_json: bool) -> None:
    """Run the examples of the rules in PATHS, by default of the shipped ones. Exit code 3 when one fails."""
    from advisor.facts.schema import FACTS
    from advisor.rules import shipped
    from advisor.rules.book import load_rules, run_examples

    spaces = shipped.base_spaces()
    book = load_rules(list(paths) or [shipped.folder("rules")], FACTS, spaces, kind=None)
    results = [
        result
        for kind, space in spaces.items()
        for result in run_examples(
            [r for r in book if kind in r.applies_to], space, shipped.typical_facts(kind)
        )
    ]
    failed = [result for result in results if not result.passed]
    if as_json:
        echo_json({"examples": len(results), "failed": [vars(result) for result in failed]})
    else:
        for result in failed:
            echo(f"{result.rule}, example {result.number}: expected {result.expected}, got {result.got}")
        say(f"{len(results)} examples of {len(book)} rules, {len(failed)} failed")
    if failed:
        raise click.exceptions.Exit(EXIT_CHECK)


@rules.command("facts")
@json_option
def rules_facts(as_json: bool) -> None:
    """The facts that a rule's condition may look at."""
    from advisor.facts.schema import FACTS

    if as_json:
        echo_json([vars(fact) for fact in FACTS.values()])
        return
    width = max(map(len, FACTS))
    for fact in FACTS.values():
        echo(f"{fact.name:{width}}  {fact.type:5}  {fact.meaning}{f' ({fact.unit})' if fact.unit else ''}")


@rules.command("coverage")
@click.argument("paths", nargs=-1, required=True)
@click.option("--target", help="The column to predict, where no meta.yaml names it.")
@click.option(
    "--rules", "folders", multiple=True, metavar="DIR", help="A further folder of rules; repeatable."
)
@json_option
def rules_coverage(paths: Sequence[str], target: str | None, folders: Sequence[str], as_json: bool) -> None:
    """Which rules fire on the data sets in PATHS, which never do, and which fire
    everywhere without saying why.

    A data set is a folder with train.csv and meta.yaml (target: NAME), a folder of such
    folders, or a CSV or Parquet file with --target. Exit code 3 when a rule fires on all of at
    least 5 sets and has no `universal`.
    """
    from advisor.workflows.rule_coverage import cover

    result = cover(paths, target, folders)
    for line in result.failed:
        say(f"left out: {line}")
    if as_json:
        echo_json(result.to_dict())
    else:
        echo(*result.to_text().splitlines())
    if result.unexplained or result.problems:
        raise click.exceptions.Exit(EXIT_CHECK)


@rules.command("docs")
@click.option("--out", metavar="DIR", default="docs/rules", show_default=True, help="Where the pages go.")
@click.option(
    "--rules", "folders", multiple=True, metavar="DIR", help="A further folder of rules; repeatable."
)
def rules_docs(out: str, folders: Sequence[str]) -> None:
    """Write a page for every rule, and an index. Pages of rules that are gone are removed."""
    from advisor.rules import pages

    say(f"{pages.write_pages(_book(folders), Path(out))} pages are in {out}")


@rules.command("schema")
def rules_schema() -> None:
    """The JSON Schema of a rule file, for editors."""
    from advisor.facts.schema import FACTS
    from advisor.rules import json_schema, shipped
    from advisor.rules.book import fact_names, own_names
    from advisor.spaces.space import union

    spaces = shipped.base_spaces()
    names = {**fact_names(FACTS), **own_names(spaces)}
    click.echo(json_schema.to_json(union(spaces.values()), names), nl=False)


def _book(folders: Sequence[str]) -> Any:
    from advisor.rules import shipped

    return shipped.rule_book(folders, kind=None)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its documented code."""
    sys.exit(_run(arguments))


@as_ctrl_c()
def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="advisor", standalone_mode=False)
        if sys.stdout:  # there is none after `>&-`
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _complain(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return EXIT_USER
    except click.ClickException as error:
        return _complain(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        say("interrupted: what was finished is kept; the same command goes on with it")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _leave_stdout()
        return 0
    except OSError as error:
        if error.errno not in MENDABLE:
            return _report_bug(error)
        if error.filename is None:
            _leave_stdout()
        return _complain(
            f"{'cannot write the output' if error.filename is None else error.filename}: {error.strerror}"
        )
    # the last line of defence: a bug of ours is one line, not a traceback
    except Exception as error:  # noqa: BLE001
        return _report_bug(error)


def _leave_stdout() -> None:
    """Nobody reads on, or nothing fits: Python would complain once more when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> int:
    line = printable(" ".join(message.split()))
    say(f"error: {line[:1].lower() + line[1:] if line[:2].istitle() else line}".rstrip("."))
    return EXIT_USER


def _report_bug(error: Exception) -> int:
    from advisor.cli.bugs import save_traceback

    say(f"error: a bug in advisor ({type(error).__name__}): please report it with {save_traceback(error)}")
    return EXIT_BUG


if __name__ == "__main__":
    main()
