"""A benchmark as cases of which each is measured once: what is finished is kept at once, and
a second call goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def kept(results: Path) -> list[Row]:
    """What earlier calls have measured."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def keep(results: Path, row: Row) -> None:
    with results.open("a") as file:
        file.write(json.dumps(row) + "\n")


def go_on(
    results: Path,
    title: str,
    case: Sequence[str],
    todo: Iterable[tuple[Any, ...]],
    measure: Callable[..., Row],
    table_of: Callable[[list[Row]], str],
) -> None:
    """Measure what of ``todo`` is not in ``results`` (JSON lines) yet; the table goes
    beside it as Markdown, and to stdout.

    case: the fields of a row that say which case it is, in the order of a tuple
        of ``todo``, ``measure``'s arguments.
    """
    results.parent.mkdir(exist_ok=True)
    rows = kept(results)
    done = {tuple(row[name] for name in case) for row in rows}
    for one in todo:
        if one in done:
            continue
        rows.append(measure(*one))
        keep(results, rows[-1])
        print(json.dumps(rows[-1]), flush=True)
        results.with_suffix(".md").write_text(f"# {title}\n\n{table_of(rows)}\n")
    print(table_of(rows))
