"""The rule book: rules list, show, check, test, facts, coverage, docs, schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.options import examples, json_option, rules_option
from advisor.cli.output import columns, echo_json, fail_check
from advisor.console import echo, say
from advisor.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from advisor.rules.rule import Rule


@click.group(epilog=examples("advisor rules list --topic shift", "advisor rules check my_rules"))
def rules() -> None:
    """The rule book: list, show, check, test, facts, coverage, docs, schema."""


def _book(folders: Sequence[str]) -> Sequence[Rule]:
    from advisor.rules import shipped

    return shipped.rule_book(folders, kind=None)


@rules.command(
    "list",
    epilog=examples("advisor rules list", "advisor rules list --topic regularization --rules my_rules"),
)
@click.option("--topic", help="Only the rules of this topic.")
@rules_option
@json_option
def rules_list(topic: str | None, folders: Sequence[str], as_json: bool) -> None:
    """One line per rule: id, strength, evidence, title."""
    book = _book(folders)
    topics = sorted({rule.topic for rule in book})
    if topic and topic not in topics:
        raise UserError(
            f"no rule has the topic '{topic}'{did_you_mean(topic, topics)}; "
            f"the topics are {', '.join(topics)}"
        )
    chosen = [rule for rule in book if topic in (None, rule.topic)]
    if as_json:
        keys = ("id", "title", "topic", "strength", "evidence", "notes")
        echo_json([{key: getattr(rule, key) for key in keys} for rule in chosen])
    elif chosen:
        echo(*columns([(rule.id, rule.strength, rule.evidence, rule.title) for rule in chosen]))


@rules.command(
    "show",
    epilog=examples(
        "advisor rules show batch-norm-needs-16-rows", "advisor rules show my-rule --rules my_rules"
    ),
)
@click.argument("rule_id", metavar="RULE")
@rules_option
@json_option
def rules_show(rule_id: str, folders: Sequence[str], as_json: bool) -> None:
    """Everything a rule says: what, why, when, sources."""
    book = {rule.id: rule for rule in _book(folders)}
    if rule_id not in book:
        raise UserError(
            f"there is no rule '{rule_id}'{did_you_mean(rule_id, book)}: see `advisor rules list`"
        )
    rule = book[rule_id]
    when = "always" if rule.when is None else rule.when.text
    if as_json:
        keys = ("id", "title", "topic", "strength", "evidence", "notes", "why", "limits")
        references = [vars(reference) for reference in rule.references]
        simple = {key: getattr(rule, key) for key in keys}
        echo_json({**simple, "when": when, "because": rule.because.text, "references": references})
    else:
        echo(*_rule_in_words(rule, when))


def _rule_in_words(rule: Rule, when: str) -> list[str]:
    from advisor.report.wording import measured_words

    measured = f"; measured: {measured_words(rule.measured)}" if rule.measured else ""
    return [
        *(rule.title, "", rule.why, "", f"when      {when}"),
        *(f"limit     {name} = {value}" for name, value in rule.limits.items()),
        *_finding_in_words(rule),
        f"strength  {rule.strength}",
        f"evidence  {rule.evidence}{measured}",
        f"notes     {', '.join(rule.notes) or '-'}",
        *(f"not       {alternative.value}: {alternative.why_not}" for alternative in rule.alternatives),
        *(f"source    {reference.cite}: {reference.says}" for reference in rule.references),
    ]


def _finding_in_words(rule: Rule) -> list[str]:
    """What a rule about training code says to change."""
    said = rule.finding
    if said is None or said.fix is None:
        return []
    code = [f"code      {said.change.text}"] if said.change is not None else []
    return [f"finding   {said.severity}: {said.code} ({said.category})", f"fix       {said.fix.text}", *code]


@rules.command(
    "check", epilog=examples("advisor rules check my_rules", "advisor rules check my_rules/shift.yaml --json")
)
@click.argument("paths", nargs=-1, required=True)
@json_option
def rules_check(paths: Sequence[str], as_json: bool) -> None:
    """Check rule files. Each complaint is a line FILE:LINE: FIELD: what is wrong.

    Exit code 3 if there is one.
    """
    from advisor.rules import shipped

    checked = shipped.check_rule_folders(list(paths))
    if as_json:
        echo_json({"rules": len(checked.rules), "complaints": list(checked.complaints)})
    else:
        echo(*checked.complaints)
        say(f"{len(checked.rules)} rules are sound, {len(checked.complaints)} problems")
    if checked.complaints:
        fail_check()


@rules.command("test", epilog=examples("advisor rules test", "advisor rules test my_rules"))
@click.argument("paths", nargs=-1)
@json_option
def rules_test(paths: Sequence[str], as_json: bool) -> None:
    """Run the examples of the rules in PATHS, by default of the shipped rules.

    Exit code 3 if one fails.
    """
    from advisor.rules import shipped

    book, results = shipped.run_all_examples(list(paths))
    failed = [result for result in results if not result.passed]
    if as_json:
        echo_json({"examples": len(results), "failed": [vars(result) for result in failed]})
    else:
        for result in failed:
            echo(f"{result.rule}, example {result.number}: expected {result.expected}, got {result.got}")
        say(f"{len(results)} examples of {len(book)} rules, {len(failed)} failed")
    if failed:
        fail_check()


@rules.command("facts", epilog=examples("advisor rules facts", "advisor rules facts --module --json"))
@click.option("--module", is_flag=True, help="Of your own network and its training.")
@json_option
def rules_facts(module: bool, as_json: bool) -> None:
    """The facts that a rule's condition may use."""
    from advisor.facts.module_schema import MODULE_FACTS
    from advisor.facts.schema import FACTS

    facts = list((MODULE_FACTS if module else FACTS).values())
    if as_json:
        echo_json([vars(fact) for fact in facts])
        return
    meanings = (f"{fact.meaning}{f' ({fact.unit})' if fact.unit else ''}" for fact in facts)
    rows = [(fact.name, fact.type, meaning) for fact, meaning in zip(facts, meanings, strict=True)]
    echo(*columns(rows))


@rules.command(
    "coverage",
    epilog=examples("advisor rules coverage my_data_sets", "advisor rules coverage data.csv --target income"),
)
@click.argument("paths", nargs=-1, required=True)
@click.option("--target", metavar="COLUMN", help="The column to predict, where no meta.yaml names it.")
@rules_option
@json_option
def rules_coverage(paths: Sequence[str], target: str | None, folders: Sequence[str], as_json: bool) -> None:
    """Which rules fire on the data sets in PATHS, which never fire, and which fire
    everywhere without a reason.

    A data set is a folder with train.csv and meta.yaml (target: NAME), a folder of such
    folders, or a CSV or Parquet file with --target. Exit code 3 if a rule fires on all of at
    least 5 sets and has no `universal`.
    """
    from advisor.workflows.rule_coverage import cover

    result = cover(paths, target, folders)
    for line in result.failed:
        say(f"left out: {line}")
    if as_json:
        echo_json(result.to_dict())
    else:
        echo(*result.to_text().splitlines())
    if result.unexplained or result.problems:
        fail_check()


@rules.command(
    "docs", epilog=examples("advisor rules docs", "advisor rules docs --out my_pages --rules my_rules")
)
@click.option("--out", metavar="DIR", default="docs/rules", show_default=True, help="Folder of the pages.")
@rules_option
def rules_docs(out: str, folders: Sequence[str]) -> None:
    """Write a page for every rule, and an index; remove the pages of rules that no longer exist."""
    from advisor.rules import pages

    say(f"{pages.write_pages(_book(folders), Path(out))} pages are in {out}")


@rules.command("schema", epilog=examples("advisor rules schema", "advisor rules schema > rules.schema.json"))
def rules_schema() -> None:
    """The JSON Schema of a rule file, for editors."""
    from advisor.facts.schema import FACTS
    from advisor.rules import json_schema, shipped
    from advisor.rules.book import fact_names, own_names
    from advisor.spaces.space import union

    spaces = shipped.base_spaces()
    names: dict[str, Any] = {**fact_names(FACTS), **own_names(spaces)}
    click.echo(json_schema.to_json(union(spaces.values()), names), nl=False)
