"""Where a run's search stands, what it was asked for, and stopping it from another terminal or machine."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from advisor import __version__
from advisor.errors import UserError
from advisor.files import FORMAT, read_json, write_json
from advisor.runs.folder import DriverProcess, RunFolder
from advisor.runs.remote import Remote, local_copy
from advisor.runs.result import read_result

if TYPE_CHECKING:
    import optuna

SearchState = Literal["running", "stopping", "finished", "interrupted", "not searched"]
"""running: a driver holds the run. stopping: ... and was asked to stop. finished: there is a result with all
trials asked for. interrupted: a search was begun, and nobody drives it. not searched: no search was begun."""

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class SearchRequest:
    """What `advisor tune` was asked for last.
    storage: the database's URL without its password; None is the journal.

    study: the study's name in the database.
    objective, working_dir: of a user's own training code.
    strategy: None in runs of 0.1.0, which did not keep it.
    """

    trials: int
    objective: str | None = None
    working_dir: str | None = None
    storage: str | None = None
    study: str | None = None
    strategy: str | None = None


@dataclass(frozen=True)
class BestTrial:
    """The best complete trial."""

    number: int
    value: float
    origin: str


@dataclass(frozen=True)
class TrialUnderWay:
    """A trial that runs, with its last written epoch and loss; None before the first."""

    number: int
    origin: str
    epoch: int
    loss: float | None


@dataclass(frozen=True)
class Status:
    """driver: who runs it; None when nobody does.
    ends: how many finished trials ended how.
    seconds_left: of the search, when its trials go on taking what they took; None while nobody drives it, it
        was asked to stop, or none has ended."""

    state: SearchState
    driver: DriverProcess | None
    trials: int | None
    ends: dict[str, int]
    best: BestTrial | None
    running: list[TrialUnderWay]
    seconds_left: float | None
    winner: str | None
    storage: str | None

    @property
    def done(self) -> int:
        """Trials that count."""
        return sum(count for end, count in self.ends.items() if end != "discarded")


def read_request(run: RunFolder) -> SearchRequest | None:
    """What the search was asked for; None where none was begun by this version or a later one."""
    if not run.search.is_file():
        return None
    document = read_json(run.search)
    optional = ("objective", "working_dir", "storage", "study", "strategy")
    kinds: dict[str, Any] = {"trials": int} | dict.fromkeys(optional, str | None)
    wrong = [name for name, kind in kinds.items() if not isinstance(document.get(name), kind)]
    if not wrong and document.get("storage") is not None and "://" not in document["storage"]:
        wrong = ["storage"]  # refused here, where the file can be named
    if wrong:
        raise UserError(
            f"{run.search} is damaged: '{wrong[0]}' is {document.get(wrong[0])!r}; fix it, or use a new run"
        )
    return SearchRequest(document["trials"], **{name: document.get(name) for name in optional})


def begin_request(
    run: RunFolder,
    trials: int,
    objective: str | None,
    working_dir: str | Path | None,
    storage: str | None,
    strategy: str = "joint",
) -> SearchRequest:
    """Settle and keep what a search is asked for; only under the run's lease.
    trials: 0 is as many as before, and then the strategy is the one before, too.

    UserError when the study of a search that was begun would have to move, or its objective to change.
    """
    from advisor.search.storage.database import without_password
    from advisor.search.storage.journal import check_lines

    kept = read_request(run)
    if kept is None and run.journal.exists():
        check_lines(run.journal)  # before anything is written into a folder that is not ours
        kept = SearchRequest(trials or 1)  # it is not known how many were asked for
    wanted = None if storage is None else without_password(storage)
    if kept is not None and kept.objective != objective:
        names = [f"the objective {name}" if name else "our networks" for name in (kept.objective, objective)]
        raise UserError(
            f"{run.path} was searched with {names[0]}, not with {names[1]}: use a new run (--out)"
        )
    if kept is not None and wanted not in (None, kept.storage):
        raise UserError(
            f"the study of {run.path} is in {kept.storage or run.journal}: leave --storage out, or use a "
            "new run"
        )
    where, study = wanted, f"{run.path.name}-{secrets.token_hex(4)}" if wanted else None
    if kept is not None:
        where, study = kept.storage, kept.study
    folder = None if working_dir is None else str(Path(working_dir).resolve())
    if kept is not None and trials == 0:
        trials, strategy = kept.trials, kept.strategy or strategy
    request = SearchRequest(trials, objective, folder, where, study, strategy)
    keep_request(run, request)
    return request


def keep_request(run: RunFolder, request: SearchRequest) -> None:
    """Write what the search is asked for; only under the run's lease."""
    write_json(run.search, {"format": FORMAT, "advisor": __version__, **asdict(request)})


def stopping(run: RunFolder, should_stop: Callable[[], bool] | None) -> Callable[[], bool]:
    """Whether the caller or `advisor stop` wants an end."""
    request = run.stop_request
    return lambda: request.exists() or (should_stop is not None and should_stop())


def searched_run(data: Any) -> RunFolder | None:
    """The run that the data name (its folder, URL or recommendation) where a search was begun in it."""
    if not isinstance(data, str | Path):
        return None
    path = Path(local_copy(data))
    if not path.is_dir() and path.suffix not in (".yaml", ".yml"):
        return None
    run = RunFolder(path if path.is_dir() else path.parent)
    return run if run.has_search() else None


def remembered(
    data: Any, objective: Any | None, working_dir: str | Path | None
) -> tuple[Any | None, str | Path | None]:
    """The objective and its folder, those of a run that is gone on with where none is given."""
    run = searched_run(data) if objective is None else None
    if run is None:
        return objective, working_dir
    kept = read_request(run)
    if kept is None or kept.objective is None:
        return None, working_dir
    if kept.objective.startswith("__main__:") or "<" in kept.objective:
        raise UserError(
            f"{run.path} was searched with a function of a program ({kept.objective}): give the objective "
            "again"
        )
    return kept.objective, working_dir if working_dir is not None else kept.working_dir


def study_of(run: RunFolder) -> optuna.Study:
    """The run's study, for reading, from its database or its journal. UserError when there is none."""
    request = read_request(run)
    if request is not None and request.storage is not None:
        from advisor.search.storage.database import read_database_study as read_database

        return read_database(request.storage, str(request.study))
    from advisor.search.storage.journal import read_journal_study

    return read_journal_study(run.journal)


def read_status(run: RunFolder) -> Status:
    """Where the search stands; touches nothing."""
    request, driver = read_request(run), run.driver()
    result = read_result(run) if run.result.is_file() else None
    ends, best, running = dict[str, int](), None, list[TrialUnderWay]()
    took: list[float] = []
    if run.has_search():
        from advisor.search.storage.journal import VOID
        from advisor.search.trials import end_of

        trials = study_of(run).get_trials(deepcopy=False)
        for trial in trials:
            if trial.state.is_finished():
                end = end_of(trial)
                ends[end] = ends.get(end, 0) + 1
                took += [] if end == "discarded" else [trial.user_attrs.get("seconds", 0.0)]
            elif driver is not None and VOID not in trial.user_attrs:
                epochs = sorted(trial.intermediate_values.items())
                epoch, loss = epochs[-1] if epochs else (0, None)
                origin = trial.user_attrs.get("origin", "search")
                running.append(TrialUnderWay(trial.number, origin, epoch, loss))
        complete = [trial for trial in trials if trial.state.is_finished() and end_of(trial) == "complete"]
        if complete:
            first = min(complete, key=lambda trial: (trial.value, trial.number))
            assert first.value is not None
            best = BestTrial(first.number, first.value, first.user_attrs.get("origin", "search"))
    asked = request.trials if request else result.search.requested if result and result.search else None
    done = sum(count for end, count in ends.items() if end != "discarded")
    state: SearchState = "not searched"
    if driver is not None:
        state = "stopping" if run.stop_request.exists() else "running"
    elif run.has_search():
        state = (
            "finished"
            if result and result.setup.kind == "tune" and asked is not None and done >= asked
            else "interrupted"
        )
    left = None
    if state == "running" and asked is not None and took:
        left = max(0, asked - done) * sum(took) / len(took) / max(1, len(running))
    storage, winner = request.storage if request else None, result.final.winner if result else None
    return Status(state, driver, asked, ends, best, running, left, winner, storage)


def status_in_words(run: str, status: Status) -> list[str]:
    """The status for a terminal, and the next command.
    run: its folder or URL."""
    lines = [f"{run}: {status.state}"]
    if status.driver:
        lines[0] += f", by {status.driver}"
    if status.trials is not None or status.ends:
        counted = [f"{count} {end}" for end, count in status.ends.items() if end != "discarded"]
        ends = ", ".join(counted) or "none"
        lines.append(
            f"trials:  {status.done} of {'?' if status.trials is None else status.trials} done ({ends})"
        )
    if status.best:
        lines.append(f"best:    {status.best.value:.4g} (trial {status.best.number}, {status.best.origin})")
    for one in status.running:
        loss = "" if one.loss is None else f", loss {one.loss:.4g}"
        lines.append(f"running: trial {one.number} ({one.origin}), epoch {one.epoch}{loss}")
    if status.seconds_left is not None:
        search = (
            f"about {timedelta(seconds=round(status.seconds_left))} of search, then "
            if status.seconds_left
            else ""
        )
        lines.append(f"left:    {search}the final")
    if status.winner:
        lines.append(f"winner:  {status.winner}")
    if status.storage:
        lines.append(f"storage: {status.storage}")
    asked = f" --trials {status.trials}" if status.trials else ""
    step = {
        "running": f"advisor stop {run}",
        "stopping": f"advisor status {run}",
        "interrupted": f"advisor tune {run}{asked}"
        + (f", or with what is there: advisor finish {run}" if status.done else ""),
        "finished": f"advisor report {run}",
    }
    return [*lines, f"next:    {step.get(status.state, f'advisor tune {run}')}"]


def request_stop(
    run: RunFolder,
    wait: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Literal["nobody", "stopped", "asked"]:
    """Ask whoever drives the run to stop, and wait up to ``wait`` seconds for it.

    nobody: nothing runs there. stopped: it has ended; what was finished is kept, and `advisor tune` goes on
    with it. asked: it has not ended yet; it does at its trials' next epoch.
    """
    driver = run.driver()
    if driver is None:
        return "nobody"
    write_json(run.stop_request, {"format": FORMAT, "pid": os.getpid(), "host": socket.gethostname()})
    remote = Remote.of(run)
    if remote:
        remote.send_stop()
    begun = clock()
    while clock() - begun < wait:
        if remote:
            remote.refresh_driver()
        if run.driver() != driver:
            return "stopped"
        sleep(POLL_SECONDS)
    return "asked"
