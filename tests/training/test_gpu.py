"""What runs on a GPU alone; skipped without one. The same tests as on a CPU where that
can be: what is learnt must agree."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_preflight import columns, image_file, series_file
from test_signal_runs import SMALL, pictures, waves
from test_training import folds, holdout, line, mixed, run

import advisor
from advisor.dataset import Dataset, Signals
from advisor.executors.base import ENDS, Failed, Finished, InProcessExecutor
from advisor.networks.geometry import memory_bytes
from advisor.networks.plan import plan_of
from advisor.objectives import networks as objective
from advisor.objectives.jobs import WorkerData, search_job
from advisor.rules import shipped
from advisor.training.class_balance import SYNTHETIC
from advisor.training.cuda_graphs import RecordedPass
from advisor.training.modalities import cost_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"),
]
BASE = {
    "table": {"width": 32, "hidden_layers": 2, "epochs": 3, "batch_size": 32},
    "image": {"width": 8, "epochs": 3, "batch_size": 16, "validation": "holdout"},
    "sequence": {"width": 8, "epochs": 3, "batch_size": 16, "validation": "holdout"},
}


def signals(kind, rows=96):
    if kind == "image":
        images, labels = pictures(rows, size=16, colour=True)
        return Dataset(
            Signals(images.transpose(0, 3, 1, 2).copy()),
            labels.astype(np.int64),
            "binary",
            ("lower", "upper"),
        )
    series, labels = waves(rows)
    series[::3, :, 25:] = np.nan
    return Dataset(Signals(series), labels.astype(np.int64), "binary", ("slow", "fast"))


DATA = {"table": mixed(), "image": signals("image"), "sequence": signals("sequence")}


def every_value():
    """Each value of each choice, and the ends of each range, one at a time."""
    for kind, base in BASE.items():
        space = shipped.base_space(kind)
        for name, parameter in space.parameters.items():
            if parameter.topic == "plan" or name in (
                "width",
                "epochs",
                "batch_size",
                "gpus_per_trial",
                "compiled",
            ):
                continue
            values = parameter.choices or {parameter.low, parameter.high, *((0,) if parameter.zero else ())}
            for value in sorted(values, key=str):
                changes = {**base, name: value}
                if kind != "table" and value in SYNTHETIC:
                    continue
                if kind == "table" or fits(kind, space.complete(changes)):
                    yield pytest.param(kind, changes, id=f"{kind}-{name}={value}")


def fits(kind, configuration):
    return cost_of(DATA[kind]).refusal(configuration, configuration["batch_size"], 1, None) is None


def losses(kind, configuration, device, **more):
    data = DATA[kind]
    splits = folds(data) if kind == "table" else holdout(data)
    epochs, fitted = run(configuration, data, splits, device=device, **more)
    return np.array([epoch.validation_loss for epoch in epochs]), fitted


@pytest.mark.parametrize("kind, changes", list(every_value()))
def test_every_value_learns_on_a_gpu_what_it_learns_on_a_cpu(kind, changes):
    configuration = shipped.base_space(kind).complete({"dropout": 0.0, **changes})
    there, fitted = losses(kind, configuration, "cuda")
    if configuration["dropout"]:  # drawn on the device, where other numbers come
        assert np.isfinite(there).all()
    else:
        here, _ = losses(kind, configuration, "cpu")
        half = configuration.get("precision") == "mixed"
        np.testing.assert_allclose(there, here, rtol=0.3 if half else 0.05, atol=0.02)
    features = DATA[kind].features
    np.testing.assert_allclose(fitted.predict(features, "cuda"), fitted.predict(features), atol=0.02)


@pytest.mark.parametrize("data", [line(), line(noise=10.0)], ids=["line", "noisy"])
def test_a_regression_learns_the_same(data):
    for transform in ("none", "log"):
        configuration = shipped.base_space().complete(
            {**BASE["table"], "target_transform": transform, "dropout": 0.0}
        )
        (here, _), (there, _) = (run(configuration, data, device=device) for device in ("cpu", "cuda"))
        for one, other in zip(here, there, strict=True):
            assert one.validation_loss == pytest.approx(other.validation_loss, rel=0.05)


@pytest.mark.parametrize("kind", ["image", "sequence"])
def test_mixed_precision_channels_last_and_compiling_learn_the_same(kind):
    plain = shipped.base_space(kind).complete({**BASE[kind], "dropout": 0.0})
    fast = plain | {"precision": "mixed", "memory_format": "channels_last"}
    expected, _ = losses(kind, plain, "cuda")
    for configuration in (fast, fast | {"compiled": True}, fast | {"dropout": 0.2, "compiled": True}):
        found, fitted = losses(kind, configuration, "cuda")
        assert np.isfinite(found).all()
        if not configuration["dropout"]:
            np.testing.assert_allclose(found, expected, rtol=0.3, atol=0.02)
        assert all(tensor.dtype != torch.bfloat16 for tensor in fitted.state.values())


def steps(forward, network, inputs):
    """Losses and gradients of some steps, in which a recorded pass has its first
    two, and replays the others."""
    found = []
    for step in range(5):
        network.zero_grad()
        out = forward(*(part[: 16 - step % 2] for part in inputs))
        out.square().mean().backward()
        found.append(
            [float(out.detach().square().mean()), *(float(p.grad.norm()) for p in network.parameters())]
        )
    return np.array(found)


class Waits(torch.nn.Linear):
    """A network whose pass asks for a number on the way."""

    def forward(self, x, noise=None):
        out = super().forward(x)
        return out * 2 if float(out.detach().sum()) > 1e9 else out


class Drops(torch.nn.Linear):
    def forward(self, x, noise=None):
        return super().forward(x * torch.empty_like(x).bernoulli_(0.5, generator=noise))


@pytest.mark.parametrize("network, replayed", [(torch.nn.Linear, True), (Drops, True), (Waits, False)])
def test_a_recorded_pass_is_the_pass(network, replayed):
    torch.manual_seed(0)
    made, x = network(6, 3).cuda(), torch.randn(16, 6, device="cuda")
    noise = torch.Generator("cuda").manual_seed(1)
    takes_noise = network is not torch.nn.Linear

    def forward(x):
        return made(x, noise) if takes_noise else made(x)

    recorded = RecordedPass(forward, made, noise)
    found = steps(recorded, made, [x])
    assert recorded.replayed() is replayed
    # each stream would keep 64 MB for good, of which the test below sees nothing
    # once torch has used all of its 32
    assert recorded.stream == RecordedPass(forward, made, noise).stream
    assert torch.isfinite(torch.rand(3, device="cuda")).all()  # torch's own generator is as it was
    if network is not Drops:
        np.testing.assert_allclose(found, steps(forward, made, [x]), rtol=1e-5)
    else:
        outs = {float(recorded(x).detach().sum()) for _ in range(8)}
        assert len(outs) == 8  # each replay draws anew


def test_a_training_leaves_no_memory_behind():
    configuration = shipped.base_space("image").complete({**BASE["image"], "width": 64})
    losses("image", configuration, "cuda")  # libraries keep what they set up
    before = torch.cuda.memory_allocated()
    gc.disable()
    try:
        losses("image", configuration, "cuda")
        assert torch.cuda.memory_allocated() == before
    finally:
        gc.enable()


def test_rows_that_stay_in_main_memory_are_trained_on_alike(monkeypatch):
    plain = shipped.base_space("image").complete({**BASE["image"], "dropout": 0.0})
    expected, _ = losses("image", plain, "cuda")
    monkeypatch.setattr("advisor.training.signal_inputs.DEVICE_BYTES", 0)
    found, _ = losses("image", plain, "cuda")
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.005)


def large(rows=256, side=64):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (rows, 3, side, side), dtype=np.uint8)
    return Dataset(Signals(images), np.arange(rows) % 2, "binary", ("a", "b"))


def peak_of(configuration, data, **more):
    """Bytes that a training takes at most, beside what libraries keep once they
    are set up; and its last loss."""
    run(configuration | {"epochs": 4, "width": 8}, data, holdout(data), device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    epochs, _ = run(configuration, data, holdout(data), device="cuda", **more)
    return torch.cuda.max_memory_allocated() - before, epochs[-1].validation_loss


def test_micro_batches_need_less_memory_and_keep_the_batch():
    configuration = shipped.base_space("image").complete(
        {"validation": "holdout", "epochs": 2, "batch_size": 128, "width": 32, "norm": "none", "dropout": 0.0}
    )
    (whole, expected), (parts, found) = (
        peak_of(configuration, large(), micro_batch=micro) for micro in (None, 16)
    )
    assert parts < 0.5 * whole
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("width, batch", [(16, 64), (64, 64), (32, 256)])
def test_the_memory_of_a_network_is_predicted_within_a_factor_of_two(width, batch):
    configuration = shipped.base_space("image").complete(
        {"validation": "holdout", "epochs": 1, "batch_size": batch, "width": width, "dropout": 0.0}
    )
    peak, _ = peak_of(configuration, large(512))
    assert 0.5 < peak / memory_bytes(plan_of(configuration, 3, (64, 64)), 2, batch) < 2


def test_a_trial_that_is_out_of_memory_says_so_and_fits_in_micro_batches():
    data = large(512)
    configuration = shipped.base_space("image").complete(
        {
            "validation": "holdout",
            "epochs": 1,
            "batch_size": 256,
            "width": 64,
            "dropout": 0.0,
            "block": "residual",
        }
    )
    asked = search_job(configuration, 0, 0)
    total = torch.cuda.get_device_properties(0).total_memory
    losses("image", configuration | {"width": 8, "batch_size": 16}, "cuda")  # libraries keep what they set up
    gc.collect()
    torch.cuda.empty_cache()
    most = 1.5e9 + torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(most / total)
    try:
        executor = InProcessExecutor(objective.TrainingObjective, WorkerData(data, 0))
        executor.submit(asked.as_job("whole"))
        whole = ended(executor)
        executor.submit(replace(asked, micro_batch=16).as_job("parts"))
        parts = ended(executor)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert isinstance(whole, Failed) and whole.cause == "out of memory", whole
    assert isinstance(parts, Finished), parts
    assert parts.result.peak_memory <= most


def ended(executor):
    while True:
        for event in executor.poll(1.0):
            if isinstance(event, ENDS):
                return event


@pytest.mark.parametrize("kind", ["table", "image", "sequence"])
def test_the_preflight_passes_on_a_gpu(kind, tmp_path):
    from advisor.checks.preflight import preflight
    from advisor.workflows.recommend import get_advice, reading_of

    advice = get_advice(*source(kind, tmp_path), reading_of({}))
    result = preflight(advice, seconds=20.0)
    assert result.passed, str(result)
    memory = next(check for check in result.checks if check.check == "memory")
    assert memory.passed, memory


def source(kind, here):
    if kind == "table":
        columns().write_csv(here / "table.csv")
        return here / "table.csv", "y"
    return (image_file if kind == "image" else series_file)(here), None


@pytest.mark.parametrize("kind", ["table", "image", "sequence"])
def test_trials_share_a_gpu(kind, tmp_path):
    data, target = source(kind, tmp_path)
    fixed = {name: value for name, value in SMALL.items() if kind != "table" or name == "epochs"}
    tuned = advisor.tune(
        data, target, out=tmp_path / "run", trials=6, workers=3, gpus_per_worker=0.25, fixed=fixed, seed=0
    )
    placed = tuned.document["search"]["packing"]
    assert len(placed) >= 6 and all("gpu" in row["device"] and row["peak_memory"] > 0 for row in placed)
    assert max(row["peak_memory"] for row in placed) < 4e9
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Memory of the GPUs" in report


@pytest.mark.parametrize("kind", ["table", "image"])
def test_images_train_on_a_gpu_unasked_and_tables_do_not(kind, tmp_path):
    data, target = source(kind, tmp_path)
    fixed = {name: value for name, value in SMALL.items() if kind != "table" or name == "epochs"}
    tuned = advisor.tune(data, target, out=tmp_path / "run", trials=4, fixed=fixed, seed=0)
    assert {"gpu" in row["device"] for row in tuned.document["search"]["packing"]} == {kind == "image"}


def test_a_group_of_one_process_trains_through_nccl(tmp_path):
    from advisor.training.data_parallel import Ranks

    torch.distributed.init_process_group(
        "nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        configuration = shipped.base_space("image").complete({**BASE["image"], "dropout": 0.0})
        expected, _ = losses("image", configuration, "cuda")

        class Group(Ranks):
            def parallel(self, network):
                return torch.nn.parallel.DistributedDataParallel(network)

        found, _ = losses("image", configuration, "cuda", ranks=Group())
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.01)
        value = torch.ones(3, device="cuda")
        torch.distributed.all_reduce(value)
        assert value.tolist() == [1.0, 1.0, 1.0]
    finally:
        torch.distributed.destroy_process_group()
