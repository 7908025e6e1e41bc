"""pandas frames -> sources: labels as names, columns of mixed objects as text."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import polars as pl

from advisor.data.sources.source import MAX_COLUMNS, Source, checked_source, unique_names
from advisor.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def from_pandas(data: Any, name: str, origin: str, notes: dict[str, int] | None = None) -> Source:
    """Column by column, by position: duplicate names and mixed objects would
    stop a conversion in one piece."""
    if data.shape[1] > MAX_COLUMNS:
        raise UserError(f"{origin} has {data.shape[1]:,} columns; at most {MAX_COLUMNS:,} are read")
    columns = [_pandas_series(data.iloc[:, position], str(position)) for position in range(data.shape[1])]
    return checked_source(pl.DataFrame(columns), _flat(data.columns), name, origin, notes or {})


def _flat(labels: Iterable[object]) -> list[object]:
    """Labels of pandas columns as names: those of several levels joined."""
    return ["_".join(map(str, label)) if isinstance(label, tuple) else label for label in labels]


def column_place(frame: object, label: object) -> int | None:
    """Which column of a pandas frame has this label, taken as pandas takes it; None
    where none has, or it is no such frame.

    Of the labels of several levels ``y`` is ('y', ''), too.
    """
    if not (hasattr(frame, "columns") and hasattr(frame, "iloc")) or not isinstance(label, Hashable):
        return None
    labels = [
        tuple(level for level in own if level != "") if isinstance(own, tuple) else own
        for own in frame.columns
    ]
    wanted = tuple(level for level in label if level != "") if isinstance(label, tuple) else label
    for own in (wanted, (wanted,)):
        if own in labels and not isinstance(wanted, bool):
            return labels.index(own)
    return None


def column_name(frame: object, label: object) -> str | None:
    """The name under which the column of a pandas frame that has this label is
    read; None as ``column_place``."""
    place = column_place(frame, label)
    return None if place is None else unique_names(_flat(frame.columns))[0][place]  # type: ignore[attr-defined]


def _pandas_series(series: pd.Series[Any], name: str) -> pl.Series:
    if hasattr(series.dtype, "categories") and series.dtype.categories.dtype.kind in "iuf":
        return _declared(series).alias(name)
    try:
        converted = pl.from_pandas(series, nan_to_null=True)
        if not converted.dtype.is_nested() and converted.dtype != pl.Duration:
            converted.head(1).cast(
                pl.String
            )  # periods and the like arrive as a type of their own, which nothing reads
    except Exception:  # noqa: BLE001  pyarrow, polars and pandas each raise their own for mixed objects: read as text
        missing = series.isna().to_numpy()
        texts = [None if gone else str(cell) for cell, gone in zip(series.tolist(), missing, strict=True)]
        converted = pl.Series(name, texts, dtype=pl.String)
    return converted.alias(name)


def _declared(series: pd.Series[Any]) -> pl.Series:
    """A pandas category of numbers as one of texts: polars would take it for the numbers."""
    texts = pl.Series([str(value) for value in series.cat.categories.tolist()], dtype=pl.String)
    codes = pl.Series(series.cat.codes.to_numpy()).cast(pl.Int64)
    return texts.gather(codes.set(codes < 0, None)).cast(pl.Categorical)
