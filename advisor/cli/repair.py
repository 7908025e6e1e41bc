"""Your own network and its training on the command line: the options that describe them, and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from advisor.cli.options import Command, examples, given, reading_options
from advisor.cli.output import echo_json, fail_check, stdout_kept
from advisor.console import echo

if TYPE_CHECKING:
    from advisor.workflows.check import TrainingPlan

DESCRIBES_TRAINING = ("loss", "optimizer", "learning_rate", "epochs", "batch_size")


def training_options(command: Command) -> Command:
    """How the network of --module is trained."""
    options = (
        click.option(
            "--loss",
            metavar="NAME",
            help="With --module: cross-entropy, bce, bce-with-logits, nll, mse, l1, huber "
            "or PACKAGE.MODULE:LOSS.",
        ),
        click.option(
            "--optimizer",
            metavar="NAME",
            help="With --module: adam, adamw, sgd, rmsprop, ... or PACKAGE.MODULE:FACTORY, "
            "which gets the module.",
        ),
        click.option("--learning-rate", type=float, help="With --module: the optimizer's."),
        click.option("--epochs", type=int, help="With --module: epochs of the training."),
        click.option(
            "--batch-size",
            type=int,
            help="With --module: training batch size. [default: 32, or DATA's advice]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def training_plan(options: dict[str, Any]) -> TrainingPlan:
    """Take what describes the training out of a command's options."""
    from advisor.workflows.check import TrainingPlan

    return TrainingPlan(**{name: options.pop(name) for name in DESCRIBES_TRAINING})


@click.command(
    epilog=examples(
        "advisor repair data.csv --target y --module my_nets:build --loss cross-entropy --optimizer adam",
        "advisor repair data.csv --target y --module my_nets:build --loss mse --optimizer sgd --epochs 50",
    )
)
@click.argument("data")
@click.option(
    "--module",
    "factory",
    required=True,
    metavar="PACKAGE.MODULE:FACTORY",
    help="The network whose training is to be repaired.",
)
@training_options
@reading_options
def repair(
    data: str,
    factory: str,
    as_json: bool,
    out: str | None,
    target: str | None,
    **options: Any,
) -> None:
    """Propose a patch for the training of your own network, and show what it brings.

    DATA is as for recommend. The findings of check are turned into changes of loss, last layer, learning
    rate, scaling, initialization and steps; at most five short trainings try them. Exit code 3 if a change
    is better.
    """
    from advisor.workflows.check import repair_module

    plan = training_plan(options)
    with stdout_kept(as_json):
        result = repair_module(factory, data, plan, target, out, given(options))
    if as_json:
        echo_json(result.to_dict())
    else:
        echo(*str(result).splitlines())
    if not result.passed:
        fail_check()
