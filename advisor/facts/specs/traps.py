"""What is said of the traps in a table: other formats, groups, entities, columns that tell nothing or all."""

from __future__ import annotations

from advisor.facts.specs.spec import FactSpec

TRAP_FACTS = (
    FactSpec(
        name="test.unseen_class_rows",
        type="int",
        unit="rows",
        meaning="test rows left out because no training row has their class",
        example=0,
    ),
    FactSpec(
        name="test.format_mismatch_columns",
        type="int",
        unit="columns",
        meaning="columns of the test table whose format differs from the training rows",
        example=0,
    ),
    FactSpec(
        name="columns.format_mismatch",
        type="list",
        unit="names",
        meaning="these columns",
        example=[],
    ),
    FactSpec(
        name="test.format_mismatch_cells",
        type="list",
        unit="texts",
        meaning="each of them, and the number of cells",
        example=["date: 250 of 250 cells in another format"],
    ),
    FactSpec(
        name="groups.unseen_columns",
        type="int",
        unit="columns",
        meaning="columns whose values repeat in the training rows and never occur in the test table",
        example=0,
    ),
    FactSpec(
        name="columns.unseen_groups",
        type="list",
        unit="names",
        meaning="these columns, the coarsest first",
        example=[],
    ),
    FactSpec(
        name="groups.entities",
        type="int",
        unit="entities",
        meaning=(
            "distinct values of the column that seems to name entities: other columns, or the "
            "target, are nearly constant within each"
        ),
        example=0,
    ),
    FactSpec(
        name="columns.entity",
        type="list",
        unit="names",
        meaning="this column; not measured with a test table or a group column",
        example=[],
    ),
    FactSpec(
        name="columns.of_entities",
        type="list",
        unit="names",
        meaning="the other columns",
        example=[],
    ),
    FactSpec(
        name="nearly_constant.columns",
        type="int",
        unit="columns",
        meaning="columns in which one value fills 99 % of the filled cells",
        example=0,
    ),
    FactSpec(
        name="columns.nearly_constant",
        type="list",
        unit="names",
        meaning="columns in which one value fills 99 % of the filled cells",
        example=[],
    ),
    FactSpec(
        name="text.uninformative",
        type="int",
        unit="columns",
        meaning="free text columns whose words do not predict the target",
        example=0,
    ),
    FactSpec(
        name="columns.uninformative_text",
        type="list",
        unit="names",
        meaning="these columns",
        example=[],
    ),
    FactSpec(
        name="leak.columns",
        type="int",
        unit="columns",
        meaning="feature columns that alone predict the target almost perfectly",
        example=0,
    ),
)
