"""The run folder: the only code that knows file names inside RUN, and the only code in the package that writes files.

Every file is replaced whole: written beside, flushed to the disk, renamed over the old one. So after a crash or a full
disk a reader finds the old content or the new one, never half of it. The one file that grows instead, Optuna's journal,
goes through :class:`GrowingFile`, which takes a record back when it could not be written whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from advisor import __version__
from advisor.errors import UserError, made_by_newer

FORMAT = 1
"""Format of the files in a run folder; a higher number than ours is refused, never guessed at."""
MAX_TEXT_BYTES = 64 * 2**20
"""No text file of a run is larger than this: reading one that is would only fill the memory."""
SILENT = "silent"
"""In ``driver_elsewhere``: its lease was seen not to be renewed, so that nobody drives the run any more."""
_TEMPORARY = ".tmp~"


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
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """Where the trials of a person's own objective keep their state while they run."""
        return self.path / "checkpoints"

    @property
    def winner(self) -> Path:
        """What a person's own objective saved in the final with the configuration that won."""
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
            raise UserError(f"{run.path} does not exist: give a folder that `advisor recommend` or `tune` made")
        if not run.path.is_dir():
            raise UserError(f"{run.path} is a file: give the folder of a run")
        missing = [file.name for file in (run.facts, run.recommendation) if not file.is_file()]
        if len(missing) == 2:
            raise UserError(f"{run.path} is not a run: it has neither facts.json nor recommendation.yaml")
        if missing:
            raise UserError(f"{run.path} is half a run: {missing[0]} is missing; run `advisor recommend` again")
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

        A folder that this call created goes away again when the block fails before anything of value was written, so
        that a misspelt target leaves no half of a run behind.
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
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(holder).encode(), 0)
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

    def driver(self) -> dict[str, Any] | None:
        """Who holds the lease: {"pid", "host", "since"}, or None.

        Another host's lock is not ours to see: in a folder that both see its text is believed, which a killed driver may
        have left behind; of a run in object storage see ``Remote.refresh_driver``.
        """
        return self._holder() or self._holder_elsewhere()

    def _holder_elsewhere(self) -> dict[str, Any] | None:
        if not self.driver_elsewhere.is_file():
            return None
        document = read_json(self.driver_elsewhere)
        if document.get(SILENT):
            return None
        return {name: document.get(name) for name in ("pid", "host", "since")}

    def _holder(self) -> dict[str, Any] | None:
        try:
            with self.lock.open("rb") as file:
                holder = json.loads(file.read(4096))
                inode = os.fstat(file.fileno()).st_ino
            holder = {name: holder[name] for name in ("pid", "host", "since")}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if holder["host"] != socket.gethostname():
            return holder
        try:
            # Asking for the lock would for a moment take it from a driver that is just starting.
            locks = Path("/proc/locks").read_text(encoding="ascii")
        except OSError:
            return holder if Path(f"/proc/{holder['pid']}").exists() else None
        held = any("FLOCK" in line and line.split()[5].endswith(f":{inode}") for line in locks.splitlines())
        return holder if held else None

    def _lock_or_complain(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path} is in use by {_holder(handle)}: wait until it ends, or stop it") from None
        except OSError as error:
            raise UserError(
                f"{self.path} is on a file system without working locks ({error.strerror}): put the run on a local disk"
            ) from error

    def _tidy(self) -> None:
        """Remove what a killed driver left half-written. Only under the lease: nobody else is writing here."""
        self.stop_request.unlink(missing_ok=True)  # it was for the driver before us
        _restore_folder(self.model)
        for leftover in self.path.glob(f".*{_TEMPORARY}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)

    def _has_results(self) -> bool:
        results = (self.recommendation, self.journal, self.result, self.model, self.report_html, self.report_json)
        return any(file.exists() for file in results)


def choose_run_folder(out: str | Path | None, identity: DataIdentity, base: Path = Path("runs")) -> RunFolder:
    """The folder for a run on this data: ``out``, or ``base/NAME``, or the next free ``base/NAME-2``.

    A folder with a run on other data is never taken: passed over when we choose, a UserError when ``out`` says it.
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
    strangers = [entry.name for entry in run.path.iterdir() if entry.name not in ours and not is_temporary(entry.name)]
    return f"is not a run and is not empty (it holds '{min(strangers)}')" if strangers else None


def is_temporary(name: str) -> bool:
    """Whether a file or folder of that name is a half-written one."""
    return _TEMPORARY in name


def _folder_name(name: str) -> str:
    """A data set's name as a folder: no separators, no leading dots, bounded (file systems stop at 255 bytes)."""
    words = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:60].strip("-.")
    return words or "run"


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        # The other driver holds the lock and has not yet written its name.
        return "another process"


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


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """The text of a file. UserError when it is missing, a folder, not UTF-8 or larger than ``limit`` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit} bytes: no file of a run is")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: byte {error.start} is not UTF-8 text") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object with a format number. UserError when it is damaged or made by a newer version."""
    text = read_text(path)
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path} is damaged{where}: it is not JSON") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    check_format(document.get("format"), path, document.get("advisor"))
    return document


def check_format(number: object, path: Path, made_by: object = None) -> None:
    """UserError when ``number``, the format that ``path`` names, is none or is newer than ours; made_by: whose it is."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"{path} is damaged: its format number is {number!r}, expected {FORMAT}")
    if number > FORMAT:
        raise UserError(f"{path} {made_by_newer(number, FORMAT, made_by)}")


# ---------------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A handle whose content replaces ``path`` when the block ends well, and is thrown away when it does not.

    A UserError when the disk refuses. Devices and pipes (``--out /dev/stdout``) are written straight through.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as direct:
                yield direct
            return
        temporary = path.with_name(f".{path.name[:100]}{_TEMPORARY}{secrets.token_hex(4)}")
        with _removed_on_failure(temporary):
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        _sync_folder(path.parent)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Replace ``path`` by ``content`` in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace ``path`` by ``document``, whole or not at all. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Replace the folder ``path`` by one that holds exactly ``files`` (name -> content).

    All of it is on the disk before the old folder moves aside; a crash between the two renames is mended when the
    run's lease is next taken.
    """
    suffix = f"{_TEMPORARY}{secrets.token_hex(4)}"
    fresh, old = path.with_name(f".{path.name}{suffix}"), path.with_name(f".{path.name}.old{_TEMPORARY}")
    try:
        with _removed_on_failure(fresh):
            fresh.mkdir()
            for name, content in files.items():
                write_bytes(fresh / name, content)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.replace(old)
            fresh.replace(path)
        _sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        _restore_folder(path)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def move_folders(target: Path, folders: Mapping[str, Path], rest: Path) -> None:
    """Replace the folder ``target`` by one that holds ``folders`` under their new names, then remove ``rest``.

    Folders that are not there are left out; ``target`` is not made for none. A UserError when the disk refuses.
    """
    try:
        there = {name: folder for name, folder in folders.items() if folder.is_dir()}
        if there:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for name, folder in there.items():
                folder.replace(target / name)
        shutil.rmtree(rest, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error


def _restore_folder(path: Path) -> None:
    old = path.with_name(f".{path.name}.old{_TEMPORARY}")
    if old.is_dir() and not path.exists():
        old.replace(path)


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def _sync_folder(path: Path) -> None:
    """Make a rename in ``path`` survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_clock(folder: Path) -> float | None:
    """Seconds by which the clock of the folder's file system is ahead of ours; None where nothing can be written."""
    try:
        before = time.time()
        with tempfile.NamedTemporaryFile(dir=folder, prefix=_TEMPORARY) as file:
            file.write(b"x")
            file.flush()
            written = os.fstat(file.fileno()).st_mtime
        after = time.time()
    except OSError:
        return None
    return written - after if written > after else min(0.0, written - before)


class GrowingFile:
    """A file that only grows, one whole record at a time, shared by processes through the kernel's lock.

    Order of calls: ``lock``, any number of ``append`` and ``cut_torn_end``, ``unlock``; ``close`` at the end. What was
    appended survives the death of the process; after ``sync`` it survives a power loss.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        fresh = not self.path.exists()
        try:
            self._handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if fresh:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error

    def lock(self) -> None:
        """Wait for the file; the kernel gives it back when we die, so nothing stale can be left."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def append(self, content: bytes) -> None:
        """Append in one write. UserError, and nothing appended, when the disk is full."""
        size = os.fstat(self._handle).st_size
        try:
            if os.write(self._handle, content) != len(content):
                # A full disk takes part of a record; the next append would be glued to it and both be lost.
                raise OSError(28, os.strerror(28))
        except OSError as error:
            os.ftruncate(self._handle, size)
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error

    def sync(self) -> None:
        """Wait until what was appended is on the disk."""
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error

    def size(self) -> int:
        """Bytes in the file, others' included."""
        return os.fstat(self._handle).st_size

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from ``begin`` to before ``end``; fewer where the file is shorter."""
        return os.pread(self._handle, end - begin, begin)

    def cut_torn_end(self) -> Path | None:
        """Cut back to the last newline; what was behind it is kept beside as ``NAME.torn-N`` (returned)."""
        size = os.fstat(self._handle).st_size
        torn = b""
        start = size
        while start > 0 and b"\n" not in torn:
            step = min(65536, start)
            start -= step
            torn = os.pread(self._handle, step, start) + torn
        torn = torn[torn.rfind(b"\n") + 1 :]
        if not torn:
            return None
        number = 1
        while (kept := self.path.with_name(f"{self.path.name}.torn-{number}")).exists():
            number += 1
        write_bytes(kept, torn)
        os.ftruncate(self._handle, size - len(torn))
        os.fsync(self._handle)
        return kept

    def close(self) -> None:
        os.close(self._handle)
