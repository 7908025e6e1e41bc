"""What the process that reads Parquet files and spreadsheets does: their readers abort
it on some damaged files (``apart``).

``python -m advisor.data.sources.table_worker`` is started by ``advisor.data.sources.reading``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from advisor.data import isolation
from advisor.errors import UserError, shown

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


CELL_BYTES = 8
"""Of a number in memory."""


def read_parquet(order: Mapping[str, Any], out: IO[bytes]) -> list[str]:
    """Write a Parquet file as an Arrow file whose columns are named by position; the columns' own names.

    order: path; text (the path for messages); limit; rows, where no more than the first ones are wanted.
    """
    import pyarrow as pa
    from pyarrow import parquet

    text, limit, rows = order["text"], order["limit"], order["rows"]
    try:
        with parquet.ParquetFile(order["path"], memory_map=True) as file:
            if not rows:
                _check_declared_size(file, text, limit)
            if nested := [field for field in file.schema_arrow if pa.types.is_nested(field.type)]:
                raise UserError(nested_column(text, nested[0].name, str(nested[0].type), len(nested)))
            _write_pieces(_pieces(file, rows, _declared(file.schema_arrow)), out, text, limit)
            return list(file.schema_arrow.names)
    except pa.ArrowMemoryError as error:
        raise MemoryError from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{text} cannot be read as Parquet: {shown(error, 160)}; is it complete?") from error


def _check_declared_size(file: Any, text: str, limit: int) -> None:
    """UserError where the rows that the header declares would not fit: repeated values need no bytes in the
    file, but 8 each (text more) in memory."""
    rows, width = file.metadata.num_rows, file.metadata.num_columns
    if rows * width * CELL_BYTES > limit:
        raise UserError(
            f"{text} declares {rows:,} rows of {width:,} columns, {rows * width * CELL_BYTES:,} bytes in "
            f"memory; at most {limit:,} are read"
        )


def _write_pieces(pieces: Iterator[pa.Table], out: IO[bytes], text: str, limit: int) -> None:
    """Write tables as one Arrow file; at least one. UserError where they grow past the limit."""
    import pyarrow as pa

    size, writer = 0, None
    for table in pieces:
        table.validate(full=True)  # damaged lengths and offsets would crash whoever follows them
        size += table.nbytes
        if size > limit:
            raise UserError(f"{text} has more than {limit:,} bytes once unpacked, the most that are read")
        table = table.rename_columns([str(position) for position in range(table.num_columns)])
        writer = writer or pa.ipc.new_file(out, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _declared(schema: pa.Schema) -> list[int]:
    """The positions of columns that were categories of numbers in pandas: Parquet keeps the
    numbers alone, and says so beside."""
    import pyarrow as pa

    columns = (schema.pandas_metadata or {}).get("columns", [])
    names = {column.get("field_name") for column in columns if column.get("pandas_type") == "categorical"}
    numbers = (pa.types.is_integer, pa.types.is_floating)
    return [
        i
        for i, field in enumerate(schema)
        if field.name in names and any(is_one(field.type) for is_one in numbers)
    ]


def _as_categories(table: pa.Table, positions: list[int]) -> pa.Table:
    """The table with these columns as categories."""
    import pyarrow as pa

    for position in positions:
        texts = table.column(position).cast(pa.string()).combine_chunks()
        table = table.set_column(position, table.schema.field(position).name, texts.dictionary_encode())
    return table


def _pieces(file: Any, rows: int | None, declared: list[int]) -> Iterator[pa.Table]:
    """The tables of a file, one for each group of rows, so that no more than one is in memory; at least one.

    declared: the positions of columns that become categories.
    """
    import pyarrow as pa

    if rows:
        batch = next(file.iter_batches(batch_size=rows), None)
        yield _as_categories(
            file.schema_arrow.empty_table() if batch is None else pa.Table.from_batches([batch]), declared
        )
    elif (
        declared
        or not file.num_row_groups
        or any(pa.types.is_dictionary(field.type) for field in file.schema_arrow)
    ):
        yield _as_categories(
            file.read(), declared
        ).unify_dictionaries()  # an Arrow file has one dictionary for a column
    else:
        yield from map(file.read_row_group, range(file.num_row_groups))


def nested_column(text: str, name: str, kind: str, count: int) -> str:
    """What is wrong with a column whose cells are no plain values."""
    more = f" (and {count - 1} more columns)" if count > 1 else ""
    return (
        f"{text}: column '{shown(name)}' holds {shown(kind, 60)} values{more}; expected plain numbers, text "
        "or dates: "
        "unnest the column or drop it"
    )


def read_sheet(order: Mapping[str, Any], out: IO[bytes]) -> dict[str, Any]:
    """Write a sheet of a spreadsheet as CSV, see ``spreadsheets.write_sheet``."""
    from advisor.data.sources.spreadsheets import write_sheet

    return write_sheet(
        order["path"], order["text"], order["sheet"], order["limit"], out,
        careful=order["careful"], or_another=order["or_another"],
    )  # fmt: skip


JOBS = {"parquet": read_parquet, "sheet": read_sheet}
LOADS = {"parquet": ("pyarrow.parquet",), "sheet": ("advisor.data.sources.spreadsheets",)}

if __name__ == "__main__":
    isolation.serve_jobs(JOBS, LOADS)
