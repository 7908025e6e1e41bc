"""R11: a run folder of every released format, opened with this program. ``tests/data/runs/make.py`` makes the newest."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import advisor
from advisor.journal import read_study
from advisor.run_folder import FORMAT
from advisor.search import end_of

KEPT = sorted((Path(__file__).parent / "data" / "runs").glob("format-*"))


def test_every_format_is_kept():
    assert [folder.name for folder in KEPT] == [f"format-{number}" for number in range(1, FORMAT + 1)]


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_an_old_run_opens(folder, tmp_path):
    """Its model predicts what it did, its trials are read, its reasons are told."""
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    with (folder / "data.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "predictions.csv").open() as file:
        expected = list(csv.DictReader(file))
    import polars as pl

    found = advisor.load_model(run).predict(pl.DataFrame(rows).with_columns(pl.col("x").cast(float)))
    assert list(found) == [row["prediction"] for row in expected]
    result = json.loads((run / "result.json").read_text())
    ends = [end_of(trial) for trial in read_study(run / "study.journal").trials]
    assert ends == [trial["end"] for trial in result["search"]["trials"]]
    for command in (["why", "run", "learning_rate"], ["report", "run", "--format", "markdown", "--out", "report.md"]):
        done = subprocess.run(
            [sys.executable, "-m", "advisor.cli", *command], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    assert "verdict" in (tmp_path / "report.md").read_text().lower() or (tmp_path / "report.md").stat().st_size > 500
