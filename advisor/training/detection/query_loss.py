"""How queries learn boxes: each box belongs to one query, so that the sum of all errors is least (Carion et
al. 2020, DETR); every layer of the decoder is judged in this way. The score of a query is the overlap that it
reaches (Huang et al. 2025, DEIM)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from advisor.networks.detection.plan import DetectionPlan
from advisor.networks.detection.queries import corners_of, even_places, first_boxes
from advisor.training.detection.overlap import generalized_iou, plain_iou

CLASS_COST, PLACE_COST, OVERLAP_COST = 2.0, 5.0, 2.0
"""What a pair of query and box costs by class, by middle and sides, and by overlap (Zhu et al. 2021)."""
CLASS_WEIGHT, PLACE_WEIGHT, OVERLAP_WEIGHT = 1.0, 5.0, 2.0
"""Of the same in the loss (Huang et al. 2025)."""
FOCAL_SHARE, FOCAL_POWER = 0.25, 2.0
"""Of the focal loss by which the class costs (Lin et al. 2017)."""
QUALITY_POWER = 1.5
"""Of the overlap as the score that is wanted (Huang et al. 2025)."""
SMALLEST = 1e-8


class _Pairs(NamedTuple):
    """Which query of which layer has which box; all (pairs,)."""

    image: Tensor
    layer: Tensor
    query: Tensor
    box: Tensor


class QueryLoss:
    """The losses of what ``QueryHead`` says. Targets are (images, most, 5), as ``HeatMapLoss`` has them."""

    def __init__(self, plan: DetectionPlan, classes: int) -> None:
        self.plan, self.classes = plan, classes

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        """out: (images, layers, queries, classes + 4). The mean over the layers, (images,)."""
        out = out.float()
        logits, box = out[..., : self.classes], out[..., self.classes :]
        wanted, corners = self._wanted(target), corners_of(box, self.plan.padded)
        pairs = self._pairs(logits, box, corners, target, wanted)
        own, true = box[pairs[:3]], wanted[pairs.image, pairs.box]
        own_corners, true_corners = corners[pairs[:3]], target[pairs.image, pairs.box, :4]
        quality = plain_iou(own_corners.detach(), true_corners).pow(QUALITY_POWER)
        scored = self._scored(logits, pairs, target, quality)
        placed = PLACE_WEIGHT * (own - true).abs().sum(dim=1)
        placed = placed + OVERLAP_WEIGHT * (1 - generalized_iou(own_corners, true_corners))
        losses = CLASS_WEIGHT * scored.index_add(0, pairs.image, placed)
        boxes = (target[:, :, 4] >= 0).sum(dim=1).float().mean().clamp(min=1.0)
        return losses / (boxes * out.shape[1])

    def constant(self, prior: Tensor, images: int) -> Tensor:
        """The same for every image, as the head's before training is: queries spread evenly over the map,
        with a box at each, (images, layers, queries, classes + 4). prior: logits of the classes, (classes,).
        """
        boxes = first_boxes(self.plan, prior.device)[even_places(self.plan).to(prior.device)]
        said = torch.cat([prior.float().expand(len(boxes), -1), boxes], dim=1)
        return said.expand(images, self.plan.decoder_layers + 1, -1, -1)

    def _wanted(self, target: Tensor) -> Tensor:
        """Middles and sides as shares of the padded image, (images, most, 4)."""
        height, width = self.plan.padded
        whole = torch.tensor([width, height], dtype=target.dtype, device=target.device)
        low, high = target[:, :, :2] / whole, target[:, :, 2:4] / whole
        return torch.cat([(low + high) / 2, high - low], dim=2)

    @torch.no_grad()
    def _pairs(self, logits: Tensor, box: Tensor, corners: Tensor, target: Tensor, wanted: Tensor) -> _Pairs:
        """Queries and boxes one to one in every layer of every image, so that the costs are least."""
        from scipy.optimize import linear_sum_assignment

        chance, code = logits.sigmoid(), target[:, None, None, :, 4].long().clamp(min=0)
        chance = chance.gather(3, code.expand(*chance.shape[:3], -1))
        right = FOCAL_SHARE * (1 - chance).pow(FOCAL_POWER) * -(chance + SMALLEST).log()
        wrong = (1 - FOCAL_SHARE) * chance.pow(FOCAL_POWER) * -(1 - chance + SMALLEST).log()
        away = (box.unsqueeze(3) - wanted[:, None, None]).abs().sum(dim=4)
        overlap = generalized_iou(corners.unsqueeze(3), target[:, None, None, :, :4])
        cost = CLASS_COST * (right - wrong) + PLACE_COST * away - OVERLAP_COST * overlap
        costs = np.nan_to_num(cost.cpu().numpy(), nan=0.0, posinf=0.0, neginf=0.0)
        there = (target[:, :, 4] >= 0).cpu().numpy()
        found: list[tuple[int, int, int, int]] = []
        for image, own in enumerate(there):
            which = np.flatnonzero(own)
            for layer in range(costs.shape[1]):
                query, place = linear_sum_assignment(costs[image, layer][:, which])
                found += [(image, layer, int(q), int(which[p])) for q, p in zip(query, place, strict=True)]
        columns = torch.tensor(found, dtype=torch.int64, device=logits.device).view(-1, 4)
        return _Pairs(*columns.unbind(dim=1))

    def _scored(self, logits: Tensor, pairs: _Pairs, target: Tensor, quality: Tensor) -> Tensor:
        """Of all scores: those of pairs are to be the quality, the others count the less the lower they are,
        (images,)."""
        code = target[pairs.image, pairs.box, 4].long()
        place = (*pairs[:3], code)
        score = torch.zeros_like(logits)
        score[place] = quality
        weight = logits.detach().sigmoid().pow(QUALITY_POWER)
        weight[place] = 1.0
        losses = F.binary_cross_entropy_with_logits(logits, score, weight=weight, reduction="none")
        return losses.flatten(1).sum(dim=1)
