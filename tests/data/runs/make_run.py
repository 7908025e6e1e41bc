"""Makes the run folder of the installed version, tests/data/runs/VERSION: run it once for each released format.

    .venv/bin/python tests/data/runs/make_run.py

The data ship with scikit-learn, so that the run can be gone on with anywhere.
"""

import shutil
from pathlib import Path

import advisor


def main() -> None:
    folder = Path(__file__).parent / advisor.__version__
    shutil.rmtree(folder, ignore_errors=True)
    small = {"epochs": 2, "validation": "holdout", "width": 16, "hidden_layers": 1, "final_members": 1}
    advisor.tune("sklearn:wine", "target", trials=3, out=folder, executor="in-process", fixed=small)
    (folder / "lock").unlink()
    for report in ("report.html", "report.json"):  # made again from the rest
        (folder / report).unlink()


if __name__ == "__main__":
    main()
