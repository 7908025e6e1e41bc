"""What the pre-flight says: its checks as data, and two judgements of nothing but numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ZERO_TOLERANCE, DRAWN_TOLERANCE = 0.01, 0.5
"""By how much the first loss may exceed a constant's, where the output layer
starts at zero and where it is drawn."""
LEAK = 0.5
"""Share of a constant's loss: with labels that mean nothing, validation rows get
there only when they are known."""


@dataclass(frozen=True)
class PreflightCheck:
    """One result.
    passed: None when it could not be judged. cause and fix: of a failure, in words."""

    check: str
    passed: bool | None
    words: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    cause: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Preflight:
    """All results in the order in which they were made.
    rows: training and validation rows that took part."""

    checks: tuple[PreflightCheck, ...]
    rows: tuple[int, int]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no check failed; what could not be judged is no failure."""
        return not self.failed

    @property
    def failed(self) -> tuple[PreflightCheck, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        marks = {True: "ok", False: "FAILED", None: "not judged"}
        width = max(len(check.check) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{marks[check.passed]:10}  {check.check:{width}}  {check.words}")
            if check.passed is False:
                lines += [f"{'':12}{'cause':{width}}  {check.cause}", f"{'':12}{'fix':{width}}  {check.fix}"]
        rows = f"{self.rows[0]:,} training and {self.rows[1]:,} validation rows"
        end = (
            f"{len(self.failed)} of {len(self.checks)} checks failed"
            if self.failed
            else "the checks found no problem"
        )
        return "\n".join([*lines, f"{end} ({rows}, {self.seconds:.0f} s)"])


def first_loss(loss: float, expected: float, *, zero: bool) -> PreflightCheck:
    """Judge the loss at initialization against that of a constant;
    zero: whether the output layer starts at zero."""
    numbers = {"loss": loss, "constant": expected}
    words = f"before training the loss is {loss:.3g}; a constant's is {expected:.3g}"
    tolerance = ZERO_TOLERANCE if zero else DRAWN_TOLERANCE
    if loss <= expected * (1 + tolerance) + 1e-4 and (not zero or loss >= expected * (1 - tolerance) - 1e-4):
        return PreflightCheck("first-loss", True, words, numbers)
    cause = (
        "the first outputs are not finite" if not math.isfinite(loss)
        else "the output layer should start at the class shares (or the mean), but it does not" if zero
        else "the first outputs are large: training must first undo them"
    )  # fmt: skip
    fix = "start the output layer at zero (--fixed output_init=zero), scale the inputs"
    return PreflightCheck("first-loss", False, words, numbers, cause, fix)


def no_leak(validated: float, trained: float, constant: float, *, copies: int, epochs: int) -> PreflightCheck:
    """Judge the validation and the training loss with labels that mean nothing against a constant's;
    copies: how many validation rows have the inputs and the target of a training row."""
    numbers = {
        "validation": validated,
        "training": trained,
        "constant": constant,
        "copies": copies,
        "epochs": epochs,
    }
    words = f"shuffled labels: loss {validated:.3g} on validation rows, {trained:.3g} on training rows, "
    words += f"a constant's {constant:.3g}"
    if trained > LEAK * constant:
        words += ": not even the training rows were learned in the time limit; allow more with --seconds"
        return PreflightCheck("no-leak", None, words, numbers)
    if validated > LEAK * constant:
        return PreflightCheck("no-leak", True, words, numbers)
    known = f" ({copies:,})" if copies else ""
    return PreflightCheck(
        "no-leak", False, words, numbers,
        f"validation rows, or copies of them, are among the training rows{known}: the validation loss is too "
        "optimistic",
        "remove duplicate rows, or keep rows that belong together on one side with --group-column",
    )  # fmt: skip
