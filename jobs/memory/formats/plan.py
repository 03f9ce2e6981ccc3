"""The options of a load with their defaults, and the memory of one model under them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jobs.contract.requests import KvLayout, LoadRequest
from jobs.memory import load_defaults
from jobs.memory.facts import MachineFacts
from jobs.settings import Settings

Device = Literal["cpu", "metal", "cuda", "other"]

_MIB = 1 << 20
# Of a worker with its libraries, after a first request, on Linux (docs/memory.md).
_PROCESS_BYTES = {"mlx": 136 * _MIB, "llama-cpp": 64 * _MIB}


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """The memory of one model in bytes. ``state_per_token`` is of the state that grows.

    ``is_known``: the files say all that the estimate depends on.
    """

    weights_bytes: int
    state_bytes: int
    compute_bytes: int = 0
    is_known: bool = False
    context_length: int = 0
    num_slots: int = 0
    state_per_token: int = 0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The options of a load; ``None`` leaves the choice to the model's files."""

    facts: MachineFacts
    context_length: int | None
    num_slots: int | None
    kv_bits: int | None
    kv_layout: KvLayout | None
    num_drafts: int
    cache_bytes: int | None
    is_on_gpu: bool

    @classmethod
    def of(cls, load: LoadRequest, settings: Settings, facts: MachineFacts) -> LoadPlan:
        """The options of ``load`` with the settings as defaults."""
        drafts = load_defaults.num_drafts(
            load.num_draft_tokens, has_draft_model=load.draft_model is not None
        )
        cache = load.prompt_cache_bytes
        return cls(
            facts=facts,
            context_length=load.context_length,
            num_slots=load.slots or settings.slots,
            kv_bits=load.kv_bits,
            kv_layout=load.kv_layout,
            num_drafts=drafts,
            cache_bytes=settings.prompt_cache_bytes if cache is None else cache,
            is_on_gpu=load.gpu_layers != 0,
        )

    def of_draft(self, context_length: int) -> LoadPlan:
        """The options of the draft model of a model with that context."""
        return replace(
            self, context_length=context_length, kv_layout=None, num_drafts=0, cache_bytes=0
        )

    @property
    def is_alone(self) -> bool:
        """Whether an MLX model has one slot for its options."""
        return self.kv_bits is not None or self.num_drafts > 0

    def device(self, backend: str) -> Device:
        """Where the engine of ``backend`` computes."""
        gpu = self.facts.gpu_of(backend)
        return gpu.kind if gpu is not None and self.is_on_gpu else "cpu"

    def prompt_cache_bytes(self, backend: str) -> int:
        """Size limit of the kept prompts, as far as they take the memory that is counted."""
        if backend == "llama-cpp" and self.device(backend) == "cuda":
            return 0  # they are kept in the memory of the machine, not of the GPU
        return load_defaults.prompt_cache_bytes(backend, self.cache_bytes, self.facts.memory_bytes)

    def process_bytes(self, backend: str) -> int:
        """A worker's own memory, if it is the memory that is counted."""
        return 0 if self.device(backend) == "cuda" else _PROCESS_BYTES[backend]
