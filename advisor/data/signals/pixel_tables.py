"""Tables with a column per pixel, as digits and letters are handed round: which
columns they are, and rows of images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.numbers import number_format
from advisor.data.signals.arrays.axes import square_side
from advisor.data.signals.arrays.values import as_images, bits_of_array
from advisor.data.signals.pixels import BYTE
from advisor.data.signals.rows import ArrayValues, Found, RawRows, Request
from advisor.data.sources.source import Source
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


def read_pixels(read: Source, origin: str, request: Request) -> Found | None:
    """Rows of grey images from the pixels' columns, row after row of the image; None
    where the table has no square of them."""
    frame = read.frame
    roles = {role: getattr(request, role) for role in ("target", "id_column", "group_column")}
    columns = _pixel_columns(frame, set(roles.values()), request)
    pixels = _pixels(frame, columns, origin, request)
    if pixels is None:
        return None
    of_pixels = set(columns)
    beside = [column for column in frame.columns if column not in of_pixels]
    if request.needs_target and request.target is None:
        others = ", ".join(f"'{shown(column, 30)}'" for column in beside)
        raise UserError(
            f"{shown(origin)} is a table of pixels: name the column to predict as its target, of "
            f"{others or 'none'}"
        )
    bits = request.bits if request.bits > BYTE else bits_of_array(pixels)
    images = as_images(pixels, shown(origin), request.like, bits)
    groups, ids = _texts(frame, request.group_column), _texts(frame, request.id_column)
    answer = frame[request.target] if request.needs_target and request.target is not None else None
    return Found(
        kind="image",
        name=read.name,
        origin=origin,
        target=str(request.target),
        shape=images.shape[1:],
        train=RawRows(ArrayValues(images), answer, groups, () if ids is None else tuple(ids.to_list())),
        group_column=None if groups is None else request.group_column,
        columns=columns,
        id_column=request.id_column,
        bits=bits,
        ignored=tuple(column for column in beside if column not in roles.values()),
    ).reading(read)


def _pixel_columns(frame: pl.DataFrame, beside: set[str | None], request: Request) -> tuple[str, ...]:
    """Those of the training rows, or those with names of pixels, or all without a role; () where they make no
    square."""
    columns = request.columns or named_pixels(frame.columns)
    columns = columns or tuple(column for column in frame.columns if column not in beside)
    return columns if square_side(len(columns)) >= SMALLEST_SIDE else ()


def _pixels(
    frame: pl.DataFrame, columns: tuple[str, ...], origin: str, request: Request
) -> NDArray[Any] | None:
    """The cells of the columns, shape (rows, side, side), whole numbers as int64; None where these are no
    numbers, unless the training rows had these columns."""
    numbers = []
    for column in columns:
        if column not in frame.columns:
            raise UserError(
                f"{shown(origin)} has no column '{shown(column, 40)}'; expected the pixels of the training "
                "table"
            )
        cells = finite_numbers(frame[column], number_format(frame[column]))
        if cells is None and not request.columns:
            return None
        if cells is None or cells.null_count():
            raise UserError(
                f"{shown(origin)}: pixels are missing in column '{shown(column, 40)}'; expected numbers in "
                "all rows"
            )
        numbers.append(cells.to_numpy())
    if not numbers:
        return None
    flat, side = np.stack(numbers, axis=1), square_side(len(columns))
    whole = np.array_equal(flat, np.rint(flat))
    return (flat.astype(np.int64) if whole else flat).reshape(len(flat), side, side)


def _texts(frame: pl.DataFrame, column: str | None) -> pl.Series | None:
    return frame[column].cast(pl.String).fill_null("") if column in frame.columns else None
