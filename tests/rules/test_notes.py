"""docs/notes.md: every note is there, and what it links to exists and acts on it."""

import re
from pathlib import Path

import pytest

from advisor import checks
from advisor.rules import shipped

PAGE = (Path(__file__).parents[2] / "docs" / "notes.md").read_text()
SECTIONS = dict(re.findall(r"^### (N\d+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
SOURCES = "".join(path.read_text() for path in Path(str(checks.__file__)).parent.rglob("*.py"))


def test_every_note_is_quoted_once():
    assert list(SECTIONS) == [f"N{number}" for number in range(1, 34)]
    assert all(text.lstrip().startswith("> ") for text in SECTIONS.values())


@pytest.mark.parametrize("note", SECTIONS)
def test_what_a_note_links_to_acts_on_it(note):
    text = SECTIONS[note]
    book = {rule.id: rule for rule in shipped.rule_book(kind=None)}
    linked = re.findall(r"\[([^\]]+)\]\(rules/([^)]+)\.md\)", text)
    listed = re.search(r"Checks: ([^.]*)\.", text)
    checks = re.findall(r"`([a-z-]+)`", listed[1]) if listed else []
    for name, page in linked:
        assert name == page and note in book[name].notes, name
    for check in checks:
        assert f'"{check}"' in SOURCES, check
    assert linked or checks
    assert {name for name, _ in linked} == {rule.id for rule in book.values() if note in rule.notes}
