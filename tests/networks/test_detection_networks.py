"""Networks that find boxes: their plan, what they find, and that members of a stack do not mix."""

import numpy as np
import pytest
import torch

from advisor.boxes.lists import MOST_FOUND
from advisor.networks.detection.heat_map import corners_at
from advisor.networks.detection.network import DetectionShape
from advisor.networks.detection.plan import detection_parameters, detection_plan_of, detection_problem
from advisor.rules import shipped

DEFAULT = {name: own.default for name, own in shipped.base_space("boxes").parameters.items()}
SMALL = {**DEFAULT, "width": 8, "neck_width": 16, "stages": 3, "stem_stride": 2, "map_stride": 4}
CLASSES = 3
QUERIES = {**SMALL, "network": "queries", "queries": 7, "decoder_layers": 2}


def network(configuration=SMALL, size=(40, 56), members=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return DetectionShape(1, size).network(configuration, CLASSES, members=members, generator=generator)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"map_stride": 8},
        {"map_stride": 2},
        {"stem_stride": 1, "map_stride": 16},
        {"pooling": "stride", "block": "residual", "norm_layer": "group"},
        {"network": "queries", "queries": 7, "decoder_layers": 2},
        {"network": "queries", "queries": 300, "decoder_layers": 1, "map_stride": 2, "neck_width": 30},
    ],
)
def test_the_plan_is_what_is_built(changes):
    configuration = {**SMALL, **changes}
    plan, own = detection_plan_of(configuration, 1, (40, 56)), network(configuration)
    out = own.train()(torch.zeros(1, 2, 1, 40, 56))
    said = {
        "heat_map": (CLASSES + 4, *plan.map),
        "queries": (plan.decoder_layers + 1, plan.queries, CLASSES + 4),
    }
    assert out.shape == (1, 2, *said[plan.head])
    assert sum(p.numel() for p in own.parameters()) == pytest.approx(
        detection_parameters(plan, CLASSES), rel=0.1
    )


@pytest.mark.parametrize("configuration", [SMALL, QUERIES])
def test_found_boxes_are_the_highest_points_and_lie_in_the_image(configuration):
    own = network(configuration).eval()
    boxes = own(torch.randn(1, 3, 1, 40, 56))[0]
    assert boxes.shape == (3, MOST_FOUND, 6) and torch.isfinite(boxes).all()
    assert (boxes[:, :, 4].diff(dim=1) <= 0).all() and boxes[:, :, 4].max() <= 1
    assert boxes[:, :, :4].min() >= 0 and boxes[:, :, 2].max() <= 56 and boxes[:, :, 3].max() <= 40


def test_a_peak_of_the_map_is_one_box():
    own = network().eval()
    height, width = own.plan.map
    out = torch.full((1, 1, CLASSES + 4, height, width), -9.0)
    out[:, :, CLASSES:] = np.log(2.0)  # two points of the map to each side
    out[0, 0, 1, 4, 6], out[0, 0, 1, 4, 7] = 3.0, 2.0
    [best, second, *_] = own.head.found(out)[0, 0]
    assert best[:4].tolist() == pytest.approx([(6.5 - 2) * 4, (4.5 - 2) * 4, (6.5 + 2) * 4, (4.5 + 2) * 4])
    assert best[5] == 1 and best[4] == pytest.approx(torch.tensor(3.0).sigmoid()) and second[4] < 0.01


def test_distances_are_measured_from_the_middle_of_a_point():
    corners = corners_at(torch.zeros(1, 4, 2, 3), 8)
    assert corners[0, :, 0, 0].tolist() == [-4, -4, 12, 12] and corners[0, :, 1, 2].tolist() == [
        12,
        4,
        28,
        20,
    ]


def test_a_query_is_one_box_in_points_of_the_image():
    own = network(QUERIES).eval()
    out = torch.full((1, 1, 3, 7, CLASSES + 4), -9.0)
    height, width = own.plan.padded
    out[..., CLASSES:] = torch.tensor([20 / width, 12 / height, 8 / width, 6 / height])
    out[0, 0, -1, 3, 2] = 3.0
    [best, second, *_] = own.head.found(out)[0, 0]
    assert best[:4].tolist() == pytest.approx([16, 9, 24, 15]) and best[5] == 2
    assert best[4] == pytest.approx(torch.tensor(3.0).sigmoid()) and second[4] < 0.01


def test_an_image_has_no_more_queries_than_its_map_has_points():
    assert detection_plan_of({**QUERIES, "queries": 300, "map_stride": 8}, 1, (40, 56)).queries == 5 * 7


@pytest.mark.parametrize("configuration", [SMALL, QUERIES])
def test_members_are_as_if_each_were_alone(configuration):
    pair = network(configuration, members=2, seed=3).eval()
    x = torch.randn(2, 2, 1, 40, 56)
    both = pair(x)
    changed = x.clone()
    changed[0] = 0
    assert torch.allclose(pair(changed)[1], both[1], atol=1e-5) and not torch.allclose(
        pair(changed)[0], both[0]
    )


@pytest.mark.parametrize("configuration", [SMALL, QUERIES])
def test_scores_begin_at_the_shares_of_the_classes(configuration):
    prior = torch.log(torch.tensor([[0.01, 0.02, 0.5]]))
    generator = torch.Generator().manual_seed(0)
    own = DetectionShape(1, (40, 56)).network(
        {**configuration, "output_init": "zero"}, CLASSES, members=1, generator=generator, prior=prior
    )
    found = own.eval()(torch.randn(1, 2, 1, 40, 56))[0]
    best = prior.sigmoid()[0]
    assert torch.allclose(found[:, 0, 4], best.max().expand(2)) and (found[:, 0, 5] == 2).all()


def test_what_cannot_be_trained_is_said_in_one_line():
    plan = detection_plan_of({**SMALL, "stages": 6}, 1, (40, 56))
    assert "use fewer stages" in detection_problem(plan, CLASSES, 16)
    fine = detection_plan_of(SMALL, 1, (40, 56))
    assert detection_problem(fine, CLASSES, 16) is None
    assert "use a smaller batch_size or width" in detection_problem(fine, CLASSES, 16, memory=1e3)
