"""The rules of the house: what a task or a modality is stands in its table, and nowhere else is it asked for."""

import ast
from pathlib import Path

import advisor
from advisor.kinds import KINDS, TASK_NAMES

PACKAGE = Path(advisor.__file__).parent
NAMES = {*KINDS, *TASK_NAMES}
OF_ONE_MODALITY = {"Features", "Signals", "Table", "SignalSet", "TableSchema", "SignalSchema", "InputShape"}
OF_ONE_MODALITY |= {"SignalShape", "TableInputs", "SignalInputs", "TableNetwork", "SignalNetwork"}


def asked_for(tree):
    """(line, what) of each comparison with the name of a task or a modality, and of each isinstance of a class
    that one modality has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.MatchValue):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            yield from ((node.lineno, text) for text in texts if isinstance(text, str) and text in NAMES)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            classes = [part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)]
            yield from ((node.lineno, name) for name in classes if name in OF_ONE_MODALITY)


def test_tasks_and_modalities_are_looked_up_and_not_asked_for():
    """Use the object of tasks.py, or a row of one of the three modalities.py."""
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, what in asked_for(ast.parse(path.read_text()))
    ]
    assert not found


def test_what_is_asked_for_is_found():
    program = 'if task == "regression" or kind in ("table", "image") or isinstance(x, Signals | Other): pass'
    found = {what for _, what in asked_for(ast.parse(program))}
    assert found == {"regression", "table", "image", "Signals"}


def test_templates_ask_the_task():
    for path in (PACKAGE / "report" / "templates").iterdir():
        assert not [name for name in TASK_NAMES if f'"{name}"' in path.read_text()], path
