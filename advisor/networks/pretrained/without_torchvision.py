"""timm without torchvision, of which its networks use nothing.

timm imports torchvision for the data loading that we do not use. torchvision is often absent, or built for
another torch: PyPI's is made for CUDA, and beside a torch for CPUs its import fails. Then modules with the
names that timm asks for stand in while timm is imported, and are removed again: no other library meets them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

NAMES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
"""What timm imports without asking whether it is there."""


class _Missing(type):
    """A class that has every attribute, each a class of the same kind; none of them does anything."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _missing(name)


def _missing(name: str) -> Any:
    return _Missing(name, (), {})


class _StandIn(ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _missing(name)


@contextmanager
def stand_in() -> Iterator[None]:
    """While it lasts, the names of torchvision that timm needs can be imported."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == NAMES[0]}
    for name in before:
        del sys.modules[name]
    for name in NAMES:
        sys.modules[name] = _StandIn(name)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, sys.modules[name])
    try:
        yield
    finally:
        for name in NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(before)
