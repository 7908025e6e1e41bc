"""Routes of projects and tokens: who am I, tokens made, listed and revoked, the audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.engine import RowMapping

from advisor.service.base import tables
from advisor.service.base.access import Admin, Body, Cursor, Limit, Reader, State, listed
from advisor.service.base.problems import not_found
from advisor.service.base.security import make_token, note_action, revoke_token
from advisor.service.base.settings import Scope

router = APIRouter(prefix="/v1", tags=["projects and tokens"])
MOST_DAYS = 3650


class TokenRequest(Body):
    """A token to make. days: until it expires; without, it does not."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scope: Scope
    days: Annotated[float | None, Field(gt=0, le=MOST_DAYS)] = None


@router.get("/me")
async def me(who: Reader) -> dict[str, str]:
    """The project and the scope of the token that asks."""
    return {"project": who.project, "token": who.token, "scope": who.scope}


@router.post("/tokens", status_code=201)
async def create_token(request: Request, body: TokenRequest, who: Admin, state: State) -> JSONResponse:
    """A new token of this project. Its secret is in this answer and nowhere else."""

    def write(connection: Any) -> dict[str, str]:
        made = make_token(connection, who.project, body.name, body.scope, body.days)
        note_action(connection, who, "token.create", made.id, request.state.request_id)
        return {"id": made.id, "secret": made.secret, "scope": body.scope, "name": body.name}

    return JSONResponse(await state.store.writing(write), 201)


@router.get("/tokens")
async def list_tokens(who: Admin, state: State, cursor: Cursor = None, limit: Limit = 50) -> dict[str, Any]:
    """The tokens of this project, newest first; never their secrets."""
    return await listed(state, tables.tokens, who, cursor, limit, shown_token)


@router.delete("/tokens/{token_id}", status_code=204)
async def delete_token(request: Request, token_id: str, who: Admin, state: State) -> Response:
    """Make a token worthless, from now on."""

    def write(connection: Any) -> None:
        if not revoke_token(connection, who.project, token_id):
            raise not_found("token")
        note_action(connection, who, "token.revoke", token_id, request.state.request_id)

    await state.store.writing(write)
    state.door.forget()
    return Response(status_code=204)


@router.get("/audit")
async def audit(
    who: Admin, state: State, cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """Who did what in this project, newest first."""
    names = ("id", "created", "token", "action", "subject", "request")
    return await listed(
        state, tables.audit, who, cursor, limit, lambda row: {name: row[name] for name in names}
    )


def shown_token(row: RowMapping) -> dict[str, Any]:
    """A token without its secret."""
    return {name: row[name] for name in ("id", "name", "scope", "created", "expires", "revoked")}
