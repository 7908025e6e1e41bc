"""One word, one meaning: no public class or function has the name of another one in a second module. Folders and
files are small enough to be read."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import advisor

PACKAGE = Path(advisor.__file__).parent
VERBS = "cli"
"""The command line's functions are its commands: they have the names of the verbs that they call."""


def test_a_public_name_stands_in_one_module():
    homes = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE)
        if module.parts[0] == VERBS:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].append(str(module))
    twice = {name: modules for name, modules in homes.items() if len(modules) > 1 and name != "main"}
    assert not twice


def test_every_folder_says_what_it_knows_and_what_it_must_never_know():
    for folder in {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert "Knows" in docstring and ("ever know" in docstring or "may know it" in docstring), folder
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= 12, folder


def test_a_file_has_at_most_600_lines():
    """A longer one knows several things: split it by what its parts know."""
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")
    }
    assert not {name: count for name, count in lines.items() if count > 600}


PRIVATE = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\blearnt\b": "learned",
    r"\b(over|under)-fit": "overfit, underfit",
    r"\b(a|the) person('s)? (own|who|has|names|gives|fixed|set)\b": "user",
    r"\bfor ever\b": "forever",
    r"\bof whose\b": "a sentence of its own",
    r"\bmade[- ]up (rows|images|series|samples)\b": "synthetic",
    r"\bhead (once more|again)\b": "re-train the classifier (cRT)",
    r"\b(goes|go) on with (it|that|them)\b": "resume",
    r"\bgive the same command\b": "run the same command",
    r"\b(nothing|what) speaks against\b": "the checks found no problem",
    r"\b(is|are) waited for\b": "wait for",
    r"\bthings of several rows\b": "entities",
    r"\bheld to none\b": "clamped",
    r"\bin their places\b": "at fixed positions",
    r"\b(set|put) aside\b": "quarantined, discarded",
    r"\bsqueezed target\b": "logarithm of the target",
    r"\bno contender\b": "challenger, finalist",
    r"\btake (a|fewer) (larger|smaller|stages)\b": "use",
    r"\b(is|are) no (numbers?|folder|lists?|probabilities|URL)\b": "is not a ...",
    r"\bcan be meant\b": "is possible",
    r"\bnobody (asks|looks)\b": "a subject",
}
"""Private words and their replacement: they must not return to texts that a user can see."""

ROOT = PACKAGE.parent
QUOTED = ("style.md", "glossary.md", "changelog.md")
"""Pages that name old words on purpose."""


def visible_texts():
    """Where -> text: pages, rules, search spaces, report templates, and the sentences in the code."""
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*")):
        if path.name not in QUOTED and path.suffix in (".md", ".ipynb"):
            lines = path.read_text().splitlines()
            yield path.name, " ".join(line for line in lines if not line.startswith(">"))
    for folder in ("rules", "search_spaces"):
        for path in (ROOT / folder).glob("*.yaml"):
            yield path.name, " ".join(path.read_text().split())
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".html", ".md"):
            yield path.name, " ".join(path.read_text().split())
        elif path.suffix == ".py":
            shown = VERBS in path.parts  # a command's docstring is its help
            found = sentences(ast.parse(path.read_text()), docstrings=shown)
            yield from ((f"{path.name}:{line}", text) for line, text in found)


def sentences(tree, docstrings):
    """Line and text of each string of three words or more; docstrings and comments of constants only if asked."""
    silent = set() if docstrings else {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    } - {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
    for node in ast.walk(tree):
        if id(node) in silent or id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            text = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(text.split()) > 2:
            yield node.lineno, text


def test_private_words_do_not_return_to_texts_that_a_user_can_see():
    found = [
        f"{where}: {match[0]} ({better})"
        for where, text in visible_texts()
        for pattern, better in PRIVATE.items()
        for match in re.finditer(pattern, text)
    ]
    assert not found
