"""A file by its path: what it is, how large it may be, and who reads it."""

from __future__ import annotations

import gzip
import itertools
import re
import stat
import zlib
from dataclasses import replace
from pathlib import Path

from advisor.data.options import FileForm
from advisor.data.sources.dialect import HEAD_BYTES
from advisor.data.sources.isolated_files import parquet_frame, sheet_as_csv
from advisor.data.sources.source import Source, checked_source
from advisor.data.sources.text_files import read_text_file
from advisor.errors import UserError, did_you_mean, shown
from advisor.machine import available_memory

_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def read_path(source: str | Path, max_bytes: int, form: FileForm) -> Source:
    """Read the file at a path.

    max_bytes: refuse a file of more bytes, or one that unpacks to more.
    form: of a text or a spreadsheet. UserError for whatever cannot be read.
    """
    text = shown(source, 200)
    path = Path(source)
    size = _regular_file(path, text)
    limit = min(max_bytes, available_memory())
    if size > limit:
        raise UserError(f"{text} has {size:,} bytes; at most {limit:,} are read (max_bytes, or free memory)")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{text} cannot be read: {error.strerror or error}") from error
    name = (
        re.sub(r"(\.(csv|tsv|txt|tab|parquet|pq|gz|xls[xmb]?|ods))+$", "", path.name, flags=re.IGNORECASE)
        or path.name
    )
    if head.startswith(b"PAR1"):
        frame, names = parquet_frame(path, text, limit)
        return checked_source(frame, names, name, text, {})
    if path.suffix.lower() in (".parquet", ".pq"):
        raise UserError(f"{text} is not a Parquet file (it does not begin with PAR1); is it complete?")
    data: bytes | None = None
    try:
        if path.suffix.lower() in _SPREADSHEETS and head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            data, sheet, told = sheet_as_csv(path, text, form, limit)
            read = read_text_file(path, text, name, data, data[:HEAD_BYTES], FileForm())
            return replace(read, sheet=sheet, told=told | read.told)
        if head.startswith(b"\x1f\x8b"):
            data = _unzipped(path, text, max_bytes)
            head = data[:HEAD_BYTES]
        return read_text_file(path, text, name, data, head, form)
    except MemoryError as error:
        raise UserError(f"{text} does not fit into free memory") from error


def _regular_file(path: Path, text: str) -> int:
    """Size in bytes of a plain, non-empty file; anything else is refused before
    it is opened (a FIFO would block)."""
    if re.match(r"[a-z][a-z0-9+]+://", str(path).replace(":/", "://", 1)):
        raise UserError(f"{text} is a URL; download the file first and give its path")
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
                        "ones (max_bytes, or a third of free memory); unpack it and give a part of it"
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{text} is a damaged or incomplete gzip file ({shown(error)}); download it again"
        ) from error
    except MemoryError as error:
        raise UserError(f"{text} does not fit into free memory after decompression") from error
    if not content:
        raise UserError(f"{text} is empty once unpacked; expected a CSV file with a header line")
    return bytes(content)
