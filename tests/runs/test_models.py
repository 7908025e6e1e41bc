"""The saved model: the same predictions everywhere (M3), no unnoticed change (M2), nothing unpickled (M1)."""

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from damage import with_a_flipped_bit
from hypothesis import given, settings
from hypothesis import strategies as st

import advisor
from advisor.data.columns.column import Column
from advisor.data.options import ReadingOptions
from advisor.data.tables.features import encode
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import load_table, read_frame
from advisor.errors import UserError
from advisor.rules import shipped
from advisor.runs.model import Model, fit_temperature, load_model, model_files, tempered
from advisor.splits import make_splits
from advisor.tasks import BINARY, MULTICLASS, REGRESSION, SMALLEST_PROBABILITY
from advisor.training.loop import train_epochs

SPACE = shipped.base_space()
FILES = ["model.json", "weights.safetensors", "checksums.json"]
TASKS = ["binary", "multiclass", "regression"]


def frame(task, rows=90, seed=0):
    rng = np.random.default_rng(seed)
    size = rng.lognormal(size=rows)
    place = rng.integers(0, 14, rows)
    target = {
        "binary": np.where(size + rng.normal(0, 0.3, rows) > 1, "yes", "no"),
        "multiclass": np.array(["low", "mid", "high"])[np.digitize(size, [0.7, 1.5])],
        "regression": 1000 * size + 10 * place,
    }[task]
    return pl.DataFrame(
        {
            "size": pl.Series(np.where(rng.random(rows) < 0.1, np.nan, size)).fill_nan(None),
            "place": [f"town {k:02}" for k in place],
            "colour": rng.choice(["red", "green", "blue"], rows),
            "answer": target,
        }
    )


def trained(configuration, data, seed=0, members=1):
    splits = make_splits(data, scheme="kfold", folds=2, fraction=0.2, seed=0)
    epochs = train_epochs(configuration, data, splits, seed=seed, members=members)
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            return end.value


def configured(**changes):
    return SPACE.complete({"width": 16, "hidden_layers": 2, "epochs": 2, **changes})


def model_of(task, **changes):
    """Two stacks of other kinds, so that everything that can be saved is."""
    table = load_table(frame(task), "answer", ReadingOptions(seed=0, task=task))
    data = table.dataset("train")
    first = configured(
        norm="batch", block="residual", linear_skip=True, numeric_embedding="piecewise_linear", **changes
    )
    second = configured(numeric_scaling="quantile", numeric_embedding="periodic", one_hot_max=2, dropout=0.2)
    temperature = 1.0 if task == "regression" else 1.3
    return Model(table.schema, (trained(first, data, members=2), trained(second, data, seed=1)), temperature)


@pytest.fixture(scope="module")
def models():
    return {task: model_of(task) for task in TASKS}


def saved(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in model_files(model).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    return {task: saved(model, tmp_path_factory.mktemp(task)) for task, model in models.items()}


@pytest.fixture
def folder(folders, tmp_path):
    """A copy that a test may damage."""
    for name in FILES:
        (tmp_path / name).write_bytes((folders["multiclass"] / name).read_bytes())
    return tmp_path


def scores(model, data):
    return model.predict(data) if model.schema.task == "regression" else model.predict_proba(data)


def child(code, *arguments, **environment):
    """The output of a fresh Python process."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


# M3: saved and loaded predicts the same


@pytest.mark.parametrize("task", TASKS)
def test_a_loaded_model_predicts_the_same_bit_for_bit(models, folders, task):
    model, back = models[task], load_model(folders[task])
    new = frame(task, rows=200, seed=1)
    assert np.array_equal(scores(model, new), scores(back, new))
    assert np.array_equal(model.predict(new), back.predict(new))
    assert back.schema == model.schema
    assert back.temperature == model.temperature
    assert [s.validation_losses for s in back.stacks] == [s.validation_losses for s in model.stacks]
    assert model_files(back) == model_files(model)


PREDICT = """
import sys
import numpy as np, polars as pl, torch
from advisor import load_model
files = sys.argv[1:]
for threads in (1, 3):
    torch.set_num_threads(threads)
    for folder, rows, out in zip(files[::3], files[1::3], files[2::3]):
        model, data = load_model(folder), pl.read_parquet(rows)
        scores = model.predict(data) if model.schema.task == "regression" else model.predict_proba(data)
        np.save(f"{out}.{threads}.npy", scores)
    assert torch.get_num_threads() == threads
"""


@pytest.mark.slow
def test_a_fresh_process_with_another_thread_count_predicts_the_same_bit_for_bit(models, folders, tmp_path):
    before, expected, arguments = torch.get_num_threads(), {}, []
    torch.set_num_threads(2)
    try:
        for task in TASKS:
            new, rows = frame(task, rows=3000, seed=2), tmp_path / f"{task}.parquet"
            new.write_parquet(rows)
            expected[task] = scores(models[task], new)
            arguments += [folders[task], rows, tmp_path / task]
    finally:
        torch.set_num_threads(before)
    done = child(PREDICT, *arguments)
    assert done.returncode == 0, done.stderr
    for task in TASKS:
        for threads in (1, 3):
            assert np.array_equal(np.load(tmp_path / f"{task}.{threads}.npy"), expected[task]), (
                task,
                threads,
            )


def test_the_run_folder_above_will_do(models, tmp_path):
    saved(models["binary"], tmp_path / "run" / "model")
    new = frame("binary", seed=3)
    assert np.array_equal(
        load_model(tmp_path / "run").predict_proba(new), models["binary"].predict_proba(new)
    )
    assert advisor.load_model(str(tmp_path / "run" / "model")).schema == models["binary"].schema


def test_a_model_with_a_network_that_diverged_is_saved_and_loaded(tmp_path):
    """JSON knows no infinity."""
    table = load_table(frame("regression"), "answer", ReadingOptions(task="regression"))
    stack = trained(
        configured(optimizer="sgd", hidden_layers=4) | {"learning_rate": 1e30}, table.dataset("train")
    )
    assert np.isinf(stack.validation_losses).all()
    model = Model(table.schema, (stack,))
    back = load_model(saved(model, tmp_path))
    assert back.stacks[0].validation_losses == stack.validation_losses
    assert np.array_equal(back.predict(frame("regression")), model.predict(frame("regression")))


def test_the_files_are_json_and_safetensors_and_nothing_of_the_rows_is_in_them(models):
    files = model_files(models["binary"])
    assert sorted(files) == sorted(FILES)
    assert json.loads(files["model.json"])["format"] == 1
    assert set(json.loads(files["checksums.json"])) == set(FILES)
    assert all(len(s.held_out) for s in models["binary"].stacks)
    names = "".join(json.loads(files["weights.safetensors"][8:].split(b"}}")[0] + b"}}"))
    assert "held_out" not in names


# Predictions


@pytest.mark.parametrize("task", TASKS)
def test_predictions_have_the_promised_shapes(models, task):
    model, new = models[task], frame(task, rows=7, seed=4)
    predicted = model.predict(new)
    assert predicted.shape == (7,)
    assert np.array_equal(model.predict(new.to_pandas()), predicted)
    assert model.predict(new.drop("answer").clear()).shape == (0,)
    if task == "regression":
        with pytest.raises(UserError, match="has no class probabilities"):
            model.predict_proba(new)
        return
    probabilities = model.predict_proba(new)
    assert probabilities.shape == (7, len(model.classes))
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert predicted.tolist() == model.classes[probabilities.argmax(axis=1)].tolist()
    assert set(predicted) <= set(frame(task)["answer"])


def test_columns_are_found_by_name_and_new_levels_are_allowed(models):
    model, new = models["multiclass"], frame("multiclass", seed=5)
    other = new.select("colour", pl.lit("more").alias("extra"), "size", "place")
    assert np.array_equal(model.predict_proba(other), model.predict_proba(new))
    with pytest.warns(advisor.DataFormWarning, match="'size': all 90 cells are missing"):
        unknown = model.predict_proba(
            new.with_columns(pl.lit("nowhere").alias("place"), pl.lit(None).alias("size"))
        )
    assert np.isfinite(unknown).all()
    with pytest.raises(UserError, match="place"):
        model.predict(new.drop("place"))


def test_rows_are_predicted_one_by_one(models):
    for task, model in models.items():
        new = frame(task, rows=20, seed=6)
        assert scores(model, new[3:5]) == pytest.approx(scores(model, new)[3:5], rel=1e-5), task


def test_an_ensemble_is_the_mean_of_its_stacks(models):
    model, new = models["regression"], frame("regression", seed=7)
    alone = [Model(model.schema, (stack,)).predict(new) for stack in model.stacks]
    assert model.predict(new) == pytest.approx(np.mean(alone, axis=0))
    model = models["binary"]
    features = encode(read_frame(frame("binary", seed=7)), model.schema)
    mean = np.mean([stack.predict(features) for stack in model.stacks], axis=0)
    assert model.scores(features) == pytest.approx(tempered(mean, 1.3))


def schema(*classes):
    return TableSchema((Column("x", "numeric", "numbers"),), "y", "multiclass", classes, {})


@pytest.mark.parametrize(
    ("labels", "integers"),
    [
        (("0", "1"), True),
        (("-1", "1", "10"), True),
        (("123456789012345678", "-123456789012345678"), True),
        (("99999999999999999999", "1"), False),
        (("01", "1"), False),
        (("-0", "1"), False),
        (("--5", "1"), False),
        (("-", "1"), False),
        (("", "1"), False),
        (("1.0", "2.0"), False),
        (("+1", "2"), False),
        (("1 ", "2"), False),
        (("1\n", "2"), False),
        (("٣", "1"), False),
        (("²", "1"), False),
        (("9" * 5000, "1"), False),
        (("1", "two"), False),
        (("True", "False"), False),
        ((), False),
    ],
)
def test_whole_number_labels_come_back_as_integers_and_all_others_as_they_were(labels, integers):
    classes = Model(schema(*labels), ()).classes
    assert [str(label) for label in classes] == list(labels)
    assert (classes.dtype.kind == "i") is integers


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=5) | st.integers().map(str), min_size=1, max_size=4))
def test_any_label_comes_back_as_it_was(labels):
    # NumPy's text type drops trailing NUL characters, and no table has such a label
    labels = [label.replace("\0", "") for label in labels]
    assert [str(label) for label in Model(schema(*labels), ()).classes] == labels


def test_whole_number_targets_are_predicted_as_integers():
    data = frame("binary").with_columns(
        pl.when(pl.col("answer") == "yes").then(3).otherwise(-1).alias("answer")
    )
    table = load_table(data, "answer")
    model = Model(table.schema, (trained(configured(), table.dataset("train")),))
    predicted = model.predict(data)
    assert predicted.dtype == data["answer"].to_numpy().dtype
    assert set(predicted) <= {-1, 3}


# M2: a changed file is noticed


def assert_refused(folder, name):
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert name in str(caught.value)
    assert all(other not in str(caught.value) for other in FILES if other != name)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_refused_with_the_files_name(folder, name):
    content = (folder / name).read_bytes()

    @settings(max_examples=200, deadline=None)
    @given(with_a_flipped_bit(content))
    def check(flipped):
        (folder / name).write_bytes(flipped[0])
        assert_refused(folder, name)

    check()
    (folder / name).write_bytes(content)
    load_model(folder)


@pytest.mark.parametrize("name", FILES)
def test_truncated_lengthened_empty_and_foreign_files_are_refused(folder, name):
    content = (folder / name).read_bytes()
    rest = [b"", content[:1], content[: len(content) // 2], content[:-1], content + b"\0", content + content,
            b"{}", b"[]", b"null", b'"text"', b"[[1, 2]]", b"[[]]", b"\xff\xfe", b"<html>"]  # fmt: skip
    for damaged in rest:
        (folder / name).write_bytes(damaged)
        assert_refused(folder, name)


def test_files_of_another_model_are_refused(folder, folders):
    for name in FILES[:2]:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes((folders["binary"] / name).read_bytes())
        assert_refused(folder, name)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_and_a_folder_in_its_place_are_named(folder, name):
    (folder / name).unlink()
    assert_refused(folder, name)
    (folder / name).mkdir()
    assert_refused(folder, name)


def test_what_is_no_folder_with_a_model_is_refused_in_one_line(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    for path in (empty, empty / "nowhere", folder / "model.json"):
        with pytest.raises(UserError) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_newer_format_is_refused(folder):
    """With checksums that fit, as a newer advisor would write them."""
    description = json.loads((folder / "model.json").read_bytes())
    (folder / "model.json").write_text(json.dumps(description | {"format": 3}))
    contents = {name: (folder / name).read_bytes() for name in FILES[:2]}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    own = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(digests | {"checksums.json": own}, indent=1))
    with pytest.raises(UserError, match=r"made by advisor .*format 3.*update"):
        load_model(folder)


# M1: nothing is ever unpickled

FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}


def loads_code(tree):
    """The places where a module could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (n.name for n in node.names if n.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
                yield str(node.module)
            yield from (n.name for n in node.names if n.name in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            yield from _called(node)


def _called(node):
    name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    last = name.split(".")[-1]
    if name in {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}:
        yield name
    if last == "eval" and (node.args or node.keywords):  # pandas, polars; network.eval() has no argument
        yield name
    if name in {"torch.jit.load", "torch.package.PackageImporter"} or "read_pickle" in last:
        yield name
    if name in {"torch.load", "torch.hub.load_state_dict_from_url"} and keywords.get("weights_only") != "True":
        yield name  # with it, torch reads tensors alone
    if keywords.get("allow_pickle", "False") != "False":
        yield f"{name}(allow_pickle)"
    if last in {"load", "load_all"} and name.split(".")[0] == "yaml":
        loaders = [*(ast.unparse(a) for a in node.args[1:]), keywords.get("Loader", "")]
        if not any("Safe" in loader or "Strict" in loader for loader in loaders):
            yield name
    if last in {"unsafe_load", "full_load", "unsafe_load_all", "full_load_all"}:
        yield name
    if last == "import_module" and node.args and isinstance(node.args[0], ast.Constant):
        yield from [node.args[0].value] if node.args[0].value.split(".")[0] in FORBIDDEN_MODULES else []


@pytest.mark.parametrize(
    "path", sorted(Path(advisor.__file__).parent.rglob("*.py")), ids=lambda path: path.name
)
def test_no_module_can_run_what_a_file_holds(path):
    assert list(loads_code(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "import _pickle as p", "from joblib import load", "from ray import cloudpickle", "import dill.source",
     "torch.load(p)", "torch.load(p, weights_only=safe)", "torch.hub.load_state_dict_from_url(u)", "np.load(p, allow_pickle=True)", "yaml.load(t)", "yaml.load(t, yaml.Loader)", "yaml.unsafe_load(t)",
     "eval(t)", "exec(t)", "builtins.eval(t)", "pd.read_pickle(p)", "frame.eval('a + b')", "import_module('pickle')"],
)  # fmt: skip
def test_the_check_finds_what_it_looks_for(source):
    assert list(loads_code(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    ["network.eval()", "torch.load(p, weights_only=True)", "yaml.load(t, Loader=SafeLoader)", "yaml.safe_load(t)", "np.load(p)", "json.loads(t)"],
)
def test_the_check_lets_the_harmless_pass(source):
    assert not list(loads_code(ast.parse(source)))


UNPICKLE_ABORTS = """
import os, sys
import _pickle, pickle
def abort(*arguments, **keywords):
    os.write(2, b"unpickled")
    os._exit(77)
class Unpickler(pickle.Unpickler):
    __init__ = __new__ = abort
for module in (pickle, _pickle):
    module.load = module.loads = abort
    module.Unpickler = Unpickler
pickle._Unpickler, pickle._load, pickle._loads = Unpickler, abort, abort
from advisor import load_model
import polars as pl
for folder, rows in zip(sys.argv[1::2], sys.argv[2::2]):
    print(len(load_model(folder).predict(pl.read_csv(rows))), flush=True)
pickle.loads(pickle.dumps(1))
"""


@pytest.mark.slow
def test_loading_and_predicting_unpickle_nothing(folders, tmp_path):
    arguments = []
    for task in TASKS:
        frame(task, rows=12).write_csv(tmp_path / f"{task}.csv")
        arguments += [folders[task], tmp_path / f"{task}.csv"]
    done = child(UNPICKLE_ABORTS, *arguments)
    assert done.stdout.split() == ["12"] * 3, done.stderr
    assert (done.returncode, done.stderr) == (77, "unpickled")  # the trap works


# Temperature


def log_loss(probabilities, target):
    return MULTICLASS.row_losses(target, probabilities).mean()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 9999), st.integers(1, 300), st.integers(2, 6), st.floats(0.05, 20), st.floats(0, 1))
def test_a_temperature_never_raises_the_held_out_loss(seed, rows, classes, sharpness, skill):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), target] += 3 * skill
    logits *= sharpness
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    temperature = fit_temperature(probabilities, target)
    assert 0.1 <= temperature <= 10.0
    assert log_loss(tempered(probabilities, temperature), target) <= log_loss(probabilities, target) + 1e-9


@pytest.mark.parametrize("true", [0.5, 1.0, 2.0])
def test_with_many_rows_the_right_temperature_is_found(true):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 5000)
    target = np.array([rng.choice(3, p=row) for row in probabilities])
    assert fit_temperature(tempered(probabilities, 1 / true), target) == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 5.0])
def test_tempered_probabilities_are_probabilities_in_the_same_order(temperature):
    probabilities = np.vstack(
        [np.random.default_rng(0).dirichlet([1, 1, 1], 50), [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    )
    out = tempered(probabilities, temperature)
    assert out.sum(axis=1) == pytest.approx(1.0)
    assert np.isfinite(out).all()
    assert np.array_equal(out.argmax(axis=1), probabilities.argmax(axis=1))
    powers = np.clip(probabilities, SMALLEST_PROBABILITY, 1) ** (1 / temperature)
    assert out == pytest.approx(powers / powers.sum(axis=1, keepdims=True))
    if temperature == 1.0:
        assert out == pytest.approx(probabilities, abs=1e-11)


# Losses


def test_row_losses_against_their_definitions():
    probabilities = np.array([[0.2, 0.8], [1.0, 0.0]])
    assert BINARY.row_losses(np.array([1, 0]), probabilities) == pytest.approx([-np.log(0.8), 0.0])
    assert BINARY.row_losses(np.array([1, 1]), probabilities)[1] == pytest.approx(
        -np.log(SMALLEST_PROBABILITY)
    )
    assert REGRESSION.row_losses(np.array([1.0, 2.0]), np.array([3.0, 2.0])).tolist() == [4.0, 0.0]
    expected = torch.nn.functional.cross_entropy(torch.tensor(probabilities[:1]).log(), torch.tensor([1]))
    assert MULTICLASS.row_losses(np.array([1]), probabilities[:1]) == pytest.approx([float(expected)])
    assert (REGRESSION.loss_name, BINARY.loss_name) == ("mean squared error", "log loss")
