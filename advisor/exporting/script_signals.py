"""What a script needs to know of images or series: how they are read, and their network, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.data.signals.signal_schema import SignalSchema
from advisor.exporting.script_parts import PLAIN_STEP, Parts, python, setting
from advisor.networks.geometry import head_inputs, inception_kernels, mixer_tokens, squeeze_width
from advisor.networks.kernels import kernel_features
from advisor.networks.plan import BlockPlan, NetworkPlan, plan_of
from advisor.networks.pretrained.names import backbone_name, is_frozen

ARRAYS = (".npz", ".npy")
AUGMENTATIONS = ("shift", "rotation", "zoom", "brightness", "cutout", "magnitude", "jitter")
DRAWN_AROUND = ("rotation", "zoom", "brightness", "magnitude")
MIXED_STEP = (
    "part, other, share = mixed_up({})",
    "out = network(*part)",
    "losses = share * learned.training_losses(out, y[batch])",
    "losses = losses + (1 - share) * learned.training_losses(out, y[batch[other]])",
)


def signal_parts(schema: SignalSchema, c: Mapping[str, Any], channels: int, source: str) -> Parts:
    """Of images and series. UserError for networks that no script covers."""
    common = _common(schema, c, channels, source)
    if kernel_features(c) is not None:
        return _of_kernels(c, common)
    if is_frozen(c):
        return replace(common, network_settings=[setting("dropout", c["dropout"])] if c["dropout"] else [])
    return _of_plan(schema, c, channels, _with_changes(schema, c, common))


def _with_changes(schema: SignalSchema, c: Mapping[str, Any], common: Parts) -> Parts:
    """What is done to the rows of a batch."""
    changes = [name for name in AUGMENTATIONS if c.get(name)]
    changed, mixed = bool(changes) or c["flip"] != "none", bool(c["mixup"])
    part = "[part[batch] for part in x]"
    part = f"changed({part})" if changed else part
    around = any(c.get(name) for name in DRAWN_AROUND) or (len(schema.size) == 2 and bool(c["shift"]))
    optional = {
        "signals/augmentation.jinja": changed,
        "signals/around.jinja": around,
        "signals/mixup.jinja": mixed,
    }
    step = (f"losses = learned.training_losses(network(*{part}), y[batch])",) if changed else PLAIN_STEP
    return replace(
        common,
        data=(*common.data, *(name for name, on in optional.items() if on)),
        step=(MIXED_STEP[0].format(part), *MIXED_STEP[1:]) if mixed else step,
        network_settings=[
            setting(name, c[name]) for name in (*(["dropout"] if c["dropout"] else []), *changes)
        ],
    )


def _of_plan(schema: SignalSchema, c: Mapping[str, Any], channels: int, common: Parts) -> Parts:
    """A network that reads points."""
    if backbone_name(c) is not None:
        return common
    plan = plan_of(c, channels, schema.size)
    kinds = {block.kind for block in plan.blocks}
    return replace(
        common,
        network=(
            "network/init.jinja",
            "network/linear_layer.jinja",
            "signals/blocks.jinja",
            "signals/network.jinja",
        ),
        penalized=_penalized(kinds, plan),
        context={
            **common.context,
            "network_words": f"A {c['network']} network for {'images' if plan.axes == 2 else 'series'}",
            "recurrent": "recurrent" in kinds,
            **_network(plan, kinds, schema.size),
        },
    )


def _of_kernels(c: Mapping[str, Any], common: Parts) -> Parts:
    """A linear network on the features of fixed convolutions."""
    return replace(
        common,
        data=(*common.data, "signals/convolutions.jinja"),
        network=("network/linear.jinja",),
        network_settings=[
            setting("kernel_features", c["kernel_features"], "of the fixed convolutions"),
            *([setting("dropout", c["dropout"])] if c["dropout"] else []),
        ],
        imports=(*common.imports, "from itertools import combinations"),
        context={
            **common.context,
            "points": "Points",
            "starts_at_zero": True,
            "network_words": "A linear network on the features of fixed convolutions",
        },
    )


def _common(schema: SignalSchema, c: Mapping[str, Any], channels: int, source: str) -> Parts:
    """How rows are read and scaled, whatever the network."""
    reader = _reader(schema, source)
    return Parts(
        settings=("signals/settings.jinja",),
        data=(
            "signals/reading.jinja",
            *(("signals/pixels.jinja",) if reader == "folder" else ()),
            "signals/inputs.jinja",
        ),
        network=(),
        step=PLAIN_STEP,
        network_settings=(),
        penalized="nn.Linear",
        notes=_notes(schema, reader, c),
        imports=("import pandas as pd", *(("from PIL import Image",) if reader == "folder" else ())),
        context={
            "example": {"folder": "photos/", "wide": "data.csv"}.get(reader, "data.npz"),
            "example_new": {"folder": "new_photos/", "wide": "new_rows.csv"}.get(reader, "new_rows.npz"),
            "reader": reader,
            "has_test_part": True,
            "source_words": {"folder": "a folder", "wide": "a table"}.get(reader, "a file of arrays"),
            "images": len(schema.size) == 2,
            "channels": schema.channels,
            "size": python(tuple(schema.size)),
            "columns": list(schema.columns),
            "channels_last": schema.channels_last,
            "cleaning": schema.cleaning,
            "network_channels": channels,
            "masked": channels > schema.channels,
            "points": "Inputs",
        },
    )


def _network(plan: NetworkPlan, kinds: set[Any], size: Sequence[int]) -> dict[str, Any]:
    """size: of the input, before the network brings it to another."""
    axes = plan.axes
    resized = {
        1: f"F.adaptive_avg_pool1d(x, {plan.size[0]})",
        2: f'F.interpolate(x, {tuple(plan.size)}, mode="bilinear", antialias=True, align_corners=False)',
    }
    blocks = []
    for block in plan.blocks:
        blocks += [block_line(plan, block), *([pooling_line(plan, block)] if block.pool else [])]
    if plan.patch:
        blocks.append(f"nn.LayerNorm({plan.stem})")
    elif plan.head_width:
        last = f"convolution({plan.blocks[-1].outputs}, {plan.head_width}, 1)"
        blocks.append(f"nn.Sequential({last}, normalization({plan.head_width}), Activation())")
    return {
        **shared_blocks(plan, plan.blocks),
        "stem": stem_line(plan),
        "blocks": blocks,
        "listed_blocks": "inception" in kinds,
        "head": plan.head,
        "head_inputs": head_inputs(plan),
        "ramp": plan.ramp,
        "resized": "" if tuple(size) == plan.size else resized[axes],
    }


def shared_blocks(plan: NetworkPlan, blocks: Sequence[BlockPlan]) -> dict[str, Any]:
    """What the template of all blocks must know of these."""
    kinds = {block.kind for block in blocks}
    return {
        "axes": plan.axes,
        "kinds": sorted(kinds),
        "norm": plan.norm,
        "convolutions": kinds != {"recurrent"},
        "factorised": any(block.factorised for block in blocks),
        "squeezed": any(block.squeeze for block in blocks),
    }


def stem_line(plan: NetworkPlan) -> str:
    """What makes the first layer; "" without one."""
    if plan.patch:
        return f"convolution({plan.inputs}, {plan.stem}, {plan.patch}, {plan.patch}, bias=True, same=False)"
    if not plan.stem:
        return ""
    layer = f"convolution({plan.inputs}, {plan.stem}, {plan.stem_kernel}, {plan.stem_stride})"
    return f"nn.Sequential({layer}, normalization({plan.stem}), Activation())"


def block_line(plan: NetworkPlan, block: BlockPlan) -> str:
    """What makes a block, without the pooling behind it."""
    sizes = f"{block.inputs}, {block.outputs}"
    geometry = f"{sizes}, {block.kernel}, {block.stride}, {block.dilation}"
    squeeze = f", Squeeze({block.outputs}, {squeeze_width(block)})" if block.squeeze else ""
    return {
        "plain": f"nn.Sequential(*layers({geometry}){squeeze}, Activation())",
        "residual": f"Residual({geometry})",
        "inverted": f"Inverted({sizes}, {block.kernel}, {block.stride}, {block.expansion})",
        "inception": f"Inception({sizes}, {inception_kernels(block.kernel)}, {block.shortcut})",
        "mixer": f"Mixer({mixer_tokens(plan) if plan.patch else 0}, {block.outputs})",
        "recurrent": f"Recurrent({sizes})",
    }[block.kind]


def pooling_line(plan: NetworkPlan, block: BlockPlan) -> str:
    """What makes the pooling behind a block."""
    return f"nn.{ {'max': 'MaxPool', 'average': 'AvgPool'}[block.pool] }{plan.axes}d(2)"


def _penalized(kinds: set[Any], plan: NetworkPlan) -> str:
    layers = ["Linear"]
    layers += [f"nn.Conv{plan.axes}d"] if kinds != {"recurrent"} else []
    layers += ["Recurrent"] if "recurrent" in kinds else []
    return " | ".join(layers)


def _reader(schema: SignalSchema, source: str) -> str:
    """What the script reads: a folder of images, a wide table, or arrays."""
    path = Path(source)
    if len(schema.size) > 1 and path.is_dir() and not schema.columns:
        return "folder"
    if schema.columns and schema.id_column is None and len(schema.size) == 1:
        return "wide"
    return "arrays"


def _notes(schema: SignalSchema, reader: str, c: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if reader == "arrays":
        notes.append('reading other sources: save yours with numpy.savez("data.npz", X=values, y=labels)')
    if schema.group_column is not None:
        notes.append("groups that are kept together: here rows are split at random")
    if c.get("precision") == "mixed" or c.get("compiled"):
        notes.append("mixed precision and compilation on a GPU: here plain 32 bits")
    return tuple(notes)
