"""Files and frames -> typed columns, a target, training rows and test rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import TEXTS, labels, tally
from advisor.data.columns.column import Column, checked_type, conform, side_name
from advisor.data.columns.inference import infer
from advisor.data.columns.numbers import beyond
from advisor.data.columns.told import told_of_numbers, told_of_target, told_of_unreadable
from advisor.data.options import FileForm
from advisor.data.sources.reading import MAX_BYTES, read_source
from advisor.data.sources.source import Source
from advisor.data.tables.features import SAMPLE_ROWS, encode, frequent_words, level_codes
from advisor.data.tables.given_rows import given_test_rows
from advisor.data.tables.new_rows import known_spelling, usual
from advisor.data.tables.roles import checked_roles, helper_cells, rows_that_count, weight_cells
from advisor.data.tables.schema import MAX_LEVELS, NAMES, TableSchema, Usual
from advisor.data.tables.spellings import class_spellings, joined_cells, one_spelling
from advisor.data.tables.target import (
    ClassValues,
    asked_task,
    check_target,
    class_values,
    ordered_classes,
    read_target,
    written_values,
)
from advisor.data.tables.test_rows import check_tested, fingerprint_of, held_out_rows, row_keys
from advisor.data.tables.times import time_as_column, time_parts
from advisor.dataset import Dataset, Features
from advisor.errors import FormChange, UserError, shown
from advisor.kinds import TaskName
from advisor.tasks import RowTarget, Task, task_of

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


def load_table(
    source: str | Path | pl.DataFrame | pd.DataFrame,
    target: str,
    *,
    test: str | Path | pl.DataFrame | pd.DataFrame | None = None,
    types: Mapping[str, str] | None = None,
    task: TaskName | None = None,
    time_column: str | None = None,
    group_column: str | None = None,
    weight_column: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    strict: bool = False,
    join_spellings: bool | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Read a data set, infer its types and task, and set test rows apart.

    test: a table of test rows; else ``test_fraction`` of the rows is held out: the latest with
        ``time_column``, whole groups with ``group_column``, else at random with each class in its share.
        Which rows these are depends on their content and ``seed``, not on their order. With a fraction of 0
        all rows train, and nothing is tested.
    weight_column: how much a row counts in training and validation, 0 or more; rows of weight 0 are left out.
    types: column -> type, where the inference is to be overridden.
    strict: refuse a test table with a column that is unlike the training rows in form.
    join_spellings: read spellings of one category or class as one; None: those that differ in blanks,
        a final dot or the capitals of words.
    encoding: of text files that are not in Unicode, sheet: of spreadsheets; by default they are found out.
    max_bytes: largest uncompressed size of a file. UserError for everything that the user can fix.
    """
    file_form = FileForm(encoding, sheet)
    names = [name for name, wanted in (types or {}).items() if wanted in NAMES] + (
        [group_column] if group_column else []
    )
    read = with_names(read_source(source, max_bytes=max_bytes, form=file_form), names)
    special = checked_roles(
        read, target, types or {}, task, time_column, group_column, test_fraction, weight_column
    )
    notes = dict(read.notes)
    spellings = {target: class_spellings(read.frame[target], join_spellings)}
    cells = joined_cells(read.frame.select(target), spellings, notes)[target]
    chosen, keys_of_rows, form = read_target(
        cells, target, asked_task(task), notes, partial(read.as_written, target)
    )
    # in one piece: each look at a column of a file that was read in hundreds of pieces would copy it
    frame, answer = rows_that_count(read.frame.rechunk(), keys_of_rows, weight_column, notes)
    check_target(answer, chosen, target, read.frame.height, cells)
    time = None if time_column is None else time_as_column(frame[time_column])
    helpers = helper_cells(frame, group_column, time)
    keys = row_keys(frame.drop(special), seed)
    held = None
    if test is None and test_fraction:
        held = held_out_rows(answer, chosen, helpers, keys, test_fraction, seed)
    train_rows = np.arange(frame.height) if held is None else np.flatnonzero(~held)
    columns = _columns(frame.drop(special), train_rows, types or {}, target)
    typed = _conformed(frame, columns, notes).with_columns(
        answer, *helpers, *weight_cells(frame, weight_column)
    )
    # two filters copy in order: a third of the time of gathering the rows by number
    train, held_out = (typed, typed.clear()) if held is None else (typed.filter(~held), typed.filter(held))
    counts = {c.name: tally(train[c.name].drop_nulls()) for c in columns if c.type == "categorical"}
    told = _told(read, frame, columns, cells, chosen, counts, held_out, notes)
    train, of_levels = one_spelling(train, counts, join_spellings, notes)
    counts |= {name: tally(train[name].drop_nulls()) for name in of_levels}
    spellings = {name: one for name, one in (spellings | of_levels).items() if one}
    classes = ordered_classes(train[target]) if chosen.of_classes else ()
    given = (
        None if test is None else with_names(read_source(test, max_bytes=max_bytes, form=file_form), names)
    )
    if time is not None and given is not None and time.name not in given.frame.columns:
        time = None  # it tells the order of the training rows, and a model cannot ask for it
    parts = () if time is None else time_parts(train[time.name], time)
    levels = {name: tuple(sorted(own["value"].head(MAX_LEVELS).to_list())) for name, own in counts.items()}
    words = {column.name: frequent_words(train[column.name]) for column in columns if column.type == "text"}
    had = _usual(
        frame, None if held is None else ~held, train, columns if time is None else (*columns, time), counts
    )
    schema = TableSchema(
        columns,
        target,
        chosen.name,
        classes,
        levels,
        group_column,
        time_column,
        time,
        parts,
        form,
        words,
        had,
        spellings,
        join_spellings,
        read.encoding,
        read.sheet,
        _class_values(read, target, classes, keys_of_rows) if classes else None,
        weight_column,
    )
    changes: tuple[FormChange, ...] = ()
    if given is not None:
        held_out, changes = given_test_rows(given, schema, notes, strict=strict)
        there = set(given.frame.columns)
        shared = given.frame.select(name for name in typed.columns if name in there and name != target)
        keys = np.append(keys, row_keys(shared, seed=1))
    else:
        held_out = held_out.with_columns(
            known_spelling(held_out[name], levels[name], schema, name)[0] for name in levels
        )
        held_out = _of_known_class(held_out, target, classes, notes)
    check_tested(held_out.height, test is not None or test_fraction > 0)
    origin: Literal["file", "held-out"] = "held-out" if test is None else "file"
    keys = np.concatenate(
        [keys, *(cells.to_numpy().view(np.uint64) for cells in weight_cells(frame, weight_column))]
    )
    fingerprint = fingerprint_of(frame.drop(special), answer, keys)
    return Table(read.name, read.origin, fingerprint, schema, train, held_out, notes, origin, changes, told)


def _of_known_class(
    held_out: pl.DataFrame, target: str, classes: Sequence[str], notes: dict[str, int]
) -> pl.DataFrame:
    """Without rows held out by time or group whose class only they have: it cannot be learnt."""
    known = held_out[target].is_in(list(classes)) if classes else pl.Series([True])
    if known.all():
        return held_out
    notes["test_rows_of_unseen_class"] = int((~known).sum())
    return held_out.filter(known)


def _class_values(read: Source, target: str, classes: Sequence[str], keys: pl.Series) -> ClassValues | None:
    """The classes as the source has them.
    keys: of all its rows."""
    if read.texts is not None:
        return written_values(classes, keys, read.as_written(target))
    given = None if read.given is None else read.given.iloc[:, read.frame.columns.index(target)]
    return class_values(classes, keys, read.frame[target], given)


# ---------------------------------------------------------------------------------------------------- columns


def _columns(
    frame: pl.DataFrame, rows: NDArray[np.int64], types: Mapping[str, str], target: str
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
        found.append(infer(cells, sample[name], checked_type(name, types[name]) if name in types else None))
    if all(column.type in ("identifier", "constant") for column in found):
        first = found[0]
        raise UserError(
            f"no column is left to predict '{shown(target)}' from: '{shown(first.name, 40)}' is taken for "
            f"{first.type} ({first.why}); types can say otherwise"
        )
    names = set(frame.columns)
    return tuple(replace(c, limits=False) if side_name(c.name) in names else c for c in found)


def _conformed(frame: pl.DataFrame, columns: Sequence[Column], notes: dict[str, int]) -> pl.DataFrame:
    series = []
    for column in columns:
        cells, counts = conform(frame[column.name], column)
        series.append(cells)
        if column.limits:
            series.append(beyond(frame[column.name]).alias(side_name(column.name)))
        for what, count in counts.items():
            notes[what] = notes.get(what, 0) + count
    return pl.DataFrame(series)


def _told(
    read: Source,
    frame: pl.DataFrame,
    columns: Sequence[Column],
    target: pl.Series,
    task: Task,
    counts: Mapping[str, pl.DataFrame],
    held_out: pl.DataFrame,
    notes: Mapping[str, int],
) -> dict[str, str]:
    """What to know of how the source was read: code -> sentence.
    counts: tallies of the categories of the rows that are not held out."""
    of_all_rows = {name: _with_rows(own, held_out[name]) for name, own in counts.items()}
    told = read.told | told_of_numbers(frame, columns, of_all_rows) | told_of_target(target, task)
    return told | (told_of_unreadable(frame, columns) if "junk_values" in notes else {})


def _with_rows(counts: pl.DataFrame, more: pl.Series) -> pl.DataFrame:
    """A tally with the cells of further rows in it."""
    both = pl.concat([counts, tally(more.drop_nulls())]).group_by("value").agg(pl.col("rows").sum())
    return both.sort("rows", "value", descending=[True, False])


def _usual(
    frame: pl.DataFrame,
    mask: NDArray[np.bool_] | None,
    train: pl.DataFrame,
    columns: Sequence[Column],
    counts: Mapping[str, pl.DataFrame],
) -> dict[str, Usual]:
    """What the training rows have in each column that is used.
    mask: which rows of the frame these are (None: all);
    counts: tallies of categories."""
    had = {}
    for column in columns:
        if column.type not in ("identifier", "constant"):
            cells = frame[column.name]
            cells = cells if mask is None or cells.dtype not in TEXTS else cells.filter(mask)
            had[column.name] = usual(cells, train[column.name], column, counts.get(column.name), MAX_LEVELS)
    return had


def _ranks(frame: pl.DataFrame, column: str | None) -> NDArray[np.int64] | None:
    if column is None or column not in frame.columns:
        return None
    return frame[column].rank("dense").to_numpy().astype(np.int64) - 1
