"""Runs that begin with trained weights: those of a network of timm, and those of an earlier run."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import advisor
from advisor.cli.main import _run
from advisor.dataset import Signals
from advisor.errors import UserError
from advisor.networks.cost import SignalCost

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import transfer

BACKBONE = {"network": f"timm:{transfer.NETWORK}", "backbone_side": transfer.SIDE}
SMALL = {"validation": "holdout", "final_members": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """timm's network, trained on the digits 0 to 4."""
    file = tmp_path_factory.mktemp("weights") / "digits.pt"
    transfer.trained_backbone(file, epochs=3)
    return file


def digits(count, seed=0):
    train, test = transfer.few_digits(count, seed)
    images, labels = transfer.digits()
    return images[train], labels[train], images[test], labels[test]


def accuracy(run, images, labels):
    return float((run.model.predict(images) == labels).mean())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["frozen", "fine_tuned"])
def test_a_run_with_a_network_of_timm_from_the_command_line(tmp_path, weights, capsys, way, monkeypatch):
    """Trained, saved, used without the weights' file, exported, also as a script, reported."""
    images, labels, new_images, _ = digits(5)
    np.savez(tmp_path / "few.npz", X=images, y=labels)
    fixed = [
        f"--fixed={n}={v}" for n, v in (BACKBONE | SMALL | {"backbone_training": way, "epochs": 2}).items()
    ]
    own = tmp_path / "own.pt"
    own.write_bytes(weights.read_bytes())
    run = tmp_path / "run"
    order = ["train", str(tmp_path / "few.npz"), "--out", str(run), "--weights", str(own), "--quiet", *fixed]
    assert _run(order) == 0
    own.unlink()
    np.save(tmp_path / "new.npy", new_images[:3])
    assert _run(["predict", str(run), str(tmp_path / "new.npy")]) == 0
    capsys.readouterr()
    found = advisor.export(run, format="torch")
    assert found.difference < 1e-4
    script = advisor.export(run, format="script").path.read_text()
    assert f'WEIGHTS = "{own}"' in script and "trained_weights()" in script
    assert (run / "report.html").is_file()
    files = sum(file.stat().st_size for file in (run / "model").iterdir())
    assert files < 2.5 * weights.stat().st_size, "the weights are saved once"


def test_advice_for_a_network_of_timm_says_what_is_trained_and_why(tmp_path, weights):
    images, labels, _, _ = digits(5)
    one = advisor.recommend(images, labels, fixed=BACKBONE, weights=weights)
    c = one.configuration
    assert (c["network"], c["backbone_side"], c["backbone_training"]) == (*BACKBONE.values(), "fine_tuned")
    assert {"backbone_training", "layer_decay"} <= set(one.space.searched)
    assert "width" not in one.space.searched and c["learning_rate"] == 0.001
    assert one.facts.values["has_backbone"] and one.facts.values["backbone.side"] == 160
    large = advisor.recommend(images, labels, fixed={"network": "timm:resnet18"})
    assert large.configuration["backbone_side"] == 224
    assert large.configuration["backbone_training"] == (
        "frozen" if not one.facts.values["gpu.count"] else "fine_tuned"
    )


BAD = {
    "no file": (["--weights", "absent.pt"], "there is no such file"),
    "another network": (["--fixed=network=timm:test_vit"], "not those of timm:test_vit"),
    "no network of timm": (["--fixed=network=convolutional"], "give --fixed network=timm:NAME too"),
    "not trained weights": (["--fixed=backbone_training=scratch"], "leave one of them out"),
    "a misspelt name": (["--fixed=network=timm:test_resnett"], "did you mean 'test_resnet'"),
    "a misspelt family": (["--fixed=network=tim:test_resnet"], "or timm:NAME"),
    "no name": (["--fixed=network=timm:"], "'timm:' is not one of"),
    "a side that is too small": (["--fixed=backbone_side=3"], "backbone_side"),
    "both beginnings": (["--from", "."], "leave one of them out"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_weights_is_one_line(tmp_path, weights, capsys, monkeypatch, case):
    images, labels, _, _ = digits(5)
    np.savez(tmp_path / "few.npz", X=images, y=labels)
    monkeypatch.chdir(tmp_path)
    more, says = BAD[case]
    order = [
        "recommend",
        "few.npz",
        "--weights",
        str(weights),
        f"--fixed=network={BACKBONE['network']}",
        *more,
    ]
    assert _run(order) == 2
    told = capsys.readouterr().err.strip()
    assert says in told and "\n" not in told


def test_colours_that_no_weights_know_are_refused():
    signals = Signals(np.zeros((4, 2, 8, 8), np.uint8))
    configuration = BACKBONE | {"backbone_training": "fine_tuned"}
    reason = SignalCost.of(signals, 2).refusal(configuration, 4, 1, None)
    assert reason is not None and "reads grey or colour images, these have 2 channels" in reason


def test_tables_and_series_have_no_network_of_timm(capsys):
    assert _run(["recommend", "sklearn:iris", "--target", "target", "--weights", "w.pt"]) == 2
    assert "--weights is for a network of timm" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ --from RUN

TINY = {"hidden_layers": 2, "width": 32, "epochs": 3, "validation": "holdout", "final_members": 1}


def table(rows, seed, columns=("a", "b", "c", "kind"), classes=("no", "yes")):
    """Two numbers and a category decide the class; c is noise."""
    draw = np.random.default_rng(seed)
    frame = pl.DataFrame({name: draw.normal(size=rows) for name in ("a", "b", "c", "d")}).with_columns(
        kind=pl.Series(draw.choice(["red", "green", "blue"], rows))
    )
    score = frame["a"] * frame["b"] + (frame["kind"] == "red").cast(pl.Float64)
    answers = np.array(classes)[(score > 0).cast(pl.Int64)]
    return frame.select(columns).with_columns(y=pl.Series(answers))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    out = tmp_path_factory.mktemp("earlier") / "run"
    advisor.train(table(400, 0), "y", fixed=TINY, out=out, progress=False)
    return out


def begun(data, earlier, tmp_path, **options):
    """The recommendation and the weights that training would begin with."""
    from advisor.runs.starting import start_of
    from advisor.workflows.recommend import get_advice, reading_of

    advice = get_advice(data, "y", reading_of({"from_run": earlier, **options}))
    return advice, start_of(advice)


def network_of(advice, start):
    """The network of the recommendation as training begins with it, and its inputs."""
    from advisor.checks.subject import Subject
    from advisor.splits import everything

    train = advice.training_rows()
    c = dict(advice.recommendation.configuration)
    return Subject.of(c, train, everything(train), seed=0, start=start)


@pytest.mark.parametrize(
    ("columns", "classes", "same"),
    [
        (("a", "b", "c", "kind"), ("no", "yes"), True),
        (("kind", "c", "b", "a"), ("no", "yes"), True),
        (("a", "b", "d", "c", "kind"), ("no", "yes"), True),
        (("a", "kind"), ("no", "yes"), True),
        (("a", "b", "c", "kind"), ("left", "right"), False),
    ],
)
def test_columns_are_found_by_name_and_classes_decide_the_output(tmp_path, earlier, columns, classes, same):
    advice, start = begun(table(200, 1, columns, classes), earlier, tmp_path)
    subject = network_of(advice, start)
    network, old = subject.network(), advisor.load_model(earlier).stacks[0]
    labels = subject.prepared.labels(subject.data.features, 0)
    old_labels = start.labels[0]
    first, before = network.blocks[0].linear.weight[0], old.state["blocks.0.linear.weight"][0]
    size = network.sizes[0]
    for column in ("a", "kind") if "kind" in columns else ("a",):
        kind = "numeric" if column == "a" else "indicators"
        of = [
            label for label in getattr(labels, kind) if column in label and label in getattr(old_labels, kind)
        ]
        assert of
        for label in of:
            offset = size * len(labels.numeric) if kind == "indicators" else 0
            old_offset = size * len(old_labels.numeric) if kind == "indicators" else 0
            step = size if kind == "numeric" else 1
            mine = offset + step * getattr(labels, kind).index(label)
            its = old_offset + step * getattr(old_labels, kind).index(label)
            assert (first[mine : mine + step] == before[its : its + step]).all(), label
    assert (network.blocks[1].linear.weight[0] == old.state["blocks.1.linear.weight"][0]).all()
    assert bool((network.head.weight[0] == old.state["head.weight"][0]).all()) == same


def test_the_earlier_architecture_is_taken_and_the_reasons_say_so(tmp_path, earlier, capsys):
    advice, _ = begun(table(200, 1), earlier, tmp_path)
    one = advice.recommendation
    assert (one.configuration["width"], one.configuration["hidden_layers"]) == (32, 2)
    assert "width" not in one.space.searched
    assert (
        one.provenance["width"].because
        == f"Taken from the earlier run {earlier}, whose weights training begins with."
    )
    assert advice.facts.values["has_earlier_run"]
    assert one.configuration["epochs"] != TINY["epochs"], "only the architecture is"


@pytest.mark.slow
def test_training_and_search_begin_with_an_earlier_run(tmp_path, earlier):
    """The same from the command line and from Python; a run that is resumed keeps it."""
    table(60, 1).write_csv(tmp_path / "new.csv")
    order = ["--target", "y", "--from", str(earlier), "--quiet", "--fixed", "epochs=2"]
    assert _run(["train", str(tmp_path / "new.csv"), "--out", str(tmp_path / "t"), *order]) == 0
    assert advisor.load_model(tmp_path / "t").stacks[0].configuration["width"] == 32
    run = advisor.tune(
        tmp_path / "new.csv", "y", trials=2, from_run=earlier, fixed={"epochs": 2}, executor="in-process",
        out=tmp_path / "s", progress=False,
    )  # fmt: skip
    assert run.model is not None
    again = advisor.tune(tmp_path / "s", trials=3, executor="in-process", progress=False)
    assert len(again.report.trials) == 3 and again.report.setup.configuration["width"] == 32


def refused(data, earlier, says, **options):
    with pytest.raises(UserError, match=says) as told:
        begun(data, earlier, None, **options)
    assert "\n" not in str(told.value)


def test_what_no_earlier_run_can_give_is_one_line(tmp_path, earlier):
    new = table(100, 1)
    refused(new, tmp_path / "nothing", "there is no such run folder")
    refused(new, tmp_path, "holds no model")
    refused(new, earlier, "its width is 32, and 64 was fixed", fixed={"width": 64})
    refused(table(400, 0), earlier, "trained on these very rows")
    refused(new.select("y", x=pl.col("a")), earlier, "shares no column with these data")
    refused(new, earlier, "leave one of them out", weights="w.pt")
    refused(new, 7, "expected a run folder")


@pytest.mark.slow
def test_series_and_images_begin_with_an_earlier_run_or_say_what_differs(tmp_path):
    images, labels = transfer.digits()
    draw = np.random.default_rng(0).permutation(len(images))
    first, second = draw[:100], draw[100:150]
    fixed = {"width": 8, "epochs": 2, "validation": "holdout", "final_members": 1}
    one = tmp_path / "one"
    advisor.train(images[first], labels[first], fixed=fixed, out=one, progress=False)
    run = advisor.train(
        images[second],
        labels[second],
        from_run=one,
        fixed={"epochs": 1},
        out=tmp_path / "two",
        progress=False,
    )
    assert run.report.setup.configuration["width"] == 8
    colour = np.repeat(images[second][..., None], 3, axis=3)
    with pytest.raises(UserError, match=r"its network does not fit these data: 'stem.*' has the shape"):
        advisor.train(colour, labels[second], from_run=one, out=tmp_path / "three", progress=False)
    series = images.reshape(len(images), 1, 64).astype(np.float32)
    with pytest.raises(UserError, match="learned from images, and these are sequences"):
        advisor.train(series[second], labels[second], from_run=one, out=tmp_path / "four", progress=False)
    advisor.train(
        series[first],
        labels[first],
        fixed={"network": "kernels", "kernel_features": 1008, "epochs": 2, "folds": 2},
        out=tmp_path / "five",
        progress=False,
    )
    with pytest.raises(UserError, match="have no weights that were learned"):
        advisor.train(
            series[second], labels[second], from_run=tmp_path / "five", out=tmp_path / "six", progress=False
        )
    other = tmp_path / "seven"
    advisor.train(
        series[first], labels[first], fixed=fixed | {"network": "convolutional"}, out=other, progress=False
    )
    found = advisor.train(
        series[second],
        labels[second],
        from_run=other,
        fixed={"epochs": 1},
        out=tmp_path / "eight",
        progress=False,
    )
    assert found.report.setup.configuration["network"] == "convolutional"
