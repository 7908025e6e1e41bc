"""Old names stay readable: in rule files, recommendation.yaml, facts.json, studies, models and on the command line."""

import json
import re
import shutil
from pathlib import Path

import optuna
import pytest
import yaml

import advisor
from advisor.cli.main import _run
from advisor.facts.schema import FACTS
from advisor.rules import shipped
from advisor.rules.book import load_rules
from advisor.search.trials import configuration_of
from advisor.spaces import aliases
from advisor.spaces.space import load_space

RULES = Path(shipped.folder("rules"))
OLD_RUN = Path(__file__).parents[1] / "fixtures" / "runs" / "0.1.0"
CODES = set(re.findall(r"code: ([\w-]+)", "".join(path.read_text() for path in RULES.glob("*.yaml"))))


def test_every_alias_leads_to_a_name_of_today_and_no_old_one_is_used():
    spaces = shipped.base_spaces().values()
    assert set(aliases.FACTS.values()) <= set(FACTS) and not set(aliases.FACTS) & set(FACTS)
    assert set(aliases.FINDINGS.values()) <= CODES and not set(aliases.FINDINGS) & CODES
    for parameter, words in aliases.VALUES.items():
        choices = {
            choice for space in spaces if parameter in space.parameters for choice in space[parameter].choices
        }
        assert set(words.values()) <= choices and not set(words) & choices


OLD_RULE = """\
format: 1
rules:
- id: told-in-old-words
  title: A rule of an earlier version
  topic: architecture
  applies_to: [table]
  strength: should
  limits: {ratio: 0.9}
  when: time.held_to_none < limits.ratio and rows > 10 and yours.class_balance != "balanced_head"
  then:
    default: {time_trend: held}
    choices: {class_balance: [none, balanced_head]}
    finding: {severity: info, code: new-levels, columns: '= columns.new_levels'}
  because: 'The ratio is {time.held_to_none:.2f}.'
  why: As it was.
  alternatives: [{value: open, why_not: 'No.'}]
  references: [{cite: 'A study', url: 'https://example.org', says: 'so'}]
  evidence: folklore
  examples:
    - {given: {time.held_to_none: 0.5, columns.new_levels: []}, expect: {time_trend: held, finding: new-levels}}
    - {given: {time.held_to_none: 0.95}, expect: does not fire}
    - {given: {time.held_to_none: null}, expect: cannot be judged}
    - {yours: {class_balance: balanced_head}, given: {time.held_to_none: 0.5}, expect: does not fire}
"""


def test_a_rule_file_with_old_names_loads_and_its_examples_pass(tmp_path, capsys):
    (tmp_path / "old.yaml").write_text(OLD_RULE)
    (rule,) = load_rules([tmp_path], FACTS, shipped.base_spaces(), kind="table")
    assert rule.when.names.keys() >= {"time.clamped_error_ratio"}
    assert rule.because.render({"time.clamped_error_ratio": 0.5}) == "The ratio is 0.50."
    assert rule.finding.code == "unseen-categories"
    assert _run(["rules", "check", str(tmp_path)]) == 0
    assert _run(["rules", "test", str(tmp_path)]) == 0, capsys.readouterr()


def test_an_error_still_names_its_line(tmp_path, capsys):
    (tmp_path / "old.yaml").write_text(OLD_RULE.replace("time_trend: held}\n", "time_trend: hold}\n", 1))
    assert _run(["rules", "check", str(tmp_path)]) == 3
    assert "old.yaml:11: then.default.time_trend" in capsys.readouterr().out


def old_words(run):
    """The run as an earlier version would have written it: each name of today replaced by its old one."""
    facts = json.loads((run / "facts.json").read_text())
    back = {new: old for old, new in aliases.FACTS.items()}
    for part in ("values", "sampled"):
        facts[part] = {back.get(name, name): value for name, value in facts[part].items()}
    (run / "facts.json").write_text(json.dumps(facts))
    text = (run / "recommendation.yaml").read_text()
    for old, new in [*aliases.FACTS.items(), *aliases.FINDINGS.items()]:
        text = re.sub(rf"(?<![\w.-]){re.escape(new)}(?![\w.-])", old, text)
    for words in aliases.VALUES.values():
        for old, new in words.items():
            text = re.sub(rf"\b{new}\b", old, text)
    (run / "recommendation.yaml").write_text(text)
    return text


def test_a_run_with_old_names_opens_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{'abc'[i % 3]},{i % 7},{i % 5},{'n' if i % 9 else 'p'}\n" for i in range(90))
    (tmp_path / "d.csv").write_text("c,a,b,y\n" + rows)
    fixed = ["--fixed", "class_balance=balanced_head", "--fixed", "decision=balanced"]
    assert _run(["recommend", "d.csv", "--target", "y", "--out", "new", *fixed]) == 0
    new = yaml.safe_load((tmp_path / "new" / "recommendation.yaml").read_text())
    assert new["configuration"]["class_balance"] == "classifier_retraining"
    assert new["configuration"]["decision"] == "prior_corrected"
    shutil.copytree("new", "old")
    text = old_words(tmp_path / "old")
    assert "classifier_retraining" not in text and "balanced_head" in text
    capsys.readouterr()
    assert _run(["diff", "new", "old", "--json"]) == 0
    difference = json.loads(capsys.readouterr().out)
    assert difference == {"parameters": [], "findings": {"added": [], "removed": []}} or not any(
        difference["findings"].values()
    )
    assert difference["parameters"] == []
    assert _run(["why", "old", "class_balance"]) == 0
    assert _run(["what-if", "old", "--set", "groups.things=5", "--set", "rows=5000"]) == 0


@pytest.mark.slow
def test_the_run_of_the_first_version_opens_in_words_of_today(tmp_path):
    shutil.copytree(OLD_RUN, tmp_path / "run")
    text = (tmp_path / "run" / "recommendation.yaml").read_text()
    assert "balanced_head" in text and "period-columns" not in text
    from advisor.runs.advice import read_run

    kept = read_run(tmp_path / "run")
    assert not set(aliases.FACTS) & set(kept.facts.values)
    assert "columns.separating" in kept.facts.values
    assert not kept.recommendation.edited
    assert "classifier_retraining" in str(
        kept.recommendation.to_dict()["provenance"]["class_balance"]["base"]
    )
    assert advisor.load_model(tmp_path / "run") is not None


def test_a_study_keeps_the_first_words_and_is_read_in_those_of_today(tmp_path):
    space = load_space(
        Path(shipped.folder("search_spaces")) / "tables.yaml",
        Path(shipped.folder("search_spaces")) / "training.yaml",
    )
    study = optuna.create_study()
    wanted = space.complete({"class_balance": "classifier_retraining", "time_trend": "clamped"})
    wanted = space.nearest(wanted | {"class_balance": "classifier_retraining", "time_trend": "clamped"})
    study.enqueue_trial(space.encode(wanted))
    trial = study.ask()
    assert space.suggest(trial) == wanted
    assert (trial.params["class_balance"], trial.params["time_trend"]) == ("balanced_head", "held")
    assert configuration_of(study.trials[0], space) == wanted


def test_an_old_rule_id_still_leaves_out_the_rule():
    everything = {rule.id for rule in shipped.rule_book(kind=None)}
    assert set(aliases.RULES.values()) <= everything and not set(aliases.RULES) & everything
    left = {
        rule.id for rule in shipped.rule_book(without=["many-levels", "time-held-at-the-latest"], kind=None)
    }
    assert everything - left == {"high-cardinality", "time-clamped"}


def test_keys_of_the_user_are_left_alone():
    assert aliases.key_at(("data", "types"), "groups.apart") == "groups.apart"
    assert aliases.text_at(("data", "target"), "new-levels") == "new-levels"
