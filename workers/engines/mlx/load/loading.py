"""Reading a model folder into memory."""

from __future__ import annotations

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
from jobs.contract.errors import ModelLoadError
from workers.engines.base import EngineOptions, OnProgress
from workers.engines.mlx import library
from workers.engines.mlx.cache.quantized_kv import QuantizedKVModel
from workers.engines.mlx.cpu import tuning
from workers.engines.mlx.head import Head, find_head
from workers.engines.mlx.library import Model
from workers.engines.mlx.load.adapters import apply_adapter
from workers.engines.mlx.load.folder import Json

# Longer contexts are there for who asks: the KV cache grows with them.
_DEFAULT_CONTEXT_LENGTH = 8192
# Weights are read and reported in pieces of about this size.
_PIECE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory: ``module``, and how it is called to generate, ``model``.

    ``vocab_size`` is the width of its logits; ``head`` makes them, if it can be told which.
    ``step_scope`` is the context of a step.
    """

    module: nn.Module
    model: Model
    config: Json
    context_length: int
    vocab_size: int
    num_parameters: int
    quantization: str
    head: Head | None = None
    step_scope: Callable[[], AbstractContextManager[None]] = nullcontext


def load(path: Path, config: Json, options: EngineOptions, on_progress: OnProgress) -> LoadedModel:
    """The model of the checked folder ``path``, in memory, with the adapter asked for.

    Raises ``ModelLoadError``, or ``InvalidRequestError`` for an option that does not fit the model.
    """
    on_progress(0.0)
    context_length = choose_context_length(config, options.context_length)
    with explained(path):
        library.raise_wired_limit()
        module, config = library.open_model(
            path, is_remote_code_trusted=options.is_remote_code_trusted
        )
    if options.adapter is not None:
        adapter = find_adapter(options.adapters_dir, options.adapter, "mlx")
        apply_adapter(module, adapter.path)
    if is_cpu():
        widen(module)
    _read_weights(path, module, on_progress)
    with explained(path):
        loaded = _describe(module, config, context_length)
        if is_cpu() and options.is_cpu_tuned:
            tuning.install(module, loaded.vocab_size)
            loaded = replace(loaded, step_scope=tuning.step_scope)
        else:
            tuning.remove(module)
        loaded = replace(loaded, head=find_head(module, loaded.vocab_size))
    if options.kv_bits is None:
        return loaded
    return replace(loaded, model=QuantizedKVModel(loaded.model, options.kv_bits))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever a library, or odd contents of a file, raises into a ``ModelLoadError``."""
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(f"{path.name} cannot be loaded: {error!r}") from error


def _describe(module: nn.Module, config: Json, context_length: int) -> LoadedModel:
    model = cast(Model, module)
    return LoadedModel(
        module=module,
        model=model,
        config=config,
        context_length=context_length,
        vocab_size=_vocab_size(model),
        num_parameters=library.count_parameters(module),
        quantization=_describe_quantization(config),
    )


def choose_context_length(config: Json, asked: int | None) -> int:
    """The longest sequence, in tokens: what was asked for, within what the model was made for."""
    limit = trained_length(config)
    if asked is None:
        return min(limit or _DEFAULT_CONTEXT_LENGTH, _DEFAULT_CONTEXT_LENGTH)
    if limit is not None and asked > limit:
        raise ModelLoadError(
            f"The model's context is {limit} tokens, {asked} were asked for", "context_length"
        )
    return asked


def is_cpu() -> bool:
    """Whether MLX computes on a CPU here."""
    return mx.default_device().type == mx.DeviceType.cpu


def widen(module: nn.Module) -> None:
    """Make floating weights, quantization scales and biases float32.

    On a CPU, MLX multiplies half-precision matrices 2.4 to 30 times slower than float32.
    """
    module.set_dtype(mx.float32)


def _read_weights(path: Path, module: nn.Module, on_progress: OnProgress) -> None:
    weights = [array for _, array in cast(list[tuple[str, Any]], tree_flatten(module.parameters()))]
    num_total = sum(array.nbytes for array in weights) or 1
    num_done = 0
    for piece in _pieces(weights):
        with explained(path):
            mx.eval(piece)
        num_done += sum(array.nbytes for array in piece)
        on_progress(num_done / num_total)


def _pieces(weights: list[mx.array]) -> Iterator[list[mx.array]]:
    piece: list[mx.array] = []
    for array in weights:
        piece.append(array)
        if sum(a.nbytes for a in piece) >= _PIECE_BYTES:
            yield piece
            piece = []
    if piece:
        yield piece


def _vocab_size(model: Model) -> int:
    # The shape of a result that is never computed.
    token = mx.zeros((1, 1), dtype=mx.uint32)
    return model(token, cache=library.new_cache(model)).shape[-1]


def _describe_quantization(config: Json) -> str:
    settings = config.get("quantization")
    if not isinstance(settings, dict):
        return ""
    mode = settings.get("mode", "affine")
    prefix = "" if mode == "affine" else f"{mode} "
    return f"{prefix}{settings['bits']}-bit, groups of {settings['group_size']}"
