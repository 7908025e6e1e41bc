"""The application: its parts put together, and the routes that belong to none of them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from advisor import __version__
from advisor.service.base import tables
from advisor.service.base.access import Admin, Reader, ServiceState, State
from advisor.service.base.gateway import Gateway, Numbers
from advisor.service.base.problems import Problem, add_problem_handlers
from advisor.service.base.security import Buckets, Doorkeeper
from advisor.service.base.settings import DEFAULT_PROJECT, ServiceSettings
from advisor.service.base.store import Store, now
from advisor.service.jobs import routes as runs
from advisor.service.jobs.queueing import GONE_ON, RunQueue
from advisor.service.pages import routes as pages
from advisor.service.routes import accounts, advice, datasets
from advisor.service.routes.advising import AdviceDesk, AdvicePool
from advisor.service.routes.datasets import ReadingPlaces
from advisor.service.studies import routes as studies
from advisor.service.studies.hall import StudyHall

TIDY_SECONDS = 3600.0
"""How often it is looked at what has become too old."""
TITLE = "Tuning advisor"
WORDS = (
    "Advice before you tune a neural network, and the tuning. Every error is a problem document (RFC 9457)."
)


def make_app(settings: ServiceSettings) -> FastAPI:
    """The application for one server. UserError when its database does not answer.

    It has to be wrapped by ``guarded`` before it is served.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database_url)
    state = ServiceState(
        settings, store, Doorkeeper(store), Numbers(), Buckets(settings.limits.requests_a_minute)
    )

    tools = LateTools(lambda: guarded(app), f"127.0.0.1:{settings.port}")

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        state.parts[ReadingPlaces] = ReadingPlaces()
        state.parts[AdviceDesk] = AdviceDesk()
        advisers = state.parts[AdvicePool] = AdvicePool(settings.advice_processes)
        hall = state.parts[StudyHall] = StudyHall(state)
        state.parts[runs.PredictPlaces] = runs.PredictPlaces(settings.limits.models)
        queue = state.parts[RunQueue] = RunQueue(state)
        tidying = asyncio.create_task(_tidy_for_ever(state))
        try:
            yield
        finally:
            tidying.cancel()
            await tools.close()
            advisers.close()
            await queue.close()
            await hall.close()
            await asyncio.to_thread(store.close)

    app = FastAPI(
        title=TITLE,
        description=WORDS,
        version=__version__,
        lifespan=life,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = state
    add_problem_handlers(app)
    for part in (accounts, datasets, advice, studies, runs, pages):
        app.include_router(part.router)
    _add_own_routes(app)
    app.router.routes.append(Route("/mcp", endpoint=tools, methods=["GET", "POST", "DELETE"]))
    return app


class LateTools:
    """The tools for assistants, which are loaded when the first one asks: their libraries take a second."""

    def __init__(self, app: Callable[[], ASGIApp], host: str) -> None:
        self._app, self._host = app, host
        self._begin, self._stop = asyncio.Lock(), asyncio.Event()
        self._tools: ASGIApp | None = None
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, once they are there."""
        async with self._begin:
            if self._tools is None:
                ready: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
                self._running = asyncio.create_task(self._run(ready))
                self._tools = await ready
        await self._tools(scope, receive, send)

    async def _run(self, ready: asyncio.Future[ASGIApp]) -> None:
        """Keep the sessions open, within one task, as their library demands."""
        module = await asyncio.to_thread(import_module, "advisor.service.assistants")
        tools = module.HttpTools(self._app, self._host)
        async with tools.server.session_manager.run():
            ready.set_result(tools)
            await self._stop.wait()

    async def close(self) -> None:
        """End the sessions."""
        self._stop.set()
        if self._running is not None:
            await self._running


def guarded(app: FastAPI) -> ASGIApp:
    """The application behind its gateway, as it is served."""
    state: ServiceState = app.state.service
    return Gateway(app, state.settings, state.numbers)


def _add_own_routes(app: FastAPI) -> None:
    @app.get("/healthz", tags=["operation"])
    async def health(state: State) -> JSONResponse:
        """Whether the service and its database answer. The only route that needs no token."""
        try:
            await state.store.reading(lambda connection: connection.execute(sa.text("SELECT 1")))
        except sa.exc.SQLAlchemyError:
            return JSONResponse({"status": "the database does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics(who: Admin, state: State) -> Response:
        """Numbers for Prometheus, over all projects: for an admin of the project that the operator has."""
        row = await row_of_project(state, who.project)
        if row["name"] != DEFAULT_PROJECT:
            raise Problem(403, f"the metrics are for admins of the project '{DEFAULT_PROJECT}'")
        text = generate_latest(state.numbers.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @app.get("/openapi.json", tags=["operation"])
    async def openapi(request: Request, who: Reader) -> dict[str, Any]:
        """What every route takes and gives."""
        whole: dict[str, Any] = request.app.openapi()
        return whole


async def row_of_project(state: ServiceState, project: str) -> sa.RowMapping:
    """A project's row."""
    query = sa.select(tables.projects).where(tables.projects.c.id == project)
    return await state.store.reading(lambda connection: connection.execute(query).mappings().one())


async def _tidy_for_ever(state: ServiceState) -> None:
    while True:
        await asyncio.to_thread(delete_old, state)
        await asyncio.sleep(TIDY_SECONDS)


def delete_old(state: ServiceState) -> None:
    """Delete what is older than a project's days: rows, then the files that no row names any more."""
    oldest = now() - state.settings.limits.days * 86_400

    kept = (tables.datasets, tables.recommendations, tables.studies, tables.runs, tables.audit, tables.keys)

    def write(connection: sa.Connection) -> None:
        for table in kept:
            running = table.c.state.in_(GONE_ON) if table is tables.runs else sa.false()
            connection.execute(sa.delete(table).where(table.c.created < oldest, sa.not_(running)))
        connection.execute(sa.delete(tables.sessions).where(tables.sessions.c.expires < now()))

    state.store.write(write)
    home = state.settings.data / "projects"
    for table, name in ((tables.datasets, "datasets"), (tables.studies, "studies"), (tables.runs, "runs")):
        ids = sa.select(table.c.id)
        known = state.store.read(lambda connection, ids=ids: set(connection.scalars(ids)))  # type: ignore[misc]
        for path in home.glob(f"*/{name}/*"):
            if path.name.partition(".")[0] not in known and is_old(path, oldest):
                remove(path)


def is_old(path: Path, oldest: float) -> bool:
    """Whether nothing was written there since; what is being made has no row yet."""
    try:
        return path.stat().st_mtime < min(oldest, now() - TIDY_SECONDS)
    except OSError:
        return False


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
