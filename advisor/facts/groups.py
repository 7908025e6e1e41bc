"""Rows that belong together: columns that name things (a person, a site, a
machine) of which each has several rows.

Where rows to come are of new things, a random split asks of a model what it has seen, and promises too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import ranked
from advisor.data.columns.inference import ASKED, CODE_NAME
from advisor.data.tables.features import level_codes
from advisor.data.tables.schema import MAX_LEVELS
from advisor.data.tables.table import Table

Pair = tuple[NDArray[np.int64], NDArray[np.int64]]
Cells = Mapping[str, NDArray[np.float64] | pl.Series]
"""Columns by name: numbers as NumPy has them (NaN is missing), of which the few rows of a pair are picked in
a hundredth of the time, others as series."""

FEWEST_APART, FEWEST_THINGS = 5, 10
"""A column names groups of which test rows have none, or things, from this many values among the training
rows on: fewer can be other than each other by chance, and folds of whole groups need some."""
RECURRING = 0.9
"""... and this share of the training rows shares its value with another row, two
rows to a value on average."""
KNOWN = 0.01
"""At most this share of the test rows has a value that a training row has."""
MOST_MISSING = 0.1
ROWS, ROWS_OF_EACH = 100_000, 100
"""Of at most this many rows: drawn at random where a value has the second number of rows on
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

    @cached_property
    def by_code(self) -> Pair:
        """Rows and codes, those of equal codes one beneath the other."""
        # sixteen bits are sorted by counting, in a fraction of the time
        small = self.codes.astype(np.int16) if self.values < 2**15 else self.codes
        order = np.argsort(small, kind="stable")
        return self.rows[order], self.codes[order]


@dataclass(frozen=True)
class _Pairs:
    """Rows, left and right, drawn at random: of one thing, of neighbouring values, any two."""

    same: Pair
    step: Pair
    any_two: Pair


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
        if (found := _recurring(table.train[name], order, table.schema.levels.get(name))) is not None
    }
    cells = _cells(table) if named else {}
    if table.test_origin == "file":
        apart = [name for name, found in named.items() if _apart(table, name, found, cells)]
        # the coarsest first: what it holds apart, all others do
        apart.sort(key=lambda name: (named[name].values, name))
        return facts | {"groups.unseen_columns": len(apart), "columns.unseen_groups": apart}
    return facts | _entity_facts(table, named, cells, leaking)


def _entity_facts(
    table: Table, named: Mapping[str, _Named], cells: Cells, leaking: Sequence[str]
) -> dict[str, Any]:
    """The column that seems to name things, and those that are nearly constant within each; {} without one.
    named: columns whose values recur."""
    many = {name: found for name, found in named.items() if found.values >= FEWEST_THINGS}
    things = {name: of for name, found in many.items() if (of := _shared(table, name, found, cells))}
    codes = {name for name in leaking if not table.train[name].dtype.is_numeric()}
    things = {name: of for name, of in things.items() if name not in codes or of != [table.schema.target]}
    if not things:
        return {}

    def rank(name: str) -> tuple[int, bool, int, str]:
        """Of several names of one thing, the one that says so."""
        return len(things[name]), CODE_NAME.search(name) is not None, -named[name].values, name

    best = max(things, key=rank)
    return {
        "groups.entities": named[best].values,
        "columns.entity": [best],
        "columns.of_entities": things[best],
    }


def _candidates(table: Table) -> list[str]:
    """Categories and whole numbers; not those of which the user said what they are."""
    free = [column for column in table.schema.columns if column.why != ASKED]
    numbers = (column.name for column in free if column.type == "numeric")
    whole = (name for name in numbers if _whole(table.train[name].head(1000)) and _whole(table.train[name]))
    return [*(column.name for column in free if column.type == "categorical"), *whole]


def _whole(cells: pl.Series) -> bool:
    values = cells.to_numpy()  # NumPy: of thousands of columns polars' expressions take half a second
    return bool((np.isnan(values) | (values == np.floor(values))).all())


def _recurring(cells: pl.Series, rows: NDArray[np.int64], levels: Sequence[str] | None) -> _Named | None:
    """Rows by their values, of many rows a part; None where the values are too few or do not recur.
    rows: all, in random order;
    levels: of a category, its values in order, as many as are kept."""
    missing = cells.null_count()
    known = levels if levels is not None and len(levels) < MAX_LEVELS else None
    if missing > MOST_MISSING * len(cells):
        return None
    values = cells.drop_nulls().n_unique() if known is None else len(known)
    if values < FEWEST_APART or 2 * values > len(cells) - missing:
        return None
    if (
        len(cells) > ROWS and len(cells) <= ROWS_OF_EACH * values
    ):  # whole values: of a part of the rows few would recur
        kept = (cells.hash(seed=0) % -(-len(cells) // ROWS) == 0).to_numpy()
        rows = rows[kept[rows]]
    rows = rows[:ROWS]
    part = cells[rows]
    codes = ranked(part) - 1 if known is None else level_codes(part, known).astype(np.int64)
    counts = np.bincount(codes[codes >= 0])
    return _Named(rows, codes, values) if counts[counts > 1].sum() >= RECURRING * counts.sum() else None


def _apart(table: Table, name: str, named: _Named, cells: Cells) -> bool:
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
        _fixed(table, name, named, _pairs(named), cells, fewest=1)
    )  # else a time, or a size, in which they lie beyond


def _shared(table: Table, name: str, named: _Named, cells: Cells) -> list[str]:
    """What rows of one value of this column have in common, and any two have not: at least FEWEST_FIXED
    columns that are equal or nearly so, or the target; else []."""
    target = table.schema.target
    pairs = _pairs(named)
    found = [*_fixed(table, name, named, pairs, cells, fewest=1), *_near(table, name, pairs, cells)]
    answer = [target] if _belongs(cells[target], cells[name], pairs) else []
    return [*sorted(found), *answer] if len(found) >= FEWEST_FIXED or answer else []


def _cells(table: Table) -> Cells:
    """The columns that are compared, and the target."""
    columns = table.train.select(table.schema.target, *_others(table, ""))
    return {own.name: own.to_numpy() if own.dtype == pl.Float64 else own for own in columns.get_columns()}


def _fixed(
    table: Table, name: str, named: _Named, pairs: _Pairs, cells: Cells, fewest: int = FEWEST_FIXED
) -> list[str]:
    """The columns that agree in rows of one value of this one, and not in any
    two; [] where they are under ``fewest``.

    Without those that name the same things, and so agree nowhere else.
    """
    belong = [other for other in _others(table, name) if _belongs(cells[other], cells[name], pairs)]
    if not belong:
        return []
    rows, codes = named.by_code
    found = [other for other in belong if not _same_things(table.train[other][rows], codes)]
    return sorted(found) if len(found) >= fewest else []


def _near(table: Table, name: str, pairs: _Pairs, cells: Cells) -> list[str]:
    """The columns of numbers that nearly agree in rows of one value of this one."""
    found = []
    for other in _others(table, name):
        own = cells[other]
        if isinstance(own, pl.Series) or _agreement(own, pairs.same) >= FIXED:
            continue
        spread = _distance(own, pairs.any_two)
        if _distance(own, pairs.same) < NEARLY * spread and _distance(own, pairs.step) >= NEAR * spread:
            found.append(other)
    return found


def _pairs(named: _Named) -> _Pairs:
    rows, codes = named.by_code
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


def _belongs(
    cells: NDArray[np.float64] | pl.Series, names: NDArray[np.float64] | pl.Series, pairs: _Pairs
) -> bool:
    """Whether cells agree in rows of one name, and not in any two; nor are they
    computed from names that are numbers."""
    if _agreement(cells, pairs.same) < FIXED or _agreement(cells, pairs.any_two) > VARIED:
        return False
    if isinstance(names, pl.Series):
        return True
    return _distance(cells, pairs.step) >= NEAR * _distance(cells, pairs.any_two)


def _agreement(cells: NDArray[np.float64] | pl.Series, pair: Pair) -> float:
    left, right = cells[pair[0]], cells[pair[1]]
    if isinstance(left, pl.Series):
        equal = int(left.eq_missing(right).sum())
    else:
        equal = int(np.count_nonzero((left == right) | (np.isnan(left) & np.isnan(right))))
    return equal / max(1, len(pair[0]))


def _distance(cells: NDArray[np.float64] | pl.Series, pair: Pair) -> float:
    """The mean distance of pairs, in ranks of their values, as a share of those that there are."""
    ranks = ranked(cells[np.concatenate(pair)]).astype(np.float64)
    size = len(pair[0])
    return float(np.abs(ranks[:size] - ranks[size:]).mean()) / max(1.0, float(ranks.max()))


def _same_things(cells: pl.Series, codes: NDArray[np.int64]) -> bool:
    """Whether each of its values is that of one thing alone."""
    both = pl.DataFrame({"cell": cells, "code": codes}).unique()
    return both["cell"].n_unique() >= FIXED * both["code"].n_unique()
