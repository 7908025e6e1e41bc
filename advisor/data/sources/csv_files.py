"""A CSV in UTF-8 -> a frame: repaired step by step, then read by polars, or where that fails by the patient
reader.
"""

from __future__ import annotations

import contextlib
import csv
import io
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import polars as pl

from advisor.data.sources.dialect import HEAD_BYTES, CsvDialect, divided_by_blanks, sniffed_dialect
from advisor.data.sources.isolated_files import POLARS_ERRORS
from advisor.data.sources.source import MAX_COLUMNS, Source, checked_source
from advisor.errors import UserError, shown

SLOW_BYTES = 200 * 10**6
"""Up to this size a CSV that polars refuses is read again by Python's more patient csv module."""
INFER_ROWS = 10_000
"""Rows from which polars guesses a CSV's column types; when a later row disagrees, all rows are looked at."""
_COMMENTS = rb"(?:\|[^|\r\n]*\r?\n)+(?=[^|\r\n]+[\r\n])"
"""Lines that the UCI archive puts first, a bar and a remark; no bar divides the columns then."""


class NotUnicodeError(Exception):
    """The text is in another encoding than UTF-8."""


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
        return self.content[:HEAD_BYTES]

    @cached_property
    def dialect(self) -> CsvDialect:
        return sniffed_dialect(self.head, self.text, len(self.content) > HEAD_BYTES)

    def repaired(self, content: bytes, cut_lines: int = 0) -> _CsvText:
        """The same with other content, of which this many lines are gone."""
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
    if len(csv_text.dialect.names) > 1 or csv_text.quotes or not divided_by_blanks(csv_text.head):
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


def read_csv_text(path: Path, text: str, name: str, data: bytes | None) -> Source:
    """data: the content where that is not the file's. Raises NotUnicodeError."""
    with contextlib.ExitStack() as stack:
        content = data if data is not None else stack.enter_context(_mapped(path))
        if (position := content.find(b"\0")) >= 0:
            raise UserError(
                f"{text} has a NUL byte at offset {position:,}: it is damaged, or not a text file"
            )
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
    rows = _without_repeated_headers(frame, dialect.names)
    counts = {"lines_above_header": csv_text.above, "repeated_headers": frame.height - rows.height}
    notes = {what: count for what, count in counts.items() if count}
    texts = partial(_one_as_text, where, dialect)
    return replace(checked_source(rows, dialect.names, name, text, notes), texts=texts)


def _parsed(csv_text: _CsvText, where: Path | bytes) -> pl.DataFrame:
    """By polars; where that fails, or fills rows that are too short in silence, by the patient reader."""
    try:
        frame = _fast(where, csv_text.dialect) if csv_text.quotes % 2 == 0 else None
    except POLARS_ERRORS as error:
        if "utf-8" in str(error):
            raise NotUnicodeError from error
        if len(csv_text.content) > SLOW_BYTES:
            raise UserError(f"{csv_text.text} cannot be read as CSV: {shown(error, 160)}") from error
        frame = None
    if frame is None or _has_short_rows(csv_text.content, frame, csv_text.dialect, csv_text.quotes):
        return _slow(csv_text.content[:], csv_text.dialect, csv_text.text, csv_text.above)
    return frame


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _count(content: bytes | mmap.mmap, byte: bytes) -> int:
    """How often the byte occurs; in pieces, so that a mapped file is never copied whole."""
    return sum(content[at : at + (1 << 24)].count(byte) for at in range(0, len(content), 1 << 24))


def _without_repeated_headers(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Without the rows that repeat the header, as files have that were joined end to end."""
    if not frame.width or any(dtype != pl.String for dtype in frame.dtypes):
        return frame  # a name stands in no column of numbers
    again = pl.all_horizontal(
        pl.col(column).str.strip_chars() == name.strip()
        for column, name in zip(frame.columns, names, strict=True)
    )
    return frame.filter(~again.fill_null(value=False))


def _fast(where: Path | bytes, dialect: CsvDialect) -> pl.DataFrame:
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


def _one_as_text(where: Path | bytes, dialect: CsvDialect, position: int) -> pl.Series:
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


def _has_short_rows(
    content: bytes | mmap.mmap, frame: pl.DataFrame, dialect: CsvDialect, quotes: int
) -> bool:
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


def _slow(content: bytes, dialect: CsvDialect, text: str, above: int) -> pl.DataFrame:
    """Read with Python's csv module, which allows a stray quote; names the first line that is wrong."""
    if len(content) > SLOW_BYTES:
        raise UserError(f"{text} cannot be read as CSV: a quote is left open, or rows differ in length")
    try:
        body = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotUnicodeError from error
    before, complaint = csv.field_size_limit(len(body) + 100), ""
    try:
        for skip in (False, True):  # blanks behind a delimiter, where a quote may follow them
            rows, wrong = _strict_rows(body, dialect, above, skip)
            if not wrong:
                columns = zip(*rows[1:], strict=True) if rows[1:] else [()] * len(dialect.names)
                return pl.DataFrame([pl.Series(str(i), c, dtype=pl.String) for i, c in enumerate(columns)])
            complaint = complaint or wrong
    except csv.Error as error:
        complaint = str(error)
    finally:
        csv.field_size_limit(before)
    raise UserError(f"{text}: {complaint}; fix that line, or the delimiter or quotes in it")


def _strict_rows(body: str, dialect: CsvDialect, above: int, skip: bool) -> tuple[list[list[str]], str]:
    """The rows, the header among them, up to the first that is wrong, and what is wrong with it.
    above: lines that were cut off before the text."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=dialect.delimiter, skipinitialspace=skip)
    width, began = len(dialect.names), 1
    for row in reader:
        if row and len(row) != width:
            return rows, f"line {above + began} has {len(row)} fields, the header has {width}"
        rows += [row] if row else []
        began = reader.line_num + 1
    left_open = _left_open(body, dialect.delimiter, skip)
    return rows, "a quote is opened and never closed" if left_open else ""


def _left_open(body: str, delimiter: str, skip: bool) -> bool:
    """Whether the text ends inside a quoted field: then a line added at its end does not become a row."""
    reader = csv.reader(
        io.StringIO(body + "\nsentinel", newline=""), delimiter=delimiter, skipinitialspace=skip
    )
    *_, last = reader
    return last != ["sentinel"]
