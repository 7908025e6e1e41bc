"""TrainCheck (OSDI 2025) on a sample of the same programs.

TrainCheck does not judge a program: it learns invariants from traces of sound ones and checks another trace against them.
So it is used as its guide says: traces of ten steps of two sound programs, one set of invariants from both, and then a
trace of each program under test, checked against these. Neither of the two is judged.

    python benchmarks/faults/judge_traincheck.py --install    # an environment of its own; shares this one's torch
    python benchmarks/faults/judge_traincheck.py              # goes on where it was stopped; --fresh begins again
    python benchmarks/faults/judge_traincheck.py --table      # what is kept

The sample: programs in the order of the hash of their names, never by what comes out; where it is stopped, the sample ends.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pairs_network  # noqa: F401
import pairs_output  # noqa: F401
import pairs_setup  # noqa: F401
from healthy import HEALTHY, held_back
from program import CASES

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "cache"
HOME, WORK = CACHE / "traincheck", CACHE / "traincheck-work"
KEPT = HERE.parent / "results" / "faults-traincheck.jsonl"
sys.path.insert(0, str(HERE.parent))
from resumable import keep, kept  # noqa: E402

Row = dict[str, Any]
REFERENCES = 2
"""Sound programs that invariants are learned from; the authors count false alarms with 1, 4 and 6, and inference takes
much longer with each."""
PAIRS, QUIET = 24, 12
"""Pairs and sound networks that are judged, at most."""
ORDERINGS = ("FunctionLeadRelation", "FunctionCoverRelation")
"""Which call comes before which: the authors' tutorial advises to ignore these."""
LIMIT = 900
"""Seconds by the clock of one command, after which the program counts as refused."""


def by_hash(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"traincheck {name}".encode()).hexdigest())


def references() -> list[str]:
    return [f"healthy:{name}" for name in by_hash(list(HEALTHY))[:REFERENCES]]


def subjects() -> Iterator[str]:
    """What is judged, in this order: two pairs, then a sound network."""
    quiet = iter(by_hash(list(HEALTHY))[REFERENCES : REFERENCES + QUIET])
    for number, name in enumerate(by_hash([case.name for case in CASES])[:PAIRS], 1):
        yield from (f"buggy:{name}", f"fixed:{name}")
        if number % (PAIRS // QUIET) == 0:
            yield f"healthy:{next(quiet)}"


def install() -> None:
    """An environment of its own that sees the packages of this one."""
    venv.create(HOME, clear=True, with_pip=True)
    shared = sysconfig.get_paths()["purelib"]
    site = next(HOME.glob("lib/python*/site-packages"))
    (site / "shared.pth").write_text(
        "\n".join(p for p in sys.path if p == shared or p.endswith("packages")) + "\n"
    )
    command = [HOME / "bin" / "pip", "install", "--quiet", "-r", HERE / "traincheck.txt"]
    subprocess.run([str(part) for part in command], check=True)


def run(tool: str, *options: str | Path, subject: str = "") -> tuple[str, str, float]:
    """One of TrainCheck's commands: its complaint or "", what it said, and seconds of the processor."""
    command = [str(HOME / "bin" / f"traincheck-{tool}"), *map(str, options)]
    surroundings = {**os.environ, "SUBJECT": subject, "FAULTS": str(HERE), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        command, cwd=WORK, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = process.communicate(timeout=LIMIT)
        complaint = "" if not process.returncode else f"exit {process.returncode}"
    except subprocess.TimeoutExpired:
        told, complaint = "", f"more than {LIMIT} s"
    finally:  # it starts a process of its own, which must not outlive it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return complaint, told, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def collect(subject: str, *options: str | Path) -> tuple[Path, str, float]:
    """A trace of ten steps of one program."""
    folder = WORK / subject.replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    chosen = ("--pyscript", WORK / "script.py", "--models-to-track", "model", "--output-dir", folder)
    complaint, _, busy = run("collect", *chosen, *options, subject=subject)
    if complaint and (folder / "program_output.txt").exists():
        complaint = (folder / "program_output.txt").read_text().strip().splitlines()[-1]
    return folder, complaint, busy


def learn() -> Path:
    """The invariants of the sound programs, made once."""
    found = WORK / "invariants.json"
    if found.exists():
        return found
    traces = []
    for subject in references():
        finished = WORK / f"{subject.replace(':', '-')}.done"
        if not finished.exists():
            _, complaint, busy = collect(subject)
            print(subject, complaint or "traced", f"{busy:.0f} s", flush=True)
            if complaint:
                continue
            finished.touch()
        traces.append(finished.with_suffix(""))
    made = WORK / "learned.json"
    complaint, told, busy = run("infer", "-f", *traces, "-o", made)
    if complaint:
        raise SystemExit(f"no invariants: {complaint}\n{told[-2000:]}")
    made.rename(found)
    (WORK / "learned.txt").write_text(
        f"{sum(1 for _ in found.open())} invariants of {len(traces)} programs, {busy:.0f} s\n"
    )
    return found


def measure(subject: str, invariants: Path) -> Row:
    kind, name = subject.split(":")
    folder, refused, busy = collect(subject, "--invariants", invariants)
    violated: list[list[str]] = []
    if not refused:
        results = WORK / "results"
        shutil.rmtree(results, ignore_errors=True)
        refused, _, more = run("check", "-f", folder, "-i", invariants, "-o", results, "--no-html-report")
        busy += more
        summary = results / folder.name / "violations_summary.json"
        if summary.exists():
            found = json.loads(summary.read_text())["violations"]
            violated = sorted([v["relation_type"], v["display_name"]] for v in found)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "name": name, "kind": kind, "held_back": held_back(name), "violated": violated, "refused": refused,
        "processor": round(busy, 1),
    }  # fmt: skip


def told(row: Row, *, orderings: bool) -> set[str]:
    """The invariants that a program violates."""
    return {
        f"{relation} {name}" for relation, name in row["violated"] if orderings or relation not in ORDERINGS
    }


def figures(rows: Sequence[Row], *, orderings: bool) -> dict[str, float]:
    """The figures of ``judge.figures`` that a tool without categories has."""
    by = {(r["name"], r["kind"]): told(r, orderings=orderings) for r in rows}

    def share(values: list[bool]) -> float:
        return sum(values) / len(values) if values else float("nan")

    pairs = [name for name, kind in by if kind == "fixed" and (name, "buggy") in by]
    seconds = sorted(r["processor"] for r in rows)
    return {
        "pairs": len(pairs),
        "faulty with a warning": share([bool(by[n, "buggy"]) for n in pairs]),
        "false alarms on twins": share([bool(by[n, "fixed"]) for n in pairs]),
        "pairs told apart": share([not by[n, "buggy"] <= by[n, "fixed"] for n in pairs]),
        "healthy with a warning": share([bool(v) for (_, kind), v in by.items() if kind == "healthy"]),
        "refused": sum(bool(r["refused"]) for r in rows),
        "processor seconds, median": seconds[len(seconds) // 2] if seconds else float("nan"),
        "processor seconds, most": seconds[-1] if seconds else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", nargs="*", help="subjects as kind:name; nothing is kept")
    chosen = parser.parse_args()
    if chosen.install:
        install()
        return
    if chosen.fresh:
        shutil.rmtree(WORK, ignore_errors=True)
        KEPT.unlink(missing_ok=True)
    rows = kept(KEPT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if not chosen.table:
        WORK.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "traincheck_script.py", WORK / "script.py")
        invariants = learn()
        done = set() if chosen.only else {f"{r['kind']}:{r['name']}" for r in rows}
        for subject in chosen.only or subjects():
            if subject not in done:
                row = measure(subject, invariants)
                print(subject, len(row["violated"]), row["refused"], f"{row['processor']} s", flush=True)
                if not chosen.only:
                    rows.append(row)
                    keep(KEPT, row)
    for orderings in (True, False):
        print(json.dumps(figures(rows, orderings=orderings)))


if __name__ == "__main__":
    main()
