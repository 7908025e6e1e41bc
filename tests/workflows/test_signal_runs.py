"""Images and sequences from end to end: recommend, train, tune, predict and the report,
from Python and the command line."""

import json
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from signal_mistakes import MISTAKES

import advisor
from advisor.cli.main import _run
from advisor.errors import UserError
from advisor.networks.cost import SignalCost
from advisor.networks.geometry import problem
from advisor.networks.plan import plan_of
from advisor.objectives.networks import refusal
from advisor.report.network import blueprint
from advisor.rules import shipped
from advisor.rules.recommendation import advise
from advisor.workflows.recommend import get_advice, reading_of

LEARNED = {"network": "convolutional"}
"""A network that learns its convolutions: few series are advised fixed ones."""
SMALL = {"epochs": 2, "width": 8, "validation": "holdout", "final_members": 1}
QUICK = " ".join(f"--fixed {name}={value}" for name, value in SMALL.items())
SIZES = [8, 16, 28, 32, 64, 96, 128, 160, 224, 300]
LENGTHS = [4, 7, 8, 15, 24, 40, 100, 199, 200, 286, 400, 999, 1000, 1309, 5000]


def pictures(rows=48, size=12, seed=0, colour=False):
    """Bright squares above (class 0) or below (class 1) the middle of a noisy image."""
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    images = draw.integers(0, 60, (rows, size, size) + ((3,) if colour else ()), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top = draw.integers(1, 3) + (size // 2 if label else 0)
        left = draw.integers(1, size - 4)
        image[top : top + 3, left : left + 3] = 220
    return images, labels


def folder(here: Path, part="", rows=48, seed=0) -> Path:
    images, labels = pictures(rows, seed=seed)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = here / "shapes" / part / ("upper", "lower")[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return here / "shapes"


def waves(rows=60, length=32, seed=0, regression=False):
    """Slow or fast waves in two channels, with noise; the target is which, or how fast."""
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    speed = np.where(labels, 0.25, 0.08) + 0.05 * draw.random(rows)
    phase = draw.uniform(0, 6, rows)
    time = np.arange(length)
    clean = np.sin(2 * np.pi * speed[:, None] * time + phase[:, None])
    series = np.stack([clean, -clean], axis=1) + 0.2 * draw.normal(size=(rows, 2, length))
    return series.astype(np.float32), speed if regression else labels


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def csv(path="p.csv"):
    return pl.read_csv(path)


# ------------------------------------------------------------------ the command line


def test_a_folder_of_images_from_recommend_to_predictions(here, capfd):
    folder(here, "train")
    folder(here, "test", rows=16, seed=9)
    assert _run(["recommend", "shapes", "--out", "run"]) == 0
    told = capfd.readouterr().out
    assert "images of 12 x 12 pixels in 1 channel" in told and "network:" in told
    document = yaml.safe_load(Path("run/recommendation.yaml").read_text())
    assert document["data"]["kind"] == "image" and document["configuration"]["norm_layer"] == "batch"
    assert _run(shlex.split(f"train shapes --out run2 {QUICK}")) == 0
    assert _run(["predict", "run2", "shapes/test", "--out", "p.csv"]) == 0
    table = csv()
    assert table.columns == ["name", "prediction", "probability_lower", "probability_upper"]
    assert table.height == 16 and set(table["prediction"]) <= {"upper", "lower"}
    page = Path("run2/report.html").read_text()
    for said in (
        'id="network"',
        "Some of the rows",
        "data:image/png;base64,",
        "Receptive field of each layer",
    ):
        assert said in page
    capfd.readouterr()
    assert _run(["why", "run", "stages"]) == 0
    assert "receptive.needed" in capfd.readouterr().out
    assert _run(["what-if", "run", "--set", "gpu.count=1"]) == 0
    assert "precision" in capfd.readouterr().out


def test_sequences_are_tuned_resumed_and_predicted(here, capfd):
    x, y = waves()
    np.savez("waves.npz", X=x, y=y)
    command = f"tune waves.npz --out run --trials 3 --executor in-process --quiet {QUICK}"
    assert _run(shlex.split(command)) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert len(result["search"]["trials"]) == 3
    assert [r["name"] for r in result["test"]["results"]][-4:] == [
        "majority or mean", "linear", "MiniRocket", "gradient boosting"
    ]  # fmt: skip
    assert "mistakes" in result["test"]
    np.savez("new.npz", X=waves(5, seed=3)[0])
    capfd.readouterr()
    assert _run(["predict", "run", "new.npz", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["predictions"]
    assert len(rows) == 5 and {"prediction", "probability_0", "probability_1"} <= set(rows[0])
    assert _run(shlex.split(command)) == 0  # nothing is trained again
    assert json.loads(Path("run/result.json").read_text()) == result
    assert _run(["report", "run", "--format", "markdown"]) == 0
    assert "## The network" in capfd.readouterr().out


def test_a_recommendation_of_before_there_was_a_ramp_is_trained(here):
    """Found with the next parameter: files without `position` were refused, 'position' is missing."""
    x, y = waves()
    np.savez("waves.npz", X=x, y=y)
    assert _run(shlex.split(f"recommend waves.npz --out run {QUICK}")) == 0
    written = yaml.safe_load(Path("run/recommendation.yaml").read_text())
    for section in ("configuration", "space", "provenance"):
        del written[section]["position"]
    Path("run/recommendation.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    assert _run(["train", "run"]) == 0
    assert Path("run/result.json").exists()


@pytest.mark.parametrize("layout", ["ts", "long", "wide", "text", "channels last", "an empty channel"])
def test_each_format_of_series_is_trained_and_predicted(here, layout):
    x, y = waves(rows=40, length=32 if layout == "channels last" else 16)
    if layout == "text":
        lines = ["\t".join(map(str, [label + 1, *row[0]])) for row, label in zip(x, y, strict=True)]
        Path("waves_TRAIN.tsv").write_text("\n".join(lines) + "\n")
        source, options = "waves_TRAIN.tsv", {}
    elif layout in ("channels last", "an empty channel"):
        x = (
            x.swapaxes(1, 2)
            if layout == "channels last"
            else np.concatenate([x, np.full_like(x[:, :1], np.nan)], axis=1)
        )
        np.savez("waves.npz", x_train=x, y_train=np.eye(2)[y])
        source, options = "waves.npz", {}
    elif layout == "ts":
        lines = [
            "@problemName waves",
            "@univariate false",
            "@dimensions 2",
            "@classLabel true slow fast",
            "@data",
        ]
        lines += [
            ":".join(",".join(map(str, c)) for c in row) + f":{('slow', 'fast')[t]}"
            for row, t in zip(x, y, strict=True)
        ]
        Path("waves.ts").write_text("\n".join(lines) + "\n")
        source, options = "waves.ts", {}
    else:
        frame = pl.DataFrame({f"t{i:02}": x[:, 0, i] for i in range(16)} | {"y": y})
        options = {"target": "y", "kind": "sequence"}
        if layout == "long":
            rows = np.repeat(np.arange(40), 16)
            time = np.tile(np.arange(16), 40)
            values = {"a": x[:, 0].ravel(), "b": x[:, 1].ravel()}
            frame = pl.DataFrame({"id": rows, "time": time, **values, "y": np.repeat(y, 16)})
            options |= {"id_column": "id", "time_column": "time"}
        frame.write_csv("waves.csv")
        source = "waves.csv"
    run = advisor.train(source, out="run", fixed=SMALL, **options)
    assert run.document["task"] == "binary"
    model = advisor.load_model("run")
    assert len(model.predict(source)) == 40


@pytest.mark.parametrize("layout", ["names in a table", "pixels in a table", "sixteen bits"])
def test_each_format_of_images_is_trained_and_predicted(here, layout):
    images, labels = pictures(40)
    source, options = "train.csv", {"target": "label"}
    if layout == "names in a table":
        Path("train_images").mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(f"train_images/{number}.png")
        pl.DataFrame({"id": range(40), "label": labels}).write_csv("train.csv")
    elif layout == "pixels in a table":
        pixels = {f"pixel{place}": column for place, column in enumerate(images.reshape(40, -1).T)}
        pl.DataFrame({"label": labels, **pixels}).write_csv("train.csv")
    else:
        np.savez("deep.npz", images.astype(np.uint16) * 16, labels)
        source, options = "deep.npz", {}
    run = advisor.train(source, out="run", fixed=SMALL, **options)
    assert run.document["task"] == "binary" and len(advisor.load_model("run").predict(source)) == 40


def test_a_regression_of_series(here):
    x, y = waves(regression=True)
    np.savez("waves.npz", X=x, y=y)
    run = advisor.train("waves.npz", out="run", fixed=SMALL)
    assert run.document["task"] == "regression" and run.document["test"]["results"][0]["name"] == "network"
    assert advisor.load_model("run").predict(x).shape == (60,)
    assert "rows with the largest errors" in Path("run/report.html").read_text()


# ------------------------------------------------------------------ promises


def test_it_learns_what_there_is_to_learn(here):
    """Not a golden number: far better than chance, on images and on series."""
    images, labels = pictures(120, colour=True)
    np.savez("shapes.npz", X=images, y=labels)
    x, y = waves(120)
    np.savez("waves.npz", X=x, y=y)
    np.savez("volts.npz", X=x * 1e-6, y=y)
    series = {"epochs": 15, "patience": 15}
    for source, settings in (
        ("shapes.npz", {"epochs": 25, "patience": 25}),
        ("waves.npz", series),
        ("volts.npz", series),
    ):
        fixed = {**settings, "width": 8, "validation": "holdout", "final_members": 1}
        run = advisor.train(source, out=f"run-{source}", fixed=fixed)
        assert run.document["test"]["results"][0]["accuracy"] > 0.85, source


def test_a_saved_model_predicts_the_same_bit_for_bit(here):
    """M3: and unequal lengths and gaps of new rows are read as those of training were."""
    x, y = waves()
    x[::5, :, 20:] = np.nan
    x[3, 0, 4:6] = np.nan
    np.savez("waves.npz", X=x, y=y)
    run = advisor.train("waves.npz", out="run", fixed=SMALL)
    again = advisor.load_model("run")
    assert np.array_equal(run.model.predict_proba(x), again.predict_proba(x))
    alone = np.concatenate([again.predict_proba(x[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(alone, again.predict_proba(x)[:6], atol=1e-6)


def test_the_target_of_the_test_rows_is_looked_at_by_nobody(here):
    """D3."""
    x, y = waves()
    t, labels = waves(20, seed=4)
    made = []
    for answer in (labels, 1 - labels):
        np.savez("waves.npz", X_train=x, y_train=y, X_test=t, y_test=answer)
        advice = get_advice("waves.npz", None)
        made.append((dict(advice.facts.values) | {"memory.available_gb": 0}, advice.recommendation.to_yaml()))
    assert made[0] == made[1]


def test_members_of_folds_share_nothing_but_time(here):
    """Cross-validated series: every row is held out once, by the network that did not see it."""
    x, y = waves()
    np.savez("waves.npz", X=x, y=y)
    run = advisor.train(
        "waves.npz", out="run", fixed={"epochs": 2, "width": 8, "folds": 3, "validation": "kfold"}
    )
    final = run.document["final"]["contenders"][0]
    assert final["held_out_rows"] == run.document["data"]["rows"] and final["networks"] == 3


def test_treatments_of_rare_classes_that_make_up_rows_are_for_tables(here):
    np.savez("waves.npz", X=waves()[0], y=waves()[1])
    with pytest.raises(UserError, match="use oversample"):
        advisor.train("waves.npz", out="run", fixed={**SMALL, "class_balance": "smote"})
    assert advisor.train("waves.npz", out="run2", fixed={**SMALL, "class_balance": "oversample"}).model


def test_what_cannot_be_trained_is_refused_before_anything_is(here):
    np.savez("waves.npz", X=waves()[0], y=waves()[1])
    with pytest.raises(UserError, match="nothing is left of an input of 32"):
        advisor.train("waves.npz", out="run", fixed={**SMALL, **LEARNED, "stages": 6, "stem_stride": 4})
    advice = get_advice("waves.npz", None, reading_of({"fixed": LEARNED}))
    large = {**advice.recommendation.configuration, "width": 512, "batch_size": 2048}
    assert "GB are free" in refusal(
        large, advice.data.train, {**advice.facts.values, "memory.available_gb": 0.001}
    )


def test_a_batch_that_processes_share_needs_room_for_its_parts_and_only_then(here):
    np.savez("waves.npz", X=waves()[0], y=waves()[1])
    advice = get_advice("waves.npz", None, reading_of({"fixed": LEARNED}))
    shared = {**advice.recommendation.configuration, "batch_size": 4096, "gpus_per_trial": 4}
    free = [{**advice.facts.values, "memory.available_gb": gb} for gb in np.geomspace(0.01, 100, 40)]
    alone = [refusal(shared, advice.data.train, facts) is None for facts in free]
    spanning = [refusal(shared, advice.data.train, facts, spanning=True) is None for facts in free]
    assert alone == [
        refusal({**shared, "gpus_per_trial": 1}, advice.data.train, facts) is None for facts in free
    ]
    assert 0 < sum(alone) < sum(spanning) < len(free)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_one_line_on_the_command_line(mistake, here, capfd):
    """L1, D1: exit code 2, nothing on stdout, no run folder."""
    mistake.prepare(here)
    options = dict(mistake.options)
    if not all(isinstance(value, str) for value in options.values()):
        pytest.skip("an option that has no text form")
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert _run(["recommend", str(mistake.source), "--out", "no-run", *flags]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ")
    assert not Path("no-run").exists()


# ------------------------------------------------------------------ the rules give plans that work


def test_batches_below_sixteen_rows_get_group_normalization(here):
    """N4; regression: the space did not allow such a batch, so the rule's other branch was never reached."""
    folder(here)
    asked = {
        size: advisor.recommend("shapes", fixed={"batch_size": size}).configuration["norm_layer"]
        for size in (8, 16)
    }
    assert asked == {8: "group", 16: "batch"}


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("rows", [20, 300, 1000, 5000, 60_000])
def test_the_advice_for_images_of_any_size_can_be_trained(rows, gpus):
    """N25: no corner of the narrowed space is without a map, and the field
    covers what the task is likely to need."""
    space, rules, typical = (
        shipped.base_space("image"),
        shipped.rule_book(kind="image"),
        shipped.typical_facts("image"),
    )
    for side in SIZES:
        needed = max(3.0, 0.75 * side)
        facts = {
            **typical, "rows": rows, "image.side": side, "image.height": side, "image.width": side, "gpu.count": gpus,
            "gpu.memory_gb": 24.0 if gpus else None, "receptive.needed": needed,
        }  # fmt: skip
        rec = advise(facts, rules, space)
        assert not rec.contradictions
        plan = plan_of(rec.configuration, 3, (side, side))
        assert problem(plan, 10, int(rec.configuration["batch_size"])) is None, side
        assert blueprint(rec.configuration, facts).field >= 0.8 * needed, side
        _corners_can_be_trained(rec, (side, side))


@pytest.mark.parametrize("rows", [20, 300, 1500, 30_000])
def test_the_advice_for_series_of_any_length_can_be_trained(rows):
    space, rules = shipped.base_space("sequence"), shipped.rule_book(kind="sequence")
    for length in LENGTHS:
        needed = 0.5 * length
        facts = {
            **shipped.typical_facts(
                "sequence"
            ), "rows": rows, "sequence.length": length, "receptive.needed": needed,
        }  # fmt: skip
        rec = advise(facts, rules, space)
        assert not rec.contradictions
        cost = SignalCost(1, (length,), 10)
        assert cost.refusal(rec.configuration, int(rec.configuration["batch_size"]), 1, None) is None, length
        assert blueprint(rec.configuration, facts).field >= 0.6 * needed, length
        _corners_can_be_trained(rec, (length,))


def _corners_can_be_trained(rec, size):
    """The deepest plan that the narrowed space allows, of every family in it."""
    choices = (
        rec.space["network"].choices if "network" in rec.space.searched else (rec.configuration["network"],)
    )
    for network in choices:
        deep = {"network": network}
        if "stages" in rec.space.searched:
            deep["stages"] = rec.space["stages"].high
        configuration = rec.space.complete(deep)
        batch = int(configuration["batch_size"])
        assert SignalCost(1, size, 10).refusal(configuration, batch, 1, None) is None, (
            size,
            configuration,
        )
