"""What all tests share: an empty home, no tokens, quiet libraries, and one local
Ray for the whole session."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is no mistake of an example
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
# Before anything imports ray: it reads these once. An empty home, so that no test sees or leaves anything in
# the real one; authentication off, so that one test's token cannot break another's cluster.
_home = tempfile.TemporaryDirectory(prefix="advisor-home-")
os.environ["HOME"] = _home.name
# What several tests share (contracts.py, data made by other tests) is found by them, and by the programs and
# workers that they start.
_here = Path(__file__).parent
_path = [str(folder) for folder in (_here, *sorted(_here.iterdir())) if folder.is_dir()]
sys.path += _path
os.environ["PYTHONPATH"] = os.pathsep.join([*_path, *filter(None, [os.environ.get("PYTHONPATH")])])
# Else each process of pytest, and each of several hundred programs that tests start, compiles all of ours again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112  many a test needs none of them
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup all programs that tests start would ignore it
for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
    os.environ.pop(name, None)


LONG = (
    "test_spanning.py",
    "test_tuning.py",
    "test_doctor.py",
    "test_outside.py",
    "test_tutorials.py",
    "test_storage.py",
    "test_formats.py",
    "test_survival.py",
    "test_crashes.py",
)
"""Files of a minute and more, begun first: begun late, one of them leaves the other workers idle at the end.
Those that wait for Ray stand beside those that compute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """The address of one local Ray; executors made without an address use it as
    well, and leave it running."""
    import contracts
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    # The test modules are not installed on the workers, so what they define travels by value.
    ray.cloudpickle.register_pickle_by_value(contracts)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
