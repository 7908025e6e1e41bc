"""What a script needs to know of a network of timm: its weights, the images that it reads, and its rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from advisor.data.signals.signal_schema import SignalSchema
from advisor.exporting.script_parts import Parts, setting, uncovered
from advisor.networks.pretrained.backbone import PASS_NUMBERS, BackboneShape
from advisor.networks.pretrained.names import is_frozen, needs_weights
from advisor.networks.pretrained.timm_models import backbone_info, backbone_size

LAYERED_OPTIMIZERS = ("adamw", "adam")
"""Whose weight decay is an option of each group of weights."""
MOST_PER_PASS = 256


def backbone_parts(schema: SignalSchema, c: Mapping[str, Any], weights: str, points: Parts) -> Parts:
    """points: what a network that reads the images' points has, its changes included. weights: a file; ""
    takes them from timm's cache or hub."""
    shape = BackboneShape.of(c, (schema.channels, *schema.size))
    info, size = backbone_info(shape.name), backbone_size(shape.name, shape.side)
    frozen, trained = is_frozen(c), needs_weights(c)
    layered = trained and not frozen
    _check(c, layered)
    before = ("signals/reading.jinja", "signals/pixels.jinja")
    reading = [name for name in points.data if name in before]
    changes = [name for name in points.data if name not in (*before, "signals/inputs.jinja")]
    weights_part = ["backbones/weights.jinja"] if trained else []
    own = ["backbones/scaled.jinja", *weights_part, "backbones/scaling.jinja"]
    inputs = [*own, "backbones/features.jinja"] if frozen else ["backbones/inputs.jinja", *own, *changes]
    safetensors = trained and weights.endswith(".safetensors")
    return replace(
        points,
        settings=(*points.settings, "backbones/settings.jinja"),
        data=(*reading, *inputs),
        network=("network/linear.jinja",) if frozen else ("backbones/network.jinja",),
        imports=(
            *points.imports,
            "import timm",
            *(("from timm.models import group_parameters",) if layered else ()),
            *(("from safetensors.torch import load_file",) if safetensors else ()),
        ),
        network_settings=[
            *points.network_settings,
            *(
                [setting("layer_decay", c["layer_decay"], "from a group of layers to the one before")]
                * layered
            ),
        ],
        optimizer="backbones/optimizer.jinja" if layered else points.optimizer,
        rows_per_pass=min(MOST_PER_PASS, max(1, PASS_NUMBERS // size.numbers)),
        context={
            **points.context,
            "backbone": info.name,
            "weights": weights,
            "safetensors": safetensors,
            "trained": trained,
            "frozen": frozen,
            "layered": layered,
            "mean": shape.own_mean,
            "deviation": shape.own_deviation,
            "colours": (shape.mean, shape.deviation),
            "side": shape.side,
            "features": size.features,
            "classifier": tuple(f"{one}." for one in info.classifier),
            "starts_at_zero": True,
            "as_rows": "features_of(values)" if frozen else "values",
            "network_words": f"A linear network on the features of {info.name}",
            "by_dimension": not frozen,
            "begin": ("network{}.backbone.load_state_dict(trained_weights())",) if layered else (),
        },
    )


def _check(c: Mapping[str, Any], layered: bool) -> None:
    if layered and c["layer_decay"] != 1 and (c["l1"] or c["optimizer"] not in LAYERED_OPTIMIZERS):
        what = f"l1 {c['l1']}" if c["l1"] else f"optimizer {c['optimizer']}"
        raise uncovered(f"{what} with layer_decay", "--fixed optimizer=adamw and l1=0")
