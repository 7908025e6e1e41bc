"""Values as Python's source writes them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 106
"""Characters of a line of a list."""


def python(value: Any) -> str:
    """A value as source: safe for whatever a column or a class is called."""
    if isinstance(value, str) and value.isprintable():
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        parts = ", ".join(map(python, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python(key)}: {python(one)}" for key, one in value.items()) + "}"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e6:
        return repr(float(value))
    return repr(value)


def source_list(values: Sequence[Any]) -> str:
    """A list, on several lines where it is long."""
    one_line = f"[{', '.join(map(python, values))}]"
    if len(one_line) <= WIDTH - 20:
        return one_line
    lines, line = [], ""
    for text in map(python, values):
        if line and len(line) + len(text) > WIDTH - 6:
            lines.append(line)
            line = ""
        line += f"{text}, "
    return "[\n" + textwrap.indent("\n".join(part.rstrip() for part in [*lines, line]), "    ") + "\n]"
