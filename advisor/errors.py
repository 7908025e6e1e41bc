"""The one exception that a user can cause, and help with misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave is wrong and the user can mend it.

    The message is one line: what was given, what was expected, how to mend it. The command line prints it
    as ``error: MESSAGE`` and exits with code 2; from Python it is an ordinary exception.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest candidate, or an empty text when none is near."""
    near = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def made_by_newer(number: int, reads: int, made_by: object) -> str:
    """What is wrong with a file of format ``number``, made by an advisor of version ``made_by`` (None where it doesn't say)."""
    from advisor import __version__

    maker = f"advisor {made_by:.40}" if isinstance(made_by, str) and made_by else "a newer advisor"
    return f"was made by {maker} (format {number}), this is {__version__}, which reads up to {reads}: update tuning-advisor"
