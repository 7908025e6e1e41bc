"""Cells of any column: as text, counted, ranked, and the words that stand for a missing one."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

DECLARED = (pl.Categorical, pl.Enum)
"""The types of a column that somebody has declared to hold categories, whatever these look like."""
TEXTS = (pl.String, *DECLARED)
MOSTLY = 0.95
"""Text becomes numbers or dates when this share of the cells that are no missing-marks can be read so."""
MISSING_MARKS: tuple[str, ...] = (
    "?",
    "-",
    "--",
    ".",
    "*",
    "n/a",
    "n.a.",
    "na",
    "nan",
    "null",
    "none",
    "nil",
    "unknown",
)
MISSING_MARKS += (
    "missing",
    "not available",
    "#n/a",
    "#div/0!",
    "#value!",
    "#ref!",
    "#name?",
    "#num!",
    "#null!",
    "#error!",
)
"""Words that do not speak against numbers or dates in a column (there they are
missing; elsewhere they are levels)."""
BOOLEAN_WORDS: tuple[tuple[str, str], ...] = (
    ("false", "true"),
    ("no", "yes"),
    ("n", "y"),
    ("f", "t"),
    ("off", "on"),
    ("0", "1"),
)
BOOLEAN_WORDS += (
    ("falsch", "wahr"),
    ("nein", "ja"),
    ("faux", "vrai"),
    ("non", "oui"),
    ("falso", "verdadero"),
    ("no", "sí"),
)
BOOLEAN_WORDS += (
    ("no", "si"),
    ("falso", "vero"),
    ("falso", "verdadeiro"),
    ("não", "sim"),
    ("nee", "ja"),
    ("nej", "ja"),
)
"""Pairs of words (false, true), in lower case, that make a column boolean."""
EXACT_IN_FLOAT = 2**53
"""Up to this, a 64-bit float holds every whole number."""
FEW_TEXTS = 100_000
"""Up to this many different texts are looked up, of more all are sorted."""


def without_marks(counts: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """The values of a tally that are no missing-marks, and their rows."""
    plain = counts.filter(~is_mark(counts["value"]))
    return plain["value"], plain["rows"]


def is_mark(texts: pl.Series) -> pl.Series:
    """Which texts are words for a missing cell."""
    return texts.str.strip_chars().str.to_lowercase().is_in(MISSING_MARKS)


def tally(cells: pl.Series) -> pl.DataFrame:
    """How often each value occurs: columns value and rows, the most frequent first, equal ones by value."""
    return cells.alias("value").value_counts(name="rows").sort("rows", "value", descending=[True, False])


def ranked(cells: pl.Series | NDArray[np.float64]) -> NDArray[np.int64]:
    """Equal cells as equal whole numbers that keep their order, from 1; 0 for a missing one (of numbers in
    an array NaN)."""
    if isinstance(cells, np.ndarray) or cells.dtype == pl.Float64:
        # NumPy: of thousands of columns the set-up of polars takes longer
        values, place = np.unique(np.asarray(cells), return_inverse=True)
        missing = np.isnan(values[-1:]).any()
        return np.asarray(np.where(place == len(values) - 1, 0, place + 1) if missing else place + 1)
    if cells.dtype == pl.String and len(texts := cells.drop_nulls().unique().sort()) <= FEW_TEXTS:
        # a look-up takes a tenth of the time of sorting all texts
        codes = cells.cast(pl.Enum(texts)).to_physical().cast(pl.Int64) + 1
    else:
        codes = cells.rank("dense")
    return np.asarray(codes.fill_null(0).to_numpy().astype(np.int64))


def labels(cells: pl.Series) -> pl.Series:
    """Cells as text: whole numbers without a point, so that 3 and 3.0 are one
    level; the empty text is missing."""
    if cells.dtype.is_float():
        cells = cells.fill_nan(None)
        whole = cells.drop_nulls()
        if bool((whole == whole.round(0)).all()) and bool((whole.abs() < EXACT_IN_FLOAT).all()):
            cells = cells.cast(pl.Int64)
    if cells.dtype == pl.Boolean:
        return cells.replace_strict([False, True], ["False", "True"], return_dtype=pl.String)
    if isinstance(cells.dtype, pl.Decimal):
        return labels(cells.cast(pl.Float64))
    return as_text(cells)


def as_text(cells: pl.Series) -> pl.Series:
    """Cells as text, durations as pandas writes them; the empty text is missing."""
    texts = _written(cells) if cells.dtype == pl.Duration else cells.cast(pl.String)
    empty = texts == ""
    return texts.set(empty, None) if empty.any() else texts


def _written(durations: pl.Series) -> pl.Series:
    """Durations as pandas writes them: 1 days 02:00:00, with six digits of a
    second where it is no whole one."""
    micro = durations.dt.total_microseconds()
    day, rest = micro // 86_400_000_000, micro % 86_400_000_000
    seconds, part = rest // 1_000_000, rest % 1_000_000
    two = [
        (number.cast(pl.String)).str.zfill(2)
        for number in (seconds // 3600, seconds // 60 % 60, seconds % 60)
    ]
    shown = pl.DataFrame({"part": part, "digits": part.cast(pl.String).str.zfill(6)})
    fraction = shown.select(
        pl.when(pl.col("part") > 0).then("." + pl.col("digits")).otherwise(pl.lit(""))
    ).to_series()
    sign = (
        pl.DataFrame({"day": day})
        .select(pl.when(pl.col("day") < 0).then(pl.lit("+")).otherwise(pl.lit("")))
        .to_series()
    )
    return (day.cast(pl.String) + " days " + sign + two[0] + ":" + two[1] + ":" + two[2] + fraction).alias(
        durations.name
    )


def as_booleans(cells: pl.Series) -> pl.Series:
    """Cells as booleans, by ``BOOLEAN_WORDS``; null where they are neither."""
    if cells.dtype == pl.Boolean:
        return cells
    texts = labels(cells).str.strip_chars().str.to_lowercase()
    pairs = {word: bool(value) for pair in BOOLEAN_WORDS for value, word in enumerate(pair)}
    return texts.replace_strict(list(pairs), list(pairs.values()), default=None, return_dtype=pl.Boolean)
