"""Run the notebooks of docs/tutorials and keep what they print.

    python docs/run_tutorials.py [NAME ...]      # after a change of a notebook, or of what it shows

What goes to stderr (progress, log lines of libraries) is left out of the pages. ``tests/docs`` runs the
notebooks without keeping anything.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parent / "tutorials"
SECONDS_A_CELL = 300


def run(notebook: Path, folder: Path) -> Any:
    """The notebook with the outputs of its cells, run in ``folder``.

    Raises nbclient.exceptions.CellExecutionError where a cell fails.
    """
    book = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        book, timeout=SECONDS_A_CELL, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return book


def main() -> None:
    for notebook in sorted(TUTORIALS.glob("*.ipynb")):
        if len(sys.argv) == 1 or notebook.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(run(notebook, Path(folder)), notebook)
            sys.stdout.write(f"{notebook.stem}\n")


if __name__ == "__main__":
    main()
