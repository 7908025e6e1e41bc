"""What an operator decides when the service starts: where it listens, where it keeps things, its limits."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MIB = 2**20
Scope = Literal["read", "advise", "run", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "advise", "run", "admin")
"""Each may what those before it may. read: look. advise: recommendations, ask and tell. run: tuning jobs
and predictions. admin: tokens, rule packs, deletion."""
DEFAULT_PROJECT = "default"
"""The operator's own."""
PORT = 8571
DATA = "advisor-service"
"""The folder of the service, where no other is named."""
GARBAGE = (10_000, 20, 20)
"""New objects until the garbage collector looks at the youngest, and how many of those
until the older ones."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a program on this machine finds it; a browser sends one of them as Host."""


def keep_for_ever() -> None:
    """Tell the garbage collector that what there is now (modules, rules, spaces) stays, and to come less
    often: it took an eighth of the time of an advice."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


@dataclass(frozen=True)
class ServiceLimits:
    """What one project, one token or one request may take. Past a limit the answer is 413, 429 or 503.

    requests_a_minute: of one token, as a bucket of so many that fills up evenly.
    requests_at_once: of all tokens together; more are answered 503 at once.
    body_bytes: of a JSON body. upload_bytes: of one data set. project_bytes: of all of a project's.
    read_seconds, read_bytes: time and memory of the process that reads an upload.
    unpacked_bytes: of the files in an archive.
    runs_at_once: tuning jobs of one project; run_workers: of all projects together.
    trials, run_seconds: the most that one tuning job may ask for.
    study_trials: the most trials of one study.
    days: after which data, recommendations, studies and runs of a project are deleted.
    models, model_bytes: saved models that are kept in memory for predictions, and their size in files.
    """

    requests_a_minute: int = 12_000
    requests_at_once: int = 256
    body_bytes: int = 4 * MIB
    upload_bytes: int = 1024 * MIB
    project_bytes: int = 10 * 1024 * MIB
    read_seconds: float = 600.0
    read_bytes: int = 4096 * MIB
    unpacked_bytes: int = 4096 * MIB
    runs_at_once: int = 2
    run_workers: int = 2
    trials: int = 1_000
    run_seconds: float = 86_400.0
    study_trials: int = 100_000
    days: float = 30.0
    models: int = 4
    model_bytes: int = 1024 * MIB


@dataclass(frozen=True)
class ServiceSettings:
    """One server.

    data: the folder for uploads, runs and the embedded database.
    database: a URL (postgresql:// or sqlite:///FILE); by default ``service.db`` in the folder.
    host, port: where it listens; port 0 takes a free one.
    hosts: further names by which browsers may call it (HOST or HOST:PORT); others are refused, so that no
        page of somebody else can reach the service through a name of theirs (DNS rebinding).
    cluster: the address of the Ray cluster whose job API runs tuning jobs; None is a process here.
    executor: of tuning jobs on this machine: ray trains on all cores, in-process on one.
    advice_processes: that advise on facts; 0 does it in the server.
    secure: whether browsers reach it over https alone; then its cookies say so.
    """

    data: Path
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    hosts: tuple[str, ...] = ()
    cluster: str | None = None
    secure: bool = False
    executor: str = "ray"
    advice_processes: int = 2
    limits: ServiceLimits = field(default_factory=ServiceLimits)

    @property
    def database_url(self) -> str:
        """Where tokens, studies and jobs are kept."""
        return self.database or f"sqlite:///{(self.data / 'service.db').resolve()}"
