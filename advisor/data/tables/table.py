"""Files and frames -> typed columns, a target, training rows and test rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import TEXTS, labels, tally
from advisor.data.columns.column import Column, conform, side_name
from advisor.data.columns.inference import infer
from advisor.data.columns.numbers import beyond
from advisor.data.columns.told import told_of_numbers, told_of_target, told_of_unreadable
from advisor.data.options import DEFAULT_OPTIONS, FileForm, ReadingOptions
from advisor.data.sources.reading import MAX_BYTES, read_source
from advisor.data.sources.source import Source, summed_notes
from advisor.data.tables.calendar import cycles_of, working_days
from advisor.data.tables.features import SAMPLE_ROWS, encode, frequent_words, level_codes
from advisor.data.tables.given_rows import given_test_rows
from advisor.data.tables.new_rows import known_spelling, usual
from advisor.data.tables.roles import checked_roles, helper_cells, rows_that_count, weight_cells
from advisor.data.tables.schema import MAX_LEVELS, NAMES, TableSchema, Usual
from advisor.data.tables.spellings import class_spellings, joined_cells, one_spelling
from advisor.data.tables.target import (
    ClassValues,
    ReadTarget,
    check_target,
    class_values,
    ordered_classes,
    read_target,
    written_values,
)
from advisor.data.tables.test_rows import ScoredRows, check_tested, fingerprint_of, held_out_rows, row_keys
from advisor.data.tables.times import time_as_column, time_parts
from advisor.dataset import Dataset, Features
from advisor.errors import FormChange, UserError, shown
from advisor.kinds import ColumnType
from advisor.tasks import RowTarget, task_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """A data set, read, typed and divided.

    fingerprint: 32 hex digits of the content (not of the order of rows or columns,
        not of a given test table's target).
    train, test: the feature columns as ``conform`` leaves them, the target (String labels or
        Float64), and the group and time columns; rows stand in the order of the source,
        those without a target are left out.
    notes: what was repaired or left out, as counts.
    changes: columns of a given test table that are unlike the training rows in form.
    told: what else to know of how the file was read, as code -> sentence.
    """

    name: str
    source: str
    fingerprint: str
    schema: TableSchema
    train: pl.DataFrame
    test: pl.DataFrame
    notes: dict[str, int]
    test_origin: Literal["file", "held-out"]
    changes: tuple[FormChange, ...] = ()
    told: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        target = f"target '{self.schema.target}' ({self.schema.task})"
        return (
            f"<Table '{self.name}': {self.train.height:,} training and {self.test.height:,} test rows, "
            f"{target}>"
        )

    @property
    def frame(self) -> pl.DataFrame:
        """The training rows as a frame."""
        return self.train

    def test_inputs(self) -> pl.DataFrame:
        """The test rows without their target."""
        return self.test.drop(self.schema.target)

    def dataset(self, part: Literal["train", "test"]) -> Dataset[RowTarget, Features]:
        """One part as arrays, in row order."""
        frame, schema = (self.train if part == "train" else self.test), self.schema
        target: NDArray[np.int64] | NDArray[np.float64]
        task = task_of(schema.task)
        if not task.of_classes:
            target = frame[schema.target].to_numpy().astype(np.float64)
        else:
            target = level_codes(frame[schema.target], schema.classes).astype(np.int64)
        weights = None
        if schema.weight_column is not None and part == "train":
            counts = frame[schema.weight_column].to_numpy()
            weights = counts / counts.mean()
        return Dataset(
            features=encode(frame, schema),
            target=target,
            task=task,
            classes=schema.classes,
            groups=_ranks(frame, schema.group_column),
            times=_ranks(frame, schema.time_column),
            weights=weights,
            training_weights=weights,
        )


def read_frame(
    source: str | Path | pl.DataFrame | pd.DataFrame,
    names: Collection[str] = (),
    *,
    max_bytes: int = MAX_BYTES,
    form: FileForm | None = None,
) -> pl.DataFrame:
    """Any source as it is, nothing interpreted, column names made unique; UserError when it cannot be read.

    names: columns whose cells are names, even where they look like numbers.
    """
    return with_names(read_source(source, max_bytes=max_bytes, form=form), names).frame


def with_names(read: Source, names: Collection[str]) -> Source:
    """The source with the cells of these columns as they are written, where their
    numbers would tell less (1.10 and 1.1)."""
    texts = []
    for name in names:
        if name in read.frame.columns and read.frame.schema[name].is_float():
            plain, written = labels(read.frame[name]), read.as_written(name)
            if (
                written.dtype == pl.String
                and "." in "".join(plain.head(100).drop_nulls())
                and not written.equals(plain)
            ):
                texts.append(written)
    return replace(read, frame=read.frame.with_columns(texts)) if texts else read


@dataclass(frozen=True)
class _Answered:
    """The rows that have a target and a weight.

    frame: these rows as they are in the source.
    target: how the target was read, of all rows of the source.
    answer: of the rows of ``frame``.
    given: the target of all rows with one spelling of each class, and ``spellings`` those that were joined.
    notes: what was joined or left out, as counts.
    """

    frame: pl.DataFrame
    target: ReadTarget
    answer: pl.Series
    given: pl.Series
    spellings: Mapping[str, str]
    notes: Mapping[str, int]


@dataclass(frozen=True)
class _Divided:
    """Training rows and rows that are held out, typed.

    time: how the time column is read, None without one.
    keys: a number for each row, made of its content.
    held: which rows are held out, None where all train.
    notes: cells that were repaired, as counts.
    """

    time: Column | None
    keys: NDArray[np.uint64]
    held: NDArray[np.bool_] | None
    columns: tuple[Column, ...]
    train: pl.DataFrame
    held_out: pl.DataFrame
    notes: Mapping[str, int]


def load_table(
    source: str | Path | pl.DataFrame | pd.DataFrame,
    target: str,
    options: ReadingOptions = DEFAULT_OPTIONS,
    *,
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Read a data set, infer its types and task, and set test rows apart.

    max_bytes: largest uncompressed size of a file. UserError for everything that the user can fix.
    """
    read = _source(source, options, max_bytes)
    roles = checked_roles(read, target, options)
    rows = _answered(read, target, options)
    features = rows.frame.drop(roles)
    parts = _divided(rows, features, options)
    counts = _tallies(parts.train, (column.name for column in parts.columns if column.type == "categorical"))
    told = _told(read, rows, parts, counts)
    train, spellings, joined = one_spelling(parts.train, counts, options.join_spellings)
    counts |= _tallies(train, spellings)
    given = None if options.test is None else _source(options.test, options, max_bytes)
    parts = replace(parts, train=train, time=_kept_time(parts.time, given))
    schema = _schema(read, rows, parts, counts, spellings, options)
    tested = _tested(parts, schema, given, options)
    return Table(
        name=read.name,
        source=read.origin,
        fingerprint=_fingerprint(rows, features, parts, given, options),
        schema=schema,
        train=train,
        test=tested.frame,
        notes=summed_notes(read.notes, rows.notes, parts.notes, joined, tested.notes),
        test_origin="held-out" if given is None else "file",
        changes=tested.changes,
        told=told,
    )


def _source(source: Any, options: ReadingOptions, max_bytes: int) -> Source:
    """A source of training or test rows, with the columns of names as they are written."""
    if options.channels is not None:
        raise UserError("--channels is for arrays of sequences: a table has none")
    names = [name for name, wanted in options.types.items() if wanted in NAMES]
    names += [options.group_column] if options.group_column else []
    return with_names(read_source(source, max_bytes=max_bytes, form=options.form), names)


def _answered(read: Source, target: str, options: ReadingOptions) -> _Answered:
    asked = None if options.task is None else task_of(options.task)
    spellings = class_spellings(read.frame[target], options.join_spellings)
    frame, joined = joined_cells(read.frame.select(target), {target: spellings})
    given = frame[target]
    found = read_target(given, target, asked, partial(read.as_written, target))
    # in one piece: each look at a column of a file that was read in hundreds of pieces would copy it
    rows, answer, left_out = rows_that_count(read.frame.rechunk(), found, options.weight_column)
    check_target(answer, found.task, target, read.frame.height, given)
    notes = summed_notes(joined, found.notes, left_out)
    return _Answered(rows, found, answer, given, spellings, notes)


def _divided(rows: _Answered, features: pl.DataFrame, options: ReadingOptions) -> _Divided:
    """Which rows are held out, the types of the features as the others show them, and both so read."""
    frame, answer = rows.frame, rows.answer
    time = None if options.time_column is None else time_as_column(frame[options.time_column])
    helpers = helper_cells(frame, options.group_column, time)
    keys, held = row_keys(features, options.seed), None
    if options.test is None and options.test_fraction:
        held = held_out_rows(answer, rows.target.task, helpers, keys, options.test_fraction, options.seed)
    train_rows = np.arange(frame.height) if held is None else np.flatnonzero(~held)
    columns = _columns(features, train_rows, options.types, answer.name)
    typed, notes = _conformed(frame, columns)
    typed = typed.with_columns(answer, *helpers, *weight_cells(frame, options.weight_column))
    # two filters copy in order: a third of the time of gathering the rows by number
    train, held_out = (typed, typed.clear()) if held is None else (typed.filter(~held), typed.filter(held))
    return _Divided(time, keys, held, columns, train, held_out, notes)


def _tallies(train: pl.DataFrame, names: Iterable[str]) -> dict[str, pl.DataFrame]:
    return {name: tally(train[name].drop_nulls()) for name in names}


def _kept_time(time: Column | None, given: Source | None) -> Column | None:
    """The time column, unless given test rows have none: then it tells the order of the training rows, and a
    model cannot ask for it."""
    return None if time is None or (given is not None and time.name not in given.frame.columns) else time


def _schema(
    read: Source,
    rows: _Answered,
    parts: _Divided,
    counts: Mapping[str, pl.DataFrame],
    spellings: Mapping[str, dict[str, str]],
    options: ReadingOptions,
) -> TableSchema:
    """How new rows are read as these were.
    counts: tallies of the categories; spellings: of categories that were joined, by column."""
    target, train, time = rows.answer.name, parts.train, parts.time
    classes = ordered_classes(train[target]) if rows.target.task.of_classes else ()
    texts = [column.name for column in parts.columns if column.type == "text"]
    joined = {target: dict(rows.spellings), **spellings}
    parts_of_time = () if time is None else time_parts(train[time.name], time)
    return TableSchema(
        columns=parts.columns,
        target=target,
        task=rows.target.task.name,
        classes=classes,
        levels={name: tuple(sorted(own["value"].head(MAX_LEVELS).to_list())) for name, own in counts.items()},
        group_column=options.group_column,
        time_column=options.time_column,
        time=time,
        time_parts=parts_of_time,
        target_format=rows.target.form,
        words={name: frequent_words(train[name]) for name in texts},
        usual=_usual(rows.frame, parts, counts),
        spellings={name: one for name, one in joined.items() if one},
        join_spellings=options.join_spellings,
        encoding=read.encoding,
        sheet=read.sheet,
        given=_class_values(read, target, classes, rows.target.answer) if classes else None,
        weight_column=options.weight_column,
        calendar=cycles_of(parts.columns, train, parts_of_time),
        working=working_days(parts.columns),
    )


def _tested(
    parts: _Divided, schema: TableSchema, given: Source | None, options: ReadingOptions
) -> ScoredRows:
    """The test rows: those of a given table, else those that are held out."""
    if given is None:
        tested = _held_out(parts, schema)
    else:
        tested = given_test_rows(given, schema, strict=options.strict)
    check_tested(tested.frame.height, options.tested)
    return tested


def _held_out(parts: _Divided, schema: TableSchema) -> ScoredRows:
    """The rows that are held out, with the spellings of the training rows; without those, held out by time or
    group, whose class only they have: it cannot be learnt."""
    frame = parts.held_out.with_columns(
        known_spelling(parts.held_out[name], levels, schema, name)[0]
        for name, levels in schema.levels.items()
    )
    known = frame[schema.target].is_in(list(schema.classes)) if schema.classes else pl.Series([True])
    if known.all():
        return ScoredRows(frame)
    return ScoredRows(frame.filter(known), notes={"test_rows_of_unseen_class": int((~known).sum())})


def _fingerprint(
    rows: _Answered, features: pl.DataFrame, parts: _Divided, given: Source | None, options: ReadingOptions
) -> str:
    """Of the content of all rows, without the target of given test rows."""
    keys = [parts.keys]
    if given is not None:
        there = set(given.frame.columns)
        known = [name for name in parts.train.columns if name in there and name != rows.answer.name]
        keys.append(row_keys(given.frame.select(known), seed=1))
    weights = weight_cells(rows.frame, options.weight_column)
    keys += [cells.to_numpy().view(np.uint64) for cells in weights]
    return fingerprint_of(features, rows.answer, np.concatenate(keys))


def _class_values(read: Source, target: str, classes: Sequence[str], keys: pl.Series) -> ClassValues | None:
    """The classes as the source has them.
    keys: of all its rows."""
    if read.texts is not None:
        return written_values(classes, keys, read.as_written(target))
    given = None if read.given is None else read.given.iloc[:, read.frame.columns.index(target)]
    return class_values(classes, keys, read.frame[target], given)


# ---------------------------------------------------------------------------------------------------- columns


def _columns(
    frame: pl.DataFrame, rows: NDArray[np.int64], types: Mapping[str, ColumnType], target: str
) -> tuple[Column, ...]:
    """Types of the feature columns, judged on training rows only."""
    whole = len(rows) == frame.height
    picked = (
        rows[np.linspace(0, len(rows) - 1, SAMPLE_ROWS).astype(np.int64)] if len(rows) > SAMPLE_ROWS else rows
    )
    sample = frame if len(picked) == frame.height else frame[picked]
    found = []
    for name in frame.columns:
        cells = frame[name] if whole or len(rows) > SAMPLE_ROWS else sample[name]
        found.append(infer(cells, sample[name], types.get(name)))
    if all(column.type in ("identifier", "constant") for column in found):
        first = found[0]
        raise UserError(
            f"no column is left to predict '{shown(target)}' from: '{shown(first.name, 40)}' was read as "
            f"{first.type} ({first.why}); set its type with types"
        )
    names = set(frame.columns)
    return tuple(replace(c, limits=False) if side_name(c.name) in names else c for c in found)


def _conformed(frame: pl.DataFrame, columns: Sequence[Column]) -> tuple[pl.DataFrame, dict[str, int]]:
    series, counts = [], []
    for column in columns:
        cells, repaired = conform(frame[column.name], column)
        series.append(cells)
        counts.append(repaired)
        if column.limits:
            series.append(beyond(frame[column.name]).alias(side_name(column.name)))
    return pl.DataFrame(series), summed_notes(*counts)


def _told(
    read: Source, rows: _Answered, parts: _Divided, counts: Mapping[str, pl.DataFrame]
) -> dict[str, str]:
    """What to know of how the source was read: code -> sentence.
    counts: tallies of the categories of the rows that are not held out."""
    frame, columns = rows.frame, parts.columns
    of_all_rows = {name: _with_rows(own, parts.held_out[name]) for name, own in counts.items()}
    told = read.told | told_of_numbers(frame, columns, of_all_rows)
    told |= told_of_target(rows.given, rows.target.task)
    return told | (told_of_unreadable(frame, columns) if "junk_values" in parts.notes else {})


def _with_rows(counts: pl.DataFrame, more: pl.Series) -> pl.DataFrame:
    """A tally with the cells of further rows in it."""
    both = pl.concat([counts, tally(more.drop_nulls())]).group_by("value").agg(pl.col("rows").sum())
    return both.sort("rows", "value", descending=[True, False])


def _usual(frame: pl.DataFrame, parts: _Divided, counts: Mapping[str, pl.DataFrame]) -> dict[str, Usual]:
    """What the training rows have in each column that is used.
    counts: tallies of categories."""
    had = {}
    mask = None if parts.held is None else ~parts.held
    for column in parts.columns if parts.time is None else (*parts.columns, parts.time):
        if column.type not in ("identifier", "constant"):
            name, cells = column.name, frame[column.name]
            cells = cells if mask is None or cells.dtype not in TEXTS else cells.filter(mask)
            had[name] = usual(cells, parts.train[name], column, counts.get(name), MAX_LEVELS)
    return had


def _ranks(frame: pl.DataFrame, column: str | None) -> NDArray[np.int64] | None:
    if column is None or column not in frame.columns:
        return None
    return frame[column].rank("dense").to_numpy().astype(np.int64) - 1
