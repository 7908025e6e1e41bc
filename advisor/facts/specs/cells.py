"""What is said of the cells of the feature columns: missing ones, categories, spreads, duplicate rows."""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec
from advisor.facts.specs.thresholds import CORRELATED, HEAVY_SKEW, HIGH_CARDINALITY

CELL_FACTS = (
    FactSpec(
        name="missing.share",
        type="float",
        unit="share",
        meaning="missing cells / all cells of the feature columns",
        example=0.02,
    ),
    FactSpec(
        name="missing.columns",
        type="int",
        unit="columns",
        meaning="feature columns with at least one missing cell",
        example=3,
    ),
    FactSpec(
        name="missing.max_column_share",
        type="float",
        unit="share",
        meaning="share missing in the column where it is largest",
        example=0.2,
    ),
    FactSpec(
        name="missing.mostly_columns",
        type="int",
        unit="columns",
        meaning="feature columns with more than half of the cells missing",
        example=0,
    ),
    FactSpec(
        name="cardinality.max",
        type="int",
        unit="categories",
        meaning="categories of the column with most",
        nullable=True,
        example=30,
    ),
    FactSpec(
        name="cardinality.high_columns",
        type="int",
        unit="columns",
        meaning=f"categorical columns with more than {HIGH_CARDINALITY} categories",
        example=0,
    ),
    FactSpec(
        name="skew.max",
        type="float",
        unit="",
        meaning="largest absolute skewness of a numeric column",
        nullable=True,
        example=3.0,
    ),
    FactSpec(
        name="skew.median",
        type="float",
        unit="",
        meaning="median absolute skewness of the numeric columns",
        nullable=True,
        example=0.6,
    ),
    FactSpec(
        name="skew.heavy_columns",
        type="int",
        unit="columns",
        meaning=f"numeric columns with absolute skewness over {HEAVY_SKEW:g}",
        example=1,
    ),
    FactSpec(
        name="outliers.share",
        type="float",
        unit="share",
        meaning="numeric cells further than 3 interquartile ranges outside the quartiles",
        nullable=True,
        example=0.001,
    ),
    FactSpec(
        name="scale.ratio",
        type="float",
        unit="ratio",
        meaning="largest / smallest standard deviation of numeric columns",
        nullable=True,
        example=1000.0,
    ),
    FactSpec(
        name="correlated.pairs_share",
        type="float",
        unit="share",
        meaning=f"pairs of numeric columns with absolute correlation over {CORRELATED:g}",
        nullable=True,
        example=0.05,
    ),
    FactSpec(
        name="duplicates.share",
        type="float",
        unit="share",
        meaning="rows whose features repeat an earlier row exactly",
        example=0.0,
    ),
    FactSpec(
        name="duplicates.conflicting_share",
        type="float",
        unit="share",
        meaning="rows with a duplicate that has another target",
        example=0.0,
    ),
    FactSpec(
        name="duplicates.test_share",
        type="float",
        unit="share",
        meaning="test rows whose features repeat a training row exactly",
        example=0.0,
    ),
    FactSpec(
        name="duplicates.target_disagreement",
        type="float",
        unit="ratio",
        meaning=(
            "target variation among duplicate rows, relative to what the features leave "
            "unexplained; 0: exact copies, or no duplicates"
        ),
        example=0.0,
    ),
    FactSpec(
        name="duplicates.test_target_disagreement",
        type="float",
        unit="ratio",
        meaning="the same between test rows and the training rows that they repeat; only for findings",
        example=0.0,
    ),
    FactSpec(
        name="duplicates.near_test_share",
        type="float",
        unit="share",
        meaning=(
            "test rows whose features equal a training row's to three digits; not measured above 100,000 rows"
        ),
        nullable=True,
        example=0.0,
    ),
    FactSpec(
        name="duplicates.near_target_disagreement",
        type="float",
        unit="ratio",
        meaning="target disagreement of these test rows; for images and sequences, of exact duplicates",
        nullable=True,
        example=0.0,
    ),
)
