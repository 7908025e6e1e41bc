"""`--objective`: a user's own training code under the search, pruned, resumed,
confirmed and reported like ours."""

import functools
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import advisor
from advisor.cli.main import _run
from advisor.data.options import ReadingOptions
from advisor.data.signals.signals import load_signals
from advisor.data.tables.table import load_table
from advisor.dataset import Dataset, Signals
from advisor.errors import UserError
from advisor.executors.base import Cancelled, Failed, Finished, InProcessExecutor, Job, Reported
from advisor.files import read_json
from advisor.objectives.custom import find
from advisor.objectives.custom_final import judge_results
from advisor.objectives.final_jobs import Trained
from advisor.objectives.trial import (
    ArrayRows,
    Configuration,
    ObjectiveData,
    ObjectiveResult,
    OwnTraining,
    import_objective,
)
from advisor.report.verdict import verdict
from advisor.workflows.recommend import get_advice

EXAMPLES = Path(__file__).parents[2] / "examples"
PLAN = {"epochs": 3, "validation": "holdout"}


def table(rows=80, seed=0, regression=False):
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, rows))
    answer = 10 + 3 * a - b if regression else np.where(a - b > 0, "yes", "no")
    frame = pl.DataFrame({"a": a, "b": b, "c": draw.choice(["u", "v"], rows), "y": answer})
    return frame.with_columns(
        pl.when(pl.int_range(rows) % 9 == 2).then(None).otherwise(pl.col("a")).alias("a")
    )


def objective(trial):
    """Logistic regression by gradient steps; everything an objective may do."""
    x, y = trial.inputs(trial.train), trial.targets(trial.train)
    weights = np.zeros(x.shape[1])
    rate = trial.configuration["learning_rate"]

    def scores(rows):
        p = 1 / (1 + np.exp(-trial.inputs(rows) @ weights))
        return np.column_stack([1 - p, p])

    for epoch in range(1, trial.configuration["epochs"] + 1):
        p = 1 / (1 + np.exp(-x @ weights))
        weights -= 100 * rate * x.T @ (p - y) / len(y)
        loss = log_loss(scores(trial.validation), trial.targets(trial.validation))
        trial.report(epoch, loss)
    (trial.folder / "weights.txt").write_text(repr(weights.tolist()))
    return advisor.TrialResult(loss, scores(trial.validation), scores)


def log_loss(scores, answers):
    return float(-np.log(np.clip(scores[np.arange(len(answers)), answers], 1e-12, 1)).mean())


def loss_only(trial):
    return abs(math.log10(trial.configuration["learning_rate"]) + 2.5) + 0.01 * (trial.seed % 7)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(function, job_payload=None, frame=None, **shared):
    """The worker's side alone: an executor over the objective, on a table of 80 rows."""
    read = load_table(table() if frame is None else frame, "y")
    everything = ObjectiveData(
        function, None, read.dataset("train"), read.train, read.schema, read.test.drop("y"), 0, "checkpoints"
    )
    return InProcessExecutor(OwnTraining, replace(everything, **shared)), read


def looked_at(function, x, y):
    """An objective on arrays of images or sequences, one trial; its result."""
    read = load_signals(
        {"x": x, "y": y}, None, ReadingOptions(kind="image" if x.dtype == np.uint8 else "sequence")
    )
    test = ArrayRows(read.test.features, np.arange(len(read.test)))
    shared = ObjectiveData(function, None, read.train, None, read.schema, test, 0, "checkpoints")
    last = events(InProcessExecutor(OwnTraining, shared), job(keep=True, scaling="channel"))[-1]
    assert isinstance(last, Finished), last
    return last.result


def job(keep=False, **configuration):
    plan = {
        "validation": "kfold",
        "folds": 4,
        "validation_fraction": 0.2,
        "numeric_scaling": "standard",
        "epochs": 3,
    }
    return Job(
        "one",
        {"configuration": {**plan, **configuration}, "seed": 5, "repeat": 0, "members": 1, "keep": keep},
    )


def events(executor, work, cancel_after=None):
    executor.submit(work)
    seen = []
    while not seen or isinstance(seen[-1], Reported):
        seen += executor.poll(1)
        if len(seen) == cancel_after:
            executor.cancel("one")
    return seen


# ------------------------------------------------------------------------------------------------- one trial


def test_the_splits_advance_together_and_their_mean_is_reported(here):
    order = []

    def steps(trial):
        split = int(trial.folder.name.removeprefix("split-"))
        for epoch in range(1, 4 if split else 3):  # the first one ends an epoch earlier
            order.append((epoch, split))
            trial.report(epoch, 10 * epoch + split)
        return 7.0 + split

    executor, _ = trained(steps)
    _, *reports, end = events(executor, job())
    assert order[:4] == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert [(r.epoch, r.loss) for r in reports] == [(1, 11.5), (2, 21.5), (3, (7 + 31 + 32 + 33) / 4)]
    assert isinstance(end, Finished)
    assert (end.result.loss, end.result.losses) == (8.5, (7.0, 8.0, 9.0, 10.0))


def test_every_row_is_held_out_once_and_never_trained_on(here):
    seen = []

    def look(trial):
        seen.append((trial.train, trial.validation))
        return 1.0

    executor, read = trained(look)
    *_, end = events(executor, job())
    assert sorted(end.result.rows) == list(range(read.train.height))
    for train, validation in seen:
        assert train.height + validation.height == read.train.height
        assert not set(train["b"]) & set(validation["b"])


def test_nothing_of_a_validation_row_enters_the_inputs(here):
    """D4 for `trial.inputs`: a wild value in a row that validates changes no training input."""
    inputs = []

    def look(trial):
        if trial.folder.name == "split-0":
            inputs.append((trial._rows, trial.inputs(trial.train)))
        return 1.0

    executor, read = trained(look)
    events(executor, job())
    (rows, before), wild = inputs[0], read.train["b"].to_numpy().copy()
    wild[rows[1]] = 1e9
    changed = read.dataset("train").features
    changed.numeric[:, changed.numeric_names.index("b")] = wild
    executor, _ = trained(
        look, data=Dataset(changed, read.dataset("train").target, "binary", read.schema.classes)
    )
    events(executor, job())
    assert np.array_equal(inputs[1][1], before)


def test_inputs_have_no_gaps_and_answers_are_codes(here):
    found = {}

    def look(trial):
        found["x"], found["y"] = trial.inputs(trial.validation), trial.targets(trial.validation)
        return 1.0

    executor, _ = trained(look)
    events(executor, job())
    assert found["x"].dtype == np.float32 and np.isfinite(found["x"]).all()
    assert found["x"].shape == (len(found["y"]), 2 + 1 + 3)  # a, b; is a missing; is c missing, u, v
    assert set(found["y"]) == {0, 1}


def sequences(rows=60, seed=0):
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(rows, 2, 12)).astype(np.float32), np.arange(rows) % 2
    x[:, 0] += 3 * y[:, None]
    x[::4, :, 9:] = np.nan  # shorter ones
    x[1::4, 1, 4] = np.nan  # a gap
    return x, y


def test_of_images_and_sequences_it_gets_scaled_rows_and_their_answers(here):
    def look(trial):
        rows, inputs = trial.train, trial.inputs(trial.train)
        assert inputs.dtype == np.float32 and np.isfinite(inputs).all()
        assert inputs.shape == (len(rows), *shape)
        assert np.array_equal(trial.inputs(rows[3:7]), inputs[3:7])
        assert np.array_equal(trial.inputs(rows[np.array([5, 2])]), inputs[[5, 2]])
        assert rows.values.shape[0] == len(rows) and rows[:2].values.dtype == kind
        assert np.array_equal(trial.targets(rows), rows.target)
        with pytest.warns(FutureWarning, match=r"trial\.answers is now trial\.targets"):
            assert np.array_equal(trial.answers(rows), rows.target)
        assert np.abs(inputs[:, 0].mean()) < 1e-3, "scaled by the training rows"
        codes = trial.targets(trial.validation)
        scores = np.eye(2)[codes] * 0.8 + 0.1

        def predict(new):
            with pytest.raises(ValueError, match="no target"):
                _ = new.target
            assert trial.inputs(new).shape == (len(new), *shape)
            return np.full((len(new), 2), 0.5)

        return advisor.TrialResult(0.1, scores, predict)

    x, y = sequences()
    shape, kind = (3, 12), np.float32  # a channel more: where there are points
    result = looked_at(look, x, y)
    assert result.scores.shape == (48, 2) and result.test.shape == (12, 2)
    assert set(result.read) == {"scaling"}
    draw = np.random.default_rng(1)
    shape, kind = (3, 6, 5), np.uint8
    looked_at(look, draw.integers(0, 255, (60, 6, 5, 3)).astype(np.uint8), y)


def test_nothing_of_a_validating_sequence_enters_the_inputs(here):
    seen = []

    def look(trial):
        seen.append((trial._rows[1], trial.inputs(trial.train)))
        return 1.0

    x, y = sequences()
    read = load_signals({"x": x, "y": y}, None, ReadingOptions(kind="sequence"))

    def once(values):
        data = replace(read.train, features=Signals(values))
        test = ArrayRows(read.test.features, np.arange(3))
        shared = ObjectiveData(look, None, data, None, read.schema, test, 0, "c")
        events(InProcessExecutor(OwnTraining, shared), job(scaling="channel", validation="holdout"))
        return seen.pop()

    held, plain = once(read.train.features.values)
    wild = read.train.features.values.copy()
    wild[held] = 1e6
    assert np.array_equal(once(wild)[1], plain)


def test_a_pruned_objective_ends_at_its_report_and_its_finally_runs(here):
    ended = []

    def endless(trial):
        try:
            epoch = 0
            while True:
                epoch += 1
                trial.report(epoch, 1.0)
        finally:
            ended.append(trial)

    executor, _ = trained(endless)
    assert events(executor, job(), cancel_after=2)[-1] == Cancelled("one")
    assert len(ended) == 4


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda trial: "0.5", "ValueError: the objective returned '0.5' (str): expected the validation loss"),
        (lambda trial: None, "the objective returned None"),
        (lambda trial: True, "the objective returned True"),
        (lambda trial: advisor.TrialResult("low"), "TrialResult.loss is 'low'"),
        (lambda trial: trial.report(0, 1.0), "epochs must be increasing whole numbers"),
        (lambda trial: trial.report(1.5, 1.0), "epochs must be increasing whole numbers"),
        (lambda trial: trial.report(1, None), "report was given None"),
        (lambda trial: trial.configuration["widht"], "there is no parameter 'widht'"),
        (lambda trial: sys.exit("enough"), "SystemExit: enough"),
        (lambda trial: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_an_objective_gets_wrong_is_named(function, says, here):
    executor, _ = trained(function)
    end = events(executor, job())[-1]
    assert isinstance(end, Failed)
    assert says in end.error


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (lambda n: advisor.TrialResult(0.5, np.ones(n)), "TrialResult.scores has shape"),
        (lambda n: advisor.TrialResult(0.5, np.ones((n, 2))), "does not hold probabilities"),
        (lambda n: advisor.TrialResult(0.5, np.full((n, 2), np.nan)), "not finite"),
        (
            lambda n: advisor.TrialResult(0.5, None, lambda rows: np.full((len(rows) + 1, 2), 0.5)),
            "TrialResult.predict has shape",
        ),
    ],
)
def test_scores_that_are_none_are_named(outcome, says, here):
    executor, _ = trained(lambda trial: outcome(trial.validation.height))
    end = events(executor, job(keep=True))[-1]
    assert isinstance(end, Failed)
    assert says in end.error


def test_a_loss_may_be_any_number(here):
    torch = pytest.importorskip("torch")
    for loss in (1, np.float32(0.5), np.array(0.5), torch.tensor(0.5)):
        executor, _ = trained(lambda trial, loss=loss: loss)
        assert isinstance(events(executor, job())[-1], Finished)


def test_a_loss_that_is_not_finite_is_reported_as_such(here):
    executor, _ = trained(lambda trial: math.nan)
    assert any(math.isnan(event.loss) for event in events(executor, job()) if isinstance(event, Reported))


def test_what_is_read_is_noted():
    c = Configuration({"a": 1, "b": 2, "c": 3})
    assert "a" in c and len(c) == 3 and list(c) == ["a", "b", "c"]
    assert c.read == set()
    assert c["a"] == 1 and c.get("b") == 2 and c.get("d") is None
    assert c.read == {"a", "b"}
    assert dict(c) == {"a": 1, "b": 2, "c": 3}
    assert c.read == {"a", "b", "c"}


def test_a_checkpoint_is_there_again_when_the_same_trial_is_run_again(here):
    def resuming(trial):
        state = trial.folder / "state"
        first = int(state.read_text()) + 1 if state.exists() else 1
        for epoch in range(first, 4):
            state.write_text(str(epoch))
            trial.report(epoch, float(epoch))
            if epoch == 2 and first == 1:
                raise RuntimeError("the machine went away")
        return float(first)

    executor, _ = trained(resuming)
    assert isinstance(events(executor, job())[-1], Failed)
    again = events(executor, job())
    assert again[-1].result.loss == 3.0, "all splits had got to epoch 2, and went on from there"
    assert not list(Path("checkpoints").iterdir()), "a trial that has ended leaves nothing"


# ------------------------------------------------------------------------------------------------- finding it


def test_an_objective_is_found_by_name(here):
    Path("mine_found.py").write_text("def f(trial):\n    return 1.0\n")
    own = find("mine_found:f", None)
    assert (own.name, own.function, own.path) == ("mine_found:f", "mine_found:f", str(here))
    assert import_objective("mine_found:f", str(here))(None) == 1.0
    own = find(objective, None)
    assert own.function == f"{__name__}:objective" and own.path == str(Path(__file__).parent)
    local = find(lambda trial: 1.0, None)
    assert callable(local.function) and local.path is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere_at_all:f", "no module 'nowhere_at_all'"),
        ("mine_bad:g", "no function 'g'"),
        ("mine_bad:fn", "did you mean 'fun'"),
        ("mine_bad:NUMBER", "is a int, not a function"),
        ("mine_bad", "not of the form package.module:function"),
        ("mine_bad:f:g", "not of the form"),
        ("../mine_bad:f", "not of the form"),
        ("mine_broken:f", "SyntaxError"),
        ("mine_raises:f", "ValueError: at import"),
        ("mine_lacks:f", "No module named 'nothing_like_it'"),
        ("mine_bad.sub:f", "no module 'mine_bad.sub'"),
    ],
)
@pytest.mark.parametrize("via", ["python", "command line"])
def test_a_wrong_name_is_one_line(name, says, via, here, capfd):
    Path("mine_bad.py").write_text("def fun(trial):\n    return 1.0\nNUMBER = 3\n")
    Path("mine_broken.py").write_text("def f(trial:\n")
    Path("mine_raises.py").write_text("raise ValueError('at import')\n")
    Path("mine_lacks.py").write_text("import nothing_like_it\n")
    for module in [m for m in sys.modules if m.startswith("mine_")]:
        del sys.modules[module]
    if via == "python":
        with pytest.raises(UserError, match="objective"):
            find(name, None)
        return
    table().write_csv("d.csv")
    assert _run(["tune", "d.csv", "--target", "y", "--executor", "in-process", "--objective", name]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: objective ") and err.count("\n") == 1
    assert says.lower() in err.lower()
    assert not Path("runs").exists()


def test_a_working_folder_that_is_none_and_an_objective_that_is_none(here):
    with pytest.raises(UserError, match="working folder"):
        find("a:b", "nowhere")
    with pytest.raises(UserError, match="objective is a int"):
        find(3, None)


# ------------------------------------------------------------------------------------------------ a whole run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    table().write_csv(folder / "d.csv")
    notes = []
    result = advisor.tune(
        folder / "d.csv", "y", trials=6, out=folder / "run", executor="in-process", objective=objective,
        on_note=notes.append, fixed={"epochs": 3, "validation": "kfold"},
    )  # fmt: skip
    return result, notes


@pytest.mark.slow
def test_a_run_with_an_own_objective_is_whole(tuned, capfd):
    result, notes = tuned
    run = result.folder
    document = read_json(run / "result.json")
    assert document["objective"]["name"] == f"{__name__}:objective"
    assert document["objective"]["compared"] == "row by row"
    assert set(document["objective"]["read"]) == {"learning_rate", "epochs", "numeric_scaling"}
    assert "width" in document["objective"]["never_read"]
    assert len(notes) == 1 and "never read" in notes[0] and "width" in notes[0]
    assert [t["end"] for t in document["search"]["trials"]].count("complete") >= 2
    assert document["final"]["contenders"][0]["name"] == "recommendation"
    assert document["estimate"]["low"] <= document["estimate"]["mean"] <= document["estimate"]["high"]
    names = [entry["name"] for entry in document["test"]["results"]]
    assert names[0] == "network" and len(names) >= 4
    assert result.model is None and not (run / "model").exists() and not (run / "checkpoints").exists()
    kept = list((run / "winner").rglob("weights.txt"))
    assert (
        len(kept)
        == len(document["final"]["contenders"][0]["configurations"])
        * document["final"]["contenders"][0]["networks"]
    )
    assert "<code>RUN/winner</code>" in (run / "report.html").read_text()
    assert _run(["report", str(run)]) == 0
    assert "RUN/winner" in capfd.readouterr().out
    assert _run(["predict", str(run), str(run.parent / "d.csv")]) == 2
    assert "which saves its own models" in capfd.readouterr().err


@pytest.mark.slow
def test_a_finished_run_is_shown_again_and_another_objective_is_refused(tuned):
    result, _ = tuned
    again = advisor.tune(result.folder, trials=6, executor="in-process", objective=objective)
    assert again.document == read_json(result.folder / "result.json")
    with pytest.raises(
        UserError, match=r"was searched with the objective .*:objective, not with the objective .*:loss_only"
    ):
        advisor.tune(result.folder, trials=7, executor="in-process", objective=loss_only)
    remembered = advisor.tune(result.folder, trials=7, executor="in-process").document
    assert remembered["objective"]["name"] == again.document["objective"]["name"]
    assert remembered["search"]["trials"][:6] == again.document["search"]["trials"]


@pytest.mark.slow
def test_a_function_of_a_program_has_to_be_given_again(here):
    options = {"trials": 1, "out": "run", "executor": "in-process", "fixed": PLAN}
    table().write_csv("d.csv")
    advisor.tune("d.csv", "y", objective=lambda trial: 1.0 + trial.configuration["learning_rate"], **options)
    with pytest.raises(UserError, match="give the objective again"):
        advisor.tune("run", trials=2, executor="in-process")


@pytest.mark.slow
def test_a_bare_loss_is_compared_split_by_split(here):
    result = advisor.tune(
        table(), "y", trials=8, out="run", executor="in-process", objective=loss_only, fixed=PLAN
    )
    document = result.document
    assert document["objective"]["compared"] == "split by split"
    values = {t["number"]: t["value"] for t in document["search"]["trials"]}
    assert (
        min(values.values()) == document["final"]["contenders"][1]["searched_loss"]
        or document["final"]["winner"]
    )
    assert all(c["networks"] >= 5 for c in document["final"]["contenders"]), (
        "two hold-outs would decide nothing"
    )
    assert "results" not in document["test"]
    assert Path("run/report.html").is_file()


def test_the_best_configuration_wins_split_by_split_when_it_is_better_beyond_chance():
    """By construction: a challenger ahead on every split wins; one that is ahead on average only does not."""

    def result(losses):
        losses = tuple(losses)
        return ObjectiveResult(
            float(np.mean(losses)),
            losses,
            (16,) * len(losses),
            0.25,
            np.arange(16 * len(losses)),
            None,
            None,
            (),
        )

    noise = np.random.default_rng(0).normal(0, 0.02, 10)
    data, advice = load_table(table(160), "y"), get_advice(table(160), "y")

    def winner(shift, spread):
        own = {
            "recommendation": [result(0.5 + noise)],
            "trial 3": [result(0.5 + noise - shift + spread * np.random.default_rng(1).normal(size=10))],
        }
        entries = {name: {"learning_rate": 0.1} for name in own}
        train = lambda repeats, names: Trained(own, {})  # noqa: E731
        judged = judge_results(entries, {}, train, advice, data.dataset("train"))
        return judged.report.winner

    assert winner(0.1, 0.01) == "trial 3"
    assert winner(0.01, 0.1) == "recommendation"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "raise OSError('no such file: weights')",
            "all of the first 3 trials failed, the last with oserror: no such file",
        ),
        ("return 'good'", "the objective returned 'good' (str): expected the validation loss"),
        (
            "return float('nan')",
            "all finalists failed, the recommendation with: the objective returned nan",
        ),
    ],
)
def test_an_objective_that_never_works_is_one_line(body, says, here, capfd):
    table().write_csv("d.csv")
    Path("mine_never.py").write_text(f"def f(trial):\n    {body}\n")
    sys.modules.pop("mine_never", None)
    command = [
        "tune",
        "d.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--objective",
        "mine_never:f",
        "--quiet",
    ]
    assert _run([*command, "--trials", "4", "--fixed", "validation=holdout"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert says in err.lower()


class Trainer:
    def __init__(self):
        self.models = {"best": [threading.Lock()]}

    def train(self, trial):
        return 1.0


LOCK, ROWS = threading.Lock(), (row for row in range(3))


def holding(kind):
    handle = Path("kept.txt").open("w")  # noqa: SIM115 - to be held
    if kind == "a file":
        return lambda trial: handle.write("trained")
    if kind == "a lock":
        return lambda trial: LOCK.acquire()
    if kind == "a generator, in a function that it calls":
        step = functools.partial(lambda: next(ROWS))
        return lambda trial: step()
    return Trainer().train


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("a file", r"handle \(TextIOWrapper\)"),
        ("a lock", r"LOCK \(lock\)"),
        ("a generator, in a function that it calls", r"ROWS \(generator\)"),
        ("an attribute", r"self.models\['best'\]\[0\] \(lock\)"),
    ],
)
def test_what_in_an_objective_cannot_be_sent_to_a_worker_is_named(kind, what, here):
    function = holding(kind)
    with (
        pytest.raises(UserError, match=f"cannot be sent to a worker because of {what}: create that inside"),
        find(function, None).sent(),
    ):
        pickle.dumps(function)


def test_an_objective_may_print_and_change_its_folder(here, capfd):
    """Also where it runs in this process: stdout is for the document alone, and the run is found again."""
    table().write_csv("d.csv")
    Path("mine_away.py").write_text(
        "import os, shutil, tempfile\n\ndef f(trial):\n    print('one'); os.system('echo two')\n"
        "    away = os.path.realpath(tempfile.mkdtemp())\n    os.chdir(away)\n    trial.report(1, 1.0)\n"
        "    assert os.getcwd() == away\n    shutil.rmtree(away)\n    return 1.0\n"
    )
    command = [
        "tune",
        "d.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--objective",
        "mine_away:f",
        "--quiet",
        "--json",
    ]
    assert _run([*command, "--trials", "3", "--fixed", "validation=holdout", "--out", "run"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["run"] == "run" and Path("run/result.json").is_file() and Path.cwd() == here
    assert "one\n" in err and "two\n" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "data"),
    [
        ("torch_loop", "sklearn:wine"),
        ("sklearn_model", "sklearn:wine"),
        ("image_network", "sklearn:digits --kind image"),
    ],
)
def test_the_examples_run(example, data, here, capfd):
    command = f"tune {data} --target target --trials 3 --out run --json --objective {example}:objective"
    options = [
        "--working-dir",
        str(EXAMPLES),
        "--executor",
        "in-process",
        "--fixed",
        "epochs=3",
        "--fixed",
        "validation=holdout",
    ]
    assert _run([*command.split(), *options]) == 0
    document = json.loads(capfd.readouterr().out)
    assert len(document["search"]["trials"]) == 3
    assert document["objective"]["compared"] == (
        "split by split" if example == "sklearn_model" else "row by row"
    )
    assert "The network</h2>" not in Path("run/report.html").read_text(), "it is not ours that was trained"


@pytest.mark.slow
def test_a_bare_loss_on_sequences_with_a_number_to_predict(here):
    x, y = sequences()
    x[np.isnan(x)] = 0

    def ridge(trial):
        design = trial.inputs(trial.train).reshape(len(trial.train), -1)
        held = trial.inputs(trial.validation).reshape(len(trial.validation), -1)
        penalty = (trial.configuration["weight_decay"] + 0.01) * np.eye(design.shape[1])
        weights = np.linalg.solve(design.T @ design + penalty, design.T @ trial.targets(trial.train))
        return float(np.square(held @ weights - trial.targets(trial.validation)).mean())

    source = {"x": x, "y": x[:, 0].mean(axis=1) + y}
    result = advisor.tune(
        source, kind="sequence", trials=3, out="run", executor="in-process", objective=ridge
    )
    assert result.document["task"] == "regression"
    assert result.document["objective"]["read"] == ["scaling", "weight_decay"]
    assert result.document["test"]["rows"] == 12


@pytest.mark.slow
def test_on_ray_the_objective_is_imported_by_the_workers(here, local_ray):
    Path("mine_on_ray.py").write_text(
        "import os\n\ndef f(trial):\n    open('/dev/null').close()\n    for epoch in range(1, 4):\n"
        "        trial.report(epoch, trial.configuration['learning_rate'])\n"
        "    (trial.folder / str(os.getpid())).write_text('')\n    return "
        "trial.configuration['learning_rate']\n"
    )
    result = advisor.tune(table(), "y", trials=3, out="run", workers=2, objective="mine_on_ray:f", fixed=PLAN)
    assert len(result.document["search"]["trials"]) == 3
    pids = {int(file.name) for file in Path("run/winner").rglob("*") if file.is_file()}
    assert pids and os.getpid() not in pids


@pytest.mark.slow
def test_killed_in_a_trial_it_goes_on_from_the_checkpoint(here):
    """kill -9 of the driver in the middle of the first trial; the same command
    goes on with that trial's checkpoint."""
    table().write_csv("d.csv")
    Path("mine_long.py").write_text(
        "import time\nfrom pathlib import Path\n\ndef f(trial):\n    state = trial.folder / 'state'\n"
        "    first = int(state.read_text()) + 1 if state.exists() else 1\n"
        "    with Path('starts.txt').open('a') as log:\n        log.write(f'{first}\\n')\n"
        "    for epoch in range(first, 6):\n        state.write_text(str(epoch))\n        "
        "trial.report(epoch, 1 / epoch)\n"
        "        if epoch == 3 and not Path('go').exists():\n"
        "            Path('there').write_text('')\n            time.sleep(600)\n"
        "    return 0.2 + trial.configuration['learning_rate']\n"
    )
    program = [
        sys.executable,
        "-m",
        "advisor",
        "tune",
        "d.csv",
        "--target",
        "y",
        "--executor",
        "in-process",
        "--trials",
        "2",
    ]
    program += ["--objective", "mine_long:f", "--out", "run", "--fixed", "validation=holdout", "--json"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        for _ in range(3000):
            if Path("there").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert Path("there").exists(), process.communicate()[1]
        os.killpg(process.pid, signal.SIGKILL)
    Path("go").write_text("")
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert Path("starts.txt").read_text().split()[:2] == ["1", "4"]
    assert len(json.loads(done.stdout)["search"]["trials"]) == 2


@pytest.mark.parametrize("where", ["search and final", "final"])
def test_a_recommendation_that_diverges_costs_neither_the_search_nor_the_model(where, here):
    """The end of a run must not depend on one contender: the best finite one is
    confirmed, kept and reported."""

    def objective(trial):
        rate = trial.configuration["learning_rate"]
        judged_again = trial.seed >= 1000
        loss = math.nan if rate > 0.004 and (judged_again or where != "final") else 0.3 + 10 * rate
        trial.report(1, loss)
        return loss

    run = advisor.tune(table(), "y", objective=objective, trials=6, executor="in-process", progress=False)
    final = run.document["final"]
    assert run.document["configuration"]["learning_rate"] > 0.004, "else the test shows nothing"
    assert final["failed"].keys() == {"recommendation"} and "nan" in final["failed"]["recommendation"]
    assert final["incumbent"] != "recommendation" and "recommendation" not in {
        c["name"] for c in final["contenders"]
    }
    [told] = [s for s in verdict(run.report, []) if "recommendation failed in the final" in s]
    assert final["incumbent"] in told
    page = (run.folder / "report.html").read_text()
    assert "The recommendation failed in the final" in page
