"""A configuration as a plain PyTorch file: it reads well, runs without the advisor, and is as good as ours."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

import advisor
from advisor.cli.main import _run
from advisor.data.columns.column import Column
from advisor.data.columns.numbers import CLOCK, DURATION, SCALED
from advisor.data.masks.scenes import MaskSchema
from advisor.data.signals.cleaning import Cleaning
from advisor.data.signals.signals import SignalSchema
from advisor.data.tables.features import encode
from advisor.data.tables.schema import TableSchema
from advisor.data.tables.table import read_frame
from advisor.dataset import Cycle
from advisor.errors import UserError
from advisor.exporting.script import ScriptSubject, export_script, script_of
from advisor.networks.convolutional import SignalShape
from advisor.networks.decoder import SceneShape
from advisor.networks.kernel_network import KernelShape
from advisor.networks.kernels import MiniRocket
from advisor.networks.pretrained.backbone import BackboneShape
from advisor.networks.pretrained.timm_models import backbone_module
from advisor.networks.tables import InputShape
from advisor.rules import shipped
from advisor.training.loop import network_of
from advisor.training.preprocessing import Preprocessor

FIRST_RUN = Path(__file__).parents[1] / "fixtures" / "runs" / "0.1.0"
CLOSE = 0.1
"""How far the test losses may lie apart, as a share of a constant's: networks trained from other random numbers for
a few epochs on a hundred rows differ by up to a twentieth."""
CLEAN = ["--isolated", "--select", "E,F,W,B,I", "--line-length", "110", "--target-version", "py311"]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(path, data, test, capsys):
    """The test losses that a script tells of."""
    capsys.readouterr()
    load(path).train_command(str(data), str(test), 0)
    out = capsys.readouterr().out
    return {name: float(value) for name, value in re.findall(r"^test (\w+): (\S+)$", out, re.M)}


def as_good(ours, script, constant):
    assert abs(script["loss"] - ours) < CLOSE * constant, (script, ours, constant)


# ------------------------------------------------------------------------------------------- as good as the model


def table(rows, seed):
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": draw.normal(size=rows), "b": draw.exponential(size=rows).round(1)})
    frame["c"] = draw.choice(["red", "green", "blue"], rows)
    frame["d"] = draw.choice([f"level {n}" for n in range(15)], rows)
    dates = pd.Timestamp("2023-01-01") + pd.to_timedelta(draw.integers(0, 700, rows), "D")
    frame["when"], frame["flag"] = dates.strftime("%d/%m/%Y"), draw.choice(["yes", "no"], rows)
    known = 1.5 * frame["a"] + 2 * (frame["c"] == "red") - (frame["flag"] == "yes")
    frame["number"] = known + draw.normal(size=rows) / 4
    frame["class"] = np.where(known + draw.logistic(size=rows) / 2 > 0, "good", "bad")
    frame.loc[::7, "b"], frame.loc[::11, "c"] = np.nan, None
    return frame


@pytest.mark.slow
@pytest.mark.parametrize("target", ["class", "number"])
def test_the_script_of_a_table_is_as_good_as_the_model(target, tmp_path, capsys):
    other = {"class": "number", "number": "class"}[target]
    for seed, name in enumerate(("train", "test")):
        table(160, seed).drop(columns=other).to_csv(tmp_path / f"{name}.csv", index=False)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    fixed = {"epochs": 8, "folds": 2, "final_members": 1}
    options = {"out": tmp_path / "run", "test_fraction": 0, "progress": False, "fixed": fixed}
    run = advisor.train(train, target, **options)
    assert _run(["export", str(run.folder), "--format", "script", "--out", str(tmp_path / "model.py")]) == 0
    assert "one batched network" in capsys.readouterr().err
    truth, script = pd.read_csv(test)[target], trained(tmp_path / "model.py", train, test, capsys)
    if target == "number":
        as_good(((run.model.predict(test) - truth) ** 2).mean(), script, truth.var())
        return
    ours = run.model.predict_proba(test)
    as_good(log_loss(truth, ours), script, np.log(2))
    load(tmp_path / "model.py").predict_command(str(test), str(tmp_path / "new.csv"))
    new = pd.read_csv(tmp_path / "new.csv")
    assert new.columns.tolist() == ["prediction", "probability_bad", "probability_good"]
    assert np.allclose(new.filter(like="probability").sum(axis=1), 1)
    assert np.corrcoef(ours[:, 1], new["probability_good"])[0, 1] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "sequence"])
def test_the_script_of_images_and_series_is_as_good_as_the_model(kind, tmp_path, capsys):
    values, labels = load_digits(n_class=4, return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    values, labels = values[order], labels[order]
    values = (
        (values.reshape(-1, 8, 8) * 15).astype(np.uint8) if kind == "image" else values.astype(np.float32)
    )
    if kind == "sequence":
        values[::2, 60:] = np.nan  # shorter ones
    data, test = tmp_path / "d.npz", tmp_path / "test.npz"
    np.savez(data, X=values[:160], y=labels[:160])
    np.savez(test, X_test=values[160:400], y_test=labels[160:400])
    fixed = {
        "network": "convolutional",
        "epochs": 14,
        "validation": "holdout",
        "final_members": 1,
        "width": 16,
    }
    np.savez(tmp_path / "few.npz", X=values[400:410], y=labels[400:410])  # so that all of the others train
    options = {"out": tmp_path / "run", "test": tmp_path / "few.npz", "progress": False, "fixed": fixed}
    run = advisor.train(data, kind=kind, **options)
    script = advisor.export(run.folder, format="script").path
    assert script == run.folder / "model.py"
    ours = log_loss(labels[160:400], run.model.predict_proba(values[160:400]))
    as_good(ours, trained(script, data, test, capsys), np.log(4))


def test_the_script_of_a_recommendation_alone(tmp_path):
    table(60, 0).to_csv(tmp_path / "d.csv", index=False)
    assert (
        _run(["recommend", str(tmp_path / "d.csv"), "--target", "class", "--out", str(tmp_path / "run")]) == 0
    )
    text = advisor.export(tmp_path / "run", format="script").path.read_text()
    assert 'CLASSES = ["bad", "good"]' in text and 'DATES = {"when": ["%d/%m/%Y"]}' in text


def test_of_a_blend_the_script_has_the_best_part_and_says_so(tmp_path):
    shutil.copytree(FIRST_RUN, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    result["final"]["winner"] = "blend"
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    written = advisor.export(tmp_path / "run", format="script")
    assert (
        "the best of them, recommendation (0.2782)" in written.notes[0]
        and "PARTITIONS = 2" in written.path.read_text()
    )


# ------------------------------------------------------------------------------------------------ part by part

COLUMNS = {
    "a": Column("a", "numeric", "", missing=(-999.0,)),
    "b": Column("b", "numeric", "", ",€"),
    "c": Column("c", "categorical", ""),
    "d": Column("d", "categorical", ""),
    "e": Column("e", "datetime", "", "%d/%m/%Y"),
    "f": Column("f", "boolean", ""),
    "g": Column("g", "text", ""),
    "h": Column("h", "identifier", ""),
    "i": Column("i", "numeric", "", CLOCK),
    "j": Column("j", "numeric", "", DURATION),
    "k": Column("k", "numeric", "", f".{SCALED}"),
    "l": Column("l", "numeric", "", ".", limits=True),
}
LEVELS = {"c": ("l0", "l1", "l2"), "d": tuple(f"l{n:02}" for n in range(20))}


def rows_of_all_types(rows=60):
    draw = np.random.default_rng(0)
    amounts = [f"{x:,.2f} €".translate(str.maketrans(",.", ".,")) for x in draw.exponential(2000, rows)]
    frame = pd.DataFrame({"a": draw.normal(size=rows), "b": amounts})
    frame["c"], frame["d"] = draw.choice(LEVELS["c"], rows), draw.choice(LEVELS["d"], rows)
    frame["e"] = pd.Series(pd.date_range("2024-01-01", periods=rows)).dt.strftime("%d/%m/%Y")
    frame["f"] = draw.choice(["yes", "no"], rows)
    frame["g"] = draw.choice(["the cat sat", "a dog ran far", "one bird flew off"], rows)
    frame["i"] = np.resize(["08:30", "2:30 PM", "23:59:30", "12:00 am", None], rows)
    frame["j"] = np.resize(["1 days 02:00:00.5", "26:00:00", "-1 days +23:59:00", "3 days", None], rows)
    frame["k"] = np.resize(["$1.2M", "500K", "1,200", "3 billion", None], rows)
    frame["l"] = np.resize(["<0.3", "4.4", ">= 17", "90+", "1,250.5", None], rows)
    frame["who"], frame["w"] = draw.choice(list("pqrstuvw"), rows), draw.uniform(0.5, 2, rows)
    frame.loc[::7, "a"], frame.loc[::9, "c"] = -999, None
    return frame.assign(y=draw.choice(["n", "p"], rows), number=draw.exponential(size=rows))


def of_table(which="abcdefgh", task="binary", target="y", words=("cat", "dog"), **more):
    levels = {name: own for name, own in LEVELS.items() if name in which}
    classes = ("n", "p") if target == "y" else ()
    columns = tuple(COLUMNS[name] for name in which)
    return TableSchema(
        columns, target, task, classes, levels, words={"g": words} if "g" in which else {}, **more
    )


IMAGES = SignalSchema("image", "class", "multiclass", ("0", "1", "2"), 3, (16, 16), False)
SERIES = SignalSchema("sequence", "class", "multiclass", ("0", "1", "2"), 2, (32,), False)
MASKS = MaskSchema("mask", "mask", "segmentation", ("ground", "cell", "edge"), 3, (20, 24), False, values=(0, 7, 9),
                   ignored=(255,))  # fmt: skip
COLOURS = replace(MASKS, values=(0x000000, 0x00FF00, 0xFF0000), coloured=True, ignored=())
SMALL = {"epochs": 1, "folds": 2, "width": 16}
MARKED = Cleaning(marks=((-9.0,), ()), limits=((-5.0, 5.0), (-5.0, 5.0)), units=(2.0, 1.0))
IN_GROUPS = {"group_column": "who", "weight_column": "w", "spellings": {"c": {"L0": "l0"}, "y": {"P": "p"}}}
ALONG_TIME = {"time_column": "e", "time": COLUMNS["e"], "time_parts": ("e.month", "e.days")}
CALENDAR = {"calendar": (Cycle("e.weekday", "weekday", 7.0), Cycle("a", "hour", 24.0)), "working": ("f",)}
ALL_OF_IMAGES = {"flip": "both", "shift": 0.1, "rotation": 9.0, "zoom": 0.1, "brightness": 0.1, "cutout": 0.2}
TIMM = {"network": "timm:test_resnet", "backbone_side": 32}
COSINE = {"classifier": "cosine"}
ALL_OF_MASKS = {
    "flip": "both",
    "shift": 0.1,
    "rotation": 9.0,
    "zoom": 0.1,
    "brightness": 0.1,
    "crop": 16,
    "crop_foreground": 0.5,
}
ALL_OF_SERIES = {"flip": "sign", "shift": 0.1, "magnitude": 0.1, "jitter": 0.1, "cutout": 0.2}
CASES = {
    "plain": (of_table(), {}),
    "adamw": (of_table(), {"optimizer": "adamw", "weight_decay": 0.1, "column_scale_rate": 9.0, "schedule": "cosine"}),
    "adam": (of_table("a"), {"optimizer": "adam", "weight_decay": 0.1, "schedule": "one_cycle", "gradient_clip": 1.0}),
    "sgd": (of_table("cd"), {"optimizer": "sgd", "weight_decay": 0.1, "l1": 0.01, "warmup": 0.1}),
    "nadam": (of_table("ad"), {"optimizer": "nadam", "activation": "selu", "hidden_layers": 0}),
    "rmsprop": (of_table("ag"), {"optimizer": "rmsprop", "norm": "layer", "dropout": 0.1}),
    "adagrad": (of_table("e"), {"optimizer": "adagrad", "class_balance": "noise", "activation": "leaky_relu"}),
    "balanced": (of_table(), {"class_balance": "reweight", "calibration": "temperature", "validation": "kfold",
                              "decision": "prior_corrected", "output_init": "zero", "label_smoothing": 0.1}),
    "focal": (of_table("abc"), {"class_balance": "focal", "block": "residual", "norm": "batch", "hidden_layers": 3}),
    "drawn": (of_table("abc"), {"class_balance": "oversample", "linear_skip": True}),
    "retrained": (of_table(), {"class_balance": "classifier_retraining", "epochs": 3, "calibration": "temperature"}),
    "retrained image": (IMAGES, {"class_balance": "classifier_retraining", "epochs": 2, "gradient_clip": 1.0}),
    "groups": (of_table(**IN_GROUPS), {"validation": "kfold"}),
    "bins": (of_table(task="regression", target="number"),
             {"numeric_embedding": "piecewise_linear", "numeric_scaling": "quantile", "target_transform": "log"}),
    "periodic": (of_table(task="regression", target="number", group_column="who"),
                 {"numeric_embedding": "periodic", "numeric_scaling": "robust"}),
    "written": (of_table("ijkl"), {}),
    "hours": (of_table("b", "regression", "i", target_format=CLOCK), {}),
    "times": (of_table("abc", **ALONG_TIME), {"time_trend": "clamped", "calibration": "temperature"}),
    "folds of times": (of_table("a", **ALONG_TIME), {"time_trend": "none", "validation": "kfold"}),
    "calendar": (of_table("aef", **CALENDAR), {"calendar_features": "cyclic", "numeric_embedding": "piecewise_linear"}),
    "image": (IMAGES, {"block": "plain", "norm_layer": "none", "mixup": 0.2, **ALL_OF_IMAGES}),
    "residual": (IMAGES, {"block": "residual", "norm_layer": "batch", "factorised": True, "pooling": "stride", "mixup": 0.2}),
    "squeeze": (IMAGES, {"block": "residual", "norm_layer": "group", "squeeze": True, "weight_decay": 0.1}),
    "efficientnet": (IMAGES, {"network": "efficientnet", "norm_layer": "batch", "dropout": 0.1, "head": "average"}),
    "mixer": (IMAGES, {"network": "mixer", "norm_layer": "layer", "resolution": 0.5, "scaling": "instance"}),
    "series": (replace(SERIES, cleaning=MARKED), {"block": "plain", "norm_layer": "layer", "mixup": 0.2,
                                                  "position": "coordinate", **ALL_OF_SERIES}),
    "inception": (SERIES, {"network": "inception", "norm_layer": "batch", "blocks": 2, "head": "average"}),
    "kernels": (SERIES, {"network": "kernels", "kernel_features": 336, "dropout": 0.1, "class_balance": "oversample"}),
    "recurrent": (SERIES, {"network": "recurrent", "head": "max", "scaling": "instance"}),
    "cosine": (of_table(), COSINE | {"linear_skip": True, "output_init": "zero", "numeric_embedding": "piecewise_linear"}),
    "cosine kernels": (SERIES, COSINE | {"network": "kernels", "kernel_features": 168, "prototypes": "learned"}),
    "cosine image": (IMAGES, COSINE | {"mixup": 0.2, "class_balance": "oversample"}),
    "fine-tuned": (IMAGES, TIMM | {"backbone_training": "fine_tuned", "layer_decay": 0.7, "optimizer": "adamw",
                                   "weight_decay": 0.1, "flip": "horizontal", "dropout": 0.1}),
    "frozen": (replace(IMAGES, channels=1), TIMM | {"backbone_training": "frozen", **COSINE}),
    "scratch": (IMAGES, TIMM | {"backbone_training": "scratch", "mixup": 0.2, "l1": 0.01}),
    "masks": (MASKS, {"output_init": "zero", "dice_weight": 0.5, "stages": 4, "deep_supervision": True, "norm_layer": "batch",
                      "dropout": 0.1, "label_smoothing": 0.1, **ALL_OF_MASKS}),
    "residual masks": (COLOURS, {"block": "residual", "norm_layer": "group", "upsampling": "resize", "squeeze": True,
                                 "pooling": "stride", "weight_decay": 0.1}),
    "plain masks": (MASKS, {"upsampling": "subpixel", "pooling": "average", "skips": False, "l1": 0.01}),
}  # fmt: skip


def subject_of(schema, changes):
    space = shipped.base_space(schema.kind).parameters
    configuration = {name: one.default for name, one in space.items()} | SMALL | changes
    channels = getattr(schema, "channels", 0)
    return ScriptSubject(
        "run", "data", "d.npz", schema, configuration, 1, 1, channels, 0, 0.25, weights="w.pt"
    )


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for name, (schema, changes) in CASES.items():
        export_script(subject_of(schema, changes), folder / f"{name}.py")
    rows_of_all_types().to_csv(folder / "d.csv", index=False)
    draw = np.random.default_rng(0)
    labels = draw.choice([0, 1, 2], 40)
    np.savez(folder / "image.npz", X=draw.integers(0, 255, (40, 16, 16, 3)).astype(np.uint8), y=labels)
    np.savez(folder / "grey.npz", X=draw.integers(0, 255, (40, 16, 16)).astype(np.uint8), y=labels)
    torch.save(backbone_module("test_resnet").state_dict(), folder / "w.pt")
    masks = draw.choice([0, 7, 9, 255], (40, 20, 24))
    images = draw.integers(0, 255, (40, 20, 24, 3)).astype(np.uint8)
    np.savez(folder / "mask.npz", X=images, Y=masks)
    colours = np.stack([255 * (masks == 9), 255 * (masks == 7), 0 * masks], axis=-1).astype(np.uint8)
    np.savez(folder / "colours.npz", X=images, Y=colours)
    np.savez(folder / "sequence.npz", X=draw.normal(size=(40, 2, 32)).astype(np.float32), y=labels)
    return folder


def test_scripts_read_well_and_have_no_parts_that_are_not_in_use(scripts):
    """No unused import or variable, no long line; and no part of another configuration."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *CLEAN, scripts], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    plain = (scripts / "plain.py").read_text()
    assert not re.search("Periodic|Conv|cosine|Residual|mixup|GROUP|SPELLINGS", plain)
    assert len(plain.splitlines()) < 600


def predicted_values(path):
    """Of masks, colours as one number each."""
    masks = np.load(path).astype(np.int32)
    return masks @ [65536, 256, 1] if masks.ndim == 4 else masks


def our_shape(schema, changes, theirs):
    """What our network must know of the inputs, of what a script's must know."""
    if schema.kind == "table":
        return InputShape(theirs[0], theirs[1], tuple(theirs[2]))
    if changes.get("network") == "kernels" or changes.get("backbone_training") == "frozen":
        return KernelShape(theirs)
    if changes.get("network") == TIMM["network"]:
        return BackboneShape.of(changes, (schema.channels, *schema.size))
    return {"mask": SceneShape}.get(schema.kind, SignalShape)(theirs, schema.size)


@pytest.mark.parametrize("name", CASES)
def test_a_script_trains_our_network_and_predicts(scripts, name, monkeypatch):
    schema, changes = CASES[name]
    data = scripts / ("d.csv" if schema.kind == "table" else f"{schema.kind}.npz")
    data = scripts / "colours.npz" if schema is COLOURS else data
    data = scripts / "grey.npz" if getattr(schema, "channels", 0) == 1 else data
    monkeypatch.chdir(scripts)
    module = load(scripts / f"{name}.py")
    module.train_command(str(data), None, 0)
    if schema.kind == "mask":
        module.predict_command(str(data), str(scripts / "new.npy"))
        assert set(np.unique(module.codes_of(predicted_values(scripts / "new.npy")))) <= {0, 1, 2}
    else:
        module.predict_command(str(data), str(scripts / "new.csv"))
        assert pd.read_csv(scripts / "new.csv").notna().all().all()
    inputs = module.Inputs(**module.Model.load(module.MODEL_FILE).networks[0]["inputs"])
    bins = [inputs.bins] if hasattr(inputs, "bins") else []
    theirs = module.Network(inputs.shape, module.Target.outputs, *bins)
    configuration = subject_of(schema, changes).configuration
    edges = torch.tensor(bins).transpose(1, 2) if bins else None
    shape, outputs = our_shape(schema, changes, inputs.shape), module.Target.outputs
    network = network_of(shape, configuration, outputs, 1, torch.Generator(), edges)
    assert sum(w.numel() for w in theirs.parameters()) == sum(w.numel() for w in network.parameters())


@pytest.mark.parametrize(
    ("which", "scaling"),
    [("abcdefghijkl", "standard"), ("abcdefgh", "robust"), ("abcdefgh", "quantile")],
)
def test_a_script_reads_rows_as_we_do(which, scaling, tmp_path):
    """Column by column, whatever their order: numbers, indicators and codes."""
    frame = rows_of_all_types()
    frame.to_csv(tmp_path / "d.csv", index=False)
    schema = of_table(which, **CALENDAR)
    subject = subject_of(schema, {"numeric_scaling": scaling, "calendar_features": "crossed"})
    module = load(export_script(subject, tmp_path / "model.py").path)
    rows, _ = module.read_rows(str(tmp_path / "d.csv"))
    inputs = module.Inputs.fit(rows)
    schema = replace(schema, words={"g": tuple(inputs.words[0])})
    features = encode(read_frame(tmp_path / "d.csv"), schema)
    fitted = Preprocessor.fit(features, np.arange(len(frame)), subject.configuration)
    ours = fitted.transform(features)
    for theirs, own in zip(inputs(rows), (ours.numeric, ours.indicators, ours.codes), strict=True):
        columns = [sorted(map(tuple, np.round(part.T, 4).tolist())) for part in (theirs.numpy(), own)]
        assert np.allclose(*columns, atol=1e-3)


def test_the_script_of_folders_of_masks_writes_masks_as_they_came(tmp_path):
    """Of any size, numbers as in the training masks; points beside the image have no class."""
    draw = np.random.default_rng(0)
    for part, size in (("train", (16, 20)), ("test", (30, 20))):
        (tmp_path / part / "Images").mkdir(parents=True)
        (tmp_path / part / "labels").mkdir()
        for number in range(8):
            mask = np.kron(draw.choice([0, 7, 9, 255], (size[0] // 2, size[1] // 2)), np.ones((2, 2)))
            image = np.stack([mask, 255 - mask, mask], axis=2).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / part / "Images" / f"{number}.png")
            Image.fromarray(mask.astype(np.uint8)).save(tmp_path / part / "labels" / f"{number}_mask.png")
    subject = replace(subject_of(replace(MASKS, size=(16, 20)), {}), source=str(tmp_path))
    module = load(export_script(subject, tmp_path / "model.py").path)
    _, target = module.read_rows(str(tmp_path), test=True)
    assert (
        target.shape == (8, 16, 20)
        and (target[:, :, :4] == 255).all()
        and set(np.unique(target)) == {0, 1, 2, 255}
    )
    module.train_command(str(tmp_path), str(tmp_path), 0)
    module.predict_command(str(tmp_path / "test"), str(tmp_path / "new"))
    new = np.stack([np.asarray(Image.open(one)) for one in sorted((tmp_path / "new").iterdir())])
    assert new.shape == (8, 30, 20) and set(np.unique(new)) <= {0, 7, 9}


def test_scripts_run_where_the_advisor_is_not_installed(scripts, tmp_path):
    program = [
        "import runpy, sys",
        "sys.modules['advisor'] = None",
        "def run(name, *words):",
        f"    sys.argv = [name, *words]; runpy.run_path('{scripts}/' + name, run_name='__main__')",
    ]
    data = {"plain": "d.csv", "image": "image.npz", "kernels": "sequence.npz", "masks": "mask.npz"}
    for name, file in data.items():
        program += [f"run('{name}.py', 'train', '{scripts}/{file}')"]
        program += [f"run('{name}.py', 'predict', '{scripts}/{file}', '--out', '{name}.new')"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", "\n".join(program)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test loss") == len(data) == len(list(tmp_path.iterdir()))


def test_fixed_convolutions_of_a_script_are_ours(scripts):
    module = load(scripts / "kernels.py")
    rows, _ = module.read_rows(str(scripts / "sequence.npz"))
    inputs = module.Inputs.fit(rows)
    own = inputs.convolutions
    reads = [[np.flatnonzero(weight[:, 0].numpy()) for weight in one["weights"]] for one in own]
    quantiles = tuple(one["quantiles"].numpy() for one in own)
    ours = MiniRocket(np.array([one["dilation"] for one in own]), quantiles, tuple(map(tuple, reads)))
    expected = MiniRocket.fit(rows["values"], 336)
    assert ours.dilations.tolist() == expected.dilations.tolist()
    assert [own.shape for own in ours.quantiles] == [own.shape for own in expected.quantiles]
    series = inputs.series(rows)
    theirs = inputs.features(series).numpy()
    columns = [np.sort(part.T @ np.arange(len(part))) for part in (theirs, ours.transform(series.numpy()))]
    assert np.allclose(*columns)


def test_names_may_be_anything(tmp_path):
    name = 'a "quoted"\n{{ name }} \\ # 1'
    schema = replace(of_table("a"), columns=(replace(COLUMNS["a"], name=name),), classes=('n"', "p\\"))
    text, _ = script_of(subject_of(schema, {}), "model.py")
    (tmp_path / "model.py").write_text(text)
    module = load(tmp_path / "model.py")
    assert [name] == module.NUMERIC and module.CLASSES == ['n"', "p\\"]


@pytest.mark.parametrize(
    ("schema", "changes", "says"),
    [
        (replace(of_table("a", **ALONG_TIME), group_column="who"), {}, "rows along time in groups"),
        (of_table(), {"class_balance": "smote"}, "class_balance smote"),
        (of_table(), {"class_balance": "classifier_retraining", "l1": 0.1}, "retraining with an l1 penalty"),
        (of_table(), {"decision": "for_metric"}, "decision for_metric, which a metric asked for"),
        (
            replace(of_table("a"), columns=(Column("t", "datetime", "", "seconds"),)),
            {},
            "column 't', which has dates as numbers",
        ),
    ],
)
def test_what_no_script_covers_is_refused_in_one_line(schema, changes, says):
    with pytest.raises(UserError, match=says):
        script_of(subject_of(schema, changes), "model.py")
