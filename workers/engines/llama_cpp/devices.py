"""The GPUs that llama.cpp computes on."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from jobs.memory.facts import Gpu, GpuKind
from workers.engines.llama_cpp.binding import lib

_GPU_TYPES = (1, 2)  # enum ggml_backend_dev_type: a GPU, and one that shares the machine's memory
_KINDS: dict[str, GpuKind] = {"CUDA": "cuda", "MTL": "metal", "Metal": "metal"}


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml-backend.h, which the binding does not have."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, lib._lib))


def gpu() -> Gpu | None:
    """The first GPU; ``None``: llama.cpp computes on the CPU."""
    return next(_gpus(), None)


def free_bytes() -> int | None:
    """What this process may still take of all GPUs; ``None`` without one."""
    found = [gpu.free_bytes for gpu in _gpus()]
    return sum(found) if found else None


def _gpus() -> Iterator[Gpu]:
    count = _function("ggml_backend_dev_count", ctypes.c_size_t)
    get = _function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    type_of = _function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    for index in range(count()):
        device = get(index)
        if type_of(device) in _GPU_TYPES:
            yield _gpu(device)


def _gpu(device: int) -> Gpu:
    name_of = _function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    size = ctypes.c_size_t
    memory_of = _function(
        "ggml_backend_dev_memory", None, ctypes.c_void_p, ctypes.POINTER(size), ctypes.POINTER(size)
    )
    free, total = size(), size()
    memory_of(device, ctypes.byref(free), ctypes.byref(total))
    name = name_of(device).decode(errors="replace")
    kinds = (kind for start, kind in _KINDS.items() if name.startswith(start))
    return Gpu(next(kinds, "other"), total.value, free.value)
