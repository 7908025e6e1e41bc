"""Training: what is learnt, from which rows, when it stops, and that nothing outside decides about it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advisor.dataset import Dataset, Features
from advisor.networks import tables
from advisor.rules import shipped
from advisor.splits import Split, everything, make_splits
from advisor.training.loop import train_epochs
from advisor.training.modalities import prepare
from advisor.training.optimizer import learning_rate
from advisor.training.targets import squeezed, stretched

SPACE = shipped.base_space()
ROWS = 120


def configured(**changes):
    return SPACE.complete({"width": 16, "hidden_layers": 1, "epochs": 4, "batch_size": 32, **changes})


def features(numeric, codes=None):
    if codes is None:
        names = tuple(f"x{j}" for j in range(numeric.shape[1]))
        return Features(numeric, np.zeros((len(numeric), 0), np.int32), names, (), ())
    names = tuple(f"x{j}" for j in range(numeric.shape[1]))
    levels = tuple(f"level {k:02}" for k in range(12))
    return Features(numeric, codes.astype(np.int32)[:, None], names, ("c",), (levels,))


def blobs(seed=0, rows=ROWS, classes=2, noise=0.5, **more):
    """Classes that a straight line separates."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, rows)
    angle = 2 * np.pi * target / classes
    numeric = 4 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(0, noise, (rows, 2))
    task = "binary" if classes == 2 else "multiclass"
    return Dataset(
        features(numeric), target.astype(np.int64), task, tuple(str(c) for c in range(classes)), **more
    )


def mixed(seed=0, rows=ROWS, classes=3):
    """Numbers with missing values, and a column of twelve levels."""
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(rows, 3))
    numeric[rng.random(numeric.shape) < 0.1] = np.nan
    target = rng.integers(0, classes, rows)
    codes = np.where(rng.random(rows) < 0.7, target * 4, rng.integers(-1, 12, rows))
    return Dataset(features(numeric, codes), target.astype(np.int64), "multiclass", tuple("abc"[:classes]))


def line(seed=0, rows=ROWS, slope=1000.0, offset=5e4, noise=0.1, **more):
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(rows, 2))
    target = slope * (numeric @ [1.0, -2.0] + rng.normal(0, noise, rows)) + offset
    return Dataset(features(numeric), target, "regression", **more)


def folds(data, count=3, seed=0):
    return make_splits(data, scheme="kfold", folds=count, fraction=0.2, seed=seed)


def holdout(data, fraction=0.25):
    return make_splits(data, scheme="holdout", folds=5, fraction=fraction, seed=0)


def run(configuration, data, splits=None, seed=0, **more):
    epochs, generator = [], train_epochs(configuration, data, splits or folds(data), seed=seed, **more)
    while True:
        try:
            epochs.append(next(generator))
        except StopIteration as end:
            return epochs, end.value


def equal(one, other):
    return (
        all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())
        and np.array_equal(one.held_out, other.held_out)
        and one.validation_losses == other.validation_losses
    )


def weights(fitted):
    return torch.cat([t.flatten() for name, t in fitted.state.items() if name.endswith("linear.weight")])


# What is learnt


SENSIBLE = {
    "adamw": 0.02,
    "adam": 0.02,
    "nadam": 0.02,
    "rmsprop": 0.005,
    "adagrad": 0.1,
    "adadelta": 1.0,
    "sgd": 0.05,
}


@pytest.mark.parametrize("optimizer", SPACE.parameters["optimizer"].choices)
def test_every_optimizer_learns_separable_classes(optimizer):
    data = blobs()
    c = configured(optimizer=optimizer, epochs=30, patience=30)
    epochs, fitted = run(c | {"learning_rate": SENSIBLE[optimizer]}, data)
    assert epochs[-1].train_loss < 0.12
    assert max(fitted.validation_losses) < 0.15
    assert np.mean(fitted.predict(data.features).argmax(axis=1) == data.target) > 0.98


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_line_is_learnt_in_the_unit_of_the_target(optimizer):
    data = line()
    epochs, fitted = run(
        configured(optimizer=optimizer, learning_rate=0.03, epochs=40, hidden_layers=0), data
    )
    variance = data.target.var()
    assert variance > 4e6
    assert np.mean(np.square(fitted.predict(data.features) - data.target)) < 0.02 * variance
    assert epochs[0].validation_loss > epochs[-1].validation_loss
    assert 0.1**2 * 1e6 * 0.5 < epochs[-1].validation_loss < 0.02 * variance
    assert epochs[-1].train_loss == pytest.approx(epochs[-1].validation_loss, rel=1.0)


@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
@pytest.mark.parametrize("one_hot_max", [2, 32])
def test_categories_and_missing_values_are_learnt_from(embedding, one_hot_max):
    data = mixed()
    c = configured(
        numeric_embedding=embedding, one_hot_max=one_hot_max, epochs=15, learning_rate=0.02, norm="layer"
    )
    _, fitted = run(c, data)
    assert max(fitted.validation_losses) < 0.9 * math.log(3)


def test_a_network_learns_what_a_line_cannot():
    rng = np.random.default_rng(0)
    numeric = rng.uniform(-1, 1, (400, 2))
    data = Dataset(
        features(numeric), (numeric[:, 0] * numeric[:, 1] > 0).astype(np.int64), "binary", ("0", "1")
    )
    c = configured(width=64, hidden_layers=2, learning_rate=0.02, epochs=25, patience=25)
    assert max(run(c, data, holdout(data))[1].validation_losses) < 0.3
    assert min(run(c | {"hidden_layers": 0}, data, holdout(data))[1].validation_losses) > 0.6


def test_the_first_loss_is_that_of_the_class_shares_with_a_zero_head():
    data = mixed()
    c = configured(output_init="zero", learning_rate=1e-4, epochs=1) | {"learning_rate": 0.0}
    epochs, fitted = run(c, data)
    shares = [np.bincount(data.target[s.train], minlength=3) + 1 for s in folds(data)]
    expected = [
        -np.log(share / share.sum())[data.target[split.validation]].mean()
        for share, split in zip(shares, folds(data), strict=True)
    ]
    assert fitted.validation_losses == pytest.approx(expected, rel=1e-5)
    assert epochs[0].train_loss == pytest.approx(math.log(3), rel=0.02)


def test_the_unit_of_the_target_changes_the_losses_and_nothing_else():
    """Metamorphic: y -> 1000 y + 7 gives the same networks, and losses a million times as large."""
    data = line(slope=1.0, offset=0.0)
    scaled = Dataset(data.features, 1000 * data.target + 7, "regression")
    (epochs, one), (other_epochs, other) = run(configured(), data), run(configured(), scaled)
    for e, o in zip(epochs, other_epochs, strict=True):
        assert o.train_loss == pytest.approx(1e6 * e.train_loss, rel=1e-3)
        assert o.validation_loss == pytest.approx(1e6 * e.validation_loss, rel=1e-3)
    assert other.held_out == pytest.approx(1000 * one.held_out + 7, rel=1e-3, abs=1.0)


def test_the_training_loss_is_in_the_unit_of_each_split():
    """Splits whose targets spread differently: a mean of the units would not do."""
    data = line(slope=1.0, offset=0.0, rows=80)
    stretched = Dataset(data.features, np.where(np.arange(80) < 40, 1.0, 100.0) * data.target, "regression")
    low, high = np.arange(40), np.arange(40, 80)
    splits = [Split(low, high), Split(high, low)]
    c = configured(learning_rate=1e-4, epochs=1, output_init="zero") | {"learning_rate": 0.0}
    epochs, _ = run(c, stretched, splits)
    # at zero each network predicts its training mean: its loss is the variance of its training rows
    expected = np.mean([stretched.target[rows].var() for rows in (low, high)])
    assert epochs[0].train_loss == pytest.approx(expected, rel=0.05)


# Determinism


RANDOM = configured(dropout=0.3, norm="batch", numeric_embedding="periodic", one_hot_max=2)


@pytest.mark.parametrize(
    "configuration", [RANDOM, configured(optimizer="nadam", numeric_embedding="piecewise_linear")]
)
def test_a_seed_decides_everything(configuration):
    data = mixed()
    (epochs, one), (again, other) = run(configuration, data), run(configuration, data)
    assert epochs == again
    assert equal(one, other)
    assert not equal(one, run(configuration, data, seed=1)[1])


def test_global_generators_are_neither_read_nor_moved():
    data = mixed()
    results = []
    with torch.random.fork_rng():
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)
            before = torch.get_rng_state(), np.random.get_state()[1].copy()
            results.append(run(RANDOM, data)[1])
            results[-1].predict(data.features)
            assert torch.equal(before[0], torch.get_rng_state())
            assert np.array_equal(before[1], np.random.get_state()[1])
    assert equal(*results)


def test_two_trainings_that_take_turns_do_not_disturb_each_other():
    """The generators of one process are asked epoch by epoch, in any order."""
    data = mixed()
    alone = run(RANDOM, data)[0]
    first, second = (train_epochs(RANDOM, data, folds(data), seed=seed) for seed in (0, 1))
    turns = [(next(first), next(second)) for _ in range(RANDOM["epochs"])]
    assert [turn[0] for turn in turns] == alone


def test_threads_settings_and_arguments_are_left_alone():
    data, configuration, threads = mixed(), dict(RANDOM), torch.get_num_threads()
    target, numeric = data.target.copy(), data.features.numeric.copy()
    for array in (data.target, data.features.numeric, data.features.categorical):
        array.flags.writeable = False  # as Ray hands arrays over
    run(configuration, data)
    assert torch.get_num_threads() == threads
    assert configuration == RANDOM
    assert np.array_equal(data.target, target)
    assert np.array_equal(data.features.numeric, numeric, equal_nan=True)


def test_prepared_inputs_change_nothing():
    data = mixed()
    prepared = prepare(RANDOM, data, folds(data))
    assert equal(run(RANDOM, data)[1], run(RANDOM, data, prepared=prepared)[1])
    assert equal(run(RANDOM, data)[1], run(RANDOM, data, prepared=prepared)[1])  # and it was not used up


def test_memory_limits_change_nothing_but_rounding(monkeypatch):
    data = mixed()
    _, whole = run(RANDOM, data)
    predicted = whole.predict(data.features)
    monkeypatch.setattr(tables, "EVALUATION_ROWS", 7)
    _, pieces = run(RANDOM, data)
    assert pieces.held_out == pytest.approx(whole.held_out, abs=1e-5)
    assert pieces.predict(data.features) == pytest.approx(predicted, abs=1e-5)


# Which rows


def splits_of_every_kind():
    rng = np.random.default_rng(0)
    groups = rng.choice(7, ROWS, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    times = rng.integers(0, 15, ROWS)
    for name, data in {
        "classes": blobs(classes=3),
        "regression": line(),
        "groups": blobs(classes=3, groups=groups),
        "times": blobs(classes=3, times=times),
        "regression in time": line(times=times),
    }.items():
        for scheme in ("kfold", "holdout"):
            splits = make_splits(data, scheme=scheme, folds=4, fraction=0.3, seed=0)
            yield pytest.param(data, splits, id=f"{name}, {scheme}")


@pytest.mark.parametrize(("data", "splits"), list(splits_of_every_kind()))
def test_the_held_out_rows_are_the_validation_rows_and_their_loss_is_the_best_one(data, splits):
    """A held-out score is the mean of the members that validated on the row: with
    one per split, the best loss again."""
    _, fitted = run(configured(epochs=3, learning_rate=0.01), data, splits)
    assert fitted.held_out_rows.tolist() == sorted(row for split in splits for row in split.validation)
    losses = data.task.row_losses(data.target[fitted.held_out_rows], fitted.held_out)
    for split, reported in zip(splits, fitted.validation_losses, strict=True):
        own = losses[np.isin(fitted.held_out_rows, split.validation)].mean()
        if not data.task.of_classes:
            assert own <= reported * (
                1 + 1e-4
            )  # predictions end at the range of the training target, see below
            assert own > 0.5 * reported
        else:
            assert own == pytest.approx(reported, rel=1e-4)


@pytest.mark.parametrize("data", [mixed(), line()], ids=["classes", "regression"])
def test_a_validation_row_has_no_part_in_its_own_held_out_score(data):
    """D4 from end to end: wild features and another target leave the networks
    that judge the row as they were."""
    splits = folds(data)
    changed = splits[0].validation
    numeric, target = data.features.numeric.copy(), data.target.copy()
    numeric[changed[1:]] = 1e6
    target[changed] = target[changed] * 50 if not data.task.of_classes else (target[changed] + 1) % 3
    codes = data.features.categorical
    other = Dataset(
        features(numeric, codes[:, 0] if codes.shape[1] else None), target, data.task, data.classes
    )
    c = configured(epochs=1, learning_rate=0.01)  # one epoch: nothing is chosen by the validation loss
    one, two = run(c, data, splits)[1], run(c, other, splits)[1]
    for name, tensor in one.state.items():
        assert torch.equal(tensor[0], two.state[name][0]), name
    place = list(one.held_out_rows).index(changed[0])
    assert np.array_equal(one.held_out[place], two.held_out[place])
    assert not np.array_equal(one.held_out, two.held_out)


def test_members_of_a_split_are_averaged_and_differ():
    data = mixed()
    splits = folds(data)
    _, fitted = run(configured(), data, splits, members=2)
    assert fitted.member_split == (0, 0, 1, 1, 2, 2)
    weight = fitted.state["head.weight"]
    assert not torch.equal(weight[0], weight[1])
    inside = fitted.held_out_rows[np.isin(fitted.held_out_rows, splits[1].validation)]
    network = fitted.network("cpu")
    prepared = prepare(configured(), data, splits)
    index = torch.from_numpy(inside) + len(data)
    inputs = [t[index].expand(6, -1, -1) for t in (prepared.numeric, prepared.indicators, prepared.codes)]
    with torch.no_grad():
        expected = network(*inputs)[2:4].double().softmax(dim=2).mean(dim=0).numpy()
    assert fitted.held_out[np.isin(fitted.held_out_rows, inside)] == pytest.approx(expected, abs=1e-6)
    assert fitted.held_out.sum(axis=1) == pytest.approx(1.0)


def test_members_train_as_they_would_alone_whatever_their_neighbours_do():
    """A neighbour on other rows changes member 0 through the random numbers only: give it none to draw."""
    data = line(rows=40)
    split, other = folds(data, 4)[0], folds(data, 4)[1]
    c = configured(output_init="zero", hidden_layers=0, batch_size=64, gradient_clip=0.5, epochs=5)
    alone = run(c, data, [split])[1]
    together = run(c, data, [split, other])[1]
    assert torch.allclose(alone.state["head.weight"][0], together.state["head.weight"][0], atol=1e-6)
    wild = Dataset(
        data.features, np.where(np.isin(np.arange(40), split.validation), 1e9, data.target), "regression"
    )
    beside_wild = run(c, wild, [split, other])[1]
    assert torch.allclose(alone.state["head.weight"][0], beside_wild.state["head.weight"][0], atol=1e-6)


def test_predictions_stay_within_the_range_of_each_members_training_target():
    data = line(noise=0.0)
    _, fitted = run(configured(epochs=30, learning_rate=0.03, hidden_layers=0), data, holdout(data))
    far = features(np.array([[1e6, -1e6], [-1e6, 1e6]]))
    trained = data.target[holdout(data)[0].train]
    assert fitted.predict(far) == pytest.approx([trained.max(), trained.min()])


def test_new_rows_are_predicted_one_by_one_and_none_gives_none():
    data = mixed()
    _, fitted = run(RANDOM, data)
    whole = fitted.predict(data.features)
    assert whole.shape == (ROWS, 3)
    assert whole.sum(axis=1) == pytest.approx(1.0)
    part = features(data.features.numeric[5:7], data.features.categorical[5:7, 0])
    assert fitted.predict(part) == pytest.approx(whole[5:7], abs=1e-6)
    none = features(data.features.numeric[:0], data.features.categorical[:0, 0])
    assert fitted.predict(none).shape == (0, 3)
    assert run(configured(epochs=1), line())[1].predict(features(np.zeros((0, 2)))).shape == (0,)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("rows", [2, 3, 33, 65])
def test_any_number_of_rows_trains_also_in_batches_of_one(norm, rows):
    data = line(rows=rows)
    splits = [Split(np.arange(rows - 1), np.array([rows - 1]))]
    for batch_size in (1, 32, 2048):
        c = configured(norm=norm, epochs=2) | {"batch_size": batch_size}
        epochs, fitted = run(c, data, splits)
        assert all(math.isfinite(e.train_loss) and math.isfinite(e.validation_loss) for e in epochs)
        assert np.isfinite(fitted.predict(data.features)).all()


def test_constant_targets_and_constant_features_train():
    constant = Dataset(features(np.ones((20, 2))), np.full(20, 3.0), "regression")
    assert run(configured(epochs=2), constant)[1].predict(constant.features) == pytest.approx(3.0)
    one_class = Dataset(features(np.ones((20, 2))), np.zeros(20, np.int64), "binary", ("0", "1"))
    _, fitted = run(configured(epochs=2), one_class)
    assert np.isfinite(fitted.validation_losses).all()


def test_tables_without_numbers_or_with_nothing_but_missing_values_train():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 40).astype(np.int64)
    for data in (features(np.zeros((40, 0)), target * 3), features(np.full((40, 1), np.nan))):
        for embedding in ("none", "piecewise_linear", "periodic"):
            for one_hot_max in (2, 32):
                c = configured(epochs=1, numeric_embedding=embedding, one_hot_max=one_hot_max)
                _, fitted = run(c, Dataset(data, target, "binary", ("0", "1")))
                assert np.isfinite(fitted.predict(data)).all()


# When it stops


def test_epochs_are_counted_from_one_and_all_of_them_run_without_early_stopping():
    epochs, fitted = run(configured(epochs=6, patience=100), blobs())
    assert [e.number for e in epochs] == [1, 2, 3, 4, 5, 6]
    assert all(1 <= best <= 6 for best in fitted.best_epochs)


def noise(seed=0):
    """Nothing to learn: the validation loss rises after a few epochs."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, 60).astype(np.int64)
    return Dataset(features(rng.normal(size=(60, 8))), target, "binary", ("0", "1"))


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_when_the_validation_loss_has_not_improved_for_patience_epochs(patience):
    c = configured(epochs=60, patience=patience, learning_rate=0.05, width=64)
    epochs, fitted = run(c, noise(), holdout(noise()))
    losses = [e.validation_loss for e in epochs]
    best = int(np.argmin(losses)) + 1
    assert len(epochs) == best + patience < 60
    assert fitted.best_epochs == (best,)
    assert fitted.validation_losses == pytest.approx((min(losses),))


def test_each_member_keeps_the_weights_of_its_own_best_epoch():
    """Against trainings that end there: an epoch's weights do not depend on how many are to follow."""
    data = noise()
    c = configured(epochs=12, patience=12, learning_rate=0.05, width=32, norm="batch", dropout=0.1)
    _, fitted = run(c, data)
    assert len(set(fitted.best_epochs)) > 1
    assert max(fitted.best_epochs) < 12
    for member, best in enumerate(fitted.best_epochs):
        _, short = run(c | {"epochs": best}, data)
        for name, tensor in fitted.state.items():
            assert torch.equal(tensor[member], short.state[name][member]), name


def test_the_last_epochs_weights_are_not_the_ones_that_are_kept():
    data = noise()
    c = configured(epochs=12, patience=12, learning_rate=0.05, width=64)
    epochs, fitted = run(c, data, holdout(data))
    held_out = data.task.row_losses(data.target[fitted.held_out_rows], fitted.held_out).mean()
    assert held_out == pytest.approx(min(e.validation_loss for e in epochs), rel=1e-5)
    assert held_out < 0.95 * epochs[-1].validation_loss


def test_a_member_that_has_stopped_stays_stopped_while_its_neighbours_train_on():
    data = noise()
    c = configured(epochs=40, patience=2, learning_rate=0.02, width=32)
    epochs, fitted = run(c, data)
    assert len(epochs) == max(fitted.best_epochs) + 2
    long = run(c | {"patience": 40}, data)[1]
    for own, other in zip(fitted.validation_losses, long.validation_losses, strict=True):
        assert own >= other


@pytest.mark.parametrize("data", [blobs(), line()], ids=["classes", "regression"])
@pytest.mark.parametrize("optimizer", SPACE.parameters["optimizer"].choices)
def test_a_rate_of_a_million_is_no_exception(data, optimizer):
    c = configured(optimizer=optimizer, hidden_layers=2) | {"learning_rate": 1e6}
    epochs, fitted = run(c, data)
    assert epochs
    assert not any(math.isnan(e.validation_loss) for e in epochs)
    assert np.isfinite(fitted.held_out).all()


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("embedding", ["none", "periodic"])
def test_divergence_ends_the_training_with_an_infinite_loss(clip, embedding):
    c = configured(
        optimizer="sgd", hidden_layers=4, epochs=50, gradient_clip=clip, l1=1e-3, numeric_embedding=embedding
    )
    epochs, fitted = run(c | {"learning_rate": 1e30}, line())
    assert epochs[-1].validation_loss == math.inf
    assert len(epochs) < 50
    assert np.isfinite(fitted.held_out).all()
    assert all(torch.isfinite(tensor).all() for tensor in fitted.state.values())


# Penalties


def test_l1_gives_exact_zeros_and_more_of_them_the_stronger_it_is():
    data = mixed()
    zeros = []
    c = configured(optimizer="sgd", learning_rate=0.1, epochs=15, patience=15)
    for l1 in (0.0, 0.01, 0.1):
        zeros.append(int((weights(run(c | {"l1": l1}, data)[1]) == 0).sum()))
    assert zeros[0] == 0 < zeros[1] < zeros[2]


def test_l1_is_the_proximal_step():
    """A rate of r and a penalty of l shrink a weight without gradient by r l
    towards zero, and never past it."""
    data = line()
    base = configured(optimizer="sgd", momentum=0.0, epochs=1, batch_size=2048, learning_rate=0.1)
    plain, shrunk = (weights(run(base | {"l1": l1}, data, holdout(data))[1]) for l1 in (0.0, 0.5))
    expected = plain.sign() * (plain.abs() - 0.1 * 0.5).clamp(min=0)
    assert torch.allclose(shrunk, expected, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "nadam"])
def test_factors_of_columns_learn_so_many_times_faster(optimizer):
    data = line()
    one_step = configured(
        optimizer=optimizer, epochs=1, batch_size=2048, learning_rate=1e-3, weight_decay=0.1, l1=1e-3
    )
    fitted = [
        run(one_step | {"column_scale_rate": rate}, data, holdout(data))[1].state for rate in (5.0, 50.0)
    ]
    slow, fast = (state.pop("scale.factor") - 1 for state in fitted)
    assert (slow != 0).all() and torch.allclose(fast, 10 * slow, rtol=1e-4), "neither shrunk by a penalty"
    assert all(torch.equal(fitted[0][name], fitted[1][name]) for name in fitted[0]), (
        "the weights at their own rate"
    )


@pytest.mark.parametrize("embedding", ["none", "piecewise_linear"])
def test_columns_of_noise_get_smaller_factors_and_cost_less(embedding):
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(300, 23))
    data = Dataset(features(numeric), np.sin(2 * numeric[:, 0]) + numeric[:, 1] * numeric[:, 2], "regression")
    c = configured(numeric_embedding=embedding, learning_rate=3e-3, epochs=100, patience=20, width=64)
    plain, scaled = (run(c | {"column_scale_rate": rate}, data)[1] for rate in (0.0, 30.0))
    assert np.mean(scaled.validation_losses) < 0.9 * np.mean(plain.validation_losses)
    factors = scaled.state["scale.factor"].abs().squeeze(1)
    assert (factors[:, :3].mean(dim=1) > 1.5 * factors[:, 3:].mean(dim=1)).all()


@pytest.mark.parametrize("optimizer", SPACE.parameters["optimizer"].choices)
def test_weight_decay_shrinks_the_weights(optimizer):
    data = mixed()
    c = configured(optimizer=optimizer, epochs=10, patience=10, learning_rate=0.01)
    free, decayed = (float(weights(run(c | {"weight_decay": decay}, data)[1]).norm()) for decay in (0.0, 5.0))
    assert decayed < 0.9 * free


@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "sgd"])
def test_weight_decay_is_decoupled(optimizer):
    """One step: the weights of a step without decay, times 1 - rate x decay. Biases have none."""
    data = line()
    c = configured(optimizer=optimizer, epochs=1, batch_size=2048, learning_rate=0.1)
    plain, decayed = (run(c | {"weight_decay": decay}, data, holdout(data))[1] for decay in (0.0, 0.5))
    assert torch.allclose(weights(decayed), weights(plain) * (1 - 0.1 * 0.5), atol=1e-6)
    for name, tensor in plain.state.items():
        if name.endswith("bias"):
            assert torch.equal(tensor, decayed.state[name])


def test_clipping_bounds_the_step_of_each_member():
    data = line()
    c = configured(optimizer="sgd", momentum=0.0, epochs=1, batch_size=2048, learning_rate=0.1)
    start, free, clipped = (
        run(c | {"gradient_clip": clip, "learning_rate": rate}, data)[1]
        for clip, rate in ((0.0, 0.0), (0.0, 0.1), (0.1, 0.1))
    )

    def steps(fitted):
        return torch.cat([(t - start.state[n]).flatten(1) for n, t in fitted.state.items()], dim=1)

    assert (steps(free).norm(dim=1) > 0.02).all()
    assert steps(clipped).norm(dim=1) == pytest.approx([0.01] * 3, rel=1e-3)
    cosine = torch.cosine_similarity(steps(free), steps(clipped), dim=1)
    assert torch.allclose(cosine, torch.ones(3), atol=1e-5)


def test_label_smoothing_is_in_the_training_loss_alone():
    data = blobs()
    c = configured(learning_rate=0.05, epochs=20, patience=20)
    smooth, plain = run(c | {"label_smoothing": 0.2}, data), run(c, data)
    floor = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert smooth[0][-1].train_loss > 0.95 * floor > 2 * smooth[0][-1].validation_loss
    assert plain[0][-1].train_loss < 0.05
    assert smooth[1].predict(data.features).max() < 0.99


# The schedule


def rates(total=1000, **changes):
    return [learning_rate(configured(learning_rate=0.1, **changes), step, total) for step in range(total)]


def test_a_constant_rate_is_constant_and_a_warm_up_rises_to_it():
    assert set(rates()) == {0.1}
    warm = rates(warmup=0.1)
    assert set(warm[100:]) == {0.1}
    assert (np.diff(warm[:101]) > 0).all()
    assert np.allclose(np.diff(warm[:100]), np.diff(warm)[0])
    assert 0 < warm[0] < 0.002


@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_cosine_falls_from_the_peak_to_almost_zero(warmup):
    values = rates(schedule="cosine", warmup=warmup)
    first = int(1000 * warmup)
    assert max(values) == values[first] == pytest.approx(0.1)
    assert (np.diff(values[first:]) < 0).all()
    assert 0 < values[-1] < 1e-6
    assert values[(1000 + first) // 2] == pytest.approx(0.05)


def test_one_cycle_rises_to_its_peak_and_falls_below_where_it_began():
    values = rates(schedule="one_cycle")
    assert values[0] == pytest.approx(0.1 / 25)
    assert int(np.argmax(values)) == 300
    assert max(values) == pytest.approx(0.1)
    assert (np.diff(values[:301]) > 0).all()
    assert (np.diff(values[300:]) < 0).all()
    assert 0.1 / 1e4 < values[-1] < 0.1 / 9e3


@pytest.mark.parametrize("total", [1, 2, 7])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_rates_of_the_shortest_trainings_are_above_zero_and_not_above_the_peak(total, schedule, warmup):
    assert all(0 < rate <= 0.1 * (1 + 1e-12) for rate in rates(total, schedule=schedule, warmup=warmup))
    for step in range(total):
        c = configured(learning_rate=0.1) | {"schedule": schedule, "warmup": warmup}
        assert 0 < learning_rate(c, step, total) <= 0.1 * (1 + 1e-12)


def test_the_schedule_is_what_the_optimizer_runs_with():
    """SGD without momentum moves by rate x gradient: with a rate of zero after
    the first step nothing moves."""
    data = line()
    c = configured(
        optimizer="sgd", momentum=0.0, epochs=1, batch_size=2048, learning_rate=0.1, hidden_layers=0
    )
    start, plain, cycle = (
        run(c | changes, data, holdout(data))[1].state["head.weight"]
        for changes in ({"learning_rate": 0.0}, {}, {"schedule": "one_cycle"})
    )
    assert torch.allclose((plain - start) / 25, cycle - start, atol=1e-6)  # one_cycle begins at peak / 25


# ------------------------------------------------------------------------------------------ a squeezed target


@given(st.floats(-1e12, 1e12), st.sampled_from([0.0, 1e-3, 1.0, 250.0]))
def test_a_squeezed_target_comes_back(value, knee):
    values, at = torch.tensor([[value]], dtype=torch.float64), torch.tensor([[knee]], dtype=torch.float64)
    assert float(stretched(squeezed(values, at), at)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_a_target_over_many_magnitudes_is_learned_as_its_logarithm():
    """Losses are those of the plain target either way."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(600, 2)).clip(-1.5, 1.5)
    x[:2] = [[1.5, 1], [1.5, -1]]  # the training rows hold the extremes, within which predictions are kept
    target = np.exp(3 * x[:, 0]) * np.sign(x[:, 1])
    data = Dataset(features(x), target, "regression")
    split = [Split(np.arange(400), np.arange(400, 600))]
    errors = {}
    for kind in ("none", "log"):
        config = configured(target_transform=kind, epochs=40, learning_rate=0.01)
        epochs, fitted = run(config, data, split)
        missed = fitted.held_out - target[fitted.held_out_rows]
        errors[kind] = np.median(np.abs(missed))
        assert np.square(missed).mean() <= min(epoch.validation_loss for epoch in epochs) * 1.01
        np.testing.assert_allclose(
            fitted.predict(data.features)[fitted.held_out_rows], fitted.held_out, rtol=1e-4, atol=1e-4
        )
    assert errors["log"] < errors["none"]


# Trained again on all rows


def test_training_until_an_epoch_ends_there_with_the_last_weights():
    data = blobs(noise=2.0)
    c = configured(epochs=30, patience=2)
    whole = [everything(data)]
    epochs, fitted = run(c, data, whole, members=2, until=(7, 0))
    assert [epoch.number for epoch in epochs] == list(range(1, 8)) and fitted.best_epochs == (7, 7)
    longer, later = run(c, data, whole, members=2, until=(8, 0))
    assert [epoch.train_loss for epoch in longer[:7]] == [epoch.train_loss for epoch in epochs], (
        "on the schedule of the plan"
    )
    assert later.best_epochs == (8, 8) and not torch.equal(weights(fitted), weights(later))


def test_a_head_that_was_trained_alone_is_so_again():
    """Regression: with classifier_retraining the model of rows along time lost its treatment of rare classes."""
    rng = np.random.default_rng(0)
    data = blobs(noise=3.0)
    rare = np.concatenate(
        [np.flatnonzero(data.target == 0), rng.permutation(np.flatnonzero(data.target == 1))[:12]]
    )
    data = Dataset(features(data.features.numeric[rare]), data.target[rare], "binary", data.classes)
    c = configured(epochs=30, patience=30, class_balance="classifier_retraining")
    _, judged = run(c, data, folds(data))
    assert all(
        whole + head == best
        for (whole, head), best in zip(judged.phases, judged.best_epochs, strict=True)
        if not head
    )
    epochs, fitted = run(c, data, [everything(data)], until=(5, 3))
    assert len(epochs) == 8 and fitted.phases == ((5, 3),)
    _, without = run(c, data, [everything(data)], until=(5, 0))
    moved = {name for name, tensor in fitted.state.items() if not torch.equal(tensor, without.state[name])}
    assert moved and all(name.startswith(("output", "head", "linear_skip")) for name in moved), moved


def test_what_diverges_on_all_rows_keeps_its_last_finite_weights():
    data = line()
    c = configured(epochs=30, optimizer="sgd", gradient_clip=0.0, schedule="constant", warmup=0.0) | {
        "learning_rate": 1e6
    }
    _, fitted = run(c, data, [everything(data)], until=(20, 0))
    assert all(torch.isfinite(tensor).all() for tensor in fitted.state.values())


def test_all_rows_train_when_nothing_validates():
    data = blobs()
    split = everything(data)
    assert list(split.train) == list(range(ROWS)) and len(split.validation) == 1
