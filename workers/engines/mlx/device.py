"""The GPU that MLX computes on: its memory and its errors.

MLX notes the error of a failed command once, and raises it as a ``RuntimeError`` in the next call
that sends work to the device: later, and perhaps for another sequence. On a CPU an exception
belongs to the call that raises it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from jobs.memory.facts import Gpu
from workers.engines.failures import DeviceLostError

_ALLOCATION = re.compile(r"\[[\w: ]*alloc\w*\]")  # what could not be allocated has not been sent


def is_gpu() -> bool:
    """Whether MLX's default device is a GPU."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)


def raise_if_lost(error: Exception) -> None:
    """Raise ``DeviceLostError`` if ``error`` may come from an earlier command of the GPU."""
    if is_gpu() and isinstance(error, RuntimeError) and not _ALLOCATION.match(str(error)):
        raise DeviceLostError(str(error)) from error


@contextmanager
def watched() -> Iterator[None]:
    """Turn the errors of failed commands into ``DeviceLostError``; check once more at the end.

    What was computed inside may be used after it.
    """
    try:
        yield
        if is_gpu():
            mx.async_eval(mx.zeros(1) + 1)  # raises what results that have been read left behind
    except RuntimeError as error:
        raise_if_lost(error)
        raise


def gpu() -> Gpu | None:
    """The GPU; ``None``: MLX computes on the CPU."""
    if not is_gpu():
        return None
    facts: dict[str, Any] = mx.device_info()
    working_set = int(facts.get("max_recommended_working_set_size", 0))
    if working_set:
        return Gpu("metal", working_set)
    return Gpu("cuda", int(facts.get("total_memory", 0)), int(facts.get("free_memory", 0)))


def memory_bytes() -> int | None:
    """What this process may take of the GPU's memory; ``None`` on a CPU, or if MLX does not say."""
    found = gpu()
    return None if found is None else found.free_bytes or found.limit_bytes or None
