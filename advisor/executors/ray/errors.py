"""Joining a Ray cluster, and in words why it could not be. Ray says that only in the log
lines of its core, on our stderr."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CORE_LINE = re.compile(r"^\[[\d\-: ,.]+ [DIWEF] \d+ \d+\] ")
"""A log line of Ray's core: [2026-11-24 08:25:40,472 W 30552 31000] gcs_client.cc:210: ..."""
REFUSED = "InvalidAuthToken"
NOT_SERVED = ("Starting Ray client server failed", "Proxy failed to Connect to backend")
"""Behind ``ray://`` the head forks a process for each connection while other threads are inside gRPC,
and now and then (2 of 150 tries with Ray 2.60) that process dies of it: of a file descriptor or a lock
of the poller. The next one lives."""
JOIN_TRIES = 3
HEALTH_SECONDS = 20.0
"""For a cluster to say whether it wants a token; one that is silent for so long will not be joined either."""


@contextmanager
def core_log() -> Iterator[Callable[[], str]]:
    """Keep what is written to stderr, also by Ray's core, out of sight; yields a
    function that returns it so far.

    What is not Ray's own goes on to stderr at the end. Only the file descriptor
    moves, so that C++ is caught too.
    """
    try:
        sys.stderr.flush()
        own = os.dup(2)
    except (OSError, AttributeError):  # there is no stderr
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as kept:

        def said() -> str:
            return os.pread(kept.fileno(), 2**20, 0).decode("utf-8", "replace")

        os.dup2(kept.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            os.close(own)
            others = [line for line in said().splitlines(keepends=True) if not CORE_LINE.match(line)]
            sys.stderr.write("".join(others))


def join(**options: Any) -> None:
    """``ray.init(**options)``; again where the head could not serve this one connection of a Ray Client."""
    import ray

    for tries_left in reversed(range(JOIN_TRIES)):
        try:
            ray.init(**options)
            return
        except ConnectionError as error:
            if not tries_left or not any(words in str(error) for words in NOT_SERVED):
                raise


def tokens() -> list[str]:
    """Where a token for Ray is set: environment variables, or the file that Ray reads."""
    found = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    return found + (["~/.ray/auth_token"] if (Path.home() / ".ray" / "auth_token").is_file() else [])


def wants_no_token(address: str) -> bool:
    """Whether the cluster at HOST:PORT (or ``auto``) answers to those who show no token.

    Of ``ray://`` it says no: there the driver is on the cluster, whose own it has. Asked in a process of its
    own, because Ray reads its token once. Takes about half a second.
    """
    if address.startswith("ray://"):
        return False
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    command += [] if address == "auto" else ["--address", address]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=HEALTH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def why_not(address: str, said: str) -> tuple[str, str]:
    """What is wrong, and what to do.
    said: all that Ray said when it failed to join ``address``."""
    if REFUSED in said or "token is missing or incorrect" in said:
        what = "refuses our token" if tokens() else "requires a token, and none is set here"
        return (
            f"{address} {what}",
            "copy the head's ~/.ray/auth_token here (mode 600), or export RAY_AUTH_TOKEN",
        )
    if "no authentication token was found" in said:
        do = "copy the head's ~/.ray/auth_token here (mode 600), or unset RAY_AUTH_MODE for a cluster without"
        return "RAY_AUTH_MODE is token, and no token is set here", do
    if "ersion mismatch" in said:
        words = " ".join(line.strip() for line in said.splitlines() if "Ray:" in line or "Python:" in line)
        return f"{address} has other versions ({words})"[
            :400
        ], "install the cluster's Ray and Python here, or ours there"
    if "Could not find any running Ray instance" in said:
        return "no Ray cluster was started on this machine", "ray start --head, or give its HOST:PORT"
    if any(words in said for words in NOT_SERVED):
        do = "look at ray_client_server_*.err on its head node, in /tmp/ray/session_latest/logs"
        return f"{address} cannot start the process that serves a client", do
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "no answer")
    do = "is this the port of `ray start --head` (6379) and not the dashboard's?"
    return f"{address} accepts connections but cannot be joined ({last[:200]})", do
