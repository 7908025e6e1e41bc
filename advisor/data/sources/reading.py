"""Raw reading: any source a person may name -> a polars frame with unique column
names, nothing interpreted yet.

Every failure that the user can fix is a UserError. What was quietly repaired is counted in ``Source.notes``.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import mmap
import re
import resource
import socket
import stat
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from advisor.data import isolation
from advisor.data.sources.table_worker import nested_column
from advisor.data.sources.text_encoding import NAMES, checked_encoding, decodes, find_encoding
from advisor.errors import UserError, did_you_mean
from advisor.errors import shown as shown  # most modules that read data take it from here

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 20 * 10**9
"""Largest uncompressed size that is read, in bytes, unless the caller says otherwise."""
MAX_COLUMNS = 10_000
"""A table with more columns is refused: it is nearly always a transposed table or a wrong delimiter."""
SLOW_BYTES = 200 * 10**6
"""Up to this size a CSV that polars refuses is read again by Python's more patient csv module."""
INFER_ROWS = 10_000
"""Rows from which polars guesses a CSV's column types; when a later row disagrees, all rows are looked at."""

OPENML_SECONDS = 15.0
"""How long one answer of openml.org is waited for."""

_HEAD_BYTES = 1 << 18
_COMMENTS = rb"(?:\|[^|\r\n]*\r?\n)+(?=[^|\r\n]+[\r\n])"
"""Lines that the UCI archive puts first, a bar and a remark; no bar divides the columns then."""
_DELIMITERS = (",", ";", "\t", "|")
_WORD_BEGINS = frozenset("tTfF0")
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive; unpack it (a spreadsheet keeps its ending: .xlsx, .ods)",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"ARROW1": "a Feather (Arrow) file; save it as Parquet",
    b"BZh": "compressed with bzip2; unpack it, or use gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or use gzip",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"SQLite format 3": "a SQLite database; export the table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x93NUMPY": "a NumPy file; save it as CSV or Parquet",
    b"\x89HDF": "an HDF5 file; save its arrays with numpy.savez as .npz, its tables as Parquet",
    b"MATLAB 5.0": "a MATLAB file; save its arrays with numpy.savez as .npz",
    b"RIFF": "a sound or a video; save the signals with numpy.savez as .npz",
    **{
        b"\x80" + bytes([version]): "a pickle, which is never read; save tables as Parquet, arrays as .npz"
        for version in (2, 3, 4, 5)
    },
    b"\x7fELF": "a program",
}
_WORKER = "advisor.data.sources.table_worker"
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_ABOVE = 20
"""At most so many lines of a title, a date, a source are looked for above the header."""
# Polars reports some broken files by a Rust panic, which is no PolarsError.
_POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


@dataclass(frozen=True)
class Source:
    """A frame as it was read: its short name, where it came from, and what was repaired while reading.

    told: what else a person should know of how it was read, as code -> sentence.
    encoding: of a text that is not Unicode;
    sheet: of a spreadsheet; else "".
    given: the pandas frame that it was made from.
    texts: of a file without types, its column at a position as text.
    """

    frame: pl.DataFrame
    name: str
    origin: str
    notes: dict[str, int]
    told: dict[str, str] = field(default_factory=dict)
    encoding: str = ""
    sheet: str = ""
    given: Any = None
    texts: Callable[[int], pl.Series] | None = None

    def noting(self, what: str, count: int) -> Source:
        """The same with so many more of a note."""
        return replace(self, notes=self.notes | {what: self.notes.get(what, 0) + count})

    def as_written(self, name: str) -> pl.Series:
        """A column as text where the file has no types and it was read as numbers: 1.10
        is other than 1.1; else as it is."""
        cells = self.frame[name]
        if self.texts is None or not cells.dtype.is_numeric():
            return cells
        written = self.texts(self.frame.columns.index(name))
        return written.alias(name) if len(written) == len(cells) else cells


@dataclass(frozen=True)
class FileForm:
    """How a file is to be read where it does not say so itself.

    encoding: of a text, but one that begins with the mark of Unicode.
    sheet: the name of a spreadsheet's sheet. Each None to find it out.
    remembered: they are those of the training rows; new rows may be in UTF-8, or in a sheet of another name.
    """

    encoding: str | None = None
    sheet: str | None = None
    remembered: bool = False


def total_memory() -> int:
    """Bytes of memory of the machine, or of the container that this process runs in."""
    return min(_bounds("MemTotal", used=False), default=8 * 10**9)


def available_memory() -> int:
    """Bytes of memory that this process may still take: the machine's, its container's and its own limit."""
    bounds = _bounds("MemAvailable", used=True)
    with contextlib.suppress(OSError, ValueError):
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            bounds.append(
                soft - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
            )
    return max(min(bounds, default=8 * 10**9), 0)


def _bounds(entry: str, *, used: bool) -> list[int]:
    """What /proc/meminfo and the control group say, in bytes; less what the group has used already."""
    bounds = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds.append(1024 * int(next(line for line in lines if line.startswith(entry)).split()[1]))
    group = Path("/sys/fs/cgroup")
    for limit, taken in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            bounds.append(
                int((group / limit).read_text()) - (int((group / taken).read_text()) if used else 0)
            )
    return bounds


def unique_names(names: Sequence[object]) -> tuple[list[str], dict[str, int]]:
    """Column names made usable: stripped, an empty one named by its position, a repeated one numbered.

    The same names always give the same result, so new rows meet the names that were used for training.
    Returns the names and how many were empty or repeated.
    """
    wanted = [str(name).strip() or f"column_{position}" for position, name in enumerate(names, 1)]
    taken, used = set(wanted), set[str]()
    unique = []
    for name in wanted:
        free = name
        for number in itertools.count(2):
            if free not in used and (free == name or free not in taken):
                break
            free = f"{name}_{number}"
        used.add(free)
        unique.append(free)
    notes = {
        "empty_names": sum(not str(name).strip() for name in names),
        "duplicate_names": sum(new != old for new, old in zip(unique, wanted, strict=True)),
    }
    return unique, {what: count for what, count in notes.items() if count}


def with_unique_names(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its columns' names made usable."""
    unique, _ = unique_names(frame.columns)
    return frame.rename(dict(zip(frame.columns, unique, strict=True))) if unique != frame.columns else frame


def read_source(source: object, *, max_bytes: int = MAX_BYTES, form: FileForm | None = None) -> Source:
    """Read a path, ``sklearn:NAME``, ``openml:ID`` or a data frame; UserError for whatever cannot be read.

    max_bytes: refuse more than so many uncompressed bytes (never more than the memory that is free).
    form: passed over where a source has no use for it: test rows may come in another format.
    """
    if isinstance(source, pl.LazyFrame):
        raise UserError("the data is a polars LazyFrame; call .collect() on it first")
    if isinstance(source, pl.DataFrame):
        return _checked(source, source.columns, "data-frame", "polars.DataFrame", {})
    if (
        type(source).__module__.partition(".")[0] == "pandas"
        and hasattr(source, "iloc")
        and hasattr(source, "columns")
    ):
        return replace(_from_pandas(source, "data-frame", "pandas.DataFrame"), given=source)
    if isinstance(source, str) and source.startswith(("sklearn:", "openml:")):
        kind, _, name = source.partition(":")
        return _from_sklearn(name, source) if kind == "sklearn" else _from_openml(name, source)
    if isinstance(source, str | Path):
        return _read_path(source, max_bytes, form or FileForm())
    raise UserError(
        f"the data is a {type(source).__name__}; expected a file's path, 'sklearn:NAME', 'openml:ID', "
        "or a pandas or polars DataFrame"
    )


def _checked(
    frame: pl.DataFrame, names: Sequence[object], name: str, origin: str, notes: dict[str, int]
) -> Source:
    """The last steps for every source: size, plain column types, unique names."""
    if frame.width > MAX_COLUMNS:
        raise UserError(f"{shown(origin)} has {frame.width:,} columns; at most {MAX_COLUMNS:,} are read")
    unique, repaired = unique_names(names)
    frame = frame.rename(dict(zip(frame.columns, unique, strict=True))) if unique != frame.columns else frame
    odd = [column for column, dtype in frame.schema.items() if dtype.is_nested() or not _plain(dtype)]
    if odd:
        raise UserError(nested_column(shown(origin), odd[0], str(frame.schema[odd[0]]), len(odd)))
    return Source(frame, name, origin, notes | repaired)


def _plain(dtype: pl.DataType) -> bool:
    known = (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)
    return dtype.is_numeric() or dtype.is_temporal() or dtype in known


def _from_pandas(data: Any, name: str, origin: str, notes: dict[str, int] | None = None) -> Source:
    """Column by column, by position: duplicate names and mixed objects would
    stop a conversion in one piece."""
    if data.shape[1] > MAX_COLUMNS:
        raise UserError(f"{origin} has {data.shape[1]:,} columns; at most {MAX_COLUMNS:,} are read")
    columns = [_pandas_series(data.iloc[:, position], str(position)) for position in range(data.shape[1])]
    return _checked(pl.DataFrame(columns), _flat(data.columns), name, origin, notes or {})


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


def _from_sklearn(name: str, origin: str) -> Source:
    from sklearn import datasets

    loaders = ("iris", "wine", "breast_cancer", "diabetes", "digits")
    if name not in loaders:
        raise UserError(
            f"unknown data set '{shown(origin)}'{did_you_mean(name, loaders)}; scikit-learn bundles "
            f"{', '.join(loaders)} (a set that must be downloaded is read with openml:ID)"
        )
    bunch = getattr(datasets, f"load_{name}")()
    target = bunch.target if name in ("diabetes", "digits") else bunch.target_names[bunch.target].astype(str)
    columns = {str(column): bunch.data[:, position] for position, column in enumerate(bunch.feature_names)}
    frame = pl.DataFrame(columns).with_columns(pl.Series("target", target.tolist()))
    return _checked(frame, frame.columns, name, origin, {})


def _from_openml(name: str, origin: str) -> Source:
    from sklearn.datasets import fetch_openml

    if not name.strip():
        raise UserError("openml: needs a number or a name, as in openml:31 or openml:credit-g")
    which: dict[str, Any] = {"data_id": int(name)} if name.isdecimal() else {"name": name}
    before = socket.getdefaulttimeout()
    # fetch_openml opens its URLs without a timeout: without this a dead network hangs for minutes.
    socket.setdefaulttimeout(OPENML_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bunch = fetch_openml(**which, as_frame=True, parser="auto", n_retries=1, delay=0.1)
    except OSError as error:
        raise UserError(
            f"{shown(origin)} could not be fetched from openml.org ({shown(error)}); is there a network? "
            "A downloaded CSV or Parquet file works without one"
        ) from error
    except Exception as error:  # fetch_openml raises anything from its own errors to KeyError on odd answers
        raise UserError(f"{shown(origin)} could not be read: {shown(error, 200)}") from error
    finally:
        socket.setdefaulttimeout(before)
    return _from_pandas(bunch.frame, f"openml-{name}", origin)


# ------------------------------------------------------------------------------------------------------ files


def _read_path(source: str | Path, max_bytes: int, form: FileForm) -> Source:
    text = shown(source, 200)
    path = Path(source)
    size = _regular_file(path, text)
    limit = min(max_bytes, available_memory())
    if size > limit:
        raise UserError(
            f"{text} has {size:,} bytes; at most {limit:,} are read (max_bytes, or the memory that is free)"
        )
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{text} cannot be read: {error.strerror or error}") from error
    name = (
        re.sub(r"(\.(csv|tsv|txt|tab|parquet|pq|gz|xls[xmb]?|ods))+$", "", path.name, flags=re.IGNORECASE)
        or path.name
    )
    if head.startswith(b"PAR1"):
        frame, names = _read_parquet(path, text, limit)
        return _checked(frame, names, name, text, {})
    if path.suffix.lower() in (".parquet", ".pq"):
        raise UserError(f"{text} is not a Parquet file (it does not begin with PAR1); is it complete?")
    data: bytes | None = None
    try:
        if path.suffix.lower() in _SPREADSHEETS and head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            data, sheet, told = _read_sheet(path, text, form, limit)
            read = _read_text(path, text, name, data, data[:_HEAD_BYTES], FileForm())
            return replace(read, sheet=sheet, told=told | read.told)
        if head.startswith(b"\x1f\x8b"):
            data = _unzipped(path, text, max_bytes)
            head = data[:_HEAD_BYTES]
        return _read_text(path, text, name, data, head, form)
    except MemoryError as error:
        raise UserError(f"{text} does not fit into the memory that is free") from error


def _regular_file(path: Path, text: str) -> int:
    """Size in bytes of a plain, non-empty file; anything else is refused before
    it is opened (a FIFO would block)."""
    if re.match(r"[a-z][a-z0-9+]+://", str(path).replace(":/", "://", 1)):
        raise UserError(f"{text} is an address; download the file first and give its path")
    try:
        info = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise UserError(
                f"{text} is a link to {shown(path.readlink(), 200)}, which does not exist"
            ) from error
        folder = path.parent
        near = (
            did_you_mean(path.name, (p.name for p in itertools.islice(folder.iterdir(), 1000)))
            if folder.is_dir()
            else ""
        )
        raise UserError(f"{text} does not exist{shown(near)}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{text} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(info.st_mode):
        raise UserError(f"{text} is a directory; expected a CSV, Parquet or spreadsheet file")
    if not stat.S_ISREG(info.st_mode):
        raise UserError(f"{text} is not a regular file (a pipe or a device); save the data to a file first")
    if info.st_size == 0:
        raise UserError(f"{text} is empty; expected a CSV file with a header line, or Parquet")
    return info.st_size


def first_rows(path: Path, rows: int) -> pl.DataFrame:
    """Of a Parquet file; none where it cannot be read: reading the whole of it says why."""
    try:
        frame, names = _read_parquet(path, shown(path, 200), available_memory(), rows)
    except UserError:
        return pl.DataFrame()
    return frame.rename(dict(zip(frame.columns, unique_names(names)[0], strict=True)))


def _read_parquet(
    path: Path, text: str, limit: int, rows: int | None = None
) -> tuple[pl.DataFrame, list[str]]:
    """The frame (or its first rows), its columns named by position, and the columns' own names."""
    order = {"do": "parquet", "path": str(path.absolute()), "text": text, "rows": rows}
    try:
        with isolation.answered(_WORKER, order, limit) as answer:
            import pyarrow as pa  # type: ignore[import-untyped]

            # mapped: the frame keeps it, and nothing is copied
            content = pa.memory_map(f"/dev/fd/{answer.file}").read_buffer(answer.size)
        frame = pl.from_arrow(pa.ipc.open_file(content).read_all())
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame(), answer.value
    except isolation.WorkerDied as error:
        raise UserError(
            f"{text} cannot be read as Parquet: its reader died; is it damaged, or made to harm?"
        ) from error
    except _POLARS_ERRORS as error:
        raise UserError(f"{text} cannot be read as Parquet: {shown(error, 160)}; is it complete?") from error
    except MemoryError as error:
        raise UserError(f"{text} does not fit into the memory that is free") from error


def _unzipped(path: Path, text: str, max_bytes: int) -> bytes:
    """The whole content of a gzip file, refused as soon as it grows past the limit."""
    # The content, its copy in the frame and what polars needs meanwhile are in
    # memory at once: a third of it each.
    limit = min(max_bytes, available_memory() // 3)
    content = bytearray()
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                content += chunk
                if len(content) > limit:
                    raise UserError(
                        f"{text} unpacks to more than {limit:,} bytes from {path.stat().st_size:,} packed "
                        "ones "
                        "(max_bytes, or a third of the memory that is free); unpack it and give a part of it"
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{text} is a damaged or incomplete gzip file ({shown(error)}); fetch it again"
        ) from error
    except MemoryError as error:
        raise UserError(f"{text} does not fit into the memory that is free once unpacked") from error
    if not content:
        raise UserError(f"{text} is empty once unpacked; expected a CSV file with a header line")
    return bytes(content)


def _read_sheet(path: Path, text: str, form: FileForm, limit: int) -> tuple[bytes, str, dict[str, str]]:
    """A sheet as CSV, so that titles above the header and the like are one matter; its
    name; what to tell of the choice."""
    # The sheet, its copy in the frame and what the reader needs meanwhile are in
    # memory at once: a third of it each.
    limit = min(limit, available_memory() // 3)
    for careful in (False, True):
        order: dict[str, Any] = {
            "do": "sheet",
            "path": str(path.absolute()),
            "text": text,
            "sheet": form.sheet,
        }
        order |= {"careful": careful, "or_another": form.remembered}
        try:
            with isolation.answered(_WORKER, order, limit) as answer:
                return answer.content(), answer.value["sheet"], _told_of_sheet(answer.value)
        except (isolation.WorkerDied, MemoryError):
            if path.suffix.lower() not in (".xlsx", ".xlsm"):
                break
            # else perhaps one that lies about its extent: every cell is looked at
    needs = f"{text} needs more than {limit:,} bytes of memory to be read, or is damaged"
    raise UserError(f"{needs}; save the sheet as CSV or Parquet")


def _told_of_sheet(found: Mapping[str, Any]) -> dict[str, str]:
    told = {}
    name = shown(found["sheet"], 40)
    if others := [other for other in found["sheets"] if other != found["sheet"]]:
        some = ", ".join(f"'{shown(other, 40)}'" for other in others[:8])
        told["other-sheets"] = (
            f"The sheet '{name}' was read; not read: {some}. --sheet NAME reads another one."
        )
    if found["reach"]:
        told["far-cells"] = (
            f"Sheet '{name}': {found['reach']}. These do not count; is a cell left behind there?"
        )
    return told


# -------------------------------------------------------------------------------------------------------- CSV


@dataclass(frozen=True)
class _Dialect:
    """header_lines: physical lines up to the header's end.
    above: those of a title before it, and above_bytes their bytes."""

    delimiter: str
    names: list[str]
    header_lines: int
    decimal_comma: bool
    words: tuple[int, ...]  # positions of columns of true/false or 007: polars would lose their spelling
    above: int = 0
    above_bytes: int = 0


class _NotUnicode(Exception):
    """The text is in another encoding than UTF-8."""


def _read_text(path: Path, text: str, name: str, data: bytes | None, head: bytes, form: FileForm) -> Source:
    """A CSV in any encoding;
    data: its content where that is not the file's."""
    _refuse_other_formats(text, head)
    encoding = _unicode(head)
    if form.encoding is not None and not form.remembered and encoding in ("", "utf-8"):
        encoding = checked_encoding(form.encoding)
    if encoding == "utf-8":
        try:
            if b"\r" in head and b"\n" not in head:
                data = (path.read_bytes() if data is None else data).replace(b"\r", b"\n")
            return _read_csv(path, text, name, data)
        except _NotUnicode:
            if form.encoding is not None and not form.remembered:
                raise UserError(
                    f"{text} is not in UTF-8 throughout; leave the encoding out, and it is found out"
                ) from None
    content, encoding, told = _transcoded(path.read_bytes() if data is None else data, encoding, text, form)
    read = _read_csv(path, text, name, content)
    return replace(read, encoding=encoding, told=told | read.told)


def _transcoded(data: bytes, encoding: str, text: str, form: FileForm) -> tuple[bytes, str, dict[str, str]]:
    """As UTF-8; the encoding where it is none of Unicode, else ""; what to tell of it.
    encoding: "" or "utf-8" to find it out."""
    told = {}
    if encoding in ("", "utf-8", "utf-8-sig") and not decodes(data, encoding or "utf-8"):
        if form.encoding is not None and decodes(data, form.encoding):
            encoding = form.encoding
        else:
            found = find_encoding(data.removeprefix(codecs.BOM_UTF8), text)
            encoding = found.name
            others = f", or as likely {' or '.join(found.others)}" if found.others else ""
            told["encoding"] = (
                f"The text is not UTF-8 and was read as {NAMES[found.name]}: {found.name}{others}. "
                "If letters look wrong, name its encoding with --encoding."
            )
    try:
        content = data.decode(encoding).encode("utf-8")
    except UnicodeError as error:
        at = f" at byte {error.start:,}" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"{text} is not in {encoding}, or damaged{at}") from error
    return content.removeprefix(codecs.BOM_UTF8), "" if encoding.startswith("utf") else encoding, told


def unicode_text(content: bytes, text: str, form: FileForm) -> str:
    """A small file's text, its encoding found out where it is not UTF-8 and ``form`` names none."""
    asked = form.encoding is not None and not form.remembered and not content.startswith(codecs.BOM_UTF8)
    return _transcoded(content, checked_encoding(str(form.encoding)) if asked else "utf-8", text, form)[
        0
    ].decode()


@dataclass(frozen=True)
class _CsvText:
    """A CSV as it is about to be read.

    content: all of it, mapped where nothing was repaired. own: the file's, unchanged.
    above: lines that were cut off before it, for the numbers in messages and the note.
    """

    content: bytes | mmap.mmap
    text: str
    own: bool
    above: int = 0

    @cached_property
    def quotes(self) -> int:
        return _count(self.content, b'"') if self.content.find(b'"') >= 0 else 0

    @cached_property
    def head(self) -> bytes:
        return self.content[:_HEAD_BYTES]

    @cached_property
    def dialect(self) -> _Dialect:
        return _sniffed(self.head, self.text, len(self.content) > _HEAD_BYTES)

    def repaired(self, content: bytes, cut_lines: int = 0) -> _CsvText:
        """The same with other content, of which so many lines are gone."""
        return _CsvText(content, self.text, own=False, above=self.above + cut_lines)


def _without_remarks(csv_text: _CsvText) -> _CsvText | None:
    """Lines of a bar and a remark before the table (see _COMMENTS)."""
    remarks = re.match(_COMMENTS, csv_text.content)
    if remarks is None:
        return None
    return csv_text.repaired(csv_text.content[remarks.end() :], remarks[0].count(b"\n"))


def _without_blank_lines(csv_text: _CsvText) -> _CsvText | None:
    """Polars would make rows of them; inside quotes they are text."""
    if csv_text.quotes or not re.search(rb"\n\r?\n", csv_text.content):
        return None
    return csv_text.repaired(re.sub(rb"\n(\r?\n)+", b"\n", csv_text.content[:]))


def _with_tabs(csv_text: _CsvText) -> _CsvText | None:
    """Columns that blanks align."""
    if len(csv_text.dialect.names) > 1 or csv_text.quotes or not _is_aligned(csv_text.head):
        return None
    tabbed = re.sub(rb"[ \t]+", b"\t", csv_text.content[:].strip(b" \t"))
    return csv_text.repaired(re.sub(rb"[ \t]*(\r?\n)[ \t]*", rb"\1", tabbed))


def _without_title(csv_text: _CsvText) -> _CsvText | None:
    """Lines of a title above the header."""
    dialect = csv_text.dialect
    if not dialect.above:
        return None
    return csv_text.repaired(csv_text.content[dialect.above_bytes :], dialect.above)


_REPAIRS = (_without_remarks, _without_blank_lines, _with_tabs, _without_title)
"""What may stand in the way of reading a CSV. The first that applies is made, until none does."""


def _read_csv(path: Path, text: str, name: str, data: bytes | None) -> Source:
    """data: the content where that is not the file's. Raises _NotUnicode."""
    with contextlib.ExitStack() as stack:
        content = data if data is not None else stack.enter_context(_mapped(path))
        if (position := content.find(b"\0")) >= 0:
            raise UserError(f"{text} has a NUL byte at offset {position:,}: it is damaged, or no text file")
        csv_text = _CsvText(content, text, own=data is None)
        while (repaired := next(filter(None, (repair(csv_text) for repair in _REPAIRS)), None)) is not None:
            csv_text = repaired
        dialect = csv_text.dialect
        if len(dialect.names) > MAX_COLUMNS:
            raise UserError(
                f"{text} has more than {MAX_COLUMNS:,} columns, the most that are read; is it transposed?"
            )
        where = path if csv_text.own else csv_text.content[:]
        frame = _parsed(csv_text, where)
    notes = {"lines_above_header": csv_text.above} if csv_text.above else {}
    frame = _without_repeated_headers(frame, dialect.names, notes)
    texts = partial(_one_as_text, where, dialect)
    return replace(_checked(frame, dialect.names, name, text, notes), texts=texts)


def _parsed(csv_text: _CsvText, where: Path | bytes) -> pl.DataFrame:
    """By polars; where that fails, or fills rows that are too short in silence, by the patient reader."""
    try:
        frame = _fast(where, csv_text.dialect) if csv_text.quotes % 2 == 0 else None
    except _POLARS_ERRORS as error:
        if "utf-8" in str(error):
            raise _NotUnicode from error
        if len(csv_text.content) > SLOW_BYTES:
            raise UserError(f"{csv_text.text} cannot be read as CSV: {shown(error, 160)}") from error
        frame = None
    if frame is None or _has_short_rows(csv_text.content, frame, csv_text.dialect, csv_text.quotes):
        return _slow(csv_text.content[:], csv_text.dialect, csv_text.text, csv_text.above)
    return frame


def _refuse_other_formats(text: str, head: bytes) -> None:
    for magic, what in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise UserError(f"{text} is {what}; expected CSV or Parquet")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise UserError(f"{text} is an HTML or XML page, not a table; was a login or error page downloaded?")
    if re.match(rb"\[?\s*\{\s*\"", start):
        raise UserError(f"{text} is JSON; expected CSV or Parquet")
    if not start:
        raise UserError(f"{text} holds nothing but blank space; expected CSV with a header line, or Parquet")
    controls = sum(
        head.count(code) for code in range(1, 32) if code not in b"\t\n\r\x0b\x0c\x1b\x1a\x1c\x1d\x1e\x1f"
    )
    if controls * 50 > len(head) or (head.count(0) and controls):
        raise UserError(f"{text} is a binary file, not text; expected CSV or Parquet")


def _unicode(head: bytes) -> str:
    """Which form of Unicode a text begins in; "" where it is none."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= 4 and max(even, odd) * 4 > len(head) and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut by the end of the piece that was read is no sign of another encoding.
        if error.start < len(head) - 3 or len(head) < _HEAD_BYTES:
            return ""
    return "utf-8"


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _count(content: bytes | mmap.mmap, byte: bytes) -> int:
    """How often the byte occurs; in pieces, so that a mapped file is never copied whole."""
    return sum(content[at : at + (1 << 24)].count(byte) for at in range(0, len(content), 1 << 24))


def _sniffed(head: bytes, text: str, cut: bool) -> _Dialect:
    """Delimiter, header and decimal mark from the beginning of the file."""
    start = head.decode("utf-8", errors="ignore")
    best: tuple[float, int] = (-1.0, 0)
    chosen, rows, lines, above = ",", [[""]], 1, 0
    for delimiter in _DELIMITERS:
        found = _first_rows(start, delimiter, cut)
        if not found:
            continue
        header = _header_position([row for row, _, _ in found])
        found = found[header:]
        width = len(found[0][0])
        score = (sum(len(row) == width for row, _, _ in found) / len(found) if width > 1 else 0.0, width)
        if score > best:
            (_, began, ended), best, chosen = found[0], score, delimiter
            rows, lines, above = [row for row, _, _ in found], ended, began if header else 0
    if best[1] == 0:
        raise UserError(f"{text}: the header line cannot be read as CSV; is a quote left open?")
    body = rows[1:]
    cells = [cell for row in body for cell in row]
    comma = point = 0
    if chosen != ",":
        comma = sum(bool(re.fullmatch(r"[-+]?\d+,\d+", cell)) for cell in cells)
        point = sum(bool(re.fullmatch(r"[-+]?\d+\.\d+", cell)) for cell in cells)
    words = (
        position
        for position in range(best[1])
        if any(r[position : position + 1] and _is_word(r[position]) for r in body)
    )
    before = "".join(itertools.islice(io.StringIO(start, newline=""), above))
    return _Dialect(chosen, rows[0], lines, comma > point, tuple(words), above, len(before.encode()))


def _is_aligned(head: bytes) -> bool:
    """Whether blanks divide columns: every line has as many words as the header,
    and at least half are numbers."""
    lines = head.splitlines()
    lines = lines[:-1] if len(head) >= _HEAD_BYTES else lines  # the last one may be cut
    rows = [line.split() for line in lines[:200] if line.strip()]
    width = len(rows[0]) if rows else 0
    numbers = sum(_is_number(cell.decode("utf-8", "ignore")) for row in rows[1:] for cell in row)
    return width > 1 and all(len(row) == width for row in rows) and 2 * numbers >= width * (len(rows) - 1)


def _is_word(cell: str) -> bool:
    return cell[:1] in _WORD_BEGINS and (
        cell.lower() in ("true", "false") or re.fullmatch(r"0\d+", cell) is not None
    )


def _first_rows(start: str, delimiter: str, cut: bool) -> list[tuple[list[str], int, int]]:
    """Up to 200 rows (the header among them), each with the numbers of lines before it and up to its end."""
    rows: list[tuple[list[str], int, int]] = []
    reader = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
    began = 0
    try:
        for row in itertools.islice(reader, 201):
            if row:
                rows.append((row, began, reader.line_num))
            began = reader.line_num
    except csv.Error:  # a cell longer than the module's limit; what came before it is enough
        pass
    return rows[:-1] if cut and len(rows) > 1 else rows


def _header_position(rows: Sequence[Sequence[str]]) -> int:
    """Which row has the names: the first, unless lines of a title stand above.

    Such a line fills at most half of the width that most rows have (a single cell, where it is padded to that
    width), and beneath it a row of that width has different texts in all of its cells.
    """
    widths = Counter(len(row) for row in rows)
    width = max(widths, key=lambda one: (widths[one], one))
    for position, row in enumerate(rows[: _ABOVE + 1]):
        filled = [cell.strip() for cell in row if cell.strip()]
        if len(row) == width and len(set(filled)) == width > 1 and not any(map(_is_number, filled)):
            return position
        if 2 * len(filled) > width or (len(row) == width and (len(filled) > 1 or width < 3)):
            return 0
    return 0


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]*\d[\d.,]*([eE][-+]?\d+)?", cell) is not None


def _without_repeated_headers(
    frame: pl.DataFrame, names: Sequence[str], notes: dict[str, int]
) -> pl.DataFrame:
    """Without the rows that repeat the header, as files have that were joined end to end."""
    if not frame.width or any(
        dtype != pl.String for dtype in frame.dtypes
    ):  # else a name stands in no column of numbers
        return frame
    again = pl.all_horizontal(
        pl.col(column).str.strip_chars() == name.strip()
        for column, name in zip(frame.columns, names, strict=True)
    )
    rows = frame.filter(~again.fill_null(value=False))
    if repeated := frame.height - rows.height:
        notes["repeated_headers"] = repeated
    return rows


def _fast(where: Path | bytes, dialect: _Dialect) -> pl.DataFrame:
    """Polars reads it; when the types guessed from the first rows are wrong,
    they are guessed from all rows."""

    def read(infer: int | None, texts: Sequence[str] = (), rows: int | None = None) -> pl.DataFrame:
        return pl.read_csv(
            where,
            has_header=False,
            skip_lines=dialect.header_lines,
            separator=dialect.delimiter,
            infer_schema_length=infer,
            decimal_comma=dialect.decimal_comma,
            schema_overrides=dict.fromkeys(texts, pl.String),
            n_rows=rows,
            glob=False,
        )

    try:
        names = (
            read(0, rows=1).columns if dialect.words else []
        )  # polars 1 counts them from 1, polars 2 from 0
        texts = [names[position] for position in dialect.words if position < len(names)]
        try:
            frame = read(INFER_ROWS, texts)
        except pl.exceptions.ComputeError as error:
            if "could not parse" not in str(error):
                raise
            frame = read(None, texts)
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame(schema=dict.fromkeys(map(str, range(len(dialect.names))), pl.String))
    if frame.width != len(dialect.names):
        raise ValueError(f"the header has {len(dialect.names)} names, the rows have {frame.width} fields")
    return frame


def _one_as_text(where: Path | bytes, dialect: _Dialect, position: int) -> pl.Series:
    """The column at a position, each cell as it is written."""
    return pl.read_csv(
        where,
        has_header=False,
        skip_lines=dialect.header_lines,
        separator=dialect.delimiter,
        infer_schema=False,
        columns=[position],
        glob=False,
    ).to_series()


def _has_short_rows(content: bytes | mmap.mmap, frame: pl.DataFrame, dialect: _Dialect, quotes: int) -> bool:
    """Polars fills a row that is too short with nulls in silence; counting the delimiters finds it out."""
    if frame.width == 1 or not frame.height or len(content) > SLOW_BYTES or not frame[:, -1].null_count():
        return False
    quoted = 0
    if quotes:
        texts = [column for column in frame.columns if frame.schema[column] == pl.String]
        counts = frame.select(pl.col(texts).str.count_matches(dialect.delimiter, literal=True).sum())
        quoted = sum(sum(filter(None, row)) for row in counts.rows())
        quoted += sum(name.count(dialect.delimiter) for name in dialect.names)
    expected = (frame.height + 1) * (frame.width - 1) + quoted
    return _count(content, dialect.delimiter.encode()) < expected


def _slow(content: bytes, dialect: _Dialect, text: str, above: int) -> pl.DataFrame:
    """Read with Python's csv module, which allows a stray quote; names the first line that is wrong."""
    if len(content) > SLOW_BYTES:
        raise UserError(f"{text} cannot be read as CSV: a quote is left open, or rows differ in length")
    try:
        body = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _NotUnicode from error
    width = len(dialect.names)
    before = csv.field_size_limit(len(body) + 100)
    complaint = ""
    try:
        for skip in (False, True):
            rows: list[list[str]] = []
            reader = csv.reader(
                io.StringIO(body, newline=""), delimiter=dialect.delimiter, skipinitialspace=skip
            )
            wrong, began = "", 1
            for row in reader:
                if row and len(row) != width:
                    wrong = f"line {above + began} has {len(row)} fields, the header has {width}"
                    break
                rows += [row] if row else []
                began = reader.line_num + 1
            if not wrong and _left_open(body, dialect.delimiter, skip):
                wrong = "a quote is opened and never closed"
            if not wrong:
                columns = zip(*rows[1:], strict=True) if rows[1:] else [()] * width
                return pl.DataFrame([pl.Series(str(i), c, dtype=pl.String) for i, c in enumerate(columns)])
            complaint = complaint or wrong
    except csv.Error as error:
        complaint = str(error)
    finally:
        csv.field_size_limit(before)
    raise UserError(f"{text}: {complaint}; fix that line, or the delimiter or quotes in it")


def _left_open(body: str, delimiter: str, skip: bool) -> bool:
    """Whether the text ends inside a quoted field: then a line added at its end does not become a row."""
    reader = csv.reader(
        io.StringIO(body + "\nsentinel", newline=""), delimiter=delimiter, skipinitialspace=skip
    )
    *_, last = reader
    return last != ["sentinel"]
