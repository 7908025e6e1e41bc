"""Starting and stopping the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

import sqlalchemy as sa
import uvicorn

from advisor.console import say
from advisor.errors import UserError
from advisor.service.app import guarded, make_app
from advisor.service.base import tables
from advisor.service.base.access import ServiceState
from advisor.service.base.gateway import log_as_json
from advisor.service.base.security import make_project, make_token
from advisor.service.base.settings import DEFAULT_PROJECT, ServiceSettings, keep_for_ever

STOP_SECONDS = 6
"""So long requests under way may take when the service is told to stop; all is over within 10 seconds."""
EVERYWHERE = ("0.0.0.0", "::")
PAGE_TOKEN = "page of this machine"
"""The token whose rights a session has that the one-time URL opens. Its own secret is thrown away."""
MOST_HEADER = 65_536
BACKLOG = 2_048
"""Connections that may wait until they are taken; uvicorn's own number."""


def serve_until_stopped(settings: ServiceSettings, level: int = logging.INFO) -> None:
    """Serve until Ctrl-C or TERM; then end what is under way, within 10 seconds.

    Prints the URL with a one-time token that opens the page. UserError when it cannot listen there.
    """
    with listening(settings) as listener:
        port = listener.getsockname()[1]
        app = make_app(replace(settings, port=port))
        keep_for_ever()
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
            asyncio.run(_StoppingServer(config, app.state.service).serve(sockets=[listener]))


class _StoppingServer(uvicorn.Server):
    """Tells the streams that it is to stop: they would not end by themselves."""

    def __init__(self, config: uvicorn.Config, state: ServiceState) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On TERM and Ctrl-C."""
        self._state.stopping = True
        super().handle_exit(sig, frame)


@contextlib.contextmanager
def listening(settings: ServiceSettings) -> Iterator[socket.socket]:
    """The socket of the settings' host and port, which takes connections already. UserError where there is
    none to be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named: asyncio sets TCP_NODELAY only where it is, and without it the body of each
    # answer waits 40 ms for the receiver's delayed acknowledgement of the head.
    with socket.socket(family, proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(BACKLOG)  # before the URL is said: who connects at once waits, and is not refused
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
