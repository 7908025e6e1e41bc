"""What is said of the shift between training and test rows."""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec
from advisor.facts.specs.thresholds import MIN_SIDE

SHIFT_FACTS = (
    FactSpec(
        name="shift.compared_with",
        type="text",
        unit="",
        meaning=(
            "test (a test table), time (later with earlier training rows), groups (half of them "
            "with the rest) or nothing"
        ),
        example="test",
    ),
    FactSpec(
        name="shift.rows",
        type="int",
        unit="rows",
        meaning="rows compared, both sides together",
        nullable=True,
        example=10000,
    ),
    FactSpec(
        name="shift.detected",
        type="bool",
        unit="",
        meaning=(
            "at least one shift test is significant (5 % false alarms in total); "
            f"None below {MIN_SIDE} rows on a side"
        ),
        nullable=True,
        example=True,
    ),
    FactSpec(
        name="shift.tests",
        type="list",
        unit="names",
        meaning="the significant tests: columns, moments, trees",
        example=["columns"],
    ),
    FactSpec(
        name="shift.auc",
        type="float",
        unit="0..1",
        meaning="AUC of a tree classifier that separates the two sides, on held-out rows; 0.5 is chance",
        nullable=True,
        example=0.72,
    ),
    FactSpec(
        name="shift.auc_low",
        type="float",
        unit="0..1",
        meaning="lower end of the 95 % interval of shift.auc",
        nullable=True,
        example=0.7,
    ),
    FactSpec(
        name="shift.auc_high",
        type="float",
        unit="0..1",
        meaning="upper end of the 95 % interval of shift.auc",
        nullable=True,
        example=0.74,
    ),
    FactSpec(
        name="shift.max_psi",
        type="float",
        unit="nats",
        meaning="largest population stability index of a column",
        nullable=True,
        example=0.31,
    ),
    FactSpec(
        name="shift.max_distance",
        type="float",
        unit="0..1",
        meaning=(
            "largest distance of a column's distributions: Kolmogorov-Smirnov, or total variation "
            "of categories"
        ),
        nullable=True,
        example=0.4,
    ),
    FactSpec(
        name="shift.overlap",
        type="float",
        unit="share",
        meaning="overlap of the two distributions by the tree classifier: 1 equal, 0 disjoint",
        nullable=True,
        example=0.6,
    ),
    FactSpec(
        name="shift.test_groups",
        type="int",
        unit="groups",
        meaning="groups of the test rows where a side has too few to test, else 0",
        example=1,
    ),
    FactSpec(
        name="shift.group_distance",
        type="float",
        unit="0..1",
        meaning="then the mean distance of the columns' distributions",
        nullable=True,
        example=0.2,
    ),
    FactSpec(
        name="shift.group_share",
        type="float",
        unit="share",
        meaning=(
            "then the share of sets of as many training groups that differ as much from the rest; None "
            "where there are too few"
        ),
        nullable=True,
        example=0.3,
    ),
    FactSpec(
        name="shift.groups_far",
        type="bool",
        unit="",
        meaning="whether that is at most 5 %",
        example=False,
    ),
    FactSpec(
        name="shift.separating_columns",
        type="int",
        unit="columns",
        meaning="columns that alone separate the two sides",
        nullable=True,
        example=0,
    ),
    FactSpec(
        name="shift.later_columns",
        type="int",
        unit="columns",
        meaning="columns whose test values all come after the training rows'",
        nullable=True,
        example=0,
    ),
    FactSpec(
        name="shift.unseen_category_share",
        type="float",
        unit="share",
        meaning="rows with an unseen category, in the column with most",
        nullable=True,
        example=0.02,
    ),
    FactSpec(
        name="shift.out_of_range_share",
        type="float",
        unit="share",
        meaning="numbers beyond the training rows' range, in the column with most",
        nullable=True,
        example=0.03,
    ),
    FactSpec(
        name="shift.changed_share",
        type="float",
        unit="share",
        meaning=(
            "test rows with another value than all training rows have, in the constant column with most"
        ),
        nullable=True,
        example=0.0,
    ),
    FactSpec(
        name="shift.target_distance",
        type="float",
        unit="0..1",
        meaning=(
            "distance of the training target over time or between groups; None with a test table, whose "
            "target is not read"
        ),
        nullable=True,
        example=0.1,
    ),
    FactSpec(
        name="shift.target_detected",
        type="bool",
        unit="",
        meaning="the training target differs over time or between groups",
        nullable=True,
        example=False,
    ),
)
