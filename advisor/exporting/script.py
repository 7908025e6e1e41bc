"""A configuration as one plain PyTorch file that trains it and predicts, without the advisor.

The file is made from templates (``templates/``) that have only the parts that are in use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from advisor import __version__
from advisor.errors import UserError
from advisor.exporting.script_masks import mask_parts
from advisor.exporting.script_parts import (
    OPTIMIZER,
    ORDER,
    Parts,
    Settings,
    python,
    setting,
    sorted_imports,
    source_list,
    uncovered,
)
from advisor.exporting.script_signals import signal_parts
from advisor.exporting.script_tables import table_parts
from advisor.files import write_bytes
from advisor.kinds import MANY, Kind
from advisor.networks.cosine import is_cosine
from advisor.networks.pretrained.names import backbone_name
from advisor.tasks import TargetKind, task_of
from advisor.training.loop import HEAD_SHARE

TEMPLATES = Path(__file__).parent / "templates"
UNCOVERED_BALANCE = ("smote", "teacher")
RETRAINED = "classifier_retraining"
WEIGHTED = ("reweight", "oversample", "noise", RETRAINED)
"""Treatments in which rare classes count more."""
OPTIMIZERS: Mapping[str, tuple[str, str]] = {
    "adamw": ("AdamW", "torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, BETA2), weight_decay=0.0)"),
    "adam": ("Adam", "torch.optim.Adam(groups, lr=LEARNING_RATE, betas=(0.9, BETA2))"),
    "nadam": ("NAdam", "torch.optim.NAdam(groups, lr=LEARNING_RATE, betas=(0.9, BETA2))"),
    "rmsprop": ("RMSprop", "torch.optim.RMSprop(groups, lr=LEARNING_RATE, alpha=0.99, momentum=MOMENTUM)"),
    "adagrad": ("Adagrad", "torch.optim.Adagrad(groups, lr=LEARNING_RATE)"),
    "adadelta": ("Adadelta", "torch.optim.Adadelta(groups, lr=LEARNING_RATE)"),
    "sgd": (
        "SGD",
        "torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=MOMENTUM > 0)",
    ),
}
"""Name, and how it is made: as training/optimizer.py does."""
PARTITIONS_ARE = ("how often the rows are split anew", "times as many networks on rows of all times")
"""... of rows without and with times."""
DECAYS_IN_GROUPS = ("adamw", "adam")
"""Their weight decay is an option of the optimizer; of the others it is a line of its own."""
INITIALIZATIONS: Mapping[str, tuple[bool, str, str]] = {
    "he_normal": (True, "2 / fan_in", "from a normal distribution (He et al. 2015)"),
    "he_uniform": (False, "2 / fan_in", "from a uniform distribution (He et al. 2015)"),
    "xavier_normal": (True, "2 / (fan_in + fan_out)", "from a normal distribution (Glorot and Bengio 2010)"),
    "xavier_uniform": (
        False,
        "2 / (fan_in + fan_out)",
        "from a uniform distribution (Glorot and Bengio 2010)",
    ),
    "lecun_normal": (True, "1 / fan_in", "from a normal distribution (LeCun et al. 1998)"),
    "torch_default": (False, "1 / (3 * fan_in)", "as torch draws it"),
}
"""Whether normal, the variance, and a name for people: as networks/tables.py does."""
ACTIVATIONS: Mapping[str, str] = {
    "leaky_relu": "F.leaky_relu",
    "sigmoid": "torch.sigmoid",
    "tanh": "torch.tanh",
}
"""Functions whose name is not F and their own."""


@dataclass(frozen=True)
class ScriptSubject:
    """What a script is made of.

    run, data, source: names of the run's folder and the data set, and what the data are read from.
    schema: of the rows. configuration: what is trained. members: networks per split. partitions: how often
    the rows are split anew. channels: of a network's input, the mask of missing points included; of tables 0.
    seed, test_fraction: as the run had them. notes: what else to tell. weights: the file with the trained
    weights that training begins with.
    """

    run: str
    data: str
    source: str
    schema: Any
    configuration: Mapping[str, Any]
    members: int
    partitions: int
    channels: int
    seed: int
    test_fraction: float
    notes: tuple[str, ...] = ()
    weights: str = ""


@dataclass(frozen=True)
class Script:
    """What was written. notes: what the advisor does and the file does not."""

    path: Path
    notes: tuple[str, ...]


PARTS: Mapping[Kind, Callable[[Any, Mapping[str, Any], int, str], Parts]] = {
    "table": table_parts,
    "image": signal_parts,
    "sequence": signal_parts,
    "mask": mask_parts,
}
"""Schema, configuration, channels and source -> what the script has because of these rows."""


@dataclass(frozen=True)
class TargetParts:
    """What a script has because of its target: a template of how it is learned, and one of how it is judged
    and predicted; the method that predicts, and what it returns; imports."""

    learned: str
    judged: str
    method: str
    returns: str
    imports: tuple[str, ...]


TARGET_PARTS: Mapping[TargetKind, TargetParts] = {
    "class": TargetParts(
        "training/target_classes.jinja",
        "prediction/classes.jinja",
        "predict_proba",
        "Probabilities (rows, classes)",
        (
            "from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss",
            "import pandas as pd",
        ),
    ),
    "number": TargetParts(
        "training/target_number.jinja",
        "prediction/number.jinja",
        "predict",
        "A number for each row",
        (
            "from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score",
            "import pandas as pd",
        ),
    ),
    "mask": TargetParts(
        "training/target_masks.jinja",
        "prediction/masks.jinja",
        "predict_proba",
        "Probabilities (rows, classes, height, width)",
        (),
    ),
}
VALIDATION = (
    "out = outputs(network, [part[held_out] for part in x])",
    "losses = learned.losses(out, y[held_out])",
)
"""The lines that compute ``losses`` of the held-out rows."""
IMPORTS = (
    "import argparse",
    "import math",
    "from pathlib import Path",
    "import numpy as np",
    "import torch",
    "from torch import Tensor, nn",
    "from torch.nn import functional as F",
)
"""Of every script."""
PACKAGES = {"sklearn": "scikit-learn", "PIL": "Pillow"}
"""Packages by the names that they are imported by, where these differ."""

FOR_A_METRIC: Mapping[str, tuple[str, ...]] = {
    "decision": ("for_metric",),
    "loss": ("mean_absolute_error", "quantile"),
}
"""Values of parameters that only a user's metric asks for, and that no script covers."""


def export_script(subject: ScriptSubject, path: Path) -> Script:
    """Write the file. UserError, in one line, for what of a run no script covers."""
    text, notes = script_of(subject, path.name)
    write_bytes(path, text.encode())
    return Script(path, notes)


def script_of(subject: ScriptSubject, file: str) -> tuple[str, tuple[str, ...]]:
    """The file's text, and its notes."""
    c = subject.configuration
    if c["class_balance"] in UNCOVERED_BALANCE:
        raise uncovered(
            f"class_balance {c['class_balance']}", "another, such as --fixed class_balance=oversample"
        )
    if c["class_balance"] == RETRAINED and (more := _beside_retraining(subject)):
        raise uncovered(f"class_balance {RETRAINED} with {more}", "--fixed class_balance=oversample")
    if asked := [f"{name} {c[name]}" for name, of_metric in FOR_A_METRIC.items() if c[name] in of_metric]:
        raise UserError(
            f"--format script does not cover {' and '.join(asked)}, which a metric asked for: take --format "
            "onnx or torch, or train again without --metric"
        )
    if subject.schema.kind not in PARTS:
        raise UserError(f"--format script does not cover {MANY[subject.schema.kind]} yet")
    parts = PARTS[subject.schema.kind](subject.schema, c, subject.channels, subject.source)
    if backbone_name(c) is not None:
        from advisor.exporting.script_backbones import backbone_parts

        parts = backbone_parts(subject.schema, c, subject.weights, parts)
    notes = (*subject.notes, *_notes(c), *parts.notes)
    context = {**_common(subject, parts, file), **parts.context, "notes": notes}
    context |= _classifier(c, context)
    return tidy(_environment().get_template("model.py.jinja").render(context)), notes


def _beside_retraining(subject: ScriptSubject) -> str:
    """What no script can do where the output layer is trained once more; "" for nothing."""
    c, schema = subject.configuration, subject.schema
    by_hand = bool(c["weight_decay"]) and c["optimizer"] not in DECAYS_IN_GROUPS
    found = {
        "rows along time": schema.time_column is not None,
        "weights of rows": getattr(schema, "weight_column", None) is not None,
        "an l1 penalty": bool(c["l1"]),
        f"weight decay and {c['optimizer']}": by_hand,
        "a cosine classifier": is_cosine(c),
    }
    return next((name for name, there in found.items() if there), "")


def head_epochs(c: Mapping[str, Any]) -> int:
    """For how many of the last epochs the output layer is trained alone."""
    if c["class_balance"] != RETRAINED:
        return 0
    return min(max(1, round(HEAD_SHARE * int(c["epochs"]))), int(c["epochs"]) - 1)


def _classifier(c: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """What the output layer changes: a cosine classifier wraps the network."""
    cosine = is_cosine(c)
    prior = context["has_prior"] and context["starts_at_zero"] and not cosine
    arguments = ["inputs.shape", "learned.outputs", *(["inputs.bins"] if context["bins"] else [])]
    by_means = cosine and c["prototypes"] == "class_means"
    place = ["network.place_means([part[train] for part in x], y[train])"] if by_means else []
    return {
        "cosine": cosine,
        "margin": cosine and bool(c["cosine_margin"]),
        "network_class": "Embedding" if cosine else "Network",
        "output_words": "embeddings"
        if cosine
        else "logits"
        if context["classes"]
        else "the standardized target",
        "prior": prior,
        "zero": context["starts_at_zero"] and not cosine,
        "some_zero": (context["starts_at_zero"] and not cosine) or bool(c.get("linear_skip")),
        "network_arguments": ", ".join([*arguments, *(["learned.prior"] if prior else [])]),
        "begin": [line.format(".embedding" if cosine else "") for line in context["begin"]],
        "validation": [*place, *context["validation"]],
    }


def _sections(subject: ScriptSubject, parts: Parts, warm: bool, drawn: bool) -> Mapping[str, Sequence[str]]:
    """The templates of each section. warm: there is a temperature. drawn: rows of rare classes are drawn more
    often."""
    target = TARGET_PARTS[task_of(subject.schema.task).target]
    c = subject.configuration
    penalized = bool(c["l1"]) or (bool(c["weight_decay"]) and parts.optimizer == OPTIMIZER)
    return {
        "settings": parts.settings,
        "data": parts.data,
        "network": (*parts.network, *(("network/cosine.jinja",) if is_cosine(subject.configuration) else ())),
        "training": (
            "training/schedule.jinja",
            parts.optimizer,
            *(("training/matrices.jinja",) if penalized else ()),
            target.learned,
            "training/loop.jinja",
            "training/outputs.jinja",
            *(("training/drawn.jinja",) if drawn else ()),
            *(("training/head.jinja",) if c["class_balance"] == RETRAINED else ()),
            *parts.training,
            "training/splits.jinja",
        ),
        "prediction": (
            "prediction/model.jinja",
            *(("prediction/temperature.jinja",) if warm else ()),
            "prediction/train_command.jinja",
            target.judged,
            "prediction/main.jinja",
        ),
    }


def _imports(subject: ScriptSubject, parts: Parts, warm: bool) -> str:
    task = task_of(subject.schema.task)
    splitter = "StratifiedGroupKFold" if task.of_classes else "GroupKFold"
    own = [*IMPORTS, *TARGET_PARTS[task.target].imports, *parts.imports]
    own += ["from scipy.optimize import minimize_scalar"] if warm else []
    own += [f"from sklearn.model_selection import {splitter}"] if parts.group else []
    return sorted_imports(own)


def _needs(imports: str) -> str:
    """The packages to install."""
    _, _, others = imports.partition("\n\n")
    names = list(dict.fromkeys(line.split()[1].split(".")[0] for line in others.splitlines()))
    names = [PACKAGES.get(name, name) for name in names if name != "scipy"]  # which scikit-learn brings
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _common(subject: ScriptSubject, parts: Parts, file: str) -> dict[str, Any]:
    """What the templates of all kinds of rows need."""
    c, schema = subject.configuration, subject.schema
    task = task_of(schema.task)
    normal, variance, words = INITIALIZATIONS[c["weight_init"]]
    kfold, along_time = c["validation"] == "kfold", schema.time_column is not None
    in_groups = bool(c["weight_decay"]) and c["optimizer"] in DECAYS_IN_GROUPS
    scales = bool(c.get("column_scale_rate", 0))
    conditions = [f"id(p) not in {name}" for name, on in (("decayed", in_groups), ("scales", scales)) if on]
    warm = task.of_classes and c["calibration"] == "temperature"
    retrained = c["class_balance"] == RETRAINED
    drawn = c["class_balance"] in ("oversample", "noise")
    imports = _imports(subject, parts, warm)
    return {
        "c": c,
        "file": file,
        "version": __version__,
        "run": subject.run,
        "data": subject.data,
        "predicted": schema.target,
        "example_out": "predictions.csv",
        "out_words": "where to write the CSV; by default stdout",
        "networks": _networks(subject, kfold),
        "parts": _sections(subject, parts, warm, drawn or retrained),
        "retrained": retrained,
        "imports": imports,
        "needs": _needs(imports),
        "seed": subject.seed,
        "target": schema.target,
        "test_fraction": subject.test_fraction or 0.2,
        "classes": task.of_classes,
        "class_names": list(schema.classes),
        "group": parts.group,
        "weight": getattr(schema, "weight_column", None),
        "has_test_part": False,
        "predict": TARGET_PARTS[task.target].method,
        "predicted_words": TARGET_PARTS[task.target].returns,
        "warm": warm,
        "prior_corrected": task.of_classes and c["decision"] == "prior_corrected",
        "kfold": kfold,
        "along_time": along_time,
        "folds": "FOLDS" if kfold else "max(2, round(1 / VALIDATION_FRACTION))",
        "weighted_classes": c["class_balance"] in WEIGHTED,
        "in_groups": in_groups,
        "by_hand": bool(c["weight_decay"]) and not in_groups,
        "scales": scales,
        "rest": f" if {' and '.join(conditions)}" if conditions else "",
        "optimizer_name": OPTIMIZERS[c["optimizer"]][0],
        "optimizer": OPTIMIZERS[c["optimizer"]][1],
        "penalized": parts.penalized,
        "recurrent": False,
        "step": parts.step,
        "order": "drawn(train, learned, y)" if drawn else ORDER,
        "trained_rows": "len(train)",
        "training": f"prediction/training{'_along_time' if along_time else ''}.jinja",
        "validation": VALIDATION,
        "returned": "".join([", best_scores" * warm, ", best_epoch" * along_time]),
        "init_normal": normal,
        "init_variance": variance,
        "init_words": words,
        "starts_at_zero": c["output_init"] == "zero",
        "begin": (),
        "layered": False,
        "by_dimension": False,
        "as_rows": "values",
        "has_prior": task.has_probabilities,
        "bins": False,
        "shape_type": "int",
        "activation": ACTIVATIONS.get(c["activation"], f"F.{c['activation']}"),
        "dropped": (lambda x: f"F.dropout({x}, DROPOUT, self.training)") if c["dropout"] else (lambda x: x),
        "network_settings": [*parts.network_settings, *_cosine_settings(c)],
        "training_settings": _training_settings(subject, parts, kfold),
    }


def _networks(subject: ScriptSubject, kfold: bool) -> str:
    """How many networks, in words."""
    if subject.schema.time_column is not None:
        return "networks for as long as later rows want"
    each = "a network" if subject.members == 1 else f"{subject.members} networks"
    where = f"on each of {subject.configuration['folds']} folds" if kfold else "on a part of the rows"
    return f"{each} {where}" + (f", {subject.partitions} times over" if subject.partitions > 1 else "")


def _training_settings(subject: ScriptSubject, parts: Parts, kfold: bool) -> Settings:
    c = subject.configuration
    along_time = subject.schema.time_column is not None
    plan = (*(("folds",) if kfold or along_time else ()), *(() if kfold else ("validation_fraction",)))
    optional = {
        "warmup": c["schedule"] != "one_cycle",
        "beta2": c["optimizer"] in ("adamw", "adam", "nadam"),
        "momentum": c["optimizer"] in ("sgd", "rmsprop"),
        "balance_strength": c["class_balance"] in WEIGHTED,
        "focal_gamma": c["class_balance"] == "focal",
        "balance_noise": c["class_balance"] == "noise",
        "gradient_clip": True,
        "weight_decay": True,
        "l1": True,
        "label_smoothing": task_of(subject.schema.task).has_probabilities,
        "mixup": True,
    }
    used = [name for name, on in optional.items() if on and c.get(name)]
    names = ("epochs", "patience", "batch_size", "learning_rate", *used, *plan)
    comments = {
        "epochs": "at most",
        "patience": "epochs without a better loss on the held-out rows, after which training stops",
        "learning_rate": {"constant": "", "cosine": "at its peak", "one_cycle": "at its peak"}[c["schedule"]],
    }
    head = head_epochs(c)
    values = {**c, "epochs": c["epochs"] - head}
    lines = [setting(name, values[name], comments.get(name, "")) for name in names]
    lines += [setting("head_epochs", head, "of the output layer alone, after these")] if head else []
    return [
        *lines,
        setting("partitions", subject.partitions, PARTITIONS_ARE[along_time]),
        setting("members", subject.members, "networks for each split"),
        setting("rows_per_pass", parts.rows_per_pass, "without gradients"),
    ]


def _cosine_settings(c: Mapping[str, Any]) -> Settings:
    names = ("embedding_dim", "cosine_scale", *(("cosine_margin",) if c.get("cosine_margin") else ()))
    return [setting(name, c[name]) for name in names] if is_cosine(c) else []


def _notes(c: Mapping[str, Any]) -> tuple[str, ...]:
    notes = ["folds trained at once, in one batched network: here one after the other"]
    if is_cosine(c):
        notes.append("telling which rows are like no class (column similarity): here each row has its class")
    if c["validation_weights"] == "like_test":
        notes.append("validation rows that count by their likeness to the test rows: here all count alike")
    return tuple(notes)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the file is a program, not a page; texts go through ``python``
    )
    environment.filters |= {"py": python, "listed": source_list}
    return environment


def tidy(text: str) -> str:
    """At most two empty lines in a row, none at the end of a block, and a newline at the end."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{4,}", "\n\n\n", lines).strip("\n") + "\n"
