"""Builds the parts of an engine for a loaded model and its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.memory.load_defaults import DEFAULT_SLOTS
from workers.engines.base import EngineOptions
from workers.engines.mlx import device
from workers.engines.mlx.batch.drafting import Drafter
from workers.engines.mlx.batch.prefill import PrefillQueue
from workers.engines.mlx.batch.running_batch import RunningBatch
from workers.engines.mlx.batch.speculation import SpeculativeBatch, num_draft_tokens
from workers.engines.mlx.cache.prompt_cache import PromptStore
from workers.engines.mlx.cache.spill import PromptSpill
from workers.engines.mlx.embedding import Embedder
from workers.engines.mlx.load.identity import model_identity
from workers.engines.mlx.load.loading import LoadedModel
from workers.engines.mlx.load.options import cache_budget
from workers.engines.mlx.load.pooling import own_pooling
from workers.engines.mlx.memory import Memory, StateRoom, measure_pass
from workers.engines.shared.chunk_budget import ChunkBudget, embed_budget, first_chunk


@dataclass(frozen=True, slots=True)
class EngineParts:
    """The prompts in prefill, the running batch, the prompt cache with its spill, the embedder.

    ``room``: ``None`` without a limit of the memory.
    """

    memory: Memory
    room: StateRoom | None
    prefill: PrefillQueue
    batch: RunningBatch | SpeculativeBatch
    store: PromptStore
    spill: PromptSpill | None
    embedder: Embedder


def build_engine_parts(
    path: Path,
    loaded: LoadedModel,
    end_ids: frozenset[int],
    options: EngineOptions,
    drafter: Drafter | None,
    memory: Memory,
    room: StateRoom | None,
) -> EngineParts:
    """Build the parts for the model of the folder ``path``.

    Raises ``ModelLoadError`` if the folder for spilled prompts cannot be used, or for a pooling
    that is not known.
    """
    max_bytes = cache_budget(loaded, options, room)
    spill = _open_spill(path, options) if max_bytes > 0 else None
    store = PromptStore(
        max_bytes, None if spill is None else spill.put, largest_bytes=options.prompt_cache_bytes
    )
    batch = _batch(loaded, end_ids, options, drafter, store, memory)
    find_spilled = None if spill is None else spill.find
    prefill = PrefillQueue(
        loaded.model,
        store,
        batch.find,
        find_spilled,
        is_reusing=max_bytes > 0,
        budget=ChunkBudget(
            options.step_budget_s,
            first=first_chunk(loaded.num_parameters, options.step_budget_s),
            is_gpu=device.is_gpu(),
        ),
        head=loaded.head,
        end_ids=end_ids,
        memory=memory,
        room=room,
    )
    budget = embed_budget(loaded.num_parameters, options.step_budget_s, is_gpu=device.is_gpu())
    embedder = Embedder(loaded, own_pooling(path), budget, room)
    return EngineParts(memory, room, prefill, batch, store, spill, embedder)


def _open_spill(path: Path, options: EngineOptions) -> PromptSpill | None:
    if options.prompt_cache_dir is None:
        return None
    return PromptSpill(options.prompt_cache_dir, model_identity(path, options))


def _batch(
    loaded: LoadedModel,
    end_ids: frozenset[int],
    options: EngineOptions,
    drafter: Drafter | None,
    store: PromptStore,
    memory: Memory,
) -> RunningBatch | SpeculativeBatch:
    if drafter is None:
        return RunningBatch(loaded.model, end_ids, store, memory)
    num_drafts = num_draft_tokens(options)
    return SpeculativeBatch(loaded.model, end_ids, store, drafter, num_drafts, memory)


def open_room(
    loaded: LoadedModel, options: EngineOptions, memory: Memory, drafter: Drafter | None
) -> StateRoom | None:
    """What is left for states when all weights have been read; ``None`` without a limit."""
    if memory.limit_bytes is None or loaded.state_size is None:
        return None
    memory.set_aside(loaded.host_bytes)
    length = options.context_length or loaded.context_length
    with loaded.step_scope():
        cost = measure_pass(loaded.model, loaded.state_size, length)
    num_drawn = 1 if drafter is None else 1 + num_draft_tokens(options)
    return StateRoom(
        memory,
        loaded.state_size,
        cost,
        num_drawn=max(num_drawn, options.num_slots or DEFAULT_SLOTS),
        vocab_size=loaded.vocab_size,
        context_length=length,
        draft_size=None if drafter is None else drafter.state_size,
    )
