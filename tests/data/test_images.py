"""Folders and tables of image files: labels, sizes, colours, damage, worker processes, the cache."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from signal_mistakes import bomb, folders, picture

import advisor
from advisor.cli.main import _run
from advisor.data.modalities import kind_of
from advisor.data.options import ReadingOptions
from advisor.data.signals import image_decoding
from advisor.data.signals.signals import load_signals, read_signals
from advisor.errors import UserError


def parts(data):
    return {
        name: (row, data.train.classes[code])
        for part, names in ((data.train, data.train_names), (data.test, data.test_names))
        for name, row, code in zip(names, part.features.values, part.target, strict=True)
    }


def test_a_folder_per_class(tmp_path):
    root = folders(tmp_path, "ab", 10)
    data = load_signals(root)
    assert (
        data.schema.shape == (3, 12, 10)
        and data.schema.classes == ("a", "b")
        and data.schema.target == "class"
    )
    assert (data.rows, len(data.test), data.name, data.notes) == (16, 4, "set", {})
    for name, (row, label) in parts(data).items():
        assert (
            name.startswith(label) and (np.moveaxis(row, 0, 2) == np.asarray(Image.open(root / name))).all()
        )


def test_parts_of_a_folder(tmp_path):
    for part in ("train", "valid", "test"):
        folders(tmp_path, "ab", 6, root=f"outer/set/{part}")
        folders(tmp_path, "ab", 6, root=f"twice/outer/set/{part.capitalize()}{'ing' * (part != 'valid')}")
    data = load_signals(tmp_path / "twice")
    assert (data.rows, len(data.test), data.test_origin, data.schema.classes) == (24, 12, "file", ("a", "b"))
    (tmp_path / "outer" / "set" / "train" / "a" / "deep").mkdir()
    picture(tmp_path / "outer" / "set" / "train" / "a" / "deep" / "x.png", seed=7)
    for source in ("outer", "outer/set"):  # as an archive unpacks, and the folder itself
        data = load_signals(tmp_path / source)
        assert (data.rows, len(data.test), data.test_origin) == (25, 12, "file")
        assert {name.split("/")[-3] for name in data.test_names} == {"test"}
    given = load_signals(
        tmp_path / "outer" / "set" / "train", None, ReadingOptions(test=tmp_path / "outer" / "set")
    )
    assert (given.rows, len(given.test)) == (13, 12)


def test_numbers_as_class_names_stay_classes_in_order(tmp_path):
    for label in ("2", "10", "1"):
        for row in range(4):
            picture(tmp_path / "set" / label / f"{row}.png", seed=10 * int(label) + row)
    assert load_signals(tmp_path / "set").schema.classes == ("1", "2", "10")
    assert load_signals(tmp_path / "set", None, ReadingOptions(task="regression")).schema.task == "regression"


def test_what_is_no_image_is_ignored_and_what_is_damaged_left_out(tmp_path):
    root = folders(tmp_path, "ab", 10)
    (root / "a" / "notes.txt").write_text("hello")
    (root / "a" / ".hidden.png").write_bytes((root / "a" / "0.png").read_bytes())
    (root / ".git").mkdir()
    (root / "stray.png").write_bytes((root / "a" / "0.png").read_bytes())
    outside = tmp_path / "outside.png"
    picture(outside)
    (root / "b" / "link.png").symlink_to(outside)
    (root / "b" / "loop").symlink_to(root)
    (root / "b" / "inside.png").symlink_to(root / "b" / "0.png")
    os.mkfifo(root / "b" / "pipe.png")
    (root / "a" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    whole = (root / "b" / "1.png").read_bytes()
    (root / "b" / "1.png").write_bytes(whole[: len(whole) // 2])  # its header can be read, its pixels not
    (root / "b" / "2.png").write_bytes(b"")
    bomb(root / "b" / "bomb.png")
    data = load_signals(root)
    assert data.notes == {"files_ignored": 6, "corrupt_files": 3, "oversized_files": 1}
    assert data.lost == {
        "corrupt_files": ("a/1.png", "b/1.png", "b/2.png"),
        "oversized_files": ("b/bomb.png",),
    }
    names = {*data.train_names, *data.test_names}
    assert (
        len(names) == 18
        and "b/inside.png" in names
        and not names & {"a/1.png", "b/1.png", "b/2.png", "b/bomb.png"}
    )
    with pytest.raises(UserError, match=r"2.png|1.png"):
        read_signals(root, data.schema)


def test_damaged_images_are_named_once_some_in_the_text_and_all_in_the_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = folders(tmp_path, "ab", 30)
    for number in range(12):
        (root / "a" / f"{number}.png").write_bytes(b"")
    assert _run(["recommend", str(root), "--out", "run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (finding,) = (f for f in document["findings"] if f["code"] == "corrupt-files")
    assert finding["message"].startswith("12 image files") and "a/0.png" in finding["message"]
    assert finding["message"].count(".png") <= 10
    assert sorted(document["facts"]["signal.missing_names"]) == sorted(
        f"a/{number}.png" for number in range(12)
    )


def test_a_file_is_judged_by_its_content_and_postscript_is_never_run(tmp_path):
    root = folders(tmp_path, "ab", 10)
    (root / "a" / "script.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    (root / "a" / "0.png").rename(root / "a" / "0.jpg")
    data = load_signals(root)
    assert data.notes == {"corrupt_files": 1} and "a/0.jpg" in {*data.train_names, *data.test_names}


def test_a_class_of_which_every_file_is_damaged_is_named(tmp_path):
    root = folders(tmp_path, "ab", 10)
    for file in (root / "b").iterdir():
        file.write_bytes(b"rubbish")
    with pytest.raises(UserError, match="only one value"):
        load_signals(root)


def pixels(tmp_path, name, image, channels=None, **options):
    """The pixels of one image, as they arrive in a set of grey or colour images of its size."""
    for row in range(12):
        path = tmp_path / name / "ab"[row % 2]
        path.mkdir(parents=True, exist_ok=True)
        image.save(path / f"{row}.{name}", **options)
    return load_signals(tmp_path / name).train.features.values[0]


def test_modes_become_grey_or_colour(tmp_path):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert (pixels(tmp_path, "png", deep) == grey).all()
    assert (pixels(tmp_path, "tiff", Image.fromarray(grey.astype(np.float32) / 255)) == grey).all()
    assert (pixels(tmp_path, "bmp", Image.fromarray(grey > 100)) == np.where(grey > 100, 255, 0)).all()
    assert (pixels(tmp_path, "pgm", Image.fromarray(grey)) == grey).all()
    colour = np.stack([grey, grey // 2, 255 - grey])
    assert (pixels(tmp_path, "ppm", Image.fromarray(np.moveaxis(colour, 0, 2))) == colour).all()
    cmyk = pixels(tmp_path, "jpg", Image.new("CMYK", (8, 6), (0, 255, 255, 0)), quality=100)
    assert (abs(cmyk.astype(int) - np.array([255, 0, 0])[:, None, None]) < 6).all()
    clear = Image.new("P", (8, 6), 0)
    clear.putpalette([0, 0, 0] * 256)
    assert (pixels(tmp_path, "gif", clear, transparency=0) == 255).all()
    half = Image.new("RGBA", (8, 6), (255, 0, 0, 51))
    assert (pixels(tmp_path, "webp", half, lossless=True) == np.array([255, 204, 204])[:, None, None]).all()


def test_a_scanner_s_twelve_bits_are_told_from_sixteen(tmp_path):
    draw = np.random.default_rng(0)
    for part, rows in (("train", 30), ("test", 6)):
        for row in range(rows):
            file = tmp_path / "set" / part / "ab"[row % 2] / f"{row}.{'png' if row % 3 else 'tiff'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            high = 4095 if part == "train" else 500
            Image.fromarray(draw.integers(0, high + 1, (9, 8), np.uint16)).save(file)
    data = load_signals(tmp_path / "set")
    assert (
        data.schema.bits == 12
        and data.train.features.values.max() == 255
        and data.test.features.values.max() == 31
    )
    assert read_signals(tmp_path / "set" / "test", data.schema)[0].values.max() == 31


def test_the_orientation_of_a_photograph_is_heeded(tmp_path):
    image = Image.new("L", (9, 6), 0)
    image.paste(255, (0, 0, 3, 6))  # white on the left
    turn = Image.Exif()
    turn[0x0112] = 6  # to be turned by 90 degrees clockwise: white on top
    shown = pixels(tmp_path, "jpg", image, exif=turn, quality=100)
    assert shown.shape == (1, 9, 6) and (shown[0, :2] > 200).all() and (shown[0, 4:] < 50).all()


def test_mixed_sizes_and_colours_are_brought_together(tmp_path):
    root = folders(tmp_path, "ab", 10, size=(20, 10))
    for row in range(3):
        picture(root / "a" / f"tall{row}.png", (10, 30), "L", seed=row)
    data = load_signals(root)
    assert data.schema.shape == (3, 10, 20)
    assert data.notes == {"image_sizes": 2, "converted_channels": 3}
    tall = next(row for name, (row, _) in parts(data).items() if "tall0" in name)
    assert (tall == tall[:1]).all()  # grey
    bars = np.concatenate([tall[0, :, :8], tall[0, :, 12:]], axis=1)
    assert (bars == bars[0, 0]).all() and tall[
        0, :, 8:12
    ].std() > 0  # its aspect is kept: a third of ten pixels wide


def test_large_images_are_brought_to_224_pixels(tmp_path):
    for row in range(12):
        path = tmp_path / "set" / "ab"[row % 2]
        path.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1000, 500), (row * 20, 0, 0)).save(path / f"{row}.jpg")
    data = load_signals(tmp_path / "set")
    assert data.schema.size == (112, 224)
    assert sorted(round(float(row[0].mean())) // 20 for row, _ in parts(data).values()) == sorted(range(12))


def test_a_table_of_paths(tmp_path):
    root = folders(tmp_path, "ab", 10, root="pictures")
    paths = [f"pictures/{label}/{row}.png" for label in "ab" for row in range(10)]
    labels = ["a"] * 10 + ["b"] * 10
    frame = pl.DataFrame(
        {"note": ["n"] * 20, "file": paths, "id": range(20), "y": labels, "g": np.arange(20) // 2}
    )
    frame = pl.concat([frame, frame[:2].with_columns(file=pl.Series(["pictures/gone.png", None]))])
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    read = []
    for name in ("t.csv", "t.parquet"):
        assert kind_of(tmp_path / name) == "image"
        data = load_signals(tmp_path / name, "y", ReadingOptions(id_column="id"))
        assert (
            data.schema.columns == ("file",)
            and data.notes == {"absent_files": 2}
            and data.schema.target == "y"
        )
        read.append(data.fingerprint)
        for name_of_row, (row, label) in parts(data).items():
            assert (
                np.moveaxis(row, 0, 2)
                == np.asarray(Image.open(root / label / f"{int(name_of_row) % 10}.png"))
            ).all()
    assert read[0] == read[1]
    grouped = load_signals(tmp_path / "t.csv", "y", ReadingOptions(group_column="g"))
    assert grouped.schema.group_column == "g" and grouped.train.groups is not None
    frame[2:5].drop("y").write_csv(tmp_path / "new.csv")
    new, names = read_signals(tmp_path / "new.csv", data.schema)
    assert new.values.shape == (3, 3, 12, 10) and names == ("2", "3", "4")
    with pytest.raises(UserError, match="do not exist"):
        read_signals(frame[-2:], data.schema)


def competition(here, ending=".png", folder="train_images"):
    """A table of names in one folder beside it, as competitions give it."""
    for row in range(24):
        picture(here / folder / f"{row:03d}{ending}", seed=row)
    names = [f"{row:03d}" for row in range(24)]
    return pl.DataFrame({"id": names, "label": ["a" if row % 2 else "b" for row in range(24)]})


@pytest.mark.parametrize("spell", [
    "{}", "{}.png", "train_images\\{}.png", "train_images/{}.png", "C:\\me\\data\\train_images\\{}.png",
    "/home/me/data/train_images/{}.png",
])  # fmt: skip
def test_names_as_other_people_s_tables_have_them(tmp_path, spell):
    frame = competition(tmp_path)
    files = {spell.format(name): tmp_path / "train_images" / f"{name}.png" for name in frame["id"]}
    frame.with_columns(id=pl.Series(list(files))).write_csv(tmp_path / "train.csv")
    (tmp_path / "empty").mkdir()
    assert kind_of(tmp_path / "train.csv") == "image"
    data = load_signals(tmp_path / "train.csv", "label")
    assert data.rows + len(data.test) == 24 and data.notes == {} and data.schema.columns == ("id",)
    for name, (row, _) in parts(data).items():
        assert (np.moveaxis(row, 0, 2) == np.asarray(Image.open(files[name]))).all()
    read, names = read_signals(tmp_path / "train.csv", data.schema)
    assert len(read) == 24 and names == tuple(files)


def test_a_name_in_two_folders_is_of_the_one_that_is_called_like_the_table(tmp_path):
    frame = competition(tmp_path)
    competition(tmp_path, folder="test_images")
    frame.write_csv(tmp_path / "train.csv")
    data = load_signals(tmp_path / "train.csv", "label")
    assert data.rows + len(data.test) == 24
    frame.write_csv(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"is in .*test_images and in .*train_images"):
        load_signals(tmp_path / "labels.csv", "label", ReadingOptions(kind="image"))
    assert kind_of(tmp_path / "labels.csv") == "table", (
        "an id is no file's name because some folder has a file of that name"
    )


def test_a_table_beside_images_that_it_does_not_name_is_a_table(tmp_path):
    competition(tmp_path)
    pl.DataFrame({"id": range(500, 530), "y": [0, 1] * 15}).write_csv(tmp_path / "t.csv")
    assert kind_of(tmp_path / "t.csv") == "table"
    pl.DataFrame({"kind": ["000"] * 10, "y": [0, 1] * 5}).write_csv(tmp_path / "t.csv")  # a level, no name
    assert kind_of(tmp_path / "t.csv") == "table"


@pytest.mark.parametrize("spell", ["pixel{}", "px_{}", "x"])
def test_a_column_for_each_pixel(tmp_path, spell):
    draw = np.random.default_rng(0)
    pixels_of = draw.integers(0, 256, (40, 8, 8))
    names = [
        f"{place // 8 + 1}x{place % 8 + 1}" if spell == "x" else spell.format(place) for place in range(64)
    ]
    frame = pl.DataFrame(
        {"label": np.arange(40) % 2} | dict(zip(names, pixels_of.reshape(40, 64).T, strict=True))
    )
    frame.write_csv(tmp_path / "train.csv")
    frame.write_parquet(tmp_path / "train.parquet")
    for source in (tmp_path / "train.csv", tmp_path / "train.parquet", frame, frame.to_pandas()):
        assert kind_of(source) == "image" and kind_of(source, "table") == "table"
        data = load_signals(source, "label", ReadingOptions(id_column=None))
        assert (
            data.schema.shape == (1, 8, 8)
            and data.schema.columns == tuple(names)
            and data.schema.classes == ("0", "1")
        )
        both = np.concatenate([data.train.features.values, data.test.features.values])[:, 0]
        assert sorted(map(bytes, both)) == sorted(map(bytes, pixels_of.astype(np.uint8)))
    values, _ = read_signals(frame.drop("label").select(reversed(names)), data.schema)  # found by their names
    assert (values.values[:, 0] == pixels_of).all()
    with pytest.raises(UserError, match="name the column to predict as its target, of 'label'"):
        load_signals(tmp_path / "train.csv")
    with pytest.raises(UserError, match="has no column"):
        read_signals(frame.drop(names[5]), data.schema)


def test_which_tables_are_of_pixels(tmp_path):
    draw = np.random.default_rng(0)
    squares = pl.DataFrame({f"f{place}": draw.random(30) for place in range(49)})
    squares = squares.with_columns(y=pl.Series([0, 1] * 15), who=pl.Series(["a", "b", "c"] * 10))
    assert kind_of(squares) == "table"  # nothing but --kind says that they are pixels
    data = load_signals(squares, "y", ReadingOptions(kind="image", group_column="who"))
    assert data.schema.shape == (1, 7, 7) and data.schema.group_column == "who" and not data.ignored
    for odd in (squares.drop("f0"), squares.with_columns(f3=pl.lit("text"))):
        with pytest.raises(UserError, match="a column for each pixel of a square"):
            load_signals(odd, "y", ReadingOptions(kind="image", group_column="who"))
    holes = squares.with_columns(f3=pl.when(pl.col("y") == 1).then(pl.col("f3")))
    with pytest.raises(UserError, match="pixels are missing in column 'f3'"):
        load_signals(holes, "y", ReadingOptions(kind="image", group_column="who"))


def test_a_frame_of_paths(tmp_path):
    root = folders(tmp_path, "ab", 10)
    paths = [str(root / label / f"{row}.png") for label in "ab" for row in range(10)]
    frame = pl.DataFrame({"file": paths, "y": [0.5] * 10 + [2.5] * 10})
    assert kind_of(frame) == kind_of(pd.DataFrame(frame.to_dict(as_series=False))) == "table", (
        "unless images are asked for"
    )
    assert (
        load_signals(frame, "y", ReadingOptions(kind="image", task="regression")).schema.task == "regression"
    )


def test_cells_are_no_file_names_because_such_files_lie_near(tmp_path, monkeypatch):
    """A target of digits in a folder that holds exif/up/0.jpg and exif/down/0.jpg; a text
    that names a picture; the target."""
    monkeypatch.chdir(tmp_path)
    for place in ("up", "down"):
        for number in range(12):
            picture(tmp_path / "exif" / place / f"{number}.png", seed=number)
    digits = pl.DataFrame(
        {"y": [str(row % 12) for row in range(48)], "x": [row % 7 / 4 for row in range(48)]}
    )
    digits.write_csv("t.csv")
    unique = pl.DataFrame({"n": [str(row) for row in range(12)], "y": [0, 1] * 6})
    unique.write_csv("n.csv")
    said = ["exif/up/0.png", *("a remark" for _ in range(11))]
    pl.DataFrame({"said": said, "y": [0, 1] * 6}).write_csv("said.csv")
    pl.DataFrame({"x": range(12), "y": [f"exif/up/{row}.png" for row in range(12)]}).write_csv("target.csv")
    for source in (digits, digits.to_pandas(), "t.csv", "n.csv", "said.csv", "target.csv"):
        assert kind_of(source, target="y") == "table"
    assert kind_of("target.csv", target="x") == "image"
    assert advisor.recommend(digits, "y").kind == "table"


@pytest.mark.parametrize(
    "spell", ["{}/secret/0.png", "../secret/0.png", "inside/../../secret/0.png", "link/0.png", "linked.png"]
)
def test_a_table_names_no_image_outside_of_the_image_root(tmp_path, spell):
    picture(tmp_path / "secret" / "0.png")
    root = tmp_path / "root"
    for row in range(11):
        picture(root / "inside" / f"{row}.png", seed=row)
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "linked.png").symlink_to(tmp_path / "secret" / "0.png")
    names = [f"inside/{row}.png" for row in range(11)]
    frame = pl.DataFrame({"file": [*names, spell.format(tmp_path)], "y": ["a", "b"] * 6})
    frame.write_csv(root / "t.csv")
    frame[:-1].write_csv(root / "inside.csv")
    schema = load_signals(root / "inside.csv", "y").schema
    assert len(load_signals(root / "t.csv", "y").train) + len(load_signals(root / "t.csv", "y").test) == 12
    with advisor.image_root(root):
        with pytest.raises(UserError, match="is outside the image root"):
            load_signals(root / "t.csv", "y")
        with pytest.raises(UserError, match="is outside the image root"):
            read_signals(root / "t.csv", schema)
    with pytest.raises(UserError, match="is not a folder"), advisor.image_root(root / "t.csv"):
        pass


def test_the_image_root_on_the_command_line(tmp_path, capfd):
    picture(tmp_path / "a.png")
    (tmp_path / "root").mkdir()
    pl.DataFrame({"file": ["../a.png"] * 12, "y": ["a", "b"] * 6}).write_csv(tmp_path / "root" / "t.csv")
    command = ["recommend", str(tmp_path / "root" / "t.csv"), "--target", "y", "--out", str(tmp_path / "run")]
    assert _run([*command, "--image-root", str(tmp_path / "root")]) == 2
    assert "is outside the image root" in capfd.readouterr().err and not (tmp_path / "run").exists()
    assert _run(command) == 0


def test_new_images_of_any_shape_fit(tmp_path):
    data = load_signals(folders(tmp_path, "ab", 10))
    picture(tmp_path / "new" / "a.png", (33, 7), "L")
    picture(tmp_path / "new" / "b.png", (10, 12), "RGBA")
    signals, names = read_signals(tmp_path / "new", data.schema)
    assert signals.values.shape == (2, 3, 12, 10) and names == ("a.png", "b.png")
    assert read_signals(tmp_path / "new" / "a.png", data.schema)[1] == ("a.png",)
    assert read_signals(np.zeros((4, 20, 20), np.uint8), data.schema)[0].values.shape == (4, 3, 12, 10)
    grey = load_signals(folders(tmp_path, "ab", 10, root="grey", mode="L"))
    assert read_signals(tmp_path / "new", grey.schema)[0].values.shape == (2, 1, 12, 10)


def many(tmp_path, count=image_decoding.FEW_FILES + 60):
    """More images than one worker reads, a few of them damaged."""
    root = folders(tmp_path, "ab", count // 2, size=(6, 5), mode="L")
    for row in (3, 70, 150):
        whole = (root / "a" / f"{row}.png").read_bytes()
        (root / "a" / f"{row}.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return many(tmp_path_factory.mktemp("large"))


@pytest.mark.slow
def test_many_workers_read_what_one_reads(large, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    by_workers = load_signals(large)
    monkeypatch.setattr(image_decoding, "FEW_FILES", 10**6)
    alone = load_signals(large)
    assert by_workers.notes == alone.notes == {"corrupt_files": 3}
    assert by_workers.train_names == alone.train_names and by_workers.fingerprint == alone.fingerprint
    assert (by_workers.train.features.values == alone.train.features.values).all()


@pytest.mark.slow
def test_a_program_without_a_main_guard_and_workers_that_cannot_start(large, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nprint('once')\nos.sched_getaffinity = lambda pid: {0, 1}\nfrom "
        "advisor.data.signals.signals import load_signals\n"
        "if sys.argv[2:]: sys.executable = '/bin/false'\n"
        "print(load_signals(sys.argv[1]).rows)\n"
    )
    for more in ([], ["broken"]):
        run = subprocess.run(
            [sys.executable, script, large, *more], capture_output=True, text=True, timeout=120, check=True
        )
        words = run.stdout.split()
        assert words[0] == "once" and len(words) == 2 and int(words[1]) > 280


def test_a_set_larger_than_a_third_of_memory_is_kept_in_a_file(tmp_path, monkeypatch):
    root = folders(tmp_path, "ab", 12, size=(6, 5))
    (root / "a" / "0.png").write_bytes((root / "a" / "0.png").read_bytes()[:80])
    plain = load_signals(root)
    assert plain.notes == {"corrupt_files": 1}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(image_decoding, "available_memory", lambda: 1000)
    decoded = []
    fill = image_decoding._fill
    monkeypatch.setattr(image_decoding, "_fill", lambda *a: decoded.append(1) or fill(*a))
    for _ in range(2):
        mapped = load_signals(root)
        assert isinstance(mapped.train.features.values, np.memmap)
        assert (
            mapped.train.features.values == plain.train.features.values
        ).all() and mapped.notes == plain.notes
    assert len(decoded) == 2  # the training and the test part, once each
    kept = sorted((tmp_path / "cache" / "advisor").iterdir())
    assert all(not folder.name.endswith(".partial") for folder in kept)
    os.utime(root / "b" / "3.png", ns=(1, 1))  # another time: the files may have changed
    load_signals(root)
    assert len(decoded) == 3


def test_a_kept_set_that_nobody_uses_goes_when_the_next_is_made(tmp_path, monkeypatch):
    root = folders(tmp_path, "ab", 12, size=(6, 5))
    cache = tmp_path / "cache" / "advisor"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(image_decoding, "available_memory", lambda: 1000)
    load_signals(root)
    first = set(cache.iterdir())
    others = [cache / "images-old", cache / "images-old.77.partial", cache / "runs"]
    for folder in others:
        folder.mkdir()
    long_ago = time.time() - 31 * 86400
    for folder in [*first, *others]:
        os.utime(folder, (long_ago, long_ago))
    load_signals(root)  # used again: these stay
    os.utime(root / "b" / "3.png", ns=(1, 1))
    load_signals(root)
    assert first < set(cache.iterdir()) and len(set(cache.iterdir()) - first - set(others)) == 1
    assert set(others) & set(cache.iterdir()) == {cache / "runs"}, "runs are nobody's to remove"


def test_a_cache_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    root = folders(tmp_path, "ab", 12, size=(6, 5))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(image_decoding, "available_memory", lambda: 1000)
    with monkeypatch.context() as broken:
        broken.setattr(image_decoding, "_fill", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            load_signals(root)
    assert not any((tmp_path / "cache" / "advisor").iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        load_signals(root)


def test_a_worker_loads_no_heavy_library():
    program = (
        "import sys, advisor.data.signals.image_worker; print([m for m in ('polars', 'pandas', "
        "'sklearn', 'torch') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
