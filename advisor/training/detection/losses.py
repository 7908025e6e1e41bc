"""The losses of each head that finds boxes, by the values of the parameter ``network``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from advisor.networks.detection.plan import DetectionPlan
from advisor.training.detection.heat_map_loss import HeatMapLoss
from advisor.training.detection.query_loss import QueryLoss


class DetectionLoss(Protocol):
    """What training minimizes."""

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        """What the head says of some images, (images, ...), and their boxes (images, most, 5): corners in
        points of the image, and the class, -1 where there is no box. The loss of each image, (images,)."""

    def constant(self, prior: Tensor, images: int) -> Tensor:
        """What a head says that says the same of every place, (images, ...); prior: (classes,)."""


DETECTION_LOSSES: Mapping[str, Callable[[DetectionPlan, int], DetectionLoss]] = {
    "heat_map": HeatMapLoss,
    "queries": QueryLoss,
}
