"""Files and frames -> typed columns, a target, training rows and test rows, and
arrays for the training layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.column import (
    MOSTLY,
    TEXTS,
    Column,
    ColumnType,
    beyond,
    checked_type,
    conform,
    format_of_numbers,
    how_many,
    infer,
    labels,
    number_format,
    read_as,
    side_name,
    tally,
    told_of_numbers,
    told_of_target,
    told_of_unreadable,
    unreadable,
)
from advisor.data.sources.reading import MAX_BYTES, FileForm, Source, read_source, shown, with_unique_names
from advisor.data.tables.new_rows import Usual, known_spelling, read_new, usual
from advisor.data.tables.spellings import joins_of, replaced, respelled
from advisor.data.tables.target import (
    LONELY,
    MIN_ROWS,
    ClassValues,
    asked_task,
    check_target,
    class_values,
    finite_numbers,
    known_classes,
    ordered_classes,
    read_target,
    written_values,
)
from advisor.data.tables.test_rows import (
    check_fraction,
    check_tested,
    fingerprint_of,
    held_out_rows,
    row_keys,
)
from advisor.dataset import MISSING, UNSEEN, Dataset, Features
from advisor.errors import FormChange, UserError, did_you_mean
from advisor.kinds import Kind, TaskName
from advisor.tasks import RowTarget, Task, task_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Column", "ColumnType", "Table", "TableSchema", "encode", "load_table", "read_frame"]

NAMES: tuple[ColumnType, ...] = ("categorical", "identifier", "text")
"""The types whose cells are no quantities."""
MAX_LEVELS = 10_000
"""A categorical column keeps so many levels, the most frequent ones; the rest are UNSEEN."""
SAMPLE_ROWS = 20_000
"""Types are judged on at most so many training rows."""
MAX_WORDS = 64
"""A text column becomes so many words at most, the most frequent ones, beside its length."""
WORD_ROWS, WORD_SHARE, COMMON_WORD = 5, 0.005, 0.5
"""A word that fewer training rows have, or a smaller share of them, or a larger one
than COMMON_WORD, is none of these."""
HASHED_WORDS = 32
"""Columns that a text became in models of before its words were chosen."""
CYCLES = {"month": 365.0, "day": 31.0, "weekday": 7.0, "hour": 1.0}
"""Parts of a date that come round, and the days that one round takes."""
ROUNDS = 2
"""Training rows must span so many rounds: what was seen once cannot be told from the trend."""


@dataclass(frozen=True)
class TableSchema:
    """All that is needed to read new rows in the same way.

    classes: labels in code order, () for regression.
    levels: categorical column -> sorted levels of the training rows. The group and the time
        column are not among the columns: a group is a name, and a time beyond the training
        rows is one that no network has seen.
    time: how the time column's cells are read.
    time_parts: the numeric arrays that it becomes nevertheless: what comes round in a date (``CYCLES``), and
        the time itself, which a network reads as ``time_trend`` says; () in models of before there was any.
    target_format: how a regression target's text is read, as ``Column.format``;
        predictions are plain numbers.
    usual: what the training rows had in a column; {} in models of before.
    given: the classes as they were given, in which predictions are; None for
        regression and in models of before.
    spellings: of categories and classes (the target) that are read as another one;
    join_spellings: whether those of new rows are.
    encoding, sheet: of the training rows' file, as ``Source`` has them.
    weight_column: how much each training row counts; new rows need none.
    """

    columns: tuple[Column, ...]
    target: str
    task: TaskName
    classes: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    group_column: str | None = None
    time_column: str | None = None
    time: Column | None = None
    time_parts: tuple[str, ...] = ()
    target_format: str = ""
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    usual: dict[str, Usual] = field(default_factory=dict)
    spellings: dict[str, dict[str, str]] = field(default_factory=dict)
    join_spellings: bool | None = None
    encoding: str = ""
    sheet: str = ""
    given: ClassValues | None = None
    weight_column: str | None = None

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        return "table"

    @property
    def form(self) -> FileForm:
        """How files of new rows are read, where they do not say so."""
        return FileForm(self.encoding or None, self.sheet or None, remembered=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of names that were text in training: those of new rows are text,
        even where they look like numbers."""
        of_names = self.of_type(*NAMES)
        return tuple(c.name for c in of_names if c.name in self.usual and self.usual[c.name].stored == "text")

    def of_type(self, *types: ColumnType) -> tuple[Column, ...]:
        """The columns of these types, in order."""
        return tuple(column for column in self.columns if column.type in types)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        return asdict(self) | {
            "columns": [asdict(column) for column in self.columns],
            "classes": list(self.classes),
            "levels": {name: list(levels) for name, levels in self.levels.items()},
            "words": {name: list(words) for name, words in self.words.items()},
            "time_parts": list(self.time_parts),
            "usual": {name: asdict(had) for name, had in self.usual.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TableSchema:
        """The schema that ``to_dict`` wrote."""
        return cls(
            columns=tuple(Column(**column) for column in data["columns"]),
            target=data["target"],
            task=data["task"],
            classes=tuple(data["classes"]),
            levels={name: tuple(levels) for name, levels in data["levels"].items()},
            group_column=data["group_column"],
            time_column=data["time_column"],
            time=Column(**data["time"]) if data.get("time") else None,
            time_parts=tuple(data.get("time_parts", ())),
            target_format=data.get("target_format", ""),
            words={name: tuple(words) for name, words in data.get("words", {}).items()},
            usual={name: Usual(**had) for name, had in data.get("usual", {}).items()},
            given=ClassValues(**data["given"]) if data.get("given") else None,
            spellings={name: dict(joined) for name, joined in data.get("spellings", {}).items()},
            join_spellings=data.get("join_spellings"),
            encoding=data.get("encoding", ""),
            sheet=data.get("sheet", ""),
            weight_column=data.get("weight_column"),
        )


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
    special = _check_request(
        read, target, types or {}, task, time_column, group_column, test_fraction, weight_column
    )
    notes = dict(read.notes)
    spellings = {target: _class_spellings(read.frame[target], join_spellings)}
    cells = _joined(read.frame.select(target), spellings, notes)[target]
    chosen, keys_of_rows, form = read_target(
        cells, target, asked_task(task), notes, partial(read.as_written, target)
    )
    # in one piece: each look at a column of a file that was read in hundreds of pieces would copy it
    frame, answer = _that_count(read.frame.rechunk(), keys_of_rows, weight_column, notes)
    check_target(answer, chosen, target, read.frame.height, cells)
    time = None if time_column is None else _time_as_column(frame[time_column])
    helpers = _helpers(frame, group_column, time)
    keys = row_keys(frame.drop(special), seed)
    held = None
    if test is None and test_fraction:
        held = held_out_rows(answer, chosen, helpers, keys, test_fraction, seed)
    train_rows = np.arange(frame.height) if held is None else np.flatnonzero(~held)
    columns = _columns(frame.drop(special), train_rows, types or {}, target)
    typed = _conformed(frame, columns, notes).with_columns(answer, *helpers, *_counted(frame, weight_column))
    # two filters copy in order: a third of the time of gathering the rows by number
    train, held_out = (typed, typed.clear()) if held is None else (typed.filter(~held), typed.filter(held))
    counts = {c.name: tally(train[c.name].drop_nulls()) for c in columns if c.type == "categorical"}
    told = _told(read, frame, columns, cells, chosen, counts, held_out, notes)
    train, of_levels = _one_spelling(train, counts, join_spellings, notes)
    counts |= {name: tally(train[name].drop_nulls()) for name in of_levels}
    spellings = {name: one for name, one in (spellings | of_levels).items() if one}
    classes = ordered_classes(train[target]) if chosen.of_classes else ()
    given = (
        None if test is None else with_names(read_source(test, max_bytes=max_bytes, form=file_form), names)
    )
    if time is not None and given is not None and time.name not in given.frame.columns:
        time = None  # it tells the order of the training rows, and a model cannot ask for it
    parts = () if time is None else _time_parts(train[time.name], time)
    levels = {name: tuple(sorted(own["value"].head(MAX_LEVELS).to_list())) for name, own in counts.items()}
    words = {column.name: _frequent_words(train[column.name]) for column in columns if column.type == "text"}
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
        held_out, changes = _test_rows(given, schema, notes, strict=strict)
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
        [keys, *(cells.to_numpy().view(np.uint64) for cells in _counted(frame, weight_column))]
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


# --------------------------------------------------------------------------------------------------- requests


def _check_request(
    read: Source,
    target: str,
    types: Mapping[str, str],
    task: str | None,
    time_column: str | None,
    group_column: str | None,
    test_fraction: float,
    weight_column: str | None,
) -> list[str]:
    """The columns that are no features, after everything that was asked for has
    been checked against the frame."""
    frame = read.frame
    named = {"time": time_column, "group": group_column, "weight": weight_column}
    for role, name in {"target": target, **{f"{role} column": name for role, name in named.items()}}.items():
        if name is not None and name not in frame.columns:
            raise UserError(_absent(role, str(name), read))
    asked_task(task)
    for role, name in named.items():
        if name == target:
            raise UserError(f"the {role} column '{shown(name)}' is the target; name another column, or none")
    if time_column is not None and group_column is not None:
        raise UserError(
            f"both a time column ('{shown(time_column)}') and a group column ('{shown(group_column)}') are "
            "given; "
            "rows can be held out by one of them: leave the other out"
        )
    check_fraction(test_fraction)
    special = [name for name in (target, *named.values()) if name is not None]
    for name, wanted in types.items():
        if name not in frame.columns:
            near = did_you_mean(name, frame.columns)
            raise UserError(f"types: {shown(read.origin)} has no column '{shown(name)}'{shown(near)}")
        if name in special:
            raise UserError(
                f"types: '{shown(name)}' is the target, time, group or weight column and has no feature type"
            )
        checked_type(name, wanted)
    if not frame.height:
        raise UserError(f"{shown(read.origin, 200)} has a header and no rows; at least {MIN_ROWS} are needed")
    if not set(frame.columns) - set(special):
        raise UserError(
            f"{shown(read.origin, 200)} has no column besides {_or(special)}; nothing is left to learn from"
        )
    return special


def _that_count(
    frame: pl.DataFrame, answer: pl.Series, weight_column: str | None, notes: dict[str, int]
) -> tuple[pl.DataFrame, pl.Series]:
    """The rows that have a target and a weight, and their targets."""
    if missing := answer.null_count() - notes.get(LONELY, 0):
        notes["rows_without_target"] = missing
    if weight_column is not None:
        weights = _weights(frame[weight_column])
        frame, answer = frame.with_columns(weights), answer.set(weights == 0, None)
        notes["rows_without_weight"] = int((weights == 0).sum())
    if not answer.null_count():
        return frame, answer
    return frame.filter(answer.is_not_null()), answer.drop_nulls()


def _counted(frame: pl.DataFrame, weight_column: str | None) -> list[pl.Series]:
    return [] if weight_column is None else [frame[weight_column]]


def _weights(cells: pl.Series) -> pl.Series:
    """How much each row counts, as numbers; UserError for what is no weight."""
    weights = finite_numbers(cells, number_format(cells))
    expected = "expected a number of 0 or more in every row"
    named = f"the weight column '{shown(cells.name)}'"
    if weights is None or weights.null_count():
        raise UserError(f"{named} has cells that are no numbers; {expected}")
    numbers = weights.to_numpy()
    if numbers.min() < 0 or not numbers.max() > 0:
        spread = f"{numbers.min():g} to {numbers.max():g}"
        raise UserError(f"{named} has values from {spread}; {expected}, and more than 0 in some")
    return weights.cast(pl.Float64).alias(cells.name)


def _or(names: Sequence[str]) -> str:
    some = [shown(name, 40) for name in names]
    return " or ".join([", ".join(some[:-1]), some[-1]] if some[1:] else some)


def _absent(role: str, name: str, read: Source) -> str:
    columns = read.frame.columns
    text = f"{shown(read.origin, 200)} has no {role} '{shown(name)}'{shown(did_you_mean(name, columns))}"
    if other := read.told.get("other-sheets"):
        text = f"{text}. {other} Its columns"
        some = ", ".join(shown(column, 30) for column in columns[:8])
        return f"{text} are {some}{' and more' if columns[8:] else ''}"
    if len(columns) == 1:
        return (
            f"{text}; its only column is '{shown(columns[0])}': expected comma, semicolon, tab or | "
            "between columns"
        )
    of_file = read.texts is not None
    if of_file and all(
        column.replace(".", "").lstrip("+-").isdigit() or column.startswith("column_") for column in columns
    ):
        return f"{text}; its first line looks like data: expected a header line with the columns' names"
    some = ", ".join(f"'{shown(column, 30)}'" for column in columns[:8])
    return f"{text}; its columns are {some}{' and more' if columns[8:] else ''}"


# -------------------------------------------------------------------------------------------------- test rows


def _test_rows(
    given: Source, schema: TableSchema, notes: dict[str, int], *, strict: bool
) -> tuple[pl.DataFrame, tuple[FormChange, ...]]:
    """The test table, read by the schema of the training rows, and what is unlike them in it."""
    needed = [column.name for column in schema.columns if column.type not in ("identifier", "constant")]
    there = set(given.frame.columns)
    if missing := [name for name in [*needed, schema.target] if name not in there]:
        if len(missing) == len(needed) + 1 and given.frame.width > len(needed):
            first = ", ".join(shown(name, 30) for name in given.frame.columns[:4])
            raise UserError(
                f"the test table {shown(given.origin, 200)} has none of the training table's columns; its "
                "first line "
                f"({first}, ...) looks like data: put the header line of the training table above it"
            )
        raise UserError(_lacking(f"the test table {shown(given.origin, 200)}", missing, given.frame.columns))
    cells = given.frame[schema.target]
    if not task_of(schema.task).of_classes:
        # as the training rows', but where that was plain and these are not: they are of the same quantity
        numbers = finite_numbers(cells, schema.target_format or number_format(cells))
        if numbers is None or not numbers.count():
            bad = how_many(unreadable(cells, read_as(cells, "numeric")), len(cells), " are no numbers")
            raise UserError(
                f"the test table's target '{shown(schema.target)}' is not as the training rows': {bad}"
            )
        answer = numbers
        respelt: list[FormChange] = []
    else:
        texts = known_classes(labels(given.as_written(schema.target)), schema.classes)
        answer, respelt = known_spelling(texts, schema.classes, schema, schema.target)
        known = [*schema.classes, None]
        new = sorted(set(answer.unique()) - set(known))
        strange = answer.is_in(new)
        if new and bool((strange | answer.is_null()).all()):
            near = respelled(new, schema.classes, join=True).get(new[0])
            joining = f"'{shown(near or '', 40)}' is spelled otherwise: --join-spellings joins them"
            ask = "is it the same column?" if near is None else joining
            raise UserError(
                f"the test table's target has class '{shown(new[0], 40)}', which no training row has "
                f"(known: {_or(schema.classes[:8])}), and no other; {ask}"
            )
        if new:
            notes["test_rows_of_unseen_class"] = int(strange.sum())
            answer = answer.set(strange, None)  # cannot be learnt, so it cannot be scored
    filled = answer.is_not_null()
    if lost := int((~filled).sum()) - notes.get("test_rows_of_unseen_class", 0):
        notes["test_rows_without_target"] = lost
    frame, changes = read_new(given.frame, schema, strict=strict)
    changes = (*respelt, *changes)
    group = schema.group_column if schema.group_column in given.frame.columns else None
    extra = _helpers(given.frame, group, None)
    if schema.time is not None:
        extra.append(_without_gaps(frame[schema.time.name]))
    return frame.with_columns(answer.alias(schema.target), *extra).filter(filled), changes


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


def _one_spelling(
    train: pl.DataFrame, counts: Mapping[str, pl.DataFrame], join: bool | None, notes: dict[str, int]
) -> tuple[pl.DataFrame, dict[str, dict[str, str]]]:
    """The training rows with one spelling of each category, and each column's spellings that were joined.
    counts: tallies of the categories."""
    found = {name: joined for name, own in counts.items() if (joined := joins_of(own, join))}
    return _joined(train, found, notes), found


def _with_rows(counts: pl.DataFrame, more: pl.Series) -> pl.DataFrame:
    """A tally with the cells of further rows in it."""
    both = pl.concat([counts, tally(more.drop_nulls())]).group_by("value").agg(pl.col("rows").sum())
    return both.sort("rows", "value", descending=[True, False])


def _class_spellings(cells: pl.Series, join: bool | None) -> dict[str, str]:
    """The spellings of classes that are read as another one; none where a single class
    would be left, or cells are numbers."""
    if cells.dtype not in TEXTS:
        return {}
    counts = tally(labels(cells).drop_nulls())
    if cells.dtype == pl.String and format_of_numbers(counts) is not None:
        return {}
    joined = joins_of(counts, join)
    return joined if counts.height - len(joined) > 1 else {}


def _joined(
    frame: pl.DataFrame, spellings: Mapping[str, Mapping[str, str]], notes: dict[str, int]
) -> pl.DataFrame:
    """The frame with spellings replaced, and the cells counted."""
    for name, joined in spellings.items():
        if joined:
            notes["joined_cells"] = notes.get("joined_cells", 0) + int(
                frame[name].cast(pl.String).is_in(list(joined)).sum()
            )
            frame = frame.with_columns(replaced(frame[name].cast(pl.String), joined))
    return frame


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


def _frequent_words(cells: pl.Series) -> tuple[str, ...]:
    """The words that a text is told by: they are learnt from rows alone, not from the target."""
    from sklearn.feature_extraction.text import CountVectorizer  # a second of imports, for text columns only

    texts = cells.drop_nulls()
    texts = texts.gather_every(max(1, -(-len(texts) // SAMPLE_ROWS)))
    least = max(WORD_ROWS, round(WORD_SHARE * len(texts)))
    counter = CountVectorizer(binary=True, min_df=least, max_df=COMMON_WORD, max_features=MAX_WORDS)
    try:
        counter.fit(texts.to_list())
    except ValueError:  # no word is left, or there is none
        return ()
    return tuple(sorted(counter.vocabulary_))


def _helpers(frame: pl.DataFrame, group_column: str | None, time: Column | None) -> list[pl.Series]:
    """The group column as text, the time column as dates or numbers without gaps."""
    helpers = []
    if group_column is not None:
        helpers.append(labels(frame[group_column]).fill_null("").alias(group_column))
    if time is not None:
        helpers.append(_without_gaps(conform(frame[time.name], time)[0]))
    return helpers


def _without_gaps(times: pl.Series) -> pl.Series:
    """A row without a time goes to the earliest rows: it may train, but it never passes for a late one."""
    return times.fill_null(times.min())


def _time_as_column(cells: pl.Series) -> Column:
    """How a time column is read: as dates or as numbers; UserError where most cells are neither."""
    judged = infer(cells, cells.gather(np.linspace(0, len(cells) - 1, min(len(cells), 10_000)).astype(int)))
    if judged.type not in ("datetime", "numeric") and cells.dtype in TEXTS:
        judged = replace(read_as(cells, "datetime", "numeric"), why=judged.why)
    elif judged.type != "datetime":
        judged = Column(cells.name, "numeric", judged.why, judged.format if judged.type == "numeric" else "")
    times = conform(cells, judged)[0]
    if times.null_count() > (1 - MOSTLY) * len(times):
        raise UserError(_not_times(cells, judged, times))
    return judged


def _not_times(cells: pl.Series, judged: Column, times: pl.Series) -> str:
    """What is wrong with a time column of which more than a few cells are no times."""
    bad, name = unreadable(cells, judged), f"the time column '{shown(cells.name)}'"
    missing = times.null_count() - len(bad)
    if not len(bad):
        return (
            f"{name} is missing in {missing:,} of {len(times):,} rows; leave these rows out, or name "
            "another column or none"
        )
    what = "dates or numbers" if not times.count() else "dates" if judged.type == "datetime" else "numbers"
    also = f", and is missing in {missing:,}" if missing else ""
    return (
        f"{name} cannot be read as {what} in {how_many(bad, len(times))}{also}; expected dates such as "
        "2024-01-31, or numbers"
    )


def read_times(cells: pl.Series) -> pl.Series:
    """A time column as dates or numbers, null where it is missing; UserError
    where most cells are no times."""
    return conform(cells, _time_as_column(cells))[0]


def _time_parts(times: pl.Series, time: Column) -> tuple[str, ...]:
    """The arrays of the time column (training rows): what comes round often
    enough, and last the time itself."""
    parts = column_arrays(times, time)
    trend, *others = parts
    days = np.ptp(parts[trend])
    cycles = {name: CYCLES.get(name.rpartition(".")[2], np.inf) for name in others}
    return (*(name for name in others if days >= ROUNDS * cycles[name] and np.ptp(parts[name]) > 0), trend)


# ----------------------------------------------------------------------------------------------------- arrays


def encode(frame: pl.DataFrame, schema: TableSchema) -> Features:
    """Rows -> arrays: columns are looked up by name, extra ones are ignored, unseen levels become UNSEEN.

    numeric holds, in the order of the columns: numbers as they are, booleans as 0/1, a date as days
    since 1970, year, month, day, weekday (1 is Monday) and hour where hours matter, a text as its
    words and its length; last the time column's parts. What cannot be read is missing. UserError
    naming every column that is needed and absent.
    """
    frame = with_unique_names(frame)
    used = _needed(frame, schema)
    numeric: dict[str, NDArray[Any]] = {}
    codes: dict[str, NDArray[np.int32]] = {}
    for column in used:
        cells, _ = conform(frame[column.name], column)
        if column.type == "categorical":
            codes[column.name] = level_codes(cells, schema.levels[column.name])
        else:
            numeric |= column_arrays(cells, column, schema.words.get(column.name))
        if column.limits:
            side = side_name(column.name)
            sides = frame[side] if side in frame.columns else beyond(frame[column.name])
            numeric[side] = sides.cast(pl.Float64).to_numpy()
    if schema.time is not None:
        cells, _ = conform(frame[schema.time.name], schema.time)
        parts = column_arrays(cells, schema.time)
        numeric |= {name: parts[name] for name in schema.time_parts}
    numbers = np.empty((frame.height, len(numeric)), np.float64)
    for position, array in enumerate(numeric.values()):
        numbers[:, position] = array
    categorical = np.empty((frame.height, len(codes)), np.int32)
    for position, code in enumerate(codes.values()):
        categorical[:, position] = code
    levels = tuple(schema.levels[name] for name in codes)
    texts = (column for column in used if column.type == "text" and column.name in schema.words)
    words = tuple(name for column in texts for name in encoded_names(column, schema.words[column.name])[:-1])
    return Features(numbers, categorical, tuple(numeric), tuple(codes), levels, schema.time_parts[-1:], words)


def encode_new(
    frame: pl.DataFrame, schema: TableSchema, *, strict: bool = False
) -> tuple[Features, tuple[FormChange, ...]]:
    """New rows -> arrays, as ``encode`` makes them, and what is unlike the training rows
    in their form (see ``new_rows``)."""
    frame = with_unique_names(frame)
    _needed(frame, schema)
    read, changes = read_new(frame, schema, strict=strict)
    return encode(read, schema), changes


def _needed(frame: pl.DataFrame, schema: TableSchema) -> list[Column]:
    """The columns that reach the network; UserError naming those that the frame lacks."""
    used = [column for column in schema.columns if column.type not in ("identifier", "constant")]
    needed = used if schema.time is None else [*used, schema.time]
    there = set(frame.columns)
    if missing := [column.name for column in needed if column.name not in there]:
        raise UserError(_lacking("the table given", missing, frame.columns))
    return used


def _lacking(what: str, missing: Sequence[str], columns: Sequence[str]) -> str:
    names = ", ".join(f"'{shown(name, 40)}'" for name in missing[:10])
    rest = f" and {len(missing) - 10} more" if missing[10:] else ""
    near = shown(did_you_mean(missing[0], columns))
    return f"{what} has no column {names}{rest}{near}; expected the columns of the training table"


def level_codes(cells: pl.Series, levels: Sequence[str]) -> NDArray[np.int32]:
    """The place of each cell's text among the levels; UNSEEN or MISSING."""
    codes = np.full(len(cells), UNSEEN, np.int32)
    if levels:
        known = cells.cast(pl.Enum(pl.Series(levels, dtype=pl.String)), strict=False).to_physical()
        codes = known.cast(pl.Int32).fill_null(UNSEEN).to_numpy().copy()
    codes[cells.is_null().to_numpy()] = MISSING
    return codes


def _ranks(frame: pl.DataFrame, column: str | None) -> NDArray[np.int64] | None:
    if column is None or column not in frame.columns:
        return None
    return frame[column].rank("dense").to_numpy().astype(np.int64) - 1


def encoded_names(column: Column, words: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of the numeric arrays that a column becomes; () for one that is categorical or not used.
    words: a text's."""
    if column.limits:
        return (column.name, side_name(column.name))
    if column.type in ("numeric", "boolean"):
        return (column.name,)
    if column.type == "datetime":
        hours = any(mark in column.format for mark in ("%H", "%I", "hours", "seconds"))
        parts = ("days", "year", "month", "day", "weekday") + (("hour",) if hours else ())
        return tuple(f"{column.name}.{part}" for part in parts)
    if column.type == "text":
        parts = (
            tuple(f"word{place}" for place in range(HASHED_WORDS))
            if words is None
            else tuple(f"word.{w}" for w in words)
        )
        return tuple(f"{column.name}.{part}" for part in (*parts, "length"))
    return ()


def column_arrays(
    cells: pl.Series, column: Column, words: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """The numeric arrays that a column's conformed cells become, by ``encoded_names``."""
    if column.type == "datetime":
        arrays = _date_parts(cells)
    elif column.type == "text":
        found = _hashed_words(cells) if words is None else _found_words(cells, words)
        arrays = [*found.T, cells.str.len_chars().cast(pl.Float64).to_numpy()]
    else:
        arrays = [cells.cast(pl.Float64).to_numpy()]
    # of a date without hours the last part is left out
    return dict(zip(encoded_names(column, words), arrays, strict=False))


def _date_parts(cells: pl.Series) -> list[NDArray[Any]]:
    date = cells.dt
    hour = date.hour().cast(pl.Float64) + date.minute().cast(pl.Float64) / 60
    parts = (date.epoch("us") / 86_400_000_000, date.year(), date.month(), date.day(), date.weekday(), hour)
    return [values.cast(pl.Float64).to_numpy() for values in parts]


def _found_words(cells: pl.Series, words: Sequence[str]) -> NDArray[np.float64]:
    """Which of the words a text has, shape (rows, words), the squares of a row adding up to 1."""
    from sklearn.feature_extraction.text import CountVectorizer

    if not words or not len(cells):
        return np.zeros((len(cells), len(words)))
    counter = CountVectorizer(binary=True, vocabulary=list(words), dtype=np.float64)
    found = counter.transform(cells.fill_null("").to_list()).toarray()
    return np.asarray(found / np.sqrt(np.maximum(found.sum(axis=1, keepdims=True), 1)))


def _hashed_words(cells: pl.Series) -> NDArray[np.float64]:
    from sklearn.feature_extraction.text import HashingVectorizer

    if not len(cells):
        return np.empty((0, HASHED_WORDS))
    return np.asarray(
        HashingVectorizer(n_features=HASHED_WORDS).transform(cells.fill_null("").to_list()).toarray()
    )
