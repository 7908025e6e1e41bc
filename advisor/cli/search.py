"""Training and search: train, tune, finish, status, stop."""

from __future__ import annotations

from typing import Any

import click

from advisor.cli.options import (
    Choice,
    adapting_options,
    examples,
    given,
    json_option,
    progress_option,
    reading_options,
    run_argument,
    running_options,
    track_option,
    trees_option,
)
from advisor.cli.output import echo_json, fail_check, leave_interrupted, show_result, stdout_kept
from advisor.console import echo, say
from advisor.machine import process_began


@click.command(
    epilog=examples("advisor train data.csv --target income", "advisor train runs/data --fixed epochs=20")
)
@click.argument("data")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Limit for the training.")
@trees_option
@track_option
@progress_option
@reading_options
def train(data: str, as_json: bool, out: str | None, target: str | None, **options: Any) -> None:
    """Train the recommendation alone: a model without a search.

    DATA is as for recommend, or a run folder.
    """
    from advisor import train as train_run

    show_result(train_run(data, target, out=out, **given(options)), as_json)


@click.command(
    epilog=examples(
        "advisor tune data.csv --target income --trials 40",
        "advisor tune runs/data --trials 80 --address auto --storage postgresql://me@db/studies",
    )
)
@click.argument("data")
@click.option(
    "--trials",
    type=int,
    default=40,
    show_default=True,
    metavar="N",
    help="Number of trials, those of earlier calls included.",
)
@running_options
@click.option(
    "--trial-time-limit", type=float, metavar="SECONDS", help="End a trial after this time, even if it hangs."
)
@click.option(
    "--strategy",
    type=Choice(("joint", "staged")),
    default="joint",
    show_default=True,
    help="Search all parameters at once, or first those of learning and then the layers.",
)
@adapting_options
@reading_options
def tune(data: str, trials: int, as_json: bool, out: str | None, target: str | None, **options: Any) -> None:
    """Search around the recommendation on Ray; leave a model and a report. The
    same command resumes a run.

    DATA is as for recommend, or a run folder, or its (edited) recommendation.yaml.
    """
    from advisor import tune as tune_run

    with stdout_kept(as_json):
        result = tune_run(data, target, trials=trials, out=out, begun=process_began(), **given(options))
    leave_interrupted(result, trials)
    show_result(result, as_json)


@click.command(epilog=examples("advisor finish runs/data", "advisor finish runs/data --time-limit 600"))
@run_argument("run")
@running_options
@json_option
def finish(run: str, as_json: bool, **options: Any) -> None:
    """Finish a search that was stopped: choose the winner from the trials of RUN,
    write a model and a report.

    `advisor tune RUN` can still resume the search later.
    """
    from advisor import finish as finish_run

    with stdout_kept(as_json):
        result = finish_run(run, begun=process_began(), **options)
    leave_interrupted(result, None)
    show_result(result, as_json)


@click.command(epilog=examples("advisor status runs/data", "advisor status s3://bucket/runs/data --json"))
@run_argument("run")
@json_option
def status(run: str, as_json: bool) -> None:
    """The state of the search in RUN: who drives it, what is done, what is running, the best so far."""
    from advisor.documents import to_plain
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import url_or_path
    from advisor.workflows.status import read_status, status_in_words

    folder = RunFolder.open(run)
    found = read_status(folder)
    if as_json:
        echo_json({"run": url_or_path(folder), "done": found.done, **to_plain(found)})
    else:
        echo(*status_in_words(url_or_path(folder), found))


@click.command(epilog=examples("advisor stop runs/data", "advisor stop runs/data --wait 0"))
@run_argument("run")
@click.option(
    "--wait",
    type=float,
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its end; 0 does not wait.",
)
@json_option
def stop(run: str, wait: float, as_json: bool) -> None:
    """Stop the search in RUN, from another terminal or machine. Finished trials are kept;
    `advisor tune RUN` resumes it.

    Exit code 3 if it has not stopped within --wait.
    """
    from advisor.runs.folder import RunFolder
    from advisor.runs.remote import url_or_path
    from advisor.workflows.status import read_status
    from advisor.workflows.status import request_stop as ask

    folder = RunFolder.open(run)
    answer, name = ask(folder, wait), url_or_path(folder)
    instead = f", or build a model from its trials: advisor finish {name}" if read_status(folder).done else ""
    soon = f"trials stop at their next epoch, see advisor status {name}"
    words = {
        "nobody": f"no search is running in {name}",
        "stopped": f"stopped; resume with: advisor tune {name}{instead}",
        "asked": f"stop requested: {soon}",
    }
    if as_json:
        echo_json({"run": name, "answer": answer})
    elif answer != "asked" or not wait:
        echo(words[answer])
    if answer == "asked" and wait:
        say(f"{name} has not stopped within {wait:g} s: {soon}")
        fail_check()
