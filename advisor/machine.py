"""Which programs a process runs, so that a worker that differs from the driver
is found before the first trial; and since when it runs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from advisor import __version__

_IMPORTED = time.monotonic()
_START_FIELD = 19
"""Where /proc/PID/stat has the start of a process, in ticks since boot, behind the bracket of its name."""
COMPARED = ("numpy", "torch", "ray")
"""Distributions that decide what a trial computes or how it travels."""


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
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "advisor": __version__}
    for name in COMPARED:
        try:
            found[name] = release(version(name))
        except PackageNotFoundError:
            continue
    return found


def without_cuda() -> bool:
    """Whether this process's PyTorch, which is not imported, is a build for CPUs, or there is none."""
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
