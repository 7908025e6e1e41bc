"""One word, one meaning: no public class or function has the name of another one in a second module. Folders and
files are small enough to be read."""

import ast
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
