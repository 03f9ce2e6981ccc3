"""The memory of this machine and of its GPU, as the engines' libraries see it.

The libraries are not imported here: a short child process asks them, where there may be a GPU.
"""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import msgspec

from jobs.platform.base import Platform
from jobs.platform.current import current_platform
from jobs.platform.darwin import Darwin

_ASK = (sys.executable, "-m", "workers.engines.devices")
_ANSWER_S = 60.0

GpuKind = Literal["metal", "cuda", "other"]

log = logging.getLogger(__name__)


class Gpu(msgspec.Struct, frozen=True):
    """A GPU that an engine computes on.

    ``limit_bytes``: what it may hold; of Metal, the recommended working set. ``free_bytes``: what
    no process uses now; 0 where the library does not tell.
    """

    kind: GpuKind
    limit_bytes: int
    free_bytes: int = 0


class MachineFacts(msgspec.Struct, frozen=True):
    """Memory that processes may use, and the GPU of each backend that has one.

    ``is_in_group``: a control group allows less than the machine has.
    """

    memory_bytes: int
    gpus: dict[str, Gpu] = {}
    is_in_group: bool = False

    def gpu_of(self, backend: str) -> Gpu | None:
        return self.gpus.get(backend)

    @property
    def gpu(self) -> Gpu | None:
        """The machine's GPU; the one that more memory is left of, if backends see others."""
        return max(self.gpus.values(), key=lambda gpu: gpu.limit_bytes, default=None)


@functools.cache
def machine_facts() -> MachineFacts:
    """The facts of this machine, asked once per process. May take seconds."""
    return read_facts(current_platform(), _ask_engines)


def read_facts(platform: Platform, ask_engines: Callable[[], bytes | None]) -> MachineFacts:
    """The facts of a machine. ``ask_engines``: GPUs by backend as JSON; ``None``: no answer."""
    memory = platform.usable_memory_bytes()
    gpus = _decode(ask_engines()) if platform.may_have_gpu() else {}
    if not gpus and isinstance(platform, Darwin):
        assumed = Gpu("metal", platform.device_memory_bytes())
        gpus = {"mlx": assumed, "llama-cpp": assumed}
    return MachineFacts(memory, gpus, is_in_group=memory < platform.memory_bytes())


def _decode(answer: bytes | None) -> dict[str, Gpu]:
    if answer is None:
        return {}
    try:
        return msgspec.json.decode(answer, type=dict[str, Gpu])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("the engines' devices cannot be read", extra={"error": str(error)})
        return {}


def _ask_engines() -> bytes | None:
    """The output of the child; the libraries may also print, so only its last line counts."""
    try:
        done = subprocess.run(
            _ASK, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("the engines' devices are unknown", extra={"error": str(error)})
        return None
    return done.stdout.strip().rpartition(b"\n")[2]
