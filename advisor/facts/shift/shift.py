"""Do the rows to come look like the training rows? Two samples of features, compared; note N33.

Every test is blind somewhere: column by column one never sees a correlation that is gone, means
never see a variance, trees lose a weak shift that is spread over all columns. So several are run,
and ALPHA is divided among them: all alarms together are at most 5 % where nothing has shifted. The
target of the test rows is read nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from advisor.data.columns.cells import labels
from advisor.data.tables.features import encode, encoded_names
from advisor.data.tables.schema import MAX_LEVELS, TableSchema
from advisor.data.tables.table import Table
from advisor.dataset import Features
from advisor.facts.shift.distances import (
    beyond_chance,
    chi_squared_p,
    counts_by_side,
    distance_of_numbers,
    jensen_shannon_bits,
    numeric_effect,
    stability_index,
    total_variation,
)
from advisor.facts.shift.domain import density_ratio, domain_classifier
from advisor.facts.shift.moments import moments_p
from advisor.facts.shift.samples import (
    Against,
    Numbers,
    Samples,
    drawn_rows,
    joint_schema,
    one_row_of_each,
    two_samples,
)
from advisor.facts.specs.thresholds import FEWEST_TIMES, MIN_SIDE, MOST_AT_LAST, OUT_OF_RANGE, PERIOD
from advisor.tasks import task_of

ALPHA: Mapping[str, float] = {"columns": 0.015, "moments": 0.02, "trees": 0.01, "target": 0.005}
"""The false alarms that each test may make (Bonferroni): 5 % in all. ``target`` is compared along time and
groups only; with a test table its share goes to levels that the test rows alone have."""
GROUP_SETS, GROUP_COLUMNS = 40, 60
"""Where the groups are too few for a test, this many sets of training groups are compared with the rest, in
at most this many columns of a kind, drawn at random."""
GROUPS_FAR = 0.05
"""Test groups are far off where at most this share of the sets is as far."""
MAX_WEIGHT = 10.0
"""Density ratios are clipped to 1/10 .. 10: a few rows must not decide alone what is selected."""


def measure_shift(table: Table) -> tuple[dict[str, Any], dict[str, dict[str, Any]], str | None]:
    """Values of the facts ``shift.*``, per column its effect sizes, and on how many rows (None: on all).

    Compared are the training rows with the rows of a given test table; else, within the
    training rows, the later half with the earlier one (time column), or half of the groups with
    the rest (group column); else nothing.
    """
    samples = two_samples(table)
    if samples is None:
        return {"shift.compared_with": "nothing", **_ENOUGH_GROUPS, **{name: [] for name in _LISTS}}, {}, None
    schema = joint_schema(table.schema, samples)
    old, new = encode(samples.old, schema), encode(samples.new, schema)
    total, drawn = samples.rows + samples.new_rows, len(old) + len(new)
    columns = dict(_effects(table, old, new))
    values: dict[str, Any] = {name: [] for name in _LISTS} | _ENOUGH_GROUPS | _column_facts(columns)
    values |= {"shift.compared_with": samples.against, "shift.rows": drawn}
    if samples.against == "test":
        changed = _changed_constants(table.schema, samples)
        values["columns.changed"] = sorted(changed)
        values["shift.changed_share"] = max(changed.values(), default=0.0)
    if (
        (group := schema.group_column) is not None
        and samples.against == "test"
        and group in samples.new.columns
    ):
        every = old, new
        old, new = (encode(one_row_of_each(side, group), schema) for side in (samples.old, samples.new))
        if min(len(old), len(new)) < MIN_SIDE:
            values |= _between_groups(*every, samples.old[group], samples.new[group].n_unique(), columns)
    if min(len(old), len(new)) >= MIN_SIDE:
        values |= _tested(table, samples, old, new, columns)
    return values, columns, f"{drawn:,} of {total:,} rows" if drawn < total else None


def _column_facts(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What new levels and new ranges come to. columns: effect sizes by name."""
    levels = {name: effects.get("new_level_share", 0.0) for name, effects in columns.items()}
    beyond = {name: effects.get("out_of_range_share", 0.0) for name, effects in columns.items()}
    return {
        "columns.unseen_categories": sorted(name for name, share in levels.items() if share > 0),
        "columns.out_of_range": sorted(name for name, share in beyond.items() if share > OUT_OF_RANGE),
        "shift.unseen_category_share": max(levels.values(), default=0.0),
        "shift.out_of_range_share": max(beyond.values(), default=0.0),
    }


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
    samples = two_samples(table)
    if samples is None or samples.against != "test" or min(samples.old.height, samples.new.height) < MIN_SIDE:
        return None
    schema = joint_schema(table.schema, samples)
    old, new = encode(samples.old, schema), encode(samples.new, schema)
    domain = domain_classifier(old, new)
    matrix = encode(table.train, schema).for_trees()
    probability = np.mean([model.predict_proba(matrix)[:, 1] for model in domain.models], axis=0)
    weights = density_ratio(probability, domain.calibration)
    weights[drawn_rows(table.train.height)] = domain.ratios
    weights = np.clip(weights, 1 / MAX_WEIGHT, MAX_WEIGHT)
    return np.asarray(weights / weights.mean())


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
        found = [distance_of_numbers(left[:, at], right[:, at]) for at in numeric]
        found += [total_variation(counts_by_side(others[0][:, at], others[1][:, at])) for at in categorical]
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
        name: numeric_effect(old.numeric[:, at], new.numeric[:, at], len(names))
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
    domain = domain_classifier(old, new)
    alarms = {
        "columns": bool(shifted),
        "moments": moments_p(old, new) <= ALPHA["moments"],
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
    counts = counts_by_side(first, second)
    return total_variation(counts), chi_squared_p(counts)


# ------------------------------------------------------------------------------------------- column by column


def _effects(table: Table, old: Features, new: Features) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per column: psi, jensen_shannon (bits), distance (KS or total variation,
    0..1), new levels, out of range.

    Of a column that became several arrays (a date, a text) each is the largest.
    """
    owners = _owners(table)
    found: dict[str, dict[str, Any]] = {}
    for position, name in enumerate(old.numeric_names):
        effect = numeric_effect(old.numeric[:, position], new.numeric[:, position], len(old.numeric_names))
        kept = found.setdefault(owners[name], effect)
        found[owners[name]] = {key: max(value, kept[key]) for key, value in effect.items()}
    for position, name in enumerate(old.categorical_names):
        codes = new.categorical[:, position]
        counts = counts_by_side(old.categorical[:, position], codes)
        effect = {
            "psi": stability_index(counts),
            "jensen_shannon": jensen_shannon_bits(counts),
            "distance": total_variation(counts),
        }
        known = (
            set(table.schema.levels[name])
            if len(table.schema.levels[name]) < MAX_LEVELS
            else set(old.levels[position])
        )
        fresh = np.array([level not in known for level in old.levels[position]], dtype=bool)
        found[name] = effect | {"new_level_share": float(fresh[codes[codes >= 0]].sum()) / max(len(codes), 1)}
    yield from found.items()


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
        if len(known) == 1 and others and beyond_chance(others, len(samples.old), len(cells), len(constant)):
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
            yield name, chi_squared_p(counts_by_side(*(np.isfinite(side).astype(np.int64) for side in sides)))
    for position, name in enumerate(old.categorical_names):
        yield name, chi_squared_p(counts_by_side(old.categorical[:, position], new.categorical[:, position]))


def _levels_on_one_side(old: Features, new: Features) -> float:
    """p of the most frequent level that new rows alone have, over all categorical columns.

    Were the rows shuffled, a level of c rows would fall to the new side whole with a chance of at most (share
    of new rows) ** c. The chances of all levels that are at least as frequent are added up (a union bound),
    which holds however many rare ones there are.
    """
    share = len(new) / (len(old) + len(new))
    chances = [1.0]
    for position in range(old.categorical.shape[1]):
        first, second = counts_by_side(old.categorical[:, position], new.categorical[:, position])
        alone = second[first == 0]
        if len(alone):
            total = first + second
            chances.append(float((share ** total[total >= alone.max()].astype(np.float64)).sum()))
    return float(min(1.0, min(chances) * max(1, old.categorical.shape[1])))
