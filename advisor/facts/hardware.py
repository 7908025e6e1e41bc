"""Measures the facts of the machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.errors import UserError, did_you_mean
from advisor.machine import available_memory, total_memory, without_cuda

GPU_SECONDS = 5.0
"""How long nvidia-smi is waited for."""

_HARDWARE = ("cores", "memory.gb", "memory.available_gb", "gpu.count", "gpu.memory_gb")


def hardware_facts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the machine; UserError for a name in ``given`` that is none of them."""
    for name in given:
        if name not in _HARDWARE:
            raise UserError(
                f"hardware: unknown '{name}'{did_you_mean(name, _HARDWARE)}; expected {', '.join(_HARDWARE)}"
            )
    facts: dict[str, Any] = {}
    if not {"cores"} <= set(given):
        facts["cores"] = _cores()
    if not {"memory.gb", "memory.available_gb"} <= set(given):
        facts |= {"memory.gb": total_memory() / 1e9, "memory.available_gb": available_memory() / 1e9}
    if not {"gpu.count", "gpu.memory_gb"} <= set(given):
        sizes = [] if without_cuda() else _visible(_gpu_sizes())
        facts |= {"gpu.count": len(sizes), "gpu.memory_gb": min(sizes, default=None)}
    return facts | dict(given)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(int(quota) // int(period), 1))  # "max" is no number: no limit
    return cores


def _visible(sizes: list[float]) -> list[float]:
    """What CUDA_VISIBLE_DEVICES leaves of all GPUs: numbers up to the first that is none,
    or names, which are only counted."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return sizes
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    if names and not names[0].lstrip("-").isdigit():
        return sizes[: len(names)]
    there = itertools.takewhile(lambda name: name.isdigit() and int(name) < len(sizes), names)
    return [sizes[int(name)] for name in there]


def _gpu_sizes() -> list[float]:
    """GB of each GPU that nvidia-smi lists; none when there is no nvidia-smi or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GPU_SECONDS, check=True)
        return [float(line) * 2**20 / 1e9 for line in answer.stdout.splitlines() if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
