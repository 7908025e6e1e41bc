"""Search spaces: load, narrow, suggest, encode. A trial is any
object with Optuna's ``suggest_*``.

A configuration is a dict with a value for every parameter of a space. Which of them Optuna is asked for
depends on the others, in this order for each parameter:

* derived (a decision list computes it): computed, never asked;
* inactive (its `when` is not true): keeps its default, never asked;
* not searched (a plan setting, or fixed): keeps its default, never asked;
* otherwise asked. With `zero` the first question is the categorical "NAME.on", and
NAME only follows when that is true.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from advisor.errors import UserError, did_you_mean
from advisor.spaces import aliases, strict_yaml
from advisor.spaces.expressions import (
    Expression,
    Name,
    Scalar,
    ValueKind,
    computed_text,
    is_computed,
    parse_condition,
    parse_value,
)
from advisor.spaces.parameter import Parameter, number_hint, shown_value

FORMAT = 1


class SuggestingTrial(Protocol):
    """What `Space.suggest` needs of a trial; an optuna.Trial has it."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A float in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """An int in [low, high]."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


@dataclass(frozen=True)
class Row:
    """One row of a decision list: `value` when `condition` is true; a row
    without a condition always matches."""

    condition: str | None
    value: Scalar


@dataclass(frozen=True)
class Derivation:
    """Computes one parameter from others: the first row whose condition is true
    decides, else the default stays.

    given: numbers and words that the rows use besides parameters (facts and
        limits of the rule), with their values.
    """

    rows: tuple[Row, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    rule: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rows: list[dict[str, Any]] = [
            {"else": row.value} if row.condition is None else {"if": row.condition, "value": row.value}
            for row in self.rows
        ]
        result: dict[str, Any] = {"rows": rows}
        if self.given:
            result["given"] = dict(self.given)
        return result | ({"rule": self.rule} if self.rule else {})


@dataclass(frozen=True)
class _Computed:
    """A decision list, parsed."""

    rows: tuple[tuple[Expression | None, Expression | Scalar], ...]
    given: Mapping[str, Any]

    def names(self) -> set[str]:
        return {
            name for row in self.rows for part in row if isinstance(part, Expression) for name in part.names
        } - set(self.given)

    def value(self, configuration: Mapping[str, Any], parameter: Parameter) -> Scalar:
        known = {**self.given, **configuration}
        for condition, outcome in self.rows:
            if condition is not None and condition.evaluate(known).value is not True:
                continue
            value = outcome.evaluate(known).value if isinstance(outcome, Expression) else outcome
            if value is not None:
                return parameter.nearest(value)
        return parameter.default


@dataclass(frozen=True)
class Space:
    """Parameters by name, and the decision lists that compute some of them;
    UserError when they do not fit together.

    The defaults of all parameters (derived ones computed) are one configuration, ``space.complete({})``.
    """

    parameters: Mapping[str, Parameter]
    derivations: Mapping[str, Derivation] = field(default_factory=dict)

    def __repr__(self) -> str:
        searched = sum(parameter.searched for parameter in self.parameters.values())
        return f"<Space of {len(self.parameters)} parameters, {searched} of them searched>"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", dict(self.parameters))
        object.__setattr__(self, "derivations", dict(self.derivations))
        for name, parameter in self.parameters.items():
            if name != parameter.name:
                raise UserError(f"{name}: its parameter is called '{parameter.name}'")
        # words are checked where the base space is loaded: in a narrowed space
        # some of them are no longer choices
        names = {name: Name(known.kind) for name, known in self.names().items()}
        conditions: dict[str, Expression] = {}
        for name, parameter in self.parameters.items():
            if parameter.when is not None:
                conditions[name] = _parsed(f"{name}: when", parameter.when, names, condition=True)
        computed = {
            name: self._compute(name, derivation, names) for name, derivation in self.derivations.items()
        }
        object.__setattr__(self, "_conditions", conditions)
        object.__setattr__(self, "_computed", computed)
        object.__setattr__(self, "_order", self._sorted(conditions, computed))

    _conditions: Mapping[str, Expression] = field(init=False, repr=False, compare=False)
    _computed: Mapping[str, _Computed] = field(init=False, repr=False, compare=False)
    _order: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def names(self) -> dict[str, Name]:
        """What expressions may say about the parameters."""
        return {name: parameter.kind for name, parameter in self.parameters.items()}

    def condition(self, name: str) -> Expression:
        """The condition under which a parameter is used, of one that has one."""
        return self._conditions[name]

    def __getitem__(self, name: str) -> Parameter:
        """The parameter of this name; UserError with a suggestion when there is none."""
        if name not in self.parameters:
            raise UserError(f"unknown parameter '{name}'{did_you_mean(name, self.parameters)}")
        return self.parameters[name]

    @property
    def searched(self) -> tuple[str, ...]:
        """The names that a trial may be asked for (some only under their condition)."""
        return tuple(
            name for name, item in self.parameters.items() if item.searched and name not in self.derivations
        )

    def suggest(self, trial: SuggestingTrial) -> dict[str, Any]:
        """A whole configuration, derived parameters included; asks `trial` for
        what is searched and active."""
        return self._walk(lambda parameter: _ask(trial, parameter))

    def suggest_some(
        self, trial: SuggestingTrial, names: Container[str], rest: Mapping[str, Any]
    ) -> dict[str, Any]:
        """As ``suggest``, but only ``names`` are asked for; the others take their
        values from ``rest``, where they fit."""

        def choose(parameter: Parameter) -> Scalar:
            if parameter.name in names:
                return _ask(trial, parameter)
            value = rest.get(parameter.name, parameter.default)
            return parameter.default if parameter.problem(value) else parameter.check(value)

        return self._walk(choose)

    def complete(self, partial: Mapping[str, Any]) -> dict[str, Any]:
        """A whole configuration from some values: defaults for the rest, derived parameters computed.

        Values of inactive and of derived parameters are not taken from `partial`: only one value is possible.
        UserError for an unknown name, or a value outside its parameter.
        """
        given = {name: self[name].check(value) for name, value in partial.items()}
        return self._walk(lambda parameter: given.get(parameter.name, parameter.default), given)

    def nearest(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of this space next to one of another: clipped
        ranges, defaults for choices that are gone.

        What is not searched here keeps the value it has here, so the result can always be encoded.
        """

        def near(parameter: Parameter) -> Scalar:
            value = configuration.get(parameter.name, parameter.default)
            if parameter.type == "categorical":
                return value if parameter.problem(value) is None else parameter.default
            return value if parameter.problem(value) is None else parameter.nearest(value)

        return self._walk(near)

    def validate(self, configuration: Mapping[str, Any]) -> None:
        """UserError unless `suggest` could return exactly this configuration."""
        for name in configuration:
            self[name]
        for name, parameter in self.parameters.items():
            if name not in configuration:
                raise UserError(f"{name}: missing from the configuration")
            parameter.check(configuration[name])
        possible = self._walk(lambda parameter: configuration[parameter.name])
        for name, value in possible.items():
            if configuration[name] != value:
                given, possible_one = shown_value(configuration[name]), shown_value(value)
                raise UserError(
                    f"{name}: {given} is not possible, only {possible_one}: it {self._why_not_free(name)}"
                )

    def _why_not_free(self, name: str) -> str:
        if name in self.derivations:
            return "is computed from other parameters"
        if not self.parameters[name].searched:
            return "is not searched"
        return f"is not used unless {self.parameters[name].when}"

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """What to give to ``study.enqueue_trial`` so that `suggest` returns this
        configuration; validates it first."""
        self.validate(configuration)
        asked: dict[str, Any] = {}

        def note(parameter: Parameter) -> Scalar:
            value = parameter.check(configuration[parameter.name])
            if parameter.zero:
                asked[f"{parameter.name}.on"] = value != 0
            if not (parameter.zero and value == 0):
                asked[parameter.name] = aliases.to_study(parameter.name, value)
            return value

        self._walk(note)
        return asked

    def with_parameters(
        self, *parameters: Parameter, derivations: Mapping[str, Derivation | None] | None = None
    ) -> Space:
        """A space with these parameters replaced, and these derivations added (None: taken away)."""
        for parameter in parameters:
            self[parameter.name]
        rows = {**self.derivations, **(derivations or {})}
        return Space(
            {**self.parameters, **{parameter.name: parameter for parameter in parameters}},
            {name: rows[name] for name in sorted(rows) if rows[name] is not None},  # type: ignore[misc]
        )

    def without(self, names: Container[str]) -> Space:
        """A space that lacks these parameters; nothing in it may depend on them."""
        kept = {name: parameter for name, parameter in self.parameters.items() if name not in names}
        return Space(kept, {name: row for name, row in self.derivations.items() if name not in names})

    def narrowed(self, name: str, low: float, high: float) -> Space:
        """A space in which one parameter's range is cut to [low, high]."""
        return self.with_parameters(self[name].narrowed(low, high))

    def restricted(self, name: str, choices: Iterable[Scalar]) -> Space:
        """A space in which one parameter has only these choices."""
        return self.with_parameters(self[name].restricted(choices))

    def fixed(self, values: Mapping[str, Any]) -> Space:
        """A space in which these parameters have these values in every
        configuration; derived ones stop being so."""
        dropped: dict[str, Derivation | None] = {name: None for name in values}
        return self.with_parameters(
            *(self[name].fixed(value) for name, value in values.items()), derivations=dropped
        )

    def with_default(self, name: str, value: object) -> Space:
        """A space in which one parameter has another default."""
        return self.with_parameters(self[name].with_default(value))

    def derived(self, name: str, derivation: Derivation) -> Space:
        """A space in which a decision list computes one parameter that is not searched."""
        return self.with_parameters(derivations={name: derivation})

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` reads it back."""
        parameters = {name: item.to_dict() for name, item in self.parameters.items()}
        result: dict[str, Any] = {"format": FORMAT, "parameters": parameters}
        if self.derivations:
            result["derivations"] = {name: item.to_dict() for name, item in self.derivations.items()}
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """The space that `to_dict` wrote."""
        return _read(strict_yaml.YamlDocument("space", data))

    def _walk(
        self, choose: Callable[[Parameter], Any], keep_fixed: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A configuration in which `choose(parameter)` gives what is searched and active, the space the rest.

        keep_fixed: values that also replace the defaults of parameters that are not searched.
        """
        values: dict[str, Any] = {}
        for name in self._order:
            parameter = self.parameters[name]
            condition = self._conditions.get(name)
            if name in self._computed:
                values[name] = self._computed[name].value(values, parameter)
            elif condition is not None and condition.evaluate(values).value is not True:
                values[name] = parameter.default
            elif parameter.searched:
                values[name] = choose(parameter)
            else:
                values[name] = (keep_fixed or {}).get(name, parameter.default)
        return {name: values[name] for name in self.parameters}

    def _compute(self, name: str, derivation: Derivation, names: Mapping[str, Name]) -> _Computed:
        parameter = self[name]
        if parameter.searched:
            raise UserError(
                f"{name}: is searched, so it cannot be derived: Optuna would record a value that was not used"
            )
        if not derivation.rows:
            raise UserError(f"{name}: derivation without rows")
        known = {**{key: Name(_kind_of(value)) for key, value in derivation.given.items()}, **names}
        rows: list[tuple[Expression | None, Expression | Scalar]] = []
        for row in derivation.rows:
            what = f"{name}: derive"
            condition = None if row.condition is None else _parsed(what, row.condition, known, condition=True)
            if isinstance(row.value, str) and is_computed(row.value):
                value = _parsed(what, computed_text(row.value), known, condition=False)
                if value.kind != parameter.kind.kind:
                    raise UserError(
                        f"{what}: '{row.value}' is a {value.kind}, '{name}' a {parameter.kind.kind}"
                    )
                rows.append((condition, value))
            else:
                rows.append((condition, parameter.check(row.value)))
        return _Computed(tuple(rows), derivation.given)

    def _sorted(
        self, conditions: Mapping[str, Expression], computed: Mapping[str, _Computed]
    ) -> tuple[str, ...]:
        """Every parameter after those that its condition or derivation reads;
        otherwise in the order given."""
        needs: dict[str, set[str]] = {name: set() for name in self.parameters}
        for name, condition in conditions.items():
            needs[name] |= set(condition.names)
        for name, item in computed.items():
            needs[name] |= item.names() & set(needs)
        order: list[str] = []
        while len(order) < len(needs):
            done = set(order)
            ready = [name for name in needs if name not in done and needs[name] <= done]
            if not ready:
                stuck = ", ".join(name for name in needs if name not in order and needs[name])
                raise UserError(f"these parameters depend on each other in a circle: {stuck}")
            order.extend(ready)
        return tuple(order)


def _kind_of(value: Any) -> ValueKind:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "list" if isinstance(value, (list, tuple)) else "number"


_CHECKED: dict[tuple[str, bool], Expression] = {}
"""Expressions of the spaces of before: every narrowed space has those of its base."""
_MOST_CHECKED = 4096


def _parsed(what: str, text: str, names: Mapping[str, Name], *, condition: bool) -> Expression:
    known = _CHECKED.get((text, condition))
    if known is not None and all(names.get(name) == kind for name, kind in known.names.items()):
        return known
    try:
        expression = parse_condition(text, names) if condition else parse_value(text, names)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    if len(_CHECKED) < _MOST_CHECKED:
        _CHECKED[text, condition] = expression
    return expression


def _ask(trial: SuggestingTrial, parameter: Parameter) -> Scalar:
    name = parameter.name
    if parameter.type == "categorical":
        words = [aliases.to_study(name, choice) for choice in parameter.choices]
        choice: Scalar = aliases.value_of(name, trial.suggest_categorical(name, words))
        return choice
    if parameter.zero and not trial.suggest_categorical(f"{name}.on", [False, True]):
        return 0.0 if parameter.type == "float" else 0
    low, high = parameter.low, parameter.high
    assert low is not None and high is not None
    if parameter.type == "int":
        return trial.suggest_int(name, int(low), int(high), log=parameter.log)
    return trial.suggest_float(name, low, high, log=parameter.log)


def load_space(*paths: Path | str) -> Space:
    """Read a search space from YAML files, one after the other; UserError with file
    and line when something is wrong."""
    parameters: dict[str, Parameter] = {}
    derivations: dict[str, Derivation] = {}
    for path in paths:
        space = _read(strict_yaml.read_yaml(Path(path)))
        for name, parameter in space.parameters.items():
            if name in parameters:
                raise UserError(
                    f"{path}: {name}: another file of this space already has a parameter of this name"
                )
            if parameter.when is not None:
                _parsed(f"{path}: {name}: when", parameter.when, space.names(), condition=True)
        parameters |= space.parameters
        derivations |= space.derivations
    return Space(parameters, derivations)


def union(spaces: Iterable[Space]) -> Space:
    """Every parameter that any of the spaces has; one that several have allows
    all that it does in any of them."""
    parameters: dict[str, Parameter] = {}
    for space in spaces:
        for name, other in space.parameters.items():
            mine = parameters.get(name, other)
            if mine.type == "categorical":
                parameters[name] = replace(
                    mine,
                    choices=tuple(dict.fromkeys((*mine.choices, *other.choices))),
                    prefix=mine.prefix or other.prefix,
                )
            else:
                assert mine.low is not None and other.low is not None
                assert mine.high is not None and other.high is not None
                low, high = min(mine.low, other.low), max(mine.high, other.high)
                searched = mine.searched or other.searched
                parameters[name] = replace(
                    mine, low=low, high=high, zero=mine.zero or other.zero, searched=searched
                )
    return Space(parameters)


_FIELDS = {item.name: item for item in fields(Parameter)}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "type": str, "default": (bool, int, float, str), "low": (int, float), "high": (int, float), "log": bool,
    "zero": bool, "choices": list, "searched": bool, "when": str, "meaning": str, "topic": str,
    "prefix": str,
}  # fmt: skip


def _read(document: strict_yaml.YamlDocument) -> Space:
    data = document.data
    if not isinstance(data, Mapping):
        raise document.error((), "a search space is a mapping with format and parameters")
    for key in data:
        if key not in ("format", "parameters", "derivations"):
            raise document.error(
                (key,), f"unknown key{did_you_mean(key, ('format', 'parameters', 'derivations'))}"
            )
    if data.get("format") != FORMAT:
        raise document.error(("format",), f"must be {FORMAT}, not {shown_value(data.get('format'))}")
    if not isinstance(data.get("parameters"), Mapping) or not data["parameters"]:
        raise document.error(("parameters",), "must map names to parameters")
    parameters = {name: _read_parameter(document, name, item) for name, item in data["parameters"].items()}
    derivations = data.get("derivations", {})
    if not isinstance(derivations, Mapping):
        raise document.error(("derivations",), "must map names to decision lists")
    lists = {
        name: read_derivation(document, ("derivations", name), item) for name, item in derivations.items()
    }
    try:
        return Space(parameters, lists)
    except UserError as error:
        name = str(error).split(":")[0]
        place = ("derivations", name) if name in lists else ("parameters", name)
        raise document.error(place, str(error), "") from None


def _read_parameter(document: strict_yaml.YamlDocument, name: str, data: Any) -> Parameter:
    place = ("parameters", name)
    if not name.isidentifier():
        raise document.error(place, "a parameter's name has letters, digits and _ only")
    if not isinstance(data, Mapping):
        raise document.error(place, "must be a mapping with type and default")
    for key, value in data.items():
        if key not in _TYPES:
            raise document.error((*place, key), f"unknown key{did_you_mean(key, _TYPES)}")
        wanted = _TYPES[key]
        if not isinstance(value, wanted) or (isinstance(value, bool) and key in ("low", "high")):
            raise document.error(
                (*place, key), f"{shown_value(value)} is of the wrong type{number_hint(value)}"
            )
    for key in ("type", "default"):
        if key not in data:
            raise document.error(place, f"{key} is missing")
    choices = data.get("choices", [])
    if any(not isinstance(choice, (bool, int, float, str)) for choice in choices):
        raise document.error((*place, "choices"), "choices must be words, numbers or booleans")
    try:
        return Parameter(name, **{**data, "choices": tuple(choices)})
    except UserError as error:
        raise document.error(place, str(error)) from None


def read_derivation(document: strict_yaml.YamlDocument, place: strict_yaml.YamlPath, data: Any) -> Derivation:
    """A derivation from plain data: ``{rows: [{if, value}, ..., {else}], given, rule}``."""
    if not isinstance(data, Mapping) or set(data) - {"rows", "given", "rule"}:
        raise document.error(place, "must be a mapping with rows, given and rule")
    given, rule = data.get("given", {}), data.get("rule", "")
    if not isinstance(given, Mapping) or not isinstance(rule, str):
        raise document.error(place, "given must be a mapping and rule a text")
    return Derivation(read_rows(document, (*place, "rows"), data.get("rows")), dict(given), rule)


def read_rows(document: strict_yaml.YamlDocument, place: strict_yaml.YamlPath, data: Any) -> tuple[Row, ...]:
    """The rows of a decision list: ``{if: ..., value: ...}``, the last one ``{else: ...}``."""
    if not isinstance(data, list) or not data:
        raise document.error(place, "must be a list of {if: ..., value: ...} that ends with {else: ...}")
    rows = []
    for index, row in enumerate(data):
        last = index == len(data) - 1
        wanted = {"else"} if last else {"if", "value"}
        if not isinstance(row, Mapping) or set(row) != wanted:
            what = "the last row must be {else: VALUE}" if last else "a row is {if: CONDITION, value: VALUE}"
            raise document.error((*place, index), what)
        condition, value = row.get("if"), row["else"] if last else row["value"]
        if not isinstance(value, (bool, int, float, str)):
            raise document.error((*place, index), f"{shown_value(value)} is not a word, number or boolean")
        if condition is not None and not isinstance(condition, str):
            raise document.error(
                (*place, index), f"the condition {shown_value(condition)} is not text; quote it"
            )
        rows.append(Row(condition, value))
    return tuple(rows)
