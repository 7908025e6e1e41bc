"""Changes to images and sequences in training that leave their meaning as it is, and mixing of rows.

Which of them a data set allows is for the facts and rules to say (a mirrored 2 is no 2); here they are
only done. All work on scaled inputs of several members, (members, rows, channels, *size), and draw
from the generator that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advisor.tasks import UNLABELLED


@dataclass(frozen=True)
class Mix:
    """Mixup (Zhang et al. 2018): row i was mixed with row ``partner[i]``;
    ``share`` (members,) of it is its own."""

    share: Tensor
    partner: Tensor

    def loss(self, own: Tensor, others: Tensor) -> Tensor:
        """The loss of each member from those under the rows' own and under their partners' targets."""
        return self.share * own + (1 - self.share) * others


@dataclass(frozen=True)
class Moved:
    """Rows of which parts were cut out, turned or mirrored: their masks (members, rows, height, width)
    or boxes (members, rows, most, 5), alike."""

    target: Tensor


def augmented(x: Tensor, configuration: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """A changed copy of a batch; every row is changed on its own."""
    flat = x.flatten(0, 1)
    flat = (_images if flat.dim() == 4 else _sequences)(flat, configuration, generator)
    share = float(configuration["cutout"])
    if share:
        flat = _cut_out(flat, share, generator)
    return flat.view(x.shape)


def mixed(x: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Mix]:
    """A batch mixed with itself in another order, by a share from Beta(alpha, alpha) for each member."""
    members, rows = x.shape[:2]
    # a quotient of Gamma draws, made of what can draw from a generator: Beta(a, a) by Johnk's method
    share = torch.tensor([_beta(alpha, generator) for _ in range(members)], device=x.device, dtype=x.dtype)
    partner = torch.randperm(rows, generator=generator)
    weight = share.view(-1, *[1] * (x.dim() - 1))
    return weight * x + (1 - weight) * x[:, partner.to(x.device)], Mix(share, partner)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha), 0 < alpha <= 1 (Johnk 1964)."""
    while True:
        u, v = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < u + v <= 1:
            return float(u / (u + v))


def _uniform(rows: int, reach: float, x: Tensor, generator: torch.Generator) -> Tensor:
    """(rows,) draws from -reach to reach, on x's device."""
    return ((2 * torch.rand(rows, generator=generator) - 1) * reach).to(x)


def _images(x: Tensor, c: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Mirrored, moved, turned and zoomed in one resampling; brighter or darker,
    with more or less contrast."""
    rows, flip = len(x), c["flip"]
    if flip in ("horizontal", "both"):
        x = torch.where(chosen_rows(rows, x, generator), x.flip(3), x)
    if flip in ("vertical", "both"):
        x = torch.where(chosen_rows(rows, x, generator), x.flip(2), x)
    if (grid := _grid(x, c, generator)) is not None:
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return lit(x, float(c["brightness"]), generator)


def _grid(x: Tensor, c: Mapping[str, Any], generator: torch.Generator) -> Tensor | None:
    """Where each point of (rows, channels, height, width) is taken from: moved, turned and zoomed; None: as
    it is."""
    move = drawn_move(x, c, generator)
    return None if move is None else F.affine_grid(move, list(x.shape), align_corners=False)


def drawn_move(x: Tensor, c: Mapping[str, Any], generator: torch.Generator) -> Tensor | None:
    """For each of (rows, channels, height, width) a move, turn and zoom, (rows, 2, 3), from a place in the
    new image to the one in the old that it shows, both from -1 to 1; None: as it is."""
    rows = len(x)
    shift, angle, zoom = float(c["shift"]), float(c["rotation"]), float(c["zoom"])
    if not (shift or angle or zoom):
        return None
    turn = _uniform(rows, angle * math.pi / 180, x, generator)
    scale = torch.exp(_uniform(rows, math.log1p(zoom), x, generator))
    cos, sin = scale * turn.cos(), scale * turn.sin()
    moves = [2 * _uniform(rows, shift, x, generator) for _ in range(2)]  # the grid runs from -1 to 1
    lines = [torch.stack([cos, -sin, moves[0]], dim=1), torch.stack([sin, cos, moves[1]], dim=1)]
    return torch.stack(lines, dim=1)


def lit(x: Tensor, light: float, generator: torch.Generator) -> Tensor:
    """Brighter or darker, with more or less contrast."""
    if not light:
        return x
    gain = (1 + _uniform(len(x), light, x, generator)).view(-1, 1, 1, 1)
    offset = _uniform(len(x), light, x, generator).view(-1, 1, 1, 1)
    return x * gain + offset


def augmented_scenes(
    x: Tensor, target: Tensor, configuration: Mapping[str, Any], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A changed copy of images (members, rows, channels, height, width) and, alike, of their masks (members,
    rows,
    height, width); points that come from beyond the image are unlabelled."""
    image, mask = x.flatten(0, 1), target.flatten(0, 1).unsqueeze(1)
    for axis, flips in ((3, ("horizontal", "both")), (2, ("vertical", "both"))):
        if configuration["flip"] in flips:
            chosen = chosen_rows(len(image), image, generator)
            image = torch.where(chosen, image.flip(axis), image)
            mask = torch.where(chosen, mask.flip(axis), mask)
    if (grid := _grid(image, configuration, generator)) is not None:
        image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        inside = (grid.abs() <= 1).all(dim=3).unsqueeze(1)
        codes = F.grid_sample(
            mask.to(image), grid, mode="nearest", padding_mode="border", align_corners=False
        )
        mask = torch.where(inside, codes.round(), float(UNLABELLED)).to(target.dtype)
    image = lit(image, float(configuration["brightness"]), generator)
    return image.view(x.shape), mask.squeeze(1).view(target.shape)


def cropped(
    x: Tensor, target: Tensor, side: int, foreground: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A square of this many points of each image and of its mask, or as much of it as there is.

    foreground: the share of the squares whose middle is a point of a class that is not the image's most
    frequent
    one (Isensee et al. 2021); the others lie anywhere.
    """
    height, width = target.shape[2:]
    high, wide = min(side, height), min(side, width)
    if (high, wide) == (height, width):
        return x, target
    members, rows = target.shape[:2]
    tops = torch.randint(0, height - high + 1, (members, rows), generator=generator)
    lefts = torch.randint(0, width - wide + 1, (members, rows), generator=generator)
    chosen = torch.rand(members, rows, generator=generator) < foreground
    images, masks = [], []
    for member in range(members):
        for row in range(rows):
            top, left = int(tops[member, row]), int(lefts[member, row])
            own = target[member, row]
            if chosen[member, row] and (middle := _foreground_point(own, generator)) is not None:
                top = min(max(middle[0] - high // 2, 0), height - high)
                left = min(max(middle[1] - wide // 2, 0), width - wide)
            images.append(x[member, row, :, top : top + high, left : left + wide])
            masks.append(own[top : top + high, left : left + wide])
    cut = (torch.stack(images), torch.stack(masks))
    x, target = (own.view(members, rows, *own.shape[1:]) for own in cut)
    return x, target


def _foreground_point(mask: Tensor, generator: torch.Generator) -> tuple[int, int] | None:
    """A point of one of the classes that are not the most frequent one, each class with the same chance."""
    counts = torch.bincount(mask.flatten().int(), minlength=UNLABELLED + 1)[:UNLABELLED].cpu()
    counts[counts.argmax()] = 0
    codes = counts.nonzero().squeeze(1)
    if not len(codes):
        return None
    code = int(codes[torch.randint(len(codes), (), generator=generator)])
    place = int(torch.randint(int(counts[code]), (), generator=generator))
    row, column = (mask == code).nonzero()[place].tolist()
    return row, column


def _sequences(x: Tensor, c: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Reversed or with the sign turned, moved in time, louder or softer, with noise."""
    rows, length = len(x), x.shape[2]
    if c["flip"] == "reversed":
        x = torch.where(chosen_rows(rows, x, generator), x.flip(2), x)
    if c["flip"] == "sign":
        x = torch.where(chosen_rows(rows, x, generator), -x, x)
    reach = int(float(c["shift"]) * length)
    if reach:
        moves = torch.randint(-reach, reach + 1, (rows, 1, 1), generator=generator)
        index = torch.arange(length).view(1, 1, -1) + moves
        inside = ((index >= 0) & (index < length)).to(x)
        x = x.gather(2, index.clamp(0, length - 1).to(x.device).expand_as(x)) * inside
    if magnitude := float(c["magnitude"]):
        x = x * torch.exp(_uniform(rows, math.log1p(magnitude), x, generator)).view(-1, 1, 1)
    if jitter := float(c["jitter"]):
        x = x + torch.randn(x.shape, generator=generator).to(x) * jitter
    return x


def chosen_rows(rows: int, x: Tensor, generator: torch.Generator) -> Tensor:
    """True for about half of the rows, in a shape that goes with x."""
    return (torch.rand(rows, generator=generator) < 0.5).to(x.device).view(-1, *[1] * (x.dim() - 1))


def _cut_out(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A window of ``share`` of each axis is set to 0, the mean (DeVries and
    Taylor 2017); its centre lies anywhere."""
    outside = torch.zeros(len(x), *[1] * (x.dim() - 1), dtype=torch.bool, device=x.device)
    for axis in range(2, x.dim()):
        length = x.shape[axis]
        centre = torch.rand(len(x), generator=generator) * length
        place = torch.arange(length).view(1, -1) + 0.5
        beyond = ((place - centre.view(-1, 1)).abs() > share * length / 2).to(x.device)
        shape = [len(x), *[1] * (x.dim() - 1)]
        shape[axis] = length
        outside = outside | beyond.view(shape)
    return x * outside.to(x.dtype)
