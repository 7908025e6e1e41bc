"""A search in stages (N24): what each stage asks for, what the rest keeps, and
that it is a search like any other."""

import json
from pathlib import Path

import numpy as np
import optuna
import pytest

from advisor.cli.main import _run
from advisor.rules import shipped
from advisor.rules.recommendation import advise
from advisor.search.storage.journal import PLACE
from advisor.search.study_space import StudySpace
from advisor.spaces.topics import STAGES

REC = advise(shipped.typical_facts(), shipped.rule_book(), shipped.base_space())
STAGED = StudySpace(REC.space, trials=42, enqueued=2, staged=True, adapt=False)


def asked_after(ended, values=None):
    """The parameters that a trial is asked for once this many have ended, its
    configuration, and the best one's."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=ended))
    for place in range(ended):
        trial = study.ask()
        trial.set_user_attr(PLACE, place)
        REC.space.suggest(trial)
        study.tell(trial, float(abs(place - 3)))
    best = REC.space.suggest(optuna.trial.FixedTrial(study.best_params)) if ended else {}
    trial = study.ask()
    configuration = STAGED.suggest(trial)
    return {name.removesuffix(".on") for name in trial.params}, configuration, best, trial


def test_the_stages_follow_the_order_of_work():
    topics = [STAGED.topics(ended) for ended in range(42)]
    assert topics[:2] == [None, None]
    assert list(dict.fromkeys(topics[2:])) == [*STAGES, None]
    assert all(topics[2:].count(stage) == 10 for stage in [*STAGES, None])


@pytest.mark.parametrize(("ended", "stage"), [(5, 0), (15, 1), (25, 2)])
def test_a_stage_asks_for_its_topics_and_keeps_the_rest_of_the_best(ended, stage):
    asked, configuration, best, trial = asked_after(ended)
    assert asked and all(REC.space[name].topic in STAGES[stage] for name in asked)
    for name, value in configuration.items():
        if (
            REC.space[name].topic not in STAGES[stage]
            and REC.space[name].when is None
            and name not in REC.space.derivations
        ):
            assert value == best[name], name
    assert trial.user_attrs["configuration"] == configuration
    REC.space.validate(configuration)


def test_the_last_stage_asks_for_everything():
    asked, _, _, trial = asked_after(40)
    assert len({REC.space[name].topic for name in asked}) > 3 and "configuration" not in trial.user_attrs


def test_a_staged_search_runs_resumes_and_is_not_mixed_with_another(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    a = draw.normal(size=80)
    rows = [f"{x:.3f},{draw.normal():.3f},{int(x > 0)}" for x in a]
    Path("d.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    fast = "--fixed epochs=2 --fixed validation=holdout --executor in-process --quiet"
    command = f"tune d.csv --target y --out run --trials 8 --strategy staged {fast}".split()
    assert _run(command) == 0
    trials = json.loads(Path("run/result.json").read_text())["search"]["trials"]
    assert len(trials) == 8
    learnt = trials[2]["configuration"]
    assert learnt["width"] in {t["configuration"]["width"] for t in trials[:2]}
    assert _run(command) == 0
    capfd.readouterr()
    assert _run([*command[:-1], "--trials", "9", "--strategy", "joint"]) == 2
    assert "differs from what this run started with" in capfd.readouterr().err
    assert _run([*command, "--strategy", "stages"]) == 2
    assert "did you mean 'staged'" in capfd.readouterr().err
