"""The plan of a network that finds boxes: a backbone, coarse maps added to finer ones, and a head.

Pure arithmetic: no torch, no NumPy. The last map has a point for every few points of the image; its units see
far and near at once (Lin et al. 2017, feature pyramids).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advisor.networks.geometry import (
    BYTES,
    PASS_BYTES,
    Layer,
    batch_problem,
    kept_numbers,
    layers,
    map_numbers,
    map_sizes,
    multiplications,
    training_bytes,
)
from advisor.networks.plan import NetworkPlan, plan_of

BOX_NUMBERS = 4
"""Numbers that say where a box is."""
HEADS_OF_ATTENTION, READ_POINTS = 4, 4
"""Of queries: heads of attention, and points of the map that each head reads (Zhu et al. 2021)."""
WAVES = 4
"""Wave lengths by which a position is told."""
FEEDFORWARD = 2
"""How many times wider the hidden layer of a query's feedforward network is."""
MOST_KEYS = 16
"""The points of a map see at most so many others along each axis, else means of neighbours."""


@dataclass(frozen=True)
class DetectionPlan:
    """All that is needed to build one network, apart from random numbers.

    encoder: as that of a network which gives a class to an image, without its head. stages: channels of its
    maps, the finest first, of which the last ``levels`` + 1 are added up. width: channels of the map that the
    head reads; stride: points of the image from one point of that map to the next. head: how boxes are found.
    size: of the images. queries, decoder_layers: of a head of queries, else 0.
    """

    encoder: NetworkPlan
    stages: tuple[int, ...]
    levels: int
    width: int
    stride: int
    head: str
    size: tuple[int, int]
    queries: int = 0
    decoder_layers: int = 0

    @property
    def multiple(self) -> int:
        """Height and width are padded to multiples of this."""
        return int(self.stride * 2**self.levels)

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        height, width = (-(-n // self.multiple) * self.multiple for n in self.size)
        return height, width

    @property
    def map(self) -> tuple[int, int]:
        """Height and width of the map that the head reads."""
        return self.padded[0] // self.stride, self.padded[1] // self.stride

    @property
    def places(self) -> int:
        """How many boxes the head could say at once: one for each query, or for each point of the map."""
        return self.queries or math.prod(self.map)


def detection_plan_of(c: Mapping[str, Any], channels: int, size: Sequence[int]) -> DetectionPlan:
    """The network that a configuration of ``search_spaces/boxes.yaml`` means for images of this size."""
    height, width = size
    fixed = {"network": "convolutional", "block_place": "even", "dilation": 1, "head": "average"}
    encoder = plan_of({**c, **fixed, "resolution": 1.0}, channels, (height, width))
    stages = []
    for place, block in enumerate(encoder.blocks):
        if block.pool or (place + 1 < len(encoder.blocks) and encoder.blocks[place + 1].stride > 1):
            stages.append(block.outputs)
    stages.append(encoder.blocks[-1].outputs)
    finest, coarsest = encoder.stem_stride, encoder.stem_stride * 2 ** (len(stages) - 1)
    stride = min(max(int(c["map_stride"]), finest), coarsest)
    levels = int(math.log2(coarsest // stride))
    plan = DetectionPlan(
        encoder,
        tuple(stages),
        levels,
        int(c["neck_width"]),
        stride,
        str(c["network"]),
        (int(height), int(width)),
        decoder_layers=int(c.get("decoder_layers") or 0),
    )
    return replace(plan, queries=min(int(c.get("queries") or 0), math.prod(plan.map)))


def detection_encoder(plan: DetectionPlan) -> NetworkPlan:
    """The encoder on what it sees."""
    return replace(plan.encoder, size=plan.padded)


def neck_layers(plan: DetectionPlan, outputs: int) -> list[tuple[Layer, tuple[int, ...]]]:
    """Every step after the encoder with its map. outputs: classes."""
    found: list[tuple[Layer, tuple[int, ...]]] = []
    height, width = plan.map
    for number in range(plan.levels + 1):
        share = 2 ** (plan.levels - number)
        here = (height // share, width // share)
        inputs = plan.stages[len(plan.stages) - 1 - number]
        layer = Layer(f"sideways {number + 1}", (1, 1), (1, 1), plan.width, (inputs + 1) * plan.width)
        found.append((layer, here))
    area = 9 * plan.width
    found.append((Layer("neck", (3, 3), (1, 1), plan.width, area * plan.width + 3 * plan.width), plan.map))
    return [*found, *HEAD_LAYERS[plan.head](plan, outputs)]


def _heat_map_layers(plan: DetectionPlan, outputs: int) -> list[tuple[Layer, tuple[int, ...]]]:
    area = 9 * plan.width
    found: list[tuple[Layer, tuple[int, ...]]] = []
    for name, numbers in (("classes", outputs), ("corners", BOX_NUMBERS)):
        parameters = (area + 1) * plan.width + (plan.width + 1) * numbers
        found.append((Layer(name, (3, 3), (1, 1), numbers, parameters, inner=plan.width), plan.map))
    return found


def _query_layers(plan: DetectionPlan, outputs: int) -> list[tuple[Layer, tuple[int, ...]]]:
    """The encoder's layer on the points of the map, then those of the decoder on the queries."""
    width, inner, wide = plan.width, attention_width(plan.width), feedforward_width(plan.width)
    keys = math.prod(side // key_stride(plan) for side in plan.map)
    attention = 4 * width * inner + 3 * inner + width
    forwards = 2 * width * wide + wide + 3 * width
    said = (width + 1) * (outputs + width + BOX_NUMBERS) + 2 * width
    points = HEADS_OF_ATTENTION * READ_POINTS
    reading = 2 * width * inner + inner + width + 3 * points * (width + 1)
    encoder = attention + forwards + 2 * width + (4 * WAVES + 1) * width + said
    numbers = 6 * width + 4 * inner + wide + HEADS_OF_ATTENTION * keys + 2 * (outputs + BOX_NUMBERS)
    first = Layer("encoder", (1, 1), (1, 1), width, encoder, whole=True, inner=numbers)
    found: list[tuple[Layer, tuple[int, ...]]] = [(first, plan.map)]
    decoder = attention + reading + forwards + 4 * width + said
    # what queries read of the map is kept at every point that they read
    numbers = 8 * width + 6 * inner + wide + HEADS_OF_ATTENTION * plan.queries + READ_POINTS * inner
    shared = (2 * WAVES * BOX_NUMBERS + 1) * width
    for number in range(plan.decoder_layers):
        parameters = decoder + (shared if not number else 0)
        layer = Layer(f"decoder {number + 1}", (1, 1), (1, 1), width, parameters, whole=True, inner=numbers)
        found.append((layer, (plan.queries,)))
    return found


HEAD_LAYERS: Mapping[str, Callable[[DetectionPlan, int], list[tuple[Layer, tuple[int, ...]]]]] = {
    "heat_map": _heat_map_layers,
    "queries": _query_layers,
}
"""The layers of each head with their maps, by the values of the parameter ``network``: plan and classes."""


def attention_width(width: int) -> int:
    """Channels of all heads of attention together."""
    return HEADS_OF_ATTENTION * -(-width // HEADS_OF_ATTENTION)


def feedforward_width(width: int) -> int:
    """Of the hidden layer."""
    return FEEDFORWARD * width


def key_stride(plan: DetectionPlan) -> int:
    """Sides of the neighbourhoods of which the points of a map see means; 1: every point."""
    return -(-max(plan.map) // MOST_KEYS)


def detection_parameters(plan: DetectionPlan, outputs: int) -> int:
    """Trained numbers of one network."""
    own = sum(layer.parameters for layer, _ in neck_layers(plan, outputs))
    return own + sum(layer.parameters for layer in layers(plan.encoder))


def detection_cost(plan: DetectionPlan, outputs: int) -> tuple[int, int]:
    """Multiplications of one image, and the numbers in all its maps."""
    encoder, own = detection_encoder(plan), neck_layers(plan, outputs)
    products = sum(layer.parameters * math.prod(size) for layer, size in own)
    numbers = sum((layer.outputs + layer.inner) * math.prod(size) for layer, size in own)
    return multiplications(encoder, 0) + products, map_numbers(encoder) + numbers


def detection_memory(plan: DetectionPlan, outputs: int, batch_size: int, members: int = 1) -> int:
    """What training takes, estimated as ``geometry.memory_bytes`` does."""
    row = kept_numbers(detection_cost(plan, outputs)[1], plan.encoder.norm)
    return training_bytes(row, detection_parameters(plan, outputs), batch_size, members)


def detection_problem(
    plan: DetectionPlan, outputs: int, batch_size: int, *, members: int = 1, memory: float | None = None
) -> str | None:
    """Why a plan cannot be trained, in one line with the fix; None when nothing speaks against it."""
    if min(map_sizes(detection_encoder(plan))[-1]) < 1 or plan.multiple > max(plan.size):
        shown = " x ".join(map(str, plan.size))
        return f"{len(plan.stages)} stages leave nothing of an image of {shown}: use fewer stages"
    needed = detection_memory(plan, outputs, batch_size, members)
    return batch_problem(plan.encoder, batch_size, needed, memory)


def images_per_pass(plan: DetectionPlan, members: int) -> int:
    """Images that one pass without gradients takes at a time (see ``geometry.rows_per_pass``)."""
    points = math.prod(plan.padded) // plan.encoder.stem_stride**2
    return max(1, PASS_BYTES // (2 * BYTES * members * points * plan.encoder.stem))
