"""Advice as the service makes it: on facts, in processes beside the server, and again from what is kept.

A recommendation is pure: the same facts, options and rules are the same advice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import signal
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from advisor.documents import DocumentError
from advisor.errors import UserError
from advisor.evaluation.metrics import Costs, asked_metric, check_task
from advisor.facts.schema import FACTS, Facts, damage
from advisor.kinds import KINDS, Kind
from advisor.rules import shipped
from advisor.rules.book import Rule
from advisor.rules.provenance import LedgerEntry, ledger
from advisor.rules.recommendation import Finding, Recommendation, advise
from advisor.service.base.settings import keep_for_ever

T = TypeVar("T")
KEPT = 256
"""Recommendations that are kept in memory, made again, for the questions that follow."""
MOST_NUMBER = 1e15


@dataclass(frozen=True)
class Known:
    """A recommendation with all that the questions about it need."""

    recommendation: Recommendation
    facts: Facts
    rules: tuple[Rule, ...]

    def ledger(self, parameter: str | None = None) -> dict[str, LedgerEntry]:
        """The complete because of every parameter, or of one."""
        base = shipped.base_space(self.recommendation.kind)
        return ledger(self.recommendation, self.facts.values, self.rules, base, parameter)


class Remembered(Generic[T]):
    """The latest KEPT of some values, by a name; what was asked for longest ago goes first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, T] = OrderedDict()

    def keep(self, name: str, value: T) -> None:
        """Remember one."""
        self._known[name] = value
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def find(self, name: str) -> T | None:
        """One that is remembered."""
        if (value := self._known.get(name)) is not None:
            self._known.move_to_end(name)
        return value


class AdviceDesk(Remembered[Known]):
    """Recommendations that were asked about lately, by their id."""


@dataclass(frozen=True)
class MadeAdvice:
    """A recommendation in the forms in which it is answered and kept.

    shown: as JSON without the server's paths, from the second key on. packed, packed_facts: it and its facts.
    """

    name: str
    shown: bytes
    packed: bytes
    packed_facts: bytes


@dataclass(frozen=True)
class FactsOrder:
    """What advice on facts follows from. facts: the content of facts.json. without: rules to leave out.
    metric, cost: what decides in place of the loss; the facts may say it too."""

    facts: Mapping[str, Any]
    name: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    without: Sequence[str] = ()
    seed: int = 0
    metric: str | None = None
    cost: Costs | None = None


class AdvicePool:
    """Processes that advise on facts, so that advice on many cores keeps no other answer waiting.

    processes: 0 advises in a thread of the server. The same facts, options and rules are the same advice:
    what was made lately is not made again.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._made = Remembered[MadeAdvice]()

    async def advise(self, order: FactsOrder, folders: Sequence[Path]) -> MadeAdvice:
        """The advice on facts. UserError for what are no facts.

        folders: of rule packs, whose content never changes.
        """
        digest = hashlib.sha256(json_of([*vars(order).values(), *folders])).hexdigest()
        if (made := self._made.find(digest)) is None:
            made = await self._advised(order, folders)
            self._made.keep(digest, made)
        return made

    async def _advised(self, *asked: Any) -> MadeAdvice:
        if not self._processes:
            return await asyncio.to_thread(_advise_apart, *asked)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._started(), _advise_apart, *asked)
        except BrokenProcessPool:  # one was killed, for memory or by hand: the next are new
            self.close()
            return await loop.run_in_executor(self._started(), _advise_apart, *asked)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork would share the server's locks
            self._pool = ProcessPoolExecutor(self._processes, context, initializer=_begin_process)
        return self._pool


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which ends us
    for kind in KINDS:
        shipped.rule_book(kind=kind), shipped.base_space(kind)
    keep_for_ever()


def _advise_apart(order: FactsOrder, folders: Sequence[Path]) -> MadeAdvice:
    return made_advice(advise_on_facts(order, folders))


def made_advice(known: Known) -> MadeAdvice:
    """A recommendation in the forms in which it is answered and kept."""
    document = known.recommendation.to_dict()
    data = document.pop("data")
    rest = json_of(document)[1:]  # once: it has 40 kB, and only the data differ
    shown, kept = (b'"data":' + json_of(one) + b"," + rest for one in (shown_data(data), data))
    name = str(data.get("name", ""))[:200]
    return MadeAdvice(name, shown, _packed(b"{" + kept), packed_document(known.facts.to_dict()))


def advise_on_facts(order: FactsOrder, folders: Sequence[Path]) -> Known:
    """The recommendation for facts that were measured elsewhere. UserError for what are no facts."""
    document = order.facts
    plain = {key: value for key, value in document.items() if key not in ("format", "advisor", "data")}
    try:
        facts = Facts.from_dict(plain)
        wrong = damage(facts)
    except DocumentError as error:
        wrong = str(error)
    except (AttributeError, KeyError, TypeError, ValueError):
        wrong = "values, sampled or columns are missing"
    if wrong is None:
        wrong = beyond_any_data(facts.values)
    if wrong is not None:
        raise UserError(f"these are no facts of ours: {wrong}; measure them with `advisor recommend`")
    values = {**dict.fromkeys(FACTS), **facts.values}
    if (metric := asked_metric(order.metric, order.cost)) is not None:
        check_task(metric, values["task"])
        values |= metric.facts()
    kind = _kind_of_facts(values)
    data = document.get("data") if isinstance(document.get("data"), Mapping) else {}
    assert isinstance(data, Mapping)
    told = {key: str(data.get(key, ""))[:200] for key in ("target", "fingerprint")}
    name = order.name or str(data.get("name", "facts"))[:200]
    identity = {"name": name, "source": "", **told, "kind": kind, "seed": order.seed}
    rules = shipped.rule_book(folders, order.without, kind)
    made = advise(values, rules, shipped.base_space(kind), order.fixed, data=identity)
    return Known(made, Facts(values, facts.sampled, facts.columns, facts.target, facts.samples), rules)


def beyond_any_data(values: Mapping[str, Any]) -> str | None:
    """Which fact has a number that nothing has."""
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > MOST_NUMBER:
            return f"the fact {name} is {value:.3g}"
        if FACTS[name].type == "int" and isinstance(value, int) and value < 0:
            return f"the fact {name} is {value}, and counts something"
    return None


def _kind_of_facts(values: Mapping[str, Any]) -> Kind:
    if values.get("image.side"):
        return "image"
    return "sequence" if values.get("sequence.length") else "table"


def known_of(
    facts: Mapping[str, Any],
    document: Mapping[str, Any],
    fixed: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Known:
    """A recommendation made again from what is kept of it."""
    measured = Facts.from_dict(facts)
    kind: Kind = document["data"].get("kind") or "table"
    rules = shipped.rule_book(options.get("rules", ()), options.get("without", ()), kind)
    told = [
        Finding(**{**finding, "columns": tuple(finding["columns"]), "actions": tuple(finding["actions"])})
        for finding in document["findings"]
        if not finding["rule"]
    ]
    base = shipped.base_space(kind)
    made = advise(measured.values, rules, base, fixed, findings=told, data=document["data"])
    return Known(made, measured, rules)


def packed_document(document: Any) -> bytes:
    """A document as it is kept."""
    return _packed(json_of(document))


def _packed(content: bytes) -> bytes:
    return zlib.compress(content, 1)


def json_of(document: Any) -> bytes:
    """A document as JSON, without blanks."""
    return json.dumps(document, separators=(",", ":"), default=str).encode()


def opened_document(content: bytes) -> Any:
    """A document that was kept."""
    return json.loads(zlib.decompress(content))


def shown_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Which data a recommendation is of, without a path of the server."""
    return {name: value for name, value in data.items() if name not in ("source", "test", "rules")}
