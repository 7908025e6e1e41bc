"""What a script needs to know of a table: its columns by how they are read, and its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.data.columns.cells import BOOLEAN_WORDS
from advisor.data.columns.column import Column, side_name
from advisor.data.columns.numbers import CLOCK, DURATION, SCALED
from advisor.data.tables.features import encode_none, encoded_names
from advisor.data.tables.schema import TableSchema
from advisor.errors import UserError
from advisor.exporting.script_parts import PLAIN_STEP, Parts, Settings, python, setting, source_list
from advisor.training.preprocessing import calendar_inputs

STORED_AS_NUMBERS = ("numbers", "text")
NOISE_STEP = (
    "part = with_noise([part[batch] for part in x], learned, y[batch])",
    "losses = learned.training_losses(network(*part), y[batch])",
)
NORMS = {"batch": "nn.BatchNorm1d", "layer": "nn.LayerNorm", "none": ""}


def table_parts(schema: TableSchema, c: Mapping[str, Any], channels: int, source: str) -> Parts:
    """UserError for columns that no script reads."""
    for column in schema.columns:
        _check(column, schema)
    time = _time_settings(schema, c)
    numeric, flags, dates, texts, categories = (
        [column.name for column in schema.of_type(kind)]
        for kind in ("numeric", "boolean", "datetime", "text", "categorical")
    )
    by_name = {column.name: column for column in schema.columns}
    written = _written_numbers([by_name[name] for name in numeric])
    plain = [name for name in numeric if not any(name in own for own in written.values())]
    one_hot = [name for name in categories if len(schema.levels[name]) <= int(c["one_hot_max"])]
    embedded = [name for name in categories if name not in one_hot]
    with_hours = [name for name in dates if _has_hours(by_name[name])]
    marks = sorted({mark for name in plain for mark in by_name[name].missing})
    spellings = {name: dict(joined) for name, joined in schema.spellings.items()}
    read_as = {
        *([_writing(schema.target_format)] if schema.target_format else []),
        *(name for name, own in written.items() if own),
    }
    names: dict[str, tuple[list[Any], str]] = {
        "NUMERIC": (plain, ""),
        "BOOLEAN": (flags, ""),
        "EMBEDDED": (embedded, "  # categories as learned vectors"),
        "ONE_HOT": (one_hot, "  # categories as indicators"),
        "TEXTS": (texts, "  # as their words and their length"),
        "WITH_HOURS": (with_hours, "  # dates of which hours matter"),
        "MARKS": (marks, "  # numbers for a missing cell"),
    }
    columns = [(name, source_list(own), comment) for name, (own, comment) in names.items() if own]
    tables: dict[str, dict[str, Any]] = {
        "DATES": {name: _date_forms(by_name[name]) for name in dates},
        **written,
        "SPELLINGS": spellings,
    }
    columns += [(name, _mapping(own), "") for name, own in tables.items() if own]
    if flags:
        for value, name in enumerate(("FALSE", "TRUE")):
            words = dict.fromkeys(pair[value] for pair in BOOLEAN_WORDS)
            columns.append((name, source_list(list(words)), ""))
    if dates and not with_hours:
        columns.append(("WITH_HOURS", "[]", ""))
    needed = [f"*{name}" for name in ("NUMERIC", "BOOLEAN", "EMBEDDED", "ONE_HOT", "TEXTS") if names[name][0]]
    needed += [f"*{name}" for name in ("DATES", *written) if tables[name]]
    needed += ["TIME_COLUMN"] if schema.time_column is not None else []
    parts = [name for date in dates for name in encoded_names(by_name[date])]
    lengths = [f"{name}.length" for name in texts]
    others = [name for own in written.values() for name in own]
    others += [side_name(name) for name in written["LIMITED"]]
    calendar = _calendar(schema, c, [*plain, *others, *flags, *parts, *lengths, *schema.time_parts[:-1]])
    columns += calendar
    noise = c["class_balance"] == "noise"
    context = {
        "example": "data.csv",
        "example_new": "new_rows.csv",
        "columns": columns,
        "encoding": schema.encoding,
        **time,
        "plain_numbers": plain,
        "written": [name for name, own in written.items() if own],
        "read_as": read_as,
        "flags": flags,
        "dates": dates,
        "with_hours": with_hours,
        "words": texts,
        "marks": marks,
        "spellings": {name: own for name, own in spellings.items() if name in categories},
        "target_spelt": schema.target in spellings,
        "target_reader": _target_reader(schema.target_format),
        "categories": categories,
        "one_hot": one_hot,
        "embedded_count": len(embedded),
        "all_categories": " + ".join(name for name in ("EMBEDDED", "ONE_HOT") if names[name][0]),
        "needed": ", ".join(needed),
        "cycles": bool(calendar),
        "crosses": any(name == "CROSSES" for name, _, _ in calendar),
        "bins": c["numeric_embedding"] == "piecewise_linear",
        "shape_type": "tuple",
        "residual": c["block"] == "residual" and int(c["hidden_layers"]) > 1,
        "norm": NORMS[c["norm"]],
        "norm_words": "" if c["norm"] == "none" else f", {c['norm']} normalization",
        "number_size": "1" if c["numeric_embedding"] == "none" else "NUMERIC_EMBEDDING_DIM",
        "network_words": f"Inputs, {c['hidden_layers']} hidden layers, an output layer",
    }
    return Parts(
        settings=("tables/settings.jinja",),
        data=("tables/reading.jinja", "tables/cells.jinja", "tables/inputs.jinja"),
        network=("network/init.jinja", "network/linear_layer.jinja", "tables/network.jinja"),
        step=NOISE_STEP if noise else PLAIN_STEP,
        training=("training/noise.jinja",) if noise else (),
        network_settings=_network_settings(c, bool(embedded)),
        penalized="nn.Linear",
        rows_per_pass=8192,
        group=schema.group_column,
        imports=(
            "import csv",
            *(("from sklearn.feature_extraction.text import CountVectorizer",) if texts else ()),
        ),
        notes=("the finding of types, repairs, warnings: columns are read here as they were in the run",),
        context=context,
    )


def _calendar(schema: TableSchema, c: Mapping[str, Any], numbers: Sequence[str]) -> Settings:
    """What of the numbers, in the order of a script, comes round; () if no sine or cosine is made."""
    features = encode_none(schema)
    words = set(features.words)
    ours = [name for name in features.numeric_names if name not in words]
    cycles, products = calendar_inputs(features, c.get("calendar_features", "none"))
    if not len(cycles):
        return ()

    def place(column: int) -> int:
        later = column - len(ours)
        return len(numbers) + later if later >= 0 else numbers.index(ours[column])

    rounds = [(place(int(column)), float(period)) for column, period in cycles]
    crosses = [(place(one), place(other)) for one, other in products.tolist()]
    lines = [("CYCLES", source_list(rounds), "  # a number's place, and after how much it comes round")]
    lines.append(("CYCLES_FROM", str(len(numbers)), "  # the place of the first sine"))
    return lines + ([("CROSSES", source_list(crosses), "  # numbers that are multiplied")] if crosses else [])


TIME_PARTS = {
    "year": "when.dt.year",
    "month": "when.dt.month",
    "day": "when.dt.day",
    "weekday": "when.dt.day_of_week + 1",
    "hour": "when.dt.hour + when.dt.minute / 60",
}
"""How a script computes the parts of a time that come round (``data/tables/times.py``)."""


def _time_settings(schema: TableSchema, c: Mapping[str, Any]) -> dict[str, Any]:
    """How the time column is read, and what of it the network sees."""
    if schema.time_column is None:
        return {"time_dates": False, "time_parts": [], "trend": False, "clamped": False}
    if schema.time is None or schema.group_column is not None:
        why = "without a time in the test rows" if schema.time is None else "in groups as well"
        raise UserError(
            f"--format script does not cover rows along time {why}: take --format onnx or torch, which hold "
            "the trained model"
        )
    _check(schema.time, schema)
    how = c["time_trend"] if schema.time_parts else "none"
    return {
        "target_time": schema.time_column,
        "time_dates": schema.time.type == "datetime",
        "time_forms": _date_forms(schema.time),
        "time_parts": [TIME_PARTS[part.rpartition(".")[2]] for part in schema.time_parts[:-1]],
        "trend": how != "none",
        "clamped": how == "clamped",
    }


def _check(column: Column, schema: TableSchema) -> None:
    had = schema.usual.get(column.name)
    says = ""
    if column.type == "numeric" and had is not None and had.stored not in STORED_AS_NUMBERS:
        says = had.stored
    elif column.type == "datetime" and column.format not in ("", "hours") and "%" not in column.format:
        says = f"dates as numbers ({column.format})"
    if says:
        raise UserError(
            f"--format script does not read column '{column.name}', which has {says}: write plain numbers or "
            f"dates, or leave it out (--type {column.name}=constant), and train again"
        )


def _written_numbers(columns: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """How numbers are written that are no plain ones: the name of a table of the script -> column -> its
    decimal mark and unit, its decimal mark, or nothing."""
    found: dict[str, dict[str, Any]] = {name: {} for name in (*WRITINGS, "LIMITED")}
    for column in columns:
        form = column.format
        if column.limits:
            found["LIMITED"][column.name] = _mark_and_unit(form or ".")
        elif form:
            found[_writing(form)][column.name] = _arguments(form)
    return found


WRITINGS = {
    "NUMBER_FORMATS": "as_written",
    "CLOCKS": "as_hours",
    "DURATIONS": "as_seconds",
    "AMOUNTS": "as_amounts",
}
"""Tables of a script, and the functions that read their columns."""


def _writing(form: str) -> str:
    own = {CLOCK: "CLOCKS", DURATION: "DURATIONS"}
    return "AMOUNTS" if form[1:] == SCALED else own.get(form, "NUMBER_FORMATS")


def _arguments(form: str) -> tuple[str, ...]:
    """Of the function that reads this form, beside the cells."""
    own: dict[str, tuple[str, ...]] = {"CLOCKS": (), "DURATIONS": (), "AMOUNTS": (form[0],)}
    return own.get(_writing(form), _mark_and_unit(form))


def _mark_and_unit(form: str) -> tuple[str, ...]:
    return form[0], form[1:]


def _target_reader(form: str) -> str:
    if not form:
        return "as_numbers(frame[TARGET])"
    return f"{WRITINGS[_writing(form)]}({', '.join(['frame[TARGET]', *map(python, _arguments(form))])})"


def _has_hours(column: Column) -> bool:
    return any(mark in column.format for mark in ("%H", "%I", "hours"))


def _date_forms(column: Column) -> list[str]:
    """The formats as Python has them: a fraction of a second is %f there."""
    forms = []
    for form in column.format.split("|") if "%" in column.format else ():
        forms += [form.replace("%S%.f", "%S.%f"), form.replace("%S%.f", "%S")] if "%.f" in form else [form]
    return forms


def _mapping(values: Mapping[str, Any]) -> str:
    lines = ", ".join(f"{python(name)}: {python(value)}" for name, value in values.items())
    if len(lines) <= 80:
        return "{" + lines + "}"
    return "{\n" + "".join(f"    {python(name)}: {python(value)},\n" for name, value in values.items()) + "}"


def _network_settings(c: Mapping[str, Any], embedded: bool) -> Settings:
    names = ["hidden_layers", "width"] if c["hidden_layers"] else []
    if c["numeric_embedding"] != "none":
        names.append("numeric_embedding_dim")
    names += {"piecewise_linear": ["numeric_embedding_bins"], "periodic": ["periodic_sigma"]}.get(
        c["numeric_embedding"], []
    )
    names += ["category_embedding_dim"] if embedded else []
    names += ["dropout"] if c["dropout"] and c["hidden_layers"] else []
    lines = [setting(name, c[name]) for name in names]
    if c.get("column_scale_rate", 0):
        says = "learning rate of the columns' factors, relative to that of the weights"
        lines.append(setting("column_scale_rate", c["column_scale_rate"], says))
    return lines
