"""Reads any source that a user may name as a frame with unique column names, nothing interpreted yet.

Every failure that the user can fix is a UserError. What was quietly repaired is counted in ``Source.notes``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from advisor.data.options import FileForm
from advisor.data.sources.frames import from_pandas
from advisor.data.sources.local_files import read_path
from advisor.data.sources.named_sets import from_openml, from_sklearn
from advisor.data.sources.source import Source, checked_source
from advisor.errors import UserError

MAX_BYTES = 20 * 10**9
"""Largest uncompressed size that is read, in bytes, unless the caller says otherwise."""


def read_source(source: object, *, max_bytes: int = MAX_BYTES, form: FileForm | None = None) -> Source:
    """Read a path, ``sklearn:NAME``, ``openml:ID`` or a data frame; UserError for whatever cannot be read.

    max_bytes: refuse more than this many uncompressed bytes (never more than the memory that is free).
    form: passed over where a source has no use for it: test rows may come in another format.
    """
    if isinstance(source, pl.LazyFrame):
        raise UserError("the data is a polars LazyFrame; call .collect() on it first")
    if isinstance(source, pl.DataFrame):
        return checked_source(source, source.columns, "data-frame", "polars.DataFrame", {})
    if (
        type(source).__module__.partition(".")[0] == "pandas"
        and hasattr(source, "iloc")
        and hasattr(source, "columns")
    ):
        return replace(from_pandas(source, "data-frame", "pandas.DataFrame"), given=source)
    if isinstance(source, str) and source.startswith(("sklearn:", "openml:")):
        kind, _, name = source.partition(":")
        return from_sklearn(name, source) if kind == "sklearn" else from_openml(name, source)
    if isinstance(source, str | Path):
        return read_path(source, max_bytes, form or FileForm())
    raise UserError(
        f"the data is a {type(source).__name__}; expected a file's path, 'sklearn:NAME', 'openml:ID', "
        "or a pandas or polars DataFrame"
    )
