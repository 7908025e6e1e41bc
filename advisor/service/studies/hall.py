"""The studies that are open in this process: opened when they are asked for, closed when nobody does any
more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy.engine import RowMapping

from advisor.errors import UserError
from advisor.rules import shipped
from advisor.rules.recommendation import library_default
from advisor.search.plan import SearchPlan, StudyStore
from advisor.search.storage.database import Database
from advisor.search.storage.journal import Journal
from advisor.search.study import Study
from advisor.search.study_space import StudySpace
from advisor.service.base.access import ServiceState
from advisor.service.base.problems import Problem
from advisor.service.routes.advising import Known, known_of, opened_document
from advisor.service.routes.datasets import project_folder
from advisor.service.studies.hosting import StudyHost
from advisor.service.studies.wire import DEFAULT_EPOCHS, StudyRequest, space_of
from advisor.spaces.space import Space

LAPSE_SECONDS = 0.5
"""How often it is looked at whether a lease has lapsed."""
IDLE_SECONDS = 600.0
"""A study that nobody has asked for so long is closed; then another replica may open it."""
CALLS, PROPOSALS = 16, 2
"""Threads for calls that may wait for a study's lock, and for proposals: as many as studies propose at
once."""
AGAIN_SECONDS = 2
LOG = logging.getLogger("advisor.service")


class StudyHall:
    """All open studies, by the id of their row. Made and closed within the event loop."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self.rows: dict[str, RowMapping] = {}
        self._hosts: dict[str, StudyHost] = {}
        self._stores: dict[str, StudyStore] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._calls = ThreadPoolExecutor(CALLS, "study-calls")
        self._proposals = ThreadPoolExecutor(PROPOSALS, "study-proposals")
        self._watch = asyncio.create_task(self._watch_leases())

    async def host(self, row: RowMapping) -> StudyHost:
        """The study of a row, opened where it is not. 503 while another replica has it."""
        study_id = str(row["id"])
        if (host := self._hosts.get(study_id)) is not None:
            return host
        async with self._locks.setdefault(study_id, asyncio.Lock()):
            if (host := self._hosts.get(study_id)) is None:
                host = self._hosts[study_id] = await self._open(row)
            return host

    async def forget(self, study_id: str) -> None:
        """Close a study."""
        self.rows.pop(study_id, None)
        if (host := self._hosts.pop(study_id, None)) is not None:
            await asyncio.to_thread(self._stores.pop(host.id).close)

    async def close(self) -> None:
        """Close all, so that whoever comes next finds them free."""
        self._watch.cancel()
        self._calls.shutdown()
        self._proposals.shutdown(cancel_futures=True)
        for study_id in list(self._hosts):
            with contextlib.suppress(Exception):  # each is closed, whatever one of them has
                await self.forget(study_id)

    async def _open(self, row: RowMapping) -> StudyHost:
        request, plan = StudyRequest.model_validate_json(row["request"]), opened_document(row["plan"])
        opened = self._opener(row)
        events: list[StudyHost] = []

        def begin() -> tuple[Study, Space]:
            space, search_plan = search_plan_of(request, plan)
            store = opened()
            try:
                study = Study(
                    search_plan, store, adopt=True, on_event=lambda event: events[0].on_event(event)
                )
            except BaseException:
                store.close()
                raise
            self._stores[str(row["id"])] = store
            return study, space

        try:
            study, space = await asyncio.get_running_loop().run_in_executor(self._calls, begin)
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # it is not somebody else's: our disk is full
                raise
            LOG.warning("study", extra={"study": row["id"], "error": str(error)})
            again = {"Retry-After": str(AGAIN_SECONDS)}
            raise Problem(503, "the study is open in another server: ask again", again) from None
        asked = request.model_dump()
        host = StudyHost(str(row["id"]), study, space, asked, self._state.store, self._calls, self._proposals)
        events.append(host)
        await host.begin()
        return host

    def _opener(self, row: RowMapping) -> Any:
        url = self._state.settings.database
        if url is not None and not url.startswith("sqlite"):
            return lambda: Database.open(url, row["id"])
        path = journal_of(self._state, row)

        def open_journal() -> StudyStore:
            path.parent.mkdir(parents=True, exist_ok=True)
            return Journal.open(path, owned=True)

        return open_journal

    async def _watch_leases(self) -> None:
        while True:
            await asyncio.sleep(LAPSE_SECONDS)
            for study_id, host in list(self._hosts.items()):
                try:
                    await host.lapse()
                    if host.is_idle(IDLE_SECONDS):
                        await self.forget(study_id)
                except Exception as error:  # one bad study must not end the watch over the others
                    LOG.error("lapse", exc_info=error, extra={"study": study_id})


def journal_of(state: ServiceState, row: Mapping[str, Any] | RowMapping) -> Path:
    """Where a study is kept that is not in a database."""
    return project_folder(state, str(row["project"])) / "studies" / f"{row['id']}.journal"


def plan_document(request: StudyRequest, known: Known | None) -> dict[str, Any]:
    """What a study is made with, as it is kept: its own space, and the recommendation as it was then.

    UserError for a space that is none, or where there is neither.
    """
    if known is None and request.space is None:
        raise UserError("give a recommendation, a space, or both")
    own = None if request.space is None else space_of(request.space).to_dict()
    kept = None
    if known is not None:
        kept = {"facts": known.facts.to_dict(), "document": known.recommendation.to_dict()}
    return {"space": own, "advised": kept}


def search_plan_of(request: StudyRequest, plan: Mapping[str, Any]) -> tuple[Space, SearchPlan]:
    """The space of a study, and the plan by which it is searched; the same from the same document."""
    own = None if plan["space"] is None else Space.from_dict(plan["space"])
    enqueue: dict[str, Mapping[str, Any]] = {}
    epochs = request.epochs or DEFAULT_EPOCHS
    yours: frozenset[str] = frozenset()
    if plan["advised"] is None:
        assert own is not None
        space = own
    else:
        made = known_of(plan["advised"]["facts"], plan["advised"]["document"], {}, {}).recommendation
        space, epochs = made.space, request.epochs or int(made.configuration["epochs"])
        yours = frozenset(name for name, source in made.provenance.items() if source.yours)
        enqueue = {"recommendation": dict(made.configuration)}
        if own is not None:
            space = Space({**space.parameters, **own.parameters}, {**space.derivations, **own.derivations})
            enqueue = {"recommendation": space.complete(_fitting(space, made.configuration))}
        else:
            enqueue["library default"] = library_default(made, shipped.base_space(made.kind))
    for number, configuration in enumerate(request.enqueue):
        enqueue[f"enqueued {number}"] = space.complete(configuration)
    searched = StudySpace(space, request.trials, len(enqueue), own=yours, adapt=plan["advised"] is not None)
    return space, SearchPlan(
        space=searched,
        enqueue=enqueue,
        trials=request.trials,
        max_epochs=epochs,
        space_text=repr(space.to_dict()),
        seed=request.seed,
    )


def _fitting(space: Space, configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in configuration.items()
        if name in space.parameters and space[name].problem(value) is None
    }
