"""Runs of every released format open for ever (R11); what a newer advisor made is refused by name (R12).

The folders in data/runs were made by data/runs/make_run.py, each by the version that it is named after.
"""

import json
import shutil
from pathlib import Path

import pytest

import advisor
from advisor.cli.main import _run
from advisor.runs.advice import read_facts
from advisor.runs.folder import RunFolder
from advisor.runs.model import _checksums
from advisor.search.storage.journal import FORMAT

RUNS = sorted(path for path in (Path(__file__).parents[1] / "fixtures" / "runs").iterdir() if path.is_dir())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def run(request, here):
    shutil.copytree(request.param, here / "run")
    return here / "run"


def without_readings(trials):
    """What a curve says in words is said anew by each advisor."""
    return [
        {name: value for name, value in trial.items() if name not in ("reading", "epochs", "seconds")}
        for trial in trials
    ]


def test_there_is_a_run_of_this_format():
    assert RUNS


def test_facts_that_an_old_run_lacks_say_that_it_used_none(run):
    facts = read_facts(RunFolder(run)).values
    assert not (facts["calendar.cycles"] or facts["calendar.found"] or facts["has_backbone"])



@pytest.mark.slow
def test_an_old_run_opens_and_is_gone_on_with(run, capfd):
    trials = json.loads((run / "result.json").read_text())["search"]["trials"]
    looking = (
        "status run",
        "why run",
        "why run learning_rate",
        "diff run run",
        "report run",
        "what-if run --set rows=5000",
    )
    for command in looking:
        assert _run(command.split()) == 0, capfd.readouterr().err
    assert advisor.load_model(run).predict_proba(
        advisor.data.tables.table.read_frame("sklearn:wine")
    ).shape == (178, 3)
    document = advisor.tune(run, trials=len(trials) + 1, executor="in-process").document
    assert without_readings(document["search"]["trials"][: len(trials)]) == without_readings(trials)
    assert len(document["search"]["trials"]) == len(trials) + 1


def newer(path):
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"format": 99, "advisor": "9.1"}))


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("facts.json", "status run"),
        ("facts.json", "tune run --executor in-process"),
        ("recommendation.yaml", "why run"),
        ("result.json", "report run"),
        ("search.json", "status run"),
        ("search.json", "tune run --executor in-process --trials 4"),
        ("model/model.json", "predict run sklearn:wine"),
    ],
)
def test_what_a_newer_advisor_made_is_refused_by_name(file, command, here, capfd):
    shutil.copytree(RUNS[-1], here / "run")
    path = here / "run" / file
    if path.suffix == ".yaml":
        text = path.read_text()
        made = f"advisor: {json.loads((here / 'run' / 'facts.json').read_text())['advisor']}\n"
        assert made in text and "format: 1\n" in text
        path.write_text(text.replace("format: 1\n", "format: 99\n").replace(made, "advisor: '9.1'\n"))
    else:
        newer(path)
    if path.name == "model.json":
        files = {name: (path.parent / name).read_bytes() for name in ("model.json", "weights.safetensors")}
        (path.parent / "checksums.json").write_bytes(_checksums(files))
    before = {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file() and p.name != "lock"}
    assert _run(command.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"was made by advisor 9.1 (format 99), this is {advisor.__version__}, which reads up to" in err
    assert {p: p.read_bytes() for p in before} == before


def test_a_newer_study_is_refused_by_name(here, capfd):
    """The number stands in the study, whose file has a checksum in every line."""
    shutil.copytree(RUNS[-1], here / "run")
    from advisor.search.storage.journal import Journal

    journal = Journal.open(here / "run" / "study.journal")
    journal.study.set_user_attr("advisor_format", FORMAT + 98)
    journal.study.set_user_attr("advisor", "9.1")
    journal.close()
    assert _run(["tune", "run", "--executor", "in-process", "--trials", "5"]) == 2
    assert "the study was made by advisor 9.1 (format 99)" in capfd.readouterr().err
