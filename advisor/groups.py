"""Rows that belong together: columns that name things (a person, a site, a machine) of which each has several rows.

Where rows to come are of new things, a random split asks of a model what it has seen, and promises too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.columns import ASKED, CODE_NAME
from advisor.table import Table

FEWEST_APART, FEWEST_THINGS = 5, 10
"""A column names groups of which test rows have none, or things, from so many values among the training rows on: fewer can be
other than each other by chance, and folds of whole groups need some."""
RECURRING = 0.9
"""... and this share of the training rows shares its value with another row, two rows to a value on average."""
KNOWN = 0.01
"""At most this share of the test rows has a value that a training row has."""
MOST_MISSING = 0.1
ROWS, ROWS_OF_EACH = 100_000, 100
"""Of so many rows at most: drawn at random where a value has so many rows on average, else of values drawn at random."""
PAIRS = 1000
"""Pairs of rows of one thing, drawn at random, in which other columns are compared."""
FIXED, VARIED = 0.99, 0.8
"""A column belongs to the thing when it agrees in this share of such pairs, and in at most that share of any two rows."""
FEWEST_FIXED = 2
"""One such column is a hierarchy (a town in a county) as often as a thing."""
NEAR = 0.5
"""A column that differs by less than this share of what any two rows do where a number differs by one step is computed from it
(an hour from a time of day), and does not belong to what the number names."""


@dataclass(frozen=True)
class _Named:
    """Rows by the value that they have in a column. rows: in random order; codes: of their values, -1 where missing."""

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]


def measure_groups(table: Table) -> dict[str, Any]:
    """The facts ``groups.apart``, ``columns.groups_apart``, ``groups.things``, ``columns.things`` and ``columns.of_things``.

    Nothing where a group column was named. Things are looked for where no test table says what rows to come are of.
    """
    facts: dict[str, Any] = {"groups.apart": 0, "groups.things": 0}
    facts |= {"columns.groups_apart": [], "columns.things": [], "columns.of_things": []}
    if table.schema.group_column is not None:
        return facts
    named = {name: found for name in _candidates(table) if (found := _recurring(table.train[name])) is not None}
    values = {name: table.train[name].drop_nulls().n_unique() for name in named}
    if table.test_origin == "file":
        apart = [name for name, found in named.items() if _apart(table, name, found)]
        apart.sort(key=lambda name: (values[name], name))  # the coarsest first: what it holds apart, all others do
        return facts | {"groups.apart": len(apart), "columns.groups_apart": apart}
    many = {name: found for name, found in named.items() if values[name] >= FEWEST_THINGS}
    things = {name: of for name, found in many.items() if (of := _fixed(table, name, found))}
    if not things:
        return facts
    # of several names of one thing, the one that says so
    best = max(things, key=lambda name: (len(things[name]), CODE_NAME.search(name) is not None, -values[name], name))
    return facts | {"groups.things": values[best], "columns.things": [best], "columns.of_things": things[best]}


def _candidates(table: Table) -> list[str]:
    """Categories and whole numbers; not those of which the person said what they are."""
    free = [column for column in table.schema.columns if column.why != ASKED]
    numbers = (column.name for column in free if column.type == "numeric")
    whole = (name for name in numbers if _whole(table.train[name].head(1000)) and _whole(table.train[name]))
    return [*(column.name for column in free if column.type == "categorical"), *whole]


def _whole(cells: pl.Series) -> bool:
    return bool((cells.drop_nulls() % 1 == 0).all())


def _recurring(cells: pl.Series) -> _Named | None:
    """Rows by their values, of many rows a part; None where the values are too few or do not recur."""
    values, filled = cells.drop_nulls().n_unique(), len(cells) - cells.null_count()
    if cells.null_count() > MOST_MISSING * len(cells) or values < FEWEST_APART or 2 * values > filled:
        return None
    rows = np.random.default_rng(0).permutation(len(cells))  # rows that stand together are alike for other reasons
    if len(cells) > ROWS and len(cells) <= ROWS_OF_EACH * values:  # whole values: of a part of the rows few would recur
        kept = (cells.hash(seed=0) % -(-len(cells) // ROWS) == 0).to_numpy()
        rows = rows[kept[rows]]
    rows = rows[:ROWS]
    codes = cells[rows].rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1
    counts = np.bincount(codes[codes >= 0])
    return _Named(rows, codes) if counts[counts > 1].sum() >= RECURRING * counts.sum() else None


def _apart(table: Table, name: str, named: _Named) -> bool:
    """Whether the test rows have none of the values of the training rows; numbers that only go on do so as things alone."""
    train, test = table.train[name].drop_nulls(), table.test[name].drop_nulls()
    if not len(test) or test.len() < (1 - MOST_MISSING) * table.test.height:
        return False
    if test.is_in(train.unique().implode()).sum() > KNOWN * len(test):
        return False
    if not train.dtype.is_numeric():
        return True
    lowest, highest = float(train.min()), float(train.max())  # type: ignore[arg-type]
    inside = bool(((test > lowest) & (test < highest)).any())
    return inside or bool(_fixed(table, name, named, fewest=1))  # else a time, or a size, in which they lie beyond


def _fixed(table: Table, name: str, named: _Named, fewest: int = FEWEST_FIXED) -> list[str]:
    """The columns that agree in rows of one value of this one, and not in any two; [] where they are under ``fewest``.

    Without those that name the same things, and so agree nowhere else.
    """
    order = np.argsort(named.codes, kind="stable")
    rows, codes = named.rows[order], named.codes[order]
    known = np.flatnonzero(codes[:-1] >= 0)
    same = np.random.default_rng(0).permutation(known[codes[known] == codes[known + 1]])[:PAIRS]
    step = known[codes[known] != codes[known + 1]][:PAIRS]
    half = min(PAIRS, len(rows) // 2)
    any_two = named.rows[:half], named.rows[half : 2 * half]
    number = table.train[name].dtype.is_numeric()
    found = []
    for column in table.schema.columns:
        if column.name == name or column.type in ("identifier", "constant"):
            continue
        cells = table.train[column.name]
        if _agreement(cells, rows[same], rows[same + 1]) < FIXED or _agreement(cells, *any_two) > VARIED:
            continue
        if _same_things(cells[rows], codes):
            continue
        if number and _distance(cells, rows[step], rows[step + 1]) < NEAR * _distance(cells, *any_two):
            continue
        found.append(column.name)
    return sorted(found) if len(found) >= fewest else []


def _agreement(cells: pl.Series, left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    return float(cells[left].eq_missing(cells[right]).sum()) / max(1, len(left))


def _distance(cells: pl.Series, left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """The mean distance of pairs, in ranks of their values, as a share of those that there are."""
    ranks = pl.concat([cells[left], cells[right]]).rank("dense").fill_null(0).to_numpy().astype(np.float64)
    return float(np.abs(ranks[: len(left)] - ranks[len(left) :]).mean()) / max(1.0, float(ranks.max()))


def _same_things(cells: pl.Series, codes: NDArray[np.int64]) -> bool:
    """Whether each of its values is that of one thing alone."""
    both = pl.DataFrame({"cell": cells, "code": codes}).unique()
    return both["cell"].n_unique() >= FIXED * both["code"].n_unique()
