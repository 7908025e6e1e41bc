"""Who asks and what they may: projects, tokens with a scope, sessions of the page, and requests a minute.

Of a token and of a session only the SHA-256 is kept. A token belongs to one project; what is not that
project's does not exist for it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from advisor.errors import UserError, did_you_mean
from advisor.service.base import tables
from advisor.service.base.settings import SCOPES, Scope
from advisor.service.base.store import Store, new_id, now

PREFIX = "adv"
SESSION_COOKIE = "advisor_session"
SESSION_SECONDS = 12 * 3600.0
REMEMBERED, REMEMBERED_SECONDS = 4096, 2.0
"""This many tokens are known without asking the database, each for so long: the longest that a token is still
taken which another replica has revoked."""
PROJECT_NAME = re.compile(r"[\w][\w .-]{0,79}")


@dataclass(frozen=True)
class Principal:
    """Who asks.

    project: its id. token: the id of the token, also of a session's.
    by_cookie: a browser's session, whose requests must come from a page of ours.
    """

    project: str
    token: str
    scope: Scope
    by_cookie: bool = False

    def may(self, scope: Scope) -> bool:
        """Whether the token's scope holds this one."""
        return SCOPES.index(scope) <= SCOPES.index(self.scope)


@dataclass(frozen=True)
class NewToken:
    """A token that was just made. secret: the whole token, shown once and kept nowhere."""

    id: str
    secret: str


def make_project(connection: Connection, name: str) -> str:
    """The id of the project of that name, made where it is missing. UserError for a name that is none."""
    if not PROJECT_NAME.fullmatch(name):
        raise UserError("a project's name has 1 to 80 letters, digits, blanks, dots, dashes or underscores")
    columns = tables.projects.c
    known = connection.scalar(sa.select(columns.id).where(columns.name == name))
    if known is not None:
        return str(known)
    made = new_id("pr")
    connection.execute(sa.insert(tables.projects).values(id=made, name=name, created=now()))
    return made


def make_token(
    connection: Connection, project: str, name: str, scope: str, days: float | None = None
) -> NewToken:
    """A new token of a project. days: until it expires; None is never. UserError for an unknown scope."""
    if scope not in SCOPES:
        raise UserError(f"unknown scope '{scope}'{did_you_mean(scope, SCOPES)}: one of {', '.join(SCOPES)}")
    made, secret, created = new_id("tk"), secrets.token_urlsafe(32), now()
    row = {"id": made, "project": project, "name": name, "scope": scope, "created": created}
    ends = None if days is None else created + days * 86_400
    connection.execute(
        sa.insert(tables.tokens).values(**row, digest=_digest(secret), expires=ends, revoked=None)
    )
    return NewToken(made, f"{PREFIX}_{made.partition('_')[2]}_{secret}")


def revoke_token(connection: Connection, project: str | None, token: str) -> bool:
    """Make a token worthless, with the sessions that came of it. False where there is none."""
    columns = tables.tokens.c
    mine = sa.true() if project is None else columns.project == project
    query = sa.update(tables.tokens).where(columns.id == token, columns.revoked.is_(None), mine)
    found = connection.execute(query.values(revoked=now())).rowcount
    connection.execute(sa.delete(tables.sessions).where(tables.sessions.c.token == token))
    return bool(found)


def note_action(connection: Connection, who: Principal, action: str, subject: str, request: str) -> None:
    """A line of the audit log."""
    row = {"id": new_id("au"), "project": who.project, "created": now(), "token": who.token}
    connection.execute(
        sa.insert(tables.audit).values(**row, action=action, subject=subject[:200], request=request)
    )


class Doorkeeper:
    """Finds out who a token or a session's cookie is; remembers them for a moment.

    once: the tokens that a browser changes into a session, each only once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._once: dict[str, str] = {}

    def remembered(self, digest: str) -> Principal | None:
        """Who it was a moment ago; None: ask the database."""
        entry = self._known.get(digest)
        return entry[1] if entry is not None and time.monotonic() - entry[0] < REMEMBERED_SECONDS else None

    def forget(self) -> None:
        """After a token was revoked."""
        self._known.clear()

    def of_token(self, secret: str) -> Principal | None:
        """Who has this token; None for one that is none, was revoked or has expired."""
        kind, _, rest = secret.partition("_")
        name, _, key = rest.partition("_")
        if kind != PREFIX or not key or len(secret) > 200 or not name.isalnum():
            return None
        row = self._store.read(
            lambda connection: (
                connection.execute(sa.select(tables.tokens).where(tables.tokens.c.id == f"tk_{name}"))
                .mappings()
                .first()
            )
        )
        if row is None or not hmac.compare_digest(row["digest"], _digest(key)) or not _is_valid(row):
            return None
        return self._remember(secret, Principal(row["project"], row["id"], row["scope"]))

    def of_session(self, cookie: str) -> Principal | None:
        """Who has this session; None for one that is none or has ended."""
        joined = sa.join(tables.sessions, tables.tokens, tables.sessions.c.token == tables.tokens.c.id)
        query = sa.select(tables.tokens, tables.sessions.c.expires.label("ends")).select_from(joined)
        query = query.where(tables.sessions.c.digest == _digest(cookie))
        row = self._store.read(lambda connection: connection.execute(query).mappings().first())
        if row is None or row["ends"] < now() or not _is_valid(row):
            return None
        return self._remember(cookie, Principal(row["project"], row["id"], row["scope"], by_cookie=True))

    def open_session(self, token: str) -> str:
        """The cookie of a new session with what the token may."""
        cookie = secrets.token_urlsafe(32)
        ends = now() + SESSION_SECONDS
        values = {"digest": _digest(cookie), "token": token, "expires": ends}
        self._store.write(lambda connection: connection.execute(sa.insert(tables.sessions).values(**values)))
        return cookie

    def close_session(self, cookie: str) -> None:
        """End a session."""
        query = sa.delete(tables.sessions).where(tables.sessions.c.digest == _digest(cookie))
        self._store.write(lambda connection: connection.execute(query))
        self.forget()

    def give_once(self, token: str) -> str:
        """A secret that ``take_once`` gives the token for, one time, while this process lives."""
        secret = secrets.token_urlsafe(32)
        self._once[_digest(secret)] = token
        return secret

    def take_once(self, secret: str) -> str | None:
        """The token that a one-time secret stands for; None when it is none, or was used."""
        return self._once.pop(_digest(secret), None)

    def _remember(self, secret: str, who: Principal) -> Principal:
        self._known[_digest(secret)] = (time.monotonic(), who)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return who


def digest_of(secret: str) -> str:
    """Under which a token or a cookie is remembered."""
    return _digest(secret)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _is_valid(row: Any) -> bool:
    return row["revoked"] is None and (row["expires"] is None or row["expires"] > now())


class Buckets:
    """How many requests each token has left: a bucket that fills up evenly over a minute.

    clock: seconds, from any origin.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(a_minute), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """0.0 where the request may be answered, else the seconds after which the next one may."""
        moment = self._clock()
        left, since = self._left.pop(name, (self._most, moment))
        left = min(self._most, left + (moment - since) * self._most / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self._most
        self._left[name] = (left - 1 if not wait else left, moment)
        while len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return wait
