"""How a CSV is written: its delimiter, header and decimal mark, from the beginning of the file."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.errors import UserError

HEAD_BYTES = 1 << 18
_DELIMITERS = (",", ";", "\t", "|")
_WORD_BEGINS = frozenset("tTfF0")
_ABOVE = 20
"""At most this many lines of a title, a date, a source are looked for above the header."""


@dataclass(frozen=True)
class CsvDialect:
    """header_lines: physical lines up to the header's end.
    above: those of a title before it, and above_bytes their bytes."""

    delimiter: str
    names: list[str]
    header_lines: int
    decimal_comma: bool
    words: tuple[int, ...]  # positions of columns of true/false or 007: polars would lose their spelling
    above: int = 0
    above_bytes: int = 0


def sniffed_dialect(head: bytes, text: str, cut: bool) -> CsvDialect:
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
    return CsvDialect(chosen, rows[0], lines, comma > point, tuple(words), above, len(before.encode()))


def divided_by_blanks(head: bytes) -> bool:
    """Whether blanks divide columns: every line has as many words as the header,
    and at least half are numbers."""
    lines = head.splitlines()
    lines = lines[:-1] if len(head) >= HEAD_BYTES else lines  # the last one may be cut
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
