"""Sequences in .ts and .arff files, long and wide tables: round trips, odd spellings, damage."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.data.modalities import kind_of
from advisor.data.options import ReadingOptions
from advisor.data.signals.signals import load_signals, read_signals
from advisor.data.signals.ucr_files import read_archive
from advisor.errors import UserError
from advisor.workflows.recommend import repairs

MAX = 10**9
FLOATS = st.none() | st.floats(-1e6, 1e6, width=32)


@st.composite
def series(draw):
    """Rows of (channels, length), None for missing, with labels."""
    channels = draw(st.integers(1, 3))
    rows = draw(st.lists(st.integers(1, 5).flatmap(
        lambda length: st.lists(st.lists(FLOATS, min_size=length, max_size=length), min_size=channels, max_size=channels)
    ), min_size=1, max_size=6))  # fmt: skip
    return rows, [draw(st.sampled_from(["1", "b", "c-d"])) for _ in rows]


def cell(value):
    return "?" if value is None else repr(float(value))


def as_ts(rows, labels):
    lines = ["# a comment", "@problemName made up", "@timeStamps false", f"@dimensions {len(rows[0])}",
             "@equalLength false", "@CLASSLABEL TRUE 1 b c-d", "@data"]  # fmt: skip
    for row, label in zip(rows, labels, strict=True):
        lines.append(":".join([*(",".join(map(cell, channel)) for channel in row), label]))
    return "\n".join(lines)


def as_arff(rows, labels):
    longest = max(len(channel) for row in rows for channel in row)
    lines = ["% a comment", "@RELATION x", "@attribute s relational", *(f"@attribute p{at} numeric" for at in range(longest)),
             "@end s", "@attribute 'class' {1,b,'c-d'}", "", "@DATA"]  # fmt: skip
    for row, label in zip(rows, labels, strict=True):
        body = "\\n".join(",".join(map(cell, channel)) for channel in row)
        lines.append(f'"{body}",{label}')
    return "\r\n".join(lines)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(series(), st.sampled_from([("x.ts", as_ts), ("x.arff", as_arff)]))
def test_what_was_written_is_read(tmp_path, made, form):
    rows, labels = made
    (tmp_path / form[0]).write_text(form[1](rows, labels))
    found = read_archive(tmp_path / form[0], MAX)
    assert found.labels == labels and found.classes == ("1", "b", "c-d") and found.labelled
    for row, own in zip(rows, found.series, strict=True):
        expected = np.array(
            [[math.nan if value is None else value for value in channel] for channel in row], np.float32
        )
        assert np.array_equal(own, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "mark"), [("Toy_TRAIN.tsv", "\t"), ("Toy_TRAIN.txt", "  "), ("toy_train.txt", ",")]
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(FLOATS, min_size=3, max_size=6), min_size=1, max_size=6), st.data())
def test_a_label_and_points_in_a_line(tmp_path, name, mark, rows, data):
    labels = [data.draw(st.sampled_from(["1", "-1", "20"])) for _ in rows]
    rows[0] = [1.0, *rows[0][1:]]  # of the first line every cell is a number
    rows[0] = [0.0 if value is None else value for value in rows[0]]
    written = [data.draw(st.sampled_from([label, f"{float(label):.7e}"])) for label in labels]
    cells = [["NaN" if value is None else repr(value) for value in row] for row in rows]
    (tmp_path / name).write_text(
        "\n".join(mark.join([label, *row]) for label, row in zip(written, cells, strict=True)) + "\n"
    )
    found = read_archive(tmp_path / name, MAX)
    assert (
        found.labels == labels
        and found.labelled
        and not found.regression
        and kind_of(tmp_path / name) == "sequence"
    )
    for row, own in zip(rows, found.series, strict=True):
        expected = np.array([[math.nan if value is None else value for value in row]], np.float32)
        assert np.array_equal(own, expected, equal_nan=True)


def test_tables_that_are_called_like_files_of_the_archive(tmp_path):
    (tmp_path / "titanic_train.tsv").write_text("id\tage\tfare\tsurvived\n1\t2\t3\t0\n")
    (tmp_path / "notes_train.txt").write_text("hello there\n")
    (tmp_path / "scores.txt").write_text("1 2 3 4 5\n")
    for file in tmp_path.iterdir():
        assert kind_of(file) == "table"
    assert kind_of(tmp_path) == "image"  # no pair of the archive


def test_the_richest_of_a_folder_s_formats_is_read_and_its_test_rows(tmp_path):
    line = "{}\t1.5\t2.5\t3.5\n"
    for part, count in (("TRAIN", 12), ("TEST", 4)):
        (tmp_path / f"Toy_{part}.txt").write_text("".join(line.format(row % 2) for row in range(count)))
    data = load_signals(tmp_path)
    assert (data.rows, len(data.test), data.schema.target, data.schema.classes) == (
        12,
        4,
        "class",
        ("0", "1"),
    )
    assert read_signals(tmp_path / "Toy_TEST.txt", data.schema)[0].values.shape == (4, 1, 3)
    rows = "".join(f"1,2,3:{'u' if row % 2 else 'v'}\n" for row in range(12))
    (tmp_path / "Toy_TRAIN.ts").write_text("@classLabel true u v\n@data\n" + rows)
    assert load_signals(tmp_path).schema.classes == ("u", "v")
    (tmp_path / "Toy_TRAIN.txt").write_text("".join(f"{row + 0.5} 1 2 3\n" for row in range(20)))
    assert load_signals(tmp_path / "Toy_TRAIN.txt").schema.task == "regression"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), series(), st.sampled_from([("x.ts", as_ts), ("x.arff", as_arff)]))
def test_any_damage_ends_in_data_or_in_one_line(tmp_path, data, made, form):
    content = bytearray(form[1](*made).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        what = data.draw(st.sampled_from(["cut", "insert", "drop"]))
        if what == "cut":
            del content[at:]
        elif what == "drop":
            del content[at : at + data.draw(st.integers(1, 20))]
        else:
            words = st.sampled_from([b"@data\n", b":", b",", b"\n", b"'", b"@end s\n"])
            content[at:at] = data.draw(st.binary(max_size=6) | words)
    judged(tmp_path / form[0], bytes(content))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from(["x.ts", "x.arff"]))
def test_random_bytes_end_in_one_line(tmp_path, content, name):
    judged(tmp_path / name, content)


def judged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = read_archive(path, MAX)
    except UserError as error:
        assert "\n" not in str(error) and path.name in str(error)
    else:
        assert len(found.series) == len(found.labels) > 0
        assert len({row.shape[0] for row in found.series}) == 1


def ts(
    count=24, channels=1, header="@classLabel true u v", label=lambda row: "uv"[row % 2], length=lambda row: 6
):
    rng = np.random.default_rng(count)
    head = f"@problemName p\n@timestamps false\n@dimensions {channels}\n{header}\n@data\n"
    lines = []
    for row in range(count):
        cells = [",".join(f"{value:.3f}" for value in rng.normal(size=length(row))) for _ in range(channels)]
        lines.append(":".join([*cells, label(row)]))
    return head + "\n".join(lines) + "\n"


def test_a_pair_is_found_from_either_file_its_name_or_its_folder(tmp_path):
    folder = tmp_path / "Waves"
    folder.mkdir()
    (folder / "Waves_TRAIN.ts").write_text(ts(24, 2, length=lambda row: 4 + row % 3))
    (folder / "Waves_TEST.ts").write_text(ts(30, 2, length=lambda row: 4 + row % 4))
    prints = set()
    for source in (folder, folder / "Waves_TRAIN.ts", folder / "Waves_TEST.ts", folder / "Waves.ts"):
        assert kind_of(source) == "sequence"
        data = load_signals(source)
        assert (data.name, data.rows, len(data.test), data.test_origin) == ("Waves", 24, 30, "file")
        assert data.schema.shape == (2, 6) and data.schema.missing and data.notes == {"cut_sequences": 7}
        prints.add(data.fingerprint)
    assert len(prints) == 1
    assert read_signals(folder / "Waves_TEST.ts", data.schema)[0].values.shape == (30, 2, 6)
    assert (
        len(
            load_signals(folder / "Waves_TRAIN.ts", None, ReadingOptions(test=folder / "Waves_TRAIN.ts")).test
        )
        == 24
    )


def test_a_file_alone_is_divided(tmp_path):
    (tmp_path / "w.ts").write_text(ts(40))
    data = load_signals(tmp_path / "w.ts")
    assert (data.rows, len(data.test), data.test_origin, data.schema.missing) == (32, 8, "held-out", False)


def test_numbers_as_targets(tmp_path):
    (tmp_path / "r.ts").write_text(ts(40, header="@targetlabel true", label=lambda row: str(row * 1.5)))
    data = load_signals(tmp_path / "r.ts")
    assert data.schema.task == "regression"
    assert sorted([*data.train.target, *data.test.target]) == [row * 1.5 for row in range(40)]
    (tmp_path / "r.arff").write_text(
        "@relation r\n@attribute a real\n@attribute b real\n@attribute target numeric\n@data\n"
        + "".join(f"{row},{row * 2},{row * 1.5}\n" for row in range(40))
    )
    assert load_signals(tmp_path / "r.arff").schema.task == "regression"


def test_points_with_times(tmp_path):
    row = "(2024-01-01 10:00:00,{0}),(2024-01-01 11:00:00,?):(1,2.5),(2,{0}):{1}\n"
    rows = "".join(row.format(at, "uv"[at % 2]) for at in range(20))
    (tmp_path / "t.ts").write_text(
        "@problemName t\n@timeStamps true\n@univariate false\n@classLabel true u v\n@data\n" + rows
    )
    data = load_signals(tmp_path / "t.ts")
    assert data.schema.shape == (2, 2) and data.schema.missing
    first = data.train.features.values[0]
    assert first[1, 0] == 2.5 and np.isnan(first[0, 1]) and first[0, 0] == first[1, 1]


def test_plain_arff_has_a_point_per_attribute(tmp_path):
    (tmp_path / "p.arff").write_text(
        "@relation p\n@attribute att1 numeric\n@attribute 'att 2' real\n@attribute target {1,2}\n@data\n"
        + "".join(f"{row},?,{row % 2 + 1}\n" for row in range(20))
    )
    data = load_signals(tmp_path / "p.arff")
    assert (
        data.schema.target == "target" and data.schema.classes == ("1", "2") and data.schema.shape == (1, 1)
    )


def frame(ids=30, points=6, seed=0):
    """A long table in random order, with sequences of 3 to ``points`` points,
    and the sequences themselves."""
    rng = np.random.default_rng(seed)
    rows, made = [], {}
    for own in range(ids):
        length = int(rng.integers(3, points + 1))
        values = rng.normal(size=(2, length)).round(3)
        made[f"s{own}"] = values
        for at in range(length):
            point = {"day": f"2024-01-{at + 1:02}", "a": values[0, at], "b": values[1, at]}
            rows.append({"id": f"s{own}", **point, "who": own // 5, "y": "uv"[own % 2]})
    order = rng.permutation(len(rows))
    return pl.DataFrame([rows[at] for at in order]), made


@pytest.mark.parametrize("seed", range(5))
def test_a_long_table_is_what_a_loop_makes_of_it(seed, tmp_path):
    table, made = frame(seed=seed)
    table.write_csv(tmp_path / "t.csv")
    data = load_signals(
        tmp_path / "t.csv", "y", ReadingOptions(id_column="id", time_column="day", group_column="who")
    )
    assert data.schema.columns == ("a", "b") and data.schema.group_column == "who"
    for part, names in ((data.train, data.train_names), (data.test, data.test_names)):
        for name, row, code in zip(names, part.features.values, part.target, strict=True):
            length = min(made[name].shape[1], data.schema.size[0])
            assert np.array_equal(row[:, :length], made[name][:, :length].astype(np.float32))
            assert np.isnan(row[:, length:]).all() and part.classes[code] == "uv"[int(name[1:]) % 2]
    assert {*data.train_names, *data.test_names} == set(made)
    signals, names = read_signals(table.drop("y", "who").filter(pl.col("id") == "s3"), data.schema)
    assert names == ("s3",) and signals.values.shape[:2] == (1, 2)
    with pytest.raises(UserError, match="no column 'b'"):
        read_signals(table.drop("b"), data.schema)


def test_rows_of_a_long_table_that_lack_something_are_counted():
    table, _ = frame()
    lost = pl.DataFrame({"id": [None, "s1"], "day": ["2024-01-01", None], "a": [1.0, 1.0], "b": [1.0, 1.0]})
    lost = lost.with_columns(who=pl.lit(0), y=pl.Series(["u", "v"]))
    table = pl.concat([table, lost, table.filter(pl.col("id") == "s2")[:1]], how="vertical_relaxed")
    data = load_signals(table, "y", ReadingOptions(id_column="id", time_column="day", group_column=None))
    assert {name: data.notes[name] for name in ("rows_without_id", "rows_without_time", "repeated_times")} == {
        "rows_without_id": 1, "rows_without_time": 1, "repeated_times": 1,
    }  # fmt: skip


def test_a_wide_table_has_a_point_per_column():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 7)).round(3)
    values[3, 2] = np.nan
    columns = {f"p{at}": values[:, at] for at in range(7)}
    table = pl.DataFrame(columns | {"name": [f"n{row}" for row in range(40)], "y": ["u", "v"] * 20})
    data = load_signals(table, "y", ReadingOptions(kind="sequence"))
    assert data.schema.columns == tuple(columns) and data.schema.shape == (1, 7)
    named = load_signals(table, "y", ReadingOptions(kind="sequence", id_column="name"))
    by_name = dict(zip([*named.train_names, *named.test_names],
                       np.concatenate([named.train.features.values, named.test.features.values])[:, 0], strict=True))  # fmt: skip
    assert all(
        np.array_equal(by_name[f"n{row}"], values[row].astype(np.float32), equal_nan=True)
        for row in range(40)
    )
    reordered = table.select(reversed(table.columns)).drop("y", "name")
    new = read_signals(reordered, named.schema)[0].values
    assert np.array_equal(new[:, 0], values.astype(np.float32), equal_nan=True)


def test_infinities_and_empty_sequences_are_counted(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 1, 6))
    values[1, 0, 2], values[5] = np.inf, np.nan
    np.savez(tmp_path / "x.npz", X=values, y=np.arange(40) % 2)
    data = load_signals(tmp_path / "x.npz")
    assert data.notes == {"infinite_values": 1, "empty_sequences": 1} and data.rows + len(data.test) == 39


def test_lengths_end_a_padded_sequence():
    values = np.zeros((40, 1, 6))
    values[:, 0, 0] = np.arange(40)
    lengths = np.arange(40) % 5 + 2
    data = load_signals({"X": values, "y": np.arange(40) % 2, "lengths": lengths})
    assert data.schema.missing
    for row in data.train.features.values:
        assert int((~np.isnan(row[0])).sum()) == lengths[int(row[0, 0])]


def test_words_for_yes_and_no_are_a_channel_and_other_texts_are_named():
    ids = np.repeat(np.arange(24), 5)
    states = ["on" if point % 3 else "off" for point in range(120)]
    frame = pl.DataFrame({"id": ids, "t": np.tile(np.arange(5), 24), "a": np.arange(120) * 0.5, "valve": states,
                          "note": [f"note {point % 7}" for point in range(120)], "y": [row % 2 for row in ids]})  # fmt: skip
    data = load_signals(frame, "y", ReadingOptions(id_column="id", time_column="t", kind="sequence"))
    assert data.schema.columns == ("a", "valve") and data.ignored == ("note",)
    assert [finding.columns for finding in repairs(data) if finding.code == "columns-ignored"] == [("note",)]
    new = frame.filter(pl.col("id") == 0).with_columns(valve=pl.lit("ON"))  # one word alone
    assert (read_signals(new, data.schema)[0].values[0, 1] == 1).all()
    with pytest.raises(UserError, match=r"'valve' is not read as in training: .* are not numbers"):
        read_signals(new.with_columns(valve=pl.lit("ajar")), data.schema)
