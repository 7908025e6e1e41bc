"""Your own network on the command line: how it is trained is judged, and repaired."""

import json

import pytest

NETS = """
import torch
from torch import nn


def right():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3))


def twice():
    return nn.Sequential(*right(), nn.Softmax(dim=1))


def row():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 1), nn.Flatten(0))


def made(module):
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
"""
RULE = """
format: 1
rules:
- id: adam-for-us
  title: Our networks are trained with Adam
  topic: training_code
  applies_to: [module]
  strength: may
  when: optimizer.name != "Adam"
  then:
    finding: {severity: error, code: not-adam, category: optimizer, fix: take Adam}
  because: 'The optimizer is {optimizer.name}.'
  why: It is what we know.
  references:
    - {cite: Somebody, url: 'https://example.org/x', says: it is so}
  evidence: folklore
  examples:
    - {given: {optimizer.name: SGD}, expect: {finding: not-adam}}
    - {given: {optimizer.name: Adam}, expect: does not fire}
"""
IRIS = ["sklearn:iris", "--target", "target"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    from advisor.cli.main import main

    (tmp_path / "own_training_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    def called(*arguments):
        try:
            code = main(list(arguments)) or 0
        except SystemExit as ended:
            code = ended.code or 0
        return code, capsys.readouterr()

    return called


def of(name):
    return ["--module", f"own_training_nets:{name}"]


def test_check_takes_the_training(run):
    training = ["--loss", "cross-entropy", "--optimizer", "adam", "--learning-rate", "0.01", "--epochs", "40", "--json"]
    code, said = run("check", *IRIS, *of("right"), *training)
    assert code == 0 and {f["severity"] for f in json.loads(said.out)["findings"]} <= {"note"}
    code, said = run("check", *IRIS, *of("twice"), *training)
    assert code == 3 and "softmax-before-cross-entropy" in said.out


def test_a_number_per_row_without_a_column_gets_targets_without_one(run):
    training = ["--loss", "huber", "--optimizer", "adam"]
    code, said = run("check", "sklearn:diabetes", "--target", "target", *of("row"), *training)
    assert code == 0 and "error" not in said.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--loss", "cross-entrpy"], "did you mean 'cross-entropy'?"),
        (["--optimizer", "adm"], "did you mean 'adam'?"),
        (["--learning-rate", "0.1"], "--learning-rate needs --optimizer"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--loss", "own_training_nets:nothing"], "has no 'nothing'"),
    ],
)
def test_what_is_no_training_is_one_clear_line(run, options, told):
    code, said = run("check", *IRIS, *of("right"), *options)
    assert code == 2 and told in said.err and "Traceback" not in said.err
    code, said = run("check", "--input-shape", "4", *of("right"), "--loss", "mse")
    assert code == 2 and "--loss needs targets" in said.err


def test_a_team_adds_its_own_rules_and_leaves_others_out(run, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "adam.yaml").write_text(RULE)
    training = ["--loss", "cross-entropy", "--optimizer", "sgd", "--learning-rate", "0.05"]
    code, said = run("check", *IRIS, *of("right"), *training, "--rules", "ours")
    assert code == 3 and "error: not-adam\n  The optimizer is SGD." in said.out
    assert "rule: adam-for-us (advisor rules show adam-for-us)" in said.out
    code, said = run("check", *IRIS, *of("right"), *training, "--rules", "ours", "--without", "adam-for-us")
    assert code == 0 and "not-adam" not in said.out
    (tmp_path / "ours" / "adam.yaml").write_text(RULE.replace("optimizer.name", "optimiser.name"))
    code, said = run("check", "--input-shape", "4", *of("right"), "--rules", "ours")
    assert code == 2 and "did you mean 'optimizer.name'?" in said.err


def test_the_facts_of_training_code_are_listed(run):
    code, said = run("rules", "facts", "--module")
    assert code == 0 and "inputs.mean_max" in said.out and "shift.auc" not in said.out


def test_repair_shows_what_each_change_brought(run):
    training = ["--loss", "cross-entropy", "--optimizer", "own_training_nets:made", "--epochs", "3"]
    code, said = run("repair", *IRIS, *of("twice"), *training, "--json")
    found = json.loads(said.out)
    assert code == 3 and "remove the last activation (3)" in found["changes"]
    assert 2 <= len(found["tried"]) <= 5 and found["tried"][0]["changes"] == []
    code, said = run("repair", *IRIS, *of("right"))
    assert code == 2 and "repair needs --loss and --optimizer" in said.err
