"""Starting and stopping the server, and the tokens that an operator makes beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

import sqlalchemy as sa
import uvicorn

from advisor.console import say
from advisor.errors import UserError
from advisor.service.app import guarded, make_app
from advisor.service.base import tables
from advisor.service.base.access import ServiceState
from advisor.service.base.gateway import log_as_json
from advisor.service.base.security import NewToken, make_project, make_token, revoke_token
from advisor.service.base.settings import DEFAULT_PROJECT, ServiceSettings
from advisor.service.base.store import Store

STOP_SECONDS = 8
"""So long requests under way may take when the service is told to stop; all is over within 10 seconds."""
EVERYWHERE = ("0.0.0.0", "::")
PAGE_TOKEN = "page of this machine"
"""The token whose rights a session has that the one-time URL opens. Its own secret is thrown away."""
MOST_HEADER = 65_536


def serve_until_stopped(settings: ServiceSettings, level: int = logging.INFO) -> None:
    """Serve until Ctrl-C or TERM; then end what is under way, within 10 seconds.

    Prints the URL with a one-time token that opens the page. UserError when it cannot listen there.
    """
    with _listening(settings) as listener:
        port = listener.getsockname()[1]
        app = make_app(replace(settings, port=port))
        log_as_json(level)
        config = uvicorn.Config(
            guarded(app),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
            h11_max_incomplete_event_size=MOST_HEADER,
        )
        shown = "127.0.0.1" if settings.host in EVERYWHERE else settings.host
        once = _one_time_token(app.state.service)
        say(f"the service listens at http://{shown}:{port}")
        say(f"open the page, once, with http://{shown}:{port}/?once={once}")
        with contextlib.suppress(KeyboardInterrupt):  # told to stop, it has stopped
            asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


@contextlib.contextmanager
def _listening(settings: ServiceSettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise UserError(
                f"the service cannot listen at {where} ({error.strerror}): give another --host or --port"
            ) from None
        yield listener


def _one_time_token(state: ServiceState) -> str:
    """The secret that opens the page once, as an admin of the default project."""

    def write(connection: sa.Connection) -> str:
        project = make_project(connection, DEFAULT_PROJECT)
        columns = tables.tokens.c
        mine = (columns.project == project, columns.name == PAGE_TOKEN, columns.revoked.is_(None))
        known = connection.scalar(sa.select(columns.id).where(*mine))
        return known or make_token(connection, project, PAGE_TOKEN, "admin").id

    return state.door.give_once(state.store.write(write))


# ------------------------------------------------------------------------------- tokens, beside a server


def operator_token(
    settings: ServiceSettings, project: str, name: str, scope: str, days: float | None = None
) -> NewToken:
    """A new token of a project, which is made where it is missing."""
    with _store(settings) as store:
        return store.write(
            lambda connection: make_token(connection, make_project(connection, project), name, scope, days)
        )


def operator_tokens(settings: ServiceSettings) -> Sequence[sa.RowMapping]:
    """The tokens of all projects, oldest first; ``of`` is the project's name."""
    joined = sa.join(tables.tokens, tables.projects, tables.tokens.c.project == tables.projects.c.id)
    query = sa.select(tables.tokens, tables.projects.c.name.label("of")).select_from(joined)
    ordered = query.order_by(tables.tokens.c.created)
    with _store(settings) as store:
        return store.read(lambda connection: connection.execute(ordered).mappings().all())


def operator_revoke(settings: ServiceSettings, token: str) -> None:
    """Make a token of any project worthless. UserError where there is none."""
    with _store(settings) as store:
        if not store.write(lambda connection: revoke_token(connection, None, token)):
            raise UserError(f"there is no valid token {token[:60]}: see `advisor token list`")


@contextlib.contextmanager
def _store(settings: ServiceSettings) -> Iterator[Store]:
    settings.data.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database_url)
    try:
        yield store
    finally:
        store.close()
