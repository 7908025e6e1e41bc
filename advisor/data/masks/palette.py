"""What the numbers or colours of masks stand for: found in the masks, or said by a legend.

A mask as it is read is int32 (height, width): its numbers, or its colours as 65,536 red + 256 green + blue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.errors import UserError, shown
from advisor.tasks import UNLABELLED

RawMask = NDArray[np.int32]

LEGENDS = ("legend", "classes", "labels", "labelmap", "class_names")
LEGEND_SUFFIXES = (".csv", ".tsv", ".txt", ".json")
LEGEND_BYTES = 1 << 20
MOST_CLASSES = 254
"""Codes are bytes, and one of them is UNLABELLED."""
_COLOUR = re.compile(r"#?([0-9a-fA-F]{6})")
_BYTE = 255


@dataclass(frozen=True)
class Palette:
    """The classes of masks.

    values: of each class, in code order: its number, or its colour as one number.
    names: of each class. coloured: whether values are colours. ignored: the values of unlabelled points.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    coloured: bool
    ignored: tuple[int, ...] = ()

    def codes(self, mask: RawMask) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The class codes of a mask, UNLABELLED where the value is ignored or no class; and the values that
        are neither."""
        found, inverse = np.unique(mask, return_inverse=True)
        code = {value: number for number, value in enumerate(self.values)}
        table = np.array([code.get(value, UNLABELLED) for value in found.tolist()], np.uint8)
        known = [value in code or value in self.ignored for value in found.tolist()]
        return table[inverse].reshape(mask.shape), found[~np.array(known, bool)].astype(np.int64)

    def written(self, codes: NDArray[np.uint8]) -> NDArray[np.int64] | NDArray[np.uint8]:
        """Codes (..., height, width) as the training masks had them: numbers, or colours (..., 3)."""
        values = np.array(self.values, np.int64)[codes]
        if not self.coloured:
            return values
        return np.stack([values >> 16, values >> 8 & _BYTE, values & _BYTE], axis=-1).astype(np.uint8)


def palette_of(
    found: Iterable[int], coloured: bool, legend: Mapping[int, str] | None, ignore: int | None, origin: str
) -> Palette:
    """The classes of masks with these values. ignore: the value of unlabelled points; None: 255, unless 0 and
    255 are all there is. UserError where there are fewer than two classes, or too many."""
    values, ignored = sorted(set(found)), tuple[int, ...]()
    if ignore is not None:
        ignored = (ignore,)
    else:
        plain = not coloured and not set(values) <= {0, UNLABELLED}
        ignored = (UNLABELLED,) if plain and (legend is None or UNLABELLED not in legend) else ()
    classes = [value for value in (sorted(legend) if legend else values) if value not in ignored]
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"{origin}: the masks have {len(classes):,} classes; at most {MOST_CLASSES} can be told apart: "
            "is each object numbered? Give one number to all objects of a class"
        )
    if len(set(classes) & set(values)) < 2:
        only = next(iter(set(classes) & set(values)), None)
        none = "none of the legend's values" if legend else "no labelled point"
        what = none if only is None else f"one class only, {value_text(only, coloured)}"
        raise UserError(f"{origin}: the masks have {what}; expected two classes or more")
    names = tuple((legend or {}).get(value) or value_text(value, coloured) for value in classes)
    return Palette(tuple(classes), names, coloured, ignored)


def value_text(value: int, coloured: bool) -> str:
    """A value as people write it: 7, or #ff0000."""
    return f"#{value:06x}" if coloured else str(value)


def mask_value(text: str) -> int:
    """What ``value_text`` wrote, as it is given with --ignore. UserError for anything else."""
    if re.fullmatch(r"\d{1,5}", text):
        return int(text)
    if found := _COLOUR.fullmatch(text.strip()):
        return int(found[1], 16)
    raise UserError(
        f"ignore is '{shown(text, 40)}'; expected a number such as 255, or a colour such as #ffffff"
    )


# ---------------------------------------------------------------------------------------------------- legends


def find_legend(folders: Sequence[Path]) -> Path | None:
    """The legend that lies in one of these folders."""
    for folder in folders:
        for name in LEGENDS:
            for suffix in LEGEND_SUFFIXES:
                if (folder / f"{name}{suffix}").is_file():
                    return folder / f"{name}{suffix}"
    return None


def read_legend(path: Path) -> tuple[dict[int, str], bool]:
    """Value -> name of the class, and whether the values are colours.

    Lines such as ``1,cell``, ``255,0,0,cell``, ``#ff0000 cell``, ``cell: 1``, or names alone, which count
    from
    0; JSON as a list of names, or with values as keys or as values. UserError for anything else.
    """
    where = shown(path, 200)
    try:
        content = path.read_bytes()[:LEGEND_BYTES].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the legend {where} cannot be read as text: {error}") from error
    entries = _of_json(content, where) if path.suffix.lower() == ".json" else _of_lines(content)
    found: dict[int, str] = {}
    names: set[str] = set()
    coloured = any(colour for _, _, colour in entries)
    for value, name, _ in entries:
        if value in found or name in names:
            raise UserError(
                f"the legend {where} has '{shown(name, 40)}' or its value "
                f"{value_text(value, coloured)} twice; expected one line for each class"
            )
        found[value] = name
        names.add(name)
    if len(found) < 2:
        raise UserError(
            f"the legend {where} names {len(found)} classes; expected lines such as '1,cell' or "
            "'255,0,0,cell', one for each class"
        )
    return found, coloured


_Entry = tuple[int, str, bool]


def _of_json(content: str, where: str) -> list[_Entry]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise UserError(f"the legend {where} is no JSON: {error}") from error
    if isinstance(document, list) and all(isinstance(name, str) for name in document):
        return [(number, name, False) for number, name in enumerate(document)]
    if not isinstance(document, dict):
        raise UserError(f"the legend {where} is neither a list of names nor values with their names")
    pairs = [(str(key), value) for key, value in document.items()]
    lines = [f"{' '.join(map(str, v)) if isinstance(v, list) else v} {key}" for key, v in pairs]
    return _of_lines("\n".join(lines))


def _of_lines(content: str) -> list[_Entry]:
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    entries = [entry for line in lines if (entry := _of_line(line)) is not None]
    if not entries and lines and not any(re.search(r"\d", line) for line in lines):
        return [(number, line, False) for number, line in enumerate(lines)]
    return entries


def _of_line(line: str) -> _Entry | None:
    """A value (one number, three, or #rrggbb) before or after a name; None for a header."""
    words = [word for word in re.split(r"[\s,;:=]+", line.strip()) if word]
    if not words:
        return None
    for parts, rest in ((words, 1), (words[::-1], -1)):
        if colour := re.fullmatch(r"#([0-9a-fA-F]{6})", parts[0]):
            return int(colour[1], 16), " ".join(words[1:] if rest == 1 else words[:-1]), True
        for count in (3, 1):
            own = parts[:count]
            numbers = all(re.fullmatch(r"\d{1,5}", word) for word in own)
            if len(parts) > count and len(own) == count and numbers:
                name = " ".join(words[count:] if rest == 1 else words[:-count])
                values = [int(word) for word in (own if rest == 1 else own[::-1])]
                if count == 3 and max(values) <= _BYTE:
                    return values[0] << 16 | values[1] << 8 | values[2], name, True
                if count == 1:
                    return values[0], name, False
    return None
