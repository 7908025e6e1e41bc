"""The run folder: names, identities, the lease, and files that are replaced whole."""

import ast
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import advisor
from advisor import files
from advisor.errors import UserError
from advisor.files import (
    GrowingFile,
    read_json,
    read_text,
    replacing,
    write_bytes,
    write_folder,
    write_json,
    write_text,
)
from advisor.runs.folder import DataIdentity, RunFolder, choose_run_folder

MINE = DataIdentity("adult", "adult.csv", "f1", "income")
OTHER = DataIdentity("adult", "adult.csv", "f2", "income")


def make_run(path, identity=MINE):
    run = RunFolder(path)
    with run.in_use():
        run.write_facts({"rows": 3}, identity)
        write_text(run.recommendation, "format: 1\n")
    return run


# ------------------------------------------------------------------ choosing the folder


def test_default_names_never_take_another_data_sets_run(tmp_path):
    assert choose_run_folder(None, MINE, tmp_path).path == tmp_path / "adult"
    make_run(tmp_path / "adult")
    assert choose_run_folder(None, MINE, tmp_path).path == tmp_path / "adult"
    assert choose_run_folder(None, OTHER, tmp_path).path == tmp_path / "adult-2"
    make_run(tmp_path / "adult-2", OTHER)
    assert choose_run_folder(None, OTHER, tmp_path).path == tmp_path / "adult-2"
    assert (
        choose_run_folder(None, DataIdentity("adult", "", "f1", "age"), tmp_path).path == tmp_path / "adult-3"
    )


def test_default_names_pass_over_damaged_runs_and_strangers(tmp_path):
    make_run(tmp_path / "adult").facts.write_text("{")
    (tmp_path / "adult-2").write_text("a file")
    (tmp_path / "adult-3").mkdir()
    (tmp_path / "adult-3" / "photo.png").write_text("")
    (tmp_path / "adult-4").mkdir()
    assert choose_run_folder(None, MINE, tmp_path).path == tmp_path / "adult-4"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a/b\\c", "a-b-c"),
        ("..", "run"),
        ("", "run"),
        (".hidden", "hidden"),
        ("größe 1", "größe-1"),
        ("x" * 300, "x" * 60),
    ],
)
def test_names_become_folders(tmp_path, name, folder):
    assert choose_run_folder(None, DataIdentity(name, "", "f", "t"), tmp_path).path == tmp_path / folder


def test_out_is_refused_with_the_reason(tmp_path):
    make_run(tmp_path / "run", OTHER)
    with pytest.raises(
        UserError, match=r"holds a run on other data \('adult', target 'income'\): choose another"
    ):
        choose_run_folder(tmp_path / "run", MINE)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        choose_run_folder(tmp_path / "file", MINE)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "photo.png").write_text("")
    with pytest.raises(UserError, match=r"is not a run and is not empty \(it holds 'photo.png'\)"):
        choose_run_folder(tmp_path / "pictures", MINE)


def test_out_may_be_new_empty_or_the_same_data(tmp_path):
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "same")
    for name in ("new", "empty", "same"):
        assert choose_run_folder(tmp_path / name, MINE).path == tmp_path / name


# ------------------------------------------------------------------ is this a run?


def test_opening_what_is_not_a_run_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    half = make_run(tmp_path / "half")
    half.recommendation.unlink()
    for name, words in {
        "absent": "does not exist",
        "file": "is a file",
        "empty": "is not a run",
        "half": "an incomplete run: recommendation.yaml is missing",
    }.items():
        with pytest.raises(UserError, match=words):
            RunFolder.open(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "facts.json is damaged at line 1: it is not JSON"),
        (b"[1]", "does not hold a JSON object"),
        (b'{"format": 2}', r"was made by a newer advisor \(format 2\), this is "),
        (b'{"format": "1"}', "format number is '1'"),
        (b'{"rows": 3}', "format number is None"),
        (b'{"format": 1}', "does not say which data"),
        (b'{"format": 1, "data": {"name": "x"}}', "does not say which data"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"[" * 100_000, "is damaged"),
    ],
)
def test_damaged_facts_are_named(tmp_path, content, words):
    run = make_run(tmp_path / "run")
    run.facts.write_bytes(content)
    with pytest.raises(UserError, match=words):
        RunFolder.open(run.path)


def test_facts_torn_or_flipped_anywhere_work_or_are_named(tmp_path):
    """R6 for facts.json."""
    run = make_run(tmp_path / "run")
    whole = run.facts.read_bytes()
    torn = [whole[:n] for n in range(len(whole))]
    flipped = [whole[:n] + bytes([whole[n] ^ 1 << n % 8]) + whole[n + 1 :] for n in range(len(whole))]
    for content in torn + flipped:
        run.facts.write_bytes(content)
        try:
            RunFolder.open(run.path).read_facts()
        except UserError as error:
            assert "\n" not in str(error)


def test_facts_come_back_without_their_head(tmp_path):
    run = make_run(tmp_path / "run")
    assert RunFolder.open(run.path).read_facts() == {"rows": 3}
    assert run.identity() == MINE
    with pytest.raises(ValueError, match="format"):
        run.write_facts({"format": 3}, MINE)


def test_need_names_what_is_missing(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"has no model: run `advisor train`"):
        run.need(run.model, "run `advisor train`")
    assert run.need(run.facts, "") == run.facts


def test_reading_is_bounded(tmp_path):
    (tmp_path / "big").write_text("x" * 100)
    with pytest.raises(UserError, match="larger than 10 bytes"):
        read_text(tmp_path / "big", limit=10)
    with pytest.raises(UserError, match="Is a directory"):
        read_text(tmp_path)


# ------------------------------------------------------------------ no half of a run


def test_a_command_that_fails_early_leaves_nothing(tmp_path):
    run = RunFolder(tmp_path / "runs" / "adult")
    with pytest.raises(UserError, match="no such target"), run.in_use():
        run.write_facts({"rows": 3}, MINE)
        raise UserError("no such target")
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_stays(tmp_path):
    run = RunFolder(tmp_path / "runs" / "adult")
    with pytest.raises(KeyboardInterrupt), run.in_use():
        write_text(run.recommendation, "format: 1\n")
        raise KeyboardInterrupt
    assert run.recommendation.exists()


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError), RunFolder(tmp_path / "mine").in_use():
        raise UserError("x")
    assert (tmp_path / "mine").is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create"), RunFolder(tmp_path / "file" / "run").in_use():
        pass


# ------------------------------------------------------------------ the lease

HOLD = """
import sys, threading
from pathlib import Path
from advisor.errors import UserError
from advisor.runs.folder import RunFolder
try:
    with RunFolder(Path(sys.argv[1])).lease():
        print("mine", flush=True)
        threading.Event().wait()
except UserError as error:
    print(error, flush=True)
"""


def hold(path):
    return subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_drivers_never_share_a_run(tmp_path):
    """R8: of two that start together exactly one runs; when it is killed the next takes over at once."""
    for _ in range(8):
        drivers = [hold(tmp_path), hold(tmp_path)]
        said = {driver.stdout.readline(): driver for driver in drivers}
        assert "mine\n" in said
        winner = said.pop("mine\n")
        try:
            ((complaint, loser),) = said.items()
            loser.wait()
            assert "is in use by" in complaint
            with (
                pytest.raises(UserError, match=rf"in use by process {winner.pid} on \S+ since 20"),
                RunFolder(tmp_path).lease(),
            ):
                pass
        finally:
            winner.send_signal(signal.SIGKILL)
            winner.wait()
        with RunFolder(tmp_path).lease():
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        assert (tmp_path / "lock").read_text() == ""


def test_a_stale_lock_file_does_not_hold(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 1, "host": "here", "since": "2020"}')
    with RunFolder(tmp_path).lease():
        pass


def test_the_lease_tidies_up_after_a_kill(tmp_path):
    (tmp_path / ".facts.json.tmp~12ab").write_text("half")
    (tmp_path / ".model.tmp~34cd").mkdir()
    (tmp_path / ".model.old.tmp~").mkdir()
    (tmp_path / ".model.old.tmp~" / "model.json").write_text("{}")
    with RunFolder(tmp_path).lease():
        assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", "model"]
    assert (tmp_path / "model" / "model.json").exists()


# ------------------------------------------------------------------ writing whole


def fail_nth(monkeypatch, n):
    """Make the n-th effect on the disk raise; returns a list that is not empty once that has happened."""
    count, failed = [0], []

    def wrap(owner, name):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            count[0] += 1
            if count[0] == n:
                failed.append(name)
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((os, "fsync"), (os, "open"), (Path, "open"), (Path, "replace"), (Path, "mkdir")):
        wrap(owner, name)
    return failed


@pytest.mark.parametrize("n", range(1, 6))
def test_a_file_is_old_or_new_whatever_fails(tmp_path, n):
    path = tmp_path / "result.json"
    write_json(path, {"format": 1, "value": "old"})
    with pytest.MonkeyPatch.context() as patch:
        failed = fail_nth(patch, n)
        try:
            write_json(path, {"format": 1, "value": "new"})
            raised = False
        except UserError as error:
            raised = True
            assert str(error) == f"cannot write {path}: No space left on device"
    assert raised == bool(failed)
    assert read_json(path)["value"] in ("old", "new")
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
    if not raised:
        assert read_json(path)["value"] == "new"


@pytest.mark.parametrize("n", range(1, 20))
def test_a_folder_is_old_or_new_whatever_fails(tmp_path, n):
    path = tmp_path / "model"
    write_folder(path, {"a": b"old", "b": b"old"})
    with pytest.MonkeyPatch.context() as patch:
        failed = fail_nth(patch, n)
        try:
            write_folder(path, {"a": b"new", "c": b"new"})
            raised = False
        except UserError:
            raised = True
    assert failed or not raised
    assert {file.name: file.read_bytes() for file in path.iterdir()} in (
        {"a": b"old", "b": b"old"},
        {"a": b"new", "c": b"new"},
    )
    with RunFolder(tmp_path).lease():
        assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", "model"]


def test_a_block_that_raises_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "x", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "x").read_text() == "old"


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x", {"value": float("nan")})
    assert not (tmp_path / "x").exists()


def test_writing_where_it_cannot_be_is_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "absent" / "x"):
        with pytest.raises(UserError, match="cannot write"):
            write_bytes(path, b"")


def test_devices_are_written_through(tmp_path):
    write_text(Path("/dev/null"), "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_files_get_the_usual_permissions(tmp_path):
    write_text(tmp_path / "x", "x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


def test_a_growing_file_takes_a_half_written_record_back(tmp_path, monkeypatch):
    file = GrowingFile(tmp_path / "journal")
    file.append(b"one\n")
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, content: real(handle, content[:2]))
        with pytest.raises(UserError, match="No space left"):
            file.append(b"two\n")
    file.append(b"three\n")
    file.sync()
    file.close()
    assert (tmp_path / "journal").read_bytes() == b"one\nthree\n"


@pytest.mark.parametrize("size", [0, 1, 65536, 200_000])
def test_torn_ends_are_cut_and_kept(tmp_path, size):
    path = tmp_path / "journal"
    path.write_bytes(b"one\n" + b"x" * size)
    file = GrowingFile(path)
    kept = file.cut_torn_end()
    assert path.read_bytes() == b"one\n"
    assert (kept is None) == (size == 0)
    if kept:
        assert kept.name == "journal.torn-1"
        assert kept.read_bytes() == b"x" * size
    file.append(b"more")
    again = file.cut_torn_end()
    assert again is not None
    assert again.name == ("journal.torn-2" if kept else "journal.torn-1")
    file.close()


# ------------------------------------------------------------------ R10


FORBIDDEN = {
    "os.replace",
    "os.rename",
    "np.save",
    "np.savez",
    "torch.save",
    "save_file",
    "mkstemp",
    "NamedTemporaryFile",
}


def writes(tree):
    """Lines of a module that write files by other means than the functions of advisor/files.py."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
        if name == "open" and owner != "RunFolder" and "os.devnull" not in map(ast.unparse, node.args):
            mode = next((k.value for k in node.keywords if k.arg == "mode"), None)
            position = 1 if not isinstance(node.func, ast.Attribute) or owner in ("gzip", "io", "os") else 0
            if mode is None and len(node.args) > position:
                mode = node.args[position]
            text = mode.value if isinstance(mode, ast.Constant) and isinstance(mode.value, str) else ""
            if owner == "os" or set(text) & set("wax+"):
                yield node.lineno
            continue
        through_us = owner in ("", "files")
        if (
            name in FORBIDDEN
            or f"{owner}.{name}" in FORBIDDEN
            or (name in ("write_text", "write_bytes") and not through_us)
        ):
            yield node.lineno


def test_only_the_run_folder_writes_files():
    """R10."""
    found = []
    for module in Path(advisor.__file__).parent.rglob("*.py"):
        lines = list(writes(ast.parse(module.read_text("utf-8"))))
        if module.name == "files.py":
            assert lines, "the test must see what it forbids"
        elif module.name in (
            *("image_decoding.py", "executor_contract.py", "folder.py"),
            *("launching.py", "datasets.py", "archive.py"),
        ):
            # the cache of decoded images, a contract's mark, a job's log and an upload are no part of a run;
            # the lock is opened
            assert len(lines) == 1
        else:
            found += [f"{module.name}:{line}" for line in lines]
    assert found == []


def test_the_run_folder_imports_nothing_heavy():
    code = (
        "import sys, advisor.runs.folder; print([m for m in ('numpy', 'torch', 'ray', 'optuna', 'yaml') "
        "if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
    assert files.FORMAT == 1
