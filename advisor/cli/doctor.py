"""What is wrong with this machine or a Ray cluster, in words, and what to do about it.

Measuring and judging are apart: ``measure_here`` and ``probe`` bring plain numbers, the ``judge_``
functions make of them what a user reads.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from advisor.cli.options import address_option, examples, json_option
from advisor.cli.output import echo_json, fail_check
from advisor.console import echo, say
from advisor.errors import UserError
from advisor.executors.ray.errors import join, tokens, wants_no_token, why_not
from advisor.files import file_clock
from advisor.machine import COMPARED, release

CheckState = Literal["ok", "note", "problem"]
"""ok: nothing to do. note: worth knowing, it works all the same. problem: searches fail,
stall or mislead until it is fixed."""

FULLEST_DISK = 0.95
"""Above this share Ray refuses to spill objects (its ``local_fs_capacity_threshold``)."""
LEAST_DISK = 10**9
FULLEST_STORE = 0.9
LEAST_SHARED_MEMORY = 512 * 2**20
"""Bytes of /dev/shm below which Ray puts its object store on the disk; a container has 64 MB by default."""
BUSY = 1.5
"""Load per core from which our trials would share the cores with other programs."""
CLOCK_SECONDS = 2.0
PROBE_SECONDS = 120.0
PACKAGES = ("tuning-advisor", "ray", "optuna", "torch", "polars", "numpy")
MUST_AGREE = ("tuning-advisor", *COMPARED, "polars")
"""Packages whose versions a worker and its driver must share: those that the executor asks for before the
first trial, and polars, in whose frames a user's own objective gets its rows."""


@dataclass(frozen=True)
class DoctorCheck:
    """One thing that was looked at: what was found, and for a note or a problem what to do."""

    name: str
    state: CheckState
    says: str
    do: str = ""


@click.command(
    epilog=examples("advisor doctor", "advisor doctor --address auto --storage postgresql://me@db/studies")
)
@address_option
@click.option("--storage", metavar="URL", help="A database to check too.")
@json_option
def doctor(address: str | None, storage: str | None, as_json: bool) -> None:
    """What is wrong with this machine or a cluster, and what to do. Exit code 3
    if something needs fixing."""
    checks = examine(address, storage)
    wrong = [check for check in checks if check.state == "problem"]
    if as_json:
        echo_json({"healthy": not wrong, "checks": [vars(check) for check in checks]})
    else:
        for check in checks:
            mark = "PROBLEM" if check.state == "problem" else check.state
            echo(f"{mark:7} {check.name}: {check.says}{f' -> {check.do}' if check.do else ''}")
        names = ", ".join(check.name for check in wrong)
        say(f"needs fixing: {names}" if wrong else "nothing needs fixing")
    if wrong:
        fail_check()


# -------------------------------------------------------------------------------------------------- measuring


def measure_here() -> dict[str, Any]:
    """This machine in numbers. Works without our package, for it also runs as a task on a cluster's nodes.

    cores: usable; quota: cores that a container's limit leaves, or None; load: processes that wanted
    to run in the last minute; disk: path -> [bytes in all, free]; shared_memory: bytes free in
    /dev/shm, or None; gpus: NVIDIA devices;
    clock: seconds since 1970; versions: of PACKAGES, None for one that is
    missing; threads: OMP_NUM_THREADS, or None.
    """
    import importlib.metadata as metadata
    import os
    import platform
    import re
    import shutil
    import socket
    import tempfile
    import time

    quota = None
    try:
        # runs where only the standard library is
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123
            allowed, period = file.read().split()
        quota = None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError):
        pass
    versions: dict[str, str | None] = {}
    for name in ("tuning-advisor", "ray", "optuna", "torch", "polars", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    disk = {}
    for path in {os.getcwd(), tempfile.gettempdir()}:  # noqa: PTH109
        usage = shutil.disk_usage(path)
        disk[path] = [usage.total, usage.free]
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    devices = [name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)]  # noqa: PTH208
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "quota": quota,
        "load": os.getloadavg()[0],
        "disk": disk,
        "shared_memory": shared,
        "gpus": len(devices),
        "hidden_gpus": os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "versions": versions,
        "clock": time.time(),
    }


def probe(address: str) -> None:
    """Join the cluster and print one JSON document: its nodes, measured. For a
    process of its own, see ``_ask``."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    join(address=address, logging_level="ERROR", log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    nodes = []
    for node in ray.nodes():
        entry = {"host": node["NodeManagerHostname"], "alive": node["Alive"], "resources": node["Resources"]}
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(measure_here).options(num_cpus=0, scheduling_strategy=strategy)
            sent = time.time()
            try:
                entry["measured"] = ray.get(task.remote(), timeout=PROBE_SECONDS / 2)
            except ray.exceptions.RayError as error:
                entry["error"] = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            entry["between"] = [sent, time.time()]
        nodes.append(entry)
    # the answer to the process that asked
    print(json.dumps({"nodes": nodes, "store": _store_used()}))  # noqa: T201


def _store_used() -> list[float]:
    """Bytes used and there in all object stores of the cluster that we have joined."""
    import ray

    resources = (ray.cluster_resources(), ray.available_resources())
    there, free = (one.get("object_store_memory", 0.0) for one in resources)
    return [there - free, there]


def _ask(address: str) -> tuple[dict[str, Any] | None, str]:
    """What ``probe`` found, or None; and everything else that it said. In a process of its own: Ray reads its
    token once, and tells why it was refused only in a line of its log."""
    command = [
        sys.executable,
        "-c",
        "import sys; from advisor.cli.doctor import probe; probe(sys.argv[1])",
        address,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None, "no answer in time"
    try:
        return json.loads(done.stdout.splitlines()[-1]), done.stderr
    except (IndexError, ValueError):
        return None, done.stdout + done.stderr


# --------------------------------------------------------------------------------------------------- judging


def examine(address: str | None = None, storage: str | None = None) -> list[DoctorCheck]:
    """This machine, and with ``address`` the cluster there, and with ``storage`` that database."""
    here = measure_here()
    checks = [
        judge_versions(here),
        *judge_machine(here, ""),
        judge_gpu(here, _torch_sees_gpus(here)),
        judge_file_clock(file_clock(Path.cwd())),
    ]
    checks.append(judge_token(tokens()))
    if storage is not None:
        checks.append(_storage(storage))
    if address is not None:
        checks += _cluster(address, here)
    return checks


def judge_versions(here: Mapping[str, Any]) -> DoctorCheck:
    """Whether what is installed here is what our package asks for."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    wrong = []
    try:
        wanted = [Requirement(text) for text in requires("tuning-advisor") or ()]
    except PackageNotFoundError:
        return DoctorCheck(
            "versions",
            "note",
            "tuning-advisor is not installed, it runs from its folder",
            "pip install tuning-advisor",
        )
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "not installed"
        if found == "not installed" or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found}, needed {requirement.specifier}")
    if wrong:
        return DoctorCheck("versions", "problem", "; ".join(wrong), "pip install -U tuning-advisor")
    shown = ", ".join(f"{name} {there}" for name, there in here["versions"].items() if there)
    return DoctorCheck("versions", "ok", f"Python {here['python']}, {shown}")


def judge_machine(there: Mapping[str, Any], where: str) -> list[DoctorCheck]:
    """Cores, disk and shared memory of a machine;
    where: " on HOST", or nothing for this one."""
    cores, quota, load = there["cores"], there["quota"], there["load"]
    usable = cores if quota is None else min(cores, quota)
    checks = []
    if quota is not None and math.ceil(quota) < cores:
        do = f"give --workers {max(1, int(quota))}, or start Ray with --num-cpus {max(1, int(quota))}"
        checks.append(
            DoctorCheck(
                f"cores{where}", "problem", f"{cores} cores are seen, the container may use {quota:g}", do
            )
        )
    elif load > BUSY * usable:
        do = "trials take longer and reach time limits earlier: use fewer --workers or wait"
        checks.append(DoctorCheck(f"cores{where}", "note", f"{load:.1f} programs share {cores} cores", do))
    else:
        checks.append(DoctorCheck(f"cores{where}", "ok", f"{cores} cores, load {load:.1f}"))
    threads = there["threads"]
    if threads is not None and threads.isdigit() and int(threads) > cores:
        do = f"export OMP_NUM_THREADS={cores}, or leave it unset: workers get their own"
        checks.append(
            DoctorCheck(f"threads{where}", "problem", f"OMP_NUM_THREADS={threads} on {cores} cores", do)
        )
    fullest = min(there["disk"].items(), key=lambda item: item[1][1])
    path, (total, free) = fullest
    used = 1 - free / total
    if used > FULLEST_DISK or free < LEAST_DISK:
        do = "free some space: from 95 % on Ray stores nothing more, and a run that cannot write ends"
        checks.append(
            DoctorCheck(
                f"disk{where}", "problem", f"{path} is {used:.0%} full, {free / 1e9:.1f} GB are left", do
            )
        )
    else:
        checks.append(DoctorCheck(f"disk{where}", "ok", f"{free / 1e9:.0f} GB are free in {path}"))
    shared = there["shared_memory"]
    if shared is not None and shared < LEAST_SHARED_MEMORY:
        do = "start the container with more, say --shm-size=2g: Ray's object store would go to the disk"
        checks.append(
            DoctorCheck(f"shared memory{where}", "problem", f"/dev/shm has {shared / 2**20:.0f} MB", do)
        )
    return checks


def judge_gpu(there: Mapping[str, Any], torch_sees: int, where: str = "") -> DoctorCheck:
    """NVIDIA devices against what PyTorch sees of them."""
    gpus = there["gpus"]
    if not gpus:
        return DoctorCheck(f"GPU{where}", "ok", "none in this machine: trials run on its cores")
    if torch_sees:
        used = "trials of images and series share them, others with --gpus-per-worker"
        return DoctorCheck(f"GPU{where}", "ok", f"{torch_sees} of {gpus} seen by PyTorch: {used}")
    if there["hidden_gpus"]:
        return DoctorCheck(
            f"GPU{where}", "problem", f"{gpus} hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES"
        )
    torch = there["versions"]["torch"] or "not installed"
    if "+cpu" in torch or torch == "not installed":
        return DoctorCheck(
            f"GPU{where}",
            "problem",
            f"{gpus} there, PyTorch ({torch}) cannot use them",
            "install PyTorch's CUDA build",
        )
    return DoctorCheck(
        f"GPU{where}",
        "problem",
        f"{gpus} there, PyTorch {torch} sees none",
        "update the NVIDIA driver: nvidia-smi says its version",
    )


def judge_file_clock(ahead: float | None) -> DoctorCheck:
    """Seconds by which the clock of this folder's file system is ahead of ours."""
    if ahead is None:
        return DoctorCheck(
            "clock",
            "problem",
            f"cannot write in {Path.cwd()}",
            "use a folder with write permission",
        )
    if abs(ahead) > CLOCK_SECONDS:
        do = "set both by NTP: times of runs and of files would contradict each other"
        return DoctorCheck(
            "clock", "problem", f"the file server's clock is {ahead:+.1f} s off this machine's", do
        )
    return DoctorCheck("clock", "ok", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, the file system agrees")


def judge_token(found: Sequence[str]) -> DoctorCheck:
    """Where a token for Ray was found."""
    if not found:
        return DoctorCheck(
            "token", "ok", "no token for Ray is set here: clusters without authentication can be joined"
        )
    says = f"a token for Ray is set ({', '.join(found)}): it is sent to clusters that require one"
    if found[0].startswith("~"):
        return DoctorCheck(
            "token",
            "note",
            says,
            "`ray start --head` on this machine will require it from everyone; remove the file if you do "
            "not want that",
        )
    return DoctorCheck("token", "ok", says)


def judge_node(node: Mapping[str, Any], here: Mapping[str, Any]) -> list[DoctorCheck]:
    """One node of a cluster against this machine."""
    where = f" on {node['host']}"
    if not node["alive"]:
        return []
    if "measured" not in node:
        return [
            DoctorCheck(
                f"node{where}",
                "problem",
                f"does not answer ({node.get('error', 'no reason given')[:200]})",
                "look at its Ray logs",
            )
        ]
    there, resources = node["measured"], node["resources"]
    checks = [*judge_machine(there, where)]
    wrong = [
        f"{name} {there['versions'][name] or 'is missing'} (here {here['versions'][name]})"
        for name in MUST_AGREE
        if release(there["versions"][name] or "") != release(here["versions"][name] or "")
    ]
    if there["python"].rpartition(".")[0] != here["python"].rpartition(".")[0]:
        wrong.append(f"Python {there['python']} (here {here['python']})")
    if wrong:
        checks.append(
            DoctorCheck(
                f"versions{where}",
                "problem",
                "; ".join(wrong),
                "install our wheel there with the same constraints.txt",
            )
        )
    cpus = resources.get("CPU", 0)
    if cpus > there["cores"]:
        do = f"restart the node with --num-cpus {there['cores']}: trials would share cores"
        checks.append(
            DoctorCheck(
                f"threads{where}", "problem", f"offers {cpus:g} CPUs and has {there['cores']} cores", do
            )
        )
    if there["gpus"] and not resources.get("GPU"):
        checks.append(
            DoctorCheck(
                f"GPU{where}",
                "problem",
                f"has {there['gpus']} GPUs and offers none",
                f"restart it with --num-gpus {there['gpus']}",
            )
        )
    elif resources.get("GPU") and "+cpu" in (there["versions"]["torch"] or "+cpu"):
        checks.append(
            DoctorCheck(
                f"GPU{where}",
                "problem",
                "offers GPUs, its PyTorch cannot use them",
                "install PyTorch's CUDA build there",
            )
        )
    sent, back = node["between"]
    off = max(0.0, there["clock"] - back, sent - there["clock"])
    if off > CLOCK_SECONDS:
        checks.append(
            DoctorCheck(f"clock{where}", "problem", f"is {off:.0f} s off this machine's", "set both by NTP")
        )
    return checks


def judge_store(used: float, there: float) -> list[DoctorCheck]:
    """The object stores of a cluster, in bytes."""
    if not there:
        return []
    says = f"{used / there:.0%} of {there / 1e9:.1f} GB are taken"
    if used > FULLEST_STORE * there:
        do = "`ray memory` names who holds it; end those jobs, or start nodes with --object-store-memory"
        return [DoctorCheck("object store", "problem", says, do)]
    return [DoctorCheck("object store", "ok", says)]


def _cluster(address: str, here: Mapping[str, Any]) -> list[DoctorCheck]:
    from advisor.executors.ray.connection import check_connection, settle_authentication

    try:
        check_connection(address)
    except UserError as error:
        says, do = str(error), ""
        if "answers at" in says:
            says, _, do = says.rpartition(": ")
        return [DoctorCheck("cluster", "problem", says, do)]
    if tokens() and os.environ.get("RAY_AUTH_MODE") == "token" and wants_no_token(address):
        # `probe` runs its tasks in the cluster, and would wait for them for ever.
        says = (
            f"{address} requires no token, but RAY_AUTH_MODE is token here: this process refuses the "
            "cluster's calls"
        )
        return [
            DoctorCheck(
                "cluster",
                "problem",
                says,
                "unset RAY_AUTH_MODE: then the token is sent only to clusters that require one",
            )
        ]
    settle_authentication(address)
    found, said = _ask(address)
    if found is None:
        return [DoctorCheck("cluster", "problem", *why_not(address, said))]
    alive = [node for node in found["nodes"] if node["alive"]]
    cpus, gpus = (sum(node["resources"].get(kind, 0) for node in alive) for kind in ("CPU", "GPU"))
    lost = len(found["nodes"]) - len(alive)
    says = f"{len(alive)} nodes, {cpus:g} CPUs, {gpus:g} GPUs" + (f"; {lost} nodes are lost" if lost else "")
    checks = [DoctorCheck("cluster", "ok", says), *judge_store(*found["store"])]
    for node in found["nodes"]:
        checks += judge_node(node, here)
    return checks


def _storage(url: str) -> DoctorCheck:
    from advisor.search.storage.database import check_database, without_password

    try:
        check_database(url)
        return DoctorCheck("storage", "ok", f"{without_password(url)} answers")
    except UserError as error:
        says, _, do = str(error).partition("): ")
        return DoctorCheck("storage", "problem", f"{says})" if do else says, do)


def _torch_sees_gpus(here: Mapping[str, Any]) -> int:
    if not here["gpus"]:
        return 0  # importing torch takes seconds, and would say the same
    import torch

    return torch.cuda.device_count()
