"""A user's own module by name: what ``--module``, ``--objective`` and ``--metric`` import."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from advisor.errors import UserError, error_text


def split_name(name: str) -> tuple[str, str] | None:
    """The module and the attribute of ``package.module:attribute``; None for another form."""
    module, colon, attribute = name.partition(":")
    well_formed = colon and all(part.isidentifier() for part in (*module.split("."), attribute))
    return (module, attribute) if well_formed else None


class OwnFolder:
    """The folder that a user's code works in: it may change it (``os.chdir``),
    and ours stays what it was."""

    def __init__(self) -> None:
        self._theirs: str | None = None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """In the folder where their code was when this was left last; at first in ours."""
        ours = _working_folder()
        if self._theirs is not None:
            with contextlib.suppress(OSError):  # they have removed it
                os.chdir(self._theirs)
        try:
            yield
        finally:
            self._theirs = _working_folder()
            if ours is not None and ours != self._theirs:
                os.chdir(ours)


def _working_folder() -> str | None:
    """None where it was removed."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None


def import_own(module: str, folder: str | None, what: str, cure: str = "") -> ModuleType:
    """Import a user's module; a ``folder`` is looked in first, and stays on sys.path.

    UserError, beginning with ``what``, when there is none (then with a ``cure``), or when it raises or exits
    as it is imported (then with the line that did).
    """
    if folder is not None and folder not in sys.path and Path(folder).is_dir():
        sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()
        with OwnFolder().entered():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            raise UserError(
                f"{what}: there is no module '{error.name}' in {folder or 'sys.path'}{cure}"
            ) from None
        raise UserError(f"{what} cannot be imported: {error}{_where(error)}") from error
    except (Exception, SystemExit) as error:  # a user's own code may raise anything while it is imported
        raise UserError(f"{what} cannot be imported: {error_text(error)}{_where(error)}") from error


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
