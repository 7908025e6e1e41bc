"""Images with boxes from a COCO file to a trained model, its predictions and its page."""

import base64
import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import advisor
from advisor.cli.main import _run
from advisor.data.boxes.found import LEAST_SCORE
from advisor.data.masks.digit_scenes import digit_scenes
from advisor.exporting.formats import export_onnx

ROWS, TEST_ROWS, SIDE = 32, 10, 64
QUICK = {"epochs": 6, "patience": 6, "width": 8, "neck_width": 16, "stages": 3, "validation": "holdout"}


def written(folder, part, rows):
    """Scenes with two classes, digits below five and the others, as COCO has them."""
    made = digit_scenes(rows, part=part)
    folder.mkdir(parents=True)
    annotations = []
    for row, image in enumerate(made.images):
        Image.fromarray(image).save(folder / f"{row}.png")
        own = slice(made.ends[row - 1] if row else 0, made.ends[row])
        for (left, top, right, bottom), code in zip(made.boxes[own], made.codes[own], strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": row, "category_id": int(code > 4), "bbox": box})
    document = {
        "images": [{"id": row, "file_name": f"{row}.png"} for row in range(rows)],
        "categories": [{"id": 0, "name": "low"}, {"id": 1, "name": "high"}],
        "annotations": annotations,
    }
    (folder / "boxes.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes") / "scenes"
    written(folder / "train", "train", ROWS)
    written(folder / "test", "test", TEST_ROWS)
    return folder


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    return advisor.train(source, out=tmp_path_factory.mktemp("run") / "run", fixed=QUICK)


@pytest.mark.slow
def test_average_precision_of_every_class_is_reported_beside_the_baselines(run):
    network, *baselines = run.report.test.results
    assert 0 <= network.ap <= network.ap50 <= 1
    assert [one.name for one in baselines] == ["nothing found", "usual places"]
    assert baselines[0].loss == 1 and baselines[0].ap50 == 0
    for one in run.report.test.predictions.per_box:
        assert one.boxes > 0 and one.ap50.low <= one.ap50.value <= one.ap50.high
        assert one.ap.value <= one.ap50.value and len(one.curve) == 101


@pytest.mark.slow
def test_the_page_shows_classes_and_the_worst_images_with_their_boxes(run):
    worst = run.report.test.mistakes
    assert len(worst) == 8
    for picture in (worst[0].boxes, worst[0].found_boxes):
        assert max(Image.open(io.BytesIO(base64.b64decode(picture))).size) == 192
    page = (run.folder / "report.html").read_text()
    assert "the boxes that were found" in page and "AP50:95" in page and "Precision-recall curve" in page
    assert "AP50" in advisor.report_of(run.folder) and "| low |" in advisor.report_of(run.folder)


@pytest.mark.slow
def test_predictions_are_a_table_and_a_coco_file(run, source, tmp_path):
    assert _run(["predict", str(run.folder), str(source / "test"), "--out", str(tmp_path / "out.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert rows and set(rows[0]) == {"name", "left", "top", "right", "bottom", "prediction", "score"}
    assert {row["prediction"] for row in rows} <= {"low", "high"}
    assert min(float(row["score"]) for row in rows) >= LEAST_SCORE
    assert _run(["predict", str(run.folder), str(source / "test"), "--out", str(tmp_path / "out.json")]) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert [one["name"] for one in document["categories"]] == ["low", "high"]
    assert len(document["annotations"]) == len(rows) and len(document["images"]) == TEST_ROWS
    assert {one["image_id"] for one in document["annotations"]} <= {one["id"] for one in document["images"]}


@pytest.mark.slow
def test_boxes_are_in_points_of_the_image_that_was_given(run, source, tmp_path):
    model = advisor.load_model(run.folder)
    busiest = int(np.argmax([len(own) for own in model.predict(source / "test")]))
    image = Image.open(source / "test" / f"{busiest}.png")
    image.save(tmp_path / "0.png")
    image.resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST).save(tmp_path / "1.png")
    small, large = model.predict(tmp_path)
    assert len(small) and np.allclose(2 * small.corners, large.corners[: len(small)], atol=0.5)
    assert large.corners.max() <= 2 * SIDE and (np.diff(small.scores) <= 0).all()


@pytest.mark.slow
def test_a_search_ends_with_a_model(source, tmp_path):
    fixed = {**QUICK, "epochs": 1, "patience": 1}
    done = advisor.tune(source, out=tmp_path / "run", trials=2, fixed=fixed, executor="in-process")
    assert done.report.final.winner and 0 <= done.report.test.results[0].ap50 <= 1


def test_boxes_have_no_interval_and_no_probabilities(run, source):
    model = advisor.load_model(run.folder)
    with pytest.raises(advisor.UserError, match="detection has no interval"):
        model.predict_interval(source / "test")
    with pytest.raises(advisor.UserError, match="a model of detection has no class probabilities"):
        model.predict_proba(source / "test")


@pytest.mark.slow
def test_a_model_of_boxes_is_exported(run, tmp_path):
    written = advisor.export(run.folder, form="torch", out=tmp_path / "model")
    assert written.difference <= 1e-5 and "left, top, right, bottom" in " ".join(written.notes)
    with pytest.raises(advisor.UserError, match="does not cover boxes yet"):
        advisor.export(run.folder, form="script")


@pytest.mark.slow
def test_two_networks_of_queries_are_exported_side_by_side(run, tmp_path):
    model = advisor.load_model(run.folder)
    stack = model.stacks[0]
    configuration = {
        **stack.configuration,
        "network": "queries",
        "queries": 9,
        "decoder_layers": 1,
        "stages": 2,
    }
    drawn = stack.shape.network(configuration, 2, members=2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for own in drawn.head.scored:
            own.weight.mul_(9)
    own = replace(stack, configuration=configuration, member_split=(0, 0), state=drawn.state_dict())
    written = export_onnx(replace(model, stacks=(own,)), tmp_path / "model")
    assert written.difference <= 1e-5 and "several networks" in written.left_out[0]


def test_a_metric_of_rows_is_refused(source):
    with pytest.raises(advisor.UserError, match="f1 does not fit a detection target: choose one of ap50, ap"):
        advisor.recommend(source, metric="f1")


def test_what_is_advised_has_its_reasons(source):
    one = advisor.recommend(source)
    assert one.kind == "boxes" and one.facts.values["boxes.classes"] == 2
    assert one.configuration["network"] == "heat_map" and "N11" in str(one.why("network"))
    assert one.configuration["loss"] == "detection" and one.configuration["map_stride"] == 4
