"""Fixed convolutions and their linear network: kept, stacked, and trained as a model of series."""

import numpy as np
import pytest
import torch

import advisor
from advisor.dataset import Dataset, Signals
from advisor.networks.cost import SignalCost
from advisor.networks.kernel_network import KernelShape
from advisor.networks.kernels import KERNELS, MiniRocket, kernel_features
from advisor.rules import shipped
from advisor.splits import Split
from advisor.training.modalities import inputs_of, prepare

FIXED = {"network": "kernels", "kernel_features": 1008}


def configured(**changes):
    return shipped.base_space("sequence").complete({**FIXED, **changes})


def waves(rows=60, length=40, channels=1):
    """Slow or fast waves with noise, the class is which; a third of them is shorter."""
    draw = np.random.default_rng(0)
    codes = np.arange(rows) % 2
    time = np.arange(length)
    values = np.sin(np.where(codes, 0.9, 0.3)[:, None] * time + draw.uniform(0, 6, rows)[:, None])
    values = np.repeat(values[:, None], channels, axis=1) + 0.3 * draw.normal(size=(rows, channels, length))
    values[::3, :, length - 8 :] = np.nan
    return values.astype(np.float32), codes


@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_are_kept_as_arrays(channels):
    series = np.random.default_rng(1).normal(size=(9, channels, 33)).astype(np.float32)
    fitted = MiniRocket.fit(series, 420)
    again = MiniRocket.from_arrays(fitted.arrays())
    np.testing.assert_array_equal(again.transform(series), fitted.transform(series))
    assert fitted.transform(series).shape == (9, 420) and len(KERNELS) == 84


def test_a_split_sees_its_training_rows_alone():
    values, codes = waves()
    data = Dataset(Signals(values), codes, "binary", ("0", "1"))
    rows = np.arange(60)
    splits = [Split(rows[:40], rows[40:]), Split(rows[20:], rows[:20])]
    prepared = prepare(configured(), data, splits)
    changed = values.copy()
    changed[40:] += 5.0  # none of them trains in the first split
    again = prepare(configured(), Dataset(Signals(changed), codes, "binary", ("0", "1")), splits)
    everyone = torch.arange(40).expand(2, -1)
    [one], [other] = (inputs.inputs(everyone, torch.tensor([0, 1])) for inputs in (prepared, again))
    assert one.shape == (2, 40, 1008) and torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    new = inputs_of("sequence", configured()).of_new_rows(
        prepared.preprocessors, prepared.shape, Signals(values[:40]), "cpu"
    )
    torch.testing.assert_close(new.inputs(everyone, torch.tensor([0, 1]))[0], one)


def test_the_network_begins_at_the_class_shares_and_no_member_sees_another():
    prior = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    network = KernelShape(12).network(configured(), 2, members=2, generator=torch.Generator(), prior=prior)
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x), prior.unsqueeze(1).expand(2, 5, 2))
    network(x)[0].sum().backward()
    assert network.head.weight.grad[0].abs().sum() > 0 and not network.head.weight.grad[1].any()
    assert network.decayed() == [network.head.weight] and network.rows_per_pass > 0


def test_what_it_takes_is_told_by_the_number_of_features():
    cost = SignalCost(1, (40,), 3)
    few, many = configured(), configured(kernel_features=9996)
    assert (kernel_features(few), kernel_features(configured(network="inception"))) == (1008, None)
    assert cost.memory(few, 32, 5, 5) < cost.memory(many, 32, 5, 5)
    assert cost.per_row(many) == (9996 * 3, 2 * 9996) and cost.refusal(many, 32, 5, None) is None


def test_more_series_than_fit_are_refused_before_their_features_are_made():
    cost = SignalCost(1, (40,), 3, rows=60_000)
    said = cost.refusal(configured(kernel_features=9996), 32, 5, 4e9)
    assert said is not None and "9,996 features of 60,000 series take about 24" in said
    assert cost.refusal(configured(), 32, 5, 4e9) is None


@pytest.mark.slow
def test_few_series_are_advised_fixed_convolutions_which_learn_and_are_kept(tmp_path):
    values, codes = waves(channels=2)
    np.savez(tmp_path / "s.npz", X=values, y=codes)
    advised = advisor.recommend(tmp_path / "s.npz")
    assert advised.configuration["network"] == "kernels"
    fixed = {"epochs": 40, "folds": 2, "kernel_features": 1008}
    run = advisor.train(tmp_path / "s.npz", out=tmp_path / "run", progress=False, fixed=fixed)
    network, *_ = run.document["test"]["results"]
    assert network["accuracy"] >= 0.9
    kept = advisor.load_model(tmp_path / "run")
    np.testing.assert_array_equal(kept.predict(values), run.model.predict(values))
    assert "fixed convolutions" in (tmp_path / "run" / "report.html").read_text()
