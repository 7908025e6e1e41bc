"""Who is judged: the advisor, and others on the same programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from program import Program

import advisor


@dataclass(frozen=True)
class Said:
    """One thing that a debugger said. level: error, warning or note."""

    level: str
    code: str
    categories: tuple[str, ...]


def ours(program: Program) -> list[Said]:
    """The inspection, of all that a person can hand to it."""
    x, y = program.batch()
    found = advisor.inspect(
        program.module,
        program.loader or x,
        None if program.loader else y,
        loss=program.loss,
        optimizer=program.optimizer,
        epochs=program.epochs,
        rows=len(program.data.x),
        batch_size=program.batch_size,
        step=program.step,
    )
    return [Said(f.severity, f.code, (f.category,)) for f in found.findings]


PEERS: dict[str, Callable[[Program], list[Said]]] = {"advisor": ours}
