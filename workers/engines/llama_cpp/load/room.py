"""What contexts and kept states may take, and what contexts have taken.

llama.cpp tells the sizes of a context's buffers in its log only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from jobs.contract.errors import InsufficientMemoryError
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp import devices
from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.shared.memory_text import to_text

_PART_OF_GPU = 0.9  # of what is free, if the model has no share
_REMEDY = "choose a smaller model or quantization, or unload others"


def is_on_cpu(options: EngineOptions) -> bool:
    """Whether no layer is computed on a GPU."""
    return options.num_gpu_layers == 0 or not lib.llama_supports_gpu_offload()


def _bounds(options: EngineOptions, num_loaded: int) -> list[int]:
    """What may still be taken after ``num_loaded`` bytes: of the share, and of the GPU."""
    found = [] if options.memory_bytes is None else [options.memory_bytes - num_loaded]
    on_gpu = None if is_on_cpu(options) else devices.free_bytes()
    return found if on_gpu is None else [*found, int(on_gpu * _PART_OF_GPU)]


def check_weights(path: Path, files: list[Path], options: EngineOptions) -> None:
    """Raise ``InsufficientMemoryError`` if the weights are larger than the memory for them."""
    needed = sum(file.stat().st_size for file in files)
    there = min(_bounds(options, 0), default=needed)
    if needed > there:
        raise InsufficientMemoryError(
            f"{path.name}: its weights take {to_text(needed)}, "
            f"{to_text(there)} are there: {_REMEDY}"
        )


def room_beside(model: Pointer, options: EngineOptions) -> int | None:
    """Bytes for all that is not the loaded model's weights; ``None``: no limit."""
    return min(_bounds(options, lib.llama_model_size(model)), default=None)


class _States(Protocol):
    def limit(self, num_bytes: int) -> None:
        """Take at most so much."""


class SpareMemory:
    """What the context of a model leaves: for kept states, and before them for vectors."""

    def __init__(self, num_bytes: int | None) -> None:
        """``None``: no limit."""
        self._num_bytes = num_bytes
        self._num_taken = 0
        self._states: _States | None = None

    def give_rest_to(self, states: _States) -> None:
        """Let ``states`` have what is not taken."""
        self._states = states
        self._share()

    def take(self, num_bytes: int, purpose: str) -> None:
        """Raise ``InsufficientMemoryError`` if there is not so much."""
        if self._num_bytes is not None and self._num_taken + num_bytes > self._num_bytes:
            left = max(self._num_bytes - self._num_taken, 0)
            raise InsufficientMemoryError(
                f"no memory {purpose}: {to_text(num_bytes)} are needed, {to_text(left)} are left"
            )
        self._num_taken += num_bytes
        self._share()

    def give_back(self, num_bytes: int) -> None:
        self._num_taken -= num_bytes
        self._share()

    def _share(self) -> None:
        if self._num_bytes is not None and self._states is not None:
            self._states.limit(max(self._num_bytes - self._num_taken, 0))
