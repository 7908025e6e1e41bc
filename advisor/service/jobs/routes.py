"""Routes of tuning jobs: queue one, watch it, stop it, go on with it; its result, report, model and
predictions."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import shutil
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field
from sqlalchemy.engine import Connection, RowMapping

from advisor.data import isolation
from advisor.errors import UserError
from advisor.files import write_bytes, write_text
from advisor.runs.folder import DataIdentity, RunFolder
from advisor.runs.result import read_result
from advisor.service.base import tables
from advisor.service.base.access import (
    Admin,
    Body,
    Cursor,
    Key,
    Limit,
    Reader,
    Runner,
    ServiceState,
    State,
    listed,
    once,
    row_of,
    with_etag,
)
from advisor.service.base.problems import Problem
from advisor.service.base.security import Principal, note_action
from advisor.service.base.store import new_id, now
from advisor.service.jobs.predictor import PREDICTOR
from advisor.service.jobs.queueing import GONE_ON, last_words, run_folder_of, standing_of
from advisor.service.routes.advice import REPORT_POLICY, known_advice
from advisor.service.routes.advising import Known
from advisor.service.routes.datasets import whole_or_none
from advisor.workflows.modalities import check_trees
from advisor.workflows.status import request_stop

router = APIRouter(prefix="/v1/runs", tags=["tuning jobs"])
WATCH_SECONDS = 1.0
SILENT_SECONDS = 15.0
MOST_ROWS = 100_000
"""Rows of a JSON request for predictions."""
Name = Annotated[str, Field(min_length=1, max_length=200)]


class RunRequest(Body):
    """Tune what a recommendation for an uploaded data set advises, by its metric. seconds: of the search and
    the final. with_trees: blend the networks with boosted trees where held-out rows say so."""

    recommendation: Name
    trials: Annotated[int, Field(ge=1)] = 40
    seconds: Annotated[float | None, Field(gt=0)] = None
    strategy: Literal["joint", "staged"] = "joint"
    with_trees: bool = False


class PredictRequest(Body):
    """Rows as objects: column -> value."""

    rows: Annotated[
        list[dict[str, str | int | float | bool | None]], Field(min_length=1, max_length=MOST_ROWS)
    ]


class PredictPlaces:
    """Which project's models each predictor process keeps."""

    def __init__(self, places: int) -> None:
        self._owners: list[str | None] = [None] * places
        self._locks = [asyncio.Lock() for _ in range(places)]

    async def predict(
        self, state: ServiceState, project: str, order: Mapping[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        """What the process of the project's place answers, and the bytes that it wrote."""
        limits = state.settings.limits
        place = int.from_bytes(project.encode()[-4:]) % len(self._owners)
        async with self._locks[place]:
            if self._owners[place] not in (None, project):
                await asyncio.to_thread(isolation.end, PREDICTOR, place)
            self._owners[place] = project

            def work() -> tuple[dict[str, Any], bytes]:
                with isolation.answered(PREDICTOR, order, limits.read_bytes, place) as answer:
                    return answer.value, answer.content()

            try:
                return await asyncio.to_thread(work)
            except isolation.WorkerDied:
                raise Problem(422, "predicting was stopped: it took too long, or too much memory") from None
            except MemoryError:
                raise Problem(413, "the rows need too much memory: send fewer at once") from None


# ------------------------------------------------------------------------------------------ the queue


@router.post("", status_code=202)
async def create_run(
    request: Request, body: RunRequest, who: Runner, state: State, key: Key = None
) -> Response:
    """Queue a tuning job: 202, and ``Location`` says where it is watched."""
    limits = state.settings.limits
    if body.trials > limits.trials:
        raise Problem(422, f"a run has at most {limits.trials:,} trials")
    if body.seconds is not None and body.seconds > limits.run_seconds:
        raise Problem(422, f"a run has at most {limits.run_seconds:,.0f} seconds")
    advised = await row_of(state, tables.recommendations, who, body.recommendation, "recommendation")
    if advised["dataset"] is None:
        raise Problem(
            422, "this recommendation was made from facts alone: a run needs the rows, so upload them"
        )
    await row_of(state, tables.datasets, who, advised["dataset"], "data set")
    known = await known_advice(state, who, body.recommendation)
    if body.with_trees:
        check_trees(known.recommendation.kind)
    row: dict[str, Any] = {"id": new_id("rn"), "project": who.project, "created": now()}
    identity = DataIdentity(**json.loads(advised["options"])["identity"])
    folder = run_folder_of(state, row)  # type: ignore[arg-type]  # a mapping is all it takes
    await asyncio.to_thread(_write_run, folder, known, identity)
    seconds = body.seconds or limits.run_seconds
    asked = {**body.model_dump(include={"trials", "strategy", "with_trees"}), "seconds": seconds}

    def write(connection: Connection) -> tuple[int, Mapping[str, Any]]:
        values = {"recommendation": body.recommendation, "request": json.dumps(asked), "holder": None}
        state_now = {"state": "queued", "detail": "", "changed": now()}
        connection.execute(sa.insert(tables.runs).values(**row, **values, **state_now))
        note_action(connection, who, "run.create", row["id"], request.state.request_id)
        return 202, {"id": row["id"], "state": "queued", **asked}

    answer = await once(state, who, key, request, write)
    answer.headers["Location"] = f"/v1/runs/{json.loads(bytes(answer.body))['id']}"
    return answer


def _write_run(folder: Path, known: Known, identity: DataIdentity) -> None:
    run = RunFolder(folder)
    with whole_or_none(folder):
        folder.mkdir(parents=True)
        run.write_facts(known.facts.to_dict(), identity)
        write_text(run.recommendation, known.recommendation.to_yaml())


@router.get("")
async def list_runs(who: Reader, state: State, cursor: Cursor = None, limit: Limit = 50) -> dict[str, Any]:
    """The project's runs, newest first."""
    return await listed(state, tables.runs, who, cursor, limit, shown_run)


def shown_run(row: RowMapping) -> dict[str, Any]:
    """A run's row as it is answered."""
    asked = json.loads(row["request"])
    head = {name: row[name] for name in ("id", "created", "recommendation", "state", "detail", "changed")}
    return {**head, **{name: asked[name] for name in ("trials", "seconds", "strategy")}}


@router.get("/{run_id}")
async def get_run(request: Request, run_id: str, who: Reader, state: State) -> Response:
    """Where a run stands: its state, trials done, the best, what is running, seconds left, the end of its
    log."""
    return with_etag(request, await watched_run(state, who, run_id))


async def watched_run(state: ServiceState, who: Principal, run_id: str) -> dict[str, Any]:
    """A run with where its search stands."""
    row = await row_of(state, tables.runs, who, run_id, "run")
    folder = run_folder_of(state, row)
    standing = await asyncio.to_thread(standing_of, folder)
    log = (await asyncio.to_thread(last_words, folder)).replace(str(state.settings.data.resolve()), "")
    search = None
    if standing is not None:
        hidden = ("driver", "storage", "state")
        search = {name: value for name, value in asdict(standing).items() if name not in hidden}
        search["done"] = standing.done
    return {**shown_run(row), "search": search, "log": log.splitlines()[-20:]}


@router.get("/{run_id}/events", response_class=EventSourceResponse)
async def run_events(run_id: str, who: Reader, state: State) -> AsyncIterator[ServerSentEvent]:
    """Where the run stands, whenever that changes (server-sent events), until it has ended."""
    told, silent = None, 0.0
    while not state.stopping:
        found = await watched_run(state, who, run_id)
        if found != told or silent >= SILENT_SECONDS:
            told, silent = found, 0.0
            yield ServerSentEvent(data=found, event="run")
        if found["state"] in ("stopped", "done", "failed"):
            return
        await asyncio.sleep(WATCH_SECONDS)
        silent += WATCH_SECONDS


@router.post("/{run_id}/stop")
async def stop_run(request: Request, run_id: str, who: Runner, state: State) -> dict[str, Any]:
    """Ask a run to stop; what it has finished is kept, and resume goes on with it."""
    row = await row_of(state, tables.runs, who, run_id, "run")
    await _to(state, who, request, row, {"queued": "stopped", "running": "stopping"}, "run.stop")
    await asyncio.to_thread(request_stop, RunFolder(run_folder_of(state, row)), 0)
    return shown_run(await row_of(state, tables.runs, who, run_id, "run"))


@router.post("/{run_id}/resume")
async def resume_run(request: Request, run_id: str, who: Runner, state: State) -> dict[str, Any]:
    """Queue a run again that was stopped or has failed."""
    row = await row_of(state, tables.runs, who, run_id, "run")
    await _to(state, who, request, row, {"stopped": "queued", "failed": "queued"}, "run.resume")
    return shown_run(await row_of(state, tables.runs, who, run_id, "run"))


async def _to(
    state: ServiceState,
    who: Principal,
    request: Request,
    row: RowMapping,
    steps: Mapping[str, str],
    action: str,
) -> None:
    """Bring a run from one state to the next; 409 where it is in none that leads there."""

    def write(connection: Connection) -> None:
        columns = tables.runs.c
        for before, after in steps.items():
            query = sa.update(tables.runs).where(columns.id == row["id"], columns.state == before)
            if connection.execute(query.values(state=after, changed=now())).rowcount:
                note_action(connection, who, action, row["id"], request.state.request_id)
                return
        raise Problem(409, f"the run is {row['state']}: it must be {' or '.join(steps)}")

    await state.store.writing(write)


@router.delete("/{run_id}", status_code=204)
async def delete_run(request: Request, run_id: str, who: Admin, state: State) -> Response:
    """Delete a run with its model. 409 while it runs."""
    row = await row_of(state, tables.runs, who, run_id, "run")
    if row["state"] in GONE_ON:
        raise Problem(409, "the run is running: stop it first")

    def write(connection: Connection) -> None:
        connection.execute(sa.delete(tables.runs).where(tables.runs.c.id == run_id))
        note_action(connection, who, "run.delete", run_id, request.state.request_id)

    await state.store.writing(write)
    await asyncio.to_thread(shutil.rmtree, run_folder_of(state, row), ignore_errors=True)
    return Response(status_code=204)


# ---------------------------------------------------------------------------------------- what came of it


async def _finished(state: ServiceState, who: Principal, run_id: str) -> RunFolder:
    row = await row_of(state, tables.runs, who, run_id, "run")
    run = RunFolder(run_folder_of(state, row))
    if not run.result.is_file():
        raise Problem(409, f"the run is {row['state']}: it has no result yet")
    return run


@router.get("/{run_id}/result")
async def result(request: Request, run_id: str, who: Reader, state: State) -> Response:
    """What result.json of the run says."""
    run = await _finished(state, who, run_id)
    report = await asyncio.to_thread(read_result, run)
    return with_etag(request, report.to_dict())


@router.get("/{run_id}/report", response_class=HTMLResponse)
async def run_report(run_id: str, who: Reader, state: State) -> HTMLResponse:
    """The run's report as one page that needs nothing else."""
    run = await _finished(state, who, run_id)
    page = await asyncio.to_thread(run.report_html.read_text, encoding="utf-8")
    hidden = page.replace(str(state.settings.data.resolve()), "")
    return HTMLResponse(hidden, headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/{run_id}/model")
async def model(run_id: str, who: Reader, state: State) -> Response:
    """The saved model as a zip: model.json, weights.safetensors and their checksums."""
    run = await _finished(state, who, run_id)
    content = await asyncio.to_thread(_zipped, run.model)
    name = f'attachment; filename="{run_id}.zip"'
    return Response(content, media_type="application/zip", headers={"Content-Disposition": name})


def _zipped(folder: Path) -> bytes:
    if not folder.is_dir():
        raise Problem(404, "the run has no model")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"model/{file.name}")
    return buffer.getvalue()


@router.post(
    "/{run_id}/predict",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": PredictRequest.model_json_schema()},
                "text/csv": {"schema": {"type": "string"}},
            },
        }
    },
)
async def predict(
    request: Request,
    run_id: str,
    who: Runner,
    state: State,
    media: Annotated[str, Header(alias="Content-Type", max_length=200)] = "application/json",
) -> Response:
    """Predictions for rows: JSON in, JSON out; or CSV in, CSV out."""
    is_csv = media.partition(";")[0].strip() == "text/csv"
    return await predicted(state, who, run_id, await request.body(), is_csv=is_csv)


async def predicted(
    state: ServiceState, who: Principal, run_id: str, content: bytes, *, is_csv: bool
) -> Response:
    """Predictions for the rows of a body."""
    run = await _finished(state, who, run_id)
    size = sum(file.stat().st_size for file in run.model.iterdir()) if run.model.is_dir() else 0
    if not 0 < size <= state.settings.limits.model_bytes:
        raise Problem(409, "the run has no model, or a larger one than is kept in memory here")
    if not is_csv:
        content = await asyncio.to_thread(_as_csv, content)
    folder = state.settings.data.resolve() / "predict" / secrets.token_hex(12)
    limits = state.settings.limits
    order = {"do": "predict", "run": str(run.path), "rows": str(folder / "rows.csv"), "models": limits.models}
    order |= {"form": "csv" if is_csv else "json", "seconds": limits.read_seconds}
    try:
        await asyncio.to_thread(folder.mkdir, parents=True)
        await asyncio.to_thread(write_bytes, folder / "rows.csv", content)
        told, body = await state.parts[PredictPlaces].predict(state, who.project, order)
    except UserError as error:
        told_user = str(error).replace(f"{folder}/", "").replace(str(run.path), "the run")
        raise UserError(told_user) from error.__cause__  # which says whether our disk is full
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if is_csv:
        return Response(body, media_type="text/csv")
    return JSONResponse({**told, "predictions": json.loads(body)})


def _as_csv(content: bytes) -> bytes:
    """The rows of a JSON request as a CSV file."""
    import polars as pl

    try:
        rows = PredictRequest.model_validate_json(content).rows
    except ValueError:
        raise Problem(422, 'the body is no {"rows": [{"COLUMN": VALUE, ...}, ...]} in JSON') from None
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [None if row.get(name) is None else str(row[name]) for row in rows] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String)).write_csv().encode()
