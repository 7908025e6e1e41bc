"""Held-out scores at epochs that other rows chose: against a plain second
implementation, and what they are good for."""

import numpy as np
import pytest
import torch

from advisor.dataset import Dataset, Features
from advisor.rules.shipped import base_space
from advisor.splits import make_splits
from advisor.training.batches import PARTS, HeldOut
from advisor.training.loop import train_epochs


def followed(losses, weight, going=None):
    """Outputs kept after epochs of losses (epochs, members, columns); an output
    is the number of its epoch, from 0."""
    kept = HeldOut(torch.from_numpy(weight))
    for epoch, own in enumerate(losses):
        alive = np.ones(len(weight), bool) if going is None else going[epoch]
        out = torch.full((*own.shape, 1), float(epoch))
        kept.update(torch.from_numpy(own), out, torch.from_numpy(alive))
    return kept.merged(torch.full((*weight.shape, 1), -1.0))[:, :, 0].numpy()


def plainly(losses, weight):
    """The same for each row by itself: the first epoch with the least mean loss
    of the member's other parts."""
    result = np.zeros(weight.shape)
    for member, column in np.ndindex(*weight.shape):
        others = np.array(
            [c % PARTS != column % PARTS and weight[member, c] > 0 for c in range(weight.shape[1])]
        )
        result[member, column] = np.argmin((losses[:, member] * weight[member])[:, others].sum(axis=1))
    return result


def test_every_row_is_scored_at_the_epoch_that_the_other_parts_chose():
    draw = np.random.default_rng(0)
    losses = draw.random((9, 3, 17))
    weight = draw.random((3, 17))
    weight[1, 12:] = 0  # a member with fewer validating rows: padding
    real = weight > 0
    assert np.array_equal(followed(losses, weight)[real], plainly(losses, weight)[real])


def test_a_row_has_no_say_in_its_own_epoch():
    draw = np.random.default_rng(1)
    losses, weight = draw.random((9, 1, 23)), np.full((1, 23), 1 / 23)
    before = followed(losses, weight)
    for column in range(23):
        changed = losses.copy()
        changed[:, 0, column] = 100 * draw.random(9)
        assert followed(changed, weight)[0, column] == before[0, column]


def test_a_member_that_has_stopped_keeps_what_it_had():
    losses = np.array([[[2.0] * 10] * 2, [[1.0] * 10] * 2])
    going = np.array([[True, True], [True, False]])
    assert followed(losses, np.full((2, 10), 0.1), going).tolist() == [[1.0] * 10, [0.0] * 10]


def test_a_single_row_chooses_for_itself_and_a_diverged_member_gets_what_it_ended_with():
    single = followed(np.array([[[3.0, 9.0]], [[1.0, 9.0]], [[2.0, 9.0]]]), np.array([[1.0, 0.0]]))
    assert single[0, 0] == 1
    assert followed(np.full((3, 1, 10), np.nan), np.full((1, 10), 0.1)).tolist() == [[-1.0] * 10]


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_on_noise_they_are_not_better_than_a_constant_where_the_best_epoch_is(task):
    """A network that begins as a constant, at the epoch that its validation rows
    like best, never loses to one."""
    ours, best, constant = [], [], []
    for seed in range(6):
        draw = np.random.default_rng(seed)
        target = draw.integers(0, 2, 80) if task == "binary" else draw.normal(size=80)
        features = Features(draw.normal(size=(80, 5)), np.zeros((80, 0), np.int32), tuple("abcde"), (), ())
        data = Dataset(features, target, task, ("no", "yes") if task == "binary" else ())
        loss = "cross_entropy" if task == "binary" else "mean_squared_error"
        asked = {"epochs": 15, "learning_rate": 0.01, "output_init": "zero", "loss": loss, "batch_size": 32}
        loop = train_epochs(
            base_space().complete(asked),
            data,
            make_splits(data, scheme="kfold", folds=5, fraction=0.2, seed=0),
            seed=0,
        )
        while True:
            try:
                next(loop)
            except StopIteration as end:
                fitted = end.value
                break
        ours.append(data.task.row_losses(target, fitted.cross_fitted).mean())
        best.append(data.task.row_losses(target, fitted.held_out).mean())
        share = np.bincount(target) / 80 if task == "binary" else target.mean()
        constant.append(
            data.task.row_losses(
                target, np.tile(share, (80, 1)) if task == "binary" else np.full(80, share)
            ).mean()
        )
    assert np.mean(best) < np.mean(constant) < np.mean(ours)
