"""Files that lie, or that end or fill the process that reads them: each is one line, or
is read well within bounded memory."""

import re
import struct
import subprocess
import sys
import zipfile
import zlib

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import xlsxwriter
from PIL import Image

from advisor.data import isolation
from advisor.data.signals import image_decoding
from advisor.data.sources.reading import read_source
from advisor.errors import UserError

ROWS = 60


def book(path, *far):
    """A sheet of 60 rows and five columns, and further cells (row, column)."""
    with xlsxwriter.Workbook(path) as workbook:
        sheet = workbook.add_worksheet("data")
        sheet.write_row(0, 0, ["a", "b", "c", "d", "y"])
        for row in range(ROWS):
            sheet.write_row(1 + row, 0, [row, row / 4, row % 3, f"0{row}", "u" if row % 2 else "v"])
        for row, column in far:
            sheet.write(row, column, "x")
    return path


def changed(path, part, change):
    """The archive with another content for a part."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry.filename) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(content) if name.endswith(part) else content)


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("far", [(1_048_575, 59), (1_048_575, 16_383), (3, 16_000)])
def test_a_cell_far_from_the_others_costs_nothing_and_is_told(tmp_path, far, honest):
    path = book(tmp_path / "x.xlsx", far)
    if not honest:
        changed(
            path,
            "sheet1.xml",
            lambda xml: re.sub(rb'<dimension ref="[^"]*"/>', b'<dimension ref="A1:E61"/>', xml),
        )
    read = read_source(path)
    plain = read_source(book(tmp_path / "plain.xlsx"))
    assert read.frame.width == 6 and read.frame.height == ROWS + (far[0] > ROWS) and not plain.told
    assert (
        read.frame.head(ROWS).select(plain.frame.columns).cast(pl.String).equals(plain.frame.cast(pl.String))
    )
    assert "Sheet 'data': its cells reach to" in read.told["far-cells"]


def lying(path, sheet, declared=1000):
    """The archive with the packed bytes of a sheet, of which its directory says that
    they unpack to ``declared`` bytes."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry.filename) for entry in archive.infolist()}
    whole, directory = bytearray(), bytearray()
    for name, content in parts.items():
        packer = zlib.compressobj(9, wbits=-15)
        packed, size = packer.compress(content) + packer.flush(), len(content)
        if name.endswith("sheet1.xml"):
            packed, size = sheet, declared
        sizes = (0, len(packed), size, len(name), 0)
        directory += struct.pack(
            "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 0, *sizes, 0, 0, 0, 0, len(whole)
        )
        directory += name.encode()
        whole += struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, *sizes) + name.encode() + packed
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(parts), len(parts), len(directory), len(whole), 0)
    path.write_bytes(bytes(whole + directory) + end)


def test_a_sheet_is_counted_as_it_is_unpacked(tmp_path):
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    )
    for _ in range(100):
        packed += packer.compress(b"<row><c><v>1</v></c></row>" * 40_000)
    path = book(tmp_path / "x.xlsx")
    lying(path, packed + packer.flush())
    with pytest.raises(UserError, match="unpacks to more than 33,333,333 bytes from"):
        read_source(path, max_bytes=10**8)


def document(path, *rows):
    """An OpenDocument spreadsheet of these rows of XML."""
    spaces = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "table", "text")
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        space = 'xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"'
        archive.writestr("META-INF/manifest.xml", f"<manifest:manifest {space}/>")
        body = (
            f"<office:body><office:spreadsheet><table:table "
            f'table:name="S">{"".join(rows)}</table:table></office:spreadsheet>'
        )
        archive.writestr(
            "content.xml", f"<office:document-content{spaces}>{body}</office:body></office:document-content>"
        )
    return path


def cells(*texts, repeated=1):
    more = f' table:number-columns-repeated="{repeated}"' if repeated > 1 else ""
    return "".join(
        f'<table:table-cell{more} office:value-type="string"><text:p>{t}</text:p></table:table-cell>'
        for t in texts
    )


def test_repeated_rows_of_an_opendocument(tmp_path):
    rows = [("a", "y"), *((str(row), "uv"[row % 2]) for row in range(ROWS))]
    table = [f"<table:table-row>{cells(*row)}</table:table-row>" for row in rows]
    empty = '<table:table-cell table:number-columns-repeated="59"/>'
    gap = f'<table:table-row table:number-rows-repeated="1048514">{empty}</table:table-row>'
    plain = read_source(document(tmp_path / "a.ods", *table, gap))
    assert plain.frame.shape == (ROWS, 2) and not plain.told
    read = read_source(
        document(tmp_path / "b.ods", *table, gap, f"<table:table-row>{empty}{cells('x')}</table:table-row>")
    )
    assert read.frame.shape == (ROWS + 1, 3) and "behind many empty rows" in read.told["far-cells"]
    same = (
        f"<table:table-row "
        f'table:number-rows-repeated="1048514">{cells("1", repeated=16384)}</table:table-row>'
    )
    with pytest.raises(UserError, match="cannot be read as a spreadsheet"):
        read_source(document(tmp_path / "c.ods", *table, same))


def test_a_parquet_file_whose_text_is_repeated_is_bounded(tmp_path):
    """A dictionary of one long text: a few kilobytes that are 20 GB in memory."""
    long = pa.array(["x" * 10**6]).dictionary_encode()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), long.dictionary)
    pa.parquet.write_table(pa.table({"a": column}), tmp_path / "x.parquet", store_schema=False)
    assert (tmp_path / "x.parquet").stat().st_size < 10**6
    with pytest.raises(UserError, match=r"x\.parquet"):
        read_source(tmp_path / "x.parquet", max_bytes=10**8)


def test_a_fresh_worker_needs_none_of_the_limit_for_its_libraries(tmp_path):
    """A worker that nobody asked for a while has ended, and the next one begins without pyarrow."""
    isolation.end("advisor.data.sources.table_worker", 0)
    pl.DataFrame({"a": [0.0] * 300_000}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="declares 300,000 rows of 1 columns, 2,400,000 bytes"):
        read_source(tmp_path / "x.parquet", max_bytes=10**6)


DIES = """
import os, signal, sys
from advisor.data import isolation
JOBS = {"die": lambda order, out: os.kill(os.getpid(), signal.SIGABRT), "leave": lambda order, out: os.getpid(),
        "fail": lambda order, out: [][1], "fill": lambda order, out: len(bytearray(order["size"]))}
if __name__ == "__main__":
    isolation.serve_jobs(JOBS)
"""


def test_a_worker_that_dies_or_lacks_memory_takes_nothing_along(tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DIES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def answer(do, **order):
        with isolation.answered("dying", {"do": do, **order}, 10**8) as answer:
            return answer.value

    first = answer("leave")
    assert answer("leave") == first, "it is used again"
    with pytest.raises(isolation.WorkerDied):
        answer("die")
    second = answer("leave")
    assert second != first
    with pytest.raises(RuntimeError, match="IndexError"):
        answer("fail")
    assert answer("leave") == second
    assert answer("fill", size=10**7) == 10**7
    with pytest.raises(MemoryError):
        answer("fill", size=10**9)
    assert answer("fill", size=10**7) == 10**7


def test_an_image_that_ends_its_reader_is_one_of_many(tmp_path, monkeypatch):
    """The other images of its chunk are read by the next worker."""
    Image.new("L", (8, 8), 9).save(tmp_path / "good.png")
    files = [tmp_path / "good.png", tmp_path / "kills.png", tmp_path / "good.png"]
    answered = isolation.answered

    def dying(module, order, limit, place=0):
        if any(file.endswith("kills.png") for file in order["files"]):
            raise isolation.WorkerDied
        return answered(module, order, limit, place)

    monkeypatch.setattr(isolation, "answered", dying)
    found = image_decoding.headers(files)
    assert [header.problem for header in found] == ["", "corrupt", ""]
    values, readable = image_decoding.FileValues(tuple(files), (1, 8, 8), 8, None).take(
        pl.arange(0, 3, eager=True).to_numpy()
    )
    assert readable.tolist() == [True, False, True] and (values == 9).all() and values.shape == (2, 1, 8, 8)


def test_where_no_worker_can_be_started_this_process_reads(tmp_path):
    book(tmp_path / "x.xlsx")
    program = (
        "import sys; sys.executable = '/bin/false'; from advisor.data.sources.reading import read_source; "
        "print(read_source(sys.argv[1]).frame.height)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "x.xlsx"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{ROWS}\n"
