"""BLAS and OpenMP with one thread while this process may be forked.

Ray starts its processes with ``preexec_fn``, so that Python forks. Before a fork, OpenBLAS ends the threads
of the *parent* (``pthread_atfork``), and a product that is under way on them then waits for ever. With one
thread it uses none of them. Children without ``preexec_fn`` (``subprocess`` by default) are started by
``vfork``, which calls no such handler.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import LibController, ThreadpoolController, threadpool_limits

VARIABLES = {
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
    "openmp": "OMP_NUM_THREADS",
}
"""What each kind of library reads its number of threads from when it is loaded,
before it looks at OMP_NUM_THREADS."""


def environment(threads: int) -> dict[str, str]:
    """Environment variables by which libraries that are loaded from then on use this many threads."""
    return dict.fromkeys(VARIABLES.values(), str(threads))


def limit(threads: int) -> None:
    """From now on at most this many threads in this process: for what is loaded, and for what will be."""
    os.environ.update(environment(threads))
    threadpool_limits(threads)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """One thread for what is loaded and for what is loaded meanwhile; afterwards
    as many as there would have been.

    To be entered and left in the same thread: OpenMP keeps the number for each.
    """
    before = {name: os.environ.get(name) for name in VARIABLES.values()}
    os.environ.update(environment(1))
    there = {library.filepath for library in ThreadpoolController().lib_controllers}
    with threadpool_limits(1):
        yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for library in ThreadpoolController().lib_controllers:
        if library.filepath not in there:
            library.set_num_threads(_usual(library))


def _usual(library: LibController) -> int:
    """Threads that the library takes by itself: as the user says, or one to a core."""
    for name in (VARIABLES.get(library.internal_api, ""), "OMP_NUM_THREADS"):
        said = os.environ.get(name, "").partition(",")[0]  # OpenMP takes one number for each level
        if said.isdigit() and int(said) > 0:
            return int(said)
    return len(os.sched_getaffinity(0))
