"""The pre-flight: each failure provoked for real, and sound data of every kind passing."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner

from advisor.checks.preflight import (
    affordable,
    batch_to_learn,
    check_first_loss,
    check_flow,
    check_inputs_count,
    check_memory,
    check_no_leak,
    check_one_batch,
    check_plan,
    first_pass,
    one_batch,
    preflight,
    without_help,
)
from advisor.checks.subject import Subject, blank, contents, copies, meaningless
from advisor.checks.throughput import edge, kept_bytes, knee, rates
from advisor.cli import main as cli
from advisor.errors import UserError
from advisor.runs.advice import AdviceOptions
from advisor.splits import Split
from advisor.workflows.recommend import get_advice

NO_END = float("inf")


def clock():
    return 0.0


def columns(rows=300, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 4))
    return pl.DataFrame(
        {f"x{i}": x[:, i] for i in range(4)} | {"y": np.where(x[:, 0] + x[:, 1] > 0, "yes", "no")}
    )


def image_file(folder, rows=120, side=8):
    """Bright upper or lower halves, with noise."""
    draw = np.random.default_rng(0)
    label = np.arange(rows) % 2
    image = draw.integers(0, 60, (rows, side, side))
    for row, half in enumerate(label):
        image[row, half * side // 2 : (half + 1) * side // 2] += 120
    np.savez(folder / "images.npz", X=image.astype(np.uint8), y=label)
    return folder / "images.npz"


def series_file(folder, rows=120, length=32):
    """A slow or a fast wave at any phase, with noise."""
    draw = np.random.default_rng(0)
    label = np.arange(rows) % 2
    time, phase = np.arange(length), draw.uniform(0, 6, rows)
    wave = np.sin(time[None] * np.where(label == 1, 0.9, 0.3)[:, None] + phase[:, None])
    np.savez(
        folder / "series.npz",
        X=(wave + 0.2 * draw.normal(size=wave.shape)).astype(np.float32)[:, None],
        y=label,
    )
    return folder / "series.npz"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    columns().write_csv(folder / "table.csv")
    return {
        "table": (folder / "table.csv", "y"),
        "image": (image_file(folder), None),
        "sequence": (series_file(folder), None),
    }


@pytest.fixture(scope="module")
def advices(sources):
    return {
        kind: get_advice(source, target, AdviceOptions(fixed=SMALL.get(kind, {})))
        for kind, (source, target) in sources.items()
    }


SMALL = {"image": {"width": 8}, "sequence": {"width": 8}}
"""Narrow ones are checked as well as wide ones, and sooner."""


def subject_of(advice, **changes):
    """The recommendation with other values, on a hold-out split."""
    configuration = dict(advice.recommendation.configuration) | changes
    data = advice.data.dataset("train")
    rows = np.random.default_rng(0).permutation(len(data))
    cut = 4 * len(rows) // 5
    return Subject.of(configuration, data, Split(np.sort(rows[:cut]), np.sort(rows[cut:])), seed=0)


@pytest.fixture(scope="module")
def table(advices):
    return advices["table"]


def by_name(checks):
    return {check.check: check for check in checks}


@pytest.mark.parametrize("kind", ["table", "image", "sequence"])
def test_a_sound_recommendation_passes_every_check(advices, kind):
    # each look at the clock takes a fifth of a second, so that few steps are
    # timed however fast the machine is
    looks = count()
    found = preflight(advices[kind], seconds=60, clock=lambda: next(looks) * 0.2)
    assert found.passed, str(found)
    checks = by_name(found.checks)
    assert {
        "plan",
        "gradients-agree",
        "first-loss",
        "units-alive",
        "gradient-flows",
        "throughput",
        "memory",
    } <= checks.keys()
    assert all(checks[name].passed for name in ("one-batch", "inputs-count", "no-leak", "first-loss"))
    assert checks["units-alive"].passed is not False  # a network on fixed convolutions has no hidden units
    assert checks["throughput"].numbers["knee"] in checks["throughput"].numbers["rows_per_second"]
    assert checks["memory"].numbers["edge"] > checks["memory"].numbers["batch_size"]
    assert "the checks found no problem" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["passed"] is True


def test_an_output_layer_that_is_drawn_large_begins_with_a_wrong_loss(table):
    assert check_first_loss(subject_of(table)).passed
    assert check_first_loss(
        subject_of(table, output_init="same", weight_init="torch_default", linear_skip=False)
    ).passed
    wide = {
        "output_init": "same",
        "weight_init": "he_normal",
        "hidden_layers": 2,
        "activation": "relu",
        "norm": "none",
    }
    found = check_first_loss(subject_of(table, **wide, width=256, numeric_embedding="none"))
    assert found.passed is False and "must first undo" in found.cause and "output_init=zero" in found.fix


def test_the_first_loss_of_a_regression_is_the_variance_of_the_target():
    frame = columns().with_columns(y=1000 + 70 * pl.col("x0"))
    found = check_first_loss(subject_of(get_advice(frame, "y")))
    assert found.passed and found.numbers["loss"] == pytest.approx(1.0, abs=0.2)


def test_the_first_loss_of_rare_classes_is_that_of_their_shares():
    frame = columns(600).with_columns(
        y=pl.when(pl.col("x0") > 1.3).then(pl.lit("rare")).otherwise(pl.lit("common"))
    )
    found = check_first_loss(subject_of(get_advice(frame, "y")))
    assert found.passed and found.numbers["loss"] < 0.5 < np.log(2)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("image", {"network": "efficientnet", "width": 16}),
        ("image", {"network": "mixer"}),
        ("image", {"squeeze": True}),
        ("image", {"factorised": True, "norm_layer": "group"}),
        ("sequence", {"network": "inception"}),
        ("sequence", {"network": "recurrent"}),
        ("sequence", {"network": "mixer"}),
    ],
)
def test_every_family_of_networks_begins_healthy(advices, kind, changes):
    subject = subject_of(advices[kind], **changes)
    assert check_first_loss(subject).passed
    assert all(check.passed is not False for check in check_flow(first_pass(subject)))
    if changes.get("network") != "recurrent":  # whose activations are inside of PyTorch's own function
        assert by_name(check_flow(first_pass(subject)))["units-alive"].passed


def test_dead_units_fail(table):
    subject = subject_of(
        table, activation="relu", hidden_layers=2, norm="none", numeric_embedding="none", width=64
    )
    assert by_name(check_flow(first_pass(subject)))["units-alive"].passed
    network = subject.network()
    with torch.no_grad():
        network.blocks[1].linear.bias.fill_(-50.0)
    found = by_name(check_flow(first_pass(subject, network)))["units-alive"]
    assert found.passed is False and found.numbers["largest_share"] == 1.0
    assert "leaky_relu" in found.fix and "stay dead" in found.cause


def test_saturated_tanh_fails(table):
    plain = {"activation": "tanh", "hidden_layers": 2, "norm": "none", "numeric_embedding": "none"}
    subject = subject_of(table, **plain, weight_init="xavier_normal")
    assert by_name(check_flow(first_pass(subject)))["units-not-saturated"].passed
    network = subject.network()
    with torch.no_grad():
        network.blocks[0].linear.weight.mul_(100.0)
    found = by_name(check_flow(first_pass(subject, network)))["units-not-saturated"]
    assert found.passed is False and "xavier_normal" in found.fix


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({"activation": "sigmoid", "weight_init": "torch_default"}, False),
        ({"activation": "relu", "weight_init": "he_normal"}, True),
        ({"activation": "tanh", "weight_init": "xavier_normal"}, True),
        ({"activation": "sigmoid", "weight_init": "torch_default", "norm": "batch"}, True),
    ],
)
def test_the_gradient_must_reach_the_first_layer(table, changes, passed):
    subject = subject_of(
        table, **{"hidden_layers": 8, "norm": "none", "numeric_embedding": "none", "width": 32, **changes}
    )
    found = by_name(check_flow(first_pass(subject)))["gradient-flows"]
    assert found.passed is passed, found
    assert passed or "smaller" in found.cause


def test_one_batch_cannot_be_learnt_at_a_rate_that_is_wrong(table):
    for rate, cause in ((1e-7, "far too small"), (1e4, "too large")):
        plain = {"numeric_embedding": "none", "gradient_clip": 0.0, "optimizer": "sgd", "momentum": 0.0}
        subject = subject_of(table, **plain, learning_rate=rate)
        found = check_one_batch(subject, deadline=NO_END, clock=clock)
        assert found.passed is False and cause in found.cause, found


def test_one_batch_cannot_be_learnt_by_a_network_that_is_too_small():
    draw = np.random.default_rng(0)
    frame = columns().select(x0="x0", y=pl.Series(draw.choice(["yes", "no"], 300)))
    changes = {"hidden_layers": 0, "numeric_embedding": "none", "learning_rate": 0.05}
    found = check_one_batch(subject_of(get_advice(frame, "y"), **changes), deadline=NO_END, clock=clock)
    assert found.passed is False and found.numbers["steps"] == 600


def test_one_batch_is_not_judged_when_the_time_is_up(table):
    found = check_one_batch(subject_of(table, learning_rate=1e-7), deadline=-1.0, clock=clock)
    assert found.passed is None and "--seconds" in found.words and found.numbers["steps"] == 1
    assert one_batch([0.5, 0.01], 0.7, rows=16, in_time=False, unit="log loss").passed


def test_the_batch_holds_different_rows_of_all_classes(table):
    subject = subject_of(table)
    data = replace(subject.data, target=np.where(np.arange(len(subject.data)) < 200, 0, 1))
    rows = batch_to_learn(replace(subject, data=data))
    assert len(rows) == 16 == len(np.unique(contents(data)[rows]))
    assert set(rows) <= set(subject.split.train) and len(np.unique(data.target[rows])) == 2


def test_what_hinders_learning_by_heart_is_off(advices):
    for advice in advices.values():
        plain = without_help(advice.recommendation.configuration, advice.data.dataset("train"))
        for name in ("dropout", "weight_decay", "l1", "mixup", "cutout", "shift", "rotation"):
            assert plain.get(name, 0.0) == 0.0
        assert (
            plain["class_balance"] == "none"
            and plain.get("flip", "none") == "none"
            and plain["schedule"] == "constant"
        )


def test_inputs_that_say_nothing_fail():
    draw = np.random.default_rng(1)
    frame = columns(600).with_columns(y=pl.Series(draw.choice(["yes", "no"], 600)))
    advice = get_advice(frame, "y")
    found = check_inputs_count(subject_of(advice), 8)
    assert found.passed is False and "carry little information about the target" in found.cause


def leak(subject):
    return check_no_leak(subject, deadline=NO_END, clock=clock)


@pytest.mark.parametrize("repeated", [60, 200])
def test_copies_on_both_sides_are_a_leak(repeated):
    subject = subject_of(get_advice(pl.concat([columns(200), columns(200).head(repeated)]), "y"))
    found = leak(subject)
    assert found.passed is False and "copies" in found.cause and "--group-column" in found.fix
    assert 0 < found.numbers["copies"] <= len(subject.split.validation)


def test_validation_rows_that_train_are_a_leak(table):
    data, configuration = table.data.dataset("train"), table.recommendation.configuration
    rows = np.arange(len(data))
    assert leak(Subject.of(configuration, data, Split(rows, rows[::2]), seed=0)).passed is False


def test_without_copies_there_is_no_leak(table):
    found = leak(subject_of(table))
    assert found.passed and found.numbers["copies"] == 0


def test_a_copy_or_two_are_no_leak():
    found = leak(subject_of(get_advice(pl.concat([columns(300), columns(300).head(3)]), "y")))
    assert found.passed is True


def test_a_leak_cannot_be_judged_before_the_training_rows_are_learnt(table):
    found = check_no_leak(subject_of(table, learning_rate=1e-7), deadline=-1.0, clock=clock)
    assert found.passed is None and "--seconds" in found.words


def test_inputs_of_few_values_are_no_copies():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 3, (400, 3))
    frame = pl.DataFrame(
        {f"x{i}": x[:, i].astype(str) for i in range(3)} | {"y": x[:, 0] + draw.normal(size=400)}
    )
    data = get_advice(frame, "y").data.dataset("train")
    assert len(np.unique(contents(data))) <= 27
    assert len(np.unique(copies(data))) == len(data) == len(np.unique(meaningless(data, 0).target))


def test_labels_without_meaning_go_with_copies(table):
    data = table.data.dataset("train")
    twice = data.part(np.repeat(np.arange(len(data)), 2))
    drawn = meaningless(twice, 0).target
    assert (drawn[::2] == drawn[1::2]).all() and set(drawn) == {0, 1} and (drawn != twice.target).any()
    assert len(np.unique(contents(blank(data)))) == 1


def test_a_map_that_vanishes_is_no_network(advices):
    subject = subject_of(advices["image"], stages=6)
    found = check_plan(subject)
    assert found.passed is False and "fewer stages" in found.fix and "nothing is left" in found.cause
    advice = advices["image"]
    broken = dict(advice.recommendation.configuration) | {"stages": 6}
    stopped = preflight(replace(advice, recommendation=SimpleNamespace(configuration=broken)))
    assert [check.check for check in stopped.failed] == ["plan"] and len(stopped.checks) == 2


def test_too_large_a_batch_does_not_fit(advices):
    for kind in ("table", "image", "sequence"):
        subject = subject_of(advices[kind], batch_size=1000)
        assert check_memory(subject, {"memory.available_gb": 4.0}).passed
        tight = check_memory(subject, {"memory.available_gb": 0.0002})
        assert tight.passed is False and "--fixed batch_size=" in tight.fix
        assert check_memory(subject, {}).passed is None


def test_memory_is_counted_as_the_pass_keeps_it():
    network = torch.nn.Sequential(torch.nn.Linear(10, 50), torch.nn.Tanh(), torch.nn.Linear(50, 1))
    x = torch.randn(64, 10)

    def loss_of(rows):
        return network(x[:rows]).sum()

    # the input of either layer; tanh keeps its output, which is the second one's input
    assert kept_bytes(loss_of, 64, network) == 4 * 64 * (10 + 50)


def test_the_edge_of_memory():
    assert edge(1000, lambda rows: 100 + 9 * rows) == 100
    assert edge(50, lambda rows: 100 + 9 * rows) == 0


def test_the_knee_is_the_smallest_batch_near_the_best():
    assert knee({16: 100.0, 32: 190.0, 64: 205.0, 128: 200.0}) == 32
    assert knee({16: 7.0}) == 16


def test_rates_of_a_step_that_costs_the_same_for_every_batch():
    now = [0.0]

    def step(rows):
        now[0] += 0.01

    found = rates(step, seconds=10, clock=lambda: now[0])
    assert found == {size: pytest.approx(size * 100) for size in (16, 32, 64, 128, 256, 512, 1024)}
    assert knee(found) == 1024
    assert list(rates(step, seconds=0.001, clock=lambda: now[0])) == [16]


def test_rates_end_where_the_memory_does():
    def step(rows):
        if rows > 100:
            raise torch.OutOfMemoryError

    assert list(rates(step, seconds=10)) == [16, 32, 64]
    with pytest.raises(torch.OutOfMemoryError):
        rates(step, seconds=10, sizes=[128])


def test_little_time_means_fewer_epochs_then_fewer_rows(table):
    subject = subject_of(table)
    rows = len(subject.split.train) + len(subject.split.validation)
    assert affordable(subject, 1000.0, NO_END)[1] == 15
    same, epochs = affordable(subject, rows, 12.0)
    assert same is subject and epochs == 8
    fewer, epochs = affordable(subject, rows, 4.0)
    assert epochs == 5 and len(fewer.split.train) < len(subject.split.train)
    assert set(fewer.split.train).isdisjoint(fewer.split.validation)
    assert affordable(subject, rows, 0.1)[1] == 0
    assert check_inputs_count(subject, 0).passed is None


def test_a_budget_must_be_one(table):
    with pytest.raises(UserError, match="more than 0 seconds"):
        preflight(table, seconds=0)


# ------------------------------------------------------------------------------------------------ the command

FACTORY = """
from torch import nn

def sound():
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return net

def softmax():
    return nn.Sequential(*sound(), nn.Softmax(1))
"""


def run(*arguments):
    """The exit code and stdout; a UserError as the line that the command line would print."""
    result = CliRunner().invoke(cli.cli, ["check", *map(str, arguments)], standalone_mode=False)
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    assert result.exception is None, result.exception
    return result.return_value or 0, result.stdout


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "check_factories.py").write_text(FACTORY)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    return tmp_path


def test_check_of_data_writes_nothing(sources, here):
    before = sorted(here.rglob("*"))
    code, out = run(sources["table"][0], "--target", "y", "--seconds", "10", "--json")
    document = json.loads(out)
    assert code == (0 if document["passed"] else 3)
    assert document["checks"][0]["check"] == "plan"
    assert [p for p in sorted(here.rglob("*")) if "__pycache__" not in str(p)] == before


def test_check_with_out_keeps_the_result_in_the_run_folder(sources, here):
    run(sources["table"][0], "--target", "y", "--seconds", "5", "--out", here / "kept")
    kept = json.loads((here / "kept" / "preflight.json").read_text())
    assert (here / "kept" / "recommendation.yaml").is_file() and kept["checks"]
    code, out = run(here / "kept", "--seconds", "5")
    assert code in (0, 3) and "one-batch" in out


def test_check_of_ones_own_network(sources, here):
    assert run("--module", "check_factories:sound", "--input-shape", "4")[0] == 0
    assert run("--module", "check_factories:sound", sources["table"][0], "--target", "y")[0] == 0
    code, out = run("--module", "check_factories:softmax", sources["table"][0], "--target", "y", "--json")
    assert code == 3 and json.loads(out)["findings"][0]["code"] == "softmax-before-cross-entropy"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to check"),
        (("nothing.csv", "--target", "y"), "nothing.csv"),
        (("--module", "check_factories:sound"), "give either DATA or --input-shape"),
        (
            ("--module", "check_factories:sound", "--input-shape", "4", "--batch-size", "0"),
            "--batch-size must be at least 1",
        ),
        (("--module", "check_factories:sound", "--input-shape", "5"), "does not take an input of 32 x 5"),
        (("--module", "check_factories:other", "--input-shape", "4"), "has no 'other'"),
        (("--input-shape", "4"), "say what to check"),
    ],
)
def test_what_cannot_be_checked_is_one_line_and_exit_code_2(here, arguments, said):
    code, line = run(*arguments)
    assert code == 2 and said in line and "\n" not in line


def test_a_squeezed_target_is_the_one_that_training_sees(tmp_path):
    """Regression: with a median of 0 the pre-flight left the target as it was, and training squeezed it."""
    draw = np.random.default_rng(0)
    amount = np.where(draw.random(300) < 0.6, 0.0, np.exp(draw.normal(3, 2, 300)))
    frame = pl.DataFrame({"x": np.log1p(amount) + draw.normal(0, 0.1, 300), "y": amount})
    subject = subject_of(get_advice(frame, "y", AdviceOptions(fixed={"target_transform": "log"})))
    seen = subject.target.numpy()
    trained = subject.data.target[subject.split.train]
    knee = np.abs(trained).max()
    squeezed = np.sign(trained) * np.log1p(np.abs(trained) / knee)
    assert np.median(np.abs(trained)) == 0
    np.testing.assert_allclose(
        seen[subject.split.train], (squeezed - squeezed.mean()) / squeezed.std(), rtol=1e-4, atol=1e-4
    )
