"""Conditions, values and sentences over named facts: checked once when loaded,
evaluated with true, false, unknown.

Three kinds of text, all parsed once and all checked against the names that may occur in them:

* a condition, ``rows < 600 and classes.imbalance >= limits.ratio``, is true, false or unknown;
* a value, the part after the ``=`` in ``'= 4 * sqrt(rows)'``, is a number, word or list, or unknown;
* a template, ``"{rows} rows, ratio {classes.imbalance:.1f}"``, becomes a sentence.

A fact that is None, NaN or of another type than its schema says counts as not measured, and whatever
depends on it is unknown in Kleene's logic: ``false and unknown`` is false, ``true or unknown`` is true.
Arithmetic that has no answer (a division by zero, the logarithm of 0, an overflow) is unknown too:
evaluation never raises. A checked tree becomes nested functions; dotted names are looked up whole, so nothing
here ever reaches an attribute of an object.
"""

from __future__ import annotations

import ast
import functools
import math
import numbers
import operator
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from advisor.errors import UserError, did_you_mean
from advisor.spaces.aliases import fact_name, renamed_tree

ValueKind = Literal["number", "text", "boolean", "list"]
"""What a name or an expression stands for."""
Scalar = bool | int | float | str

MAX_LENGTH = 1000
MAX_NODES = 300
MAX_DEPTH = 30
MAX_EXPONENT = 10


@dataclass(frozen=True)
class Name:
    """What is known of a name before it has a value: its kind, and its possible values when they are few."""

    kind: ValueKind
    choices: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """The answer of an expression.
    value: None is unknown.
    used, missing: names in the order they were met."""

    value: Any
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expression:
    """A checked expression; make one with `parse_condition` or `parse_value`."""

    text: str
    kind: ValueKind
    names: Mapping[str, Name]
    tree: ast.expr = field(repr=False, compare=False)

    def evaluate(self, values: Mapping[str, Any]) -> Evaluation:
        """The value for these facts (flat, ``{"classes.imbalance": 3.0}``), with
        None for unknown. Never raises."""
        reading = _Reading(self.names, values)
        value = _compiled(self.text)(reading)
        used = tuple(name for name in reading.used if name not in reading.missing)
        return Evaluation(value, used, tuple(reading.missing))


@dataclass(frozen=True)
class Template:
    """A checked sentence with ``{name}`` or ``{name:.2f}`` in it; make one with `parse_template`."""

    text: str
    parts: tuple[tuple[str, str | None, str], ...]
    """(text before, name or None, format)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that occur, in order."""
        return tuple(name for _, name, _ in self.parts if name is not None)

    def render(self, values: Mapping[str, Any]) -> str:
        """The sentence with these values; what has none becomes "not measured". Never raises."""
        return "".join(
            text + ("" if name is None else _shown(values.get(name), form)) for text, name, form in self.parts
        )


def parse_condition(text: str, names: Mapping[str, Name]) -> Expression:
    """Check a condition; UserError (without a place) when it is not a yes-or-no question over `names`."""
    expression = parse_value(text, names)
    if expression.kind != "boolean":
        raise UserError(f"'{text}' is a {expression.kind}, not a condition that is true or false")
    return expression


def parse_value(text: str, names: Mapping[str, Name]) -> Expression:
    """Check an expression of any kind; UserError (without a place) when it is
    malformed or names something unknown."""
    text = " ".join(text.split()) if len(text) <= MAX_LENGTH else text
    checker = _Checker(names)
    tree = _tree(text)
    kind = checker.kind(tree)
    return Expression(text, kind, {name: names[name] for name in checker.seen}, tree)


def is_computed(value: object) -> bool:
    """Whether a value in a rule is an expression: text that begins with ``=``."""
    return isinstance(value, str) and value.lstrip().startswith("=")


def computed_text(value: str) -> str:
    """The expression without its leading ``=``."""
    return value.lstrip()[1:].strip()


def parse_template(text: str, names: Mapping[str, Name]) -> Template:
    """Check a sentence: every placeholder a known name, every format fit for its kind."""
    if len(text) > 2 * MAX_LENGTH:
        raise UserError(f"longer than {2 * MAX_LENGTH} characters")
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"not a sentence with {{placeholders}}: {error}") from None
    parts = []
    for before, name, form, conversion in pieces:
        if name is not None:
            name = fact_name(name)
            _check_placeholder(name, form or "", conversion, names)
        parts.append((before, name, form or ""))
    return Template(text, tuple(parts))


_FORMAT = re.compile(r",?(\.\d)?[dfeg%]?")


def _check_placeholder(name: str, form: str, conversion: str | None, names: Mapping[str, Name]) -> None:
    if name not in names:
        raise UserError(f"unknown name '{name[:60]}' in braces{did_you_mean(name[:60], names)}")
    if conversion:
        raise UserError(f"'!{conversion}' after '{name}' is not allowed")
    if not _FORMAT.fullmatch(form):
        raise UserError(f"format '{form[:20]}' of '{name}' is not one of ',', '.2f', '.3g', '.0%', 'd'")
    if form and names[name].kind != "number":
        raise UserError(f"'{name}' is a {names[name].kind}; the format '{form}' is for numbers")


def _shown(value: Any, form: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not measured"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(str(item)[:60] for item in value[:5])
        return shown + (f" and {len(value) - 5} more" if len(value) > 5 else "")
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        if form.endswith("d"):
            return format(round(value), form.replace(".", ""))
        if not form and isinstance(value, float):
            return format(value, ".4g")
        return format(value, form)
    except (ValueError, TypeError, ArithmeticError):
        return str(value)[:200]


@functools.lru_cache(
    4096
)  # every narrowed space and every replanning parses the same few hundred texts again
def _tree(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise UserError(f"longer than {MAX_LENGTH} characters")
    if not text:
        raise UserError("empty")
    try:
        tree = ast.parse(text, mode="eval").body
    except (RecursionError, MemoryError):
        raise UserError("nested too deeply") from None
    except (SyntaxError, ValueError) as error:
        cause = str(getattr(error, "msg", error))
        hint = " (write == to compare)" if re.search(r"[^=<>!]=[^=]", text) else ""
        raise UserError(f"'{text[:80]}' is not an expression: {cause}{hint}") from None
    level: list[ast.AST] = [tree]
    nodes = depth = 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise UserError(f"'{text[:40]}...' is too long or nested too deeply; split the rule")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return renamed_tree(tree)


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_EQUALITY = (ast.Eq, ast.NotEq)
_MEMBERSHIP = (ast.In, ast.NotIn)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    # In floats: an overflow is an error there, not a number with a million digits.
    ast.Pow: lambda base, exponent: math.pow(base, exponent),
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "sqrt": math.sqrt,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "floor": math.floor,
    "ceil": math.ceil,
}
_TRUTH = {"true": True, "false": False}


def _dotted(node: ast.expr) -> str:
    """``classes.imbalance`` from the tree; UserError when something else than a name has a dot after it."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise UserError("a dot may stand only between the words of a name")
    return fact_name(".".join([node.id, *reversed(parts)]))


class _Checker:
    """Finds the kind of every part of a tree, and refuses all that has none."""

    def __init__(self, names: Mapping[str, Name]) -> None:
        self.names = names
        self.seen: dict[str, None] = {}

    def kind(self, node: ast.expr) -> ValueKind:
        handlers: dict[type[ast.expr], Callable[[Any], ValueKind]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._name,
            ast.BoolOp: self._logic,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._arithmetic,
            ast.Compare: self._comparison,
            ast.Call: self._call,
            ast.IfExp: self._choice,
        }
        handler = handlers.get(type(node))
        if handler is None:
            raise UserError(f"'{_source(node)}' is not allowed in an expression")
        return handler(node)

    def _constant(self, node: ast.Constant) -> ValueKind:
        value = node.value
        if isinstance(value, bool):
            return "boolean"
        if isinstance(value, str):
            return "text"
        if isinstance(value, (int, float)):
            if not -1e18 <= value <= 1e18:
                raise UserError(f"the number {_source(node)} is too large")
            return "number"
        if value is None:
            raise UserError("None is not allowed: what was not measured makes a condition unknown by itself")
        raise UserError(f"'{_source(node)}' is not allowed in an expression")

    def _name(self, node: ast.expr) -> ValueKind:
        name = _dotted(node)
        if name in _TRUTH:
            return "boolean"
        if name not in self.names:
            raise UserError(f"unknown name '{name}'{did_you_mean(name, self.names)}")
        self.seen[name] = None
        return self.names[name].kind

    def _expect(self, node: ast.expr, wanted: ValueKind, where: str) -> None:
        kind = self.kind(node)
        if kind != wanted:
            raise UserError(f"'{_source(node)}' is a {kind}; {where} takes a {wanted}")

    def _logic(self, node: ast.BoolOp) -> ValueKind:
        for value in node.values:
            self._expect(value, "boolean", "'and'" if isinstance(node.op, ast.And) else "'or'")
        return "boolean"

    def _unary(self, node: ast.UnaryOp) -> ValueKind:
        if isinstance(node.op, ast.Not):
            self._expect(node.operand, "boolean", "'not'")
            return "boolean"
        if isinstance(node.op, ast.Invert):
            raise UserError("'~' is not allowed; write 'not'")
        self._expect(node.operand, "number", "a sign")
        return "number"

    def _arithmetic(self, node: ast.BinOp) -> ValueKind:
        if type(node.op) not in _ARITHMETIC:
            raise UserError(f"the operator in '{_source(node)}' is not allowed")
        self._expect(node.left, "number", "arithmetic")
        self._expect(node.right, "number", "arithmetic")
        if isinstance(node.op, ast.Pow):
            power = _number(node.right)
            if power is None or abs(power) > MAX_EXPONENT:
                raise UserError(f"an exponent must be a plain number from -{MAX_EXPONENT} to {MAX_EXPONENT}")
        return "number"

    def _comparison(self, node: ast.Compare) -> ValueKind:
        sides = [node.left, *node.comparators]
        if not any(isinstance(part, (ast.Name, ast.Attribute)) for side in sides for part in ast.walk(side)):
            raise UserError(f"'{_source(node)}' compares no fact or parameter")
        for left, sign, right in zip(sides, node.ops, node.comparators, strict=False):
            if type(sign) not in _COMPARISONS:
                raise UserError(f"'{_source(node)}': compare with ==, !=, <, <=, >, >= or in")
            if isinstance(sign, _MEMBERSHIP):
                self._membership(left, right)
            else:
                self._pair(left, sign, right)
        return "boolean"

    def _membership(self, left: ast.expr, right: ast.expr) -> None:
        kind = self.kind(left)
        if isinstance(right, (ast.List, ast.Tuple)):
            for item in right.elts:
                if not isinstance(item, ast.Constant) and _number(item) is None:
                    raise UserError(f"'{_source(item)}' in a list must be a plain number or text")
                if self.kind(item) != kind:
                    raise UserError(
                        f"'{_source(item)}' is a {self.kind(item)}, but '{_source(left)}' is a {kind}"
                    )
                self._known_value(left, item)
        elif self.kind(right) != "list":
            raise UserError(f"'in' needs a list on its right, and '{_source(right)}' is none")

    def _pair(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> None:
        one, two = self.kind(left), self.kind(right)
        if one != two:
            raise UserError(
                f"'{_source(left)}' is a {one} and '{_source(right)}' is a {two}: they cannot be compared"
            )
        if one == "list" or (one != "number" and not isinstance(sign, _EQUALITY)):
            raise UserError(f"'{_source(left)}' is a {one}: {'use in' if one == 'list' else 'use == or !='}")
        self._known_value(left, right)
        self._known_value(right, left)

    def _known_value(self, name: ast.expr, literal: ast.expr) -> None:
        """A literal that a name can never equal is a misspelling."""
        if not isinstance(name, (ast.Name, ast.Attribute)) or not isinstance(literal, ast.Constant):
            return
        choices = self.names[_dotted(name)].choices if _dotted(name) in self.names else ()
        written = literal.value
        if choices and isinstance(written, (bool, int, float, str)) and written not in choices:
            near = did_you_mean(str(written), [str(choice) for choice in choices])
            allowed = ", ".join(str(choice) for choice in choices)
            raise UserError(f"'{_dotted(name)}' is never '{written}'; it is one of {allowed}{near}")

    def _call(self, node: ast.Call) -> ValueKind:
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            name = _source(node.func)
            known = ", ".join(_FUNCTIONS)
            raise UserError(f"unknown function '{name}'{did_you_mean(name, _FUNCTIONS)}; known: {known}")
        several = node.func.id in ("min", "max")
        if node.keywords or not (len(node.args) >= 2 if several else len(node.args) == 1):
            raise UserError(f"{node.func.id} takes {'two or more numbers' if several else 'one number'}")
        for argument in node.args:
            self._expect(argument, "number", node.func.id)
        return "number"

    def _choice(self, node: ast.IfExp) -> ValueKind:
        self._expect(node.test, "boolean", "'if'")
        kind = self.kind(node.body)
        if self.kind(node.orelse) != kind:
            raise UserError(f"both sides of 'else' must be of one kind in '{_source(node)}'")
        return kind


def _source(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else text[:57] + "..."


def _number(node: ast.expr) -> float | None:
    """The value of a number as written, with or without a sign."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        inner = _number(node.operand)
        return None if inner is None else -inner if isinstance(node.op, ast.USub) else inner
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float))
        and not isinstance(node.value, bool)
    ):
        return node.value
    return None


class _Reading:
    """The values for one evaluation, and which names were looked up and had none."""

    __slots__ = ("kinds", "missing", "used", "values")

    def __init__(self, kinds: Mapping[str, Name], values: Mapping[str, Any]) -> None:
        self.kinds, self.values = kinds, values
        self.used: dict[str, None] = {}
        self.missing: dict[str, None] = {}


_Answer = Callable[[_Reading], Any]


@functools.lru_cache(4096)  # as the trees are
def _compiled(text: str) -> _Answer:
    """The expression as nested functions, with None for unknown in every operation."""
    return _part(_tree(text))


def _part(node: Any) -> _Answer:
    return _PARTS[type(node)](node)


def _constant(node: ast.Constant) -> _Answer:
    value = node.value
    return lambda reading: value


def _lookup(node: ast.expr) -> _Answer:
    name = _dotted(node)
    if name in _TRUTH:
        truth = _TRUTH[name]
        return lambda reading: truth

    def answer(reading: _Reading) -> Any:
        reading.used[name] = None
        value = _of_kind(reading.values.get(name), reading.kinds[name].kind)
        if value is None:
            reading.missing[name] = None
        return value

    return answer


def _list(node: ast.List | ast.Tuple) -> _Answer:
    parts = [_part(item) for item in node.elts]
    return lambda reading: [part(reading) for part in parts]


def _logic(node: ast.BoolOp) -> _Answer:
    decisive, parts = isinstance(node.op, ast.Or), [_part(part) for part in node.values]

    def answer(reading: _Reading) -> bool | None:
        unknown = False
        for part in parts:
            value: bool | None = part(reading)
            if value is decisive:
                return decisive
            unknown = unknown or value is None
        return None if unknown else not decisive

    return answer


def _unary(node: ast.UnaryOp) -> _Answer:
    part, is_not, is_minus = _part(node.operand), isinstance(node.op, ast.Not), isinstance(node.op, ast.USub)

    def answer(reading: _Reading) -> Any:
        value = part(reading)
        if value is None:
            return None
        return not value if is_not else -value if is_minus else value

    return answer


def _arithmetic(node: ast.BinOp) -> _Answer:
    function, left, right = _ARITHMETIC[type(node.op)], _part(node.left), _part(node.right)
    return lambda reading: _safely(function, left(reading), right(reading))


def _call(node: ast.Call) -> _Answer:
    assert isinstance(node.func, ast.Name)
    function, parts = _FUNCTIONS[node.func.id], [_part(argument) for argument in node.args]
    return lambda reading: _safely(function, *(part(reading) for part in parts))


def _comparison(node: ast.Compare) -> _Answer:
    first = _part(node.left)
    rest = [(_COMPARISONS[type(s)], _part(c)) for s, c in zip(node.ops, node.comparators, strict=True)]

    def answer(reading: _Reading) -> bool | None:
        left, unknown = first(reading), False
        for compare, part in rest:
            right = part(reading)
            holds: bool | None = _safely(compare, left, right)
            if holds is False:
                return False
            unknown = unknown or holds is None
            left = right
        return None if unknown else True

    return answer


def _choice(node: ast.IfExp) -> _Answer:
    test, body, other = _part(node.test), _part(node.body), _part(node.orelse)

    def answer(reading: _Reading) -> Any:
        holds: bool | None = test(reading)
        return None if holds is None else body(reading) if holds else other(reading)

    return answer


_PARTS: dict[type[ast.expr], Callable[[Any], _Answer]] = {
    ast.Constant: _constant,
    ast.Name: _lookup,
    ast.Attribute: _lookup,
    ast.List: _list,
    ast.Tuple: _list,
    ast.BoolOp: _logic,
    ast.UnaryOp: _unary,
    ast.BinOp: _arithmetic,
    ast.Call: _call,
    ast.Compare: _comparison,
    ast.IfExp: _choice,
}


def _safely(function: Callable[..., Any], *arguments: Any) -> Any:
    if any(argument is None for argument in arguments):
        return None
    try:
        value = function(*arguments)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return None if isinstance(value, float) and math.isnan(value) else value


def _of_kind(value: Any, kind: ValueKind) -> Any:
    """The value as a plain one of its kind, or None when it is not of that kind."""
    if type(value) is float and kind == "number":  # most facts are plain numbers: those at once
        return None if math.isnan(value) else value
    if type(value) is int and kind == "number":
        return value
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "text":
        return value if isinstance(value, str) else None
    if kind == "list":
        return list(value) if isinstance(value, (list, tuple)) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    return _safely(float, value)
