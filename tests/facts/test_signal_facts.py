"""Facts of images and sequences: naive second counts, planted shapes that must be
found, and nothing found in noise."""

import json
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.data.options import ReadingOptions
from advisor.data.signals.signals import load_signals
from advisor.data.tables.table import load_table
from advisor.facts import signals as signal_facts
from advisor.facts import table as table_facts
from advisor.facts.schema import FACTS, Facts
from advisor.facts.signals import measure_signals
from advisor.facts.specs.signals import SIGNAL_FACTS
from advisor.runs.advice import AdviceOptions
from advisor.workflows.recommend import get_advice

HARDWARE = {"cores": 4, "memory.gb": 16.0, "memory.available_gb": 8.0, "gpu.count": 0, "gpu.memory_gb": None}
RNG = np.random.default_rng(0)


def measured(source, target=None, **options):
    return measure_signals(load_signals(source, target, ReadingOptions(**options)), HARDWARE).values


def labels(rows, classes=2):
    return np.arange(rows) % classes


# ------------------------------------------------------------------------------------------------ all of them


def test_every_fact_has_a_value_or_may_have_none():
    for values in (RNG.integers(0, 256, (40, 5, 6), np.uint8), RNG.normal(size=(40, 2, 9))):
        for answer in (labels(40), RNG.normal(size=40)):
            data = load_signals({"X": values, "y": answer})
            facts = measure_signals(data, HARDWARE)
            assert list(facts.values) == list(FACTS)
            kinds = {"int": int, "float": float, "bool": bool, "text": str, "list": list}
            for name, value in facts.values.items():
                assert (value is None and FACTS[name].nullable) or value is not None, name
                assert value is None or isinstance(value, kinds[FACTS[name].type]), (name, value)
                assert not isinstance(value, float) or math.isfinite(value), name
            assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


def test_tables_have_none_of_them_but_the_order_of_columns():
    own = {spec.name for spec in SIGNAL_FACTS}
    frame = pl.DataFrame({"a": range(50), "b": RNG.normal(size=50), "y": ["u", "v"] * 25})
    values = table_facts.measure_table(load_table(frame, "y"), HARDWARE).values
    assert own < set(FACTS) and all(values[name] is None for name in own)


def naive(data):
    """Facts that can be counted row by row."""
    train, test = (part.features.values for part in (data.train, data.test))
    rows, tested = [row.tobytes() for row in train], [row.tobytes() for row in test]
    answers = {}
    for row, answer in zip(rows, data.train.target.tolist(), strict=True):
        answers.setdefault(row, set()).add(answer)
    found = {
        "rows": len(rows), "rows_test": len(tested), "signal.channels": train.shape[1],
        "signal.values": math.prod(train.shape[1:]), "encoded_width": math.prod(train.shape[1:]),
        "duplicates.share": 1 - len(answers) / len(rows),
        "duplicates.conflicting_share": sum(len(answers[row]) > 1 for row in rows) / len(rows),
        "duplicates.test_share": sum(row in answers for row in tested) / len(tested),
    }  # fmt: skip
    if train.ndim == 4:
        pixels = (train / 255).ravel()
        found |= {
            "image.mean": pixels.mean(),
            "image.spread": pixels.std(),
            "image.side": min(train.shape[2:]),
        }
        return found
    lengths = []
    missing = total = 0
    for row in train:
        filled = [at for at in range(row.shape[1]) if any(not math.isnan(channel[at]) for channel in row)]
        lengths.append(max(filled) + 1)
        missing += sum(math.isnan(channel[at]) for channel in row for at in range(lengths[-1]))
        total += row.shape[0] * lengths[-1]
    return found | {
        "missing.share": missing / total, "sequence.length": max(lengths), "sequence.length_min": min(lengths),
        "sequence.length_median": float(np.median(lengths)), "sequence.unequal": len(set(lengths)) > 1,
    }  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["image", "sequence"]), st.booleans())
def test_facts_are_what_a_naive_count_says(seed, kind, repeated):
    rng = np.random.default_rng(seed)
    if kind == "image":
        values = rng.integers(0, 256, (40, *rng.integers(1, 8, 2), rng.choice([1, 3])), np.uint8)
    else:
        values = rng.normal(size=(40, *rng.integers(1, 6, 2)))
        values[rng.random(values.shape) < 0.1] = np.nan
        values[:, 0, 0] = rng.normal(size=40)  # no sequence without a point
        for row in range(0, 40, 3):
            values[row, :, int(rng.integers(1, values.shape[2] + 1)) :] = np.nan
    if repeated:
        values[10:16] = values[:6]
    data = load_signals({"X": values, "y": labels(40)})
    facts = measure_signals(data, HARDWARE)
    for name, value in naive(data).items():
        assert facts.values[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert facts.values["duplicates.near_test_share"] >= facts.values["duplicates.test_share"]
    assert facts.sampled == {}


def test_the_order_of_rows_changes_no_count():
    values, answer = RNG.integers(0, 256, (60, 6, 6), np.uint8), labels(60, 3)
    order = np.random.default_rng(1).permutation(60)
    one, other = measured({"X": values, "y": answer}), measured({"X": values[order], "y": answer[order]})
    for name, value in one.items():
        if not name.startswith("flip"):  # which rows fit the probes and which judge them
            assert other[name] == (pytest.approx(value) if isinstance(value, float) else value), name


def test_the_test_rows_target_is_not_looked_at():
    values, answer = RNG.normal(size=(80, 1, 12)), labels(80)
    parts = {"X_train": values[:50], "y_train": answer[:50], "X_test": values[50:]}
    assert measured(parts | {"y_test": answer[50:]}) == measured(parts | {"y_test": answer[50:][::-1]})


def test_a_sample_says_so(monkeypatch):
    values, answer = RNG.integers(0, 256, (90, 6, 6), np.uint8), labels(90)
    monkeypatch.setattr(signal_facts, "SAMPLE_ROWS", 40)
    monkeypatch.setattr(signal_facts, "FEWEST", 40)
    monkeypatch.setattr(signal_facts, "NEAR_TEST", 10)
    monkeypatch.setattr(signal_facts, "KEY_BYTES", 36 * 50)
    facts = measure_signals(load_signals({"X": values, "y": answer}), HARDWARE)
    assert (
        facts.sampled["image.mean"] == "40 of 72 rows"
        and facts.sampled["duplicates.share"] == "50 of 72 rows"
    )
    assert facts.sampled["duplicates.near_test_share"] == "10 of 18 test rows against 72 of 72 training rows"
    assert "rows" not in facts.sampled and "image.height" not in facts.sampled


def test_large_images_are_measured_at_a_part_of_their_pixels():
    values = np.full((30, 200, 130), 60, np.uint8)
    values[:, 40:80, 30:60] = 200
    values[:, 0, 0] = np.arange(30)  # no two are equal
    facts = measure_signals(load_signals({"X": values, "y": labels(30)}), HARDWARE)
    exact = (values / 255).mean()
    assert (
        facts.values["image.mean"] == pytest.approx(exact, abs=0.01) and facts.values["duplicates.share"] == 0
    )
    assert (
        facts.sampled["image.mean"] == "24 of 24 rows at a part of the pixels"
        and "image.height" not in facts.sampled
    )


# ------------------------------------------------------------------------------------------------------ shift


def test_test_images_that_are_brighter_are_found_and_equal_ones_are_not():
    values, answer = RNG.integers(60, 160, (400, 8, 8), np.uint8), labels(400)
    parts = {"X_train": values[:200], "y_train": answer[:200], "y_test": answer[200:]}
    bright = measured(parts | {"X_test": values[200:] + np.uint8(10)})
    equal = measured(parts | {"X_test": values[200:]})
    spread = (values[:200] / 255).mean(axis=(1, 2)).std()
    assert bright["image.brightness_shift"] == pytest.approx(10 / 255 / spread, rel=0.05)
    assert (
        bright["shift.detected"] and "brightness" in bright["columns.shifted"] and bright["shift.auc"] > 0.9
    )
    assert not equal["shift.detected"] and abs(equal["image.contrast_shift"]) < 0.4
    alone = measured({"X": values, "y": answer})
    assert alone["shift.compared_with"] == "nothing" and alone["image.brightness_shift"] is None


def test_groups_that_differ_are_found():
    groups = np.arange(400) // 25
    values = (
        RNG.normal(size=(400, 1, 10)) + np.random.default_rng(3).normal(size=16)[groups][:, None, None] * 3
    )
    found = measured({"X": values, "y": labels(400), "group": groups})
    assert found["shift.compared_with"] == "groups" and found["has_groups"] and found["groups.count"] == 13
    assert found["shift.detected"]


@pytest.mark.slow
def test_shift_alarms_seldom_where_there_is_none():
    alarms = 0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        values, answer = rng.normal(size=(120, 1, 16)).cumsum(axis=2), labels(120)
        parts = {"X_train": values[:60], "y_train": answer[:60], "X_test": values[60:], "y_test": answer[60:]}
        alarms += measured(parts)["shift.detected"]
    assert alarms <= 4  # 5 % each: five or more in sixteen have a chance of 0.1 %


# ------------------------------------------------------------------------------------------------- duplicates


def test_images_that_were_saved_again_are_nearly_the_same_and_others_are_not():
    smooth = RNG.normal(size=(300, 6, 6)).repeat(4, axis=1).repeat(4, axis=2) * 40 + 120
    values = np.clip(smooth, 0, 255).astype(np.uint8)
    again = np.clip(values[:30].astype(int) + RNG.integers(-2, 3, (30, 24, 24)), 0, 255).astype(np.uint8)
    test = np.concatenate([again, values[200:]])
    parts = {"X_train": values[:200], "y_train": labels(200), "X_test": test, "y_test": labels(130)}
    found = measured(parts)
    assert found["duplicates.test_share"] == 0 and found["duplicates.near_test_share"] == pytest.approx(
        30 / 130
    )


# -------------------------------------------------------------------------------------------------- sequences


def waves(period, rows=60, length=120, noise=0.5, seed=0):
    """Sines of one period, with phases at random, in noise."""
    rng = np.random.default_rng(seed)
    steps = np.arange(length) / period + rng.random((rows, 1))
    return (np.sin(2 * np.pi * steps) + noise * rng.normal(size=(rows, length)))[:, None]


@pytest.mark.parametrize("period", [4, 9, 24, 50])
def test_a_period_is_found(period):
    values = waves(period)
    found = measured({"X": values, "y": labels(60)})
    assert abs(found["sequence.period"] - period) <= 1
    assert (
        found["receptive.needed"] >= min(2 * found["sequence.period"], 120)
        or found["receptive.needed"] == 120
    )
    trended = values + np.linspace(0, 30, 120)
    trended[:, :, 100:][::3] = np.nan
    assert abs(measured({"X": trended, "y": labels(60)})["sequence.period"] - period) <= 1


def test_no_period_is_found_in_noise_and_random_walks():
    found = 0
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(size=(40, 1, 64))
        for values in (noise, noise.cumsum(axis=2)):
            found += (
                signal_facts._period(signal_facts._autocorrelations(values.astype(np.float32))) is not None
            )
    assert found <= 1


@pytest.mark.parametrize("width", [1, 5, 20])
def test_the_correlation_length_of_a_moving_average(width):
    noise = RNG.normal(size=(100, 1, 400 + width))
    sums = np.cumsum(noise, axis=2)
    smooth = sums[:, :, width:] - sums[:, :, :-width]
    # its autocorrelation falls in a line from 1 to 0 over the width
    found = measured({"X": smooth, "y": labels(100)})
    assert (
        found["sequence.correlation_length"] == pytest.approx(width * (1 - 1 / math.e), abs=2) or width == 1
    )
    assert width > 1 or found["sequence.correlation_length"] == 1
    assert found["receptive.needed"] == 8 * found["sequence.correlation_length"]


def test_the_autocorrelation_is_the_naive_one():
    values = RNG.normal(size=(5, 2, 20)).astype(np.float32)
    values[1, :, 15:], values[2, 0, 3] = np.nan, np.nan
    found = signal_facts._autocorrelations(values)
    for row, own in zip(values, found, strict=True):
        for lag in range(11):
            channels = []
            for channel in row.astype(float):
                places = np.flatnonzero(~np.isnan(channel))
                rest = np.full(20, np.nan)
                rest[places] = channel[places] - np.polyval(np.polyfit(places, channel[places], 1), places)
                products = [rest[at] * rest[at + lag] for at in range(20 - lag)]
                products = [product for product in products if not math.isnan(product)]
                if len(products) >= len(places) / 2:
                    channels.append(np.mean(products) / np.nanmean(rest**2))
            assert (
                own[lag] == pytest.approx(np.mean(channels), abs=1e-9) if channels else math.isnan(own[lag])
            )


@pytest.mark.parametrize("carries", [True, False])
def test_whether_the_scale_of_a_series_carries_the_class(carries):
    values = RNG.normal(size=(90, 1, 30))
    if carries:
        values = values * (1 + labels(90))[:, None, None]
    else:
        values[labels(90) == 1, :, :5] += 3  # a shape, not a scale: each is normalized
        values = (values - values.mean(axis=2, keepdims=True)) / values.std(axis=2, keepdims=True)
    assert measured({"X": values, "y": labels(90)})["sequence.scale_informative"] is carries


def test_reversing_and_changing_the_sign():
    ramp = np.linspace(-1, 1, 30)
    noise = RNG.normal(size=(120, 1, 30)) * 0.4
    rising = measured({"X": np.where(labels(120)[:, None, None] == 1, ramp, -ramp) + noise, "y": labels(120)})
    assert (
        rising["flip.reversed"] < -0.5 and rising["flip.sign"] < -0.5
    )  # the reverse of one class is the other
    bump = np.exp(-((np.arange(30) - 14.5) ** 2) / 20)
    even = measured({"X": labels(120)[:, None, None] * bump * 3 + noise, "y": labels(120)})
    assert even["flip.reversed"] > 0.85 and even["flip.sign"] < 0.5
    nothing = measured({"X": noise, "y": labels(120)})
    assert nothing["flip.reversed"] is None and nothing["flip.sign"] is None


def test_a_local_pattern_is_known_wherever_it_is():
    rng = np.random.default_rng(5)
    saw = np.array([0, 1, 2, 3, 4, 0]) - 2.0  # slow up, fast down: its reverse is another class
    values = rng.normal(size=(400, 1, 60)) * 0.2
    for row, code in enumerate(labels(400)):
        at = rng.integers(0, 54)
        values[row, 0, at : at + 6] += saw if code else saw[::-1]
    found = measured({"X": values, "y": labels(400)})
    assert found["flip.reversed"] < -0.5


def test_places_and_patterns():
    noise = np.random.default_rng(3).normal(size=(400, 1, 60))
    placed, anywhere = noise.copy(), noise * 0.3
    bump = np.sin(np.arange(8) / 8 * np.pi)
    for row, code in enumerate(labels(400)):
        placed[row, 0, 12 + 20 * code : 20 + 20 * code] += bump  # the same bump, early or late
        at = (row * 7) % 50
        anywhere[row, 0, at : at + 8] += bump * (1 if code else [1, -1] * 4)  # slow or fast, at any place
    assert measured({"X": placed, "y": labels(400)})["sequence.position_gain"] > 0.05
    assert measured({"X": anywhere, "y": labels(400)})["sequence.position_gain"] < -0.1
    assert measured({"X": noise, "y": labels(400)})["sequence.position_gain"] == 0


def test_marks_glitches_axes_and_lonely_rows_are_facts_that_rules_tell():
    values = np.random.default_rng(0).normal(size=(80, 2, 40)).cumsum(axis=2).astype(np.float32)
    names = np.array(["up", "down"] * 40)
    clean = measured({"X": values, "y": names})
    assert clean["sentinels.cells"] == clean["sequence.glitches"] == clean["rows_in_singleton_classes"] == 0
    assert (
        clean["columns.sentinels"] == clean["sentinels.codes"] == [] and not clean["sequence.channels_last"]
    )
    values[::3, 1, 5], values[1, 0, 9], names[7] = -999, 1e6, "slip"
    dirty = {"X": values.transpose(0, 2, 1), "y": names}
    facts = measured(dirty)
    assert facts["sentinels.cells"] == 27 and facts["columns.sentinels"] == ["channel 2"]
    assert facts["sentinels.codes"] == ["channel 2: -999"]
    assert (
        facts["sequence.glitches"] == facts["rows_in_singleton_classes"] == 1
        and facts["sequence.channels_last"]
    )
    told = [
        finding.code
        for finding in get_advice(dirty, None, AdviceOptions(kind="sequence")).recommendation.findings
    ]
    for code in ("sentinel-values", "glitches", "channels-last", "singleton-classes"):
        assert told.count(code) == 1
    assert "marked-values" not in told  # the count alone, beside what the rule says


def long_table(step, ids=40, points=30, dates=False):
    """Series of which a point follows the one before by ``step(number)`` minutes."""
    rng = np.random.default_rng(0)
    start, rows = np.datetime64("2024-03-01T06:00"), []
    for own in range(ids):
        at = 0.0
        for number in range(points):
            time = str(start + np.timedelta64(round(at * 60), "s")) if dates else at
            rows.append({"id": own, "t": time, "a": rng.normal() + own % 2, "y": "uv"[own % 2]})
            at += step(number)
    return pl.DataFrame(rows)


@pytest.mark.parametrize("dates", [False, True])
@pytest.mark.parametrize(
    ("step", "uneven", "longest"),
    [
        (lambda number: 5, 0, 1),
        (lambda number: 5 + 0.2 * (number % 3 - 1), 0, 1.04),  # a clock that trembles
        (lambda number: 60 if number == 9 else 5, 1 / 29, 12),  # one gap in each
        (lambda number: [5, 5, 5, 1, 20][number % 5], 11 / 29, 4),
    ],
)
def test_uneven_steps_in_time_are_told_with_how_uneven_they_are(step, uneven, longest, dates):
    table = long_table(step, dates=dates)
    own = AdviceOptions(kind="sequence", id_column="id", time_column="t")
    advice = get_advice(table.sample(fraction=1, shuffle=True, seed=0), "y", own)
    facts = advice.facts.values
    assert facts["sequence.uneven_steps"] == pytest.approx(uneven)
    assert facts["sequence.step_longest"] == pytest.approx(longest, rel=0.01)
    told = [finding for finding in advice.recommendation.findings if finding.code == "uneven-steps"]
    assert len(told) == (uneven > 0)
    for finding in told:
        assert f"{uneven:.1%}" in finding.message and f"the longest {longest}" in finding.message
        assert "resample" in finding.actions[0]


@pytest.mark.parametrize("dates", [False, True])
@pytest.mark.parametrize("gap", [1, 6])
def test_uneven_steps_of_a_file_with_timestamps_are_told(gap, dates, tmp_path):
    lines = ["@problemName p", "@timestamps true", "@dimensions 1", "@classLabel true u v", "@data"]
    for own in range(40):
        hours = [at + (gap - 1) * (at > 4) for at in range(12)]
        times = [f"2024-03-01 {hour:02}:00:00" if dates else str(hour) for hour in hours]
        pairs = ",".join(f"({time},{own % 2 + at / 12})" for at, time in enumerate(times))
        lines.append(f"{pairs}:{'uv'[own % 2]}")
    (tmp_path / "p_TRAIN.ts").write_text("\n".join(lines))
    facts = measured(tmp_path / "p_TRAIN.ts")
    assert facts["sequence.uneven_steps"] == pytest.approx(0 if gap == 1 else 1 / 11)
    assert facts["sequence.step_longest"] == gap


def test_repeated_times_are_no_uneven_steps_and_series_without_times_have_none():
    twice = pl.concat([long_table(lambda number: 5)] * 2)
    facts = measured(twice, target="y", id_column="id", time_column="t", kind="sequence")
    assert facts["sequence.uneven_steps"] == 0 and facts["sequence.step_longest"] == 1
    facts = measured(twice.drop("t"), target="y", id_column="id", kind="sequence")
    assert facts["sequence.uneven_steps"] == 0 and facts["sequence.step_longest"] is None


# ----------------------------------------------------------------------------------------------------- images


def test_mirroring():
    rows = np.arange(12)
    disc = (((rows - 5.5) ** 2)[:, None] + (rows - 5.5) ** 2 < 9) * 1.0
    left = (rows < 4)[None, :] * np.ones((12, 1))
    noise = RNG.normal(size=(200, 12, 12)) * 30 + 100
    one_sided = np.clip(noise + 60 * labels(200)[:, None, None] * left, 0, 255).astype(np.uint8)
    found = measured({"X": one_sided, "y": labels(200)})
    assert found["flip.horizontal"] < 0.6 and found["flip.vertical"] > 0.85 and found["flip.rotated"] < 0.7
    centred = np.clip(noise + 60 * labels(200)[:, None, None] * disc, 0, 255).astype(np.uint8)
    found = measured({"X": centred, "y": labels(200)})
    assert min(found["flip.horizontal"], found["flip.vertical"], found["flip.rotated"]) > 0.85
    assert measured({"X": centred[:, :8], "y": labels(200)})["flip.rotated"] is None
    shuffled = np.random.default_rng(0).permutation(labels(200))
    assert measured({"X": centred, "y": shuffled})["flip.horizontal"] is None


@pytest.mark.parametrize("size", [4, 10, 20])
def test_the_extent_of_an_object(size):
    values = np.full((80, 40, 40), 20, np.uint8)
    for row, code in enumerate(labels(80)):
        top, left = RNG.integers(0, 40 - size, 2)
        values[row, top : top + size, left : left + size] = 120 + 100 * code
    found = measured({"X": values, "y": labels(80)})["receptive.needed"]
    assert size * 0.8 - 2 <= found <= size + 3  # nine tenths of it, on a grid of 1.25 pixels


# ----------------------------------------------------------------------------------------------------- tables


def test_the_order_of_columns_is_told_from_a_shuffled_one():
    steps = RNG.normal(size=(300, 25)).cumsum(axis=1)
    walk = steps - np.arange(1, 26) / 25 * steps[:, -1:]  # a bridge: its ends are not correlated
    order = RNG.permutation(24)
    found = []
    for columns in (range(24), order, range(12)):
        frame = pl.DataFrame(
            {f"c{at}": walk[:, own] for at, own in enumerate(columns)} | {"y": ["u", "v"] * 150}
        )
        table = load_table(frame, "y")
        found.append(table_facts.measure_table(table, HARDWARE).values["columns.order_correlation"])
        if found[-1] is not None:
            matrix = abs(np.corrcoef(table.train.drop("y").to_numpy().T))
            pairs = [matrix[i, j] for i in range(24) for j in range(i)]
            assert found[-1] == pytest.approx(np.mean([matrix[i, i + 1] for i in range(23)]) - np.mean(pairs))
    assert found[0] > 0.3 > 0.1 > abs(found[1]) and found[2] is None


def test_measuring_loads_neither_torch_nor_ray_nor_optuna():
    program = (
        "import sys, numpy as np\nfrom advisor.data.signals.signals import load_signals\nfrom "
        "advisor.facts.signals import measure_signals\n"
        "measure_signals(load_signals({'X': np.random.default_rng(0).normal(size=(40, 1, 9)), 'y': "
        "np.arange(40) % 2}))\n"
        "print([m for m in ('torch', 'ray', 'optuna', 'sklearn') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_channels_that_never_change_are_named():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(300, 4, 20)).astype(np.float32)
    values[:, 1], values[:, 2] = 7, np.nan
    values[:250, 3] = 1  # varies in the last rows only
    facts = measure_signals(load_signals({"X": values, "y": np.arange(300) % 2})).values
    assert facts["features.constant"] == 2 and facts["columns.constant"] == ["channel 2", "channel 3"]
