"""What of a user's function cannot be sent to a worker, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any


def unsendable(objective: Any, dumps: Callable[[Any], bytes]) -> str | None:
    """What in a function (or an object that is called) cannot be sent to a worker,
    by name and type; None when all can.

    dumps: pickles, and raises where it cannot. Where several things cannot, it is the first and innermost.
    """
    seen = dict[int, Any]()  # by their ids; kept, so that no two share one

    def inside(thing: Any, path: str) -> str | None:
        if id(thing) in seen or _can(dumps, thing):
            return None
        seen[id(thing)] = thing
        for name, part in _parts(thing, path):
            if found := inside(part, name):
                return found
        return f"{path or 'itself'} ({type(thing).__name__})"

    return inside(objective, "")


def _can(dumps: Callable[[Any], bytes], thing: Any) -> bool:
    try:
        dumps(thing)
    except Exception:  # noqa: BLE001 - whatever a __reduce__ of theirs raises: it cannot
        return False
    return True


def _parts(thing: Any, path: str) -> Iterable[tuple[str, Any]]:
    """What is pickled with a thing, by name: of a function what it uses from outside, of an
    object its attributes and methods."""
    if isinstance(thing, functools.partial):
        yield from [
            (path, thing.func),
            *((f"{path}[{i}]", one) for i, one in enumerate(thing.args)),
            *thing.keywords.items(),
        ]
    elif isinstance(thing, MethodType):
        yield from [(path or "self", thing.__self__), (path, thing.__func__)]
    elif isinstance(thing, FunctionType):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        used = _global_names(thing.__code__)
        yield from ((name, cell.cell_contents) for name, cell in cells)
        yield from ((name, thing.__globals__[name]) for name in used if name in thing.__globals__)
    elif isinstance(thing, Mapping):
        yield from ((f"{path}[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"{path}[{i}]", one) for i, one in enumerate(thing))
    elif isinstance(thing, type):
        yield from ((name, one) for name, one in vars(thing).items() if isinstance(one, FunctionType))
    else:
        yield from ((f"{path or 'self'}.{name}", one) for name, one in getattr(thing, "__dict__", {}).items())
        yield (path, type(thing))


def _global_names(code: CodeType) -> list[str]:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return [*code.co_names, *(name for one in inner for name in _global_names(one))]
