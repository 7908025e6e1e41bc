"""Starting `advisor tune` on a run: as a process of this machine, or by the job API of a Ray cluster.

What is started is written here, from a run's folder and numbers; nothing of it comes over the network.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from advisor.runs.folder import RunFolder

LOG_FILE = "log"
"""In the run's folder: what the job wrote on stderr."""
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "TMPDIR",
    "RAY_TMPDIR",
)
"""Of the server's environment a job sees these: no token and no database's password."""


@dataclass(frozen=True)
class JobOrder:
    """What a tuning job is asked for. trials, seconds: checked numbers. seconds None: no time limit.
    with_trees: see ``workflows.tune``."""

    trials: int
    seconds: float | None
    strategy: str
    executor: str
    with_trees: bool = False

    def words(self, folder: Path) -> list[str]:
        """The command line, after the Python program."""
        words = ["-m", "advisor", "tune", str(folder), "--trials", str(self.trials), "--quiet"]
        words += ["--strategy", self.strategy, "--executor", self.executor]
        words += ["--with-trees"] if self.with_trees else []
        return words + ([] if self.seconds is None else ["--time-limit", f"{self.seconds:g}"])


class JobLauncher(Protocol):
    """Starts jobs and says whether they run."""

    def start(self, run_id: str, attempt: int, folder: Path, order: JobOrder) -> None:
        """Start a job; a second call with the same attempt starts no second one."""

    def runs(self, run_id: str, attempt: int, folder: Path) -> bool:
        """Whether the job has not ended."""


class LocalJobs:
    """Processes of this machine. They go on when the server stops; who starts again finds them by their
    lease."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, run_id: str, attempt: int, folder: Path, order: JobOrder) -> None:
        """Start a process in a session of its own, niced: answers come first."""
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        environment["OMP_NUM_THREADS"] = environment.get("OMP_NUM_THREADS", "1")
        with (folder / LOG_FILE).open("ab") as log:
            self._children[run_id] = subprocess.Popen(
                [sys.executable, *order.words(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._children[run_id].pid, 5)

    def runs(self, run_id: str, attempt: int, folder: Path) -> bool:
        """Whether our child lives, or somebody holds the run's lease: a child of the server before us."""
        child = self._children.get(run_id)
        if child is not None:
            if child.poll() is None:
                return True
            del self._children[run_id]
            return False
        return RunFolder(folder).driver() is not None


class RayJobs:
    """Jobs of a Ray cluster, whose nodes see the service's data folder. The submission id makes starting
    twice harmless."""

    def __init__(self, address: str, client: Any = None) -> None:
        self._address, self._client = address, client

    def start(self, run_id: str, attempt: int, folder: Path, order: JobOrder) -> None:
        """Submit the job, unless it was."""
        entry = shlex.join(["python", *order.words(folder), "--address", "auto"])
        if self._status(run_id, attempt) is None:
            self._jobs().submit_job(entrypoint=entry, submission_id=_submission(run_id, attempt))

    def runs(self, run_id: str, attempt: int, folder: Path) -> bool:
        """Whether Ray says that it waits or runs."""
        return self._status(run_id, attempt) in ("PENDING", "RUNNING")

    def _status(self, run_id: str, attempt: int) -> str | None:
        try:
            return str(self._jobs().get_job_status(_submission(run_id, attempt)).value)
        except RuntimeError:  # Ray's word for a job that it does not know
            return None

    def _jobs(self) -> Any:
        if self._client is None:
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(self._address)
        return self._client


def _submission(run_id: str, attempt: int) -> str:
    return f"advisor-{run_id}-{attempt}"
