"""How a heat map learns boxes: a Gaussian hill of the box's proportions around its middle for the scores, and
the overlap of the box that each point of the hill gives (Zhou et al. 2019; Liu et al. 2020, TTFNet)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from advisor.networks.detection.heat_map import FIRST_DISTANCE, corners_at, middles
from advisor.networks.detection.plan import BOX_NUMBERS, DetectionPlan
from advisor.training.detection.overlap import generalized_iou

SPREAD, LEAST_SPREAD = 0.15, 0.5
"""Deviations of the hill: a share of the box's sides, and at least so many points of the map."""
LEAST_WEIGHT = 0.2
"""Points of the hill of at least this height learn where the box is."""
POWER, EASE = 2.0, 4.0
"""Exponents of CenterNet's focal loss: of the error, and of the distance from the hill's top."""
BOX_WEIGHT = 5.0
"""Of the overlap beside the scores, as in TTFNet."""


class HeatMapLoss:
    """The losses of what ``HeatMapHead`` says. Targets are (images, most, 5): corners in points of the image,
    and the class, -1 where there is no box."""

    def __init__(self, plan: DetectionPlan, classes: int) -> None:
        self.plan, self.classes = plan, classes

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        """out: (images, classes + 4, height, width). The loss of each image, (images,)."""
        logits, distances = out[:, : self.classes].float(), out[:, self.classes :].float()
        hills = self._hills(target, logits.shape[2:])
        boxes = (target[:, :, 4] >= 0).sum(dim=1)
        scored = _focal(logits, self._heat(hills, target, logits)).flatten(1).sum(dim=1)
        mean = boxes.float().mean().clamp(min=1.0)
        weight, which = hills.max(dim=1)
        weight = torch.where(weight >= LEAST_WEIGHT, weight, 0.0)
        wanted = target[:, :, :4].gather(1, which.flatten(1).unsqueeze(2).expand(-1, -1, 4))
        given = corners_at(distances, self.plan.stride).flatten(2).transpose(1, 2)
        placed = ((1 - generalized_iou(given, wanted)) * weight.flatten(1)).sum(dim=1)
        share = weight.sum() / len(weight)
        return scored / mean + BOX_WEIGHT * placed / share.clamp(min=1e-6)

    def constant(self, prior: Tensor, images: int) -> Tensor:
        """Outputs that are the same everywhere, as the head's are before training, (images, classes + 4,
        height, width). prior: logits of the classes, (classes,)."""
        sides = torch.full((BOX_NUMBERS,), math.log(FIRST_DISTANCE), device=prior.device)
        whole = torch.cat([prior.float(), sides]).view(1, -1, 1, 1)
        return whole.expand(images, -1, *self.plan.map)

    def _hills(self, target: Tensor, size: torch.Size) -> Tensor:
        """Of each box, (images, most, height, width): 1 at the point of the map that holds its middle."""
        stride = self.plan.stride
        place = middles((size[0], size[1]), stride, target.device)
        middle = (target[:, :, :2] + target[:, :, 2:4]) / 2
        nearest = ((middle / stride).floor() + 0.5) * stride
        sides = target[:, :, 2:4] - target[:, :, :2]
        spread = torch.maximum(SPREAD * sides, torch.full_like(sides, LEAST_SPREAD * stride))
        columns, rows = (
            torch.exp(-0.5 * ((line - nearest[:, :, axis, None]) / spread[:, :, axis, None]).square())
            for axis, line in enumerate((place[0, 0], place[1, :, 0]))
        )
        there = (target[:, :, 4] >= 0).float()
        # of hills that overlap the smaller box's counts: the larger one has points enough
        hills = rows.unsqueeze(3) * columns.unsqueeze(2)
        return hills * there[:, :, None, None]

    def _heat(self, hills: Tensor, target: Tensor, like: Tensor) -> Tensor:
        """The highest hill of each class at each point, as the logits are."""
        heat = torch.zeros_like(like)
        images = torch.arange(len(heat), device=heat.device)
        for place in range(hills.shape[1]):
            code = target[:, place, 4].long().clamp(min=0)
            heat[images, code] = torch.maximum(heat[images, code], hills[:, place])
        return heat


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """CenterNet's loss of each point and class: the tops of hills are right, other points the less wrong the
    nearer they are to one."""
    chance = logits.sigmoid()
    top = heat >= 1.0
    right = (1 - chance).pow(POWER) * F.softplus(-logits)
    wrong = (1 - heat).pow(EASE) * chance.pow(POWER) * F.softplus(logits)
    return torch.where(top, right, wrong)
