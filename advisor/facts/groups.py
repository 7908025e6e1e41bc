"""Rows that belong together: columns that name things (a person, a site, a
machine) of which each has several rows.

Where rows to come are of new things, a random split asks of a model what it has seen, and promises too much.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.tables.columns import ASKED, CODE_NAME
from advisor.data.tables.table import Table

FEWEST_APART, FEWEST_THINGS = 5, 10
"""A column names groups of which test rows have none, or things, from so many values among the training rows
on: fewer can be other than each other by chance, and folds of whole groups need some."""
RECURRING = 0.9
"""... and this share of the training rows shares its value with another row, two
rows to a value on average."""
KNOWN = 0.01
"""At most this share of the test rows has a value that a training row has."""
MOST_MISSING = 0.1
ROWS, ROWS_OF_EACH = 100_000, 100
"""Of so many rows at most: drawn at random where a value has so many rows on
average, else of values drawn at random."""
PAIRS = 1000
"""Pairs of rows of one thing, drawn at random, in which other columns are compared."""
FIXED, VARIED = 0.99, 0.8
"""A column belongs to the thing when it agrees in this share of such pairs, and in
at most that share of any two rows."""
FEWEST_FIXED = 2
"""One such column is a hierarchy (a town in a county) as often as a thing."""
NEARLY = 0.1
"""Numbers nearly agree in rows of one thing that differ by less than this share of what any two rows do."""
NEAR = 0.5
"""A column that differs by less than this share of what any two rows do where a number differs by one step is
computed from it (an hour from a time of day), and does not belong to what the number names."""


@dataclass(frozen=True)
class _Named:
    """Rows by the value that they have in a column.
    rows: in random order;
    codes: of their values, -1 where missing;
    values: how many all rows have."""

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    values: int

    @functools.cached_property
    def pairs(self) -> _Pairs:
        """Pairs of these rows."""
        return _pairs(self)


def measure_groups(table: Table, leaking: Sequence[str] = ()) -> dict[str, Any]:
    """The facts ``groups.unseen_columns``, ``columns.unseen_groups``, ``groups.entities``,
    ``columns.entity`` and ``columns.of_entities``.

    Nothing where a group column was named. Things are looked for where no test
    table says what rows to come are of.
    leaking: columns that give the target away; a category whose rows agree in the target
        alone is one of these, and no thing.
    """
    facts: dict[str, Any] = {"groups.unseen_columns": 0, "groups.entities": 0}
    facts |= {"columns.unseen_groups": [], "columns.entity": [], "columns.of_entities": []}
    if table.schema.group_column is not None:
        return facts
    # rows that stand together are alike for other reasons
    order = np.random.default_rng(0).permutation(table.train.height)
    named = {
        name: found
        for name in _candidates(table)
        if (found := _recurring(table.train[name], order)) is not None
    }
    values = {name: found.values for name, found in named.items()}
    if table.test_origin == "file":
        apart = [name for name, found in named.items() if _apart(table, name, found)]
        apart.sort(
            key=lambda name: (values[name], name)
        )  # the coarsest first: what it holds apart, all others do
        return facts | {"groups.unseen_columns": len(apart), "columns.unseen_groups": apart}
    many = {name: found for name, found in named.items() if values[name] >= FEWEST_THINGS}
    things = {name: of for name, found in many.items() if (of := _shared(table, name, found))}
    codes = {name for name in leaking if not table.train[name].dtype.is_numeric()}
    things = {name: of for name, of in things.items() if name not in codes or of != [table.schema.target]}
    if not things:
        return facts
    # of several names of one thing, the one that says so
    best = max(
        things, key=lambda name: (len(things[name]), CODE_NAME.search(name) is not None, -values[name], name)
    )
    return facts | {
        "groups.entities": values[best],
        "columns.entity": [best],
        "columns.of_entities": things[best],
    }


def _candidates(table: Table) -> list[str]:
    """Categories and whole numbers; not those of which the person said what they are."""
    free = [column for column in table.schema.columns if column.why != ASKED]
    numbers = (column.name for column in free if column.type == "numeric")
    whole = (name for name in numbers if _whole(table.train[name].head(1000)) and _whole(table.train[name]))
    return [*(column.name for column in free if column.type == "categorical"), *whole]


def _whole(cells: pl.Series) -> bool:
    return bool((cells.drop_nulls() % 1 == 0).all())


def _recurring(cells: pl.Series, rows: NDArray[np.int64]) -> _Named | None:
    """Rows by their values, of many rows a part; None where the values are too few or do not recur.
    rows: all, in random order."""
    values, filled = cells.drop_nulls().n_unique(), len(cells) - cells.null_count()
    if cells.null_count() > MOST_MISSING * len(cells) or values < FEWEST_APART or 2 * values > filled:
        return None
    if (
        len(cells) > ROWS and len(cells) <= ROWS_OF_EACH * values
    ):  # whole values: of a part of the rows few would recur
        kept = (cells.hash(seed=0) % -(-len(cells) // ROWS) == 0).to_numpy()
        rows = rows[kept[rows]]
    rows = rows[:ROWS]
    codes = cells[rows].rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1
    counts = np.bincount(codes[codes >= 0])
    return _Named(rows, codes, values) if counts[counts > 1].sum() >= RECURRING * counts.sum() else None


def _apart(table: Table, name: str, named: _Named) -> bool:
    """Whether the test rows have none of the values of the training rows; numbers that
    only go on do so as things alone."""
    train, test = table.train[name].drop_nulls(), table.test[name].drop_nulls()
    if not len(test) or test.len() < (1 - MOST_MISSING) * table.test.height:
        return False
    if test.is_in(train.unique().implode()).sum() > KNOWN * len(test):
        return False
    if not train.dtype.is_numeric():
        return True
    lowest, highest = float(train.min()), float(train.max())  # type: ignore[arg-type]
    inside = bool(((test > lowest) & (test < highest)).any())
    return inside or bool(
        _fixed(table, name, named, fewest=1)
    )  # else a time, or a size, in which they lie beyond


def _shared(table: Table, name: str, named: _Named) -> list[str]:
    """What rows of one value of this column have in common, and any two have not: at least FEWEST_FIXED
    columns that are equal or nearly so, or the target; else []."""
    target = table.schema.target
    found = [*_fixed(table, name, named, fewest=1), *_near(table, name, named)]
    answer = [target] if _belongs(table.train[target], table.train[name], named.pairs) else []
    return [*sorted(found), *answer] if len(found) >= FEWEST_FIXED or answer else []


def _fixed(table: Table, name: str, named: _Named, fewest: int = FEWEST_FIXED) -> list[str]:
    """The columns that agree in rows of one value of this one, and not in any
    two; [] where they are under ``fewest``.

    Without those that name the same things, and so agree nowhere else.
    """
    pairs = named.pairs
    order = np.argsort(named.codes, kind="stable")
    rows, codes = named.rows[order], named.codes[order]
    found = [
        other
        for other in _others(table, name)
        if _belongs(cells := table.train[other], table.train[name], pairs)
        and not _same_things(cells[rows], codes)
    ]
    return sorted(found) if len(found) >= fewest else []


def _near(table: Table, name: str, named: _Named) -> list[str]:
    """The columns of numbers that nearly agree in rows of one value of this one."""
    pairs, found = named.pairs, []
    for other in _others(table, name):
        cells = table.train[other]
        if cells.dtype != pl.Float64 or _agreement(cells, *pairs.same) >= FIXED:
            continue
        spread = _distance(cells, *pairs.any_two)
        if _distance(cells, *pairs.same) < NEARLY * spread and _distance(cells, *pairs.step) >= NEAR * spread:
            found.append(other)
    return found


@dataclass(frozen=True)
class _Pairs:
    """Rows, left and right, drawn at random: of one thing, of neighbouring values, any two."""

    same: tuple[NDArray[np.int64], NDArray[np.int64]]
    step: tuple[NDArray[np.int64], NDArray[np.int64]]
    any_two: tuple[NDArray[np.int64], NDArray[np.int64]]


def _pairs(named: _Named) -> _Pairs:
    order = np.argsort(named.codes, kind="stable")
    rows, codes = named.rows[order], named.codes[order]
    known = np.flatnonzero(codes[:-1] >= 0)
    same = np.random.default_rng(0).permutation(known[codes[known] == codes[known + 1]])[:PAIRS]
    step = known[codes[known] != codes[known + 1]][:PAIRS]
    half = min(PAIRS, len(rows) // 2)
    any_two = named.rows[:half], named.rows[half : 2 * half]
    return _Pairs((rows[same], rows[same + 1]), (rows[step], rows[step + 1]), any_two)


def _others(table: Table, name: str) -> list[str]:
    unused = ("identifier", "constant")
    return [
        column.name for column in table.schema.columns if column.name != name and column.type not in unused
    ]


def _belongs(cells: pl.Series, names: pl.Series, pairs: _Pairs) -> bool:
    """Whether cells agree in rows of one name, and not in any two; nor are they
    computed from names that are numbers."""
    if _agreement(cells, *pairs.same) < FIXED or _agreement(cells, *pairs.any_two) > VARIED:
        return False
    return not (
        names.dtype.is_numeric() and _distance(cells, *pairs.step) < NEAR * _distance(cells, *pairs.any_two)
    )


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
