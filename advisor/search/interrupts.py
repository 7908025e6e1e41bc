"""Ctrl-C as a wish that is looked at between two steps. TERM (Slurm, Kubernetes, ``kill``) and HUP (the
terminal was closed) mean the same."""

from __future__ import annotations

import errno
import os
import signal
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_Handler = Callable[[int, FrameType | None], None]


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """The first such signal sets the event, the second is a KeyboardInterrupt. In
    other threads it is not ours to take."""
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
