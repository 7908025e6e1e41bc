"""Images and sequences -> training rows and test rows as arrays, with what is
needed to read new rows alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import labels
from advisor.data.columns.numbers import number_format
from advisor.data.options import DEFAULT_OPTIONS, FileForm, ReadingOptions
from advisor.data.signals.arrays.array_files import kind_of_file
from advisor.data.signals.arrays.axes import kind_of_array
from advisor.data.signals.arrays.named_arrays import as_array, read_arrays, read_digits
from advisor.data.signals.arrays.values import with_length
from advisor.data.signals.cleaning import Cleaning
from advisor.data.signals.image_paths import SUFFIXES
from advisor.data.signals.image_sets import are_images, read_images
from advisor.data.signals.rows import ArrayValues, Found, RawRows, Request, TimeSteps, lengths_of, quoted
from advisor.data.signals.series_tables import read_sequences
from advisor.data.signals.signal_schema import SignalSchema
from advisor.data.signals.ucr_files import archive_pair
from advisor.data.sources.reading import MAX_BYTES
from advisor.data.sources.source import summed_notes
from advisor.data.tables.target import (
    LONELY,
    ReadTarget,
    check_target,
    class_values,
    finite_numbers,
    known_classes,
    ordered_classes,
    read_target,
)
from advisor.data.tables.test_rows import check_tested, held_out_rows, row_keys
from advisor.dataset import Dataset, Signals
from advisor.errors import UserError, shown
from advisor.kinds import GridKind
from advisor.tasks import BINARY, MULTICLASS, RowTarget, Task, task_of


@dataclass(frozen=True)
class SignalSet:
    """A set of images or sequences, read and divided.

    fingerprint: 32 hex digits of the content (not of the order of rows, not of a given test set's target).
    notes: what was repaired or left out, as counts: "corrupt_files", "files_ignored", "image_sizes"
        (distinct ones, where they differ), "converted_channels", "arrays_ignored",
        "infinite_values", "empty_sequences", "cut_sequences" (test rows longer than all training
        rows), "marked_values", "glitches", "channels_last" (1), "rows_without_target",
        "rows_in_singleton_classes", "test_rows_of_unseen_class".
    train_names, test_names: the file or id of each row, "" where there is none.
    ignored: columns of a table that are not used, as they hold texts or name the rows.
    lost: of the files that notes count, by the note, those of the training and of the test rows.
    steps: in time between the points of the sequences that were given to learn from, None without times.
    told: what else to know of how a file was read, as code -> sentence.
    """

    name: str
    source: str
    fingerprint: str
    schema: SignalSchema
    train: Dataset[Any, Signals]
    test: Dataset[Any, Signals]
    notes: dict[str, int]
    test_origin: Literal["file", "held-out"]
    train_names: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    steps: TimeSteps | None = None
    told: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} training and {len(self.test):,} test rows"
        return f"<SignalSet '{self.name}': {sizes}, target '{self.schema.target}' ({self.schema.task})>"

    @property
    def rows(self) -> int:
        """Training rows."""
        return len(self.train)

    @property
    def frame(self) -> None:
        """Arrays are no frame."""

    def test_inputs(self) -> Signals:
        """The test rows without their target."""
        return self.test.features

    def dataset(self, part: Literal["train", "test"]) -> Dataset[Any, Signals]:
        """One part as arrays, in the order of the source."""
        return self.train if part == "train" else self.test


NO_NOTES: Mapping[str, int] = MappingProxyType({})
READERS: Mapping[GridKind, Callable[[object, Request], Found]] = {
    "image": read_images,
    "sequence": read_sequences,
}
"""Of sources that are no arrays."""


def signal_kind(source: object, target: str | None = None) -> GridKind | None:
    """Whether the rows of a source are images or sequences; None: neither.

    A folder, a table with a column for each pixel, or the file of a table with a column (not
    the ``target``) of image files holds images; files of the UCR/UEA archive hold sequences;
    arrays are told by their dimensions: (n, h, w, c), bytes (n, h, w) or numbers (n, h, h)
    images, else sequences.
    """
    if isinstance(source, np.ndarray):
        return kind_of_array(source.shape, source.dtype)
    if isinstance(source, Mapping):
        main = next(
            (value for name, value in source.items() if str(name).lower().startswith(("x", "im"))), None
        )
        array = np.array(()) if main is None else as_array(main, "X", "the data")
        return kind_of_array(array.shape, array.dtype)
    if isinstance(source, str | Path):
        path = Path(source)
        suffix = path.suffix.lower()
        if suffix in (".npz", ".npy"):
            return kind_of_file(path)
        if archive_pair(path) is not None:
            return "sequence"
        if suffix in SUFFIXES or path.is_dir():
            return "image"
    return "image" if are_images(source, target) else None


def load_signals(
    source: object,
    target: str | None = None,
    options: ReadingOptions = DEFAULT_OPTIONS,
    *,
    max_bytes: int = MAX_BYTES,
) -> SignalSet:
    """Read a set of images or sequences and set test rows apart.

    target: the array or column to predict; None where the format has its own. Arrays group, group_train are
        used as groups where they are there.
    max_bytes: largest uncompressed size of a file. UserError for everything that the user can fix.
    """
    request, kind = _request(target, options, max_bytes), _grid_kind(source, target, options)
    found = _read(source, kind, request)
    given = found.test if options.test is None else _read_test(options.test, kind, request, found)
    found, given, cleaning, marked = _cleaned(found, given)
    rows = _answered(found, options)
    train, tested = _parts(found, given, rows, _held_out(found, rows, given, options))
    schema = _schema(found, rows, train, cleaning, of_arrays=_are_arrays(source))
    tested = _scored(tested, schema, wanted=given is not None or options.tested)
    keys = rows.keys if given is None else np.append(rows.keys, given.values.keys())
    counts = {} if options.test is None else _lost_counts(given)  # else they are among the source's notes
    notes = summed_notes(found.notes, counts, marked, rows.notes, train.notes, tested.notes)
    return SignalSet(
        name=found.name,
        source=found.origin,
        fingerprint=_fingerprint(keys, rows.answer, found),
        schema=schema,
        train=_dataset(train, schema, found.origin),
        test=_dataset(tested, schema, found.origin),
        notes={what: count for what, count in notes.items() if count},
        test_origin="held-out" if given is None else "file",
        train_names=train.names,
        test_names=tested.names,
        ignored=found.ignored,
        lost=_lost(found, given, train.corrupt + tested.corrupt),
        steps=found.steps,
        told=found.told,
    )


def _grid_kind(source: object, target: str | None, options: ReadingOptions) -> GridKind:
    """The kind that was asked for, or is found out; UserError for a table."""
    kind = options.kind or signal_kind(source, target) or "table"
    if kind not in READERS and options.kind is None and options.id_column is not None:
        kind = "sequence"  # of a long table: a table's rows have no use for an id
    if kind not in READERS:
        raise UserError(
            f"{shown(source, 200)} is a table; name kind image or sequence to read it as one of these"
        )
    return cast(GridKind, kind)


def _request(target: str | None, options: ReadingOptions, max_bytes: int) -> Request:
    """How the source is to be read; UserError for options that only tables have a use for."""
    if options.types:
        raise UserError("--type is for the columns of a table: images and sequences have none")
    if options.weight_column is not None:
        raise UserError("--weight-column is for tables: images and sequences all count equally")
    return Request(
        target=target,
        id_column=options.id_column,
        time_column=options.time_column,
        group_column=options.group_column,
        max_bytes=max_bytes,
        channels=options.channels,
        form=options.form,
    )


def read_signals(
    source: object, schema: SignalSchema, form: FileForm | None = None
) -> tuple[Signals, tuple[str, ...]]:
    """New rows for a saved model, brought to the schema's channels and size,
    with their names; no target is needed.

    source: any format, also NumPy arrays. A sequence longer than all training sequences is
        cut at its end. UserError where the rows do not fit or an image cannot be read: a
        row left out would have no prediction.
    """
    request = Request(
        target=schema.target,
        id_column=schema.id_column,
        time_column=schema.order_column,
        max_bytes=MAX_BYTES,
        like=schema.shape,
        needs_target=False,
        columns=schema.columns,
        channels=_where_channels(schema),
        bits=schema.bits,
        form=form or schema.form,
    )
    found = _read(source, schema.kind, request)
    rows = np.arange(len(found.train.values))
    values, readable = found.train.values.take(rows)
    if not readable.all():
        bad = [name for name, good in zip(found.train.names, readable, strict=True) if not good]
        raise UserError(f"{found.origin}: {len(bad):,} images cannot be read: {quoted(bad)}; leave them out")
    if values.ndim == 3:
        values, _ = schema.cleaning.with_gaps(values)
    return Signals(_fitting(values, schema, found.origin)), found.train.names


def _are_arrays(source: object) -> bool:
    """Whether the rows are NumPy arrays, in memory or in a file."""
    if isinstance(source, str | Path):
        return Path(source).suffix.lower() in (".npz", ".npy")
    return isinstance(source, np.ndarray | Mapping)


def _where_channels(found: Found | SignalSchema) -> str:
    return "last" if found.channels_last else "first"


def _read(source: object, kind: GridKind, request: Request) -> Found:
    if isinstance(source, str) and source == "sklearn:digits":
        return read_digits(kind, request)
    if _are_arrays(source):
        return read_arrays(source, kind, request)
    if request.channels is not None and request.like is None:
        raise UserError(
            f"{shown(source, 200)} already says which its channels are; leave out channels, which is for "
            "arrays"
        )
    return READERS[kind](source, request)


def _read_test(source: object, kind: GridKind, request: Request, train: Found) -> RawRows:
    """Given test rows, read as the training rows were."""
    alike = replace(
        request, like=train.shape, columns=train.columns, channels=_where_channels(train), bits=train.bits
    )
    return _read(source, kind, alike).train


# ----------------------------------------------------------------------------------------------------- target


@dataclass(frozen=True)
class _Answered:
    """The rows that have a target and values.

    labels: the target of all rows, null where it is missing.
    usable: which rows these are, by number; answer, keys: their targets, and a number made of their content.
    notes: rows that were left out, as counts.
    """

    task: Task
    labels: pl.Series
    usable: NDArray[np.int64]
    answer: pl.Series
    keys: NDArray[np.uint64]
    notes: Mapping[str, int]


def _answered(found: Found, options: ReadingOptions) -> _Answered:
    """The task and the training rows' target; UserError where nothing can be learned from it."""
    target = _target(found, None if options.task is None else task_of(options.task))
    usable, notes = _usable(found.train, target)
    answer = target.answer.gather(usable)
    keys = found.train.values.keys()[usable]
    check_target(answer, target.task, found.target, len(found.train.values))
    return _Answered(target.task, target.answer, usable, answer, keys, summed_notes(target.notes, notes))


def _held_out(
    found: Found, rows: _Answered, given: RawRows | None, options: ReadingOptions
) -> NDArray[np.bool_]:
    """Which of the usable rows are held out."""
    if given is not None or not options.test_fraction:
        return np.zeros(len(rows.usable), dtype=bool)
    groups = found.train.groups
    helpers = [] if groups is None else [groups.gather(rows.usable).alias(found.group_column or "group")]
    keys = row_keys(pl.DataFrame({"key": rows.keys}), options.seed)
    return held_out_rows(rows.answer, rows.task, helpers, keys, options.test_fraction, options.seed)


def _target(found: Found, asked: Task | None) -> ReadTarget:
    cells = found.train.answer
    if cells is None:
        raise UserError(f"{found.origin} has no labels; expected a label for each row")
    asked = asked or found.task
    of_classes = asked is None and found.classification
    target = read_target(cells.alias(found.target), found.target, MULTICLASS if of_classes else asked)
    if of_classes and target.answer.drop_nulls().n_unique() <= 2:
        return replace(target, task=BINARY)
    return target


def _usable(rows: RawRows, target: ReadTarget) -> tuple[NDArray[np.int64], dict[str, int]]:
    """The rows that have a target and, of sequences, at least one point; the count of the others."""
    filled, notes = target.answer.is_not_null().to_numpy(), dict[str, int]()
    if lost := int((~filled).sum()) - target.notes.get(LONELY, 0):
        notes["rows_without_target"] = lost
    if isinstance(rows.values, ArrayValues) and rows.values.array.ndim == 3:
        points = lengths_of(rows.values.array) > 0
        if empty := int((~points).sum()):
            notes["empty_sequences"] = empty
        if not points.any():
            raise UserError(f"all {len(points):,} sequences are empty: all their values are missing")
        filled = filled & points
    return np.flatnonzero(filled), notes


def _test_target(
    rows: RawRows, task: Task, classes: tuple[str, ...], name: str
) -> tuple[NDArray[np.int64], pl.Series, dict[str, int]]:
    """Which given test rows have a target that can be scored, their targets as the training rows' were read,
    and the count of the others."""
    if rows.answer is None:
        raise UserError(f"the test rows have no target '{shown(name)}'; expected a label for each row")
    cells = rows.answer.alias(name)
    answer, strange = _test_classes(cells, classes) if task.of_classes else (_test_numbers(cells), 0)
    notes = {"test_rows_of_unseen_class": strange} if strange else {}
    filled = answer.is_not_null().to_numpy()
    if lost := int((~filled).sum()) - strange:
        notes["test_rows_without_target"] = lost
    if not filled.any():
        raise UserError(
            f"no test row has a target '{shown(name)}'; give test rows that have one, or none at all"
        )
    return np.flatnonzero(filled), answer.filter(filled), notes


def _test_numbers(cells: pl.Series) -> pl.Series:
    numbers = finite_numbers(cells, number_format(cells))
    if numbers is None:
        raise UserError(
            f"the test rows' target '{shown(cells.name)}' holds no numbers, but that of the training rows "
            "does"
        )
    return numbers


def _test_classes(cells: pl.Series, classes: tuple[str, ...]) -> tuple[pl.Series, int]:
    """Labels, null where no training row has the class, and in how many rows; UserError where that is all."""
    answer = known_classes(labels(cells), classes)
    strange = (answer.is_not_null() & ~answer.is_in(list(classes))).fill_null(False)
    if not strange.any():
        return answer, 0
    first = answer.filter(strange)[0]
    if not answer.is_in(list(classes)).any():
        raise UserError(
            f"the test rows' target '{shown(cells.name)}' has class '{shown(first, 40)}', which no training "
            "row has, and no other; is this the same target?"
        )
    return answer.set(strange, None), int(strange.sum())


# ----------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class _Part:
    """Rows with their values.

    corrupt: files that cannot be read, which are no rows.
    notes: rows that were left out, as counts.
    """

    values: NDArray[Any]
    answer: pl.Series
    groups: pl.Series | None
    names: tuple[str, ...]
    corrupt: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


def _decoded(
    rows: RawRows, chosen: NDArray[np.int64], answer: pl.Series, notes: Mapping[str, int] = NO_NOTES
) -> _Part:
    """The chosen rows with their values; those that cannot be read are left out and counted.
    notes: those that were left out before."""
    values, readable = rows.values.take(chosen)
    corrupt = tuple(rows.names[row] for row in chosen[~readable].tolist())
    if lost := int((~readable).sum()):
        notes = summed_notes(notes, {"corrupt_files": lost})
        chosen, answer = chosen[readable], answer.filter(readable)
    if not len(chosen):
        raise UserError(
            "no row is left for the training or the test part: its images cannot be read, or there are too "
            "few"
        )
    groups = None if rows.groups is None else rows.groups.gather(chosen)
    return _Part(values, answer, groups, tuple(rows.names[row] for row in chosen.tolist()), corrupt, notes)


def _none_of(part: _Part) -> _Part:
    """No rows, of the shape that the part's rows have."""
    groups = None if part.groups is None else part.groups.clear()
    return _Part(part.values[:0], part.answer.clear(), groups, ())


def _lost_counts(given: RawRows | None) -> dict[str, int]:
    return {} if given is None else {note: len(files) for note, files in given.lost.items()}


def _lost(found: Found, given: RawRows | None, corrupt: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The files that notes count, by the note. corrupt: those that could not be decoded."""
    parts = [found.train.lost, {} if given is None else given.lost, {"corrupt_files": corrupt}]
    names = dict.fromkeys(note for part in parts for note in part)
    joined = {note: tuple(sorted({name for part in parts for name in part.get(note, ())})) for note in names}
    return {note: files for note, files in joined.items() if files}


def _cleaned(found: Found, given: RawRows | None) -> tuple[Found, RawRows | None, Cleaning, dict[str, int]]:
    """The rows and given test rows with missing points for what is no measurement, as the training rows show
    it; how, and the counts. Images stay as they are."""
    if not isinstance(found.train.values, ArrayValues) or found.train.values.array.ndim != 3:
        return found, given, Cleaning(), {}
    cleaning = Cleaning.fit(found.train.values.array)
    train, notes = _with_gaps(found.train, cleaning)
    notes = summed_notes(notes, {"rescaled_channels": sum(unit != 1 for unit in cleaning.units)})
    if given is not None:
        given, counts = _with_gaps(given, cleaning)
        notes = summed_notes(notes, counts)
    return replace(found, train=train), given, cleaning, notes


def _with_gaps(rows: RawRows, cleaning: Cleaning) -> tuple[RawRows, dict[str, int]]:
    """Rows of sequences with missing points for what is no measurement, and its count."""
    if not isinstance(rows.values, ArrayValues):
        return rows, {}
    values, counts = cleaning.with_gaps(rows.values.array)
    return replace(rows, values=ArrayValues(values)), dict(counts)


def _parts(
    found: Found, given: RawRows | None, rows: _Answered, held: NDArray[np.bool_]
) -> tuple[_Part, _Part]:
    """Training and test rows with their values.
    held: which of the usable rows are held out."""
    train = _decoded(found.train, rows.usable[~held], rows.answer.filter(~held))
    if given is None and not held.any():
        return train, _none_of(train)
    if given is None:
        return train, _decoded(found.train, rows.usable[held], rows.answer.filter(held))
    return train, _decoded(
        given, *_test_target(given, rows.task, ordered_classes(train.answer), found.target)
    )


def _schema(
    found: Found, rows: _Answered, train: _Part, cleaning: Cleaning, *, of_arrays: bool
) -> SignalSchema:
    """How new rows are read as these were.
    of_arrays: whether labels have types, in which predictions are."""
    task = rows.task
    classes = ordered_classes(train.answer) if task.of_classes else ()
    size, missing = found.shape[1:], False
    if train.values.ndim == 3:
        length = int(lengths_of(train.values).max(initial=1))
        size, missing = (length,), bool(np.isnan(train.values[:, :, :length]).any())
    group = found.group_column if train.groups is not None else None
    given = None
    if classes and of_arrays and found.train.answer is not None:
        given = class_values(classes, rows.labels, found.train.answer)
    return SignalSchema(
        kind=found.kind,
        target=found.target,
        task=task.name,
        classes=classes,
        channels=found.shape[0],
        size=size,
        missing=missing,
        group_column=group,
        columns=found.columns,
        id_column=found.id_column,
        order_column=found.order_column,
        channels_last=found.channels_last,
        bits=found.bits,
        cleaning=cleaning,
        encoding=found.encoding,
        sheet=found.sheet,
        given=given,
    )


def _scored(part: _Part, schema: SignalSchema, *, wanted: bool) -> _Part:
    """The test rows without those of a class that only they have, held out by group or lost with a file: it
    cannot be learnt. Sequences that will be cut are counted. UserError where rows are wanted, and none is
    left."""
    if schema.classes and not (known := part.answer.is_in(list(schema.classes)).to_numpy()).all():
        part = replace(
            part,
            values=part.values[known],
            answer=part.answer.filter(known),
            groups=None if part.groups is None else part.groups.filter(known),
            names=tuple(name for name, good in zip(part.names, known, strict=True) if good),
            notes=summed_notes(part.notes, {"test_rows_of_unseen_class": int((~known).sum())}),
        )
    check_tested(len(part.answer), wanted)
    if part.values.ndim != 3:
        return part
    cut = int((lengths_of(part.values) > schema.size[0]).sum())
    return replace(part, notes=summed_notes(part.notes, {"cut_sequences": cut}))


def _dataset(part: _Part, schema: SignalSchema, origin: str) -> Dataset[RowTarget, Signals]:
    target: NDArray[np.int64] | NDArray[np.float64]
    task = task_of(schema.task)
    if not task.of_classes:
        target = part.answer.cast(pl.Float64).to_numpy().astype(np.float64)
    else:
        codes = {label: code for code, label in enumerate(schema.classes)}
        target = np.array([codes[label] for label in part.answer.to_list()], np.int64)
    groups = None if part.groups is None else part.groups.rank("dense").to_numpy().astype(np.int64) - 1
    signals = Signals(_fitting(part.values, schema, origin))
    return Dataset(signals, target, task, schema.classes, groups)


def _fitting(values: NDArray[Any], schema: SignalSchema, origin: str) -> NDArray[Any]:
    """Rows in the schema's shape and units; a view of them where nothing must change."""
    shape = schema.shape
    if values.ndim - 1 != len(shape):
        raise UserError(f"{origin} has rows of shape {values.shape[1:]}; the training rows have {shape}")
    if values.shape[1] != shape[0]:
        raise UserError(
            f"{origin} has {values.shape[1]} channels; the training rows have {shape[0]}: expected as many"
        )
    if values.ndim == 4:
        return values  # the reader brought them to their size
    return np.ascontiguousarray(schema.cleaning.in_units(with_length(values, shape[1])))


def _fingerprint(keys: NDArray[np.uint64], answer: pl.Series, found: Found) -> str:
    """Of rows with their targets, sorted; keys beyond the targets are those of given test rows."""
    texts = answer.cast(pl.String).to_list()
    pairs = sorted(zip(keys[: len(texts)].tolist(), texts, strict=True))
    whole = hashlib.sha256(repr((found.kind, found.target, found.shape)).encode())
    whole.update("\n".join(f"{key:x} {text}" for key, text in pairs).encode())
    whole.update(np.sort(keys[len(texts) :]).tobytes())
    return whole.hexdigest()[:32]
