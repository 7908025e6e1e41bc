"""How files and data are to be read."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.errors import UserError, did_you_mean, shown
from advisor.kinds import KINDS, Kind


@dataclass(frozen=True)
class FileForm:
    """How a file is to be read where it does not say so itself.

    encoding: of a text, but one that begins with the mark of Unicode.
    sheet: the name of a spreadsheet's sheet. Each None to find it out.
    remembered: they are those of the training rows; new rows may be in UTF-8, or in a sheet of another name.
    """

    encoding: str | None = None
    sheet: str | None = None
    remembered: bool = False


def check_kind(kind: str) -> Kind:
    """The kind, or a UserError that names the nearest one."""
    if kind not in KINDS:
        *others, last = KINDS
        near = did_you_mean(kind, KINDS)
        raise UserError(f"kind is '{shown(kind)}'{near}; expected {', '.join(others)} or {last}")
    return kind
