"""The recommended network for images or sequences, layer by layer, as a page shows it.
Pure: facts and a configuration in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.networks.cost import kernel_memory
from advisor.networks.decoder_plan import (
    decoder_layers,
    decoder_memory,
    decoder_parameters,
    decoder_plan_of,
    padded_encoder,
)
from advisor.networks.detection.plan import (
    detection_encoder,
    detection_memory,
    detection_parameters,
    detection_plan_of,
    neck_layers,
)
from advisor.networks.geometry import (
    Layer,
    layers,
    map_sizes,
    memory_bytes,
    parameter_count,
    receptive_field,
    receptive_fields,
)
from advisor.networks.kernels import SPAN, dilations_of, kernel_features
from advisor.networks.plan import NetworkPlan, plan_of
from advisor.networks.pretrained.names import backbone_name


@dataclass(frozen=True)
class LayerView:
    """A layer. map: its size per axis. field: the receptive field in points of the input as it is stored;
    whole: where a unit sees all of it."""

    name: str
    map: str
    channels: int
    parameters: int
    field: int
    whole: bool


@dataclass(frozen=True)
class NetworkView:
    """A network for images or sequences. size: of the input, per axis. field: what its last units see of it.
    needed: what the task is likely to need; None where that was not measured."""

    layers: tuple[LayerView, ...]
    size: tuple[int, ...]
    parameters: int
    memory_mb: float
    field: int
    needed: float | None


def blueprint(configuration: Mapping[str, Any], values: Mapping[str, Any]) -> NetworkView | None:
    """What a configuration means for inputs of the measured size; None for tables, and for networks
    of timm. values: of the facts."""
    size = _size(values)
    if size is None or "network" not in configuration or backbone_name(configuration) is not None:
        return None
    if "upsampling" in configuration:
        return _decoder_view(configuration, values, size)
    if "map_stride" in configuration:
        return _detection_view(configuration, values, size)
    outputs = int(values.get("classes.count") or 1)
    if (features := kernel_features(configuration)) is not None:
        return _of_kernels(features, outputs, int(configuration["batch_size"]), size, values)
    plan = plan_of(configuration, int(values["signal.channels"]), size)
    share = size[0] / plan.size[0]  # the field is counted in points of what the network sees
    rows = tuple(
        LayerView(
            name=layer.name,
            map=" x ".join(map(str, after)),
            channels=layer.outputs,
            parameters=layer.parameters,
            field=min(round(max(field.size) * share), max(size)),
            whole=field.whole,
        )
        for layer, after, field in zip(layers(plan), map_sizes(plan), receptive_fields(plan), strict=True)
    )
    return NetworkView(
        layers=rows,
        size=size,
        parameters=parameter_count(plan, outputs),
        memory_mb=memory_bytes(plan, outputs, int(configuration["batch_size"])) / 1e6,
        field=round(receptive_field(plan) * share),
        needed=values.get("receptive.needed"),
    )


def _decoder_view(
    configuration: Mapping[str, Any], values: Mapping[str, Any], size: tuple[int, ...]
) -> NetworkView:
    """A network that gives a class to every point: its encoder, then its decoder, whose units see as much as
    those of the coarsest map."""
    plan = decoder_plan_of(configuration, int(values["signal.channels"]), size)
    outputs, rows = int(values["mask.classes"]), int(configuration["batch_size"])
    return _view_of(
        padded_encoder(plan),
        decoder_layers(plan, outputs),
        size,
        decoder_parameters(plan, outputs),
        decoder_memory(plan, outputs, rows),
        values,
    )


def _detection_view(
    configuration: Mapping[str, Any], values: Mapping[str, Any], size: tuple[int, ...]
) -> NetworkView:
    """A network that finds boxes: its backbone, then what reads the maps that are added up."""
    plan = detection_plan_of(configuration, int(values["signal.channels"]), size)
    outputs, rows = int(values["boxes.classes"]), int(configuration["batch_size"])
    return _view_of(
        detection_encoder(plan),
        neck_layers(plan, outputs),
        size,
        detection_parameters(plan, outputs),
        detection_memory(plan, outputs, rows),
        values,
    )


def _view_of(
    encoder: NetworkPlan,
    after: Sequence[tuple[Layer, tuple[int, ...]]],
    size: tuple[int, ...],
    parameters: int,
    memory: int,
    values: Mapping[str, Any],
) -> NetworkView:
    """An encoder and the layers after it with their maps. memory: bytes that training takes."""
    rows = _encoder_rows(encoder, size)
    seen = rows[-1].field
    rows += [
        LayerView(layer.name, " x ".join(map(str, own)), layer.outputs, layer.parameters, seen, layer.whole)
        for layer, own in after
    ]
    return NetworkView(
        layers=tuple(rows),
        size=size,
        parameters=parameters,
        memory_mb=memory / 1e6,
        field=receptive_field(encoder),
        needed=values.get("receptive.needed"),
    )


def _encoder_rows(encoder: NetworkPlan, size: tuple[int, ...]) -> list[LayerView]:
    steps = zip(layers(encoder), map_sizes(encoder), receptive_fields(encoder), strict=True)
    return [
        LayerView(
            name=layer.name,
            map=" x ".join(map(str, after)),
            channels=layer.outputs,
            parameters=layer.parameters,
            field=min(max(field.size), max(size)),
            whole=field.whole,
        )
        for layer, after, field in steps
    ]


def _of_kernels(
    features: int, outputs: int, batch: int, size: tuple[int, ...], values: Mapping[str, Any]
) -> NetworkView:
    """Fixed convolutions see as far as their largest dilation reaches; the output layer sees all of them."""
    dilations, _ = dilations_of(max(size[0], SPAN), features)
    field = min(int(dilations.max()) * (SPAN - 1) + 1, size[0])
    weights = (features + 1) * outputs
    fixed = LayerView("fixed convolutions", f"{size[0]}", features, 0, field, field == size[0])
    output = LayerView("output", "1", outputs, weights, size[0], True)
    memory = kernel_memory(features, outputs, batch, 1) / 1e6
    return NetworkView((fixed, output), size, weights, memory, field, values.get("receptive.needed"))


def _size(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    if values.get("image.side"):
        return int(values["image.height"]), int(values["image.width"])
    return (int(values["sequence.length"]),) if values.get("sequence.length") else None
