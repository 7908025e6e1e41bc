"""Rare classes: every treatment trains, keeps the probabilities honest, and
touches nothing but training rows."""

import numpy as np
import polars as pl
import pytest
import torch

import advisor
from advisor.dataset import Dataset, Features
from advisor.errors import UserError
from advisor.report.verdict import verdict
from advisor.rules import shipped
from advisor.runs.advice import read_run
from advisor.runs.folder import RunFolder
from advisor.runs.result import read_result
from advisor.splits import Split
from advisor.tasks import BINARY
from advisor.training.class_balance import (
    NEIGHBOURS,
    TEACHER_SHARE,
    TEACHER_TEMPERATURE,
    ClassBalance,
    Lesson,
)
from advisor.training.loop import train_epochs

KINDS = ("none", "reweight", "focal", "oversample", "noise", "smote", "classifier_retraining", "teacher")
SMALL = {
    "validation": "holdout", "epochs": 30, "patience": 30, "hidden_layers": 1, "width": 16, "numeric_embedding": "none",
    "learning_rate": 0.01, "batch_size": 64, "balance_strength": 1.0,
}  # fmt: skip
ONES = torch.ones(1, 1)


def configuration(**changes):
    return {**shipped.base_space().complete({}), **SMALL, **changes}


def rare(rows=3000, share=0.04, seed=0):
    """Two numbers; the rare class lies a little further out, so that its
    probability is never near certain."""
    draw = np.random.default_rng(seed)
    target = (draw.random(rows) < share).astype(np.int64)
    numeric = draw.normal(size=(rows, 2)) + 1.5 * target[:, None]
    features = Features(numeric, np.zeros((rows, 0), np.int32), ("a", "b"), (), ())
    return Dataset(features, target, "binary", ("common", "rare"))


def fitted(data, rows=2000, seed=0, **changes):
    split = Split(np.arange(rows), np.arange(rows, len(data)))
    run = train_epochs(configuration(**changes), data, [split], seed=seed)
    epochs = []
    while True:
        try:
            epochs.append(next(run))
        except StopIteration as end:
            return end.value, epochs


@pytest.mark.parametrize("kind", KINDS)
def test_every_treatment_trains_and_its_probabilities_are_those_of_the_data(kind):
    data = rare()
    result, epochs = fitted(data, class_balance=kind, focal_gamma=1.0)
    chance = result.held_out[:, 1]
    seen = data.target[result.held_out_rows]
    assert chance[seen == 1].mean() > 3 * chance[seen == 0].mean()
    # 4 % of the rows: equal weights would say 50 %, were they not taken into account
    assert abs(chance.mean() - seen.mean()) < (0.1 if kind == "focal" else 0.03)
    assert [epoch.number for epoch in epochs] == list(range(1, len(epochs) + 1))
    assert len(epochs) <= SMALL["epochs"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_trains_the_same_network(kind):
    data = rare(400, 0.1)
    one, other = (fitted(data, 300, class_balance=kind, epochs=3)[0].held_out for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_rows_of_a_rare_class_are_drawn_by_its_weight():
    target = torch.tensor([0] * 900 + [1] * 100)
    counts = torch.tensor([[900, 100]])
    drawn = {}
    for strength in (0.5, 1.0):
        balance = ClassBalance(
            configuration(class_balance="oversample", balance_strength=strength), counts, "cpu"
        )
        generator = torch.Generator().manual_seed(0)
        order = torch.cat([balance.order(0, target, generator) for _ in range(20)])
        drawn[strength] = float(target[order].float().mean())
    assert drawn[1.0] == pytest.approx(0.5, abs=0.02)
    assert drawn[0.5] == pytest.approx(300 / 1200, abs=0.02)  # 100 * 3 of 900 + 100 * 3


def test_without_a_treatment_an_epoch_is_a_permutation():
    balance = ClassBalance(configuration(), torch.tensor([[5, 5]]), "cpu")
    order = balance.order(0, torch.zeros(10, dtype=torch.int64), torch.Generator().manual_seed(1))
    assert sorted(order.tolist()) == list(range(10))


def test_focal_loss_is_the_formula_of_its_paper():
    out, target = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 0]])
    balance = ClassBalance(
        configuration(class_balance="focal", focal_gamma=2.0), torch.tensor([[5, 5]]), "cpu"
    )
    chance = out.softmax(dim=2)[0, :, 0]
    expected = -((1 - chance) ** 2) * chance.log()
    torch.testing.assert_close(balance.losses(out, target, 0.0)[0], expected)


def test_weights_have_a_mean_of_one_over_the_rows_and_shift_the_logits():
    counts = torch.tensor([[90, 10]])
    balance = ClassBalance(configuration(class_balance="reweight", balance_strength=1.0), counts, "cpu")
    weight = balance.log_weight[0].exp()
    assert float((counts[0] / 100 * weight).sum()) == pytest.approx(1)
    out, target = torch.zeros(1, 1, 2), torch.tensor([[1]])
    shifted = balance.log_weight[0].log_softmax(dim=0)[1]
    assert float(balance.losses(out, target, 0.0)) == pytest.approx(float(-weight[1] * shifted))


def made(kind, own, target, numeric, **changes):
    counts = torch.bincount(target[own], minlength=2).unsqueeze(0)
    balance = ClassBalance(configuration(class_balance=kind, **changes), counts, "cpu")
    start = torch.zeros(1, 1, dtype=torch.int64)
    balance.prepare([own], target, numeric, torch.zeros(len(target), 0), start)
    batch = own.unsqueeze(0)
    inputs = [numeric[own].unsqueeze(0), ONES, ONES]
    return balance.synthesize(inputs, batch, target[batch], numeric, start, torch.Generator().manual_seed(0))[
        0
    ][0]


def test_interpolated_rows_lie_between_rows_of_their_class_that_train():
    """The validating rows of the rare class lie far away: a row moved toward one of them would show it."""
    target = torch.tensor([0] * 80 + [1] * 10 + [1] * 10)
    numeric = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    numeric[80:90] += 10
    numeric[90:] += 1000
    own = torch.arange(90)
    rows = made("smote", own, target, numeric)
    assert torch.equal(rows[:80], numeric[:80])  # common rows are left as they are
    assert rows[80:].max() < 20 and rows[80:].min() > 5
    assert not torch.equal(rows[80:], numeric[80:90])
    low, high = numeric[80:90].min(dim=0).values, numeric[80:90].max(dim=0).values
    assert ((rows[80:] >= low - 1e-5) & (rows[80:] <= high + 1e-5)).all()


@pytest.mark.parametrize("few", [1, 2, NEIGHBOURS])
def test_interpolation_with_fewer_rows_than_neighbours(few):
    target = torch.tensor([0] * 30 + [1] * few)
    numeric = torch.randn(30 + few, 3, generator=torch.Generator().manual_seed(0))
    rows = made("smote", torch.arange(30 + few), target, numeric)
    assert torch.isfinite(rows).all()


def test_noise_changes_copies_of_rare_rows_alone():
    target = torch.tensor([0] * 90 + [1] * 10)
    numeric = torch.zeros(100, 2)
    rows = made("noise", torch.arange(100), target, numeric, balance_noise=0.1)
    assert torch.equal(rows[:90], numeric[:90])
    changed = rows[90:].abs().sum(dim=1) > 0
    assert 5 <= int(changed.sum()) <= 10  # of a class drawn 9 times as often, one row in 9 stays as it is
    assert float(rows.abs().max()) < 1


def test_the_head_alone_is_trained_in_the_second_stage():
    data = rare(600, 0.1)
    plain, decoupled = (
        fitted(data, 400, class_balance=kind, epochs=10)[0] for kind in ("none", "classifier_retraining")
    )
    below = [name for name in plain.state if name.startswith("blocks.")]
    assert below
    # nine of the ten epochs are those of the plain run; what lies below the head
    # can only be one of its states
    longer, _ = fitted(data, 400, class_balance="none", epochs=9)
    for name in below:
        assert torch.equal(decoupled.state[name], longer.state[name])


# ------------------------------------------------------------------------------------------------ the teacher

COUNTS = torch.tensor([[50, 3, 40, 8, 2]])
GROUPS = ([0, 2], [3, 1], [4])
"""By rows: common, medium and rare classes of COUNTS."""


def lesson_and_probabilities(rows=12):
    draw = torch.Generator().manual_seed(0)
    said = torch.randn(1, rows, 5, generator=draw, dtype=torch.float64).log_softmax(dim=2)
    lesson = Lesson(said, [torch.arange(rows)], torch.zeros(1, dtype=torch.int64), COUNTS, (3,))
    return lesson, said[0], said[0].exp().mean(dim=0)


def softened(logits, share):
    powers = (logits - np.log(share)) / TEACHER_TEMPERATURE
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_student_learns_between_groups_and_within_them_by_hand():
    """As the formula reads in NumPy: both without the teacher's shares, each group as heavy as another."""
    lesson, said, share = lesson_and_probabilities()
    out = torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p, q = softened(said.numpy(), share.numpy()), softened(out[0].numpy(), share.numpy())
    expected = np.zeros(12)
    for group in GROUPS:
        of_p, of_q = p[:, group].sum(axis=1), q[:, group].sum(axis=1)
        expected += of_p * np.log(of_p / of_q)
        inside_p, inside_q = p[:, group] / of_p[:, None], q[:, group] / of_q[:, None]
        expected += (inside_p * np.log(inside_p / inside_q)).sum(axis=1) / len(GROUPS)
    expected = 0.7 * (1 - TEACHER_SHARE) + TEACHER_SHARE * TEACHER_TEMPERATURE**2 * expected
    losses = lesson.losses(torch.full((1, 12), 0.7), out, torch.arange(12)[None])
    np.testing.assert_allclose(losses[0].numpy(), expected, atol=1e-9)


def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn():
    """So its probabilities are those of the data where the teacher's are: the shares are back in them."""
    lesson, said, _ = lesson_and_probabilities()
    out = said[None].clone().requires_grad_(True)
    losses = lesson.losses(torch.zeros(1, 12), out, torch.arange(12)[None])
    losses.sum().backward()
    np.testing.assert_allclose(losses.detach().numpy(), 0, atol=1e-9)
    np.testing.assert_allclose(out.grad.numpy(), 0, atol=1e-9)


def test_a_student_may_have_half_the_width():
    data = rare(400, 0.1)
    result, _ = fitted(data, 300, class_balance="teacher", student_width=0.5, epochs=3)
    assert result.configuration["width"] == 8 and result.state["blocks.0.linear.weight"].shape[2] == 8
    again = result.predict(data.features)[300:]
    np.testing.assert_allclose(again, result.held_out, atol=1e-6)


def test_a_teacher_trains_as_long_as_it_is_told():
    """Of rows along time, all rows train for the epochs that were best: of the student and of its teacher."""
    data = rare(400, 0.1)
    training = {"epochs": 12, "patience": 12, "class_balance": "teacher"}
    told = [
        train_epochs(
            configuration(**training), data, [Split(np.arange(400), np.arange(400))], seed=0, until=until
        )
        for until in ((5, 3), (5, 4))
    ]
    results = []
    for run in told:
        epochs = 0
        while True:
            try:
                next(run)
                epochs += 1
            except StopIteration as end:
                results.append(end.value)
                break
        assert epochs == 5
    assert [result.phases for result in results] == [((5, 3),), ((5, 4),)]
    assert not np.array_equal(results[0].held_out, results[1].held_out)


# ----------------------------------------------------------------------------------------------- the decision


def test_the_class_that_stands_out_against_its_share_is_predicted():
    chances = np.array([[0.9, 0.1], [0.97, 0.03]])
    assert BINARY.decided(chances).tolist() == [0, 0]
    assert BINARY.decided(chances, (0.95, 0.05)).tolist() == [1, 0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    data = rare(1200, 0.08)
    frame = pl.DataFrame(
        {"a": data.features.numeric[:, 0], "b": data.features.numeric[:, 1], "y": data.target}
    )
    folder = tmp_path_factory.mktemp("balance")
    plain = {"epochs": 15, "validation": "holdout"}
    usual = advisor.train(frame, "y", out=folder / "usual", fixed=plain)
    by_metric = advisor.train(frame, "y", out=folder / "metric", fixed=plain, metric="balanced_accuracy")
    by_share = advisor.train(frame, "y", out=folder / "share", fixed={**plain, "decision": "prior_corrected"})
    return frame, usual, by_metric, by_share


def test_the_most_likely_class_is_predicted_whatever_its_share(runs):
    frame, usual, *_ = runs
    assert usual.document["configuration"]["decision"] == "most_likely"
    most_likely = usual.model.predict_proba(frame).argmax(axis=1)
    np.testing.assert_array_equal(usual.model.predict(frame), usual.model.classes[most_likely])
    assert "metric" not in usual.document


def test_the_finding_on_rare_classes_says_what_other_decisions_give_and_by_which_option(runs):
    _, usual, *_ = runs
    offers = {offer["metric"]: offer for offer in usual.document["offers"]}
    assert offers["balanced_accuracy"]["value"] > offers["balanced_accuracy"]["most_likely"]
    told = " ".join(verdict(usual.report, ()))
    assert "--metric balanced_accuracy" in told
    assert f"{offers['balanced_accuracy']['threshold']:.2g}" in told


def test_a_metric_of_decisions_changes_the_decision_and_not_the_probabilities(runs):
    frame, usual, by_metric, _ = runs
    own, plain = by_metric.document, usual.document["test"]["results"][0]
    here = own["test"]["results"][0]
    assert own["configuration"]["decision"] == "for_metric" and here["loss"] == plain["loss"]
    assert here["metric"] == here["balanced_accuracy"] > plain["balanced_accuracy"]
    np.testing.assert_array_equal(by_metric.model.predict_proba(frame), usual.model.predict_proba(frame))
    threshold = own["metric"]["threshold"]
    rare_ones = by_metric.model.predict_proba(frame)[:, 1] > threshold
    np.testing.assert_array_equal(by_metric.model.predict(frame) == 1, rare_ones)
    assert own["metric"]["most_likely"] < own["metric"]["expected"]["mean"] < 1
    assert all("metric" in row for row in own["test"]["results"])
    told = " ".join(verdict(by_metric.report, ()))
    assert "balanced accuracy" in told and "log loss" not in told


def test_the_decision_is_saved_with_the_model_and_those_of_before_are_read(runs):
    frame, usual, *decided = runs
    for run in decided:
        loaded = advisor.load_model(run.folder)
        np.testing.assert_array_equal(loaded.predict(frame), run.model.predict(frame))
        assert (loaded.predict(frame) == 1).sum() > 2 * (usual.model.predict(frame) == 1).sum()
    by_share = decided[1].model
    divided = by_share.predict_proba(frame) / np.array(by_share.shares)
    np.testing.assert_array_equal(by_share.predict(frame), by_share.classes[divided.argmax(axis=1)])


def test_a_run_goes_on_with_its_metric_and_takes_no_other(runs):
    _, _, by_metric, _ = runs
    again = read_result(RunFolder(by_metric.folder))
    assert again.metric == by_metric.report.metric
    assert read_run(by_metric.folder).reading.judged_by.name == "balanced_accuracy"
    with pytest.raises(UserError, match="leave out metric"):
        advisor.train(by_metric.folder, metric="f1")


@pytest.mark.parametrize("balance", ["reweight", "teacher"])
def test_a_target_without_classes_has_none_to_balance(balance):
    data = rare(40)
    numbers = Dataset(data.features, data.target.astype(np.float64), "regression", ())
    with pytest.raises(UserError, match=f"class_balance {balance} treats rare classes, and this target has none"):
        fitted(numbers, 30, class_balance=balance, loss="mean_squared_error")
