"""What one rule is, and the words that its file may use (``docs/rules.md``); ``reader.py`` reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from advisor.kinds import KINDS, Kind
from advisor.spaces.expressions import (
    Expression,
    Scalar,
    Template,
)
from advisor.spaces.parameter import Parameter
from advisor.spaces.space import Row

Strength = Literal["must", "should", "may"]
"""What a rule may do. must: fix a searched parameter. should: narrow it. may:
say where to begin, or only report."""
Evidence = Literal["measured", "reported", "folklore"]
"""Why to believe it. measured: by us, in evidence.yaml. reported: by the
references. folklore: people say so."""
EffectKind = Literal["set", "default", "range", "choices", "prior", "derive"]
Confidence = Literal["low", "medium", "high"]
"""How sure a prior is, and so how far around its value the search still looks; see PRIOR_FACTOR."""
Severity = Literal["error", "warning", "info"]
Subject = Kind | Literal["module"]
"""What a rule is about: a kind of data, or a user's own network and its training."""
MODULE: Literal["module"] = "module"
SUBJECTS: tuple[Subject, ...] = (*KINDS, MODULE)
ModuleSeverity = Literal["error", "warning", "note"]
"""Of a finding about a module. error: this cannot work; warning: likely to hurt; note: worth knowing."""
FindingCategory = Literal[
    "output",
    "loss",
    "target",
    "activation",
    "initialization",
    "learning rate",
    "optimizer",
    "frozen",
    "steps",
    "batch size",
    "inputs",
    "architecture",
    "normalization",
    "regularization",
    "gradient",
    "registration",
    "evaluation",
    "shape",
    "data",
    "loop",
]
"""The part of a training that a finding about a module is about."""

NOTES = tuple(f"N{number}" for number in range(1, 34))
"""The items of the notes that a rule may cite."""
NOT_FIRING = "does not fire"
NOT_JUDGED = "cannot be judged"
NOT_DECIDING = "does not decide"
OUTCOMES = (NOT_FIRING, NOT_JUDGED, NOT_DECIDING)
"""What an example may expect of a rule that gives no value: its condition fails, a fact is not known, or the
user has given all of its parameters."""
MAX_TITLE = 90
MAX_SENTENCE = 200
MAX_TEXT = 2000


@dataclass(frozen=True)
class Effect:
    """What a rule does to one parameter.
    values: one for set, default and prior, (low, high) for range, all choices."""

    kind: EffectKind
    parameter: str
    values: tuple[Expression | Scalar, ...] = ()
    confidence: Confidence | None = None
    rows: tuple[Row, ...] = ()
    given: tuple[str, ...] = ()
    """Facts and limits that the rows of a derive use."""
    reads: tuple[str, ...] = ()
    """Parameters that the rows of a derive use."""


@dataclass(frozen=True)
class FindingEffect:
    """What a rule reports about the data, or about a module.

    columns: names, or an expression that gives them; of a module's layers and parameters (``where``).
    The rest is for modules. category: the part of the training. fix: in words. change: as a line of code.
    effect: the experiment whose curves it shows.
    """

    severity: Severity | ModuleSeverity
    code: str
    message: Template | None
    columns: Expression | tuple[str, ...]
    actions: tuple[str, ...]
    category: str = ""
    fix: Template | None = None
    change: Template | None = None
    effect: str = ""


@dataclass(frozen=True)
class Alternative:
    """Something else that could be advised, and why it is not."""

    value: Scalar
    why_not: str


@dataclass(frozen=True)
class Reference:
    """Where a claim comes from, and the claim in one line."""

    cite: str
    url: str
    says: str


@dataclass(frozen=True)
class Example:
    """Facts that differ from a typical table, other parameters' values for
    derive, and what the rule must then do.
    yours: parameters with the user's own values, which beat the rule's."""

    given: Mapping[str, Any]
    config: Mapping[str, Any]
    yours: Mapping[str, Any]
    expect: str | Mapping[str, Any]
    line: int


@dataclass(frozen=True)
class Rule:
    """A checked rule.
    measured: its entry in evidence.yaml, when there is one.
    when: None means always."""

    id: str
    title: str
    topic: str
    applies_to: tuple[Subject, ...]
    notes: tuple[str, ...]
    strength: Strength
    limits: Mapping[str, float]
    when: Expression | None
    effects: tuple[Effect, ...]
    finding: FindingEffect | None
    because: Template
    why: str
    alternatives: tuple[Alternative, ...]
    known_problems: tuple[str, ...]
    references: tuple[Reference, ...]
    evidence: Evidence
    examples: tuple[Example, ...]
    replaces: tuple[str, ...]
    file: str
    line: int
    measured: Mapping[str, Any] | None = field(default=None)
    universal: str = ""
    """Why the rule may hold on every table; "" for a rule that is about some of them."""

    @cached_property
    def limit_values(self) -> Mapping[str, float]:
        """The limits under the names that expressions use, ``limits.rows``."""
        return {f"limits.{name}": value for name, value in self.limits.items()}

    @cached_property
    def own_names(self) -> tuple[str, ...]:
        """The ``yours.`` names that it looks at: the user's own values."""
        amounts = [value for effect in self.effects for value in effect.values]
        read = (name for one in (*amounts, self.when) if isinstance(one, Expression) for name in one.names)
        return tuple(dict.fromkeys(name for name in read if name.startswith("yours.")))


class Layers(Mapping[str, Any]):
    """Several mappings as one; the first that has a name gives its value.

    ``get`` is what expressions call, and takes a fraction of its time in a ``ChainMap``.
    """

    def __init__(self, *layers: Mapping[str, Any]) -> None:
        self._layers = layers

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, or the default."""
        for layer in self._layers:
            if name in layer:
                return layer[name]
        return default

    def __getitem__(self, name: str) -> Any:
        for layer in self._layers:
            if name in layer:
                return layer[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for layer in self._layers for name in layer))

    def __len__(self) -> int:
        return len(set().union(*self._layers))


REQUIRED = (
    "id",
    "title",
    "topic",
    "applies_to",
    "strength",
    "when",
    "then",
    "because",
    "why",
    "references",
    "evidence",
    "examples",
)
OPTIONAL = ("notes", "limits", "alternatives", "known_problems", "replaces", "universal")
EFFECTS = (*get_args(EffectKind), "finding")
FINDING = ("severity", "code", "message", "columns", "actions")
MODULE_FINDING = ("severity", "code", "category", "where", "fix", "change", "effect")
"""Fields of the finding of a rule about a module; all but where, change and effect are required."""
ALTERNATIVE = ("value", "why_not")
EXAMPLE = ("given", "config", "yours", "expect")
REFERENCE = ("cite", "url", "says")
ID = r"[a-z0-9]+(-[a-z0-9]+)+"
CODE = r"[a-z0-9]+(-[a-z0-9]+)*"
URL = r"https?://\S+|docs/[a-z_]+\.md(#[a-z0-9-]+)?"
"""A web address, or a page of the repository's own documentation."""


def not_fit(kind: EffectKind, parameter: Parameter, strength: Strength | None) -> str | None:
    """Why an effect cannot be applied to a parameter, or None."""
    name = parameter.name
    if kind == "derive" and parameter.searched:
        return "is searched, so it cannot be derived: Optuna would record a value that was not used"
    if kind in ("range", "choices", "prior") and not parameter.searched:
        return f"is not searched; use set or default instead of {kind}"
    if kind == "range" and parameter.type == "categorical":
        return f"{name} has choices, not a range; use choices"
    if kind == "choices" and parameter.type != "categorical":
        return f"{name} has a range, not choices; use range"
    if strength == "may" and kind not in ("default", "prior"):
        return f"strength 'may' only sets where the search starts (default, prior); {kind} needs 'should'"
    if kind == "set" and parameter.searched and strength == "should":
        return (
            "set takes a parameter out of the search, which needs strength 'must'; use default, range or "
            "prior"
        )
    return None
