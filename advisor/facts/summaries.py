"""What the report shows of each column, of the target and of a few rows: parts of ``Facts`` and of its file.

A key that was not measured of a column, or does not fit its type, is UNSET and not in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.documents import UNSET, Unset


@dataclass(frozen=True)
class Histogram:
    """Rows in bins of equal width. low, high: edges of the first and the last bin; dates in
    microseconds since 1970."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """One feature column.

    why: how its type was found.
    missing_share: of all training rows, 0 to 1.
    sampled_rows: on how many rows its distribution was measured; None is on all.
    distinct: values that are not missing; None is not counted.
    distinct_sampled: whether they were counted on the sample.
    top: the most frequent levels and their shares of the filled cells.
    outliers: cells further from the quartiles than three times their distance.
    mean ... maximum: of the numbers; minimum and maximum of a date are texts.
    shift: name of an effect size -> its value, between the rows that were compared; None where none were.
    """

    name: str
    type: str
    why: str
    missing_share: float
    sampled_rows: int | None = None
    distinct: int | None
    distinct_sampled: bool = False
    top: tuple[tuple[str, float], ...] | Unset = UNSET
    outliers: int | Unset = UNSET
    mean: float | Unset | None = UNSET
    std: float | Unset | None = UNSET
    skew: float | Unset | None = UNSET
    minimum: float | str | Unset | None = UNSET
    q05: float | Unset | None = UNSET
    q25: float | Unset | None = UNSET
    median: float | Unset | None = UNSET
    q75: float | Unset | None = UNSET
    q95: float | Unset | None = UNSET
    maximum: float | str | Unset | None = UNSET
    histogram: Histogram | Unset = UNSET
    shift: Mapping[str, float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class TargetSummary:
    """The target. classes: the largest and their rows. histogram: of numbers. points: of
    masks, the classes and their shares of the points. boxes: the most frequent classes and their boxes."""

    classes: tuple[tuple[str, int], ...] | Unset = UNSET
    histogram: Histogram | Unset = UNSET
    points: tuple[tuple[str, float], ...] | Unset = UNSET
    boxes: tuple[tuple[str, int], ...] | Unset = UNSET


@dataclass(frozen=True, kw_only=True)
class RowSample:
    """A row to look at. image: base64 of a PNG. series: the points of each channel, None where
    one is missing. label: its class, its number, or the classes of its mask."""

    image: str | Unset = UNSET
    series: tuple[tuple[float | None, ...], ...] | Unset = UNSET
    label: str | float
