"""Rows of a table -> arrays for the training layer, by its schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.column import Column, conform, side_name
from advisor.data.columns.numbers import beyond
from advisor.data.sources.source import with_unique_names
from advisor.data.tables.new_rows import read_new
from advisor.data.tables.schema import TableSchema
from advisor.dataset import MISSING, UNSEEN, Features
from advisor.errors import FormChange, UserError, did_you_mean, shown

SAMPLE_ROWS = 20_000
"""Types are judged on at most this many training rows."""
MAX_WORDS = 64
"""A text column becomes this many words at most, the most frequent ones, beside its length."""
WORD_ROWS, WORD_SHARE, COMMON_WORD = 5, 0.005, 0.5
"""A word that fewer training rows have, or a smaller share of them, or a larger one
than COMMON_WORD, is none of these."""
HASHED_WORDS = 32
"""Columns that a text became in models of before its words were chosen."""


def frequent_words(cells: pl.Series) -> tuple[str, ...]:
    """The words that a text is told by: they are learnt from rows alone, not from the target."""
    from sklearn.feature_extraction.text import CountVectorizer  # a second of imports, for text columns only

    texts = cells.drop_nulls()
    texts = texts.gather_every(max(1, -(-len(texts) // SAMPLE_ROWS)))
    least = max(WORD_ROWS, round(WORD_SHARE * len(texts)))
    counter = CountVectorizer(binary=True, min_df=least, max_df=COMMON_WORD, max_features=MAX_WORDS)
    try:
        counter.fit(texts.to_list())
    except ValueError:  # no word is left, or there is none
        return ()
    return tuple(sorted(counter.vocabulary_))


def encode_none(schema: TableSchema) -> Features:
    """The features of no row: the names of columns and categories as rows have them."""
    names = [column.name for column in schema.columns]
    names += [] if schema.time is None else [schema.time.name]
    return encode(pl.DataFrame(schema=dict.fromkeys(names, pl.String)), schema)


def encode(frame: pl.DataFrame, schema: TableSchema) -> Features:
    """Rows -> arrays: columns are looked up by name, extra ones are ignored, unseen levels become UNSEEN.

    numeric holds, in the order of the columns: numbers as they are, booleans as 0/1, a date as days
    since 1970, year, month, day, weekday (1 is Monday) and hour where hours matter, a text as its
    words and its length; last the time column's parts. What cannot be read is missing. UserError
    naming every column that is needed and absent.
    """
    frame = with_unique_names(frame)
    used = _needed(frame, schema)
    numeric: dict[str, NDArray[Any]] = {}
    codes: dict[str, NDArray[np.int32]] = {}
    for column in used:
        cells, _ = conform(frame[column.name], column)
        if column.type == "categorical":
            codes[column.name] = level_codes(cells, schema.levels[column.name])
        else:
            numeric |= column_arrays(cells, column, schema.words.get(column.name))
        if column.limits:
            side = side_name(column.name)
            sides = frame[side] if side in frame.columns else beyond(frame[column.name])
            numeric[side] = sides.cast(pl.Float64).to_numpy()
    if schema.time is not None:
        cells, _ = conform(frame[schema.time.name], schema.time)
        parts = column_arrays(cells, schema.time)
        numeric |= {name: parts[name] for name in schema.time_parts}
    numbers = np.empty((frame.height, len(numeric)), np.float64)
    for position, array in enumerate(numeric.values()):
        numbers[:, position] = array
    categorical = np.empty((frame.height, len(codes)), np.int32)
    for position, code in enumerate(codes.values()):
        categorical[:, position] = code
    levels = tuple(schema.levels[name] for name in codes)
    texts = (column for column in used if column.type == "text" and column.name in schema.words)
    words = tuple(name for column in texts for name in encoded_names(column, schema.words[column.name])[:-1])
    return Features(
        numeric=numbers,
        categorical=categorical,
        numeric_names=tuple(numeric),
        categorical_names=tuple(codes),
        levels=levels,
        trend=schema.time_parts[-1:],
        words=words,
        calendar=schema.calendar,
        working=schema.working,
    )


def encode_new(
    frame: pl.DataFrame, schema: TableSchema, *, strict: bool = False
) -> tuple[Features, tuple[FormChange, ...]]:
    """New rows -> arrays, as ``encode`` makes them, and what is unlike the training rows
    in their form (see ``new_rows``)."""
    frame = with_unique_names(frame)
    _needed(frame, schema)
    read, changes = read_new(frame, schema, strict=strict)
    return encode(read, schema), changes


def _needed(frame: pl.DataFrame, schema: TableSchema) -> list[Column]:
    """The columns that reach the network; UserError naming those that the frame lacks."""
    used = [column for column in schema.columns if column.type not in ("identifier", "constant")]
    needed = used if schema.time is None else [*used, schema.time]
    there = set(frame.columns)
    if missing := [column.name for column in needed if column.name not in there]:
        raise UserError(lacking_columns("the table given", missing, frame.columns))
    return used


def lacking_columns(what: str, missing: Sequence[str], columns: Sequence[str]) -> str:
    """What to say of columns that are needed and absent. what: the table that lacks them."""
    names = ", ".join(f"'{shown(name, 40)}'" for name in missing[:10])
    rest = f" and {len(missing) - 10} more" if missing[10:] else ""
    near = shown(did_you_mean(missing[0], columns))
    return f"{what} has no column {names}{rest}{near}; expected the columns of the training table"


def level_codes(cells: pl.Series, levels: Sequence[str]) -> NDArray[np.int32]:
    """The place of each cell's text among the levels; UNSEEN or MISSING."""
    codes = np.full(len(cells), UNSEEN, np.int32)
    if levels:
        known = cells.cast(pl.Enum(pl.Series(levels, dtype=pl.String)), strict=False).to_physical()
        codes = known.cast(pl.Int32).fill_null(UNSEEN).to_numpy().copy()
    codes[cells.is_null().to_numpy()] = MISSING
    return codes


def encoded_names(column: Column, words: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names of the numeric arrays that a column becomes; () for one that is categorical or not used.
    words: a text's."""
    if column.limits:
        return (column.name, side_name(column.name))
    if column.type in ("numeric", "boolean"):
        return (column.name,)
    if column.type == "datetime":
        hours = any(mark in column.format for mark in ("%H", "%I", "hours", "seconds"))
        parts = ("days", "year", "month", "day", "weekday") + (("hour",) if hours else ())
        return tuple(f"{column.name}.{part}" for part in parts)
    if column.type == "text":
        parts = (
            tuple(f"word{place}" for place in range(HASHED_WORDS))
            if words is None
            else tuple(f"word.{w}" for w in words)
        )
        return tuple(f"{column.name}.{part}" for part in (*parts, "length"))
    return ()


def column_arrays(
    cells: pl.Series, column: Column, words: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """The numeric arrays that a column's conformed cells become, by ``encoded_names``."""
    if column.type == "datetime":
        arrays = _date_parts(cells)
    elif column.type == "text":
        found = _hashed_words(cells) if words is None else _found_words(cells, words)
        arrays = [*found.T, cells.str.len_chars().cast(pl.Float64).to_numpy()]
    else:
        arrays = [cells.cast(pl.Float64).to_numpy()]
    # of a date without hours the last part is left out
    return dict(zip(encoded_names(column, words), arrays, strict=False))


def _date_parts(cells: pl.Series) -> list[NDArray[Any]]:
    date = cells.dt
    hour = date.hour().cast(pl.Float64) + date.minute().cast(pl.Float64) / 60
    parts = (date.epoch("us") / 86_400_000_000, date.year(), date.month(), date.day(), date.weekday(), hour)
    return [values.cast(pl.Float64).to_numpy() for values in parts]


def _found_words(cells: pl.Series, words: Sequence[str]) -> NDArray[np.float64]:
    """Which of the words a text has, shape (rows, words), the squares of a row adding up to 1."""
    from sklearn.feature_extraction.text import CountVectorizer

    if not words or not len(cells):
        return np.zeros((len(cells), len(words)))
    counter = CountVectorizer(binary=True, vocabulary=list(words), dtype=np.float64)
    found = counter.transform(cells.fill_null("").to_list()).toarray()
    return np.asarray(found / np.sqrt(np.maximum(found.sum(axis=1, keepdims=True), 1)))


def _hashed_words(cells: pl.Series) -> NDArray[np.float64]:
    from sklearn.feature_extraction.text import HashingVectorizer

    if not len(cells):
        return np.empty((0, HASHED_WORDS))
    return np.asarray(
        HashingVectorizer(n_features=HASHED_WORDS).transform(cells.fill_null("").to_list()).toarray()
    )
