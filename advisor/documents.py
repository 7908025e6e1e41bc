"""Frozen dataclasses as parts of a JSON document: written, and checked as they are read.

A dataclass is the format: its fields are the keys, their types are what the values must be. A key that a
document may lack has the default ``UNSET``, which is false; it is left out again as the document is written.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Read = Callable[[Any, str], Any]
Section = TypeVar("Section")


class Unset(Enum):
    """The type of ``UNSET``: the document has no such key."""

    UNSET = "unset"

    def __bool__(self) -> Literal[False]:
        return False


UNSET: Final = Unset.UNSET
_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})


class DocumentError(ValueError):
    """What of a document does not fit its dataclass, in words that begin with the key."""


def to_plain(value: Any) -> Any:
    """What JSON can hold of a dataclass: mappings, lists, and the values as they are."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is dict:  # before the tests that also hold for other mappings: they cost more
        return {name: one if type(one) in _AS_THEY_ARE else to_plain(one) for name, one in value.items()}
    if kind is tuple or kind is list:
        return [to_plain(one) for one in value]
    if (keys := _keys(cast(Any, kind))) is not None:
        given = ((key, getattr(value, name)) for key, name in keys)
        return {key: to_plain(one) for key, one in given if one is not UNSET}
    if isinstance(value, Mapping):
        return {name: to_plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    return value


@cache
def _keys(kind: Any) -> tuple[tuple[str, str], ...] | None:
    """The key and the name of each field of a dataclass; None for other types."""
    return tuple((key_of(field), field.name) for field in fields(kind)) if is_dataclass(kind) else None


def from_plain(section: type[Section], value: Any, where: str = "") -> Section:
    """The dataclass that a part of a document describes; keys that it does not know are left aside.

    where: the keys that lead to the part. DocumentError when a key is missing or of another type.
    """
    return cast(Section, _reader(cast(Any, section))(value, where))


@cache
def _reader(kind: Any) -> Read:
    if kind is Any or kind is object:
        return lambda value, where: value
    if is_dataclass(kind):
        return _section_reader(cast(type, kind))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union_reader(arguments)
    if origin is Literal:
        return _checked(lambda value: isinstance(value, str) and value in arguments)
    if origin is tuple:
        return _tuple_reader(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_reader(arguments[1])
    if kind is float:  # whole numbers are written without a point
        return _checked(lambda value: isinstance(value, int | float) and not isinstance(value, bool))
    if kind is int:
        return _checked(lambda value: isinstance(value, int) and not isinstance(value, bool))
    return _checked(lambda value: isinstance(value, kind))


def _checked(fits: Callable[[Any], bool]) -> Read:
    def read(value: Any, where: str) -> Any:
        if not fits(value):
            raise misfit(where)
        return value

    return read


def _union_reader(members: tuple[Any, ...]) -> Read:
    """None where it may be; UNSET is never in a document. Of several other members the first that fits."""
    readers = [_reader(one) for one in members if one not in (type(None), Unset)]
    nullable = type(None) in members

    def read(value: Any, where: str) -> Any:
        if value is None and nullable:
            return None
        for reader in readers[:-1]:
            try:
                return reader(value, where)
            except DocumentError:
                continue
        return readers[-1](value, where)

    return read


def _tuple_reader(arguments: tuple[Any, ...]) -> Read:
    """A list: of one type of entry, or of this many."""
    endless = arguments[-1] is Ellipsis
    readers = [_reader(one) for one in arguments if one is not Ellipsis]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple) or (not endless and len(value) != len(readers)):
            raise misfit(where)
        own = readers * len(value) if endless else readers
        return tuple(
            reader(one, f"{where}[{number}]")
            for number, (reader, one) in enumerate(zip(own, value, strict=True))
        )

    return read


def _mapping_reader(kind: Any) -> Read:
    reader = _reader(kind)

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise misfit(where)
        return {name: reader(one, _below(where, name)) for name, one in value.items()}

    return read


def _section_reader(section: type) -> Read:
    hints = get_type_hints(section)
    keys = [
        (field.name, key_of(field), _reader(hints[field.name]), _optional(field)) for field in fields(section)
    ]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise misfit(where)
        given = {}
        for name, key, reader, optional in keys:
            if key in value:
                given[name] = reader(value[key], _below(where, key))
            elif not optional:
                raise DocumentError(f"'{_below(where, key)}' is missing")
        return section(**given)

    return read


def key_of(field: Field[Any]) -> str:
    """The key of a field: its name; one underscore at the end is for words that Python keeps to itself."""
    return field.name.removesuffix("_")


def _optional(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _below(where: str, name: object) -> str:
    return f"{where}.{name}".lstrip(".")


def misfit(where: str) -> DocumentError:
    """The error of a value that does not fit. where: the keys that lead to it."""
    return DocumentError(f"'{where or 'it'}' is not what the advisor writes")
