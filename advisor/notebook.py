"""What objects show of themselves in a notebook: short tables of HTML, every cell escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

MOST_ROWS = 12
"""A table in a notebook shows at most this many rows, and says how many more there are."""


def html_table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()
) -> str:
    """A heading, sentences and a table as HTML.

    rows: as many cells as headers, each shown as text; None is an empty cell.
    """
    parts = [f"<h4>{escape(title)}</h4>", *(f"<p>{escape(note)}</p>" for note in notes)]
    if rows:
        head = "".join(f"<th style='text-align:left'>{escape(header)}</th>" for header in headers)
        body = "".join(_row(row) for row in rows[:MOST_ROWS])
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if len(rows) > MOST_ROWS:
        parts.append(f"<p>and {len(rows) - MOST_ROWS:,} more</p>")
    return f"<div>{''.join(parts)}</div>"


def _row(cells: Sequence[Any]) -> str:
    shown = (
        "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells
    )
    return f"<tr>{''.join(f'<td style=text-align:left>{escape(text)}</td>' for text in shown)}</tr>"
