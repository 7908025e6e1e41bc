"""Text files in any encoding -> UTF-8, for the reader of CSV; what is no text is refused by name."""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from pathlib import Path

from advisor.data.options import FileForm
from advisor.data.sources.csv_files import NotUnicodeError, read_csv_text
from advisor.data.sources.dialect import HEAD_BYTES
from advisor.data.sources.source import Source
from advisor.data.sources.text_encoding import NAMES, checked_encoding, decodes, find_encoding
from advisor.errors import UserError

_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive; unpack it (spreadsheets must keep their file extension: .xlsx, .ods)",
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


def read_text_file(
    path: Path, text: str, name: str, data: bytes | None, head: bytes, form: FileForm
) -> Source:
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
            return read_csv_text(path, text, name, data)
        except NotUnicodeError:
            if form.encoding is not None and not form.remembered:
                raise UserError(
                    f"{text} is not valid UTF-8; leave the encoding out to have it detected"
                ) from None
    content, encoding, told = _transcoded(path.read_bytes() if data is None else data, encoding, text, form)
    read = read_csv_text(path, text, name, content)
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
                f"The text is not UTF-8 and was read as {NAMES[found.name]}: {found.name}{others}. If "
                "letters look wrong, set the encoding with --encoding."
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
        raise UserError(f"{text} contains only white space; expected CSV with a header line, or Parquet")
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
        if error.start < len(head) - 3 or len(head) < HEAD_BYTES:
            return ""
    return "utf-8"
