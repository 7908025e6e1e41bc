"""What networks for images and sequences read: scaling, missing points, augmentation, mixing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.dataset import Signals
from advisor.networks.convolutional import SignalShape
from advisor.rules import shipped
from advisor.splits import Split
from advisor.training.augmentation import augmented, mixed
from advisor.training.signal_inputs import (
    SignalInputs,
    SignalPreprocessor,
    interpolated,
)

IMAGE = {**shipped.base_space("image").complete({}), "scaling": "channel"}
SEQUENCE = {**shipped.base_space("sequence").complete({}), "scaling": "channel"}
EVERYONE = torch.tensor([0, 1])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(rows=12, channels=3, size=(6, 5)):
    return Signals(np.random.default_rng(0).integers(0, 256, (rows, channels, *size), dtype=np.uint8))


def series(rows=12, channels=2, length=9):
    return Signals(np.random.default_rng(0).normal(3.0, 2.0, (rows, channels, length)).astype(np.float32))


def halves(rows=12):
    first, second = np.arange(rows // 2), np.arange(rows // 2, rows)
    return [Split(first, second), Split(second, first)]


def all_rows(rows=12, members=2):
    return torch.arange(rows).expand(members, -1)


@pytest.mark.parametrize(("signals", "configuration"), [(images(), IMAGE), (series(), SEQUENCE)])
def test_each_split_scales_by_its_own_training_rows(signals, configuration):
    """D4: and a validation row that changes wildly changes nothing but itself."""
    (x,) = SignalInputs.prepare(configuration, signals, halves(), "cpu").inputs(all_rows(), EVERYONE)
    for member, split in enumerate(halves()):
        own = x[member, split.train].transpose(0, 1).flatten(1)
        torch.testing.assert_close(own.mean(dim=1), torch.zeros(len(own)), atol=1e-4, rtol=0)
        torch.testing.assert_close(own.std(dim=1, correction=0), torch.ones(len(own)), atol=1e-3, rtol=0)
    wild = signals.values.copy()
    wild[-1] = 255
    (y,) = SignalInputs.prepare(configuration, Signals(wild), halves(), "cpu").inputs(all_rows(), EVERYONE)
    torch.testing.assert_close(x[0, :6], y[0, :6])


def test_scaling_by_itself_removes_level_and_spread():
    configuration = {**SEQUENCE, "scaling": "instance"}
    plain = series()
    louder = Signals(plain.values * 7 + 100)
    one, other = (
        SignalInputs.prepare(configuration, s, halves(), "cpu").inputs(all_rows(), EVERYONE)[0]
        for s in (plain, louder)
    )
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    constant = Signals(np.full((12, 2, 9), 5.0, np.float32))
    assert (
        not SignalInputs.prepare(configuration, constant, halves(), "cpu")
        .inputs(all_rows(), EVERYONE)[0]
        .any()
    )


def test_a_constant_channel_stays_finite():
    (x,) = SignalInputs.prepare(IMAGE, Signals(np.zeros((12, 1, 4, 4), np.uint8)), halves(), "cpu").inputs(
        all_rows(), EVERYONE
    )
    assert not x.any()


def test_shorter_series_are_padded_and_a_channel_says_where_they_end():
    values = series().values.copy()
    values[3, :, 5:] = np.nan
    prepared = SignalInputs.prepare(SEQUENCE, Signals(values), halves(), "cpu")
    assert prepared.shape == SignalShape(3, (9,))
    (x,) = prepared.inputs(all_rows(), EVERYONE)
    assert not x[0, 3, :2, 5:].any()
    assert x[0, 3, 2].tolist() == [1.0] * 5 + [0.0] * 4
    assert x[0, 2, 2].all()


def test_gaps_are_filled_on_a_straight_line_and_ends_stay_missing():
    row = np.array([np.nan, 1.0, np.nan, np.nan, 4.0, np.nan], np.float32)
    filled = interpolated(row.reshape(1, 1, 6))[0, 0]
    np.testing.assert_allclose(filled, [np.nan, 1, 2, 3, 4, np.nan])
    whole = series().values
    assert interpolated(whole) is whole


def test_statistics_are_saved_and_read_back():
    fitted = SignalPreprocessor.fit(series(), np.arange(6), SEQUENCE, masked=True)
    again = SignalPreprocessor.from_arrays(fitted.scaling, fitted.arrays())
    (one,), (two,) = (
        SignalInputs([p], series()).inputs(all_rows(members=1), EVERYONE[:1]) for p in (fitted, again)
    )
    torch.testing.assert_close(one, two)


def test_rows_in_a_file_are_read_as_those_in_memory(tmp_path):
    kept = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(12, 3, 6, 5))
    kept[:] = images().values
    there = np.load(tmp_path / "images.npy", mmap_mode="r")
    memory, file = (
        SignalInputs.prepare(IMAGE, Signals(v), halves(), "cpu") for v in (images().values, there)
    )
    (one,), (two,) = memory.inputs(all_rows(), EVERYONE), file.inputs(all_rows(), EVERYONE)
    torch.testing.assert_close(one, two)


# ------------------------------------------------------------------ augmentation

CHANGES = {
    "image": [
        {"flip": "horizontal"}, {"flip": "vertical"}, {"flip": "both"}, {"shift": 0.2}, {"rotation": 20.0}, {"zoom": 0.3},
        {"brightness": 0.3}, {"cutout": 0.5},
    ],
    "sequence": [
        {"flip": "reversed"}, {"flip": "sign"}, {"shift": 0.3}, {"magnitude": 0.3}, {"jitter": 0.2}, {"cutout": 0.5},
    ],
}  # fmt: skip
EACH = [(kind, change) for kind, changes in CHANGES.items() for change in changes]


def batch(kind, rows=64):
    shape = (2, rows, 3, 8, 8) if kind == "image" else (2, rows, 2, 20)
    return torch.randn(shape, generator=seeded(9))


@pytest.mark.parametrize("kind", CHANGES)
def test_without_augmentation_nothing_changes(kind):
    x = batch(kind)
    assert torch.equal(augmented(x, IMAGE if kind == "image" else SEQUENCE, seeded()), x)


@pytest.mark.parametrize(("kind", "change"), EACH)
def test_each_change_changes_rows_by_itself_and_repeats_with_its_seed(kind, change):
    configuration, x = {**(IMAGE if kind == "image" else SEQUENCE), **change}, batch(kind)
    kept = x.clone()
    y = augmented(x, configuration, seeded(1))
    assert torch.equal(x, kept) and y.shape == x.shape
    assert torch.isfinite(y).all()
    assert torch.equal(y, augmented(x, configuration, seeded(1)))
    assert not torch.equal(y, augmented(x, configuration, seeded(2)))
    assert (y != x).flatten(2).any(dim=2).float().mean() > 0.3  # a flip leaves half of the rows as they are


@pytest.mark.parametrize(
    ("kind", "flip", "axis"),
    [("image", "horizontal", 4), ("image", "vertical", 3), ("sequence", "reversed", 3)],
)
def test_a_mirrored_row_is_the_mirrored_row(kind, flip, axis):
    x = batch(kind)
    y = augmented(x, {**(IMAGE if kind == "image" else SEQUENCE), "flip": flip}, seeded(1))
    same = (y == x).flatten(2).all(dim=2)
    mirrored = (y == x.flip(axis)).flatten(2).all(dim=2)
    assert (same | mirrored).all() and same.any() and mirrored.any()


def test_cutout_hides_a_window_of_the_share_asked_for():
    y = augmented(torch.ones(1, 200, 1, 20, 20), {**IMAGE, "cutout": 0.5}, seeded(1))
    hidden = (y == 0).flatten(2).float().mean(dim=2)
    assert hidden.max() == pytest.approx(0.25, abs=0.03)
    assert hidden.min() > 0


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0), st.integers(0, 1000))
def test_mixup_mixes_rows_and_losses_by_the_same_share(alpha, seed):
    x = torch.randn(3, 6, 2, 10, generator=seeded(seed))
    y, mix = mixed(x, alpha, seeded(seed))
    assert ((mix.share >= 0) & (mix.share <= 1)).all()
    share = mix.share.view(3, 1, 1, 1)
    torch.testing.assert_close(y, share * x + (1 - share) * x[:, mix.partner])
    torch.testing.assert_close(mix.loss(torch.ones(3), torch.zeros(3)), mix.share)


def test_mixup_shares_are_beta():
    """Beta(alpha, alpha) has mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    generator = seeded(3)
    shares = torch.cat([mixed(torch.zeros(50, 2, 1, 1), 0.4, generator)[1].share for _ in range(40)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * 1.8), rel=0.1)
