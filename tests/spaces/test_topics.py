"""Topics stand in one table: what parameters, rules, their documentation and a search in stages know of them."""

from pathlib import Path

from advisor.rules import shipped
from advisor.spaces.topics import RULE_TOPICS, STAGES, TOPICS

DOCS = Path(__file__).parents[2] / "docs"


def test_parameters_and_rules_have_topics_of_the_table():
    used = {
        parameter.topic for space in shipped.base_spaces().values() for parameter in space.parameters.values()
    }
    assert used <= set(TOPICS)
    assert {rule.topic for rule in shipped.rule_book(kind=None)} <= set(RULE_TOPICS)


def test_each_stage_looks_at_some_topics_and_no_topic_is_in_two():
    topics = [name for stage in STAGES for name in stage]
    assert all(STAGES) and len(topics) == len(set(topics)) and set(topics) <= set(TOPICS)


def test_the_page_on_rules_lists_all_topics():
    *others, last = RULE_TOPICS
    assert f"| **topic** | {', '.join(others)} or {last} |" in (DOCS / "rules.md").read_text()
