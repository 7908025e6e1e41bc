"""Facts: each against a naive second implementation, and what they must not depend on."""

import json
import math
import statistics
from collections import Counter

import numpy as np
import polars as pl
import pytest

from advisor.data.options import ReadingOptions
from advisor.data.tables.spellings import repeated_spellings
from advisor.data.tables.table import load_table
from advisor.errors import UserError
from advisor.facts.schema import FACTS, Facts
from advisor.facts.table import SAMPLE_ROWS, measure_table

MACHINE = {"cores": 4, "memory.gb": 16.0, "memory.available_gb": 8.0, "gpu.count": 1, "gpu.memory_gb": 24.0}


def frame(rows=60, seed=0):
    rng = np.random.default_rng(seed)
    heavy = rng.lognormal(sigma=1.5, size=rows)
    plain = rng.normal(size=rows)
    return pl.DataFrame(
        {
            "heavy": [None if row % 7 == 0 else float(value) for row, value in enumerate(heavy)],
            "plain": plain,
            "twin": plain * 1000 + 5,
            "whole": rng.integers(0, 40, rows),
            "flag": rng.integers(0, 2, rows),
            "colour": rng.choice(["red", "green", "blue"], rows).tolist(),
            "sparse": [None if row % 3 else "x" if row % 2 else "y" for row in range(rows)],
            "fixed": ["same"] * rows,
            "id": np.arange(rows) + 1000,
            "day": [f"2024-{1 + row % 12:02}-{1 + row % 28:02}" for row in range(rows)],
            "y": rng.choice(["a", "b", "b"], rows).tolist(),
            "z": rng.lognormal(size=rows),
        }
    )


def table(data=None, target="y", **options):
    data = frame() if data is None else data
    return load_table(data.drop("z" if target == "y" else "y"), target, ReadingOptions(**options))


def rows_of(loaded, name):
    return [value for value in loaded.train[name].to_list() if value is not None]


def naive_skew(values):
    mean = sum(values) / len(values)
    second = sum((value - mean) ** 2 for value in values) / len(values)
    third = sum((value - mean) ** 3 for value in values) / len(values)
    return third / second**1.5


def naive_outliers(values):
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    reach = 3 * (high - low)
    return sum(value < low - reach or value > high + reach for value in values)


def naive_correlation(left, right):
    pairs = [(a, b) for a, b in zip(left, right, strict=True)]
    means = [sum(p[i] for p in pairs) / len(pairs) for i in (0, 1)]
    away = [(a - means[0], b - means[1]) for a, b in pairs]
    return sum(a * b for a, b in away) / math.sqrt(sum(a * a for a, _ in away) * sum(b * b for _, b in away))


@pytest.fixture(params=range(3), ids="seed{}".format)
def loaded(request):
    return table(frame(seed=request.param))


@pytest.fixture
def facts(loaded):
    return measure_table(loaded, MACHINE).values


def test_counts_of_rows_and_columns(loaded, facts):
    assert facts["rows"] + facts["rows_test"] == 60
    assert facts["features"] == 10
    assert facts["features.used"] == 8
    kinds = Counter(column.type for column in loaded.schema.columns)
    assert all(facts[f"features.{kind}"] == count for kind, count in kinds.items())
    assert kinds == {
        "numeric": 4,
        "boolean": 1,
        "categorical": 2,
        "constant": 1,
        "identifier": 1,
        "datetime": 1,
    }
    assert facts["columns.constant"] == ["fixed"] and facts["columns.identifier"] == ["id"]
    assert facts["rows_per_feature"] == facts["rows"] / 8
    assert facts["encoded_width"] == facts["encoded_width.one_hot"] == 4 + 1 + 5 + (3 + 2)
    assert loaded.dataset("train").features.numeric.shape[1] == 4 + 1 + 5
    assert facts["test.origin"] == "held-out" and facts["task"] == "binary"
    assert facts["has_groups"] is facts["has_time"] is False
    assert facts["groups.count"] is None


def test_classes(loaded, facts):
    counts = Counter(rows_of(loaded, "y"))
    shares = [count / sum(counts.values()) for count in counts.values()]
    assert facts["classes.count"] == len(counts)
    assert facts["classes.imbalance"] == max(counts.values()) / min(counts.values())
    assert facts["classes.smallest"] == min(counts.values())
    assert facts["classes.entropy"] == pytest.approx(-sum(p * math.log2(p) for p in shares))
    assert facts["target.mean"] is None and facts["target.skew"] is None


def test_missing_cells(loaded, facts):
    columns = {column.name: loaded.train[column.name].to_list() for column in loaded.schema.columns}
    missing = {name: sum(value is None for value in values) for name, values in columns.items()}
    assert facts["missing.share"] == pytest.approx(sum(missing.values()) / (len(columns) * facts["rows"]))
    assert facts["missing.columns"] == sum(count > 0 for count in missing.values()) == 2
    assert facts["missing.max_column_share"] == max(missing.values()) / facts["rows"]
    assert facts["columns.mostly_missing"] == ["sparse"] and facts["missing.mostly_columns"] == 1


def test_distributions(loaded, facts):
    names = ["heavy", "plain", "twin", "whole"]
    values = {name: rows_of(loaded, name) for name in names}
    skews = {name: abs(naive_skew(values[name])) for name in names}
    assert facts["skew.max"] == pytest.approx(max(skews.values()))
    assert facts["skew.median"] == pytest.approx(statistics.median(skews.values()))
    assert facts["columns.heavy_tailed"] == [name for name in names if skews[name] > 2]
    assert facts["skew.heavy_columns"] == len(facts["columns.heavy_tailed"])
    cells = sum(len(column) for column in values.values())
    assert facts["outliers.share"] == pytest.approx(sum(map(naive_outliers, values.values())) / cells)
    spreads = [statistics.pstdev(column) for column in values.values()]
    assert facts["scale.ratio"] == pytest.approx(max(spreads) / min(spreads))


def test_correlated_pairs(loaded, facts):
    filled = {}
    for name in ("heavy", "plain", "twin", "whole"):
        values = rows_of(loaded, name)
        mean = sum(values) / len(values)
        filled[name] = [mean if value is None else value for value in loaded.train[name].to_list()]
    names = list(filled)
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    strong = [pair for pair in pairs if abs(naive_correlation(*(filled[name] for name in pair))) > 0.95]
    assert facts["correlated.pairs_share"] == len(strong) / len(pairs)
    assert facts["columns.correlated"] == ["twin"]


def test_levels(facts):
    assert facts["cardinality.max"] == 3
    assert facts["cardinality.high_columns"] == 0


def test_regression_target():
    loaded = table(target="z")
    values, facts = rows_of(loaded, "z"), measure_table(loaded, MACHINE).values
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    assert facts["target.mean"] == pytest.approx(mean)
    assert facts["target.std"] == pytest.approx(spread)
    assert facts["target.skew"] == pytest.approx(naive_skew(values))
    assert facts["target.kurtosis"] == pytest.approx(
        statistics.fmean(((v - mean) / spread) ** 4 for v in values) - 3
    )
    assert facts["target.distinct"] == len(set(values))
    assert facts["target.minimum"] == min(values)
    assert facts["target.zero_share"] == 0
    assert facts["classes.count"] is None and facts["classes.entropy"] is None


def test_duplicates_and_conflicts():
    rng = np.random.default_rng(1)
    data = pl.DataFrame(
        {"a": rng.integers(0, 6, 80), "b": rng.choice(["u", "v"], 80).tolist(), "id": np.arange(80)}
    )
    data = data.with_columns(y=pl.Series(rng.choice(["p", "q"], 80).tolist()))
    loaded = load_table(data, "y")
    facts = measure_table(loaded, MACHINE).values
    rows = loaded.train.select("a", "b").rows()
    answers: dict[tuple, set] = {}
    for row, answer in zip(rows, loaded.train["y"], strict=True):
        answers.setdefault(row, set()).add(answer)
    assert facts["duplicates.share"] == pytest.approx(1 - len(set(rows)) / len(rows))
    assert facts["duplicates.conflicting_share"] == sum(len(answers[row]) > 1 for row in rows) / len(rows)


def test_high_cardinality_and_encoded_width():
    rng = np.random.default_rng(2)
    data = pl.DataFrame({"many": [f"v{i}" for i in rng.integers(0, 70, 900)], "x": rng.normal(size=900)})
    facts = measure_table(
        load_table(data.with_columns(y=pl.Series(rng.normal(size=900))), "y"), MACHINE
    ).values
    assert facts["cardinality.max"] == 70 and facts["columns.high_cardinality"] == ["many"]
    assert facts["encoded_width"] == 1 + 8 and facts["encoded_width.one_hot"] == 1 + 70


@pytest.mark.parametrize("target", ["y", "z"])
def test_a_leaked_copy_of_the_target_is_found_and_nothing_else_is(target):
    data = frame(300)
    if target == "y":
        copy = data["y"].replace_strict({"a": 3.5, "b": -1.0}) + pl.Series(
            np.random.default_rng(0).uniform(size=300)
        )
    else:
        copy = data["z"].log() * 7
    facts = measure_table(table(data.with_columns(copy.alias("leak")), target), MACHINE).values
    assert facts["columns.leaking"] == ["leak"] and facts["leak.columns"] == 1
    assert measure_table(table(data, target), MACHINE).values["leak.columns"] == 0


def test_repairs_are_counted():
    numbers = [str(value) for value in np.random.default_rng(0).normal(size=40)]
    numbers[3], numbers[5], numbers[7] = "n/a", "inf", "?"
    answers = ["u", "v"] * 20
    answers[0] = ""
    facts = measure_table(load_table(pl.DataFrame({"a": numbers, "y": answers}), "y"), MACHINE).values
    assert (facts["infinite.values"], facts["unreadable.cells"], facts["rows_without_target"]) == (1, 2, 1)


def test_spellings_of_one_level_are_counted():
    towns = ["New York", "new-york ", "NEW  YORK", "Boston", "Ｂoston", "N.Y."] * 20
    answers = ["yes", "Yes", "no", "n o"] * 30
    data = pl.DataFrame({"town": towns, "y": answers, "a": range(120)})
    facts = measure_table(load_table(data, "y", ReadingOptions(join_spellings=False))).values
    assert (facts["spellings.categories"], facts["columns.spellings"], facts["spellings.classes"]) == (
        3,
        ["town"],
        1,
    )
    facts = measure_table(load_table(data, "y")).values
    assert (facts["spellings.categories"], facts["columns.spellings"], facts["spellings.classes"]) == (
        2,
        ["town"],
        0,
    )
    assert facts["columns.spellings_joined"] == ["town", "y"] and facts["spellings.joined"] == 2
    clean = measure_table(table()).values
    assert (clean["spellings.categories"], clean["columns.spellings"], clean["spellings.classes"]) == (
        0,
        [],
        0,
    )


def test_marks_of_missing_cells_are_named():
    data = frame().with_columns(
        age=pl.Series([20.0, 60.0, 999.0] * 20), income=pl.Series([5.0, -999.0, 9e4] * 20)
    )
    facts = measure_table(table(data)).values
    assert facts["columns.sentinels"] == ["age", "income"] and facts["sentinels.cells"] == 40
    assert facts["sentinels.codes"] == ["age: 999", "income: -999"]


def test_time_order():
    data = frame().with_columns(day=pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 2, 29), eager=True))
    assert measure_table(table(data), MACHINE).values["time_ordered"] is True
    assert (
        measure_table(table(data.sample(fraction=1, shuffle=True, seed=1)), MACHINE).values["time_ordered"]
        is False
    )
    assert measure_table(table(data.drop("day")), MACHINE).values["time_ordered"] is None
    facts = measure_table(table(data, time_column="day"), MACHINE).values
    assert facts["has_time"] is True and facts["time_ordered"] is True and facts["features.datetime"] == 0


def test_groups_are_counted():
    data = frame().with_columns(group=pl.Series(np.arange(60) // 6))
    loaded = table(data, group_column="group")
    facts = measure_table(loaded, MACHINE).values
    assert facts["has_groups"] is True and facts["groups.count"] == len(set(loaded.train["group"])) == 8


def test_every_fact_is_there_with_its_type_and_survives_json():
    types = {"int": int, "float": float, "bool": bool, "text": str, "list": list}
    for target in ("y", "z"):
        measured = measure_table(table(target=target), MACHINE)
        assert list(measured.values) == list(FACTS)
        for name, spec in FACTS.items():
            value = measured.values[name]
            assert spec.nullable if value is None else type(value) is types[spec.type], name
        again = Facts.from_dict(json.loads(json.dumps(measured.to_dict(), allow_nan=False)))
        assert again == measured


def test_the_schema_is_fit_for_an_expression_language():
    for name, spec in FACTS.items():
        assert name == spec.name and spec.meaning
        assert name not in dir(dict) and name.split(".")[0] not in dir(dict), "would read a dict's method"
        assert isinstance(
            spec.example, {"int": int, "float": float, "bool": bool, "text": str, "list": list}[spec.type]
        )


def test_numbers_at_the_limits_leave_no_infinity_behind():
    data = pl.DataFrame(
        {"a": [1e308, -1e308, 0.0, 5e-324] * 10, "b": [1e-300] * 20 + [3e-300] * 20, "c": [1.0, 2.0] * 20}
    )
    data = data.with_columns(y=pl.Series([1e100, -1e100, 1.5, 2.5] * 10), d=pl.lit(None, pl.Float64))
    json.dumps(
        measure_table(load_table(data, "y", ReadingOptions(task="regression")), MACHINE).to_dict(),
        allow_nan=False,
    )


def test_the_test_target_is_never_looked_at():
    train, test = frame(80), frame(30, seed=5)
    other = test.with_columns(y=test["y"].reverse(), z=test["z"] * 100)
    for target in ("y", "z"):
        first = table(train, target, test=test)
        second = table(train, target, test=other)
        assert measure_table(first, MACHINE) == measure_table(second, MACHINE)
        assert first.fingerprint == second.fingerprint


def test_the_order_of_columns_does_not_matter():
    data = frame()
    first = measure_table(table(data), MACHINE)
    second = measure_table(table(data.select(reversed(data.columns))), MACHINE)
    assert first.values == second.values


def test_a_sample_says_so_and_is_near():
    rng = np.random.default_rng(3)
    rows = 3 * SAMPLE_ROWS
    data = pl.DataFrame(
        {"a": rng.gamma(2.0, size=rows), "b": rng.normal(size=rows), "y": rng.choice(["u", "v"], rows)}
    )
    loaded = load_table(data, "y")
    measured = measure_table(loaded, MACHINE)
    assert measured.sampled["skew.max"] == f"{SAMPLE_ROWS:,} of {loaded.train.height:,} rows"
    assert "missing.share" not in measured.sampled and "classes.count" not in measured.sampled
    assert set(measured.sampled) <= set(FACTS)
    assert "judged on" in measured.columns[0].why and "features.numeric" in measured.sampled
    # The skewness of a gamma(2) sample of this size has a standard error of about 0.04.
    assert measured.values["skew.max"] == pytest.approx(naive_skew(rows_of(loaded, "a")), abs=0.2)
    assert measure_table(table(), MACHINE).sampled == {}


def test_columns_are_described():
    described = {column.name: column for column in measure_table(table(), MACHINE).columns}
    values = sorted(rows_of(table(), "plain"))
    plain = described["plain"]
    assert (plain.minimum, plain.maximum) == (values[0], values[-1])
    assert plain.median == pytest.approx(statistics.median(values))
    assert plain.distinct == len(set(values)) and plain.distinct_sampled is False
    assert sum(plain.histogram.counts) <= len(values)
    assert sum(share for _, share in described["colour"].top) == pytest.approx(1)
    assert described["day"].minimum.startswith("2024-01-01")
    assert all(column.why and 0 <= column.missing_share <= 1 for column in described.values())


def test_the_machine_is_measured_and_can_be_overruled():
    measured = measure_table(table()).values
    assert measured["cores"] >= 1 and measured["gpu.count"] >= 0
    assert 0 < measured["memory.available_gb"] <= measured["memory.gb"]
    assert {name: measure_table(table(), MACHINE).values[name] for name in MACHINE} == MACHINE
    assert measure_table(table(), {"cores": 99}).values["cores"] == 99
    with pytest.raises(UserError, match=r"unknown 'core' \(did you mean 'cores'\?\)"):
        measure_table(table(), {"core": 1})


def test_gpus_are_asked_of_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 24576\necho 8192\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("advisor.facts.hardware.without_cuda", lambda: True)
    assert measure_table(table()).values["gpu.count"] == 0  # a build for CPUs uses none of them
    monkeypatch.setattr("advisor.facts.hardware.without_cuda", lambda: False)
    measured = measure_table(table()).values
    assert measured["gpu.count"] == 2 and measured["gpu.memory_gb"] == pytest.approx(8.589934592)
    for chosen, count in {"": 0, "-1": 0, "0": 1, "1,0": 2, "0,7,1": 1, "GPU-8932f937": 1}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert measure_table(table()).values["gpu.count"] == count, chosen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert measure_table(table()).values["gpu.memory_gb"] == pytest.approx(25.769803776)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program.write_text("#!/bin/sh\necho no devices >&2\nexit 9\n")
    assert measure_table(table()).values["gpu.count"] == 0


@pytest.mark.parametrize(
    ("labels", "repeats"),
    [
        (("-1", "1"), 0),
        (("A", "A-", "A+"), 0),
        (("c", "c++"), 0),
        (("New York", "new-york"), 1),
        (("yes", "Yes ", "YES."), 2),
        (("v1.0", "v10"), 0),
    ],
)
def test_a_sign_is_no_spelling(labels, repeats):
    assert repeated_spellings(labels) == repeats
