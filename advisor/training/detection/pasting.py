"""What boxes show is pasted into other images, where training images are few (Dwibedi et al. 2017; Ghiasi et
al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from advisor.training.detection.overlap import LEAST_AREA

LEAST_SEEN = 0.35
"""A box of which less can be seen is none: what is left of it may be anything."""
PASTED_SHARE = 0.5
"""Of images into which each box is pasted."""


def with_pasted(image: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Into half of the images (members, rows, channels, height, width) what a box of another image of the
    batch shows is pasted anywhere, and its box comes last of theirs, (members, rows, most + 1, 5).

    Members keep to their own rows, since those of one validate another.
    """
    members, rows = image.shape[:2]
    device, size = image.device, torch.tensor([image.shape[4], image.shape[3]], device=image.device)
    drawn = torch.rand(members, rows, 5, generator=generator).to(device)
    other = (torch.arange(rows, device=device) + 1 + (drawn[:, :, 0] * (rows - 1)).long()) % rows
    member = torch.arange(members, device=device).unsqueeze(1)
    chosen = _one_box(boxes[member, other], drawn[:, :, 1])
    pasted = (chosen[:, :, 4] >= 0) & (drawn[:, :, 4] < PASTED_SHARE)
    low, high = chosen[:, :, :2].floor(), chosen[:, :, 2:4].ceil()
    away = (drawn[:, :, 2:4] * (size - (high - low) + 1)).floor() - low
    moved = chosen[:, :, :4] + away.repeat(1, 1, 2)
    code = torch.where(pasted, chosen[:, :, 4], -1.0)
    image = _over(image, image[member, other], (low + away, high + away), away.long(), pasted)
    seen = _seen(boxes, moved)
    left = torch.where(pasted.unsqueeze(2) & (seen < LEAST_SEEN), -1.0, boxes[..., 4])
    boxes = torch.cat([boxes[..., :4], left.unsqueeze(3)], dim=3)
    return image, torch.cat([boxes, torch.cat([moved, code.unsqueeze(2)], dim=2).unsqueeze(2)], dim=2)


def _one_box(boxes: Tensor, drawn: Tensor) -> Tensor:
    """A box of each image, all of its boxes as likely, (members, rows, 5); of an image without boxes it is
    none. drawn: (members, rows), from 0 to 1."""
    there = boxes[..., 4] >= 0
    number = (drawn * there.sum(dim=2)).floor() + 1
    which = (there & (there.cumsum(dim=2) == number.unsqueeze(2))).float().argmax(dim=2)
    return boxes.gather(2, which[:, :, None, None].expand(-1, -1, 1, 5)).squeeze(2)


def _seen(boxes: Tensor, above: Tensor) -> Tensor:
    """The share of each box that is not hidden, (members, rows, most). above: corners (members, rows, 4)."""
    low = torch.maximum(boxes[..., :2], above[:, :, None, :2])
    high = torch.minimum(boxes[..., 2:4], above[:, :, None, 2:])
    area = (boxes[..., 2:4] - boxes[..., :2]).prod(dim=3).clamp(min=LEAST_AREA)
    return 1 - (high - low).clamp(min=0).prod(dim=3) / area


def _over(
    image: Tensor, shown: Tensor, corners: tuple[Tensor, Tensor], away: Tensor, pasted: Tensor
) -> Tensor:
    """Images with what others show, moved by ``away`` points (members, rows, 2), within these corners, each
    (members, rows, 2)."""
    height, width = image.shape[3:]
    x, y = torch.arange(width, device=image.device), torch.arange(height, device=image.device)
    (left, top), (right, bottom) = ((own[..., 0:1], own[..., 1:2]) for own in corners)
    columns = (x >= left) & (x < right) & pasted.unsqueeze(2)
    inside = ((y >= top) & (y < bottom)).unsqueeze(3) & columns.unsqueeze(2)
    row, column = (y - away[..., 1:2]).clamp(0, height - 1), (x - away[..., 0:1]).clamp(0, width - 1)
    place = (row.unsqueeze(3) * width + column.unsqueeze(2)).flatten(2).unsqueeze(2)
    moved = shown.flatten(3).gather(3, place.expand(-1, -1, shown.shape[2], -1)).view(image.shape)
    return torch.where(inside.unsqueeze(2), moved, image)
