"""The service's database: reads at once, writes one after the other, several of them in one transaction.

A write is answered only when its transaction is on the disk. Waiting writes share the next
transaction (group commit), each behind a savepoint of its own, so that one that fails takes no
other with it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from advisor.errors import UserError
from advisor.search.storage.database import checked_url, failures
from advisor.service.base import tables

T = TypeVar("T")
Work = Callable[[Connection], T]
MOST_TOGETHER = 256
"""Writes that share a transaction."""
BUSY_SECONDS = 20.0
"""So long SQLite waits for another process that writes."""


def new_id(kind: str) -> str:
    """A name that nobody can guess: ``kind`` and 96 random bits."""
    return f"{kind}_{secrets.token_hex(12)}"


class Store:
    """One database, for one process.

    url: a checked or a plain one (sqlite:///FILE, postgresql://...). Makes the tables where they are missing.
        UserError when the database does not answer, or is of a newer service.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        with failures(url):
            _prepare(self.engine)
        self._waiting: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="store", daemon=True)
        self._writer.start()

    def read(self, work: Work[T]) -> T:
        """What ``work`` finds, in a transaction that changes nothing."""
        with self.engine.connect() as connection:
            return work(connection)

    def submit(self, work: Work[T]) -> Future[T]:
        """A write that will be done; its future is done when it is on the disk."""
        future: Future[T] = Future()
        self._waiting.put((work, future))
        return future

    def write(self, work: Work[T]) -> T:
        """Do a write, until it is on the disk. Raises what ``work`` raises; then nothing of it stays."""
        return self.submit(work).result()

    async def reading(self, work: Work[T]) -> T:
        """As ``read``, in a thread of its own."""
        return await asyncio.to_thread(self.read, work)

    async def writing(self, work: Work[T]) -> T:
        """As ``write``, without a thread that waits."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Do what waits, then let the database go."""
        self._waiting.put(None)
        self._writer.join()
        self.engine.dispose()

    def _write_all(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, more = [first], True
            while more and len(batch) < MOST_TOGETHER:
                try:
                    entry = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    self._waiting.put(None)
                    more = False
                else:
                    batch.append(entry)
            self._write_together(batch)

    def _write_together(self, batch: Sequence[tuple[Work[Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
                for work, future in batch:
                    try:
                        with connection.begin_nested():
                            done.append((future, work(connection), None))
                    except Exception as error:  # it is the caller's, who gets it
                        if _is_lost(connection):
                            raise
                        done.append((future, None, error))
        except Exception as error:  # noqa: BLE001  the transaction failed, and with it all that shared it
            done = [(future, None, error) for _, future in batch]
        for future, value, failure in done:
            if future.cancelled():
                continue
            if failure is None:
                future.set_result(value)
            else:
                future.set_exception(failure)


def _is_lost(connection: Connection) -> bool:
    """Whether SQLite has rolled back the whole transaction, as it may where the disk is full: then the writes
    that went well before are undone too."""
    return getattr(connection.connection.dbapi_connection, "in_transaction", True) is False


def _engine(text: str) -> Engine:
    url = checked_url(text)
    if not url.drivername.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True, pool_size=8)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, record: object) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself: we do, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        # a reader that turns into a writer would fail where another one writes
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _prepare(engine: Engine) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        tables.METADATA.create_all(connection)
        number = connection.scalar(sa.select(sa.func.max(tables.formats.c.number)))
        if number is None:
            connection.execute(sa.insert(tables.formats).values(number=tables.SCHEMA))
        elif number > tables.SCHEMA:
            raise UserError(
                f"the service's database has format {number}, this advisor reads up to {tables.SCHEMA}: "
                "update tuning-advisor"
            )


# ------------------------------------------------------------------------------------- pages of rows


@dataclass(frozen=True)
class RowPage:
    """Some rows, newest first, and where the next ones begin (None: there are no more)."""

    rows: Sequence[RowMapping]
    cursor: str | None


def page_of(
    connection: Connection, table: sa.Table, where: Mapping[str, Any], cursor: str | None, limit: int
) -> RowPage:
    """Rows of a table that have ``created`` and ``id``, newest first, from a cursor on.

    UserError for a cursor that is not one of ours.
    """
    columns = table.c
    query = sa.select(table).where(*(columns[name] == value for name, value in where.items()))
    if cursor is not None:
        created, row_id = _read_cursor(cursor)
        query = query.where(
            sa.or_(columns.created < created, sa.and_(columns.created == created, columns.id < row_id))
        )
    ordered = query.order_by(columns.created.desc(), columns.id.desc()).limit(limit + 1)
    rows = connection.execute(ordered).mappings().all()
    last = rows[limit - 1] if len(rows) > limit else None
    return RowPage(rows[:limit], None if last is None else _cursor(last["created"], last["id"]))


def _cursor(created: float, row_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created!r}:{row_id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[float, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        created, _, row_id = text.partition(":")
        return float(created), row_id
    except (ValueError, binascii.Error):
        raise UserError("the cursor is not from this list: start again without one") from None


def now() -> float:
    """Seconds since 1970."""
    return time.time()
