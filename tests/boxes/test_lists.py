"""The loss of a list of boxes, and the boxes of several models as those of one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.boxes.lists import MOST_FOUND, SAME_BOX, Boxes, fused, iou, losses_of
from advisor.tasks import DETECTION, averaged_by_row

SQUARE = (10, 10, 20, 20)


def truth(*boxes):
    """One image with these boxes: (left, top, right, bottom, class)."""
    whole = np.array(boxes, np.float64).reshape(-1, 5)
    return Boxes(whole[:, :4], whole[:, 4].astype(np.int64), np.array([len(whole)]))


def found(*boxes):
    """One image: (left, top, right, bottom, score, class)."""
    result = np.zeros((1, MOST_FOUND, 6))
    if boxes:
        result[0, : len(boxes)] = boxes
    return result


def test_overlap_is_intersection_over_union():
    assert iou(
        np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2], [5, 5, 6, 6], [0, 0, 2, 2.0]])
    ).tolist() == [[1 / 3, 0, 1]]
    assert iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0]]


def test_the_very_boxes_lose_nothing_and_none_of_them_one():
    one = truth((*SQUARE, 1), (30, 30, 50, 40, 0))
    assert losses_of(one, found((*SQUARE, 1.0, 1), (30, 30, 50, 40, 1.0, 0)))[0] == 0
    assert losses_of(one, found())[0] == 1
    assert losses_of(truth(), found())[0] == 0


def test_what_a_box_costs_is_what_is_documented():
    one = truth((*SQUARE, 1))
    assert losses_of(one, found((*SQUARE, 0.4, 1)))[0] == pytest.approx(1 - (1 - 0.6**2))
    assert losses_of(one, found((*SQUARE, 0.4, 0)))[0] == pytest.approx(1 + 0.4**2)  # another class
    half = (10, 10, 20, 15)
    assert losses_of(one, found((*half, 1.0, 1)))[0] == pytest.approx(1 - 0.5)
    twice = found((*SQUARE, 1.0, 1), (*SQUARE, 0.5, 1))
    assert losses_of(one, twice)[0] == pytest.approx(0.5**2)  # the second is none


def test_the_best_score_is_the_chance_that_the_box_is_one():
    """Of a box that is there in 3 of 10 images a score of 0.3 loses least."""
    scores = np.linspace(0.05, 0.95, 19)
    mean = [
        0.3 * losses_of(truth((*SQUARE, 0)), found((*SQUARE, s, 0)))[0]
        + 0.7 * losses_of(truth(), found((*SQUARE, s, 0)))[0]
        for s in scores
    ]
    assert scores[int(np.argmin(mean))] == pytest.approx(0.3)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0, 1), st.integers(0, 2)), max_size=8)
)
def test_no_list_of_boxes_loses_less_than_nothing_or_more_than_all_that_is_wrong(boxes):
    own = found(*[(x, y, x + 10, y + 10, score, code) for x, y, score, code in boxes])
    loss = losses_of(truth((*SQUARE, 1)), own)[0]
    assert 0 <= loss <= 1 + (own[0, :, 4] ** 2).sum() + 1e-9


def test_boxes_of_several_models_are_one_where_they_overlap():
    first = found((10, 10, 20, 20, 0.8, 1), (40, 40, 50, 50, 0.6, 0))
    second = found((10, 10, 22, 20, 0.4, 1))
    [boxes] = fused(np.stack([first, second]))
    assert boxes[0] == pytest.approx([10, 10, (0.8 * 20 + 0.4 * 22) / 1.2, 20, 0.6, 1])
    assert boxes[1] == pytest.approx([40, 40, 50, 50, 0.3, 0])  # only one of two found it
    assert not boxes[2:].any()


def test_boxes_of_another_class_or_place_stay_apart():
    first, second = found((*SQUARE, 0.8, 1)), found((*SQUARE, 0.8, 0))
    assert (fused(np.stack([first, second]))[0, :, 4] > 0).sum() == 2
    beside = found((15, 10, 25, 20, 0.8, 1))
    assert iou(np.array([[*SQUARE]], float), beside[0, :1, :4])[0, 0] < SAME_BOX
    assert (fused(np.stack([first, beside]))[0, :, 4] > 0).sum() == 2


def test_one_model_is_what_it_is():
    one = found((*SQUARE, 0.01, 1), (11, 10, 20, 20, 0.9, 1))
    assert np.array_equal(fused(one[None]), one)


def test_scores_by_row_are_averaged_as_the_task_says():
    parts = [np.array([0, 2]), np.array([2, 5])]
    own = [np.repeat(found((*SQUARE, score, 1)), 2, axis=0) for score in (0.8, 0.4)]
    rows, scores = averaged_by_row(DETECTION, parts, own)
    assert rows.tolist() == [0, 2, 5] and scores[:, 0, 4] == pytest.approx([0.8, 0.6, 0.4])


def test_meaningless_boxes_are_those_of_other_images():
    boxes = Boxes(np.arange(12.0).reshape(3, 4), np.arange(3), np.array([1, 1, 3]))
    drawn = DETECTION.meaningless(boxes, np.arange(3), 3, np.random.default_rng(1))
    assert len(drawn) == 3 and sorted(drawn.counts.tolist()) == [0, 1, 2]
    assert DETECTION.compared(boxes[np.array([0, 0])])[0] == DETECTION.compared(boxes[np.array([0])])[0]
