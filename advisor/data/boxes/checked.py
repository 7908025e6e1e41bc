"""What is wrong with boxes, repaired or left out and counted: corners that are swapped or outside the image,
boxes of no area, a class in two spellings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.boxes.lists import Boxes
from advisor.data.boxes.annotated import Annotated, RawBox
from advisor.errors import UserError, shown

SLACK = 1.0
"""Points that a box may reach beyond its image without a word: programs count from 0 or from 1."""
FEWEST_POINTS = 1.0
"""A box with a shorter side shows nothing."""
MOST_OUTSIDE = 0.5
"""Where more of the boxes lie outside, they are those of other images, or of another size."""


@dataclass(frozen=True)
class Repairs:
    """How many boxes were repaired or left out. spellings: of the classes that were joined, by the spelling
    that is kept."""

    swapped: int = 0
    clipped: int = 0
    outside: int = 0
    empty: int = 0
    repeated: int = 0
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def notes(self) -> dict[str, int]:
        """As the notes of a set."""
        counts = {f"{name}_boxes": getattr(self, name) for name in ("swapped", "clipped", "outside", "empty")}
        return {**counts, "repeated_boxes": self.repeated, "joined_classes": len(self.spellings)}

    def __add__(self, other: Repairs) -> Repairs:
        return Repairs(
            self.swapped + other.swapped,
            self.clipped + other.clipped,
            self.outside + other.outside,
            self.empty + other.empty,
            self.repeated + other.repeated,
            {**self.spellings, **other.spellings},
        )


@dataclass(frozen=True)
class ClassNames:
    """The classes in code order, and the spelling that stands for each other one."""

    names: tuple[str, ...]
    joined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, part: Annotated) -> ClassNames:
        """Of the boxes of the training images: spellings that differ in capitals or blanks are one class,
        written as it is most often. Classes that have no box are none."""
        often = Counter(box.label for own in part.boxes or () for box in own)
        spelt: dict[str, list[str]] = {}
        for label, _ in sorted(often.items(), key=lambda own: (-own[1], own[0])):
            spelt.setdefault(_word(label), []).append(label)
        names = [own[0] for own in spelt.values()]
        declared = {_word(label): place for place, label in enumerate(part.classes)}
        # in the order of the file, else by name, numbers by their value
        names.sort(key=lambda label: (declared.get(_word(label), len(declared)), *_by_value(label)))
        joined = {other: own[0] for own in spelt.values() for other in own[1:]}
        return cls(tuple(names), joined)

    def code(self, label: str) -> int:
        """-1 where it is no class that was learnt."""
        own = self.joined.get(label, label)
        if own in self.names:
            return self.names.index(own)
        return next((code for code, name in enumerate(self.names) if _word(name) == _word(label)), -1)

    @property
    def spellings(self) -> dict[str, tuple[str, ...]]:
        """The classes with several spellings, and the others of each."""
        return {
            kept: tuple(other for other, own in self.joined.items() if own == kept)
            for kept in dict.fromkeys(self.joined.values())
        }


def _word(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").split())


def _by_value(label: str) -> tuple[int, str]:
    return (int(label), "") if label.isdigit() and len(label) < 10 else (10**9, label)


def checked(
    part: Annotated, rows: Sequence[int], sizes: Sequence[tuple[int, int]], names: ClassNames, origin: str
) -> tuple[Boxes, Repairs, int]:
    """The boxes of these images in points, what was repaired, and the boxes of classes that are not known.

    sizes: (height, width) of each. UserError where most boxes are outside of their images.
    """
    assert part.boxes is not None
    total = sum(len(part.boxes[row]) for row in rows)
    codes = {label: names.code(label) for label in {box.label for own in part.boxes for box in own}}
    corners: list[NDArray[np.float64]] = []
    found: list[int] = []
    ends: list[int] = []
    repairs, strange = Repairs(), 0
    for row, size in zip(rows, sizes, strict=True):
        seen: set[tuple[float, ...]] = set()
        for raw in part.boxes[row]:
            own, repaired = _one(raw, size, part.shares)
            repairs += repaired
            if own is None:
                continue
            code = codes[raw.label]
            if (key := (*own.tolist(), code)) in seen:
                repairs += Repairs(repeated=1)
                continue
            seen.add(key)
            if code < 0:
                strange += 1
                continue
            corners.append(own)
            found.append(code)
        ends.append(len(found))
    if total and repairs.outside > MOST_OUTSIDE * total:
        raise UserError(
            f"{origin}: {repairs.outside:,} of {total:,} boxes are outside of their images; are they those "
            f"of these images, at their size? The first one: {_first_outside(part, rows, sizes)}"
        )
    whole = np.array(corners, np.float64).reshape(-1, 4)
    return Boxes(whole, np.array(found, np.int64), np.array(ends, np.int64)), repairs, strange


def _one(raw: RawBox, size: tuple[int, int], shares: bool) -> tuple[NDArray[np.float64] | None, Repairs]:
    height, width = size
    left, top, right, bottom = raw.corners
    swapped = left > right or top > bottom
    own = np.array([min(left, right), min(top, bottom), max(left, right), max(top, bottom)])
    own = own * np.tile([width, height], 2) if shares else own
    if (own[2:] - own[:2]).min() <= 0:
        return None, Repairs(empty=1)
    inside = np.clip(own, 0, np.tile([width, height], 2))
    if (inside[2:] - inside[:2]).min() <= 0:
        return None, Repairs(outside=1)
    if (inside[2:] - inside[:2]).min() < FEWEST_POINTS:
        return None, Repairs(empty=1)
    beyond = float(np.abs(inside - own).max()) > SLACK
    return inside, Repairs(swapped=int(swapped), clipped=int(beyond))


def _first_outside(part: Annotated, rows: Sequence[int], sizes: Sequence[tuple[int, int]]) -> str:
    assert part.boxes is not None
    for row, size in zip(rows, sizes, strict=True):
        for raw in part.boxes[row]:
            if _one(raw, size, part.shares)[1].outside:
                numbers = ", ".join(f"{value:g}" for value in raw.corners)
                return f"{numbers} in '{shown(part.names[row], 60)}' of {size[1]} x {size[0]} points"
    return ""
