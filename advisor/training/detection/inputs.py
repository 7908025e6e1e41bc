"""Images with boxes in a step of training: what is moved or zoomed of an image is so of its boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advisor.networks.detection.network import DetectionShape
from advisor.training.augmentation import Mix, Moved, chosen_rows, drawn_move, lit
from advisor.training.class_balance import ClassBalance
from advisor.training.detection.pasting import LEAST_SEEN, with_pasted
from advisor.training.signal_inputs import SignalInputs


class BoxedInputs(SignalInputs):
    """Images with a list of boxes each."""

    shape_of = DetectionShape

    def training_inputs(
        self,
        batch: Tensor,
        member_split: Tensor,
        configuration: Mapping[str, Any],
        generator: torch.Generator,
        balance: ClassBalance | None = None,
        target: Tensor | None = None,
    ) -> tuple[list[Tensor], Mix | Moved | None]:
        """The images of a batch, changed as the configuration asks, and their boxes."""
        assert target is not None, "a step on boxes knows the boxes of its rows"
        x = self.inputs(batch, member_split)[0]
        image, boxes = augmented_boxes(x.flatten(0, 1), target.flatten(0, 1), configuration, generator)
        image, boxes = image.view(x.shape), boxes.view(target.shape)
        for _ in range(int(configuration.get("copy_paste") or 0)):
            image, boxes = with_pasted(image, boxes, generator)
        return [image], Moved(boxes)


def augmented_boxes(
    image: Tensor, boxes: Tensor, configuration: Mapping[str, Any], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A changed copy of images (images, channels, height, width) and of their boxes (images, most, 5); boxes
    that have left the image are none."""
    height, width = image.shape[2:]
    for axis, length, flips in ((3, width, ("horizontal", "both")), (2, height, ("vertical", "both"))):
        if configuration["flip"] in flips:
            chosen = chosen_rows(len(image), image, generator)
            image = torch.where(chosen, image.flip(axis), image)
            boxes = torch.where(chosen.view(-1, 1, 1), _mirrored(boxes, 3 - axis, length), boxes)
    if (move := drawn_move(image, configuration, generator)) is not None:
        grid = F.affine_grid(move, list(image.shape), align_corners=False)
        image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        boxes = _moved(boxes, move, (height, width))
    return lit(image, float(configuration["brightness"]), generator), boxes


def _mirrored(boxes: Tensor, axis: int, length: int) -> Tensor:
    """axis: 0 for x, 1 for y."""
    result = boxes.clone()
    result[:, :, axis], result[:, :, 2 + axis] = length - boxes[:, :, 2 + axis], length - boxes[:, :, axis]
    return result


def _moved(boxes: Tensor, move: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes around the corners of those that were moved. move: (images, 2, 3), from a place in the new image
    to one in the old, both from -1 to 1."""
    height, width = size
    half = torch.tensor([width, height], device=boxes.device) / 2
    left, top, right, bottom = boxes[:, :, :4].unbind(dim=2)
    corners = torch.stack([left, top, right, top, left, bottom, right, bottom], dim=2)
    old = corners.view(*boxes.shape[:2], 4, 2) / half - 1
    back = torch.linalg.inv(move[:, :, :2].float())
    new = torch.einsum("nij,nbcj->nbci", back, old - move[:, None, None, :, 2])
    new = (new + 1) * half
    low, high = new.amin(dim=2), new.amax(dim=2)
    whole = (high - low).prod(dim=2)
    low, high = (torch.minimum(own.clamp(min=0), 2 * half) for own in (low, high))
    seen = (high - low).clamp(min=0).prod(dim=2) / whole.clamp(min=1e-6)
    code = torch.where(seen >= LEAST_SEEN, boxes[:, :, 4], -1.0)
    return torch.cat([low, high, code.unsqueeze(2)], dim=2)
