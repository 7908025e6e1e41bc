"""Routes of ask and tell: studies, trials with leases, reports, ends, batches, results and events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError
from sqlalchemy.engine import Connection

from advisor.errors import UserError
from advisor.search.study import Failure, UnknownTrial
from advisor.service.base import tables
from advisor.service.base.access import (
    Admin,
    Adviser,
    Cursor,
    Key,
    Limit,
    Reader,
    ServiceState,
    State,
    listed,
    once,
    row_of,
    with_etag,
)
from advisor.service.base.problems import Problem, problem_of
from advisor.service.base.security import Principal, note_action
from advisor.service.base.store import new_id, now
from advisor.service.routes.advice import known_advice
from advisor.service.routes.advising import packed_document
from advisor.service.studies.hall import StudyHall, journal_of, plan_document, search_plan_of
from advisor.service.studies.hosting import StudyHost, TrialLease, lease_times, shown_end
from advisor.service.studies.wire import (
    AskRequest,
    BatchRequest,
    CompleteRequest,
    FailRequest,
    HeartbeatRequest,
    Operation,
    ReportRequest,
    StudyRequest,
    shown_trial,
)

router = APIRouter(prefix="/v1/studies", tags=["ask and tell"])
WAIT_SECONDS = 1.0
"""What an asker is told to wait when all trials of the budget are out."""
LISTEN_SECONDS = 1.0
"""A listener is looked after so often, where nothing happens: a stream ends when the service does."""


@router.post("", status_code=201)
async def create_study(
    request: Request, body: StudyRequest, who: Adviser, state: State, key: Key = None
) -> Response:
    """A study around a recommendation, in a space of your own, or both."""
    if body.trials > state.settings.limits.study_trials:
        raise Problem(422, f"a study has at most {state.settings.limits.study_trials:,} trials")
    known = None
    if body.recommendation is not None:
        known = await known_advice(state, who, body.recommendation)
    plan = await asyncio.to_thread(plan_document, body, known)
    plan = json.loads(json.dumps(plan, default=str))
    await asyncio.to_thread(search_plan_of, body, plan)  # what is wrong with it is said now
    row = {"id": new_id("st"), "project": who.project, "created": now(), "name": body.name or "study"}

    def write(connection: Connection) -> tuple[int, Mapping[str, Any]]:
        values = {"request": body.model_dump_json(), "plan": packed_document(plan)}
        connection.execute(sa.insert(tables.studies).values(**row, **values))
        note_action(connection, who, "study.create", str(row["id"]), request.state.request_id)
        return 201, {**{name: row[name] for name in ("id", "name", "created")}, "trials": body.trials}

    answer = await once(state, who, key, request, write)
    answer.headers["Location"] = f"/v1/studies/{json.loads(bytes(answer.body))['id']}"
    return answer


@router.get("")
async def list_studies(who: Reader, state: State, cursor: Cursor = None, limit: Limit = 50) -> dict[str, Any]:
    """The project's studies, newest first."""
    names = ("id", "created", "name")
    return await listed(
        state, tables.studies, who, cursor, limit, lambda row: {name: row[name] for name in names}
    )


async def open_study(state: ServiceState, who: Principal, study_id: str) -> StudyHost:
    """A study of the asker's project, open; 404 where it is not."""
    hall: StudyHall = state.parts[StudyHall]
    return await hall.host(await _row(state, who, study_id))


async def _row(state: ServiceState, who: Principal, study_id: str) -> sa.RowMapping:
    """As ``row_of``; a row of a study never changes, so it is asked for once."""
    rows: dict[str, sa.RowMapping] = state.parts[StudyHall].rows
    row = rows.get(study_id)
    if row is None or row["project"] != who.project:
        row = rows[study_id] = await row_of(state, tables.studies, who, study_id, "study")
    return row


@router.get("/{study_id}")
async def get_study(request: Request, study_id: str, who: Reader, state: State) -> Response:
    """Where a study stands: done, running, left, and the best so far."""
    row = await _row(state, who, study_id)
    host = await open_study(state, who, study_id)
    return with_etag(
        request, {"id": row["id"], "name": row["name"], "created": row["created"], **standing(host)}
    )


def standing(host: StudyHost) -> dict[str, Any]:
    """Where a study stands."""
    best = host.study.best
    left = host.study.remaining
    running = [
        {
            "number": number,
            "attempt": lease.attempt,
            "worker": lease.worker,
            "origin": lease.assignment.origin,
        }
        for number, lease in sorted(host.leases.items())
    ]
    return {
        "state": "finished" if not left else "open",
        "direction": host.request["direction"],
        "trials": host.request["trials"],
        "done": host.request["trials"] - left,
        "running": running,
        "best": None if best is None else shown_trial(best, host.space, host.sign),
        "searched": list(host.space.searched),
    }


@router.delete("/{study_id}", status_code=204)
async def delete_study(request: Request, study_id: str, who: Admin, state: State) -> Response:
    """Delete a study with its trials."""
    row = await row_of(state, tables.studies, who, study_id, "study")
    await state.parts[StudyHall].forget(study_id)

    def write(connection: Connection) -> None:
        connection.execute(sa.delete(tables.studies).where(tables.studies.c.id == study_id))
        note_action(connection, who, "study.delete", study_id, request.state.request_id)

    await state.store.writing(write)
    await asyncio.to_thread(journal_of(state, row).unlink, missing_ok=True)
    return Response(status_code=204)


# ------------------------------------------------------------------------------------------ ask and tell


@router.post("/{study_id}/trials", status_code=201)
async def ask(
    study_id: str, who: Adviser, state: State, body: AskRequest | None = None, key: Key = None
) -> JSONResponse:
    """Ask for a trial: 201 with its configuration and its lease; 200 with ``trial: null`` when there is none.

    ``state`` says why: "finished", the budget is used up; "wait", all that is left is out at other workers.
    """
    host = await open_study(state, who, study_id)
    status, answer = await _ask(host, key, (body or AskRequest()).worker)
    return JSONResponse(answer, status, {"Retry-After": "1"} if answer.get("state") == "wait" else None)


async def _ask(host: StudyHost, key: str | None, worker: str) -> tuple[int, dict[str, Any]]:
    lease, is_new = await host.ask(key, worker)
    if lease is None:
        finished = not host.study.remaining
        wait = {} if finished else {"retry_after": WAIT_SECONDS}
        return 200, {"trial": None, "state": "finished" if finished else "wait", **wait}
    return 201 if is_new else 200, {"trial": shown_lease(host, lease)}


def shown_lease(host: StudyHost, lease: TrialLease) -> dict[str, Any]:
    """A trial as it is given out."""
    given = lease.assignment
    shown = {"study": host.id, "number": given.number, "attempt": lease.attempt, "origin": given.origin}
    return {**shown, "configuration": dict(given.configuration), **dict(lease_times(lease))}


@router.post("/{study_id}/trials/{number}/reports")
async def report(
    study_id: str, number: int, body: ReportRequest, who: Adviser, state: State
) -> dict[str, Any]:
    """Tell a loss after this many epochs; the answer says whether to stop. Renews the lease."""
    return await _report(await open_study(state, who, study_id), number, body)


async def _report(host: StudyHost, number: int, body: ReportRequest) -> dict[str, Any]:
    stop = await host.report(number, body.epoch, body.loss, body.attempt)
    ended = host.study.ended(number) if stop else None
    lost = stop and ended is None
    why = "another worker has it" if lost else "" if ended is None else ended.reason or ended.end
    return {"stop": stop, "why": why}


@router.post("/{study_id}/trials/{number}/heartbeat")
async def heartbeat(
    study_id: str, number: int, who: Adviser, state: State, body: HeartbeatRequest | None = None
) -> dict[str, Any]:
    """Say that the worker is alive; the answer says whether to stop."""
    return _heartbeat(await open_study(state, who, study_id), number, body or HeartbeatRequest())


def _heartbeat(host: StudyHost, number: int, body: HeartbeatRequest) -> dict[str, Any]:
    taken = host.is_taken(number, body.attempt)
    seconds = None if taken else host.renew(number)
    return {"stop": seconds is None, "lease_seconds": seconds}


@router.post("/{study_id}/trials/{number}/complete")
async def complete(
    study_id: str, number: int, who: Adviser, state: State, body: CompleteRequest | None = None
) -> dict[str, Any]:
    """Tell a trial's value. Sent again, the answer is the same; with another value it is 409."""
    return await _complete(await open_study(state, who, study_id), number, body or CompleteRequest())


async def _complete(host: StudyHost, number: int, body: CompleteRequest) -> dict[str, Any]:
    return shown_end(await host.complete(number, body.value, body.attempt), host.sign)


@router.post("/{study_id}/trials/{number}/fail")
async def fail(
    study_id: str, number: int, who: Adviser, state: State, body: FailRequest | None = None
) -> dict[str, Any]:
    """Tell that a trial failed. By its own doing it has ended; else it is given to the next who asks."""
    return await _fail(await open_study(state, who, study_id), number, body or FailRequest())


async def _fail(host: StudyHost, number: int, body: FailRequest) -> dict[str, Any]:
    ended = await host.fail(number, Failure(body.cause, body.error), body.attempt)
    return {"number": number, "state": "waiting"} if ended is None else shown_end(ended, host.sign)


@router.post("/{study_id}/batch")
async def batch(study_id: str, body: BatchRequest, who: Adviser, state: State) -> dict[str, Any]:
    """Several operations in one request; ``results`` has a status and a body for each, in their order."""
    host = await open_study(state, who, study_id)
    return {"results": [await _operate(host, operation) for operation in body.operations]}


async def _operate(host: StudyHost, operation: Operation) -> dict[str, Any]:
    try:
        status, answer = await _done(host, operation)
    except Problem as problem:
        return {"status": problem.status, "body": {"detail": problem.detail}}
    except UnknownTrial as error:
        return {"status": 404, "body": {"detail": str(error)}}
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        return {"status": 422, "body": {"detail": f"{where}: {first['msg']}"}}
    except UserError as error:
        said = problem_of(error)
        assert said is not None  # which it is for bugs only
        return {"status": said.status, "body": {"detail": said.detail}}
    return {"status": status, "body": answer}


async def _done(host: StudyHost, operation: Operation) -> tuple[int, dict[str, Any]]:
    if operation.do == "ask":
        return await _ask(host, operation.key, AskRequest.model_validate(operation.body).worker)
    if operation.number is None:
        raise Problem(422, "number: the trial is missing")
    number, body = operation.number, operation.body
    if operation.do == "report":
        return 200, await _report(host, number, ReportRequest.model_validate(body))
    if operation.do == "heartbeat":
        return 200, _heartbeat(host, number, HeartbeatRequest.model_validate(body))
    if operation.do == "complete":
        return 200, await _complete(host, number, CompleteRequest.model_validate(body))
    return 200, await _fail(host, number, FailRequest.model_validate(body))


# ---------------------------------------------------------------------------------------------- results


@router.get("/{study_id}/best")
async def best(request: Request, study_id: str, who: Reader, state: State) -> Response:
    """The best trial so far; 404 while there is none."""
    host = await open_study(state, who, study_id)
    found = host.study.best
    if found is None:
        raise Problem(404, "no trial of this study is complete yet")
    return with_etag(request, shown_trial(found, host.space, host.sign))


@router.get("/{study_id}/trials")
async def list_trials(
    study_id: str,
    who: Reader,
    state: State,
    cursor: Annotated[int, Query(ge=0)] = 0,
    limit: Limit = 100,
) -> dict[str, Any]:
    """The trials that have ended and count, in the order of the budget; cursor: how many to skip."""
    host = await open_study(state, who, study_id)
    trials = host.study.trials
    items = [shown_trial(trial, host.space, host.sign) for trial in trials[cursor : cursor + limit]]
    return {"items": items, "cursor": cursor + limit if len(trials) > cursor + limit else None}


@router.get("/{study_id}/importance")
async def importance(study_id: str, who: Reader, state: State) -> dict[str, Any]:
    """How much of the differences between the trials each parameter explains (fANOVA, from Optuna)."""
    host = await open_study(state, who, study_id)
    return {"importance": await asyncio.to_thread(importances, host)}


def importances(host: StudyHost) -> dict[str, float]:
    """Parameter -> its share. UserError with fewer than two different results."""
    import optuna

    kept = optuna.create_study()
    complete_ones = [trial for trial in host.study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    kept.add_trials([trial for trial in complete_ones if trial.params])
    if len({trial.value for trial in kept.get_trials(deepcopy=False)}) < 2:
        raise UserError("importance needs at least two complete trials with different values")
    found = optuna.importance.get_param_importances(kept)
    return {name: float(share) for name, share in found.items()}


@router.get("/{study_id}/events", response_class=EventSourceResponse)
async def events(
    study_id: str,
    who: Reader,
    state: State,
    last: Annotated[int | None, Header(alias="Last-Event-ID", ge=0)] = None,
    after: Annotated[int, Query(ge=0)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """What happens in the study, as it happens (server-sent events); goes on after ``Last-Event-ID``."""
    host = await open_study(state, who, study_id)
    seen = after if last is None else last
    while not state.stopping:
        for event in host.after(seen):
            seen = event.number
            yield ServerSentEvent(data=event.data, event=event.kind, id=str(event.number))
        if not host.study.remaining:
            yield ServerSentEvent(data={"state": "finished"}, event="finished", id=str(seen))
            return
        await host.listen(LISTEN_SECONDS)
