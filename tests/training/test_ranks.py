"""Processes that share the batches of one training: what they learn together is
what one process learns alone."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import timedelta

import numpy as np
import pytest
import torch
from test_training import blobs, configured, line, mixed

from advisor.dataset import Dataset, Signals
from advisor.errors import UserError
from advisor.rules import shipped
from advisor.splits import everything, make_splits
from advisor.training.data_parallel import Ranks
from advisor.training.loop import train_epochs

WORLD = 2
ALIKE = {
    "numbers": (configured(), line),
    "classes": (configured(norm="layer", gradient_clip=0.5, l1=1e-5), mixed),
    "the head again": (configured(class_balance="classifier_retraining", epochs=12), blobs),
}
"""Nothing in them draws from chance or looks at the other rows of a batch, so
that one process and two must agree."""


def images():
    draw = np.random.default_rng(0)
    target = draw.integers(0, 2, 90)
    values = 120 + 30 * draw.normal(size=(90, 1, 8, 8)) + 30 * target[:, None, None, None]
    return Dataset(Signals(values.clip(0, 255).astype(np.uint8)), target, "binary", ("a", "b"))


def series():
    draw = np.random.default_rng(0)
    target = draw.integers(0, 2, 60)
    waves = np.sin(np.arange(24) * (0.5 + target[:, None]))[:, None]
    return Dataset(
        Signals((waves + 0.3 * draw.normal(size=(60, 1, 24))).astype(np.float32)),
        target,
        "binary",
        ("a", "b"),
    )


def family(kind, network):
    return shipped.base_space(kind).complete({"network": network, "width": 8, "epochs": 2, "batch_size": 24})


OF_IMAGES = {
    **shipped.base_space("image").complete({"width": 8, "epochs": 2, "batch_size": 24}),
    "norm": "channel", "norm_layer": "batch", "dropout": 0.2, "mixup": 0.2, "cutout": 0.25,
}  # fmt: skip
EVERY_WAY = {
    "batch norm, dropout and a last layer": (
        configured(norm="batch", dropout=0.3, numeric_embedding="piecewise_linear"),
        mixed,
    ),
    "made-up rows": (configured(class_balance="smote", numeric_embedding="periodic"), blobs),
    "images": (OF_IMAGES, images),
    **{f"{name} of images": (family("image", name), images) for name in ("efficientnet", "mixer")},
    **{
        f"{name} of series": (family("sequence", name), series)
        for name in ("inception", "mixer", "recurrent")
    },
}


def trained(configuration, data, ranks, **options):
    splits = make_splits(data, scheme="kfold", folds=2, fraction=0.2, seed=0, repeat=0)
    return run(configuration, data, splits, ranks, **options)


def run(configuration, data, splits, ranks, **options):
    epochs, losses = train_epochs(configuration, data, splits, seed=3, ranks=ranks, **options), []
    while True:
        try:
            epoch = next(epochs)
        except StopIteration as end:
            return losses, end.value
        losses.append((epoch.train_loss, epoch.validation_loss))


def everything_asked(ranks):
    told = {name: trained(c, make(), ranks) for name, (c, make) in {**ALIKE, **EVERY_WAY}.items()}
    told |= {
        f"{name} in pieces": trained(c, make(), ranks, micro_batch=5) for name, (c, make) in ALIKE.items()
    }
    data = line()
    told["all rows"] = run(configured(), data, [everything(data)], ranks, until=(2, 0))
    try:
        trained(configured(batch_size=2), blobs(rows=5), ranks)
    except UserError as error:
        told["too few rows"] = str(error)
    return told


def one_rank(rank, meeting):
    torch.set_num_threads(1)
    patience = timedelta(seconds=60)  # of one for another that has failed
    torch.distributed.init_process_group(
        "gloo", f"file://{meeting}", rank=rank, world_size=WORLD, timeout=patience
    )
    try:
        return everything_asked(Ranks(rank, WORLD))
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of the processes tells."""
    meeting = tmp_path_factory.mktemp("ranks") / "meeting"
    with ProcessPoolExecutor(WORLD, multiprocessing.get_context("spawn")) as pool:
        asked = [pool.submit(one_rank, rank, meeting) for rank in range(WORLD)]
        for future in as_completed(asked):
            future.result()
    return [future.result() for future in asked]


@pytest.mark.slow
@pytest.mark.parametrize("pieces", ["", " in pieces"])
@pytest.mark.parametrize("name", list(ALIKE))
def test_two_processes_learn_what_one_learns(together, name, pieces):
    configuration, make = ALIKE[name]
    losses, alone = trained(configuration, make(), Ranks())
    told, stack = together[0][name + pieces]
    np.testing.assert_allclose(told, losses, rtol=2e-3)
    assert stack.best_epochs == alone.best_epochs
    np.testing.assert_array_equal(stack.held_out_rows, alone.held_out_rows)
    np.testing.assert_allclose(
        stack.held_out, alone.held_out, rtol=2e-3, atol=1e-3 * np.abs(alone.held_out).max()
    )


@pytest.mark.slow
def test_all_processes_end_with_the_same_network(together):
    assert together[0].keys() == together[1].keys() >= {*EVERY_WAY, "all rows"}
    for name in {*EVERY_WAY, *ALIKE, "all rows"}:
        (losses, stack), (others_losses, others) = together[0][name], together[1][name]
        assert losses == others_losses, name
        assert stack.validation_losses == others.validation_losses, name
        assert np.isfinite(losses).all(), name
        for key, tensor in stack.state.items():
            torch.testing.assert_close(tensor, others.state[key], msg=f"{name}: {key}")
        np.testing.assert_array_equal(stack.cross_fitted, others.cross_fitted, err_msg=name)


@pytest.mark.slow
def test_two_processes_learn_with_chance_in_it(together):
    losses, _ = together[0]["images"]
    assert losses[-1][1] < np.log(2)


@pytest.mark.slow
def test_more_processes_than_rows_in_a_batch_are_refused(together):
    assert "cannot be shared by 2 processes: use a larger batch_size" in together[0]["too few rows"]
