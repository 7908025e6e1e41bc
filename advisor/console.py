"""The ways to the terminal: lines on stdout and stderr that no data can steer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

PATIENCE = 2.0
"""Seconds of silence before a user is told what is being done."""


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


@contextmanager
def told_when_slow(line: str, seconds: float = PATIENCE) -> Iterator[None]:
    """Say what takes so long, once, when the block has not ended after this many seconds."""
    timer = threading.Timer(seconds, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
