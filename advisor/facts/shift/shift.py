"""Do the rows to come look like the training rows? Two samples of features, compared; note N33.

Every test is blind somewhere: column by column one never sees a correlation that is gone, means
never see a variance, trees lose a weak shift that is spread over all columns. So several are run,
and ALPHA is divided among them: all alarms together are at most 5 % where nothing has shifted. The
target of the test rows is read nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.column import labels
from advisor.data.tables.table import MAX_LEVELS, Table, TableSchema, encode, encoded_names
from advisor.dataset import Features
from advisor.facts.schema import FEWEST_TIMES, MIN_SIDE, MOST_AT_LAST, OUT_OF_RANGE, PERIOD
from advisor.tasks import task_of

Numbers = NDArray[np.float64]
Against = Literal["test", "time", "groups"]

ALPHA: Mapping[str, float] = {"columns": 0.015, "moments": 0.02, "trees": 0.01, "target": 0.005}
"""The false alarms that each test may make (Bonferroni): 5 % in all. ``target`` is compared along time and
groups only; with a test table its share goes to levels that the test rows alone have."""
SIDE_ROWS = 5000
"""So many rows of each side are compared, drawn at random, always the same ones."""
PERMUTATIONS = 499
"""Labels are shuffled so often for the moments; their smallest p is 0.002, a tenth of their ALPHA."""
MOMENT_WIDTH = 60
"""Products of columns are taken among at most so many inputs; of more, among so many principal components."""
ONE_HOT_LEVELS = 10
"""The moments see so many levels of a categorical column, the most frequent ones."""
FOLDS = 3
"""Cross-fitting of the domain classifier: each row is judged by trees that did not see it."""
TREES, LEAF_ROWS = 50, 10
"""Extremely randomized trees (Geurts et al. 2006), on one thread: boosting waits
for its threads on a busy machine."""
CROSS_FITTED = 2.0
"""Variance of the cross-fitted statistic over that of independent rows: each pair of rows counts twice, once
with either of them in training (exact for a classifier that is a mean over a kernel)."""
CONFIDENCE_Z = 1.96
BINS = 10
"""Bins for PSI and Jensen-Shannon: tenths of the training rows, and one for missing cells (Siddiqi 2006)."""
RANGE_CHANCE = 0.005
"""Cells beyond one end of the range, or unlike a constant, count only where equal distributions leave so many
with less than this chance in any column (Bonferroni)."""
GROUP_SETS, GROUP_COLUMNS = 40, 60
"""Where the groups are too few for a test, so many sets of training groups are compared with the rest, in so
many columns of a kind at most, drawn at random."""
GROUPS_FAR = 0.05
"""Test groups are far off where at most this share of the sets is as far."""
MAX_WEIGHT = 10.0
"""Density ratios are clipped to 1/10 .. 10: a few rows must not decide alone what is selected."""


@dataclass(frozen=True)
class Samples:
    """The two sides as arrays; ``rows`` and ``new_rows`` are how many they were drawn from."""

    against: Against
    old: pl.DataFrame
    new: pl.DataFrame
    rows: int
    new_rows: int


@dataclass(frozen=True)
class Domain:
    """The domain classifier: its cross-validated AUC with a 95 % interval, p,
    and the old rows' density ratios.

    calibration: log-odds of a row being new, as a line in the log-odds that the trees give (Platt 1999).
    """

    auc: float
    low: float
    high: float
    p: float
    ratios: Numbers
    models: tuple[Any, ...]
    calibration: Any


def measure_shift(table: Table) -> tuple[dict[str, Any], dict[str, dict[str, Any]], str | None]:
    """Values of the facts ``shift.*``, per column its effect sizes, and on how many rows (None: on all).

    Compared are the training rows with the rows of a given test table; else, within the
    training rows, the later half with the earlier one (time column), or half of the groups with
    the rest (group column); else nothing.
    """
    samples = _samples(table)
    if samples is None:
        return {"shift.compared_with": "nothing", **_ENOUGH_GROUPS, **{name: [] for name in _LISTS}}, {}, None
    schema = _joint(table.schema, samples)
    old, new = encode(samples.old, schema), encode(samples.new, schema)
    total, drawn = samples.rows + samples.new_rows, len(old) + len(new)
    columns = dict(_effects(table, old, new))
    values: dict[str, Any] = (
        {name: [] for name in _LISTS}
        | _ENOUGH_GROUPS
        | {
            "shift.compared_with": samples.against,
            "shift.rows": len(old) + len(new),
            "columns.unseen_categories": sorted(
                name for name, e in columns.items() if e.get("new_level_share", 0) > 0
            ),
            "columns.out_of_range": sorted(
                name for name, e in columns.items() if e.get("out_of_range_share", 0) > OUT_OF_RANGE
            ),
            "shift.unseen_category_share": max(
                (e.get("new_level_share", 0.0) for e in columns.values()), default=0.0
            ),
            "shift.out_of_range_share": max(
                (e.get("out_of_range_share", 0.0) for e in columns.values()), default=0.0
            ),
        }
    )
    if samples.against == "test":
        changed = _changed_constants(table.schema, samples)
        values |= {
            "columns.changed": sorted(changed),
            "shift.changed_share": max(changed.values(), default=0.0),
        }
    if (
        (group := schema.group_column) is not None
        and samples.against == "test"
        and group in samples.new.columns
    ):
        every = old, new
        old, new = (encode(_one_of_each(side, group), schema) for side in (samples.old, samples.new))
        if min(len(old), len(new)) < MIN_SIDE:
            values |= _between_groups(*every, samples.old[group], samples.new[group].n_unique(), columns)
    if min(len(old), len(new)) >= MIN_SIDE:
        values |= _tested(table, samples, old, new, columns)
    return values, columns, f"{drawn:,} of {total:,} rows" if drawn < total else None


_ENOUGH_GROUPS: dict[str, Any] = {"shift.test_groups": 0, "shift.groups_far": False}
_LISTS = (
    *("shift.tests", "columns.shifted", "columns.separating", "columns.later"),
    *("columns.unseen_categories", "columns.out_of_range", "columns.changed", "columns.farthest"),
)


def likeness_to_test(table: Table) -> Numbers | None:
    """Per training row how much more likely it is among the test rows than among the training rows; mean 1.

    The density ratio of the domain classifier, cross-fitted for the rows that it was fitted on, clipped. None
    when no test table was given or a side has fewer than MIN_SIDE rows.
    """
    samples = _samples(table)
    if samples is None or samples.against != "test" or min(samples.old.height, samples.new.height) < MIN_SIDE:
        return None
    schema = _joint(table.schema, samples)
    old, new = encode(samples.old, schema), encode(samples.new, schema)
    domain = _domain(old, new)
    matrix = encode(table.train, schema).for_trees()
    probability = np.mean([model.predict_proba(matrix)[:, 1] for model in domain.models], axis=0)
    weights = _ratio(probability, domain.calibration)
    weights[_drawn(table.train.height)] = domain.ratios
    weights = np.clip(weights, 1 / MAX_WEIGHT, MAX_WEIGHT)
    return np.asarray(weights / weights.mean())


def _samples(table: Table) -> Samples | None:
    schema, train = table.schema, table.train
    if table.test_origin == "file":
        return _sampled("test", train, table.test)
    if schema.time_column is not None:
        times = train[schema.time_column].rank("dense")
        middle = times.median()
        later = (
            times > middle if (times > middle).any() else times >= middle
        )  # rows of one time are never parted
        return _sampled("time", train.filter(~later), train.filter(later)) if not later.all() else None
    if schema.group_column is not None:
        groups = train[schema.group_column]
        names = groups.unique().sort()
        half = np.random.default_rng(0).permutation(len(names))[: len(names) // 2]
        new = groups.is_in(names[half].to_list())
        return _sampled("groups", train.filter(~new), train.filter(new)) if len(half) else None
    return None


def _one_of_each(frame: pl.DataFrame, group: str) -> pl.DataFrame:
    """A row of each group, drawn at random: the tests take rows for independent, and those
    of a group tell it, not its side."""
    return frame.sample(fraction=1.0, shuffle=True, seed=0).unique(group, keep="first", maintain_order=True)


def _between_groups(
    old: Features, new: Features, groups: pl.Series, tested: int, columns: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """How far the test rows of too few groups for a test lie from the training rows, beside
    as many training groups and the rest.

    groups: those of the old rows. The share of sets of training groups that lie as far is a
        permutation test over groups, if a coarse one; there is none where the training rows
        have no more groups than the test rows.
    """
    rng = np.random.default_rng(0)
    numeric, categorical = (_some(rng, side.shape[1]) for side in (old.numeric, old.categorical))

    def apart(left: NDArray[Any], right: NDArray[Any], others: tuple[NDArray[Any], NDArray[Any]]) -> float:
        found = [_distance(left[:, at], right[:, at]) for at in numeric]
        found += [_total_variation(_counts(others[0][:, at], others[1][:, at])) for at in categorical]
        return float(np.mean(found)) if found else 0.0

    own = apart(old.numeric, new.numeric, (old.categorical, new.categorical))
    names = groups.unique().sort()
    share = None
    if tested < len(names):
        singles = [[at] for at in rng.permutation(len(names))[:GROUP_SETS]]
        sets = singles if tested == 1 else [rng.permutation(len(names))[:tested] for _ in range(GROUP_SETS)]
        masks = [groups.is_in(names[list(chosen)].to_list()).to_numpy() for chosen in sets]
        as_far = sum(
            apart(old.numeric[~mask], old.numeric[mask], (old.categorical[~mask], old.categorical[mask]))
            >= own
            for mask in masks
        )
        share = (1 + as_far) / (1 + len(masks))
    farthest = sorted(columns, key=lambda name: (-columns[name]["distance"], name))
    return {
        "shift.test_groups": tested,
        "shift.group_distance": own,
        "shift.group_share": share,
        "shift.groups_far": share is not None and share <= GROUPS_FAR,
        "columns.farthest": [f"{name} ({columns[name]['distance']:.2f})" for name in farthest],
    }


def _some(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    return rng.permutation(count)[:GROUP_COLUMNS]


def _distance(old: Numbers, new: Numbers) -> float:
    """Kolmogorov-Smirnov of the filled cells, or how many more are missing on a
    side where that is larger; 0..1."""
    from scipy.stats import ks_2samp

    first, second = old[np.isfinite(old)], new[np.isfinite(new)]
    lost = abs(len(first) / len(old) - len(second) / max(len(new), 1))
    if not len(first) or not len(second):
        return lost
    return max(lost, float(ks_2samp(first, second, method="asymp").statistic))


def _joint(schema: TableSchema, samples: Samples) -> TableSchema:
    """The schema with the levels of both sides: by those of the training rows alone, test rows would be told
    by what is rare in both. Without the time, which tells them by its very meaning."""
    levels = {
        name: tuple(
            sorted({*samples.old[name].drop_nulls().unique(), *samples.new[name].drop_nulls().unique()})
        )
        for name in schema.levels
    }
    return replace(schema, levels=levels, time=None, time_parts=())


def _drawn(rows: int) -> NDArray[np.int64]:
    if rows <= SIDE_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, SIDE_ROWS, replace=False))


def _sampled(against: Against, old: pl.DataFrame, new: pl.DataFrame) -> Samples:
    return Samples(against, old[_drawn(old.height)], new[_drawn(new.height)], old.height, new.height)


def _tested(
    table: Table, samples: Samples, old: Features, new: Features, columns: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The tests, each at its share of ALPHA, and what they say together."""
    values = _judged(old, new, columns, _owners(table), samples.against)
    if samples.against != "test":  # the test target is never looked at
        distance, p = _target_shift(table, samples)
        return values | {"shift.target_distance": distance, "shift.target_detected": p <= ALPHA["target"]}
    later = [name for name in values["columns.separating"] if _comes_later(table, name)]
    return values | {"columns.later": later, "shift.later_columns": len(later)}


def _comes_later(table: Table, name: str) -> bool:
    """Whether every test value of the column is beyond every training value, by
    which these can be split too."""
    train, test = table.train[name].drop_nulls(), table.test[name].drop_nulls()
    if (
        not (train.dtype.is_numeric() or train.dtype.is_temporal())
        or not len(test)
        or train.n_unique() < FEWEST_TIMES
    ):
        return False
    latest: Any = train.max()
    return bool(latest < test.min()) and int((train == latest).sum()) <= MOST_AT_LAST * len(train)


def compare_rows(old: Features, new: Features) -> dict[str, Any]:
    """The facts ``shift.*`` that the tests give, of any two samples of numbers
    alike; at least MIN_SIDE rows each.

    For images and sequences, which are summed up in a few numbers a row. No target is compared.
    """
    names = old.numeric_names
    columns = {
        name: _numeric_effect(old.numeric[:, at], new.numeric[:, at], len(names))
        for at, name in enumerate(names)
    }
    return _judged(old, new, columns, dict(zip(names, names, strict=True)), "test") | {
        "shift.out_of_range_share": max(
            (effect["out_of_range_share"] for effect in columns.values()), default=0.0
        )
    }


def _judged(
    old: Features,
    new: Features,
    columns: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
    against: Against,
) -> dict[str, Any]:
    """names: that of an array -> that of its column."""
    marginal = list(_marginal(old, new))
    level = ALPHA["columns"] / max(len(marginal), 1)
    shifted = sorted({names[name] for name, p in marginal if p <= level})
    domain = _domain(old, new)
    alarms = {
        "columns": bool(shifted),
        "moments": _moments(old, new) <= ALPHA["moments"],
        "trees": domain.p <= ALPHA["trees"],
    }
    if against == "test":  # where no target is compared, its share of the false alarms is free
        alarms["new levels"] = _levels_on_one_side(old, new) <= ALPHA["target"]
    detected = any(alarms.values())
    period = [name for name in shifted if columns[name]["distance"] >= PERIOD]
    return {
        "shift.detected": detected,
        "shift.tests": [name for name, alarm in alarms.items() if alarm],
        "shift.auc": domain.auc,
        "shift.auc_low": domain.low,
        "shift.auc_high": domain.high,
        "shift.max_psi": max((e["psi"] for e in columns.values()), default=0.0),
        "shift.max_distance": max((e["distance"] for e in columns.values()), default=0.0),
        "shift.overlap": float(np.minimum(domain.ratios, 1.0).mean()),
        "shift.separating_columns": len(period),
        "columns.shifted": shifted,
        "columns.separating": period,
    }


def _owners(table: Table) -> dict[str, str]:
    """Name of an encoded array -> its column."""
    owners = {column.name: column.name for column in table.schema.of_type("categorical")}
    for column in table.schema.columns:
        owners |= dict.fromkeys(encoded_names(column, table.schema.words.get(column.name)), column.name)
    return owners


def _target_shift(table: Table, samples: Samples) -> tuple[float, float]:
    """Distance of the training target's two distributions, and p."""
    from scipy.stats import ks_2samp

    old, new = samples.old[table.schema.target], samples.new[table.schema.target]
    if not task_of(table.schema.task).of_classes:
        result = ks_2samp(old.to_numpy(), new.to_numpy(), method="asymp")
        return float(result.statistic), float(result.pvalue)
    codes = {label: code for code, label in enumerate(table.schema.classes)}
    first, second = (np.array([codes[label] for label in side.to_list()], np.int64) for side in (old, new))
    counts = _counts(first, second)
    return _total_variation(counts), _chi_squared(counts)


# ------------------------------------------------------------------------------------------- column by column


def _effects(table: Table, old: Features, new: Features) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per column: psi, jensen_shannon (bits), distance (KS or total variation,
    0..1), new levels, out of range.

    Of a column that became several arrays (a date, a text) each is the largest.
    """
    owners = _owners(table)
    found: dict[str, dict[str, Any]] = {}
    for position, name in enumerate(old.numeric_names):
        effect = _numeric_effect(old.numeric[:, position], new.numeric[:, position], len(old.numeric_names))
        kept = found.setdefault(owners[name], effect)
        found[owners[name]] = {key: max(value, kept[key]) for key, value in effect.items()}
    for position, name in enumerate(old.categorical_names):
        codes = new.categorical[:, position]
        counts = _counts(old.categorical[:, position], codes)
        effect = {
            "psi": _psi(counts),
            "jensen_shannon": _jensen_shannon(counts),
            "distance": _total_variation(counts),
        }
        known = (
            set(table.schema.levels[name])
            if len(table.schema.levels[name]) < MAX_LEVELS
            else set(old.levels[position])
        )
        fresh = np.array([level not in known for level in old.levels[position]], dtype=bool)
        found[name] = effect | {"new_level_share": float(fresh[codes[codes >= 0]].sum()) / max(len(codes), 1)}
    yield from found.items()


def _numeric_effect(old: Numbers, new: Numbers, columns: int) -> dict[str, float]:
    first, second = old[np.isfinite(old)], new[np.isfinite(new)]
    effect = {"psi": 0.0, "jensen_shannon": 0.0, "distance": _distance(old, new), "out_of_range_share": 0.0}
    if len(first) and len(second):
        below, above = int((second < first.min()).sum()), int((second > first.max()).sum())
        beyond = sum(
            count for count in (below, above) if _beyond_chance(count, len(first), len(second), 2 * columns)
        )
        effect["out_of_range_share"] = beyond / len(second)
    edges = np.unique(np.quantile(first, np.linspace(0, 1, BINS + 1)[1:-1])) if len(first) else np.empty(0)
    # NaN sorts behind every edge: missing cells get a bin of their own
    binned = (np.where(np.isfinite(side), np.searchsorted(edges, side, "right"), BINS) for side in (old, new))
    counts = _counts(*binned)
    return effect | {"psi": _psi(counts), "jensen_shannon": _jensen_shannon(counts)}


def _beyond_chance(count: int, old: int, new: int, tries: int) -> bool:
    """Whether so many rows, picked by their values, are all new ones too seldom: with
    a chance of (new / all) ** count."""
    return count * math.log(new / (old + new)) <= math.log(RANGE_CHANCE / tries)


def _changed_constants(schema: TableSchema, samples: Samples) -> dict[str, float]:
    """Columns with one value in all training rows -> the share of test rows with another
    one, where chance does not explain it.

    They are no inputs, so that no test of the inputs sees them, and yet they can
    say that the test is of another year.
    """
    found = {}
    constant = schema.of_type("constant")
    for column in constant:
        if column.name not in samples.new.columns:
            continue
        known, cells = labels(samples.old[column.name]).unique(), labels(samples.new[column.name])
        others = int((cells.is_not_null() & ~cells.is_in(known.drop_nulls().implode())).sum())
        if len(known) == 1 and others and _beyond_chance(others, len(samples.old), len(cells), len(constant)):
            found[column.name] = others / len(cells)
    return found


def _marginal(old: Features, new: Features) -> Iterator[tuple[str, float]]:
    """p of each array: Kolmogorov-Smirnov of the filled cells, chi-squared of
    levels and of what is missing."""
    from scipy.stats import ks_2samp

    for position, name in enumerate(old.numeric_names):
        sides = old.numeric[:, position], new.numeric[:, position]
        filled = [side[np.isfinite(side)] for side in sides]
        if min(len(side) for side in filled) >= MIN_SIDE:
            yield name, float(ks_2samp(*filled, method="asymp").pvalue)
        if any(len(side) < len(cells) for side, cells in zip(filled, sides, strict=True)):
            yield name, _chi_squared(_counts(*(np.isfinite(side).astype(np.int64) for side in sides)))
    for position, name in enumerate(old.categorical_names):
        yield name, _chi_squared(_counts(old.categorical[:, position], new.categorical[:, position]))


def _levels_on_one_side(old: Features, new: Features) -> float:
    """p of the most frequent level that new rows alone have, over all categorical columns.

    Were the rows shuffled, a level of c rows would fall to the new side whole with a chance of at most (share
    of new rows) ** c. The chances of all levels that are at least as frequent are added up (a union bound),
    which holds however many rare ones there are.
    """
    share = len(new) / (len(old) + len(new))
    chances = [1.0]
    for position in range(old.categorical.shape[1]):
        first, second = _counts(old.categorical[:, position], new.categorical[:, position])
        alone = second[first == 0]
        if len(alone):
            total = first + second
            chances.append(float((share ** total[total >= alone.max()].astype(np.float64)).sum()))
    return float(min(1.0, min(chances) * max(1, old.categorical.shape[1])))


def _counts(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.int64]:
    """Rows by value and side, shape (2, values)."""
    values, codes = np.unique(np.concatenate([old, new]), return_inverse=True)
    first = np.bincount(codes[: len(old)], minlength=len(values))
    return np.stack([first, np.bincount(codes[len(old) :], minlength=len(values))])


def _chi_squared(counts: NDArray[np.int64]) -> float:
    """p of equal shares; values expected under 5 times on a side are counted as
    one (Cochran 1954), or left out.

    Of two by two the exact one (Fisher).
    """
    from scipy.stats import chi2_contingency, fisher_exact

    expected = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()
    rare = expected < 5
    lumped = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)]) if rare.any() else counts
    if lumped.shape[1] > 2 and lumped[:, -1].sum() * counts.sum(axis=1).min() / counts.sum() < 5:
        lumped = lumped[:, :-1]
    if lumped.shape[1] < 2:
        return 1.0
    if lumped.shape[1] == 2:
        return float(fisher_exact(lumped).pvalue)
    return float(chi2_contingency(lumped, correction=False)[1])


def _shares(counts: NDArray[np.int64]) -> Numbers:
    """Half a row is added to each value: neither an empty bin nor an empty side
    makes a logarithm infinite."""
    return np.asarray((counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True))


def _psi(counts: NDArray[np.int64]) -> float:
    """Population stability index, in nats: 0 is equal, above 0.25 is usually called a large shift."""
    old, new = _shares(counts)
    return float(((new - old) * np.log(new / old)).sum())


def _jensen_shannon(counts: NDArray[np.int64]) -> float:
    """Jensen-Shannon divergence in bits, 0 (equal) to 1 (nothing in common)."""
    shares = _shares(counts)
    return float((shares * np.log2(shares / shares.mean(axis=0))).sum() / 2)


def _total_variation(counts: NDArray[np.int64]) -> float:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


# ---------------------------------------------------------------------------------------------------- moments


def _moments(old: Features, new: Features) -> float:
    """p of equal means, equal squares and equal products of the inputs, by shuffling which side a row is on.

    Inputs are normal scores, so outliers do not decide. Three statistics, each
    the squared length of a difference of
    means: of the whitened inputs (Hotelling's T-squared, the score test of a linear domain classifier), of
    their squares, of their pairwise products. The smallest of the three ranks is compared with the same of
    every shuffle: exact whatever the inputs' distribution.
    """
    inputs = _standardized(np.concatenate([_normal_scores(old, new), _indicators(old, new)], axis=1))
    if not inputs.shape[1]:
        return 1.0
    white = _components(inputs, min(inputs.shape[1], len(inputs) // 10), whiten=True)
    narrow = inputs if inputs.shape[1] <= MOMENT_WIDTH else _components(inputs, MOMENT_WIDTH, whiten=False)
    left, right = np.triu_indices(narrow.shape[1], k=1)
    side = np.repeat(np.array([-1 / len(old), 1 / len(new)], np.float32), [len(old), len(new)])
    rng = np.random.default_rng(0)
    sides = np.column_stack([side, *(rng.permutation(side) for _ in range(PERMUTATIONS))])
    blocks = [white, _standardized(narrow**2)]
    if len(left):
        blocks.append(_standardized(narrow[:, left] * narrow[:, right]))
    statistics = np.stack([np.square(block.T @ sides).sum(axis=0) for block in blocks if block.shape[1]])
    # rank p of every column of labels, the true one among them; ties count against it
    ordered = np.sort(statistics, axis=1)
    above = [
        len(own) - np.searchsorted(order, own, "left") for order, own in zip(ordered, statistics, strict=True)
    ]
    smallest = np.min(above, axis=0)
    return float((smallest <= smallest[0]).mean())


def _normal_scores(old: Features, new: Features) -> NDArray[np.float32]:
    """Numbers by their rank among both sides' rows, with a normal distribution; missing ones at 0."""
    from scipy.stats import norm, rankdata

    numbers = np.concatenate([old.numeric, new.numeric])
    scores = np.zeros(numbers.shape, np.float32)
    for position in range(numbers.shape[1]):
        filled = np.isfinite(numbers[:, position])
        ranks = rankdata(numbers[filled, position])
        scores[filled, position] = norm.ppf(ranks / (len(ranks) + 1))
    return scores


def _indicators(old: Features, new: Features) -> NDArray[np.float32]:
    """What is missing, and the most frequent levels, as columns of 0 and 1."""
    numbers, codes = (
        np.concatenate([old.numeric, new.numeric]),
        np.concatenate([old.categorical, new.categorical]),
    )
    columns = [~np.isfinite(numbers)]
    for position in range(codes.shape[1]):
        values, counts = np.unique(codes[:, position], return_counts=True)
        frequent = values[np.argsort(-counts, kind="stable")[:ONE_HOT_LEVELS]]
        columns.append(codes[:, position, None] == frequent)
    return np.concatenate(columns, axis=1).astype(np.float32)


def _standardized(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns with mean 0 and deviation 1; those that do not vary are left out."""
    centred = matrix - matrix.mean(axis=0)
    deviation = centred.std(axis=0)
    varies = deviation > 1e-6  # float32 rounding
    return np.asarray(centred[:, varies] / deviation[varies])


def _components(matrix: NDArray[np.float32], count: int, *, whiten: bool) -> NDArray[np.float32]:
    """The first principal components of both sides together, each with deviation 1 when ``whiten``."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix / len(matrix))
    kept = np.flatnonzero(values > 1e-4)[::-1][
        :count
    ]  # directions that do not vary but for rounding are left out
    scale = np.sqrt(values[kept]) if whiten else 1.0
    return np.asarray(matrix @ (vectors[:, kept] / scale).astype(np.float32))


# ------------------------------------------------------------------------------------------ domain classifier


def _domain(old: Features, new: Features) -> Domain:
    """Randomized trees that tell the sides apart, cross-fitted; the AUC is the mean over the folds.

    p is that of the Mann-Whitney statistic with its variance times CROSS_FITTED;
    the interval is DeLong's with the same.
    """
    from scipy.stats import norm
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression

    matrix = np.concatenate([old.for_trees(), new.for_trees()])
    label = np.repeat([0, 1], [len(old), len(new)])
    # both sides weigh the same, so that p / (1 - p) is the density ratio
    weight = np.where(label == 1, len(label) / (2 * len(new)), len(label) / (2 * len(old)))
    rng = np.random.default_rng(0)
    fold = np.concatenate([rng.permutation(np.arange(count) % FOLDS) for count in (len(old), len(new))])
    probability = np.empty(len(label))
    models: list[Any] = []
    areas: list[float] = []
    nulls: list[float] = []
    variances: list[float] = []
    for number in range(FOLDS):
        inside, outside = fold == number, fold != number
        model = ExtraTreesClassifier(TREES, min_samples_leaf=LEAF_ROWS, random_state=0)
        models.append(model.fit(matrix[outside], label[outside], sample_weight=weight[outside]))
        probability[inside] = model.predict_proba(matrix[inside])[:, 1]
        area, null, variance = _area(probability[inside & (label == 0)], probability[inside & (label == 1)])
        areas.append(area)
        nulls.append(null)
        variances.append(variance)
    auc = sum(areas) / FOLDS
    null = math.sqrt(CROSS_FITTED * sum(nulls)) / FOLDS
    error = CONFIDENCE_Z * math.sqrt(CROSS_FITTED * sum(variances)) / FOLDS
    p = float(norm.sf((auc - 0.5) / null))
    # randomized trees are far too unsure: their odds alone would call rows alike that have nothing in common
    calibration = LogisticRegression().fit(_log_odds(probability), label, sample_weight=weight)
    ratios = _ratio(probability[label == 0], calibration)
    return Domain(auc, max(auc - error, 0.0), min(auc + error, 1.0), p, ratios, tuple(models), calibration)


def _area(old: Numbers, new: Numbers) -> tuple[float, float, float]:
    """Area under the ROC curve, its variance when the sides are equal, and DeLong's variance."""
    from scipy.stats import rankdata

    m, n = len(old), len(new)
    ranks = rankdata(np.concatenate([old, new]))
    above = (ranks[m:] - rankdata(new)) / m  # per new row the share of old rows below it
    below = 1 - (ranks[:m] - rankdata(old)) / n
    variance = float(below.var(ddof=1)) / m + float(above.var(ddof=1)) / n
    return float(above.mean()), (m + n + 1) / (12 * m * n), variance


def _log_odds(probability: Numbers) -> Numbers:
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)  # a leaf of one side alone
    return np.log(clipped / (1 - clipped))[:, None]


def _ratio(probability: Numbers, calibration: Any) -> Numbers:
    """Density ratio new / old."""
    return np.asarray(np.exp(np.clip(calibration.decision_function(_log_odds(probability)), -50, 50)))
