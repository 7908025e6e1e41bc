"""The queue of tuning jobs: which one is next, what runs, and what became of it.

A row says what is wanted of a run; its folder says where it stands. So a server that dies loses nothing: the
next one finds the row, looks whether the job still runs, and else starts it again, which goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from advisor.errors import UserError
from advisor.runs.folder import RunFolder
from advisor.service.base import tables
from advisor.service.base.access import ServiceState
from advisor.service.base.store import now
from advisor.service.jobs.launching import LOG_FILE, JobLauncher, JobOrder, LocalJobs, RayJobs
from advisor.service.routes.datasets import project_folder
from advisor.workflows.status import Status, read_status, request_stop

RunState = Literal["queued", "running", "stopping", "stopped", "done", "failed"]
"""queued: waits for its turn. running, stopping: a job has it. stopped: asked to; resume goes on with it.
done: there is a model. failed: it ended by itself without one; ``detail`` says why."""
LOOK_SECONDS = 0.5
ATTEMPTS = 3
"""So often a job is started again that ended without having said why: its machine died, or it was killed."""
LAST_WORDS = 2_000
"""Bytes of a job's log that say why it failed."""
LOG = logging.getLogger("advisor.service")
GONE_ON = ("running", "stopping")


class RunQueue:
    """The jobs of all projects. Its loop belongs to the server; each of several servers may have one."""

    def __init__(self, state: ServiceState, launcher: JobLauncher | None = None) -> None:
        self._state, self._name = state, secrets.token_hex(8)
        cluster = state.settings.cluster
        self._launcher = launcher or (LocalJobs() if cluster is None else RayJobs(cluster))
        self._loop = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Look no more. Jobs that run go on."""
        self._loop.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.look)
            except Exception as error:  # one bad moment must not end the queue
                LOG.error("queue", exc_info=error)
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """See what has ended, and start what may."""
        rows = self._open_rows()
        for row in rows:
            if row["state"] in GONE_ON:
                self._follow(row)
        running = [row for row in rows if row["state"] in GONE_ON]
        for row in next_runs(rows, running, self._state.settings.limits.run_workers, self._at_once()):
            self._start(row)

    def _at_once(self) -> int:
        return self._state.settings.limits.runs_at_once

    def _open_rows(self) -> Sequence[RowMapping]:
        query = sa.select(tables.runs).where(tables.runs.c.state.in_(("queued", *GONE_ON)))
        ordered = query.order_by(tables.runs.c.changed)
        return self._state.store.read(lambda connection: connection.execute(ordered).mappings().all())

    def _start(self, row: RowMapping) -> None:
        request = json.loads(row["request"])
        attempt = request.get("attempt", 0) + 1
        values = {"state": "running", "holder": self._name, "detail": ""}
        kept = json.dumps({**request, "attempt": attempt})
        if not self._change(row, "queued", **values, request=kept):
            return  # another server was quicker
        folder = run_folder_of(self._state, row)
        order = JobOrder(
            trials=request["trials"],
            seconds=request["seconds"],
            strategy=request["strategy"],
            executor=self._executor(),
            with_trees=request.get("with_trees", False),  # runs of before had none
        )
        try:
            self._launcher.start(row["id"], attempt, folder, order)
        except Exception as error:  # told to whoever asked for the run, and in our log
            LOG.error("start", exc_info=error, extra={"run": row["id"]})
            self._change(row, "running", state="failed", detail="the job could not be started")

    def _executor(self) -> str:
        return self._state.settings.executor

    def _follow(self, row: RowMapping) -> None:
        request, folder = json.loads(row["request"]), run_folder_of(self._state, row)
        attempt = request["attempt"]
        if self._launcher.runs(row["id"], attempt, folder):
            if row["state"] == "stopping" and not RunFolder(folder).stop_request.exists():
                request_stop(RunFolder(folder), 0)  # the job had not begun when it was asked to stop
            return
        state, detail = ended_as(folder, row["state"])
        if state == "queued" and attempt >= ATTEMPTS:
            state, detail = "failed", f"it was started {attempt} times: {detail}"
        self._change(row, row["state"], state=state, detail=detail)

    def _change(self, row: RowMapping, before: str, **values: Any) -> bool:
        columns = tables.runs.c
        query = sa.update(tables.runs).where(columns.id == row["id"], columns.state == before)

        def write(connection: Connection) -> bool:
            return bool(connection.execute(query.values(**values, changed=now())).rowcount)

        return self._state.store.write(write)


def next_runs(
    rows: Sequence[RowMapping], running: Sequence[RowMapping], most: int, at_once: int
) -> list[RowMapping]:
    """Which of the queued rows start now: those of the project with the fewest jobs first, of equals the
    one that waits longest.

    rows: in the order of their waiting. most: jobs in all. at_once: jobs of one project.
    """
    busy = Counter(row["project"] for row in running)
    waiting = [row for row in rows if row["state"] == "queued"]
    chosen: list[RowMapping] = []
    while waiting and len(running) + len(chosen) < most:
        row = min(waiting, key=lambda one: busy[one["project"]])  # min keeps the order of equals
        if busy[row["project"]] >= at_once:
            break
        busy[row["project"]] += 1
        chosen.append(row)
        waiting.remove(row)
    return chosen


def run_folder_of(state: ServiceState, row: RowMapping) -> Path:
    """The run folder of a row."""
    return project_folder(state, str(row["project"])) / "runs" / str(row["id"])


def standing_of(folder: Path) -> Status | None:
    """Where the run's search stands; None while its folder cannot be read, as in the moment that it is
    written."""
    try:
        return read_status(RunFolder(folder))
    except (UserError, OSError):
        return None


def ended_as(folder: Path, state: str) -> tuple[RunState, str]:
    """What became of a job that runs no more, and why."""
    standing = standing_of(folder)
    if standing is not None and standing.state == "finished":
        return "done", ""
    words = last_words(folder)
    if state == "stopping":
        return "stopped", "it was stopped on request; resume continues it"
    error = next((line[7:] for line in reversed(words.splitlines()) if line.startswith("error: ")), None)
    if error is not None:
        return "failed", error.replace(f"{folder}/", "").replace(str(folder), "the run")
    if RunFolder(folder).result.is_file():
        return "done", ""  # the time limit ended it before all trials, and there is a model
    return "queued", "it ended without a message"


def last_words(folder: Path) -> str:
    """The end of a job's log."""
    try:
        with (folder / LOG_FILE).open("rb") as file:
            file.seek(max(0, (folder / LOG_FILE).stat().st_size - LAST_WORDS))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
