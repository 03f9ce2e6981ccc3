"""Checks load options before a load, and applies their defaults to a loaded model."""

from __future__ import annotations

import logging
from dataclasses import replace

from jobs.catalog.disk_facts import trained_length
from jobs.contract.errors import InsufficientMemoryError, UnsupportedParameterError
from jobs.memory import load_defaults
from jobs.platform.current import current_platform
from workers.engines.base import EngineOptions, ModelInfo
from workers.engines.mlx.batch import speculation
from workers.engines.mlx.cache.quantized_kv import check_kv_bits
from workers.engines.mlx.load.loading import LoadedModel, is_cpu
from workers.engines.mlx.memory import StateRoom
from workers.engines.shared.memory_text import to_text

log = logging.getLogger(__name__)

_LONGEST_DEFAULT = 32768  # tokens of a context where its room is known
_SHORTEST_CONTEXT = 256
_SHORT_TEXT = 64


def check_options(options: EngineOptions) -> None:
    """Raise ``InvalidRequestError`` with the name of an option that no MLX model supports."""
    refused = {
        "threads": options.num_threads,
        "gpu_layers": options.num_gpu_layers,
        "kv_layout": options.kv_layout,
    }
    for name, value in refused.items():
        if value is not None:
            raise UnsupportedParameterError(f"{name} is not supported for MLX models", name)
    if options.kv_bits is not None:
        check_kv_bits(options.kv_bits, options.num_slots)
    if speculation.is_requested(options):
        speculation.check_draft_options(options)


def cache_budget(loaded: LoadedModel, options: EngineOptions, room: StateRoom | None) -> int:
    """About how many bytes the prompt cache takes; 0 for a model whose state cannot be copied."""
    if not loaded.abilities.can_keep:
        return 0
    if options.prompt_cache_bytes is None and room is not None:
        return room.num_bytes // 3
    memory = current_platform().usable_memory_bytes()
    return load_defaults.prompt_cache_bytes("mlx", options.prompt_cache_bytes, memory)


def fit_context(loaded: LoadedModel, options: EngineOptions, room: StateRoom) -> LoadedModel:
    """The model with the context that was requested, or with one that follows from the room.

    By default as long as two such sequences fit, or up to 8192 tokens that one alone fills. Raises
    ``InsufficientMemoryError`` if not even that is possible.
    """
    most = options.context_length or _longest_default(loaded)
    wanted = options.context_length or min(most, _SHORTEST_CONTEXT)
    longest = room.longest(1, most)
    if longest < wanted:
        raise InsufficientMemoryError(
            f"no memory for a context of {wanted} tokens: its state takes "
            f"{to_text(room.needed([wanted]))}, {to_text(max(room.num_bytes, 0))} are left; "
            f"{longest} tokens fit: choose a shorter context_length, a smaller model or kv_bits"
        )
    if options.context_length is None:
        longest = max(room.longest(2, longest), min(longest, load_defaults.DEFAULT_CONTEXT_LENGTH))
    return replace(loaded, context_length=longest)


def _longest_default(loaded: LoadedModel) -> int:
    trained = trained_length(loaded.config)
    return loaded.context_length if trained is None else min(trained, _LONGEST_DEFAULT)


def describe(loaded: LoadedModel, options: EngineOptions, num_slots: int) -> ModelInfo:
    """The facts about the loaded model."""
    return ModelInfo(
        backend="mlx",
        context_length=loaded.context_length,
        num_slots=num_slots,
        vocab_size=loaded.vocab_size,
        architecture=str(loaded.config["model_type"]),
        quantization=loaded.quantization,
        num_parameters=loaded.num_parameters,
        is_on_gpu=not is_cpu(),
    )


def num_slots_of(loaded: LoadedModel, options: EngineOptions, room: StateRoom | None) -> int:
    """How many sequences may run at most; with long ones perhaps fewer do, see ``StateRoom``."""
    num_slots = _wanted_slots(loaded, options)
    if room is None or options.num_slots is not None:
        return num_slots
    # More would wait in the engine, not on the queue, where they are seen.
    fitting = (num for num in range(num_slots, 1, -1) if room.left([_SHORT_TEXT] * num) >= 0)
    return next(fitting, 1)


def _wanted_slots(loaded: LoadedModel, options: EngineOptions) -> int:
    if speculation.is_requested(options):
        return 1
    num_slots = options.num_slots or load_defaults.DEFAULT_SLOTS
    if num_slots > 1 and not loaded.abilities.can_batch:
        log.warning("this model cannot be batched: its requests run one after the other")
        return 1
    return num_slots
