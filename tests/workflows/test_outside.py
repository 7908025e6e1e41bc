"""The command line from outside: exit codes (L1), --json (L2), odd surroundings (L3), bugs of ours (L4), what
is loaded (L5), and that a recommendation is the same bytes whatever the process (D5, D6)."""

import io
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from advisor import console
from advisor.cli.main import _run
from advisor.console import printable
from advisor.data.sources import reading
from advisor.facts import schema as facts
from advisor.facts import table as measurement
from advisor.rules.recommendation import FIRST_CHOICES

HEAVY = ("torch", "ray", "optuna")
FAST = "--fixed epochs=1 --fixed validation=holdout"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small table, d.csv."""
    draw = random.Random(1)
    folder = tmp_path_factory.mktemp("data")
    values = [(draw.gauss(0, 1), draw.gauss(0, 1), draw.choice("uvw")) for _ in range(60)]
    frame = pl.DataFrame(values, schema=["a", "b", "c"], orient="row")
    frame = frame.with_columns(
        pl.when(pl.col("a") + pl.col("b") > 0).then(pl.lit("yes")).otherwise(pl.lit("no")).alias("y")
    )
    frame.write_csv(folder / "d.csv")
    return folder / "d.csv"


@pytest.fixture
def here(data, tmp_path, monkeypatch):
    """An empty folder with d.csv, and we in it."""
    shutil.copy(data, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outside(command, folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **environment):
    """A command as a real process; a variable given as None is taken out of the environment."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    program = [sys.executable, "-m", "advisor", *shlex.split(command)]
    return subprocess.run(
        program,
        cwd=folder,
        env=variables,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


# --------------------------------------------------------------------------------------------- L1: exit codes

BAD_RULE = "format: 1\nrules:\n- id: bad-rule\n"


def test_a_bad_pack_is_exit_code_3(here, capfd):
    Path("pack.yaml").write_text(BAD_RULE)
    assert _run(["rules", "check", "pack.yaml"]) == 3
    out, err = capfd.readouterr()
    assert out.startswith("pack.yaml:3: ")
    assert "problems" in err
    assert "Traceback" not in err


def test_a_sound_pack_is_exit_code_0(capfd):
    from advisor.rules import shipped

    assert _run(["rules", "check", str(shipped.folder("rules"))]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith("0 problems\n")


def test_the_examples_of_the_rules_that_ship_pass(capfd):
    assert _run(["rules", "test"]) == 0
    assert capfd.readouterr().err.endswith("0 failed\n")


def test_a_failing_example_is_exit_code_3(here, capfd):
    from advisor.rules import shipped

    text = (shipped.folder("rules") / "regularization.yaml").read_text()
    assert "{given: {rows: 599}, expect: {weight_decay: 0.03}}" in text
    Path("pack.yaml").write_text(
        text.replace("{rows: 599}, expect: {weight_decay: 0.03}", "{rows: 599}, expect: {weight_decay: 0.5}")
    )
    assert _run(["rules", "test", "pack.yaml"]) == 3
    assert (
        capfd.readouterr().out
        == "weight-decay-for-tiny-tables, example 1: expected {'weight_decay': 0.5}, got {'weight_decay': "
        "0.03}\n"
    )


@pytest.mark.parametrize(
    "command", ["--help", "-h", "--version", "rules --help", "recommend --help", "tune --help", "rules facts"]
)
def test_help_is_exit_code_0(command, capfd):
    assert _run(shlex.split(command)) == 0
    out, err = capfd.readouterr()
    assert out
    assert err == ""


@pytest.mark.parametrize("command", ["", "rules"])
def test_no_command_shows_the_help(command, capfd):
    """As git does: the help, and exit code 2, because nothing was asked for."""
    assert _run(shlex.split(command)) == 2
    out, err = capfd.readouterr()
    assert out == "" and "Commands:" in err and err.count("\n") > 5
    assert "error:" not in err and "Traceback" not in err


def test_the_package_is_a_program():
    program = [sys.executable, "-m", "advisor", "--version"]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout.startswith(
        "advisor, version"
    )


def test_ctrl_c_while_reading_is_exit_code_130(here, monkeypatch, capfd):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "measure_table", interrupted)
    assert _run(["recommend", "d.csv", "--target", "y"]) == 130
    out, err = capfd.readouterr()
    assert (out, err.strip().count("\n")) == ("", 0)
    assert err.strip().startswith("interrupted: ")
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------------------------- L2: --json


@pytest.mark.slow
def test_json_is_one_document_and_nothing_else(here, capfd):
    """One run through every command, each with --json."""

    def answer(command, code=0):
        assert _run(shlex.split(command)) == code, capfd.readouterr().err
        out = capfd.readouterr().out
        return json.loads(out)

    advised = answer(f"recommend d.csv --target y --out r --json {FAST}")
    assert advised["configuration"]["epochs"] == 1
    assert advised["facts"]["rows"] + advised["facts"]["rows_test"] == 60
    assert answer("train r --json")["kind"] == "train"
    tuned = answer("tune r --trials 2 --executor in-process --json")
    assert [trial["origin"] for trial in tuned["search"]["trials"]] == ["recommendation", "library default"]
    assert answer("tune r --trials 2 --executor in-process --json")["final"] == tuned["final"], (
        "a finished run is shown again"
    )
    predicted = answer("predict r d.csv --json")
    assert (predicted["rows"], len(predicted["predictions"])) == (60, 60)
    told = answer("predict r d.csv --out p.csv --json")
    assert told == {"run": "r", "rows": 60, "out": "p.csv", "predictions": None, "changes": [], "reading": {}}
    listed = answer("rules list --json")
    assert answer(f"rules show {listed[0]['id']} --json")["id"] == listed[0]["id"]
    assert {fact["name"] for fact in answer("rules facts --json")} == set(facts.FACTS)
    assert answer("rules test --json")["failed"] == []
    Path("pack.yaml").write_text(BAD_RULE)
    assert answer("rules check pack.yaml --json", code=3)["complaints"][0].startswith("pack.yaml:3: ")


def test_json_is_json_for_odd_names(here, capfd):
    """Names with control characters and quotes, and nothing that is no JSON (NaN) in the numbers."""
    odd = ["\x1b[31mred", 'quo"te', "ünï", "x\u2028y"]
    frame = pl.read_csv("d.csv")
    frame.select(*[pl.col("a").alias(name) for name in odd], "y").write_csv("odd.csv")
    assert _run(["recommend", "odd.csv", "--target", "y", "--json"]) == 0
    document = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)
    assert document["facts"]["features"] == 4


@pytest.mark.slow
def test_json_on_ray_is_one_document_and_nothing_else(here):
    """The chatter of Ray, Optuna and of the progress goes to stderr."""
    done = outside(f"tune d.csv --target y --trials 2 --workers 1 --out r --json {FAST}", here)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["search"]["trials"]) == 2
    assert "trial 1 (library default): complete, log loss" in done.stderr


# --------------------------------------------------------------------------------------- L3: odd surroundings

SURROUNDINGS = {
    "dumb terminal": {"TERM": "dumb"},
    "narrow": {"COLUMNS": "20"},
    "plain locale": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII output": {"PYTHONIOENCODING": "ascii"},
    "no HOME": {"HOME": None, "USER": None, "LOGNAME": None},
    "HOME that is none": {"HOME": "/proc/nobody"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_odd_surroundings_do_no_harm(name, here):
    pl.read_csv("d.csv").rename({"a": "größe"}).write_csv("d.csv")
    done = outside("recommend d.csv --target y --out r", here, **SURROUNDINGS[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 20
    assert Path("r/report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["narrow", "ASCII output", "no HOME"])
def test_odd_surroundings_do_the_rules_no_harm(name, here):
    done = outside("rules list", here, **SURROUNDINGS[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 20


@pytest.mark.slow
def test_a_home_that_cannot_be_written_does_no_harm(here):
    home = here / "home"
    home.mkdir(mode=0o555)
    done = outside("recommend d.csv --target y", here, HOME=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_nothing_is_left_in_the_home(here):
    """Neither recommend nor train writes outside the run folder."""
    home = here / "home"
    home.mkdir()
    done = outside(f"train d.csv --target y --out r --quiet {FAST}", here, HOME=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.rglob("*")) == []
    assert {path.name for path in here.iterdir()} == {"d.csv", "home", "r"}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["recommend d.csv --target y", "rules list"])
def test_a_reader_that_leaves_does_no_harm(command, here):
    read, write = os.pipe()
    os.close(read)
    try:
        done = outside(command, here, stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_closed_streams_do_no_harm(closed, here):
    command = f"{shlex.quote(sys.executable)} -m advisor recommend d.csv --target y {closed}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=here, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("runs/d/report.html").is_file()


@pytest.mark.slow
def test_a_full_disk_behind_stdout_is_one_line(here):
    with Path("/dev/full").open("w") as full:
        done = outside("rules list", here, stdout=full)
    assert (done.returncode, done.stderr) == (2, "error: cannot write the output: No space left on device\n")


# ------------------------------------------------------------------------------------------- L4: bugs of ours


def test_a_bug_is_one_line_with_the_traceback_kept(here, monkeypatch, capfd):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(measurement, "measure_table", broken)
    assert _run(["recommend", "d.csv", "--target", "y"]) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: a bug in advisor (ZeroDivisionError)")
    log = Path(err.split()[-1])
    text = log.read_text()
    assert "ZeroDivisionError: a bug" in text
    assert "in broken" in text
    assert {"python", "tuning-advisor", "torch", "optuna", "ray", "polars"} <= {
        line.split(" ")[0] for line in text.splitlines()
    }
    assert not Path("runs").exists()
    shutil.rmtree(log.parent)


def test_a_bug_in_a_run_is_kept_in_the_run(here, monkeypatch, capfd):
    from advisor.report import page as report

    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(report, "render_html", broken)
    assert _run(["recommend", "d.csv", "--target", "y", "--out", "r"]) == 1
    assert capfd.readouterr().err.endswith("r/error.log\n")
    assert "ZeroDivisionError: a bug" in Path("r/error.log").read_text()


# ----------------------------------------------------------------------------------------- L5: what is loaded

LOADED = """
import sys
import time
from advisor.cli.main import _run
code = _run(sys.argv[1:])
print("loaded", *sorted(name for name in ("torch", "ray", "optuna") if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["--help", "--version", "rules list", "rules facts", "recommend d.csv --target y"]
)
def test_light_commands_load_nothing_heavy(command, here):
    program = [sys.executable, "-c", LOADED, *shlex.split(command)]
    done = subprocess.run(program, cwd=here, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "loaded\n")


@pytest.mark.slow
def test_questions_to_a_finished_run_load_nothing_that_reads_tables(here):
    """`why`, `what-if` and `diff` answer in the time of a start-up: the libraries are most of it."""
    assert _run(["recommend", "d.csv", "--target", "y", "--out", "r"]) == 0
    program = LOADED.replace('"torch", ', '"numpy", "polars", "scipy", "sklearn", "torch", ')
    for command in ("why r", "why r learning_rate --json", "what-if r --set rows=1000000", "diff r r"):
        ran = [sys.executable, "-c", program, *shlex.split(command)]
        done = subprocess.run(ran, cwd=here, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "loaded"), command


@pytest.mark.slow
def test_a_driver_hands_out_trials_without_torch_and_nothing_loads_the_compiler(here):
    """Importing torch keeps workers from a processor until the first trial; torch._dynamo
    costs each of them 1.3 s and 80 MB."""
    code = (
        "import sys, advisor.workflows.tune; before = set(sys.modules); import advisor.workflows.search, "
        "advisor.executors.ray.executor;"
    )
    code += "print([m for m in ('numpy', 'polars', 'optuna') if m in before], 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("[] False\n", "")
    program = LOADED.replace('("torch", "ray", "optuna")', '("torch", "torch._dynamo")')
    ran = [sys.executable, "-c", program, *shlex.split(f"train d.csv --target y --out r --json {FAST}")]
    done = subprocess.run(ran, cwd=here, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "loaded torch")


def test_the_package_itself_loads_nothing():
    code = (
        "import sys, advisor; print([m for m in ('numpy', 'polars', 'click', 'torch', 'ray', 'optuna') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# ------------------------------------------------------------------------------------- D5, D6: the same bytes


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(here):
    """Other hash seeds, another time zone, another number of threads."""
    texts = []
    for number, environment in enumerate(
        ({"PYTHONHASHSEED": "1", "TZ": "UTC"}, {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"})
    ):
        done = outside(
            f"recommend d.csv --target y --out r{number}",
            here,
            POLARS_MAX_THREADS=str(number + 1),
            **environment,
        )
        assert done.returncode == 0, done.stderr
        texts.append(
            (Path(f"r{number}/recommendation.yaml").read_bytes(), done.stdout.replace(f"r{number}", "r"))
        )
    assert texts[0] == texts[1]


def test_recommending_again_changes_nothing(here, capfd):
    """The same command on the same run is idempotent, and the page has no clock in it."""
    assert _run(["recommend", "d.csv", "--target", "y"]) == 0
    first = {name: Path("runs/d", name).read_bytes() for name in ("recommendation.yaml", "report.html")}
    assert _run(["recommend", "d.csv", "--target", "y"]) == 0
    assert {name: Path("runs/d", name).read_bytes() for name in first} == first
    assert [path.name for path in Path("runs").iterdir()] == ["d"]
    out = capfd.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_output_cannot_steer_the_terminal(here, capfd):
    """Escape sequences in names of columns and classes are shown, not sent (promise H3)."""
    frame = pl.read_csv("d.csv").rename({"c": "c\x1b[2J", "a": "a\x07"})
    frame.with_columns(pl.col("y").replace({"yes": "\x1b]0;owned\x07"})).write_csv("evil\x1b.csv")
    assert _run(["recommend", "evil\x1b.csv", "--target", "y", "--out", "r"]) == 0
    out, err = capfd.readouterr()
    assert not set(out + err) & set("\x1b\x07\r")


def test_printable_keeps_what_people_write():
    assert printable("größe: 5\u00a0%\n\tdone") == "größe: 5\u00a0%\n\tdone"
    assert printable("\x1b[31m\x00\u202e") == "\\x1b[31m\\x00\\u202e"


def test_text_that_stdout_cannot_write_is_no_bug(here, monkeypatch):
    """A terminal of ASCII shows a letter that it does not have as an escape."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    pl.read_csv("d.csv").rename({"y": "größe"}).write_csv("d.csv")
    assert _run(["recommend", "d.csv", "--target", "größe"]) == 0


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_summary_fits_the_terminal_and_shows_what_matters_first(width, here, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", str(width))
    assert _run(["recommend", "d.csv", "--target", "y", "--out", "short"]) == 0
    short = capfd.readouterr().out.splitlines()
    assert _run(["recommend", "d.csv", "--target", "y", "--out", "whole", "--all"]) == 0
    whole = capfd.readouterr().out.splitlines()
    assert all(len(line) <= width for line in short + whole if "report:" not in line)
    first = [line.split()[0] for line in short if line.split()[:1] and line.split()[0] in FIRST_CHOICES]
    assert first == [name for name in FIRST_CHOICES if name in first] and len(first) == 5
    assert (
        len([line for line in short if line.startswith(("also searched", "fixed", "not used", "unchanged"))])
        == 4
    )
    assert len(short) < (63 if width >= 80 else 80) and sum("because" in line for line in whole) > 3


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("recommend d.csv --target y --task binari", "did you mean 'binary'?"),
        ("recommend d.csv --target y --kind tabel", "did you mean 'table'?"),
        ("tune d.csv --target y --executor rey", "did you mean 'ray'?"),
        ("tune d.csv --target y --strategy jont", "did you mean 'joint'?"),
    ],
)
def test_a_misspelt_word_is_refused_before_anything_is_read(command, says, here, monkeypatch, capfd):
    monkeypatch.setattr(reading, "read_source", None)
    assert _run(shlex.split(command)) == 2
    assert says in capfd.readouterr().err


def test_measuring_that_takes_long_is_told_once(capfd):
    with console.told_when_slow("measuring a table", seconds=0.01):
        time.sleep(0.1)
    with console.told_when_slow("never told", seconds=60):
        pass
    assert capfd.readouterr().err == "measuring a table\n"
