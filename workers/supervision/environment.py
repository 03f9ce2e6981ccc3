"""The environment of worker processes."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]

# For GCC's OpenMP, with which llama.cpp computes: a thread that waits for the others would keep its
# core busy for milliseconds, which others need: Redis and the API between two calls, and other
# models. Within a call it waits about so long. Two models at once on two cores: 65 instead of 44
# tokens/s; one alone is as fast as before.
_SPINS = "2000"
# For OpenBLAS, with which NumPy computes for MLX: its threads would take their core from others for
# tens of milliseconds before they sleep. What they wait now is 2 to the power of this in cycles,
# one or two milliseconds. Who sleeps after each product is not better: on a virtual machine that
# had been idle, products then waited for ticks of the clock, 4 to 12 ms each.
_BLAS_WAIT = "22"


def worker_environment() -> dict[str, str]:
    """Ours, where the packages are, and how long threads wait, unless that is set."""
    inherited = dict(os.environ)  # noqa: TID251 - handed on whole
    # Nothing depends on the current folder.
    own = {"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}
    if "OMP_WAIT_POLICY" not in inherited:
        inherited.setdefault("GOMP_SPINCOUNT", _SPINS)
    inherited.setdefault("OPENBLAS_THREAD_TIMEOUT", _BLAS_WAIT)
    return inherited | own
