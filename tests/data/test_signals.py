"""What images and sequences have in common: arrays, division, schema, new rows,
and all the ways to get it wrong."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from damage import damaged_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signal_mistakes import MISTAKES, folders

from advisor.data.modalities import kind_of
from advisor.data.options import ReadingOptions
from advisor.data.signals.signal_schema import SignalSchema
from advisor.data.signals.signals import load_signals, read_signals
from advisor.errors import UserError
from advisor.facts.signals import measure_signals


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_one_line_that_says_what_to_mend(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistake.prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = dict(mistake.options)
    target = options.pop("target", None)
    with pytest.raises(UserError) as caught:
        load_signals(mistake.source, target, ReadingOptions(**options))
    message = str(caught.value)
    assert mistake.says in message and "\n" not in message and len(message) < 600
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_enough_mistakes_with_names_of_their_own():
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 25


def some(kind="sequence", rows=60, seed=0):
    """Values, three classes and groups of four rows."""
    rng = np.random.default_rng(seed)
    shape = (rows, 5, 6, 3) if kind == "image" else (rows, 2, 9)
    values = (
        rng.integers(0, 256, shape, np.uint8)
        if kind == "image"
        else rng.normal(size=shape).astype(np.float32)
    )
    return values, np.array(["low", "mid", "top"])[np.arange(rows) % 3], np.arange(rows) // 4


@pytest.mark.parametrize("kind", ["image", "sequence"])
def test_each_row_keeps_its_values_and_its_label(kind):
    values, labels, _ = some(kind)
    data = load_signals({"X": values, "y": labels})
    assert kind_of({"X": values}) == data.schema.kind == kind
    expected = np.moveaxis(values, 3, 1) if kind == "image" else values
    by_content = {
        row.tobytes(): label for row, label in zip(np.ascontiguousarray(expected), labels, strict=True)
    }
    seen = []
    for part in ("train", "test"):
        own = data.dataset(part)
        seen += [row.tobytes() for row in own.features.values]
        assert [own.classes[code] for code in own.target] == [
            by_content[row.tobytes()] for row in own.features.values
        ]
    assert sorted(seen) == sorted(by_content)
    assert (data.rows, len(data.test), data.test_origin) == (48, 12, "held-out")
    assert data.train_names == ("",) * 48 and data.notes == {}
    assert (np.bincount(data.test.target) == 4).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["image", "sequence"]))
def test_what_is_held_out_depends_on_content_and_seed_alone(seed, kind):
    values, labels, _ = some(kind)
    order = np.random.default_rng(seed).permutation(len(values))
    one, other = (
        load_signals({"X": values, "y": labels}),
        load_signals({"X": values[order], "y": labels[order]}),
    )
    assert one.fingerprint == other.fingerprint
    held = [sorted(row.tobytes() for row in data.test.features.values) for data in (one, other)]
    assert held[0] == held[1]
    reseeded = load_signals({"X": values, "y": labels}, None, ReadingOptions(seed=seed + 1))
    assert sorted(row.tobytes() for row in reseeded.test.features.values) != held[0]
    assert reseeded.fingerprint == one.fingerprint


def test_the_fingerprint_sees_values_and_labels():
    values, labels, _ = some()
    changed, swapped = values.copy(), labels.copy()
    changed[3, 1, 2] += 1
    swapped[[0, 1]] = swapped[[1, 0]]
    prints = {
        load_signals({"X": v, "y": y}).fingerprint
        for v, y in ((values, labels), (changed, labels), (values, swapped))
    }
    assert len(prints) == 3 and all(len(found) == 32 for found in prints)


@pytest.mark.parametrize("names", [
    ("X_train", "y_train", "X_test", "y_test"), ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"), ("train_data", "train_target", "test_data", "test_target"),
    ("XTrain", "yTrain", "XTest", "yTest"), ("trainX", "trainy", "testX", "testy"), ("arr_0", "arr_1", "arr_2", "arr_3"),
    ("X_training", "Y_training", "X_testing", "Y_testing"),
])  # fmt: skip
def test_parts_are_found_by_their_names(names, tmp_path):
    values, labels, _ = some("image")
    parts = (values[:40], labels[:40], values[40:], labels[40:])
    np.savez(tmp_path / "a.npz", **dict(zip(names, parts, strict=True)))
    data = load_signals(tmp_path / "a.npz")
    assert (data.rows, len(data.test), data.test_origin, data.name) == (40, 20, "file", "a")
    assert (data.train.features.values == np.moveaxis(parts[0], 3, 1)).all()


def test_validation_rows_join_the_training_rows_and_other_arrays_are_counted(tmp_path):
    values, labels, _ = some()
    np.savez(tmp_path / "a.npz", X_train=values[:30], y_train=labels[:30], X_val=values[30:40], y_val=labels[30:40],
             X_test=values[40:], y_test=labels[40:], X_test_shift=values, note=np.zeros(3))  # fmt: skip
    data = load_signals(tmp_path / "a.npz", "y_train")
    assert (data.train.features.values == values[:40]).all() and data.notes == {"arrays_ignored": 2}
    assert data.schema.target == "y"
    assert (
        load_signals(
            tmp_path / "a.npz", None, ReadingOptions(test=tmp_path / "a.npz")
        ).test.features.values.shape[0]
        == 20
    )
    assert read_signals(tmp_path / "a.npz", data.schema)[0].values.shape == (20, 2, 9)


def test_arrays_saved_without_names_are_told_by_their_dimensions(tmp_path):
    values, labels, _ = some()
    np.savez(tmp_path / "two.npz", values, labels)
    assert load_signals(tmp_path / "two.npz").schema.target == "y"
    np.savez(
        tmp_path / "split.npz", values[:40], values[40:], labels[:40], labels[40:]
    )  # as train_test_split returns them
    data = load_signals(tmp_path / "split.npz")
    assert (data.rows, len(data.test)) == (40, 20) and (data.train.features.values == values[:40]).all()
    for arrays in ((values, labels[:40]), (values, values), (labels, values, labels)):
        np.savez(tmp_path / "odd.npz", *arrays)
        with pytest.raises(UserError, match="no array of values"):
            load_signals(tmp_path / "odd.npz")


def test_one_hot_labels_are_classes():
    values, _, _ = some()
    codes = np.arange(60) % 3
    for dtype in (np.float32, np.int64, np.bool_):
        data = load_signals({"X": values, "y": np.eye(3)[codes].astype(dtype)})
        assert data.schema.task == "multiclass" and data.schema.classes == ("0", "1", "2")
        assert data.fingerprint == load_signals({"X": values, "y": codes}).fingerprint
    with pytest.raises(UserError, match="one label per row"):
        load_signals({"X": values, "y": np.ones((60, 3))})


def test_series_of_unequal_lengths_in_a_list():
    rows = [np.full((2, 5 + row % 4), row, np.float32) for row in range(40)]
    data = load_signals({"X": rows, "y": np.arange(40) % 2})
    assert data.schema.shape == (2, 8) and data.schema.missing and kind_of({"X": rows}) == "sequence"
    assert load_signals({"X": [row[0] for row in rows], "y": np.arange(40) % 2}).schema.shape == (1, 8)
    assert load_signals(
        {"X": np.array([row[0] for row in rows], dtype=object), "y": np.arange(40) % 2}
    ).schema.shape == (1, 8)
    for odd in ([*rows, np.zeros((3, 5))], [*rows, "text"], [*rows, np.zeros((2, 2, 2))]):
        with pytest.raises(UserError, match="holds Python objects"):
            load_signals({"X": odd, "y": np.arange(41) % 2})


def walks(rows=80, channels=3, points=40, alike=0.0, seed=0):
    """Random walks;
    alike: the share that all channels have in common."""
    draw = np.random.default_rng(seed)
    own, common = (draw.normal(size=(rows, count, points)).cumsum(2) for count in (channels, 1))
    return ((1 - alike) * own + alike * common).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(24, 60), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 5))
def test_the_axis_of_points_is_found(channels, points, alike, seed):
    values = walks(200, channels, points, alike, seed)
    values[0, :, -3:] = np.nan
    labels = np.arange(200) % 2
    first, last = (load_signals({"X": array, "y": labels}) for array in (values, values.swapaxes(1, 2)))
    assert first.schema.shape == last.schema.shape == (channels, points)
    assert (
        first.fingerprint == last.fingerprint
        and "channels_last" not in first.notes
        and last.notes["channels_last"] == 1
    )
    assert read_signals(values.swapaxes(1, 2)[:5], last.schema)[0].values.shape == (5, channels, points)
    schema = SignalSchema.from_dict(json.loads(json.dumps(last.schema.to_dict())))
    assert (
        schema.channels_last
        and not SignalSchema.from_dict(_without(schema.to_dict(), "channels_last")).channels_last
    )


def _without(document, name):
    return {key: value for key, value in document.items() if key != name}


@pytest.mark.parametrize("mark", [-999.0, 1e20, 9.96921e36, -32768.0])
def test_numbers_that_mark_missing_points_are_missing(mark):
    values = walks(60, 2, 30)
    holes = np.random.default_rng(1).random((60, 30)) < 0.1
    holes[:, 25:] |= np.arange(60)[:, None] % 5 == 0  # and some series end early
    with_marks, with_nan = values.copy(), values.copy()
    with_marks[:, 1][holes], with_nan[:, 1][holes] = mark, np.nan
    labels = np.arange(60) % 2
    marked, known = (load_signals({"X": array, "y": labels}) for array in (with_marks, with_nan))
    assert (
        marked.fingerprint == known.fingerprint
        and marked.notes == {"marked_values": int(holes.sum())} | known.notes
    )
    assert (
        marked.schema.cleaning.marks == ((), (float(np.float32(mark)),)) and not known.schema.cleaning.marks
    )
    assert marked.schema.missing
    assert SignalSchema.from_dict(json.loads(json.dumps(marked.schema.to_dict()))) == marked.schema
    new = read_signals(with_marks[:9], marked.schema)[0].values
    assert np.array_equal(new, with_nan[:9], equal_nan=True)
    kept = values.copy()
    kept[0, 0, 0] = mark  # a single one may be a slip
    assert not load_signals({"X": kept, "y": labels}).schema.cleaning.marks


@pytest.mark.parametrize("unit", [1e-21, 1e-13, 1e-6, 1e12])
def test_tiny_and_huge_units_are_taken_out(unit):
    values, labels = walks(60, 2, 30), np.arange(60) % 2
    values /= values.std()
    small = values.copy()
    small[:, 1] *= np.float32(unit)
    data = load_signals({"X": small, "y": labels})
    assert (
        data.schema.cleaning.units == (1.0, unit)
        and not load_signals({"X": values, "y": labels}).schema.cleaning.units
    )
    assert SignalSchema.from_dict(json.loads(json.dumps(data.schema.to_dict()))) == data.schema
    assert np.allclose(read_signals(small[:9], data.schema)[0].values, values[:9], rtol=1e-5)
    spread = data.train.features.values[:, 1].std()
    assert 0.5 < spread < 2


def test_glitches_are_missing_points_and_bursts_are_none():
    draw = np.random.default_rng(0)
    values, labels = draw.normal(size=(60, 2, 100)).astype(np.float32), np.arange(60) % 2
    glitched, burst = values.copy(), values.copy()
    spots = draw.random((60, 50)) < 0.004
    glitched[:, 1, ::2][spots] = 5e4
    burst[:, 1, 40:44] *= 5e4  # as many points, in a run
    data = load_signals({"X": glitched, "y": labels})
    assert data.notes == {"glitches": int(spots.sum())} and data.schema.cleaning.limits[1][1] < 5e4
    assert SignalSchema.from_dict(json.loads(json.dumps(data.schema.to_dict()))) == data.schema
    new = read_signals(glitched[:20], data.schema)[0].values
    assert (np.isnan(new[:, 1, ::2]) == spots[:20]).all() and (new[:, 0] == glitched[:20, 0]).all()
    for kept in (values, burst):
        assert not load_signals({"X": kept, "y": labels}).schema.cleaning.limits


def test_rows_of_the_bytes_of_a_square_are_images():
    squares = np.random.default_rng(0).integers(0, 256, (40, 64), np.uint8)
    labels = np.arange(40) % 2
    data = load_signals({"X": squares, "y": labels})
    assert (
        data.schema.shape == (1, 8, 8)
        and kind_of({"X": squares[:, :63]}) == kind_of({"X": squares * 1.0}) == "sequence"
    )
    assert data.fingerprint == load_signals({"X": squares.reshape(40, 8, 8), "y": labels}).fingerprint
    assert load_signals(
        {"X": squares * 1.0, "y": labels}, None, ReadingOptions(kind="image")
    ).schema.shape == (1, 8, 8)
    assert (read_signals(squares[:5], data.schema)[0].values == squares[:5].reshape(5, 1, 8, 8)).all()


def test_noise_stands_as_it_is_said_to_and_the_person_decides():
    values, labels = np.random.default_rng(0).normal(size=(60, 30, 4)), np.arange(60) % 2
    assert load_signals({"X": values, "y": labels}).schema.shape == (30, 4)
    assert load_signals({"X": values, "y": labels}, None, ReadingOptions(channels="last")).schema.shape == (
        4,
        30,
    )
    turned = {"X": walks().swapaxes(1, 2), "y": np.arange(80) % 2}
    assert load_signals(turned, None, ReadingOptions(channels="first")).schema.shape == (40, 3)
    tested = load_signals(
        turned, None, ReadingOptions(test={"X": walks(20, seed=1), "y": np.arange(20) % 2})
    )  # the test rows stand otherwise
    assert tested.test.features.values.shape == (20, 3, 40)


def test_as_many_channels_as_points_stand_as_in_training():
    values, labels = walks(80, 6, 6), np.arange(80) % 2
    data = load_signals({"X": values, "y": labels}, None, ReadingOptions(channels="last", kind="sequence"))
    assert (read_signals(values, data.schema)[0].values == values.swapaxes(1, 2)).all()


def test_npy_files_find_their_labels(tmp_path):
    values, labels, _ = some("image")
    np.save(tmp_path / "X.npy", values)
    np.save(tmp_path / "y.npy", labels)
    np.save(tmp_path / "answers.npy", (labels == "low").astype(int))
    assert load_signals(tmp_path / "X.npy").schema.classes == ("low", "mid", "top")
    named = load_signals(tmp_path / "X.npy", str(tmp_path / "answers.npy"))
    assert named.schema.classes == ("0", "1") and named.schema.target == "answers"
    for part, rows in (("train", slice(0, 40)), ("test", slice(40, None))):
        np.save(tmp_path / f"X_{part}.npy", values[rows])
        np.save(tmp_path / f"y_{part}.npy", labels[rows])
    assert (
        load_signals(tmp_path / "X_train.npy").rows,
        len(load_signals(tmp_path / "X_train.npy").test),
    ) == (40, 20)


def test_whole_groups_are_held_out():
    values, labels, groups = some()
    data = load_signals({"X": values, "y": labels, "group": groups})
    assert data.schema.group_column == "group" and data.train.groups.max() == 11
    group_of = {row.tobytes(): group for row, group in zip(values, groups, strict=True)}
    sides = [{group_of[row.tobytes()] for row in part.features.values} for part in (data.train, data.test)]
    assert not sides[0] & sides[1] and len(sides[1]) == 3
    named = load_signals(
        {"X": values, "y": labels, "person": groups}, None, ReadingOptions(group_column="person")
    )
    assert named.schema.group_column == "person" and len(named.test) == 12


@pytest.mark.parametrize(("labels", "task"), [
    (np.arange(60) % 3, "multiclass"), (np.arange(60) % 2 == 1, "binary"), (np.arange(60) % 12, "multiclass"),
    (np.linspace(0, 1, 60), "regression"), (np.arange(60) * 7, "regression"), (np.array(["4", "5"] * 30), "binary"),
    (np.arange(60).reshape(60, 1) % 4, "multiclass"), (np.array([b"u", b"v"] * 30), "binary"),
])  # fmt: skip
def test_the_task_follows_from_the_labels(labels, task):
    assert load_signals({"X": some()[0], "y": labels}).schema.task == task


def test_a_row_alone_in_its_class_is_left_out():
    values, _, _ = some()
    data = load_signals({"X": values, "y": ["u", "v", "v"] * 19 + ["u", "v", "lonely"]})
    assert (
        data.schema.task == "binary"
        and data.notes == {"rows_in_singleton_classes": 1}
        and data.rows + len(data.test) == 59
    )


def test_rows_without_a_target_are_left_out():
    values, _, _ = some()
    answers = np.where(np.arange(60) % 10 == 0, np.nan, np.arange(60.0) ** 1.5)
    data = load_signals({"X": values, "y": answers})
    assert data.notes == {"rows_without_target": 6} and data.rows + len(data.test) == 54


@pytest.mark.parametrize(("pixels", "expected"), [
    (np.array([0.0, 0.5, 1.0]), [0, 128, 255]), (np.array([0.0, 127.6, 255.0]), [0, 128, 255]),
    (np.array([0, 257, 65535], np.uint16), [0, 1, 255]), (np.array([0, 1, 255]), [0, 1, 255]),
    (np.array([False, True, True]), [0, 255, 255]), (np.array([0.0, 0.25, 1.0], np.float16), [0, 64, 255]),
])  # fmt: skip
def test_pixels_of_any_type_become_bytes(pixels, expected):
    values = np.broadcast_to(pixels[:, None, None], (20, 3, 4, 1)).copy()
    data = load_signals({"X": values, "y": np.arange(20) % 2}, None, ReadingOptions(kind="image"))
    assert (data.train.features.values[0, 0, :, 0] == expected).all()


def test_twelve_of_sixteen_bits_fill_a_byte_and_new_images_are_scaled_as_the_training_images():
    draw = np.random.default_rng(0)
    deep = draw.integers(0, 4096, (40, 8, 9, 1), np.uint16)
    deep[0, 0, 0, 0], deep[1:20] = 4095, deep[1:20] // 4
    data = load_signals({"X": deep, "y": np.arange(40) % 2})
    assert (
        data.schema.bits == 12
        and max(data.train.features.values.max(), data.test.features.values.max()) == 255
    )
    dark = read_signals(deep[1:20].astype(np.int64), data.schema)[
        0
    ].values  # no pixel needs more than ten bits
    assert (dark == np.rint(deep[1:20, None, :, :, 0] * (255 / 4095))).all()
    brighter = read_signals(np.full((3, 8, 9, 1), 60000), data.schema)[0].values
    assert (brighter == 255).all()
    small = draw.integers(0, 256, (40, 8, 9, 1), np.uint16)  # bytes that were saved as 16 bits
    kept = load_signals({"X": small, "y": np.arange(40) % 2})
    assert kept.schema.bits == 8 and set(np.unique(kept.train.features.values)) <= set(np.unique(small))


@pytest.mark.parametrize(("shape", "expected"), [
    ((20, 5, 6), (1, 5, 6)), ((20, 5, 6, 1), (1, 5, 6)), ((20, 5, 6, 3), (3, 5, 6)), ((20, 3, 5, 6), (3, 5, 6)),
    ((20, 1, 5, 6), (1, 5, 6)), ((20, 5, 6, 4), (3, 5, 6)), ((20, 30, 30, 7), (7, 30, 30)), ((20, 7, 30, 30), (7, 30, 30)),
    ((20, 448, 224, 1), (1, 224, 112)),
])  # fmt: skip
def test_axes_of_images(shape, expected):
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert load_signals({"X": values, "y": np.arange(20) % 2}).schema.shape == expected


def test_alpha_is_laid_on_white():
    values = np.zeros((20, 2, 2, 4), np.uint8)
    values[:, 0, 0, 3], values[:, 0, 1, 3] = 255, 51
    pixels = load_signals({"X": values, "y": np.arange(20) % 2}).train.features.values[0]
    assert (pixels[:, 0, 0] == 0).all() and (pixels[:, 0, 1] == 204).all() and (pixels[:, 1] == 255).all()


def test_the_schema_survives_json_and_reads_new_rows_alike():
    for kind in ("image", "sequence"):
        values, labels, _ = some(kind)
        data = load_signals({"X": values, "y": labels})
        schema = SignalSchema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
        assert schema == data.schema
        signals, names = read_signals(np.ascontiguousarray(values), schema)
        expected = np.moveaxis(values, 3, 1) if kind == "image" else values
        assert (signals.values == expected).all() and names == ("",) * 60


def test_new_rows_that_do_not_fit():
    images = load_signals({"X": np.zeros((20, 5, 6, 5), np.uint8), "y": np.arange(20) % 2}).schema
    series = load_signals({"X": some()[0], "y": some()[1]}).schema
    for values, schema, says in (
        (np.zeros((3, 5, 6, 3), np.uint8), images, "3 channels"),
        (np.zeros((3, 4, 9), np.float32), series, "4 channels"),
        (np.zeros((3, 9), np.float32), series, "1 channels"),
        (np.zeros(9, np.float32), series, "expected sequences"),
    ):
        with pytest.raises(UserError, match=says):
            read_signals(values, schema)


def test_longer_sequences_are_cut_and_shorter_ones_filled():
    values, labels, _ = some()
    schema = load_signals({"X": values, "y": labels}).schema
    longer = np.concatenate([values, values], axis=2)
    assert (read_signals(longer, schema)[0].values == values).all()
    short = read_signals(values[:, :, :4], schema)[0].values
    assert (short[:, :, :4] == values[:, :, :4]).all() and np.isnan(short[:, :, 4:]).all()
    data = load_signals(
        {"X": values[:, :, :6], "y": labels}, None, ReadingOptions(test={"X": values, "y": labels})
    )
    assert data.schema.size == (6,) and data.notes["cut_sequences"] == 60


def archive(packed):
    """The bytes of a .npz file of 20 sequences with their labels."""
    file = io.BytesIO()
    save = np.savez_compressed if packed else np.savez
    save(file, X=np.arange(120.0).reshape(20, 6) % 7, y=np.arange(20) % 2)
    return file.getvalue()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([archive(packed=False), archive(packed=True)]).flatmap(damaged_bytes))
def test_a_damaged_archive_ends_in_data_or_in_one_line(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    try:
        assert load_signals(tmp_path / "x.npz").rows > 0
    except UserError as error:
        assert "\n" not in str(error)


def test_kinds_are_told_from_headers_and_names(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((3, 2, 9)), y=np.zeros(3))
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 5), np.uint8))
    pl.DataFrame({"a": [1.0], "y": [2]}).write_csv(tmp_path / "t.csv")
    folders(tmp_path)
    np.save(tmp_path / "c.npy", np.zeros((3, 28, 28)))
    assert kind_of(tmp_path / "c.npy") == "image"
    kinds = {
        "a.npz": "sequence",
        "b.npy": "image",
        "t.csv": "table",
        "set": "image",
        "x.ts": "sequence",
        "x.arff": "sequence",
    }
    assert {name: kind_of(str(tmp_path / name)) for name in kinds} == kinds
    assert kind_of(tmp_path / "t.csv", "sequence") == "sequence" and kind_of("sklearn:digits") == "table"
    assert kind_of(pl.DataFrame({"a": [1]})) == "table" and kind_of(Path("nowhere.csv")) == "table"


def test_digits_as_images():
    data = load_signals("sklearn:digits", None, ReadingOptions(kind="image"))
    assert data.schema.shape == (1, 8, 8) and len(data.schema.classes) == 10
    assert data.train.features.values.max() == 255 and data.rows + len(data.test) == 1797


@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (40, 2, 16)])
def test_no_row_has_to_be_held_out(shape):
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8 if len(shape) == 4 else np.float32)
    arrays = {"X": values, "y": np.arange(40) % 2}
    found = load_signals(arrays, None, ReadingOptions(test_fraction=0.0))
    assert (len(found.train), len(found.test), found.test_names) == (40, 0, ())
    measured = measure_signals(found).values
    assert (measured["rows"], measured["rows_test"], measured["duplicates.test_share"]) == (40, 0, 0.0)
    assert measured["duplicates.near_test_share"] == 0.0
