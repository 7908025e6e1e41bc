"""Who is judged: the advisor, and others on the same programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from program import Program

import advisor

BEFORE = {
    "unscaled-inputs": "inputs", "input-not-finite": "inputs", "initialization": "initialization",
    "dead-units": "initialization", "saturated-units": "initialization", "gradient-vanishes": "activation",
    "gradient-explodes": "initialization", "softmax-before-cross-entropy": "output", "output-not-finite": "output",
    "no-activation-between": "activation", "batch-norm-small-batch": "batch size", "unused-parameters": "gradient",
    "rows-mixed": "shape", "many-parameters-for-the-rows": "architecture", "late-pooling": "architecture",
    "receptive-field-small": "architecture",
}  # fmt: skip
"""What the inspection's codes were about before findings had a category."""


@dataclass(frozen=True)
class Said:
    """One thing that a debugger said. level: error, warning or note."""

    level: str
    code: str
    categories: tuple[str, ...]


def before(program: Program) -> list[Said]:
    """The inspection as it was: a network and a batch."""
    x, y = program.batch()
    found = advisor.inspect(program.module, x, y, rows=len(program.data.x), batch_size=program.batch_size)
    return [Said(f.severity, f.code, (BEFORE.get(f.code, f.code),)) for f in found.findings]


PEERS: dict[str, Callable[[Program], list[Said]]] = {"advisor": before, "before": before}
