"""The environment of worker processes."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]

# For GCC's OpenMP, which llama.cpp uses: a waiting thread would spin for milliseconds on a core
# that Redis, the API and other models need. This count is about as long as waits within one decode
# pass. Two models at once on two cores: 65 instead of 44 tokens/s; one alone is as fast as before.
_SPINS = "2000"
# For OpenBLAS, which NumPy uses for MLX: its threads would spin for tens of milliseconds before
# they sleep. The value is the exponent of a power of two in cycles: one or two milliseconds.
# Sleeping after each product is not better: on a virtual machine that had been idle, products then
# waited for timer ticks, 4 to 12 ms each.
_BLAS_WAIT = "22"
# For LLVM's OpenMP, which CMake may find on a Mac: milliseconds, 200 by itself.
_LLVM_WAIT = "1"


def worker_environment() -> dict[str, str]:
    """This process's environment, plus the path of the packages and the spin limits."""
    inherited = dict(os.environ)  # noqa: TID251 - passed on as a whole
    # Imports must not depend on the current folder.
    own = {"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}
    if "OMP_WAIT_POLICY" not in inherited:
        inherited.setdefault("GOMP_SPINCOUNT", _SPINS)
        inherited.setdefault("KMP_BLOCKTIME", _LLVM_WAIT)
    inherited.setdefault("OPENBLAS_THREAD_TIMEOUT", _BLAS_WAIT)
    return inherited | own
