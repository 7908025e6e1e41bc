"""Images and sequences -> training rows and test rows as arrays, with what is
needed to read new rows alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import labels
from advisor.data.columns.numbers import number_format
from advisor.data.options import FileForm, check_kind
from advisor.data.signals.arrays.array_files import kind_of_file
from advisor.data.signals.arrays.axes import kind_of_array
from advisor.data.signals.arrays.named_arrays import as_array, read_arrays, read_digits
from advisor.data.signals.arrays.values import with_length
from advisor.data.signals.cleaning import Cleaning
from advisor.data.signals.image_paths import SUFFIXES
from advisor.data.signals.image_sets import are_images, read_images
from advisor.data.signals.rows import ArrayValues, Found, RawRows, Request, TimeSteps, lengths_of, quoted
from advisor.data.signals.series_tables import read_sequences
from advisor.data.signals.ucr_files import archive_pair
from advisor.data.sources.reading import MAX_BYTES
from advisor.data.tables.target import (
    LONELY,
    ClassValues,
    asked_task,
    check_target,
    class_values,
    finite_numbers,
    known_classes,
    ordered_classes,
    read_target,
)
from advisor.data.tables.test_rows import check_fraction, check_tested, held_out_rows, row_keys
from advisor.dataset import Dataset, Signals
from advisor.errors import UserError, shown
from advisor.kinds import GridKind, TaskName
from advisor.tasks import BINARY, MULTICLASS, RowTarget, Task, task_of

__all__ = ["SignalSchema", "SignalSet", "load_signals", "read_signals", "signal_kind"]

TargetColumn = tuple[Task, pl.Series]


@dataclass(frozen=True)
class SignalSchema:
    """All that is needed to read new rows in the same way.

    target: what is predicted: "class" for folders of classes, else the name of the array or column.
    classes: labels in code order, () for regression.
    size: (height, width) that all images are brought to, or (length,) of the longest training sequence.
    missing: points are missing in training sequences, or their lengths differ.
    columns: of a table, those that hold the values (or the paths of images);
    id_column, order_column: those that name a row and give the order of its points.
    channels_last: arrays of sequences stood as (rows, points, channels).
    bits: those of the largest pixel (12 where a scanner filled so many of 16), 0
        for a schema that was saved without.
    cleaning: what is taken out of sequences.
    encoding, sheet: of the training rows' file, as ``reading.Source`` has them.
    given: the classes as an array of labels has them; None where they are those of a file, which are text.
    """

    kind: GridKind
    target: str
    task: TaskName
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, ...]
    missing: bool
    group_column: str | None = None
    time_column: None = None
    columns: tuple[str, ...] = ()
    id_column: str | None = None
    order_column: str | None = None
    channels_last: bool = False
    bits: int = 0
    cleaning: Cleaning = field(default_factory=Cleaning)
    encoding: str = ""
    sheet: str = ""
    given: ClassValues | None = None

    @property
    def form(self) -> FileForm:
        """How files of new rows are read, where they do not say so."""
        return FileForm(self.encoding or None, self.sheet or None, remembered=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: (channels, height, width) or (channels, length)."""
        return (self.channels, *self.size)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        return asdict(self) | {name: list(getattr(self, name)) for name in ("classes", "size", "columns")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SignalSchema:
        """The schema that ``to_dict`` wrote."""
        lists = {name: tuple(data[name]) for name in ("classes", "size", "columns")}
        given = ClassValues(**data["given"]) if data.get("given") else None
        return cls(
            **{**data, **lists, "cleaning": Cleaning.from_dict(data.get("cleaning", {})), "given": given}
        )


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
    train: Dataset[RowTarget, Signals]
    test: Dataset[RowTarget, Signals]
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

    def dataset(self, part: Literal["train", "test"]) -> Dataset[RowTarget, Signals]:
        """One part as arrays, in the order of the source."""
        return self.train if part == "train" else self.test


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
    *,
    kind: str | None = None,
    test: object = None,
    task: TaskName | None = None,
    id_column: str | None = None,
    time_column: str | None = None,
    group_column: str | None = None,
    channels: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    encoding: str | None = None,
    sheet: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> SignalSet:
    """Read a set of images or sequences and set test rows apart.

    target: the array or column to predict; None where the format has its own
        (folders, ``.ts``, y in ``.npz``).
    test: test rows in any format; without it the source's own test part, else ``test_fraction`` of the rows
        is held out: whole groups with ``group_column``, else at random with each class in its share; which
        rows these are depends on their content and ``seed``, not on their order.
    id_column, time_column: of a long table of sequences.
    channels: "first" or "last", where three-dimensional arrays of sequences have them; by default the other
        axis is the one whose neighbours resemble each other. Arrays group, group_train are used as groups
        where they are there. UserError for everything that the user can fix.
    """
    chosen_kind = (signal_kind(source, target) or "table") if kind is None else check_kind(kind)
    if chosen_kind not in READERS and kind is None and id_column is not None:
        chosen_kind = "sequence"  # of a long table: a table's rows have no use for an id
    if chosen_kind not in READERS:
        raise UserError(
            f"{shown(source, 200)} is a table; name kind image or sequence to read it as one of these"
        )
    asked = asked_task(task)
    check_fraction(test_fraction)
    if channels not in (None, "first", "last"):
        raise UserError(f"channels is '{shown(channels)}'; expected first or last")
    grid = cast(GridKind, chosen_kind)
    form = FileForm(encoding, sheet)
    request = Request(target, id_column, time_column, group_column, max_bytes, channels, form=form)
    found = _read(source, grid, request)
    alike = replace(
        request, like=found.shape, columns=found.columns, channels=_where_channels(found), bits=found.bits
    )
    given = found.test if test is None else _read(test, grid, alike).train
    notes = dict(found.notes)
    if test is not None and given is not None:
        for note, files in given.lost.items():
            notes[note] = notes.get(note, 0) + len(files)
    cleaning = Cleaning()
    if isinstance(found.train.values, ArrayValues) and found.train.values.array.ndim == 3:
        cleaning = Cleaning.fit(found.train.values.array)
        found = replace(found, train=_with_gaps(found.train, cleaning, notes))
        given = given and _with_gaps(given, cleaning, notes)
        notes["rescaled_channels"] = sum(unit != 1 for unit in cleaning.units)
    chosen, answer = _target(found, asked, notes)
    usable = _usable(found.train, answer, notes)
    keys = found.train.values.keys()[usable]
    keyed, answer = answer, answer.gather(usable)
    check_target(answer, chosen, found.target, len(found.train.values))
    held = np.zeros(len(usable), dtype=bool)
    if given is None and test_fraction:
        helpers = (
            []
            if found.train.groups is None
            else [found.train.groups.gather(usable).alias(found.group_column or "group")]
        )
        mixed = row_keys(pl.DataFrame({"key": keys}), seed)
        held = held_out_rows(answer, chosen, helpers, mixed, test_fraction, seed)
    train = _decoded(found.train, usable[~held], answer.filter(~held), notes)
    if given is None:
        tested = _decoded(found.train, usable[held], answer.filter(held), notes)
    else:
        cells, kept = _test_target(given, chosen, ordered_classes(train.answer), found.target, notes)
        keys = np.append(keys, given.values.keys())
        tested = _decoded(given, kept, cells, notes)
    schema = replace(_schema(found, chosen, train), cleaning=cleaning)
    if schema.classes and _are_arrays(source) and found.train.answer is not None:
        schema = replace(schema, given=class_values(schema.classes, keyed, found.train.answer))
    fingerprint = _fingerprint(keys, answer, found)
    divided = _divided(
        found, schema, fingerprint, train, tested, "held-out" if given is None else "file", notes
    )
    check_tested(len(divided.test), given is not None or test_fraction > 0)
    headless = [found.train.lost] if given is None else [found.train.lost, given.lost]
    return replace(divided, lost=_lost(*headless, {"corrupt_files": train.corrupt + tested.corrupt}))


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
        schema.target,
        schema.id_column,
        schema.order_column,
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
            f"{shown(source, 200)} says itself which its channels are; leave out channels, which is for "
            "arrays"
        )
    return READERS[kind](source, request)


# ----------------------------------------------------------------------------------------------------- target


def _target(found: Found, task: Task | None, notes: dict[str, int]) -> tuple[Task, pl.Series]:
    """The task and the training rows' target."""
    cells = found.train.answer
    if cells is None:
        raise UserError(f"{found.origin} has no labels; expected a label for each row")
    asked = task or found.task
    of_classes = asked is None and found.classification
    chosen, answer, _ = read_target(
        cells.alias(found.target), found.target, MULTICLASS if of_classes else asked, notes
    )
    if of_classes and answer.drop_nulls().n_unique() <= 2:
        chosen = BINARY
    return chosen, answer


def _usable(rows: RawRows, answer: pl.Series, notes: dict[str, int]) -> NDArray[np.int64]:
    """The rows that have a target and, of sequences, at least one point."""
    filled = answer.is_not_null().to_numpy()
    if lost := int((~filled).sum()) - notes.get(LONELY, 0):
        notes["rows_without_target"] = lost
    if isinstance(rows.values, ArrayValues) and rows.values.array.ndim == 3:
        points = lengths_of(rows.values.array) > 0
        if empty := int((~points).sum()):
            notes["empty_sequences"] = empty
        if not points.any():
            raise UserError(
                f"none of the {len(points):,} sequences has a point: all their values are missing"
            )
        filled = filled & points
    return np.flatnonzero(filled)


def _test_target(
    rows: RawRows, task: Task, classes: tuple[str, ...], name: str, notes: dict[str, int]
) -> tuple[pl.Series, NDArray[np.int64]]:
    """The given test rows' target as the training rows' was read, and which rows
    have one that can be scored."""
    if rows.answer is None:
        raise UserError(f"the test rows have no target '{shown(name)}'; expected a label for each row")
    cells = rows.answer.alias(name)
    if not task.of_classes:
        numbers = finite_numbers(cells, number_format(cells))
        if numbers is None:
            raise UserError(
                f"the test rows' target '{shown(name)}' holds no numbers, the training rows' does"
            )
        answer = numbers
    else:
        answer = known_classes(labels(cells), classes)
        strange = (answer.is_not_null() & ~answer.is_in(list(classes))).fill_null(False)
        if strange.any():
            first = answer.filter(strange)[0]
            if not answer.is_in(list(classes)).any():
                raise UserError(
                    f"the test rows' target '{shown(name)}' has class '{shown(first, 40)}', which no "
                    "training row has, "
                    "and no other; is it the same target?"
                )
            notes["test_rows_of_unseen_class"] = int(strange.sum())
            answer = answer.set(strange, None)
    filled = answer.is_not_null().to_numpy()
    lost = int((~filled).sum()) - notes.get("test_rows_of_unseen_class", 0)
    if lost:
        notes["test_rows_without_target"] = lost
    if not filled.any():
        raise UserError(
            f"no test row has a target '{shown(name)}'; give test rows that have one, or none at all"
        )
    return answer.filter(filled), np.flatnonzero(filled)


# ----------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class _Part:
    values: NDArray[Any]
    answer: pl.Series
    groups: pl.Series | None
    names: tuple[str, ...]
    corrupt: tuple[str, ...] = ()


def _decoded(rows: RawRows, chosen: NDArray[np.int64], answer: pl.Series, notes: dict[str, int]) -> _Part:
    """The chosen rows with their values; those that cannot be read are left out and counted."""
    values, readable = rows.values.take(chosen)
    corrupt = tuple(rows.names[row] for row in chosen[~readable].tolist())
    if lost := int((~readable).sum()):
        notes["corrupt_files"] = notes.get("corrupt_files", 0) + lost
        chosen, answer = chosen[readable], answer.filter(readable)
    if not len(chosen):
        raise UserError(
            "no row is left for the training or the test part: none of its images can be read, or there are "
            "too few"
        )
    groups = None if rows.groups is None else rows.groups.gather(chosen)
    return _Part(values, answer, groups, tuple(rows.names[row] for row in chosen.tolist()), corrupt)


def _lost(*parts: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(note for part in parts for note in part)
    joined = {note: tuple(sorted({name for part in parts for name in part.get(note, ())})) for note in names}
    return {note: files for note, files in joined.items() if files}


def _with_gaps(rows: RawRows, cleaning: Cleaning, notes: dict[str, int]) -> RawRows:
    """Rows of sequences with missing points for what is no measurement, which is counted."""
    if not isinstance(rows.values, ArrayValues):
        return rows
    values, counts = cleaning.with_gaps(rows.values.array)
    for name, count in counts.items():
        notes[name] = notes.get(name, 0) + count
    return replace(rows, values=ArrayValues(values))


def _schema(found: Found, task: Task, train: _Part) -> SignalSchema:
    classes = ordered_classes(train.answer) if task.of_classes else ()
    size, missing = found.shape[1:], False
    if train.values.ndim == 3:
        length = int(lengths_of(train.values).max(initial=1))
        size, missing = (length,), bool(np.isnan(train.values[:, :, :length]).any())
    group = found.group_column if train.groups is not None else None
    return SignalSchema(
        found.kind,
        found.target,
        task.name,
        classes,
        found.shape[0],
        size,
        missing,
        group,
        columns=found.columns,
        id_column=found.id_column,
        order_column=found.order_column,
        channels_last=found.channels_last,
        bits=found.bits,
        encoding=found.encoding,
        sheet=found.sheet,
    )


def _divided(
    found: Found,
    schema: SignalSchema,
    fingerprint: str,
    train: _Part,
    test: _Part,
    origin: Literal["file", "held-out"],
    notes: dict[str, int],
) -> SignalSet:
    known = (
        test.answer.is_in(list(schema.classes)).to_numpy()
        if schema.classes
        else np.ones(len(test.answer), dtype=bool)
    )
    if (
        not known.all()
    ):  # held out by group, or lost with a file: a class that only the test rows have cannot be learnt
        notes["test_rows_of_unseen_class"] = notes.get("test_rows_of_unseen_class", 0) + int((~known).sum())
        groups = None if test.groups is None else test.groups.filter(known)
        names = tuple(name for name, good in zip(test.names, known, strict=True) if good)
        test = _Part(test.values[known], test.answer.filter(known), groups, names)
    if test.values.ndim == 3:
        notes["cut_sequences"] = int((lengths_of(test.values) > schema.size[0]).sum())
    return SignalSet(
        found.name,
        found.origin,
        fingerprint,
        schema,
        _dataset(train, schema, found.origin),
        _dataset(test, schema, found.origin),
        {what: count for what, count in notes.items() if count},
        origin,
        train.names,
        test.names,
        found.ignored,
        steps=found.steps,
        told=found.told,
    )


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
