"""The options that several commands share, as decorators, and what the commands make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from advisor.console import say
from advisor.errors import UserError, did_you_mean
from advisor.executors.clusters import EXECUTORS
from advisor.kinds import KINDS, TASK_NAMES

Command = Callable[..., Any]
Option = Callable[[Command], Command]
DEFAULTS = {"test_fraction": 0.2, "seed": 0, "strict": False}
"""Of the options on reading data whose default is not None."""


def examples(first: str, second: str) -> str:
    """Two example lines to put under a command's help, as its epilog."""
    return f"\b\nExamples:\n  {first}\n  {second}"


class Choice(click.Choice[str]):
    """A closed set of words; a misspelt one is answered with the nearest."""

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


def _scalar(text: str) -> Any:
    """A number or true/false where the text is one, else the text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _fixed(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """PARAMETER=VALUE options, those given as --set included."""
    given_now = {name: _scalar(text) for name, text in pairs(context, parameter, values).items()}
    return {**context.meta.get("set", {}), **given_now}


def _set(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> None:
    """The former name of --fixed."""
    if values:
        say("note: --set PARAMETER=VALUE is now called --fixed, as in Python")
        context.meta["set"] = {k: _scalar(v) for k, v in pairs(context, parameter, values).items()}


def _keep_ranges(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """The former name of --no-adapt."""
    if value:
        say("note: --keep-ranges is now called --no-adapt, as in Python")
        context.meta["adapt"] = False


def _adapt(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    return value and context.meta.get("adapt", True)


def _under_image_root(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """The image root for as long as the command runs."""
    if value is not None:
        from advisor.data.signals.image_paths import image_root

        context.with_resource(image_root(value))


image_root_option: Option = click.option(
    "--image-root",
    metavar="DIR",
    expose_value=False,
    callback=_under_image_root,
    help="Accept only image files below this folder; for servers.",
)
json_option: Option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else."
)
rules_option: Option = click.option(
    "--rules", "folders", multiple=True, metavar="DIR", help="A folder with additional rules; repeatable."
)
progress_option: Option = click.option(
    "--progress/--no-progress",
    " /--quiet",
    default=True,
    show_default=True,
    help="Show progress on stderr.",
)
track_option: Option = click.option(
    "--track",
    multiple=True,
    metavar="TRACKER",
    help="Tell a tracker of the run: mlflow:URI, tensorboard:FOLDER or wandb:offline; repeatable.",
)
address_option: Option = click.option(
    "--address",
    metavar="ADDRESS",
    help="A Ray cluster: HOST:PORT, ray://HOST:PORT or auto. By default, Ray starts on this machine.",
)

READING: Sequence[Option] = (
    click.option("--target", metavar="COLUMN", help="The column to predict."),
    click.option(
        "--test", metavar="FILE", help="A table of test rows. By default, a share of DATA is held out."
    ),
    click.option(
        "--type",
        "types",
        multiple=True,
        metavar="COLUMN=TYPE",
        callback=pairs,
        help="Override a column's type: numeric, categorical, boolean, datetime, text, identifier or "
        "constant.",
    ),
    click.option(
        "--encoding", metavar="NAME", help="Encoding of text files that are not Unicode; detected by default."
    ),
    click.option(
        "--sheet", metavar="NAME", help="Sheet of a spreadsheet; by default the first that holds a table."
    ),
    click.option("--kind", type=Choice(KINDS), help="What a row is; by default inferred from DATA."),
    click.option(
        "--task", type=Choice(TASK_NAMES), help="What to learn; by default inferred from the target."
    ),
    click.option(
        "--id-column", metavar="COLUMN", help="For sequences in a long table: the column of sequence ids."
    ),
    click.option(
        "--time-column",
        metavar="COLUMN",
        help="Test and validate on the latest rows by this column. For sequences in a long table: the time.",
    ),
    click.option(
        "--channels",
        type=Choice(("first", "last")),
        help="For arrays of sequences: the position of the channel axis; detected by default.",
    ),
    click.option(
        "--ignore",
        metavar="VALUE",
        help="For masks: the number or colour of unlabelled points; 255 by default.",
    ),
    click.option(
        "--group-column", metavar="COLUMN", help="Keep rows with the same value in this column together."
    ),
    click.option(
        "--weight-column",
        metavar="COLUMN",
        help="For tables: how much each row counts in training and validation.",
    ),
    click.option(
        "--metric",
        metavar="NAME",
        help="What decides in place of the loss: a scorer of scikit-learn (roc_auc, f1, "
        "neg_mean_absolute_error, ...), pinball:0.9, top_k:3, or MODULE:FUNCTION.",
    ),
    click.option(
        "--cost",
        metavar="FILE",
        help="What mistakes cost, as the metric: CSV with a row for each true class and a column for each "
        "predicted one, or YAML.",
    ),
    click.option(
        "--weights",
        metavar="FILE",
        help="For --fixed network=timm:NAME: its trained weights, .safetensors or a state_dict of "
        "torch.save; by default those of timm's hub.",
    ),
    click.option(
        "--from",
        "from_run",
        metavar="RUN",
        help="Begin with the weights and the architecture of an earlier run, of a table for the columns that "
        "both have.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Refuse a test table if a column's format differs from the training rows.",
    ),
    click.option(
        "--join-spellings/--keep-spellings",
        default=None,
        help="Read Yes, YES and yes. as one category or class, or as three. By default they are joined "
        "where that is certain.",
    ),
    click.option(
        "--test-fraction",
        type=float,
        default=0.2,
        show_default=True,
        help="Share of rows held out for the test; 0 trains on all.",
    ),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed of every random choice, splits included."
    ),
    click.option(
        "--rules", multiple=True, metavar="DIR", help="A folder with additional rules; repeatable."
    ),
    click.option("--without", multiple=True, metavar="RULE", help="Leave out a rule; repeatable."),
    click.option(
        "--fixed",
        multiple=True,
        metavar="PARAMETER=VALUE",
        callback=_fixed,
        help="Fix a parameter at your value; repeatable.",
    ),
    click.option(
        "--set", multiple=True, hidden=True, is_eager=True, expose_value=False, callback=_set,
        help="The former name of --fixed.",
    ),
    click.option(
        "--out", metavar="DIR", help="The run folder, or its URL (s3://BUCKET/RUN); by default runs/NAME."
    ),
    image_root_option,
    json_option,
)  # fmt: skip

trees_option = click.option(
    "--with-trees",
    is_flag=True,
    help="Blend the networks with boosted trees where held-out rows say so. Tables only.",
)

RUNNING: Sequence[Option] = (
    click.option(
        "--time-limit", type=float, metavar="SECONDS", help="Limit for the search and the final together."
    ),
    click.option(
        "--executor",
        type=Choice(tuple(EXECUTORS)),
        default="ray",
        show_default=True,
        help="Where trials run; in-process is for debugging.",
    ),
    address_option,
    click.option("--workers", type=int, metavar="N", help="Trials at once; by default one per core."),
    click.option(
        "--gpus-per-worker",
        type=float,
        metavar="SHARE",
        help="GPU share per trial; 0 trains on CPUs. By default a quarter for images and series if there "
        "are GPUs.",
    ),
    click.option(
        "--objective", metavar="MODULE:FUNCTION", help="Tune your own training code instead of our networks."
    ),
    click.option(
        "--working-dir",
        metavar="DIR",
        help="The folder with that code, by default the current one; it is sent to a cluster's workers.",
    ),
    click.option(
        "--storage",
        metavar="URL",
        help="A database for the study: postgresql://, mysql:// or sqlite:///FILE.",
    ),
    trees_option,
    track_option,
    progress_option,
)

ADAPTING: Sequence[Option] = (
    click.option(
        "--adapt/--no-adapt",
        default=True,
        show_default=True,
        callback=_adapt,
        help="Move the advised ranges during the search when learning curves call for it.",
    ),
    click.option(
        "--keep-ranges", is_flag=True, hidden=True, is_eager=True, expose_value=False, callback=_keep_ranges,
        help="The former name of --no-adapt.",
    ),
)  # fmt: skip


def _with(options: Sequence[Option]) -> Option:
    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


reading_options = _with(READING)
"""How to read the data and which rules to apply: for every command that reads data."""
running_options = _with(RUNNING)
"""Where trials and the final run, and for how long: for every command that runs them."""
adapting_options = _with(ADAPTING)
"""Whether the ranges may move during the search."""


def run_argument(name: str) -> Option:
    """A run folder, or the URL of one, which is then copied here."""
    return click.argument(name, callback=_local)


def _local(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from advisor.runs.remote import local_copy

    return str(local_copy(value))


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, defaults left out: a run folder knows its own."""
    return {name: v for name, v in options.items() if v not in (None, (), {}) and DEFAULTS.get(name) != v}
