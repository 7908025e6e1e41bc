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


@dataclass(frozen=True)
class Mix:
    """Mixup (Zhang et al. 2018): row i was mixed with row ``partner[i]``;
    ``share`` (members,) of it is its own."""

    share: Tensor
    partner: Tensor

    def loss(self, own: Tensor, others: Tensor) -> Tensor:
        """The loss of each member from those under the rows' own and under their partners' targets."""
        return self.share * own + (1 - self.share) * others


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
    rows = len(x)
    flip, shift, angle, zoom = c["flip"], float(c["shift"]), float(c["rotation"]), float(c["zoom"])
    if flip in ("horizontal", "both"):
        x = torch.where(_chosen(rows, x, generator), x.flip(3), x)
    if flip in ("vertical", "both"):
        x = torch.where(_chosen(rows, x, generator), x.flip(2), x)
    if shift or angle or zoom:
        turn = _uniform(rows, angle * math.pi / 180, x, generator)
        scale = torch.exp(_uniform(rows, math.log1p(zoom), x, generator))
        cos, sin = scale * turn.cos(), scale * turn.sin()
        moves = [2 * _uniform(rows, shift, x, generator) for _ in range(2)]  # the grid runs from -1 to 1
        lines = [torch.stack([cos, -sin, moves[0]], dim=1), torch.stack([sin, cos, moves[1]], dim=1)]
        grid = F.affine_grid(torch.stack(lines, dim=1), list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    light = float(c["brightness"])
    if light:
        gain = (1 + _uniform(rows, light, x, generator)).view(-1, 1, 1, 1)
        offset = _uniform(rows, light, x, generator).view(-1, 1, 1, 1)
        x = x * gain + offset
    return x


def _sequences(x: Tensor, c: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """Reversed or with the sign turned, moved in time, louder or softer, with noise."""
    rows, length = len(x), x.shape[2]
    if c["flip"] == "reversed":
        x = torch.where(_chosen(rows, x, generator), x.flip(2), x)
    if c["flip"] == "sign":
        x = torch.where(_chosen(rows, x, generator), -x, x)
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


def _chosen(rows: int, x: Tensor, generator: torch.Generator) -> Tensor:
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
