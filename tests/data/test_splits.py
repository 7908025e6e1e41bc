"""Splits: what every split promises, for any data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.dataset import Dataset, Features
from advisor.errors import UserError
from advisor.splits import make_splits


def dataset(target, *, groups=None, times=None, regression=False):
    rows = len(target)
    features = Features(np.zeros((rows, 1)), np.zeros((rows, 0), np.int32), ("a",), (), ())
    target = np.asarray(target, float if regression else np.int64)
    classes = () if regression else tuple(str(code) for code in range(int(target.max(initial=0)) + 1))
    task = "regression" if regression else "multiclass"
    as_codes = (None if codes is None else np.asarray(codes, np.int64) for codes in (groups, times))
    return Dataset(features, target, task, classes, *as_codes)


def splits(data, scheme="kfold", folds=5, fraction=0.2, seed=0, repeat=0):
    return make_splits(data, scheme=scheme, folds=folds, fraction=fraction, seed=seed, repeat=repeat)


@st.composite
def datasets(draw):
    rows = draw(st.integers(2, 60))
    codes = st.lists(st.integers(0, draw(st.integers(0, 8))), min_size=rows, max_size=rows)
    kind = draw(st.sampled_from(["plain", "groups", "times", "both"]))
    groups = draw(codes) if kind in ("groups", "both") else None
    times = draw(codes) if kind in ("times", "both") else None
    return dataset(draw(codes), groups=groups, times=times, regression=draw(st.booleans()))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    datasets(),
    st.sampled_from(["kfold", "holdout"]),
    st.integers(2, 7),
    st.floats(0.05, 0.5),
    st.integers(0, 9),
)
def test_validation_rows_never_train(data, scheme, folds, fraction, repeat):
    if scheme == "kfold" and folds > len(data):
        folds = len(data)
    try:
        found = splits(data, scheme, folds, fraction, repeat=repeat)
    except UserError as error:
        assert "one group" in str(error) or "the same time" in str(error)
        return
    assert 1 <= len(found) <= (folds if scheme == "kfold" else 1)
    validated: list[int] = []
    for split in found:
        train, validation = set(split.train.tolist()), set(split.validation.tolist())
        assert train and validation and not train & validation
        assert train | validation <= set(range(len(data)))
        assert split.train.dtype == split.validation.dtype == np.int64
        assert (np.diff(split.train) > 0).all() and (np.diff(split.validation) > 0).all()
        validated += split.validation.tolist()
        if data.groups is not None:
            assert not set(data.groups[split.train]) & set(data.groups[split.validation])
        elif data.times is not None:
            assert data.times[split.train].max() < data.times[split.validation].min()
        else:
            assert train | validation == set(range(len(data)))
    assert len(validated) == len(set(validated)), "folds share validation rows"
    if scheme == "kfold" and data.times is None:
        assert sorted(validated) == list(range(len(data)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=20, max_size=80), st.integers(2, 6), st.integers(0, 3))
def test_folds_hold_each_class_in_its_share(target, folds, repeat):
    data = dataset(target)
    counts = np.bincount(data.target, minlength=4)
    for split in splits(data, folds=folds, repeat=repeat):
        share = len(split.validation) / len(data)
        here = np.bincount(data.target[split.validation], minlength=4)
        assert (np.abs(here - counts * share) < 2).all()


def test_a_class_smaller_than_the_folds_is_no_obstacle():
    data = dataset([0] * 20 + [1] * 2 + [2])
    assert len(splits(data, folds=10)) == 10
    assert len(splits(data, "holdout", fraction=0.1)) == 1


def test_holdout_has_the_fraction_and_repeats_are_disjoint_while_rows_last():
    data = dataset(np.arange(100) % 3)
    seen: set[int] = set()
    for repeat in range(4):
        (split,) = splits(data, "holdout", fraction=0.25, repeat=repeat)
        assert len(split.validation) == 25
        assert not seen & set(split.validation.tolist())
        seen |= set(split.validation.tolist())
    assert len(seen) == 100
    (again,) = splits(data, "holdout", fraction=0.25, repeat=4)
    assert not np.array_equal(again.validation, splits(data, "holdout", fraction=0.25)[0].validation)


def test_repeats_and_seeds_give_other_partitions_and_the_same_call_the_same_one():
    for data in (dataset(np.arange(60) % 3), dataset(np.zeros(60), groups=np.arange(60) // 4)):
        first, same, other = splits(data), splits(data), splits(data, repeat=1)
        assert all(np.array_equal(a.validation, b.validation) for a, b in zip(first, same, strict=True))
        assert any(not np.array_equal(a.validation, b.validation) for a, b in zip(first, other, strict=True))
        seeded = splits(data, seed=1)
        assert any(not np.array_equal(a.validation, b.validation) for a, b in zip(first, seeded, strict=True))


def test_rolling_origin_moves_forward_and_uses_all_earlier_rows():
    times = np.random.default_rng(0).permutation(60)
    found = splits(dataset(np.zeros(60), times=times, regression=True), folds=5)
    assert len(found) == 5
    for split in found:
        begin = times[split.validation].min()
        assert set(times[split.train]) == set(range(begin))
        assert len(split.validation) == 10
    repeated = splits(dataset(np.zeros(60), times=times, regression=True), folds=5, repeat=1)
    assert [len(split.train) for split in repeated] != [len(split.train) for split in found]


def test_time_holdout_takes_the_latest_rows_and_repeats_go_back():
    times = np.arange(100)
    data = dataset(np.zeros(100), times=times, regression=True)
    assert splits(data, "holdout")[0].validation.tolist() == list(range(80, 100))
    assert splits(data, "holdout", repeat=1)[0].validation.tolist() == list(range(60, 80))


def test_few_groups_give_fewer_folds():
    data = dataset(np.arange(12) % 2, groups=np.arange(12) // 4)
    assert len(splits(data, folds=10)) == 3


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (dataset([0]), {}, "at least 2"),
        (dataset([0, 1, 0]), {"folds": 4}, "folds is 4"),
        (dataset([0, 1, 0]), {"folds": 1}, "folds is 1"),
        (dataset([0, 1, 0]), {"scheme": "holdout", "fraction": 0.0}, "validation_fraction is 0.0"),
        (dataset([0, 1, 0]), {"scheme": "holdout", "fraction": 1.0}, "between 0 and 1"),
        (dataset([0, 1, 0]), {"scheme": "loo"}, "expected kfold or holdout"),
        (dataset([0, 1, 0], groups=[1, 1, 1]), {"folds": 2}, "one group"),
        (dataset([0, 1, 0], times=[1, 1, 1]), {"folds": 2}, "the same time"),
    ],
)
def test_what_cannot_be_split_is_said(data, options, expected):
    with pytest.raises(UserError, match=expected):
        splits(data, **options)
