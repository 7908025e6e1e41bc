"""What a script needs to know of images or series: how they are read, and their network, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.data.signals.signal_schema import SignalSchema
from advisor.errors import UserError
from advisor.exporting.script_parts import python
from advisor.networks.geometry import head_inputs, inception_kernels, mixer_tokens, squeeze_width
from advisor.networks.kernels import kernel_features
from advisor.networks.plan import BlockPlan, NetworkPlan, plan_of
from advisor.networks.pretrained.names import backbone_name

ARRAYS = (".npz", ".npy")
AUGMENTATIONS = ("shift", "rotation", "zoom", "brightness", "cutout", "magnitude", "jitter")
DRAWN_AROUND = ("rotation", "zoom", "brightness", "magnitude")


def signal_part(schema: SignalSchema, c: Mapping[str, Any], channels: int, source: str) -> dict[str, Any]:
    """What the templates of images and series need."""
    if kernel_features(c) is not None:
        raise UserError(
            "--format script does not cover fixed convolutions (network kernels): take --format onnx or "
            "torch, or train with --fixed network=convolutional"
        )
    if backbone_name(c) is not None:
        raise UserError(
            f"--format script does not cover networks of timm ({c['network']}): take --format onnx or "
            "torch, or train with --fixed network=convolutional"
        )
    plan = plan_of(c, channels, schema.size)
    images, reader = plan.axes == 2, _reader(schema, source)
    kinds = {block.kind for block in plan.blocks}
    changes = [name for name in AUGMENTATIONS if c.get(name)]
    return {
        "tables": False,
        "signals": True,
        "data_part": "signal_settings.jinja",
        "rows_part": "signal_rows.jinja",
        "network_part": "signal_network.jinja",
        "needs": "torch, numpy, pandas and scikit-learn" + (", and Pillow" if reader == "folder" else ""),
        "example": {"folder": "photos/", "wide": "data.csv"}.get(reader, "data.npz"),
        "example_new": {"folder": "new_photos/", "wide": "new_rows.csv"}.get(reader, "new_rows.npz"),
        "reader": reader,
        "source_words": {"folder": "a folder", "wide": "a table"}.get(reader, "a file of arrays"),
        "images": images,
        "group": None,
        "words": [],
        "channels": schema.channels,
        "size": python(tuple(schema.size)),
        "points": list(schema.columns),
        "channels_last": schema.channels_last,
        "cleaning": schema.cleaning,
        "network_channels": channels,
        "masked": channels > schema.channels,
        "augmented": bool(changes) or c["flip"] != "none",
        "uses_around": any(c.get(name) for name in DRAWN_AROUND) or (images and bool(c["shift"])),
        "mixed": bool(c["mixup"]),
        "bins": False,
        "penalized": _penalized(kinds, plan),
        "recurrent": "recurrent" in kinds,
        "network_words": f"A {c['network']} network for {'images' if images else 'series'}",
        "network_settings": [
            (name.upper(), python(c[name]), "") for name in (*(["dropout"] if c["dropout"] else []), *changes)
        ],
        "notes": _notes(schema, reader, c),
        **_network(plan, kinds, schema.size),
    }


def _network(plan: NetworkPlan, kinds: set[Any], size: Sequence[int]) -> dict[str, Any]:
    """size: of the input, before the network brings it to another."""
    axes = plan.axes
    resized = {
        1: f"F.adaptive_avg_pool1d(x, {plan.size[0]})",
        2: f'F.interpolate(x, {tuple(plan.size)}, mode="bilinear", antialias=True, align_corners=False)',
    }
    blocks = [line for block in plan.blocks for line in _block(plan, block)]
    if plan.patch:
        blocks.append(f"nn.LayerNorm({plan.stem})")
    elif plan.head_width:
        last = f"convolution({plan.blocks[-1].outputs}, {plan.head_width}, 1)"
        blocks.append(f"nn.Sequential({last}, normalization({plan.head_width}), Activation())")
    return {
        "axes": axes,
        "kinds": sorted(kinds),
        "norm": plan.norm,
        "convolutions": kinds != {"recurrent"},
        "factorised": any(block.factorised for block in plan.blocks),
        "squeezed": any(block.squeeze for block in plan.blocks),
        "stem": _stem(plan),
        "blocks": blocks,
        "listed_blocks": "inception" in kinds,
        "head": plan.head,
        "head_inputs": head_inputs(plan),
        "ramp": plan.ramp,
        "resized": "" if tuple(size) == plan.size else resized[axes],
    }


def _stem(plan: NetworkPlan) -> str:
    if plan.patch:
        return f"convolution({plan.inputs}, {plan.stem}, {plan.patch}, {plan.patch}, bias=True, same=False)"
    if not plan.stem:
        return ""
    layer = f"convolution({plan.inputs}, {plan.stem}, {plan.stem_kernel}, {plan.stem_stride})"
    return f"nn.Sequential({layer}, normalization({plan.stem}), Activation())"


def _block(plan: NetworkPlan, block: BlockPlan) -> list[str]:
    """The lines that make a block, and the pooling behind it."""
    sizes = f"{block.inputs}, {block.outputs}"
    geometry = f"{sizes}, {block.kernel}, {block.stride}, {block.dilation}"
    squeeze = f", Squeeze({block.outputs}, {squeeze_width(block)})" if block.squeeze else ""
    line = {
        "plain": f"nn.Sequential(*layers({geometry}){squeeze}, Activation())",
        "residual": f"Residual({geometry})",
        "inverted": f"Inverted({sizes}, {block.kernel}, {block.stride}, {block.expansion})",
        "inception": f"Inception({sizes}, {inception_kernels(block.kernel)}, {block.shortcut})",
        "mixer": f"Mixer({mixer_tokens(plan) if plan.patch else 0}, {block.outputs})",
        "recurrent": f"Recurrent({sizes})",
    }[block.kind]
    pooling = {"max": "MaxPool", "average": "AvgPool"}.get(block.pool)
    return [line, f"nn.{pooling}{plan.axes}d(2)"] if pooling else [line]


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


def _notes(schema: SignalSchema, reader: str, c: Mapping[str, Any]) -> Sequence[str]:
    notes = []
    if reader == "arrays":
        notes.append('reading other sources: save yours with numpy.savez("data.npz", X=values, y=labels)')
    if schema.group_column is not None:
        notes.append("groups that are kept together: here rows are split at random")
    if c.get("precision") == "mixed" or c.get("compiled"):
        notes.append("mixed precision and compilation on a GPU: here plain 32 bits")
    return notes
