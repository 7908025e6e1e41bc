"""docs/compare.md: 40 rows, ours never empty and each of its commands real, theirs with a page or the words that none was found."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

import advisor
from advisor.cli.main import cli
from advisor.runs.model import Model
from advisor.workflows.python.advised import AdvisedRecommendation
from advisor.workflows.python.run_result import RunResult

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "compare.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| \d+ \|", line)
]
OBJECTS = {"rec": AdvisedRecommendation, "run": RunResult, "model": Model}
"""What the names of the page's Python stand for."""


def command_of(row):
    [command] = re.findall(r"`([^`]+)`", row[2])
    return command


def test_there_are_forty_rows_and_every_cell_says_something():
    assert [int(row[0]) for row in ROWS] == list(range(1, 41))
    assert all(len(row) == 8 and all(row) for row in ROWS)


def test_what_is_said_of_others_has_its_page():
    known = dict(re.findall(r"^\[([\w-]+)\]: (https://\S+)$", PAGE, re.MULTILINE))
    used = set()
    for row in ROWS:
        for cell in row[3:]:
            links = re.findall(r"\]\[([\w-]+)\]", cell)
            assert links or cell == "not documented", row
            used |= set(links)
    assert used == set(known)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_each_of_our_commands_is_real(row):
    command = command_of(row)
    first, *rest = shlex.split(command) if command.startswith(("advisor ", "pytest ")) else (command,)
    if first == "advisor":
        parses(rest)
    elif first == "pytest":
        assert (ROOT / rest[0]).is_file()
    else:
        exists(ast.parse(command).body[0])


def parses(arguments):
    """The command has these options, and they take these values."""
    context = click.Context(cli)
    _, command, rest = cli.resolve_command(context, arguments)
    own = click.Context(command, parent=context)
    values, _, _ = command.make_parser(own).parse_args(list(rest))
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice) and values.get(parameter.name) is not None:
            parameter.type.convert(values[parameter.name], parameter, own)


def exists(statement):
    """What is imported or called is there, and takes these arguments."""
    if isinstance(statement, ast.ImportFrom):
        module = __import__(statement.module, fromlist=[name.name for name in statement.names])
        assert all(hasattr(module, name.name) for name in statement.names)
        return
    call = next(node for node in ast.walk(statement) if isinstance(node, ast.Call))
    if isinstance(call.func, ast.Name):  # of scikit-learn, with an estimator of ours
        assert "AdvisorClassifier()" in ast.unparse(statement)
        return
    owner, name = call.func.value.id, call.func.attr
    function = getattr(advisor if owner == "advisor" else OBJECTS[owner], name)
    own = [] if owner == "advisor" else [None]
    inspect.signature(function).bind(
        *own, *call.args, **{keyword.arg: keyword.value for keyword in call.keywords}
    )
