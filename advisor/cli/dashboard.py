"""optuna-dashboard on a run's study: the journal through our lock, or the run's database."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from advisor.errors import UserError
from advisor.runs.folder import RunFolder
from advisor.workflows.status import read_request

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def check_installed() -> None:
    """UserError when optuna-dashboard is not there."""
    if find_spec("optuna_dashboard") is None:
        raise UserError("optuna-dashboard is not installed: pip install 'tuning-advisor[dashboard]'")


def storage_of(run: RunFolder) -> BaseStorage:
    """The storage that the dashboard reads, and writes notes into. UserError when the run has no search."""
    request = read_request(run)
    if request is not None and request.storage is not None:
        from advisor.search.database import read_database_study

        return read_database_study(request.storage, str(request.study))._storage
    from advisor.search.journal import read_journal_study as read_journal
    from advisor.search.journal import shared_storage

    read_journal(run.journal)  # says what is wrong with it in one line
    return shared_storage(run.journal)


def serve(run: RunFolder, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve the dashboard until Ctrl-C. UserError when the port is taken or the run has no search.

    ready: called when the study is open, just before the server listens.
    """
    check_installed()
    import optuna_dashboard

    storage = storage_of(run)
    ready()
    try:
        optuna_dashboard.run_server(storage, host=host, port=port)
    except OSError as error:
        raise UserError(
            f"the dashboard cannot listen at {host}:{port} ({error.strerror}): give another --port"
        ) from error
