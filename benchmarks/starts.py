"""Starts of Ray beside heavy products, as a run makes them: Ray starts in a
thread while the data are measured.

    python benchmarks/starts.py [--starts 50]

Ray forks its processes from Python, and OpenBLAS ends its threads before a fork: a product that is under way
on them waits for ever (advisor.executors.ray.threads). Each start is a fresh process in which NumPy
multiplies on all cores until Ray is there, then loads SciPy and scikit-learn and goes on until a worker has
done a job. Must reach: all of them end. Prints one line for each start that did not, and a line in the end:
starts, those that hung, products, median seconds of a start.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

START = """
import numpy as np
from advisor.executors.base import ENDS, Job
from advisor.executors.ray.executor import RayExecutor
from advisor.executors.ray.pool import RayWorkers
def factory(shared):
    def objective(job):
        yield 1, 1.0
    return objective
matrix, products = np.random.default_rng(0).normal(size=(130, 266)), 0
matrix.T @ matrix
workers = RayWorkers(workers=1)
workers.start()
while not workers._ready.is_set():
    matrix.T @ matrix
    products += 1
    if products == 20:
        import scipy.linalg, sklearn.linear_model
    if products > 20:
        scipy.linalg.blas.dgemm(1.0, matrix.T, matrix)
executor = RayExecutor(factory, None, ray_workers=workers)
executor.submit(Job("one", {}))
while not any(isinstance(event, ENDS) for event in executor.poll(0.1)):
    matrix.T @ matrix
executor.close()
print(products)
"""
LIMIT = 180
"""Seconds for a start, of which a quiet machine takes five."""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=50)
    arguments = parser.parse_args()
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in threads}
    products, took, hung = 0, [], 0
    for number in range(arguments.starts):
        begun = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-c", START],
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=True,
            )
        except subprocess.TimeoutExpired:
            hung += 1
            print(f"start {number} had not ended after {LIMIT} s", flush=True)
            continue
        products += int(done.stdout)
        took.append(time.monotonic() - begun)
    seconds = f"{statistics.median(took):.1f}" if took else "-"
    print(
        f"{arguments.starts} starts, {hung} hung, {products:,} products beside them, {seconds} s each "
        "(median)"
    )
    sys.exit(1 if hung else 0)


if __name__ == "__main__":
    main()
