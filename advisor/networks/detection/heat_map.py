"""A dense head without anchors: at each point of the map a score for each class, high at the middle of a box,
and the distances to its four sides (Zhou et al. 2019, CenterNet; Tian et al. 2019, FCOS). No box is found
twice, since only the highest point of its surroundings counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.boxes.lists import MOST_FOUND
from advisor.networks.convolutional import BlockParts, MapActivation, StackedConvolution, members_apart
from advisor.networks.detection.plan import BOX_NUMBERS, DetectionPlan

FIRST_DISTANCE = 2.0
"""A side of a box begins so many points of the map away from its middle."""
MOST_POWER = 8.0
"""No side is e^8 points of the map away; a diverging network may say so."""
FIRST_CHANCE = 0.01
"""Of a point to be a middle, where the shares of the classes are not known (Lin et al. 2017)."""


class HeatMapHead(nn.Module):
    """Scores of the classes, and distances to the sides. prior: as ``DetectionNetwork`` has it."""

    def __init__(self, parts: BlockParts, plan: DetectionPlan, classes: int, prior: Tensor | None) -> None:
        super().__init__()
        self.plan, self.members, self.classes = plan, parts.members, classes
        self.scored = _tower(parts, plan.width, classes)
        self.placed = _tower(parts, plan.width, BOX_NUMBERS)
        scores, places = self._outputs()
        assert scores.bias is not None and places.bias is not None
        with torch.no_grad():
            first = torch.full((parts.members, classes), math.log(FIRST_CHANCE / (1 - FIRST_CHANCE)))
            scores.bias.copy_(first if prior is None else prior)
            places.bias.fill_(math.log(FIRST_DISTANCE))
            if plan.encoder.zero_output:
                scores.weight.zero_()
                places.weight.zero_()

    def forward(self, h: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(rows, members x width, height, width) -> (members, rows, classes + 4, height, width): logits, and
        logarithms of distances in points of the map."""
        parts = [members_apart(own(h), self.members) for own in (self.scored, self.placed)]
        return torch.cat(parts, dim=2).transpose(0, 1)

    def found(self, out: Tensor) -> Tensor:
        """The highest points as boxes, by falling score, (members, rows, MOST_FOUND, 6)."""
        height, width = self.plan.size
        maps = out.float().flatten(0, 1)
        scores = maps[:, : self.classes].sigmoid()
        peaks = scores * (F.max_pool2d(scores, 3, stride=1, padding=1) == scores)
        best, place = peaks.flatten(1).topk(min(MOST_FOUND, peaks[0].numel()), dim=1)
        points = math.prod(maps.shape[2:])
        code, point = place // points, place % points
        corners = corners_at(maps[:, self.classes :], self.plan.stride).flatten(2).transpose(1, 2)
        chosen = corners.gather(1, point.unsqueeze(2).expand(-1, -1, BOX_NUMBERS))
        sides = torch.tensor([width, height, width, height], device=out.device)
        chosen = torch.minimum(chosen.clamp(min=0), sides)
        boxes = torch.cat([chosen, best.unsqueeze(2), code.unsqueeze(2).to(best)], dim=2)
        boxes = F.pad(boxes, (0, 0, 0, MOST_FOUND - boxes.shape[1]))
        return boxes.view(*out.shape[:2], MOST_FOUND, -1)

    def output_parameters(self) -> list[nn.Parameter]:
        """Those of both output layers."""
        return [weight for own in self._outputs() for weight in own.parameters()]

    def _outputs(self) -> list[StackedConvolution]:
        return [own[-1] for own in (self.scored, self.placed)]  # type: ignore[misc]  # the last of a tower


def _tower(parts: BlockParts, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        parts.convolution(width, width, 3, bias=True),
        MapActivation(parts.plan.activation),
        parts.convolution(width, outputs, 1, bias=True),
    )


def middles(size: torch.Size | tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """Of the points of a map in points of the image, (2, height, width): x and y."""
    height, width = size
    y, x = ((torch.arange(n, device=device, dtype=torch.float32) + 0.5) * stride for n in (height, width))
    return torch.stack([x.expand(height, -1), y.unsqueeze(1).expand(-1, width)])


def corners_at(distances: Tensor, stride: int) -> Tensor:
    """What a head says of distances, (rows, 4, height, width), as corners in points of the image."""
    away = distances.clamp(max=MOST_POWER).exp() * stride
    place = middles(distances.shape[2:], stride, distances.device)
    return torch.cat([place - away[:, :2], place + away[:, 2:]], dim=1)
