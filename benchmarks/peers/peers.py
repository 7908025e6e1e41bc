"""Peers on the same tables: the same rows, seeds and threads, each at its documented use.

    python benchmarks/peers/peers.py                     # all tables of ../shared/data/tables, by size
    python benchmarks/peers/peers.py --sets wine sonar --peers advisor mlp boosting --seeds 1

`contestant.py` has the peers. `advisor`, `mlp` and `boosting` run in the project's environment, the others
each in
one of its own; one without it is not run, and the table says so:

    python -m venv ../peers/pytabkit && ../peers/pytabkit/bin/pip install -r
    benchmarks/peers/requirements/pytabkit.txt

Every finished (seed, set, peer) is kept at once, and a second call goes on from there.

All are judged by the same code on the test rows: log loss or root mean squared error, accuracy or R2, and
seconds of the processor for training and predicting. Nothing is tuned here on what judges.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from resumable import go_on  # noqa: E402  a program of the folder above

OURS = "advisor"
NAMES = {
    "advisor": "advisor, recommendation alone",
    "mlp": "scikit-learn MLP",
    "boosting": "HistGradientBoosting",
    "realmlp": "RealMLP-TD",
    "tabm": "TabM-D",
}
ENVIRONMENTS = {"realmlp": "pytabkit", "tabm": "pytabkit"}
"""Of each peer with an environment of its own; the others run in the project's."""
SMALLEST = 1e-6
"""Probabilities are at least this in the log loss: one row that was ruled out must not be all of a mean."""
ERRORS = 2.0
"""Standard errors beyond which a difference on the test rows is called one."""
CHANCE = 0.05
RESAMPLES = 2000


def measure(seed: int, folder: Path, peer: str, python: Path, threads: int) -> dict[str, Any]:
    """One case; a peer that fails has the reason in place of its numbers."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    row: dict[str, Any] = {"seed": seed, "set": folder.name, "peer": peer}
    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / "scores.npz"
        command = [python, HERE / "contestant.py", peer, folder, str(seed), str(threads), file]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=out, check=False)
        if done.returncode:
            return row | {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
        with np.load(file) as found:
            return (
                row
                | judged(folder, found["scores"], list(found["classes"]))
                | {"seconds": float(found["seconds"])}
            )


def judged(folder: Path, scores: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """loss_by_row: log loss, or squared error, of every test row with a known target."""
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    test = pd.read_csv(folder / "test.csv", keep_default_na=False, na_values=[""], low_memory=False)
    known = test[meta["target"]].notna().to_numpy()
    target, scores = test[meta["target"]][known], scores[known]
    if not len(classes):
        errors = np.square(scores - target.to_numpy(float))
        score = 1 - errors.mean() / target.to_numpy(float).var()
        loss, by_row = float(np.sqrt(errors.mean())), errors
    else:
        code = {label: number for number, label in enumerate(classes)}
        own = np.array([code.get(label, -1) for label in target.astype(str)])
        of_truth = np.where(own < 0, 0.0, scores[np.arange(len(own)), own])
        by_row = -np.log(np.clip(of_truth, SMALLEST, 1.0))
        loss, score = float(by_row.mean()), float((scores.argmax(axis=1) == own).mean())
    return {
        "task": meta["task"],
        "loss": loss,
        "score": float(score),
        "loss_by_row": [float(f"{value:.5g}") for value in by_row],
    }


# ------------------------------------------------------------------------------------------------ tables


class Results:
    """The rows of a results file, by set and peer. sets: on which every peer of the file has run."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.failed = [row for row in rows if "failed" in row]
        own = [row for row in rows if "failed" not in row]
        self.peers = [name for name in NAMES if any(row["peer"] == name for row in own)]
        by_case: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in own:
            by_case.setdefault((row["set"], row["peer"]), []).append(row)
        names = dict.fromkeys(row["set"] for row in own)
        self.sets = [name for name in names if all((name, peer) in by_case for peer in self.peers)]
        self.any_set = [name for name in names if (name, OURS) in by_case]
        self.by_case = by_case

    def mean(self, name: str, peer: str, key: str) -> float:
        return float(np.mean([row[key] for row in self.by_case[name, peer]]))

    def matrix(self, key: str, sets: Sequence[str]) -> np.ndarray:
        """(sets, peers); NaN where a peer has not run."""
        return np.array(
            [
                [
                    self.mean(name, peer, key) if (name, peer) in self.by_case else np.nan
                    for peer in self.peers
                ]
                for name in sets
            ]
        )

    def by_row(self, name: str, peer: str) -> np.ndarray:
        return np.mean([row["loss_by_row"] for row in self.by_case[name, peer]], axis=0)

    def verdict(self, name: str, peer: str) -> int:
        """1: ours has the smaller loss on the test rows beyond ERRORS standard errors; -1: the peer has;
        else 0."""
        paired = self.by_row(name, OURS) - self.by_row(name, peer)
        error = paired.std(ddof=1) / np.sqrt(len(paired))
        return int(paired.mean() < -ERRORS * error) - int(paired.mean() > ERRORS * error)


def table_of(rows: list[dict[str, Any]]) -> str:
    results = Results(rows)
    if not results.sets or OURS not in results.peers or len(results.peers) < 2:
        return "Nothing to compare yet."
    return "\n".join([*_summary(results), "", *_losses(results), "", *_scores(results), *_left_out(results)])


def _summary(results: Results) -> list[str]:
    from scipy.stats import rankdata, studentized_range

    ranks = np.apply_along_axis(rankdata, 1, results.matrix("loss", results.sets)).mean(axis=0)
    sets, count = len(results.sets), len(results.peers)
    far = studentized_range.ppf(1 - CHANCE, count, np.inf) * np.sqrt(count * (count + 1) / 12 / sets)
    seeds = sorted({row["seed"] for case in results.by_case.values() for row in case})
    lines = [
        f"Seeds {', '.join(map(str, seeds))}. Less is better in rank, loss and seconds. Mean ranks are over "
        f"the {sets} tables that all {count} have finished ({', '.join(results.sets)}), the rest over the "
        "tables that both have.",
        "",
        "| peer | mean rank | our loss / its (95 % over tables) | we are better on | ... beyond chance "
        "| worse beyond chance | its seconds / ours |",
        "|" + "---|" * 7,
    ]
    for number in np.argsort(ranks):
        peer = results.peers[number]
        own = f"| {NAMES[peer]} | {ranks[number]:.2f} "
        lines.append(f"{own}| | | | | 1 |" if peer == OURS else own + _beside(results, peer))
    return [
        *lines,
        "",
        f"Critical difference of mean ranks (Nemenyi, 5 %): {far:.2f}. Beyond chance: more than {ERRORS:.0f} "
        "standard errors of the paired differences on the test rows, seeds averaged. Ratios are geometric "
        "means.",
    ]


def _beside(results: Results, peer: str) -> str:
    both = [name for name in results.any_set if (name, peer) in results.by_case]
    columns = [results.peers.index(OURS), results.peers.index(peer)]
    losses, seconds = (np.log(results.matrix(key, both)[:, columns]) for key in ("loss", "seconds"))
    logs = losses[:, 0] - losses[:, 1]
    low, high = _interval(logs)
    verdicts = [results.verdict(name, peer) for name in both]
    slower = np.exp((seconds[:, 1] - seconds[:, 0]).mean())
    return (
        f"| {np.exp(logs.mean()):.3f} ({low:.3f} to {high:.3f}) | {(logs < 0).sum()} of {len(both)} "
        f"| {verdicts.count(1)} | {verdicts.count(-1)} | {slower:.2g} |"
    )


def _interval(logs: np.ndarray) -> tuple[float, float]:
    draws = np.random.default_rng(0).integers(len(logs), size=(RESAMPLES, len(logs)))
    low, high = np.quantile(logs[draws].mean(axis=1), [CHANCE / 2, 1 - CHANCE / 2])
    return float(np.exp(low)), float(np.exp(high))


def _losses(results: Results) -> list[str]:
    lines = ["Log loss, or root mean squared error; the least of each table is bold.", "", *_head(results)]
    for name, row in zip(results.any_set, results.matrix("loss", results.any_set), strict=True):
        least = np.nanmin(row)
        cells = [
            "" if np.isnan(loss) else f"**{loss:.4g}**" if loss == least else f"{loss:.4g}" for loss in row
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _scores(results: Results) -> list[str]:
    lines = ["Accuracy, or R2; in brackets seconds of the processor.", "", *_head(results)]
    tables = (results.matrix(key, results.any_set) for key in ("score", "seconds"))
    for name, scores, seconds in zip(results.any_set, *tables, strict=True):
        both = zip(scores, seconds, strict=True)
        cells = ["" if np.isnan(score) else f"{score:.3f} ({own:.1f})" for score, own in both]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _head(results: Results) -> list[str]:
    columns = len(results.peers)
    return [
        "| table | " + " | ".join(NAMES[peer] for peer in results.peers) + " |",
        "|" + "---|" * (1 + columns),
    ]


def _left_out(results: Results) -> list[str]:
    lines = []
    if missing := [NAMES[peer] for peer in NAMES if peer not in results.peers]:
        lines += ["", f"Not run: {', '.join(missing)}."]
    lines += [
        f"- {NAMES[row['peer']]} failed on {row['set']}, seed {row['seed']}: {row['failed']}"
        for row in results.failed
    ]
    return lines


def python_of(peer: str, environments: Path) -> Path | None:
    """The interpreter that runs a peer; None where its environment is not there."""
    if peer not in ENVIRONMENTS:
        return Path(sys.executable)
    found = environments / ENVIRONMENTS[peer] / "bin" / "python"
    return found if found.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data" / "tables")
    parser.add_argument("--environments", type=Path, default=HERE.parents[2] / "peers")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--peers", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "peers.jsonl")
    arguments = parser.parse_args()
    folders = {folder.name: folder for folder in arguments.data.resolve().iterdir() if folder.is_dir()}
    by_size = sorted(folders, key=lambda name: (folders[name] / "train.csv").stat().st_size)
    sets = [name for name in by_size if name in (arguments.sets or folders)]
    pythons = {peer: python_of(peer, arguments.environments) for peer in arguments.peers}
    todo = [
        (seed, name, peer)
        for seed in range(arguments.seeds)
        for name in sets
        for peer, python in pythons.items()
        if python is not None
    ]
    go_on(
        arguments.results,
        "Peers",
        ("seed", "set", "peer"),
        todo,
        lambda seed, name, peer: measure(seed, folders[name], peer, pythons[peer], arguments.threads),
        table_of,
    )


if __name__ == "__main__":
    main()
