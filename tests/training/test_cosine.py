"""A cosine classifier: what it computes, what it tells beside, and classes added without training."""

import numpy as np
import pytest
import torch
from test_training import blobs, configured, folds, line, run
from torch.nn import functional as F

from advisor.dataset import Dataset, Signals
from advisor.errors import UserError
from advisor.networks.cosine import CosineNetwork
from advisor.rules import shipped
from advisor.training.loop import Fitted
from advisor.training.targets import ClassTarget

COSINE = {"classifier": "cosine", "embedding_dim": 16, "epochs": 12, "learning_rate": 0.01}


def trained(classes=4, noise=0.5, seed=0, **changes) -> tuple[Dataset, Fitted]:
    data = blobs(seed, 160, classes, noise)
    return data, run(configured(**COSINE, **changes), data, folds(data))[1]


def test_the_training_loss_is_that_of_cosface_in_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    draw = torch.Generator().manual_seed(0)
    embedded, directions = torch.randn(10, 16, generator=draw), torch.randn(16, 5, generator=draw)
    target = torch.randint(5, (10,), generator=draw)
    oracle = losses.CosFaceLoss(num_classes=5, embedding_size=16, margin=0.2, scale=12.0)
    oracle.W.data = directions
    own = _losses(embedded, directions, target, cosine_margin=0.2, cosine_scale=12.0)
    torch.testing.assert_close(own.mean(), oracle(embedded, target))


def test_the_training_loss_by_hand():
    """CosFace: minus log softmax of scale (cosine - margin of the true class)."""
    draw = np.random.default_rng(0)
    embedded, directions, target = (
        draw.normal(size=(6, 16)),
        draw.normal(size=(16, 4)),
        draw.integers(0, 4, 6),
    )
    unit = lambda x, axis: x / np.linalg.norm(x, axis=axis, keepdims=True)  # noqa: E731
    logits = 10.0 * (unit(embedded, 1) @ unit(directions, 0) - 0.3 * np.eye(4)[target])
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), target]
    arrays = (torch.from_numpy(array).float() for array in (embedded, directions))
    own = _losses(*arrays, torch.from_numpy(target), cosine_margin=0.3, cosine_scale=10.0)
    np.testing.assert_allclose(own.numpy(), expected, rtol=1e-5)


def _losses(embedded, directions, target, **changes):
    """Of the product's network and target, on given embeddings and directions."""
    c = configured(**{**COSINE, **changes}, prototypes="learned")
    network = CosineNetwork(c, _Given(16), directions.shape[1], members=1, generator=torch.Generator())
    network.weight.data = directions[None]
    classes = tuple(str(code) for code in range(directions.shape[1]))
    data = Dataset(Signals(np.zeros((len(target), 1, 4), np.float32)), target.numpy(), "multiclass", classes)
    learnt = ClassTarget(c, data, folds(data, 2)[:1], "cpu")
    with torch.no_grad():
        return learnt.training_losses(network(embedded[None]), target[None], 0.0)[0]


class _Given(torch.nn.Module):
    """Stands for a network whose outputs are given."""

    def __init__(self, width):
        super().__init__()
        self.head = torch.nn.Parameter(torch.zeros(1, 4, width))

    def forward(self, x):
        return x

    def head_parameters(self):
        return [self.head]


@pytest.mark.parametrize("prototypes", ["learned", "class_means"])
def test_it_learns_and_tells_what_is_near(prototypes):
    data, fitted = trained(prototypes=prototypes)
    assert (fitted.held_out.argmax(axis=1) == data.target[fitted.held_out_rows]).mean() > 0.95
    assert fitted.recall_at_1 > 0.95
    lengths = np.linalg.norm(fitted.embeddings(data.features).numpy(), axis=2)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    assert fitted.similarity.shape == fitted.held_out_rows.shape
    assert fitted.similarity.mean() > (0.8 if prototypes == "class_means" else 0.4)


def test_rows_between_the_classes_resemble_none_of_them():
    _, fitted = trained()
    between = blobs(1, 40).features
    between.numeric[:] = np.random.default_rng(1).normal(size=between.numeric.shape) * 0.3
    assert np.median(fitted.similarities(between)) < np.quantile(fitted.similarity, 0.1)


def test_class_means_are_those_of_each_members_training_rows():
    data, fitted = trained()
    embedded = fitted.embeddings(data.features)
    splits = folds(data)
    for member, split in enumerate(fitted.member_split):
        own = embedded[member, splits[split].train]
        target = torch.from_numpy(data.target[splits[split].train])
        means = torch.stack([own[target == code].sum(dim=0) for code in range(4)], dim=1)
        torch.testing.assert_close(
            fitted.state["means"][member], F.normalize(means, dim=0), atol=1e-4, rtol=1e-4
        )


def test_recall_at_1_by_hand():
    data, fitted = trained(noise=2.5)
    embedded, right, splits = fitted.embeddings(data.features).numpy(), [], folds(data)
    for member, split in enumerate(fitted.member_split):
        train, held = splits[split].train, splits[split].validation
        nearest = train[(embedded[member, held] @ embedded[member, train].T).argmax(axis=1)]
        right.append(data.target[nearest] == data.target[held])
    assert fitted.recall_at_1 == pytest.approx(np.concatenate(right).mean(), abs=0.01)


@pytest.mark.parametrize(
    "kind, network", [("image", "convolutional"), ("sequence", "kernels"), ("sequence", "inception")]
)
def test_of_images_and_series(kind, network):
    draw = np.random.default_rng(0)
    target = draw.integers(0, 3, 60)
    waves = np.sin(np.arange(24) * (0.4 + 0.4 * target[:, None])) + 0.1 * draw.normal(size=(60, 24))
    values = waves[:, None].astype(np.float32)
    if kind == "image":
        values = (100 + 60 * np.repeat(values[:, :, None, :8], 8, axis=2)).astype(np.uint8)
    data = Dataset(Signals(values), target, "multiclass", ("a", "b", "c"))
    small = {"network": network, "width": 8, "batch_size": 16, "stages": 2, "kernel_features": 1008}
    c = shipped.base_space(kind).complete({})
    c = {**c, **{name: value for name, value in small.items() if name in c}, **COSINE, "epochs": 6}
    _, fitted = run(c, data, folds(data, 2))
    assert np.isfinite(fitted.held_out).all() and fitted.recall_at_1 > 0.5
    assert fitted.embeddings(data.features).shape[2] == 16


def test_numbers_have_no_classes_to_compare_with():
    with pytest.raises(UserError, match="classifier cosine"):
        run(configured(**COSINE), line(), folds(line()))
