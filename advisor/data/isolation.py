"""Reading in a process of its own: a damaged or hostile file may end that process, or
take all the memory that it is allowed.

The worker is a plain child (``python -m MODULE``), started when it is first needed and used
again; it ends by itself when it is no longer asked. What it reads comes back in a file that is
in memory only, which the caller maps.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from advisor.errors import UserError

IDLE_SECONDS = 20.0
"""A worker that was not asked for so long ends: the next job starts another one in a tenth of a second."""
END_SECONDS = 5.0
"""So long a worker may take to be gone after it has closed its line."""

IsolatedJob = Callable[[Mapping[str, Any], IO[bytes]], Any]
"""Takes an order and a file to write to; gives what JSON can hold. Raises
UserError for what the user can fix."""


class WorkerDied(Exception):
    """The worker ended before it answered: it aborted, or was killed, for example for its memory."""


@dataclass(frozen=True)
class Answer:
    """What a job gave, and the file that it wrote: its descriptor (open within
    ``answered``) and its size in bytes."""

    value: Any
    file: int
    size: int

    def content(self) -> bytes:
        """All that the job wrote."""
        if not self.size:
            return b""
        with mmap.mmap(self.file, self.size, prot=mmap.PROT_READ) as mapped:
            return mapped[:]


@contextlib.contextmanager
def answered(module: str, order: Mapping[str, Any], limit: int, place: int = 0) -> Iterator[Answer]:
    """What a worker of ``module``, which has a table of JOBS, answers to an order.

    order: ``do`` names the job.
    limit: bytes of memory that the job may take.
    place: which of the module's workers; one does one order at a time. Where no worker can be started
        this process does the job. Raises UserError as the job does, MemoryError where the limit was not
        enough, OSError where the disk is full, WorkerDied where the worker ended.
    """
    order = {**order, "limit": limit}
    with _lock(module, place):
        file, size = _worker(module, place).ask(order) or _here(module, order)
    try:
        answer = json.loads(
            os.pread(file, os.fstat(file).st_size - size, size)
        )  # it stands behind what was written
        if "error" in answer:
            raise UserError(answer["error"])
        if "memory" in answer:
            raise MemoryError
        if "disk" in answer:
            raise OSError(answer["disk"], os.strerror(answer["disk"]))
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        yield Answer(answer["answer"], file, size)
    finally:
        os.close(file)


def end(module: str, place: int) -> None:
    """End a worker that will not be asked soon."""
    with _lock(module, place):
        if worker := _workers.pop((module, place), None):
            worker.end()


def _here(module: str, order: Mapping[str, Any]) -> tuple[int, int]:
    with _in_memory() as out:
        return os.dup(out.fileno()), _do(import_module(module).JOBS, order, out)


class _Worker:
    def __init__(self, module: str) -> None:
        here = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
        self.pid = os.getpid()
        self._line, other = socket.socketpair()
        with other:
            self._child = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C in the terminal is this process's to handle
            )

    def alive(self) -> bool:
        return self.pid == os.getpid() and self._child.poll() is None

    def ask(self, order: Mapping[str, Any]) -> tuple[int, int] | None:
        """The descriptor of what was written, and its size: there the answer begins. None
        where no worker could be started."""
        try:
            self._line.sendall(json.dumps(order).encode() + b"\n")
            words, files, _, _ = socket.recv_fds(self._line, 64, 1)
        except OSError:
            words, files = b"", []
        except BaseException:  # interrupted: its answer must not be taken for the next one's
            self.end()
            raise
        if not words or not files:
            if self._ended_by_itself():
                return None
            raise WorkerDied
        return files[0], int(words)

    def _ended_by_itself(self) -> bool:
        """Whether it ended with an exit code, as what is no worker does, and not by a signal."""
        self._line.close()
        try:
            code: int = self._child.wait(END_SECONDS)
            return code >= 0
        except subprocess.TimeoutExpired:
            self.end()
            return False

    def end(self) -> None:
        self._line.close()
        if self.pid == os.getpid():
            self._child.kill()
            self._child.wait()


_workers: dict[tuple[str, int], _Worker] = {}
_locks: dict[tuple[str, int], threading.Lock] = {}


def _lock(module: str, place: int) -> threading.Lock:
    return _locks.setdefault((module, place), threading.Lock())


def _worker(module: str, place: int) -> _Worker:
    worker = _workers.get((module, place))
    if worker is None or not worker.alive():
        worker = _workers[module, place] = _Worker(module)
    return worker


# ------------------------------------------------------------------------------------------------- the worker


def serve_jobs(jobs: Mapping[str, IsolatedJob], loads: Mapping[str, Sequence[str]] | None = None) -> None:
    """Answer orders on stdin, a socket, until it is closed or nobody asks any more.

    loads: job -> modules that it imports, which the memory limit of an order is not about.
    """
    with socket.socket(fileno=0) as line, line.makefile("rb") as orders:
        while select.select([line], [], [], IDLE_SECONDS)[0] and (words := orders.readline()):
            try:
                order = json.loads(words)
                for module in (loads or {}).get(order["do"], ()):
                    import_module(module)
                with memory_limit(order["limit"]), _in_memory() as out:
                    size = _do(jobs, order, out)
                    socket.send_fds(line, [str(size).encode()], [out.fileno()])
            except BaseException:  # noqa: BLE001  no memory for the answer: an exit code would say that no worker can start
                os.kill(os.getpid(), signal.SIGKILL)


def _do(jobs: Mapping[str, IsolatedJob], order: Mapping[str, Any], out: IO[bytes]) -> int:
    """Do the job; its answer stands behind the bytes that it wrote, whose number is returned."""
    try:
        answer = {"answer": jobs[order["do"]](order, out)}
    except (UserError, OSError) as error:
        answer = _told(error)
    except MemoryError:
        answer = {"memory": True}
    except Exception:  # noqa: BLE001  a bug of ours: told where somebody can see it
        answer = {"failed": traceback.format_exc()}
    size = out.seek(0, os.SEEK_END)
    out.write(json.dumps(answer).encode())
    out.flush()
    return size


def _told(error: UserError | OSError) -> dict[str, Any]:
    """A full disk is no fault of the file, whoever has put it into words."""
    number = getattr(error if isinstance(error, OSError) else error.__cause__, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return {"disk": number}
    return {"error": str(error)} if isinstance(error, UserError) else {"failed": traceback.format_exc()}


def _in_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # Linux
        return os.fdopen(os.memfd_create("advisor"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """The process may take this many bytes more than it has: what asks for more fails, or ends it.

    Its data, and not its address space, of which allocators reserve much that they never use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _data_bytes() + size
    allowed = allowed if hard == resource.RLIM_INFINITY else min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    with contextlib.suppress(OSError, ValueError):
        return resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[5])
    return 0
