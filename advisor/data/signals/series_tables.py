"""Sequences in the files of the UCR/UEA archive, and in long and wide tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.column import Column, conform, how_many, unreadable
from advisor.data.columns.inference import infer, read_as
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
    origin = shown(path, 200)
    request.refuse(origin, without=("id_column", "time_column", "group_column"))
    alone = (
        request.like is not None and path.is_file()
    )  # test rows, or rows to predict: that file and no other
    pair = (path, None) if alone else archive_pair(path)
    if pair is None:
        raise UserError(
            f"{origin} is a directory; expected one pair of NAME_TRAIN.ts and NAME_TEST.ts (or .arff, .tsv, "
            ".txt) in it"
        )
    read = read_archive(pair[0], request.max_bytes, request.form)
    if request.needs_target:
        if not read.labelled:
            raise UserError(
                f"{origin} has no labels (neither @classlabel nor @targetlabel is true); nothing can be "
                "learnt"
            )
        if request.target is not None and request.target != read.target:
            near = did_you_mean(request.target, [read.target])
            raise UserError(
                f"{origin} has no target '{shown(request.target)}'{near}; its target is "
                f"'{shown(read.target)}'"
            )
    notes: dict[str, int] = {}
    rows = _archived_rows(read, notes)
    test = None
    if pair[1] is not None:
        second = read_archive(pair[1], request.max_bytes, request.form)
        if len(second.series[0]) != len(read.series[0]):
            raise UserError(
                f"{shown(pair[1], 200)} has {len(second.series[0])} channels, the training file "
                f"{len(read.series[0])}; "
                "expected as many"
            )
        test = _archived_rows(second, notes) if second.labelled else None
    name = path.name if path.is_dir() else pair[0].stem.removesuffix("_TRAIN").removesuffix("_train")
    shape = rows.values.array.shape[1:] if isinstance(rows.values, ArrayValues) else ()
    found = Found(
        "sequence", name, origin, read.target, shape, rows, test, REGRESSION if read.regression else None
    )
    return replace(found, classification=not read.regression, steps=_archived_steps(read)).noting(notes)


def _archived_rows(read: Archived, notes: dict[str, int]) -> RawRows:
    values, infinite = without_infinities(padded(read.series, len(read.series[0])))
    notes["infinite_values"] = notes.get("infinite_values", 0) + infinite
    answer = None
    if read.labelled:
        answer = pl.Series(read.target, [label or None for label in read.labels], dtype=pl.String)
    return RawRows(ArrayValues(values), answer)


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
    read = read_source(source, max_bytes=request.max_bytes, form=request.form)
    frame, origin = read.frame, read.origin
    if (
        request.like == (1, len(request.columns))
        and request.id_column not in frame.columns
        and not request.needs_target
    ):
        request = replace(request, id_column=None)  # a wide table's id is only a name
    asked = {name: getattr(request, name) for name in ("target", "id_column", "time_column", "group_column")}
    for role, column in asked.items():
        if (
            column is not None
            and column not in frame.columns
            and (request.needs_target or role in ("id_column", "time_column"))
        ):
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
            f"one column has two roles ({', '.join(map(shown, given))}); expected different columns"
        )
    if not frame.height:
        raise UserError(f"{shown(origin)} has a header and no rows; expected sequences")
    notes: dict[str, int] = {}
    special = [column for column in given if column in frame.columns]
    columns, numbers = _value_columns(frame.drop(special), origin, request, notes)
    ids = None if request.id_column is None else frame[request.id_column]
    wide = request.time_column is None and (ids is None or ids.n_unique() == len(ids))
    if (
        request.like is not None and request.columns
    ):  # as it was in training: one new sequence has one id, too
        wide = request.like == (1, len(request.columns)) and request.time_column is None
    if wide:
        found = _wide(frame, numbers, columns, request)
    elif ids is None:
        raise UserError(
            "a time column needs an id column that tells which rows are one sequence; name one, or leave it "
            "out"
        )
    else:
        found = _long(frame, numbers, columns, ids, origin, request, notes)
    known = {*special, *columns}
    ignored = tuple(name for name in frame.columns if name not in known)
    return replace(found, name=read.name, origin=origin, ignored=ignored).reading(read).noting(notes)


def _value_columns(
    frame: pl.DataFrame, origin: str, request: Request, notes: dict[str, int]
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The columns of numbers and their cells, shape (rows, columns); those of a
    saved model are looked up by name."""
    if missing := [name for name in request.columns if name not in frame.columns]:
        some = ", ".join(f"'{shown(name, 40)}'" for name in missing[:8])
        raise UserError(
            f"{shown(origin)} has no column {some}; expected the value columns of the training table"
        )
    found: dict[str, pl.Series] = {}
    for name in request.columns or frame.columns:
        cells = frame[name]
        if (
            not request.columns
            and not cells.dtype.is_float()
            and infer(cells, cells.head(10_000)).type == "identifier"
        ):
            continue
        values = finite_numbers(cells, number_format(cells))
        if values is None:
            values = _empty_or_yes_and_no(cells, named=bool(request.columns))
        if values is not None:
            found[name] = values
        elif request.columns:
            bad = how_many(unreadable(cells, read_as(cells, "numeric")), len(cells), " are no numbers")
            raise UserError(f"{shown(origin)}: the value column '{shown(name)}' is not as in training: {bad}")
    if not found:
        raise UserError(
            f"{shown(origin)} has no column of numbers beside the named ones; expected the values of the "
            "sequences"
        )
    matrix = np.stack([cells.cast(pl.Float64).to_numpy() for cells in found.values()], axis=1)
    numbers, infinite = without_infinities(matrix)
    notes["infinite_values"] = infinite
    return tuple(found), numbers


def _empty_or_yes_and_no(cells: pl.Series, named: bool) -> pl.Series | None:
    """Cells of which none is filled, or all are words such as yes and no, on and
    off, as numbers; None for others.

    named: the words are no, and yes, also where there is one of them alone, as in new rows.
    """
    if cells.null_count() == len(cells):
        return cells.cast(pl.Float64)
    if not named and infer(cells, cells.head(10_000)).type != "boolean":
        return None
    words = conform(cells, Column(cells.name, "boolean", ""))[0]
    return words.cast(pl.Float64) if words.null_count() < len(words) else None


def _wide(
    frame: pl.DataFrame, numbers: NDArray[np.float32], columns: tuple[str, ...], request: Request
) -> Found:
    """Every column a point in time."""
    rows = RawRows(
        ArrayValues(numbers[:, None]),
        frame[request.target] if request.needs_target and request.target is not None else None,
        None if request.group_column is None else _texts(frame, request.group_column),
        () if request.id_column is None else tuple(_texts(frame, request.id_column).to_list()),
    )
    group = request.group_column if rows.groups is not None else None
    return Found(
        "sequence", "", "", str(request.target), (1, len(columns)), rows,
        group_column=group, columns=columns, id_column=request.id_column,
    )  # fmt: skip


def _texts(frame: pl.DataFrame, column: str) -> pl.Series:
    if column not in frame.columns:
        return pl.Series(column, [""] * frame.height)
    return frame[column].cast(pl.String).fill_null("")


def _long(
    frame: pl.DataFrame,
    numbers: NDArray[np.float32],
    columns: tuple[str, ...],
    ids: pl.Series,
    origin: str,
    request: Request,
    notes: dict[str, int],
) -> Found:
    """One row per point: those of one id, in the order of their times, are a
    sequence with a channel per column."""
    if without := ids.null_count():
        notes["rows_without_id"] = without
    codes = ids.cast(pl.String).to_frame("id").with_row_index("row").filter(pl.col("id").is_not_null())
    steps = None
    if request.time_column is not None:
        times = read_times(frame[request.time_column])
        codes = codes.with_columns(times.gather(codes["row"]).alias("time"))
        untimed = codes["time"].null_count()
        notes["rows_without_time"] = untimed
        notes["repeated_times"] = (
            codes.height - untimed - codes.drop_nulls("time").select("id", "time").n_unique()
        )
        codes = codes.drop_nulls("time").sort("time", maintain_order=True)
        steps = _time_steps(codes)
    by_id = codes.group_by("id").agg("row", pl.col("row").min().alias("first")).sort("first")
    if not by_id.height:
        raise UserError(
            f"{shown(origin)}: no row has both an id and a time; expected them in '{shown(ids.name)}' and "
            "beside it"
        )
    names = tuple(by_id["id"].to_list())
    members = [np.asarray(rows, np.int64) for rows in by_id["row"].to_list()]
    longest = max(len(rows) for rows in members)
    size = len(members) * longest * len(columns) * 4
    if size > available_memory() // 2:
        raise UserError(
            f"{shown(origin)}: {len(members):,} sequences of up to {longest:,} points need {size:,} bytes, "
            "more than half of "
            f"the free memory; is '{shown(ids.name)}' the id of a sequence?"
        )
    values = padded([numbers[rows].T for rows in members], len(columns))
    answer = _constant_per_id(frame, request.target, names, members, origin) if request.needs_target else None
    groups = None
    if request.group_column is not None and request.group_column in frame.columns:
        groups = (
            _constant_per_id(frame, request.group_column, names, members, origin)
            .cast(pl.String)
            .fill_null("")
        )
    return Found(
        "sequence", "", "", str(request.target), (len(columns), longest),
        RawRows(ArrayValues(values), answer, groups, names),
        group_column=None if groups is None else request.group_column,
        columns=columns, id_column=request.id_column, order_column=request.time_column, steps=steps,
    )  # fmt: skip


def _time_steps(points: pl.DataFrame) -> TimeSteps | None:
    """The steps between the different times of each id; points: sorted by time."""
    steps = points.select(pl.col("time").diff().over("id"))["time"].drop_nulls()
    lengths = steps.to_physical().cast(pl.Float64).to_numpy()
    return TimeSteps.of(lengths[lengths > 0])  # a time that occurs twice is told by itself


def _constant_per_id(
    frame: pl.DataFrame,
    column: str | None,
    names: tuple[str, ...],
    members: list[NDArray[np.int64]],
    origin: str,
) -> pl.Series:
    """One cell per sequence; UserError when a sequence has two different ones."""
    cells = frame[str(column)]
    flat, owner = np.concatenate(members), np.repeat(np.arange(len(members)), [len(rows) for rows in members])
    pairs = pl.DataFrame({"owner": owner, "cell": cells.gather(flat)}).drop_nulls("cell")
    counts = pairs.group_by("owner").agg(pl.col("cell").n_unique().alias("count"), pl.col("cell").first())
    if several := counts.filter(pl.col("count") > 1).sort("owner").rows():
        raise UserError(
            f"{shown(origin)}: '{shown(column)}' has {several[0][1]} values within the sequence "
            f"'{shown(names[several[0][0]], 40)}' ({len(several):,} sequences have); expected one for each id"
        )
    whole = pl.DataFrame({"owner": np.arange(len(members))}).join(
        counts, on="owner", how="left", maintain_order="left"
    )
    return whole["cell"].alias(str(column))
