"""Rows that belong together: columns that name things (a person, a site, a machine) of which each has several rows.

Where rows to come are of new things, a random split asks of a model what it has seen, and promises too much.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.columns import CODE_NAME
from advisor.table import Table

FEWEST_APART, FEWEST_THINGS = 5, 10
"""A column names groups of which test rows have none, or things, from so many values among the training rows on: fewer can be
other than each other by chance, and folds of whole groups need some."""
RECURRING = 0.9
"""... and this share of the training rows shares its value with another row, two rows to a value on average."""
KNOWN = 0.01
"""At most this share of the test rows has a value that a training row has."""
MOST_MISSING = 0.1
PAIRS = 1000
"""Neighbouring pairs of one thing, drawn at random, in which other columns are compared."""
FIXED, VARIED = 0.99, 0.8
"""A column belongs to the thing when it agrees in this share of such pairs, and in at most that share of any two rows."""
FEWEST_FIXED = 2
"""One such column is a hierarchy (a town in a county) as often as a thing."""
NEAR = 0.5
"""A column that differs by less than this share of what any two rows do where a number differs by one step is computed from it
(an hour from a time of day), and does not belong to what the number names."""


def measure_groups(table: Table) -> dict[str, Any]:
    """The facts ``groups.apart``, ``columns.groups_apart``, ``groups.things``, ``columns.things`` and ``columns.of_things``.

    Nothing where a group column was named. Things are looked for where no test table says what rows to come are of.
    """
    facts: dict[str, Any] = {"groups.apart": 0, "groups.things": 0}
    facts |= {"columns.groups_apart": [], "columns.things": [], "columns.of_things": []}
    if table.schema.group_column is not None:
        return facts
    named = {name: codes for name in _candidates(table) if (codes := _recurring(table.train[name])) is not None}
    if table.test_origin == "file":
        order = {name: int(codes.max()) for name, codes in named.items() if _apart(table, name, codes)}
        apart = sorted(order, key=lambda name: (order[name], name))  # the coarsest first: what it holds apart, all others do
        return facts | {"groups.apart": len(apart), "columns.groups_apart": apart}
    many = {name: codes for name, codes in named.items() if codes.max() >= FEWEST_THINGS - 1}
    things = {name: of for name, codes in many.items() if (of := _fixed(table, name, codes))}
    if not things:
        return facts
    # of several names of one thing, the one that says so
    best = max(things, key=lambda name: (len(things[name]), CODE_NAME.search(name) is not None, -int(named[name].max()), name))
    return facts | {"groups.things": int(named[best].max()) + 1, "columns.things": [best], "columns.of_things": things[best]}


def _candidates(table: Table) -> list[str]:
    schema = table.schema
    numbers = (column.name for column in schema.of_type("numeric"))
    whole = (name for name in numbers if bool((table.train[name].drop_nulls() % 1 == 0).all()))
    return [*(column.name for column in schema.of_type("categorical")), *whole]


def _recurring(cells: pl.Series) -> NDArray[np.int64] | None:
    """Codes of the values, -1 where missing; None where they are too few or do not recur."""
    if cells.null_count() > MOST_MISSING * len(cells):
        return None
    codes = cells.rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1
    counts = np.bincount(codes[codes >= 0])
    filled = int(counts.sum())
    if len(counts) < FEWEST_APART or 2 * len(counts) > filled or counts[counts > 1].sum() < RECURRING * filled:
        return None
    return codes


def _apart(table: Table, name: str, codes: NDArray[np.int64]) -> bool:
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
    return inside or bool(_fixed(table, name, codes, fewest=1))  # else a time, or a size, in which they lie beyond


def _fixed(table: Table, name: str, codes: NDArray[np.int64], fewest: int = FEWEST_FIXED) -> list[str]:
    """The columns that agree in rows of one value of this one, and not in any two; [] where they are under ``fewest``.

    Without those that name the same things, and so agree nowhere else.
    """
    rng = np.random.default_rng(0)
    mixed = rng.permutation(len(codes))  # rows that stand together are alike for other reasons
    order = mixed[np.argsort(codes[mixed], kind="stable")]
    first = np.flatnonzero((codes[order[:-1]] == codes[order[1:]]) & (codes[order[:-1]] >= 0))
    first = rng.permutation(first)[:PAIRS]
    any_two = rng.permutation(len(codes))[: 2 * PAIRS]
    half = len(any_two) // 2
    number = table.train[name].dtype.is_numeric()
    next_value = np.flatnonzero((codes[order[:-1]] != codes[order[1:]]) & (codes[order[:-1]] >= 0))
    steps = order[next_value], order[next_value + 1]
    found = []
    for column in table.schema.columns:
        if column.name == name or column.type in ("identifier", "constant"):
            continue
        cells = table.train[column.name]
        if _agreement(cells, order[first], order[first + 1]) < FIXED:
            continue
        left, right = any_two[:half], any_two[half : 2 * half]
        if _agreement(cells, left, right) > VARIED or _same_things(cells, codes):
            continue
        if number and _distance(cells, *steps) < NEAR * _distance(cells, left, right):
            continue
        found.append(column.name)
    return sorted(found) if len(found) >= fewest else []


def _agreement(cells: pl.Series, left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    return float(cells[left].eq_missing(cells[right]).sum()) / max(1, len(left))


def _distance(cells: pl.Series, left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    ranks = cells.rank("dense").fill_null(0).to_numpy().astype(np.float64)
    return float(np.abs(ranks[left] - ranks[right]).mean())


def _same_things(cells: pl.Series, codes: NDArray[np.int64]) -> bool:
    """Whether each of its values is that of one thing alone."""
    both = pl.DataFrame({"cell": cells, "code": codes}).unique()
    return both["cell"].n_unique() >= FIXED * both["code"].n_unique()
