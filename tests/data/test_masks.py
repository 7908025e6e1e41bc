"""Images with masks: where masks lie, what their values stand for, what is refused in one line."""

import io
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from advisor.data.masks.mask_files import as_png, fitted_mask, placed
from advisor.data.masks.pairs import has_masks
from advisor.data.masks.palette import Palette, mask_value, palette_of, read_legend
from advisor.data.masks.scenes import MaskSchema, load_masks, read_scenes
from advisor.data.modalities import kind_of, schema_from_dict
from advisor.data.options import FileForm, ReadingOptions
from advisor.data.signals.pixels import fitted
from advisor.errors import UserError
from advisor.tasks import UNLABELLED

ROWS, SIDE = 8, 16


def images(rows=ROWS, size=(SIDE, SIDE)):
    return np.random.default_rng(0).integers(0, 255, (rows, *size), dtype=np.uint8)


def masks(rows=ROWS, size=(SIDE, SIDE), values=(0, 1, 2)):
    made = np.full((rows, *size), values[0], np.uint8)
    for row in range(rows):
        for place, value in enumerate(values[1:]):
            made[row, 2 + 4 * place : 5 + 4 * place, row : row + 5] = value
    return made


def folder(root, own=None, truth=None, suffix=".png", names=None):
    own, truth = images() if own is None else own, masks() if truth is None else truth
    for kind, pictures in (("images", own), ("masks", truth)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            place = root / kind / f"{number}{suffix if kind == 'masks' else '.png'}"
            Image.fromarray(picture).save(place)
    return root


def refused(source, target=None, **options):
    with pytest.raises(UserError) as error:
        load_masks(source, target, ReadingOptions(**options))
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------ what is read


def test_folders_arrays_and_tables_of_paths_give_the_same_rows(tmp_path):
    root = folder(tmp_path / "set")
    np.savez(tmp_path / "set.npz", X=images(), Y=masks())
    paths = [f"{number}.png" for number in range(ROWS)]
    frame = {"photo": [f"images/{path}" for path in paths], "drawn": [f"masks/{path}" for path in paths]}
    pl.DataFrame(frame).write_csv(root / "table.csv")
    sources = [(root, None), (tmp_path / "set.npz", None), (root / "table.csv", "drawn")]
    assert [kind_of(source, None, target) for source, target in sources] == ["mask"] * 3
    for source, target in sources:
        found = load_masks(source, target, ReadingOptions(test_fraction=0.25))
        whole = np.concatenate([found.train.target.values, found.test.target.values])
        assert len(found.train) == 6 and sorted(map(bytes, whole)) == sorted(map(bytes, masks()))
        assert found.schema.classes == ("0", "1", "2") and found.schema.size == (SIDE, SIDE)


def test_parts_in_folders_and_arrays_are_kept(tmp_path):
    for part in ("train", "val", "test"):
        folder(tmp_path / part, images(4), masks(4))
    found = load_masks(tmp_path)
    assert (len(found.train), len(found.test), found.test_origin) == (8, 4, "file")
    arrays = {"X_train": images(), "Y_train": masks(), "X_test": images(3), "Y_test": masks(3)}
    found = load_masks(arrays)
    assert (len(found.train), len(found.test)) == (ROWS, 3)


def test_which_rows_are_held_out_depends_on_their_content_alone(tmp_path):
    options = ReadingOptions(test_fraction=0.25)
    one = load_masks({"X": images(), "Y": masks()}, None, options)
    turned = load_masks({"X": images()[::-1], "Y": masks()[::-1]}, None, options)
    assert one.fingerprint == turned.fingerprint
    assert sorted(map(bytes, one.test.target.values)) == sorted(map(bytes, turned.test.target.values))


def test_unlabelled_points_are_255_or_what_is_said():
    truth = masks()
    truth[:, 0] = 255
    found = load_masks({"X": images(), "Y": truth}, None, ReadingOptions(test_fraction=0))
    assert found.schema.classes == ("0", "1", "2") and (found.train.target.values[:, 0] == UNLABELLED).all()
    said = load_masks({"X": images(), "Y": masks()}, None, ReadingOptions(test_fraction=0, ignore=2))
    assert said.schema.classes == ("0", "1") and (said.train.target.values == UNLABELLED).any()
    both = load_masks({"X": images(), "Y": masks(values=(0, 255))}, None, ReadingOptions(test_fraction=0))
    assert both.schema.classes == ("0", "255")  # 0 and 255 alone are ground and object


def test_colours_are_classes_and_are_written_back(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    root = folder(tmp_path, truth=colours[masks()])
    (root / "legend.csv").write_text("red,green,blue,name\n0,0,0,ground\n255,0,0,cell\n0,0,255,nucleus\n")
    found = load_masks(root, None, ReadingOptions(test_fraction=0))
    assert found.schema.classes == ("ground", "nucleus", "cell") and found.schema.coloured
    codes = found.train.target.values[0]
    assert np.array_equal(found.schema.palette.written(codes), colours[masks()[0]])
    assert MaskSchema.from_dict(json.loads(json.dumps(found.schema.to_dict()))) == found.schema
    assert schema_from_dict(found.schema.to_dict()) == found.schema


def test_images_of_several_sizes_come_to_one_and_their_masks_alike(tmp_path):
    folder(tmp_path, [*images(3, (16, 16)), *images(3, (20, 32))], [*masks(3, (16, 16)), *masks(3, (20, 32))])
    found = load_masks(tmp_path, None, ReadingOptions(test_fraction=0))
    assert found.schema.size == (18, 24) and found.notes["image_sizes"] == 2
    assert (found.train.target.values == UNLABELLED).any()  # the sides of those that are narrower
    new = read_scenes(tmp_path / "images", found.schema, FileForm())
    assert new.sizes == ((16, 16),) * 3 + ((20, 32),) * 3 and new.features.values.shape == (6, 1, 18, 24)


def test_images_without_a_mask_are_left_out_and_told(tmp_path):
    root = folder(tmp_path)
    (root / "masks" / "3.png").unlink()
    found = load_masks(root, None, ReadingOptions(test_fraction=0))
    assert len(found.train) == ROWS - 1 and found.lost["absent_masks"] == ("images/3.png",)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)), st.tuples(st.integers(4, 40), st.integers(4, 40))
)
def test_a_mask_lies_where_its_image_does(size, into):
    image = Image.fromarray(np.full(size, 200, np.uint8))
    top, left, height, width = placed(size, into)
    mask = fitted_mask(np.ones(size, np.uint8), into)
    assert (mask[top : top + height, left : left + width] == 1).all() and (mask == 1).sum() == height * width
    assert fitted(image, into).shape == (1, *into)


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=200, unique=True), st.data())
def test_codes_are_written_back_as_they_were_read(values, data):
    palette = Palette(tuple(values), tuple(map(str, values)), False)
    drawn = np.array(data.draw(st.lists(st.sampled_from(values), min_size=4, max_size=4))).reshape(2, 2)
    codes, stray = palette.codes(drawn.astype(np.int32))
    assert not len(stray) and np.array_equal(palette.written(codes), drawn)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(as_png(palette.written(codes))))), drawn)


@pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
        ("classes.txt", "0 sky\n1 tree\n", {0: "sky", 1: "tree"}),
        ("classes.txt", "sky\ntree\n", {0: "sky", 1: "tree"}),
        ("legend.csv", "value,name\n3,sky\n9,old tree\n", {3: "sky", 9: "old tree"}),
        ("labels.txt", "sky: 0\ntree: 1\n", {0: "sky", 1: "tree"}),
        ("legend.json", '["sky", "tree"]', {0: "sky", 1: "tree"}),
        ("legend.json", '{"sky": 0, "tree": 1}', {0: "sky", 1: "tree"}),
        ("legend.csv", "#000000,sky\n#0000ff,tree\n", {0: "sky", 255: "tree"}),
    ],
)
def test_legends(tmp_path, name, text, classes):
    (tmp_path / name).write_text(text)
    assert read_legend(tmp_path / name)[0] == classes


@given(st.text(max_size=200))
def test_a_legend_of_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("legend") / "legend.csv"
    path.write_text(text, encoding="utf-8")
    try:
        assert len(read_legend(path)[0]) >= 2
    except UserError as error:
        assert "\n" not in str(error)


# --------------------------------------------------------------------------------------------- what is refused


def test_arrays_that_do_not_fit_are_refused():
    x, y = images(), masks()
    cases = [
        ({"X": x, "Y": y[:5]}, "8 images and 5 masks"),
        ({"X": x, "Y": y[:, :8]}, "the masks have shape (8, 16) and the images (16, 16)"),
        ({"X": x, "Y": y + 0.5}, "hold fractions"),
        ({"X": x, "Y": y.astype(int) - 1}, "values from -1 to 1"),
        ({"X": x, "Y": np.zeros((8, 2, 16, 16), int)}, "expected (rows, height, width)"),
        ({"X": x, "Y": y.astype(str)}, "expected whole numbers"),
        ({"X": x}, "needs images X and masks Y"),
        ({"X": x, "Y": np.zeros_like(y)}, "one class only, 0"),
        ({"X": x, "Y": np.full_like(y, 255).astype(int)}, "one class only, 255"),
        ({"X": x.reshape(8, -1), "Y": y}, "have shape (8, 256)"),
        ({"X": x[:1], "Y": y[:1]}, "at least 2 are needed"),
        ({"X": images(300, (4, 4)), "Y": np.arange(300 * 16).reshape(300, 4, 4)}, "at most 254"),
    ]
    for source, words in cases:
        assert words in refused(source, kind="mask", test_fraction=0), words


def test_options_that_masks_have_no_use_for_are_refused():
    source = {"X": images(), "Y": masks()}
    assert "--channels is of no use" in refused(source, channels="last")
    assert "--weight-column is of no use" in refused(source, weight_column="w")
    assert "the task is segmentation" in refused(source, task="multiclass")
    assert "ignore is 'white'" in refused(source, ignore="white")


def test_mask_files_that_are_none_are_refused(tmp_path):
    noisy = np.random.default_rng(0).integers(0, 65535, (SIDE, SIDE)).astype(np.uint16)
    for number, (name, content, words) in enumerate(
        [
            ("2.png", b"no image", "is no image"),
            ("2.png", (folder(tmp_path / "whole") / "masks" / "2.png").read_bytes()[:60], "is damaged"),
            ("2.png", as_png(masks(1, (8, 8))[0].astype(np.int64)), "8 x 8 points and its image 16 x 16"),
            ("2.png", as_png(noisy.astype(np.int64)), "values; it is not a mask"),
        ]
    ):
        root = folder(tmp_path / str(number))
        (root / "masks" / name).write_bytes(content)
        assert words in refused(root), words
    assert "is a JPEG file" in refused(folder(tmp_path / "jpeg", suffix=".jpg"))


def test_folders_and_tables_that_lack_something_are_refused(tmp_path):
    root = folder(tmp_path / "none")
    for file in (root / "masks").iterdir():
        file.rename(file.with_stem(f"other{file.stem}"))
    assert "has no mask for any of the 8 images" in refused(root)
    root = folder(tmp_path / "few")
    for number in range(5):
        (root / "masks" / f"{number}.png").unlink()
    assert "5 of 8 images have no mask" in refused(root)
    (tmp_path / "empty").mkdir()
    assert "has no folders images/ and masks/" in refused(tmp_path / "empty")
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "bare" / "images").mkdir(parents=True)
    (tmp_path / "bare" / "masks").mkdir()
    assert "has no image files" in refused(tmp_path / "bare")
    root = folder(tmp_path / "table")
    pl.DataFrame({"a": ["images/1.png"], "b": ["masks/no.png"]}).write_csv(root / "t.csv")
    assert "no mask file of column 'b' exists" in refused(root / "t.csv", "b")
    assert "name the column of their masks" in refused(root / "t.csv")
    assert "has no column 'c'" in refused(root / "t.csv", "c")


def test_values_beside_the_legend_and_bad_legends_are_refused(tmp_path):
    root = folder(tmp_path)
    (root / "legend.csv").write_text("0,ground\n1,cell\n")
    assert "has the value 2, which the legend" in refused(root)
    for text, words in [("0,a\n0,b\n", "twice"), ("7\n", "names 0 classes"), ("#ff0000 a\n#00ff00 b", "none of the legend's values")]:
        (root / "legend.csv").write_text(text)
        assert words in refused(root), words
    (root / "legend.csv").unlink()
    (root / "legend.json").write_text("{")
    assert "is no JSON" in refused(root)


def test_values_of_test_masks_that_no_training_mask_has_are_unlabelled_and_told():
    arrays = {"X_train": images(), "Y_train": masks(), "X_test": images(2), "Y_test": masks(2, values=(0, 1, 7))}
    found = load_masks(arrays)
    assert found.notes["test_rows_of_unseen_class"] == 2 and (found.test.target.values == UNLABELLED).any()


def test_new_images_with_other_channels_are_refused(tmp_path):
    found = load_masks({"X": images(), "Y": masks()})
    with pytest.raises(UserError, match="channels"):
        read_scenes(np.zeros((2, SIDE, SIDE, 5), np.uint8), found.schema, FileForm())


def test_what_has_no_masks_is_none(tmp_path):
    assert not has_masks(tmp_path) and not has_masks("sklearn:digits") and has_masks("sklearn:digit-scenes")
    assert not has_masks({"X": images(), "y": np.zeros(ROWS)})
    assert mask_value("#ff0000") == 0xFF0000 and mask_value("7") == 7
    assert palette_of([0, 1], False, None, None, "here").names == ("0", "1")
