"""Jobs packed into shared devices by the memory that they need, not by a share that somebody guessed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from optuna.trial import FrozenTrial

Place = TypeVar("Place")


def packing_of(trials: Iterable[FrozenTrial]) -> list[dict[str, Any]]:
    """Which trial ran where and when: seconds since the first was asked for, and bytes of the device, expected and used.

    Read from the attributes that the search keeps. A trial that was run again is where it ran last. None is not known.
    """
    placed = [trial for trial in trials if trial.datetime_start is not None and "device" in trial.user_attrs]
    first = min((trial.datetime_start for trial in placed if trial.datetime_start), default=None)
    rows = []
    for trial in placed:
        assert trial.datetime_start is not None and first is not None
        known = trial.user_attrs
        asked = (trial.datetime_start - first).total_seconds()
        row = {name: known.get(name) for name in ("worker", "device", "memory", "peak_memory", "micro_batch")}
        began, ended = round(asked + known["waited"], 3), round(asked + known["seconds"], 3)
        rows.append({"number": trial.number, "began": began, "ended": ended, "attempts": known.get("attempts", 1), **row})
    return rows


class Packing:
    """What lies on which device. A device without a known capacity takes everything.

    Order of calls: ``add`` each device, ``choose`` a place for a job, ``put`` it there, ``remove`` it when it is over.
    """

    def __init__(self) -> None:
        self._capacity: dict[str, float | None] = {}
        self._needs: dict[str, dict[str, float]] = {}

    def add(self, device: str, capacity: float | None) -> None:
        """capacity: bytes that jobs may use together; None is not known."""
        self._capacity[device] = capacity
        self._needs.setdefault(device, {})

    def choose(self, places: Iterable[tuple[Place, str]], need: float) -> Place | None:
        """Of the free places, each on a device, the one that leaves least room; None while none has enough.

        The fullest that fits, so that large jobs find an empty one. A device with no job on it takes any: a job that is
        too large for it will say so itself, waiting would not help.
        """
        fitting = [(self._left(device, need), order, place) for order, (place, device) in enumerate(places)]
        possible = [(left, order, place) for left, order, place in fitting if left is not None]
        return min(possible, key=lambda one: one[:2])[2] if possible else None

    def put(self, device: str, job_id: str, need: float) -> None:
        self._needs.setdefault(device, {})[job_id] = need

    def remove(self, job_id: str) -> None:
        for needs in self._needs.values():
            needs.pop(job_id, None)

    def _left(self, device: str, need: float) -> float | None:
        """Bytes left with the job there; None when it does not fit."""
        capacity, needs = self._capacity.get(device), self._needs.get(device, {})
        if capacity is None:
            return 0.0
        left = capacity - sum(needs.values()) - need
        return left if left >= 0 or not needs else None
