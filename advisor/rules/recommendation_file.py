"""``recommendation.yaml``: written so that a user can read and edit it, read back strictly.

Plain data only; turning it into a `Recommendation` is that class's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import yaml

from advisor import __version__
from advisor.errors import UserError, did_you_mean, made_by_newer
from advisor.kinds import Kind
from advisor.rules.book import Severity
from advisor.rules.resolution import Contradiction, DecidedBy, ProvenanceStep, Side, searched_range
from advisor.spaces import strict_yaml
from advisor.spaces.parameter import Parameter, number_hint, shown_value
from advisor.spaces.space import Space, read_derivation
from advisor.spaces.strict_yaml import Key, YamlDocument, YamlPath

FORMAT = 1
MAX_BYTES = 20_000_000
"""Larger than any recommendation for a table that fits into memory; the limit only stops what is none."""

LATER = frozenset({"time_trend", "gpus_per_trial", "position", "column_scale_rate", "kernel_features"})
LATER |= {"backbone_training", "backbone_side", "layer_decay", "student_width", "classifier", "embedding_dim"}
LATER |= {"cosine_scale", "cosine_margin", "prototypes", "calendar_features"}
"""Parameters that the files of earlier versions lack: their runs go on without, as they were."""

HEADER = """\
# What the advisor recommends, and why. You may edit it and use it: advisor tune RUN/recommendation.yaml
# A value that you change under `configuration` is used in every trial and leaves the search.
# A range or list of choices that you change under `space` is searched instead of the advised one;
# a parameter that you remove from `space` keeps its value.
# Numbers are written 1.0e-3, not 1e-3 (which YAML reads as text).
"""

_SECTIONS = (
    "data",
    "configuration",
    "space",
    "derived",
    "findings",
    "provenance",
    "unjudged",
    "contradictions",
)


class _Flow(dict[str, Any]):
    """A mapping that is written on one line."""


class _FlowList(list[Any]):
    """A list that is written on one line."""


_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]  # the C dumper, where there is one
    """Writes small mappings and lists of plain values on one line, and never an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _flow_mapping(dumper: Any, data: _Flow) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True)


def _flow_list(dumper: Any, data: _FlowList) -> Any:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(_Flow, _flow_mapping)
_Dumper.add_representer(_FlowList, _flow_list)


def write_recommendation(sections: Mapping[str, Any]) -> str:
    """YAML text of a recommendation's plain data."""
    document = {
        "format": FORMAT,
        "advisor": __version__,
        **{name: _readable(sections[name]) for name in _SECTIONS},
    }
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return HEADER + text


def _readable(value: Any, depth: int = 0) -> Any:
    """Small mappings and lists of plain values on one line each, below the sections themselves."""
    if isinstance(value, str):
        # A lone surrogate cannot be written as UTF-8.
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        items = {str(name): _readable(item, depth + 1) for name, item in value.items()}
        nested = any(
            isinstance(item, (dict, list)) and not isinstance(item, _FlowList) for item in items.values()
        )
        return items if depth == 0 or nested or len(items) > 4 else _Flow(items)
    if isinstance(value, (list, tuple)):
        entries = [_readable(item, depth + 1) for item in value]
        return entries if any(isinstance(item, (dict, list)) for item in entries) else _FlowList(entries)
    return value


def space_section(space: Space) -> dict[str, Any]:
    """What is searched, by parameter: ``{low, high}`` (``zero: true`` when 0 is
    allowed beside it) or ``{choices}``."""
    return {name: searched_range(space[name]) for name in space.searched}


@dataclass(frozen=True)
class Read:
    """A recommendation file as plain data, with the space that it describes and what the user edited."""

    data: Mapping[str, Any]
    base: Space
    space: Space
    edited: frozenset[str]
    findings: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Mapping[str, Any]]
    unjudged: tuple[Mapping[str, Any], ...]
    contradictions: tuple[Contradiction, ...]


def read_recommendation(text: str, bases: Space | Callable[[Any], Space], source: str) -> Read:
    """Read a recommendation file; UserError in one line, with file and line, for whatever does not fit.

    bases: the base space, or a function from the kind of data (``data.kind``, a
        table where it is not given) to it.
    """
    document = strict_yaml.parse(text, source, MAX_BYTES)
    data = document.data
    if not isinstance(data, Mapping) or "format" not in data:
        raise document.error((), "not a recommendation: the first line must be 'format: 1'")
    number = data["format"]
    if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT:
        raise document.error(("format",), made_by_newer(number, FORMAT, data.get("advisor")))
    if number != FORMAT or isinstance(number, bool):
        raise document.error(("format",), f"must be {FORMAT}, not {shown_value(number)}")
    _keys(document, (), ("format", "advisor", *_SECTIONS))
    kind = _mapping(document, ("data",)).get("kind", "table")
    if kind not in get_args(Kind):
        raise document.error(
            ("data", "kind"), f"{shown_value(kind)} is not one of {', '.join(get_args(Kind))}"
        )
    base = _known_then(document, bases if isinstance(bases, Space) else bases(kind))
    provenance = _named(document, "provenance", base, _PROVENANCE)
    findings = _several(document, "findings", _FINDING)
    unjudged = _several(document, "unjudged", _UNJUDGED)
    contradictions = tuple(
        Contradiction(**item) for item in _several(document, "contradictions", _CONTRADICTION)
    )
    space, edited = _space(document, base, provenance)
    return Read(
        _mapping(document, ("data",)),
        base,
        space,
        frozenset(edited),
        findings,
        provenance,
        unjudged,
        contradictions,
    )


def _known_then(document: YamlDocument, base: Space) -> Space:
    """The base without what was added after the file was written."""
    known = {*_mapping(document, ("provenance",)), *_mapping(document, ("configuration",))}
    return base.without(LATER - known)


def _keys(
    document: YamlDocument, place: YamlPath, wanted: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    """Exactly the wanted keys, or an error that suggests what was meant."""
    data = _mapping(document, place)
    for key in data:
        if key not in wanted + optional:
            raise document.error((*place, key), f"unknown key{did_you_mean(key, wanted + optional)}")
    for key in wanted:
        if key not in data:
            raise document.error(place, f"'{key}' is missing")


def _at(document: YamlDocument, place: YamlPath) -> Any:
    value = document.data
    for key in place:
        value = value[key]
    return value


def _mapping(document: YamlDocument, place: YamlPath) -> Mapping[str, Any]:
    value = _at(document, place)
    if not isinstance(value, Mapping):
        raise document.error(place, f"must be a mapping, not {shown_value(value)}")
    return value


Reader = Callable[[YamlDocument, YamlPath], Any]


def _of(kind: type, word: str) -> Reader:
    def check(document: YamlDocument, place: YamlPath) -> Any:
        value = _at(document, place)
        if not isinstance(value, kind):
            raise document.error(place, f"must be {word}, not {shown_value(value)}")
        return value

    return check


_text = _of(str, "text")
_flag = _of(bool, "true or false")


def _words(document: YamlDocument, place: YamlPath) -> tuple[str, ...]:
    return tuple(_text(document, (*place, index)) for index in range(len(_list(document, place))))


def _list(document: YamlDocument, place: YamlPath) -> list[Any]:
    value = _at(document, place)
    if not isinstance(value, list):
        raise document.error(place, f"must be a list, not {shown_value(value)}")
    return value


def _one_of(words: tuple[str, ...]) -> Reader:
    def check(document: YamlDocument, place: YamlPath) -> Any:
        value = _at(document, place)
        if value not in words:
            raise document.error(place, f"{shown_value(value)} is not one of {', '.join(words)}")
        return value

    return check


def _anything(document: YamlDocument, place: YamlPath) -> Any:
    return _at(document, place)


def _state(document: YamlDocument, place: YamlPath) -> Mapping[str, Any]:
    value = _mapping(document, place)
    _keys(document, place, ("value",), ("low", "high", "zero", "choices"))
    return value


def _record(document: YamlDocument, place: YamlPath, fields: Mapping[str, Reader]) -> dict[str, Any]:
    _keys(document, place, tuple(fields))
    return {name: read_field(document, (*place, name)) for name, read_field in fields.items()}


def _records(fields: Mapping[str, Reader], make: Callable[..., Any]) -> Reader:
    def check(document: YamlDocument, place: YamlPath) -> Any:
        count = len(_list(document, place))
        return tuple(make(**_record(document, (*place, index), fields)) for index in range(count))

    return check


_STEP: Mapping[str, Reader] = {
    "rule": _text,
    "title": _text,
    "strength": _text,
    "evidence": _text,
    "notes": _words,
    "effect": _text,
    "before": _state,
    "after": _state,
    "because": _text,
    "facts": _mapping,
}
_PROVENANCE: Mapping[str, Reader] = {
    "topic": _text,
    "meaning": _text,
    "base": _state,
    "steps": _records(_STEP, ProvenanceStep),
    "final": _state,
    "because": _text,
    "yours": _flag,
}
_FINDING: Mapping[str, Reader] = {
    "severity": _one_of(get_args(Severity)),
    "code": _text,
    "message": _text,
    "columns": _words,
    "actions": _words,
    "rule": _text,
}
_UNJUDGED: Mapping[str, Reader] = {"rule": _text, "title": _text, "missing": _words}
_SIDE: Mapping[str, Reader] = {
    "rule": _text,
    "strength": _text,
    "evidence": _text,
    "effect": _text,
    "wants": _anything,
}
_CONTRADICTION: Mapping[str, Reader] = {
    "parameter": _text,
    "sides": _records(_SIDE, Side),
    "kept": _words,
    "decided_by": _one_of(get_args(DecidedBy)),
}


def _several(
    document: YamlDocument, section: str, fields: Mapping[str, Reader]
) -> tuple[dict[str, Any], ...]:
    return tuple(
        _record(document, (section, index), fields) for index in range(len(_list(document, (section,))))
    )


def _named(
    document: YamlDocument, section: str, base: Space, fields: Mapping[str, Reader]
) -> dict[str, dict[str, Any]]:
    _keys(document, (section,), tuple(base.parameters))
    return {name: _record(document, (section, name), fields) for name in base.parameters}


def _space(
    document: YamlDocument, base: Space, provenance: Mapping[str, Mapping[str, Any]]
) -> tuple[Space, set[str]]:
    """The space that the file describes, edits included, and the names of what was edited."""
    _keys(document, ("configuration",), tuple(base.parameters))
    ranges = _mapping(document, ("space",))
    for name in ranges:
        if name not in base.parameters:
            raise document.error(("space", name), f"unknown parameter{did_you_mean(name, base.parameters)}")
    lists = _mapping(document, ("derived",))
    derivations = {name: read_derivation(document, ("derived", name), lists[name]) for name in lists}
    edited: set[str] = set()
    parameters: list[Parameter] = []
    for name, parameter in base.parameters.items():
        value = _value(document, ("configuration", name), parameter)
        final = provenance[name]["final"]
        recorded = {key: item for key, item in final.items() if key != "value"} or None
        wanted = _range(document, ("space", name), parameter) if name in ranges else None
        if not _same(value, final["value"]):
            edited.add(name)
            derivations.pop(name, None)
            parameters.append(parameter.fixed(value))
        elif name in derivations:
            parameters.append(parameter)
        elif wanted is None:
            if recorded is not None:
                edited.add(name)
            parameters.append(parameter.fixed(value))
        else:
            if searched_range(wanted) != recorded:
                edited.add(name)
            parameters.append(own_range(wanted, value))
    for name in derivations:
        if name not in base.parameters:
            raise document.error(("derived", name), f"unknown parameter{did_you_mean(name, base.parameters)}")
    try:
        return base.with_parameters(*parameters, derivations=derivations), edited
    except UserError as error:
        raise document.error(("derived", str(error).split(":")[0]), str(error), "derived") from None


def _same(one: object, two: object) -> bool:
    return one == two and isinstance(one, bool) == isinstance(two, bool)


def own_range(wanted: Parameter, value: Any) -> Parameter:
    """A parameter with the user's range and the recommended value, clipped when it does not fit."""
    if wanted.problem(value) is None:
        return replace(wanted, default=wanted.check(value))
    return wanted if wanted.type == "categorical" else replace(wanted, default=wanted.nearest(value))


def _value(document: YamlDocument, place: YamlPath, parameter: Parameter) -> Any:
    value = _at(document, place)
    problem = parameter.problem(value)
    if problem is not None:
        raise document.error(place, problem)
    return parameter.check(value)


def _range(document: YamlDocument, place: YamlPath, parameter: Parameter) -> Parameter:
    """The base parameter cut to what the file says is searched, which must lie inside the base."""
    if not parameter.searched:
        raise document.error(place, "is never searched; set its value under configuration")
    data = _mapping(document, place)
    if parameter.type == "categorical":
        _keys(document, place, ("choices",))
        choices = _list(document, (*place, "choices"))
        if not choices:
            raise document.error(
                (*place, "choices"), "must not be empty; remove the parameter from space instead"
            )
        for index in range(len(choices)):
            _value(document, (*place, "choices", index), parameter)
        if len({shown_value(choice) for choice in choices}) < len(choices):
            raise document.error((*place, "choices"), "a choice is given twice")
        return parameter.restricted(choices)
    _keys(document, place, ("low", "high"), ("zero",))
    zero = _flag(document, (*place, "zero")) if "zero" in data else False
    if zero and not parameter.zero:
        raise document.error((*place, "zero"), f"0 is not allowed; allowed is {parameter.allowed()}")
    low = _bound(document, (*place, "low"), parameter)
    high = _bound(document, (*place, "high"), parameter)
    if low > high:
        raise document.error((*place, "low"), f"{shown_value(low)} is above high {shown_value(high)}")
    return parameter.narrowed(low, high, keep_zero=zero)


def _bound(document: YamlDocument, place: tuple[Key, ...], parameter: Parameter) -> Any:
    value = _at(document, place)
    if isinstance(value, str):
        raise document.error(place, f"{shown_value(value)} is not a number{number_hint(value)}")
    return _value(document, place, parameter)
