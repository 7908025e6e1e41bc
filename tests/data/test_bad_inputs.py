"""Ways to get it wrong (promise D1): each ends in one line on stderr that says what to fix, in exit code 2,
with an empty stdout, and leaves nothing behind: no run folder, no changed file.

The list follows section 4.4 of the study of reliability: files, columns, targets, options, rules, edited
recommendations, run folders. All run in this process; a few run again as real processes.
"""

import gzip
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from advisor.cli.main import _run
from advisor.runs.folder import RunFolder

Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One mistake: what lies in the folder, what is typed there, and a word that the message must have."""

    name: str
    command: str
    says: str
    prepare: Prepare = lambda here: None
    run: bool = False  # the folder holds a finished run on d.csv, called `run`


def rows(count: int = 60) -> str:
    """A table with two numbers, a word and a binary target."""
    draw = random.Random(1)
    lines = []
    for _ in range(count):
        a, b = draw.gauss(0, 1), draw.gauss(0, 1)
        lines.append(
            f"{a:.4f},{b:.4f},{draw.choice('uvw')},{'yes' if a + b + draw.gauss(0, 0.5) > 0 else 'no'}"
        )
    return "\n".join(["a,b,c,y", *lines]) + "\n"


def holds(content: str | bytes, name: str = "x.csv") -> Prepare:
    """The folder also holds this file."""
    return lambda here: (here / name).write_bytes(content.encode() if isinstance(content, str) else content)


def column(values: object, name: str = "y") -> Prepare:
    """x.csv: the usual columns, and a target (or other column) with these values, repeated as needed."""
    cells = list(values)  # type: ignore[call-overload]

    def prepare(here: Path) -> None:
        frame = pl.read_csv(here / "d.csv")
        frame = frame.with_columns(
            pl.Series(name, [cells[i % len(cells)] for i in range(frame.height)], strict=False)
        )
        frame.write_csv(here / "x.csv")

    return prepare


def parquet(frame: pl.DataFrame, keep: int | None = None) -> Prepare:
    def prepare(here: Path) -> None:
        frame.write_parquet(here / "x.parquet")
        content = (here / "x.parquet").read_bytes()
        (here / "x.parquet").write_bytes(content[:keep])

    return prepare


def edited(old: str, new: str, file: str = "run/recommendation.yaml") -> Prepare:
    """A file of the run with the first match of a pattern replaced."""

    def prepare(here: Path) -> None:
        text = (here / file).read_text()
        changed = re.sub(old, new, text, count=1, flags=re.MULTILINE)
        assert changed != text, f"{old} is not in {file}"
        (here / file).write_text(changed)

    return prepare


def without_file(name: str) -> Prepare:
    return lambda here: (here / name).unlink()


def cut(name: str, size: int) -> Prepare:
    return lambda here: os.truncate(here / "run" / name, size)


DAY = datetime(2024, 1, 31)

RULE = """\
format: 1
rules:
- id: my-own-rule
  title: A rule
  topic: regularization
  applies_to: [table]
  notes: [N28]
  strength: should
  when: rows < 600
  then:
    default: {dropout: 0.1}
  because: '{rows} rows.'
  why: To try it.
  references:
    - {cite: me, url: 'https://example.org', says: nothing}
  evidence: folklore
  examples:
    - {given: {rows: 100}, expect: {dropout: 0.1}}
    - {given: {rows: 600}, expect: does not fire}
"""


def pack(old: str = "", new: str = "", *, text: str = RULE) -> Prepare:
    """A folder `pack` with one rule file, in which something was replaced."""
    assert old in text

    def prepare(here: Path) -> None:
        (here / "pack").mkdir()
        (here / "pack" / "mine.yaml").write_text(text.replace(old, new) if old else text)

    return prepare


X = "recommend x.csv --target y"
D = "recommend d.csv --target y"
RUN = "tune run --executor in-process --quiet"
PACK = "recommend d.csv --target y --rules pack"

FILES = [
    Case("missing", "recommend nowhere.csv --target y", "does not exist"),
    Case("misspelt name", "recommend dd.csv --target y", "did you mean 'd.csv'"),
    Case("missing folder", "recommend no/where.csv --target y", "does not exist"),
    Case("empty", X, "is empty", holds("")),
    Case("white space", X, "white space", holds(" \n\n  \n")),
    Case("directory", "recommend x --target y", "x is not a run", lambda here: (here / "x").mkdir()),
    Case("directory of tables", "train x", "it has a.csv: give one of these",
         lambda here: ((here / "x").mkdir(), (here / "x" / "a.csv").write_text("a,y\n1,2\n"))),
    Case("no target named", "tune d.csv", "the columns are "),
    Case("HDF5", X, "numpy.savez", holds(b"\x89HDF\r\n\x1a\n" + b"\0" * 99)),
    Case("HDF5, no target named", "recommend x.csv", "numpy.savez", holds(b"\x89HDF\r\n\x1a\n" + b"\0" * 99)),
    Case("pickle", X, "a pickle, which is never read", holds(b"\x80\x04\x95" + b"\0" * 99)),
    Case("channels of a table", "recommend d.csv --target y --channels last", "a table has none"),
    Case("directory .csv", X, "x.csv is not a run", lambda here: (here / "x.csv").mkdir()),
    Case("fifo", X, "not a regular file", lambda here: os.mkfifo(here / "x.csv")),
    Case("device", "recommend /dev/zero --target y", "not a regular file"),
    Case("dangling link", X, "does not exist", lambda here: (here / "x.csv").symlink_to("nowhere")),
    Case("link to itself", X, "cannot be read", lambda here: (here / "x.csv").symlink_to("x.csv")),
    Case("name with a NUL byte", "recommend 'x\0.csv' --target y", "cannot be read"),
    Case("name too long", f"recommend {'x' * 300}.csv --target y", "name too long"),
    Case("binary", X, "binary", holds(bytes(range(1, 32)) * 50)),
    Case("program", X, "a program", holds(b"\x7fELF" + bytes(200))),
    Case("image", X, "an image", holds(b"\x89PNG\r\n" + bytes(200))),
    Case("HTML", X, "HTML", holds("<!doctype html><html><body>Please sign in</body></html>")),
    Case("JSON", X, "JSON", holds('[{"a": 1, "y": 2}]')),
    Case("zip", X, "zip archive", holds(b"PK\x03\x04" + bytes(100))),
    Case("NUL byte", X, "NUL byte", holds(rows().replace("u", "\0", 1))),
    Case("damaged UTF-16", X, "utf-16", holds(rows().encode("utf-16")[:-1])),
    Case("one line", X, "a header and no rows", holds("a,b,y\n")),
    Case("no header", X, "header line", holds("1.5,2,0\n" + "2.5,3,1\n" * 30)),
    Case("wrong delimiter", X, "expected comma", holds(rows().replace(",", "#"))),
    Case("too short a row", X, "line 3 has 2 fields", holds("a,b,y\n1,2,3\n1,2\n" + "1,2,3\n" * 20)),
    Case("too long a row", X, "line 3 has 4 fields", holds("a,b,y\n1,2,3\n1,2,3,4\n" + "1,2,3\n" * 20)),
    Case("quote left open", X, "line 2 has 2 fields", holds('a,b,y\n1,"2,3\n' + "1,2,3\n" * 20)),
    Case("100,000 columns", X, "10,000 columns", holds(",".join(f"c{i}" for i in range(100_000)) + "\n")),
    Case("damaged gzip", "recommend x.csv.gz --target y", "gzip", holds(gzip.compress(rows().encode())[:-20], "x.csv.gz")),
    Case("gzip of nothing", "recommend x.csv.gz --target y", "empty once unpacked", holds(gzip.compress(b""), "x.csv.gz")),
    Case("truncated parquet", "recommend x.parquet --target y", "Parquet", parquet(pl.DataFrame({"y": [1, 2]}), -30)),
    Case("parquet of text", "recommend x.parquet --target y", "Parquet", holds(b"PAR1" + b"x" * 99, "x.parquet")),
    Case("nested parquet", "recommend x.parquet --target y", "'l' holds", parquet(pl.DataFrame({"l": [[1], [2]], "y": [1, 2]}))),
    Case("feather", "recommend x.parquet --target y", "not a Parquet file", holds(b"ARROW1" + bytes(99), "x.parquet")),
    Case("sklearn unknown", "recommend sklearn:irsi --target target", "did you mean 'iris'"),
    Case("openml without a number", "recommend openml: --target y", "needs a number or a name"),
    Case("no data", "recommend --target y", "missing argument 'DATA'"),
]  # fmt: skip

COLUMNS = [
    Case("target alone", X, "nothing is left to learn from", holds("y\n" + "1\n0\n" * 20)),
    Case("identifiers alone", X, "no column is left", holds("id,y\n" + "".join(f"k{i}x{i * 7},{i % 2}\n" for i in range(60)))),
    Case("constants alone", X, "no column is left", holds("a,y\n" + "".join(f"1,{i % 2}\n" for i in range(60)))),
    Case("type of no column", D + " --type d=numeric", "has no column 'd'"),
    Case("type of no kind", D + " --type a=number", "numeric"),
    Case("type without =", D + " --type a", "write NAME=VALUE"),
    Case("type of the target", D + " --type y=numeric", "has no feature type"),
    Case("time column absent", D + " --time-column when", "no time column 'when'"),
    Case("time column of words", D + " --time-column c", "dates or numbers"),
    Case("time column is the target", D + " --time-column y", "is the target"),
    Case("group column absent", D + " --group-column who", "no group column 'who'"),
    Case("group column is the target", D + " --group-column y", "is the target"),
    Case("group column constant", X + " --group-column g", "the same value", column(["same"], "g")),
    Case("time and group column", D + " --time-column a --group-column c", "leave the other out"),
]  # fmt: skip

TARGETS = [
    Case("target not given", "recommend d.csv", "--target COLUMN"),
    Case("target absent", "recommend d.csv --target price", "its columns are"),
    Case("target misspelt", "recommend d.csv --target Y", "no target 'Y'"),
    Case("target near", "recommend x.csv --target incme", "did you mean 'income'", column([0, 1], "income")),
    Case("target empty", D.replace("--target y", "--target ''"), "no target"),
    Case("one class", X, "only one value", column(["same"])),
    Case("class with one row", X, "has a single row", column([*["u"] * 59, "lonely"])),
    Case("all missing", X, "is missing in all", column([None])),
    Case("mostly missing", X, "rows have a target", column(["u", "v", *[None] * 58])),
    Case("few rows", X, "10 are needed", holds("a,y\n" + "1.5,0\n2.5,1\n" * 4)),
    Case("10,000 classes", X, "is it an identifier", column([f"class {i}" for i in range(60)])),
    Case("dates", "recommend x.parquet --target y", "dates or times", parquet(pl.DataFrame({"a": [1, 2], "y": [DAY, DAY]}))),
    Case("continuous as classes", X + " --task multiclass", "continuous", column([i / 7 for i in range(60)])),
    Case("words as numbers", D + " --task regression", "are not numbers"),
    Case("three classes as binary", X + " --task binary", "3 classes", column("uvw")),
    Case("unknown task", D + " --task clasification", "'clasification' is not one of binary"),
    Case("test file missing", D + " --test no.csv", "does not exist"),
    Case("test without target", D + " --test x.csv", "'y'", holds("a,b,c\n1,2,u\n")),
    Case("test without a column", D + " --test x.csv", "'b'", holds("a,c,y\n1,u,yes\n")),
    Case("class in the test only", D + " --test x.csv", "class 'maybe'", column(["maybe"])),
    Case("test without a labelled row", D + " --test x.csv", "no row is left", column([None])),
    Case("words in the test's numbers", "recommend x.csv --target a --test t.csv", "are not numbers",
         lambda here: (column([1], "z")(here), holds("a,b,c,z,y\nfew,1,u,1,no\n", "t.csv")(here))),
]  # fmt: skip

OPTIONS = [
    Case("unknown command", "advise d.csv", "there is no command 'advise'"),
    Case("unknown option", D + " --trails 5", "no such option"),
    Case("option without value", "recommend d.csv --target", "--target"),
    Case("two tables", D + " d.csv", "unexpected extra argument"),
    Case("no trials", "tune d.csv --target y --trials 0 --executor in-process", "at least 1"),
    Case("negative trials", "tune d.csv --target y --trials -3 --executor in-process", "at least 1"),
    Case("trials as a word", "tune d.csv --target y --trials many", "--trials"),
    Case("unknown executor", "tune d.csv --target y --executor dask", "'dask' is not one of ray, in-process"),
    Case("workers in process", "tune d.csv --target y --executor in-process --workers 2", "leave out"),
    Case("address in process", "tune d.csv --target y --executor in-process --address h:1", "leave out"),
    Case("no workers", "tune d.csv --target y --workers 0", "workers"),
    Case("no time", "tune d.csv --target y --executor in-process --time-limit 0", "time"),
    Case("negative time", "tune d.csv --target y --executor in-process --time-limit -5", "time"),
    Case("no time for a trial", "tune d.csv --target y --executor in-process --trial-time-limit 0", "time limit of a trial"),
    Case("time that is no number", "tune d.csv --target y --executor in-process --time-limit nan", "time"),
    Case("test fraction of 1.5", D + " --test-fraction 1.5", "between 0 and 1"),
    Case("test fraction of nan", D + " --test-fraction nan", "between 0 and 1"),
    Case("endless seed", D + " --seed 99999999999", "seed"),
    Case("seed as a word", D + " --seed lucky", "--seed"),
    Case("negative seed", D + " --seed -1", "seed"),
    Case("set without =", D + " --fixed dropout", "write NAME=VALUE"),
    Case("set nothing", D + " --fixed =3", "write NAME=VALUE"),
    Case("set of no parameter", D + " --fixed droput=0.1", "did you mean 'dropout'"),
    Case("set out of range", D + " --fixed learning_rate=5", "learning_rate"),
    Case("set nan", D + " --fixed learning_rate=nan", "learning_rate"),
    Case("set of a wrong type", D + " --fixed width=wide", "width"),
    Case("set of no choice", D + " --fixed activation=rely", "activation"),
    Case("set 0 folds", D + " --fixed folds=0", "folds"),
    Case("set half an epoch", D + " --fixed epochs=0.5", "epochs"),
    Case("set a number that is endless", D + f" --fixed epochs={'9' * 5000}", "epochs"),
    Case("more folds than rows", "train x.csv --target y --fixed validation=kfold --fixed folds=20", "folds",
         holds("\n".join(rows().split("\n")[:13]))),
    Case("out is a file", D + " --out d.csv", "is a file"),
    Case("out is below a file", D + " --out d.csv/run", "d.csv"),
    Case("out is not writable", D + " --out /proc/run", "/proc/run"),
    Case("out is somebody's folder", D + " --out pack", "is not empty", pack()),
    Case("name of out too long", D + f" --out {'x' * 300}", "name too long"),
    Case("out holds other data", "recommend x.csv --target y --out run", "other data", column([1, 2, 3], "b"), run=True),
    Case("out holds another target", "recommend d.csv --target c --out run", "other data", run=True),
]  # fmt: skip

RULES = [
    Case("no folder of rules", D + " --rules nowhere", "no such file or folder"),
    Case("empty folder of rules", PACK, "no rule file", lambda here: (here / "pack").mkdir()),
    Case("rules that are no YAML", PACK, "mine.yaml:2", pack(text="rules: [")),
    Case("rules that are a table", D + " --rules d.csv", "d.csv"),
    Case("rules of a newer format", PACK, "format", pack("format: 1", "format: 99")),
    Case("unknown fact", PACK, "did you mean 'rows'", pack("when: rows", "when: row")),
    Case("unknown parameter", PACK, "did you mean 'dropout'", pack("default: {dropout", "default: {droput")),
    Case("unknown key", PACK, "did you mean 'when'", pack("  when:", "  wen:")),
    Case("value out of range", PACK, "dropout", pack("default: {dropout: 0.1}", "default: {dropout: 7}")),
    Case("1e-3 as text", PACK, "1.0e-3", pack("default: {dropout: 0.1}", "default: {learning_rate: 1e-3}")),
    Case("condition that calls", PACK, "when", pack("rows < 600", "__import__('os').system('true')")),
    Case("condition without end", PACK, "when", pack("rows < 600", "9**9**9 > rows")),
    Case("condition of dunders", PACK, "when", pack("rows < 600", "rows.__class__ == rows")),
    Case("the same rule twice", PACK, "my-own-rule", pack(text=RULE + RULE.partition("rules:\n")[2])),
    Case("id of a shipped rule", PACK, "clip-the-gradient", pack("id: my-own-rule", "id: clip-the-gradient")),
    Case("alias bomb", PACK, "alias", pack(text="a: &a [1]\nb: &b [*a, *a]\nrules: [*b, *b]\n")),
    Case("brackets without end", PACK, "mine.yaml", pack(text="rules: " + "[" * 100_000)),
    Case("a repeated key", PACK, "already given", pack("  why: To try it.", "  why: To try it.\n  why: Again.")),
    Case("unknown rule left out", D + " --without clip-the-gradients", "did you mean 'clip-the-gradient'"),
    Case("show an unknown rule", "rules show clip-the-gradients", "did you mean 'clip-the-gradient'"),
    Case("list an unknown topic", "rules list --topic regularisation", "did you mean 'regularization'"),
    Case("check nothing", "rules check", "missing argument"),
    Case("check what is not there", "rules check nowhere", "no such file or folder"),
    Case("test a bad pack", "rules test pack", "did you mean 'rows'", pack("when: rows", "when: row")),
]  # fmt: skip

EDITS = [
    Case("unknown section", RUN, "unknown key", edited("^data:", "dta:"), True),
    Case("unknown parameter", RUN, "did you mean 'width'", edited("^  width: ", "  widht: "), True),
    Case("removed value", RUN, "'width' is missing", edited("^  width: .*\n", ""), True),
    Case("repeated key", RUN, "already given", edited("^  width: (.*)\n", r"  width: \1\n  width: 32\n"), True),
    Case("value out of range", RUN, "width", edited("^  width: .*", "  width: 5000"), True),
    Case("value of a wrong type", RUN, "width", edited("^  width: .*", "  width: wide"), True),
    Case("value that is nothing", RUN, "width", edited("^  width: .*", "  width:"), True),
    Case("1e-3 as text", RUN, "1.0e-3", edited("^  learning_rate: .*", "  learning_rate: 1e-3"), True),
    Case("number that is none", RUN, "learning_rate", edited("^  learning_rate: .*", "  learning_rate: .nan"), True),
    Case("unknown choice", RUN, "activation", edited("^  activation: .*", "  activation: rely"), True),
    Case("range outside the base", RUN, "width", edited("^  width: {.*", "  width: {low: 1, high: 64}"), True),
    Case("range upside down", RUN, "is above high", edited("^  width: {.*", "  width: {low: 64, high: 32}"), True),
    Case("range of nothing", RUN, "width", edited("^  width: {.*", "  width: 64"), True),
    Case("choice that is none", RUN, "rely", edited("^  activation: {.*", "  activation: {choices: [rely]}"), True),
    Case("search of a plan setting", RUN, "never searched", edited("^space:", "space:\n  epochs: {low: 1, "
                                                                              "high: 9}"), True),
    Case("newer format", RUN, "update tuning-advisor", edited("^format: 1", "format: 2"), True),
    Case("no format", RUN, "not a recommendation", edited("^format: 1\n", ""), True),
    Case("cut in half", RUN, "recommendation.yaml", cut("recommendation.yaml", 5000), True),
    Case("emptied", RUN, "recommendation.yaml", cut("recommendation.yaml", 0), True),
    Case("not text", RUN, "UTF-8", lambda here: (here / "run" / "recommendation.yaml").write_bytes(b"\xff\xfe\x00"), True),
    Case("no source", RUN, "cannot be found again", edited("^  source: .*", "  source: null"), True),
    Case("target away", RUN, "no target 'z'", edited("^  target: .*", "  target: z"), True),
    Case("other fingerprint", RUN, "made for different data", edited("^  fingerprint: .*", "  fingerprint: abc"), True),
    Case("source as a list", RUN, "source", edited("^  source: .*", "  source: [d.csv]"), True),
    Case("seed as a word", RUN, "seed", edited("^  seed: .*", "  seed: lucky"), True),
    Case("negative seed", RUN, "seed", edited("^  seed: .*", "  seed: -4"), True),
    Case("test fraction as a word", RUN, "test_fraction", edited("^  test_fraction: .*", "  test_fraction: some"), True),
    Case("types as a list", RUN, "types", edited("^  types: .*", "  types: [a, b]"), True),
    Case("types of numbers", RUN, "types", edited("^  types: .*", "  types: {a: 5}"), True),
    Case("time column as a list", RUN, "time_column", edited("^  time_column: .*", "  time_column: [a]"), True),
    Case("task as a number", RUN, "task", edited("^  task: .*", "  task: 5"), True),
    Case("test as a number", RUN, "test", edited("^  test: .*", "  test: 5"), True),
    Case("loss that does not fit", RUN, "loss", edited("^  loss: .*", "  loss: mean_squared_error"), True),
    Case("edited file of nowhere", "tune nowhere.yaml --executor in-process", "cannot read nowhere.yaml"),
    Case("YAML that is something else", "tune x.yaml --executor in-process", "not a recommendation",
         holds("a: 1\n", "x.yaml")),
    Case("edited file alone", "tune x.yaml --executor in-process", "is not in its run folder",
         lambda here: shutil.copy(here / "run" / "recommendation.yaml", here / "x.yaml"), True),
]  # fmt: skip


def grown(here: Path) -> None:
    """More rows in the data of the run than it was made for."""
    with (here / "d.csv").open("a") as file:
        file.write("1.0,2.0,u,yes\n")


RUNS = [
    Case("no run", "train nowhere/", "no such file or run folder"),
    Case("why of no run", "why nowhere width", "nowhere"),
    Case("what-if of no fact", "what-if run --set rosw=5", "did you mean 'rows'", run=True),
    Case("diff with no run", "diff run nowhere", "nowhere", run=True),
    Case("not a run", "tune x --executor in-process", "is not a run", lambda here: (here / "x").mkdir()),
    Case("half a run: facts", RUN, "facts.json", without_file("run/facts.json"), True),
    Case("half a run: advice", RUN, "recommendation.yaml is missing", without_file("run/recommendation.yaml"), True),
    Case("facts cut", RUN, "facts.json is damaged", cut("facts.json", 500), True),
    Case("facts of a newer format", RUN, "update tuning-advisor", edited('"format": 1', '"format": 7', "run/facts.json"), True),
    Case("facts without format", RUN, "damaged", edited('"format": 1,', "", "run/facts.json"), True),
    Case("facts of nothing", RUN, "damaged", edited('"fingerprint"', '"finger"', "run/facts.json"), True),
    Case("facts without values", RUN, "damaged", edited('"values"', '"valves"', "run/facts.json"), True),
    Case("facts with an unknown one", RUN, "the fact rows is missing", edited('"rows"', '"rowz"', "run/facts.json"), True),
    Case("facts of columns cut", RUN, "'columns[0].distinct' is missing", edited('"distinct"', '"distant"', "run/facts.json"), True),
    Case("facts as a list", RUN, "damaged", lambda here: (here / "run" / "facts.json").write_text("[1]"), True),
    Case("facts nested without end", RUN, "damaged", lambda h: (h / "run" / "facts.json").write_text("[" * 200_000), True),
    Case("data moved", RUN, "does not exist", lambda here: (here / "d.csv").rename(here / "e.csv"), True),
    Case("data changed", RUN, "made for different data", grown, True),
    Case("a target for a run", RUN + " --target y", "leave out target", run=True),
    Case("a seed for a run", RUN + " --seed 3", "leave out seed", run=True),
    Case("a value for a run", RUN + " --fixed width=32", "leave out fixed", run=True),
    Case("out of a run is a file", RUN + " --out d.csv", "is a file", run=True),
    Case("result cut", "recommend run", "result.json is damaged", cut("result.json", 99), True),
    Case("predict: no run", "predict nowhere d.csv", "nowhere", run=True),
    Case("predict: name too long", f"predict {'x' * 300} d.csv", "name too long"),
    Case("predict: a file", "predict d.csv d.csv", "d.csv", run=True),
    Case("predict: no rows", "predict run nowhere.csv", "does not exist", run=True),
    Case("predict: run twice", "predict run run", "directory", run=True),
    Case("predict: no model", "predict run d.csv", "holds no model", lambda h: shutil.rmtree(h / "run" / "model"), True),
    Case("predict: column missing", "predict run x.csv", "'b'", holds("a,c\n1,u\n"), True),
    Case("predict: wrong table", "predict run x.csv", "'a'", holds("q\n1\n"), True),
    Case("predict: out is a folder", "predict run d.csv --out run", "cannot write run", run=True),
    Case("predict: out is nowhere", "predict run d.csv --out no/p.csv", "cannot write no/p.csv", run=True),
    Case("predict: disk full", "predict run d.csv --out /dev/full", "cannot write /dev/full", run=True),
    Case("model: weights missing", "predict run d.csv", "weights", without_file("run/model/weights.safetensors"), True),
    Case("model: weights cut", "predict run d.csv", "weights", cut("model/weights.safetensors", 80), True),
    Case("model: edited", "predict run d.csv", "model.json", edited("0", "1", "run/model/model.json"), True),
    Case("model: checksums cut", "predict run d.csv", "checksums", cut("model/checksums.json", 9), True),
    Case("journal of something else", RUN, "study.journal", holds("hello\nworld\n", "run/study.journal"), True),
    Case("journal is a folder", RUN, "study.journal", lambda here: (here / "run" / "study.journal").mkdir(), True),
]  # fmt: skip

GROUPS = {
    "file": FILES,
    "column": COLUMNS,
    "target": TARGETS,
    "option": OPTIONS,
    "rules": RULES,
    "edit": EDITS,
    "run": RUNS,
}
CASES = [pytest.param(case, id=f"{group}: {case.name}") for group, cases in GROUPS.items() for case in cases]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with d.csv and a finished run on it."""
    here = tmp_path_factory.mktemp("finished")
    (here / "d.csv").write_text(rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        fast = "--set epochs=1 --fixed validation=holdout"
        assert _run(shlex.split(f"train d.csv --target y --out run {fast}")) == 0
    return here


@pytest.fixture
def here(request, tmp_path, monkeypatch):
    """The folder of a case, and we in it."""
    case = request.getfixturevalue("case")
    (tmp_path / "d.csv").write_text(rows())
    if case.run:
        shutil.copytree(request.getfixturevalue("finished") / "run", tmp_path / "run")
        file = tmp_path / "run" / "recommendation.yaml"  # its data are the copy's
        file.write_text(re.sub("^  source: .*", "  source: d.csv", file.read_text(), flags=re.MULTILINE))
    case.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, object]:
    """Every file below a folder with its content; a run's lock is nobody's content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.is_dir()
        for path in folder.rglob("*")
        if path.name != "lock"
    }


def one_line(stderr: str, says: str) -> bool:
    """Whether stderr is a single complaint with that word."""
    return (
        stderr.count("\n") == 1 and stderr.startswith("error: ") and stderr.endswith("\n") and says in stderr
    )


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_leaves_nothing(case, here, capfd):
    before = contents(here)
    code = _run(shlex.split(case.command))
    out, err = capfd.readouterr()
    assert one_line(err, case.says), err
    assert (code, out) == (2, "")
    assert contents(here) == before


def test_there_are_enough_mistakes():
    assert len(CASES) >= 60
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.id in (
        "file: binary", "target: target misspelt", "option: unknown option", "rules: unknown fact", "edit: newer format",
        "run: model: weights cut",
    )],
)  # fmt: skip
def test_a_mistake_in_a_real_process(case, here):
    before = contents(here)
    program = [sys.executable, "-m", "advisor", *shlex.split(case.command)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert one_line(done.stderr, case.says), done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert contents(here) == before


def test_a_run_in_use_says_by_whom(finished, monkeypatch, capfd):
    monkeypatch.chdir(finished)
    before = contents(finished)
    with RunFolder(Path("run")).lease():
        code = _run(["train", "run"])
    out, err = capfd.readouterr()
    assert one_line(err, f"process {os.getpid()}"), err
    assert (code, out) == (2, "")
    assert contents(finished) == before


def test_a_message_cannot_steer_the_terminal(tmp_path, monkeypatch, capfd):
    """Control characters of a column's name are shown, not sent (promise H3)."""
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("a\x1b[2Jb,y\n" + "1,2\n" * 30)
    assert _run(["recommend", "x.csv", "--target", "evil\x1b[31m\nname"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "\x1b" not in err
