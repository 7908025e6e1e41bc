"""The run folder: the only code that knows file names inside RUN, and the only
code in the package that writes files.

Every file is replaced whole: written beside, flushed to the disk, renamed over the old one. So
after a crash or a full disk a reader finds the old content or the new one, never half of it. The
one file that grows instead, Optuna's journal, goes through :class:`GrowingFile`, which takes a
record back when it could not be written whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from advisor import __version__
from advisor.documents import DocumentError, from_plain, to_plain
from advisor.errors import UserError
from advisor.files import FORMAT, TEMPORARY, is_temporary, read_json, restore_folder, write_json

SILENT = "silent"
"""In ``driver_elsewhere``: its lease was seen not to be renewed, so that nobody drives the run any more."""


@dataclass(frozen=True)
class DataIdentity:
    """Which data a run belongs to. Two runs are about the same data when fingerprint and target agree."""

    name: str
    source: str
    fingerprint: str
    target: str

    def same_data(self, other: DataIdentity) -> bool:
        return (self.fingerprint, self.target) == (other.fingerprint, other.target)


@dataclass(frozen=True)
class DriverProcess:
    """The process that drives a run. since: when it began, in ISO 8601."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name. Constructing it touches nothing.

    Order of calls by a command that makes or continues a run::

        run = choose_run_folder(out, identity)
        with run.in_use():            # creates the folder, takes the lease; cleans up when nothing came of it
            run.write_facts(...)
            write_text(run.recommendation, ...)
    """

    path: Path

    @property
    def facts(self) -> Path:
        return self.path / "facts.json"

    @property
    def recommendation(self) -> Path:
        return self.path / "recommendation.yaml"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"

    @property
    def report_json(self) -> Path:
        return self.path / "report.json"

    @property
    def journal(self) -> Path:
        return self.path / "study.journal"

    @property
    def preflight(self) -> Path:
        return self.path / "preflight.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def former_models(self) -> tuple[Path, ...]:
        """The model before each class that was enrolled, oldest first: model-1, model-2."""
        numbered = [(path.name.removeprefix("model-"), path) for path in self.path.glob("model-*")]
        return tuple(path for _, path in sorted((int(n), path) for n, path in numbered if n.isdecimal()))

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """Where the trials of a user's own objective keep their state while they run."""
        return self.path / "checkpoints"

    @property
    def winner(self) -> Path:
        """What a user's own objective saved in the final with the configuration that won."""
        return self.path / "winner"

    @property
    def stop_request(self) -> Path:
        """There while somebody wants the search to stop."""
        return self.path / "stop"

    @property
    def remote(self) -> Path:
        """The URL that this folder is the working copy of, where it is one (``remote.py``)."""
        return self.path / "remote.json"

    @property
    def driver_elsewhere(self) -> Path:
        """Of a working copy: who drives the run on another machine, as it was last heard."""
        return self.path / "driver.json"

    @property
    def search(self) -> Path:
        """What the search was asked for, and which database holds its study when that is not the journal."""
        return self.path / "search.json"

    def has_search(self) -> bool:
        """Whether a search was begun here."""
        return self.journal.exists() or self.search.exists()

    @property
    def error_log(self) -> Path:
        return self.path / "error.log"

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An existing run. UserError when there is none, or only half of one."""
        run = cls(Path(path))
        if not run.path.exists():
            raise UserError(
                f"{run.path} does not exist: give a folder that `advisor recommend` or `tune` made"
            )
        if not run.path.is_dir():
            raise UserError(f"{run.path} is a file: give the folder of a run")
        missing = [file.name for file in (run.facts, run.recommendation) if not file.is_file()]
        if len(missing) == 2:
            raise UserError(f"{run.path} is not a run: it has neither facts.json nor recommendation.yaml")
        if missing:
            raise UserError(
                f"{run.path} is an incomplete run: {missing[0]} is missing; run `advisor recommend` again"
            )
        run.read_facts()
        return run

    def need(self, file: Path, cure: str) -> Path:
        """``file`` (of this run) when it is there; else a UserError that names it and says ``cure``."""
        if not file.exists():
            raise UserError(f"{self.path} has no {file.name}: {cure}")
        return file

    # ------------------------------------------------------------------ facts, and whose run this is

    def write_facts(self, facts: Mapping[str, Any], identity: DataIdentity) -> None:
        """Write facts.json: a format number, the data's identity, then the facts."""
        head = {"format": FORMAT, "advisor": __version__, "data": vars(identity)}
        clash = sorted(head.keys() & facts.keys())
        if clash:
            raise ValueError(f"facts may not be called {clash}")
        write_json(self.facts, {**head, **facts})

    def read_facts(self) -> dict[str, Any]:
        """facts.json without its head. UserError when it is damaged or of a newer format."""
        document = self._facts_document()
        return {name: value for name, value in document.items() if name not in ("format", "advisor", "data")}

    def identity(self) -> DataIdentity:
        data = self._facts_document()["data"]
        return DataIdentity(**{name: str(data[name]) for name in DataIdentity.__dataclass_fields__})

    def _facts_document(self) -> dict[str, Any]:
        document = read_json(self.facts)
        data = document.get("data")
        if not isinstance(data, dict) or not DataIdentity.__dataclass_fields__.keys() <= data.keys():
            raise UserError(f"{self.facts} is damaged: it does not say which data it describes")
        return document

    # ------------------------------------------------------------------ the lease

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Self]:
        """Create the folder where it is missing and hold its lease.

        A folder that this call created goes away again when the block fails before anything of value was
        written, so that a misspelt target leaves no half of a run behind.
        """
        created = _make_folders(self.path)
        try:
            with self.lease():
                yield self
        except BaseException as error:
            if created and not self._has_results():
                shutil.rmtree(self.path, ignore_errors=True)
                for folder in created[1:]:
                    # Not rmtree: another run may have been put there in the meantime.
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            else:
                error.run_folder = self.path  # type: ignore[attr-defined]  # where a bug's traceback belongs
            raise

    @contextlib.contextmanager
    def lease(self) -> Iterator[Self]:
        """Hold RUN/lock; a second driver gets a UserError that names the first.

        The lock is the kernel's (flock): it ends with the process, however that ends, and needs no time-out.
        """
        try:
            handle = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"cannot write in {self.path}: {error.strerror}") from error
        try:
            self._lock_or_complain(handle)
            since = datetime.now(UTC).isoformat("T", "seconds")
            us = DriverProcess(os.getpid(), socket.gethostname(), since)
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(to_plain(us)).encode(), 0)
            self._tidy()
            try:
                yield self
            finally:
                # Emptied before it is released: a text that names us must not outlive our hold on it.
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, 0)
                    self.stop_request.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def driver(self) -> DriverProcess | None:
        """Who holds the lease; None when nobody does.

        Another host's lock is not ours to see: in a folder that both see its text is believed, which a killed
        driver may have left behind; of a run in object storage see ``Remote.refresh_driver``.
        """
        return self._holder() or self._holder_elsewhere()

    def _holder_elsewhere(self) -> DriverProcess | None:
        if not self.driver_elsewhere.is_file():
            return None
        document = read_json(self.driver_elsewhere)
        return None if document.get(SILENT) else _driver_of(document)

    def _holder(self) -> DriverProcess | None:
        try:
            with self.lock.open("rb") as file:
                holder = _driver_of(json.loads(file.read(4096)))
                inode = os.fstat(file.fileno()).st_ino
        except (OSError, ValueError):
            return None
        if holder is None or holder.host != socket.gethostname():
            return holder
        try:
            # Asking for the lock would for a moment take it from a driver that is just starting.
            locks = Path("/proc/locks").read_text(encoding="ascii")
        except OSError:
            return holder if Path(f"/proc/{holder.pid}").exists() else None
        held = any("FLOCK" in line and line.split()[5].endswith(f":{inode}") for line in locks.splitlines())
        return holder if held else None

    def _lock_or_complain(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.path} is in use by {_holder(handle)}: wait until it ends, or stop it"
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.path} is on a file system without working locks ({error.strerror}): put the run on "
                "a local disk"
            ) from error

    def _tidy(self) -> None:
        """Remove what a killed driver left half-written. Only under the lease:
        nobody else is writing here."""
        self.stop_request.unlink(missing_ok=True)  # it was for the driver before us
        restore_folder(self.model)
        for leftover in self.path.glob(f".*{TEMPORARY}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)

    def _has_results(self) -> bool:
        results = (
            self.recommendation,
            self.journal,
            self.result,
            self.model,
            self.report_html,
            self.report_json,
        )
        return any(file.exists() for file in results)


def choose_run_folder(out: str | Path | None, identity: DataIdentity, base: Path = Path("runs")) -> RunFolder:
    """The folder for a run on this data: ``out``, or ``base/NAME``, or the next free ``base/NAME-2``.

    A folder with a run on other data is never taken: passed over when we choose,
    a UserError when ``out`` says it.
    """
    if out is not None:
        run = RunFolder(Path(out))
        obstacle = _obstacle(run, identity)
        if obstacle:
            raise UserError(f"--out {out} {obstacle}: choose another folder")
        return run
    name = _folder_name(identity.name)
    number = 1
    while True:
        run = RunFolder(base / (name if number == 1 else f"{name}-{number}"))
        try:
            obstacle = _obstacle(run, identity)
        except UserError as error:
            # A damaged or newer run is still somebody's run.
            obstacle = str(error)
        if not obstacle:
            return run
        number += 1


def _obstacle(run: RunFolder, identity: DataIdentity) -> str | None:
    """Why a run on this data can't be in that folder; None when it can."""
    if not run.path.exists() and not run.path.is_symlink():
        return None
    if not run.path.is_dir():
        return "is a file"
    if run.facts.is_file():
        there = run.identity()
        if there.same_data(identity):
            return None
        return f"holds a run on other data ('{there.name}', target '{there.target}')"
    ours = (run.lock.name, run.remote.name, run.driver_elsewhere.name)
    strangers = [
        entry.name for entry in run.path.iterdir() if entry.name not in ours and not is_temporary(entry.name)
    ]
    return f"is not a run and is not empty (it holds '{min(strangers)}')" if strangers else None


def _folder_name(name: str) -> str:
    """A data set's name as a folder: no separators, no leading dots, bounded
    (file systems stop at 255 bytes)."""
    words = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:60].strip("-.")
    return words or "run"


def _driver_of(document: object) -> DriverProcess | None:
    """The driver that a lease names; None where it names none."""
    try:
        return from_plain(DriverProcess, document)
    except DocumentError:
        return None


def _holder(handle: int) -> str:
    try:
        holder = _driver_of(json.loads(os.pread(handle, 4096, 0)))
    except ValueError:
        holder = None
    # None: the other driver holds the lock and has not yet written its name.
    return "another process" if holder is None else str(holder)


def _make_folders(path: Path) -> list[Path]:
    """Create ``path`` with its parents; the folders that were missing, innermost first."""
    missing = []
    folder = path
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{path} is a file: choose another folder") from None
    except OSError as error:
        raise UserError(f"cannot create {path}: {error.strerror}") from error
    return missing


# ---------------------------------------------------------------------- reading


# ---------------------------------------------------------------------- writing
