"""Every command has help, help for every option and two examples that parse; old names of options still work."""

import shlex
import subprocess
import sys

import click
import pytest

from advisor.cli.main import _run, cli


def walk(command, path=()):
    """All commands below, with the words that name them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))


COMMANDS = dict(walk(cli))
EXAMPLES = [
    line.strip()
    for path, command in COMMANDS.items()
    for line in (command.epilog or "").splitlines()
    if path and line.startswith("  advisor")
]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_has_help_for_itself_and_each_option_and_two_examples(path):
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, (path, parameter.name)
    if path:
        lines = [line.strip() for line in command.epilog.splitlines()[2:]]
        assert len(lines) == 2
        assert all(line.startswith(" ".join(["advisor", *path])) for line in lines)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_parses(line, tmp_path, monkeypatch):
    """The parser takes its options and values; nothing is run."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.partition(" > ")[0])[1:]
    command, context = cli, click.Context(cli, resilient_parsing=True)
    while isinstance(command, click.Group) and words:
        command, words = command.get_command(context, words[0]), words[1:]
    with click.Context(command, resilient_parsing=True) as context:
        _, rest, _ = command.make_parser(context).parse_args(args=list(words))
    assert rest == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recomend", "d.csv"], "there is no command 'recomend' (did you mean 'recommend'?)"),
        (["tune", "d.csv", "--strategy", "stagd"], "(did you mean 'staged'?)"),
        (["recommend", "d.csv", "--task", "regresion"], "(did you mean 'regression'?)"),
        (["recommend", "d.csv", "--kind", "imgae"], "(did you mean 'image'?)"),
        (["report", "runs/a", "--format", "htm"], "(did you mean 'html'?)"),
        (["train", "d.csv", "--fixed", "epochs"], "--fixed epochs: write NAME=VALUE"),
    ],
)
def test_a_misspelt_word_is_refused_before_anything_runs(words, says, capsys):
    assert _run(words) == 2
    assert says in capsys.readouterr().err


def test_an_old_option_still_works_with_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(f"{i % 7},{'pn'[i % 2]}\n" for i in range(60)))
    old = ["recommend", "d.csv", "--target", "y", "--set", "epochs=5", "--fixed", "batch_size=16"]
    assert _run([*old, "--out", "r"]) == 0
    assert "note: --set PARAMETER=VALUE is now called --fixed, as in Python" in capsys.readouterr().err
    written = (tmp_path / "r" / "recommendation.yaml").read_text()
    assert "epochs: 5\n" in written and "batch_size: 16\n" in written


def test_help_imports_nothing_heavy():
    """Start-up is what every command pays."""
    program = (
        "import sys; from advisor.cli.main import _run; _run(['--help']);"
        "print([m for m in ('numpy', 'polars', 'torch', 'optuna', 'ray', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
