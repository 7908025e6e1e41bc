"""Tables: every way to give data, every way to get it wrong, types, tasks, hold-outs and new rows."""

import csv
import datetime
import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from advisor.cli.main import _run
from advisor.data.columns.cells import BOOLEAN_WORDS
from advisor.data.columns.column import conform
from advisor.data.columns.inference import infer, marks_of_missing
from advisor.data.columns.numbers import SCALED, enough_may_be_numbers, number_forms, parse_numbers
from advisor.data.options import FileForm, ReadingOptions
from advisor.data.sources.csv_files import INFER_ROWS
from advisor.data.sources.source import unique_names
from advisor.data.tables.features import encode
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import load_table, read_frame
from advisor.dataset import MISSING, UNSEEN
from advisor.errors import UserError
from advisor.runs.advice import AdviceOptions
from advisor.workflows.recommend import get_advice

ROWS = 40


def plain(rows=ROWS, seed=0, **more):
    rng = np.random.default_rng(seed)
    columns = {"a": rng.normal(size=rows).round(4), "c": rng.choice(["u", "v", "w"], rows).tolist()}
    return pl.DataFrame(columns | more | {"y": (["no", "yes"] * rows)[:rows]})


def types_of(table):
    return {column.name: column.type for column in table.schema.columns}


def typed(values, **options):
    """The column that these values become beside an ordinary numeric one."""
    rows = len(values)
    data = plain(rows).drop("c").with_columns(x=pl.Series(values, strict=False))
    return load_table(data, "y", ReadingOptions(**options)).schema.columns[1]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv_text(frame, separator=","):
    return frame.write_csv(separator=separator)


# ---------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_delimiters_and_encodings_read_the_same(tmp_path, separator, encoding):
    data = plain().rename({"a": "größe"}).with_columns(pl.col("c").replace("w", 'café, "x"; y'))
    path = write(tmp_path / "data.csv", csv_text(data, separator).encode(encoding))
    assert read_frame(path).equals(data)
    table = load_table(path, "y")
    assert table.notes == {} and ("read as Windows-1252" in table.told.get("encoding", "")) == (
        encoding == "latin-1"
    )


def test_a_single_byte_file_is_read_as_windows_writes_it(tmp_path):
    """€, quotes and dashes lie where Latin-1 has controls; five bytes mean nothing in Windows-1252."""
    data = plain().with_columns(pl.col("c").replace({"u": "5 €", "v": "“a” – b"}))
    path = write(tmp_path / "data.csv", csv_text(data).encode("cp1252"))
    assert read_frame(path).equals(data)
    path.write_bytes(path.read_bytes().replace(b"w", b"\x81"))
    assert "\x81" not in read_frame(path)["c"].to_list()
    assert "\x81" in read_frame(path, form=FileForm("latin-1"))["c"].to_list(), "who asks for it"


TITLES = [
    ("Report\n", 1),
    ("Report\n\nSource: the office\n", 2),
    ("Report,,\n,,\n", 2),
    ('"Two\nlines"\n', 2),
]


@pytest.mark.parametrize(("title", "lines"), TITLES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_above_the_header_are_passed_over(tmp_path, title, lines, end):
    data = plain()
    path = write(tmp_path / "data.csv", (title + csv_text(data)).replace("\n", end))
    assert read_frame(path).equals(data)
    assert load_table(path, "y").notes["lines_above_header"] == lines, "of those that are not blank"
    path.write_bytes(path.read_bytes() + b"1,2,3,4\n")
    with pytest.raises(UserError, match=f"line {42 + lines} has 4 fields"):
        read_frame(path)


def test_a_remark_behind_a_bar_above_the_header(tmp_path):
    """As in the test files of the UCI archive."""
    data = plain()
    path = write(tmp_path / "adult.test", "|1x3 Cross validator\n" + csv_text(data))
    assert read_frame(path).equals(data)
    assert load_table(data, "y", ReadingOptions(test=path)).test.height == ROWS and load_table(
        path, "y"
    ).notes == {"lines_above_header": 1}
    path.write_text("|1x3 Cross validator\n" + csv_text(data).partition("\n")[2])
    with pytest.raises(
        UserError, match="looks like data: add the header line of the training table"
    ):
        load_table(data, "y", ReadingOptions(test=path))
    index = write(tmp_path / "index.csv", "|x\n" + "".join(f"{row}|{row / 2}\n" for row in range(20)))
    assert read_frame(index).columns == ["column_1", "x"], "a first column without a name"


@pytest.fixture
def cover(tmp_path):
    """A workbook whose first sheet is a cover and whose table is among others."""
    import xlsxwriter

    with xlsxwriter.Workbook(tmp_path / "b.xlsx") as workbook:
        first = workbook.add_worksheet("Cover")
        first.write_column(0, 0, ["Study of 2024", "by somebody", "see the other sheets"])
        first.write_row(4, 0, ["Version", 3])
        for name, shift in (("Data", 0), ("More", 100)):
            sheet = workbook.add_worksheet(name)
            sheet.write_row(0, 0, ["a", "y"])
            for row in range(ROWS):
                sheet.write_row(row + 1, 0, [row % 7 + shift, "uv"[row % 2]])
    return tmp_path / "b.xlsx"


def test_the_sheet_of_a_workbook(cover, tmp_path, capfd):
    table = load_table(cover, "y")
    assert table.train.height + table.test.height == ROWS and table.schema.sheet == "Data"
    assert table.told["other-sheets"] == (
        "The sheet 'Data' was read, but not 'Cover', 'More'. --sheet NAME reads another one."
    )
    more = load_table(cover, "y", ReadingOptions(sheet="More"))
    assert more.train["a"].min() >= 100 and more.schema.form.sheet == "More"
    assert read_frame(cover, form=more.schema.form)["a"].min() >= 100, (
        "new rows come from the sheet of that name"
    )
    assert read_frame(cover, form=FileForm(sheet="Gone", remembered=True)).height == ROWS
    with pytest.raises(
        UserError, match=r"no sheet 'Mor' \(did you mean 'More'\?\); its sheets are 'Cover', 'Data', 'More'"
    ):
        load_table(cover, "y", ReadingOptions(sheet="Mor"))
    with pytest.raises(
        UserError, match=r"no target 'z'.*The sheet 'Data' was read, but not 'Cover', 'More'"
    ):
        load_table(cover, "z")
    assert (
        _run(["recommend", str(cover), "--target", "y", "--sheet", "More", "--out", str(tmp_path / "run")])
        == 0
    )
    assert "sheet: More" in (tmp_path / "run" / "recommendation.yaml").read_text()


@pytest.mark.parametrize("header", ["a,b,c,d", "1,2,3,4", ",b,c,d", "a,,,d", "a,a,b,c", "a,b,c"])
def test_a_header_is_not_taken_for_a_title(tmp_path, header):
    path = write(tmp_path / "data.csv", header + "\n" + "u,v,w,x\n" * 9)
    if header == "a,b,c":
        with pytest.raises(UserError, match="line 2 has 4 fields, the header has 3"):
            read_frame(path)
    else:
        assert read_frame(path).height == 9


def test_columns_that_blanks_divide(tmp_path):
    lines = [f" {row / 4:6.2f}    {row % 3}     {'u' if row % 2 else 'v'} \n" for row in range(300)]
    frame = read_frame(write(tmp_path / "data.txt", "  a   b  y\n\n" + "".join(lines)))
    assert frame.columns == ["a", "b", "y"] and frame.height == 300
    assert frame.row(5) == (1.25, 2, "u")
    sentences = write(tmp_path / "words.txt", "the text\n" + "two words\n" * 20)
    assert read_frame(sentences).columns == ["the text"]


def test_a_header_that_is_repeated_is_no_row(tmp_path):
    """Files joined end to end."""
    data = plain()
    path = write(tmp_path / "data.csv", csv_text(data) * 3)
    table = load_table(path, "y")
    assert table.notes["repeated_headers"] == 2 and table.train.height + table.test.height == 3 * ROWS
    assert types_of(table) == {"a": "numeric", "c": "categorical"}


@pytest.fixture
def book(tmp_path):
    """A workbook with a title, an empty first sheet, a day, a number as text and cells that are missing."""
    import xlsxwriter

    def make(name="data.xlsx"):
        with xlsxwriter.Workbook(tmp_path / name) as workbook:
            workbook.add_worksheet("notes")
            sheet = workbook.add_worksheet("data")
            day, clock = (workbook.add_format({"num_format": form}) for form in ("yyyy-mm-dd", "hh:mm"))
            sheet.write(0, 0, "Sales, as of May")
            sheet.write_row(2, 0, ["when", "amount", "code", "y", "at"])
            for row in range(ROWS):
                sheet.write_datetime(
                    3 + row, 0, datetime.datetime(2024, 1, 1) + datetime.timedelta(days=row), day
                )
                sheet.write(3 + row, 1, row / 4 if row % 5 else None)
                sheet.write_string(3 + row, 2, f"00{row % 7}")
                sheet.write(3 + row, 3, "a, b" if row % 2 else 'c "d"')
                sheet.write_datetime(3 + row, 4, datetime.time(row % 24, 30), clock)
        return tmp_path / name

    return make


def test_a_spreadsheet_is_read_like_a_file(book):
    path = book()
    frame = read_frame(path)
    assert frame["when"][0] in ("2024-01-01", datetime.date(2024, 1, 1)) and frame["code"][1] == "001"
    assert frame["amount"].cast(pl.Float64).to_list()[:3] == [None, 0.25, 0.5]
    table = load_table(path, "y")
    assert types_of(table) == {
        "when": "datetime",
        "amount": "numeric",
        "code": "categorical",
        "at": "numeric",
    }
    assert encode(frame[:2], table.schema).numeric[:, -1].tolist() == [0.5, 1.5], "hours"
    assert table.schema.classes == ("a, b", 'c "d"') and table.name == "data"
    assert table.notes == {"lines_above_header": 1}
    assert table.told["other-sheets"].startswith("The sheet 'data' was read, but not 'notes'.")


def test_a_spreadsheet_that_is_damaged_or_empty_is_one_line(book, tmp_path):
    import xlsxwriter

    whole = book().read_bytes()
    newer = bytearray(whole)
    newer[whole.index(b"PK\x01\x02") + 6] = 84  # of zip, that is needed to unpack the first file
    with xlsxwriter.Workbook(tmp_path / "empty.xlsx") as workbook:
        workbook.add_worksheet()
    for name, content, says in (
        ("cut.xlsx", whole[: len(whole) // 2], "cannot be read as a spreadsheet"),
        ("old.xls", b"\xd0\xcf\x11\xe0" + bytes(600), "cannot be read as a spreadsheet"),
        ("zip.ods", whole, "cannot be read as a spreadsheet"),
        ("newer.xlsx", bytes(newer), "zip file version 8.4"),
        ("empty.xlsx", None, "no sheet with cells"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=says) as raised:
            read_frame(path)
        assert "\n" not in str(raised.value)


def test_gzip_parquet_and_frames_read_the_same(tmp_path):
    data = plain()
    data.write_parquet(tmp_path / "data.parquet")
    write(tmp_path / "data.csv", csv_text(data))
    write(tmp_path / "data.csv.gz", gzip.compress(csv_text(data).encode()))
    sources = [data, data.to_pandas(), *(tmp_path / f"data.{kind}" for kind in ("parquet", "csv", "csv.gz"))]
    tables = [load_table(source, "y") for source in sources]
    for table in tables:
        assert table.train.equals(tables[0].train) and table.test.equals(tables[0].test)
        assert replace(table.schema, given=None) == replace(
            tables[0].schema, given=None
        )  # pandas has texts as objects
        assert table.fingerprint == tables[0].fingerprint
    assert [table.name for table in tables] == ["data-frame"] * 2 + ["data"] * 3
    assert tables[2].source == str(tmp_path / "data.parquet")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_comma(tmp_path, separator):
    rows = "\n".join(f"{n},5{separator}{n % 3}" for n in range(20))
    assert read_frame(write(tmp_path / "d.csv", f"a{separator}b\n{rows}\n"))["a"].to_list()[:2] == [0.5, 1.5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\r\n1,x\r\n2,y\r\n", [(1, "x"), (2, "y")]),
        ("a,b\r1,x\r2,y\r", [(1, "x"), (2, "y")]),
        ("\n\na,b\n1,x\n\n2,y\n\n\n", [(1, "x"), (2, "y")]),
        ('a,b\n1,5" pipe\n2,y\n', [("1", '5" pipe'), ("2", "y")]),
        ('a, b\n1, "x, y"\n2, z\n', [("1", "x, y"), ("2", "z")]),
        ('"a","b"\n1,"x\ny"\n2,"p""q"\n', [(1, "x\ny"), (2, 'p"q')]),
        ("a,b\n1,\n2,\n", [(1, None), (2, None)]),
        ("a,b\n1,None\n2,NA\n", [(1, "None"), (2, "NA")]),
        ("a,b\nTrue,007\nFalse,010\n", [("True", "007"), ("False", "010")]),
        ("a,b\n1,x", [(1, "x")]),
        ("a,b\n", []),
        ("a\n1\n2\n", [(1,), (2,)]),
    ],
)
def test_shapes_of_csv(tmp_path, text, expected):
    assert read_frame(write(tmp_path / "x.csv", text)).rows() == expected


def test_types_that_change_after_the_first_rows(tmp_path):
    rows = INFER_ROWS + 10
    text = "a,y\n" + "".join(f"{n if n < rows - 5 else n + 0.5},{n % 2}\n" for n in range(rows))
    assert read_frame(write(tmp_path / "x.csv", text))["a"][-1] == rows - 0.5


def test_a_cell_of_a_million_characters(tmp_path):
    text = csv_text(plain()) + f"1.0,{'z' * 10**6},yes\n" + '1.0,5" z,no\n'
    assert read_frame(write(tmp_path / "x.csv", text)).height == ROWS + 2


def test_names_become_unique_and_usable():
    names = ["x", "x", "", " x ", "x_2", "ü", "x"]
    frame = pd.DataFrame([[0] * len(names)] * 12, columns=names)
    assert read_frame(frame).columns == ["x", "x_3", "column_3", "x_4", "x_2", "ü", "x_5"]
    assert unique_names(names)[1] == {"empty_names": 1, "duplicate_names": 3}
    assert unique_names(["a", "a", "a_2"])[0] == ["a", "a_3", "a_2"]


def test_odd_names_work_to_the_end(tmp_path):
    data = plain()
    for names in (
        ["rows", "value", "label"],
        ["=1+1", "<script>", "\x1b[31mred"],
        ["\N{SNOWMAN}" * 500, "len", "cell"],
    ):
        renamed = data.rename(dict(zip(data.columns, names, strict=True)))
        table = load_table(renamed, names[-1])
        assert len(table.dataset("train")) + len(table.dataset("test")) == ROWS


def test_pandas_frames_of_every_kind():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            1: rng.normal(size=ROWS),
            "mixed": [1, "two", None, 3.5] * (ROWS // 4),
            "when": pd.date_range("2024-01-01", periods=ROWS, tz="UTC"),
            "kind": pd.Categorical(["p", "q"] * (ROWS // 2)),
            "nullable": pd.array([1, None] * (ROWS // 2), dtype="Int64"),
            "period": pd.period_range("2024-01", periods=ROWS, freq="M"),
        }
    )
    frame["y"] = [True, False] * (ROWS // 2)
    table = load_table(frame, "y")
    assert table.schema.columns[0].name == "1"
    assert table.schema.classes == ("False", "True")
    assert types_of(table)["when"] == "datetime" and types_of(table)["kind"] == "categorical"
    assert len(table.dataset("train")) + len(table.dataset("test")) == ROWS


@pytest.mark.parametrize(
    ("name", "task", "columns"),
    [
        ("iris", "multiclass", 4),
        ("wine", "multiclass", 13),
        ("breast_cancer", "binary", 30),
        ("diabetes", "regression", 10),
        ("digits", "multiclass", 64),
    ],
)
def test_bundled_sets(name, task, columns):
    table = load_table(f"sklearn:{name}", "target")
    assert table.schema.task == task and len(table.schema.columns) == columns and table.name == name


# -------------------------------------------------------------------------------------------------- bad input


def bad_files(folder):
    """Name -> (path, what the message must hold)."""
    text = csv_text(plain())
    packed = gzip.compress(text.encode())
    plain().write_parquet(folder / "good.parquet")
    parquet = (folder / "good.parquet").read_bytes()
    plain().with_columns(n=pl.lit([1, 2])).write_parquet(folder / "nested.parquet")
    os.mkfifo(folder / "pipe.csv")
    (folder / "dangling.csv").symlink_to(folder / "gone")
    random.seed(0)
    files = {
        "empty.csv": (b"", "is empty"),
        "blank.csv": (b" \n\n \t\n", "white space"),
        "header.csv": (b"a,c,y\n", "no rows"),
        "no-header.csv": (b"1.5,2,3\n" * 20, "header"),
        "binary.csv": (random.randbytes(5000), "binary"),
        "page.csv": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "HTML"),
        "json.csv": (b'[{"a": 1}]', "JSON"),
        "sheet.csv": (b"PK\x03\x04" + bytes(100), "zip archive"),
        "feather.parquet": (b"ARROW1" + bytes(100), "Parquet"),
        "feather.csv": (b"ARROW1" + bytes(100), "Feather"),
        "nul.csv": (text.replace("yes", "y\0s", 1).encode(), "NUL byte at offset"),
        "short.csv": (text + "1.5,u\n", "line 42 has 2 fields, the header has 3"),
        "long.csv": (text + "1.5,u,yes,more\n", "line 42 has 4 fields, the header has 3"),
        "rownames.csv": ("a,y\n" + "1,2,yes\n" * 20, "line 2 has 3 fields"),
        "quote.csv": (text.replace("yes", '"yes', 1), "never closed"),
        "spaces.csv": (text.replace(",", " "), "only column"),
        "cut.csv.gz": (packed[:-20], "incomplete gzip"),
        "broken.csv.gz": (packed[:30] + b"xxxx" + packed[34:], "gzip"),
        "nothing.csv.gz": (gzip.compress(b""), "empty once unpacked"),
        "cut.parquet": (parquet[:-30], "cannot be read as Parquet"),
        "damaged.parquet": (parquet[:4] + bytes(60) + parquet[64:], "cannot be read as Parquet"),
        "csv.parquet": (text, "not a Parquet file"),
        "wide.csv": (
            ",".join(f"c{n}" for n in range(100_000)) + "\n" + ",".join("1" * 100_000) + "\n",
            "more than 10,000 columns",
        ),
        "utf16.csv": (text.encode("utf-16")[:-1], "damaged"),
    }
    given = {name: (write(folder / name, content), said) for name, (content, said) in files.items()}
    return given | {
        "nested.parquet": (folder / "nested.parquet", "column 'n' holds"),
        "missing.csv": (folder / "god.parquet", "did you mean 'good.parquet'?"),
        "folder": (folder, "is a directory"),
        "pipe.csv": (folder / "pipe.csv", "not a regular file"),
        "device": ("/dev/zero", "not a regular file"),
        "dangling.csv": (folder / "dangling.csv", "which does not exist"),
        "under a file": (folder / "good.parquet" / "x.csv", "Not a directory"),
        "long name": ("x" * 5000, "name too long"),
        "NUL name": ("x\0y", "null"),
        "empty name": ("", "directory"),
        "address": ("https://example.org/data.csv", "download the file first"),
        "sklearn": ("sklearn:irsi", "did you mean 'iris'?"),
        "sklearn download": ("sklearn:california_housing", "bundles"),
        "openml": ("openml:", "needs a number or a name"),
        "list": ([1, 2], "expected a file's path"),
        "lazy": (plain().lazy(), "collect"),
        "nested frame": (plain().with_columns(s=pl.struct("a")), "unnest"),
    }


def one_line(error):
    text = str(error)
    assert "\n" not in text and 20 < len(text) < 700 and text.isprintable()
    return text


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return bad_files(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize(
    "name",
    [
        "empty.csv",
        "blank.csv",
        "header.csv",
        "no-header.csv",
        "binary.csv",
        "page.csv",
        "json.csv",
        "sheet.csv",
        "feather.parquet",
        "feather.csv",
        "nul.csv",
        "short.csv",
        "long.csv",
        "rownames.csv",
        "quote.csv",
        "spaces.csv",
        "cut.csv.gz",
        "broken.csv.gz",
        "nothing.csv.gz",
        "cut.parquet",
        "damaged.parquet",
        "csv.parquet",
        "wide.csv",
        "utf16.csv",
        "nested.parquet",
        "missing.csv",
        "folder",
        "pipe.csv",
        "device",
        "dangling.csv",
        "under a file",
        "long name",
        "NUL name",
        "empty name",
        "address",
        "sklearn",
        "sklearn download",
        "openml",
        "list",
        "lazy",
        "nested frame",
    ],
)
def test_bad_sources_end_in_one_line(bad, name):
    source, said = bad[name]
    with pytest.raises(UserError) as caught:
        load_table(source, "y")
    assert said.lower() in one_line(caught.value).lower()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = write(tmp_path / "x.csv", csv_text(plain()))
    path.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        load_table(path, "y")


def test_a_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "x.csv", csv_text(plain()))

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(UserError, match=r"x\.csv cannot be read: Permission denied"):
        load_table(path, "y")


@pytest.mark.parametrize("cells, asked, classes", [
    (["yes", "no"] * 19 + ["no", "yse"], None, ("no", "yes")), (["a", "b", "c"] * 13 + ["d"], None, ("a", "b", "c")),
    ([0, 1] * 19 + [0, 7], "binary", ("0", "1")), (["a", "b"] * 18 + ["a", None, None, "d"], None, ("a", "b")),
])  # fmt: skip
def test_a_row_that_is_alone_in_its_class_is_left_out_and_told(cells, asked, classes):
    frame = pl.DataFrame({"a": np.arange(40) ** 0.5, "y": cells})
    table = load_table(frame, "y", ReadingOptions(task=asked))
    assert table.schema.classes == classes
    assert table.train.height + table.test.height == sum(str(cell) in classes for cell in cells)
    lonely, missing = (
        len([cell for cell in set(cells) if cell is not None]) - len(classes),
        cells.count(None),
    )
    assert table.notes == {"rows_in_singleton_classes": lonely} | (
        {"rows_without_target": missing} if missing else {}
    )
    (told,) = [finding for finding in get_advice(frame, "y", AdviceOptions(task=asked)).recommendation.findings
               if finding.code == "singleton-classes"]  # fmt: skip
    assert told.severity == "warning" and f"classes: {lonely}." in told.message


NUMBERS = np.random.default_rng(0).normal(size=ROWS)
BAD_REQUESTS = [
    ({}, {"target": "Y"}, "has no target 'Y'"),
    ({}, {"target": "yy"}, "did you mean 'y'?"),
    ({"y": [None] * ROWS}, {}, "missing in all 40 rows"),
    ({"y": [None] * (ROWS - 5) + ["a", "b"] * 2 + ["a"]}, {}, "only 5 of 40 rows have a target"),
    ({"y": ["a"] * ROWS}, {}, "only one value, 'a'"),
    ({"y": [1.5] * ROWS}, {"task": "regression"}, "only one value"),
    ({"y": np.arange(ROWS) * 1e200}, {}, "use another unit"),
    ({"y": ["a"] * 39 + ["odd"]}, {}, "class 'odd' of the target 'y' has a single row"),
    ({"y": ["a", "b"] * 18 + ["a", "x", "y", "z"]}, {}, "has a single row (3 classes have)"),
    ({"y": [0, 1, 2] * 13 + [7]}, {}, "has a single row; leave such rows out, merge classes"),
    ({"y": [f"n{n}" for n in range(ROWS)]}, {}, "40 classes in 40 rows"),
    ({"y": NUMBERS}, {"task": "multiclass"}, "continuous"),
    ({"y": NUMBERS}, {"task": "binary"}, "continuous"),
    ({"y": ["a", "b", "c", "d"] * 10}, {"task": "binary"}, "4 classes and cannot be binary"),
    ({}, {"task": "regression"}, "40 of 40 cells are not numbers, such as 'no'"),
    ({}, {"task": "clasification"}, "task is 'clasification'"),
    ({"y": [datetime.date(2024, 1, 1)] * ROWS}, {}, "dates or times"),
    ({}, {"group_column": "y"}, "the group column 'y' is the target"),
    ({}, {"time_column": "y"}, "the time column 'y' is the target"),
    ({}, {"group_column": "cc"}, "no group column 'cc'"),
    ({}, {"time_column": "when"}, "no time column 'when'"),
    ({}, {"time_column": "c"}, "cannot be read as dates or numbers"),
    ({"t": [3] * ROWS}, {"time_column": "t"}, "the same value in all rows"),
    ({"g": ["g"] * ROWS}, {"group_column": "g"}, "the same value in all rows"),
    ({}, {"time_column": "a", "group_column": "c"}, "both a time column"),
    ({}, {"types": {"aa": "text"}}, "no column 'aa' (did you mean 'a'?)"),
    ({}, {"types": {"a": "number"}}, "has the type 'number' (did you mean 'numeric'?)"),
    ({}, {"types": {"y": "numeric"}}, "has no feature type"),
    ({}, {"types": {"a": "constant", "c": "identifier"}}, "no column is left to predict"),
    ({}, {"test_fraction": -0.1}, "test_fraction is -0.1"),
    ({}, {"weight_column": "weights"}, "no weight column 'weights'"),
    ({}, {"weight_column": "c"}, "weight column 'c' has cells that are not numbers"),
    ({"w": [-1.0] * ROWS}, {"weight_column": "w"}, "values from -1 to -1; expected a number of 0 or more"),
    ({"w": [0] * ROWS}, {"weight_column": "w"}, "with some above 0"),
    ({}, {"test_fraction": 2}, "test_fraction is 2"),
    ({}, {"test": plain().drop("a", "c")}, "has no column 'a', 'c'"),
    ({}, {"test": plain().drop("y")}, "has no column 'y'"),
    ({}, {"test": plain().with_columns(y=pl.lit("perhaps"))}, "class 'perhaps', which no training row has"),
    ({}, {"test": plain().head(0)}, "no row is left for the test part"),
    ({}, {"test": "gone.csv"}, "does not exist"),
    ({"y": NUMBERS}, {"test": plain()}, "of 40 cells are not numbers"),
    ({"y": NUMBERS, "a": None, "c": None}, {}, "no column is left to predict"),
]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0] * 60 + [1] * 40 + [2] * 20 + [3] * 10 + [4] * 5 + [5] * 2 + [7], "regression"),
        ([0] * 60 + [1] * 40 + [2] * 20 + [3] * 10 + [4] * 5 + [5] * 2, "multiclass"),
    ],
)
def test_counts_whose_largest_a_single_row_has_are_numbers_not_classes(values, task):
    data = plain(len(values)).with_columns(y=pl.Series(values))
    assert load_table(data, "y").schema.task == task


@pytest.mark.parametrize(
    ("columns", "options", "said"), BAD_REQUESTS, ids=[said[:30] for *_, said in BAD_REQUESTS]
)
def test_bad_requests_end_in_one_line(columns, options, said):
    data = plain().with_columns(
        **{name: pl.Series(v) if v is not None else pl.lit(None) for name, v in columns.items()}
    )
    options = dict(options)
    with pytest.raises(UserError) as caught:
        load_table(data, options.pop("target", "y"), ReadingOptions(**options))
    assert said in one_line(caught.value)


def test_a_table_without_features_or_with_few_rows():
    with pytest.raises(UserError, match="no column besides y"):
        load_table(plain().select("y"), "y")
    with pytest.raises(UserError, match="only 9 of 9 rows"):
        load_table(plain(9), "y")


def test_names_cannot_steer_the_terminal():
    data = plain().rename({"a": "\x1b[2J\nowned"})
    with pytest.raises(UserError) as caught:
        load_table(data, "nothing")
    assert r"\x1b[2J\nowned" in one_line(caught.value)


def test_a_gzip_bomb_is_refused_within_bounded_memory(tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    with (tmp_path / "bomb.csv.gz").open("wb") as file:
        file.write(packer.compress(b"a,y\n"))
        for _ in range(300):
            file.write(packer.compress(b"1,2\n" * (1 << 18)))
        file.write(packer.flush())
    with pytest.raises(UserError, match=r"unpacks to more than 10,000,000 bytes"):
        load_table(tmp_path / "bomb.csv.gz", "y", max_bytes=10**7)
    # In a process that may take 1 GB more than it has, the default limit is bound by that.
    code = (
        "import resource, sys; from pathlib import Path; from advisor.data.tables.table import read_frame\n"
        "used = resource.getpagesize() * int(Path('/proc/self/statm').read_text().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, -1))\n"
        "try: read_frame(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.csv.gz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("UserError"), done.stdout + done.stderr
    assert "unpacks to more than" in done.stdout


def test_too_large_a_file_and_too_many_declared_rows_are_refused(tmp_path):
    path = write(tmp_path / "x.csv", csv_text(plain()))
    with pytest.raises(UserError, match="at most 100 are read"):
        load_table(path, "y", max_bytes=100)
    pl.DataFrame({"a": np.zeros(300_000), "y": np.zeros(300_000)}).write_parquet(tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    with pytest.raises(UserError, match="declares 300,000 rows of 2 columns, 4,800,000 bytes"):
        load_table(tmp_path / "x.parquet", "y", max_bytes=10**6)


def test_openml_without_a_network_is_one_line(monkeypatch):
    import socket

    def refuse(*_args, **_options):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    before = socket.getdefaulttimeout()
    with pytest.raises(UserError, match="could not be fetched"):
        load_table("openml:999999", "class")
    assert socket.getdefaulttimeout() == before


# ------------------------------------------------------------------------------------------------------ types

UUIDS = [f"{n:08x}-aaaa" for n in np.random.default_rng(3).integers(0, 2**31, ROWS)]
SENTENCES = [
    f"the {n}th parcel came {word} than expected"
    for n, word in zip(range(ROWS), ["later", "sooner"] * 20, strict=True)
]
WHOLE = np.random.default_rng(1).integers(0, 9, ROWS).tolist()


@pytest.mark.parametrize(
    ("values", "expected", "why"),
    [
        (NUMBERS, "numeric", "numbers"),
        (WHOLE, "numeric", "whole numbers"),
        (np.random.default_rng(2).permutation(10**6)[:ROWS], "numeric", "whole numbers"),
        ([0, 1] * 20, "boolean", "0 and 1"),
        ([0.0, 1.0, None, 1.0] * 10, "boolean", "0 and 1"),
        ([1, 2] * 20, "numeric", "whole"),
        (["yes", "no", None, "No"] * 10, "boolean", "yes"),
        ([True, None, False, True] * 10, "boolean", "true"),
        (["m", "f"] * 20, "categorical", "2 different texts"),
        (["None", "NA"] * 20, "categorical", "2 different"),
        (["None", "Brick", None, "Stone"] * 10, "categorical", "3 different"),
        (range(ROWS), "identifier", "count the rows"),
        ([5000 + n * 3 // 2 for n in range(ROWS)], "identifier", "count the rows"),
        (UUIDS, "identifier", "different short text"),
        (SENTENCES, "text", "words"),
        (["same"] * ROWS, "constant", "always 'same'"),
        ([7] * ROWS, "constant", "always '7'"),
        ([None] * ROWS, "constant", "missing"),
        (["", None] * 20, "constant", "missing"),
        (["x", None] * 20, "categorical", "1 different"),
        ([datetime.date(2024, 1, 1 + n % 28) for n in range(ROWS)], "datetime", "stored as date"),
        ([f"2024-01-{1 + n % 28:02}" for n in range(ROWS)], "datetime", "%Y-%m-%d"),
        ([f"{1 + n % 28}/12/2024" for n in range(ROWS)], "datetime", "%d/%m/%Y"),
        ([f"12/{1 + n % 28}/2024" for n in range(ROWS)], "datetime", "%m/%d/%Y"),
        ([f"2024-01-{1 + n % 28:02}T10:{n % 60:02}:00Z" for n in range(ROWS)], "datetime", "%H"),
        ([("2024-01-05", "05.01.2024", "Jan 5, 2024")[n % 3] for n in range(ROWS)], "datetime", " or "),
        ([str(n / 7) if n % 5 else ("n/a", "?", "-")[n % 3] for n in range(ROWS)], "numeric", "unreadable"),
        ([f"{n * 3 % 17}.5 kg" for n in range(ROWS)], "numeric", "'kg'"),
        ([f"${1000 + 37 * n % 600:,}" for n in range(ROWS)], "numeric", "numbers as text"),
        ([f"{n % 13}%" for n in range(ROWS)], "numeric", "'%'"),
        ([f"{n % 11},{n % 10}" for n in range(ROWS)], "numeric", "numbers as text"),
        (["1", "2", "3+", "4"] * 10, "categorical", "4 different"),
        ([f"{n % 12:03}" for n in range(ROWS)], "categorical", "different texts"),
        ([datetime.time(n % 24) for n in range(ROWS)], "numeric", "numbers"),
        ([datetime.timedelta(minutes=n * n % 31) for n in range(ROWS)], "numeric", "numbers"),
    ],
)
def test_types_are_inferred_with_a_reason(values, expected, why):
    column = typed(values)
    assert column.type == expected
    assert why in column.why and "\n" not in column.why


def test_codes_by_name():
    data = plain(200).with_columns(store_id=pl.Series(WHOLE * 5), level=pl.Series(WHOLE * 5))
    types = types_of(load_table(data, "y"))
    assert types["store_id"] == "categorical" and types["level"] == "numeric"


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        (["$1,234.50", "-$5", "($3)", "$ 7"], [1234.5, -5, -3, 7]),
        (["USD 1,200", "USD 5", "USD 7.5"], [1200, 5, 7.5]),
        (["€1.2M", "€500K", "€ 7 mio."], [1.2e6, 5e5, 7e6]),
        (["1.5k", "2M", "3bn"], [1500, 2e6, 3e9]),
        (["5,734E+02", "2,5E-1", "1,001E+03"], [573.4, 0.25, 1001]),
        (["$(5.5)", "($1,200.50)", "USD 7", "US$8.5-"], [-5.5, -1200.5, 7, -8.5]),
        (["12.5-", "3.25", "1,004-"], [-12.5, 3.25, -1004]),
        (["1,00,000", "12,34,567", "999"], [1e5, 1234567, 999]),
        (["\u22123,5", "4,25", "1\u202f234,5"], [-3.5, 4.25, 1234.5]),
        (["1\u2019234.5", "(2)", "3.25"], [1234.5, -2, 3.25]),
        (["14:30", "0:45", "23:59:30"], [14.5, 0.75, 23 + 59.5 / 60]),
        (["2:30 PM", "12:00 am", "11:15 a.m."], [14.5, 0, 11.25]),
        (["9,5 kg", "12 kg", "13 kg"], [9.5, 12, 13]),
    ],
)
def test_numbers_as_people_write_them(written, numbers):
    values = written * 40
    column = typed(values)
    assert column.type == "numeric"
    read, notes = conform(pl.Series("x", values), column)
    assert read.head(len(written)).to_list() == pytest.approx(numbers) and not notes


LABORATORY = [*(f"{n / 10:.1f}" for n in range(3, 44)), "<0.3", ">4.4", "\u22644.5"]


def test_limits_are_read_at_the_limit_and_keep_their_side():
    """Laboratory tables: 48 such cells made 231 categories of a column."""
    values = LABORATORY * 3
    frame = plain(len(values)).drop("c").with_columns(x=pl.Series(values))
    table = load_table(frame, "y")
    column = table.schema.columns[1]
    assert (column.type, column.limits) == ("numeric", True)
    assert "9 of 132 numbers are limits such as '<0.3'" in table.told["numbers-at-a-limit"]
    for rows in (
        table.dataset("train").features,
        encode(frame.drop("y"), TableSchema.from_dict(table.schema.to_dict())),
    ):
        numbers = dict(zip(rows.numeric_names, rows.numeric.T, strict=True))
        assert set(np.unique(numbers["x.side"])) == {-1.0, 0.0, 1.0}
        assert set(numbers["x"][numbers["x.side"] == -1]) == {0.3, 4.5}
    new = encode(pl.DataFrame({"a": [0.0], "x": ["> 4.4"]}), table.schema)
    assert dict(zip(new.numeric_names, new.numeric[0], strict=True)) == {"a": 0.0, "x": 4.4, "x.side": 1.0}


def test_limits_of_amounts_have_a_side_and_a_single_limit_is_told():
    amounts = [
        *(f"\u20ac{n}K" for n in range(100, 160)),
        *(f"\u20ac{n / 10:.1f}M" for n in range(10, 55)),
        *["<\u20ac50K"] * 15,
    ]
    single = [*(f"{n}.5" for n in range(119)), "<0.3"]
    table = load_table(plain(120).with_columns(amount=pl.Series(amounts), x=pl.Series(single)), "y")
    amount = next(column for column in table.schema.columns if column.name == "amount")
    assert amount.limits and "in 'amount' 15 of 120 numbers" in table.told["numbers-at-a-limit"]
    assert "in 'x' 1 of 120 numbers" in table.told["cells-at-a-limit"]


def test_a_target_in_several_currencies_is_refused_for_that():
    values = [f"{sign}{n}.5" for n in range(60) for sign in "$\u20ac"]
    with pytest.raises(UserError, match="several currencies"):
        load_table(plain(120).with_columns(y=pl.Series(values)), "y")


def test_a_target_with_limits_is_a_number_and_told():
    values = LABORATORY * 3
    table = load_table(plain(len(values)).with_columns(y=pl.Series(values)), "y")
    assert table.schema.task == "regression"
    assert "drawn towards it" in table.told["target-at-a-limit"]


@pytest.mark.parametrize(
    "values", [["<18", "18", ">65"], ["<=50K", ">50K"], ["1", "2", "3+"], ["<1", "1", "2", "3", ">=4"]]
)
def test_names_of_ranges_are_no_limits(values):
    assert typed(values * 40).type == "categorical"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([f"${n}.5" for n in range(60)] + [f"€{n}" for n in range(60)], r"several currencies \(\$, €\)"),
        ([f"{n}.5" for n in range(90)] + ["soon"] * 30, r"75% of its cells\), but for 'soon' \(30\)"),
        (
            [f"{n}.5%" for n in range(60)] + [f"0.{n}" for n in range(10, 70)],
            "percentages mixed with fractions such as '0",
        ),
    ],
)
def test_what_looks_like_numbers_is_told_with_the_cells_that_prevent_it(values, says):
    table = load_table(plain(len(values)).with_columns(x=pl.Series(values)), "y")
    assert re.search(says, table.told["looks-like-numbers"])


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("0123456789 .,+-()<>=%:$€eEinfaNUSDkMdys\u00a0\u2212\u2264\u2019'"), max_size=12)
)
def test_what_no_form_is_tried_on_is_a_number_in_none(text):
    """A text is tried as a number only where it begins as one."""
    cells = pl.Series([text])
    if enough_may_be_numbers(cells, pl.Series([1]), 1):
        return
    for form in (*number_forms(cells), "." + SCALED):
        assert parse_numbers(cells, form).null_count() == 1, form


@given(
    st.floats(-1e9, 1e9).map(lambda x: round(x, 2)),
    st.sampled_from([
        "{:,.2f}", "{:.2f}", "{:,.2f}-", "({:,.2f})", "€{:,.2f}", "< {:.2f}", ">{:.2f}", "{:.2f} kg", "\u2264{:.2f}", "$ {:,.2f}",
    ]),
)  # fmt: skip
def test_a_number_is_read_as_it_was_written(number, style):
    size = abs(number)
    negative = style.endswith("-") or style.startswith("(")
    text = style.format(size)
    [form] = [
        f for f in number_forms(pl.Series([text])) if f.startswith(".") and (f[1:] or "kg" not in text)
    ][-1:]
    assert parse_numbers(pl.Series([text]), form)[0] == pytest.approx(-size if negative else size)


MINUS = ["-{}", "{}-", "({})", "\u2212{}"]
AROUND = ["{}", "\u20ac{}", "US$ {}", "{} kg", "{}%", "{} \u20ac"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-(10**8), 10**8).map(lambda n: n / 100), min_size=30, max_size=40, unique_by=abs),
    st.sampled_from(MINUS),
    st.sampled_from(AROUND),
    st.sampled_from([",.", ".,", " ,", "'.", "."]),
)
def test_a_column_of_numbers_in_one_style_is_read_as_it_was_written(numbers, minus, around, marks):
    assume(minus != "{}-" or around.endswith("{}"))  # mainframes print no unit

    def written(number):
        groups, mark = (marks[0], marks[1]) if marks[1:] else ("", marks)
        text = f"{abs(number):,.2f}".replace(",", "_").replace(".", mark).replace("_", groups)
        return minus.format(around.format(text)) if number < 0 else around.format(text)

    values = [written(number) for number in numbers] * 3
    column = typed(values)
    read, notes = conform(pl.Series("x", values), column)
    assert column.type == "numeric" and not notes
    assert read.to_list() == pytest.approx(numbers * 3)


OTHER_SCALES = [
    ("${}", "\u20ac{}"),
    ("{} kg", "{} g"),
    ("CHF {}", "GBP {}"),
    ("{}%", "0.{}"),
    ("{}MB", "{}GB"),
    ("{}", "x{}"),
]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(OTHER_SCALES), st.lists(st.booleans(), min_size=40, max_size=60))
def test_a_column_that_is_asked_to_be_numeric_reads_one_scale(styles, which):
    values = pl.Series("x", [styles[one].format(n + 11) for n, one in enumerate(which)])
    read = conform(values, infer(values, values, "numeric"))[0].is_not_null()
    assert len({one for one, there in zip(which, read, strict=True) if there}) <= 1


@pytest.mark.parametrize(
    "values", [["3-5", "5-12"], ["A12", "B13"], ["12:3", "4:5"], ["25:10", "26:00"], ["Model 2000", "X"]]
)
def test_what_only_looks_like_a_number_stays_text(values):
    assert typed(values * 40).type == "categorical"


@pytest.mark.parametrize(
    "values",
    [
        ["2024-01", "2023-12"],
        ["01/2024", "12/2023"],
        ["Jan 2024", "Dec 2023"],
        ["January 2024", "December 2023"],
    ],
)
def test_months_without_a_day_are_their_first(values):
    column = typed(values * 40)
    read, _ = conform(pl.Series("x", values), column)
    assert column.type == "datetime" and [str(date.date()) for date in read] == ["2024-01-01", "2023-12-01"]


@pytest.mark.parametrize("pair", BOOLEAN_WORDS)
def test_yes_and_no_in_several_languages(pair):
    column = typed([pair[0].upper(), f" {pair[1]}"] * 40)
    read, _ = conform(pl.Series("x", list(pair)), column)
    assert column.type == "boolean" and read.to_list() == [False, True]


def test_errors_of_a_spreadsheet_are_missing():
    values = [str(n / 7) for n in range(30)] + ["#DIV/0!", "#REF!", "n.a.", "#N/A"] * 5
    table = load_table(plain(50).with_columns(x=pl.Series(values)), "y")
    assert types_of(table)["x"] == "numeric" and table.notes["junk_values"] == 20


@pytest.mark.parametrize(
    ("numbers", "marks"),
    [
        ([18, 90, 45, 999], (999,)),
        ([0.5, 200_000, -999], (-999,)),
        ([1, 2, -99, 99], (-99, 99)),
        ([1, 2, 3, -9999.0, 99999.0], (-9999, 99999)),
        ([10, 520, 999], ()),  # as far from its neighbour as that is from others
        ([-5000, 20, 3000, -999], ()),
        ([0, 30, 99], (99,)),
        ([1, 60, 99], ()),
        ([99], ()),
        ([5, 7, 1e9], ()),
        ([5, 7, 1e20], (1e20,)),
        ([-1e20, 5, 7, 9.969209968386869e36], (-1e20, 9.969209968386869e36)),
        ([-32768, 0, 31000], (-32768,)),
        ([-32768, -32700, 31000], ()),
    ],
)
def test_numbers_that_mark_missing_cells_are_missing(numbers, marks):
    values = [float(number) for number in numbers] * 20
    assert marks_of_missing(pl.Series(values)) == marks
    if marks:
        data = plain(len(values)).with_columns(x=pl.Series(values))
        table = load_table(data, "y")
        marked = sum(value in marks for value in values)
        assert table.schema.columns[-1].missing == marks and table.notes["marked_values"] == marked
        assert TableSchema.from_dict(json.loads(json.dumps(table.schema.to_dict()))) == table.schema
        assert np.isnan(encode(data, table.schema).numeric).sum() == marked
        assert load_table(data, "y", ReadingOptions(types={"x": "numeric"})).notes == {}, (
            "a person's word counts"
        )


@pytest.mark.parametrize("form", ["{:,.2f} $", "${:,.2f}", "{} kg"])
def test_a_target_with_units_is_a_quantity(form):
    """It had thousands of classes, and was refused."""
    data = plain(100).drop("y").with_columns(y=pl.Series([form.format(1000 + n * 1.5) for n in range(100)]))
    test = plain(20, seed=1).drop("y").with_columns(y=pl.Series([form.format(n) for n in range(20)]))
    table = load_table(data, "y", ReadingOptions(test=test))
    assert table.schema.task == "regression"
    assert sorted(table.dataset("train").target) == [1000 + n * 1.5 for n in range(100)]
    assert list(table.dataset("test").target) == list(range(20))
    again = TableSchema.from_dict(json.loads(json.dumps(table.schema.to_dict())))
    assert again == table.schema and again.target_format
    stars = data.with_columns(y=pl.Series([f"{n % 5} stars" for n in range(100)]))
    assert load_table(stars, "y").schema.task == "multiclass", "few whole ones are levels"


def test_text_that_is_mostly_numbers_reads_as_numbers_and_counts_the_junk():
    values = [str(n / 7) for n in range(38)] + ["unknown", "12 apples"]
    table = load_table(plain().with_columns(x=pl.Series(values)), "y")
    assert types_of(table)["x"] == "numeric" and table.notes["junk_values"] == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([f"{n}.5 kg" for n in range(ROWS)], lambda n: n + 0.5),
        ([f"{n},25" for n in range(ROWS)], lambda n: n + 0.25),
        ([f"€ {n + 1},000" for n in range(ROWS)], lambda n: (n + 1) * 1000),
        ([f" {n} " for n in range(ROWS)], lambda n: n),
        ([f"{n}e2" for n in range(ROWS)], lambda n: n * 100),
    ],
)
def test_numbers_in_text_have_their_value(values, expected):
    data = plain().with_columns(x=pl.Series(values))
    table = load_table(data, "y", ReadingOptions(types={"x": "numeric"}))
    column = encode(data, table.schema).numeric_names.index("x")
    assert encode(data, table.schema).numeric[:, column].tolist() == [expected(n) for n in range(ROWS)]


def test_infinite_values_are_missing_and_counted(tmp_path):
    values = ["inf", "-inf", "1e999", "nan", ""] + [f"{n}.5" for n in range(35)]
    text = "x,y\n" + "".join(f"{value},{n % 2}\n" for n, value in enumerate(values))
    for source in (write(tmp_path / "x.csv", text), pl.DataFrame({"x": values, "y": [0, 1] * 20})):
        table = load_table(source, "y")
        assert table.notes["infinite_values"] == 3
        both = pl.concat([table.train, table.test])
        assert both["x"].null_count() == 5 and both["x"].drop_nulls().is_finite().all()


@pytest.mark.parametrize("wanted", ["numeric", "categorical", "boolean", "datetime", "text"])
@pytest.mark.parametrize("values", [NUMBERS, WHOLE, UUIDS, SENTENCES, ["yes", "no"] * 20, [None] * ROWS])
def test_every_type_can_be_asked_for(values, wanted):
    data = plain().with_columns(x=pl.Series(values))
    table = load_table(data, "y", ReadingOptions(types={"x": wanted}))
    assert types_of(table)["x"] == wanted and table.schema.columns[2].why == "asked for"
    assert len(encode(data, table.schema)) == ROWS


def test_types_do_not_depend_on_the_order_of_columns_or_on_the_test_rows():
    data = plain().with_columns(x=pl.Series(WHOLE), d=pl.Series(UUIDS))
    assert types_of(load_table(data.select(reversed(data.columns)), "y")) == types_of(load_table(data, "y"))
    test = plain(seed=1).with_columns(x=pl.lit("junk"), d=pl.lit("x"))
    assert (
        load_table(data, "y", ReadingOptions(test=test)).schema
        == load_table(data, "y", ReadingOptions(test=test.head(5))).schema
    )


# ------------------------------------------------------------------------------------------------------ tasks


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a"] * 20, "binary", ("a", "b")),
        (["b ", "a "] * 20, "binary", ("a ", "b ")),
        ([True, False] * 20, "binary", ("False", "True")),
        ([0, 1] * 20, "binary", ("0", "1")),
        ([1.0, 2.0] * 20, "binary", ("1", "2")),
        ([10, 9, 2, 10] * 10, "multiclass", ("2", "9", "10")),
        (["x", "y", "z", "x"] * 10, "multiclass", ("x", "y", "z")),
        (WHOLE, "regression", ()),  # nine values in forty rows: a count
        (WHOLE * 10, "multiclass", tuple(map(str, sorted(set(WHOLE))))),
        (list(range(50)) * 20, "regression", ()),
        (NUMBERS, "regression", ()),
        ([str(n / 8) for n in range(38)] + ["?", "n/a"], "regression", ()),
    ],
)
def test_the_task_is_inferred(values, task, classes):
    data = plain(len(values)).with_columns(y=pl.Series(values))
    schema = load_table(data, "y").schema
    assert (schema.task, schema.classes) == (task, classes)


def test_the_task_can_be_asked_for():
    data = plain(400).with_columns(y=pl.Series(WHOLE * 10))
    assert load_table(data, "y", ReadingOptions(task="regression")).schema.task == "regression"
    assert load_table(data, "y").dataset("train").target.dtype == np.int64
    assert (
        load_table(data, "y", ReadingOptions(task="regression")).dataset("train").target.dtype == np.float64
    )


def test_rows_without_a_target_are_left_out_and_counted():
    data = plain().with_columns(y=pl.when(pl.int_range(ROWS) % 8 == 3).then(None).otherwise("y"))
    table = load_table(data, "y")
    assert table.notes["rows_without_target"] == 5 and len(table.train) + len(table.test) == ROWS - 5


# --------------------------------------------------------------------------------------------------- hold-out


def numbered(rows, **more):
    return plain(rows, **more).with_columns(n=pl.Series(np.random.default_rng(9).permutation(rows) * 1.5))


def test_the_hold_out_is_stratified_and_of_the_size_asked_for():
    data = numbered(200).with_columns(y=pl.Series(["a"] * 150 + ["b"] * 45 + ["c"] * 5))
    table = load_table(data, "y", ReadingOptions(test_fraction=0.2))
    assert dict(table.test["y"].value_counts().rows()) == {"a": 30, "b": 9, "c": 1}
    assert not set(table.train["n"]) & set(table.test["n"])
    assert len(table.train) == 160 and table.test_origin == "held-out"


@pytest.mark.parametrize("target", ["y", "n"])
def test_the_hold_out_follows_the_seed_and_the_content_not_the_order(target):
    data = numbered(100).with_columns(y=pl.Series(["a", "b"] * 50))
    first = load_table(data, target)
    shuffled = data.sample(fraction=1, shuffle=True, seed=4).select(reversed(data.columns))
    again = load_table(shuffled, target)
    assert set(first.test.select("a", "n").rows()) == set(again.test.select("a", "n").rows())
    assert first.fingerprint == again.fingerprint
    assert set(load_table(data, target, ReadingOptions(seed=1)).test["a"]) != set(first.test["a"])


def test_the_hold_out_is_the_same_in_another_process():
    code = (
        "from advisor.data.options import ReadingOptions; from advisor.data.tables.table import load_table; "
        "table = load_table('sklearn:wine', 'target', ReadingOptions(seed=3)); "
        "print(table.fingerprint, sorted(table.test['alcohol'].to_list()))"
    )
    here = load_table("sklearn:wine", "target", ReadingOptions(seed=3))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == f"{here.fingerprint} {sorted(here.test['alcohol'].to_list())}"


def test_large_tables_hold_out_by_content_too():
    rows = 210_000
    rng = np.random.default_rng(0)
    data = pl.DataFrame(
        {f"x{n}": rng.normal(size=rows) for n in range(10)} | {"y": rng.choice(["u", "v"], rows)}
    )
    first, again = load_table(data, "y"), load_table(data.reverse(), "y")
    assert set(first.test["x9"]) == set(again.test["x9"]) and first.fingerprint == again.fingerprint


def test_the_fingerprint_notices_a_changed_cell():
    data = numbered(60)
    changed = data.with_columns(a=pl.when(pl.int_range(60) == 30).then(9.75).otherwise("a"))
    swapped = data.with_columns(a=pl.col("a").reverse())
    prints = {
        load_table(frame, "y").fingerprint for frame in (data, changed, swapped, data.rename({"a": "b"}))
    }
    assert len(prints) == 4


def test_whole_groups_are_held_out_and_are_no_feature():
    data = numbered(120, g=[f"g{n % 10}" for n in range(120)])
    table = load_table(data, "y", ReadingOptions(group_column="g"))
    assert not set(table.train["g"]) & set(table.test["g"])
    assert len(set(table.test["g"])) == 2 and "g" not in types_of(table)
    groups = table.dataset("train").groups
    assert groups is not None and len(set(groups.tolist())) == 8


def test_a_class_found_in_one_group_only_stays_with_the_training_rows():
    data = numbered(120, g=[f"g{n // 12}" for n in range(120)]).with_columns(
        y=pl.when(pl.int_range(120) < 12).then(pl.lit("rare")).otherwise("y")
    )
    for seed in range(10):
        assert load_table(data, "y", ReadingOptions(group_column="g", seed=seed)).schema.classes == (
            "no",
            "rare",
            "yes",
        )


def test_the_latest_rows_are_held_out_and_the_time_is_no_column():
    days = [f"{1 + n % 28:02}.{1 + n // 28:02}.2024" for n in range(100)]
    order = np.random.default_rng(0).permutation(100)
    data = numbered(100).with_columns(t=pl.Series([days[n] for n in order]), day=pl.Series(order))
    table = load_table(data, "y", ReadingOptions(time_column="t"))
    assert sorted(table.test["day"]) == list(range(80, 100))
    assert "t" not in types_of(table)
    times = table.dataset("train").times
    assert times is not None and np.array_equal(np.argsort(times), np.argsort(table.train["day"].to_numpy()))


def timed(**columns):
    return numbered(1000, **columns)


@pytest.mark.parametrize(
    "times, parts",
    [
        (
            [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=n) for n in range(1000)],
            ["weekday", "hour", "days"],
        ),
        (
            [datetime.date(2020, 1, 1) + datetime.timedelta(days=n) for n in range(1000)],
            ["month", "day", "weekday", "days"],
        ),
        ([str(datetime.date(2024, 1, 1) + datetime.timedelta(days=n // 100)) for n in range(1000)], ["days"]),
    ],
    ids=["hours", "days", "ten days"],
)
def test_the_time_becomes_its_days_and_what_comes_round_in_it_twice(times, parts):
    data = timed(when=times)
    table = load_table(data, "y", ReadingOptions(time_column="when"))
    names = [f"when.{part}" for part in parts]
    features = table.dataset("train").features
    assert features.numeric_names[-len(names) :] == table.schema.time_parts == tuple(names)
    assert features.trend == ("when.days",)
    fresh = encode(data, table.schema)
    at = fresh.numeric_names.index("when.days")
    assert np.array_equal(fresh.numeric[:800, at], features.numeric[:, at]), (
        "new rows are read as the training rows were"
    )
    assert table.dataset("test").features.numeric[:, at].min() > features.numeric[:, at].max()


def test_a_time_that_is_a_number_is_one_input_and_must_be_there_to_predict():
    data = timed(step=list(range(1000)))
    schema = load_table(data, "y", ReadingOptions(time_column="step")).schema
    assert (
        schema.time_parts == ("step",)
        and TableSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    )
    with pytest.raises(UserError, match="no column 'step'"):
        encode(data.drop("step"), schema)


def test_a_test_table_without_the_time_makes_no_input_of_it():
    data = timed(step=list(range(1000)))
    schema = load_table(data, "y", ReadingOptions(time_column="step", test=data.drop("step"))).schema
    assert schema.time_column == "step" and schema.time is None and schema.time_parts == ()
    assert "step" not in encode(data, schema).numeric_names


def test_a_schema_of_before_the_time_was_an_input_is_read():
    old = load_table(timed(step=list(range(1000))), "y", ReadingOptions(time_column="step")).schema.to_dict()
    del old["time"], old["time_parts"]
    assert TableSchema.from_dict(old).time_parts == ()


def test_rows_of_one_time_are_not_parted():
    data = numbered(100).with_columns(year=pl.Series([2000 + n // 30 for n in range(100)]))
    table = load_table(data, "y", ReadingOptions(time_column="year"))
    assert set(table.test["year"]) == {2003.0} and set(table.train["year"]) == {2000.0, 2001.0, 2002.0}


def test_a_class_that_only_the_latest_rows_have_is_counted_and_left_out():
    answers = ["a", "b"] * 45 + ["new", "a"] * 5
    table = load_table(
        numbered(100).with_columns(y=pl.Series(answers), t=pl.int_range(100)),
        "y",
        ReadingOptions(time_column="t"),
    )
    assert table.notes["test_rows_of_unseen_class"] == 5 and table.schema.classes == ("a", "b")


def test_a_given_test_table_is_read_by_the_schema_of_the_training_rows():
    train = plain().with_columns(x=pl.Series(WHOLE))
    test = plain(12, seed=7).with_columns(c=pl.lit("new"), x=pl.lit("junk"), extra=pl.lit(1))
    table = load_table(train, "y", ReadingOptions(test=test))
    features = table.dataset("test").features
    assert table.test_origin == "file" and len(table.train) == ROWS and len(table.test) == 12
    assert (features.categorical == UNSEEN).all() and np.isnan(features.numeric[:, 1]).all()


# --------------------------------------------------------------------------------------------------- new rows


def rich():
    rng = np.random.default_rng(5)
    return plain(
        60,
        flag=["yes", "no", None] * 20,
        day=[f"2024-{1 + n % 12:02}-{1 + n % 28:02}" for n in range(60)],
        remark=[f"remark number {n} of many kinds" for n in range(60)],
        id=np.arange(60),
        fixed=["f"] * 60,
        code=rng.choice(["k1", "k2", None], 60).tolist(),
    ).with_columns(stamp=pl.datetime(2024, 1, 1) + pl.duration(hours=pl.int_range(60)))


def test_encoding_of_every_type():
    data = rich()
    table = load_table(data, "y")
    features = encode(data, table.schema)
    at = {name: features.numeric[:, position] for position, name in enumerate(features.numeric_names)}
    assert features.categorical_names == ("c", "code")
    assert features.levels == (("u", "v", "w"), ("k1", "k2"))
    assert features.levels[0] == table.schema.levels["c"]
    assert at["a"].tolist() == data["a"].to_list()
    assert at["flag"][:2].tolist() == [1, 0] and np.isnan(at["flag"][2])
    assert at["day.days"][0] == (datetime.date(2024, 1, 1) - datetime.date(1970, 1, 1)).days
    assert (at["day.month"][1], at["day.day"][1], at["day.weekday"][0], at["day.year"][0]) == (2, 2, 1, 2024)
    assert "day.hour" not in at and at["stamp.hour"][5] == 5
    assert at["remark.length"][0] == len("remark number 0 of many kinds")
    assert table.schema.words == {"remark": ()} and not any(
        name.startswith("remark.word") for name in at
    )  # all are common
    assert not any(name.startswith(("id", "fixed")) for name in at)
    codes = features.categorical[:, 1]
    for code, value in zip(codes.tolist(), data["code"].to_list(), strict=True):
        assert code == (MISSING if value is None else ("k1", "k2").index(value))


def test_a_text_is_told_by_the_words_that_some_rows_have():
    draw = np.random.default_rng(0)
    rare = [f"{word:04d}" for word in draw.permutation(5000)[:200]]
    told = ["Leak" if row % 4 == 0 else "noise and rust" if row % 4 == 1 else "" for row in range(200)]
    remarks = [f"the pump {tell} no {number}" for tell, number in zip(told, rare, strict=True)]
    data = pl.DataFrame({"a": draw.normal(size=200), "remark": remarks, "y": ["u", "v"] * 100})
    table = load_table(data.with_columns(remark=pl.when(pl.int_range(200) != 7).then("remark")), "y")
    assert table.schema.words == {"remark": ("and", "leak", "noise", "rust")}
    schema = TableSchema.from_dict(json.loads(json.dumps(table.schema.to_dict())))
    assert schema == table.schema
    features = encode(
        pl.DataFrame({"a": [1.0] * 4, "remark": ["a LEAK, rust!", "nothing", None, "noise"]}), schema
    )
    assert features.words == tuple(f"remark.word.{word}" for word in ("and", "leak", "noise", "rust"))
    half = 0.5**0.5
    assert np.allclose(
        features.numeric[:, features.word_columns], [[0, half, 0, half], [0] * 4, [0] * 4, [0, 0, 1, 0]]
    )
    assert features.numeric_names[-1] == "remark.length" and np.isnan(features.numeric[2, -1])


def test_models_of_before_words_were_chosen_hash_them():
    table = load_table(rich(), "y")
    old = dict(table.schema.to_dict())
    del old["words"]
    features = encode(rich(), TableSchema.from_dict(old))
    assert sum(name.startswith("remark.word") for name in features.numeric_names) == 32 and not features.words


def test_encoding_does_not_depend_on_order_other_columns_or_the_reader(tmp_path):
    data = rich()
    schema = TableSchema.from_dict(load_table(data, "y").schema.to_dict())
    assert schema == load_table(data, "y").schema
    want = encode(data, schema)
    shuffled = data.select(reversed(data.columns)).with_columns(more=pl.lit(1)).drop("y", "id", "fixed")
    write(tmp_path / "x.csv", csv_text(data))
    for frame in (shuffled, read_frame(tmp_path / "x.csv"), read_frame(data.to_pandas())):
        got = encode(frame, schema)
        assert np.array_equal(got.numeric, want.numeric, equal_nan=True)
        assert np.array_equal(got.categorical, want.categorical)
    one = encode(data[7:8], schema)
    assert np.array_equal(one.numeric[0], want.numeric[7], equal_nan=True)


def test_encoding_no_rows_and_junk():
    data = rich()
    schema = load_table(data, "y").schema
    none = encode(data.head(0), schema)
    assert none.numeric.shape == (0, len(encode(data, schema).numeric_names)) and none.categorical.shape == (
        0,
        2,
    )
    used = [column.name for column in schema.columns if column.type not in ("identifier", "constant")]
    junk = encode(pl.DataFrame({name: ["~~", None, ""] for name in used}), schema)
    assert junk.categorical.tolist() == [[UNSEEN, UNSEEN], [MISSING, MISSING], [MISSING, MISSING]]
    numbers = [name for name in junk.numeric_names if not name.startswith("remark")]
    assert all(np.isnan(junk.numeric[:, junk.numeric_names.index(name)]).all() for name in numbers)


def test_missing_columns_are_all_named():
    schema = load_table(rich(), "y").schema
    with pytest.raises(UserError, match=r"no column 'a', 'flag'"):
        encode(rich().drop("a", "flag"), schema)


def test_very_many_levels_keep_the_most_frequent(monkeypatch):
    monkeypatch.setattr("advisor.data.tables.table.MAX_LEVELS", 3)
    values = ["a"] * 20 + ["b"] * 15 + ["c"] * 10 + ["d"] * 5 + ["e"] * 5
    data = plain(55).with_columns(c=pl.Series(values))
    table = load_table(data, "y")
    assert table.schema.levels["c"] == ("a", "b", "c")
    assert encode(data, table.schema).categorical[-1, 0] == UNSEEN


# -------------------------------------------------------------------------------------------------- any input

CELLS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        [
            "1",
            "2.5",
            "inf",
            "nan",
            "NA",
            "2020-01-01",
            "yes",
            "no",
            "",
            "1e400",
            "-0",
            "9" * 25,
            "1,5",
            "3 kg",
        ]
    ),
    st.floats().map(str),
)
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=30)
)
RELAXED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def survives(path, content):
    """A table or a UserError of one line, for every column as the target."""
    write(path, content)
    try:
        frame = read_frame(path)
        assert len(set(frame.columns)) == frame.width
    except UserError as error:
        one_line(error)
        return
    for column in frame.columns[:3]:
        try:
            table = load_table(path, column)
        except UserError as error:
            one_line(error)
            continue
        assert len(table.dataset("train")) and len(table.dataset("test"))
        assert TableSchema.from_dict(table.schema.to_dict()) == table.schema
        features = encode(frame, table.schema)
        assert len(features) == frame.height and not np.isinf(features.numeric).any()


@RELAXED
@given(TABLES, st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
def test_any_csv_becomes_a_table_or_one_line(tmp_path, rows, separator, encoding):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows(rows)
    survives(tmp_path / "x.csv", text.getvalue().encode(encoding, "replace"))


@RELAXED
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='ab1,;"\n\r\t .-é|', max_size=80).map(str.encode)))
def test_any_bytes_become_a_table_or_one_line(tmp_path, content):
    survives(tmp_path / "x.csv", content)


@RELAXED
@given(st.data())
def test_a_damaged_parquet_becomes_a_table_or_one_line(tmp_path, data):
    plain().write_parquet(tmp_path / "x.parquet")
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content = content[: data.draw(st.integers(4, len(content)))]
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(4, max(len(content) - 1, 4)) if len(content) > 4 else st.just(0))] ^= (
            data.draw(st.integers(0, 255))
        )
    survives(tmp_path / "y.parquet", bytes(content))


@RELAXED
@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=20
    )
)
def test_any_text_in_cells_comes_back(tmp_path, rows):
    clean = [[cell.replace("\0", "").replace("\r", "") for cell in row] for row in rows]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["p", "q", "r"], *clean])
    content = text.getvalue().encode("utf-8", "replace")
    try:
        frame = read_frame(write(tmp_path / "x.csv", content))
    except UserError as error:
        assert "binary" in one_line(error)
        return
    again = [[cell or "" for cell in row] for row in frame.cast(pl.String).rows()]
    expected = [[cell.encode("utf-8", "replace").decode() for cell in row] for row in clean]
    for got, want in zip(again, expected, strict=True):
        for left, right in zip(got, want, strict=True):
            assert left == right or float(left) == float(right)


def test_test_rows_of_a_class_that_no_training_row_has_are_left_out_and_counted():
    train = pl.DataFrame({"a": [0.5, 1, 2, 3] * 10, "y": ["u", "v"] * 20})
    test = pl.DataFrame({"a": range(4), "y": ["u", "w", None, "v"]})
    table = load_table(train, "y", ReadingOptions(test=test))
    assert table.test["a"].to_list() == [0, 3]
    assert table.notes["test_rows_of_unseen_class"] == 1
    assert table.notes["test_rows_without_target"] == 1


DAYS = [(datetime.date(2023, 1, 1) + datetime.timedelta(days=row)).isoformat() for row in range(200)]
QUOTED = [
    ("time", [day if row % 3 == 0 else "soon" for row, day in enumerate(DAYS)], "as dates in 133 of 200 "
                                                                                "cells, such as 'soon'"),
    ("time", [None if row % 3 == 0 else ("soon", day)[row % 2] for row, day in enumerate(DAYS)],
     "as dates in 66 of 200 cells, such as 'soon', and is missing in 67"),
    ("time", [str(row / 4) if row % 3 else "soon" for row in range(200)], "as numbers in 67 of 200 cells, "
                                                                          "such as 'soon'"),
    ("time", ["soon", "late"] * 100, "as dates or numbers in 200 of 200 cells, such as 'soon'"),
    ("time", [None if row % 3 == 0 else day for row, day in enumerate(DAYS)], "is missing in 67 of 200 rows"),
    ("time", ["2023-04-01"] * 200, "has the same value in all rows"),
    ("target", [str(row / 4) if row % 3 else "bad" for row in range(200)], "67 of 200 cells are not numbers, "
                                                                           "such as 'bad'"),
    ("test", [str(row / 4) if row % 3 else "bad" for row in range(200)], "67 of 200 cells are not numbers, "
                                                                         "such as 'bad'"),
]  # fmt: skip


@pytest.mark.parametrize(("role", "cells", "says"), QUOTED)
def test_an_error_quotes_the_cells_that_cannot_be_read_and_how_many(role, cells, says):
    data = plain(200).with_columns(c=pl.Series(cells))
    options = {"time": {"time_column": "c"}, "target": {"task": "regression"}, "test": {"test": data}}[role]
    target = "c" if role in ("target", "test") else "y"
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        load_table(
            data.with_columns(c=pl.int_range(pl.len()) / 7) if role == "test" else data,
            target,
            ReadingOptions(**options),
        )
    one_line(caught.value)


def test_cells_that_are_read_as_missing_are_told():
    data = plain(200).with_columns(
        c=pl.Series([day if row % 3 == 0 else "soon" for row, day in enumerate(DAYS)])
    )
    told = load_table(data, "y", ReadingOptions(types={"c": "datetime"})).told["unreadable-cells"]
    assert (
        told
        == "Cells that cannot be read are missing values: in 'c' (datetime) 133 of 200 cells, such as 'soon'."
    )


def test_weights_are_a_column_that_is_no_feature_and_rows_without_one_are_left_out():
    weights = [0, 1, 3, 2] * (ROWS // 4)
    table = load_table(plain(w=weights), "y", ReadingOptions(weight_column="w", test_fraction=0))
    train = table.dataset("train")
    assert "w" not in table.schema.levels and "w" not in train.features.numeric_names
    assert len(train) == ROWS * 3 // 4 and table.notes["rows_without_weight"] == ROWS // 4
    assert train.training_weights[:3].tolist() == [0.5, 1.5, 1.0] and train.weights.mean() == 1
    assert TableSchema.from_dict(table.schema.to_dict()) == table.schema
    other = load_table(plain(w=weights[::-1]), "y", ReadingOptions(weight_column="w", test_fraction=0))
    assert other.fingerprint != table.fingerprint


def test_without_a_test_fraction_all_rows_train():
    table = load_table(plain(), "y", ReadingOptions(test_fraction=0))
    assert (table.train.height, table.test.height) == (ROWS, 0)
    assert len(table.dataset("test")) == 0
