"""Docs are short and lead somewhere: every link and every cited page exists."""

import re
from pathlib import Path

import pytest

from advisor.spaces import aliases

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "tutorials").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
MOST_LINES = {"README.md": 120, "style.md": 60}
MOST_WORDS = 25


def prose(path):
    """The page without its code."""
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


def anchor(title):
    """As GitHub and mkdocs make it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def anchors(page):
    return {anchor(title) for title in re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)}


def cells(page):
    for line in page.read_text().splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_pages_and_sections_that_exist(page):
    for target, section in LINK.findall(prose(page)):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target}"
        assert not section or path.suffix != ".md" or section in anchors(path), (
            f"{page.name}: {target}#{section}"
        )


def test_rules_cite_only_pages_that_exist():
    for file in sorted((ROOT / "rules").glob("*.yaml")):
        text = file.read_text()
        for target, section in re.findall(r"url: '(docs/[^'#]+)(?:#([^']+))?'", text):
            assert (ROOT / target).exists(), f"{file.name}: {target}"
            assert not section or section in anchors(ROOT / target), f"{file.name}: {target}#{section}"
        for cited in re.findall(r"cite: '([\w/.-]+\.md)", text):
            assert (ROOT / cited).exists(), f"{file.name}: {cited}"


@pytest.mark.parametrize("name", MOST_LINES)
def test_pages_for_newcomers_are_short(name):
    path = ROOT / name if name == "README.md" else DOCS / name
    assert len(path.read_text().splitlines()) <= MOST_LINES[name]


def test_a_bar_is_one_line_of_short_cells():
    rows = [row for row in cells(DOCS / "measurements.md") if row[0] != "bar"]
    assert len(rows) > 40
    for row in rows:
        assert len(row) == 4 and all(len(cell.split()) <= MOST_WORDS for cell in row), row


def test_the_glossary_has_a_sentence_and_a_place_for_each_word():
    rows = [row for row in cells(DOCS / "glossary.md") if row[0] != "word"]
    words = [row[0] for row in rows]
    assert len(words) >= 60 and len(set(words)) == len(words)
    for word, meaning, _, where in rows:
        assert meaning.endswith((".", "?")) and len(meaning.split()) <= MOST_WORDS and where, word
        for path in re.findall(r"`((?:advisor|rules|search_spaces)/[\w./]*)`", where):
            assert (ROOT / path).exists(), f"{word}: {path}"


def test_the_words_of_the_glossary_are_in_use():
    files = [path for folder in ("advisor", "rules", "search_spaces") for path in (ROOT / folder).rglob("*")]
    pages = [page for page in PAGES if page.name not in ("glossary.md", "style.md")]
    sources = [path for path in files if path.suffix in (".py", ".yaml", ".html", ".md")] + pages
    text = " ".join(re.sub(r"[\s_-]+", " ", path.read_text()) for path in sources).lower()
    words = [row[0] for row in cells(DOCS / "glossary.md") if row[0] != "word"]
    assert [word for word in words if word.replace("-", " ").lower() not in text] == []


def test_the_page_on_architecture_has_a_row_for_each_folder():
    folders = {str(path.parent.relative_to(ROOT / "advisor")) for path in (ROOT / "advisor").rglob(
        "__init__.py"
    )}
    table = (DOCS / "architecture.md").read_text().split("## The folders")[1].split("\n## ")[0]
    rows = set(re.findall(r"^\| `([\w/]+)` \|", table, re.MULTILINE))
    assert rows == folders - {"."} | {"advisor"}


def test_docs_use_no_name_that_has_become_an_alias():
    old = {*aliases.FACTS, *aliases.RULES, *aliases.FINDINGS}
    for page in PAGES:
        used = set(re.findall(r"`([\w.-]+)`", page.read_text())) & old
        assert not used, f"{page.name}: {used}"
