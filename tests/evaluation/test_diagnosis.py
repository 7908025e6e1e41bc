"""Where predictions are wrong, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from advisor.evaluation.by_target import diagnose
from advisor.evaluation.diagnosis import MOST_PAIRS, MOST_POINTS
from advisor.evaluation.judgement import OperatingPoint
from advisor.tasks import BINARY, MULTICLASS, REGRESSION


def two_classes(rows=400):
    rng = np.random.default_rng(0)
    target = (rng.random(rows) < 0.2).astype(np.int64)
    yes = np.clip(0.2 + 0.3 * target + 0.15 * rng.normal(size=rows), 0.01, 0.99)
    return target, np.column_stack([1 - yes, yes])


def test_the_curves_of_two_classes_are_of_the_rare_one_and_hold_the_decision():
    target, scores = two_classes()
    chosen = (scores[:, 1] > 0.4).astype(np.int64)
    curves = diagnose(BINARY, 2, target, scores, chosen).curves
    assert curves.class_ == 1
    assert curves.roc_auc == pytest.approx(roc_auc_score(target, scores[:, 1]))
    assert (curves.roc[0], curves.roc[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert len(curves.pr) <= MOST_POINTS
    assert curves.at.recall == pytest.approx(chosen[target == 1].mean())
    assert curves.at.precision == pytest.approx(target[chosen == 1].mean())
    assert curves.at.false_positive_rate == pytest.approx(chosen[target == 0].mean())


def test_a_decision_for_one_class_alone_has_no_precision():
    target, scores = two_classes()
    found = diagnose(BINARY, 2, target, scores, np.zeros(len(target), np.int64))
    assert found.curves.at == OperatingPoint(0.0, 0.0, None)
    assert found.per_class[1].precision is None


def test_test_rows_of_one_class_have_no_curves():
    target, scores = two_classes()
    assert not diagnose(BINARY, 2, np.zeros_like(target), scores, scores.argmax(axis=1)).curves


def test_precision_recall_and_f1_of_each_class_are_scikit_learns():
    rng = np.random.default_rng(0)
    target, chosen = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    found = diagnose(MULTICLASS, 3, target, np.full((200, 3), 1 / 3), chosen).per_class
    for name, values in zip(
        ("precision", "recall", "f1", "rows"), precision_recall_fscore_support(target, chosen), strict=True
    ):
        assert [getattr(one, name) for one in found] == pytest.approx(values.tolist())


def test_pairs_of_a_regression_are_bounded_and_hold_the_largest_error():
    rng = np.random.default_rng(0)
    target = rng.normal(size=5000)
    scores = target + 0.1 * rng.normal(size=5000)
    scores[77] += 50
    pairs = diagnose(REGRESSION, 0, target, scores, scores).pairs
    assert len(pairs) <= MOST_PAIRS
    assert (target[77], scores[77]) in pairs
