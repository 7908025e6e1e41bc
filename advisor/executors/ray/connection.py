"""The way to a cluster: is somebody there, with which token, and Ray begun here or joined there."""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from advisor.errors import UserError
from advisor.executors.ray.errors import core_log, join, tokens, wants_no_token, why_not

CLIENT = "ray://"
"""How an address begins that is a Ray Client's (``client.py``)."""
CONNECT_SECONDS = 3.0
"""How long a cluster's port may take to answer before we say that nobody is there."""

# Of the system, which Ray's core changes beside Python's own; also from a thread that is not the main one.
_signal_handler = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(("PyOS_getsig", ctypes.pythonapi))
_set_signal_handler = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(
    ("PyOS_setsig", ctypes.pythonapi)
)


def init_ray(address: str | None, local: dict[str, Any], working_dir: str | Path | None = None) -> None:
    """Start Ray for this process only, with ``local`` options, or join the cluster at the address.

    working_dir: a folder of code that is sent to the cluster's workers. UserError when that does not work.
    """
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # "local", because a bare init joins whatever cluster this machine last started.
        options |= {"address": "local", "include_dashboard": False, **local}
    else:
        options["address"] = address
        if working_dir is not None:
            options["runtime_env"] = {"working_dir": str(Path(working_dir).resolve())}
    handler = _signal_handler(signal.SIGTERM)
    try:
        if address is None:
            ray.init(**options)
        else:
            with core_log() as said:
                try:
                    join(**options)
                except Exception as error:  # as below
                    what, do = why_not(address, f"{said()}\n{error}")
                    raise UserError(
                        f"no Ray cluster was joined: {what}; {do} (`advisor doctor --address {address}`)"
                    ) from error
        # Ray prints the death of a worker on *stdout*, whatever log_to_driver
        # says, and breaks a JSON document there.
        ray._private.worker._worker_logs_enabled = False
    except UserError:
        raise
    # a plain Exception where Ray's node does not come up in time: all are reasons of Ray's
    except Exception as error:
        raise UserError(
            f"Ray did not start here ({_first_line(error)}): try --executor in-process"
        ) from error
    finally:
        # from now on Ray's core would print its stack, and end us
        _set_signal_handler(signal.SIGTERM, handler)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def check_connection(address: str) -> None:
    """UserError when nobody listens at the address: Ray itself takes a minute to find out."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"'{address}' is not an address: give HOST:PORT, ray://HOST:PORT or auto")
    if address.startswith(CLIENT) and find_spec("grpc") is None:
        raise UserError(f"{address}: Ray's client is not installed: pip install 'ray[client]'")
    try:
        join_head(f"{host}:{port}")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"no Ray cluster answers at {address} ({reason}): start one, or leave --address out"
        ) from error


def join_head(address: str) -> None:
    """OSError when nobody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def settle_authentication(address: str | None) -> None:
    """Ray's token, without a file in the user's home and without the silent
    failures of clusters that want one, or none.

    A local Ray gets a token of its own through the environment; otherwise Ray would write
    ``~/.ray/auth_token``, which switches authentication on for every cluster that is started on this machine
    later. With an address, a token that is there is used where the cluster wants one: Ray says no more than
    "failed to connect" when RAY_AUTH_MODE is not set, and where none is wanted, a driver with a token refuses
    the cluster's own calls and loses every worker at once. What the user has set is left alone. The variables
    stay set: Ray reads them once per process.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address is not None:
        if tokens():
            os.environ["RAY_AUTH_MODE"] = "disabled" if wants_no_token(address) else "token"
        return
    of_the_user = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    running = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if not of_the_user and not running:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
