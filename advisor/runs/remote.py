"""Runs in object storage (``s3://``, ``gs://`` and whatever else fsspec knows): a
working copy here, and what keeps it alike.

A run is a local folder for everything else in the program. One that was given as a URL lies in the cache
folder, remembers its URL, and is copied there while it is in use, every few seconds and at the end. Whoever
names the URL elsewhere gets a copy.

Object storage has no locks. Who drives a run says so in ``URL/lock`` and renews it; a second driver
that sees it renewed is refused, and one that finds its own replaced stops. That takes seconds, where
the lease of a local folder takes none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from advisor.errors import UserError
from advisor.files import FORMAT, cache_folder, is_temporary, read_json, write_bytes, write_json
from advisor.runs.folder import SILENT, RunFolder

BEAT_SECONDS = 5.0
"""How often the lease is renewed and what is new is copied: a machine that is lost loses no more of a run."""
SILENT_SECONDS = 3 * BEAT_SECONDS
"""A lease of another machine that is not renewed for so long has no driver any more."""
LOOK_SECONDS = 0.5
"""How often a lease that may be dead is looked at."""
LOOKS_AT_A_LEASE, WRITING_SECONDS = 4, 0.1
"""A lease that cannot be read is looked at this many times, so far apart, before it counts as none."""
RENEWED = "renewed"
"""In a lease: when its driver's clock said that it renewed it, in whole milliseconds since 1970. Always as
many digits: where a URL is a folder, two drivers that begin at once write into one file, and the longer text
would stick out behind the shorter."""


def is_url(place: object) -> bool:
    return isinstance(place, str) and "://" in place


def local_copy(place: Any, *, new: bool = False) -> Any:
    """A place of a run in this machine's folders: the folder itself; for a URL
    its working copy, brought up to date.

    What is no URL is returned as it is.
    new: a run may begin there. UserError for a URL that no file system answers for, or that holds no run.
    """
    if not is_url(place):
        return place
    return Remote.at(place).checked_out(new=new)


def url_or_path(run: RunFolder) -> str:
    """How a user names a run: its URL where it has one, which holds on every machine."""
    return _url_of(run) or str(run.path)


@contextlib.contextmanager
def mirrored(run: RunFolder, on_note: Callable[[str], None] = lambda note: None) -> Iterator[None]:
    """While a run is in use here: its URL's lease, and its files copied there.
    Nothing for a run without a URL.

    on_note: told when it takes a while, because another driver has left its lease.
    UserError when another machine drives the run, takes it over, or what is new cannot be copied in the end.
    """
    remote = Remote.of(run)
    if remote is None:
        yield
        return
    with remote.lease(on_note):
        yield


@dataclass
class Remote:
    """One run's URL and its working copy.
    known: file -> (what it was here, what it was there) when both were last alike."""

    url: str
    run: RunFolder
    files: Any
    root: str
    known: dict[str, tuple[str, str]] = field(default_factory=dict)
    _me: dict[str, Any] = field(default_factory=lambda: _this_driver())
    _beats: int = 0
    _lost: dict[str, Any] | None = None

    @classmethod
    def at(cls, url: str) -> Remote:
        """The run at a URL, with a working copy in the cache folder that may still be empty."""
        url = url.rstrip("/")
        run = RunFolder(_working_copy(url))
        files, root = _file_system(url)
        return cls(url, run, files, root, _known_of(run))

    @classmethod
    def of(cls, run: RunFolder) -> Remote | None:
        """The URL that a run's folder is the working copy of; None when it is none."""
        url = _url_of(run)
        return None if url is None else cls.at(url)

    # ------------------------------------------------------------------ copies

    def checked_out(self, *, new: bool) -> Path:
        """The working copy, with what is new there; as it is where a driver on this machine works in it.

        UserError, before anything is copied, where something else than a run is,
        or nothing and no new one may begin.
        """
        if not self._driven_here():
            with self._talking():
                self._check_is_run(new)
                self.run.path.mkdir(parents=True, exist_ok=True)
                self.pull(beside_others=True)
            self.refresh_driver()
        return self.run.path

    def pull(self, *, beside_others: bool = False) -> None:
        """Take over what has changed there since both were last alike; what is new here alone stays.

        beside_others: without a lease, so it ends where a driver begins here, whose
            files must not be replaced under it.
        """
        self.files.invalidate_cache()
        there = {name: self._stamp_there(name) for name in self._names_there()}
        for name, stamp in there.items():
            if name not in self.known or self.known[name][1] != stamp or not self._path(name).exists():
                content = self.files.cat_file(self._there(name))
                if beside_others and self._driven_here():
                    return
                self._write(name, content)
                self.known[name] = (_stamp(self._path(name).stat()), stamp)
        for name in self.known.keys() - there.keys():
            self._path(name).unlink(missing_ok=True)
            del self.known[name]
        self._keep()

    def push(self) -> None:
        """Copy what has changed here since both were last alike, oldest first: what was
        written last is the newest there too."""
        found = {name: path.stat() for name, path in self._files_here()}
        changed = False
        for name in sorted(found, key=lambda name: found[name].st_mtime_ns):
            stamp = _stamp(found[name])
            if name not in self.known or self.known[name][0] != stamp:
                try:
                    content = self._path(name).read_bytes()
                except FileNotFoundError:  # removed meanwhile: the next time
                    continue
                self._put(name, content)
                self.known[name] = (stamp, self._stamp_there(name))
                changed = True
        for name in self.known.keys() - found.keys():
            with contextlib.suppress(FileNotFoundError):
                self.files.rm_file(self._there(name))
            del self.known[name]
            changed = True
        if changed:
            self._keep()

    def send_stop(self) -> None:
        """Ask whoever drives the run to stop."""
        with self._talking():
            self._put(self.run.stop_request.name, self.run.stop_request.read_bytes())

    def refresh_driver(self) -> None:
        """Who drives it on another machine, as it is known there; of a lease that was not
        renewed lately it waits to see it."""
        with self._talking():
            self.files.invalidate_cache()
            holder = self._holder()
            if holder is None or holder.get("host") == socket.gethostname():
                self.run.driver_elsewhere.unlink(missing_ok=True)
                return
            last = read_json(self.run.driver_elsewhere) if self.run.driver_elsewhere.is_file() else {}
            silent = bool(last.get(SILENT)) and {**last, **holder} == last  # seen to be dead before
            if not silent and not _is_fresh(holder):
                again = self._renewed(holder)
                holder, silent = again or holder, again is None
            write_json(self.run.driver_elsewhere, {"format": FORMAT, **holder, SILENT: silent})

    def _driven_here(self) -> bool:
        driver = self.run.driver()
        return driver is not None and driver.host == socket.gethostname()

    def _check_is_run(self, new: bool) -> None:
        """Looked at before it is copied: a bucket may hold more than this disk."""
        run = self.run
        if any(self.files.exists(self._there(file.name)) for file in (run.facts, run.recommendation)):
            return
        if not new:
            raise UserError(
                f"{self.url} holds no run: give the URL of a run, or download the data and give the file"
            )
        try:
            found = self.files.ls(self.root, detail=False)
        except FileNotFoundError:
            return
        names = (PurePosixPath(str(path)).name for path in found)
        if strangers := [name for name in names if name not in (run.lock.name, run.stop_request.name)]:
            raise UserError(
                f"{self.url} is not a run and is not empty (it holds '{min(strangers)}'): choose another "
                "URL"
            )

    def _names_there(self) -> list[str]:
        try:
            found = self.files.find(self.root)
        except FileNotFoundError:
            return []
        return [
            name
            for name in (str(path)[len(self.root) :].strip("/") for path in found)
            if name and self._is_copied(name)
        ]

    def _files_here(self) -> Iterator[tuple[str, Path]]:
        for path in sorted(self.run.path.rglob("*")):
            name = path.relative_to(self.run.path).as_posix()
            if path.is_file() and self._is_copied(name):
                yield name, path

    def _is_copied(self, name: str) -> bool:
        """Not what is of one machine alone: the lease, a request to stop, checkpoints of trials under way."""
        run, parts = self.run, PurePosixPath(name).parts
        own = {
            path.name
            for path in (run.lock, run.stop_request, run.remote, run.driver_elsewhere, run.checkpoints)
        }
        return parts[0] not in own and ".." not in parts and not any(map(is_temporary, parts))

    def _path(self, name: str) -> Path:
        return self.run.path / name

    def _write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)

    def _there(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _stamp_there(self, name: str) -> str:
        return str(self.files.ukey(self._there(name)))

    def _keep(self) -> None:
        write_json(
            self.run.remote,
            {"format": FORMAT, "url": self.url, "files": {k: list(v) for k, v in self.known.items()}},
        )

    # ------------------------------------------------------------------ the lease

    @contextlib.contextmanager
    def lease(self, on_note: Callable[[str], None] = lambda note: None) -> Iterator[None]:
        """Hold the lease there, and copy while the block runs; see ``mirrored``."""
        with self._talking():
            self._take(on_note)
            self.run.driver_elsewhere.unlink(missing_ok=True)
            self.pull()
        over = threading.Event()
        thread = threading.Thread(target=self._copy_until, args=(over,), name="copy-run", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            over.set()
            thread.join()
            with contextlib.suppress(
                UserError
            ):  # what went wrong in the block is said, and what there is was tried
                self._finish()
            raise
        over.set()
        thread.join()
        self._finish()

    def _copy_until(self, over: threading.Event) -> None:
        while not over.wait(BEAT_SECONDS):
            with (
                contextlib.suppress(UserError),
                self._talking(),
            ):  # it may answer again; if not, the end says so
                if not self._beat():
                    return
                self.push()

    def _beat(self) -> bool:
        """Renew the lease and hear requests to stop; False when another has it."""
        self.files.invalidate_cache()
        holder = self._holder()
        if holder is not None and holder.get("token") != self._me["token"]:
            self._lost = holder
            write_json(self.run.stop_request, {"format": FORMAT})
            return False
        self._say_holder()
        if self.files.exists(self._there(self.run.stop_request.name)):
            write_json(self.run.stop_request, {"format": FORMAT})
        return True

    def _take(self, on_note: Callable[[str], None]) -> None:
        holder = self._holder()
        if holder is not None and not _is_dead(holder):
            on_note(
                f"{self.url} was last used by {_words(holder)}: if it is silent for {SILENT_SECONDS:g} s, it "
                "counts as dead"
            )
            again = self._renewed(holder)
            if again is not None:
                raise self._taken(again)
        self._say_holder()
        self._remove(self.run.stop_request.name)  # it was for the driver before us
        time.sleep(LOOK_SECONDS)
        self.files.invalidate_cache()
        holder = self._holder()
        if (
            holder is None or holder.get("token") != self._me["token"]
        ):  # two began at once, and the other wrote last
            raise self._taken(holder or {})

    def _renewed(self, holder: dict[str, Any]) -> dict[str, Any] | None:
        """The lease as soon as it is another than it was; None when it is given
        back, or silent for SILENT_SECONDS."""
        begun = time.monotonic()
        while time.monotonic() - begun < SILENT_SECONDS:
            time.sleep(LOOK_SECONDS)
            self.files.invalidate_cache()
            again = self._holder()
            if again != holder:
                return again
        return None

    def _finish(self) -> None:
        try:
            with self._talking():
                if self._lost is None and self._beat():  # still ours? the last look was seconds ago
                    self.push()
                    self._remove(self.run.stop_request.name)
                    self._remove(self.run.lock.name)
        except UserError as error:
            raise UserError(
                f"{error}; the complete run is in {self.run.path}, and resuming from that folder copies it"
            ) from error
        if self._lost is not None:
            raise UserError(
                f"{self.url} was taken over by {_words(self._lost)}: what was finished here since then is in "
                f"{self.run.path} alone"
            )

    def _holder(self) -> dict[str, Any] | None:
        for again in range(LOOKS_AT_A_LEASE):
            if again:
                time.sleep(WRITING_SECONDS)
            try:
                holder = json.loads(self.files.cat_file(self._there(self.run.lock.name)))
            except FileNotFoundError:
                return None
            except ValueError:  # on a file system it is empty while its holder renews it
                continue
            return holder if isinstance(holder, dict) else None
        return None

    def _say_holder(self) -> None:
        self._beats += 1
        self._put(
            self.run.lock.name,
            json.dumps({**self._me, "beat": self._beats, RENEWED: int(1000 * time.time())}).encode(),
        )

    def _put(self, name: str, content: bytes) -> None:
        there = self._there(name)
        try:
            self.files.pipe_file(there, content)
        except FileNotFoundError:  # object storage has no folders, file systems want them first
            self._make_folders(there)
            self.files.pipe_file(there, content)

    def _make_folders(self, there: str) -> None:
        """The folders above a file; never a bucket, the first of a path without
        a root: its name may be misspelt."""
        folders = [*reversed(PurePosixPath(there).parents)][1:]
        for folder in folders if there.startswith("/") else folders[1:]:
            with contextlib.suppress(FileExistsError):
                self.files.mkdir(str(folder), create_parents=False)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.rm_file(self._there(name))

    def _taken(self, holder: dict[str, Any]) -> UserError:
        return UserError(
            f"{self.url} is in use by {_words(holder)}: wait until it ends, or `advisor stop {self.url}`"
        )

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """Turns what a file system has against us into a UserError: each raises errors of its own kind."""
        try:
            yield
        except UserError:
            raise
        except NotImplementedError as error:
            raise _unfit(self.url) from error
        except Exception as error:  # each of fsspec's file systems raises its own library's errors
            raise _silent(self.url, error) from error


def _unfit(url: str) -> UserError:
    return UserError(f"{url}: a run cannot be stored there; give s3://BUCKET/RUN, or a folder")


def _silent(url: str, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return UserError(f"{url} does not answer ({type(error).__name__}: {first})")


def _working_copy(url: str) -> Path:
    """Where the working copy of a URL lies on this machine."""
    name = PurePosixPath(url.partition("://")[2]).name or "run"
    return cache_folder() / "runs" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"


def _url_of(run: RunFolder) -> str | None:
    """The URL of a working copy; None for any other folder, also for a copy of one that
    lies elsewhere: it is not kept alike."""
    if not run.remote.is_file():
        return None
    url = read_json(run.remote).get("url")
    if not is_url(url):
        raise UserError(
            f"{run.remote} is damaged: it names no URL; remove the folder, and give the URL again"
        )
    return str(url) if run.path.resolve() == _working_copy(str(url)).resolve() else None


def _known_of(run: RunFolder) -> dict[str, tuple[str, str]]:
    files = read_json(run.remote).get("files") if run.remote.is_file() else {}
    try:
        return {name: (str(here), str(there)) for name, (here, there) in files.items()}  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"{run.remote} is damaged: it does not say what was copied; remove the folder, and give the URL "
            "again"
        ) from None


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    if urlsplit(url).password is not None:
        raise UserError(
            "the URL holds a password, which would be stored with the run: leave it out, and use a key or "
            "the storage's own settings"
        )

    if url.startswith("memory://"):
        raise UserError(f"{url} disappears when this process ends: give s3://BUCKET/RUN, or a folder")
    if url.startswith(("http://", "https://")):
        raise UserError(
            f"{url}: nothing can be stored there; give s3://BUCKET/RUN, or download the data and give the "
            "file"
        )
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"{url}: {error}") from error
    except (
        TypeError,
        AttributeError,
        NotImplementedError,
    ) as error:  # one that lies in another, and a URL says not in which
        raise _unfit(url) from error
    except ValueError as error:
        raise UserError(
            f"{url} is not in a file system that fsspec supports ({error}): give s3://BUCKET/RUN, or a folder"
        ) from error
    except Exception as error:  # some reach out for their server already
        raise _silent(url, error) from error
    return files, str(root).rstrip("/")


def _this_driver() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat("T", "seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "token": secrets.token_hex(8)}


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether a driver of this machine is gone; of another machine's we know nothing."""
    return holder.get("host") == socket.gethostname() and not Path(f"/proc/{holder.get('pid')}").exists()


def _is_fresh(holder: dict[str, Any]) -> bool:
    """Whether a lease was renewed lately. Clocks may differ: of one that was not, that is no proof."""
    renewed = holder.get(RENEWED)
    return isinstance(renewed, int) and abs(time.time() - renewed / 1000) < SILENT_SECONDS


def _words(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'another machine')}"
