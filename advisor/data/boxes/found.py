"""Found boxes as people use them: an array for each image, rows of a table, COCO's JSON of results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.lists import CODE, CORNERS, SCORE, Found
from advisor.data.boxes.sets import in_given_points
from advisor.data.signals.signal_schema import SignalSchema

LEAST_SCORE = 0.05
"""Boxes of lower scores are not written: hardly any of them is one."""
FILE = "boxes.json"
_DIGITS = 2
"""Of corners, in points of the image."""


@dataclass(frozen=True)
class FoundBoxes:
    """The boxes of one image, by falling score.

    corners: (boxes, 4): left, top, right, bottom in points of the image as it was given. labels: their
    classes, (boxes,). scores: (boxes,), from 0 to 1.
    """

    corners: NDArray[np.float64]
    labels: NDArray[Any]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


def box_answers(schema: SignalSchema, sizes: Sequence[tuple[int, int]], found: Found) -> list[FoundBoxes]:
    """The boxes of each image, of scores of LEAST_SCORE or more."""
    classes = np.array(schema.classes)
    height, width = schema.size
    result = []
    for own, size in zip(found, sizes, strict=True):
        boxes = in_given_points(own[own[:, SCORE] >= LEAST_SCORE], size, (height, width))
        boxes = boxes[np.argsort(-boxes[:, SCORE], kind="stable")]
        result.append(FoundBoxes(boxes[:, CORNERS], classes[boxes[:, CODE].astype(int)], boxes[:, SCORE]))
    return result


def box_table(
    schema: SignalSchema, names: Sequence[str], sizes: Sequence[tuple[int, int]], found: Found
) -> dict[str, Any]:
    """A row for each box: its image, corners, class and score."""
    rows = list(_each(schema, names, sizes, found))
    corners = np.array([own for _, own, _, _ in rows], np.float64).reshape(-1, 4)
    columns: dict[str, Any] = {"name": [name for name, _, _, _ in rows]}
    columns |= {
        side: np.round(corners[:, place], _DIGITS)
        for place, side in enumerate(("left", "top", "right", "bottom"))
    }
    columns["prediction"] = [label for _, _, label, _ in rows]
    columns["score"] = np.array([score for _, _, _, score in rows], np.float64)
    return columns


def box_files(
    schema: SignalSchema, names: Sequence[str], sizes: Sequence[tuple[int, int]], found: Found
) -> dict[str, bytes]:
    """All boxes in COCO's form: images, categories, and annotations with a score."""
    named = _named(names)
    images = [
        {"id": place + 1, "file_name": name, "width": size[1], "height": size[0]}
        for place, (name, size) in enumerate(zip(named, sizes, strict=True))
    ]
    codes = {label: code + 1 for code, label in enumerate(schema.classes)}
    ids = {name: place + 1 for place, name in enumerate(named)}
    annotations = []
    for place, (name, corners, label, score) in enumerate(_each(schema, names, sizes, found)):
        left, top, right, bottom = (round(float(value), _DIGITS) for value in corners)
        annotations.append(
            {
                "id": place + 1,
                "image_id": ids[name],
                "category_id": codes[label],
                "bbox": [left, top, round(right - left, _DIGITS), round(bottom - top, _DIGITS)],
                "area": round((right - left) * (bottom - top), _DIGITS),
                "iscrowd": 0,
                "score": round(score, 6),
            }
        )
    categories = [{"id": code, "name": label} for label, code in codes.items()]
    document = {"images": images, "categories": categories, "annotations": annotations}
    return {FILE: json.dumps(document, ensure_ascii=False).encode()}


def _named(names: Sequence[str]) -> list[str]:
    """Images of an array have their numbers as names."""
    return [name or f"{number:05}" for number, name in enumerate(names)]


def _each(
    schema: SignalSchema, names: Sequence[str], sizes: Sequence[tuple[int, int]], found: Found
) -> Iterator[tuple[str, NDArray[np.float64], str, float]]:
    for name, own in zip(_named(names), box_answers(schema, sizes, found), strict=True):
        for corners, label, score in zip(own.corners, own.labels.tolist(), own.scores.tolist(), strict=True):
            yield name, corners, label, score
