"""The user's metric: names, costs, values as scikit-learn has them, decisions that other rows chose."""

import pickle
import sys

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import advisor
from advisor.boxes.lists import MOST_FOUND, Boxes
from advisor.boxes.precision import matches
from advisor.errors import UserError
from advisor.evaluation.by_metric import (
    choose_decision,
    expected_value,
    jackknifed,
    judge_constant,
    judge_rows,
    left_out_parts,
    threshold_of,
)
from advisor.evaluation.judge import Judge
from advisor.evaluation.metrics import (
    METRICS,
    asked_metric,
    check_fit,
    checked_costs,
    cost_metric,
    metric_of,
    read_costs,
)
from advisor.evaluation.selection import clustered_error, decide
from advisor.tasks import (
    BINARY,
    DETECTION,
    MULTICLASS,
    NUMBER_LOSSES,
    REGRESSION,
    SEGMENTATION,
    UNLABELLED,
    Masks,
)
from advisor.training.targets import TRAINED_LOSSES


def two(rows=1000, share=0.1, signal=2.0, seed=0):
    """Codes of two classes, the second rare, and honest probabilities."""
    draw = np.random.default_rng(seed)
    truth = (draw.random(rows) < share).astype(np.int64)
    x = draw.normal(size=rows) + signal * truth
    odds = np.exp(signal * x - signal**2 / 2) * share / (1 - share)
    return truth, np.column_stack([1 / (1 + odds), odds / (1 + odds)])


def judge(name, task=BINARY, classes=("no", "yes"), target=(0, 0, 1)):
    return Judge.of(metric_of(name), task, classes, np.array(target))


# names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("roc_acu", r"unknown metric 'roc_acu' \(did you mean 'roc_auc'\?\)"),
        ("f1_samples", "several labels: choose one of"),
        ("pinball:2", "expected a quantile between 0 and 1, such as pinball:0.9"),
        ("top_k:none", "a number of classes, such as top_k:3"),
        ("r2:3", "r2 takes nothing after a colon"),
        ("", "expected a name such as roc_auc"),
    ],
)
def test_a_name_that_is_none_is_answered_with_what_would_be_one(name, message):
    with pytest.raises(UserError, match=message):
        metric_of(name)


def test_masks_have_metrics_of_their_own():
    with pytest.raises(UserError, match="f1_macro does not fit a segmentation target: choose one of iou, dice"):
        check_fit(metric_of("f1_macro"), "segmentation", ("a", "b"))
    with pytest.raises(UserError, match="iou does not fit a binary target"):
        check_fit(metric_of("mean_iou"), "binary", ("a", "b"))


def test_a_metric_that_does_not_fit_the_task_says_which_do():
    with pytest.raises(UserError, match="roc_auc does not fit a regression target: choose one of r2, "):
        check_fit(metric_of("roc_auc"), "regression", ())
    with pytest.raises(UserError, match=r"roc_auc does not fit a multiclass target.*roc_auc_ovr"):
        check_fit(metric_of("roc_auc"), "multiclass", ("a", "b", "c"))
    with pytest.raises(UserError, match=r"no class 'yess' \(did you mean 'yes'\?\)"):
        check_fit(metric_of("f1:yess"), "binary", ("no", "yes"))
    with pytest.raises(UserError, match="not both"):
        asked_metric("f1", {"yes": {"no": 5}})


@given(
    st.text(max_size=30)
    | st.sampled_from([*METRICS]).flatmap(lambda n: st.text(max_size=5).map(f"{n}:".__add__))
)
def test_any_text_is_a_metric_or_a_complaint(text):
    try:
        assert metric_of(text).name == text
    except UserError as error:
        assert "\n" not in str(error).strip() or "\n" in text


# values


def test_values_are_scikit_learn_s_for_every_name():
    truth, scores = two(300)
    three = np.random.default_rng(1).dirichlet(np.ones(3), 300)
    classes = np.random.default_rng(2).integers(0, 3, 300)
    numbers = np.random.default_rng(3).uniform(1, 2, 300)
    for name in METRICS:
        if "binary" in METRICS[name].fits:
            assert np.isfinite(judge(name).value(truth, scores, scores.argmax(axis=1)))
        if "multiclass" in METRICS[name].fits:
            own = judge(name, MULTICLASS, ("a", "b", "c"))
            assert np.isfinite(own.value(classes, three, three.argmax(axis=1)))
        if "regression" in METRICS[name].fits:
            assert np.isfinite(judge(name, REGRESSION, ()).value(numbers, numbers + 0.1, numbers + 0.1))
    said = (scores[:, 1] > 0.3).astype(int)
    assert judge("roc_auc").value(truth, scores, said) == reference.roc_auc_score(truth, scores[:, 1])
    assert judge("brier").value(truth, scores, said) == reference.brier_score_loss(truth, scores[:, 1])
    weights = np.random.default_rng(4).uniform(0, 2, 300)
    expected = reference.f1_score(truth, said, sample_weight=weights)
    assert judge("f1").value(truth, scores, said, weights) == expected
    pinball = judge("pinball:0.9", REGRESSION, ())
    assert pinball.value(numbers, numbers - 0.1, numbers - 0.1) == pytest.approx(0.09)


def masks(rows=40, classes=3):
    draw = np.random.default_rng(0)
    truth = draw.integers(0, classes, (rows, 6, 5)).astype(np.uint8)
    scores = draw.dirichlet(np.ones(classes), (rows, 6, 5)).transpose(0, 3, 1, 2)
    truth[0, :3] = UNLABELLED
    return Masks(truth), scores, scores.argmax(axis=1)


def test_iou_and_dice_of_masks_are_those_of_the_report_and_of_one_class_scikit_learn_s():
    truth, scores, said = masks()
    means = SEGMENTATION.metrics(truth, scores)
    labelled = truth.values != UNLABELLED
    flat = truth.values[labelled], said[labelled]
    for name, function in (("iou", reference.jaccard_score), ("dice", reference.f1_score)):
        own = Judge.of(metric_of(name), SEGMENTATION, ("a", "b", "c"), truth)
        assert own.value(truth, scores, said) == pytest.approx(means[f"mean_{name}"])
        assert own.value(truth, scores, said) == pytest.approx(function(*flat, average="macro"))
        one = Judge.of(metric_of(f"{name}:b"), SEGMENTATION, ("a", "b", "c"), truth)
        assert one.value(truth, scores, said) == pytest.approx(function(*flat, average=None)[1])
    with pytest.raises(UserError, match=r"there is no class 'd'.*; the classes are a, b, c"):
        Judge.of(metric_of("iou:d"), SEGMENTATION, ("a", "b", "c"), truth)


def test_the_jackknife_of_masks_leaves_out_whole_images():
    truth, scores, said = masks()
    own = Judge.of(metric_of("dice"), SEGMENTATION, ("a", "b", "c"), truth)
    parts = left_out_parts(len(truth), np.arange(len(truth)) // 4)
    losses = jackknifed(own, truth, scores, said, None, parts)
    assert losses.mean() == pytest.approx(-own.value(truth, scores, said))
    kept = parts != 3
    without = own.values_without(truth, scores, said, None, parts)
    assert without[3] == pytest.approx(own.value(truth[kept], scores[kept], said[kept]))
    constant = judge_constant(own, truth)
    assert 0 < constant.value < own.value(truth, scores, said)


def test_a_metric_of_one_class_is_about_the_named_the_positive_or_the_rarer_one():
    truth, scores = two(300)
    said = scores.argmax(axis=1)
    of_second, of_first = (reference.f1_score(truth, said, pos_label=code) for code in (1, 0))
    assert judge("f1", classes=("no", "yes")).value(truth, scores, said) == of_second
    assert judge("f1", classes=("1", "2")).value(truth, scores, said) == of_first
    assert judge("f1", classes=("bad", "good"), target=(0, 1, 1)).value(truth, scores, said) == of_first
    assert judge("f1:good", classes=("bad", "good"), target=(0, 1, 1)).value(truth, scores, said) == of_second
    swapped = judge("average_precision", classes=("1", "2")).value(truth, scores, said)
    assert swapped == reference.average_precision_score(1 - truth, scores[:, 0])


def test_a_function_and_a_scorer_of_one_s_own_are_told_the_labels(tmp_path, monkeypatch):
    (tmp_path / "own_metric.py").write_text(
        "from sklearn.metrics import log_loss, make_scorer\n"
        "def profit(truth, said):\n    return 10 * ((truth == 'yes') & (said == 'yes')).sum() - (said == 'yes').sum()\n"
        "loss = make_scorer(log_loss, greater_is_better=False, response_method='predict_proba')\n"
        "def broken(truth, said):\n    raise ValueError('mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    truth, scores = two(300)
    said = scores.argmax(axis=1)
    assert judge("own_metric:profit").value(truth, scores, said) == 10 * (truth & said).sum() - said.sum()
    own = judge("own_metric:loss").value(truth, scores, said)
    assert own == pytest.approx(-reference.log_loss(truth, scores))
    with pytest.raises(UserError, match="own_metric has no function 'prophet'"):
        judge("own_metric:prophet").value(truth, scores, said)
    with pytest.raises(UserError, match="there is no module 'nowhere_at_all'"):
        judge("nowhere_at_all:f").value(truth, scores, said)
    with pytest.raises(UserError, match="metric own_metric:broken raised ValueError: mine"):
        judge("own_metric:broken").value(truth, scores, said)
    (tmp_path / "raises.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match="metric raises:f cannot be imported: ZeroDivisionError"):
        judge("raises:f").value(truth, scores, said)


def test_a_function_that_is_not_there_is_told_before_data_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no module 'nowhere_at_all'"):
        advisor.recommend("no_such_file.csv", "y", metric="nowhere_at_all:f")


# costs


def test_a_cost_matrix_is_read_from_csv_and_yaml(tmp_path):
    expected = {"bad": {"bad": 0, "good": 5}, "good": {"bad": 1, "good": 0}}
    (tmp_path / "costs.csv").write_text("true,bad,good\nbad,0,5\ngood,1,0\n")
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump(expected))
    assert read_costs(tmp_path / "costs.csv") == read_costs(tmp_path / "costs.yaml") == expected
    own = Judge.of(cost_metric(expected), BINARY, ("bad", "good"), np.array([0, 1, 1]))
    truth, said = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert own.value(truth, np.full((4, 2), 0.5), said) == (5 + 1) / 4
    assert own.value(truth, np.full((4, 2), 0.5), said, np.array([1.0, 3, 1, 1])) == (3 * 5 + 1) / 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("true,a,b\na,0\n", "expected a header"),
        ("true,a,b\na,0,x\nb,1,0\n", "a, b: 'x' is not a number"),
        ("true,a,b\na,0,0\nb,0,0\n", "nothing costs anything"),
        ("", "expected a header"),
    ],
)
def test_a_file_that_holds_no_costs_is_refused(text, message, tmp_path):
    (tmp_path / "costs.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_costs(tmp_path / "costs.csv")
    with pytest.raises(UserError, match="no such file of costs"):
        read_costs(tmp_path / "none.csv")


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.floats() | st.text(max_size=3), lambda one: st.dictionaries(st.text(max_size=3), one)
    )
)
def test_any_costs_are_numbers_or_a_complaint(costs):
    try:
        found = checked_costs(costs)
    except UserError:
        return
    assert all(np.isfinite(cost) for row in found.values() for cost in row.values())


def test_costs_of_classes_that_are_not_there_are_refused():
    with pytest.raises(UserError, match=r"the costs name 'yess' \(did you mean 'yes'\?\)"):
        check_fit(cost_metric({"yess": {"no": 5}}), "binary", ("no", "yes"))


def test_the_decision_for_costs_is_near_the_threshold_that_they_imply():
    truth, scores = two(8000, share=0.3)
    own = Judge.of(cost_metric({"yes": {"no": 4}}), BINARY, ("no", "yes"), truth)
    divisors, chosen = choose_decision(own, truth, scores)
    assert threshold_of(own, divisors) == pytest.approx(0.2, abs=0.06)  # 1 / (1 + 4), Elkan 2001
    plain = own.value(truth, scores, scores.argmax(axis=1))
    assert own.value(truth, scores, chosen) < 0.9 * plain


# decisions


def test_a_decision_is_chosen_by_other_rows():
    """Of noise nothing can be decided better than by chance: what a threshold seems to gain on the rows that
    chose it is not told."""
    gains, seeming = [], []
    own = judge("balanced_accuracy")
    for seed in range(8):
        draw = np.random.default_rng(seed)
        truth, likely = (draw.random(60) < 0.3).astype(np.int64), draw.beta(2, 5, 60)
        scores = np.column_stack([1 - likely, likely])
        _, chosen = choose_decision(own, truth, scores)
        gains.append(own.value(truth, scores, chosen))
        said = likely[:, None] > np.linspace(0.1, 0.6, 20)
        seeming.append(((said[truth == 1].mean(axis=0) + 1 - said[truth == 0].mean(axis=0)) / 2).max())
    chance = 2 * 0.5 / np.sqrt(8 * 60 * 4 * 0.3 * 0.7)
    assert np.mean(gains) < 0.5 + chance < np.mean(seeming)


def test_the_same_rows_and_groups_choose_and_are_judged_together():
    truth, scores = two(600)
    groups = np.repeat(np.arange(60), 10)
    found = judge_rows(judge("f1"), truth, scores, blocks=groups)
    assert (found.blocks == groups).all() and len(np.unique(found.row_losses)) <= 60


def test_f1_and_balanced_accuracy_gain_and_accuracy_keeps_the_most_likely_class():
    truth, scores = two(4000, share=0.05)
    likely = scores.argmax(axis=1)
    for name in ("f1", "balanced_accuracy"):
        own = judge(name)
        assert judge_rows(own, truth, scores).value > own.value(truth, scores, likely) + 0.01
    own = judge("accuracy")
    assert judge_rows(own, truth, scores).value == pytest.approx(own.value(truth, scores, likely), abs=0.004)
    assert judge_rows(judge("roc_auc"), truth, scores).divisors == ()


def test_classes_have_offsets_of_their_own():
    draw = np.random.default_rng(0)
    truth = draw.choice(4, 2000, p=[0.7, 0.2, 0.07, 0.03])
    logits = draw.normal(size=(2000, 4)) + 1.5 * np.eye(4)[truth] + np.log([0.7, 0.2, 0.07, 0.03])
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = judge("balanced_accuracy", MULTICLASS, tuple("abcd"))
    found = judge_rows(own, truth, scores)
    assert len(found.divisors) == 4 and found.divisors[0] > found.divisors[3]
    assert found.value > own.value(truth, scores, scores.argmax(axis=1)) + 0.05


def test_a_constant_of_a_metric_of_decisions_is_its_best_class():
    truth, _ = two(500)
    assert judge_constant(judge("f1"), truth).value == reference.f1_score(truth, np.ones_like(truth))
    assert judge_constant(judge("accuracy"), truth).value == np.mean(truth == 0)
    assert judge_constant(judge("roc_auc"), truth).value == 0.5


# how far chance moves it


def test_the_jackknife_is_the_standard_error_of_a_mean_and_near_the_bootstrap_s_of_another_metric():
    truth, scores = two(1500, share=0.2)
    said = scores.argmax(axis=1)
    parts = left_out_parts(len(truth), None)
    losses = jackknifed(judge("accuracy"), truth, scores, said, None, parts)
    assert losses.mean() == pytest.approx(-np.mean(said == truth))
    right = (said == truth).astype(float)
    assert clustered_error(losses, parts) == pytest.approx(right.std() / np.sqrt(1500), rel=0.3)
    draw = np.random.default_rng(0)
    again = [
        reference.roc_auc_score(truth[rows], scores[rows, 1])
        for rows in draw.integers(1500, size=(200, 1500))
    ]
    losses = jackknifed(judge("roc_auc"), truth, scores, said, None, parts)
    assert clustered_error(losses, parts) == pytest.approx(np.std(again), rel=0.35)


def test_the_interval_of_a_metric_stays_where_the_metric_can_be():
    truth, scores = two(60, share=0.3, signal=4)
    own = judge("roc_auc")
    found = expected_value(judge_rows(own, truth, scores), own, 30)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_the_final_has_the_same_guard_under_a_metric():
    """A contender that is better in the metric wins, one that is as good does not."""
    truth, scores = two(2000, share=0.2)
    own, draw = judge("roc_auc"), np.random.default_rng(0)

    def noisy(sigma):
        logit = np.log(scores[:, 1] / scores[:, 0]) + draw.normal(0, sigma, len(truth))
        p = 1 / (1 + np.exp(-logit))
        return judge_rows(own, truth, np.column_stack([1 - p, p]))

    constant = judge_constant(own, truth)
    for better, winner in ((noisy(0.0), "trial 3"), (noisy(2.0), "recommendation")):
        losses = {"recommendation": noisy(2.0).row_losses, "trial 3": better.row_losses}
        verdict = decide(losses, "recommendation", constant.row_losses, blocks=constant.blocks)
        assert verdict.winner == winner


# numbers


def test_each_loss_of_numbers_is_least_at_its_constant_and_the_same_in_torch():
    target = np.random.default_rng(0).lognormal(size=501)
    for name, loss in NUMBER_LOSSES.items():
        task = REGRESSION.with_loss(name, 0.8)
        best = task.constant_scores(target, 0)
        least = task.row_losses(target, best).mean()
        assert all(task.row_losses(target, best + step).mean() > least for step in (-0.05, 0.05))
        missed = torch.from_numpy(best - target)
        assert np.allclose(TRAINED_LOSSES[name][0](missed, quantile=0.8), loss.rows(best - target, 0.8))
        assert pickle.loads(pickle.dumps(task)) is task
    assert REGRESSION.with_loss("mean_squared_error", 0.5) is REGRESSION
    assert REGRESSION.with_loss("cross_entropy", 0.5) is None and BINARY.with_loss("quantile", 0.5) is None


def found_boxes(images=30):
    """True boxes of two classes, and found ones: near them, elsewhere, and of the other class."""
    draw = np.random.default_rng(0)
    low = draw.uniform(0, 30, (2 * images, 2))
    corners = np.concatenate([low, low + draw.uniform(8, 20, (2 * images, 2))], axis=1)
    truth = Boxes(corners, draw.integers(0, 2, 2 * images), 2 * np.arange(1, images + 1))
    found = np.zeros((images, MOST_FOUND, 6))
    found[:, :2, :4] = corners.reshape(images, 2, 4) + draw.normal(0, 1.5, (images, 2, 4))
    found[:, 2:5, :4] = draw.uniform(0, 20, (images, 3, 4)) + np.array([0, 0, 20, 20])
    found[:, :5, 4] = draw.uniform(0.1, 1, (images, 5))
    found[:, :2, 5] = np.where(draw.random((images, 2)) < 0.8, truth.codes.reshape(images, 2), 0)
    return truth, found


def test_average_precision_of_boxes_is_that_of_the_report_and_of_one_class():
    truth, found = found_boxes()
    means = DETECTION.metrics(truth, found)
    own = matches(truth, found, 2)
    for name, threshold in (("ap50", slice(0, 1)), ("ap", slice(None))):
        judge = Judge.of(metric_of(name), DETECTION, ("a", "b"), truth)
        assert judge.value(truth, found, found) == pytest.approx(means[name]) and 0 < means[name] < 1
        one = Judge.of(metric_of(f"{name}:b"), DETECTION, ("a", "b"), truth)
        assert one.value(truth, found, found) == pytest.approx(own[1].precision()[threshold].mean())
    parts = left_out_parts(len(truth), np.arange(len(truth)) // 3)
    kept = np.flatnonzero(parts != 2)
    without = judge.values_without(truth, found, found, None, parts)
    assert without[2] == pytest.approx(judge.value(truth[kept], found[kept], found[kept]))
    assert judge_constant(judge, truth).value == 0
    assert metric_of("ap50:b").words == "AP50 of b" and metric_of("map").words == "AP50:95"
    with pytest.raises(UserError, match="ap50 does not fit a segmentation target: choose one of iou, dice"):
        check_fit(metric_of("ap50"), "segmentation", ("a", "b"))
