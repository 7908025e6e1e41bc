"""Average precision, held against COCO's own evaluation."""

import contextlib
import io

import numpy as np
import pytest

from advisor.boxes.lists import MOST_FOUND, Boxes
from advisor.boxes.precision import matches, mean_precision
from advisor.tasks import DETECTION

CLASSES, IMAGES = 3, 40


def drawn(seed, images=IMAGES, ties=False):
    """Boxes, and found ones of which some are near true ones, some are doubles, and some are anywhere."""
    generator = np.random.default_rng(seed)
    corners, codes, ends = [], [], []
    found = np.zeros((images, MOST_FOUND, 6))
    for row in range(images):
        own = []
        for _ in range(generator.integers(0, 5)):
            left, top = generator.uniform(0, 60, 2)
            own.append((left, top, *(np.array([left, top]) + generator.uniform(5, 40, 2))))
            codes.append(int(generator.integers(CLASSES - (seed == 2))))  # without the last class
        corners += own
        ends.append(len(codes))
        place = 0
        for box, code in zip(own, codes[len(codes) - len(own) :], strict=True):
            for _ in range(generator.integers(0, 3)):
                moved = np.array(box) + generator.normal(0, 2.5, 4)
                moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
                score = round(generator.uniform(), 1 if ties else 6)
                said = code if generator.uniform() < 0.8 else int(generator.integers(CLASSES))
                found[row, place] = (*moved, max(score, 0.01), said)
                place += 1
        if generator.uniform() < 0.5:
            found[row, place] = (1, 2, 30, 40, generator.uniform(0.01, 1), generator.integers(CLASSES))
    return Boxes(np.array(corners).reshape(-1, 4), np.array(codes), np.array(ends)), found


def of_coco(target, found):
    """AP50 and AP50:95 of pycocotools, and those of each class."""
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for row, (corners, codes) in enumerate(target.each()):
        for box, code in zip(corners, codes, strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            own = {"id": len(annotations) + 1, "image_id": row + 1, "category_id": int(code) + 1}
            annotations.append({**own, "bbox": sides, "area": sides[2] * sides[3], "iscrowd": 0})
        for *box, score, code in found[row][found[row][:, 4] > 0]:
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": row + 1, "category_id": int(code) + 1, "bbox": sides, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": row + 1} for row in range(len(target))],
            "categories": [{"id": code + 1} for code in range(CLASSES)],
            "annotations": annotations,
        }
        truth.createIndex()
        judged = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    per_class = judged.eval["precision"][:, :, :, 0, -1].mean(axis=1)  # (thresholds, classes)
    return judged.stats[1], judged.stats[0], per_class


@pytest.mark.parametrize(("seed", "ties"), [(0, False), (1, False), (2, False), (3, True)])
def test_it_is_that_of_coco(seed, ties):
    target, found = drawn(seed, ties=ties)
    ap50, ap, per_class = of_coco(target, found)
    own = matches(target, found, CLASSES)
    assert mean_precision(own) == pytest.approx((ap50, ap), abs=1e-6)
    for code, one in enumerate(own):
        expected = per_class[:, code]
        assert np.allclose(one.precision(), expected, atol=1e-6) or (expected == -1).all()
    metrics = DETECTION.metrics(target, found)
    assert (metrics["ap50"], metrics["ap"]) == pytest.approx((ap50, ap), abs=1e-6)


def test_right_boxes_have_a_precision_of_one_and_none_has_zero():
    target, found = drawn(0)
    right = np.zeros_like(found)
    for row, (corners, codes) in enumerate(target.each()):
        right[row, : len(codes)] = np.column_stack([corners, np.full(len(codes), 0.9), codes])
    assert mean_precision(matches(target, right, CLASSES)) == (1, 1)
    assert mean_precision(matches(target, np.zeros_like(found), CLASSES)) == (0, 0)


def test_images_counted_twice_change_what_they_should():
    target, found = drawn(1)
    rows = np.array([0, 1, 1, 2, 5, 5, 5])
    often = np.bincount(rows, minlength=IMAGES).astype(float)
    for one, again in zip(
        matches(target, found, CLASSES), matches(target[rows], found[rows], CLASSES), strict=True
    ):
        assert np.allclose(one.precision(often), again.precision(), equal_nan=True)


def test_the_curve_falls_from_the_first_recall_to_the_last():
    target, found = drawn(0)
    recall, precision = np.array(matches(target, found, CLASSES)[0].curve()).T
    assert recall[0] == 0 and recall[-1] == 1 and (np.diff(precision) <= 1e-12).all()
