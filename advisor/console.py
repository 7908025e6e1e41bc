"""The ways to the terminal: lines on stdout and stderr that no data can steer."""

from __future__ import annotations

import click


def echo(*lines: str) -> None:
    """Each line as one line on stdout, whatever the data put into it."""
    for line in lines:
        click.echo(printable(line).replace("\n", "\\n"))


def say(line: str) -> None:
    """One line on stderr."""
    click.echo(printable(line).replace("\n", "\\n"), err=True)


def printable(text: str) -> str:
    """Control characters shown, not sent: a column's name must not steer the terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() or c == "\u00a0" else repr(c)[1:-1] for c in text)
