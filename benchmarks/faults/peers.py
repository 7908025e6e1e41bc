"""Who is judged: the advisor, and others on the same programs.

torcheck is installed beside, so that it meets none of our packages:

    python -m pip install --no-deps --target benchmarks/cache/peers torcheck==1.0.1

TrainCheck (0.2.0) infers invariants from the trace of a sound run of the same script, started by itself: there is
nothing to compare on programs that are objects. UMLAUT is for Keras; its published thresholds are written out here.
"""

from __future__ import annotations

import copy
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from program import Program, train
from torch import nn

import advisor

STEPS = 40
"""Of a training that a peer watches; UMLAUT and torcheck say nothing before something has run."""


@dataclass(frozen=True)
class Said:
    """One thing that a debugger said. level: error, warning or note."""

    level: str
    code: str
    categories: tuple[str, ...]


def ours(program: Program) -> list[Said]:
    """The inspection, of all that a user can hand to it."""
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


def umlaut(program: Program) -> list[Said]:
    """The thresholds of Schoop et al. 2021 (UMLAUT, CHI), table 1, in our words and for torch."""
    said: list[Said] = []

    def say(code: str, *categories: str) -> None:
        said.append(Said("warning", code, categories))

    x, module = program.data.x, program.module
    rate = float(program.optimizer.param_groups[0]["lr"])
    if rate > 0.01:
        say("rate above 0.01", "learning rate")
    if rate < 1e-7:
        say("rate below 1e-7", "learning rate")
    if x.is_floating_point() and (not torch.isfinite(x).all() or x.min() < -1 or x.max() > 1):
        say("input outside of -1 to 1", "inputs")
    parts = [part for part in module.modules() if not any(part.children())]
    layers = [i for i, part in enumerate(parts) if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d)]
    if program.score == "accuracy" and not isinstance(parts[-1], nn.Softmax | nn.LogSoftmax):
        say("no softmax at the end", "output")
    if any(b == a + 1 for a, b in itertools.pairwise(layers)):
        say("no activation between layers", "activation")
    if any(isinstance(part, nn.Dropout) and part.p > 0.5 for part in parts):
        say("dropout above 0.5", "regularization")
    losses: list[float] = []
    train(program, on_loss=lambda value: losses.append(float(value.detach())), most_steps=STEPS)
    if losses and not math.isfinite(losses[-1]):
        say("loss is nan", "learning rate")
    if len(losses) > 10 and sum(losses[-5:]) > 1.2 * sum(losses[:5]):
        say("loss rises", "learning rate")
    return said


def torcheck(program: Program) -> list[Said]:
    """Parameters that do not change, and numbers that are none, in some steps of the program's own loop."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cache" / "peers"))
    import torcheck as peer  # type: ignore[import-not-found]

    registry: Any = peer.Registry()
    registry.register(program.optimizer)
    registry.add_module_changing_check(program.module, module_name="network")
    registry.add_module_nan_check(program.module, module_name="network")
    try:
        train(copy.copy(program), most_steps=STEPS)
    except RuntimeError as error:
        text = str(error)
        if "change" in text:
            return [
                Said(
                    "error", "does not change", ("optimizer", "frozen", "gradient", "loop", "initialization")
                )
            ]
        if "NaN" in text or "nan" in text:
            return [Said("error", "nan", ("inputs", "learning rate"))]
        return [Said("error", "the program stops", ("shape",))]
    return []


PEERS: dict[str, Callable[[Program], list[Said]]] = {"advisor": ours, "umlaut": umlaut, "torcheck": torcheck}
