"""Facts that are measured when a rule asks for them, and the rules that are judged on them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from advisor.checks.findings import checkerboard, experiments, loop, losses, rows, scale, settings, structure
from advisor.checks.findings.case import Case, Measure, NetworkFinding
from advisor.facts.module_schema import MODULE_FACTS
from advisor.rules import shipped
from advisor.rules.book import NO_PARAMETERS, judge_rule
from advisor.rules.rule import MODULE, FindingCategory, Layers, ModuleSeverity, Rule

ORDER: Mapping[ModuleSeverity, int] = {"error": 0, "warning": 1, "note": 2}
MEASURES: tuple[Measure, ...] = (
    *(*losses.MEASURES, *scale.MEASURES, *structure.MEASURES, *settings.MEASURES, *rows.MEASURES),
    *(*experiments.MEASURES, *loop.MEASURES, *checkerboard.MEASURES),
)
MEASURED_BY: Mapping[str, Measure] = {name: one for one in MEASURES for name in one.names}


class ModuleFacts(Mapping[str, Any]):
    """The facts of a user's network and training by their names in ``MODULE_FACTS``; None is "not measured".

    case: what was seen, on which a fact is measured when it is first asked for; None measures nothing.
    known: facts that were measured elsewhere (the loop that is watched). without: what is not to be measured.
    """

    def __init__(
        self,
        case: Case | None,
        known: Mapping[str, Any] | None = None,
        without: Collection[Measure] = (),
    ) -> None:
        self.case, self._known, self._without = case, dict(known or {}), without

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            if name not in MODULE_FACTS:
                raise KeyError(name)
            found = MEASURED_BY.get(name)
            names = (name,) if found is None else found.names
            values: Mapping[str, Any] = {}
            if found is not None and self.case is not None and found not in self._without:
                values = found.run(self.case)
            self._known |= {one: values.get(one) for one in names if one not in self._known}
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MODULE_FACTS)

    def __len__(self) -> int:
        return len(MODULE_FACTS)

    def __contains__(self, name: object) -> bool:
        return name in MODULE_FACTS  # without measuring it


def module_rules(extra: Sequence[Path | str] = (), without: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules about a user's own training: those that ship, and those in folders of a team's own.

    In the order in which they stand in their files. UserError for one that is wrong.
    """
    return tuple(sorted(shipped.rule_book(extra, without, MODULE), key=lambda rule: (rule.file, rule.line)))


def rules_about(rules: Sequence[Rule], *families: str) -> tuple[Rule, ...]:
    """The rules whose condition looks at a fact of some families, the part of its name before the dot."""
    return tuple(
        rule
        for rule in rules
        if rule.when is not None and any(name.partition(".")[0] in families for name in rule.when.names)
    )


def findings_of(rules: Sequence[Rule], facts: ModuleFacts) -> list[NetworkFinding]:
    """What the rules say of some facts: the gravest first, and of each code only the first."""
    found: dict[str, NetworkFinding] = {}
    for rule in sorted(rules, key=lambda rule: ORDER[_severity(rule)]):
        code = rule.finding.code if rule.finding is not None else ""
        if code not in found and (told := _told(rule, facts)) is not None:
            found[code] = told
    return list(found.values())


def _severity(rule: Rule) -> ModuleSeverity:
    assert rule.finding is not None  # the reader sees to it
    return cast(ModuleSeverity, rule.finding.severity)


def _told(rule: Rule, facts: ModuleFacts) -> NetworkFinding | None:
    """The finding of a rule that fires."""
    verdict = judge_rule(rule, facts, NO_PARAMETERS)
    said = rule.finding
    if verdict.fires is not True or said is None:
        return None
    # in layers: only what a sentence names is measured
    values = Layers(rule.limit_values, facts)
    case = facts.case
    effect = experiments.curves_of(case, said.effect) if said.effect and case is not None else None
    return NetworkFinding(
        _severity(rule),
        said.code,
        rule.because.render(values),
        verdict.columns,
        said.fix.render(values) if said.fix is not None else "",
        rule.notes,
        cast(FindingCategory, said.category),
        said.change.render(values) if said.change is not None else "",
        effect,
        rule.id,
    )
