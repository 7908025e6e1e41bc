"""Sequences in the files of the UCR/UEA archive, and in tables."""

from __future__ import annotations

from pathlib import Path

from advisor.errors import UserError
from advisor.signal_rows import Found, Request

SUFFIXES = (".ts", ".arff")


def archive_pair(path: Path) -> Path | None:
    return None


def read_sequences(source: object, request: Request) -> Found:
    raise UserError("files of the UCR/UEA archive come with the next step; expected .npz or .npy")
