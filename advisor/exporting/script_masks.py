"""What a script needs to know of images with masks: how they are read, and the encoder and decoder, block by
block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.data.masks.pairs import IMAGE_FOLDERS, MASK_FOLDERS
from advisor.data.masks.palette import value_text
from advisor.data.masks.scenes import MaskSchema
from advisor.exporting.script_parts import ORDER, PLAIN_STEP, Parts, Settings, python, setting
from advisor.exporting.script_signals import block_line, pooling_line, shared_blocks, stem_line
from advisor.networks.decoder_plan import TILE, DecoderPlan, crops_of, decoder_plan_of, scenes_per_pass

CHANGES = ("shift", "rotation", "zoom", "brightness")
MOST_PER_PASS = 256
LARGEST_BYTE = 255


@dataclass(frozen=True)
class _Source:
    """What is said of where images and masks come from. out: where predicted masks go by default, and in
    words."""

    reader: str
    example: str
    example_new: str
    example_out: str
    out_words: str
    imports: tuple[str, ...] = ()


FOLDER = _Source(
    "folder",
    "photos/",
    "new_photos/",
    "predicted_masks/",
    "the folder for the masks",
    ("import re", "from PIL import Image"),
)
ARRAYS = _Source("arrays", "data.npz", "new.npz", "masks.npy", "the .npy file for the masks")


def mask_parts(schema: MaskSchema, c: Mapping[str, Any], channels: int, source: str) -> Parts:
    """Of images with a mask each."""
    plan = decoder_plan_of(c, channels, schema.size)
    folders = _folders(Path(source))
    own = ARRAYS if folders is None else FOLDER
    changes = [name for name in CHANGES if c.get(name)]
    changed, cropped = bool(changes) or c["flip"] != "none", plan.trained_size != plan.size
    turns = crops_of(plan)
    data = {
        "masks/folders.jinja": own is FOLDER,
        "signals/pixels.jinja": own is FOLDER,
        "masks/arrays.jinja": own is ARRAYS,
        "masks/codes.jinja": True,
        "signals/inputs.jinja": True,
        "masks/crops.jinja": cropped,
        "masks/augmentation.jinja": changed,
        "signals/around.jinja": bool(changes),
    }
    return Parts(
        settings=("masks/settings.jinja",),
        data=tuple(name for name, on in data.items() if on),
        network=(
            "network/init.jinja",
            "signals/blocks.jinja",
            "masks/upsampling.jinja",
            "masks/network.jinja",
        ),
        step=_step(cropped, changed),
        training=("masks/validation.jinja",),
        network_settings=_settings(c, cropped, changes),
        penalized="nn.Conv2d | nn.ConvTranspose2d" if c["upsampling"] == "transposed" else "nn.Conv2d",
        imports=own.imports,
        notes=_notes(schema, own, c),
        rows_per_pass=min(MOST_PER_PASS, scenes_per_pass(plan, 1, len(schema.classes))),
        context={
            "example": own.example,
            "example_new": own.example_new,
            "example_out": own.example_out,
            "out_words": own.out_words,
            "predicted": "a class for each point of the images",
            "reader": own.reader,
            "has_test_part": True,
            "image_folder": python(folders[0] if folders else ""),
            "mask_folder": python(folders[1] if folders else ""),
            "images": True,
            "points": "Inputs",
            "masked": False,
            "network_channels": channels,
            "channels": schema.channels,
            "size": python(tuple(schema.size)),
            "values": _values(schema),
            "coloured": schema.coloured,
            "small_values": max(schema.values) <= LARGEST_BYTE,
            "unlabelled_words": _ignored_words(schema),
            "validation": ("losses = held_out_losses(network, learned, x[0][held_out], y[held_out])",),
            "order": f"torch.cat([{ORDER} for _ in range({turns})])" if turns > 1 else ORDER,
            "trained_rows": f"{turns} * len(train)" if turns > 1 else "len(train)",
            **_network(plan, c),
        },
    )


def _step(cropped: bool, changed: bool) -> tuple[str, ...]:
    if not (cropped or changed):
        return PLAIN_STEP
    lines = ["part, masks = x[0][batch], y[batch]"]
    lines += [
        f"part, masks = {name}(part, masks)"
        for name, on in (("cropped", cropped), ("changed", changed))
        if on
    ]
    return (*lines, "losses = learned.training_losses(network(part), masks)")


def _settings(c: Mapping[str, Any], cropped: bool, changes: Sequence[str]) -> Settings:
    crops = ["crop", *(["crop_foreground"] if c["crop_foreground"] else [])] if cropped else []
    names = [*(["dropout"] if c["dropout"] else []), *(["dice_weight"] if c["dice_weight"] else [])]
    return [setting(name, c[name]) for name in (*names, *crops, *changes)]


def _network(plan: DecoderPlan, c: Mapping[str, Any]) -> dict[str, Any]:
    """Its blocks, stage by stage."""
    encoder, stages = plan.encoder, list[list[str]]([[]])
    for block in encoder.blocks:
        if block.stride > 1:
            stages.append([])
        stages[-1].append(block_line(encoder, block))
        if block.pool:
            stages.append([pooling_line(encoder, block)])
    every = [*encoder.blocks, *(block for level in plan.levels for block in level.blocks)]
    sizes = [side for own in (plan.size, plan.trained_size) for side in own]
    return {
        **shared_blocks(encoder, every),
        "stem": stem_line(encoder),
        "stages": stages,
        "ups": [(level.below, level.outputs) for level in plan.levels],
        "decoder": [[block_line(encoder, block) for block in level.blocks] for level in plan.levels],
        "head_widths": [plan.width, *(plan.levels[-2 - own].outputs for own in range(plan.supervised))],
        "upsampling": plan.upsampling,
        "skips": any(level.skip for level in plan.levels),
        "supervised": bool(plan.supervised),
        "multiple": plan.multiple,
        "padded": any(side % plan.multiple for side in sizes),
        "tiled": max(plan.size) > TILE,
    }


def _folders(source: Path) -> tuple[str, str] | None:
    """The names of the folders of images and of masks; None where the source is no such folder."""
    for folder in (source / "train", source):
        if folder.is_dir():
            names = {child.name.lower(): child.name for child in sorted(folder.iterdir()) if child.is_dir()}
            found = [
                next((names[n] for n in known if n in names), "") for known in (IMAGE_FOLDERS, MASK_FOLDERS)
            ]
            if all(found):
                return found[0], found[1]
    return None


def _values(schema: MaskSchema) -> str:
    if not schema.coloured:
        return python(list(schema.values))
    return f"[{', '.join(f'0x{value:06x}' for value in schema.values)}]"


def _ignored_words(schema: MaskSchema) -> str:
    values = " or ".join(value_text(value, schema.coloured) for value in schema.ignored)
    return f", {values} in the masks" if values else ""


def _notes(schema: MaskSchema, source: _Source, c: Mapping[str, Any]) -> tuple[str, ...]:
    notes = ["splits in which images with rare classes are spread evenly: here they are drawn at random"]
    if source is ARRAYS:
        notes.append('reading other sources: save yours with numpy.savez("data.npz", X=images, Y=masks)')
    if schema.group_column is not None:
        notes.append("groups that are kept together: here images are split at random")
    if c.get("precision") == "mixed":
        notes.append("mixed precision on a GPU: here plain 32 bits")
    return tuple(notes)
