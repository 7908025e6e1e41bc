"""Files that are replaced whole, or grow by whole records: the only code in the package that writes files.

Every file is written beside, flushed to the disk and renamed over the old one. So after a crash
or a full disk a reader finds the old content or the new one, never half of it. The one file
that grows instead, Optuna's journal, goes through :class:`GrowingFile`, which takes a record
back when it could not be written whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from advisor.errors import UserError, made_by_newer

FORMAT = 1
"""Format of the files in a run folder; a higher number than ours is refused, never guessed at."""

MAX_TEXT_BYTES = 64 * 2**20
"""No text file of a run is larger than this: reading one that is would only fill the memory."""

TEMPORARY = ".tmp~"
LINED_DEPTH = 3
"""Levels of a JSON file that have lines of their own."""
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def is_temporary(name: str) -> bool:
    """Whether a file or folder of that name is a half-written one."""
    return TEMPORARY in name


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """The text of a file. UserError when it is missing, a folder, not UTF-8 or
    larger than ``limit`` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit} bytes, too large for a file of a run")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: byte {error.start} is not UTF-8 text") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object with a format number. UserError when it is damaged or made by a newer version."""
    text = read_text(path)
    try:
        document = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path} is damaged{where}: it is not JSON") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} is damaged: it does not hold a JSON object")
    check_format(document.get("format"), path, document.get("advisor"))
    return document


def _no_number(text: str) -> None:
    """NaN and Infinity: Python reads them, but they are not JSON, and ``write_json`` never writes one."""
    raise ValueError(text)


def check_format(number: object, path: Path, made_by: object = None) -> None:
    """UserError when ``number``, the format that ``path`` names, is none or is newer than ours;
    made_by: whose it is."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"{path} is damaged: its format number is {number!r}, expected {FORMAT}")
    if number > FORMAT:
        raise UserError(f"{path} {made_by_newer(number, FORMAT, made_by)}")


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
        temporary = path.with_name(f".{path.name[:100]}{TEMPORARY}{secrets.token_hex(4)}")
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
    """Replace ``path`` by ``document``, whole or not at all. NaN and infinity
    are refused: they are not JSON."""
    write_text(path, json_text(document) + "\n")


def json_text(value: Any, depth: int = LINED_DEPTH, margin: str = "") -> str:
    """JSON with an entry to a line down to ``depth`` levels, a list's items and what lies deeper on one line.

    Python's encoder in C knows no lines, and the one in Python takes 3 s for the facts of 5,000 columns.
    """
    inner = margin + "  "
    if depth and value and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        lines = [f"{inner}{_encode(key)}: {json_text(own, depth - 1, inner)}" for key, own in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    if depth and value and isinstance(value, list | tuple) and isinstance(value[0], dict | list | tuple):
        return "[\n" + ",\n".join(inner + _encode(own) for own in value) + f"\n{margin}]"
    return _encode(value)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Replace the folder ``path`` by one that holds exactly ``files`` (name -> content).

    All of it is on the disk before the old folder moves aside; a crash between the two renames is
    fixed when the run's lease is next taken.
    """
    suffix = f"{TEMPORARY}{secrets.token_hex(4)}"
    fresh, old = path.with_name(f".{path.name}{suffix}"), path.with_name(f".{path.name}.old{TEMPORARY}")
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
        restore_folder(path)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def move_folders(target: Path, folders: Mapping[str, Path], rest: Path) -> None:
    """Replace the folder ``target`` by one that holds ``folders`` under their
    new names, then remove ``rest``.

    Folders that are not there are left out; ``target`` is not made for none. A
    UserError when the disk refuses.
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


def restore_folder(path: Path) -> None:
    old = path.with_name(f".{path.name}.old{TEMPORARY}")
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
    """Seconds by which the clock of the folder's file system is ahead of ours;
    None where nothing can be written."""
    try:
        before = time.time()
        with tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY) as file:
            file.write(b"x")
            file.flush()
            written = os.fstat(file.fileno()).st_mtime
        after = time.time()
    except OSError:
        return None
    return written - after if written > after else min(0.0, written - before)


class GrowingFile:
    """A file that only grows, one whole record at a time, shared by processes through the kernel's lock.

    Order of calls: ``lock``, any number of ``append`` and ``cut_torn_end``, ``unlock``; ``close`` at the end.
    What was appended survives the death of the process; after ``sync`` it survives a power loss.
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

    def try_lock(self) -> bool:
        """As ``lock``, without waiting; whether the file is ours."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

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


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/advisor``, else ``~/.cache/advisor``. UserError when there is no home either."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "advisor"
    except RuntimeError as error:
        raise UserError("there is no home directory for the cache; set XDG_CACHE_HOME to a folder") from error
