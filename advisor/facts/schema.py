"""The schema of facts: what is measured of a table and of the machine (by ``measurement``).

A rule's condition may look at nothing but the names in ``FACTS``. ``None`` means "not measured" or "does not
apply", never zero. No library of arrays or tables is loaded here: a question to a finished run needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from advisor.facts.specs.signals import SIGNAL_FACTS
from advisor.kinds import CLASSIFICATIONS
from advisor.notebook import html_table

FactType = Literal["int", "float", "bool", "text", "list"]

HIGH_CARDINALITY = 50
"""A categorical column with more levels than this counts in ``cardinality.high_columns``."""
HEAVY_SKEW = 2.0
"""A numeric column with an absolute skewness above this counts in ``skew.heavy_columns``."""
CORRELATED = 0.95
"""Two numeric columns with an absolute correlation above this count in ``correlated.pairs_share``."""
MIN_SIDE = 20
"""With fewer rows on a side nothing can be told of a shift beyond new levels and values out of range."""
PERIOD = 0.95
"""A column whose distributions are so far apart (Kolmogorov-Smirnov, or total
variation) only names the part."""
FEWEST_TIMES, MOST_AT_LAST = 3, 0.4
"""A column puts the training rows in an order of time when it has so many values or more there, and the last
one on no more than this share of the rows: these validate, and the rest must be enough to train on."""
OUT_OF_RANGE = 0.01
"""A column with more than this share of its new cells beyond the training rows' range is named."""


@dataclass(frozen=True)
class FactSpec:
    """One fact: its name in conditions, type, unit, meaning, whether it may be None, and an example value."""

    name: str
    type: FactType
    unit: str
    meaning: str
    nullable: bool
    example: Any


def _schema(*specs: tuple[Any, ...]) -> dict[str, FactSpec]:
    """Rows of (name, type, unit, meaning, example[, "nullable"]) -> the schema by name."""
    return {row[0]: FactSpec(row[0], row[1], row[2], row[3], len(row) == 6, row[4]) for row in specs}


FACTS: Mapping[str, FactSpec] = MappingProxyType(
    _schema(
        ("rows", "int", "rows", "training rows that have a target", 1000),
        ("rows_test", "int", "rows", "test rows", 250),
        ("rows_without_target", "int", "rows", "rows left out because their target is missing", 3),
        ("rows_in_singleton_classes", "int", "rows", "rows left out because their class has no other row", 1),
        ("rows_per_feature", "float", "rows per column", "rows / features.used", 50.0, "nullable"),
        (
            "features",
            "int",
            "columns",
            "feature columns, the unused ones (identifier, constant) included",
            20,
        ),
        ("features.used", "int", "columns", "feature columns that reach the network", 18),
        ("features.numeric", "int", "columns", "numeric feature columns", 10),
        ("features.categorical", "int", "columns", "categorical feature columns", 6),
        ("features.boolean", "int", "columns", "two-valued feature columns", 1),
        ("features.datetime", "int", "columns", "date or time feature columns", 1),
        ("features.text", "int", "columns", "free text feature columns", 0),
        ("time.inputs", "int", "inputs", "numeric inputs that the time column becomes, 0 without one", 3),
        (
            "time.clamped_error_ratio",
            "float",
            "ratio",
            "forecast error of a linear model that clamps time at the last training value / of "
            "one without time (backtest)",
            0.96,
            "nullable",
        ),
        ("features.identifier", "int", "columns", "columns that only number or name the rows; not used", 1),
        (
            "features.constant",
            "int",
            "columns",
            "columns with one content in every row, not used; channels with one value",
            1,
        ),
        (
            "encoded_width",
            "int",
            "inputs",
            "network inputs at the base defaults: numeric arrays, one-hot up to 9 categories, else "
            "8 embedding inputs",
            40,
        ),
        ("encoded_width.one_hot", "int", "inputs", "network inputs if every category were one-hot", 160),
        ("task", "text", "", "binary, multiclass or regression", "binary"),
        (
            "test.origin",
            "text",
            "",
            "file (a test table was given) or held-out (taken from the rows given)",
            "held-out",
        ),
        ("has_groups", "bool", "", "a group column was named", False),
        ("groups.count", "int", "groups", "distinct groups among the training rows", 12, "nullable"),
        ("has_time", "bool", "", "a time column was named", False),
        (
            "time_ordered",
            "bool",
            "",
            "the rows are sorted by the time column (or by a datetime feature); None without either",
            False,
            "nullable",
        ),
        ("classes.count", "int", "classes", "classes of the target; None for regression", 2, "nullable"),
        (
            "classes.imbalance",
            "float",
            "ratio",
            "rows of the largest class / rows of the smallest",
            4.5,
            "nullable",
        ),
        ("classes.smallest", "int", "rows", "training rows of the smallest class", 180, "nullable"),
        (
            "classes.entropy",
            "float",
            "0..1",
            "entropy of the class shares / entropy of equal shares",
            0.68,
            "nullable",
        ),
        (
            "target.mean",
            "float",
            "target units",
            "mean of the training target (regression)",
            12.5,
            "nullable",
        ),
        (
            "target.std",
            "float",
            "target units",
            "standard deviation of the training target (regression)",
            3.0,
            "nullable",
        ),
        ("target.skew", "float", "", "skewness of the training target (regression)", 0.4, "nullable"),
        (
            "target.kurtosis",
            "float",
            "",
            "excess kurtosis of the training target, 0 for a normal one",
            1.2,
            "nullable",
        ),
        (
            "target.distinct",
            "int",
            "values",
            "distinct values of the training target (regression)",
            900,
            "nullable",
        ),
        (
            "target.zero_share",
            "float",
            "share",
            "share of zeros in the training target (regression)",
            0.0,
            "nullable",
        ),
        ("target.minimum", "float", "target units", "smallest training target (regression)", 0.5, "nullable"),
        ("missing.share", "float", "share", "missing cells / all cells of the feature columns", 0.02),
        ("missing.columns", "int", "columns", "feature columns with at least one missing cell", 3),
        (
            "missing.max_column_share",
            "float",
            "share",
            "share missing in the column where it is largest",
            0.2,
        ),
        (
            "missing.mostly_columns",
            "int",
            "columns",
            "feature columns with more than half of the cells missing",
            0,
        ),
        ("cardinality.max", "int", "categories", "categories of the column with most", 30, "nullable"),
        (
            "cardinality.high_columns",
            "int",
            "columns",
            f"categorical columns with more than {HIGH_CARDINALITY} categories",
            0,
        ),
        ("skew.max", "float", "", "largest absolute skewness of a numeric column", 3.0, "nullable"),
        ("skew.median", "float", "", "median absolute skewness of the numeric columns", 0.6, "nullable"),
        (
            "skew.heavy_columns",
            "int",
            "columns",
            f"numeric columns with absolute skewness over {HEAVY_SKEW:g}",
            1,
        ),
        (
            "outliers.share",
            "float",
            "share",
            "numeric cells further than 3 interquartile ranges outside the quartiles",
            0.001,
            "nullable",
        ),
        (
            "scale.ratio",
            "float",
            "ratio",
            "largest / smallest standard deviation of numeric columns",
            1000.0,
            "nullable",
        ),
        (
            "correlated.pairs_share",
            "float",
            "share",
            f"pairs of numeric columns with absolute correlation over {CORRELATED:g}",
            0.05,
            "nullable",
        ),
        ("duplicates.share", "float", "share", "rows whose features repeat an earlier row exactly", 0.0),
        (
            "duplicates.conflicting_share",
            "float",
            "share",
            "rows with a duplicate that has another target",
            0.0,
        ),
        (
            "duplicates.test_share",
            "float",
            "share",
            "test rows whose features repeat a training row exactly",
            0.0,
        ),
        (
            "duplicates.target_disagreement",
            "float",
            "ratio",
            "target variation among duplicate rows, relative to what the features leave "
            "unexplained; 0: exact copies, or no duplicates",
            0.0,
        ),
        (
            "duplicates.test_target_disagreement",
            "float",
            "ratio",
            "the same between test rows and the training rows that they repeat; only for findings",
            0.0,
        ),
        (
            "duplicates.near_test_share",
            "float",
            "share",
            "test rows whose features equal a training row's to three digits; not measured above "
            "100,000 rows",
            0.0,
            "nullable",
        ),
        (
            "duplicates.near_target_disagreement",
            "float",
            "ratio",
            "target disagreement of these test rows; for images and sequences, of exact duplicates",
            0.0,
            "nullable",
        ),
        (
            "test.unseen_class_rows",
            "int",
            "rows",
            "test rows left out because no training row has their class",
            0,
        ),
        (
            "test.format_mismatch_columns",
            "int",
            "columns",
            "columns of the test table whose format differs from the training rows",
            0,
        ),
        ("columns.format_mismatch", "list", "names", "these columns", []),
        (
            "test.format_mismatch_cells",
            "list",
            "texts",
            "each of them, and the number of cells",
            ["date: 250 of 250 cells in another format"],
        ),
        (
            "groups.unseen_columns",
            "int",
            "columns",
            "columns whose values repeat in the training rows and never occur in the test table",
            0,
        ),
        ("columns.unseen_groups", "list", "names", "these columns, the coarsest first", []),
        (
            "groups.entities",
            "int",
            "entities",
            "distinct values of the column that seems to name entities: other columns, or the target, "
            "are nearly constant within each",
            0,
        ),
        (
            "columns.entity",
            "list",
            "names",
            "this column; not measured with a test table or a group column",
            [],
        ),
        ("columns.of_entities", "list", "names", "the other columns", []),
        (
            "nearly_constant.columns",
            "int",
            "columns",
            "columns in which one value fills 99 % of the filled cells",
            0,
        ),
        (
            "columns.nearly_constant",
            "list",
            "names",
            "columns in which one value fills 99 % of the filled cells",
            [],
        ),
        (
            "text.uninformative",
            "int",
            "columns",
            "free text columns whose words do not predict the target",
            0,
        ),
        ("columns.uninformative_text", "list", "names", "these columns", []),
        (
            "leak.columns",
            "int",
            "columns",
            "feature columns that alone predict the target almost perfectly",
            0,
        ),
        (
            "shift.compared_with",
            "text",
            "",
            "test (a test table), time (later with earlier training rows), groups (half of them with the "
            "rest) or nothing",
            "test",
        ),
        ("shift.rows", "int", "rows", "rows compared, both sides together", 10000, "nullable"),
        (
            "shift.detected",
            "bool",
            "",
            "at least one shift test is significant (5 % false alarms in total); "
            f"None below {MIN_SIDE} rows on a side",
            True,
            "nullable",
        ),
        ("shift.tests", "list", "names", "the significant tests: columns, moments, trees", ["columns"]),
        (
            "shift.auc",
            "float",
            "0..1",
            "AUC of a tree classifier that separates the two sides, on held-out rows; 0.5 is chance",
            0.72,
            "nullable",
        ),
        ("shift.auc_low", "float", "0..1", "lower end of the 95 % interval of shift.auc", 0.7, "nullable"),
        ("shift.auc_high", "float", "0..1", "upper end of the 95 % interval of shift.auc", 0.74, "nullable"),
        (
            "shift.max_psi",
            "float",
            "nats",
            "largest population stability index of a column",
            0.31,
            "nullable",
        ),
        (
            "shift.max_distance",
            "float",
            "0..1",
            "largest distance of a column's distributions: Kolmogorov-Smirnov, or total variation of "
            "categories",
            0.4,
            "nullable",
        ),
        (
            "shift.overlap",
            "float",
            "share",
            "overlap of the two distributions by the tree classifier: 1 equal, 0 disjoint",
            0.6,
            "nullable",
        ),
        (
            "shift.test_groups",
            "int",
            "groups",
            "groups of the test rows where a side has too few to test, else 0",
            1,
        ),
        (
            "shift.group_distance",
            "float",
            "0..1",
            "then the mean distance of the columns' distributions",
            0.2,
            "nullable",
        ),
        (
            "shift.group_share",
            "float",
            "share",
            "then the share of sets of as many training groups that lie as far from the rest; None where "
            "there are too few",
            0.3,
            "nullable",
        ),
        ("shift.groups_far", "bool", "", "whether that is at most 5 %", False),
        (
            "shift.separating_columns",
            "int",
            "columns",
            "columns that alone separate the two sides",
            0,
            "nullable",
        ),
        (
            "shift.later_columns",
            "int",
            "columns",
            "columns whose test values all come after the training rows'",
            0,
            "nullable",
        ),
        (
            "shift.unseen_category_share",
            "float",
            "share",
            "rows with an unseen category, in the column with most",
            0.02,
            "nullable",
        ),
        (
            "shift.out_of_range_share",
            "float",
            "share",
            "numbers beyond the training rows' range, in the column with most",
            0.03,
            "nullable",
        ),
        (
            "shift.changed_share",
            "float",
            "share",
            "test rows with another value than all training rows have, in the constant column with most",
            0.0,
            "nullable",
        ),
        (
            "shift.target_distance",
            "float",
            "0..1",
            "distance of the training target along time or groups; None with a test table, whose target is "
            "not looked at",
            0.1,
            "nullable",
        ),
        (
            "shift.target_detected",
            "bool",
            "",
            "the training target differs along time or groups",
            False,
            "nullable",
        ),
        ("infinite.values", "int", "cells", "infinite numbers, read as missing", 0),
        (
            "unreadable.cells",
            "int",
            "cells",
            "unreadable text in numeric or date columns, read as missing",
            0,
        ),
        (
            "sentinels.cells",
            "int",
            "cells",
            "sentinels such as -999 that mark missing cells or points; read as missing",
            0,
        ),
        (
            "sentinels.codes",
            "list",
            "texts",
            "each column or channel with such numbers, and which",
            ["income: -999"],
        ),
        ("columns.sentinels", "list", "names", "numeric columns, or channels, with such numbers", ["income"]),
        (
            "spellings.joined",
            "int",
            "spellings",
            "spellings of categories and classes that were joined with another one",
            0,
        ),
        ("spellings.joined_cells", "int", "cells", "cells with these", 0),
        (
            "spellings.joined_as",
            "list",
            "texts",
            "each of them, and what it was read as",
            ["city: 'new york' as 'New York'"],
        ),
        (
            "columns.spellings_joined",
            "list",
            "names",
            "columns with such spellings, the target too",
            ["city"],
        ),
        (
            "spellings.categories",
            "int",
            "categories",
            "categories that look like another spelling of a category in the same column",
            0,
        ),
        ("columns.spellings", "list", "names", "categorical columns with such categories", []),
        ("spellings.classes", "int", "classes", "classes that look like another spelling of a class", 0),
        ("columns.constant", "list", "names", "the constant columns or channels", ["version"]),
        ("columns.identifier", "list", "names", "the identifier columns", ["id"]),
        ("columns.mostly_missing", "list", "names", "columns with more than half of the cells missing", []),
        (
            "columns.high_cardinality",
            "list",
            "names",
            f"categorical columns with more than {HIGH_CARDINALITY} categories",
            [],
        ),
        (
            "columns.heavy_tailed",
            "list",
            "names",
            f"numeric columns with absolute skewness over {HEAVY_SKEW:g}",
            ["fee"],
        ),
        (
            "columns.correlated",
            "list",
            "names",
            "numeric columns that nearly equal an earlier one",
            [],
        ),
        ("columns.leaking", "list", "names", "columns that alone predict the target almost perfectly", []),
        (
            "columns.shifted",
            "list",
            "names",
            "columns whose own distribution differs between the sides",
            ["age"],
        ),
        (
            "columns.separating",
            "list",
            "names",
            f"shifted columns with a distance of at least {PERIOD:g}",
            [],
        ),
        (
            "columns.later",
            "list",
            "names",
            "of these, those whose test values all come after the training rows'",
            [],
        ),
        (
            "columns.unseen_categories",
            "list",
            "names",
            "categorical columns with unseen categories",
            [],
        ),
        (
            "columns.out_of_range",
            "list",
            "names",
            f"columns with over {OUT_OF_RANGE:.0%} of the numbers beyond the training rows' range",
            [],
        ),
        (
            "columns.farthest",
            "list",
            "texts",
            "where groups are too few to test: columns by their distance",
            ["age (0.40)"],
        ),
        (
            "columns.changed",
            "list",
            "names",
            "constant columns with another value in test rows than in all training rows",
            [],
        ),
        ("cores", "int", "cores", "processor cores that this process may use", 8),
        ("memory.gb", "float", "GB", "memory of the machine (or of its container)", 32.0, "nullable"),
        ("memory.available_gb", "float", "GB", "memory that is free for this process now", 20.0, "nullable"),
        ("gpu.count", "int", "GPUs", "NVIDIA GPUs that nvidia-smi lists and this PyTorch may use", 0),
        ("gpu.memory_gb", "float", "GB", "memory of the smallest GPU", 24.0, "nullable"),
        *SIGNAL_FACTS,
    )
)


def damage(document: Mapping[str, Any]) -> str | None:
    """What is not of its type in facts that ``Facts.to_dict`` wrote; None when
    all is. What is absent is no damage, but for what every version has measured."""
    values = document["values"]
    for name in _always_measured(values):
        if values.get(name) is None:
            return f"the fact {name} is missing"
    for name, value in values.items():
        if name not in FACTS:
            return f"there is no fact '{name}'"
        if value is not None and not _IS[FACTS[name].type](value):
            return f"the fact {name} is no {FACTS[name].type}: {str(value)[:40]!r}"
    if not all(isinstance(how, str) for how in document["sampled"].values()):
        return "what was sampled is no text"
    for column in document["columns"]:
        if not _is_column(column):
            return "a column lacks what was measured of it, or holds something else"
    return (
        None
        if _is_shape(document.get("target", {}))
        else "the target holds something else than classes or a histogram"
    )


def _always_measured(values: Mapping[str, Any]) -> tuple[str, ...]:
    if values.get("image.side"):
        inputs: tuple[str, ...] = ("image.height", "image.width", "signal.channels")
    else:
        inputs = ("signal.channels",) if values.get("sequence.length") else ("features",)
    classes = ("classes.count",) if values.get("task") in CLASSIFICATIONS else ()
    return ("rows", "rows_test", "task", *inputs, *classes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: Mapping[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "list": lambda value: isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
}


def _is_column(column: Mapping[str, Any]) -> bool:
    """name, type, why, missing_share and distinct; of numbers quantiles and a histogram, of
    dates two texts, of words a list."""
    texts = all(isinstance(column.get(name), str) for name in ("name", "type", "why"))
    distinct = column.get("distinct", "")  # there, if only as None
    counted = _is_number(column.get("missing_share")) and (distinct is None or _is_number(distinct))
    median = column.get("median")
    quantiles = median is None or all(_is_number(column.get(name)) for name in ("median", "q05", "q95"))
    outliers = column.get("outliers") is None or _is_number(column["outliers"])
    shift = column.get("shift") or {}
    effects = isinstance(shift, Mapping) and not any(
        isinstance(value, list | Mapping) for value in shift.values()
    )
    return texts and counted and quantiles and outliers and effects and _is_shape(column)


def _is_shape(measured: Mapping[str, Any]) -> bool:
    """Whether a histogram, and the counts or shares of classes or levels, are what
    they should be where there are any."""
    histogram = measured.get("histogram", {"low": 0, "high": 1, "counts": []})
    if not (isinstance(histogram, Mapping) and isinstance(histogram.get("counts"), list)):
        return False
    numbers = [histogram.get("low"), histogram.get("high"), *histogram["counts"]]
    pairs = [measured.get("classes", []), measured.get("top", [])]
    return all(map(_is_number, numbers)) and all(
        isinstance(several, list)
        and all(isinstance(one, list) and len(one) == 2 and _is_number(one[1]) for one in several)
        for several in pairs
    )


@dataclass(frozen=True)
class Facts:
    """Measured facts.

    values: every name of FACTS -> its value, or None.
    sampled: fact name -> on how many rows it was measured, such as "10,000 of 1,000,000 rows".
    columns: one mapping per feature column for the report.
    target: the same of the target, its classes with their counts or its histogram.
    samples: a few images or series, for the report.
    """

    values: Mapping[str, Any]
    sampled: Mapping[str, str]
    columns: tuple[Mapping[str, Any], ...]
    target: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        known = sum(value is not None for value in self.values.values())
        what = f"{self.values.get('rows', 0):,} rows, {self.values.get('features') or 0:,} features"
        return f"<Facts: {what}, {self.values.get('task')}; {known} of {len(self.values)} values measured>"

    def _repr_html_(self) -> str:
        shown = [(name, value) for name, value in self.values.items() if value is not None]
        return html_table(repr(self).strip("<>"), ("Fact", "Value"), shown)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        columns = [dict(c) for c in self.columns]
        plain = {
            "values": dict(self.values),
            "sampled": dict(self.sampled),
            "columns": columns,
            "target": dict(self.target),
        }
        return plain | ({"samples": [dict(sample) for sample in self.samples]} if self.samples else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Facts:
        """The facts that ``to_dict`` wrote."""
        columns = tuple(dict(column) for column in data["columns"])
        samples = tuple(dict(sample) for sample in data.get("samples", ()))
        return cls(
            dict(data["values"]), dict(data["sampled"]), columns, dict(data.get("target", {})), samples
        )
