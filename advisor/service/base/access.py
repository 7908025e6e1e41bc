"""What the routes share: who asks, bodies that are checked, answers with ETags, pages, and keys that make a
request safe to send twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, Header, Query, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, model_validator
from sqlalchemy.engine import Connection, RowMapping

from advisor.service.base import tables
from advisor.service.base.gateway import Numbers
from advisor.service.base.problems import Problem, not_found
from advisor.service.base.security import SESSION_COOKIE, Buckets, Doorkeeper, Principal, digest_of
from advisor.service.base.settings import Scope, ServiceSettings
from advisor.service.base.store import RowPage, Store, now, page_of

MOST_DEPTH, MOST_VALUES, MOST_TEXT = 24, 200_000, 200_000
"""How deep and how large a JSON body may be. facts.json of 10,000 columns has 150,000 values."""
KEY_SECONDS = 24 * 3600.0
"""So long an Idempotency-Key is remembered."""


@dataclass
class ServiceState:
    """What lives as long as the server does."""

    settings: ServiceSettings
    store: Store
    door: Doorkeeper
    numbers: Numbers
    buckets: Buckets
    stopping: bool = False
    """Told to stop: streams end, so that nobody waits for them."""
    parts: dict[type, Any] = field(default_factory=dict)
    """The parts that the routes bring along (studies, runs), by type."""


async def state_of(request: Request) -> ServiceState:
    """The server's state."""
    state: ServiceState = request.app.state.service
    return state


State = Annotated[ServiceState, Depends(state_of)]
_bearer = HTTPBearer(auto_error=False, description="A token: Authorization: Bearer adv_...")


async def who_asks(request: Request) -> Principal | None:
    """Who a request's token or session is; None without a valid one."""
    state: ServiceState = request.app.state.service
    words = request.headers.get("authorization", "")
    kind, _, secret = words.partition(" ")
    find: Callable[[str], Principal | None] = state.door.of_token
    if not words:
        secret, find = request.cookies.get(SESSION_COOKIE, ""), state.door.of_session
    elif kind.lower() != "bearer":
        return None
    secret = secret.strip()
    if not secret:
        return None
    who = state.door.remembered(digest_of(secret)) or await asyncio.to_thread(find, secret)
    if who is not None:
        request.state.who = who
    return who


def needs(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency: whoever asks has a token whose scope holds this one, and requests left."""

    async def check(request: Request, _: Annotated[Any, Depends(_bearer)]) -> Principal:
        who = await who_asks(request)
        if who is None:
            raise Problem(401, "send a valid token: Authorization: Bearer TOKEN (`advisor token create`)")
        state: ServiceState = request.app.state.service
        if wait := state.buckets.take(who.token):
            again = {"Retry-After": str(math.ceil(wait))}
            most = state.settings.limits.requests_a_minute
            raise Problem(429, f"more than {most:,} requests a minute: wait, then send it again", again)
        if who.by_cookie and request.method not in ("GET", "HEAD"):
            own = request.headers.get("origin") or request.headers.get("sec-fetch-site") == "same-origin"
            if not own:  # the gateway has refused foreign ones; a browser sends one of both
                raise Problem(403, "a session's request must come from a page of the service")
        if not who.may(scope):
            raise Problem(403, f"this token's scope is '{who.scope}'; the request needs '{scope}'")
        return who

    return check


Reader = Annotated[Principal, Depends(needs("read"))]
Adviser = Annotated[Principal, Depends(needs("advise"))]
Runner = Annotated[Principal, Depends(needs("run"))]
Admin = Annotated[Principal, Depends(needs("admin"))]
Key = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")
]
Cursor = Annotated[str | None, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=1000)]


class Body(BaseModel):
    """A JSON body: unknown fields are refused, as are depth, size and text that no file of ours may hold."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, data: Any) -> Any:
        if isinstance(data, dict):
            check_json(data)
        return data


def check_json(document: Any) -> None:
    """ValueError for JSON that is too deep or too large, or has NaN, NUL or half a character in it."""
    left = MOST_VALUES
    found: list[tuple[tuple[Any, ...], int]] = [((document,), 0)]
    while found:
        values, depth = found.pop()
        left -= len(values)
        if left < 0 or depth > MOST_DEPTH:
            raise ValueError(f"more than {MOST_VALUES:,} values, or deeper than {MOST_DEPTH}")
        for value in values:
            kind = type(value)  # JSON has these types and no heirs of them
            if kind is str:
                if len(value) > MOST_TEXT or "\0" in value or not _is_unicode(value):
                    raise ValueError("a text is too long, or holds an invalid character")
            elif kind is float:
                if not math.isfinite(value):
                    raise ValueError("NaN and Infinity are not JSON")
            elif kind is int:
                if abs(value) > 2**63:
                    raise ValueError("a whole number has more than 64 bits")
            elif kind is dict:
                found.append(((*value, *value.values()), depth + 1))
            elif kind is list:
                found.append((tuple(value), depth + 1))


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_etag(request: Request, document: Any, status: int = 200) -> Response:
    """The answer with an ETag; 304 without a body where the asker has the same already."""
    body = json.dumps(document, allow_nan=False, separators=(",", ":"), default=str).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if tag in known:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, status, {"ETag": tag}, media_type="application/json")


async def row_of(state: ServiceState, table: sa.Table, who: Principal, row_id: str, what: str) -> RowMapping:
    """A row of the asker's project; 404 for any other."""
    return await state.store.reading(
        lambda connection: find_row(connection, table, who.project, row_id, what)
    )


def find_row(connection: Connection, table: sa.Table, project: str, row_id: str, what: str) -> RowMapping:
    """As ``row_of``, within a transaction."""
    query = sa.select(table).where(table.c.id == row_id, table.c.project == project)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise not_found(what)
    return row


async def listed(
    state: ServiceState,
    table: sa.Table,
    who: Principal,
    cursor: str | None,
    limit: int,
    show: Callable[[RowMapping], Mapping[str, Any]],
) -> dict[str, Any]:
    """A page of the project's rows: {"items", "cursor"}."""
    where = {"project": who.project}
    page: RowPage = await state.store.reading(
        lambda connection: page_of(connection, table, where, cursor, limit)
    )
    return {"items": [show(row) for row in page.rows], "cursor": page.cursor}


async def once(
    state: ServiceState,
    who: Principal,
    key: str | None,
    request: Request,
    work: Callable[[Connection], tuple[int, Mapping[str, Any] | bytes]],
) -> Response:
    """Do a write and answer it; under the same key the first answer is given again.

    request: the same key with another body is 409. Without a key its body is not read again: a form's was
        read as one. work: gives status and answer, as data or as JSON.
    """
    digest = "" if key is None else hashlib.sha256(await request.body()).hexdigest()

    def write(connection: Connection) -> tuple[int, bytes]:
        known = None if key is None else kept_answer(connection, who.project, key, digest)
        if known is not None:
            return known
        status, answer = work(connection)
        body = answer if isinstance(answer, bytes) else _json_bytes(answer)
        if key is not None:
            keep_answer(connection, who.project, key, digest, status, body)
        return status, body

    status, body = await state.store.writing(write)
    return Response(body, status, media_type="application/json")


def _json_bytes(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), default=str).encode()


def kept_answer(connection: Connection, project: str, key: str, digest: str) -> tuple[int, bytes] | None:
    """What was answered under a key; None where it is new. Problem where it was for another request."""
    columns = tables.keys.c
    query = sa.select(tables.keys).where(columns.project == project, columns.key == key)
    row = connection.execute(query).mappings().first()
    if row is None or row["created"] < now() - KEY_SECONDS:
        return None
    if row["digest"] != digest:
        raise Problem(409, "this Idempotency-Key was sent with another request: use a new one")
    return row["status"], str(row["answer"]).encode()


def keep_answer(
    connection: Connection, project: str, key: str, digest: str, status: int, answer: bytes
) -> None:
    """Remember what was answered under a key."""
    columns = tables.keys.c
    connection.execute(sa.delete(tables.keys).where(columns.project == project, columns.key == key))
    row = {"project": project, "key": key, "created": now(), "digest": digest, "status": status}
    connection.execute(sa.insert(tables.keys).values(**row, answer=answer.decode()))
