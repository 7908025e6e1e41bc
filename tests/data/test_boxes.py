"""Images with boxes: what is read of each format, what is repaired, and what is refused in one line."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from advisor.data.boxes.annotated import Annotated, RawBox
from advisor.data.boxes.checked import ClassNames, checked
from advisor.data.boxes.sets import in_given_points, load_boxes
from advisor.data.boxes.sources import SOURCE, has_boxes
from advisor.data.modalities import kind_of
from advisor.data.options import ReadingOptions
from advisor.errors import UserError

WIDTH, HEIGHT = 40, 30
BOXES = {  # name -> (left, top, right, bottom, class)
    "a": [(2, 3, 12, 13, "dog")],
    "b": [(0, 0, 40, 30, "cat"), (5, 5, 15, 25, "dog")],
    "c": [],
    "d": [(20, 10, 30, 20, "cat")],
    "e": [(1, 2, 31, 22, "dog")],
    "f": [(10, 10, 20, 20, "cat")],
}
ALL = ReadingOptions(test_fraction=0.0)


def images(folder, names=BOXES, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{ending}")
    return folder


def coco(boxes=BOXES):
    labels = sorted({box[4] for own in boxes.values() for box in own})
    document = {
        "images": [
            {"id": place, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
            for place, name in enumerate(boxes)
        ],
        "categories": [{"id": code + 7, "name": label} for code, label in enumerate(labels)],
        "annotations": [],
    }
    for place, own in enumerate(boxes.values()):
        for left, top, right, bottom, label in own:
            document["annotations"].append(
                {
                    "image_id": place,
                    "category_id": labels.index(label) + 7,
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
    return document


def in_coco(tmp_path, change=lambda document: None):
    images(tmp_path)
    document = coco()
    change(document)
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return tmp_path


def in_yolo(tmp_path, lines=None):
    images(tmp_path / "images")
    (tmp_path / "labels").mkdir()
    for name, own in BOXES.items():
        rows = [
            f"{('cat', 'dog').index(label)} {(left + right) / 2 / WIDTH} {(top + bottom) / 2 / HEIGHT} "
            f"{(right - left) / WIDTH} {(bottom - top) / HEIGHT}"
            for left, top, right, bottom, label in own
        ]
        (tmp_path / "labels" / f"{name}.txt").write_text("\n".join(rows if lines is None else lines))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def object_of(left, top, right, bottom, label):
    corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>"


def in_voc(tmp_path, content=None, names=BOXES):
    images(tmp_path / "JPEGImages")
    (tmp_path / "Annotations").mkdir()
    for name in names:
        # counted from 1, and the last point belongs to the box
        inner = "".join(
            object_of(x + 1, y + 1, right, bottom, label) for x, y, right, bottom, label in BOXES[name]
        )
        text = (
            f"<annotation><filename>{name}.png</filename>{inner}</annotation>" if content is None else content
        )
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    return tmp_path


def in_table(tmp_path, rows=None, header="filename,xmin,ymin,xmax,ymax,class"):
    images(tmp_path / "photos")
    lines = [
        f"{name}.png,{box}"
        for name, own in BOXES.items()
        for box in [",".join(map(str, one)) for one in own] or [",,,,"]
    ]
    (tmp_path / "boxes.csv").write_text("\n".join([header, *(lines if rows is None else rows)]) + "\n")
    return tmp_path / "boxes.csv"


@pytest.mark.parametrize(
    "written", [in_coco, in_yolo, in_voc, in_table], ids=["coco", "yolo", "voc", "table"]
)
def test_each_format_says_the_same(written, tmp_path):
    source = written(tmp_path)
    assert has_boxes(source) and kind_of(source) == "boxes"
    data = load_boxes(source, options=ALL)
    assert data.schema.classes == ("cat", "dog") and data.schema.size == (HEIGHT, WIDTH)
    found = {
        name: list(boxes) for name, boxes in zip(data.train_names, data.train.target.each(), strict=True)
    }
    for name, own in BOXES.items():
        corners, codes = found[f"{name}.png"]
        assert np.allclose(corners, np.array([box[:4] for box in own]).reshape(-1, 4), atol=1e-3)
        assert [("cat", "dog")[code] for code in codes] == [box[4] for box in own]
    assert not any("boxes" in note for note in data.notes)


def test_parts_are_read_as_parts(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        in_coco(tmp_path / part)
    data = load_boxes(tmp_path)
    assert (len(data.train), len(data.test), data.test_origin) == (6, 6, "file")


def test_the_parts_of_yolo_may_lie_below_images_and_labels(tmp_path):
    for part in ("train", "val"):
        inner = in_yolo(tmp_path / part)
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (inner / kind).rename(tmp_path / kind / part)
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    data = load_boxes(tmp_path, options=ALL)
    assert len(data.train) == 12 and data.schema.classes == ("cat", "dog")


def test_other_sizes_are_brought_to_one_with_their_boxes(tmp_path):
    in_coco(tmp_path)
    Image.open(tmp_path / "a.png").resize((2 * WIDTH, 2 * HEIGHT)).save(tmp_path / "a.png")
    data = load_boxes(tmp_path, options=ALL)
    [corners, _] = list(data.train.target.each())[data.train_names.index("a.png")]
    assert corners.tolist() == [[1, 1.5, 6, 6.5]]


def test_the_made_scenes_are_boxes():
    data = load_boxes(SOURCE)
    assert (len(data.train), len(data.test)) == (400, 100) and data.schema.classes == tuple("0123456789")
    left, top, right, bottom = data.train.target.corners.T
    assert (left < right).all() and (top < bottom).all() and right.max() <= 64


def test_folders_of_classes_and_plain_tables_are_no_boxes(tmp_path):
    images(tmp_path / "sets" / "cat"), images(tmp_path / "sets" / "dog")
    (tmp_path / "x.csv").write_text("x,y,w,h,class\n1,2,3,4,a\n2,3,4,5,b\n")
    assert kind_of(tmp_path / "sets") == "image" and kind_of(tmp_path / "x.csv") == "table"


# --------------------------------------------------------------------------------------------------- repairs


def one(box, size=(HEIGHT, WIDTH)):
    part = Annotated((), ("x.png",), ((RawBox(box, "dog"), RawBox((1, 1, 9, 9), "cat")),))
    boxes, repairs, _ = checked(part, [0], [size], ClassNames.of(part), "x")
    return boxes, repairs


def test_swapped_corners_are_put_in_order_and_counted():
    boxes, repairs = one((12, 13, 2, 3))
    assert boxes.corners[0].tolist() == [2, 3, 12, 13] and repairs.swapped == 1


def test_boxes_beyond_the_image_are_cut_at_its_edge_and_counted():
    boxes, repairs = one((-5, 3, 12, 50))
    assert boxes.corners[0].tolist() == [0, 3, 12, HEIGHT] and repairs.clipped == 1
    assert one((-0.5, 3, 12, 30.5))[1].clipped == 0  # programs count from 0 or from 1


@pytest.mark.parametrize(
    ("box", "what"), [((50, 3, 60, 9), "outside"), ((5, 5, 5, 9), "empty"), ((5, 5, 5.4, 9), "empty")]
)
def test_boxes_that_show_nothing_are_left_out_and_counted(box, what):
    boxes, repairs = one(box)
    assert len(boxes.codes) == 1 and getattr(repairs, what) == 1


def test_a_box_that_is_there_twice_counts_once():
    own = RawBox((1, 2, 11, 12), "dog")
    part = Annotated((), ("x.png",), ((own, own),))
    boxes, repairs, _ = checked(part, [0], [(HEIGHT, WIDTH)], ClassNames.of(part), "x")
    assert len(boxes.codes) == 1 and repairs.repeated == 1


def test_spellings_of_a_class_are_one_class(tmp_path):
    source = in_table(
        tmp_path, ["a.png,1,1,9,9,dog", "b.png,1,1,9,9,Dog", "d.png,1,1,9,9,dog", "e.png,1,1,9,9,cat "]
    )
    data = load_boxes(source, options=ALL)
    assert data.schema.classes == ("cat", "dog") and data.lost["joined_classes"] == ("dog (Dog)",)
    assert data.notes["joined_classes"] == 1


def test_images_that_are_missing_or_broken_are_left_out_and_named(tmp_path):
    in_coco(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "d.png").write_bytes(b"no image")
    data = load_boxes(tmp_path, options=ALL)
    assert data.lost["absent_files"] == ("a.png",) and data.lost["corrupt_files"] == ("d.png",)
    assert data.train_names == ("b.png", "c.png", "e.png", "f.png")
    assert data.train.target.counts.tolist() == [2, 0, 1, 1]


def test_images_without_an_xml_file_are_left_out_and_those_without_a_text_file_have_no_box(tmp_path):
    data = load_boxes(in_voc(tmp_path / "voc", names=["a", "b", "c", "d"]), options=ALL)
    assert data.lost["images_without_list"] == ("e.png", "f.png")
    yolo = in_yolo(tmp_path / "yolo")
    (yolo / "labels" / "a.txt").unlink()
    assert load_boxes(yolo, options=ALL).train.target.counts.tolist() == [0, 2, 0, 1, 1, 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4), st.booleans())
def test_what_is_kept_lies_in_the_image(box, shares):
    raw = RawBox(tuple(box), "dog")
    inside = RawBox((0.1, 0.1, 0.9, 0.9) if shares else (1, 1, 9, 9), "dog")
    part = Annotated((), ("x.png",), ((raw, inside, inside),), shares=shares)
    boxes, *_ = checked(part, [0], [(HEIGHT, WIDTH)], ClassNames.of(part), "x")
    left, top, right, bottom = boxes.corners.T
    assert (left >= 0).all() and (right <= WIDTH).all() and (bottom <= HEIGHT).all() and (top >= 0).all()
    assert (right > left).all() and (bottom > top).all() and len(boxes.codes) >= 1


def test_found_boxes_are_given_in_the_points_of_the_image():
    found = np.array(
        [[0, 4, 32, 28, 0.9, 1.0]]
    )  # an image of 64 x 48 in one of 32 x 32: bars of 4 above and below
    assert in_given_points(found, (48, 64), (32, 32))[0].tolist() == [0, 0, 64, 48, 0.9, 1.0]


# ---------------------------------------------------------------------------------------------------- errors


def _without(name):
    return lambda document: document.pop(name)


def _annotation(**values):
    return lambda document: document["annotations"][0].update(values)


COCO_MISTAKES = [
    (_without("categories"), "has no list of categories"),
    (_without("annotations"), "has no list of annotations"),
    (
        _annotation(bbox=[1, 2, 3]),
        r"annotation 1: its box is '\[1, 2, 3\]'; expected \[left, top, width, height\]",
    ),
    (_annotation(bbox=[1, 2, "x", 3]), "annotation 1: a number of its box is 'x'; expected a number"),
    (_annotation(bbox=[1, 2, float("nan"), 3]), "is 'nan'; expected a number"),
    (_annotation(category_id=99), "annotation 1 has the category 99, which is not among the categories"),
    (_annotation(image_id=99), "annotation 1 is of the image 99, which is not among the images"),
    (lambda d: d["images"][0].pop("file_name"), "image 1 has no 'file_name'"),
    (lambda d: d["images"][1].update(id=0), "image 2 has the id 0, as an earlier one has"),
    (lambda d: d["categories"][0].update(name=""), "category 1: the class is ''; expected a name"),
    (
        lambda d: [i.update(file_name="gone/" + i["file_name"] + "x") for i in d["images"]],
        "6 of 6 images are not there",
    ),
    (
        lambda d: [a.update(bbox=[900, 900, 5, 5]) for a in d["annotations"]],
        "boxes are outside of their images",
    ),
    (lambda d: d.update(annotations=[]), "has no box in any training image"),
]


@pytest.mark.parametrize(("change", "message"), COCO_MISTAKES)
def test_mistakes_in_coco_files_are_one_line(change, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        load_boxes(in_coco(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_one_line(tmp_path):
    in_coco(tmp_path)
    (tmp_path / "boxes.json").write_text('{"images": [')
    with pytest.raises(UserError, match="is no JSON"):
        load_boxes(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "line 1 has 4 numbers; expected five"),
        ("dog 0.5 0.5 0.2 0.2", "the class is 'dog'; expected its number, from 0"),
        ("2 0.5 0.5 0.2 0.2", "has the class 2; the list of classes has 2, from 0"),
        ("0 0.5 0.5 nan 0.2", "a number of its box is 'nan'"),
    ],
)
def test_mistakes_in_text_files_are_one_line(line, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_boxes(in_yolo(tmp_path, [line]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>", "is no XML"),
        ("<annotation><object><name>dog</name></object></annotation>", r"object 1 \('dog'\) has no <bndbox>"),
        (f"<annotation>{object_of(1, 'x', 3, 4, 'dog')}</annotation>", "<ymin> is 'x'; expected a number"),
        (f"<annotation>{object_of(1, 2, 3, 4, ' ')}</annotation>", "expected a name"),
        ('<!DOCTYPE a [<!ENTITY b "b">]><annotation/>', "declares entities"),
    ],
)
def test_mistakes_in_xml_files_are_one_line(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_boxes(in_voc(tmp_path, content))


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["a.png,1,x,3,4,dog"], None, "row 1: 'ymin' is 'x'; expected a number"),
        (["a.png,1,2,3,4,"], None, "row 1: the class is 'None'; expected a name"),
        (
            ["a.png,1,2,3,4"],
            "filename,xmin,ymin,xmax,ymax",
            "has no column of classes; name it with --target",
        ),
        (["z.png,1,2,3,4,dog"], None, "1 of 1 images are not there: 'z.png'"),
    ],
)
def test_mistakes_in_tables_are_one_line(rows, header, message, tmp_path):
    source = in_table(tmp_path, rows, header or "filename,xmin,ymin,xmax,ymax,class")
    with pytest.raises(UserError, match=message):
        load_boxes(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "multiclass"}, "each image has boxes: the task is detection; leave it out"),
        ({"group_column": "g"}, "--group-column is of no use for images with boxes; leave it out"),
        ({"ignore": 3}, "--ignore is of no use for images with boxes; leave it out"),
    ],
)
def test_options_of_other_data_are_refused(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_boxes(in_coco(tmp_path), options=ReadingOptions(**options))


def test_two_files_of_boxes_in_a_folder_must_be_named(tmp_path):
    in_coco(tmp_path)
    (tmp_path / "more.json").write_text((tmp_path / "boxes.json").read_text())
    with pytest.raises(UserError, match="has 2 files of boxes"):
        load_boxes(tmp_path)
    assert len(load_boxes(tmp_path / "more.json", options=ALL).train) == 6
