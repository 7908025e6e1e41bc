"""Jobs packed into shared devices by the memory that they need, not by a share that somebody guessed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

DeviceSlot = TypeVar("DeviceSlot")


class Packing:
    """What lies on which device. A device without a known capacity takes everything.

    Order of calls: ``add`` each device, ``choose`` a place for a job, ``put`` it
    there, ``remove`` it when it is over.
    """

    def __init__(self) -> None:
        self._capacity: dict[str, float | None] = {}
        self._needs: dict[str, dict[str, float]] = {}

    def add(self, device: str, capacity: float | None) -> None:
        """capacity: bytes that jobs may use together; None is not known."""
        self._capacity[device] = capacity
        self._needs.setdefault(device, {})

    def choose(self, places: Iterable[tuple[DeviceSlot, str]], need: float) -> DeviceSlot | None:
        """Of the free places, each on a device, the one that leaves least room; None while none has enough.

        The fullest that fits, so that large jobs find an empty one. A device with no job on it takes any: a
        job that is too large for it will say so itself, waiting would not help.
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
