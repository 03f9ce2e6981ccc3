"""Typed wrappers of what this package uses of mlx_lm, which has no type hints.

mlx_lm is pinned exactly. This package uses its loaders of models and adapters, and its prompt
caches with their batch protocol (``merge``, ``extend``, ``filter``, and in ``kv.py`` ``extract``
and ``trim``); ``tests/engines/test_mlx.py`` fails if that changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import cache as mlx_cache  # type: ignore[import-untyped, unused-ignore]
from mlx_lm.tuner.utils import (  # type: ignore[import-untyped, unused-ignore]
    load_adapters,
)
from mlx_lm.utils import (  # type: ignore[import-untyped, unused-ignore]
    get_total_parameters,
    load_model,
)

Model = Callable[..., mx.array]
"""``model(tokens (B, L), cache=layers) -> logits (B, L, vocab)``; an ``mlx.nn.Module``."""


class LayerCache(Protocol):
    """KV cache of one layer for one sequence or, after ``merge``, for a batch."""

    @property
    def state(self) -> Any: ...
    def merge(self, caches: list[LayerCache]) -> LayerCache: ...
    def extend(self, other: LayerCache) -> None: ...
    def filter(self, batch_indices: list[int]) -> None: ...


PromptCache = list[LayerCache]


def open_model(
    path: Path, config: dict[str, Any], *, is_remote_code_trusted: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of the folder, with weights not read yet, and its configuration.

    ``config``: of its config.json; wrappers may have their quantization in ``text_config``.
    """
    changed: dict[str, Any] = {}
    if "text_config" in config:
        inner = changed["text_config"] = config["text_config"] or {}  # mlx_lm fails at a null
        if "quantization" in inner and "quantization" not in config:
            changed["quantization"] = inner["quantization"]
    model, config = load_model(
        path, lazy=True, model_config=changed, trust_remote_code=is_remote_code_trusted
    )
    return cast(nn.Module, model), config


def load_adapter(module: nn.Module, path: Path) -> None:
    """Put the LoRA, DoRA or full weights of ``path`` into the model; they are not read yet."""
    load_adapters(module, str(path))
    module.eval()  # the new layers start in training mode, with dropout


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of the model, before quantization."""
    return int(get_total_parameters(model))


def new_cache(model: Model) -> PromptCache:
    """An empty cache for one sequence."""
    return cast(PromptCache, mlx_cache.make_prompt_cache(model))


def merge(caches: list[PromptCache]) -> PromptCache:
    """Merge the caches of single sequences, which must not be used afterwards, into a batch's."""
    layers = zip(*caches, strict=True)
    return [layer[0].merge(list(layer)) for layer in layers]


def extended(batch: PromptCache, other: PromptCache) -> PromptCache:
    """The batch cache with the rows of ``other`` after its own; ``batch`` stays as it is.

    So an error in one layer leaves no batch with more rows in some layers than in others.
    """
    layers = [_shallow_copy(layer) for layer in batch]
    for layer, more in zip(layers, other, strict=True):
        layer.extend(more)
    return layers


def _shallow_copy(layer: Any) -> Any:
    copied = copy.copy(layer)
    if isinstance(layer, mlx_cache.CacheList):
        copied.caches = tuple(map(_shallow_copy, layer.caches))
    return copied


def keep_rows(batch: PromptCache, rows: list[int]) -> None:
    """Drop all rows of a batch cache except ``rows``, at least one."""
    for layer in batch:
        layer.filter(rows)
