"""Every error as a problem document (RFC 9457): what is wrong, in one sentence, and how to fix it."""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from advisor.errors import UserError

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:advisor:problem:"
MOST_ERRORS = 20
"""Fields of a body that a refusal names."""
TITLES = {
    400: "bad request",
    401: "no valid token",
    403: "not allowed",
    404: "not found",
    405: "no such method",
    409: "conflict",
    411: "length required",
    412: "changed meanwhile",
    413: "too large",
    415: "another media type",
    421: "another host",
    422: "cannot be used",
    429: "too many requests",
    500: "a bug of the service",
    503: "busy",
    507: "no space left",
}
AGAIN_SECONDS = 5
"""What Retry-After says where the database does not answer, or the disk is full."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk without space, and of a user's part of it."""
NO_SPACE = "the service's disk is full; nothing was changed: the operator must make space, then send it again"
DISK_FULL = "53100"
"""PostgreSQL's code for it."""
LOG = logging.getLogger("advisor.service")


class Problem(Exception):
    """An answer that is an error.

    status: the HTTP status. detail: one sentence for the user who asked. headers: further ones.
    fields: what else the document says.
    """

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.fields = status, detail, fields
        self.headers = dict(headers or {})


def not_found(what: str) -> Problem:
    """404, the same for what is not there and for what is another project's."""
    return Problem(404, f"there is no such {what} in your project")


def problem_document(status: int, detail: str, request_id: str, **fields: Any) -> dict[str, Any]:
    """The body of an error."""
    title = TITLES.get(status, "error")
    own = {"type": TYPE + title.replace(" ", "-"), "title": title, "status": status, "detail": detail}
    return {**own, "request_id": request_id, **fields}


def problem_bytes(status: int, detail: str, request_id: str) -> bytes:
    """The body as it is sent, for what answers below the application."""
    return json.dumps(problem_document(status, detail, request_id)).encode()


def answer_problem(request: Request, problem: Problem) -> JSONResponse:
    """The answer that a problem is."""
    identity = getattr(request.state, "request_id", "")
    body = problem_document(problem.status, problem.detail, identity, **problem.fields)
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
    headers |= problem.headers
    return JSONResponse(body, problem.status, headers, media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Make all errors of an application problem documents."""

    def of_known(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        return of_bug(request, error) if problem is None else answer_problem(request, problem)

    def of_service(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return answer_problem(request, error)

    def of_body(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer_problem(request, _of_body(error))

    def of_framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        detail = {404: "there is no such page", 405: "the page has no such method"}.get(error.status_code)
        headers = dict(error.headers or {})
        return answer_problem(request, Problem(error.status_code, detail or str(error.detail), headers))

    def of_text(request: Request, error: Exception) -> JSONResponse:
        return answer_problem(request, Problem(400, "the request holds text that is not Unicode"))

    def of_bug(request: Request, error: Exception) -> JSONResponse:
        LOG.error("bug", exc_info=error)
        detail = "this is a bug of the service: its log has the request id"
        return answer_problem(request, Problem(500, detail))

    for known in (UserError, OSError, sa.exc.DBAPIError):
        app.add_exception_handler(known, of_known)
    app.add_exception_handler(Problem, of_service)
    app.add_exception_handler(RequestValidationError, of_body)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(UnicodeError, of_text)
    app.add_exception_handler(Exception, of_bug)


def problem_of(error: Exception) -> Problem | None:
    """The problem that an error is for who asked; None for a bug of ours.

    A UserError is 422, but where our machine cannot write. A full disk is 507, whoever says so.
    """
    cause = error.__cause__ if isinstance(error, UserError) else error
    if is_full(cause):
        LOG.error("disk full", extra={"error": str(cause)})
        return Problem(507, NO_SPACE, {"Retry-After": str(AGAIN_SECONDS)})
    if isinstance(error, sa.exc.DBAPIError):
        LOG.error("database", extra={"error": type(error).__name__})
        detail = "the service's database does not answer; nothing was changed, send the request again"
        return Problem(503, detail, {"Retry-After": str(AGAIN_SECONDS)})
    if not isinstance(error, UserError):
        return None
    if not isinstance(cause, OSError):
        return Problem(422, str(error))
    LOG.error("disk", extra={"error": str(cause)})
    detail = "the service cannot write to its disk; nothing was changed, send the request again"
    return Problem(503, detail, {"Retry-After": str(AGAIN_SECONDS)})


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that a disk, or the service's part of it, is full.

    SQLite and PostgreSQL have a code of their own for it; the end of their transaction may then be an error
    too, behind which the first one stands.
    """
    if not isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, OSError) and error.errno in FULL
    one: BaseException | None = error
    while one is not None:
        code = getattr(one, "sqlite_errorcode", None) or getattr(one, "sqlstate", None)
        if code in (sqlite3.SQLITE_FULL, DISK_FULL):
            return True
        one = one.__context__
    return False


def _of_body(error: RequestValidationError) -> Problem:
    """What is wrong with which field. What was sent is not repeated: it may hold a secret."""
    entries = [
        {"pointer": "/" + "/".join(str(part) for part in entry["loc"]), "detail": entry["msg"]}
        for entry in error.errors()[:MOST_ERRORS]
    ]
    first = entries[0] if entries else {"pointer": "/body", "detail": "it is missing"}
    return Problem(422, f"{first['pointer'][1:]}: {first['detail']}", errors=entries)
