"""One parameter: its values, its default, and how both are narrowed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from advisor.errors import UserError, did_you_mean
from advisor.spaces.expressions import Name, Scalar, ValueKind

ParameterType = Literal["int", "float", "categorical"]


@dataclass(frozen=True)
class Parameter:
    """One parameter, its values and its default; refuses to exist when they do not fit together.

    int and float: [low, high], with `zero` {0} u [low, high]. categorical: one of `choices`.
    searched=False: a plan setting or a fixed or derived parameter: has a value, is never suggested.
    when: a condition over other parameters; while it is not true the parameter keeps its default.
    prefix: of further words that a user may set, such as ``timm:`` and a name; they are never suggested.
    """

    name: str
    type: ParameterType
    default: Scalar
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    zero: bool = False
    choices: tuple[Scalar, ...] = ()
    searched: bool = True
    when: str | None = None
    meaning: str = ""
    topic: str = ""
    prefix: str = ""

    def __hash__(self) -> int:
        return hash((self.name, self.default, self.low, self.high, self.searched))  # a hash of all costs more

    def __post_init__(self) -> None:
        if self.type not in get_args(ParameterType):
            raise UserError(f"type '{self.type}' is not one of {', '.join(get_args(ParameterType))}")
        if self.type == "categorical":
            self._check_choices()
        else:
            self._check_range()
        self.check(self.default, "default")

    def _check_choices(self) -> None:
        if not self.choices:
            raise UserError("choices are missing")
        if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise UserError("a choice is given twice")
        if len({type(choice) for choice in self.choices}) > 1:
            raise UserError(f"choices mix words, numbers and booleans: {_listed(self.choices)}")
        if self.low is not None or self.high is not None or self.log or self.zero:
            raise UserError("low, high, log and zero are for int and float")
        if self.prefix and not isinstance(self.choices[0], str):
            raise UserError("prefix is for words")

    def _check_range(self) -> None:
        if self.choices or self.prefix:
            raise UserError("choices and prefix are for categorical parameters")
        for name in ("low", "high"):
            bound = getattr(self, name)
            if not _is_number(bound, self.type):
                raise UserError(f"{name} must be {_a_number(self.type)}, not {shown_value(bound)}")
            object.__setattr__(self, name, float(bound) if self.type == "float" else bound)
        assert self.low is not None and self.high is not None
        if self.low > self.high:
            raise UserError(f"low {shown_value(self.low)} is above high {shown_value(self.high)}")
        if self.log and self.low <= 0:
            raise UserError(f"low must be above 0 with log, not {shown_value(self.low)}")
        if self.zero and self.low <= 0:
            raise UserError(f"low must be above 0 with zero, not {shown_value(self.low)}")
        if self.type == "float" and isinstance(self.default, int) and not isinstance(self.default, bool):
            object.__setattr__(self, "default", float(self.default))

    def problem(self, value: object) -> str | None:
        """What is wrong with a value for this parameter, in words; None when it is allowed."""
        if self.type == "categorical":
            if self._begins(value) or any(
                type(value) is type(choice) and value == choice for choice in self.choices
            ):
                return None
            near = (
                did_you_mean(str(value), [str(choice) for choice in self.choices])
                if isinstance(value, str)
                else ""
            )
            return f"{shown_value(value)} is not {self.allowed()}{near}"
        if not _is_number(value, self.type):
            return (
                f"{shown_value(value)} is not {_a_number(self.type)}{number_hint(value)}; allowed is "
                f"{self.allowed()}"
            )
        assert isinstance(value, (int, float)) and self.low is not None and self.high is not None
        if self.low <= value <= self.high or (self.zero and value == 0):
            return None
        return f"{shown_value(value)} is outside {self.allowed()}"

    def _begins(self, value: object) -> bool:
        """Whether a value is one of the further words: the prefix and a name."""
        known = isinstance(value, str) and bool(self.prefix) and value.startswith(self.prefix)
        return known and len(str(value)) > len(self.prefix)

    def check(self, value: object, what: str = "") -> Scalar:
        """The value in the parameter's own number type; UserError when it is not allowed."""
        problem = self.problem(value)
        if problem is not None:
            raise UserError(f"{what or self.name}: {problem}")
        return float(value) if self.type == "float" else value  # type: ignore[arg-type,return-value]

    def allowed(self) -> str:
        """The allowed values in words: ``0 or 0.0001 to 1``, ``one of relu, tanh``."""
        if self.type == "categorical":
            named = f" or {self.prefix}NAME" if self.prefix else ""
            return f"one of {_listed(self.choices)}{named}"
        span = (
            shown_value(self.low)
            if self.low == self.high
            else f"{shown_value(self.low)} to {shown_value(self.high)}"
        )
        return f"0 or {span}" if self.zero else span

    def nearest(self, value: Any) -> Scalar:
        """The allowed value next to a computed one: rounded for int, clipped to the range."""
        if self.type == "categorical":
            return self.check(value)
        assert self.low is not None and self.high is not None
        if self.zero and abs(value) <= self.low / 2:
            return 0.0 if self.type == "float" else 0
        clipped = min(max(value, self.low), self.high)
        return round(clipped) if self.type == "int" else float(clipped)

    def narrowed(self, low: float, high: float, *, keep_zero: bool = False) -> Parameter:
        """Only what also lies in [low, high]; the default is clipped to what is left.

        Where 0 is allowed beside the range, it stays so when [low, high] contains it or with `keep_zero`.

        UserError when nothing is left.
        """
        if self.type == "categorical":
            raise UserError(f"'{self.name}' has choices, not a range")
        assert self.low is not None and self.high is not None
        zero = self.zero and (keep_zero or low <= 0 <= high)
        low, high = max(low, self.low), min(high, self.high)
        if self.type == "int" and low <= high:
            low, high = math.ceil(low), math.floor(high)
        if low > high:
            if not zero:
                raise UserError(f"nothing is left of {self.allowed()}")
            return replace(self, default=0, searched=False)
        narrow = Parameter.__new__(Parameter)
        for item in fields(self):
            object.__setattr__(narrow, item.name, getattr(self, item.name))
        object.__setattr__(narrow, "low", low)
        object.__setattr__(narrow, "high", high)
        object.__setattr__(narrow, "zero", zero)
        default = self.default if narrow.problem(self.default) is None else narrow.nearest(self.default)
        single = low == high and not zero
        return replace(narrow, default=default, searched=self.searched and not single)

    def restricted(self, choices: Iterable[Scalar]) -> Parameter:
        """Only these choices, in the parameter's own order; a default that is
        gone becomes the first one left.

        UserError when nothing is left.
        """
        if self.type != "categorical":
            raise UserError(f"'{self.name}' has a range, not choices")
        wanted = list(choices)
        left = tuple(choice for choice in self.choices if choice in wanted)
        if not left:
            raise UserError(f"nothing is left of {self.allowed()}")
        default = self.default if self.default in left else left[0]
        return replace(self, choices=left, default=default, searched=self.searched and len(left) > 1)

    def fixed(self, value: object) -> Parameter:
        """The same parameter outside the search, at this value."""
        return replace(self, default=self.check(value), searched=False)

    def with_default(self, value: object) -> Parameter:
        """The same parameter with another default."""
        return replace(self, default=self.check(value))

    @property
    def kind(self) -> Name:
        """What expressions over parameters may do with it."""
        if self.type != "categorical":
            return Name("number")
        first = self.choices[0]
        kind: ValueKind = (
            "boolean" if isinstance(first, bool) else "text" if isinstance(first, str) else "number"
        )
        return Name(kind, () if kind == "boolean" else self.choices)

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the name and without what is at its default value."""
        result: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("type", "default") or (item.name != "name" and value != item.default):
                result[item.name] = list(value) if isinstance(value, tuple) else value
        return result


def shown_value(value: object) -> str:
    """A value as a user writes it: ``true``, ``0.003``, ``'text'``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = f"{value:.6g}"
        return text if set(text) & set(".en") else f"{text}.0"
    if value is None:
        return "nothing"
    return f"'{value[:60]}'" if isinstance(value, str) else str(value)[:60]


def _listed(choices: Iterable[Scalar]) -> str:
    return ", ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices)


def _is_number(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return False
    if kind == "int":
        return isinstance(value, int) and abs(value) < 2**53
    return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e300


def _a_number(kind: str) -> str:
    return "a whole number" if kind == "int" else "a number"


def number_hint(value: object) -> str:
    """How to write a number that YAML reads as text (1e-3), in brackets; empty when it is no number."""
    if not isinstance(value, str):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    mantissa, sign, exponent = value.strip().lower().partition("e")
    if sign and "." not in mantissa:
        return f" (write {mantissa}.0e{exponent if exponent[:1] in '+-' else '+' + exponent})"
    return f" (write {number:g} without quotes)"
