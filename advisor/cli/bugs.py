"""Where the traceback of a bug goes: a file that a person can send us."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from advisor.files import write_text

VERSIONS_OF = ("tuning-advisor", "torch", "optuna", "ray", "polars", "numpy", "scikit-learn")


def save_traceback(error: BaseException) -> Path:
    """Write the traceback with versions and command line into the run folder that the
    error names, else a temporary one."""
    folder = getattr(error, "run_folder", None) or tempfile.mkdtemp(prefix="advisor-bug-")
    path = Path(folder) / "error.log"
    lines = [" ".join(sys.argv), f"python {platform.python_version()} on {platform.platform()}"]
    for name in VERSIONS_OF:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} is not installed")
    write_text(path, "\n".join([*lines, "", *traceback.format_exception(error)]))
    return path
