"""optuna-dashboard on a run's study: the journal through our lock, or the run's database."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from advisor.cli.options import examples, run_argument
from advisor.console import say
from advisor.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from advisor.runs.folder import RunFolder


@click.command(
    epilog=examples("advisor dashboard runs/data", "advisor dashboard runs/data --host 0.0.0.0 --port 9000")
)
@run_argument("run")
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="Interface to bind; use 0.0.0.0 to allow other machines.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port to listen on."
)
def dashboard(run: str, host: str, port: int) -> None:
    """Open optuna-dashboard on the study of RUN, also during the search. Ctrl-C ends it."""
    from advisor.runs.folder import RunFolder

    check_installed()
    serve(RunFolder.open(run), host, port, lambda: say(f"the dashboard of {run} is at http://{host}:{port}"))


def check_installed() -> None:
    """UserError when optuna-dashboard is not there."""
    if find_spec("optuna_dashboard") is None:
        raise UserError("optuna-dashboard is not installed: pip install 'tuning-advisor[dashboard]'")


def storage_of(run: RunFolder) -> BaseStorage:
    """The storage that the dashboard reads, and writes notes into. UserError when the run has no search."""
    from advisor.workflows.status import read_request

    request = read_request(run)
    if request is not None and request.storage is not None:
        from advisor.search.storage.database import read_database_study

        return read_database_study(request.storage, str(request.study))._storage
    from advisor.search.storage.journal import read_journal_study as read_journal
    from advisor.search.storage.journal import shared_storage

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
