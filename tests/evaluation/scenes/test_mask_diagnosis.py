"""Where predicted masks are wrong: near the borders of the true classes, or away from them."""

import numpy as np
import pytest

from advisor.evaluation.scenes.masks import NEAR, mask_diagnosis
from advisor.tasks import UNLABELLED, Masks

SIDE = 20


def halves():
    """The left half is of class 0, the right one of class 1."""
    codes = np.zeros((2, SIDE, SIDE), np.uint8)
    codes[:, :, SIDE // 2 :] = 1
    return codes


def test_errors_at_borders_are_told_from_those_away_from_them():
    truth = halves()
    said = truth.copy()
    said[:, :, SIDE // 2] = 0  # the border is drawn one point too far to the right
    found = mask_diagnosis(2, Masks(truth), np.zeros((2, 2, SIDE, SIDE)), said).boundary
    assert found.near == pytest.approx(1 / (2 * NEAR)) and found.far == 0


def test_where_labels_end_is_no_border():
    truth = halves()
    truth[truth == 1] = UNLABELLED
    said = np.zeros_like(truth)
    assert mask_diagnosis(2, Masks(truth), np.zeros((2, 2, SIDE, SIDE)), said).boundary is None
