"""Text files that are not UTF-8: the encoding is found out and told, what is provably wrong is refused, and
new rows are read as the training rows were."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import advisor
from advisor.cli.main import _run
from advisor.data.options import FileForm, ReadingOptions
from advisor.data.signals.ucr_files import read_archive
from advisor.data.sources.reading import read_source
from advisor.data.sources.text_encoding import CANDIDATES, find_encoding
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import load_table, read_frame
from advisor.errors import UserError

WORDS = {
    "cp1252": [
        "café",
        "größe",
        "Müller",
        "naïve",
        "señor",
        "São Paulo",
        "5 €",
        "“a” – b",
        "l’été",
        "m²",
        "21 °C",
        "¿qué?",
    ],
    "cp1250": ["Łódź", "Kraków", "Gdańsk", "Wrocław", "żółty", "Plzeň", "České Budějovice"],
    "cp1251": ["Москва", "Санкт-Петербург", "Казань", "да", "нет", "женский"],
    "koi8_r": ["Москва", "Санкт-Петербург", "Казань", "да", "нет", "женский"],
    "cp1253": ["Αθήνα", "Θεσσαλονίκη", "Πάτρα", "ναι", "όχι"],
    "cp932": ["東京", "大阪", "はい", "いいえ", "カタカナ", "男性", "女性"],
    "euc_jp": ["東京", "大阪", "はい", "いいえ", "カタカナ", "男性", "女性"],
    "gb18030": ["北京", "上海", "广州", "深圳", "男", "女", "是", "否"],
    "big5": ["臺北", "高雄", "臺中", "男", "女"],
    "cp949": ["서울", "부산", "대구", "남자", "여자"],
}


def table(words, rows=60):
    draw = np.random.default_rng(0)
    return pl.DataFrame({
        "a": draw.normal(size=rows).round(3), "c": [words[n % len(words)] for n in range(rows)], "y": ["u", "v"] * (rows // 2)
    })  # fmt: skip


def write(path, frame, encoding):
    path.write_bytes(frame.write_csv().encode(encoding))
    return path


@pytest.mark.parametrize("encoding", WORDS)
def test_the_encoding_is_found_out_and_told(tmp_path, encoding):
    data = table(WORDS[encoding])
    read = read_source(write(tmp_path / "t.csv", data, encoding))
    assert read.frame.equals(data) and read.encoding == encoding
    assert f": {encoding}" in read.told["encoding"] and "--encoding" in read.told["encoding"]
    found = advisor.recommend(str(tmp_path / "t.csv"), "y").findings
    assert any(finding.code == "encoding" and encoding in finding.message for finding in found)


def test_letters_that_only_the_end_of_a_large_file_has(tmp_path):
    late = pl.when(pl.int_range(pl.len()) > 29_000).then(pl.lit("Москва")).otherwise("c")
    data = table(["plain"], 30_000).with_columns(c=late)
    assert read_frame(write(tmp_path / "t.csv", data, "cp1251")).equals(data)
    path = write(tmp_path / "q.csv", data.with_columns(c=pl.col("c").replace("plain", 'a "quote')), "cp1251")
    path.write_bytes(path.read_bytes().replace(b'""quote"', b'"quote'))  # which our own reader reads
    assert set(read_frame(path)["c"].unique()) >= {"Москва"}


def test_what_is_provably_wrong_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", table(WORDS["cp1252"]), "utf-8")
    path.write_bytes(path.read_bytes().replace("café".encode(), b"caf\xe9"))
    with pytest.raises(UserError, match="is UTF-8 but damaged at byte"):
        read_frame(path)
    noise = np.random.default_rng(0).integers(128, 256, (60, 9), np.uint8)
    path.write_bytes(b"a,y\n" + b"\n".join(bytes(row) + b",1" for row in noise))
    with pytest.raises(UserError, match="neither UTF-8 nor valid text"):
        read_frame(path)
    write(path, table(WORDS["cp1251"]), "cp1251")
    wrong = {
        "utf-8": "not valid UTF-8",
        "ascii": "not in ascii",
        "nonsense": "no encoding",
        "base64": "no encoding",
    }
    for asked, says in wrong.items():
        with pytest.raises(UserError, match=says):
            read_frame(path, form=FileForm(asked))


def test_who_names_the_encoding_is_believed(tmp_path):
    data = table(["男", "女"])
    path = write(tmp_path / "t.csv", data, "gbk")
    assert read_frame(path, form=FileForm("gbk")).equals(data)
    assert load_table(path, "y", ReadingOptions(encoding="gbk")).schema.encoding == "gbk"
    write(path, data, "utf-8-sig")
    assert read_frame(path, form=FileForm("gbk")).equals(data), "a file that says what it is"


@pytest.mark.parametrize("new", ["gbk", "utf-8"])
def test_new_rows_are_read_as_the_training_rows_were(tmp_path, new):
    """A single cell is too little to tell an encoding by."""
    schema = TableSchema.from_dict(
        load_table(write(tmp_path / "t.csv", table(WORDS["gb18030"]), "gbk"), "y").schema.to_dict()
    )
    rows = table(["男"], 2)
    assert read_frame(write(tmp_path / "new.csv", rows, new), form=schema.form).equals(rows)


def test_encoding_on_the_command_line(tmp_path, capfd):
    path = write(tmp_path / "t.csv", table(["男", "女"]), "gbk")
    command = ["recommend", str(path), "--target", "y", "--out", str(tmp_path / "run")]
    assert (
        _run([*command, "--encoding", "gbkk"]) == 2
        and "there is no encoding 'gbkk'" in capfd.readouterr().err
    )
    assert _run([*command, "--encoding", "gbk"]) == 0
    assert "encoding: gbk" in (tmp_path / "run" / "recommendation.yaml").read_text()
    assert _run(["why", str(tmp_path / "run")]) == 0


def test_labels_of_an_archive_s_file(tmp_path):
    lines = [
        "@classlabel true да нет",
        "@data",
        *[f"{n},2,{n % 3},4:{'нет' if n % 2 else 'да'}" for n in range(20)],
    ]
    (tmp_path / "t.ts").write_bytes("\n".join(lines).encode("cp1251"))
    assert set(read_archive(tmp_path / "t.ts", 10**6).labels) == {"да", "нет"}


@given(st.binary(min_size=1, max_size=200).filter(lambda content: not content.isascii()))
def test_whatever_is_found_decodes_the_whole(content):
    try:
        found = find_encoding(content, "x")
    except UserError:
        return
    assert found.name in CANDIDATES and isinstance(content.decode(found.name), str)
