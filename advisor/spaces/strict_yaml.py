"""YAML read strictly: plain data, a line number for every value, and no surprises.

Refused, each with one line that names file and line: repeated keys (YAML lets the last one win in silence),
aliases and anchors (396 bytes of them unfold to 9**9 values), tags, dates, numbers that YAML 1.1 reads in
base 8 or 60, more than a megabyte, and nesting deeper than any of our formats needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from advisor.errors import UserError
from advisor.spaces import aliases

MAX_BYTES = 1_000_000
MAX_DEPTH = 30

Key = str | int
YamlPath = tuple[Key, ...]
"""The way to a value inside a document: keys of mappings and indices of lists."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class YamlDocument:
    """Plain data (dict, list, str, int, float, bool, None) and where each value stands in its file."""

    file: str
    data: Any
    lines: Mapping[YamlPath, int] = field(default_factory=dict)
    skip: int = 0
    """How many leading keys to leave out where a complaint names a field (``rules[3].when`` -> ``when``)."""

    def line(self, place: YamlPath) -> int | None:
        """The line (from 1) of the value at `place`, or of the nearest thing around it."""
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return None

    def complaint(self, place: YamlPath, message: str, name: str | None = None) -> str:
        """``FILE:LINE: FIELD: MESSAGE``; `name` replaces the field's own name."""
        line = self.line(place)
        where = self.file if line is None else f"{self.file}:{line}"
        shown = field_name(place[self.skip :]) if name is None else name
        return f"{where}: {shown}: {message}" if shown else f"{where}: {message}"

    def error(self, place: YamlPath, message: str, name: str | None = None) -> UserError:
        """The same as an exception to raise."""
        return UserError(self.complaint(place, message, name))


def field_name(place: YamlPath) -> str:
    """``('then', 'set', 'folds')`` as ``then.set.folds``, list indices in brackets."""
    text = ""
    for key in place:
        word = key if isinstance(key, int) or len(key) <= 80 else key[:77] + "..."
        text += f"[{word}]" if isinstance(word, int) else f".{word}" if text else word
    return text


def read_yaml(path: Path) -> YamlDocument:
    """Read a YAML file; UserError when it is missing, unreadable, too large or not plain YAML."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: not a file")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes")
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return parse(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parse(text: str, file: str, max_bytes: int = MAX_BYTES) -> YamlDocument:
    """Read YAML text; `file` is the name that errors show. UserError for anything that is not plain YAML."""
    if len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise UserError(f"{file}: larger than {max_bytes:,} bytes")
    try:
        _look_before_reading(text, file)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise UserError(
            f"{where}: not YAML: {error.problem or error.context}{_hint(str(error.problem))}"
        ) from None
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        raise UserError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{file}: nested too deeply") from None
    lines: dict[YamlPath, int] = {}
    data = None if node is None else _plain(node, (), lines, file)
    return YamlDocument(file, data, lines)


def _hint(problem: str) -> str:
    return (
        " (quote the whole value)"
        if "mapping values are not allowed" in problem or "<scalar>" in problem
        else ""
    )


def _look_before_reading(text: str, file: str) -> None:
    """Walk the events, which needs no recursion, before anything recursive or unfolding sees the text."""
    depth = 0
    documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UserError(f"{file}:{line}: anchors and aliases (&, *) are not allowed; write the value out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise UserError(f"{file}:{line}: tags such as !!{str(tag).rsplit(':', 1)[-1]} are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise UserError(f"{file}:{line}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise UserError(f"{file}:{line}: a second document begins here (---); one per file")


def _plain(node: yaml.Node, place: YamlPath, lines: dict[YamlPath, int], file: str) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*place, index), lines, file) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, lines, file)
    value = _scalar(node, file)
    return aliases.text_at(place, value) if isinstance(value, str) else value


def _mapping(
    node: yaml.MappingNode, place: YamlPath, lines: dict[YamlPath, int], file: str
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{file}:{line}: a key must be a word")
        key = key_node.value
        if key_node.tag != _TAG + "str":
            raise UserError(f"{file}:{line}: the key {key} is read as {_kind_of(key_node)}; put it in quotes")
        if key in result:
            raise UserError(f"{file}:{line}: {field_name((*place, key))}: this key is already given above")
        key = aliases.key_at(place, key)
        lines[(*place, key)] = line
        result[key] = _plain(value_node, (*place, key), lines, file)
    return result


def _kind_of(node: yaml.Node) -> str:
    words = {
        "bool": "a boolean",
        "int": "a number",
        "float": "a number",
        "null": "nothing",
        "timestamp": "a date",
    }
    return words.get(node.tag.removeprefix(_TAG), "something other than text")


def _scalar(node: yaml.Node, file: str) -> Any:
    text, kind, line = node.value, node.tag.removeprefix(_TAG), node.start_mark.line + 1
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    if kind not in ("int", "float"):
        raise UserError(f"{file}:{line}: {text[:40]} is read as {_kind_of(node)}; put it in quotes")
    digits = text.lstrip("+-").replace("_", "")
    if ":" in text or (kind == "int" and digits[:1] == "0" and len(digits) > 1):
        raise UserError(
            f"{file}:{line}: {text[:40]} would be read in base 8, 16 or 60; write it in decimal or in quotes"
        )
    try:
        return int(text.replace("_", "")) if kind == "int" else _float(text)
    except ValueError:
        raise UserError(f"{file}:{line}: {text[:40]} is not a readable number") from None


def _float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
