"""A head of queries: a fixed number of them, each of which becomes one box or none, so that no box is found
twice (Carion et al. 2020, DETR). They begin at the encoder's best places (Zhao et al. 2024, RT-DETR); each
layer of the decoder reads the map at some points of a query's box and corrects it (Zhu et al. 2021,
Deformable DETR)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advisor.boxes.lists import MOST_FOUND
from advisor.networks.convolutional import BlockParts, MapActivation, members_apart
from advisor.networks.detection.heat_map import FIRST_CHANCE, FIRST_DISTANCE, middles
from advisor.networks.detection.plan import (
    BOX_NUMBERS,
    HEADS_OF_ATTENTION,
    READ_POINTS,
    WAVES,
    DetectionPlan,
    attention_width,
    feedforward_width,
    key_stride,
)
from advisor.networks.tables import StackedLinear, StackedNorm

INIT = "xavier_uniform"
"""How attention and the output layers are drawn, as in DETR."""
LARGEST_SHARE = 0.5
"""A box begins with at most this share of the image's sides."""
PREFERENCE = 1e-3
"""By this logit evenly spread places are ahead of others that are as likely, as all are before training."""


class QueryHead(nn.Module):
    """Classes and boxes of every query, from each layer of the decoder. prior: as ``DetectionNetwork``."""

    def __init__(self, parts: BlockParts, plan: DetectionPlan, classes: int, prior: Tensor | None) -> None:
        super().__init__()
        self.plan, self.members, self.classes = plan, parts.members, classes
        self.encoder = EncoderLayer(parts, plan)
        self.layers = nn.ModuleList(DecoderLayer(parts, plan) for _ in range(plan.decoder_layers))
        self.places = Positions(parts, 2, plan.width)
        self.boxes = Positions(parts, BOX_NUMBERS, plan.width)
        # of the encoder's places, then of each layer of the decoder
        outputs = range(plan.decoder_layers + 1)
        self.norms = nn.ModuleList(StackedNorm(parts.members, plan.width, "layer") for _ in outputs)
        scored = [_linear(parts, plan.width, classes) for _ in outputs]
        self.scored = nn.ModuleList(scored)
        self.placed = nn.ModuleList(BoxLayers(parts, plan.width) for _ in outputs)
        first = torch.full((parts.members, classes), math.log(FIRST_CHANCE / (1 - FIRST_CHANCE)))
        with torch.no_grad():
            for own in scored:
                own.bias.copy_((first if prior is None else prior).unsqueeze(1))
                if plan.encoder.zero_output:
                    own.weight.zero_()
        preferred = torch.zeros(math.prod(plan.map))
        preferred[even_places(plan)] = PREFERENCE
        self.preferred: Tensor
        self.register_buffer("preferred", preferred, persistent=False)

    def forward(self, h: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(rows, members x width, height, width) -> (members, rows, layers + 1, queries, classes + 4).

        These are logits, and middle and sides of a box as shares of the padded image's; the first of the
        layers are the places at which queries begin."""
        maps = members_apart(h, self.members).transpose(0, 1)
        anchors = first_boxes(self.plan, h.device)[None, None]
        tokens = self.encoder(maps, self.places(anchors[..., :2]))
        normed = each(self.norms[0], tokens)
        logits = each(self.scored[0], normed)
        likely = logits.detach().amax(dim=3) + self.preferred
        best = likely.topk(self.plan.queries, dim=2).indices.unsqueeze(3)
        box = _inverse(anchors).expand(*tokens.shape[:3], -1) + each(self.placed[0], normed)
        query, logits, box = (
            own.gather(2, best.expand(-1, -1, -1, own.shape[3])) for own in (normed, logits, box)
        )
        said = [torch.cat([logits, box.sigmoid()], dim=3)]
        size = maps.shape[3:]
        for layer, norm, scored, placed in zip(
            self.layers, list(self.norms)[1:], list(self.scored)[1:], list(self.placed)[1:], strict=True
        ):
            box = box.detach()  # each layer learns its own correction
            share = box.sigmoid()
            query = layer(query, self.boxes(share), share, tokens, (size[0], size[1]))
            seen = each(norm, query)
            box = box + each(placed, seen)
            said.append(torch.cat([each(scored, seen), box.sigmoid()], dim=3))
        return torch.stack(said, dim=2)

    def found(self, out: Tensor) -> Tensor:
        """The best scores of the last layer with their boxes, (members, rows, MOST_FOUND, 6)."""
        height, width = self.plan.size
        whole = out[:, :, -1].float()
        scores = whole[..., : self.classes].sigmoid().flatten(2)
        best, place = scores.topk(min(MOST_FOUND, scores.shape[2]), dim=2)
        query, code = place // self.classes, place % self.classes
        corners = corners_of(whole[..., self.classes :], self.plan.padded)
        chosen = corners.gather(2, query.unsqueeze(3).expand(-1, -1, -1, BOX_NUMBERS))
        sides = torch.tensor([width, height, width, height], device=out.device)
        chosen = torch.minimum(chosen.clamp(min=0), sides)
        boxes = torch.cat([chosen, best.unsqueeze(3), code.unsqueeze(3).to(best)], dim=3)
        return F.pad(boxes, (0, 0, 0, MOST_FOUND - boxes.shape[2]))

    def output_parameters(self) -> list[nn.Parameter]:
        """Those of the classes and boxes of all layers."""
        both = (*self.scored, *self.placed)
        return [weight for own in both for weight in own.parameters()]


class Attention(nn.Module):
    """Each of some tokens reads others by likeness, with several heads (Vaswani et al. 2017)."""

    def __init__(self, parts: BlockParts, width: int) -> None:
        super().__init__()
        inner = attention_width(width)
        self.asked, self.keys, self.values = (_linear(parts, width, inner) for _ in range(3))
        self.out = _linear(parts, inner, width)

    def forward(self, asking: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(members, rows, tokens, width), twice (members, rows, others, width) -> as the first."""
        given = ((self.asked, asking), (self.keys, keys), (self.values, values))
        asked, keys, values = (self._apart(each(own, x)) for own, x in given)
        mixed = F.scaled_dot_product_attention(asked, keys, values)
        return each(self.out, mixed.transpose(1, 2).reshape(*asking.shape[:3], -1))

    @staticmethod
    def _apart(x: Tensor) -> Tensor:
        """-> (members x rows, heads, tokens, inner / heads)."""
        return x.reshape(-1, x.shape[2], HEADS_OF_ATTENTION, x.shape[3] // HEADS_OF_ATTENTION).transpose(1, 2)


class Feedforward(nn.Module):
    """What each token makes of itself, added to it."""

    def __init__(self, parts: BlockParts, width: int) -> None:
        super().__init__()
        self.norm = StackedNorm(parts.members, width, "layer")
        self.wide = _linear(parts, width, feedforward_width(width))
        self.activation = MapActivation(parts.plan.activation)
        self.back = _linear(parts, feedforward_width(width), width)

    def forward(self, x: Tensor) -> Tensor:
        """(members, rows, tokens, width), as the result."""
        wide = self.activation(each(self.wide, each(self.norm, x)))
        return x + each(self.back, wide)


class EncoderLayer(nn.Module):
    """The points of a map see one another; of a large map they see means of neighbouring points (Wang et al.
    2021, Pyramid Vision Transformer)."""

    def __init__(self, parts: BlockParts, plan: DetectionPlan) -> None:
        super().__init__()
        self.stride = key_stride(plan)
        self.norm = StackedNorm(parts.members, plan.width, "layer")
        self.attention = Attention(parts, plan.width)
        self.forwards = Feedforward(parts, plan.width)

    def forward(self, maps: Tensor, place: Tensor) -> Tensor:
        """(members, rows, width, height, width) and the positions of its points, (members, 1, points, width)
        -> (members, rows, points, width)."""
        tokens = maps.flatten(3).transpose(2, 3)
        normed = each(self.norm, tokens)
        values, asking = normed, normed + place
        keys = asking
        if self.stride > 1:
            keys, values = (self._fewer(own, maps) for own in (keys, values))
        out: Tensor = self.forwards(tokens + self.attention(asking, keys, values))
        return out

    def _fewer(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Means of square neighbourhoods, (members, rows, fewer points, width)."""
        grid = tokens.transpose(2, 3).reshape(like.shape).flatten(0, 1)
        means = F.avg_pool2d(grid, self.stride)
        return means.flatten(2).transpose(1, 2).reshape(*like.shape[:2], -1, like.shape[2])


class DecoderLayer(nn.Module):
    """Queries see one another, so that two do not take one box; then each reads the map in its box."""

    def __init__(self, parts: BlockParts, plan: DetectionPlan) -> None:
        super().__init__()
        self.norms = nn.ModuleList(StackedNorm(parts.members, plan.width, "layer") for _ in range(2))
        self.attention = Attention(parts, plan.width)
        self.reading = Reading(parts, plan.width)
        self.forwards = Feedforward(parts, plan.width)

    def forward(
        self, query: Tensor, where: Tensor, box: Tensor, tokens: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """query, where: (members, rows, queries, width). box: (members, rows, queries, 4). tokens: of a map
        of this size. As ``query``."""
        seen = each(self.norms[0], query)
        query = query + self.attention(seen + where, seen + where, seen)
        asking = each(self.norms[1], query) + where
        out: Tensor = self.forwards(query + self.reading(asking, box, tokens, size))
        return out


class Reading(nn.Module):
    """Each query reads the map at a few points, which it chooses in and around its box."""

    def __init__(self, parts: BlockParts, width: int) -> None:
        super().__init__()
        points = HEADS_OF_ATTENTION * READ_POINTS
        self.values = _linear(parts, width, attention_width(width))
        self.away, self.weights = _linear(parts, width, 2 * points), _linear(parts, width, points)
        self.out = _linear(parts, attention_width(width), width)
        with torch.no_grad():
            for own in (self.away, self.weights):
                own.weight.zero_()
            self.away.bias.copy_(_first_points().flatten())

    def forward(self, asking: Tensor, box: Tensor, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """As ``DecoderLayer`` has them; -> (members, rows, queries, width)."""
        members, rows, queries = asking.shape[:3]
        values = each(self.values, tokens).flatten(0, 1).transpose(1, 2)
        maps = values.reshape(members * rows * HEADS_OF_ATTENTION, -1, *size)
        apart = (*asking.shape[:3], HEADS_OF_ATTENTION, READ_POINTS)
        away = each(self.away, asking).reshape(*apart, 2)
        middle, sides = box[..., None, None, :2], box[..., None, None, 2:]
        points = (2 * (middle + away * sides / 2) - 1).permute(0, 1, 3, 2, 4, 5).flatten(0, 2)
        weights = each(self.weights, asking).reshape(apart).softmax(dim=4)
        weights = weights.permute(0, 1, 3, 2, 4).flatten(0, 2).unsqueeze(1)
        read = F.grid_sample(maps, points, align_corners=False)  # (..., inner / heads, queries, points)
        mixed = (read * weights).sum(dim=3).reshape(members, rows, -1, queries)
        return each(self.out, mixed.transpose(2, 3))


class Positions(nn.Module):
    """Numbers from 0 to 1 as sines of several wave lengths, made as wide as tokens."""

    def __init__(self, parts: BlockParts, numbers: int, width: int) -> None:
        super().__init__()
        self.mixed = _linear(parts, 2 * WAVES * numbers, width)
        self.waves: Tensor
        self.register_buffer("waves", math.pi * 2.0 ** torch.arange(WAVES), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(members or 1, rows or 1, n, numbers) -> (members, rows or 1, n, width)."""
        angles = (x.unsqueeze(4) * self.waves).flatten(3)
        waves = torch.cat([angles.sin(), angles.cos()], dim=3)
        return each(self.mixed, waves.expand(len(self.mixed.weight), -1, -1, -1))


class BoxLayers(nn.Module):
    """What a box is changed by, as logits of its middle and its sides; nothing at first."""

    def __init__(self, parts: BlockParts, width: int) -> None:
        super().__init__()
        self.first = _linear(parts, width, width)
        self.activation = MapActivation(parts.plan.activation)
        self.last = StackedLinear(parts.members, width, BOX_NUMBERS, "zero", parts.generator)

    def forward(self, x: Tensor) -> Tensor:
        """(members, rows, width) -> (members, rows, 4)."""
        out: Tensor = self.last(self.activation(self.first(x)))
        return out


def each(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer of (members, rows, inputs) for tokens (members, rows, tokens, inputs)."""
    out: Tensor = layer(x.flatten(1, 2))
    return out.reshape(*x.shape[:3], -1)


def first_boxes(plan: DetectionPlan, device: torch.device) -> Tensor:
    """The boxes from which corrections begin: one at each point of the map, its middle and sides as shares of
    the padded image, (points, 4)."""
    height, width = plan.padded
    whole = torch.tensor([width, height], dtype=torch.float32, device=device)
    place = middles(plan.map, plan.stride, device).flatten(1).T / whole
    side = (2 * FIRST_DISTANCE * plan.stride / whole).clamp(max=LARGEST_SHARE).expand_as(place)
    return torch.cat([place, side], dim=1)


def even_places(plan: DetectionPlan) -> Tensor:
    """As many points of the map as there are queries, spread evenly over it, (queries,)."""
    return torch.linspace(0, math.prod(plan.map) - 1, plan.queries).long()


def corners_of(box: Tensor, size: tuple[int, int]) -> Tensor:
    """Middle and sides (..., 4) as shares of an image of this height and width -> its corners in points."""
    height, width = size
    whole = torch.tensor([width, height], dtype=box.dtype, device=box.device)
    middle, sides = box[..., :2] * whole, box[..., 2:] * whole
    return torch.cat([middle - sides / 2, middle + sides / 2], dim=-1)


def _linear(parts: BlockParts, inputs: int, outputs: int) -> StackedLinear:
    return StackedLinear(parts.members, inputs, outputs, INIT, parts.generator)


def _inverse(share: Tensor) -> Tensor:
    return torch.log(share / (1 - share))


def _first_points() -> Tensor:
    """Where a query reads at first, from its box's middle in halves of its sides, (heads, points, 2): each
    head in a direction of its own."""
    angle = torch.arange(HEADS_OF_ATTENTION) * (2 * math.pi / HEADS_OF_ATTENTION)
    direction = torch.stack([angle.cos(), angle.sin()], dim=1)
    return direction[:, None] * (torch.arange(READ_POINTS)[None, :, None] / READ_POINTS)
