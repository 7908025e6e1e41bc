"""What is measured of a target, one row for each kind of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.boxes.lists import Boxes
from advisor.data.columns.cells import tally
from advisor.data.masks.scenes import STRAY_SHARE
from advisor.data.signals.signals import SignalSet
from advisor.dataset import Dataset
from advisor.documents import UNSET
from advisor.facts.distributions import histogram_of, moments_of
from advisor.facts.probes import ProbeTarget, coarse, skill
from advisor.facts.summaries import TargetSummary
from advisor.tasks import UNLABELLED, TargetKind, Task

MOST_TEXT, MOST_CLASSES = 60, 20
"""Characters of a level, and classes of the target, that the report shows."""

POINTS = 100_000
"""The target is drawn by this many points, evenly spread."""
REGION_IMAGES = 200
"""Regions are looked for in this many images, evenly spread."""
SMALLEST_REGION = 4
"""Points of a region below which it is a speck."""
PROBED_POINTS = 2000
"""A probe sees the surroundings of this many points, of each class alike many."""
FIELDS_PER_OBJECT = 2.0
"""A point's class is told by the whole object and what lies around it: a field of twice the object's side."""
PATCH_SIDES = (8, 48)
"""Least and largest side of what a probe sees around a point; it sees a box at twice the least."""
USUAL_MOST, SMALL_BOXES = 0.99, 0.1
"""Quantiles: of the numbers of boxes of an image, and of the shorter sides of boxes."""


def target_facts(answer: pl.Series, task: Task) -> dict[str, Any]:
    """The facts ``classes.*`` or ``target.*`` of the training rows' target."""
    return TARGET_MEASURES[task.target].facts(answer)


def _class_facts(answer: pl.Series) -> dict[str, Any]:
    counts = tally(answer)["rows"].to_numpy().astype(np.float64)
    shares = counts / counts.sum()
    several = len(counts) > 1
    return {
        "classes.count": len(counts),
        "classes.imbalance": float(counts.max() / counts.min()),
        "classes.smallest": int(counts.min()),
        "classes.entropy": float(-(shares * np.log(shares)).sum() / np.log(len(counts))) if several else 0.0,
    }


def _number_facts(answer: pl.Series) -> dict[str, Any]:
    values = answer.to_numpy()
    moments = moments_of(values)
    return {
        "target.mean": moments.mean,
        "target.std": moments.std,
        "target.skew": moments.skew,
        "target.kurtosis": moments.kurtosis,
        "target.distinct": answer.n_unique(),
        "target.zero_share": float((values == 0).mean()),
        "target.minimum": float(values.min()),
    }


def cut_level(text: str) -> str:
    """A level as the report shows it: a cell may be a whole document."""
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def target_summary(answer: pl.Series, sample: pl.Series, task: Task) -> TargetSummary:
    """The target for the report: the largest classes with their exact counts, or the sample's histogram."""
    return TARGET_MEASURES[task.target].summary(answer, sample)


def _class_summary(answer: pl.Series, sample: pl.Series) -> TargetSummary:
    counts = tally(answer).head(MOST_CLASSES).rows()
    return TargetSummary(classes=tuple((cut_level(str(label)), count) for label, count in counts))


def _number_summary(answer: pl.Series, sample: pl.Series) -> TargetSummary:
    values = np.sort(sample.to_numpy().astype(np.float64))
    low, high = (float(edge) for edge in np.quantile(values, [0.01, 0.99]))
    return TargetSummary(histogram=histogram_of(values, low, high) or UNSET)


@dataclass(frozen=True)
class TargetMeasure:
    """What is measured of one kind of target. facts: of all training rows.
    summary: all training rows and a sample of them -> what the report draws.
    answer: of images and sequences, rows and the name of their target -> what these two look at."""

    facts: Callable[[pl.Series], dict[str, Any]]
    summary: Callable[[pl.Series, pl.Series], TargetSummary]
    answer: Callable[[Dataset[Any], str], pl.Series]


def _class_answer(data: Dataset[Any], name: str) -> pl.Series:
    return pl.Series(name, np.array(data.classes, dtype=object)[data.target].tolist(), dtype=pl.String)


def mask_answer(data: Dataset[Any], name: str) -> pl.Series:
    """The classes of some points, as text."""
    codes = data.target.values.reshape(-1)
    codes = codes[:: max(1, len(codes) // POINTS)]
    codes = codes[codes != UNLABELLED]
    return pl.Series(name, np.array(data.classes, dtype=object)[codes].tolist(), dtype=pl.String)


def mask_summary(answer: pl.Series, sample: pl.Series) -> TargetSummary:
    """For the report: the classes with their shares of the points, the most frequent first."""
    labels, counts = np.unique(answer.to_numpy().astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:20]
    shares = ((str(labels[place]), float(counts[place] / counts.sum())) for place in order)
    return TargetSummary(points=tuple(shares))


def box_answer(data: Dataset[Any], name: str) -> pl.Series:
    """The class of each box, as text."""
    labels = np.array(data.classes, dtype=object)[data.target.codes]
    return pl.Series(name, labels.tolist(), dtype=pl.String)


def box_summary(answer: pl.Series, sample: pl.Series) -> TargetSummary:
    """For the report: the classes with their numbers of boxes, the most frequent first."""
    counts = tally(answer).head(MOST_CLASSES).rows()
    return TargetSummary(boxes=tuple((cut_level(str(label)), count) for label, count in counts))


TARGET_MEASURES: Mapping[TargetKind, TargetMeasure] = {
    "class": TargetMeasure(_class_facts, _class_summary, _class_answer),
    "number": TargetMeasure(_number_facts, _number_summary, lambda data, name: pl.Series(name, data.target)),
    "mask": TargetMeasure(lambda answer: {}, mask_summary, mask_answer),
    "boxes": TargetMeasure(lambda answer: {}, box_summary, box_answer),
}


# ----------------------------------------------------------------------------------------------------- masks


def mask_facts(data: SignalSet, sample: NDArray[Any], rows: NDArray[np.int64]) -> dict[str, Any]:
    """The facts ``image.*``, ``mask.*``, ``flip.*`` and ``receptive.needed`` of the training images."""
    masks: NDArray[np.uint8] = data.train.target.values
    height, width = data.schema.size
    classes = len(data.train.classes)
    counts = np.stack([np.bincount(mask.reshape(-1), minlength=UNLABELLED + 1)[:classes] for mask in masks])
    shares = counts.sum(axis=0) / max(1, counts.sum())
    there = shares[shares > 0]
    largest = int(shares.argmax())
    side = _object_side(masks, largest)
    stray = [name for name, share in zip(data.train.classes, shares, strict=True) if 0 < share < STRAY_SHARE]
    pixels = sample.astype(np.float32) / 255
    # whole: the sample of large images has a part of their points
    seen = rows[:: max(1, len(rows) // REGION_IMAGES)]
    return {
        "image.height": height,
        "image.width": width,
        "image.side": min(height, width),
        "image.sizes": data.notes.get("image_sizes", 1),
        "image.mean": float(pixels.mean()),
        "image.spread": float(pixels.std()),
        "mask.classes": classes,
        "mask.smallest_share": float(there.min()),
        "mask.largest_share": float(there.max()),
        "mask.unlabelled_share": 1 - float(counts.sum()) / masks.size,
        "mask.object_side": side,
        "mask.single_share": float(((counts > 0).sum(axis=1) == 1).mean()),
        "mask.stray_classes": len(stray),
        "mask.stray_names": stray,
        "mask.missing": data.notes.get("absent_masks", 0),
        "mask.missing_names": sorted(data.lost.get("absent_masks", ())),
        "receptive.needed": int(min(max(1.0, FIELDS_PER_OBJECT * side), min(height, width))),
        **_flips(data.train.features.values[seen], masks[seen], classes, side),
    }


def _object_side(masks: NDArray[np.uint8], largest: int) -> float:
    """Median of the longer sides of connected regions, each class but the most frequent one."""
    from scipy import ndimage

    sides: list[int] = []
    for mask in masks[:: max(1, len(masks) // REGION_IMAGES)]:
        for code in np.unique(mask).tolist():
            if code in (largest, UNLABELLED):
                continue
            regions, _ = ndimage.label(mask == code)
            sizes = np.bincount(regions.reshape(-1))[1:]
            boxes = ndimage.find_objects(regions)
            sides += [
                max(box[0].stop - box[0].start, box[1].stop - box[1].start)
                for box, size in zip(boxes, sizes, strict=True)
                if size >= SMALLEST_REGION
            ]
    return float(np.median(sides)) if sides else float(min(masks.shape[1:]))


def _flips(
    images: NDArray[np.uint8], masks: NDArray[np.uint8], classes: int, side: float
) -> dict[str, float | None]:
    """How well a simple probe tells the class of a point by mirrored surroundings, as a share of how well it
    does
    by those as they are."""
    half = int(min(max(side, PATCH_SIDES[0]), PATCH_SIDES[1], min(masks.shape[1:]))) // 2
    generator = np.random.default_rng(0)
    patches, codes = [], []
    padded = np.pad(images, ((0, 0), (0, 0), (half, half), (half, half)), mode="reflect")
    for code in range(classes):
        places = np.flatnonzero(masks.reshape(-1) == code)
        chosen = generator.choice(places, min(len(places), PROBED_POINTS // classes), replace=False)
        for row, top, left in zip(*np.unravel_index(chosen, masks.shape), strict=True):
            patches.append(padded[row, :, top : top + 2 * half + 1, left : left + 2 * half + 1])
            codes.append(code)
    found, closed = np.unique(codes, return_inverse=True)
    seen = np.stack(patches)
    versions = {"flip.horizontal": coarse(seen[:, :, :, ::-1]), "flip.vertical": coarse(seen[:, :, ::-1])}
    versions["flip.rotated"] = coarse(np.rot90(seen, axes=(2, 3)))
    return skill(coarse(seen), versions, ProbeTarget(closed.astype(np.int64), len(found))).shares()


# ----------------------------------------------------------------------------------------------------- boxes


def box_facts(data: SignalSet, sample: NDArray[Any], rows: NDArray[np.int64]) -> dict[str, Any]:
    """The facts ``image.*``, ``boxes.*``, ``flip.*`` and ``receptive.needed`` of the training images."""
    boxes: Boxes = data.train.target
    height, width = data.schema.size
    classes = data.train.classes
    pixels = sample.astype(np.float32) / 255
    sides = boxes.corners[:, 2:] - boxes.corners[:, :2]
    often = np.bincount(boxes.codes, minlength=len(classes))
    longer = float(np.median(sides.max(axis=1))) if len(sides) else float(min(height, width))
    seen = rows[:: max(1, len(rows) // REGION_IMAGES)]
    return {
        "image.height": height,
        "image.width": width,
        "image.side": min(height, width),
        "image.sizes": data.notes.get("image_sizes", 1),
        "image.mean": float(pixels.mean()),
        "image.spread": float(pixels.std()),
        "boxes.classes": len(classes),
        "boxes.count": len(boxes.codes),
        "boxes.mean": float(boxes.counts.mean()),
        "boxes.most": int(boxes.counts.max()),
        "boxes.usual_most": float(np.quantile(boxes.counts, USUAL_MOST)),
        "boxes.side": longer,
        "boxes.small_side": float(np.quantile(sides.min(axis=1), SMALL_BOXES)) if len(sides) else longer,
        "boxes.without_share": float((boxes.counts == 0).mean()),
        "boxes.rarest": int(often.min()),
        "boxes.rarest_name": classes[int(often.argmin())],
        **_box_repairs(data),
        "receptive.needed": int(min(max(1.0, FIELDS_PER_OBJECT * longer), min(height, width))),
        **_box_flips(data.train.features.values[seen], boxes[seen], len(classes)),
    }


def _box_repairs(data: SignalSet) -> dict[str, Any]:
    """What was repaired or left out when the boxes were read."""
    counted = ("swapped", "clipped", "outside", "repeated")
    facts: dict[str, Any] = {f"boxes.{what}": data.notes.get(f"{what}_boxes", 0) for what in counted}
    facts["boxes.no_area"] = data.notes.get("empty_boxes", 0)
    for what, note in (("joined", "joined_classes"), ("unlisted", "images_without_list")):
        facts[f"boxes.{what}"] = data.notes.get(note, 0)
        facts[f"boxes.{what}_names"] = sorted(data.lost.get(note, ()))
    return facts


def _box_flips(images: NDArray[np.uint8], boxes: Boxes, classes: int) -> dict[str, float | None]:
    """How well a simple probe tells the class of a mirrored box, or that there is none, as a share of how
    well it does of boxes as they are."""
    generator = np.random.default_rng(0)
    height, width = images.shape[2:]
    chosen = generator.permutation(len(boxes.codes))[:PROBED_POINTS]
    patches, codes = [], []
    for row, corners, code in zip(
        boxes.rows[chosen].tolist(), boxes.corners[chosen], boxes.codes[chosen].tolist(), strict=True
    ):
        left, top, right, bottom = np.rint(corners).astype(int).tolist()
        high, wide = max(bottom - top, 2), max(right - left, 2)
        patches.append(_patch(images[row], top, left, high, wide))
        codes.append(code)
        # as large a part of the same image, wherever it lies, is of no class
        down, across = (int(generator.integers(max(1, n))) for n in (height - high, width - wide))
        patches.append(_patch(images[row], down, across, high, wide))
        codes.append(classes)
    found, closed = np.unique(codes, return_inverse=True)
    seen = np.stack(patches)
    versions = {"flip.horizontal": coarse(seen[:, :, :, ::-1]), "flip.vertical": coarse(seen[:, :, ::-1])}
    versions["flip.rotated"] = coarse(np.rot90(seen, axes=(2, 3)))
    return skill(coarse(seen), versions, ProbeTarget(closed.astype(np.int64), len(found))).shares()


def _patch(image: NDArray[np.uint8], top: int, left: int, high: int, wide: int) -> NDArray[np.uint8]:
    """A part of an image (channels, height, width) at twice the least of PATCH_SIDES, by nearest points."""
    steps = (np.arange(2 * PATCH_SIDES[0]) + 0.5) / (2 * PATCH_SIDES[0])
    rows, columns = (
        np.clip(start + (steps * length).astype(int), 0, n - 1)
        for start, length, n in ((top, high, image.shape[1]), (left, wide, image.shape[2]))
    )
    return image[:, rows[:, None], columns]
