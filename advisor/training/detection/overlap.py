"""How much boxes overlap, as what training can follow."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_AREA = 1e-6
"""What areas are divided by at least."""


def generalized_iou(some: Tensor, others: Tensor) -> Tensor:
    """Of pairs of corners (..., 4): the overlap, less the share of the box around both that neither fills
    (Rezatofighi et al. 2019); from -1 to 1."""
    both, either = _shared(some, others)
    outer = torch.maximum(some[..., 2:], others[..., 2:]) - torch.minimum(some[..., :2], others[..., :2])
    around = outer.clamp(min=0).prod(dim=-1).clamp(min=LEAST_AREA)
    return both / either - (around - either) / around


def plain_iou(some: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of pairs of corners (..., 4)."""
    both, either = _shared(some, others)
    return both / either


def _shared(some: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The areas of intersection and union."""
    low, high = torch.maximum(some[..., :2], others[..., :2]), torch.minimum(some[..., 2:], others[..., 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    own, other = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1) for box in (some, others))
    return both, (own + other - both).clamp(min=LEAST_AREA)
