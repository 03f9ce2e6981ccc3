"""Checks load options before a load, and applies their defaults to a loaded model."""

from __future__ import annotations

import logging

from jobs.contract.errors import UnsupportedParameterError
from jobs.memory import load_defaults
from jobs.platform.current import current_platform
from workers.engines.base import EngineOptions, ModelInfo
from workers.engines.mlx.batch import speculation
from workers.engines.mlx.cache.quantized_kv import check_kv_bits
from workers.engines.mlx.load.loading import LoadedModel, is_cpu

log = logging.getLogger(__name__)


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


def cache_budget(loaded: LoadedModel, options: EngineOptions) -> int:
    """Size limit of the prompt cache in bytes; 0 for a model whose state cannot be copied."""
    if not loaded.abilities.can_keep:
        return 0
    memory = current_platform().usable_memory_bytes()
    return load_defaults.prompt_cache_bytes("mlx", options.prompt_cache_bytes, memory)


def describe(loaded: LoadedModel, options: EngineOptions) -> ModelInfo:
    """The facts about the loaded model."""
    return ModelInfo(
        backend="mlx",
        context_length=loaded.context_length,
        num_slots=_num_slots(loaded, options),
        vocab_size=loaded.vocab_size,
        architecture=str(loaded.config["model_type"]),
        quantization=loaded.quantization,
        num_parameters=loaded.num_parameters,
        is_on_gpu=not is_cpu(),
    )


def _num_slots(loaded: LoadedModel, options: EngineOptions) -> int:
    if speculation.is_requested(options):
        return 1
    num_slots = options.num_slots or load_defaults.DEFAULT_SLOTS
    if num_slots > 1 and not loaded.abilities.can_batch:
        log.warning("this model cannot be batched: its requests run one after the other")
        return 1
    return num_slots
