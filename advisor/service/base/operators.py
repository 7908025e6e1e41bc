"""The tokens that an operator makes, lists and revokes beside a server, of all projects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from advisor.errors import UserError
from advisor.service.base import tables
from advisor.service.base.security import NewToken, make_project, make_token, revoke_token
from advisor.service.base.settings import ServiceSettings
from advisor.service.base.store import Store


def operator_token(
    settings: ServiceSettings, project: str, name: str, scope: str, days: float | None = None
) -> NewToken:
    """A new token of a project, which is made where it is missing."""
    with _store(settings) as store:
        return store.write(
            lambda connection: make_token(connection, make_project(connection, project), name, scope, days)
        )


def operator_tokens(settings: ServiceSettings) -> Sequence[sa.RowMapping]:
    """The tokens of all projects, oldest first; ``of`` is the project's name."""
    joined = sa.join(tables.tokens, tables.projects, tables.tokens.c.project == tables.projects.c.id)
    query = sa.select(tables.tokens, tables.projects.c.name.label("of")).select_from(joined)
    ordered = query.order_by(tables.tokens.c.created)
    with _store(settings) as store:
        return store.read(lambda connection: connection.execute(ordered).mappings().all())


def operator_revoke(settings: ServiceSettings, token: str) -> None:
    """Make a token of any project worthless. UserError where there is none."""
    with _store(settings) as store:
        if not store.write(lambda connection: revoke_token(connection, None, token)):
            raise UserError(f"there is no valid token {token[:60]}: see `advisor token list`")


@contextlib.contextmanager
def _store(settings: ServiceSettings) -> Iterator[Store]:
    settings.data.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database_url)
    try:
        yield store
    finally:
        store.close()
