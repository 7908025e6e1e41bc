"""The one exception that a user can cause, the warning about new rows, and names of the data in a message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


class UserError(Exception):
    """Something the user gave is wrong and the user can fix it.

    The message is one line: what was given, what was expected, how to fix it. The command line prints it
    as ``error: MESSAGE`` and exits with code 2; from Python it is an ordinary exception.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class FormChange:
    """A column of new rows whose cells are unlike those of the training rows in form.

    kind: format (another way of writing), type (stored as something else), unreadable, unseen (categories
        that no training row has), spelling, blank (no cell at all).
    cells: how many of the rows.
    example: one of them as it stands there.
    read: whether they were read nevertheless; else they are taken as missing, or as an unknown category.
    """

    column: str
    kind: Literal["format", "type", "unreadable", "unseen", "spelling", "blank"]
    cells: int
    rows: int
    example: str
    read: bool
    message: str

    @property
    def short(self) -> str:
        """The column, and what is so of how many cells, in a few words."""
        what = {
            "format": "in another form",
            "type": "of another type",
            "unreadable": "unreadable",
            "unseen": "of new categories",
        }
        what |= {"spelling": "spelled otherwise", "blank": "missing"}
        return (
            f"{self.column}: {self.cells:,} of {self.rows:,} cells "
            f"{what[self.kind]}{'' if self.read else ', not read'}"
        )


class DataFormWarning(UserWarning):
    """New rows hold columns that are unlike those of the training rows in form.
    changes: what was found, column by column.

    Made again from its message alone, as pickle and pytest-xdist do, it has no changes.
    """

    def __init__(self, message: str = "", changes: Sequence[FormChange] = ()) -> None:
        super().__init__(message)
        self.changes = tuple(changes)

    @classmethod
    def of(cls, changes: Sequence[FormChange]) -> DataFormWarning:
        return cls("; ".join(change.message for change in changes), changes)


def shown(text: object, limit: int = 80) -> str:
    """Text for a message: control characters escaped (a file cannot steer the
    terminal), cut in the middle."""
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return clean if len(clean) <= limit else f"{clean[: limit // 2]}…{clean[-limit // 3 :]}"


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest candidate, or an empty text when none is near."""
    near = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def made_by_newer(number: int, reads: int, made_by: object) -> str:
    """What is wrong with a file of format ``number``, made by an advisor of version
    ``made_by`` (None where it doesn't say)."""
    from advisor import __version__

    maker = f"advisor {made_by:.40}" if isinstance(made_by, str) and made_by else "a newer advisor"
    return (
        f"was made by {maker} (format {number}), this is {__version__}, which reads up to {reads}: "
        "update tuning-advisor"
    )


def in_words(contender: str) -> str:
    """A contender's name in a sentence: ``trial 7``, ``the recommendation``."""
    return contender if contender.startswith("trial ") else f"the {contender}"


def error_text(error: BaseException) -> str:
    """An exception in one line: its type and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
