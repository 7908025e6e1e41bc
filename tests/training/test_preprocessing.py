"""Preprocessing: against naive implementations, from training rows alone (D4), and whatever columns come."""

import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.dataset import MISSING, UNSEEN, Cycle, Features
from advisor.training import preprocessing
from advisor.training.preprocessing import Preprocessor

SCALINGS = ["standard", "robust", "quantile"]
LEVELS = (("a", "b", "c"), tuple(f"level {k}" for k in range(12)))


def configured(**changes):
    return {
        "numeric_scaling": "standard",
        "numeric_embedding": "none",
        "numeric_embedding_bins": 4,
        "one_hot_max": 9,
    } | changes


def features(numeric, categorical=None, levels=LEVELS):
    numeric = np.asarray(numeric, dtype=np.float64)
    if categorical is None:
        categorical, levels = np.zeros((len(numeric), 0)), ()
    categorical = np.asarray(categorical, dtype=np.int32)
    names = [
        tuple(f"{kind}{j}" for j in range(a.shape[1])) for kind, a in (("x", numeric), ("c", categorical))
    ]
    return Features(numeric, categorical, *names, levels)


def column(values):
    return features(np.asarray(values, dtype=np.float64)[:, None])


def fitted(data, rows=None, **changes):
    return Preprocessor.fit(
        data, np.arange(len(data)) if rows is None else np.asarray(rows), configured(**changes)
    )


def scaled(values, scaling, training=None):
    """One column, fitted on its first `training` values."""
    data = column(values)
    return fitted(data, range(training or len(data)), numeric_scaling=scaling).transform(data).numeric[:, 0]


def mixed(seed=0, rows=60):
    """Numbers with missing values, a short and a long categorical column with missing and unseen levels."""
    rng = np.random.default_rng(seed)
    numeric = rng.lognormal(size=(rows, 4))
    numeric[rng.random(numeric.shape) < 0.1] = np.nan
    numeric[:, 3] = 7.0
    categorical = np.column_stack([rng.integers(UNSEEN, len(levels), rows) for levels in LEVELS])
    return features(numeric, categorical)


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("numeric", "indicators", "codes")
    )


def at(inputs, rows):
    return preprocessing.Inputs(inputs.numeric[rows], inputs.indicators[rows], inputs.codes[rows])


# D4: nothing of a validation row enters


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 999),
    st.sampled_from(SCALINGS),
    st.sampled_from(["none", "piecewise_linear"]),
    st.lists(st.floats(-1e300, 1e300) | st.just(float("nan")), min_size=4, max_size=4),
    st.tuples(st.integers(UNSEEN, 2), st.integers(UNSEEN, 11)),
)
def test_a_validation_row_changes_nothing_for_the_others(seed, scaling, embedding, numbers, codes):
    before = mixed(seed)
    training = np.arange(0, 60, 2)
    numeric, categorical = before.numeric.copy(), before.categorical.copy()
    numeric[1::2], categorical[1::2] = numbers, codes
    after = features(numeric, categorical)
    one, other = (
        fitted(d, training, numeric_scaling=scaling, numeric_embedding=embedding) for d in (before, after)
    )
    for name, array in one.arrays().items():
        assert np.array_equal(array, other.arrays()[name]), name
    assert same(at(one.transform(before), training), at(other.transform(after), training))


def test_a_training_row_does_change_them():
    """The control of the test above: it would pass if nothing were ever fitted."""
    data = mixed()
    for scaling in SCALINGS:
        other = features(data.numeric * np.linspace(1, 2, 60)[:, None], data.categorical)
        one = fitted(data, range(40), numeric_scaling=scaling).transform(data)
        assert not same(one, fitted(other, range(40), numeric_scaling=scaling).transform(data))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_order_of_the_training_rows_and_the_other_columns_do_not_matter(scaling):
    data = mixed()
    one = fitted(data, range(40), numeric_scaling=scaling)
    other = fitted(data, list(range(40))[::-1], numeric_scaling=scaling)
    for name, array in one.arrays().items():
        assert np.allclose(array, other.arrays()[name], rtol=1e-12), name
    alone = fitted(features(data.numeric[:, [1]]), range(40), numeric_scaling=scaling)
    assert np.array_equal(
        alone.transform(features(data.numeric[:, [1]])).numeric[:, 0], one.transform(data).numeric[:, 1]
    )


@pytest.mark.parametrize("scaling", SCALINGS)
def test_rows_are_transformed_one_by_one(scaling):
    data = mixed()
    fit = fitted(data, range(40), numeric_scaling=scaling)
    whole = fit.transform(data)
    for row in (0, 41, 59):
        assert same(fit.transform(features(data.numeric[[row]], data.categorical[[row]])), at(whole, [row]))
    assert len(fit.transform(features(data.numeric[:0], data.categorical[:0])).numeric) == 0


# Scaling


numbers = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=2, max_size=30)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(numbers)
def test_standard_scaling_is_the_distance_to_the_mean_in_deviations(values):
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    expected = [(v - mean) / deviation if len(set(values)) > 1 else 0.0 for v in values]
    assert scaled(values, "standard") == pytest.approx(expected, rel=1e-4, abs=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(numbers)
def test_robust_scaling_is_the_squashed_distance_to_the_median_in_quartiles(values):
    expected = []
    if len(set(values)) == 1:
        expected = [0.0] * len(values)
    else:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        size = (high - low) / 1.349 if high > low else (max(values) - min(values)) / 2
        for value in values:
            x = (value - middle) / size
            expected.append(x / (1 + (x / 3) ** 2) ** 0.5)
    assert scaled(values, "robust") == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_quantile_scaling_gives_normal_scores_of_the_ranks():
    normal = statistics.NormalDist()
    values = np.random.default_rng(0).lognormal(0, 2, preprocessing.QUANTILES)
    out = scaled(values, "quantile")
    ranks = np.argsort(np.argsort(values)) / (len(values) - 1)
    expected = [normal.inv_cdf(min(max(rank, 0.0035), 0.9965)) for rank in ranks]
    assert out == pytest.approx(expected, abs=1e-5)
    assert np.abs(out).max() < 2.71


def test_tied_values_have_the_middle_of_their_ranks():
    out = scaled([0.0] * 50 + list(range(1, 51)), "quantile")
    assert out[0] == pytest.approx(statistics.NormalDist().inv_cdf(0.25), abs=0.05)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(-1000, 1000), min_size=3, max_size=40), st.sampled_from(SCALINGS))
def test_scaling_keeps_the_order(values, scaling):
    out = scaled([float(v) for v in values], scaling)
    order = np.argsort(values, kind="stable")
    assert (np.diff(out[order]) >= -1e-6).all()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_shift_and_another_unit_change_nothing(scaling):
    values = np.random.default_rng(0).normal(size=50)
    assert scaled(1000 * values - 77, scaling) == pytest.approx(scaled(values, scaling), abs=1e-4)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # the deviation of numbers near the largest one overflows
@pytest.mark.parametrize("extreme", [1e6, 1e12, 1e150, 1e308])
def test_the_furthest_values_stay_finite(scaling, extreme):
    new = scaled([0.0, 1.0, 2.0, 3.0, extreme, -extreme], scaling, training=4)
    assert np.isfinite(new).all()
    assert np.abs(new).max() <= {"standard": 1000, "robust": 3, "quantile": 2.71}[scaling]
    assert new[4] >= new[:4].max()
    assert new[5] <= new[:4].min()
    assert np.isfinite(scaled([0.0, 1.0, 2.0, extreme, -extreme], scaling)).all()


# Columns that hold little


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear"])
def test_constant_and_missing_columns_become_zero_also_for_new_values(scaling, embedding):
    nan = np.nan
    data = features([[5.0, nan, 5.0], [5.0, nan, nan], [5.0, nan, 5.0], [8.0, 9.0, -1.0]])
    fit = fitted(data, range(3), numeric_scaling=scaling, numeric_embedding=embedding)
    out = fit.transform(data)
    assert (out.numeric == 0).all()
    assert out.indicators.tolist() == [[1, 0], [1, 1], [1, 0], [0, 0]]
    assert np.isfinite(fit.bins).all()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_missing_value_is_zero_and_marked_where_the_training_rows_had_some(scaling):
    data = features([[1.0, 1.0], [np.nan, 2.0], [3.0, 3.0], [4.0, np.nan]])
    out = fitted(data, range(3), numeric_scaling=scaling).transform(data)
    assert out.indicators.tolist() == [[0], [1], [0], [0]]
    assert out.numeric[1, 0] == out.numeric[3, 1] == 0
    present = scaled([1.0, 3.0, 4.0], scaling, training=2)
    assert out.numeric[[0, 2, 3], 0] == pytest.approx(present)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear"])
@pytest.mark.parametrize("rows", [1, 2, 60])
def test_what_comes_out_is_finite_and_of_the_promised_types(scaling, embedding, rows):
    data = mixed()
    fit = fitted(data, range(rows), numeric_scaling=scaling, numeric_embedding=embedding)
    out = fit.transform(data)
    assert (out.numeric.dtype, out.indicators.dtype, out.codes.dtype) == (np.float32, np.float32, np.int64)
    assert np.isfinite(out.numeric).all()
    assert set(np.unique(out.indicators)) <= {0, 1}
    assert (out.codes >= 0).all()
    assert (out.codes < fit.embedded_counts).all()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_tables_without_numbers_or_without_categories(scaling):
    only_codes = features(np.zeros((3, 0)), [[0, 1], [1, 2], [MISSING, 3]])
    out = fitted(only_codes, numeric_scaling=scaling, numeric_embedding="piecewise_linear").transform(
        only_codes
    )
    assert (out.numeric.shape, out.codes.shape) == ((3, 0), (3, 1))
    out = fitted(column([1.0, 2.0]), numeric_scaling=scaling).transform(column([1.0, 2.0]))
    assert (out.indicators.shape, out.codes.shape) == ((2, 0), (2, 0))


def test_features_refuse_arrays_that_do_not_fit_their_names():
    with pytest.raises(ValueError, match="numeric has shape"):
        Features(np.zeros((2, 1)), np.zeros((2, 0), np.int32), (), (), ())
    with pytest.raises(ValueError, match="categorical has shape"):
        Features(np.zeros((2, 0)), np.zeros((2, 1), np.int32), (), (), ())
    with pytest.raises(ValueError, match="levels"):
        Features(np.zeros((2, 0)), np.zeros((2, 1), np.int32), (), ("c",), ())


# Bins


def test_bins_are_equally_full_and_on_the_scaled_values():
    values = np.random.default_rng(0).lognormal(size=400)
    for scaling in SCALINGS:
        data = column(values)
        fit = fitted(
            data, numeric_scaling=scaling, numeric_embedding="piecewise_linear", numeric_embedding_bins=8
        )
        out = fit.transform(data).numeric[:, 0]
        assert fit.bins.shape == (9, 1)
        if scaling == "quantile":
            continue  # its values pile up at both ends
        counts, _ = np.histogram(out, fit.bins[:, 0])
        assert counts.sum() == 400
        assert set(counts) <= {49, 50, 51}
        assert (fit.bins[0, 0], fit.bins[-1, 0]) == pytest.approx((out.min(), out.max()))


def test_only_piecewise_linear_embeddings_have_bins():
    assert fitted(mixed()).bins.shape == (0, 4)
    assert fitted(mixed(), numeric_embedding="periodic").bins.shape == (0, 4)


# Categories


def test_short_columns_are_one_hot_and_long_ones_embedded():
    data = features(np.zeros((5, 0)), [[0, 3], [2, 3], [MISSING, 5], [1, 11], [UNSEEN, UNSEEN]])
    fit = fitted(data, range(3))
    out = fit.transform(data)
    # missing, a, c: the training rows have no b, and what they do not have is no level at all
    assert out.indicators.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert out.codes[:, 0].tolist() == [2, 2, 3, 0, 0]
    assert fit.embedded_counts.tolist() == [4]


@pytest.mark.parametrize(("most", "one_hot"), [(2, []), (3, [0]), (11, [0]), (12, [0, 1])])
def test_the_levels_of_the_table_decide_which_columns_are_one_hot(most, one_hot):
    """Not those of the training rows: else the folds of one stack would differ in shape."""
    data = features(np.zeros((3, 0)), [[0, 0], [0, 0], [1, 1]])
    fit = fitted(data, range(2), one_hot_max=most)
    assert fit.one_hot_columns.tolist() == one_hot
    assert sorted([*fit.one_hot_columns, *fit.embedded_columns]) == [0, 1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(UNSEEN, 11), min_size=2, max_size=40), st.integers(1, 40), st.sampled_from([2, 32])
)
def test_codes_against_a_naive_implementation(codes, training, one_hot_max):
    training = min(training, len(codes))
    data = features(np.zeros((len(codes), 0)), np.array(codes)[:, None], (LEVELS[1],))
    fit = fitted(data, range(training), one_hot_max=one_hot_max)
    out = fit.transform(data)
    known = sorted({c for c in codes[:training] if c >= 0})
    expected = [1 if c == MISSING else known.index(c) + 2 if c in known else 0 for c in codes]
    if one_hot_max == 2:
        assert out.codes[:, 0].tolist() == expected
    else:
        columns = range(1, len(known) + 2)
        assert out.indicators.tolist() == [[float(code == c) for c in columns] for code in expected]


# Saving


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear"])
def test_the_arrays_are_all_there_is_to_save(scaling, embedding):
    data = mixed()
    fit = fitted(data, range(40), numeric_scaling=scaling, numeric_embedding=embedding)
    copies = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in fit.arrays().items()}
    back = Preprocessor.from_arrays(scaling, copies)
    assert same(back.transform(data), fit.transform(data))
    assert np.array_equal(back.embedded_counts, fit.embedded_counts)


def test_nothing_is_changed_in_place():
    data = mixed()
    numeric, categorical = data.numeric.copy(), data.categorical.copy()
    data.numeric.flags.writeable = data.categorical.flags.writeable = False  # as Ray hands arrays over
    for scaling in SCALINGS:
        fitted(data, numeric_scaling=scaling, numeric_embedding="piecewise_linear").transform(data)
    assert np.array_equal(data.numeric, numeric, equal_nan=True)
    assert np.array_equal(data.categorical, categorical)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_large_tables_are_fitted_on_evenly_spaced_rows(monkeypatch, scaling):
    values = np.random.default_rng(0).normal(size=5000)
    exact = scaled(values, scaling)
    monkeypatch.setattr(preprocessing, "FIT_ROWS", 1000)
    sampled = scaled(values, scaling)
    assert not np.array_equal(sampled, exact)
    inner = np.abs(exact) < 2
    assert sampled[inner] == pytest.approx(exact[inner], abs=0.2)
    # missing values are looked for in all rows, sampled or not
    values[3] = np.nan
    assert fitted(column(values)).missing_columns.tolist() == [0]


@pytest.mark.parametrize("scaling", ["standard", "robust", "quantile"])
@pytest.mark.parametrize("how", ["none", "clamped", "unclamped"])
def test_the_time_is_read_as_the_configuration_says(scaling, how):
    values = np.column_stack([np.linspace(-1, 1, 40), np.arange(40.0)])
    data = Features(values, np.zeros((40, 0), np.int32), ("x", "year"), (), (), trend=("year",))
    fit = Preprocessor.fit(data, np.arange(30), configured(numeric_scaling=scaling, time_trend=how))
    x, year = fit.transform(data).numeric.T
    assert (np.diff(x) >= 0).all() and x[-1] > x[0]
    if how == "none":
        assert not year.any()
        return
    trained = 29 if how == "clamped" else 30  # the latest 5 % of 30 rows, at least, count as one time
    assert (np.diff(year[:trained]) > 0).all() or scaling == "quantile"
    later = year[30:]
    assert (
        (year[28:] == year[28]).all()
        if how == "clamped"
        else scaling == "quantile" or (later > year[29]).all()
    )
    again = Preprocessor.from_arrays(fit.scaling, fit.arrays()).transform(data)
    assert np.array_equal(again.numeric, np.column_stack([x, year]))


@pytest.mark.parametrize(("last", "held"), [(4, 2), (5, 3), (40, 3)])
def test_later_rows_are_held_at_times_of_a_twentieth_of_the_rows_at_least(last, held):
    """A last year of fewer rows counts together with the one before it."""
    year = np.repeat([0.0, 1.0, 2.0, 3.0], [100 - last - 50, 40, 10, last])
    data = Features(year[:, None], np.zeros((100, 0), np.int32), ("year",), (), (), trend=("year",))
    fit = Preprocessor.fit(data, np.arange(100), configured(numeric_scaling="standard", time_trend="clamped"))
    read = fit.transform(
        replace(data, numeric=np.arange(6.0)[:, None], categorical=np.zeros((6, 0), np.int32))
    ).numeric[:, 0]
    assert (np.diff(read[: held + 1]) > 0).all() and (read[held:] == read[held]).all()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_words_stand_as_they_are_beside_the_indicators(scaling):
    draw = np.random.default_rng(0)
    numbers, words = draw.normal(5, 3, (40, 3)), draw.integers(0, 2, (40, 4)) * 0.5
    numbers[3, 1] = np.nan
    order = [0, 3, 4, 1, 5, 6, 2]  # words stand among the numbers
    whole = features(np.concatenate([numbers, words], axis=1)[:, order])
    names = tuple(f"x{place}" for place in (1, 2, 4, 5))
    with_words = Features(whole.numeric, whole.categorical, whole.numeric_names, (), (), ("x6",), names)
    trend = Features(numbers, whole.categorical, ("x0", "x3", "x6"), (), (), ("x6",))
    own, plain = (
        fitted(data, rows=range(30), numeric_scaling=scaling, time_trend="clamped")
        for data in (with_words, trend)
    )
    again = Preprocessor.from_arrays(scaling, own.arrays())
    for transformed in (own.transform(with_words), again.transform(with_words)):
        expected = plain.transform(trend)
        assert (transformed.numeric == expected.numeric).all() and transformed.indicators.shape == (40, 1 + 4)
        assert (transformed.indicators[:, 0] == expected.indicators[:, 0]).all()
        assert (transformed.indicators[:, 1:] == words).all()


def test_the_calendar_becomes_waves_and_products_behind_the_numbers():
    hours, dow = np.tile(np.arange(24.0), 7), np.repeat(np.arange(7.0), 24)
    work = (dow < 5) * 1.0
    hours[5] = np.nan
    data = replace(
        features(np.column_stack([hours, dow, work])),
        calendar=(Cycle("x0", "hour", 24.0), Cycle("x1", "weekday", 7.0)),
        working=("x2",),
    )
    widths = {"none": 3, "cyclic": 3 + 4, "crossed": 3 + 4 + 2 + 4 * 3}
    fits = {how: fitted(data, rows=range(100), calendar_features=how) for how in widths}
    read = {how: fit.transform(data).numeric for how, fit in fits.items()}
    assert {how: numbers.shape[1] for how, numbers in read.items()} == widths
    for how in ("cyclic", "crossed"):
        assert (read[how][:, :3] == read["none"]).all()
        # in the hours before and after midnight the waves are near, the number is as far as can be
        at = [24 + 23, 48]
        assert abs(np.diff(read[how][at, 3:5], axis=0)).max() < 0.5 < abs(np.diff(read[how][at, 0]))[0]
        assert (read[how][5, [0, 3, 4]] == 0).all() and fits[how].missing_columns.tolist() == [0]
        again = Preprocessor.from_arrays("standard", fits[how].arrays()).transform(data)
        assert np.array_equal(again.numeric, read[how])
    names = [name for _, name in fits["crossed"].labels(data).numeric]
    assert (
        len(names) == len(set(names)) and names[3] == "sine(x0 / 24)" and names[-1] == "cosine(x0 / 12) x x2"
    )
    # a model of before has none of these arrays
    before = {name: own for name, own in fits["none"].arrays().items() if name not in ("cycles", "products")}
    assert np.array_equal(Preprocessor.from_arrays("standard", before).transform(data).numeric, read["none"])
