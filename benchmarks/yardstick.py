"""How fast a machine is, by work that has nothing of ours: what targets were made from can be told from it.

The targets of latency were set on a machine that multiplies 100,000 float32 vectors of 64 numbers with one vector in
.92 milliseconds on one core. It reads 25.6 MB, which no cache of a core holds.
"""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import statistics, time
import numpy as np
vectors, one = np.ones((100_000, 64), np.float32), np.ones(64, np.float32)
def timed():
    began = time.perf_counter()
    vectors @ one
    return 1000 * (time.perf_counter() - began)
print(statistics.median(timed() for _ in range(201)))
"""


def product_ms() -> float:
    """Milliseconds of that product, the median of 201, on one thread of a process of its own."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return round(float(done.stdout), 2)
