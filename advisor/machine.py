"""This process and its machine: which programs it runs, so that a worker that differs from the driver is
found before the first trial; since when it runs; the signals that ask it to end; the memory that it may
take."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_IMPORTED = time.monotonic()
_START_FIELD = 19
"""Where /proc/PID/stat has the start of a process, in ticks since boot, behind the bracket of its name."""
COMPARED = ("numpy", "torch", "ray")
"""Distributions that decide what a trial computes or how it travels."""

_Handler = Callable[[int, FrameType | None], None]


def process_began() -> float:
    """When this process was started, on time.monotonic's clock; where the system does not say, when this
    module was imported."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return _IMPORTED
    return time.monotonic() - max(age, 0.0)


def release(version: str) -> str:
    """A version without its build: 2.13.0 of 2.13.0+cpu, for a worker with a GPU has another one."""
    return version.partition("+")[0]


def versions() -> dict[str, str]:
    """This process's, without importing anything. What is not installed is not
    there; builds (``+cpu``) are left out."""
    from importlib.metadata import PackageNotFoundError, version  # a fifth of what ``advisor --help`` takes

    from advisor import __version__

    found = {"python": ".".join(platform.python_version_tuple()[:2]), "advisor": __version__}
    for name in COMPARED:
        try:
            found[name] = release(version(name))
        except PackageNotFoundError:
            continue
    return found


def without_cuda() -> bool:
    """Whether this process's PyTorch, which is not imported, is a build for CPUs, or there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True


def version_differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """In words, what differs: "torch is 2.6.0 there and 2.7.1 here"."""
    return [
        f"{name} is {theirs.get(name, 'missing')} there and {ours[name]} here"
        for name in ours
        if theirs.get(name) != ours[name]
    ]


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C as a request that is looked at between two steps. TERM (Slurm, Kubernetes, ``kill``) and HUP
    (the terminal was closed) mean the same.

    The first such signal sets the event, the second is a KeyboardInterrupt. Only the main thread may take
    signals: in others the event is never set.
    """
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            _interrupt(number, frame)
        asked.set()
        _leave_terminal(number)

    with _handled(handle, signal.SIGINT, *_of_others()):
        yield asked


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """TERM and HUP raise KeyboardInterrupt, as Ctrl-C does."""
    with _handled(_interrupt, *_of_others()):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    _leave_terminal(number)
    raise KeyboardInterrupt


def _of_others() -> list[signal.Signals]:
    """TERM and HUP, unless the program handles them itself or ignores them (``nohup``).
    ``ray.init`` sets one that exits."""

    def is_free(handler: object) -> bool:
        return handler in (signal.SIG_DFL, _interrupt) or str(getattr(handler, "__module__", "")).startswith(
            "ray."
        )

    return [one for one in (signal.SIGTERM, signal.SIGHUP) if is_free(signal.getsignal(one))]


@contextmanager
def _handled(handle: _Handler, *signals: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = {one: signal.signal(one, handle) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _leave_terminal(number: int) -> None:
    """After HUP, where stdout or stderr is a terminal that is gone, write
    nowhere: each line would be an error."""
    for stream in (1, 2) if number == signal.SIGHUP else ():
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] != errno.EIO:
                continue
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


def total_memory() -> int:
    """Bytes of memory of the machine, or of the container that this process runs in."""
    return min(_bounds("MemTotal", used=False), default=8 * 10**9)


def available_memory() -> int:
    """Bytes of memory that this process may still take: the machine's, its container's and its own limit."""
    bounds = _bounds("MemAvailable", used=True)
    with contextlib.suppress(OSError, ValueError):
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            bounds.append(
                soft - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
            )
    return max(min(bounds, default=8 * 10**9), 0)


def _bounds(entry: str, *, used: bool) -> list[int]:
    """What /proc/meminfo and the control group say, in bytes; less what the group has used already."""
    bounds = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds.append(1024 * int(next(line for line in lines if line.startswith(entry)).split()[1]))
    group = Path("/sys/fs/cgroup")
    for limit, taken in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            bounds.append(
                int((group / limit).read_text()) - (int((group / taken).read_text()) if used else 0)
            )
    return bounds
