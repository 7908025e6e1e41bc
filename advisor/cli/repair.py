"""Your own network and its training on the command line: the options that describe them, and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from advisor.cli.options import Command

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
