"""The baselines of series and images: the published algorithms, fast, and with honest probabilities."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from advisor.dataset import Dataset, Signals
from advisor.evaluation.by_target import fit_baselines
from advisor.evaluation.signal_baselines import Ridge, fit_signal_baseline, gradient_histograms
from advisor.networks.kernels import KERNELS, MiniRocket, dilations_of, whole
from advisor.tasks import BINARY

AEON = dict(np.load(Path(__file__).parents[1] / "fixtures" / "minirocket" / "features.npz"))
"""What aeon's MiniRocket makes of two small sets; see make.py beside it."""


def of_aeon(name):
    """Our transform with the parameters that aeon's drew."""
    per_dilation, counts = AEON[f"{name}.per_dilation"], AEON[f"{name}.channel_counts"]
    ends = np.cumsum(counts)
    channels = [AEON[f"{name}.channels"][end - count : end] for end, count in zip(ends, counts, strict=True)]
    size = len(KERNELS)
    cuts = np.cumsum(per_dilation * size)[:-1]
    quantiles = [part.reshape(size, -1) for part in np.split(AEON[f"{name}.biases"], cuts)]
    grouped = [tuple(channels[n * size : (n + 1) * size]) for n in range(len(per_dilation))]
    return MiniRocket(AEON[f"{name}.dilations"].astype(np.int64), tuple(quantiles), tuple(grouped))


@pytest.mark.parametrize("name", ["one", "several"])
def test_the_features_are_those_of_aeon(name):
    series = AEON[f"{name}.series"]
    ours = of_aeon(name).transform(series)
    # a point that lies on a quantile may fall on either side: sums of 32-bit numbers in another order
    assert np.abs(ours - AEON[f"{name}.features"]).max() <= 2 / series.shape[2]
    assert (np.abs(ours - AEON[f"{name}.features"]) < 1e-6).mean() > 0.99


def test_dilations_and_quantiles_are_those_of_aeon():
    dilations, counts = dilations_of(61, 420)
    assert (dilations == AEON["one.dilations"]).all() and (counts == AEON["one.per_dilation"]).all()
    fitted = MiniRocket.fit(AEON["one.series"][:1], 420)
    np.testing.assert_allclose(
        np.concatenate([q.ravel() for q in fitted.quantiles]), AEON["one.biases"], atol=1e-4
    )


def test_gaps_and_short_series_are_filled():
    values = np.array([[[np.nan, 1.0, np.nan, 3.0]], [[np.nan] * 4]], np.float32)
    assert whole(values)[0, 0, :4].tolist() == [1, 1, 1, 3] and whole(values).shape == (2, 1, 9)
    assert not np.isnan(whole(values)).any()


def test_a_row_left_out_is_predicted_as_by_a_model_without_it():
    draw = np.random.default_rng(0)
    for features in (5, 60):  # fewer and more than rows
        x = draw.normal(size=(30, features)).astype(np.float32)
        y = x[:, :1] * 2 + draw.normal(size=(30, 1))
        model = Ridge.fit(x, y.astype(float))
        assert np.corrcoef(model.predict(x)[:, 0], y[:, 0])[0, 1] > 0.8
        assert np.square(model.left_out - y).mean() > np.square(model.predict(x) - y).mean()


def sines(rows, classes=2, seed=0):
    draw = np.random.default_rng(seed)
    target = np.arange(rows) % classes
    time = np.arange(80) / 80
    values = np.sin(2 * np.pi * (3 + 2 * target[:, None]) * (time + draw.random((rows, 1)))) + draw.normal(
        0, 0.5, (rows, 80)
    )
    return Dataset(Signals(values[:, None].astype(np.float32)), target, "binary", ("0", "1"))


def test_series_are_told_apart_with_probabilities_that_a_log_loss_can_judge():
    train, test = sines(60), sines(200, seed=1)
    name, scores = fit_signal_baseline(train)
    shares = scores(test.features)
    assert name == "MiniRocket" and np.allclose(shares.sum(axis=1), 1)
    assert (shares.argmax(axis=1) == test.target).mean() > 0.95
    assert BINARY.row_losses(test.target, shares).mean() < 0.3
    assert "MiniRocket" in fit_baselines(train)


def test_a_regression_of_series():
    train = sines(60)
    speed = Dataset(
        train.features, train.features.values[:, 0].std(axis=1).astype(float) * 10 + 1e6, "regression"
    )
    _, scores = fit_signal_baseline(speed)
    assert np.corrcoef(scores(speed.features), speed.target)[0, 1] > 0.9


def test_images_are_told_apart_by_their_gradients():
    digits = load_digits()
    images, target = digits.images[:, None].astype(np.uint8), digits.target
    data = Dataset(Signals(images[:900]), target[:900], "multiclass", tuple(map(str, range(10))))
    name, scores = fit_signal_baseline(data)
    assert name == "gradient histograms"
    assert (scores(Signals(images[900:])).argmax(axis=1) == target[900:]).mean() > 0.9
    assert gradient_histograms(np.zeros((2, 3, 1, 5), np.uint8)).shape[0] == 2
