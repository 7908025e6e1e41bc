"""Optuna's journal, opened safely.

The file is Optuna's own format and opens with plain Optuna and optuna-dashboard. What is added here:

* a lock that the kernel releases when its holder dies (Optuna's default leaves a
link behind: 30 s of waiting, for ever
  with a relative path);
* a torn last line (full disk, power loss) is cut off before Optuna appends to it, and kept beside;
* every line carries a checksum, so a damaged line is named instead of believed
(Optuna ignores the extra key);
* one write per group of records, and one wait for the disk after trials have
ended (Optuna waits at every record);
* trials that a dead driver left RUNNING are closed before the sampler sees them:
it would avoid the region they are in.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import re
import zlib
from collections.abc import Callable, Collection, Container, Generator, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, TrialState

from advisor import __version__
from advisor.errors import UserError, made_by_newer
from advisor.files import GrowingFile
from advisor.spaces.aliases import words_of_today

STUDY_NAME = "search"
FORMAT = 1
"""Format of the attributes that the search keeps in the study."""
VOID = "void"
"""User attribute of a trial that does not count into the budget; its text says
why (its driver died, Ctrl-C)."""
PLACE = "place"
"""User attribute: which place of the budget the trial takes."""
DRIVER_DIED = "its driver died"

_CHECKED = re.compile(rb'^(\{.*),"crc":"([0-9a-f]{8})"\}$', re.DOTALL)
_ENDS = tuple(state for state in TrialState if state.is_finished())
_DURABLE = frozenset({0, 2, 3})  # create study, study attributes; a trial's end is told by its state


class _FileLock(BaseJournalFileLock):
    """Optuna's lock on the kernel's: released when the process dies, whatever kills it."""

    def __init__(self, file: GrowingFile) -> None:
        self._file = file

    def acquire(self) -> bool:
        self._file.lock()
        return True

    def release(self) -> None:
        self._file.unlock()


class _CountingBackend(JournalFileBackend):
    """Optuna's file backend that knows, for messages, which line it has read last."""

    lines_read = 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        for number, log in enumerate(super().read_logs(log_number_from), start=log_number_from + 1):
            self.lines_read = number
            yield log


class _Backend(_CountingBackend):
    """The backend that writes: checksums, groups of records in one write."""

    def __init__(self, file: GrowingFile) -> None:
        self._growing = file
        self._own_lock = _FileLock(file)
        self._group: list[dict[str, Any]] | None = None
        self._known = (-1, -1)  # records read, and the bytes that they take
        self.unsynced = False
        # The resolved path: Optuna's own lock waits for ever on a relative one, and
        # a later chdir would lose the file.
        super().__init__(str(file.path), lock_obj=self._own_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._group is not None:
            self._group.extend(logs)
            return
        content = b"".join(_line(log) for log in logs)
        self._own_lock.acquire()
        try:
            self._growing.append(content)
        finally:
            self._own_lock.release()
        self.unsynced = self.unsynced or any(map(_must_last, logs))

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        # Optuna reads before and after everything it does, and opens the file for it: here nothing is read
        # when nothing is new, and what is new through the handle that is open.
        number, offset = self._known
        if log_number_from != number:
            number = log_number_from
            for log in super().read_logs(log_number_from):
                number += 1
                yield log
            self._known = (number, self._log_number_offset[number])
            return
        size = self._growing.size()
        if size == offset:
            return
        content = self._growing.read(offset, size)
        # what follows the last newline another program is still writing
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].decode("utf-8").split("\n")[:-1]:
            number += 1
            yield json.loads(line)
        self._known = (number, offset + whole)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        self._group = []
        try:
            yield
            logs = self._group
        finally:
            # Also after an exception: records of a group that failed half-way
            # must not be written by the next one.
            self._group = None
        if logs:
            self.append_logs(logs)


def _line(log: dict[str, Any]) -> bytes:
    text = json.dumps(log, separators=(",", ":")).encode("utf-8")
    return text[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(text)


def _must_last(log: dict[str, Any]) -> bool:
    state = log.get("state")
    return log["op_code"] in _DURABLE or (state is not None and TrialState(state).is_finished())


class _Storage(JournalStorage):
    """Optuna's storage, which looks for trials that are open without going through all that have ended.

    Optuna does so at every question, for trials that somebody enqueued: in a
    study of 10,000 that is most of the time.
    """

    _ended = 0  # how many trials, from the first on, are known to have ended

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states is None or any(state in states for state in _ENDS):
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            trials = self._replay_result._trials
            numbers = self._replay_result._study_id_to_trial_ids[study_id]
            while self._ended < len(numbers) and trials[numbers[self._ended]].state.is_finished():
                self._ended += 1
            found = [trials[number] for number in numbers[self._ended :] if trials[number].state in states]
            return copy.deepcopy(found) if deepcopy else found


class Journal:
    """One run's study on disk, open for one driver.

    Order of calls: :meth:`open`, :meth:`close_leftovers` before the first ask, then the study; :meth:`close`.
    """

    def __init__(
        self,
        file: GrowingFile,
        backend: _Backend,
        study: optuna.Study,
        torn: Path | None,
        owner: GrowingFile | None,
    ) -> None:
        self._file, self._owner = file, owner
        self._backend = backend
        self.study = study
        self.torn = torn
        """Where the torn end of the file was put, when there was one."""

    @classmethod
    def open(cls, path: Path, *, owned: bool = False) -> Journal:
        """Open or create; repair a torn end.

        owned: hold a lock on the file ``NAME.owner`` beside it until the end, where no run's lease is held.

        UserError with the line's number when the file is damaged, and when another owner holds the lock.
        """
        owner = _take_ownership(path) if owned else None
        try:
            return cls._open(path, owner)
        except BaseException:
            if owner is not None:
                owner.close()
            raise

    @classmethod
    def _open(cls, path: Path, owner: GrowingFile | None) -> Journal:
        file = GrowingFile(path)
        try:
            file.lock()
            try:
                torn = file.cut_torn_end()
                check_lines(file.path)
            finally:
                file.unlock()
            backend = _Backend(file)
            study = _load(backend, file.path, create=True)
            return cls(file, backend, study, torn, owner)
        except BaseException:
            file.close()
            raise

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Records of the block are written at its end, in one piece; until then
        a reader does not see them."""
        return self._backend.together()

    def sync(self) -> None:
        """Wait for the disk if a trial has ended since the last time.

        A kill loses nothing that was written, only a power loss does; so this is for results, not for the
        parameters of a trial in flight, and it can wait until the workers have their next jobs.
        """
        if self._backend.unsynced:
            self._file.sync()
            self._backend.unsynced = False

    def close_leftovers(self, kept: Collection[int] = ()) -> list[int]:
        """End trials that a dead driver left open, but those ``kept``; their numbers. They do not count into
        the budget."""
        return close_leftovers(self.study, self.together, kept)

    def close(self) -> None:
        try:
            self.sync()
        finally:
            self._file.close()
            if self._owner is not None:
                self._owner.close()


def _take_ownership(path: Path) -> GrowingFile:
    owner = GrowingFile(path.with_name(f"{path.name}.owner"))
    if not owner.try_lock():
        owner.close()
        raise UserError(f"the study {path} is in use by another process: wait, or stop it")
    return owner


def new_study(**options: Any) -> optuna.Study:
    """``optuna.create_study`` of losses, without Optuna's announcement on
    stderr, in the middle of our live view."""
    log = logging.getLogger("optuna")
    level = log.level
    log.setLevel(max(level, logging.WARNING))
    try:
        return optuna.create_study(direction="minimize", **options)
    finally:
        log.setLevel(level)


def study_seed(study: optuna.Study, space_text: str, seed: int | None) -> int:
    """Write what the search is into a new study, or hold it against an old one's; the seed.

    seed: None takes the study's, or 0 in a new one. UserError when the study is
        of another space, seed or program.
    """
    kept = study.user_attrs
    if not kept.get("advisor_format"):
        if study.get_trials(deepcopy=False):
            raise UserError("the journal's study has trials but was not created by advisor: use a new run")
        study.set_user_attr("seed", seed or 0)
        study.set_user_attr("space", space_text)
        study.set_user_attr("advisor", __version__)
        # Last: it says that the others are there.
        study.set_user_attr("advisor_format", FORMAT)
        return seed or 0
    if kept["advisor_format"] > FORMAT:
        raise UserError(f"the study {made_by_newer(kept['advisor_format'], FORMAT, kept.get('advisor'))}")
    if words_of_today(str(kept.get("space"))) != words_of_today(space_text):
        raise UserError(
            "the search space or the objective differs from what this run started with: use a new run (--out)"
        )
    if seed is not None and seed != kept.get("seed"):
        raise UserError(f"this run has seed {kept.get('seed')}, not {seed}: give that one, or use a new run")
    return int(kept["seed"])


def close_leftovers(
    study: optuna.Study,
    together: Callable[[], contextlib.AbstractContextManager[None]],
    kept: Collection[int] = (),
) -> list[int]:
    """End the trials that are still open, but those ``kept``, each within ``together``; their numbers.
    They do not count into the budget."""
    storage = study._storage
    left = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if not trial.state.is_finished() and trial.number not in kept
    ]
    for trial in left:
        with together():
            storage.set_trial_user_attr(trial._trial_id, VOID, DRIVER_DIED)
            # Through the storage: `tell` refuses a trial that was enqueued and never asked for. Such a
            # one is begun first: Optuna calls a trial that ended without having begun invalid, and so
            # the whole journal would look damaged.
            if trial.state == TrialState.WAITING:
                storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    return [trial.number for trial in left]


def read_journal_study(path: Path) -> optuna.Study:
    """The study in a journal, for reading: the file is not touched. UserError
    when it is missing or damaged."""
    path = path.resolve()
    if not path.is_file():
        raise UserError(f"{path} does not exist: run `advisor tune` first")
    check_lines(path)
    return _load(_CountingBackend(str(path), lock_obj=_NoWriting(path)), path, create=False)


def shared_storage(path: Path) -> JournalStorage:
    """The journal as a storage beside its driver's, for a program that also
    writes (notes in optuna-dashboard)."""
    file = GrowingFile(path)
    return JournalStorage(JournalFileBackend(str(file.path), lock_obj=_FileLock(file)))


class _NoWriting(BaseJournalFileLock):
    """Stands where a writer's lock would: a reader that tried to write would be a bug of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self) -> bool:
        raise RuntimeError(f"{self._path} was opened for reading")

    def release(self) -> None:
        return


def check_lines(path: Path) -> None:
    """UserError that names the first damaged line. A last line without its
    newline is not looked at: it is torn."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n") and not _is_whole(line[:-1]):
                    raise _damaged(path, number)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _is_whole(line: bytes) -> bool:
    match = _CHECKED.match(line)
    if match:
        return zlib.crc32(match[1] + b"}") == int(match[2], 16)
    # A line that another program wrote (a note in optuna-dashboard) has no checksum.
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _damaged(path: Path, line: int) -> UserError:
    return UserError(
        f"{path} is damaged at line {line}: restore a copy of the file, or truncate it before that line "
        f"(`head -n {line - 1}`) to keep the trials above"
    )


def _load(backend: _CountingBackend, path: Path, *, create: bool) -> optuna.Study:
    try:
        storage = _Storage(backend)
        names = [study.study_name for study in storage.get_all_studies()]
        if create and not names:
            return new_study(storage=storage, study_name=STUDY_NAME)
        if STUDY_NAME not in names:
            raise UserError(
                f"{path} holds no study of the advisor: give the journal of a run that `advisor tune` made"
            )
        study = optuna.load_study(storage=storage, study_name=STUDY_NAME)
        for trial in study.get_trials(deepcopy=False):
            _check_trial(trial)
        return study
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        # All that replaying a record which is JSON but not a record of Optuna's can raise.
        raise _damaged(path, max(1, backend.lines_read)) from error


def _check_trial(trial: FrozenTrial) -> None:
    """ValueError when a trial is not what the search may rely on."""
    trial._validate()
    if trial.state == TrialState.COMPLETE and not isinstance(trial.value, float | int):
        raise ValueError(f"trial {trial.number} is complete and has no value")


def counts(trial: FrozenTrial) -> bool:
    """Does a trial take a place in the budget? Yes when it ended for a reason of its own.

    A trial that someone added by hand has no place: it informs the sampler and does not count.
    """
    place = trial.user_attrs.get(PLACE)
    return trial.state.is_finished() and VOID not in trial.user_attrs and isinstance(place, int)
