"""Sequences in the files of the UCR/UEA archive, and in long and wide tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.column import Column, conform, how_many, unreadable
from advisor.data.columns.inference import MOST_JUDGED, infer, read_as
from advisor.data.columns.numbers import number_format
from advisor.data.signals.rows import (
    ArrayValues,
    Found,
    RawRows,
    Request,
    TimeSteps,
    padded,
    without_infinities,
)
from advisor.data.signals.ucr_files import Archived, archive_pair, read_archive
from advisor.data.sources.reading import read_source
from advisor.data.tables.target import finite_numbers
from advisor.data.tables.times import read_times
from advisor.errors import UserError, did_you_mean, shown
from advisor.machine import available_memory
from advisor.tasks import REGRESSION


def read_sequences(source: object, request: Request) -> Found:
    """A file of the archive of time series (with its test file beside it), or a table."""
    if isinstance(source, str | Path) and not str(source).startswith("sklearn:"):
        path = Path(source)
        if path.is_dir() or archive_pair(path) is not None:
            return _from_archive(path, request)
    return _from_table(source, request)


def _from_archive(path: Path, request: Request) -> Found:
    """A file of the archive, or the one pair of a folder."""
    origin = shown(path, 200)
    request.refuse(origin, without=("id_column", "time_column", "group_column"))
    # test rows, or rows to predict: that file and no other
    alone = request.like is not None and path.is_file()
    pair = (path, None) if alone else archive_pair(path)
    if pair is None:
        raise UserError(
            f"{origin} is a directory; expected one pair of NAME_TRAIN.ts and NAME_TEST.ts (or .arff, .tsv, "
            ".txt) in it"
        )
    read = read_archive(pair[0], request.max_bytes, request.form)
    _check_archived_target(read, origin, request)
    rows, infinite = _archived_rows(read)
    test, more = (None, 0) if pair[1] is None else _archived_test(pair[1], read, request)
    assert isinstance(rows.values, ArrayValues)
    return Found(
        kind="sequence",
        name=path.name if path.is_dir() else pair[0].stem.removesuffix("_TRAIN").removesuffix("_train"),
        origin=origin,
        target=read.target,
        shape=rows.values.array.shape[1:],
        train=rows,
        test=test,
        task=REGRESSION if read.regression else None,
        classification=not read.regression,
        steps=_archived_steps(read),
    ).noting({"infinite_values": infinite + more})


def _check_archived_target(read: Archived, origin: str, request: Request) -> None:
    """UserError where a target is needed, and the file has none or another one."""
    if not request.needs_target:
        return
    if not read.labelled:
        raise UserError(
            f"{origin} has no labels (neither @classlabel nor @targetlabel is true); nothing can be learned"
        )
    if request.target is not None and request.target != read.target:
        near = did_you_mean(request.target, [read.target])
        raise UserError(
            f"{origin} has no target '{shown(request.target)}'{near}; its target is '{shown(read.target)}'"
        )


def _archived_test(path: Path, train: Archived, request: Request) -> tuple[RawRows | None, int]:
    """The rows of the test file, None where they have no labels, and how many values were infinite."""
    read = read_archive(path, request.max_bytes, request.form)
    if len(read.series[0]) != len(train.series[0]):
        raise UserError(
            f"{shown(path, 200)} has {len(read.series[0])} channels, the training file "
            f"{len(train.series[0])}; expected as many"
        )
    return _archived_rows(read) if read.labelled else (None, 0)


def _archived_rows(read: Archived) -> tuple[RawRows, int]:
    """The rows of a file, and how many of their values were infinite."""
    values, infinite = without_infinities(padded(read.series, len(read.series[0])))
    answer = None
    if read.labelled:
        answer = pl.Series(read.target, [label or None for label in read.labels], dtype=pl.String)
    return RawRows(ArrayValues(values), answer), infinite


def _archived_steps(read: Archived) -> TimeSteps | None:
    """The steps between the times of a file; None where it has none that can be read: they order nothing."""
    if not read.times:
        return None
    owner = np.repeat(np.arange(len(read.times)), [len(times) for times in read.times])
    cells = pl.Series("time", [time.strip() for times in read.times for time in times], dtype=pl.String)
    try:
        times = read_times(cells)
    except UserError:
        return None
    return _time_steps(pl.DataFrame({"id": owner, "time": times}).drop_nulls())


# ----------------------------------------------------------------------------------------------------- tables


def _from_table(source: object, request: Request) -> Found:
    """A wide table, a row for each sequence, or a long one, a row for each point."""
    read = read_source(source, max_bytes=request.max_bytes, form=request.form)
    frame, origin = read.frame, read.origin
    request = _without_new_id(frame, request)
    special = _checked_roles(frame, origin, request)
    columns, numbers, infinite = _value_columns(frame.drop(special), origin, request)
    ids = None if request.id_column is None else frame[request.id_column]
    if _is_wide(ids, request):
        found = _wide(frame, numbers, columns, request)
    elif ids is None:
        raise UserError(
            "a time column needs an id column that says which rows form a sequence; name one, or leave the "
            "time column out"
        )
    else:
        found = _long(frame, numbers, columns, _points(frame, ids, origin, request), origin, request)
    known = {*special, *columns}
    ignored = tuple(name for name in frame.columns if name not in known)
    found = replace(found, name=read.name, origin=origin, ignored=ignored)
    return found.reading(read).noting({"infinite_values": infinite})


def _without_new_id(frame: pl.DataFrame, request: Request) -> Request:
    """The request without an id that new rows of a wide table lack: there it is only a name."""
    of_wide = request.like == (1, len(request.columns)) and not request.needs_target
    return replace(request, id_column=None) if of_wide and request.id_column not in frame.columns else request


def _checked_roles(frame: pl.DataFrame, origin: str, request: Request) -> list[str]:
    """The columns of the table that have a role; UserError where one that is needed is not there, or has two
    of them, or there are no rows."""
    asked = {name: getattr(request, name) for name in ("target", "id_column", "time_column", "group_column")}
    needed = asked if request.needs_target else ("id_column", "time_column")
    for role in needed:
        column = asked[role]
        if column is not None and column not in frame.columns:
            near = shown(did_you_mean(column, frame.columns))
            raise UserError(
                f"{shown(origin)} has no {role.replace('_', ' ')} '{shown(column)}'{near}; its columns are "
                f"{', '.join(shown(name, 30) for name in frame.columns[:8])}"
            )
    if request.needs_target and request.target is None:
        raise UserError(f"{shown(origin)} is a table of sequences: name the column to predict as the target")
    given = [column for column in asked.values() if column is not None]
    if len(set(given)) < len(given):
        raise UserError(
            f"one column cannot have two roles ({', '.join(map(shown, given))}); expected different columns"
        )
    if not frame.height:
        raise UserError(f"{shown(origin)} has a header and no rows; expected sequences")
    return [column for column in given if column in frame.columns]


def _is_wide(ids: pl.Series | None, request: Request) -> bool:
    """Whether each row is a sequence: as it was in training (one new sequence has one id, too), else where no
    two rows have one id."""
    if request.time_column is not None:
        return False
    if request.like is not None and request.columns:
        return request.like == (1, len(request.columns))
    return ids is None or ids.n_unique() == len(ids)


def _value_columns(
    frame: pl.DataFrame, origin: str, request: Request
) -> tuple[tuple[str, ...], NDArray[np.float32], int]:
    """The columns of numbers, their cells, shape (rows, columns), and how many of these were infinite; the
    columns of a saved model are looked up by name."""
    if missing := [name for name in request.columns if name not in frame.columns]:
        some = ", ".join(f"'{shown(name, 40)}'" for name in missing[:8])
        raise UserError(
            f"{shown(origin)} has no column {some}; expected the value columns of the training table"
        )
    if request.columns:
        found = {name: _as_in_training(frame[name], origin) for name in request.columns}
    else:
        read = {name: _new_values(frame[name]) for name in frame.columns}
        found = {name: values for name, values in read.items() if values is not None}
    if not found:
        raise UserError(
            f"{shown(origin)} has no numeric column besides the named ones; expected the values of the "
            "sequences"
        )
    matrix = np.stack([cells.cast(pl.Float64).to_numpy() for cells in found.values()], axis=1)
    numbers, infinite = without_infinities(matrix)
    return tuple(found), numbers, infinite


def _new_values(cells: pl.Series) -> pl.Series | None:
    """The cells as numbers; None where they are none, or number the rows."""
    if not cells.dtype.is_float() and infer(cells, cells.head(MOST_JUDGED)).type == "identifier":
        return None
    values = finite_numbers(cells, number_format(cells))
    return _empty_or_yes_and_no(cells, named=False) if values is None else values


def _as_in_training(cells: pl.Series, origin: str) -> pl.Series:
    """The cells of a value column of the training rows as numbers; UserError where they are none."""
    values = finite_numbers(cells, number_format(cells))
    values = _empty_or_yes_and_no(cells, named=True) if values is None else values
    if values is None:
        bad = how_many(unreadable(cells, read_as(cells, "numeric")), len(cells), " are not numbers")
        raise UserError(
            f"{shown(origin)}: the value column '{shown(cells.name)}' is not read as in training: {bad}"
        )
    return values


def _empty_or_yes_and_no(cells: pl.Series, named: bool) -> pl.Series | None:
    """Cells of which none is filled, or all are words such as yes and no, on and
    off, as numbers; None for others.

    named: the words are no, and yes, also where there is one of them alone, as in new rows.
    """
    if cells.null_count() == len(cells):
        return cells.cast(pl.Float64)
    if not named and infer(cells, cells.head(MOST_JUDGED)).type != "boolean":
        return None
    words = conform(cells, Column(cells.name, "boolean", ""))[0]
    return words.cast(pl.Float64) if words.null_count() < len(words) else None


def _wide(
    frame: pl.DataFrame, numbers: NDArray[np.float32], columns: tuple[str, ...], request: Request
) -> Found:
    """Every column a point in time."""
    needed = request.needs_target and request.target is not None
    rows = RawRows(
        values=ArrayValues(numbers[:, None]),
        answer=frame[str(request.target)] if needed else None,
        groups=None if request.group_column is None else _texts(frame, request.group_column),
        names=() if request.id_column is None else tuple(_texts(frame, request.id_column).to_list()),
    )
    return Found(
        kind="sequence",
        name="",
        origin="",
        target=str(request.target),
        shape=(1, len(columns)),
        train=rows,
        group_column=request.group_column,
        columns=columns,
        id_column=request.id_column,
    )


def _texts(frame: pl.DataFrame, column: str) -> pl.Series:
    if column not in frame.columns:
        return pl.Series(column, [""] * frame.height)
    return frame[column].cast(pl.String).fill_null("")


@dataclass(frozen=True)
class _Points:
    """Which rows of a long table are the points of which sequence, in order.

    names: the id of each sequence. rows: the numbers of its rows.
    steps: in time, None without times.
    notes: rows that are no points, as counts.
    """

    names: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]
    steps: TimeSteps | None
    notes: Mapping[str, int]


def _points(frame: pl.DataFrame, ids: pl.Series, origin: str, request: Request) -> _Points:
    """Rows by their id, in the order of their times, else as they stand."""
    points = ids.cast(pl.String).to_frame("id").with_row_index("row").filter(pl.col("id").is_not_null())
    notes, steps = {"rows_without_id": ids.null_count()}, None
    if request.time_column is not None:
        times = read_times(frame[request.time_column])
        timed = points.with_columns(times.gather(points["row"]).alias("time"))
        points = timed.drop_nulls("time").sort("time", maintain_order=True)
        notes["rows_without_time"] = timed.height - points.height
        notes["repeated_times"] = points.height - points.select("id", "time").n_unique()
        steps = _time_steps(points)
    by_id = points.group_by("id").agg("row", pl.col("row").min().alias("first")).sort("first")
    if not by_id.height:
        raise UserError(
            f"{shown(origin)}: no row has both an id and a time; expected an id in '{shown(ids.name)}' and a "
            "time"
        )
    rows = tuple(np.asarray(rows, np.int64) for rows in by_id["row"].to_list())
    return _Points(tuple(by_id["id"].to_list()), rows, steps, notes)


def _long(
    frame: pl.DataFrame,
    numbers: NDArray[np.float32],
    columns: tuple[str, ...],
    points: _Points,
    origin: str,
    request: Request,
) -> Found:
    """One row per point: a sequence has a channel per column."""
    longest = max(len(rows) for rows in points.rows)
    size = len(points.rows) * longest * len(columns) * np.dtype(np.float32).itemsize
    if size > available_memory() // 2:
        raise UserError(
            f"{shown(origin)}: {len(points.rows):,} sequences of up to {longest:,} points need {size:,} "
            f"bytes, more than half of the free memory; is '{shown(request.id_column)}' the id of a sequence?"
        )
    answer = _constant_per_id(frame[str(request.target)], points, origin) if request.needs_target else None
    group = request.group_column if request.group_column in frame.columns else None
    groups = None if group is None else _constant_per_id(frame[group], points, origin)
    rows = RawRows(
        values=ArrayValues(padded([numbers[rows].T for rows in points.rows], len(columns))),
        answer=answer,
        groups=None if groups is None else groups.cast(pl.String).fill_null(""),
        names=points.names,
    )
    return Found(
        kind="sequence",
        name="",
        origin="",
        target=str(request.target),
        shape=(len(columns), longest),
        train=rows,
        group_column=group,
        columns=columns,
        id_column=request.id_column,
        order_column=request.time_column,
        steps=points.steps,
    ).noting(dict(points.notes))


def _time_steps(points: pl.DataFrame) -> TimeSteps | None:
    """The steps between the different times of each id; points: sorted by time."""
    steps = points.select(pl.col("time").diff().over("id"))["time"].drop_nulls()
    lengths = steps.to_physical().cast(pl.Float64).to_numpy()
    return TimeSteps.of(lengths[lengths > 0])  # a time that occurs twice is told by itself


def _constant_per_id(cells: pl.Series, points: _Points, origin: str) -> pl.Series:
    """One cell per sequence; UserError when a sequence has two different ones."""
    flat, sizes = np.concatenate(points.rows), [len(rows) for rows in points.rows]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    pairs = pl.DataFrame({"owner": owner, "cell": cells.gather(flat)}).drop_nulls("cell")
    counts = pairs.group_by("owner").agg(pl.col("cell").n_unique().alias("count"), pl.col("cell").first())
    if several := counts.filter(pl.col("count") > 1).sort("owner").rows():
        raise UserError(
            f"{shown(origin)}: '{shown(cells.name)}' has {several[0][1]} values within the sequence "
            f"'{shown(points.names[several[0][0]], 40)}' ({len(several):,} sequences have); expected one for "
            "each id"
        )
    whole = pl.DataFrame({"owner": np.arange(len(sizes))}).join(
        counts, on="owner", how="left", maintain_order="left"
    )
    return whole["cell"].alias(cells.name)
