"""Tables with a column per pixel, as digits and letters are handed round: which
columns they are, and rows of images."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from advisor.data.columns.numbers import number_format
from advisor.data.signals.arrays.axes import square_side
from advisor.data.signals.arrays.values import as_images, bits_of_array
from advisor.data.signals.pixels import BYTE
from advisor.data.signals.rows import ArrayValues, Found, RawRows, Request
from advisor.data.tables.target import finite_numbers
from advisor.errors import UserError, shown

SMALLEST_SIDE = 6
_NAME = re.compile(r"(pixel|pix|px)[ _.]?\d+|\d+x\d+", re.IGNORECASE)
MOST_OTHERS = 4
"""A label, an id, a group and a part stand beside the pixels at most."""


def named_pixels(names: Sequence[str]) -> tuple[str, ...]:
    """The columns pixel0, pixel1 and so on, or 1x1, 1x2 and so on, of a square; () where there are none."""
    found = tuple(name for name in names if _NAME.fullmatch(name.strip()))
    return (
        found if square_side(len(found)) >= SMALLEST_SIDE and len(names) - len(found) <= MOST_OTHERS else ()
    )


def read_pixels(frame: pl.DataFrame, name: str, origin: str, request: Request) -> Found | None:
    """Rows of grey images from the pixels' columns, row after row of the image; None
    where the table has no square of them."""
    beside = {getattr(request, role) for role in ("target", "id_column", "group_column")}
    columns = request.columns or named_pixels(frame.columns)
    columns = columns or tuple(column for column in frame.columns if column not in beside)
    side = square_side(len(columns))
    if side < SMALLEST_SIDE:
        return None
    cells = {}
    for column in columns:
        if column not in frame.columns:
            raise UserError(
                f"{shown(origin)} has no column '{shown(column, 40)}'; expected the pixels of the training "
                "table"
            )
        numbers = finite_numbers(frame[column], number_format(frame[column]))
        if numbers is None and not request.columns:
            return None
        if numbers is None or numbers.null_count():
            raise UserError(
                f"{shown(origin)}: pixels are missing in column '{shown(column, 40)}'; expected numbers in "
                "all rows"
            )
        cells[column] = numbers
    if request.needs_target and request.target is None:
        others = ", ".join(f"'{shown(column, 30)}'" for column in frame.columns if column not in cells)
        raise UserError(
            f"{shown(origin)} is a table of pixels: name the column to predict as its target, of "
            f"{others or 'none'}"
        )
    flat = np.stack([numbers.to_numpy() for numbers in cells.values()], axis=1)
    whole = np.array_equal(flat, np.rint(flat))
    values = (flat.astype(np.int64) if whole else flat).reshape(len(flat), side, side)
    bits = request.bits if request.bits > BYTE else bits_of_array(values)
    images = as_images(values, shown(origin), request.like, bits)
    texts = {
        role: frame[column].cast(pl.String).fill_null("")
        for role in ("id_column", "group_column")
        if (column := getattr(request, role)) in frame.columns
    }
    groups, ids = texts.get("group_column"), texts.get("id_column")
    answer = frame[request.target] if request.needs_target and request.target is not None else None
    return Found(
        "image", name, origin, str(request.target), images.shape[1:],
        RawRows(ArrayValues(images), answer, groups, () if ids is None else tuple(ids.to_list())),
        group_column=None if groups is None else request.group_column,
        columns=columns, id_column=request.id_column, bits=bits,
        ignored=tuple(column for column in frame.columns if column not in beside and column not in cells),
    )  # fmt: skip
