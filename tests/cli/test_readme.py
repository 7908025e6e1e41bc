"""The README is true (L6): its commands run as they stand there, its Python too, and
the files that it names are made."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from advisor.cli.main import _run

README = Path(__file__).resolve().parents[2] / "README.md"
RUNS = README.parent / "docs" / "runs.md"
QUICK = ["--fixed", "epochs=2", "--fixed", "validation=holdout"]
ON_HAND = ("data.csv", "runs/data", "runs/a", "list")
"""What a command must speak of to be run; of the others, which name a user's own files, the help is asked
for after all their options, so that these exist."""
IN_SMALL = {
    "check": ["--seconds", "20"],
    "train": QUICK,
    "tune": [*QUICK, "--trials", "2", "--executor", "in-process"],
}
"""What is added to a command so that it ends in seconds; a later option overrides an earlier one."""


def blocks():
    """The fenced blocks as (language, text), in order."""
    parts = re.split(r"^```(\w*)\n", README.read_text(), flags=re.MULTILINE)
    return list(zip(parts[1::4], parts[2::4], strict=True))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the files that the README speaks of, and we in it."""
    draw = np.random.default_rng(0)
    age, hours = draw.normal(40, 10, 80), draw.normal(38, 8, 80)
    frame = pl.DataFrame({"age": age, "hours": hours, "income": np.where(age + hours > 78, "high", "low")})
    frame.write_csv(tmp_path / "data.csv")
    frame.drop("income").head(5).write_csv(tmp_path / "new_rows.csv")
    monkeypatch.chdir(tmp_path)
    return frame


@pytest.mark.slow
def test_every_command_of_the_readme_runs_and_makes_what_it_names(here, capfd):
    lines = [
        line.partition("#")[0] for language, text in blocks() if not language for line in text.splitlines()
    ]
    parts = [part.strip() for line in lines for part in line.split(";")]
    commands = [shlex.split(part)[1:] for part in parts if part.startswith("advisor ")]
    expected = {"recommend", "train", "tune", "check", "predict", "why", "what-if", "diff", "report", "rules"}
    assert expected <= {command[0] for command in commands}
    for command in commands:
        if not set(ON_HAND) & set(command) or "--objective" in command:
            assert _run([*command, "--help"]) == 0, command
            continue
        if command[0] == "diff":
            for name in command[1:]:
                shutil.copytree("runs/data", name)
        code = _run([*command, *IN_SMALL.get(command[0], [])])
        assert code == 0, (command, capfd.readouterr().err)
    assert pl.read_csv("predictions.csv").columns == ["prediction", "probability_high", "probability_low"]
    assert Path("report.md").read_text().startswith("# ")
    table = [line.split("|")[1] for line in RUNS.read_text().splitlines() if line.startswith("| `")]
    named = re.findall(r"`([\w./]+)`", "\n".join(table))
    assert {"facts.json", "recommendation.yaml", "model/", "result.json"} <= set(named)
    # winner/: of a search with --objective alone
    assert [name for name in named if not (Path("runs/data") / name).exists() and name != "winner/"] == []


@pytest.mark.slow
def test_the_python_of_the_readme_runs(here):
    program = next(text for language, text in blocks() if language == "python" and "import advisor" in text)
    small = 'trials=2, executor="in-process", fixed={"epochs": 2}'
    assert program.count("trials=40") == 1
    names = {
        "frame": here,
        "new_rows": here.drop("income").head(3),
        "train_my_way": lambda configuration: configuration["width"],
    }
    exec(compile(program.replace("trials=40", small), "README.md", "exec"), names)
    assert names["model"].predict(names["new_rows"]).shape == (3,)
    assert names["rec"].findings is not None
