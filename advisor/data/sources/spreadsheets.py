"""One sheet of a spreadsheet -> CSV, within bounded memory; runs in a worker, for its
reader ends the process without memory.

A sheet is read as the rectangle around all of its cells: one cell in the last row makes a
million rows. So its extent is known first, and where most of it is empty, rows and columns
without a cell are taken out before it is read.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import fastexcel
import polars as pl

from advisor.errors import UserError, did_you_mean, shown

TABLE_ROWS = 10
"""The first sheet of this many rows of at least two cells is the table: a cover
sheet or a list of remarks has fewer."""
CELL_BYTES = 32
"""What the reader takes for each cell of the rectangle, also for an empty one."""
FEW_CELLS = 100_000
"""A rectangle of no more cells is read as it is."""
UNPACKED_SHARE = 1 / 3
"""A sheet may unpack to so much of the memory allowed: as cells it takes about three times as much."""
MOST_CAREFUL = 200 * 10**6
"""Bytes of a sheet of which every cell's place is looked at, which takes a second for 30 million."""
MOST_TAG = 1 << 20
_CHUNK = 1 << 20
_CELL = re.compile(rb"""(<(?:\w+:)?c\s(?:[^>]*?\s)?r\s*=\s*["'])([A-Z]{1,3})(\d{1,7})(?=["'])""")
_ROW = re.compile(rb"""(<(?:\w+:)?row\s(?:[^>]*?\s)?r\s*=\s*["'])(\d{1,7})(?=["'])""")
_PLAIN_ROW = re.compile(rb'<row r="(\d+)"')
_PLAIN_COLUMN = re.compile(rb' r="([A-Z]{1,3})\d')
_DIMENSION = re.compile(
    rb"""<(?:\w+:)?dimension\s+ref\s*=\s*["']([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})["']"""
)
_ODS_EMPTY = re.compile(  # a run of empty rows: the tags before and behind their number
    rb"""(<table:table-row\b[^>]*?\btable:number-rows-repeated=["'])\d{3,}(["'][^>]*>"""
    rb"""(?:<table:(?:covered-)?table-cell\b(?:(?!office:)[^>])*/>)*</table:table-row>)"""
)
_READING_ERRORS = (
    fastexcel.FastExcelError, pl.exceptions.PolarsError, pl.exceptions.PanicException,
    zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, ValueError,
)  # fmt: skip


def write_sheet(
    path: str,
    text: str,
    wanted: str | None,
    limit: int,
    out: IO[bytes],
    *,
    careful: bool,
    or_another: bool = False,
) -> dict[str, Any]:
    """Write the sheet ``wanted``, or the first that holds a table, to ``out`` as
    CSV without empty rows and columns.

    or_another: where there is no sheet ``wanted``, that is no mistake.
    text: the path for messages.
    limit: bytes that it may unpack to.
    careful: look at every cell's place, whatever the sheet says of its extent. Returns sheet (its name),
        sheets (all names) and reach, what to say of cells that lie far from the others, or "". Raises
        UserError where there is no such sheet or it cannot be read.
    """
    try:
        book = _Book(path, text, limit)
        name, frame, reach = _chosen(
            book, wanted if not or_another or wanted in book.names else None, careful
        )
    except _READING_ERRORS as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{text} cannot be read as a spreadsheet ({shown(first, 160)}); is it complete?"
        ) from error
    frame.write_csv(out, include_header=False)
    return {"sheet": name, "sheets": book.names, "reach": reach}


def _chosen(book: _Book, wanted: str | None, careful: bool) -> tuple[str, pl.DataFrame, str]:
    if wanted is not None:
        name = next((name for name in book.names if wanted in (name, name.strip())), None)
        if name is None:
            near = did_you_mean(wanted, book.names)
            raise UserError(
                f"{book.text} has no sheet '{shown(wanted, 40)}'{shown(near)}; its sheets are "
                f"{listed(book.names)}"
            )
        frame, reach = book.sheet(name, careful)
        if not frame.height:
            raise UserError(
                f"{book.text}: the sheet '{shown(name, 40)}' has no cells; its sheets are "
                f"{listed(book.names)}"
            )
        return name, frame, reach
    found: list[tuple[str, pl.DataFrame, str]] = []
    for name in book.names:
        frame, reach = book.sheet(name, careful)
        if frame.height:
            filled = frame.select(pl.sum_horizontal(pl.all().is_not_null())).to_series()
            if int((filled >= 2).sum()) >= TABLE_ROWS:
                return name, frame, reach
            found.append((name, frame, reach))
    if not found:
        raise UserError(f"{book.text} has no sheet with cells; expected a header line and rows")
    return found[0]


def listed(names: Sequence[str]) -> str:
    """Names of sheets for a message, at most eight."""
    return ", ".join(f"'{shown(name, 40)}'" for name in names[:8]) + (
        f" and {len(names) - 8} more" if names[8:] else ""
    )


@dataclass
class _Book:
    """A spreadsheet file. names: of its sheets, in their order."""

    path: str
    text: str
    limit: int

    def __post_init__(self) -> None:
        self._parts: dict[str, zipfile.ZipInfo] = {}
        self._common = 0
        if zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                self._parts = {entry.filename: entry for entry in archive.infolist()}
            for entry in self._parts.values():
                if not _is_sheet(entry):
                    self._common += sum(map(len, self._unpacked(entry, self._common)))
        content, self._reach = (
            self._small("content.xml"),
            "",
        )  # of an OpenDocument, whose sheets are all read when it is opened
        if (run := _ODS_EMPTY.search(content)) is not None:
            self._reach = (
                "it has cells behind many empty rows" if b"office:value" in content[run.end() :] else ""
            )
            content = _ODS_EMPTY.sub(rb"\g<1>1\g<2>", content)
            self._reader = fastexcel.read_excel(self._copied({"content.xml": iter([content])}))
        else:
            self._reader = fastexcel.read_excel(self.path)
        self.names = list(self._reader.sheet_names)
        self._of_sheet = _parts_of_sheets(
            self._small("xl/workbook.xml"), self._small("xl/_rels/workbook.xml.rels")
        )

    def sheet(self, name: str, careful: bool) -> tuple[pl.DataFrame, str]:
        """A sheet's rows of text without the empty ones and without empty
        columns; what to say of its extent."""
        reader, reach = self._reader, self._reach
        entry = self._parts.get(self._of_sheet.get(name, ""))
        if entry is not None and self._is_sparse(entry, careful):
            content, reach = self._compacted(entry)
            reader = fastexcel.read_excel(content)
        frame = reader.load_sheet(name, header_row=None, dtypes="string").to_polars()
        if not frame.width or not frame.height:
            return pl.DataFrame(), ""
        # a day is given as its midnight, and a time of day as one of the day before the spreadsheets' first
        days = pl.all().str.replace(r"^1899-12-3[01] ", "").str.replace(r"^(\d{4}-\d\d-\d\d) 00:00:00$", "$1")
        filled = pl.all().str.strip_chars().fill_null("") != ""
        used = [column for column, some in frame.select(filled.any()).row(0, named=True).items() if some]
        if not used:
            return pl.DataFrame(), ""
        return frame.filter(pl.any_horizontal(filled)).select(used).select(days), reach

    # -------------------------------------------------------------------------------------------- the archive

    def _unpacked(self, entry: zipfile.ZipInfo, before: int) -> Iterator[bytes]:
        """A part's content in pieces, counted as it is unpacked: what the
        archive says of its size may be a lie."""
        size = before
        for chunk in _inflated(self.path, entry):
            size += len(chunk)
            if size > self.limit * UNPACKED_SHARE:
                raise UserError(
                    f"{self.text} unpacks to more than {int(self.limit * UNPACKED_SHARE):,} bytes from "
                    f"{Path(self.path).stat().st_size:,} packed ones, more than free memory allows; save the "
                    "sheet as CSV or Parquet"
                )
            yield chunk

    def _small(self, name: str) -> bytes:
        return b"".join(self._unpacked(self._parts[name], 0)) if name in self._parts else b""

    def _copied(self, others: dict[str, Iterator[bytes]]) -> bytes:
        """The archive with other contents for some parts, and without the sheets that are not among these."""
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, entry in self._parts.items():
                if name in others or not _is_sheet(entry):
                    with archive.open(name, "w", force_zip64=True) as part:
                        for piece in others.get(name) or self._unpacked(entry, 0):
                            part.write(piece)
        return whole.getvalue()

    # --------------------------------------------------------------------------------------------- the extent

    def _is_sparse(self, entry: zipfile.ZipInfo, careful: bool) -> bool:
        """Whether the rectangle around a sheet's cells is mostly empty, or can't
        be told without a look at every cell.

        careful: it can't. A sheet may say its rectangle, but it may be wrong: rows
            and columns beyond it are looked for.
        """
        size, bottom, right, last, beyond = 0, 0, 0, 0, _PLAIN_COLUMN
        for chunk in self._unpacked(entry, self._common):
            if not size and (said := _DIMENSION.search(chunk)):
                bottom, right = int(said[4]), _number_of(said[3])
                beyond = re.compile(rb' r="([A-Z]{%d}[A-Z]*)\d' % (len(said[3]) + 1))
            size += len(chunk)
            last = max(last, *map(int, _PLAIN_ROW.findall(chunk)), 0)
            right = max(right, *map(_number_of, set(beyond.findall(chunk))), 0)
        cells = max(last, bottom) * right
        # no cell with a value is written in a single byte
        return size <= MOST_CAREFUL and (careful or not 0 < cells <= max(FEW_CELLS, size))

    def _compacted(self, entry: zipfile.ZipInfo) -> tuple[bytes, str]:
        """The archive with one sheet, whose rows and columns are numbered anew without
        the empty ones; what to say of them."""
        rows: set[int] = set()
        columns: set[bytes] = set()
        for piece in _tags(self._unpacked(entry, self._common)):
            for _, letters, digits in _CELL.findall(piece):
                columns.add(letters)
                rows.add(int(digits))
        if (size := len(rows) * len(columns) * CELL_BYTES) > self.limit:
            raise UserError(
                f"{self.text}: a sheet has cells in {len(rows):,} rows and {len(columns):,} columns, which "
                f"needs {size:,} bytes; "
                f"at most {self.limit:,} are read: save the sheet as CSV or Parquet"
            )
        order, names = sorted(rows), sorted(columns, key=_number_of)
        row_names = {str(row).encode(): str(place).encode() for place, row in enumerate(order, 1)}
        column_names = {name: _letters_of(place) for place, name in enumerate(names, 1)}

        def cell(found: re.Match[bytes]) -> bytes:
            return found[1] + column_names[found[2]] + (row_names.get(found[3]) or row_of(found[3]))

        def row(found: re.Match[bytes]) -> bytes:
            return found[1] + (row_names.get(found[2]) or row_of(found[2]))

        def row_of(digits: bytes) -> bytes:
            return str(bisect_left(order, int(digits)) + 1).encode()

        def numbered() -> Iterator[bytes]:
            for piece in _tags(self._unpacked(entry, self._common)):
                yield _ROW.sub(row, _CELL.sub(cell, piece))

        return self._copied({entry.filename: numbered()}), _reach(order, names)


def _reach(rows: Sequence[int], columns: Sequence[bytes]) -> str:
    """What to say of a sheet whose cells lie far apart, "" where they do not.
    rows, columns: those that have cells, in order."""
    empty_rows = rows[-1] - rows[0] + 1 - len(rows) if rows else 0
    empty_columns = _number_of(columns[-1]) - _number_of(columns[0]) + 1 - len(columns) if columns else 0
    if (empty_rows + 1) * (empty_columns + 1) <= FEW_CELLS // TABLE_ROWS:
        return ""
    return (
        f"its cells reach to {columns[-1].decode()}{rows[-1]}, with {empty_rows:,} empty rows and "
        f"{empty_columns:,} empty columns between"
    )


def _is_sheet(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.startswith("xl/worksheets/") and entry.filename.endswith(".xml")


def _inflated(path: str, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """What really comes out of a part of an archive. zipfile stops at the size
    that the directory declares."""
    with Path(path).open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"part {entry.filename} is not where the archive's directory says")
        file.seek(
            int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), io.SEEK_CUR
        )
        left = entry.compress_size
        packer = zlib.decompressobj(-zlib.MAX_WBITS) if entry.compress_type == zipfile.ZIP_DEFLATED else None
        while left and (packed := file.read(min(_CHUNK, left))):
            left -= len(packed)
            while packed:
                if packer is None:
                    yield packed
                    break
                yield packer.decompress(packed, _CHUNK)
                packed = packer.unconsumed_tail


def _tags(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same text in pieces that no tag straddles."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        cut = rest.rfind(b"<")
        cut = len(rest) if cut <= rest.rfind(b">") else cut
        if len(rest) - cut > MOST_TAG:
            raise ValueError("a tag of a sheet is never closed")
        yield rest[:cut]
        rest = rest[cut:]
    yield rest


def _parts_of_sheets(workbook: bytes, relations: bytes) -> dict[str, str]:
    """The name of each sheet -> the part of the archive that holds it; {} where that is not said."""
    if not workbook or not relations:
        return {}
    try:
        targets = {
            relation.get("Id"): str(relation.get("Target")) for relation in ElementTree.fromstring(relations)
        }
        sheets = [
            element for element in ElementTree.fromstring(workbook).iter() if element.tag.endswith("}sheet")
        ]
    except ElementTree.ParseError:
        return {}
    found = {}
    for sheet in sheets:
        key = next((value for name, value in sheet.attrib.items() if name.endswith("}id")), None)
        if key in targets:
            found[str(sheet.get("name"))] = posixpath.normpath(posixpath.join("/xl", targets[key])).lstrip(
                "/"
            )
    return found


def _number_of(letters: bytes) -> int:
    """A -> 1, Z -> 26, AA -> 27."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number


def _letters_of(number: int) -> bytes:
    letters = b""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = bytes([65 + rest]) + letters
    return letters
