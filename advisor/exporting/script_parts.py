"""What scripts are put together from: templates, lines, and values as Python's source writes them."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from advisor.errors import UserError

WIDTH = 106
"""Characters of a line of a list."""
PLAIN_STEP = ("losses = learned.training_losses(network(*(part[batch] for part in x)), y[batch])",)
"""Nothing is done to the rows of a batch."""
OPTIMIZER = "training/optimizer.jinja"
ORDER = "torch.from_numpy(train).to(DEVICE)[torch.randperm(len(train))]"
"""The training rows in the order of an epoch."""
Settings = Sequence[tuple[str, str, str]]
"""Names in capitals, values as source, and comments."""


@dataclass(frozen=True)
class Parts:
    """What a script has because of its kind of rows.

    settings, data, network, training: names of templates, in the order in which the file has them.
    step: the lines that compute ``losses``, of each row of a batch in a step of training.
    imports: lines. network_settings: constants of the network. penalized: the layers whose weights penalties
    act on, as source. notes: what else the file does not do. rows_per_pass: without gradients.
    group: the column whose groups are kept together. optimizer: the template that makes it.
    context: what only these templates read.
    """

    settings: tuple[str, ...]
    data: tuple[str, ...]
    network: tuple[str, ...]
    step: tuple[str, ...]
    network_settings: Settings
    penalized: str
    rows_per_pass: int = 256
    group: str | None = None
    optimizer: str = OPTIMIZER
    training: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)


def uncovered(what: str, instead: str) -> UserError:
    """What no script covers, with another configuration that one covers."""
    return UserError(
        f"--format script does not cover {what}: take --format onnx or torch, which hold the trained "
        f"model, or train again with {instead}"
    )


def sorted_imports(lines: Iterable[str]) -> str:
    """Import lines as linters want them: those of Python itself before others; one line for each module."""
    plain, names = set[str](), dict[str, set[str]]()
    for line in lines:
        first, module, *rest = line.split(maxsplit=3)
        if first == "import":
            plain.add(line)
        else:
            names.setdefault(module, set()).update(rest[1].split(", "))
    chosen = [f"from {module} import {', '.join(sorted(own, key=_by_case))}" for module, own in names.items()]
    every = [*sorted(plain), *sorted(chosen)]
    own = [line for line in every if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    return "\n".join([*own, "", *(line for line in every if line not in own)])


def _by_case(name: str) -> tuple[bool, str]:
    return not name[0].isupper(), name


def setting(name: str, value: Any, comment: str = "") -> tuple[str, str, str]:
    """A line of the configuration."""
    return name.upper(), python(value), f"  # {comment}" if comment else ""


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
