"""What is said of the target."""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec

TARGET_FACTS = (
    FactSpec(
        name="classes.count",
        type="int",
        unit="classes",
        meaning="classes of the target; None for regression",
        nullable=True,
        example=2,
    ),
    FactSpec(
        name="classes.imbalance",
        type="float",
        unit="ratio",
        meaning="rows of the largest class / rows of the smallest",
        nullable=True,
        example=4.5,
    ),
    FactSpec(
        name="classes.smallest",
        type="int",
        unit="rows",
        meaning="training rows of the smallest class",
        nullable=True,
        example=180,
    ),
    FactSpec(
        name="classes.entropy",
        type="float",
        unit="0..1",
        meaning="entropy of the class shares / entropy of equal shares",
        nullable=True,
        example=0.68,
    ),
    FactSpec(
        name="target.mean",
        type="float",
        unit="target units",
        meaning="mean of the training target (regression)",
        nullable=True,
        example=12.5,
    ),
    FactSpec(
        name="target.std",
        type="float",
        unit="target units",
        meaning="standard deviation of the training target (regression)",
        nullable=True,
        example=3.0,
    ),
    FactSpec(
        name="target.skew",
        type="float",
        unit="",
        meaning="skewness of the training target (regression)",
        nullable=True,
        example=0.4,
    ),
    FactSpec(
        name="target.kurtosis",
        type="float",
        unit="",
        meaning="excess kurtosis of the training target, 0 for a normal one",
        nullable=True,
        example=1.2,
    ),
    FactSpec(
        name="target.distinct",
        type="int",
        unit="values",
        meaning="distinct values of the training target (regression)",
        nullable=True,
        example=900,
    ),
    FactSpec(
        name="target.zero_share",
        type="float",
        unit="share",
        meaning="share of zeros in the training target (regression)",
        nullable=True,
        example=0.0,
    ),
    FactSpec(
        name="target.minimum",
        type="float",
        unit="target units",
        meaning="smallest training target (regression)",
        nullable=True,
        example=0.5,
    ),
)
