"""Images with masks from their arrays to a trained model, its predictions and its page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import advisor
from advisor.cli.main import _run
from advisor.cli.output import show_result
from advisor.data.masks.digit_scenes import digit_scenes

ROWS, TEST_ROWS, SIDE = 24, 8, 32
QUICK = {"epochs": 2, "patience": 2, "width": 8, "stages": 4, "validation": "holdout"}


def scenes(rows, part="train"):
    """A quarter of each scene, with three classes: ground, digits below five, the others."""
    made = digit_scenes(rows, part=part)
    masks = np.where(made.masks > 5, 2, np.minimum(made.masks, 1)).astype(np.uint8)
    return made.images[:, :SIDE, :SIDE], masks[:, :SIDE, :SIDE]


@pytest.fixture(scope="module")
def arrays():
    (x, y), (new, truth) = scenes(ROWS), scenes(TEST_ROWS, "test")
    return {"X_train": x, "Y_train": y, "X_test": new, "Y_test": truth}


@pytest.fixture(scope="module")
def run(arrays, tmp_path_factory):
    out = tmp_path_factory.mktemp("masks")
    np.savez(out / "scenes.npz", **arrays)
    return advisor.train(out / "scenes.npz", out=out / "run", fixed=QUICK, metric="iou:2")


@pytest.mark.slow
def test_iou_and_dice_of_every_class_are_reported_beside_the_baselines(run):
    network, *baselines = run.report.test.results
    assert network.metric == pytest.approx(run.report.test.predictions.per_mask[2].iou.value)
    assert {one.metric_difference is not None for one in baselines} == {True}
    assert 0 < network.mean_iou <= network.mean_dice <= 1
    assert [one.name for one in baselines] == ["class shares", "random forest on filters"]
    per_mask = run.report.test.predictions.per_mask
    assert len(per_mask) == 3 and per_mask[0].images == TEST_ROWS
    for one in per_mask:
        assert one.iou.low <= one.iou.value <= one.iou.high and one.iou.value <= one.dice.value
    assert run.report.test.predictions.boundary.near > run.report.test.predictions.boundary.far


@pytest.mark.slow
def test_the_page_shows_classes_and_the_worst_images_with_both_masks(run):
    worst = run.report.test.mistakes
    assert len(worst) == TEST_ROWS
    for picture in (worst[0].image, worst[0].mask, worst[0].predicted_mask):
        assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (SIDE, SIDE)
    page = (run.folder / "report.html").read_text()
    assert "the predicted mask" in page and "The points of the masks" in page and "mean IoU" in page
    assert "mean IoU" in advisor.report_of(run.folder) and "| IoU |" in advisor.report_of(run.folder)


@pytest.mark.slow
def test_masks_are_predicted_as_the_training_masks_were(run, arrays):
    model = advisor.load_model(run.folder)
    predicted = model.predict(arrays["X_test"])
    assert predicted.shape == arrays["Y_test"].shape and set(np.unique(predicted)) <= {0, 1, 2}
    chances = model.predict_proba(arrays["X_test"])
    assert chances.shape == (TEST_ROWS, 3, SIDE, SIDE) and np.allclose(chances.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(chances.argmax(axis=1), predicted)


@pytest.mark.slow
def test_predict_writes_a_mask_as_large_as_each_image(run, arrays, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    for number, size in enumerate([(SIDE, SIDE), (48, 40)]):
        Image.fromarray(arrays["X_test"][number]).resize(size).save(new / f"{number}.png")
    assert _run(["predict", str(run.folder), str(new), "--out", str(tmp_path / "out")]) == 0
    sizes = [Image.open(tmp_path / "out" / f"{number}.png").size for number in range(2)]
    assert sizes == [(SIDE, SIDE), (48, 40)]
    table = advisor.predict(run.folder, new)
    assert table.columns == ["name", "share_0", "share_1", "share_2"] and table.height == 2


def test_the_next_command_predicts_masks_of_new_images(run, capsys):
    show_result(run, as_json=False)
    assert "new_images/ --out masks/" in capsys.readouterr().out


def test_a_mask_has_no_interval(run, arrays):
    with pytest.raises(advisor.UserError, match="segmentation has no interval"):
        advisor.load_model(run.folder).predict_interval(arrays["X_test"])


@pytest.mark.slow
def test_onnx_gives_the_chances_of_every_point_and_the_masks(run, arrays, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    assert advisor.export(run.folder, out=tmp_path / "m.onnx").difference < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    chances, masks = session.run(None, {"images": arrays["X_test"][:, None]})
    model = advisor.load_model(run.folder)
    assert np.abs(chances - model.predict_proba(arrays["X_test"])).max() < 1e-5
    assert masks.shape == arrays["Y_test"].shape and (masks == model.predict(arrays["X_test"])).all()


@pytest.mark.slow
def test_a_torch_program_gives_the_chances_of_every_point(run):
    assert advisor.export(run.folder, form="torch").difference < 1e-5
    assert "VALUES = [0, 1, 2]" in advisor.export(run.folder, form="script").path.read_text()


def test_images_larger_than_the_sample_are_measured():
    x = np.random.default_rng(0).integers(0, 255, (4, 400, 400), dtype=np.uint8)
    one = advisor.recommend(x, (x > 200).astype(np.uint8))
    assert one.configuration["crop"] in (128, 256) and one.configuration["crop_foreground"] == 0.33


def test_arrays_of_python_are_read_as_a_file(arrays):
    one = advisor.recommend(arrays["X_train"], arrays["Y_train"])
    assert one.kind == "mask" and one.facts.values["mask.classes"] == 3
    assert one.configuration["upsampling"] == "resize" and "N8" in str(one.why("upsampling"))
