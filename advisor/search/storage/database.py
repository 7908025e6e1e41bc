"""A run's study in a database, for teams: PostgreSQL or MySQL (or an SQLite file)
in place of the journal; or in memory.

The same surface as :class:`advisor.search.storage.journal.Journal`. What is added to Optuna's storage: a
database that does not answer is waited for, a lease that the database itself releases when its
driver dies, and messages in one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage

from advisor.errors import UserError, did_you_mean
from advisor.search.storage.journal import close_leftovers, new_study

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

CONNECT_SECONDS = 5
"""How long a database may take to answer before we say that nobody is there."""
PATIENCE_SECONDS = 120.0
"""How long a search waits for a database that has answered before: a restart or a fail-over takes less."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
LEASE_SECONDS = 5.0
"""How often it is looked at whether a database's lease still is ours."""
HOLDER = "driver"
"""Study attribute: who holds the lease, for the message to the second driver."""

DRIVERS = {
    "postgresql": (("psycopg", "psycopg2"), "postgresql"),
    "mysql": (("pymysql", "MySQLdb"), "mysql"),
    "sqlite": (("sqlite3",), None),
}
"""Database -> the Python modules that can speak to it, best first, and our extra that installs the first."""
_DIALECTS = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "pymysql": "pymysql",
    "MySQLdb": "mysqldb",
    "sqlite3": "pysqlite",
}


def checked_url(text: str) -> URL:
    """The URL with the Python driver that is installed. UserError for what is no
    database's URL, or has no driver."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    forms = "postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or sqlite:///FILE"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(f"the storage is not a database URL: expected {forms}") from None
    name, _, driver = url.drivername.partition("+")
    if name not in DRIVERS:
        raise UserError(f"the storage is a '{name}' database{did_you_mean(name, DRIVERS)}: expected {forms}")
    if not url.database:
        raise UserError(f"the storage {shown_url(url)} names no database: expected {forms}")
    modules, extra = DRIVERS[name]
    if driver:
        return url
    installed = [module for module in modules if find_spec(module) is not None]
    if not installed:
        raise UserError(f"no Python driver for {name} is installed: pip install 'tuning-advisor[{extra}]'")
    return url.set(drivername=f"{name}+{_DIALECTS[installed[0]]}")


def shown_url(url: URL) -> str:
    """The URL as it may be written down: without its password, and without our choice of driver."""
    from sqlalchemy.engine import URL as Plain

    name = url.drivername.partition("+")[0]
    return Plain.create(name, url.username, None, url.host, url.port, url.database).render_as_string()


def without_password(text: str) -> str:
    """``shown`` of a URL in text. UserError when it is none."""
    return shown_url(checked_url(text))


def check_database(text: str) -> None:
    """UserError when the database does not answer, or does not let us in."""
    url = checked_url(text)
    if (
        url.drivername.startswith("sqlite")
        and (file := Path(str(url.database))).parent.is_dir()
        and not file.exists()
    ):
        return  # a connection would create it
    _connect_once(url, _options(url))


class _Patient(RDBStorage):
    """Optuna's storage that waits for a database which has gone away, instead of ending the search."""

    def _patiently(self, call: Callable[[], Any]) -> Any:
        begun, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                return call()
            except optuna.exceptions.StorageInternalError as error:
                if not _is_away(error) or time.monotonic() - begun > PATIENCE_SECONDS:
                    raise
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def set_trial_state_values(self, trial_id: int, state: Any, values: Any = None) -> bool:
        first = True

        def call() -> bool:
            nonlocal first
            again, first = not first, False
            try:
                return super(_Patient, self).set_trial_state_values(trial_id, state, values)
            except optuna.exceptions.UpdateFinishedTrialError:
                # The connection broke after the commit and before its answer: it
                # was we who finished the trial.
                if again:
                    return True
                raise

        return bool(self._patiently(call))


def _waiting(name: str) -> Any:
    original = getattr(RDBStorage, name)

    def method(self: _Patient, *arguments: Any, **options: Any) -> Any:
        return self._patiently(lambda: original(self, *arguments, **options))

    return method


# Each of them may be done twice; a trial that was created twice is closed as a leftover, and does not count.
for _name in (
    "_create_new_trial",
    "_get_trials",
    "_set_trial_param",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_system_attr",
    "set_trial_user_attr",
):
    setattr(_Patient, _name, _waiting(_name))


def _is_away(error: BaseException) -> bool:
    """Whether a failure is the connection's, not the statement's."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    cause = error.__cause__
    return isinstance(cause, OperationalError | InterfaceError) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )


class InMemory:
    """A study that ends with the process, for searches that nobody resumes
    (simulations). See Journal for the calls."""

    def __init__(self) -> None:
        self.study = new_study()

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Nothing: no reader can come in between."""
        return contextlib.nullcontext()

    def sync(self) -> None:
        """Nothing lasts here."""

    def close_leftovers(self, kept: Collection[int] = ()) -> list[int]:
        """End trials that an earlier owner of this study left open, but those ``kept``; their numbers.
        They do not count into the budget."""
        return close_leftovers(self.study, self.together, kept)

    def close(self) -> None:
        """Nothing: the study stays with whoever holds it."""


class Database:
    """One run's study in a database, open for one driver. See
    :class:`advisor.search.storage.journal.Journal` for the order of calls."""

    def __init__(
        self, study: optuna.Study, lease: Connection | None, url: URL, clock: Callable[[], float]
    ) -> None:
        self.study, self._lease, self._url, self._clock = study, lease, url, clock
        self._looked = clock()
        self._is_ours = True

    @classmethod
    def open(cls, text: str, name: str, clock: Callable[[], float] = time.monotonic) -> Database:
        """Open or create the study of that name, and take its lease.

        UserError when the database does not answer, refuses us, or another driver holds the lease.
        """
        url = checked_url(text)
        storage = _storage(url)
        with failures(url):
            study = new_study(storage=storage, study_name=name, load_if_exists=True)
            lease = _take_lease(url, study)
            _say_holder(study)
        return cls(study, lease, url, clock)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Nothing: the database takes each record by itself. A trial's end is its
        last, so that half an end is none."""
        return contextlib.nullcontext()

    def sync(self) -> None:
        """What a database has taken lasts. But its restart releases the lease: now
        and then that is looked at, and fixed.

        UserError when another driver has taken it meanwhile.
        """
        if self._lease is not None and self._clock() - self._looked >= LEASE_SECONDS:
            self._hold_on(self._lease)
            self._looked = self._clock()

    def _hold_on(self, lease: Connection) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            lease.execute(text("SELECT 1"))
            return
        except SQLAlchemyError:
            with contextlib.suppress(SQLAlchemyError):
                lease.invalidate()
                lease.close()
        self._is_ours = False
        self.study._storage.get_study_user_attrs(
            self.study._study_id
        )  # waits until the database is there again
        self._lease = _take_lease(self._url, self.study)
        self._is_ours = True
        _say_holder(self.study)

    def close_leftovers(self, kept: Collection[int] = ()) -> list[int]:
        """End trials that a dead driver left open, but those ``kept``; their numbers. They do not count into
        the budget."""
        return close_leftovers(self.study, self.together, kept)

    def close(self) -> None:
        """Give the lease back."""
        from sqlalchemy.exc import SQLAlchemyError

        if self._is_ours:  # else the name that stands there is another's
            with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                self.study.set_user_attr(HOLDER, "")
        if self._lease is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._lease.close()
            self._lease = None
        _engine(self.study).dispose()


def read_database_study(text: str, name: str) -> optuna.Study:
    """The study, for reading. UserError when the database does not answer or has no such study."""
    url = checked_url(text)
    storage = _storage(url)
    with failures(url):
        try:
            return optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            raise UserError(f"the database {shown_url(url)} has no study '{name}': was it deleted?") from None


@contextlib.contextmanager
def failures(url: URL | str) -> Iterator[None]:
    """Turns what a database has against us into a UserError."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        where = shown_url(checked_url(url) if isinstance(url, str) else url)
        raise UserError(
            f"the database {where} does not work ({_reason(error)}): what it has stored is kept; fix it, and "
            "run the same command again"
        ) from error


def _reason(error: BaseException) -> str:
    """The database's own words, in one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]


def _storage(url: URL) -> _Patient:
    _connect_once(url, _options(url))
    # Before every use a connection is tried: one that a restart of the database has closed is replaced.
    options = _options(url) | {"pool_pre_ping": True}
    with failures(url):
        try:
            return _Patient(url.render_as_string(hide_password=False), engine_kwargs=options)
        except RuntimeError as error:
            raise UserError(
                f"the database {shown_url(url)} holds studies of another Optuna version ({_reason(error)})"
            ) from None


def _options(url: URL) -> dict[str, Any]:
    kind = url.drivername.partition("+")[0]
    arguments: dict[str, Any] = {"timeout" if kind == "sqlite" else "connect_timeout": CONNECT_SECONDS}
    if kind == "mysql" and url.password is None and "MYSQL_PWD" in os.environ:
        # What MySQL's own client does; of PostgreSQL's PGPASSWORD its library takes care.
        arguments["password"] = os.environ["MYSQL_PWD"]
    return {"connect_args": arguments}


def _connect_once(url: URL, options: dict[str, Any]) -> None:
    """UserError when nobody is there or we are not let in, before Optuna tries: it would say so in a page."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(url, **options)
        with engine.connect():
            pass
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        raise UserError(
            f"no database answers at {shown_url(url)} ({_reason(error)}): is it running, and do you have "
            "access to it?"
        ) from error


def _engine(study: optuna.Study) -> Any:
    backend: Any = getattr(study._storage, "_backend", study._storage)
    return backend.engine


def _say_holder(study: optuna.Study) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat("T", "seconds"),
    }
    study.set_user_attr(HOLDER, json.dumps(holder))


def _take_lease(url: URL, study: optuna.Study) -> Connection | None:
    """A lock that the database releases when its connection ends, however that ends;
    None where a file is the database."""
    from sqlalchemy import text

    kind, key = url.drivername.partition("+")[0], zlib.crc32(f"advisor/{study.study_name}".encode())
    if kind == "sqlite":
        return None  # the run folder's own lease is on the same machine
    asked = {
        "postgresql": text("SELECT pg_try_advisory_lock(:key)").bindparams(key=key),
        "mysql": text("SELECT GET_LOCK(:key, 0)").bindparams(key=f"advisor-{key}"),
    }[kind]
    connection: Connection = _engine(study).connect().execution_options(isolation_level="AUTOCOMMIT")
    if kind == "mysql":  # else it ends a connection that was silent for 8 hours, and the lock with it
        connection.execute(text("SET SESSION wait_timeout = 31536000"))
    if connection.execute(asked).scalar():
        return connection
    connection.close()
    raise UserError(
        f"the study '{study.study_name}' in {shown_url(url)} is in use by {_holder(study)}: wait, or stop it"
    )


def _holder(study: optuna.Study) -> str:
    try:
        holder = json.loads(study.user_attrs[HOLDER])
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (KeyError, ValueError, TypeError):
        return "another process"
