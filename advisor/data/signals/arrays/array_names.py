"""What an array is by its name: values, labels, groups or lengths, and of which part."""

from __future__ import annotations

import re
from collections.abc import Sequence

VALUES = ("x", "images", "image", "data", "series", "sequences")
LABELS = ("y", "labels", "label", "targets", "target", "classes", "class")
GROUPS = ("group", "groups")
LENGTHS = ("length", "lengths")
PARTS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The part of a data set that a word of an array's name (or a folder's name) stands for."""


_GLUED = re.compile(rf"([xy])({'|'.join(PARTS)})|({'|'.join(PARTS)})([xy])", re.IGNORECASE)


def words_of(name: str) -> list[str]:
    """The words of an array's name: X and train of x_train, Xtrain and trainX."""
    if glued := _GLUED.fullmatch(name):
        return [word for word in glued.groups() if word]
    return [word for word in name.split("_") if word]


def stem_of(name: str) -> str:
    """An array's name in lower case without the word of its part."""
    return "_".join(word for word in map(str.lower, words_of(name)) if word not in PARTS)


def spelled_without_part(name: str) -> str:
    """An array's name without the word of its part: y of y_train."""
    kept = [word for word in words_of(name) if word.lower() not in PARTS]
    return "_".join(kept) or name


def part_in_role(name: str, words: Sequence[str]) -> str | None:
    """The part that an array's name gives ("" for none) when the rest of the
    name is one of the words, else None."""
    parts = [word for word in map(str.lower, words_of(name)) if word in PARTS]
    if len(parts) > 1 or stem_of(name) not in words:
        return None
    return PARTS[parts[0]] if parts else ""
