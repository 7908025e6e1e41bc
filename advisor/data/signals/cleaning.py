"""What is taken out of sequences as they are read: numbers that mark missing points, glitches, and odd units.

It is learnt from the training rows, told in the findings, kept in the schema, and done to new rows alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.inference import FILLS, NINES, marks_of_missing

SMALLEST_SPREAD, LARGEST_SPREAD = 1e-3, 1e6
"""Standard deviations of a channel that is read as it is."""
SOME_NUMBERS = 4_000_000
"""Spreads are those of about this many numbers."""
FAR, MOST_FAR = 100.0, 0.01
"""A glitch lies farther from the median than this many times the range of the
middle half; at most this many points do."""
_LARGEST = float(np.finfo(np.float32).max)

Series = NDArray[np.float32]


@dataclass(frozen=True)
class Cleaning:
    """marks: per channel the numbers, such as -999, that stand for a missing point.
    limits: per channel the least and the largest number that is no glitch.
    units: per channel what its values are divided by. Each () where no channel needs it."""

    marks: tuple[tuple[float, ...], ...] = ()
    limits: tuple[tuple[float, float], ...] = ()
    units: tuple[float, ...] = ()

    @classmethod
    def fit(cls, values: Series) -> Cleaning:
        """What sequences (rows, channels, length) need."""
        marks = _marks(values)
        values, _ = cls(marks).without_marks(values)
        limits = _limits(values)
        values, _ = cls(limits=limits).within_limits(values)
        return cls(marks, limits, _units(values))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cleaning:
        """What ``dataclasses.asdict`` made of it, maybe by way of JSON."""
        marks, limits = (tuple(map(tuple, data.get(name, ()))) for name in ("marks", "limits"))
        return cls(marks, limits, tuple(data.get("units", ())))

    def with_gaps(self, values: Series) -> tuple[Series, dict[str, int]]:
        """Sequences with missing points for marks and glitches, and how many there were of
        both: "marked_values", "glitches"."""
        values, marked = self.without_marks(values)
        values, glitches = self.within_limits(values)
        return values, {"marked_values": marked, "glitches": glitches}

    def without_marks(self, values: Series) -> tuple[Series, int]:
        if not self.marks:
            return values, 0
        values, count = values.copy(), 0
        for channel, own in enumerate(self.marks):
            marked = np.isin(values[:, channel], own)
            values[:, channel][marked] = np.nan
            count += int(marked.sum())
        return values, count

    def within_limits(self, values: Series) -> tuple[Series, int]:
        if not self.limits:
            return values, 0
        low, high = (np.array(ends)[:, None] for ends in zip(*self.limits, strict=True))
        beyond = (values < low) | (values > high)
        return np.where(beyond, np.float32(np.nan), values), int(beyond.sum())

    def in_units(self, values: Series) -> Series:
        if not self.units:
            return values
        divided: Series = (values / np.array(self.units)[:, None]).astype(np.float32)
        return divided


def _some(values: Series) -> Series:
    return values[:: -(-values.size // SOME_NUMBERS)] if values.size else values


def _known(part: Series) -> NDArray[np.float64]:
    return part[~np.isnan(part)].astype(np.float64)


def _marks(values: Series) -> tuple[tuple[float, ...], ...]:
    found: list[tuple[float, ...]] = []
    for channel in range(values.shape[1]):
        part = values[:, channel]
        ends = {float(end.reduce(part, axis=None)) for end in (np.fmin, np.fmax)} if part.size else set()
        found.append(marks_of_missing(pl.Series(_known(part))) if ends & (NINES | FILLS) else ())
    return tuple(found) if any(found) else ()


def _limits(values: Series) -> tuple[tuple[float, float], ...]:
    """Glitches are points, one or two in a row and few in all, that lie FAR from the median. A burst after
    silence lies as far, but in longer runs: it is kept, and with it all its channel has."""
    limits, some = [(-_LARGEST, _LARGEST)] * values.shape[1], _some(values)
    for channel in range(values.shape[1]):
        known = _known(some[:, channel])
        low, middle, high = np.quantile(known, (0.25, 0.5, 0.75)) if len(known) else (0.0, 0.0, 0.0)
        reach = FAR * float(high - low)
        if not reach:
            continue
        far = np.abs(values[:, channel] - middle) > reach
        if far.any() and far.mean() <= MOST_FAR and not (far[:, 2:] & far[:, 1:-1] & far[:, :-2]).any():
            limits[channel] = (float(middle - reach), float(middle + reach))
    return tuple(limits) if any(limit[1] < _LARGEST for limit in limits) else ()


def _units(values: Series) -> tuple[float, ...]:
    """Powers of ten in which deviations are neither tiny nor huge: a magnetic field in tesla deviates by
    1e-13, and no epsilon between here and the optimizer is meant for that."""
    units, some = [1.0] * values.shape[1], _some(values)
    for channel in range(values.shape[1]):
        known = _known(some[:, channel])
        spread = float(known.std()) if len(known) else 0.0
        if spread and not SMALLEST_SPREAD <= spread <= LARGEST_SPREAD:
            units[channel] = 10.0 ** round(math.log10(spread))
    return tuple(units) if any(unit != 1 for unit in units) else ()
