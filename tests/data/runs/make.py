"""Makes the run folder of this program's format: ``python tests/data/runs/make.py``, once per released format.

It is kept as it is from then on, and ``tests/test_old_runs.py`` opens it with every later program.
"""

import random
import shutil
import subprocess
import sys
from pathlib import Path

from advisor.run_folder import FORMAT

HERE = Path(__file__).resolve().parent


def main():
    folder, draw = HERE / f"format-{FORMAT}", random.Random(0)
    rows = []
    for _ in range(60):
        x, kind = draw.gauss(0, 1), draw.choice("uvw")
        rows.append(f"{x:.3f},{kind},{'yes' if x + (kind == 'u') + draw.gauss(0, 0.5) > 0 else 'no'}")
    folder.mkdir()
    (folder / "data.csv").write_text("x,kind,y\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-m", "advisor.cli", "tune", "data.csv", "--target", "y", "--executor", "in-process"]
    command += ["--trials", "3", "--set", "epochs=3", "--set", "folds=2", "--set", "final_members=1", "--set", "width=16"]
    subprocess.run([*command, "--out", "run"], cwd=folder, check=True)
    subprocess.run(
        [sys.executable, "-m", "advisor.cli", "predict", "run", "data.csv", "--out", "predictions.csv"], cwd=folder, check=True
    )
    for name in ("report.html", "report.json", "lock"):
        (folder / "run" / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "run" / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    main()
