"""Advice and questions to it: recommend, check, why, what-if, diff."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.options import examples, given, json_option, pairs, reading_options, run_argument
from advisor.cli.output import echo_json, fail_check, show_difference, stdout_kept, terminal_width, wrapped
from advisor.cli.repair import training_options, training_plan
from advisor.console import echo, say
from advisor.documents import to_plain
from advisor.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from advisor.runs.advice import Advice


@click.command(
    epilog=examples(
        "advisor recommend data.csv --target income",
        "advisor recommend train.parquet --target price --test test.parquet --fixed batch_size=256",
    )
)
@click.argument("data")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every choice with its reason, not only the most important ones.",
)
@click.option(
    "--server",
    metavar="URL",
    help="Measure here and ask the service at URL: only facts are sent, no row. Its token: ADVISOR_TOKEN.",
)
@reading_options
def recommend(
    data: str,
    everything: bool,
    server: str | None,
    as_json: bool,
    out: str | None,
    target: str | None,
    **options: Any,
) -> None:
    """What to use, what to search, and why: in seconds, without training.

    DATA is a CSV or Parquet file, sklearn:NAME or openml:ID; a folder of images with a folder for each class;
    or an .npz, .npy, .ts or .arff file of images or sequences.
    """
    from advisor.report.page import write_report
    from advisor.report.summary import summary
    from advisor.runs.remote import mirrored, url_or_path
    from advisor.workflows.open_run import open_run, write_advice

    advice, run = open_run(data, target, out, given(options))
    if server is not None:
        _ask_server(server, advice, as_json, everything)
        return
    recommendation, facts = advice.recommendation, advice.facts
    with run.in_use(), mirrored(run):
        write_advice(run, advice)
        write_report(run, recommendation, facts, advice.ledger(), None)
    if as_json:
        echo_json({"run": url_or_path(run), "facts": dict(facts.values), **recommendation.to_dict()})
        return
    echo(*summary(recommendation, facts, terminal_width(), everything=everything))
    echo("", f"report: {run.report_html}", f"next:   advisor tune {url_or_path(run)}")


def _ask_server(url: str, advice: Advice, as_json: bool, everything: bool) -> None:
    """Show what a service recommends for the facts that were measured here."""
    from advisor.client import connect
    from advisor.report.summary import summary
    from advisor.rules.recommendation import Recommendation
    from advisor.rules.shipped import base_space

    identity, facts = advice.identity, advice.facts.to_dict()
    data = {"name": identity.name, "target": identity.target, "fingerprint": identity.fingerprint}
    reading = advice.reading
    asked = {"fixed": dict(reading.fixed), "without": list(reading.without), "seed": reading.seed}
    found = connect(url).recommend({"data": data, **facts}, name=identity.name, **asked)
    if as_json:
        echo_json({"facts": dict(advice.facts.values), **found})
        return
    recommendation = Recommendation.from_dict(found, base_space, url)
    echo(*summary(recommendation, advice.facts, terminal_width(), everything=everything))
    echo("", f"report: {url.rstrip('/')}/v1/recommendations/{found['id']}/report")


@click.command(
    epilog=examples(
        "advisor check data.csv --target income",
        "advisor check data.csv --target y --module my_nets:build --loss cross-entropy --optimizer adam",
    )
)
@click.argument("data", required=False)
@click.option(
    "--module",
    "factory",
    metavar="PACKAGE.MODULE:FACTORY",
    help="Check your own network instead of the recommended one.",
)
@click.option(
    "--input-shape", metavar="1,28,28", help="With --module: the shape of one row, instead of DATA."
)
@training_options
@click.option(
    "--seconds", type=float, default=60, show_default=True, help="Approximate limit for all checks together."
)
@reading_options
def check(
    data: str | None,
    factory: str | None,
    input_shape: str | None,
    seconds: float,
    as_json: bool,
    out: str | None,
    target: str | None,
    **options: Any,
) -> None:
    """Check before you train, in about a minute: does the recommendation for DATA
    learn what it should, and nothing else?

    DATA is as for recommend, or a run folder. With --module, your own network is checked on a
    batch of DATA or on random numbers, and with --loss and --optimizer also how it is trained.
    Exit code 3 if a check fails or the network has an error; warnings and notes leave it at 0.
    """
    from advisor.workflows.check import check_module, check_recommendation

    training = training_plan(options)
    if factory is not None:
        with stdout_kept(as_json):
            result: Any = check_module(factory, data, input_shape, training, target, out, given(options))
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
        fail_check()


@click.command(epilog=examples("advisor why runs/data", "advisor why runs/data learning_rate"))
@run_argument("run")
@click.argument("parameter", required=False)
@json_option
def why(run: str, parameter: str | None, as_json: bool) -> None:
    """Why a PARAMETER has its value; without PARAMETER, one line for each.

    RUN is a run folder or its recommendation.yaml.
    """
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
        echo_json(to_plain(entries if parameter is None else entries[parameter]))
    elif parameter is not None:
        echo(*wrapped(paragraph(entries[parameter])).splitlines())


@click.command(
    "what-if",
    epilog=examples(
        "advisor what-if runs/data --set rows=1000000",
        "advisor what-if runs/data --set gpu.memory_gb=8 --set rows=50000",
    ),
)
@run_argument("run")
@click.option(
    "--set",
    "changes",
    multiple=True,
    required=True,
    metavar="FACT=VALUE",
    callback=pairs,
    help="A fact and its other value; repeatable. `advisor rules facts` lists the facts.",
)
@json_option
def what_if(run: str, changes: Mapping[str, str], as_json: bool) -> None:
    """What would be recommended if some facts had other values."""
    from advisor.runs.advice import imagine, read_run

    kept = read_run(Path(run))
    other, along = imagine(kept, changes)
    if along and not as_json:
        say("changed with them: " + ", ".join(f"{name} = {value}" for name, value in along.items()))
    show_difference(kept.recommendation, other, as_json)


@click.command(epilog=examples("advisor diff runs/a runs/b", "advisor diff runs/a runs/b --json"))
@run_argument("run_a")
@run_argument("run_b")
@json_option
def diff(run_a: str, run_b: str, as_json: bool) -> None:
    """How the recommendations of two runs differ, and by which rules."""
    from advisor.runs.advice import read_run

    show_difference(read_run(Path(run_a)).recommendation, read_run(Path(run_b)).recommendation, as_json)
