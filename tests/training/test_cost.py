"""Predicted memory and time beside what torch keeps and counts: weights exactly,
a step within a factor of two."""

import pytest
import torch
from test_training import RANDOM, blobs, folds, mixed

from advisor.networks.cost import (
    BYTES,
    TableSize,
    multiplications_per_row,
    numbers_per_row,
    predicted_memory,
    weights,
)
from advisor.networks.tables import TableNetwork
from advisor.objectives.networks import training_work
from advisor.training.loop import train_epochs
from advisor.training.modalities import prepare
from advisor.training.preprocessing import Preprocessor

CONFIGURATIONS = [
    {},
    {"norm": "batch", "dropout": 0.2, "width": 64, "hidden_layers": 3},
    {"numeric_embedding": "piecewise_linear", "numeric_embedding_dim": 6, "numeric_embedding_bins": 9},
    {"numeric_embedding": "pbld", "numeric_embedding_dim": 12, "linear_skip": True},
    {"one_hot_max": 0, "category_embedding_dim": 5, "norm": "layer", "activation": "mish"},
    {"hidden_layers": 0},
]


def network(configuration, data):
    splits = folds(data)
    prepared = prepare(configuration, data, splits)
    bins = None
    if configuration["numeric_embedding"] == "piecewise_linear":
        bins = torch.from_numpy(Preprocessor.fit(data.features, splits[0].train, configuration).bins).float()[
            None
        ]
    outputs = max(1, len(data.classes))
    made = TableNetwork(
        configuration, prepared.shape, outputs, members=1, generator=torch.Generator(), bins=bins
    )
    return made, prepared


@pytest.mark.parametrize("changes", CONFIGURATIONS)
@pytest.mark.parametrize("data", [mixed(), blobs(classes=3)], ids=["mixed", "numbers"])
def test_the_prediction_is_near_what_torch_keeps(changes, data):
    configuration = {**RANDOM, "norm": "none", "dropout": 0.0, "linear_skip": False, **changes}
    made, prepared = network(configuration, data)
    counted = sum(parameter.numel() for parameter in made.parameters())
    table = TableSize.of(data.features, max(1, len(data.classes)))
    assert weights(configuration, table) == pytest.approx(counted, rel=0.15)

    kept, own = {}, {parameter.untyped_storage().data_ptr() for parameter in made.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    rows = 64
    batch = [t[:rows].unsqueeze(0) for t in (prepared.numeric, prepared.indicators, prepared.codes)]
    made.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made(*batch, torch.Generator()).sum()
    seen = sum(size for size, _ in kept.values()) - sum(t.untyped_storage().nbytes() for t in batch)
    assert seen < 2 * BYTES * rows * numbers_per_row(configuration, table)
    if configuration["hidden_layers"]:
        assert BYTES * rows * numbers_per_row(configuration, table) < 3 * seen


def test_memory_grows_with_what_it_should():
    table = TableSize(1000, 10, 2, (3, 40), 2)
    base = predicted_memory(RANDOM, table, 100, 5, 5)
    assert predicted_memory(RANDOM, table, 200, 5, 5) > base
    assert predicted_memory(RANDOM, table, 100, 10, 5) > base
    assert predicted_memory({**RANDOM, "width": 10 * RANDOM["width"]}, table, 100, 5, 5) > base
    assert predicted_memory({**RANDOM, "optimizer": "sgd"}, table, 100, 5, 5) < predicted_memory(
        {**RANDOM, "optimizer": "adamw"}, table, 100, 5, 5
    )


@pytest.mark.parametrize("changes", CONFIGURATIONS)
def test_multiplications_are_those_of_the_weights_that_a_row_meets(changes):
    configuration = {**RANDOM, "norm": "none", "dropout": 0.0, "linear_skip": False, **changes}
    few, many = (TableSize(1000, 10, 2, (levels,), 2) for levels in (200, 20_000))
    assert multiplications_per_row(configuration, few) <= weights(configuration, few)
    if configuration["one_hot_max"] < 200:  # an embedding is looked up, however many levels it has
        assert multiplications_per_row(configuration, few) == multiplications_per_row(configuration, many) > 0


def test_an_epochs_work_grows_with_what_it_should():
    data = blobs(classes=3)
    base = {**RANDOM, "validation": "kfold", "folds": 5, "final_members": 2, "validation_fraction": 0.2}
    trial, final = training_work(data)
    assert trial(base) < final(base) < 2 * trial(base)  # the steps are the same, with twice the rows in each
    assert trial({**base, "folds": 10}) > trial(base)
    assert trial({**base, "batch_size": base["batch_size"] // 2}) > trial(base)
    assert trial({**base, "width": 8 * base["width"]}) > trial(base)
    assert trial({**base, "validation": "holdout"}) < trial(base)
    assert trial({"another": "family"}) == 0.0


def run(configuration, data, **more):
    losses, epochs = [], train_epochs(configuration, data, folds(data), seed=0, **more)
    while True:
        try:
            losses.append(next(epochs).validation_loss)
        except StopIteration as end:
            return losses, end.value


@pytest.mark.parametrize(
    "changes", [{}, {"class_balance": "classifier_retraining"}, {"class_balance": "reweight"}]
)
@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_micro_batches_train_what_the_whole_batch_does(changes, rows):
    """C4: the same effective batch; only the order of additions differs."""
    data = blobs(classes=3)
    configuration = {**RANDOM, "norm": "layer", "dropout": 0.0, "epochs": 2, "batch_size": 32, **changes}
    whole, fitted = run(configuration, data)
    parts, pieces = run(configuration, data, micro_batch=rows)
    assert parts == pytest.approx(whole, rel=1e-3)
    assert pieces.held_out == pytest.approx(fitted.held_out, abs=2e-3)
