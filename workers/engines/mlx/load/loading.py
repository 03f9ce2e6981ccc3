"""Loads a model folder into memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from jobs.catalog.catalog import find_adapter
from jobs.catalog.disk_facts import trained_length
from jobs.catalog.mlx_folder import Json
from jobs.catalog.mlx_weights import find_weights, folder_with_only
from jobs.contract.errors import ModelLoadError
from jobs.memory import load_defaults
from workers.engines.base import EngineOptions, OnProgress
from workers.engines.mlx import library
from workers.engines.mlx.cache.abilities import (
    CacheAbilities,
    computes_batches,
    plan_abilities,
)
from workers.engines.mlx.cache.quantized_kv import QuantizedKVModel
from workers.engines.mlx.cache.state_size import StateSize, measure_state
from workers.engines.mlx.cpu import tuning
from workers.engines.mlx.head import Head, find_head
from workers.engines.mlx.library import Model
from workers.engines.mlx.load.adapters import apply_adapter
from workers.engines.mlx.memory import Memory

_EXPANDED_SHARE = 16  # of a share, for expanded weights
# Weights are read in chunks of about this size; progress is reported after each.
_CHUNK_BYTES = 64 << 20
_MAX_REASON = 500  # characters; the library lists every tensor that does not fit


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory: ``module``, and ``model``, which is called to generate.

    ``vocab_size`` is the width of its logits. ``head``: ``None`` if it cannot be limited to the
    last token. ``abilities``: what its caches can do. ``state_size``: ``None`` without a limit of
    the memory. ``host_bytes``: what it takes beside MLX's memory. ``step_scope`` is a context
    manager around each step.
    """

    module: nn.Module
    model: Model
    config: Json
    context_length: int
    vocab_size: int
    num_parameters: int
    quantization: str
    abilities: CacheAbilities
    state_size: StateSize | None = None
    host_bytes: int = 0
    head: Head | None = None
    step_scope: Callable[[], AbstractContextManager[None]] = nullcontext


def load(
    path: Path,
    config: Json,
    options: EngineOptions,
    on_progress: OnProgress,
    memory: Memory | None = None,
) -> LoadedModel:
    """Load the model of the checked folder ``path``, with the adapter in ``options``.

    Raises ``ModelLoadError``, ``InsufficientMemoryError`` if the weights exceed ``memory``, or
    ``InvalidRequestError`` for an option that does not fit the model.
    """
    memory = memory or Memory()
    on_progress(0.0)
    context_length = choose_context_length(config, options.context_length)
    with as_load_error(path), folder_with_only(path, find_weights(path)) as folder:
        module, config = library.open_model(
            folder, config, is_remote_code_trusted=options.is_remote_code_trusted
        )
    if options.adapter is not None:
        adapter = find_adapter(options.adapters_dir, options.adapter, "mlx")
        apply_adapter(module, adapter.path)
    if is_cpu():
        to_float32(module)
    _read_weights(path, module, memory, on_progress)
    with as_load_error(path):
        loaded = _describe(module, config, context_length)
    if options.kv_bits is not None:
        model = QuantizedKVModel(loaded.model, options.kv_bits)
        loaded = replace(loaded, model=model, abilities=plan_abilities(model))
    with as_load_error(path):
        if memory.limit_bytes is not None:
            loaded = replace(loaded, state_size=measure_state(loaded.model))
        if is_cpu() and options.is_cpu_tuned:
            kept_bytes = _bytes_for_expanded(options)
            host_bytes = tuning.install(module, loaded.vocab_size, kept_bytes)
            loaded = replace(loaded, step_scope=tuning.step_scope, host_bytes=host_bytes)
        else:
            tuning.remove(module)
        loaded = replace(loaded, head=find_head(module, loaded.vocab_size))
    if options.kv_bits is not None or options.num_slots == 1:
        return loaded
    return _with_tried_batch(loaded)


def _bytes_for_expanded(options: EngineOptions) -> int:
    if options.memory_bytes is None:
        return load_defaults.EXPANDED_BYTES
    return min(load_defaults.EXPANDED_BYTES, options.memory_bytes // _EXPANDED_SHARE)


def _with_tried_batch(loaded: LoadedModel) -> LoadedModel:
    if not loaded.abilities.can_batch:
        return loaded
    with loaded.step_scope():
        can_batch = computes_batches(loaded.model)
    return replace(loaded, abilities=replace(loaded.abilities, can_batch=can_batch))


@contextmanager
def as_load_error(path: Path) -> Iterator[None]:
    """Turn any exception from a library or from odd file contents into a ``ModelLoadError``."""
    try:
        yield
    except ModelLoadError:
        raise
    except (Exception, SystemExit) as error:  # mlx_lm exits where one architecture lacks a package
        raise ModelLoadError(f"{path.name} cannot be loaded: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What a library's exception says, in words."""
    text = str(error).strip()[:_MAX_REASON]
    if isinstance(error, KeyError):
        return f"{text} is missing in its configuration or its weights"
    if isinstance(error, TypeError) and "required" in text:
        names = re.findall(r"'(.+?)'", text)
        return f"config.json lacks {', '.join(names)}"
    if isinstance(error, ValueError | RuntimeError | OSError | SystemExit) and text:
        return text
    return f"its configuration or its weights do not fit ({type(error).__name__}: {text})"


def _describe(module: nn.Module, config: Json, context_length: int) -> LoadedModel:
    model = cast(Model, module)
    return LoadedModel(
        module=module,
        model=model,
        config=config,
        context_length=context_length,
        vocab_size=_vocab_size(model),
        abilities=plan_abilities(model),
        num_parameters=library.count_parameters(module),
        quantization=_describe_quantization(config),
    )


def choose_context_length(config: Json, requested: int | None) -> int:
    """The longest sequence, in tokens.

    Raises ``ModelLoadError`` if ``requested`` is more than the model was trained for.
    """
    limit = trained_length(config)
    if requested is None:
        return load_defaults.context_length(limit, None)
    if limit is not None and requested > limit:
        raise ModelLoadError(
            f"The model's context is {limit} tokens, {requested} were requested", "context_length"
        )
    return requested


def is_cpu() -> bool:
    """Whether MLX's default device is the CPU."""
    return mx.default_device().type == mx.DeviceType.cpu


def to_float32(module: nn.Module) -> None:
    """Convert floating-point weights, quantization scales and biases to float32.

    On a CPU, MLX multiplies half-precision matrices 2.4 to 30 times slower than float32.
    """
    module.set_dtype(mx.float32)


def _read_weights(path: Path, module: nn.Module, memory: Memory, on_progress: OnProgress) -> None:
    weights = [array for _, array in cast(list[tuple[str, Any]], tree_flatten(module.parameters()))]
    num_total = sum(array.nbytes for array in weights) or 1
    memory.check(num_total, path.name)
    num_done = 0
    for chunk in _chunks(weights):
        with as_load_error(path):
            mx.eval(chunk)
        num_done += sum(array.nbytes for array in chunk)
        on_progress(num_done / num_total)


def _chunks(weights: list[mx.array]) -> Iterator[list[mx.array]]:
    chunk: list[mx.array] = []
    for array in weights:
        chunk.append(array)
        if sum(a.nbytes for a in chunk) >= _CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _vocab_size(model: Model) -> int:
    # Only the shape of the result is used; it is not computed.
    token = mx.zeros((1, 1), dtype=mx.uint32)
    return model(token, cache=library.new_cache(model)).shape[-1]


def _describe_quantization(config: Json) -> str:
    settings = config.get("quantization")
    if not isinstance(settings, dict):
        return ""
    mode = settings.get("mode", "affine")
    prefix = "" if mode == "affine" else f"{mode} "
    return f"{prefix}{settings['bits']}-bit, groups of {settings['group_size']}"
