"""What is said of the rows and their columns."""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec

ROW_FACTS = (
    FactSpec(
        name="rows",
        type="int",
        unit="rows",
        meaning="training rows that have a target",
        example=1000,
    ),
    FactSpec(
        name="rows_test",
        type="int",
        unit="rows",
        meaning="test rows",
        example=250,
    ),
    FactSpec(
        name="rows_without_target",
        type="int",
        unit="rows",
        meaning="rows left out because their target is missing",
        example=3,
    ),
    FactSpec(
        name="rows_in_singleton_classes",
        type="int",
        unit="rows",
        meaning="rows left out because their class has no other row",
        example=1,
    ),
    FactSpec(
        name="rows_per_feature",
        type="float",
        unit="rows per column",
        meaning="rows / features.used",
        nullable=True,
        example=50.0,
    ),
    FactSpec(
        name="features",
        type="int",
        unit="columns",
        meaning="feature columns, the unused ones (identifier, constant) included",
        example=20,
    ),
    FactSpec(
        name="features.used",
        type="int",
        unit="columns",
        meaning="feature columns that reach the network",
        example=18,
    ),
    FactSpec(
        name="features.numeric",
        type="int",
        unit="columns",
        meaning="numeric feature columns",
        example=10,
    ),
    FactSpec(
        name="features.categorical",
        type="int",
        unit="columns",
        meaning="categorical feature columns",
        example=6,
    ),
    FactSpec(
        name="features.boolean",
        type="int",
        unit="columns",
        meaning="two-valued feature columns",
        example=1,
    ),
    FactSpec(
        name="features.datetime",
        type="int",
        unit="columns",
        meaning="date or time feature columns",
        example=1,
    ),
    FactSpec(
        name="features.text",
        type="int",
        unit="columns",
        meaning="free text feature columns",
        example=0,
    ),
    FactSpec(
        name="time.inputs",
        type="int",
        unit="inputs",
        meaning="numeric inputs that the time column becomes, 0 without one",
        example=3,
    ),
    FactSpec(
        name="time.clamped_error_ratio",
        type="float",
        unit="ratio",
        meaning=(
            "forecast error of a linear model that clamps time at the last training value / of "
            "one without time (backtest)"
        ),
        nullable=True,
        example=0.96,
    ),
    FactSpec(
        name="features.identifier",
        type="int",
        unit="columns",
        meaning="columns that only number or name the rows; not used",
        example=1,
    ),
    FactSpec(
        name="features.constant",
        type="int",
        unit="columns",
        meaning="columns with the same content in every row, not used; channels with one value",
        example=1,
    ),
    FactSpec(
        name="encoded_width",
        type="int",
        unit="inputs",
        meaning=(
            "network inputs at the base defaults: numeric arrays, one-hot up to 9 categories, "
            "else 8 embedding inputs"
        ),
        example=40,
    ),
    FactSpec(
        name="encoded_width.one_hot",
        type="int",
        unit="inputs",
        meaning="network inputs if every category were one-hot",
        example=160,
    ),
    FactSpec(
        name="task",
        type="text",
        unit="",
        meaning="binary, multiclass or regression",
        example="binary",
    ),
    FactSpec(
        name="test.origin",
        type="text",
        unit="",
        meaning="file (a test table was given) or held-out (taken from the rows given)",
        example="held-out",
    ),
    FactSpec(
        name="has_groups",
        type="bool",
        unit="",
        meaning="a group column was named",
        example=False,
    ),
    FactSpec(
        name="groups.count",
        type="int",
        unit="groups",
        meaning="distinct groups among the training rows",
        nullable=True,
        example=12,
    ),
    FactSpec(
        name="has_time",
        type="bool",
        unit="",
        meaning="a time column was named",
        example=False,
    ),
    FactSpec(
        name="time_ordered",
        type="bool",
        unit="",
        meaning="the rows are sorted by the time column (or by a datetime feature); None without either",
        nullable=True,
        example=False,
    ),
)
