"""Prints the GPUs that the engines compute on as JSON: ``jobs/memory/facts.py`` asks so.

A process of its own, because the libraries take seconds to load and keep a GPU open.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import msgspec

from jobs.memory.facts import Gpu

log = logging.getLogger(__name__)


def _mlx_gpu() -> Gpu | None:
    from workers.engines.mlx.device import gpu

    return gpu()


def _llama_cpp_gpu() -> Gpu | None:
    from workers.engines.llama_cpp.devices import gpu

    return gpu()


_READERS: dict[str, Callable[[], Gpu | None]] = {"mlx": _mlx_gpu, "llama-cpp": _llama_cpp_gpu}


def gpus() -> dict[str, Gpu]:
    """The GPU of each backend that has one; a library that fails or is missing has none."""
    found = {}
    for backend, read in _READERS.items():
        try:
            gpu = read()
        except Exception as error:  # a library's own
            log.warning("no device of %s: %s", backend, error)
            continue
        if gpu is not None:
            found[backend] = gpu
    return found


if __name__ == "__main__":
    sys.stdout.write("\n" + msgspec.json.encode(gpus()).decode() + "\n")
