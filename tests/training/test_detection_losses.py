"""How boxes are learned: the losses of a head, and images changed together with their boxes."""

import numpy as np
import pytest
import torch

from advisor.boxes.lists import Boxes
from advisor.dataset import BoxedImages, Dataset
from advisor.networks.detection.network import DetectionShape
from advisor.networks.detection.plan import detection_plan_of
from advisor.rules import shipped
from advisor.splits import Split
from advisor.tasks import DETECTION
from advisor.training.detection.heat_map_loss import HeatMapLoss
from advisor.training.detection.inputs import augmented_boxes
from advisor.training.detection.overlap import generalized_iou
from advisor.training.detection.pasting import with_pasted
from advisor.training.detection.query_loss import QueryLoss
from advisor.training.loop import train_epochs
from advisor.training.targets import BoxTarget, padded_boxes

DEFAULT = {name: own.default for name, own in shipped.base_space("boxes").parameters.items()}
SMALL = {
    **DEFAULT,
    "width": 8,
    "neck_width": 16,
    "stages": 2,
    "stem_stride": 2,
    "map_stride": 4,
    "norm": "channel",
    "norm_layer": "batch",
    "block": "residual",
}
QUERIES = {**SMALL, "network": "queries", "queries": 4, "decoder_layers": 2}
SIDE = 32
STILL = {"flip": "none", "shift": 0.0, "rotation": 0.0, "zoom": 0.0, "brightness": 0.0}


def squares(rows, seed=0):
    """Bright squares (class 0) and bars (class 1) on a dark ground."""
    generator = np.random.default_rng(seed)
    images, corners, codes = np.zeros((rows, 1, SIDE, SIDE), np.uint8), [], []
    for row in range(rows):
        code = int(generator.integers(2))
        high, wide = (10, 10) if code == 0 else (6, 16)
        top, left = int(generator.integers(SIDE - high)), int(generator.integers(SIDE - wide))
        images[row, 0, top : top + high, left : left + wide] = 220
        corners.append((left, top, left + wide, top + high))
        codes.append(code)
    boxes = Boxes(np.array(corners, np.float64), np.array(codes), np.arange(1, rows + 1))
    return Dataset(BoxedImages(images), boxes, DETECTION, ("square", "bar"))


def loss_of(out, target):
    plan = detection_plan_of(SMALL, 1, (SIDE, SIDE))
    return HeatMapLoss(plan, 2)(out, target)


def test_what_is_right_loses_least():
    target = torch.from_numpy(padded_boxes(squares(1).target))
    left, top, right, bottom, code = target[0, 0].tolist()
    row, column = int((top + bottom) / 8), int((left + right) / 8)
    middle = (column + 0.5) * 4, (row + 0.5) * 4
    right_out = torch.full((1, 6, 8, 8), -8.0)
    right_out[0, int(code), row, column] = 8.0
    away = [middle[0] - left, middle[1] - top, right - middle[0], bottom - middle[1]]
    right_out[0, 2:] = torch.tensor(away).clamp(min=0.1).div(4).log().view(4, 1, 1)
    wrong = right_out.clone()
    wrong[0, :2] = wrong[0, :2].flip(0)  # another class
    larger = right_out.clone()
    larger[0, 2:] += 0.7
    nothing = torch.full((1, 6, 8, 8), -8.0)
    best = float(loss_of(right_out, target))
    assert all(float(loss_of(other, target)) > best + 0.5 for other in (wrong, larger, nothing))


def test_images_without_boxes_lose_nothing_where_nothing_is_said():
    target = torch.full((2, 3, 5), -1.0)
    assert loss_of(torch.full((2, 6, 8, 8), -12.0), target).max() < 1e-3


def said_by_queries(rows):
    """Of each image a query with its box, among four; and the loss of such outputs."""
    plan = detection_plan_of(QUERIES, 1, (SIDE, SIDE))
    target = torch.from_numpy(padded_boxes(squares(rows).target))
    out = torch.full((rows, 3, 4, 6), -8.0)
    out[..., 2:] = torch.tensor([0.9, 0.9, 0.1, 0.1])
    low, high = target[:, 0, :2] / SIDE, target[:, 0, 2:4] / SIDE
    for row, code in enumerate(target[:, 0, 4].long().tolist()):
        out[row, :, 2, code] = 8.0
        out[row, :, 2, 2:] = torch.cat([(low[row] + high[row]) / 2, high[row] - low[row]])
    return out, lambda said: QueryLoss(plan, 2)(said, target)


def test_the_right_query_loses_least_whichever_it_is():
    out, loss = said_by_queries(6)
    best = loss(out)
    assert best.max() < 0.01
    assert torch.allclose(loss(out.flip(2)), best)
    wrong, moved, nothing, doubled = out.clone(), out.clone(), out.clone(), out.clone()
    wrong[..., :2] = wrong[..., :2].flip(3)  # another class
    moved[..., 2] += 0.1
    nothing[..., :2] = -8.0
    doubled[:, :, 0] = doubled[:, :, 2]  # two queries with the same box
    assert all((loss(other) > best + 0.3).all() for other in (wrong, moved, nothing, doubled))


def test_every_layer_of_the_decoder_is_judged():
    out, loss = said_by_queries(1)
    worse = out.clone()
    worse[:, 0, :, :2] = -8.0
    assert float(loss(worse)) > float(loss(out)) + 0.1


def test_more_boxes_than_queries_and_none_at_all_have_a_loss():
    plan = detection_plan_of({**QUERIES, "queries": 4}, 1, (SIDE, SIDE))
    target = torch.tensor([[[0.0, 0, 5 + k, 5, 0] for k in range(9)], [[-1.0] * 5] * 9])
    out = torch.zeros(2, 3, 4, 6, requires_grad=True)
    losses = QueryLoss(plan, 2)(out.sigmoid(), target)
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(out.grad).all()


def test_generalized_overlap_is_that_of_the_paper():
    some, others = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
    assert float(generalized_iou(some, others)) == pytest.approx(1 / 7 - 2 / 9)
    assert float(generalized_iou(some, some)) == pytest.approx(1)
    assert float(generalized_iou(some, torch.tensor([[4.0, 0, 6, 2]]))) == pytest.approx(-1 / 3)


@pytest.mark.parametrize(
    "changes",
    [{"flip": "both"}, {"shift": 0.2}, {"zoom": 0.3}, {"flip": "horizontal", "shift": 0.1, "zoom": 0.2}],
)
def test_boxes_move_with_what_they_show(changes):
    data = squares(96)
    images = torch.from_numpy(data.features.values).float()
    boxes = torch.from_numpy(padded_boxes(data.target))
    # what touches the border is drawn out where the image is moved away from it
    inside = ((boxes[:, 0, :4] > 0) & (boxes[:, 0, :4] < SIDE)).all(dim=1)
    images, boxes = images[inside], boxes[inside]
    moved, new = augmented_boxes(images, boxes, {**STILL, **changes}, torch.Generator().manual_seed(1))
    for image, (left, top, right, bottom, code) in zip(moved[:, 0], new[:, 0].tolist(), strict=True):
        if code < 0:
            continue
        rows, columns = torch.nonzero(image.amax(dim=1) > 110), torch.nonzero(image.amax(dim=0) > 110)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [left, top, right, bottom] == pytest.approx([float(side) for side in seen], abs=1.01)
    assert (new[:, 0, 4] >= 0).float().mean() > 0.8


def test_a_box_that_has_left_the_image_is_none():
    boxes = torch.tensor([[[0.0, 0, 4, 4, 1]]]).repeat(64, 1, 1)
    _, new = augmented_boxes(
        torch.zeros(64, 1, SIDE, SIDE), boxes, {**STILL, "shift": 0.3}, torch.Generator().manual_seed(0)
    )
    assert (new[:, 0, 4] == -1).any() and (new[:, 0, 4] == 1).any()
    assert new[:, :, :4].min() >= 0 and new[:, :, :4].max() <= SIDE


def test_boxes_are_pasted_with_what_they_show():
    data = squares(64)
    images = torch.from_numpy(data.features.values).float().view(2, 32, 1, SIDE, SIDE)
    images[1] /= 2  # members keep to their own rows
    boxes = torch.from_numpy(padded_boxes(data.target)).view(2, 32, 1, 5)
    changed, new = with_pasted(images, boxes, torch.Generator().manual_seed(0))
    assert new.shape == (2, 32, 2, 5) and 0.3 < (new[:, :, 1, 4] >= 0).float().mean() < 0.7
    for member, row in np.ndindex(2, 32):
        image = changed[member, row, 0]
        there = [one for one in new[member, row].tolist() if one[4] >= 0]
        for left, top, right, bottom, code in there:
            assert min(left, top) >= 0 and right <= SIDE and bottom <= SIDE
            assert (right - left, bottom - top) == ((10, 10) if code == 0 else (16, 6))
        left, top, right, bottom = (int(side) for side in there[-1][:4])
        assert (image[top:bottom, left:right] == 220 / (member + 1)).all()
    hidden = (new[:, :, 0, 4] < 0) & (new[:, :, 1, 4] >= 0)
    assert torch.equal(new[:, :, 0, 4] < 0, hidden)  # only what something was pasted over is none


def test_nothing_is_pasted_from_images_without_boxes():
    images, none = torch.rand(1, 8, 1, 9, 9), torch.full((1, 8, 2, 5), -1.0)
    changed, new = with_pasted(images, none, torch.Generator().manual_seed(0))
    assert torch.equal(changed, images) and (new[..., 4] == -1).all()
    assert with_pasted(images[:, :1], none[:, :1], torch.Generator())[0].shape == (1, 1, 1, 9, 9)


@pytest.mark.parametrize("configuration", [SMALL, QUERIES])
def test_outputs_that_say_the_same_everywhere_have_the_loss_that_is_told(configuration):
    data = squares(8)
    rows = np.arange(8)
    learnt = BoxTarget(configuration, data, [Split(rows, rows)], "cpu")
    seen = learnt.seen.unsqueeze(0)
    assert torch.isfinite(learnt.constant_losses(seen)).all() and learnt.constant_losses(seen).shape == (1, 8)
    assert torch.isfinite(learnt.prior()).all()


def test_queries_begin_as_the_constant_that_is_told():
    plan, prior = detection_plan_of(QUERIES, 1, (SIDE, SIDE)), torch.tensor([[-3.0, -4.0]])
    own = DetectionShape(1, (SIDE, SIDE)).network(
        {**QUERIES, "output_init": "zero"}, 2, members=1, generator=torch.Generator(), prior=prior
    )
    out = own.train()(torch.randn(1, 3, 1, SIDE, SIDE))[0]
    constant = QueryLoss(plan, 2).constant(prior[0], 3)
    assert torch.allclose(out.sort(dim=2).values, constant.sort(dim=2).values, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configuration", "epochs", "rate"),
    [(SMALL, 8, 0.01), ({**QUERIES, "queries": 6, "neck_width": 32}, 11, 0.003)],
)
def test_a_network_learns_to_find_squares_and_bars(configuration, epochs, rate):
    data = squares(120)
    split = Split(np.arange(96), np.arange(96, 120))
    plan = {"epochs": epochs, "patience": epochs, "batch_size": 8, "optimizer": "adamw", "learning_rate": rate, "schedule": "one_cycle", "output_init": "zero", "gradient_clip": 1.0, "weight_init": "he_normal"}  # fmt: skip
    training = train_epochs({**configuration, **plan}, data, [split], seed=0)
    try:
        while True:
            next(training)
    except StopIteration as end:
        fitted = end.value
    new = squares(40, seed=1)
    metrics = DETECTION.metrics(new.target, fitted.predict(new.features))

    assert metrics["ap50"] > 0.8 and metrics["loss"] < 0.8
    assert fitted.held_out.shape == (24, 100, 6)
