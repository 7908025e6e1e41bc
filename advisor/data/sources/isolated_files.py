"""Parquet files and spreadsheets, read by a worker process, which some damaged files abort."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from advisor.data import isolation
from advisor.data.options import FileForm
from advisor.data.sources.source import unique_names
from advisor.errors import UserError, shown
from advisor.machine import available_memory

_WORKER = "advisor.data.sources.table_worker"
# Polars reports some broken files by a Rust panic, which is no PolarsError.
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


def first_rows(path: Path, rows: int) -> pl.DataFrame:
    """Of a Parquet file; none where it cannot be read: reading the whole of it says why."""
    try:
        frame, names = parquet_frame(path, shown(path, 200), available_memory(), rows)
    except UserError:
        return pl.DataFrame()
    return frame.rename(dict(zip(frame.columns, unique_names(names)[0], strict=True)))


def parquet_frame(
    path: Path, text: str, limit: int, rows: int | None = None
) -> tuple[pl.DataFrame, list[str]]:
    """The frame (or its first rows), its columns named by position, and the columns' own names."""
    order = {"do": "parquet", "path": str(path.absolute()), "text": text, "rows": rows}
    try:
        with isolation.answered(_WORKER, order, limit) as answer:
            import pyarrow as pa  # type: ignore[import-untyped]

            # mapped: the frame keeps it, and nothing is copied
            content = pa.memory_map(f"/dev/fd/{answer.file}").read_buffer(answer.size)
        frame = pl.from_arrow(pa.ipc.open_file(content).read_all())
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame(), answer.value
    except isolation.WorkerDied as error:
        raise UserError(
            f"{text} cannot be read as Parquet: its reader crashed; is the file damaged or malicious?"
        ) from error
    except POLARS_ERRORS as error:
        raise UserError(f"{text} cannot be read as Parquet: {shown(error, 160)}; is it complete?") from error
    except MemoryError as error:
        raise UserError(f"{text} does not fit into free memory") from error


def sheet_as_csv(path: Path, text: str, form: FileForm, limit: int) -> tuple[bytes, str, dict[str, str]]:
    """A sheet as CSV, so that titles above the header and the like are one matter; its
    name; what to tell of the choice."""
    # The sheet, its copy in the frame and what the reader needs meanwhile are in
    # memory at once: a third of it each.
    limit = min(limit, available_memory() // 3)
    for careful in (False, True):
        order: dict[str, Any] = {
            "do": "sheet",
            "path": str(path.absolute()),
            "text": text,
            "sheet": form.sheet,
        }
        order |= {"careful": careful, "or_another": form.remembered}
        try:
            with isolation.answered(_WORKER, order, limit) as answer:
                return answer.content(), answer.value["sheet"], _told_of_sheet(answer.value)
        except (isolation.WorkerDied, MemoryError):
            if path.suffix.lower() not in (".xlsx", ".xlsm"):
                break
            # else perhaps one that lies about its extent: every cell is looked at
    needs = f"{text} needs more than {limit:,} bytes of memory to be read, or is damaged"
    raise UserError(f"{needs}; save the sheet as CSV or Parquet")


def _told_of_sheet(found: Mapping[str, Any]) -> dict[str, str]:
    told = {}
    name = shown(found["sheet"], 40)
    if others := [other for other in found["sheets"] if other != found["sheet"]]:
        some = ", ".join(f"'{shown(other, 40)}'" for other in others[:8])
        told["other-sheets"] = f"The sheet '{name}' was read, but not {some}. --sheet NAME reads another one."
    if found["reach"]:
        told["far-cells"] = (
            f"Sheet '{name}': {found['reach']}. Empty rows and columns are ignored; is there a stray cell?"
        )
    return told
